//! Sealed stream → dump bytes.

use std::io::{self, Read};
use std::sync::Arc;

use super::StreamId;
use super::error::ArchiveError;
use super::index::Index;
use crate::io::ReadAt;
use crate::keys::SubKeys;

/// Reads a stream front to back. Every byte that [`Read`] gives out was authenticated; the end is
/// only reported once the last frame was seen. Opening frames may use several threads.
pub struct ArchiveReader<R: Read + Send> {
    _source: R,
}

impl<R: Read + Send> ArchiveReader<R> {
    /// Reads and checks the header.
    pub fn open(_source: R, _id: StreamId, _keys: &SubKeys) -> Result<Self, ArchiveError> {
        todo!()
    }

    /// After the plaintext's end: reads the index that ends the stream, and checks that nothing
    /// follows it.
    pub fn finish(self) -> Result<Index, ArchiveError> {
        todo!()
    }
}

impl<R: Read + Send> Read for ArchiveReader<R> {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}

/// Authenticates a whole stream: every frame, the index at its end, and that both say what `expected`
/// (the manifest's copy) says. `progress` gets plaintext bytes so far. Returns the stored SHA-256.
pub fn verify<R: Read + Send>(
    _source: R,
    _id: StreamId,
    _keys: &SubKeys,
    _expected: &Index,
    _progress: &mut dyn FnMut(u64),
) -> Result<String, ArchiveError> {
    todo!()
}

/// Reads plaintext ranges of a stream, opening only the frames that they touch. Cheap to clone and to
/// share; each [`range`](Self::range) opens its own frames.
#[derive(Clone)]
pub struct RandomReader {
    _source: Arc<dyn ReadAt>,
}

impl RandomReader {
    /// `index` is the manifest's copy.
    pub fn new(
        _source: Arc<dyn ReadAt>,
        _id: StreamId,
        _keys: &SubKeys,
        _index: Arc<Index>,
    ) -> Result<Self, ArchiveError> {
        todo!()
    }

    /// A reader of the plaintext from `start` to `end`.
    pub fn range(&self, _start: u64, _end: u64) -> Result<Box<dyn Read + Send>, ArchiveError> {
        todo!()
    }
}
