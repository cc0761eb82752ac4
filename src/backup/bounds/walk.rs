//! Walking along a key, from one bound to the next. The server steps over every row, which
//! costs, and counts them: where each key value stands for one row, that is the table's count.

use super::{Course, Split};
use crate::error::Result;
use crate::plan::chunks::Range;
use crate::server::quote_identifier;

/// Strides to a chunk, if they are longer than it takes to look where they lead. How long rows are is looked at anew at the beginning of each, so that a
/// chunk has its size also where rows are of other lengths than at the beginning of the table.
const STRIDES: u64 = 4;
/// Rows looked at, at most, to learn how long rows are.
const SAMPLE_ROWS: u64 = 50;
/// Rows of a stride for each that is looked at: values outside the row are costly to look at.
const STRIDE_ROWS_PER_SAMPLE: u64 = 16;

impl Course<'_> {
    /// Bounds about `chunk_size` apart, and where possible the count of the table's rows.
    pub(super) fn walk(&mut self, chunk_size: u64) -> Result<Split> {
        let whole = self.key.where_clause(&Range::Between(None, None));
        let first_rows = SAMPLE_ROWS * STRIDE_ROWS_PER_SAMPLE;
        let chunk_rows = chunk_size / self.row_bytes(&whole, first_rows)?;
        // Where many rows share the first column of several, servers find the place to go on
        // from by stepping over all of them: that must not happen often.
        let easily_found = self.key.split.len() == 1;
        let strides_each = match chunk_rows / SAMPLE_ROWS {
            most if easily_found => most.clamp(1, STRIDES),
            _ => 1,
        };
        let stride_bytes = (chunk_size / strides_each).max(1);
        // Rows are counted by the steps over them, if each key value stands for one row.
        let mut exact = self.key.split.len() == self.key.order.len();
        let (mut bounds, mut at): (Vec<Vec<String>>, Option<Vec<String>>) = (Vec::new(), None);
        let (mut rows, mut stride, mut strides) = (0, (chunk_rows / strides_each).max(1), 0);
        loop {
            let since = self.key.where_clause(&Range::Between(at.clone(), None));
            if easily_found {
                stride = (stride_bytes / self.row_bytes(&since, stride)?).max(1);
            }
            let Some(mut next) = self.first_key(&since, stride)? else {
                break;
            };
            rows += stride;
            if at.as_ref() == Some(&next) {
                // Many rows share the leading columns: go on behind them.
                exact = false;
                let above = self.key.above(&next);
                match self.first_key(&above, 0)? {
                    // A key above itself would be found for ever; the chunks' rows are counted.
                    Some(above) if above != next => next = above,
                    _ => break,
                }
            }
            strides += 1;
            if strides == strides_each {
                strides = 0;
                bounds.push(next.clone());
            }
            at = Some(next);
        }
        let rest = self.count(&Range::Between(at, None))?;
        rows += rest;
        if exact && self.key.nullable {
            rows += self.count(&Range::Null)?;
        }
        // A last chunk of less than half the size joins its neighbour.
        if strides * 2 + u64::from(rest > stride / 2) < strides_each {
            bounds.pop();
        }
        Ok(Split {
            rows: exact.then_some(rows),
            bounds,
            ..Split::default()
        })
    }

    /// Cuts a range of that many rows into pieces of as many rows each, as far as its keys
    /// allow: the bounds between them.
    pub(super) fn cut(
        &mut self,
        range: &Range,
        rows: u64,
        pieces: u64,
    ) -> Result<Vec<Vec<String>>> {
        let Range::Between(from, to) = range else {
            return Ok(Vec::new());
        };
        let step = rows.div_ceil(pieces).max(1);
        let (mut bounds, mut at): (Vec<Vec<String>>, _) = (Vec::new(), from.clone());
        for _ in 1..pieces {
            let rest = self
                .key
                .where_clause(&Range::Between(at.clone(), to.clone()));
            let Some(next) = self.first_key(&rest, step)? else {
                break;
            };
            if at.as_ref() == Some(&next) {
                break;
            }
            bounds.push(next.clone());
            at = Some(next);
        }
        Ok(bounds)
    }

    /// The average length, as SQL text, of the first rows that meet a condition; they are few
    /// where a stride is, in rows.
    fn row_bytes(&mut self, condition: &str, stride: u64) -> Result<u64> {
        let Some(length) = self.row_length() else {
            return Ok(1);
        };
        let rows = (stride / STRIDE_ROWS_PER_SAMPLE).clamp(1, SAMPLE_ROWS);
        let query = format!(
            "SELECT COALESCE(CEILING(AVG(b)),1) FROM (SELECT {length} AS b FROM {}{condition} ORDER BY {} LIMIT {rows}) s",
            self.indexed_table(),
            self.key.order_by(),
        );
        Ok(self.session.read_number(&query, self.interrupt)?.max(1))
    }

    /// Where the first column of the key has this value or more, the first key.
    pub(super) fn key_from(&mut self, value: i128) -> Result<Option<Vec<String>>> {
        let column = quote_identifier(&self.key.split[0]);
        self.first_key(&format!(" WHERE {column}>={value}"), 0)
    }
}
