//! What the server says the database has: tables, columns, keys, sizes, and the names of all
//! other objects, read with one query for each kind, however many tables there are.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;
use mysql::prelude::{FromRow, Queryable};

use super::connect::query_error;
use super::flavor::Flavor;
use crate::config::ObjectKind;
use crate::error::{Error, ErrorKind, Result};
use crate::store::manifest::{DatabaseEntry, TableKind};

/// The names of tables and views, and how tables are stored: enough to classify and to lock.
/// Read before the snapshot, and compared with what there is after the last row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Tables and sequences.
    pub tables: BTreeMap<String, Listed>,
    /// Views.
    pub views: BTreeSet<String>,
}

/// What a [`Listing`] says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Whether the engine has transactions.
    pub transactional: bool,
    /// Whether the table keeps the history of its rows (MariaDB).
    pub versioned: bool,
    /// When the table was last created, altered or renamed, as the server states it.
    pub created: Option<String>,
}

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

/// A base table or sequence.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Base table or sequence.
    pub kind: TableKind,
    /// Storage engine as the server names it.
    pub engine: String,
    /// Whether reads inside a snapshot see the snapshot.
    pub transactional: bool,
    /// Rows, estimated.
    pub rows: u64,
    /// Bytes of data, estimated.
    pub data_bytes: u64,
    /// The next AUTO_INCREMENT value.
    pub auto_increment: Option<u64>,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Keys; the primary key first.
    pub keys: Vec<Key>,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Type without attributes, lower case: `int`, `varchar`.
    pub data_type: String,
    /// Character set of text; `None` for everything else.
    pub charset: Option<String>,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether the server computes it, so that it cannot be written.
    pub generated: bool,
}

/// A unique key or the primary key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name; `PRIMARY` for the primary key.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<String>,
}

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

impl Table {
    /// The columns whose values are saved.
    pub fn stored_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.generated)
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Listing {
    /// Reads the names of tables and views.
    pub fn read(conn: &mut Conn) -> Result<Listing> {
        let transactional: BTreeSet<String> = rows::<String>(
            conn,
            "SELECT ENGINE FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES'",
        )?
        .into_iter()
        .collect();
        let mut listing = Listing {
            tables: BTreeMap::new(),
            views: BTreeSet::new(),
        };
        let query = "SELECT TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE, ''), CAST(CREATE_TIME AS CHAR) \
                     FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";
        type Row = (String, String, String, Option<String>);
        for (name, kind, engine, created) in rows::<Row>(conn, query)? {
            match kind.as_str() {
                "VIEW" | "SYSTEM VIEW" => {
                    listing.views.insert(name);
                }
                // A broken view or table is listed without an engine; reading it will say why.
                _ => {
                    let listed = Listed {
                        transactional: transactional.contains(&engine),
                        versioned: kind == "SYSTEM VERSIONED",
                        created,
                    };
                    listing.tables.insert(name, listed);
                }
            }
        }
        Ok(listing)
    }
}

impl Catalog {
    /// Reads all of it but the object kinds to `skip`, and but the names in `ignored`.
    pub fn read(
        conn: &mut Conn,
        flavor: &Flavor,
        skip: &[ObjectKind],
        ignored: &BTreeSet<String>,
    ) -> Result<Catalog> {
        let listing = Listing::read(conn)?;
        let wanted = |name: &String| !ignored.contains(name);
        let mut catalog = Catalog {
            database: database(conn)?,
            tables: tables(conn, &listing)?,
            views: BTreeMap::new(),
            triggers: BTreeMap::new(),
            routines: Vec::new(),
            events: Vec::new(),
        };
        catalog.tables.retain(|name, _| wanted(name));
        if !skip.contains(&ObjectKind::Views) {
            catalog.views = listing
                .views
                .iter()
                .filter(|n| wanted(n))
                .map(|n| (n.clone(), View::default()))
                .collect();
            view_charsets(conn, &mut catalog.views)?;
        }
        columns(conn, &mut catalog)?;
        keys(conn, flavor, &mut catalog.tables)?;
        if !skip.contains(&ObjectKind::Triggers) {
            let query = "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS \
                         WHERE TRIGGER_SCHEMA = DATABASE() \
                         ORDER BY EVENT_OBJECT_TABLE, EVENT_MANIPULATION, ACTION_TIMING, ACTION_ORDER";
            for (table, trigger) in rows::<(String, String)>(conn, query)? {
                if wanted(&table) {
                    catalog.triggers.entry(table).or_default().push(trigger);
                }
            }
        }
        if !skip.contains(&ObjectKind::Routines) {
            let query = "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES \
                         WHERE ROUTINE_SCHEMA = DATABASE()";
            let routines = rows::<(String, String)>(conn, query)?;
            catalog.routines = routines
                .into_iter()
                .map(|(kind, name)| Routine { kind, name })
                .collect();
            catalog.routines.sort();
        }
        if !skip.contains(&ObjectKind::Events) {
            let query =
                "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()";
            catalog.events = rows(conn, query)?;
            catalog.events.sort();
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
    Ok(DatabaseEntry {
        name,
        charset,
        collation,
    })
}

fn tables(conn: &mut Conn, listing: &Listing) -> Result<BTreeMap<String, Table>> {
    let query = "SELECT TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE, ''), COALESCE(TABLE_ROWS, 0), \
                 COALESCE(DATA_LENGTH, 0), AUTO_INCREMENT \
                 FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";
    type Row = (String, String, String, u64, u64, Option<u64>);
    let mut tables = BTreeMap::new();
    for (name, kind, engine, rows, data_bytes, auto_increment) in rows::<Row>(conn, query)? {
        let Some(&Listed { transactional, .. }) = listing.tables.get(&name) else {
            continue;
        };
        let kind = if kind == "SEQUENCE" {
            TableKind::Sequence
        } else {
            TableKind::Table
        };
        let table = Table {
            name: name.clone(),
            kind,
            engine,
            transactional,
            rows,
            data_bytes,
            auto_increment,
            columns: Vec::new(),
            keys: Vec::new(),
        };
        tables.insert(name, table);
    }
    Ok(tables)
}

fn columns(conn: &mut Conn, catalog: &mut Catalog) -> Result<()> {
    let query = "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, CHARACTER_SET_NAME, IS_NULLABLE, EXTRA \
                 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
                 ORDER BY TABLE_NAME, ORDINAL_POSITION";
    type Row = (
        String,
        String,
        String,
        Option<String>,
        String,
        Option<String>,
    );
    for (table, name, data_type, charset, nullable, extra) in rows::<Row>(conn, query)? {
        if let Some(view) = catalog.views.get_mut(&table) {
            view.columns.push(name);
        } else if let Some(table) = catalog.tables.get_mut(&table) {
            let extra = extra.unwrap_or_default();
            table.columns.push(Column {
                name,
                data_type: data_type.to_ascii_lowercase(),
                charset,
                nullable: nullable == "YES",
                generated: extra.contains("VIRTUAL GENERATED")
                    || extra.contains("STORED GENERATED"),
            });
        }
    }
    Ok(())
}

/// Unique keys over whole columns that queries may use: the ones that can order a table and
/// split it.
fn keys(conn: &mut Conn, flavor: &Flavor, tables: &mut BTreeMap<String, Table>) -> Result<()> {
    // MySQL's functional key parts have no column.
    let column = if flavor.is_mariadb() {
        "COLUMN_NAME"
    } else {
        "COALESCE(COLUMN_NAME, '')"
    };
    let hidden = match (flavor.is_mariadb(), flavor.version) {
        (true, version) if version >= (10, 6, 0) => "IGNORED = 'YES'",
        (false, version) if version >= (8, 0, 0) => "IS_VISIBLE = 'NO'",
        _ => "FALSE",
    };
    let query = format!(
        "SELECT TABLE_NAME, INDEX_NAME, {column}, \
         {hidden} OR SUB_PART IS NOT NULL OR INDEX_TYPE NOT IN ('BTREE', 'HASH') \
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND NON_UNIQUE = 0 \
         ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"
    );
    let mut partial: BTreeSet<(String, String)> = BTreeSet::new();
    for (table, name, column, unusable) in rows::<(String, String, String, bool)>(conn, &query)? {
        let Some(table) = tables.get_mut(&table) else {
            continue;
        };
        if unusable || column.is_empty() {
            partial.insert((table.name.clone(), name.clone()));
        }
        match table.keys.last_mut() {
            Some(key) if key.name == name => key.columns.push(column),
            _ => table.keys.push(Key {
                name,
                columns: vec![column],
            }),
        }
    }
    for table in tables.values_mut() {
        let name = &table.name;
        table
            .keys
            .retain(|key| !partial.contains(&(name.clone(), key.name.clone())));
    }
    Ok(())
}

fn view_charsets(conn: &mut Conn, views: &mut BTreeMap<String, View>) -> Result<()> {
    let query = "SELECT TABLE_NAME, CHARACTER_SET_CLIENT FROM information_schema.VIEWS \
                 WHERE TABLE_SCHEMA = DATABASE()";
    for (name, charset) in rows::<(String, String)>(conn, query)? {
        if let Some(view) = views.get_mut(&name) {
            view.charset_client = charset;
        }
    }
    Ok(())
}
