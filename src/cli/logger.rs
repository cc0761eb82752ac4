//! Where the `log` macros go at `-v`, `-vv` and `-vvv`: our own info, debug and trace lines.
//! Other crates are heard from warnings on, and in full at `-vvv`; r2d2 never, because it logs
//! connection errors that the run reports itself.

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::console::console;

struct Logger {
    own: LevelFilter,
    others: LevelFilter,
}

/// Logs for `-v` given `verbosity` times; nothing for 0.
pub(crate) fn install(verbosity: u8) {
    let logger = Logger::for_verbosity(verbosity);
    let most = logger.own.max(logger.others);
    // Only a second logger in one process could be refused; there is none.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(most);
    }
}

impl Logger {
    fn for_verbosity(verbosity: u8) -> Logger {
        let (own, others) = match verbosity {
            0 => (LevelFilter::Off, LevelFilter::Off),
            1 => (LevelFilter::Info, LevelFilter::Warn),
            2 => (LevelFilter::Debug, LevelFilter::Warn),
            _ => (LevelFilter::Trace, LevelFilter::Trace),
        };
        Logger { own, others }
    }

    fn shows(&self, target: &str, level: Level) -> bool {
        match target.split("::").next() {
            Some("schema_backup") => level <= self.own,
            Some("r2d2" | "r2d2_mysql") => false,
            _ => level <= self.others,
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.shows(metadata.target(), metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            console().log(record.level(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_are_quiet_and_r2d2_is_silent() {
        let shows =
            |verbosity, target, level| Logger::for_verbosity(verbosity).shows(target, level);
        assert!(!shows(0, "schema_backup::plan", Level::Error));
        assert!(shows(1, "schema_backup", Level::Info));
        assert!(!shows(1, "schema_backup::plan", Level::Debug));
        assert!(!shows(2, "rustls::client", Level::Info));
        assert!(shows(2, "rustls::client", Level::Warn));
        assert!(shows(3, "mysql", Level::Trace));
        assert!(!shows(3, "r2d2", Level::Error));
    }
}
