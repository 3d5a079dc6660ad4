//! Migrations that run in one transaction with their bookkeeping: one alone, or all of a run together.

use std::time::Instant;

use super::destroying::count_before_destroying;
use super::{applied_row, limits, may_retry, pause, record_failure, unless_cancelled};
use crate::control;
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::migration::Migration;
use crate::ops::beside::millis;
use crate::ops::losses;
use crate::ops::run::Run;
use crate::postgres::{counts, execute, writes};
use crate::progress::Event;

/// One migration in a transaction of its own.
pub(super) async fn up_alone(run: &mut Run<'_>, migration: &Migration, batch: i32) -> Result<()> {
    until_committed(run, std::slice::from_ref(migration), batch, &mut 0).await
}

/// All of them in one transaction: either every one is applied, or none.
pub async fn up_atomically(run: &mut Run<'_>, migrations: &[Migration], batch: i32) -> Result<()> {
    if let [alone] = migrations {
        return super::up(run, alone, batch).await;
    }
    let mut reached = 0;
    let began = Instant::now();
    let Err(error) = until_committed(run, migrations, batch, &mut reached).await else {
        for migration in migrations {
            if let Some(report) = run.report_mut(migration.version.as_str()) {
                report.status = "applied".to_owned();
            }
        }
        return Ok(());
    };
    for migration in migrations.iter().take(reached) {
        if let Some(report) = run.report_mut(migration.version.as_str()) {
            report.status = "rolled_back".to_owned();
        }
    }
    if let Some(migration) = migrations.get(reached) {
        let duration_ms = millis(began.elapsed());
        if let Some(report) = run.report_mut(migration.version.as_str()) {
            report.status = "failed".to_owned();
            report.duration_ms = duration_ms;
            report.error = Some(error.one_line());
        }
        record_failure(run, migration, batch, duration_ms, &error).await;
    }
    Err(error)
}

/// Tries the whole transaction again as long as that can help. `reached` counts the migrations that ran well in
/// the last attempt.
async fn until_committed(run: &mut Run<'_>, migrations: &[Migration], batch: i32, reached: &mut usize) -> Result<()> {
    let mut attempt = 1;
    loop {
        run.ctx.check_cancelled()?;
        *reached = 0;
        let error = match in_one_transaction(run, migrations, batch, reached).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let Some(failed) = migrations.get(*reached).or(migrations.last()) else { return Err(error) };
        if !may_retry(run.ctx, failed, &error, attempt) {
            return Err(error);
        }
        attempt += 1;
        pause(run.ctx, &error, attempt).await?;
    }
}

async fn in_one_transaction(
    run: &mut Run<'_>,
    migrations: &[Migration],
    batch: i32,
    reached: &mut usize,
) -> Result<()> {
    let Some(first) = migrations.first() else { return Ok(()) };
    let counted = run.ours.counted_before.clone();
    execute::begin(&run.live.session, &limits(run.ctx, first)).await?;
    if let Err(error) = run_all(run, migrations, batch, reached).await {
        // The first failure is the one to tell. A lost connection has rolled back by itself.
        let _ = execute::rollback(&run.live.session).await;
        // What was counted holds no longer: the tables stand again, and others write to them.
        run.ours.counted_before = counted;
        return Err(error);
    }
    run.ctx.faults.at("up_before_commit").await;
    execute::commit(&run.live.session).await?;
    run.ctx.faults.at("up_committed").await;
    execute::reset(&run.live.session).await
}

/// Everything up to the COMMIT.
async fn run_all(run: &mut Run<'_>, migrations: &[Migration], batch: i32, reached: &mut usize) -> Result<()> {
    if run.strict {
        keep_writers_off(run).await?;
    }
    // Alone, it is told by the caller, once however often it is tried.
    let several = migrations.len() > 1;
    for migration in migrations {
        run.ctx.check_cancelled()?;
        let began = Instant::now();
        let (version, name) = (migration.version.to_string(), migration.name.clone());
        if several {
            run.ctx.progress.tell(Event::MigrationBegan {
                version: version.clone(),
                name: name.clone(),
                direction: "up",
            });
        }
        if *reached > 0 {
            execute::limit_transaction(&run.live.session, &limits(run.ctx, migration)).await?;
        }
        run_one(run, migration, batch, began).await?;
        *reached += 1;
        if several {
            let duration_ms = millis(began.elapsed());
            if let Some(report) = run.report_mut(&version) {
                report.duration_ms = duration_ms;
            }
            run.ctx.progress.tell(Event::MigrationFinished { version, name, direction: "up", duration_ms });
        }
    }
    Ok(())
}

/// The strict fence: no table can be written to until the transaction is over, and what somebody wrote between the
/// backup and here, past the fence, stops the run while nothing is changed. Reading goes on.
async fn keep_writers_off(run: &Run<'_>) -> Result<()> {
    writes::lock_all(&run.live.session).await?;
    let Some(backup) = &run.backup else { return Ok(()) };
    let counted = losses::count(&run.live.session, &backup.manifest, &backup.keys, &run.ours).await?;
    if counted.total() == 0 && counted.unknowable.is_empty() {
        return Ok(());
    }
    Err(Error::failed("somebody passed the fence: after the backup others wrote, and a restore would lose it")
        .because(losses::describe(&counted))
        .because("a client that asks for READ WRITE, or whose role or session sets it, is not held by the fence")
        .hint("stop that client, then: ripcord apply --atomic --writes fence"))
}

/// The tables that the file's header says it touches.
pub(super) fn declared_tables(migration: &Migration) -> impl Iterator<Item = String> {
    migration.metadata.affected_tables.iter().map(|table| match table.contains('.') {
        true => table.clone(),
        false => format!("public.{table}"),
    })
}

/// One migration's statements and its row, inside the open transaction.
async fn run_one(run: &mut Run<'_>, migration: &Migration, batch: i32, began: Instant) -> Result<()> {
    let limits = limits(run.ctx, migration);
    count_before_destroying(run, &migration.up, &migration.up.statements).await?;
    let session = &run.live.session;
    unless_cancelled(run, execute::run_in_transaction(session, &migration.up, &migration.file_name, &limits)).await?;
    // The script may have changed its role; the bookkeeping is ours.
    let (xid, mut touched) = counts::own_and_touched(session).await?;
    touched.extend(declared_tables(migration));
    let row = applied_row(run, migration, batch, began);
    control::record_migration(session.client(), &row).await?;
    run.ours.xids.push(xid);
    if let Some(all) = &mut run.ours.touched {
        all.extend(touched.iter().cloned());
    }
    let (version, name) = (migration.version.to_string(), migration.name.clone());
    run.journal.record(Step::UpCommits { version, name, xid, touched })
}
