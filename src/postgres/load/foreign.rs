//! Dumps that others made, loaded into an empty database: archives by pg_restore, scripts by ourselves.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::Path;
use std::pin::{Pin, pin};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::sync::mpsc;
use tokio_postgres::CopyInSink;

use super::Restore;
use super::child::{Input, run};
use super::rows::without_values;
use crate::error::{Error, Result};
use crate::migration::dumped_script::{DumpedScript, Piece, Verdict, verdict};
use crate::postgres::{Session, Target, Tools};

/// Pieces of a script that wait for the server.
const PIECES_AHEAD: usize = 8;

/// A script of psql's.
pub struct Script {
    /// Its text.
    pub lines: Box<dyn BufRead + Send>,
    /// Leave out who owns what and who may do what.
    pub no_owner: bool,
}

/// Loads an archive of pg_dump's (custom, directory or tar) into `target`, which is empty.
pub async fn load_file(
    tools: &Tools,
    target: &Target,
    file: &Path,
    jobs: Option<u32>,
    no_owner: bool,
) -> Result<Vec<String>> {
    let restore = Restore { tools, target, role: None, fresh: true, sort_memory: None };
    let mut command = restore.command();
    command.args(["--no-password", "--dbname=", "--exit-on-error"]);
    if let Some(jobs) = jobs {
        command.arg(format!("--jobs={}", jobs.max(1)));
    }
    if no_owner {
        command.args(["--no-owner", "--no-privileges"]);
    }
    command.arg("--").arg(file);
    let nothing = Input::Stream(Box::new(std::io::empty()), Box::new(|_| ()));
    let said = run(command, nothing, None, "the dump could not be loaded").await.map_err(helped)?;
    Ok(said.stderr)
}

/// Runs a script in `target`, which is empty, statement by statement, to the first that fails. What is about the
/// database as a whole is left out, since another one takes its place. Returns what was left out, for people.
pub async fn run_script(target: &Target, script: Script) -> Result<Vec<String>> {
    let session = Session::connect(target, "import", target.connect_timeout()).await?;
    // A crash loses the scratch database anyway.
    // language=SQL
    session.batch("SET synchronous_commit = off; SET check_function_bodies = off").await?;
    let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
    let Script { lines, no_owner } = script;
    tokio::task::spawn_blocking(move || read(lines, &sender));
    let mut left_out = BTreeSet::new();
    while let Some(piece) = pieces.recv().await {
        match piece? {
            Piece::Statement(line, text) => {
                let at = |error: Error| helped(error.context(format!("the statement in line {line} failed")));
                match verdict(&text) {
                    Verdict::Refused(why) => {
                        return Err(Error::refused(format!("the statement in line {line} is not run: {why}"))
                            .hint("dump the database by itself: pg_dump --format=custom DATABASE"));
                    }
                    Verdict::OfTheDatabase => {
                        left_out.insert("the database's own properties".to_owned());
                    }
                    Verdict::OfRoles if no_owner => {
                        left_out.insert("owners and grants".to_owned());
                    }
                    _ => match session.batch(&text).await {
                        // A newer pg_dump sets what this server does not know; it matters for pg_dump's own session.
                        Err(error) if error.sqlstate() == Some("42704") && is_set(&text) => {
                            left_out.insert(format!("`{}`", text.trim()));
                        }
                        done => done.map_err(at)?,
                    },
                }
            }
            Piece::Copy(line, text) => copy(&session, &text, &mut pieces)
                .await
                .map_err(|error| error.context(format!("the rows after line {line} could not be loaded")))?,
            Piece::Rows(_) | Piece::RowsEnd => return Err(Error::failed("rows stand where no COPY asks for them")),
        }
    }
    session.close().await;
    Ok(left_out.into_iter().collect())
}

fn read(lines: Box<dyn BufRead + Send>, sender: &mpsc::Sender<Result<Piece>>) {
    let mut script = DumpedScript::new(lines);
    loop {
        let next = match script.next_piece() {
            Ok(None) => return,
            Ok(Some(piece)) => Ok(piece),
            Err(error) => Err(error),
        };
        let failed = next.is_err();
        // Nobody listens any more when a statement has failed.
        if sender.blocking_send(next).is_err() || failed {
            return;
        }
    }
}

async fn copy(session: &Session, statement: &str, pieces: &mut mpsc::Receiver<Result<Piece>>) -> Result<()> {
    let explain = |error: &tokio_postgres::Error| without_values(&session.explain(error));
    let sink = session.client().copy_in::<_, Bytes>(statement).await.map_err(|error| explain(&error))?;
    let mut sink: Pin<&mut CopyInSink<Bytes>> = pin!(sink);
    loop {
        // Returning drops the sink, which fails the COPY on the server.
        match pieces.recv().await {
            Some(Ok(Piece::Rows(rows))) => {
                if let Err(error) = sink.send(rows.into()).await {
                    // The server's word comes with the end of the COPY.
                    return Err(match sink.finish().await {
                        Err(last) if last.as_db_error().is_some() => explain(&last),
                        _ => explain(&error),
                    });
                }
            }
            Some(Ok(Piece::RowsEnd)) => return sink.finish().await.map(drop).map_err(|error| explain(&error)),
            Some(Err(error)) => return Err(error),
            _ => return Err(Error::failed("the rows have no end")),
        }
    }
}

fn is_set(statement: &str) -> bool {
    statement.trim_start().get(..4).is_some_and(|word| word.eq_ignore_ascii_case("set "))
}

/// What is most often missing where a dump of elsewhere is loaded.
fn helped(error: Error) -> Error {
    let said = error.one_line();
    let missing = |what: &str| said.contains(&format!("{what} \"")) && said.contains("does not exist");
    if missing("role") {
        return error.hint("create that role, or leave owners and grants out: --no-owner");
    }
    if said.contains("is not available") || said.contains("could not open extension control file") {
        return error.hint("install that extension on the server, and import again");
    }
    if said.contains("unsupported version") {
        return error.hint("a newer pg_dump made it: import it where the server is as new");
    }
    error
}
