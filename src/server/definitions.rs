//! The text of objects as the server states it (`SHOW CREATE …`), with the session settings
//! under which it was written. Texts are raw bytes in the object's own character set.

use mysql::{Row, Value};

use super::catalog::{Routine, Table, plain};
use super::connect::query_error;
use super::driver::Ask;
use super::snapshot::Session;
use super::{is_plain_name, quote_identifier};
use crate::error::{Error, ErrorKind, Result};
use crate::store::manifest::TableKind;

/// An object's text and what it depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    /// The statement that creates it, without a terminator.
    pub text: Vec<u8>,
    /// The `sql_mode` it was created under, where the object has one.
    pub sql_mode: Option<String>,
    /// The character set its text is in, where it is not utf8mb4.
    pub charset_client: Option<String>,
    /// The collation of literals in it.
    pub collation_connection: Option<String>,
    /// The time zone of an event.
    pub time_zone: Option<String>,
    /// The default collation of the database when it was created.
    pub database_collation: Option<String>,
    /// When an event was created, in seconds since 1970. Later the server may hold that the
    /// event is over, and not create it.
    pub created: Option<u64>,
}

/// What a server answers that finds no end to a statement.
const PARSE_ERROR: u16 = 1064;

/// The columns of the statement that creates a table or sequence.
const OF_TABLE: [&str; 1] = ["Create Table"];

/// The statement that creates a table or sequence.
pub fn table(session: &mut Session, table: &Table) -> Result<Definition> {
    show(session, kind(table), &table.name, "utf8mb4", &OF_TABLE)
}

/// The statements that create some tables and sequences. All are asked for together.
pub fn tables(session: &mut Session, tables: &[&Table]) -> Result<Vec<Definition>> {
    let queries = tables.iter().map(|table| query(kind(table), &table.name));
    let queries: Vec<_> = queries.collect();
    match session.results_in("utf8mb4")?.query_each::<Row>(&queries) {
        Ok(rows) => {
            let rows = rows.into_iter().map(|rows| rows.into_iter().next());
            let tables = tables.iter().zip(rows);
            tables.map(|(table, row)| of_table(table, row)).collect()
        }
        // It takes one statement at a time.
        Err((0, mysql::Error::MySqlError(error))) if error.code == PARSE_ERROR => {
            let tables = tables.iter();
            tables.map(|of| table(session, of)).collect()
        }
        Err((at, error)) => {
            let what = tables
                .get(at)
                .map_or_else(String::new, |table| describe(kind(table), &table.name));
            Err(query_error(&what, error))
        }
    }
}

/// One of several answers, if it is of this table: nothing but their order says so otherwise.
fn of_table(table: &Table, row: Option<Row>) -> Result<Definition> {
    let stated = row.as_ref().and_then(|row| row.as_ref(0));
    let other = match stated {
        // Servers that do not tell case apart may state another than that of the catalog.
        Some(Value::Bytes(name)) => {
            String::from_utf8_lossy(name).to_lowercase() != table.name.to_lowercase()
        }
        _ => false,
    };
    let definition = parse(kind(table), &table.name, row, &OF_TABLE)?;
    if other {
        let what = describe(kind(table), &table.name);
        let what = format!("{what}: the server states the definition of another");
        return Err(Error::new(ErrorKind::Failed, what));
    }
    Ok(definition)
}

fn kind(table: &Table) -> &'static str {
    match table.kind {
        TableKind::Table => "TABLE",
        TableKind::Sequence => "SEQUENCE",
    }
}

/// The statement that creates a view, in the character set it was written in.
pub fn view(session: &mut Session, name: &str, charset_client: &str) -> Result<Definition> {
    let charset = if is_plain_name(charset_client) {
        charset_client
    } else {
        "utf8mb4"
    };
    show(session, "VIEW", name, charset, &["Create View"])
}

/// The statement that creates a trigger.
pub fn trigger(session: &mut Session, name: &str) -> Result<Definition> {
    show(
        session,
        "TRIGGER",
        name,
        "NULL",
        &["SQL Original Statement"],
    )
}

/// The statement that creates a routine or package.
pub fn routine(session: &mut Session, routine: &Routine) -> Result<Definition> {
    let columns = [
        "Create Procedure",
        "Create Function",
        "Create Package",
        "Create Package Body",
    ];
    show(session, &routine.kind, &routine.name, "NULL", &columns)
}

/// The statement that creates an event.
pub fn event(session: &mut Session, name: &str) -> Result<Definition> {
    let mut definition = show(session, "EVENT", name, "NULL", &["Create Event"])?;
    definition.created = session
        .results_in("utf8mb4")?
        .exec_first(
            "SELECT UNIX_TIMESTAMP(CREATED) FROM information_schema.EVENTS \
             WHERE EVENT_SCHEMA = DATABASE() AND EVENT_NAME = ?",
            (name,),
        )
        .map_err(|e| query_error(&format!("event `{name}`"), e))?;
    Ok(definition)
}

/// The value a sequence will give next, and how many cycles it has been through.
pub fn sequence_state(session: &mut Session, name: &str) -> Result<(i64, u64)> {
    let query = format!(
        "SELECT next_not_cached_value, cycle_count FROM {}",
        quote_identifier(name)
    );
    let state: Option<(i64, u64)> = session
        .query_first(query)
        .map_err(|e| query_error(&format!("sequence `{name}`"), e))?;
    state.ok_or_else(|| {
        Error::new(
            ErrorKind::Failed,
            format!("sequence `{name}`: it has no state"),
        )
    })
}

fn show(
    session: &mut Session,
    kind: &str,
    name: &str,
    charset_results: &str,
    text_columns: &[&str],
) -> Result<Definition> {
    let row: Option<Row> = session
        .results_in(charset_results)?
        .query_first(query(kind, name))
        .map_err(|e| query_error(&describe(kind, name), e))?;
    parse(kind, name, row, text_columns)
}

fn query(kind: &str, name: &str) -> String {
    format!("SHOW CREATE {kind} {}", quote_identifier(name))
}

fn describe(kind: &str, name: &str) -> String {
    format!("{} `{name}`", kind.to_ascii_lowercase())
}

fn parse(kind: &str, name: &str, row: Option<Row>, text_columns: &[&str]) -> Result<Definition> {
    let what = describe(kind, name);
    let row = row.ok_or_else(|| {
        Error::new(
            ErrorKind::Failed,
            format!("{what}: the server states no definition"),
        )
    })?;
    let mut definition = Definition::default();
    let columns = row.columns();
    for (column, value) in columns.iter().zip(row.unwrap_raw()) {
        let Some(Value::Bytes(value)) = value else {
            continue;
        };
        let column = column.name_str();
        if text_columns.contains(&column.as_ref()) {
            definition.text = value;
            continue;
        }
        let value = String::from_utf8_lossy(&value).into_owned();
        match column.as_ref() {
            "sql_mode" => definition.sql_mode = Some(value),
            "character_set_client" => definition.charset_client = Some(value),
            "collation_connection" => definition.collation_connection = Some(value),
            "time_zone" => definition.time_zone = Some(value),
            "Database Collation" => {
                plain(&value)?;
                definition.database_collation = Some(value);
            }
            _ => {}
        }
    }
    if definition.text.is_empty() {
        return Err(Error::new(
            ErrorKind::Connect,
            format!("{what}: the server hides its text"),
        )
        .hint("the backup user lacks a privilege on it"));
    }
    Ok(definition)
}
