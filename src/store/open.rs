//! Opening a backup to read it: `restore` and `verify` begin here. Trusts nothing it finds: a
//! directory without a sound manifest is no backup, a file is read only through a path that
//! stays inside and never through a link, and what is read is hashed on the way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::checked_json;
use super::crypt;
use super::files;
use super::inventory::{self, Found};
use super::manifest::{FORMAT, FileEntry, MANIFEST_FILE, Manifest, RunRecord, SUMS_FILE};
use super::names::hex;
use super::private::Private;
use super::publish::{JOURNAL, LATEST, WORK_DIR};
use crate::config::Identities;
use crate::error::{Error, ErrorKind, Result};

/// No server takes a statement, and so no definition, of more bytes.
pub const MAX_DEFINITION: u64 = 1 << 30;

/// A backup directory whose manifest is sound.
#[derive(Debug)]
pub struct Backup {
    /// Where it lies, links resolved.
    pub dir: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
    /// How it came about, where that is on record and sound.
    pub run: Option<RunRecord>,
    /// What encrypted files are read with, once it is known to fit.
    identities: Option<Arc<Identities>>,
    /// What [`Backup::unlock`] found wrong: with the private file, or with the manifest that it was
    /// not written with. The manifest then stays without digests.
    pub private_flaw: Option<Flaw>,
}

/// What a directory with a backup in it turns out to be.
#[derive(Debug)]
pub enum Opened {
    /// A backup with a sound manifest.
    Sound(Box<Backup>),
    /// A backup whose manifest cannot be relied on.
    Damaged(Damaged),
}

/// A backup directory without a sound manifest.
#[derive(Debug)]
pub struct Damaged {
    /// Where it lies, links resolved.
    pub dir: PathBuf,
    /// What is wrong with the manifest.
    pub flaw: Flaw,
}

/// What is wrong with a file of a backup.
#[derive(Debug)]
pub enum Flaw {
    /// It is not there.
    Missing,
    /// Something else than a plain file lies there, or a link leads there.
    NotAFile,
    /// It has this many bytes.
    Size(u64),
    /// Its bytes are others than were written.
    Checksum,
    /// It is not what its place calls for; in which way.
    Broken(String),
    /// Storage does not give it.
    Unreadable(io::Error),
}

impl Flaw {
    /// In words, for a message that names the file.
    pub fn describe(&self, entry: &FileEntry) -> String {
        match self {
            Flaw::Missing => "is missing".to_owned(),
            Flaw::NotAFile => "is not a plain file in a plain directory".to_owned(),
            Flaw::Size(bytes) => {
                format!("has {bytes} bytes where the manifest says {}", entry.bytes)
            }
            Flaw::Checksum => "does not have the content that was written".to_owned(),
            Flaw::Broken(why) => format!("is damaged: {why}"),
            Flaw::Unreadable(e) => format!("cannot be read: {e}"),
        }
    }

    fn of(error: io::Error) -> Flaw {
        use rustix::io::Errno;
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Flaw::Missing,
            Some(Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Flaw::NotAFile,
            _ => Flaw::Unreadable(error),
        }
    }
}

impl Backup {
    /// Opens the backup in `dir`. Fails with [`ErrorKind::Config`] where there is none, and with
    /// [`ErrorKind::Differs`] where there is one that is damaged or not complete.
    pub fn open(dir: &Path) -> Result<Backup> {
        match Backup::look(dir)? {
            Opened::Sound(backup) => Ok(*backup),
            Opened::Damaged(Damaged {
                dir,
                flaw: Flaw::Missing,
            }) => Err(no_backup(&dir)),
            Opened::Damaged(Damaged { dir, flaw }) => {
                let why = match flaw {
                    Flaw::Broken(why) => why,
                    _ => "it is not a plain file".to_owned(),
                };
                let what = format!("{}: {why}", dir.join(MANIFEST_FILE).display());
                Err(Error::new(ErrorKind::Differs, what)
                    .hint("the manifest is damaged or was edited; use another backup"))
            }
        }
    }

    /// Opens the backup in `dir`, or says what is wrong with its manifest. Fails with
    /// [`ErrorKind::Config`] where nothing looks like a backup.
    pub fn look(dir: &Path) -> Result<Opened> {
        let at = dir.display();
        let dir = dir.canonicalize().map_err(|e| {
            Error::new(ErrorKind::Config, format!("cannot open the backup {at}")).because(e)
        })?;
        let path = dir.join(MANIFEST_FILE);
        // Of a link, a pipe or a device there might be no end.
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            let flaw = Flaw::NotAFile;
            return Ok(Opened::Damaged(Damaged { dir, flaw }));
        }
        let flaw = match inventory::read_manifest(&dir)? {
            Found::Manifest(manifest) => {
                let run = inventory::read_run(&dir);
                return Ok(Opened::Sound(Box::new(Backup::of(dir, *manifest, run))));
            }
            // A publication that was begun takes the manifest away first, and puts it back.
            Found::Nothing if dir.join(SUMS_FILE).exists() && !dir.join(WORK_DIR).exists() => {
                Flaw::Missing
            }
            Found::Nothing => return Err(no_backup(&dir)),
            Found::Unreadable(why) => Flaw::Broken(why),
            Found::OtherFormat(format) => {
                let what =
                    format!("{at} is a backup of format {format}, and this program reads {FORMAT}");
                return Err(Error::new(ErrorKind::Config, what)
                    .hint("use the version of schema_backup that wrote it"));
            }
        };
        Ok(Opened::Damaged(Damaged { dir, flaw }))
    }

    /// The backup in `dir`, whose manifest is sound.
    pub(crate) fn of(dir: PathBuf, manifest: Manifest, run: Option<RunRecord>) -> Backup {
        Backup {
            dir,
            manifest,
            run,
            identities: None,
            private_flaw: None,
        }
    }

    /// Makes the rows of an encrypted backup readable, and completes its manifest; nothing has to
    /// be done for another one. Fails with [`ErrorKind::Config`] where no identity fits; damage is
    /// no error here, see [`Backup::private_flaw`].
    pub fn unlock(&mut self, identities: &Arc<Identities>) -> Result<()> {
        if let Some(entry) = self.manifest.private.clone() {
            self.private_flaw = self.read_private(&entry, identities)?;
        }
        Ok(())
    }

    fn read_private(
        &mut self,
        entry: &FileEntry,
        identities: &Arc<Identities>,
    ) -> Result<Option<Flaw>> {
        if entry.bytes > checked_json::MAX_BYTES {
            let why = format!("it has {} bytes, far too many", entry.bytes);
            return Ok(Some(Flaw::Broken(why)));
        }
        let mut file = match self.file(entry) {
            Ok(file) => file,
            Err(flaw) => return Ok(Some(flaw)),
        };
        let text = match crypt::decrypt(&mut file, identities) {
            Err(age::DecryptError::NoMatchingKeys) => return Err(self.wrong_identity()),
            Err(e) => Err(crypt::describe(&e)),
            Ok(reader) => read_all(reader),
        };
        self.identities = Some(Arc::clone(identities));
        if let Err(flaw) = file.finish() {
            return Ok(Some(flaw));
        }
        let private = text.and_then(|text| checked_json::parse::<Private>(&text));
        Ok(match private {
            Err(why) => Some(Flaw::Broken(why)),
            Ok(private) => {
                let fits = private.put_back(&mut self.manifest)?;
                let why = format!("it is of another {MANIFEST_FILE}, or that was edited");
                (!fits).then_some(Flaw::Broken(why))
            }
        })
    }

    fn locked(&self) -> Error {
        let what = format!("{}: its rows are encrypted", self.dir.display());
        Error::new(ErrorKind::Config, what)
            .hint("name the file with the identity that they were encrypted for: --identity FILE")
    }

    /// The error of a backup whose rows cannot be relied on, or not be read: to be looked at after
    /// [`Backup::unlock`], or instead of it.
    pub fn require_unlocked(&self) -> Result<()> {
        match (&self.manifest.private, &self.private_flaw) {
            (Some(entry), Some(flaw)) => Err(self.flawed(entry, flaw).hint(
                "without it nobody can tell that what arrives is what was saved; the files of rows \
                 that `schema_backup verify` does not name can be loaded by hand (age, zstd, client)",
            )),
            (Some(_), None) if self.identities.is_none() => Err(self.locked()),
            _ => Ok(()),
        }
    }

    fn wrong_identity(&self) -> Error {
        let what = format!(
            "{}: none of the identities given is one that it was encrypted for",
            self.dir.display()
        );
        Error::new(ErrorKind::Config, what).hint(
            "`age-keygen -y FILE` shows the public key of an identity; it has to have been among \
             the recipients when the backup was made",
        )
    }

    /// Whether its rows are encrypted and no identity is known that fits.
    pub fn is_locked(&self) -> bool {
        self.manifest.is_encrypted() && self.identities.is_none()
    }

    /// What of a file of rows is under its encryption, if there is one. What is read is what was
    /// written, or an error: reading to the end also says that the end is there.
    pub fn decrypted<'a>(&self, file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        match (&self.identities, self.manifest.is_encrypted()) {
            (_, false) => Ok(Box::new(file)),
            (None, true) => Err(io::Error::other("it is encrypted")),
            (Some(identities), true) => {
                crypt::decrypt(file, identities).map_err(|e| io::Error::other(crypt::describe(&e)))
            }
        }
    }

    /// Opens a file of the backup for reading.
    pub fn file(&self, entry: &FileEntry) -> Result<CheckedFile, Flaw> {
        CheckedFile::open(&self.dir, entry)
    }

    /// The whole of a small file, checked.
    pub fn read(&self, entry: &FileEntry) -> Result<Vec<u8>> {
        let read = || {
            let mut file = self.file(entry)?;
            if entry.bytes > MAX_DEFINITION {
                let why = format!("{} bytes are too many for a definition", entry.bytes);
                return Err(Flaw::Broken(why));
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(Flaw::Unreadable)?;
            file.finish()?;
            Ok(bytes)
        };
        read().map_err(|flaw| self.flawed(entry, &flaw))
    }

    /// The error that a flaw amounts to.
    pub fn flawed(&self, entry: &FileEntry, flaw: &Flaw) -> Error {
        let path = self.dir.join(&entry.file);
        let what = format!("{} {}", path.display(), flaw.describe(entry));
        Error::new(ErrorKind::Differs, what)
            .hint("the backup is damaged; `schema_backup verify` names every file that is")
    }
}

/// Unlocks each of several backups. That none of them is encrypted is an error: whoever names an
/// identity thinks that one is.
pub fn unlock_all<'a>(
    backups: impl Iterator<Item = &'a mut Backup>,
    identities: &Arc<Identities>,
) -> Result<()> {
    let mut encrypted = false;
    for backup in backups {
        encrypted |= backup.manifest.is_encrypted();
        backup.unlock(identities)?;
    }
    if encrypted {
        return Ok(());
    }
    let what = "an identity is given, and no backup that is named is encrypted";
    Err(Error::new(ErrorKind::Config, what)
        .hint("leave --identity out, or name the directory with the encrypted data"))
}

/// Whether an encrypted file is one as far as that can be said without an identity.
pub fn check_encrypted(file: impl Read, entry: &FileEntry) -> io::Result<()> {
    crypt::check_form(file, entry.bytes)
}

fn read_all(mut reader: impl Read) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    match reader.read_to_end(&mut text) {
        Ok(_) => Ok(text),
        Err(e) => Err(e.to_string()),
    }
}

/// What to say of a directory without a manifest.
fn no_backup(dir: &Path) -> Error {
    let at = dir.display();
    let error = Error::new(
        ErrorKind::Config,
        format!("{at} holds no complete backup: it has no {MANIFEST_FILE}"),
    );
    if dir.join(LATEST).exists() {
        error.hint(format!(
            "name one of the backups in it, such as {at}/{LATEST}"
        ))
    } else if dir.join(WORK_DIR).join(JOURNAL).exists() {
        error.hint(
            "a backup is being published there, or was when its run was killed; the next run of \
             schema_backup completes it first, also where it cannot reach the server",
        )
    } else if dir.join(WORK_DIR).exists() {
        error.hint("a backup is being written there, or was when its run was killed")
    } else if let Some(sub) = fs::read_dir(dir).ok().and_then(|mut entries| {
        entries.find_map(|e| Some(e.ok()?.path()).filter(|p| p.join(MANIFEST_FILE).exists()))
    }) {
        error.hint(format!("did you mean {}?", sub.display()))
    } else {
        error
    }
}

/// Bytes that are read at once of a file that is only hashed.
const READ: usize = 64 << 10;

/// A file of a backup that is hashed while it is read.
#[derive(Debug)]
pub struct CheckedFile {
    file: File,
    entry: FileEntry,
    read: u64,
    hasher: Sha256,
}

/// Opens a plain file below `dir` without following links; its size.
pub(super) fn open_plain(dir: &Path, relative: &str) -> Result<(File, u64), Flaw> {
    if !files::is_safe(relative) || !files::parents_are_real(dir, relative) {
        let there = dir.join(relative).symlink_metadata().is_ok();
        return Err(if there { Flaw::NotAFile } else { Flaw::Missing });
    }
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nofollow.bits().cast_signed())
        .open(dir.join(relative))
        .map_err(Flaw::of)?;
    let meta = file.metadata().map_err(Flaw::of)?;
    if meta.is_file() {
        Ok((file, meta.len()))
    } else {
        Err(Flaw::NotAFile)
    }
}

impl CheckedFile {
    /// Opens the file that `entry` describes, below `dir`.
    pub(super) fn open(dir: &Path, entry: &FileEntry) -> Result<CheckedFile, Flaw> {
        let (file, bytes) = open_plain(dir, &entry.file)?;
        if bytes != entry.bytes {
            return Err(Flaw::Size(bytes));
        }
        Ok(CheckedFile {
            file,
            entry: entry.clone(),
            read: 0,
            hasher: Sha256::new(),
        })
    }

    /// Reads what is left and compares size and checksum with the manifest. Until this has
    /// returned `Ok`, nothing that was read may be relied on.
    pub fn finish(mut self) -> Result<(), Flaw> {
        // A byte more shows that the file is longer.
        let left = self.entry.bytes.saturating_sub(self.read).saturating_add(1);
        let capacity = READ.min(usize::try_from(left).unwrap_or(READ));
        let mut rest = BufReader::with_capacity(capacity, (&mut self).take(left));
        io::copy(&mut rest, &mut io::sink()).map_err(Flaw::Unreadable)?;
        if self.read != self.entry.bytes {
            return Err(Flaw::Size(self.read));
        }
        if hex(&self.hasher.finalize()) != self.entry.sha256 {
            return Err(Flaw::Checksum);
        }
        Ok(())
    }
}

impl Read for CheckedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.read += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::staging::tests::{begin, fill, run_record, user_data};
    use super::*;

    fn published(root: &Path) -> PathBuf {
        let target = user_data(root);
        let staging = begin(&target);
        let manifest = fill(&staging, target.kind, &[("a", "1"), ("b", "22")]);
        let sealed = staging.seal(&manifest, &run_record()).unwrap();
        sealed.publish().unwrap().path
    }

    #[test]
    fn a_backup_is_read_back_and_its_root_is_pointed_away_from() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("user");
        let path = published(&root);
        let backup = Backup::open(&root.join("latest")).unwrap();
        assert_eq!(backup.dir, path.canonicalize().unwrap());
        assert_eq!(backup.run, Some(run_record()));
        for entry in backup.manifest.files() {
            let bytes = fs::read(path.join(&entry.file)).unwrap();
            assert_eq!(backup.read(entry).unwrap(), bytes);
        }
        let error = Backup::open(&root).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.hint_text().unwrap().ends_with("/latest"));
    }

    #[test]
    fn what_is_damaged_says_how_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = published(&dir.path().join("user"));
        let backup = Backup::open(&path).unwrap();
        let entry = backup.manifest.files().last().unwrap().clone();
        let file = path.join(&entry.file);
        let good = fs::read(&file).unwrap();
        let flaw = || match backup.file(&entry).and_then(CheckedFile::finish) {
            Ok(()) => "none".to_owned(),
            Err(flaw) => flaw.describe(&entry),
        };
        assert_eq!(flaw(), "none");
        let mut bad = good.clone();
        bad[0] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert!(flaw().contains("content"));
        fs::write(&file, &good[1..]).unwrap();
        assert!(flaw().contains("bytes where the manifest says"));
        fs::remove_file(&file).unwrap();
        assert!(flaw().contains("missing"));
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, &good).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        assert!(flaw().contains("plain file"));
        assert_eq!(backup.read(&entry).unwrap_err().kind(), ErrorKind::Differs);
    }

    #[test]
    fn an_edited_manifest_opens_no_backup() {
        let dir = tempfile::tempdir().unwrap();
        let path = published(&dir.path().join("user"));
        let manifest = path.join(MANIFEST_FILE);
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("\"rows\": 1", "\"rows\": 2")).unwrap();
        let error = Backup::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Differs);
        fs::remove_file(&manifest).unwrap();
        assert_eq!(Backup::open(&path).unwrap_err().kind(), ErrorKind::Config);
    }
}
