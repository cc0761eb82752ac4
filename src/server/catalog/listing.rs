//! The names of tables and views, and how tables are stored: what is known before the snapshot, to
//! classify and to lock by. The catalog begins with it. MariaDB opens every table to say when it was
//! created and how large it is, which takes long where there are thousands: it is asked for all of
//! that at once, before the snapshot, and whoever does not need it asks for what is at hand.

use std::collections::{BTreeMap, BTreeSet};

use mysql::Conn;

use super::super::connect::Connector;
use super::super::{join, quote_string};
use super::rows;
use super::tables::is_merge;
use crate::error::Result;
use crate::store::manifest::TableKind;

/// More rows or bytes than there are; so many can be added up.
const MOST: u64 = 1 << 48;

/// The names of tables and views, and how tables are stored: enough to classify and to lock.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Tables and sequences.
    pub tables: BTreeMap<String, Listed>,
    /// Views.
    pub views: BTreeSet<String>,
}

/// What a [`Listing`] says of a table.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Base table or sequence.
    pub kind: TableKind,
    /// Storage engine as the server names it; empty for a table that it cannot open.
    pub engine: String,
    /// Whether the engine has transactions.
    pub transactional: bool,
    /// Whether the table keeps the history of its rows (MariaDB).
    pub versioned: bool,
    /// When the table was last created, altered or renamed, as the server states it, if that was
    /// asked for.
    pub created: Option<String>,
    /// Rows, estimated; 0 if that was not asked for, as the next two.
    pub rows: u64,
    /// Bytes of data, estimated.
    pub data_bytes: u64,
    /// Whether its rows lie in partitions.
    pub partitioned: bool,
}

impl Listed {
    /// What a [`Listing`] would say now of some of the database's tables, of which there are
    /// about `all`, but for sizes and partitions. MariaDB looks through the names of all of them for a list,
    /// and not for one.
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
                [name] => format!("{} AND t.TABLE_NAME = {name}", query(TIMES)),
                names => format!(
                    "{} AND t.TABLE_NAME IN ({})",
                    query(TIMES),
                    names.join(", ")
                ),
            };
            // Names are compared without regard to case here: there may be more than asked for.
            found.extend(Listing::of(rows(conn, &query)?).tables);
        }
        Ok(found)
    }

    /// Whether a table can still be the one that it was `before`. A server under load was seen to
    /// state no time of creation for a table that it states one of a moment later: that says
    /// nothing.
    pub fn can_be(&self, before: &Listed) -> bool {
        self.is_same_kind(before) && (before.created.is_none() || self.created == before.created)
    }

    fn is_same_kind(&self, before: &Listed) -> bool {
        (self.kind, self.transactional, self.versioned)
            == (before.kind, before.transactional, before.versioned)
            && self.engine == before.engine
    }

    /// Whether a table is treated as it would have been `before`. Of one that could not be opened
    /// the server stated this and that: reading it says why.
    fn is_treated_alike(&self, before: &Listed) -> bool {
        let opened = before.created.is_some();
        before.is_broken()
            || self.holds_rows() == before.holds_rows() && (!opened || self.is_same_kind(before))
    }

    /// Whether the server does not even name its engine.
    fn is_broken(&self) -> bool {
        self.engine.is_empty()
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

    /// An empty InnoDB table.
    #[cfg(test)]
    pub(crate) fn plain() -> Listed {
        Listed {
            kind: TableKind::Table,
            engine: "InnoDB".into(),
            transactional: true,
            versioned: false,
            created: None,
            rows: 0,
            data_bytes: 0,
            partitioned: false,
        }
    }
}

impl Listing {
    /// Reads the names of tables and views, and how tables are stored.
    pub fn read(conn: &mut Conn) -> Result<Listing> {
        Ok(Listing::of(rows(conn, &query(ALL))?))
    }

    /// What MariaDB opens no table for: no times, no sizes, and nothing of partitions.
    pub fn at_hand(conn: &mut Conn) -> Result<Listing> {
        Ok(Listing::of(rows(conn, &query(AT_HAND))?))
    }

    /// Reads all of it; of many tables half over another connection, if the server has one to spare.
    pub fn read_by_halves(conn: &mut Conn, connector: &Connector) -> Result<Listing> {
        const MANY: usize = 1000;
        let names = "SELECT TABLE_NAME FROM information_schema.TABLES \
                     WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME";
        let names: Vec<String> = rows(conn, names)?;
        if names.len() < MANY {
            return Listing::read(conn);
        }
        let mut beside = match connector.connect() {
            Ok(beside) => beside,
            Err(error) => {
                log::debug!("all tables are listed over one connection: {error}");
                return Listing::read(conn);
            }
        };
        // Whatever names are equal to the server: each is in one half.
        let middle = quote_string(&names[names.len() / 2]);
        let half = |sign| format!("{} AND t.TABLE_NAME {sign} {middle}", query(ALL));
        let (lower, upper) = (half("<"), half(">="));
        std::thread::scope(|scope| {
            let upper = scope.spawn(|| rows(&mut beside, &upper));
            let mut stated = rows(conn, &lower)?;
            stated.append(&mut join(upper)?);
            Ok(Listing::of(stated))
        })
    }

    /// The names of its tables.
    pub fn table_names(&self) -> BTreeSet<&str> {
        self.tables.keys().map(String::as_str).collect()
    }

    /// A table that has come, gone or become another since this was read, by what is there `now`;
    /// names in `ignored` may.
    pub(super) fn changed<'a>(
        &'a self,
        now: &'a Listing,
        ignored: &BTreeSet<String>,
    ) -> Option<&'a str> {
        let mut names = self.tables.keys().chain(now.tables.keys());
        let changed = names.find(|name| {
            let other = match (self.tables.get(*name), now.tables.get(*name)) {
                (Some(before), Some(now)) => !now.is_treated_alike(before),
                // A broken view is taken for a table.
                (Some(before), None) => !(before.is_broken() && now.views.contains(*name)),
                _ => true,
            };
            other && !ignored.contains(*name)
        });
        changed.map(String::as_str)
    }

    fn of(rows: Vec<Row>) -> Listing {
        let mut listing = Listing {
            tables: BTreeMap::new(),
            views: BTreeSet::new(),
        };
        for (name, kind, engine, transactional, created, rows, data_bytes, partitioned) in rows {
            if matches!(kind.as_str(), "VIEW" | "SYSTEM VIEW") {
                listing.views.insert(name);
                continue;
            }
            let listed = Listed {
                kind: if kind == "SEQUENCE" {
                    TableKind::Sequence
                } else {
                    TableKind::Table
                },
                engine,
                transactional,
                versioned: kind == "SYSTEM VERSIONED",
                created,
                rows: rows.min(MOST),
                data_bytes: data_bytes.min(MOST),
                partitioned,
            };
            listing.tables.insert(name, listed);
        }
        listing
    }
}

/// The columns of [`query`].
type Row = (String, String, String, bool, Option<String>, u64, u64, bool);

/// MySQL has sizes from the engine, table by table, and all else from its dictionary.
const ALL: &str = "CAST(t.CREATE_TIME AS CHAR), COALESCE(t.TABLE_ROWS, 0), \
                   COALESCE(t.DATA_LENGTH, 0), COALESCE(t.CREATE_OPTIONS LIKE '%partitioned%', FALSE)";
const TIMES: &str = "CAST(t.CREATE_TIME AS CHAR), 0, 0, FALSE";
/// What MariaDB opens no table for.
const AT_HAND: &str = "NULL, 0, 0, FALSE";

/// A query for tables and views, with what is to be known of tables besides.
fn query(more: &str) -> String {
    format!(
        "SELECT t.TABLE_NAME, t.TABLE_TYPE, COALESCE(t.ENGINE, ''), \
         COALESCE(e.TRANSACTIONS = 'YES', FALSE), {more} \
         FROM information_schema.TABLES t \
         LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
         WHERE t.TABLE_SCHEMA = DATABASE()"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(created: Option<&str>, engine: &str) -> Listed {
        Listed {
            engine: engine.into(),
            created: created.map(Into::into),
            ..Listed::plain()
        }
    }

    #[test]
    fn a_time_that_is_not_stated_tells_no_tables_apart() {
        let (early, late) = (listed(Some("1"), "InnoDB"), listed(Some("2"), "InnoDB"));
        let unknown = listed(None, "InnoDB");
        assert!(early.can_be(&early) && early.can_be(&unknown));
        assert!(!unknown.can_be(&late) && !early.can_be(&late));
        assert!(!listed(None, "Aria").can_be(&unknown));
    }

    #[test]
    fn what_is_stated_in_part_is_no_other_table() {
        let now = listed(None, "InnoDB");
        assert!(now.is_treated_alike(&listed(Some("1"), "InnoDB")));
        assert!(!now.is_treated_alike(&listed(Some("1"), "Aria")));
        // It could not be opened.
        assert!(now.is_treated_alike(&listed(None, "partition")));
        assert!(listed(None, "MRG_MyISAM").is_treated_alike(&listed(None, "")));
        assert!(!now.is_treated_alike(&listed(None, "MRG_MyISAM")));
    }
}
