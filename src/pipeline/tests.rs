//! The pipeline from an in-memory row source to an in-memory sink, without a server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::block::BlockPool;
use super::lane::{LaneHandle, Lanes};
use super::progress::ChunkMeter;
use super::reader::{ChunkRead, ChunkScript, stream_chunk};
use super::{Counters, Failure};
use crate::config::Compression;
use crate::encode::insert::TableEncoding;
use crate::error::{Error, ErrorKind, Result};
use crate::server::catalog::{Column, Table};
use crate::server::rows::RowSource;
use crate::server::wire::write_cell;
use crate::store::manifest::{FileEntry, TableKind};
use crate::store::sink::{MemorySink, Sink};

fn table() -> Table {
    Table {
        name: "t".into(),
        kind: TableKind::Table,
        engine: "InnoDB".into(),
        transactional: true,
        rows: 0,
        data_bytes: 0,
        partitioned: false,
        auto_increment: None,
        columns: vec![Column::plain("id", "int"), Column::plain("v", "blob")],
        keys: Vec::new(),
        versioned: false,
        lax_foreign_keys: false,
    }
}

/// Rows `0..count`, each with a value of `length` bytes; fails after `fail_at` rows.
struct Memory {
    next: u64,
    count: u64,
    length: usize,
    fail_at: Option<u64>,
    row: Vec<u8>,
}

impl Memory {
    fn new(count: u64, length: usize) -> Memory {
        Memory {
            next: 0,
            count,
            length,
            fail_at: None,
            row: Vec::new(),
        }
    }
}

impl RowSource for Memory {
    fn next_row(&mut self) -> Result<Option<&[u8]>> {
        if self.fail_at == Some(self.next) {
            return Err(Error::new(ErrorKind::Failed, "the connection was lost"));
        }
        if self.next == self.count {
            return Ok(None);
        }
        self.row.clear();
        write_cell(&mut self.row, Some(self.next.to_string().as_bytes()));
        let value = format!("{:x}-", self.next).repeat(self.length);
        write_cell(&mut self.row, Some(&value.as_bytes()[..self.length]));
        self.next += 1;
        Ok(Some(&self.row))
    }
}

struct Stage {
    blocks: BlockPool,
    failure: Arc<Failure>,
    lanes: Lanes,
}

impl Stage {
    fn new(blocks: usize, threads: usize) -> Stage {
        let blocks = BlockPool::new(blocks);
        let (counters, failure) = (Arc::new(Counters::default()), Arc::new(Failure::new()));
        let lanes = Lanes::new(threads, &counters, &failure).unwrap();
        Stage {
            blocks,
            failure,
            lanes,
        }
    }

    /// Streams `source` into `sink`; what the reader saw and the finished file.
    fn stream(
        &self,
        source: &mut dyn RowSource,
        sink: Box<dyn Sink>,
        compression: Compression,
    ) -> (Result<ChunkRead>, Option<FileEntry>) {
        let (stored, file) = crossbeam_channel::bounded(1);
        let mut lane = self.lanes.lane("t", sink, compression, move |entry| {
            let _ = stored.send(entry);
        });
        let script = ChunkScript {
            header: b"-- header\n".to_vec(),
            footer: b"-- footer\n".to_vec(),
        };
        let encoding = TableEncoding::new(&table(), 1 << 24);
        let meter = ChunkMeter::default();
        let stop = &self.failure.stop;
        let read = stream_chunk(
            source,
            &encoding,
            &script,
            &mut lane,
            &self.blocks,
            &meter,
            stop,
        );
        drop(lane);
        self.blocks.wait_until_all_returned();
        let file = match read {
            Ok(_) => file.recv_timeout(Duration::from_secs(10)).ok(),
            Err(_) => file.try_recv().ok(),
        };
        (read, file)
    }
}

fn export(
    count: u64,
    length: usize,
    compression: Compression,
    blocks: usize,
    threads: usize,
) -> (ChunkRead, Vec<u8>) {
    let stage = Stage::new(blocks, threads);
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let sink = Box::new(MemorySink::new("data/t.sql", Arc::clone(&bytes)));
    let (read, file) = stage.stream(&mut Memory::new(count, length), sink, compression);
    let bytes = bytes.lock().unwrap().clone();
    assert_eq!(file.expect("a finished file").bytes, bytes.len() as u64);
    (read.unwrap(), bytes)
}

#[test]
fn every_row_arrives_once_in_order_whatever_the_threads() {
    let (read, plain) = export(20_000, 300, Compression::None, 3, 1);
    assert_eq!((read.rows, read.raw_bytes), (20_000, plain.len() as u64));
    let text = String::from_utf8(plain.clone()).unwrap();
    assert!(
        text.starts_with("-- header\nINSERT INTO `t` (`id`,`v`) VALUES\n")
            && text.ends_with("-- footer\n")
    );
    let ids = text
        .lines()
        .filter_map(|l| l.strip_prefix('(')?.split(',').next()?.parse::<u64>().ok());
    assert!(ids.eq(0..20_000));
    for (blocks, threads) in [(2, 1), (4, 2), (16, 8)] {
        let (again, zstd) = export(20_000, 300, Compression::Zstd(1), blocks, threads);
        assert_eq!(again, read);
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), plain);
        assert_eq!(
            zstd,
            export(20_000, 300, Compression::Zstd(1), 3, 2).1,
            "the same bytes every time"
        );
    }
}

/// Notes which threads write to it.
struct Writers(MemorySink, Arc<Mutex<Vec<std::thread::ThreadId>>>);

impl Sink for Writers {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.1.lock().unwrap().push(std::thread::current().id());
        self.0.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<FileEntry> {
        Box::new(self.0).finish()
    }
}

#[test]
fn readers_compress_where_they_fill_the_processors_and_these_are_busy() {
    let own = std::thread::current().id();
    for (threads, busy, by_reader) in [(1, true, true), (1, false, false), (2, true, false)] {
        let (stage, writers) = (Stage::new(4, threads), Arc::default());
        stage.lanes.set_busy(busy);
        let memory = MemorySink::new("data/t.sql", Arc::default());
        let sink = Box::new(Writers(memory, Arc::clone(&writers)));
        let (read, _) = stage.stream(&mut Memory::new(20_000, 300), sink, Compression::Zstd(1));
        assert_eq!(read.unwrap().rows, 20_000);
        let writers = writers.lock().unwrap();
        assert!(writers.len() > 4 && writers.iter().all(|id| (*id == own) == by_reader));
    }
}

#[test]
fn blocks_of_the_pool_and_of_the_reader_are_written_in_order() {
    /// Another reader comes and goes all the time: there are processors for the pool, or none.
    struct Neighbour<'a> {
        rows: Memory,
        lanes: &'a Lanes,
        lane: Option<LaneHandle<'a>>,
    }
    impl RowSource for Neighbour<'_> {
        fn next_row(&mut self) -> Result<Option<&[u8]>> {
            if self.rows.next.is_multiple_of(2500) {
                self.lane = match self.lane.take() {
                    Some(_) => None,
                    None => {
                        let sink = Box::new(MemorySink::new("data/n.sql", Arc::default()));
                        Some(self.lanes.lane("n", sink, Compression::None, |_| {}))
                    }
                };
            }
            self.rows.next_row()
        }
    }
    let (stage, bytes) = (Stage::new(16, 2), Arc::default());
    stage.lanes.set_busy(true);
    let mut source = Neighbour {
        rows: Memory::new(50_000, 300),
        lanes: &stage.lanes,
        lane: None,
    };
    let sink = Box::new(MemorySink::new("data/t.sql", Arc::clone(&bytes)));
    let (_, file) = stage.stream(&mut source, sink, Compression::Zstd(1));
    assert!(file.is_some());
    let alone = export(50_000, 300, Compression::Zstd(1), 3, 2).1;
    assert!(*bytes.lock().unwrap() == alone);
}

#[test]
fn an_empty_table_has_a_file_without_rows() {
    let (read, plain) = export(0, 0, Compression::None, 2, 1);
    assert_eq!((read.rows, read.digest), (0, 0));
    assert_eq!(plain, b"-- header\n-- footer\n");
}

#[test]
fn a_row_larger_than_a_block_passes() {
    let (read, zstd) = export(3, 5 << 20, Compression::Zstd(1), 2, 2);
    assert_eq!(read.rows, 3);
    assert!(zstd::decode_all(&zstd[..]).unwrap().len() > 15 << 20);
}

#[test]
fn the_digest_does_not_depend_on_order() {
    struct Reversed(Vec<Vec<u8>>);
    impl RowSource for Reversed {
        fn next_row(&mut self) -> Result<Option<&[u8]>> {
            self.0.pop();
            Ok(self.0.last().map(|row| &row[..]))
        }
    }
    let mut source = Memory::new(100, 10);
    let mut rows = Vec::new();
    while let Some(row) = source.next_row().unwrap() {
        rows.push(row.to_vec());
    }
    rows.push(Vec::new());
    let stage = Stage::new(2, 1);
    let sink = Box::new(MemorySink::new("data/t.sql", Arc::default()));
    let (read, _) = stage.stream(&mut Reversed(rows), sink, Compression::None);
    assert_eq!(
        read.unwrap().digest,
        export(100, 10, Compression::None, 2, 1).0.digest
    );
    assert_ne!(
        export(100, 10, Compression::None, 2, 1).0.digest,
        export(101, 10, Compression::None, 2, 1).0.digest
    );
}

#[test]
fn a_source_that_fails_leaves_no_file_and_all_blocks() {
    let stage = Stage::new(2, 2);
    let mut source = Memory {
        fail_at: Some(15_000),
        ..Memory::new(20_000, 300)
    };
    let sink = Box::new(MemorySink::new("data/t.sql", Arc::default()));
    let (read, file) = stage.stream(&mut source, sink, Compression::Zstd(1));
    assert_eq!(read.unwrap_err().to_string(), "the connection was lost");
    assert!(file.is_none());
}

#[test]
fn a_sink_that_fails_or_panics_stops_the_reader_and_gives_the_blocks_back() {
    struct Broken(bool);
    impl Sink for Broken {
        fn write(&mut self, _: &[u8]) -> Result<()> {
            assert!(!self.0, "a defect in a sink");
            Err(Error::new(ErrorKind::Write, "the disk is full"))
        }
        fn finish(self: Box<Self>) -> Result<FileEntry> {
            unreachable!("finish after an error")
        }
    }
    // A panic where there is no pool is the reader's own, which is caught where readers are started.
    for (panics, compression, busy, kind) in [
        (false, Compression::None, false, ErrorKind::Write),
        (false, Compression::Zstd(1), false, ErrorKind::Write),
        (false, Compression::Zstd(1), true, ErrorKind::Write),
        (true, Compression::Zstd(1), false, ErrorKind::Internal),
    ] {
        let stage = Stage::new(2, if busy { 1 } else { 2 });
        stage.lanes.set_busy(busy);
        let sink = Box::new(Broken(panics));
        let (read, file) = stage.stream(&mut Memory::new(200_000, 300), sink, compression);
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Interrupted);
        assert!(file.is_none());
        assert_eq!(stage.failure.take().unwrap().kind(), kind);
    }
}
