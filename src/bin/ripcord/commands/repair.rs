//! `repair`: take over the checksums of files that were changed on purpose.

use ripcord::Result;
use ripcord::ops::report::Outcome;
use ripcord::ops::{RunReport, upkeep};

use crate::app::{App, Exit};
use crate::args::RepairArgs;

/// Runs it.
pub async fn run(app: &App, args: RepairArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let mended = upkeep::repair(&ctx, args.forget.as_deref()).await?;
    mended.iter().for_each(|line| app.out.say(line));
    let outcome = if mended.is_empty() { Outcome::NothingToDo } else { Outcome::Done };
    app.out.report(&RunReport::new(
        "repair",
        outcome,
        format!("unchanged; {} rows of the history mended", mended.len()),
    ));
    Ok(Exit::DONE)
}
