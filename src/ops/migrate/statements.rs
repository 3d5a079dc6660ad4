//! A migration outside one transaction: statement by statement, with the journal after each.

use std::time::Instant;

use super::destroying::count_before_destroying;
use super::resumption::Resumption;
use super::{applied_row, journal_began, journal_done, limits, may_retry, pause, rounds, unless_cancelled};
use crate::control;
use crate::error::{Error, Result};
use crate::journal::{Entry, Step};
use crate::migration::{Migration, Script, Statement};
use crate::ops::run::Run;
use crate::postgres::indexes::{self, Index};
use crate::postgres::{checks, counts, execute};

/// Each statement is committed by itself. What can run in a transaction of its own does, so that its rows are known
/// as ours.
pub(super) async fn up_by_statement(run: &mut Run<'_>, migration: &Migration, batch: i32) -> Result<()> {
    let began = Instant::now();
    journal_began(run, migration)?;
    let resumption = run.resumptions.get(migration.version.as_str()).cloned();
    let first = match &resumption {
        Some(resumption) => go_on(run, migration, resumption).await?,
        None => 0,
    };
    for number in first..migration.up.statements.len() {
        until_done(run, migration, number).await?;
        run.ctx.faults.at("statement_done").await;
    }
    execute::reset(&run.live.session).await?;
    let row = applied_row(run, migration, batch, began);
    control::record_migration(run.live.session.client(), &row).await?;
    journal_done(run, migration)
}

/// Whether a statement is sent without a transaction around it. A procedure may commit, which only its body tells.
pub(super) fn runs_outside(script: &Script, statement: &Statement) -> bool {
    let calls = || script.text(statement).get(..4).is_some_and(|word| word.eq_ignore_ascii_case("call"));
    statement.effect.needs_no_transaction || calls()
}

/// What an earlier run has done is not done again. The number of the statement to begin with.
async fn go_on(run: &mut Run<'_>, migration: &Migration, resumption: &Resumption) -> Result<usize> {
    if let Some(statement) = migration.up.statements.get(resumption.statements) {
        run.ctx.progress.note(format!(
            "`{}` goes on at statement {} of {} (line {}), where run `{}` stopped",
            migration.file_name,
            resumption.statements + 1,
            migration.up.statements.len(),
            migration.up.line(statement),
            resumption.run
        ));
    }
    run.journal.record(Step::Resumed {
        version: migration.version.to_string(),
        run: resumption.run,
        statements: resumption.statements,
        digest: migration.up.digest(resumption.statements),
        keys: resumption.keys.clone(),
    })?;
    // What the statement left that stopped the run: the next attempt would find its name taken.
    if let Some(before) = &resumption.interrupted
        && let Some(name) =
            migration.up.statements.get(resumption.statements).and_then(|one| one.effect.concurrent_index.clone())
    {
        let dropped = drop_invalid(run, &name, before).await?;
        if !dropped.is_empty() {
            journal_undone(run, migration.version.as_str(), resumption.statements, dropped)?;
        }
    }
    Ok(resumption.statements)
}

/// One statement, tried again while that can help and nothing of it stands.
async fn until_done(run: &mut Run<'_>, migration: &Migration, number: usize) -> Result<()> {
    let mut attempt = 1;
    loop {
        run.ctx.check_cancelled()?;
        let error = match once(run, migration, number).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Rounds are tried again one by one.
        let in_batches = migration.up.batches.contains_key(&number);
        if in_batches
            || !may_retry(run.ctx, migration, &error, attempt)
            || settle_statement(run, true).await? != Left::Nothing
        {
            return Err(error);
        }
        attempt += 1;
        pause(run.ctx, &error, attempt).await?;
    }
}

async fn once(run: &mut Run<'_>, migration: &Migration, number: usize) -> Result<()> {
    let script = &migration.up;
    let Some(statement) = script.statements.get(number) else { return Ok(()) };
    let xid = if script.batches.contains_key(&number) {
        rounds::run(run, migration, number).await?;
        None
    } else if runs_outside(script, statement) {
        outside(run, migration, number, statement).await?;
        None
    } else {
        Some(inside(run, migration, number, statement).await?)
    };
    run.journal.record(Step::StatementDone {
        version: migration.version.to_string(),
        statement: number,
        xid,
        digest: script.digest(number + 1),
    })
}

async fn outside(run: &mut Run<'_>, migration: &Migration, number: usize, statement: &Statement) -> Result<()> {
    let limits = limits(run.ctx, migration);
    let invalid_before = checks::invalid_indexes(&run.live.session).await?;
    let indexes = match &statement.effect.concurrent_index {
        Some(name) => indexes::called(&run.live.session, name).await?,
        None => Vec::new(),
    };
    // IF NOT EXISTS takes an invalid one for the index that is wanted.
    if let Some(index) = indexes.iter().find(|index| !index.valid)
        && statement.effect.if_not_exists
    {
        return Err(Error::failed(format!(
            "migration `{}` failed at line {}: there is an invalid index `{}` already, which IF NOT EXISTS would keep",
            migration.file_name,
            migration.up.line(statement),
            index.name
        ))
        .hint(format!("drop it, then apply again: DROP INDEX CONCURRENTLY {}", index.name)));
    }
    run.journal.record(Step::StatementBegan {
        version: migration.version.to_string(),
        statement: number,
        xid: None,
        indexes: indexes.iter().map(|index| index.oid).collect(),
    })?;
    run.ctx.faults.at("statement_began").await;
    let session = &run.live.session;
    let sent = execute::run_statement(session, &migration.up, number, &migration.file_name, &limits);
    match unless_cancelled(run, sent).await {
        Ok(()) => Ok(()),
        Err(error) => Err(naming_invalid_indexes(run, error, &invalid_before).await),
    }
}

/// Returns the transaction's id.
async fn inside(run: &mut Run<'_>, migration: &Migration, number: usize, statement: &Statement) -> Result<u64> {
    let limits = limits(run.ctx, migration);
    let counted = run.ours.counted_before.clone();
    execute::begin(&run.live.session, &limits).await?;
    let ran = async {
        let xid = counts::own_xid(&run.live.session).await?;
        run.ours.xids.push(xid);
        count_before_destroying(run, &migration.up, std::slice::from_ref(statement)).await?;
        let (session, file) = (&run.live.session, &migration.file_name);
        let sent = execute::run_one_in_transaction(session, &migration.up, number, file, &limits);
        unless_cancelled(run, sent).await?;
        // From here on it may be committed, whatever is heard of that.
        let version = migration.version.to_string();
        run.journal.record(Step::StatementBegan { version, statement: number, xid: Some(xid), indexes: Vec::new() })?;
        Ok(xid)
    }
    .await;
    let xid = match ran {
        Ok(xid) => xid,
        Err(error) => {
            let _ = execute::rollback(&run.live.session).await;
            run.ours.counted_before = counted;
            return Err(error);
        }
    };
    run.ctx.faults.at("statement_before_commit").await;
    execute::commit(&run.live.session).await?;
    run.ctx.faults.at("statement_committed").await;
    Ok(xid)
}

/// CREATE INDEX CONCURRENTLY that fails leaves an index that costs every write and serves no read.
async fn naming_invalid_indexes(run: &Run<'_>, error: Error, before: &[String]) -> Error {
    let Ok(now) = checks::invalid_indexes(&run.live.session).await else { return error };
    now.iter()
        .filter(|index| !before.contains(index))
        .fold(error, |error, index| error.because(format!("it left an invalid index: {index}")))
}

/// What is left of the statement at which a run stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: it can be run again.
    Nothing,
    /// All of it: the next one is to come.
    All,
    /// Something, or nobody knows.
    Something,
}

/// A statement that was begun, and of which the journal does not say how it ended.
#[derive(Debug)]
pub struct Open<'a> {
    /// Version of its migration.
    pub version: &'a str,
    /// Its number.
    pub statement: usize,
    /// Its transaction.
    pub xid: Option<u64>,
    /// The indexes of its index's name that were there before.
    pub indexes: &'a [u32],
}

/// The last statement, when the journal does not say how it ended.
pub fn open_statement(entries: &[Entry]) -> Option<Open<'_>> {
    entries.iter().rev().find_map(|entry| match &entry.step {
        Step::StatementBegan { version, statement, xid, indexes } => {
            Some(Some(Open { version, statement: *statement, xid: *xid, indexes }))
        }
        Step::UpBegan { .. } | Step::StatementDone { .. } | Step::StatementUndone { .. } | Step::Round { .. } => {
            Some(None)
        }
        _ => None,
    })?
}

/// Finds out what became of the statement at which the run stopped, and writes it down. With `tidy`, the invalid
/// index that it left is dropped, so that it can be run again.
pub async fn settle_statement(run: &mut Run<'_>, tidy: bool) -> Result<Left> {
    let Some(open) = open_statement(run.journal.entries()) else { return Ok(Left::Nothing) };
    let (version, number, xid, before) = (open.version.to_owned(), open.statement, open.xid, open.indexes.to_vec());
    let migration = run.migrations.iter().find(|migration| migration.version.as_str() == version).cloned();
    if let Some(xid) = xid {
        let status = indexes::transaction_status(&run.live.session, xid).await?;
        return match (status.as_deref(), migration) {
            (Some("aborted"), _) => {
                journal_undone(run, &version, number, Vec::new())?;
                Ok(Left::Nothing)
            }
            (Some("committed"), Some(migration)) => journal_all(run, &migration, number, Some(xid)),
            _ => Ok(Left::Something),
        };
    }
    let Some(migration) = migration else { return Ok(Left::Something) };
    let Some(statement) = migration.up.statements.get(number) else { return Ok(Left::Something) };
    let text = migration.up.text(statement).to_ascii_lowercase();
    if let Some(name) = &statement.effect.concurrent_index {
        let new: Vec<Index> = indexes::called(&run.live.session, name)
            .await?
            .into_iter()
            .filter(|one| !before.contains(&one.oid))
            .collect();
        if new.iter().any(|index| index.valid) {
            return journal_all(run, &migration, number, None);
        }
        if !new.is_empty() && !tidy {
            return Ok(Left::Something);
        }
        let dropped = drop_invalid(run, name, &before).await?;
        journal_undone(run, &version, number, dropped)?;
        return Ok(Left::Nothing);
    }
    // These change nothing that is not as well done twice.
    if ["vacuum", "cluster", "alter system"].iter().any(|word| text.starts_with(word)) {
        journal_undone(run, &version, number, Vec::new())?;
        return Ok(Left::Nothing);
    }
    Ok(Left::Something)
}

fn journal_all(run: &mut Run<'_>, migration: &Migration, number: usize, xid: Option<u64>) -> Result<Left> {
    run.journal.record(Step::StatementDone {
        version: migration.version.to_string(),
        statement: number,
        xid,
        digest: migration.up.digest(number + 1),
    })?;
    Ok(Left::All)
}

fn journal_undone(run: &mut Run<'_>, version: &str, statement: usize, dropped: Vec<String>) -> Result<()> {
    run.journal.record(Step::StatementUndone { version: version.to_owned(), statement, dropped })
}

/// Drops the invalid indexes of that name that are not among those of before.
async fn drop_invalid(run: &Run<'_>, name: &str, before: &[u32]) -> Result<Vec<String>> {
    let mut dropped = Vec::new();
    for index in indexes::called(&run.live.session, name).await? {
        if index.valid || before.contains(&index.oid) {
            continue;
        }
        // The old snapshot that stopped the one may stop the other.
        let lock = run.ctx.settings.timeouts.lock.as_millis().max(1);
        // language=SQL
        run.live.session.batch(&format!("SET lock_timeout = {lock}")).await?;
        let done = indexes::drop_concurrently(&run.live.session, &index).await;
        // language=SQL
        run.live.session.batch("SET lock_timeout = 0").await?;
        done.map_err(|error| error.context(format!("the invalid index `{}` could not be dropped", index.name)))?;
        run.ctx.progress.note(format!("dropped the invalid index `{}` that the statement left", index.name));
        dropped.push(index.name);
    }
    Ok(dropped)
}
