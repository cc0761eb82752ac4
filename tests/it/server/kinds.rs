//! The kinds of server that the tests run on: where their programs are, how they are started,
//! and the data directory that each server of a kind starts from a copy of.
//!
//! MariaDB 10.11 is the installed one. The others are unpacked by `tests/servers`, which also
//! says why one is missing; what it says and what it makes lies at the names used here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::ROOT_PASSWORD;

/// A product and its major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The installed MariaDB, 10.11; the only kind that must be there.
    MariaDb10,
    /// MariaDB 11.8.
    MariaDb11,
    /// MySQL 9.
    MySql9,
}

/// Small and quick: these servers may forget everything at a power failure.
const TUNING: [&str; 9] = [
    "--innodb-buffer-pool-size=128M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-stats-persistent=1",
    "--sync-binlog=0",
    "--skip-name-resolve",
    "--max-connections=200",
    "--max-allowed-packet=64M",
];

/// What only MariaDB needs or takes.
const MARIADB: [&str; 2] = ["--performance-schema=0", "--lower-case-table-names=0"];

/// What only MySQL does. It must be told of the case of names when the data directory is made
/// and every time after; its X protocol would listen on a socket of its own.
const MYSQL: [&str; 4] = [
    "--lower-case-table-names=0",
    "--mysqlx=OFF",
    "--secure-file-priv=",
    "--innodb-redo-log-capacity=8M",
];

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 3] = [Kind::MariaDb10, Kind::MariaDb11, Kind::MySql9];

    /// Whether it is MySQL; otherwise it is MariaDB.
    pub(crate) fn is_mysql(self) -> bool {
        self == Kind::MySql9
    }

    /// The options to start it with, besides those that say where.
    pub(super) fn options(self) -> impl Iterator<Item = &'static str> {
        let own = if self.is_mysql() {
            &MYSQL[..]
        } else {
            &MARIADB
        };
        TUNING.into_iter().chain(own.iter().copied())
    }

    /// The server's program.
    pub(super) fn server(self) -> Option<PathBuf> {
        self.program(if self.is_mysql() {
            "mysqld"
        } else {
            "mariadbd"
        })
    }

    /// The stock client's.
    pub(super) fn client(self) -> Option<PathBuf> {
        self.program(if self.is_mysql() { "mysql" } else { "mariadb" })
    }

    fn program(self, name: &str) -> Option<PathBuf> {
        match self.folder() {
            None => installed(name),
            Some(folder) => Some(folder.join("run").join(name)).filter(|file| file.is_file()),
        }
    }

    /// Where `tests/servers` unpacks it; `None` if it is installed instead.
    fn folder(self) -> Option<PathBuf> {
        let name = match self {
            Kind::MariaDb10 => return None,
            Kind::MariaDb11 => "mariadb11",
            Kind::MySql9 => "mysql9",
        };
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = variable("SCHEMA_BACKUP_SERVERS")
            .map(PathBuf::from)
            .or_else(|| {
                let caches = variable("XDG_CACHE_HOME")
                    .map(PathBuf::from)
                    .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
                Some(caches.join("schema_backup/servers"))
            });
        Some(cache.unwrap_or_default().join(name))
    }

    /// Why there is none of this kind, if `tests/servers` found that it cannot be had.
    pub(super) fn why_missing(self) -> Option<String> {
        let said = std::fs::read_to_string(self.folder()?.with_extension("missing")).ok()?;
        Some(said.trim_end().to_owned())
    }

    /// An initialised data directory, made once per server version and kept with the build.
    /// `None` where there is no server of this kind.
    pub(super) fn template(self) -> Option<&'static Path> {
        static TEMPLATES: [OnceLock<Option<PathBuf>>; 3] = [const { OnceLock::new() }; 3];
        let template = TEMPLATES[self as usize].get_or_init(|| {
            let (server, _) = (self.server()?, self.client()?);
            let version = Command::new(&server)
                .args(["--no-defaults", "--version"])
                .output()
                .unwrap();
            // Its word for itself, without the path before and the build after.
            let version = String::from_utf8_lossy(&version.stdout);
            let (_, version) = version.split_once("Ver ").unwrap();
            let version = version.split_whitespace().next().unwrap();
            let kept =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("template-{self:?}-{version}"));
            if !kept.is_dir() {
                self.initialise(&server, &kept)?;
            }
            Some(kept)
        });
        template.as_deref()
    }

    /// Makes a data directory where nobody but `root` may connect, and `root` with a password.
    fn initialise(self, server: &Path, kept: &Path) -> Option<()> {
        let scratch = tempfile::Builder::new()
            .prefix("template.")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let (data, sql) = (scratch.path().join("data"), scratch.path().join("init.sql"));
        let root = ROOT_PASSWORD.replace('\'', "''");
        let password = format!("ALTER USER root@localhost IDENTIFIED BY '{root}';\n");
        let mut command;
        if self.is_mysql() {
            std::fs::write(&sql, password).unwrap();
            command = Command::new(server);
            command
                .args(base_options(&data))
                .arg("--initialize-insecure");
            command.args(self.options());
            command.arg(format!("--init-file={}", sql.display()));
        } else {
            let nobody = "DELETE FROM mysql.global_priv WHERE user = '';\nFLUSH PRIVILEGES;\n";
            std::fs::write(&sql, nobody.to_owned() + &password).unwrap();
            command = Command::new(self.program("mariadb-install-db")?);
            command.args(base_options(&data));
            command.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
            command.arg(format!("--extra-file={}", sql.display()));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        // Each server of MySQL's shall make up an identity of its own.
        std::fs::remove_file(data.join("auto.cnf")).ok();
        // Another test process may have been quicker; its directory is as good.
        std::fs::rename(data, kept).ok();
        assert!(kept.is_dir(), "cannot keep {}", kept.display());
        Some(())
    }
}

/// The options that every program of a server takes.
pub(super) fn base_options(data: &Path) -> Vec<String> {
    let mut options = vec![
        "--no-defaults".to_owned(),
        format!("--datadir={}", data.display()),
    ];
    // A server drops root's privileges unless told otherwise, and could not write here.
    if rustix::process::geteuid().is_root() {
        options.push("--user=root".to_owned());
    }
    options
}

/// Where an installed program is, also in the places that a user's PATH lacks.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
