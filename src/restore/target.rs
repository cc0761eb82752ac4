//! The database that is restored into: what is there already, and getting it out of the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::driver::Ask;
use mysql::Conn;
use mysql::prelude::FromRow;

use super::ledger;
use super::session::Session;
use super::source::{Source, SourceTable};
use super::{Content, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::server::connect::{ServerError, query_error};
use crate::server::{quote_identifier, quote_string};
use crate::store::manifest::TableKind;

/// What the target database holds, by kind and name.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// Whether the database is there.
    pub(super) exists: bool,
    /// The default collation of the database, if it is there.
    collation: Option<String>,
    /// Whether the server compares names of tables without their case.
    folds_case: bool,
    /// Whether it does not even keep their capitals.
    lowers_case: bool,
    /// Tables, views and sequences with their type as the server states it.
    pub(super) tables: BTreeMap<String, String>,
    /// Routines and packages: kind as in `DROP …`, and name in small letters: unlike those of
    /// tables, these names are compared without their case by every server.
    routines: BTreeSet<(String, String)>,
    /// Events, likewise in small letters.
    events: BTreeSet<String>,
    /// Tables that have triggers, with the triggers' names.
    triggers: BTreeMap<String, Vec<String>>,
}

impl Target {
    /// Reads what `database` holds.
    pub(super) fn read(conn: &mut Conn, database: &str) -> Result<Target> {
        let schema = quote_string(database);
        let exists: Vec<String> = rows(
            conn,
            &format!(
                "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME={schema}"
            ),
        )?;
        let folding: Vec<u64> = rows(conn, "SELECT @@lower_case_table_names")?;
        let mut target = Target {
            exists: !exists.is_empty(),
            collation: exists.into_iter().next(),
            folds_case: folding != [0],
            lowers_case: folding == [1],
            ..Target::default()
        };
        let tables: Vec<(String, String)> = rows(
            conn,
            &format!(
                "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA={schema}"
            ),
        )?;
        target.tables = tables
            .into_iter()
            .filter(|(name, _)| name != ledger::TABLE)
            .collect();
        let routines: Vec<(String, String)> = rows(
            conn,
            &format!(
                "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA={schema}"
            ),
        )?;
        target.routines = routines
            .into_iter()
            .filter(|(kind, _)| kind != "PACKAGE BODY")
            .map(|(kind, name)| (kind, name.to_lowercase()))
            .collect();
        let events: Vec<String> = rows(
            conn,
            &format!(
                "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA={schema}"
            ),
        )?;
        target.events = events.iter().map(|name| name.to_lowercase()).collect();
        let triggers: Vec<(String, String)> = rows(
            conn,
            &format!(
                "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA={schema}"
            ),
        )?;
        for (table, trigger) in triggers {
            target.triggers.entry(table).or_default().push(trigger);
        }
        Ok(target)
    }

    /// Routines, triggers and events take the default collation of their database on: in one with
    /// another default they would not be the same.
    pub(super) fn refuse_other_default(&self, source: &Source, database: &str) -> Result<()> {
        let wanted = &source.database.collation;
        let differs = self.collation.as_ref().filter(|here| *here != wanted);
        let (Some(here), true) = (
            differs,
            source.objects.iter().any(|object| object.kind != "view"),
        ) else {
            return Ok(());
        };
        let what = format!(
            "database `{database}` has the default collation {here}, the backup's has {wanted}: routines, triggers and events would not be the same"
        );
        let alter = format!(
            "ALTER DATABASE {} CHARACTER SET {} COLLATE {wanted}",
            quote_identifier(database),
            source.database.charset
        );
        Err(Error::new(ErrorKind::Config, what).hint(format!(
            "run {alter}, or restore into another database with --into"
        )))
    }

    /// Finds everything that stands in the way, and refuses to go on where something does that
    /// `request` does not allow to be replaced. The connection is in the target database.
    pub(super) fn refuse_conflicts(
        &self,
        conn: &mut Conn,
        source: &Source,
        request: &Request,
    ) -> Result<()> {
        let mut conflicts = self.case_conflicts(source);
        let mut all_replaceable = conflicts.is_empty();
        for table in &source.tables {
            let there = self.tables.get(&table.name).map(String::as_str);
            let (what, replaceable) = match (there, request.content) {
                (None, Content::Data) => ("is not there", false),
                (None, _) => continue,
                (Some("VIEW"), _) => ("is a view there", false),
                (Some(_), Content::Data) if self.triggers.contains_key(&table.name) => {
                    ("has triggers, which would change the rows", false)
                }
                (Some(_), _) if request.overwrite => continue,
                (Some("SEQUENCE"), Content::Data) => continue,
                (Some("SEQUENCE"), _) => ("is there already", true),
                (Some(kind), _) if !is_empty(conn, &table.name, kind)? => {
                    ("is there and has rows", true)
                }
                (Some(_), Content::All | Content::Structure)
                    if self.triggers.contains_key(&table.name) =>
                {
                    ("is there and has triggers", true)
                }
                (Some(_), _) => continue,
            };
            all_replaceable &= replaceable;
            conflicts.push(format!("table `{}` {what}", table.name));
        }
        for object in &source.objects {
            let there = match object.kind.as_str() {
                "view" => match self.tables.get(&object.name) {
                    Some(kind) if kind == "VIEW" => true,
                    Some(_) => {
                        all_replaceable = false;
                        conflicts.push(format!("view `{}` is a table there", object.name));
                        continue;
                    }
                    None => false,
                },
                "event" => self.events.contains(&object.name.to_lowercase()),
                // They go with their table, which is created anew.
                "triggers" => false,
                kind => self.has_routine(kind, &object.name),
            };
            if there && !request.overwrite {
                conflicts.push(format!(
                    "{} `{}` is there already",
                    object.kind, object.name
                ));
            }
        }
        let Some(first) = conflicts.first() else {
            return Ok(());
        };
        let more = match conflicts.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more like this"),
        };
        let what = format!("database `{}`: {first}{more}", request.connection.database);
        Err(Error::new(ErrorKind::Config, what).hint(match request.content {
            Content::Data if all_replaceable => "--overwrite empties the tables first",
            Content::Data => "--data-only loads into tables that are there and have no triggers",
            _ if all_replaceable => "--overwrite drops what stands in the way; --into NAME restores into another database",
            _ => "--into NAME restores into another database, --tables only some tables",
        }))
    }

    /// Names that the server would take for one, or not keep as they are.
    fn case_conflicts(&self, source: &Source) -> Vec<String> {
        let tables = source.tables.iter().map(|t| (t.kind.name(), &t.name));
        let views = source.objects.iter().filter(|o| o.kind == "view");
        let names = tables.chain(views.map(|view| ("view", &view.name)));
        let mut seen: BTreeMap<String, (&str, &String)> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for (kind, name) in names.filter(|_| self.folds_case) {
            let lowered = name.to_lowercase();
            if self.lowers_case && lowered != *name {
                conflicts.push(format!(
                    "{kind} `{name}` would become `{lowered}` on this server (lower_case_table_names)"
                ));
            }
            if let Some((other_kind, other)) = seen.insert(lowered, (kind, name)) {
                conflicts.push(format!(
                    "{kind} `{name}` and {other_kind} `{other}` have one name on this server (lower_case_table_names)"
                ));
            }
        }
        conflicts
    }

    fn has_routine(&self, kind: &str, name: &str) -> bool {
        let key = (kind.to_ascii_uppercase(), name.to_lowercase());
        self.routines.contains(&key)
    }
}

/// Drops a table or sequence so that one of its name can be created.
pub(super) fn drop_table(session: &mut Session<'_>, table: &SourceTable) -> Result<()> {
    // To the server a sequence is a table too.
    let name = quote_identifier(&table.name);
    run(session, &format!("DROP TABLE IF EXISTS {name}"))
}

/// Empties a table that stays.
pub(super) fn empty_table(session: &mut Session<'_>, table: &SourceTable) -> Result<()> {
    /// What MariaDB says of a table that keeps its history.
    const VERSIONED: u16 = 4137;
    if table.kind == TableKind::Sequence {
        return Ok(());
    }
    let name = quote_identifier(&table.name);
    match run(session, &format!("TRUNCATE TABLE {name}")) {
        Err(e) if ServerError::code_of(&e) == Some(VERSIONED) => {
            // What is deleted is history first.
            run(session, &format!("DELETE FROM {name}"))?;
            run(session, &format!("DELETE HISTORY FROM {name}"))
        }
        done => done,
    }
}

/// Drops an object, if it is there, so that its file can create it.
pub(super) fn drop_object(session: &mut Session<'_>, kind: &str, name: &str) -> Result<()> {
    let statements = match kind {
        // Created with OR REPLACE: others may stand on it already.
        "view" => Vec::new(),
        "triggers" => {
            let query = format!(
                "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS \
                 WHERE TRIGGER_SCHEMA=DATABASE() AND EVENT_OBJECT_TABLE={}",
                quote_string(name)
            );
            let triggers: Vec<String> = rows(&mut session.conn, &query)?;
            let drop = |t: &String| format!("DROP TRIGGER IF EXISTS {}", quote_identifier(t));
            triggers.iter().map(drop).collect()
        }
        // A word of its own only in this mode, before 11.
        "package" => vec![
            "SET SESSION sql_mode=CONCAT(@@sql_mode, ',ORACLE')".to_owned(),
            format!("DROP PACKAGE IF EXISTS {}", quote_identifier(name)),
        ],
        kind => vec![format!(
            "DROP {} IF EXISTS {}",
            kind.to_ascii_uppercase(),
            quote_identifier(name)
        )],
    };
    for statement in statements {
        run(session, &statement)?;
    }
    if kind == "package" {
        // The mode says ANSI_QUOTES too, and would stay.
        session.make_settings()?;
    }
    Ok(())
}

/// Whether a table of this type has no rows; nor, where it keeps them, had any.
fn is_empty(conn: &mut Conn, table: &str, kind: &str) -> Result<bool> {
    let history = match kind {
        "SYSTEM VERSIONED" => " FOR SYSTEM_TIME ALL",
        _ => "",
    };
    let query = format!("SELECT 1 FROM {}{history} LIMIT 1", quote_identifier(table));
    let found: Vec<u8> = conn
        .query(query)
        .map_err(|e| query_error(&format!("table `{table}`"), e))?;
    Ok(found.is_empty())
}

fn rows<T: FromRow>(conn: &mut Conn, query: &str) -> Result<Vec<T>> {
    conn.query(query)
        .map_err(|e| query_error("cannot read what the target holds", e))
}

fn run(session: &mut Session<'_>, statement: &str) -> Result<()> {
    let done = session.execute(statement.as_bytes());
    done.map_err(|e| e.within("cannot make room"))
}
