//! What the server says the database has: tables, columns, keys, sizes, and the names of all
//! other objects, read with a few queries for each kind, however many tables there are.

mod columns;
mod keys;
mod listing;
mod objects;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use crate::server::driver::Ask;
use mysql::Conn;
use mysql::prelude::FromRow;

pub use columns::{Column, Period};
pub use keys::Key;
pub use listing::{Listed, Listing};
pub use objects::{Routine, View};
pub use tables::Table;

use super::connect::query_error;
use super::flavor::Flavor;
use super::{is_plain_name, join, quote_identifier, quote_string};
use crate::config::ObjectKind;
use crate::error::{Error, ErrorKind, Result};
use crate::store::manifest::DatabaseEntry;

/// Everything the database has.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// The database itself.
    pub database: DatabaseEntry,
    /// Tables and sequences by name.
    pub tables: BTreeMap<String, Table>,
    /// Views by name.
    pub views: BTreeMap<String, View>,
    /// Tables that have triggers, with the triggers' names in the order in which they fire.
    pub triggers: BTreeMap<String, Vec<String>>,
    /// Procedures, functions and packages; a package comes before its body.
    pub routines: Vec<Routine>,
    /// Events by name.
    pub events: Vec<String>,
}

/// What to read of the catalog.
pub struct Wanted<'a> {
    /// The server's.
    pub flavor: &'a Flavor,
    /// The tables there are, and the views, if it is not from before the snapshot.
    pub listing: &'a Listing,
    /// Whether that is from before the snapshot, so that it has to be held against it.
    pub listed_before: bool,
    /// Kinds of object to leave out.
    pub skip: &'a [ObjectKind],
    /// Tables and views to leave out.
    pub ignored: &'a BTreeSet<String>,
    /// Tables whose rows are read.
    pub read: &'a BTreeSet<&'a str>,
    /// Those of them that may be read by ranges of a key.
    pub split: &'a BTreeSet<&'a str>,
}

impl Catalog {
    /// Reads it, over a second connection too, if there is one. Refuses where tables are others than
    /// before the snapshot: what was locked, and what is to be read, went by these.
    pub fn read(
        conn: &mut Conn,
        beside: Option<&mut Conn>,
        wanted: &Wanted<'_>,
    ) -> Result<Catalog> {
        std::thread::scope(|scope| {
            let beside = beside.map(|conn| scope.spawn(|| Apart::read(conn, wanted)));
            let views = views(conn, wanted);
            let keys = views.and_then(|views| Ok((views, keys::read(conn, wanted)?)));
            let apart = beside.map(join);
            // That DDL is running says more than what it broke.
            let (views, keys) = keys?;
            let apart = apart.unwrap_or_else(|| Apart::read(conn, wanted))?;
            Catalog::of(conn, wanted, views, keys, apart)
        })
    }

    fn of(
        conn: &mut Conn,
        wanted: &Wanted<'_>,
        views: BTreeSet<String>,
        keys: Vec<keys::Part>,
        apart: Apart,
    ) -> Result<Catalog> {
        let Wanted {
            flavor,
            listing,
            skip,
            ..
        } = *wanted;
        let is_wanted = |name: &String| !wanted.ignored.contains(name);
        let tables = listing.tables.iter().filter(|(name, _)| is_wanted(name));
        let tables = tables.map(|(name, listed)| (name.clone(), tables::of(name, listed, flavor)));
        let mut catalog = Catalog {
            database: database(conn)?,
            tables: tables.collect(),
            views: BTreeMap::new(),
            triggers: BTreeMap::new(),
            routines: apart.routines,
            events: apart.events,
        };
        if !skip.contains(&ObjectKind::Views) {
            let views = views.into_iter().filter(is_wanted);
            catalog.views = views.map(|name| (name, View::default())).collect();
            objects::view_charsets(conn, &mut catalog.views)?;
        }
        let mut counting = columns::assign(apart.columns, &mut catalog)?;
        counting.retain(|name| wanted.read.contains(name.as_str()));
        tables::counters(conn, &counting, listing.tables.len(), &mut catalog.tables)?;
        keys::assign(keys, flavor, &mut catalog.tables);
        catalog
            .tables
            .values_mut()
            .for_each(columns::add_hidden_period);
        tables::foreign_keys(conn, flavor, &mut catalog.tables)?;
        columns::reference_systems(conn, flavor, &mut catalog.tables)?;
        for (table, trigger) in apart.triggers {
            if is_wanted(&table) {
                catalog.triggers.entry(table).or_default().push(trigger);
            }
        }
        Ok(catalog)
    }

    /// Views whose tables, columns or functions are gone: the server states no columns of them.
    pub fn invalid_views(&self) -> impl Iterator<Item = &str> {
        let invalid = self
            .views
            .iter()
            .filter(|(_, view)| view.columns.is_empty());
        invalid.map(|(name, _)| name.as_str())
    }
}

/// What can be asked for without knowing of anything else: over another connection, then, if there
/// is one.
struct Apart {
    columns: Vec<columns::Row>,
    /// Each table and trigger of it, in the order in which they fire.
    triggers: Vec<(String, String)>,
    routines: Vec<Routine>,
    events: Vec<String>,
}

impl Apart {
    fn read(conn: &mut Conn, wanted: &Wanted<'_>) -> Result<Apart> {
        let mut apart = Apart {
            columns: columns::read(conn)?,
            triggers: Vec::new(),
            routines: Vec::new(),
            events: Vec::new(),
        };
        if !wanted.skip.contains(&ObjectKind::Triggers) {
            apart.triggers = objects::triggers(conn)?;
        }
        if !wanted.skip.contains(&ObjectKind::Routines) {
            apart.routines = objects::routines(conn)?;
        }
        if !wanted.skip.contains(&ObjectKind::Events) {
            apart.events = objects::events(conn)?;
        }
        Ok(apart)
    }
}

/// The views there are now. Refuses where tables are others than before.
fn views(conn: &mut Conn, wanted: &Wanted<'_>) -> Result<BTreeSet<String>> {
    if !wanted.listed_before {
        return Ok(wanted.listing.views.clone());
    }
    let now = Listing::at_hand(conn)?;
    let Some(name) = wanted.listing.changed(&now, wanted.ignored) else {
        let mut views = now.views;
        views.retain(|name| !wanted.listing.tables.contains_key(name));
        return Ok(views);
    };
    let what = format!(
        "table {} was created, dropped or altered while the backup began",
        quote_identifier(name)
    );
    Err(Error::new(ErrorKind::Failed, what).hint(
        "run again when no DDL runs; a table of no interest to the backup can be put on `ignore`",
    ))
}

/// Whether to ask for all tables for the sake of some: a list has its price too.
fn is_worth_all(some: usize, all: usize) -> bool {
    some > all / 4
}

/// A part of tables that are asked for, and the condition that leads to them, and perhaps to others.
struct Among<'a> {
    names: &'a [&'a str],
    condition: String,
}

/// Some of the database's tables, of which there are `all`, in parts for one query each. MariaDB
/// looks through the names of all for each.
fn in_parts<'a>(names: &'a [&'a str], all: usize) -> impl Iterator<Item = Among<'a>> {
    const AT_ONCE: usize = 250;
    let whole = is_worth_all(names.len(), all);
    let size = if whole { names.len().max(1) } else { AT_ONCE };
    names.chunks(size).map(move |names| {
        let quoted: Vec<_> = names.iter().map(|name| quote_string(name)).collect();
        let condition = if whole {
            String::new()
        } else {
            format!(" AND TABLE_NAME IN ({})", quoted.join(", "))
        };
        Among { names, condition }
    })
}

fn rows<T: FromRow>(conn: &mut Conn, query: &str) -> Result<Vec<T>> {
    conn.query(query)
        .map_err(|e| query_error("cannot read the catalog", e))
}

/// A character set or collation, whose name stands in statements without quotes.
pub(super) fn plain(name: &str) -> Result<()> {
    if is_plain_name(name) {
        return Ok(());
    }
    let what = format!("the server names a character set or collation {name:?}, which is no name");
    Err(Error::new(ErrorKind::Failed, what))
}

fn database(conn: &mut Conn) -> Result<DatabaseEntry> {
    let query = "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME \
                 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()";
    let row = rows::<(String, String, String)>(conn, query)?
        .into_iter()
        .next();
    let (name, charset, collation) = row.ok_or_else(|| {
        Error::new(
            ErrorKind::Connect,
            "the database cannot be seen by this user",
        )
    })?;
    plain(&charset)?;
    plain(&collation)?;
    Ok(DatabaseEntry {
        name,
        charset,
        collation,
    })
}
