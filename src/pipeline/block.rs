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

/// A buffer of whole statements, and the buffer they are compressed into.
#[derive(Debug, Default)]
pub struct Block {
    /// SQL text.
    pub raw: Vec<u8>,
    /// The same as a zstd frame.
    pub packed: Vec<u8>,
}

/// The fixed set of blocks.
#[derive(Debug, Clone)]
pub struct BlockPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    free: Receiver<Block>,
    give_back: Sender<Block>,
    size: usize,
}

impl BlockPool {
    /// A pool of `size` blocks; their memory is taken when they are first used.
    pub fn new(size: usize) -> BlockPool {
        let (give_back, free) = bounded(size);
        for _ in 0..size {
            let _ = give_back.try_send(Block::default());
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
                Ok(mut block) => {
                    block.raw.reserve(BLOCK_CAPACITY);
                    return Ok(block);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => stop.raise(),
            }
        }
    }

    /// Gives a block back, emptied.
    pub fn put(&self, mut block: Block) {
        for buffer in [&mut block.raw, &mut block.packed] {
            buffer.clear();
            if buffer.capacity() > KEEP_CAPACITY {
                *buffer = Vec::new();
            }
        }
        // There is room for all blocks that exist.
        let _ = self.shared.give_back.try_send(block);
    }

    /// Waits until nobody holds a block any more.
    pub fn wait_until_all_returned(&self) {
        let blocks: Vec<_> = self.shared.free.iter().take(self.shared.size).collect();
        for block in blocks {
            self.put(block);
        }
    }
}
