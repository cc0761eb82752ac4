//! What was asked for: `schema_backup.conf`, the connection, and the plain types that both
//! end in. Everything here is decided before the server is contacted; nothing reads the
//! command line (that is `cli`), nothing talks to a server.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

mod connection;
pub(crate) mod credentials_file;
mod encryption;
pub(crate) mod file;
pub mod host;
pub(crate) mod option_file;
mod read;
mod secret_file;
mod yaml;

pub use connection::{
    ConnectionOverrides, ConnectionSettings, Environment, PASSWORD_VARIABLE, Secret, SslMode,
    TlsSettings,
};
pub use encryption::{EncryptionByCategory, Identities, RecipientSource, Recipients};
pub use file::{find_config, load_config};
pub use secret_file::Exposure;

#[cfg(test)]
pub(crate) use encryption::testing;

/// What becomes of a table: how sensitive its data is decides where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Configuration without secrets: structure and data go to the host directory.
    Global,
    /// User, group and cloud data: data goes to the private directory.
    Local,
    /// Structure only, unless `-e` asks for the data.
    Ephemeral,
    /// Another service's table: left alone.
    Ignore,
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Category::Global => "global",
            Category::Local => "local",
            Category::Ephemeral => "ephemeral",
            Category::Ignore => "ignore",
        })
    }
}

/// How data files are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain SQL (`.sql`).
    None,
    /// Concatenated zstd frames (`.sql.zst`) of this level, 1 to 19.
    Zstd(i32),
}

impl Compression {
    /// zstd at the level that is both fastest and smallest on the data this was made for.
    pub const DEFAULT_ZSTD: Compression = Compression::Zstd(1);
}

impl FromStr for Compression {
    type Err = String;

    /// `none`, `zstd` or `zstd:LEVEL`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Compression::None),
            None if text == "zstd" => Ok(Compression::DEFAULT_ZSTD),
            Some(("zstd", level)) => match level.parse() {
                Ok(level @ 1..=19) => Ok(Compression::Zstd(level)),
                _ => Err(format!("zstd level `{level}` is not a number from 1 to 19")),
            },
            _ => Err(format!("`{text}` is not none, zstd or zstd:LEVEL")),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// [`Compression`] by category of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionByCategory {
    /// Default `none`, so that git can show what changed.
    pub global: Compression,
    /// Default `zstd`.
    pub local: Compression,
    /// Default `zstd`.
    pub ephemeral: Compression,
}

impl Default for CompressionByCategory {
    fn default() -> Self {
        CompressionByCategory {
            global: Compression::None,
            local: Compression::DEFAULT_ZSTD,
            ephemeral: Compression::DEFAULT_ZSTD,
        }
    }
}

/// How all connections are brought to one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The first of the ways below that the server and the privileges allow.
    #[default]
    Auto,
    /// MariaDB with binary log: no lock, positions compared.
    Binlog,
    /// A short global lock while the transactions open.
    GlobalLock,
    /// `LOCK TABLES … READ` while the transactions open.
    TableLocks,
    /// Each connection sees its own state; recorded as such.
    None,
}

impl Consistency {
    /// The values a user may write, in the order they are tried.
    pub const NAMES: [(&'static str, Consistency); 5] = [
        ("auto", Consistency::Auto),
        ("binlog", Consistency::Binlog),
        ("global-lock", Consistency::GlobalLock),
        ("table-locks", Consistency::TableLocks),
        ("none", Consistency::None),
    ];
}

impl FromStr for Consistency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, way)| *way)
            .ok_or_else(|| {
                let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                format!("`{text}` is not one of {}", names.join(", "))
            })
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES
            .iter()
            .find(|(_, way)| way == self)
            .map_or("auto", |(name, _)| name);
        f.write_str(name)
    }
}

/// A kind of object, besides tables and sequences, that a backup can be told to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// Views.
    Views,
    /// Triggers.
    Triggers,
    /// Procedures, functions and packages.
    Routines,
    /// Events.
    Events,
}

impl ObjectKind {
    /// The values a user may write.
    pub const NAMES: [(&'static str, ObjectKind); 4] = [
        ("views", ObjectKind::Views),
        ("triggers", ObjectKind::Triggers),
        ("routines", ObjectKind::Routines),
        ("events", ObjectKind::Events),
    ];
}

impl FromStr for ObjectKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| {
                let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                format!("`{text}` is not one of {}", names.join(", "))
            })
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES
            .iter()
            .find(|(_, kind)| kind == self)
            .map_or("views", |(name, _)| name);
        f.write_str(name)
    }
}

/// The four lists of table names, as the configuration states them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableLists {
    /// Global configuration, nothing sensitive.
    pub global: Vec<String>,
    /// User, group and cloud configuration: sensitive.
    pub local: Vec<String>,
    /// Data never saved, structure is.
    pub ephemeral: Vec<String>,
    /// Tables of other services.
    pub ignore: Vec<String>,
}

/// `schema_backup.conf`, read and resolved; flags are applied on top of it by the caller.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Where the host directory lies. Empty where neither the file nor a `cloudscheduler`
    /// directory says; see [`Config::require_backup_dir`].
    pub csv2_backup_dir: PathBuf,
    /// Where user data goes; without it user data is not backed up.
    pub user_data_backup_dir: Option<PathBuf>,
    /// Services on this host that provide the database.
    pub providers: Vec<String>,
    /// Services that depend on the database.
    pub consumers: Vec<String>,
    /// Which table is what.
    pub lists: TableLists,
    /// Readers; `None` lets the program choose.
    pub threads: Option<NonZeroUsize>,
    /// How data files are stored.
    pub compression: CompressionByCategory,
    /// Whom they are encrypted for.
    pub encryption: EncryptionByCategory,
    /// Bytes of table data a chunk aims at.
    pub chunk_size: u64,
    /// How the snapshot is taken.
    pub consistency: Consistency,
    /// The longest wait for a lock of tables or of the server.
    pub lock_wait_timeout: Duration,
    /// Whether an unchanged file of user data becomes a hard link to the previous backup's.
    pub link_unchanged: bool,
    /// Kinds of objects to leave out.
    pub skip_objects: Vec<ObjectKind>,
    /// Things worth saying at `-v`, such as unknown keys; for whoever read the file to say.
    pub notices: Vec<String>,
}

/// How many connections to use, or files to read at a time: as asked, else as many as there are
/// processors, within reason.
pub fn threads(asked: Option<NonZeroUsize>) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    asked.map_or(processors.clamp(2, 16), NonZeroUsize::get)
}

impl Config {
    /// Default for [`Config::chunk_size`].
    pub const DEFAULT_CHUNK_SIZE: u64 = 16 << 20;
    /// Default for [`Config::lock_wait_timeout`].
    pub const DEFAULT_LOCK_WAIT_TIMEOUT: Duration = Duration::from_secs(60);

    /// An error unless [`Config::csv2_backup_dir`] is known; for after flags were applied.
    pub fn require_backup_dir(&self) -> crate::Result<()> {
        if !self.csv2_backup_dir.as_os_str().is_empty() {
            return Ok(());
        }
        let context = "csv2_backup_dir is not set and there is no cloudscheduler directory";
        Err(Error::new(ErrorKind::Config, context).hint(format!(
            "set csv2_backup_dir to a full path in {}, or give --backup-dir",
            self.path.display()
        )))
    }
}

/// Reads a size such as `65536`, `64K`, `64MiB` or `1G` (powers of 1024), at least 1.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit
        .trim()
        .to_ascii_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("`{text}` is not a size such as 64M")),
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
    {
        Some(0) | None => Err(format!("`{text}` is not a size such as 64M")),
        Some(size) => Ok(size),
    }
}
