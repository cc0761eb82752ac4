//! A backup directory looked at as a whole, for `verify`: whether the files that stand beside
//! those of the manifest are what they should be, and what lies there that should not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::checked_json;
use super::files;
use super::inventory::read_small;
use super::manifest::{
    BackupKind, FileEntry, MANIFEST_FILE, Manifest, RUN_FILE, RunRecord, SUMS_FILE,
};
use super::names::{self, hex};
use super::open::{Backup, CheckedFile, Damaged, Flaw, open_plain};
use super::private::PRIVATE_FILE;
use super::publish::WORK_DIR;
use super::staging::sums;
use crate::config::Compression;
use crate::error::{Error, Result};

const HASH_DIGITS: usize = 64;
/// More bytes than any backup has, and so few that sums of such numbers are numbers.
const MAX_BYTES: u64 = 1 << 56;

/// What `SHA256SUMS` says: checksums by file.
pub type Sums = BTreeMap<String, String>;

impl Backup {
    /// What is wrong with `run.json`.
    pub fn check_run(&self) -> Result<(), Flaw> {
        let run = read_run(&self.dir)?;
        if run.rows == self.manifest.rows() {
            Ok(())
        } else {
            let why = "it is of another backup: its number of rows is not the manifest's";
            Err(Flaw::Broken(why.to_owned()))
        }
    }

    /// What is wrong with `SHA256SUMS`: it follows from the manifest, to the byte.
    pub fn check_sums(&self) -> Result<(), Flaw> {
        let found = read_small(&self.dir, SUMS_FILE)?;
        let expected = sums(&self.manifest, &own_entry(&self.dir)?);
        if found == expected.as_bytes() {
            Ok(())
        } else if found.len() != expected.len() {
            Err(Flaw::Size(found.len() as u64))
        } else {
            Err(Flaw::Checksum)
        }
    }

    /// The size that `SHA256SUMS` should have.
    pub fn sums_bytes(&self) -> u64 {
        let line = |file: &str| (HASH_DIGITS + 3 + file.len()) as u64;
        let files: u64 = self.manifest.files().map(|entry| line(&entry.file)).sum();
        files + line(MANIFEST_FILE)
    }

    /// What is wrong with a manifest that is whole: it was edited together with its checksum, or
    /// is another backup's. `SHA256SUMS` tells, where that is whole too: damage would leave most
    /// of a checksum as it was, or no checksum at all, and would not agree with the files.
    pub fn check_manifest(&self) -> Result<(), Flaw> {
        let (Ok(sums), Ok(own)) = (read_sums(&self.dir), own_entry(&self.dir)) else {
            return Ok(());
        };
        let another = sums.get(MANIFEST_FILE).is_some_and(|sum| {
            let differing = sum.bytes().zip(own.sha256.bytes()).filter(|(a, b)| a != b);
            differing.count() > HASH_DIGITS / 2
        });
        let ours: Sums = self
            .manifest
            .files()
            .map(|entry| (entry.file.clone(), entry.sha256.clone()))
            .collect();
        let mut disputed = sums
            .iter()
            .filter(|(file, sum)| *file != MANIFEST_FILE && ours.get(*file) != Some(sum))
            .peekable();
        let agrees = |(file, sum): (&String, &String)| {
            sum_of(&self.dir, file).is_some_and(|found| found == *sum)
        };
        if another && (disputed.peek().is_none() || disputed.any(agrees)) {
            let why = "it was edited or is another backup's: SHA256SUMS has another checksum of it";
            return Err(Flaw::Broken(why.to_owned()));
        }
        Ok(())
    }

    /// Files that do not belong to the backup.
    pub fn others(&self) -> Result<Vec<String>> {
        let known = self.manifest.files().map(|entry| entry.file.as_str());
        others(&self.dir, known.collect(), self.manifest.kind)
    }
}

impl Damaged {
    /// What is wrong with `run.json`.
    pub fn check_run(&self) -> Result<(), Flaw> {
        read_run(&self.dir).map(drop)
    }

    /// The files that `SHA256SUMS` names, but for the manifest. Sizes are those found.
    pub fn files(&self) -> Result<Vec<FileEntry>, Flaw> {
        let mut sums = read_sums(&self.dir)?;
        sums.remove(MANIFEST_FILE);
        let entry = |(file, sha256): (String, String)| FileEntry {
            bytes: fs::symlink_metadata(self.dir.join(&file)).map_or(0, |meta| meta.len()),
            file,
            sha256,
        };
        Ok(sums.into_iter().map(entry).collect())
    }

    /// Opens a file that [`Damaged::files`] names.
    pub fn file(&self, entry: &FileEntry) -> Result<CheckedFile, Flaw> {
        CheckedFile::open(&self.dir, entry)
    }

    /// Files that `SHA256SUMS` does not name, where only named files should be.
    pub fn others(&self, known: &[FileEntry]) -> Result<Vec<String>> {
        let known = known.iter().map(|entry| entry.file.as_str());
        // Whether more than these two directories are ours, only the manifest says.
        others(&self.dir, known.collect(), BackupKind::Host)
    }
}

/// Why a manifest cannot have been written by a backup. None is read that has such a reason.
pub(super) fn inconsistency(manifest: &Manifest) -> Option<String> {
    if let Some(odd) = manifest.files().find(|entry| !files::is_safe(&entry.file)) {
        return Some(format!("it names {:?}, no file of a backup", odd.file));
    }
    if let Some(why) = absurd_number(manifest) {
        return Some(why);
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = manifest.files().find(|entry| !seen.insert(&entry.file)) {
        return Some(format!("it names {} twice", twice.file));
    }
    let misplaced = |what: &str, name: &str, file: &str, expected: String| {
        (file != expected).then(|| format!("it has {file} for {what} `{name}`"))
    };
    let private = manifest.private.as_ref();
    if let Some(odd) = private.filter(|entry| entry.file != PRIVATE_FILE) {
        return Some(format!("it has {} for {PRIVATE_FILE}", odd.file));
    }
    for (name, table) in &manifest.tables {
        let expected = match table.kind {
            super::manifest::TableKind::Table => names::table_structure(name),
            super::manifest::TableKind::Sequence => names::sequence_structure(name),
        };
        let structure = misplaced("table", name, &table.structure.file, expected);
        let Some(data) = &table.data else {
            if structure.is_some() {
                return structure;
            }
            continue;
        };
        let compression = match data.compression.as_str() {
            "none" => Compression::None,
            "zstd" => Compression::DEFAULT_ZSTD,
            other => return Some(format!("it has the unknown compression {other:?}")),
        };
        if data.digest.is_empty() && private.is_none() {
            return Some(format!("it has no digest for table `{name}`"));
        }
        // A chunk keeps its number when others come or go before it.
        let misplaced = data.chunks.iter().enumerate().filter_map(|(at, chunk)| {
            let file = &chunk.file.file;
            let number = names::chunk_number(name, file).unwrap_or(at + 1);
            let expected = names::data(name, number, compression, manifest.is_encrypted());
            misplaced("rows of table", name, file, expected)
        });
        let sum: u64 = data.chunks.iter().map(|chunk| chunk.rows).sum();
        let sum = (sum != data.rows)
            .then(|| format!("the chunks of table `{name}` do not add up to its rows"));
        if let Some(why) = structure.into_iter().chain(misplaced).chain(sum).next() {
            return Some(why);
        }
    }
    manifest.objects.iter().find_map(|object| {
        let (kind, name) = (object.kind.as_str(), object.name.as_str());
        let expected = match kind {
            "view" => names::view(name),
            "triggers" => names::triggers(name),
            "event" => names::event(name),
            _ => names::routine(kind, name),
        };
        misplaced(kind, name, &object.file.file, expected)
    })
}

/// A number that no backup comes to. What is left can be added up.
fn absurd_number(manifest: &Manifest) -> Option<String> {
    let mut total = 0u64;
    let mut add = |bytes: u64| {
        total = total.saturating_add(bytes);
        total <= MAX_BYTES
    };
    if !manifest.files().all(|entry| add(entry.bytes)) {
        return Some("the sizes of its files are absurd".to_owned());
    }
    manifest.tables.iter().find_map(|(name, table)| {
        let mut chunks = table.data.iter().flat_map(|data| &data.chunks);
        // The shortest row takes more than a byte.
        let sane = chunks.all(|chunk| add(chunk.raw_bytes) && chunk.rows <= chunk.raw_bytes);
        (!sane).then(|| format!("the sizes of table `{name}` are absurd"))
    })
}

fn read_run(dir: &Path) -> Result<RunRecord, Flaw> {
    checked_json::parse(&read_small(dir, RUN_FILE)?).map_err(Flaw::Broken)
}

/// The manifest as `SHA256SUMS` names it.
fn own_entry(dir: &Path) -> Result<FileEntry, Flaw> {
    let bytes = read_small(dir, MANIFEST_FILE)?;
    Ok(FileEntry {
        file: MANIFEST_FILE.to_owned(),
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(&bytes)),
    })
}

fn sum_of(dir: &Path, file: &str) -> Option<String> {
    let (mut file, _) = open_plain(dir, file).ok()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn read_sums(dir: &Path) -> Result<Sums, Flaw> {
    parse_sums(&read_small(dir, SUMS_FILE)?).map_err(Flaw::Broken)
}

/// Reads `SHA256SUMS` as we write it.
pub(crate) fn parse_sums(text: &[u8]) -> Result<Sums, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
    if !text.ends_with('\n') {
        return Err("it ends within a line".to_owned());
    }
    let mut sums = Sums::new();
    for (at, line) in text.lines().enumerate() {
        let line = line
            .split_once("  ")
            .filter(|(sum, file)| is_sum(sum) && files::is_safe(file));
        let (sum, file) = line.ok_or_else(|| format!("line {} has no checksum", at + 1))?;
        sums.insert(file.to_owned(), sum.to_owned());
    }
    if sums.contains_key(MANIFEST_FILE) {
        Ok(sums)
    } else {
        Err(format!("it does not name {MANIFEST_FILE}"))
    }
}

fn is_sum(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Files in `dir` that are not `known`. A host directory is shared with git and with whoever
/// puts a note there: in it only the directories are ours that our files lie in.
fn others(dir: &Path, known: BTreeSet<&str>, kind: BackupKind) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = match kind {
        BackupKind::Host => vec!["structure".to_owned(), "data".to_owned()],
        BackupKind::UserData | BackupKind::Ephemeral => vec![String::new()],
    };
    while let Some(inner) = open.pop() {
        let path = dir.join(&inner);
        // What lies there in place of a directory is a flaw of the files in it.
        if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            continue;
        }
        let failed = |e| -> Error { files::cannot_read(&path, e) };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let marks = [MANIFEST_FILE, RUN_FILE, SUMS_FILE, WORK_DIR];
            if inner.is_empty() && marks.contains(&name.as_str()) {
                continue;
            }
            let relative = if inner.is_empty() {
                name
            } else {
                format!("{inner}/{name}")
            };
            if entry.file_type().map_err(failed)?.is_dir() {
                open.push(relative);
            } else if !known.contains(relative.as_str()) {
                found.push(relative);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::open::Opened;
    use super::super::staging::tests::{begin, fill, run_record, user_data};
    use super::*;

    fn published(root: &Path, tables: &[(&str, &str)]) -> Box<Backup> {
        let target = user_data(root);
        let staging = begin(&target);
        let manifest = fill(&staging, target.kind, tables);
        let mut run = run_record();
        run.rows = manifest.rows();
        let published = staging.seal(&manifest, &run).unwrap().publish().unwrap();
        sound(&published.path)
    }

    fn sound(dir: &Path) -> Box<Backup> {
        match Backup::look(dir).unwrap() {
            Opened::Sound(backup) => backup,
            Opened::Damaged(damaged) => panic!("{damaged:?}"),
        }
    }

    fn rewrite(backup: &Backup, change: impl Fn(&mut Manifest)) {
        let mut manifest = backup.manifest.clone();
        change(&mut manifest);
        let text = checked_json::render(&manifest).unwrap();
        fs::write(backup.dir.join(MANIFEST_FILE), text).unwrap();
    }

    #[test]
    fn what_was_published_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let backup = published(dir.path(), &[("a", "1"), ("b", "2")]);
        assert!(inconsistency(&backup.manifest).is_none());
        assert!(backup.check_manifest().is_ok() && backup.check_sums().is_ok());
        assert!(backup.check_run().is_ok());
        assert_eq!(backup.others().unwrap(), Vec::<String>::new());
        let size = fs::metadata(backup.dir.join(SUMS_FILE)).unwrap().len();
        assert_eq!(size, backup.sums_bytes());
    }

    #[test]
    fn a_manifest_edited_with_its_checksum_is_told_from_damaged_sums() {
        let dir = tempfile::tempdir().unwrap();
        let backup = published(dir.path(), &[("a", "1"), ("b", "2")]);
        let sums = fs::read(backup.dir.join(SUMS_FILE)).unwrap();
        // One digit of each line in turn: the sums are damaged, the manifest is not.
        for at in (0..sums.len()).filter(|at| sums[*at].is_ascii_hexdigit()) {
            let mut damaged = sums.clone();
            damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
            fs::write(backup.dir.join(SUMS_FILE), damaged).unwrap();
            assert!(backup.check_manifest().is_ok(), "byte {at}");
            assert!(backup.check_sums().is_err(), "byte {at}");
        }
        fs::write(backup.dir.join(SUMS_FILE), sums).unwrap();
        rewrite(&backup, |manifest| manifest.database.name = "other".into());
        assert!(sound(&backup.dir).check_manifest().is_err());
    }

    #[test]
    fn another_backups_manifest_is_not_believed() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let backup = published(one.path(), &[("a", "1"), ("b", "2")]);
        let other = published(two.path(), &[("a", "3"), ("b", "4")]);
        fs::copy(
            other.dir.join(MANIFEST_FILE),
            backup.dir.join(MANIFEST_FILE),
        )
        .unwrap();
        assert!(sound(&backup.dir).check_manifest().is_err());
    }

    #[test]
    fn names_that_do_not_fit_and_sums_that_do_not_add_up_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let backup = published(dir.path(), &[("a", "1"), ("b", "2")]);
        let flawed = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = backup.manifest.clone();
            change(&mut manifest);
            inconsistency(&manifest).is_some()
        };
        assert!(flawed(&|m| {
            let structure = m.tables["b"].structure.clone();
            m.tables.get_mut("a").unwrap().structure = structure;
        }));
        assert!(flawed(&|m| {
            let a = m.tables.remove("a").unwrap();
            m.tables.insert("c".into(), a);
        }));
        assert!(flawed(&|m| {
            let data = m.tables.get_mut("a").unwrap().data.as_mut().unwrap();
            data.rows += 1;
        }));
        assert!(flawed(&|m| {
            let data = m.tables.get_mut("a").unwrap().data.as_mut().unwrap();
            data.digest.clear();
        }));
        assert!(flawed(&|m| {
            m.tables.get_mut("a").unwrap().data = None;
            m.tables.get_mut("b").unwrap().data = None;
            assert!(inconsistency(m).is_none());
            let file = "other.json.age".to_owned();
            m.private = Some(FileEntry {
                file,
                ..m.tables["a"].structure.clone()
            });
        }));
    }

    #[test]
    fn sums_are_read_as_they_are_written() {
        let sum = "0".repeat(HASH_DIGITS);
        let good = format!("{sum}  a b\n{sum}  {MANIFEST_FILE}\n");
        assert_eq!(parse_sums(good.as_bytes()).unwrap().len(), 2);
        for bad in [
            String::new(),
            good.trim_end().to_owned(),
            good.replace("  a", " a"),
            good.replacen('0', "g", 1),
            good.replace("a b", "../b"),
            good.replace(MANIFEST_FILE, "other"),
        ] {
            assert!(parse_sums(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
