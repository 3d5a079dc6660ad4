//! Undoing one migration by its DOWN.

use std::time::Instant;

use super::destroying::count_before_destroying;
use super::elapsed_ms;
use super::statements::runs_outside;
use crate::control;
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::migration::Script;
use crate::ops::beside::millis;
use crate::ops::run::Run;
use crate::postgres::counts;
use crate::postgres::execute::{self, Limits};
use crate::progress::Event;

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
            if runs_outside(script, statement) {
                execute::run_statement(&run.live.session, script, number, &file, limits).await?;
            } else {
                down_alone(run, script, number, &file, limits).await?;
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
            count_before_destroying(run, script, &script.statements).await?;
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
async fn down_alone(run: &mut Run<'_>, script: &Script, number: usize, file: &str, limits: &Limits) -> Result<()> {
    execute::begin(&run.live.session, limits).await?;
    let ran = async {
        let xid = counts::own_xid(&run.live.session).await?;
        run.ours.xids.push(xid);
        run.journal.record(Step::OwnTransaction { xid })?;
        count_before_destroying(run, script, script.statements.get(number..=number).unwrap_or_default()).await?;
        execute::run_one_in_transaction(&run.live.session, script, number, file, limits).await
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
