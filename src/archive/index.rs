//! Where things are within a stream.

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::toc::Text;

/// The index of one stream: ends the stream, and stands in the manifest again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Sealed length of each data frame, its frame header included, in order.
    pub frames: Vec<u32>,
    /// Plaintext bytes of the whole dump.
    pub raw_bytes: u64,
    /// Plaintext bytes of header and table of contents, before the first data block.
    pub toc_bytes: u64,
    /// The data blocks, in the order in which they stand.
    pub blocks: Vec<BlockEntry>,
}

/// One data block of the dump: a table's rows, or large objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// The entry of the table of contents that it belongs to.
    pub dump_id: i32,
    /// Whether it holds large objects instead of a table's rows.
    pub large_objects: bool,
    /// The table's schema; empty for large objects.
    pub namespace: Text,
    /// The table; for large objects the entry's tag.
    pub table: Text,
    /// The statement that pg_dump wrote for loading it; empty for large objects.
    pub copy_statement: Text,
    /// Where the block begins in the plaintext (its type byte).
    pub start: u64,
    /// Where the next one would begin.
    pub end: u64,
    /// Bytes of the rows themselves, line ends included, chunk headers and the closing `\.` not.
    pub data_bytes: u64,
    /// The rows (or large objects), and their digest.
    pub digest: Digest,
}
