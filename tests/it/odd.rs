//! Things that were once lost, or once failed a backup, each with its own story.

use std::time::Duration;

use mysql::prelude::Queryable;

use crate::compare::{assert_same, differences, files, fingerprint, read_sql};
use crate::corpus;
use crate::faults::{create_big, stop_in_the_middle_of_big};
use crate::server::{Kind, Server, shared, with_binlog};
use crate::services;
use crate::site::{Lists, RUN_BOUND, Site, assert_no_leftovers, chunks, start, walk};

const DEFINITIONS: &[u8] = b"
SET sql_mode = 'ALLOW_INVALID_DATES';
CREATE TABLE dates (id INT PRIMARY KEY, d DATE, t DATETIME, s TIMESTAMP NULL);
INSERT INTO dates VALUES (1, '2024-02-30', '2023-02-31 12:00:00', NULL), (2, '0000-00-00', '2024-00-00', NULL);
SET sql_mode = DEFAULT;
CREATE TABLE only_generated (b INT AS (1 + 1) VIRTUAL);
INSERT INTO only_generated VALUES (), (), ();
CREATE TABLE ignored_key (a INT, b VARCHAR(300), UNIQUE KEY u (a) IGNORED);
INSERT INTO ignored_key SELECT seq, repeat('x', 200) FROM seq_1_to_3000;
CREATE TABLE uuids (id UUID PRIMARY KEY, v VARCHAR(100));
INSERT INTO uuids SELECT concat(left(md5(seq), 8), '-aaaa-4aaa-8aaa-', right(md5(seq), 12)), repeat('u', 90)
  FROM seq_1_to_3000;
CREATE TABLE halves (a INT NOT NULL, e ENUM('x', 'y') NOT NULL, v CHAR(50), PRIMARY KEY (a, e));
INSERT INTO halves SELECT seq DIV 2, 1 + seq % 2, repeat('h', 50) FROM seq_1_to_4000;
CREATE TABLE nulls (k INT NULL, v CHAR(60), UNIQUE KEY (k));
INSERT INTO nulls SELECT IF(seq % 10 = 0, NULL, CAST(seq AS SIGNED) - 2000), repeat('n', 60) FROM seq_1_to_4000;
CREATE VIEW a_view AS SELECT f(id) AS f, id FROM dates;
";

/// As [`DEFINITIONS`], for what is written in another dialect or holds semicolons.
const ROUTINES: &[u8] = b"
CREATE FUNCTION f(a INT) RETURNS INT DETERMINISTIC RETURN a + 1;
SET sql_mode = ORACLE;
DELIMITER $$
CREATE PACKAGE pack AS FUNCTION one RETURN INT; END$$
CREATE PACKAGE BODY pack AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END$$
";

/// Loads a backup as the README says, in the order of a shell's `*`.
fn load_as_the_readme_says(server: &Server, database: &str, site: &Site) {
    let host = site.host();
    let parts = [
        host.join("structure/sequences"),
        host.join("structure/tables"),
        host.join("data"),
        site.latest().join("data"),
        host.join("structure/routines"),
        host.join("structure/views"),
        host.join("structure/triggers"),
        host.join("structure/events"),
    ];
    for file in parts.iter().flat_map(|part| files(part)) {
        let name = file.file_name().unwrap().to_str().unwrap();
        server.feed(database, name, &read_sql(&file));
    }
}

#[test]
fn odd_tables_views_and_packages_come_back_in_the_order_of_the_readme() {
    let Some(server) = with_binlog() else { return };
    server.create_database("odd");
    server.feed("odd", "the routines", ROUTINES);
    server.feed("odd", "the tables", DEFINITIONS);
    let lists = Lists {
        global: vec!["dates", "only_generated"],
        local: vec!["ignored_key", "uuids", "halves", "nulls"],
        ..Lists::default()
    };
    let site = Site::new(server, "odd", &lists);
    site.backup_ok(&["--chunk-size", "20000", "-j", "3", "--progress", "none"]);
    for table in ["uuids", "halves", "nulls"] {
        assert!(chunks(&site.latest(), table) > 3, "{table} was not split");
    }
    assert_eq!(chunks(&site.latest(), "ignored_key"), 1);

    server.create_database("odd_again");
    load_as_the_readme_says(server, "odd_again", &site);
    assert_same(
        &fingerprint(server, "odd"),
        &fingerprint(server, "odd_again"),
    );
}

#[test]
fn what_cannot_be_backed_up_fails_by_name_unless_its_name_is_ignored() {
    // The only one here that comes with an engine whose rows another server holds.
    let Some(server) = shared(Kind::MariaDb11) else {
        return;
    };
    server.create_database("odd_refused");
    server.feed(
        "odd_refused",
        "what cannot be backed up",
        b"CREATE TABLE good (id INT PRIMARY KEY); INSERT INTO good VALUES (1);
          CREATE TABLE gone (id INT);
          CREATE VIEW broken AS SELECT id FROM gone;
          CREATE VIEW above_broken AS SELECT id FROM broken;
          DROP TABLE gone;
          CREATE TABLE precise (id INT PRIMARY KEY, a BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,
            b BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (a, b)) WITH SYSTEM VERSIONING;",
    );
    let port = server.socket();
    let remote = format!(
        "INSTALL SONAME 'ha_federatedx';
         CREATE SERVER itself FOREIGN DATA WRAPPER mysql OPTIONS
           (SOCKET '{}', USER 'root', PASSWORD '{}', DATABASE 'odd_refused');
         CREATE TABLE far (id INT PRIMARY KEY) ENGINE=FEDERATED CONNECTION='itself/good';",
        port.display(),
        crate::server::ROOT_PASSWORD.replace('\'', "''")
    );
    server.feed("odd_refused", "a federated table", remote.as_bytes());
    let mut lists = Lists {
        global: vec!["good"],
        local: vec!["far", "precise"],
        ..Lists::default()
    };
    let site = Site::new(server, "odd_refused", &lists);
    let outcome = site.backup(&["--progress", "none"]).expect_code(3);
    for name in ["`far`", "`precise`", "`broken`", "`above_broken`"] {
        assert!(outcome.stderr.contains(name), "{name}: {}", outcome.stderr);
    }
    assert!(!site.host().join("manifest.json").exists());
    lists.ignore = vec!["far", "precise", "broken", "above_broken"];
    lists.local.clear();
    site.configure(&lists, "");
    site.backup_ok(&["--progress", "none"]);
}

#[test]
fn of_two_grants_whose_patterns_match_only_the_one_that_the_server_applies_counts() {
    let Some(server) = with_binlog() else { return };
    server.create_database("odd_grants");
    let grants = [
        "SELECT ON `odd\\_grants`.*",
        "SELECT, TRIGGER, EVENT, SHOW VIEW ON `odd%`.*",
        "SELECT ON mysql.proc",
    ];
    let password = server.create_user("odd_grants", &grants);
    let site = Site::new(server, "odd_grants", &Lists::default());
    let site = site.connect_as(server, "odd_grants", "odd_grants", &password);
    site.backup(&[]).expect_code(10).expect_said("TRIGGER");
}

#[test]
fn tables_that_swap_their_names_during_the_run_fail_it() {
    let Some(server) = with_binlog() else { return };
    server.create_database("odd_swap");
    server.feed(
        "odd_swap",
        "the tables",
        b"CREATE TABLE xa (v INT); INSERT INTO xa VALUES (1);
          CREATE TABLE xb (v INT); INSERT INTO xb VALUES (2);",
    );
    create_big(server, "odd_swap");
    let lists = Lists {
        local: vec!["big", "xa", "xb"],
        ..Lists::default()
    };
    let site = Site::new(server, "odd_swap", &lists);
    // So that the new names have another age than the old ones.
    std::thread::sleep(Duration::from_millis(2100));
    let arguments = ["-j", "1", "--chunk-size", "1G", "--progress", "none"];
    let mut program = start(site.command("", &arguments));
    stop_in_the_middle_of_big(server, "odd_swap", &mut program);
    let mut connection = server.connect();
    connection
        .query_drop("RENAME TABLE odd_swap.xa TO odd_swap.xt, odd_swap.xb TO odd_swap.xa, odd_swap.xt TO odd_swap.xb")
        .unwrap();
    program.signal(rustix::process::Signal::CONT);
    program
        .finish(RUN_BOUND)
        .expect_code(3)
        .expect_said("altered or replaced");
    assert_no_leftovers(&site);
}

#[test]
fn a_destination_in_use_is_refused_before_a_service_is_touched() {
    let Some(server) = with_binlog() else { return };
    server.create_database("odd_busy");
    create_big(server, "odd_busy");
    let lists = Lists {
        local: vec!["big"],
        ..Lists::default()
    };
    let site = services::site_with_services(server, "odd_busy", &lists);
    let arguments = ["-j", "1", "--chunk-size", "1G", "--progress", "none"];
    let mut first = start(site.command("", &arguments));
    stop_in_the_middle_of_big(server, "odd_busy", &mut first);
    let second = crate::site::run(services::command(&site, &["-m"], ""));
    second.expect_code(12).expect_said("in use");
    for service in ["mariadb", "csv2-web", "csv2-poller"] {
        assert_eq!(services::calls(&site, service), Vec::<String>::new());
    }
    first.signal(rustix::process::Signal::CONT);
    first.finish(RUN_BOUND).expect_code(0);
}

#[test]
fn a_destination_of_another_database_is_refused_at_once_and_stays_as_it_is() {
    let Some(server) = with_binlog() else { return };
    for database in ["odd_one", "odd_two"] {
        server.create_database(database);
        server.feed(database, "the table", b"CREATE TABLE t (id INT);");
    }
    let lists = Lists {
        local: vec!["t"],
        ..Lists::default()
    };
    let site = Site::new(server, "odd_one", &lists);
    site.backup_ok(&[]);
    let roots = |site: &Site| [walk(&site.backup_dir()), walk(&site.user_data_dir())];
    let before = roots(&site);
    let password = server.create_user("odd_two", &["ALL ON *.*"]);
    let site = site.connect_as(server, "odd_two", "odd_two", &password);
    site.backup(&[]).expect_code(2).expect_said("odd_one");
    assert_eq!(roots(&site), before);
}

#[test]
fn types_that_the_text_of_json_does_not_tell_are_warned_of_by_name() {
    let Some(server) = shared(Kind::MySql9) else {
        return;
    };
    server.create_database("odd_json");
    let kept = [
        "1",
        "18446744073709551615",
        "{\"a\": [1.5, \"x\", null, true, -1]}",
        "[]",
    ];
    let lost = [
        "JSON_OBJECT('a', JSON_ARRAY(1, CURRENT_DATE))",
        "JSON_ARRAY(JSON_ARRAY(CAST(1.5 AS DECIMAL(5, 2))))",
        "CAST(CAST(5 AS UNSIGNED) AS JSON)",
        "JSON_OBJECT('k', JSON_OBJECT('l', X'00FF'))",
        "CAST(TIME('10:00:00') AS JSON)",
    ];
    let kept = kept
        .map(|text| format!("(CAST('{text}' AS JSON))"))
        .join(",");
    let mut sql = format!("CREATE TABLE kept (j JSON); INSERT INTO kept VALUES {kept}, (NULL);");
    for (at, document) in lost.iter().enumerate() {
        let create = format!("CREATE TABLE lost_{at} (id INT, j JSON); INSERT INTO lost_{at}");
        sql.push_str(&format!("{create} VALUES (1, '{{}}'), (2, {document});"));
    }
    server.feed("odd_json", "documents", sql.as_bytes());
    let lists = Lists {
        local: vec!["kept", "lost_0", "lost_1", "lost_2", "lost_3", "lost_4"],
        ..Lists::default()
    };
    let site = Site::new(server, "odd_json", &lists);
    let outcome = site.backup_ok(&["--progress", "none"]);
    for table in &lists.local {
        let warned = outcome
            .stderr
            .contains(&format!("`{table}`: JSON column `j`"));
        assert_eq!(warned, *table != "kept", "{table}: {}", outcome.stderr);
    }
}

/// On every kind of server with `SCHEMA_BACKUP_SOAK` set: it takes minutes.
#[test]
fn rows_of_64_mib_come_back() {
    let soak = std::env::var_os("SCHEMA_BACKUP_SOAK").is_some();
    for kind in Kind::ALL.into_iter().take(if soak { 3 } else { 1 }) {
        let mut options = vec!["--max-allowed-packet=1G"];
        if kind.is_mysql() {
            options.push("--innodb-redo-log-capacity=1G");
        }
        let Some(server) = Server::start_kind(kind, &options) else {
            continue;
        };
        server.create_database("odd_large");
        server.feed(
            "odd_large",
            "the rows",
            "SET NAMES utf8mb4;
             CREATE TABLE large (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT CHARACTER SET utf8mb4);
             INSERT INTO large VALUES (1, REPEAT(X'00275C0A', 16 << 20), NULL),
               (2, NULL, REPEAT('é''\\\\', 16 << 20)), (3, '', 'small');"
                .as_bytes(),
        );
        let site = corpus::back_up(&server, "odd_large");
        let mut failures = corpus::load(&server, "odd_large_again", &site);
        failures.extend(differences(
            &fingerprint(&server, "odd_large"),
            &fingerprint(&server, "odd_large_again"),
        ));
        assert_eq!(failures, Vec::<String>::new(), "{kind:?}");
    }
}
