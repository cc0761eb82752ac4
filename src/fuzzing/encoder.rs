//! Rows to SQL: whatever a column is called, whatever its type and character set, and whatever a
//! server states as its value, the text holds these values and nothing else.

use super::Input;
use super::literal::{Lexer, Literal};
use crate::encode::cell::{CellKind, write_row};
use crate::encode::insert::{InsertWriter, Room, TableEncoding};
use crate::restore::statements::Statements;
use crate::server::catalog::{Column, Period, Table};
use crate::server::wire::write_cell;
use crate::store::manifest::TableKind;

const TYPES: [&str; 12] = [
    "int",
    "decimal",
    "double",
    "float",
    "date",
    "time",
    "timestamp",
    "uuid",
    "json",
    "bit",
    "varchar",
    "blob",
];
const CHARSETS: [&str; 12] = [
    "utf8mb4", "utf8mb3", "latin1", "cp1251", "ucs2", "utf16le", "big5", "gbk", "gb18030", "sjis",
    "cp932", "ujis",
];

/// Encodes rows that a server might state for a table that it might have.
pub fn encoder(data: &[u8]) {
    let mut input = Input(data);
    let table = table(&mut input);
    let kinds: Vec<CellKind> = table.stored_columns().map(CellKind::of).collect();
    let max_packet = 64 + 16 * u64::from(input.byte());
    let encoding = TableEncoding::new(&table, max_packet);
    any_row(&kinds, input.0);

    let mut writer = InsertWriter::new(&encoding, 4096);
    let (mut file, mut block, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    while !input.is_empty() {
        let cells: Vec<Option<&[u8]>> = kinds.iter().map(|_| cell(&mut input)).collect();
        let mut row = Vec::new();
        cells.iter().for_each(|cell| write_cell(&mut row, *cell));
        let mark = block.len();
        match writer.push(&row, &mut block) {
            Ok(Room::Left) => {}
            Ok(Room::Full) => {
                file.append(&mut block);
                writer.resume(&mut block);
            }
            Err(_) => {
                assert!(
                    kinds
                        .iter()
                        .zip(&cells)
                        .any(|(kind, cell)| no_number(kind, *cell)),
                    "a row was refused that can be written"
                );
                // A run ends here; what was written before it must be good.
                block.truncate(mark);
                break;
            }
        }
        rows.push(cells);
    }
    writer.close(&mut block);
    file.append(&mut block);
    if !rows.is_empty() {
        read_back(&file, &table, &kinds, &rows);
    }
}

/// A row of any bytes is written or refused.
fn any_row(kinds: &[CellKind], row: &[u8]) {
    let mut out = Vec::new();
    if write_row(kinds, row, &mut out).is_ok() {
        let mut lexer = Lexer(&out);
        assert!(lexer.take("("));
        for at in 0..kinds.len() {
            assert!(at == 0 || lexer.take(","));
            assert!(lexer.literal().is_some(), "no literal in column {at}");
        }
        assert!(lexer.take(")") && lexer.0.is_empty());
    }
}

fn table(input: &mut Input<'_>) -> Table {
    let columns = 1 + input.below(6);
    Table {
        name: input.text(),
        kind: TableKind::Table,
        engine: "InnoDB".into(),
        transactional: true,
        rows: 0,
        data_bytes: 0,
        partitioned: false,
        auto_increment: None,
        lax_foreign_keys: false,
        columns: (0..columns).map(|_| column(input)).collect(),
        keys: Vec::new(),
        versioned: false,
    }
}

fn column(input: &mut Input<'_>) -> Column {
    let (flags, data_type) = (input.byte(), TYPES[input.below(TYPES.len())]);
    let name = input.text();
    Column {
        charset: (data_type == "varchar").then(|| CHARSETS[input.below(CHARSETS.len())].into()),
        by_number: flags & 15 == 1,
        period: (flags & 15 == 2).then_some(Period::End),
        ..Column::plain(&name, data_type)
    }
}

fn cell<'a>(input: &mut Input<'a>) -> Option<&'a [u8]> {
    (input.byte() != 255).then(|| input.piece())
}

/// Whether the cell is something else than a number where there must be one.
fn no_number(kind: &CellKind, cell: Option<&[u8]>) -> bool {
    let is_number = |value: &[u8]| {
        let mut lexer = Lexer(value);
        matches!(lexer.literal(), Some(Literal::Number(_))) && lexer.0.is_empty()
    };
    matches!(kind, CellKind::Number | CellKind::Float) && cell.is_some_and(|c| !is_number(c))
}

/// Takes a file apart again, twice: into statements, and each into literals.
fn read_back(file: &[u8], table: &Table, kinds: &[CellKind], rows: &[Vec<Option<&[u8]>>]) {
    let lines = file.split(|byte| *byte == b'\n');
    let breaks = |name: &str| name.matches('\n').count();
    let in_names: usize = breaks(&table.name)
        + table
            .columns
            .iter()
            .map(|column| breaks(&column.name))
            .sum::<usize>();
    let mut statements = Statements::new(file);
    let (mut rows, mut heads) = (rows.iter(), 0);
    let total = rows.len();
    while let Some(statement) = statements.next().expect("a whole file") {
        heads += 1;
        let mut lexer = Lexer(statement);
        assert!(lexer.take("INSERT INTO "));
        assert_eq!(lexer.identifier().as_ref(), Some(&table.name));
        assert!(lexer.take(" ("));
        for (at, column) in table.columns.iter().enumerate() {
            assert!(at == 0 || lexer.take(","));
            assert_eq!(lexer.identifier().as_ref(), Some(&column.name));
        }
        assert!(lexer.take(") VALUES\n"));
        loop {
            let row = rows.next().expect("no more rows than were written");
            assert!(lexer.take("("));
            for (at, (kind, cell)) in kinds.iter().zip(row).enumerate() {
                assert!(at == 0 || lexer.take(","));
                assert_value(kind, *cell, lexer.literal().as_ref());
            }
            assert!(lexer.take(")"));
            if !lexer.take(",\n") {
                break;
            }
        }
        assert!(lexer.0.is_empty(), "something follows the rows");
    }
    assert!(rows.next().is_none(), "a row is missing");
    // A line for each row and each head; only a name can break one.
    assert_eq!(lines.count(), total + heads * (1 + in_names) + 1);
}

/// The literal says the value in the column's own character set, or in ASCII.
fn assert_value(kind: &CellKind, cell: Option<&[u8]>, literal: Option<&Literal>) {
    let literal = literal.expect("a literal");
    let Some(value) = cell else {
        let null = match kind {
            CellKind::RowEnd => Literal::Default,
            _ => Literal::Null,
        };
        assert_eq!(*literal, null);
        return;
    };
    match (kind, literal) {
        (CellKind::Number, Literal::Number(text)) => assert_eq!(text, value),
        (CellKind::Float, Literal::Number(text)) => {
            assert_eq!(
                text.strip_suffix(b"e0").unwrap_or(text),
                value.strip_suffix(b"e0").unwrap_or(value)
            );
        }
        (_, Literal::Text(introducer, text)) => {
            assert_eq!(text, value);
            let charset = match kind {
                CellKind::Utf8(charset)
                | CellKind::SingleByte(charset)
                | CellKind::MultiByte(charset)
                | CellKind::Wide(charset) => charset.as_str(),
                CellKind::Binary => "binary",
                _ => "",
            };
            let same_in_utf8 = match kind {
                CellKind::Utf8(_) => std::str::from_utf8(value).is_ok(),
                CellKind::Wide(_) => false,
                CellKind::Binary => false,
                // A backslash and a tilde are other characters in some of them.
                CellKind::MultiByte(_) => value
                    .iter()
                    .all(|b| matches!(b, b' '..=b'}') && *b != b'\\'),
                CellKind::SingleByte(_) => value.iter().all(|b| matches!(b, b' '..=b'~')),
                _ => true,
            };
            let named = introducer.as_deref() == Some(charset);
            assert!(
                named || same_in_utf8 && introducer.is_none(),
                "{kind:?}: {introducer:?}"
            );
        }
        (kind, literal) => panic!("{literal:?} for {kind:?}"),
    }
}
