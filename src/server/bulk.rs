//! MariaDB's bulk execution: one prepared INSERT, many rows of parameters in one packet, nothing
//! that the server has to parse (MariaDB knowledge base, "COM_STMT_BULK_EXECUTE", "Server Response
//! Packets (Binary Protocol)"). Only on plain connections, whose sockets can be written directly.

use mysql::Statement;

use super::connect::{Connector, query_error};
use super::driver::Ask;
use super::flavor::Flavor;
use super::line::Line;
use super::socket::{Command, Socket};
use super::wire::{PacketReader, read_ok, write_cell};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

/// The types of the parameters follow.
const SEND_TYPES: u16 = 128;

/// No such statement can be prepared, it has too many parameters, there are too many of them.
const NOT_PREPARED: [u16; 3] = [1295, 1390, 1461];

/// What a parameter is for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A signed 64-bit number.
    Whole,
    /// An unsigned 64-bit number.
    Unsigned,
    /// An exact number, as text.
    Decimal,
    /// A 64-bit float.
    Double,
    /// Text in the session's character set.
    Text,
    /// Bytes of no character set.
    Bytes,
}

impl Kind {
    /// The type's number in the protocol, and its flags.
    fn code(self) -> [u8; 2] {
        match self {
            Kind::Double => [5, 0],
            Kind::Whole => [8, 0],
            Kind::Unsigned => [8, 128],
            Kind::Decimal => [246, 0],
            Kind::Bytes => [252, 0],
            Kind::Text => [253, 0],
        }
    }
}

/// The parameters of some rows, in the form in which they are sent.
#[derive(Debug, Default)]
pub(crate) struct Bulk {
    argument: Vec<u8>,
    /// Parameters of each row.
    columns: usize,
    /// Parameters of all rows.
    values: usize,
}

impl Bulk {
    /// Whether the server, and a connection to it, can be asked for it. Older servers, which are out
    /// of maintenance, have it too. Tables must have no triggers: they may run for one row only
    /// (MDEV-24411, MDEV-34958).
    pub(crate) fn is_possible(flavor: &Flavor, connector: &Connector) -> bool {
        flavor.is_mariadb() && flavor.version >= (10, 6, 0) && !connector.is_encrypted()
    }

    /// Begins anew: rows of parameters of these kinds.
    pub(crate) fn begin(&mut self, kinds: impl Iterator<Item = Kind>) {
        self.argument.clear();
        self.argument.extend_from_slice(&[0; 4]);
        self.argument.extend_from_slice(&SEND_TYPES.to_le_bytes());
        (self.columns, self.values) = (0, 0);
        for kind in kinds {
            self.argument.extend_from_slice(&kind.code());
            self.columns += 1;
        }
    }

    /// Appends a NULL, of whatever kind.
    pub(crate) fn push_null(&mut self) {
        self.argument.push(1);
        self.values += 1;
    }

    /// Appends a [`Kind::Whole`], or a [`Kind::Unsigned`] as the signed number of the same bits.
    pub(crate) fn push_whole(&mut self, value: i64) {
        self.push_fixed(value.to_le_bytes());
    }

    /// Appends a [`Kind::Double`].
    pub(crate) fn push_double(&mut self, value: f64) {
        self.push_fixed(value.to_le_bytes());
    }

    /// Appends a value of any other kind.
    pub(crate) fn push_bytes(&mut self, value: &[u8]) {
        self.values += 1;
        self.argument.push(0);
        write_cell(&mut self.argument, Some(value));
    }

    fn push_fixed(&mut self, value: [u8; 8]) {
        self.values += 1;
        let [a, b, c, d, e, f, g, h] = value;
        self.argument
            .extend_from_slice(&[0, a, b, c, d, e, f, g, h]);
    }

    /// Bytes of the command, which must be less than the server's `max_allowed_packet`.
    pub(crate) fn len(&self) -> usize {
        1 + self.argument.len()
    }

    /// What is sent behind the command's byte, without the statement's number.
    #[cfg(test)]
    pub(crate) fn argument(&self) -> &[u8] {
        &self.argument
    }

    /// Prepares the INSERT for these rows. `None` where the server does not prepare such a
    /// statement, or no further one.
    pub(crate) fn prepare(
        conn: &mut Line,
        insert: &str,
        connector: &Connector,
        interrupt: &Interrupt,
    ) -> Result<Option<Statement>> {
        let number = conn.connection_id();
        let kill = || connector.kill(number);
        let prepared = conn.watched(interrupt, kill, |conn, _| conn.prepare(insert));
        interrupt.check()?;
        match prepared {
            Ok(prepared) => Ok(Some(prepared)),
            Err(mysql::Error::MySqlError(e)) if NOT_PREPARED.contains(&e.code) => Ok(None),
            Err(e) => Err(query_error("refused by the server", e)),
        }
    }

    /// Has the rows inserted by `statement`, prepared on `conn`, which `connector` has opened. Fails
    /// if the server does not say that it has inserted all of them. An interrupt ends the wait, and
    /// the connection with it.
    pub(crate) fn execute(
        &mut self,
        conn: &mut Line,
        statement: &Statement,
        connector: &Connector,
        interrupt: &Interrupt,
    ) -> Result<()> {
        self.argument[..4].copy_from_slice(&statement.id().to_le_bytes());
        let inserted = Socket::ask(conn, connector, interrupt, |socket| {
            let sequence = socket.send_command(Command::BulkExecute, &self.argument)?;
            read_ok(&mut PacketReader::new(socket, sequence))
        })?;
        let rows = self.values / self.columns.max(1);
        if inserted == rows as u64 {
            return Ok(());
        }
        let what = format!("of {rows} rows the server says it has inserted {inserted}");
        Err(Error::new(ErrorKind::Failed, what)
            .hint("please report this; the stock client loads the files too"))
    }
}
