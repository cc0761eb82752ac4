//! One file: read once from beginning to end, hashed, decompressed and looked into on the way,
//! with memory that does not depend on its size. What its bytes mean counts only if they are
//! the bytes that were written.

use std::io::{self, BufRead, BufReader, Read};

use super::report::Verdict;
use crate::encode::body;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::server::quote_identifier;
use crate::store::manifest::FileEntry;
use crate::store::open::{Backup, CheckedFile, Flaw, check_encrypted};
use crate::tally::{Step, Tally};

const BUFFER: usize = 1 << 17;

/// What a file should hold.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Rows.
    Data {
        /// Bytes of SQL.
        raw_bytes: u64,
        /// How many rows; not of a sequence, whose state is no row.
        rows: Option<u64>,
        /// Whether it is compressed.
        zstd: bool,
    },
    /// Something encrypted that is not looked into; what is known to be wrong with it.
    Encrypted(Option<String>),
    /// What creates an object.
    Definition {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Only its checksum is known.
    Bytes,
}

/// A file that tells how much of it was read, and stops when the run is to stop.
struct Watched<'a> {
    file: CheckedFile,
    tally: &'a Tally<'a>,
    interrupt: &'a Interrupt,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.is_raised() {
            // Not of the kind `Interrupted`, after which readers try again.
            return Err(io::Error::other("interrupted"));
        }
        let read = self.file.read(buffer)?;
        self.tally.add(Step {
            work: read as u64,
            stored_bytes: read as u64,
            ..Step::default()
        });
        Ok(read)
    }
}

/// Checks the file that `entry` describes, opened as `file`. Fails only when interrupted.
pub(super) fn check(
    file: Result<CheckedFile, Flaw>,
    entry: &FileEntry,
    content: &Content,
    backup: Option<&Backup>,
    tally: &Tally<'_>,
    interrupt: &Interrupt,
) -> Result<Verdict> {
    let mut watched = match file {
        Ok(file) => Watched {
            file,
            tally,
            interrupt,
        },
        Err(flaw) => return Ok(Verdict::of(&flaw, entry.bytes)),
    };
    let meaning = match content {
        Content::Data {
            raw_bytes,
            rows,
            zstd,
        } => match decrypted(&mut watched, backup) {
            Ok(source) => data(source, *raw_bytes, *rows, *zstd, tally),
            Err(e) => undecodable(&e),
        },
        Content::Encrypted(Some(why)) => Verdict::Unexpected { why: why.clone() },
        Content::Encrypted(None) => match check_encrypted(&mut watched, entry) {
            Ok(()) => Verdict::Ok,
            Err(e) => undecodable(&e),
        },
        Content::Definition { kind, name } => definition(&mut watched, kind, name),
        Content::Bytes => Verdict::Ok,
    };
    let rest = io::copy(&mut watched, &mut io::sink());
    interrupt.check()?;
    let checked = rest
        .map_err(Flaw::Unreadable)
        .and_then(|_| watched.file.finish());
    Ok(match checked {
        Ok(()) => meaning,
        Err(flaw) => Verdict::of(&flaw, entry.bytes),
    })
}

fn undecodable(error: &io::Error) -> Verdict {
    Verdict::Undecodable {
        why: error.to_string(),
    }
}

/// What is under the encryption of a file of rows, where there is one.
fn decrypted<'a>(
    file: &'a mut Watched<'_>,
    backup: Option<&Backup>,
) -> io::Result<Box<dyn Read + 'a>> {
    match backup {
        Some(backup) => backup.decrypted(file),
        None => Ok(Box::new(file)),
    }
}

/// Rows: as many bytes and rows as the manifest says, and never read further than one buffer
/// beyond that, whatever the file would decompress to.
fn data(
    source: impl Read,
    raw_bytes: u64,
    rows: Option<u64>,
    zstd: bool,
    tally: &Tally<'_>,
) -> Verdict {
    let source = BufReader::with_capacity(BUFFER, source);
    let read = if zstd {
        zstd::stream::read::Decoder::with_buffer(source)
            .and_then(|decoder| Rows::count(decoder, raw_bytes, tally))
    } else {
        Rows::count(source, raw_bytes, tally)
    };
    let read = match read {
        Ok(read) => read,
        Err(e) => return undecodable(&e),
    };
    let why = if read.bytes > raw_bytes {
        format!("it holds more than the {raw_bytes} bytes of SQL that the manifest says")
    } else if read.bytes < raw_bytes {
        let bytes = read.bytes;
        format!("it holds {bytes} bytes of SQL where the manifest says {raw_bytes}")
    } else if let Some(rows) = rows.filter(|rows| *rows != read.rows) {
        let found = read.rows;
        format!("it holds {found} rows where the manifest says {rows}")
    } else if read.marked {
        return Verdict::Ok;
    } else {
        "it does not begin as files of rows do".to_owned()
    };
    Verdict::Unexpected { why }
}

/// What the SQL text of a data file amounts to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rows {
    bytes: u64,
    /// Lines that begin with a parenthesis: rows stand on one line each.
    rows: u64,
    /// Whether it begins with our mark.
    marked: bool,
}

impl Rows {
    /// Counts up to the first buffer beyond `limit` bytes.
    fn count(source: impl Read, limit: u64, tally: &Tally<'_>) -> io::Result<Rows> {
        let mut source = BufReader::with_capacity(BUFFER, source);
        let mut read = Rows::default();
        let mut head: Vec<u8> = Vec::with_capacity(body::MARK.len());
        let mut line_begins = true;
        while read.bytes <= limit {
            let text = source.fill_buf()?;
            let (Some(first), Some(last)) = (text.first(), text.last()) else {
                break;
            };
            head.extend(text.iter().take(body::MARK.len() - head.len()));
            let mut rows = u64::from(line_begins && *first == b'(');
            rows += memchr::memchr_iter(b'\n', text)
                .filter(|at| text.get(at + 1) == Some(&b'('))
                .count() as u64;
            line_begins = *last == b'\n';
            let length = text.len();
            source.consume(length);
            read.bytes += length as u64;
            read.rows += rows;
            tally.add(Step {
                rows,
                raw_bytes: length as u64,
                ..Step::default()
            });
        }
        read.marked = head == body::MARK;
        Ok(read)
    }
}

/// A definition: framed as we write it, and creating what its name says, as far as that can be
/// said without understanding SQL.
fn definition(file: &mut Watched<'_>, kind: &str, name: &str) -> Verdict {
    let mut text = Vec::new();
    if let Err(e) = file.read_to_end(&mut text) {
        return Verdict::Unreadable { why: e.to_string() };
    }
    let creates = body::statements(&text).is_some_and(|text| creates(text, kind, name));
    if creates {
        Verdict::Ok
    } else {
        let why = format!("it does not create the {kind} `{name}`");
        Verdict::Unexpected { why }
    }
}

fn creates(statements: &[u8], kind: &str, name: &str) -> bool {
    let quoted = quote_identifier(name);
    let has = |words: String| memchr::memmem::find(statements, words.as_bytes()).is_some();
    let has_word = |word: &str| {
        let mut windows = statements.windows(word.len());
        windows.any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    };
    match kind {
        "table" => has(format!("CREATE TABLE {quoted}")),
        "sequence" => has(format!("CREATE SEQUENCE {quoted}")),
        // Its text may be in a character set that has other bytes for the name.
        "view" if name.is_ascii() => has(format!(" VIEW {quoted}")),
        // Users write the text of these themselves.
        "triggers" => has_word("trigger"),
        _ => has_word(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;

    fn count(text: &[u8], limit: u64) -> Rows {
        Rows::count(text, limit, &Tally::new(&Silent, 1)).unwrap()
    }

    #[test]
    fn rows_are_lines_that_begin_with_a_parenthesis() {
        let text = b"-- schema_backup: rows\nINSERT (x) VALUES\n(1),\n('(\\n('),\n(3);\nSET x;\n";
        let expected = Rows {
            bytes: text.len() as u64,
            rows: 3,
            marked: true,
        };
        assert_eq!(count(text, 1000), expected);
        assert_eq!(count(b"(1)\n(2)", 1000).rows, 2);
        assert!(!count(b"(1)\n(2)", 1000).marked);
        assert_eq!(count(b"", 0), Rows::default());
    }

    #[test]
    fn rows_are_counted_over_the_edges_of_buffers() {
        // A buffer ends behind each line end: the next begins with the row.
        let line = [&b"("[..], &b"x".repeat(BUFFER - 2), b"\n"].concat();
        assert_eq!(count(&line.repeat(5), u64::MAX).rows, 5);
        // A buffer begins with a parenthesis that begins no line.
        let text = [&b"x".repeat(BUFFER)[..], b"(\n(\n"].concat();
        assert_eq!(count(&text, u64::MAX).rows, 1);
    }

    #[test]
    fn what_decompresses_to_more_than_it_should_is_left_in_time() {
        let bomb = zstd::bulk::compress(&vec![b'('; 64 << 20], 1).unwrap();
        let decoder = zstd::stream::read::Decoder::new(&bomb[..]).unwrap();
        let read = Rows::count(decoder, 1000, &Tally::new(&Silent, 1)).unwrap();
        assert!(read.bytes > 1000 && read.bytes <= 1000 + BUFFER as u64);
    }

    #[test]
    fn a_cut_frame_does_not_decode() {
        let frames = [&b"one"[..], b"two"].map(|text| zstd::bulk::compress(text, 1).unwrap());
        let whole = frames.concat();
        let decode = |bytes: &[u8]| {
            let decoder = zstd::stream::read::Decoder::new(bytes)?;
            Rows::count(decoder, 1000, &Tally::new(&Silent, 1))
        };
        assert_eq!(decode(&whole).unwrap().bytes, 6);
        assert!(decode(&whole[..whole.len() - 1]).is_err());
        // A whole frame less is not seen here: the number of bytes tells.
        assert_eq!(decode(&frames[0]).unwrap().bytes, 3);
    }

    #[test]
    fn a_definition_creates_what_its_name_says() {
        let table = b"CREATE TABLE `a` (\n  `b` int\n);\n";
        assert!(creates(table, "table", "a") && !creates(table, "table", "b"));
        assert!(!creates(table, "view", "a") && !creates(table, "sequence", "a"));
        let trigger = b"DELIMITER ;;\ncreate definer=u Trigger t before insert on x ...\n";
        assert!(creates(trigger, "triggers", "x") && !creates(trigger, "event", "t"));
    }
}
