//! `renumber`: mend duplicate numbers of migrations that were not applied.

use ripcord::Result;
use ripcord::ops::report::Outcome;
use ripcord::ops::{RunReport, upkeep};

use crate::app::{App, Exit};
use crate::args::RenumberArgs;

/// Runs it; with `--dry-run` it shows the new names.
pub async fn run(app: &App, _args: RenumberArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let renamings = upkeep::renumber(&ctx, app.resolved.dry_run).await?;
    for (from, to) in &renamings {
        app.out.say(&format!("{} → {}", from.display(), to.display()));
    }
    let outcome = if renamings.is_empty() { Outcome::NothingToDo } else { Outcome::Done };
    app.out.report(&RunReport::new("renumber", outcome, "unchanged"));
    Ok(Exit::DONE)
}
