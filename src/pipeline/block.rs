//! Blocks: reusable buffers of whole SQL statements. There is a fixed number of them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::interrupt::Interrupt;

/// Bytes of SQL text that a block usually holds.
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// The same of one that is not compressed: small beside the cache of a core.
pub(super) const PLAIN_BLOCK_BYTES: usize = 384 << 10;
/// Room that a block starts with: a statement and what stands around it in a file.
const BLOCK_CAPACITY: usize = BLOCK_BYTES + (64 << 10);
/// A block that a large row made grow beyond this gives the memory back.
const KEEP_CAPACITY: usize = 2 * BLOCK_BYTES;
/// How long to wait for a block before looking whether the run is to stop.
const TURN: Duration = Duration::from_millis(200);

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
        self.pool.give_back(buffers);
    }
}

/// The fixed set of blocks. The one that came back last goes out first: it may still be in a cache.
#[derive(Debug, Clone)]
pub struct BlockPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    free: Mutex<Vec<Buffers>>,
    returned: Condvar,
    size: usize,
}

impl BlockPool {
    /// A pool of `size` blocks; their memory is taken when they are first used.
    pub fn new(size: usize) -> BlockPool {
        let free = (0..size).map(|_| Buffers::default()).collect();
        BlockPool {
            shared: Arc::new(Shared {
                free: Mutex::new(free),
                returned: Condvar::new(),
                size,
            }),
        }
    }

    /// An empty block; waits for one, until `stop` is raised.
    pub fn take(&self, stop: &Interrupt) -> Result<Block> {
        let mut free = self.free();
        loop {
            stop.check()?;
            if let Some(Buffers { mut raw, packed }) = free.pop() {
                drop(free);
                raw.reserve(BLOCK_CAPACITY);
                return Ok(Block {
                    raw,
                    packed,
                    pool: self.clone(),
                });
            }
            let returned = self.shared.returned.wait_timeout(free, TURN);
            (free, _) = returned.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, buffers: Buffers) {
        self.free().push(buffers);
        self.shared.returned.notify_all();
    }

    /// Waits until nobody holds a block any more.
    pub fn wait_until_all_returned(&self) {
        let held = |free: &mut Vec<Buffers>| free.len() < self.shared.size;
        drop(self.shared.returned.wait_while(self.free(), held));
    }

    fn free(&self) -> MutexGuard<'_, Vec<Buffers>> {
        let free = self.shared.free.lock();
        free.unwrap_or_else(PoisonError::into_inner)
    }
}
