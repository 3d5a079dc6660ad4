//! `rehearse`: what is pending, up, down and up again on a scratch database.

use ripcord::Result;
use ripcord::ops::rehearse;
use ripcord::ops::report::Outcome;

use crate::app::{App, Exit};
use crate::args::{RehearseArgs, RehearseFrom};

/// Runs it; a rehearsal that fails is exit code 1, and 6 when a DOWN does not bring everything back.
pub async fn run(app: &App, args: RehearseArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let rehearsed = match args.from {
        Some(RehearseFrom::Empty) => rehearse::from_empty(&ctx).await?,
        None => rehearse::on_a_copy(&ctx).await?,
    };
    app.out.data(&match rehearsed.migrations.len() {
        0 => "nothing is pending".to_owned(),
        count => format!("rehearsed: {count} migrations in {} ms; the database was not touched", rehearsed.duration_ms),
    });
    let outcome = if rehearsed.migrations.is_empty() { Outcome::NothingToDo } else { Outcome::Done };
    app.out.items("rehearse", outcome, &[rehearsed]);
    Ok(Exit::DONE)
}
