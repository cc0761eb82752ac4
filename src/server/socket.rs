//! The socket below a connection that the `mysql` crate has opened and authenticated, used in lock
//! step: one command is written, its whole answer is read, and the connection is clean again.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};

use mysql::Conn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connect::Connector;
use super::line::{Line, TURN};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

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

/// A socket, and what ends the waits on it.
pub(super) struct Socket<'c> {
    fd: BorrowedFd<'c>,
    interrupt: &'c Interrupt,
}

/// The first byte of a command (MySQL internals manual, "Text Protocol", "Prepared Statements";
/// MariaDB knowledge base, "COM_STMT_BULK_EXECUTE").
#[derive(Clone, Copy)]
pub(super) enum Command {
    Query = 0x03,
    Execute = 0x17,
    Close = 0x19,
    BulkExecute = 0xfa,
}

impl<'c> Socket<'c> {
    pub(super) fn of(conn: &'c mut Conn, interrupt: &'c Interrupt) -> Socket<'c> {
        let fd = borrow_socket(conn);
        Socket { fd, interrupt }
    }

    /// Sends a command of a connection that `connector` has opened and reads its whole answer, by
    /// `talk`. An interrupt ends the wait, and with the connection what runs on it in the server.
    pub(super) fn ask<T>(
        conn: &'c mut Line,
        connector: &Connector,
        interrupt: &'c Interrupt,
        talk: impl FnOnce(Socket<'c>) -> Result<T>,
    ) -> Result<T> {
        let number = conn.connection_id();
        let done = talk(Socket::of(conn, interrupt));
        if matches!(&done, Err(e) if e.kind() == ErrorKind::Interrupted) {
            connector.kill(number);
        }
        done
    }

    /// Writes a command, from sequence number 0 on. One that is longer than a packet goes on in
    /// the next ones; returns the sequence number of the answer.
    pub(super) fn send_command(&self, command: Command, argument: &[u8]) -> Result<u8> {
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
