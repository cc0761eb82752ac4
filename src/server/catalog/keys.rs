//! Unique keys: what can order a table and split it.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;

use super::rows;
use super::tables::Table;
use crate::error::Result;
use crate::server::flavor::Flavor;

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

/// A column of a key as the server states it: table, key, column, whether the key is of no use
/// because of it, and whether the key has an order.
type Row = (String, String, String, bool, bool);

/// What the server states of the columns of unique keys, in their order.
pub(super) fn read(conn: &mut Conn, flavor: &Flavor) -> Result<Vec<Row>> {
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
    rows::<Row>(conn, &query)
}

/// Gives tables their unique keys over whole columns that queries may use: the ones that can order
/// a table and split it.
pub(super) fn assign(stated: Vec<Row>, tables: &mut BTreeMap<String, Table>) {
    let mut partial: BTreeSet<(String, String)> = BTreeSet::new();
    for (table, name, column, unusable, ordered) in stated {
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
}
