//! Load: a server under writers for the whole run, more than one backup at once, and more tables
//! than files may be open.

use std::sync::atomic::AtomicBool;
use std::thread;

use rustix::process::Signal;

use super::table::Row;
use super::{ONE_STREAM, assert_no_sessions_left, fixture, stop_in_the_middle_of_big};
use crate::consistency::{self, StopOnDrop, WRITERS, exported_total, totals, write};
use crate::server::{Server, with_binlog, without_binlog};
use crate::site::{
    Lists, RUN_BOUND, Site, assert_no_leftovers, assert_sums_hold, json, run, run_with_timeout,
    soak, start,
};

#[test]
fn two_backups_at_once_under_eight_writers_are_one_state_each() {
    for (way, server) in [("binlog", with_binlog()), ("global-lock", without_binlog())] {
        let Some(server) = server else { return };
        let database = format!("load_{}", way.replace('-', "_"));
        consistency::fill(server, &database);
        let copy = format!("{database}_copy");
        server.create_database(&copy);
        server.execute(
            &consistency::TABLES
                .map(|table| format!("CREATE TABLE {copy}.{table} LIKE {database}.{table}"))
                .each_ref()
                .map(String::as_str),
        );
        let before = totals(server, &database);
        let sites = [(); 2].map(|()| Site::new(server, &database, &consistency::lists()));
        let mut row = Row::new(format!("two backups at once, 8 writers, {way}"))
            .first()
            .complete();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            for writer in 1..=WRITERS {
                let (stop, database) = (&stop, &database);
                scope.spawn(move || write(server, database, writer, stop));
            }
            for _ in 0..3 {
                let arguments = ["-j", "4", "--chunk-size", "64K", "--consistency", way];
                let runs = sites.each_ref().map(|site| {
                    std::fs::remove_dir_all(site.user_data_dir()).ok();
                    start(site.command("", &arguments))
                });
                let outcomes = runs.map(|run| run.finish(RUN_BOUND).expect_code(0));
                outcomes.iter().for_each(|outcome| row.saw(outcome));
                for site in &sites {
                    assert_eq!(exported_total(server, &copy, site), before);
                    assert_no_leftovers(site);
                }
            }
        });
        assert_eq!(
            totals(server, &database),
            before,
            "the test's own invariant"
        );
        row.note("the total holds in each".to_owned());
    }
}

#[test]
fn a_lock_is_named_while_its_process_lives_and_taken_over_when_it_is_dead() {
    let Some((server, site)) = fixture("load_lock") else {
        return;
    };
    let mut first = start(site.command("", &ONE_STREAM));
    stop_in_the_middle_of_big(server, "load_lock", &mut first);
    let holder = json(site.host().join(".schema_backup/lock"));
    let (pid, started) = (
        holder["pid"].to_string(),
        holder["started"].as_str().unwrap(),
    );
    assert_eq!(pid, first.pid().as_raw_nonzero().to_string());
    let mut row = Row::new("a second run on the same destination");
    let second = run(site.command("", &ONE_STREAM));
    row.saw(
        &second
            .expect_code(12)
            .expect_said(&format!("pid {pid}"))
            .expect_said(started),
    );
    drop(row);

    first.signal(Signal::KILL);
    assert_eq!(first.finish(RUN_BOUND).code, None);
    assert!(site.host().join(".schema_backup/lock").exists());
    let mut row = Row::new("the lock of a dead run").complete();
    let third = site.backup_ok(&ONE_STREAM);
    row.saw(&third);
    assert_sums_hold(&site.host());
    assert_sums_hold(&site.latest());
    assert_no_leftovers(&site);
    assert_no_sessions_left(server, "load_lock");
}

#[test]
fn more_tables_than_files_may_be_open() {
    // The usual limit, and one that is as small next to fewer tables.
    let (tables, limit) = if soak() { (10_000, 1024) } else { (1000, 100) };
    let options = [
        "--innodb-file-per-table=0",
        "--table-open-cache=400",
        "--log-bin=binlog",
    ];
    let Some(server) = Server::start(&options) else {
        return;
    };
    let database = "many";
    server.create_database(database);
    let names: Vec<String> = (0..tables).map(|n| format!("t{n:05}")).collect();
    let sql: Vec<String> = names
        .iter()
        .map(|name| {
            format!("CREATE TABLE {name} (id INT PRIMARY KEY); INSERT INTO {name} VALUES (1);\n")
        })
        .collect();
    server.feed(database, "many tables", sql.concat().as_bytes());
    let (global, local) = names.split_at(tables / 2);
    let of = |names: &'_ [String]| {
        names
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let (global, local) = (of(global), of(local));
    let lists = Lists {
        global: global.split(' ').collect(),
        local: local.split(' ').collect(),
        ..Lists::default()
    };
    let site = Site::new(&server, database, &lists);
    let limited = ["prlimit".to_owned(), format!("--nofile={limit}:{limit}")];
    let limited = limited.each_ref().map(String::as_str);
    let mut row = Row::new(format!("{tables} tables, {limit} open files"))
        .first()
        .complete();
    // The second finds everything as it was.
    for _ in 0..2 {
        let began = std::time::Instant::now();
        let command = site.wrapped(&limited, "", &["-j", "8", "--progress", "none"]);
        let outcome = run_with_timeout(command, RUN_BOUND * 3).expect_code(0);
        row.saw(&outcome);
        row.note(format!(
            "complete in {:.1} s",
            began.elapsed().as_secs_f64()
        ));
        thread::sleep(std::time::Duration::from_millis(1100));
    }
    for backup in [site.host(), site.latest()] {
        let manifest = json(backup.join("manifest.json"));
        let saved = manifest["tables"].as_object().unwrap().values();
        let with_data = saved.filter(|table| table["data"]["rows"] == 1).count();
        assert_eq!(with_data, tables / 2);
    }
    let (host, latest) = (site.host(), site.latest());
    let directories = [host.to_str().unwrap(), latest.to_str().unwrap()];
    let mut verify = std::process::Command::new("prlimit");
    verify
        .arg(limited[1])
        .arg(crate::site::PROGRAM)
        .arg("verify")
        .args(directories);
    run_with_timeout(verify, RUN_BOUND * 3).expect_code(0);
}
