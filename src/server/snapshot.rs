//! One snapshot over many connections. [`SnapshotPool`] is an r2d2 pool whose manager hands out
//! exactly the connections that were opened for the run and brought to one state. It is sealed:
//! it never connects by itself, so that a lost connection fails the run and can never silently
//! go on with newer data.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mysql::Conn;
use r2d2::ManageConnection;
use r2d2_mysql::MySqlConnectionManager;

use super::connect::{Connector, ServerError, cause, hint_for, query_error, without_values};
use super::consistency::{SnapshotInfo, SnapshotRequest, take_snapshot};
use super::driver::Ask;
use super::execute::execute;
use super::line::Line;
use super::lock::{ServerLock, Wait};
use super::rows::{Protocol, RowSource, Rows};
use super::wire::{BUFFER, read_cell};
use super::{join, quote_identifier};
use crate::config::Consistency;
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

/// How long the server may have too many connections.
const CROWD_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for a session that the pool should have: it was opened before.
const HAND_OUT_PATIENCE: Duration = Duration::from_secs(10);

/// Hangs up when what reads the rows panics.
struct AtPanic<'a>(&'a dyn Fn());

impl Drop for AtPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

/// A connection of the pool.
#[derive(Debug)]
pub struct Session {
    conn: Line,
    encrypted: bool,
    broken: bool,
    /// The value of `character_set_results`.
    results: String,
}

/// Results come as they are stored, in no common character set.
const AS_STORED: &str = "NULL";

/// Where each transaction stands right after the snapshot was taken.
const SAVEPOINT: &str = "schema_backup";

impl Session {
    /// The connection, with results converted to `charset` (a name, or `NULL` for none).
    pub fn results_in(&mut self, charset: &str) -> Result<&mut Conn> {
        if self.results != charset {
            self.conn
                .query_drop(format!("SET character_set_results={charset}"))
                .map_err(|e| query_error("cannot set the character set of results", e))?;
            charset.clone_into(&mut self.results);
        }
        Ok(&mut self.conn)
    }

    /// Runs `query` and lets `read` take all its rows, with values as they are stored. A `read` that fails or stops early
    /// leaves the session broken, and the pool will not hand it out again. An error quotes nothing:
    /// bounds in the query are values of rows.
    pub fn read<T>(
        &mut self,
        query: &str,
        protocol: Protocol,
        interrupt: &Interrupt,
        read: impl FnOnce(&mut Rows<'_>) -> Result<T>,
    ) -> Result<T> {
        self.results_in(AS_STORED)?;
        self.broken = true;
        let value = if self.encrypted {
            let by_driver = |conn: &mut Conn, hang_up: &dyn Fn()| {
                let mut rows = Rows::query(conn, query, protocol, true, interrupt)?;
                // Dropped before the last row, they would be read to the end.
                let _at_panic = AtPanic(hang_up);
                let value = read(&mut rows).inspect_err(|_| hang_up())?;
                if let Some(statement) = rows.into_statement() {
                    conn.close(statement)
                        .map_err(|e| query_error("cannot close a statement", e))?;
                }
                Ok(value)
            };
            let value = self.conn.watched(interrupt, || {}, by_driver);
            // What the driver says of a socket that was shut down is not what happened.
            value.or_else(|error| interrupt.check().and(Err(error)))
        } else {
            Rows::query(&mut self.conn, query, protocol, false, interrupt)
                .and_then(|mut rows| read(&mut rows))
        };
        let value = value.map_err(without_values)?;
        self.broken = false;
        Ok(value)
    }

    /// The cells of the only row of a query; `None` when there is no row.
    pub fn read_one(
        &mut self,
        query: &str,
        interrupt: &Interrupt,
    ) -> Result<Option<Vec<Option<Vec<u8>>>>> {
        self.read(query, Protocol::Text, interrupt, |rows| {
            let columns = rows.columns();
            let mut cells = None;
            while let Some(row) = rows.next_row()? {
                let mut rest = row;
                let read =
                    (0..columns).map(|_| read_cell(&mut rest).map(|cell| cell.map(<[u8]>::to_vec)));
                cells = read.collect();
            }
            Ok(cells)
        })
    }

    /// Declares that nothing here is for the binary log. MariaDB with that on lets go of tables
    /// before the end of a transaction in such sessions only. They take a privilege; without it,
    /// tables are kept until the end.
    fn log_nothing(&mut self) {
        if let Err(error) = self.conn.query_drop("SET SESSION sql_log_bin=0") {
            log::debug!("tables are kept until the end if the binary log is on: {error}");
        }
    }

    /// Keeps DDL away from a table from now on, as reading it does, if that can be had within a
    /// second: not where DDL waits already for another session.
    pub fn try_keep(&mut self, table: &str) -> Result<bool> {
        const LOCK_WAIT_TIMEOUT: u16 = 1205;
        let mut run = |statement: &str| self.conn.query_drop(statement);
        let failed = |e| query_error("cannot look at the table", e);
        run("SET @patience = @@lock_wait_timeout, lock_wait_timeout = 1").map_err(failed)?;
        let kept = run(&format!(
            "SELECT 1 FROM {} LIMIT 0",
            quote_identifier(table)
        ));
        run("SET lock_wait_timeout = @patience").map_err(failed)?;
        match kept {
            Err(mysql::Error::MySqlError(e)) if e.code == LOCK_WAIT_TIMEOUT => Ok(false),
            kept => kept.map(|()| true).map_err(failed),
        }
    }

    /// Lets go of the tables that were read so far, and not of the snapshot: DDL on them need
    /// not wait any more. Until then the server keeps it away from them.
    pub fn release_tables(&mut self) -> Result<()> {
        self.conn
            .query_drop(format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}"))
            .map_err(|e| query_error("cannot release the tables read", e))
    }

    /// The whole part of the only number that a query gives.
    pub fn read_number(&mut self, query: &str, interrupt: &Interrupt) -> Result<u64> {
        let cells = self.read_one(query, interrupt)?;
        let text = cells.and_then(|mut cells| cells.pop().flatten());
        std::str::from_utf8(&text.unwrap_or_default())
            .ok()
            .and_then(|text| text.split('.').next()?.parse().ok())
            .ok_or_else(|| Error::new(ErrorKind::Failed, "the server sent no number"))
    }
}

impl Deref for Session {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// Hands out the sessions that were opened before, and never opens one.
#[derive(Debug)]
pub struct SealedManager {
    inner: MySqlConnectionManager,
    opened: Mutex<Vec<Session>>,
}

/// Why the manager has no session to give.
#[derive(Debug)]
pub struct NoSession(&'static str);

impl std::fmt::Display for NoSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NoSession {}

impl ManageConnection for SealedManager {
    type Connection = Session;
    type Error = NoSession;

    fn connect(&self) -> Result<Session, NoSession> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.pop().ok_or(NoSession(
            "the snapshot is sealed: a lost connection is not replaced",
        ))
    }

    fn is_valid(&self, session: &mut Session) -> Result<(), NoSession> {
        self.inner
            .is_valid(&mut session.conn)
            .map_err(|_| NoSession("the connection is lost"))
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.broken
    }
}

/// Sessions that all see one state of the database.
#[derive(Debug)]
pub struct SnapshotPool {
    pool: r2d2::Pool<SealedManager>,
    info: SnapshotInfo,
    /// Held until the tables without transactions have been read.
    write_lock: Option<ServerLock>,
    /// Held for the whole run: keeps DDL away (MySQL).
    _instance_lock: Option<ServerLock>,
}

/// A session borrowed from the pool.
pub type PooledSession = r2d2::PooledConnection<SealedManager>;

impl SnapshotPool {
    /// Opens the connections and brings them to one state, by the first way that the server
    /// and the privileges allow, or refuses.
    pub fn open(request: &SnapshotRequest<'_>, interrupt: &Interrupt) -> Result<SnapshotPool> {
        let pool = open_pool(request, interrupt)?;
        let mut sessions = (0..request.threads)
            .map(|_| {
                pool.get().map_err(|e| {
                    Error::new(ErrorKind::Connect, "cannot open all connections").because(e)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let wait = Wait {
            connector: request.connector,
            interrupt,
            ours: sessions
                .iter()
                .map(|session| session.connection_id())
                .collect(),
        };
        // DDL that waits for the instance lock keeps FLUSH TABLES WITH READ LOCK waiting, so that
        // comes first; under it no DDL is under way. Under table locks some may be.
        let under_global_lock =
            request.consistency != Consistency::TableLocks && request.privileges.globally("RELOAD");
        let mut instance = None;
        if !under_global_lock {
            instance = instance_lock(request, &wait)?;
        }
        for session in &mut sessions {
            session.log_nothing();
        }
        let all_transactional = request.tables.values().all(|transactional| *transactional);
        let (info, lock) = take_snapshot(request, &mut sessions, all_transactional, &wait)?;
        for session in &mut sessions {
            session
                .query_drop(format!("SAVEPOINT {SAVEPOINT}"))
                .map_err(|e| query_error("cannot open the snapshot", e))?;
        }
        if under_global_lock {
            instance = instance_lock(request, &wait)?;
        }
        let write_lock = match lock {
            Some(lock) if all_transactional => {
                lock.release()?;
                None
            }
            lock => lock,
        };
        drop(sessions);
        Ok(SnapshotPool {
            pool,
            info,
            write_lock,
            _instance_lock: instance,
        })
    }

    /// How the snapshot came about.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Connections in the pool.
    pub fn size(&self) -> usize {
        self.pool.max_size() as usize
    }

    /// Borrows a session; fails at once when one was lost.
    pub fn session(&self) -> Result<PooledSession> {
        self.pool.get().map_err(|_| {
            Error::new(ErrorKind::Failed, "a connection of the snapshot was lost")
                .hint("see the server's error log; run again")
        })
    }

    /// Applies `work` to each of `items` over all sessions at once. Results come in the order
    /// of the items; the first error stops the rest. In the end no session keeps DDL away from
    /// what was looked at.
    pub fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        interrupt: &Interrupt,
        work: impl Fn(&mut Session, &T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let work_off = |session: Result<PooledSession>| -> Result<Vec<(usize, R)>> {
            let mut session = session?;
            let mut results = Vec::new();
            while !failed.load(Ordering::Relaxed) {
                interrupt.check()?;
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { break };
                results.push((at, work(&mut session, item)?));
            }
            session.release_tables()?;
            Ok(results)
        };
        let workers = self.size().min(items.len());
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|_| {
                    scope.spawn(|| {
                        work_off(self.session())
                            .inspect_err(|_| failed.store(true, Ordering::Relaxed))
                    })
                })
                .collect();
            threads.into_iter().map(join).collect()
        });
        let mut results = Vec::with_capacity(items.len());
        for outcome in outcomes {
            results.extend(outcome?);
        }
        results.sort_by_key(|(at, _)| *at);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    /// Lets writers of tables without transactions go on.
    pub fn release_lock(&mut self) -> Result<()> {
        self.write_lock.take().map_or(Ok(()), ServerLock::release)
    }
}

fn open_pool(
    request: &SnapshotRequest<'_>,
    interrupt: &Interrupt,
) -> Result<r2d2::Pool<SealedManager>> {
    let opened = (0..request.threads)
        .map(|_| open_session(request, interrupt))
        .collect::<Result<Vec<_>>>()?;
    let options = mysql::OptsBuilder::from_opts(request.connector.options().clone());
    let manager = SealedManager {
        inner: MySqlConnectionManager::new(options),
        opened: Mutex::new(opened),
    };
    r2d2::Pool::builder()
        .max_size(u32::try_from(request.threads).unwrap_or(u32::MAX))
        .test_on_check_out(false)
        .max_lifetime(None)
        .idle_timeout(None)
        .connection_timeout(HAND_OUT_PATIENCE)
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build(manager)
        .map_err(|e| Error::new(ErrorKind::Internal, "cannot make the pool").because(e))
}

/// Opens one of the connections. That the server has too many may be over in a moment.
fn open_session(request: &SnapshotRequest<'_>, interrupt: &Interrupt) -> Result<Session> {
    let deadline = Instant::now() + CROWD_PATIENCE;
    loop {
        interrupt.check()?;
        match request.connector.try_connect() {
            Ok(mut conn) => {
                send_in_large_pieces(&mut conn, request.connector, interrupt)?;
                return Ok(Session {
                    conn,
                    encrypted: request.connector.is_encrypted(),
                    broken: false,
                    results: String::new(),
                });
            }
            Err(mysql::Error::MySqlError(e)) if is_crowded(e.code) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => {
                interrupt.check()?;
                let code = match &error {
                    mysql::Error::MySqlError(e) => e.code,
                    _ => 0,
                };
                let message = format!("cannot open {} connections", request.threads);
                return Err(Error::new(ErrorKind::Connect, message)
                    .because_boxed(cause(error))
                    .hint(hint_for(code).unwrap_or("use fewer threads (-j)")));
            }
        }
    }
}

/// Makes the server send this connection's rows in large pieces. It collects them in a buffer of
/// 16 KiB, the size of which no session may set, but the longest statement received makes it grow,
/// and it stays so. With that, reading 9 million rows takes the server half the system time.
fn send_in_large_pieces(
    conn: &mut Line,
    connector: &Connector,
    interrupt: &Interrupt,
) -> Result<()> {
    let longest: Option<usize> = conn
        .query_first("SELECT @@max_allowed_packet")
        .map_err(|e| query_error("cannot prepare a session", e))?;
    if longest.is_none_or(|longest| longest < 2 * BUFFER) {
        return Ok(());
    }
    // The server takes the spaces off before it does anything with it.
    let statement = format!("DO 0{}", " ".repeat(BUFFER));
    match execute(conn, statement.as_bytes(), connector, interrupt) {
        // Somebody between does not let it through: it goes on as it would without.
        Err(error) if ServerError::code_of(&error).is_some() => {
            log::debug!("rows come in small pieces: {error}");
            Ok(())
        }
        done => done,
    }
}

/// Too many connections: of all users, of this one, of this one in the hour.
fn is_crowded(code: u16) -> bool {
    matches!(code, 1040 | 1203 | 1226)
}

fn instance_lock(request: &SnapshotRequest<'_>, wait: &Wait<'_>) -> Result<Option<ServerLock>> {
    if request.flavor.is_mariadb()
        || request.flavor.version < (8, 0, 0)
        || !request.privileges.globally("BACKUP_ADMIN")
        || request.consistency == Consistency::None
    {
        return Ok(None);
    }
    ServerLock::instance(wait).map(Some)
}
