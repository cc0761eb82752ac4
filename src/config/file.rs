//! Finds and reads `schema_backup.conf`. Values are checked while the YAML is being parsed, so
//! that an error carries the key and the line. Nothing in the file is evaluated twice: an alias
//! can repeat a list, but no list within a list is accepted, so nothing can multiply.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::encryption::EncryptionSeed;
use super::read::Content;
use super::yaml::{List, Misspelt, Twice, in_brief, one_line, scalar};
use super::{
    Compression, CompressionByCategory, Config, Consistency, EncryptionByCategory, ObjectKind,
    TableLists,
};
use crate::error::{Error, ErrorKind, Result};

/// The directory that `…` stands for.
const ROOT_NAME: &str = "cloudscheduler";
/// Where the file lies below that directory.
const FILE: &str = "etc/schema_backup.conf";
/// Where backups go below that directory, unless the file says otherwise.
const DEFAULT_BACKUP_DIR: &str = "schema/schema_backup";
const MAX_THREADS: usize = 256;
const MIN_CHUNK_SIZE: u64 = 4096;
/// What the server accepts for `lock_wait_timeout`: a year.
const MAX_LOCK_WAIT: u64 = 31_536_000;

const KEYS: [&str; 16] = [
    "csv2_backup_dir",
    "user_data_backup_dir",
    "providers",
    "consumers",
    "global",
    "local",
    "ephemeral",
    "ignore",
    "threads",
    "compression",
    "encryption",
    "chunk_size",
    "consistency",
    "lock_wait_timeout",
    "link_unchanged",
    "skip_objects",
];

/// The configuration file to read: `explicit` as it is, else `etc/schema_backup.conf` in the
/// nearest directory named `cloudscheduler` above the executable, else above (or being) the
/// working directory. The file exists unless it is `explicit`.
pub fn find_config(explicit: Option<&Path>) -> Result<PathBuf> {
    let exe = std::env::current_exe().ok();
    let cwd = std::env::current_dir().ok();
    find_from(explicit, exe.as_deref(), cwd.as_deref())
}

fn find_from(explicit: Option<&Path>, exe: Option<&Path>, cwd: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = explicit {
        return Ok(path.to_path_buf());
    }
    let none = |what: &str, hint: String| Err(Error::new(ErrorKind::Config, what).hint(hint));
    let shown = |path: Option<&Path>| match path {
        Some(path) => path.display().to_string(),
        None => "(unknown)".to_string(),
    };
    let Some(root) = exe
        .and_then(Path::parent)
        .and_then(root_above)
        .or(cwd.and_then(root_above))
    else {
        return none(
            "there is no schema_backup.conf: no directory named cloudscheduler was found",
            format!(
                "looked above the executable {} and above the working directory {}; \
                 name the file with --config",
                shown(exe),
                shown(cwd)
            ),
        );
    };
    let path = root.join(FILE);
    match path.try_exists() {
        Ok(false) => none(
            &format!("there is no configuration file {}", path.display()),
            "looked there and nowhere else; create it, or name another with --config".to_string(),
        ),
        // A file that cannot be looked at gives the better error when it is read.
        Ok(true) | Err(_) => Ok(path),
    }
}

/// `dir` or its nearest ancestor that is named `cloudscheduler`.
fn root_above(dir: &Path) -> Option<&Path> {
    dir.ancestors()
        .find(|dir| dir.file_name().is_some_and(|name| name == ROOT_NAME))
}

/// Reads and checks the configuration file. What it leaves open has its default;
/// `csv2_backup_dir` is empty if there is none, see [`Config::require_backup_dir`].
/// Unknown keys end up in [`Config::notices`].
pub fn load_config(path: &Path) -> Result<Config> {
    config_of(path, &read(path)?.bytes)
}

/// The same, of a file that has this content.
pub(crate) fn config_of(path: &Path, content: &[u8]) -> Result<Config> {
    let text = super::read::text(content).map_err(|line| {
        let what = format!("{}: not plain UTF-8 text, at line {line}", path.display());
        Error::new(ErrorKind::Config, what).hint("save the file as UTF-8")
    })?;
    let raw = parse(text).map_err(|e| {
        Error::new(ErrorKind::Config, format!("cannot use {}", path.display()))
            .because_boxed(shortened(&e).into())
    })?;
    Ok(Config {
        path: path.to_path_buf(),
        csv2_backup_dir: raw
            .csv2_backup_dir
            .flatten()
            .unwrap_or_else(|| default_backup_dir(path).unwrap_or_default()),
        user_data_backup_dir: raw.user_data_backup_dir,
        providers: raw.providers,
        consumers: raw.consumers,
        lists: raw.lists,
        threads: raw.threads,
        compression: raw.compression,
        encryption: raw.encryption,
        chunk_size: raw.chunk_size.unwrap_or(Config::DEFAULT_CHUNK_SIZE),
        consistency: raw.consistency.unwrap_or_default(),
        lock_wait_timeout: raw
            .lock_wait_timeout
            .unwrap_or(Config::DEFAULT_LOCK_WAIT_TIMEOUT),
        link_unchanged: raw.link_unchanged.unwrap_or(true),
        skip_objects: raw.skip_objects,
        notices: raw.notices,
    })
}

/// What the parser says, with no more than the beginning of a value that is long.
fn shortened(error: &serde_yaml::Error) -> String {
    const LONGEST: usize = 300;
    let said = error.to_string();
    let Some((cut, _)) = said.char_indices().nth(LONGEST) else {
        return said;
    };
    let head = &said[..cut];
    match error.location() {
        Some(at) => format!("{head}… at line {} column {}", at.line(), at.column()),
        None => format!("{head}…"),
    }
}

fn default_backup_dir(config: &Path) -> Option<PathBuf> {
    let parent = |path: PathBuf| path.parent().map(Path::to_path_buf);
    [
        std::fs::canonicalize(config).ok().and_then(parent),
        std::env::current_exe().ok().and_then(parent),
        std::env::current_dir().ok(),
    ]
    .iter()
    .flatten()
    .find_map(|dir| root_above(dir))
    .map(|root| root.join(DEFAULT_BACKUP_DIR))
}

fn read(path: &Path) -> Result<Content> {
    super::read::read(path).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "the user running schema_backup needs to read it"
            }
            _ => "name the configuration file with --config",
        };
        Error::new(ErrorKind::Config, format!("cannot read {}", path.display()))
            .because(e)
            .hint(hint)
    })
}

/// The file as it was written.
#[derive(Default)]
struct Raw {
    /// The inner `None` is the word `default`.
    csv2_backup_dir: Option<Option<PathBuf>>,
    user_data_backup_dir: Option<PathBuf>,
    providers: Vec<String>,
    consumers: Vec<String>,
    lists: TableLists,
    threads: Option<NonZeroUsize>,
    compression: CompressionByCategory,
    encryption: EncryptionByCategory,
    chunk_size: Option<u64>,
    consistency: Option<Consistency>,
    lock_wait_timeout: Option<Duration>,
    link_unchanged: Option<bool>,
    skip_objects: Vec<ObjectKind>,
    notices: Vec<String>,
}

fn parse(text: &str) -> Result<Raw, serde_yaml::Error> {
    // The parser takes a stream without a document for a truncated one.
    let text = text.trim_start_matches('\u{feff}');
    if text
        .lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#'))
    {
        return Ok(Raw::default());
    }
    if let Some(line) = super::read::too_deep(text) {
        let message = format!("brackets nested too deeply at line {line}");
        return Err(serde::de::Error::custom(message));
    }
    RawSeed.deserialize(serde_yaml::Deserializer::from_str(text))
}

pub(super) fn path_value(text: &str) -> Result<PathBuf, String> {
    if !Path::new(text).is_absolute() || text.contains('\0') {
        return Err(format!("`{}` is not a full path", one_line(text)));
    }
    Ok(PathBuf::from(text))
}

fn path_or_default(text: &str) -> Result<Option<PathBuf>, String> {
    if text == "default" {
        Ok(None)
    } else {
        path_value(text).map(Some)
    }
}

fn name_value(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("a name is empty".to_string())
    } else {
        Ok(text.to_string())
    }
}

fn threads_value(text: &str) -> Result<NonZeroUsize, String> {
    text.parse::<NonZeroUsize>()
        .ok()
        .filter(|n| n.get() <= MAX_THREADS)
        .ok_or_else(|| {
            format!(
                "`{}` is not a number from 1 to {MAX_THREADS}",
                one_line(text)
            )
        })
}

fn chunk_size_value(text: &str) -> Result<u64, String> {
    match super::parse_size(text)? {
        size if size < MIN_CHUNK_SIZE => Err(format!(
            "`{text}` is too small, the minimum is {MIN_CHUNK_SIZE}"
        )),
        size => Ok(size),
    }
}

fn truth_value(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not true or false"))
}

fn seconds_value(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=MAX_LOCK_WAIT) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "`{}` is not a whole number of seconds from 1 to {MAX_LOCK_WAIT}",
            one_line(text)
        )),
    }
}

pub(super) const PATH: &str = "a full path";
const COMPRESSION: &str = "none, zstd or zstd:LEVEL";

/// One word for all categories, or a map with one for some.
struct CompressionSeed;

impl<'de> DeserializeSeed<'de> for CompressionSeed {
    type Value = CompressionByCategory;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CompressionSeed {
    type Value = CompressionByCategory;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{COMPRESSION}, or a map of these for global, local and ephemeral"
        )
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(CompressionByCategory::default())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let parsed = text.parse::<Compression>();
        let all = parsed.map_err(|why| E::custom(in_brief(why, text)))?;
        Ok(CompressionByCategory {
            global: all,
            local: all,
            ephemeral: all,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut by = CompressionByCategory::default();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let slot = match key.as_str() {
                "global" => &mut by.global,
                "local" => &mut by.local,
                "ephemeral" => &mut by.ephemeral,
                other => {
                    return Err(serde::de::Error::custom(format!(
                        "`{}` is not one of global, local, ephemeral",
                        one_line(other)
                    )));
                }
            };
            if !seen.insert(key) {
                map.next_value_seed(Twice)?;
            } else if let Some(value) = map.next_value_seed(scalar(COMPRESSION, str::parse))? {
                *slot = value;
            }
        }
        Ok(by)
    }
}

/// What is said of a file that is something else.
const NO_LINES: &str = "text, where lines of the form `key: value` are expected";

/// The whole file.
struct RawSeed;

impl<'de> DeserializeSeed<'de> for RawSeed {
    type Value = Raw;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for RawSeed {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lines of the form `key: value`")
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    // Some other file, perhaps a secret one, of which nothing is repeated.
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Raw, E> {
        Err(E::custom(NO_LINES))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Raw, E> {
        Err(E::custom(NO_LINES))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Raw, E> {
        Err(E::custom(NO_LINES))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Raw, E> {
        Err(E::custom(NO_LINES))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw::default();
        let mut seen = HashSet::new();
        let names = || List { parse: name_value };
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                map.next_value_seed(Twice)?;
                continue;
            }
            match key.as_str() {
                "csv2_backup_dir" => {
                    raw.csv2_backup_dir = map.next_value_seed(scalar(PATH, path_or_default))?;
                }
                "user_data_backup_dir" => {
                    raw.user_data_backup_dir = map.next_value_seed(scalar(PATH, path_value))?;
                }
                "providers" => raw.providers = map.next_value_seed(names())?,
                "consumers" => raw.consumers = map.next_value_seed(names())?,
                "global" => raw.lists.global = map.next_value_seed(names())?,
                "local" => raw.lists.local = map.next_value_seed(names())?,
                "ephemeral" => raw.lists.ephemeral = map.next_value_seed(names())?,
                "ignore" => raw.lists.ignore = map.next_value_seed(names())?,
                "threads" => {
                    raw.threads = map.next_value_seed(scalar("a number", threads_value))?;
                }
                "compression" => raw.compression = map.next_value_seed(CompressionSeed)?,
                "encryption" => raw.encryption = map.next_value_seed(EncryptionSeed)?,
                "chunk_size" => {
                    let seed = scalar("a size such as 64M", chunk_size_value);
                    raw.chunk_size = map.next_value_seed(seed)?;
                }
                "consistency" => {
                    raw.consistency = map.next_value_seed(scalar("one word", str::parse))?;
                }
                "lock_wait_timeout" => {
                    let seed = scalar("a number of seconds", seconds_value);
                    raw.lock_wait_timeout = map.next_value_seed(seed)?;
                }
                "link_unchanged" => {
                    let seed = scalar("true or false", truth_value);
                    raw.link_unchanged = map.next_value_seed(seed)?;
                }
                "skip_objects" => {
                    raw.skip_objects = map.next_value_seed(List { parse: str::parse })?;
                }
                // Ignored, it would leave data in the clear that is meant to be encrypted.
                unknown if near_key(unknown) == Some("encryption") => {
                    map.next_value_seed(Misspelt("encryption"))?;
                }
                unknown => {
                    raw.notices.push(unknown_key(unknown));
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(raw)
    }
}

fn unknown_key(key: &str) -> String {
    let shown = one_line(key);
    match near_key(key) {
        Some(known) => format!("unknown key `{shown}` ignored; did you mean `{known}`?"),
        None => format!("unknown key `{shown}` ignored"),
    }
}

/// The key that `key` may be a misspelling of.
fn near_key(key: &str) -> Option<&'static str> {
    let shown = one_line(key);
    KEYS.iter()
        .map(|known| {
            (
                strsim::normalized_damerau_levenshtein(&shown, known),
                *known,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity >= 0.6)
        .map(|(_, known)| known)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
