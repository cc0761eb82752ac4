//! The INSERT statements of data files taken apart into parameters, so that the server need not
//! parse them. Each literal becomes the parameter that the server's own parser would make of it; a
//! statement with one for which that does not hold stays as it is.

use std::ops::Range;

use memchr::{memchr2, memmem};

use crate::server::bulk::{Bulk, Kind};

/// Ours are shorter, but for a single long row, where there is little to parse.
const LONGEST: usize = 1 << 20;
/// What a number without an exponent may have so that every server keeps it whole.
const MAX_DIGITS: usize = 60;
/// The same, behind the point.
const MAX_DECIMALS: usize = 30;

/// Takes statements apart, one after the other.
#[derive(Default)]
pub(crate) struct Inserts {
    cells: Vec<Cell>,
    /// What all values of a column are; `None` while it has none.
    kinds: Vec<Option<Kind>>,
    /// A value without its escapes.
    unescaped: Vec<u8>,
}

/// A literal.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Whole(i64),
    /// A whole number that is too large for that.
    Unsigned(u64),
    /// A number as it is written, with or without an exponent.
    Number(Range<usize>, Kind),
    /// What stands between quotes, and whether some of it is escaped.
    Quoted(Range<usize>, Kind, bool),
    /// Digits of bytes.
    Hex(Range<usize>),
}

impl Cell {
    fn kind(&self) -> Option<Kind> {
        match self {
            Cell::Null => None,
            Cell::Whole(_) => Some(Kind::Whole),
            Cell::Unsigned(_) => Some(Kind::Unsigned),
            Cell::Number(_, kind) | Cell::Quoted(_, kind, _) => Some(*kind),
            Cell::Hex(_) => Some(Kind::Bytes),
        }
    }
}

impl Inserts {
    /// Fills `bulk` with the rows of `statement` and returns the INSERT to be prepared for them.
    pub(crate) fn take(&mut self, statement: &[u8], bulk: &mut Bulk) -> Option<String> {
        if statement.len() > LONGEST || !statement.starts_with(b"INSERT INTO ") {
            return None;
        }
        const VALUES: &[u8] = b" VALUES\n";
        let at = memmem::find(statement, VALUES)?;
        let head = std::str::from_utf8(&statement[..at]).ok()?;
        self.read_rows(statement, at + VALUES.len())?;
        self.write_rows(statement, bulk)?;
        let marks = vec!["?"; self.kinds.len()].join(",");
        Some(format!("{head} VALUES ({marks})"))
    }

    /// Reads all rows, the first of which begins at `at`. `None` where one is not of the shape in
    /// which we write them.
    fn read_rows(&mut self, statement: &[u8], mut at: usize) -> Option<()> {
        self.cells.clear();
        self.kinds.clear();
        let mut first = true;
        loop {
            at = behind(statement, at, b"(")?;
            let mut column = 0;
            loop {
                let (cell, end) = read_cell(statement, at)?;
                if first {
                    self.kinds.push(cell.kind());
                } else {
                    let kind = self.kinds.get_mut(column)?;
                    *kind = joined(*kind, cell.kind())?;
                }
                self.cells.push(cell);
                column += 1;
                at = end + 1;
                match statement.get(end)? {
                    b',' => {}
                    b')' => break,
                    _ => return None,
                }
            }
            if column != self.kinds.len() {
                return None;
            }
            if at == statement.len() {
                return Some(());
            }
            at = behind(statement, at, b",\n")?;
            first = false;
        }
    }

    fn write_rows(&mut self, statement: &[u8], bulk: &mut Bulk) -> Option<()> {
        let kinds = || self.kinds.iter().map(|kind| kind.unwrap_or(Kind::Text));
        bulk.begin(kinds());
        for (cell, kind) in self.cells.iter().zip(kinds().cycle()) {
            match (cell, kind) {
                (Cell::Null, _) => bulk.push_null(),
                (Cell::Whole(value), Kind::Whole) => bulk.push_whole(*value),
                // No type holds a negative number and one that is too large for a sign.
                (Cell::Whole(value), Kind::Unsigned) if *value < 0 => return None,
                (Cell::Whole(value), Kind::Unsigned) => bulk.push_whole(*value),
                (Cell::Unsigned(value), Kind::Unsigned) => bulk.push_whole(value.cast_signed()),
                (Cell::Whole(value), Kind::Double) => bulk.push_double(*value as f64),
                (Cell::Unsigned(value), Kind::Double) => bulk.push_double(*value as f64),
                (Cell::Whole(value), _) => {
                    bulk.push_bytes(itoa::Buffer::new().format(*value).as_bytes());
                }
                (Cell::Unsigned(value), _) => {
                    bulk.push_bytes(itoa::Buffer::new().format(*value).as_bytes());
                }
                (Cell::Number(range, _), Kind::Double) => {
                    bulk.push_double(float(&statement[range.clone()])?);
                }
                (Cell::Number(range, _), _) | (Cell::Quoted(range, _, false), _) => {
                    bulk.push_bytes(&statement[range.clone()]);
                }
                (Cell::Quoted(range, _, true), _) => {
                    unescape(&statement[range.clone()], &mut self.unescaped)?;
                    bulk.push_bytes(&self.unescaped);
                }
                (Cell::Hex(range), _) => {
                    bytes_of(&statement[range.clone()], &mut self.unescaped)?;
                    bulk.push_bytes(&self.unescaped);
                }
            }
        }
        Some(())
    }
}

/// The kind of a column with values of both kinds. Numbers of several kinds are all of the widest;
/// everything else is not to be mixed.
fn joined(one: Option<Kind>, other: Option<Kind>) -> Option<Option<Kind>> {
    match (one, other) {
        (Some(a), Some(b)) if a == b => Some(one),
        (Some(a), Some(b)) if a.max(b) <= Kind::Double => Some(Some(a.max(b))),
        (Some(_), Some(_)) => None,
        (kind, None) | (None, kind) => Some(kind),
    }
}

/// The literal that begins at `at`, and where it ends.
#[inline]
fn read_cell(statement: &[u8], at: usize) -> Option<(Cell, usize)> {
    let rest = statement.get(at..)?;
    match rest.first()? {
        b'\'' => quoted(statement, at + 1, Kind::Text),
        b'-' | b'0'..=b'9' => number(statement, at),
        b'N' => Some((Cell::Null, behind(statement, at, b"NULL")?)),
        b'_' => quoted(statement, behind(statement, at, b"_binary'")?, Kind::Bytes),
        b'X' => {
            let from = behind(statement, at, b"X'")?;
            let end = from + memchr::memchr(b'\'', &statement[from..])?;
            Some((Cell::Hex(from..end), end + 1))
        }
        // DEFAULT, or text in another character set.
        _ => None,
    }
}

/// Where `expected` ends that stands at `at`.
#[inline]
fn behind(statement: &[u8], at: usize, expected: &[u8]) -> Option<usize> {
    let there = statement.get(at..)?.starts_with(expected);
    there.then_some(at + expected.len())
}

/// What stands between quotes from `from` on, and where the literal ends.
#[inline]
fn quoted(statement: &[u8], from: usize, kind: Kind) -> Option<(Cell, usize)> {
    let (mut at, mut escaped) = (from, false);
    loop {
        at += memchr2(b'\'', b'\\', statement.get(at..)?)?;
        if statement[at] == b'\'' {
            return Some((Cell::Quoted(from..at, kind, escaped), at + 1));
        }
        escaped = true;
        at += 2;
    }
}

#[inline]
fn number(statement: &[u8], from: usize) -> Option<(Cell, usize)> {
    let length = statement[from..]
        .iter()
        .position(|byte| matches!(byte, b',' | b')'))?;
    let range = from..from + length;
    let text = &statement[range.clone()];
    let cell = match whole(text) {
        Some(cell) => cell,
        None => Cell::Number(range, kind_of(text)?),
    };
    Some((cell, from + length))
}

/// A whole number of at most 64 bits.
#[inline]
fn whole(text: &[u8]) -> Option<Cell> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(digit.into())?;
    }
    if digits.len() < text.len() {
        return 0i64.checked_sub_unsigned(value).map(Cell::Whole);
    }
    Some(i64::try_from(value).map_or(Cell::Unsigned(value), Cell::Whole))
}

/// What a number is that is not [`whole`].
fn kind_of(text: &[u8]) -> Option<Kind> {
    if !crate::encode::cell::is_number(text) {
        return None;
    }
    if text.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return Some(Kind::Double);
    }
    let decimals = memchr::memchr(b'.', text).map_or(0, |point| text.len() - point - 1);
    (text.len() <= MAX_DIGITS && decimals <= MAX_DECIMALS).then_some(Kind::Decimal)
}

fn float(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Writes `text` to `out` without the escapes that we write; `None` where there is another one.
fn unescape(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(match rest.get(at + 1)? {
            b'0' => 0,
            b'n' => b'\n',
            b'r' => b'\r',
            b'Z' => 0x1a,
            quote @ (b'\'' | b'\\') => *quote,
            _ => return None,
        });
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    Some(())
}

fn bytes_of(digits: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    for pair in pairs {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        out.push((high? << 4 | low?) as u8);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::cell::{CellKind, write_row};
    use crate::server::wire::{read_cell as read_wire_cell, write_cell};
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Parameter {
        Null,
        Whole(i64),
        Unsigned(u64),
        /// Its bits.
        Double(u64),
        /// The type's number and the value.
        Bytes(u8, Vec<u8>),
    }

    fn taken(statement: &[u8]) -> Option<(String, Vec<Vec<Parameter>>)> {
        let (mut inserts, mut bulk) = (Inserts::default(), Bulk::default());
        let insert = inserts.take(statement, &mut bulk)?;
        let columns = insert.matches('?').count();
        let mut rest = bulk.argument().strip_prefix(&[0, 0, 0, 0, 128, 0]).unwrap();
        let mut codes = Vec::new();
        for type_and_flag in rest[..2 * columns].chunks(2) {
            codes.push((type_and_flag[0], type_and_flag[1]));
        }
        rest = &rest[2 * columns..];
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let mut row = Vec::new();
            for code in &codes {
                let indicator = rest[0];
                rest = &rest[1..];
                let mut fixed = || {
                    let (value, after) = rest.split_first_chunk::<8>().unwrap();
                    rest = after;
                    u64::from_le_bytes(*value)
                };
                let parameter = match (indicator, code) {
                    (1, _) => Parameter::Null,
                    (0, (8, 0)) => Parameter::Whole(fixed().cast_signed()),
                    (0, (8, 128)) => Parameter::Unsigned(fixed()),
                    (0, (5, 0)) => Parameter::Double(fixed()),
                    (0, (code, 0)) => {
                        let value = read_wire_cell(&mut rest).unwrap().unwrap();
                        Parameter::Bytes(*code, value.to_vec())
                    }
                    _ => panic!("indicator {indicator}, type {code:?}"),
                };
                row.push(parameter);
            }
            rows.push(row);
        }
        Some((insert, rows))
    }

    fn statement(rows: &str) -> Vec<u8> {
        format!("INSERT INTO `t` (`a`,`b`) VALUES\n{rows}").into_bytes()
    }

    fn rows(text: &str) -> Option<Vec<Vec<Parameter>>> {
        taken(&statement(text)).map(|(_, rows)| rows)
    }

    #[test]
    fn literals_become_what_the_server_takes_them_for() {
        use Parameter::{Bytes, Double, Null, Unsigned, Whole};
        let (insert, found) =
            taken(&statement("(1,'a'),\n(-2,NULL),\n(NULL,'it\\'s\\n')")).unwrap();
        assert_eq!(insert, "INSERT INTO `t` (`a`,`b`) VALUES (?,?)");
        let text = |value: &[u8]| Bytes(253, value.to_vec());
        assert_eq!(
            found,
            [
                [Whole(1), text(b"a")],
                [Whole(-2), Null],
                [Null, text(b"it's\n")]
            ]
        );
        let exact = |value: &str| Bytes(246, value.as_bytes().to_vec());
        assert_eq!(
            rows("(1.50,18446744073709551615),\n(-3,7)").unwrap(),
            [
                [exact("1.50"), Unsigned(u64::MAX)],
                [exact("-3"), Unsigned(7)]
            ]
        );
        assert_eq!(
            rows("(-9223372036854775808,18446744073709551616),\n(1152921504606846977,1)").unwrap(),
            [
                [Whole(i64::MIN), exact("18446744073709551616")],
                [Whole((1 << 60) + 1), exact("1")]
            ]
        );
        assert_eq!(
            rows("(2.5e0,18446744073709551615),\n(3,0.5),\n(1.25,-1)").unwrap(),
            [
                [Double(2.5f64.to_bits()), exact("18446744073709551615")],
                [Double(3f64.to_bits()), exact("0.5")],
                [Double(1.25f64.to_bits()), exact("-1")]
            ]
        );
        assert_eq!(
            rows("(-0e0,X'00fF'),\n(0.5,_binary'\\0;')").unwrap(),
            [
                [Double((-0.0f64).to_bits()), Bytes(252, vec![0, 0xff])],
                [Double(0.5f64.to_bits()), Bytes(252, vec![0, b';'])]
            ]
        );
    }

    #[test]
    fn what_may_not_be_the_same_stays_as_it_is() {
        for odd in [
            "(1,DEFAULT)",
            "(1,_latin1'a')",
            "(1,_utf8mb4 X'61')",
            "(1,0x61)",
            "(1,'a''b')",
            "(1,'a\\tb')",
            "(1,'a' 'b')",
            "(1,'a'),\n(2,_binary'b')",
            "(1,'a'),\n(2,3)",
            "(1,'a'),\n(2)",
            "(1),\n(2,'a')",
            "(1,'a'), (2,'b')",
            "(1,'a'),\n",
            "(1,'a') ",
            "(1,'a",
            "(1,'a\\",
            "(1,-1),\n(2,9223372036854775808)",
            "(1,1e400)",
            "(1,1+1)",
            "(1,0.0000000000000000000000000000001)",
            "(1,-)",
            "(1,nil)",
            "(1,X'0')",
            "(1,X'0g')",
            "()",
            "",
        ] {
            assert_eq!(rows(odd), None, "{odd}");
        }
        assert!(rows("(1,'a')").is_some());
        assert_eq!(taken(b"INSERT INTO `t` () VALUES\n(),\n()"), None);
        assert_eq!(taken(b"INSERT IGNORE INTO `t` (`a`) VALUES\n(1)"), None);
        // A name that looks like the rows of another table.
        assert_eq!(
            taken(b"INSERT INTO `t VALUES\n(1)` (`a`) VALUES\n(2)"),
            None
        );
    }

    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::weighted(0.9, prop::collection::vec(any::<u8>(), 0..40))
    }

    proptest! {
        #[test]
        fn values_are_the_same_bytes_behind_it(
            values in prop::collection::vec((any::<i64>(), any::<f64>(), "\\PC*", value()), 1..20)) {
            let kinds = [CellKind::Number, CellKind::Float, CellKind::Quoted, CellKind::Binary];
            let (mut text, mut expected) = (b"INSERT INTO `t` (`a`) VALUES\n".to_vec(), Vec::new());
            let finite = |float: f64| if float.is_finite() { float } else { 0.5 };
            for (at, (whole, float, words, bytes)) in values.iter().enumerate() {
                let float = format!("{:e}", finite(*float));
                let mut row = Vec::new();
                write_cell(&mut row, Some(whole.to_string().as_bytes()));
                write_cell(&mut row, Some(float.as_bytes()));
                write_cell(&mut row, Some(words.as_bytes()));
                write_cell(&mut row, bytes.as_deref());
                if at > 0 {
                    text.extend_from_slice(b",\n");
                }
                write_row(&kinds, &row, &mut text).unwrap();
                expected.push((*whole, float, words, bytes));
            }
            let (_, rows) = taken(&text).unwrap();
            prop_assert_eq!(rows.len(), expected.len());
            for (row, (whole, float, words, bytes)) in rows.iter().zip(expected) {
                prop_assert_eq!(&row[0], &Parameter::Whole(whole));
                let bits = float.parse::<f64>().unwrap().to_bits();
                prop_assert_eq!(&row[1], &Parameter::Double(bits));
                prop_assert_eq!(&row[2], &Parameter::Bytes(253, words.as_bytes().to_vec()));
                let bytes = bytes.as_ref().map_or(Parameter::Null, |b| Parameter::Bytes(252, b.clone()));
                prop_assert_eq!(&row[3], &bytes);
            }
        }

        #[test]
        fn any_text_is_taken_or_left(tail in "[(),;'\\\\\nNULLX_binary0-9.e+-]{0,60}") {
            taken(&statement(&tail));
        }
    }
}
