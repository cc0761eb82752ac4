//! One snapshot over many connections. [`SnapshotPool`] is an r2d2 pool whose manager opens
//! exactly the connections of a run, brings them to one state, and is then sealed: it
//! refuses to connect again, so that a lost connection fails the run and can never silently
//! go on with newer data.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use crate::server::driver::Ask;
use mysql::Conn;
use r2d2::ManageConnection;
use r2d2_mysql::MySqlConnectionManager;

use super::connect::{Connector, cause, hint_for, query_error};
use super::consistency::{SnapshotInfo, SnapshotRequest, take_snapshot};
use super::lock::{ServerLock, Wait};
use super::rows::{Protocol, RowSource, Rows};
use super::wire::read_cell;
use crate::config::Consistency;
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

/// How long opening all connections may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);

/// A connection of the pool.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    encrypted: bool,
    broken: bool,
    /// The value of `character_set_results`.
    results: String,
}

/// Results come as they are stored, in no common character set.
const AS_STORED: &str = "NULL";

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
    /// leaves the session broken, and the pool will not hand it out again.
    pub fn read<T>(
        &mut self,
        query: &str,
        protocol: Protocol,
        interrupt: &Interrupt,
        read: impl FnOnce(&mut Rows<'_>) -> Result<T>,
    ) -> Result<T> {
        self.results_in(AS_STORED)?;
        self.broken = true;
        let mut rows = Rows::query(&mut self.conn, query, protocol, self.encrypted, interrupt)?;
        let value = read(&mut rows)?;
        drop(rows);
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
        match self.connector.try_connect() {
            Ok(conn) => Ok(Session {
                conn,
                encrypted: self.connector.is_encrypted(),
                broken: false,
                results: String::new(),
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
        let all_transactional = request.tables.values().all(|transactional| *transactional);
        let (info, lock) = take_snapshot(request, &mut sessions, all_transactional, &wait)?;
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

/// What a thread of ours returned; a panic is an error.
pub(super) fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread panicked")))
}
