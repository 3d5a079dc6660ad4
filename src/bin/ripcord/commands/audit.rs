//! `audit`: who did what.

use ripcord::Result;
use ripcord::control;
use ripcord::ops::context;

use crate::app::{App, Exit};
use crate::args::ListArgs;

/// Shows it, newest first.
pub async fn run(app: &App, args: ListArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let session = ctx.connect("audit").await?;
    let rows = match context::lineage_of(&session).await? {
        Some(_) => control::audit_log(session.client(), i64::from(args.limit)).await?,
        None => Vec::new(),
    };
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.at.format("%Y-%m-%d %H:%M:%S").to_string(),
                row.actor.clone(),
                row.action.clone(),
                row.reason.clone().unwrap_or_default(),
                row.detail.to_string(),
            ]
        })
        .collect();
    app.out.list("audit", &rows, &["when", "who", "did", "reason", "detail"], &table);
    Ok(Exit::DONE)
}
