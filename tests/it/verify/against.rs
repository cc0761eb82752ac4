//! `--against` a live database.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::changes::changes;
use super::{Copy, backed_up, fill, lists, original, original_on, server, servers, verdicts};
use crate::faults::{create_big, stop_in_the_middle_of_big};
use crate::server::{Kind, ROOT_PASSWORD, Server, on_each_kind, with_binlog};
use crate::servers::Secure;
use crate::site::{Lists, PROGRAM, RUN_BOUND, Site, edited, json, run, start};

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

/// What `verify --against` says of both directories of `backup` over the connection of `site`,
/// `kind name change`; the exit code must fit.
#[track_caller]
fn differences(site: &Site, backup: &Site, arguments: &[&str]) -> Vec<String> {
    let mut command = site.command("verify", &[backup.host(), backup.latest()]);
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

/// Changes the database that `backup` is of in every way there is, and expects exactly that to
/// be found over the connection of `site`.
fn each_change_is_named(server: &Server, database: &str, site: &Site, backup: &Site) {
    assert_eq!(differences(site, backup, &[]), Vec::<String>::new());
    for (change, undo, expected) in changes(server.kind().is_mysql()) {
        server.feed(database, change, change.as_bytes());
        let found = differences(site, backup, &["-j", "3"]);
        assert_eq!(found, *expected, "{:?} after {change}", server.kind());
        server.feed(database, undo, undo.as_bytes());
    }
    assert_eq!(differences(site, backup, &[]), Vec::<String>::new());
}

on_each_kind!(whatever_changes_is_named_and_nothing_else);

fn whatever_changes_is_named_and_nothing_else(kind: Kind) {
    let Some(server) = server(kind) else { return };
    let site = backed_up(server, "verify_live");
    each_change_is_named(server, "verify_live", &site, &site);
}

/// Restores a sound backup, and one whose manifest states other content of one table.
#[track_caller]
fn a_restore_names_what_is_not_as_stated(site: &Site, backup: &Site) {
    let copy = Copy::of(backup);
    let restore = || {
        let dirs = [copy.path("host"), copy.path("user")];
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.as_path()).collect();
        run(site.restore_command(&dirs, "verify_restored", &["--overwrite"]))
    };
    restore().expect_code(0);
    let manifest = copy.path("user/manifest.json");
    let digest = json(&manifest)["tables"]["floats"]["data"]["digest"].clone();
    let digest = digest.as_str().unwrap();
    let other: String = digest.chars().rev().collect();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, edited(&text, digest, &other)).unwrap();
    let said = restore()
        .expect_code(4)
        .expect_said("restored, but not the same: table `floats`")
        .stderr;
    assert_eq!(said.matches("table `").count(), 1, "{said}");
}

#[test]
fn a_restore_is_compared_with_the_manifest() {
    for server in servers() {
        let site = original_on(server);
        a_restore_names_what_is_not_as_stated(site, site);
    }
}

/// There rows come through the driver, and no packet is read in place.
#[test]
fn what_was_saved_over_the_socket_is_compared_over_tls() {
    let Some(secure) = Secure::start() else {
        return;
    };
    let backup = backed_up(&secure.server, "verify_tls");
    let site = secure.site("verify_tls", "required", &lists(Kind::MySql9));
    each_change_is_named(&secure.server, "verify_tls", &site, &backup);
    a_restore_names_what_is_not_as_stated(&site, &backup);
}

#[test]
fn another_database_can_be_compared_and_people_read_by_how_much_it_differs() {
    for server in servers() {
        let site = backed_up(server, "verify_source");
        fill(server, "verify_copy");
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
        let site = site.connect_as(server, "verify_copy", "root", ROOT_PASSWORD);
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
}

#[test]
fn the_backups_own_database_is_compared_where_none_is_named() {
    for server in servers() {
        let site = original_on(server);
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
            outcome.stdout.contains("database verify_files"),
            "{}",
            outcome.stdout
        );
    }
}

#[test]
fn a_damaged_definition_is_no_difference_of_the_database() {
    for server in servers() {
        let site = original_on(server);
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
}

#[test]
fn an_interrupt_ends_a_comparison() {
    let Some(server) = with_binlog() else { return };
    let database = "verify_interrupt";
    server.create_database(database);
    create_big(server, database);
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
