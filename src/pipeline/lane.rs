//! Lanes: one for each file being written. Blocks are compressed in any order and written in the
//! order in which they were filled. Completing a file waits for storage, which is nothing to keep
//! a processor waiting for: other threads do that.
//!
//! A pool compresses, so that the connection does not wait for it. But where there are as many
//! readers as processors, and these have no time to spare, as beside a server on the same machine,
//! each reader compresses what it has encoded: it is in the cache of its core, where another would
//! have to fetch it. Exporting 1.6 GB over two connections on two cores took 0.95 of the time where
//! readers always did.
//!
//! What is not compressed is always hashed and written by its reader, in smaller blocks: 2.4 s of
//! user time in place of 3.0 for the same 1.6 GB. The server takes longer to send rows than all of
//! this, and goes on meanwhile: the socket's buffer holds about half a block.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use super::block::{BLOCK_BYTES, Block, PLAIN_BLOCK_BYTES};
use super::{Counters, Failure};
use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::store::manifest::FileEntry;
use crate::store::sink::Sink;

/// The pool that compresses and writes what it has compressed, and what all lanes share.
pub struct Lanes {
    pool: rayon::ThreadPool,
    /// Lanes that readers are filling.
    filling: AtomicUsize,
    /// Whether processors had no time to spare lately.
    busy: AtomicBool,
    shared: Arc<Shared>,
}

struct Shared {
    counters: Arc<Counters>,
    failure: Arc<Failure>,
    /// Completes files.
    finishers: rayon::ThreadPool,
}

/// The largest file, in bytes of SQL, that its reader compresses and writes in any case.
const SMALL_FILE: usize = 128 << 10;

type OnStored = Box<dyn FnOnce(FileEntry) + Send>;

/// One file being written.
struct Lane {
    state: Mutex<State>,
    shared: Arc<Shared>,
    compression: Compression,
    /// The table, for errors.
    table: String,
}

struct State {
    /// Taken while a thread is writing.
    sink: Option<Box<dyn Sink>>,
    /// Told once, when the file is complete.
    on_stored: Option<OnStored>,
    /// Compressed blocks by their place in the file.
    ready: BTreeMap<u64, (Block, bool)>,
    next: u64,
    writing: bool,
}

impl Lanes {
    /// Lanes whose blocks `threads` threads compress, one for each processor, or their readers while
    /// these keep all of them busy.
    pub fn new(threads: usize, counters: &Arc<Counters>, failure: &Arc<Failure>) -> Result<Lanes> {
        let shared = Shared {
            counters: Arc::clone(counters),
            failure: Arc::clone(failure),
            finishers: start(threads, "finish", failure)?,
        };
        Ok(Lanes {
            pool: start(threads, "compress", failure)?,
            filling: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            shared: Arc::new(shared),
        })
    }

    /// A lane into `sink` for rows of `table`. `on_stored` is told when the file is complete.
    pub fn lane(
        &self,
        table: &str,
        sink: Box<dyn Sink>,
        compression: Compression,
        on_stored: impl FnOnce(FileEntry) + Send + 'static,
    ) -> LaneHandle<'_> {
        let state = State {
            sink: Some(sink),
            on_stored: Some(Box::new(on_stored)),
            ready: BTreeMap::new(),
            next: 0,
            writing: false,
        };
        let lane = Lane {
            state: Mutex::new(state),
            shared: Arc::clone(&self.shared),
            compression,
            table: table.to_owned(),
        };
        self.filling.fetch_add(1, Ordering::Relaxed);
        LaneHandle {
            lane: Arc::new(lane),
            lanes: self,
            sequence: 0,
        }
    }

    /// Says whether processors had no time to spare lately.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether the readers have work for all processors, and these no time for more.
    fn readers_fill_processors(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
            && self.filling.load(Ordering::Relaxed) >= self.pool.current_num_threads()
    }
}

/// Threads of which a panic fails the run.
fn start(threads: usize, name: &'static str, failure: &Arc<Failure>) -> Result<rayon::ThreadPool> {
    let failed = Arc::clone(failure);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |n| format!("{name}-{n}"))
        .panic_handler(move |_| {
            failed.set(Error::new(
                ErrorKind::Internal,
                format!("a thread of the pool `{name}` panicked"),
            ));
        })
        .build()
        .map_err(|e| Error::new(ErrorKind::Internal, "cannot start threads").because(e))
}

/// The reader's end of a lane.
pub struct LaneHandle<'a> {
    lane: Arc<Lane>,
    lanes: &'a Lanes,
    sequence: u64,
}

impl Drop for LaneHandle<'_> {
    fn drop(&mut self) {
        self.lanes.filling.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LaneHandle<'_> {
    /// Bytes of SQL text that a block of this file usually holds.
    pub fn block_bytes(&self) -> usize {
        match self.lane.compression {
            Compression::None => PLAIN_BLOCK_BYTES,
            Compression::Zstd(_) => BLOCK_BYTES,
        }
    }

    /// Sends the next block of the file on its way; the last one completes it. A file that is one
    /// small block is written here and now: handing it on would cost more.
    pub fn send(&mut self, block: Block, last: bool) {
        let sequence = self.sequence;
        self.sequence += 1;
        if last && sequence == 0 && block.raw.len() <= SMALL_FILE {
            return self.lane.deliver_small(block);
        }
        if self.lane.compression == Compression::None || self.lanes.readers_fill_processors() {
            return self.lane.deliver(sequence, block, last);
        }
        let lane = Arc::clone(&self.lane);
        let deliver = move || lane.deliver(sequence, block, last);
        self.lanes.pool.spawn(deliver);
    }
}

impl Lane {
    /// Compresses, writes and completes a file of one block.
    fn deliver_small(&self, mut block: Block) {
        let raw_bytes = block.raw.len() as u64;
        self.count(&self.shared.counters.raw_bytes, raw_bytes);
        let Some(mut sink) = self.lock().sink.take() else {
            return;
        };
        let stored = compress(self.compression, &mut block).and_then(|()| {
            let bytes = self.stored_form(&block);
            self.count(&self.shared.counters.stored_bytes, bytes.len() as u64);
            sink.write(bytes)?;
            sink.finish()
        });
        match stored {
            Ok(file) => self.stored(file),
            Err(error) => self.fail(error),
        }
    }

    fn count(&self, counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What of a compressed block goes into the file.
    fn stored_form<'b>(&self, block: &'b Block) -> &'b [u8] {
        match self.compression {
            Compression::None => &block.raw,
            Compression::Zstd(_) => &block.packed,
        }
    }

    fn deliver(self: &Arc<Self>, sequence: u64, mut block: Block, last: bool) {
        if self.shared.failure.stop.is_raised() {
            return;
        }
        failpoint::pass("compress-block");
        let raw_bytes = block.raw.len() as u64;
        self.count(&self.shared.counters.raw_bytes, raw_bytes);
        if let Err(error) = compress(self.compression, &mut block) {
            return self.fail(error);
        }
        let mut state = self.lock();
        state.ready.insert(sequence, (block, last));
        if !state.writing {
            state.writing = true;
            self.write_ready(state);
        }
    }

    /// Writes what is next in order, for as long as there is something. One thread at a time;
    /// after a failure the sink is gone and nobody writes any more. A run that is to stop does
    /// not wait until slow storage has taken all that is ready.
    fn write_ready<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) {
        loop {
            if self.shared.failure.stop.is_raised() {
                state.ready.clear();
                return;
            }
            let next = state.next;
            let Some((block, last)) = state.ready.remove(&next) else {
                state.writing = false;
                return;
            };
            state.next += 1;
            let sink = state.sink.take();
            drop(state);
            let Some(mut sink) = sink else { return };
            let bytes = self.stored_form(&block);
            let written = sink.write(bytes);
            self.count(&self.shared.counters.stored_bytes, bytes.len() as u64);
            drop(block);
            if let Err(error) = written {
                return self.fail(error);
            }
            if last {
                let lane = Arc::clone(self);
                return self.shared.finishers.spawn(move || match sink.finish() {
                    Ok(file) => lane.stored(file),
                    Err(error) => lane.fail(error),
                });
            }
            state = self.lock();
            state.sink = Some(sink);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: Error) {
        self.shared
            .failure
            .set(error.within(format_args!("table `{}`", self.table)));
    }

    fn stored(&self, file: FileEntry) {
        failpoint::pass("file-complete");
        let on_stored = self.lock().on_stored.take();
        if let Some(on_stored) = on_stored {
            on_stored(file);
        }
    }
}

thread_local! {
    /// One context for each thread that compresses, kept with its level.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
}

/// Makes `block.packed` a zstd frame of its own, with its size and a checksum.
fn compress(compression: Compression, block: &mut Block) -> Result<()> {
    let Compression::Zstd(level) = compression else {
        return Ok(());
    };
    let failed = |e| Error::new(ErrorKind::Internal, "zstd failed").because(e);
    COMPRESSOR.with_borrow_mut(|slot| {
        if !matches!(slot, Some((kept, _)) if *kept == level) {
            let mut compressor = Compressor::new(level).map_err(failed)?;
            compressor
                .set_parameter(CParameter::ChecksumFlag(true))
                .map_err(failed)?;
            *slot = Some((level, compressor));
        }
        let Some((_, compressor)) = slot else {
            return Ok(());
        };
        block.packed.clear();
        block.packed.reserve(compress_bound(block.raw.len()));
        compressor
            .compress_to_buffer(&block.raw, &mut block.packed)
            .map_err(failed)?;
        Ok(())
    })
}
