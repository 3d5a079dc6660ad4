//! Running migrations' SQL.
//!
//! A script goes to the server whole, as one message of the simple query protocol: the server's own parser
//! cuts it, and the positions of its errors count from the script's first character. Only the rows of a COPY
//! need messages of their own.

mod send;
mod text;

use std::time::Duration;

use self::send::{Failure, Piece};
use self::text::{ends_transaction, resets_all};
use super::Session;
use crate::error::{Error, Result};
use crate::migration::Script;

/// The SQLSTATE, of our own, of a script that ended the transaction it ran in: what stood before is
/// committed, whatever the error's other facts are.
pub const TRANSACTION_ESCAPED: &str = "RC001";

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

/// The marker of a run's transaction.
// language=SQL
const MARKER: &str = "SELECT pg_catalog.current_setting('ripcord.run', true)";

/// Begins a transaction with its limits SET LOCAL.
pub async fn begin(session: &Session, limits: &Limits) -> Result<()> {
    // language=SQL
    let sql = format!("BEGIN READ WRITE; {}", set_limits("SET LOCAL", limits));
    match session.batch(&sql).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = rollback(session).await;
            Err(error.context("no transaction could be begun"))
        }
    }
}

/// Sets the limits of the open transaction anew.
pub async fn limit_transaction(session: &Session, limits: &Limits) -> Result<()> {
    session.batch(&set_limits("SET LOCAL", limits)).await
}

/// Runs a script whole, inside the transaction that is open. Notices a script that ended or replaced
/// the transaction, and says so as an error with [`TRANSACTION_ESCAPED`]. Errors carry file, line, column,
/// statement.
pub async fn run_in_transaction(session: &Session, script: &Script, file: &str, limits: &Limits) -> Result<()> {
    in_transaction(session, &Piece::whole(script, file), limits).await.map(|_| ())
}

/// Runs one statement of a script, counted from 0, inside the transaction that is open; otherwise like
/// [`run_in_transaction`].
pub async fn run_one_in_transaction(
    session: &Session,
    script: &Script,
    number: usize,
    file: &str,
    limits: &Limits,
) -> Result<()> {
    in_transaction(session, &Piece::one(script, number, file)?, limits).await.map(|_| ())
}

/// Runs `sql` in place of one statement of a script, inside the transaction that is open. Returns the rows that it
/// changed.
pub async fn run_instead(
    session: &Session,
    script: &Script,
    number: usize,
    sql: &str,
    file: &str,
    limits: &Limits,
) -> Result<u64> {
    let piece = Piece { instead: Some(sql), ..Piece::one(script, number, file)? };
    in_transaction(session, &piece, limits).await
}

async fn in_transaction(session: &Session, piece: &Piece<'_>, limits: &Limits) -> Result<u64> {
    // A setting that ends with the transaction tells whether it is still the same one. It takes no snapshot,
    // so that a script may begin with SET TRANSACTION, and no savepoint, whose rows would carry another
    // transaction id than ours.
    let marker = uuid::Uuid::new_v4().simple().to_string();
    // language=SQL
    session.batch(&format!("SET LOCAL ripcord.run = '{marker}'")).await?;
    let sent = piece.statements.clone();
    let resets_all = resets_all(piece.script, sent.clone());
    match send::run(session, piece, limits.whole).await {
        Ok(done) => {
            let same = session.rows(MARKER).await? == [[Some(marker)]];
            // RESET ALL takes the marker away without ending anything.
            let escaped = !same && (!resets_all || ends_transaction(piece.script, sent));
            if escaped { Err(escape(piece.file)) } else { Ok(done.rows) }
        }
        Err(failure) if failure.error.connection_lost() => Err(failure.error),
        Err(Failure { error: failed, completed }) => {
            // The server takes no query in a transaction that failed. If it takes one, ours is either well, the
            // failure being our own, or it has ended before.
            let ended = session.rows(MARKER).await.is_ok_and(|rows| rows != [[Some(marker)]]);
            let completed = sent.start..sent.end.min(sent.start + completed);
            if (ended && !resets_all) || ends_transaction(piece.script, completed) {
                let mut error = escape(piece.file).because(failed.message());
                for cause in failed.causes() {
                    error = error.because(cause);
                }
                return Err(error);
            }
            Err(failed)
        }
    }
}

/// Commits. When the connection is lost here, the error says that the outcome is unknown. It is an error, too, when
/// there is no transaction or it has failed: the server takes a COMMIT of either without one.
pub async fn commit(session: &Session) -> Result<()> {
    // A savepoint can only be set in a transaction that is open and well.
    // language=SQL
    match session.client().simple_query("SAVEPOINT ripcord_commit; COMMIT").await {
        Ok(_) => Ok(()),
        Err(error) => {
            let error = session.explain(&error);
            Err(if error.connection_lost() {
                error.context("whether the transaction is committed is not known")
            } else {
                error.context("the transaction could not be committed")
            })
        }
    }
}

/// Rolls back; an error only when the connection is lost.
pub async fn rollback(session: &Session) -> Result<()> {
    // language=SQL
    let mut rolled_back = session.batch("ROLLBACK").await;
    if rolled_back.is_err() && !session.is_closed() {
        // A cancellation by somebody else hit it; the transaction is still there.
        rolled_back = session.batch("ROLLBACK").await;
    }
    match rolled_back {
        Err(error) if error.connection_lost() || session.is_closed() => Err(error.with_connection_lost()),
        _ => Ok(()),
    }
}

/// Runs one statement of a script outside a transaction, with the session's limits set and reset.
pub async fn run_statement(
    session: &Session,
    script: &Script,
    index: usize,
    file: &str,
    limits: &Limits,
) -> Result<()> {
    let piece = Piece::one(script, index, file)?;
    session.batch(&set_limits("SET SESSION", limits)).await?;
    let outcome = send::run(session, &piece, limits.whole).await.map(|_| ()).map_err(|failure| failure.error);
    let none = Limits { statement: Duration::ZERO, lock: Duration::ZERO, whole: Duration::ZERO };
    match (outcome, session.batch(&set_limits("SET SESSION", &none)).await) {
        (Err(first), _) => Err(first),
        (Ok(()), after) => after,
    }
}

/// Puts the session back as it was: RESET ROLE, RESET ALL, DISCARD TEMP, and our own settings again. Locks that a
/// script took for its session are given back. A transaction that is open is rolled back.
pub async fn reset(session: &Session) -> Result<()> {
    // Prepared statements stay: the driver has its own among them.
    // language=SQL
    let taken_back = session
        .batch(
            "ROLLBACK; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; \
             SELECT pg_catalog.pg_advisory_unlock_all();",
        )
        .await;
    taken_back.map_err(|error| if session.is_closed() { error.with_connection_lost() } else { error })?;
    session.set_later_settings().await
}

/// The open transaction's id, when it has one: one that has written nothing has none.
pub async fn transaction_id(session: &Session) -> Result<Option<u64>> {
    // language=SQL
    let rows = session.rows("SELECT pg_catalog.pg_current_xact_id_if_assigned()").await?;
    Ok(rows.first().and_then(|row| row.first()).and_then(Option::as_deref).and_then(|text| text.parse().ok()))
}

/// `client_min_messages` lets RAISE NOTICE through, which authors use to tell what a migration does.
fn set_limits(set: &str, limits: &Limits) -> String {
    let milliseconds = |limit: Duration| match limit.as_millis() {
        // Zero means no limit; less than a millisecond must not become that.
        0 if !limit.is_zero() => 1,
        millis => millis.min(i32::MAX as u128),
    };
    let messages = if limits.whole.is_zero() { "warning" } else { "notice" };
    // language=SQL
    format!(
        "{set} statement_timeout = {}; {set} lock_timeout = {}; {set} client_min_messages = {messages};",
        milliseconds(limits.statement),
        milliseconds(limits.lock)
    )
}

fn escape(file: &str) -> Error {
    Error::failed(format!("migration `{file}` ended the transaction that it ran in"))
        .because("what stands before its COMMIT or ROLLBACK is not undone by a rollback")
        .with_sqlstate(TRANSACTION_ESCAPED)
        .hint("take BEGIN, COMMIT and ROLLBACK out of the migration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiny_limit_does_not_become_none() {
        let limits = Limits { statement: Duration::from_nanos(1), lock: Duration::MAX, whole: Duration::from_secs(1) };
        let sql = set_limits("SET LOCAL", &limits);
        assert!(sql.contains("statement_timeout = 1;"), "{sql}");
        assert!(sql.contains("lock_timeout = 2147483647;"), "{sql}");
    }
}
