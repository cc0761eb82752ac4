//! Lines on stderr, from any thread: above the bars while there are bars, as JSON when stderr
//! is for programs. A stderr that cannot be written is ignored.
//!
//! Besides the engine's events, `--progress json` has lines of its own: `log` (`level`,
//! `message`), `interrupted`, `panic` (`message`, `backtrace`), and, last, `failed`
//! (`exit_code`, `error`, `hint`).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::MultiProgress;
use serde::Serialize;

use super::human::printable;

/// What is said about the run, besides the engine's events.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Remark<'a> {
    Log {
        level: &'a str,
        message: &'a str,
    },
    Interrupted,
    Panic(&'a Panic),
    Failed {
        exit_code: u8,
        error: &'a str,
        hint: Option<&'a str>,
    },
}

/// A panic of any thread.
#[derive(Serialize)]
pub(crate) struct Panic {
    /// One line, with its place in the source.
    pub(crate) message: String,
    /// Where `RUST_BACKTRACE` asks for it.
    pub(crate) backtrace: Option<String>,
}

/// The one stderr of the process.
pub(crate) struct Console {
    json: AtomicBool,
    /// The run has failed; nothing is being cleaned up any more.
    failed: AtomicBool,
    bars: Mutex<Option<MultiProgress>>,
    panics: Mutex<Vec<Panic>>,
}

/// The one stderr of the process.
pub(crate) fn console() -> &'static Console {
    static CONSOLE: Console = Console {
        json: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        bars: Mutex::new(None),
        panics: Mutex::new(Vec::new()),
    };
    &CONSOLE
}

/// The guard, also after a panic of another holder: what is shown is not worth dying for.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Console {
    /// Whether lines are JSON from now on.
    pub(crate) fn set_json(&self, json: bool) {
        self.json.store(json, Ordering::Relaxed);
    }

    fn json(&self) -> bool {
        self.json.load(Ordering::Relaxed)
    }

    /// From now on lines go above these bars; `None`: there are no bars any more.
    pub(crate) fn set_bars(&self, bars: Option<MultiProgress>) {
        *lock(&self.bars) = bars;
    }

    /// One line for people; characters that would steer the terminal are replaced.
    pub(crate) fn line(&self, text: &str) {
        self.raw(&printable(text));
    }

    /// One line of JSON.
    pub(crate) fn json_line(&self, value: &impl Serialize) {
        if let Ok(text) = serde_json::to_string(value) {
            self.raw(&text);
        }
    }

    fn raw(&self, text: &str) {
        let line = format!("{text}\n");
        let write = || {
            let _ = io::stderr().lock().write_all(line.as_bytes());
        };
        let bars = lock(&self.bars).clone();
        match bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn either(&self, line: &str, value: &Remark<'_>) {
        if self.json() {
            self.json_line(value)
        } else {
            self.line(line)
        }
    }

    /// A warning, for people.
    pub(crate) fn warning(&self, message: &str) {
        self.line(&format!("schema_backup: warning: {message}"));
    }

    /// What a `log` macro said.
    pub(crate) fn log(&self, level: log::Level, message: &str) {
        let level = level.as_str().to_ascii_lowercase();
        let line = format!("schema_backup: {level}: {message}");
        self.either(
            &line,
            &Remark::Log {
                level: &level,
                message,
            },
        );
    }

    /// The run was asked to stop.
    pub(crate) fn interrupted(&self) {
        self.either(
            "schema_backup: interrupted, cleaning up",
            &Remark::Interrupted,
        );
    }

    /// The last word of a run that failed.
    pub(crate) fn error(&self, error: &str, hint: Option<&str>, exit_code: u8) {
        self.failed.store(true, Ordering::Relaxed);
        let line = format!("schema_backup: error: {error}");
        self.either(
            &line,
            &Remark::Failed {
                exit_code,
                error,
                hint,
            },
        );
        if let Some(hint) = hint.filter(|_| !self.json()) {
            self.line(&format!("hint: {hint}"));
        }
    }

    /// The panics that nobody has been told of, oldest first.
    pub(crate) fn take_panics(&self) -> Vec<Panic> {
        std::mem::take(&mut *lock(&self.panics))
    }

    /// A panic, with its backtrace if there is one.
    pub(crate) fn panic(&self, panic: &Panic) {
        self.either(
            &format!("schema_backup: {}", panic.message),
            &Remark::Panic(panic),
        );
        if let Some(backtrace) = panic.backtrace.as_deref().filter(|_| !self.json()) {
            self.raw(backtrace);
        }
    }
}

/// A panic becomes one line. It is kept for [`Console::take_panics`] while there are bars (the
/// panicking thread may hold their lock), and on the main thread (it ends the run as an error).
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        // It becomes an error that says what the server did.
        if schema_backup::server::driver::is_calling() {
            return;
        }
        let message = printable(info.payload_as_str().unwrap_or("no message"));
        let place = info
            .location()
            .map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        let backtrace = Backtrace::capture();
        let captured = backtrace.status() == BacktraceStatus::Captured;
        let panic = Panic {
            message: format!("internal error{place}: {message}"),
            backtrace: captured.then(|| backtrace.to_string()),
        };
        let console = console();
        let main = std::thread::current().name() == Some("main");
        if !main && console.bars.try_lock().is_ok_and(|bars| bars.is_none()) {
            console.panic(&panic);
        } else {
            lock(&console.panics).push(panic);
        }
    }));
}
