//! `cancel`: stopping a run that is at work, from whatever host, through the database.

use std::time::{Duration, Instant};

use super::context::{self, Context};
use super::report::{Outcome, RunReport};
use crate::control;
use crate::error::{Error, Result};
use crate::postgres::guard;

/// How often it is looked whether the run has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Asks the run that holds the lock to stop, and waits until it has ended. What it says of the database is its own
/// to say; this only tells where to look.
pub async fn cancel(ctx: &Context, reason: Option<&str>, limit: Duration) -> Result<RunReport> {
    let session = ctx.connect("cancel").await?;
    let row = match context::lineage_of(&session).await? {
        Some(_) => control::lock_row(session.client()).await?,
        None => None,
    };
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    let held = guard::holder(&maintenance, ctx.target.database()).await?.is_some();
    let row = match (row, held) {
        (Some(row), true) => row,
        (None, true) => {
            return Err(
                Error::failed("something holds the lock, and does not say which run it is").hint("ripcord lock status")
            );
        }
        (Some(_), false) => {
            return Ok(RunReport::new("cancel", Outcome::NothingToDo, "as it was; no run is at work, one has died")
                .hint("ripcord recover"));
        }
        (None, false) => return Ok(RunReport::new("cancel", Outcome::NothingToDo, "as it was; no run is at work")),
    };
    let whose = format!("`{}` of {}@{}:{}", row.command, row.holder, row.host, row.pid);
    control::ask_to_stop(session.client(), row.run, reason).await?;
    session.close().await;
    ctx.progress.began("cancel", format!("run `{}`, {whose}", row.run));
    let began = Instant::now();
    while guard::holder(&maintenance, ctx.target.database()).await?.is_some() {
        if began.elapsed() >= limit {
            return Err(Error::failed(format!("run `{}` was asked to stop, and is still at work", row.run))
                .because("it may be bringing the database back, which is not stopped")
                .hint("ripcord status"));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = ctx.cancelled() => return Err(context::stopped()),
        }
    }
    ctx.progress.finished("cancel", "it has ended");
    let mut report = RunReport::new("cancel", Outcome::Done, format!("as run `{}` left it", row.run));
    report.run_id = Some(row.run);
    Ok(report.hint(format!("what it did: ripcord run show {}", row.run)))
}
