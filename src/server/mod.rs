//! All talk with the database server: connecting, what it is and may do for us, the catalog,
//! the sealed pool of snapshot connections, and rows straight from the wire.

pub(crate) mod binary;
pub(crate) mod bulk;
pub mod catalog;
pub mod connect;
pub mod consistency;
pub mod definitions;
pub mod driver;
pub(crate) mod execute;
pub mod flavor;
pub mod line;
pub mod lock;
pub mod privileges;
pub mod rows;
pub mod snapshot;
pub mod socket;
pub mod wire;

use std::thread::ScopedJoinHandle;

use crate::error::{Error, ErrorKind, Result};

/// Quotes an identifier with backticks.
pub fn quote_identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Whether a name can stand in a statement as it is, as those of character sets and collations do.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Quotes identifiers and joins them with commas.
pub fn quote_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names
        .into_iter()
        .map(quote_identifier)
        .collect::<Vec<_>>()
        .join(",")
}

/// A string literal for queries of our own, whose sessions have utf8mb4 and no `sql_mode` that
/// matters to it.
pub fn quote_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

/// What a thread of ours returned; a panic is an error.
pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread panicked")))
}
