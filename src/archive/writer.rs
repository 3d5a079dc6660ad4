//! Dump bytes → sealed stream.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use sha2::{Digest as _, Sha256};
use zstd::bulk::Compressor;

use super::error::ArchiveError;
use super::header;
use super::index::{self, Index};
use super::pool::Pool;
use super::scan::{Contents, Scanner};
use super::seal::{FrameKey, Section, new_salt, write_section};
use super::{FRAME_BYTES, StreamId};
use crate::keys::SubKeys;

/// As much is read and scanned at once: it is still in the core's own cache when it is scanned.
const ROOM_BYTES: usize = 256 << 10;

/// Writes one stream: cuts plaintext into frames, compresses and seals them on several threads behind
/// bounded queues, and writes them in order. Dropped without [`finish`](Self::finish), the stream has
/// no last frame, and every reader says so.
pub struct ArchiveWriter<W: Write + Send + 'static> {
    scanner: Scanner,
    /// The frame that is being filled: room for a whole one, of which the first bytes are taken.
    filling: Vec<u8>,
    filled: usize,
    /// A full frame waits for the next byte, because only then is it known not to be the last.
    full: Option<Vec<u8>>,
    counter: u32,
    line: Line<W>,
    index_key: FrameKey,
    level: i32,
    failed: bool,
}

/// A finished stream. The sink is not yet synced: that is its owner's work.
#[derive(Debug)]
pub struct Finished<W> {
    /// Where it was written.
    pub sink: W,
    /// The table of contents and blocks that passed by.
    pub contents: Contents,
    /// The index as it was written.
    pub index: Index,
    /// Bytes written to the sink.
    pub stored_bytes: u64,
    /// SHA-256 over the bytes written to the sink, hexadecimal.
    pub stored_sha256: String,
}

impl<W: Write + Send + 'static> ArchiveWriter<W> {
    /// Writes the header. `level` is zstd's; `threads` compress and seal, one more thread writes.
    pub fn begin(sink: W, id: StreamId, keys: &SubKeys, level: i32, threads: usize) -> Result<Self, ArchiveError> {
        Self::begin_with(sink, id, keys, &Sealers::start(level, threads, 1)?)
    }

    /// Likewise, with threads that seal the frames of other streams as well.
    pub fn begin_with(sink: W, id: StreamId, keys: &SubKeys, sealers: &Arc<Sealers>) -> Result<Self, ArchiveError> {
        let salt = new_salt();
        let mut sink = Hashing::new(sink);
        sink.write_all(&header::encode(id, &salt))?;
        let data_key = FrameKey::new(&keys.frames, &salt, Section::Data, id, b"");
        Ok(ArchiveWriter {
            scanner: Scanner::new(keys.digest),
            filling: vec![0; FRAME_BYTES],
            filled: 0,
            full: None,
            counter: 0,
            line: Line::start(sink, data_key, Arc::clone(sealers))?,
            index_key: FrameKey::new(&keys.index, &salt, Section::Index, id, b""),
            level: sealers.level,
            failed: false,
        })
    }

    /// Takes the next plaintext bytes of the dump, in any portions; they are scanned as well. Errors
    /// of the sink and of the threads surface here or in [`finish`](Self::finish); after one, the
    /// writer can only be dropped.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let room = self.room();
            let count = bytes.len().min(room.len());
            let (now, later) = bytes.split_at(count);
            room[..count].copy_from_slice(now);
            self.fed(count)?;
            bytes = later;
        }
        Ok(())
    }

    /// Where the next plaintext bytes may be read to, so that nobody copies them once more. Never empty.
    pub fn room(&mut self) -> &mut [u8] {
        if self.filled == FRAME_BYTES {
            let mut fresh = self.line.sealers.plain_spare.take();
            // Costs nothing but the first time: a frame's buffer keeps its length.
            fresh.resize(FRAME_BYTES, 0);
            self.full = Some(std::mem::replace(&mut self.filling, fresh));
            self.filled = 0;
        }
        let end = FRAME_BYTES.min(self.filled + ROOM_BYTES);
        &mut self.filling[self.filled..end]
    }

    /// Takes the first `count` bytes of [`room`](Self::room), likewise.
    pub fn fed(&mut self, count: usize) -> Result<(), ArchiveError> {
        if self.failed {
            return Err(ArchiveError::AlreadyFailed);
        }
        let taken = self.take(count);
        self.failed = taken.is_err();
        taken
    }

    /// The table whose rows are passing by.
    pub fn current_table(&self) -> Option<String> {
        self.scanner.current_table()
    }

    /// Writes the last frame and the index, and flushes the sink. A dump that is not complete gets
    /// neither.
    pub fn finish(mut self) -> Result<Finished<W>, ArchiveError> {
        if self.failed {
            return Err(ArchiveError::AlreadyFailed);
        }
        let contents = self.scanner.finish()?;
        let last = self.full.take().unwrap_or_else(|| {
            self.filling.truncate(self.filled);
            self.filling
        });
        let mut line = self.line;
        line.send(self.counter, true, last)?;
        let (mut sink, frames) = line.finish()?;
        let index = Index {
            frames,
            raw_bytes: contents.raw_bytes,
            toc_bytes: contents.toc.length_bytes,
            blocks: contents.blocks.clone(),
        };
        let encoded = index::encode(&index)?;
        write_section(&self.index_key, self.level, &encoded, &mut sink)?;
        sink.flush()?;
        Ok(Finished {
            contents,
            index,
            stored_bytes: sink.bytes,
            stored_sha256: hex::encode(sink.hash.finalize()),
            sink: sink.sink,
        })
    }

    fn take(&mut self, count: usize) -> Result<(), ArchiveError> {
        let end = self.filled.saturating_add(count).min(FRAME_BYTES);
        self.scanner.feed(&self.filling[self.filled..end])?;
        if end > self.filled
            && let Some(full) = self.full.take()
        {
            self.line.send(self.counter, false, full)?;
            self.counter = self.counter.checked_add(1).ok_or(ArchiveError::TooLarge { section: "data" })?;
        }
        self.filled = end;
        Ok(())
    }
}

/// A frame's plaintext, to be sealed under its stream's key.
struct Job {
    key: Arc<FrameKey>,
    counter: u32,
    last: bool,
    plain: Vec<u8>,
}

type Sealed = Result<Vec<u8>, ArchiveError>;

/// The threads that compress and seal, for all the streams of a backup together: however many there are, they
/// take the cores of one, and the memory of little more.
pub struct Sealers {
    pool: Pool<Job, Sealed>,
    level: i32,
    /// Frames that a stream may have on their way.
    ahead: usize,
    plain_spare: Spare,
    frame_spare: Spare,
}

impl Sealers {
    /// Starts `threads` threads (one at least) that compress with zstd's `level`, for that many `streams`.
    pub fn start(level: i32, threads: usize, streams: usize) -> Result<Arc<Sealers>, ArchiveError> {
        let threads = threads.max(1);
        let (plain_spare, frame_spare) = (Spare::new(2 * threads), Spare::new(2 * threads));
        let pool = Pool::start(threads, || {
            let mut compressor = Compressor::new(level)?;
            let (plain_spare, frame_spare) = (plain_spare.clone(), frame_spare.clone());
            Ok(move |job: Job| -> Sealed {
                let mut frame = frame_spare.take();
                job.key.seal(&mut compressor, job.counter, job.last, &job.plain, &mut frame)?;
                plain_spare.put(job.plain);
                Ok(frame)
            })
        })?;
        Ok(Arc::new(Sealers { pool, level, ahead: (2 * threads / streams.max(1)).max(1), plain_spare, frame_spare }))
    }
}

/// The sink behind the last data frame, and the length of each.
type Written<W> = (Hashing<W>, Vec<u32>);

/// One stream's frames on their way through the sealing threads, and the thread that writes them in order.
struct Line<W> {
    sealers: Arc<Sealers>,
    key: Arc<FrameKey>,
    /// One receiver a frame, in order; bounded, and with it the frames in flight.
    ordered: Option<SyncSender<Receiver<Sealed>>>,
    writing: Option<JoinHandle<Result<Written<W>, ArchiveError>>>,
    abandoned: Arc<AtomicBool>,
}

impl<W: Write + Send + 'static> Line<W> {
    fn start(mut sink: Hashing<W>, key: FrameKey, sealers: Arc<Sealers>) -> Result<Self, ArchiveError> {
        let (ordered, results) = sync_channel::<Receiver<Sealed>>(sealers.ahead);
        let abandoned = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&abandoned);
        let frame_spare = sealers.frame_spare.clone();
        let writing = Builder::new().name("archive".to_owned()).spawn(move || {
            let mut lengths = Vec::new();
            for result in results {
                if stop.load(Ordering::Relaxed) {
                    return Err(ArchiveError::AlreadyFailed);
                }
                let frame = result.recv().map_err(|_| worker_lost())??;
                sink.write_all(&frame)?;
                lengths.push(u32::try_from(frame.len()).map_err(|_| worker_lost())?);
                frame_spare.put(frame);
            }
            Ok((sink, lengths))
        })?;
        Ok(Line { sealers, key: Arc::new(key), ordered: Some(ordered), writing: Some(writing), abandoned })
    }

    fn send(&mut self, counter: u32, last: bool, plain: Vec<u8>) -> Result<(), ArchiveError> {
        let job = Job { key: Arc::clone(&self.key), counter, last, plain };
        let sent = match (self.sealers.pool.submit(job), &self.ordered) {
            (Ok(result), Some(ordered)) => ordered.send(result).is_ok(),
            _ => false,
        };
        if sent {
            return Ok(());
        }
        // The writing thread has stopped early: what stopped it is the error.
        Err(self.join().err().unwrap_or_else(worker_lost))
    }

    fn finish(mut self) -> Result<Written<W>, ArchiveError> {
        self.join()
    }
}

impl<W> Line<W> {
    fn join(&mut self) -> Result<Written<W>, ArchiveError> {
        self.ordered = None;
        let writing = self.writing.take().ok_or(ArchiveError::AlreadyFailed)?;
        writing.join().map_err(|_| worker_lost())?
    }
}

impl<W> Drop for Line<W> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        // The sink is closed when this returns, so that its owner may remove what it wrote.
        let _ = self.join();
    }
}

fn worker_lost() -> ArchiveError {
    ArchiveError::Sealing("a thread stopped".to_owned())
}

/// Buffers that go round instead of being allocated anew.
#[derive(Clone)]
struct Spare {
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
    most: usize,
}

impl Spare {
    fn new(most: usize) -> Self {
        Spare { buffers: Arc::default(), most }
    }

    fn take(&self) -> Vec<u8> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.pop().unwrap_or_else(|| Vec::with_capacity(FRAME_BYTES))
    }

    fn put(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < self.most {
            buffers.push(buffer);
        }
    }
}

/// Counts and hashes what is written.
struct Hashing<W> {
    sink: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    fn new(sink: W) -> Self {
        Hashing { sink, hash: Sha256::new(), bytes: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.sink.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}
