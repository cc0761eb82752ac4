//! Unique keys: what can order a table and split it.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;

use super::listing::Listed;
use super::tables::Table;
use super::{Wanted, in_parts, is_worth_all, rows};
use crate::error::Result;
use crate::server::flavor::Flavor;

/// A unique key or the primary key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name; `PRIMARY` for the primary key.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<String>,
    /// Whether it is known to have an order that it can be walked along and cut by.
    pub ordered: bool,
}

/// A column of a key as the server states it.
pub(super) struct Part {
    table: String,
    key: String,
    column: String,
    /// Whether the key is of no use because of it.
    unusable: bool,
    /// How the key is sorted, if that was asked for.
    sorted: Option<Sorted>,
}

#[derive(Clone, Copy)]
enum Sorted {
    Upwards,
    Downwards,
    /// By a hash.
    Not,
}

/// What the server states of the columns of unique keys, in their order. MariaDB has to open a table
/// to say how a key is sorted, which takes long where there are thousands: it is asked for that only
/// where that may matter for how rows are read, and of all tables where these are many.
pub(super) fn read(conn: &mut Conn, wanted: &Wanted<'_>) -> Result<Vec<Part>> {
    let Wanted {
        flavor,
        listing,
        read,
        split,
        ..
    } = *wanted;
    let all = listing.tables.len();
    let matters = |(name, listed): &(&String, &Listed)| {
        read.contains(name.as_str())
            && (listed.engine != "InnoDB" || listed.partitioned || split.contains(name.as_str()))
    };
    let in_full = listing.tables.iter().filter(matters);
    let mut in_full: BTreeSet<String> = in_full.map(|(name, _)| name.clone()).collect();
    if !flavor.is_mariadb() || is_worth_all(in_full.len(), all) {
        return parts(conn, flavor, true, "");
    }
    let mut found = parts(conn, flavor, false, "")?;
    // Whether a table has a primary key that can be used, as far as it has keys.
    let mut by_primary: BTreeMap<&str, bool> = BTreeMap::new();
    for part in &found {
        let usable = part.key == "PRIMARY" && !part.unusable;
        *by_primary.entry(&part.table).or_insert(usable) &= usable || part.key != "PRIMARY";
    }
    let others = by_primary.iter().filter(|(_, by_primary)| !**by_primary);
    let others = others.map(|(table, _)| *table);
    in_full.extend(
        others
            .filter(|table| read.contains(table))
            .map(str::to_owned),
    );
    found.retain(|part| !in_full.contains(&part.table));
    let names: Vec<&str> = in_full.iter().map(String::as_str).collect();
    for among in in_parts(&names, all) {
        // Names are compared without regard to case here.
        let these: BTreeSet<&str> = among.names.iter().copied().collect();
        let parts = parts(conn, flavor, true, &among.condition)?.into_iter();
        found.extend(parts.filter(|part| these.contains(part.table.as_str())));
    }
    Ok(found)
}

/// The parts of keys of the tables that meet a condition, with how they are sorted or without.
fn parts(conn: &mut Conn, flavor: &Flavor, in_full: bool, condition: &str) -> Result<Vec<Part>> {
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
    let (index_type, direction) = if in_full {
        ("INDEX_TYPE", "COLLATION")
    } else {
        ("NULL", "NULL")
    };
    let query = format!(
        "SELECT TABLE_NAME, INDEX_NAME, {column}, {hidden} OR SUB_PART IS NOT NULL, \
         {index_type}, {direction} \
         FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = DATABASE() AND NON_UNIQUE = 0{condition} \
         ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"
    );
    type Row = (String, String, String, bool, Option<String>, Option<String>);
    let part = |(table, key, column, unusable, index_type, direction): Row| {
        let (index_type, direction) = (index_type.as_deref(), direction.as_deref());
        Part {
            table,
            key,
            column,
            unusable: unusable || !matches!(index_type, None | Some("BTREE" | "HASH")),
            sorted: index_type.map(|index_type| match (index_type, direction) {
                ("BTREE", Some("D")) => Sorted::Downwards,
                ("BTREE", _) => Sorted::Upwards,
                _ => Sorted::Not,
            }),
        }
    };
    let rows = rows::<Row>(conn, &query)?;
    Ok(rows.into_iter().map(part).collect())
}

/// Gives tables their unique keys over whole columns that queries may use: the ones that can order
/// a table and split it.
pub(super) fn assign(parts: Vec<Part>, flavor: &Flavor, tables: &mut BTreeMap<String, Table>) {
    let mut unusable: BTreeSet<(String, String)> = BTreeSet::new();
    for part in parts {
        let Some(table) = tables.get_mut(&part.table) else {
            continue;
        };
        let clustered = table.is_clustered_by(&part.key);
        let of_no_use = match part.sorted {
            // InnoDB's "hash" keys hide a column of hash values that no query can use.
            Some(Sorted::Not) => table.engine == "InnoDB",
            // MariaDB was seen to miss rows between bounds of such keys, in several ways.
            Some(Sorted::Downwards) => flavor.is_mariadb() && !clustered,
            Some(Sorted::Upwards) | None => false,
        };
        if part.unusable || of_no_use || part.column.is_empty() {
            unusable.insert((part.table, part.key.clone()));
        }
        let ordered = match part.sorted {
            Some(Sorted::Upwards) => true,
            Some(Sorted::Downwards) => !flavor.is_mariadb(),
            Some(Sorted::Not) | None => false,
        };
        match table.keys.last_mut() {
            Some(key) if key.name == part.key => {
                key.columns.push(part.column);
                key.ordered &= ordered;
            }
            _ => table.keys.push(Key {
                name: part.key,
                columns: vec![part.column],
                ordered,
            }),
        }
    }
    for table in tables.values_mut() {
        let name = &table.name;
        table
            .keys
            .retain(|key| !unusable.contains(&(name.clone(), key.name.clone())));
    }
}
