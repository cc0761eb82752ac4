//! Blocks: reusable buffers of whole SQL statements. There is a fixed number of them.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::error::Result;
use crate::interrupt::Interrupt;

/// Bytes of SQL text that a block usually holds.
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// Room that a block starts with: a statement and what stands around it in a file.
const BLOCK_CAPACITY: usize = BLOCK_BYTES + (64 << 10);
/// A block that a large row made grow beyond this gives the memory back.
const KEEP_CAPACITY: usize = 2 * BLOCK_BYTES;

#[derive(Debug, Default)]
struct Buffers {
    raw: Vec<u8>,
    packed: Vec<u8>,
}

/// A buffer of whole statements, and the buffer they are compressed into. Dropped, wherever
/// and for whatever reason, it goes back to its pool, emptied.
#[derive(Debug)]
pub struct Block {
    /// SQL text.
    pub raw: Vec<u8>,
    /// The same as a zstd frame.
    pub packed: Vec<u8>,
    pool: BlockPool,
}

impl Drop for Block {
    fn drop(&mut self) {
        let empty = |buffer: &mut Vec<u8>| {
            buffer.clear();
            if buffer.capacity() > KEEP_CAPACITY {
                Vec::new()
            } else {
                std::mem::take(buffer)
            }
        };
        let buffers = Buffers {
            raw: empty(&mut self.raw),
            packed: empty(&mut self.packed),
        };
        // There is room for all blocks that exist.
        let _ = self.pool.shared.give_back.try_send(buffers);
    }
}

/// The fixed set of blocks.
#[derive(Debug, Clone)]
pub struct BlockPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    free: Receiver<Buffers>,
    give_back: Sender<Buffers>,
    size: usize,
}

impl BlockPool {
    /// A pool of `size` blocks; their memory is taken when they are first used.
    pub fn new(size: usize) -> BlockPool {
        let (give_back, free) = bounded(size);
        for _ in 0..size {
            let _ = give_back.try_send(Buffers::default());
        }
        BlockPool {
            shared: Arc::new(Shared {
                free,
                give_back,
                size,
            }),
        }
    }

    /// An empty block; waits for one, until `stop` is raised.
    pub fn take(&self, stop: &Interrupt) -> Result<Block> {
        loop {
            stop.check()?;
            match self.shared.free.recv_timeout(Duration::from_millis(200)) {
                Ok(Buffers { mut raw, packed }) => {
                    raw.reserve(BLOCK_CAPACITY);
                    return Ok(Block {
                        raw,
                        packed,
                        pool: self.clone(),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => stop.raise(),
            }
        }
    }

    /// Waits until nobody holds a block any more.
    pub fn wait_until_all_returned(&self) {
        let all: Vec<_> = self.shared.free.iter().take(self.shared.size).collect();
        for buffers in all {
            let _ = self.shared.give_back.try_send(buffers);
        }
    }
}
