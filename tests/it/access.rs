//! How the server finds the rows of a chunk: through the index of the key that splits the
//! table, or else each chunk of a large table would read all of it. Asked of the server
//! (`EXPLAIN`) about the very queries that it was sent, for a table with each kind of key.

use mysql::prelude::Queryable;

use crate::compare::assert_none;
use crate::server::{Kind, Server, on_each_kind};
use crate::site::{Lists, Site, chunks};

const DATABASE: &str = "access";

/// Rows in most tables.
const ROWS: usize = 200;

/// Chunks that such a table has at least: its rows take 200 KB, a chunk 4 KiB.
const MANY: usize = 12;

/// Whose dialect a table is in.
#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    Both,
    MariaDb,
    MySql,
}

/// How a key is expected to be used.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// Split, and each chunk found through the index.
    Split,
    /// Read in one piece.
    Whole,
}

use Dialect::{Both, MariaDb, MySql};
use Use::{Split, Whole};

/// Tables: whose, how its key is used, name, key columns and keys, and the values of the key
/// columns for the number `n` of a row.
const TABLES: &[(Dialect, Use, &str, &str, &str)] = &[
    (
        Both,
        Split,
        "composite",
        "a INT, b VARCHAR(10), c DATE, PRIMARY KEY (a, b, c)",
        "n DIV 40, CONCAT('k', n DIV 3 % 4), DATE_ADD('2020-01-01', INTERVAL n DAY)",
    ),
    (
        Both,
        Split,
        "one_lead",
        "a INT, b BIGINT, PRIMARY KEY (a, b)",
        "7, n * 1000000007",
    ),
    (
        MySql,
        Split,
        "downwards",
        "a INT, b INT, PRIMARY KEY (a DESC, b)",
        "n DIV 10, n",
    ),
    // MariaDB misses rows between the bounds of keys with descending parts.
    (
        MariaDb,
        Whole,
        "downwards",
        "a INT, b INT, PRIMARY KEY (a DESC, b)",
        "n DIV 10, n",
    ),
    (
        MariaDb,
        Split,
        "downwards_or_by_another",
        "a INT, b INT NOT NULL, PRIMARY KEY (a DESC), UNIQUE KEY (b)",
        "n, n",
    ),
    (
        MariaDb,
        Split,
        "downwards_or_by_nullable",
        "a INT, b INT, PRIMARY KEY (a DESC), UNIQUE KEY (b)",
        "n, n",
    ),
    (
        Both,
        Split,
        "any_case",
        "s VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY",
        "IF(n % 2, CONCAT(CHAR(97 + n % 26), n), CONCAT(CHAR(65 + n % 26), 'Z', n, '  '))",
    ),
    (
        Both,
        Split,
        "any_accent",
        "s VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci PRIMARY KEY",
        "CONCAT(ELT(1 + n % 8, 'e', 'É', 'ê', 'ß', 'ss', 'SSa', '', '😀'), n, ELT(1 + n % 3, 'ü', 'U', 'Ù '))",
    ),
    (
        Both,
        Split,
        "equal_texts",
        "s VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci, b INT, PRIMARY KEY (s, b)",
        "ELT(1 + n % 9, 'e', 'É', 'é', 'E  ', 'ß', 'ss', 'sS ', '', ' '), n",
    ),
    (
        Both,
        Split,
        "german",
        "s CHAR(20) CHARACTER SET latin1 COLLATE latin1_german2_ci, b INT, PRIMARY KEY (s, b)",
        "ELT(1 + n % 6, 'ae', 'ä', 'Ä ', 'ß', 'ss', 'z'), n",
    ),
    (
        Both,
        Split,
        "bytes_of_text",
        "s VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY",
        "CONCAT(ELT(1 + n % 5, 'a', 'A', 'é', '漢', '😀'), '\\\\', n, '''')",
    ),
    (
        MariaDb,
        Split,
        "no_pad",
        "s VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_nopad_ci PRIMARY KEY",
        "CONCAT('x', n DIV 5, REPEAT(' ', n % 5))",
    ),
    (
        MariaDb,
        Split,
        "no_pad_bytes",
        "s VARCHAR(30) CHARACTER SET latin1 COLLATE latin1_nopad_bin PRIMARY KEY",
        "CONCAT('x', n DIV 5, ELT(1 + n % 5, '', ' ', '\\t', '!', ' !'))",
    ),
    (
        MySql,
        Split,
        "no_pad",
        "s VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci PRIMARY KEY",
        "CONCAT('x', n DIV 5, REPEAT(' ', n % 5))",
    ),
    (
        Both,
        Split,
        "padded",
        "s VARCHAR(30) CHARACTER SET latin1 COLLATE latin1_bin PRIMARY KEY",
        "CONCAT('x', n DIV 4, ELT(1 + n % 4, ' ', '\\t', '!', ' !'))",
    ),
    (
        Both,
        Split,
        "two_bytes",
        "s VARCHAR(30) CHARACTER SET gbk PRIMARY KEY",
        "CONCAT(ELT(1 + n % 4, '漢', '表', 'a', '乗'), n)",
    ),
    (
        Both,
        Split,
        "wide_text",
        "s VARCHAR(30) CHARACTER SET utf16 PRIMARY KEY",
        "CONCAT(ELT(1 + n % 3, '漢', '😀', 'a'), n)",
    ),
    (
        Both,
        Split,
        "bytes",
        "s VARBINARY(20) PRIMARY KEY",
        "CONCAT(UNHEX(LPAD(HEX(n * 323 % 65536), 4, '0')), REPEAT('\\0', n % 3), REPEAT(' ', n % 2))",
    ),
    (
        Both,
        Split,
        "fixed_bytes",
        "s BINARY(6) PRIMARY KEY",
        "UNHEX(LPAD(HEX(n * 323), 4, '0'))",
    ),
    (
        Both,
        Split,
        "enum_first",
        "e ENUM('z', 'a', 'm', '', '10', '2') NOT NULL, b INT NOT NULL, PRIMARY KEY (e, b)",
        "n % 7, n",
    ),
    (
        Both,
        Split,
        "enum_first_of_one",
        "e ENUM('only') NOT NULL, b INT NOT NULL, PRIMARY KEY (e, b)",
        "1, n",
    ),
    (
        Both,
        Split,
        "enum_second",
        "a INT, e ENUM('z', 'a', 'm', 'b') NOT NULL, PRIMARY KEY (a, e)",
        "n DIV 4, 1 + n % 4",
    ),
    (
        Both,
        Split,
        "enum_alone",
        "e ENUM({members}) NOT NULL PRIMARY KEY",
        "n",
    ),
    (
        Both,
        Split,
        "enum_or_null",
        "e ENUM({members}) NULL, UNIQUE KEY (e)",
        "IF(n % 5 = 0, NULL, n)",
    ),
    // Split by its first column only, which has few values: a SET is no bound.
    (
        Both,
        Whole,
        "set_second",
        "a INT, s SET({flags}) NOT NULL, PRIMARY KEY (a, s)",
        "n DIV 50, ((n % 50) << 57) | (n % 2)",
    ),
    // Its numbers are looked up one by one only, and are too many to name.
    (
        Both,
        Whole,
        "set_first",
        "s SET({flags}) NOT NULL PRIMARY KEY",
        "n * 7",
    ),
    (
        Both,
        Split,
        "decimals",
        "d DECIMAL(65,30) PRIMARY KEY",
        "CAST((n - 100) * 12345678901234567890.000000000000000000000000000001 AS DECIMAL(65,30))",
    ),
    (
        Both,
        Split,
        "floats",
        "f FLOAT, b INT, PRIMARY KEY (f, b)",
        "IF(n % 10 = 0, -0e0, (n - 100) * 0.1e0), n",
    ),
    (
        Both,
        Split,
        "tiny_floats",
        "f FLOAT PRIMARY KEY",
        "(n - 100) * 1.401298464324817e-45",
    ),
    // MySQL finds a value at the limit of such a column above itself.
    (
        Both,
        Whole,
        "rounded_floats",
        "f FLOAT(9,3) PRIMARY KEY",
        "(n - 100) * 0.007e0",
    ),
    (
        Both,
        Split,
        "doubles",
        "d DOUBLE PRIMARY KEY",
        "CASE n WHEN 1 THEN 1.7976931348623157e308 WHEN 2 THEN -1.7976931348623157e308 WHEN 3 THEN 5e-324 WHEN 4 THEN -0e0 ELSE (n - 100.5) / 3e0 END",
    ),
    (
        Both,
        Split,
        "dates",
        "d DATE PRIMARY KEY",
        "CASE n WHEN 1 THEN '0000-00-00' WHEN 2 THEN '9999-12-31' WHEN 3 THEN '2024-00-00' WHEN 4 THEN '2024-02-30' ELSE DATE_ADD('2024-01-01', INTERVAL n DAY) END",
    ),
    (
        Both,
        Split,
        "datetimes",
        "d DATETIME(6) PRIMARY KEY",
        "CASE n WHEN 1 THEN '0000-00-00 00:00:00' WHEN 2 THEN '9999-12-31 23:59:59.999999' ELSE DATE_ADD('2024-03-31 00:00:00', INTERVAL n * 60000001 MICROSECOND) END",
    ),
    (
        Both,
        Split,
        "timestamps",
        "t TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) PRIMARY KEY",
        "CASE n WHEN 1 THEN '0000-00-00 00:00:00' WHEN 2 THEN '2038-01-19 03:14:07.999' ELSE DATE_ADD('2024-10-27 00:00:00', INTERVAL n * 60001000 MICROSECOND) END",
    ),
    (
        Both,
        Split,
        "times",
        "t TIME(6) PRIMARY KEY",
        "CASE n WHEN 1 THEN '-838:59:59' WHEN 2 THEN '838:59:59' WHEN 3 THEN '-00:00:00.000001' ELSE SEC_TO_TIME((n - 100) * 3601.5) END",
    ),
    (
        Both,
        Split,
        "years",
        "y YEAR PRIMARY KEY",
        "IF(n = 1, 0, 1901 + n)",
    ),
    (
        Both,
        Split,
        "maybe",
        "k INT NULL, UNIQUE KEY (k)",
        "IF(n % 3 = 0, NULL, n - 100)",
    ),
    (
        Both,
        Split,
        "maybe_text",
        "k VARCHAR(20) NULL, UNIQUE KEY (k)",
        "IF(n % 3 = 0, NULL, IF(n = 1, '', IF(n = 2, 'NULL', CONCAT('K', n))))",
    ),
    (
        Both,
        Split,
        "unsigned_64",
        "k BIGINT UNSIGNED PRIMARY KEY",
        "IF(n <= 100, n - 1, 18446744073709551615 - (n - 101))",
    ),
    (
        Both,
        Split,
        "signed_64",
        "k BIGINT PRIMARY KEY",
        "CASE WHEN n <= 100 THEN -9223372036854775808 + (n - 1) ELSE 9223372036854775807 - (n - 101) END",
    ),
    (
        Both,
        Split,
        "sparse",
        "k INT PRIMARY KEY",
        "(n - 100) * (n - 100) * (n - 100) * 2000 + n",
    ),
    (
        Both,
        Split,
        "bits",
        "k BIT(64) PRIMARY KEY",
        "IF(n % 2, n, (1 << 63) + n)",
    ),
    (
        Both,
        Split,
        "zero_filled",
        "k INT(10) UNSIGNED ZEROFILL PRIMARY KEY",
        "n * 21474836",
    ),
    (Both, Split, "parts", "k INT PRIMARY KEY", "n"),
    (
        Both,
        Split,
        "many_parts_of_key",
        "a TINYINT, b CHAR(2), c FLOAT, d DECIMAL(5,2), e TIME, f VARBINARY(5), PRIMARY KEY (a, b, c, d, e, f)",
        "n % 2, CHAR(65 + n % 3), n % 5 * 0.1e0, n % 7 * 0.01, SEC_TO_TIME(n % 3), UNHEX(LPAD(HEX(n), 4, '0'))",
    ),
    (
        MariaDb,
        Split,
        "uuids",
        "k UUID PRIMARY KEY",
        "CONCAT(LEFT(MD5(n), 8), '-aaaa-', n % 9 + 1, 'aaa-8aaa-', RIGHT(MD5(n), 12))",
    ),
    (
        MariaDb,
        Split,
        "addresses_4",
        "k INET4 PRIMARY KEY",
        "INET_NTOA(n * 21474836)",
    ),
    (
        MariaDb,
        Split,
        "addresses_6",
        "k INET6 PRIMARY KEY",
        "CONCAT(HEX(n * 300), '::', HEX(n))",
    ),
];

/// What the definitions above say for short.
fn spelled_out(text: &str) -> String {
    let list = |count: usize, prefix: &str| {
        let names: Vec<_> = (1..=count).map(|n| format!("'{prefix}{n}'")).collect();
        names.join(", ")
    };
    text.replace("{members}", &list(ROWS, "m"))
        .replace("{flags}", &list(64, "f"))
}

fn of(
    kind: Kind,
) -> impl Iterator<Item = &'static (Dialect, Use, &'static str, &'static str, &'static str)> {
    TABLES.iter().filter(move |(dialect, ..)| match dialect {
        Both => true,
        MariaDb => !kind.is_mysql(),
        MySql => kind.is_mysql(),
    })
}

fn fill(server: &Server) {
    server.create_database(DATABASE);
    let numbers: Vec<_> = (1..=ROWS).map(|n| format!("({n})")).collect();
    let mut sql = format!(
        "SET NAMES utf8mb4; SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00';
         CREATE TABLE numbers (n INT PRIMARY KEY); INSERT INTO numbers VALUES {};\n",
        numbers.join(",")
    );
    for (_, _, name, columns, values) in of(server.kind()) {
        let partitions = if *name == "parts" {
            " PARTITION BY HASH (k) PARTITIONS 3"
        } else {
            ""
        };
        // The key stands last, so that a chunk's order is not that of its columns.
        sql.push_str(&spelled_out(&format!(
            "CREATE TABLE {name} (v VARCHAR(1000), {columns}){partitions};
             INSERT INTO {name} SELECT REPEAT('v', 1000), {values} FROM numbers;\n"
        )));
    }
    if !server.kind().is_mysql() {
        sql.push_str(
            "CREATE TABLE versions (v VARCHAR(1000), k INT PRIMARY KEY) WITH SYSTEM VERSIONING;
             INSERT INTO versions SELECT REPEAT('v', 1000), n FROM numbers;
             UPDATE versions SET v = REPEAT('w', 1000) WHERE k % 2;
             UPDATE versions SET v = REPEAT('x', 1000) WHERE k < 30; DELETE FROM versions WHERE k % 3 = 0;\n",
        );
    }
    server.feed(DATABASE, "the tables", sql.as_bytes());
}

/// The queries with both bounds that read chunks of `table`, as the server logged them.
fn chunk_queries(log: &str, table: &str) -> Vec<String> {
    let from = format!(" FROM `{table}` ");
    let queries = log.lines().filter_map(|line| {
        let query = &line[line.find("SELECT ")?..];
        let reads_rows = query.contains(&from)
            && query.contains(" WHERE ")
            && query.contains(" ORDER BY ")
            && !query.contains(" LIMIT ")
            && !query.contains("IS NULL")
            && query.contains("`v`,");
        reads_rows.then(|| query.to_owned())
    });
    queries.collect()
}

/// How the server finds the rows of a query.
fn access(connection: &mut mysql::Conn, query: &str) -> (String, Option<String>) {
    // MySQL's, which can also answer in one piece of text.
    connection
        .query_drop("SET SESSION explain_format = TRADITIONAL")
        .ok();
    let row: mysql::Row = connection
        .query_first(format!("EXPLAIN {query}"))
        .unwrap()
        .unwrap_or_else(|| panic!("no plan for {query}"));
    (row.get("type").unwrap(), row.get("key").unwrap())
}

on_each_kind!(chunks_are_found_through_the_index);

fn chunks_are_found_through_the_index(kind: Kind) {
    let Some(server) = Server::start_with_log(kind) else {
        return;
    };
    fill(&server);
    let mut tables: Vec<_> = of(kind).map(|(_, used, name, ..)| (*name, *used)).collect();
    if !kind.is_mysql() {
        tables.push(("versions", Split));
    }
    let lists = Lists {
        local: tables.iter().map(|(name, _)| *name).collect(),
        ignore: vec!["numbers"],
        ..Lists::default()
    };
    let site = Site::new(&server, DATABASE, &lists);
    site.backup_ok(&["--chunk-size", "4096", "-j", "3", "--progress", "none"]);

    let mut failures = Vec::new();
    let log = server.query_log();
    let mut connection = server.connect();
    connection.query_drop(format!("USE {DATABASE}")).unwrap();
    connection.query_drop("SET NAMES utf8mb4").unwrap();
    connection.query_drop("SET sql_mode = ''").unwrap();
    for (name, expected) in tables {
        let found = chunks(&site.latest(), name);
        let many = found >= MANY;
        if many != (expected != Whole) || found == 0 {
            failures.push(format!("{name} has {found} chunks"));
        }
        if expected != Split {
            continue;
        }
        let queries = chunk_queries(&log, name);
        if queries.len() + 2 < found {
            failures.push(format!(
                "{name}: {} queries for {found} chunks",
                queries.len()
            ));
        }
        let Some(query) = queries.get(queries.len() / 2) else {
            continue;
        };
        let (access, key) = access(&mut connection, query);
        if !["range", "ref", "const"].contains(&access.as_str()) || key.is_none() {
            failures.push(format!("{name}: access {access}, key {key:?}: {query}"));
        }
    }
    assert_none(kind, &failures);
}
