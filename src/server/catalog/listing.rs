//! The names of tables and views, and how tables are stored: what is known before the catalog
//! is read, to classify and to lock by.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;

use super::rows;
use super::tables::is_merge;
use crate::error::Result;

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

#[cfg(test)]
mod tests {
    use super::*;

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
