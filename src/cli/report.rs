//! What `plan` and `list` print: tables, with rules on a terminal and as plain aligned columns
//! elsewhere.

use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle, presets};
use schema_backup::plan::{PlanReport, PlannedTable};
use schema_backup::store::list::BackupInfo;

use super::human::{bytes, encrypted_for, exact, printable};

/// A rule below the header and one at the end: a rule at every row doubles the height.
const RULED: TableStyle = TableStyle::new()
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// A table whose columns `right` are numbers.
fn table(terminal: bool, header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    if terminal {
        table
            .load_style(RULED)
            .set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if !terminal {
        // No rule to keep a distance from: the first column starts the line.
        if let Some(first) = table.column_mut(0) {
            first.set_padding((0, 1));
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// What a run would do.
pub(crate) fn plan(plan: &PlanReport, terminal: bool) -> String {
    let mut text = format!("database  {} on {}\n", plan.database, plan.server);
    text.push_str(&format!("snapshot  {}\n\n", plan.consistency));

    let row = |t: &PlannedTable| {
        let category = if t.listed {
            t.category.to_string()
        } else {
            format!("{} (unlisted)", t.category)
        };
        let chunks = if t.data_dir.is_some() {
            exact(t.chunks)
        } else {
            "—".into()
        };
        vec![
            t.name.clone(),
            category,
            t.engine.clone(),
            exact(t.estimated_rows),
            bytes(t.estimated_bytes),
            chunks,
            place(plan, t.structure_dir.as_deref()),
            place(plan, t.data_dir.as_deref()),
        ]
    };
    let header = [
        "table",
        "category",
        "engine",
        "~ rows",
        "~ size",
        "chunks",
        "structure",
        "data",
    ];
    text.push_str(&table(
        terminal,
        &header,
        &[3, 4, 5],
        plan.tables.iter().map(row).collect(),
    ));

    let saved: Vec<_> = plan
        .tables
        .iter()
        .filter(|t| t.data_dir.is_some())
        .collect();
    let structures = plan
        .tables
        .iter()
        .filter(|t| t.structure_dir.is_some())
        .count();
    text.push_str(&format!(
        "\nto save   data of {} of {} tables, about {} rows, {}, in {} chunks; structure of {}\n",
        exact(saved.len() as u64),
        exact(plan.tables.len() as u64),
        exact(saved.iter().map(|t| t.estimated_rows).sum()),
        bytes(saved.iter().map(|t| t.estimated_bytes).sum()),
        exact(saved.iter().map(|t| t.chunks).sum()),
        exact(structures as u64),
    ));
    let objects: Vec<_> = plan
        .objects
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    if !objects.is_empty() {
        text.push_str(&format!("objects   {}\n", objects.join(", ")));
    }
    text.push('\n');
    text.push_str(&format!("host       {}\n", printable(&plan.host_dir)));
    let user_data = plan
        .user_data_dir
        .as_deref()
        .unwrap_or("— (user_data_backup_dir is not set)");
    let row = |label: &str, dir: &str, count| {
        format!("{label}  {}{}\n", printable(dir), encrypted_for(count))
    };
    text.push_str(&row("user data", user_data, plan.user_data_recipients));
    if let Some(dir) = &plan.ephemeral_dir {
        text.push_str(&row("ephemeral", dir, plan.ephemeral_recipients));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {}\n", printable(warning)));
    }
    text
}

/// A short name for one of the plan's directories: the one that holds `dir` most closely.
fn place(plan: &PlanReport, dir: Option<&str>) -> String {
    let Some(dir) = dir else { return "—".into() };
    let known = [
        ("host", Some(&plan.host_dir)),
        ("user data", plan.user_data_dir.as_ref()),
        ("ephemeral", plan.ephemeral_dir.as_ref()),
    ];
    let holders = known
        .iter()
        .filter_map(|(label, root)| Some((*label, (*root)?)));
    let holders = holders.filter(|(_, root)| Path::new(dir).starts_with(root));
    holders
        .max_by_key(|(_, root)| root.len())
        .map_or_else(|| dir.to_owned(), |(label, _)| label.to_owned())
}

/// The backups there are.
pub(crate) fn list(backups: &[BackupInfo], terminal: bool) -> String {
    if backups.is_empty() {
        return "no backups\n".into();
    }
    let row = |b: &BackupInfo| {
        let of_complete = |text: String| if b.complete { text } else { "—".into() };
        vec![
            b.kind.name().to_owned(),
            b.name.clone(),
            match (b.complete, b.encrypted) {
                (true, false) => "complete",
                (true, true) => "complete, encrypted",
                (false, _) => "incomplete",
            }
            .into(),
            b.finished.as_deref().map_or_else(|| "—".into(), moment),
            of_complete(exact(b.tables as u64)),
            of_complete(exact(b.rows)),
            of_complete(bytes(b.raw_bytes)),
            of_complete(bytes(b.stored_bytes)),
        ]
    };
    let header = [
        "kind",
        "name",
        "state",
        "finished (UTC)",
        "tables",
        "rows",
        "SQL",
        "stored",
    ];
    let mut text = table(
        terminal,
        &header,
        &[4, 5, 6, 7],
        backups.iter().map(row).collect(),
    );
    text.push('\n');
    for backup in backups {
        text.push_str(&printable(&backup.path.display().to_string()));
        if let Some(problem) = &backup.problem {
            text.push_str(&format!(": {}", printable(problem)));
        }
        text.push('\n');
        if let Some(snapshot) = snapshot(backup).filter(|_| backup.complete) {
            text.push_str(&format!("    snapshot {}\n", printable(&snapshot)));
        }
    }
    text
}

/// `2025-01-01 12:00:00` of an RFC 3339 time in UTC.
fn moment(time: &str) -> String {
    match (time.get(..10), time.get(11..19)) {
        (Some(date), Some(clock)) => format!("{date} {clock}"),
        _ => time.to_owned(),
    }
}

/// The way to the snapshot, and where it stands.
fn snapshot(backup: &BackupInfo) -> Option<String> {
    let position = backup
        .snapshot
        .iter()
        .filter(|(_, value)| !value.is_empty());
    let position = position.map(|(name, value)| format!("{name} {value}"));
    let parts: Vec<_> = backup.consistency.iter().cloned().chain(position).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema_backup::config::Category;
    use schema_backup::store::manifest::BackupKind;

    fn planned(
        name: &str,
        category: Category,
        structure: Option<&str>,
        data: Option<&str>,
    ) -> PlannedTable {
        PlannedTable {
            name: name.into(),
            category,
            listed: true,
            engine: "InnoDB".into(),
            structure_dir: structure.map(Into::into),
            data_dir: data.map(Into::into),
            estimated_rows: 1_234,
            estimated_bytes: 1 << 20,
            chunks: 3,
            chunk_key: Vec::new(),
        }
    }

    #[test]
    fn a_plan_names_places_and_totals() {
        let report = PlanReport {
            server: "MariaDB 10.11.6".into(),
            database: "csv2".into(),
            host_dir: "/b/host".into(),
            user_data_dir: Some("/b".into()),
            user_data_recipients: 2,
            ephemeral_dir: None,
            ephemeral_recipients: 0,
            consistency: "binlog".into(),
            tables: vec![
                planned(
                    "csv2_clouds",
                    Category::Local,
                    Some("/b/host/structure"),
                    Some("/b/2025"),
                ),
                planned("x", Category::Ignore, None, None),
            ],
            objects: [("views".to_owned(), 2)].into(),
            warnings: vec!["mind the gap".into()],
        };
        let expected = "\
database  csv2 on MariaDB 10.11.6
snapshot  binlog

table        category  engine  ~ rows    ~ size  chunks  structure  data
csv2_clouds  local     InnoDB   1,234  1.00 MiB       3  host       user data
x            ignore    InnoDB   1,234  1.00 MiB       —  —          —

to save   data of 1 of 2 tables, about 1,234 rows, 1.00 MiB, in 3 chunks; structure of 1
objects   views 2

host       /b/host
user data  /b (encrypted for 2 recipients)
warning: mind the gap
";
        assert_eq!(plan(&report, false), expected);
        assert!(plan(&report, true).contains('─'));
    }

    #[test]
    fn a_list_says_what_is_wrong() {
        let good = BackupInfo {
            kind: BackupKind::UserData,
            path: "/u/20250101120000".into(),
            name: "20250101120000".into(),
            complete: true,
            encrypted: true,
            problem: None,
            started: None,
            finished: Some("2025-01-01T12:03:10Z".into()),
            database: None,
            server: None,
            consistency: Some("binlog".into()),
            tables: 57,
            rows: 12_345,
            raw_bytes: 2 << 30,
            stored_bytes: 1 << 27,
            snapshot: [("gtid".to_owned(), "0-1-2345".to_owned())].into(),
        };
        let bad = BackupInfo {
            kind: BackupKind::Host,
            path: "/h".into(),
            name: "h".into(),
            complete: false,
            encrypted: false,
            problem: Some("no manifest".into()),
            started: None,
            finished: None,
            database: None,
            server: None,
            consistency: None,
            tables: 0,
            rows: 0,
            raw_bytes: 0,
            stored_bytes: 0,
            snapshot: [].into(),
        };
        let expected = "\
kind       name            state                finished (UTC)       tables    rows       SQL   stored
user-data  20250101120000  complete, encrypted  2025-01-01 12:03:10      57  12,345  2.00 GiB  128 MiB
host       h               incomplete           —                         —       —         —        —

/u/20250101120000
    snapshot binlog, gtid 0-1-2345
/h: no manifest
";
        assert_eq!(list(&[good, bad], false), expected);
        assert_eq!(list(&[], true), "no backups\n");
    }

    #[test]
    fn times_lose_their_decoration() {
        assert_eq!(moment("2025-01-01T12:00:00.123Z"), "2025-01-01 12:00:00");
        assert_eq!(moment("then"), "then");
    }
}
