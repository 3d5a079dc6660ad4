//! The small commands: a backup by hand, pins, the lock, baseline, repair, fresh, databases kept aside.

use super::apply::{self, Request as ApplyRequest};
use super::backup::{self, Request, Taken};
use super::beside;
use super::context::{self, Context, TOOL_VERSION, blocking};
use super::report::RunReport;
use super::run::unfinished;
use crate::clock;
use crate::control::{self, LockRow, MigrationRow};
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage};
use crate::manifest::Purpose;
use crate::migration::Migration;
use crate::postgres::databases::{self, DatabaseInfo};
use crate::postgres::guard;
use crate::store::Mark;

/// `backup create`: under the lock, so that it never meets a migration half-way.
pub async fn create_backup(ctx: &Context, purpose: Purpose, tags: Vec<String>) -> Result<(Taken, Lineage)> {
    ctx.keys()?;
    ctx.store.objects().check_writable()?;
    let live = context::open(ctx).await?;
    super::rungs::available(ctx, &live, false).await?;
    let taken = backup::take(
        ctx,
        &live,
        &Request { purpose, run: None, tags: tags.clone(), before: Vec::new(), properties: None },
    )
    .await;
    let lineage = live.lineage;
    let detail = serde_json::json!({ "purpose": purpose, "backup": taken.as_ref().ok().map(|taken| taken.id) });
    control::audit(live.session.client(), None, "backup create", &detail, None).await?;
    live.session.close().await;
    live.guard.release().await?;
    let taken = taken?;
    let store = ctx.store.clone();
    let id = taken.id;
    blocking(move || {
        for tag in tags {
            store.mark(lineage, id, &Mark::Tag { at: clock::now(), tag })?;
        }
        Ok(())
    })
    .await?;
    Ok((taken, lineage))
}

/// Pins or unpins a backup.
pub async fn set_pinned(ctx: &Context, lineage: Lineage, id: BackupId, pinned: bool) -> Result<()> {
    let store = ctx.store.clone();
    blocking(move || {
        if pinned { store.mark(lineage, id, &Mark::Pinned { at: clock::now() }) } else { store.unpin(lineage, id) }
    })
    .await?;
    let session = ctx.connect("pin").await?;
    if context::lineage_of(&session).await?.is_some() {
        for mut row in control::backups(session.client()).await? {
            if row.id == id {
                row.pinned = pinned;
                control::put_backup(session.client(), &row).await?;
            }
        }
    }
    Ok(())
}

/// The visible row of the lock, and whether anyone really holds it.
pub async fn lock_status(ctx: &Context) -> Result<(Option<LockRow>, bool)> {
    let session = ctx.connect("lock").await?;
    let row = match context::lineage_of(&session).await? {
        Some(_) => control::lock_row(session.client()).await?,
        None => None,
    };
    let mut settings = ctx.settings.clone();
    settings.timeouts.wait_for_lock = std::time::Duration::ZERO;
    let held = match guard::Guard::acquire(&ctx.target, &settings, std::time::Duration::ZERO).await {
        Ok(guard) => {
            guard.release().await?;
            false
        }
        Err(error) if error.kind() == crate::error::Kind::Locked => true,
        Err(error) => return Err(error),
    };
    Ok((row, held))
}

/// Ends the session that holds the lock, and removes its row.
pub async fn release_lock(ctx: &Context) -> Result<bool> {
    let broken = guard::break_lock(&ctx.target, &ctx.settings).await?;
    let session = ctx.connect("lock").await?;
    if context::lineage_of(&session).await?.is_some() {
        control::clear_lock(session.client(), None).await?;
        control::audit(
            session.client(),
            None,
            "lock released",
            &serde_json::json!({ "held": broken, "by": ctx.identity.holder() }),
            None,
        )
        .await?;
    }
    Ok(broken)
}

/// Records everything up to a version as applied, without running it. Returns what was recorded.
pub async fn baseline(ctx: &Context, version: &str) -> Result<Vec<String>> {
    let folder = apply::read_folder(ctx)?;
    let Some(last) = folder
        .migrations
        .iter()
        .position(|m| m.version.as_str() == version || m.label() == version || m.file_name == version)
    else {
        return Err(Error::usage(format!("there is no migration `{version}` in {}", folder.path.display()))
            .hint("ripcord status"));
    };
    let live = context::open(ctx).await?;
    let applied = control::applied(live.session.client()).await?;
    let batch = control::next_batch(live.session.client()).await?;
    let mut recorded = Vec::new();
    for migration in &folder.migrations[..=last] {
        if applied.iter().any(|row| row.version == migration.version.as_str()) {
            continue;
        }
        control::record_migration(live.session.client(), &baseline_row(ctx, migration, batch)).await?;
        recorded.push(migration.label());
    }
    control::audit(live.session.client(), None, "baseline", &serde_json::json!({ "migrations": recorded }), None)
        .await?;
    live.session.close().await;
    live.guard.release().await?;
    Ok(recorded)
}

/// The row of a migration that counts as applied and was not run.
pub(super) fn baseline_row(ctx: &Context, migration: &Migration, batch: i32) -> MigrationRow {
    MigrationRow {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        checksum: migration.checksum.clone(),
        loose_checksum: Some(migration.loose_checksum.clone()),
        batch,
        state: "baseline".to_owned(),
        applied_at: clock::now(),
        execution_time_ms: 0,
        success: true,
        error: None,
        applied_by: format!("{} as {}", ctx.identity.user, ctx.target.user()),
        approver: None,
        git_commit: ctx.identity.git_commit.clone(),
        run: None,
        tool_version: TOOL_VERSION.to_owned(),
        up_sql: Some(migration.up.sql.to_string()),
        down_sql: migration.down.as_ref().map(|down| down.sql.to_string()),
    }
}

/// Takes the checksums of the files for those of the history, where they differ; with `forget`, takes an
/// applied migration whose file is gone out of the applied set (its row stays).
pub async fn repair(ctx: &Context, forget: Option<&str>) -> Result<Vec<String>> {
    let folder = apply::read_folder(ctx)?;
    let live = context::open(ctx).await?;
    let client = live.session.client();
    let mut mended = Vec::new();
    for row in control::applied(client).await? {
        let label = crate::migration::label(&row.version, &row.name);
        if let Some(name) = forget {
            if row.version == name || row.name == name || label == name {
                control::forget_migration(client, &row.version).await?;
                mended.push(format!("{label} is no longer counted as applied"));
            }
        } else if let Some(file) = folder.migrations.iter().find(|file| file.version.as_str() == row.version)
            && file.checksum != row.checksum
        {
            control::repair_checksum(client, &row.version, &file.checksum, &file.loose_checksum).await?;
            mended.push(format!("{label}: the history now has the file's checksum"));
        }
    }
    if let Some(name) = forget
        && mended.is_empty()
    {
        return Err(Error::usage(format!("no applied migration is called `{name}`")).hint("ripcord history"));
    }
    control::audit(client, None, "repair", &serde_json::json!({ "mended": mended }), None).await?;
    live.session.close().await;
    live.guard.release().await?;
    Ok(mended)
}

/// Gives files that share their number with another a new one; never files that were applied. Returns the
/// old and the new names.
pub async fn renumber(ctx: &Context, dry_run: bool) -> Result<Vec<crate::migration::renumber::Renaming>> {
    let folder = apply::read_folder(ctx)?;
    let session = ctx.connect("renumber").await?;
    let applied = match context::lineage_of(&session).await? {
        Some(_) => control::applied(session.client()).await?.into_iter().map(apply::applied_of).collect(),
        None => Vec::new(),
    };
    let renamings = crate::migration::renumber::plan(&folder.migrations, &applied)?;
    if !dry_run {
        for (from, to) in &renamings {
            // Linking first: a file that is there already is never replaced.
            std::fs::hard_link(from, to).and_then(|()| std::fs::remove_file(from)).map_err(|error| {
                Error::failed(format!("`{}` could not be renamed to `{}`", from.display(), to.display())).because(error)
            })?;
        }
    }
    Ok(renamings)
}

/// Failed attempts are no longer shown as failed; they stay as history.
pub async fn reset_failed(ctx: &Context) -> Result<u64> {
    let live = context::open(ctx).await?;
    let count = control::reset_failed(live.session.client()).await?;
    control::audit(live.session.client(), None, "reset-failed", &serde_json::json!({ "rows": count }), None).await?;
    live.session.close().await;
    live.guard.release().await?;
    Ok(count)
}

/// `fresh`: everything but ripcord's own schema is dropped, after a backup, and every migration runs anew.
pub async fn fresh(ctx: &Context, request: &ApplyRequest) -> RunReport {
    let before = match empty(ctx).await {
        Ok(before) => before,
        Err(error) => return RunReport::untouched("fresh", error),
    };
    let mut report = match apply::plan(ctx, request).await {
        Ok(planned) => apply::execute(ctx, request, planned).await,
        Err(error) => RunReport::untouched("fresh", error),
    };
    report.command = "fresh".to_owned();
    // What `apply` calls unchanged or rolled back is the empty database.
    report.database = match report.exit_code {
        0 => format!("made anew; {}; what it was before is backup `{before}`", report.database),
        _ => format!("EMPTIED, and then: {}; what it was before is backup `{before}`", report.database),
    };
    if report.exit_code != 0 {
        report.hint = Some(format!(
            "mend the cause, then: ripcord apply\n      to have it as it was: ripcord restore {}",
            beside::short(before)
        ));
    }
    report
}

/// Returns the backup of what it was.
async fn empty(ctx: &Context) -> Result<BackupId> {
    if ctx.settings.environment.protected {
        return Err(Error::refused("`fresh` destroys the database, and this environment is protected")
            .hint("name an unprotected environment: --env development"));
    }
    let live = context::open(ctx).await?;
    if let Some(run) = unfinished(ctx, live.lineage).await?.first() {
        return Err(Error::refused(format!("run `{}` was not finished", run.run)).hint("ripcord recover"));
    }
    if let [_, ..] = ctx.would_stay_behind() {
        return Err(Error::refused("`fresh` drops every schema, and a backup would not hold all of them")
            .because(format!("left out are {}", ctx.would_stay_behind().join(", ")))
            .hint("set `exclude_schemas = []` under `[backup]` in ripcord.toml"));
    }
    let wanted = Request {
        purpose: Purpose::Safety,
        run: None,
        tags: vec!["before-fresh".to_owned()],
        before: Vec::new(),
        properties: None,
    };
    let taken = backup::take(ctx, &live, &wanted).await?;
    // Before the objects go: a database that counts as migrated and is empty would be the worse end of a crash
    // in between.
    let client = live.session.client();
    let applied: Vec<(String, String)> =
        control::applied(client).await?.into_iter().map(|row| (row.version, row.checksum)).collect();
    control::set_applied(client, &[]).await?;
    let dropped = match databases::drop_everything(&live.session).await {
        Ok(dropped) => dropped,
        Err(error) => {
            control::set_applied(client, &applied).await?;
            return Err(error);
        }
    };
    control::audit(
        live.session.client(),
        None,
        "fresh",
        &serde_json::json!({ "backup": taken.id, "dropped": dropped }),
        None,
    )
    .await?;
    live.session.close().await;
    live.guard.release().await?;
    Ok(taken.id)
}

/// Databases that swaps of this lineage have kept.
pub async fn aside_list(ctx: &Context) -> Result<Vec<DatabaseInfo>> {
    let session = ctx.connect("aside").await?;
    let lineage = context::lineage_of(&session).await?;
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    databases::list_aside(&maintenance, lineage).await
}

/// What would go with a kept database, besides its rows.
pub async fn aside_hindrances(ctx: &Context, name: &str) -> Result<Vec<String>> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    databases::drop_hindrances(&maintenance, name).await
}

/// Drops a kept database.
pub async fn aside_drop(ctx: &Context, name: &str) -> Result<()> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    databases::drop_aside(&maintenance, name).await?;
    let session = ctx.connect("aside").await?;
    if context::lineage_of(&session).await?.is_some() {
        control::audit(session.client(), None, "aside dropped", &serde_json::json!({ "database": name }), None).await?;
    }
    Ok(())
}

/// Scratch databases on the server: of drills and restores that were killed, that are at work, or that were to stay.
pub async fn scratch_list(ctx: &Context) -> Result<Vec<DatabaseInfo>> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    databases::list_scratch(&maintenance).await
}

/// Drops a scratch database that nobody is connected to: somebody's drill may be filling it.
pub async fn scratch_drop(ctx: &Context, name: &str) -> Result<()> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    let hindrances = databases::drop_hindrances(&maintenance, name).await?;
    if let Some(first) = hindrances.first() {
        return Err(Error::refused(format!("`{name}` is in use"))
            .because(first.clone())
            .hint(format!("when that has ended: ripcord aside drop {name}")));
    }
    databases::drop_scratch(&maintenance, name, None).await
}
