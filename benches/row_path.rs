//! The stages of the row path one by one, from rows in memory and without a server: parsing
//! packets, encoding, compressing, and all of it together. `cargo bench --bench row_path`;
//! arguments select by name, and `-- --test` only shows that everything runs. Rates are those of
//! SQL text, of the packets' bytes for the parser.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use sha2::{Digest, Sha256};

use schema_backup::config::Compression;
use schema_backup::encode::insert::{InsertWriter, Room, TableEncoding};
use schema_backup::pipeline::{
    BlockPool, ChunkMeter, ChunkScript, Counters, Failure, Lanes, stream_chunk,
};
use schema_backup::server::catalog::{Column, Table};
use schema_backup::server::rows::RowSource;
use schema_backup::server::wire::{PacketReader, read_row, write_cell};
use schema_backup::store::manifest::{FileEntry, TableKind};
use schema_backup::store::sink::Sink;

/// What the rows of one kind come to, about: more than the caches hold.
const DATA_BYTES: usize = 8 << 20;
/// As the pipeline's blocks.
const BLOCK_BYTES: usize = 1 << 20;
const SEED: u64 = 4;

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(5))
        .sample_size(20)
        .configure_from_args();
    packet_parser(&mut criterion.benchmark_group("packet_parser"));
    encoder(&mut criterion.benchmark_group("encoder"));
    compression(&mut criterion.benchmark_group("compression"));
    pipeline(&mut criterion.benchmark_group("pipeline"));
    criterion.final_summary();
}

fn packet_parser(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut stream = Vec::new();
    let mut sequence = 0u8;
    let mut packet = |payload: &[u8]| {
        stream.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
        stream.push(sequence);
        stream.extend_from_slice(payload);
        sequence = sequence.wrapping_add(1);
    };
    let data = lineitem();
    data.rows.iter().for_each(&mut packet);
    packet(&[0xfe, 0, 0, 0, 0]);
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("lineitem", |b| {
        b.iter(|| {
            let mut packets = PacketReader::new(&stream[..], 0);
            while let Some(row) = read_row(&mut packets).expect("packets in order") {
                black_box(row);
            }
        });
    });
}

fn encoder(group: &mut BenchmarkGroup<'_, WallTime>) {
    let all = [
        ("lineitem", lineitem()),
        ("text_4k", texts(None)),
        ("text_4k_lines", texts(Some(64))),
        ("blob_4k", blobs()),
        ("doubles", doubles()),
    ];
    for (name, data) in &all {
        let blocks = data.encode();
        group.throughput(Throughput::Bytes(length(&blocks)));
        let mut block = Vec::with_capacity(2 * BLOCK_BYTES);
        group.bench_function(*name, |b| {
            b.iter(|| {
                let mut writer = InsertWriter::new(&data.encoding, BLOCK_BYTES);
                for row in data.rows.iter() {
                    if writer.push(row, &mut block).expect("a good row") == Room::Full {
                        black_box(&block);
                        block.clear();
                        writer.resume(&mut block);
                    }
                }
                writer.close(&mut block);
                black_box(&block);
                block.clear();
            });
        });
    }
}

/// One thread that compresses.
fn compression(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sampling_mode(SamplingMode::Flat);
    let blocks = lineitem().encode();
    group.throughput(Throughput::Bytes(length(&blocks)));
    for level in [1, 3] {
        let stage = Stage::new(1);
        group.bench_function(format!("lineitem_zstd{level}"), |b| {
            b.iter(|| {
                stage.store(
                    Compression::Zstd(level),
                    Discard(0),
                    |lane, pool, failure| {
                        for (at, raw) in blocks.iter().enumerate() {
                            let mut block = pool.take(&failure.stop).expect("nothing stops it");
                            block.raw.extend_from_slice(raw);
                            lane.send(block, at + 1 == blocks.len());
                        }
                    },
                )
            });
        });
    }
}

/// One reader, and as many threads that compress and hash as there are cores.
fn pipeline(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sampling_mode(SamplingMode::Flat);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all = [
        ("lineitem", lineitem()),
        ("text_4k_lines", texts(Some(64))),
        ("doubles", doubles()),
    ];
    for (name, data) in &all {
        group.throughput(Throughput::Bytes(length(&data.encode())));
        for (method, compression) in [
            ("plain", Compression::None),
            ("zstd1", Compression::Zstd(1)),
        ] {
            let stage = Stage::new(cores);
            group.bench_function(format!("{name}_{method}"), |b| {
                b.iter(|| {
                    stage.store(compression, Hash::default(), |lane, pool, failure| {
                        stream_chunk(
                            &mut Memory {
                                rows: &data.rows,
                                next: 0,
                            },
                            &data.encoding,
                            &ChunkScript::default(),
                            lane,
                            pool,
                            &ChunkMeter::default(),
                            &failure.stop,
                        )
                        .expect("good rows");
                    })
                });
            });
        }
    }
}

/// What stands behind a reader.
struct Stage {
    blocks: BlockPool,
    failure: Arc<Failure>,
    lanes: Lanes,
}

impl Stage {
    fn new(threads: usize) -> Stage {
        let failure = Arc::new(Failure::new());
        let lanes = Lanes::new(threads, &Arc::new(Counters::default()), &failure);
        Stage {
            blocks: BlockPool::new(2 + threads + 2),
            failure,
            lanes: lanes.expect("threads"),
        }
    }

    /// Fills a lane into `sink`, and waits until the file is complete.
    fn store(
        &self,
        compression: Compression,
        sink: impl Sink + 'static,
        fill: impl FnOnce(&mut schema_backup::pipeline::LaneHandle<'_>, &BlockPool, &Failure),
    ) -> FileEntry {
        let (stored, file) = std::sync::mpsc::channel();
        let mut lane = self
            .lanes
            .lane("t", Box::new(sink), compression, move |entry| {
                // The other end waits for it.
                let _ = stored.send(entry);
            });
        fill(&mut lane, &self.blocks, &self.failure);
        file.recv().expect("a complete file")
    }
}

/// A sink that counts.
struct Discard(u64);

impl Sink for Discard {
    fn write(&mut self, bytes: &[u8]) -> schema_backup::Result<()> {
        self.0 += black_box(bytes).len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> schema_backup::Result<FileEntry> {
        Ok(FileEntry {
            file: String::new(),
            bytes: self.0,
            sha256: String::new(),
        })
    }
}

/// A sink that does what one for files does, but for the file.
#[derive(Default)]
struct Hash {
    bytes: u64,
    hasher: Sha256,
}

impl Sink for Hash {
    fn write(&mut self, bytes: &[u8]) -> schema_backup::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> schema_backup::Result<FileEntry> {
        let sha256 = format!("{:x?}", self.hasher.finalize());
        Ok(FileEntry {
            file: String::new(),
            bytes: self.bytes,
            sha256,
        })
    }
}

/// Rows as the text protocol states them, one behind the other.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows {
    fn get(&self, at: usize) -> Option<&[u8]> {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        Some(&self.bytes[start..*self.ends.get(at)?])
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).filter_map(|at| self.get(at))
    }
}

struct Memory<'a> {
    rows: &'a Rows,
    next: usize,
}

impl RowSource for Memory<'_> {
    fn next_row(&mut self) -> schema_backup::Result<Option<&[u8]>> {
        self.next += 1;
        Ok(self.rows.get(self.next - 1))
    }
}

/// The rows of one table.
struct Data {
    encoding: TableEncoding,
    rows: Rows,
}

impl Data {
    /// A table of columns of these types, text in utf8mb4, and rows from their numbers.
    fn new(types: &[&str], row: impl Fn(u64, &mut fastrand::Rng) -> Vec<Vec<u8>>) -> Data {
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut rows = Rows::default();
        for number in 1.. {
            for cell in row(number, &mut random) {
                write_cell(&mut rows.bytes, Some(&cell));
            }
            rows.ends.push(rows.bytes.len());
            if rows.bytes.len() >= DATA_BYTES {
                break;
            }
        }
        Data {
            encoding: TableEncoding::new(&table(types), 16 << 20),
            rows,
        }
    }

    /// The SQL text, in blocks.
    fn encode(&self) -> Vec<Vec<u8>> {
        let mut writer = InsertWriter::new(&self.encoding, BLOCK_BYTES);
        let (mut blocks, mut block) = (Vec::new(), Vec::new());
        for row in self.rows.iter() {
            if writer.push(row, &mut block).expect("a good row") == Room::Full {
                blocks.push(std::mem::take(&mut block));
                writer.resume(&mut block);
            }
        }
        writer.close(&mut block);
        blocks.push(block);
        blocks
    }
}

fn length(blocks: &[Vec<u8>]) -> u64 {
    blocks.iter().map(|block| block.len() as u64).sum()
}

/// TPC-H's lineitem.
fn lineitem() -> Data {
    let types = [
        "bigint", "int", "int", "int", "decimal", "decimal", "decimal", "decimal", "char", "char",
        "date", "date", "date", "char", "char", "varchar",
    ];
    let shipinstruct = [
        "DELIVER IN PERSON",
        "COLLECT COD",
        "NONE",
        "TAKE BACK RETURN",
    ];
    let shipmode = ["REG AIR", "AIR", "RAIL", "TRUCK", "FOB"];
    let words = "carefully final deposits among the slyly ironic accounts";
    Data::new(&types, |number, random| {
        let date = |random: &mut fastrand::Rng| {
            let (year, month, day) = (random.u16(1992..1999), random.u8(1..13), random.u8(1..29));
            format!("{year}-{month:02}-{day:02}")
        };
        let cells = [
            (number / 4).to_string(),
            random.u32(..200_000).to_string(),
            random.u32(..10_000).to_string(),
            (1 + number % 4).to_string(),
            format!("{}.00", random.u8(1..51)),
            format!("{}.{:02}", random.u32(900..100_000), random.u8(..100)),
            format!("0.{:02}", random.u8(..11)),
            format!("0.{:02}", random.u8(..9)),
            random
                .choice(["A", "N", "R"])
                .unwrap_or_default()
                .to_owned(),
            random.choice(["F", "O"]).unwrap_or_default().to_owned(),
            date(random),
            date(random),
            date(random),
            random.choice(shipinstruct).unwrap_or_default().to_owned(),
            random.choice(shipmode).unwrap_or_default().to_owned(),
            words[..random.usize(10..43)].to_owned(),
        ];
        cells.map(String::into_bytes).into()
    })
}

/// Texts of 4 KiB, in lines of this length.
fn texts(line: Option<usize>) -> Data {
    Data::new(&["int", "text"], |number, random| {
        let letter = |at: usize, random: &mut fastrand::Rng| match line {
            Some(line) if at % line == line - 1 => b'\n',
            _ => random.u8(b'a'..=b'z'),
        };
        let text = (0..4096).map(|at| letter(at, random)).collect();
        vec![number.to_string().into_bytes(), text]
    })
}

/// Random bytes, 4 KiB each.
fn blobs() -> Data {
    Data::new(&["int", "blob"], |number, random| {
        let mut blob = vec![0; 4096];
        random.fill(&mut blob);
        vec![number.to_string().into_bytes(), blob]
    })
}

fn doubles() -> Data {
    Data::new(
        &["int", "double", "double", "double", "double"],
        |number, random| {
            let mut cells = vec![number.to_string().into_bytes()];
            cells.extend((0..4).map(|_| format!("{}", random.f64() * 1e6).into_bytes()));
            cells
        },
    )
}

fn table(types: &[&str]) -> Table {
    let column = |(at, data_type): (usize, &&str)| Column {
        name: format!("column{at}"),
        data_type: (*data_type).into(),
        charset: matches!(*data_type, "char" | "varchar" | "text").then(|| "utf8mb4".into()),
        nullable: false,
        generated: false,
        period: None,
        members: 0,
        by_number: false,
        bare_timestamp: false,
        srid: 0,
        fixed_decimals: false,
        zerofill: false,
        sorted_with_pad: false,
    };
    Table {
        name: "t".into(),
        kind: TableKind::Table,
        engine: "InnoDB".into(),
        transactional: true,
        rows: 0,
        data_bytes: 0,
        partitioned: false,
        auto_increment: None,
        lax_foreign_keys: false,
        columns: types.iter().enumerate().map(column).collect(),
        keys: Vec::new(),
        versioned: false,
    }
}
