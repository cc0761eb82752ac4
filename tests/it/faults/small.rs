//! Small tables, of which a session keeps DDL away from many at once, until it has checked them.

use mysql::prelude::Queryable;
use rustix::process::Signal;

use super::pair::{QUIET, stopped};
use crate::server::{Server, with_binlog};
use crate::site::{Lists, RUN_BOUND, Running, Site, assert_no_leftovers, wait_until};

/// Tables `t1`, `t2` and so on, the first the smallest by far; one connection has read the first
/// two and not checked them.
fn amid_small_tables(database: &str, tables: u32) -> Option<(&'static Server, Site, Running)> {
    let server = with_binlog()?;
    server.create_database(database);
    let names: Vec<String> = (1..=tables).map(|n| format!("t{n}")).collect();
    let table = |name: &String| {
        let rows = if name == "t1" { 1 } else { 400 };
        format!(
            "CREATE TABLE {name} (id INT PRIMARY KEY, v VARCHAR(1000));
             INSERT INTO {name} SELECT seq, REPEAT('{name}', 300) FROM seq_1_to_{rows};
             ANALYZE TABLE {name};"
        )
    };
    let tables: String = names.iter().map(table).collect();
    server.feed(database, "the tables", tables.as_bytes());
    let lists = Lists {
        local: names.iter().map(String::as_str).collect(),
        ..Lists::default()
    };
    let site = Site::new(server, database, &lists);
    let mut command = site.command("", &[&["-j", "1"], &QUIET[2..]].concat());
    command.env(schema_backup::FAILPOINT_VARIABLE, "read-chunk@3=stop");
    let program = stopped(command).unwrap_or_else(|outcome| panic!("{}", outcome.stderr));
    Some((server, site, program))
}

/// Servers lock tables in the order of their names. Were they read in another one, the other
/// session here would have what is asked for next, and wait for what was read.
#[test]
fn locks_of_another_session_and_tables_held_do_not_wait_for_each_other() {
    let database = "faults_small_locks";
    // On a machine under load the tables take so long that none is kept.
    for _ in 0..5 {
        let Some((server, site, program)) = amid_small_tables(database, 3) else {
            return;
        };
        let mut other = server.connect();
        let number = other.connection_id();
        other.query_drop(format!("USE {database}")).unwrap();
        let (mut observer, mut has_waited) = (server.connect(), false);
        std::thread::scope(|scope| {
            let lock = "LOCK TABLES t1 WRITE, t2 WRITE";
            let locked = scope.spawn(move || {
                other
                    .query_drop(lock)
                    .and_then(|()| other.query_drop("UNLOCK TABLES"))
            });
            wait_until("the other session waits or is done", || {
                let query =
                    format!("SELECT STATE FROM information_schema.PROCESSLIST WHERE ID = {number}");
                let state: Option<Option<String>> = observer.query_first(query).unwrap();
                has_waited = state
                    .flatten()
                    .is_some_and(|state| state.contains("metadata lock"));
                has_waited || locked.is_finished()
            });
            program.signal(Signal::CONT);
            program.finish(RUN_BOUND).expect_code(0);
            locked.join().unwrap().unwrap();
        });
        assert_no_leftovers(&site);
        if has_waited {
            return;
        }
    }
    panic!("no table was kept in five runs");
}

#[test]
fn one_of_many_that_has_become_another_is_named() {
    let database = "faults_small_renamed";
    let Some((server, site, program)) = amid_small_tables(database, 5) else {
        return;
    };
    server.execute(&[
        &format!("USE {database}"),
        "SET lock_wait_timeout = 10",
        // The server states the second in which a table was renamed last.
        "DO SLEEP(1.1)",
        "RENAME TABLE t3 TO t, t4 TO t3, t TO t4",
    ]);
    program.signal(Signal::CONT);
    program
        .finish(RUN_BOUND)
        .expect_code(3)
        .expect_said("table `t3`: it was altered or replaced during the backup");
    assert_no_leftovers(&site);
}
