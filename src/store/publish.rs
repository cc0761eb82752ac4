//! Publication: how a sealed staging directory becomes the backup. What has to be done is
//! first written to a journal; its rename into place is the commit point. The steps are then
//! taken one by one. Each can be taken again without harm, so a run that finds a journal takes
//! them all again: killed at any instant, the previous backup is whole, or the new one is as
//! soon as the next run has begun.
//!
//! In place, the live manifest goes first and the new one comes last, so that a directory that
//! is half one backup and half another has none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::Access as Permission;
use serde::{Deserialize, Serialize};

use super::files;
use super::manifest::{FileEntry, MANIFEST_FILE, Manifest, RUN_FILE};
use super::open::CheckedFile;
use super::private::PRIVATE_FILE;
use super::sink::create_new;
use super::staging::Access;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;

/// The directory below a root that holds everything temporary.
pub(super) const WORK_DIR: &str = ".schema_backup";
/// In it, while a publication goes on: what has to be done.
pub(super) const JOURNAL: &str = "journal.json";
/// The symbolic link to the newest timestamped backup.
pub(super) const LATEST: &str = "latest";
/// Version of the journal.
const VERSION: u32 = 1;
/// The directories that data and structure files lie in. A manifest, which anybody may have
/// edited, never gets a file outside them deleted, but for the one of a fixed name.
const OURS: [&str; 2] = ["structure/", "data/"];

/// A destination: the root and the modes of what is made there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) access: Access,
}

impl Place {
    pub(super) fn work(&self) -> PathBuf {
        self.root.join(WORK_DIR)
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.work().join("staging")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.work().join(JOURNAL)
    }
}

/// What a publication has to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    #[serde(flatten)]
    pub(super) publication: Publication,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layout", rename_all = "kebab-case")]
pub(super) enum Publication {
    /// Files go from staging into the root: one by one, or with a directory that is new.
    InPlace {
        /// Structure and data files that are new or changed.
        replace: Vec<String>,
        /// Files of the previous backup that the new one does not have.
        delete: Vec<String>,
        /// Which of `SHA256SUMS`, `run.json` and `manifest.json` change, in this order.
        marks: Vec<String>,
    },
    /// The staging directory gets this name.
    Timestamped { name: String },
}

/// One step of a publication: atomic, and harmless to take again at any later point of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Removes the live manifest, unless the new one is already there.
    HideManifest,
    /// Makes a directory below the root: where there is none yet, the staged one moves there with
    /// all that is in it. Something else of that name, a symbolic link among them, is an error.
    Make(&'a str),
    /// Moves a staged file to its place, unless it is there with its directory.
    Move(&'a str),
    /// Removes a file of the previous backup.
    Delete(&'a str),
    /// Removes a directory, if it is empty.
    Prune(&'a str),
    /// Syncs a directory below the root; the root itself is the empty path.
    Sync(&'a str),
    /// Gives the staging directory its name.
    Rename(&'a str),
    /// Points `latest` to a directory, if that is there.
    PointLatest(&'a str),
}

impl Journal {
    pub(super) fn new(publication: Publication) -> Journal {
        Journal {
            version: VERSION,
            publication,
        }
    }

    /// The steps, in their order.
    pub(super) fn steps(&self) -> Vec<Step<'_>> {
        match &self.publication {
            Publication::Timestamped { name } => {
                vec![
                    Step::Rename(name),
                    Step::Sync(""),
                    Step::PointLatest(name),
                    Step::Sync(""),
                ]
            }
            Publication::InPlace {
                replace,
                delete,
                marks,
            } => {
                let mut steps = Vec::new();
                if marks.iter().any(|mark| mark == MANIFEST_FILE) {
                    steps.extend([Step::HideManifest, Step::Sync("")]);
                }
                let filled: BTreeSet<_> = replace.iter().flat_map(|f| files::parents(f)).collect();
                // Parents sort before their children.
                steps.extend(filled.into_iter().map(Step::Make));
                steps.extend(replace.iter().map(|file| Step::Move(file)));
                steps.extend(delete.iter().map(|file| Step::Delete(file)));
                let pruned: BTreeSet<_> = delete.iter().flat_map(|f| files::parents(f)).collect();
                // Children sort after their parents, so backwards they come first.
                steps.extend(pruned.into_iter().rev().map(Step::Prune));
                let changed = replace.iter().chain(delete);
                let touched: BTreeSet<_> = changed.flat_map(|f| files::parents(f)).collect();
                steps.extend(touched.into_iter().map(Step::Sync));
                steps.push(Step::Sync(""));
                for mark in marks {
                    if mark == MANIFEST_FILE {
                        steps.push(Step::Sync(""));
                    }
                    steps.push(Step::Move(mark));
                }
                steps.push(Step::Sync(""));
                steps
            }
        }
    }

    /// Commits and takes every step. An error before the commit leaves everything as it was;
    /// one after it says so and leaves the journal, and the next run goes on from there.
    pub(super) fn publish(&self, place: &Place) -> Result<()> {
        self.commit(place)?;
        self.complete(place)
    }

    /// Writes the journal durably.
    pub(super) fn commit(&self, place: &Place) -> Result<()> {
        let (path, draft) = (place.journal(), place.work().join("journal.new"));
        let failed = |e| Error::write(&draft, "write", e);
        let mut text = serde_json::to_vec(self).map_err(|e| failed(e.into()))?;
        text.push(b'\n');
        let mut file: File = create_new(&draft, 0o600).map_err(failed)?;
        failpoint::reach("write-journal")
            .and_then(|()| file.write_all(&text))
            .and_then(|()| failpoint::reach("sync-journal"))
            .and_then(|()| file.sync_all())
            .and_then(|()| failpoint::reach("rename-journal"))
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(failed)?;
        // It is there, whether it is on stable storage yet or not.
        failpoint::reach("sync-renamed-journal")
            .map_err(|e| Error::write(&path, "sync", e))
            .and_then(|()| files::sync(&place.work()))
            .map_err(begun)
    }

    /// Takes every step and removes the journal.
    pub(super) fn complete(&self, place: &Place) -> Result<()> {
        let path = place.journal();
        self.steps()
            .iter()
            .try_for_each(|step| step.take(place))
            .and_then(|()| {
                failpoint::reach("remove-journal")
                    .and_then(|()| fs::remove_file(&path))
                    .map_err(|e| Error::write(&path, "remove", e))?;
                failpoint::reach("sync-removed-journal")
                    .map_err(|e| Error::write(&path, "sync", e))?;
                files::sync(&place.work())
            })
            .map_err(begun)
    }
}

/// An error after the commit: the next run takes the steps again.
fn begun(error: Error) -> Error {
    error.within("publication was begun and not finished").hint(
        "the new backup lies there in full; remove the cause, and the next run completes its \
         publication first",
    )
}

impl Step<'_> {
    /// Its name among the [`failpoint`]s, and what below the root it changes.
    fn named(&self) -> (&'static str, &str) {
        match *self {
            Step::HideManifest => ("hide-manifest", MANIFEST_FILE),
            Step::Make(dir) => ("make-directory", dir),
            Step::Move(file) => ("move", file),
            Step::Delete(file) => ("delete", file),
            Step::Prune(dir) => ("prune", dir),
            Step::Sync(dir) => ("sync-published", dir),
            Step::Rename(name) => ("rename", name),
            Step::PointLatest(_) => ("point-latest", LATEST),
        }
    }

    /// Takes the step.
    pub(super) fn take(&self, place: &Place) -> Result<()> {
        let (point, subject) = self.named();
        failpoint::reach(point)
            .map_err(|e| Error::write(&place.root.join(subject), "publish", e))?;
        let (root, staging) = (&place.root, place.staging());
        let gone_is_fine = |result: io::Result<()>, path: &Path, doing| match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::write(path, doing, e)),
            _ => Ok(()),
        };
        match *self {
            Step::HideManifest => {
                if staging.join(MANIFEST_FILE).exists() {
                    let live = root.join(MANIFEST_FILE);
                    gone_is_fine(fs::remove_file(&live), &live, "remove")?;
                }
                Ok(())
            }
            Step::Make(dir) => {
                let (from, to) = (staging.join(dir), root.join(dir));
                // The file system updates both names of each file that moves, of a directory once.
                let is_new = matches!(fs::symlink_metadata(&to), Err(e) if e.kind() == io::ErrorKind::NotFound);
                if is_new && fs::rename(&from, &to).is_ok() {
                    return Ok(());
                }
                files::make_dir(&to, place.access.dir_mode())
                    .map_err(|e| Error::write(&to, "create the directory", e))
            }
            Step::Move(file) => {
                let (from, to) = (staging.join(file), root.join(file));
                match fs::rename(&from, &to) {
                    // It was moved before.
                    Err(e) if e.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
                    moved => moved.map_err(|e| Error::write(&to, "replace", e)),
                }
            }
            Step::Delete(file) => {
                let live = root.join(file);
                if !files::parents_are_real(root, file) {
                    return Ok(());
                }
                gone_is_fine(fs::remove_file(&live), &live, "remove")
            }
            Step::Prune(dir) => {
                if files::parents_are_real(root, dir) {
                    // Fails where something else lies there, which is then left alone.
                    let _ = fs::remove_dir(root.join(dir));
                }
                Ok(())
            }
            Step::Sync(dir) => {
                let dir = root.join(dir);
                if dir.exists() {
                    files::sync(&dir)
                } else {
                    Ok(())
                }
            }
            Step::Rename(name) => {
                let to = root.join(name);
                // After a loss of power a directory may have its old name as well as its new one.
                let (there, here) = (to.join(MANIFEST_FILE), staging.join(MANIFEST_FILE));
                if files::same_bytes(&there, &here).unwrap_or(false) {
                    return Ok(());
                }
                gone_is_fine(fs::rename(&staging, &to), &to, "create")
            }
            Step::PointLatest(name) => {
                if !root.join(name).join(MANIFEST_FILE).exists() {
                    return Ok(());
                }
                let (link, draft) = (root.join(LATEST), place.work().join("latest.new"));
                files::remove_all(&draft)
                    .and_then(|()| std::os::unix::fs::symlink(name, &draft))
                    .and_then(|()| failpoint::reach("rename-latest"))
                    .and_then(|()| fs::rename(&draft, &link))
                    .map_err(|e| Error::write(&link, "replace", e))
            }
        }
    }
}

/// What [`roll_forward`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rolled {
    /// No publication was begun.
    Nothing,
    /// One was, and is complete now.
    Completed,
    /// A journal that says nothing, or files that it speaks of are gone: storage was damaged,
    /// or somebody removed them. What is left is no backup, and shows no manifest.
    Damaged,
}

/// Completes a publication that an earlier run began. The caller holds the lock.
pub(super) fn roll_forward(place: &Place) -> Result<Rolled> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let path = place.journal();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Rolled::Nothing),
        Err(e) => return Err(files::cannot_read(&path, e).with_kind(ErrorKind::Write)),
    };
    if let Ok(head) = serde_json::from_slice::<Head>(&bytes)
        && head.version != VERSION
    {
        let what = format!("{} was written by a newer schema_backup", path.display());
        return Err(Error::new(ErrorKind::Write, what)
            .hint("run that version once; it completes the publication that it began"));
    }
    match serde_json::from_slice::<Journal>(&bytes) {
        Ok(journal) if journal.is_safe() && journal.can_complete(place) => {
            journal.complete(place)?;
            Ok(Rolled::Completed)
        }
        _ => Ok(Rolled::Damaged),
    }
}

impl Journal {
    /// Whether every file it moves is in staging or has been moved.
    fn can_complete(&self, place: &Place) -> bool {
        self.steps().iter().all(|step| match step {
            Step::Move(file) => {
                place.staging().join(file).exists() || place.root.join(file).exists()
            }
            _ => true,
        })
    }

    fn is_safe(&self) -> bool {
        match &self.publication {
            Publication::Timestamped { name } => files::is_safe(name) && !name.contains('/'),
            Publication::InPlace {
                replace,
                delete,
                marks,
            } => {
                let mut all = replace.iter().chain(delete).chain(marks);
                all.all(|file| files::is_safe(file)) && delete.iter().all(|file| is_ours(file))
            }
        }
    }
}

fn is_ours(file: &str) -> bool {
    let ours = file == PRIVATE_FILE || OURS.iter().any(|dir| file.starts_with(dir));
    ours && files::is_safe(file)
}

/// Decides an in-place publication: drops from staging what the live directory already has,
/// byte for byte, and finds what else has to change. `own` and `sums` are the files of the manifest
/// itself and of the checksums. Fails where a step could not be taken.
pub(super) fn prepare_in_place(
    place: &Place,
    manifest: &Manifest,
    own: &FileEntry,
    sums: &FileEntry,
    previous: Option<&Manifest>,
) -> Result<Publication> {
    let known: BTreeMap<&str, &str> = previous
        .iter()
        .flat_map(|previous| previous.files())
        .map(|entry| (entry.file.as_str(), entry.sha256.as_str()))
        .collect();
    let entries: Vec<_> = manifest.files().collect();
    let replace = entries
        .par_iter()
        .filter_map(|entry| {
            let changed = known
                .get(entry.file.as_str())
                .is_some_and(|sha256| *sha256 != entry.sha256);
            match if changed {
                Ok(false)
            } else {
                drop_if_same(place, entry)
            } {
                Ok(true) => None,
                Ok(false) => Some(Ok(entry.file.clone())),
                Err(e) => Some(Err(e)),
            }
        })
        .collect::<Result<Vec<String>>>()?;

    let mut marks = Vec::new();
    if !drop_if_same(place, sums)? {
        marks.push(sums.file.clone());
    }
    marks.push(RUN_FILE.to_owned());
    if !drop_if_same(place, own)? {
        marks.push(own.file.clone());
    }

    let kept: BTreeSet<&str> = entries.iter().map(|entry| entry.file.as_str()).collect();
    let delete = known
        .into_keys()
        .filter(|file| !kept.contains(file) && is_ours(file))
        .filter(|file| files::parents_are_real(&place.root, file))
        .filter(|file| {
            let live = fs::symlink_metadata(place.root.join(file));
            live.is_ok_and(|meta| !meta.is_dir())
        })
        .map(str::to_owned)
        .collect::<Vec<_>>();

    let changed = replace.iter().chain(&marks).chain(&delete);
    check_live(&place.root, changed.map(String::as_str))?;
    Ok(Publication::InPlace {
        replace,
        delete,
        marks,
    })
}

/// Removes a staged file whose bytes the live one has. A live file that others can read where
/// it should be private counts as different, and is replaced.
fn drop_if_same(place: &Place, entry: &FileEntry) -> Result<bool> {
    let (live, staged) = (
        place.root.join(&entry.file),
        place.staging().join(&entry.file),
    );
    let exposed = place.access == Access::Private && files::is_exposed(&live);
    if exposed || !holds(&place.root, entry) {
        return Ok(false);
    }
    fs::remove_file(&staged).map_err(|e| Error::write(&staged, "remove", e))?;
    Ok(true)
}

/// Whether a directory has the file that was staged with this entry, by size and SHA-256. The staged
/// one was hashed when it was written, and is not read back from storage. What cannot be read is not
/// the same, and is replaced.
fn holds(dir: &Path, entry: &FileEntry) -> bool {
    let same = || CheckedFile::open(dir, entry).and_then(CheckedFile::finish);
    failpoint::reach("compare-unchanged").is_ok() && same().is_ok()
}

/// Makes staged files that the previous backup has too, byte for byte, hard links to them.
/// Returns how many. Where a link cannot be made (another owner, too many links, a file system
/// without them) the staged file stays as it is.
pub(super) fn link_unchanged(
    place: &Place,
    manifest: &Manifest,
    previous_dir: &Path,
    previous: &Manifest,
) -> usize {
    let known: BTreeMap<&str, &str> = previous
        .files()
        .map(|entry| (entry.file.as_str(), entry.sha256.as_str()))
        .collect();
    let entries: Vec<_> = manifest.files().collect();
    let same = entries
        .par_iter()
        .filter(|entry| known.get(entry.file.as_str()) == Some(&entry.sha256.as_str()));
    let linked = same.filter(|entry| {
        let staged = place.staging().join(&entry.file);
        let old = previous_dir.join(&entry.file);
        let usable = !(place.access == Access::Private && files::is_exposed(&old))
            && holds(previous_dir, entry);
        // Renamed over the staged file, so that there is a complete file at every moment.
        let mut link = staged.clone().into_os_string();
        link.push(".link");
        let link_it =
            || failpoint::reach("link-unchanged").and_then(|()| fs::hard_link(&old, &link));
        if !usable || link_it().is_err() {
            return false;
        }
        let linked = fs::rename(&link, &staged).is_ok();
        if !linked {
            let _ = fs::remove_file(&link);
        }
        linked
    });
    linked.count()
}

/// Finds before the commit what would stop a step after it.
fn check_live<'a>(root: &Path, changed: impl Iterator<Item = &'a str>) -> Result<()> {
    let refuse = |path: &Path, why: &str| {
        let what = format!("cannot replace {}: {why}", path.display());
        Err(Error::new(ErrorKind::Write, what))
    };
    let device = fs::metadata(root)
        .map_err(|e| files::cannot_read(root, e))?
        .dev();
    let mut seen = BTreeSet::new();
    for file in changed {
        for dir in files::parents(file) {
            let path = root.join(dir);
            if !seen.insert(dir) {
                continue;
            }
            match fs::symlink_metadata(&path) {
                Err(_) => {}
                Ok(meta) if !meta.is_dir() => {
                    return refuse(&path, "a directory is needed there")
                        .map_err(|e: Error| e.hint("move it out of the way"));
                }
                Ok(meta) if meta.dev() != device || files::is_mount_point(&path) => {
                    return refuse(&path, "it lies on another file system than the backup");
                }
                Ok(_) => rustix::fs::access(&path, Permission::WRITE_OK | Permission::EXEC_OK)
                    .map_err(|e| Error::write(&path, "write to", e.into()))?,
            }
        }
        let path = root.join(file);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            return refuse(&path, "it is a directory, and a file must go there")
                .map_err(|e| e.hint("move it out of the way"));
        }
        if files::is_mount_point(&path) {
            return refuse(&path, "another file is mounted there");
        }
    }
    Ok(())
}
