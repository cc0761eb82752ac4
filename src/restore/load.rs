//! Loading rows. Each chunk is one transaction, committed only after the checksum of its file
//! has been found right; whoever loads the last chunk of a table builds its indexes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::server::driver::Ask;
use mysql::Conn;

use super::create::{Addition, Staged};
use super::crew::{Change, Crew, Meter, Worker, undecodable};
use super::ledger::{Ledger, enter};
use super::queue::{Job, Queue};
use super::source::SourceTable;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Progress, WorkerProgress};
use crate::server::connect::{ServerError, query_error, without_values};
use crate::server::quote_identifier;
use crate::store::manifest::{ChunkEntry, TableKind};
use crate::store::open::{Backup, CheckedFile, Flaw};

/// Building the index of an INT takes about one in so many parts of the time that the rows take.
const INDEX_SHARE: u64 = 8;

/// Loads the rows of all tables; `staged` says what is built after those of each, and
/// `unsafe_tables` which have no transactions.
pub(super) fn load(
    crew: &Crew<'_>,
    ledger: &Ledger,
    staged: &BTreeMap<String, Staged>,
    unsafe_tables: &BTreeSet<String>,
) -> Result<()> {
    let tables = crew.source.tables.iter();
    let tables: Vec<Loading<'_>> = tables
        .filter_map(|table| Loading::of(table, !unsafe_tables.contains(&table.name)))
        .collect();
    let indexed = |table: &Loading<'_>| staged.get(table.name).is_some_and(|s| s.keys.is_some());
    let loads: Vec<_> = tables
        .iter()
        .map(|table| {
            let alone = table.alone(crew.threads, indexed(table));
            (table.chunks.len(), alone)
        })
        .collect();
    let queue = Queue::new(&loads);
    let chunks = loads.iter().map(|(chunks, _)| chunks).sum();
    let total = Totals::new(&tables);
    crew.observer.event(&Event::Planned {
        tables: tables.len(),
        chunks,
        rows: tables.iter().map(|table| table.rows).sum(),
        bytes: total.raw_bytes,
    });
    let next = |done| queue.next(done);
    let progress = |meters: &[Meter]| Some(total.progress(meters, &tables));
    crew.share(chunks, next, progress, |worker, job| {
        let table = &tables[job.table];
        let mut load = || {
            let item = table.item(job.chunk);
            worker.meter.set(Some(job));
            if !ledger.has(&item) && table.transactional {
                worker.unless_deadlocked(|worker| load_chunk(worker, table, job.chunk, &item))?;
            } else if !ledger.has(&item) {
                load_chunk(worker, table, job.chunk, &item)?;
            }
            if table.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                let staged = staged.get(table.name);
                worker.unless_deadlocked(|worker| finish_table(worker, table, staged))?;
                total.tables_done.fetch_add(1, Ordering::Relaxed);
            }
            worker.meter.set(None);
            total.add(&table.chunks[job.chunk]);
            Ok(job)
        };
        load().map_err(|e: Error| e.within(format_args!("table `{}`", table.name)))
    })
}

/// A table whose rows are being loaded.
struct Loading<'a> {
    name: &'a str,
    backup: usize,
    chunks: &'a [ChunkEntry],
    compressed: bool,
    transactional: bool,
    rows: u64,
    auto_increment: Option<u64>,
    /// Chunks that are not loaded yet.
    left: AtomicUsize,
}

impl<'a> Loading<'a> {
    fn of(table: &'a SourceTable, transactional: bool) -> Option<Loading<'a>> {
        let (backup, data) = table.rows.as_ref()?;
        Some(Loading {
            name: &table.name,
            backup: *backup,
            chunks: &data.chunks,
            compressed: data.compression == "zstd",
            transactional,
            rows: data.rows,
            auto_increment: table
                .auto_increment
                .filter(|_| table.kind == TableKind::Table),
            left: AtomicUsize::new(data.chunks.len()),
        })
    }

    /// Bytes of SQL of all chunks.
    fn raw_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.raw_bytes).sum()
    }

    /// What at least one of `threads` connections has to do, in bytes of SQL: a share of the rows,
    /// or the largest chunk if that is more, and the indexes if some are built after the rows.
    fn alone(&self, threads: usize, indexed: bool) -> u64 {
        let rows = self.raw_bytes();
        let chunk = self.chunks.iter().map(|chunk| chunk.raw_bytes).max();
        let share = (rows / threads.max(1) as u64).max(chunk.unwrap_or_default());
        share + if indexed { rows / INDEX_SHARE } else { 0 }
    }

    /// The ledger's entry for a chunk.
    fn item(&self, chunk: usize) -> String {
        chunk_item(self.name, chunk)
    }
}

/// The ledger's entry for a chunk of a table.
pub(super) fn chunk_item(table: &str, chunk: usize) -> String {
    format!("chunk {chunk} {table}")
}

/// What has been loaded of what there is.
struct Totals {
    began: Instant,
    raw_bytes: u64,
    done_rows: AtomicU64,
    done_raw: AtomicU64,
    done_stored: AtomicU64,
    tables_done: AtomicUsize,
}

impl Totals {
    fn new(tables: &[Loading<'_>]) -> Totals {
        let chunks = tables.iter().flat_map(|table| table.chunks);
        Totals {
            began: Instant::now(),
            raw_bytes: chunks.map(|chunk| chunk.raw_bytes).sum(),
            done_rows: AtomicU64::new(0),
            done_raw: AtomicU64::new(0),
            done_stored: AtomicU64::new(0),
            tables_done: AtomicUsize::new(0),
        }
    }

    fn add(&self, chunk: &ChunkEntry) {
        self.done_rows.fetch_add(chunk.rows, Ordering::Relaxed);
        self.done_raw.fetch_add(chunk.raw_bytes, Ordering::Relaxed);
        self.done_stored
            .fetch_add(chunk.file.bytes, Ordering::Relaxed);
    }

    fn progress(&self, meters: &[Meter], tables: &[Loading<'_>]) -> Progress {
        let mut progress = Progress {
            fraction: 0.0,
            rows: self.done_rows.load(Ordering::Relaxed),
            raw_bytes: self.done_raw.load(Ordering::Relaxed),
            stored_bytes: self.done_stored.load(Ordering::Relaxed),
            tables_done: self.tables_done.load(Ordering::Relaxed),
            seconds: self.began.elapsed().as_secs_f64(),
            workers: Vec::new(),
        };
        for (worker, meter) in meters.iter().enumerate() {
            let Some(Job { table, chunk }) = meter.job() else {
                continue;
            };
            let (table, entry) = (&tables[table], &tables[table].chunks[chunk]);
            let raw = meter.raw_bytes.load(Ordering::Relaxed).min(entry.raw_bytes);
            let share = raw as f64 / entry.raw_bytes.max(1) as f64;
            let rows = (entry.rows as f64 * share) as u64;
            progress.raw_bytes += raw;
            progress.rows += rows;
            progress.stored_bytes += (entry.file.bytes as f64 * share) as u64;
            progress.workers.push(WorkerProgress {
                worker,
                table: table.name.to_owned(),
                chunk: chunk + 1,
                chunks: table.chunks.len(),
                rows,
                estimated_rows: entry.rows,
            });
        }
        let done = progress.raw_bytes as f64 / self.raw_bytes.max(1) as f64;
        progress.fraction = done.clamp(0.0, 1.0);
        progress
    }
}

/// Loads one chunk, all of it or nothing. In a table without transactions it is entered in the
/// ledger after its rows: a MySQL server with GTIDs takes no such rows in a transaction.
fn load_chunk(
    worker: &mut Worker<'_>,
    table: &Loading<'_>,
    chunk: usize,
    item: &str,
) -> Result<()> {
    // Of an attempt before this one nothing is left.
    worker.meter.raw_bytes.store(0, Ordering::Relaxed);
    let entry = &table.chunks[chunk];
    let backup = &worker.crew.source.backups[table.backup];
    let flawed = |flaw: &Flaw| backup.flawed(&entry.file, flaw);
    let mut file = backup.file(&entry.file).map_err(|flaw| flawed(&flaw))?;
    worker.before_file()?;
    if table.transactional {
        worker.execute(b"START TRANSACTION")?;
        if !enter(&mut worker.session, item)? {
            return worker.execute(b"ROLLBACK");
        }
    }
    let run = run_chunk(worker, backup, &mut file, table, entry);
    // Damage explains whatever else went wrong, and is what the user can act on.
    let checked = match &run {
        Err(e) if e.kind() == ErrorKind::Interrupted => return run,
        _ => file.finish().map_err(|flaw| flawed(&flaw)),
    };
    checked.and(run.map_err(|e| e.within(&entry.file.file)))?;
    if table.transactional {
        worker.execute(b"COMMIT")
    } else {
        enter(&mut worker.session, item).map(drop)
    }
}

fn run_chunk(
    worker: &mut Worker<'_>,
    backup: &Backup,
    file: &mut CheckedFile,
    table: &Loading<'_>,
    entry: &ChunkEntry,
) -> Result<()> {
    let mut raw = Bounded {
        source: {
            let file = backup.decrypted(file).map_err(undecodable)?;
            if table.compressed {
                Box::new(zstd::Decoder::new(file).map_err(undecodable)?)
            } else {
                file
            }
        },
        left: entry.raw_bytes,
        read: &worker.meter.raw_bytes,
    };
    // Rows of the file before the statement that is being run, and up to its end.
    let (mut before, mut up_to) = (0, 0);
    let run = worker.run_file(&mut raw, |statement| {
        // Rows stand on lines of their own.
        let rows = memchr::memmem::find_iter(statement, b"\n(").count();
        (before, up_to) = (up_to, up_to + rows);
        // The counter would end the transaction; it is set when the table is complete.
        if statement.starts_with(b"ALTER TABLE ") {
            Change::Skip
        } else if rows > 0 && table.transactional {
            // The other engines take the rows of one statement together, and those in bulk one by
            // one.
            Change::Rows
        } else {
            Change::Keep
        }
    });
    run.map_err(|e| match ServerError::code_of(&e) {
        Some(_) if up_to > before => {
            without_values(e).within(format_args!("rows {} to {up_to}", before + 1))
        }
        _ => without_values(e),
    })?;
    if raw.left > 0 {
        let what = format!("its SQL is {} bytes short of the manifest's", raw.left);
        return Err(Error::new(ErrorKind::Differs, what));
    }
    Ok(())
}

/// Decompressed bytes, no more of them than the manifest says.
struct Bounded<'a> {
    source: Box<dyn Read + 'a>,
    left: u64,
    read: &'a AtomicU64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other("more comes out of it than the manifest says"))?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Builds what was left for after the rows. Done again, it changes nothing.
fn finish_table(
    worker: &mut Worker<'_>,
    table: &Loading<'_>,
    staged: Option<&Staged>,
) -> Result<()> {
    if let Some(keys) = staged.and_then(|staged| staged.keys.as_ref()) {
        add(
            worker,
            table.name,
            keys,
            "information_schema.STATISTICS WHERE INDEX_NAME=?",
        )?;
    }
    if let Some(next) = table.auto_increment.filter(|next| *next > 1) {
        let name = quote_identifier(table.name);
        let alter = format!("ALTER TABLE {name} AUTO_INCREMENT={next}");
        worker.execute(alter.as_bytes())?;
    }
    Ok(())
}

/// Adds the foreign keys of a table.
pub(super) fn add_foreign_keys(
    worker: &mut Worker<'_>,
    table: &str,
    keys: &Addition,
) -> Result<()> {
    add(
        worker,
        table,
        keys,
        // A unique key or a CHECK may have the name as well.
        "information_schema.TABLE_CONSTRAINTS WHERE CONSTRAINT_TYPE='FOREIGN KEY' AND CONSTRAINT_NAME=?",
    )
}

/// Runs an `ALTER TABLE`, unless what it adds is there: a run that was killed may have sent it.
/// `of_its_name` is where the server lists things of that kind, by name.
fn add(worker: &mut Worker<'_>, table: &str, addition: &Addition, of_its_name: &str) -> Result<()> {
    let query =
        format!("SELECT 1 FROM {of_its_name} AND TABLE_SCHEMA=DATABASE() AND TABLE_NAME=? LIMIT 1");
    let there = |conn: &mut Conn| -> Result<bool> {
        let found: Option<u8> = conn
            .exec_first(&query, (&addition.first, table))
            .map_err(|e| query_error("cannot look for an index", e))?;
        Ok(found.is_some())
    };
    if there(&mut worker.session.conn)? {
        return Ok(());
    }
    match worker.execute(addition.statement.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::Interrupted && there(&mut worker.session.conn)? => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::manifest::FileEntry;

    #[test]
    fn what_one_connection_has_to_do_is_a_share_or_the_largest_chunk() {
        let chunk = |raw_bytes| ChunkEntry {
            from: Vec::new(),
            rows: 1,
            raw_bytes,
            file: FileEntry {
                file: "data/t.00001.sql".into(),
                bytes: raw_bytes,
                sha256: String::new(),
            },
        };
        let alone = |sizes: &[u64], indexed| {
            let chunks: Vec<_> = sizes.iter().copied().map(chunk).collect();
            let table = Loading {
                name: "t",
                backup: 0,
                chunks: &chunks,
                compressed: false,
                transactional: true,
                rows: 0,
                auto_increment: None,
                left: AtomicUsize::new(chunks.len()),
            };
            table.alone(2, indexed)
        };
        assert_eq!(alone(&[70, 10], false), 70);
        assert_eq!(alone(&[16; 10], false), 80);
        assert_eq!(alone(&[16; 10], true), 100);
        assert_eq!(alone(&[], true), 0);
    }
}
