//! Rows of the binary protocol (MySQL internals manual, "Binary Protocol Resultset Row" and
//! "Binary Protocol Value"; MariaDB knowledge base, "Result Set Row"), put into the form that rows
//! of the text protocol have, so that nobody further on knows by which protocol a row came. The
//! server formats a DOUBLE ten times slower than this does.

use mysql::consts::{ColumnFlags, ColumnType};
use mysql::{Column, Value};

use super::wire::{read_cell, write_cell};
use crate::error::{Error, ErrorKind, Result};

/// How the value of a column is sent, and how it is stated in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Little-endian, of so many bytes.
    Signed(usize),
    Unsigned(usize),
    Year,
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
            ColumnType::MYSQL_TYPE_YEAR => Form::Year,
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
    /// not used), and the values of the others.
    pub(crate) fn decode(&mut self, packet: &[u8]) -> Result<&[u8]> {
        self.row.clear();
        let nulls = (self.forms.len() + 2).div_ceil(8);
        let (head, mut rest) = packet
            .split_at_checked(1 + nulls)
            .filter(|(head, _)| head[0] == 0)
            .ok_or_else(malformed)?;
        for (at, form) in self.forms.iter().enumerate() {
            let bit = at + 2;
            if head[1 + bit / 8] & (1 << (bit % 8)) != 0 {
                write_cell(&mut self.row, None);
            } else {
                decode_value(*form, &mut rest, &mut self.row).ok_or_else(malformed)?;
            }
        }
        if rest.is_empty() {
            Ok(&self.row)
        } else {
            Err(malformed())
        }
    }

    /// The row that the driver has read.
    pub(crate) fn take(&mut self, values: Vec<Option<Value>>) -> Result<&[u8]> {
        self.row.clear();
        if values.len() != self.forms.len() {
            return Err(malformed());
        }
        for (form, value) in self.forms.iter().zip(values) {
            let row = &mut self.row;
            match (form, value.unwrap_or(Value::NULL)) {
                (_, Value::NULL) => write_cell(row, None),
                (_, Value::Bytes(bytes)) => write_cell(row, Some(&bytes)),
                (Form::Year, Value::Int(year)) => write_year(row, year as u64),
                (Form::Year, Value::UInt(year)) => write_year(row, year),
                (_, Value::Int(number)) => write_integer(row, number),
                (_, Value::UInt(number)) => write_integer(row, number),
                (_, Value::Float(number)) => write_double(row, f64::from(number)),
                (_, Value::Double(number)) => write_double(row, number),
                (Form::Date, Value::Date(year, month, day, ..)) => {
                    write_text(row, |text| text.date(year, month, day));
                }
                (Form::DateTime(decimals), Value::Date(year, month, day, h, m, s, micros)) => {
                    write_text(row, |text| {
                        text.date(year, month, day);
                        text.push(b' ');
                        text.clock(u64::from(h), m, s, micros, *decimals);
                    });
                }
                (Form::Time(decimals), Value::Time(negative, days, h, m, s, micros)) => {
                    write_text(row, |text| {
                        text.time(negative, days, h, m, s, micros, *decimals);
                    });
                }
                _ => return Err(malformed()),
            }
        }
        Ok(&self.row)
    }
}

#[cold]
fn malformed() -> Error {
    let what = "the server sent a binary row that does not match its columns";
    Error::new(ErrorKind::Failed, what)
}

/// Moves a value from the front of `rest` to the end of `row`; `None` where it is cut short.
#[inline]
fn decode_value(form: Form, rest: &mut &[u8], row: &mut Vec<u8>) -> Option<()> {
    match form {
        Form::Signed(1) => write_integer(row, i8::from_le_bytes(take(rest)?)),
        Form::Signed(2) => write_integer(row, i16::from_le_bytes(take(rest)?)),
        Form::Signed(4) => write_integer(row, i32::from_le_bytes(take(rest)?)),
        Form::Signed(_) => write_integer(row, i64::from_le_bytes(take(rest)?)),
        Form::Unsigned(1) => write_integer(row, u8::from_le_bytes(take(rest)?)),
        Form::Unsigned(2) => write_integer(row, u16::from_le_bytes(take(rest)?)),
        Form::Unsigned(4) => write_integer(row, u32::from_le_bytes(take(rest)?)),
        Form::Unsigned(_) => write_integer(row, u64::from_le_bytes(take(rest)?)),
        Form::Year => write_year(row, u64::from(u16::from_le_bytes(take(rest)?))),
        Form::Float => write_double(row, f64::from(f32::from_le_bytes(take(rest)?))),
        Form::Double => write_double(row, f64::from_le_bytes(take(rest)?)),
        Form::Date => {
            let (date, _, _) = read_date_time(rest)?;
            write_text(row, |text| text.date(date.0, date.1, date.2));
        }
        Form::DateTime(decimals) => {
            let (date, clock, micros) = read_date_time(rest)?;
            write_text(row, |text| {
                text.date(date.0, date.1, date.2);
                text.push(b' ');
                text.clock(u64::from(clock.0), clock.1, clock.2, micros, decimals);
            });
        }
        Form::Time(decimals) => {
            let [length] = take(rest)?;
            let negative = length > 0 && take::<1>(rest)? != [0];
            let days = if length > 0 {
                u32::from_le_bytes(take(rest)?)
            } else {
                0
            };
            let [h, m, s] = if length > 0 { take(rest)? } else { [0; 3] };
            let micros = match length {
                0 | 8 => 0,
                12 => u32::from_le_bytes(take(rest)?),
                _ => return None,
            };
            write_text(row, |text| {
                text.time(negative, days, h, m, s, micros, decimals)
            });
        }
        Form::Text => {
            let before = *rest;
            read_cell(rest)??;
            row.extend_from_slice(&before[..before.len() - rest.len()]);
        }
    }
    Some(())
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
fn read_date_time(rest: &mut &[u8]) -> Option<DateTimeParts> {
    let [length] = take(rest)?;
    if !matches!(length, 0 | 4 | 7 | 11) {
        return None;
    }
    let mut parts = DateTimeParts::default();
    if length >= 4 {
        let year = u16::from_le_bytes(take(rest)?);
        let [month, day] = take(rest)?;
        parts.0 = (year, month, day);
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

fn write_integer(row: &mut Vec<u8>, number: impl itoa::Integer) {
    write_short(row, itoa::Buffer::new().format(number).as_bytes());
}

fn write_year(row: &mut Vec<u8>, year: u64) {
    write_text(row, |text| text.digits(year, 4));
}

/// With as many digits as it takes to come back to the same bits. A FLOAT is as good a DOUBLE.
fn write_double(row: &mut Vec<u8>, number: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(number);
    write_short(row, text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

/// A cell of less than 251 bytes.
#[inline]
fn write_short(row: &mut Vec<u8>, text: &[u8]) {
    row.push(text.len() as u8);
    row.extend_from_slice(text);
}

/// A cell of less than 251 bytes that `write` appends.
#[inline]
fn write_text(row: &mut Vec<u8>, write: impl FnOnce(&mut Text<'_>)) {
    let length = row.len();
    row.push(0);
    write(&mut Text(row));
    row[length] = (row.len() - length - 1) as u8;
}

/// Dates and times as the server states them.
struct Text<'a>(&'a mut Vec<u8>);

impl Text<'_> {
    fn push(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn two(&mut self, number: u8) {
        if number < 100 {
            self.0
                .extend_from_slice(&[b'0' + number / 10, b'0' + number % 10]);
        } else {
            self.digits(u64::from(number), 2);
        }
    }

    /// A number in at least so many digits.
    fn digits(&mut self, number: u64, width: usize) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(number).as_bytes();
        for _ in digits.len()..width {
            self.push(b'0');
        }
        self.0.extend_from_slice(digits);
    }

    fn date(&mut self, year: u16, month: u8, day: u8) {
        if year < 10_000 {
            self.two((year / 100) as u8);
            self.two((year % 100) as u8);
        } else {
            self.digits(u64::from(year), 4);
        }
        self.push(b'-');
        self.two(month);
        self.push(b'-');
        self.two(day);
    }

    fn clock(&mut self, hours: u64, minutes: u8, seconds: u8, micros: u32, decimals: usize) {
        match u8::try_from(hours) {
            Ok(hours) => self.two(hours),
            Err(_) => self.digits(hours, 2),
        }
        self.push(b':');
        self.two(minutes);
        self.push(b':');
        self.two(seconds);
        if decimals > 0 {
            self.push(b'.');
            self.digits(u64::from(micros), MICROSECOND_DIGITS);
            let excess = MICROSECOND_DIGITS - decimals;
            self.0.truncate(self.0.len() - excess);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a TIME, in their order"
    )]
    fn time(
        &mut self,
        negative: bool,
        days: u32,
        h: u8,
        m: u8,
        s: u8,
        micros: u32,
        decimals: usize,
    ) {
        if negative {
            self.push(b'-');
        }
        self.clock(u64::from(days) * 24 + u64::from(h), m, s, micros, decimals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoder(forms: &[Form]) -> Decoder {
        Decoder {
            forms: forms.to_vec(),
            row: Vec::new(),
        }
    }

    fn cells(mut row: &[u8]) -> Vec<Option<String>> {
        let mut cells = Vec::new();
        while !row.is_empty() {
            let cell = read_cell(&mut row).unwrap();
            cells.push(cell.map(|cell| String::from_utf8(cell.to_vec()).unwrap()));
        }
        cells
    }

    fn texts(expected: &[&str]) -> Vec<Option<String>> {
        expected
            .iter()
            .map(|text| Some((*text).to_owned()))
            .collect()
    }

    #[test]
    fn values_are_stated_as_the_text_protocol_states_them() {
        let forms = [
            Form::Signed(1),
            Form::Unsigned(8),
            Form::Year,
            Form::Float,
            Form::Double,
            Form::Date,
            Form::DateTime(3),
            Form::Time(6),
            Form::Text,
        ];
        let mut packet = vec![0, 0, 0];
        packet.push(0x80);
        packet.extend(u64::MAX.to_le_bytes());
        packet.extend(2024u16.to_le_bytes());
        packet.extend(16_777_216f32.to_le_bytes());
        packet.extend((-0.1f64).to_le_bytes());
        packet.extend([4, 0xe8, 7, 2, 30]);
        packet.extend([11, 0xe8, 7, 1, 2, 3, 4, 5]);
        packet.extend(120_000u32.to_le_bytes());
        packet.extend([12, 1, 34, 0, 0, 0, 22, 59, 59]);
        packet.extend(1u32.to_le_bytes());
        packet.extend([3, b'a', b'\'', 0]);
        let expected = texts(&[
            "-128",
            "18446744073709551615",
            "2024",
            "16777216",
            "-0.1",
            "2024-02-30",
            "2024-01-02 03:04:05.120",
            "-838:59:59.000001",
            "a'\0",
        ]);
        assert_eq!(cells(decoder(&forms).decode(&packet).unwrap()), expected);
        for length in 0..packet.len() {
            assert!(decoder(&forms).decode(&packet[..length]).is_err());
        }
        packet.push(0);
        assert!(decoder(&forms).decode(&packet).is_err());

        let by_driver = vec![
            Value::Int(-128),
            Value::UInt(u64::MAX),
            Value::Int(2024),
            Value::Float(16_777_216.0),
            Value::Double(-0.1),
            Value::Date(2024, 2, 30, 0, 0, 0, 0),
            Value::Date(2024, 1, 2, 3, 4, 5, 120_000),
            Value::Time(true, 34, 22, 59, 59, 1),
            Value::Bytes(b"a'\0".to_vec()),
        ];
        let by_driver = by_driver.into_iter().map(Some).collect();
        assert_eq!(cells(decoder(&forms).take(by_driver).unwrap()), expected);
    }

    #[test]
    fn what_is_zero_is_left_out_by_the_server_and_stated_in_full() {
        let forms = [
            Form::Date,
            Form::DateTime(0),
            Form::DateTime(2),
            Form::Time(1),
        ];
        let packet = [0, 0, 0, 4, 1, 0, 0, 9, 0, 0];
        let expected = texts(&[
            "0000-00-00",
            "0001-00-09 00:00:00",
            "0000-00-00 00:00:00.00",
            "00:00:00.0",
        ]);
        assert_eq!(cells(decoder(&forms).decode(&packet).unwrap()), expected);
    }

    #[test]
    fn a_null_is_a_bit_from_the_third_on() {
        let forms = [Form::Signed(1); 9];
        let packet = [0, 0b0000_0100, 0b0000_0100, 1, 2, 3, 4, 5, 6, 7];
        let mut decoder = decoder(&forms);
        let found = cells(decoder.decode(&packet).unwrap());
        assert_eq!(found[0], None);
        assert_eq!(found[8], None);
        assert_eq!(found[1].as_deref(), Some("1"));
    }

    proptest! {
        #[test]
        fn doubles_come_back_to_the_same_bits(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let mut row = Vec::new();
            write_double(&mut row, number);
            let text = cells(&row)[0].clone().unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn arbitrary_bytes_never_panic(packet in prop::collection::vec(any::<u8>(), 0..200)) {
            let forms = [Form::Signed(4), Form::Text, Form::Time(6), Form::DateTime(2), Form::Double];
            let _ = decoder(&forms).decode(&packet);
        }
    }
}
