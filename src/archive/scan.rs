//! Reads a dump while it streams by: table of contents, data blocks, row digests.

use super::error::ArchiveError;
use super::index::BlockEntry;
use super::toc::Toc;

/// What a dump holds.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Header and table of contents.
    pub toc: Toc,
    /// The data blocks in order, with rows and digests.
    pub blocks: Vec<BlockEntry>,
    /// Bytes of the whole dump.
    pub raw_bytes: u64,
}

/// Fed with the bytes of `pg_dump -Fc -Z0`, in any portions.
pub struct Scanner {
    _digest_key: [u8; 16],
}

impl Scanner {
    /// Digests rows under `digest_key`.
    pub fn new(digest_key: [u8; 16]) -> Self {
        Scanner { _digest_key: digest_key }
    }

    /// Takes the next bytes. Memory is bounded by the table of contents and a row's prefix.
    pub fn feed(&mut self, _bytes: &[u8]) -> Result<(), ArchiveError> {
        todo!()
    }

    /// The table whose rows are passing by, `schema.table`.
    pub fn current_table(&self) -> Option<String> {
        todo!()
    }

    /// Ends the dump; an error when it stops in the middle of something, or when an entry that has
    /// data has no block.
    pub fn finish(self) -> Result<Contents, ArchiveError> {
        todo!()
    }
}
