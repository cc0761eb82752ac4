//! A slow way to a server: a proxy that lets the server's answers through at a given pace, or
//! only so many bytes of them, and can be told otherwise at any time. It knows nothing of what
//! it passes on, so that it stands in the way of TLS too.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::site::{Running, Site, wait_until};

/// How long to wait before looking around again.
const TURN: Duration = Duration::from_millis(5);

/// A proxy to one server; it ends, and its connections with it, when it is dropped.
pub(super) struct Throttle {
    shared: Arc<Shared>,
    port: Option<u16>,
    dir: tempfile::TempDir,
}

#[derive(Default)]
struct Shared {
    /// Bytes of answers a second, over all connections; 0: as they come.
    rate: AtomicU64,
    /// Bytes of answers that may pass in all.
    limit: AtomicU64,
    /// Bytes of answers that have passed.
    passed: AtomicU64,
    ended: AtomicBool,
    /// Held by who waits for the pace.
    pace: Mutex<()>,
}

impl Throttle {
    /// A proxy on a socket of its own to the server's.
    pub(super) fn by_socket(server: &Server) -> Throttle {
        let (throttle, shared) = Throttle::new(None);
        let listener = UnixListener::bind(throttle.socket()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let target = server.socket();
        thread::spawn(move || {
            shared.serve(
                || listener.accept().map(|(client, _)| client),
                || UnixStream::connect(&target),
            );
        });
        throttle
    }

    /// A proxy on a port of its own to the server's.
    pub(super) fn by_tcp(server: &Server) -> Throttle {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (throttle, shared) = Throttle::new(Some(listener.local_addr().unwrap().port()));
        let target = ("127.0.0.1", server.port.unwrap());
        thread::spawn(move || {
            shared.serve(
                || listener.accept().map(|(client, _)| client),
                || TcpStream::connect(target),
            );
        });
        throttle
    }

    fn new(port: Option<u16>) -> (Throttle, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        shared.limit.store(u64::MAX, Ordering::SeqCst);
        let throttle = Throttle {
            shared: Arc::clone(&shared),
            port,
            dir: tempfile::tempdir().unwrap(),
        };
        (throttle, shared)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("throttle.sock")
    }

    /// The same site, with the way to the server through this; encrypted if over TCP.
    pub(super) fn before(&self, server: &Server, site: Site, database: &str) -> Site {
        self.before_as(server, site, database, &["ALL ON *.*"])
    }

    /// Like [`Throttle::before`], as a user with just these grants.
    pub(super) fn before_as(
        &self,
        server: &Server,
        site: Site,
        database: &str,
        grants: &[&str],
    ) -> Site {
        // Not `root`, who comes by the socket only.
        let user = format!("u_{database}");
        let password = server.create_user(&user, grants);
        let password = site.write_private("password", &password);
        let mut flags = match self.port {
            None => vec![format!("--socket={}", self.socket().display())],
            Some(port) => vec![
                "--host=127.0.0.1".to_owned(),
                format!("--port={port}"),
                "--ssl-mode=required".to_owned(),
            ],
        };
        flags.push(format!("--user={user}"));
        flags.push(format!("--password-file={}", password.display()));
        flags.push(format!("--database={database}"));
        site.connect_by(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// From now on answers come at this many bytes a second.
    pub(super) fn pace(&self, bytes_per_second: u64) {
        self.shared.rate.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Bytes of answers that have passed.
    pub(super) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// From now on this many bytes of answers pass, and then nothing.
    pub(super) fn silent_after(&self, bytes: u64) {
        let limit = self.passed() + bytes;
        self.shared.limit.store(limit, Ordering::SeqCst);
    }

    /// Waits until nothing passes any more.
    pub(super) fn wait_until_silent(&self, program: &mut Running) {
        wait_until("the server has become silent", || {
            if program.ended() {
                panic!("the program ended before that: {}", program.last_words());
            }
            self.passed() == self.shared.limit.load(Ordering::SeqCst)
        });
    }

    /// Everything passes again.
    pub(super) fn speak_again(&self) {
        self.shared.limit.store(u64::MAX, Ordering::SeqCst);
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
    }
}

/// A stream socket of either family.
trait Stream: Read + Write + Send + Sized + 'static {
    fn another(&self) -> Result<Self>;
    fn read_in_turns(&self) -> Result<()>;
    fn end(&self);
}

impl Stream for UnixStream {
    fn another(&self) -> Result<Self> {
        self.try_clone()
    }

    fn read_in_turns(&self) -> Result<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(Some(TURN))
    }

    fn end(&self) {
        self.shutdown(Shutdown::Both).ok();
    }
}

impl Stream for TcpStream {
    fn another(&self) -> Result<Self> {
        self.try_clone()
    }

    fn read_in_turns(&self) -> Result<()> {
        self.set_nonblocking(false)?;
        self.set_nodelay(true)?;
        self.set_read_timeout(Some(TURN))
    }

    fn end(&self) {
        self.shutdown(Shutdown::Both).ok();
    }
}

impl Shared {
    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn serve<S: Stream>(
        self: Arc<Self>,
        accept: impl Fn() -> Result<S>,
        connect: impl Fn() -> Result<S>,
    ) {
        while !self.ended() {
            let Ok(client) = accept() else {
                thread::sleep(TURN);
                continue;
            };
            // A server that is gone closes the door on the client.
            let Ok(server) = connect() else { continue };
            let gone = Arc::new(AtomicBool::new(false));
            for (from, to, answers) in [
                (client.another().unwrap(), server.another().unwrap(), false),
                (server, client, true),
            ] {
                from.read_in_turns().unwrap();
                let (shared, gone) = (Arc::clone(&self), Arc::clone(&gone));
                thread::spawn(move || {
                    let (mut from, mut to) = (from, to);
                    shared.pass_on(&mut from, &mut to, answers, &gone);
                    gone.store(true, Ordering::SeqCst);
                    from.end();
                    to.end();
                });
            }
        }
    }

    /// Until either side has gone.
    fn pass_on<S: Stream>(&self, from: &mut S, to: &mut S, answers: bool, gone: &AtomicBool) {
        let mut buffer = [0; 16 << 10];
        while !self.ended() && !gone.load(Ordering::SeqCst) {
            let bytes = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => &buffer[..read],
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    continue;
                }
                Err(_) => return,
            };
            let passed = if answers {
                self.pass_slowly(bytes, to, gone)
            } else {
                to.write_all(bytes)
            };
            if passed.is_err() {
                return;
            }
        }
    }

    fn pass_slowly<S: Stream>(
        &self,
        mut bytes: &[u8],
        to: &mut S,
        gone: &AtomicBool,
    ) -> Result<()> {
        while !bytes.is_empty() {
            let started = Instant::now();
            let pace = self.pace.lock().unwrap();
            let passed = self.passed.load(Ordering::SeqCst);
            let limit = self.limit.load(Ordering::SeqCst);
            let now = (limit.saturating_sub(passed)).min(bytes.len() as u64);
            self.passed.store(passed + now, Ordering::SeqCst);
            let rate = self.rate.load(Ordering::SeqCst);
            if let Some(micros) = (now * 1_000_000).checked_div(rate) {
                thread::sleep(Duration::from_micros(micros).saturating_sub(started.elapsed()));
            }
            drop(pace);
            let (passing, rest) = bytes.split_at(now as usize);
            to.write_all(passing)?;
            bytes = rest;
            if now == 0 {
                if self.ended() || gone.load(Ordering::SeqCst) {
                    return Err(ErrorKind::BrokenPipe.into());
                }
                thread::sleep(TURN);
            }
        }
        Ok(())
    }
}
