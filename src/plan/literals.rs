//! Key values as SQL literals: which types have them, how they are written, and whether a text
//! out of a manifest is one. All of them are ASCII, and none can end the statement it stands in.

use crate::encode::cell::is_number;
use crate::server::catalog::Column;
use crate::server::quote_identifier;

/// How a key value is written as a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralKind {
    /// As the server states it.
    Number,
    /// As the server states its number: ENUM and SET, which sort by it and would compare by
    /// name, and BIT.
    Ordinal,
    /// As the server states it as a DOUBLE, with an exponent, so that it is one.
    Float,
    /// In quotes.
    Quoted,
    /// In hexadecimal, after an introducer.
    Text,
    /// In hexadecimal.
    Binary,
}

impl LiteralKind {
    /// How the column is named in a SELECT of bounds.
    pub fn select(self, name: &str) -> String {
        let name = quote_identifier(name);
        match self {
            // Not `+0`: that is a DOUBLE, too short for a SET of 64 members.
            LiteralKind::Ordinal => format!("{name}|0"),
            LiteralKind::Float => format!("CAST({name} AS DOUBLE)"),
            _ => name,
        }
    }
}

/// How values of the column are written as literals in a comparison, if they can be.
pub fn literal_kind(column: &Column) -> Option<LiteralKind> {
    // A FLOAT(M,D) at its limit is above itself to MySQL. Nor is a SET among the types below: a
    // range of its numbers is not looked up in the index, and MySQL was seen to count rows twice.
    let disordered = column.sorted_with_pad || column.fixed_decimals;
    if column.generated || column.period.is_some() || disordered {
        return None;
    }
    Some(match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" => {
            LiteralKind::Number
        }
        "enum" | "bit" => LiteralKind::Ordinal,
        "float" | "double" => LiteralKind::Float,
        "date" | "datetime" | "timestamp" | "time" | "uuid" | "inet4" | "inet6" => {
            LiteralKind::Quoted
        }
        "char" | "varchar" if column.charset.is_some() => LiteralKind::Text,
        "binary" | "varbinary" => LiteralKind::Binary,
        _ => return None,
    })
}

/// A key value as a literal made of ASCII only.
pub fn literal(kind: LiteralKind, charset: Option<&str>, value: &[u8]) -> Option<String> {
    let hex = || value.iter().map(|b| format!("{b:02X}")).collect::<String>();
    let plain = |allowed: &[u8]| {
        let text = std::str::from_utf8(value).ok()?;
        text.bytes()
            .all(|b| b.is_ascii_digit() || allowed.contains(&b))
            .then(|| text.to_owned())
    };
    let number = || plain(b"-+.e").filter(|text| is_number(text.as_bytes()));
    Some(match kind {
        LiteralKind::Number | LiteralKind::Ordinal => number()?,
        LiteralKind::Float => {
            let number = number()?;
            let exponent = if number.contains('e') { "" } else { "e0" };
            number + exponent
        }
        LiteralKind::Quoted => format!("'{}'", plain(b"-: .abcdef")?),
        LiteralKind::Text => format!("_{} X'{}'", charset?, hex()),
        LiteralKind::Binary => format!("X'{}'", hex()),
    })
}

/// Whether `text` is what [`literal`] writes for a value of that kind; it goes into a query.
pub fn is_literal(kind: LiteralKind, charset: Option<&str>, text: &str) -> bool {
    let quoted = |open: &str| text.strip_prefix(open)?.strip_suffix('\'');
    let value = match kind {
        LiteralKind::Number | LiteralKind::Ordinal | LiteralKind::Float => Some(text.into()),
        LiteralKind::Quoted => quoted("'").map(|value| value.as_bytes().to_vec()),
        LiteralKind::Text => charset
            .and_then(|charset| quoted(&format!("_{charset} X'")))
            .and_then(unhex),
        LiteralKind::Binary => quoted("X'").and_then(unhex),
    };
    value.is_some_and(|value| literal(kind, charset, &value).as_deref() == Some(text))
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => {
                let digit = |b: u8| char::from(b).to_digit(16);
                u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
            }
            _ => None,
        })
        .collect()
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
            literal(LiteralKind::Float, None, b"-0.1").unwrap(),
            "-0.1e0"
        );
        assert_eq!(
            literal(LiteralKind::Float, None, b"5e-324").unwrap(),
            "5e-324"
        );
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

    #[test]
    fn what_is_written_is_known_again_and_nothing_else() {
        let latin1 = Some("latin1");
        let good = [
            (LiteralKind::Number, None, "-12.50"),
            (LiteralKind::Number, None, "18446744073709551615"),
            (LiteralKind::Ordinal, None, "3"),
            (LiteralKind::Float, None, "-0.1e0"),
            (LiteralKind::Float, None, "5e-324"),
            (LiteralKind::Quoted, None, "'2024-02-29 01:02:03'"),
            (LiteralKind::Text, latin1, "_latin1 X'6127E9'"),
            (LiteralKind::Binary, None, "X''"),
        ];
        for (kind, charset, text) in good {
            assert!(is_literal(kind, charset, text), "{text}");
        }
        let bad = [
            (LiteralKind::Number, None, ""),
            (LiteralKind::Number, None, "--1"),
            (LiteralKind::Number, None, ".7"),
            (LiteralKind::Number, None, "1-1"),
            (LiteralKind::Number, None, "1 OR 1"),
            (LiteralKind::Number, None, "'1'"),
            (LiteralKind::Float, None, "0.1"),
            (LiteralKind::Float, None, "e"),
            (LiteralKind::Quoted, None, "'' OR ''"),
            (LiteralKind::Quoted, None, "'"),
            (LiteralKind::Text, latin1, "_utf8mb4 X'61'"),
            (LiteralKind::Text, latin1, "_latin1 X'6'"),
            (LiteralKind::Text, None, "X'61'"),
            (LiteralKind::Binary, None, "X'6g'"),
            (LiteralKind::Binary, None, "X'61' OR 1"),
        ];
        for (kind, charset, text) in bad {
            assert!(!is_literal(kind, charset, text), "{text}");
        }
    }
}
