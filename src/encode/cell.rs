//! One value as a SQL literal. Values arrive as the server's text protocol states them with
//! `character_set_results=NULL`: text in the column's own character set, unconverted. How a
//! literal is written is decided once for each column.

use memchr::memchr3;
use wide::u8x16;

use crate::error::{Error, ErrorKind, Result};
use crate::server::catalog::{Column, Period};
use crate::server::quote_identifier;
use crate::server::wire::read_length;

/// The latest TIMESTAMP of a server that counts seconds in 31 bits, and in 32.
const LATEST_TIMES: &str = "'2038-01-19 03:14:07.999999','2106-02-07 06:28:15.999999'";

/// How the values of a column are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellKind {
    /// As the server states it, if it is a number.
    Number,
    /// As a number, but for a negative zero, which needs an exponent to stay one.
    Float,
    /// As `DEFAULT` where it is NULL: the end of a period that has not ended.
    RowEnd,
    /// In quotes: dates, times, UUID and INET, which are plain ASCII.
    Quoted,
    /// In quotes, in the file's own character set. Bytes that are not valid in it go in
    /// hexadecimal with this introducer.
    Utf8(String),
    /// In quotes, with this introducer where a byte is no printable ASCII.
    SingleByte(String),
    /// In hexadecimal with this introducer, because a character may contain the byte of a
    /// quote or a backslash; plain where it is simple ASCII.
    MultiByte(String),
    /// In hexadecimal with this introducer, always.
    Wide(String),
    /// In quotes with `_binary`.
    Binary,
    /// In hexadecimal: BIT.
    Bits,
    /// Not at all: the stand-in for a table without a column that can be written.
    Nothing,
}

impl CellKind {
    /// How values of `column` are written.
    pub fn of(column: &Column) -> CellKind {
        if column.period == Some(Period::End) {
            return CellKind::RowEnd;
        }
        if column.by_number {
            return CellKind::Number;
        }
        if let Some(charset) = &column.charset {
            return match charset.as_str() {
                "utf8mb4" | "utf8mb3" | "utf8" => CellKind::Utf8(charset.clone()),
                "ucs2" | "utf16" | "utf16le" | "utf32" | "swe7" => CellKind::Wide(charset.clone()),
                "big5" | "cp932" | "sjis" | "gbk" | "gb2312" | "gb18030" | "ujis" | "eucjpms"
                | "euckr" => CellKind::MultiByte(charset.clone()),
                _ => CellKind::SingleByte(charset.clone()),
            };
        }
        match column.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" => {
                CellKind::Number
            }
            "float" | "double" => CellKind::Float,
            "date" | "datetime" | "timestamp" | "time" | "uuid" | "inet4" | "inet6" => {
                CellKind::Quoted
            }
            "json" => CellKind::Utf8("utf8mb4".into()),
            "bit" => CellKind::Bits,
            _ => CellKind::Binary,
        }
    }

    /// How the column is named in a SELECT. The text protocol prints FLOAT with 6 digits, and
    /// what was declared with decimals with as many; as a DOUBLE without it comes with enough
    /// of them to restore the same bits. A row that is still valid has no end: the time that
    /// stands for it depends on the server.
    pub fn select(column: &Column) -> String {
        let name = quote_identifier(&column.name);
        if column.data_type == "float" || column.fixed_decimals {
            format!("CAST({name} AS DOUBLE)")
        } else if column.by_number {
            format!("{name}|0")
        } else if column.period == Some(Period::End) {
            format!("IF({name} IN ({LATEST_TIMES}),NULL,{name})")
        } else {
            name
        }
    }

    /// Appends a NULL and a comma.
    #[inline]
    fn write_null(&self, out: &mut Vec<u8>) {
        let null: &[u8] = match self {
            CellKind::RowEnd => b"DEFAULT,",
            _ => b"NULL,",
        };
        out.extend_from_slice(null);
    }

    /// Appends a value, the first `length` bytes of `from`, as a literal, and a comma. Fails where
    /// a number is none: without quotes it would be whatever the server made of it.
    #[inline]
    fn write(&self, from: &[u8], length: usize, out: &mut Vec<u8>) -> Result<()> {
        let short = from.first_chunk::<SHORT>().filter(|_| length <= SHORT);
        match (self, short) {
            (CellKind::Number | CellKind::Float, Some(bytes))
                if is_decimal(bytes, length)
                    && !(matches!(self, CellKind::Float) && bytes.starts_with(b"-0")) =>
            {
                append(out, |room: &mut [u8; SHORT + 1]| {
                    room[..SHORT].copy_from_slice(bytes);
                    room[length] = b',';
                    length + 1
                });
                return Ok(());
            }
            (
                CellKind::Quoted | CellKind::RowEnd | CellKind::Utf8(_) | CellKind::SingleByte(_),
                Some(bytes),
            ) if first_bits(special(bytes), length) == 0 => {
                append(out, |room: &mut [u8; SHORT + 3]| {
                    room[0] = b'\'';
                    room[1..=SHORT].copy_from_slice(bytes);
                    room[length + 1..length + 3].copy_from_slice(b"',");
                    length + 3
                });
                return Ok(());
            }
            _ => {}
        }
        self.write_any(&from[..length], out)?;
        out.push(b',');
        Ok(())
    }

    /// Appends a value as a literal.
    fn write_any(&self, value: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            CellKind::Number | CellKind::Float if !is_number(value) => return Err(no_number()),
            CellKind::Number => out.extend_from_slice(value),
            CellKind::Float => {
                out.extend_from_slice(value);
                if value.starts_with(b"-0") && value[1..].iter().all(|b| matches!(b, b'0' | b'.')) {
                    out.extend_from_slice(b"e0");
                }
            }
            CellKind::Quoted | CellKind::RowEnd | CellKind::Utf8(_) | CellKind::SingleByte(_)
                if is_plain(value) =>
            {
                out.push(b'\'');
                out.extend_from_slice(value);
                out.push(b'\'');
            }
            CellKind::Quoted | CellKind::RowEnd => write_quoted(value, out),
            CellKind::Utf8(charset) => {
                if std::str::from_utf8(value).is_ok() {
                    write_quoted(value, out);
                } else {
                    write_hex(charset, value, out);
                }
            }
            CellKind::SingleByte(charset) => {
                if !value.iter().all(is_common) {
                    out.push(b'_');
                    out.extend_from_slice(charset.as_bytes());
                }
                write_quoted(value, out);
            }
            CellKind::MultiByte(charset) => {
                if value
                    .iter()
                    .all(|b| is_common(b) && !matches!(b, b'\\' | b'~'))
                {
                    write_quoted(value, out);
                } else {
                    write_hex(charset, value, out);
                }
            }
            CellKind::Wide(charset) => write_hex(charset, value, out),
            CellKind::Binary => {
                out.extend_from_slice(b"_binary");
                write_quoted(value, out);
            }
            CellKind::Nothing => {}
            CellKind::Bits => {
                out.extend_from_slice(b"X'");
                write_hex_digits(value, out);
                out.push(b'\'');
            }
        }
        Ok(())
    }
}

/// Values of up to this many bytes are looked at and copied together with what follows them: with
/// sizes that are fixed no byte is handled by itself, and nothing is called.
const SHORT: usize = 32;

/// Appends a row of the text protocol, of at least one column, as `(value,…)`.
#[inline]
pub fn write_row(kinds: &[CellKind], row: &[u8], out: &mut Vec<u8>) -> Result<()> {
    // The last bytes of the row are read from a copy with zeros behind it, so that `SHORT` bytes
    // can be taken wherever a value begins.
    let mut end = [0; 2 * SHORT];
    match row.last_chunk::<SHORT>() {
        Some(last) => end[..SHORT].copy_from_slice(last),
        None => end[SHORT - row.len()..SHORT].copy_from_slice(row),
    }
    let mut left = row.len();
    out.push(b'(');
    for kind in kinds {
        let cell = if left > SHORT {
            &row[row.len() - left..]
        } else {
            &end[SHORT - left..]
        };
        let mut value = cell;
        let length = read_length(&mut value).ok_or_else(malformed)?;
        // Any length may be stated: one that lies is no reason to panic.
        let taken = (cell.len() - value.len()).saturating_add(length.unwrap_or(0));
        left = left.checked_sub(taken).ok_or_else(malformed)?;
        match length {
            Some(length) => kind.write(value, length, out)?,
            None => kind.write_null(out),
        }
    }
    match out.last_mut() {
        Some(last @ b',') if left == 0 => *last = b')',
        _ => return Err(malformed()),
    }
    Ok(())
}

#[cold]
fn malformed() -> Error {
    Error::new(
        ErrorKind::Failed,
        "the server sent a row that does not match its columns",
    )
}

#[cold]
fn no_number() -> Error {
    Error::new(
        ErrorKind::Failed,
        "the server sent something else than a number for a column of numbers",
    )
}

/// Whether the first `length` bytes are a number without an exponent.
#[inline]
fn is_decimal(bytes: &[u8; SHORT], length: usize) -> bool {
    let odd = each_of(bytes, |bytes| {
        let above_0 = bytes - u8x16::splat(b'0');
        !above_0.simd_eq(above_0.min(u8x16::splat(9)))
    });
    let minus = usize::from(bytes[0] == b'-');
    let odd = first_bits(odd, length) & !(minus as u32);
    if odd == 0 {
        return length > minus;
    }
    let at = odd.trailing_zeros() as usize;
    odd.is_power_of_two() && at > minus && bytes[at] == b'.'
}

/// A bit for each byte, the lowest for the first, of what `look` says of sixteen at a time.
#[inline]
fn each_of(bytes: &[u8; SHORT], look: impl Fn(u8x16) -> u8x16) -> u32 {
    let (halves, _) = bytes.as_chunks::<16>();
    let [low, high] = [halves[0], halves[1]].map(|half| look(u8x16::from(half)).to_bitmask());
    low & 0xffff | high << 16
}

/// The bits of the first `length` bytes, of at most [`SHORT`].
#[inline]
fn first_bits(bits: u32, length: usize) -> u32 {
    bits & ((1u64 << length) - 1) as u32
}

/// Whether a value is a number as servers state them: whole ones, decimals, and with an exponent.
#[inline]
pub fn is_number(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let mut rest = skip_digits(digits);
    if rest.len() == digits.len() {
        return false;
    }
    if let Some(decimals) = rest.strip_prefix(b".") {
        rest = skip_digits(decimals);
    }
    rest.is_empty() || is_exponent(rest)
}

fn is_exponent(text: &[u8]) -> bool {
    let [b'e' | b'E', rest @ ..] = text else {
        return false;
    };
    let digits = match rest {
        [b'+' | b'-', digits @ ..] => digits,
        digits => digits,
    };
    !digits.is_empty() && skip_digits(digits).is_empty()
}

#[inline]
fn skip_digits(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    &text[end.unwrap_or(text.len())..]
}

/// Whether a byte is the same character in utf8mb4 and in every character set that is written in
/// quotes. Control characters are not: MySQL's latin2 has no 7F, and would keep a `?`.
fn is_common(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// What a byte becomes behind a backslash; 0 for bytes that stand for themselves. NUL, line
/// ends and Ctrl-Z are escaped so that a row stays on one line and the stock client, which
/// reads lines, passes it on unchanged.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    table[0] = b'0';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[0x1a] = b'Z';
    table[b'\'' as usize] = b'\'';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends `value` in single quotes, escaped.
fn write_quoted(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len() + 2);
    out.push(b'\'');
    let mut rest = value;
    while let Some(at) = next_escape(rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', ESCAPES[usize::from(rest[at])]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

/// Where the next byte that needs escaping stands.
#[inline]
fn next_escape(bytes: &[u8]) -> Option<usize> {
    const LONG: usize = 64;
    // Looked through piecemeal: with two searches each, a value full of one kind of byte would
    // be searched to its end for the other at every single one.
    const PIECE: usize = 512;
    if bytes.len() < LONG {
        return bytes.iter().position(|b| ESCAPES[usize::from(*b)] != 0);
    }
    let found = |piece: &[u8]| {
        let common = memchr3(b'\'', b'\\', b'\n', piece);
        let before = &piece[..common.unwrap_or(piece.len())];
        memchr3(0, b'\r', 0x1a, before).or(common)
    };
    let mut pieces = bytes.chunks(PIECE).enumerate();
    pieces.find_map(|(at, piece)| Some(at * PIECE + found(piece)?))
}

/// Whether a value is printable ASCII that needs no escaping, as most are. The last piece that is
/// looked at overlaps the one before.
fn is_plain(value: &[u8]) -> bool {
    let (pieces, rest) = value.as_chunks();
    let end = match value.last_chunk() {
        Some(last) => special(last) == 0,
        None => rest
            .iter()
            .all(|b| is_common(b) && ESCAPES[usize::from(*b)] == 0),
    };
    end && pieces.iter().all(|piece| special(piece) == 0)
}

/// A bit for each byte that is no printable ASCII or needs escaping.
#[inline]
fn special(bytes: &[u8; SHORT]) -> u32 {
    each_of(bytes, |bytes| {
        let above_space = bytes - u8x16::splat(b' ');
        let common = above_space.simd_eq(above_space.min(u8x16::splat(b'~' - b' ')));
        !common | bytes.simd_eq(u8x16::splat(b'\'')) | bytes.simd_eq(u8x16::splat(b'\\'))
    })
}

/// Appends what `write` puts at the front of the room that it is given; it returns how much.
#[inline]
fn append<const ROOM: usize>(out: &mut Vec<u8>, write: impl FnOnce(&mut [u8; ROOM]) -> usize) {
    let from = out.len();
    out.extend_from_slice(&[0; ROOM]);
    if let Some(room) = out.last_chunk_mut() {
        let used = write(room);
        out.truncate(from + used);
    }
}

fn write_hex(charset: &str, value: &[u8], out: &mut Vec<u8>) {
    out.push(b'_');
    out.extend_from_slice(charset.as_bytes());
    out.extend_from_slice(b" X'");
    write_hex_digits(value, out);
    out.push(b'\'');
}

fn write_hex_digits(value: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(value.len() * 2);
    for byte in value {
        out.extend_from_slice(&[
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::wire::{read_cell, write_cell};
    use proptest::prelude::*;

    fn literal(kind: &CellKind, value: &[u8]) -> Vec<u8> {
        let mut row = Vec::new();
        write_cell(&mut row, Some(value));
        let mut out = Vec::new();
        write_row(std::slice::from_ref(kind), &row, &mut out).unwrap();
        out[1..out.len() - 1].to_vec()
    }

    /// What [`write_row`] does, without a short way.
    fn row_of_any(kinds: &[CellKind], mut row: &[u8]) -> Option<Vec<u8>> {
        let mut literals = Vec::new();
        for kind in kinds {
            let mut literal = Vec::new();
            match read_cell(&mut row)? {
                Some(value) => kind.write_any(value, &mut literal).ok()?,
                None if *kind == CellKind::RowEnd => literal.extend(b"DEFAULT"),
                None => literal.extend(b"NULL"),
            }
            literals.push(literal);
        }
        let all = [&b"("[..], &literals.join(&b','), b")"].concat();
        row.is_empty().then_some(all)
    }

    fn kinds() -> impl Strategy<Value = CellKind> {
        let charset = || "latin1".to_owned();
        prop::sample::select(vec![
            CellKind::Number,
            CellKind::Float,
            CellKind::RowEnd,
            CellKind::Quoted,
            CellKind::Utf8(charset()),
            CellKind::SingleByte(charset()),
            CellKind::MultiByte(charset()),
            CellKind::Wide(charset()),
            CellKind::Binary,
            CellKind::Bits,
            CellKind::Nothing,
        ])
    }

    /// A kind, and a value of it or of about its form; mostly a short one.
    fn cells() -> impl Strategy<Value = (CellKind, Option<Vec<u8>>)> {
        let values = prop_oneof![
            6 => "-?[0-9]{1,20}([.][0-9]{1,20})?",
            6 => "[ -~]{0,36}",
            1 => "-0([.]0{1,3})?",
            1 => "[ -~é]{0,300}",
            1 => "-?0?[.0]{0,3}e?-?[0-9]?",
        ];
        let values = prop_oneof![
            1 => Just(None),
            20 => values.prop_map(|value| Some(value.into_bytes())),
            1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        ];
        (kinds(), values)
    }

    /// Reads a quoted literal back as the server's lexer does.
    fn unquote(literal: &[u8]) -> Option<Vec<u8>> {
        let inner = literal.strip_prefix(b"'")?.strip_suffix(b"'")?;
        let mut value = Vec::new();
        let mut bytes = inner.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\'' => return None,
                b'\\' => value.push(match bytes.next()? {
                    b'0' => 0,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b'Z' => 0x1a,
                    other => *other,
                }),
                other => value.push(*other),
            }
        }
        Some(value)
    }

    proptest! {
        #[test]
        fn a_value_is_plain_if_each_byte_is(value in prop::collection::vec(prop_oneof![20 => b' '..=b'~', 1 => any::<u8>()], 0..70)) {
            let each = value.iter().all(|b| matches!(b, b' '..=b'~') && ESCAPES[usize::from(*b)] == 0);
            prop_assert_eq!(is_plain(&value), each);
        }

        #[test]
        fn a_short_cell_is_written_as_any(cells in prop::collection::vec(cells(), 1..9)) {
            let mut row = Vec::new();
            cells.iter().for_each(|(_, value)| write_cell(&mut row, value.as_deref()));
            let kinds: Vec<CellKind> = cells.into_iter().map(|(kind, _)| kind).collect();
            let mut out = b"before".to_vec();
            let written = write_row(&kinds, &row, &mut out).ok().map(|()| out[6..].to_vec());
            prop_assert_eq!(written, row_of_any(&kinds, &row));
            // Neither does a row end within a cell, nor does anything follow the last one.
            for length in 0..row.len() {
                prop_assert!(write_row(&kinds, &row[..length], &mut Vec::new()).is_err());
            }
            row.push(0);
            prop_assert!(write_row(&kinds, &row, &mut Vec::new()).is_err());
        }

        #[test]
        fn a_row_of_any_bytes_is_written_as_any_or_refused(
            kinds in prop::collection::vec(kinds(), 1..5),
            row in prop::collection::vec(prop_oneof![0u8..40, 0xfbu8..=0xff, any::<u8>()], 0..80),
        ) {
            let mut out = Vec::new();
            let written = write_row(&kinds, &row, &mut out).ok();
            prop_assert_eq!(written.map(|()| out), row_of_any(&kinds, &row));
        }

        #[test]
        fn decimals_are_told_at_once(value in "-?[0-9]{0,18}([.][0-9]{0,18})?[-.e, x/:é]?", behind in "[-0-9.x]{32}") {
            let from = format!("{value}{behind}");
            let number = is_number(value.as_bytes());
            if let Some(bytes) = from.as_bytes().first_chunk().filter(|_| value.len() <= SHORT) {
                prop_assert_eq!(is_decimal(bytes, value.len()), number && !value.contains('e'));
            }
        }

        #[test]
        fn quoted_bytes_parse_back_on_one_line(value in prop::collection::vec(prop_oneof![Just(0u8), Just(b'a'), any::<u8>()], 0..2000)) {
            let mut out = Vec::new();
            write_quoted(&value, &mut out);
            prop_assert_eq!(unquote(&out).unwrap(), value);
            prop_assert!(!out.contains(&b'\n') && !out.contains(&0));
        }
    }

    #[test]
    fn each_kind_writes_its_literal() {
        let latin1 = CellKind::SingleByte("latin1".into());
        assert_eq!(literal(&latin1, b"plain"), b"'plain'");
        assert_eq!(literal(&latin1, b"caf\xe9"), b"_latin1'caf\xe9'");
        assert_eq!(literal(&latin1, b"\x7f"), b"_latin1'\x7f'");
        let gbk = CellKind::MultiByte("gbk".into());
        assert_eq!(literal(&gbk, b"\x81\x5c"), b"_gbk X'815C'");
        let utf8 = CellKind::Utf8("utf8mb4".into());
        assert_eq!(literal(&utf8, "é'".as_bytes()), "'é\\''".as_bytes());
        assert_eq!(literal(&utf8, b"\xff"), b"_utf8mb4 X'FF'");
        assert_eq!(literal(&CellKind::Float, b"-0"), b"-0e0");
        assert_eq!(literal(&CellKind::Float, b"-0.5"), b"-0.5");
        assert_eq!(literal(&CellKind::Float, b"-0.00"), b"-0.00e0");
        assert_eq!(literal(&CellKind::Quoted, b"2024-02-30"), b"'2024-02-30'");
        assert_eq!(literal(&CellKind::RowEnd, b"'),\n("), b"'\\'),\\n('");
        assert_eq!(literal(&CellKind::Bits, &[1, 255]), b"X'01FF'");
        assert_eq!(literal(&CellKind::Binary, &[0, 39]), b"_binary'\\0\\''");
    }

    #[test]
    fn what_is_no_number_is_never_written_without_quotes() {
        let numbers = ["0", "-1", "007", "0.50", "-0.0", "1e20", "5e-324", "1.5E+7"];
        let others = [
            "", "-", "--1", "e", "1e", "1e+", ".5", "1-1", "1)", "1 ", "0x1", "inf", "NaN", "1,2",
        ];
        for kind in [CellKind::Number, CellKind::Float] {
            let write = |text: &str| {
                let mut row = Vec::new();
                write_cell(&mut row, Some(text.as_bytes()));
                write_row(std::slice::from_ref(&kind), &row, &mut Vec::new())
            };
            assert!(numbers.iter().all(|text| write(text).is_ok()));
            for text in others {
                assert!(write(text).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        for low in 0..=0xff {
            let length = [0xfe, low, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
            for behind in [0, 1, 8, 30, 100] {
                let row = [&length[..], &vec![b'1'; behind]].concat();
                for kind in [CellKind::Number, CellKind::Quoted, CellKind::Nothing] {
                    assert!(write_row(&[kind], &row, &mut Vec::new()).is_err());
                }
            }
        }
    }

    #[test]
    fn a_row_must_have_exactly_its_columns() {
        let kinds = [CellKind::Number, CellKind::Quoted];
        let mut row = Vec::new();
        write_cell(&mut row, Some(b"1"));
        let mut out = Vec::new();
        assert!(write_row(&kinds, &row, &mut out).is_err());
        write_cell(&mut row, None);
        out.clear();
        write_row(&kinds, &row, &mut out).unwrap();
        assert_eq!(out, b"(1,NULL)");
        write_cell(&mut row, None);
        assert!(write_row(&kinds, &row, &mut out).is_err());
    }
}
