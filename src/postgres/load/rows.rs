//! Tables' rows over several connections, with the dump's own COPY statements.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::early::{Builder, Ready};
use super::{Counter, DataSource, LoadPlan, TableLoad};
use crate::error::{Error, Kind, Result};
use crate::postgres::{Session, TEXT_SETTINGS, Target, quote};

/// A piece of COPY text.
const CHUNK_BYTES: usize = 1 << 20;

/// Pieces that wait for the server, per connection.
const CHUNKS_AHEAD: usize = 4;

/// What a row costs the server besides its bytes, in bytes that take as long.
const ROW_BYTES: u64 = 50;

/// Rows by table, in the plan's order, and the entries that were built besides.
type Done = (Vec<(String, u64)>, Vec<i32>);

/// Loads every table, the one that takes longest first. A connection that has no more rows to load has `builder`
/// build the indexes of tables that are in.
pub(super) async fn load_and_build(
    target: &Target,
    plan: &LoadPlan,
    counter: &Arc<Counter>,
    builder: Option<&Arc<Builder>>,
) -> Result<Done> {
    let mut order: Vec<usize> = (0..plan.tables.len()).collect();
    order.sort_by_key(|at| plan.tables.get(*at).map_or(0, |table| table.bytes + ROW_BYTES * table.rows));
    order.reverse();
    let workers = (plan.jobs.max(1) as usize).min(order.len());
    let queue = Arc::new(Mutex::new(VecDeque::from(order)));
    let (loaded_tables, ready) = Ready::new();
    let ready = Arc::new(ready);
    let mut running = JoinSet::new();
    for _ in 0..workers {
        let (target, plan, queue, counter) = (target.clone(), plan.clone(), Arc::clone(&queue), Arc::clone(counter));
        let (loaded_tables, ready, builder) = (loaded_tables.clone(), Arc::clone(&ready), builder.cloned());
        running.spawn(async move {
            let loaded = work(&target, &plan, &queue, &counter, loaded_tables).await?;
            let mut built = Vec::new();
            if let Some(builder) = builder {
                while let Some(entry) = ready.next().await {
                    builder.build(entry).await?;
                    built.push(entry);
                }
            }
            Ok::<_, Error>((loaded, built))
        });
    }
    // The workers hold the others: when the last of them has loaded its last table, nothing more gets ready.
    drop(loaded_tables);
    let mut loaded: Vec<(usize, u64)> = Vec::with_capacity(plan.tables.len());
    let mut built = Vec::new();
    while let Some(finished) = running.join_next().await {
        // The first failure ends the others: dropping the set aborts them.
        let (rows, entries) = finished.map_err(|error| Error::failed("a table's load broke off").because(error))??;
        loaded.extend(rows);
        built.extend(entries);
    }
    loaded.sort_unstable();
    let rows = loaded
        .into_iter()
        .filter_map(|(at, rows)| plan.tables.get(at).map(|table| (table.table.clone(), rows)))
        .collect();
    Ok((rows, built))
}

async fn work(
    target: &Target,
    plan: &LoadPlan,
    queue: &Mutex<VecDeque<usize>>,
    counter: &Counter,
    loaded_tables: mpsc::UnboundedSender<i32>,
) -> Result<Vec<(usize, u64)>> {
    let session = Session::connect(target, "restore", target.connect_timeout()).await?;
    prepare(&session, plan.role.as_deref()).await?;
    let mut loaded = Vec::new();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((at, table)) = next.and_then(|at| Some((at, plan.tables.get(at)?))) else { break };
        let rows = copy_checked(&session, &plan.source, table, counter).await?;
        loaded.push((at, rows));
        for entry in plan.source.indexes_of(table.block) {
            // Where nothing is built early, nobody listens.
            let _ = loaded_tables.send(entry);
        }
    }
    session.close().await;
    Ok(loaded)
}

/// Copies one table; an error when other rows arrive than the backup has.
pub(super) async fn copy_checked(
    session: &Session,
    source: &Arc<dyn DataSource>,
    table: &TableLoad,
    counter: &Counter,
) -> Result<u64> {
    let failed = || format!("table `{}` could not be loaded", table.table);
    let rows = copy(session, source, table, counter).await.map_err(|error| error.context(failed()))?;
    if rows != table.rows {
        return Err(
            Error::verification(failed()).because(format!("{rows} rows arrived, and the backup has {}", table.rows))
        );
    }
    Ok(rows)
}

/// The settings that pg_restore makes, and those that fix how the dump wrote its values.
pub(super) async fn prepare(session: &Session, role: Option<&str>) -> Result<()> {
    // What was lost by a crash now would be lost with the whole scratch database; the swap's own commit
    // waits for all of it.
    // language=SQL
    let mut sql = "SET row_security = off; SET synchronous_commit = off; SET DateStyle = ISO; \
                   SET IntervalStyle = postgres; SET standard_conforming_strings = on; \
                   SET check_function_bodies = off; SET client_min_messages = warning; \
                   SELECT pg_catalog.set_config('search_path', '', false);"
        .to_owned();
    for (name, value) in TEXT_SETTINGS {
        sql.push_str(&format!(" SET {name} = {};", quote::literal(value)));
    }
    if let Some(role) = role {
        sql.push_str(&format!(" SET ROLE {};", quote::ident(role)));
    }
    session.batch(&sql).await
}

/// A piece of COPY text, or its end: a reader that just stopped would look like one that came to its end.
enum Piece {
    Bytes(Bytes),
    End,
    Failed(Error),
}

async fn copy(session: &Session, source: &Arc<dyn DataSource>, table: &TableLoad, counter: &Counter) -> Result<u64> {
    let statement = std::str::from_utf8(&table.copy_statement)
        .map_err(|_| Error::failed("its COPY statement is not UTF-8"))?
        .trim_end();
    let explain = |error: &tokio_postgres::Error| without_values(&session.explain(error));
    let sink = session.client().copy_in::<_, Bytes>(statement).await.map_err(|error| explain(&error))?;
    let mut sink = pin!(sink);
    let (sender, mut pieces) = mpsc::channel(CHUNKS_AHEAD);
    let (source, block) = (Arc::clone(source), table.block);
    tokio::task::spawn_blocking(move || read(&*source, block, &sender));
    loop {
        // Returning drops the sink, which fails the COPY on the server.
        match pieces.recv().await {
            Some(Piece::Bytes(bytes)) => {
                let count = bytes.len() as u64;
                if let Err(error) = sink.send(bytes).await {
                    // The server's word comes with the end of the COPY.
                    return Err(match sink.finish().await {
                        Err(last) if last.as_db_error().is_some() => explain(&last),
                        _ => explain(&error),
                    });
                }
                counter.add(count, Some(&table.table));
            }
            Some(Piece::End) => return sink.finish().await.map_err(|error| explain(&error)),
            Some(Piece::Failed(error)) => return Err(error),
            None => return Err(Error::failed("its rows could not be read from the backup")),
        }
    }
}

fn read(source: &dyn DataSource, block: usize, sender: &mpsc::Sender<Piece>) {
    let last = match pieces(source, block, sender) {
        Ok(()) => Piece::End,
        Err(error) => Piece::Failed(error),
    };
    // Nobody listens any more when the COPY has failed.
    let _ = sender.blocking_send(last);
}

fn pieces(source: &dyn DataSource, block: usize, sender: &mpsc::Sender<Piece>) -> Result<()> {
    let mut reader = source.rows(block)?;
    loop {
        let mut buffer = vec![0; CHUNK_BYTES];
        let count = fill(&mut *reader, &mut buffer).map_err(|error| {
            // What a reader gives out as this is no fault of a disk or a network: the backup is another.
            let kind = if error.kind() == io::ErrorKind::InvalidData { Kind::Verification } else { Kind::Failed };
            Error::new(kind, "its rows could not be read from the backup").because(error)
        })?;
        if count == 0 {
            return Ok(());
        }
        buffer.truncate(count);
        if sender.blocking_send(Piece::Bytes(buffer.into())).is_err() {
            return Ok(());
        }
    }
}

fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The server shows the row that it did not take; a log must not hold it. Line and column stay.
pub(super) fn without_values(error: &Error) -> Error {
    let mut clean = Error::new(error.kind(), error.message());
    for cause in error.causes() {
        if cause.contains("ailing row contains") {
            continue;
        }
        let cut = match cause.split_once(": \"") {
            Some((place, _)) if place.contains("COPY ") => place,
            _ => cause,
        };
        clean = clean.because(cut);
    }
    if let Some(hint) = error.hint_text() {
        clean = clean.hint(hint);
    }
    if let Some(state) = error.sqlstate() {
        clean = clean.with_sqlstate(state);
    }
    if error.connection_lost() { clean.with_connection_lost() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_not_repeated_in_errors() {
        let error = Error::failed("null value in column \"b\"")
            .because("detail: Failing row contains (1, hush).")
            .because("context: COPY t, line 7, column x: \"hush\"")
            .with_sqlstate("23502");
        let clean = without_values(&error);
        assert_eq!(clean.causes(), ["context: COPY t, line 7, column x"]);
        assert_eq!(clean.sqlstate(), Some("23502"));
    }

    #[test]
    fn short_reads_are_put_together() {
        struct Drips(u8);
        impl Read for Drips {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Ok(0);
                }
                self.0 -= 1;
                buffer[0] = self.0;
                Ok(1)
            }
        }
        let mut buffer = [0; 3];
        let mut drips = Drips(5);
        assert_eq!(fill(&mut drips, &mut buffer).unwrap(), 3);
        assert_eq!(fill(&mut drips, &mut buffer).unwrap(), 2);
        assert_eq!(fill(&mut drips, &mut buffer).unwrap(), 0);
    }
}
