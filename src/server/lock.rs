//! The short locks under which transactions are opened where the server has no lock-free way
//! to one state. Every wait is bounded; when it expires, the error names who is in the way.

use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;

use super::connect::{Connector, query_error};
use super::flavor::Flavor;
use super::rows::execute;
use super::{quote_identifier, quote_string};
use crate::error::{ErrorKind, Result};
use crate::interrupt::Interrupt;

/// A lock held by a connection of its own; released when dropped, at the latest by the
/// connection's end.
#[derive(Debug)]
pub struct ServerLock {
    conn: Conn,
    release: &'static str,
}

impl ServerLock {
    /// Stops commits on the whole server: `BACKUP STAGE BLOCK_COMMIT` where that is enough,
    /// `FLUSH TABLES WITH READ LOCK` otherwise.
    pub fn global(
        connector: &Connector,
        flavor: &Flavor,
        all_transactional: bool,
        timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<ServerLock> {
        let conn = connector.connect()?;
        if flavor.is_mariadb() && flavor.version >= (10, 4, 0) && all_transactional {
            let stages = ["START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"];
            let statements: Vec<_> = stages.iter().map(|s| format!("BACKUP STAGE {s}")).collect();
            Self::take(
                connector,
                conn,
                &statements,
                "BACKUP STAGE END",
                timeout,
                interrupt,
            )
        } else {
            let statements = ["FLUSH TABLES WITH READ LOCK".to_owned()];
            Self::take(
                connector,
                conn,
                &statements,
                "UNLOCK TABLES",
                timeout,
                interrupt,
            )
        }
    }

    /// Locks the named tables against writing.
    pub fn tables<'a>(
        connector: &Connector,
        tables: impl Iterator<Item = &'a str>,
        timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<ServerLock> {
        let conn = connector.connect()?;
        let list: Vec<_> = tables
            .map(|t| format!("{} READ", quote_identifier(t)))
            .collect();
        let statements = if list.is_empty() {
            Vec::new()
        } else {
            vec![format!("LOCK TABLES {}", list.join(", "))]
        };
        Self::take(
            connector,
            conn,
            &statements,
            "UNLOCK TABLES",
            timeout,
            interrupt,
        )
    }

    /// MySQL: keeps DDL away for the whole run. `None` where the privilege is missing.
    pub fn instance(
        connector: &Connector,
        timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<ServerLock> {
        let conn = connector.connect()?;
        let statements = ["LOCK INSTANCE FOR BACKUP".to_owned()];
        Self::take(
            connector,
            conn,
            &statements,
            "UNLOCK INSTANCE",
            timeout,
            interrupt,
        )
    }

    fn take(
        connector: &Connector,
        mut conn: Conn,
        statements: &[String],
        release: &'static str,
        timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<ServerLock> {
        let seconds = timeout.as_secs().max(1);
        conn.query_drop(format!("SET SESSION lock_wait_timeout={seconds}"))
            .map_err(|e| query_error("cannot bound the wait for a lock", e))?;
        for statement in statements {
            if let Err(error) = execute(&mut conn, statement, connector.is_encrypted(), interrupt) {
                if error.kind() == ErrorKind::Interrupted {
                    return Err(error);
                }
                let verb = statement.split(" `").next().unwrap_or(statement);
                let blocker = blocking_session(connector, conn.connection_id());
                let error = error.within(verb).with_kind(ErrorKind::Snapshot);
                return Err(match blocker {
                    Some(blocker) => error.hint(format!("in the way is {blocker}")),
                    None => error,
                });
            }
        }
        Ok(ServerLock { conn, release })
    }

    /// Releases the lock.
    pub fn release(mut self) -> Result<()> {
        let release = std::mem::replace(&mut self.release, "DO 0");
        self.conn
            .query_drop(release)
            .map_err(|e| query_error("cannot release the lock", e))
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        // A lost connection has released it already.
        if let Err(error) = self.conn.query_drop(self.release) {
            log::debug!("releasing a lock: {error}");
        }
    }
}

/// The session that has been busy longest, or has held a transaction open longest, in words.
fn blocking_session(connector: &Connector, own: u32) -> Option<String> {
    let mut conn = connector.connect().ok()?;
    let ours = [own, conn.connection_id()];
    let columns = "p.ID, p.USER, p.TIME, COALESCE(p.STATE, ''), p.COMMAND";
    let not_ours = format!(
        "p.ID NOT IN ({}, {}) AND p.COMMAND NOT IN ('Daemon', 'Binlog Dump')",
        ours[0], ours[1]
    );
    let waiting = quote_string("Waiting for%");
    let with_transactions = format!(
        "SELECT {columns} FROM information_schema.PROCESSLIST p \
         LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID \
         WHERE {not_ours} AND (p.COMMAND <> 'Sleep' OR t.trx_id IS NOT NULL) \
         AND COALESCE(p.STATE, '') NOT LIKE {waiting} \
         ORDER BY COALESCE(TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), p.TIME) DESC LIMIT 1"
    );
    let without = format!(
        "SELECT {columns} FROM information_schema.PROCESSLIST p WHERE {not_ours} \
         ORDER BY p.COMMAND = 'Sleep', p.TIME DESC LIMIT 1"
    );
    type Row = (u64, String, i64, String, String);
    let row: Option<Row> = conn
        .query_first(with_transactions)
        .or_else(|_| conn.query_first(without))
        .ok()?;
    let (id, user, seconds, state, command) = row?;
    let state = if state.is_empty() { command } else { state };
    Some(format!(
        "session {id} of user {user}, for {seconds} s: {state}"
    ))
}
