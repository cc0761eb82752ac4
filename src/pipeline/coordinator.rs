//! The coordinator of a run: takes what readers and lanes tell, watches for an interrupt and how
//! busy processors are, keeps what is done, and is the only one to emit events.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::lane::Lanes;
use super::processors::Processors;
use super::progress::{ChunkMeter, JobPlan, ProgressBase};
use super::{ChunkDone, ChunkRead, Counters, Failure, Message, TICK};
use crate::error::Error;
use crate::event::{Event, Observer, Progress};
use crate::failpoint;
use crate::interrupt::Interrupt;
use crate::store::manifest::FileEntry;

/// What a reader is busy with; the meter is shared with the reader.
struct Busy {
    job: usize,
    meter: Arc<ChunkMeter>,
}

/// Rows and bytes of each table as its chunks complete.
struct TableTotals {
    chunks_left: Vec<usize>,
    rows: Vec<u64>,
    raw_bytes: Vec<u64>,
    stored_bytes: Vec<u64>,
}

impl TableTotals {
    fn new(plans: &[JobPlan]) -> TableTotals {
        let tables = plans.iter().map(|plan| plan.table + 1).max().unwrap_or(0);
        let mut chunks_left = vec![0; tables];
        for plan in plans {
            chunks_left[plan.table] += 1;
        }
        TableTotals {
            chunks_left,
            rows: vec![0; tables],
            raw_bytes: vec![0; tables],
            stored_bytes: vec![0; tables],
        }
    }

    /// Takes in a chunk; the totals if it was the table's last.
    fn add(&mut self, done: &ChunkDone, name: &str) -> Option<Event> {
        let table = done.table;
        self.rows[table] += done.read.rows;
        self.raw_bytes[table] += done.read.raw_bytes;
        self.stored_bytes[table] += done.file.bytes;
        self.chunks_left[table] -= 1;
        (self.chunks_left[table] == 0).then(|| Event::TableDone {
            table: name.to_owned(),
            rows: self.rows[table],
            raw_bytes: self.raw_bytes[table],
            stored_bytes: self.stored_bytes[table],
        })
    }
}

/// Stops the workers when the coordinator panics, so that the run ends instead of hanging.
struct StopOnPanic<'a>(&'a Failure);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.raise();
        }
    }
}

/// What is known of a run's jobs while it is under way.
pub(super) struct Coordinator<'a> {
    plans: &'a [JobPlan],
    counters: &'a Counters,
    lanes: &'a Lanes,
    processors: Processors,
    busy: Vec<Option<Busy>>,
    /// What was read of each job, until its file is complete.
    reads: Vec<Option<(ChunkRead, Option<u64>)>>,
    pub(super) done: Vec<ChunkDone>,
    tables: TableTotals,
    base: &'a mut ProgressBase,
    observer: &'a dyn Observer,
}

impl<'a> Coordinator<'a> {
    pub(super) fn new(
        plans: &'a [JobPlan],
        readers: usize,
        counters: &'a Counters,
        lanes: &'a Lanes,
        base: &'a mut ProgressBase,
        observer: &'a dyn Observer,
    ) -> Coordinator<'a> {
        Coordinator {
            plans,
            counters,
            lanes,
            processors: Processors::new(),
            busy: (0..readers).map(|_| None).collect(),
            reads: plans.iter().map(|_| None).collect(),
            done: Vec::with_capacity(plans.len()),
            tables: TableTotals::new(plans),
            base,
            observer,
        }
    }

    /// Takes messages until all readers have ended and all files are complete, or the run has
    /// failed and come to rest. If an observer panics, the workers stop.
    pub(super) fn watch(
        &mut self,
        inbox: Receiver<Message>,
        mut readers: usize,
        failure: &Failure,
        interrupt: &Interrupt,
    ) {
        let _stop = StopOnPanic(failure);
        let mut next_tick = Instant::now();
        // Files can be complete before their reader's last word has been taken in.
        let mut stored_early: Vec<(usize, FileEntry)> = Vec::new();
        loop {
            if interrupt.is_raised() && !failure.stop.is_raised() {
                failure.set(Error::interrupted());
            }
            match inbox.recv_timeout(TICK) {
                Ok(Message::Started { worker, job, meter }) => {
                    let plan = &self.plans[job];
                    self.observer.event(&Event::ChunkStarted {
                        worker,
                        table: plan.name.clone(),
                        chunk: plan.chunk + 1,
                        chunks: plan.chunks,
                        rows: plan.rows,
                    });
                    self.busy[worker] = Some(Busy { job, meter });
                }
                Ok(Message::Read {
                    worker,
                    job,
                    read,
                    table_rows,
                }) => {
                    let table = self.plans[job].name.clone();
                    self.observer.event(&Event::ChunkRead {
                        worker,
                        table,
                        rows: read.rows,
                    });
                    self.busy[worker] = None;
                    self.base.read(&self.plans[job], &read);
                    self.reads[job] = Some((read, table_rows));
                    if let Some(at) = stored_early.iter().position(|(stored, _)| *stored == job) {
                        let (_, file) = stored_early.swap_remove(at);
                        self.complete(job, file);
                    }
                }
                Ok(Message::Stored { job, file }) if self.reads[job].is_some() => {
                    self.complete(job, file)
                }
                Ok(Message::Stored { job, file }) => stored_early.push((job, file)),
                Ok(Message::ReaderEnded) => readers -= 1,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if readers == 0 && (self.done.len() == self.plans.len() || failure.stop.is_raised()) {
                break;
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                self.lanes.set_busy(self.processors.are_busy());
                failpoint::pass("tell-progress");
                let progress = self.progress();
                self.observer.event(&Event::Progress(progress));
            }
        }
        let progress = self.progress();
        self.observer.event(&Event::Progress(progress));
        self.base.add(self.counters);
    }

    fn complete(&mut self, job: usize, file: FileEntry) {
        let Some((read, table_rows)) = self.reads[job].take() else {
            return;
        };
        let plan = &self.plans[job];
        let done = ChunkDone {
            table: plan.table,
            chunk: plan.chunk,
            read,
            table_rows,
            file,
        };
        if let Some(event) = self.tables.add(&done, &plan.name) {
            self.base.tables_done += 1;
            self.observer.event(&event);
        }
        self.done.push(done);
    }

    fn progress(&self) -> Progress {
        let busy = self.busy.iter().enumerate();
        let busy = busy.filter_map(|(worker, busy)| {
            let Busy { job, meter } = busy.as_ref()?;
            Some((worker, &self.plans[*job], &**meter))
        });
        self.base.progress(busy, self.counters)
    }
}
