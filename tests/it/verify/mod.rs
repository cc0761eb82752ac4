//! `verify`: whatever happens to a file of a backup, that file is named, and no other; whatever
//! happens to a table of the database, `--against` names that table, and no other.

mod against;
mod changes;
mod files;
mod manifest;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::server::{Kind, Server, shared, with_binlog};
use crate::site::{Lists, Outcome, PROGRAM, Site, chunks, contents, run};

const MARKS: [&str; 3] = ["SHA256SUMS", "manifest.json", "run.json"];

const DATABASE: &str = "
CREATE TABLE series (seq INT PRIMARY KEY);
INSERT INTO series WITH RECURSIVE up AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM up WHERE seq < 600)
  SELECT seq FROM up;
CREATE TABLE settings (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(60) NOT NULL);
INSERT INTO settings (v) SELECT concat('value ', seq, ' (\\n(x') FROM series WHERE seq <= 400;
CREATE TABLE users (name VARCHAR(20) COLLATE utf8mb4_general_ci, n INT, b BLOB, PRIMARY KEY (name, n));
INSERT INTO users SELECT concat('u', seq DIV 7), seq, unhex(sha2(seq, 256)) FROM series;
CREATE TABLE floats (id INT PRIMARY KEY, f FLOAT, d DOUBLE);
INSERT INTO floats VALUES (1, 1, 0.1), (2, 16777217, 5e-324), (3, NULL, 1e-320);
CREATE TABLE nullable (k INT UNIQUE, v INT);
INSERT INTO nullable SELECT if(seq % 50, seq, NULL), seq FROM series WHERE seq <= 300;
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
DROP TABLE series;
";

const SEQUENCE: &str = "
CREATE SEQUENCE numbers START WITH 5 INCREMENT BY 3;
DO nextval(numbers);
";

/// Makes the database.
fn fill(server: &Server, database: &str) {
    server.create_database(database);
    server.feed(database, "the database", DATABASE.as_bytes());
    if !server.kind().is_mysql() {
        server.feed(database, "a sequence", SEQUENCE.as_bytes());
    }
}

fn lists(kind: Kind) -> Lists<'static> {
    let mut local = vec!["users", "floats", "nullable", "keyless", "myisam"];
    if !kind.is_mysql() {
        local.push("numbers");
    }
    Lists {
        global: vec!["settings", "nothing", "odd name/.%"],
        local,
        ephemeral: vec!["passing"],
        ..Lists::default()
    }
}

/// Makes the database and its backup, of both directories.
fn backed_up(server: &Server, database: &str) -> Site {
    fill(server, database);
    let site = Site::new(server, database, &lists(server.kind()));
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

/// A server of the kind; MariaDB's is once with a binary log and once without.
fn server(kind: Kind) -> Option<&'static Server> {
    match kind {
        Kind::MariaDb10 => with_binlog(),
        _ => shared(kind),
    }
}

fn servers() -> impl Iterator<Item = &'static Server> {
    Kind::ALL.into_iter().filter_map(server)
}

/// A backup made on `server`, of the database `verify_files`, that tests copy.
fn original_on(server: &Server) -> &'static Site {
    static SITES: [OnceLock<Site>; 3] = [const { OnceLock::new() }; 3];
    SITES[server.kind() as usize].get_or_init(|| backed_up(server, "verify_files"))
}

/// The one made on MariaDB 10.11: what happens to files concerns no server.
fn original() -> Option<&'static Site> {
    server(Kind::MariaDb10).map(original_on)
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
