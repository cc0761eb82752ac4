//! Encrypted user data: what is on disk tells nothing of rows, comes back through our restore and
//! through the stock tools, and whatever was done to it is found out, also where every checksum
//! was made right again.

mod tampered;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mysql::prelude::Queryable;
use rustix::process::Signal;
use serde_json::Value;

use crate::compare::{assert_same, fingerprint};
use crate::server::{Server, with_binlog};
use crate::site::{
    Lists, Outcome, RUN_BOUND, Site, assert_no_leftovers, assert_sums_hold, contents, edited, json,
    run, sha256, start,
};

const SECRET: &str = "a-value-that-nobody-may-see";

/// A key pair of the stock `age-keygen`: the identity file, and the public key.
fn key(site: &Site, name: &str) -> (PathBuf, String) {
    let path = site.path(name);
    let made = Command::new("age-keygen").arg("-o").arg(&path).output();
    let made = made.expect("age-keygen is missing; tests/run installs it");
    assert!(made.status.success(), "{made:?}");
    let text = fs::read_to_string(&path).unwrap();
    let public = text
        .lines()
        .find_map(|line| line.split("public key: ").nth(1));
    (path, public.unwrap().to_owned())
}

/// A table in several chunks with a key that tells, a small one, one that is stored in an odd
/// place of a sequence, and global ones; with its backup for one recipient.
struct Fixture {
    site: Site,
    identity: PathBuf,
    public: String,
}

fn lists() -> Lists<'static> {
    Lists {
        global: vec!["settings"],
        local: vec!["people", "one", "myisam", "numbers"],
        ephemeral: vec!["jobs"],
        ..Lists::default()
    }
}

fn fill(server: &Server, database: &str) {
    server.create_database(database);
    let sql = format!(
        "CREATE TABLE people (name VARCHAR(60) PRIMARY KEY, v VARCHAR(200)) AUTO_INCREMENT=1;
         INSERT INTO people SELECT concat('{SECRET}', lpad(seq, 7, '0')), repeat(md5(seq), 5) FROM seq_1_to_20000;
         CREATE TABLE one (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(60)) AUTO_INCREMENT=424243;
         INSERT INTO one VALUES (1, '{SECRET}');
         CREATE TABLE myisam (id INT PRIMARY KEY) ENGINE=MyISAM;
         INSERT INTO myisam VALUES (1), (2);
         CREATE SEQUENCE numbers;
         DO SETVAL(numbers, 727276);
         CREATE TABLE settings (id INT PRIMARY KEY);
         INSERT INTO settings VALUES (1);
         CREATE TABLE jobs (id INT PRIMARY KEY, v VARCHAR(60));
         ANALYZE TABLE people;"
    );
    server.feed(database, "the tables", sql.as_bytes());
}

fn encrypted(site: &Site, public: &str) {
    let keys = format!("{{recipients: [{public}]}}");
    site.configure(
        &lists(),
        &format!("encryption: {{local: {keys}, ephemeral: {keys}}}\n"),
    );
}

fn backed_up(server: &Server, database: &str) -> Fixture {
    fill(server, database);
    let site = Site::new(server, database, &lists());
    let (identity, public) = key(&site, "identity");
    encrypted(&site, &public);
    backup(&site);
    Fixture {
        site,
        identity,
        public,
    }
}

fn backup(site: &Site) {
    site.backup_ok(&["--chunk-size", "256K", "-j", "2", "--progress", "none"]);
}

impl Fixture {
    fn restore(&self, database: &str, arguments: &[&str]) -> Outcome {
        let (host, user) = (self.site.host(), self.site.latest());
        let dirs = [host.as_path(), user.as_path()];
        run(self.site.restore_command(&dirs, database, arguments))
    }

    fn identity(&self) -> [&str; 2] {
        ["--identity", self.identity.to_str().unwrap()]
    }

    fn verify(&self, arguments: &[&str]) -> Outcome {
        verify(&self.site.latest(), arguments)
    }
}

fn verify(dir: &Path, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(crate::site::PROGRAM);
    command.arg("verify").arg(dir).args(arguments);
    run(command)
}

/// As bounds of chunks have it.
fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

fn drop_database(server: &Server, database: &str) {
    server.execute(&[&format!("DROP DATABASE IF EXISTS {database}")]);
}

fn data_files(backup: &Path, table: &str) -> Vec<String> {
    let manifest = json(backup.join("manifest.json"));
    let chunks = manifest["tables"][table]["data"]["chunks"].as_array();
    let chunks = chunks.unwrap().iter();
    chunks
        .map(|c| c["file"].as_str().unwrap().to_owned())
        .collect()
}

/// Encrypts with the stock program.
fn age(public: &str, text: &[u8]) -> Vec<u8> {
    pipe(Command::new("age").args(["-r", public]), text)
}

fn under_passphrase(text: &[u8]) -> Vec<u8> {
    let mut recipient = age::scrypt::Recipient::new("sesame".to_owned().into());
    recipient.set_work_factor(2);
    let recipients = std::iter::once(&recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    std::io::Write::write_all(&mut writer, text).unwrap();
    writer.finish().unwrap()
}

/// Decrypts with the stock program.
fn unage(identity: &Path, file: &Path) -> Vec<u8> {
    let mut command = Command::new("age");
    pipe(command.arg("-d").arg("-i").arg(identity).arg(file), b"")
}

fn pipe(command: &mut Command, text: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut stdin, text).ok());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

#[test]
fn a_backup_comes_back_by_our_restore_and_by_the_stock_tools() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_round");
    let expected = fingerprint(server, "enc_round");
    let latest = fixture.site.latest();
    assert!(data_files(&latest, "people").len() > 3, "several chunks");
    assert_sums_hold(&latest);

    drop_database(server, "enc_round_ours");
    let restored = fixture.restore("enc_round_ours", &fixture.identity());
    restored.expect_code(0);
    assert_same(&expected, &fingerprint(server, "enc_round_ours"));

    server.create_database("enc_round_stock");
    let load = |file: &Path| {
        let mut sql = if file.extension().is_some_and(|e| e == "age") {
            unage(&fixture.identity, file)
        } else {
            fs::read(file).unwrap()
        };
        if file.to_string_lossy().contains(".zst") {
            sql = pipe(Command::new("zstd").args(["-d", "-c"]), &sql);
        }
        server.feed("enc_round_stock", &file.to_string_lossy(), &sql);
    };
    let host = fixture.site.host();
    for dir in [
        host.join("structure/sequences"),
        host.join("structure/tables"),
        host.join("data"),
        latest.join("data"),
    ] {
        let files = crate::site::walk(&dir);
        assert!(!files.is_empty(), "{}", dir.display());
        files.iter().for_each(|file| load(file));
    }
    assert_same(&expected, &fingerprint(server, "enc_round_stock"));
}

#[test]
fn nothing_on_disk_tells_of_rows_but_how_many_there_are() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_disk");
    let ephemeral = fixture.site.path("ephemeral");
    server.execute(&[&format!("INSERT INTO enc_disk.jobs VALUES (1, '{SECRET}')")]);
    fixture
        .site
        .backup_ok(&["-e", ephemeral.to_str().unwrap(), "--chunk-size", "256K"])
        .expect_out("(encrypted for 1 recipient)");
    for root in [fixture.site.user_data_dir(), ephemeral] {
        for (file, bytes) in contents(&root) {
            for telling in [SECRET, &hex(SECRET), "xxh3", "424243", "727276"] {
                let found = bytes
                    .windows(telling.len())
                    .any(|w| w == telling.as_bytes());
                assert!(!found, "{telling} in {file}");
            }
            let rows = file.contains("/data/") || file.starts_with("data/");
            assert_eq!(
                rows || file.ends_with("private.json.age"),
                file.ends_with(".age"),
                "{file}"
            );
        }
    }
    let manifest = json(fixture.site.latest().join("manifest.json"));
    assert_eq!(manifest["tables"]["people"]["data"]["rows"], 20_000);
    // What is left out is beside it, for whoever has the identity.
    let private = unage(
        &fixture.identity,
        &fixture.site.latest().join("private.json.age"),
    );
    let private: Value = serde_json::from_slice(&private).unwrap();
    assert_eq!(private["tables"]["one"]["auto_increment"], 424_243);
    let bounds = private["tables"]["people"]["from"].to_string();
    assert!(bounds.contains(&hex(SECRET)), "{bounds}");
}

#[test]
fn the_next_backup_needs_no_identity_and_says_nothing_of_what_changed() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_again");
    let first = fixture.site.latest();
    backup(&fixture.site);
    let second = fixture.site.latest();
    assert_ne!(first, second);
    let (one, two) = (contents(&first), contents(&second));
    let names = |tree: &std::collections::BTreeMap<String, Vec<u8>>| -> BTreeSet<String> {
        tree.keys().cloned().collect()
    };
    assert_eq!(names(&one), names(&two));
    for (file, bytes) in one.iter().filter(|(file, _)| file.ends_with(".age")) {
        assert_ne!(two[file], *bytes, "{file} is the same in both");
    }
    // Back to plain files: the chunks are found anew, without a word of trouble.
    fixture.site.configure(&lists(), "");
    backup(&fixture.site);
    let plain = fixture.site.latest();
    assert!(!plain.join("private.json.age").exists());
    verify(&plain, &[]).expect_code(0);
    // And on again: that rows lie there in the clear is said as long as the newest ones do.
    encrypted(&fixture.site, &fixture.public);
    for warned in [true, false] {
        backup(&fixture.site);
        let run = json(fixture.site.latest().join("run.json"));
        let warnings = run["warnings"].to_string();
        assert_eq!(warnings.contains("not encrypted"), warned, "{warnings}");
    }
}

#[test]
fn verify_looks_into_rows_with_the_identity_only_and_says_so() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_verify");
    fixture
        .verify(&[])
        .expect_code(0)
        .expect_out("the rows were not decrypted");
    fixture
        .verify(&fixture.identity())
        .expect_code(0)
        .expect_out("the rows were decrypted");
    let report = fixture.verify(&["--json"]).expect_code(0).stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["directories"][0]["encrypted"], "not_decrypted");

    let against = |more: &[&str]| {
        let latest = fixture.site.latest();
        let mut arguments = vec![latest.to_str().unwrap(), "--against"];
        arguments.extend(more);
        run(fixture.site.command("verify", &arguments))
    };
    against(&[])
        .expect_code(2)
        .expect_said("its rows are encrypted")
        .expect_said("--identity");
    against(&fixture.identity()).expect_code(0);
    server.execute(&["UPDATE enc_verify.one SET v = 'other'"]);
    against(&fixture.identity())
        .expect_code(4)
        .expect_out("table `one`");

    let list = run(fixture.site.command("list", &["--progress", "none"]));
    list.expect_code(0).expect_out("complete, encrypted");
    let plan = run(fixture.site.command("plan", &["--progress", "none"]));
    plan.expect_code(0)
        .expect_out("(encrypted for 1 recipient)");
}

#[test]
fn keys_that_do_not_fit_are_told_apart() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_keys");
    let again = "enc_keys_again";
    drop_database(server, again);
    let refused = |outcome: Outcome, said: &str, hint: &str| {
        outcome.expect_code(2).expect_said(said).expect_said(hint);
        let found: Vec<String> = server
            .connect()
            .query(format!("SHOW DATABASES LIKE '{again}'"))
            .unwrap();
        assert!(found.is_empty(), "{said}: something was written");
    };
    let named = |path: &Path| ["--identity".to_owned(), path.to_str().unwrap().to_owned()];
    let with = |path: &Path, verb: &str| {
        let named = named(path);
        let named = [named[0].as_str(), named[1].as_str()];
        match verb {
            "restore" => fixture.restore(again, &named),
            _ => fixture.verify(&named),
        }
    };
    refused(
        fixture.restore(again, &[]),
        "its rows are encrypted",
        "--identity FILE",
    );
    refused(
        fixture.restore(again, &["--dry-run"]),
        "its rows are encrypted",
        "--identity FILE",
    );
    let (wrong, _) = key(&fixture.site, "wrong");
    let garbage = fixture
        .site
        .write_private("garbage", "not-a-key-but-a-s3cret\n");
    let public = fixture
        .site
        .write_private("public", &format!("{}\n", fixture.public));
    for verb in ["restore", "verify"] {
        refused(
            with(&wrong, verb),
            "none of the identities",
            "age-keygen -y",
        );
        let outcome = with(&garbage, verb);
        assert!(!outcome.stderr.contains("s3cret"), "{outcome:?}");
        refused(outcome, "not an identity file", "AGE-SECRET-KEY-1");
        refused(
            with(&public, verb),
            "not an identity file",
            "this is a public key",
        );
        refused(
            with(Path::new("/nonexistent"), verb),
            "cannot read",
            "check the name",
        );
    }
    let open = fixture.site.path("open");
    fs::copy(&fixture.identity, &open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    refused(with(&open, "restore"), "open to its group", "chmod 600");
    let open = named(&open);
    fixture
        .verify(&[&open[0], &open[1], "--allow-readable-credentials"])
        .expect_code(0);
    // A passphrase is asked for on a terminal, and there is none.
    let wrapped = fixture.site.path("wrapped");
    fs::write(
        &wrapped,
        under_passphrase(&fs::read(&fixture.identity).unwrap()),
    )
    .unwrap();
    fs::set_permissions(
        &wrapped,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let mut alone = Command::new("setsid");
    alone.arg("--wait").arg(crate::site::PROGRAM).arg("verify");
    alone
        .arg(fixture.site.latest())
        .arg("--identity")
        .arg(&wrapped);
    refused(
        run(alone),
        "cannot ask for the passphrase",
        "age -d makes one",
    );
    // A host directory has no use for it.
    let [flag, file] = fixture.identity();
    refused(
        verify(&fixture.site.host(), &[flag, file]),
        "no backup that is named is encrypted",
        "leave --identity out",
    );
    // Structure takes no identity.
    drop_database(server, "enc_keys_structure");
    fixture
        .restore("enc_keys_structure", &["--structure-only"])
        .expect_code(0);

    // Revoked: no longer among the recipients. The older backup is still readable.
    let first = fixture.site.latest();
    let (newer, public) = key(&fixture.site, "newer");
    encrypted(&fixture.site, &public);
    backup(&fixture.site);
    refused(
        with(&fixture.identity, "restore"),
        "none of the identities",
        "recipients",
    );
    let newer = named(&newer);
    let both = [flag, file, newer[0].as_str(), newer[1].as_str()];
    fixture.restore(again, &both).expect_code(0);
    verify(&first, &[flag, file]).expect_code(0);
}

#[test]
fn killed_in_the_middle_a_restore_is_resumed_and_a_backup_leaves_nothing() {
    let Some(server) = with_binlog() else { return };
    let fixture = backed_up(server, "enc_kill");
    let before = fixture.site.latest();
    for milliseconds in [30, 120, 300] {
        let program = start(
            fixture
                .site
                .command("", &["--chunk-size", "256K", "-j", "2"]),
        );
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        program.signal(Signal::KILL);
        program.finish(RUN_BOUND);
        let latest = fixture.site.latest();
        verify(&latest, &fixture.identity()).expect_code(0);
    }
    backup(&fixture.site);
    assert_no_leftovers(&fixture.site);
    verify(&before, &fixture.identity()).expect_code(0);

    let again = "enc_kill_again";
    let expected = fingerprint(server, "enc_kill");
    drop_database(server, again);
    let (host, user) = (fixture.site.host(), fixture.site.latest());
    let dirs = [host.as_path(), user.as_path()];
    let command = fixture
        .site
        .restore_command(&dirs, again, &fixture.identity());
    let mut program = start(command);
    let loaded = || {
        let rows: mysql::Result<Option<u64>> = server
            .connect()
            .query_first(format!("SELECT COUNT(*) FROM {again}.people"));
        rows.ok().flatten().unwrap_or(0)
    };
    let mut killed = false;
    while !program.ended() {
        if loaded() > 0 {
            program.signal(Signal::KILL);
            killed = true;
            break;
        }
    }
    program.finish(RUN_BOUND);
    assert!(killed, "the restore was too fast to be killed");
    fixture
        .restore(
            again,
            &["--resume", fixture.identity()[0], fixture.identity()[1]],
        )
        .expect_code(0);
    assert_same(&expected, &fingerprint(server, again));
}
