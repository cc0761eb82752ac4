//! Columns: their types, what must be known of one to read and write its values exactly, and
//! the columns that the server does not list.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;

use super::tables::Table;
use super::{Catalog, plain, rows};
use crate::error::Result;
use crate::server::flavor::Flavor;

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
    /// Whether it is a whole number that is stated with zeros before it.
    pub zerofill: bool,
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

impl Column {
    /// Whether its values are whole numbers, which every server sorts and compares alike.
    pub fn is_whole_number(&self) -> bool {
        let types = ["tinyint", "smallint", "mediumint", "int", "bigint", "year"];
        types.contains(&self.data_type.as_str())
    }

    fn is_geometry(&self) -> bool {
        let kinds = ["geometry", "point", "linestring", "polygon"];
        let collections = [
            "multipoint",
            "multilinestring",
            "multipolygon",
            "geometrycollection",
        ];
        let data_type = self.data_type.as_str();
        kinds.contains(&data_type) || collections.contains(&data_type)
    }

    /// A column that is NOT NULL and has nothing peculiar.
    pub(crate) fn plain(name: &str, data_type: &str) -> Column {
        Column {
            name: name.into(),
            data_type: data_type.into(),
            charset: None,
            nullable: false,
            generated: false,
            period: None,
            members: 0,
            by_number: false,
            bare_timestamp: false,
            srid: 0,
            fixed_decimals: false,
            zerofill: false,
            sorted_with_pad: false,
        }
    }
}

/// A column as the server states it.
pub(super) type Row = (
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
    bool,
);

/// What the server states of the columns of tables and views.
pub(super) fn read(conn: &mut Conn) -> Result<Vec<Row>> {
    let query = "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, CHARACTER_SET_NAME, IS_NULLABLE, EXTRA, \
                 GENERATION_EXPRESSION, IF(DATA_TYPE IN ('enum', 'set'), COLUMN_TYPE, ''), \
                 DATA_TYPE IN ('float', 'double') AND NUMERIC_SCALE IS NOT NULL, \
                 DATA_TYPE = 'char' AND COALESCE(COLLATION_NAME LIKE '%nopad%', FALSE), \
                 DATA_TYPE = 'timestamp' AND IS_NULLABLE = 'NO' AND COLUMN_DEFAULT IS NULL, \
                 DATA_TYPE LIKE '%int' AND COLUMN_TYPE LIKE '%zerofill' \
                 FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() \
                 ORDER BY TABLE_NAME, ORDINAL_POSITION";
    rows(conn, query)
}

/// Gives tables and views their columns. Returns the tables that count (AUTO_INCREMENT).
pub(super) fn assign(rows: Vec<Row>, catalog: &mut Catalog) -> Result<BTreeSet<String>> {
    let mut counting = BTreeSet::new();
    for row in rows {
        let (table, name, data_type, charset, nullable, extra, expression, list, ..) = row;
        let (.., fixed, pad, bare, zerofill) = row;
        if let Some(view) = catalog.views.get_mut(&table) {
            view.columns.push(name);
            continue;
        }
        let Some(table) = catalog.tables.get_mut(&table) else {
            continue;
        };
        charset.as_deref().map_or(Ok(()), plain)?;
        let extra = extra.unwrap_or_default();
        if extra.to_ascii_lowercase().contains("auto_increment") {
            counting.insert(table.name.clone());
        }
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
            zerofill,
            sorted_with_pad: pad,
        });
    }
    Ok(counting)
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
pub(super) fn add_hidden_period(table: &mut Table) {
    if !table.versioned || table.columns.iter().any(|c| c.period.is_some()) {
        return;
    }
    let hidden = [("row_start", Period::Start), ("row_end", Period::End)];
    table.columns.extend(hidden.map(|(name, period)| Column {
        period: Some(period),
        ..Column::plain(name, "timestamp")
    }));
}

/// Reads the reference systems of geometries, which MariaDB keeps to itself otherwise.
pub(super) fn reference_systems(
    conn: &mut Conn,
    flavor: &Flavor,
    tables: &mut BTreeMap<String, Table>,
) -> Result<()> {
    let mut columns = tables.values().flat_map(|table| &table.columns);
    if !flavor.is_mariadb() || !columns.any(Column::is_geometry) {
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
}
