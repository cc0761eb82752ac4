//! Taking up the previous backup's bounds: [`reuse`](crate::plan::reuse) decides, this asks the
//! server. The optimizer's estimate, which costs nothing, says which ranges may have changed;
//! those are counted, and no others.

use mysql::prelude::Queryable;

use super::{Course, Split};
use crate::error::Result;
use crate::plan::chunks::{Range, ranges};
use crate::plan::reuse::{self, Previous, PreviousChunk, Size};
use crate::server::connect::query_error;

impl Course<'_> {
    /// The previous bounds, with what has outgrown its size split and what has shrunk joined;
    /// or why they are of no use.
    pub(super) fn take_up(
        &mut self,
        previous: &Previous,
        chunk_size: u64,
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
        let mut sizes = Vec::with_capacity(old.len());
        let mut rows: Vec<Option<u64>> = vec![None; old.len()];
        for (at, (range, chunk)) in old.iter().zip(&previous.chunks).enumerate() {
            let estimate = self.estimate(range)?.unwrap_or(0);
            let size = match Size::estimated(chunk, estimate) {
                Some(size) => size,
                None => self.measure(range, chunk, previous, &mut rows[at])?,
            };
            sizes.push(size);
        }
        for at in reuse::undecided(&sizes, chunk_size) {
            sizes[at] = self.measure(&old[at], &previous.chunks[at], previous, &mut rows[at])?;
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

    fn measure(
        &mut self,
        range: &Range,
        chunk: &PreviousChunk,
        previous: &Previous,
        counted: &mut Option<u64>,
    ) -> Result<Size> {
        let rows = self.count(range)?;
        *counted = Some(rows);
        Ok(Size::Counted(rows as f64 * previous.row_bytes(chunk)))
    }

    /// The optimizer's estimate of the rows in a range, where it has one.
    pub(super) fn estimate(&mut self, range: &Range) -> Result<Option<u64>> {
        self.interrupt.check()?;
        let query = format!(
            "EXPLAIN FORMAT=TRADITIONAL SELECT 1 FROM {}{}",
            self.indexed_table(),
            self.key.where_clause(range)
        );
        let row: Option<mysql::Row> = self
            .session
            .results_in("utf8mb4")?
            .query_first(query)
            .map_err(|e| query_error("cannot estimate the size of a chunk", e))?;
        let rows = row.and_then(|mut row| row.take_opt::<Option<u64>, _>("rows")?.ok()?);
        // Where it has not seen all pages InnoDB doubles what it reckons: it used to be low.
        let doubled = self.table.engine.eq_ignore_ascii_case("InnoDB");
        Ok(rows.map(|rows| if doubled { rows / 2 } else { rows }))
    }
}
