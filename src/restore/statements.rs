//! Taking the files of a backup apart into statements, as the stock client does: by the
//! delimiter outside quotes, and by the two client commands that our files use, `DELIMITER` and
//! `\C`, each on a line of its own. Holds one statement at a time in memory.

use std::io::{self, BufRead};

use memchr::{memchr2, memchr3};

/// The statements of a file, without their delimiters; comments between them are left out.
pub(crate) struct Statements<R> {
    source: R,
    /// The statement, and behind it what has been read of the next line.
    text: Vec<u8>,
    /// `;` where it is `None`.
    delimiter: Option<Vec<u8>>,
    /// Whether two bytes are one character, in the character set of the text.
    is_pair: Pair,
}

impl<R: BufRead> Statements<R> {
    pub(crate) fn new(source: R) -> Self {
        Statements {
            source,
            text: Vec::new(),
            delimiter: None,
            is_pair: |_, _| false,
        }
    }

    /// The next statement; `None` at the end of the file. A file that ends within a statement is
    /// an error ([`io::ErrorKind::UnexpectedEof`]).
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.text.clear();
        let mut quote = None;
        loop {
            let line = self.text.len();
            if self.source.read_until(b'\n', &mut self.text)? == 0 {
                let nothing = self.text.is_empty();
                return if nothing {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            if line == 0 && self.take_command() {
                self.text.clear();
                continue;
            }
            if let Some(delimiter) = &self.delimiter {
                if self.text[line..].strip_suffix(b"\n") == Some(delimiter) {
                    return Ok(Some(self.text[..line].trim_ascii_end()));
                }
                continue;
            }
            quote = self.scan(line, quote);
            if quote.is_none() && self.text.ends_with(b";\n") {
                return Ok(Some(&self.text[..self.text.len() - 2]));
            }
        }
    }

    /// Obeys the line in `text` if it is a comment, empty or a command of the client.
    fn take_command(&mut self) -> bool {
        let line = self.text.trim_ascii_end();
        if let Some(delimiter) = line.strip_prefix(b"DELIMITER ") {
            self.delimiter = Some(delimiter.to_vec()).filter(|d| d != b";");
            return true;
        }
        if self.delimiter.is_some() {
            return false;
        }
        if let Some(charset) = line.strip_prefix(b"\\C ") {
            self.is_pair = pairs_of(charset.trim_ascii_end());
            return true;
        }
        line.is_empty() || line.starts_with(b"-- ")
    }

    /// Follows the quotes from `from` to the end of what has been read.
    fn scan(&self, from: usize, mut quote: Option<u8>) -> Option<u8> {
        let mut rest = &self.text[from..];
        if rest.windows(2).any(|two| (self.is_pair)(two[0], two[1])) {
            return self.scan_characters(rest, quote);
        }
        loop {
            let Some(open) = quote else {
                let at = memchr3(b'\'', b'"', b'`', rest)?;
                quote = Some(rest[at]);
                rest = &rest[at + 1..];
                continue;
            };
            let escape = if open == b'`' { open } else { b'\\' };
            let Some(at) = memchr2(open, escape, rest) else {
                return quote;
            };
            if rest[at] == open {
                quote = None;
                rest = &rest[at + 1..];
            } else {
                rest = rest.get(at + 2..).unwrap_or_default();
            }
        }
    }

    /// The same, character by character, where the second byte of one may look like a quote or a
    /// backslash.
    fn scan_characters(&self, text: &[u8], mut quote: Option<u8>) -> Option<u8> {
        let mut at = 0;
        while at < text.len() {
            let byte = text[at];
            let next = text.get(at + 1).copied();
            at += 1;
            if next.is_some_and(|next| (self.is_pair)(byte, next)) {
                at += 1;
                continue;
            }
            match quote {
                None if matches!(byte, b'\'' | b'"' | b'`') => quote = Some(byte),
                Some(open) if byte == open => quote = None,
                // The server takes the byte behind it for one character, whatever it is.
                Some(open) if byte == b'\\' && open != b'`' => at += 1,
                _ => {}
            }
        }
        quote
    }
}

type Pair = fn(u8, u8) -> bool;

/// Two-byte characters, of the character sets whose second bytes may be ASCII.
fn pairs_of(charset: &[u8]) -> Pair {
    match charset {
        b"gbk" | b"gb18030" => {
            |lead, trail| matches!(lead, 0x81..=0xfe) && matches!(trail, 0x40..=0x7e | 0x80..=0xfe)
        }
        b"big5" => {
            |lead, trail| matches!(lead, 0xa1..=0xf9) && matches!(trail, 0x40..=0x7e | 0xa1..=0xfe)
        }
        b"sjis" | b"cp932" => |lead, trail| {
            matches!(lead, 0x81..=0x9f | 0xe0..=0xfc) && matches!(trail, 0x40..=0x7e | 0x80..=0xfc)
        },
        _ => |_, _| false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut statements = Statements::new(text);
        let mut found = Vec::new();
        while let Some(statement) = statements.next()? {
            found.push(statement.to_vec());
        }
        Ok(found)
    }

    #[test]
    fn semicolons_and_line_ends_in_quotes_belong_to_the_statement() {
        let text = b"-- schema_backup: rows of `a;\n'x';\n\nINSERT INTO `a;\nb` (`c`) VALUES\n('it\\'s;'),\n(\"--;\\\\\");\nSET x=1;\n";
        let found = all(text).unwrap();
        // The comment names the table on one line only; what follows it is a statement.
        assert_eq!(found[0], b"'x'");
        assert_eq!(
            found[1],
            b"INSERT INTO `a;\nb` (`c`) VALUES\n('it\\'s;'),\n(\"--;\\\\\")"
        );
        assert_eq!(found[2], b"SET x=1");
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn compound_statements_end_at_their_delimiter() {
        let text = b"DELIMITER $$\nCREATE PROCEDURE p()\nBEGIN\n  SELECT 'x;\n';\n-- ;\nEND\n$$\nDELIMITER ;\nSET a=1;\n";
        let found = all(text).unwrap();
        assert_eq!(
            found[0],
            b"CREATE PROCEDURE p()\nBEGIN\n  SELECT 'x;\n';\n-- ;\nEND"
        );
        assert_eq!(found[1], b"SET a=1");
    }

    #[test]
    fn second_bytes_of_characters_are_no_quotes() {
        let text =
            b"\\C gbk\nCREATE VIEW `v` AS SELECT '\x81\x5c' AS `a;b`;\n\\C utf8mb4\nSET a=1;\n";
        let found = all(text).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with(b"`a;b`"));
    }

    /// MySQL states the character A5 5C so: the second backslash escapes the byte behind it.
    #[test]
    fn an_escaped_byte_is_no_first_byte() {
        let text = b"\\C big5\nCREATE VIEW `v` AS select '\xa5\\\\\xa4\xa4' AS `c`;\nSET a=1;\n";
        assert_eq!(all(text).unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        assert_eq!(
            all(b"INSERT INTO t VALUES\n(1),\n").unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(all(b"SET a='x;\n").is_err());
        assert!(all(b"").unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn literals_of_any_bytes_are_kept_whole(values in proptest::collection::vec(
            proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), 1..6)) {
            let mut text = Vec::new();
            let mut expected = Vec::new();
            for value in &values {
                // Escaped as the server's manual has it, line ends included.
                let mut statement = b"SET a='".to_vec();
                for byte in value {
                    match byte {
                        b'\'' | b'\\' => statement.extend([b'\\', *byte]),
                        b'\n' => statement.extend(b"\\n"),
                        other => statement.push(*other),
                    }
                }
                statement.push(b'\'');
                text.extend(&statement);
                text.extend(b";\n");
                expected.push(statement);
            }
            proptest::prop_assert_eq!(all(&text).unwrap(), expected);
        }
    }
}
