//! Running migrations up and down, with their bookkeeping in the same transaction where there is one.

mod destroying;
mod down;
mod parallel;
pub mod resumption;
mod rounds;
mod statements;
mod transaction;

use std::pin::pin;
use std::time::{Duration, Instant};

pub use self::down::down;
pub use self::parallel::up_beside;
pub use self::statements::{Left, settle_statement};
pub use self::transaction::up_atomically;
use super::beside::millis;
use super::context::{Context, TOOL_VERSION};
use super::run::Run;
use crate::clock;
use crate::control::{self, MigrationRow};
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::migration::Migration;
use crate::postgres::execute::{self, Limits};
use crate::postgres::session;
use crate::progress::Event;

/// The limits that hold for a migration: its own, else the settings'.
pub fn limits(ctx: &Context, migration: &Migration) -> Limits {
    let settings = &ctx.settings.timeouts;
    Limits {
        statement: migration.metadata.statement_timeout.unwrap_or(settings.statement),
        lock: migration.metadata.lock_timeout.unwrap_or(settings.lock),
        whole: settings.migration,
    }
}

/// Applies one migration and records it. A failure is recorded too, once nothing of it is left open.
pub async fn up(run: &mut Run<'_>, migration: &Migration, batch: i32) -> Result<()> {
    let version = migration.version.to_string();
    let began = Instant::now();
    run.ctx.progress.tell(Event::MigrationBegan {
        version: version.clone(),
        name: migration.name.clone(),
        direction: "up",
    });
    let result = match &migration.up.no_transaction {
        None => transaction::up_alone(run, migration, batch).await,
        Some(_) => statements::up_by_statement(run, migration, batch).await,
    };
    let duration_ms = millis(began.elapsed());
    if let Some(report) = run.report_mut(&version) {
        report.duration_ms = duration_ms;
        report.status = if result.is_ok() { "applied" } else { "failed" }.to_owned();
        report.error = result.as_ref().err().map(Error::one_line);
    }
    match result {
        Ok(()) => {
            tell_finished(run.ctx, migration, duration_ms);
            Ok(())
        }
        Err(error) => {
            record_failure(run, migration, batch, duration_ms, &error).await;
            Err(error)
        }
    }
}

/// An UP is applied; one that took much longer than its author thought is told.
fn tell_finished(ctx: &Context, migration: &Migration, duration_ms: u64) {
    let estimate = migration.metadata.estimated_duration.map(millis);
    if let Some(expected) = estimate.filter(|expected| duration_ms > expected.saturating_mul(2)) {
        ctx.progress.warn(format!(
            "`{}` took {duration_ms} ms, more than twice its estimate of {expected} ms",
            migration.file_name
        ));
    }
    ctx.progress.tell(Event::MigrationFinished {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        direction: "up",
        duration_ms,
    });
}

/// Whether a whole transaction is tried again: nothing of it was committed when it failed on a lock, a
/// deadlock or a serialization failure.
fn may_retry(ctx: &Context, migration: &Migration, error: &Error, attempt: u32) -> bool {
    let attempts = migration.metadata.retry.unwrap_or(ctx.settings.retry.attempts);
    let retryable = error.sqlstate().is_some_and(session::is_retryable) && !error.connection_lost();
    retryable && attempt < attempts
}

/// Before the attempt of that number.
async fn pause(ctx: &Context, error: &Error, attempt: u32) -> Result<()> {
    let delay = backoff(ctx.settings.retry.delay, attempt);
    ctx.progress.tell(Event::Retry { reason: error.one_line(), attempt, delay_ms: millis(delay) });
    sleep(ctx, delay).await
}

/// Waits that long, unless the run shall stop.
async fn sleep(ctx: &Context, delay: Duration) -> Result<()> {
    tokio::select! {
        () = tokio::time::sleep(delay) => Ok(()),
        () = ctx.cancelled() => Err(super::context::stopped()),
    }
}

/// The delay doubles with each attempt; half of it is random, so that two runs do not meet again.
fn backoff(first: Duration, attempt: u32) -> Duration {
    let doubled = first.saturating_mul(1 << (attempt - 2).min(6));
    doubled / 2 + doubled.mul_f64(rand::random::<f64>() / 2.0)
}

/// Waits for what the server is doing; when the run shall stop, it is cancelled on the server first.
async fn unless_cancelled(run: &Run<'_>, work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => done,
        () = run.ctx.cancelled() => {
            let stopped = super::context::stopped();
            match run.live.session.stop(work).await {
                Ok(_) => Err(stopped),
                Err(error) => Err(stopped.because(error).with_connection_lost()),
            }
        }
    }
}

/// Writes down that a migration begins that runs statement by statement.
fn journal_began(run: &mut Run<'_>, migration: &Migration) -> Result<()> {
    // Which tables statements outside a transaction touch is told by no locks.
    run.ours.touched = None;
    run.journal.record(Step::UpBegan {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        transactional: false,
        xid: None,
    })
}

fn journal_done(run: &mut Run<'_>, migration: &Migration) -> Result<()> {
    run.journal.record(Step::UpDone {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        touched: None,
    })
}

fn applied_row(run: &Run<'_>, migration: &Migration, batch: i32, began: Instant) -> MigrationRow {
    MigrationRow {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        checksum: migration.checksum.clone(),
        loose_checksum: Some(migration.loose_checksum.clone()),
        batch,
        state: "applied".to_owned(),
        applied_at: clock::now(),
        execution_time_ms: elapsed_ms(began),
        success: true,
        error: None,
        applied_by: format!("{} as {}", run.ctx.identity.user, run.ctx.target.user()),
        approver: run.approver.clone(),
        git_commit: run.ctx.identity.git_commit.clone(),
        run: Some(run.id),
        tool_version: TOOL_VERSION.to_owned(),
        up_sql: Some(migration.up.sql.to_string()),
        down_sql: migration.down.as_ref().map(|down| down.sql.to_string()),
    }
}

/// The failed attempt stays as a row, whatever becomes of the database. Where it cannot be written, the
/// failure itself is still told by the caller.
async fn record_failure(run: &mut Run<'_>, migration: &Migration, batch: i32, duration_ms: u64, error: &Error) {
    let mut row = applied_row(run, migration, batch, Instant::now());
    row.state = "failed".to_owned();
    row.success = false;
    row.error = Some((run.ctx.hide)(&error.one_line()));
    row.execution_time_ms = i64::try_from(duration_ms).unwrap_or(i64::MAX);
    if run.live.session.is_closed() && run.live.reconnect(run.ctx).await.is_err() {
        // The server may come back while the run is brought back.
        run.unrecorded = Some(row);
        return;
    }
    let recorded = async {
        execute::reset(&run.live.session).await?;
        control::record_migration(run.live.session.client(), &row).await
    };
    if let Err(lost) = recorded.await {
        run.ctx.progress.warn(format!("the failed attempt could not be recorded: {lost}"));
    }
}

fn elapsed_ms(began: Instant) -> i64 {
    i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX)
}
