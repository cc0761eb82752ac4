//! From the first row of a table that a session reads, the server keeps DDL away from it, until
//! the session lets go. No session does before the table is whole: read to its last chunk, by
//! whomever, and checked. After that nothing waits for the backup any more, hours before its end.
//!
//! DDL that waits for one session keeps the next one waiting. So a session that comes later to a
//! table of many chunks does not wait for long: it leaves the chunk to one that has the table.
//!
//! Small tables are checked many at once: one by one, the server takes longer for that than for
//! their rows. They are read in the order of their names, in which servers lock tables: a session
//! that holds some and asks for the next can wait for a `LOCK TABLES`, but not in a circle. One
//! that holds a table of which others still read chunks, and asks for another, can: then the
//! server refuses it, and the run fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::progress::JobPlan;
use super::{Check, Job};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::server::snapshot::Session;

/// What is left to read of each table.
pub(super) struct Tables(Vec<Left>);

#[derive(Default)]
struct Left {
    chunks: AtomicUsize,
    taken: AtomicBool,
    whole: AtomicBool,
}

impl Tables {
    pub(super) fn new(plans: &[JobPlan]) -> Tables {
        let tables = plans.iter().map(|plan| plan.table + 1).max().unwrap_or(0);
        let left: Vec<Left> = (0..tables).map(|_| Left::default()).collect();
        for plan in plans {
            left[plan.table].chunks.fetch_add(1, Ordering::Relaxed);
        }
        Tables(left)
    }

    /// Notes that a session is to read a chunk of the table: it keeps DDL away until all of it is
    /// whole, or fails the run. Whether it is the first.
    pub(super) fn take(&self, table: usize) -> bool {
        !self.0[table].taken.swap(true, Ordering::AcqRel)
    }

    /// Counts a chunk that was read; whether it was the table's last.
    pub(super) fn chunk_read(&self, table: usize) -> bool {
        self.0[table].chunks.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Notes that the table was checked.
    pub(super) fn set_whole(&self, table: usize) {
        self.0[table].whole.store(true, Ordering::Release);
    }

    fn is_whole(&self, table: usize) -> bool {
        self.0[table].whole.load(Ordering::Acquire)
    }
}

/// A table that is estimated to be larger is no small one.
const SMALL: u64 = 1 << 20;
/// Nor is one that took longer, whatever the estimate said.
const SHORT: Duration = Duration::from_millis(20);
/// A session checks so many tables at once at most. More take a server longer: it has 400 tables
/// open for all sessions by default, and looks through a list of the locks that a session has.
const CHECKED_AT_ONCE: usize = 250;
/// When the first of them was read so long ago, they are checked before the next is read.
const UNCHECKED_AT_MOST: Duration = Duration::from_millis(500);

/// Whether a job is a table that takes no time, as far as the server's estimate can tell. Some
/// engines have none.
pub(super) fn is_small(job: &Job<'_>) -> bool {
    job.chunks == 1 && (2..=SMALL).contains(&job.estimated_bytes)
}

/// What jobs are ordered by, before their names.
pub(super) fn size_that_counts(job: &Job<'_>) -> u64 {
    if job.chunks == 1 && job.estimated_bytes <= SMALL {
        0
    } else {
        job.estimated_bytes
    }
}

/// The tables that a session keeps DDL away from.
#[derive(Default)]
pub(super) struct Held {
    /// Those that are not whole yet. The server lets go of all at once, so it may keep DDL away
    /// from others that were checked since it last did.
    tables: Vec<usize>,
    /// Those that it read to the end and has to check.
    unchecked: Vec<usize>,
    /// When the first of these was read.
    since: Option<Instant>,
}

impl Held {
    /// Takes in a table of which a chunk was read.
    pub(super) fn add(&mut self, table: usize, tables: &Tables) {
        if !self.has(table) {
            self.tables.push(table);
        }
        if tables.chunk_read(table) {
            self.since.get_or_insert_with(Instant::now);
            self.unchecked.push(table);
        }
    }

    /// Whether the session keeps DDL away from the table, which is not whole yet.
    pub(super) fn has(&self, table: usize) -> bool {
        self.tables.contains(&table)
    }

    /// Whether to check now, between two jobs, of which the first took `time`.
    pub(super) fn is_due(&self, time: Duration, both_are_small: bool) -> bool {
        let age = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        is_due(time, both_are_small, age, self.unchecked.len())
    }

    /// Checks what has to be, and lets go of all tables at once, when all are whole: the server
    /// knows no other way. Returns whether nothing is held any more.
    pub(super) fn check(
        &mut self,
        tables: &Tables,
        check: &Check<'_>,
        session: &mut Session,
        stop: &Interrupt,
    ) -> Result<bool> {
        if self.tables.is_empty() {
            return Ok(true);
        }
        if !self.unchecked.is_empty() {
            check(&self.unchecked, session, stop)?;
            for table in self.unchecked.drain(..) {
                tables.set_whole(table);
            }
            self.since = None;
        }
        self.tables.retain(|table| !tables.is_whole(*table));
        if self.tables.is_empty() {
            session.release_tables()?;
        }
        Ok(self.tables.is_empty())
    }
}

fn is_due(time: Duration, both_are_small: bool, age: Duration, unchecked: usize) -> bool {
    !both_are_small || time > SHORT || age > UNCHECKED_AT_MOST || unchecked >= CHECKED_AT_ONCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_chunk_of_a_table_is_told() {
        let plan = |table| JobPlan {
            table,
            ..JobPlan::default()
        };
        let tables = Tables::new(&[plan(1), plan(0), plan(1)]);
        assert!(!tables.chunk_read(1));
        assert!(tables.chunk_read(0));
        assert!(tables.chunk_read(1));
        assert!(!tables.is_whole(1));
        tables.set_whole(1);
        assert!(tables.is_whole(1) && !tables.is_whole(0));
    }

    #[test]
    fn only_tables_that_take_no_time_wait_to_be_checked_together() {
        let (short, young) = (Duration::from_millis(1), Duration::from_millis(100));
        assert!(!is_due(short, true, young, CHECKED_AT_ONCE - 1));
        assert!(is_due(short, true, young, CHECKED_AT_ONCE));
        assert!(is_due(short, false, young, 1));
        assert!(is_due(Duration::from_millis(30), true, young, 1));
        assert!(is_due(short, true, Duration::from_secs(1), 1));
    }
}
