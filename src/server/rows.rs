//! Rows of a query as they come off the wire. On a plain connection the packets are read
//! straight from the socket that the `mysql` crate opened and authenticated, in lock step:
//! one command is written, its whole answer is read, and the connection is clean again. On
//! an encrypted connection the crate's own row iterator is used and its rows are put back
//! into the same form. Either way, and by whichever protocol, a row is given as the payload of
//! a text-protocol row packet.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};

use mysql::prelude::Queryable;
use mysql::{Binary, Conn, QueryResult, Text, Value};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::binary::Decoder;
use super::connect::{Connector, query_error};
use super::driver::guarded;
use super::line::{Line, TURN};
use super::wire::{PacketReader, read_ok, read_result_head, read_row, write_cell};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

/// Where rows come from: a server, or memory in tests and benchmarks.
pub trait RowSource {
    /// The next row: length-encoded cells, 0xfb for NULL. `None` after the last one; not to
    /// be called again after `None` or an error.
    fn next_row(&mut self) -> Result<Option<&[u8]>>;
}

/// How the server sends the rows of a query. What they are does not depend on it, but for how a
/// DOUBLE is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Every value as text.
    Text,
    /// Numbers and times in binary, by a prepared statement.
    Binary,
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

/// Rows of a prepared statement, read by the `mysql` crate, which closes it.
pub struct DriverBinaryRows<'c> {
    result: QueryResult<'c, 'c, 'c, Binary>,
    decoder: Decoder,
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
        match (protocol, encrypted) {
            (Protocol::Text, false) => Rows::by_text(conn, query, interrupt),
            (Protocol::Binary, false) => Rows::by_statement(conn, query, interrupt),
            (Protocol::Text, true) => {
                let result = guarded(|| conn.query_iter(query)).map_err(cannot_read)?;
                let columns = result.columns().as_ref().len();
                Ok(Rows::Driver(DriverRows {
                    result,
                    row: Vec::new(),
                    columns,
                }))
            }
            (Protocol::Binary, true) => {
                let result = guarded(|| conn.exec_iter(query, ())).map_err(cannot_read)?;
                let decoder = Decoder::new(result.columns().as_ref());
                Ok(Rows::DriverBinary(DriverBinaryRows { result, decoder }))
            }
        }
    }

    fn by_text(conn: &'c mut Conn, query: &str, interrupt: &'c Interrupt) -> Result<Rows<'c>> {
        let socket = Socket {
            fd: borrow_socket(conn),
            interrupt,
        };
        let sequence = socket.send_command(Command::Query, query.as_bytes())?;
        let mut packets = PacketReader::new(socket, sequence);
        let columns = read_result_head(&mut packets)?;
        Ok(Rows::Raw(RawRows { packets, columns }))
    }

    fn by_statement(conn: &'c mut Conn, query: &str, interrupt: &'c Interrupt) -> Result<Rows<'c>> {
        let statement = guarded(|| conn.prep(query)).map_err(cannot_read)?;
        let decoder = Decoder::new(&statement.columns());
        let statement = statement.id();
        let socket = Socket {
            fd: borrow_socket(conn),
            interrupt,
        };
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

impl RawBinaryRows<'_> {
    #[inline]
    fn next_row(&mut self) -> Result<Option<&[u8]>> {
        if let Some(packet) = read_row(&mut self.packets)? {
            return self.decoder.decode(packet).map(Some);
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
        self.decoder.take(row.unwrap_raw()).map(Some)
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

/// The socket below a connection. Whoever reads or writes there must leave the connection
/// between two commands, or never use it again.
#[expect(
    unsafe_code,
    reason = "the driver offers its socket only as a raw descriptor"
)]
pub fn borrow_socket(conn: &mut Conn) -> BorrowedFd<'_> {
    // SAFETY: the descriptor belongs to `conn`, which is borrowed mutably for as long as the
    // returned value lives, so that it stays open and nothing else uses it.
    unsafe { BorrowedFd::borrow_raw(conn.as_raw_fd()) }
}

struct Socket<'c> {
    fd: BorrowedFd<'c>,
    interrupt: &'c Interrupt,
}

/// The first byte of a command (MySQL internals manual, "Text Protocol", "Prepared Statements").
#[derive(Clone, Copy)]
enum Command {
    Query = 0x03,
    Execute = 0x17,
    Close = 0x19,
}

impl Socket<'_> {
    /// Writes a command, from sequence number 0 on. One that is longer than a packet goes on in
    /// the next ones; returns the sequence number of the answer.
    fn send_command(&self, command: Command, argument: &[u8]) -> Result<u8> {
        const FULL_PAYLOAD: usize = 0xff_ffff;
        let mut sequence = 0u8;
        // The command byte belongs to the payload of the first packet.
        let command = [command as u8];
        let (mut rest, mut command) = (argument, &command[..]);
        loop {
            let take = rest.len().min(FULL_PAYLOAD - command.len());
            let (part, tail) = rest.split_at(take);
            let payload = part.len() + command.len();
            let mut head = (payload as u32).to_le_bytes().to_vec();
            head[3] = sequence;
            head.extend_from_slice(command);
            self.send(&head)?;
            self.send(part)?;
            sequence = sequence.wrapping_add(1);
            if payload < FULL_PAYLOAD {
                return Ok(sequence);
            }
            (rest, command) = (tail, &[]);
        }
    }

    fn send(&self, mut bytes: &[u8]) -> Result<()> {
        use rustix::net::SendFlags;
        while !bytes.is_empty() {
            // A server that has gone is an error here, not a signal that ends the program.
            match rustix::net::send(self.fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.interrupt.check()?;
                    self.wait(PollFlags::OUT).map_err(|e| {
                        Error::new(ErrorKind::Failed, "lost the connection to the server")
                            .because(e)
                    })?;
                }
                Err(e) => {
                    return Err(
                        Error::new(ErrorKind::Failed, "lost the connection to the server")
                            .because(io::Error::from(e)),
                    );
                }
            }
        }
        Ok(())
    }
}

impl Socket<'_> {
    /// Waits for a short turn until the socket can be read or written.
    fn wait(&self, until: PollFlags) -> io::Result<()> {
        let turn = Timespec::try_from(TURN).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.fd, until)], Some(&turn)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl Read for Socket<'_> {
    /// Waits for bytes in short turns, so that an interrupt ends a wait on a silent server;
    /// that is an [`io::ErrorKind::Interrupted`] error with a payload.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::net::recv(self.fd, &mut *buffer, rustix::net::RecvFlags::DONTWAIT) {
                Ok((read, _)) => return Ok(read),
                Err(rustix::io::Errno::AGAIN) => {
                    if self.interrupt.is_raised() {
                        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
                    }
                    self.wait(PollFlags::IN)?;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Runs a statement that returns no rows: any bytes, in whatever character set the session
/// reads. It may be long (over 16 MiB) and may wait for long; an interrupt ends the wait, and the
/// connection with it, which `connector` has opened.
pub fn execute(
    conn: &mut Line,
    statement: &[u8],
    connector: &Connector,
    interrupt: &Interrupt,
) -> Result<()> {
    let number = conn.connection_id();
    if connector.is_encrypted() {
        let kill = || connector.kill(number);
        let done = conn.watched(interrupt, kill, |conn, _| {
            guarded(|| execute_by_driver(conn, statement))
        });
        // What the driver says of a connection that was ended is not what happened.
        interrupt.check()?;
        return done.map_err(|e| query_error("refused by the server", e));
    }
    let socket = Socket {
        fd: borrow_socket(conn),
        interrupt,
    };
    let done = socket
        .send_command(Command::Query, statement)
        .and_then(|sequence| read_ok(&mut PacketReader::new(socket, sequence)));
    if matches!(&done, Err(e) if e.kind() == ErrorKind::Interrupted) {
        connector.kill(number);
    }
    done
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
