//! Running migrations' SQL.
//!
//! A script goes to the server whole, as one message of the simple query protocol: the server's own parser
//! cuts it, and the positions of its errors count from the script's first character.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::ErrorPosition;

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

/// How long a cancelled statement may take to end before the connection counts as lost.
const CANCEL_LIMIT: Duration = Duration::from_secs(30);

/// How much of a failed statement an error shows.
const SHOWN_CHARACTERS: usize = 200;

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

/// Runs a script whole, inside the transaction that is open. Notices a script that ended or replaced
/// the transaction, and says so as an error with [`TRANSACTION_ESCAPED`]. Errors carry file, line, column,
/// statement.
pub async fn run_in_transaction(session: &Session, script: &Script, file: &str, limits: &Limits) -> Result<()> {
    // A setting that ends with the transaction tells whether it is still the same one. It takes no snapshot,
    // so that a script may begin with SET TRANSACTION, and no savepoint, whose rows would carry another
    // transaction id than ours.
    let marker = uuid::Uuid::new_v4().simple().to_string();
    // language=SQL
    session.batch(&format!("SET LOCAL ripcord.run = '{marker}'")).await?;
    let whole = Piece { sql: &script.sql, offset: 0, first_statement: 0 };
    match run(session, script, file, whole, limits.whole).await {
        Ok(()) => {
            let same = session.rows(MARKER).await? == [[Some(marker)]];
            // RESET ALL takes the marker away without ending anything.
            let escaped = !same && (!resets_all(script) || ends_transaction(script, usize::MAX));
            if escaped { Err(escape(file)) } else { Ok(()) }
        }
        Err(failure) if failure.error.connection_lost() => Err(failure.error),
        Err(failure) => {
            // The server takes no query in a transaction that failed. If it takes one, ours is either well, the
            // failure being our own, or it has ended before.
            let ended = session.rows(MARKER).await.is_ok_and(|rows| rows != [[Some(marker)]]);
            if (ended && !resets_all(script)) || ends_transaction(script, failure.completed) {
                let mut error = escape(file).because(failure.error.message());
                for cause in failure.error.causes() {
                    error = error.because(cause);
                }
                return Err(error);
            }
            Err(failure.error)
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
    match session.batch("ROLLBACK").await {
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
    let text =
        script.statements.get(index).and_then(|found| Some((found.start, script.sql.get(found.start..found.end)?)));
    let Some((offset, sql)) = text else {
        return Err(Error::failed(format!("migration `{file}` has no statement {}", index.saturating_add(1))));
    };
    session.batch(&set_limits("SET SESSION", limits)).await?;
    let alone = Piece { sql, offset, first_statement: index };
    let outcome = run(session, script, file, alone, limits.whole).await.map_err(|failure| failure.error);
    let none = Limits { statement: Duration::ZERO, lock: Duration::ZERO, whole: Duration::ZERO };
    match (outcome, session.batch(&set_limits("SET SESSION", &none)).await) {
        (Err(first), _) => Err(first),
        (Ok(()), after) => after,
    }
}

/// Puts the session back as it was: RESET ROLE, RESET ALL, DISCARD TEMP, and our own settings again. Locks that a
/// script took for its session are given back. A transaction that is open is rolled back.
pub async fn reset(session: &Session) -> Result<()> {
    rollback(session).await?;
    // Prepared statements stay: the driver has its own among them.
    // language=SQL
    session
        .batch(
            "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; \
             SELECT pg_catalog.pg_advisory_unlock_all();",
        )
        .await?;
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

/// The part of a script that is sent.
struct Piece<'a> {
    sql: &'a str,
    /// Where it begins in the script's text, in bytes.
    offset: usize,
    /// The script's statement that it begins with.
    first_statement: usize,
}

/// A script's error, and how many of the statements sent had ended well before.
struct Failure {
    error: Error,
    completed: usize,
}

async fn run(
    session: &Session,
    script: &Script,
    file: &str,
    piece: Piece<'_>,
    limit: Duration,
) -> std::result::Result<(), Failure> {
    if let Some(error) = copies_with_client(script, file, &piece) {
        return Err(Failure { error, completed: 0 });
    }
    let mut completed = 0;
    let mut late = false;
    let outcome = {
        let mut work = pin!(send(session, piece.sql, &mut completed));
        match tokio::time::timeout(limit, &mut work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                late = true;
                let cancelled = session.cancel().await;
                match tokio::time::timeout(CANCEL_LIMIT, &mut work).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        let mut error = Error::failed(format!(
                            "migration `{file}` ran longer than {} s, and the server does not answer",
                            limit.as_secs_f64()
                        ))
                        .with_connection_lost();
                        if let Err(cause) = cancelled {
                            error = error.because(cause);
                        }
                        return Err(Failure { error, completed: 0 });
                    }
                }
            }
        }
    };
    let place = |at: usize| {
        let (line, column) = script.position(at);
        format!("migration `{file}` failed at line {line}, column {column}")
    };
    let over = format!("it ran longer than {} s, the limit of a migration", limit.as_secs_f64());
    match outcome {
        Ok(()) if !late => Ok(()),
        // The cancellation may still arrive, and would then hit whatever is sent next.
        Ok(()) => Err(Failure { error: Error::failed(format!("migration `{file}` failed: {over}")), completed }),
        Err(error) => {
            let explained = session.explain(&error);
            let index = piece.first_statement + completed;
            let at = error_offset(&error, piece.sql).map(|at| at + piece.offset);
            let statement = match at {
                Some(at) => script.statements.iter().find(|found| found.start <= at && at < found.end),
                None => None,
            };
            let statement = statement.or_else(|| script.statements.get(index));
            let place = place(at.or(statement.map(|found| found.start)).unwrap_or(piece.offset));
            let fact = if late && explained.sqlstate() == Some("57014") { &over } else { explained.message() };
            let mut told = Error::failed(format!("{place}: {fact}"));
            if let Some(text) = statement.and_then(|found| script.sql.get(found.start..found.end)) {
                told = told.because(format!("statement: {}", shortened(text)));
            }
            for cause in explained.causes() {
                told = told.because(cause);
            }
            if let Some(state) = explained.sqlstate() {
                told = told.because(format!("SQLSTATE {state}")).with_sqlstate(state);
                if let Some(hint) = hint(state, late) {
                    told = told.hint(hint);
                }
            }
            if explained.connection_lost() {
                told = told.with_connection_lost();
            }
            Err(Failure { error: told, completed })
        }
    }
}

/// COPY FROM STDIN would make the server wait for data that nobody sends, and cost the connection; so it is found
/// before it is sent.
fn copies_with_client(script: &Script, file: &str, piece: &Piece<'_>) -> Option<Error> {
    let end = piece.offset + piece.sql.len();
    let sent = script.statements.iter().filter(|found| found.start >= piece.offset && found.end <= end);
    let (found, text) = sent
        .filter_map(|found| Some((found, script.sql.get(found.start..found.end)?)))
        .find(|(_, text)| copies(&words(text).map(str::to_ascii_uppercase).collect::<Vec<_>>()))?;
    let (line, column) = script.position(found.start);
    Some(
        Error::failed(format!(
            "migration `{file}` failed at line {line}, column {column}: COPY to or from the client cannot be used"
        ))
        .because(format!("statement: {}", shortened(text)))
        .hint("write the rows as INSERT"),
    )
}

fn copies(words: &[String]) -> bool {
    let stream = |pair: &[String]| matches!(pair, [first, second] if matches!((first.as_str(), second.as_str()), ("FROM", "STDIN") | ("TO", "STDOUT")));
    words.first().is_some_and(|word| word == "COPY") && words.windows(2).any(stream)
}

/// The words of SQL, punctuation left out.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

async fn send(session: &Session, sql: &str, completed: &mut usize) -> std::result::Result<(), tokio_postgres::Error> {
    let mut answers = pin!(session.client().simple_query_raw(sql).await?);
    while let Some(answer) = answers.try_next().await? {
        if let SimpleQueryMessage::CommandComplete(_) = answer {
            *completed += 1;
        }
    }
    Ok(())
}

/// The error's place in the text, in bytes. The server counts characters, from 1.
fn error_offset(error: &tokio_postgres::Error, sql: &str) -> Option<usize> {
    match error.as_db_error()?.position()? {
        ErrorPosition::Original(position) => byte_offset(sql, *position),
        // Within a function's body, which is not in this file.
        ErrorPosition::Internal { .. } => None,
    }
}

fn byte_offset(sql: &str, position: u32) -> Option<usize> {
    let before = usize::try_from(position).ok()?.checked_sub(1)?;
    match sql.char_indices().nth(before) {
        Some((offset, _)) => Some(offset),
        None => (before == sql.chars().count()).then_some(sql.len()),
    }
}

/// A statement's beginning, on one line.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{} …", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

fn hint(sqlstate: &str, late: bool) -> Option<&'static str> {
    Some(match sqlstate {
        "55P03" => "another session holds a lock that this needs: wait for it to end, or raise `lock_timeout`",
        "57014" if late => "raise the migration's time limit, or split the migration",
        "57014" => "raise `statement_timeout`, or split the statement",
        "40P01" => "another session wanted the same rows in another order: run again",
        "25001" => "this cannot run in a transaction: mark the migration as one without a transaction",
        "42501" => "run as a role that owns the objects, or grant it the right",
        _ => return None,
    })
}

fn escape(file: &str) -> Error {
    Error::failed(format!("migration `{file}` ended the transaction that it ran in"))
        .because("what stands before its COMMIT or ROLLBACK is not undone by a rollback")
        .with_sqlstate(TRANSACTION_ESCAPED)
        .hint("take BEGIN, COMMIT and ROLLBACK out of the migration")
}

/// The first words of the script's statements, in upper case.
fn first_words(script: &Script) -> impl Iterator<Item = Vec<String>> + '_ {
    script.statements.iter().map(|statement| {
        let text = script.sql.get(statement.start..statement.end).unwrap_or_default();
        words(text).take(3).map(str::to_ascii_uppercase).collect()
    })
}

/// Whether one of the first `count` statements ends a transaction. ROLLBACK TO a savepoint does not.
fn ends_transaction(script: &Script, count: usize) -> bool {
    first_words(script).take(count).any(|words| {
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        match (word(0), word(1)) {
            ("COMMIT" | "END" | "ABORT", _) | ("PREPARE", "TRANSACTION") => true,
            ("ROLLBACK", "TO") => false,
            ("ROLLBACK", "WORK" | "TRANSACTION") => word(2) != "TO",
            ("ROLLBACK", _) => true,
            _ => false,
        }
    })
}

fn resets_all(script: &Script) -> bool {
    first_words(script).any(|words| words.starts_with(&["RESET".to_owned(), "ALL".to_owned()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Statement;

    fn script(statements: &[&str]) -> Script {
        let mut sql = String::new();
        let mut found = Vec::new();
        for text in statements {
            let start = sql.len();
            sql.push_str(text);
            found.push(Statement { start, end: sql.len(), effect: Default::default() });
            sql.push('\n');
        }
        Script { sql, first_line: 1, statements: found, no_transaction: None }
    }

    #[test]
    fn what_ends_a_transaction() {
        for (text, expected) in [
            ("commit;", true),
            ("END", true),
            ("Rollback;", true),
            ("rollback and chain", true),
            ("ROLLBACK WORK", true),
            ("abort", true),
            ("prepare transaction 'x'", true),
            ("prepare q as select 1", false),
            ("rollback to a", false),
            ("rollback transaction to savepoint a", false),
            ("savepoint a", false),
            ("begin", false),
            ("committed()", false),
        ] {
            assert_eq!(ends_transaction(&script(&[text]), 1), expected, "{text}");
        }
        assert!(!ends_transaction(&script(&["select 1", "commit"]), 1));
        assert!(resets_all(&script(&["select 1", "reset all;"])));
    }

    #[test]
    fn positions_count_characters() {
        assert_eq!(byte_offset("é x", 1), Some(0));
        assert_eq!(byte_offset("é x", 2), Some(2));
        assert_eq!(byte_offset("é x", 4), Some(4));
        assert_eq!(byte_offset("é x", 5), None);
        assert_eq!(byte_offset("é x", 0), None);
    }

    #[test]
    fn statements_are_shortened() {
        assert_eq!(shortened("a\n  b"), "a b");
        assert_eq!(shortened(&"é".repeat(300)).chars().count(), SHOWN_CHARACTERS + 2);
    }

    #[test]
    fn a_tiny_limit_does_not_become_none() {
        let limits = Limits { statement: Duration::from_nanos(1), lock: Duration::MAX, whole: Duration::from_secs(1) };
        let sql = set_limits("SET LOCAL", &limits);
        assert!(sql.contains("statement_timeout = 1;"), "{sql}");
        assert!(sql.contains("lock_timeout = 2147483647;"), "{sql}");
    }
}
