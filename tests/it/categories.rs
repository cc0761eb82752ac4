//! Which table goes where, on a database with tables of many shapes in all four categories
//! besides unlisted, missing and doubly listed ones; and that the stock client makes the same
//! database again out of the files.

use std::sync::OnceLock;

use crate::compare::{assert_same, files, fingerprint, load, read_sql, without_counter};
use crate::server::{Server, with_binlog};
use crate::site::{Lists, Outcome, Site, assert_no_leftovers, assert_sums_hold, json, walk};

const DATABASE: &str = "categories";

/// Tables of one category: how many, and what their names begin with.
const GLOBAL: (&str, usize) = ("g_", 16);
const LOCAL: (&str, usize) = ("l_", 24);
const EPHEMERAL: (&str, usize) = ("e_", 16);
const IGNORED: (&str, usize) = ("i_", 4);
/// Names that are file names only when something is done about it.
const ODD_LOCAL: [&str; 4] = ["Mixed Case", "slash/and%.", "grün", "con"];

/// A column list and how to fill it: `{t}` is the table, `{k}` differs from table to table.
const SHAPES: [(&str, &str); 10] = [
    (
        "(id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100) NOT NULL DEFAULT 'it''s \\\\ \"', note TEXT)
         COMMENT='a \"comment\" that isn''t easy' CHARSET=utf8mb4",
        "INSERT INTO {t} (name, note) SELECT concat('n', seq, '☁ ''quoted'' \\\\ back'),
                if(seq % 7 = 0, NULL, concat('line 1\\nline 2\\r\\n\\ttab', repeat('x', seq)))
           FROM seq_1_to_100",
    ),
    (
        "(a VARCHAR(20) NOT NULL, b INT UNSIGNED NOT NULL, c CHAR(5), d VARBINARY(300), PRIMARY KEY (a, b), KEY (c))
         CHARSET=latin1",
        "INSERT INTO {t} SELECT concat('k', seq % 10, unhex('E9FF')), seq, 'x  ',
                if(seq % 5 = 0, NULL, unhex(repeat(sha2(seq + {k}, 256), 2))) FROM seq_1_to_100",
    ),
    (
        "(i BIGINT PRIMARY KEY, u BIGINT UNSIGNED, d DECIMAL(30,10), x DOUBLE, f FLOAT, y YEAR, dt DATE,
          ts TIMESTAMP(6) NULL, tm TIME(3), zero DATETIME, bits BIT(37))",
        "INSERT INTO {t} SELECT cast(seq AS SIGNED) * if(seq % 2, -1, 1) * 184467440737095516, 18446744073709551615 - seq,
                seq / 7.0, pow(-1.1, seq), 16777217 + seq / 3, 1970 + seq, '2024-02-29' + INTERVAL seq DAY,
                '2001-09-09 01:46:40.123456' + INTERVAL seq HOUR, sec_to_time(seq * 1000.125), '0000-00-00',
                seq * 1234567 FROM seq_1_to_50",
    ),
    (
        "(id INT PRIMARY KEY, j JSON, price DECIMAL(8,2) CHECK (price > -1), e ENUM('a','it''s','\"c\\\\') NOT NULL,
          s SET('x','it''s y','z'), twice DECIMAL(9,2) AS (price * 2) STORED, half INT AS (id DIV 2) VIRTUAL,
          CONSTRAINT named CHECK (id >= 0)) CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci",
        "INSERT INTO {t} (id, j, price, e, s) SELECT seq, json_object('k', seq), seq / 3, 1 + seq % 3, seq % 8
           FROM seq_1_to_64",
    ),
    (
        // No key, and rows that occur more than once.
        "(a INT, b VARCHAR(10) CHARACTER SET ascii) COMMENT='no key'",
        "INSERT INTO {t} SELECT seq % 5, if(seq % 3, 'same', NULL) FROM seq_1_to_60",
    ),
    (
        "(id INT NOT NULL, at DATE NOT NULL, v VARCHAR(50), PRIMARY KEY (id, at)) PARTITION BY RANGE COLUMNS (at)
         (PARTITION old VALUES LESS THAN ('2020-01-01'), PARTITION rest VALUES LESS THAN (MAXVALUE))",
        "INSERT INTO {t} SELECT seq, '2019-11-01' + INTERVAL seq DAY, md5(seq) FROM seq_1_to_90",
    ),
    (
        "(id INT PRIMARY KEY, every BLOB, g GEOMETRY, sj VARCHAR(20) CHARACTER SET sjis,
          gb VARCHAR(20) CHARACTER SET gbk, u16 VARCHAR(20) CHARACTER SET utf16, big LONGBLOB)",
        "INSERT INTO {t} SELECT seq, unhex(concat(lpad(hex(seq - 1), 2, '0'), '27', '5C', lpad(hex(seq - 1), 2, '0'))),
                point(seq, -seq / 3), _sjis x'835C835C', _gbk x'BF5C27BF5C', _utf16 x'0027005C00E9',
                if(seq = 256, repeat(unhex('00FF1A0A0D'), 300000), NULL) FROM seq_1_to_256",
    ),
    (
        "(id INT PRIMARY KEY, v VARCHAR(40)) ENGINE=Aria",
        "INSERT INTO {t} SELECT seq, sha1(seq) FROM seq_1_to_40",
    ),
    (
        "(`select` UUID PRIMARY KEY, `a``b` INET6, `c d` INT INVISIBLE DEFAULT 7, `ü` VARCHAR(10) UNIQUE)",
        "INSERT INTO {t} (`select`, `a``b`, `c d`, `ü`) SELECT concat('0000{k4}-0000-1000-8000-', lpad(seq, 12, '0')), concat('2001:db8::', seq), seq,
                concat('ß', seq) FROM seq_1_to_30",
    ),
    (
        "(id INT AUTO_INCREMENT PRIMARY KEY, never VARCHAR(10)) AUTO_INCREMENT=4711",
        // An empty table with a counter.
        "DELETE FROM {t}",
    ),
];

const OBJECTS: &str = "
CREATE SEQUENCE numbers START WITH 5 INCREMENT BY 3 CACHE 10;
DO nextval(numbers);
CREATE TABLE l_parent (id INT PRIMARY KEY, next_id INT DEFAULT nextval(numbers)) ENGINE=InnoDB;
CREATE TABLE l_child (id INT PRIMARY KEY, parent INT NOT NULL, self INT,
  CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES l_parent (id) ON DELETE CASCADE,
  CONSTRAINT of_self FOREIGN KEY (self) REFERENCES l_child (id)) ENGINE=InnoDB;
INSERT INTO l_parent SELECT seq, nextval(numbers) FROM seq_1_to_20;
SET foreign_key_checks = 0;
INSERT INTO l_child SELECT seq, 1 + seq % 20, 101 - seq FROM seq_1_to_100;
SET foreign_key_checks = 1;
CREATE VIEW z_base AS SELECT id, next_id FROM l_parent WHERE id > 3 WITH CASCADED CHECK OPTION;
CREATE VIEW a_on_z AS SELECT count(*) AS n, 'it''s' AS text FROM z_base;
CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW m_on_a AS SELECT a.n, c.id FROM a_on_z a JOIN l_child c;
DELIMITER $$
CREATE FUNCTION plus_one(n INT) RETURNS INT DETERMINISTIC COMMENT 'adds; the \"one\"' RETURN n + 1$$
CREATE PROCEDURE touch(IN a INT, OUT b INT) MODIFIES SQL DATA
BEGIN
  -- isn't; it;
  UPDATE l_parent SET id = id WHERE id = a;
  SET b = plus_one(a);
END$$
SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'$$
CREATE PROCEDURE \"odd name's\"() SELECT 'a' || \"id\" FROM \"l_parent\"$$
CREATE TRIGGER second_by_name BEFORE INSERT ON l_parent FOR EACH ROW SET NEW.next_id = NEW.next_id + 1$$
SET sql_mode = default$$
CREATE TRIGGER a_follows BEFORE INSERT ON l_parent FOR EACH ROW FOLLOWS second_by_name
BEGIN
  IF NEW.id < 0 THEN SET NEW.id = 0; END IF;
END$$
CREATE TRIGGER b_precedes BEFORE INSERT ON l_parent FOR EACH ROW PRECEDES second_by_name SET @x = ';'$$
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 03:00:00' ON COMPLETION PRESERVE
  COMMENT 'doesn''t run' DO BEGIN DELETE FROM l_child WHERE id < 0; END$$
CREATE EVENT once ON SCHEDULE AT '2032-02-29 00:00:00' DISABLE DO SET @y = 1$$
DELIMITER ;
";

fn names((prefix, count): (&str, usize)) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:02}")).collect()
}

fn fill(server: &Server) {
    server.create_database(DATABASE);
    let mut sql = format!("{PREPARE};\n");
    let categories = [GLOBAL, LOCAL, EPHEMERAL, IGNORED].map(names).concat();
    let odd = ODD_LOCAL
        .iter()
        .chain(["unlisted_1", "unlisted_2", "twice"].iter())
        .map(|&name| name.to_owned());
    for (number, table) in categories.into_iter().chain(odd).enumerate() {
        let (columns, rows) = SHAPES[number % SHAPES.len()];
        let quoted = format!("`{table}`");
        let rows = rows
            .replace("{t}", &quoted)
            .replace("{k}", &number.to_string())
            .replace("{k4}", &format!("{number:04}"));
        sql += &format!("CREATE TABLE {quoted} {columns};\n{rows};\n");
    }
    server.feed(DATABASE, "the tables", sql.as_bytes());
    server.feed(
        DATABASE,
        "the objects",
        format!("{PREPARE};\n{OBJECTS}").as_bytes(),
    );
}

const PREPARE: &str = "SET NAMES utf8mb4; SET sql_mode = '', time_zone = '+00:00'";

struct Fixture {
    server: &'static Server,
    site: Site,
    outcome: Outcome,
}

/// The database, filled and backed up once for all tests here.
fn fixture() -> Option<&'static Fixture> {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    let server = with_binlog()?;
    let made = FIXTURE.get_or_init(|| {
        fill(server);
        let (global, local) = (names(GLOBAL), names(LOCAL));
        let (ephemeral, ignore) = (names(EPHEMERAL), names(IGNORED));
        let with = |names: &'static [&str], more: &'static [String]| {
            more.iter()
                .map(String::as_str)
                .chain(names.iter().copied())
                .collect::<Vec<&str>>()
        };
        let [global, local, ephemeral, ignore] =
            [global, local, ephemeral, ignore].map(|n| &*n.leak());
        let mut lists = Lists {
            global: with(&["missing_global"], global),
            local: with(
                &["l_parent", "l_child", "twice", "numbers", "missing_local"],
                local,
            ),
            ephemeral: with(&["twice"], ephemeral),
            ignore: with(&[], ignore),
        };
        lists.local.extend(ODD_LOCAL);
        let site = Site::new(server, DATABASE, &lists);
        let outcome = site.backup_ok(&["-j", "4"]);
        Fixture {
            server,
            site,
            outcome,
        }
    });
    Some(made)
}

#[test]
fn each_table_goes_where_its_category_says() {
    let Some(Fixture { site, .. }) = fixture() else {
        return;
    };
    let (host, user) = (
        json(site.host().join("manifest.json")),
        json(site.latest().join("manifest.json")),
    );
    let keys = |manifest: &serde_json::Value| -> Vec<String> {
        manifest["tables"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, t)| t["kind"] == "table")
            .map(|(n, _)| n.clone())
            .collect()
    };
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let local = || {
        let more = ODD_LOCAL
            .iter()
            .chain(&["l_parent", "l_child", "twice"])
            .map(|&n| n.to_owned());
        names(LOCAL).into_iter().chain(more).collect::<Vec<_>>()
    };
    let mut structures = [names(GLOBAL), local(), names(EPHEMERAL)].concat();
    structures.extend(["unlisted_1".to_owned(), "unlisted_2".to_owned()]);

    // Every structure but the ignored in the host directory; the local ones in both.
    assert_eq!(sorted(keys(&host)), sorted(structures.clone()));
    assert_eq!(sorted(keys(&user)), sorted(local()));
    assert_eq!(
        files(&site.host().join("structure/tables")).len(),
        structures.len()
    );
    assert_eq!(
        files(&site.latest().join("structure/tables")).len(),
        local().len()
    );

    // Data of the global tables in the one, of the local ones in the other, of no other anywhere.
    for (manifest, wanted) in [(&host, names(GLOBAL)), (&user, local())] {
        let tables = manifest["tables"].as_object().unwrap();
        let with_data: Vec<_> = tables
            .iter()
            .filter(|(_, t)| t["kind"] == "table" && !t["data"].is_null())
            .map(|(n, _)| n.clone())
            .collect();
        assert_eq!(sorted(with_data), sorted(wanted));
    }
    // By name on disk as well, not only in the manifest.
    for path in walk(&site.host().join("data")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            name.starts_with("g_") && name.ends_with(".sql"),
            "{name} among the global data"
        );
    }
    for path in walk(&site.latest().join("data")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            !["g_", "e_", "i_", "unlisted"]
                .iter()
                .any(|p| name.starts_with(p)),
            "{name} among the local data"
        );
        assert!(name.ends_with(".sql.zst"), "{name} is not compressed");
    }
    let ignored: Vec<_> = walk(site.path("").as_path())
        .into_iter()
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("i_"))
        .collect();
    assert!(ignored.is_empty(), "{ignored:?}");
}

#[test]
fn unlisted_missing_and_doubly_listed_tables_are_warned_of() {
    let Some(Fixture { site, outcome, .. }) = fixture() else {
        return;
    };
    let recorded = json(site.host().join("run.json"))["warnings"].to_string();
    for table in [
        "unlisted_1",
        "unlisted_2",
        "missing_global",
        "missing_local",
        "twice",
    ] {
        assert!(
            recorded.contains(table),
            "run.json does not warn of {table}: {recorded}"
        );
        assert!(
            outcome.stderr.contains(table),
            "stderr does not warn of {table}: {}",
            outcome.stderr
        );
    }
    // A table that cannot be read in a snapshot is named too.
    assert!(
        recorded.contains("g_07"),
        "run.json does not name the Aria table: {recorded}"
    );
}

#[test]
fn every_file_has_the_checksum_that_sha256sum_expects() {
    let Some(Fixture { site, .. }) = fixture() else {
        return;
    };
    assert_sums_hold(&site.host());
    assert_sums_hold(&site.latest());
    assert_no_leftovers(site);
}

#[test]
fn the_stock_client_makes_the_same_database_again() {
    let Some(Fixture { server, site, .. }) = fixture() else {
        return;
    };
    let mut source = fingerprint(server, DATABASE);
    // What is ignored, and the rows that are not saved.
    let left_out = |name: &str| {
        [
            "base table i_",
            "rows of i_",
            "rows of e_",
            "rows of unlisted",
        ]
        .iter()
        .any(|kind| name.starts_with(kind))
    };
    source.retain(|name, _| !left_out(name));

    server.create_database("categories_again");
    load(server, "categories_again", &[&site.host(), &site.latest()]);
    let mut copy = fingerprint(server, "categories_again");
    copy.retain(|name, _| !left_out(name));
    for (name, text) in source.iter_mut().chain(&mut copy) {
        // Their data is not saved.
        if name.starts_with("base table e_") || name.starts_with("base table unlisted") {
            *text = without_counter(text);
        }
    }
    assert_same(&source, &copy);
}

#[test]
fn the_private_backup_of_user_data_loads_by_itself() {
    let Some(Fixture { server, site, .. }) = fixture() else {
        return;
    };
    server.create_database("categories_private");
    // A table with a DEFAULT from a sequence needs it; the sequence lies with the structures.
    for file in files(&site.host().join("structure/sequences")) {
        server.feed("categories_private", "sequences", &read_sql(&file));
    }
    for part in ["structure/tables", "data"] {
        for file in files(&site.latest().join(part)) {
            server.feed(
                "categories_private",
                &file.display().to_string(),
                &read_sql(&file),
            );
        }
    }
    let source = fingerprint(server, DATABASE);
    let copy = fingerprint(server, "categories_private");
    for (name, text) in copy
        .iter()
        .filter(|(name, _)| name.starts_with("base table") || name.starts_with("rows of"))
    {
        assert_eq!(text, &source[name], "{name}");
    }
    assert!(copy.contains_key("base table l_child") && copy.contains_key("base table Mixed Case"));
}

#[test]
fn ephemeral_data_is_saved_only_where_e_asks_for_it() {
    let Some(Fixture { server, site, .. }) = fixture() else {
        return;
    };
    let again = Site::new(
        server,
        DATABASE,
        &Lists {
            ephemeral: vec!["e_00", "e_03"],
            ignore: vec!["e_01"],
            ..Lists::default()
        },
    );
    let target = again.path("ephemeral");
    again.backup_ok(&["-e", target.to_str().unwrap()]);
    let tables = json(target.join("manifest.json"))["tables"].clone();
    for table in ["e_00", "e_03"] {
        assert!(
            tables[table]["data"]["rows"].as_u64().is_some(),
            "{table} has no data: {tables}"
        );
    }
    assert!(tables["e_01"].is_null(), "an ignored table's data");
    assert_sums_hold(&target);
    assert_eq!(
        crate::site::mode(&target).unwrap() & 0o077,
        0,
        "the ephemeral data is private"
    );
    assert!(!site.path("ephemeral").exists());

    server.create_database("categories_ephemeral");
    load(server, "categories_ephemeral", &[&target]);
    let (source, copy) = (
        fingerprint(server, DATABASE),
        fingerprint(server, "categories_ephemeral"),
    );
    for kind in ["base table", "rows of"] {
        let name = format!("{kind} e_03");
        assert_eq!(source[&name], copy[&name]);
    }
}
