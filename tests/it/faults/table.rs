//! The record of the faults that were injected: one line of a table for each, on stderr past
//! the test harness, so that a run of the tests shows what was survived and what the user saw.

use std::io::Write;

use crate::site::Outcome;

/// One fault; written when it is dropped, unless the test has failed.
pub(super) struct Row {
    fault: String,
    times: u32,
    exit: Option<i32>,
    message: String,
    previous: &'static str,
    new: &'static str,
}

impl Row {
    /// A fault that the previous backup has survived, and that has made no new one.
    pub(super) fn new(fault: impl Into<String>) -> Row {
        Row {
            fault: fault.into(),
            times: 0,
            exit: None,
            message: String::new(),
            previous: "whole",
            new: "none",
        }
    }

    /// Counts a time that it was injected, and takes down what the user saw of it.
    pub(super) fn saw(&mut self, outcome: &Outcome) {
        self.times += 1;
        self.exit = outcome.code;
        let lines = || outcome.stderr.lines();
        let error = lines().find(|line| line.starts_with("schema_backup: error:"));
        self.message = error.or(lines().last()).unwrap_or_default().to_owned();
    }

    /// The new backup is complete.
    pub(super) fn complete(mut self) -> Row {
        self.new = "complete";
        self
    }

    /// There was no backup before.
    pub(super) fn first(mut self) -> Row {
        self.previous = "-";
        self
    }

    /// Takes down figures in place of what the user saw.
    pub(super) fn note(&mut self, figures: String) {
        self.message = figures;
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let exit = self.exit.map_or("signal".into(), |code| code.to_string());
        let line = format!(
            "FAULT | {} | {} | {exit} | {} | {} | {} |\n",
            self.fault,
            self.times,
            self.message.replace('|', "/"),
            self.previous,
            self.new
        );
        // Not by a macro: the test harness hides what those print.
        std::io::stderr().write_all(line.as_bytes()).ok();
    }
}
