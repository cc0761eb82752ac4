//! Progress on a terminal: one bar for the whole, a line with speeds, and a line for each
//! reader at work. A spinner and a clock keep moving whether or not events arrive.

use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use schema_backup::event::{Phase, Progress, WorkerProgress};
use schema_backup::{Event, Observer};

use super::meter::{Meter, Reading};
use super::{milestone, phase_name, remark, table_done};
use crate::cli::console::{console, lock};
use crate::cli::human::{byte_rate, bytes, clock, count, exact, printable, shorten};

/// Steps of the bar: fine enough for any width.
const STEPS: u64 = 100_000;
/// From this width on there is room for words and small bars.
const WIDE: usize = 110;
/// Longest name MySQL and MariaDB allow.
const LONGEST_NAME: usize = 64;

pub(super) struct Bar {
    verbosity: u8,
    bars: MultiProgress,
    whole: ProgressBar,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tables: usize,
    meter: Meter,
    /// The line with the speeds, once rows flow.
    speeds: Option<ProgressBar>,
    /// A line for each reader at work, in their order.
    workers: Vec<ProgressBar>,
    /// The widest name so far, so that columns stay where they are.
    name_width: usize,
}

impl Bar {
    pub(super) fn start(verbosity: u8) -> Bar {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let whole = bars.add(ProgressBar::new(STEPS).with_style(phase_style()));
        whole.set_message("starting");
        whole.enable_steady_tick(Duration::from_millis(100));
        console().set_bars(Some(bars.clone()));
        Bar {
            verbosity,
            bars,
            whole,
            inner: Mutex::default(),
        }
    }

    fn phase(&self, inner: &mut Inner, phase: Phase) {
        if phase.has_progress() {
            self.clear_lines(inner);
            inner.meter = Meter::default();
            self.whole.set_position(0);
            self.whole.set_style(data_style());
            self.whole.set_message("");
            let line = self
                .bars
                .insert_after(&self.whole, ProgressBar::new(0).with_style(line_style()));
            inner.speeds = Some(line);
        } else {
            self.clear_lines(inner);
            self.whole.set_style(phase_style());
            self.whole.set_message(phase_name(phase));
        }
    }

    fn clear_lines(&self, inner: &mut Inner) {
        for line in inner.workers.drain(..).chain(inner.speeds.take()) {
            line.finish_and_clear();
            self.bars.remove(&line);
        }
    }

    fn progress(&self, inner: &mut Inner, progress: &Progress) {
        let reading = inner.meter.update(progress);
        let Some(speeds) = &inner.speeds else { return };
        // indicatif asks the terminal the same way when it draws.
        let (height, width) = console_size();
        self.whole
            .set_position((progress.fraction.clamp(0.0, 1.0) * STEPS as f64) as u64);
        self.whole.set_message(time_left(&reading));
        speeds.set_message(speed_line(progress, &reading, inner.tables, width));

        let mut workers: Vec<&WorkerProgress> = progress.workers.iter().collect();
        workers.sort_by_key(|worker| worker.worker);
        let widest = workers
            .iter()
            .map(|worker| worker.table.chars().count())
            .max()
            .unwrap_or(0);
        inner.name_width = inner.name_width.max(widest).min(LONGEST_NAME);
        let mut lines: Vec<String> = workers
            .iter()
            .map(|worker| worker_line(worker, inner.name_width, width))
            .collect();
        // The bar, the speeds, and a line of what was there before stay in sight.
        let room = height.saturating_sub(4).max(1);
        if lines.len() > room {
            let hidden = lines.len() - (room - 1);
            lines.truncate(room - 1);
            lines.push(format!("  … and {hidden} more"));
        }
        while inner.workers.len() > lines.len() {
            if let Some(line) = inner.workers.pop() {
                line.finish_and_clear();
                self.bars.remove(&line);
            }
        }
        while inner.workers.len() < lines.len() {
            inner
                .workers
                .push(self.bars.add(ProgressBar::new(0).with_style(line_style())));
        }
        for (line, text) in inner.workers.iter().zip(lines) {
            line.set_message(text);
        }
    }
}

impl Observer for Bar {
    fn event(&self, event: &Event) {
        remark(event, self.verbosity);
        if self.verbosity > 0
            && let Some(line) = milestone(event).or_else(|| table_done(event))
        {
            console().line(&line);
        }
        let mut inner = lock(&self.inner);
        match event {
            Event::Phase { phase } => self.phase(&mut inner, *phase),
            Event::Planned { tables, .. } => inner.tables = *tables,
            Event::Progress(progress) => self.progress(&mut inner, progress),
            _ => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear_lines(&mut lock(&self.inner));
        self.whole.finish_and_clear();
        let _ = self.bars.clear();
        console().set_bars(None);
    }
}

/// Height and width of the terminal.
fn console_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((24, 80), |size| {
        (usize::from(size.ws_row), usize::from(size.ws_col))
    })
}

fn style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let elapsed = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&clock(state.elapsed().as_secs_f64()));
    };
    let share = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:>3} %", percent(state.pos() as f64 / STEPS as f64));
    };
    style
        .with_key("clock", elapsed)
        .with_key("share", share)
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .progress_chars("━╸─")
}

fn phase_style() -> ProgressStyle {
    style("{spinner:.cyan} {clock}  {wide_msg}")
}

fn data_style() -> ProgressStyle {
    style("{spinner:.cyan} {clock}  {wide_bar:.cyan/dim} {share}{msg}")
}

fn line_style() -> ProgressStyle {
    style("{wide_msg}")
}

/// Whole percent, rounded down: 100 means done.
pub(super) fn percent(fraction: f64) -> u32 {
    (fraction.clamp(0.0, 1.0) * 100.0 + 1e-9).floor() as u32
}

/// A fixed width, so that the bar before it does not jump.
fn time_left(reading: &Reading) -> String {
    let text = match reading.left {
        Some(left) if left >= 0.5 => format!("{} left", clock(left.ceil())),
        _ => String::new(),
    };
    format!("  {text:<10}")
}

fn speed_line(progress: &Progress, reading: &Reading, tables: usize, width: usize) -> String {
    let (rows, row_rate) = (count(progress.rows), count(reading.rows as u64));
    let (raw, raw_rate) = (bytes(progress.raw_bytes), byte_rate(reading.raw));
    let (stored, stored_rate) = (bytes(progress.stored_bytes), byte_rate(reading.stored));
    let (done, tables) = (exact(progress.tables_done as u64), exact(tables as u64));
    if reading.idle > 10.0 {
        return format!(
            "  {rows} rows · {raw} → {stored} · {done}/{tables} tables · no rows for {}",
            clock(reading.idle)
        );
    }
    if width >= WIDE {
        format!(
            "  {rows} rows, {row_rate} rows/s  ·  {raw} of SQL, {raw_rate}  →  {stored} stored, {stored_rate}  ·  \
             {done} of {tables} tables"
        )
    } else {
        format!(
            "  {row_rate} rows/s · {raw} {raw_rate} → {stored} {stored_rate} · {done}/{tables} tables"
        )
    }
}

fn worker_line(worker: &WorkerProgress, name_width: usize, width: usize) -> String {
    let chunk = if worker.chunks > 1 {
        format!("{}/{}", worker.chunk, worker.chunks)
    } else {
        String::new()
    };
    // An estimate that was overtaken says nothing any more.
    let estimate = (worker.estimated_rows > worker.rows).then_some(worker.estimated_rows);
    let rows = match estimate {
        Some(estimate) => format!("{:>6} of ~{} rows", count(worker.rows), count(estimate)),
        None => format!("{:>6} rows", count(worker.rows)),
    };
    let rest = format!("  {chunk:>9}  {rows:<21}");
    let small_bar = match estimate {
        Some(estimate) if width >= WIDE => {
            format!("  {}", gauge(worker.rows as f64 / estimate as f64))
        }
        _ => String::new(),
    };
    let name_width = name_width
        .min(width.saturating_sub(3 + rest.chars().count()))
        .max(8);
    let name = shorten(&printable(&worker.table), name_width);
    format!("  {name:<name_width$}{rest}{small_bar}")
        .trim_end()
        .to_owned()
}

/// A bar of 20 characters.
fn gauge(share: f64) -> String {
    let full = ((share.clamp(0.0, 1.0) * 20.0) as usize).min(20);
    format!("{}{}", "━".repeat(full), "─".repeat(20 - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(table: &str, rows: u64, estimated_rows: u64) -> WorkerProgress {
        WorkerProgress {
            worker: 0,
            table: table.into(),
            chunk: 37,
            chunks: 140,
            rows,
            estimated_rows,
        }
    }

    #[test]
    fn lines_fit_80_columns() {
        let name = "x".repeat(64);
        for rows in [0, 999, 999_999, u64::MAX] {
            for estimate in [0, 1_500_000, u64::MAX] {
                let line = worker_line(&worker(&name, rows, estimate), 64, 80);
                assert!(line.chars().count() < 80, "{line}");
            }
        }
        let progress = Progress {
            fraction: 0.5,
            rows: 999_000_000,
            raw_bytes: 999 << 20,
            stored_bytes: 999 << 20,
            tables_done: 1234,
            seconds: 9.0,
            workers: Vec::new(),
        };
        let reading = Reading {
            rows: 999e3,
            raw: 999e6,
            stored: 999e6,
            left: None,
            idle: 0.0,
        };
        let line = speed_line(&progress, &reading, 5000, 80);
        assert!(line.chars().count() < 80, "{line}");
    }

    #[test]
    fn an_overtaken_estimate_is_not_shown() {
        assert!(worker_line(&worker("t", 10, 20), 8, 200).contains("10 of ~20 rows"));
        let line = worker_line(&worker("t", 30, 20), 8, 200);
        assert!(line.contains("30 rows") && !line.contains('~') && !line.contains('━'));
    }

    #[test]
    fn only_the_end_is_100_percent() {
        assert_eq!(
            [0.0, 0.29, 0.999_999, 1.0, 7.0].map(percent),
            [0, 29, 99, 100, 100]
        );
    }
}
