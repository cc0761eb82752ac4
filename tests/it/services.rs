//! `-m` and `-t`, with a `systemctl` of our own first on the PATH that writes down what it is
//! asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::server::{Server, with_binlog};
use crate::site::{Lists, Site, run};

/// Writes down its arguments, and whether there is a backup yet; fails where it is told to.
const SYSTEMCTL: &str = r#"#!/bin/sh
state=before; [ -e "$SITE/schema_backup/db1.example.org/manifest.json" ] && state=after
echo "$state $*" >>"$SITE/calls"
echo "password=$SCHEMA_BACKUP_PASSWORD" >>"$SITE/environment"
case " $* " in
    *" $FAIL "* | *" $FAIL.service "*) echo "Failed: unit $FAIL is masked" >&2; exit 5 ;;
esac
"#;

/// A site whose configuration names two consumers and a provider.
pub(crate) fn site_with_services(server: &Server, database: &str, lists: &Lists) -> Site {
    let site = Site::new(server, database, lists);
    site.configure(
        lists,
        "providers: [mariadb]\nconsumers: [csv2-web, csv2-poller]\n",
    );
    fs::create_dir(site.path("bin")).unwrap();
    let systemctl = site.path("bin").join("systemctl");
    fs::write(&systemctl, SYSTEMCTL).unwrap();
    fs::set_permissions(systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    site
}

/// The program with that `systemctl`, which fails when `fail` is among its arguments.
pub(crate) fn command(site: &Site, arguments: &[&str], fail: &str) -> Command {
    let mut command = site.command("", arguments);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", site.path("bin").display()));
    command.env("SITE", site.path("")).env("FAIL", fail);
    command
}

/// What was asked of a service, in order, with whether there was a backup by then: only what
/// changes it.
pub(crate) fn calls(site: &Site, service: &str) -> Vec<String> {
    let text = fs::read_to_string(site.path("calls")).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let verb = words
            .iter()
            .find(|word| ["stop", "start", "restart"].contains(word));
        let meant = words
            .iter()
            .any(|word| word.strip_suffix(".service").unwrap_or(word) == service);
        if let (Some(verb), true) = (verb, meant) {
            found.push(format!("{verb} {} the backup", words[0]));
        }
    }
    found
}

fn fixture(database: &str) -> Option<Site> {
    let server = with_binlog()?;
    server.create_database(database);
    server.execute(&[
        &format!("CREATE TABLE {database}.settings (id INT PRIMARY KEY)"),
        &format!("INSERT INTO {database}.settings VALUES (1), (2)"),
    ]);
    Some(site_with_services(
        server,
        database,
        &Lists {
            global: vec!["settings"],
            ..Lists::default()
        },
    ))
}

#[test]
fn model_stops_consumers_restarts_providers_and_starts_consumers_after_the_backup() {
    let Some(site) = fixture("services_model") else {
        return;
    };
    run(command(&site, &["-m"], "-")).expect_code(0);
    for consumer in ["csv2-web", "csv2-poller"] {
        assert_eq!(
            calls(&site, consumer),
            ["stop before the backup", "start after the backup"]
        );
    }
    assert_eq!(calls(&site, "mariadb"), ["restart before the backup"]);
    let log = fs::read_to_string(site.path("calls")).unwrap();
    let at = |verb| log.lines().position(|line| line.contains(verb)).unwrap();
    assert!(
        at(" stop ") < at(" restart ") && at(" restart ") < at(" start "),
        "{log}"
    );
}

#[test]
fn target_leaves_consumers_stopped() {
    let Some(site) = fixture("services_target") else {
        return;
    };
    run(command(&site, &["-t"], "-")).expect_code(0);
    assert_eq!(calls(&site, "csv2-web"), ["stop before the backup"]);
    assert_eq!(calls(&site, "mariadb"), ["restart before the backup"]);
}

#[test]
fn without_m_or_t_no_service_is_touched() {
    let Some(site) = fixture("services_neither") else {
        return;
    };
    run(command(&site, &[], "-")).expect_code(0);
    assert!(!site.path("calls").exists());
}

#[test]
fn a_service_that_cannot_be_stopped_fails_the_run_before_anything_is_written() {
    let Some(site) = fixture("services_stop") else {
        return;
    };
    run(command(&site, &["-m"], "csv2-poller"))
        .expect_code(3)
        .expect_said("csv2-poller");
    assert!(!site.host().exists() && !site.user_data_dir().exists());
}

#[test]
fn a_provider_that_cannot_be_restarted_fails_the_run_and_consumers_start_again() {
    let Some(site) = fixture("services_restart") else {
        return;
    };
    run(command(&site, &["-m"], "mariadb"))
        .expect_code(3)
        .expect_said("mariadb");
    assert!(!site.host().exists() && !site.user_data_dir().exists());
    assert_eq!(
        calls(&site, "csv2-web"),
        ["stop before the backup", "start before the backup"]
    );
}
