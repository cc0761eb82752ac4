//! The offline half: which files of the given directories are to be checked and how, and the
//! verdicts on them and on what stands beside them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::files::{self, Content};
use super::report::{DirectoryReport, Encrypted, FileReport, Verdict};
use super::{Directory, Sample};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::interrupt::Interrupt;
use crate::store::manifest::{FileEntry, MANIFEST_FILE, RUN_FILE, SUMS_FILE, TableKind};
use crate::store::open::{Backup, CheckedFile, Flaw};
use crate::tally::Tally;

/// A file to be checked.
struct Check {
    /// Its directory, by number.
    directory: usize,
    entry: FileEntry,
    content: Content,
    /// The table whose rows it holds, by its number in [`Work::files_left`].
    table: Option<usize>,
}

/// All there is to do.
#[derive(Default)]
struct Work {
    checks: Vec<Check>,
    /// Of each table, files not checked yet.
    files_left: Vec<AtomicUsize>,
    /// Of each directory, data files that the sample leaves out.
    skipped: Vec<usize>,
    rows: u64,
    raw_bytes: u64,
}

/// Checks the files of all directories, with `threads` of them at a time.
pub(super) fn check(
    directories: &[Directory],
    sample: Option<Sample>,
    threads: usize,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<DirectoryReport>> {
    let mut reports: Vec<DirectoryReport> = Vec::new();
    let mut work = Work::default();
    for directory in directories {
        let (report, files) = beside(directory)?;
        reports.push(report);
        work.add(directory, files, sample);
    }
    for (report, skipped) in reports.iter_mut().zip(&work.skipped) {
        report.skipped = *skipped;
    }
    for (check, verdict) in work.run(directories, threads, observer, interrupt)? {
        let report = &mut reports[check.directory];
        report.bytes += check.entry.bytes;
        report.files.push(FileReport {
            file: check.entry.file,
            verdict,
        });
    }
    for report in &mut reports {
        report.files.sort();
    }
    Ok(reports)
}

/// The verdicts on what stands beside the files of structure and data; and, where the manifest
/// does not say which these are, those that `SHA256SUMS` names.
fn beside(directory: &Directory) -> Result<(DirectoryReport, Vec<FileEntry>)> {
    let verdict = |flaw: Result<(), Flaw>, expected| match flaw {
        Ok(()) => Verdict::Ok,
        Err(flaw) => Verdict::of(&flaw, expected),
    };
    let mut report = DirectoryReport {
        path: directory.dir().to_owned(),
        kind: None,
        database: None,
        started: None,
        encrypted: None,
        files: Vec::new(),
        skipped: 0,
        bytes: 0,
    };
    let (manifest, run, sums, others, files) = match directory {
        Directory::Sound(backup) => {
            report.kind = Some(backup.manifest.kind);
            report.encrypted = Encrypted::of(backup);
            report.database = Some(backup.manifest.database.name.clone());
            report.started = backup.run.as_ref().map(|run| run.started.clone());
            let sums = verdict(backup.check_sums(), backup.sums_bytes());
            let run = verdict(backup.check_run(), 0);
            (Verdict::Ok, run, sums, backup.others()?, Vec::new())
        }
        Directory::Damaged(damaged) => {
            let run = verdict(damaged.check_run(), 0);
            // Without either list nobody can say what belongs there.
            let (sums, others, files) = match damaged.files() {
                Ok(files) => (Verdict::Ok, damaged.others(&files)?, files),
                Err(flaw) => (Verdict::of(&flaw, 0), Vec::new(), Vec::new()),
            };
            (Verdict::of(&damaged.flaw, 0), run, sums, others, files)
        }
    };
    let marks = [
        (MANIFEST_FILE, manifest),
        (RUN_FILE, run),
        (SUMS_FILE, sums),
    ];
    let others = others
        .into_iter()
        .map(|file| (file, Verdict::NotInManifest));
    let verdicts = marks
        .into_iter()
        .map(|(file, verdict)| (file.to_owned(), verdict))
        .chain(others);
    report
        .files
        .extend(verdicts.map(|(file, verdict)| FileReport { file, verdict }));
    Ok((report, files))
}

impl Work {
    /// Takes in a directory; `files` are those of one without a sound manifest.
    fn add(&mut self, directory: &Directory, files: Vec<FileEntry>, sample: Option<Sample>) {
        let number = self.skipped.len();
        self.skipped.push(0);
        let plain = |entry| Check {
            directory: number,
            entry,
            content: Content::Bytes,
            table: None,
        };
        self.checks.extend(files.into_iter().map(plain));
        if let Directory::Sound(backup) = directory {
            self.add_tables(number, backup, sample);
            self.checks.extend(private(number, backup));
            for object in &backup.manifest.objects {
                self.checks
                    .push(definition(number, &object.file, &object.kind, &object.name));
            }
        }
    }

    fn add_tables(&mut self, directory: usize, backup: &Backup, sample: Option<Sample>) {
        let locked = backup.is_locked();
        let mut data_files = 0;
        for (name, table) in &backup.manifest.tables {
            let kind = table.kind.name();
            self.checks
                .push(definition(directory, &table.structure, kind, name));
            let Some(data) = &table.data else { continue };
            let number = self.files_left.len();
            let mut here = 0;
            for chunk in &data.chunks {
                data_files += 1;
                if sample.is_some_and(|sample| !sample.takes(data_files - 1)) {
                    self.skipped[directory] += 1;
                    continue;
                }
                here += 1;
                self.rows += chunk.rows;
                self.raw_bytes += chunk.raw_bytes;
                let content = if locked {
                    Content::Encrypted(None)
                } else {
                    Content::Data {
                        raw_bytes: chunk.raw_bytes,
                        rows: Some(chunk.rows).filter(|_| table.kind == TableKind::Table),
                        zstd: data.compression == "zstd",
                    }
                };
                self.checks.push(Check {
                    directory,
                    entry: chunk.file.clone(),
                    content,
                    table: Some(number),
                });
            }
            self.files_left.push(AtomicUsize::new(here));
        }
    }

    /// Checks the files, the largest first; each with its verdict.
    fn run(
        mut self,
        directories: &[Directory],
        threads: usize,
        observer: &dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Vec<(Check, Verdict)>> {
        self.checks
            .sort_by_key(|check| std::cmp::Reverse(check.entry.bytes));
        let data_files = self.checks.iter().filter(|check| check.table.is_some());
        observer.event(&Event::Planned {
            tables: self.files_left.len(),
            chunks: data_files.count(),
            rows: self.rows,
            bytes: self.raw_bytes,
        });
        let total = self.checks.iter().map(|check| check.entry.bytes).sum();
        let tally = Tally::new(observer, total);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|e| Error::new(ErrorKind::Failed, "cannot start threads").because(e))?;
        let verdict = |check: &Check| {
            interrupt.check()?;
            let directory = &directories[check.directory];
            let verdict = files::check(
                directory.file(&check.entry),
                &check.entry,
                &check.content,
                directory.sound(),
                &tally,
                interrupt,
            )?;
            let last = check
                .table
                .is_some_and(|table| self.files_left[table].fetch_sub(1, Ordering::Relaxed) == 1);
            if last {
                tally.table_done();
            }
            Ok(verdict)
        };
        let verdicts: Result<Vec<Verdict>> = pool.install(|| {
            let checks = self.checks.par_iter().with_max_len(1);
            checks.map(verdict).collect()
        });
        let verdicts = verdicts?;
        tally.finish();
        Ok(self.checks.into_iter().zip(verdicts).collect())
    }
}

/// What a manifest leaves out. It is encrypted, and was read before if it could be.
fn private(directory: usize, backup: &Backup) -> Option<Check> {
    let entry = backup.manifest.private.as_ref()?;
    // Everything else that can be wrong with it is found again.
    let broken = match &backup.private_flaw {
        Some(Flaw::Broken(why)) => Some(why.clone()),
        _ => None,
    };
    Some(Check {
        directory,
        entry: entry.clone(),
        content: Content::Encrypted(broken),
        table: None,
    })
}

fn definition(directory: usize, entry: &FileEntry, kind: &str, name: &str) -> Check {
    Check {
        directory,
        entry: entry.clone(),
        content: Content::Definition {
            kind: kind.to_owned(),
            name: name.to_owned(),
        },
        table: None,
    }
}

impl Directory {
    fn sound(&self) -> Option<&Backup> {
        match self {
            Directory::Sound(backup) => Some(backup),
            Directory::Damaged(_) => None,
        }
    }

    fn file(&self, entry: &FileEntry) -> Result<CheckedFile, Flaw> {
        match self {
            Directory::Sound(backup) => backup.file(entry),
            Directory::Damaged(damaged) => damaged.file(entry),
        }
    }
}

/// The files of a directory that are as they should be.
pub(super) fn sound_files(report: &DirectoryReport) -> BTreeSet<&str> {
    let sound = report.files.iter().filter(|file| file.verdict.is_ok());
    sound.map(|file| file.file.as_str()).collect()
}
