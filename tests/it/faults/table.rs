//! What the tests of faults print, past the test harness: a line for each fault, how often it was
//! injected, what the user saw, and the state of the previous and of the new backup.

use std::collections::BTreeMap;
use std::io::Write;

use crate::site::{Outcome, Site};

/// How much of a message is shown.
const SHOWN: usize = 150;

/// Writes a line. Not by a macro: the harness hides what those print.
fn print(columns: [&str; 6]) {
    let columns = columns.map(|column| column.replace('|', "/"));
    let line = format!("FAULT | {} |\n", columns.join(" | "));
    std::io::stderr().write_all(line.as_bytes()).ok();
}

fn exit(outcome: &Outcome) -> String {
    let code = outcome.code.map(|code| code.to_string());
    code.unwrap_or_else(|| "killed".to_owned())
}

/// The error that the user saw, or the last line.
fn message(outcome: &Outcome) -> String {
    let lines = || outcome.stderr.lines();
    let error = lines().find_map(|line| Some(line.split_once("error: ")?.1));
    let mut message = error.or(lines().last()).unwrap_or_default().to_owned();
    if let Some((at, _)) = message.char_indices().nth(SHOWN) {
        message.truncate(at);
        message.push('…');
    }
    message
}

/// One kind of fault; written when it is dropped, unless the test has failed.
pub(super) struct Row {
    fault: String,
    times: u32,
    exit: String,
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
            exit: String::new(),
            message: String::new(),
            previous: "whole",
            new: "none",
        }
    }

    /// Counts a time that it was injected, and takes down what the user saw of it.
    pub(super) fn saw(&mut self, outcome: &Outcome) {
        self.times += 1;
        self.exit = exit(outcome);
        self.message = message(outcome);
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
        if !std::thread::panicking() {
            let times = self.times.to_string();
            let Row { fault, exit, .. } = self;
            print([fault, &times, exit, &self.message, self.previous, self.new]);
        }
    }
}

/// What makes two faults one line.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    fault: String,
    exit: String,
    previous: String,
    new: String,
}

/// Many faults, injected over and over; written when it is dropped, also by a test that fails.
pub(crate) struct Table {
    title: &'static str,
    /// Times, and the first message.
    lines: BTreeMap<Line, (usize, String)>,
    remarks: Vec<String>,
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Table {
        Table {
            title,
            lines: BTreeMap::new(),
            remarks: Vec::new(),
        }
    }

    /// One injected fault.
    pub(crate) fn note(
        &mut self,
        site: &Site,
        fault: &str,
        outcome: &Outcome,
        (previous, new): (&str, &str),
    ) {
        let line = Line {
            fault: fault.to_owned(),
            exit: exit(outcome),
            previous: previous.to_owned(),
            new: new.to_owned(),
        };
        let message = message(outcome).replace(&site.path("").display().to_string(), "…/");
        self.lines.entry(line).or_insert((0, message)).0 += 1;
    }

    /// A line below the table.
    pub(crate) fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for (line, (times, message)) in &self.lines {
            let fault = format!("{}: {}", self.title, line.fault);
            let times = times.to_string();
            print([
                &fault,
                &times,
                &line.exit,
                message,
                &line.previous,
                &line.new,
            ]);
        }
        for remark in &self.remarks {
            let line = format!("FAULT | {}: {remark}\n", self.title);
            std::io::stderr().write_all(line.as_bytes()).ok();
        }
    }
}
