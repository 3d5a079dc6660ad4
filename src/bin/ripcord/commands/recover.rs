//! `recover`: finish or undo what a dead run left.

use ripcord::ops::{resume, run};
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::RecoverArgs;

/// Runs it; with `--dry-run` it tells what is unfinished.
pub async fn run(app: &App, args: RecoverArgs) -> Result<Exit> {
    app.require_health_complete()?;
    let ctx = app.context().await?;
    ctx.keys()?;
    if app.resolved.dry_run {
        return show(app, &resume::find_unfinished(&ctx).await?);
    }
    let writes = args.writes.map(Into::into);
    let on_failure = args.on_failure.map(Into::into);
    let report = resume::recover(&ctx, writes, on_failure).await;
    app.out.report(&report);
    Ok(Exit(report.exit_code))
}

fn show(app: &App, found: &[run::Unfinished]) -> Result<Exit> {
    let items: Vec<serde_json::Value> = found
        .iter()
        .map(|run| serde_json::json!({ "run_id": run.run, "lineage": run.lineage, "steps": run.entries }))
        .collect();
    let mut rows = Vec::new();
    for run in found {
        let (command, database, _, holder) =
            run.opened().ok_or_else(|| Error::refused(format!("the journal of run `{}` has no beginning", run.run)))?;
        let last = run.entries.last().and_then(|entry| serde_json::to_value(&entry.step).ok());
        let last = last.and_then(|step| step["step"].as_str().map(str::to_owned)).unwrap_or_default();
        rows.push(vec![run.run.to_string(), command.to_owned(), database.to_owned(), holder.to_owned(), last]);
    }
    app.out.list("recover", &items, &["run", "command", "database", "begun by", "last step"], &rows);
    Ok(Exit::DONE)
}
