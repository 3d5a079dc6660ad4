//! Dump bytes → sealed stream.

use std::io::Write;

use super::StreamId;
use super::error::ArchiveError;
use super::index::Index;
use super::scan::Contents;
use crate::keys::SubKeys;

/// Writes one stream: cuts plaintext into frames, compresses and seals them on several threads behind
/// bounded queues, and writes them in order. Dropped without [`finish`](Self::finish), the stream has
/// no last frame, and every reader says so.
pub struct ArchiveWriter<W: Write + Send + 'static> {
    _sink: W,
}

/// A finished stream. The sink is not yet synced: that is its owner's work.
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
    /// Writes the header. `level` is zstd's.
    pub fn begin(_sink: W, _id: StreamId, _keys: &SubKeys, _level: i32, _threads: usize) -> Result<Self, ArchiveError> {
        todo!()
    }

    /// Takes the next plaintext bytes of the dump, in any portions; they are scanned as well.
    pub fn feed(&mut self, _bytes: &[u8]) -> Result<(), ArchiveError> {
        todo!()
    }

    /// The table whose rows are passing by.
    pub fn current_table(&self) -> Option<String> {
        todo!()
    }

    /// Writes the last frame and the index, and flushes the sink.
    pub fn finish(self) -> Result<Finished<W>, ArchiveError> {
        todo!()
    }
}
