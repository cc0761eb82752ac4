//! The program around the library: it reads the command line, shows what the engine does,
//! prints results and errors, and turns errors into exit codes. The only place that prints.
//!
//! Results go to stdout, everything else to stderr. A closed stdout or stderr changes what is
//! seen, never what is done.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use schema_backup::{Error, ErrorKind, Event, Interrupt, Observer, Request, Result};

use command::{Command, Verb};
use console::{Panic, console};

mod args;
mod command;
mod console;
mod human;
mod logger;
mod options;
mod password;
mod progress;
mod report;
mod secrets;
mod signals;
mod summary;
mod verify;

/// Runs the program as the process was called.
pub(crate) fn main() -> ExitCode {
    // Before there is anything in memory that a core dump could show.
    secrets::refuse_core_dumps();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let args = match secrets::refuse(&arguments).map(|()| args::parse(&arguments)) {
        Ok(Ok(args)) => args,
        // `--help` and `--version` come this way too, with exit code 0.
        Ok(Err(usage)) => {
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
        Err(error) => return fail(&error),
    };
    let command = match Command::from_args(args) {
        Ok(command) => command,
        Err(error) => return fail(&error),
    };

    console().set_json(command.output.json());
    logger::install(command.output.verbosity);
    console::install_panic_hook();
    let interrupt = Interrupt::new();
    if let Err(error) = signals::install(&interrupt) {
        return fail(&error);
    }

    let outcome = catch_unwind(AssertUnwindSafe(|| dispatch(&command, &interrupt)));
    // The last one is what ended the main thread, and becomes the error below.
    let mut panics = console().take_panics();
    let fatal = if outcome.is_err() { panics.pop() } else { None };
    for panic in &panics {
        console().panic(panic);
    }
    if let Some(panic) = fatal.as_ref().filter(|panic| panic.backtrace.is_some()) {
        console().panic(panic);
    }
    match outcome.unwrap_or_else(|_| Err(from_panic(fatal))) {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever the run died of, it was asked to stop.
        Err(error) if interrupt.is_raised() => fail(&error.with_kind(ErrorKind::Interrupted)),
        Err(error) => fail(&error),
    }
}

fn dispatch(command: &Command, interrupt: &Interrupt) -> Result<()> {
    let terminal = io::stdout().is_terminal();
    match &command.verb {
        Verb::Backup => {
            let summary = observed(command, interrupt, schema_backup::backup::run)?;
            if command.output.summary() {
                // The backup is complete: that nobody reads the summary does not change it.
                let _ = print(&summary::render(&summary));
            }
            Ok(())
        }
        Verb::Plan { json } => {
            let plan = observed(command, interrupt, |request, observer, interrupt| {
                let observer = WithoutWarnings {
                    inner: observer,
                    json: command.output.json(),
                };
                schema_backup::plan_report::run(request, &observer, interrupt)
            })?;
            if *json {
                print_json(&plan)
            } else {
                print(&report::plan(&plan, terminal))
            }
        }
        Verb::List { json } => {
            let (host_dirs, user_data_dir) = command.options.backup_dirs()?;
            let backups = schema_backup::store::list::list(&host_dirs, user_data_dir.as_deref())?;
            if *json {
                print_json(&backups)
            } else {
                print(&report::list(&backups, terminal))
            }
        }
        Verb::Restore(restoring) => {
            let ask = || password::ask(interrupt);
            let ask_passphrase = |file: &Path| password::ask_passphrase(file, interrupt);
            let request = command
                .options
                .restore_request(restoring, ask, ask_passphrase)?;
            let display = progress::start(command);
            let summary = schema_backup::restore::run(&request, display.as_ref(), interrupt)?;
            drop(display);
            if command.output.summary() {
                let _ = print(&summary::restored(&summary, restoring.dry_run));
            }
            Ok(())
        }
        Verb::Verify(args) => {
            let ask = || password::ask(interrupt);
            let ask_passphrase = |file: &Path| password::ask_passphrase(file, interrupt);
            let request = command.options.verify_request(args, ask, ask_passphrase)?;
            let display = progress::start(command);
            let report = schema_backup::verify::run(&request, display.as_ref(), interrupt)?;
            drop(display);
            if args.json {
                print_json(&report)?;
            } else {
                print(&verify::render(&report, command.output))?;
            }
            verify::outcome(&report)
        }
    }
}

/// Runs a verb of the engine while its progress is shown. When it returns, the display is gone.
fn observed<T>(
    command: &Command,
    interrupt: &Interrupt,
    run: impl FnOnce(&Request, &dyn Observer, &Interrupt) -> Result<T>,
) -> Result<T> {
    // May ask for the password: nothing else may use the terminal yet.
    let mut request = command.options.request(|| password::ask(interrupt))?;
    let display = progress::start(command);
    for message in std::mem::take(&mut request.config.notices) {
        display.event(&Event::Notice { message });
    }
    run(&request, display.as_ref(), interrupt)
}

/// The report of a plan has the warnings: once is enough for people.
struct WithoutWarnings<'a> {
    inner: &'a dyn Observer,
    json: bool,
}

impl Observer for WithoutWarnings<'_> {
    fn event(&self, event: &Event) {
        if self.json || !matches!(event, Event::Warning { .. }) {
            self.inner.event(event);
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| {
        Error::new(ErrorKind::Internal, "cannot write the report as JSON").because(e)
    })?;
    print(&format!("{text}\n"))
}

/// Writes to stdout. That the reader has gone (`| head`) is not an error.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(ErrorKind::Write, "cannot write to standard output").because(error))
        }
        _ => Ok(()),
    }
}

/// Says what went wrong and what to do about it.
fn fail(error: &Error) -> ExitCode {
    let code = error.kind().exit_code();
    console().error(&error.to_string(), error.hint_text(), code);
    ExitCode::from(code)
}

/// The error that a panic of the main thread amounts to.
fn from_panic(reported: Option<Panic>) -> Error {
    let message = reported.map_or_else(|| "internal error: panic".into(), |panic| panic.message);
    Error::new(ErrorKind::Internal, message).hint(
        "this is a defect of schema_backup, please report it; the previous backup is whole, or \
         the next run completes the one that was being published",
    )
}
