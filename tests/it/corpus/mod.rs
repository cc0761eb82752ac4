//! Everything the servers can hold, by topic, and the way there and back: fill a database,
//! back it up with the built program, load the backup into an empty database, compare. Each
//! step is a function of its own, so that other tests can take another way back.
//!
//! A topic is SQL in files beside this one: `topic.sql` for every server, and what only some
//! have in `topic.mariadb.sql`, `topic.mariadb11.sql` (11 and later) and `topic.mysql.sql`.
//! What SQL is too long-winded for is written by [`generated`].

mod generated;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use mysql::prelude::Queryable;

use crate::compare::{assert_none, differences, files, fingerprint, read_sql};
use crate::server::{Kind, Server, shared};
use crate::site::{Lists, Site, run};

/// All topics.
pub(crate) const TOPICS: [&str; 13] = [
    "numbers",
    "times",
    "strings",
    "bits",
    "enums",
    "charsets",
    "json",
    "geometry",
    "objects",
    "tables",
    "partitions",
    "identifiers",
    "engines",
];

/// What a session that fills a database begins with, whatever the server's defaults.
const PREAMBLE: &str =
    "SET NAMES utf8mb4; SET sql_mode='', time_zone='+00:00', foreign_key_checks=1;\n";

/// Makes `database` anew and fills it with a topic, with the stock client.
pub(crate) fn fill(server: &Server, database: &str, topic: &str) {
    server.create_database(database);
    let mut connection = server.connect();
    let mariadb = !server.kind().is_mysql();
    let recent = server.kind() == Kind::MariaDb11;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus");
    let mut found = false;
    for (suffix, wanted) in [
        ("", true),
        (".mariadb", mariadb),
        (".mariadb11", recent),
        (".mysql", !mariadb),
    ] {
        let file = dir.join(format!("{topic}{suffix}.sql"));
        if wanted && file.is_file() {
            found = true;
            let sql = std::fs::read(&file).unwrap();
            server.feed(database, &file.display().to_string(), &with_preamble(&sql));
        }
    }
    for (what, sql) in generated::sql(topic, &mut connection, mariadb) {
        found = true;
        server.feed(database, &what, &with_preamble(&sql));
    }
    assert!(found, "nothing of {topic} for {:?}", server.kind());
}

fn with_preamble(sql: &[u8]) -> Vec<u8> {
    [PREAMBLE.as_bytes(), sql].concat()
}

/// Backs `database` up: every other table is global and plain, the others local and
/// compressed, all in chunks of a few rows.
pub(crate) fn back_up(server: &Server, database: &str) -> Site {
    back_up_in(server, database, "4096")
}

/// The same, in chunks of a given size.
pub(crate) fn back_up_in(server: &Server, database: &str, chunk_size: &str) -> Site {
    let mut connection = server.connect();
    connection.query_drop(format!("USE `{database}`")).unwrap();
    let tables: Vec<(String, String)> = connection
        .query("SHOW FULL TABLES WHERE Table_type <> 'VIEW'")
        .unwrap();
    let mut lists = Lists::default();
    for (at, (name, _)) in tables.iter().enumerate() {
        let list = if at % 2 == 0 {
            &mut lists.global
        } else {
            &mut lists.local
        };
        list.push(name);
    }
    let site = Site::new(server, database, &lists);
    site.backup_ok(&["--chunk-size", chunk_size, "-j", "3", "--progress", "none"]);
    site
}

/// Loads a backup into `database`, which is made anew like the one that was backed up, with
/// the stock client only and as the README says. Returns what failed.
pub(crate) fn load(server: &Server, database: &str, site: &Site) -> Vec<String> {
    server.create_database(database);
    let (host, user) = (site.host(), site.latest());
    let parts = [
        host.join("structure/sequences"),
        host.join("structure/tables"),
        host.join("data"),
        user.join("data"),
        host.join("structure/routines"),
        host.join("structure/views"),
        host.join("structure/triggers"),
        host.join("structure/events"),
    ];
    let all: Vec<PathBuf> = parts.iter().flat_map(|part| files(part)).collect();
    all.iter()
        .filter_map(|file| feed(server, database, file))
        .collect()
}

/// Feeds one file to the stock client; what it complains about, if it does.
fn feed(server: &Server, database: &str, file: &Path) -> Option<String> {
    let mut command = server.stock_client(database);
    // MySQL's client knows \C only so.
    command.args(Some("--commands").filter(|_| server.kind().is_mysql()));
    command
        .args(["--binary-mode", "--comments"])
        .arg("--max-allowed-packet=1G")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sql = read_sql(file);
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(&sql).ok());
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = !output.status.success() || !said.is_empty();
    failed.then(|| format!("loading {}: {}", file.display(), said.trim()))
}

/// Restores a backup into `database` with our own verb. Returns what failed and what differs.
pub(crate) fn restore(
    server: &Server,
    database: &str,
    site: &Site,
    expected: &BTreeMap<String, String>,
) -> Vec<String> {
    server.execute(&[&format!("DROP DATABASE IF EXISTS `{database}`")]);
    let (host, user) = (site.host(), site.latest());
    let dirs = [host.as_path(), user.as_path()];
    let outcome = run(site.restore_command(&dirs, database, &["-j", "3", "--progress", "none"]));
    if outcome.code != Some(0) {
        return vec![format!("restore: {:?} {}", outcome.code, outcome.stderr)];
    }
    let found = differences(expected, &fingerprint(server, database));
    found
        .into_iter()
        .map(|what| format!("restored: {what}"))
        .collect()
}

/// A topic, there and back on `server`: once with the stock client, once with our own verb.
#[track_caller]
fn round_trip(server: &Server, topic: &str) {
    let (source, target) = (format!("corpus_{topic}"), format!("corpus_{topic}_again"));
    fill(server, &source, topic);
    let site = back_up(server, &source);
    let mut failures = load(server, &target, &site);
    let (expected, found) = (fingerprint(server, &source), fingerprint(server, &target));
    failures.extend(differences(&expected, &found));
    failures.extend(restore(
        server,
        &format!("corpus_{topic}_restored"),
        &site,
        &expected,
    ));
    assert_none(server.kind(), &failures);
}

/// A server on which nothing is as usual: modes that change what quotes and backslashes mean,
/// a time zone with summer time, another character set by default.
#[test]
fn every_topic_on_a_server_with_unusual_settings() {
    let options = [
        "--sql-mode=NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT",
        "--character-set-server=latin2",
        "--skip-log-bin",
    ];
    for kind in [Kind::MariaDb10, Kind::MySql9] {
        let Some(server) = Server::start_kind(kind, &options) else {
            continue;
        };
        server.execute(&SUMMER_TIME);
        TOPICS.iter().for_each(|topic| round_trip(&server, topic));
    }
}

/// A time zone of our own, an hour ahead, and two from the end of March to that of October.
const SUMMER_TIME: [&str; 6] = [
    "INSERT INTO mysql.time_zone VALUES (9000, 'N')",
    "INSERT INTO mysql.time_zone_name VALUES ('Test/Summer', 9000)",
    "INSERT INTO mysql.time_zone_transition_type VALUES (9000, 0, 3600, 0, 'W'), (9000, 1, 7200, 1, 'S')",
    "INSERT INTO mysql.time_zone_transition VALUES (9000, 0, 0), (9000, 1679792400, 1), (9000, 1698541200, 0),
       (9000, 1711846800, 1), (9000, 1729990800, 0), (9000, 1743296400, 1), (9000, 1761440400, 0)",
    "FLUSH TABLES",
    "SET GLOBAL time_zone = 'Test/Summer'",
];

/// A test for each topic, on every server.
macro_rules! topics {
    ($($topic:ident)*) => {
        $(#[test]
        fn $topic() {
            for server in servers() {
                round_trip(server, stringify!($topic));
            }
        })*

        #[test]
        fn every_topic_has_a_test() {
            assert_eq!([$(stringify!($topic)),*], TOPICS);
        }
    };
}

fn servers() -> impl Iterator<Item = &'static Server> {
    Kind::ALL.into_iter().filter_map(shared)
}

topics! {
    numbers times strings bits enums charsets json geometry objects tables partitions
    identifiers engines
}
