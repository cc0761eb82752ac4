//! Damage to any one file of a backup, and a backup without any.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::{Copy, MARKS, flip, original, original_on, servers, verdicts};
use crate::site::{PROGRAM, RUN_BOUND, run, start, wait_until};

#[test]
fn every_file_of_a_sound_backup_has_a_verdict() {
    for server in servers() {
        let copy = Copy::of(original_on(server));
        let outcome = copy.verify(&["--json"]).expect_code(0);
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let verdicts: Vec<_> = verdicts(&report).collect();
        assert!(
            verdicts.iter().all(|(_, verdict)| verdict == "ok"),
            "{:?}: {verdicts:?}",
            server.kind()
        );
        let named: BTreeSet<_> = verdicts.into_iter().map(|(file, _)| file).collect();
        assert_eq!(named, copy.files().into_iter().collect());

        let said = copy.verify(&[]).expect_code(0).stdout;
        assert!(
            said.starts_with("Everything was checked") && !said.contains("data/"),
            "{said}"
        );
        assert!(
            copy.verify(&["-v"])
                .stdout
                .contains("/host/data/nothing.00001.sql: ok\n")
        );
        assert_eq!(copy.verify(&["-q"]).stdout, "");
    }
}

#[test]
fn a_flipped_byte_names_the_file() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    copy.each_file("with its first byte flipped", |path, good| {
        flip(path, good, 0)
    });
    copy.each_file("with a byte flipped in the middle", |path, good| {
        flip(path, good, good.len() / 2);
    });
    copy.each_file("with its last byte flipped", |path, good| {
        flip(path, good, good.len() - 1);
    });
}

#[test]
fn a_file_that_is_gone_cut_or_another_thing_is_named() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let elsewhere = copy.dir.path().with_extension("elsewhere");
    copy.each_file("removed", |path, _| fs::remove_file(path).unwrap());
    copy.each_file("emptied", |path, _| fs::write(path, "").unwrap());
    copy.each_file("cut by a byte", |path, good| {
        fs::write(path, &good[..good.len() - 1]).unwrap();
    });
    copy.each_file("cut to a half", |path, good| {
        fs::write(path, &good[..good.len() / 2]).unwrap();
    });
    copy.each_file("longer by a byte", |path, good| {
        fs::write(path, [good, b"\n"].concat()).unwrap();
    });
    copy.each_file("a directory", |path, _| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    copy.each_file("a link to the same content", |path, good| {
        fs::write(&elsewhere, good).unwrap();
        fs::remove_file(path).unwrap();
        symlink(&elsewhere, path).unwrap();
    });
    fs::remove_file(elsewhere).unwrap();
}

#[test]
fn a_file_that_was_added_is_named() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    for file in [
        "host/data/settings.99999.sql",
        "host/structure/tables/another.sql",
        "host/structure/note",
        "user/data/users.00001.sql",
        "user/data/.hidden",
        "user/note",
        "user/deep/down/note",
    ] {
        let path = copy.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        copy.expect_findings(&[file], file);
        fs::remove_file(path).unwrap();
    }
    // The host directory is shared with git and its readers.
    fs::write(copy.path("host/README"), "x").unwrap();
    copy.expect_findings(&[], "a note beside the backup");
}

#[test]
fn two_files_that_were_swapped_are_both_named() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let files = copy.files();
    let swap = |a: &str, b: &str| {
        fs::rename(copy.path(a), copy.path("aside")).unwrap();
        fs::rename(copy.path(b), copy.path(a)).unwrap();
        fs::rename(copy.path("aside"), copy.path(b)).unwrap();
    };
    let next = files.iter().zip(files.iter().cycle().skip(1));
    let marks = MARKS.map(|mark| (format!("host/{mark}"), format!("user/{mark}")));
    let across = [
        (
            "host/manifest.json".to_owned(),
            "host/data/settings.00002.sql".to_owned(),
        ),
        (
            "user/manifest.json".to_owned(),
            "user/SHA256SUMS".to_owned(),
        ),
        ("user/manifest.json".to_owned(), "user/run.json".to_owned()),
    ];
    let pairs = next.map(|(a, b)| (a.clone(), b.clone()));
    for (a, b) in pairs.chain(marks).chain(across) {
        // A table's structure lies in both directories, with the same bytes.
        if fs::read(copy.path(&a)).unwrap() == fs::read(copy.path(&b)).unwrap() {
            continue;
        }
        swap(&a, &b);
        copy.expect_findings(&[&a, &b], &format!("{a} and {b} swapped"));
        swap(&a, &b);
    }
}

#[test]
fn samples_together_check_all_data_and_each_all_the_rest() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let parts = ["1/3", "2/3", "3/3"];
    let is_data = |file: &str| file.contains("/data/");
    let mut seen = Vec::new();
    for part in parts {
        let outcome = copy.verify(&["--json", "--sample", part]).expect_code(0);
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let checked: BTreeSet<_> = verdicts(&report).map(|(file, _)| file).collect();
        assert!(
            copy.files()
                .iter()
                .all(|file| is_data(file) || checked.contains(file))
        );
        seen.extend(checked.into_iter().filter(|file| is_data(file)));
    }
    seen.sort();
    let all: Vec<_> = copy
        .files()
        .into_iter()
        .filter(|file| is_data(file))
        .collect();
    assert_eq!(seen, all);

    fs::write(copy.path("user/data/floats.00001.sql.zst"), "").unwrap();
    let found = parts.map(|part| copy.findings(&["--sample", part]).len());
    assert_eq!(found.iter().sum::<usize>(), 1, "{found:?}");
    fs::write(copy.path("user/structure/tables/floats.sql"), "").unwrap();
    let found = parts.map(|part| copy.findings(&["--sample", part]).len());
    assert_eq!(found.iter().sum::<usize>(), 4, "{found:?}");
    let said = copy.verify(&["--sample", "1/3"]).stdout;
    assert!(
        said.starts_with("A sample was checked") && said.contains("1/3"),
        "{said}"
    );
}

#[test]
fn what_is_no_backup_is_a_usage_error() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let verify = |directory: &Path| {
        let mut command = Command::new(PROGRAM);
        command.arg("verify").arg(directory);
        run(command)
    };
    verify(&site.user_data_dir())
        .expect_code(2)
        .expect_said("latest");
    verify(&copy.path("none")).expect_code(2);
    verify(&copy.path("host/data")).expect_code(2);
    for mark in MARKS {
        fs::remove_file(copy.path("host").join(mark)).unwrap();
    }
    verify(&copy.path("host"))
        .expect_code(2)
        .expect_said("no complete backup");
}

#[test]
fn an_interrupt_ends_the_reading_of_a_large_file() {
    let Some(site) = original() else { return };
    let copy = Copy::of(site);
    let large = copy.path("host/data/nothing.00001.sql");
    let file = fs::File::options().write(true).open(&large).unwrap();
    file.set_len(8 << 30).unwrap();
    // Only with a manifest would its size be enough to reject it.
    fs::write(copy.path("host/manifest.json"), "{}").unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .arg("verify")
        .arg(copy.path("host"))
        .args(["--progress", "none"]);
    let mut program = start(command);
    let open = format!("/proc/{}/fd", program.pid().as_raw_nonzero());
    let large = fs::canonicalize(large).unwrap();
    wait_until("the large file is being read", || {
        assert!(
            !program.ended(),
            "the program ended before it was interrupted"
        );
        let open = fs::read_dir(&open).into_iter().flatten().flatten();
        open.into_iter()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == large))
    });
    program.signal(Signal::INT);
    program.finish(RUN_BOUND).expect_code(130);
}
