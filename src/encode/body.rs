//! Files of definitions taken apart again: what the server stated, without what
//! [`Frame`](super::script::Frame) puts around it. So two files can be compared whose frames
//! are of different versions of this program.

/// What every file of ours begins with.
pub const MARK: &[u8] = b"-- schema_backup: ";
/// The last line of the head.
const HEAD_END: &[u8] = b"SET time_zone=";
/// The lines of the head.
const HEAD_LINES: usize = 4;
/// The only line of the foot.
const FOOT: &[u8] = b"SET character_set_client=@sb_";
/// How the placeholders of views begin that stand before a view.
const PLACEHOLDER: &[u8] = b"CREATE VIEW IF NOT EXISTS ";

/// The statements of a file, or `None` where it is no file of ours, or not a whole one.
pub fn statements(file: &[u8]) -> Option<&[u8]> {
    let mut rest = file.strip_prefix(MARK)?;
    for _ in 0..HEAD_LINES {
        let (line, after) = split_line(rest)?;
        rest = after;
        if line.starts_with(HEAD_END) {
            return without_foot(rest);
        }
    }
    None
}

/// Whether `statements` are those that create a view, placeholders before it aside.
pub fn is_view(statements: &[u8], view: &[u8]) -> bool {
    statements
        .strip_suffix(view)
        .is_some_and(|before| before.is_empty() || before.starts_with(PLACEHOLDER))
}

fn without_foot(rest: &[u8]) -> Option<&[u8]> {
    let body = rest.strip_suffix(b"\n")?;
    let start = memchr::memrchr(b'\n', body).map_or(0, |at| at + 1);
    body[start..].starts_with(FOOT).then(|| &rest[..start])
}

fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', text)?;
    Some((&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::script::{self, Frame};
    use super::*;
    use crate::server::definitions::Definition;
    use crate::server::flavor::{Flavor, Product};

    #[test]
    fn what_was_framed_is_found_again() {
        for (product, version) in [(Product::MariaDb, (10, 11, 0)), (Product::MySql, (9, 7, 0))] {
            let frame = Frame::new(&Flavor { product, version });
            for statement in [
                "",
                "CREATE TABLE t (\n  a int\n);\n",
                "SET time_zone='SYSTEM';\nx\n",
            ] {
                let file = frame.file("table `t\nu`", &[statement.into()]);
                assert_eq!(statements(&file), Some(statement.as_bytes()), "{statement}");
                assert_eq!(statements(&file[1..]), None);
                assert_eq!(statements(&file[..file.len() - 1]), None);
            }
        }
        assert_eq!(statements(b"-- schema_backup: x\n"), None);
    }

    #[test]
    fn a_view_is_known_behind_its_placeholders() {
        let flavor = Flavor {
            product: Product::MariaDb,
            version: (10, 11, 0),
        };
        let definition = Definition {
            text: b"CREATE ALGORITHM=MERGE VIEW `v` AS select 1".into(),
            ..Definition::default()
        };
        let alone = script::view(&definition, &[], &flavor);
        let columns = ["a".to_owned()];
        let behind = script::view(&definition, &[("w", &columns)], &flavor);
        assert!(is_view(&alone, &alone) && is_view(&behind, &alone));
        assert!(!is_view(&alone, &behind));
        assert!(!is_view(&[b"DROP VIEW w;\n", &alone[..]].concat(), &alone));
    }
}
