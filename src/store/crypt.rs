//! Encrypted files: age's format, so that the stock `age` reads them. A file is encrypted as it
//! is written, after compression and in the order of its bytes, with a key of its own that is
//! wrapped for each recipient; it is decrypted as it is read, in pieces of 64 KiB that are each
//! authenticated before anybody sees them. So memory does not depend on the size of a file.

use std::io::{self, BufRead, BufReader, Cursor, Read, Write};

use age::stream::StreamWriter;
use age::{DecryptError, Decryptor};

use super::manifest::FileEntry;
use super::sink::Sink;
use crate::config::{Identities, Recipients};
use crate::error::{Error, ErrorKind, Result};

/// The first line of a file. age has had no other version.
const VERSION: &[u8] = b"age-encryption.org/v1\n";
/// What the last line of the header begins with.
const MAC: &[u8] = b"--- ";
/// A longer header is not read: the wrapped key takes some 100 bytes for each recipient.
const MAX_HEADER: u64 = 256 << 10;
/// Between the header and the first piece.
const NONCE: u64 = 16;
/// A piece: 64 KiB and their authentication. Only the last one is shorter.
const PIECE: u64 = (64 << 10) + TAG;
const TAG: u64 = 16;
/// What is read at once.
const BUFFER: usize = 128 << 10;

/// A sink in front of another one that gets everything encrypted.
pub(super) struct EncryptingSink {
    stream: StreamWriter<Inner>,
}

struct Inner(Box<dyn Sink>);

impl EncryptingSink {
    /// Encrypts for `recipients` what goes into `sink`.
    pub(super) fn over(sink: Box<dyn Sink>, recipients: &Recipients) -> Result<EncryptingSink> {
        let encryptor = recipients.encryptor()?;
        let stream = encryptor.wrap_output(Inner(sink)).map_err(unwrap)?;
        Ok(EncryptingSink { stream })
    }
}

impl Sink for EncryptingSink {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(unwrap)
    }

    fn finish(self: Box<Self>) -> Result<FileEntry> {
        self.stream.finish().map_err(unwrap)?.0.finish()
    }
}

impl Write for Inner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sink's own error, which came through the encryption.
fn unwrap(error: io::Error) -> Error {
    error
        .downcast()
        .unwrap_or_else(|e| Error::new(ErrorKind::Internal, "cannot encrypt").because(e))
}

/// What an encrypted file holds.
pub(super) fn decrypt<'a>(
    source: impl Read + 'a,
    identities: &Identities,
) -> Result<Box<dyn Read + 'a>, DecryptError> {
    let mut source = BufReader::with_capacity(BUFFER, source);
    let header = read_header(&mut source)?;
    // Given the header alone it reads no further; one without an end was refused above.
    let decryptor = Decryptor::new_buffered(Cursor::new(header).chain(source))?;
    let reader = decryptor.decrypt(identities.iter())?;
    Ok(Box::new(reader))
}

/// Whether a file of `bytes` bytes is one as age writes it, as far as that can be said without a
/// key; in which way not. Reads the header only.
pub(super) fn check_form(source: impl Read, bytes: u64) -> io::Result<()> {
    let header = read_header(&mut BufReader::with_capacity(BUFFER, source))?.len() as u64;
    let payload = bytes.saturating_sub(header + NONCE);
    let last = payload % PIECE;
    // Nothing at all is an empty last piece; behind others an empty one is never written.
    let fits = payload == TAG || payload > TAG && (last == 0 || last > TAG);
    if fits {
        Ok(())
    } else {
        Err(io::Error::other("its length is none that age writes"))
    }
}

/// The header, to the end of its last line.
fn read_header(source: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    loop {
        let line = header.len();
        let left = MAX_HEADER - line as u64;
        source.take(left).read_until(b'\n', &mut header)?;
        let ended = header[line..].ends_with(b"\n");
        if !ended || line == 0 && header != VERSION {
            return Err(io::Error::other("it does not begin as files of age do"));
        }
        if header[line..].starts_with(MAC) {
            return Ok(header);
        }
    }
}

/// Why a file cannot be decrypted.
pub(super) fn describe(error: &DecryptError) -> String {
    match error {
        DecryptError::NoMatchingKeys => "it is not encrypted for the identity given".to_owned(),
        DecryptError::Io(e) => e.to_string(),
        DecryptError::InvalidMac => "its header was changed".to_owned(),
        _ => "it does not begin as files of age do".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use age::x25519::Identity;

    use super::super::sink::MemorySink;
    use super::*;
    use crate::config::testing::{identities, most_recipients, recipients};

    fn encrypt(key: &Identity, pieces: &[&[u8]]) -> Vec<u8> {
        encrypt_for(&recipients(key), pieces)
    }

    fn encrypt_for(recipients: &Recipients, pieces: &[&[u8]]) -> Vec<u8> {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let memory = Box::new(MemorySink::new("f", Arc::clone(&bytes)));
        let mut sink = Box::new(EncryptingSink::over(memory, recipients).unwrap());
        for piece in pieces {
            sink.write(piece).unwrap();
        }
        let entry = sink.finish().unwrap();
        let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(entry.bytes, bytes.len() as u64);
        bytes
    }

    fn read(bytes: &[u8], key: &Identity) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        decrypt(bytes, &identities(key))
            .map_err(|e| io::Error::other(describe(&e)))?
            .read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn what_goes_in_comes_out_with_the_key_and_not_without() {
        let key = Identity::generate();
        for size in [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 300_000] {
            let text: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let (one, two) = text.split_at(size / 3);
            let bytes = encrypt(&key, &[one, two]);
            assert_eq!(read(&bytes, &key).unwrap(), text, "{size}");
            check_form(&bytes[..], bytes.len() as u64).unwrap();
            assert_ne!(encrypt(&key, &[&text]), bytes, "the same bytes twice");
        }
        let bytes = encrypt(&key, &[b"secret"]);
        let error = read(&bytes, &Identity::generate()).unwrap_err();
        assert!(error.to_string().contains("not encrypted for the identity"));
    }

    #[test]
    fn what_is_for_as_many_as_there_may_be_can_be_read_again() {
        let key = Identity::generate();
        let bytes = encrypt_for(&most_recipients(&key), &[b"rows"]);
        check_form(&bytes[..], bytes.len() as u64).unwrap();
        assert_eq!(read(&bytes, &key).unwrap(), b"rows");
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let key = Identity::generate();
        let bytes = encrypt(&key, &[&[7; 400]]);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&changed, &key).is_err(), "byte {at}");
            assert!(read(&bytes[..at], &key).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_file_of_age_is_seen_without_a_key() {
        let bytes = encrypt(&Identity::generate(), &[&[7; 400]]);
        let header = bytes.windows(4).position(|four| four == MAC).unwrap();
        for bad in [
            &b""[..],
            b"age-encryption.org/v2\n--- x\n",
            &bytes[..header],
            &bytes[..header + 60],
        ] {
            assert!(check_form(bad, bad.len() as u64).is_err());
        }
        // A header without an end is not read to its end.
        let mut endless = VERSION.chain(io::repeat(b'\n'));
        assert!(check_form(&mut endless, u64::MAX).is_err());
        let mut endless = VERSION.chain(io::repeat(b'-'));
        assert!(check_form(&mut endless, u64::MAX).is_err());
    }
}
