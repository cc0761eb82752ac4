//! One run at a time per destination. The lock is the kernel's (`flock`) on a file in the
//! working directory, so it ends with its process however that ends; the file says who holds
//! it. Held by [`Staging`](super::staging::Staging) and looked at by [`list`](super::list).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::files;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;

const LOCK_FILE: &str = "lock";
/// How long a held lock is asked for again: [`probe`] holds it for a moment, and a run that
/// ends removes it.
const PATIENCE: Duration = Duration::from_millis(300);

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// Process id.
    pub(super) pid: u32,
    /// Start of the run, RFC 3339, UTC.
    pub(super) started: String,
    /// Host name.
    pub(super) host: String,
}

/// What [`probe`] saw.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody holds it.
    Free,
    /// A run holds it; who, unless it is just starting.
    Held(Option<Holder>),
    /// The caller may not look.
    Unknown,
}

/// The held lock. Dropping it removes the file, and the working directory if that is empty.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    work: PathBuf,
}

impl Lock {
    /// Takes the lock in `work` (`<root>/.schema_backup`), which is made if need be, private
    /// from its first moment. Refused with [`ErrorKind::Write`] where another run holds it.
    pub(super) fn acquire(root: &Path, work: &Path) -> Result<Lock> {
        let path = work.join(LOCK_FILE);
        let deadline = Instant::now() + PATIENCE;
        loop {
            failpoint::reach("take-lock")
                .and_then(|()| files::make_dir(work, 0o700))
                .map_err(|e| Error::write(work, "create", e))?;
            let file = match open(&path) {
                Ok(file) => file,
                // The run that held it has just ended and removed the directory.
                Err(e) if e.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                    continue;
                }
                Err(e) => {
                    let _ = fs::remove_dir(work);
                    return Err(Error::write(&path, "open the lock file", e));
                }
            };
            match attempt(&file, &path).map_err(|e| Error::write(&path, "lock", e))? {
                Attempt::Taken => {
                    let work = work.to_owned();
                    let lock = Lock { file, work };
                    lock.sign().map_err(|e| Error::write(&path, "write", e))?;
                    return Ok(lock);
                }
                Attempt::Vanished => {}
                Attempt::Held if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Attempt::Held => return Err(refused(root, holder(&file))),
            }
        }
    }

    fn sign(&self) -> io::Result<()> {
        let holder = Holder {
            pid: std::process::id(),
            started: jiff::Timestamp::now()
                .round(jiff::Unit::Second)
                .unwrap_or_default()
                .to_string(),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        };
        let mut text = serde_json::to_vec(&holder)?;
        text.push(b'\n');
        failpoint::reach("sign-lock")?;
        self.file.set_len(0)?;
        (&self.file).write_all(&text)
    }
}

impl Drop for Lock {
    /// Unlinks while the lock is still held: who opens the path from here on makes a new file,
    /// and who opened it before sees that it is gone. The kernel unlocks as the file closes.
    fn drop(&mut self) {
        let path = self.work.join(LOCK_FILE);
        if is_still(&self.file, &path) {
            let _ = fs::remove_file(path);
            // Fails where the next run is already in, or a publication has yet to be completed.
            let _ = fs::remove_dir(&self.work);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Taken,
    Held,
    /// Taken, but its last holder has unlinked the file: such a lock excludes nobody.
    Vanished,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

fn attempt(file: &File, path: &Path) -> io::Result<Attempt> {
    match file.try_lock() {
        Ok(()) if is_still(file, path) => Ok(Attempt::Taken),
        Ok(()) => Ok(Attempt::Vanished),
        Err(TryLockError::WouldBlock) => Ok(Attempt::Held),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Whether the lock in `work` is held. Takes a shared lock for a moment.
pub(super) fn probe(work: &Path) -> State {
    match File::open(work.join(LOCK_FILE)) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => State::Free,
            Err(TryLockError::WouldBlock) => State::Held(holder(&file)),
            Err(TryLockError::Error(_)) => State::Unknown,
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => State::Free,
        Err(_) => State::Unknown,
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn holder(file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn refused(root: &Path, holder: Option<Holder>) -> Error {
    let who = match holder {
        Some(Holder { pid, started, host }) => {
            format!("pid {pid} on {host}, started {started}")
        }
        None => "just starting".to_owned(),
    };
    Error::new(
        ErrorKind::Write,
        format!(
            "{} is in use by another run of schema_backup ({who})",
            root.display()
        ),
    )
    .hint("wait until that run has ended, or end it; its lock goes with the process")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_is_first() {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join(".schema_backup");
        let first = Lock::acquire(root.path(), &work).unwrap();
        let error = Lock::acquire(root.path(), &work).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Write);
        let message = error.to_string();
        assert!(
            message.contains(&format!("pid {}", std::process::id())),
            "{message}"
        );
        assert!(message.contains("started 2"), "{message}");
        assert!(error.hint_text().is_some());
        assert!(matches!(probe(&work), State::Held(Some(_))));
        drop(first);
        assert!(!work.exists());
        assert_eq!(probe(&work), State::Free);
        Lock::acquire(root.path(), &work).unwrap();
    }

    #[test]
    fn the_lock_file_of_a_dead_process_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join(".schema_backup");
        fs::create_dir(&work).unwrap();
        let stale =
            r#"{"pid":1,"started":"2020-01-01T00:00:00Z","host":"a-rather-long-name-of-a-host"}"#;
        fs::write(work.join(LOCK_FILE), stale).unwrap();
        let lock = Lock::acquire(root.path(), &work).unwrap();
        let text = fs::read_to_string(work.join(LOCK_FILE)).unwrap();
        let holder: Holder = serde_json::from_str(&text).unwrap();
        assert_eq!(holder.pid, std::process::id());
        drop(lock);
        assert!(!work.exists());
    }

    #[test]
    fn a_lock_on_an_unlinked_file_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join(".schema_backup");
        let path = work.join(LOCK_FILE);
        let first = Lock::acquire(root.path(), &work).unwrap();
        let waiting = open(&path).unwrap();
        assert_eq!(attempt(&waiting, &path).unwrap(), Attempt::Held);
        drop(first);
        assert_eq!(attempt(&waiting, &path).unwrap(), Attempt::Vanished);
        let _second = Lock::acquire(root.path(), &work).unwrap();
        assert_eq!(attempt(&waiting, &path).unwrap(), Attempt::Vanished);
    }

    #[test]
    fn many_contenders_never_hold_it_together() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join(".schema_backup");
        let (inside, entered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        if let Ok(lock) = Lock::acquire(root.path(), &work) {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            entered.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert!(entered.load(Ordering::SeqCst) >= 50);
        assert!(!work.exists());
    }
}
