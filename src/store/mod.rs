//! What lies on disk: file names, the manifest, files being written, and how a run's files
//! become a backup that is either whole or not there.

pub mod audit;
pub mod list;
pub mod manifest;
pub mod names;
pub mod open;
pub mod private;
pub mod sink;
pub mod staging;

pub(crate) mod checked_json;
mod crypt;
mod files;
pub(crate) mod inventory;
mod lock;
mod publish;
mod volume;
