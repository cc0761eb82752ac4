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
        "objects" => {
            let charsets: Vec<(String, String, String, u8)> =
                connection.query("SHOW CHARACTER SET").unwrap();
            let there = |name: &str| charsets.iter().any(|(charset, ..)| charset == name);
            let written = TEXTS.iter().filter(|(name, _)| there(name));
            written
                .map(|(name, text)| {
                    (
                        format!("objects in {name}"),
                        objects_in(name, text, mariadb),
                    )
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Texts in character sets that a client may use; in some the second byte is a backslash.
const TEXTS: [(&str, &[u8]); 12] = [
    ("gbk", b"\x81\x5c\xd6\xd0"),
    ("big5", b"\xa5\x5c\xa4\xa4"),
    ("sjis", b"\x95\x5c\x83\x5c\xb1"),
    ("cp932", b"\x95\x5c\x87\x40"),
    ("gb18030", b"\x81\x5c\x81\x30\x81\x30"),
    ("gb2312", b"\xd6\xd0"),
    ("euckr", b"\xb0\xa1"),
    ("ujis", b"\xc6\xfc\x8e\xb1"),
    ("eucjpms", b"\xc6\xfc\xad\xa1"),
    ("cp1251", b"\xcf\xf0\xe8"),
    ("koi8r", b"\xf0\xd2\xc9"),
    ("latin1", b"caf\xe9"),
];

/// A view, a routine, a trigger and an event written by a client that uses `charset`.
/// MySQL takes no comments in other character sets.
fn objects_in(charset: &str, text: &[u8], mariadb: bool) -> Vec<u8> {
    let template = "\\C {cs}
SET sql_mode='';
CREATE TABLE on_{cs} (id INT);
CREATE VIEW v_{cs} AS SELECT '{text}' AS c, _{cs}'{text}' AS d;
DELIMITER //
CREATE PROCEDURE p_{cs} () BEGIN SELECT '{text}'; {comment} SELECT '{text}'; END//
CREATE FUNCTION f_{cs} () RETURNS INT DETERMINISTIC RETURN LENGTH('{text}')//
CREATE TRIGGER t_{cs} BEFORE INSERT ON on_{cs} FOR EACH ROW SET @t = '{text}'//
CREATE EVENT e_{cs} ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' DISABLE DO BEGIN SELECT '{text}'; END//
DELIMITER ;
\\C utf8mb4
";
    let comment = if mariadb { "/* {text} */" } else { "" };
    let template = template
        .replace("{cs}", charset)
        .replace("{comment}", comment);
    let mut parts = template.split("{text}");
    let mut sql = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        sql.extend_from_slice(text);
        sql.extend_from_slice(part.as_bytes());
    }
    sql
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
