//! Single tables in a new database.

use super::Planned;
use crate::error::{Error, Result};
use crate::manifest::DatabaseProperties;
use crate::ops::context::{Context, stopped};
use crate::postgres::{Tools, databases, guard, load, quote, swap};

/// A new database of that name with the planned tables. It has that name only once every row
/// has arrived: what was read from the backup had the manifest's digest, and COPY counted as many.
pub(super) async fn restore(ctx: &Context, planned: &Planned, name: &str) -> Result<()> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    if databases::find(&maintenance, name).await?.is_some() {
        return Err(
            Error::failed(format!("there is a database `{name}` already")).hint("give another name after `--into`")
        );
    }
    let tools = ctx.tools(&maintenance)?;
    let scratch = databases::scratch_name();
    let comment = databases::scratch_comment(crate::ids::RunId::new(), planned.backup);
    // Nobody is let in but the owner: the grants of the original are not restored either.
    let properties = DatabaseProperties { acl: None, ..planned.manifest.sealed.properties.clone() };
    ctx.progress.began("load", format!("restoring {} into `{scratch}`", planned.all_tables()));
    let oid = databases::create(&maintenance, &scratch, &properties, &comment).await?;
    let work = async {
        fill(ctx, &tools, planned, &scratch).await?;
        swap::give_name(&maintenance, &scratch, name).await
    };
    let result = tokio::select! {
        result = work => result,
        () = tokio::time::sleep(ctx.settings.timeouts.restore) => Err(super::too_long(ctx)),
        () = ctx.cancelled() => Err(stopped()),
    };
    if let Err(error) = result {
        if let Err(left) = databases::drop_scratch(&maintenance, &scratch, Some(oid)).await {
            ctx.progress.warn(format!("the unfinished database `{scratch}` could not be removed: {left}"));
        }
        return Err(error);
    }
    // language=SQL
    let comment = format!(
        "COMMENT ON DATABASE {} IS {}",
        quote::ident(name),
        quote::literal(&format!("{} from backup {}, restored by ripcord", planned.all_tables(), planned.backup))
    );
    if let Err(error) = maintenance.batch(&comment).await {
        ctx.progress.warn(format!("`{name}` has no comment that says what it is: {}", error.one_line()));
    }
    Ok(())
}

async fn fill(ctx: &Context, tools: &Tools, planned: &Planned, scratch: &str) -> Result<()> {
    let target = ctx.target.with_database(scratch);
    let plan = planned.load_plan(ctx, |_| None);
    let loaded = load::load_selected(tools, &target, &plan, &planned.chosen, &ctx.progress).await?;
    for warning in loaded.warnings {
        ctx.progress.warn(warning);
    }
    ctx.progress.finished("load", format!("{} rows", planned.rows()));
    load::analyze(&target, &plan, &ctx.progress).await
}
