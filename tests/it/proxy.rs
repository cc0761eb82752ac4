//! A socket between the program and a server that knows the protocol well enough to tell which
//! packet answers which statement, and does to it what a test says: a server that lies, or a
//! line that breaks. Plain connections only.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::server::Server;

/// A packet from the server.
pub(crate) struct Packet<'a> {
    /// What it answers: the text of a statement, prepared or not, or `BULK`; empty before the
    /// first.
    pub(crate) statement: &'a [u8],
    /// Its place in the answer, from 0.
    pub(crate) number: usize,
    /// Its sequence number.
    pub(crate) sequence: u8,
    /// What is in it.
    pub(crate) payload: &'a [u8],
}

/// What becomes of a packet.
pub(crate) enum Fate {
    /// It is passed on.
    Pass,
    /// These bytes are sent in its place.
    Instead(Vec<u8>),
    /// These bytes are sent, and then the connection is closed.
    Last(Vec<u8>),
    /// Packets with this payload are sent, in order and without an end.
    Endless(Vec<u8>),
    /// Nothing more is sent, and the connection stays.
    Silence,
}

type Harm = dyn Fn(&Packet<'_>) -> Fate + Send + Sync;

/// The socket; it ends with this.
pub(crate) struct Proxy {
    dir: tempfile::TempDir,
    ended: Arc<AtomicBool>,
}

impl Packet<'_> {
    /// The packet as it was sent.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        packet(self.sequence, self.payload)
    }
}

/// A packet with a right header.
pub(crate) fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(sequence);
    bytes.extend_from_slice(payload);
    bytes
}

impl Proxy {
    /// Listens for connections to `server`, and does to each of its packets what `harm` says.
    pub(crate) fn start(
        server: &Server,
        harm: impl Fn(&Packet<'_>) -> Fate + Send + Sync + 'static,
    ) -> Proxy {
        let dir = tempfile::Builder::new()
            .prefix("schema_backup-proxy.")
            .tempdir()
            .unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let (ended, target) = (Arc::new(AtomicBool::new(false)), server.socket());
        let harm: Arc<Harm> = Arc::new(harm);
        let stop = Arc::clone(&ended);
        thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&target)) else {
                    continue;
                };
                serve(client, server, Arc::clone(&harm));
            }
        });
        Proxy { dir, ended }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is to end.
        UnixStream::connect(self.socket()).ok();
    }
}

/// What the client of a connection is asking.
#[derive(Default)]
struct Asking {
    statement: Vec<u8>,
    prepared: Vec<u8>,
    /// Packets of the answer so far.
    answered: usize,
}

fn serve(client: UnixStream, server: UnixStream, harm: Arc<Harm>) {
    let asking = Arc::new(Mutex::new(Asking::default()));
    let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let asked = Arc::clone(&asking);
    thread::spawn(move || {
        questions(&up, &down, &asked).ok();
        down.shutdown(std::net::Shutdown::Both).ok();
    });
    thread::spawn(move || {
        answers(&server, &client, &asking, &*harm).ok();
        client.shutdown(std::net::Shutdown::Both).ok();
        server.shutdown(std::net::Shutdown::Both).ok();
    });
}

fn read_packet(mut from: &UnixStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    from.read_exact(&mut header)?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload)?;
    Ok((header[3], payload))
}

fn questions(
    client: &UnixStream,
    mut server: &UnixStream,
    asking: &Mutex<Asking>,
) -> io::Result<()> {
    loop {
        let (sequence, payload) = read_packet(client)?;
        // Commands begin anew; what a client says while it logs in does not.
        if let (0, Some((command, text))) = (sequence, payload.split_first()) {
            let mut asking = asking.lock().unwrap();
            asking.answered = 0;
            asking.statement = match command {
                0x03 => text.to_vec(),
                0x16 => {
                    asking.prepared = text.to_vec();
                    [b"PREPARE ", text].concat()
                }
                0x17 => asking.prepared.clone(),
                0xfa => b"BULK".to_vec(),
                _ => b"another command".to_vec(),
            };
        }
        server.write_all(&packet(sequence, &payload))?;
    }
}

fn answers(
    server: &UnixStream,
    mut client: &UnixStream,
    asking: &Mutex<Asking>,
    harm: &Harm,
) -> io::Result<()> {
    loop {
        let (sequence, payload) = read_packet(server)?;
        let (statement, number) = {
            let mut asking = asking.lock().unwrap();
            asking.answered += 1;
            (asking.statement.clone(), asking.answered - 1)
        };
        let packet = Packet {
            statement: &statement,
            number,
            sequence,
            payload: &payload,
        };
        match harm(&packet) {
            Fate::Pass => client.write_all(&packet.bytes())?,
            Fate::Instead(bytes) => client.write_all(&bytes)?,
            Fate::Last(bytes) => return client.write_all(&bytes),
            Fate::Endless(payload) => {
                // Many at a time: the client's speed is to be what limits it.
                let burst: Vec<u8> = (0..=255u8)
                    .flat_map(|at| self::packet(sequence.wrapping_add(at), &payload))
                    .collect();
                loop {
                    client.write_all(&burst)?;
                }
            }
            // Until the client goes away, and with it the other half.
            Fate::Silence => loop {
                read_packet(server)?;
            },
        }
    }
}
