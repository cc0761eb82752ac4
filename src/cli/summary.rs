//! The end of a backup or a restore, in a few aligned lines.

use schema_backup::event::RestoreSummary;
use schema_backup::event::Summary;

use super::human::{byte_rate, bytes, count, duration, encrypted_for, exact, printable};

/// What a completed backup amounts to, for people.
pub(crate) fn render(summary: &Summary) -> String {
    let mut text = format!("Backup complete in {}\n", duration(summary.seconds));
    let mut line = |label: &str, value: String| {
        text.push_str(format!("  {label:<11} {}", printable(&value)).trim_end());
        text.push('\n');
    };
    line(
        "tables",
        format!(
            "{} with data, structure of {}, other objects {}",
            exact(summary.tables as u64),
            exact(summary.structures as u64),
            exact(summary.objects as u64)
        ),
    );
    line("rows", exact(summary.rows));
    let ratio = summary.raw_bytes as f64 / summary.stored_bytes.max(1) as f64;
    let ratio = if summary.stored_bytes > 0 {
        format!(" ({ratio:.1} : 1)")
    } else {
        String::new()
    };
    line(
        "size",
        format!(
            "{} → {}{ratio}",
            bytes(summary.raw_bytes),
            bytes(summary.stored_bytes)
        ),
    );
    // A run that took no time has no speed.
    let seconds = summary.data_seconds;
    if seconds > 0.0 && summary.rows > 0 {
        line(
            "throughput",
            format!(
                "{} rows/s, {} → {} in {}",
                count((summary.rows as f64 / seconds) as u64),
                byte_rate(summary.raw_bytes as f64 / seconds),
                byte_rate(summary.stored_bytes as f64 / seconds),
                duration(seconds)
            ),
        );
    }
    line("snapshot", summary.snapshot.clone());
    for place in &summary.destinations {
        let encrypted = encrypted_for(place.recipients);
        line(&place.kind, format!("{}{encrypted}", place.path));
        let (written, unchanged) = (place.files_written as u64, place.files_unchanged as u64);
        line(
            "",
            format!(
                "{} files written, {} unchanged",
                exact(written),
                exact(unchanged)
            ),
        );
    }
    line("warnings", exact(summary.warnings.len() as u64));
    for warning in &summary.warnings {
        text.push_str(&format!("    {}\n", printable(warning)));
    }
    text
}

/// What a restore did, or would do.
pub(crate) fn restored(summary: &RestoreSummary, dry_run: bool) -> String {
    let mut text = if dry_run {
        "Would restore (nothing was written)\n".to_owned()
    } else {
        format!("Restore complete in {}\n", duration(summary.seconds))
    };
    let mut line = |label: &str, value: String| {
        text.push_str(&format!("  {label:<11} {}\n", printable(&value)));
    };
    let made = if summary.creates_database {
        ", created"
    } else {
        ""
    };
    line(
        "database",
        format!("{} on {}{made}", summary.database, summary.server),
    );
    line(
        "tables",
        format!(
            "{}, other objects {}",
            exact(summary.tables as u64),
            exact(summary.objects as u64)
        ),
    );
    line("rows", exact(summary.rows));
    line("size", bytes(summary.raw_bytes));
    if !dry_run {
        line(
            "compared",
            format!(
                "{} tables, row by row: the same as in the backup",
                exact(summary.compared as u64)
            ),
        );
    }
    line("warnings", exact(summary.warnings.len() as u64));
    for warning in &summary.warnings {
        text.push_str(&format!("    {}\n", printable(warning)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema_backup::event::Destination;

    #[test]
    fn everything_is_there_and_aligned() {
        let summary = Summary {
            structures: 66,
            objects: 14,
            tables: 62,
            rows: 14_000_000,
            raw_bytes: 2_000_000_000,
            stored_bytes: 500_000_000,
            seconds: 36.5,
            data_seconds: 20.0,
            snapshot: "binlog, mysql-bin.000012:3451".into(),
            warnings: vec!["table `a\nb` is on no list".into()],
            destinations: vec![Destination {
                kind: "user-data".into(),
                path: "/var/backup/20250101120000".into(),
                files_written: 140,
                files_unchanged: 2,
                recipients: 2,
            }],
        };
        let expected = "\
Backup complete in 36.5 s
  tables      62 with data, structure of 66, other objects 14
  rows        14,000,000
  size        1.86 GiB → 477 MiB (4.0 : 1)
  throughput  700k rows/s, 95.4 MiB/s → 23.8 MiB/s in 20.0 s
  snapshot    binlog, mysql-bin.000012:3451
  user-data   /var/backup/20250101120000 (encrypted for 2 recipients)
              140 files written, 2 unchanged
  warnings    1
    table `a\u{fffd}b` is on no list
";
        assert_eq!(render(&summary), expected);
    }

    #[test]
    fn an_empty_backup_has_no_speed() {
        let text = render(&Summary::default());
        assert!(!text.contains("throughput") && !text.contains("NaN") && !text.contains("inf"));
    }
}
