//! Reading files that may hold a password or a key: what was read is wiped when it is dropped,
//! and a file that holds a secret and is open to others is refused. Says nothing of what stands
//! in a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::zeroize::Zeroizing;

use super::connection::config;
use crate::error::{Error, Result};

/// The bits of the mode that let others than the owner read or write.
const OTHERS: u32 = 0o066;

/// Whether a file with a secret may be open to others than its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// No.
    #[default]
    Refused,
    /// Yes (`--allow-readable-credentials`).
    Allowed,
}

/// A file and who may see it.
pub(super) struct SecretFile {
    pub(super) content: Zeroizing<Vec<u8>>,
    mode: u32,
}

impl SecretFile {
    /// An error if others than the owner can read or change the file, for one that turns out to
    /// hold a secret.
    pub(super) fn refuse_exposed(&self, path: &Path, exposure: Exposure) -> Result<()> {
        refuse_mode(self.mode, path, exposure)
    }
}

/// Reads a file, which has to be there, of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> Result<SecretFile> {
    let unreadable = |error| unreadable(path, error);
    let file = File::open(path).map_err(unreadable)?;
    // Of what is open, not of what the name leads to later.
    let meta = file.metadata().map_err(unreadable)?;
    if meta.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    // With room for all of it from the start: a buffer that grows leaves copies behind.
    let room = if meta.is_file() { meta.len() } else { 1 << 16 }.min(limit);
    let mut content = Zeroizing::new(Vec::with_capacity(room as usize + 1));
    file.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(unreadable)?;
    if content.len() as u64 > limit {
        let what = format!("{}: larger than {limit} bytes", path.display());
        return Err(config(what).hint("check the name of the file"));
    }
    Ok(SecretFile {
        content,
        mode: meta.mode(),
    })
}

/// The same for a file that somebody else reads: whether it is open to others.
pub(super) fn refuse_exposed(path: &Path, exposure: Exposure) -> Result<()> {
    let meta = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
    refuse_mode(meta.mode(), path, exposure)
}

fn refuse_mode(mode: u32, path: &Path, exposure: Exposure) -> Result<()> {
    if mode & OTHERS == 0 || exposure == Exposure::Allowed {
        return Ok(());
    }
    let (path, mode) = (path.display(), mode & 0o7777);
    let who = if mode & 0o006 != 0 {
        "everybody"
    } else {
        "its group"
    };
    let what = format!("{path} holds a secret and is open to {who} (mode {mode:04o})");
    Err(config(what).hint(format!(
        "chmod 600 {path}; where others are meant to read it, --allow-readable-credentials"
    )))
}

/// A file that cannot be read.
pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => Some("check the name of the file"),
        io::ErrorKind::PermissionDenied => {
            Some("the user running schema_backup needs read permission there")
        }
        _ => None,
    };
    let error = config(format!("cannot read {}", path.display())).because(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
