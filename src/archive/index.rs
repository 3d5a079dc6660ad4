//! Where things are within a stream.

use serde::{Deserialize, Serialize};

use super::FRAME_BYTES;
use super::digest::Digest;
use super::error::ArchiveError;
use super::seal::{FRAME_HEADER_BYTES, MAX_SEALED_BYTES};
use super::toc::Text;

/// The largest index that is written or read, as JSON, in bytes: enough for dumps of about 30 TB.
pub(super) const MAX_INDEX_BYTES: usize = 256 << 20;

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

impl Index {
    /// Checks what can be checked without the stream: that the parts fit together.
    pub fn check(&self) -> Result<(), ArchiveError> {
        let disagrees = |what: String| Err(ArchiveError::IndexDisagrees(what));
        let frames = self.raw_bytes.div_ceil(FRAME_BYTES as u64).max(1);
        if self.frames.len() as u64 != frames {
            return disagrees(format!("{} frames for {} bytes", self.frames.len(), self.raw_bytes));
        }
        let bounds = FRAME_HEADER_BYTES + 1..=FRAME_HEADER_BYTES + MAX_SEALED_BYTES;
        for (number, length) in self.frames.iter().enumerate() {
            if !usize::try_from(*length).is_ok_and(|length| bounds.contains(&length)) {
                return disagrees(format!("frame {number} has {length} bytes"));
            }
        }
        let mut end = self.toc_bytes;
        for block in &self.blocks {
            if block.start != end || block.end < block.start {
                return disagrees(format!("block {} does not follow the one before it", block.dump_id));
            }
            if block.data_bytes > block.end - block.start {
                return disagrees(format!("block {} holds too much", block.dump_id));
            }
            end = block.end;
        }
        if end != self.raw_bytes {
            return disagrees("the blocks do not reach the end of the dump".to_owned());
        }
        Ok(())
    }
}

pub(super) fn encode(index: &Index) -> Result<Vec<u8>, ArchiveError> {
    let encoded = serde_json::to_vec(index).map_err(|error| ArchiveError::IndexUnreadable(error.to_string()))?;
    match encoded.len() > MAX_INDEX_BYTES {
        true => Err(ArchiveError::TooLarge { section: "index" }),
        false => Ok(encoded),
    }
}

/// Serde's words for a field that is not there: they quote our own name for it and nothing of the text.
pub(crate) fn missing_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let (fact, _) = text.split_once(" at line ")?;
    fact.starts_with("missing field `").then(|| fact.to_owned())
}

pub(super) fn decode(bytes: &[u8]) -> Result<Index, ArchiveError> {
    // serde's message can quote the text, which is secret: the position is enough.
    let index: Index = serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        ArchiveError::IndexUnreadable(match missing_field(&error) {
            Some(missing) => format!("{missing}, {place}"),
            None => place,
        })
    })?;
    index.check()?;
    Ok(index)
}
