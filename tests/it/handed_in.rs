//! Backup directories that somebody hands in: whatever lies there, `restore`, `verify` and `list`
//! stay inside, follow no link, read nothing without an end and take no memory for numbers. What
//! is wrong is refused before anything is written.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mysql::prelude::Queryable;
use sha2::{Digest, Sha256};

use crate::server::{Server, with_binlog};
use crate::site::{Lists, Outcome, PROGRAM, Site, edited, start};

/// What reading a manifest and a few files may take, in KiB.
const BOUND_KIB: u64 = 160 << 10;
const RUN_BOUND: Duration = Duration::from_secs(60);

/// A server, and a backup on it that tests copy: a plain table and one that is compressed.
fn original() -> Option<(&'static Server, &'static Site)> {
    static SITE: OnceLock<Site> = OnceLock::new();
    let server = with_binlog()?;
    let site = SITE.get_or_init(|| {
        server.create_database("handed_in");
        server.feed(
            "handed_in",
            "the tables",
            b"CREATE TABLE plain (id INT PRIMARY KEY, v VARCHAR(200));
              INSERT INTO plain SELECT seq, repeat(md5(seq), 5) FROM seq_1_to_200;
              CREATE TABLE packed (id INT PRIMARY KEY, v VARCHAR(200));
              INSERT INTO packed SELECT seq, repeat(md5(seq), 5) FROM seq_1_to_200;",
        );
        let lists = Lists {
            global: vec!["plain"],
            local: vec!["packed"],
            ..Lists::default()
        };
        let site = Site::new(server, "handed_in", &lists);
        site.backup_ok(&["--chunk-size", "8K", "--progress", "none"]);
        site
    });
    Some((server, site))
}

/// A copy of both directories, `host` and `user/20260102030405`, as `list` expects them.
struct Given {
    server: &'static Server,
    site: &'static Site,
    dir: tempfile::TempDir,
    /// The database to restore into, which no other test does.
    target: String,
}

impl Drop for Given {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {}", self.target);
        self.server.execute(&[&drop]);
    }
}

impl Given {
    fn new() -> Option<Given> {
        let (server, site) = original()?;
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let given = Given {
            server,
            site,
            dir: tempfile::tempdir().unwrap(),
            target: format!("handed_in_{number}"),
        };
        fs::create_dir(given.path("user")).unwrap();
        for (from, to) in [(site.host(), given.host()), (site.latest(), given.user())] {
            let copied = Command::new("cp").arg("-a").args([from, to]).status();
            assert!(copied.unwrap().success());
        }
        Some(given)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn host(&self) -> PathBuf {
        self.path("host.example.org")
    }

    fn user(&self) -> PathBuf {
        self.path("user/20260102030405")
    }

    /// Changes the manifest of `backup`, whose checksum is right again afterwards.
    #[track_caller]
    fn edit(&self, backup: &Path, from: &str, to: &str) {
        let path = backup.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, edited(&text, from, to)).unwrap();
    }

    /// Puts other content into a file, and its size and checksum into the manifest.
    fn replace(&self, backup: &Path, file: &str, content: &[u8]) {
        let path = backup.join(file);
        let old = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        self.edit(backup, &sum(&old), &sum(content));
        let bytes = |content: &[u8]| format!("\"bytes\": {},\n", content.len());
        // Where the entry of this file begins the size is the next.
        let manifest = backup.join("manifest.json");
        let text = fs::read_to_string(&manifest).unwrap();
        let at = text.find(&format!("\"file\": \"{file}\"")).unwrap();
        let entry = text[at..].replacen(&bytes(&old), &bytes(content), 1);
        fs::write(
            &manifest,
            edited(&(text[..at].to_owned() + &entry), "\"", "\""),
        )
        .unwrap();
    }

    fn measured(&self, mut command: Command) -> Outcome {
        let report = self.path("peak");
        let mut time = Command::new("/usr/bin/time");
        time.args(["-f", "%M", "-o"]).arg(&report);
        time.arg(command.get_program()).args(command.get_args());
        time.current_dir(self.dir.path())
            .env("HOME", self.dir.path());
        command = time;
        let outcome = start(command).finish(RUN_BOUND);
        let peak = fs::read_to_string(report).unwrap();
        let peak: u64 = peak.lines().last().unwrap().trim().parse().unwrap();
        assert!(peak < BOUND_KIB, "{peak} KiB: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panic"), "{}", outcome.stderr);
        outcome
    }

    fn restore(&self) -> Outcome {
        let (host, user) = (self.host(), self.user());
        let dirs = [host.as_path(), user.as_path()];
        self.measured(self.site.restore_command(&dirs, &self.target, &["-j", "2"]))
    }

    fn verify(&self) -> Outcome {
        let mut command = Command::new(PROGRAM);
        command.arg("verify").arg(self.host()).arg(self.user());
        self.measured(command)
    }

    fn list(&self) -> Outcome {
        let mut command = Command::new(PROGRAM);
        let config = self.path("conf");
        fs::write(&config, "").unwrap();
        command.arg("list").arg("--config").arg(config);
        command.arg("--backup-dir").arg(self.dir.path());
        command.arg("--user-data-dir").arg(self.path("user"));
        self.measured(command)
    }

    /// `restore` refuses it before it writes, and `verify` finds it.
    #[track_caller]
    fn expect_refused(&self, what: &str) {
        let restored = self.restore();
        assert_eq!(restored.code, Some(4), "{what}: {}", restored.stderr);
        let verified = self.verify();
        assert_eq!(verified.code, Some(4), "{what}: {}", verified.stderr);
        let there: Option<String> = self
            .server
            .connect()
            .query_first(format!("SHOW DATABASES LIKE '{}'", self.target))
            .unwrap();
        assert_eq!(there, None, "{what}: something was written");
    }

    /// The same, and `list` does not say that it is complete.
    #[track_caller]
    fn expect_incomplete(&self, what: &str) {
        self.expect_refused(what);
        let listed = self.list();
        let complete = listed.stdout.matches("complete").count();
        let not = listed.stdout.matches("incomplete").count();
        assert!(complete - not < 2, "{what}: {}", listed.stdout);
    }
}

fn sum(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn special(path: &Path, arguments: &[&str]) {
    fs::remove_file(path).ok();
    let made = Command::new("mknod").arg(path).args(arguments).status();
    assert!(
        made.unwrap().success(),
        "mknod {arguments:?}: are these tests run as root?"
    );
}

#[test]
fn it_is_sound_where_nothing_is_done_to_it() {
    let Some(given) = Given::new() else { return };
    given.verify().expect_code(0);
    given.restore().expect_code(0);
    let listed = given.list().expect_code(0);
    assert_eq!(
        listed.stdout.matches("complete").count(),
        2,
        "{}",
        listed.stdout
    );
}

#[test]
fn a_manifest_leads_nowhere_else() {
    let Some(site) = original().map(|(_, site)| site) else {
        return;
    };
    let file = "data/plain.00001.sql";
    let content = fs::read(site.host().join(file)).unwrap();
    for path in [
        "../outside.sql",
        "data/../../outside.sql",
        "/etc/hostname",
        "./data/plain.00001.sql",
        "data//plain.00001.sql",
        "data/plain.00002.sql",
        "data/packed.00001.sql",
        "data\\\\plain.00001.sql",
        "data/plain.00001.sql\\u0000",
        "data/plain.00001.sql\\n",
        "manifest.json",
        "",
    ] {
        let Some(given) = Given::new() else { return };
        // What it leads to is what was written, so that only its place tells.
        fs::write(given.path("outside.sql"), &content).unwrap();
        given.edit(&given.host(), file, path);
        given.expect_incomplete(path);
    }
}

#[test]
fn links_pipes_and_devices_are_not_read() {
    let places = [
        "manifest.json",
        "data/packed.00001.sql.zst",
        "structure/tables/packed.sql",
    ];
    type Make = fn(&Path, &Path);
    let things: [(&str, Make); 5] = [
        ("a link to the file itself", |path, aside| {
            symlink(aside, path).unwrap()
        }),
        ("a pipe", |path, _| special(path, &["p"])),
        ("an endless device", |path, _| {
            special(path, &["c", "1", "5"])
        }),
        ("a directory", |path, _| fs::create_dir(path).unwrap()),
        ("a link to a device", |path, _| {
            symlink("/dev/zero", path).unwrap()
        }),
    ];
    for place in places {
        for (what, make) in things {
            let Some(given) = Given::new() else { return };
            let (path, aside) = (given.user().join(place), given.path("aside"));
            fs::rename(&path, &aside).unwrap();
            make(&path, &aside);
            given.expect_incomplete(&format!("{what} for {place}"));
        }
    }
    for folder in ["data", "structure", "structure/tables"] {
        let Some(given) = Given::new() else { return };
        let (path, aside) = (given.user().join(folder), given.path("aside"));
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        given.expect_incomplete(&format!("a link for {folder}"));
    }
}

#[test]
fn what_stands_beside_a_manifest_is_not_read_without_end() {
    for place in ["run.json", "SHA256SUMS"] {
        for arguments in [&["p"][..], &["c", "1", "5"]] {
            let Some(given) = Given::new() else { return };
            special(&given.user().join(place), arguments);
            given.verify().expect_code(4).expect_said("1 file");
            given.list().expect_code(0);
        }
        let Some(given) = Given::new() else { return };
        let file = fs::File::create(given.user().join(place)).unwrap();
        file.set_len(64 << 30).unwrap();
        given.verify().expect_code(4);
        given.list().expect_code(0);
    }
}

#[test]
fn absurd_numbers_are_refused() {
    let most = u64::MAX.to_string();
    for (key, number) in [
        ("rows", most.as_str()),
        ("rows", "18446744073709551616"),
        ("rows", "-1"),
        ("rows", "1e9"),
        ("bytes", most.as_str()),
        ("raw_bytes", most.as_str()),
        ("raw_bytes", "9223372036854775807"),
    ] {
        let Some(given) = Given::new() else { return };
        let manifest = given.user().join("manifest.json");
        let text = fs::read_to_string(&manifest).unwrap();
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.split_once(&format!("\"{key}\": ")) {
                Some((indent, _)) => {
                    let comma = if line.ends_with(',') { "," } else { "" };
                    format!("{indent}\"{key}\": {number}{comma}")
                }
                None => line.to_owned(),
            })
            .collect();
        fs::write(&manifest, edited(&lines.join("\n"), "\"", "\"")).unwrap();
        given.expect_incomplete(&format!("{key}: {number}"));
    }
}

#[test]
fn a_manifest_that_is_too_large_or_too_deep_is_refused() {
    let Some(given) = Given::new() else { return };
    let manifest = given.host().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(1 << 20), close.repeat(1 << 20));
        fs::write(&manifest, edited(&text, "\"mariadb\"", &deep)).unwrap();
        given.expect_incomplete("deep nesting");
    }
    fs::write(&manifest, "[".repeat(1 << 20)).unwrap();
    given.expect_incomplete("deep nesting without an end");
    fs::File::create(&manifest)
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    given.expect_incomplete("64 GiB");
}

#[test]
fn one_file_for_two_and_two_tables_of_one_name_are_refused() {
    let Some(given) = Given::new() else { return };
    given.edit(
        &given.host(),
        "data/plain.00002.sql",
        "data/plain.00001.sql",
    );
    given.expect_incomplete("two chunks with one file");

    let Some(given) = Given::new() else { return };
    let text = fs::read_to_string(given.host().join("manifest.json")).unwrap();
    let (_, tables) = text.split_once("\"tables\": {").unwrap();
    let end = tables.find("\n    },\n").unwrap();
    let first = format!("\"tables\": {{{}\n    }},", &tables[..end]);
    given.edit(&given.host(), "\"tables\": {", &first);
    given.expect_incomplete("two tables of one name");
}

/// Far more than the manifest says comes out of a file, by little that is stored.
#[test]
fn what_unpacks_to_more_than_is_stated_is_left_in_time() {
    let Some(given) = Given::new() else { return };
    let file = "data/packed.00001.sql.zst";
    let good = zstd::decode_all(fs::File::open(given.user().join(file)).unwrap()).unwrap();
    let frame = zstd::bulk::compress(&vec![b'\n'; 64 << 20], 19).unwrap();
    let honest = zstd::bulk::compress(&good, 1).unwrap();
    // A whole file, and a TiB of empty lines behind it.
    let bomb = [honest, frame.repeat(1 << 14)].concat();
    given.replace(&given.user(), file, &bomb);
    let restored = given.restore().expect_code(4);
    restored
        .expect_said("packed")
        .expect_said("more comes out of it");
    given.verify().expect_code(4);
    let rows: Option<u64> = given
        .server
        .connect()
        .query_first(format!(
            "SELECT count(*) FROM {}.packed WHERE id < 10",
            given.target
        ))
        .unwrap();
    assert_eq!(rows, Some(0), "rows of a file that is refused");
}

#[test]
fn a_frame_that_wants_a_huge_window_is_refused() {
    let Some(given) = Given::new() else { return };
    let file = "data/packed.00001.sql.zst";
    let good = zstd::decode_all(fs::File::open(given.user().join(file)).unwrap()).unwrap();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(31).unwrap();
    encoder.write_all(&good).unwrap();
    given.replace(&given.user(), file, &encoder.finish().unwrap());
    given.restore().expect_code(4).expect_said("packed");
    given.verify().expect_code(4);
}

/// SQL that would be one endless statement.
#[test]
fn a_definition_without_end_is_refused() {
    let Some(given) = Given::new() else { return };
    let path = given.user().join("structure/tables/packed.sql");
    let old = fs::read(&path).unwrap();
    let file = fs::File::create(&path).unwrap();
    file.set_len(64 << 30).unwrap();
    let bytes = |bytes: u64| format!("\"bytes\": {bytes},\n");
    given.edit(&given.user(), &bytes(old.len() as u64), &bytes(64 << 30));
    let restored = given.restore();
    assert_eq!(restored.code, Some(4), "{}", restored.stderr);
}
