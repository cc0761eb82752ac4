//! Rows on their way to files: readers fill blocks, which are compressed, hashed and written in
//! order, by a rayon pool; by the readers themselves where nothing is compressed, or they keep all
//! processors busy. [`run`] hands out jobs, largest first and small tables by their names; the
//! coordinator watches the workers and the processors, and is the only one to emit events.
//!
//! The number of blocks is the memory bound and, beside what a reader does by itself, the only
//! back-pressure: a reader that finds none free waits until one has been written.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::Compression;
use crate::encode::insert::TableEncoding;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Observer;
use crate::failpoint;
use crate::interrupt::Interrupt;
use crate::server::snapshot::{PooledSession, Session, SnapshotPool};
use crate::store::manifest::FileEntry;
use crate::store::sink::Sink;

mod block;
mod coordinator;
mod lane;
mod processors;
mod progress;
mod reader;
mod tables;
#[cfg(test)]
mod tests;

pub use block::BlockPool;
use coordinator::Coordinator;
pub use lane::{LaneHandle, Lanes};
use progress::JobPlan;
pub use progress::{ChunkMeter, ProgressBase};
pub use reader::{ChunkRead, ChunkScript, stream_chunk};
use tables::{Held, Tables};

/// How often progress is told and the processors are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often a reader without jobs looks whether the tables that it holds are whole.
const HELD_TURN: Duration = Duration::from_millis(10);

/// One chunk to be read and written.
pub struct Job<'a> {
    /// Which table of the caller's list.
    pub table: usize,
    /// The table's name.
    pub name: String,
    /// The chunk, from 0, and how many there are.
    pub chunk: usize,
    /// Chunks of the table.
    pub chunks: usize,
    /// The query that reads it.
    pub query: String,
    /// A query whose one number is how many rows the table has, if that is to be found out by
    /// the way, over the same session.
    pub count_query: Option<String>,
    /// How its rows are written.
    pub encoding: Arc<TableEncoding>,
    /// What stands around the rows in the file.
    pub script: ChunkScript,
    /// How the file is stored.
    pub compression: Compression,
    /// Estimated rows and bytes; they order the jobs and feed the progress bar.
    pub estimated_rows: u64,
    /// Estimated bytes.
    pub estimated_bytes: u64,
    /// Opens the file.
    pub open: Box<dyn FnOnce() -> Result<Box<dyn Sink>> + Send + 'a>,
}

/// A chunk that is complete on disk.
#[derive(Debug)]
pub struct ChunkDone {
    /// Which table of the caller's list.
    pub table: usize,
    /// The chunk, from 0.
    pub chunk: usize,
    /// What the reader saw.
    pub read: ChunkRead,
    /// What [`Job::count_query`] gave.
    pub table_rows: Option<u64>,
    /// The file.
    pub file: FileEntry,
}

/// Counters that workers add to and the coordinator reads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of SQL text.
    pub raw_bytes: AtomicU64,
    /// Bytes written.
    pub stored_bytes: AtomicU64,
}

/// What readers tell the coordinator.
enum Message {
    Started {
        worker: usize,
        job: usize,
        meter: Arc<ChunkMeter>,
    },
    Read {
        worker: usize,
        job: usize,
        read: ChunkRead,
        table_rows: Option<u64>,
    },
    Stored {
        job: usize,
        file: FileEntry,
    },
    ReaderEnded,
}

/// The first error of a run; raising it stops all workers.
pub struct Failure {
    first: Mutex<Option<Error>>,
    /// Raised with the first error.
    pub stop: Interrupt,
}

impl Failure {
    /// Nothing has failed yet.
    pub fn new() -> Failure {
        Failure {
            first: Mutex::new(None),
            stop: Interrupt::new(),
        }
    }

    /// Keeps the first error and stops the workers. An interrupt that merely follows from an
    /// earlier failure does not count.
    pub fn set(&self, error: Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(error);
        }
        self.stop.raise();
    }

    /// The first error, if there was one.
    pub fn take(&self) -> Option<Error> {
        self.first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Default for Failure {
    fn default() -> Self {
        Failure::new()
    }
}

/// What has to hold of tables, by their numbers in the caller's list, when all their rows were
/// read. The server keeps DDL away from each from its first row until this returns, which it does
/// early when the run is stopped.
pub type Check<'a> = dyn Fn(&[usize], &mut Session, &Interrupt) -> Result<()> + Sync + 'a;

/// Reads and writes all `jobs` over the sessions of `pool`. Returns when the last file is
/// complete, or when everything has come to rest after the first error.
pub fn run(
    pool: &SnapshotPool,
    mut jobs: Vec<Job<'_>>,
    check: &Check<'_>,
    base: &mut ProgressBase,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<ChunkDone>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    // Largest first, so that no long job is left over at the end. Which small one comes last does
    // not matter.
    jobs.sort_by(|a, b| {
        tables::size_that_counts(b)
            .cmp(&tables::size_that_counts(a))
            .then_with(|| (&a.name, a.chunk).cmp(&(&b.name, b.chunk)))
    });
    let plans: Vec<JobPlan> = jobs.iter().map(JobPlan::of).collect();
    let readers = pool.size().min(jobs.len());
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let blocks = BlockPool::new(2 * readers + cores + 2);
    let counters = Arc::new(Counters::default());
    let failure = Arc::new(Failure::new());
    let tables = Tables::new(&plans);
    let (messages, inbox) = bounded::<Message>(1024);
    let lanes = Lanes::new(cores, &counters, &failure)?;
    let (job_sender, job_queue) = bounded(jobs.len());
    for job in jobs.into_iter().enumerate() {
        // The channel holds all of them.
        let _ = job_sender.try_send(job);
    }
    drop(job_sender);
    let left_over = Mutex::new(Vec::new());
    let mut sessions = (0..readers)
        .map(|_| pool.session())
        .collect::<Result<Vec<_>>>()?;
    let mut coordinator = Coordinator::new(&plans, readers, &counters, &lanes, base, observer);
    std::thread::scope(|scope| {
        for (worker, session) in sessions.iter_mut().enumerate() {
            let reader = Reader {
                worker,
                queue: job_queue.clone(),
                left_over: &left_over,
                messages: messages.clone(),
                lanes: &lanes,
                blocks: &blocks,
                tables: &tables,
                check,
                failure: &failure,
            };
            scope.spawn(move || reader.work(session));
        }
        drop(messages);
        coordinator.watch(inbox, readers, &failure, interrupt);
    });
    // Files may still be written to; nothing may be cleaned up below them.
    blocks.wait_until_all_returned();
    let done = coordinator.done;
    match failure.take() {
        Some(_) if interrupt.is_raised() => Err(Error::interrupted()),
        Some(error) => Err(error),
        None if done.len() < plans.len() => Err(Error::new(
            ErrorKind::Internal,
            "a chunk was neither written nor reported as failed",
        )),
        None => Ok(done),
    }
}

/// Tables that other sessions have and that could not be had, since when.
type Refused = BTreeMap<usize, Instant>;

/// Whether a table is not to be asked for again: what kept it may have gone in the meantime, and
/// those that have it are to find its jobs first.
fn is_refused(refused: &Refused, table: usize) -> bool {
    const ASK_AGAIN: Duration = Duration::from_secs(3);
    refused
        .get(&table)
        .is_some_and(|at| at.elapsed() < ASK_AGAIN)
}

/// One reader thread.
struct Reader<'a, 'j> {
    worker: usize,
    queue: Receiver<(usize, Job<'j>)>,
    /// Jobs for whoever has their table already.
    left_over: &'a Mutex<Vec<(usize, Job<'j>)>>,
    messages: Sender<Message>,
    lanes: &'a Lanes,
    blocks: &'a BlockPool,
    tables: &'a Tables,
    check: &'a Check<'a>,
    failure: &'a Failure,
}

impl<'j> Reader<'_, 'j> {
    /// Takes jobs until there are none or the run has failed. A panic is a failure too.
    fn work(self, session: &mut PooledSession) {
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.take_jobs(session)));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failure.set(error),
            Err(_) => {
                let error = Error::new(ErrorKind::Internal, "a reader panicked");
                self.failure.set(error);
            }
        }
        self.tell(Message::ReaderEnded);
    }

    fn take_jobs(&self, session: &mut PooledSession) -> Result<()> {
        let (stop, mut held) = (&self.failure.stop, Held::default());
        let (mut time, mut was_small) = (Duration::ZERO, false);
        let mut refused = Refused::new();
        loop {
            stop.check()?;
            let Some((index, job)) = self.next_job(&held, &refused) else {
                if held.check(self.tables, self.check, session, stop)?
                    && self.left_over().is_empty()
                {
                    return Ok(());
                }
                // Others still read chunks of a table that is held here, or have one of which
                // chunks were left over.
                std::thread::sleep(HELD_TURN);
                continue;
            };
            let is_small = tables::is_small(&job);
            if held.is_due(time, was_small && is_small) {
                held.check(self.tables, self.check, session, stop)?;
            }
            was_small = is_small;
            let (table, name, began) = (job.table, job.name.clone(), Instant::now());
            let within = |error: Error| error.within(format_args!("table `{name}`"));
            let comes_later = !self.tables.take(table) && !held.has(table);
            if comes_later {
                let ask = !is_refused(&refused, table);
                if !ask || !session.try_keep(&name).map_err(within)? {
                    if ask {
                        refused.insert(table, Instant::now());
                    }
                    self.left_over().push((index, job));
                    continue;
                }
            }
            self.read(index, job, session).map_err(within)?;
            held.add(table, self.tables);
            time = began.elapsed();
        }
    }

    /// A job that was left to whoever has its table, or one of the queue, or one that was left over
    /// and not refused.
    fn next_job(&self, held: &Held, refused: &Refused) -> Option<(usize, Job<'j>)> {
        let take_left = |wanted: &dyn Fn(usize) -> bool| {
            let mut left_over = self.left_over();
            let at = left_over.iter().position(|(_, job)| wanted(job.table))?;
            Some(left_over.swap_remove(at))
        };
        take_left(&|table| held.has(table))
            .or_else(|| self.queue.try_recv().ok())
            .or_else(|| take_left(&|table| !is_refused(refused, table)))
    }

    fn left_over(&self) -> MutexGuard<'_, Vec<(usize, Job<'j>)>> {
        self.left_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, index: usize, job: Job<'_>, session: &mut PooledSession) -> Result<()> {
        failpoint::pass("read-chunk");
        let meter = Arc::new(ChunkMeter::default());
        self.tell(Message::Started {
            worker: self.worker,
            job: index,
            meter: Arc::clone(&meter),
        });
        let messages = self.messages.clone();
        let sink = (job.open)()?;
        let mut lane = self
            .lanes
            .lane(&job.name, sink, job.compression, move |file| {
                // The coordinator listens for as long as a file is missing.
                let _ = messages.send(Message::Stored { job: index, file });
            });
        let read = session.read(
            &job.query,
            job.encoding.protocol(),
            &self.failure.stop,
            |source| {
                if source.columns() != job.encoding.columns() {
                    return Err(Error::new(
                        ErrorKind::Failed,
                        "the server sent other columns than were asked for",
                    ));
                }
                stream_chunk(
                    source,
                    &job.encoding,
                    &job.script,
                    &mut lane,
                    self.blocks,
                    &meter,
                    &self.failure.stop,
                )
            },
        )?;
        // A reader that counts fills no lane.
        drop(lane);
        let counted = job.count_query.as_deref();
        let table_rows = counted
            .map(|query| session.read_number(query, &self.failure.stop))
            .transpose()?;
        self.tell(Message::Read {
            worker: self.worker,
            job: index,
            read,
            table_rows,
        });
        Ok(())
    }

    fn tell(&self, message: Message) {
        // Fails only when the coordinator is gone, and then nobody needs to know.
        let _ = self.messages.send(message);
    }
}
