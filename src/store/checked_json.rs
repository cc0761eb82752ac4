//! JSON files that carry their own checksum: the last key, `"checksum"`, is the SHA-256 of every
//! byte before it, and what follows it is fixed. So one changed byte is noticed wherever it
//! stands, in the manifest as in the record of the run, and without a second file.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::names::hex;
use crate::error::{Error, ErrorKind, Result};

const KEY: &str = ",\n  \"checksum\": \"sha256:";
const END: &str = "\"\n}\n";
const HEX_DIGITS: usize = 64;
/// The largest text that is written or read: a manifest of about a million chunks.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// The text of `value`, which serializes to an object with at least one key.
pub(crate) fn render(value: &impl Serialize) -> Result<Vec<u8>> {
    let cannot = || Error::new(ErrorKind::Internal, "cannot serialize");
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| cannot().because(e))?;
    if !text.ends_with(b"\n}") {
        return Err(cannot());
    }
    text.truncate(text.len() - 2);
    seal(&mut text);
    if text.len() as u64 > MAX_BYTES {
        let what = "there are too many files for one manifest";
        return Err(Error::new(ErrorKind::Config, what).hint("make chunk_size larger"));
    }
    Ok(text)
}

/// Ends the text of an object, which lacks its last brace, with its checksum.
pub(crate) fn seal(text: &mut Vec<u8>) {
    let checksum = hex(&Sha256::digest(&text));
    text.extend_from_slice(format!("{KEY}{checksum}{END}").as_bytes());
}

/// Reads what [`render`] wrote; says why not where a byte is not as it was.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    match holds(text) {
        None => Err("it does not end with its checksum".to_owned()),
        Some(false) => Err("its content does not match its checksum".to_owned()),
        Some(true) => serde_json::from_slice(text).map_err(|e| e.to_string()),
    }
}

/// Whether the checksum at the end of `text` is that of what stands before it; `None` where
/// there is no checksum.
pub(crate) fn holds(text: &[u8]) -> Option<bool> {
    let tail = KEY.len() + HEX_DIGITS + END.len();
    let (body, tail) = text.split_at(text.len().checked_sub(tail)?);
    let checksum = tail
        .strip_prefix(KEY.as_bytes())?
        .strip_suffix(END.as_bytes())?;
    Some(hex(&Sha256::digest(body)).as_bytes() == checksum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn value() -> BTreeMap<String, u32> {
        BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 22)])
    }

    #[test]
    fn what_is_rendered_is_json_and_parses_back() {
        let text = render(&value()).unwrap();
        assert!(text.starts_with(b"{\n  \"a\": 1,\n  \"b\": 22,\n  \"checksum\": \"sha256:"));
        let generic: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(generic["b"], 22);
        #[derive(serde::Deserialize)]
        struct Two {
            a: u32,
            b: u32,
        }
        let two: Two = parse(&text).unwrap();
        assert_eq!((two.a, two.b), (1, 22));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let text = render(&value()).unwrap();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut damaged = text.clone();
                damaged[at] ^= 1 << bit;
                let read = parse::<serde_json::Value>(&damaged);
                assert!(read.is_err(), "byte {at}, bit {bit}");
            }
            assert!(
                parse::<serde_json::Value>(&text[..at]).is_err(),
                "cut at {at}"
            );
        }
        assert!(render(&7).is_err());
    }
}
