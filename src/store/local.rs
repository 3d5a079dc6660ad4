//! A folder of the local file system: files 0600, folders 0700, everything synced.

use std::path::Path;

use super::Objects;
use crate::error::Result;

/// Opens (and creates, when missing) a folder as a store.
pub fn open(_root: &Path) -> Result<Box<dyn Objects>> {
    todo!()
}
