//! `lock …`: who holds the lock, and freeing that of a run that is gone.

use ripcord::Result;
use ripcord::ops::report::Outcome;
use ripcord::ops::{RunReport, upkeep};

use crate::app::{App, Exit};
use crate::args::LockCommand;

/// Runs it.
pub async fn run(app: &App, command: LockCommand) -> Result<Exit> {
    let ctx = app.context().await?;
    match command {
        LockCommand::Status => {
            let (row, held) = upkeep::lock_status(&ctx).await?;
            let state = match (&row, held) {
                (_, true) => "held",
                (Some(_), false) => "free, but the row of a dead run is left: ripcord recover",
                (None, false) => "free",
            };
            let who = row.as_ref().map(|row| {
                format!(
                    "{}@{}:{} ({}, run {}, since {})",
                    row.holder,
                    row.host,
                    row.pid,
                    row.command,
                    row.run,
                    row.since.format("%Y-%m-%d %H:%M:%S UTC")
                )
            });
            app.out.list(
                "lock status",
                &[serde_json::json!({ "held": held, "row": row })],
                &["lock", "by"],
                &[vec![state.to_owned(), who.unwrap_or_default()]],
            );
        }
        LockCommand::Release => {
            app.approve(&format!("Release the lock of `{}`", ctx.target.database()))?;
            let broken = upkeep::release_lock(&ctx).await?;
            let text = if broken {
                "unchanged; the session that held the lock was ended"
            } else {
                "unchanged; nobody held the lock"
            };
            app.out.report(&RunReport::new("lock release", Outcome::Done, text).hint("ripcord recover"));
        }
    }
    Ok(Exit::DONE)
}
