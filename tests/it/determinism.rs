//! The same data gives the same bytes, whatever the number of threads; what did not change is
//! not written again.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::server::{Server, with_binlog};
use crate::site::{Lists, Site, chunks, identities, tree_of};

const LISTS: fn() -> Lists<'static> = || Lists {
    global: vec!["settings", "big_global"],
    local: vec!["big_local", "texts", "no_key"],
    ephemeral: vec!["jobs"],
    ..Lists::default()
};

fn fill(server: &Server, database: &str) {
    server.create_database(database);
    server.feed(
        database,
        "the tables",
        b"CREATE TABLE settings (k VARCHAR(30) PRIMARY KEY, v TEXT);
          INSERT INTO settings SELECT concat('key', seq), repeat(seq, 9) FROM seq_1_to_200;
          CREATE TABLE big_global (a INT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(200), c DATETIME);
          INSERT INTO big_global (b, c) SELECT repeat(md5(seq), 5), '2024-01-01' + INTERVAL seq SECOND FROM seq_1_to_20000;
          CREATE TABLE big_local (a SMALLINT, b VARCHAR(32), c DOUBLE, d BLOB, PRIMARY KEY (a, b));
          INSERT INTO big_local SELECT seq % 7, md5(seq), seq / 7, unhex(repeat(sha1(seq), 8)) FROM seq_1_to_20000;
          CREATE TABLE texts (id INT PRIMARY KEY, t LONGTEXT);
          INSERT INTO texts SELECT seq, repeat('lorem ipsum ', seq * 10) FROM seq_1_to_200;
          CREATE TABLE no_key (a INT, b INT);
          INSERT INTO no_key SELECT seq % 10, seq FROM seq_1_to_1000;
          CREATE TABLE jobs (id INT PRIMARY KEY);
          CREATE VIEW v AS SELECT count(*) AS n FROM jobs;
          CREATE TRIGGER tr BEFORE INSERT ON texts FOR EACH ROW SET NEW.t = lower(NEW.t);
          CREATE FUNCTION f (n INT) RETURNS INT DETERMINISTIC RETURN n + 1;
          CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM jobs;
          ANALYZE TABLE settings, big_global, big_local, texts, no_key;",
    );
}

fn backup(site: &Site, threads: &str) {
    site.backup_ok(&["-j", threads, "--chunk-size", "256K"]);
}

#[track_caller]
fn assert_same_tree(first: &BTreeMap<String, Vec<u8>>, second: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        second.keys().collect::<Vec<_>>()
    );
    for (name, content) in first {
        assert!(content == &second[name], "{name} differs");
    }
}

#[test]
fn one_thread_and_eight_write_the_same_bytes_and_a_second_run_writes_no_file_again() {
    let Some(server) = with_binlog() else { return };
    fill(server, "determinism");
    let mut trees = Vec::new();
    for threads in ["1", "8"] {
        let site = Site::new(server, "determinism", &LISTS());
        backup(&site, threads);
        assert!(chunks(&site.host(), "big_global") > 2 && chunks(&site.latest(), "big_local") > 2);
        trees.push(tree_of(&site));

        let of_host = |site: &Site| {
            let mut files = identities(&site.host());
            files.remove("run.json").unwrap();
            files
        };
        let (host, user, first) = (
            of_host(&site),
            identities(&site.latest().join("data")),
            site.latest(),
        );
        // Backups of user data are named by the second.
        thread::sleep(Duration::from_millis(1100));
        backup(&site, threads);
        trees.push(tree_of(&site));
        assert_eq!(
            of_host(&site),
            host,
            "a file was written again with -j {threads}"
        );
        assert_ne!(
            site.latest(),
            first,
            "the second run made no backup of user data"
        );
        let linked = identities(&site.latest().join("data"));
        assert_eq!(
            linked, user,
            "unchanged user data was stored again with -j {threads}"
        );
    }
    for tree in &trees[1..] {
        assert_same_tree(&trees[0], tree);
    }
}

#[test]
fn a_change_rewrites_only_the_files_it_belongs_to() {
    let Some(server) = with_binlog() else { return };
    fill(server, "determinism_change");
    let site = Site::new(server, "determinism_change", &LISTS());
    backup(&site, "4");
    let before = identities(&site.host());
    server.execute(&["UPDATE determinism_change.big_global SET b = 'changed' WHERE a = 10000"]);
    backup(&site, "4");
    let after = identities(&site.host());
    let changed: Vec<_> = after
        .iter()
        .filter(|(name, id)| before.get(*name) != Some(id))
        .map(|(name, _)| name)
        .collect();
    let data: Vec<_> = changed
        .iter()
        .filter(|name| name.starts_with("data/"))
        .collect();
    assert_eq!(data.len(), 1, "{changed:?}");
    assert!(data[0].starts_with("data/big_global."), "{changed:?}");
    assert!(
        !changed.iter().any(|name| name.starts_with("structure/")),
        "{changed:?}"
    );
}
