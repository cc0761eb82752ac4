//! The privileges that README asks for: a user with exactly these backs everything up, by each
//! way to one snapshot, and one who lacks any of them is refused.

use crate::server::{Kind, Server, on_each_kind, shared, with_binlog};
use crate::site::{Lists, Outcome, Site, json};

const README: &str = include_str!("../../README.md");

/// Whom a line of README's grants is for: what stands behind `--` there.
fn applies(remark: &str, kind: Kind, way: &str) -> bool {
    match remark {
        "always" => true,
        "MariaDB before 11.3" => kind == Kind::MariaDb10,
        "MariaDB from 11.3" => kind == Kind::MariaDb11,
        "MySQL" => kind.is_mysql(),
        _ => remark == format!("for --consistency {way}"),
    }
}

/// README's grants for a server of `kind` and a way, as `SELECT ON db.*`: one for each privilege.
fn documented(kind: Kind, way: &str, database: &str) -> Vec<String> {
    let lines = README
        .lines()
        .filter_map(|line| line.strip_prefix("    GRANT "));
    let mut grants = Vec::new();
    for line in lines {
        let (statement, remark) = line.split_once("-- ").unwrap();
        let (privileges, place) = statement.split_once(" ON ").unwrap();
        let place = place.trim_end().strip_suffix(" TO backup;").unwrap();
        if applies(remark.trim(), kind, way) {
            let place = place.replace("db.*", &format!("{database}.*"));
            grants.extend(
                privileges
                    .split(", ")
                    .map(|one| format!("{one} ON {place}")),
            );
        }
    }
    grants
}

fn fill(server: &Server, database: &str) {
    server.create_database(database);
    server.feed(
        database,
        "one of each kind of object",
        b"CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1), (2);
          CREATE VIEW v AS SELECT id FROM t;
          CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.id = NEW.id;
          CREATE EVENT e ON SCHEDULE AT '2033-01-01 00:00:00' DO SET @a = 1;
          CREATE PROCEDURE p() SELECT 1;",
    );
}

fn attempt(server: &Server, database: &str, way: &str, grants: &[&str]) -> (Site, Outcome) {
    let lists = Lists {
        global: vec!["t"],
        ..Lists::default()
    };
    let password = server.create_user(database, grants);
    let site =
        Site::new(server, database, &lists).connect_as(server, database, database, &password);
    let outcome = site.backup(&["-j", "2", "--consistency", way]);
    (site, outcome)
}

fn exactly_the_documented_grants_are_enough(server: &Server, way: &str) {
    let kind = server.kind();
    let database = format!("grants_{}", way.replace('-', "_"));
    fill(server, &database);
    let grants = documented(kind, way, &database);
    let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    let (site, outcome) = attempt(server, &database, way, &grants);
    outcome.expect_code(0);
    let manifest = json(site.host().join("manifest.json"));
    assert_eq!(manifest["objects"].as_array().unwrap().len(), 4);
    assert_eq!(manifest["tables"]["t"]["data"]["rows"], 2);
    assert_eq!(json(site.host().join("run.json"))["consistency"], way);

    for without in &grants {
        let fewer: Vec<&str> = grants
            .iter()
            .copied()
            .filter(|grant| grant != without)
            .collect();
        let (site, outcome) = attempt(server, &database, way, &fewer);
        let refused = matches!(outcome.code, Some(10 | 11));
        assert!(refused, "{kind:?}, {way}, without {without}: {outcome:?}");
        assert!(!site.host().exists());
    }
}

on_each_kind!(by_each_way);

fn by_each_way(kind: Kind) {
    if kind == Kind::MariaDb10
        && let Some(server) = with_binlog()
    {
        exactly_the_documented_grants_are_enough(server, "binlog");
    }
    if let Some(server) = shared(kind) {
        for way in ["global-lock", "table-locks"] {
            exactly_the_documented_grants_are_enough(server, way);
        }
    }
}
