//! What goes wrong while a backup runs: a lost connection, signals, a second run. In each
//! case the previous backup is still whole, and nothing incomplete looks like one.
//!
//! To act in the middle of a table and not a moment later, the program is stopped (SIGSTOP)
//! once the server is sending it the table's rows, and continued after the fault.

mod ddl;
mod disk;
mod killed;
mod load;
mod pair;
mod power;
mod server;
mod slow;
#[cfg(feature = "failpoints")]
mod small;
mod table;
mod throttle;
mod trace;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use rustix::process::Signal;

use crate::server::{Server, with_binlog};
use crate::services;
use crate::site::{
    Lists, RUN_BOUND, Running, Site, assert_no_leftovers, assert_sums_hold, contents, run, start,
    wait_until, walk,
};

const LISTS: fn() -> Lists<'static> = || Lists {
    global: vec!["settings"],
    local: vec!["big"],
    ..Lists::default()
};
/// One stream, so that a connection in the middle of it is in the middle of the table.
const ONE_STREAM: [&str; 6] = ["-j", "1", "--chunk-size", "1G", "--progress", "none"];

/// A table `big` that is far larger than all buffers between server and program.
pub(crate) fn create_big(server: &Server, database: &str) {
    server.feed(
        database,
        "a large table",
        b"CREATE TABLE big (id INT PRIMARY KEY, v VARCHAR(1000));
          INSERT INTO big SELECT seq, repeat('v', 1000) FROM seq_1_to_60000;",
    );
}

/// A database with a table `big` and a complete backup.
fn fixture(database: &str) -> Option<(&'static Server, Site)> {
    let server = with_binlog()?;
    server.create_database(database);
    server.feed(
        database,
        "the tables",
        b"CREATE TABLE settings (id INT PRIMARY KEY, v INT);
          INSERT INTO settings VALUES (1, 1);",
    );
    create_big(server, database);
    let site = services::site_with_services(server, database, &LISTS());
    site.backup_ok(&ONE_STREAM);
    // So that a file of the failing run would differ from the previous backup's.
    server.execute(&[&format!("UPDATE {database}.settings SET v = 2")]);
    thread::sleep(Duration::from_millis(1100));
    Some((server, site))
}

/// Waits until the program is in the middle of reading `big` and stops it there. Returns the
/// number of the connection.
pub(crate) fn stop_in_the_middle_of_big(
    server: &Server,
    database: &str,
    program: &mut Running,
) -> u64 {
    let mut connection = server.connect();
    let mut reader = |sending: bool| -> Option<u64> {
        let state = if sending {
            "AND state LIKE 'Writing to net%'"
        } else {
            ""
        };
        let query = format!(
            "SELECT id FROM information_schema.processlist WHERE db = '{database}' AND id <> connection_id()
                AND info LIKE 'SELECT%big%' AND command IN ('Query', 'Execute') {state}"
        );
        connection.query_first(query).unwrap()
    };
    let mut found = None;
    wait_until("the server sends the rows of `big`", || {
        assert!(!program.ended(), "the program ended before it was stopped");
        if reader(false).is_none() {
            return false;
        }
        // It might have been a question about `big`; only rows can fill the socket.
        program.signal(Signal::STOP);
        let started = Instant::now();
        while found.is_none() && started.elapsed() < Duration::from_secs(1) {
            found = reader(true);
            thread::sleep(Duration::from_millis(5));
        }
        if found.is_none() {
            program.signal(Signal::CONT);
        }
        found.is_some()
    });
    found.unwrap()
}

/// Everything in both backup directories. `run.json` too: a failed run has no record there.
fn state(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let mut state = contents(&site.backup_dir());
    state.extend(contents(&site.user_data_dir()));
    state
}

#[track_caller]
fn assert_previous_backup_is_whole(site: &Site, before: &BTreeMap<String, Vec<u8>>) {
    let after = state(site);
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert!(&after == before, "a file of the previous backup changed");
    assert_sums_hold(&site.host());
    assert_sums_hold(&site.latest());
}

/// Panics unless the server soon has no session of a run in `database`.
#[track_caller]
fn assert_no_sessions_left(server: &Server, database: &str) {
    let mut connection = server.connect();
    let query = format!(
        "SELECT id, command, info FROM information_schema.processlist WHERE db = '{database}'"
    );
    wait_until("the server has no session of the run", || {
        let left: Vec<(u64, String, Option<String>)> = connection.query(&query).unwrap();
        left.is_empty()
    });
}

#[test]
fn a_connection_killed_in_the_middle_of_a_table_fails_the_run_and_names_the_table() {
    let Some((server, site)) = fixture("faults_kill") else {
        return;
    };
    let before = state(&site);
    let mut program = start(site.command("", &ONE_STREAM));
    let connection = stop_in_the_middle_of_big(server, "faults_kill", &mut program);
    server.execute(&[&format!("KILL CONNECTION {connection}")]);
    program.signal(Signal::CONT);
    program.finish(RUN_BOUND).expect_code(3).expect_said("big");
    assert_previous_backup_is_whole(&site, &before);
    assert_no_leftovers(&site);
}

#[test]
fn an_interrupted_run_ends_with_130_and_starts_the_consumers_again() {
    for (database, signal) in [("faults_int", Signal::INT), ("faults_term", Signal::TERM)] {
        let Some((server, site)) = fixture(database) else {
            return;
        };
        let before = state(&site);
        let arguments = [&["-m"][..], &ONE_STREAM].concat();
        let mut program = start(services::command(&site, &arguments, "-"));
        stop_in_the_middle_of_big(server, database, &mut program);
        program.signal(signal);
        program.signal(Signal::CONT);
        program
            .finish(Duration::from_secs(20))
            .expect_code(130)
            .expect_said("interrupted");
        let calls = services::calls(&site, "csv2-web");
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert!(
            calls[0].starts_with("stop") && calls[1].starts_with("start"),
            "{calls:?}"
        );
        assert_previous_backup_is_whole(&site, &before);
        assert_no_leftovers(&site);
    }
}

#[test]
fn a_second_run_on_the_same_destination_is_refused_and_names_the_first() {
    let Some((server, site)) = fixture("faults_second") else {
        return;
    };
    let mut first = start(site.command("", &ONE_STREAM));
    stop_in_the_middle_of_big(server, "faults_second", &mut first);
    let pid = first.pid().as_raw_nonzero().to_string();
    run(site.command("", &ONE_STREAM))
        .expect_code(12)
        .expect_said(&pid);
    // The first is none the worse for it.
    first.signal(Signal::CONT);
    first.finish(RUN_BOUND).expect_code(0);
    assert_sums_hold(&site.host());
    assert_sums_hold(&site.latest());
    assert_no_leftovers(&site);
}

#[test]
fn a_killed_run_leaves_the_previous_backup_whole_and_the_next_run_cleans_up() {
    let Some((server, site)) = fixture("faults_sigkill") else {
        return;
    };
    let before = state(&site);
    let mut program = start(site.command("", &ONE_STREAM));
    stop_in_the_middle_of_big(server, "faults_sigkill", &mut program);
    program.signal(Signal::KILL);
    assert_eq!(program.finish(RUN_BOUND).code, None);

    // What is left lies in the hidden working directory, and has no manifest.
    let mut after = state(&site);
    after.retain(|name, _| !name.contains(".schema_backup/"));
    assert!(
        after == before,
        "the previous backup changed, or something looks like a new one"
    );
    let left = walk(&site.host().join(".schema_backup"));
    assert!(!left.is_empty() && !left.iter().any(|p| p.ends_with("manifest.json")));

    site.backup_ok(&ONE_STREAM);
    assert_sums_hold(&site.host());
    assert_sums_hold(&site.latest());
    assert_no_leftovers(&site);
}

#[test]
fn a_table_that_is_altered_during_the_run_fails_it() {
    let Some((server, site)) = fixture("faults_ddl") else {
        return;
    };
    server.feed(
        "faults_ddl",
        "another table",
        b"CREATE TABLE aaa_small (id INT PRIMARY KEY);
          INSERT INTO aaa_small VALUES (1);",
    );
    site.configure(
        &Lists {
            local: vec!["big", "aaa_small"],
            ..LISTS()
        },
        "",
    );
    let before = state(&site);
    let mut program = start(site.command("", &ONE_STREAM));
    stop_in_the_middle_of_big(server, "faults_ddl", &mut program);
    // Largest first: the small table has not been read yet. In its transaction nobody has
    // touched it, so the server lets this through.
    let mut connection = server.connect();
    connection.query_drop("SET lock_wait_timeout = 2").unwrap();
    let altered =
        connection.query_drop("ALTER TABLE faults_ddl.aaa_small ADD COLUMN c INT DEFAULT 1");
    program.signal(Signal::CONT);
    let outcome = program.finish(RUN_BOUND);
    if altered.is_ok() {
        outcome.expect_code(3).expect_said("aaa_small");
        assert_previous_backup_is_whole(&site, &before);
    } else {
        // The snapshot holds the table's definition: as good, the run is complete.
        outcome.expect_code(0);
    }
    assert_no_leftovers(&site);
}
