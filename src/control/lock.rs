//! The visible row of the lock. What excludes others is the advisory lock in the maintenance database
//! (see `postgres::guard`); this row says who holds it.

use serde::Serialize;
use tokio_postgres::Client;

use crate::clock::Time;
use crate::error::Result;
use crate::ids::RunId;

/// The row of `ripcord.lock`.
#[derive(Clone, Debug, Serialize)]
pub struct LockRow {
    /// The run.
    pub run: RunId,
    /// What it does.
    pub command: String,
    /// Operating system user.
    pub holder: String,
    /// Host.
    pub host: String,
    /// Process id there.
    pub pid: i32,
    /// Since when.
    pub since: Time,
    /// Last sign of life.
    pub heartbeat: Time,
    /// From when on a silent holder counts as dead.
    pub expires_at: Time,
}

/// The holder, if any.
pub async fn lock_row(_client: &Client) -> Result<Option<LockRow>> {
    todo!()
}

/// Puts the row, replacing whatever is there (the advisory lock is already ours).
pub async fn put_lock(_client: &Client, _row: &LockRow) -> Result<()> {
    todo!()
}

/// Renews the heartbeat.
pub async fn beat(_client: &Client, _run: RunId) -> Result<()> {
    todo!()
}

/// Removes the row, when it is this run's (or anybody's, with `None`).
pub async fn clear_lock(_client: &Client, _run: Option<RunId>) -> Result<()> {
    todo!()
}
