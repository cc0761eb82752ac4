//! Base tables and sequences: what is stated of a table as a whole, and what follows from it
//! for reading its rows.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;

use super::columns::{Column, Period};
use super::keys::Key;
use super::listing::Listed;
use super::{in_parts, rows};
use crate::error::Result;
use crate::server::flavor::Flavor;
use crate::server::quote_identifier;
use crate::store::manifest::TableKind;

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
    /// Whether its rows lie in partitions.
    pub partitioned: bool,
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

    /// The key in whose order its rows are stored, where that is known.
    pub fn clustered(&self) -> Option<&Key> {
        let mut keys = self.keys.iter();
        keys.find(|key| self.is_clustered_by(&key.name))
    }

    /// Whether its rows are stored in the order of a key, in each partition.
    pub fn is_clustered_by(&self, key: &str) -> bool {
        self.engine == "InnoDB" && key == "PRIMARY"
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
pub(super) fn is_merge(engine: &str) -> bool {
    engine.eq_ignore_ascii_case("MRG_MyISAM")
}

/// A table as it is listed, without its columns and keys.
pub(super) fn of(name: &str, listed: &Listed, flavor: &Flavor) -> Table {
    Table {
        name: name.to_owned(),
        kind: listed.kind,
        engine: listed.engine.clone(),
        transactional: listed.transactional,
        rows: listed.rows,
        data_bytes: listed.data_bytes,
        partitioned: listed.partitioned,
        auto_increment: None,
        lax_foreign_keys: false,
        columns: Vec::new(),
        keys: Vec::new(),
        versioned: listed.versioned && flavor.takes_history(),
    }
}

/// Reads the counters (AUTO_INCREMENT) of the tables that have one, of `all` in the database. The
/// server opens them for it.
pub(super) fn counters(
    conn: &mut Conn,
    counting: &BTreeSet<String>,
    all: usize,
    tables: &mut BTreeMap<String, Table>,
) -> Result<()> {
    let names: Vec<&str> = counting.iter().map(String::as_str).collect();
    for among in in_parts(&names, all) {
        let query = format!(
            "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = DATABASE(){}",
            among.condition
        );
        for (name, next) in rows::<(String, Option<u64>)>(conn, &query)? {
            if let Some(table) = tables.get_mut(&name) {
                table.auto_increment = next;
            }
        }
    }
    Ok(())
}

/// Finds the foreign keys that refer to no unique key, which MySQL allows only when told to.
pub(super) fn foreign_keys(
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
