//! Publications that end before their last step, and what the next run makes of them.

use super::*;

/// Publishes over a backup of `old`, is killed after every possible number of steps, and looks
/// at what is there before and after the next run begins.
fn killed_at_every_step(old: &[(&str, &str)], new: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let expected = dir.path().join("expected");
    save(&host(&expected), old);
    save(&host(&expected), new);
    let expected = tree(&expected);

    for stop_after in 0.. {
        let root = dir.path().join(format!("killed{stop_after}"));
        let target = host(&root);
        save(&target, old);
        let before = tree(&root);
        let sealed = seal(&target, new);
        let place = sealed.work.place.clone();
        let journal = Journal::new(sealed.publication.clone().unwrap());
        journal.commit(&place).unwrap();
        let steps = journal.steps();
        for step in steps.iter().take(stop_after) {
            step.take(&place).unwrap();
        }
        // Dropping releases the lock as a kill does, and keeps what a journal speaks of.
        drop(sealed);

        let mut visible = tree(&root);
        visible.retain(|name, _| !name.starts_with(".schema_backup"));
        if let Ok(Found::Manifest(manifest)) = inventory::read_manifest(&root)
            && manifest
                .files()
                .any(|entry| !visible.contains_key(&entry.file))
        {
            panic!("after {stop_after} steps a manifest names files that are not there");
        }
        if visible.contains_key(MANIFEST_FILE) {
            assert!(sums_hold(&root), "after {stop_after} steps");
        }
        if stop_after == 0 {
            assert_eq!(visible, before);
        }

        // A second kill, in the middle of rolling forward, changes nothing.
        for step in steps.iter().take(stop_after / 2) {
            step.take(&place).unwrap();
        }
        let staging = begin(&target);
        assert!(staging.warnings()[0].contains("cut short"));
        assert_eq!(staging.previous.as_ref().unwrap().1.tables.len(), new.len());
        drop(staging);
        assert_eq!(tree(&root), expected, "after {stop_after} steps");
        if stop_after > steps.len() {
            break;
        }
    }
}

#[test]
fn a_publication_killed_at_any_step_is_completed() {
    killed_at_every_step(&[("a", "1"), ("b", "2")], &[("a", "one"), ("c", "3")]);
    killed_at_every_step(&[("a", "1")], &[]);
    killed_at_every_step(&[], &[("a", "1")]);
    killed_at_every_step(&[("a", "1")], &[("a", "1")]);
}

#[test]
fn a_timestamped_publication_killed_at_any_step_is_completed() {
    for stop_after in 0..=4 {
        let dir = tempfile::tempdir().unwrap();
        let target = user_data(&dir.path().join("u"));
        let first = save(&target, &[("a", "1")]);
        let sealed = seal(&target, &[("a", "2")]);
        let place = sealed.work.place.clone();
        let name = free_name(&place.root, sealed.started).unwrap();
        let journal = Journal::new(Publication::Timestamped { name: name.clone() });
        journal.commit(&place).unwrap();
        for step in journal.steps().iter().take(stop_after) {
            step.take(&place).unwrap();
        }
        drop(sealed);
        let latest = fs::read_link(target.root.join(LATEST)).unwrap();
        assert!(sums_hold(&target.root.join(latest)));
        drop(begin(&target));
        assert_eq!(
            fs::read_link(target.root.join(LATEST)).unwrap(),
            Path::new(&name)
        );
        assert!(sums_hold(&first.path) && sums_hold(&target.root.join(&name)));
        assert!(!place.work().exists());
    }
}

#[test]
fn a_publication_that_fails_halfway_waits_for_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("h");
    let target = host(&root);
    save(&target, &[("a", "1")]);
    let sealed = seal(&target, &[("a", "1"), ("b", "2")]);
    // Appears between the check and the publication.
    fs::create_dir_all(root.join("data/b.00001.sql/x")).unwrap();
    let error = sealed.publish().unwrap_err();
    assert!(
        error.to_string().contains("begun and not finished"),
        "{error}"
    );
    assert!(Staging::begin(target.clone()).is_err());
    assert!(!root.join(MANIFEST_FILE).exists());
    fs::remove_dir_all(root.join("data/b.00001.sql")).unwrap();
    drop(begin(&target));
    assert!(sums_hold(&root) && root.join("data/b.00001.sql").is_file());
    assert!(!root.join(".schema_backup").exists());
}

#[test]
fn a_publication_that_lost_its_files_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("h");
    let target = host(&root);
    save(&target, &[("a", "1")]);
    let sealed = seal(&target, &[("a", "2")]);
    let place = sealed.work.place.clone();
    let journal = Journal::new(sealed.publication.clone().unwrap());
    journal.commit(&place).unwrap();
    for step in journal.steps().iter().take(4) {
        step.take(&place).unwrap();
    }
    drop(sealed);
    fs::remove_file(root.join("data/a.00001.sql")).unwrap();
    let staging = begin(&target);
    assert!(
        staging.warnings()[0].contains("damaged"),
        "{:?}",
        staging.warnings()
    );
    drop(staging);
    assert!(!root.join(MANIFEST_FILE).exists());
    save(&target, &[("a", "2")]);
    assert!(sums_hold(&root));
}
