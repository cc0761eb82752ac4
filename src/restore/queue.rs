//! Which chunk is loaded next. Connections that write to one table wait for each other in the
//! server, so each has a table of its own for as long as there are enough of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// One chunk of one table, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) table: usize,
    pub(super) chunk: usize,
}

/// The chunks that nobody has begun with.
pub(super) struct Queue {
    /// The tables that have some, by their rank.
    tables: Mutex<BTreeMap<usize, Waiting>>,
    /// The rank of each table.
    ranks: Vec<usize>,
}

struct Waiting {
    table: usize,
    next: usize,
    chunks: usize,
    /// Connections that load chunks of it.
    loading: usize,
}

impl Queue {
    /// `chunks` of each table, and what one connection has to do of it by itself: where that is
    /// most, it is begun first.
    pub(super) fn new(tables: &[(usize, u64)]) -> Queue {
        let mut order: Vec<usize> = (0..tables.len()).collect();
        order.sort_by_key(|table| std::cmp::Reverse(tables[*table].1));
        let mut ranks = vec![0; tables.len()];
        for (rank, table) in order.iter().enumerate() {
            ranks[*table] = rank;
        }
        let waiting = order.iter().enumerate().map(|(rank, &table)| {
            let waiting = Waiting {
                table,
                next: 0,
                chunks: tables[table].0,
                loading: 0,
            };
            (rank, waiting)
        });
        Queue {
            tables: Mutex::new(waiting.filter(|(_, table)| table.chunks > 0).collect()),
            ranks,
        }
    }

    /// The next chunk for a connection that has loaded `done`. Chunks of a table come along its
    /// key.
    pub(super) fn next(&self, done: Option<Job>) -> Option<Job> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = done.and_then(|job| tables.get_mut(&self.ranks[job.table])) {
            table.loading -= 1;
        }
        // The first that is free, and then there is no need to look at thousands of others.
        let free = tables.iter().find(|(_, table)| table.loading == 0);
        let (rank, _) = free.or_else(|| tables.iter().min_by_key(|(_, table)| table.loading))?;
        let rank = *rank;
        let table = tables.get_mut(&rank)?;
        let job = Job {
            table: table.table,
            chunk: table.next,
        };
        table.next += 1;
        table.loading += 1;
        if table.next == table.chunks {
            tables.remove(&rank);
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(table: usize, chunk: usize) -> Option<Job> {
        Some(Job { table, chunk })
    }

    #[test]
    fn every_connection_has_a_table_of_its_own_while_there_are_enough() {
        let queue = Queue::new(&[(2, 1), (0, 9), (3, 5), (1, 3)]);
        assert_eq!(queue.next(None), job(2, 0));
        assert_eq!(queue.next(None), job(3, 0));
        assert_eq!(queue.next(job(2, 0)), job(2, 1));
        assert_eq!(queue.next(job(3, 0)), job(0, 0));
        // Now both are at a table, and one of the two has chunks left.
        assert_eq!(queue.next(job(2, 1)), job(2, 2));
        assert_eq!(queue.next(job(2, 2)), job(0, 1));
        assert_eq!(queue.next(job(0, 0)), None);
        assert_eq!(queue.next(job(0, 1)), None);
    }

    #[test]
    fn connections_spread_over_what_is_left() {
        let queue = Queue::new(&[(5, 2), (5, 1)]);
        let tables: Vec<_> = (0..4).map(|_| queue.next(None).unwrap().table).collect();
        assert_eq!(tables, [0, 1, 0, 1]);
    }
}
