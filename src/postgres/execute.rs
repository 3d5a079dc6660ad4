//! Running migrations' SQL.

use std::time::Duration;

use super::Session;
use crate::error::Result;
use crate::migration::Script;

/// Limits for one migration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `statement_timeout`.
    pub statement: Duration,
    /// `lock_timeout`.
    pub lock: Duration,
    /// The whole of it; then the running statement is cancelled on the server.
    pub whole: Duration,
}

/// Begins a transaction with its limits SET LOCAL.
pub async fn begin(_session: &Session, _limits: &Limits) -> Result<()> {
    todo!()
}

/// Runs a script whole, inside the transaction that is open. Notices a script that ended or replaced
/// the transaction (by its xid), and says so as an error. Errors carry file, line, column, statement.
pub async fn run_in_transaction(_session: &Session, _script: &Script, _file: &str, _limits: &Limits) -> Result<()> {
    todo!()
}

/// Commits. When the connection is lost here, the error says that the outcome is unknown.
pub async fn commit(_session: &Session) -> Result<()> {
    todo!()
}

/// Rolls back; an error only when the connection is lost.
pub async fn rollback(_session: &Session) -> Result<()> {
    todo!()
}

/// Runs one statement of a script outside a transaction, with the session's limits set and reset.
pub async fn run_statement(
    _session: &Session,
    _script: &Script,
    _index: usize,
    _file: &str,
    _limits: &Limits,
) -> Result<()> {
    todo!()
}

/// Puts the session back as it was: RESET ROLE, RESET ALL, DISCARD TEMP, and our own settings again.
pub async fn reset(_session: &Session) -> Result<()> {
    todo!()
}
