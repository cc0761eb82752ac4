//! Runs over a backup that was damaged after it was made: what is not what the manifest says is
//! neither kept nor linked.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// Spoils what a file of the last backup is, after the run has seen that the backup is complete.
fn spoil(what: &str, file: &Path) {
    let moved = |path: &Path| {
        let to = path.with_extension("moved");
        fs::rename(path, &to).unwrap();
        to
    };
    match what {
        "nothing" => {}
        "its last byte" => {
            let mut bytes = fs::read(file).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(file, bytes).unwrap();
        }
        "its end" => fs::write(file, "").unwrap(),
        "what follows" => {
            let mut bytes = fs::read(file).unwrap();
            bytes.push(b'1');
            fs::write(file, bytes).unwrap();
        }
        "its kind" => symlink(moved(file), file).unwrap(),
        "a pipe" => {
            moved(file);
            let made = Command::new("mkfifo").arg(file).status().unwrap();
            assert!(made.success());
        }
        "its directory" => {
            let data = file.parent().unwrap();
            symlink(moved(data), data).unwrap();
        }
        "its mode" => fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap(),
        _ => unreachable!("{what}"),
    }
}

#[test]
fn only_what_is_undamaged_and_private_is_linked() {
    let data = "1".repeat(200_000);
    let file = names::data("a", 1, Compression::None, false);
    for what in [
        "nothing",
        "its last byte",
        "its end",
        "what follows",
        "its kind",
        "a pipe",
        "its directory",
        "its mode",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let target = user_data(&dir.path().join("user"));
        let first = save(&target, &[("a", &data)]);
        let staging = begin(&target);
        assert!(staging.previous().is_some());
        spoil(what, &first.path.join(&file));
        let manifest = fill(&staging, target.kind, &[("a", &data)]);
        let second = staging.seal(&manifest, &run_record()).unwrap();
        let second = second.publish().unwrap();
        assert!(sums_hold(&second.path), "{what}");
        let [old, new] =
            [&first, &second].map(|backup| fs::metadata(backup.path.join(&file)).unwrap().ino());
        assert_eq!(old == new, what == "nothing", "{what}");
    }
}

#[test]
fn in_place_what_is_damaged_is_replaced_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("host");
    let tables = [("a", "1"), ("b", "2")];
    save(&host(&root), &tables);
    let names: Vec<String> = tree(&root)
        .into_keys()
        .filter(|name| !name.ends_with('/') && name != RUN_FILE)
        .collect();
    let data = names::data("a", 1, Compression::None, false);
    let of_this = [data.as_str(), SUMS_FILE, MANIFEST_FILE];
    let whats = [
        "its last byte",
        "its end",
        "what follows",
        "its kind",
        "a pipe",
    ];
    for (file, what) in of_this
        .iter()
        .flat_map(|file| whats.map(|what| (file, what)))
    {
        let numbers = || {
            let number = |name| fs::symlink_metadata(root.join(name)).unwrap().ino();
            names.iter().map(number).collect::<Vec<_>>()
        };
        spoil(what, &root.join(file));
        let before = numbers();
        assert_eq!(
            save(&host(&root), &tables).files_written,
            1,
            "{file}, {what}"
        );
        assert!(sums_hold(&root), "{file}, {what}");
        for ((old, new), name) in before.iter().zip(numbers()).zip(&names) {
            assert_eq!(*old != new, name == file, "{name}: {file}, {what}");
        }
        let _ = fs::remove_file(root.join(file).with_extension("moved"));
    }
}
