//! Slow and silent: a server that sends 1 MB/s or nothing at all, a target that takes 1 MB/s.
//! The run takes longer, in bounded memory, and is as complete; an interrupt ends it at once.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::table::Row;
use super::throttle::Throttle;
use super::{ONE_STREAM, assert_no_sessions_left, assert_previous_backup_is_whole, state};
use crate::connections::{certificates, start_secure};
use crate::server::{Kind, Server, on_each_kind, with_binlog};
use crate::site::{
    Lists, RUN_BOUND, Site, assert_no_leftovers, assert_sums_hold, json, run_with_timeout, soak,
    start,
};

/// What the issue promises is 2 seconds; the rest is for a busy machine.
const ANSWER_BOUND: Duration = Duration::from_secs(4);

fn lists() -> Lists<'static> {
    Lists {
        global: vec!["big"],
        local: vec!["small"],
        ..Lists::default()
    }
}

/// A table of about `megabytes`, a small one, a view, and a complete backup.
fn fill(server: &Server, database: &str, megabytes: u32) -> Site {
    server.create_database(database);
    let rows = megabytes * 1000;
    let recursion = if server.kind().is_mysql() {
        "cte_max_recursion_depth"
    } else {
        "max_recursive_iterations"
    };
    let sql = format!(
        "CREATE TABLE small (id INT PRIMARY KEY); INSERT INTO small VALUES (1);
         CREATE VIEW v AS SELECT id FROM small;
         CREATE TABLE big (id INT PRIMARY KEY, v VARBINARY(1000));
         SET SESSION {recursion} = {rows};
         INSERT INTO big WITH RECURSIVE seq AS (SELECT 1 n UNION ALL SELECT n + 1 FROM seq WHERE n < {rows})
         SELECT n, left(repeat(sha2(n, 256), 20), 980) FROM seq;
         ANALYZE TABLE big;"
    );
    let mut client = server.stock_client(database);
    let output = client.arg("-e").arg(sql).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Site::new(server, database, &lists())
}

/// Events of a kind that a run with `--progress json` has told.
fn events<'a>(stderr: &'a str, kind: &'a str) -> impl Iterator<Item = Value> + 'a {
    let events = stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(move |event| event["event"] == kind)
}

#[test]
fn an_interrupt_is_answered_while_the_server_says_nothing() {
    let certificates = certificates();
    let Some(server) = start_secure(&certificates, &["--log-bin=binlog"]) else {
        return;
    };
    for (way, database) in [("a socket", "silent_plain"), ("TLS", "silent_tls")] {
        let site = fill(&server, database, 20);
        site.backup_ok(&ONE_STREAM);
        let before = state(&site);
        let throttle = match way {
            "TLS" => Throttle::by_tcp(&server),
            _ => Throttle::by_socket(&server),
        };
        let site = throttle.before(&server, site, database);
        // In the greeting, while looking around, in the structure, in the middle of a row.
        let mut row = Row::new(format!("server silent, over {way}, then SIGINT"));
        let mut slowest = Duration::ZERO;
        for bytes in [
            0, 50, 300, 2_000, 6_000, 15_000, 30_000, 45_000, 1_000_000, 5_000_000,
        ] {
            throttle.silent_after(bytes);
            let mut program = start(site.command("", &ONE_STREAM));
            throttle.wait_until_silent(&mut program);
            std::thread::sleep(Duration::from_millis(200));
            let asked = Instant::now();
            program.signal(Signal::INT);
            let outcome = program.finish(RUN_BOUND).expect_code(130);
            let took = asked.elapsed();
            slowest = slowest.max(took);
            assert!(
                took < ANSWER_BOUND,
                "over {way} after {bytes} bytes: {took:?}"
            );
            assert_previous_backup_is_whole(&site, &before);
            assert_no_leftovers(&site);
            assert_no_sessions_left(&server, database);
            row.saw(&outcome);
        }
        row.note(format!("interrupted; within {} ms", slowest.as_millis()));
    }
}

on_each_kind!(a_server_that_sends_a_megabyte_a_second_and_pauses_is_waited_for);

fn a_server_that_sends_a_megabyte_a_second_and_pauses_is_waited_for(kind: Kind) {
    // Limits under which such a run could not live, were they not lifted for its sessions.
    let mut options = vec![
        "--net-write-timeout=2",
        "--net-read-timeout=2",
        "--wait-timeout=3",
        "--interactive-timeout=3",
        "--log-bin=binlog",
    ];
    if kind.is_mysql() {
        options.push("--max-execution-time=2000");
    } else {
        options.extend([
            "--idle-transaction-timeout=2",
            "--idle-readonly-transaction-timeout=2",
            "--max-statement-time=2",
        ]);
    }
    let Some(server) = Server::start_kind(kind, &options) else {
        return;
    };
    let site = fill(&server, "slow_server", 6);
    let throttle = Throttle::by_socket(&server);
    let site = throttle.before(&server, site, "slow_server");
    throttle.pace(1 << 20);
    throttle.silent_after(3 << 20);
    let report = site.path("peak");
    let time = ["/usr/bin/time", "-f", "%M", "-o", report.to_str().unwrap()];
    // Two sessions, so that one is idle for most of the time.
    let arguments = ["-j", "2", "--chunk-size", "1G", "--progress", "json"];
    let mut program = start(site.wrapped(&time, "", &arguments));
    throttle.wait_until_silent(&mut program);
    std::thread::sleep(Duration::from_secs(5));
    throttle.speak_again();
    let outcome = program.finish(RUN_BOUND).expect_code(0);
    assert_sums_hold(&site.host());
    assert_sums_hold(&site.latest());
    let table = &json(site.host().join("manifest.json"))["tables"]["big"];
    assert_eq!(table["data"]["rows"], 6000);

    // Progress never goes back, never runs ahead, and stands still while nothing comes.
    let all: Vec<_> = events(&outcome.stderr, "progress").collect();
    let of = |event: &Value, key: &str| event[key].as_f64().unwrap();
    for pair in all.windows(2) {
        assert!(of(&pair[1], "rows") >= of(&pair[0], "rows"));
        assert!(of(&pair[1], "fraction") >= of(&pair[0], "fraction") - 0.01);
    }
    let (last, running) = all.split_last().unwrap();
    assert_eq!((of(last, "rows"), of(last, "fraction")), (6001.0, 1.0));
    let paused: Vec<_> = running
        .chunk_by(|a, b| a["rows"] == b["rows"])
        .filter(|same| of(&same[same.len() - 1], "seconds") - of(&same[0], "seconds") > 3.0)
        .collect();
    assert_eq!(paused.len(), 1, "one pause of 5 seconds");
    let at = of(&paused[0][0], "fraction");
    assert!((0.2..0.8).contains(&at), "half of it had come, not {at}");

    let peak: u64 = std::fs::read_to_string(report)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(peak < 64 << 10, "{peak} KiB");
    let what = format!("server sends 1 MB/s and pauses for 5 s, timeouts of 2 s, {kind:?}");
    let mut row = Row::new(what).complete().first();
    row.saw(&outcome);
    row.note(format!("complete; peak {peak} KiB"));
}

/// What the program is run with to make every file it writes a slow one: `write` to a file takes
/// as long as a disk of `$SLOW_BYTES_PER_SECOND` would.
const SLOW_WRITE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

ssize_t write(int fd, const void *from, size_t bytes) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    struct stat what;
    if (bytes > 4096 && fstat(fd, &what) == 0 && S_ISREG(what.st_mode)) {
        double seconds = bytes / atof(getenv("SLOW_BYTES_PER_SECOND"));
        struct timespec pause = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
        while (nanosleep(&pause, &pause) != 0) {}
    }
    return real(fd, from, bytes);
}
"#;

/// Makes `command` write to files at `bytes_per_second`, each.
fn slow_target(site: &Site, command: &mut Command, bytes_per_second: u64) {
    let (source, library) = (site.path("slow.c"), site.path("slow.so"));
    std::fs::write(&source, SLOW_WRITE).unwrap();
    // The linker of Rust's programs is always there.
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl");
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    command.env("LD_PRELOAD", library);
    command.env("SLOW_BYTES_PER_SECOND", bytes_per_second.to_string());
}

#[test]
fn a_target_that_takes_a_megabyte_a_second_costs_time_and_no_memory() {
    let Some(server) = with_binlog() else { return };
    // So much more than all blocks hold that memory would show it.
    let (megabytes, speed) = if soak() {
        (100, 1 << 20)
    } else {
        (40, 8 << 20)
    };
    let site = fill(server, "slow_target", megabytes);
    let report = site.path("peak");
    let time = ["/usr/bin/time", "-f", "%M", "-o", report.to_str().unwrap()];
    let arguments = ["-j", "1", "--chunk-size", "1G", "--progress", "json"];
    let mut command = site.wrapped(&time, "", &arguments);
    slow_target(&site, &mut command, speed);
    let outcome = run_with_timeout(command, RUN_BOUND * 2).expect_code(0);
    assert_sums_hold(&site.host());
    let last = events(&outcome.stderr, "progress").last().unwrap();
    let seconds = last["seconds"].as_f64().unwrap();
    assert!(
        seconds > 0.9 * f64::from(megabytes) * 1e6 / speed as f64,
        "it was not slow: {seconds}"
    );
    for event in events(&outcome.stderr, "progress") {
        // What has been read can be ahead of what is stored by the blocks only.
        let (read, stored) = (
            event["rows"].as_u64().unwrap() * 1000,
            event["stored_bytes"].as_u64().unwrap(),
        );
        assert!(
            read < stored + (10 << 20),
            "{read} bytes read, {stored} stored"
        );
    }
    let peak: u64 = std::fs::read_to_string(report)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(peak < 40 << 10, "{peak} KiB");
    let mut row = Row::new(format!(
        "target takes {} MiB/s, {megabytes} MB",
        speed >> 20
    ))
    .complete()
    .first();
    row.saw(&outcome);
    row.note(format!("complete after {seconds:.0} s; peak {peak} KiB"));
}

#[test]
fn an_interrupt_is_answered_while_the_target_takes_a_megabyte_a_second() {
    let Some(server) = with_binlog() else { return };
    let site = fill(server, "slow_target_int", 40);
    site.backup_ok(&["--chunk-size", "1M"]);
    server.execute(&["UPDATE slow_target_int.big SET v = left(repeat(sha2(-id, 256), 20), 980)"]);
    let before = state(&site);
    let mut row = Row::new("target takes 1 MB/s, then SIGINT");
    let mut slowest = Duration::ZERO;
    // One file that all blocks wait for, and many.
    for (wait, threads, chunk_size) in [(4000, "1", "1G"), (1700, "8", "1M"), (2400, "8", "1M")] {
        let arguments = [
            "-j",
            threads,
            "--chunk-size",
            chunk_size,
            "--progress",
            "none",
        ];
        let mut command = site.command("", &arguments);
        slow_target(&site, &mut command, 1_000_000);
        let mut program = start(command);
        std::thread::sleep(Duration::from_millis(wait));
        assert!(!program.ended());
        let asked = Instant::now();
        program.signal(Signal::INT);
        let outcome = program.finish(RUN_BOUND).expect_code(130);
        let took = asked.elapsed();
        slowest = slowest.max(took);
        assert!(took < ANSWER_BOUND, "{took:?}");
        assert_previous_backup_is_whole(&site, &before);
        assert_no_leftovers(&site);
        row.saw(&outcome);
    }
    row.note(format!("interrupted; within {} ms", slowest.as_millis()));
}
