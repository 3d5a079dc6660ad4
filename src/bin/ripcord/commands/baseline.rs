//! `baseline`: record migrations as applied without running them.

use ripcord::Result;
use ripcord::ops::report::Outcome;
use ripcord::ops::{RunReport, upkeep};

use crate::app::{App, Exit};
use crate::args::BaselineArgs;

/// Runs it.
pub async fn run(app: &App, args: BaselineArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let recorded = upkeep::baseline(&ctx, &args.version).await?;
    recorded.iter().for_each(|label| app.out.say(&format!("recorded `{label}` as applied")));
    let outcome = if recorded.is_empty() { Outcome::NothingToDo } else { Outcome::Done };
    app.out.report(&RunReport::new(
        "baseline",
        outcome,
        format!("unchanged; {} migrations recorded as applied", recorded.len()),
    ));
    Ok(Exit::DONE)
}
