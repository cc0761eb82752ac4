//! Files that say what to do and who we are, and are not what they should be: exit 2 with one
//! line that names the file, and the line and the key where there are such, in bounded time and
//! memory, and never with a secret in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::site::{Lists, Outcome, PROGRAM, Site, start};

/// What reading a small file may take, in KiB; a MiB of lists in lists takes the parser 130 MiB.
const BOUND_KIB: u64 = 192 << 10;
const RUN_BOUND: Duration = Duration::from_secs(30);

/// The ways to hand a file in.
const FLAGS: [&str; 5] = [
    "--config",
    "--defaults-file",
    "--defaults-extra-file",
    "--db-config",
    "--password-file",
];

struct Place {
    site: Site,
}

impl Place {
    fn new() -> Place {
        Place {
            site: Site::offline(&Lists::default()),
        }
    }

    fn write(&self, content: &[u8]) -> PathBuf {
        let path = self.site.path("handed-in");
        fs::remove_file(&path).ok();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Runs `plan` with the file, and nobody to connect to.
    #[track_caller]
    fn run(&self, flag: &str, path: &Path) -> Outcome {
        let report = self.site.path("peak");
        let mut time = Command::new("/usr/bin/time");
        time.args(["-f", "%M", "-o"])
            .arg(&report)
            .arg(PROGRAM)
            .arg("plan");
        time.arg(flag).arg(path);
        if flag != "--config" {
            time.arg("--config")
                .arg(self.site.path("schema_backup.conf"));
        }
        time.args([
            "--socket=/nonexistent/socket",
            "--database=d",
            "--backup-dir=/nonexistent",
        ]);
        time.env("HOME", self.site.path(""))
            .current_dir(self.site.path(""));
        time.env_remove("SCHEMA_BACKUP_PASSWORD");
        let outcome = start(time).finish(RUN_BOUND);
        let peak = fs::read_to_string(report).unwrap();
        let peak: u64 = peak.lines().last().unwrap().trim().parse().unwrap();
        assert!(peak < BOUND_KIB, "{flag}: {peak} KiB: {}", outcome.stderr);
        outcome
    }

    /// It is refused in one line, perhaps with a hint, that names the file and `parts`.
    #[track_caller]
    fn refused(&self, flag: &str, path: &Path, parts: &[&str]) {
        let outcome = self.run(flag, path).expect_code(2);
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        let said = lines.iter().find(|line| line.contains("error: ")).unwrap();
        assert!(said.contains(path.to_str().unwrap()), "{flag}: {said}");
        assert!(said.len() < 600, "{flag}: {} bytes", said.len());
        for part in parts {
            assert!(said.contains(part), "{flag}: `{part}` is not in: {said}");
        }
        let hints = lines.iter().filter(|line| line.starts_with("hint: "));
        assert!(
            lines.len() <= 1 + hints.count(),
            "{flag}: {}",
            outcome.stderr
        );
        assert!(
            !outcome.stderr.contains("s3cret"),
            "{flag}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn what_is_no_file_is_refused_whatever_it_was_to_be() {
    let place = Place::new();
    let site = &place.site;
    let missing = site.path("missing");
    let directory = site.path("directory");
    fs::create_dir(&directory).unwrap();
    let pipe = site.path("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let large = site.path("large");
    fs::write(&large, "# a comment\n".repeat(10 << 20 >> 3)).unwrap();
    let long = site.path(&"x".repeat(300));
    for flag in FLAGS {
        place.refused(flag, &missing, &["No such file"]);
        place.refused(flag, &directory, &["directory"]);
        place.refused(flag, &pipe, &["nothing comes out of the pipe"]);
        place.refused(flag, &large, &["1 MiB"]);
        place.refused(flag, Path::new("/dev/zero"), &["1 MiB"]);
        place.refused(flag, &long, &["too long"]);
    }
}

/// As root nothing is unreadable; so as somebody else, to whom the program is shown.
#[test]
fn what_may_not_be_read_is_refused() {
    let place = Place::new();
    let program = place.site.path("program");
    fs::copy(PROGRAM, &program).unwrap();
    let conf = place.site.path("schema_backup.conf");
    fs::set_permissions(place.site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for flag in FLAGS {
        let path = place.write(b"password: s3cret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program);
        command.arg("plan").arg(flag).arg(&path);
        if flag != "--config" {
            command.arg("--config").arg(&conf);
        }
        command.args([
            "--socket=/nonexistent/socket",
            "--database=d",
            "--backup-dir=/x",
        ]);
        command.env("HOME", "/nonexistent").current_dir("/");
        let outcome = start(command).finish(RUN_BOUND).expect_code(2);
        outcome
            .expect_said(path.to_str().unwrap())
            .expect_said("permission denied");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_line() {
    let place = Place::new();
    for (flag, content) in [
        ("--config", &b"threads: 2\n# \xff\n"[..]),
        ("--db-config", b"database:\n  db_password: s3cret\xff\n"),
        ("--defaults-file", b"[client]\npassword=s3cret\xff\n"),
    ] {
        place.refused(flag, &place.write(content), &["UTF-8", "line 2"]);
    }
    place.refused(
        "--password-file",
        &place.write(b"s3cret\xff"),
        &["UTF-8", "line 1"],
    );
    place.refused("--password-file", &place.write(b""), &["line 1"]);
    for (flag, content) in [
        ("--config", &b"threads: 2\nlocal: [a\0b]\n"[..]),
        ("--db-config", b"database:\n  db_password: s3cret\0\n"),
    ] {
        place.refused(flag, &place.write(content), &["line 2"]);
    }
}

#[test]
fn yaml_that_grows_or_goes_deep_is_refused() {
    let place = Place::new();
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (from, to) in ('a'..='y').zip('b'..='z') {
        let again = vec![format!("*{from}"); 9].join(", ");
        bomb.push_str(&format!("{to}: &{to} [{again}]\n"));
    }
    let conf = place.write(format!("{bomb}local: *z\n").as_bytes());
    place.refused("--config", &conf, &["local", "expected a name"]);
    for (section, place_of_key) in [
        ("database: *z\n", "line"),
        ("database:\n  db_user: *z\n", "db_user"),
        ("database:\n  db_port: *z\n", "db_port"),
    ] {
        let file = place.write(format!("{bomb}{section}").as_bytes());
        place.refused("--db-config", &file, &[place_of_key]);
    }
    // In a section of another program it concerns nobody.
    let file = place.write(format!("{bomb}database: {{db_user: u}}\n").as_bytes());
    place.run("--db-config", &file).expect_code(10);

    for deep in [
        "[".repeat(500_000),
        "{a: ".repeat(200_000),
        "- ".repeat(400_000),
    ] {
        let file = place.write(format!("x: 1\nlocal:\n {deep}").as_bytes());
        place.refused("--config", &file, &["line 3"]);
        let file = place.write(format!("x: 1\ndatabase:\n {deep}").as_bytes());
        place.refused("--db-config", &file, &["line 3"]);
    }
}

#[test]
fn wrong_types_and_keys_given_twice_name_line_and_key() {
    let place = Place::new();
    for (text, parts) in [
        ("a: 1\nlocal: {b: c}\n", ["local", "line 2"]),
        ("a: 1\nglobal: users\n", ["global", "line 2"]),
        ("a: 1\nthreads: [2]\n", ["threads", "line 2"]),
        ("a: 1\nlink_unchanged: 3\n", ["link_unchanged", "line 2"]),
        (
            "a: 1\ncsv2_backup_dir: {a: b}\n",
            ["csv2_backup_dir", "line 2"],
        ),
        ("local: []\nlocal: []\n", ["local", "line 2"]),
        ("local: [a]\nglobal: [a, [b]]\n", ["global[1]", "line 2"]),
    ] {
        place.refused("--config", &place.write(text.as_bytes()), &parts);
    }
    for (text, parts) in [
        (
            "database:\n  db_password: 12345\n",
            ["`db_password`", "line 2"],
        ),
        ("database:\n  db_user: [s3cret]\n", ["`db_user`", "line 2"]),
        ("database:\n  db_port: s3cret\n", ["`db_port`", "line 2"]),
        (
            "database:\n  db_name: {a: s3cret}\n",
            ["`db_name`", "line 2"],
        ),
        (
            "database:\n  db_user: a\n  db_user: b\n",
            ["handed-in", "line"],
        ),
        ("x: 1\ndatabase: s3cret\n", ["handed-in", "line 2"]),
        ("- a\n", ["handed-in", "line 1"]),
    ] {
        place.refused("--db-config", &place.write(text.as_bytes()), &parts);
    }
    for (text, parts) in [
        ("[client]\nport=s3cret\n", ["`port`", "line 2"]),
        ("[client]\nssl-mode=s3cret\n", ["`ssl-mode`", "line 2"]),
        ("password=s3cret\n", ["line 1", "group"]),
        ("[client\n", ["line 1", "`]`"]),
        ("\n!include handed-in\n", ["line 2", "files within files"]),
    ] {
        place.refused("--defaults-file", &place.write(text.as_bytes()), &parts);
    }
}

#[test]
fn names_of_any_length_are_shown_in_part() {
    let place = Place::new();
    let long = "s".repeat(500_000);
    for text in [
        format!("threads: {long}\n"),
        format!("chunk_size: {long}\n"),
        format!("consistency: {long}\n"),
        format!("link_unchanged: {long}\n"),
        format!("compression: {long}\n"),
        format!("compression: zstd:{long}\n"),
        format!("skip_objects: [{long}]\n"),
        format!("csv2_backup_dir: {long}\n"),
        format!("compression: {{{long}: none}}\n"),
        format!("local: {long}\n"),
    ] {
        place.refused("--config", &place.write(text.as_bytes()), &["line 1"]);
    }
    // Some other file, which may be a secret one.
    place.refused("--config", &place.write(b"s3cret\n"), &["key: value"]);
    for number in ["4711471147", "-4711471147", "4711471147.5"] {
        let outcome = place.run("--config", &place.write(number.as_bytes()));
        let outcome = outcome.expect_code(2).expect_said("key: value");
        assert!(!outcome.stderr.contains("47114"), "{}", outcome.stderr);
    }
    let file = place.write(format!("[client]\nssl={long}\n").as_bytes());
    place.refused("--defaults-file", &file, &["`ssl`", "line 2"]);
    let file = place.write(format!("[client]\n!include {long}\n").as_bytes());
    place.run("--defaults-file", &file).expect_code(2);
}
