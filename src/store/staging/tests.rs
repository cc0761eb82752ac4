//! Whole runs into a temporary directory, and runs cut short at every step.

mod cut_short;
mod damaged;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use proptest::prelude::*;

use super::super::manifest::{ChunkEntry, DataEntry, DatabaseEntry, TableEntry, TableKind};
use super::super::names;
use super::*;
use crate::config::{Category, Compression};

pub(in crate::store) fn host(root: &Path) -> Target {
    Target {
        root: root.to_owned(),
        layout: Layout::InPlace,
        access: Access::Public,
        kind: BackupKind::Host,
        link_unchanged: true,
        database: "csv2".into(),
        recipients: None,
    }
}

pub(in crate::store) fn user_data(root: &Path) -> Target {
    Target {
        root: root.to_owned(),
        layout: Layout::Timestamped,
        access: Access::Private,
        kind: BackupKind::UserData,
        link_unchanged: true,
        database: "csv2".into(),
        recipients: None,
    }
}

pub(in crate::store) fn begin(target: &Target) -> Staging {
    Staging::begin(target.clone()).unwrap()
}

pub(in crate::store) fn run_record() -> RunRecord {
    RunRecord {
        program: "0".into(),
        started: "2026-01-02T03:04:05Z".into(),
        finished: "2026-01-02T03:04:06Z".into(),
        host: "h.example".into(),
        server: "MariaDB 11".into(),
        consistency: "binlog".into(),
        snapshot: BTreeMap::new(),
        threads: 1,
        rows: 0,
        raw_bytes: 0,
        stored_bytes: 0,
        warnings: Vec::new(),
    }
}

/// Writes tables of one row, whose data file holds the given text, and describes them.
pub(in crate::store) fn fill(
    staging: &Staging,
    kind: BackupKind,
    tables: &[(&str, &str)],
) -> Manifest {
    let table = |name: &str, data: &str| TableEntry {
        versioned: false,
        category: Category::Global,
        kind: TableKind::Table,
        structure: staging
            .write(
                &names::table_structure(name),
                format!("-- {name}\n").as_bytes(),
            )
            .unwrap(),
        columns: Vec::new(),
        auto_increment: None,
        data: Some(DataEntry {
            rows: 1,
            digest: "xxh3-128-sum:0".into(),
            compression: "none".into(),
            chunk_key: Vec::new(),
            chunk_size: None,
            chunks: vec![ChunkEntry {
                from: Vec::new(),
                rows: 1,
                raw_bytes: data.len() as u64,
                file: staging
                    .write_data(
                        &staging.data_name(name, 1, Compression::None),
                        data.as_bytes(),
                    )
                    .unwrap(),
            }],
        }),
    };
    Manifest {
        format: FORMAT,
        kind,
        flavor: "mariadb".into(),
        database: DatabaseEntry {
            name: "csv2".into(),
            charset: "utf8mb4".into(),
            collation: "utf8mb4_bin".into(),
        },
        tables: tables
            .iter()
            .map(|(name, data)| ((*name).to_owned(), table(name, data)))
            .collect(),
        objects: Vec::new(),
        skipped_objects: Vec::new(),
        private: None,
    }
}

fn seal(target: &Target, tables: &[(&str, &str)]) -> Sealed {
    let staging = begin(target);
    let manifest = fill(&staging, target.kind, tables);
    staging.seal(&manifest, &run_record()).unwrap()
}

fn save(target: &Target, tables: &[(&str, &str)]) -> Published {
    seal(target, tables).publish().unwrap()
}

/// Every file below `root` with its text, or where a symbolic link points; directories end
/// with `/`.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let tree = files::walk(root).unwrap();
    let dirs = tree.dirs.into_iter().map(|dir| (dir + "/", String::new()));
    let content = |(file, _): (String, u64)| {
        let path = root.join(&file);
        let text = match fs::read_link(&path) {
            Ok(to) => to.display().to_string(),
            Err(_) => fs::read_to_string(&path).unwrap(),
        };
        (file, text)
    };
    tree.files.into_iter().map(content).chain(dirs).collect()
}

fn stamps(root: &Path) -> BTreeMap<String, (u64, i64, i64)> {
    let stamp = |file: String| {
        let meta = fs::metadata(root.join(&file)).unwrap();
        (file, (meta.ino(), meta.mtime(), meta.mtime_nsec()))
    };
    let files = files::walk(root).unwrap().files.into_iter();
    files.map(|(file, _)| stamp(file)).collect()
}

fn sums_hold(dir: &Path) -> bool {
    let status = Command::new("sha256sum")
        .args(["--check", "--strict", "--status", SUMS_FILE])
        .current_dir(dir)
        .status();
    status.unwrap().success()
}

#[test]
fn a_damaged_publication_is_discarded_once_and_by_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let target = user_data(&dir.path().join("user"));
    let place = Place {
        root: target.root.clone(),
        access: target.access,
    };
    fs::create_dir_all(place.work()).unwrap();
    fs::write(place.journal(), "damaged").unwrap();
    assert_eq!(Staging::complete_begun(&target).unwrap(), None);
    assert!(place.journal().exists());
    let staging = begin(&target);
    assert!(staging.warnings()[0].starts_with("discarded a damaged publication"));
    assert!(!place.journal().exists());
}

#[test]
fn in_place_only_what_changed_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/host");
    let target = host(&root);
    let first = save(&target, &[("a", "1"), ("b", "2"), ("C", "3")]);
    assert_eq!(first.path, root);
    assert_eq!((first.files_written, first.files_unchanged), (8, 0));
    assert!(sums_hold(&root));
    assert!(tree(&root).contains_key("structure/tables/%43.sql"));
    assert!(!root.join(".schema_backup").exists());
    let sums = fs::read_to_string(root.join(SUMS_FILE)).unwrap();
    let files: Vec<_> = sums.lines().map(|line| &line[66..]).collect();
    assert!(files.is_sorted() && files.contains(&"manifest.json"));
    assert_eq!(files.len(), 7);

    // Nothing changed: not one file but run.json is another file than before.
    let before = stamps(&root);
    let again = save(&target, &[("a", "1"), ("b", "2"), ("C", "3")]);
    assert_eq!((again.files_written, again.files_unchanged), (0, 8));
    let mut after = stamps(&root);
    assert_ne!(before[RUN_FILE], after[RUN_FILE]);
    after.insert(RUN_FILE.to_owned(), before[RUN_FILE]);
    assert_eq!(before, after);

    // One table changes and two go, with one foreign file beside them.
    fs::write(root.join("data/notes.txt"), "mine").unwrap();
    let third = save(&target, &[("a", "one")]);
    assert_eq!((third.files_written, third.files_unchanged), (3, 1));
    assert!(sums_hold(&root));
    let after = stamps(&root);
    assert_eq!(
        before["structure/tables/a.sql"],
        after["structure/tables/a.sql"]
    );
    assert_ne!(before["data/a.00001.sql"], after["data/a.00001.sql"]);
    let names: Vec<_> = after.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            SUMS_FILE,
            "data/a.00001.sql",
            "data/notes.txt",
            MANIFEST_FILE,
            RUN_FILE,
            "structure/tables/a.sql"
        ]
    );

    // Directories of ours go when they are empty.
    save(&target, &[]);
    let left = tree(&root);
    assert!(left.contains_key("data/") && !left.contains_key("structure/"));

    // A file that somebody edited is put right, whatever the manifests say.
    save(&target, &[("a", "1")]);
    fs::write(root.join("data/a.00001.sql"), "2").unwrap();
    assert_eq!(save(&target, &[("a", "1")]).files_written, 1);
    assert!(sums_hold(&root));
}

#[test]
fn a_new_directory_moves_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("host");
    let number = |dir: &Path, name: &str| fs::metadata(dir.join(name)).unwrap().ino();
    let staged = root.join(".schema_backup/staging");
    let publish = |tables: &[(&str, &str)]| {
        let sealed = seal(&host(&root), tables);
        let staged = ["data", "structure"].map(|name| number(&staged, name));
        sealed.publish().unwrap();
        let live = ["data", "structure"].map(|name| number(&root, name));
        assert!(sums_hold(&root));
        staged == live
    };
    assert!(publish(&[("a", "1"), ("b", "2")]));
    // Those that are there stay, with what else is in them.
    fs::write(root.join("structure/notes.txt"), "mine").unwrap();
    assert!(!publish(&[("a", "2"), ("c", "3")]));
    assert!(root.join("structure/notes.txt").exists());
}

#[test]
fn timestamped_backups_stand_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("user");
    let first = save(&user_data(&root), &[("a", "1")]);
    let second = save(&user_data(&root), &[("a", "1"), ("b", "2")]);
    assert_ne!(first.path, second.path);
    assert!(sums_hold(&first.path) && sums_hold(&second.path));
    assert_eq!(
        root.join(fs::read_link(root.join(LATEST)).unwrap()),
        second.path
    );
    assert_eq!(fs::read_dir(&root).unwrap().count(), 3);

    // The newest complete one is what the next run goes by.
    let staging = begin(&user_data(&root));
    assert_eq!(staging.previous.as_ref().unwrap().1.tables.len(), 2);
    drop(staging);
    fs::remove_file(second.path.join("data/b.00001.sql")).unwrap();
    let staging = begin(&user_data(&root));
    assert_eq!(staging.previous.as_ref().unwrap().1.tables.len(), 1);
    drop(staging);

    fs::remove_file(root.join(LATEST)).unwrap();
    fs::create_dir(root.join(LATEST)).unwrap();
    let error = Staging::begin(user_data(&root)).unwrap_err();
    assert!(error.to_string().contains("not a symbolic link"), "{error}");
}

#[test]
fn private_from_the_first_moment_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("new/user");
    // The umask is the process's; other tests assert no modes.
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let staging = begin(&user_data(&root));
    let sink = staging.create("data/a.00001.sql").unwrap();
    let during = modes(&dir.path().join("new"));
    drop(sink);
    let manifest = fill(&staging, BackupKind::UserData, &[("a", "1")]);
    let warnings = staging.warnings().to_vec();
    let sealed = staging.seal(&manifest, &run_record()).unwrap();
    let sealed_modes = modes(&root);
    sealed.publish().unwrap();
    let public = dir.path().join("host");
    let staging = begin(&host(&public));
    let manifest = fill(&staging, BackupKind::Host, &[("a", "1")]);
    staging
        .seal(&manifest, &run_record())
        .unwrap()
        .publish()
        .unwrap();
    rustix::process::umask(before);

    assert_eq!(warnings, [""; 0]);
    for (path, mode) in during.into_iter().chain(sealed_modes).chain(modes(&root)) {
        assert_eq!(mode & 0o077, 0, "{path} has {mode:o}");
    }
    for (path, mode) in modes(&public) {
        assert!(mode == 0o40755 || mode == 0o100_644, "{path} has {mode:o}");
    }

    // An exposed root is reported and left as it is; files in place become private again.
    let open = dir.path().join("host");
    let mut target = user_data(&open);
    assert!(begin(&target).warnings()[0].contains("chmod 700"));
    let fixed = dir.path().join("ephemeral");
    (target.root, target.layout, target.kind) =
        (fixed.clone(), Layout::InPlace, BackupKind::Ephemeral);
    save(&target, &[("a", "1")]);
    let file = fixed.join("data/a.00001.sql");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&file, mode).unwrap();
    assert_eq!(save(&target, &[("a", "1")]).files_written, 1);
    assert_eq!(fs::metadata(&file).unwrap().mode(), 0o100_600);
}

fn modes(root: &Path) -> Vec<(String, u32)> {
    let tree = files::walk(root).unwrap();
    let names = tree.files.into_iter().map(|(file, _)| file);
    let mode = |name: String| {
        let mode = fs::symlink_metadata(root.join(&name)).unwrap();
        (name, mode)
    };
    let all = names.chain(tree.dirs).chain([String::new()]).map(mode);
    // A symbolic link has no mode of its own.
    let all = all.filter(|(_, meta)| !meta.is_symlink());
    all.map(|(name, meta)| (name, meta.mode())).collect()
}

#[test]
fn a_run_that_ends_early_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for target in [
        host(&dir.path().join("h")),
        user_data(&dir.path().join("u")),
    ] {
        save(&target, &[("a", "1")]);
        let before = tree(&target.root);
        let staging = begin(&target);
        fill(&staging, target.kind, &[("a", "2")]);
        drop(staging);
        assert_eq!(tree(&target.root), before);
        drop(seal(&target, &[("a", "2")]));
        assert_eq!(tree(&target.root), before);

        // A killed run cannot clean up; the next one does.
        let killed = target.root.join(".schema_backup/staging/data");
        fs::create_dir_all(&killed).unwrap();
        fs::write(killed.join("a.00001.sql"), "half").unwrap();
        drop(begin(&target));
        assert_eq!(tree(&target.root), before);

        let staging = begin(&target);
        let error = Staging::begin(target.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Write);
        assert!(
            error.to_string().contains("in use by another run"),
            "{error}"
        );
        drop(staging);
    }
}

#[test]
fn what_is_staged_must_be_what_the_manifest_says() {
    let dir = tempfile::tempdir().unwrap();
    let target = host(&dir.path().join("h"));
    type Tamper = fn(&Staging);
    let tamper: [(&str, Tamper); 3] = [
        ("is not in the manifest", |s| {
            drop(s.write("data/z.sql", b"").unwrap())
        }),
        ("is missing", |s| {
            fs::remove_file(s.work.place.staging().join("data/a.00001.sql")).unwrap();
        }),
        ("bytes where", |s| {
            fs::write(s.work.place.staging().join("data/a.00001.sql"), "12").unwrap();
        }),
    ];
    for (expected, tamper) in tamper {
        let staging = begin(&target);
        let manifest = fill(&staging, target.kind, &[("a", "1")]);
        tamper(&staging);
        let error = staging.seal(&manifest, &run_record()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    let staging = begin(&target);
    assert!(staging.create("../outside").is_err());
    staging.write("data/a", b"").unwrap();
    assert!(
        staging
            .create("data/a")
            .unwrap_err()
            .to_string()
            .contains("twice")
    );
}

#[test]
fn another_backup_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let target = host(&dir.path().join("h"));
    save(&target, &[("a", "1")]);
    let before = tree(&target.root);
    let refused = |error: Error, expected: &str| {
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint_text().is_some());
    };

    for target in [target.clone(), user_data(&dir.path().join("u"))] {
        if target.kind == BackupKind::UserData {
            save(&target, &[("a", "1")]);
        }
        let mut other = target;
        other.database = "other".into();
        refused(
            Staging::begin(other).unwrap_err(),
            "database `csv2`, and this is `other`",
        );
    }

    let mut other = target.clone();
    other.kind = BackupKind::Ephemeral;
    refused(
        Staging::begin(other).unwrap_err(),
        "kind host, and this is ephemeral",
    );
    assert_eq!(tree(&target.root), before);

    let path = target.root.join(MANIFEST_FILE);
    fs::write(&path, r#"{"format": 2, "anything": {}}"#).unwrap();
    refused(Staging::begin(target.clone()).unwrap_err(), "format 2");

    // Something else by that name: replaced with a warning, and nothing it names is deleted.
    fs::write(&path, r#"{"name": "a web application"}"#).unwrap();
    let staging = begin(&target);
    assert!(staging.previous.is_none());
    assert!(staging.warnings()[0].contains("is no manifest"));
    drop(staging);
    save(&target, &[("b", "1")]);
    assert!(tree(&target.root).contains_key("data/a.00001.sql"));
}

#[test]
fn an_edited_manifest_deletes_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("h");
    let target = host(&root);
    save(&target, &[("a", "1"), ("b", "2")]);
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("x.sql"), "").unwrap();
    fs::write(root.join("README"), "").unwrap();
    symlink(&outside, root.join("data/link")).unwrap();

    let mut manifest: Manifest =
        serde_json::from_slice(&fs::read(root.join(MANIFEST_FILE)).unwrap()).unwrap();
    let absolute = outside.join("x.sql").display().to_string();
    let evil = [
        "../outside/x.sql",
        "data/../../outside/x.sql",
        "data/link/x.sql",
        "README",
    ];
    for (i, file) in evil.into_iter().chain([absolute.as_str()]).enumerate() {
        let mut entry = manifest.tables["a"].clone();
        entry.structure.file = file.to_owned();
        entry.data = None;
        manifest.tables.insert(format!("evil{i}"), entry);
    }
    fs::write(
        root.join(MANIFEST_FILE),
        checked_json::render(&manifest).unwrap(),
    )
    .unwrap();
    save(&target, &[("a", "1")]);
    assert!(outside.join("x.sql").exists() && root.join("README").exists());
    // Nothing of such a manifest is believed.
    assert!(root.join("data/b.00001.sql").exists());
}

#[test]
fn what_would_stop_a_publication_is_found_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("h");
    let target = host(&root);
    save(&target, &[("a", "1")]);
    fs::create_dir(root.join("data/b.00001.sql")).unwrap();
    let before = tree(&root);
    let attempt_of = |tables: &[(&str, &str)]| {
        let staging = begin(&target);
        let manifest = fill(&staging, target.kind, tables);
        staging
            .seal(&manifest, &run_record())
            .unwrap_err()
            .to_string()
    };
    let attempt = || attempt_of(&[("a", "2"), ("b", "1")]);
    assert!(attempt().contains("it is a directory, and a file must go there"));
    assert_eq!(tree(&root), before);

    fs::rename(root.join("data"), dir.path().join("data")).unwrap();
    symlink("../data", root.join("data")).unwrap();
    assert!(attempt().contains("a directory is needed there"));
    assert!(attempt_of(&[("a", "1")]).contains("a directory is needed there"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever lay there, the directory then holds what a fresh one would.
    #[test]
    fn in_place_is_as_good_as_new(
        old in prop::collection::btree_map("[a-d]", "[12]", 0..4),
        new in prop::collection::btree_map("[a-d]", "[12]", 0..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (updated, fresh) = (host(&dir.path().join("u")), host(&dir.path().join("f")));
        let pairs = |map: &BTreeMap<String, String>| -> Vec<(String, String)> {
            map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let save = |target: &Target, tables: &[(String, String)]| {
            let tables: Vec<_> = tables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            save(target, &tables)
        };
        save(&updated, &pairs(&old));
        save(&updated, &pairs(&new));
        save(&fresh, &pairs(&new));
        prop_assert_eq!(tree(&updated.root), tree(&fresh.root));
    }
}
