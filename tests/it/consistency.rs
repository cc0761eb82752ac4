//! One snapshot over all connections, tables and chunks, on each of the ways to it, while
//! others write: amounts move between rows of three tables, so that their total never changes,
//! and an export whose total differs was not one state. And that a user who lacks a privilege
//! is refused instead of given less.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;

use crate::compare::{files, read_sql};
use crate::server::{Server, with_binlog, without_binlog};
use crate::site::{Lists, Site, chunks, json};

const EXPORTS: usize = 20;
pub(crate) const WRITERS: u64 = 8;
const ROWS: u64 = 4000;
/// One table's data goes to the host directory, the others' to the private one.
pub(crate) const TABLES: [&str; 3] = ["acct_global", "acct_composite", "acct_text"];

pub(crate) fn lists() -> Lists<'static> {
    Lists {
        global: vec![TABLES[0]],
        local: vec![TABLES[1], TABLES[2]],
        ..Lists::default()
    }
}

pub(crate) fn fill(server: &Server, database: &str) {
    server.create_database(database);
    let rows = |table, keys| {
        format!(
            "INSERT INTO {database}.{table} SELECT {keys}, 1000, repeat('x', 150) FROM {database}.seq_1_to_{ROWS}"
        )
    };
    let (a, b, c) = (TABLES[0], TABLES[1], TABLES[2]);
    let rest = "amount BIGINT NOT NULL, padding VARCHAR(200) NOT NULL";
    server.execute(&[
        &format!("CREATE TABLE {database}.{a} (n INT PRIMARY KEY, {rest})"),
        &format!("CREATE TABLE {database}.{b} (k SMALLINT, n INT, {rest}, PRIMARY KEY (k, n), UNIQUE (n))"),
        &format!("CREATE TABLE {database}.{c} (t VARCHAR(20) PRIMARY KEY, n INT, {rest}, UNIQUE (n))"),
        &rows(a, "seq"),
        &rows(b, "seq % 3, seq"),
        &rows(c, "md5(seq) COLLATE utf8mb4_general_ci, seq").replace("md5(seq)", "left(md5(seq), 20)"),
        // So that the server knows how large they are.
        &format!("ANALYZE TABLE {database}.{a}, {database}.{b}, {database}.{c}"),
    ]);
}

/// Moves amounts until told to stop; returns how often.
pub(crate) fn write(server: &Server, database: &str, seed: u64, stop: &AtomicBool) -> u64 {
    let mut connection = server.connect();
    connection.query_drop(format!("USE {database}")).unwrap();
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut pick = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut moves = 0;
    while !stop.load(Ordering::Relaxed) {
        let amount = 1 + pick(50);
        let mut update = |sign| {
            let (table, row) = (TABLES[pick(3) as usize], 1 + pick(ROWS));
            format!("UPDATE {table} SET amount = amount {sign} {amount} WHERE n = {row}")
        };
        let (first, second) = (update('-'), update('+'));
        let moved = connection
            .query_drop("START TRANSACTION")
            .and_then(|()| connection.query_drop(first))
            .and_then(|()| connection.query_drop(second))
            .and_then(|()| connection.query_drop("COMMIT"));
        match moved {
            Ok(()) => moves += 1,
            // Two writers met on two rows; the server took one back.
            Err(_) => connection.query_drop("ROLLBACK").unwrap(),
        }
        // Eight writers at full speed leave two cores no time for anything else, and a
        // production server is not in that state.
        thread::sleep(Duration::from_millis(1));
    }
    moves
}

/// The total in the exported files, by loading them.
pub(crate) fn exported_total(server: &Server, database: &str, site: &Site) -> (u64, u64) {
    let mut sql = Vec::new();
    for table in TABLES {
        sql.extend_from_slice(format!("TRUNCATE TABLE {table};\n").as_bytes());
    }
    for backup in [site.host(), site.latest()] {
        files(&backup.join("data"))
            .iter()
            .for_each(|file| sql.extend(read_sql(file)));
    }
    server.feed(database, "an export", &sql);
    totals(server, database)
}

pub(crate) fn totals(server: &Server, database: &str) -> (u64, u64) {
    let parts = TABLES
        .map(|table| format!("SELECT amount FROM {database}.{table}"))
        .join(" UNION ALL ");
    server
        .connect()
        .query_first(format!(
            "SELECT count(*), sum(amount) FROM ({parts}) AS all_rows"
        ))
        .unwrap()
        .unwrap()
}

/// Raised also when an assertion panics: a scope waits for its threads.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Exports again and again as a user with `grants` while writers write; every export must
/// take the way `expected` by itself, and hold the total.
fn exports_hold_the_total(server: &Server, database: &str, grants: &[&str], expected: &str) {
    fill(server, database);
    let grants: Vec<_> = grants
        .iter()
        .map(|grant| grant.replace("{db}", database))
        .collect();
    let user = format!("u_{database}");
    let password = server.create_user(
        &user,
        &grants.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let site = Site::new(server, database, &lists()).connect_as(server, database, &user, &password);
    let copy = format!("{database}_copy");
    server.create_database(&copy);

    let before = totals(server, database);
    let (stop, moves) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for writer in 1..=WRITERS {
            let (stop, moves) = (&stop, &moves);
            scope.spawn(move || {
                moves.fetch_add(write(server, database, writer, stop), Ordering::Relaxed)
            });
        }
        for export in 0..EXPORTS {
            let arguments = [
                "-j",
                "4",
                "--chunk-size",
                "64K",
                "--skip",
                "views,triggers,routines,events",
            ];
            site.backup_ok(&arguments);
            if export == 0 {
                for file in files(&site.host().join("structure/tables")) {
                    server.feed(&copy, "the structure", &read_sql(&file));
                }
                assert_eq!(json(site.host().join("run.json"))["consistency"], expected);
                for (backup, table) in [
                    (site.host(), TABLES[0]),
                    (site.latest(), TABLES[1]),
                    (site.latest(), TABLES[2]),
                ] {
                    let chunks = chunks(&backup, table);
                    assert!(
                        chunks >= 4,
                        "{table} is in {chunks} chunks: too few to show anything"
                    );
                }
            }
            assert_eq!(
                exported_total(server, &copy, &site),
                before,
                "rows and total of export {export}"
            );
            // Backups of user data of one second would share a name; and 20 of them are not needed.
            std::fs::remove_dir_all(site.user_data_dir()).unwrap();
        }
    });
    assert!(
        moves.load(Ordering::Relaxed) > 1000,
        "the writers hardly wrote: {moves:?}"
    );
    assert_eq!(totals(server, database), before, "the test's own invariant");
}

#[test]
fn with_a_binary_log_reading_is_enough_and_exports_under_writes_are_one_state() {
    let Some(server) = with_binlog() else { return };
    // The server tells a session the position of another's snapshot when both ask at once, so
    // one that holds an old snapshot and one without ask all the time.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for begin in ["START TRANSACTION WITH CONSISTENT SNAPSHOT", "DO 0"] {
            let stop = &stop;
            scope.spawn(move || {
                let mut connection = server.connect();
                connection.query_drop(begin).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    connection.query_drop("SHOW STATUS LIKE 'Binlog%'").unwrap();
                }
            });
        }
        exports_hold_the_total(server, "cons_binlog", &["SELECT ON {db}.*"], "binlog");
    });
}

#[test]
fn with_reload_exports_under_writes_are_one_state() {
    let Some(server) = without_binlog() else {
        return;
    };
    exports_hold_the_total(
        server,
        "cons_global",
        &["RELOAD ON *.*", "SELECT ON {db}.*"],
        "global-lock",
    );
}

#[test]
fn with_lock_tables_exports_under_writes_are_one_state() {
    let Some(server) = without_binlog() else {
        return;
    };
    exports_hold_the_total(
        server,
        "cons_tables",
        &["SELECT, LOCK TABLES ON {db}.*"],
        "table-locks",
    );
}

#[test]
fn a_reader_on_a_server_without_binary_log_is_refused_with_a_hint() {
    let Some(server) = without_binlog() else {
        return;
    };
    fill(server, "cons_reader");
    let password = server.create_user("cons_reader", &["SELECT ON cons_reader.*"]);
    let site = Site::new(server, "cons_reader", &lists()).connect_as(
        server,
        "cons_reader",
        "cons_reader",
        &password,
    );
    let skip = ["--skip", "views,triggers,routines,events"];
    site.backup(&skip)
        .expect_code(11)
        .expect_said("hint:")
        .expect_said("LOCK TABLES");
    assert!(!site.host().exists(), "a refused run wrote something");
    // Only on demand, and then it says so.
    site.backup_ok(&[&skip[..], &["--consistency", "none"]].concat());
    assert_eq!(json(site.host().join("run.json"))["consistency"], "none");
}

#[test]
fn a_lock_that_cannot_be_had_fails_the_run_in_time_and_names_the_blocker() {
    let Some(server) = without_binlog() else {
        return;
    };
    fill(server, "cons_blocked");
    let password = server.create_user(
        "cons_blocked",
        &["SELECT, LOCK TABLES ON cons_blocked.*", "PROCESS ON *.*"],
    );
    let site = Site::new(server, "cons_blocked", &lists()).connect_as(
        server,
        "cons_blocked",
        "cons_blocked",
        &password,
    );
    let mut blocker = server.connect();
    blocker
        .query_drop(format!("LOCK TABLES cons_blocked.{} WRITE", TABLES[1]))
        .unwrap();
    let number = blocker.connection_id().to_string();
    let skip = "views,triggers,routines,events";
    let arguments = [
        "--lock-wait-timeout",
        "2",
        "--consistency",
        "table-locks",
        "--skip",
        skip,
    ];
    let outcome = site.backup(&arguments).expect_code(11);
    assert!(
        outcome.stderr.contains(&number),
        "session {number} is not named: {}",
        outcome.stderr
    );
}

/// A missing privilege, the kind of object it hides, and what the refusal must mention.
const HIDDEN: [(&str, &str, &str); 4] = [
    ("SHOW VIEW", "views", "SHOW VIEW"),
    ("TRIGGER", "triggers", "TRIGGER"),
    ("EVENT", "events", "EVENT"),
    ("mysql.proc", "routines", "routine"),
];

#[test]
fn what_a_missing_privilege_hides_is_refused_unless_it_is_skipped() {
    let Some(server) = with_binlog() else { return };
    fill(server, "cons_hidden");
    server.feed(
        "cons_hidden",
        "the objects",
        b"CREATE VIEW v AS SELECT 1 AS one;
          CREATE TRIGGER t BEFORE INSERT ON acct_text FOR EACH ROW SET NEW.n = NEW.n;
          CREATE EVENT e ON SCHEDULE AT '2033-01-01 00:00:00' DO SET @a = 1;
          CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1;",
    );
    let all = ["SHOW VIEW", "TRIGGER", "EVENT"];
    let attempt = |user: &str, without: &str, skip: &[&str]| {
        let kept: Vec<_> = all
            .iter()
            .filter(|privilege| **privilege != without)
            .copied()
            .collect();
        let mut grants = vec![format!("SELECT, {} ON cons_hidden.*", kept.join(", "))];
        if without != "mysql.proc" {
            grants.push("SELECT ON mysql.proc".to_owned());
        }
        let password =
            server.create_user(user, &grants.iter().map(String::as_str).collect::<Vec<_>>());
        let site = Site::new(server, "cons_hidden", &lists()).connect_as(
            server,
            "cons_hidden",
            user,
            &password,
        );
        let outcome = site.backup(skip);
        (site, outcome)
    };

    let (site, outcome) = attempt("cons_all", "", &[]);
    outcome.expect_code(0);
    let objects = json(site.host().join("manifest.json"))["objects"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(objects, 4, "a user who may see everything saves everything");

    for (privilege, kind, said) in HIDDEN {
        let (site, outcome) = attempt("cons_some", privilege, &[]);
        outcome
            .expect_code(10)
            .expect_said(said)
            .expect_said("hint:");
        assert!(
            !site.host().exists(),
            "refused for {privilege}, and wrote something"
        );
        let (site, outcome) = attempt("cons_some", privilege, &["--skip", kind]);
        outcome.expect_code(0);
        assert_eq!(
            json(site.host().join("manifest.json"))["skipped_objects"][0],
            kind
        );
    }
}
