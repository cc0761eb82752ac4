//! Services around a backup (`-m`, `-t`): consumers of the database are stopped and its
//! providers restarted before it, and consumers started again after it. [`Services`] is a
//! guard: whatever ends the run, consumers do not stay stopped unless that was asked for.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::config::PASSWORD_VARIABLE;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};

/// What to do with services around the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceAction {
    /// Leave them alone.
    #[default]
    None,
    /// `-m`: stop consumers, restart providers; start consumers after the backup.
    Restart,
    /// `-t`: stop consumers, restart providers; leave consumers stopped.
    LeaveStopped,
}

/// What a service is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Stop, and be stopped on return.
    Stop,
    /// Stop if running, then start.
    Restart,
    /// Start; nothing happens to one that runs.
    Start,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verb::Stop => "stop",
            Verb::Restart => "restart",
            Verb::Start => "start",
        })
    }
}

/// Runs services; the tests bring one that only remembers.
pub trait ServiceManager {
    /// Blocks until `service` has done `verb`. The name was checked by [`Services::prepare`].
    fn run(&self, verb: Verb, service: &str) -> Result<()>;
}

/// systemd, by its command line.
#[derive(Debug, Clone)]
pub struct Systemctl {
    /// The program, searched in `PATH` if it is a bare name.
    pub program: PathBuf,
}

impl Default for Systemctl {
    fn default() -> Self {
        Systemctl {
            program: PathBuf::from("systemctl"),
        }
    }
}

impl ServiceManager for Systemctl {
    fn run(&self, verb: Verb, service: &str) -> Result<()> {
        let output = Command::new(&self.program)
            // What it runs has no use for our secrets.
            .env_remove(PASSWORD_VARIABLE)
            // Not ours, so that a Ctrl-C meant for the run does not end it.
            .process_group(0)
            .args([verb.to_string().as_str(), "--", service])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output();
        let failed = |why: String| {
            Error::new(
                ErrorKind::Failed,
                format!("cannot {verb} service `{service}`: {why}"),
            )
        };
        let output = output.map_err(|e| {
            failed(format!("cannot run {}", self.program.display()))
                .because(e)
                .hint("-m and -t need systemd and the right to manage services")
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&output.stderr)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .take(500)
            .collect();
        let why = if said.is_empty() {
            output.status.to_string()
        } else {
            said
        };
        Err(failed(why).hint(format!(
            "see `systemctl status {service}`; managing services usually needs root"
        )))
    }
}

/// Guards the consumers from being stopped until [`Services::finish`]. Dropped before that, by
/// an error or a panic, it starts them again, except for [`ServiceAction::LeaveStopped`],
/// where it says that they are stopped.
pub struct Services<'a> {
    manager: Box<dyn ServiceManager + 'a>,
    observer: &'a dyn Observer,
    action: ServiceAction,
    /// Whether everything before the backup went well.
    prepared: bool,
    /// Consumers to start again, in the order of the configuration.
    stopped: Vec<String>,
}

impl<'a> Services<'a> {
    /// Stops `consumers`, then restarts `providers`, each in the order given. If one fails,
    /// consumers stopped so far are started again, whatever the action: nothing was done yet.
    /// Names are checked before anything is touched. Does nothing for [`ServiceAction::None`].
    pub fn prepare(
        action: ServiceAction,
        consumers: &[String],
        providers: &[String],
        manager: impl ServiceManager + 'a,
        observer: &'a dyn Observer,
    ) -> Result<Services<'a>> {
        let manager = Box::new(manager);
        let mut services = Services {
            manager,
            observer,
            action,
            prepared: false,
            stopped: Vec::new(),
        };
        if action != ServiceAction::None {
            consumers
                .iter()
                .map(|name| ("consumers", name))
                .try_for_each(check_name)?;
            providers
                .iter()
                .map(|name| ("providers", name))
                .try_for_each(check_name)?;
            for name in consumers {
                // Before it is tried: a stop that was interrupted may still come about, and
                // starting a service that runs does nothing.
                services.stopped.push(name.clone());
                services.run(Verb::Stop, name)?;
            }
            for name in providers {
                services.run(Verb::Restart, name)?;
            }
        }
        services.prepared = true;
        Ok(services)
    }

    /// The backup succeeded: starts the consumers, or leaves them stopped if that was asked
    /// for. Tries all, and names those that failed.
    pub fn finish(mut self) -> Result<()> {
        let failures = match self.action {
            ServiceAction::Restart => self.start_all(),
            ServiceAction::None | ServiceAction::LeaveStopped => Vec::new(),
        };
        // What could not be started now cannot be started in `drop` either.
        self.stopped.clear();
        let names: Vec<_> = failures
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        match failures.into_iter().next() {
            None => Ok(()),
            Some((name, first)) => {
                let error = Error::new(
                    ErrorKind::Failed,
                    format!("services not started again: {}", names.join(", ")),
                );
                Err(error
                    .because(first)
                    .hint(format!("see `systemctl status {name}`")))
            }
        }
    }

    fn run(&self, verb: Verb, service: &str) -> Result<()> {
        self.manager.run(verb, service)?;
        let message = format!("service `{service}`: {verb} done");
        self.observer.event(&Event::Notice { message });
        Ok(())
    }

    /// Tries to start every stopped consumer; those that failed, with the reason.
    fn start_all(&mut self) -> Vec<(String, Error)> {
        let stopped = std::mem::take(&mut self.stopped);
        let start = |name: String| self.run(Verb::Start, &name).err().map(|e| (name, e));
        stopped.into_iter().filter_map(start).collect()
    }

    fn warn(&self, message: String) {
        self.observer.event(&Event::Warning { message });
    }
}

impl Drop for Services<'_> {
    fn drop(&mut self) {
        if self.stopped.is_empty() {
            return;
        }
        if self.prepared && self.action == ServiceAction::LeaveStopped {
            self.warn(format!(
                "the run failed; services stay stopped: {}",
                self.stopped.join(", ")
            ));
            return;
        }
        for (_, error) in self.start_all() {
            self.warn(error.to_string());
        }
    }
}

impl fmt::Debug for Services<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Services");
        shown
            .field("action", &self.action)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

/// An error unless the name can only be a service to the manager, never an option.
fn check_name((key, name): (&str, &String)) -> Result<()> {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    if !name.is_empty() && !name.starts_with('-') && !name.contains(bad) {
        return Ok(());
    }
    let shown: String = name.chars().flat_map(char::escape_debug).take(80).collect();
    Err(Error::new(
        ErrorKind::Config,
        format!("`{shown}` in {key} is not the name of a service"),
    )
    .hint(format!("correct {key} in schema_backup.conf")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;
    use std::cell::RefCell;
    use std::sync::Mutex;

    /// Remembers what it was told, and fails where told to.
    #[derive(Default)]
    struct Recorder {
        calls: RefCell<Vec<String>>,
        failing: Vec<&'static str>,
    }

    impl ServiceManager for &Recorder {
        fn run(&self, verb: Verb, service: &str) -> Result<()> {
            let call = format!("{verb} {service}");
            let failing = self.failing.contains(&call.as_str());
            self.calls.borrow_mut().push(call.clone());
            if failing {
                Err(Error::new(ErrorKind::Failed, format!("no {call}")))
            } else {
                Ok(())
            }
        }
    }

    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);

    impl Observer for Warnings {
        fn event(&self, event: &Event) {
            if let Event::Warning { message } = event {
                self.0.lock().unwrap().push(message.clone());
            }
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn prepare<'a>(
        action: ServiceAction,
        recorder: &'a Recorder,
        observer: &'a dyn Observer,
    ) -> Result<Services<'a>> {
        Services::prepare(
            action,
            &names(&["a", "b"]),
            &names(&["db"]),
            recorder,
            observer,
        )
    }

    #[test]
    fn nothing_is_touched_unless_asked() {
        let recorder = Recorder::default();
        prepare(ServiceAction::None, &recorder, &Silent)
            .unwrap()
            .finish()
            .unwrap();
        drop(prepare(ServiceAction::None, &recorder, &Silent).unwrap());
        assert!(recorder.calls.borrow().is_empty());
    }

    #[test]
    fn restart_starts_consumers_afterwards_and_only_once() {
        let recorder = Recorder::default();
        let services = prepare(ServiceAction::Restart, &recorder, &Silent).unwrap();
        assert_eq!(*recorder.calls.borrow(), ["stop a", "stop b", "restart db"]);
        services.finish().unwrap();
        assert_eq!(recorder.calls.borrow()[3..], ["start a", "start b"]);
    }

    #[test]
    fn a_panic_starts_consumers_again() {
        let recorder = Recorder {
            failing: vec!["start a"],
            ..Recorder::default()
        };
        let warnings = Warnings::default();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _services = prepare(ServiceAction::Restart, &recorder, &warnings).unwrap();
            panic!("expected by the test");
        }));
        assert!(result.is_err());
        assert_eq!(recorder.calls.borrow()[3..], ["start a", "start b"]);
        assert_eq!(*warnings.0.lock().unwrap(), ["no start a"]);
    }

    #[test]
    fn a_failed_preparation_is_undone_for_both_actions() {
        for action in [ServiceAction::Restart, ServiceAction::LeaveStopped] {
            let recorder = Recorder {
                failing: vec!["restart db"],
                ..Recorder::default()
            };
            let warnings = Warnings::default();
            let error = prepare(action, &recorder, &warnings).unwrap_err();
            assert_eq!(error.to_string(), "no restart db");
            assert_eq!(recorder.calls.borrow()[3..], ["start a", "start b"]);
            assert!(warnings.0.lock().unwrap().is_empty());

            let recorder = Recorder {
                failing: vec!["stop a"],
                ..Recorder::default()
            };
            prepare(action, &recorder, &Silent).unwrap_err();
            assert_eq!(*recorder.calls.borrow(), ["stop a", "start a"]);
        }
    }

    #[test]
    fn left_stopped_means_stopped() {
        let recorder = Recorder::default();
        let warnings = Warnings::default();
        prepare(ServiceAction::LeaveStopped, &recorder, &warnings)
            .unwrap()
            .finish()
            .unwrap();
        assert!(warnings.0.lock().unwrap().is_empty());
        drop(prepare(ServiceAction::LeaveStopped, &recorder, &warnings).unwrap());
        let said = warnings.0.lock().unwrap().clone();
        assert_eq!(said, ["the run failed; services stay stopped: a, b"]);
        assert_eq!(recorder.calls.borrow().len(), 6);
    }

    #[test]
    fn finish_tries_all_and_names_the_failed() {
        let failing = vec!["start a", "start b"];
        let recorder = Recorder {
            failing,
            ..Recorder::default()
        };
        let services = prepare(ServiceAction::Restart, &recorder, &Silent).unwrap();
        let error = services.finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert_eq!(
            error.to_string(),
            "services not started again: `a`, `b`: no start a"
        );
        assert_eq!(recorder.calls.borrow()[3..], ["start a", "start b"]);
    }

    #[test]
    fn bad_names_touch_nothing() {
        for bad in ["", "-f", "a b", "a\0", "a\n"] {
            let recorder = Recorder::default();
            let lists = [names(&["ok"]), names(&[bad])];
            for (consumers, providers) in [(&lists[0], &lists[1]), (&lists[1], &lists[0])] {
                let action = ServiceAction::Restart;
                let error = Services::prepare(action, consumers, providers, &recorder, &Silent);
                assert_eq!(error.unwrap_err().kind(), ErrorKind::Config);
            }
            assert!(recorder.calls.borrow().is_empty());
        }
    }

    #[test]
    fn systemctl_is_run_and_its_complaint_reported() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("systemctl");
        // Written by a shell: a descriptor of ours, open for writing in a child forked
        // meanwhile, would make running the script fail with "text file busy".
        let script = "#!/bin/sh\necho \"$*\" >>\"$0.log\"\n\
                      if [ \"$3\" = bad ]; then echo one >&2; echo two >&2; exit 5; fi\n";
        let status = Command::new("sh")
            .args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""])
            .args([program.as_os_str(), script.as_ref()])
            .status()
            .unwrap();
        assert!(status.success());
        let systemctl = Systemctl { program };
        systemctl.run(Verb::Restart, "good").unwrap();
        let error = systemctl.run(Verb::Stop, "bad").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert_eq!(error.to_string(), "cannot stop service `bad`: one two");
        assert!(error.hint_text().is_some());
        let log = std::fs::read_to_string(dir.path().join("systemctl.log")).unwrap();
        assert_eq!(log, "restart -- good\nstop -- bad\n");

        let missing = Systemctl {
            program: dir.path().join("missing"),
        };
        let error = missing.run(Verb::Start, "x").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot start service `x`: cannot run ")
        );
    }
}
