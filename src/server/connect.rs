//! Opening connections: TLS modes, session settings, and what a server's refusal means.

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use mysql::{ClientIdentity, Conn, DriverError, Opts, OptsBuilder, SslOpts};

use super::driver::{Ask, guarded};
use super::line::{Line, Lines, TURN};
use crate::config::{ConnectionSettings, SslMode};
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

/// How long to wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for a connection that can be used. A server that takes connections and then
/// says nothing looks like this.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait until the server has ended a connection after an interrupt.
const KILL_PATIENCE: Duration = Duration::from_millis(1500);

/// The server keeps as many prepared statements as it may.
const TOO_MANY_PREPARED: u16 = 1461;

/// An error as the server stated it.
#[derive(Debug, Clone)]
pub struct ServerError {
    /// The server's error number.
    pub code: u16,
    /// The SQLSTATE.
    pub state: String,
    /// The server's words.
    pub message: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "server error {} ({}): {}",
            self.code, self.state, self.message
        )
    }
}

impl std::error::Error for ServerError {}

impl ServerError {
    /// The server's error number, where it was the server that refused.
    pub fn code_of(error: &Error) -> Option<u16> {
        let cause = std::error::Error::source(error)?.downcast_ref::<ServerError>();
        cause.map(|cause| cause.code)
    }
}

/// Opens connections to one server and database, all alike.
#[derive(Debug, Clone)]
pub struct Connector {
    options: Opts,
    encrypted: bool,
    lock_wait_timeout: Duration,
    interrupt: Interrupt,
    lines: Lines,
}

impl Connector {
    /// Finds out how to connect (whether the server offers TLS, in mode `preferred`) and
    /// opens a first connection. Soon after `interrupt` was raised all connections are shut
    /// down: no wait for the server outlasts it.
    pub fn open(
        settings: &ConnectionSettings,
        lock_wait_timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<(Connector, Line)> {
        let database = Some(settings.database.as_str());
        Self::open_in(settings, database, lock_wait_timeout, interrupt)
    }

    /// Like [`Connector::open`], but in no database: the one of `settings` need not exist.
    pub fn open_server(
        settings: &ConnectionSettings,
        lock_wait_timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<(Connector, Line)> {
        Self::open_in(settings, None, lock_wait_timeout, interrupt)
    }

    fn open_in(
        settings: &ConnectionSettings,
        database: Option<&str>,
        lock_wait_timeout: Duration,
        interrupt: &Interrupt,
    ) -> Result<(Connector, Line)> {
        let over_tcp = settings.socket.is_none();
        let mode = settings.tls.mode;
        if !over_tcp && !matches!(mode, SslMode::Disabled | SslMode::Preferred) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("ssl-mode {mode} cannot be had over a unix socket"),
            )
            .hint("name a host to connect over TCP, or use ssl-mode disabled"));
        }
        let tls = over_tcp && mode != SslMode::Disabled;
        let connector = Connector {
            options: options(settings, database, tls),
            encrypted: tls,
            lock_wait_timeout,
            interrupt: interrupt.clone(),
            lines: Lines::watched(interrupt)
                .map_err(|e| Error::new(ErrorKind::Internal, "cannot start a thread").because(e))?,
        };
        match connector.connect_raw() {
            Err(mysql::Error::DriverError(DriverError::TlsNotSupported))
                if mode == SslMode::Preferred =>
            {
                let connector = Connector {
                    options: options(settings, database, false),
                    encrypted: false,
                    ..connector
                };
                let conn = connector.connect()?;
                Ok((connector, conn))
            }
            Ok(mut conn) => {
                connector
                    .prepare_session(&mut conn)
                    .map_err(|e| connect_error(&connector.place(), e))?;
                Ok((connector, conn))
            }
            Err(error) => Err(connect_error(&connector.place(), error)),
        }
    }

    /// The same server, in `database`.
    pub fn at(&self, database: &str) -> Connector {
        let options = OptsBuilder::from_opts(self.options.clone()).db_name(Some(database));
        Connector {
            options: options.into(),
            ..self.clone()
        }
    }

    /// The same, for what has to be done after an interrupt: it ends none of these connections.
    pub fn apart(&self) -> Connector {
        Connector {
            interrupt: Interrupt::new(),
            lines: Lines::default(),
            ..self.clone()
        }
    }

    /// Opens another connection.
    pub fn connect(&self) -> Result<Line> {
        self.try_connect()
            .map_err(|e| connect_error(&self.place(), e))
    }

    /// Like [`Connector::connect`], with the driver's own error.
    pub(crate) fn try_connect(&self) -> Result<Line, mysql::Error> {
        let mut conn = self.connect_raw()?;
        self.prepare_session(&mut conn)?;
        Ok(conn)
    }

    /// The driver waits for a silent server without an end; so another thread does, and is left
    /// to itself when nobody waits any more.
    fn connect_raw(&self) -> Result<Line, mysql::Error> {
        let (sender, answer) = bounded(1);
        let options = self.options.clone();
        std::thread::Builder::new()
            .name("connect".into())
            .spawn(move || sender.send(guarded(|| Conn::new(options))))?;
        let deadline = Instant::now() + LOGIN_TIMEOUT;
        loop {
            match answer.recv_timeout(TURN) {
                Ok(conn) => return Ok(self.lines.add(conn?)?),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the thread that connects panicked").into());
                }
                Err(RecvTimeoutError::Timeout) if self.interrupt.is_raised() => {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted").into());
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    let what = format!("no answer within {} s", LOGIN_TIMEOUT.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, what).into());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Settings that every session of ours needs: statements in utf8mb4, values as stored,
    /// bounded waits for locks, no other limits on time. Variables that one product lacks are
    /// set only where they exist. Ranges of one index are not merged: MariaDB finds no rows by
    /// that where the last column of the key is descending.
    fn prepare_session(&self, conn: &mut Conn) -> Result<(), mysql::Error> {
        conn.query_drop("SET NAMES utf8mb4")?;
        conn.query_drop(format!(
            "SET SESSION sql_mode='ALLOW_INVALID_DATES', time_zone='+00:00', sql_quote_show_create=1, \
             sql_select_limit=DEFAULT, net_read_timeout=3600, net_write_timeout=3600, \
             wait_timeout=86400, optimizer_switch='index_merge=off', lock_wait_timeout={}",
            self.lock_wait_timeout.as_secs().max(1)
        ))?;
        conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
        let optional = [
            // MariaDB: no statement and no idle snapshot may be cut short.
            ("max_statement_time", "0"),
            ("idle_transaction_timeout", "0"),
            ("idle_readonly_transaction_timeout", "0"),
            // MySQL's name for it, and no cached statistics.
            ("max_execution_time", "0"),
            ("information_schema_stats_expiry", "0"),
            // MariaDB: statistics of its own are not looked for whenever a table is opened.
            ("use_stat_tables", "never"),
        ];
        for (name, value) in optional {
            match conn.query_drop(format!("SET SESSION {name}={value}")) {
                // Unknown system variable: the other product, or an older version.
                Err(mysql::Error::MySqlError(e)) if e.code == 1193 => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Ends a connection and what runs on it. The server does not notice by itself that nobody
    /// waits any more for a statement that waits for a lock: it would run it hours later. Of a
    /// server that does not answer in time nothing more can be had.
    pub fn kill(&self, number: u32) {
        let (sender, killed) = bounded(1);
        let connector = self.apart();
        std::thread::spawn(move || {
            let killed = connector.connect().and_then(|mut conn| {
                let done = conn.query_drop(format!("KILL CONNECTION {number}"));
                done.map_err(|e| query_error("KILL", e))
            });
            // Nobody listens any more to one that comes too late.
            let _ = sender.send(killed);
        });
        match killed.recv_timeout(KILL_PATIENCE) {
            Ok(Ok(())) => {}
            // One that has ended by itself is as well.
            Ok(Err(error)) => log::debug!("ending connection {number}: {error}"),
            Err(_) => {
                log::warn!("connection {number} may go on in the server, which does not answer")
            }
        }
    }

    /// Whether the connections are encrypted, so that their sockets cannot be read directly.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The driver's options, for the pool.
    pub(crate) fn options(&self) -> &Opts {
        &self.options
    }

    /// Where the server is, for messages.
    pub fn place(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => socket.to_owned(),
            None => format!(
                "{}:{}",
                self.options.get_ip_or_hostname(),
                self.options.get_tcp_port()
            ),
        }
    }
}

fn options(settings: &ConnectionSettings, database: Option<&str>, tls: bool) -> Opts {
    let mut builder = OptsBuilder::new()
        .user(Some(settings.user.clone()))
        .pass(settings.password.as_ref().map(|p| p.expose().to_owned()))
        .db_name(database)
        .prefer_socket(false)
        .stmt_cache_size(0)
        .tcp_connect_timeout(Some(CONNECT_TIMEOUT))
        .tcp_keepalive_time_ms(Some(30_000))
        .tcp_keepalive_probe_interval_secs(Some(10))
        .tcp_keepalive_probe_count(Some(6));
    builder = match &settings.socket {
        Some(socket) => builder.socket(Some(socket.to_string_lossy().into_owned())),
        None => builder
            .ip_or_hostname(Some(
                settings.host.clone().unwrap_or_else(|| "127.0.0.1".into()),
            ))
            .tcp_port(settings.port),
    };
    if tls {
        let mode = settings.tls.mode;
        let mut ssl = SslOpts::default()
            .with_danger_accept_invalid_certs(matches!(
                mode,
                SslMode::Preferred | SslMode::Required
            ))
            .with_danger_skip_domain_validation(mode != SslMode::VerifyIdentity)
            .with_root_cert_path(settings.tls.ca.clone());
        if let (Some(cert), Some(key)) = (&settings.tls.cert, &settings.tls.key) {
            ssl = ssl.with_client_identity(Some(ClientIdentity::new(cert.clone(), key.clone())));
        }
        builder = builder.ssl_opts(ssl);
    }
    builder.into()
}

/// What the server or the driver said, as a cause to hang below an [`Error`].
pub fn cause(error: mysql::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        mysql::Error::MySqlError(e) => Box::new(ServerError {
            code: e.code,
            state: e.state,
            message: e.message,
        }),
        mysql::Error::IoError(e) => Box::new(e),
        mysql::Error::CodecError(e) => format!("lost the connection to the server: {e}").into(),
        mysql::Error::DriverError(e) => e.to_string().into(),
        mysql::Error::TlsError(e) => format!("TLS: {e}").into(),
        other => other.to_string().into(),
    }
}

/// The same error without the server's words, for what is sent with rows in it: the server quotes
/// the statement, or a value of it (`Duplicate entry 'secret' for key …`). What these errors mean
/// is said in our words, and those that quote nothing keep theirs.
pub fn without_values(error: Error) -> Error {
    let said = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
    let Some(said): Option<ServerError> = said.cloned() else {
        return error;
    };
    let message = match said.code {
        // Disk full, out of memory, read-only, privileges, locks, limits of time and size, tables
        // that are gone, crashed or full: these name things of the server and of the catalog.
        1021 | 1030 | 1036 | 1037 | 1038 | 1040 | 1041 | 1044 | 1045 | 1053 | 1094 | 1114
        | 1142 | 1143 | 1146 | 1153 | 1180 | 1194 | 1195 | 1205 | 1206 | 1213 | 1227 | 1290
        | 1317 | 1412 | 1436 | TOO_MANY_PREPARED | 1785 | 1792 | 1927 | 1969 | 3024 | 4031 => {
            return error;
        }
        1022 | 1062 | 1169 | 1586 => "a row has the key of another one",
        1048 | 1364 => "a column that must have a value has none",
        1054 => "a column is unknown",
        1064 | 1149 => "the statement is not understood",
        1136 => "a row has another number of columns",
        1216 | 1452 => "a row refers to one that is not there",
        1264 | 1690 => "a value is out of the range of its column",
        1265 | 1406 => "a value is too long for its column",
        1292 | 1366 | 1367 | 1411 | 1525 => "a value is none of its column's type",
        3819 | 4025 => "a row breaks a CHECK constraint",
        _ => "its words may quote rows, and are left out",
    };
    let message = message.to_owned();
    error.because_boxed(Box::new(ServerError { message, ..said }))
}

/// A query of ours that failed while the run was under way.
pub fn query_error(doing: &str, error: mysql::Error) -> Error {
    let code = match &error {
        mysql::Error::MySqlError(e) => e.code,
        _ => 0,
    };
    let error = Error::new(kind_of(code), doing).because_boxed(cause(error));
    match hint_for(code) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn connect_error(place: &str, error: mysql::Error) -> Error {
    if matches!(&error, mysql::Error::IoError(e) if e.kind() == io::ErrorKind::Interrupted) {
        return Error::interrupted();
    }
    let code = match &error {
        mysql::Error::MySqlError(e) => e.code,
        _ => 0,
    };
    let hint = hint_for(code).map(str::to_owned).or_else(|| match &error {
        mysql::Error::DriverError(DriverError::TlsNotSupported) => {
            Some("the server offers no TLS; use --ssl-mode preferred or disabled".into())
        }
        // What MySQL answers for users that it does not know.
        mysql::Error::DriverError(DriverError::UnknownAuthPlugin(_)) => {
            Some("check the user name; a user that exists needs another plugin".into())
        }
        mysql::Error::TlsError(_) => {
            Some("name the server's certificate authority with --ssl-ca".into())
        }
        mysql::Error::IoError(_) | mysql::Error::DriverError(_) => {
            Some("is the server running, and reachable at this address?".into())
        }
        _ => None,
    });
    let error = Error::new(ErrorKind::Connect, format!("cannot connect to {place}"))
        .because_boxed(cause(error));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What an error number means for the run.
pub(crate) fn kind_of(code: u16) -> ErrorKind {
    match code {
        // Access denied, in its many forms; unknown database; password expired; no privilege.
        1044 | 1045 | 1049 | 1130 | 1142 | 1143 | 1227 | 1370 | 1698 | 1820 | 1862 => {
            ErrorKind::Connect
        }
        _ => ErrorKind::Failed,
    }
}

/// What the user can do about an error number.
pub(crate) fn hint_for(code: u16) -> Option<&'static str> {
    Some(match code {
        1045 | 1698 => "check the user name and the password, and from which file they came",
        1044 | 1142 | 1143 | 1227 | 1370 => "grant the privilege to the user",
        1049 => "check the database name",
        1130 => "the server does not let this host connect as this user",
        1820 | 1862 => "the password has expired: set a new one with ALTER USER",
        1040 | 1203 => "too many connections: use fewer threads (-j) or raise max_connections",
        TOO_MANY_PREPARED => {
            "other sessions keep statements prepared: raise max_prepared_stmt_count on the server"
        }
        1418 | 1419 => "SET GLOBAL log_bin_trust_function_creators=1 on the server for the restore",
        1205 => "something holds a lock; see SHOW PROCESSLIST",
        1213 => "other sessions' locks and this one's waited for each other: run again",
        1412 | 1146 | 1054 => "a table was altered during the run: run again when no DDL runs",
        1969 | 3024 => "a statement time limit ended the query",
        _ => return None,
    })
}
