//! The command line. The program also starts itself, as the reader that is the floor.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures schema_backup next to mydumper, myloader and mariadb-dump
#[derive(Debug, Parser)]
#[command(
    name = "compare",
    override_usage = "cargo bench --bench compare -- [OPTIONS]",
    max_term_width = 100,
    after_help = "\
Times are medians over the rounds, ratios medians of the ratios within each round.
CPU of the client is that of all its processes; peak memory that of the largest, but
never stated below the some 11 MiB of this process.
Exit codes: 0 measured; 1 failed, or slower than --against says; 2 usage; 130 interrupted."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    /// The data: 1 is 9.1 million rows, and needs some 8 GiB in $TMPDIR
    #[arg(long, value_name = "X", default_value_t = 0.25, value_parser = above_zero)]
    pub(crate) scale: f64,
    /// Rounds that count, after one that does not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,
    /// Threads of schema_backup, mydumper, myloader and the floor
    #[arg(short = 'j', long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: u16,
    /// What to export or restore
    #[arg(long, value_enum, default_value_t = DataSet::Default)]
    pub(crate) data: DataSet,
    /// Measure restores instead of exports
    #[arg(long)]
    pub(crate) restore: bool,
    /// Measure this schema_backup [default: the one built with this benchmark]
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_schema_backup"), hide_default_value = true)]
    pub(crate) program: PathBuf,
    /// Write the results to FILE as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Name what got slower since FILE was written; ratios are compared, not seconds
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// How much slower is still the same, for --against
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    pub(crate) tolerance: f64,
    /// What cargo calls every benchmark with.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Read all rows of a database, and throw them away
    #[command(hide = true)]
    Floor(FloorArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct FloorArgs {
    #[arg(long)]
    pub(crate) socket: PathBuf,
    #[arg(long)]
    pub(crate) threads: usize,
    /// How many rows there are.
    #[arg(long)]
    pub(crate) rows: u64,
}

/// Data to measure with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DataSet {
    /// Four tables: sysbench-like, TPC-H-lineitem-like, texts and blobs, one without a key
    Default,
    /// One table of an INT and four DOUBLEs, 2 million rows
    Doubles,
    /// 5,000 tables of 10 rows
    Tiny,
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "not a number above 0".into())
}
