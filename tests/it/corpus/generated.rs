//! The parts of the corpus that SQL is too long-winded for.

use std::fmt::Write as _;

use mysql::prelude::Queryable;

/// What belongs to `topic` besides its files: a name for messages, and SQL.
pub(super) fn sql(
    topic: &str,
    connection: &mut mysql::Conn,
    mariadb: bool,
) -> Vec<(String, Vec<u8>)> {
    match topic {
        "bits" => vec![("bits of every width".into(), bits().into_bytes())],
        "tables" => vec![("1,017 columns".into(), wide(mariadb).into_bytes())],
        "charsets" => {
            let charsets: Vec<(String, String, String, u8)> =
                connection.query("SHOW CHARACTER SET").unwrap();
            let text = charsets.into_iter().map(|(name, _, _, width)| {
                (
                    format!("character set {name}"),
                    charset(&name, width).into_bytes(),
                )
            });
            text.collect()
        }
        _ => Vec::new(),
    }
}

/// Columns of every width, with all bits, none, and one at either end.
fn bits() -> String {
    let columns: Vec<_> = (1..=64).map(|n| format!("b{n} BIT({n})")).collect();
    let mut sql = format!(
        "CREATE TABLE bits (id INT PRIMARY KEY, {});\n",
        columns.join(", ")
    );
    for (id, value) in [
        (1, "0"),
        (2, "~0 >> (64 - {n})"),
        (3, "1"),
        (4, "1 << ({n} - 1)"),
        (5, "NULL"),
    ] {
        let values: Vec<_> = (1..=64)
            .map(|n| value.replace("{n}", &n.to_string()))
            .collect();
        writeln!(
            sql,
            "INSERT INTO bits VALUES ({id}, {});",
            values.join(", ")
        )
        .unwrap();
    }
    sql
}

/// As many columns as InnoDB takes.
fn wide(mariadb: bool) -> String {
    let columns: Vec<_> = (0..1016)
        .map(|n| format!("c{n} TINYINT{}", if n % 3 == 0 { " NOT NULL" } else { "" }))
        .collect();
    let row = |add: usize| {
        let values: Vec<_> = (0..1016)
            .map(|n| {
                if (n + add) % 3 == 1 {
                    "NULL".into()
                } else {
                    (n % 100 + add).to_string()
                }
            })
            .collect();
        format!("({add}, {})", values.join(","))
    };
    let format = if mariadb { "" } else { " ROW_FORMAT=DYNAMIC" };
    format!(
        "CREATE TABLE wide (id INT PRIMARY KEY, {}){format};\nINSERT INTO wide VALUES {}, {}, {};\n",
        columns.join(", "),
        row(0),
        row(3),
        row(6)
    )
}

/// Text in one character set, as CHAR, VARCHAR, TEXT, ENUM and SET, as a key and as a default.
/// All single bytes, bytes after each lead byte that matter to whoever looks for quotes and
/// backslashes, and characters of many scripts as far as the character set has them. What is
/// no character in it the server leaves out.
fn charset(name: &str, width: u8) -> String {
    let mut sql = format!(
        "CREATE TABLE `cs_{name}` (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, c CHAR(10) CHARACTER SET {name},
           v VARCHAR(300) CHARACTER SET {name}, t MEDIUMTEXT CHARACTER SET {name});\n"
    );
    let mut values: Vec<String> = Vec::new();
    let mut push = |bytes: &[u8]| values.push(bytes.iter().map(|b| format!("{b:02X}")).collect());
    let unit = match name {
        "ucs2" | "utf16" | "utf16le" => 2,
        "utf32" => 4,
        _ => 1,
    };
    if unit == 1 {
        for byte in 0..=255u8 {
            push(&[byte]);
        }
    }
    if width > 1 && unit == 1 && !name.starts_with("utf8") {
        for lead in 0x80..=0xffu8 {
            for tail in [
                0x27, 0x30, 0x40, 0x5c, 0x60, 0x7c, 0x7e, 0x80, 0xa0, 0xa1, 0xdc, 0xe0, 0xfe,
            ] {
                push(&[lead, tail]);
                push(&[lead, tail, 0x27]);
            }
            push(&[lead, 0x30, 0x81, 0x30]);
            push(&[0x8f, lead, 0xa1]);
        }
    }
    if unit == 2 {
        for high in (0..=255u8).step_by(5) {
            for low in [0, 0x27, 0x5c, 0x60, 0xa5, 0xff] {
                push(&[high, low]);
                push(&[low, high]);
            }
        }
    }
    for values in values.chunks(200) {
        let rows: Vec<_> = values
            .iter()
            .map(|v| format!("(X'{v}', X'{v}', X'{v}')"))
            .collect();
        writeln!(
            sql,
            "INSERT IGNORE INTO `cs_{name}` (c, v, t) VALUES {};",
            rows.join(",")
        )
        .unwrap();
    }
    let scripts = [
        "plain",
        "it's \"quoted\" \\ back\\slash\\\\",
        "éüñßæ",
        "ŁódźČž",
        "Привет, Ёж",
        "Ελλάδα",
        "עברית",
        "ไทย",
        "中文漢字",
        "日本語カナ表ソ能ｱｲｳ〜～¥‾",
        "한국어",
        "€™…",
        "😀𝄞",
        "tab\t nl\n cr\r nul\0 z\u{1a} end  ",
    ];
    for text in scripts {
        let hex: String = text.bytes().map(|b| format!("{b:02X}")).collect();
        let value = format!("CONVERT(_utf8mb4 X'{hex}' USING {name})");
        writeln!(sql, "INSERT IGNORE INTO `cs_{name}` (c, v, t) VALUES ({value}, REPEAT({value}, 3), REPEAT({value}, 200));").unwrap();
    }
    sql
}
