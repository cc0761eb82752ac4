//! The bounds of chunks stay from backup to backup: a change in one region of a key leaves the
//! files of all others as they are. Every step is followed by one in which nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mysql::prelude::Queryable;

use crate::compare::{assert_same, fingerprint, load};
use crate::server::{Kind, Server, shared, with_binlog};
use crate::site::{
    Lists, Outcome, Site, chunks, edited, identities, json, run, tree_of, wait_until,
};

/// Rows whose ids are ten apart, of about 110 bytes as SQL.
const ROWS: u64 = 10_000;
const CHUNK_SIZE: &str = "64K";

/// One table in the host directory, and the same in the user data.
const TABLES: [&str; 2] = ["shown", "private"];

fn lists() -> Lists<'static> {
    Lists {
        global: vec![TABLES[0]],
        local: vec![TABLES[1]],
        ..Lists::default()
    }
}

fn series(rows: u64) -> String {
    format!(
        "WITH RECURSIVE up AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM up WHERE seq < {rows}) SELECT seq"
    )
}

fn fill(server: &Server, database: &str, id: &str, rows: u64) {
    server.create_database(database);
    let mut sql = String::from(if server.kind().is_mysql() {
        "SET cte_max_recursion_depth = 1000000;\n"
    } else {
        "SET max_recursive_iterations = 1000000;\n"
    });
    for table in TABLES {
        sql += &format!(
            "CREATE TABLE {table} (id {id} PRIMARY KEY, v VARCHAR(200));
             INSERT INTO {table} SELECT seq * 10, sha2(seq, 384) FROM ({} FROM up) s;
             ANALYZE TABLE {table};\n",
            series(rows)
        );
    }
    server.feed(database, "the tables", sql.as_bytes());
}

/// A place that is backed up to again and again.
struct Course<'a> {
    server: &'a Server,
    database: String,
    site: Site,
}

/// What a backup did to the files of a table, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    kept: usize,
    /// Changed or new.
    written: usize,
    gone: usize,
}

impl<'a> Course<'a> {
    fn begin(server: &'a Server, database: &str, id: &str) -> Course<'a> {
        fill(server, database, id, ROWS);
        let course = Course {
            server,
            site: Site::new(server, database, &lists()),
            database: database.to_owned(),
        };
        course.backup(CHUNK_SIZE);
        assert!(course.sizes().values().all(|sizes| sizes.len() > 10));
        course
    }

    fn backup(&self, chunk_size: &str) -> Outcome {
        self.site.backup_ok(&["--chunk-size", chunk_size, "-v"])
    }

    fn directory(&self, table: &str) -> std::path::PathBuf {
        match table {
            "shown" => self.site.host(),
            _ => self.site.latest(),
        }
    }

    /// The sizes of a table's chunks, in key order.
    fn sizes(&self) -> BTreeMap<&'static str, Vec<u64>> {
        let of = |table: &str| {
            let manifest = json(self.directory(table).join("manifest.json"));
            let chunks = &manifest["tables"][table]["data"]["chunks"];
            let chunks = chunks.as_array().unwrap();
            chunks
                .iter()
                .map(|c| c["raw_bytes"].as_u64().unwrap())
                .collect()
        };
        TABLES.map(|table| (table, of(table))).into()
    }

    fn files(&self, table: &str) -> BTreeMap<String, (u64, i64, i64)> {
        identities(&self.directory(table).join("data"))
    }

    /// Runs a backup after what `sql` does to each table (`TABLE`); then one more, which must
    /// change nothing, and puts what there is beside the database.
    #[track_caller]
    fn step(&self, sql: &str, chunk_size: &str) -> Changes {
        for table in TABLES {
            let sql = sql.replace("TABLE", table);
            self.server.feed(&self.database, "a change", sql.as_bytes());
        }
        purge(self.server);
        let before = TABLES.map(|table| self.files(table));
        self.backup(chunk_size);
        let after = TABLES.map(|table| self.files(table));
        let [shown, private] = [0, 1].map(|at| changes(&before[at], &after[at]));
        assert_eq!(shown, private, "{:?}", self.sizes());

        self.backup(chunk_size);
        for (at, table) in TABLES.into_iter().enumerate() {
            assert_eq!(self.files(table), after[at], "{table} was written again");
        }
        shown
    }

    /// Whether what lies there is what the database holds.
    #[track_caller]
    fn assert_whole(&self) {
        let directories = [self.site.host(), self.site.latest()];
        run(self.site.command("verify", &directories)).expect_code(0);
        let again = format!("{}_again", self.database);
        self.server.create_database(&again);
        load(self.server, &again, &[&directories[0], &directories[1]]);
        let expected = fingerprint(self.server, &self.database);
        assert_same(&expected, &fingerprint(self.server, &again));
    }
}

/// Waits until deleted rows have left the indexes: estimates see them until then.
fn purge(server: &Server) {
    if server.kind().is_mysql() {
        server.execute(&["SET GLOBAL innodb_purge_rseg_truncate_frequency = 1"]);
    }
    let mut conn = server.connect();
    wait_until("deleted rows are purged", || {
        let query = "SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'";
        conn.query_first::<u64, _>(query).unwrap() == Some(0)
    });
}

fn changes<T: PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Changes {
    let kept = after
        .iter()
        .filter(|(name, id)| before.get(*name) == Some(id));
    let kept = kept.count();
    Changes {
        kept,
        written: after.len() - kept,
        gone: before
            .keys()
            .filter(|name| !after.contains_key(*name))
            .count(),
    }
}

fn rows_come_and_go(kind: Kind) {
    let Some(server) = shared(kind) else { return };
    let course = Course::begin(server, "stable_bounds", "INT");
    let all = course.files("shown").len();
    assert_eq!(
        course.step("", CHUNK_SIZE),
        Changes {
            kept: all,
            ..Changes::default()
        }
    );

    // Some rows more, and some that are others, in one region.
    let changes = course.step(
        "INSERT INTO TABLE SELECT id + 1, v FROM TABLE WHERE id BETWEEN 30010 AND 31000;
         UPDATE TABLE SET v = 'changed' WHERE id BETWEEN 30010 AND 30100",
        CHUNK_SIZE,
    );
    assert!(changes.written <= 2 && changes.gone == 0, "{changes:?}");
    assert_eq!(changes.kept + changes.written, all);

    // So many that the region's chunk is cut.
    let nine = (2..=9).map(|n| format!("INSERT INTO TABLE SELECT id + {n}, sha2(id, 384) FROM TABLE WHERE id BETWEEN 50010 AND 51500 AND id % 10 = 0;"));
    let changes = course.step(&nine.collect::<String>(), CHUNK_SIZE);
    let cut = course.files("shown").len();
    assert!(cut > all, "{changes:?}");
    assert!(changes.kept >= all - 2 && changes.gone == 0, "{changes:?}");

    // So few that several become one.
    let changes = course.step(
        "DELETE FROM TABLE WHERE id BETWEEN 60000 AND 85000",
        CHUNK_SIZE,
    );
    assert!(changes.gone >= 2 && changes.written <= 3, "{changes:?}");
    assert_eq!(changes.kept + changes.written + changes.gone, cut);
    let sizes = &course.sizes()["shown"];
    assert!(sizes.iter().all(|size| *size <= 128 << 10), "{sizes:?}");
    course.assert_whole();
}

#[test]
fn a_region_that_changes_leaves_the_others_on_mariadb() {
    rows_come_and_go(Kind::MariaDb10);
}

#[test]
fn a_region_that_changes_leaves_the_others_on_mysql() {
    rows_come_and_go(Kind::MySql9);
}

#[test]
fn growth_at_the_end_touches_the_last_chunk_only() {
    let Some(server) = with_binlog() else { return };
    let course = Course::begin(server, "stable_bounds_end", "INT");
    let all = course.files("shown").len();
    let changes = course.step(
        "INSERT INTO TABLE SELECT id + 100000, v FROM TABLE WHERE id <= 30000",
        CHUNK_SIZE,
    );
    assert_eq!((changes.kept, changes.gone), (all - 1, 0), "{changes:?}");
    assert!(changes.written >= 4, "{changes:?}");
    let sizes = &course.sizes()["private"];
    assert!(
        sizes
            .iter()
            .all(|size| (32 << 10..128 << 10).contains(size)),
        "{sizes:?}"
    );
    course.assert_whole();
}

#[test]
fn keys_that_are_not_even_keep_their_bounds_as_well() {
    let Some(server) = with_binlog() else { return };
    for (name, id) in [("text", "VARCHAR(20)"), ("decimal", "DECIMAL(20,5)")] {
        let course = Course::begin(server, &format!("stable_bounds_{name}"), id);
        let changes = course.step(
            "DELETE FROM TABLE WHERE id BETWEEN '5000' AND '5005'",
            CHUNK_SIZE,
        );
        assert!(
            changes.written <= 2 && changes.gone == 0,
            "{name}: {changes:?}"
        );
        assert!(changes.kept > 8, "{name}: {changes:?}");
        course.assert_whole();
    }
}

#[test]
fn another_chunk_size_is_what_counts() {
    let Some(server) = with_binlog() else { return };
    let course = Course::begin(server, "stable_bounds_size", "INT");
    for (chunk_size, kib) in [
        ("16K", 16),
        ("128K", 128),
        (CHUNK_SIZE, 64),
        ("1G", 1 << 20),
    ] {
        course.step("", chunk_size);
        let sizes = &course.sizes()["shown"];
        let most = (2 * kib) << 10;
        assert!(
            sizes.iter().all(|size| *size <= most),
            "{chunk_size}: {sizes:?}"
        );
        // Two neighbours are never as small as that together.
        let least = (kib << 10) * 3 / 4;
        let pairs = sizes.windows(2).map(|pair| pair[0] + pair[1]);
        assert!(
            pairs.min().is_none_or(|pair| pair >= least),
            "{chunk_size}: {sizes:?}"
        );
    }
    course.assert_whole();
}

/// First bounds come of a few looks along the key, which could all miss the long rows.
#[test]
fn long_rows_in_one_region_of_the_key_do_not_share_a_chunk() {
    let Some(server) = with_binlog() else { return };
    // Of 40,000 ids; a chunk has room for 800 long rows, or for 4,400 short ones.
    for (database, long) in [
        ("stable_bounds_late", ["> 31000", "> 37760"]),
        ("stable_bounds_early", ["> 400", "BETWEEN 10301 AND 19899"]),
    ] {
        server.create_database(database);
        for (table, long) in TABLES.into_iter().zip(long) {
            let sql = format!(
                "CREATE TABLE {table} (id INT PRIMARY KEY, v VARCHAR(500));
                 INSERT INTO {table} SELECT seq, repeat('x', if(seq {long}, 500, 80)) FROM seq_1_to_40000;
                 ANALYZE TABLE {table};"
            );
            server.feed(database, "a table", sql.as_bytes());
        }
        let course = Course {
            server,
            site: Site::new(server, database, &lists()),
            database: database.to_owned(),
        };
        course.backup("400K");
        for (table, sizes) in course.sizes() {
            let largest = sizes.iter().max().unwrap();
            assert!(*largest <= 800 << 10, "{database}, {table}: {sizes:?}");
        }
    }
}

#[test]
fn bounds_of_another_key_are_not_used() {
    let Some(server) = with_binlog() else { return };
    let course = Course::begin(
        server,
        "stable_bounds_key",
        "VARCHAR(20) COLLATE latin1_bin",
    );
    for (change, why) in [
        (
            "MODIFY id VARCHAR(20) COLLATE utf8mb4_bin",
            "none of this key",
        ),
        ("MODIFY id INT", "none of this key"),
        ("DROP PRIMARY KEY, ADD PRIMARY KEY (v, id)", "another key"),
    ] {
        course.step("", CHUNK_SIZE);
        for table in TABLES {
            let sql = format!("ALTER TABLE {table} {change}");
            course
                .server
                .feed(&course.database, "a change", sql.as_bytes());
        }
        let outcome = course.backup(CHUNK_SIZE);
        for table in TABLES {
            let said = format!("table `{table}`: the previous backup's chunks are not used again");
            assert!(
                outcome.stderr.contains(&said),
                "{change}: {}",
                outcome.stderr
            );
        }
        outcome.expect_said(why);
        assert!(course.sizes().values().all(|sizes| sizes.len() > 8));
        course.step("", CHUNK_SIZE);
    }
    course.assert_whole();
}

#[test]
fn bounds_that_the_server_orders_otherwise_are_not_used() {
    let Some(server) = with_binlog() else { return };
    let course = Course::begin(server, "stable_bounds_order", "INT");
    // Letters in an order that another collation does not have.
    for table in TABLES {
        let sql = format!(
            "TRUNCATE {table}; ALTER TABLE {table} MODIFY id VARCHAR(20) COLLATE utf8mb4_bin;
             INSERT INTO {table} SELECT concat(char(if(seq % 2, 65, 97) + seq DIV 400), seq), sha2(seq, 384) FROM seq_1_to_9999"
        );
        server.feed(&course.database, "letters", sql.as_bytes());
    }
    course.step("", CHUNK_SIZE);
    for table in TABLES {
        let sql = format!("ALTER TABLE {table} MODIFY id VARCHAR(20) COLLATE utf8mb4_general_ci");
        server.feed(&course.database, "a collation", sql.as_bytes());
    }
    course.backup(CHUNK_SIZE).expect_said("out of order");
    course.step("", CHUNK_SIZE);
    course.assert_whole();
}

#[test]
fn a_manifest_that_is_damaged_or_forged_is_no_error() {
    let Some(server) = with_binlog() else { return };
    let course = Course::begin(server, "stable_bounds_damage", "INT");
    let first = course.sizes();
    let rewrite = |change: &dyn Fn(&str) -> String| {
        for table in TABLES {
            let path = course.directory(table).join("manifest.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, change(&text)).unwrap();
        }
    };
    let manifest = json(course.site.host().join("manifest.json"));
    let bound = |chunk: usize| {
        let from = &manifest["tables"]["shown"]["data"]["chunks"][chunk]["from"][0];
        format!("\"{}\"", from.as_str().unwrap())
    };
    let (third, fifth) = (bound(3), bound(5));
    rewrite(&|text| edited(text, &third, "\"0 OR 1=1\""));
    course.backup(CHUNK_SIZE).expect_said("none of this key");
    assert_eq!(course.sizes(), first);
    rewrite(&|text| edited(text, &third, &fifth));
    course.backup(CHUNK_SIZE).expect_said("out of order");
    assert_eq!(course.sizes(), first);
    rewrite(&|text| text.replacen("rows", "worms", 1));
    course.backup(CHUNK_SIZE);
    assert_eq!(course.sizes(), first);
    course.assert_whole();
}

#[test]
fn threads_do_not_matter_to_bounds_that_are_taken_up() {
    let Some(server) = with_binlog() else { return };
    let database = "stable_bounds_threads";
    fill(server, database, "INT", ROWS);
    let sites = ["1", "7"].map(|threads| (Site::new(server, database, &lists()), threads));
    let backup = || {
        for (site, threads) in &sites {
            site.backup_ok(&["--chunk-size", CHUNK_SIZE, "-j", threads]);
        }
        let [one, other] = [0, 1].map(|at| tree_of(&sites[at].0));
        assert!(one == other, "{:?} and {:?}", one.keys(), other.keys());
    };
    backup();
    for table in TABLES {
        let sql = format!(
            "INSERT INTO {table} SELECT id + 100000, v FROM {table} WHERE id <= 20000;
             DELETE FROM {table} WHERE id BETWEEN 40000 AND 60000;
             UPDATE {table} SET v = concat(v, v) WHERE id BETWEEN 70000 AND 71000"
        );
        server.feed(database, "a change", sql.as_bytes());
    }
    purge(server);
    backup();
}

/// Bytes of files below a directory that no other directory links to.
fn own_bytes(directory: &Path, others: &Path) -> (u64, u64) {
    let inodes = |root: &Path| -> BTreeMap<u64, u64> {
        let files = crate::site::walk(root)
            .into_iter()
            .filter(|path| path.is_file());
        files
            .map(|path| {
                let meta = fs::symlink_metadata(&path).unwrap();
                (meta.ino(), meta.len())
            })
            .collect()
    };
    let (here, there) = (inodes(directory), inodes(others));
    let there: BTreeSet<u64> = there.into_keys().collect();
    let own = here.iter().filter(|(inode, _)| !there.contains(inode));
    (own.map(|(_, bytes)| bytes).sum(), here.values().sum())
}

#[test]
fn a_hundredth_of_the_rows_changed_in_one_region_costs_a_few_files() {
    let Some(server) = with_binlog() else { return };
    let database = "stable_bounds_hundredth";
    fill(server, database, "INT", 40_000);
    let site = Site::new(server, database, &lists());
    let backup = || {
        // Backups of user data are named by the second.
        site.backup_ok(&["--chunk-size", "40K"]);
        site.latest()
    };
    let first = backup();
    assert!(chunks(&first, "private") > 80);
    let update = |table| {
        format!("UPDATE {database}.{table} SET v = reverse(v) WHERE id BETWEEN 200010 AND 204000")
    };
    server.execute(&[&update("shown"), &update("private")]);
    let host = identities(&site.host());
    let second = backup();
    assert_ne!(first, second);
    let changed = changes(&host, &identities(&site.host()));
    assert!(
        changed.gone == 0 && changed.written * 20 <= host.len(),
        "{changed:?}"
    );
    let changed = changes(&identities(&first), &identities(&second));
    assert!(
        changed.gone == 0 && changed.written * 20 <= changed.kept,
        "{changed:?}"
    );
    let (own, all) = own_bytes(&second, &first);
    assert!(own * 100 <= all * 6, "{own} of {all} bytes");

    let third = backup();
    let data = |backup: &Path| identities(&backup.join("data"));
    assert_eq!(
        data(&third),
        data(&second),
        "unchanged rows were stored again"
    );
    fs::remove_dir_all(&first).unwrap();
    fs::remove_dir_all(&second).unwrap();
    run(site.command("verify", &[site.host(), third])).expect_code(0);
}
