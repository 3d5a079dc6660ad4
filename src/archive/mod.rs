//! The archive: dump bytes in, sealed frames out, and back. Bytes only: nothing here knows PostgreSQL
//! connections or where an archive is stored. The format is described in `docs/archive-format.md`.

pub mod digest;
pub mod error;
pub mod first;
mod header;
pub mod index;
pub mod inventory;
pub mod join;
mod parse;
mod pool;
pub mod random;
pub mod reader;
pub mod rows;
pub mod scan;
pub(crate) mod seal;
#[cfg(test)]
pub(crate) mod testing;
pub mod toc;
pub mod verify;
pub mod writer;

pub use digest::{Digest, ObjectDigester, RowDigester};
pub use error::ArchiveError;
pub use first::{First, clean_first};
pub use index::{BlockEntry, Index};
pub use inventory::{Fingerprint, Inventory};
pub use join::{Joined, join};
pub use random::RandomReader;
pub use reader::ArchiveReader;
pub use rows::BlockRows;
pub use scan::{Contents, Scanner};
pub use toc::{Text, Toc, TocEntry};
pub use verify::{authenticate, verify};
pub use writer::{ArchiveWriter, Finished, Sealers};

use crate::ids::{BackupId, Lineage};

/// Plaintext bytes in a frame; only a stream's last one is shorter.
pub const FRAME_BYTES: usize = 1 << 20;

/// The format that this version writes.
pub const FORMAT: u32 = 1;

/// What every frame of a stream is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId {
    /// The database's lineage.
    pub lineage: Lineage,
    /// The backup.
    pub backup: BackupId,
    /// The stream's number within the backup, from 0.
    pub stream: u32,
}

#[cfg(test)]
mod tests;
