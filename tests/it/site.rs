//! A place to back up to: a temporary directory with a configuration, and the built program
//! run on it with bounds on its time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::server::{ROOT_PASSWORD, Server};

/// The built program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_schema_backup");
/// The longest that any run of the program in a test may take.
pub(crate) const RUN_BOUND: Duration = Duration::from_secs(120);
const HOST: &str = "db1.example.org";

/// Which table is in which list of the configuration.
#[derive(Default, Clone)]
pub(crate) struct Lists<'a> {
    pub(crate) global: Vec<&'a str>,
    pub(crate) local: Vec<&'a str>,
    pub(crate) ephemeral: Vec<&'a str>,
    pub(crate) ignore: Vec<&'a str>,
}

/// A temporary directory with `schema_backup.conf`, a password file, and the two backup
/// directories once there is a backup.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    flags: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Site {
    /// A site for backups of `database` on `server`, as root. It lies in the server's directory
    /// and goes with it at the latest: what a shared fixture holds is never dropped.
    pub(crate) fn new(server: &Server, database: &str, lists: &Lists) -> Site {
        let site = Site::below(server.dir(), lists);
        site.connect_as(server, database, "root", ROOT_PASSWORD)
    }

    /// A site that knows no server.
    pub(crate) fn offline(lists: &Lists) -> Site {
        Site::below(&std::env::temp_dir(), lists)
    }

    fn below(parent: &Path, lists: &Lists) -> Site {
        let dir = tempfile::Builder::new()
            .prefix("schema_backup-site.")
            .tempdir_in(parent)
            .unwrap();
        let site = Site {
            dir,
            flags: Vec::new(),
        };
        site.configure(lists, "");
        site
    }

    /// The same site, with another way to the server.
    pub(crate) fn connect_as(
        mut self,
        server: &Server,
        database: &str,
        user: &str,
        password: &str,
    ) -> Site {
        let file = self.write_private("password", password);
        self.flags = vec![
            format!("--socket={}", server.socket().display()),
            format!("--user={user}"),
            format!("--password-file={}", file.display()),
            format!("--database={database}"),
        ];
        self
    }

    /// The same site, with these flags in place of those that say where the server is.
    pub(crate) fn connect_by(mut self, flags: &[&str]) -> Site {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        self
    }

    /// Writes the configuration anew: the lists, and lines of YAML.
    pub(crate) fn configure(&self, lists: &Lists, more: &str) {
        let mut text = String::from("csv2_backup_dir: default\n");
        let all = [
            ("global", &lists.global),
            ("local", &lists.local),
            ("ephemeral", &lists.ephemeral),
            ("ignore", &lists.ignore),
        ];
        for (key, tables) in all {
            // JSON is YAML, and quotes what needs quoting.
            writeln!(text, "{key}: {}", serde_json::to_string(tables).unwrap()).unwrap();
        }
        fs::write(self.path("schema_backup.conf"), text + more).unwrap();
    }

    /// A path in the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write_private(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::remove_file(&path).ok();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
        path
    }

    /// `--backup-dir`.
    pub(crate) fn backup_dir(&self) -> PathBuf {
        self.path("schema_backup")
    }

    /// `--user-data-dir`.
    pub(crate) fn user_data_dir(&self) -> PathBuf {
        self.path("user_data")
    }

    /// The host's subdirectory of `--backup-dir`.
    pub(crate) fn host(&self) -> PathBuf {
        self.backup_dir().join(HOST)
    }

    /// The newest backup of user data.
    pub(crate) fn latest(&self) -> PathBuf {
        fs::canonicalize(self.user_data_dir().join("latest")).unwrap()
    }

    /// The program, `verb` (none, if empty) and the flags that make it use this site only.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, verb: &str, arguments: &[S]) -> Command {
        let mut command = Command::new(PROGRAM);
        self.equip(&mut command, verb, arguments);
        command
    }

    /// The program under a wrapper (`time -v`, `sh -c …`), else like [`Site::command`].
    pub(crate) fn wrapped<S: AsRef<OsStr>>(
        &self,
        wrapper: &[&str],
        verb: &str,
        arguments: &[S],
    ) -> Command {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(PROGRAM);
        self.equip(&mut command, verb, arguments);
        command
    }

    fn equip<S: AsRef<OsStr>>(&self, command: &mut Command, verb: &str, arguments: &[S]) {
        command.args(Some(verb).filter(|verb| !verb.is_empty()));
        command.arg("--config").arg(self.path("schema_backup.conf"));
        command.arg("--backup-dir").arg(self.backup_dir());
        command.arg("--user-data-dir").arg(self.user_data_dir());
        // `list` looks at directories and has no use for a server.
        if verb != "list" {
            command.args(["--host-name", HOST]).args(&self.flags);
        }
        command.args(arguments);
        self.isolate(command);
    }

    /// A backup run that cannot reach the server.
    pub(crate) fn command_without_server(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.path("schema_backup.conf"));
        command.arg("--backup-dir").arg(self.backup_dir());
        command.arg("--user-data-dir").arg(self.user_data_dir());
        command.args(["--host-name", HOST, "--socket=/nowhere"]);
        let flags = self.flags.iter();
        command.args(flags.filter(|flag| !flag.starts_with("--socket=")));
        command.args(arguments);
        self.isolate(&mut command);
        command
    }

    fn isolate(&self, command: &mut Command) {
        // Nobody's option files and passwords but the site's.
        command
            .env("HOME", self.dir.path())
            .env_remove("SCHEMA_BACKUP_PASSWORD")
            .env_remove("MYSQL_PWD");
        command.current_dir(self.dir.path());
    }

    /// `restore` of `dirs` into `database`, on the site's server and as its user.
    pub(crate) fn restore_command(
        &self,
        dirs: &[&Path],
        database: &str,
        arguments: &[&str],
    ) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("restore").args(dirs).args(["--into", database]);
        let flags = self.flags.iter();
        command.args(flags.filter(|flag| !flag.starts_with("--database=")));
        command.args(arguments);
        self.isolate(&mut command);
        command
    }

    /// Runs a backup.
    pub(crate) fn backup(&self, arguments: &[&str]) -> Outcome {
        run(self.command("", arguments))
    }

    /// Runs a backup that must succeed, and leave its completion mark.
    #[track_caller]
    pub(crate) fn backup_ok(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.backup(arguments).expect_code(0);
        assert!(
            self.host().join("manifest.json").is_file(),
            "success without a manifest"
        );
        outcome
    }
}

impl Outcome {
    /// Panics with all that was said unless the program ended with `code`.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Outcome {
        assert_eq!(
            self.code,
            Some(code),
            "exit code\n-- stdout:\n{}-- stderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Panics unless stderr has `text`, in whatever case.
    #[track_caller]
    pub(crate) fn expect_said(self, text: &str) -> Outcome {
        let said = self.stderr.to_lowercase().contains(&text.to_lowercase());
        assert!(said, "`{text}` is not in stderr:\n{}", self.stderr);
        self
    }

    /// Panics unless stdout has `text`.
    #[track_caller]
    pub(crate) fn expect_out(self, text: &str) -> Outcome {
        let found = self.stdout.contains(text);
        assert!(found, "`{text}` is not in stdout:\n{}", self.stdout);
        self
    }
}

/// A program that runs while the test watches; killed when it is dropped before its end.
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// Starts `command` with its output collected.
pub(crate) fn start(mut command: Command) -> Running {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A group of its own, so that a wrapper and what it wraps can be ended together.
    command.process_group(0);
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let collect = |stream: Option<Box<dyn Read + Send>>| {
        stream.map(|mut stream| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).ok();
                String::from_utf8_lossy(&bytes).into_owned()
            })
        })
    };
    let stdout = collect(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = collect(child.stderr.take().map(|s| Box::new(s) as _));
    Running {
        child,
        stdout,
        stderr,
    }
}

/// Runs `command` to its end.
pub(crate) fn run(command: Command) -> Outcome {
    run_with_timeout(command, RUN_BOUND)
}

/// Runs `command` to its end; panics, saying what it waited for, if that takes too long.
pub(crate) fn run_with_timeout(command: Command, bound: Duration) -> Outcome {
    start(command).finish(bound)
}

impl Running {
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it said on stderr, once it has ended.
    pub(crate) fn last_words(&mut self) -> String {
        join(&mut self.stderr)
    }

    /// Kills it, if it still runs.
    fn end(&mut self) {
        // Once it has been waited for its number may be another's.
        if !self.child.try_wait().is_ok_and(|status| status.is_some()) {
            rustix::process::kill_process_group(self.pid(), rustix::process::Signal::KILL).ok();
            self.child.wait().ok();
        }
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self, bound: Duration) -> Outcome {
        let started = Instant::now();
        while !self.ended() {
            if started.elapsed() > bound {
                self.end();
                let (stdout, stderr) = (join(&mut self.stdout), join(&mut self.stderr));
                panic!("waited {bound:?} for schema_backup to end; it said:\n{stdout}{stderr}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        let code = self.child.wait().unwrap().code();
        Outcome {
            code,
            stdout: join(&mut self.stdout),
            stderr: join(&mut self.stderr),
        }
    }
}

fn join(collector: &mut Option<JoinHandle<String>>) -> String {
    collector
        .take()
        .map(|thread| thread.join().unwrap())
        .unwrap_or_default()
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until `condition` holds; panics, saying what it waited for, after a minute.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "waited {:?} until {what}",
            started.elapsed()
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// Every directory, file and link below `root`, itself not included. What vanishes while it
/// looks is left out.
pub(crate) fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn name_below(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

/// The content of every file and the target of every link below `root`, by path.
pub(crate) fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let leaves = walk(root)
        .into_iter()
        .filter(|path| path.is_symlink() || path.is_file());
    leaves
        .map(|path| {
            let name = name_below(root, &path);
            let content = match fs::read_link(&path) {
                Ok(target) => target.into_os_string().into_encoded_bytes(),
                Err(_) => fs::read(&path).unwrap(),
            };
            (name, content)
        })
        .collect()
}

/// All that a run leaves, but its record.
pub(crate) fn tree_of(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let (host, user) = (contents(&site.host()), contents(&site.latest()));
    let host = host
        .into_iter()
        .map(|(name, content)| (format!("host/{name}"), content));
    let user = user
        .into_iter()
        .map(|(name, content)| (format!("user/{name}"), content));
    host.chain(user)
        .filter(|(name, _)| !name.ends_with("/run.json"))
        .collect()
}

/// Inode and modification time of every file below `root`, by path.
pub(crate) fn identities(root: &Path) -> BTreeMap<String, (u64, i64, i64)> {
    let files = walk(root)
        .into_iter()
        .filter(|path| path.is_file() && !path.is_symlink());
    files
        .map(|path| {
            let name = name_below(root, &path);
            let meta = fs::metadata(&path).unwrap();
            (name, (meta.ino(), meta.mtime(), meta.mtime_nsec()))
        })
        .collect()
}

/// Permission bits.
pub(crate) fn mode(path: &Path) -> Option<u32> {
    Some(fs::symlink_metadata(path).ok()?.permissions().mode() & 0o7777)
}

/// Panics unless `sha256sum` finds every file as SHA256SUMS has it, and SHA256SUMS names every
/// file that the backup consists of.
#[track_caller]
pub(crate) fn assert_sums_hold(backup: &Path) {
    let output = Command::new("sha256sum")
        .args(["-c", "--quiet", "--strict", "SHA256SUMS"])
        .current_dir(backup)
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "sha256sum -c in {}: {said}",
        backup.display()
    );

    let sums = fs::read_to_string(backup.join("SHA256SUMS")).unwrap();
    let unlisted = contents(backup).into_keys().filter(|name| {
        let of_the_run = ["SHA256SUMS", "run.json", "manifest.json"].contains(&name.as_str());
        !of_the_run
            && !sums
                .lines()
                .any(|line| line.ends_with(&format!("  {name}")))
    });
    assert_eq!(
        unlisted.collect::<Vec<_>>(),
        Vec::<String>::new(),
        "files that SHA256SUMS does not name"
    );
}

/// Panics if a run left its work behind.
#[track_caller]
pub(crate) fn assert_no_leftovers(site: &Site) {
    for root in [site.backup_dir(), site.user_data_dir()] {
        let left: Vec<_> = walk(&root)
            .into_iter()
            .filter(|p| p.to_string_lossy().contains(".schema_backup"))
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

/// Whether long runs were asked for.
pub(crate) fn soak() -> bool {
    std::env::var_os("SCHEMA_BACKUP_SOAK").is_some_and(|value| value == "1")
}

/// A JSON file of a backup.
#[track_caller]
pub(crate) fn json(path: impl AsRef<Path>) -> Value {
    let text = fs::read_to_string(path.as_ref())
        .unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()));
    serde_json::from_str(&text).unwrap()
}

/// How many chunks a backup's manifest has for a table; 0 where it has no data of it.
pub(crate) fn chunks(backup: &Path, table: &str) -> usize {
    json(backup.join("manifest.json"))["tables"][table]["data"]["chunks"]
        .as_array()
        .map_or(0, Vec::len)
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The manifest with `from` replaced, and a checksum that is right again.
pub(crate) fn edited(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in the manifest");
    let (body, _) = text.split_once(",\n  \"checksum\"").unwrap();
    let body = body.replacen(from, to, 1);
    let sum = sha256(body.as_bytes());
    format!("{body},\n  \"checksum\": \"sha256:{sum}\"\n}}\n")
}
