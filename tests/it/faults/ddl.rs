//! DDL while a backup runs: on a table that is done, on the one whose rows are being read, on
//! one that is still to come. The backup is complete and of the snapshot's state, or it fails
//! and names the table; and DDL on a table that is done does not wait for the backup's end.

mod exchange;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
#[cfg(feature = "failpoints")]
use rustix::process::Signal;

use super::table::Row;
use super::throttle::Throttle;
use super::{ONE_STREAM, assert_no_sessions_left};
use crate::compare::{assert_same, fingerprint, load};
use crate::server::{Kind, Server, on_each_kind, shared, with_binlog};
#[cfg(feature = "failpoints")]
use crate::site::wait_until;
use crate::site::{Lists, Outcome, RUN_BOUND, Running, Site, assert_no_leftovers, start};

/// Largest first: while `running` is read, `done` is done and `coming` is to come.
const TABLES: [(&str, u64); 3] = [("done", 2048), ("running", 1536), ("coming", 64)];
/// Bytes of answers in the middle of `running`.
const MIDDLE: u64 = 2_900_000;

/// A database anew, a site without backups, and what the database holds.
struct Fixture {
    server: &'static Server,
    database: String,
    site: Site,
    throttle: Throttle,
    held: BTreeMap<String, String>,
    /// Whether there is a table `twin` of the definition of `coming`.
    with_twin: bool,
}

impl Fixture {
    fn new(kind: Kind, database: &str) -> Option<Fixture> {
        Some(Fixture::on(shared(kind)?, database, &[]))
    }

    /// With more privileges for the backup user.
    fn on(server: &'static Server, database: &str, more: &[&str]) -> Fixture {
        let kind = server.kind();
        let throttle = Throttle::by_socket(server);
        let lists = Lists {
            global: vec!["done", "running", "coming", "twin"],
            ignore: vec!["scratch"],
            ..Lists::default()
        };
        let site = Site::new(server, database, &lists);
        // No lock that keeps DDL away by itself: see `LOCK INSTANCE FOR BACKUP`.
        let routines = if kind.is_mysql() {
            "SHOW_ROUTINE ON *.*"
        } else {
            "SELECT ON mysql.proc"
        };
        let own = format!("SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON {database}.*");
        let grants = [&[&own, routines], more].concat();
        let site = throttle.before_as(server, site, database, &grants);
        let database = database.to_owned();
        let mut fixture = Fixture {
            server,
            database,
            site,
            throttle,
            held: BTreeMap::new(),
            with_twin: false,
        };
        fixture.anew();
        fixture
    }

    /// Makes the database as it was in the beginning.
    fn anew(&mut self) {
        self.server.create_database(&self.database);
        let mut connection = self.connect();
        let mut run = |statement: &str| connection.query_drop(statement).unwrap();
        for (table, rows) in TABLES {
            run(&format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, n INT NOT NULL, v VARCHAR(1000) NOT NULL) COMMENT '{rows}'"
            ));
            run(&format!(
                "INSERT INTO {table} VALUES (1, 1, REPEAT('v', 1000))"
            ));
            let mut have = 1;
            while have < rows {
                run(&format!(
                    "INSERT INTO {table} SELECT id + {have}, n + {have}, v FROM {table} WHERE id <= {}",
                    rows - have
                ));
                have *= 2;
            }
            run(&format!("ANALYZE TABLE {table}"));
        }
        if self.with_twin {
            // MySQL does not even tell the seconds apart.
            if self.server.kind().is_mysql() {
                run("DO SLEEP(1.1)");
            }
            run("CREATE TABLE twin LIKE coming");
            run("INSERT INTO twin SELECT id, -n, v FROM coming");
        }
        run("CREATE VIEW some AS SELECT id FROM done WHERE n < 10");
        run("CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1");
        run("CREATE TRIGGER t BEFORE INSERT ON done FOR EACH ROW SET NEW.n = NEW.n + 1");
        run("CREATE EVENT e ON SCHEDULE AT '2033-01-01 00:00:00' DO SET @a = 1");
        self.held = fingerprint(self.server, &self.database);
    }

    fn connect(&self) -> mysql::Conn {
        let mut connection = self.server.connect();
        connection
            .query_drop(format!("USE {}", self.database))
            .unwrap();
        connection.query_drop("SET lock_wait_timeout = 1").unwrap();
        connection
    }

    /// A run that waits in the middle of `running`.
    fn start(&self) -> Running {
        self.start_with(&ONE_STREAM, MIDDLE)
    }

    /// A run that waits after so many bytes of answers.
    fn start_with(&self, arguments: &[&str], bytes: u64) -> Running {
        std::fs::remove_dir_all(self.site.user_data_dir()).ok();
        std::fs::remove_dir_all(self.site.backup_dir()).ok();
        self.throttle.silent_after(bytes);
        let mut program = start(self.site.command("", arguments));
        self.throttle.wait_until_silent(&mut program);
        program
    }

    /// Lets the run go on to its end.
    fn finish(&self, program: Running) -> Outcome {
        self.throttle.speak_again();
        let outcome = program.finish(RUN_BOUND);
        assert_no_leftovers(&self.site);
        outcome
    }

    /// Panics unless the backup is what the database held when the run began.
    #[track_caller]
    fn assert_snapshot(&self) {
        let copy = format!("{}_copy", self.database);
        self.server.create_database(&copy);
        load(self.server, &copy, &[&self.site.host()]);
        assert_same(&self.held, &fingerprint(self.server, &copy));
    }

    /// Whether a file of structure is written while the run goes on.
    fn is_staged(&self, file: &str) -> bool {
        let structure = self.site.host().join(".schema_backup/staging/structure");
        structure.join(format!("{file}.sql")).exists()
    }

    #[track_caller]
    fn assert_no_backup(&self) {
        assert!(!self.site.host().join("manifest.json").exists());
    }
}

/// What is done to a table `T`.
const DDL: [(&str, &str); 9] = [
    (
        "ALTER, at once",
        "ALTER TABLE T ADD COLUMN late INT DEFAULT 7",
    ),
    (
        "ALTER, in place",
        "ALTER TABLE T ADD INDEX (n), ALGORITHM=INPLACE",
    ),
    (
        "ALTER, by copy",
        "ALTER TABLE T MODIFY n BIGINT NOT NULL, ALGORITHM=COPY",
    ),
    ("OPTIMIZE", "ALTER TABLE T FORCE"),
    ("TRUNCATE", "TRUNCATE TABLE T"),
    ("DROP", "DROP TABLE T"),
    (
        "DROP and CREATE",
        "DROP TABLE T; CREATE TABLE T (id INT PRIMARY KEY, n INT NOT NULL, v VARCHAR(1000) NOT NULL)",
    ),
    ("RENAME", "RENAME TABLE T TO elsewhere"),
    (
        "RENAME of another in its place",
        "CREATE TABLE other LIKE T; INSERT INTO other SELECT id, n, 'other' FROM T; RENAME TABLE T TO elsewhere, other TO T",
    ),
];

fn apply(connection: &mut mysql::Conn, ddl: &str, table: &str) -> mysql::Result<()> {
    let ddl = ddl.replace("TABLE T", &format!("TABLE {table}"));
    let ddl = ddl
        .replace("LIKE T", &format!("LIKE {table}"))
        .replace("FROM T", &format!("FROM {table}"));
    let ddl = ddl.replace("TO T", &format!("TO {table}"));
    ddl.split("; ")
        .try_for_each(|statement| connection.query_drop(statement))
}

on_each_kind!(on_a_table_that_is_done_it_neither_waits_nor_matters);

fn on_a_table_that_is_done_it_neither_waits_nor_matters(kind: Kind) {
    let Some(mut fixture) = Fixture::new(kind, "ddl_done") else {
        return;
    };
    for (what, ddl) in DDL {
        fixture.anew();
        let program = fixture.start();
        // The bound of a second on its waits is enough.
        apply(&mut fixture.connect(), ddl, "done").unwrap_or_else(|e| panic!("{what}: {e}"));
        let outcome = fixture.finish(program).expect_code(0);
        fixture.assert_snapshot();
        let mut row = Row::new(format!("{what} of a table that is done, {kind:?}"))
            .first()
            .complete();
        row.saw(&outcome);
    }
    assert_no_sessions_left(fixture.server, &fixture.database);
}

/// MariaDB's server with a binary log lets go of tables only in sessions that do not write to it.
#[test]
fn with_the_binary_log_on_it_waits_unless_the_user_may_do_without() {
    let Some(server) = with_binlog() else { return };
    for (more, waits) in [(&[] as &[&str], true), (&["BINLOG ADMIN ON *.*"], false)] {
        let fixture = Fixture::on(server, "ddl_binlog", more);
        let program = fixture.start();
        let (what, ddl) = DDL[0];
        let done = apply(&mut fixture.connect(), ddl, "done");
        assert_eq!(done.is_err(), waits, "{more:?}: {done:?}");
        let outcome = fixture.finish(program).expect_code(0);
        let run = std::fs::read_to_string(fixture.site.host().join("run.json")).unwrap();
        assert!(run.contains("\"consistency\": \"binlog\""), "{run}");
        fixture.assert_snapshot();
        let mut row = Row::new(format!(
            "{what} of a table that is done, binary log, {more:?}"
        ));
        row.saw(&outcome);
        row.first().complete();
    }
}

on_each_kind!(on_the_table_that_is_read_it_waits_until_that_is_whole);

fn on_the_table_that_is_read_it_waits_until_that_is_whole(kind: Kind) {
    let Some(mut fixture) = Fixture::new(kind, "ddl_running") else {
        return;
    };
    for (what, ddl) in DDL {
        fixture.anew();
        let program = fixture.start();
        let error = apply(&mut fixture.connect(), ddl, "running").unwrap_err();
        assert!(error.to_string().contains("1205"), "{what}: {error}");
        fixture
            .connect()
            .query_drop("DROP TABLE IF EXISTS other")
            .unwrap();
        // One with patience goes through while the run goes on.
        let mut connection = fixture.connect();
        connection.query_drop("SET lock_wait_timeout = 60").unwrap();
        let patient = thread::spawn(move || apply(&mut connection, ddl, "running"));
        thread::sleep(Duration::from_millis(200));
        let outcome = fixture.finish(program).expect_code(0);
        patient.join().unwrap().unwrap();
        fixture.assert_snapshot();
        let mut row = Row::new(format!("{what} of the table that is read, {kind:?}"))
            .first()
            .complete();
        row.saw(&outcome);
    }
}

#[cfg(feature = "failpoints")]
on_each_kind!(what_changes_between_the_first_look_and_the_snapshot_fails_the_run_by_name);

/// The catalog in the snapshot goes by what was listed before it.
#[cfg(feature = "failpoints")]
fn what_changes_between_the_first_look_and_the_snapshot_fails_the_run_by_name(kind: Kind) {
    let Some(mut fixture) = Fixture::new(kind, "ddl_before") else {
        return;
    };
    let mut run = |before: &str, ddl: &str, sessions: &str| {
        fixture.anew();
        let mut connection = fixture.connect();
        let mut all = |statements: &str| {
            let mut statements = statements.split("; ").filter(|s| !s.is_empty());
            statements.try_for_each(|statement| connection.query_drop(statement))
        };
        all(before).unwrap_or_else(|e| panic!("{before}: {e}"));
        let arguments = ["-j", sessions, "--progress", "none"];
        let mut command = fixture.site.command("", &arguments);
        command.env(schema_backup::FAILPOINT_VARIABLE, "make-staging=stop");
        let program = super::pair::stopped(command).expect("a run that makes a staging area");
        all(ddl).unwrap_or_else(|e| panic!("{ddl}: {e}"));
        program.signal(Signal::CONT);
        let outcome = program.finish(RUN_BOUND);
        assert_no_leftovers(&fixture.site);
        let view = fixture.site.host().join("structure/views/seen.sql");
        (outcome, view.exists())
    };
    let (view, no_view) = ("CREATE VIEW seen AS SELECT 1 AS a", "DROP VIEW seen");
    let view_to_table = format!("{no_view}; CREATE TABLE seen (a INT)");
    let merge = "CREATE TABLE part (a INT) ENGINE=MyISAM; \
                 CREATE TABLE merged (a INT) ENGINE=MERGE UNION=(part)";
    for (before, ddl, name) in [
        ("", "CREATE TABLE fresh (a INT)", "fresh"),
        ("CREATE TABLE spare (a INT)", "DROP TABLE spare", "spare"),
        (view, &view_to_table, "seen"),
        (merge, "ALTER TABLE merged ENGINE=InnoDB", "merged"),
    ] {
        let said = format!("`{name}` was created, dropped or altered while the backup began");
        for sessions in ["1", "2"] {
            let (outcome, _) = run(before, ddl, sessions);
            outcome.expect_code(3).expect_said(&said);
        }
    }
    // Nothing goes by what views there were, and what is ignored may come and go.
    for (before, ddl, saved) in [
        ("", "INSERT INTO coming VALUES (100000, 1, 'late')", false),
        ("", view, true),
        (view, no_view, false),
        (view, &format!("{no_view}; {view}"), true),
        ("", "CREATE TABLE scratch (a INT)", false),
        ("CREATE TABLE scratch (a INT)", "DROP TABLE scratch", false),
    ] {
        let (outcome, found) = run(before, ddl, "2");
        outcome.expect_code(0);
        assert_eq!(found, saved, "{ddl}");
    }
}

on_each_kind!(on_a_table_to_come_it_goes_through_and_the_run_fails_by_name);

fn on_a_table_to_come_it_goes_through_and_the_run_fails_by_name(kind: Kind) {
    let Some(mut fixture) = Fixture::new(kind, "ddl_coming") else {
        return;
    };
    for (what, ddl) in DDL {
        fixture.anew();
        let program = fixture.start();
        apply(&mut fixture.connect(), ddl, "coming").unwrap_or_else(|e| panic!("{what}: {e}"));
        let outcome = fixture.finish(program);
        let mut row = Row::new(format!("{what} of a table to come, {kind:?}")).first();
        if outcome.code == Some(0) {
            fixture.assert_snapshot();
            row = row.complete();
            row.saw(&outcome);
        } else {
            row.saw(&outcome.expect_code(3).expect_said("`coming`"));
            fixture.assert_no_backup();
        }
    }
    assert_no_sessions_left(fixture.server, &fixture.database);
}

/// What MariaDB states of a table that is a little older, and has no foreign key, tells of any DDL
/// on it: its definition is read with its rows.
#[test]
fn on_an_older_table_to_come_it_goes_through_and_the_run_fails_by_name() {
    for kind in [Kind::MariaDb10, Kind::MariaDb11] {
        let Some(server) = shared(kind) else { continue };
        let mut fixture = Fixture::on(server, "ddl_older", &["PROCESS ON *.*"]);
        for (what, ddl) in DDL {
            fixture.anew();
            thread::sleep(Duration::from_millis(2_100));
            let program = fixture.start();
            assert!(fixture.is_staged("views/some") && !fixture.is_staged("tables/coming"));
            apply(&mut fixture.connect(), ddl, "coming").unwrap_or_else(|e| panic!("{what}: {e}"));
            fixture
                .finish(program)
                .expect_code(3)
                .expect_said("`coming`");
            fixture.assert_no_backup();
        }
    }
}

/// A foreign key is stated with the name that the other table has now.
#[test]
fn a_table_renamed_to_which_an_older_one_refers_fails_the_run() {
    for kind in [Kind::MariaDb10, Kind::MariaDb11] {
        let Some(server) = shared(kind) else { continue };
        let mut fixture = Fixture::on(server, "ddl_parent", &["PROCESS ON *.*"]);
        for parent in ["done", "elsewhere"] {
            fixture.anew();
            for statement in [
                "CREATE TABLE elsewhere (id INT PRIMARY KEY)",
                &format!(
                    "ALTER TABLE coming ADD parent INT, ADD FOREIGN KEY (parent) REFERENCES {parent} (id)"
                ),
            ] {
                fixture.connect().query_drop(statement).unwrap();
            }
            thread::sleep(Duration::from_millis(2_100));
            let program = fixture.start();
            assert!(fixture.is_staged("tables/coming"));
            apply(&mut fixture.connect(), "RENAME TABLE T TO new_name", parent).unwrap();
            fixture
                .finish(program)
                .expect_code(3)
                .expect_said("table `coming`: it was altered or replaced during the backup");
            fixture.assert_no_backup();
        }
    }
}

#[cfg(feature = "failpoints")]
on_each_kind!(a_session_that_comes_later_does_not_wait_for_ddl_that_waits_for_the_first);

/// One session reads chunks of `running`, DDL waits for it, and the other comes from `done`. If it
/// waited for the DDL, that would wait for the first, and the first for the chunk of the other.
#[cfg(feature = "failpoints")]
fn a_session_that_comes_later_does_not_wait_for_ddl_that_waits_for_the_first(kind: Kind) {
    let Some(mut fixture) = Fixture::new(kind, "ddl_later") else {
        return;
    };
    let mut connection = fixture.connect();
    for statement in [
        "ALTER TABLE done DROP PRIMARY KEY",
        "INSERT INTO running SELECT id + 10000, n, v FROM running",
        "INSERT INTO running SELECT id + 20000, n, v FROM running",
        "INSERT INTO running SELECT id + 40000, n, v FROM running",
        "ANALYZE TABLE done, running",
        "SET lock_wait_timeout = 60",
    ] {
        connection.query_drop(statement).unwrap();
    }
    fixture.held = fingerprint(fixture.server, &fixture.database);
    let chunks = ["--chunk-size", "256K", "--lock-wait-timeout", "5"];
    let arguments = [&super::pair::QUIET[..], &chunks].concat();
    let mut command = fixture.site.command("", &arguments);
    command.env(schema_backup::FAILPOINT_VARIABLE, "read-chunk@3=stop");
    let program = super::pair::stopped(command).expect("three chunks");
    let number = connection.connection_id();
    thread::scope(|scope| {
        let ddl = "ALTER TABLE running ADD COLUMN late INT DEFAULT 7";
        let altered = scope.spawn(move || connection.query_drop(ddl));
        let mut observer = fixture.server.connect();
        wait_until("the DDL waits", || {
            let query =
                format!("SELECT STATE FROM information_schema.PROCESSLIST WHERE ID = {number}");
            let state: Option<Option<String>> = observer.query_first(query).unwrap();
            assert!(!altered.is_finished(), "nothing kept it waiting");
            state
                .flatten()
                .is_some_and(|state| state.contains("metadata lock"))
        });
        program.signal(Signal::CONT);
        program.finish(RUN_BOUND).expect_code(0);
        altered.join().unwrap().unwrap();
    });
    assert_no_leftovers(&fixture.site);
    fixture.assert_snapshot();
}

on_each_kind!(a_table_to_come_is_not_kept_although_it_was_looked_at);

/// The bounds of `coming` were looked for before the first row was read, and nothing was read to
/// its end since.
fn a_table_to_come_is_not_kept_although_it_was_looked_at(kind: Kind) {
    let Some(fixture) = Fixture::new(kind, "ddl_looked_at") else {
        return;
    };
    for statement in ["DROP VIEW some", "DROP TABLE done"] {
        fixture.connect().query_drop(statement).unwrap();
    }
    let chunks = ["-j", "1", "--chunk-size", "256K", "--progress", "none"];
    let program = fixture.start_with(&chunks, 800_000);
    let ddl = "TRUNCATE TABLE T";
    apply(&mut fixture.connect(), ddl, "running").expect_err("it is being read");
    apply(&mut fixture.connect(), ddl, "coming").unwrap();
    fixture
        .finish(program)
        .expect_code(3)
        .expect_said("`coming`");
    fixture.assert_no_backup();
}

on_each_kind!(on_anything_else_it_goes_through_and_does_not_matter);

/// New tables and views; views, routines, triggers and events altered, which were saved already.
fn on_anything_else_it_goes_through_and_does_not_matter(kind: Kind) {
    let Some(fixture) = Fixture::new(kind, "ddl_others") else {
        return;
    };
    let program = fixture.start();
    let mut connection = fixture.connect();
    for statement in [
        "CREATE TABLE newcomer (id INT PRIMARY KEY)",
        "CREATE VIEW newcomers AS SELECT id FROM newcomer",
        "CREATE OR REPLACE VIEW some AS SELECT n FROM coming",
        "DROP FUNCTION f",
        "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 2",
        "CREATE PROCEDURE p() SELECT 1",
        "DROP TRIGGER t",
        "CREATE TRIGGER t2 BEFORE DELETE ON done FOR EACH ROW SET @gone = OLD.n",
        "ALTER EVENT e ON SCHEDULE AT '2034-01-01 00:00:00'",
        "DROP EVENT e",
        "DROP VIEW some",
    ] {
        connection
            .query_drop(statement)
            .unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let outcome = fixture.finish(program).expect_code(0);
    fixture.assert_snapshot();
    let mut row = Row::new(format!(
        "DDL on views, routines, triggers and events, {kind:?}"
    ))
    .first()
    .complete();
    row.saw(&outcome);
}
