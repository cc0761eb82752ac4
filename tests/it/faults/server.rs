//! What a server can do to a run: sessions killed, the server gone, limits that are too tight,
//! damaged tables, read-only servers, locks that others hold. In each case the run is complete,
//! or fails by name in bounded time, and the server has nothing of it left.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use rustix::process::Signal;

use super::table::Row;
use super::throttle::Throttle;
use super::{ONE_STREAM, assert_no_sessions_left, assert_previous_backup_is_whole, state};
use crate::server::{Kind, Server, on_each_kind, shared, with_binlog};
use crate::site::{
    Lists, Outcome, RUN_BOUND, Running, Site, assert_no_leftovers, assert_sums_hold, json, start,
    wait_until,
};

/// Rows of each of the two tables, of about 1 KB.
const ROWS: u64 = 8192;

/// A database with the tables `alpha` and `omega`, and a backup of it. Of equal size, `alpha` is
/// read first.
fn two_tables(server: &Server, database: &str) -> Site {
    server.create_database(database);
    let mut connection = server.connect();
    connection.query_drop(format!("USE {database}")).unwrap();
    for table in ["alpha", "omega"] {
        let create = format!("CREATE TABLE {table} (id INT PRIMARY KEY, v VARCHAR(1000) NOT NULL)");
        connection.query_drop(create).unwrap();
        let first = format!("INSERT INTO {table} VALUES (1, REPEAT('v', 1000))");
        connection.query_drop(first).unwrap();
        for rows in (0..ROWS.ilog2()).map(|n| 1 << n) {
            let double = format!("INSERT INTO {table} SELECT id + {rows}, v FROM {table}");
            connection.query_drop(double).unwrap();
        }
        connection
            .query_drop(format!("ANALYZE TABLE {table}"))
            .unwrap();
    }
    let lists = Lists {
        global: vec!["alpha"],
        local: vec!["omega"],
        ..Lists::default()
    };
    let site = Site::new(server, database, &lists);
    site.backup_ok(&ONE_STREAM);
    // So that a file of the failing run would differ from the previous backup's.
    connection
        .query_drop("UPDATE alpha SET v = 'w' WHERE id = 77")
        .unwrap();
    site
}

/// The numbers of the sessions in `database` that are `busy`, or those that are not.
fn sessions(server: &Server, database: &str, busy: bool) -> Vec<u64> {
    let query = format!(
        "SELECT id FROM information_schema.processlist \
         WHERE db = '{database}' AND (command <> 'Sleep') = {busy}"
    );
    server.connect().query(query).unwrap()
}

fn kill(server: &Server, sessions: &[u64]) {
    let mut connection = server.connect();
    for session in sessions {
        // One that has ended meanwhile is as well.
        connection.query_drop(format!("KILL {session}")).ok();
    }
}

/// Panics unless every table can be altered at once: nobody keeps a lock on it.
#[track_caller]
fn assert_nothing_locked(server: &Server, database: &str) {
    assert_no_sessions_left(server, database);
    let mut connection = server.connect();
    connection.query_drop("SET lock_wait_timeout = 2").unwrap();
    for table in ["alpha", "omega"] {
        let alter = format!("ALTER TABLE {database}.{table} COMMENT 'nobody locks it'");
        connection.query_drop(alter).unwrap();
    }
}

/// Panics unless the run has left the previous backup, and nothing else anywhere.
#[track_caller]
fn assert_failed_cleanly(
    server: &Server,
    database: &str,
    site: &Site,
    before: &BTreeMap<String, Vec<u8>>,
) {
    assert_previous_backup_is_whole(site, before);
    assert_no_leftovers(site);
    assert_nothing_locked(server, database);
}

/// Panics unless both tables are there in full.
#[track_caller]
fn assert_complete(site: &Site) {
    assert_sums_hold(&site.host());
    assert_sums_hold(&site.latest());
    assert_no_leftovers(site);
    for (backup, table) in [(site.host(), "alpha"), (site.latest(), "omega")] {
        let manifest = json(backup.join("manifest.json"));
        assert_eq!(manifest["tables"][table]["data"]["rows"], ROWS, "{table}");
    }
}

/// A program that waits in the middle of a row, after `bytes` of answers.
fn stuck(throttle: &Throttle, site: &Site, bytes: u64, arguments: &[&str]) -> Running {
    throttle.silent_after(bytes);
    let mut program = start(site.command("", arguments));
    throttle.wait_until_silent(&mut program);
    program
}

on_each_kind!(killed_sessions_fail_the_run_by_name);

fn killed_sessions_fail_the_run_by_name(kind: Kind) {
    let Some(server) = shared(kind) else { return };
    let database = "killed_sessions";
    let site = two_tables(server, database);
    let before = state(&site);
    let throttle = Throttle::by_socket(server);
    let site = throttle.before(server, site, database);
    let mut row = Row::new(format!("KILL in the middle of a row, {kind:?}"));
    for (bytes, table) in [
        (2_000_000, "alpha"),
        (5_000_001, "alpha"),
        (13_000_002, "omega"),
    ] {
        let program = stuck(&throttle, &site, bytes, &ONE_STREAM);
        kill(server, &sessions(server, database, true));
        throttle.speak_again();
        let outcome = program.finish(RUN_BOUND).expect_code(3).expect_said(table);
        row.saw(&outcome);
        assert_failed_cleanly(server, database, &site, &before);
    }
    drop(row);

    // What it waits for lies in its socket already: to the server all sessions are idle.
    let mut row = Row::new(format!("KILL between chunks, {kind:?}"));
    let arguments = ["-j", "2", "--chunk-size", "64K", "--progress", "none"];
    for bytes in [1_000_000, 3_000_000, 9_000_000] {
        throttle.silent_after(bytes);
        let mut program = start(site.command("", &arguments));
        throttle.wait_until_silent(&mut program);
        program.signal(Signal::STOP);
        throttle.speak_again();
        wait_until("all sessions are idle", || {
            sessions(server, database, true).is_empty()
        });
        kill(server, &sessions(server, database, false));
        program.signal(Signal::CONT);
        let outcome = program
            .finish(RUN_BOUND)
            .expect_code(3)
            .expect_said("table `");
        row.saw(&outcome);
        assert_failed_cleanly(server, database, &site, &before);
    }
    drop(row);

    // Two tables are under way; the third session has nothing to do any more, and is not missed.
    let mut row = Row::new(format!("KILL of an idle session, {kind:?}"));
    let arguments = ["-j", "3", "--chunk-size", "1G", "--progress", "none"];
    let program = stuck(&throttle, &site, 4_000_000, &arguments);
    let idle = sessions(server, database, false);
    assert!(!idle.is_empty());
    kill(server, &idle);
    throttle.speak_again();
    let outcome = program.finish(RUN_BOUND).expect_code(0);
    assert_complete(&site);
    row = row.complete();
    row.saw(&outcome);
}

on_each_kind!(a_server_that_dies_or_restarts_fails_the_run_by_name);

fn a_server_that_dies_or_restarts_fails_the_run_by_name(kind: Kind) {
    // Servers of these tests write their log once a second: the rows would not survive a crash.
    let durable = ["--innodb-flush-log-at-trx-commit=1"];
    let Some(server) = Server::start_kind(kind, &durable) else {
        return;
    };
    let database = "server_gone";
    let site = two_tables(&server, database);
    let before = state(&site);
    let throttle = Throttle::by_socket(&server);
    let site = throttle.before(&server, site, database);
    for fault in ["server killed (-9)", "server restarted"] {
        let mut row = Row::new(format!("{fault} in the middle of a table, {kind:?}"));
        let program = stuck(&throttle, &site, 3_000_000, &ONE_STREAM);
        if fault.contains("-9") {
            server.crash();
        } else {
            server.restart();
        }
        throttle.speak_again();
        let outcome = program
            .finish(RUN_BOUND)
            .expect_code(3)
            .expect_said("alpha");
        row.saw(&outcome);
        if fault.contains("-9") {
            server.start_again();
        }
        assert_failed_cleanly(&server, database, &site, &before);
    }
    site.backup_ok(&ONE_STREAM);
    assert_complete(&site);
}

on_each_kind!(a_row_larger_than_the_server_may_send_is_complete_or_named);

fn a_row_larger_than_the_server_may_send_is_complete_or_named(kind: Kind) {
    let Some(server) = Server::start_kind(kind, &[]) else {
        return;
    };
    let database = "large_row";
    let site = two_tables(&server, database);
    let long = 5 << 20;
    server.execute(&[
        &format!("ALTER TABLE {database}.omega MODIFY v LONGTEXT NOT NULL"),
        &format!("UPDATE {database}.omega SET v = REPEAT('x', {long}) WHERE id = 4000"),
        "SET GLOBAL max_allowed_packet = 65536",
    ]);
    let before = state(&site);
    let mut row = Row::new(format!("max_allowed_packet smaller than a row, {kind:?}"));
    let outcome = site.backup(&ONE_STREAM);
    if outcome.code == Some(0) {
        assert_complete(&site);
        let data: u64 = crate::compare::files(&site.latest().join("data"))
            .iter()
            .map(|file| crate::compare::read_sql(file).len() as u64)
            .sum();
        assert!(data > long, "{data} bytes: the long row is missing");
        row = row.complete();
        // Loading it takes another setting, which is said.
        row.saw(&outcome.expect_said("max_allowed_packet"));
    } else {
        row.saw(&outcome.expect_code(3).expect_said("omega"));
        assert_failed_cleanly(&server, database, &site, &before);
    }
}

#[test]
fn too_many_connections_are_a_refusal_that_says_so() {
    let Some(server) = with_binlog() else { return };
    let database = "crowded";
    let site = two_tables(server, database);
    let before = state(&site);
    let password = server.create_user(database, &["ALL ON *.*"]);
    server.execute(&[&format!(
        "ALTER USER {database} WITH MAX_USER_CONNECTIONS 3"
    )]);
    let site = site.connect_as(server, database, database, &password);
    let mut row = Row::new("too many connections");
    let began = Instant::now();
    let outcome = site
        .backup(&["-j", "8"])
        .expect_code(10)
        .expect_said("1226")
        .expect_said("-j");
    assert!(began.elapsed() < Duration::from_secs(30));
    row.saw(&outcome);
    assert_failed_cleanly(server, database, &site, &before);
    site.backup_ok(&["-j", "2"]);
}

#[test]
fn a_crashed_table_fails_the_run_by_name() {
    let Some(server) = Server::start(&["--myisam-recover-options=OFF"]) else {
        return;
    };
    let database = "crashed";
    let site = two_tables(&server, database);
    let before = state(&site);
    let folder = server.dir().join("data").join(database);
    let cut = |file: &Path, to: u64| {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        let whole = file.metadata().unwrap().len();
        file.set_len(whole * to / 100).unwrap();
    };
    // The rows, the index, the server's mark that it did not close the table.
    for fault in ["rows cut off", "index cut off", "marked as crashed"] {
        server.execute(&[
            &format!("ALTER TABLE {database}.omega ENGINE = MyISAM"),
            "FLUSH TABLES",
        ]);
        let (rows, index) = (folder.join("omega.MYD"), folder.join("omega.MYI"));
        match fault {
            "rows cut off" => cut(&rows, 40),
            "index cut off" => cut(&index, 40),
            _ => {
                // Behind a head of 24 bytes and the count of openers: changed, and crashed.
                use std::os::unix::fs::FileExt;
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(&index)
                    .unwrap();
                file.write_all_at(&[3], 26).unwrap();
            }
        }
        let mut row = Row::new(format!("MyISAM table: {fault}"));
        let outcome = site.backup(&ONE_STREAM).expect_code(3).expect_said("omega");
        row.saw(&outcome);
        assert_previous_backup_is_whole(&site, &before);
        assert_no_leftovers(&site);
        assert_no_sessions_left(&server, database);
        server.execute(&[
            &format!("DROP TABLE {database}.omega"),
            &format!("CREATE TABLE {database}.omega LIKE {database}.alpha"),
            &format!("INSERT INTO {database}.omega SELECT * FROM {database}.alpha"),
        ]);
    }
}

on_each_kind!(a_read_only_server_is_backed_up_by_a_user_without_super);

fn a_read_only_server_is_backed_up_by_a_user_without_super(kind: Kind) {
    let options: &[&str] = match kind {
        Kind::MySql9 => &["--read-only=1"],
        _ => &["--read-only=1", "--log-bin=binlog"],
    };
    let Some(server) = Server::start_kind(kind, options) else {
        return;
    };
    let database = "read_only";
    let site = two_tables(&server, database);
    let routines = if kind.is_mysql() {
        "SHOW_ROUTINE"
    } else {
        "SELECT"
    };
    let password = server.create_user(
        database,
        &[
            &format!("SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON {database}.*"),
            &format!("RELOAD, {routines} ON *.*"),
        ],
    );
    let site = site.connect_as(&server, database, database, &password);
    let ways: &[&str] = match kind {
        Kind::MySql9 => &["global-lock", "table-locks"],
        _ => &["binlog", "global-lock", "table-locks"],
    };
    let mut row = Row::new(format!("read_only server, user without SUPER, {kind:?}")).complete();
    for way in ways {
        // Backups of user data of one second would share a name.
        std::fs::remove_dir_all(site.user_data_dir()).unwrap();
        let outcome = site.backup_ok(&["--consistency", way]);
        assert_complete(&site);
        row.saw(&outcome);
    }
    assert_nothing_locked(&server, database);
}

on_each_kind!(a_lock_that_others_keep_is_not_waited_for_beyond_the_bound);

/// Somebody else's long query, open transaction or table lock while the run wants its own.
fn a_lock_that_others_keep_is_not_waited_for_beyond_the_bound(kind: Kind) {
    let Some(server) = Server::start_kind(kind, &[]) else {
        return;
    };
    let database = "kept_lock";
    let site = two_tables(&server, database);
    server.execute(&[&format!("CREATE TABLE {database}.other (id INT)")]);
    for way in ["global-lock", "table-locks"] {
        for blocker in ["a long query", "an open transaction", "LOCK TABLES"] {
            let before = state(&site);
            // In another database, so that only the sessions of the run are in this one.
            let mut other = server.connect();
            let number = other.connection_id();
            let keep = match blocker {
                "a long query" => "SELECT SLEEP(60) FROM DB.omega FOR UPDATE",
                "an open transaction" => "UPDATE DB.omega SET v = v WHERE id = 1",
                _ => "LOCK TABLES DB.omega WRITE",
            };
            let keep = keep.replace("DB", database);
            let keeper = std::thread::spawn(move || {
                other.query_drop("SET autocommit = 0").unwrap();
                // Killed in the end.
                other.query_drop(keep).ok();
                other
            });
            std::thread::sleep(Duration::from_millis(300));
            let mut row = Row::new(format!("{blocker} while {way} is wanted, {kind:?}"));
            let began = Instant::now();
            let arguments = [
                &ONE_STREAM[..],
                &["--consistency", way, "--lock-wait-timeout", "2"],
            ]
            .concat();
            let outcome = site.backup(&arguments);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(20), "{blocker}, {way}: {took:?}");
            // While the other still keeps what it has, nobody else is kept waiting by the run.
            assert_no_sessions_left(&server, database);
            let mut third = server.connect();
            third.query_drop("SET lock_wait_timeout = 2").unwrap();
            third
                .query_drop(format!("INSERT INTO {database}.other VALUES (1)"))
                .unwrap();
            if outcome.code == Some(0) {
                assert_complete(&site);
                row = row.complete();
            } else {
                assert_eq!(outcome.code, Some(11), "{blocker}, {way}: {outcome:?}");
                names(&outcome, number);
                assert_previous_backup_is_whole(&site, &before);
                assert_no_leftovers(&site);
            }
            row.saw(&outcome);
            third.query_drop(format!("KILL {number}")).unwrap();
            drop(keeper.join().unwrap());
            assert_nothing_locked(&server, database);
        }
    }
}

/// Panics unless the session in the way is named.
#[track_caller]
fn names(outcome: &Outcome, session: u32) {
    let said = outcome.stderr.contains(&format!("session {session} "));
    assert!(said, "session {session} is not named: {}", outcome.stderr);
}
