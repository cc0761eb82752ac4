//! The program is killed, interrupted, panics or meets an error of storage: at every step of
//! writing and publishing that has a name, and at random moments. The previous backup is whole
//! afterwards, or the new one is, and nothing else is taken for a backup.
//!
//! With `SCHEMA_BACKUP_SOAK` set there are many more of each.

use std::thread;
use std::time::{Duration, Instant};

use super::pair::{Pair, kill};
use super::table::Table;
use crate::site::{PROGRAM, RUN_BOUND, run, start};

pub(super) fn soak() -> bool {
    std::env::var_os("SCHEMA_BACKUP_SOAK").is_some()
}

#[test]
fn killed_at_random_moments_there_is_always_a_whole_backup() {
    let Some(mut pair) = Pair::new("faults_random") else {
        return;
    };
    let mut table = Table::new("SIGKILL at random moments");
    // How long a run takes, and its last part, which begins with the first staged manifest.
    pair.change();
    let began = Instant::now();
    let mut program = start(pair.command());
    let staged = pair
        .site
        .user_data_dir()
        .join(".schema_backup/staging/manifest.json");
    while !staged.exists() && !program.ended() {
        thread::sleep(Duration::from_micros(200));
    }
    let before = began.elapsed();
    program.finish(RUN_BOUND).expect_code(0);
    let mut whole = began.elapsed();
    let last_part = (whole - before).div_duration_f64(whole);
    pair.forget_older();

    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let times = if soak() { 300 } else { 20 };
    let (mut killed, mut too_late) = (0, 0);
    while killed < times {
        pair.change();
        let mut program = start(pair.command());
        // Every other kill comes while the backup is sealed and published.
        let (part, wait) = if killed % 2 == 0 {
            ("anywhere in a run", whole.mul_f64(random.f64()))
        } else {
            while !staged.exists() && !program.ended() {
                thread::sleep(Duration::from_micros(200));
            }
            let moment = whole.mul_f64(last_part * random.f64());
            ("while sealing and publishing", moment)
        };
        thread::sleep(wait);
        let outcome = kill(program);
        if outcome.code.is_some() {
            too_late += 1;
            pair.assert_new();
            pair.forget_older();
            continue;
        }
        killed += 1;
        let aftermath = pair.look();
        table.note(&pair.site, part, &outcome, aftermath.words());
        // Others may have more or less of the machine by now.
        whole = (whole * 3 + pair.next_run()) / 4;
    }
    table.remark(format!(
        "seed {seed}; {killed} killed, {too_late} had ended; a run takes {whole:.2?}, {:.0} % of \
         it to seal and publish; each time the old or the new backup was complete and verified, \
         and nothing else was taken for one by list, verify or restore",
        100.0 * last_part
    ));
}

#[test]
fn nobody_who_reads_the_output_is_no_reason_to_lose_a_backup() {
    let Some(mut pair) = Pair::new("faults_pipe") else {
        return;
    };
    let mut table = Table::new("stdout or stderr closed or full");
    for redirection in [
        ">&-",
        "2>&-",
        ">&- 2>&-",
        ">/dev/full 2>/dev/full",
        // Not read, and closed by the time anything is said.
        "> >(exec true)",
        "2> >(exec true)",
        "2>&1 | head -n 1 >/dev/null",
    ] {
        for progress in ["plain", "json"] {
            pair.change();
            let script = format!("set -o pipefail; \"$@\" {redirection}");
            let mut wrapped =
                pair.site
                    .wrapped(&["bash", "-c", &script, "bash"], "", &["-j", "2", "-vv"]);
            wrapped.arg(format!("--progress={progress}"));
            let outcome = run(wrapped).expect_code(0);
            pair.assert_new();
            pair.forget_older();
            table.note(&pair.site, redirection, &outcome, ("replaced", "whole"));
        }
    }
    // What says something only: a reader that has gone is none of its business, a full disk is.
    let listed = |redirection: &str| {
        let script = format!("set -o pipefail; \"$@\" {redirection}");
        let wrapper = ["bash", "-c", &script, "bash"];
        run(pair.site.wrapped(&wrapper, "list", &["--json"]))
    };
    listed("| true").expect_code(0);
    listed(">/dev/full")
        .expect_code(12)
        .expect_said("standard output");
}

#[test]
fn a_signal_that_is_repeated_changes_nothing() {
    use rustix::process::Signal;
    let Some(mut pair) = Pair::new("faults_repeated") else {
        return;
    };
    pair.change();
    let program = start(pair.command());
    thread::sleep(Duration::from_millis(50));
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::INT] {
        program.signal(signal);
        thread::sleep(Duration::from_millis(1));
    }
    let outcome = program.finish(RUN_BOUND);
    match outcome.code {
        Some(0) => pair.assert_new(),
        _ => {
            outcome.expect_code(130);
            pair.assert_untouched();
        }
    }
}

/// What the released program is must not depend on what tests need.
#[test]
fn the_points_are_in_the_program_only_with_their_feature() {
    let bytes = std::fs::read(PROGRAM).unwrap();
    let name = b"SCHEMA_BACKUP_FAILPOINT";
    let found = bytes.windows(name.len()).any(|window| window == name);
    assert_eq!(found, cfg!(feature = "failpoints"));
}

#[cfg(not(feature = "failpoints"))]
#[test]
fn at_named_steps() {
    use std::io::Write;
    let line =
        "SKIPPED faults at named steps: built without the feature `failpoints`; see tests/run\n";
    std::io::stderr().write_all(line.as_bytes()).ok();
}

#[cfg(feature = "failpoints")]
mod at_named_steps {
    use rustix::process::Signal;
    use schema_backup::FAILPOINTS;

    use super::super::pair::Holds;
    use super::*;
    use crate::site::Outcome;

    /// Points that a run comes to for both directories in turn, and those of a publication, to
    /// which it comes more often.
    const OF_EACH_DIRECTORY: [&str; 8] = [
        "write-manifest",
        "write-sums",
        "write-run-record",
        "write-journal",
        "sync-journal",
        "rename-journal",
        "sync-renamed-journal",
        "remove-journal",
    ];
    const OF_A_PUBLICATION: [&str; 9] = [
        "rename",
        "point-latest",
        "rename-latest",
        "hide-manifest",
        "make-directory",
        "move",
        "delete",
        "prune",
        "sync-published",
    ];

    #[test]
    fn killed_at_any_of_them_there_is_a_whole_backup() {
        let Some(mut pair) = Pair::new("faults_steps_kill") else {
            return;
        };
        let mut table = Table::new("SIGKILL at named steps");
        for point in FAILPOINTS {
            let times = match OF_A_PUBLICATION.contains(point) {
                true if soak() => usize::MAX,
                false if !OF_EACH_DIRECTORY.contains(point) => 1,
                _ => 2,
            };
            for time in 1..=times {
                pair.change();
                let program = match pair.stopped_at(point, time) {
                    Ok(program) => program,
                    Err(outcome) => {
                        assert!(time > 1, "no run comes to {point}: {}", outcome.stderr);
                        outcome.expect_code(0);
                        break;
                    }
                };
                let outcome = kill(program);
                let aftermath = pair.look();
                table.note(&pair.site, point, &outcome, aftermath.words());
                pair.next_run();
            }
        }
    }

    #[test]
    fn interrupted_at_any_of_them_the_run_ends_and_leaves_one_backup_or_the_other() {
        let Some(mut pair) = Pair::new("faults_steps_signal") else {
            return;
        };
        let mut table = Table::new("SIGINT, SIGTERM and SIGHUP at named steps");
        let signals = [
            ("SIGINT", Signal::INT),
            ("SIGTERM", Signal::TERM),
            ("SIGHUP", Signal::HUP),
        ];
        for (at, point) in FAILPOINTS.iter().enumerate() {
            let of_this = if soak() {
                &signals[..]
            } else {
                &signals[at % 3..][..1]
            };
            for (name, signal) in of_this {
                pair.change();
                let program = pair
                    .stopped_at(point, 1)
                    .unwrap_or_else(|outcome| panic!("{point}: {}", outcome.stderr));
                program.signal(*signal);
                program.signal(Signal::CONT);
                let outcome = program.finish(Duration::from_secs(20));
                let holds = pair.compared();
                // Once a publication has begun it is not given up.
                match outcome.code {
                    Some(0) => assert_eq!(holds, Some(Holds::New), "{point}"),
                    _ => assert_eq!(holds, Some(Holds::Old), "{point}: {}", outcome.stderr),
                }
                let words = match outcome.code {
                    Some(0) => ("replaced", "whole"),
                    Some(130) => ("whole", "none"),
                    code => panic!("{point}: exit {code:?}: {}", outcome.stderr),
                };
                crate::site::assert_no_leftovers(&pair.site);
                let fault = format!("{name} at {point}");
                table.note(&pair.site, &fault, &outcome, words);
                settle(&mut pair);
            }
        }
    }

    #[test]
    fn a_panic_at_any_of_them_ends_the_run_with_1_and_leaves_a_whole_backup() {
        let Some(mut pair) = Pair::new("faults_steps_panic") else {
            return;
        };
        let mut table = Table::new("panic at named steps, in every kind of worker");
        for point in FAILPOINTS {
            pair.change();
            let outcome = run(pair.command_with(point, 1, "panic"))
                .expect_code(1)
                .expect_said(&format!("failpoint {point}"));
            judge(&mut pair, &mut table, point, &outcome);
        }
    }

    #[test]
    fn an_error_of_storage_at_any_of_them_names_the_path_and_leaves_a_whole_backup() {
        let Some(mut pair) = Pair::new("faults_steps_error") else {
            return;
        };
        let mut table = Table::new("ENOSPC, EIO and EDQUOT at named steps");
        let errors = [("28", "No space"), ("5", "Input/output"), ("122", "quota")];
        for (at, point) in FAILPOINTS.iter().enumerate() {
            let of_this = if soak() {
                &errors[..]
            } else {
                &errors[at % 3..][..1]
            };
            for (errno, said) in of_this {
                pair.change();
                let outcome = run(pair.command_with(point, 1, errno));
                let fault = format!("errno {errno} at {point}");
                // Nothing can be met there, or a new copy is as good as the old file.
                let harmless = [
                    "read-chunk",
                    "tell-progress",
                    "compress-block",
                    "file-complete",
                    "compare-unchanged",
                    "link-unchanged",
                ];
                if harmless.contains(point) {
                    let outcome = outcome.expect_code(0);
                    pair.assert_new();
                    table.note(&pair.site, &fault, &outcome, ("replaced", "whole"));
                    settle(&mut pair);
                    continue;
                }
                let outcome = outcome
                    .expect_code(12)
                    .expect_said(said)
                    .expect_said(&pair.site.path("").display().to_string());
                judge(&mut pair, &mut table, &fault, &outcome);
            }
        }
    }

    /// What a run that failed by itself has left: nothing, unless a publication was begun.
    fn judge(pair: &mut Pair, table: &mut Table, fault: &str, outcome: &Outcome) {
        let begun = |root: std::path::PathBuf| root.join(".schema_backup/journal.json").exists();
        if begun(pair.site.host()) || begun(pair.site.user_data_dir()) {
            assert!(outcome.stderr.contains("next run"), "{}", outcome.stderr);
        } else {
            crate::site::assert_no_leftovers(&pair.site);
        }
        let aftermath = pair.look();
        table.note(&pair.site, fault, outcome, aftermath.words());
        settle(pair);
    }

    /// Leaves the backup of the database's state, whatever lies there.
    fn settle(pair: &mut Pair) {
        if pair.compared() != Some(Holds::New) {
            pair.next_run();
        }
        pair.forget_older();
    }
}
