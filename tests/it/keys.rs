//! What is asked of the server about many small tables. MariaDB opens a table to say how large it is,
//! what it counts and how its keys are sorted: it is asked once, and only where that matters; and the
//! same table gives the same bytes whether it was asked or not.

use std::path::Path;

use mysql::prelude::Queryable;

use crate::compare::{assert_none, differences, fingerprint, read_sql};
use crate::corpus::{back_up_in, load};
use crate::server::{Kind, Server, on_each_kind};
use crate::site::chunks;

/// Small tables with a primary key.
const PLAIN: usize = 40;

/// A table: its name, columns and keys, engine, the key's value for the row `n`, and whether MariaDB
/// is asked how its keys are sorted.
type Keyed = (&'static str, &'static str, &'static str, &'static str, bool);

const OTHERS: [Keyed; 8] = [
    ("large", "k INT PRIMARY KEY", "InnoDB", "n", true),
    (
        "by_prefix",
        "k VARCHAR(20), PRIMARY KEY (k(5))",
        "InnoDB",
        "n",
        true,
    ),
    (
        "only_unique",
        "k INT NOT NULL, UNIQUE KEY (k)",
        "InnoDB",
        "5000 - n",
        true,
    ),
    (
        "by_hash",
        "k INT, PRIMARY KEY (k) USING HASH",
        "MEMORY",
        "5000 - n",
        true,
    ),
    (
        "downwards",
        "k INT, a INT DEFAULT 7, PRIMARY KEY (k DESC, a)",
        "InnoDB",
        "n",
        false,
    ),
    ("in_parts", "k INT PRIMARY KEY", "InnoDB", "n", true),
    (
        "counts",
        "k INT AUTO_INCREMENT PRIMARY KEY",
        "InnoDB",
        "n",
        false,
    ),
    ("no_key", "k INT, KEY (k)", "InnoDB", "5000 - n", false),
];

/// The same for MariaDB only.
const MARIADB: [Keyed; 2] = [
    (
        "unique_text",
        "k VARCHAR(600) NOT NULL, u TEXT, UNIQUE KEY (u)",
        "InnoDB",
        "n",
        true,
    ),
    (
        "ignored",
        "k INT, UNIQUE KEY u (k) IGNORED",
        "InnoDB",
        "n",
        true,
    ),
];

/// The statement that makes and fills them.
fn tables(of: &[Keyed]) -> String {
    let mut sql = String::new();
    for (name, columns, engine, value, _) in of {
        let rows = if *name == "large" { 1500 } else { 9 };
        let row = |n: i32| format!("({}, REPEAT('v', 900))", value.replace('n', &n.to_string()));
        let rows: Vec<_> = (1..=rows).map(row).collect();
        let parts = if *name == "in_parts" {
            " PARTITION BY HASH (k) PARTITIONS 3"
        } else {
            ""
        };
        sql.push_str(&format!(
            "CREATE TABLE {name} ({columns}, v VARCHAR(1000)) ENGINE={engine}{parts};
             INSERT INTO {name} (k, v) VALUES {}; ANALYZE TABLE {name};\n",
            rows.join(", ")
        ));
    }
    sql
}

on_each_kind!(only_keys_of_large_or_peculiar_tables_are_asked_for_in_full);

fn only_keys_of_large_or_peculiar_tables_are_asked_for_in_full(kind: Kind) {
    let Some(server) = Server::start_with_log(kind) else {
        return;
    };
    let mut seen = 0;
    // Queries since the last look.
    let mut queries = |about: &str| -> Vec<String> {
        let log = server.query_log();
        let new = log[seen..].lines();
        seen = log.len();
        let all = new.filter(|line| line.contains("information_schema"));
        all.filter(|line| line.contains(about))
            .map(str::to_owned)
            .collect()
    };
    let mut sql = String::new();
    for n in 0..PLAIN {
        sql.push_str(&format!(
            "CREATE TABLE plain_{n} (k INT PRIMARY KEY) ENGINE=InnoDB;
             INSERT INTO plain_{n} VALUES ({n}), (700);\n"
        ));
    }
    let others = if kind.is_mysql() {
        OTHERS.to_vec()
    } else {
        [&OTHERS[..], &MARIADB[..]].concat()
    };
    sql.push_str(&tables(&others));
    server.create_database("asked");
    server.feed("asked", "the tables", sql.as_bytes());
    let mut failures = Vec::new();

    let site = back_up_in(&server, "asked", "256K");
    let asked = queries("");
    let about =
        |what: &str| -> Vec<&String> { asked.iter().filter(|q| q.contains(what)).collect() };
    for what in ["INDEX_TYPE", "TABLE_ROWS", "AUTO_INCREMENT"] {
        let times = about(what).len();
        if times != 1 {
            failures.push(format!("{what} is asked for {times} times"));
        }
    }
    let names = |what: &str, name: &str| {
        about(what)
            .iter()
            .any(|query| query.contains(&format!("'{name}'")))
    };
    if names("AUTO_INCREMENT", "plain_1") || !names("AUTO_INCREMENT", "counts") {
        failures.push("of AUTO_INCREMENT other tables are asked than those that count".into());
    }
    for (name, .., expected) in &others {
        if !kind.is_mysql() && names("INDEX_TYPE", name) != *expected {
            failures.push(format!("{name}: asked for in full: {}", !expected));
        }
        let found = chunks(&site.host(), name).max(chunks(&site.latest(), name));
        if (found > 1) != (*name == "large") || found == 0 {
            failures.push(format!("{name}: {found} chunks"));
        }
    }
    failures.extend(load(&server, "asked_again", &site));
    let expected = fingerprint(&server, "asked");
    failures.extend(differences(&expected, &fingerprint(&server, "asked_again")));

    // Where there are few others, all are asked in full.
    server.create_database("few");
    server.feed("few", "the tables", tables(&others).as_bytes());
    let few = back_up_in(&server, "few", "256K");
    if !queries("INDEX_TYPE")
        .iter()
        .any(|query| !query.contains(" IN ("))
    {
        failures.push("few tables are not asked for all at once".into());
    }
    for (name, ..) in others.iter().filter(|(name, ..)| *name != "large") {
        let (one, other) = (
            rows_in(&site.host(), &site.latest(), name),
            rows_in(&few.host(), &few.latest(), name),
        );
        if one.is_empty() || one != other {
            failures.push(format!("{name}: other bytes where it is asked for in full"));
        }
    }

    // As they are stored, and through all partitions in order.
    for (name, first) in [("downwards", "(9,"), ("in_parts", "(1,"), ("large", "(1,")] {
        let rows = rows_in(&site.host(), &site.latest(), name);
        let rows = String::from_utf8_lossy(&rows).into_owned();
        let row = rows
            .split_once("VALUES")
            .map_or("", |(_, rows)| rows.trim_start());
        if !row.starts_with(first) {
            failures.push(format!("{name} begins with {row:.20}"));
        }
    }

    // What was split before may be split again, however small it seems to be.
    let mut connection = server.connect();
    connection
        .query_drop("DELETE FROM asked.large WHERE k > 9")
        .unwrap();
    connection.query_drop("OPTIMIZE TABLE asked.large").unwrap();
    queries("");
    site.backup_ok(&["--chunk-size", "256K", "--progress", "none"]);
    if !kind.is_mysql()
        && !queries("INDEX_TYPE")
            .iter()
            .any(|query| query.contains("'large'"))
    {
        failures.push("a table that was split is not asked for in full".into());
    }
    assert_none(kind, &failures);
}

/// The statements with a table's rows, wherever they are and however they are stored.
fn rows_in(host: &Path, user: &Path, table: &str) -> Vec<u8> {
    let names = [host, user].map(|dir| {
        let file = dir.join(format!("data/{table}.00001.sql"));
        [file.with_extension("sql.zst"), file]
    });
    let file = names.iter().flatten().find(|file| file.exists());
    let text = file.map(|file| read_sql(file)).unwrap_or_default();
    let begin = text.windows(7).position(|w| w == b"INSERT ");
    begin.map_or(Vec::new(), |begin| text[begin..].to_vec())
}
