//! The verb `restore`: what a backup holds comes back, once, or is refused by name.

mod bulk;
mod kept;
mod trouble;

use std::path::Path;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use rustix::process::Signal;

use crate::compare::{assert_same, fingerprint};
use crate::server::{Server, with_binlog};
use crate::site::{Lists, Outcome, RUN_BOUND, Site, json, run, start};

/// Restores both directories of a site's newest backup into `database`.
fn restore(site: &Site, database: &str, arguments: &[&str]) -> Outcome {
    run(command(site, database, arguments))
}

fn command(site: &Site, database: &str, arguments: &[&str]) -> std::process::Command {
    let (host, user) = (site.host(), site.latest());
    let dirs = [host.as_path(), user.as_path()];
    site.restore_command(&dirs, database, arguments)
}

/// A parent and a child of several MiB with secondary keys, a table without transactions in
/// several chunks, a trigger and a view.
fn fill(server: &Server, database: &str) -> Site {
    server.create_database(database);
    server.feed(
        database,
        "the tables",
        b"CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, a INT, v VARCHAR(120), KEY a (a, v), KEY v (v(20)));
          INSERT INTO parent SELECT seq, seq % 97, repeat(md5(seq), 3) FROM seq_1_to_60000;
          CREATE TABLE child (id INT PRIMARY KEY, p INT, w CHAR(90), KEY p (p), KEY w (w(9)), CONSTRAINT c_p FOREIGN KEY (p) REFERENCES parent (id));
          INSERT INTO child SELECT seq, 1 + seq % 60000, repeat(md5(seq), 2) FROM seq_1_to_60000;
          ALTER TABLE parent AUTO_INCREMENT = 900000;
          CREATE TABLE plain (id INT PRIMARY KEY, v VARCHAR(90)) ENGINE=MyISAM;
          INSERT INTO plain SELECT seq, repeat(md5(seq), 2) FROM seq_1_to_20000;
          CREATE TABLE log (n INT);
          CREATE TRIGGER t AFTER INSERT ON child FOR EACH ROW INSERT INTO log VALUES (NEW.id);
          CREATE VIEW v AS SELECT p.a, c.w FROM parent p JOIN child c ON c.p = p.id;",
    );
    let lists = Lists {
        global: vec!["plain", "log"],
        local: vec!["parent", "child"],
        ..Lists::default()
    };
    let site = Site::new(server, database, &lists);
    site.backup_ok(&["--chunk-size", "256K", "-j", "2", "--progress", "none"]);
    site
}

fn rows(server: &Server, table: &str) -> u64 {
    let count = server
        .connect()
        .query_first(format!("SELECT COUNT(*) FROM {table}"));
    count.unwrap().unwrap()
}

#[test]
fn indexes_built_after_the_rows_give_the_same_tables() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_keys");
    server.execute(&["DROP DATABASE IF EXISTS rest_keys_again"]);
    restore(&site, "rest_keys_again", &["-j", "3"]).expect_code(0);
    assert_same(
        &fingerprint(server, "rest_keys"),
        &fingerprint(server, "rest_keys_again"),
    );
}

#[test]
fn what_is_in_the_way_is_refused_and_stays_until_overwrite_is_given() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_way");
    server.create_database("rest_way_again");
    server.execute(&[
        "CREATE TABLE rest_way_again.plain (x INT)",
        "INSERT INTO rest_way_again.plain VALUES (7)",
        "CREATE TABLE rest_way_again.child (other INT)",
        "CREATE TABLE rest_way_again.mine (x INT)",
    ]);
    let before = fingerprint(server, "rest_way_again");
    let refused = restore(&site, "rest_way_again", &[]);
    refused
        .expect_code(2)
        .expect_said("table `plain` is there and has rows")
        .expect_said("--overwrite");
    restore(&site, "rest_way_again", &["--dry-run"]).expect_code(2);
    assert_same(&before, &fingerprint(server, "rest_way_again"));

    restore(&site, "rest_way_again", &["--dry-run", "--overwrite"]).expect_code(0);
    assert_same(&before, &fingerprint(server, "rest_way_again"));
    restore(&site, "rest_way_again", &["--overwrite"]).expect_code(0);
    let mut found = fingerprint(server, "rest_way_again");
    for what in ["base table mine", "rows of mine"] {
        assert!(found.remove(what).is_some(), "{what}: gone");
    }
    assert_same(&fingerprint(server, "rest_way"), &found);
    // The view and the tables are there now; a second restore replaces them all.
    restore(&site, "rest_way_again", &["--overwrite"]).expect_code(0);
}

#[test]
fn a_part_is_restored_by_pattern_structure_or_rows() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_part");
    let again = "rest_part_again";
    server.execute(&["DROP DATABASE IF EXISTS rest_part_again"]);
    restore(&site, again, &["--tables", "pl*", "log"]).expect_code(0);
    let names: Vec<String> = server
        .connect()
        .query("SHOW TABLES IN rest_part_again")
        .unwrap();
    assert_eq!(names, ["log", "plain"]);
    restore(&site, again, &["--tables", "none*"])
        .expect_code(2)
        .expect_said("none*");

    server.execute(&["DROP DATABASE rest_part_again"]);
    restore(&site, again, &["--structure-only"]).expect_code(0);
    assert_eq!(rows(server, "rest_part_again.parent"), 0);
    restore(&site, again, &["--data-only"])
        .expect_code(2)
        .expect_said("triggers");
    server.execute(&["DROP TRIGGER rest_part_again.t"]);
    restore(&site, again, &["--data-only"]).expect_code(0);
    assert_eq!(rows(server, "rest_part_again.child"), 60000);
    restore(&site, again, &["--data-only"])
        .expect_code(2)
        .expect_said("has rows");
    restore(&site, again, &["--data-only", "--overwrite"]).expect_code(0);
    assert_eq!(rows(server, "rest_part_again.plain"), 20000);
}

#[test]
fn killed_restores_are_resumed_and_nothing_is_loaded_twice() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_kill");
    kill_and_resume(server, &site, "rest_kill", 3, |entries| {
        // Each run is killed after a few more entries of the ledger than the one before.
        let bound = entries() + 7;
        Box::new(move |entries: &dyn Fn() -> u64| entries() >= bound)
    });
}

/// With `SCHEMA_BACKUP_SOAK` set: a GiB, killed at ten random moments.
#[test]
fn a_gibibyte_survives_ten_kills() {
    if std::env::var_os("SCHEMA_BACKUP_SOAK").is_none() {
        return;
    }
    let Some(server) = Server::start(&["--innodb-buffer-pool-size=3G"]) else {
        return;
    };
    let (server, database) = (&server, "rest_soak");
    let site = fill(server, database);
    server.execute(&["DROP TRIGGER rest_soak.t"]);
    // Doubled again and again, from some 10 MiB.
    for _ in 0..7 {
        server.execute(&[
            "INSERT INTO rest_soak.parent (a, v) SELECT a, v FROM rest_soak.parent",
            "INSERT INTO rest_soak.child SELECT id + (SELECT MAX(id) FROM rest_soak.child), p, w FROM rest_soak.child",
        ]);
    }
    site.backup_ok(&["-j", "2", "--progress", "none", "--chunk-size", "16M"]);
    let bytes = json(site.latest().join("run.json"))["raw_bytes"]
        .as_u64()
        .unwrap();
    assert!(bytes > 1 << 30, "only {bytes} bytes");
    let mut state = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    kill_and_resume(server, &site, database, 10, |_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let until = Instant::now() + Duration::from_millis(500 + (state >> 33) % 6000);
        Box::new(move |_| Instant::now() >= until)
    });
}

/// The longest that a restore of a GiB, unoptimized, may take.
const RESTORE_BOUND: Duration = Duration::from_secs(900);

/// When a run is to be killed, by the number of entries in its ledger.
type Moment = Box<dyn Fn(&dyn Fn() -> u64) -> bool>;

/// Restores, killed at least `kills` times and taken up again each time; compares.
fn kill_and_resume(
    server: &Server,
    site: &Site,
    database: &str,
    kills: u32,
    mut moment: impl FnMut(&dyn Fn() -> u64) -> Moment,
) {
    let again = format!("{database}_again");
    server.execute(&[&format!("DROP DATABASE IF EXISTS {again}")]);
    let source = fingerprint(server, database);
    let entries = || -> u64 {
        let query = format!("SELECT COUNT(*) FROM {again}._schema_backup_restore");
        let count = server.connect().query_first(query);
        count.ok().flatten().unwrap_or(0)
    };
    let mut arguments = vec!["-j", "2", "--progress", "none"];
    let mut killed = 0;
    loop {
        let come = moment(&entries);
        let mut program = start(command(site, &again, &arguments));
        let began = Instant::now();
        while !(program.ended() || killed < kills.max(10) && come(&entries)) {
            assert!(
                began.elapsed() < RESTORE_BOUND,
                "waited for a restore to end"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        if program.ended() {
            program.finish(RUN_BOUND).expect_code(0);
            break;
        }
        program.signal(Signal::KILL);
        let _ = program.finish(RUN_BOUND);
        killed += 1;
        if entries() == 0 {
            // Killed before it had begun to write.
            continue;
        }
        let refused = restore(site, &again, &[]).expect_code(2);
        refused.expect_said("--resume");
        arguments = vec!["-j", "2", "--progress", "none", "--resume"];
    }
    assert!(
        killed >= kills,
        "the restore was killed only {killed} times"
    );
    assert_same(&source, &fingerprint(server, &again));
    let over = restore(site, &again, &["--resume"]).expect_code(2);
    over.expect_said("no restore to resume");
}

#[test]
fn incomplete_foreign_and_damaged_directories_are_refused_before_anything_is_written() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_bad");
    let again = "rest_bad_again";
    server.execute(&["DROP DATABASE IF EXISTS rest_bad_again"]);
    let try_dirs = |dirs: &[&Path]| run(site.restore_command(dirs, again, &[]));
    try_dirs(&[&site.user_data_dir()])
        .expect_code(2)
        .expect_said("latest");
    try_dirs(&[site.path("").as_path()])
        .expect_code(2)
        .expect_said("manifest.json");
    try_dirs(&[&site.host(), &site.host()])
        .expect_code(2)
        .expect_said("same directory");

    let data =
        json(site.latest().join("manifest.json"))["tables"]["parent"]["data"]["chunks"][3]["file"]
            .as_str()
            .unwrap()
            .to_owned();
    let file = site.latest().join(&data);
    let good = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    restore(&site, again, &[]).expect_code(4).expect_said(&data);
    let names: Vec<String> = server
        .connect()
        .query("SHOW DATABASES LIKE 'rest_bad_again'")
        .unwrap();
    assert!(names.is_empty(), "written before everything was looked at");

    // A flipped byte is found when the file is read; what it holds is not committed.
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 4;
    std::fs::write(&file, &bad).unwrap();
    restore(&site, again, &["-j", "1"])
        .expect_code(4)
        .expect_said(&data);
    std::fs::write(&file, &good).unwrap();
    restore(&site, again, &["--resume"]).expect_code(0);
    assert_same(
        &fingerprint(server, "rest_bad"),
        &fingerprint(server, again),
    );
}

#[test]
fn a_foreign_key_comes_back_beside_a_unique_key_of_its_name() {
    let Some(server) = with_binlog() else { return };
    server.create_database("rest_names");
    server.feed(
        "rest_names",
        "the tables",
        b"CREATE TABLE parent (id INT PRIMARY KEY);
          INSERT INTO parent SELECT seq FROM seq_1_to_20000;
          CREATE TABLE child (id INT PRIMARY KEY, p INT, v VARCHAR(400), UNIQUE KEY same (p), KEY v (v(9)),
            CONSTRAINT same FOREIGN KEY (p) REFERENCES parent (id));
          INSERT INTO child SELECT seq, seq, repeat(md5(seq), 8) FROM seq_1_to_20000;",
    );
    let lists = Lists {
        local: vec!["parent", "child"],
        ..Lists::default()
    };
    let site = Site::new(server, "rest_names", &lists);
    site.backup_ok(&["--progress", "none"]);
    server.execute(&["DROP DATABASE IF EXISTS rest_names_again"]);
    restore(&site, "rest_names_again", &[]).expect_code(0);
    assert_same(
        &fingerprint(server, "rest_names"),
        &fingerprint(server, "rest_names_again"),
    );
}

#[test]
fn a_target_that_would_change_what_is_restored_or_is_the_servers_own_is_refused() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_target");
    restore(&site, "mysql", &[])
        .expect_code(2)
        .expect_said("of the server's own");
    server.execute(&[
        "DROP DATABASE IF EXISTS rest_target_again",
        "CREATE DATABASE rest_target_again CHARACTER SET latin1",
    ]);
    let refused = restore(&site, "rest_target_again", &["--overwrite"]).expect_code(2);
    refused
        .expect_said("latin1_swedish_ci")
        .expect_said("ALTER DATABASE");
}
