//! The text protocol and the binary one: values are the same by either, a server that prepares no
//! more statements is read by text, and none stays prepared.

use std::fs;

use mysql::prelude::Queryable;

use crate::compare::{assert_same, fingerprint};
use crate::connections::{certificates, start_secure};
use crate::server::{Kind, Server};
use crate::site::{Lists, Site, run};

/// Without FLOAT, DOUBLE and whole numbers with ZEROFILL, which are spelt differently.
const MORE: &str = "
CREATE TABLE numbers (id INT PRIMARY KEY, t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, su SMALLINT UNSIGNED,
  m MEDIUMINT, mu MEDIUMINT UNSIGNED, i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED, d DECIMAL(30,8),
  z DECIMAL(10,2) ZEROFILL);
INSERT INTO numbers VALUES
  (1, -128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295, -9223372036854775808,
   18446744073709551615, '-0.00000001', 1.5),
  (2, 127, 0, 32767, 0, 8388607, 0, 2147483647, 0, 9223372036854775807, 0, '1234567890123456789012.5', 0),
  (3, -1, 1, -10, 10, -100, 100, -99999999, 99999999, -100000000, 100000000, 0, 99999999.99),
  (4, NULL, 9, NULL, 99, NULL, 999, NULL, 9999, NULL, 12345678901, NULL, NULL);
CREATE TABLE strings (a VARCHAR(300), n INT, c CHAR(20), x VARBINARY(300), e ENUM('x','y'), k INT, s SET('p','q'),
  f BIT(9), j JSON, t LONGTEXT);
INSERT INTO strings VALUES
  ('', 1, 'pad ', X'00FF275C', 'x', 7, 'p,q', b'100000001', '[1]', 'it''s'),
  (repeat('v', 251), NULL, NULL, repeat('w', 300), NULL, NULL, '', 0, NULL, repeat('\\\\', 70000)),
  (NULL, 2, 'c', NULL, 'y', NULL, NULL, NULL, '{}', NULL);
";

/// MySQL has no such type any more.
const YEARS: &str = "
CREATE TABLE years (id INT PRIMARY KEY, y YEAR(2), f YEAR(4));
INSERT INTO years VALUES (1, 0, 0), (2, 5, 1901), (3, 69, 2155), (4, 70, 2000), (5, NULL, NULL);
";

/// The lines with rows in a plain file of a table.
fn rows(site: &Site, table: &str) -> Vec<String> {
    let file = site.latest().join(format!("data/{table}.00001.sql"));
    let text = fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let rows = text.lines().filter(|line| line.starts_with('('));
    rows.map(|row| row.trim_end_matches([',', ';']).to_owned())
        .collect()
}

/// Statements that were executed after they had been prepared.
fn executed(server: &Server) -> u64 {
    let status: Option<(String, u64)> = server
        .connect()
        .query_first("SHOW GLOBAL STATUS LIKE 'Com_stmt_execute'")
        .unwrap();
    status.unwrap().1
}

/// A table with a DOUBLE is read in binary, one of a few rows without it as text.
#[test]
fn values_are_the_same_by_either_protocol() {
    for kind in Kind::ALL {
        let Some(server) = Server::start_kind(kind, &[]) else {
            continue;
        };
        let database = "protocols";
        server.create_database(database);
        server.feed(database, "times", include_bytes!("corpus/times.sql"));
        server.feed(database, "more", MORE.as_bytes());
        let mut tables = vec!["times", "numbers", "strings"];
        if !kind.is_mysql() {
            server.feed(database, "years", YEARS.as_bytes());
            tables.push("years");
        }
        let mut conn = server.connect();
        conn.query_drop(format!("USE {database}")).unwrap();
        conn.query_drop("SET sql_mode='ALLOW_INVALID_DATES'")
            .unwrap();
        for table in &tables {
            for statement in [
                format!("CREATE TABLE {table}_2 LIKE {table}"),
                format!("ALTER TABLE {table}_2 ADD z_2 DOUBLE NOT NULL"),
                format!("INSERT INTO {table}_2 SELECT *, 7 FROM {table}"),
            ] {
                conn.query_drop(statement).unwrap();
            }
        }
        let twice: Vec<_> = tables.iter().map(|table| format!("{table}_2")).collect();
        let lists = Lists {
            local: tables
                .iter()
                .copied()
                .chain(twice.iter().map(String::as_str))
                .collect(),
            ..Lists::default()
        };
        let site = Site::new(&server, database, &lists);
        let before = executed(&server);
        site.backup_ok(&["--compress", "none"]);
        assert_eq!(executed(&server), before + twice.len() as u64, "{kind:?}");
        for table in tables {
            let by_text = rows(&site, table);
            let by_statement = rows(&site, &format!("{table}_2"));
            assert!(by_text.len() >= 3);
            let expected: Vec<_> = by_text
                .iter()
                .map(|row| format!("{},7)", row.strip_suffix(')').unwrap()))
                .collect();
            assert_eq!(by_statement, expected, "{kind:?}: {table}");
        }
    }
}

const MANY: &[u8] = b"
CREATE TABLE whole (id INT PRIMARY KEY, a BIGINT NOT NULL, b VARCHAR(20));
INSERT INTO whole SELECT seq, seq * 1000003, concat('row ', seq) FROM seq_1_to_40000;
CREATE TABLE doubles (id INT PRIMARY KEY, d DOUBLE NOT NULL);
INSERT INTO doubles SELECT seq, seq / 7 FROM seq_1_to_40000;
ANALYZE TABLE whole, doubles;
";

fn lists(tables: &[&'static str]) -> Lists<'static> {
    Lists {
        local: tables.to_vec(),
        ..Lists::default()
    }
}

#[test]
fn where_no_more_statements_are_prepared_text_is_read_or_the_run_says_why_not() {
    let Some(server) = Server::start(&["--max-prepared-stmt-count=0"]) else {
        return;
    };
    server.create_database("prepared");
    server.feed("prepared", "the tables", MANY);
    server.execute(&["DROP TABLE prepared.doubles"]);
    let chunks = ["--chunk-size", "256K"];
    let site = Site::new(&server, "prepared", &lists(&["whole"]));
    let before = executed(&server);
    site.backup_ok(&chunks);
    assert_eq!(executed(&server), before);
    let (host, latest) = (site.host(), site.latest());
    run(site.restore_command(&[&host, &latest], "again", &[])).expect_code(0);
    server.execute(&["SET GLOBAL max_prepared_stmt_count=100"]);
    assert_same(
        &fingerprint(&server, "prepared"),
        &fingerprint(&server, "again"),
    );
    // Read in binary, it is the same.
    let by_text = tables(&site);
    let other = Site::new(&server, "prepared", &lists(&["whole"]));
    let before = executed(&server);
    other.backup_ok(&chunks);
    assert!(executed(&server) > before + 2);
    assert!(tables(&other) == by_text);

    // As text, a DOUBLE would be spelt otherwise, and every file of it be another one.
    server.feed(
        "prepared",
        "a double",
        b"CREATE TABLE doubles (d DOUBLE); INSERT INTO doubles VALUES (1);",
    );
    server.execute(&["SET GLOBAL max_prepared_stmt_count=0"]);
    let doubles = Site::new(&server, "prepared", &lists(&["whole", "doubles"]));
    doubles
        .backup(&[])
        .expect_code(3)
        .expect_said("`doubles`")
        .expect_said("raise max_prepared_stmt_count");
}

/// What is saved of the tables' rows.
fn tables(site: &Site) -> Vec<(String, Vec<u8>)> {
    let files = crate::site::contents(&site.latest().join("data"));
    assert!(files.len() > 2);
    files.into_iter().collect()
}

#[test]
fn no_statement_stays_prepared_over_tls() {
    let certificates = certificates();
    let Some(server) = start_secure(&certificates, &["--max-prepared-stmt-count=2"]) else {
        return;
    };
    server.create_database("kept");
    server.feed("kept", "the tables", MANY);
    let password = server.create_user("secure", &["ALL ON *.*"]);
    server.execute(&["ALTER USER secure REQUIRE SSL"]);
    let site = Site::offline(&lists(&["whole", "doubles"]));
    let password_file = site.write_private("password", &password);
    let flags = [
        "--host=127.0.0.1".to_owned(),
        format!("--port={}", server.port.unwrap()),
        "--user=secure".to_owned(),
        "--database=kept".to_owned(),
        format!("--password-file={}", password_file.display()),
        "--ssl-mode=required".to_owned(),
    ];
    let site = site.connect_by(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    site.backup_ok(&["-j", "2", "--chunk-size", "128K"]);
    assert!(crate::site::chunks(&site.latest(), "doubles") > 3);
}
