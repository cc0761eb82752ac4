//! The names of tables and views, and how tables are stored: what is known before the catalog
//! is read, to classify and to lock by. The catalog itself begins with the same.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;

use super::super::connect::Connector;
use super::super::{join, quote_string};
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
    /// What a [`Listing`] would say now of some of the database's tables, of which there are
    /// about `all`. MariaDB looks through the names of all of them for a list, and not for one.
    pub fn read(conn: &mut Conn, tables: &[&str], all: usize) -> Result<BTreeMap<String, Listed>> {
        /// So many names are looked through in the time that a statement takes.
        const LOOKED_THROUGH: usize = 128;
        let together = if tables.len() > all / LOOKED_THROUGH {
            tables.len()
        } else {
            1
        };
        let mut found = BTreeMap::new();
        for tables in tables.chunks(together) {
            let names: Vec<_> = tables.iter().map(|name| quote_string(name)).collect();
            let query = match &names[..] {
                [name] => format!("{} AND t.TABLE_NAME = {name}", query(NO_SIZES)),
                names => format!(
                    "{} AND t.TABLE_NAME IN ({})",
                    query(NO_SIZES),
                    names.join(", ")
                ),
            };
            // Names are compared without regard to case here: there may be more than asked for.
            let stated = read_rows(conn, &query)?.into_iter();
            let stated = stated.filter(|stated| !stated.is_view());
            found.extend(stated.map(|stated| (stated.name, stated.listed)));
        }
        Ok(found)
    }

    /// Whether a table can still be the one that it was `before`. A server under load was seen to
    /// state no time of creation for a table that it states one of a moment later: that says
    /// nothing.
    pub fn can_be(&self, before: &Listed) -> bool {
        let known = before.created.is_some();
        let timeless = |listed: &Listed| Listed {
            created: listed.created.clone().filter(|_| known),
            ..listed.clone()
        };
        timeless(self) == timeless(before)
    }

    /// In words, for an error.
    pub fn describe(&self) -> String {
        let created = self.created.as_deref().unwrap_or("an unknown time");
        let versioned = if self.versioned { ", versioned" } else { "" };
        format!("{} of {created}{versioned}", self.engine)
    }

    /// Whether its rows are its own.
    pub fn holds_rows(&self) -> bool {
        !is_merge(&self.engine)
    }
}

impl Listing {
    /// Reads the names of tables and views.
    pub fn read(conn: &mut Conn) -> Result<Listing> {
        Ok(Listing::of(read_rows(conn, &query(NO_SIZES))?))
    }

    /// The same; of many tables half over another connection, if the server has one to spare.
    pub fn read_by_halves(conn: &mut Conn, connector: &Connector) -> Result<Listing> {
        const MANY: usize = 1000;
        let names = "SELECT TABLE_NAME FROM information_schema.TABLES \
                     WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME";
        let names: Vec<String> = rows(conn, names)?;
        let beside = (names.len() >= MANY).then(|| connector.connect());
        let Some(Ok(mut beside)) = beside else {
            return Listing::read(conn);
        };
        // Whatever names are equal to the server: each is in one half.
        let middle = quote_string(&names[names.len() / 2]);
        let half = |sign| format!("{} AND t.TABLE_NAME {sign} {middle}", query(NO_SIZES));
        let (lower, upper) = (half("<"), half(">="));
        std::thread::scope(|scope| {
            let upper = scope.spawn(|| read_rows(&mut beside, &upper));
            let mut stated = read_rows(conn, &lower)?;
            stated.append(&mut join(upper)?);
            Ok(Listing::of(stated))
        })
    }

    fn of(stated: Vec<Stated>) -> Listing {
        let mut listing = Listing {
            tables: BTreeMap::new(),
            views: BTreeSet::new(),
        };
        for stated in stated {
            if stated.is_view() {
                listing.views.insert(stated.name);
            } else {
                listing.tables.insert(stated.name, stated.listed);
            }
        }
        listing
    }
}

/// What the server states of a table or view. MariaDB opens every table for an answer, which takes
/// long where there are thousands: it is asked for all of it at once.
pub(super) struct Stated {
    pub(super) name: String,
    /// `BASE TABLE`, `VIEW`, …
    pub(super) kind: String,
    pub(super) listed: Listed,
    /// Rows and bytes of data, estimated.
    pub(super) rows: u64,
    pub(super) data_bytes: u64,
    pub(super) auto_increment: Option<u64>,
}

impl Stated {
    fn of(row: Row) -> Stated {
        let (name, kind, engine, transactional, created, rows, data_bytes, auto_increment) = row;
        let listed = Listed {
            engine,
            transactional,
            versioned: kind == "SYSTEM VERSIONED",
            created,
        };
        Stated {
            name,
            kind,
            listed,
            rows,
            data_bytes,
            auto_increment,
        }
    }

    pub(super) fn is_view(&self) -> bool {
        matches!(self.kind.as_str(), "VIEW" | "SYSTEM VIEW")
    }
}

/// What the server states of all tables and views of the database.
pub(super) fn read_stated(conn: &mut Conn) -> Result<Vec<Stated>> {
    read_rows(conn, &query(SIZES))
}

fn read_rows(conn: &mut Conn, query: &str) -> Result<Vec<Stated>> {
    let rows = rows::<Row>(conn, query)?;
    Ok(rows.into_iter().map(Stated::of).collect())
}

/// The columns of [`query`].
type Row = (
    String,
    String,
    String,
    bool,
    Option<String>,
    u64,
    u64,
    Option<u64>,
);

/// MySQL has these from the engine, table by table, and all else from its dictionary.
const SIZES: &str = "COALESCE(t.TABLE_ROWS, 0), COALESCE(t.DATA_LENGTH, 0), t.AUTO_INCREMENT";
/// The same for whoever does not look at them.
const NO_SIZES: &str = "0, 0, NULL";

/// A broken view or table is listed without an engine; reading it will say why.
fn query(sizes: &str) -> String {
    format!(
        "SELECT t.TABLE_NAME, t.TABLE_TYPE, COALESCE(t.ENGINE, ''), \
         COALESCE(e.TRANSACTIONS = 'YES', FALSE), CAST(t.CREATE_TIME AS CHAR), {sizes} \
         FROM information_schema.TABLES t \
         LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
         WHERE t.TABLE_SCHEMA = DATABASE()"
    )
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
        assert!(early.can_be(&early) && early.can_be(&unknown));
        assert!(!unknown.can_be(&late) && !early.can_be(&late));
        assert!(!listed(None, "Aria").can_be(&unknown));
    }
}
