//! Taking the definer out of a statement that creates an object (`--skip-definer`), so that it
//! belongs to the user who restores.

/// The statement without its `DEFINER=…`; `None` where it creates nothing that has one. Works on
/// bytes: the text may be in any character set that keeps ASCII where it is.
pub(super) fn without(statement: &[u8]) -> Option<Vec<u8>> {
    if !statement.starts_with(b"CREATE ") {
        return None;
    }
    let key = b" DEFINER=";
    // It stands before the object's name, among words that have no quotes.
    let at = memchr::memmem::find(statement, key)?;
    if statement[..at]
        .iter()
        .any(|byte| matches!(byte, b'`' | b'\'' | b'"'))
    {
        return None;
    }
    let mut end = identifier_end(statement, at + key.len())?;
    if statement.get(end) == Some(&b'@') {
        end = identifier_end(statement, end + 1)?;
    }
    Some([&statement[..at], &statement[end..]].concat())
}

/// Where the identifier that begins at `from` ends, quoted or not.
fn identifier_end(text: &[u8], from: usize) -> Option<usize> {
    let quote = *text.get(from)?;
    if !matches!(quote, b'`' | b'\'' | b'"') {
        let length = text[from..]
            .iter()
            .position(|byte| matches!(byte, b' ' | b'@'))?;
        return Some(from + length);
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
        for untouched in [
            "SET sql_mode=' DEFINER=`a`@`b` '",
            "CREATE VIEW `v` AS SELECT ' DEFINER=`a`@`b`'",
            "CREATE TABLE `t` (`a` int)",
        ] {
            assert_eq!(without(untouched.as_bytes()), None);
        }
    }
}
