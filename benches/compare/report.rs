//! What was measured: as tables for people, as JSON to be kept, and held against an earlier one.

use std::fmt;
use std::path::Path;

use mysql::prelude::Queryable;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::args::Args;
use crate::contenders::Contender;
use crate::data::Filled;
use crate::goals::{Goal, What, goals};
use crate::measure::Run;
use crate::server::Server;

const MIB: f64 = 1048576.0;

#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) about: About,
    results: Vec<Entry>,
    goals: Vec<Reached>,
}

/// Under what circumstances.
#[derive(Serialize, Deserialize)]
pub(crate) struct About {
    program: String,
    processor: String,
    cores: usize,
    server: String,
    /// `default export`, `tiny restore` and so on.
    measured: String,
    scale: f64,
    rows: u64,
    tables: usize,
    database_mib: u64,
    rounds: u16,
    threads: u16,
    #[serde(skip)]
    goals: Vec<Goal>,
}

/// Medians of one contender.
#[derive(Serialize, Deserialize)]
struct Entry {
    contender: String,
    wall_s: f64,
    wall_min_s: f64,
    wall_max_s: f64,
    /// To the floor, or to myloader.
    ratio: Option<f64>,
    /// The same of the CPU that client and server used together: other work on the machine
    /// disturbs it less.
    cpu_ratio: Option<f64>,
    client_cpu_s: f64,
    server_cpu_s: f64,
    peak_mib: f64,
    disk_mib: f64,
    /// In the order of the rounds.
    all_wall_s: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
struct Reached {
    goal: String,
    measured: f64,
    at_most: f64,
}

type Runs = [(Contender, Vec<Run>)];

impl About {
    pub(crate) fn of(args: &Args, server: &Server, filled: &Filled) -> Result<About> {
        let version = std::process::Command::new(&args.program)
            .arg("--version")
            .output()
            .map_err(|e| format!("cannot run {}: {e}", args.program.display()))?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let processor = cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == "model name");
        let server: Option<String> = server.connect(None)?.query_first("SELECT VERSION()")?;
        let verb = if args.restore { "restore" } else { "export" };
        Ok(About {
            program: version.lines().next().unwrap_or_default().into(),
            processor: processor
                .map_or("unknown processor", |(_, name)| name.trim())
                .into(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            server: server.unwrap_or_default(),
            measured: format!("{:?} {verb}", args.data).to_lowercase(),
            scale: args.scale,
            rows: filled.rows,
            tables: filled.tables.len(),
            database_mib: filled.mib,
            rounds: args.rounds,
            threads: args.threads,
            goals: goals(args),
        })
    }

    /// Fails unless ratios measured under `earlier` can be compared with ours.
    pub(crate) fn is_like(&self, earlier: &About) -> Result<()> {
        let key = |about: &About| {
            let About {
                measured,
                scale,
                threads,
                ..
            } = about;
            format!("{measured}, scale {scale}, {threads} threads")
        };
        if key(self) == key(earlier) {
            return Ok(());
        }
        Err(format!(
            "--against: measured was {}, not {}",
            key(earlier),
            key(self)
        )
        .into())
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} of {} rows in {} tables (scale {}), rounds: {}, threads: {}\n\
             MariaDB {}, database of {} MiB; {} cores ({})",
            self.program,
            self.measured,
            self.rows,
            self.tables,
            self.scale,
            self.rounds,
            self.threads,
            self.server,
            self.database_mib,
            self.cores,
            self.processor,
        )
    }
}

impl Report {
    pub(crate) fn new(about: About, runs: &Runs) -> Report {
        let reference = runs.iter().find(|(contender, _)| contender.is_reference());
        let results = runs
            .iter()
            .map(|(contender, own)| Entry::new(*contender, own, reference.map(|(_, runs)| &**runs)))
            .collect();
        let goals = about
            .goals
            .iter()
            .filter_map(|goal| Reached::new(goal, runs))
            .collect();
        Report {
            about,
            results,
            goals,
        }
    }

    pub(crate) fn read(file: &Path) -> Result<Report> {
        let failed = |e: &dyn fmt::Display| format!("--against {}: {e}", file.display());
        let text = std::fs::read(file).map_err(|e| failed(&e))?;
        Ok(serde_json::from_slice(&text).map_err(|e| failed(&e))?)
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, text).map_err(|e| format!("--json {}: {e}", file.display()).into())
    }

    /// What of this program is slower than before by more than so many percent.
    pub(crate) fn slower_than(&self, earlier: &Report, tolerance: f64) -> Vec<String> {
        let ours = |name: &str| {
            let all = [Contender::Plain, Contender::Zstd, Contender::Restore];
            all.iter()
                .any(|contender| contender.is_ours() && contender.name() == name)
        };
        let own = self.results.iter().filter(|entry| ours(&entry.contender));
        own.filter_map(|now| {
            let before = earlier
                .results
                .iter()
                .find(|old| old.contender == now.contender)?;
            let (new, old) = (now.ratio?, before.ratio?);
            let percent = (new / old - 1.0) * 100.0;
            let name = &now.contender;
            (percent > tolerance)
                .then(|| format!("{name}: ratio {new:.2}, was {old:.2} (+{percent:.0} %)"))
        })
        .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |ratio: Option<f64>| ratio.map_or_else(|| "-".into(), |r| format!("{r:.2}"));
        writeln!(
            f,
            "{:<27} {:>7} {:>13} {:>6} {:>9} {:>10} {:>10} {:>8} {:>8}",
            "contender",
            "wall s",
            "min–max",
            "ratio",
            "CPU ratio",
            "client CPU",
            "server CPU",
            "peak MiB",
            "disk MiB"
        )?;
        for entry in &self.results {
            writeln!(
                f,
                "{:<27} {:>7.2} {:>13} {:>6} {:>9} {:>10.2} {:>10.2} {:>8.1} {:>8.1}",
                entry.contender,
                entry.wall_s,
                format!("{:.2}–{:.2}", entry.wall_min_s, entry.wall_max_s),
                times(entry.ratio),
                times(entry.cpu_ratio),
                entry.client_cpu_s,
                entry.server_cpu_s,
                entry.peak_mib,
                entry.disk_mib,
            )?;
        }
        if !self.goals.is_empty() {
            writeln!(
                f,
                "\n{:<58} {:>9} {:>9}",
                "goal (at scale 1, 5 rounds)", "measured", "at most"
            )?;
        }
        for Reached {
            goal,
            measured,
            at_most,
        } in &self.goals
        {
            let missed = if measured > at_most { "  missed" } else { "" };
            writeln!(f, "{goal:<58} {measured:>9.2} {at_most:>9.2}{missed}")?;
        }
        write!(f, "\n{}", self.about)
    }
}

impl Entry {
    fn new(contender: Contender, runs: &[Run], reference: Option<&[Run]>) -> Entry {
        let all_wall_s: Vec<f64> = runs.iter().map(wall).collect();
        let of = |f: fn(&Run) -> f64| median(runs.iter().map(f));
        Entry {
            contender: contender.name().into(),
            wall_s: median(all_wall_s.iter().copied()),
            wall_min_s: all_wall_s.iter().copied().fold(f64::INFINITY, f64::min),
            wall_max_s: all_wall_s.iter().copied().fold(0.0, f64::max),
            ratio: reference.map(|reference| ratio(runs, reference, wall)),
            cpu_ratio: reference.map(|reference| ratio(runs, reference, cpu)),
            client_cpu_s: of(|run| run.client_cpu.as_secs_f64()),
            server_cpu_s: of(|run| run.server_cpu.as_secs_f64()),
            peak_mib: of(|run| run.peak_bytes as f64 / MIB),
            disk_mib: of(|run| run.disk_bytes as f64 / MIB),
            all_wall_s,
        }
    }
}

impl Reached {
    /// `None` if what it is about was not measured.
    fn new(goal: &Goal, runs: &Runs) -> Option<Reached> {
        let of = |contender| Some(&*runs.iter().find(|(other, _)| *other == contender)?.1);
        let (own, name) = (of(goal.of)?, goal.of.name());
        let (text, measured) = match goal.what {
            What::TimesOf(other) => (
                format!("{name} / {}", other.name()),
                ratio(own, of(other)?, wall),
            ),
            What::Peak => {
                let peak = median(own.iter().map(|run| run.peak_bytes as f64 / MIB));
                (format!("{name}, peak MiB"), peak)
            }
        };
        Some(Reached {
            goal: text,
            measured,
            at_most: goal.at_most,
        })
    }
}

fn wall(run: &Run) -> f64 {
    run.wall.as_secs_f64()
}

fn cpu(run: &Run) -> f64 {
    (run.client_cpu + run.server_cpu).as_secs_f64()
}

/// The median of the ratios within each round: what slows a machine down for a while then slows
/// both.
fn ratio(runs: &[Run], others: &[Run], of: fn(&Run) -> f64) -> f64 {
    let each = runs.iter().zip(others);
    median(each.map(|(run, other)| of(run) / of(other)))
}

/// NaN of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}
