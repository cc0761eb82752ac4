//! The short locks under which transactions are opened where the server has no lock-free way
//! to one state. Every wait is bounded; when it expires, the error names who is in the way.

use super::connect::{Connector, query_error};
use super::driver::Ask;
use super::execute::execute;
use super::flavor::Flavor;
use super::line::Line;
use super::quote_identifier;
use crate::error::{ErrorKind, Result};
use crate::interrupt::Interrupt;

/// How to wait for a lock.
pub struct Wait<'a> {
    /// Opens the connection that holds the lock.
    pub connector: &'a Connector,
    /// Ends the wait early.
    pub interrupt: &'a Interrupt,
    /// Connections of this run, which are in nobody's way.
    pub ours: Vec<u32>,
}

/// A lock held by a connection of its own; released when dropped, at the latest by the
/// connection's end.
#[derive(Debug)]
pub struct ServerLock {
    conn: Line,
    release: &'static str,
}

impl ServerLock {
    /// Stops commits on the whole server: `BACKUP STAGE BLOCK_COMMIT` where that is enough,
    /// `FLUSH TABLES WITH READ LOCK` otherwise.
    pub fn global(flavor: &Flavor, all_transactional: bool, wait: &Wait<'_>) -> Result<ServerLock> {
        if flavor.is_mariadb() && flavor.version >= (10, 4, 0) && all_transactional {
            let stages = ["START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"];
            let statements: Vec<_> = stages.iter().map(|s| format!("BACKUP STAGE {s}")).collect();
            Self::take(&statements, "BACKUP STAGE END", wait)
        } else {
            let statements = ["FLUSH TABLES WITH READ LOCK".to_owned()];
            Self::take(&statements, "UNLOCK TABLES", wait)
        }
    }

    /// Locks the named tables against writing.
    pub fn tables<'a>(
        tables: impl Iterator<Item = &'a str>,
        wait: &Wait<'_>,
    ) -> Result<ServerLock> {
        let list: Vec<_> = tables
            .map(|t| format!("{} READ", quote_identifier(t)))
            .collect();
        let statements = if list.is_empty() {
            Vec::new()
        } else {
            vec![format!("LOCK TABLES {}", list.join(", "))]
        };
        Self::take(&statements, "UNLOCK TABLES", wait)
    }

    /// MySQL: keeps DDL away for as long as it is held.
    pub fn instance(wait: &Wait<'_>) -> Result<ServerLock> {
        Self::take(
            &["LOCK INSTANCE FOR BACKUP".to_owned()],
            "UNLOCK INSTANCE",
            wait,
        )
    }

    fn take(statements: &[String], release: &'static str, wait: &Wait<'_>) -> Result<ServerLock> {
        let mut conn = wait.connector.connect()?;
        for statement in statements {
            let done = execute(
                &mut conn,
                statement.as_bytes(),
                wait.connector,
                wait.interrupt,
            );
            let Err(error) = done else { continue };
            if error.kind() == ErrorKind::Interrupted {
                return Err(error);
            }
            let verb = statement.split(" `").next().unwrap_or(statement);
            let error = error.within(verb).with_kind(ErrorKind::Snapshot);
            return Err(match blocking_session(wait, conn.connection_id()) {
                Some(blocker) => error.hint(format!("probably in the way: {blocker}")),
                None => error,
            });
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

/// The session that most likely holds the lock, in words: the one with the oldest transaction
/// or statement, else the one that has been idle longest (it may hold `LOCK TABLES`). Without
/// the privilege PROCESS the server shows the user's own sessions only.
fn blocking_session(wait: &Wait<'_>, own: u32) -> Option<String> {
    let mut conn = wait.connector.connect().ok()?;
    let mut ours = wait.ours.clone();
    ours.extend([own, conn.connection_id()]);
    let ours: Vec<_> = ours.iter().map(u32::to_string).collect();
    let select = "SELECT p.ID, p.USER, p.TIME, COALESCE(p.STATE, ''), p.COMMAND \
                  FROM information_schema.PROCESSLIST p";
    let others = format!(
        "p.ID NOT IN ({}) AND p.COMMAND NOT IN ('Daemon', 'Binlog Dump') \
         AND COALESCE(p.STATE, '') NOT LIKE 'Waiting for%'",
        ours.join(",")
    );
    let with_transactions = format!(
        "{select} LEFT JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID \
         WHERE {others} ORDER BY p.COMMAND <> 'Sleep' OR t.trx_id IS NOT NULL DESC, \
         COALESCE(TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), p.TIME) DESC LIMIT 1"
    );
    let without =
        format!("{select} WHERE {others} ORDER BY p.COMMAND <> 'Sleep' DESC, p.TIME DESC LIMIT 1");
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
