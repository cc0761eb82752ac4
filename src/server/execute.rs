//! Statements that return no rows, as the files of a backup hold them.

use mysql::prelude::Queryable;
use mysql::{Conn, Value};

use super::connect::{Connector, query_error};
use super::driver::guarded;
use super::line::Line;
use super::socket::{Command, Socket};
use super::wire::{PacketReader, read_ok};
use crate::error::Result;
use crate::interrupt::Interrupt;

/// Runs a statement that returns no rows: any bytes, in whatever character set the session
/// reads. It may be long (over 16 MiB) and may wait for long; an interrupt ends the wait, and the
/// connection with it, which `connector` has opened.
pub(crate) fn execute(
    conn: &mut Line,
    statement: &[u8],
    connector: &Connector,
    interrupt: &Interrupt,
) -> Result<()> {
    if connector.is_encrypted() {
        let number = conn.connection_id();
        let kill = || connector.kill(number);
        let done = conn.watched(interrupt, kill, |conn, _| {
            guarded(|| execute_by_driver(conn, statement))
        });
        // What the driver says of a connection that was ended is not what happened.
        interrupt.check()?;
        return done.map_err(|e| query_error("refused by the server", e));
    }
    Socket::ask(conn, connector, interrupt, |socket| {
        let sequence = socket.send_command(Command::Query, statement)?;
        read_ok(&mut PacketReader::new(socket, sequence)).map(drop)
    })
}

/// The driver takes statements as text only. One that is no UTF-8 goes as a value, of which the
/// server makes a statement.
fn execute_by_driver(conn: &mut Conn, statement: &[u8]) -> mysql::Result<()> {
    if let Ok(text) = std::str::from_utf8(statement) {
        return conn.query_drop(text);
    }
    conn.exec_drop("SET @sb_statement = ?", (Value::Bytes(statement.to_vec()),))?;
    conn.query_drop("PREPARE sb_statement FROM @sb_statement")?;
    let done = conn.query_drop("EXECUTE sb_statement");
    conn.query_drop("DEALLOCATE PREPARE sb_statement")?;
    conn.query_drop("SET @sb_statement = NULL")?;
    done
}
