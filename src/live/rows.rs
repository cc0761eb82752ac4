//! The rows: every table with data in a manifest is read again, in the same key ranges and with
//! the same SELECT, and counted and digested as it was when it was exported.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use xxhash_rust::xxh3::xxh3_128;

use super::{Change, Difference};
use crate::encode::insert::TableEncoding;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Observer};
use crate::interrupt::Interrupt;
use crate::plan::chunks::{ChunkKey, Range, ranges};
use crate::plan::literals::{LiteralKind, is_literal, literal_kind};
use crate::server::catalog::{Catalog, Table};
use crate::server::flavor::Flavor;
use crate::server::rows::RowSource;
use crate::server::snapshot::{Session, SnapshotPool};
use crate::server::wire::write_cell;
use crate::server::{definitions, quote_identifier};
use crate::store::manifest::{DataEntry, Manifest, TableEntry, TableKind, digest_text};
use crate::tally::{Step, Tally};

/// Rows between two looks at the interrupt.
const LOOK: u64 = 1024;

/// A table to be compared.
struct Check<'a> {
    name: &'a str,
    entry: &'a TableEntry,
    data: &'a DataEntry,
    live: &'a Table,
    encoding: TableEncoding,
    /// Whether the backup is of the same product.
    same_product: bool,
    ranges_left: AtomicUsize,
}

/// One range of one table.
struct Task {
    check: usize,
    query: String,
    rows: u64,
}

/// What was seen of a table, or of one range of it.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    rows: u64,
    digest: u128,
}

/// Compares the rows of all tables whose data the manifests have, over all sessions. A manifest
/// must be one that was found to be sound: its chunk bounds go into queries.
///
/// Tables without transactions are read first, and then the pool's lock is released.
pub fn compare_rows(
    pool: &mut SnapshotPool,
    catalog: &Catalog,
    flavor: &Flavor,
    manifests: &[&Manifest],
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    let mut checks = Vec::new();
    let tables = manifests.iter().flat_map(|manifest| {
        let same_product = manifest.flavor == flavor.name();
        let tables = manifest.tables.iter();
        tables.map(move |(name, entry)| (name, entry, same_product))
    });
    for (name, entry, same_product) in tables {
        let Some(data) = &entry.data else { continue };
        match comparable(name, entry, catalog) {
            Ok(live) => checks.push(Check {
                name,
                entry,
                data,
                live,
                // Statements are not written: any limit will do.
                encoding: TableEncoding::new(live, u64::MAX),
                same_product,
                ranges_left: AtomicUsize::new(0),
            }),
            Err(change) => found.push(Difference::new(entry.kind.name(), name, change)),
        }
    }
    let tasks: Vec<Task> = checks
        .iter()
        .enumerate()
        .flat_map(|(at, check)| tasks(at, check, flavor))
        .collect();
    let total = checks.iter().map(|check| check.data.rows).sum();
    observer.event(&Event::Planned {
        tables: checks.len(),
        chunks: tasks.len(),
        rows: total,
        bytes: checks.iter().map(|check| raw_bytes(check.data)).sum(),
    });
    let tally = Tally::new(observer, total);
    let seen = read_all(pool, &checks, tasks, &tally, interrupt)?;
    tally.finish();
    let compared = checks.iter().zip(seen).filter_map(|(check, seen)| {
        let change = check.compare(seen)?;
        Some(Difference::new(check.entry.kind.name(), check.name, change))
    });
    found.extend(compared);
    Ok(found)
}

fn raw_bytes(data: &DataEntry) -> u64 {
    data.chunks.iter().map(|chunk| chunk.raw_bytes).sum()
}

/// The live table, if its rows can be the same as the backup's.
fn comparable<'a>(
    name: &str,
    entry: &TableEntry,
    catalog: &'a Catalog,
) -> Result<&'a Table, Change> {
    let live = catalog
        .tables
        .get(name)
        .filter(|live| live.kind == entry.kind)
        .ok_or(Change::Missing)?;
    let columns: Vec<String> = live.stored_columns().map(|c| c.name.clone()).collect();
    if columns == entry.columns {
        return Ok(live);
    }
    Err(Change::Columns {
        backup: entry.columns.clone(),
        live: columns,
    })
}

/// The tables whose rows [`compare_rows`] reads, and those of them that it reads by ranges of a key.
pub fn tables_read<'a>(
    manifests: impl IntoIterator<Item = &'a Manifest>,
) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let (mut read, mut split) = (BTreeSet::new(), BTreeSet::new());
    for (name, entry) in manifests.into_iter().flat_map(|m| &m.tables) {
        if let Some(data) = &entry.data {
            read.insert(name.as_str());
            if data.chunks.len() > 1 {
                split.insert(name.as_str());
            }
        }
    }
    (read, split)
}

/// The queries that read a table. Wherever the bounds came from, they tile the live table as
/// well; where the key is no longer there, the table is read in one piece.
fn tasks(at: usize, check: &Check<'_>, flavor: &Flavor) -> Vec<Task> {
    let chunks = &check.data.chunks;
    let key = ChunkKey::choose(check.live)
        .filter(|key| chunks.len() > 1 && key.split == check.data.chunk_key);
    let bounds: Vec<Vec<String>> = chunks
        .iter()
        .map(|chunk| chunk.from.clone())
        .filter(|from| !from.is_empty())
        .collect();
    let key = key.filter(|key| {
        let mut bounds = bounds.iter();
        check.orders_alike(key) && bounds.all(|bound| check.is_bound(key, bound))
    });
    let ranges = key
        .as_ref()
        .map_or_else(|| vec![Range::All], |key| ranges(key, &bounds));
    check.ranges_left.store(ranges.len(), Ordering::Relaxed);
    let cache = if flavor.is_mariadb() {
        "SQL_NO_CACHE "
    } else {
        ""
    };
    let select = format!(
        "SELECT {cache}{} FROM {}",
        check.encoding.select_list(),
        check.live.source()
    );
    let rows = check.data.rows / ranges.len() as u64;
    let query = |range: &Range| match &key {
        Some(key) => format!(
            "{select} FORCE INDEX ({}){}",
            quote_identifier(&key.index),
            key.where_clause(range)
        ),
        None => select.clone(),
    };
    ranges
        .iter()
        .map(|range| Task {
            check: at,
            query: query(range),
            rows,
        })
        .collect()
}

/// Reads everything, the largest ranges first; what was seen of each table.
fn read_all(
    pool: &mut SnapshotPool,
    checks: &[Check<'_>],
    mut tasks: Vec<Task>,
    tally: &Tally<'_>,
    interrupt: &Interrupt,
) -> Result<Vec<Seen>> {
    tasks.sort_by_key(|task| std::cmp::Reverse(task.rows));
    let (transactional, others): (Vec<Task>, Vec<Task>) = tasks
        .into_iter()
        .partition(|task| checks[task.check].live.transactional);
    let mut totals = vec![Seen::default(); checks.len()];
    let mut read = |pool: &SnapshotPool, tasks: &[Task]| -> Result<()> {
        let seen = pool.map(tasks, interrupt, |session, task| {
            let check = &checks[task.check];
            let seen = match check.entry.kind {
                TableKind::Table => check.read_rows(session, &task.query, tally, interrupt)?,
                TableKind::Sequence => check.read_sequence(session)?,
            };
            if check.ranges_left.fetch_sub(1, Ordering::Relaxed) == 1 {
                tally.table_done();
            }
            Ok(seen)
        })?;
        for (task, seen) in tasks.iter().zip(seen) {
            let total = &mut totals[task.check];
            total.rows += seen.rows;
            total.digest = total.digest.wrapping_add(seen.digest);
        }
        Ok(())
    };
    read(pool, &others)?;
    pool.release_lock()?;
    read(pool, &transactional)?;
    Ok(totals)
}

impl Check<'_> {
    /// Whether this server sorts the key as the one did that the bounds are of: of texts only the
    /// same product is sure to, and ranges between bounds out of order would overlap.
    fn orders_alike(&self, key: &ChunkKey) -> bool {
        let mut columns = key.split.iter().filter_map(|name| self.live.column(name));
        self.same_product || columns.all(|column| literal_kind(column) != Some(LiteralKind::Text))
    }

    /// Whether what comes out of a file and goes into a query is what the exporter puts there.
    fn is_bound(&self, key: &ChunkKey, bound: &[String]) -> bool {
        let literal = |(name, text): (&String, &String)| {
            let column = self.live.column(name)?;
            Some(is_literal(
                literal_kind(column)?,
                column.charset.as_deref(),
                text,
            ))
        };
        let mut parts = key.split.iter().zip(bound);
        bound.len() == key.split.len() && parts.all(|part| literal(part) == Some(true))
    }

    fn read_sequence(&self, session: &mut Session) -> Result<Seen> {
        let (next, cycles) = definitions::sequence_state(session, self.name)?;
        let mut row = Vec::new();
        write_cell(&mut row, Some(next.to_string().as_bytes()));
        write_cell(&mut row, Some(cycles.to_string().as_bytes()));
        Ok(Seen {
            rows: 1,
            digest: xxh3_128(&row),
        })
    }

    fn read_rows(
        &self,
        session: &mut Session,
        query: &str,
        tally: &Tally<'_>,
        interrupt: &Interrupt,
    ) -> Result<Seen> {
        let read = session.read(query, self.encoding.protocol(), interrupt, |source| {
            if source.columns() != self.encoding.columns() {
                let what = "the server sent other columns than were asked for";
                return Err(Error::new(ErrorKind::Failed, what));
            }
            let (mut seen, mut step) = (Seen::default(), Step::default());
            while let Some(row) = source.next_row()? {
                seen.rows += 1;
                seen.digest = seen.digest.wrapping_add(xxh3_128(row));
                step.rows += 1;
                step.raw_bytes += row.len() as u64;
                if step.rows == LOOK {
                    step.work = step.rows;
                    tally.add(std::mem::take(&mut step));
                    interrupt.check()?;
                }
            }
            step.work = step.rows;
            tally.add(step);
            Ok(seen)
        });
        read.map_err(|e| e.within(format_args!("table `{}`", self.name)))
    }

    fn compare(&self, seen: Seen) -> Option<Change> {
        let Check { data, entry, .. } = self;
        if seen.rows != data.rows {
            return Some(Change::Rows {
                backup: data.rows,
                live: seen.rows,
            });
        }
        if digest_text(seen.digest) != data.digest {
            return Some(match entry.kind {
                TableKind::Table => Change::Content { rows: seen.rows },
                TableKind::Sequence => Change::State,
            });
        }
        // A counter that was never used is stated as 1 or not at all.
        let (backup, live) = (entry.auto_increment, self.live.auto_increment);
        (backup.unwrap_or(1) != live.unwrap_or(1)).then_some(Change::AutoIncrement { backup, live })
    }
}
