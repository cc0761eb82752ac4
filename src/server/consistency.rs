//! The ways to one state over many connections, in the order in which they are tried: by
//! binary log position without a lock, under a short global lock, under table locks. If none
//! is possible the run is refused.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use mysql::Conn;

use super::connect::{Connector, query_error};
use super::driver::Ask;
use super::flavor::Flavor;
use super::join;
use super::lock::{ServerLock, Wait};
use super::privileges::Privileges;
use super::snapshot::PooledSession;
use crate::config::Consistency;
use crate::error::{Error, ErrorKind, Result};
use crate::interrupt::Interrupt;

/// How long the lock-free way may try before the next way's turn.
const BINLOG_PATIENCE: Duration = Duration::from_secs(15);
/// How often in a row a session must state the same position, and how often it is asked at
/// most: see [`binlog_position`].
const READINGS: usize = 5;
const READINGS_AT_MOST: usize = 500;

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

/// Tries the ways in order. The lock, if one was needed, is still held on return.
pub(super) fn take_snapshot(
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
        std::thread::scope(|scope| {
            let threads: Vec<_> = sessions
                .iter_mut()
                .map(|session| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        session
                            .query_drop(START)
                            .map_err(|e| query_error("cannot open the snapshot", e))
                    })
                })
                .collect();
            threads.into_iter().try_for_each(join)
        })?;
        if let Some(mut position) = common_position(sessions)? {
            log::debug!("snapshot: all connections at one position after {round} rounds");
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

/// The position of all sessions' snapshots, if it is the same. The sessions are asked one
/// after the other, because they would disturb each other: see [`binlog_position`].
fn common_position(sessions: &mut [PooledSession]) -> Result<Option<BTreeMap<String, String>>> {
    let mut common = None;
    for session in sessions {
        let position = binlog_position(session)?;
        if common.get_or_insert_with(|| position.clone()) != &position {
            return Ok(None);
        }
    }
    Ok(common)
}

/// The binary log position of the session's own snapshot (MariaDB).
///
/// The server states it through variables that all sessions share, without a lock: a session
/// whose `SHOW STATUS` falls into that of another is told the other's position (about one
/// answer in a hundred when both ask without a pause, on 10.11). So only an answer counts that
/// comes [`READINGS`] times in a row.
fn binlog_position(session: &mut Conn) -> Result<BTreeMap<String, String>> {
    let mut position = stated_position(session)?;
    let mut in_a_row = 1;
    for _ in 1..READINGS_AT_MOST {
        if in_a_row == READINGS {
            return Ok(position);
        }
        let again = stated_position(session)?;
        if again == position {
            in_a_row += 1;
        } else {
            (position, in_a_row) = (again, 1);
        }
    }
    Err(Error::new(
        ErrorKind::Snapshot,
        "the server does not state the same position of the snapshot twice",
    )
    .hint("other sessions ask for its status too often: --consistency global-lock"))
}

fn stated_position(session: &mut Conn) -> Result<BTreeMap<String, String>> {
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
