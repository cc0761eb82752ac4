//! Private servers of each [`Kind`]. A server lives in a directory of its own, listens on a
//! socket there, and ends with its [`Server`] or, if it is shared, with the test process: it
//! runs under a small shell that the kernel tells of our death, so that neither a panic nor
//! `kill -9` leaves a server behind.

mod kinds;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use rustix::process::{Pid, Signal, kill_process};

pub(crate) use kinds::Kind;
use kinds::base_options;

/// The password of `root` on every server, so that no test passes because none was needed.
pub(crate) const ROOT_PASSWORD: &str = "r00t-of-the-test's \"server\"";

const START_BOUND: Duration = Duration::from_secs(60);
const STOP_BOUND: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Server {
    kind: Kind,
    dir: PathBuf,
    options: Vec<String>,
    keeper: Mutex<Child>,
    /// Where it listens on the loopback interface, if it was asked to.
    pub(crate) port: Option<u16>,
}

/// The shared MariaDB 10.11 with a binary log; `None` after saying that the test is skipped.
pub(crate) fn with_binlog() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let options = ["--log-bin=binlog", "--server-id=1", "--gtid-domain-id=7"];
    let server = SERVER.get_or_init(|| Server::start_if_there_is_one(Kind::MariaDb10, &options));
    server.as_ref().or_else(|| skip(Kind::MariaDb10))
}

/// The shared MariaDB 10.11 without one.
pub(crate) fn without_binlog() -> Option<&'static Server> {
    shared(Kind::MariaDb10)
}

/// The shared server of a kind that is as the product comes: MySQL with a binary log, MariaDB
/// without. `None` after saying that the test is skipped.
pub(crate) fn shared(kind: Kind) -> Option<&'static Server> {
    static SERVERS: [OnceLock<Option<Server>>; 3] = [const { OnceLock::new() }; 3];
    let server = SERVERS[kind as usize].get_or_init(|| Server::start_if_there_is_one(kind, &[]));
    server.as_ref().or_else(|| skip(kind))
}

/// Makes a function that takes a [`Kind`] a test on each of them.
macro_rules! on_each_kind {
    ($test:ident) => {
        mod $test {
            use crate::server::Kind;

            #[test]
            fn on_mariadb_10() {
                super::$test(Kind::MariaDb10);
            }

            #[test]
            fn on_mariadb_11() {
                super::$test(Kind::MariaDb11);
            }

            #[test]
            fn on_mysql_9() {
                super::$test(Kind::MySql9);
            }
        }
    };
}
pub(crate) use on_each_kind;

/// Says that the running test is skipped for want of a server. In CI that is a failure, unless
/// it is one that cannot be had here.
fn skip<T>(kind: Kind) -> Option<T> {
    let why = kind.why_missing();
    assert!(
        std::env::var_os("CI").is_none() || why.is_some(),
        "no {kind:?} here, and CI is set"
    );
    let why = why.unwrap_or_else(|| format!("no {kind:?} here; see tests/run"));
    // Not by a macro: the test harness hides what those print.
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {test}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
    None
}

impl Server {
    /// Starts a MariaDB 10.11 with these options; see [`Server::start_kind`].
    pub(crate) fn start(options: &[&str]) -> Option<Server> {
        Server::start_kind(Kind::MariaDb10, options)
    }

    /// Starts a server with these options besides the harness's own. `--port=…` among them
    /// makes it listen on the loopback interface too. `None` after saying that the test is
    /// skipped.
    pub(crate) fn start_kind(kind: Kind, options: &[&str]) -> Option<Server> {
        Server::start_if_there_is_one(kind, options).or_else(|| skip(kind))
    }

    /// The same, with a log of all queries; see [`Server::query_log`].
    pub(crate) fn start_with_log(kind: Kind) -> Option<Server> {
        let log = [
            "--general-log=1",
            "--log-output=FILE",
            "--general-log-file=queries.log",
        ];
        Server::start_kind(kind, &log)
    }

    /// What has been asked of a server that logs it.
    pub(crate) fn query_log(&self) -> String {
        let log = std::fs::read(self.dir().join("data/queries.log")).unwrap();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn start_if_there_is_one(kind: Kind, options: &[&str]) -> Option<Server> {
        let template = kind.template()?;
        // In the system's temporary directory: a socket's path must be short.
        let dir = tempfile::Builder::new()
            .prefix("schema_backup-it.")
            .tempdir()
            .unwrap()
            .keep();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(template)
            .arg(dir.join("data"))
            .status()
            .unwrap();
        assert!(copied.success(), "cannot copy the template of a server");

        let port = options
            .iter()
            .find_map(|o| o.strip_prefix("--port="))
            .map(|port| port.parse().unwrap());
        let keeper = Mutex::new(launch(kind, &dir, options)?);
        let server = Server {
            kind,
            dir,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            keeper,
            port,
        };
        server.wait_until_it_answers();
        Some(server)
    }

    /// Ends it as a crash would.
    pub(crate) fn crash(&self) {
        self.end(Signal::KILL);
    }

    /// Shuts it down and starts it again.
    pub(crate) fn restart(&self) {
        self.end(Signal::TERM);
        self.start_again();
    }

    /// Starts it after it has ended.
    pub(crate) fn start_again(&self) {
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        *self.keeper.lock().unwrap() = launch(self.kind, &self.dir, &options).unwrap();
        self.wait_until_it_answers();
    }

    /// Sends it a signal, by the number it wrote itself while its keeper is there, and waits for
    /// its end.
    fn end(&self, signal: Signal) {
        let pid = std::fs::read_to_string(self.dir.join("server.pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.keeper.lock().unwrap().wait().unwrap();
    }

    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The socket it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(&self.dir)
    }

    /// Its directory, for files that should go with it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The certificate of the authority that MySQL makes up and signs its own with.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("data/ca.pem")
    }

    /// A connection of `root`'s.
    pub(crate) fn connect(&self) -> mysql::Conn {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> mysql::Result<mysql::Conn> {
        let options = mysql::OptsBuilder::new()
            .socket(self.socket().to_str())
            .user(Some("root"));
        mysql::Conn::new(options.pass(Some(ROOT_PASSWORD)).prefer_socket(true))
    }

    /// Runs statements on a fresh connection of `root`'s.
    pub(crate) fn execute(&self, statements: &[&str]) {
        let mut connection = self.connect();
        for statement in statements {
            connection
                .query_drop(statement)
                .unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }

    /// Makes `database` anew, in utf8mb4.
    pub(crate) fn create_database(&self, database: &str) {
        self.execute(&[
            &format!("DROP DATABASE IF EXISTS `{database}`"),
            &format!(
                "CREATE DATABASE `{database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
            ),
        ]);
    }

    /// Makes a user that may connect from anywhere, anew, with these grants
    /// (`SELECT ON db.*`), and returns its password.
    pub(crate) fn create_user(&self, user: &str, grants: &[&str]) -> String {
        let password = format!("pw-of-{user}");
        let mut connection = self.connect();
        connection
            .query_drop(format!("DROP USER IF EXISTS {user}"))
            .unwrap();
        connection
            .query_drop(format!("CREATE USER {user} IDENTIFIED BY '{password}'"))
            .unwrap();
        for grant in grants {
            connection
                .query_drop(format!("GRANT {grant} TO {user}"))
                .unwrap();
        }
        password
    }

    /// The stock client, with no options but who and where.
    pub(crate) fn stock_client(&self, database: &str) -> Command {
        let mut command = Command::new(self.kind.client().unwrap());
        command
            .arg("--no-defaults")
            .arg("--user=root")
            .arg(format!("--socket={}", self.socket().display()));
        command.arg(database).env("MYSQL_PWD", ROOT_PASSWORD);
        command
    }

    /// Feeds `sql` to the stock client (so `DELIMITER` works). Panics unless it succeeds
    /// without a word.
    pub(crate) fn feed(&self, database: &str, what: &str, sql: &[u8]) {
        let output = self.try_feed(database, sql);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "the stock client on {what}: {said}"
        );
    }

    fn try_feed(&self, database: &str, sql: &[u8]) -> Output {
        let mut command = self.stock_client(database);
        if self.kind.is_mysql() {
            // Its later versions do not know \C otherwise.
            command.arg("--commands");
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        thread::scope(|scope| {
            // A client that stops early says why on stderr; the broken pipe adds nothing.
            scope.spawn(move || stdin.write_all(sql).ok());
            child.wait_with_output().unwrap()
        })
    }

    fn wait_until_it_answers(&self) {
        let started = Instant::now();
        loop {
            let why = match self.try_connect() {
                Ok(_) => return,
                Err(error) => error,
            };
            let ended = self.keeper.lock().unwrap().try_wait().unwrap().is_some();
            if ended || started.elapsed() > START_BOUND {
                let log = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
                panic!(
                    "waited {:?} for a server to answer: {why}\n{log}",
                    started.elapsed()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap();
        let server = std::fs::read_to_string(self.dir.join("server.pid")).unwrap_or_default();
        kill_process(Pid::from_child(keeper), Signal::TERM).ok();
        let started = Instant::now();
        while matches!(keeper.try_wait(), Ok(None)) {
            if started.elapsed() > STOP_BOUND {
                // Our own server, by the number it wrote itself: its keeper is still there.
                if let Some(pid) = server.trim().parse().ok().and_then(Pid::from_raw) {
                    kill_process(pid, Signal::KILL).ok();
                }
                keeper.kill().ok();
                keeper.wait().ok();
            }
            thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// Starts a server of `kind` in `dir`, under its keeper.
fn launch(kind: Kind, dir: &Path, options: &[&str]) -> Option<Child> {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "sh", "-c", KEEPER, "sh"])
        .arg(dir);
    command
        .arg(kind.server()?)
        .args(base_options(&dir.join("data")));
    command.arg(format!("--socket={}", socket_in(dir).display()));
    command.arg(format!("--pid-file={}", dir.join("server.pid").display()));
    // A server that starts clears what it takes for leftovers of its own there.
    command.arg(format!("--tmpdir={}", dir.display()));
    command.args(kind.options()).args(options);
    let on_loopback = options.iter().any(|option| option.starts_with("--port="));
    command.arg(if on_loopback {
        "--bind-address=127.0.0.1"
    } else {
        "--skip-networking"
    });
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    Some(spawn_from_a_lasting_thread(command))
}

/// Runs the server given after the directory, and on a signal (our death is one) stops it and
/// removes the directory, with what tests have mounted in it.
const KEEPER: &str = r#"
dir=$1; shift
mounted() { awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts; }
trap 'kill "$server" 2>/dev/null; wait "$server"; mounted | xargs -r umount -l; rm -rf "$dir"; exit' TERM INT HUP
"$@" >"$dir/server.log" 2>&1 &
server=$!
wait "$server"
"#;

fn socket_in(dir: &Path) -> PathBuf {
    dir.join("server.sock")
}

/// Spawns from a thread that lives as long as the process: the kernel sends the death signal
/// when the spawning *thread* ends, and tests are threads.
fn spawn_from_a_lasting_thread(command: Command) -> Child {
    type Request = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in requests {
                reply.send(command.spawn()).unwrap();
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = channel();
    spawner.lock().unwrap().send((command, reply)).unwrap();
    answer
        .recv()
        .unwrap()
        .unwrap_or_else(|e| panic!("cannot run setpriv (util-linux): {e}"))
}

/// A port of the loopback interface that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
