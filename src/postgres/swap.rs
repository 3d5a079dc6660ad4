//! Two databases change names in one transaction.

use std::time::Duration;

use super::{Session, Target};
use crate::error::Result;

/// The target, closed to everyone but one session of ours. Dropped or failed, [`reopen`](Self::reopen)
/// must be called: `recover` does so too.
pub struct Closed {
    _private: (),
}

/// Closes `target`: opens one session in it, ALLOW_CONNECTIONS false in a commit of its own, ends the other
/// sessions until none is left (autovacuum and workers too), for at most `limit`. On any error it is
/// open again.
pub async fn close(_maintenance: &Session, _target: &Target, _limit: Duration) -> Result<Closed> {
    todo!()
}

impl Closed {
    /// The one session inside.
    pub fn inside(&self) -> &Session {
        todo!()
    }

    /// Lets everyone in again, the swap not done.
    pub async fn reopen(self, _maintenance: &Session) -> Result<()> {
        todo!()
    }

    /// Ends the session inside, then renames both in one transaction: the target to `aside`, `replacement`
    /// to the target's name. Lets everyone into the new one; the one aside stays closed, with a comment
    /// that says what it is (`aside_comment`). On any error the old one is open under its own name.
    /// Returns how long the database was closed.
    pub async fn swap(
        self,
        _maintenance: &Session,
        _replacement: &str,
        _aside: &str,
        _aside_comment: &str,
    ) -> Result<Duration> {
        todo!()
    }
}

/// Sets ALLOW_CONNECTIONS.
pub async fn allow_connections(_maintenance: &Session, _database: &str, _allow: bool) -> Result<()> {
    todo!()
}

/// Ends every other session in the database and waits until none is left.
pub async fn end_sessions(_maintenance: &Session, _database: &str, _limit: Duration) -> Result<()> {
    todo!()
}

/// A name for a database kept aside, `<name>_aside_<yyyymmddThhmmss>`, cut so that it fits 63 bytes.
pub fn aside_name(_database: &str, _now: crate::clock::Time) -> String {
    todo!()
}
