//! Connections that can be ended from outside. The driver waits for the server without an end
//! and looks at no [`Interrupt`]; so a thread does, and shuts the sockets of a run down when it
//! has not come to rest by itself shortly after an interrupt. What waited there then fails.

use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use mysql::Conn;
use rustix::net::Shutdown;

use super::socket::borrow_socket;
use crate::interrupt::Interrupt;

/// How long to wait before looking at the interrupt again.
pub(super) const TURN: Duration = Duration::from_millis(100);
/// How long a run may take after an interrupt to leave its connections in an orderly way.
const GRACE: Duration = Duration::from_millis(500);

/// A connection, with a second handle on its socket.
#[derive(Debug)]
pub struct Line {
    conn: Conn,
    socket: Arc<OwnedFd>,
}

impl Line {
    fn new(mut conn: Conn) -> std::io::Result<Line> {
        let socket = Arc::new(borrow_socket(&mut conn).try_clone_to_owned()?);
        Ok(Line { conn, socket })
    }

    /// Does `work` on the connection; once `interrupt` is raised, `first` is done and the socket
    /// is shut down, which ends what waits there. So is it after `work` has failed: the driver
    /// would read an answer that nobody wants to its end.
    pub(super) fn watched<T, E>(
        &mut self,
        interrupt: &Interrupt,
        first: impl FnOnce() + Send,
        work: impl FnOnce(&mut Conn, &dyn Fn()) -> Result<T, E>,
    ) -> Result<T, E> {
        let (running, ended) = bounded::<()>(0);
        let socket = &self.socket;
        thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
                    if interrupt.is_raised() {
                        first();
                        return hang_up(socket);
                    }
                }
            });
            let done = work(&mut self.conn, &|| hang_up(socket));
            drop(running);
            done
        })
    }
}

impl Deref for Line {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

fn hang_up(socket: &OwnedFd) {
    // One that the server has closed is as well.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

/// The open connections of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<Weak<OwnedFd>>>>);

impl Lines {
    /// Connections that are shut down soon after `interrupt` was raised, those that are opened
    /// later too.
    pub(super) fn watched(interrupt: &Interrupt) -> std::io::Result<Lines> {
        let lines = Lines::default();
        let watched = Arc::downgrade(&lines.0);
        let interrupt = interrupt.clone();
        thread::Builder::new()
            .name("hang-up".into())
            .spawn(move || {
                while !interrupt.is_raised() {
                    if watched.strong_count() == 0 {
                        return;
                    }
                    thread::sleep(TURN);
                }
                thread::sleep(GRACE);
                while let Some(open) = watched.upgrade() {
                    let open = Lines(open);
                    open.lock()
                        .iter()
                        .filter_map(Weak::upgrade)
                        .for_each(|s| hang_up(&s));
                    drop(open);
                    thread::sleep(TURN);
                }
            })?;
        Ok(lines)
    }

    /// Takes a connection in.
    pub(super) fn add(&self, conn: Conn) -> std::io::Result<Line> {
        let line = Line::new(conn)?;
        let mut open = self.lock();
        open.retain(|socket| socket.strong_count() > 0);
        open.push(Arc::downgrade(&line.socket));
        Ok(line)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
