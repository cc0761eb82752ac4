//! Finds the key bounds at which a table is split, inside the snapshot. They follow from the
//! data alone, not from statistics or the number of threads, so that they are the same in
//! every run over the same data, and the first ones stay where they are when a table grows
//! at its end.

use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::plan::chunks::{ChunkKey, LiteralKind, Range, literal_kind};
use crate::server::catalog::Table;
use crate::server::rows::{Protocol, RowSource};
use crate::server::snapshot::Session;
use crate::server::wire::read_cell;
use crate::server::{quote_identifier, quote_list};

/// Rows looked at to learn how long rows are.
const SAMPLE_ROWS: u64 = 200;
/// Bytes that a cell adds besides its value: quotes and a comma.
const CELL_OVERHEAD: u64 = 3;

/// How a table is split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// Rows of the table in this snapshot.
    pub(super) rows: u64,
    /// Where chunks end and begin; empty for a single chunk.
    pub(super) bounds: Vec<Vec<String>>,
}

/// Finds bounds about `chunk_size` bytes of SQL apart. Walks the key once, and counts the
/// table's rows on the way, so that the chunks can be held against that number.
pub(super) fn find_bounds(
    session: &mut Session,
    table: &Table,
    key: &ChunkKey,
    chunk_size: u64,
    interrupt: &Interrupt,
) -> Result<Split> {
    let mut walk = Walk {
        session,
        table,
        key,
        interrupt,
    };
    walk.find(chunk_size)
        .map_err(|e| e.within(format!("table `{}`: cannot find chunk bounds", table.name)))
}

/// A walk along a key.
struct Walk<'a> {
    session: &'a mut Session,
    table: &'a Table,
    key: &'a ChunkKey,
    interrupt: &'a Interrupt,
}

impl Walk<'_> {
    fn find(&mut self, chunk_size: u64) -> Result<Split> {
        let row_bytes = self.sample_row_bytes()?;
        let step = (chunk_size / row_bytes.max(1)).max(1);
        let columns = quote_list(self.key.split.iter().map(String::as_str));
        let select = format!(
            "SELECT {} FROM {}",
            self.select_list()?,
            self.indexed_table()
        );
        // Rows are counted by the steps over them, if each key value stands for one row.
        let mut exact = self.key.split.len() == self.key.order.len();
        let mut bounds: Vec<Vec<String>> = Vec::new();
        loop {
            let since = self.rows_since(bounds.last());
            let query = format!("{select}{since} ORDER BY {columns} LIMIT 1 OFFSET {step}");
            let Some(mut bound) = self.read_key(&query)? else {
                break;
            };
            if bounds.last() == Some(&bound) {
                // Many rows share the leading columns: go on behind them.
                exact = false;
                let above = self.key.above(&bound);
                let query = format!("{select}{above} ORDER BY {columns} LIMIT 1");
                match self.read_key(&query)? {
                    // A key above itself would be found for ever; the chunks' rows are counted.
                    Some(next) if next != bound => bound = next,
                    _ => break,
                }
            }
            bounds.push(bound);
        }
        let count =
            |condition: &str| format!("SELECT COUNT(*) FROM {}{condition}", self.indexed_table());
        let last = count(&self.rows_since(bounds.last()));
        let nulls = count(&format!(
            " WHERE {} IS NULL",
            quote_identifier(&self.key.split[0])
        ));
        let all = format!("SELECT COUNT(*) FROM {}", self.table.source());
        let rest = self.read_number(&last)?;
        let rows = if exact {
            let nulls = if self.key.nullable {
                self.read_number(&nulls)?
            } else {
                0
            };
            bounds.len() as u64 * step + rest + nulls
        } else {
            self.read_number(&all)?
        };
        // A last chunk of less than half the size joins its neighbour.
        if rest < step / 2 {
            bounds.pop();
        }
        Ok(Split { rows, bounds })
    }

    fn indexed_table(&self) -> String {
        let (source, index) = (self.table.source(), quote_identifier(&self.key.index));
        format!("{source} FORCE INDEX ({index})")
    }

    /// The key columns of a bound.
    fn select_list(&self) -> Result<String> {
        let columns = self.key.split.iter().map(|name| {
            let kind = self.table.column(name).and_then(literal_kind);
            kind.map(|kind| kind.select(name))
        });
        let columns: Option<Vec<String>> = columns.collect();
        columns
            .map(|columns| columns.join(","))
            .ok_or_else(not_a_literal)
    }

    /// The condition for rows from `bound` on, or for all rows that have a key.
    fn rows_since(&self, bound: Option<&Vec<String>>) -> String {
        self.key.where_clause(&Range::Between(bound.cloned(), None))
    }

    /// The average length of the first rows, as SQL text.
    fn sample_row_bytes(&mut self) -> Result<u64> {
        let lengths: Vec<_> = self
            .table
            .stored_columns()
            .map(|column| format!("COALESCE(LENGTH({}),4)", quote_identifier(&column.name)))
            .collect();
        if lengths.is_empty() {
            return Ok(1);
        }
        let query = format!(
            "SELECT COALESCE(CEILING(AVG(b)),1) FROM (SELECT {} AS b FROM {} ORDER BY {} LIMIT {SAMPLE_ROWS}) s",
            sum(&lengths),
            self.indexed_table(),
            self.key.order_by(),
        );
        Ok(self.read_number(&query)? + lengths.len() as u64 * CELL_OVERHEAD)
    }

    fn read_number(&mut self, query: &str) -> Result<u64> {
        let cells = self.read_one(query)?;
        let text = cells.and_then(|mut cells| cells.pop().flatten());
        std::str::from_utf8(&text.unwrap_or_default())
            .ok()
            .and_then(|text| text.split('.').next()?.parse().ok())
            .ok_or_else(|| Error::new(ErrorKind::Failed, "the server sent no number"))
    }

    fn read_key(&mut self, query: &str) -> Result<Option<Vec<String>>> {
        let Some(cells) = self.read_one(query)? else {
            return Ok(None);
        };
        let literals = self.key.split.iter().zip(cells).map(|(name, cell)| {
            let column = self.table.column(name)?;
            literal(literal_kind(column)?, column.charset.as_deref(), &cell?)
        });
        let literals: Option<Vec<String>> = literals.collect();
        literals.map(Some).ok_or_else(not_a_literal)
    }

    /// Cells of the only row of a query; `None` when there is no row.
    fn read_one(&mut self, query: &str) -> Result<Option<Vec<Option<Vec<u8>>>>> {
        self.session
            .read(query, Protocol::Text, self.interrupt, |rows| {
                let columns = rows.columns();
                let mut cells = None;
                while let Some(row) = rows.next_row()? {
                    let mut rest = row;
                    let read = (0..columns)
                        .map(|_| read_cell(&mut rest).map(|cell| cell.map(<[u8]>::to_vec)));
                    cells = read.collect();
                }
                Ok(cells)
            })
    }
}

/// The sum of some terms, nested no deeper than need be: a server's stack does not hold a
/// thousand additions, one in the other.
fn sum(terms: &[String]) -> String {
    match terms {
        [] => "0".to_owned(),
        [term] => term.clone(),
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({}+{})", sum(left), sum(right))
        }
    }
}

#[cold]
fn not_a_literal() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a key value cannot be written as a literal",
    )
}

/// A key value as a literal made of ASCII only.
fn literal(kind: LiteralKind, charset: Option<&str>, value: &[u8]) -> Option<String> {
    let hex = || value.iter().map(|b| format!("{b:02X}")).collect::<String>();
    let plain = |allowed: &[u8]| {
        let text = std::str::from_utf8(value).ok()?;
        text.bytes()
            .all(|b| b.is_ascii_digit() || allowed.contains(&b))
            .then(|| text.to_owned())
    };
    Some(match kind {
        LiteralKind::Number | LiteralKind::Ordinal => plain(b"-+.")?,
        LiteralKind::Float => {
            let number = plain(b"-+.e")?;
            let exponent = if number.contains('e') { "" } else { "e0" };
            number + exponent
        }
        LiteralKind::Quoted => format!("'{}'", plain(b"-: .abcdef")?),
        LiteralKind::Text => format!("_{} X'{}'", charset?, hex()),
        LiteralKind::Binary => format!("X'{}'", hex()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_ascii_and_cannot_break_out() {
        assert_eq!(
            literal(LiteralKind::Number, None, b"-12.50").unwrap(),
            "-12.50"
        );
        assert_eq!(literal(LiteralKind::Number, None, b"1 OR 1"), None);
        assert_eq!(
            literal(LiteralKind::Float, None, b"-0.1").unwrap(),
            "-0.1e0"
        );
        assert_eq!(
            literal(LiteralKind::Float, None, b"5e-324").unwrap(),
            "5e-324"
        );
        assert_eq!(
            literal(LiteralKind::Quoted, None, b"2024-02-29 01:02:03").unwrap(),
            "'2024-02-29 01:02:03'"
        );
        assert_eq!(literal(LiteralKind::Quoted, None, b"' OR '"), None);
        assert_eq!(
            literal(LiteralKind::Text, Some("latin1"), b"a'\xe9").unwrap(),
            "_latin1 X'6127E9'"
        );
        assert_eq!(literal(LiteralKind::Binary, None, b"").unwrap(), "X''");
    }
}
