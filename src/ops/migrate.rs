//! Running one migration up or down, with its bookkeeping in the same transaction.

use std::time::{Duration, Instant};

use super::beside::millis;
use super::context::TOOL_VERSION;
use super::run::Run;
use crate::clock;
use crate::control::{self, MigrationRow};
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::migration::{Migration, Script, destroyed_schemas, destroyed_tables};
use crate::postgres::execute::{self, Limits};
use crate::postgres::{checks, counts, session};
use crate::progress::Event;

/// The limits that hold for a migration: its own, else the settings'.
pub fn limits(run: &Run<'_>, migration: &Migration) -> Limits {
    let settings = &run.ctx.settings.timeouts;
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
        None => up_in_transaction(run, migration, batch).await,
        Some(_) => up_by_statement(run, migration, batch).await,
    };
    let duration_ms = millis(began.elapsed());
    if let Some(report) = run.report_mut(&version) {
        report.duration_ms = duration_ms;
        report.status = if result.is_ok() { "applied" } else { "failed" }.to_owned();
        report.error = result.as_ref().err().map(Error::one_line);
    }
    match result {
        Ok(()) => {
            run.ctx.progress.tell(Event::MigrationFinished {
                version,
                name: migration.name.clone(),
                direction: "up",
                duration_ms,
            });
            Ok(())
        }
        Err(error) => {
            record_failure(run, migration, batch, duration_ms, &error).await;
            Err(error)
        }
    }
}

/// The whole transaction is tried again when it failed on a lock, a deadlock or a serialization failure:
/// nothing of it was committed then.
async fn up_in_transaction(run: &mut Run<'_>, migration: &Migration, batch: i32) -> Result<()> {
    let mut attempt = 1;
    loop {
        run.ctx.check_cancelled()?;
        let began = Instant::now();
        let error = match attempt_up(run, migration, batch, began).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !may_retry(run, &error, attempt) {
            return Err(error);
        }
        attempt += 1;
        pause(run, &error, attempt).await?;
    }
}

/// Whether the whole transaction is tried again.
fn may_retry(run: &Run<'_>, error: &Error, attempt: u32) -> bool {
    let retryable = error.sqlstate().is_some_and(session::is_retryable) && !error.connection_lost();
    retryable && attempt < run.ctx.settings.retry.attempts
}

/// Before the attempt of that number.
async fn pause(run: &Run<'_>, error: &Error, attempt: u32) -> Result<()> {
    let delay = backoff(run.ctx.settings.retry.delay, attempt);
    run.ctx.progress.tell(Event::Retry { reason: error.one_line(), attempt, delay_ms: millis(delay) });
    tokio::select! {
        () = tokio::time::sleep(delay) => Ok(()),
        () = run.ctx.cancelled() => Err(super::context::stopped()),
    }
}

/// The delay doubles with each attempt; half of it is random, so that two runs do not meet again.
fn backoff(first: Duration, attempt: u32) -> Duration {
    let doubled = first.saturating_mul(1 << (attempt - 2).min(6));
    doubled / 2 + doubled.mul_f64(rand::random::<f64>() / 2.0)
}

async fn attempt_up(run: &mut Run<'_>, migration: &Migration, batch: i32, began: Instant) -> Result<()> {
    let limits = limits(run, migration);
    let counted = run.ours.counted_before.clone();
    execute::begin(&run.live.session, &limits).await?;
    let done = async {
        begin_up(run, migration, true).await?;
        count_before_destroying(run, &migration.up).await?;
        let cancelled = run.ctx.cancelled();
        tokio::select! {
            ran = execute::run_in_transaction(&run.live.session, &migration.up, &migration.file_name, &limits) => ran?,
            () = cancelled => {
                run.live.session.cancel().await?;
                return Err(super::context::stopped());
            }
        }
        // The script may have changed its role or its settings; the bookkeeping is ours.
        // language=SQL
        run.live
            .session
            .batch("RESET SESSION AUTHORIZATION; RESET ROLE; SET LOCAL search_path TO pg_catalog, pg_temp")
            .await?;
        let touched = counts::touched_tables(&run.live.session).await?;
        let row = applied_row(run, migration, batch, began);
        control::record_migration(run.live.session.client(), &row).await?;
        // Before the COMMIT: when its answer is lost, this is what is known of it.
        run.journal.record(Step::Touched { tables: touched.clone() })?;
        Ok(touched)
    }
    .await;
    let touched = match done {
        Ok(touched) => touched,
        Err(error) => {
            // The first failure is the one to tell. A lost connection has rolled back by itself.
            let _ = execute::rollback(&run.live.session).await;
            // What was counted holds no longer: the tables stand again, and others write to them.
            run.ours.counted_before = counted;
            return Err(error);
        }
    };
    run.ctx.faults.at("up_before_commit").await;
    execute::commit(&run.live.session).await?;
    run.ctx.faults.at("up_committed").await;
    finish_up(run, migration, Some(touched))?;
    execute::reset(&run.live.session).await
}

/// All of them in one transaction: either every one is applied, or none. Tried again like a single one.
pub async fn up_atomically(run: &mut Run<'_>, migrations: &[Migration], batch: i32) -> Result<()> {
    let mut attempt = 1;
    loop {
        run.ctx.check_cancelled()?;
        let mut reached = 0;
        let began = Instant::now();
        let error = match attempt_atomically(run, migrations, batch, &mut reached).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if may_retry(run, &error, attempt) {
            attempt += 1;
            pause(run, &error, attempt).await?;
            continue;
        }
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
        return Err(error);
    }
}

/// `reached` counts the migrations that ran well.
async fn attempt_atomically(
    run: &mut Run<'_>,
    migrations: &[Migration],
    batch: i32,
    reached: &mut usize,
) -> Result<()> {
    let Some(first) = migrations.first() else { return Ok(()) };
    let limits = limits(run, first);
    let counted = run.ours.counted_before.clone();
    execute::begin(&run.live.session, &limits).await?;
    let done = async {
        for migration in migrations {
            run.ctx.check_cancelled()?;
            let began = Instant::now();
            let version = migration.version.to_string();
            run.ctx.progress.tell(Event::MigrationBegan {
                version: version.clone(),
                name: migration.name.clone(),
                direction: "up",
            });
            begin_up(run, migration, true).await?;
            count_before_destroying(run, &migration.up).await?;
            let cancelled = run.ctx.cancelled();
            tokio::select! {
                ran = execute::run_in_transaction(&run.live.session, &migration.up, &migration.file_name, &limits) => ran?,
                () = cancelled => {
                    run.live.session.cancel().await?;
                    return Err(super::context::stopped());
                }
            }
            // language=SQL
            run.live.session.batch("RESET SESSION AUTHORIZATION; RESET ROLE").await?;
            control::record_migration(run.live.session.client(), &applied_row(run, migration, batch, began)).await?;
            let duration_ms = millis(began.elapsed());
            if let Some(report) = run.report_mut(&version) {
                report.duration_ms = duration_ms;
            }
            run.ctx.progress.tell(Event::MigrationFinished {
                version,
                name: migration.name.clone(),
                direction: "up",
                duration_ms,
            });
            *reached += 1;
        }
        let touched = counts::touched_tables(&run.live.session).await?;
        run.journal.record(Step::Touched { tables: touched.clone() })?;
        Ok(touched)
    }
    .await;
    let touched = match done {
        Ok(touched) => touched,
        Err(error) => {
            let _ = execute::rollback(&run.live.session).await;
            run.ours.counted_before = counted;
            return Err(error);
        }
    };
    run.ctx.faults.at("up_before_commit").await;
    execute::commit(&run.live.session).await?;
    run.ctx.faults.at("up_committed").await;
    for migration in migrations {
        finish_up(run, migration, Some(touched.clone()))?;
        if let Some(report) = run.report_mut(migration.version.as_str()) {
            report.status = "applied".to_owned();
        }
    }
    execute::reset(&run.live.session).await
}

/// Writes down that the migration begins, with the transaction's id: its rows are no foreign writes.
async fn begin_up(run: &mut Run<'_>, migration: &Migration, in_transaction: bool) -> Result<()> {
    let xid = if in_transaction { Some(counts::own_xid(&run.live.session).await?) } else { None };
    run.ours.xids.extend(xid);
    run.journal.record(Step::UpBegan {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        transactional: in_transaction,
        xid,
    })
}

fn finish_up(run: &mut Run<'_>, migration: &Migration, touched: Option<Vec<String>>) -> Result<()> {
    match (&mut run.ours.touched, &touched) {
        (Some(all), Some(more)) => all.extend(more.iter().cloned()),
        (all, None) => *all = None,
        (None, _) => {}
    }
    run.journal.record(Step::UpDone { version: migration.version.to_string(), name: migration.name.clone(), touched })
}

/// Before a statement drops, truncates or rewrites a table, what others wrote to it since the backup is
/// counted under a lock that keeps further writers out: afterwards nobody could know.
async fn count_before_destroying(run: &mut Run<'_>, script: &Script) -> Result<()> {
    let Some(backup) = run.backup.clone() else { return Ok(()) };
    let snapshot = backup.manifest.sealed.snapshot.clone();
    let mut names: Vec<String> =
        script.statements.iter().flat_map(|statement| destroyed_tables(script.text(statement))).collect();
    for schema in script.statements.iter().flat_map(|statement| destroyed_schemas(script.text(statement))) {
        names.extend(counts::tables_of_schema(&run.live.session, &schema).await?);
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    let held = super::losses::rows_by_table(&run.live.session, &backup.manifest).await?;
    for name in names {
        let counted = counts::lock_and_count(&run.live.session, &name, &snapshot, &run.ours.xids).await?;
        for (table, count) in counted {
            if run.ours.counted_before.contains_key(&table) {
                continue;
            }
            let rows_then = held.get(&table).copied().unwrap_or(0);
            let untouched = run.ours.touched.as_ref().is_some_and(|touched| !touched.contains(&table));
            let gone = if untouched { rows_then.saturating_sub(count.older + count.doubtful) } else { 0 };
            let written = count.newer + count.doubtful + gone;
            run.journal.record(Step::Counted { table: table.clone(), rows: written })?;
            run.ours.counted_before.insert(table, written);
        }
    }
    Ok(())
}

/// Statement by statement, each committed by itself. What can run in a transaction of its own does, so
/// that its rows are known as ours.
async fn up_by_statement(run: &mut Run<'_>, migration: &Migration, batch: i32) -> Result<()> {
    let began = Instant::now();
    let limits = limits(run, migration);
    let version = migration.version.to_string();
    let invalid_before = checks::invalid_indexes(&run.live.session).await?;
    begin_up(run, migration, false).await?;
    for (number, statement) in migration.up.statements.iter().enumerate() {
        run.ctx.check_cancelled()?;
        let mut xid = None;
        if statement.effect.needs_no_transaction {
            let cancelled = run.ctx.cancelled();
            tokio::select! {
                ran = execute::run_statement(&run.live.session, &migration.up, number, &migration.file_name, &limits) => {
                    if let Err(error) = ran {
                        return Err(naming_invalid_indexes(run, error, &invalid_before).await);
                    }
                }
                () = cancelled => {
                    run.live.session.cancel().await?;
                    return Err(super::context::stopped());
                }
            }
        } else {
            let single = single_statement(&migration.up, number);
            let counted = run.ours.counted_before.clone();
            execute::begin(&run.live.session, &limits).await?;
            let ran = async {
                let own = counts::own_xid(&run.live.session).await?;
                run.ours.xids.push(own);
                xid = Some(own);
                count_before_destroying(run, &single).await?;
                execute::run_in_transaction(&run.live.session, &single, &migration.file_name, &limits).await
            }
            .await;
            if let Err(error) = ran {
                let _ = execute::rollback(&run.live.session).await;
                run.ours.counted_before = counted;
                return Err(error);
            }
            execute::commit(&run.live.session).await?;
        }
        run.journal.record(Step::StatementDone { version: version.clone(), statement: number, xid })?;
        run.ctx.faults.at("statement_done").await;
    }
    execute::reset(&run.live.session).await?;
    let row = applied_row(run, migration, batch, began);
    control::record_migration(run.live.session.client(), &row).await?;
    // Which tables such statements touched is not told by the locks of one transaction.
    finish_up(run, migration, None)
}

/// CREATE INDEX CONCURRENTLY that fails leaves an index that costs every write and serves no read.
async fn naming_invalid_indexes(run: &Run<'_>, error: Error, before: &[String]) -> Error {
    let Ok(now) = checks::invalid_indexes(&run.live.session).await else { return error };
    now.iter()
        .filter(|index| !before.contains(index))
        .fold(error, |error, index| error.because(format!("it left an invalid index: {index}")))
}

/// One statement of a script as a script of its own, its positions in the file kept.
pub(super) fn single_statement(script: &Script, number: usize) -> Script {
    let Some(statement) = script.statements.get(number) else {
        return Script {
            sql: String::new(),
            first_line: script.first_line,
            statements: Vec::new(),
            no_transaction: None,
        };
    };
    // Blanks in place of what stands before keep line and column.
    let before: String = script.sql[..statement.start].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
    let mut single = statement.clone();
    single.start = before.len();
    single.end = before.len() + (statement.end - statement.start);
    Script {
        sql: before + &script.sql[statement.start..statement.end],
        first_line: script.first_line,
        statements: vec![single],
        no_transaction: None,
    }
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
        execution_time_ms: i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX),
        success: true,
        error: None,
        applied_by: format!("{} as {}", run.ctx.identity.user, run.ctx.target.user()),
        approver: run.approver.clone(),
        git_commit: run.ctx.identity.git_commit.clone(),
        run: Some(run.id),
        tool_version: TOOL_VERSION.to_owned(),
        up_sql: Some(migration.up.sql.clone()),
        down_sql: migration.down.as_ref().map(|down| down.sql.clone()),
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

/// Undoes one migration by its DOWN and records it, in one transaction where that can be.
pub async fn down(
    run: &mut Run<'_>,
    version: &str,
    name: &str,
    script: &Script,
    limits: &Limits,
    how: &str,
) -> Result<()> {
    let began = Instant::now();
    run.ctx.progress.tell(Event::MigrationBegan {
        version: version.to_owned(),
        name: name.to_owned(),
        direction: "down",
    });
    run.journal.record(Step::DownBegan {
        version: version.to_owned(),
        name: name.to_owned(),
        transactional: script.no_transaction.is_none(),
    })?;
    run.ctx.faults.at("down_began").await;
    let file = format!("{version}_{name} (DOWN)");
    if script.no_transaction.is_some() {
        // Which tables such statements touch is not told by the locks of one transaction.
        run.ours.touched = None;
        for (number, statement) in script.statements.iter().enumerate() {
            if statement.effect.needs_no_transaction {
                execute::run_statement(&run.live.session, script, number, &file, limits).await?;
            } else {
                down_alone(run, &single_statement(script, number), &file, limits).await?;
            }
        }
        execute::reset(&run.live.session).await?;
        record_down(run, version, how, began).await?;
    } else {
        execute::begin(&run.live.session, limits).await?;
        let done = async {
            let xid = counts::own_xid(&run.live.session).await?;
            run.ours.xids.push(xid);
            run.journal.record(Step::OwnTransaction { xid })?;
            count_before_destroying(run, script).await?;
            execute::run_in_transaction(&run.live.session, script, &file, limits).await?;
            // language=SQL
            run.live
                .session
                .batch("RESET SESSION AUTHORIZATION; RESET ROLE; SET LOCAL search_path TO pg_catalog, pg_temp")
                .await?;
            let touched = counts::touched_tables(&run.live.session).await?;
            record_down(run, version, how, began).await?;
            run.journal.record(Step::Touched { tables: touched.clone() })?;
            Ok(touched)
        }
        .await;
        let touched = match done {
            Ok(touched) => touched,
            Err(error) => {
                let error: Error = error;
                let _ = execute::rollback(&run.live.session).await;
                return Err(error.context(format!("DOWN of `{version}_{name}` failed")));
            }
        };
        if let Some(all) = &mut run.ours.touched {
            all.extend(touched);
        }
        run.ctx.faults.at("down_before_commit").await;
        execute::commit(&run.live.session).await?;
        execute::reset(&run.live.session).await?;
    }
    run.journal.record(Step::DownDone { version: version.to_owned(), name: name.to_owned() })?;
    if let Some(report) = run.report_mut(version) {
        report.status = "rolled_back".to_owned();
    }
    run.ctx.progress.tell(Event::MigrationFinished {
        version: version.to_owned(),
        name: name.to_owned(),
        direction: "down",
        duration_ms: millis(began.elapsed()),
    });
    Ok(())
}

/// One statement of a DOWN that cannot be one transaction as a whole: in a transaction of its own, so that its
/// rows are known as ours.
async fn down_alone(run: &mut Run<'_>, single: &Script, file: &str, limits: &Limits) -> Result<()> {
    execute::begin(&run.live.session, limits).await?;
    let ran = async {
        let xid = counts::own_xid(&run.live.session).await?;
        run.ours.xids.push(xid);
        run.journal.record(Step::OwnTransaction { xid })?;
        count_before_destroying(run, single).await?;
        execute::run_in_transaction(&run.live.session, single, file, limits).await
    }
    .await;
    if let Err(error) = ran {
        let _ = execute::rollback(&run.live.session).await;
        return Err(error);
    }
    execute::commit(&run.live.session).await
}

/// A migration that failed midway outside a transaction was never recorded as applied.
async fn record_down(run: &Run<'_>, version: &str, how: &str, began: Instant) -> Result<()> {
    let client = run.live.session.client();
    let in_parts = run.journal.entries().iter().any(
        |entry| matches!(&entry.step, Step::UpBegan { version: begun, transactional: false, .. } if begun == version),
    );
    if in_parts && !control::applied(client).await?.iter().any(|row| row.version == version) {
        return Ok(());
    }
    control::record_rollback(client, version, run.id, how, elapsed_ms(began)).await
}

fn elapsed_ms(began: Instant) -> i64 {
    i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX)
}
