//! Configuration files, good and bad.

use super::*;
use proptest::prelude::*;

fn load(text: impl AsRef<[u8]>) -> Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("schema_backup.conf");
    std::fs::write(&path, text).unwrap();
    load_config(&path)
}

/// The error of `text` contains each of `parts`, is of kind Config and one line.
#[track_caller]
fn refused(text: impl AsRef<[u8]>, parts: &[&str]) {
    let error = load(text).expect_err("accepted");
    assert_eq!(error.kind(), ErrorKind::Config);
    let line = error.to_string();
    assert!(
        line.contains("schema_backup.conf") && !line.contains('\n'),
        "{line}"
    );
    for part in parts {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
}

#[test]
fn every_key_is_read() {
    let config = load(
        "csv2_backup_dir: /a\nuser_data_backup_dir: /b\nproviders: [p]\nconsumers: [c, d]\n\
         global: [g]\nlocal:\n - l\n - 007\n - l\nephemeral: [e]\nignore: [true]\nthreads: 4\n\
         compression: {global: zstd:3, local: none}\nchunk_size: 1M\nconsistency: binlog\n\
         lock_wait_timeout: 5\nlink_unchanged: false\nskip_objects: [events, events, views]\n",
    )
    .unwrap();
    assert_eq!(config.csv2_backup_dir, Path::new("/a"));
    assert_eq!(
        config.user_data_backup_dir.as_deref(),
        Some(Path::new("/b"))
    );
    assert_eq!(
        (config.providers, config.consumers.len()),
        (vec!["p".to_string()], 2)
    );
    assert_eq!(config.lists.local, ["l", "007"]);
    assert_eq!(config.lists.ignore, ["true"]);
    assert_eq!(config.threads, NonZeroUsize::new(4));
    assert_eq!(config.compression.global, Compression::Zstd(3));
    assert_eq!(config.compression.local, Compression::None);
    assert_eq!(config.compression.ephemeral, Compression::DEFAULT_ZSTD);
    assert_eq!(config.chunk_size, 1 << 20);
    assert_eq!(config.consistency, Consistency::Binlog);
    assert_eq!(config.lock_wait_timeout, Duration::from_secs(5));
    assert!(!config.link_unchanged);
    assert_eq!(config.skip_objects, [ObjectKind::Events, ObjectKind::Views]);
    assert!(config.notices.is_empty());
}

#[test]
fn nothing_said_is_all_defaults() {
    let nulls: String = KEYS.iter().map(|key| format!("{key}:\n")).collect();
    for text in ["", "\n# nothing\n", "---\n", "{}", "~", "\u{feff}", &nulls] {
        let config = load(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(config.lists, TableLists::default());
        assert_eq!(config.chunk_size, Config::DEFAULT_CHUNK_SIZE);
        assert_eq!(config.lock_wait_timeout, Config::DEFAULT_LOCK_WAIT_TIMEOUT);
        assert_eq!(config.compression, CompressionByCategory::default());
        assert_eq!((config.threads, config.user_data_backup_dir), (None, None));
    }
}

#[test]
fn errors_name_key_and_line() {
    refused(
        "a: 1\nglobal: users\n",
        &["global", "expected a list", "line 2"],
    );
    refused(
        "local: [a, [b]]",
        &["local[1]", "expected a name", "line 1"],
    );
    refused("local:\n- a\n- {b: c}", &["local[1]", "line 3"]);
    refused("local: [a, null]", &["local", "entry 2", "line 1"]);
    refused("local: ['']", &["local[0]", "empty"]);
    refused(
        "\ncsv2_backup_dir: backups",
        &["csv2_backup_dir", "full path", "line 2"],
    );
    refused(
        "user_data_backup_dir: default",
        &["user_data_backup_dir", "full path"],
    );
    refused("csv2_backup_dir: [/a]", &["csv2_backup_dir", "a full path"]);
    for value in ["0", "257", "-1", "4.5", "many"] {
        refused(format!("threads: {value}"), &["threads", value, "256"]);
    }
    refused("chunk_size: 4095", &["chunk_size", "4096"]);
    refused("chunk_size: big", &["chunk_size", "64M"]);
    refused("lock_wait_timeout: 0", &["lock_wait_timeout", "seconds"]);
    refused("consistency: maybe", &["consistency", "global-lock"]);
    refused(
        "link_unchanged: perhaps",
        &["link_unchanged", "true or false"],
    );
    refused("skip_objects: events", &["skip_objects", "list"]);
    refused("skip_objects: [tables]", &["skip_objects[0]", "triggers"]);
    refused("compression: gzip", &["compression", "gzip", "line 1"]);
    refused(
        "compression: {local: zstd:99}",
        &["compression.local", "99"],
    );
    refused("compression: {ignore: none}", &["compression", "ephemeral"]);
    refused(
        "local: [a]\nglobal: [b]\nlocal: [c]",
        &["local", "only once", "line 3"],
    );
    refused("threads: 1\nthreads: 2", &["threads", "twice", "line 2"]);
    refused("- a\n- b", &["key: value"]);
    refused("global: [a\nlocal: [b]", &["line"]);
    refused("a: 1\n---\nb: 2", &["more than one document"]);
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    refused(b"# a\n\xff\xfe", &["UTF-8", "line 2"]);
    refused(
        vec![b'#'; (crate::config::read::MAX_BYTES + 1) as usize],
        &["1 MiB"],
    );
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("missing")] {
        let error = load_config(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("--config"))
        );
    }
}

#[test]
fn unknown_keys_are_noticed() {
    let config = load("locals: [a]\nthread: 4\nfavourite colour: {a: [b]}\n").unwrap();
    assert_eq!(
        config.notices,
        [
            "unknown key `locals` ignored; did you mean `local`?",
            "unknown key `thread` ignored; did you mean `threads`?",
            "unknown key `favourite colour` ignored",
        ]
    );
}

#[test]
fn aliases_repeat_but_do_not_multiply() {
    assert_eq!(
        load("global: &a [x, y]\nignore: *a").unwrap().lists.ignore,
        ["x", "y"]
    );
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (from, to) in ('a'..='y').zip('b'..='z') {
        let refs = vec![format!("*{from}"); 9].join(", ");
        bomb.push_str(&format!("{to}: &{to} [{refs}]\n"));
    }
    assert_eq!(load(&bomb).unwrap().notices.len(), 26);
    refused(bomb + "local: *z", &["expected a name"]);
}

#[test]
fn deep_nesting_is_harmless() {
    for opening in ["[", "{", "{a: ["] {
        refused(
            format!("\nx: {}", opening.repeat(100_000)),
            &["nested", "line 2"],
        );
    }
    let blocks = "- ".repeat(100_000);
    assert!(load(format!("x:\n  {blocks}")).is_ok());
    refused(
        format!("local:\n  {blocks}"),
        &["local[0]", "expected a name"],
    );
}

#[test]
fn the_cloudscheduler_directory_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let outer = dir.path().join("cloudscheduler");
    let inner = outer.join("x/cloudscheduler");
    std::fs::create_dir_all(inner.join("etc")).unwrap();
    std::fs::create_dir_all(outer.join("etc")).unwrap();
    let exe = inner.join("bin/schema_backup");
    let missing = find_from(None, Some(&exe), Some(&outer)).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("x/cloudscheduler/etc/schema_backup.conf")
    );
    assert!(
        missing
            .hint_text()
            .is_some_and(|hint| hint.contains("--config"))
    );
    let (near, far) = (inner.join(FILE), outer.join(FILE));
    std::fs::write(&near, "csv2_backup_dir: default\n").unwrap();
    std::fs::write(&far, "").unwrap();
    assert_eq!(find_from(None, Some(&exe), None).unwrap(), near);
    let elsewhere = Path::new("/usr/bin/cloudscheduler");
    assert_eq!(find_from(None, Some(elsewhere), Some(&outer)).unwrap(), far);
    assert_eq!(
        find_from(Some(elsewhere), Some(&exe), None).unwrap(),
        elsewhere
    );
    let none = find_from(None, Some(elsewhere), Some(Path::new("/tmp"))).unwrap_err();
    let hint = none.hint_text().unwrap();
    assert!(hint.contains("/usr/bin") && hint.contains("/tmp") && hint.contains("--config"));

    let real = std::fs::canonicalize(&inner).unwrap();
    let backup_dir = real.join("schema/schema_backup");
    assert_eq!(load_config(&near).unwrap().csv2_backup_dir, backup_dir);
    let link = dir.path().join("link.conf");
    std::os::unix::fs::symlink(&near, &link).unwrap();
    assert_eq!(load_config(&link).unwrap().csv2_backup_dir, backup_dir);
}

#[test]
fn a_backup_directory_is_required_in_the_end() {
    let mut config = load("").unwrap();
    config.csv2_backup_dir = PathBuf::new();
    let error = config.require_backup_dir().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error
            .hint_text()
            .is_some_and(|hint| hint.contains("--backup-dir"))
    );
    config.csv2_backup_dir = PathBuf::from("/a");
    config.require_backup_dir().unwrap();
}

#[test]
fn the_shipped_file_states_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/schema_backup.conf");
    let config = load_config(&path).unwrap();
    assert_eq!(config.notices, Vec::<String>::new());
    let text = std::fs::read_to_string(&path).unwrap();
    for key in KEYS {
        assert!(
            text.lines()
                .any(|line| line.starts_with(&format!("{key}:"))),
            "{key}"
        );
    }
    assert_eq!(config.chunk_size, Config::DEFAULT_CHUNK_SIZE);
    assert_eq!(config.lock_wait_timeout, Config::DEFAULT_LOCK_WAIT_TIMEOUT);
    assert_eq!(config.compression, CompressionByCategory::default());
    assert_eq!(config.consistency, Consistency::default());
    assert_eq!((config.threads, config.skip_objects), (None, Vec::new()));
    assert!(config.link_unchanged);
    assert_eq!(config.providers, ["mariadb"]);
    assert_eq!(config.consumers.len(), 7);
    let lists = &config.lists;
    assert_eq!(lists.global.len(), 6);
    assert!(
        lists
            .local
            .iter()
            .any(|table| table == "csv2_user_preferences")
    );
    assert!(
        lists
            .ephemeral
            .iter()
            .any(|table| table == "csv2_user_preferences")
    );
    assert_eq!(lists.ignore.len(), 5);
}

proptest! {
    #[test]
    fn no_text_panics(text in r##"([a-z]{1,3}|local|compression|[-:\[\]{}&*!|>'"#~, \n]){0,40}"##) {
        let _ = parse(&text);
    }

    #[test]
    fn no_cut_file_panics(cut in 0usize..400) {
        let text = "local: [a, &b c]\nx: {y: [1, *b], z: |\n  t}\ncompression: {local: none}\nthreads: 3\n";
        let _ = parse(text.get(..cut.min(text.len())).unwrap_or(text));
    }
}
