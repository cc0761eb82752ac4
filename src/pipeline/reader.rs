//! Reading one chunk: rows from a source into the blocks of a lane, with a digest and a
//! count taken on the way.

use std::sync::atomic::Ordering;

use xxhash_rust::xxh3::xxh3_128;

use super::block::BlockPool;
use super::lane::LaneHandle;
use super::progress::ChunkMeter;
use crate::encode::insert::{InsertWriter, Room, TableEncoding};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::server::rows::RowSource;

/// What stands before and after the rows in a file.
#[derive(Debug, Clone, Default)]
pub struct ChunkScript {
    /// Before the first row.
    pub header: Vec<u8>,
    /// After the last row.
    pub footer: Vec<u8>,
}

/// What a reader saw of a chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChunkRead {
    /// Rows.
    pub rows: u64,
    /// Sum, modulo 2^128, of XXH3-128 over the rows.
    pub digest: u128,
    /// Bytes of SQL text, header and footer included.
    pub raw_bytes: u64,
    /// The longest statement, in bytes.
    pub largest_statement: usize,
}

/// Reads all rows of `source` and sends them, encoded, down the lane. `meter` counts along.
pub fn stream_chunk(
    source: &mut dyn RowSource,
    encoding: &TableEncoding,
    script: &ChunkScript,
    lane: &mut LaneHandle<'_>,
    blocks: &BlockPool,
    meter: &ChunkMeter,
    stop: &Interrupt,
) -> Result<ChunkRead> {
    /// Rows between two looks at the stop flag.
    const LOOK: u64 = 256;
    let mut read = ChunkRead::default();
    let mut writer = InsertWriter::new(encoding, lane.block_bytes());
    let mut block = blocks.take(stop)?;
    block.raw.extend_from_slice(&script.header);
    let outcome = loop {
        let row = match source.next_row() {
            Ok(Some(row)) => row,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        read.digest = read.digest.wrapping_add(xxh3_128(row));
        read.rows += 1;
        match writer.push(row, &mut block.raw) {
            Ok(Room::Left) => {}
            Ok(Room::Full) => {
                read.raw_bytes += block.raw.len() as u64;
                lane.send(block, false);
                block = blocks.take(stop)?;
                writer.resume(&mut block.raw);
            }
            Err(error) => break Err(error),
        }
        if read.rows.is_multiple_of(LOOK) {
            meter.rows.store(read.rows, Ordering::Relaxed);
            let raw_bytes = read.raw_bytes + block.raw.len() as u64;
            meter.raw_bytes.store(raw_bytes, Ordering::Relaxed);
            if let Err(error) = stop.check() {
                break Err(error);
            }
        }
    };
    outcome?;
    writer.close(&mut block.raw);
    block.raw.extend_from_slice(&script.footer);
    read.raw_bytes += block.raw.len() as u64;
    read.largest_statement = writer.largest_statement();
    meter.rows.store(read.rows, Ordering::Relaxed);
    meter.raw_bytes.store(read.raw_bytes, Ordering::Relaxed);
    lane.send(block, true);
    Ok(read)
}
