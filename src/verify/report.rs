//! What a verification finds, as data: a verdict for each file, a difference for each thing
//! that the database has otherwise.

use std::path::PathBuf;

use serde::Serialize;

use super::Sample;
use crate::live::Difference;
use crate::store::manifest::BackupKind;
use crate::store::open::{Backup, Flaw};

/// What became of each file, and of the comparison with a database.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// Whether everything that was to be checked was, and nothing was found.
    pub sound: bool,
    /// Each directory, in the order given.
    pub directories: Vec<DirectoryReport>,
    /// Why the directories do not belong together, if they do not.
    pub unfit: Vec<String>,
    /// The part of the data files that was checked, where it was not all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// What the comparison with a database found, where one was asked for and possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<AgainstReport>,
    /// Seconds it took.
    pub seconds: f64,
}

/// What became of the files of one directory.
#[derive(Debug, Clone, Serialize)]
pub struct DirectoryReport {
    /// The directory, links resolved.
    pub path: PathBuf,
    /// What it holds, as far as its manifest can be relied on.
    pub kind: Option<BackupKind>,
    /// The database that was saved.
    pub database: Option<String>,
    /// When the backup began, RFC 3339, UTC.
    pub started: Option<String>,
    /// Whether its rows are encrypted, and were looked at all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<Encrypted>,
    /// Files checked, by path below the directory.
    pub files: Vec<FileReport>,
    /// Data files that the sample left out.
    pub skipped: usize,
    /// Bytes of structure and data that were to be checked, as stored.
    pub bytes: u64,
}

/// How encrypted rows were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encrypted {
    /// With an identity: like any others.
    Decrypted,
    /// Without one: size, checksum and the form of an encrypted file.
    NotDecrypted,
}

impl Encrypted {
    /// How those of a backup are; `None` where they are not encrypted.
    pub(super) fn of(backup: &Backup) -> Option<Encrypted> {
        backup.manifest.is_encrypted().then(|| {
            if backup.is_locked() {
                Encrypted::NotDecrypted
            } else {
                Encrypted::Decrypted
            }
        })
    }
}

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FileReport {
    /// Its path below the directory.
    pub file: String,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What is to be said of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It is what was written.
    Ok,
    /// It is not there.
    Missing,
    /// It is no plain file, or a link leads to it.
    NotAFile,
    /// It has another size.
    SizeMismatch {
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// It has the right size and another content.
    ChecksumMismatch,
    /// It is what was written, and does not decrypt or decompress.
    Undecodable {
        /// What the decoder says.
        why: String,
    },
    /// It is not what its place calls for.
    Unexpected {
        /// In which way.
        why: String,
    },
    /// It lies there without belonging to the backup.
    NotInManifest,
    /// Storage does not give it.
    Unreadable {
        /// What the operating system says.
        why: String,
    },
}

impl Verdict {
    /// The verdict on a file with this flaw that should have `expected` bytes.
    pub(super) fn of(flaw: &Flaw, expected: u64) -> Verdict {
        match flaw {
            Flaw::Missing => Verdict::Missing,
            Flaw::NotAFile => Verdict::NotAFile,
            Flaw::Size(found) => Verdict::SizeMismatch {
                expected,
                found: *found,
            },
            Flaw::Checksum => Verdict::ChecksumMismatch,
            Flaw::Broken(why) => Verdict::Unexpected { why: why.clone() },
            Flaw::Unreadable(e) => Verdict::Unreadable { why: e.to_string() },
        }
    }

    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        *self == Verdict::Ok
    }

    /// In words, behind the name of the file.
    pub fn describe(&self) -> String {
        match self {
            Verdict::Ok => "ok".to_owned(),
            Verdict::Missing => "missing".to_owned(),
            Verdict::NotAFile => "not a plain file in a plain directory".to_owned(),
            Verdict::SizeMismatch { expected, found } => {
                format!("size mismatch: {found} bytes instead of {expected}")
            }
            Verdict::ChecksumMismatch => {
                "checksum mismatch: not the content that was written".to_owned()
            }
            Verdict::Undecodable { why } => format!("cannot be decoded: {why}"),
            Verdict::Unexpected { why } => format!("damaged: {why}"),
            Verdict::NotInManifest => "does not belong to the backup".to_owned(),
            Verdict::Unreadable { why } => format!("cannot be read: {why}"),
        }
    }
}

/// What the comparison with a database found.
#[derive(Debug, Clone, Serialize)]
pub struct AgainstReport {
    /// Product and version of the server.
    pub server: String,
    /// The database.
    pub database: String,
    /// How its snapshot was taken, and where it stands.
    pub snapshot: String,
    /// Tables whose rows were compared.
    pub tables: usize,
    /// Rows of them in the backup.
    pub rows: u64,
    /// Definitions that were compared.
    pub definitions: usize,
    /// What differs.
    pub differences: Vec<Difference>,
}

impl DirectoryReport {
    /// The files with something wrong.
    pub fn findings(&self) -> impl Iterator<Item = &FileReport> {
        self.files.iter().filter(|file| !file.verdict.is_ok())
    }
}

impl VerifyReport {
    /// How much was found, in a few words; empty where all is sound.
    pub fn verdict(&self) -> String {
        let directories = self.directories.iter();
        let files: usize = directories.map(|dir| dir.findings().count()).sum();
        let against = self.against.as_ref();
        let differences = against.map_or(0, |against| against.differences.len());
        let count = |n: usize, one: &str, many: &str| match n {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {many}")),
        };
        let parts = [
            count(
                files,
                "file is not as it should be",
                "files are not as they should be",
            ),
            count(
                differences,
                "difference from the database",
                "differences from the database",
            ),
            (!self.unfit.is_empty()).then(|| "the directories do not belong together".to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
