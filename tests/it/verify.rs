//! `verify`: whatever happens to a file of a backup, that file is named, and no other; whatever
//! happens to a table of the database, `--against` names that table, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::faults::stop_in_the_middle_of_big;
use crate::server::{Server, with_binlog};
use crate::site::{
    Lists, Outcome, PROGRAM, RUN_BOUND, Site, chunks, contents, json, run, start, wait_until,
};

const MARKS: [&str; 3] = ["SHA256SUMS", "manifest.json", "run.json"];

const DATABASE: &str = "
CREATE SEQUENCE numbers START WITH 5 INCREMENT BY 3;
DO nextval(numbers);
CREATE TABLE settings (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(60) NOT NULL);
INSERT INTO settings (v) SELECT concat('value ', seq, ' (\\n(x') FROM seq_1_to_400;
CREATE TABLE users (name VARCHAR(20) COLLATE utf8mb4_general_ci, n INT, b BLOB, PRIMARY KEY (name, n));
INSERT INTO users SELECT concat('u', seq DIV 7), seq, unhex(sha2(seq, 256)) FROM seq_1_to_600;
CREATE TABLE floats (id INT PRIMARY KEY, f FLOAT, d DOUBLE);
INSERT INTO floats VALUES (1, 1, 0.1), (2, 16777217, 5e-324), (3, NULL, 1e-320);
CREATE TABLE nullable (k INT UNIQUE, v INT);
INSERT INTO nullable SELECT if(seq % 50, seq, NULL), seq FROM seq_1_to_300;
CREATE TABLE keyless (a INT, b VARCHAR(9));
INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, ''), (2, NULL);
CREATE TABLE nothing (id INT AUTO_INCREMENT PRIMARY KEY) AUTO_INCREMENT=77;
CREATE TABLE `odd name/.%` (id INT PRIMARY KEY);
INSERT INTO `odd name/.%` VALUES (1);
CREATE TABLE myisam (id INT PRIMARY KEY) ENGINE=MyISAM;
INSERT INTO myisam VALUES (1), (2);
CREATE TABLE passing (id INT PRIMARY KEY);
INSERT INTO passing VALUES (1);
CREATE VIEW z_base AS SELECT id FROM settings;
CREATE VIEW a_on_z AS SELECT count(*) AS n FROM z_base;
DELIMITER $$
CREATE FUNCTION plus_one(n INT) RETURNS INT DETERMINISTIC RETURN n + 1$$
CREATE PROCEDURE touch() BEGIN UPDATE settings SET id = id; END$$
CREATE TRIGGER first BEFORE INSERT ON users FOR EACH ROW SET NEW.n = NEW.n + 1$$
CREATE TRIGGER second BEFORE INSERT ON users FOR EACH ROW SET @x = 1$$
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 03:00:00' DO DELETE FROM users WHERE n < 0$$
DELIMITER ;
";

fn lists() -> Lists<'static> {
    Lists {
        global: vec!["settings", "nothing", "odd name/.%"],
        local: vec![
            "users", "floats", "nullable", "keyless", "numbers", "myisam",
        ],
        ephemeral: vec!["passing"],
        ..Lists::default()
    }
}

/// Makes the database and its backup, of both directories.
fn backed_up(server: &Server, database: &str) -> Site {
    server.create_database(database);
    server.feed(database, "the database", DATABASE.as_bytes());
    let site = Site::new(server, database, &lists());
    site.backup_ok(&["--chunk-size", "2K"]);
    assert!(
        chunks(&site.host(), "settings") > 2,
        "global data in several chunks"
    );
    assert!(
        chunks(&site.latest(), "users") > 2,
        "local data in several chunks"
    );
    site
}

/// A backup that tests copy.
fn original() -> Option<&'static Site> {
    static SITE: OnceLock<Site> = OnceLock::new();
    let server = with_binlog()?;
    Some(SITE.get_or_init(|| backed_up(server, "verify_files")))
}

/// A copy of both directories, to be damaged.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn of(site: &Site) -> Copy {
        let dir = tempfile::tempdir().unwrap();
        for (from, to) in [(site.host(), "host"), (site.latest(), "user")] {
            let copied = Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(dir.path().join(to))
                .status();
            assert!(copied.unwrap().success());
        }
        Copy { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `host/…` and `user/…`: every file of both.
    fn files(&self) -> Vec<String> {
        contents(self.dir.path()).into_keys().collect()
    }

    /// Verifies both, without configuration and server.
    fn verify(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(PROGRAM);
        command.arg("verify").args(["host", "user"]).args(arguments);
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path());
        run(command)
    }

    /// The files that a verification has something to say of. The exit code must fit.
    #[track_caller]
    fn findings(&self, arguments: &[&str]) -> BTreeSet<String> {
        let outcome = self.verify(&[&["--json"], arguments].concat());
        let report: Value = serde_json::from_str(&outcome.stdout)
            .unwrap_or_else(|e| panic!("{e}: {} {}", outcome.stdout, outcome.stderr));
        let findings: BTreeSet<String> = verdicts(&report)
            .filter(|(_, verdict)| verdict != "ok")
            .map(|(file, _)| file)
            .collect();
        assert_eq!(report["sound"], findings.is_empty());
        outcome.expect_code(if findings.is_empty() { 0 } else { 4 });
        findings
    }

    #[track_caller]
    fn expect_findings(&self, files: &[&str], what: &str) {
        let expected: BTreeSet<String> = files.iter().map(|&file| file.to_owned()).collect();
        assert_eq!(self.findings(&[]), expected, "{what}");
    }

    /// Does something to each file in turn, expects exactly it to be found, and puts it back.
    #[track_caller]
    fn each_file(&self, what: &str, damage: impl Fn(&Path, &[u8])) {
        for file in self.files() {
            let path = self.path(&file);
            let good = fs::read(&path).unwrap();
            damage(&path, &good);
            self.expect_findings(&[&file], &format!("{file} {what}"));
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            } else {
                fs::remove_file(&path).ok();
            }
            fs::write(&path, good).unwrap();
        }
        self.expect_findings(&[], "everything put back");
    }
}

/// Every file of a report below its directory's name, with the verdict.
fn verdicts(report: &Value) -> impl Iterator<Item = (String, String)> {
    let directories = report["directories"].as_array().unwrap();
    directories.iter().flat_map(|directory| {
        let name = Path::new(directory["path"].as_str().unwrap())
            .file_name()
            .unwrap();
        let name = name.to_str().unwrap().to_owned();
        directory["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(move |file| {
                let path = format!("{name}/{}", file["file"].as_str().unwrap());
                (path, file["verdict"].as_str().unwrap().to_owned())
            })
    })
}

fn flip(path: &Path, good: &[u8], at: usize) {
    let mut bad = good.to_vec();
    bad[at] ^= 1;
    fs::write(path, bad).unwrap();
}

#[test]
fn every_file_of_a_sound_backup_has_a_verdict() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let outcome = copy.verify(&["--json"]).expect_code(0);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let verdicts: Vec<_> = verdicts(&report).collect();
    assert!(
        verdicts.iter().all(|(_, verdict)| verdict == "ok"),
        "{verdicts:?}"
    );
    let named: BTreeSet<_> = verdicts.into_iter().map(|(file, _)| file).collect();
    assert_eq!(named, copy.files().into_iter().collect());

    let said = copy.verify(&[]).expect_code(0).stdout;
    assert!(
        said.starts_with("Everything was checked") && !said.contains("data/"),
        "{said}"
    );
    assert!(
        copy.verify(&["-v"])
            .stdout
            .contains("/host/data/nothing.00001.sql: ok\n")
    );
    assert_eq!(copy.verify(&["-q"]).stdout, "");
}

#[test]
fn a_flipped_byte_names_the_file() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    copy.each_file("with its first byte flipped", |path, good| {
        flip(path, good, 0)
    });
    copy.each_file("with a byte flipped in the middle", |path, good| {
        flip(path, good, good.len() / 2);
    });
    copy.each_file("with its last byte flipped", |path, good| {
        flip(path, good, good.len() - 1);
    });
}

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
fn a_file_that_is_gone_cut_or_another_thing_is_named() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let elsewhere = copy.dir.path().with_extension("elsewhere");
    copy.each_file("removed", |path, _| fs::remove_file(path).unwrap());
    copy.each_file("emptied", |path, _| fs::write(path, "").unwrap());
    copy.each_file("cut by a byte", |path, good| {
        fs::write(path, &good[..good.len() - 1]).unwrap();
    });
    copy.each_file("cut to a half", |path, good| {
        fs::write(path, &good[..good.len() / 2]).unwrap();
    });
    copy.each_file("longer by a byte", |path, good| {
        fs::write(path, [good, b"\n"].concat()).unwrap();
    });
    copy.each_file("a directory", |path, _| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    copy.each_file("a link to the same content", |path, good| {
        fs::write(&elsewhere, good).unwrap();
        fs::remove_file(path).unwrap();
        symlink(&elsewhere, path).unwrap();
    });
    fs::remove_file(elsewhere).unwrap();
}

#[test]
fn a_file_that_was_added_is_named() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    for file in [
        "host/data/settings.99999.sql",
        "host/structure/tables/another.sql",
        "host/structure/note",
        "user/data/users.00001.sql",
        "user/data/.hidden",
        "user/note",
        "user/deep/down/note",
    ] {
        let path = copy.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        copy.expect_findings(&[file], file);
        fs::remove_file(path).unwrap();
    }
    // The host directory is shared with git and its readers.
    fs::write(copy.path("host/README"), "x").unwrap();
    copy.expect_findings(&[], "a note beside the backup");
}

#[test]
fn two_files_that_were_swapped_are_both_named() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let files = copy.files();
    let swap = |a: &str, b: &str| {
        fs::rename(copy.path(a), copy.path("aside")).unwrap();
        fs::rename(copy.path(b), copy.path(a)).unwrap();
        fs::rename(copy.path("aside"), copy.path(b)).unwrap();
    };
    let next = files.iter().zip(files.iter().cycle().skip(1));
    let marks = MARKS.map(|mark| (format!("host/{mark}"), format!("user/{mark}")));
    let across = [
        (
            "host/manifest.json".to_owned(),
            "host/data/settings.00002.sql".to_owned(),
        ),
        (
            "user/manifest.json".to_owned(),
            "user/SHA256SUMS".to_owned(),
        ),
        ("user/manifest.json".to_owned(), "user/run.json".to_owned()),
    ];
    let pairs = next.map(|(a, b)| (a.clone(), b.clone()));
    for (a, b) in pairs.chain(marks).chain(across) {
        // A table's structure lies in both directories, with the same bytes.
        if fs::read(copy.path(&a)).unwrap() == fs::read(copy.path(&b)).unwrap() {
            continue;
        }
        swap(&a, &b);
        copy.expect_findings(&[&a, &b], &format!("{a} and {b} swapped"));
        swap(&a, &b);
    }
}

/// The manifest with `from` replaced, and a checksum that is right again.
fn edited(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in the manifest");
    let (body, _) = text.split_once(",\n  \"checksum\"").unwrap();
    let body = body.replacen(from, to, 1);
    let sum: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{body},\n  \"checksum\": \"sha256:{sum}\"\n}}\n")
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

#[test]
fn samples_together_check_all_data_and_each_all_the_rest() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let parts = ["1/3", "2/3", "3/3"];
    let is_data = |file: &str| file.contains("/data/");
    let mut seen = Vec::new();
    for part in parts {
        let outcome = copy.verify(&["--json", "--sample", part]).expect_code(0);
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let checked: BTreeSet<_> = verdicts(&report).map(|(file, _)| file).collect();
        assert!(
            copy.files()
                .iter()
                .all(|file| is_data(file) || checked.contains(file))
        );
        seen.extend(checked.into_iter().filter(|file| is_data(file)));
    }
    seen.sort();
    let all: Vec<_> = copy
        .files()
        .into_iter()
        .filter(|file| is_data(file))
        .collect();
    assert_eq!(seen, all);

    fs::write(copy.path("user/data/floats.00001.sql.zst"), "").unwrap();
    let found = parts.map(|part| copy.findings(&["--sample", part]).len());
    assert_eq!(found.iter().sum::<usize>(), 1, "{found:?}");
    fs::write(copy.path("user/structure/tables/floats.sql"), "").unwrap();
    let found = parts.map(|part| copy.findings(&["--sample", part]).len());
    assert_eq!(found.iter().sum::<usize>(), 4, "{found:?}");
    let said = copy.verify(&["--sample", "1/3"]).stdout;
    assert!(
        said.starts_with("A sample was checked") && said.contains("1/3"),
        "{said}"
    );
}

#[test]
fn what_is_no_backup_is_a_usage_error() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let verify = |directory: &Path| {
        let mut command = Command::new(PROGRAM);
        command.arg("verify").arg(directory);
        run(command)
    };
    verify(&site.user_data_dir())
        .expect_code(2)
        .expect_said("latest");
    verify(&copy.path("none")).expect_code(2);
    verify(&copy.path("host/data")).expect_code(2);
    for mark in MARKS {
        fs::remove_file(copy.path("host").join(mark)).unwrap();
    }
    verify(&copy.path("host"))
        .expect_code(2)
        .expect_said("no complete backup");
}

#[test]
fn backups_of_two_databases_do_not_belong_together() {
    let (Some(site), Some(server)) = (original(), with_binlog()) else {
        return;
    };
    server.create_database("verify_other");
    let other = Site::new(server, "verify_other", &Lists::default());
    other.backup_ok(&[]);
    let directories = [site.latest(), other.host()];
    let verify = |more: &[&str]| {
        let mut command = site.command("verify", &directories);
        command.args(more);
        run(command)
    };
    verify(&[])
        .expect_code(4)
        .expect_said("do not belong together");
    verify(&["--against"])
        .expect_code(2)
        .expect_said("different databases");
}

/// What `verify --against` says of both directories, `kind name change`; the exit code must fit.
#[track_caller]
fn differences(site: &Site, arguments: &[&str]) -> Vec<String> {
    let mut command = site.command("verify", &[site.host(), site.latest()]);
    command.args(["--against", "--json"]).args(arguments);
    let outcome = run(command);
    let report: Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", outcome.stdout, outcome.stderr));
    assert!(
        verdicts(&report).all(|(_, verdict)| verdict == "ok"),
        "{report}"
    );
    let found = report["against"]["differences"].as_array().unwrap();
    let found: Vec<String> = found
        .iter()
        .map(|d| {
            ["kind", "name", "change"]
                .map(|key| d[key].as_str().unwrap())
                .join(" ")
        })
        .collect();
    outcome.expect_code(if found.is_empty() { 0 } else { 4 });
    found
}

/// A change, its undoing, and what is to be found in between.
const CHANGES: &[(&str, &str, &[&str])] = &[
    // Rows, in the first, a middle and the last chunk.
    (
        "UPDATE settings SET v = concat(v, '!') WHERE id = 1",
        "UPDATE settings SET v = left(v, length(v) - 1) WHERE id = 1",
        &["table settings content"],
    ),
    (
        "UPDATE settings SET v = upper(v) WHERE id = 200",
        "UPDATE settings SET v = lower(v) WHERE id = 200",
        &["table settings content"],
    ),
    (
        "UPDATE users SET b = unhex(concat('00', hex(b))) WHERE n = 600",
        "UPDATE users SET b = substr(b, 2) WHERE n = 600",
        &["table users content"],
    ),
    (
        "DELETE FROM users WHERE n = 300",
        "INSERT INTO users VALUES ('u42', 299, unhex(sha2(300, 256)))",
        &["table users rows"],
    ),
    (
        "INSERT INTO users VALUES ('a', 0, NULL)",
        "DELETE FROM users WHERE name = 'a'",
        &["table users rows"],
    ),
    (
        "INSERT INTO users VALUES ('zz', 0, NULL)",
        "DELETE FROM users WHERE name = 'zz'",
        &["table users rows"],
    ),
    (
        // A key that moves to another chunk.
        "UPDATE nullable SET k = 1000 WHERE k = 1",
        "UPDATE nullable SET k = 1 WHERE k = 1000",
        &["table nullable content"],
    ),
    (
        "UPDATE nullable SET v = -1 WHERE v = 50",
        "UPDATE nullable SET v = 50 WHERE v = -1",
        &["table nullable content"],
    ),
    (
        "INSERT INTO nullable VALUES (NULL, 0)",
        "DELETE FROM nullable WHERE v = 0",
        &["table nullable rows"],
    ),
    // One bit of a float.
    (
        "UPDATE floats SET f = 1.00000012 WHERE id = 1",
        "UPDATE floats SET f = 1 WHERE id = 1",
        &["table floats content"],
    ),
    (
        "UPDATE floats SET d = 0.10000000000000002 WHERE id = 1",
        "UPDATE floats SET d = 0.1 WHERE id = 1",
        &["table floats content"],
    ),
    (
        "UPDATE floats SET d = 0 WHERE id = 2",
        "UPDATE floats SET d = 5e-324 WHERE id = 2",
        &["table floats content"],
    ),
    // Rows that occur more than once, and what is nearly nothing.
    (
        "INSERT INTO keyless VALUES (1, 'x')",
        "DELETE FROM keyless WHERE b = 'x' LIMIT 1",
        &["table keyless rows"],
    ),
    (
        "UPDATE keyless SET b = NULL WHERE a = 2",
        "UPDATE keyless SET b = '' WHERE a = 2 LIMIT 1",
        &["table keyless content"],
    ),
    (
        "DELETE FROM myisam WHERE id = 2",
        "INSERT INTO myisam VALUES (2)",
        &["table myisam rows"],
    ),
    (
        "ALTER TABLE nothing AUTO_INCREMENT = 78",
        "ALTER TABLE nothing AUTO_INCREMENT = 77",
        &["table nothing auto_increment"],
    ),
    (
        "DO nextval(numbers)",
        "ALTER SEQUENCE numbers RESTART WITH 3005",
        &["sequence numbers state"],
    ),
    // Structure.
    (
        "ALTER TABLE floats ADD COLUMN more INT",
        "ALTER TABLE floats DROP COLUMN more",
        &["table floats definition", "table floats columns"],
    ),
    (
        "ALTER TABLE passing COMMENT = 'x'",
        "ALTER TABLE passing COMMENT = ''",
        &["table passing definition"],
    ),
    (
        "INSERT INTO passing VALUES (2)",
        "DELETE FROM passing WHERE id = 2",
        &[],
    ),
    (
        "RENAME TABLE `odd name/.%` TO aside",
        "RENAME TABLE aside TO `odd name/.%`",
        &["table odd name/.% missing"],
    ),
    (
        "DROP TABLE passing",
        "CREATE TABLE passing (id INT PRIMARY KEY)",
        &["table passing missing"],
    ),
    (
        "CREATE TABLE unheard_of (id INT)",
        "DROP TABLE unheard_of",
        &[],
    ),
    // Other objects.
    (
        "CREATE OR REPLACE VIEW a_on_z AS SELECT count(*) + 1 AS n FROM z_base",
        "CREATE OR REPLACE VIEW a_on_z AS SELECT count(*) AS n FROM z_base",
        &["view a_on_z definition"],
    ),
    (
        "DROP VIEW a_on_z",
        "CREATE VIEW a_on_z AS SELECT count(*) AS n FROM z_base",
        &["view a_on_z missing"],
    ),
    (
        "DROP TRIGGER second",
        "CREATE TRIGGER second BEFORE INSERT ON users FOR EACH ROW SET @x = 1",
        &["triggers users definition"],
    ),
    (
        "CREATE TRIGGER third AFTER DELETE ON floats FOR EACH ROW SET @x = 1",
        "DROP TRIGGER third",
        &["triggers floats added"],
    ),
    (
        "ALTER FUNCTION plus_one COMMENT 'x'",
        "ALTER FUNCTION plus_one COMMENT ''",
        &["function plus_one definition"],
    ),
    (
        "CREATE PROCEDURE more() SELECT 1",
        "DROP PROCEDURE more",
        &["procedure more added"],
    ),
    (
        "ALTER EVENT nightly DISABLE",
        "ALTER EVENT nightly ENABLE",
        &["event nightly definition"],
    ),
    (
        "CREATE EVENT more ON SCHEDULE EVERY 1 DAY DO SET @x = 1",
        "DROP EVENT more",
        &["event more added"],
    ),
];

#[test]
fn whatever_changes_in_the_database_is_named_and_nothing_else() {
    let Some(server) = with_binlog() else { return };
    let site = backed_up(server, "verify_live");
    assert_eq!(differences(&site, &[]), Vec::<String>::new());
    for (change, undo, expected) in CHANGES {
        server.feed("verify_live", change, change.as_bytes());
        let found = differences(&site, &["-j", "3"]);
        assert_eq!(found, *expected, "after {change}");
        server.feed("verify_live", undo, undo.as_bytes());
    }
    assert_eq!(differences(&site, &[]), Vec::<String>::new());
}

#[test]
fn another_database_can_be_compared_and_people_read_by_how_much_it_differs() {
    let Some(server) = with_binlog() else { return };
    let site = backed_up(server, "verify_source");
    server.create_database("verify_copy");
    server.feed("verify_copy", "the same database", DATABASE.as_bytes());
    server.feed(
        "verify_copy",
        "less of it",
        b"DELETE FROM users WHERE n > 598",
    );
    let verify = |site: &Site| {
        // Neither configuration nor database: the backup says which it was.
        let mut command = site.command("verify", &[site.latest(), site.host()]);
        command.args(["--against", "--consistency", "global-lock"]);
        run(command)
    };
    verify(&site).expect_code(0);
    let site = site.connect_as(server, "verify_copy", "root", crate::server::ROOT_PASSWORD);
    let outcome = verify(&site).expect_code(4);
    let findings: Vec<_> = outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with("table"))
        .collect();
    let rows = json(site.latest().join("manifest.json"))["tables"]["users"]["data"]["rows"]
        .as_u64()
        .unwrap();
    let expected = format!(
        "table `users`: {} rows, 2 fewer than the {rows} in the backup",
        rows - 2
    );
    assert_eq!(findings, [expected]);
    let password = server.create_user("verify_reader", &["USAGE ON *.*"]);
    let site = site.connect_as(server, "verify_source", "verify_reader", &password);
    verify(&site).expect_code(10);
}

#[test]
fn the_backups_own_database_is_compared_where_none_is_named() {
    let Some(server) = with_binlog() else { return };
    let site = backed_up(server, "verify_unnamed");
    let mut command = Command::new(PROGRAM);
    command
        .arg("verify")
        .args([site.host(), site.latest()])
        .args(["--against", "--user=root"])
        .arg(format!("--socket={}", server.socket().display()))
        .arg("--password-file")
        .arg(site.path("password"))
        .current_dir(site.path(""))
        .env("HOME", site.path(""));
    let outcome = run(command).expect_code(0);
    assert!(
        outcome.stdout.contains("database verify_unnamed"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_damaged_definition_is_no_difference_of_the_database() {
    let (Some(site), Some(server)) = (original(), with_binlog()) else {
        return;
    };
    let copy = Copy::of(site);
    fs::write(copy.path("user/structure/tables/floats.sql"), "x").unwrap();
    let password = site.path("password");
    let socket = server.socket();
    let against = [
        "--against",
        "--user=root",
        "--socket",
        socket.to_str().unwrap(),
        "--password-file",
        password.to_str().unwrap(),
    ];
    let found = copy.findings(&against);
    assert_eq!(
        found,
        BTreeSet::from(["user/structure/tables/floats.sql".to_owned()])
    );
    let said = copy.verify(&against).expect_code(4).stdout;
    assert!(said.contains("no difference"), "{said}");
}

#[test]
fn an_interrupt_ends_the_reading_of_a_large_file() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let large = copy.path("host/data/nothing.00001.sql");
    let file = fs::File::options().write(true).open(&large).unwrap();
    file.set_len(8 << 30).unwrap();
    // Only with a manifest would its size be enough to reject it.
    fs::write(copy.path("host/manifest.json"), "{}").unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .arg("verify")
        .arg(copy.path("host"))
        .args(["--progress", "none"]);
    let mut program = start(command);
    let open = format!("/proc/{}/fd", program.pid().as_raw_nonzero());
    let large = fs::canonicalize(large).unwrap();
    wait_until("the large file is being read", || {
        assert!(
            !program.ended(),
            "the program ended before it was interrupted"
        );
        let open = fs::read_dir(&open).into_iter().flatten().flatten();
        open.into_iter()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == large))
    });
    program.signal(Signal::INT);
    program.finish(RUN_BOUND).expect_code(130);
}

#[test]
fn an_interrupt_ends_a_comparison() {
    let Some(server) = with_binlog() else { return };
    let database = "verify_interrupt";
    server.create_database(database);
    server.feed(
        database,
        "a large table",
        b"CREATE TABLE big (id INT PRIMARY KEY, v VARCHAR(1000));
          INSERT INTO big SELECT seq, repeat('v', 1000) FROM seq_1_to_60000;",
    );
    let lists = Lists {
        local: vec!["big"],
        ..Lists::default()
    };
    let site = Site::new(server, database, &lists);
    site.backup_ok(&["--chunk-size", "1G"]);
    let mut command = site.command("verify", &[site.latest()]);
    command.args(["--against", "--progress", "none", "-j", "1"]);
    let mut program = start(command);
    stop_in_the_middle_of_big(server, database, &mut program);
    program.signal(Signal::INT);
    program.signal(Signal::CONT);
    let outcome = program.finish(RUN_BOUND).expect_code(130);
    assert_eq!(outcome.expect_said("interrupted").stdout, "");
}
