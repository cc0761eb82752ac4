//! What a restore must not drop, empty or begin: what is in the target and easily overlooked, and
//! what only the last statements would find out.

use std::fs;
use std::os::unix::fs::symlink;

use mysql::prelude::Queryable;

use super::{fill, restore, rows};
use crate::compare::{assert_same, fingerprint};
use crate::server::Kind;
use crate::server::{ROOT_PASSWORD, Server, shared, with_binlog};
use crate::site::{Lists, Site};

fn assert_not_begun(server: &Server, database: &str) {
    let there: Vec<String> = server
        .connect()
        .query(format!("SHOW DATABASES LIKE '{database}'"))
        .unwrap();
    assert!(there.is_empty(), "written before it was refused");
}

#[test]
fn names_of_routines_and_events_that_differ_in_case_only_are_in_the_way() {
    let Some(server) = with_binlog() else { return };
    server.create_database("rest_case");
    server.execute(&[
        "CREATE PROCEDURE rest_case.Proc() SELECT 1",
        "CREATE EVENT rest_case.Ev ON SCHEDULE EVERY 1 DAY DO SELECT 1",
    ]);
    let site = Site::new(server, "rest_case", &Lists::default());
    site.backup_ok(&["--progress", "none"]);
    let again = "rest_case_again";
    server.create_database(again);
    server.execute(&["CREATE PROCEDURE rest_case_again.PROC() SELECT 'precious'"]);
    let refused = restore(&site, again, &[]).expect_code(2);
    refused.expect_said("procedure `Proc` is there already");
    server.execute(&[
        "DROP PROCEDURE rest_case_again.PROC",
        "CREATE EVENT rest_case_again.EV ON SCHEDULE EVERY 2 DAY DO SELECT 'precious'",
    ]);
    let refused = restore(&site, again, &[]).expect_code(2);
    refused.expect_said("event `Ev` is there already");
    restore(&site, again, &["--overwrite"]).expect_code(0);
}

#[test]
fn history_and_triggers_of_tables_without_rows_are_in_the_way() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_kept");
    let again = "rest_kept_again";
    server.create_database(again);
    server.execute(&[
        "CREATE TABLE rest_kept_again.log (a INT) WITH SYSTEM VERSIONING",
        "INSERT INTO rest_kept_again.log VALUES (7)",
        "DELETE FROM rest_kept_again.log",
    ]);
    let refused = restore(&site, again, &[]).expect_code(2);
    refused.expect_said("table `log` is there and has rows");
    server.execute(&[
        "CREATE OR REPLACE TABLE rest_kept_again.log (a INT)",
        "CREATE TRIGGER rest_kept_again.precious BEFORE INSERT ON rest_kept_again.log FOR EACH ROW SET NEW.a = 1",
    ]);
    let refused = restore(&site, again, &[]).expect_code(2);
    refused.expect_said("table `log` is there and has triggers");
    restore(&site, again, &["--overwrite"]).expect_code(0);
}

#[test]
fn tables_with_history_are_emptied_with_it() {
    let Some(server) = with_binlog() else { return };
    server.create_database("rest_past");
    for (table, engine) in [("safe", "InnoDB"), ("risky", "MyISAM")] {
        server.execute(&[
            &format!("CREATE TABLE rest_past.{table} (id INT PRIMARY KEY, x INT) ENGINE={engine} WITH SYSTEM VERSIONING"),
            &format!("INSERT INTO rest_past.{table} VALUES (1, 1), (2, 2)"),
            &format!("UPDATE rest_past.{table} SET x = 9"),
            &format!("DELETE FROM rest_past.{table} WHERE id = 2"),
        ]);
    }
    let lists = Lists {
        local: vec!["safe", "risky"],
        ..Lists::default()
    };
    let site = Site::new(server, "rest_past", &lists);
    site.backup_ok(&["--progress", "none"]);
    let again = "rest_past_again";
    server.execute(&["DROP DATABASE IF EXISTS rest_past_again"]);
    restore(&site, again, &[]).expect_code(0);
    server.execute(&["INSERT INTO rest_past_again.safe VALUES (3, 3)"]);
    restore(&site, again, &["--data-only", "--overwrite"]).expect_code(0);
    assert_same(
        &fingerprint(server, "rest_past"),
        &fingerprint(server, again),
    );
}

#[test]
fn a_server_without_capitals_takes_no_tables_that_have_some() {
    let Some(server) = with_binlog() else { return };
    let Some(small) = Server::start(&["--lower-case-table-names=1"]) else {
        return;
    };
    server.create_database("rest_capitals");
    server.execute(&[
        "CREATE TABLE rest_capitals.Config (a INT PRIMARY KEY)",
        "INSERT INTO rest_capitals.Config VALUES (1)",
    ]);
    let lists = Lists {
        local: vec!["Config"],
        ..Lists::default()
    };
    let site = Site::new(server, "rest_capitals", &lists);
    site.backup_ok(&["--progress", "none"]);
    small.create_database("rest_capitals");
    small.execute(&[
        "CREATE TABLE rest_capitals.config (precious INT)",
        "INSERT INTO rest_capitals.config VALUES (7)",
    ]);
    let site = site.connect_as(&small, "rest_capitals", "root", ROOT_PASSWORD);
    let refused = restore(&site, "rest_capitals", &[]).expect_code(2);
    refused.expect_said("table `Config` would become `config` on this server");
    assert_eq!(rows(&small, "rest_capitals.config"), 1);
}

#[test]
fn what_mysql_would_refuse_last_is_said_first() {
    let Some(server) = shared(Kind::MySql9) else {
        return;
    };
    server.create_database("rest_last");
    server.execute(&[
        "CREATE TABLE rest_last.parent (id INT PRIMARY KEY)",
        "CREATE TABLE rest_last.child (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES rest_last.parent (id))",
    ]);
    let site = Site::new(server, "rest_last", &Lists::default());
    site.backup_ok(&["--progress", "none"]);
    let again = "rest_last_again";
    server.execute(&["DROP DATABASE IF EXISTS rest_last_again"]);
    let grants = "SELECT, INSERT, CREATE, DROP, ALTER ON rest_last_again.*";
    let password = server.create_user("rest_last", &[grants]);
    let site = site.connect_as(server, again, "rest_last", &password);
    let refused = restore(&site, again, &[]).expect_code(10);
    refused.expect_said("REFERENCES");
    assert_not_begun(server, again);
}

#[test]
fn a_function_that_a_server_with_a_binary_log_takes_from_nobody_is_said_first() {
    let Some(server) = with_binlog() else { return };
    let Some(quiet) = Server::start(&[]) else {
        return;
    };
    quiet.create_database("rest_unsafe");
    quiet.execute(&["CREATE FUNCTION rest_unsafe.f() RETURNS DOUBLE RETURN RAND()"]);
    let site = Site::new(&quiet, "rest_unsafe", &Lists::default());
    site.backup_ok(&["--progress", "none"]);
    server.execute(&["DROP DATABASE IF EXISTS rest_unsafe"]);
    let site = site.connect_as(server, "rest_unsafe", "root", ROOT_PASSWORD);
    let refused = restore(&site, "rest_unsafe", &[]).expect_code(10);
    refused
        .expect_said("function `f`: a server with a binary log takes no function")
        .expect_said("log_bin_trust_function_creators=1");
    assert_not_begun(server, "rest_unsafe");
}

#[test]
fn a_link_without_an_end_is_no_manifest() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_endless");
    let manifest = site.host().join("manifest.json");
    fs::remove_file(&manifest).unwrap();
    symlink("/dev/zero", &manifest).unwrap();
    let refused = restore(&site, "rest_endless_again", &[]).expect_code(4);
    refused.expect_said("manifest.json: it is not a plain file");
}

#[test]
fn a_server_that_ends_connections_with_transactions_takes_a_restore() {
    let Some(server) = with_binlog() else { return };
    let Some(odd) = Server::start(&["--completion-type=RELEASE"]) else {
        return;
    };
    let site = fill(server, "rest_release");
    let site = site.connect_as(&odd, "rest_release", "root", ROOT_PASSWORD);
    restore(&site, "rest_release", &[]).expect_code(0);
}
