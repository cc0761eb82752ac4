//! A manifest that was changed by chance or by hand, and what is found without one.

use std::fs;

use super::{Copy, MARKS, edited, flip, original};

#[test]
fn a_flipped_byte_of_a_manifest_is_never_mistaken() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    for mark in MARKS {
        let file = format!("user/{mark}");
        let path = copy.path(&file);
        let good = fs::read(&path).unwrap();
        // The head byte by byte (the number of the format is there), and every part of the rest.
        let rest = (40..good.len()).step_by((good.len() / 60).max(1));
        for at in (0..good.len().min(40)).chain(rest) {
            flip(&path, &good, at);
            copy.expect_findings(&[&file], &format!("{file} at byte {at}"));
        }
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn an_edited_manifest_is_named_whether_or_not_its_checksum_was_mended() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let path = copy.path("user/manifest.json");
    let good = fs::read_to_string(&path).unwrap();
    assert_eq!(edited(&good, "600", "600"), good);
    for (from, to) in [
        ("\"rows\": 600", "\"rows\": 601"),
        ("\"name\": \"verify_files\"", "\"name\": \"another\""),
        ("data/users.00002", "data/users.00001"),
        ("\"file\": \"data/", "\"file\": \"../data/"),
        ("\"sha256\": \"", "\"sha256\": \"0"),
        ("utf8mb4", "latin1"),
    ] {
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        copy.expect_findings(&["user/manifest.json"], to);
        fs::write(&path, edited(&good, from, to)).unwrap();
        copy.expect_findings(&["user/manifest.json"], &format!("{to}, with a checksum"));
    }
}

#[test]
fn what_else_is_damaged_is_named_beside_a_damaged_manifest() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let manifest = copy.path("host/manifest.json");
    fs::write(&manifest, "{}").unwrap();
    let data = copy.path("host/data/settings.00002.sql");
    flip(&data, &fs::read(&data).unwrap(), 100);
    fs::remove_file(copy.path("host/structure/views/z_base.sql")).unwrap();
    fs::write(copy.path("host/data/more"), "x").unwrap();
    let expected = [
        "host/manifest.json",
        "host/data/settings.00002.sql",
        "host/structure/views/z_base.sql",
        "host/data/more",
    ];
    copy.expect_findings(&expected, "by SHA256SUMS");
    let said = copy.verify(&["-q"]).expect_code(4);
    assert_eq!(said.stdout.lines().count(), 4, "{}", said.stdout);
    for file in expected {
        let path = format!(
            "{}: ",
            fs::canonicalize(copy.dir.path())
                .unwrap()
                .join(file)
                .display()
        );
        assert!(
            said.stdout.lines().any(|line| line.starts_with(&path)),
            "{}",
            said.stdout
        );
    }
    said.expect_said("4 files are not as they should be");
}
