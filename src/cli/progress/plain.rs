//! Progress without a terminal: a line for each step, and one every few seconds, also while
//! nothing happens.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schema_backup::event::{Phase, Progress};
use schema_backup::{Event, Observer};

use super::meter::{Meter, Reading};
use super::{milestone, phase_name, remark, table_done};
use crate::cli::console::{console, lock};
use crate::cli::human::{byte_rate, bytes, clock, count, exact};

const INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Plain {
    verbosity: u8,
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

struct Shared {
    start: Instant,
    state: Mutex<State>,
    closed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    phase: Option<Phase>,
    tables: usize,
    meter: Meter,
    latest: Option<(Progress, Reading)>,
}

impl Plain {
    pub(super) fn start(verbosity: u8) -> Plain {
        let shared = Shared {
            start: Instant::now(),
            state: Mutex::default(),
            closed: Condvar::new(),
        };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        // Without its thread the display only has fewer lines.
        let ticker = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || theirs.tick())
            .ok();
        Plain {
            verbosity,
            shared,
            ticker,
        }
    }
}

impl Shared {
    fn say(&self, text: &str) {
        console().line(&format!(
            "[{}] {text}",
            clock(self.start.elapsed().as_secs_f64())
        ));
    }

    fn tick(&self) {
        let mut state = lock(&self.state);
        loop {
            let waited = self
                .closed
                .wait_timeout_while(state, INTERVAL, |state| !state.closed);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.closed {
                return;
            }
            let line = match (&state.latest, state.phase) {
                (Some((progress, reading)), Some(phase)) if phase.has_progress() => {
                    Some(progress_line(progress, reading, state.tables))
                }
                (_, Some(phase)) => Some(format!("still {}", phase_name(phase))),
                (_, None) => None,
            };
            if let Some(line) = line {
                self.say(&line);
            }
        }
    }
}

impl Observer for Plain {
    fn event(&self, event: &Event) {
        remark(event, self.verbosity);
        if let Some(line) = milestone(event) {
            self.shared.say(&line);
        }
        if self.verbosity > 0
            && let Some(line) = table_done(event)
        {
            self.shared.say(&line);
        }
        let mut state = lock(&self.shared.state);
        match event {
            Event::Phase { phase } => {
                state.phase = Some(*phase);
                // What it measures from begins anew.
                state.meter = Meter::default();
                state.latest = None;
                drop(state);
                self.shared.say(phase_name(*phase));
            }
            Event::Planned { tables, .. } => state.tables = *tables,
            Event::Progress(progress) => {
                let reading = state.meter.update(progress);
                state.latest = Some((progress.clone(), reading));
            }
            _ => {}
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.closed.notify_all();
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
    }
}

fn progress_line(progress: &Progress, reading: &Reading, tables: usize) -> String {
    let percent = super::bar::percent(progress.fraction);
    let mut line = format!(
        "{percent} %, {} of {} tables, {} rows ({} rows/s), {} ({}) → {} ({})",
        exact(progress.tables_done as u64),
        exact(tables as u64),
        count(progress.rows),
        count(reading.rows as u64),
        bytes(progress.raw_bytes),
        byte_rate(reading.raw),
        bytes(progress.stored_bytes),
        byte_rate(reading.stored),
    );
    match reading.left {
        Some(left) => line.push_str(&format!(", {} left", clock(left))),
        None if reading.idle > 10.0 => {
            line.push_str(&format!(", no rows for {}", clock(reading.idle)))
        }
        None => {}
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_it_all() {
        let progress = Progress {
            fraction: 0.999,
            rows: 1_200_000,
            raw_bytes: 110 << 20,
            stored_bytes: 20 << 20,
            tables_done: 3,
            seconds: 5.0,
            workers: Vec::new(),
        };
        let reading = Reading {
            rows: 240e3,
            raw: 23e6,
            stored: 4e6,
            left: Some(40.0),
            idle: 0.0,
        };
        assert_eq!(
            progress_line(&progress, &reading, 62),
            "99 %, 3 of 62 tables, 1.20M rows (240k rows/s), 110 MiB (21.9 MiB/s) → 20.0 MiB (3.81 MiB/s), 0:40 left"
        );
    }
}
