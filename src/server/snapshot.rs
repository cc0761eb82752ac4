//! One snapshot over many connections. [`SnapshotPool`] is an r2d2 pool whose manager opens
//! exactly the connections of a run, brings them to one state, and is then sealed: it
//! refuses to connect again, so that a lost connection fails the run and can never silently
//! go on with newer data.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use mysql::Conn;
use mysql::prelude::Queryable;
use r2d2::ManageConnection;
use r2d2_mysql::MySqlConnectionManager;

use super::connect::{Connector, cause, hint_for, query_error};
use super::flavor::Flavor;
use super::lock::{ServerLock, Wait};
use super::privileges::Privileges;
use super::rows::Rows;
use crate::config::Consistency;
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

/// How long the lock-free way may try before the next way's turn.
const BINLOG_PATIENCE: Duration = Duration::from_secs(15);
/// How long opening all connections may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);

/// What the pool needs to know.
pub struct SnapshotRequest<'a> {
    /// Opens connections.
    pub connector: &'a Connector,
    /// The server.
    pub flavor: &'a Flavor,
    /// What the user may do.
    pub privileges: &'a Privileges,
    /// Connections to open.
    pub threads: usize,
    /// Which way to go.
    pub consistency: Consistency,
    /// Bound of every wait for a lock.
    pub lock_wait_timeout: Duration,
    /// The tables whose data will be read, with whether they are transactional.
    pub tables: &'a BTreeMap<String, bool>,
}

/// Where the snapshot stands and how it came about.
#[derive(Debug, Clone)]
pub struct SnapshotInfo {
    /// The way that was taken.
    pub way: Consistency,
    /// Positions by name: `binlog_file`, `binlog_position`, `gtid`.
    pub position: BTreeMap<String, String>,
}

impl SnapshotInfo {
    /// In one line.
    pub fn describe(&self) -> String {
        let way = match self.way {
            Consistency::Binlog => "lock-free, by binary log position",
            Consistency::GlobalLock => "under a short global lock",
            Consistency::TableLocks => "under table locks",
            Consistency::None | Consistency::Auto => "NOT consistent: each connection has its own",
        };
        let position: Vec<_> = self
            .position
            .iter()
            .map(|(k, v)| format!("{k} {v}"))
            .collect();
        if position.is_empty() {
            way.to_owned()
        } else {
            format!("{way}; {}", position.join(", "))
        }
    }
}

/// A connection of the pool. Results come as they are stored, in no common character set.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    encrypted: bool,
    broken: bool,
}

impl Session {
    /// Runs `query` and lets `read` take all its rows. A `read` that fails or stops early
    /// leaves the session broken, and the pool will not hand it out again.
    pub fn read<T>(
        &mut self,
        query: &str,
        interrupt: &Interrupt,
        read: impl FnOnce(&mut Rows<'_>) -> Result<T>,
    ) -> Result<T> {
        self.broken = true;
        let mut rows = Rows::query(&mut self.conn, query, self.encrypted, interrupt)?;
        let value = read(&mut rows)?;
        drop(rows);
        self.broken = false;
        Ok(value)
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

/// Runs `work` with results converted to `charset`, on a session of the pool, whose results
/// otherwise come as they are stored.
pub fn with_results_in<T>(
    conn: &mut Conn,
    charset: &str,
    work: impl FnOnce(&mut Conn) -> Result<T>,
) -> Result<T> {
    let set = |conn: &mut Conn, charset: &str| {
        conn.query_drop(format!("SET character_set_results={charset}"))
            .map_err(|e| query_error("cannot set the character set of results", e))
    };
    set(conn, charset)?;
    let value = work(conn)?;
    set(conn, "NULL")?;
    Ok(value)
}

/// Opens sessions until it is sealed.
#[derive(Debug)]
pub struct SealedManager {
    inner: MySqlConnectionManager,
    connector: Connector,
    sealed: Arc<AtomicBool>,
    last_error: Arc<Mutex<Option<mysql::Error>>>,
}

/// Why the manager opened no session.
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
        if self.sealed.load(Ordering::SeqCst) {
            return Err(NoSession(
                "the snapshot is sealed: a lost connection is not replaced",
            ));
        }
        let connected = self.connector.try_connect().and_then(|mut conn| {
            conn.query_drop("SET character_set_results=NULL")?;
            Ok(conn)
        });
        match connected {
            Ok(conn) => Ok(Session {
                conn,
                encrypted: self.connector.is_encrypted(),
                broken: false,
            }),
            Err(error) => {
                *self
                    .last_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(NoSession("cannot connect"))
            }
        }
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
        let sealed = Arc::new(AtomicBool::new(false));
        let pool = open_pool(request, Arc::clone(&sealed))?;
        let mut sessions = (0..request.threads)
            .map(|_| {
                pool.get().map_err(|e| {
                    Error::new(ErrorKind::Connect, "cannot open all connections").because(e)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        sealed.store(true, Ordering::SeqCst);
        let wait = Wait {
            connector: request.connector,
            timeout: request.lock_wait_timeout,
            interrupt,
            ours: sessions
                .iter()
                .map(|session| session.connection_id())
                .collect(),
        };
        let instance_lock = instance_lock(request, &wait)?;
        let all_transactional = request.tables.values().all(|transactional| *transactional);
        let (info, lock) = take_snapshot(request, &mut sessions, all_transactional, &wait)?;
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
            _instance_lock: instance_lock,
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
    /// of the items; the first error stops the rest.
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
    sealed: Arc<AtomicBool>,
) -> Result<r2d2::Pool<SealedManager>> {
    let last_error = Arc::new(Mutex::new(None));
    let connector = request.connector.clone();
    let manager = SealedManager {
        inner: MySqlConnectionManager::new(mysql::OptsBuilder::from_opts(
            connector.options().clone(),
        )),
        connector,
        sealed: Arc::clone(&sealed),
        last_error: Arc::clone(&last_error),
    };
    let threads = u32::try_from(request.threads).unwrap_or(u32::MAX);
    r2d2::Pool::builder()
        .max_size(threads)
        .test_on_check_out(false)
        .max_lifetime(None)
        .idle_timeout(None)
        .connection_timeout(OPEN_PATIENCE)
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build(manager)
        .map_err(|_| {
            sealed.store(true, Ordering::SeqCst);
            let error = last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let code = match &error {
                Some(mysql::Error::MySqlError(e)) => e.code,
                _ => 0,
            };
            let message = format!("cannot open {threads} connections");
            let refused = Error::new(ErrorKind::Connect, message);
            let refused = match error {
                Some(error) => refused.because_boxed(cause(error)),
                None => refused,
            };
            refused.hint(hint_for(code).unwrap_or("use fewer threads (-j)"))
        })
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

/// Tries the ways in order. The lock, if one was needed, is still held on return.
fn take_snapshot(
    request: &SnapshotRequest<'_>,
    sessions: &mut [PooledSession],
    all_transactional: bool,
    wait: &Wait<'_>,
) -> Result<(SnapshotInfo, Option<ServerLock>)> {
    let asked = |way| request.consistency == Consistency::Auto || request.consistency == way;
    let mut obstacles = Vec::new();
    if asked(Consistency::Binlog) {
        match binlog_obstacle(request, sessions, all_transactional)? {
            Some(obstacle) => obstacles.push(format!("binlog: {obstacle}")),
            None => match agree_on_position(sessions, wait.interrupt)? {
                Some(position) => {
                    return Ok((
                        SnapshotInfo {
                            way: Consistency::Binlog,
                            position,
                        },
                        None,
                    ));
                }
                None => obstacles.push(format!(
                    "binlog: the connections did not meet at one position within {} s",
                    BINLOG_PATIENCE.as_secs()
                )),
            },
        }
    }
    if asked(Consistency::GlobalLock) {
        if request.privileges.globally("RELOAD") {
            let lock = ServerLock::global(request.flavor, all_transactional, wait)?;
            let position = start_under_lock(request, sessions)?;
            return Ok((
                SnapshotInfo {
                    way: Consistency::GlobalLock,
                    position,
                },
                Some(lock),
            ));
        }
        obstacles.push("global-lock: the privilege RELOAD is missing".into());
    }
    if asked(Consistency::TableLocks) {
        if request.privileges.on_database("LOCK TABLES") {
            let tables = request.tables.keys().map(String::as_str);
            let lock = ServerLock::tables(tables, wait)?;
            let position = start_under_lock(request, sessions)?;
            return Ok((
                SnapshotInfo {
                    way: Consistency::TableLocks,
                    position,
                },
                Some(lock),
            ));
        }
        obstacles.push("table-locks: the privilege LOCK TABLES is missing".into());
    }
    if request.consistency == Consistency::None {
        start_all(sessions)?;
        return Ok((
            SnapshotInfo {
                way: Consistency::None,
                position: BTreeMap::new(),
            },
            None,
        ));
    }
    Err(Error::new(
        ErrorKind::Snapshot,
        format!(
            "no consistent snapshot can be had ({})",
            obstacles.join("; ")
        ),
    )
    .hint(
        "grant RELOAD on *.* or LOCK TABLES on the database to the backup user, or enable the \
             binary log (MariaDB); --consistency none goes on without, and says so in the backup",
    ))
}

/// Why binary log positions cannot prove one state, if so.
fn binlog_obstacle(
    request: &SnapshotRequest<'_>,
    sessions: &mut [PooledSession],
    all_transactional: bool,
) -> Result<Option<String>> {
    if !request.flavor.is_mariadb() {
        return Ok(Some(
            "only MariaDB states the position of a snapshot".into(),
        ));
    }
    if !all_transactional {
        return Ok(Some("tables without transactions need a lock".into()));
    }
    let session = &mut sessions[0];
    let failed = |e| query_error("cannot read the binary log's settings", e);
    if session
        .query_first::<bool, _>("SELECT @@log_bin")
        .map_err(failed)?
        != Some(true)
    {
        return Ok(Some("the binary log is off".into()));
    }
    // A replica that does not log what it applies changes data without moving the position.
    let logs_updates: Option<bool> = session
        .query_first("SELECT @@log_slave_updates")
        .map_err(failed)?;
    let replicas: Option<(String, u64)> = session
        .query_first("SHOW GLOBAL STATUS LIKE 'Slaves_running'")
        .map_err(failed)?;
    if logs_updates != Some(true) && replicas.is_some_and(|(_, running)| running > 0) {
        return Ok(Some(
            "this replica does not log what it applies (log_slave_updates)".into(),
        ));
    }
    // So does a database that the binary log leaves out; only privileged users can see that.
    type Row = (String, u64, String, String);
    if let Ok(Some((_, _, only, without))) = session.query_first::<Row, _>("SHOW MASTER STATUS")
        && !(only.is_empty() && without.is_empty())
    {
        return Ok(Some(
            "the binary log leaves databases out (binlog_do_db, binlog_ignore_db)".into(),
        ));
    }
    Ok(None)
}

const START: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// Starts all transactions at the same moment, again and again, until all state the same
/// binary log position; `None` when patience runs out.
fn agree_on_position(
    sessions: &mut [PooledSession],
    interrupt: &Interrupt,
) -> Result<Option<BTreeMap<String, String>>> {
    let deadline = Instant::now() + BINLOG_PATIENCE;
    for round in 1.. {
        interrupt.check()?;
        let barrier = Barrier::new(sessions.len());
        let positions = std::thread::scope(|scope| {
            let threads: Vec<_> = sessions
                .iter_mut()
                .map(|session| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        session
                            .query_drop(START)
                            .map_err(|e| query_error("cannot open the snapshot", e))?;
                        binlog_position(session)
                    })
                })
                .collect();
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        if positions.windows(2).all(|pair| pair[0] == pair[1]) {
            log::debug!("snapshot: all connections at one position after {round} rounds");
            let mut position = positions.into_iter().next().unwrap_or_default();
            if let Some(gtid) = gtid_of(&mut sessions[0], &position) {
                position.insert("gtid".into(), gtid);
            }
            return Ok(Some(position));
        }
        if Instant::now() > deadline {
            break;
        }
    }
    Ok(None)
}

/// The binary log position of the session's own snapshot (MariaDB).
fn binlog_position(session: &mut Conn) -> Result<BTreeMap<String, String>> {
    let status: Vec<(String, String)> =
        session
            .query("SHOW STATUS LIKE 'Binlog\\_snapshot\\_%'")
            .map_err(|e| query_error("cannot read the snapshot's position", e))?;
    let mut position = BTreeMap::new();
    for (name, value) in status {
        match name.to_ascii_lowercase().as_str() {
            "binlog_snapshot_file" => position.insert("binlog_file".to_owned(), value),
            "binlog_snapshot_position" => position.insert("binlog_position".to_owned(), value),
            _ => None,
        };
    }
    if position.len() == 2 {
        Ok(position)
    } else {
        Err(Error::new(
            ErrorKind::Snapshot,
            "the server does not state the snapshot's position",
        ))
    }
}

fn gtid_of(session: &mut Conn, position: &BTreeMap<String, String>) -> Option<String> {
    let file = super::quote_string(position.get("binlog_file")?);
    let offset = position.get("binlog_position")?;
    let query = format!("SELECT BINLOG_GTID_POS({file}, {offset})");
    session
        .query_first::<Option<String>, _>(query)
        .ok()??
        .filter(|gtid| !gtid.is_empty())
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread panicked")))
}

fn start_all(sessions: &mut [PooledSession]) -> Result<()> {
    for session in sessions {
        session
            .query_drop(START)
            .map_err(|e| query_error("cannot open the snapshot", e))?;
    }
    Ok(())
}

/// Starts all transactions while a lock keeps the data still, and takes down the position
/// where the user may see it.
fn start_under_lock(
    request: &SnapshotRequest<'_>,
    sessions: &mut [PooledSession],
) -> Result<BTreeMap<String, String>> {
    start_all(sessions)?;
    let session = &mut sessions[0];
    let log_bin = session
        .query_first::<bool, _>("SELECT @@log_bin")
        .ok()
        .flatten()
        == Some(true);
    if !log_bin {
        return Ok(BTreeMap::new());
    }
    if request.flavor.is_mariadb() {
        let mut position = binlog_position(session)?;
        if let Some(gtid) = gtid_of(session, &position) {
            position.insert("gtid".into(), gtid);
        }
        return Ok(position);
    }
    let statement = if request.flavor.version >= (8, 2, 0) {
        "SHOW BINARY LOG STATUS"
    } else {
        "SHOW MASTER STATUS"
    };
    type Row = (String, u64, String, String, String);
    let mut position = BTreeMap::new();
    if let Ok(Some((file, offset, _, _, gtid))) = session.query_first::<Row, _>(statement) {
        position.insert("binlog_file".to_owned(), file);
        position.insert("binlog_position".to_owned(), offset.to_string());
        if !gtid.is_empty() {
            position.insert("gtid".to_owned(), gtid.replace('\n', ""));
        }
    }
    Ok(position)
}
