//! How far a run is. The estimates come from server statistics, which may be wrong by any
//! factor; they are corrected by what is really read, chunk by chunk and while a chunk is
//! being read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::reader::ChunkRead;
use super::{Counters, Job};
use crate::event::{Progress, WorkerProgress};

/// How much of a chunk has been read; its reader writes it, the coordinator looks.
#[derive(Debug, Default)]
pub struct ChunkMeter {
    /// Rows.
    pub rows: AtomicU64,
    /// Bytes of SQL text.
    pub raw_bytes: AtomicU64,
}

/// What the coordinator remembers of a job after a reader has taken it.
#[derive(Debug, Default)]
pub(super) struct JobPlan {
    pub(super) table: usize,
    pub(super) name: String,
    pub(super) chunk: usize,
    pub(super) chunks: usize,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

impl JobPlan {
    pub(super) fn of(job: &Job<'_>) -> JobPlan {
        JobPlan {
            table: job.table,
            name: job.name.clone(),
            chunk: job.chunk,
            chunks: job.chunks,
            rows: job.estimated_rows.max(1),
            bytes: job.estimated_bytes.max(1),
        }
    }

    /// The share of this job after `rows` rows of an estimate that may be wrong: it nears 1
    /// and never gets there before the job is done.
    fn share(&self, rows: u64) -> f64 {
        let (rows, expected) = (rows as f64, self.rows as f64);
        rows / expected.max(rows / 0.9)
    }

    /// The whole job in bytes, as far as it can be told after reading `rows` and `raw_bytes`.
    fn weight(&self, rows: u64, raw_bytes: u64) -> f64 {
        let share = self.share(rows);
        let seen = if share > 0.0 {
            raw_bytes as f64 / share
        } else {
            0.0
        };
        seen.max(self.bytes as f64)
    }
}

/// The sum of what has been read, over several calls of [`run`](super::run), and the clock.
#[derive(Debug, Clone)]
pub struct ProgressBase {
    began: Instant,
    rows: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    /// Tables complete.
    pub(super) tables_done: usize,
    done_bytes: f64,
    total_bytes: f64,
}

impl ProgressBase {
    /// Nothing done of an estimated `total_bytes`.
    pub fn new(total_bytes: u64) -> ProgressBase {
        ProgressBase {
            began: Instant::now(),
            rows: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            tables_done: 0,
            done_bytes: 0.0,
            total_bytes: total_bytes as f64,
        }
    }

    /// Takes in a chunk that has been read.
    pub(super) fn read(&mut self, plan: &JobPlan, read: &ChunkRead) {
        let weight = (plan.bytes as f64).max(read.raw_bytes as f64);
        self.rows += read.rows;
        self.done_bytes += weight;
        self.total_bytes += weight - plan.bytes as f64;
    }

    /// Takes in the counters of a call that has ended.
    pub(super) fn add(&mut self, counters: &Counters) {
        self.raw_bytes += counters.raw_bytes.load(Ordering::Relaxed);
        self.stored_bytes += counters.stored_bytes.load(Ordering::Relaxed);
    }

    /// How far the run is, with what the `busy` readers have read.
    pub(super) fn progress<'a>(
        &self,
        busy: impl Iterator<Item = (usize, &'a JobPlan, &'a ChunkMeter)>,
        counters: &Counters,
    ) -> Progress {
        let mut progress = Progress {
            fraction: 0.0,
            rows: self.rows,
            raw_bytes: self.raw_bytes + counters.raw_bytes.load(Ordering::Relaxed),
            stored_bytes: self.stored_bytes + counters.stored_bytes.load(Ordering::Relaxed),
            tables_done: self.tables_done,
            seconds: self.began.elapsed().as_secs_f64(),
            workers: Vec::new(),
        };
        let (mut done, mut total) = (self.done_bytes, self.total_bytes);
        for (worker, plan, meter) in busy {
            let rows = meter.rows.load(Ordering::Relaxed);
            let weight = plan.weight(rows, meter.raw_bytes.load(Ordering::Relaxed));
            done += plan.share(rows) * weight;
            total += weight - plan.bytes as f64;
            progress.rows += rows;
            progress.workers.push(WorkerProgress {
                worker,
                table: plan.name.clone(),
                chunk: plan.chunk + 1,
                chunks: plan.chunks,
                rows,
                estimated_rows: plan.rows,
            });
        }
        if total > 0.0 {
            progress.fraction = (done / total).clamp(0.0, 1.0);
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rows: u64, bytes: u64) -> JobPlan {
        JobPlan {
            table: 0,
            name: "t".into(),
            chunk: 0,
            chunks: 1,
            rows,
            bytes,
        }
    }

    fn fraction(base: &ProgressBase, plan: &JobPlan, rows: u64, raw_bytes: u64) -> f64 {
        let meter = ChunkMeter::default();
        meter.rows.store(rows, Ordering::Relaxed);
        meter.raw_bytes.store(raw_bytes, Ordering::Relaxed);
        let busy = [(0, plan, &meter)].into_iter();
        base.progress(busy, &Counters::default()).fraction
    }

    #[test]
    fn a_table_ten_thousand_times_larger_than_its_statistics_never_seems_done() {
        let (huge, small) = (plan(100, 1000), plan(100, 1_000_000));
        let mut base = ProgressBase::new(huge.bytes + small.bytes);
        assert_eq!(fraction(&base, &huge, 0, 0), 0.0);
        let small_read = ChunkRead {
            rows: 100,
            raw_bytes: 1_000_000,
            ..ChunkRead::default()
        };
        base.read(&small, &small_read);
        for rows in [1, 50, 100, 1_000, 1_000_000] {
            let at = fraction(&base, &huge, rows, rows * 100);
            assert!(at < 1.0, "{at} after {rows} rows");
        }
        let huge_read = ChunkRead {
            rows: 1_000_000,
            raw_bytes: 100_000_000,
            ..ChunkRead::default()
        };
        base.read(&huge, &huge_read);
        assert_eq!(
            base.progress([].into_iter(), &Counters::default()).fraction,
            1.0
        );
    }

    #[test]
    fn good_statistics_give_an_even_bar() {
        let table = plan(1000, 100_000);
        let base = ProgressBase::new(table.bytes);
        for (rows, expected) in [(250, 0.25), (500, 0.5), (900, 0.9)] {
            let at = fraction(&base, &table, rows, rows * 100);
            assert!((at - expected).abs() < 0.01, "{at} after {rows} rows");
        }
    }
}
