//! The client/server protocol's packets, parsed in place: what a query's answer looks like on
//! the wire (MySQL internals manual, "Protocol::Packet", "COM_QUERY Response", "Text
//! Resultset"; MariaDB knowledge base, "Result Set Packets"). Works on any [`Read`], so that
//! it is tested without a server. Nothing the other side sends makes it panic or allocate
//! more than was really received.

use std::io::Read;

use super::connect::{ServerError, hint_for, kind_of};
use crate::error::{Error, ErrorKind, Result};

/// A packet of this payload size is continued in the next one.
const FULL_PAYLOAD: usize = 0xff_ffff;
/// The buffer's usual size, in bytes, and that of the pieces in which servers are made to send;
/// it grows for a larger row. Four times as much is slower, as it fills the cache that a core's
/// other work needs, too.
pub(super) const BUFFER: usize = 64 << 10;
/// A larger buffer shrinks again when it is empty enough; a smaller one waits for the next large
/// row.
const KEEP: usize = 4 << 20;
/// A row larger than this cannot come from a server, whose limit is 1 GiB a packet.
const MAX_PAYLOAD: usize = (1 << 30) + (1 << 26);

/// Reads packets from a byte stream into one buffer and hands out their payloads.
pub struct PacketReader<R> {
    source: R,
    buffer: Vec<u8>,
    /// Where the next packet begins.
    start: usize,
    /// Where the received bytes end.
    end: usize,
    sequence: u8,
}

impl<R: Read> PacketReader<R> {
    /// A reader whose next packet has this sequence number: 1 for the first answer to a command
    /// of one packet.
    pub fn new(source: R, sequence: u8) -> Self {
        PacketReader {
            source,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            sequence,
        }
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// The next packet's payload, continuations joined.
    pub fn next_packet(&mut self) -> Result<&[u8]> {
        self.receive(4)?;
        let mut length = self.header(self.start)?;
        let payload = 4;
        self.receive(payload + length)?;
        // Relative to `start`, because receiving may move the data within the buffer.
        let mut payload_end = payload + length;
        let mut raw_end = payload_end;
        while length == FULL_PAYLOAD {
            self.receive(raw_end + 4)?;
            length = self.header(self.start + raw_end)?;
            self.receive(raw_end + 4 + length)?;
            let from = self.start + raw_end + 4;
            self.buffer
                .copy_within(from..from + length, self.start + payload_end);
            payload_end += length;
            raw_end += 4 + length;
            if payload_end > MAX_PAYLOAD {
                return Err(broken("a packet is larger than any server sends"));
            }
        }
        let packet = self.start;
        self.start += raw_end;
        Ok(&self.buffer[packet + payload..packet + payload_end])
    }

    /// Whether bytes were received beyond the packets handed out.
    pub fn is_drained(&self) -> bool {
        self.start == self.end
    }

    fn header(&mut self, at: usize) -> Result<usize> {
        let header = &self.buffer[at..at + 4];
        if header[3] != self.sequence {
            return Err(broken("packets are out of order"));
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16)
    }

    /// Makes sure that `wanted` bytes from `start` on have been received.
    fn receive(&mut self, wanted: usize) -> Result<()> {
        while self.end - self.start < wanted {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
                if self.buffer.len() > KEEP && self.end < BUFFER && wanted < BUFFER {
                    self.buffer.truncate(BUFFER);
                    self.buffer.shrink_to(BUFFER);
                }
            }
            if self.end == self.buffer.len() {
                // Doubling as bytes arrive: a length alone makes nobody allocate.
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    return Err(Error::new(ErrorKind::Failed, "the server closed the connection")
                        .hint("see the server's error log; a killed session or a restart looks like this"));
                }
                Ok(read) => self.end += read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted && e.get_ref().is_none() => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                    return Err(Error::interrupted());
                }
                Err(e) => {
                    return Err(
                        Error::new(ErrorKind::Failed, "lost the connection to the server")
                            .because(e),
                    );
                }
            }
        }
        Ok(())
    }
}

/// Reads the head of a text result set: the column count and the definitions, up to the
/// EOF packet that stands before the rows. Returns the number of columns.
pub fn read_result_head<R: Read>(packets: &mut PacketReader<R>) -> Result<usize> {
    let (columns, definitions_follow) = {
        let first = packets.next_packet()?;
        match first.first() {
            Some(0xff) => return Err(error_packet(first, "cannot read rows")),
            Some(0x00) => return Err(broken("a query that reads rows was answered without any")),
            Some(0xfb) | None => return Err(broken("an unexpected answer to a query")),
            Some(_) => {
                let mut rest = first;
                let columns = read_length(&mut rest)
                    .ok_or_else(|| broken("an unreadable column count"))?
                    .ok_or_else(|| broken("an unreadable column count"))?;
                // MariaDB with metadata caching: a second byte, 0 where definitions are left out.
                (columns, rest.first() != Some(&0))
            }
        }
    };
    if columns == 0 || columns > 4096 {
        return Err(broken("an absurd column count"));
    }
    if definitions_follow {
        for _ in 0..columns {
            let definition = packets.next_packet()?;
            if definition.first() == Some(&0xff) {
                return Err(error_packet(definition, "cannot read rows"));
            }
        }
    }
    let end = packets.next_packet()?;
    if is_eof(end) {
        Ok(columns)
    } else {
        Err(broken("no end of the column definitions"))
    }
}

/// Reads the answer to a statement that returns no rows. Returns the number of rows that it
/// inserted, changed or deleted.
pub fn read_ok<R: Read>(packets: &mut PacketReader<R>) -> Result<u64> {
    let payload = packets.next_packet()?;
    match payload.first() {
        Some(0x00) => match read_length(&mut &payload[1..]) {
            Some(Some(affected)) => Ok(affected as u64),
            _ => Err(broken("an unreadable answer to a statement")),
        },
        Some(0xff) => Err(error_packet(payload, "refused by the server")),
        _ => Err(broken("an unexpected answer to a statement")),
    }
}

/// The next row's payload, or `None` after the last one.
pub fn read_row<R: Read>(packets: &mut PacketReader<R>) -> Result<Option<&[u8]>> {
    let payload = packets.next_packet()?;
    match payload.first() {
        Some(0xff) => Err(error_packet(payload, "cannot read rows")),
        Some(0xfe) if is_eof(payload) => Ok(None),
        Some(_) => Ok(Some(payload)),
        None => Err(broken("an empty packet among the rows")),
    }
}

/// An EOF packet is exactly 5 bytes long; a row that begins with 0xfe has at least 9.
fn is_eof(payload: &[u8]) -> bool {
    payload.len() == 5 && payload[0] == 0xfe
}

/// Takes a length-encoded integer off the front: outer `None` when it is cut short or no
/// length, inner `None` for the NULL marker 0xfb.
#[inline]
pub fn read_length(rest: &mut &[u8]) -> Option<Option<usize>> {
    let (&first, tail) = rest.split_first()?;
    let extra = match first {
        0..=0xfa => {
            *rest = tail;
            return Some(Some(usize::from(first)));
        }
        0xfb => {
            *rest = tail;
            return Some(None);
        }
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        0xff => return None,
    };
    let bytes = tail.get(..extra)?;
    let value = bytes
        .iter()
        .rev()
        .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    *rest = &tail[extra..];
    Some(Some(usize::try_from(value).ok()?))
}

/// Takes a cell off the front of a text row: outer `None` when the row is malformed, inner
/// `None` for NULL.
#[inline]
pub fn read_cell<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let Some(length) = read_length(rest)? else {
        return Some(None);
    };
    let cell = rest.get(..length)?;
    *rest = &rest[length..];
    Some(Some(cell))
}

/// Appends a cell as a text row holds it; the inverse of [`read_cell`].
pub fn write_cell(row: &mut Vec<u8>, cell: Option<&[u8]>) {
    let Some(cell) = cell else {
        row.push(0xfb);
        return;
    };
    write_length(row, cell.len());
    row.extend_from_slice(cell);
}

/// Appends what stands before the bytes of a cell: its length, in up to 9 bytes.
pub(super) fn write_length(row: &mut Vec<u8>, length: usize) {
    match length {
        0..=0xfa => row.push(length as u8),
        0xfb..=0xffff => {
            row.push(0xfc);
            row.extend_from_slice(&(length as u16).to_le_bytes());
        }
        0x1_0000..=0xff_ffff => {
            row.push(0xfd);
            row.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
        }
        _ => {
            row.push(0xfe);
            row.extend_from_slice(&(length as u64).to_le_bytes());
        }
    }
}

fn error_packet(payload: &[u8], doing: &str) -> Error {
    let code = payload
        .get(1..3)
        .map_or(0, |c| u16::from_le_bytes([c[0], c[1]]));
    let (state, message) = match payload.get(3..) {
        Some([b'#', rest @ ..]) if rest.len() >= 5 => rest.split_at(5),
        Some(rest) => (&b"HY000"[..], rest),
        None => (&b"HY000"[..], &b""[..]),
    };
    let error = Error::new(kind_of(code), doing).because(ServerError {
        code,
        state: String::from_utf8_lossy(state).into_owned(),
        message: String::from_utf8_lossy(message).into_owned(),
    });
    match hint_for(code) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("the server sent {what}"))
        .hint("is something between this program and the server that changes the traffic?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        packet.push(sequence);
        packet.extend_from_slice(payload);
        packet
    }

    fn payloads(stream: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = PacketReader::new(stream, 1);
        std::iter::from_fn(|| reader.next_packet().ok().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn a_full_packet_is_joined_with_its_continuation() {
        let large = vec![7u8; FULL_PAYLOAD];
        let mut stream = packet(1, &large);
        stream.extend(packet(2, b"tail"));
        stream.extend(packet(3, b"next"));
        stream.extend(packet(4, &large));
        stream.extend(packet(5, b""));
        let got = payloads(&stream);
        assert_eq!(got.len(), 3);
        assert_eq!(got[0].len(), FULL_PAYLOAD + 4);
        assert!(got[0].ends_with(b"tail"));
        assert_eq!(got[1], b"next");
        assert_eq!(got[2].len(), FULL_PAYLOAD);
    }

    #[test]
    fn what_is_out_of_order_or_cut_short_is_an_error() {
        assert!(
            PacketReader::new(&packet(3, b"x")[..], 1)
                .next_packet()
                .is_err()
        );
        assert!(
            PacketReader::new(&packet(1, b"xyz")[..5], 1)
                .next_packet()
                .is_err()
        );
    }

    #[test]
    fn a_row_that_begins_like_an_eof_is_a_row() {
        let mut row = Vec::new();
        write_cell(&mut row, Some(&vec![b'x'; 1 << 24]));
        assert_eq!(row[0], 0xfe);
        assert!(!is_eof(&row));
        assert!(is_eof(&[0xfe, 0, 0, 2, 0]));
    }

    #[test]
    fn an_error_packet_becomes_an_error_with_number_and_state() {
        let mut stream = packet(1, &[0xff, 0x84, 0x05]);
        stream.truncate(4);
        stream[0] = 3 + 6 + 4;
        stream.extend([0xff, 0x84, 0x05]);
        stream.extend(b"#HY000gone");
        let mut packets = PacketReader::new(&stream[..], 1);
        let error = read_row(&mut packets).unwrap_err();
        assert!(error.to_string().contains("1412 (HY000): gone"), "{error}");
    }

    proptest! {
        #[test]
        fn cells_survive_the_round_trip(cells in prop::collection::vec(
            prop::option::of(prop::collection::vec(any::<u8>(), 0..70_000)), 0..6)) {
            let mut row = Vec::new();
            for cell in &cells {
                write_cell(&mut row, cell.as_deref());
            }
            let mut rest = &row[..];
            for cell in &cells {
                prop_assert_eq!(read_cell(&mut rest).unwrap(), cell.as_deref());
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut packets = PacketReader::new(&stream[..], 1);
            if read_result_head(&mut packets).is_ok() {
                while let Ok(Some(row)) = read_row(&mut packets) {
                    let mut rest = row;
                    while !rest.is_empty() && read_cell(&mut rest).is_some() {}
                }
            }
        }
    }
}
