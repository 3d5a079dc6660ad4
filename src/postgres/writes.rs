//! Writes that others commit after the backup: keeping them off, and counting them.

use std::time::Duration;

use serde::Serialize;

use super::Session;
use crate::error::Result;

/// Makes new transactions read-only for everyone (ALTER DATABASE … SET default_transaction_read_only = on)
/// and ends the other sessions, so that they reconnect under it.
pub async fn fence(_maintenance: &Session, _database: &str, _limit: Duration) -> Result<()> {
    todo!()
}

/// Takes the fence away; sets back `previous` when the database had that setting before.
pub async fn unfence(_maintenance: &Session, _database: &str, _previous: Option<&str>) -> Result<()> {
    todo!()
}

/// What was written since a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Rows in versions newer than the snapshot and not ours, by `schema.table`.
    pub tables: Vec<(String, u64)>,
    /// Tables where it cannot be known, and why.
    pub unknowable: Vec<(String, String)>,
}

impl Counted {
    /// All rows counted.
    pub fn total(&self) -> u64 {
        self.tables.iter().map(|(_, rows)| rows).sum()
    }
}

/// Counts row versions whose xmin is neither visible in `snapshot` (`pg_snapshot` as text) nor one of
/// `our_xids`, in every table but ripcord's. Blind to deletes: their count is what `xmax` and the
/// digests tell. `session` is the one inside the closed database.
pub async fn count_since(_session: &Session, _snapshot: &str, _our_xids: &[u64]) -> Result<Counted> {
    todo!()
}
