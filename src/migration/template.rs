//! New migrations, in the layout that the folder already has.

use std::path::{Path, PathBuf};

use crate::clock::Time;
use crate::error::Result;

/// What to write.
#[derive(Clone, Debug)]
pub struct NewMigration {
    /// As typed, spaces and all.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// `ddl`, `dml` or `function`.
    pub kind: String,
    /// Marked as breaking.
    pub breaking: bool,
    /// Who writes it.
    pub author: String,
}

/// Writes the next migration's file (or files) into `folder` and returns the paths.
pub fn create(_folder: &Path, _layout: Option<&str>, _new: &NewMigration, _now: Time) -> Result<Vec<PathBuf>> {
    todo!()
}
