//! Statistics for a database that was just loaded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use super::{LoadPlan, is_utf8};
use crate::error::{Error, Result};
use crate::postgres::{Session, Target, quote};
use crate::progress::Progress;

/// The tables and materialized views that are analyzed. Not among them are those above a foreign table: ANALYZE
/// would read that one from its own server, which need not be reached from here, and which a drill must not touch.
// language=SQL
const ANALYZED: &str = "
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND NOT c.relisshared
   AND NOT EXISTS (
       WITH RECURSIVE below AS (
           SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid
           UNION
           SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.inhrelid)
       SELECT FROM below b JOIN pg_catalog.pg_class f ON f.oid = b.inhrelid WHERE f.relkind = 'f')
 ORDER BY pg_catalog.pg_relation_size(c.oid) DESC, c.oid";

/// Runs ANALYZE over every table and materialized view, largest first, over as many sessions as the load: a
/// restored database has no statistics, and the first health check would meet sequential scans. A table that
/// cannot be analyzed is told and is no failure: its rows are there all the same.
pub async fn analyze(target: &Target, plan: &LoadPlan, progress: &Progress) -> Result<()> {
    let session = connect(target).await?;
    if !is_utf8(plan) {
        // Names that cannot be read cannot be written into a statement either: the server writes it.
        session
            .batch(&format!(
                // language=SQL
                "DO $$ DECLARE each pg_catalog.regclass; BEGIN
                   FOR each IN SELECT c.oid {ANALYZED} LOOP
                     BEGIN
                       EXECUTE pg_catalog.format('ANALYZE %s', each);
                     EXCEPTION WHEN OTHERS THEN
                       RAISE WARNING 'a table could not be analyzed: %', SQLERRM;
                     END;
                   END LOOP;
                 END $$"
            ))
            .await?;
        for notice in session.take_notices() {
            progress.warn(notice);
        }
        session.close().await;
        return Ok(());
    }
    let rows = session
        .client()
        // language=SQL
        .query(&format!("SELECT n.nspname, c.relname {ANALYZED}"), &[])
        .await
        .map_err(|error| session.explain(&error).context("the tables to analyze could not be listed"))?;
    let tables: VecDeque<String> = rows
        .iter()
        .map(|row| format!("{}.{}", quote::ident(row.get::<_, &str>(0)), quote::ident(row.get::<_, &str>(1))))
        .collect();
    let more = (plan.jobs.max(1) as usize).min(tables.len()).saturating_sub(1);
    let queue = Arc::new(Mutex::new(tables));
    let mut running = JoinSet::new();
    for _ in 0..more {
        let (target, queue, progress) = (target.clone(), Arc::clone(&queue), progress.clone());
        running.spawn(async move { work(connect(&target).await?, &queue, &progress).await });
    }
    work(session, &queue, progress).await?;
    while let Some(finished) = running.join_next().await {
        finished.map_err(|error| Error::failed("ANALYZE broke off").because(error))??;
    }
    Ok(())
}

async fn connect(target: &Target) -> Result<Session> {
    let session = Session::connect(target, "restore", target.connect_timeout()).await?;
    // Statistics that a crash loses are made again.
    // language=SQL
    session.batch("SET synchronous_commit = off").await?;
    Ok(session)
}

async fn work(session: Session, queue: &Mutex<VecDeque<String>>, progress: &Progress) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(table) = next else { break };
        if let Err(error) = session.batch(&format!("ANALYZE {table}")).await {
            let error = error.context(format!("table {table} could not be analyzed"));
            if error.connection_lost() {
                return Err(error);
            }
            progress.warn(error.one_line());
        }
    }
    session.close().await;
    Ok(())
}
