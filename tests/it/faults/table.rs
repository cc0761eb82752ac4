//! What the tests of faults print: one line for each fault and what came of it, how often it
//! was injected, what the user saw, and the state of the previous and of the new backup.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use crate::site::{Outcome, Site};

/// How much of a message is shown.
const SHOWN: usize = 150;

/// What makes two lines the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    fault: String,
    exit: String,
    previous: String,
    new: String,
}

/// A table that is printed when it is dropped, also by a test that fails.
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
            exit: outcome
                .code
                .map_or_else(|| "killed".to_owned(), |code| code.to_string()),
            previous: previous.to_owned(),
            new: new.to_owned(),
        };
        let said = outcome.stderr.lines();
        let mut said = said.filter_map(|line| line.split_once("error: ").map(|(_, text)| text));
        let message = said.next().unwrap_or_default();
        let mut message = message.replace(&site.path("").display().to_string(), "…/");
        if let Some((at, _)) = message.char_indices().nth(SHOWN) {
            message.truncate(at);
            message.push('…');
        }
        self.lines.entry(line).or_insert((0, message)).0 += 1;
    }

    /// A line below the table.
    pub(crate) fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }
}

impl Drop for Table {
    /// Not by a macro: the test harness hides what those print.
    fn drop(&mut self) {
        let mut text = format!("\nFAULTS {}\n", self.title);
        text.push_str("fault | times | exit | message | previous backup | new backup\n");
        for (line, (times, message)) in &self.lines {
            let Line {
                fault,
                exit,
                previous,
                new,
            } = line;
            writeln!(
                text,
                "{fault} | {times} | {exit} | {message} | {previous} | {new}"
            )
            .ok();
        }
        for remark in &self.remarks {
            writeln!(text, "{remark}").ok();
        }
        std::io::stderr().write_all(text.as_bytes()).ok();
    }
}
