//! Bounds of a key that begins with a whole number, as most keys do: how its values are spread
//! is looked at in some places, and the bounds are computed. No row is stepped over. They are
//! then treated like a previous backup's ([`again`](super::again)): where the optimizer's
//! estimate doubts what was computed, the range is counted, and cut or joined. Where there are
//! many doubts the key is walked along instead.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Course, Split};
use crate::error::Result;
use crate::plan::literals::literal_kind;
use crate::plan::reuse::{Previous, PreviousChunk};
use crate::server::quote_identifier;

/// Places looked at, at even distances from the lowest value on, besides one at the highest.
const PLACES: i128 = 16;
/// Every fourth of them first, then every other, then all, unless those before are enough.
const FIRST_STEP: usize = 4;
/// Rows looked at in each place.
const ROWS: u64 = 256;
/// Bytes looked at in each place, about: fewer rows where they are long.
const BYTES: f64 = 256.0 * 1024.0;
/// Values that these rows have to span, or nothing follows from them for others.
const VALUES: i128 = 8;
/// By what factor the statistics may differ from what is seen.
const TOLERANCE: f64 = 2.0;
/// One range in this many may be counted; to count more costs more than a walk.
const RANGES_PER_DOUBT: usize = 4;

/// What was seen in a place.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The lowest value that belongs to it; of the one at the end, the one behind the last.
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
        let Some(places) = self.look_around(first, last, &length, rows, chunk_size)? else {
            return Ok(None);
        };
        // Dense in all places and empty between them, the key would come out far too large.
        if rows_in_all(&places) > (2 * self.table.rows + ROWS) as f64 {
            return Ok(None);
        }
        let mut chunks: Vec<PreviousChunk> = Vec::new();
        for Stretch { from, rows, bytes } in stretches(&places, chunk_size) {
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

    /// What is seen in as many places as it takes, and just before the last value; that place comes
    /// last, its `from` behind the last value. `None` if one of the others tells nothing of other
    /// values.
    fn look_around(
        &mut self,
        first: i128,
        last: i128,
        length: &str,
        rows: u64,
        chunk_size: u64,
    ) -> Result<Option<Vec<Place>>> {
        let mut seen: BTreeMap<i128, Place> = BTreeMap::new();
        let (mut end, mut step) = (None, FIRST_STEP);
        loop {
            for nth in (0..PLACES).step_by(step) {
                let from = first + (last - first) * nth / PLACES;
                let Entry::Vacant(unseen) = seen.entry(from) else {
                    continue;
                };
                match self.look(from, length, rows)? {
                    Some(place) if place.telling => unseen.insert(place),
                    _ => return Ok(None),
                };
            }
            let places: Vec<Place> = seen.values().copied().collect();
            if end.is_none() {
                end = self.look_before_end(&places, last, length, rows)?;
            }
            let Some(end) = end else {
                return Ok(None);
            };
            let places = with_end(places, end, self.table.data_bytes);
            if step == 1 || are_enough(&places, chunk_size, self.table.data_bytes) {
                return Ok(Some(places));
            }
            step /= 2;
        }
    }

    /// Looks at what should be the last rows, if they are as dense as those of the last of `places`.
    fn look_before_end(
        &mut self,
        places: &[Place],
        last: i128,
        length: &str,
        rows: u64,
    ) -> Result<Option<Place>> {
        let Some(before) = places.last() else {
            return Ok(None);
        };
        let values = (rows as f64 / before.rows_per_value) as i128;
        let from = before.from.max(last - values);
        let end = self.look(from, length, rows)?;
        Ok(end.map(|end| Place {
            from: last + 1,
            ..end
        }))
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

/// What is between each place and the next, the mean of both, and how many values that are. Where
/// rows become denser or longer on the way, it may be too little by half, or too much by any factor.
fn between(places: &[Place]) -> impl Iterator<Item = (Place, f64)> {
    places.windows(2).map(|pair| {
        let rows = pair[0].rows_per_value + pair[1].rows_per_value;
        let bytes = pair[0].bytes(1.0) + pair[1].bytes(1.0);
        let mean = Place {
            rows_per_value: rows / 2.0,
            row_bytes: bytes / rows,
            ..pair[0]
        };
        (mean, (pair[1].from - pair[0].from) as f64)
    })
}

fn rows_in_all(places: &[Place]) -> f64 {
    let all = between(places);
    all.map(|(place, values)| values * place.rows_per_value)
        .sum()
}

impl Place {
    fn bytes(&self, values: f64) -> f64 {
        values * self.rows_per_value * self.row_bytes
    }
}

fn bytes_in_all(places: &[Place]) -> f64 {
    let all = between(places);
    all.map(|(place, values)| place.bytes(values)).sum()
}

/// The places, and the one at the end. A few last rows can be unlike all others (what was not worked
/// off yet): where the statistics know of far less, they do not speak for those before them.
fn with_end(mut places: Vec<Place>, end: Place, data_bytes: u64) -> Vec<Place> {
    let before = places.last().copied();
    places.push(end);
    if bytes_in_all(&places) > TOLERANCE * data_bytes as f64
        && let (Some(last), Some(before)) = (places.last_mut(), before)
    {
        *last = Place {
            from: end.from,
            ..before
        };
    }
    places
}

/// Whether there are as many places as there are chunks, and some more, and they show about as much
/// as the statistics know of: rows between them may be longer than all that were seen.
fn are_enough(places: &[Place], chunk_size: u64, data_bytes: u64) -> bool {
    /// Bytes that a row takes on disk besides its values.
    const ROW_OVERHEAD: f64 = 32.0;
    const PLACES_PER_CHUNK: f64 = 1.5;
    let (text, stored) = (bytes_in_all(places), data_bytes as f64);
    let expected = text + ROW_OVERHEAD * rows_in_all(places);
    let chunks = text / chunk_size.max(1) as f64;
    chunks * PLACES_PER_CHUNK <= places.len() as f64
        && stored <= expected * TOLERANCE
        && text <= stored * TOLERANCE
}

/// Stretches of equal size, about `chunk_size`, if the rows between places are as [`between`] says.
/// The last place stands behind the last value.
fn stretches(places: &[Place], chunk_size: u64) -> Vec<Stretch> {
    let all = bytes_in_all(places);
    let places: Vec<(Place, f64)> = between(places)
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
    fn a_few_places_are_enough_for_a_few_chunks_where_the_statistics_say_about_the_same() {
        // 1,000 values, of which each place says the same: 100,000 bytes, on disk 132,000.
        let few = places(&[1, 251, 501, 751, 1001].map(|from| (from, 1.0, 100.0)));
        let enough = |chunk_size, data_bytes| are_enough(&few, chunk_size, data_bytes);
        assert!(enough(1 << 20, 132_000) && enough(30_001, 132_000) && !enough(29_999, 132_000));
        assert!(enough(1 << 20, 50_001) && !enough(1 << 20, 49_999));
        assert!(enough(1 << 20, 263_999) && !enough(1 << 20, 264_001) && !enough(0, 132_000));
    }

    #[test]
    fn last_rows_that_the_statistics_do_not_know_speak_for_no_others() {
        let few = [1, 501].map(|from| (from, 1.0, 100.0));
        let end = places(&[(1001, 1.0, 50_000.0)])[0];
        let row_bytes = |data_bytes| with_end(places(&few), end, data_bytes)[2].row_bytes;
        assert_eq!(
            (row_bytes(132_000), row_bytes(10_000_000)),
            (100.0, 50_000.0)
        );
        assert_eq!(with_end(places(&few), end, 0)[2].from, 1001);
    }

    #[test]
    fn stretches_follow_the_spread() {
        let even = places(&[(-100, 1.0, 10.0), (0, 1.0, 10.0), (100, 1.0, 10.0)]);
        let stretch = |from, rows, bytes| Stretch { from, rows, bytes };
        assert_eq!(
            stretches(&even, 500),
            [(-100), -50, 0, 50].map(|from| stretch(from, 50, 500))
        );
        assert_eq!(stretches(&even, 1 << 20), [stretch(-100, 200, 2000)]);
        // 2 bytes a value, then 6, then 9: 200, 600 and 900.
        let skewed = places(&[
            (0, 0.1, 10.0),
            (100, 0.3, 10.0),
            (200, 0.3, 30.0),
            (300, 0.3, 30.0),
        ]);
        assert_eq!(
            stretches(&skewed, 425),
            [(0, 31), (137, 20), (205, 14), (252, 14)].map(|(from, rows)| stretch(from, rows, 425))
        );
        let one = places(&[(7, 1.0, 10.0), (8, 1.0, 10.0)]);
        assert_eq!(stretches(&one, 500), [stretch(7, 1, 10)]);
    }
}
