//! `prune`: removing the backups that no rule keeps.

use std::collections::BTreeMap;

use super::catalog::{self, Item};
use super::context::{Context, blocking};
use super::run::needed_backups;
use crate::clock;
use crate::control;
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage};
use crate::postgres::Session;
use crate::retention::{self, Verdict};

/// A backup without a manifest that is younger than this may still be being written.
const LEFTOVER_AGE_HOURS: i64 = 24;

/// The verdict on every backup, newest first, with its line for people.
pub async fn plan(ctx: &Context, lineage: Lineage) -> Result<Vec<(Item, Verdict)>> {
    let needed = needed_backups(ctx, lineage)
        .await
        .map_err(|error| error.context("which backups unfinished runs need cannot be told, so nothing is pruned"))?;
    let items = catalog::list(ctx, lineage, &[], &needed).await?;
    let verdicts = retention::plan(&ctx.settings.retention, &catalog::candidates(items.iter(), &needed), clock::now());
    let mut by_id: BTreeMap<BackupId, Item> = items.into_iter().map(|item| (item.id, item)).collect();
    Ok(verdicts.into_iter().filter_map(|verdict| Some((by_id.remove(&verdict.id)?, verdict))).collect())
}

/// Removes what the plan says, and what crashes left long ago. Safe beside a running apply, and when it was
/// cut short itself. Returns what was removed.
pub async fn execute(ctx: &Context, lineage: Lineage, plan: &[(Item, Verdict)]) -> Result<Vec<BackupId>> {
    let mut removed = Vec::new();
    let mut going = plan.iter().filter(|(_, verdict)| !verdict.keep).peekable();
    let history = if going.peek().is_some() { history(ctx).await? } else { None };
    for (item, verdict) in going {
        record_deleted(history.as_ref(), item.id).await?;
        ctx.faults.at("prune_delete").await;
        delete(ctx, lineage, item.id).await?;
        ctx.progress.note(format!("removed backup `{}`: {}", item.id, verdict.reasons.join(", ")));
        removed.push(item.id);
    }
    sweep_leftovers(ctx, lineage).await?;
    ctx.faults.at("prune_done").await;
    Ok(removed)
}

/// Retention after a run that went well.
pub async fn after_run(ctx: &Context, lineage: Lineage) -> Result<()> {
    let plan = plan(ctx, lineage).await?;
    execute(ctx, lineage, &plan).await.map(drop)
}

/// Removes one backup by hand: never the last good one, one that is pinned, or one that a run needs.
pub async fn delete_one(ctx: &Context, lineage: Lineage, id: BackupId) -> Result<()> {
    let needed = needed_backups(ctx, lineage).await?;
    let items = catalog::list(ctx, lineage, &[], &needed).await?;
    let Some(item) = items.iter().find(|item| item.id == id) else {
        // Not in the store: what is left is to say so in the history.
        record_deleted(history(ctx).await?.as_ref(), id).await?;
        return Ok(());
    };
    if let Some(run) = needed.get(&id) {
        return Err(Error::refused(format!("backup `{id}` is needed by run `{run}`, which is not finished"))
            .hint("ripcord recover"));
    }
    if item.pinned {
        return Err(Error::refused(format!("backup `{id}` is pinned")).hint(format!("ripcord backup unpin {id}")));
    }
    let good = |item: &&Item| matches!(item.status.as_str(), "complete" | "verified") && item.purpose != "safety";
    if good(&item) && items.iter().filter(good).count() == 1 {
        return Err(Error::refused(format!("backup `{id}` is the last good one"))
            .hint("take another first: ripcord backup create"));
    }
    record_deleted(history(ctx).await?.as_ref(), id).await?;
    ctx.faults.at("delete_began").await;
    delete(ctx, lineage, id).await?;
    ctx.faults.at("delete_done").await;
    Ok(())
}

async fn delete(ctx: &Context, lineage: Lineage, id: BackupId) -> Result<()> {
    let store = ctx.store.clone();
    blocking(move || store.delete_backup(lineage, id)).await
}

/// What a crash left of a backup that was never committed. Its id tells its age.
async fn sweep_leftovers(ctx: &Context, lineage: Lineage) -> Result<()> {
    let store = ctx.store.clone();
    let old = clock::now() - chrono::TimeDelta::hours(LEFTOVER_AGE_HOURS);
    let left = blocking(move || {
        let mut left = Vec::new();
        for id in store.uncommitted(lineage)? {
            let seconds = id.0.get_timestamp().map_or(u64::MAX, |stamp| stamp.to_unix().0);
            if i64::try_from(seconds).is_ok_and(|seconds| seconds < old.timestamp()) {
                store.delete_backup(lineage, id)?;
                left.push(id);
            }
        }
        Ok(left)
    })
    .await?;
    for id in left {
        ctx.progress.note(format!("removed what an interrupted backup `{id}` had left"));
    }
    Ok(())
}

/// A session for the history; `None`: there is none, because the database is not there, or not ripcord's. A server that
/// does not answer is an error: what is gone without a word would be taken for lost, and its backups may be all that is
/// left of it.
async fn history(ctx: &Context) -> Result<Option<Session>> {
    let opened = async {
        let session = ctx.connect("prune").await?;
        Ok::<_, Error>(super::context::lineage_of(&session).await?.map(|_| session))
    };
    match opened.await {
        Err(error) if error.sqlstate() == Some(NO_SUCH_DATABASE) => Ok(None),
        opened => opened.map_err(not_removed),
    }
}

const NO_SUCH_DATABASE: &str = "3D000";

fn not_removed(error: Error) -> Error {
    error
        .context("what is removed cannot be recorded in the database, so no backup is removed")
        .hint("when the server answers, the same command again")
}

/// The history says `deleted` before the store loses it: as long as the store has it, it is a backup whatever the
/// history says, and one that is gone without a word would be taken for lost.
async fn record_deleted(history: Option<&Session>, id: BackupId) -> Result<()> {
    let Some(session) = history else { return Ok(()) };
    let recorded = async {
        for mut row in control::backups(session.client()).await?.into_iter().filter(|row| row.id == id) {
            row.status = "deleted".to_owned();
            row.deleted_at = Some(clock::now());
            control::put_backup(session.client(), &row).await?;
        }
        Ok::<(), Error>(())
    };
    recorded.await.map_err(not_removed)
}
