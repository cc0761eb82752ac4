//! Cells: literals of every kind, and rows of any bytes against the way without shortcuts.

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
fn each_byte_that_needs_it_is_escaped_wherever_it_stands() {
    for (byte, escape) in [
        (0, b'0'),
        (b'\n', b'n'),
        (b'\r', b'r'),
        (0x1a, b'Z'),
        (b'\'', b'\''),
        (b'\\', b'\\'),
    ] {
        for length in [1, 31, 32, 33, 63, 64, 65, 100] {
            for at in 0..length {
                let mut value = vec![b'a'; length];
                value[at] = byte;
                let mut out = Vec::new();
                write_quoted(&value, &mut out);
                let mut expected = vec![b'a'; length + 3];
                expected[0] = b'\'';
                expected[length + 2] = b'\'';
                expected[at + 1..at + 3].copy_from_slice(&[b'\\', escape]);
                assert_eq!(out, expected, "{byte} at {at} of {length}");
            }
        }
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
