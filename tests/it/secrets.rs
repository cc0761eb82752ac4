//! Private data is private from the first moment of its existence, and the password appears
//! nowhere: not in arguments that others can see, not in what is said, not on disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use mysql::prelude::Queryable;
use rustix::process::Signal;

use crate::server::{Server, with_binlog};
use crate::services::{command, site_with_services};
use crate::site::{
    Lists, Outcome, RUN_BOUND, Site, edited, mode, run, sha256, start, wait_until, walk,
};

fn fill(server: &Server, database: &str) {
    server.create_database(database);
    server.feed(
        database,
        "the tables",
        b"CREATE TABLE settings (id INT PRIMARY KEY);
          INSERT INTO settings VALUES (1);
          CREATE TABLE people (id INT PRIMARY KEY, v VARCHAR(1000));
          INSERT INTO people SELECT seq, repeat(md5(seq), 30) FROM seq_1_to_50000;
          CREATE TABLE jobs (id INT PRIMARY KEY);
          INSERT INTO jobs VALUES (1);
          ANALYZE TABLE people;",
    );
}

fn lists() -> Lists<'static> {
    Lists {
        global: vec!["settings"],
        local: vec!["people"],
        ephemeral: vec!["jobs"],
        ..Lists::default()
    }
}

#[test]
fn user_data_is_private_from_the_first_moment_whatever_the_umask() {
    let Some(server) = with_binlog() else { return };
    fill(server, "secrets_modes");
    let site = Site::new(server, "secrets_modes", &lists());
    let ephemeral = site.path("ephemeral");
    let umask = ["sh", "-c", "umask 000; exec \"$@\"", "sh"];
    let more = [
        "-e",
        ephemeral.to_str().unwrap(),
        "-j",
        "4",
        "--chunk-size",
        "1M",
    ];
    let mut program = start(site.wrapped(&umask, "", &more));

    let (mut seen, mut open) = (BTreeSet::new(), BTreeSet::new());
    let mut seen_of_host = BTreeSet::new();
    while !program.ended() {
        for root in [site.user_data_dir(), ephemeral.clone()] {
            for path in walk(&root).into_iter().chain([root]) {
                let Some(mode) = mode(&path).filter(|_| !path.is_symlink()) else {
                    continue;
                };
                if mode & 0o077 != 0 {
                    open.insert(format!("{mode:o} {}", path.display()));
                }
                seen.insert(path);
            }
        }
        // What is staged for the host directory is public, and in a place that is not.
        for path in walk(&site.backup_dir()) {
            let name = path.file_name().unwrap().to_string_lossy();
            let private = [".schema_backup", "lock", "journal.json", "journal.new"];
            let open_to_others = mode(&path).filter(|mode| mode & 0o077 != 0);
            if private.contains(&name.as_ref()) {
                if let Some(mode) = open_to_others {
                    open.insert(format!("{mode:o} {}", path.display()));
                }
                seen_of_host.insert(name.into_owned());
            }
        }
    }
    program.finish(RUN_BOUND).expect_code(0);
    assert!(
        open.is_empty(),
        "others could read during the run: {open:#?}"
    );
    for name in [".schema_backup", "lock"] {
        assert!(seen_of_host.contains(name), "{name} was not seen");
    }
    let staged = seen
        .iter()
        .filter(|path| path.to_string_lossy().contains(".schema_backup"))
        .count();
    assert!(
        staged > 3,
        "the test looked too seldom to see anything: {seen:#?}"
    );

    for root in [site.user_data_dir(), ephemeral] {
        for path in walk(&root)
            .into_iter()
            .chain([root])
            .filter(|path| !path.is_symlink())
        {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), Some(expected), "{}", path.display());
        }
    }
    // The host directory is for a git repository, under the umask.
    assert_eq!(
        mode(&site.host().join("manifest.json")).map(|mode| mode & 0o600),
        Some(0o600)
    );
    assert_eq!(mode(&site.host()).map(|mode| mode & 0o700), Some(0o700));
}

#[test]
fn the_host_directory_follows_the_umask() {
    let Some(server) = with_binlog() else { return };
    fill(server, "secrets_umask");
    let site = Site::new(server, "secrets_umask", &lists());
    run(site.wrapped(
        &["sh", "-c", "umask 022; exec \"$@\"", "sh"],
        "",
        &["-j", "2"],
    ))
    .expect_code(0);
    for path in walk(&site.backup_dir()) {
        let expected = if path.is_dir() { 0o755 } else { 0o644 };
        assert_eq!(mode(&path), Some(expected), "{}", path.display());
    }
}

/// Runs to the end; fails if any process shows `secret` in its arguments meanwhile.
fn run_watching_arguments(command: Command, secret: &str) -> Outcome {
    let mut program = start(command);
    let mut looks = 0;
    while !program.ended() {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let shown = arguments
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!shown, "{}", String::from_utf8_lossy(&arguments));
        }
        looks += 1;
    }
    assert!(looks > 0);
    program.finish(RUN_BOUND)
}

#[track_caller]
fn assert_not_in_files(root: &Path, secret: &str) {
    for path in walk(root).into_iter().filter(|path| path.is_file()) {
        let content = fs::read(&path).unwrap();
        assert!(
            !content
                .windows(secret.len())
                .any(|window| window == secret.as_bytes()),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_password_appears_in_no_arguments_output_manifest_or_record() {
    let Some(server) = with_binlog() else { return };
    fill(server, "secrets_password");
    let secret = server.create_user("secretive", &["ALL ON *.*"]);
    let socket = format!("--socket={}", server.socket().display());
    let who = [
        "--user=secretive",
        "--database=secrets_password",
        socket.as_str(),
    ];

    let by_file =
        Site::offline(&lists()).connect_as(server, "secrets_password", "secretive", &secret);
    let by_file = (by_file.command("", &["-vvv"]), by_file);
    let by_environment = Site::offline(&lists()).connect_by(&who);
    let mut command = by_environment.command("", &["-vvv"]);
    command.env("SCHEMA_BACKUP_PASSWORD", &secret);
    let by_environment = (command, by_environment);
    let by_option_file = Site::offline(&lists());
    let file =
        by_option_file.write_private("my.cnf", &format!("[client]\npassword = \"{secret}\"\n"));
    let defaults = format!("--defaults-file={}", file.display());
    // An option file is named before anything else, as the stock client wants it.
    let by_option_file = by_option_file.connect_by(&[&[defaults.as_str()], &who[..]].concat());
    let by_option_file = (
        by_option_file.command("", &["-vvv", "--progress", "json"]),
        by_option_file,
    );

    for (command, site) in [by_file, by_environment, by_option_file] {
        let outcome = run_watching_arguments(command, &secret).expect_code(0);
        assert!(
            !outcome.stdout.contains(&secret) && !outcome.stderr.contains(&secret),
            "{outcome:?}"
        );
        assert_not_in_files(&site.backup_dir(), &secret);
        assert_not_in_files(&site.user_data_dir(), &secret);
    }
}

#[test]
fn the_password_appears_in_no_error() {
    let Some(server) = with_binlog() else { return };
    let wrong = "a-wrong-but-still-secret-password";
    let site = Site::offline(&lists()).connect_as(server, "mysql", "root", wrong);
    let outcome = site.backup(&["-vvv"]).expect_code(10);
    assert!(
        !outcome.stderr.contains(wrong) && !outcome.stdout.contains(wrong),
        "{outcome:?}"
    );
}

#[test]
fn a_password_is_not_accepted_as_an_argument() {
    let site = Site::offline(&lists());
    for argument in ["--password=hunter2", "-phunter2"] {
        let outcome = site
            .backup(&[
                "--socket=/nonexistent",
                "--user=u",
                "--database=d",
                argument,
            ])
            .expect_code(2);
        assert!(!site.host().exists() && outcome.stdout.is_empty());
    }
}

#[test]
fn services_do_not_inherit_the_password() {
    let Some(server) = with_binlog() else { return };
    fill(server, "secrets_services");
    let secret = server.create_user("secretive_too", &["ALL ON *.*"]);
    let socket = format!("--socket={}", server.socket().display());
    let site = site_with_services(server, "secrets_services", &lists()).connect_by(&[
        "--user=secretive_too",
        "--database=secrets_services",
        socket.as_str(),
    ]);
    let mut command = command(&site, &["-m"], "nothing");
    command.env("SCHEMA_BACKUP_PASSWORD", &secret);
    run(command).expect_code(0);
    let seen = fs::read_to_string(site.path("environment")).unwrap();
    assert_eq!(seen.lines().collect::<BTreeSet<_>>(), ["password="].into());
}

#[test]
fn no_core_dump_is_left() {
    let Some(server) = with_binlog() else { return };
    fill(server, "secrets_core");
    let site = Site::new(server, "secrets_core", &lists());
    // Somebody who wants core dumps, and a lock that keeps the run waiting.
    let mut connection = server.connect();
    connection
        .query_drop("LOCK TABLES secrets_core.people WRITE")
        .unwrap();
    let wrapper = ["sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"];
    let more = ["--consistency", "table-locks", "--lock-wait-timeout", "60"];
    let mut program = start(site.wrapped(&wrapper, "", &more));
    let proc = Path::new("/proc").join(program.pid().as_raw_pid().to_string());
    let core_limit = || {
        let limits = fs::read_to_string(proc.join("limits")).unwrap();
        let line = limits.lines().find(|l| l.starts_with("Max core file size"));
        let words = line.unwrap().split_whitespace().map(str::to_owned);
        words.skip(4).take(2).collect::<Vec<_>>()
    };
    let is_ours = || {
        let name = fs::read_to_string(proc.join("comm")).unwrap();
        name.trim_end() == "schema_backup"
    };
    wait_until("the program has begun", || {
        is_ours() && core_limit() == ["0", "0"]
    });
    // The files of a process that may not be dumped belong to root, whoever runs it; as root one
    // has to make it die to see.
    program.signal(Signal::ABORT);
    wait_until("it is dead", || program.ended());
    let left = walk(&site.path("")).into_iter().find(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("core")
    });
    assert_eq!(left, None);
}

#[test]
fn what_the_server_quotes_of_a_row_is_not_repeated() {
    let Some(server) = with_binlog() else { return };
    let secret = "a-row-that-nobody-may-see";
    server.create_database("secrets_quoted");
    server.execute(&[
        "CREATE TABLE secrets_quoted.t (id INT, v VARCHAR(60))",
        &format!("INSERT INTO secrets_quoted.t VALUES (1, '{secret}'), (2, 'x'), (3, '{secret}')"),
    ]);
    let lists = Lists {
        local: vec!["t"],
        ..Lists::default()
    };
    let site = Site::new(server, "secrets_quoted", &lists);
    site.backup_ok(&["--compress", "none", "--progress", "none"]);
    let latest = site.latest();
    let file = latest.join("data/t.00001.sql");
    let again = "secrets_quoted_again";
    let restore = || {
        let command = site.restore_command(&[&latest], again, &["-vvv", "--data-only"]);
        let outcome = run(command);
        let quiet = !outcome.stderr.contains(secret) && !outcome.stdout.contains(secret);
        assert!(quiet, "{outcome:?}");
        outcome
    };
    let make = |definition: &str| {
        server.create_database(again);
        server.execute(&[&format!("CREATE TABLE {again}.t {definition}")]);
    };

    // Not InnoDB, which looks for duplicates only when it commits.
    make("(id INT, v VARCHAR(60) UNIQUE) ENGINE=MyISAM");
    restore()
        .expect_code(3)
        .expect_said("table `t`: data/t.00001.sql: rows 1 to 3")
        .expect_said("server error 1062 (23000): a row has the key of another one");
    make("(id INT, v VARCHAR(60)) PARTITION BY LIST (id) (PARTITION p VALUES IN (1, 3))");
    restore()
        .expect_code(3)
        .expect_said("server error 1526 (HY000): its words may quote rows");

    // A statement that the server does not understand, with checksums that are right.
    make("(id INT, v VARCHAR(60))");
    let good = fs::read_to_string(&file).unwrap();
    let bad = good.replacen(&format!("'{secret}'),"), &format!("'{secret}') "), 1);
    assert_ne!(good, bad);
    fs::write(&file, &bad).unwrap();
    let manifest = latest.join("manifest.json");
    let listed = fs::read_to_string(&manifest).unwrap();
    let sums = [sha256(good.as_bytes()), sha256(bad.as_bytes())];
    fs::write(&manifest, edited(&listed, &sums[0], &sums[1])).unwrap();
    restore()
        .expect_code(3)
        .expect_said("server error 1064 (42000)");
}
