//! Names, comments, defaults, members, bodies and values that try to get out of the SQL that is
//! written of them: backed up, restored by the stock client and by our verb, everything comes
//! back equal, and nothing of it was executed. The source is filled by the driver, to which all
//! this is text.

use std::path::Path;

use mysql::prelude::Queryable;

use crate::compare::{assert_none, differences, fingerprint};
use crate::corpus;
use crate::server::{Kind, Server, on_each_kind, shared};

/// What would be there if a client had run a command of a shell.
const EXECUTED: &str = "canary.executed";

/// What gets out of a literal, an identifier, a comment, a line or a statement, where somebody
/// has not thought of it.
const NASTY: [&str; 24] = [
    "`; DROP TABLE canary; -- x",
    "``; DROP TABLE canary; #x",
    "'; DROP TABLE canary; -- x",
    "''; DROP TABLE canary; -- x",
    "\"; DROP TABLE canary; -- x",
    "\\'; DROP TABLE canary; -- x",
    "\\`; DROP TABLE canary; -- x",
    "x\\",
    "*/ DROP TABLE canary; /*x",
    "/*!50000 DROP TABLE canary */",
    "/*M! DROP TABLE canary */;",
    "x\nDROP TABLE canary;\n-- x",
    "x\r\nDROP TABLE canary;\r\nx",
    "\n\\! touch canary.executed\nx",
    "\\! touch canary.executed",
    "x\nsystem touch canary.executed\nx",
    "x;\nDELIMITER //\nDROP TABLE canary//\nx",
    "x\nsource canary.sql\nx",
    "x\n\\C gbk\nx\\g DROP TABLE canary\\G",
    "\\C sjis",
    "-- x\n);\nDROP TABLE canary;\nx",
    "); DROP TABLE canary; -- x",
    "$(touch canary.executed)`touch canary.executed`%n%s",
    "../../x;;$$//\u{1a}\u{85}\u{2028}é漢",
];

/// Character sets with a character whose last byte is that of a backslash, and it.
const SWALLOWING: [(&str, &str); 5] = [
    ("gbk", "815C"),
    ("big5", "A55C"),
    ("sjis", "835C"),
    ("cp932", "815C"),
    ("gb18030", "815C"),
];

/// A body that holds, in comments and strings and as names, what a client takes for its own
/// commands at the beginning of a line.
const BODY: &str = "BEGIN
/*
DELIMITER ;
\\! touch canary.executed
*/
-- ; DROP TABLE canary;
# ' \" `
SELECT 'x
DELIMITER ;
DROP TABLE canary;
\\! touch canary.executed
', \"
\\C gbk
\" AS `;
DELIMITER //
DROP TABLE canary//
`;
END";

fn name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn fill(server: &Server, database: &str) {
    server.create_database(database);
    let mut connection = server.connect();
    let mut run = |statement: &str| {
        connection
            .query_drop(statement)
            .unwrap_or_else(|e| panic!("{statement}: {e}"));
    };
    run(&format!("USE {}", name(database)));
    run("SET NAMES utf8mb4");
    run("SET sql_mode = '', time_zone = '+00:00'");
    run("CREATE TABLE canary (id INT PRIMARY KEY)");
    run("INSERT INTO canary VALUES (1)");
    for (number, nasty) in NASTY.iter().enumerate() {
        let (named, text) = (name(nasty), literal(nasty));
        let numbered = name(&format!("{number}{nasty}"));
        run(&format!(
            "CREATE TABLE {named} (id INT AUTO_INCREMENT PRIMARY KEY, {named} VARCHAR(90) NOT NULL DEFAULT {text} COMMENT {text},
               e ENUM({text}, 'other') DEFAULT {text}, b BLOB, d DATETIME(3), n DECIMAL(9,3), f DOUBLE,
               KEY {named} ({named}(20)) COMMENT {text}, CONSTRAINT {numbered} CHECK ({named} <> concat({text}, '!'))) COMMENT {text}"
        ));
        run(&format!(
            "INSERT INTO {named} ({named}, e, b, d, n, f) VALUES ({text}, 1, {text}, '2024-02-29 01:02:03.004', -1.5, -0e0), (DEFAULT, 2, NULL, NULL, 0, 1e300)"
        ));
        run(&format!(
            "CREATE VIEW {numbered} AS SELECT {text} AS {named}, {named} AS `x` FROM {named}"
        ));
        run(&format!(
            "CREATE TRIGGER {named} BEFORE INSERT ON {named} FOR EACH ROW BEGIN SET @x = {text}; /* {} */ END",
            nasty.replace("*/", "").replace("/*", "")
        ));
        run(&format!(
            "CREATE PROCEDURE {named} ({named} INT) COMMENT {text} BEGIN SELECT {text}, {named}; END"
        ));
        run(&format!(
            "CREATE EVENT {named} ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DISABLE COMMENT {text} DO BEGIN SELECT {text}; END"
        ));
    }
    run(&format!("CREATE PROCEDURE `lines` () {BODY}"));
    let partitions: Vec<String> = NASTY
        .iter()
        .enumerate()
        // The server makes a file's name of it.
        .filter(|(_, nasty)| nasty.len() < 30)
        .map(|(at, nasty)| {
            format!(
                "PARTITION {} VALUES LESS THAN ({at})",
                name(&nasty.replace('/', "|"))
            )
        })
        .collect();
    run(&format!(
        "CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) ({})",
        partitions.join(", ")
    ));
    run("INSERT INTO parts VALUES (0), (1), (2)");
    for (charset, character) in SWALLOWING {
        if charset == "gb18030" && !server.kind().is_mysql() {
            continue;
        }
        run(&format!(
            "CREATE TABLE in_{charset} (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT, v VARCHAR(200), KEY (v(9))) CHARSET {charset}"
        ));
        for nasty in NASTY {
            let text = format!(
                "CONCAT(_{charset} X'{character}', CONVERT({} USING {charset}), _{charset} X'{character}')",
                literal(nasty)
            );
            run(&format!(
                "INSERT INTO in_{charset} (t, v) VALUES ({text}, {text})"
            ));
        }
        // The lead byte of a character, and then what would be its tail.
        run(&format!(
            "INSERT IGNORE INTO in_{charset} (t, v) VALUES (CAST(X'81' AS CHAR CHARACTER SET binary), _binary X'BF27'), (_binary X'5C27', _binary X'5C')"
        ));
        run(&format!(
            "CREATE VIEW v_{charset} AS SELECT _{charset} X'{character}' AS a, CONCAT(t, _{charset} X'{character}27') AS b FROM in_{charset}"
        ));
    }
}

#[track_caller]
fn assert_nothing_ran(server: &Server, database: &str) {
    let rows: Vec<u32> = server
        .connect()
        .query(format!("SELECT id FROM {}.canary", name(database)))
        .unwrap();
    assert_eq!(rows, [1], "the canary of {database}");
    let ran = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXECUTED);
    assert!(!ran.exists(), "a client ran a command");
}

on_each_kind!(what_tries_to_get_out_comes_back_and_is_not_executed);

fn what_tries_to_get_out_comes_back_and_is_not_executed(kind: Kind) {
    let Some(server) = shared(kind) else { return };
    // The names of databases too.
    let database = "inj'\"; DROP TABLE canary; -- /*";
    let (loaded, restored) = (format!("{database} 1"), format!("{database} 2"));
    fill(server, database);
    let site = corpus::back_up(server, database);
    let expected = fingerprint(server, database);

    let mut failures = corpus::load(server, &loaded, &site);
    failures.extend(differences(&expected, &fingerprint(server, &loaded)));
    failures.extend(corpus::restore(server, &restored, &site, &expected));
    assert_none(kind, &failures);
    for database in [database, &loaded, &restored] {
        assert_nothing_ran(server, database);
    }
}
