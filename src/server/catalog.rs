//! What the server says the database has: tables, columns, keys, sizes, and the names of all
//! other objects, read with one query for each kind, however many tables there are.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;
use mysql::prelude::{FromRow, Queryable};

use super::connect::query_error;
use super::flavor::Flavor;
use super::quote_identifier;
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
    /// Storage engine as the server names it; empty for a table that it cannot open.
    pub engine: String,
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
    /// Whether a foreign key from or to it refers to columns that are not unique (MySQL).
    pub lax_foreign_keys: bool,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Keys; the primary key first.
    pub keys: Vec<Key>,
    /// Whether the history of its rows is saved with them: they are then read `FOR
    /// SYSTEM_TIME ALL`, and their period is among the columns.
    pub versioned: bool,
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
    /// What it is to the history of a system-versioned table.
    pub period: Option<Period>,
    /// How many members an ENUM has; 0 for everything else.
    pub members: usize,
    /// Whether the values of an ENUM or SET are told by their numbers, because names are not
    /// certain to tell them apart.
    pub by_number: bool,
    /// Whether it has no default, although servers may make one up for its type.
    pub bare_timestamp: bool,
    /// The spatial reference system of a geometry where the server keeps it apart from the
    /// definition (MariaDB), else 0.
    pub srid: u32,
    /// Whether a FLOAT or DOUBLE is stated with a fixed number of decimals, which may be
    /// fewer than it has.
    pub fixed_decimals: bool,
    /// Whether it is a CHAR with one of MariaDB's NO PAD collations: an index sorts it with the
    /// spaces at its end, a comparison does without them, so that a range may miss rows.
    pub sorted_with_pad: bool,
}

/// The two columns that say from when to when a row of a system-versioned table was valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// `ROW START`.
    Start,
    /// `ROW END`; the latest time of all for a row that is still valid.
    End,
}

/// A unique key or the primary key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name; `PRIMARY` for the primary key.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<String>,
    /// Whether it has an order, so that it can be walked along; a hash has none.
    pub ordered: bool,
}

/// Engines whose tables show rows that another server or a file holds.
const ELSEWHERE: [&str; 8] = [
    "CONNECT",
    "FEDERATED",
    "MONGO",
    "NDBCLUSTER",
    "OQGRAPH",
    "S3",
    "SPHINX",
    "SPIDER",
];

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

impl Listed {
    /// Whether two listings can be of the same table. A server under load was seen to state no
    /// time of creation for a table that it states one of a moment later: that says nothing.
    pub fn agrees_with(&self, other: &Listed) -> bool {
        let known = self.created.is_some() && other.created.is_some();
        let timeless = |listed: &Listed| Listed {
            created: listed.created.clone().filter(|_| known),
            ..listed.clone()
        };
        timeless(self) == timeless(other)
    }
}

impl Table {
    /// The columns whose values are saved.
    pub fn stored_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.generated)
    }

    /// Whether its rows are its own.
    pub fn holds_rows(&self) -> bool {
        !is_merge(&self.engine)
    }

    /// Why its rows cannot be saved, if so: another place holds them, or nothing brings their
    /// history back.
    pub fn unsavable(&self) -> Option<String> {
        let engine = ELSEWHERE
            .iter()
            .find(|e| e.eq_ignore_ascii_case(&self.engine));
        if let Some(engine) = engine {
            return Some(format!("engine {engine} keeps its rows elsewhere"));
        }
        let by_transaction = |c: &Column| c.period.is_some() && c.data_type == "bigint";
        let precise = self.versioned && self.columns.iter().any(by_transaction);
        precise.then(|| "its history is by transaction, which cannot be restored".to_owned())
    }

    /// What to read its rows from: the table, with its history where that is saved.
    pub fn source(&self) -> String {
        let history = if self.versioned {
            " FOR SYSTEM_TIME ALL"
        } else {
            ""
        };
        format!("{}{history}", quote_identifier(&self.name))
    }

    /// The column that ends the period of a row whose history is saved.
    pub fn row_end(&self) -> Option<&Column> {
        self.columns
            .iter()
            .find(|column| self.versioned && column.period == Some(Period::End))
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// What MERGE shows are other tables' rows.
fn is_merge(engine: &str) -> bool {
    engine.eq_ignore_ascii_case("MRG_MyISAM")
}

impl Listed {
    /// Whether its rows are its own.
    pub fn holds_rows(&self) -> bool {
        !is_merge(&self.engine)
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
                        engine,
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
            tables: tables(conn, flavor, &listing)?,
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
        catalog.tables.values_mut().for_each(add_hidden_period);
        keys(conn, flavor, &mut catalog.tables)?;
        foreign_keys(conn, flavor, &mut catalog.tables)?;
        reference_systems(conn, flavor, &mut catalog.tables)?;
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

fn tables(conn: &mut Conn, flavor: &Flavor, listing: &Listing) -> Result<BTreeMap<String, Table>> {
    let query = "SELECT TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE, ''), COALESCE(TABLE_ROWS, 0), \
                 COALESCE(DATA_LENGTH, 0), AUTO_INCREMENT \
                 FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";
    type Row = (String, String, String, u64, u64, Option<u64>);
    let mut tables = BTreeMap::new();
    for (name, kind, engine, rows, data_bytes, auto_increment) in rows::<Row>(conn, query)? {
        let Some(listed) = listing.tables.get(&name) else {
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
            transactional: listed.transactional,
            rows,
            data_bytes,
            auto_increment,
            lax_foreign_keys: false,
            columns: Vec::new(),
            keys: Vec::new(),
            versioned: listed.versioned && flavor.takes_history(),
        };
        tables.insert(name, table);
    }
    Ok(tables)
}

fn columns(conn: &mut Conn, catalog: &mut Catalog) -> Result<()> {
    let query = "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, CHARACTER_SET_NAME, IS_NULLABLE, EXTRA, \
                 GENERATION_EXPRESSION, IF(DATA_TYPE IN ('enum', 'set'), COLUMN_TYPE, ''), \
                 DATA_TYPE IN ('float', 'double') AND NUMERIC_SCALE IS NOT NULL, \
                 DATA_TYPE = 'char' AND COALESCE(COLLATION_NAME LIKE '%nopad%', FALSE), \
                 DATA_TYPE = 'timestamp' AND IS_NULLABLE = 'NO' AND COLUMN_DEFAULT IS NULL \
                 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
                 ORDER BY TABLE_NAME, ORDINAL_POSITION";
    type Row = (
        String,
        String,
        String,
        Option<String>,
        String,
        Option<String>,
        Option<String>,
        String,
        bool,
        bool,
        bool,
    );
    for row in rows::<Row>(conn, query)? {
        let (table, name, data_type, charset, nullable, extra, expression, list, fixed, pad, bare) =
            row;
        if let Some(view) = catalog.views.get_mut(&table) {
            view.columns.push(name);
            continue;
        }
        let Some(table) = catalog.tables.get_mut(&table) else {
            continue;
        };
        let extra = extra.unwrap_or_default();
        let period = match expression.as_deref() {
            Some("ROW START") => Some(Period::Start),
            Some("ROW END") => Some(Period::End),
            _ => None,
        };
        let members = members(&list);
        let computed = extra.contains("VIRTUAL GENERATED") || extra.contains("STORED GENERATED");
        table.columns.push(Column {
            name,
            by_number: !told_by_name(&members),
            members: if data_type == "enum" {
                members.len()
            } else {
                0
            },
            data_type: data_type.to_ascii_lowercase(),
            charset,
            nullable: nullable == "YES",
            generated: computed && !(table.versioned && period.is_some()),
            period,
            bare_timestamp: bare,
            srid: 0,
            fixed_decimals: fixed,
            sorted_with_pad: pad,
        });
    }
    Ok(())
}

/// The members in `enum('a','b')` or `set('a','b')`, with quotes and backslashes in names as
/// they stand there.
fn members(column_type: &str) -> Vec<&str> {
    let list = column_type.split_once('(').map_or("", |(_, list)| list);
    let (mut members, mut begin) = (Vec::new(), None);
    let mut bytes = list.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match (byte, begin) {
            (b'\'', None) => begin = Some(at + 1),
            (b'\\', Some(_)) => {
                bytes.next();
            }
            // A quote in a name is written twice.
            (b'\'', Some(_)) if bytes.next_if(|(_, next)| *next == b'\'').is_some() => {}
            (b'\'', Some(from)) => {
                members.push(&list[from..at]);
                begin = None;
            }
            _ => {}
        }
    }
    members
}

/// Whether every member can be told by its name, whatever the character set and collation:
/// one without a name looks like the error value, and two may be equal to the server.
fn told_by_name(members: &[&str]) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-+.:/ ".contains(&b);
    let lower: BTreeSet<_> = members.iter().map(|m| m.to_ascii_lowercase()).collect();
    lower.len() == members.len()
        && members
            .iter()
            .all(|m| !m.is_empty() && m.bytes().all(plain))
}

/// The period of a table made `WITH SYSTEM VERSIONING` and no more than that: its columns
/// answer to their names, but the server does not list them.
fn add_hidden_period(table: &mut Table) {
    if !table.versioned || table.columns.iter().any(|c| c.period.is_some()) {
        return;
    }
    let hidden = [("row_start", Period::Start), ("row_end", Period::End)];
    table.columns.extend(hidden.map(|(name, period)| Column {
        name: name.into(),
        data_type: "timestamp".into(),
        charset: None,
        nullable: false,
        generated: false,
        period: Some(period),
        members: 0,
        by_number: false,
        bare_timestamp: false,
        srid: 0,
        fixed_decimals: false,
        sorted_with_pad: false,
    }));
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
    // MariaDB was seen to miss rows between bounds of keys with descending parts, in several ways.
    let descending = if flavor.is_mariadb() {
        "COALESCE(COLLATION, 'A') = 'D'"
    } else {
        "FALSE"
    };
    let query = format!(
        "SELECT TABLE_NAME, INDEX_NAME, {column}, \
         {hidden} OR {descending} OR SUB_PART IS NOT NULL OR INDEX_TYPE NOT IN ('BTREE', 'HASH'), \
         INDEX_TYPE = 'BTREE' FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND NON_UNIQUE = 0 \
         ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"
    );
    let mut partial: BTreeSet<(String, String)> = BTreeSet::new();
    type Row = (String, String, String, bool, bool);
    for (table, name, column, unusable, ordered) in rows::<Row>(conn, &query)? {
        let Some(table) = tables.get_mut(&table) else {
            continue;
        };
        // InnoDB's "hash" keys hide a column of hash values that no query can use.
        let unusable = unusable || (!ordered && table.engine == "InnoDB");
        if unusable || column.is_empty() {
            partial.insert((table.name.clone(), name.clone()));
        }
        match table.keys.last_mut() {
            Some(key) if key.name == name => key.columns.push(column),
            _ => table.keys.push(Key {
                name,
                columns: vec![column],
                ordered,
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

/// Reads the reference systems of geometries, which MariaDB keeps to itself otherwise.
fn reference_systems(
    conn: &mut Conn,
    flavor: &Flavor,
    tables: &mut BTreeMap<String, Table>,
) -> Result<()> {
    if !flavor.is_mariadb() {
        return Ok(());
    }
    let query = "SELECT G_TABLE_NAME, G_GEOMETRY_COLUMN, SRID \
                 FROM information_schema.GEOMETRY_COLUMNS \
                 WHERE G_TABLE_SCHEMA = DATABASE() AND SRID <> 0";
    for (table, name, srid) in rows::<(String, String, u32)>(conn, query)? {
        let columns = tables.get_mut(&table).map(|table| &mut table.columns);
        for column in columns.into_iter().flatten() {
            if column.name == name {
                column.srid = srid;
            }
        }
    }
    Ok(())
}

/// Finds the foreign keys that refer to no unique key, which MySQL allows only when told to.
fn foreign_keys(
    conn: &mut Conn,
    flavor: &Flavor,
    tables: &mut BTreeMap<String, Table>,
) -> Result<()> {
    if flavor.is_mariadb() || flavor.version < (8, 4, 0) {
        return Ok(());
    }
    let query = "SELECT TABLE_NAME, REFERENCED_TABLE_NAME \
                 FROM information_schema.REFERENTIAL_CONSTRAINTS \
                 WHERE CONSTRAINT_SCHEMA = DATABASE() AND UNIQUE_CONSTRAINT_NAME IS NULL";
    for (child, parent) in rows::<(String, String)>(conn, query)? {
        for name in [child, parent] {
            if let Some(table) = tables.get_mut(&name) {
                table.lax_foreign_keys = true;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_any_name() {
        let found = members("enum('a','it''s','x,y)','\\\\','')");
        assert_eq!(found, ["a", "it''s", "x,y)", "\\\\", ""]);
        assert!(members("int(11)").is_empty());
        assert!(told_by_name(&["a", "b c"]) && told_by_name(&[]));
        assert!(!told_by_name(&["a", "A"]) && !told_by_name(&[""]) && !told_by_name(&["é"]));
    }

    #[test]
    fn a_time_that_is_not_stated_tells_no_tables_apart() {
        let listed = |created: Option<&str>, engine: &str| Listed {
            engine: engine.into(),
            transactional: true,
            versioned: false,
            created: created.map(Into::into),
        };
        let (early, late) = (listed(Some("1"), "InnoDB"), listed(Some("2"), "InnoDB"));
        let unknown = listed(None, "InnoDB");
        assert!(early.agrees_with(&early) && early.agrees_with(&unknown));
        assert!(unknown.agrees_with(&late) && !early.agrees_with(&late));
        assert!(!unknown.agrees_with(&listed(None, "Aria")));
    }
}
