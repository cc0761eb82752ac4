//! A live database held against what backups say of it: `verify --against` asks whether it has
//! changed, `restore` whether it arrived. [`compare_rows`] recomputes what the manifest has of
//! every table's rows, [`compare_definitions`] asks the server for every definition again.
//!
//! What differs is data, in the order in which the manifests name it, and never an error; an
//! error means that something could not be compared.

use std::fmt;

use serde::Serialize;

mod definitions;
mod rows;

pub use definitions::{Stated, added, compare_definitions};
pub use rows::{compare_rows, tables_read};

/// Something that the database has otherwise than the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `table`, `sequence`, or the kind of an object as manifests name it.
    pub kind: String,
    /// Its name; of triggers, the table's.
    pub name: String,
    /// In which way.
    #[serde(flatten)]
    pub change: Change,
}

/// In which way something differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// The database does not have it.
    Missing,
    /// The backup does not have it.
    Added,
    /// Another statement creates it.
    Definition,
    /// Other columns can be written, or in another order; the rows were not compared.
    Columns {
        /// In the backup.
        backup: Vec<String>,
        /// In the database.
        live: Vec<String>,
    },
    /// Another number of rows.
    Rows {
        /// In the backup.
        backup: u64,
        /// In the database.
        live: u64,
    },
    /// As many rows, but not the same.
    Content {
        /// How many.
        rows: u64,
    },
    /// The next AUTO_INCREMENT value is another.
    AutoIncrement {
        /// In the backup.
        backup: Option<u64>,
        /// In the database.
        live: Option<u64>,
    },
    /// A sequence stands elsewhere.
    State,
}

impl Difference {
    fn new(kind: &str, name: &str, change: Change) -> Difference {
        Difference {
            kind: kind.to_owned(),
            name: name.to_owned(),
            change,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { kind, name, change } = self;
        match kind.as_str() {
            "triggers" => write!(f, "triggers of table `{name}`: ")?,
            _ => write!(f, "{kind} `{name}`: ")?,
        }
        let value = |value: &Option<u64>| value.map_or_else(|| "none".into(), |v| v.to_string());
        match change {
            Change::Missing => f.write_str("not in the database"),
            Change::Added => f.write_str("not in the backup"),
            Change::Definition => f.write_str("its definition differs"),
            Change::Columns { backup, live } => write!(
                f,
                "its columns differ: ({}) in the backup, ({}) in the database",
                backup.join(", "),
                live.join(", ")
            ),
            Change::Rows { backup, live } => {
                let (more, by) = if live > backup {
                    ("more", live - backup)
                } else {
                    ("fewer", backup - live)
                };
                write!(
                    f,
                    "{live} rows, {by} {more} than the {backup} in the backup"
                )
            }
            Change::Content { rows } => write!(f, "{rows} rows as in the backup, but not the same"),
            Change::AutoIncrement { backup, live } => write!(
                f,
                "its next AUTO_INCREMENT is {}, in the backup {}",
                value(live),
                value(backup)
            ),
            Change::State => f.write_str("its next value differs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_what_and_by_how_much() {
        let rows = Change::Rows {
            backup: 10,
            live: 7,
        };
        let difference = Difference::new("table", "t", rows);
        assert_eq!(
            difference.to_string(),
            "table `t`: 7 rows, 3 fewer than the 10 in the backup"
        );
        let json = serde_json::to_value(&difference).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"kind": "table", "name": "t", "change": "rows", "backup": 10, "live": 7})
        );
    }
}
