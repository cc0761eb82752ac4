//! What `verify` prints: a short summary, then a line for each finding, the file first.

use schema_backup::verify::{DirectoryReport, Encrypted, VerifyReport};
use schema_backup::{Error, ErrorKind, Result};

use super::command::Output;
use super::human::{bytes, duration, exact, printable};

/// The report for people. Quiet, it has the findings only; verbose, every file.
pub(crate) fn render(report: &VerifyReport, output: Output) -> String {
    let mut text = String::new();
    if !output.quiet {
        text.push_str(&summary(report));
    }
    for dir in &report.directories {
        let shown = dir
            .files
            .iter()
            .filter(|file| output.verbosity > 0 || !file.verdict.is_ok());
        for file in shown {
            let path = dir.path.join(&file.file);
            let path = path.to_string_lossy();
            text.push_str(&line(&format!("{path}: {}", file.verdict.describe())));
        }
    }
    let differences = report
        .against
        .iter()
        .flat_map(|against| &against.differences);
    for difference in differences {
        text.push_str(&line(&difference.to_string()));
    }
    for why in &report.unfit {
        text.push_str(&line(&format!(
            "the directories do not belong together: {why}"
        )));
    }
    text
}

/// The error that findings amount to.
pub(crate) fn outcome(report: &VerifyReport) -> Result<()> {
    if report.sound {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Differs, report.verdict());
    let damaged = report
        .directories
        .iter()
        .any(|dir| dir.findings().next().is_some());
    Err(if damaged {
        error.hint("rely on another backup; files that are not named can still be loaded by hand")
    } else {
        error
    })
}

fn line(text: &str) -> String {
    format!("{}\n", printable(text))
}

fn summary(report: &VerifyReport) -> String {
    let what = if report.sample.is_some() {
        "A sample was checked"
    } else {
        "Everything was checked"
    };
    let mut text = format!("{what} in {}\n", duration(report.seconds));
    let mut row = |label: &str, value: String| {
        text.push_str(format!("  {label:<11} {}", printable(&value)).trim_end());
        text.push('\n');
    };
    for dir in &report.directories {
        let kind = dir.kind.map_or("damaged", |kind| kind.name());
        row(kind, dir.path.display().to_string());
        row("", directory(dir));
        match dir.encrypted {
            Some(Encrypted::NotDecrypted) => row(
                "",
                "encrypted: the rows were not decrypted, which takes --identity".to_owned(),
            ),
            Some(Encrypted::Decrypted) => row("", "encrypted: the rows were decrypted".to_owned()),
            None => {}
        }
    }
    if let Some(sample) = report.sample {
        let skipped: usize = report.directories.iter().map(|dir| dir.skipped).sum();
        row(
            "sample",
            format!(
                "{sample} of the data files; {} were left out",
                exact(skipped as u64)
            ),
        );
    }
    if let Some(against) = &report.against {
        row(
            "compared",
            format!("database {} on {}", against.database, against.server),
        );
        row("snapshot", against.snapshot.clone());
        row(
            "",
            format!(
                "{} tables of {} rows, {} definitions, {}",
                exact(against.tables as u64),
                exact(against.rows),
                exact(against.definitions as u64),
                match against.differences.len() {
                    0 => "no difference".to_owned(),
                    1 => "1 difference".to_owned(),
                    n => format!("{} differences", exact(n as u64)),
                }
            ),
        );
    }
    text
}

fn directory(dir: &DirectoryReport) -> String {
    let findings = dir.findings().count();
    let verdict = match findings {
        0 => "all sound".to_owned(),
        n => format!("{} with findings", exact(n as u64)),
    };
    format!(
        "{} files, {}, {verdict}",
        exact(dir.files.len() as u64),
        bytes(dir.bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::super::args::ProgressKind;
    use super::*;
    use schema_backup::verify::{FileReport, Verdict};

    fn report(verdict: Verdict) -> VerifyReport {
        let sound = verdict.is_ok();
        VerifyReport {
            sound,
            directories: vec![DirectoryReport {
                path: "/b".into(),
                kind: None,
                database: None,
                started: None,
                encrypted: None,
                files: vec![
                    FileReport {
                        file: "data/a.00001.sql".into(),
                        verdict: Verdict::Ok,
                    },
                    FileReport {
                        file: "data/b\n.00001.sql".into(),
                        verdict,
                    },
                ],
                skipped: 0,
                bytes: 2048,
            }],
            unfit: Vec::new(),
            sample: None,
            against: None,
            seconds: 0.5,
        }
    }

    fn output(quiet: bool, verbosity: u8) -> Output {
        Output {
            progress: ProgressKind::None,
            quiet,
            verbosity,
        }
    }

    #[test]
    fn a_finding_is_a_line_with_the_file_first() {
        let report = report(Verdict::Missing);
        let expected = "\
Everything was checked in 0.50 s
  damaged     /b
              2 files, 2.00 KiB, 1 with findings
/b/data/b\u{fffd}.00001.sql: missing
";
        assert_eq!(render(&report, output(false, 0)), expected);
        let error = outcome(&report).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Differs);
        assert_eq!(error.to_string(), "1 file is not as it should be");
    }

    #[test]
    fn sound_files_are_listed_only_when_asked_for() {
        let report = report(Verdict::Ok);
        assert_eq!(render(&report, output(true, 0)), "");
        assert!(render(&report, output(false, 1)).contains("/b/data/a.00001.sql: ok\n"));
        assert!(outcome(&report).is_ok());
    }
}
