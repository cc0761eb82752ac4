//! A small database that has two states, with a complete backup of one of them, and the means
//! to say after a fault what became of it. Between the states tables and views come and go,
//! and rows change in both directories; other tables stay as they are.
//!
//! What both backups must hold to the byte is known beforehand, because a backup's bytes follow
//! from the data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::server::{Server, with_binlog};
use crate::services;
use crate::site::{
    Lists, Outcome, RUN_BOUND, Running, Site, assert_no_leftovers, assert_sums_hold, contents, run,
};

/// What every run here is called with.
pub(super) const QUIET: [&str; 4] = ["-j", "2", "--progress", "none"];

/// Files by their path.
type Contents = BTreeMap<String, Vec<u8>>;

/// What a complete backup of one state holds.
pub(super) struct Expected {
    pub(super) host: Contents,
    pub(super) user: Contents,
}

/// What lies in one of the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Old,
    New,
    /// Of a publication that was begun, the next run makes the new backup.
    Begun,
}

/// The two directories after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Aftermath {
    pub(super) host: Holds,
    pub(super) user: Holds,
}

impl Aftermath {
    /// In words, for the table: the previous backup and the new one. Panics where the host
    /// directory, whose structure user data needs, is newer than that.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        use Holds::{Begun, New, Old};
        match (self.user, self.host) {
            (Old, Old) => ("whole", "none"),
            (New, New) => ("replaced", "whole"),
            (Begun, Old) => ("whole", "user data completed by the next run"),
            (New, Old) => ("whole (host)", "whole (user data)"),
            (New, Begun) => ("replaced", "host completed by the next run"),
            // User data is published first, and for good.
            _ => panic!("the host directory is ahead of user data: {self:?}"),
        }
    }
}

/// The database, the site, and what its backups must be.
pub(super) struct Pair {
    pub(super) server: &'static Server,
    pub(super) site: Site,
    database: String,
    expected: [Expected; 2],
    /// The state that the database has.
    state: usize,
}

const COMMON: &str = "
    CREATE TABLE settings (id INT PRIMARY KEY, v INT);
    INSERT INTO settings VALUES (1, 0), (2, 0);
    CREATE TABLE bulk (id INT PRIMARY KEY, v VARCHAR(1000));
    INSERT INTO bulk SELECT seq, REPEAT(MD5(seq), 31) FROM seq_1_to_1200;
    CREATE TABLE users (id INT PRIMARY KEY, v INT);
    INSERT INTO users VALUES (1, 0), (2, 0);
    CREATE TABLE files (id INT PRIMARY KEY, v VARCHAR(1000));
    INSERT INTO files SELECT f.seq, GROUP_CONCAT(MD5(f.seq * 100 + n.seq) SEPARATOR '')
        FROM seq_1_to_2400 f, seq_1_to_30 n GROUP BY f.seq;
    CREATE TABLE sessions (id INT PRIMARY KEY);";

/// Local tables besides, so many that their files are brought to stable storage all at once.
const SMALL: usize = 32;

/// What makes one state out of the other.
const CHANGES: [[&str; 6]; 2] = [
    [
        "UPDATE settings SET v = 1",
        "UPDATE users SET v = 1",
        "DROP TABLE IF EXISTS of_two",
        "CREATE TABLE of_one (id INT PRIMARY KEY)",
        "INSERT INTO of_one VALUES (1)",
        "CREATE VIEW seen AS SELECT id FROM settings",
    ],
    [
        "UPDATE settings SET v = 2",
        "UPDATE users SET v = 2",
        "DROP TABLE IF EXISTS of_one",
        "CREATE TABLE of_two (id INT PRIMARY KEY)",
        "INSERT INTO of_two VALUES (2)",
        "DROP VIEW IF EXISTS seen",
    ],
];

impl Pair {
    /// The database in its second state, and the backup of it. `None` after saying that the
    /// test is skipped.
    pub(super) fn new(database: &str) -> Option<Pair> {
        Pair::prepared(database, |_| {})
    }

    /// The same, with something done to the site before its first backup.
    pub(super) fn prepared(database: &str, prepare: impl FnOnce(&Site)) -> Option<Pair> {
        let server = with_binlog()?;
        server.create_database(database);
        server.feed(database, "the tables", COMMON.as_bytes());
        let small: Vec<String> = (0..SMALL).map(|n| format!("small_{n}")).collect();
        let table = |name: &String| format!("CREATE TABLE {name} (id INT PRIMARY KEY);");
        let tables: String = small.iter().map(table).collect();
        server.feed(database, "small tables", tables.as_bytes());
        let mut local = vec!["users", "files"];
        local.extend(small.iter().map(String::as_str));
        let lists = Lists {
            global: vec!["settings", "bulk", "of_one", "of_two"],
            local,
            ephemeral: vec!["sessions"],
            ..Lists::default()
        };
        let site = services::site_with_services(server, database, &lists);
        prepare(&site);
        let none = || Expected {
            host: Contents::new(),
            user: Contents::new(),
        };
        let mut pair = Pair {
            server,
            site,
            database: database.to_owned(),
            expected: [none(), none()],
            state: 1,
        };
        for _ in 0..2 {
            pair.change();
            pair.site.backup_ok(&QUIET);
            pair.expected[pair.state] = Expected {
                host: without_record(contents(&pair.site.host())),
                user: without_record(contents(&pair.site.latest())),
            };
        }
        assert!(pair.old().host != pair.new_backup().host);
        assert!(pair.old().user != pair.new_backup().user);
        pair.forget_older();
        Some(pair)
    }

    /// Takes the database into its other state.
    pub(super) fn change(&mut self) {
        self.state = 1 - self.state;
        let mut statements = vec![format!("USE {}", self.database)];
        statements.extend(CHANGES[self.state].map(str::to_owned));
        let statements: Vec<_> = statements.iter().map(String::as_str).collect();
        self.server.execute(&statements);
    }

    /// The backup of the other state than the database's.
    pub(super) fn old(&self) -> &Expected {
        &self.expected[1 - self.state]
    }

    /// The backup of the database's state.
    pub(super) fn new_backup(&self) -> &Expected {
        &self.expected[self.state]
    }

    /// A backup run.
    pub(super) fn command(&self) -> Command {
        services::command(&self.site, &QUIET, "-")
    }

    /// A backup run for which something happens at a point of the program.
    #[cfg(feature = "failpoints")]
    pub(super) fn command_with(&self, point: &str, time: usize, what: &str) -> Command {
        let mut command = self.command();
        let value = format!("{point}@{time}={what}");
        command.env(schema_backup::FAILPOINT_VARIABLE, value);
        command
    }

    /// A backup run that has stopped at a point of the program for the given time; how it
    /// ended, if it did not come there.
    #[cfg(feature = "failpoints")]
    pub(super) fn stopped_at(&self, point: &str, time: usize) -> Result<Running, Outcome> {
        stopped(self.command_with(point, time, "stop"))
    }

    /// Looks at both directories, which a fault may have left in any state, and completes what
    /// was begun. Panics unless all of this holds: `list` calls complete what `verify` finds
    /// whole and what is the old or the new backup to the byte, and nothing else; there is such
    /// a backup of each kind at once, or as soon as anybody calls the program, even if the
    /// server cannot be reached.
    pub(super) fn look(&self) -> Aftermath {
        let host = self.host_now();
        let user = self.user_now();
        if host != Holds::Begun && user != Holds::Begun {
            return Aftermath { host, user };
        }
        self.complete();
        for (before, after) in [(host, self.host_now()), (user, self.user_now())] {
            if before == Holds::Begun {
                assert_eq!(after, Holds::New, "what was begun was not completed");
            } else {
                assert_eq!(after, before);
            }
        }
        Aftermath { host, user }
    }

    /// Calls the program when the server cannot be reached.
    fn complete(&self) {
        run(self.site.command_without_server(&QUIET))
            .expect_code(10)
            .expect_said("completed a publication");
    }

    fn listed(&self) -> Vec<Value> {
        let outcome = run(self.site.command("list", &["--json"])).expect_code(0);
        serde_json::from_str(&outcome.stdout).unwrap()
    }

    fn host_now(&self) -> Holds {
        let host = self.site.host();
        let entry = self.listed().into_iter().find(|info| path_of(info) == host);
        let entry = entry.expect("the host directory is in the list");
        if entry["complete"] == true {
            return self.judge(&host, |expected| &expected.host);
        }
        // A directory in the middle of a publication has no manifest, or is a whole backup.
        assert!(
            host.join(".schema_backup/journal.json").exists(),
            "the previous backup is gone: {entry}"
        );
        if host.join("manifest.json").exists() {
            verify(&self.site, &host).expect_code(0);
        } else {
            verify(&self.site, &host)
                .expect_code(2)
                .expect_said("next run");
            self.site_refuses_to_restore(&host);
        }
        Holds::Begun
    }

    fn user_now(&self) -> Holds {
        let root = self.site.user_data_dir();
        let infos = self.listed();
        for info in &infos {
            let path = path_of(info);
            let of_user_data = path.starts_with(&root);
            if of_user_data && info["complete"] == true {
                self.judge(&path, |expected| &expected.user);
            } else if of_user_data {
                assert!(
                    path.ends_with(".schema_backup/staging"),
                    "no complete backup: {info}"
                );
            }
        }
        let holds = self.judge(&self.site.latest(), |expected| &expected.user);
        if root.join(".schema_backup/journal.json").exists() {
            return Holds::Begun;
        }
        holds
    }

    /// Which backup it is that `list` calls complete.
    fn judge(&self, dir: &Path, part: impl Fn(&Expected) -> &Contents) -> Holds {
        verify(&self.site, dir).expect_code(0);
        let mut found = without_record(contents(dir));
        found.retain(|name, _| !name.starts_with(".schema_backup/"));
        if found == *part(self.new_backup()) {
            Holds::New
        } else {
            assert!(
                found == *part(self.old()),
                "{} is neither the old backup nor the new one",
                dir.display()
            );
            Holds::Old
        }
    }

    fn site_refuses_to_restore(&self, dir: &Path) {
        let into = format!("{}_never", self.database);
        run(self.site.restore_command(&[dir], &into, &["--dry-run"]))
            .expect_code(2)
            .expect_said("no complete backup");
    }

    /// A run without a fault, after which everything is new and nothing else is there; how
    /// long it took.
    pub(super) fn next_run(&self) -> Duration {
        let began = Instant::now();
        run(self.command()).expect_code(0);
        let took = began.elapsed();
        self.assert_new();
        self.forget_older();
        took
    }

    /// Panics unless both directories hold the new backup, to the byte, and no work of a run.
    pub(super) fn assert_new(&self) {
        assert_no_leftovers(&self.site);
        for dir in [self.site.host(), self.site.latest()] {
            assert_sums_hold(&dir);
        }
        assert_eq!(self.compared(), Some(Holds::New));
    }

    /// Panics unless both directories hold the old backup, to the byte, and no work of a run.
    pub(super) fn assert_untouched(&self) {
        assert_no_leftovers(&self.site);
        assert_eq!(self.compared(), Some(Holds::Old));
    }

    /// Which backup lies in both directories, without asking the program.
    pub(super) fn compared(&self) -> Option<Holds> {
        let mut host = without_record(contents(&self.site.host()));
        host.retain(|name, _| !name.starts_with(".schema_backup/"));
        let user = without_record(contents(&self.site.latest()));
        let is = |expected: &Expected| host == expected.host && user == expected.user;
        if is(self.new_backup()) {
            Some(Holds::New)
        } else {
            is(self.old()).then_some(Holds::Old)
        }
    }

    /// Removes all backups of user data but the latest, so that the list stays short.
    pub(super) fn forget_older(&self) {
        let latest = self.site.latest();
        for entry in fs::read_dir(self.site.user_data_dir()).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            let backup = name.bytes().all(|b| b.is_ascii_digit());
            if backup && fs::canonicalize(&path).unwrap() != latest {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

pub(super) fn without_record(mut contents: Contents) -> Contents {
    contents.remove("run.json");
    contents
}

fn path_of(info: &Value) -> PathBuf {
    info["path"].as_str().unwrap().into()
}

/// What `verify` says of one directory.
pub(super) fn verify(site: &Site, dir: &Path) -> Outcome {
    run(site.command("verify", &[dir.as_os_str(), "--progress=none".as_ref()]))
}

/// Whether the program has been stopped by a signal.
#[cfg(feature = "failpoints")]
fn is_stopped(program: &Running) -> bool {
    let pid = program.pid().as_raw_nonzero();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it is in parentheses and may hold anything.
    let state = stat.rsplit(')').next().unwrap_or_default();
    state.trim_start().starts_with('T')
}

/// Ends a program that runs or has stopped.
pub(super) fn kill(program: Running) -> Outcome {
    program.signal(Signal::KILL);
    program.finish(RUN_BOUND)
}

/// Starts a run that stops itself; how it ended, if it did not stop.
#[cfg(feature = "failpoints")]
pub(super) fn stopped(command: Command) -> Result<Running, Outcome> {
    let mut program = crate::site::start(command);
    let began = Instant::now();
    loop {
        if is_stopped(&program) {
            return Ok(program);
        }
        if program.ended() {
            return Err(program.finish(RUN_BOUND));
        }
        assert!(
            began.elapsed() < RUN_BOUND,
            "waited until the program stops"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
