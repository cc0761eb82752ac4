//! From the first row of a table that a session reads, the server keeps DDL away from it, until
//! the session lets go. No session does before the table is whole: read to its last chunk, by
//! whomever, and checked. After that nothing waits for the backup any more, hours before its end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

/// The tables that a session keeps DDL away from.
#[derive(Default)]
pub(super) struct Held(Vec<usize>);

impl Held {
    pub(super) fn add(&mut self, table: usize) {
        self.0.push(table);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets go of all of them at once, when all are whole: the server knows no other way.
    pub(super) fn release(&mut self, tables: &Tables, session: &mut Session) -> Result<()> {
        self.0.retain(|table| !tables.is_whole(*table));
        if self.0.is_empty() {
            session.release_tables()?;
        }
        Ok(())
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
