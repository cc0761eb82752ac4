//! Loading a backup with the stock client, and comparing two databases by SQL. Nothing here
//! knows how the program reads or writes a value.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mysql::Value;
use mysql::prelude::Queryable;

use crate::server::Server;
use crate::site::{json, walk};

/// The SQL of one file, decompressed by the stock tool.
pub(crate) fn read_sql(file: &Path) -> Vec<u8> {
    if file.extension().is_none_or(|extension| extension != "zst") {
        return fs::read(file).unwrap();
    }
    let output = Command::new("zstd")
        .args(["-dcq"])
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "zstd -d {}: {output:?}",
        file.display()
    );
    output.stdout
}

/// The files directly in `dir`, by name.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    walk(dir)
        .into_iter()
        .filter(|path| path.is_file())
        .collect()
}

/// Loads whole backups into `database`, file by file, each with a client of its own: the
/// sequences and tables of the first, the data of all, and the first one's other objects in
/// the order that its manifest gives.
pub(crate) fn load(server: &Server, database: &str, backups: &[&Path]) {
    let load_file =
        |file: &Path| server.feed(database, &file.display().to_string(), &read_sql(file));
    let first = backups[0];
    for part in ["structure/sequences", "structure/tables"] {
        files(&first.join(part))
            .iter()
            .for_each(|file| load_file(file));
    }
    for backup in backups {
        files(&backup.join("data"))
            .iter()
            .for_each(|file| load_file(file));
    }
    for object in json(first.join("manifest.json"))["objects"]
        .as_array()
        .unwrap()
    {
        load_file(&first.join(object["file"].as_str().unwrap()));
    }
}

/// What a database holds, object by object, as the server states it: two databases with the
/// same fingerprint are the same.
pub(crate) fn fingerprint(server: &Server, database: &str) -> BTreeMap<String, String> {
    let mut connection = server.connect();
    connection.query_drop(format!("USE `{database}`")).unwrap();
    connection
        .query_drop("SET time_zone = '+00:00', sql_mode = '', character_set_results = NULL")
        .unwrap();
    let mut found = BTreeMap::new();

    let tables = texts(&mut connection, "SHOW FULL TABLES");
    for table in tables {
        let (name, kind) = (&table[0], table[1].as_str());
        let quoted = format!("`{}`", name.replace('`', "``"));
        let text = match kind {
            "BASE TABLE" => {
                let create = &texts(&mut connection, &format!("SHOW CREATE TABLE {quoted}"))[0][1];
                format!("{create}\n{}", rows_of(&mut connection, name, &quoted))
            }
            "SEQUENCE" => {
                let create =
                    &texts(&mut connection, &format!("SHOW CREATE SEQUENCE {quoted}"))[0][1];
                let state = &texts(&mut connection, &format!("SELECT * FROM {quoted}"))[0];
                format!("{create}\n{state:?}")
            }
            _ => format!(
                "{:?}",
                texts(&mut connection, &format!("SHOW CREATE VIEW {quoted}"))[0]
            ),
        };
        found.insert(format!("{} {name}", kind.to_lowercase()), text);
    }
    for (kind, query) in OBJECTS {
        for row in texts(&mut connection, query) {
            found.insert(format!("{kind} {}", row[0]), format!("{row:?}"));
        }
    }
    found
}

/// All that information_schema says of an object, but its database and its times.
const OBJECTS: [(&str, &str); 3] = [
    (
        "trigger",
        "SELECT trigger_name, event_manipulation, event_object_table, action_order, action_timing,
                action_statement, sql_mode, definer, character_set_client, collation_connection,
                database_collation
           FROM information_schema.triggers WHERE trigger_schema = database()",
    ),
    (
        "routine",
        "SELECT name, type, language, sql_data_access, is_deterministic, security_type, param_list,
                `returns`, body, definer, sql_mode, comment, character_set_client,
                collation_connection, db_collation, aggregate
           FROM mysql.proc WHERE db = database()",
    ),
    (
        "event",
        "SELECT event_name, definer, time_zone, event_definition, event_type, execute_at,
                interval_value, interval_field, sql_mode, starts, ends, status, on_completion,
                event_comment, character_set_client, collation_connection, database_collation
           FROM information_schema.events WHERE event_schema = database()",
    ),
];

/// Panics with the first difference between two fingerprints.
#[track_caller]
pub(crate) fn assert_same(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>) {
    let (names, found_names): (Vec<_>, Vec<_>) =
        (expected.keys().collect(), found.keys().collect());
    assert_eq!(names, found_names, "the objects of the two databases");
    for (name, text) in expected {
        assert_eq!(text, &found[name], "{name}");
    }
}

/// A table without its rows: the AUTO_INCREMENT counter belongs to them.
pub(crate) fn without_rows(text: &str) -> String {
    let mut structure = text
        .rsplit_once("\nROWS ")
        .map_or(text, |(structure, _)| structure)
        .to_owned();
    if let Some(at) = structure.find(" AUTO_INCREMENT=") {
        let digits = structure[at + 16..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap();
        structure.replace_range(at..at + 16 + digits, "");
    }
    structure
}

/// Count and checksums of a table's rows: the server's own, and one over the hexadecimal
/// form of each value.
fn rows_of(connection: &mut mysql::Conn, name: &str, quoted: &str) -> String {
    let types = connection.exec::<(String, String), _, _>(
        "SELECT column_name, data_type FROM information_schema.columns
          WHERE table_schema = database() AND table_name = ? ORDER BY ordinal_position",
        (name,),
    );
    let values = types.unwrap().into_iter().map(|(column, data_type)| {
        let column = format!("`{}`", column.replace('`', "``"));
        let text = match data_type.as_str() {
            // A FLOAT's text is cut to six digits; a DOUBLE's says every bit.
            "float" | "double" => format!("cast(cast({column} AS DOUBLE) AS CHAR)"),
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "bit"
            | "date" | "datetime" | "time" | "timestamp" | "year" => {
                format!("cast({column} AS CHAR)")
            }
            _ => column,
        };
        format!("coalesce(hex({text}), 'NULL')")
    });
    let row = format!(
        "sha2(concat_ws('/', {}), 256)",
        values.collect::<Vec<_>>().join(", ")
    );
    let sum = format!(
        "SELECT count(*), sum(cast(conv(left({row}, 15), 16, 10) AS UNSIGNED)) FROM {quoted}"
    );
    let ours = &texts(connection, &sum)[0];
    let servers = &texts(connection, &format!("CHECKSUM TABLE {quoted} EXTENDED"))[0][1];
    format!("ROWS {} checksum {servers} sum {}", ours[0], ours[1])
}

fn texts(connection: &mut mysql::Conn, query: &str) -> Vec<Vec<String>> {
    let rows: Vec<mysql::Row> = connection
        .query(query)
        .unwrap_or_else(|e| panic!("{query}: {e}"));
    let text = |value| match value {
        Value::Bytes(bytes) => {
            String::from_utf8(bytes).unwrap_or_else(|e| format!("{:?}", e.into_bytes()))
        }
        Value::NULL => "NULL".to_owned(),
        other => other.as_sql(true),
    };
    rows.into_iter()
        .map(|row| row.unwrap().into_iter().map(text).collect())
        .collect()
}
