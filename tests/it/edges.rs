//! The edges of chunks: for every kind of key, values of the kind that peers have lost rows
//! at, in chunks of a few rows. Their union must be the table, once: it is loaded with the
//! stock client, where a row that came twice would fail, and compared.

use std::fmt::Write as _;

use crate::compare::{assert_none, differences, fingerprint};
use crate::corpus::{back_up_in, load};
use crate::server::{Kind, on_each_kind, shared};
use crate::site::chunks;

/// A table: what to call it, its columns and keys without the filler, and the expressions
/// that make a row of number `i` (0 to 899).
type Keyed = (&'static str, &'static str, &'static str);

/// Keys for every server.
const COMMON: [Keyed; 27] = [
    (
        "composite",
        "a INT, b VARCHAR(20), c DATE, PRIMARY KEY (a, b, c)",
        "i % 3 - 1, ELT(1 + i % 4, 'x', 'y ', '', 'é'), DATE('2024-01-01') + INTERVAL i DAY",
    ),
    (
        "skewed",
        "a INT, b INT, PRIMARY KEY (a, b)",
        "IF(i < 800, 5, i), i",
    ),
    (
        "descending",
        "a INT, b INT, PRIMARY KEY (a DESC, b)",
        "i % 30, i",
    ),
    (
        "prefix_of_blob",
        "a INT, b VARBINARY(20), PRIMARY KEY (a, b)",
        "i % 7, CHAR(i % 256, i DIV 256, 0)",
    ),
    (
        "enum_alone",
        "e ENUM('z', 'a', 'm', 'b', '', 'y', 'c', 'x', '10', '9') NOT NULL, i INT, PRIMARY KEY (e, i)",
        "i % 11, i",
    ),
    (
        "enum_second",
        "a INT, e ENUM('z', 'a', 'm', 'b', 'A1', 'y', 'c', 'x', '10', '9') NOT NULL, PRIMARY KEY (a, e)",
        "i DIV 10, 1 + i % 10",
    ),
    (
        "set_second",
        "a INT, s SET('z', 'a', 'm', 'b') NOT NULL, PRIMARY KEY (a, s)",
        "i DIV 16, i % 16",
    ),
    (
        "decimals",
        "d DECIMAL(20,10) PRIMARY KEY",
        "(i - 450) * 1234567.0000000001 + IF(i % 2, 0.0000000001, 0)",
    ),
    (
        "long_decimals",
        "d DECIMAL(65,30) PRIMARY KEY",
        "CAST(i - 450 AS DECIMAL(65,30)) / 3 * 9999999999999999999999",
    ),
    (
        "floats",
        "f FLOAT PRIMARY KEY",
        "CASE WHEN i = 0 THEN 0 WHEN i % 2 THEN POW(1.1, i - 450) * 1.0000001 ELSE -POW(1.1, i - 450) END",
    ),
    (
        "doubles",
        "d DOUBLE PRIMARY KEY",
        "CASE WHEN i = 0 THEN -0e0 WHEN i = 1 THEN 5e-324 WHEN i = 2 THEN -5e-324 WHEN i = 3 THEN 1.7976931348623157e308 WHEN i % 2 THEN POW(1.5, i - 450) / 3 ELSE -POW(1.5, i - 450) / 7 END",
    ),
    (
        "adjacent_doubles",
        "d DOUBLE PRIMARY KEY",
        "1e0 + i * 2.220446049250313e-16",
    ),
    (
        "binaries",
        "b BINARY(8) PRIMARY KEY",
        "CONCAT(CHAR(i % 256), CHAR(i DIV 256), IF(i % 3, CHAR(92, 39, 0), ''))",
    ),
    (
        "varbinaries",
        "b VARBINARY(20) PRIMARY KEY",
        "CONCAT(CHAR(i % 256), REPEAT(CHAR(0), i DIV 256))",
    ),
    (
        "dates",
        "d DATE PRIMARY KEY",
        "CASE i WHEN 0 THEN '0000-00-00' WHEN 1 THEN '2024-00-00' WHEN 2 THEN '2024-02-30' WHEN 3 THEN '9999-12-31' WHEN 4 THEN '0000-01-01' ELSE DATE('2023-06-01') + INTERVAL i DAY END",
    ),
    (
        "datetimes",
        "d DATETIME(6) PRIMARY KEY",
        "CASE i WHEN 0 THEN '0000-00-00' WHEN 1 THEN '9999-12-31 23:59:59.999999' ELSE TIMESTAMP('2024-01-01') + INTERVAL i MICROSECOND END",
    ),
    (
        "timestamps",
        "t TIMESTAMP(3) NOT NULL DEFAULT '2024-01-01', PRIMARY KEY (t)",
        "CASE i WHEN 0 THEN '0000-00-00' WHEN 1 THEN '1970-01-01 00:00:01' WHEN 2 THEN '2038-01-19 03:14:07.999' ELSE TIMESTAMP('2024-10-27 00:30:00') + INTERVAL i * 7 SECOND END",
    ),
    (
        "times",
        "t TIME(3) PRIMARY KEY",
        "CASE i WHEN 0 THEN '-838:59:59' WHEN 1 THEN '838:59:59' WHEN 2 THEN '-00:00:00.001' ELSE SEC_TO_TIME((i - 450) * 1000.5) END",
    ),
    (
        "years",
        "y YEAR, i INT, PRIMARY KEY (y, i)",
        "IF(i % 256 = 0, 0, 1900 + i % 256), i",
    ),
    ("bits", "b BIT(40) PRIMARY KEY", "i * i * 1000003"),
    (
        "nullable",
        "k INT NULL, UNIQUE KEY (k)",
        "IF(i % 3 = 0, NULL, (i - 450) * 1000)",
    ),
    (
        "nullable_text",
        "k VARCHAR(20) NULL, UNIQUE KEY (k)",
        "IF(i % 3 = 0, NULL, CONCAT('k', i))",
    ),
    (
        "nullable_pair",
        "k INT NULL, l INT NULL, UNIQUE KEY (k, l)",
        "IF(i % 3 = 0, NULL, i DIV 4), IF(i % 5 = 0, NULL, i)",
    ),
    (
        "unsigned_64",
        "k BIGINT UNSIGNED PRIMARY KEY",
        "CASE WHEN i % 2 THEN 18446744073709551615 - i * 10000000000000000 ELSE 9223372036854775808 + i - 450 END",
    ),
    (
        "signed_64",
        "k BIGINT PRIMARY KEY",
        "CASE WHEN i % 3 = 0 THEN -9223372036854775808 + i WHEN i % 3 = 1 THEN 9223372036854775807 - i ELSE i - 450 END",
    ),
    (
        "sparse",
        "k INT PRIMARY KEY",
        "CASE WHEN i < 400 THEN i WHEN i < 800 THEN 2147483647 - i ELSE -2147483648 + i * i END",
    ),
    (
        "set_first",
        "s SET('a','b','c','d','e','f','g','h','i','j') NOT NULL PRIMARY KEY",
        "i",
    ),
];

const MARIADB: [Keyed; 3] = [
    (
        "uuids",
        "u UUID PRIMARY KEY",
        "CONCAT(LEFT(MD5(i), 8), '-aaaa-4aaa-8aaa-', RIGHT(MD5(i), 12))",
    ),
    (
        "inet4s",
        "a INET4 PRIMARY KEY",
        "CONCAT(i % 256, '.', i DIV 256, '.0.', i % 7)",
    ),
    (
        "inet6s",
        "a INET6 PRIMARY KEY",
        "CONCAT(HEX(i * 70), '::', HEX(i % 16))",
    ),
];

/// Collations of texts that are keys: of all servers, of MariaDB, of MySQL.
const COLLATIONS: [&str; 9] = [
    "utf8mb4_general_ci",
    "utf8mb4_unicode_ci",
    "utf8mb4_bin",
    "utf8mb4_spanish2_ci",
    "latin1_german2_ci",
    "cp1251_bulgarian_ci",
    "gbk_chinese_ci",
    "sjis_japanese_ci",
    "utf16_unicode_ci",
];
const MARIADB_COLLATIONS: [&str; 3] = [
    "utf8mb4_unicode_520_nopad_ci",
    "utf8mb4_nopad_bin",
    "latin1_nopad_bin",
];
const MYSQL_COLLATIONS: [&str; 4] = [
    "utf8mb4_0900_ai_ci",
    "utf8mb4_0900_as_cs",
    "utf8mb4_0900_bin",
    "utf8mb4_ja_0900_as_cs_ks",
];

/// Parts of texts: in case, accents, contractions, ignorable characters and spaces at the end
/// they are equal to some collations and not to others.
const PARTS: [&str; 26] = [
    "", "a", "A", "ä", "ae", "á", "b", "ch", "cz", "ss", "ß", "ll", "n", "ñ", " ", "  ", "\t", "'",
    "\\", "\0", "%", "Ж", "ж", "中", "表", "z",
];

fn sql(kind: Kind) -> (String, Vec<(String, bool)>) {
    let mut sql = "SET NAMES utf8mb4; SET sql_mode='ALLOW_INVALID_DATES', time_zone='+00:00';\n\
                   CREATE TABLE numbers (i INT PRIMARY KEY);\nINSERT INTO numbers VALUES (0)"
        .to_owned();
    (1..900).for_each(|i| write!(sql, ",({i})").unwrap());
    sql.push_str(";\n");
    let mut tables = Vec::new();
    let own: &[Keyed] = if kind.is_mysql() { &[] } else { &MARIADB };
    for (name, columns, values) in COMMON.iter().chain(own) {
        writeln!(
            sql,
            "CREATE TABLE {name} (filler CHAR(50), {columns});\n\
             INSERT IGNORE INTO {name} SELECT REPEAT('x', 40), {values} FROM numbers ORDER BY i;"
        )
        .unwrap();
        let whole = *name == "set_first" || (*name == "descending" && !kind.is_mysql());
        tables.push(((*name).to_owned(), !whole));
    }
    let more: &[&str] = if kind.is_mysql() {
        &MYSQL_COLLATIONS
    } else {
        &MARIADB_COLLATIONS
    };
    for collation in COLLATIONS.iter().chain(more) {
        let charset = collation.split('_').next().unwrap();
        let name = format!("in_{collation}");
        writeln!(
            sql,
            "CREATE TABLE {name} (filler CHAR(50), k VARCHAR(30) CHARACTER SET {charset} COLLATE {collation}, PRIMARY KEY (k));"
        )
        .unwrap();
        let hex = |text: &str| text.bytes().map(|b| format!("{b:02X}")).collect::<String>();
        for first in PARTS {
            let rows: Vec<_> = PARTS
                .iter()
                .map(|second| {
                    format!(
                        "('{}', CONVERT(_utf8mb4 X'{}' USING {charset}))",
                        "x".repeat(40),
                        hex(&format!("{first}{second}"))
                    )
                })
                .collect();
            writeln!(sql, "INSERT IGNORE INTO {name} VALUES {};", rows.join(",")).unwrap();
        }
        tables.push((name, true));
    }
    (sql, tables)
}

on_each_kind!(union_is_the_table_once);

fn union_is_the_table_once(kind: Kind) {
    let Some(server) = shared(kind) else { return };
    let (sql, tables) = sql(kind);
    server.create_database("edges");
    server.feed("edges", "the tables", sql.as_bytes());
    let site = back_up_in(server, "edges", "700");
    let mut failures = Vec::new();
    for (name, split) in &tables {
        let data = if site.host().join(format!("data/{name}.00001.sql")).exists() {
            site.host()
        } else {
            site.latest()
        };
        let chunks = chunks(&data, name);
        if (chunks > 10) != *split {
            failures.push(format!("{name}: {chunks} chunks"));
        }
    }
    failures.extend(load(server, "edges_again", &site));
    let (expected, found) = (
        fingerprint(server, "edges"),
        fingerprint(server, "edges_again"),
    );
    failures.extend(differences(&expected, &found));
    assert_none(kind, &failures);
}
