//! From the first file of a run to its publication. A run begins a [`Staging`], creates files
//! in it from any thread, seals it with the manifest, and publishes the [`Sealed`].
//!
//! Until `publish` nothing outside `<root>/.schema_backup` changes. That directory is private,
//! holds the lock, and is gone when the run ends, well or badly; only a publication that was
//! begun and could not be finished stays there, for the next run to complete.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::checked_json;
use super::crypt::EncryptingSink;
use super::files;
use super::inventory::{self, Found};
use super::lock::Lock;
use super::manifest::{
    BackupKind, FORMAT, FileEntry, MANIFEST_FILE, Manifest, RUN_FILE, RunRecord, SUMS_FILE,
};
use super::names;
use super::private::{PRIVATE_FILE, Private};
use super::publish::{self, Journal, LATEST, Place, Publication, Rolled};
use super::sink::{FileSink, SYNC_AT_FINISH, Sink, create_new};
use super::volume::Volume;
use crate::config::{Compression, Recipients};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;

/// How a backup is laid out below its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The root is the backup and is updated in place.
    InPlace,
    /// Each backup is a new directory `<YYYYMMDDhhmmss>`, and `latest` points to the newest.
    Timestamped,
}

/// Who may read what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Directories 0755 and files 0644, under the umask.
    Public,
    /// Directories 0700 and files 0600, whatever the umask, from their first moment.
    Private,
}

impl Access {
    pub(super) fn dir_mode(self) -> u32 {
        match self {
            Access::Public => 0o755,
            Access::Private => 0o700,
        }
    }

    pub(super) fn file_mode(self) -> u32 {
        match self {
            Access::Public => 0o644,
            Access::Private => 0o600,
        }
    }
}

/// Where a backup goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The directory; made if need be.
    pub root: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
    /// Who may read it.
    pub access: Access,
    /// Which of a run's directories it is.
    pub kind: BackupKind,
    /// The database that is saved; a destination that holds another one's backup is refused.
    pub database: String,
    /// Whether files of a timestamped backup that the previous one has, byte for byte, become
    /// hard links to them.
    pub link_unchanged: bool,
    /// Whom files of rows are encrypted for; `None` where they are not.
    pub recipients: Option<Recipients>,
}

/// The lock and the working directory, which go away together.
#[derive(Debug)]
struct Work {
    place: Place,
    // Dropped in this order: the lock's directory lies in the directories made.
    _lock: Lock,
    _made: MadeDirs,
}

/// Directories that a run made for its destination. Those that are empty at its end, because
/// nothing was published, are removed again.
#[derive(Debug)]
struct MadeDirs(Vec<PathBuf>);

impl Drop for MadeDirs {
    fn drop(&mut self) {
        for dir in &self.0 {
            // Fails, as it should, for a directory that holds something.
            let _ = fs::remove_dir(dir);
        }
    }
}

impl Work {
    /// Makes the root, takes the lock, and completes a publication that an earlier run began.
    fn take(target: &Target) -> Result<(Work, Rolled)> {
        let place = Place {
            root: target.root.clone(),
            access: target.access,
        };
        let made = MadeDirs(files::make_root(&place.root, target.access.dir_mode())?);
        if target.layout == Layout::Timestamped {
            refuse_foreign_latest(&place.root)?;
        }
        if files::is_mount_point(&place.work()) {
            let what = format!(
                "another file system is mounted on {}",
                place.work().display()
            );
            return Err(Error::new(ErrorKind::Write, what)
                .hint("files are moved from there into the backup; unmount it"));
        }
        let work = Work {
            _lock: Lock::acquire(&place.root, &place.work())?,
            place,
            _made: made,
        };
        let rolled = publish::roll_forward(&work.place)?;
        Ok((work, rolled))
    }

    /// Removes everything but the lock.
    fn clear(&self) -> Result<()> {
        let work = self.place.work();
        let failed = |e| Error::write(&work, "clear", e);
        failpoint::reach("clear-work").map_err(failed)?;
        for entry in fs::read_dir(&work).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() != "lock" {
                files::remove_all(&entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // With a journal there is a committed backup in here that the next run completes.
        if fs::symlink_metadata(self.place.journal())
            .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        {
            let _ = self.clear();
        }
    }
}

/// A run's files before they are a backup. Dropped without `seal` it leaves nothing behind.
#[derive(Debug)]
pub struct Staging {
    volume: Volume,
    work: Work,
    target: Target,
    started: jiff::Timestamp,
    /// The backup that lies there, and its directory.
    previous: Option<(PathBuf, Manifest)>,
    warnings: Vec<String>,
}

impl Staging {
    /// Completes a publication that an earlier run began, if one did, and returns a warning that
    /// says so. This needs no server: a backup that was being published when its host went down
    /// is whole again as soon as anybody calls the program.
    pub fn complete_begun(target: &Target) -> Result<Option<String>> {
        let place = Place {
            root: target.root.clone(),
            access: target.access,
        };
        if !place.journal().exists() {
            return Ok(None);
        }
        let (work, rolled) = Work::take(target)?;
        // What is damaged stays until a run takes its place, which then says so.
        Ok((rolled == Rolled::Completed).then(|| completed(&work.place.root)))
    }

    /// Takes the destination for this run: makes the root, takes the lock, completes a
    /// publication that an earlier run began, and removes what killed runs left.
    ///
    /// Fails with [`ErrorKind::Write`] where another run holds the destination or it cannot be
    /// written, and with [`ErrorKind::Config`] where something else lies there.
    pub fn begin(target: Target) -> Result<Staging> {
        let started = jiff::Timestamp::now();
        let (work, rolled) = Work::take(&target)?;
        let place = &work.place;
        let root = place.root.display();
        let mut warnings = match rolled {
            Rolled::Nothing => Vec::new(),
            Rolled::Completed => vec![completed(&place.root)],
            Rolled::Damaged => vec![format!("discarded a damaged publication in {root}")],
        };
        if target.kind == BackupKind::UserData && files::is_exposed(&place.root) {
            warnings.push(format!(
                "{root} can be entered by others; chmod 700 is safer"
            ));
        }
        work.clear()?;
        let previous = match target.layout {
            Layout::InPlace => live_manifest(&target, &mut warnings)?
                .map(|manifest| (place.root.clone(), manifest)),
            Layout::Timestamped => inventory::newest_complete(&place.root)?,
        };
        refuse_other_database(&target, previous.as_ref())?;
        let in_the_clear = |(_, manifest): &(PathBuf, Manifest)| !manifest.is_encrypted();
        if target.layout == Layout::Timestamped
            && target.recipients.is_some()
            && previous.as_ref().is_some_and(in_the_clear)
        {
            warnings.push(format!(
                "the backups that {root} has from before are not encrypted; remove them when \
                 they are no longer needed"
            ));
        }
        let ignore = place.work().join(".gitignore");
        failpoint::reach("write-gitignore")
            .and_then(|()| create_new(&ignore, 0o600))
            .and_then(|mut file| io::Write::write_all(&mut file, b"*\n"))
            .map_err(|e| Error::write(&ignore, "write", e))?;
        let staging = place.staging();
        failpoint::reach("make-staging")
            .and_then(|()| files::make_dir(&staging, target.access.dir_mode()))
            .map_err(|e| Error::write(&staging, "create the directory", e))?;
        let volume =
            Volume::of(&staging).map_err(|e| Error::write(&staging, "open the directory", e))?;
        Ok(Staging {
            work,
            volume,
            target,
            started,
            previous,
            warnings,
        })
    }

    /// What the user should know of the destination.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The manifest of the backup that this one follows: the one in place, or the newest
    /// complete one.
    pub fn previous(&self) -> Option<&Manifest> {
        self.previous.as_ref().map(|(_, manifest)| manifest)
    }

    /// For how many recipients its rows are encrypted; 0 where they are not.
    pub fn recipients(&self) -> usize {
        self.target.recipients.as_ref().map_or(0, Recipients::count)
    }

    /// A new file of the backup, `relative` as in [`names`]. Any thread may call
    /// this at any time.
    pub fn create(&self, relative: &str) -> Result<FileSink> {
        if !files::is_safe(relative) {
            let what = format!("{relative:?} is no name for a file of a backup");
            return Err(Error::new(ErrorKind::Internal, what));
        }
        let (staging, access) = (self.work.place.staging(), self.target.access);
        let path = staging.join(relative);
        let mut made = FileSink::create(path.clone(), relative, access.file_mode());
        if made
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        {
            files::make_parents(&staging, relative, access.dir_mode())?;
            made = FileSink::create(path.clone(), relative, access.file_mode());
        }
        made.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => {
                let what = format!("{relative} would be written twice");
                Error::new(ErrorKind::Internal, what)
            }
            _ => Error::write(&path, "create", e),
        })
    }

    /// The name of a file of rows here.
    pub fn data_name(&self, table: &str, chunk: usize, compression: Compression) -> String {
        names::data(table, chunk, compression, self.target.recipients.is_some())
    }

    /// A new file with what is private: encrypted, if the destination's rows are.
    pub fn create_data(&self, relative: &str) -> Result<Box<dyn Sink>> {
        let sink = Box::new(self.create(relative)?);
        Ok(match &self.target.recipients {
            Some(recipients) => Box::new(EncryptingSink::over(sink, recipients)?),
            None => sink,
        })
    }

    /// Writes a whole file like [`Staging::create_data`].
    pub fn write_data(&self, relative: &str, bytes: &[u8]) -> Result<FileEntry> {
        let mut sink = self.create_data(relative)?;
        sink.write(bytes)?;
        sink.finish()
    }

    /// Writes a whole file of the backup.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> Result<FileEntry> {
        let mut sink = Box::new(self.create(relative)?);
        sink.write(bytes)?;
        sink.finish()
    }

    /// Writes one of the files that stand beside those of the manifest.
    fn write_mark(&self, point: &'static str, name: &str, bytes: &[u8]) -> Result<FileEntry> {
        failpoint::reach(point)
            .map_err(|e| Error::write(&self.work.place.staging().join(name), "write", e))?;
        self.write(name, bytes)
    }

    /// Completes the files: adds the manifest, the checksums and the record of the run, checks
    /// that exactly what the manifest names is there, and brings all of it to stable storage.
    /// Nothing visible changes yet. The `.schema_backup` of an in-place backup then holds only
    /// what differs from the live directory.
    pub fn seal(self, manifest: &Manifest, run: &RunRecord) -> Result<Sealed> {
        self.check_kind(manifest)?;
        let manifest = &self.without_private(manifest)?;
        self.check_complete(manifest)?;

        let manifest_text = checked_json::render(manifest)?;
        let own = self.write_mark("write-manifest", MANIFEST_FILE, &manifest_text)?;
        let sums = sums(manifest, &own);
        let sums = self.write_mark("write-sums", SUMS_FILE, sums.as_bytes())?;
        self.write_mark("write-run-record", RUN_FILE, &checked_json::render(run)?)?;

        let Staging {
            work,
            volume,
            target,
            started,
            previous,
            ..
        } = self;
        // What the manifest names, the manifest itself and the checksums.
        let all = manifest.files().count() + 2;
        let (publication, written) = match target.layout {
            Layout::InPlace => {
                let previous = previous.as_ref().map(|(_, manifest)| manifest);
                let publication =
                    publish::prepare_in_place(&work.place, manifest, &own, &sums, previous)?;
                let written = match &publication {
                    // The record of the run is replaced always, and does not count.
                    Publication::InPlace { replace, marks, .. } => replace.len() + marks.len() - 1,
                    Publication::Timestamped { .. } => all,
                };
                (Some(publication), written)
            }
            Layout::Timestamped => {
                let linked = match &previous {
                    Some((dir, previous)) if target.link_unchanged => {
                        publish::link_unchanged(&work.place, manifest, dir, previous)
                    }
                    _ => 0,
                };
                (None, all - linked)
            }
        };
        sync_tree(&work.place, &volume)?;
        Ok(Sealed {
            work,
            started,
            publication,
            files_written: written,
            files_unchanged: all - written,
        })
    }

    /// The manifest as it is written: where rows are encrypted, what it says of them goes into a
    /// file that is encrypted too.
    fn without_private(&self, manifest: &Manifest) -> Result<Manifest> {
        let mut manifest = manifest.clone();
        if self.target.recipients.is_some() {
            let private = checked_json::render(&Private::take(&mut manifest)?)?;
            manifest.private = Some(self.write_data(PRIVATE_FILE, &private)?);
        }
        Ok(manifest)
    }

    /// Whether the manifest is of what the destination was taken for.
    fn check_kind(&self, manifest: &Manifest) -> Result<()> {
        let target = &self.target;
        if manifest.kind == target.kind
            && manifest.format == FORMAT
            && manifest.database.name == target.database
        {
            return Ok(());
        }
        let what = "a manifest of something else than its destination";
        Err(Error::new(ErrorKind::Internal, what))
    }

    /// Whether exactly the files of the manifest are staged, with their sizes.
    fn check_complete(&self, manifest: &Manifest) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Internal, what));
        let tree = files::walk(&self.work.place.staging())?;
        let mut staged: BTreeMap<String, u64> = tree.files.into_iter().collect();
        for entry in manifest.files() {
            match staged.remove(&entry.file) {
                Some(bytes) if bytes == entry.bytes => {}
                Some(bytes) => {
                    return wrong(format!(
                        "{} has {bytes} bytes where {} were written",
                        entry.file, entry.bytes
                    ));
                }
                None => return wrong(format!("{} is missing from staging", entry.file)),
            }
        }
        match staged.first_key_value() {
            Some((file, _)) => wrong(format!("{file} was written and is not in the manifest")),
            None => Ok(()),
        }
    }
}

/// A complete backup on stable storage that is not yet visible. Dropped without `publish` it
/// leaves nothing behind.
#[derive(Debug)]
pub struct Sealed {
    work: Work,
    started: jiff::Timestamp,
    /// Decided already, but for the name of a timestamped directory.
    publication: Option<Publication>,
    files_written: usize,
    files_unchanged: usize,
}

/// A backup that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The backup's directory.
    pub path: PathBuf,
    /// Files that are new or changed, `run.json` not counted.
    pub files_written: usize,
    /// Files that the directory already had, byte for byte; they were not touched.
    pub files_unchanged: usize,
}

impl Sealed {
    /// Makes the backup visible. After an error of the first moments nothing has changed; a
    /// later one says so, and the next run completes the publication.
    pub fn publish(self) -> Result<Published> {
        let place = &self.work.place;
        let publication = match self.publication {
            Some(publication) => publication,
            None => Publication::Timestamped {
                name: free_name(&place.root, self.started)?,
            },
        };
        let path = match &publication {
            Publication::InPlace { .. } => place.root.clone(),
            Publication::Timestamped { name } => place.root.join(name),
        };
        Journal::new(publication).publish(place)?;
        Ok(Published {
            path,
            files_written: self.files_written,
            files_unchanged: self.files_unchanged,
        })
    }
}

/// The first free `YYYYMMDDhhmmss` from `time` on.
fn free_name(root: &Path, mut time: jiff::Timestamp) -> Result<String> {
    loop {
        let name = time.strftime("%Y%m%d%H%M%S").to_string();
        let path = root.join(&name);
        match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(name),
            Err(e) => return Err(Error::write(&path, "create", e)),
            Ok(_) => {}
        }
        time = time
            .checked_add(jiff::SignedDuration::from_secs(1))
            .map_err(|e| Error::new(ErrorKind::Internal, "the clock is out of range").because(e))?;
    }
}

fn refuse_foreign_latest(root: &Path) -> Result<()> {
    let path = root.join(LATEST);
    match fs::symlink_metadata(&path) {
        Ok(meta) if !meta.is_symlink() => {
            let what = format!("{} is not a symbolic link", path.display());
            Err(Error::new(ErrorKind::Config, what)
                .hint("the link to the newest backup goes there; move it out of the way"))
        }
        _ => Ok(()),
    }
}

/// `latest` and the host directory stand for one database.
fn refuse_other_database(target: &Target, previous: Option<&(PathBuf, Manifest)>) -> Result<()> {
    match previous {
        Some((_, previous)) if previous.database.name != target.database => {
            let (there, here) = (&previous.database.name, &target.database);
            let what = format!("the backup of database `{there}`, and this is `{here}`");
            Err(foreign(&target.root, &what))
        }
        _ => Ok(()),
    }
}

fn completed(root: &Path) -> String {
    let root = root.display();
    format!("completed a publication in {root} that was cut short")
}

/// The manifest of an in-place backup. A damaged one counts as none.
fn live_manifest(target: &Target, warnings: &mut Vec<String>) -> Result<Option<Manifest>> {
    let root = &target.root;
    match inventory::read_manifest(root)? {
        Found::Nothing => Ok(None),
        Found::Unreadable(why) => {
            warnings.push(format!(
                "{} is no manifest ({why}); it is replaced, files it may have named stay",
                root.join(MANIFEST_FILE).display()
            ));
            Ok(None)
        }
        Found::OtherFormat(format) => Err(foreign(
            root,
            &format!("a backup of format {format}, and this program writes format {FORMAT}"),
        )),
        Found::Manifest(manifest) if manifest.kind != target.kind => Err(foreign(
            root,
            &format!(
                "a backup of kind {}, and this is {}",
                manifest.kind.name(),
                target.kind.name()
            ),
        )),
        Found::Manifest(manifest) => Ok(Some(*manifest)),
    }
}

fn foreign(root: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("{} holds {what}", root.display()),
    )
    .hint("choose another directory, or move that backup away")
}

/// The text of `SHA256SUMS`: every file of the manifest and the manifest, by name.
pub(super) fn sums(manifest: &Manifest, own: &FileEntry) -> String {
    let mut entries: Vec<_> = manifest.files().chain([own]).collect();
    entries.sort_by(|a, b| a.file.cmp(&b.file));
    entries
        .iter()
        .map(|entry| format!("{}  {}\n", entry.sha256, entry.file))
        .collect()
}

/// Syncs what is staged and has not been synced, and every directory down to it, which
/// [`Volume`] relies on.
fn sync_tree(place: &Place, volume: &Volume) -> Result<()> {
    let staging = place.staging();
    let tree = files::walk(&staging)?;
    let small = tree
        .files
        .iter()
        .filter(|(_, bytes)| *bytes <= SYNC_AT_FINISH);
    let small: Vec<PathBuf> = small.map(|(file, _)| staging.join(file)).collect();
    volume.sync(&small)?;
    failpoint::reach("sync-directory").map_err(|e| Error::write(&staging, "sync", e))?;
    for dir in tree.dirs.iter().rev() {
        files::sync(&staging.join(dir))?;
    }
    files::sync(&staging)?;
    files::sync(&place.work())?;
    files::sync(&place.root)
}

#[cfg(test)]
pub(super) mod tests;
