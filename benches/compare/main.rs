//! Measures how fast schema_backup exports or restores a database, next to the floor (the same
//! rows read and thrown away) and to mydumper, myloader and mariadb-dump where they are
//! installed: `cargo bench --bench compare -- --help`. It asserts no time: it prints numbers for
//! a reader to judge, and with `--against` compares them with earlier ones. It touches no running
//! server and leaves nothing behind.
//!
//! Contenders take turns: each runs once in a round, and the first round does not count.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a benchmark is for is what it prints"
)]

mod args;
mod children;
mod contenders;
mod data;
mod floor;
mod goals;
mod measure;
mod report;
mod server;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Role};
use children::Children;
use contenders::{Bench, Contender};
use measure::Run;
use report::{About, Report};
use server::Server;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args = Args::parse();
    let children = Children::default();
    let outcome = match &args.role {
        Some(Role::Floor(args)) => floor::read(args).map(|()| true),
        None => children
            .end_on_signals()
            .and_then(|()| compare(&args, &children)),
    };
    match outcome {
        _ if children.are_stopped() => {
            eprintln!("compare: interrupted");
            ExitCode::from(130)
        }
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing got slower.
fn compare(args: &Args, children: &Children) -> Result<bool> {
    let earlier = args.against.as_deref().map(Report::read).transpose()?;
    let contenders = Contender::installed(args.restore);

    step("starting a throwaway server on a private socket");
    let server = Server::start(children, args.scale)?;
    step("filling the database");
    let filled = data::fill(&mut server.connect(None)?, args.data, args.scale)?;
    let about = About::of(args, &server, &filled)?;
    println!("{about}");
    // The comparison may not be possible: say so now, not after an hour.
    if let Some(earlier) = &earlier {
        about.is_like(&earlier.about)?;
    }
    let bench = Bench::prepare(args, &server, children, &filled)?;

    let mut runs: Vec<(Contender, Vec<Run>)> = contenders
        .into_iter()
        .map(|contender| (contender, Vec::new()))
        .collect();
    for round in 0..=args.rounds {
        let counts = if round == 0 {
            ", which does not count"
        } else {
            ""
        };
        step(&format!("round {round} of {}{counts}", args.rounds));
        for (contender, runs) in &mut runs {
            let run = bench.run(*contender)?;
            println!("{:<32} {:>8.2} s", contender.name(), run.wall.as_secs_f64());
            if round > 0 {
                runs.push(run);
            } else {
                bench.check(*contender)?;
            }
        }
    }

    let report = Report::new(about, &runs);
    step("results");
    println!("{report}");
    if let Some(file) = &args.json {
        report.write(file)?;
    }
    let slower = earlier.map(|earlier| report.slower_than(&earlier, args.tolerance));
    for what in slower.iter().flatten() {
        println!("SLOWER: {what}");
    }
    Ok(slower.is_none_or(|slower| slower.is_empty()))
}

fn step(what: &str) {
    println!("\n==> {what}");
}
