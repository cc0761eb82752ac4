//! The command line as its users and their scripts see it.

use std::process::Command;

use serde_json::Value;

use crate::server::with_binlog;
use crate::site::{Lists, PROGRAM, Site, contents, run, walk};

fn lists() -> Lists<'static> {
    Lists {
        global: vec!["settings"],
        local: vec!["people"],
        ephemeral: vec!["jobs"],
        ..Lists::default()
    }
}

fn fixture(database: &str) -> Option<Site> {
    let server = with_binlog()?;
    server.create_database(database);
    server.feed(
        database,
        "the tables",
        b"CREATE TABLE settings (id INT PRIMARY KEY);
          INSERT INTO settings SELECT seq FROM seq_1_to_1000;
          CREATE TABLE people (id INT PRIMARY KEY, v VARCHAR(100));
          INSERT INTO people SELECT seq, md5(seq) FROM seq_1_to_50000;
          CREATE TABLE jobs (id INT PRIMARY KEY);
          CREATE TABLE nobody_said (id INT PRIMARY KEY);
          ANALYZE TABLE settings, people;",
    );
    Some(Site::new(server, database, &lists()))
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    command
}

#[test]
fn help_names_every_verb_and_the_options_of_the_specification() {
    let outcome = run(program(&["--help"])).expect_code(0);
    for word in [
        "backup",
        "plan",
        "list",
        "--model",
        "--target",
        "--ephemeral-directory",
        "--config",
        "--threads",
    ] {
        assert!(
            outcome.stdout.contains(word),
            "{word} is not in --help:\n{}",
            outcome.stdout
        );
    }
    assert!(outcome.stderr.is_empty());
}

#[test]
fn version_is_the_packages() {
    let outcome = run(program(&["--version"])).expect_code(0);
    assert_eq!(
        outcome.stdout.trim(),
        concat!("schema_backup ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn usage_and_configuration_errors_end_with_2_and_write_nothing() {
    for arguments in [
        &["--no-such-flag"][..],
        &["--compress", "gzip"],
        &["--compress", "zstd:99"],
        &["--chunk-size", "many"],
        &["--consistency", "perhaps"],
        &["--skip", "tables"],
        &["-j", "0"],
        &["-m", "-t"],
    ] {
        let site = Site::offline(&lists()).connect_by(&[
            "--socket=/nonexistent",
            "--user=u",
            "--database=d",
        ]);
        let outcome = site.backup(arguments).expect_code(2);
        assert!(
            !outcome.stderr.is_empty(),
            "{arguments:?} is refused without a word"
        );
        assert!(!site.host().exists());
    }
    let site = Site::offline(&lists());
    std::fs::remove_file(site.path("schema_backup.conf")).unwrap();
    site.backup(&["--database=d"])
        .expect_code(2)
        .expect_said("schema_backup.conf");
    std::fs::write(site.path("schema_backup.conf"), "global: [unclosed\n").unwrap();
    site.backup(&["--database=d"])
        .expect_code(2)
        .expect_said("schema_backup.conf");
}

#[test]
fn a_table_in_global_and_in_local_is_refused() {
    let Some(site) = fixture("cli_both") else {
        return;
    };
    site.configure(
        &Lists {
            global: vec!["settings", "people"],
            ..lists()
        },
        "",
    );
    site.backup(&[]).expect_code(2).expect_said("people");
    assert!(!site.backup_dir().exists() && !site.user_data_dir().exists());
}

#[test]
fn a_misspelt_key_of_the_configuration_is_pointed_out() {
    let Some(site) = fixture("cli_misspelt") else {
        return;
    };
    site.configure(&lists(), "locals: [jobs]\nsomething_else: 1\n");
    site.backup(&["-v"])
        .expect_code(0)
        .expect_said("locals")
        .expect_said("something_else");
}

#[test]
fn plan_says_what_would_happen_and_touches_nothing() {
    let Some(site) = fixture("cli_plan") else {
        return;
    };
    let before = walk(&site.path(""));
    let outcome = run(site.command("plan", &["--json"])).expect_code(0);
    let plan: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let text = plan.to_string();
    for word in [
        "settings",
        "people",
        "jobs",
        "nobody_said",
        "global",
        "local",
        "ephemeral",
    ] {
        assert!(text.contains(word), "{word} is not in the plan: {text}");
    }
    let table = run(site.command::<&str>("plan", &[])).expect_code(0).stdout;
    for word in ["settings", "people", "jobs", "global", "local", "ephemeral"] {
        assert!(table.contains(word), "{word} is not in the plan:\n{table}");
    }
    assert_eq!(walk(&site.path("")), before, "plan wrote something");
}

#[test]
fn list_knows_the_backups_that_are_there() {
    let Some(site) = fixture("cli_list") else {
        return;
    };
    run(site.command::<&str>("list", &[])).expect_code(0);
    site.backup_ok(&[]);
    let outcome = run(site.command("list", &["--json"])).expect_code(0);
    let listed: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let text = listed.to_string();
    for path in [site.host(), site.latest()] {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(name), "{name} is not listed: {text}");
    }
    for kind in ["host", "user-data"] {
        assert!(text.contains(kind), "{kind} is not listed: {text}");
    }
    let table = run(site.command::<&str>("list", &[])).expect_code(0).stdout;
    assert!(
        table.contains("51,000") || table.contains("50,000") || table.contains("50000"),
        "no rows in:\n{table}"
    );
}

#[test]
fn no_verb_and_backup_are_the_same() {
    let Some(site) = fixture("cli_verb") else {
        return;
    };
    site.backup_ok(&[]);
    let before = contents(&site.host());
    run(site.command::<&str>("backup", &[])).expect_code(0);
    let mut after = contents(&site.host());
    after.insert("run.json".to_owned(), before["run.json"].clone());
    assert!(after == before);
}

#[test]
fn progress_events_are_one_json_object_per_line_and_never_go_back() {
    let Some(site) = fixture("cli_json") else {
        return;
    };
    let outcome = site.backup_ok(&["--progress", "json", "--chunk-size", "256K"]);
    let events: Vec<Value> = outcome
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    for kind in [
        "phase",
        "connected",
        "snapshot",
        "planned",
        "table_done",
        "warning",
    ] {
        assert!(kinds.contains(&kind), "no event {kind} in {kinds:?}");
    }
    assert_eq!(kinds.last(), Some(&"finished"));
    let fractions: Vec<_> = events
        .iter()
        .filter(|e| e["event"] == "progress")
        .map(|e| e["fraction"].as_f64().unwrap())
        .collect();
    assert!(
        fractions.is_sorted() && fractions.iter().all(|f| (0.0..=1.0).contains(f)),
        "{fractions:?}"
    );
    assert_eq!(events.last().unwrap()["rows"], 51_000);
}

#[test]
fn quiet_says_nothing_but_warnings() {
    let Some(site) = fixture("cli_quiet") else {
        return;
    };
    let outcome = site.backup_ok(&["-q"]);
    assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    let others: Vec<_> = outcome
        .stderr
        .lines()
        .filter(|line| !line.to_lowercase().contains("warning"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_destination_that_cannot_be_written_ends_with_12() {
    let Some(site) = fixture("cli_unwritable") else {
        return;
    };
    // A file where the directory should be: refused even for root.
    std::fs::write(site.backup_dir(), "").unwrap();
    site.backup(&[])
        .expect_code(12)
        .expect_said("schema_backup");
}
