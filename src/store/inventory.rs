//! Reading what backups are there: manifests, whether their files are, and the names of
//! timestamped directories. Trusts nothing it reads; used before a run and by
//! [`list`](super::list).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::checked_json;
use super::files;
use super::manifest::{FORMAT, MANIFEST_FILE, Manifest, RUN_FILE, RunRecord};
use crate::error::Result;

/// What a directory has in place of a manifest.
#[derive(Debug)]
pub(super) enum Found {
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
    #[derive(Deserialize)]
    struct Head {
        format: u64,
    }
    let path = dir.join(MANIFEST_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => {
            return Ok(Found::Unreadable("it is a directory".to_owned()));
        }
        Err(e) => return Err(files::cannot_read(&path, e)),
    };
    Ok(match serde_json::from_slice::<Head>(&bytes) {
        Err(e) => Found::Unreadable(e.to_string()),
        // Where the number of the format was damaged it is no other format.
        _ if checked_json::holds(&bytes) == Some(false) => {
            Found::Unreadable("its content does not match its checksum".to_owned())
        }
        Ok(head) if head.format != u64::from(FORMAT) => Found::OtherFormat(head.format),
        Ok(_) => match checked_json::parse(&bytes) {
            Ok(manifest) => Found::Manifest(Box::new(manifest)),
            Err(why) => Found::Unreadable(why),
        },
    })
}

/// Reads `dir/run.json`, if it is there and sound.
pub(super) fn read_run(dir: &Path) -> Option<RunRecord> {
    let path = dir.join(RUN_FILE);
    // Of anything else there might be no end.
    if !fs::symlink_metadata(&path).ok()?.is_file() {
        return None;
    }
    checked_json::parse(&fs::read(path).ok()?).ok()
}

/// The first file, in the manifest's order, that is missing or has another size.
pub(super) fn first_problem(dir: &Path, manifest: &Manifest) -> Option<String> {
    let entries: Vec<_> = manifest.files().collect();
    entries
        .par_iter()
        .find_map_first(|entry| match fs::metadata(dir.join(&entry.file)) {
            _ if !files::is_safe(&entry.file) => Some(format!(
                "the manifest names {:?}, which is no file of a backup",
                entry.file
            )),
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
