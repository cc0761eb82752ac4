//! What a restore says and leaves behind when the server, the user or the backup does not let it
//! do its work.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use mysql::prelude::Queryable;
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use super::{command, fill, restore};
use crate::compare::{assert_same, fingerprint};
use crate::server::{Kind, ROOT_PASSWORD, Server, free_port, shared, with_binlog};
use crate::site::{Lists, RUN_BOUND, Site, edited, run, start, wait_until};

fn databases(server: &Server, like: &str) -> Vec<String> {
    let mut connection = server.connect();
    connection
        .query(format!("SHOW DATABASES LIKE '{like}'"))
        .unwrap()
}

#[test]
fn a_definition_that_arrives_otherwise_fails_the_restore_by_name() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "rest_otherwise");
    // The same table in other words: the server will state it in its own.
    let file = "structure/tables/log.sql";
    let (path, manifest) = (site.host().join(file), site.host().join("manifest.json"));
    let sum = |text: &str| -> String {
        let digest = Sha256::digest(text);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let good = fs::read_to_string(&path).unwrap();
    let bad = good.replace("int(11)", "INT(11)");
    assert_ne!(good, bad);
    fs::write(&path, &bad).unwrap();
    let listed = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, edited(&listed, &sum(&good), &sum(&bad))).unwrap();

    server.execute(&["DROP DATABASE IF EXISTS rest_otherwise_again"]);
    restore(&site, "rest_otherwise_again", &[])
        .expect_code(4)
        .expect_said("table `log`: its definition differs");
}

#[test]
fn what_the_user_may_not_do_is_said_before_anything_is_written() {
    let Some(server) = with_binlog() else { return };
    let mut site = fill(server, "rest_rights");
    let again = "rest_rights_again";
    server.execute(&["DROP DATABASE IF EXISTS rest_rights_again"]);
    let all = "ALL ON rest_rights_again.*";
    let refused: [(&[&str], &[&str]); 3] = [
        (
            &["SELECT, INSERT, CREATE ON rest_rights_again.*"],
            &["ALTER, CREATE VIEW, DROP, TRIGGER"],
        ),
        (&[all], &["belongs to root@localhost", "--skip-definer"]),
        (
            &[all, "SET USER ON *.*"],
            &["log_bin_trust_function_creators"],
        ),
    ];
    for (grants, said) in refused {
        let password = server.create_user("rest_rights", grants);
        site = site.connect_as(server, again, "rest_rights", &password);
        let outcome = restore(&site, again, &[]).expect_code(10);
        said.iter()
            .fold(outcome, |outcome, text| outcome.expect_said(text));
        assert!(databases(server, again).is_empty(), "{grants:?}: written");
    }

    let password = server.create_user("rest_rights", &[all, "SUPER ON *.*"]);
    site = site.connect_as(server, again, "rest_rights", &password);
    restore(&site, again, &["--skip-definer"]).expect_code(0);
    let definers: Vec<String> = server
        .connect()
        .query("SELECT DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'rest_rights_again' UNION ALL SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'rest_rights_again'")
        .unwrap();
    assert_eq!(definers, ["rest_rights@%", "rest_rights@%"]);
}

#[test]
fn a_statement_longer_than_the_server_takes_is_named_and_the_restore_resumed() {
    let Some(server) = with_binlog() else { return };
    let Some(small) = Server::start(&["--max-allowed-packet=1M"]) else {
        return;
    };
    server.create_database("rest_long");
    server.execute(&[
        "CREATE TABLE rest_long.t (id INT PRIMARY KEY, v LONGTEXT)",
        "INSERT INTO rest_long.t VALUES (1, 'short'), (2, repeat('long', 1000000))",
    ]);
    let lists = Lists {
        local: vec!["t"],
        ..Lists::default()
    };
    let site = Site::new(server, "rest_long", &lists);
    site.backup_ok(&["--progress", "none"]);
    let site = site.connect_as(&small, "rest_long", "root", ROOT_PASSWORD);
    restore(&site, "rest_long", &[])
        .expect_code(3)
        .expect_said("table `t`")
        .expect_said("max_allowed_packet is 1048576");
    small.execute(&["SET GLOBAL max_allowed_packet = 16777216"]);
    restore(&site, "rest_long", &["--resume"]).expect_code(0);
    assert_same(
        &fingerprint(server, "rest_long"),
        &fingerprint(&small, "rest_long"),
    );
}

/// A restore that waits for a table which somebody else has locked ends on SIGINT.
fn interrupt_while_waiting(server: &Server, site: &Site, flags: &[&str]) {
    let again = "rest_wait_again";
    server.create_database(again);
    server.execute(&[
        "CREATE TABLE rest_wait_again.plain (x INT)",
        "INSERT INTO rest_wait_again.plain VALUES (7)",
    ]);
    let mut holder = server.connect();
    holder
        .query_drop("LOCK TABLES rest_wait_again.plain READ")
        .unwrap();
    let arguments = [&["--overwrite", "--lock-wait-timeout", "1000"], flags].concat();
    let program = start(command(site, again, &arguments));
    let mut observer = server.connect();
    wait_until("the restore to wait for the table", || {
        let waiting: Option<u8> = observer
            .query_first("SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table metadata lock%'")
            .unwrap();
        waiting.is_some()
    });
    program.signal(Signal::INT);
    program.finish(RUN_BOUND).expect_code(130);
    holder.query_drop("UNLOCK TABLES").unwrap();
    let rows: Option<u64> = holder
        .query_first("SELECT x FROM rest_wait_again.plain")
        .unwrap();
    assert_eq!(rows, Some(7), "the table went though the run was ended");
}

#[test]
fn rows_that_others_keep_locked_are_waited_for_until_an_interrupt() {
    for server in Kind::ALL.into_iter().filter_map(shared) {
        let (site, again) = (one_table(server, "rest_rows"), "rest_rows_again");
        server.execute(&[&format!("DROP DATABASE IF EXISTS {again}")]);
        restore(&site, again, &["--structure-only"]).expect_code(0);
        let mut holder = server.connect();
        holder.query_drop("BEGIN").unwrap();
        // Nobody else sees this row, but its key is taken.
        holder
            .query_drop(format!("INSERT INTO {again}.plain VALUES (2)"))
            .unwrap();
        let program = start(command(&site, again, &["--data-only"]));
        wait_until("rows", || waits_for_rows(server, again));
        program.signal(Signal::INT);
        program.finish(RUN_BOUND).expect_code(130);
        wait_until("the end of the wait", || !waits_for_rows(server, again));
        // With patience, it goes on as soon as it can, without a row twice.
        let program = start(command(&site, again, &["--data-only", "--resume"]));
        wait_until("rows", || waits_for_rows(server, again));
        holder.query_drop("ROLLBACK").unwrap();
        program.finish(RUN_BOUND).expect_code(0);
        assert_eq!(super::rows(server, &format!("{again}.plain")), 2);
    }
}

#[test]
fn the_victim_of_a_deadlock_loads_its_rows_again() {
    for server in Kind::ALL.into_iter().filter_map(shared) {
        let (site, again) = (one_table(server, "rest_victim"), "rest_victim_again");
        server.execute(&[&format!("DROP DATABASE IF EXISTS {again}")]);
        restore(&site, again, &["--structure-only"]).expect_code(0);
        server.execute(&[
            &format!("CREATE TABLE {again}.other (id INT PRIMARY KEY)"),
            &format!(
                "INSERT INTO {again}.other WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT i FROM n"
            ),
        ]);
        let mut holder = server.connect();
        holder.query_drop("BEGIN").unwrap();
        // The server ends the transaction that has changed less.
        for statement in ["DELETE FROM @.other", "INSERT INTO @.plain VALUES (2)"] {
            holder.query_drop(statement.replace('@', again)).unwrap();
        }
        let program = start(command(&site, again, &["--data-only"]));
        wait_until("rows", || waits_for_rows(server, again));
        let before = deadlocks(server);
        holder
            .query_drop(format!("INSERT INTO {again}.plain VALUES (1)"))
            .expect("the other is the victim");
        assert!(deadlocks(server) > before);
        wait_until("rows", || waits_for_rows(server, again));
        holder.query_drop("ROLLBACK").unwrap();
        program.finish(RUN_BOUND).expect_code(0);
        assert_eq!(super::rows(server, &format!("{again}.plain")), 2);
    }
}

/// Whether a session in `database` waits for rows that another one has locked.
fn waits_for_rows(server: &Server, database: &str) -> bool {
    // Asked more often, the server says the same again and again.
    thread::sleep(Duration::from_millis(200));
    let waiting: Option<u8> = server
        .connect()
        .query_first(format!(
            "SELECT 1 FROM information_schema.INNODB_TRX t \
             JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
             WHERE t.trx_state = 'LOCK WAIT' AND p.DB = '{database}'"
        ))
        .unwrap();
    waiting.is_some()
}

/// How many deadlocks the server has ended.
fn deadlocks(server: &Server) -> u64 {
    let query = if server.kind().is_mysql() {
        "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'lock_deadlocks'"
    } else {
        "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_deadlocks'"
    };
    server.connect().query_first(query).unwrap().unwrap()
}

fn one_table(server: &Server, database: &str) -> Site {
    server.create_database(database);
    server.execute(&[
        &format!("CREATE TABLE {database}.plain (id INT PRIMARY KEY)"),
        &format!("INSERT INTO {database}.plain VALUES (1), (2)"),
    ]);
    let lists = Lists {
        local: vec!["plain"],
        ..Lists::default()
    };
    let site = Site::new(server, database, &lists);
    site.backup_ok(&["--progress", "none"]);
    site
}

#[test]
fn an_interrupt_ends_a_restore_that_waits_for_a_lock() {
    for server in Kind::ALL.into_iter().filter_map(shared) {
        let site = one_table(server, "rest_wait");
        interrupt_while_waiting(server, &site, &[]);
    }
}

#[test]
fn an_interrupt_ends_a_restore_that_waits_for_a_lock_over_tls() {
    let port = format!("--port={}", free_port());
    let Some(server) = Server::start_kind(Kind::MySql9, &[&port]) else {
        return;
    };
    let site = one_table(&server, "rest_wait");
    let password = server.create_user("secure", &["ALL ON *.*"]);
    server.execute(&["GRANT SET_ANY_DEFINER ON *.* TO secure"]);
    let file = site.write_private("secure", &password);
    let ca = server.ca();
    let site = site.connect_by(&[
        "--host=127.0.0.1",
        &port,
        "--user=secure",
        &format!("--password-file={}", file.display()),
        "--ssl-mode=verify-ca",
        &format!("--ssl-ca={}", ca.display()),
    ]);
    interrupt_while_waiting(&server, &site, &[]);
}

/// The scheduler drops a one-shot event that is created after its time: the server's way, and
/// no difference.
#[test]
fn an_event_whose_time_is_over_is_a_warning_where_the_scheduler_runs() {
    let Some(server) = shared(Kind::MySql9) else {
        return;
    };
    server.create_database("rest_over");
    server.execute(&[
        "CREATE EVENT rest_over.once ON SCHEDULE AT now() + INTERVAL 3 SECOND DO DO 1",
        "CREATE EVENT rest_over.daily ON SCHEDULE EVERY 1 DAY DO DO 1",
    ]);
    let site = Site::new(server, "rest_over", &Lists::default());
    site.backup_ok(&["--progress", "none"]);
    let events = |database: &str| -> Vec<String> {
        let query = format!(
            "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = '{database}' ORDER BY 1"
        );
        server.connect().query(query).unwrap()
    };
    wait_until("the event to be over", || events("rest_over") == ["daily"]);
    server.execute(&["DROP DATABASE IF EXISTS rest_over_again"]);
    let host = site.host();
    run(site.restore_command(&[&host], "rest_over_again", &[]))
        .expect_code(0)
        .expect_said("event `once`");
    assert_eq!(events("rest_over_again"), ["daily"]);
}

/// What MariaDB and MySQL have in common goes from one to the other; what they have not is
/// refused by name, and nothing is written.
#[test]
fn across_products_what_is_portable_restores_and_the_rest_is_refused_by_name() {
    let (Some(maria), Some(mysql)) = (shared(Kind::MariaDb10), shared(Kind::MySql9)) else {
        return;
    };
    let lists = Lists {
        local: vec!["people", "orders"],
        ..Lists::default()
    };
    let common = "CREATE TABLE people (id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT, name VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, born DATE, score DOUBLE, picture BLOB) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
        INSERT INTO people (name, born, score, picture) VALUES ('Ünï', '1999-12-31', 0.1, X'00FF27'), (NULL, NULL, -1e300, ''), ('x''y', '2000-02-29', 3, NULL);
        CREATE TABLE orders (id INT PRIMARY KEY, person INT UNSIGNED, CONSTRAINT o_p FOREIGN KEY (person) REFERENCES people (id)) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
        INSERT INTO orders VALUES (1, 1), (2, NULL), (3, 3);";
    let pairs = [
        (maria, mysql, "CREATE TABLE only_here (u UUID, i INET6)"),
        (
            mysql,
            maria,
            "CREATE TABLE only_here (a INT, KEY f ((a + 1)))",
        ),
    ];
    for (from, to, foreign) in pairs {
        from.execute(&[
            "DROP DATABASE IF EXISTS rest_across",
            "CREATE DATABASE rest_across CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        ]);
        from.feed("rest_across", "tables of both products", common.as_bytes());
        let site = Site::new(from, "rest_across", &lists);
        site.backup_ok(&["--progress", "none"]);
        let site = site.connect_as(to, "rest_across", "root", ROOT_PASSWORD);
        to.execute(&["DROP DATABASE IF EXISTS rest_across_again"]);
        restore(&site, "rest_across_again", &[]).expect_code(0);
        let rows = |server: &Server, database: &str| -> Vec<String> {
            let query = format!(
                "SELECT concat_ws('|', id, hex(name), born, score, hex(picture)) FROM {database}.people UNION ALL SELECT concat_ws('|', id, person) FROM {database}.orders"
            );
            server.connect().query(query).unwrap()
        };
        assert_eq!(
            rows(from, "rest_across"),
            rows(to, "rest_across_again"),
            "{:?} to {:?}",
            from.kind(),
            to.kind()
        );

        from.feed("rest_across", "a table of one product", foreign.as_bytes());
        let site = site.connect_as(from, "rest_across", "root", ROOT_PASSWORD);
        site.backup_ok(&["--progress", "none"]);
        let site = site.connect_as(to, "rest_across", "root", ROOT_PASSWORD);
        to.execute(&["DROP DATABASE rest_across_again"]);
        restore(&site, "rest_across_again", &[])
            .expect_code(2)
            .expect_said("table `only_here` is not portable");
        let user_data = site.latest();
        let dirs: [&Path; 2] = [&site.host(), &user_data];
        let part = ["--tables", "people", "orders"];
        assert!(databases(to, "rest_across_again").is_empty());
        assert!(databases(to, "\\_schema\\_backup%").is_empty());
        run(site.restore_command(&dirs, "rest_across_again", &part)).expect_code(0);
        assert_eq!(
            rows(from, "rest_across"),
            rows(to, "rest_across_again"),
            "a part"
        );
    }
}
