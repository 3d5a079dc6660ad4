//! `run list` and `run show`: what runs did.

use ripcord::control::{self, RunRow};
use ripcord::ops::report::Outcome;
use ripcord::ops::{context, run};
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::RunCommand;

/// Runs it.
pub async fn run(app: &App, command: RunCommand) -> Result<Exit> {
    let ctx = app.context().await?;
    let session = ctx.connect("runs").await?;
    let lineage = context::lineage_of(&session).await?;
    let limit = match &command {
        RunCommand::List(args) => i64::from(args.limit),
        RunCommand::Show { .. } => 10_000,
    };
    let rows = match lineage {
        Some(_) => control::runs(session.client(), limit).await?,
        None => Vec::new(),
    };
    match command {
        RunCommand::List(_) => {
            let table: Vec<Vec<String>> = rows.iter().map(line).collect();
            app.out.list("run list", &rows, &["run", "command", "began", "outcome", "database"], &table);
        }
        RunCommand::Show { id } => {
            let row = rows.iter().find(|row| id == "latest" || row.id.to_string().starts_with(&id));
            let row = row.ok_or_else(|| Error::usage(format!("no run begins with `{id}`")).hint("ripcord run list"))?;
            let mut value =
                serde_json::to_value(row).map_err(|error| Error::failed("the run cannot be shown").because(error))?;
            if let (Some(lineage), Ok(_)) = (lineage, &ctx.keys) {
                let steps = run::journal_of(&ctx, lineage, row.id).await?;
                value["journal"] = serde_json::to_value(steps).unwrap_or_default();
            }
            let text = serde_json::to_string_pretty(&value)
                .map_err(|error| Error::failed("the run cannot be shown").because(error))?;
            app.out.data(&text);
            app.out.items("run show", Outcome::Done, &[value]);
        }
    }
    Ok(Exit::DONE)
}

fn line(row: &RunRow) -> Vec<String> {
    vec![
        row.id.to_string(),
        row.command.clone(),
        row.started_at.format("%Y-%m-%d %H:%M:%S").to_string(),
        row.outcome.clone().unwrap_or_else(|| "unfinished".to_owned()),
        row.database_state.clone().unwrap_or_default(),
    ]
}
