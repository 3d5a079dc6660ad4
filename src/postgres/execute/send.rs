//! Sending a script's text, the rows of its COPYs included, and telling what went wrong where.

use std::borrow::Cow;
use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::ErrorPosition;

use super::Session;
use super::text::{self, shortened, words};
use crate::error::Error;
use crate::migration::variables::Bound;
use crate::migration::{Script, Statement};

/// The rows of a COPY go to the server in parts of this size, in bytes.
const COPY_PART_BYTES: usize = 256 << 10;

/// A script's error, and how many of the statements sent had ended well before.
pub(super) struct Failure {
    pub error: Error,
    pub completed: usize,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Statements that ended well.
    pub completed: usize,
    /// Rows that the last of them changed.
    pub rows: u64,
}

/// The statements of a script that are sent together: all of them, or one.
pub(super) struct Piece<'a> {
    pub script: &'a Script,
    pub file: &'a str,
    /// Their numbers.
    pub statements: Range<usize>,
    /// The bytes of the script's text that are sent.
    pub range: Range<usize>,
    /// What goes to the server in place of the one statement.
    pub instead: Option<&'a str>,
}

impl<'a> Piece<'a> {
    pub fn whole(script: &'a Script, file: &'a str) -> Self {
        Piece { script, file, statements: 0..script.statements.len(), range: 0..script.sql.len(), instead: None }
    }

    pub fn one(script: &'a Script, number: usize, file: &'a str) -> Result<Self, Error> {
        let statement = script.statements.get(number).ok_or_else(|| {
            Error::failed(format!("migration `{file}` has no statement {}", number.saturating_add(1)))
        })?;
        let range = statement.start..statement.end;
        Ok(Piece { script, file, statements: number..number + 1, range, instead: None })
    }

    fn all(&self) -> &'a [Statement] {
        self.script.statements.get(self.statements.clone()).unwrap_or_default()
    }

    /// The parts that need a message of their own: a COPY with its rows, and what stands between such.
    fn parts(&self) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut at = self.range.start;
        for statement in self.all() {
            let Some(data) = &statement.data else { continue };
            parts.push(Part { range: at..statement.start, rows: None });
            let rows = self.script.data(statement).unwrap_or_default();
            parts.push(Part { range: statement.start..statement.end, rows: Some(rows) });
            at = data.end;
        }
        parts.push(Part { range: at..self.range.end.max(at), rows: None });
        parts.retain(|part| part.rows.is_some() || self.all().iter().any(|one| part.range.contains(&one.start)));
        parts
    }
}

struct Part<'a> {
    range: Range<usize>,
    rows: Option<&'a str>,
}

/// What the server said, and the place in the script's text that it is about.
struct Refusal {
    error: tokio_postgres::Error,
    at: Option<usize>,
}

/// Sends a piece. At the limit, what runs is cancelled on the server.
pub(super) async fn run(session: &Session, piece: &Piece<'_>, limit: Duration) -> Result<Done, Failure> {
    if let Some(error) = copies_with_client(piece) {
        return Err(Failure { error, completed: 0 });
    }
    let mut done = Done::default();
    let mut late = false;
    let outcome = {
        let mut work = pin!(send(session, piece, &mut done));
        match tokio::time::timeout(limit, &mut work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                late = true;
                match session.stop(work).await {
                    Ok(outcome) => outcome,
                    Err(error) => {
                        let long = format!("migration `{}` ran longer than {} s", piece.file, limit.as_secs_f64());
                        return Err(Failure { error: error.context(long), completed: 0 });
                    }
                }
            }
        }
    };
    let over = format!("it ran longer than {} s, the limit of a migration", limit.as_secs_f64());
    match outcome {
        Ok(()) if !late => Ok(done),
        // It ended before the cancellation came, and was late all the same.
        Ok(()) => Err(Failure {
            error: Error::failed(format!("migration `{}` failed: {over}", piece.file)),
            completed: done.completed,
        }),
        Err(refusal) => {
            let error = told(session, piece, &refusal, done.completed, late.then_some(over.as_str()));
            Err(Failure { error, completed: done.completed })
        }
    }
}

async fn send(session: &Session, piece: &Piece<'_>, done: &mut Done) -> Result<(), Refusal> {
    let nowhere = |error| Refusal { error, at: None };
    if let Some(instead) = piece.instead {
        let bound = piece.script.variables.bind(instead);
        return query(session, &bound.sql, done).await.map_err(nowhere);
    }
    for part in piece.parts() {
        let raw = piece.script.sql.get(part.range.clone()).unwrap_or_default();
        let understood = for_server(session, piece, part.range.clone(), raw);
        let bound = piece.script.variables.bind(&understood);
        let sent = match part.rows {
            None => query(session, &bound.sql, done).await,
            Some(rows) => copy(session, &bound.sql, rows, done).await,
        };
        sent.map_err(|error| placed(Refusal { at: error_place(&error, &bound), error }, piece, &part))?;
    }
    Ok(())
}

/// A place within a part becomes one within the script; the line that COPY names is looked up in its rows.
fn placed(refusal: Refusal, piece: &Piece<'_>, part: &Part<'_>) -> Refusal {
    let at = refusal.at.map(|at| at + part.range.start);
    let row = part.rows.and_then(|_| copied_line(&refusal.error)).and_then(|line| {
        let statement = piece.all().iter().find(|statement| statement.start == part.range.start)?;
        let data = piece.script.sql.get(statement.data.clone()?)?;
        let (before, _) = data.match_indices('\n').nth(line.checked_sub(1)?)?;
        Some(statement.data.as_ref()?.start + before + 1)
    });
    Refusal { at: row.or(at), ..refusal }
}

async fn query(session: &Session, sql: &str, done: &mut Done) -> Result<(), tokio_postgres::Error> {
    let mut answers = pin!(session.client().simple_query_raw(sql).await?);
    while let Some(answer) = answers.try_next().await? {
        if let SimpleQueryMessage::CommandComplete(rows) = answer {
            done.completed += 1;
            done.rows = rows;
        }
    }
    Ok(())
}

async fn copy(session: &Session, sql: &str, rows: &str, done: &mut Done) -> Result<(), tokio_postgres::Error> {
    let sink = session.client().copy_in::<_, Bytes>(sql).await?;
    let mut sink = pin!(sink);
    for part in rows.as_bytes().chunks(COPY_PART_BYTES) {
        sink.send(Bytes::copy_from_slice(part)).await?;
    }
    done.rows = sink.finish().await?;
    done.completed += 1;
    Ok(())
}

/// `SET transaction_timeout`, which pg_dump writes from version 17 on, is blanked out for an older server: it would
/// refuse the whole file for a setting whose value is the default.
fn for_server<'a>(session: &Session, piece: &Piece<'_>, range: Range<usize>, raw: &'a str) -> Cow<'a, str> {
    if session.server_version_num() >= 170_000 || !raw.contains("SET transaction_timeout = 0;") {
        return Cow::Borrowed(raw);
    }
    let mut text = raw.to_owned();
    for statement in piece.all().iter().filter(|one| range.start <= one.start && one.end <= range.end) {
        if piece.script.text(statement) == "SET transaction_timeout = 0;" {
            let place = statement.start - range.start..statement.end - range.start;
            // As long as what it stands for, so that places stay.
            let width = place.len();
            text.replace_range(place, &format!("{:<width$}", "SELECT;"));
        }
    }
    Cow::Owned(text)
}

/// COPY FROM STDIN without rows would make the server wait for data that nobody sends, COPY TO STDOUT sends some
/// that nobody takes; so they are found before they are sent.
fn copies_with_client(piece: &Piece<'_>) -> Option<Error> {
    let found = piece.all().iter().filter(|statement| statement.data.is_none()).find(|statement| {
        text::copies(&words(piece.script.text(statement)).map(str::to_ascii_uppercase).collect::<Vec<_>>())
    })?;
    let (line, column) = piece.script.position(found.start);
    Some(
        Error::failed(format!(
            "migration `{}` failed at line {line}, column {column}: COPY to or from the client cannot be used",
            piece.file
        ))
        .because(format!("statement: {}", shortened(piece.script.text(found))))
        .hint("write the rows as INSERT, or below the COPY with a line `\\.` at their end"),
    )
}

/// The failure in the words of the file: place, statement, the server's causes, without the values of variables.
fn told(session: &Session, piece: &Piece<'_>, refusal: &Refusal, completed: usize, late: Option<&str>) -> Error {
    let script = piece.script;
    let explained = session.explain(&refusal.error).map_texts(|said| script.variables.hide(said));
    let at = |at: usize| {
        piece.all().iter().find(|one| one.start <= at && at < one.data.as_ref().map_or(one.end, |data| data.end))
    };
    let statement = refusal.at.and_then(at).or_else(|| script.statements.get(piece.statements.start + completed));
    let place = refusal.at.or(statement.map(|found| found.start)).unwrap_or(piece.range.start);
    let (line, column) = script.position(place);
    let fact = match late {
        Some(over) if explained.sqlstate() == Some("57014") => over,
        _ => explained.message(),
    };
    let mut told = Error::failed(format!("migration `{}` failed at line {line}, column {column}: {fact}", piece.file));
    if let Some(found) = statement {
        told = told.because(format!("statement: {}", shortened(script.text(found))));
    }
    for cause in explained.causes() {
        told = told.because(cause);
    }
    if let Some(state) = explained.sqlstate() {
        told = told.because(format!("SQLSTATE {state}")).with_sqlstate(state);
        // Syntax, functions and parameters that came with a later version are plainly unknown to an older one.
        let parameter = state == "42704" && explained.message().starts_with("unrecognized configuration parameter");
        if matches!(state, "42601" | "42883") || parameter {
            let version = session.server_version_num() / 10_000;
            told = told.because(format!("the server is PostgreSQL {version}: the statement may be for a newer one"));
        }
        if let Some(hint) = text::hint(state, late.is_some()) {
            told = told.hint(hint);
        }
    }
    if explained.connection_lost() { told.with_connection_lost() } else { told }
}

/// The error's place in the part's text, in bytes. The server counts characters of what was sent, from 1.
fn error_place(error: &tokio_postgres::Error, bound: &Bound<'_>) -> Option<usize> {
    match error.as_db_error()?.position()? {
        ErrorPosition::Original(position) => Some(bound.place(text::byte_offset(&bound.sql, *position)?)),
        // Within a function's body, which is not in this file.
        ErrorPosition::Internal { .. } => None,
    }
}

/// The line of the rows, from 1, that the server's context names: `COPY orders, line 3, column id: "x"`.
fn copied_line(error: &tokio_postgres::Error) -> Option<usize> {
    let context = error.as_db_error()?.where_()?.strip_prefix("COPY ")?;
    let (_, after) = context.split_once(", line ")?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
