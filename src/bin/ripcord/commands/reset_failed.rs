//! `reset-failed`: forget failed attempts.

use ripcord::Result;
use ripcord::ops::report::Outcome;
use ripcord::ops::{RunReport, upkeep};

use crate::app::{App, Exit};

/// Runs it.
pub async fn run(app: &App) -> Result<Exit> {
    let ctx = app.context().await?;
    let count = upkeep::reset_failed(&ctx).await?;
    let outcome = if count == 0 { Outcome::NothingToDo } else { Outcome::Done };
    app.out.report(&RunReport::new(
        "reset-failed",
        outcome,
        format!("unchanged; {count} failed attempts are history now"),
    ));
    Ok(Exit::DONE)
}
