//! A connection of a restore: it has the settings under which the server takes back what it once
//! took, and an interrupt ends the wait for what runs on it.

use mysql::Statement;

use super::insert::Inserts;
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::server::bulk::Bulk;
use crate::server::connect::{Connector, query_error};
use crate::server::driver::Ask;
use crate::server::execute::execute;
use crate::server::line::Line;
use crate::server::quote_identifier;

/// A connection, and what ends its waits.
pub(super) struct Session<'a> {
    pub(super) conn: Line,
    connector: &'a Connector,
    stop: &'a Interrupt,
    /// What the server takes at once is shorter, in bytes.
    max_allowed_packet: usize,
    inserts: Inserts,
    rows: Bulk,
    /// The INSERT that was last prepared, or was not taken.
    prepared: Option<(String, Option<Statement>)>,
}

/// A setting that one product or version does not know, or that this user may not make.
struct Optional {
    name: &'static str,
    value: &'static str,
    /// Whether a table would be made otherwise without a word if it stays as it is.
    silent: bool,
}

const OPTIONAL: [Optional; 7] = [
    optional("innodb_strict_mode", "0"),
    optional("check_constraint_checks", "0"),
    optional("restrict_fk_on_non_standard_key", "0"),
    optional("system_versioning_alter_history", "KEEP"),
    // Connections wait for the rows of each other, for as long as a chunk takes.
    optional("innodb_lock_wait_timeout", "3600"),
    // Tables must not get defaults or columns that their statements do not name.
    silent("explicit_defaults_for_timestamp", "1"),
    silent("sql_generate_invisible_primary_key", "0"),
];

const fn optional(name: &'static str, value: &'static str) -> Optional {
    Optional {
        name,
        value,
        silent: false,
    }
}

const fn silent(name: &'static str, value: &'static str) -> Optional {
    Optional {
        silent: true,
        ..optional(name, value)
    }
}

impl<'a> Session<'a> {
    /// Opens a connection in the connector's database.
    pub(super) fn open(connector: &'a Connector, stop: &'a Interrupt) -> Result<Session<'a>> {
        Session::new(connector.connect()?, connector, stop)
    }

    /// Takes over a connection of `connector`.
    pub(super) fn new(
        mut conn: Line,
        connector: &'a Connector,
        stop: &'a Interrupt,
    ) -> Result<Session<'a>> {
        let max_allowed_packet = conn
            .query_first("SELECT @@max_allowed_packet")
            .map_err(|e| query_error("cannot prepare a session", e))?;
        let mut session = Session {
            conn,
            connector,
            stop,
            max_allowed_packet: max_allowed_packet.unwrap_or(usize::MAX),
            inserts: Inserts::default(),
            rows: Bulk::default(),
            prepared: None,
        };
        session.make_settings()?;
        Ok(session)
    }

    /// Runs a statement that returns no rows.
    pub(super) fn execute(&mut self, statement: &[u8]) -> Result<()> {
        // The server counts the command byte too, and takes less than the limit. It would end the
        // connection without an answer that can be relied on.
        if statement.len() + 1 >= self.max_allowed_packet {
            let what = format!(
                "a statement of {} bytes is longer than the server takes (max_allowed_packet is {})",
                statement.len(),
                self.max_allowed_packet
            );
            let hint = "SET GLOBAL max_allowed_packet=1073741824 on the server, then restore with --resume";
            return Err(Error::new(ErrorKind::Failed, what).hint(hint));
        }
        execute(&mut self.conn, statement, self.connector, self.stop)
    }

    /// Runs an INSERT: in bulk if it can be, and else as it stands.
    pub(super) fn insert(&mut self, statement: &[u8]) -> Result<()> {
        if self.insert_in_bulk(statement)? {
            return Ok(());
        }
        self.execute(statement)
    }

    /// Inserts rows in bulk, if the statement and the server are such that it comes to the same.
    /// A NULL in a column that takes none is an error this way.
    fn insert_in_bulk(&mut self, statement: &[u8]) -> Result<bool> {
        let insert = self.inserts.take(statement, &mut self.rows);
        let Some(insert) = insert.filter(|_| self.rows.len() < self.max_allowed_packet) else {
            return Ok(false);
        };
        let Some(prepared) = self.prepare(insert)? else {
            return Ok(false);
        };
        self.rows
            .execute(&mut self.conn, &prepared, self.connector, self.stop)?;
        Ok(true)
    }

    /// Prepares an INSERT for the rows that were taken out of it, once for as long as no other one
    /// follows; `None` where the server does not take it so.
    fn prepare(&mut self, insert: String) -> Result<Option<Statement>> {
        if let Some((text, prepared)) = &self.prepared
            && *text == insert
        {
            return Ok(prepared.clone());
        }
        if let Some((_, Some(prepared))) = self.prepared.take() {
            let closed = self.conn.close(prepared);
            closed.map_err(|e| query_error("cannot close a statement", e))?;
        }
        let prepared = Bulk::prepare(&mut self.conn, &insert, self.connector, self.stop)?;
        self.prepared = Some((insert, prepared.clone()));
        Ok(prepared)
    }

    /// Tries whether the server takes rows in bulk: not all do that state such a version, nor
    /// proxies before them, nor a binary log of statements. The rows go into `table`, which has a
    /// column `item`, and are taken back. The session is not to be used afterwards.
    pub(super) fn takes_bulk(&mut self, table: &str) -> bool {
        let table = quote_identifier(table);
        let insert = format!("INSERT INTO {table} (`item`) VALUES\n('bulk 1'),\n('bulk 2')");
        let mut insert_and_undo = || {
            self.execute(b"START TRANSACTION")?;
            let taken = self.insert_in_bulk(insert.as_bytes())?;
            self.execute(b"ROLLBACK")?;
            Ok(taken)
        };
        insert_and_undo().unwrap_or_else(|e: Error| {
            log::debug!("rows go as text: {e}");
            false
        })
    }

    /// Makes the settings, also after a file that has left others. What the server does not know
    /// or does not let this user set stays as it is, unless tables would silently become others.
    pub(super) fn make_settings(&mut self) -> Result<()> {
        let settings = [
            "sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION'",
            "foreign_key_checks=0",
            "unique_checks=0",
            "time_zone='+00:00'",
            // The files set it too, which would end the transaction of a chunk were it not so already.
            "autocommit=1",
            // The end of a transaction shall be just that, and not of the connection too.
            "completion_type='NO_CHAIN'",
        ];
        let conn = &mut self.conn;
        let failed = |e| query_error("cannot prepare a session", e);
        conn.query_drop("SET NAMES utf8mb4").map_err(failed)?;
        conn.query_drop(format!("SET SESSION {}", settings.join(", ")))
            .map_err(failed)?;
        for setting in &OPTIONAL {
            let Optional { name, value, .. } = setting;
            match conn.query_drop(format!("SET SESSION {name}={value}")) {
                // Unknown, or no session's to set: it does not matter here.
                Err(mysql::Error::MySqlError(e)) if matches!(e.code, 1193 | 1238) => {}
                Err(mysql::Error::MySqlError(e)) if e.code == 1227 => {
                    let now: Option<String> = conn
                        .query_first(format!("SELECT CAST(@@SESSION.{name} AS CHAR)"))
                        .map_err(failed)?;
                    if setting.silent && now.as_deref() != Some(value) {
                        let what = format!(
                            "{name} is not {value} on this server, and this user may not set it: tables would not be the same"
                        );
                        let hint = "grant the user SESSION_VARIABLES_ADMIN, or set it globally for the restore";
                        return Err(Error::new(ErrorKind::Connect, what).hint(hint));
                    }
                }
                other => other.map_err(failed)?,
            }
        }
        Ok(())
    }
}
