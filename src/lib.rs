//! schema_backup: a parallel streaming exporter of MySQL and MariaDB databases.
//!
//! The verbs tell the story from the top: [`backup`], [`restore`], [`verify`], [`plan_report`]
//! and [`list`](store::list). A row travels like this:
//!
//! ```text
//!  plan ──jobs (largest first)──▶ reader threads ──blocks──▶ rayon pool ──frames──▶ sink ──▶ file
//!  pure    crossbeam-channel       1 snapshot                 zstd, hash            per file, in order
//!                                  connection each
//!                                  wire → SQL text
//!         ◀──────────────── empty blocks come back: their number is the memory bound ──────────────
//! ```
//!
//! Where nothing is compressed, or the readers keep all processors busy, each does the rest itself:
//! what it has encoded is in its core's cache. Where data is encrypted, a sink in front of the file's
//! does it, frame by frame.
//!
//! The way back is shorter: [`restore`] hashes a file while it reads it, takes it apart into
//! statements again, and these for MariaDB into parameters, and sends each chunk as one transaction
//! over one of several connections.
//!
//! The rooms, from the top: [`backup`] runs a backup stage by stage, [`restore`] a restore;
//! [`verify`] gives every file a verdict; [`survey`] looks around
//! before anything is written; [`pipeline`] moves rows; [`plan`] decides which table goes
//! where and in which pieces; [`encode`] turns rows and definitions into SQL text; [`server`]
//! does all talk with the database, the consistent snapshot above all; [`live`] holds a database
//! against what backups say of it; [`store`] owns what lies on disk, up to the atomic
//! publication; [`service`] stops and starts services; [`config`] is what was asked for. Arrows
//! point downwards only. Two rooms are for tests, and in no release: `failpoint`, steps at which
//! a run can be made to stop, and `fuzzing`, harnesses for input that nobody should trust.
//!
//! The library never prints, never exits, and knows neither the command line nor progress
//! bars: it tells an [`Observer`] what happens, looks at an [`Interrupt`], and returns.
//!
//! What holds whatever happens: one snapshot or a refusal; any table not saved in full is an
//! error; the previous good backup survives until the new one is complete on disk; memory is
//! bounded by configuration; secrets appear in no message and no group-readable file.

pub mod backup;
pub mod config;
pub mod encode;
pub mod error;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod interrupt;
pub mod live;
pub mod pipeline;
pub mod plan;
pub mod plan_report;
pub mod restore;
pub mod server;
pub mod service;
pub mod store;
pub mod survey;
pub mod verify;

mod failpoint;
mod tally;

pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Observer};
#[cfg(feature = "failpoints")]
pub use failpoint::{POINTS as FAILPOINTS, VARIABLE as FAILPOINT_VARIABLE};
pub use interrupt::Interrupt;

use std::path::PathBuf;

/// What a backup or a plan needs to know.
#[derive(Debug)]
pub struct Request {
    /// The server and the database.
    pub connection: config::ConnectionSettings,
    /// `schema_backup.conf` with the flags applied.
    pub config: config::Config,
    /// Names the host's subdirectory of `csv2_backup_dir`.
    pub host_name: String,
    /// Where to write the ephemeral tables' data, if anywhere (`-e`).
    pub ephemeral_dir: Option<PathBuf>,
    /// What to do with services around the backup (`-m`, `-t`).
    pub services: service::ServiceAction,
}
