//! Several connections that work at once: each worker takes one item after the other until there
//! are none, or one has failed. What runs on a connection are the statements of a backup's files.

use std::io::{self, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::queue::Job;
use super::session::Session;
use super::source::{Source, SourceTable};
use super::statements::Statements;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress};
use crate::interrupt::Interrupt;
use crate::pipeline::Failure;
use crate::server::connect::{Connector, ServerError};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// Bytes read from a file at once.
const READ_BYTES: usize = 256 << 10;

/// What all workers share.
pub(super) struct Crew<'a> {
    pub(super) source: &'a Source,
    /// Opens connections in the target database.
    pub(super) connector: &'a Connector,
    pub(super) threads: usize,
    /// Whether the files' own session settings are of another product than the target.
    pub(super) foreign: bool,
    /// Whether rows go to the server in bulk.
    pub(super) bulk: bool,
    pub(super) observer: &'a dyn Observer,
    pub(super) interrupt: &'a Interrupt,
}

/// What one worker is loading; it writes, the coordinator looks.
#[derive(Default)]
pub(super) struct Meter {
    job: Mutex<Option<Job>>,
    pub(super) raw_bytes: AtomicU64,
}

impl Meter {
    /// The chunk, while there is one.
    pub(super) fn job(&self) -> Option<Job> {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down which chunk it is.
    pub(super) fn set(&self, job: Option<Job>) {
        self.raw_bytes.store(0, Ordering::Relaxed);
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }
}

/// A worker's own things.
pub(super) struct Worker<'a> {
    pub(super) session: Session<'a>,
    pub(super) crew: &'a Crew<'a>,
    stop: &'a Interrupt,
    pub(super) meter: &'a Meter,
}

impl Worker<'_> {
    /// Runs a statement; an interrupt or another worker's failure ends the wait for it.
    pub(super) fn execute(&mut self, statement: &[u8]) -> Result<()> {
        self.session.execute(statement)
    }

    /// Does `work`, which can be done again, until the server has not chosen it as the victim of
    /// a deadlock: workers meet on tables that refer to each other.
    pub(super) fn unless_deadlocked(
        &mut self,
        work: impl Fn(&mut Self) -> Result<()>,
    ) -> Result<()> {
        const ATTEMPTS: u32 = 10;
        for _ in 1..ATTEMPTS {
            match work(self) {
                // Of a deadlock over tables, not rows, the transaction is still open.
                Err(error) if is_deadlock(&error) => self.execute(b"ROLLBACK")?,
                done => return done,
            }
        }
        work(self)
    }

    /// Gets ready for a file. On another product the settings around its statements do not apply:
    /// the session has its own, which the file before may have changed.
    pub(super) fn before_file(&mut self) -> Result<()> {
        if self.crew.foreign {
            self.session.make_settings()?;
        }
        Ok(())
    }

    /// Runs the statements of a file, as `change` has them, after [`Self::before_file`].
    pub(super) fn run_file(
        &mut self,
        source: impl Read,
        mut change: impl FnMut(&[u8]) -> Change,
    ) -> Result<()> {
        let mut statements = Statements::new(BufReader::with_capacity(READ_BYTES, source));
        while let Some(statement) = statements.next().map_err(undecodable)? {
            if self.crew.foreign && is_frame(statement) {
                continue;
            }
            match change(statement) {
                Change::Keep => self.execute(statement)?,
                Change::Rows if self.crew.bulk => self.session.insert(statement)?,
                Change::Rows => self.execute(statement)?,
                Change::Skip => {}
                Change::Instead(other) => self.execute(&other)?,
            }
        }
        Ok(())
    }
}

/// What becomes of a statement of a file.
pub(super) enum Change {
    Keep,
    /// It inserts rows, and may be sent in any form that does the same.
    Rows,
    Skip,
    Instead(Vec<u8>),
}

/// Whether a statement belongs to the settings that stand around every file.
pub(super) fn is_frame(statement: &[u8]) -> bool {
    memchr::memmem::find(statement, b"@sb_").is_some() && statement.starts_with(b"SET ")
        || statement.starts_with(b"SET time_zone='+00:00', sql_mode=")
}

fn is_deadlock(error: &Error) -> bool {
    ServerError::code_of(error) == Some(1213)
}

pub(super) fn undecodable(error: io::Error) -> Error {
    Error::new(ErrorKind::Differs, "the file cannot be read to its end").because(error)
}

impl Crew<'_> {
    /// Applies `work` to `items`, in order, over all connections at once. The first error stops
    /// everybody.
    pub(super) fn all<T: Send>(
        &self,
        items: Vec<T>,
        work: impl Fn(&mut Worker<'_>, T) -> Result<()> + Sync,
    ) -> Result<()> {
        let count = items.len();
        let items = Mutex::new(items.into_iter());
        let next = |_| items.lock().unwrap_or_else(PoisonError::into_inner).next();
        self.share(count, next, |_| None, work)
    }

    /// Applies `work` to `count` items over all connections at once, and tells `progress`
    /// meanwhile. `next` gives a worker its next item for what it made of the one before.
    pub(super) fn share<T, R>(
        &self,
        count: usize,
        next: impl Fn(Option<R>) -> Option<T> + Sync,
        progress: impl Fn(&[Meter]) -> Option<Progress>,
        work: impl Fn(&mut Worker<'_>, T) -> Result<R> + Sync,
    ) -> Result<()> {
        let failure = Failure::new();
        let workers = self.threads.min(count);
        let meters: Vec<Meter> = (0..workers).map(|_| Meter::default()).collect();
        let (alive, ended) = bounded::<()>(1);
        std::thread::scope(|scope| {
            for meter in &meters {
                let alive = alive.clone();
                let (failure, next, work) = (&failure, &next, &work);
                scope.spawn(move || {
                    self.work(next, meter, failure, work);
                    drop(alive);
                });
            }
            drop(alive);
            self.watch(&ended, &failure, || progress(&meters));
        });
        match failure.take() {
            Some(_) if self.interrupt.is_raised() => Err(Error::interrupted()),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// One worker: takes items until there are none or somebody has failed.
    fn work<T, R>(
        &self,
        next: &(impl Fn(Option<R>) -> Option<T> + Sync),
        meter: &Meter,
        failure: &Failure,
        work: &(impl Fn(&mut Worker<'_>, T) -> Result<R> + Sync),
    ) {
        let run = || -> Result<()> {
            let session = Session::open(self.connector, &failure.stop)?;
            let mut worker = Worker {
                session,
                crew: self,
                stop: &failure.stop,
                meter,
            };
            let mut done = None;
            while let Some(item) = next(done.take()) {
                if failure.stop.is_raised() {
                    return Ok(());
                }
                done = Some(work(&mut worker, item)?);
            }
            Ok(())
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failure.set(error),
            Err(_) => failure.set(Error::new(ErrorKind::Internal, "a loader panicked")),
        }
    }

    /// Tells progress until all workers have ended.
    fn watch(
        &self,
        ended: &Receiver<()>,
        failure: &Failure,
        progress: impl Fn() -> Option<Progress>,
    ) {
        loop {
            if self.interrupt.is_raised() && !failure.stop.is_raised() {
                failure.set(Error::interrupted());
            }
            let all_ended =
                ended.recv_timeout(TICK) == Err(crossbeam_channel::RecvTimeoutError::Disconnected);
            if let Some(progress) = progress() {
                self.observer.event(&Event::Progress(progress));
            }
            if all_ended {
                return;
            }
        }
    }

    /// Applies `work` to every table.
    pub(super) fn each_table(
        &self,
        tables: Vec<&SourceTable>,
        work: impl Fn(&mut Worker<'_>, &SourceTable) -> Result<()> + Sync,
    ) -> Result<()> {
        self.all(tables, |worker, table| {
            worker
                .unless_deadlocked(|worker| work(worker, table))
                .map_err(|e| e.within(format_args!("table `{}`", table.name)))
        })
    }

    /// Applies `work` to every item in order, over one connection.
    pub(super) fn one_by_one<T: Sync>(
        &self,
        items: &[T],
        work: impl Fn(&mut Worker<'_>, &T) -> Result<()> + Sync,
    ) -> Result<()> {
        self.all(vec![items], |worker, items| {
            items.iter().try_for_each(|item| {
                worker.stop.check()?;
                work(worker, item)
            })
        })
    }
}
