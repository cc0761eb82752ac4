//! `cloudscheduler.yaml`: the section `database:` of it, which says where the database is and
//! who we are to it. No error repeats a value, which may be the password in the wrong place.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::connection::{Secret, Stated, config};
use crate::error::{Error, Result};

/// `cloudscheduler.yaml`, of which only this section matters here.
#[derive(Deserialize)]
struct CredentialsFile {
    database: Option<Section>,
}

#[derive(Deserialize)]
struct Section {
    #[serde(default, deserialize_with = "text")]
    db_host: Option<String>,
    #[serde(default, deserialize_with = "port")]
    db_port: Option<u16>,
    #[serde(default, deserialize_with = "text")]
    db_user: Option<String>,
    #[serde(default, deserialize_with = "text")]
    db_password: Option<String>,
    #[serde(default, deserialize_with = "text")]
    db_name: Option<String>,
}

/// Text and nothing else: once the parser has made a number or a truth value of an unquoted
/// password, what was written is lost.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Text)
}

/// A number, quoted or not.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    struct Port;
    impl Visitor<'_> for Port {
        type Value = Option<u16>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a port")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            match u16::try_from(number) {
                Ok(port @ 1..) => Ok(Some(port)),
                _ => Err(E::custom("not a port")),
            }
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            match text.trim().parse() {
                Ok(port @ 1u16..) => Ok(Some(port)),
                _ => Err(E::custom("not a port")),
            }
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Port)
}

/// What the `database:` section of the file states.
pub(super) fn parse(path: &Path, content: &[u8]) -> Result<Stated> {
    let file: Option<CredentialsFile> =
        serde_yaml::from_slice(content).map_err(|error| yaml_error(path, &error))?;
    let section = file.and_then(|file| file.database).ok_or_else(|| {
        config(format!("{}: no `database:` section", path.display())).hint(
            "the file needs a mapping `database:` with db_host, db_user, db_password and db_name",
        )
    })?;
    Ok(Stated {
        host: section.db_host,
        port: section.db_port,
        user: section.db_user,
        password: section.db_password.map(Secret::new),
        password_from: Some(path.to_owned()),
        database: section.db_name,
        ..Stated::default()
    }
    .without_empty())
}

/// Says where it is and which key it is, in our words only: those of the parser may quote
/// the value. The parser puts the path of the key in front, which is all that is looked at.
fn yaml_error(path: &Path, error: &serde_yaml::Error) -> Error {
    const KEYS: [&str; 5] = ["db_host", "db_port", "db_user", "db_password", "db_name"];
    let message = error.to_string();
    let key = KEYS
        .into_iter()
        .find(|key| message.starts_with(&format!("database.{key}: ")));
    let place = match (error.location(), key) {
        (Some(at), Some(_)) => format!("{}: line {}", path.display(), at.line()),
        (Some(at), None) => format!(
            "{}: line {}, column {}",
            path.display(),
            at.line(),
            at.column()
        ),
        (None, _) => path.display().to_string(),
    };
    match key {
        Some("db_port") => config(format!("{place}: `db_port` is not a port"))
            .hint("a port is a number from 1 to 65535"),
        Some(key) => config(format!("{place}: the value of `{key}` must be quoted"))
            .hint("without quotes it is not text to YAML; write it between single quotes"),
        None => config(format!("{place}: not valid YAML, or not the form of cloudscheduler.yaml"))
            .hint("look for tabs, unquoted special characters, repeated keys, and whether `database:` is a mapping"),
    }
}
