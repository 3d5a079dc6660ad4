//! Authenticates a whole stream without giving its plaintext out.
//!
//! A frame's tag is over its compressed bytes, so that authenticating does not need to decompress. [`verify`]
//! decompresses every frame all the same; [`authenticate`] one in [`SAMPLE`], which finds what is wrong with all.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::available_parallelism;

use sha2::{Digest as _, Sha256};
use zstd::bulk::Decompressor;

use super::FRAME_BYTES;
use super::StreamId;
use super::error::ArchiveError;
use super::header;
use super::index::Index;
use super::pool::Pool;
use super::reader::{Seen, read_index};
use super::seal::{FrameKey, Section};
use crate::keys::SubKeys;

/// More threads than this are not worth it: reading and hashing the stored bytes is one thread's work.
const MOST_THREADS: usize = 8;

/// Of so many frames, [`authenticate`] decompresses one; and the last one always.
pub const SAMPLE: u32 = 16;

/// Authenticates a whole stream: every frame, the index at its end, and that both say what `expected`
/// (the manifest's copy) says. Decompresses every frame as well. `progress` gets plaintext bytes so far.
/// Returns the stored SHA-256.
pub fn verify<R: Read + Send>(
    source: R,
    id: StreamId,
    keys: &SubKeys,
    expected: &Index,
    progress: &mut dyn FnMut(u64),
) -> Result<String, ArchiveError> {
    let mut source = Hashing { source, hash: Sha256::new() };
    check(&mut source, id, keys, expected, 1, progress)?;
    Ok(hex::encode(source.hash.finalize()))
}

/// Like [`verify`], for bytes that were sealed a moment ago or are about to be opened anyway: every tag is
/// checked, but only a sample of the frames is decompressed, and nothing is hashed besides, since the tags, the
/// header and the index cover every stored byte.
pub fn authenticate<R: Read + Send>(
    mut source: R,
    id: StreamId,
    keys: &SubKeys,
    expected: &Index,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ArchiveError> {
    check(&mut source, id, keys, expected, SAMPLE, progress)
}

/// Decompresses one frame in `sample`, and the last.
fn check<R: Read + Send>(
    mut source: &mut R,
    id: StreamId,
    keys: &SubKeys,
    expected: &Index,
    sample: u32,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ArchiveError> {
    let salt = header::read(&mut source, id)?;
    let data_key = Arc::new(FrameKey::new(&keys.frames, &salt, Section::Data, id, b""));
    let index_key = FrameKey::new(&keys.index, &salt, Section::Index, id, b"");

    let threads = available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS));
    let pool = Pool::start(threads, || {
        let key = Arc::clone(&data_key);
        let mut decompressor = Decompressor::new()?;
        let mut plain = Vec::new();
        Ok(move |mut job: Job| {
            let plain_bytes = if job.last || job.counter.is_multiple_of(sample) {
                key.open(&mut decompressor, job.counter, job.last, &mut job.sealed, &mut plain)?;
                plain.len()
            } else {
                key.authenticate(job.counter, job.last, &mut job.sealed)?;
                FRAME_BYTES
            };
            Ok(Opened { plain_bytes, sealed: job.sealed })
        })
    })?;

    // Frames are read here, opened by the pool, and their results taken in order.
    let mut seen = Seen::default();
    let mut verified: u64 = 0;
    let mut pending: VecDeque<Receiver<Result<Opened, ArchiveError>>> = VecDeque::new();
    let mut spare = Vec::new();
    for counter in 0..=u32::MAX {
        let mut sealed = std::mem::take(&mut spare);
        let read = data_key.read(&mut source, counter, &mut sealed);
        let header = match read {
            Ok(header) => header,
            Err(error) => {
                // An earlier frame's own error comes first.
                for result in pending {
                    take(&result)?;
                }
                return Err(error);
            }
        };
        note_length(&mut seen, expected, counter, header.sealed_bytes)?;
        let job = Job { counter, last: header.last, sealed };
        pending.push_back(pool.submit(job).map_err(|_| thread_lost())?);
        while pending.len() > 2 * threads || (header.last && !pending.is_empty()) {
            let Some(result) = pending.pop_front() else {
                break;
            };
            let opened = take(&result)?;
            verified += opened.plain_bytes as u64;
            spare = opened.sealed;
            progress(verified);
        }
        if header.last {
            seen.add_plain(verified);
            break;
        }
    }

    let index = read_index(&index_key, &mut source)?;
    seen.compare(&index)?;
    if index != *expected {
        return Err(ArchiveError::ManifestDisagrees("their indexes are not the same".to_owned()));
    }
    Ok(())
}

struct Job {
    counter: u32,
    last: bool,
    sealed: Vec<u8>,
}

struct Opened {
    plain_bytes: usize,
    sealed: Vec<u8>,
}

fn take(result: &Receiver<Result<Opened, ArchiveError>>) -> Result<Opened, ArchiveError> {
    result.recv().map_err(|_| thread_lost())?
}

fn thread_lost() -> ArchiveError {
    ArchiveError::Sealing("a thread stopped".to_owned())
}

/// Notes a frame, and compares its length with the manifest's while the frame's number can be told.
fn note_length(seen: &mut Seen, expected: &Index, counter: u32, sealed_bytes: usize) -> Result<(), ArchiveError> {
    let length = seen.add(sealed_bytes);
    let place = usize::try_from(counter).unwrap_or(usize::MAX);
    match expected.frames.get(place) {
        Some(expected) if *expected == length => Ok(()),
        Some(expected) => {
            Err(ArchiveError::ManifestDisagrees(format!("frame {counter} has {length} bytes instead of {expected}")))
        }
        None => Err(ArchiveError::ManifestDisagrees(format!("frame {counter} is one too many"))),
    }
}

/// Hashes what is read.
struct Hashing<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
