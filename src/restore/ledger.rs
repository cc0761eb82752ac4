//! What has been restored so far, in a table beside the restored ones, so that a restore that was
//! killed can be taken up again. A chunk is entered in the transaction that loads it, before its
//! rows: whatever became of the killed run's last transaction, the server lets exactly one of the
//! two keep the entry. The table goes away when the restore is complete.

use std::collections::BTreeSet;

use crate::server::driver::Ask;
use mysql::Conn;

use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::server::connect::{ServerError, query_error};
use crate::server::{quote_identifier, quote_string};

/// The table's name.
pub(super) const TABLE: &str = "_schema_backup_restore";

/// The entries that were there when the run began, and how to make more.
#[derive(Debug)]
pub(super) struct Ledger {
    done: BTreeSet<String>,
}

impl Ledger {
    /// The identity that an earlier restore left in the database, if one did.
    pub(super) fn left_behind(conn: &mut Conn, database: &str) -> Result<Option<String>> {
        let query = format!(
            "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA={} AND TABLE_NAME={}",
            quote_string(database),
            quote_string(TABLE)
        );
        conn.query_first(query).map_err(failed)
    }

    /// Begins a ledger. `identity` says what is restored, and how; it comes with the table, so
    /// that there is no moment at which one is there without the other.
    pub(super) fn begin(session: &mut Session<'_>, identity: &str) -> Result<Ledger> {
        let name = quote_identifier(TABLE);
        let create = format!(
            "CREATE TABLE {name} (item VARBINARY(2000) NOT NULL PRIMARY KEY) ENGINE=InnoDB COMMENT={}",
            quote_string(identity)
        );
        let run = |session: &mut Session<'_>, statement: String| {
            let done = session.execute(statement.as_bytes());
            done.map_err(|e| e.within(WHERE))
        };
        run(session, create)?;
        // Into an empty table the first of several transactions would keep all others waiting.
        run(session, format!("INSERT INTO {name} VALUES ('begun')"))?;
        Ok(Ledger {
            done: BTreeSet::new(),
        })
    }

    /// Takes up a ledger again.
    pub(super) fn resume(conn: &mut Conn) -> Result<Ledger> {
        let name = quote_identifier(TABLE);
        conn.query_drop(format!("INSERT IGNORE INTO {name} VALUES ('begun')"))
            .map_err(failed)?;
        let items: Vec<Vec<u8>> = conn
            .query(format!("SELECT item FROM {name}"))
            .map_err(failed)?;
        let text = |item: Vec<u8>| String::from_utf8_lossy(&item).into_owned();
        Ok(Ledger {
            done: items.into_iter().map(text).collect(),
        })
    }

    /// Whether an item was done before this run.
    pub(super) fn has(&self, item: &str) -> bool {
        self.done.contains(item)
    }

    /// Forgets items, of which nothing is there any more.
    pub(super) fn forget(&mut self, conn: &mut Conn, items: &[String]) -> Result<()> {
        for item in items.iter().filter(|item| self.done.remove(*item)) {
            let delete = format!(
                "DELETE FROM {} WHERE item={}",
                quote_identifier(TABLE),
                quote_string(item)
            );
            conn.query_drop(delete).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes the table.
    pub(super) fn end(session: &mut Session<'_>) -> Result<()> {
        let drop = format!("DROP TABLE {}", quote_identifier(TABLE));
        let done = session.execute(drop.as_bytes());
        done.map_err(|e| e.within(WHERE))
    }
}

/// Enters an item, in the transaction that is open or in one of its own. `false` where it is
/// there already; that may take until a transaction that has entered it ends.
pub(super) fn enter(session: &mut Session<'_>, item: &str) -> Result<bool> {
    let insert = format!(
        "INSERT INTO {} VALUES ({})",
        quote_identifier(TABLE),
        quote_string(item)
    );
    match session.execute(insert.as_bytes()) {
        Ok(()) => Ok(true),
        // Duplicate entry.
        Err(e) if ServerError::code_of(&e) == Some(1062) => Ok(false),
        Err(e) => Err(e.within(WHERE)),
    }
}

const WHERE: &str = "the ledger of the restore";

fn failed(error: mysql::Error) -> Error {
    query_error(WHERE, error).with_kind(ErrorKind::Failed)
}
