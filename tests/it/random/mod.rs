//! Random tables go there and back: whatever the server accepts is backed up, in chunks of a
//! few rows, and restored by the verb `restore`, and SQL finds no difference.
//!
//! Everything follows from one seed. It is printed before anything else, and taken from
//! `SCHEMA_BACKUP_SEED` where that is set. `SCHEMA_BACKUP_RANDOM_TABLES` says how many tables
//! there shall be on all servers together; many are made in rounds, each with a seed of its own.

mod tables;
mod types;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use mysql::prelude::Queryable;

use crate::compare::{differences, fingerprint};
use crate::server::{Kind, Server, shared};
use crate::site::{Lists, Site, json, run};
use tables::Table;
use types::{Charset, Palette, pick};

/// Tables on all servers together, unless told otherwise.
const TABLES: usize = 360;

/// The most tables of one round on one server.
const ROUND: usize = 150;

/// The seed of this run's first round: `SCHEMA_BACKUP_SEED`, a number or `random`. Without it the
/// same tables each time: what is not one's own doing is not for a gate to find.
fn seed() -> u64 {
    const USUAL: u64 = 18_440_276;
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("SCHEMA_BACKUP_SEED").as_deref() {
        Err(_) => USUAL,
        Ok("random") => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            // Short enough to be typed.
            now.as_micros() as u64 % 1_000_000_000
        }
        Ok(text) => text.parse().expect("SCHEMA_BACKUP_SEED is a number"),
    })
}

/// Says something even where the test harness hides what passing tests print.
fn say(line: &str) {
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .ok();
}

/// A server's share of all tables, in sixths.
fn share(sixths: f64) -> usize {
    let all = std::env::var("SCHEMA_BACKUP_RANDOM_TABLES").map_or(TABLES, |text| {
        text.parse()
            .expect("SCHEMA_BACKUP_RANDOM_TABLES is a number")
    });
    (all as f64 * sixths / 6.0).ceil() as usize
}

fn random_tables_come_back(kind: Kind, sixths: f64) {
    let Some(server) = shared(kind) else { return };
    let (mut left, mut seed) = (share(sixths), seed());
    let mut failures = Vec::new();
    while left > 0 {
        let count = left.min(ROUND);
        say(&format!(
            "random: SCHEMA_BACKUP_SEED={seed}, {count} tables on {kind:?}"
        ));
        if let Err(what) = round(server, seed, count) {
            failures.push(format!("SCHEMA_BACKUP_SEED={seed} on {kind:?}: {what}"));
        }
        left -= count;
        seed += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn random_tables_come_back_on_mariadb_10() {
    random_tables_come_back(Kind::MariaDb10, 2.5);
}

#[test]
fn random_tables_come_back_on_mariadb_11() {
    random_tables_come_back(Kind::MariaDb11, 1.0);
}

#[test]
fn random_tables_come_back_on_mysql_9() {
    random_tables_come_back(Kind::MySql9, 2.5);
}

/// Some tables from one seed, there and back; or what went wrong.
fn round(server: &Server, seed: u64, count: usize) -> Result<(), String> {
    let (from, into) = (format!("random_{seed}"), format!("random_{seed}_again"));
    server.create_database(&from);
    server.execute(&[&format!("DROP DATABASE IF EXISTS {into}")]);
    let palette = palette(server);
    let mut rng = Rng::with_seed(seed);
    // Of its own, so that the tables do not depend on how many there are.
    let mut way = rng.fork();
    let tables: Vec<Table> = (0..count)
        .map(|number| tables::table(&mut rng.fork(), number, &palette))
        .collect();
    fill(server, &from, &tables);

    let chunk_size = *pick(&mut way, &["1K", "2K", "4K"]);
    let readers = way.u32(1..=6).to_string();
    let loaders = way.u32(1..=6).to_string();
    let (global, local) = tables
        .iter()
        .map(|table| table.name.as_str())
        .partition(|_| way.bool());
    let lists = Lists {
        global,
        local,
        ..Lists::default()
    };
    let site = Site::new(server, &from, &lists);
    let quiet = ["--progress", "none", "-j"];
    let backup = site.backup(&[&["--chunk-size", chunk_size][..], &quiet, &[&readers]].concat());
    let expected = fingerprint(server, &from);
    if backup.code != Some(0) {
        let said = backup.stderr;
        let created = named(&expected, &said);
        return Err(format!("the backup failed:\n{said}\n{created}"));
    }
    assert_split(&site, &tables);

    let (host, user) = (site.host(), site.latest());
    let restore = site.restore_command(&[&host, &user], &into, &[&quiet[..], &[&loaders]].concat());
    let restored = run(restore);
    let mut wrong = Vec::new();
    if restored.code != Some(0) {
        let said = restored.stderr;
        wrong.push(format!(
            "the restore ended with {:?}: {said}",
            restored.code
        ));
    }
    // One that found differences came to the end.
    if matches!(restored.code, Some(0 | 4)) {
        wrong.extend(differences(&expected, &fingerprint(server, &into)));
    }
    server.execute(&[
        &format!("DROP DATABASE {from}"),
        &format!("DROP DATABASE IF EXISTS {into}"),
    ]);
    if wrong.is_empty() {
        return Ok(());
    }
    let wrong = wrong.join("\n");
    let created = named(&expected, &wrong);
    Err(format!("{wrong}\n{created}"))
}

/// The definitions of all tables that are named in what was said.
fn named(expected: &BTreeMap<String, String>, said: &str) -> String {
    let tables = expected.iter().filter_map(|(what, text)| {
        let name = what.strip_prefix("base table ")?;
        let forms = [
            format!("table `{name}`"),
            format!("rows of {name} differ"),
            format!("{what} differ"),
        ];
        let about = |line: &str| forms.iter().any(|form| line.contains(form));
        said.lines().any(about).then(|| text.clone())
    });
    tables.collect::<Vec<_>>().join("\n")
}

fn palette(server: &Server) -> Palette {
    let mariadb = !server.kind().is_mysql();
    // What belongs to several character sets has a longer name in MariaDB for each.
    let name = if mariadb {
        "full_collation_name"
    } else {
        "collation_name"
    };
    let query = format!(
        "SELECT character_set_name, {name} FROM information_schema.collation_character_set_applicability
          WHERE character_set_name <> 'binary' ORDER BY 1, 2"
    );
    let all: Vec<(String, String)> = server.connect().query(query).unwrap();
    let mut charsets: Vec<Charset> = Vec::new();
    for (charset, collation) in all {
        match charsets.last_mut() {
            Some((last, collations)) if *last == charset => collations.push(collation),
            _ => charsets.push((charset, vec![collation])),
        }
    }
    Palette {
        mariadb,
        vectors: server.kind() != Kind::MariaDb10,
        charsets,
    }
}

fn fill(server: &Server, database: &str, tables: &[Table]) {
    let mut connection = server.connect();
    connection.query_drop(format!("USE {database}")).unwrap();
    connection
        .query_drop("SET NAMES utf8mb4, sql_mode = '', time_zone = '+00:00'")
        .unwrap();
    for statement in tables.iter().flat_map(|table| &table.statements) {
        connection.query_drop(statement).unwrap_or_else(|error| {
            let begins: String = statement.chars().take(3000).collect();
            panic!("{database}: {error}: {begins}")
        });
    }
}

/// Tables in several chunks are what this is about: a good part of them must be.
fn assert_split(site: &Site, tables: &[Table]) {
    let mut split = 0;
    for dir in [site.host(), site.latest()] {
        let manifest = json(dir.join("manifest.json"));
        let chunks = manifest["tables"].as_object().unwrap().values();
        split += chunks
            .filter(|table| {
                table["data"]["chunks"]
                    .as_array()
                    .is_some_and(|all| all.len() > 1)
            })
            .count();
    }
    assert!(
        split * 5 > tables.len(),
        "only {split} of {} tables are in several chunks",
        tables.len()
    );
}
