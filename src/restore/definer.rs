//! Taking the definer out of a statement that creates an object (`--skip-definer`), so that it
//! belongs to the user who restores; and finding it.

use std::ops::Range;

/// The statement without its `DEFINER=…`; `None` where it creates nothing that has one. Works on
/// bytes: the text may be in any character set that keeps ASCII where it is.
pub(crate) fn without(statement: &[u8]) -> Option<Vec<u8>> {
    let clause = clause(statement)?;
    Some([&statement[..clause.start], &statement[clause.end..]].concat())
}

/// Statements, each beginning a line, without the `DEFINER=…` of any.
pub(crate) fn without_any(statements: Vec<u8>) -> Vec<u8> {
    let lines = statements.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| without(line).unwrap_or_else(|| line.to_vec()));
    lines.collect::<Vec<_>>().concat()
}

/// The definer of what the statement creates, as the server states a user: `name@host`, or the
/// name of a role.
pub(crate) fn of(statement: &[u8]) -> Option<String> {
    let clause = clause(statement)?;
    let definer = &statement[clause.start + KEY.len()..clause.end];
    let name = identifier_end(definer, 0)?;
    let plain = |quoted: &[u8]| {
        let text = String::from_utf8_lossy(quoted);
        match text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) {
            Some(inner) => inner.replace("``", "`"),
            None => text.into_owned(),
        }
    };
    Some(match &definer[name..] {
        [b'@', host @ ..] => format!("{}@{}", plain(&definer[..name]), plain(host)),
        _ => plain(definer),
    })
}

const KEY: &[u8] = b" DEFINER=";

/// Where the clause stands.
fn clause(statement: &[u8]) -> Option<Range<usize>> {
    if !statement.starts_with(b"CREATE ") {
        return None;
    }
    // It stands before the object's name, among words that have no quotes.
    let at = memchr::memmem::find(statement, KEY)?;
    if statement[..at]
        .iter()
        .any(|byte| matches!(byte, b'`' | b'\'' | b'"'))
    {
        return None;
    }
    let mut end = identifier_end(statement, at + KEY.len())?;
    if statement.get(end) == Some(&b'@') {
        end = identifier_end(statement, end + 1)?;
    }
    Some(at..end)
}

/// Where the identifier that begins at `from` ends, quoted or not.
fn identifier_end(text: &[u8], from: usize) -> Option<usize> {
    let quote = *text.get(from)?;
    if !matches!(quote, b'`' | b'\'' | b'"') {
        let rest = &text[from..];
        let end = rest.iter().position(|byte| matches!(byte, b' ' | b'@'));
        let length = end.unwrap_or(rest.len());
        return (length > 0).then_some(from + length);
    }
    let mut at = from + 1;
    loop {
        at += memchr::memchr(quote, text.get(at..)?)? + 1;
        if text.get(at) != Some(&quote) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definer_goes_and_nothing_else() {
        for (from, to) in [
            (
                "CREATE DEFINER=`a``b`@`%` PROCEDURE `p`() SELECT ' DEFINER=`x`'",
                "CREATE PROCEDURE `p`() SELECT ' DEFINER=`x`'",
            ),
            (
                "CREATE OR REPLACE ALGORITHM=MERGE DEFINER=`r`@`h` SQL SECURITY INVOKER VIEW `v` AS SELECT 1",
                "CREATE OR REPLACE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW `v` AS SELECT 1",
            ),
            (
                "CREATE DEFINER=`role` FUNCTION f() RETURNS INT RETURN 1",
                "CREATE FUNCTION f() RETURNS INT RETURN 1",
            ),
        ] {
            assert_eq!(without(from.as_bytes()).unwrap(), to.as_bytes());
        }
        let other = b"CREATE DEFINER=`a``b`@`10.%` PROCEDURE `p`() SELECT 1";
        assert_eq!(of(other).unwrap(), "a`b@10.%");
        assert_eq!(
            of(b"CREATE DEFINER=`role` FUNCTION f() RETURNS INT RETURN 1").unwrap(),
            "role"
        );
        assert_eq!(of(b"CREATE DEFINER=role VIEW v AS").unwrap(), "role");
        assert_eq!(
            without_any(b"SET x=1;\nCREATE DEFINER=`a`@`b` VIEW v AS\nSELECT 1;\n".to_vec()),
            b"SET x=1;\nCREATE VIEW v AS\nSELECT 1;\n"
        );
        for untouched in [
            "SET sql_mode=' DEFINER=`a`@`b` '",
            "CREATE VIEW `v` AS SELECT ' DEFINER=`a`@`b`'",
            "CREATE TABLE `t` (`a` int)",
            "CREATE DEFINER= VIEW `v` AS SELECT 1",
        ] {
            assert_eq!(without(untouched.as_bytes()), None);
        }
    }
}
