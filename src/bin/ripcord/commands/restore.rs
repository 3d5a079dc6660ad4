//! `restore`: bring a backup back, beside the database or in its place.

use ripcord::ops::report::Outcome;
use ripcord::ops::restore::{self, Mode, Request};
use ripcord::ops::{Context, RunReport, table};
use ripcord::settings::Writes;
use ripcord::{Error, Result};

use super::fresh::confirm_database;
use crate::app::{App, Exit};
use crate::args::{RestoreArgs, RestoreMode};

/// Runs it: shows what would happen, asks, and executes that very plan.
pub async fn run(app: &App, args: RestoreArgs) -> Result<Exit> {
    if let (Some(id), Some(before)) = (&args.id, &args.before)
        && id != "latest"
    {
        return Err(Error::usage(format!("`{id}` and `--before {before}` name two backups"))
            .hint(format!("ripcord restore latest --before {before}")));
    }
    let ctx = app.context().await?;
    let request = Request {
        selector: args.id.clone().unwrap_or_else(|| "latest".to_owned()),
        before: args.before.clone(),
        from_database: args.from_database.clone(),
        into: args.into.clone(),
        mode: match args.mode {
            RestoreMode::Auto => Mode::Auto,
            RestoreMode::Swap => Mode::Swap,
            RestoreMode::InPlace => Mode::InPlace,
        },
        // Whoever confirms has been shown how many writes go, and the replaced database is kept.
        writes: args.writes.map_or(Writes::AcceptLoss, Into::into),
    };
    if !args.tables.is_empty() {
        return tables(app, &ctx, &request, &args.tables).await;
    }
    let planned = restore::plan(&ctx, &request).await?;
    for line in planned.lines() {
        app.out.say(&line);
    }
    if app.resolved.dry_run {
        let mut report = RunReport::new("restore", Outcome::Done, "unchanged, this was a dry run");
        report.backup_id = Some(planned.backup);
        report.writes_since_backup = planned.writes.as_ref().map(|counted| counted.total());
        report.proof = serde_json::json!({ "plan": planned });
        app.out.report(&report);
        return Ok(Exit::DONE);
    }
    if planned.replaces {
        let again = match &args.before {
            Some(before) => format!("restore latest --before {before}"),
            None => format!("restore {}", request.selector),
        };
        confirm_database(app, args.confirm.as_deref(), ctx.target.database(), "replace", &again)?;
    }
    let report = restore::execute(&ctx, &request, planned).await;
    app.out.report(&report);
    Ok(Exit(report.exit_code))
}

/// Single tables: nothing is replaced, so nothing is asked.
async fn tables(app: &App, ctx: &Context, request: &Request, asked: &[String]) -> Result<Exit> {
    let planned = table::plan(ctx, request, asked).await?;
    for line in planned.lines() {
        app.out.say(&line);
    }
    let report = if app.resolved.dry_run {
        let mut report = RunReport::new("restore", Outcome::Done, "unchanged, this was a dry run");
        report.backup_id = Some(planned.backup);
        report.proof = serde_json::json!({ "plan": planned });
        report
    } else {
        table::execute(ctx, &planned).await
    };
    app.out.report(&report);
    Ok(Exit(report.exit_code))
}
