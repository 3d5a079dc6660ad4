//! `history`: what was applied, rolled back and failed.

use ripcord::Result;
use ripcord::control;
use ripcord::ops::context;

use crate::app::{App, Exit};
use crate::args::ListArgs;

/// Shows it, newest first.
pub async fn run(app: &App, args: ListArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let session = ctx.connect("history").await?;
    let mut rows = match context::lineage_of(&session).await? {
        Some(_) => control::migrations(session.client()).await?,
        None => Vec::new(),
    };
    rows.reverse();
    rows.truncate(args.limit as usize);
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                ripcord::migration::label(&row.version, &row.name),
                row.state.clone(),
                row.applied_at.format("%Y-%m-%d %H:%M:%S").to_string(),
                row.batch.to_string(),
                format!("{} ms", row.execution_time_ms),
                row.applied_by.clone(),
                row.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    app.out.list("history", &rows, &["migration", "state", "when", "batch", "took", "by", "error"], &table);
    Ok(Exit::DONE)
}
