//! Showing a run while it lasts: bars on a terminal, plain lines elsewhere, JSON for programs.
//! Each is an [`Observer`] that knows nothing of the engine but its events.

use std::io::IsTerminal;

use schema_backup::event::Phase;
use schema_backup::{Event, Observer};

use super::args::ProgressKind;
use super::command::{Command, Verb};
use super::console::console;

mod bar;
mod meter;
mod plain;

/// Starts what the command line asks for. Dropped, it puts its display away.
pub(crate) fn start(command: &Command) -> Box<dyn Observer> {
    let verbosity = command.output.verbosity;
    // A bar on a file or a pipe would show nothing at all.
    let terminal = std::io::stderr().is_terminal();
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let data = !matches!(command.verb, Verb::Plan { .. } | Verb::List { .. });
    match command.output.progress {
        ProgressKind::Json => Box::new(Json {
            quiet: command.output.quiet,
        }),
        _ if command.output.quiet || matches!(command.verb, Verb::List { .. }) => {
            Box::new(WarningsOnly { verbosity })
        }
        ProgressKind::None => Box::new(WarningsOnly { verbosity }),
        ProgressKind::Auto if terminal && !dumb => Box::new(bar::Bar::start(verbosity)),
        ProgressKind::Bar if terminal => Box::new(bar::Bar::start(verbosity)),
        // A plan is short: its lines would only stand between the user and the table.
        ProgressKind::Auto if !data => Box::new(WarningsOnly { verbosity }),
        ProgressKind::Auto | ProgressKind::Bar | ProgressKind::Plain => {
            Box::new(plain::Plain::start(verbosity))
        }
    }
}

/// Every event as it is, one line each.
struct Json {
    quiet: bool,
}

impl Observer for Json {
    fn event(&self, event: &Event) {
        if !self.quiet || matches!(event, Event::Warning { .. }) {
            console().json_line(event);
        }
    }
}

/// Warnings, and what `-v` adds.
struct WarningsOnly {
    verbosity: u8,
}

impl Observer for WarningsOnly {
    fn event(&self, event: &Event) {
        remark(event, self.verbosity);
    }
}

/// Prints the events that are lines in every human display: warnings, and notices at `-v`.
fn remark(event: &Event, verbosity: u8) {
    match event {
        Event::Warning { message } => console().warning(message),
        Event::Notice { message } if verbosity > 0 => {
            console().line(&format!("schema_backup: {message}"))
        }
        _ => {}
    }
}

/// What a phase does, as people say it.
fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Services => "stopping and restarting services",
        Phase::Catalog => "reading the catalog",
        Phase::Snapshot => "taking the snapshot",
        Phase::Structure => "writing structure",
        Phase::Splitting => "finding key ranges of large tables",
        Phase::Data => "writing rows",
        Phase::Publish => "publishing",
        Phase::Examine => "examining backups and target",
        Phase::CreateTables => "creating tables",
        Phase::Load => "loading rows",
        Phase::CreateObjects => "creating views, routines, triggers and events",
        Phase::Compare => "comparing with the database",
        Phase::Files => "checking files",
    }
}

/// One line about an event that marks a step of the run.
fn milestone(event: &Event) -> Option<String> {
    use super::human::{bytes, count, exact};
    match event {
        Event::Connected { server, database } => {
            Some(format!("connected to {server}, database {database}"))
        }
        Event::Snapshot { description } => Some(format!("snapshot: {description}")),
        Event::Planned {
            tables,
            chunks,
            rows,
            bytes: size,
        } => Some(format!(
            "{} tables in {} chunks, about {} rows, {}",
            exact(*tables as u64),
            exact(*chunks as u64),
            count(*rows),
            bytes(*size)
        )),
        _ => None,
    }
}

/// One line about a table that is done.
fn table_done(event: &Event) -> Option<String> {
    use super::human::{bytes, exact};
    match event {
        Event::TableDone {
            table,
            rows,
            raw_bytes,
            stored_bytes,
        } => Some(format!(
            "table {table}: {} rows, {} → {}",
            exact(*rows),
            bytes(*raw_bytes),
            bytes(*stored_bytes)
        )),
        _ => None,
    }
}
