//! Statistics for a database that was just loaded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use super::{LoadPlan, is_utf8};
use crate::error::{Error, Result};
use crate::postgres::{Session, Target, quote};

/// Runs ANALYZE over every table and materialized view, largest first, over as many sessions as the load: a
/// restored database has no statistics, and the first health check would meet sequential scans.
pub async fn analyze(target: &Target, plan: &LoadPlan) -> Result<()> {
    let session = connect(target).await?;
    if !is_utf8(plan) {
        // Names that cannot be read cannot be written into a statement either.
        // language=SQL
        session.batch("ANALYZE").await?;
        session.close().await;
        return Ok(());
    }
    let rows = session
        .client()
        .query(
            // language=SQL
            "SELECT n.nspname, c.relname
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND NOT c.relisshared
              ORDER BY pg_catalog.pg_relation_size(c.oid) DESC, c.oid",
            &[],
        )
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
        let (target, queue) = (target.clone(), Arc::clone(&queue));
        running.spawn(async move { work(connect(&target).await?, &queue).await });
    }
    work(session, &queue).await?;
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

async fn work(session: Session, queue: &Mutex<VecDeque<String>>) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(table) = next else { break };
        session.batch(&format!("ANALYZE {table}")).await.map_err(|error| error.context(format!("table {table}")))?;
    }
    session.close().await;
    Ok(())
}
