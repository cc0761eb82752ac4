//! The rows: large tables are split into key ranges, every chunk becomes a job, the pipeline
//! runs them, and what it reports becomes the manifest's data entries.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bounds::{self, Split};
use super::contents::{Contents, Item};
use super::structure::{StructureWriter, check_unchanged};
use super::{Reporter, Stagings};
use crate::Request;
use crate::config::{Category, Compression, CompressionByCategory};
use crate::encode::insert::TableEncoding;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Phase};
use crate::interrupt::Interrupt;
use crate::pipeline::{self, ChunkDone, ChunkScript, Job, ProgressBase};
use crate::plan::chunks::{ChunkKey, Range, ranges};
use crate::plan::reuse::Previous;
use crate::server::catalog::{Listing, Table};
use crate::server::snapshot::{Session, SnapshotPool};
use crate::server::wire::write_cell;
use crate::server::{definitions, quote_identifier};
use crate::store::manifest::{BackupKind, ChunkEntry, DataEntry, TableKind, digest_text};

/// Bytes of a row that is shorter than most.
const SHORT_ROW: u64 = 32;
/// Bytes of a row that is longer than most.
const LONG_ROW: u64 = 256;

/// How one table is read.
struct TablePlan {
    /// Its place in [`Contents::items`].
    item: usize,
    key: Option<ChunkKey>,
    split: Split,
    ranges: Vec<Range>,
}

/// Writes all data files.
pub(super) fn save(
    contents: &mut Contents<'_>,
    pool: &mut SnapshotPool,
    stagings: &Stagings,
    request: &Request,
    listed: &Listing,
    report: &Reporter<'_>,
    interrupt: &Interrupt,
) -> Result<()> {
    save_sequences(contents, pool, stagings, request, listed, interrupt)?;
    report.phase(Phase::Splitting);
    let plans = plan_tables(contents, pool, stagings, request, interrupt)?;
    for note in plans.iter().filter_map(|plan| plan.split.note.as_deref()) {
        report.notice(note);
    }

    report.phase(Phase::Data);
    let (transactional, others): (Vec<&TablePlan>, Vec<&TablePlan>) = plans
        .iter()
        .partition(|plan| contents.items[plan.item].table.transactional);
    let items = &contents.items;
    let writer = StructureWriter::new(contents, stagings);
    let check = |read: &[usize], session: &mut Session, stop: &Interrupt| {
        let read: Vec<_> = read.iter().map(|item| &items[*item]).collect();
        check_unchanged(session, &read, listed, &writer, stop)
    };
    let mut base = ProgressBase::new(announce(contents, &plans, report));
    // Tables without transactions first: writers to them wait for the lock until they are done.
    let jobs_before = jobs(contents, &others, stagings, request)?;
    let mut done = pipeline::run(
        pool,
        jobs_before,
        &check,
        &mut base,
        report.observer,
        interrupt,
    )?;
    pool.release_lock()?;
    let jobs_after = jobs(contents, &transactional, stagings, request)?;
    done.extend(pipeline::run(
        pool,
        jobs_after,
        &check,
        &mut base,
        report.observer,
        interrupt,
    )?);

    collect(contents, &plans, done, request, report)
}

/// How data of this category is stored.
fn compression(by_category: &CompressionByCategory, category: Category) -> Compression {
    match category {
        Category::Global => by_category.global,
        Category::Local => by_category.local,
        Category::Ephemeral | Category::Ignore => by_category.ephemeral,
    }
}

/// A sequence's data is the statement that takes it to its next value.
fn save_sequences(
    contents: &mut Contents<'_>,
    pool: &SnapshotPool,
    stagings: &Stagings,
    request: &Request,
    listed: &Listing,
    interrupt: &Interrupt,
) -> Result<()> {
    let sequences: Vec<_> = contents
        .items
        .iter()
        .enumerate()
        .filter(|(_, item)| item.table.kind == TableKind::Sequence)
        .filter_map(|(index, item)| Some((index, item, item.data_kind?)))
        .collect();
    let (frame, writer) = (&contents.frame, StructureWriter::new(contents, stagings));
    let entries = pool.map(&sequences, interrupt, |session, (_, item, kind)| {
        let name = &item.table.name;
        let (next, cycles) = definitions::sequence_state(session, name)?;
        check_unchanged(session, &[item], listed, &writer, interrupt)?;
        let statement = format!(
            "DO SETVAL({}, {next}, 0, {cycles});\n",
            quote_identifier(name)
        );
        let mut text = frame.file(
            &format!("state of sequence `{name}`"),
            &[statement.into_bytes()],
        );
        let raw_bytes = text.len() as u64;
        let compression = compression(&request.config.compression, item.category);
        if let Compression::Zstd(level) = compression {
            text = zstd::bulk::compress(&text, level)
                .map_err(|e| Error::new(ErrorKind::Internal, "zstd failed").because(e))?;
        }
        let staging = stagings.of(*kind)?;
        let file = staging.write_data(&staging.data_name(name, 1, compression), &text)?;
        let mut row = Vec::new();
        write_cell(&mut row, Some(next.to_string().as_bytes()));
        write_cell(&mut row, Some(cycles.to_string().as_bytes()));
        Ok(DataEntry {
            rows: 1,
            digest: digest_text(xxhash_rust::xxh3::xxh3_128(&row)),
            compression: compression_name(compression),
            chunk_key: Vec::new(),
            chunk_size: None,
            chunks: vec![ChunkEntry {
                from: Vec::new(),
                rows: 1,
                raw_bytes,
                file,
            }],
        })
    })?;
    let indices: Vec<_> = sequences.iter().map(|(index, ..)| *index).collect();
    for (index, entry) in indices.into_iter().zip(entries) {
        contents.items[index].data = Some(entry);
    }
    Ok(())
}

/// The chunks of a table in the backup that this one follows, if it can be split there again;
/// or why not.
fn previous_chunks(
    stagings: &Stagings,
    item: &Item<'_>,
    key: &ChunkKey,
) -> Option<Result<Previous, String>> {
    let manifest = stagings.previous(item.data_kind?)?;
    let data = manifest.tables.get(&item.table.name)?.data.as_ref()?;
    Previous::of(data, item.table, key)
}

/// Whether a table may have to be split. Statistics, which may be stale, only say where to look, and
/// generously; whether and where a table is split, its data say.
fn may_be_large(rows: u64, data_bytes: u64, chunk_size: u64) -> bool {
    data_bytes > chunk_size / 4 || rows.saturating_mul(LONG_ROW) > chunk_size
}

/// The tables that [`plan_tables`] may split, if their rows are saved: large ones, and those that
/// were split before.
pub(super) fn may_be_split<'a>(
    listing: &'a Listing,
    stagings: &'a Stagings,
    request: &Request,
) -> BTreeSet<&'a str> {
    let chunk_size = request.config.chunk_size;
    let large = listing.tables.iter();
    let large =
        large.filter(|(_, listed)| may_be_large(listed.rows, listed.data_bytes, chunk_size));
    let kinds = [
        BackupKind::Host,
        BackupKind::UserData,
        BackupKind::Ephemeral,
    ];
    let before = kinds.into_iter().filter_map(|kind| stagings.previous(kind));
    let before = before.flat_map(|manifest| &manifest.tables);
    let before = before.filter(|(_, table)| {
        let data = table.data.as_ref();
        data.is_some_and(|data| data.chunks.len() > 1)
    });
    let large = large.map(|(name, _)| name.as_str());
    large.chain(before.map(|(name, _)| name.as_str())).collect()
}

/// Decides how each table is read; finding the bounds of large ones asks the server.
fn plan_tables(
    contents: &Contents<'_>,
    pool: &SnapshotPool,
    stagings: &Stagings,
    request: &Request,
    interrupt: &Interrupt,
) -> Result<Vec<TablePlan>> {
    let chunk_size = request.config.chunk_size;
    let tables: Vec<(usize, &Item<'_>)> = contents
        .items
        .iter()
        .enumerate()
        .filter(|(_, item)| item.data_kind.is_some() && item.table.kind == TableKind::Table)
        .collect();
    let keys: Vec<_> = tables
        .iter()
        .map(|(_, item)| ChunkKey::choose(item.table))
        .collect();
    let candidates: Vec<_> = tables
        .iter()
        .zip(&keys)
        .enumerate()
        .filter_map(|(at, ((_, item), key))| {
            let key = key.as_ref().filter(|key| !key.split.is_empty())?;
            let previous = previous_chunks(stagings, item, key);
            let large = may_be_large(item.table.rows, item.table.data_bytes, chunk_size);
            (large || previous.is_some()).then_some((at, item.table, key, previous))
        })
        .collect();
    let splits = pool.map(&candidates, interrupt, |session, candidate| {
        let (_, table, key, previous) = candidate;
        bounds::find(session, table, key, previous.clone(), chunk_size, interrupt)
    })?;
    let mut plans: Vec<TablePlan> = tables
        .iter()
        .zip(keys.iter().cloned())
        .map(|((item, _), key)| TablePlan {
            item: *item,
            key,
            split: Split::default(),
            ranges: vec![Range::All],
        })
        .collect();
    for ((at, _, key, _), split) in candidates.into_iter().zip(splits) {
        if !split.bounds.is_empty() {
            plans[at].ranges = ranges(key, &split.bounds);
        }
        plans[at].split = split;
    }
    Ok(plans)
}

impl TablePlan {
    /// The number of a range in the name of its file. It stays with a range from backup to
    /// backup, whatever comes before it in the table.
    fn number(&self, range: usize) -> usize {
        self.split.numbers.get(range).copied().unwrap_or(range + 1)
    }

    /// Whether the ranges are known to miss and to repeat no row: whole numbers that are never
    /// NULL have one order, in which an index has them and comparisons put them. Counting the
    /// rows besides took some 0.7 s of the 9.4 s of CPU of an export of 9 million rows.
    fn tiles(&self, table: &Table) -> bool {
        let whole = |name: &String| {
            let column = table.column(name);
            column.is_some_and(|column| !column.nullable && column.is_whole_number())
        };
        self.key
            .as_ref()
            .is_some_and(|key| key.split.iter().all(whole))
    }

    /// What counts the table's rows, where the chunks have to be held against that number and
    /// it is not known.
    fn count_query(&self, contents: &Contents<'_>) -> Option<String> {
        let table = contents.items[self.item].table;
        let unknown = self.ranges.len() > 1 && self.split.rows.is_none() && !self.tiles(table);
        // The server takes the smallest index, and knows nothing of the bounds.
        unknown.then(|| format!("SELECT COUNT(*) FROM {}", table.source()))
    }

    /// Rows and bytes of each chunk, estimated.
    fn estimate(&self, contents: &Contents<'_>) -> (u64, u64) {
        let table = contents.items[self.item].table;
        let chunks = self.ranges.len() as u64;
        let rows = self.split.rows.unwrap_or(table.rows);
        // The size in the statistics lags behind the rows after a bulk load.
        let bytes = table.data_bytes.max(rows.saturating_mul(SHORT_ROW));
        (rows / chunks, (bytes / chunks).max(1))
    }

    fn query(&self, contents: &Contents<'_>, encoding: &TableEncoding, range: &Range) -> String {
        let table = contents.items[self.item].table;
        let cache = if contents.flavor.is_mariadb() {
            "SQL_NO_CACHE "
        } else {
            ""
        };
        let mut query = format!(
            "SELECT {cache}{} FROM {}",
            encoding.select_list(),
            table.source()
        );
        let split = self.ranges.len() > 1;
        if let (false, Some(clustered)) = (split, table.clustered()) {
            // As they are stored, rows come in the order of that key, whichever way it is sorted.
            query.push_str(&format!(
                " FORCE INDEX ({})",
                quote_identifier(&clustered.name)
            ));
            let key = self.key.as_ref().filter(|key| key.index == clustered.name);
            if let Some(key) = key.filter(|_| table.partitioned) {
                query.push_str(&format!(" ORDER BY {}", key.order_by()));
            }
        } else if let Some(key) = &self.key {
            if key.index == "PRIMARY" || split {
                query.push_str(&format!(" FORCE INDEX ({})", quote_identifier(&key.index)));
            }
            query.push_str(&key.where_clause(range));
            if !key.nullable || split {
                query.push_str(&format!(" ORDER BY {}", key.order_by()));
            }
        }
        query
    }
}

/// Tells what is about to be read; its size in bytes, estimated.
fn announce(contents: &Contents<'_>, plans: &[TablePlan], report: &Reporter<'_>) -> u64 {
    let (mut rows, mut bytes, mut chunks) = (0, 0, 0);
    for plan in plans {
        let (chunk_rows, chunk_bytes) = plan.estimate(contents);
        chunks += plan.ranges.len();
        rows += chunk_rows * plan.ranges.len() as u64;
        bytes += chunk_bytes * plan.ranges.len() as u64;
    }
    report.observer.event(&Event::Planned {
        tables: plans.len(),
        chunks,
        rows,
        bytes,
    });
    bytes
}

/// The jobs of some tables.
fn jobs<'a>(
    contents: &Contents<'_>,
    plans: &[&TablePlan],
    stagings: &'a Stagings,
    request: &Request,
) -> Result<Vec<Job<'a>>> {
    let mut jobs = Vec::new();
    for plan in plans {
        let item = &contents.items[plan.item];
        let Some(kind) = item.data_kind else { continue };
        let name = &item.table.name;
        let encoding = Arc::new(TableEncoding::new(item.table, contents.max_allowed_packet));
        let compression = compression(&request.config.compression, item.category);
        let (rows, bytes) = plan.estimate(contents);
        for (chunk, range) in plan.ranges.iter().enumerate() {
            let staging = stagings.of(kind)?;
            let file = staging.data_name(name, plan.number(chunk), compression);
            let last = chunk + 1 == plan.ranges.len();
            jobs.push(Job {
                table: plan.item,
                name: name.clone(),
                chunk,
                chunks: plan.ranges.len(),
                query: plan.query(contents, &encoding, range),
                count_query: plan.count_query(contents).filter(|_| chunk == 0),
                encoding: Arc::clone(&encoding),
                script: script(contents, item, last),
                compression,
                estimated_rows: rows,
                estimated_bytes: bytes,
                open: Box::new(move || staging.create_data(&file)),
            });
        }
    }
    Ok(jobs)
}

/// What stands around the rows; the AUTO_INCREMENT counter follows the last of them.
fn script(contents: &Contents<'_>, item: &Item<'_>, last: bool) -> ChunkScript {
    let name = quote_identifier(&item.table.name);
    let mut footer = Vec::new();
    if let Some(next) = item.table.auto_increment.filter(|next| last && *next > 1) {
        footer.extend_from_slice(format!("ALTER TABLE {name} AUTO_INCREMENT={next};\n").as_bytes());
    }
    let versioned = item.table.versioned;
    footer.extend(contents.frame.rows_footer(versioned));
    let what = format!("rows of table {name}");
    ChunkScript {
        header: contents.frame.rows_header(&what, versioned),
        footer,
    }
}

/// Turns what the pipeline reports into the manifest's entries, and checks that the chunks of
/// a split table add up to the table.
fn collect(
    contents: &mut Contents<'_>,
    plans: &[TablePlan],
    mut done: Vec<ChunkDone>,
    request: &Request,
    report: &Reporter<'_>,
) -> Result<()> {
    done.sort_by_key(|chunk| (chunk.table, chunk.chunk));
    let mut done = done.into_iter().peekable();
    for plan in plans {
        let item = &mut contents.items[plan.item];
        let name = &item.table.name;
        let (mut rows, mut digest, mut largest, mut chunks) = (0, 0u128, 0, Vec::new());
        let mut counted = plan.split.rows;
        while let Some(chunk) = done.next_if(|chunk| chunk.table == plan.item) {
            counted = counted.or(chunk.table_rows);
            rows += chunk.read.rows;
            digest = digest.wrapping_add(chunk.read.digest);
            largest = largest.max(chunk.read.largest_statement);
            let from = match &plan.ranges[chunk.chunk] {
                Range::Between(Some(from), _) => from.clone(),
                _ => Vec::new(),
            };
            chunks.push(ChunkEntry {
                from,
                rows: chunk.read.rows,
                raw_bytes: chunk.read.raw_bytes,
                file: chunk.file,
            });
        }
        if plan.tiles(item.table) {
            counted = counted.or(Some(rows));
        }
        if chunks.len() != plan.ranges.len() || (chunks.len() > 1 && counted != Some(rows)) {
            return Err(Error::new(
                ErrorKind::Failed,
                format!(
                    "table `{name}`: its {} chunks hold {rows} rows of {}",
                    chunks.len(),
                    counted.unwrap_or(0)
                ),
            )
            .hint("please report this; --chunk-size larger than the table reads it in one piece"));
        }
        if largest as u64 > contents.max_allowed_packet {
            report.warn(&format!(
                "table `{name}` has a row whose INSERT takes {largest} bytes: loading it needs a larger max_allowed_packet"
            ));
        }
        let chunk_key = plan
            .key
            .as_ref()
            .filter(|_| chunks.len() > 1)
            .map(|key| key.split.clone());
        item.data = Some(DataEntry {
            rows,
            digest: digest_text(digest),
            compression: compression_name(compression(&request.config.compression, item.category)),
            chunk_size: chunk_key.is_some().then_some(request.config.chunk_size),
            chunk_key: chunk_key.unwrap_or_default(),
            chunks,
        });
    }
    Ok(())
}

fn compression_name(compression: Compression) -> String {
    match compression {
        Compression::None => "none".into(),
        Compression::Zstd(_) => "zstd".into(),
    }
}
