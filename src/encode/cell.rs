//! One value as a SQL literal. Values arrive as the server's text protocol states them with
//! `character_set_results=NULL`: text in the column's own character set, unconverted. How a
//! literal is written is decided once for each column.

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
                if simdutf8::basic::from_utf8(value).is_ok() {
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

/// Values of up to this many bytes are looked at and copied together with what follows them, longer
/// ones in pieces of as many: with sizes that are fixed no byte is handled by itself, and nothing is
/// called.
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
    out.reserve(value.len() + 2 + SHORT);
    out.push(b'\'');
    let mut rest = value;
    while let Some(piece) = rest.first_chunk::<SHORT>() {
        let plain = escaped(piece).trailing_zeros() as usize;
        append(out, |room: &mut [u8; SHORT + 2]| {
            room[..SHORT].copy_from_slice(piece);
            let Some(byte) = piece.get(plain) else {
                return SHORT;
            };
            room[plain..plain + 2].copy_from_slice(&[b'\\', ESCAPES[usize::from(*byte)]]);
            plain + 2
        });
        rest = &rest[(plain + 1).min(SHORT)..];
    }
    for byte in rest {
        match ESCAPES[usize::from(*byte)] {
            0 => out.push(*byte),
            escape => out.extend_from_slice(&[b'\\', escape]),
        }
    }
    out.push(b'\'');
}

/// A bit for each byte that needs escaping.
#[inline]
fn escaped(bytes: &[u8; SHORT]) -> u32 {
    each_of(bytes, |bytes| {
        let is = |byte| bytes.simd_eq(u8x16::splat(byte));
        is(0) | is(b'\n') | is(b'\r') | is(0x1a) | is(b'\'') | is(b'\\')
    })
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
#[path = "cell_tests.rs"]
mod tests;
