//! Where backups live. Objects are written whole and synced, or not at all; the layout of their names
//! is known here and nowhere else.
//!
//! ```text
//! <lineage>/backups/<backup>/<stream>.rip      the sealed streams
//! <lineage>/backups/<backup>/manifest          the commit record: a backup exists when this does
//! <lineage>/backups/<backup>/marks/<mark>      verified, drilled, pinned, tag: written later
//! <lineage>/runs/<run>/<step>                  the journal
//! <lineage>/keys/<writer>.<reader>             a journal key, handed to another master key
//! keys.lock                                    held while wraps are rewritten
//! ```

pub mod layout;
pub mod local;
mod location;

use std::io::Write;
use std::sync::Arc;

use crate::error::Result;
use crate::io::ReadAt;

pub use layout::{Mark, Store};

/// An object's name and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its path, `/` between parts.
    pub path: String,
    /// Its bytes.
    pub size_bytes: u64,
}

/// An object that is being written. Dropped without [`finish`](Self::finish), nothing of it is seen.
pub trait ObjectWriter: Write + Send {
    /// Syncs the bytes and makes the object appear under its name, durably.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// What a kind of storage must be able to do. Every one runs the conformance suite in `tests`.
/// Calls block: callers on an async runtime move them to a blocking thread where they are long.
pub trait Objects: Send + Sync {
    /// Where this is, for people.
    fn location(&self) -> String;
    /// Writes a new object durably; an error when the name is taken.
    fn create(&self, path: &str, bytes: &[u8]) -> Result<()>;
    /// Writes an object durably in place of whatever has the name, atomically.
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<()>;
    /// Writes an object durably in place of one that is there, atomically; `false` when there is none, and
    /// nothing is written then: what was removed meanwhile does not come back.
    fn replace_existing(&self, path: &str, bytes: &[u8]) -> Result<bool>;
    /// Holds `name` until the value is dropped or the process ends, however it ends. `None`: another holds it.
    fn hold(&self, name: &str) -> Result<Option<Box<dyn Send>>>;
    /// Begins a new object of unknown size; an error when the name is taken.
    fn begin(&self, path: &str) -> Result<Box<dyn ObjectWriter>>;
    /// Reads a whole object; an error when it is larger than `max_bytes`. `None`: there is none.
    fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>>;
    /// Opens an object for reading at any offset. `None`: there is none.
    fn open(&self, path: &str) -> Result<Option<Arc<dyn ReadAt>>>;
    /// The objects below `prefix` (a folder), sorted by path; unfinished ones are not seen.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>>;
    /// The names of the folders directly below `prefix`, sorted.
    fn folders(&self, prefix: &str) -> Result<Vec<String>>;
    /// Removes an object durably; no error when there is none.
    fn delete(&self, path: &str) -> Result<()>;
    /// Removes leftovers of unfinished writes below `prefix` and folders that are empty. A write that
    /// another process is still at looks the same: only for places where nobody can be writing.
    fn sweep(&self, prefix: &str) -> Result<()>;
    /// Removes leftovers of unfinished writes in this folder itself, and in none below it.
    fn sweep_here(&self, folder: &str) -> Result<()>;
    /// Drops an object from the page cache, so that the next read comes from the disk, where that can be.
    fn drop_cache(&self, path: &str) -> Result<()>;
    /// Free bytes, where that can be known.
    fn free_bytes(&self) -> Result<Option<u64>>;
    /// Why what is stored here dies with the process or the machine's restart (a container's own file
    /// system, tmpfs), when that can be told.
    fn ephemeral(&self) -> Option<String>;
    /// Why others than the owner can reach what is stored here, when that can be told.
    fn loose_permissions(&self) -> Option<String> {
        None
    }
    /// Writes, syncs, reads back and removes a small object: an error says why the store cannot be used.
    fn check_writable(&self) -> Result<()>;
}
