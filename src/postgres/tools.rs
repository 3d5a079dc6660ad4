//! PostgreSQL's client programs, of the server's own major version.

use std::path::PathBuf;

use crate::error::Result;

/// `pg_dump` and `pg_restore` of one version.
#[derive(Clone, Debug)]
pub struct Tools {
    /// pg_dump.
    pub pg_dump: PathBuf,
    /// pg_restore.
    pub pg_restore: PathBuf,
    /// What `pg_dump --version` prints.
    pub version: String,
}

impl Tools {
    /// Finds the programs whose major version is the server's: in `extra`, on `path`, in
    /// `/usr/lib/postgresql/*/bin`, `/usr/pgsql-*/bin`, `/opt/homebrew/opt/postgresql@*/bin`,
    /// `/usr/local/pgsql/bin`. The error lists every version found and where, and what to install.
    pub fn find(_server_major: u32, _extra: &[PathBuf], _path: Option<&str>) -> Result<Tools> {
        todo!()
    }

    /// All that are installed: major version, folder.
    pub fn installed(_extra: &[PathBuf], _path: Option<&str>) -> Vec<(u32, PathBuf)> {
        todo!()
    }
}
