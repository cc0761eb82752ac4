//! The manifest: the inventory of one backup directory and, because it is written last, the
//! mark that the directory is complete. It holds content only, no times and no positions, so
//! that a run that finds nothing changed writes the same bytes again. Beside it lie
//! `run.json` (how the backup came about) and `SHA256SUMS`. Both JSON files end with a checksum
//! of their own (`checked_json.rs`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Category;

/// File name of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// File name of the checksums that `sha256sum -c` reads.
pub const SUMS_FILE: &str = "SHA256SUMS";
/// File name of the record of the run.
pub const RUN_FILE: &str = "run.json";
/// The version of the on-disk format that this program writes.
pub const FORMAT: u32 = 1;

/// What a backup directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the on-disk format.
    pub format: u32,
    /// Which of the three directories of a run this is.
    pub kind: BackupKind,
    /// `mariadb` or `mysql`: whose SQL the files are.
    pub flavor: String,
    /// The database that was saved.
    pub database: DatabaseEntry,
    /// Tables and sequences by name.
    pub tables: BTreeMap<String, TableEntry>,
    /// Other objects, in the order in which they can be created.
    pub objects: Vec<ObjectEntry>,
    /// Kinds of objects that the user left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_objects: Vec<crate::config::ObjectKind>,
    /// Where the data files are encrypted: the file, encrypted too, with what this manifest then
    /// leaves out (digests, AUTO_INCREMENT counters, bounds of chunks).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<FileEntry>,
}

/// Which of a run's directories a manifest describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupKind {
    /// All structure and the global data.
    Host,
    /// The local data with its structure.
    UserData,
    /// The ephemeral data with its structure (`-e`).
    Ephemeral,
}

impl BackupKind {
    /// The name used in manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            BackupKind::Host => "host",
            BackupKind::UserData => "user-data",
            BackupKind::Ephemeral => "ephemeral",
        }
    }
}

/// The database itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseEntry {
    /// Its name.
    pub name: String,
    /// Its default character set.
    pub charset: String,
    /// Its default collation.
    pub collation: String,
}

/// One table or sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// What the configuration says of it.
    pub category: Category,
    /// Base table or sequence.
    pub kind: TableKind,
    /// The structure file.
    pub structure: FileEntry,
    /// Columns whose values are saved, in order (generated ones are not).
    pub columns: Vec<String>,
    /// Whether the rows come with their history (system versioning).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub versioned: bool,
    /// The AUTO_INCREMENT counter, where the data is saved too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_increment: Option<u64>,
    /// The rows, where this directory holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataEntry>,
}

/// Base table or sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// A base table.
    Table,
    /// A MariaDB sequence.
    Sequence,
}

impl TableKind {
    /// The name used in manifests and messages.
    pub fn name(self) -> &'static str {
        match self {
            TableKind::Table => "table",
            TableKind::Sequence => "sequence",
        }
    }
}

/// The rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataEntry {
    /// How many.
    pub rows: u64,
    /// `xxh3-128-sum:` and 32 hexadecimal digits: the sum, modulo 2^128, of XXH3-128 over
    /// each row as the server's text protocol states it. Independent of order and chunks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// `none` or `zstd`: what the rows are under their encryption, if there is one.
    pub compression: String,
    /// The key columns whose ranges the chunks are; empty for a single chunk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunk_key: Vec<String>,
    /// The size, in bytes of SQL, that the chunks were meant to have; absent for a single chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_size: Option<u64>,
    /// The chunks in key order.
    pub chunks: Vec<ChunkEntry>,
}

/// One chunk of a table: a key range in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkEntry {
    /// The lower bound (inclusive), as SQL literals; absent for the first chunk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Rows.
    pub rows: u64,
    /// Bytes of SQL before compression.
    pub raw_bytes: u64,
    /// The file.
    #[serde(flatten)]
    pub file: FileEntry,
}

/// One file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path below the backup directory, with `/`.
    pub file: String,
    /// Size on disk.
    pub bytes: u64,
    /// SHA-256 of what is on disk, in hexadecimal.
    pub sha256: String,
}

/// A view, routine or event, a package with its body, or all triggers of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// `view`, `triggers`, `function`, `procedure`, `package` or `event`.
    pub kind: String,
    /// Its name; of triggers, the table's.
    pub name: String,
    /// Its file.
    #[serde(flatten)]
    pub file: FileEntry,
}

/// `run.json`: how a backup came about. Everything here may differ between two runs that
/// save the same content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this program.
    pub program: String,
    /// Start, RFC 3339, UTC.
    pub started: String,
    /// End of the data phase, RFC 3339, UTC.
    pub finished: String,
    /// Host name of the machine that ran it.
    pub host: String,
    /// Product and version of the server.
    pub server: String,
    /// Which way led to one snapshot: `binlog`, `global-lock`, `table-locks` or `none`.
    pub consistency: String,
    /// Where the snapshot stands: binary log position, GTID.
    pub snapshot: BTreeMap<String, String>,
    /// Readers.
    pub threads: usize,
    /// Rows in this directory.
    pub rows: u64,
    /// Bytes of SQL before compression, data files only.
    pub raw_bytes: u64,
    /// Bytes of the data files on disk.
    pub stored_bytes: u64,
    /// All warnings of the run.
    pub warnings: Vec<String>,
}

/// A digest as [`DataEntry::digest`] states it.
pub fn digest_text(digest: u128) -> String {
    format!("xxh3-128-sum:{digest:032x}")
}

impl Manifest {
    /// Every file the manifest names, in its order.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let tables = self.tables.values().flat_map(|table| {
            let chunks = table
                .data
                .iter()
                .flat_map(|data| data.chunks.iter().map(|c| &c.file));
            std::iter::once(&table.structure).chain(chunks)
        });
        let objects = self.objects.iter().map(|object| &object.file);
        tables.chain(objects).chain(&self.private)
    }

    /// Whether the data files are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.private.is_some()
    }

    /// Rows over all tables.
    pub fn rows(&self) -> u64 {
        self.tables
            .values()
            .filter_map(|t| t.data.as_ref())
            .map(|d| d.rows)
            .sum()
    }
}
