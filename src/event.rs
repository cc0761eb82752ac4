//! What the engine tells whoever watches. Events are the contract between the engine and a
//! user interface: one coordinator emits them, in order, and an observer can neither fail
//! nor stop a run. Serialised (`--progress json`), each is one JSON object on one line with
//! its kind in `"event"`; the field docs below are that schema.

use serde::Serialize;

/// Receives the events of a run. Calls come from one thread at a time and should be quick.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// An observer that ignores everything.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event) {}
}

/// One thing that happened in a run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A phase of the run began.
    Phase {
        /// Which one.
        phase: Phase,
    },
    /// Something the user should know; the run goes on. Also listed in `run.json`.
    Warning {
        /// One line.
        message: String,
    },
    /// Worth saying at `-v`.
    Notice {
        /// One line.
        message: String,
    },
    /// Connected; what the server is.
    Connected {
        /// Product and version, such as `MariaDB 10.11.6`.
        server: String,
        /// The database.
        database: String,
    },
    /// All connections see one state.
    Snapshot {
        /// Which way led there, and where it stands (position, GTID).
        description: String,
    },
    /// Data is about to be read: from the server, or from the files of backups.
    Planned {
        /// Tables whose data will be read.
        tables: usize,
        /// Chunks over all of them.
        chunks: usize,
        /// Estimated rows.
        rows: u64,
        /// Estimated bytes of work (server statistics).
        bytes: u64,
    },
    /// A reader began a chunk.
    ChunkStarted {
        /// The reader, from 0.
        worker: usize,
        /// The table.
        table: String,
        /// The chunk of that table, from 1.
        chunk: usize,
        /// How many chunks the table has.
        chunks: usize,
        /// Estimated rows of the chunk.
        rows: u64,
    },
    /// A reader has read the last row of its chunk and is free again.
    ChunkRead {
        /// The reader, from 0.
        worker: usize,
        /// The table.
        table: String,
        /// Rows in the chunk.
        rows: u64,
    },
    /// A table is complete on disk (staged).
    TableDone {
        /// The table.
        table: String,
        /// Its rows.
        rows: u64,
        /// Bytes of SQL.
        raw_bytes: u64,
        /// Bytes on disk.
        stored_bytes: u64,
    },
    /// How far reading the data is; several a second.
    Progress(Progress),
    /// The run is complete and published.
    Finished(Box<Summary>),
    /// A restore is complete, and what arrived is what was saved.
    Restored(Box<RestoreSummary>),
}

impl Phase {
    /// Whether [`Event::Progress`] tells how far it is.
    pub fn has_progress(self) -> bool {
        matches!(
            self,
            Phase::Data | Phase::Load | Phase::Files | Phase::Compare
        )
    }
}

/// The phases of a backup, in order, and those of other verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Stopping and restarting services.
    Services,
    /// Connecting and reading the catalog.
    Catalog,
    /// Bringing all connections to one snapshot.
    Snapshot,
    /// Writing structure files.
    Structure,
    /// Finding key ranges of large tables.
    Splitting,
    /// Writing rows.
    Data,
    /// Syncing and publishing.
    Publish,
    /// Restore: looking at the backups and the target.
    Examine,
    /// Restore: creating tables and sequences.
    CreateTables,
    /// Restore: loading rows and building indexes.
    Load,
    /// Restore: creating foreign keys, routines, views, triggers and events.
    CreateObjects,
    /// Checking the files of backups (`verify`).
    Files,
    /// Comparing a live database with backups (`verify --against`, and at the end of a restore).
    Compare,
}

/// How far reading the data is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    /// Share done, 0 to 1; reaches 1 only at the end. It falls when a table turns out to be
    /// larger than the server's statistics said.
    pub fraction: f64,
    /// Rows read so far.
    pub rows: u64,
    /// Bytes of SQL text so far.
    pub raw_bytes: u64,
    /// Bytes written so far; of files that are checked, bytes read.
    pub stored_bytes: u64,
    /// Tables complete so far.
    pub tables_done: usize,
    /// Seconds since reading began.
    pub seconds: f64,
    /// What each busy reader is doing.
    pub workers: Vec<WorkerProgress>,
}

/// What one reader is doing.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerProgress {
    /// The reader, from 0.
    pub worker: usize,
    /// Its table.
    pub table: String,
    /// The chunk of that table, from 1.
    pub chunk: usize,
    /// How many chunks the table has.
    pub chunks: usize,
    /// Rows of this chunk read so far.
    pub rows: u64,
    /// Estimated rows of this chunk; may be wrong in either direction.
    pub estimated_rows: u64,
}

/// What a completed backup amounts to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Tables whose structure was saved.
    pub structures: usize,
    /// Views, triggers, routines, events, sequences.
    pub objects: usize,
    /// Tables whose data was saved.
    pub tables: usize,
    /// Rows saved.
    pub rows: u64,
    /// Bytes of SQL text.
    pub raw_bytes: u64,
    /// Bytes of data on disk.
    pub stored_bytes: u64,
    /// Seconds from start to publication.
    pub seconds: f64,
    /// Seconds of the data phase.
    pub data_seconds: f64,
    /// How the snapshot was taken, and where (position, GTID).
    pub snapshot: String,
    /// All warnings, in order.
    pub warnings: Vec<String>,
    /// Where the backup lies.
    pub destinations: Vec<Destination>,
}

/// What a restore did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreSummary {
    /// The database restored into.
    pub database: String,
    /// Product and version of the server.
    pub server: String,
    /// Whether the database is made by the restore.
    pub creates_database: bool,
    /// Tables and sequences.
    pub tables: usize,
    /// Views, routines, events, and tables with triggers.
    pub objects: usize,
    /// Rows.
    pub rows: u64,
    /// Bytes of SQL text.
    pub raw_bytes: u64,
    /// Tables that were compared with the manifest, and are the same.
    pub compared: usize,
    /// Seconds from start to end.
    pub seconds: f64,
    /// All warnings, in order.
    pub warnings: Vec<String>,
}

/// One directory that a run published.
#[derive(Debug, Clone, Serialize)]
pub struct Destination {
    /// What it holds: `host`, `user-data` or `ephemeral`.
    pub kind: String,
    /// The directory.
    pub path: String,
    /// Files that are new or changed.
    pub files_written: usize,
    /// Files that were left as they are.
    pub files_unchanged: usize,
    /// For how many recipients its rows are encrypted; 0 where they are not.
    pub recipients: usize,
}
