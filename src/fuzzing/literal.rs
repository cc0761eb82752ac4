//! Reads SQL literals as a server does whose session has utf8mb4 and no `NO_BACKSLASH_ESCAPES`.
//! Written from the manual ("String Literals", "Hexadecimal Literals", "Numeric Literals") and
//! not from our encoder, whose output it judges.

/// A literal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Null,
    Default,
    /// Its digits, sign, point and exponent.
    Number(Vec<u8>),
    /// The bytes of a string, after the introducer.
    Text(Option<String>, Vec<u8>),
}

/// What is left to be read.
pub(super) struct Lexer<'a>(pub(super) &'a [u8]);

impl Lexer<'_> {
    /// Takes `token` off the front.
    pub(super) fn take(&mut self, token: &str) -> bool {
        match self.0.strip_prefix(token.as_bytes()) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a literal off the front; `None` where there is none.
    pub(super) fn literal(&mut self) -> Option<Literal> {
        if self.word("NULL") {
            return Some(Literal::Null);
        }
        if self.word("DEFAULT") {
            return Some(Literal::Default);
        }
        match *self.0.first()? {
            b'0'..=b'9' | b'-' => Some(Literal::Number(self.number()?)),
            b'_' => {
                self.0 = &self.0[1..];
                let name = self.name()?;
                self.take(" ");
                self.string().map(|text| Literal::Text(Some(name), text))
            }
            _ => self.string().map(|text| Literal::Text(None, text)),
        }
    }

    /// Takes a quoted identifier off the front.
    pub(super) fn identifier(&mut self) -> Option<String> {
        let mut name = Vec::new();
        if !self.take("`") {
            return None;
        }
        loop {
            if self.take("``") {
                name.push(b'`');
            } else if self.take("`") {
                return String::from_utf8(name).ok();
            } else {
                let (first, rest) = self.0.split_first()?;
                name.push(*first);
                self.0 = rest;
            }
        }
    }

    /// A word that no longer one begins with.
    fn word(&mut self, word: &str) -> bool {
        let next = self.0.get(word.len());
        next.is_none_or(|byte| !is_of_name(*byte)) && self.take(word)
    }

    fn name(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| !is_of_name(*byte))?;
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        (end > 0).then(|| String::from_utf8_lossy(name).into_owned())
    }

    fn digits(&mut self) -> usize {
        let count = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        self.0 = &self.0[count..];
        count
    }

    fn number(&mut self) -> Option<Vec<u8>> {
        let all = self.0;
        self.take("-");
        if self.digits() == 0 {
            return None;
        }
        if self.take(".") {
            self.digits();
        }
        if self.take("e") || self.take("E") {
            let _ = self.take("-") || self.take("+");
            if self.digits() == 0 {
                return None;
            }
        }
        // What follows a number at once would make it a name.
        if self.0.first().is_some_and(|byte| is_of_name(*byte)) {
            return None;
        }
        Some(all[..all.len() - self.0.len()].to_vec())
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        if self.take("X'") {
            let end = self.0.iter().position(|byte| *byte == b'\'')?;
            let digits = std::str::from_utf8(&self.0[..end]).ok()?;
            self.0 = &self.0[end + 1..];
            let pairs = (0..end).step_by(2);
            return pairs
                .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
                .collect();
        }
        if !self.take("'") {
            return None;
        }
        let mut text = Vec::new();
        loop {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            match first {
                b'\'' if !self.take("'") => return Some(text),
                b'\\' => {
                    let (escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    text.push(match escaped {
                        b'0' => 0,
                        b'b' => 8,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'Z' => 26,
                        other => *other,
                    });
                }
                other => text.push(*other),
            }
        }
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}
