//! Several connections that work at once: each worker takes one item after the other until there
//! are none, or one has failed. What runs on a connection are the statements of a backup's files.

use std::io::{self, BufReader, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::session::Session;
use super::source::{Source, SourceTable};
use super::statements::Statements;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer, Progress};
use crate::interrupt::Interrupt;
use crate::pipeline::Failure;
use crate::server::connect::{Connector, ServerError};
use crossbeam_channel::{Receiver, bounded};

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
    pub(super) observer: &'a dyn Observer,
    pub(super) interrupt: &'a Interrupt,
}

/// What one worker is doing; it writes, the coordinator looks.
#[derive(Default)]
pub(super) struct Meter {
    /// The job from 1; 0 while there is none.
    pub(super) job: AtomicUsize,
    pub(super) raw_bytes: AtomicU64,
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
            self.session.prepare()?;
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
    /// Applies `work` to `items` over all connections at once, and tells `progress` meanwhile.
    /// The first error stops everybody.
    pub(super) fn all<T: Send>(
        &self,
        items: Vec<T>,
        progress: impl Fn(&[Meter]) -> Option<Progress>,
        work: impl Fn(&mut Worker<'_>, T) -> Result<()> + Sync,
    ) -> Result<()> {
        let failure = Failure::new();
        let workers = self.threads.min(items.len());
        let meters: Vec<Meter> = (0..workers).map(|_| Meter::default()).collect();
        let (sender, queue) = bounded(items.len());
        for item in items.into_iter().enumerate() {
            // The channel holds all of them.
            let _ = sender.try_send(item);
        }
        drop(sender);
        let (alive, ended) = bounded::<()>(1);
        std::thread::scope(|scope| {
            for meter in &meters {
                let (queue, alive) = (queue.clone(), alive.clone());
                let (failure, work) = (&failure, &work);
                scope.spawn(move || {
                    self.work(queue, meter, failure, work);
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
    fn work<T>(
        &self,
        queue: Receiver<(usize, T)>,
        meter: &Meter,
        failure: &Failure,
        work: &(impl Fn(&mut Worker<'_>, T) -> Result<()> + Sync),
    ) {
        let run = || -> Result<()> {
            let session = Session::open(self.connector, &failure.stop)?;
            let mut worker = Worker {
                session,
                crew: self,
                stop: &failure.stop,
                meter,
            };
            for (job, item) in queue {
                if failure.stop.is_raised() {
                    return Ok(());
                }
                meter.raw_bytes.store(0, Ordering::Relaxed);
                meter.job.store(job + 1, Ordering::Relaxed);
                work(&mut worker, item)?;
                meter.job.store(0, Ordering::Relaxed);
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
        self.all(
            tables,
            |_| None,
            |worker, table| {
                worker
                    .unless_deadlocked(|worker| work(worker, table))
                    .map_err(|e| e.within(format_args!("table `{}`", table.name)))
            },
        )
    }

    /// Applies `work` to every item in order, over one connection.
    pub(super) fn one_by_one<T: Sync>(
        &self,
        items: &[T],
        work: impl Fn(&mut Worker<'_>, &T) -> Result<()> + Sync,
    ) -> Result<()> {
        let all = vec![items];
        self.all(
            all,
            |_| None,
            |worker, items| {
                items.iter().try_for_each(|item| {
                    worker.stop.check()?;
                    work(worker, item)
                })
            },
        )
    }
}
