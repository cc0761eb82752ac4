//! From the first row of a table that a session reads, the server keeps DDL away from it, until
//! the session lets go. No session does before the table is whole: read to its last chunk, by
//! whomever, and checked. After that nothing waits for the backup any more, hours before its end.
//!
//! Small tables are checked many at once: one by one, the server takes longer for that than for
//! their rows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Check;
use super::progress::JobPlan;
use crate::error::Result;
use crate::server::snapshot::Session;

/// What is left to read of each table.
pub(super) struct Tables(Vec<Left>);

#[derive(Default)]
struct Left {
    chunks: AtomicUsize,
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

/// A session checks so many tables at once at most. MariaDB looks through a list of up to 999
/// names before it opens tables; with more it opens all.
const CHECKED_AT_ONCE: usize = 500;
/// And no later than so long after the first of them was read.
const UNCHECKED_AT_MOST: Duration = Duration::from_millis(500);
/// A table that took longer is no small one: what comes next may take as long, and DDL on this
/// one shall not wait for it.
const SMALL: Duration = Duration::from_millis(20);

/// The tables that a session keeps DDL away from.
#[derive(Default)]
pub(super) struct Held {
    /// All of them.
    tables: Vec<usize>,
    /// Those that it read to the end and has to check.
    unchecked: Vec<usize>,
    /// When the first of these was read.
    since: Option<Instant>,
}

impl Held {
    /// Takes in a table of which a chunk was read, which took `time`, and checks what is due.
    pub(super) fn add(
        &mut self,
        table: usize,
        time: Duration,
        tables: &Tables,
        check: &Check<'_>,
        session: &mut Session,
    ) -> Result<()> {
        self.tables.push(table);
        if tables.chunk_read(table) {
            self.unchecked.push(table);
            self.since.get_or_insert_with(Instant::now);
        }
        let waiting = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        let due = time > SMALL || waiting > UNCHECKED_AT_MOST;
        if due || self.unchecked.len() >= CHECKED_AT_ONCE {
            self.check(tables, check, session)?;
        }
        Ok(())
    }

    /// Checks what has to be, and lets go of all tables at once, when all are whole: the server
    /// knows no other way. Returns whether it did.
    pub(super) fn check(
        &mut self,
        tables: &Tables,
        check: &Check<'_>,
        session: &mut Session,
    ) -> Result<bool> {
        if !self.unchecked.is_empty() {
            check(&self.unchecked, session)?;
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
}
