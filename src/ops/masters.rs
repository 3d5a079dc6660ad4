//! Files that hold the whole schema (`000_MASTER_*`): they make an empty database; where one has grown already, they
//! are only written into the history.

use super::context::Context;
use super::upkeep;
use crate::control;
use crate::error::Result;
use crate::migration::plan::Plan;
use crate::migration::{Applied, Migration};
use crate::postgres::{Session, databases};

/// Moves the masters of a plan from what runs to what is only recorded, unless the database is empty. Writes nothing.
pub async fn settle(ctx: &Context, session: &Session, plan: &mut Plan, applied: &[Applied]) -> Result<()> {
    if !plan.pending.iter().any(|pending| pending.migration.master) {
        return Ok(());
    }
    if applied.is_empty() && databases::is_empty(session, ctx.left_out()).await? {
        return Ok(());
    }
    let (masters, others) = std::mem::take(&mut plan.pending).into_iter().partition(|pending| pending.migration.master);
    plan.pending = others;
    let masters: Vec<_> = masters;
    for pending in masters {
        plan.notes.push(format!(
            "`{}` makes an empty database, and this one is not: it does not run, and the next run records it",
            pending.migration.file_name
        ));
        plan.recorded.push(pending.migration);
    }
    Ok(())
}

/// Writes the masters that do not run into the history, as a baseline before the first batch.
pub async fn record(ctx: &Context, session: &Session, masters: &[Migration]) -> Result<()> {
    for migration in masters {
        control::record_migration(session.client(), &upkeep::baseline_row(ctx, migration, 0)).await?;
        let detail = serde_json::json!({ "migrations": [migration.label()], "why": "the database is not empty" });
        control::audit(session.client(), None, "baseline", &detail, None).await?;
    }
    Ok(())
}
