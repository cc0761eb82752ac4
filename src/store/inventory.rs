//! Reading what backups are there: manifests, whether their files are, and the names of
//! timestamped directories. Trusts nothing it reads, and reads no more than such a file can have;
//! used before a run, by [`list`](super::list), and by all that opens a backup.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::audit;
use super::checked_json;
use super::files;
use super::manifest::{FORMAT, MANIFEST_FILE, Manifest, RUN_FILE, RunRecord};
use super::open::{Flaw, open_plain};
use crate::error::Result;

/// What a directory has in place of a manifest.
#[derive(Debug)]
pub(crate) enum Found {
    /// No such file.
    Nothing,
    /// A file that is no manifest of ours, or a damaged one; why.
    Unreadable(String),
    /// A manifest of a format that this program does not know.
    OtherFormat(u64),
    /// A manifest.
    Manifest(Box<Manifest>),
}

/// Reads `dir/manifest.json`. Fails only where it cannot be told what is there.
pub(super) fn read_manifest(dir: &Path) -> Result<Found> {
    match read_small(dir, MANIFEST_FILE) {
        Ok(text) => Ok(parse_manifest(&text)),
        Err(Flaw::Missing) => Ok(Found::Nothing),
        Err(Flaw::Unreadable(e)) => Err(files::cannot_read(&dir.join(MANIFEST_FILE), e)),
        Err(Flaw::Broken(why)) => Ok(Found::Unreadable(why)),
        Err(_) => Ok(Found::Unreadable("it is not a plain file".to_owned())),
    }
}

/// What the text of a manifest amounts to.
pub(crate) fn parse_manifest(text: &[u8]) -> Found {
    #[derive(Deserialize)]
    struct Head {
        format: u64,
    }
    match serde_json::from_slice::<Head>(text) {
        Err(e) => Found::Unreadable(e.to_string()),
        // Where the number of the format was damaged it is no other format.
        _ if checked_json::holds(text) == Some(false) => {
            Found::Unreadable("its content does not match its checksum".to_owned())
        }
        Ok(head) if head.format != u64::from(FORMAT) => Found::OtherFormat(head.format),
        Ok(_) => match checked_json::parse(text) {
            Ok(manifest) => match audit::inconsistency(&manifest) {
                None => Found::Manifest(Box::new(manifest)),
                Some(why) => Found::Unreadable(why),
            },
            Err(why) => Found::Unreadable(why),
        },
    }
}

/// The whole of a plain file that goes with a backup and is no larger than those can be.
pub(super) fn read_small(dir: &Path, relative: &str) -> Result<Vec<u8>, Flaw> {
    let (file, bytes): (File, u64) = open_plain(dir, relative)?;
    if bytes > checked_json::MAX_BYTES {
        return Err(Flaw::Broken(format!("it has {bytes} bytes, far too many")));
    }
    let mut text = Vec::new();
    // It may have grown since.
    file.take(bytes)
        .read_to_end(&mut text)
        .map_err(Flaw::Unreadable)?;
    Ok(text)
}

/// Reads `dir/run.json`, if it is there and sound.
pub(super) fn read_run(dir: &Path) -> Option<RunRecord> {
    checked_json::parse(&read_small(dir, RUN_FILE).ok()?).ok()
}

/// The first file, in the manifest's order, that is missing or has another size.
pub(super) fn first_problem(dir: &Path, manifest: &Manifest) -> Option<String> {
    let entries: Vec<_> = manifest.files().collect();
    entries
        .par_iter()
        .find_map_first(|entry| match fs::symlink_metadata(dir.join(&entry.file)) {
            _ if !files::parents_are_real(dir, &entry.file) => {
                Some(format!("{} is not in a plain directory", entry.file))
            }
            Ok(meta) if meta.is_file() && meta.len() == entry.bytes => None,
            Ok(meta) if meta.is_file() => Some(format!(
                "{} has {} bytes where the manifest says {}",
                entry.file,
                meta.len(),
                entry.bytes
            )),
            Ok(_) => Some(format!("{} is not a file", entry.file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Some(format!("{} is missing", entry.file))
            }
            Err(e) => Some(format!("{} cannot be read: {e}", entry.file)),
        })
}

/// The names `YYYYMMDDhhmmss` of the directories in `root`, oldest first.
pub(super) fn timestamped(root: &Path) -> Result<Vec<String>> {
    let failed = |e| files::cannot_read(root, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let digits = name.len() == 14 && name.bytes().all(|b| b.is_ascii_digit());
        if digits && entry.file_type().map_err(failed)?.is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The newest complete timestamped backup in `root`.
pub(super) fn newest_complete(root: &Path) -> Result<Option<(PathBuf, Manifest)>> {
    for name in timestamped(root)?.iter().rev() {
        let dir = root.join(name);
        if let Ok(Found::Manifest(manifest)) = read_manifest(&dir)
            && first_problem(&dir, &manifest).is_none()
        {
            return Ok(Some((dir, *manifest)));
        }
    }
    Ok(None)
}
