//! The destination cannot be written: full at any place, read-only, over a quota, without a
//! right, on two file systems at once. Each time the run ends at once with exit code 12, says
//! which path and how far it came, leaves the previous backup whole and nothing of its own; and
//! with room again the next run succeeds.
//!
//! Most of it takes small file systems in memory, and so `root`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::pair::{Pair, QUIET};
use super::table::Table;
use crate::services;
use crate::site::{Outcome, Site, contents, run};

/// Pages of a `tmpfs`.
const PAGE: u64 = 4096;
/// From the start of a run to its end: the issue grants 5 seconds from the fault on.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A file system that is unmounted in the end.
struct Mount(PathBuf);

impl Mount {
    fn new(arguments: &[&str], at: &Path) -> Mount {
        fs::create_dir_all(at).unwrap();
        command("mount", arguments, at);
        Mount(at.to_owned())
    }

    /// One in memory, private like the directory that it stands for.
    fn in_memory(options: &str, at: &Path) -> Mount {
        let options = format!("mode=0700,{options}");
        Mount::new(&["-t", "tmpfs", "-o", &options, "none"], at)
    }

    /// Fills it up until `bytes` are left.
    fn leave_free(&self, bytes: u64) {
        let filler = self.0.join("filler");
        fs::remove_file(&filler).ok();
        let size = self.free().saturating_sub(bytes);
        let file = fs::File::create(&filler).unwrap();
        if size > 0 {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
        }
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .status()
            .ok();
    }
}

fn command(name: &str, arguments: &[&str], path: &Path) {
    let output = Command::new(name).args(arguments).arg(path).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
}

/// Whether file systems can be mounted here; says that the test is skipped if not.
fn can_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(dir.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if mounted {
        drop(Mount(dir.path().to_owned()));
        return true;
    }
    skipped("nothing can be mounted here; run it as root");
    false
}

/// Says, not by a macro, whose output the test harness hides, that the test is skipped.
fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {test}: {why}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).ok();
}

/// The database with both its directories on file systems in memory.
fn on_small_disks(database: &str) -> Option<(Mount, Mount, Pair)> {
    if !can_mount() {
        return None;
    }
    let mut mounts = None;
    let pair = Pair::prepared(database, |site| {
        let options = "size=16m";
        mounts = Some((
            Mount::in_memory(options, &site.backup_dir()),
            Mount::in_memory(options, &site.user_data_dir()),
        ));
    })?;
    let (host, user) = mounts.unwrap();
    Some((host, user, pair))
}

/// Runs a backup that cannot be written, of which nothing but a message is left.
#[track_caller]
fn fails(pair: &Pair, command: Command, said: &str) -> Outcome {
    let began = Instant::now();
    let outcome = run(command).expect_code(12).expect_said(said);
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
    names_the_place(&pair.site, &outcome);
    pair.assert_untouched();
    outcome
}

#[track_caller]
fn names_the_place(site: &Site, outcome: &Outcome) {
    let place = site.path("").display().to_string();
    let error = outcome.stderr.lines().find(|line| line.contains("error: "));
    assert!(
        error.is_some_and(|line| line.contains(&place)),
        "{}",
        outcome.stderr
    );
}

/// What the files of a backup take on a `tmpfs`.
fn pages_of(backup: &std::collections::BTreeMap<String, Vec<u8>>, record: &Path) -> u64 {
    let record = fs::read(record.join("run.json")).unwrap();
    let sizes = backup
        .values()
        .chain([&record])
        .map(|bytes| bytes.len() as u64);
    sizes.map(|size| size.div_ceil(PAGE) * PAGE).sum()
}

#[test]
fn full_at_any_byte_the_run_fails_at_once_and_the_next_one_succeeds() {
    const PLACES: u64 = 22;
    let Some((host, user, mut pair)) = on_small_disks("faults_full") else {
        return;
    };
    let mut table = Table::new("disk full at evenly spread byte counts of a backup");
    let mut slowest = Duration::ZERO;
    for (name, mount) in [("host directory", &host), ("user data", &user)] {
        pair.change();
        let new = pair.new_backup();
        let (backup, of) = match name {
            "host directory" => (&new.host, pair.site.host()),
            _ => (&new.user, pair.site.latest()),
        };
        // Besides the files: the lock, and the note for git.
        let needed = pages_of(backup, &of) + 2 * PAGE;
        for place in 0..PLACES {
            // The last place lacks no more than one page.
            let free = (needed * place / (PLACES - 1)).min(needed - PAGE);
            mount.leave_free(free);
            let began = Instant::now();
            let outcome = fails(&pair, pair.command(), "bytes");
            slowest = slowest.max(began.elapsed());
            assert!(outcome.stderr.contains("os error 28"), "{}", outcome.stderr);
            let fault = format!("{name}, {free:7} of {needed} bytes are free");
            table.note(&pair.site, &fault, &outcome, ("whole", "none"));
        }
        // That was not for nothing: with a little more it works.
        mount.leave_free(needed + 4 * PAGE);
        pair.next_run();
        mount.empty();
    }
    table.remark(format!(
        "the slowest run took {slowest:.2?}, from its start"
    ));
}

#[test]
fn full_while_consumers_are_stopped_they_are_started_again() {
    let Some((_host, user, mut pair)) = on_small_disks("faults_full_model") else {
        return;
    };
    let mut table = Table::new("disk full with -m");
    pair.change();
    user.leave_free(20 * PAGE);
    let arguments = [&["-m"][..], &QUIET].concat();
    let outcome = fails(
        &pair,
        services::command(&pair.site, &arguments, "-"),
        "bytes",
    );
    table.note(
        &pair.site,
        "user data full, -m",
        &outcome,
        ("whole", "none"),
    );
    for consumer in ["csv2-web", "csv2-poller"] {
        let calls = services::calls(&pair.site, consumer);
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert!(calls[1].starts_with("start"), "{calls:?}");
    }
    user.empty();
    pair.next_run();
}

#[test]
fn without_inodes_the_run_fails_and_says_how_many_are_free() {
    let Some((host, _user, mut pair)) = on_small_disks("faults_inodes") else {
        return;
    };
    let mut table = Table::new("no inodes left");
    pair.change();
    let stat = rustix::fs::statvfs(&host.0).unwrap();
    let used = stat.f_files - stat.f_ffree;
    for more in [0, 1, 3, 6, 12] {
        let options = format!("remount,nr_inodes={}", used + more);
        command("mount", &["-o", &options], &host.0);
        let outcome = fails(&pair, pair.command(), "inodes are free");
        table.note(&pair.site, "no inodes", &outcome, ("whole", "none"));
    }
    command("mount", &["-o", "remount,nr_inodes=1000"], &host.0);
    pair.next_run();
}

#[test]
fn a_target_that_is_read_only_is_refused() {
    let Some((host, user, mut pair)) = on_small_disks("faults_read_only") else {
        return;
    };
    let mut table = Table::new("read-only");
    pair.change();
    for mount in [&host, &user] {
        command("mount", &["-o", "remount,ro"], &mount.0);
        let outcome = fails(&pair, pair.command(), "read-only");
        table.note(&pair.site, "mounted read-only", &outcome, ("whole", "none"));
        command("mount", &["-o", "remount,rw"], &mount.0);
    }
    pair.next_run();
}

#[test]
fn a_target_on_two_file_systems_is_refused_before_anything_changes() {
    let Some((host, user, mut pair)) = on_small_disks("faults_two_systems") else {
        return;
    };
    let mut table = Table::new("a target on another file system than its staging place");
    pair.change();
    let data = pair.site.host().join("data");
    let work = user.0.join(".schema_backup");
    let elsewhere = host.0.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let copy = |from: &Path, to: &Path| {
        for (name, bytes) in contents(from) {
            fs::write(to.join(name), bytes).unwrap();
        }
    };
    let bind = elsewhere.display().to_string();
    for (fault, mount, at) in [
        ("another one on data", &["-t", "tmpfs", "none"][..], &data),
        // The same device, and yet nothing can be moved across.
        ("the same one on data", &["--bind", &bind][..], &data),
        (
            "another one on .schema_backup",
            &["-t", "tmpfs", "none"][..],
            &work,
        ),
    ] {
        let made = !at.exists();
        let saved = tempfile::tempdir().unwrap();
        if !made {
            copy(at, saved.path());
        }
        let mounted = Mount::new(mount, at);
        copy(saved.path(), at);
        let outcome = run(pair.command())
            .expect_code(12)
            .expect_said("file system");
        names_the_place(&pair.site, &outcome);
        table.note(&pair.site, fault, &outcome, ("whole", "none"));
        drop(mounted);
        if made {
            fs::remove_dir(at).unwrap();
        }
        pair.assert_untouched();
    }
    fs::remove_dir_all(elsewhere).unwrap();
    pair.next_run();
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_death() {
    let Some(mut pair) = Pair::new("faults_file_size") else {
        return;
    };
    let mut table = Table::new("RLIMIT_FSIZE");
    pair.change();
    for limit in [100_u64, 5_000, 70_000, 1_000_000] {
        let limit = format!("--fsize={limit}");
        let wrapped = pair.site.wrapped(&["prlimit", &limit], "", &QUIET);
        let outcome = fails(&pair, wrapped, "ulimit -f");
        table.note(&pair.site, &limit, &outcome, ("whole", "none"));
    }
    pair.next_run();
}

#[test]
fn without_the_right_to_write_the_run_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return skipped("run it as root");
    }
    let Some(mut pair) = Pair::new("faults_rights") else {
        return;
    };
    let mut table = Table::new("no right to write");
    pair.change();
    // What lets root write anywhere is taken from the program.
    let caps = "--bounding-set=-dac_override,-dac_read_search";
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let host = pair.site.host();
    for dir in [host.clone(), host.join("data"), pair.site.user_data_dir()] {
        mode(&dir, 0o500);
        let wrapped = pair.site.wrapped(&["setpriv", caps], "", &QUIET);
        let outcome = fails(&pair, wrapped, "permission");
        let fault = format!("{} is 0500", dir.file_name().unwrap().display());
        table.note(&pair.site, &fault, &outcome, ("whole", "none"));
        mode(&dir, 0o700);
    }
    pair.next_run();
}

#[cfg(feature = "failpoints")]
mod midway {
    use rustix::process::Signal;

    use super::*;

    /// Stops a run at a point, does something to its destination, and lets it go on.
    fn meanwhile(pair: &Pair, point: &str, time: usize, fault: impl FnOnce()) -> Outcome {
        let program = pair
            .stopped_at(point, time)
            .unwrap_or_else(|outcome| panic!("{point}: {}", outcome.stderr));
        fault();
        program.signal(Signal::CONT);
        program.finish(AT_ONCE)
    }

    #[test]
    fn full_at_the_manifest_and_at_each_step_after_it() {
        let Some((host, user, mut pair)) = on_small_disks("faults_full_midway") else {
            return;
        };
        let mut table = Table::new("disk full from a named step on");
        for (name, mount, time) in [("user data", &user, 1), ("host directory", &host, 2)] {
            for point in [
                "write-manifest",
                "write-sums",
                "write-run-record",
                "write-journal",
            ] {
                pair.change();
                let outcome = meanwhile(&pair, point, time, || mount.leave_free(0)).expect_code(12);
                names_the_place(&pair.site, &outcome);
                assert!(outcome.stderr.contains("0 bytes"), "{}", outcome.stderr);
                mount.empty();
                crate::site::assert_no_leftovers(&pair.site);
                let fault = format!("{name} full at {point}");
                table.note(&pair.site, &fault, &outcome, pair.look().words());
                pair.next_run();
            }
        }
        // What comes then takes no room here: the publication is completed on a full disk.
        for (point, mount) in [("rename", &user), ("hide-manifest", &host), ("move", &host)] {
            pair.change();
            let outcome = meanwhile(&pair, point, 1, || mount.leave_free(0)).expect_code(0);
            pair.assert_new();
            mount.empty();
            pair.forget_older();
            let fault = format!("full at {point}");
            table.note(&pair.site, &fault, &outcome, ("replaced", "whole"));
        }
    }

    #[test]
    fn a_right_that_is_lost_midway_leaves_a_whole_backup() {
        let Some((_host, user, mut pair)) = on_small_disks("faults_rights_midway") else {
            return;
        };
        let supported = Command::new("chattr").arg("+i").arg(&user.0).status();
        if !supported.is_ok_and(|status| status.success()) {
            return skipped("tmpfs has no immutable directories here (Linux 6.6 has them)");
        }
        command("chattr", &["-i"], &user.0);
        let mut table = Table::new("chattr +i from a named step on");
        for point in [
            "create-file",
            "write-manifest",
            "rename-journal",
            "hide-manifest",
            "move",
        ] {
            pair.change();
            // Even root may write nothing into it.
            let root = pair.site.host();
            let dir = match point {
                "create-file" | "write-manifest" => root.join(".schema_backup/staging"),
                "rename-journal" => root.join(".schema_backup"),
                _ => root,
            };
            let time = if point == "write-manifest" || point == "rename-journal" {
                2
            } else {
                1
            };
            let outcome = meanwhile(&pair, point, time, || command("chattr", &["+i"], &dir));
            command("chattr", &["-i"], &dir);
            let outcome = outcome.expect_code(12).expect_said("not permitted");
            names_the_place(&pair.site, &outcome);
            table.note(&pair.site, point, &outcome, pair.look().words());
            pair.next_run();
        }
    }
}
