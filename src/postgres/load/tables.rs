//! Some tables of a dump, alone: into an empty database, or into new tables of a living one.

use std::sync::Arc;

use futures_util::TryStreamExt;

use super::child::{Input, Memory, STDIN_PATH};
use super::{Counter, LoadPlan, Loaded, Restore, blocking, rows, sort_memory};
use crate::error::{Error, Result};
use crate::postgres::{Session, Target, Tools};
use crate::progress::Progress;

/// The entries of a dump that are loaded, by their numbers, in restore order.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// What the rows go into, and what that stands on.
    pub pre_data: Vec<i32>,
    /// Values of sequences; rows are not meant.
    pub other_data: Vec<i32>,
    /// Indexes and constraints.
    pub post_data: Vec<i32>,
}

/// Like [`super::load`], for the entries selected and the plan's tables alone. Works in any encoding: the plan's
/// statements say how their rows are to be read.
pub async fn load_selected(
    tools: &Tools,
    target: &Target,
    plan: &LoadPlan,
    selection: &Selection,
    progress: &Progress,
) -> Result<Loaded> {
    let counter = Arc::new(Counter::new(progress, plan.total_bytes));
    let mut restore = Restore { tools, target, role: plan.role.as_deref(), fresh: true, sort_memory: None };
    let source = Arc::clone(&plan.source);
    let contents = Memory::new(&blocking(move || source.table_of_contents()).await?)?;
    let memory = || Input::Memory(contents.clone());

    let list = list(&selection.pre_data)?;
    let before = ["--exit-on-error", "--section=pre-data", STDIN_PATH];
    let mut warnings = restore.run(&before, memory(), Some(&list), "the schema could not be loaded").await?;

    let (rows, _) = rows::load_and_build(target, plan, &counter, None).await?;

    if !selection.other_data.is_empty() {
        let list = self::list(&selection.other_data)?;
        let data = ["--exit-on-error", "--section=data", STDIN_PATH];
        let failed = "sequence values could not be loaded";
        warnings.extend(restore.run(&data, memory(), Some(&list), failed).await?);
    }
    if !selection.post_data.is_empty() {
        restore.sort_memory = sort_memory(target, plan.jobs.max(1)).await?;
        let list = self::list(&selection.post_data)?;
        let jobs = format!("--jobs={}", plan.jobs.max(1));
        let after = ["--exit-on-error", "--section=post-data", &jobs, STDIN_PATH];
        let failed = "indexes and constraints could not be loaded";
        warnings.extend(restore.run(&after, memory(), Some(&list), failed).await?);
    }
    Ok(Loaded { rows, warnings })
}

/// Copies every table of the plan, one after the other, in the session's own transaction.
pub async fn copy_rows(session: &Session, plan: &LoadPlan, progress: &Progress) -> Result<()> {
    let counter = Arc::new(Counter::new(progress, plan.total_bytes));
    for table in &plan.tables {
        rows::copy_checked(session, &plan.source, table, &counter).await?;
    }
    Ok(())
}

/// The settings under which rows are written and read as the dump has them, for the rest of the session.
pub async fn prepare(session: &Session) -> Result<()> {
    rows::prepare(session, None).await?;
    // This is no scratch database: what was committed must be there after a crash.
    // language=SQL
    session.batch("SET synchronous_commit = on; SET extra_float_digits = 3").await
}

/// Hands the text of a COPY TO STDOUT statement to `feed`, piece by piece.
pub async fn read_rows(session: &Session, statement: &str, mut feed: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let explain = |error: tokio_postgres::Error| session.explain(&error);
    let stream = session.client().copy_out(statement).await.map_err(explain)?;
    let mut stream = std::pin::pin!(stream);
    while let Some(piece) = stream.try_next().await.map_err(explain)? {
        feed(&piece)?;
    }
    Ok(())
}

/// A list for `--use-list`: of each line, pg_restore reads the number and no more.
fn list(entries: &[i32]) -> Result<Memory> {
    if entries.is_empty() {
        return Err(Error::failed("nothing of the dump was selected"));
    }
    let mut text = String::new();
    for entry in entries {
        text.push_str(&format!("{entry};\n"));
    }
    Memory::new(text.as_bytes())
}
