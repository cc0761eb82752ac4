//! Points of the program at which a test can make it stop, panic or meet an error of storage:
//! at each step of writing and publishing, and once in each kind of worker.
//!
//! There are none without the feature `failpoints`, which no release has: [`reach`] and [`pass`]
//! are then nothing. With it the environment variable [`VARIABLE`] says what happens where:
//! `POINT=stop`, `POINT=panic` or `POINT=ERRNO` (a number), where `POINT@3` means its third time.

use std::io;

/// Says that the program has come to `point`, where an error of storage can be met.
#[inline(always)]
pub(crate) fn reach(point: &'static str) -> io::Result<()> {
    #[cfg(feature = "failpoints")]
    return active::reach(point);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = point;
        Ok(())
    }
}

/// Says that the program has come to `point`, where nothing can be met but a stop or a panic.
#[inline(always)]
pub(crate) fn pass(point: &'static str) {
    let _ = reach(point);
}

#[cfg(feature = "failpoints")]
pub use active::{POINTS, VARIABLE};

#[cfg(feature = "failpoints")]
mod active {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    /// The environment variable that chooses a point.
    pub const VARIABLE: &str = "SCHEMA_BACKUP_FAILPOINT";

    /// Every point, in the order in which a run first comes to them.
    pub const POINTS: &[&str] = &[
        "take-lock",
        "sign-lock",
        "clear-work",
        "write-gitignore",
        "make-staging",
        "create-file",
        "write-file",
        "read-chunk",
        "tell-progress",
        "compress-block",
        "sync-file",
        "file-complete",
        "write-manifest",
        "write-sums",
        "write-run-record",
        "compare-unchanged",
        "link-unchanged",
        "sync-volume",
        "sync-small-file",
        "sync-directory",
        "write-journal",
        "sync-journal",
        "rename-journal",
        "sync-renamed-journal",
        "rename",
        "point-latest",
        "rename-latest",
        "hide-manifest",
        "make-directory",
        "move",
        "delete",
        "prune",
        "sync-published",
        "remove-journal",
        "sync-removed-journal",
    ];

    /// What is to happen, and where.
    struct Chosen {
        point: String,
        /// Times that the point is still to be passed without harm, and once more.
        left: AtomicU64,
        what: String,
    }

    fn chosen() -> Option<&'static Chosen> {
        static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
        let parse = || {
            let text = std::env::var(VARIABLE).ok()?;
            let (place, what) = text.split_once('=').expect("POINT=WHAT");
            let (point, time) = place.split_once('@').unwrap_or((place, "1"));
            assert!(POINTS.contains(&point), "there is no point {point:?}");
            Some(Chosen {
                point: point.to_owned(),
                left: AtomicU64::new(time.parse().expect("POINT@TIME")),
                what: what.to_owned(),
            })
        };
        CHOSEN.get_or_init(parse).as_ref()
    }

    pub(super) fn reach(point: &'static str) -> io::Result<()> {
        debug_assert!(POINTS.contains(&point), "{point:?} is not in the list");
        let Some(chosen) = chosen().filter(|chosen| chosen.point == point) else {
            return Ok(());
        };
        if chosen.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return Ok(());
        }
        match chosen.what.as_str() {
            "stop" => {
                let _ = kill_process(getpid(), Signal::STOP);
                // The signal is the process's: it may come to this thread a moment later.
                std::thread::sleep(Duration::from_millis(20));
                Ok(())
            }
            "panic" => panic!("failpoint {point}"),
            errno => Err(io::Error::from_raw_os_error(
                errno.parse().expect("a number"),
            )),
        }
    }
}
