//! Speeds and the time left, out of the last seconds of progress. Pure: its only clock is the
//! one in the events.

use std::collections::VecDeque;

use schema_backup::event::Progress;

/// Speeds are those of the last 10 seconds, so that they follow without flickering.
const SPEED_WINDOW: f64 = 10.0;
/// The time left looks at half a minute, because tables differ.
const LEFT_WINDOW: f64 = 30.0;
/// Before this many seconds a guess at the time left would be noise.
const SETTLED: f64 = 3.0;

/// Remembers recent progress.
#[derive(Debug, Default)]
pub(super) struct Meter {
    samples: VecDeque<Sample>,
    /// When the number of rows last changed.
    moved: f64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    fraction: f64,
    rows: u64,
    raw: u64,
    stored: u64,
}

/// What the meter shows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Reading {
    /// Rows per second.
    pub(super) rows: f64,
    /// Bytes of SQL per second.
    pub(super) raw: f64,
    /// Stored bytes per second.
    pub(super) stored: f64,
    /// Seconds left, once there is something to judge by.
    pub(super) left: Option<f64>,
    /// Seconds since the last row.
    pub(super) idle: f64,
}

impl Meter {
    /// Takes in progress and says what it means.
    pub(super) fn update(&mut self, progress: &Progress) -> Reading {
        let now = Sample {
            seconds: progress.seconds,
            fraction: progress.fraction,
            rows: progress.rows,
            raw: progress.raw_bytes,
            stored: progress.stored_bytes,
        };
        if self.samples.is_empty() {
            self.samples.push_back(Sample {
                seconds: 0.0,
                fraction: 0.0,
                rows: 0,
                raw: 0,
                stored: 0,
            });
        }
        if self.samples.back().is_none_or(|last| now.rows != last.rows) {
            self.moved = now.seconds;
        }
        self.samples.push_back(now);
        // One sample at or before the window's start stays, to measure from.
        while self
            .samples
            .get(1)
            .is_some_and(|second| second.seconds <= now.seconds - LEFT_WINDOW)
        {
            self.samples.pop_front();
        }
        let per_second = |amount: f64, span: f64| {
            if span > 0.0 {
                (amount / span).max(0.0)
            } else {
                0.0
            }
        };
        let from = self.since(now.seconds - SPEED_WINDOW);
        let span = now.seconds - from.seconds;
        let speed = |now: u64, then: u64| per_second(now.saturating_sub(then) as f64, span);

        let then = self.since(now.seconds - LEFT_WINDOW);
        let share = per_second(now.fraction - then.fraction, now.seconds - then.seconds);
        let judged = now.seconds >= SETTLED && now.fraction > 0.0 && share > 0.0;
        Reading {
            rows: speed(now.rows, from.rows),
            raw: speed(now.raw, from.raw),
            stored: speed(now.stored, from.stored),
            left: judged.then(|| (1.0 - now.fraction).max(0.0) / share),
            idle: now.seconds - self.moved,
        }
    }

    /// The last sample at or before `seconds`, else the first.
    fn since(&self, seconds: f64) -> Sample {
        let at = self
            .samples
            .partition_point(|sample| sample.seconds <= seconds);
        self.samples[at.saturating_sub(1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64, fraction: f64, rows: u64) -> Progress {
        Progress {
            fraction,
            rows,
            raw_bytes: rows * 100,
            stored_bytes: rows * 10,
            seconds,
            ..Progress::default()
        }
    }

    #[test]
    fn steady_progress_is_read_exactly() {
        let mut meter = Meter::default();
        let mut reading = Reading::default();
        for tenth in 1..=500 {
            let seconds = f64::from(tenth) / 10.0;
            reading = meter.update(&at(seconds, seconds / 100.0, (seconds * 1000.0) as u64));
        }
        assert!((reading.rows - 1000.0).abs() < 1.0, "{reading:?}");
        assert!((reading.raw - 100_000.0).abs() < 100.0);
        assert!((reading.stored - 10_000.0).abs() < 10.0);
        assert!((reading.left.unwrap() - 50.0).abs() < 0.1);
        assert!(meter.samples.len() < 400);
    }

    #[test]
    fn nothing_is_guessed_early_or_without_movement() {
        let mut meter = Meter::default();
        assert_eq!(meter.update(&at(0.0, 0.0, 0)), Reading::default());
        assert_eq!(meter.update(&at(1.0, 0.1, 10)).left, None);
        let mut reading = meter.update(&at(5.0, 0.1, 10));
        assert_eq!(reading.idle, 4.0);
        for seconds in 6..60 {
            reading = meter.update(&at(f64::from(seconds), 0.1, 10));
        }
        assert_eq!((reading.rows, reading.left), (0.0, None));
    }
}
