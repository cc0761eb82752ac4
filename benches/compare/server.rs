//! A throwaway MariaDB: everything it has lies in a temporary directory, its socket too, and it
//! listens nowhere else. It ends with its [`Server`], and should this process be killed, the
//! kernel ends it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::Result;
use crate::children::{Children, Running};

/// Root's, so that no file of this machine is asked for one.
pub(crate) const PASSWORD: &str = "bench";

const START_BOUND: Duration = Duration::from_secs(60);
const STOP_BOUND: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    process: Option<Running>,
    pid: u32,
    /// Removed after the server has ended.
    work: TempDir,
}

impl Server {
    /// Starts one that keeps in memory what [`fill`](crate::data::fill) makes at this scale, if half
    /// of the memory is enough for it.
    pub(crate) fn start(children: &Children, scale: f64) -> Result<Server> {
        let missing =
            "needs a MariaDB server (apt-get install mariadb-server-core mariadb-client-core)";
        let install = find("mariadb-install-db").ok_or(missing)?;
        let mariadbd = find("mariadbd").ok_or(missing)?;
        let work = tempfile::Builder::new()
            .prefix("schema_backup-bench.")
            .tempdir()?;
        let log = File::create(work.path().join("server.log"))?;
        let command = |argv: &[&Path]| -> Result<Command> {
            let (program, rest) = argv.split_first().ok_or("no program")?;
            let mut command = Command::new(program);
            command
                .args(rest)
                .arg("--no-defaults")
                .arg(format!("--datadir={}", work.path().join("data").display()))
                .arg(format!("--tmpdir={}", work.path().display()))
                // In a group of its own: Ctrl-C is for this process, which then stops the server.
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log.try_clone()?);
            if rustix::process::geteuid().is_root() {
                // The server drops root's privileges unless it is told not to.
                command.arg("--user=root");
            }
            Ok(command)
        };
        let mut installing = command(&[&install])?;
        installing.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        let installed = children.spawn(&mut installing)?.wait()?;
        if !installed.status.success() {
            return Err(format!("mariadb-install-db failed\n{}", tail(work.path())).into());
        }
        let setpriv = find("setpriv").ok_or("needs setpriv (apt-get install util-linux)")?;
        let mut serving = command(&[&setpriv, "--pdeathsig".as_ref(), "TERM".as_ref(), &mariadbd])?;
        serving
            .arg(format!("--socket={}", work.path().join("sock").display()))
            .arg(format!("--pid-file={}", work.path().join("pid").display()))
            .args(["--skip-networking", "--skip-log-bin"])
            .arg(format!("--innodb-buffer-pool-size={}M", pool_mib(scale)?))
            .args([
                "--innodb-log-file-size=512M",
                "--innodb-flush-log-at-trx-commit=0",
            ]);
        let process = children.spawn(&mut serving)?;
        let server = Server {
            pid: process.id(),
            process: Some(process),
            work,
        };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// Sets root's password once it answers.
    fn wait_until_it_answers(&self) -> Result<()> {
        let begun = Instant::now();
        let options = OptsBuilder::new()
            .socket(Some(self.socket().to_string_lossy()))
            .user(Some("root"));
        loop {
            match Conn::new(options.clone()) {
                Ok(mut conn) => {
                    let set = format!("ALTER USER root@localhost IDENTIFIED BY '{PASSWORD}'");
                    return Ok(conn.query_drop(set)?);
                }
                Err(e) if self.has_ended() || begun.elapsed() > START_BOUND => {
                    let log = tail(self.work.path());
                    return Err(format!("the server did not start: {e}\n{log}").into());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.process
            .as_ref()
            .is_none_or(|process| process.ends_within(Duration::ZERO))
    }

    /// The directory for everything.
    pub(crate) fn work(&self) -> &Path {
        self.work.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.work.path().join("sock")
    }

    pub(crate) fn connect(&self, database: Option<&str>) -> Result<Conn> {
        connect(&self.socket(), database)
    }

    /// The CPU time that the server has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // Its name, in parentheses, comes before the numbers (proc_pid_stat(5)).
        let (_, numbers) = stat
            .rsplit_once(") ")
            .ok_or("an unreadable /proc/PID/stat")?;
        let ticks: u64 = numbers
            .split(' ')
            .skip(11)
            .take(2)
            .map(str::parse::<u64>)
            .sum::<std::result::Result<_, _>>()?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// Waits until the server has nothing left to do of what was asked before, and until that is
    /// on disk.
    pub(crate) fn settle(&self) -> Result<()> {
        const BOUND: Duration = Duration::from_secs(120);
        const LOOK: Duration = Duration::from_millis(250);
        rustix::fs::syncfs(File::open(self.work.path())?)?;
        let begun = Instant::now();
        let mut used = self.cpu()?;
        while begun.elapsed() < BOUND {
            std::thread::sleep(LOOK);
            let now = self.cpu()?;
            if now - used < LOOK / 10 {
                return Ok(());
            }
            used = now;
        }
        Err("the server does not come to rest".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        process.signal(Signal::TERM);
        if !process.ends_within(STOP_BOUND) {
            process.signal(Signal::KILL);
        }
        if let Err(error) = process.wait() {
            eprintln!("compare: cannot wait for the server: {error}");
        }
    }
}

/// Connects as root.
pub(crate) fn connect(socket: &Path, database: Option<&str>) -> Result<Conn> {
    let options = OptsBuilder::new()
        .socket(Some(socket.to_string_lossy()))
        .user(Some("root"))
        .pass(Some(PASSWORD))
        .db_name(database);
    Ok(Conn::new(options)?)
}

/// Where a program is; servers are not on everybody's path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// What the data needs, and not more than half of the memory.
fn pool_mib(scale: f64) -> Result<u64> {
    /// Twice as much as there are data, for those that are restored.
    const AT_FULL_SCALE: f64 = 4096.0;
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or("no MemTotal")?;
    let needed = (AT_FULL_SCALE * scale.max(1.0)) as u64;
    Ok((kib.parse::<u64>()? / 2048).min(needed))
}

/// The end of the server's log.
fn tail(work: &Path) -> String {
    let log = std::fs::read_to_string(work.join("server.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
