//! The pieces that configuration in YAML is made of: each checks its value while the parser is at
//! it, so that an error carries the line, and repeats no more than the beginning of a value.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// A scalar, by its text, so that a bare number may be a name; null is `None`.
pub(super) struct Scalar<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

pub(super) fn scalar<T>(expected: &'static str, parse: fn(&str) -> Result<T, String>) -> Scalar<T> {
    Scalar { expected, parse }
}

impl<'de, T> DeserializeSeed<'de> for Scalar<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T> Visitor<'de> for Scalar<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_none<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_str(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<T>, E> {
        let parsed = (self.parse)(text).map(Some);
        parsed.map_err(|why| E::custom(in_brief(why, text)))
    }
}

/// A list of scalars without repetitions; null is the empty list.
pub(super) struct List<T> {
    pub(super) parse: fn(&str) -> Result<T, String>,
}

impl<'de, T: Clone + Eq + Hash> DeserializeSeed<'de> for List<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Clone + Eq + Hash> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list such as [a, b]")
    }

    fn visit_none<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        let mut number = 0;
        while let Some(entry) = entries.next_element_seed(scalar("a name", self.parse))? {
            number += 1;
            let Some(entry) = entry else {
                let message = format!("entry {number} of the list is empty (null)");
                return Err(serde::de::Error::custom(message));
            };
            if seen.insert(entry.clone()) {
                list.push(entry);
            }
        }
        Ok(list)
    }
}

/// The value of a key that was there before: always an error, with the line of this value.
pub(super) struct Twice;

impl<'de> DeserializeSeed<'de> for Twice {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Twice {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this key only once")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom("this key is given twice"))
    }
}

/// The value of a key that looks like this one: always an error, with the line of the value.
pub(super) struct Misspelt(pub(super) &'static str);

impl<'de> DeserializeSeed<'de> for Misspelt {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Misspelt {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key to be spelled `{}`", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        let why = format!("unknown key; did you mean `{}`?", self.0);
        Err(serde::de::Error::custom(why))
    }
}

/// Why `text` is wrong, without repeating all of it if it is long.
pub(super) fn in_brief(why: String, text: &str) -> String {
    if text.len() > 200 {
        format!("`{}` is not what is expected here", one_line(text))
    } else {
        why
    }
}

/// At most 60 characters of `text`, without control characters.
pub(super) fn one_line(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut line: String = chars.by_ref().take(60).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
}
