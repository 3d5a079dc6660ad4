//! Folders of migrations: one file a layout.

use std::path::{Path, PathBuf};

use super::Migration;
use crate::error::Result;

/// A folder, read.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// The layout's name.
    pub layout: &'static str,
    /// Why this layout was chosen, for `status --verbose`.
    pub reason: String,
    /// The migrations, by version.
    pub migrations: Vec<Migration>,
    /// Files that were left out, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

/// Finds the folder among the usual ones below `base`. Two found is an error that names both; none is
/// an error that says where it looked.
pub fn find(_base: &Path) -> Result<PathBuf> {
    todo!()
}

/// Reads a folder. `layout` forces one by name.
pub fn read(_folder: &Path, _layout: Option<&str>) -> Result<Folder> {
    todo!()
}
