//! Rows of the binary protocol (MySQL internals manual, "Binary Protocol Resultset Row" and
//! "Binary Protocol Value"; MariaDB knowledge base, "Result Set Row"), put into the form that rows
//! of the text protocol have, so that nobody further on knows by which protocol a row came. The
//! server formats a DOUBLE ten times slower than this does.

use mysql::consts::{ColumnFlags, ColumnType};
use mysql::{Column, Value};

use super::wire::{read_cell, write_length};

/// How the value of a column is sent, and how it is stated in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Little-endian, of so many bytes.
    Signed(usize),
    Unsigned(usize),
    /// In so many digits.
    Year(usize),
    Float,
    Double,
    Date,
    /// With so many decimals of a second.
    DateTime(usize),
    Time(usize),
    /// A string with its length before it, as in the text protocol.
    Text,
}

impl Form {
    fn of(column: &Column) -> Form {
        let integer = |bytes| {
            if column.flags().contains(ColumnFlags::UNSIGNED_FLAG) {
                Form::Unsigned(bytes)
            } else {
                Form::Signed(bytes)
            }
        };
        let decimals = usize::from(column.decimals()).min(MICROSECOND_DIGITS);
        match column.column_type() {
            ColumnType::MYSQL_TYPE_TINY => integer(1),
            ColumnType::MYSQL_TYPE_SHORT => integer(2),
            ColumnType::MYSQL_TYPE_LONG | ColumnType::MYSQL_TYPE_INT24 => integer(4),
            ColumnType::MYSQL_TYPE_LONGLONG => integer(8),
            // MariaDB has YEAR(2), too.
            ColumnType::MYSQL_TYPE_YEAR if column.column_length() == 2 => Form::Year(2),
            ColumnType::MYSQL_TYPE_YEAR => Form::Year(4),
            ColumnType::MYSQL_TYPE_FLOAT => Form::Float,
            ColumnType::MYSQL_TYPE_DOUBLE => Form::Double,
            ColumnType::MYSQL_TYPE_DATE => Form::Date,
            ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_TIMESTAMP => {
                Form::DateTime(decimals)
            }
            ColumnType::MYSQL_TYPE_TIME => Form::Time(decimals),
            _ => Form::Text,
        }
    }
}

const MICROSECOND_DIGITS: usize = 6;

/// Turns rows of one result into the text protocol's form.
#[derive(Debug)]
pub(crate) struct Decoder {
    forms: Vec<Form>,
    /// The last row, and room.
    row: Vec<u8>,
}

impl Decoder {
    /// For a result with these columns.
    pub(crate) fn new(columns: &[Column]) -> Decoder {
        Decoder {
            forms: columns.iter().map(Form::of).collect(),
            row: Vec::new(),
        }
    }

    /// Cells in each row.
    pub(crate) fn columns(&self) -> usize {
        self.forms.len()
    }

    /// The row of a packet: a zero byte, a bit for each column that is NULL (the first two are
    /// not used), and the values of the others. `None` if it is malformed.
    pub(crate) fn decode(&mut self, packet: &[u8]) -> Option<&[u8]> {
        let nulls = (self.forms.len() + 2).div_ceil(8);
        let (head, values) = packet
            .split_at_checked(1 + nulls)
            .filter(|(head, _)| head[0] == 0)?;
        let any_null = head.iter().any(|bits| *bits != 0);
        let mut row = TextRow::new(&mut self.row, self.forms.len(), values.len());
        let mut rest = values;
        // Strings are the same in both protocols: those that follow one another are copied
        // together.
        let mut strings = values;
        for (at, form) in self.forms.iter().enumerate() {
            let bit = at + 2;
            let null = any_null && head[1 + bit / 8] & (1 << (bit % 8)) != 0;
            if *form == Form::Text && !null {
                read_cell(&mut rest).flatten()?;
                continue;
            }
            if strings.len() > rest.len() {
                row.cells(&strings[..strings.len() - rest.len()])?;
            }
            if null {
                row.null()?;
            } else {
                decode_value(*form, &mut rest, &mut row)?;
            }
            strings = rest;
        }
        row.cells(&strings[..strings.len() - rest.len()])?;
        let end = row.end;
        rest.is_empty().then(|| &self.row[..end])
    }

    /// The row that the driver has read; `None` if it does not match the columns.
    pub(crate) fn take(&mut self, values: Vec<Option<Value>>) -> Option<&[u8]> {
        if values.len() != self.forms.len() {
            return None;
        }
        let strings = values.iter().map(|value| match value {
            Some(Value::Bytes(bytes)) => bytes.len(),
            _ => 0,
        });
        let mut row = TextRow::new(&mut self.row, self.forms.len(), strings.sum());
        for (form, value) in self.forms.iter().zip(values) {
            let written = match (*form, value.unwrap_or(Value::NULL)) {
                (_, Value::NULL) => row.null(),
                (_, Value::Bytes(bytes)) => row.string(&bytes),
                (Form::Year(digits), Value::Int(year)) => {
                    row.cell(|text| text.digits(year as u64, digits))
                }
                (Form::Year(digits), Value::UInt(year)) => {
                    row.cell(|text| text.digits(year, digits))
                }
                (_, Value::Int(number)) => row.cell(|text| text.signed(number)),
                (_, Value::UInt(number)) => row.cell(|text| text.unsigned(number)),
                (_, Value::Float(number)) => row.cell(|text| text.double(f64::from(number))),
                (_, Value::Double(number)) => row.cell(|text| text.double(number)),
                (Form::Date, Value::Date(year, month, day, ..)) => {
                    row.cell(|text| text.date(year, month, day))
                }
                (Form::DateTime(decimals), Value::Date(year, month, day, h, m, s, micros)) => row
                    .cell(|text| {
                        text.date(year, month, day);
                        text.put([b' ']);
                        text.clock(u64::from(h), m, s, micros, decimals);
                    }),
                (Form::Time(decimals), Value::Time(negative, days, h, m, s, micros)) => {
                    row.cell(|text| text.time(negative, days, [h, m, s], micros, decimals))
                }
                _ => None,
            };
            written?;
        }
        let end = row.end;
        Some(&self.row[..end])
    }
}

/// Moves a value that is no string from the front of `rest` to the end of `row`; `None` where it
/// is cut short.
#[inline]
fn decode_value(form: Form, rest: &mut &[u8], row: &mut TextRow) -> Option<()> {
    match form {
        Form::Signed(bytes) => {
            let number = match bytes {
                1 => i64::from(i8::from_le_bytes(take(rest)?)),
                2 => i64::from(i16::from_le_bytes(take(rest)?)),
                4 => i64::from(i32::from_le_bytes(take(rest)?)),
                _ => i64::from_le_bytes(take(rest)?),
            };
            row.cell(|text| text.signed(number))
        }
        Form::Unsigned(bytes) => {
            let number = match bytes {
                1 => u64::from(u8::from_le_bytes(take(rest)?)),
                2 => u64::from(u16::from_le_bytes(take(rest)?)),
                4 => u64::from(u32::from_le_bytes(take(rest)?)),
                _ => u64::from_le_bytes(take(rest)?),
            };
            row.cell(|text| text.unsigned(number))
        }
        Form::Year(digits) => {
            let year = u64::from(u16::from_le_bytes(take(rest)?));
            row.cell(|text| text.digits(year, digits))
        }
        Form::Float => {
            let number = f32::from_le_bytes(take(rest)?);
            row.cell(|text| text.double(f64::from(number)))
        }
        Form::Double => {
            let number = f64::from_le_bytes(take(rest)?);
            row.cell(|text| text.double(number))
        }
        Form::Date => {
            let (date, _, _) = read_date_time(rest)?;
            row.cell(|text| text.date(date.0, date.1, date.2))
        }
        Form::DateTime(decimals) => {
            let (date, clock, micros) = read_date_time(rest)?;
            row.cell(|text| {
                text.date(date.0, date.1, date.2);
                text.put([b' ']);
                text.clock(u64::from(clock.0), clock.1, clock.2, micros, decimals);
            })
        }
        Form::Time(decimals) => {
            let [length] = take(rest)?;
            let negative = length > 0 && take::<1>(rest)? != [0];
            let days = if length > 0 {
                u32::from_le_bytes(take(rest)?)
            } else {
                0
            };
            let clock = if length > 0 { take(rest)? } else { [0; 3] };
            let micros = match length {
                0 | 8 => 0,
                12 => u32::from_le_bytes(take(rest)?),
                _ => return None,
            };
            row.cell(|text| text.time(negative, days, clock, micros, decimals))
        }
        Form::Text => None,
    }
}

/// Takes `N` bytes off the front.
#[inline]
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*bytes)
}

type DateTimeParts = ((u16, u8, u8), (u8, u8, u8), u32);

/// A date, with a time where there is one; what is zero at the end is left out.
#[inline]
fn read_date_time(rest: &mut &[u8]) -> Option<DateTimeParts> {
    let [length] = take(rest)?;
    if !matches!(length, 0 | 4 | 7 | 11) {
        return None;
    }
    let mut parts = DateTimeParts::default();
    if length >= 4 {
        let [low, high, month, day] = take(rest)?;
        parts.0 = (u16::from_le_bytes([low, high]), month, day);
    }
    if length >= 7 {
        let [hour, minute, second] = take(rest)?;
        parts.1 = (hour, minute, second);
    }
    if length == 11 {
        parts.2 = u32::from_le_bytes(take(rest)?);
    }
    Some(parts)
}

/// Room for whatever is no string: the longest is a DATETIME whose every part is as large as its type,
/// of 36 bytes.
const ROOM: usize = 48;

/// A row of the text protocol while it is written. There is room for all of it, and always some
/// behind it, so that small values are stored with sizes that are fixed.
struct TextRow<'a> {
    buffer: &'a mut [u8],
    end: usize,
}

impl TextRow<'_> {
    /// A row of so many cells with so many bytes of strings.
    #[inline]
    fn new(buffer: &mut Vec<u8>, cells: usize, strings: usize) -> TextRow<'_> {
        let room = cells * (1 + ROOM) + strings;
        if buffer.len() < room {
            buffer.resize(room, 0);
        }
        TextRow { buffer, end: 0 }
    }

    #[inline]
    fn null(&mut self) -> Option<()> {
        self.cells(&[0xfb])
    }

    /// Cells as a row holds them.
    #[inline]
    fn cells(&mut self, cells: &[u8]) -> Option<()> {
        let room = self.buffer[self.end..].get_mut(..cells.len())?;
        room.copy_from_slice(cells);
        self.end += cells.len();
        Some(())
    }

    fn string(&mut self, value: &[u8]) -> Option<()> {
        if let Ok(length @ 0..=0xfa) = u8::try_from(value.len()) {
            self.cells(&[length])?;
        } else {
            let mut length = Vec::new();
            write_length(&mut length, value.len());
            self.cells(&length)?;
        }
        self.cells(value)
    }

    /// A cell of less than [`ROOM`] bytes that `write` fills.
    #[inline]
    fn cell(&mut self, write: impl FnOnce(&mut Text<'_>)) -> Option<()> {
        let (length, room) = self.buffer[self.end..].split_first_mut()?;
        let room = room.first_chunk_mut()?;
        let mut text = Text { room, end: 0 };
        write(&mut text);
        *length = text.end as u8;
        self.end += 1 + text.end;
        Some(())
    }
}

/// Numbers, dates and times as the server states them.
struct Text<'a> {
    room: &'a mut [u8; ROOM],
    end: usize,
}

impl Text<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.room[self.end..self.end + N].copy_from_slice(&bytes);
        self.end += N;
    }

    fn text(&mut self, text: &[u8]) {
        self.room[self.end..self.end + text.len()].copy_from_slice(text);
        self.end += text.len();
    }

    #[inline]
    fn signed(&mut self, number: i64) {
        if number < 0 {
            self.put([b'-']);
        }
        self.unsigned(number.unsigned_abs());
    }

    #[inline]
    fn unsigned(&mut self, number: u64) {
        let Ok(small @ 0..EIGHT_DIGITS) = u32::try_from(number) else {
            return self.large(number);
        };
        let length = 1 + small.checked_ilog10().unwrap_or(0);
        let text = eight_digits(small) >> (64 - 8 * length);
        // What is behind the digits is room.
        if let Some(room) = self.room[self.end..].first_chunk_mut() {
            *room = text.to_le_bytes();
        }
        self.end += length as usize;
    }

    /// By itself, so that the way of small numbers is short.
    #[inline(never)]
    fn large(&mut self, number: u64) {
        self.text(itoa::Buffer::new().format(number).as_bytes());
    }

    /// With as many digits as it takes to come back to the same bits. A FLOAT is as good a DOUBLE.
    fn double(&mut self, number: f64) {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format(number);
        self.text(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }

    #[inline]
    fn two(&mut self, number: u8) {
        if number < 100 {
            self.put(pair(number));
        } else {
            self.digits(u64::from(number), 2);
        }
    }

    /// A number in at least so many digits.
    fn digits(&mut self, number: u64, width: usize) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(number).as_bytes();
        for _ in digits.len()..width {
            self.put([b'0']);
        }
        self.text(digits);
    }

    #[inline]
    fn date(&mut self, year: u16, month: u8, day: u8) {
        if year < 10_000 && month < 100 && day < 100 {
            let ([a, b], [c, d]) = (pair((year / 100) as u8), pair((year % 100) as u8));
            let ([e, f], [g, h]) = (pair(month), pair(day));
            self.put([a, b, c, d, b'-', e, f, b'-', g, h]);
        } else {
            self.digits(u64::from(year), 4);
            self.put([b'-']);
            self.two(month);
            self.put([b'-']);
            self.two(day);
        }
    }

    #[inline]
    fn clock(&mut self, hours: u64, minutes: u8, seconds: u8, micros: u32, decimals: usize) {
        match u8::try_from(hours) {
            Ok(hours) => self.two(hours),
            Err(_) => self.digits(hours, 2),
        }
        self.put([b':']);
        self.two(minutes);
        self.put([b':']);
        self.two(seconds);
        if decimals > 0 {
            self.put([b'.']);
            self.digits(u64::from(micros), MICROSECOND_DIGITS);
            self.end -= MICROSECOND_DIGITS - decimals;
        }
    }

    fn time(&mut self, negative: bool, days: u32, clock: [u8; 3], micros: u32, decimals: usize) {
        if negative {
            self.put([b'-']);
        }
        let [hours, minutes, seconds] = clock;
        let hours = u64::from(days) * 24 + u64::from(hours);
        self.clock(hours, minutes, seconds, micros, decimals);
    }
}

/// The first number of more than eight digits.
const EIGHT_DIGITS: u32 = 100_000_000;

/// The text of a number in eight digits, as a number that has the first digit in its lowest byte.
/// Two numbers of four digits are split into four of two, and these into eight of one, all at
/// once; dividing by 100 and by 10 is a multiplication and a shift. Digits that are stored one by
/// one could not be read again at once, as a row is.
#[inline]
fn eight_digits(number: u32) -> u64 {
    let number = u64::from(number);
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((twos * 103) >> 10) & 0xf_000f_000f_000f;
    (tens | ((twos - 10 * tens) << 8)) + u64::from_ne_bytes([b'0'; 8])
}

/// A number below 100 in two digits.
#[inline]
fn pair(number: u8) -> [u8; 2] {
    [b'0' + number / 10, b'0' + number % 10]
}

#[cfg(test)]
#[path = "binary_tests.rs"]
mod tests;
