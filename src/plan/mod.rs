//! Decisions made before data moves: which table is what, where it goes, in which key ranges
//! it is read. Everything below this module is pure; the catalog comes in as plain data.

use serde::Serialize;

use crate::config::Category;

pub mod chunks;
pub mod classify;
pub mod layout;
pub mod literals;
pub mod reuse;

/// What a run would do, for `schema_backup plan`.
#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    /// Product and version of the server.
    pub server: String,
    /// The database.
    pub database: String,
    /// The host directory.
    pub host_dir: String,
    /// The user data directory, if configured.
    pub user_data_dir: Option<String>,
    /// For how many recipients user data would be encrypted; 0 where it is not.
    pub user_data_recipients: usize,
    /// The directory for ephemeral data, if asked for.
    pub ephemeral_dir: Option<String>,
    /// The same for ephemeral data.
    pub ephemeral_recipients: usize,
    /// How the snapshot would be taken.
    pub consistency: String,
    /// Tables and sequences, by name.
    pub tables: Vec<PlannedTable>,
    /// How many views, triggers, routines and events would be saved, by kind.
    pub objects: std::collections::BTreeMap<String, usize>,
    /// What the run would warn of.
    pub warnings: Vec<String>,
}

/// One table of a [`PlanReport`].
#[derive(Debug, Clone, Serialize)]
pub struct PlannedTable {
    /// Its name.
    pub name: String,
    /// Its category.
    pub category: Category,
    /// Whether the table is on a list of the configuration.
    pub listed: bool,
    /// Storage engine, or `SEQUENCE`.
    pub engine: String,
    /// Where its structure goes; `None` for ignored tables.
    pub structure_dir: Option<String>,
    /// Where its data goes; `None` where it is not saved.
    pub data_dir: Option<String>,
    /// Rows, as the server estimates them.
    pub estimated_rows: u64,
    /// Bytes of data, as the server estimates them.
    pub estimated_bytes: u64,
    /// Chunks the data would be read in, estimated; 0 where data is not saved.
    pub chunks: u64,
    /// The key columns that chunks would be ranges of; empty for one stream.
    pub chunk_key: Vec<String>,
}
