//! Taking up the previous backup's bounds: [`reuse`](crate::plan::reuse) decides, this asks the
//! server. The optimizer's estimate, which costs nothing, says which ranges may have changed;
//! those are counted, and no others.

use mysql::prelude::Queryable;

use super::{Course, Split};
use crate::error::Result;
use crate::plan::chunks::{Range, ranges};
use crate::plan::reuse::{self, Previous};
use crate::server::connect::{query_error, without_values};

impl Course<'_> {
    /// The previous bounds, with what has outgrown its size split and what has shrunk joined;
    /// or why they are of no use. At most so many ranges are counted.
    pub(super) fn take_up(
        &mut self,
        previous: &Previous,
        chunk_size: u64,
        most_counted: usize,
    ) -> Result<Result<Split, String>> {
        let bounds: Vec<Vec<String>> = previous.chunks[1..]
            .iter()
            .map(|chunk| chunk.from.clone())
            .collect();
        let old: Vec<Range> = ranges(self.key, &bounds)
            .into_iter()
            .filter(|range| *range != Range::Null)
            .collect();
        if !self.rise(&bounds)? {
            return Ok(Err("its bounds are out of order in this table".into()));
        }
        let before = previous.chunks.iter().map(|chunk| chunk.rows).sum();
        let mut sizes = Vec::with_capacity(old.len());
        let mut doubtful = Vec::new();
        for (at, range) in old.iter().enumerate() {
            let estimate = self.estimate(range, before)?;
            let size = estimate.and_then(|rows| previous.estimated(at, rows, chunk_size));
            if size.is_none() {
                doubtful.push(at);
            }
            // What is in doubt is counted before it is looked at.
            sizes.push(size.unwrap_or(previous.counted(at, 0, chunk_size)));
        }
        let mut rows: Vec<Option<u64>> = vec![None; old.len()];
        let mut counted = 0;
        loop {
            if doubtful.is_empty() {
                doubtful = reuse::undecided(&sizes, chunk_size);
            }
            if doubtful.is_empty() {
                break;
            }
            counted += doubtful.len();
            if counted > most_counted {
                return Ok(Err("too much has changed".into()));
            }
            for at in std::mem::take(&mut doubtful) {
                let now = self.count(&old[at])?;
                rows[at] = Some(now);
                sizes[at] = previous.counted(at, now, chunk_size);
            }
        }

        let mut new_numbers = reuse::new_numbers(previous);
        let mut split = Split::default();
        split.numbers.extend(previous.null);
        for stretch in reuse::rearrange(&sizes, chunk_size) {
            let first = &previous.chunks[stretch.first];
            split
                .bounds
                .extend(Some(first.from.clone()).filter(|from| !from.is_empty()));
            split.numbers.push(first.number);
            if stretch.pieces > 1 {
                let rows = rows[stretch.first].unwrap_or(first.rows);
                let cuts = self.cut(&old[stretch.first], rows, stretch.pieces)?;
                split.numbers.extend(new_numbers.by_ref().take(cuts.len()));
                split.bounds.extend(cuts);
            }
        }
        if split.bounds.is_empty() {
            // One chunk, of NULLs as well.
            split.numbers.truncate(1);
        }
        Ok(Ok(split))
    }

    /// Whether no row comes at or after one bound and before the one that it follows. Then
    /// every row is in exactly one range, whatever has become of the order of the keys.
    fn rise(&mut self, bounds: &[Vec<String>]) -> Result<bool> {
        for pair in bounds.windows(2) {
            self.interrupt.check()?;
            let swapped = Range::Between(Some(pair[1].clone()), Some(pair[0].clone()));
            let query = format!(
                "SELECT 1 FROM {}{} LIMIT 1",
                self.indexed_table(),
                self.key.where_clause(&swapped)
            );
            match self
                .session
                .results_in("utf8mb4")?
                .query_first::<u8, _>(query)
            {
                Ok(None) => {}
                // Such a literal is none to this column.
                Ok(Some(_)) | Err(mysql::Error::MySqlError(_)) => return Ok(false),
                Err(e) => return Err(query_error("cannot compare bounds", e)),
            }
        }
        Ok(true)
    }

    /// The optimizer's estimate of the rows in a range, where it is of use; the table had
    /// `before` rows.
    fn estimate(&mut self, range: &Range, before: u64) -> Result<Option<u64>> {
        self.interrupt.check()?;
        let condition = self.key.where_clause(range);
        let query = format!(
            "EXPLAIN FORMAT=TRADITIONAL SELECT 1 FROM {}{condition}",
            self.indexed_table(),
        );
        let row: Option<mysql::Row> = self
            .session
            .results_in("utf8mb4")?
            .query_first(query)
            .map_err(|e| without_values(query_error("cannot estimate the size of a chunk", e)))?;
        let rows: Option<u64> =
            row.and_then(|mut row| row.take_opt::<Option<u64>, _>("rows")?.ok()?);
        if condition.is_empty() || !self.table.engine.eq_ignore_ascii_case("InnoDB") {
            return Ok(rows);
        }
        // InnoDB says of no range that it holds more than half of the table, and doubles what it
        // reckons of a range whose pages it has not all seen.
        let most = self.table.rows / 2;
        let grown = self.table.rows > before + before / 4;
        Ok(rows
            .filter(|rows| !grown || *rows < most - most / 10)
            .map(|rows| rows / 2))
    }
}
