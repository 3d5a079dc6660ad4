//! `rollback`: undo migrations by their DOWN scripts, after a safety backup.

use ripcord::Result;
use ripcord::migration::plan::Undo;
use ripcord::ops::report::Outcome;
use ripcord::ops::rollback::{self, Request, Undoing};
use ripcord::ops::{MigrationReport, RunReport};

use crate::app::{App, Exit};
use crate::args::RollbackArgs;

/// Runs it; with `--dry-run` it shows what would be undone, and by which statements.
pub async fn run(app: &App, args: RollbackArgs) -> Result<Exit> {
    app.require_health_complete()?;
    let undo = args.undo();
    if let Some(typed) = &args.until {
        // Other tools read a bare number as a count of steps.
        match &undo {
            Undo::Batch(batch) => app.out.note(&format!(
                "`{typed}` is read as `--batch {batch}`: everything after batch {batch} goes; for a count write `--steps {typed}`"
            )),
            _ => app.out.note(&format!("`{typed}` is read as `--to {typed}`: everything after it goes")),
        }
    }
    let ctx = app.context().await?;
    let mut request = Request {
        undo,
        force: args.reason.clone().filter(|_| args.force),
        writes: app.settings().writes,
        approver: None,
    };
    let undoing = rollback::plan(&ctx, &request).await?;
    if app.resolved.dry_run {
        return Ok(show(app, &undoing));
    }
    if !undoing.is_empty() {
        request.approver = app.approve(&format!("Undo {} migrations of `{}`", undoing.len(), ctx.target.database()))?;
    }
    let report = rollback::execute(&ctx, &request, undoing).await;
    app.out.report(&report);
    Ok(Exit(report.exit_code))
}

fn show(app: &App, undoing: &[Undoing]) -> Exit {
    let outcome = if undoing.is_empty() { Outcome::NothingToDo } else { Outcome::Done };
    let mut report = RunReport::new("rollback", outcome, "unchanged, this was a dry run");
    for one in undoing {
        let label = ripcord::migration::label(&one.row.version, &one.row.name);
        app.out.data(&format!("-- {label} (DOWN from the {})", one.source));
        match &one.down {
            Some(down) => down.statements.iter().for_each(|statement| app.out.data(down.text(statement))),
            None => app.out.data("-- there is no DOWN"),
        }
        app.out.data("");
        report.migrations.push(MigrationReport {
            version: one.row.version.clone(),
            name: one.row.name.clone(),
            status: "applied".to_owned(),
            reason: format!("DOWN from the {}", one.source),
            duration_ms: 0,
            error: None,
            beside: Vec::new(),
        });
    }
    app.out.report(&report);
    Exit(report.exit_code)
}
