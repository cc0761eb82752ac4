//! Whether the machine's processors have time to spare. Linux says so; elsewhere they seem to have.

use std::fs;

/// Ticks of all processors together since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Option<Ticks> {
        Ticks::of(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// From the first line (proc(5)): ticks of user, nice, system, idle, waiting for storage, and so
    /// on up to what other machines took of this one; then come some that were counted already.
    fn of(stat: &str) -> Option<Ticks> {
        let ticks = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Option<Vec<u64>> = ticks.split_whitespace().map(|t| t.parse().ok()).collect();
        let ticks = ticks?;
        Some(Ticks {
            idle: ticks.get(3)? + ticks.get(4)?,
            all: ticks.iter().take(8).sum(),
        })
    }

    /// Whether less than a tenth of the time from `earlier` on was idle.
    fn are_busy_since(self, earlier: Ticks) -> bool {
        let idle = self.idle.saturating_sub(earlier.idle);
        let all = self.all.saturating_sub(earlier.all);
        10 * idle < all
    }
}

/// The processors of this machine, looked at from time to time.
#[derive(Debug)]
pub(super) struct Processors(Option<Ticks>);

impl Processors {
    pub(super) fn new() -> Processors {
        Processors(Ticks::now())
    }

    /// Whether they were busy nearly all the time since the last look.
    pub(super) fn are_busy(&mut self) -> bool {
        let earlier = std::mem::replace(&mut self.0, Ticks::now());
        let since = self.0.zip(earlier);
        since.is_some_and(|(now, earlier)| now.are_busy_since(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_look_reaches_back_to_the_one_before() {
        let now = Ticks::now().unwrap();
        let all_busy = Ticks {
            idle: now.idle,
            all: 0,
        };
        let all_idle = Ticks {
            idle: 0,
            all: now.all - now.idle,
        };
        assert!(Processors(Some(all_busy)).are_busy());
        assert!(!Processors(Some(all_idle)).are_busy());
        assert!(!Processors(None).are_busy());
    }

    #[test]
    fn time_to_spare_is_a_tenth_of_idling_and_waiting() {
        let at = |line: &str| Ticks::of(line).unwrap();
        let from = at("cpu  100 0 50 800 50 0 0 10 100 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        assert_eq!(
            from,
            Ticks {
                idle: 850,
                all: 1010
            }
        );
        assert!(at("cpu  191 0 50 804 55 0 0 10 100 0\n").are_busy_since(from));
        assert!(!at("cpu  190 0 50 805 55 0 0 10 100 0\n").are_busy_since(from));
        assert!(at("cpu  100 0 50 800 50 0 0 110 100 0\n").are_busy_since(from));
        assert!(!from.are_busy_since(from));
        for line in [
            "",
            "cpu",
            "cpu  1 2 3 4",
            "cpu  1 2 x 4 5 6 7 8",
            "intr 1 2 3 4 5",
        ] {
            assert_eq!(Ticks::of(line), None, "{line}");
        }
    }
}
