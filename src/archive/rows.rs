//! The rows of a data block, without the dump's own framing.

use std::io::{self, Read};

use super::error::ArchiveError;
use super::index::BlockEntry;

/// Reads a table's COPY text out of the bytes of its data block: chunk headers and the closing `\.`
/// are left out, and the row count and digest are checked against the index at the end.
pub struct BlockRows<R: Read> {
    _block: R,
}

impl<R: Read> BlockRows<R> {
    /// `block` yields exactly the bytes from `entry.start` to `entry.end`.
    pub fn new(_block: R, _entry: &BlockEntry, _digest_key: [u8; 16]) -> Result<Self, ArchiveError> {
        todo!()
    }
}

impl<R: Read> Read for BlockRows<R> {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}
