//! Which backups are there, and whether they can be relied on. Reads manifests and run
//! records; touches nothing and takes no lock but for a moment's look at who holds it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files;
use super::inventory::{self, Found};
use super::lock::{self, State};
use super::manifest::{BackupKind, DataEntry, MANIFEST_FILE, TableKind};
use super::publish::{Place, WORK_DIR};
use super::staging::Access;
use crate::error::Result;

/// One backup, complete or not, or a run that may become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupInfo {
    /// Which of a run's directories it is.
    pub kind: BackupKind,
    /// Its directory.
    pub path: PathBuf,
    /// The directory's name.
    pub name: String,
    /// Whether the manifest is there and every file it names, with its size. Contents are not
    /// read.
    pub complete: bool,
    /// Whether its data files are encrypted.
    pub encrypted: bool,
    /// Why it is not complete.
    pub problem: Option<String>,
    /// Start of the run, RFC 3339, UTC.
    pub started: Option<String>,
    /// End of the run's data phase, RFC 3339, UTC.
    pub finished: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// Product and version of the server.
    pub server: Option<String>,
    /// Which way led to one snapshot.
    pub consistency: Option<String>,
    /// Tables whose structure is there.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
    /// Bytes of SQL before compression, data files only.
    pub raw_bytes: u64,
    /// Bytes of the data files on disk.
    pub stored_bytes: u64,
    /// Where the snapshot stands: binary log position, GTID.
    pub snapshot: BTreeMap<String, String>,
}

/// The host directories below `csv2_backup_dir`: those that hold a backup or the beginnings of
/// one. In the order of their names.
pub fn host_dirs(csv2_backup_dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| files::cannot_read(csv2_backup_dir, e);
    let entries = match std::fs::read_dir(csv2_backup_dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let dir = entry.map_err(failed)?.path();
        if dir.join(MANIFEST_FILE).exists() || dir.join(WORK_DIR).exists() {
            dirs.push(dir);
        }
    }
    dirs.sort();
    Ok(dirs)
}

/// The backups in `host_dirs` (updated in place) and those in `user_data_root` (timestamped,
/// oldest first), with what a run is doing or has left there. A directory that does not exist
/// has none. Fails where a directory cannot be read.
pub fn list(host_dirs: &[PathBuf], user_data_root: Option<&Path>) -> Result<Vec<BackupInfo>> {
    let mut found = Vec::new();
    for dir in host_dirs.iter().filter(|dir| dir.exists()) {
        let activity = activity(dir);
        let name = dir.file_name().unwrap_or(dir.as_os_str());
        let mut info = describe(dir, &name.to_string_lossy(), BackupKind::Host)?;
        match activity {
            // In place, staged files become this directory.
            Activity::Publishing(problem) => {
                info.complete = false;
                info.problem = Some(problem);
                found.push(info);
            }
            Activity::None => found.extend(Some(info).filter(|_| !is_empty(dir))),
            Activity::Staging(_) => {
                found.extend(Some(info).filter(|_| !is_empty(dir)));
                found.extend(unfinished(dir, BackupKind::Host, activity));
            }
        }
    }
    if let Some(root) = user_data_root.filter(|root| root.exists()) {
        // Looked at first: a backup published in between is then seen twice rather than missed.
        let activity = activity(root);
        for name in inventory::timestamped(root)? {
            found.push(describe(&root.join(&name), &name, BackupKind::UserData)?);
        }
        found.extend(unfinished(root, BackupKind::UserData, activity));
    }
    Ok(found)
}

fn describe(dir: &Path, name: &str, kind: BackupKind) -> Result<BackupInfo> {
    let mut info = BackupInfo {
        kind,
        path: dir.to_owned(),
        name: name.to_owned(),
        complete: false,
        encrypted: false,
        problem: None,
        started: None,
        finished: None,
        database: None,
        server: None,
        consistency: None,
        tables: 0,
        rows: 0,
        raw_bytes: 0,
        stored_bytes: 0,
        snapshot: BTreeMap::new(),
    };
    let manifest = match inventory::read_manifest(dir)? {
        Found::Manifest(manifest) => manifest,
        other => {
            info.problem = Some(match other {
                Found::Unreadable(why) => format!("damaged manifest: {why}"),
                Found::OtherFormat(format) => format!("unknown format {format}"),
                _ => "no manifest".to_owned(),
            });
            return Ok(info);
        }
    };
    info.problem = inventory::first_problem(dir, &manifest);
    info.complete = info.problem.is_none();
    info.kind = manifest.kind;
    info.encrypted = manifest.is_encrypted();
    info.rows = manifest.rows();
    let tables = manifest.tables.values();
    info.tables = tables
        .clone()
        .filter(|t| t.kind == TableKind::Table)
        .count();
    let data = tables.filter_map(|table| table.data.as_ref());
    for chunk in data.flat_map(|DataEntry { chunks, .. }| chunks) {
        info.raw_bytes += chunk.raw_bytes;
        info.stored_bytes += chunk.file.bytes;
    }
    info.database = Some(manifest.database.name);
    if let Some(run) = inventory::read_run(dir) {
        info.started = Some(run.started);
        info.finished = Some(run.finished);
        info.server = Some(run.server);
        info.consistency = Some(run.consistency);
        info.snapshot = run.snapshot;
    }
    Ok(info)
}

/// What goes on in a working directory.
enum Activity {
    None,
    /// Files are being written, or were when the run was killed. What and since when.
    Staging((String, Option<String>)),
    /// A publication was begun.
    Publishing(String),
}

fn activity(root: &Path) -> Activity {
    let place = Place {
        root: root.to_owned(),
        access: Access::Private,
    };
    let state = lock::probe(&place.work());
    if place.journal().exists() {
        return Activity::Publishing(match state {
            State::Held(Some(holder)) => format!(
                "publication in progress (pid {} since {})",
                holder.pid, holder.started
            ),
            State::Held(None) => "publication in progress".to_owned(),
            _ => "publication in progress; the next run completes it".to_owned(),
        });
    }
    match state {
        State::Held(Some(holder)) => Activity::Staging((
            format!("running (pid {} since {})", holder.pid, holder.started),
            Some(holder.started),
        )),
        State::Held(None) => Activity::Staging(("running".to_owned(), None)),
        State::Free if place.staging().exists() => Activity::Staging((
            "left by a killed run; the next run removes it".to_owned(),
            None,
        )),
        _ => Activity::None,
    }
}

/// The entry for what is in `root`'s working directory, if anything is.
fn unfinished(root: &Path, kind: BackupKind, activity: Activity) -> Option<BackupInfo> {
    let place = Place {
        root: root.to_owned(),
        access: Access::Private,
    };
    let staging = place.staging();
    let (problem, started) = match activity {
        Activity::None => return None,
        Activity::Staging(what) => what,
        // Once renamed it is in the list by its name.
        Activity::Publishing(_) if !staging.exists() => return None,
        Activity::Publishing(problem) => (problem, None),
    };
    // A staged manifest may be in the middle of being written; what it says does not count.
    let mut info = describe(&staging, "staging", kind).ok()?;
    info.complete = false;
    info.problem = Some(problem);
    info.started = started.or(info.started);
    Some(info)
}

/// Whether a directory has nothing in it but our working directory.
fn is_empty(dir: &Path) -> bool {
    let only_ours = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == super::publish::WORK_DIR)
    };
    fs::read_dir(dir).is_ok_and(|mut entries| entries.all(only_ours))
}

#[cfg(test)]
mod tests {
    use super::super::staging::tests::{begin, fill, host, run_record, user_data};
    use super::*;

    fn problems(infos: &[BackupInfo]) -> Vec<Option<&str>> {
        infos.iter().map(|info| info.problem.as_deref()).collect()
    }

    #[test]
    fn nothing_is_an_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        assert_eq!(list(std::slice::from_ref(&none), Some(&none)).unwrap(), []);
        assert_eq!(
            list(&[dir.path().to_owned()], Some(dir.path())).unwrap(),
            []
        );
    }

    #[test]
    fn complete_and_incomplete_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (host_dir, user_dir) = (dir.path().join("h.example"), dir.path().join("user"));
        for target in [host(&host_dir), user_data(&user_dir), user_data(&user_dir)] {
            let staging = begin(&target);
            let manifest = fill(&staging, target.kind, &[("a", "1"), ("b", "22")]);
            staging
                .seal(&manifest, &run_record())
                .unwrap()
                .publish()
                .unwrap();
        }
        let all = || list(std::slice::from_ref(&host_dir), Some(&user_dir)).unwrap();
        let infos = all();
        assert_eq!(problems(&infos), [None, None, None]);
        assert_eq!(infos[0].name, "h.example");
        assert_eq!(infos[0].kind, BackupKind::Host);
        assert!(infos[1].name < infos[2].name);
        let first = &infos[1];
        assert!(first.complete);
        assert_eq!((first.tables, first.rows, first.stored_bytes), (2, 2, 3));
        assert_eq!(first.started.as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(first.database.as_deref(), Some("csv2"));

        fs::write(infos[1].path.join("data/b.00001.sql"), "longer").unwrap();
        fs::remove_file(infos[2].path.join("manifest.json")).unwrap();
        fs::remove_file(host_dir.join("structure/tables/a.sql")).unwrap();
        assert_eq!(
            problems(&all()),
            [
                Some("structure/tables/a.sql is missing"),
                Some("data/b.00001.sql has 6 bytes where the manifest says 2"),
                Some("no manifest"),
            ]
        );
    }

    #[test]
    fn a_run_and_what_it_leaves_are_no_backups() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("user");
        let staging = begin(&user_data(&root));
        fill(&staging, BackupKind::UserData, &[("a", "1")]);
        let infos = list(&[], Some(&root)).unwrap();
        let running = format!("running (pid {} since 2", std::process::id());
        assert_eq!(infos.len(), 1);
        assert!(infos[0].problem.as_ref().unwrap().starts_with(&running));
        assert!(!infos[0].complete);
        drop(staging);
        assert_eq!(list(&[], Some(&root)).unwrap(), []);

        fs::create_dir_all(root.join(".schema_backup/staging/data")).unwrap();
        assert_eq!(
            problems(&list(&[], Some(&root)).unwrap()),
            [Some("left by a killed run; the next run removes it")]
        );
        // In place, a begun publication says so of the directory itself.
        fs::write(root.join(".schema_backup/journal.json"), "{}").unwrap();
        assert_eq!(
            problems(&list(std::slice::from_ref(&root), None).unwrap()),
            [Some("publication in progress; the next run completes it")]
        );
    }
}
