//! File names for tables and other objects. A name is the identifier itself where that is
//! safe, and percent-encoded where it is not; two identifiers never share a name, not even on
//! a file system that ignores case. Pure; called while the files of a run are planned.

use sha2::{Digest, Sha256};

use crate::config::Compression;

/// The longest stem. With the longest prefix and suffix a file name stays below 255 bytes.
const MAX_STEM: usize = 180;
/// Hexadecimal digits of SHA-256 that stand for the rest of a long identifier.
const HASH_DIGITS: usize = 32;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Names that Windows keeps for devices, whatever the extension.
const RESERVED: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8",
    "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// Whether Windows keeps a name for a device, in whatever case.
pub(crate) fn is_device(name: &str) -> bool {
    RESERVED.contains(&name.to_ascii_lowercase().as_str())
}

/// The stem of a file name for an identifier: `a-z`, `0-9`, `_` and `-` as they are, every
/// other byte as `%` and two lower-case hexadecimal digits, at most 180 bytes.
///
/// Stems have no upper-case letter, so different stems differ on any file system; and no dot,
/// which separates the parts of a file name. A leading `-` (an option to many tools) and the
/// first letter of a Windows device name are encoded as well. A longer stem is cut, and ends
/// with `%-` and a hash of the whole identifier.
pub fn stem(identifier: &str) -> String {
    if identifier.is_empty() {
        return "%".to_owned();
    }
    let reserved = RESERVED.contains(&identifier);
    let mut stem = String::with_capacity(identifier.len() + 8);
    let mut cut = 0;
    for (i, byte) in identifier.bytes().enumerate() {
        if stem.len() <= MAX_STEM - HASH_DIGITS - 2 {
            cut = stem.len();
        }
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' if i > 0 || !reserved => stem.push(byte.into()),
            b'-' if i > 0 => stem.push('-'),
            _ => push_encoded(&mut stem, byte),
        }
    }
    if stem.len() > MAX_STEM {
        stem.truncate(cut);
        stem.push_str("%-");
        stem.push_str(&hex(&Sha256::digest(identifier))[..HASH_DIGITS]);
    }
    stem
}

fn push_encoded(stem: &mut String, byte: u8) {
    stem.push('%');
    stem.push(HEX[usize::from(byte >> 4)].into());
    stem.push(HEX[usize::from(byte & 15)].into());
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(HEX[usize::from(byte >> 4)].into());
        text.push(HEX[usize::from(byte & 15)].into());
    }
    text
}

/// `structure/tables/<stem>.sql`
pub fn table_structure(table: &str) -> String {
    format!("structure/tables/{}.sql", stem(table))
}

/// `structure/sequences/<stem>.sql`
pub fn sequence_structure(sequence: &str) -> String {
    format!("structure/sequences/{}.sql", stem(sequence))
}

/// `structure/views/<stem>.sql`
pub fn view(view: &str) -> String {
    format!("structure/views/{}.sql", stem(view))
}

/// `structure/triggers/<stem>.sql`: all triggers of a table, because their order matters.
pub fn triggers(table: &str) -> String {
    format!("structure/triggers/{}.sql", stem(table))
}

/// `structure/routines/<kind>.<stem>.sql`; a function and a procedure may share a name.
pub fn routine(kind: &str, name: &str) -> String {
    format!("structure/routines/{}.{}.sql", stem(kind), stem(name))
}

/// `structure/events/<stem>.sql`
pub fn event(event: &str) -> String {
    format!("structure/events/{}.sql", stem(event))
}

/// `data/<stem>.<chunk>.sql` or `.sql.zst`, with `.age` behind it where it is encrypted; chunks
/// count from 1, in five digits or more.
pub fn data(table: &str, chunk: usize, compression: Compression, encrypted: bool) -> String {
    let suffix = match compression {
        Compression::None => "sql",
        Compression::Zstd(_) => "sql.zst",
    };
    let age = if encrypted { ".age" } else { "" };
    format!("data/{}.{chunk:05}.{suffix}{age}", stem(table))
}

/// The number of the chunk of `table` whose rows `file` holds, if [`data`] makes that name.
pub fn chunk_number(table: &str, file: &str) -> Option<usize> {
    let rest = file.strip_prefix("data/")?.strip_prefix(&stem(table))?;
    let number = rest.strip_prefix('.')?.split('.').next()?.parse().ok()?;
    let file = file.strip_suffix(".age").unwrap_or(file);
    let names = [Compression::None, Compression::Zstd(1)].map(|c| data(table, number, c, false));
    names.iter().any(|name| name == file).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stems_are_readable_where_safe() {
        for (identifier, expected) in [
            ("csv2_users", "csv2_users"),
            ("a-b", "a-b"),
            ("-rf", "%2drf"),
            ("Users", "%55sers"),
            ("a.b", "a%2eb"),
            ("..", "%2e%2e"),
            ("a/b", "a%2fb"),
            ("50%", "50%25"),
            ("naïve", "na%c3%afve"),
            ("con", "%63on"),
            ("cone", "cone"),
            ("", "%"),
        ] {
            assert_eq!(stem(identifier), expected);
        }
    }

    #[test]
    fn files_lie_where_the_format_says() {
        assert_eq!(table_structure("t"), "structure/tables/t.sql");
        assert_eq!(sequence_structure("s"), "structure/sequences/s.sql");
        assert_eq!(view("v"), "structure/views/v.sql");
        assert_eq!(triggers("t"), "structure/triggers/t.sql");
        assert_eq!(
            routine("package-body", "p"),
            "structure/routines/package-body.p.sql"
        );
        assert_eq!(event("e"), "structure/events/e.sql");
        assert_eq!(data("t", 1, Compression::None, false), "data/t.00001.sql");
        assert_eq!(
            data("t", 1, Compression::None, true),
            "data/t.00001.sql.age"
        );
        assert_eq!(chunk_number("t", "data/t.00012.sql.zst.age"), Some(12));
        assert_eq!(chunk_number("t", "data/t.00012.sql.age.zst"), None);
        assert_eq!(
            data("t", 123_456, Compression::Zstd(1), false),
            "data/t.123456.sql.zst"
        );
        for (file, number) in [
            ("data/t.00001.sql", Some(1)),
            ("data/t.123456.sql.zst", Some(123_456)),
            ("data/t.1.sql", None),
            ("data/t.00001.csv", None),
            ("data/tt.00001.sql", None),
            ("structure/t.00001.sql", None),
        ] {
            assert_eq!(chunk_number("t", file), number, "{file}");
        }
    }

    #[test]
    fn the_longest_identifiers_differ_and_fit() {
        let long = |last: char| format!("{}{last}", "世".repeat(63));
        let (a, b) = (stem(&long('界')), stem(&long('堺')));
        assert_ne!(a, b);
        assert!(a.len() <= MAX_STEM && b.len() <= MAX_STEM);
        // The cut never leaves half an escape before the mark of a long name.
        assert!(
            a.contains("%96%-") || a.contains("%b8%-") || a.contains("%e4%-"),
            "{a}"
        );
    }

    fn identifier() -> impl Strategy<Value = String> {
        prop_oneof![
            "[abAB%.\\-_c]{0,4}",
            "[a-bA-B世%-]{58,64}",
            any::<String>(),
            prop::sample::select(&RESERVED[..]).prop_map(str::to_owned),
        ]
    }

    /// Undoes `stem` for stems that were not cut, independently of how it was made.
    fn decode(stem: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut rest = stem.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = tail;
            if *first == b'%' {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            } else {
                bytes.push(*first);
            }
        }
        Some(bytes)
    }

    proptest! {
        #[test]
        fn injective_even_where_case_is_ignored(a in identifier(), b in identifier()) {
            prop_assert_eq!(a == b, stem(&a).to_lowercase() == stem(&b).to_lowercase());
        }

        #[test]
        fn a_short_stem_can_be_decoded(a in identifier()) {
            let stem = stem(&a);
            if !a.is_empty() && !stem.contains("%-") {
                prop_assert_eq!(decode(&stem), Some(a.into_bytes()));
            }
        }

        #[test]
        fn every_file_name_fits(a in identifier(), chunk in 1..usize::MAX) {
            for path in [
                table_structure(&a),
                routine("package-body", &a),
                data(&a, chunk, Compression::Zstd(19), true),
            ] {
                let name = path.rsplit('/').next().unwrap();
                prop_assert!(name.len() <= 255);
                prop_assert!(name.is_ascii() && !name.starts_with(['.', '-']));
            }
        }
    }
}
