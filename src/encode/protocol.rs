//! By which protocol a table is read: a small cost model over the types of its columns and how
//! many rows, of which length, it is said to have.

use crate::server::catalog::Column;
use crate::server::rows::Protocol;

/// What it costs to prepare a statement and to forget it again, in nanoseconds of CPU. That is done
/// for each chunk, but a chunk that is one of several has thousands of rows.
const PREPARING: u64 = 300_000;
/// Bytes of a row that take a nanosecond more by the binary protocol: the client copies them once more.
const BYTES_A_NANOSECOND: u64 = 32;

/// The protocol that costs server and client the least CPU for so many rows of these columns, which
/// have so many bytes.
///
/// How a FLOAT, a DOUBLE and the zeros of ZEROFILL are spelt depends on the protocol. So it must not
/// depend on the rows there, or a file would change although no row did.
pub(super) fn choose(columns: &[&Column], rows: u64, bytes: u64) -> Protocol {
    if columns.iter().any(|column| is_float(column)) {
        return Protocol::Binary;
    }
    if columns.iter().any(|column| column.zerofill) {
        return Protocol::Text;
    }
    let gain: Option<i64> = columns.iter().map(|column| gain(column)).sum();
    let gain = gain.and_then(|gain| u64::try_from(gain).ok()).unwrap_or(0);
    let cost = PREPARING.saturating_add(bytes / BYTES_A_NANOSECOND);
    if gain.saturating_mul(rows) > cost {
        Protocol::BinaryOrText
    } else {
        Protocol::Text
    }
}

fn is_float(column: &Column) -> bool {
    matches!(column.data_type.as_str(), "float" | "double")
}

/// What the binary protocol saves of a cell, in nanoseconds of CPU, server and client together.
///
/// Measured on MariaDB 10.11 with 500,000 rows of 8 such columns each, read alternately by either
/// protocol, 6 times: the server saves 475 of a DOUBLE, 49 of a YEAR, 12 of a number of two digits, 25
/// of one of seven, 34 of one of sixteen, 7 to 13 of a date or time and nothing of a string. The client
/// takes 3 to 10 more for each, and more the longer a string is: `None` for one of any length, which
/// would be copied once more.
fn gain(column: &Column) -> Option<i64> {
    if column.by_number || column.period.is_some() {
        return Some(0);
    }
    Some(match column.data_type.as_str() {
        "year" => 40,
        "int" | "bigint" => 15,
        "tinyint" | "smallint" | "mediumint" => 5,
        "date" | "datetime" | "timestamp" | "time" => 0,
        "decimal" | "char" | "varchar" | "binary" | "varbinary" | "enum" | "set" | "bit"
        | "uuid" | "inet4" | "inet6" => -3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(types: &[&str], rows: u64) -> Protocol {
        let columns: Vec<Column> = types.iter().map(|t| Column::plain("c", t)).collect();
        choose(&columns.iter().collect::<Vec<_>>(), rows, 0)
    }

    #[test]
    fn a_double_decides_whatever_else_there_is() {
        for rows in [0, 1 << 40] {
            assert_eq!(chosen(&["double", "longtext"], rows), Protocol::Binary);
        }
    }

    #[test]
    fn of_many_rows_numbers_decide_unless_texts_may_be_long() {
        let many = 1_000_000;
        let numbers = ["int", "int", "char", "char"];
        assert_eq!(chosen(&numbers, many), Protocol::BinaryOrText);
        assert_eq!(chosen(&numbers, 1_000), Protocol::Text);
        assert_eq!(chosen(&["int", "varchar"], many), Protocol::BinaryOrText);
        assert_eq!(chosen(&["int", "text"], many), Protocol::Text);
        assert_eq!(chosen(&["varchar", "date"], u64::MAX), Protocol::Text);
        assert_eq!(chosen(&[], many), Protocol::Text);
    }

    #[test]
    fn long_rows_are_read_as_text() {
        let (number, text) = (Column::plain("n", "int"), Column::plain("t", "varchar"));
        let rows = 1_000_000;
        for (row_bytes, expected) in [(100, Protocol::BinaryOrText), (1000, Protocol::Text)] {
            assert_eq!(choose(&[&number, &text], rows, rows * row_bytes), expected);
        }
    }

    #[test]
    fn zeros_before_a_number_do_not_depend_on_the_number_of_rows() {
        let column = Column {
            zerofill: true,
            ..Column::plain("c", "bigint")
        };
        for rows in [0, 1 << 40] {
            assert_eq!(choose(&[&column], rows, 0), Protocol::Text);
        }
    }
}
