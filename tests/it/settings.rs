//! Whatever a server's global settings make of a session, the program's or the stock client's:
//! what is exported and loaded under them comes back as it was.

use crate::compare::{assert_none, differences, fingerprint};
use crate::corpus::{TOPICS, back_up, fill, load};
use crate::server::{Kind, Server, on_each_kind};

/// Settings under which carelessly written files would be read differently.
const SETTINGS: [&str; 7] = [
    "sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT,STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE'",
    "time_zone = 'Test/Summer'",
    "character_set_server = cp1251, GLOBAL collation_server = cp1251_bulgarian_ci",
    "autocommit = 0",
    "explicit_defaults_for_timestamp = 0",
    "default_storage_engine = MyISAM",
    "auto_increment_increment = 10, GLOBAL auto_increment_offset = 3",
];

/// What is written under such settings, where a backslash is a letter, double quotes enclose
/// names and bars join strings.
const HOSTILE: &str = r#"
SET NAMES utf8mb4;
CREATE TABLE "backslashes\" ("it's" VARCHAR(20) DEFAULT '\' COMMENT 'a\b''c"d', "a\\b" VARCHAR(20) DEFAULT '\n', t TIMESTAMP NULL) ENGINE=InnoDB COMMENT='\''\\';
INSERT INTO "backslashes\" VALUES ('\', '\\', '2024-10-27 02:30:00'), ('''', '\''', '2024-07-01 12:00:00');
COMMIT; SET explicit_defaults_for_timestamp = 1;
CREATE TABLE bare (a TIMESTAMP NOT NULL, b TIMESTAMP(3) NOT NULL, c TIMESTAMP NULL) ENGINE=InnoDB;
SET explicit_defaults_for_timestamp = 0;
CREATE TABLE dressed (a TIMESTAMP NOT NULL, c TIMESTAMP NULL) ENGINE=InnoDB;
CREATE VIEW "view""s" AS SELECT "it's" || '\' AS "joined\" FROM "backslashes\";
DELIMITER //
CREATE PROCEDURE "pro""c" (a INT) BEGIN SELECT '\' || "it's" FROM "backslashes\"; /* \' */ SELECT '\\'; END//
CREATE FUNCTION "f\" () RETURNS VARCHAR(10) DETERMINISTIC RETURN 'a\' || 'b'//
CREATE TRIGGER "t\" BEFORE INSERT ON "backslashes\" FOR EACH ROW SET NEW."a\\b" = '\' || NEW."it's"//
CREATE EVENT "e\" ON SCHEDULE EVERY 1 DAY STARTS '2030-07-01 00:00:00' DISABLE DO SET @a = '\' || "e"//
"#;

/// A time zone with summer time: the servers come without any.
fn time_zone() -> String {
    let mut sql = String::from(
        "SET time_zone = '+00:00';
         INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (901, 'N');
         INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Test/Summer', 901);
         INSERT INTO mysql.time_zone_transition_type VALUES (901, 0, 3600, 0, 'W'), (901, 1, 7200, 1, 'S');\n",
    );
    for year in 1971..=2037 {
        sql.push_str(&format!(
            "INSERT INTO mysql.time_zone_transition VALUES (901, UNIX_TIMESTAMP('{year}-03-31 01:00:00'), 1), (901, UNIX_TIMESTAMP('{year}-10-27 01:00:00'), 0);\n"
        ));
    }
    sql
}

on_each_kind!(global_settings_change_nothing);

fn global_settings_change_nothing(kind: Kind) {
    let Some(server) = Server::start_kind(kind, &[]) else {
        return;
    };
    server.create_database("settings");
    server.feed("settings", "a time zone", time_zone().as_bytes());
    let topics: Vec<&str> = TOPICS.into_iter().collect();
    for topic in &topics {
        fill(&server, &format!("settings_{topic}"), topic);
    }
    for setting in SETTINGS {
        server.execute(&[&format!("SET GLOBAL {setting}")]);
    }
    server.feed("settings", "hostile things", HOSTILE.as_bytes());

    let databases = topics.iter().map(|topic| format!("settings_{topic}"));
    let mut failures = Vec::new();
    for database in databases.chain(["settings".to_owned()]) {
        let site = back_up(&server, &database);
        let again = format!("{database}_again");
        let mut found = load(&server, &again, &site);
        let (source, target) = (
            fingerprint(&server, &database),
            fingerprint(&server, &again),
        );
        found.extend(differences(&source, &target));
        failures.extend(
            found
                .into_iter()
                .map(|failure| format!("{database}: {failure}")),
        );
    }
    assert_none(kind, &failures);
}
