//! Taking up the key ranges of the previous backup, so that a change in one region of a key
//! leaves the files of all others as they are: which ranges have to be counted, which are
//! split, which are joined. Pure; the sizes come from the server and the previous manifest.

use std::collections::BTreeSet;

use super::chunks::ChunkKey;
use super::literals::{is_literal, literal_kind};
use crate::server::catalog::Table;
use crate::store::manifest::DataEntry;
use crate::store::names;

/// A range is split above this many times the chunk size. Below it and above half of it a
/// chunk is as good as a new one, so that most changes move no bound.
const SPLIT_ABOVE: f64 = 2.0;
/// Neighbours are joined up to this share of the chunk size, if rows of one of them have come
/// or gone: sizes are known only once rows have been read, and where nothing changes no file
/// is to change either. What is joined has to grow to more than twice that before it is split,
/// so that nothing swings; and whole neighbours are so far from it that an estimate is enough
/// to leave them alone.
const JOIN_UP_TO: f64 = 0.75;
/// An estimate that is between these shares of the rows that were there tells of no change.
const UNCHANGED: std::ops::RangeInclusive<f64> = 0.45..=1.25;

/// The chunks of a table in the previous backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The number of the chunk of NULLs, where the key has one.
    pub null: Option<usize>,
    /// The others, in key order.
    pub chunks: Vec<PreviousChunk>,
    /// The size that they were meant to have, where that is known.
    pub chunk_size: Option<u64>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousChunk {
    /// The lower bound; empty for the first.
    pub from: Vec<String>,
    /// The number in its file's name.
    pub number: usize,
    /// Its rows then.
    pub rows: u64,
    /// Its SQL text then.
    pub raw_bytes: u64,
}

impl Previous {
    /// The chunks as a manifest has them, if they were split by `key` and can be again; or why
    /// not. `None` where the table was not split.
    pub fn of(data: &DataEntry, table: &Table, key: &ChunkKey) -> Option<Result<Self, String>> {
        (data.chunks.len() > 1).then(|| Self::read(data, table, key))
    }

    fn read(data: &DataEntry, table: &Table, key: &ChunkKey) -> Result<Previous, String> {
        if data.chunk_key != key.split {
            return Err("it was split by another key".into());
        }
        let mut numbers = BTreeSet::new();
        let mut chunks = Vec::with_capacity(data.chunks.len());
        for chunk in &data.chunks {
            let number = names::chunk_number(&table.name, &chunk.file.file)
                .filter(|number| numbers.insert(*number))
                .ok_or_else(|| format!("{} is no file of a chunk", chunk.file.file))?;
            chunks.push(PreviousChunk {
                from: chunk.from.clone(),
                number,
                rows: chunk.rows,
                raw_bytes: chunk.raw_bytes,
            });
        }
        let null = key.nullable.then(|| chunks.remove(0));
        let open = |chunk: &PreviousChunk| chunk.from.is_empty();
        let first_is_open = chunks.first().is_some_and(open) && null.as_ref().is_none_or(open);
        if !first_is_open
            || !chunks[1..]
                .iter()
                .all(|chunk| is_bound(table, key, &chunk.from))
        {
            return Err("its bounds are none of this key".into());
        }
        if !chunks[1..].windows(2).all(|pair| in_order(key, pair)) {
            return Err("its bounds are not in order".into());
        }
        Ok(Previous {
            null: null.map(|chunk| chunk.number),
            chunks,
            chunk_size: data.chunk_size,
        })
    }

    /// The size of a chunk that has this many rows now.
    pub fn counted(&self, at: usize, rows: u64, chunk_size: u64) -> Size {
        let average = |chunks: &[PreviousChunk]| {
            let rows: u64 = chunks.iter().map(|chunk| chunk.rows).sum();
            let bytes: u64 = chunks.iter().map(|chunk| chunk.raw_bytes).sum();
            (rows > 0).then(|| bytes as f64 / rows as f64)
        };
        let row_bytes = average(&self.chunks[at..=at]).or_else(|| average(&self.chunks));
        Size::Counted {
            bytes: rows as f64 * row_bytes.unwrap_or(1.0),
            changed: rows != self.chunks[at].rows || self.chunk_size != Some(chunk_size),
        }
    }

    /// The size of a chunk by an estimate of its rows now; `None` if they have to be counted.
    pub fn estimated(&self, at: usize, estimate: u64, chunk_size: u64) -> Option<Size> {
        let chunk = &self.chunks[at];
        let share = estimate as f64 / chunk.rows as f64;
        UNCHANGED.contains(&share).then(|| Size::AsBefore {
            bytes: chunk.raw_bytes as f64,
            resized: self.chunk_size != Some(chunk_size),
        })
    }
}

/// Whether these texts can go into a query as a bound of `key`.
fn is_bound(table: &Table, key: &ChunkKey, texts: &[String]) -> bool {
    let literals = key.split.iter().zip(texts).all(|(name, text)| {
        table.column(name).is_some_and(|column| {
            literal_kind(column)
                .is_some_and(|kind| is_literal(kind, column.charset.as_deref(), text))
        })
    });
    literals && texts.len() == key.split.len()
}

/// What can be said of the order of two bounds without the server, which knows all others:
/// they differ, and numbers of members, which conditions are made from, rise.
fn in_order(key: &ChunkKey, pair: &[PreviousChunk]) -> bool {
    let member = |chunk: &PreviousChunk| chunk.from[0].parse::<usize>().ok();
    let (a, b) = (member(&pair[0]), member(&pair[1]));
    pair[0].from != pair[1].from && (key.members == 0 || (a.is_some() && a <= b))
}

/// How large a range is now, in bytes of SQL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// About as large as it was.
    AsBefore {
        /// What it was.
        bytes: f64,
        /// Whether it was made for another chunk size.
        resized: bool,
    },
    /// Its rows were counted.
    Counted {
        /// What it is.
        bytes: f64,
        /// Whether the number of rows, or the chunk size, is another than it was.
        changed: bool,
    },
}

impl Size {
    fn bytes(self) -> f64 {
        let (Size::AsBefore { bytes, .. } | Size::Counted { bytes, .. }) = self;
        bytes
    }

    fn changed(self) -> bool {
        let (Size::AsBefore { resized: it, .. } | Size::Counted { changed: it, .. }) = self;
        it
    }

    fn is_estimated(self) -> bool {
        matches!(self, Size::AsBefore { .. })
    }

    fn least(self) -> f64 {
        let share = if self.is_estimated() {
            *UNCHANGED.start()
        } else {
            1.0
        };
        self.bytes() * share
    }

    fn most(self) -> f64 {
        let share = if self.is_estimated() {
            *UNCHANGED.end()
        } else {
            1.0
        };
        self.bytes() * share
    }
}

/// The ranges that have to be counted before it can be said what becomes of them. When they
/// have been, there may be others.
pub fn undecided(sizes: &[Size], chunk_size: u64) -> Vec<usize> {
    let (split, join) = limits(chunk_size);
    let joins = |a: usize, b: usize| {
        let pair = (sizes[a], sizes[b]);
        (pair.0.changed() || pair.1.changed()) && pair.0.least() + pair.1.least() <= join
    };
    (0..sizes.len())
        .filter(|&at| sizes[at].is_estimated())
        .filter(|&at| {
            let with_last = at > 0 && joins(at - 1, at);
            let with_next = at + 1 < sizes.len() && joins(at, at + 1);
            sizes[at].most() > split || with_last || with_next
        })
        .collect()
}

/// A stretch of old ranges, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first of the ranges.
    pub first: usize,
    /// How many; more than one are joined.
    pub ranges: usize,
    /// Into how many chunks they are cut.
    pub pieces: u64,
}

/// What becomes of the ranges, in order. Applied again to what it made, it changes nothing.
pub fn rearrange(sizes: &[Size], chunk_size: u64) -> Vec<Stretch> {
    let (split, join) = limits(chunk_size);
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut sum = f64::INFINITY;
    for (at, size) in sizes.iter().enumerate() {
        let bytes = size.bytes();
        let changed = size.changed() || at > 0 && sizes[at - 1].changed();
        match stretches.last_mut() {
            Some(stretch) if changed && sum + bytes <= join => {
                stretch.ranges += 1;
                sum += bytes;
            }
            _ => {
                let pieces = if bytes > split {
                    (bytes / chunk_size.max(1) as f64).round() as u64
                } else {
                    1
                };
                stretches.push(Stretch {
                    first: at,
                    ranges: 1,
                    pieces,
                });
                sum = bytes;
            }
        }
    }
    stretches
}

fn limits(chunk_size: u64) -> (f64, f64) {
    let size = chunk_size as f64;
    (size * SPLIT_ABOVE, size * JOIN_UP_TO)
}

/// Numbers that no chunk of the previous backup has, lowest first: a file never gets the name
/// that another range's file had just now.
pub fn new_numbers(previous: &Previous) -> impl Iterator<Item = usize> {
    let old = previous.chunks.iter().map(|chunk| chunk.number);
    let taken: BTreeSet<usize> = old.chain(previous.null).collect();
    (1..).filter(move |number| !taken.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now(bytes: f64, changed: bool) -> Size {
        Size::Counted { bytes, changed }
    }

    fn before(bytes: f64) -> Size {
        let resized = false;
        Size::AsBefore { bytes, resized }
    }

    fn counted(sizes: &[u64]) -> Vec<Size> {
        sizes.iter().map(|size| now(*size as f64, true)).collect()
    }

    fn chunk(number: usize, rows: u64) -> PreviousChunk {
        PreviousChunk {
            from: Vec::new(),
            number,
            rows,
            raw_bytes: 3000,
        }
    }

    fn shape(sizes: &[u64]) -> Vec<(usize, u64)> {
        let stretches = rearrange(&counted(sizes), 100);
        stretches.iter().map(|s| (s.ranges, s.pieces)).collect()
    }

    #[test]
    fn only_what_is_far_from_the_size_moves() {
        assert_eq!(shape(&[100, 60, 150, 200, 40]), [(1, 1); 5]);
        assert_eq!(shape(&[100, 201, 350]), [(1, 1), (1, 2), (1, 4)]);
        assert_eq!(
            shape(&[100, 30, 30, 10, 90, 5]),
            [(1, 1), (3, 1), (1, 1), (1, 1)]
        );
        assert_eq!(shape(&[0, 0, 0]), [(3, 1)]);
        assert_eq!(shape(&[30, 1000, 30]), [(1, 1), (1, 10), (1, 1)]);
    }

    #[test]
    fn chunks_stay_small_where_no_row_has_come_or_gone() {
        let sizes = [now(20.0, false), now(20.0, false), now(20.0, true)];
        let shape = rearrange(&sizes, 100);
        assert_eq!(shape.iter().map(|s| s.ranges).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn whole_chunks_that_seem_unchanged_are_not_counted() {
        assert_eq!(undecided(&[before(100.0); 4], 100), [0usize; 0]);
        let sizes = [before(100.0), before(170.0), before(50.0), before(60.0)];
        assert_eq!(undecided(&sizes, 100), [1]);
        let sizes = [before(100.0), now(10.0, true), before(100.0), before(200.0)];
        assert_eq!(undecided(&sizes, 100), [0, 2, 3]);
    }

    #[test]
    fn sizes_follow_the_rows() {
        let mut previous = Previous {
            null: None,
            chunks: vec![chunk(1, 1000), chunk(2, 0)],
            chunk_size: Some(100),
        };
        assert_eq!(previous.estimated(0, 1100, 100), Some(before(3000.0)));
        assert_eq!(previous.estimated(0, 1300, 100), None);
        assert_eq!(previous.estimated(1, 1, 100), None);
        assert_eq!(previous.counted(0, 1000, 100), now(3000.0, false));
        assert_eq!(previous.counted(0, 100, 100), now(300.0, true));
        assert_eq!(previous.counted(1, 10, 100), now(60.0, true));
        previous.chunk_size = None;
        assert_eq!(previous.counted(0, 1000, 100), now(3000.0, true));
    }

    #[test]
    fn new_numbers_are_nobody_elses() {
        let previous = Previous {
            null: Some(1),
            chunks: vec![chunk(2, 0), chunk(5, 0), chunk(3, 0)],
            chunk_size: None,
        };
        assert_eq!(
            new_numbers(&previous).take(3).collect::<Vec<_>>(),
            [4, 6, 7]
        );
    }

    proptest! {
        #[test]
        fn what_was_rearranged_stays(sizes in proptest::collection::vec(0..500u64, 1..30)) {
            let mut after = Vec::new();
            for stretch in rearrange(&counted(&sizes), 100) {
                let all = &sizes[stretch.first..stretch.first + stretch.ranges];
                let sum: u64 = all.iter().sum();
                for piece in 0..stretch.pieces {
                    after.push(sum * (piece + 1) / stretch.pieces - sum * piece / stretch.pieces);
                }
                prop_assert!(stretch.pieces == 1 || stretch.ranges == 1);
            }
            prop_assert_eq!(after.iter().sum::<u64>(), sizes.iter().sum::<u64>());
            prop_assert!(after.iter().all(|size| *size <= 200));
            let again = rearrange(&counted(&after), 100);
            prop_assert!(again.iter().all(|s| s.ranges == 1 && s.pieces == 1));
        }

        #[test]
        fn an_estimate_decides_only_what_a_count_would(
            sizes in proptest::collection::vec((0..400u64, 46..125u64, any::<bool>()), 1..20)
        ) {
            let counted: Vec<_> = sizes
                .iter()
                .map(|(size, share, _)| now((size * share) as f64 / 100.0, true))
                .collect();
            let mut known: Vec<_> = sizes
                .iter()
                .zip(&counted)
                .map(|((size, _, estimated), counted)| {
                    let bytes = *size as f64;
                    let resized = true;
                    if *estimated { Size::AsBefore { bytes, resized } } else { *counted }
                })
                .collect();
            loop {
                let next = undecided(&known, 100);
                if next.is_empty() {
                    break;
                }
                for at in next {
                    known[at] = counted[at];
                }
            }
            prop_assert_eq!(rearrange(&known, 100), rearrange(&counted, 100));
        }
    }
}
