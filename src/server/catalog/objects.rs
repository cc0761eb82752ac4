//! Views, triggers, routines and events: their names, and what of them must be known besides
//! their definitions.

use std::collections::BTreeMap;

use mysql::Conn;

use super::rows;
use crate::error::Result;

/// A view.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Its columns, for a placeholder.
    pub columns: Vec<String>,
    /// The character set its text was written in.
    pub charset_client: String,
}

/// A stored routine or package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Routine {
    /// As in `SHOW CREATE …`: `FUNCTION`, `PROCEDURE`, `PACKAGE`, `PACKAGE BODY`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

pub(super) fn view_charsets(conn: &mut Conn, views: &mut BTreeMap<String, View>) -> Result<()> {
    // The server looks at every table for an answer.
    if views.is_empty() {
        return Ok(());
    }
    let query = "SELECT TABLE_NAME, CHARACTER_SET_CLIENT FROM information_schema.VIEWS \
                 WHERE TABLE_SCHEMA = DATABASE()";
    for (name, charset) in rows::<(String, String)>(conn, query)? {
        if let Some(view) = views.get_mut(&name) {
            view.charset_client = charset;
        }
    }
    Ok(())
}

/// Each table and trigger of it, in the order in which they fire.
pub(super) fn triggers(conn: &mut Conn) -> Result<Vec<(String, String)>> {
    let query = "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS \
                 WHERE TRIGGER_SCHEMA = DATABASE() \
                 ORDER BY EVENT_OBJECT_TABLE, EVENT_MANIPULATION, ACTION_TIMING, ACTION_ORDER";
    rows(conn, query)
}

/// A package before its body, which is what the order of their kinds comes to.
pub(super) fn routines(conn: &mut Conn) -> Result<Vec<Routine>> {
    let query = "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES \
                 WHERE ROUTINE_SCHEMA = DATABASE()";
    let mut routines: Vec<_> = rows::<(String, String)>(conn, query)?
        .into_iter()
        .map(|(kind, name)| Routine { kind, name })
        .collect();
    routines.sort();
    Ok(routines)
}

pub(super) fn events(conn: &mut Conn) -> Result<Vec<String>> {
    let query = "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()";
    let mut events: Vec<String> = rows(conn, query)?;
    events.sort();
    Ok(events)
}
