//! `pg_dump`, as a child process whose output is read as it comes.

use std::io::{self, Read};
use std::time::Duration;

use super::{Target, Tools};
use crate::error::Result;

/// What to dump.
#[derive(Clone, Debug, Default)]
pub struct DumpOptions {
    /// Schemas that are left out, exact names. Ripcord's own is always left out.
    pub exclude_schemas: Vec<String>,
    /// Read this exported snapshot.
    pub snapshot: Option<String>,
    /// The schema only (`--schema-only`).
    pub schema_only: bool,
    /// These tables' rows are left out, `(schema, table)`.
    pub exclude_data: Vec<(String, String)>,
    /// How long pg_dump waits for a lock on a table before it gives up.
    pub lock_wait: Duration,
}

/// A running `pg_dump -Fc -Z0`. Own process group; killed when dropped. Its environment is cleared but
/// for an allow-list; a password goes in its own environment (PGPASSWORD) alone, never in argv.
pub struct Dump {
    _private: (),
}

impl Dump {
    /// Starts it. `PGOPTIONS` fixes [`super::TEXT_SETTINGS`] and takes the read-only fence off nothing.
    pub fn begin(_tools: &Tools, _target: &Target, _options: &DumpOptions) -> Result<Dump> {
        todo!()
    }

    /// A handle that kills it from another thread, for time limits and signals.
    pub fn killer(&self) -> Killer {
        todo!()
    }

    /// After its output ended: waits, and reads status and stderr. An error names the exit status or
    /// signal and pg_dump's last lines.
    pub fn finish(self) -> Result<()> {
        todo!()
    }
}

impl Read for Dump {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}

/// Kills a child's process group.
#[derive(Clone)]
pub struct Killer {
    _private: (),
}

impl Killer {
    /// Kills it; does nothing when it has ended.
    pub fn kill(&self) {
        todo!()
    }
}
