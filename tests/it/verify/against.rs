//! `--against` a live database.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::{Copy, DATABASE, backed_up, original, verdicts};
use crate::faults::stop_in_the_middle_of_big;
use crate::server::with_binlog;
use crate::site::{Lists, PROGRAM, RUN_BOUND, Site, json, run, start};

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
