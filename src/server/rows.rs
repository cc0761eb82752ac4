//! Rows of a query as they come off the wire. On a plain connection the packets are read straight
//! from its socket. On an encrypted connection the crate's own row iterator is used and its rows
//! are put back into the same form. Either way, and by whichever protocol, a row is given as the
//! payload of a text-protocol row packet.

use mysql::prelude::Queryable;
use mysql::{Binary, Conn, QueryResult, Statement, Text, Value};

use super::binary::Decoder;
use super::connect::query_error;
use super::driver::{Ask, guarded};
use super::socket::{Command, Socket};
use super::wire::{PacketReader, read_result_head, read_row, write_cell};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

/// Where rows come from: a server, or memory in tests and benchmarks.
pub trait RowSource {
    /// The next row: length-encoded cells, 0xfb for NULL. `None` after the last one; not to
    /// be called again after `None` or an error.
    fn next_row(&mut self) -> Result<Option<&[u8]>>;
}

/// How the server sends the rows of a query. What they are does not depend on it, but for how a
/// DOUBLE and the zeros of ZEROFILL are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Every value as text.
    Text,
    /// Numbers and times in binary, by a prepared statement.
    Binary,
    /// The same where the server prepares one more statement, else as text.
    BinaryOrText,
}

/// The rows of one query on one connection.
pub enum Rows<'c> {
    /// Text, read from the socket.
    Raw(RawRows<'c>),
    /// Binary, read from the socket.
    RawBinary(RawBinaryRows<'c>),
    /// Text, read by the `mysql` crate.
    Driver(DriverRows<'c>),
    /// Binary, read by the `mysql` crate.
    DriverBinary(DriverBinaryRows<'c>),
}

/// Rows read from the socket.
pub struct RawRows<'c> {
    packets: PacketReader<Socket<'c>>,
    columns: usize,
}

/// Rows of a prepared statement, read from the socket.
pub struct RawBinaryRows<'c> {
    packets: PacketReader<Socket<'c>>,
    decoder: Decoder,
    statement: u32,
}

/// Rows read by the `mysql` crate.
pub struct DriverRows<'c> {
    result: QueryResult<'c, 'c, 'c, Text>,
    row: Vec<u8>,
    columns: usize,
}

/// Rows of a prepared statement, read by the `mysql` crate.
pub struct DriverBinaryRows<'c> {
    result: QueryResult<'c, 'c, 'c, Binary>,
    decoder: Decoder,
    statement: Statement,
}

impl<'c> Rows<'c> {
    /// Sends `query`, which must read rows, and reads up to the first row. Dropped before the
    /// last row, it leaves the connection unusable.
    pub fn query(
        conn: &'c mut Conn,
        query: &str,
        protocol: Protocol,
        encrypted: bool,
        interrupt: &'c Interrupt,
    ) -> Result<Rows<'c>> {
        let statement = match protocol {
            Protocol::Text => None,
            Protocol::Binary => Some(conn.prepare(query).map_err(cannot_read)?),
            Protocol::BinaryOrText => prepare_if_allowed(conn, query)?,
        };
        match (statement, encrypted) {
            (None, false) => Rows::by_text(conn, query, interrupt),
            (Some(statement), false) => Rows::by_statement(conn, statement, interrupt),
            (None, true) => {
                let result = guarded(|| conn.query_iter(query)).map_err(cannot_read)?;
                let columns = result.columns().as_ref().len();
                Ok(Rows::Driver(DriverRows {
                    result,
                    row: Vec::new(),
                    columns,
                }))
            }
            (Some(statement), true) => {
                let result = guarded(|| conn.exec_iter(&statement, ())).map_err(cannot_read)?;
                let decoder = Decoder::new(result.columns().as_ref());
                Ok(Rows::DriverBinary(DriverBinaryRows {
                    result,
                    decoder,
                    statement,
                }))
            }
        }
    }

    fn by_text(conn: &'c mut Conn, query: &str, interrupt: &'c Interrupt) -> Result<Rows<'c>> {
        let socket = Socket::of(conn, interrupt);
        let sequence = socket.send_command(Command::Query, query.as_bytes())?;
        let mut packets = PacketReader::new(socket, sequence);
        let columns = read_result_head(&mut packets)?;
        Ok(Rows::Raw(RawRows { packets, columns }))
    }

    fn by_statement(
        conn: &'c mut Conn,
        statement: Statement,
        interrupt: &'c Interrupt,
    ) -> Result<Rows<'c>> {
        let decoder = Decoder::new(&statement.columns());
        let statement = statement.id();
        let socket = Socket::of(conn, interrupt);
        // No cursor, executed once.
        let mut execute = vec![0; 9];
        execute[..4].copy_from_slice(&statement.to_le_bytes());
        execute[5] = 1;
        let sequence = socket.send_command(Command::Execute, &execute)?;
        let mut packets = PacketReader::new(socket, sequence);
        if read_result_head(&mut packets)? != decoder.columns() {
            let what = "the server sent other columns than it had prepared";
            return Err(Error::new(ErrorKind::Failed, what));
        }
        Ok(Rows::RawBinary(RawBinaryRows {
            packets,
            decoder,
            statement,
        }))
    }

    /// Ends reading; the statement that is to be closed, if there is one.
    pub(super) fn into_statement(self) -> Option<Statement> {
        match self {
            Rows::DriverBinary(rows) => Some(rows.statement),
            // The first of these closes its own after the last row; the others have none.
            Rows::RawBinary(_) | Rows::Raw(_) | Rows::Driver(_) => None,
        }
    }

    /// Cells in each row.
    pub fn columns(&self) -> usize {
        match self {
            Rows::Raw(rows) => rows.columns,
            Rows::RawBinary(rows) => rows.decoder.columns(),
            Rows::Driver(rows) => rows.columns,
            Rows::DriverBinary(rows) => rows.decoder.columns(),
        }
    }
}

/// A prepared statement; `None` where it is refused: because there are too many, or because something
/// on the way to the server has none. What is wrong with the query itself, it says again.
fn prepare_if_allowed(conn: &mut Conn, query: &str) -> Result<Option<Statement>> {
    match conn.prepare(query) {
        Ok(statement) => Ok(Some(statement)),
        Err(mysql::Error::MySqlError(refused)) => {
            log::debug!(
                "read as text: statements are not prepared: error {}",
                refused.code
            );
            Ok(None)
        }
        Err(error) => Err(cannot_read(error)),
    }
}

fn cannot_read(error: mysql::Error) -> Error {
    query_error("cannot read rows", error)
}

impl RowSource for Rows<'_> {
    #[inline]
    fn next_row(&mut self) -> Result<Option<&[u8]>> {
        match self {
            Rows::Raw(rows) => read_row(&mut rows.packets),
            Rows::RawBinary(rows) => rows.next_row(),
            Rows::Driver(rows) => rows.next_row(),
            Rows::DriverBinary(rows) => rows.next_row(),
        }
    }
}

#[cold]
fn malformed() -> Error {
    let what = "the server sent a binary row that does not match its columns";
    Error::new(ErrorKind::Failed, what)
}

impl RawBinaryRows<'_> {
    #[inline]
    fn next_row(&mut self) -> Result<Option<&[u8]>> {
        if let Some(packet) = read_row(&mut self.packets)? {
            return match self.decoder.decode(packet) {
                Some(row) => Ok(Some(row)),
                None => Err(malformed()),
            };
        }
        // This command has no answer.
        let socket = self.packets.source();
        socket.send_command(Command::Close, &self.statement.to_le_bytes())?;
        Ok(None)
    }
}

impl DriverBinaryRows<'_> {
    fn next_row(&mut self) -> Result<Option<&[u8]>> {
        let Some(row) = guarded(|| self.result.next().transpose()).map_err(cannot_read)? else {
            return Ok(None);
        };
        let row = self.decoder.take(row.unwrap_raw());
        row.map(Some).ok_or_else(malformed)
    }
}

impl DriverRows<'_> {
    fn next_row(&mut self) -> Result<Option<&[u8]>> {
        let Some(row) = guarded(|| self.result.next().transpose()).map_err(cannot_read)? else {
            return Ok(None);
        };
        self.row.clear();
        for value in row.unwrap_raw() {
            match value {
                Some(Value::NULL) => write_cell(&mut self.row, None),
                Some(Value::Bytes(bytes)) => write_cell(&mut self.row, Some(&bytes)),
                _ => {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        "a text row holds a binary value",
                    ));
                }
            }
        }
        Ok(Some(&self.row))
    }
}
