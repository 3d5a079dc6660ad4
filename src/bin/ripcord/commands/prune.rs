//! `prune`: delete the backups that no rule keeps.

use ripcord::Result;
use ripcord::ops::{prune, restore};

use crate::app::{App, Exit};
use crate::args::PruneArgs;

/// Runs it; with `--dry-run` it shows every backup with the reason it stays or goes. The settings hold the
/// options already.
pub async fn run(app: &App, _args: PruneArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    ctx.keys()?;
    let session = ctx.connect("prune").await;
    if let Err(error) = &session {
        app.out.warn(&format!("without the database: {error}"));
    }
    let lineage = restore::find_lineage(&ctx, session.as_ref().ok(), None).await?;
    drop(session);
    let plan = prune::plan(&ctx, lineage).await?;
    let items: Vec<_> = plan
        .iter()
        .map(|(item, verdict)| {
            serde_json::json!({
                "id": item.id, "created_at": item.created_at, "purpose": item.purpose, "status": item.status,
                "stored_bytes": item.stored_bytes, "keep": verdict.keep, "keep_reason": verdict.reasons.join(", "),
            })
        })
        .collect();
    let rows: Vec<Vec<String>> = plan
        .iter()
        .map(|(item, verdict)| {
            let word = match (verdict.keep, app.resolved.dry_run) {
                (true, _) => "stays",
                (false, true) => "would go",
                (false, false) => "goes",
            };
            vec![
                item.id.to_string(),
                item.created_at.format("%Y-%m-%d %H:%M:%S").to_string(),
                item.purpose.clone(),
                word.to_owned(),
                verdict.reasons.join(", "),
            ]
        })
        .collect();
    if !app.resolved.dry_run {
        prune::execute(&ctx, lineage, &plan).await?;
    }
    app.out.list("prune", &items, &["id", "created", "purpose", "", "because"], &rows);
    Ok(Exit::DONE)
}
