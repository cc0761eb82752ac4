//! Finds the key bounds at which a table is split, inside the snapshot. They follow from the
//! data alone, not from statistics or the number of threads, so that they are the same in
//! every run over the same data, and the first ones stay where they are when a table grows
//! at its end.

use super::catalog::Table;
use super::rows::RowSource;
use super::snapshot::Session;
use super::wire::read_cell;
use super::{quote_identifier, quote_list};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;
use crate::plan::chunks::{ChunkKey, LiteralKind, literal_kind};

/// Rows looked at to learn how long rows are.
const SAMPLE_ROWS: u64 = 200;
/// Bytes that a cell adds besides its value: quotes and a comma.
const CELL_OVERHEAD: u64 = 3;

/// How a table is split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// Rows of the table in this snapshot.
    pub rows: u64,
    /// Where chunks end and begin; empty for a single chunk.
    pub bounds: Vec<Vec<String>>,
}

/// Finds bounds about `chunk_size` bytes of SQL apart.
pub fn find_bounds(
    session: &mut Session,
    table: &Table,
    key: &ChunkKey,
    chunk_size: u64,
    interrupt: &Interrupt,
) -> Result<Split> {
    let within = |e: Error| e.within(format!("table `{}`: cannot find chunk bounds", table.name));
    let name = quote_identifier(&table.name);
    let rows =
        read_number(session, &format!("SELECT COUNT(*) FROM {name}"), interrupt).map_err(within)?;
    let row_bytes = sample_row_bytes(session, table, key, interrupt).map_err(within)?;
    let step = (chunk_size / row_bytes.max(1)).max(1);
    let mut split = Split {
        rows,
        bounds: Vec::new(),
    };
    // A last chunk of less than half the size joins its neighbour.
    let wanted = (rows + step / 2) / step;
    let index = quote_identifier(&key.index);
    let columns = quote_list(key.split.iter().map(String::as_str));
    let not_null = if key.nullable {
        format!(" WHERE {} IS NOT NULL", quote_identifier(&key.split[0]))
    } else {
        String::new()
    };
    let select = format!("SELECT {columns} FROM {name} FORCE INDEX ({index})");
    while (split.bounds.len() as u64) + 1 < wanted {
        let from = match split.bounds.last() {
            None => not_null.clone(),
            Some(bound) => format!(" WHERE {}", key.at_least(bound)),
        };
        let query = format!("{select}{from} ORDER BY {columns} LIMIT 1 OFFSET {step}");
        let Some(mut bound) = read_key(session, table, key, &query, interrupt).map_err(within)?
        else {
            break;
        };
        if split.bounds.last() == Some(&bound) {
            // Many rows share the leading columns: go on behind them.
            let query = format!(
                "{select} WHERE {} ORDER BY {columns} LIMIT 1",
                key.above(&bound)
            );
            match read_key(session, table, key, &query, interrupt).map_err(within)? {
                Some(next) => bound = next,
                None => break,
            }
        }
        split.bounds.push(bound);
    }
    Ok(split)
}

/// The average length of the first rows, as SQL text.
fn sample_row_bytes(
    session: &mut Session,
    table: &Table,
    key: &ChunkKey,
    interrupt: &Interrupt,
) -> Result<u64> {
    let lengths: Vec<_> = table
        .stored_columns()
        .map(|column| format!("COALESCE(LENGTH({}),4)", quote_identifier(&column.name)))
        .collect();
    if lengths.is_empty() {
        return Ok(1);
    }
    let query = format!(
        "SELECT COALESCE(CEILING(AVG(b)),1) FROM (SELECT {} AS b FROM {} FORCE INDEX ({}) ORDER BY {} LIMIT {SAMPLE_ROWS}) s",
        lengths.join("+"),
        quote_identifier(&table.name),
        quote_identifier(&key.index),
        key.order_by(),
    );
    Ok(read_number(session, &query, interrupt)? + lengths.len() as u64 * CELL_OVERHEAD)
}

fn read_number(session: &mut Session, query: &str, interrupt: &Interrupt) -> Result<u64> {
    let cells = read_one(session, query, interrupt)?;
    let text = cells
        .and_then(|mut cells| cells.pop().flatten())
        .unwrap_or_default();
    std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.split('.').next()?.parse().ok())
        .ok_or_else(|| Error::new(ErrorKind::Failed, "the server sent no number"))
}

fn read_key(
    session: &mut Session,
    table: &Table,
    key: &ChunkKey,
    query: &str,
    interrupt: &Interrupt,
) -> Result<Option<Vec<String>>> {
    let Some(cells) = read_one(session, query, interrupt)? else {
        return Ok(None);
    };
    let literals = key.split.iter().zip(cells).map(|(name, cell)| {
        let column = table.column(name)?;
        literal(literal_kind(column)?, column.charset.as_deref(), &cell?)
    });
    let literals: Option<Vec<String>> = literals.collect();
    literals.map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            "a key value cannot be written as a literal",
        )
    })
}

/// Cells of the only row of a query; `None` when there is no row.
fn read_one(
    session: &mut Session,
    query: &str,
    interrupt: &Interrupt,
) -> Result<Option<Vec<Option<Vec<u8>>>>> {
    session.read(query, interrupt, |rows| {
        let columns = rows.columns();
        let mut cells = None;
        while let Some(row) = rows.next_row()? {
            let mut rest = row;
            let read =
                (0..columns).map(|_| read_cell(&mut rest).map(|cell| cell.map(<[u8]>::to_vec)));
            cells = read.collect();
        }
        Ok(cells)
    })
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
        LiteralKind::Number => plain(b"-+.")?,
        LiteralKind::Quoted => format!("'{}'", plain(b"-: .")?),
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
