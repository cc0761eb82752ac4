//! Bounds of a key that begins with a whole number, as most keys do: how its values are spread
//! is looked at in some places, and the bounds are computed. No row is stepped over. They are
//! then treated like a previous backup's ([`again`](super::again)): where the optimizer's
//! estimate doubts what was computed, the range is counted, and cut or joined. Where there are
//! many doubts the key is walked along instead.

use super::{Course, Split};
use crate::error::Result;
use crate::plan::literals::literal_kind;
use crate::plan::reuse::{Previous, PreviousChunk};
use crate::server::quote_identifier;

/// Places looked at, at even distances between the lowest and the highest value: two for each
/// chunk, but neither fewer nor more than these.
const FEW_PLACES: usize = 4;
const MANY_PLACES: usize = 16;
/// Rows looked at in each place.
const ROWS: u64 = 256;
/// Bytes looked at in each place, about: fewer rows where they are long.
const BYTES: f64 = 256.0 * 1024.0;
/// Values that these rows have to span, or nothing follows from them for others.
const VALUES: i128 = 8;
/// One range in this many may be counted; to count more costs more than a walk.
const RANGES_PER_DOUBT: usize = 4;

/// What was seen in a place.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The lowest value that belongs to it.
    from: i128,
    rows_per_value: f64,
    row_bytes: f64,
    /// Whether its rows say something of other values.
    telling: bool,
}

impl Course<'_> {
    /// The bounds, if the key begins with a whole number and its values can be reckoned with.
    pub(super) fn by_spread(&mut self, chunk_size: u64) -> Result<Option<Split>> {
        let (Some((first, last)), Some(length)) = (self.ends()?, self.row_length()) else {
            return Ok(None);
        };
        let Some(sample) = self.look(first, &length, ROWS / 16)? else {
            return Ok(None);
        };
        let rows = ((BYTES / sample.row_bytes) as u64).clamp(ROWS / 32, ROWS);
        let mut wanted = places_wanted(&[sample], last, chunk_size);
        let mut places = Vec::new();
        // The first rows may be shorter than most.
        while places.len() < wanted {
            places.clear();
            for place in 0..wanted as i128 {
                let from = first + (last - first) * place / wanted as i128;
                match self.look(from, &length, rows)? {
                    Some(seen) if seen.telling => places.push(seen),
                    _ => return Ok(None),
                }
            }
            wanted = places_wanted(&places, last, chunk_size);
        }
        // Dense in all places and empty between them, the key would come out far too large.
        if rows_in_all(&places, last) > (2 * self.table.rows + ROWS) as f64 {
            return Ok(None);
        }
        let mut chunks: Vec<PreviousChunk> = Vec::new();
        for Stretch { from, rows, bytes } in stretches(&places, last, chunk_size) {
            let bound = match chunks.last() {
                None => Some(Vec::new()),
                Some(_) => self.key_from(from)?,
            };
            let bound = bound.filter(|bound| chunks.last().is_none_or(|last| last.from != *bound));
            match (bound, chunks.last_mut()) {
                (None, Some(chunk)) => {
                    chunk.rows += rows;
                    chunk.raw_bytes += bytes;
                }
                (bound, _) => chunks.push(PreviousChunk {
                    from: bound.unwrap_or_default(),
                    number: chunks.len() + 1,
                    rows,
                    raw_bytes: bytes,
                }),
            }
        }
        if chunks.len() < 2 {
            let doubtful = self.table.data_bytes > chunk_size.saturating_mul(2);
            return Ok((!doubtful).then(Split::default));
        }
        let doubts = chunks.len().div_ceil(RANGES_PER_DOUBT);
        let computed = Previous {
            null: None,
            chunks,
            chunk_size: None,
        };
        let split = self.take_up(&computed, chunk_size, doubts)?;
        // Nobody had these numbers before.
        Ok(split.ok().map(|split| Split {
            numbers: Vec::new(),
            ..split
        }))
    }

    /// The lowest and the highest value of the key's first column, if it is a whole number.
    fn ends(&mut self) -> Result<Option<(i128, i128)>> {
        let column = self.table.column(&self.key.split[0]);
        let whole =
            column.is_some_and(|column| column.is_whole_number() && literal_kind(column).is_some());
        if !whole || self.key.nullable {
            return Ok(None);
        }
        let name = quote_identifier(&self.key.split[0]);
        let mut end = |order: &str| -> Result<Option<i128>> {
            let query = format!(
                "SELECT {name} FROM {} ORDER BY {name}{order} LIMIT 1",
                self.indexed_table()
            );
            Ok(self
                .whole_numbers(&query)?
                .and_then(|numbers| numbers.first().copied()))
        };
        Ok(end("")?.zip(end(" DESC")?))
    }

    /// Looks at some rows from a value on.
    fn look(&mut self, from: i128, length: &str, rows: u64) -> Result<Option<Place>> {
        let name = quote_identifier(&self.key.split[0]);
        let query = format!(
            "SELECT COUNT(*), MIN(a), MAX(a), SUM(b) FROM (SELECT {name} AS a, {length} AS b FROM {} \
             WHERE {name}>={from} ORDER BY {} LIMIT {rows}) s",
            self.indexed_table(),
            self.key.order_by(),
        );
        let numbers = self.whole_numbers(&query)?;
        let Some(&[seen, lowest, highest, bytes]) = numbers.as_deref() else {
            return Ok(None);
        };
        Ok(Some(Place {
            from,
            rows_per_value: seen as f64 / ((highest - lowest) as f64 + 1.0),
            row_bytes: (bytes as f64 / seen as f64).max(1.0),
            telling: seen < i128::from(rows) || highest - lowest >= VALUES,
        }))
    }

    /// The only row of a query that gives whole numbers; `None` where there is a NULL.
    fn whole_numbers(&mut self, query: &str) -> Result<Option<Vec<i128>>> {
        let Some(cells) = self.session.read_one(query, self.interrupt)? else {
            return Ok(None);
        };
        let number = |cell: Option<Vec<u8>>| {
            let text = String::from_utf8(cell?).ok()?;
            text.split('.').next()?.parse().ok()
        };
        Ok(cells.into_iter().map(number).collect())
    }
}

/// A chunk as computed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stretch {
    from: i128,
    rows: u64,
    bytes: u64,
}

/// The places, and how many values there are from each to the next.
fn with_values(places: &[Place], last: i128) -> impl Iterator<Item = (Place, f64)> {
    let ends = places[1..].iter().map(|place| place.from).chain([last + 1]);
    let spans = places.iter().zip(ends);
    spans.map(|(place, end)| (*place, (end - place.from) as f64))
}

fn rows_in_all(places: &[Place], last: i128) -> f64 {
    let all = with_values(places, last);
    all.map(|(place, values)| values * place.rows_per_value)
        .sum()
}

impl Place {
    fn bytes(&self, values: f64) -> f64 {
        values * self.rows_per_value * self.row_bytes
    }
}

fn bytes_in_all(places: &[Place], last: i128) -> f64 {
    let all = with_values(places, last);
    all.map(|(place, values)| place.bytes(values)).sum()
}

/// How many places to look at, as far as these tell.
fn places_wanted(places: &[Place], last: i128, chunk_size: u64) -> usize {
    let chunks = bytes_in_all(places, last) / chunk_size.max(1) as f64;
    ((2.0 * chunks) as usize).clamp(FEW_PLACES, MANY_PLACES)
}

/// Stretches of equal size, about `chunk_size`, if each place is as far as the next one looks.
fn stretches(places: &[Place], last: i128, chunk_size: u64) -> Vec<Stretch> {
    let all = bytes_in_all(places, last);
    let places: Vec<(Place, f64)> = with_values(places, last)
        .filter(|(_, values)| *values > 0.0)
        .collect();
    let count = (all / chunk_size.max(1) as f64).round().max(1.0);
    let size = all / count;
    let mut stretches = Vec::new();
    let (mut from, mut rows, mut missing) = (places.first().map_or(0, |p| p.0.from), 0.0, size);
    for (place, mut values) in places {
        let mut at = place.from;
        while place.bytes(values) >= missing && stretches.len() + 1 < count as usize {
            let taken = missing / (place.rows_per_value * place.row_bytes);
            stretches.push(Stretch {
                from,
                rows: (rows + taken * place.rows_per_value) as u64,
                bytes: size as u64,
            });
            values -= taken;
            at += taken as i128;
            (from, rows, missing) = (at, 0.0, size);
        }
        rows += values * place.rows_per_value;
        missing -= place.bytes(values);
    }
    stretches.push(Stretch {
        from,
        rows: rows as u64,
        bytes: (size - missing).max(0.0) as u64,
    });
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(seen: &[(i128, f64, f64)]) -> Vec<Place> {
        let place = |&(from, rows_per_value, row_bytes)| Place {
            from,
            rows_per_value,
            row_bytes,
            telling: true,
        };
        seen.iter().map(place).collect()
    }

    #[test]
    fn small_tables_are_looked_at_in_fewer_places() {
        let first = places(&[(1, 1.0, 100.0)]);
        let wanted = |rows, chunk_size| places_wanted(&first, rows, chunk_size);
        assert_eq!(wanted(1000, 1 << 20), 4);
        assert_eq!(wanted(1000, 20_000), 10);
        assert_eq!(wanted(1_000_000, 1000), 16);
        assert_eq!((wanted(1, 1000), wanted(i128::from(u64::MAX), 0)), (4, 16));
    }

    #[test]
    fn stretches_follow_the_spread() {
        let even = places(&[(-100, 1.0, 10.0), (0, 1.0, 10.0)]);
        let stretch = |from, rows, bytes| Stretch { from, rows, bytes };
        assert_eq!(
            stretches(&even, 99, 500),
            [(-100), -50, 0, 50].map(|from| stretch(from, 50, 500))
        );
        assert_eq!(stretches(&even, 99, 1 << 20), [stretch(-100, 200, 2000)]);
        let skewed = places(&[(0, 0.1, 10.0), (100, 1.0, 10.0), (200, 1.0, 40.0)]);
        assert_eq!(
            stretches(&skewed, 209, 500),
            [(0, 50, 500), (140, 50, 500), (190, 20, 500)].map(|(f, r, b)| stretch(f, r, b))
        );
        let one = places(&[(7, 1.0, 10.0), (7, 1.0, 10.0)]);
        assert_eq!(stretches(&one, 7, 500), [stretch(7, 1, 10)]);
    }
}
