//! What the server says the database has: tables, columns, keys, sizes, and the names of all
//! other objects, read with one query for each kind, however many tables there are.

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
use listing::Stated;
pub use listing::{Listed, Listing};
pub use objects::{Routine, View};
pub use tables::Table;

use super::connect::query_error;
use super::flavor::Flavor;
use super::{is_plain_name, join};
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

impl Catalog {
    /// Reads all of it but the object kinds to `skip`, and but the names in `ignored`.
    pub fn read(
        conn: &mut Conn,
        flavor: &Flavor,
        skip: &[ObjectKind],
        ignored: &BTreeSet<String>,
    ) -> Result<Catalog> {
        Catalog::read_over(conn, None, flavor, skip, ignored)
    }

    /// The same over a second connection too, if there is one. With thousands of tables the keys
    /// take MariaDB about as long as all the rest.
    pub fn read_over(
        conn: &mut Conn,
        beside: Option<&mut Conn>,
        flavor: &Flavor,
        skip: &[ObjectKind],
        ignored: &BTreeSet<String>,
    ) -> Result<Catalog> {
        std::thread::scope(|scope| {
            let keys = beside.map(|conn| scope.spawn(|| keys::read(conn, flavor)));
            let mut catalog = Catalog::without_keys(conn, flavor, skip, ignored)?;
            let keys = keys.map_or_else(|| keys::read(conn, flavor), join)?;
            keys::assign(keys, &mut catalog.tables);
            Ok(catalog)
        })
    }

    fn without_keys(
        conn: &mut Conn,
        flavor: &Flavor,
        skip: &[ObjectKind],
        ignored: &BTreeSet<String>,
    ) -> Result<Catalog> {
        let stated = listing::read_stated(conn)?;
        let wanted = |name: &String| !ignored.contains(name);
        let (views, tables): (Vec<Stated>, Vec<Stated>) =
            stated.into_iter().partition(Stated::is_view);
        let mut catalog = Catalog {
            database: database(conn)?,
            tables: tables::of(tables, flavor),
            views: BTreeMap::new(),
            triggers: BTreeMap::new(),
            routines: Vec::new(),
            events: Vec::new(),
        };
        catalog.tables.retain(|name, _| wanted(name));
        if !skip.contains(&ObjectKind::Views) {
            catalog.views = views
                .into_iter()
                .filter(|view| wanted(&view.name))
                .map(|view| (view.name, View::default()))
                .collect();
            objects::view_charsets(conn, &mut catalog.views)?;
        }
        columns::read(conn, &mut catalog)?;
        catalog
            .tables
            .values_mut()
            .for_each(columns::add_hidden_period);
        tables::foreign_keys(conn, flavor, &mut catalog.tables)?;
        columns::reference_systems(conn, flavor, &mut catalog.tables)?;
        if !skip.contains(&ObjectKind::Triggers) {
            for (table, trigger) in objects::triggers(conn)? {
                if wanted(&table) {
                    catalog.triggers.entry(table).or_default().push(trigger);
                }
            }
        }
        if !skip.contains(&ObjectKind::Routines) {
            catalog.routines = objects::routines(conn)?;
        }
        if !skip.contains(&ObjectKind::Events) {
            catalog.events = objects::events(conn)?;
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

    /// The listing this catalog contains, to compare with an earlier one.
    pub fn agrees_with(&self, listing: &Listing, ignored: &BTreeSet<String>) -> bool {
        let before = listing
            .tables
            .keys()
            .filter(|name| !ignored.contains(*name));
        before.eq(self.tables.keys())
    }
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
