//! Tests of the binary protocol's rows.

use super::super::wire::write_cell;
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

fn stated(write: impl FnOnce(&mut Text<'_>)) -> String {
    let mut buffer = Vec::new();
    let mut row = TextRow::new(&mut buffer, 1, 0);
    row.cell(write).unwrap();
    let end = row.end;
    cells(&buffer[..end])[0].clone().unwrap()
}

#[test]
fn values_are_stated_as_the_text_protocol_states_them() {
    let forms = [
        Form::Signed(1),
        Form::Unsigned(8),
        Form::Year(4),
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
        assert!(decoder(&forms).decode(&packet[..length]).is_none());
    }
    packet.push(0);
    assert!(decoder(&forms).decode(&packet).is_none());

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

#[test]
fn strings_come_as_they_are_wherever_they_stand() {
    let (text, number) = (Form::Text, Form::Signed(1));
    let forms = [text, text, number, text, text, text, number, text];
    let long = "x".repeat(300);
    let mut packet = vec![0, 0b0100_0000, 0];
    packet.extend(b"\x01a\x00\x07\x01b");
    write_cell(&mut packet, Some(long.as_bytes()));
    packet.extend(b"\xff\x02cd");
    let expected: Vec<_> = ["a", "", "7", "b", "", &long, "-1", "cd"]
        .map(str::to_owned)
        .into_iter()
        .map(Some)
        .collect();
    let mut expected = expected;
    expected[4] = None;
    assert_eq!(cells(decoder(&forms).decode(&packet).unwrap()), expected);
    for length in 0..packet.len() {
        assert!(decoder(&forms).decode(&packet[..length]).is_none());
    }
    let by_driver = expected
        .iter()
        .zip(&forms)
        .map(|(cell, form)| match (cell, form) {
            (None, _) => Some(Value::NULL),
            (Some(cell), Form::Text) => Some(Value::Bytes(cell.clone().into_bytes())),
            (Some(cell), _) => Some(Value::Int(cell.parse().unwrap())),
        });
    assert_eq!(
        cells(decoder(&forms).take(by_driver.collect()).unwrap()),
        expected
    );
}

proptest! {
    #[test]
    fn doubles_come_back_to_the_same_bits(bits: u64) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        let text = stated(|text| text.double(number));
        prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
    }

    #[test]
    fn integers_are_stated_digit_by_digit(number: i64, digits in 0..20u32) {
        // As many small ones as large ones.
        let number = number.checked_rem(10i64.checked_pow(digits).unwrap_or(0)).unwrap_or(number);
        prop_assert_eq!(stated(|text| text.signed(number)), number.to_string());
        let number = number as u64;
        prop_assert_eq!(stated(|text| text.unsigned(number)), number.to_string());
    }

    #[test]
    fn whatever_comes_is_a_row_of_all_columns_or_an_error(
        forms in prop::collection::vec(form(), 0..12),
        packet in prop::collection::vec(prop_oneof![any::<u8>(), 0..12u8], 0..200),
        values in prop::collection::vec(value(), 0..12)) {
        // A row begins with a zero.
        let packet = [&[0], &packet[..]].concat();
        let mut decoder = decoder(&forms);
        if let Some(row) = decoder.decode(&packet) {
            prop_assert_eq!(count(row), Some(forms.len()));
        }
        let values = values.into_iter().chain(std::iter::repeat(Value::NULL)).take(forms.len());
        if let Some(row) = decoder.take(values.map(Some).collect()) {
            prop_assert_eq!(count(row), Some(forms.len()));
        }
    }
}

fn form() -> impl Strategy<Value = Form> {
    use Form::*;
    let forms = [
        Signed(1),
        Signed(2),
        Signed(4),
        Signed(8),
        Unsigned(1),
        Unsigned(2),
        Unsigned(4),
        Unsigned(8),
        Year(2),
        Year(4),
        Float,
        Double,
        Date,
        DateTime(0),
        DateTime(3),
        DateTime(6),
        Time(0),
        Time(6),
        Text,
        Text,
        Text,
    ];
    prop::sample::select(forms.to_vec())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::UInt),
        any::<f64>().prop_map(Value::Double),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
        any::<(u16, u8, u8, u8, u8, u8, u32)>()
            .prop_map(|(y, mo, d, h, mi, s, us)| Value::Date(y, mo, d, h, mi, s, us)),
        any::<(bool, u32, u8, u8, u8, u32)>()
            .prop_map(|(n, d, h, mi, s, us)| Value::Time(n, d, h, mi, s, us)),
    ]
}

/// How many cells a row has.
fn count(mut row: &[u8]) -> Option<usize> {
    let mut cells = 0;
    while !row.is_empty() {
        read_cell(&mut row)?;
        cells += 1;
    }
    Some(cells)
}
