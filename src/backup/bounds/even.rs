//! Bounds of a numeric key whose values are spread evenly, as most counted ones are: looked at
//! in some places, and computed. No row is stepped over. Which values are looked at and where
//! the bounds lie follows from the data; the optimizer's estimates are heard only for doubts,
//! and any doubt means that the key is walked along instead.

use super::{Course, Split};
use crate::error::Result;
use crate::plan::chunks::ranges;
use crate::plan::literals::{LiteralKind, literal_kind};
use crate::server::quote_identifier;

/// Places looked at, at even distances between the lowest and the highest value.
const PLACES: u32 = 16;
/// Rows looked at in each place.
const ROWS: u64 = 256;
/// Bytes looked at in each place, about: fewer rows where they are long.
const BYTES: u64 = 256 << 10;
/// What the places may differ by, as a factor.
const EVEN: f64 = 1.5;
/// An estimate between these shares of what is expected raises no doubt.
const NO_DOUBT: std::ops::RangeInclusive<f64> = 0.45..=1.6;

/// What was seen in a place.
struct Place {
    rows_per_value: f64,
    row_bytes: f64,
}

impl Course<'_> {
    /// The bounds, if the key's first column has its values spread evenly.
    pub(super) fn spread_evenly(&mut self, chunk_size: u64) -> Result<Option<Split>> {
        let Some((first, last)) = self.ends()? else {
            return Ok(None);
        };
        let Some(length) = self.row_length() else {
            return Ok(None);
        };
        let span = (last - first) as f64 + 1.0;
        let Some(probe) = self.look(first, last, &length, ROWS / 16)? else {
            return Ok(None);
        };
        let rows = ((BYTES as f64 / probe.row_bytes) as u64).clamp(ROWS / 32, ROWS);
        let mut places = Vec::new();
        for place in 0..PLACES {
            let value = first + (last - first) * i128::from(place) / i128::from(PLACES);
            match self.look(value, last, &length, rows)? {
                Some(seen) => places.push(seen),
                None => return Ok(None),
            }
        }
        let (Some(rows_per_value), Some(row_bytes)) = (
            even(places.iter().map(|place| place.rows_per_value)),
            even(places.iter().map(|place| place.row_bytes)),
        ) else {
            return Ok(None);
        };
        let chunks = (span * rows_per_value * row_bytes / chunk_size.max(1) as f64).round();
        let expected = span * rows_per_value / chunks.max(1.0);
        let chunks = chunks as i128;
        let mut bounds: Vec<Vec<String>> = Vec::new();
        for chunk in 1..chunks {
            match self.key_from(first + (last - first) * chunk / chunks)? {
                Some(bound) if bounds.last() != Some(&bound) => bounds.push(bound),
                _ => return Ok(None),
            }
        }
        if !bounds.is_empty() {
            for range in ranges(self.key, &bounds) {
                let rows = self.estimate(&range)?.unwrap_or(0);
                if !NO_DOUBT.contains(&(rows as f64 / expected)) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(Split {
            bounds,
            ..Split::default()
        }))
    }

    /// The lowest and the highest value of the key's first column, if it is a whole number.
    fn ends(&mut self) -> Result<Option<(i128, i128)>> {
        let column = self.table.column(&self.key.split[0]);
        let whole = column.is_some_and(|column| {
            literal_kind(column) == Some(LiteralKind::Number) && column.data_type != "decimal"
        });
        if !whole || self.key.nullable {
            return Ok(None);
        }
        let name = quote_identifier(&self.key.split[0]);
        let mut end = |order: &str| -> Result<Option<i128>> {
            let query = format!(
                "SELECT {name} FROM {} ORDER BY {name}{order} LIMIT 1",
                self.indexed_table()
            );
            let cells = self.session.read_one(&query, self.interrupt)?;
            let cell = cells.and_then(|mut cells| cells.pop().flatten());
            Ok(cell.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()))
        };
        Ok(end("")?.zip(end(" DESC")?))
    }

    /// Looks at some rows from a value on.
    fn look(&mut self, from: i128, last: i128, length: &str, rows: u64) -> Result<Option<Place>> {
        let name = quote_identifier(&self.key.split[0]);
        let query = format!(
            "SELECT COUNT(*), MAX(a), SUM(b) FROM (SELECT {name} AS a, {length} AS b FROM {} \
             WHERE {name}>={from} ORDER BY {} LIMIT {rows}) s",
            self.indexed_table(),
            self.key.order_by(),
        );
        let cells = self.session.read_one(&query, self.interrupt)?;
        let cells = cells.unwrap_or_default().into_iter();
        let numbers: Option<Vec<i128>> = cells
            .map(|cell| {
                let text = cell?;
                std::str::from_utf8(&text)
                    .ok()?
                    .split('.')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect();
        let Some(&[seen, up_to, bytes]) = numbers.as_deref() else {
            return Ok(None);
        };
        let up_to = if seen < i128::from(rows) { last } else { up_to };
        Ok(Some(Place {
            rows_per_value: seen as f64 / ((up_to - from) as f64 + 1.0),
            row_bytes: (bytes as f64 / seen as f64).max(1.0),
        }))
    }
}

/// The average, if the values are even.
fn even(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let (least, most) = values
        .clone()
        .fold((f64::MAX, f64::MIN), |(least, most), value| {
            (least.min(value), most.max(value))
        });
    let count = values.clone().count() as f64;
    (least > 0.0 && most <= least * EVEN).then(|| values.sum::<f64>() / count)
}
