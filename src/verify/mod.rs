//! The verb that checks backups: every file against the manifest, without a server, and what
//! the manifests say against a live database, if asked to. What it finds is data; an error
//! means that something could not be checked.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::{self, ConnectionOverrides, Consistency, Environment, Identities};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Phase};
use crate::interrupt::Interrupt;
use crate::store::open::{self, Backup, Damaged, Opened};

mod against;
mod directories;
mod files;
mod report;

pub use report::{AgainstReport, DirectoryReport, Encrypted, FileReport, Verdict, VerifyReport};

/// What is to be checked.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The backups' directories.
    pub directories: Vec<PathBuf>,
    /// Which part of the data files, where not all of them.
    pub sample: Option<Sample>,
    /// Files read, and connections opened, at a time; `None` lets the program choose.
    pub threads: Option<NonZeroUsize>,
    /// The database to compare with.
    pub against: Option<Against>,
    /// What encrypted backups are read with; without it their rows are not looked at.
    pub identities: Option<Arc<Identities>>,
}

/// A database to compare with.
#[derive(Debug)]
pub struct Against {
    /// What is known of the connection; without a database it is the backup's own.
    pub connection: ConnectionOverrides,
    /// Where the rest is to be found.
    pub environment: Environment,
    /// How the snapshot is taken.
    pub consistency: Consistency,
    /// The longest wait for a lock of tables or of the server.
    pub lock_wait_timeout: Duration,
}

/// One of several parts of the data files; all parts together are all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Which part, from 1.
    pub part: u32,
    /// Of how many.
    pub of: u32,
}

impl Sample {
    /// Whether the data file of that number, from 0, is in this part.
    fn takes(self, number: usize) -> bool {
        number % self.of as usize == self.part as usize - 1
    }
}

impl FromStr for Sample {
    type Err = String;

    /// `n/t`, such as `1/7`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('/')
            .and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Sample { part, of }),
            _ => Err(format!("`{text}` is not a part such as 1/7")),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

/// A directory with a backup in it.
enum Directory {
    /// Its manifest says what belongs there.
    Sound(Box<Backup>),
    /// Its manifest cannot be relied on.
    Damaged(Damaged),
}

/// Checks the directories, and compares them with the database if asked to. Fails with
/// [`ErrorKind::Config`] where a directory holds no backup.
pub fn run(
    request: &VerifyRequest,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<VerifyReport> {
    let began = Instant::now();
    let mut directories = open_all(&request.directories)?;
    if let Some(identities) = &request.identities {
        let sound = directories.iter_mut().filter_map(Directory::sound_mut);
        open::unlock_all(sound, identities)?;
    }
    let live = match &request.against {
        Some(against) => against::Live::connect(against, &directories, observer, interrupt)?,
        None => None,
    };

    observer.event(&Event::Phase {
        phase: Phase::Files,
    });
    let threads = config::threads(request.threads);
    let reports = directories::check(&directories, request.sample, threads, observer, interrupt)?;
    let against = match live {
        Some(live) => Some(live.compare(&directories, &reports, threads, observer, interrupt)?),
        None => None,
    };

    let unfit = unfit(&directories);
    let whole = reports
        .iter()
        .all(|report| report.findings().next().is_none());
    let same = against
        .as_ref()
        .is_none_or(|against| against.differences.is_empty());
    Ok(VerifyReport {
        sound: whole && same && unfit.is_empty(),
        directories: reports,
        unfit,
        sample: request.sample,
        against,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Opens each directory once, however often and by whatever name it is given.
fn open_all(dirs: &[PathBuf]) -> Result<Vec<Directory>> {
    let mut directories: Vec<Directory> = Vec::new();
    for dir in dirs {
        let directory = match Backup::look(dir)? {
            Opened::Damaged(damaged) => Directory::Damaged(damaged),
            Opened::Sound(backup) => match backup.check_manifest() {
                Ok(()) => Directory::Sound(backup),
                Err(flaw) => Directory::Damaged(Damaged {
                    dir: backup.dir,
                    flaw,
                }),
            },
        };
        if directories.iter().all(|d| d.dir() != directory.dir()) {
            directories.push(directory);
        }
    }
    if directories.is_empty() {
        return Err(Error::new(ErrorKind::Config, "no backup is named"));
    }
    Ok(directories)
}

impl Directory {
    fn dir(&self) -> &Path {
        match self {
            Directory::Sound(backup) => &backup.dir,
            Directory::Damaged(damaged) => &damaged.dir,
        }
    }

    fn sound_mut(&mut self) -> Option<&mut Backup> {
        match self {
            Directory::Sound(backup) => Some(backup),
            Directory::Damaged(_) => None,
        }
    }
}

/// Why the directories cannot be of one database.
fn unfit(directories: &[Directory]) -> Vec<String> {
    let mut sound = directories.iter().filter_map(|directory| match directory {
        Directory::Sound(backup) => Some(backup),
        Directory::Damaged(_) => None,
    });
    let Some(first) = sound.next() else {
        return Vec::new();
    };
    let of = |backup: &Backup| {
        let manifest = &backup.manifest;
        (manifest.database.name.clone(), manifest.flavor.clone())
    };
    let other = sound.filter(|backup| of(backup) != of(first));
    let say = |backup: &Backup| {
        let (database, flavor) = of(backup);
        format!(
            "{} is of database `{database}` on {flavor}",
            backup.dir.display()
        )
    };
    other
        .map(|other| format!("{}, {}", say(first), say(other)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_parts_of_a_whole() {
        let sample: Sample = "2/3".parse().unwrap();
        assert_eq!((sample.part, sample.of), (2, 3));
        assert_eq!(sample.to_string(), "2/3");
        for bad in ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b"] {
            assert!(bad.parse::<Sample>().is_err(), "{bad}");
        }
        for number in 0..20 {
            let taking = (1..=3).filter(|part| Sample { part: *part, of: 3 }.takes(number));
            assert_eq!(taking.count(), 1);
        }
    }
}
