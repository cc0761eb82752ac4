//! Loading a backup with the stock client, and comparing two databases by SQL. Nothing here
//! knows how the program reads or writes a value.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mysql::Value;
use mysql::prelude::Queryable;

use crate::server::{Kind, Server};
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
/// same fingerprint are the same. A table's rows are an entry of their own.
pub(crate) fn fingerprint(server: &Server, database: &str) -> BTreeMap<String, String> {
    let mut connection = server.connect();
    connection.query_drop(format!("USE `{database}`")).unwrap();
    connection
        .query_drop("SET time_zone = '+00:00', sql_mode = '', character_set_results = NULL")
        .unwrap();
    let version: String = connection.query_first("SELECT version()").unwrap().unwrap();
    let mariadb = version.contains("MariaDB");
    let mut found = BTreeMap::new();
    let defaults = "SELECT default_character_set_name, default_collation_name
                      FROM information_schema.schemata WHERE schema_name = database()";
    found.insert(
        "database".to_owned(),
        format!("{:?}", texts(&mut connection, defaults)),
    );

    if mariadb {
        // What SHOW CREATE TABLE does not say.
        let systems = "SELECT g_table_name, g_geometry_column, srid
                         FROM information_schema.geometry_columns
                        WHERE g_table_schema = database() AND srid <> 0";
        for row in texts(&mut connection, systems) {
            let what = format!("base table {}: reference system of {}", row[0], row[1]);
            found.insert(what, row[2].clone());
        }
    }

    for table in texts(&mut connection, "SHOW FULL TABLES") {
        let (name, kind) = (&table[0], table[1].as_str());
        let quoted = quote(name);
        let text = match kind {
            "BASE TABLE" | "SYSTEM VERSIONED" => {
                let rows = rows_of(&mut connection, name, kind == "SYSTEM VERSIONED");
                found.insert(format!("rows of {name}"), rows);
                let show = format!("SHOW CREATE TABLE {quoted}");
                let create = texts(&mut connection, &show)[0][1].clone();
                if mariadb { create } else { said_once(&create) }
            }
            "SEQUENCE" => {
                let create =
                    &texts(&mut connection, &format!("SHOW CREATE SEQUENCE {quoted}"))[0][1];
                let state = &texts(&mut connection, &format!("SELECT * FROM {quoted}"))[0];
                format!("{create}\n{state:?}")
            }
            _ => {
                let details = format!(
                    "SELECT * FROM information_schema.views
                      WHERE table_schema = database() AND table_name = '{}'",
                    name.replace('\\', "\\\\").replace('\'', "''")
                );
                // The first columns say which database it is in.
                let details = texts(&mut connection, &details)[0].split_off(3);
                let create = &texts(&mut connection, &format!("SHOW CREATE VIEW {quoted}"))[0];
                format!("{create:?} {:?}", &details[1..])
            }
        };
        found.insert(format!("{} {name}", kind.to_lowercase()), text);
    }
    for (kind, columns, query) in OBJECTS {
        for name in texts(&mut connection, query).iter().map(|row| &row[0]) {
            let kinds = texts(&mut connection, &kind_of(kind, name));
            for row in kinds {
                let show = format!("SHOW CREATE {} {}", row[0], quote(name));
                // All but the time at which it was created, which only events keep.
                let shown = &texts(&mut connection, &show)[0];
                let shown = &shown[..shown.len().min(columns)];
                found.insert(
                    format!("{} {name}", row[0]),
                    format!("{shown:?} {:?}", &row[1..]),
                );
            }
        }
    }
    if mariadb {
        for row in texts(&mut connection, PROCEDURES) {
            found.insert(
                format!("details of {} {}", row[1], row[0]),
                format!("{row:?}"),
            );
        }
    }
    found
}

/// MySQL states a column's collation where it is the table's and not the character set's own,
/// and remembers on hearing that that it was stated: it then states the character set too.
fn said_once(create: &str) -> String {
    let of_table = create
        .rsplit_once(" DEFAULT CHARSET=")
        .and_then(|(_, options)| {
            let (charset, rest) = options.split_once(" COLLATE=")?;
            Some((charset, rest.split([' ', '\n']).next()?))
        });
    let Some((charset, collation)) = of_table else {
        return create.to_owned();
    };
    let stated = format!(" COLLATE {collation}");
    create.replace(&format!(" CHARACTER SET {charset}{stated}"), &stated)
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The kind of an object as SHOW CREATE wants it, and what information_schema says of it
/// besides.
fn kind_of(kind: &str, name: &str) -> String {
    let name = format!("'{}'", name.replace('\\', "\\\\").replace('\'', "''"));
    match kind {
        "trigger" => format!(
            "SELECT 'TRIGGER', event_manipulation, event_object_table, action_order, action_timing,
                    definer, database_collation
               FROM information_schema.triggers
              WHERE trigger_schema = database() AND trigger_name = {name}"
        ),
        "event" => format!(
            "SELECT 'EVENT', definer, time_zone, event_type, execute_at, interval_value,
                    interval_field, sql_mode, starts, ends, status, on_completion, event_comment,
                    database_collation, created
               FROM information_schema.events
              WHERE event_schema = database() AND event_name = {name}"
        ),
        _ => format!(
            "SELECT routine_type, sql_data_access, is_deterministic, security_type,
                    routine_comment, definer, sql_mode, database_collation
               FROM information_schema.routines
              WHERE routine_schema = database() AND routine_name = {name}"
        ),
    }
}

/// Kinds of objects, how many columns of SHOW CREATE to compare, and their names.
const OBJECTS: [(&str, usize, &str); 3] = [
    (
        "trigger",
        6,
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = database()",
    ),
    (
        "routine",
        6,
        "SELECT DISTINCT routine_name FROM information_schema.routines
          WHERE routine_schema = database()",
    ),
    (
        "event",
        7,
        "SELECT event_name FROM information_schema.events WHERE event_schema = database()",
    ),
];

/// What MariaDB's own table says of routines, but its database and its times.
const PROCEDURES: &str =
    "SELECT name, type, language, sql_data_access, is_deterministic, security_type, param_list,
            `returns`, body, definer, sql_mode, comment, character_set_client,
            collation_connection, db_collation, aggregate
       FROM mysql.proc WHERE db = database()";

/// The differences between two fingerprints, a line for each object that differs.
pub(crate) fn differences(
    expected: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> Vec<String> {
    let missing = expected.keys().filter(|name| !found.contains_key(*name));
    let missing = missing.map(|name| format!("missing: {name}"));
    let extra = found.keys().filter(|name| !expected.contains_key(*name));
    let extra = extra.map(|name| format!("not in the source: {name}"));
    let changed = expected.iter().filter_map(|(name, text)| {
        let other = found.get(name).filter(|other| *other != text)?;
        Some(format!("{name} differs:\n  was {text}\n  is  {other}"))
    });
    missing.chain(extra).chain(changed).collect()
}

/// Panics with all that failed on a server of the kind, unless nothing did.
#[track_caller]
pub(crate) fn assert_none(kind: Kind, failures: &[String]) {
    let count = failures.len();
    let list = failures.join("\n");
    assert!(failures.is_empty(), "{kind:?}: {count} failures\n{list}");
}

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

/// A table's definition without its AUTO_INCREMENT counter, which belongs to its rows.
pub(crate) fn without_counter(text: &str) -> String {
    let mut structure = text.to_owned();
    if let Some(at) = structure.find(" AUTO_INCREMENT=") {
        let digits = structure[at + 16..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap();
        structure.replace_range(at..at + 16 + digits, "");
    }
    structure
}

/// Count and checksums of a table's rows, with their history if it is `versioned`: the
/// server's own, and one over the hexadecimal form of each value; and for a few rows all of
/// that, in order.
fn rows_of(connection: &mut mysql::Conn, name: &str, versioned: bool) -> String {
    let types = connection.exec::<(String, String, String), _, _>(
        "SELECT column_name, data_type, extra FROM information_schema.columns
          WHERE table_schema = database() AND table_name = ? ORDER BY ordinal_position",
        (name,),
    );
    let types = types.unwrap();
    // MariaDB's checksum of a table with a virtual column is another after each rebuild.
    let is_virtual = types.iter().any(|(.., extra)| extra.contains("VIRTUAL"));
    let mut columns: Vec<_> = types
        .into_iter()
        .map(|(column, data_type, _)| (column, data_type))
        .collect();
    let period = |name: &str| (name.to_owned(), "timestamp".to_owned());
    if versioned
        && !columns
            .iter()
            .any(|(column, _)| column == "row_start" || column == "from")
    {
        columns.extend([period("row_start"), period("row_end")]);
    }
    let values = columns.into_iter().map(|(column, data_type)| {
        let column = quote(&column);
        let text = match data_type.as_str() {
            // A FLOAT's text is cut to six digits; a DOUBLE's says every bit.
            "float" | "double" => format!("cast(cast({column} AS DOUBLE) AS CHAR)"),
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "bit"
            | "date" | "datetime" | "time" | "timestamp" | "year" => {
                format!("cast({column} AS CHAR)")
            }
            // The number too: an error value and an empty member both look like ''.
            "enum" | "set" => format!("concat({column} | 0, '=', hex({column}))"),
            _ => column,
        };
        format!("coalesce(hex({text}), 'NULL')")
    });
    let row = format!("concat_ws('/', {})", values.collect::<Vec<_>>().join(", "));
    let quoted = quote(name);
    let source = format!(
        "{quoted}{}",
        if versioned {
            " FOR SYSTEM_TIME ALL"
        } else {
            ""
        }
    );
    let sum = format!(
        "SELECT count(*), sum(cast(conv(left(sha2({row}, 256), 15), 16, 10) AS UNSIGNED)) FROM {source}"
    );
    let ours = &texts(connection, &sum)[0];
    // MySQL's own checksum is about bytes that are no one's in a table with a multi-valued key.
    let create = &texts(connection, &format!("SHOW CREATE TABLE {quoted}"))[0][1];
    let servers = if create.contains(" array)") {
        "of arrays".to_owned()
    } else if is_virtual {
        "of virtual columns".to_owned()
    } else {
        texts(connection, &format!("CHECKSUM TABLE {quoted} EXTENDED"))[0][1].clone()
    };
    let mut text = format!("ROWS {} checksum {servers} sum {}", ours[0], ours[1]);
    if ours[0].parse::<u64>().unwrap() < 50 {
        // Not by the server, which looks at the first max_sort_length bytes of each only.
        let mut rows = texts(
            connection,
            &format!("SELECT left({row}, 2000) FROM {source}"),
        );
        rows.sort();
        for row in rows {
            text.push_str(&format!("\n    {}", row[0]));
        }
    }
    text
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
