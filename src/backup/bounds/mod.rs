//! Finds the key bounds at which a table is split, inside the snapshot. Where the previous
//! backup had bounds they are used again ([`again`]). Else they follow from the data, not from
//! the number of threads: by how the values of a whole-numbered key are spread ([`spread`]), or
//! by walking along the key ([`walk`]). Statistics say how much to look at, and which of the two
//! ways to go.

use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::plan::chunks::{ChunkKey, Range};
use crate::plan::literals::{literal, literal_kind};
use crate::plan::reuse::Previous;
use crate::server::catalog::Table;
use crate::server::snapshot::Session;
use crate::server::{quote_identifier, quote_list};

mod again;
mod spread;
mod walk;

/// Bytes that a cell adds besides its value: quotes and a comma.
const CELL_OVERHEAD: u64 = 3;

/// How a table is split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// Rows of the table in this snapshot, if finding the bounds has counted them.
    pub(super) rows: Option<u64>,
    /// Where chunks end and begin; empty for a single chunk.
    pub(super) bounds: Vec<Vec<String>>,
    /// The number in its file's name of each range that [`ranges`](crate::plan::chunks::ranges)
    /// makes of the bounds, where it is not its place among them.
    pub(super) numbers: Vec<usize>,
    /// Worth saying at `-v`.
    pub(super) note: Option<String>,
}

/// Finds bounds about `chunk_size` bytes of SQL apart.
pub(super) fn find(
    session: &mut Session,
    table: &Table,
    key: &ChunkKey,
    previous: Option<Result<Previous, String>>,
    chunk_size: u64,
    interrupt: &Interrupt,
) -> Result<Split> {
    let mut course = Course {
        session,
        table,
        key,
        interrupt,
    };
    course
        .find(previous, chunk_size)
        .map_err(|e| e.within(format!("table `{}`: cannot find chunk bounds", table.name)))
}

/// A key of a table, and a session that looks along it.
struct Course<'a> {
    session: &'a mut Session,
    table: &'a Table,
    key: &'a ChunkKey,
    interrupt: &'a Interrupt,
}

impl Course<'_> {
    fn find(
        &mut self,
        previous: Option<Result<Previous, String>>,
        chunk_size: u64,
    ) -> Result<Split> {
        let mut note = None;
        if let Some(previous) = previous {
            let taken_up = match previous {
                Ok(previous) => self.take_up(&previous, chunk_size, usize::MAX)?,
                Err(why) => Err(why),
            };
            match taken_up {
                Ok(split) => return Ok(split),
                Err(why) => {
                    let name = &self.table.name;
                    note = Some(format!(
                        "table `{name}`: the previous backup's chunks are not used again: {why}"
                    ));
                }
            }
        }
        let split = match self.by_spread(chunk_size)? {
            Some(split) => split,
            None => self.walk(chunk_size)?,
        };
        Ok(Split { note, ..split })
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

    /// The first key that meets a condition, after `skipped` others.
    fn first_key(&mut self, condition: &str, skipped: u64) -> Result<Option<Vec<String>>> {
        let query = format!(
            "SELECT {} FROM {}{condition} ORDER BY {} LIMIT 1 OFFSET {skipped}",
            self.select_list()?,
            self.indexed_table(),
            quote_list(self.key.split.iter().map(String::as_str)),
        );
        let Some(cells) = self.session.read_one(&query, self.interrupt)? else {
            return Ok(None);
        };
        let literals = self.key.split.iter().zip(cells).map(|(name, cell)| {
            let column = self.table.column(name)?;
            literal(literal_kind(column)?, column.charset.as_deref(), &cell?)
        });
        let literals: Option<Vec<String>> = literals.collect();
        literals.map(Some).ok_or_else(not_a_literal)
    }

    /// Rows in a range, counted.
    fn count(&mut self, range: &Range) -> Result<u64> {
        let condition = self.key.where_clause(range);
        let query = format!("SELECT COUNT(*) FROM {}{condition}", self.indexed_table());
        self.session.read_number(&query, self.interrupt)
    }

    /// The length of a row as SQL text, as an expression; `None` where there are no columns.
    fn row_length(&self) -> Option<String> {
        let columns = self.table.stored_columns();
        let lengths: Vec<_> = columns
            .map(|column| format!("COALESCE(LENGTH({}),4)", quote_identifier(&column.name)))
            .collect();
        let overhead = lengths.len() as u64 * CELL_OVERHEAD;
        (overhead > 0).then(|| format!("{}+{overhead}", sum(&lengths)))
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
