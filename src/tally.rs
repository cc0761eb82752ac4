//! Progress out of several workers that have no coordinator: each adds what it has done, and
//! whoever comes when it is time tells the observer. One call at a time, as [`Observer`] asks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::{Event, Observer, Progress};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// The share that is never passed before the end: work may turn out larger than planned.
const ALMOST: f64 = 0.999;

/// The sum of what workers have done.
pub(crate) struct Tally<'a> {
    observer: &'a dyn Observer,
    began: Instant,
    /// All the work there is, in the unit of [`Step::work`].
    total: u64,
    state: Mutex<State>,
}

struct State {
    next: Instant,
    work: u64,
    progress: Progress,
}

/// What a worker has done since it last told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Step {
    /// Share of the whole.
    pub(crate) work: u64,
    /// Rows.
    pub(crate) rows: u64,
    /// Bytes of rows or SQL text.
    pub(crate) raw_bytes: u64,
    /// Bytes on disk.
    pub(crate) stored_bytes: u64,
}

impl<'a> Tally<'a> {
    /// Nothing done of `total`.
    pub(crate) fn new(observer: &'a dyn Observer, total: u64) -> Tally<'a> {
        let now = Instant::now();
        Tally {
            observer,
            began: now,
            total,
            state: Mutex::new(State {
                next: now,
                work: 0,
                progress: Progress::default(),
            }),
        }
    }

    /// Takes in a step.
    pub(crate) fn add(&self, step: Step) {
        let mut state = self.lock();
        state.work += step.work;
        state.progress.rows += step.rows;
        state.progress.raw_bytes += step.raw_bytes;
        state.progress.stored_bytes += step.stored_bytes;
        let now = Instant::now();
        if now >= state.next {
            state.next = now + TICK;
            let share = state.work as f64 / self.total.max(1) as f64;
            self.tell(&mut state, share.min(ALMOST));
        }
    }

    /// A table is done.
    pub(crate) fn table_done(&self) {
        self.lock().progress.tables_done += 1;
    }

    /// Everything is done.
    pub(crate) fn finish(&self) {
        self.tell(&mut self.lock(), 1.0);
    }

    fn tell(&self, state: &mut State, fraction: f64) {
        state.progress.fraction = fraction;
        state.progress.seconds = self.began.elapsed().as_secs_f64();
        self.observer
            .event(&Event::Progress(state.progress.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<Progress>>);

    impl Observer for Seen {
        fn event(&self, event: &Event) {
            if let Event::Progress(progress) = event {
                self.0.lock().unwrap().push(progress.clone());
            }
        }
    }

    #[test]
    fn only_the_end_is_the_whole() {
        let seen = Seen::default();
        let tally = Tally::new(&seen, 10);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        tally.add(Step {
                            work: 1,
                            rows: 2,
                            ..Step::default()
                        });
                    }
                    tally.table_done();
                });
            }
        });
        tally.finish();
        let seen = seen.0.into_inner().unwrap();
        let (last, before) = seen.split_last().unwrap();
        assert!(before.iter().all(|progress| progress.fraction < 1.0));
        assert_eq!((last.fraction, last.rows, last.tables_done), (1.0, 800, 4));
    }
}
