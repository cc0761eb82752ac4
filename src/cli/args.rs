//! The command line as clap reads it: names, help and value syntax, nothing decided yet.
//! [`Command`](super::command::Command) is what it comes to mean.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use schema_backup::config::{Compression, Consistency, ObjectKind, SslMode, parse_size};
use schema_backup::verify::Sample;

const ABOUT: &str = "\
Backs up a MariaDB or MySQL database in parallel, in one consistent snapshot.

The structure of all tables and the data of global tables go to a directory for
this host that is fit for a git repository; the data of local tables goes to a
private directory; ephemeral data is not saved. Which table is which, and where
the directories are, says schema_backup.conf. A backup appears whole or not at
all: until it is complete, the previous one stays as it is.

Without a command, schema_backup performs the backup.";

const AFTER_HELP: &str = "\
Examples:
  schema_backup                      back up as schema_backup.conf says
  schema_backup plan                 show what would be saved, and where to
  schema_backup list                 show the backups there are
  schema_backup verify DIR           check every file of the backup in DIR
  schema_backup -m -e /var/tmp/eph   stop the consumers around the backup, and
                                     save the ephemeral data as well
  schema_backup --socket /run/mysqld/mysqld.sock -u root --database csv2 \\
      --backup-dir /srv/schema --user-data-dir /srv/private -j 8
  schema_backup --progress json 2>run.log
  schema_backup restore /srv/schema/db1.example.org /srv/private/latest --into csv2

Files:
  …/cloudscheduler/etc/schema_backup.conf
      What to back up, and where to. `…` leads to the nearest directory named
      `cloudscheduler` above the program, else above the working directory.
  /etc/cloudscheduler/cloudscheduler.yaml
      The database and its credentials, in the section `database:`.
  ~/.my.cnf
      The same, as the MariaDB and MySQL clients read it.

  A connection setting comes from the first place that has it: the flags (option
  files named by flags among them), --db-config, cloudscheduler.yaml, ~/.my.cnf.

Environment:
  SCHEMA_BACKUP_PASSWORD   The password of the database user
  RUST_BACKTRACE=1         Adds a backtrace to the report of an internal error

Exit codes:
  0    complete
  1    internal error
  2    the command line or the configuration cannot be used
  3    incomplete, or failed while running
  4    differences found
  10   cannot connect, or a privilege is missing
  11   no consistent snapshot possible
  12   cannot write (disk full, read-only, in use by another run)
  130  interrupted";

const AFTER_VERIFY_HELP: &str = "\
Without --against no server is needed: each file must be there, have the size and
checksum that the manifest says, decompress, and be what its name says; and nothing
else may lie there. Encrypted rows are looked into with --identity only. With it, the rows of every saved table are read again in a
fresh snapshot, counted and digested, and every definition is compared.

Examples:
  schema_backup verify /srv/schema/db1.example.org /srv/private/latest
  schema_backup verify /srv/private/latest --sample 3/7 -j 8
  schema_backup verify /srv/private/latest --against --socket /run/mysqld/mysqld.sock

Exit codes:
  0    everything that was to be checked was, and nothing was found
  2    a directory holds no backup, or the command line cannot be used
  3    something could not be checked
  4    a file is damaged, or the database differs
  10   cannot connect, or a privilege is missing
  11   no consistent snapshot possible
  130  interrupted";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "schema_backup",
    version,
    bin_name = "schema_backup",
    propagate_version = true,
    about = ABOUT,
    after_help = AFTER_HELP,
    // Ours are in the group of output flags; one form of help, which fits a line per flag.
    disable_help_flag = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_value_name = "COMMAND",
    max_term_width = 100
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Option<VerbArgs>,
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VerbArgs {
    /// Perform the backup (the default)
    #[command(display_name = "schema_backup")]
    Backup,
    /// Show what a backup would do, and change nothing
    #[command(display_name = "schema_backup")]
    Plan {
        /// Print JSON instead of a table
        #[arg(long, help_heading = "Output")]
        json: bool,
    },
    /// Show the backups there are; needs no database
    #[command(display_name = "schema_backup")]
    List {
        /// Print JSON instead of a table
        #[arg(long, help_heading = "Output")]
        json: bool,
    },
    /// Load backups into a database
    #[command(display_name = "schema_backup")]
    Restore(RestoreArgs),
    /// Check backups: their files, and with --against that a database is still the same
    #[command(display_name = "schema_backup", after_help = AFTER_VERIFY_HELP)]
    Verify(VerifyArgs),
}

/// What only `restore` knows.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to restore")]
pub(crate) struct RestoreArgs {
    /// Directories of one database's backup: the host's, and one of user data
    #[arg(required = true, value_name = "BACKUP_DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// The database to restore into; made if need be [default: the backup's]
    #[arg(long, value_name = "DB")]
    pub(crate) into: Option<String>,
    /// Only these tables with their triggers: names, or patterns with * and ?; directories go before
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_delimiter = ',')]
    pub(crate) tables: Vec<String>,
    /// Load rows only, into tables that are there and empty
    #[arg(long, conflicts_with = "structure_only")]
    pub(crate) data_only: bool,
    /// Create everything, load no rows
    #[arg(long)]
    pub(crate) structure_only: bool,
    /// Drop what is in the way; with --data-only, empty it
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Go on where an interrupted restore stopped
    #[arg(long)]
    pub(crate) resume: bool,
    /// Make the restoring user the definer of views, triggers, routines and events
    #[arg(long)]
    pub(crate) skip_definer: bool,
    /// Look at everything, write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Decrypt rows with the age identity in FILE; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "What to check")]
pub(crate) struct VerifyArgs {
    /// Directories with a backup each; those of one run may be checked together
    #[arg(required = true, value_name = "BACKUP_DIR")]
    pub(crate) directories: Vec<PathBuf>,
    /// Check only part N of T of the data files; N from 1 to T together check all
    #[arg(long, value_name = "N/T")]
    pub(crate) sample: Option<Sample>,
    /// Decrypt rows with the age identity in FILE; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    /// Compare with the live database as well (--database, else the one that was saved)
    #[arg(long)]
    pub(crate) against: bool,
    /// Print the report as JSON
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to back up")]
pub(crate) struct WhatArgs {
    /// The configuration [default: …/cloudscheduler/etc/schema_backup.conf]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Stop consumers and restart providers before the backup; start the consumers after it
    #[arg(short, long, global = true)]
    pub(crate) model: bool,
    /// The same, but leave the consumers stopped
    #[arg(short, long, global = true)]
    pub(crate) target: bool,
    /// Also write the data of ephemeral tables, to DIR
    #[arg(short, long, value_name = "DIR", global = true)]
    pub(crate) ephemeral_directory: Option<PathBuf>,
    /// Leave out views, triggers, routines or events (a list)
    #[arg(long, value_name = "KIND[,…]", value_delimiter = ',', global = true)]
    pub(crate) skip: Option<Vec<ObjectKind>>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where it goes")]
pub(crate) struct PlaceArgs {
    /// The directory that holds a directory for each host (csv2_backup_dir)
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) backup_dir: Option<PathBuf>,
    /// The private directory for user data (user_data_backup_dir)
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) user_data_dir: Option<PathBuf>,
    /// Name of this host's directory [default: its full name]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) host_name: Option<String>,
    /// Store data files plain or compressed: none, zstd, zstd:LEVEL (1 to 19)
    #[arg(long, value_name = "METHOD", global = true)]
    pub(crate) compress: Option<Compression>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Host of the server
    #[arg(long, value_name = "HOST", global = true)]
    pub(crate) host: Option<String>,
    /// Port of the server
    #[arg(long, value_name = "PORT", global = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Socket file of a server on this machine
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Database user
    #[arg(short, long, value_name = "USER", global = true)]
    pub(crate) user: Option<String>,
    /// Database to back up
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) database: Option<String>,
    /// Ask for the password
    #[arg(short = 'p', long, global = true)]
    pub(crate) ask_password: bool,
    /// Read the password from the first line of FILE
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) password_file: Option<PathBuf>,
    /// Accept files with a password or a key although others can read them
    #[arg(long, global = true)]
    pub(crate) allow_readable_credentials: bool,
    /// Read connection settings from the YAML section `database:` of FILE
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) db_config: Option<PathBuf>,
    /// Read only this option file, not ~/.my.cnf
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) defaults_file: Option<PathBuf>,
    /// Read this option file as well
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) defaults_extra_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// disabled, preferred, required, verify-ca or verify-identity
    #[arg(long, value_name = "MODE", global = true)]
    pub(crate) ssl_mode: Option<SslMode>,
    /// Certificates of the authorities to trust (PEM)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) ssl_ca: Option<PathBuf>,
    /// Our certificate (PEM)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) ssl_cert: Option<PathBuf>,
    /// The key to our certificate (PEM)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) ssl_key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Speed and consistency")]
pub(crate) struct SpeedArgs {
    /// Connections that read at the same time
    #[arg(short = 'j', long, value_name = "N", global = true)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Read larger tables in key ranges of about SIZE (such as 64M)
    #[arg(long, value_name = "SIZE", global = true, value_parser = parse_size)]
    pub(crate) chunk_size: Option<u64>,
    /// How the snapshot is taken: auto, binlog, global-lock, table-locks or none
    #[arg(long, value_name = "WAY", global = true)]
    pub(crate) consistency: Option<Consistency>,
    /// The longest wait for a lock of tables or of the server
    #[arg(long, value_name = "SECONDS", global = true, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(crate) lock_wait_timeout: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// How to show progress, on stderr; json: every event on a line
    #[arg(long, value_name = "FORM", value_enum, global = true)]
    pub(crate) progress: Option<ProgressKind>,
    /// Print warnings and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; -vv and -vvv for debugging
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Print help
    #[arg(short, long, action = ArgAction::HelpShort, global = true)]
    help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, global = true)]
    version: Option<bool>,
}

/// The ways to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressKind {
    // A bar on a terminal, else plain.
    Auto,
    Bar,
    // A line every few seconds.
    Plain,
    // Every event as one line of JSON.
    Json,
    // Nothing but warnings.
    None,
}

/// Reads a command line, the program's name included. An error may be a request for help.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Args, clap::Error> {
    Args::try_parse_from(arguments)
}
