//! Restoring beside: a new database is built from a backup, proved, and only then takes the target's
//! place. The target itself is not touched until the swap, and is kept afterwards.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::backup::Taken;
use super::columns;
use super::context::{Context, Live};
use super::losses::{Ours, allow, count};
use super::proof::{Depth, Evidence, Proof};
use super::source;
use crate::archive::inventory::{is_benign_change, is_same_object, item_name};
use crate::archive::{Text, Toc};
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::{Lineage, RunId};
use crate::journal::{Journal, Step};
use crate::manifest::Manifest;
use crate::postgres::counts::{self, Moment};
use crate::postgres::writes::Counted;
use crate::postgres::{Session, Tools, databases, load, swap};
use crate::settings::Writes;

/// A restored database that waits beside the target.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// Its name.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// What proves it.
    pub proof: Proof,
}

/// How long each part of a restore took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Phases {
    /// Authenticating the archive.
    pub verify_ms: u64,
    /// Creating the database and loading it.
    pub load_ms: u64,
    /// Proving it, while its statistics are made.
    pub prove_ms: u64,
    /// The time in which nobody could connect.
    pub closed_ms: u64,
}

/// What is built, where.
pub struct Build<'a> {
    /// The backup.
    pub backup: &'a Taken,
    /// The new database's name.
    pub name: &'a str,
    /// What its comment says.
    pub comment: &'a str,
    /// The lineage that its control schema gets.
    pub lineage: Lineage,
}

/// Builds a database from a backup that was authenticated already, and proves it. On failure it is
/// removed again.
pub async fn build(
    ctx: &Context,
    tools: &Tools,
    maintenance: &Session,
    build: &Build<'_>,
) -> Result<(Scratch, Phases)> {
    let manifest = &build.backup.manifest;
    refuse_older_server(build, maintenance)?;
    warn_superuser(ctx, maintenance, &manifest.sealed.properties.owner).await?;
    ctx.progress.began("load", format!("restoring backup `{}` into `{}`", build.backup.id, build.name));
    let oid = databases::create(maintenance, build.name, &manifest.sealed.properties, build.comment).await?;
    let result = async {
        let began = Instant::now();
        let (plan, counted) = fill(ctx, tools, build).await?;
        ctx.faults.at("load_done").await;
        let load_ms = millis(began.elapsed());
        ctx.progress.finished("load", format!("{} rows in {} tables", total_rows(manifest), tables(manifest)));
        let began = Instant::now();
        // The proof reads the schema, or the rows as they are; statistics change neither.
        let target = ctx.target.with_database(build.name);
        let depth = if counted { Depth::Schema } else { Depth::Rows };
        let (proof, ()) =
            tokio::try_join!(prove(ctx, tools, build, depth), load::analyze(&target, &plan, &ctx.progress))?;
        Ok((
            Scratch { name: build.name.to_owned(), oid, proof },
            Phases { load_ms, prove_ms: millis(began.elapsed()), ..Phases::default() },
        ))
    };
    let result = tokio::select! {
        result = result => result,
        () = tokio::time::sleep(ctx.settings.timeouts.restore) => {
            let limit = ctx.settings.timeouts.restore.as_secs();
            Err(Error::failed(format!("loading the backup and proving it took longer than its limit of {limit}s"))
                .hint("raise `restore` under `[timeouts]` in ripcord.toml"))
        }
        () = ctx.cancelled() => Err(super::context::stopped()),
    };
    if result.is_err()
        && let Err(left) = databases::drop_scratch(maintenance, build.name, Some(oid)).await
    {
        ctx.progress.warn(format!("the unfinished database `{}` could not be removed: {left}", build.name));
    }
    result
}

/// A superuser who loads a backup runs the code in it: what a CHECK, a domain or an index of the database's owner calls.
async fn warn_superuser(ctx: &Context, maintenance: &Session, owner: &str) -> Result<()> {
    let rows = maintenance.ours(&superusers(owner)).await?;
    if let [[Some(we), Some(he)], ..] = rows.iter().map(Vec::as_slice).collect::<Vec<_>>()[..]
        && we == "t"
        && he == "f"
    {
        ctx.progress.warn(format!(
            "`{}` is a superuser, and functions of `{owner}` in the backup run with its rights while it is loaded: \
             a role with CREATEDB that is a member of `{owner}` can do without",
            ctx.target.user()
        ));
    }
    Ok(())
}

/// Whether we are one, and whether the owner is.
fn superusers(owner: &str) -> String {
    // language=SQL
    format!(
        "SELECT (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = CURRENT_USER), \
                COALESCE((SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = {}), false)",
        crate::postgres::quote::literal(owner)
    )
}

/// The control schema, then everything from the backup. Returns what was loaded, and whether every row was
/// counted as it was loaded; where it was not (another encoding than UTF-8), the proof reads them back.
async fn fill(ctx: &Context, tools: &Tools, build: &Build<'_>) -> Result<(load::LoadPlan, bool)> {
    let target = ctx.target.with_database(build.name);
    let (plan, _) = source::load_plan(ctx, build.backup)?;
    let limit = ctx.settings.timeouts.connect;
    {
        // Before the rest, because views of the target may stand on it.
        let session = Session::connect(&target, "restore", limit).await?;
        control::ensure(session.client(), build.lineage).await?;
        session.close().await;
    }
    ctx.faults.at("load_began").await;
    let loaded = load::load(tools, &target, &plan, &ctx.progress).await?;
    for warning in &loaded.warnings {
        ctx.progress.warn(warning.clone());
    }
    let counted = plan.tables.is_empty() || !loaded.rows.is_empty();
    Ok((plan, counted))
}

/// A restore is proved by its objects, and by its rows as COPY counted them (the loader has done that);
/// by text alone it could not be: a restored database may be dumped in other words that mean the same.
async fn prove(ctx: &Context, tools: &Tools, build: &Build<'_>, depth: Depth) -> Result<Proof> {
    ctx.progress.began("prove", format!("comparing `{}` with the backup", build.name));
    let began = Instant::now();
    let target = ctx.target.with_database(build.name);
    let session = Session::connect(&target, "proof", ctx.settings.timeouts.connect).await?;
    let before = Evidence::of_manifest(&build.backup.manifest);
    let mut after = Evidence::read(ctx, tools, &target, &session, &build.backup.keys, depth).await?;
    session.close().await;
    if depth == Depth::Rows {
        columns::reread(&target, &before, &mut after, &build.backup.keys).await?;
    }
    let mut proof = before.compare(&after, depth);
    let (_, toc) = source::load_plan(ctx, build.backup)?;
    accept_benign(&mut proof, &toc, &after);
    proof.kind = "restore".to_owned();
    proof.rows_compared = total_rows(&build.backup.manifest);
    proof.tables_compared = tables(&build.backup.manifest);
    proof.duration_ms = millis(began.elapsed());
    if !proof.holds {
        return Err(Error::verification(format!(
            "what was restored from backup `{}` is not what was backed up",
            build.backup.id
        ))
        .because(proof.why_not())
        .hint(format!("ripcord restore {} --into NAME, and compare; the target was not touched", build.backup.id)));
    }
    ctx.progress.finished("prove", format!("{} objects as they were backed up", before.inventory.items.len()));
    Ok(proof)
}

/// Differences that a restore is known to make and that mean nothing; each is listed in the proof. A
/// definition may be written in other words the first time that it is dumped again, and is by a server of another
/// major version: there the object itself, its owner and its place are what is compared. Invalid indexes are not
/// dumped; an extension comes back in the server's version; a foreign key forgets that its own triggers were
/// disabled.
pub(super) fn accept_benign(proof: &mut Proof, before: &Toc, after: &Evidence) {
    for line in std::mem::take(&mut proof.catalog) {
        let known = (line.starts_with("no longer: index ")
            && (line.ends_with(" invalid") || line.ends_with(" not ready")))
            || line.starts_with("no longer: trigger \"of constraint ")
            || line.starts_with("no longer: extension ")
            || line.starts_with("new: extension ");
        if known { &mut proof.benign } else { &mut proof.catalog }.push(line);
    }
    let versions = after.toc.as_ref().map(|toc| (major(&before.server_version), major(&toc.server_version)));
    let other_words = versions.filter(|(was, is)| was != is);
    let find = |toc: &Toc, name: &str| toc.entries.iter().find(|entry| item_name(entry) == name).cloned();
    for name in std::mem::take(&mut proof.schema.changed) {
        let was = find(before, &name);
        let is = after.toc.as_ref().and_then(|toc| find(toc, &name));
        match (was, is) {
            (Some(was), Some(is)) if is_benign_change(&was, &is) => {
                proof.benign.push(format!("written in other words: {name}"))
            }
            (Some(was), Some(is)) if other_words.is_some() && is_same_object(&was, &is) => {
                proof.benign.push(format!("written by another version of the server: {name}"))
            }
            _ => proof.schema.changed.push(name),
        }
    }
    proof.holds = proof.schema.is_empty()
        && proof.catalog.is_empty()
        && proof.tables_differing.is_empty()
        && proof.sequences_behind.is_empty();
}

/// The number before the first point of a server's version.
fn major(version: &Text) -> Option<u32> {
    let text = version.lossy();
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A dump is written for the server that it was made of and for newer ones: an older one does not know its words,
/// nor its pg_restore the archive. That says nothing of the backup.
fn refuse_older_server(build: &Build<'_>, maintenance: &Session) -> Result<()> {
    let made_of = major(&Text::from(build.backup.manifest.sealed.server_version.as_str()));
    let server = u32::try_from(maintenance.server_version_num() / 10_000).ok();
    match (made_of, server) {
        (Some(made_of), Some(server)) if server < made_of => Err(Error::usage(format!(
            "backup `{}` is of PostgreSQL {made_of}, and the server is PostgreSQL {server}",
            build.backup.id
        ))
        .hint(format!("restore it on a server of version {made_of} or newer"))),
        _ => Ok(()),
    }
}

/// What a swap left behind.
#[derive(Clone, Debug)]
pub struct Swapped {
    /// The name under which the old database is kept.
    pub aside: String,
    /// Rows that others wrote after the backup.
    pub writes: Counted,
    /// How long nobody could connect.
    pub closed: Duration,
}

/// Puts the scratch database in the target's place: closes the target, counts what others wrote since
/// the backup, carries the history over, renames both in one transaction. When a write would be lost
/// that nobody agreed to lose, the target is opened again and the error says the numbers.
#[allow(clippy::too_many_arguments)]
pub async fn swap_in(
    ctx: &Context,
    live: &Live,
    journal: &mut Journal,
    run: RunId,
    backup: &Taken,
    scratch: &Scratch,
    policy: Writes,
    ours: &Ours,
) -> Result<Swapped> {
    let target_oid = databases::find(live.maintenance(), ctx.target.database())
        .await?
        .map(|database| database.oid)
        .ok_or_else(|| Error::failed(format!("database `{}` is not there", ctx.target.database())))?;
    let warnings =
        databases::apply_properties(live.maintenance(), &scratch.name, &backup.manifest.sealed.properties).await?;
    for warning in warnings {
        ctx.progress.warn(warning);
    }
    let aside = free_aside_name(ctx, live).await?;
    ctx.progress.began(
        "swap",
        format!("`{}` takes the place of `{}`, which is kept as `{aside}`", scratch.name, ctx.target.database()),
    );
    // Counted while others are still connected: reading every table takes as long as it takes, and the
    // window in which nobody can connect must not grow with the size.
    let seen = counts::moment(&live.session).await?;
    let counted = count(&live.session, &backup.manifest, &backup.keys, ours).await?;
    if policy != Writes::AcceptLoss {
        allow(ctx, &counted, policy, backup)?;
    }
    journal.record(Step::SwapBegan {
        target: ctx.target.database().to_owned(),
        target_oid,
        scratch: scratch.name.clone(),
        scratch_oid: scratch.oid,
        aside: aside.clone(),
    })?;
    ctx.faults.at("swap_began").await;
    let closed = swap::close(live.maintenance(), &ctx.target, Duration::from_secs(30)).await?;
    ctx.faults.at("swap_closed").await;

    let before = Before { seen, counted };
    let prepared = prepare_closed(ctx, &closed, backup, scratch, policy, ours, before).await;
    let writes = match prepared {
        Ok(writes) => writes,
        Err(error) => {
            closed.reopen(live.maintenance()).await.map_err(|reopening| {
                reopening
                    .context(format!("`{}` could not be opened again", ctx.target.database()))
                    .with_kind(Kind::NotRecovered)
                    .hint("ripcord recover")
            })?;
            return Err(error);
        }
    };
    ctx.faults.at("swap_ready").await;
    let kept = databases::Aside {
        lineage: live.lineage,
        database: ctx.target.database().to_owned(),
        run: Some(run),
        backup: Some(backup.id),
        at: crate::clock::now(),
    };
    let comment = kept.comment();
    let closed = closed.swap(live.maintenance(), &scratch.name, &aside, &comment).await?;
    ctx.faults.at("swap_renamed").await;
    journal.record(Step::SwapDone)?;
    ctx.progress.finished("swap", format!("nobody could connect for {} ms", closed.as_millis()));
    Ok(Swapped { aside, writes, closed })
}

/// The name under which the target will be kept. It tells the second; a database that was put aside within the
/// same one keeps its name.
async fn free_aside_name(ctx: &Context, live: &Live) -> Result<String> {
    let mut at = crate::clock::now();
    loop {
        let name = swap::aside_name(ctx.target.database(), at);
        if databases::find(live.maintenance(), &name).await?.is_none() {
            return Ok(name);
        }
        at += chrono::TimeDelta::seconds(1);
    }
}

/// What was counted before the target was closed, and when.
struct Before {
    seen: Moment,
    counted: Counted,
}

/// Closing the target takes one transaction, which marks its row in pg_database.
const CLOSING_TAKES: u64 = 1;

/// With the target closed: the writes since the backup, and the history of the old database. What was counted
/// before still holds when the server has begun no transaction since; else it is counted once more.
async fn prepare_closed(
    ctx: &Context,
    closed: &swap::Closed,
    backup: &Taken,
    scratch: &Scratch,
    policy: Writes,
    ours: &Ours,
    before: Before,
) -> Result<Counted> {
    let now = counts::moment(closed.inside()).await?;
    let counted = if before.seen.is_quiet_until(now, CLOSING_TAKES) {
        before.counted
    } else {
        count(closed.inside(), &backup.manifest, &backup.keys, ours).await?
    };
    allow(ctx, &counted, policy, backup)?;
    carry_history(ctx, closed.inside(), backup, scratch).await?;
    Ok(counted)
}

/// The first part of an id, enough for a person to type.
pub fn short(id: crate::ids::BackupId) -> String {
    id.to_string().chars().take(13).collect()
}

/// History moves forward only: every row of the old database goes into the new one, but for the applied
/// set, which is what it was at the backup.
async fn carry_history(ctx: &Context, inside: &Session, backup: &Taken, scratch: &Scratch) -> Result<()> {
    let rows = match control::inspect(inside.client()).await? {
        control::State::Present { .. } => {
            whole_history(ctx, control::export_rows(inside.client()).await?, backup).await?
        }
        control::State::Absent => whole_history(ctx, std::collections::BTreeMap::new(), backup).await?,
    };
    import_history(ctx, &scratch.name, backup, &rows).await?;
    // The usual role must find the history its own, whoever restores.
    if let Some(owner) = control::owner(inside.client()).await?
        && owner != ctx.target.user()
    {
        let target = ctx.target.with_database(&scratch.name);
        let session = Session::connect(&target, "history", ctx.settings.timeouts.connect).await?;
        if let Err(error) = control::set_owner(session.client(), &owner).await {
            ctx.progress.warn(format!(
                "the schema `ripcord` now belongs to `{}`: {}",
                ctx.target.user(),
                error.one_line()
            ));
        }
        session.close().await;
    }
    Ok(())
}

/// The applied set of a backup: version and checksum.
pub(super) fn applied_of(backup: &Taken) -> Vec<(String, String)> {
    backup.manifest.sealed.applied.iter().map(|row| (row.version.clone(), row.checksum.clone())).collect()
}

/// The rows that the target has. Where it lacks one that the backup knows, its control schema was lost; then
/// the manifests tell what it held, as far as there are backups.
pub(super) async fn whole_history(
    ctx: &Context,
    rows: std::collections::BTreeMap<String, serde_json::Value>,
    backup: &Taken,
) -> Result<std::collections::BTreeMap<String, serde_json::Value>> {
    if control::holds_all(&backup.manifest.sealed.control_rows, &rows) {
        return Ok(rows);
    }
    ctx.progress
        .warn("the target's history lacks rows that the backup knows; they are taken from the store's manifests");
    let lineage = backup.manifest.clear.lineage;
    let store = ctx.store.clone();
    let mut ids = super::context::blocking(move || store.backups(lineage)).await?;
    ids.sort();
    let mut whole = backup.manifest.sealed.control_rows.clone();
    for id in ids {
        match super::backup::open_manifest(ctx, lineage, id).await {
            Ok((manifest, _)) => whole = control::merge_rows(&whole, &manifest.sealed.control_rows),
            Err(error) => {
                ctx.progress.warn(format!("without the history that backup `{id}` holds: {}", error.one_line()))
            }
        }
    }
    Ok(control::merge_rows(&whole, &rows))
}

/// Puts history rows into a restored database, with the applied set of the backup.
pub async fn import_history(
    ctx: &Context,
    database: &str,
    backup: &Taken,
    rows: &std::collections::BTreeMap<String, serde_json::Value>,
) -> Result<()> {
    let applied = applied_of(backup);
    let session =
        Session::connect(&ctx.target.with_database(database), "history", ctx.settings.timeouts.connect).await?;
    control::import_rows(session.client(), rows, &applied).await?;
    session.close().await;
    Ok(())
}

/// All rows of a backup.
pub fn total_rows(manifest: &Manifest) -> u64 {
    manifest.sealed.streams.iter().flat_map(|stream| &stream.index.blocks).map(|block| block.digest.rows).sum()
}

fn tables(manifest: &Manifest) -> usize {
    manifest.sealed.streams.iter().flat_map(|stream| &stream.index.blocks).filter(|block| !block.large_objects).count()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
