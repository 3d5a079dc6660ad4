//! `drill`: a backup is really restored into a scratch database, every row is read back and compared with
//! what was dumped, and the scratch database is removed.

use std::time::Instant;

use serde::Serialize;

use super::backup::{self, Taken};
use super::beside::{self, Build, Phases};
use super::catalog;
use super::context::{Context, blocking};
use super::proof::{Depth, Evidence, Proof};
use super::restore::find_lineage;
use super::source;
use crate::clock::{self, Time};
use crate::control;
use crate::error::{Error, Result};
use crate::ids::{BackupId, RunId};
use crate::postgres::{Session, databases, guard};
use crate::store::Mark;

/// The evidence of a drill.
#[derive(Clone, Debug, Serialize)]
pub struct Evidenced {
    /// The backup.
    pub backup: BackupId,
    /// When.
    pub at: Time,
    /// Whether what came back is what was backed up.
    pub good: bool,
    /// What was compared.
    pub proof: Proof,
    /// The time of each phase.
    pub phases: Phases,
    /// All of it.
    pub duration_ms: u64,
    /// The scratch database, when it was kept.
    pub kept: Option<String>,
}

/// Drills one backup. A backup that does not hold is an error of kind verification, and is marked so.
pub async fn drill(ctx: &Context, selector: &str, from_database: Option<&str>, keep: bool) -> Result<Evidenced> {
    let began = Instant::now();
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    let session = match databases::find(&maintenance, ctx.target.database()).await? {
        Some(_) => Some(ctx.connect("drill").await?),
        None => None,
    };
    let lineage = find_lineage(ctx, session.as_ref(), from_database).await?;
    let id = catalog::resolve(ctx, lineage, selector).await?;
    let result = restore_and_compare(ctx, &maintenance, lineage, id, keep).await;
    let duration_ms = beside::millis(began.elapsed());
    let good = matches!(&result, Ok((proof, ..)) if proof.holds);
    let store = ctx.store.clone();
    let mark = Mark::Drilled { at: clock::now(), duration_ms, good };
    blocking(move || store.mark(lineage, id, &mark)).await?;
    if let Some(session) = &session {
        record(ctx, session, id, good, duration_ms).await;
    }
    let (proof, phases, kept) = result?;
    if !proof.holds {
        return Err(Error::verification(format!("what came back from backup `{id}` is not what was backed up"))
            .because(proof.why_not())
            .hint("take another backup, and drill that: ripcord backup create"));
    }
    Ok(Evidenced { backup: id, at: clock::now(), good, proof, phases, duration_ms, kept })
}

async fn restore_and_compare(
    ctx: &Context,
    maintenance: &Session,
    lineage: crate::ids::Lineage,
    id: BackupId,
    keep: bool,
) -> Result<(Proof, Phases, Option<String>)> {
    let began = Instant::now();
    let manifest = backup::verify(ctx, lineage, id).await?;
    let verify_ms = beside::millis(began.elapsed());
    let (_, keys) = backup::open_manifest(ctx, lineage, id).await?;
    let location = ctx.store.backup_location(lineage, id);
    let taken = Taken { id, manifest, keys, location, duration: began.elapsed() };
    let tools = ctx.tools(maintenance)?;
    let name = databases::scratch_name();
    let comment = databases::scratch_comment(RunId::new(), id);
    // A lineage of its own: a scratch database is not the database.
    let build = Build { backup: &taken, name: &name, comment: &comment, lineage: crate::ids::Lineage::new() };
    let (scratch, mut phases) = beside::build(ctx, &tools, maintenance, &build).await?;
    phases.verify_ms = verify_ms;
    let compared = compare(ctx, &tools, &taken, &name).await;
    if !keep {
        databases::drop_scratch(maintenance, &name, Some(scratch.oid)).await?;
    }
    let mut proof = compared?;
    phases.prove_ms += proof.duration_ms;
    proof.benign.extend(scratch.proof.benign);
    Ok((proof, phases, keep.then_some(name)))
}

/// Every row is read back with the archive's own column lists and digested under the backup's key.
async fn compare(ctx: &Context, tools: &crate::postgres::Tools, taken: &Taken, name: &str) -> Result<Proof> {
    ctx.progress.began("compare", format!("reading `{name}` back"));
    let began = Instant::now();
    let target = ctx.target.with_database(name);
    let session = Session::connect(&target, "drill", ctx.settings.timeouts.connect).await?;
    let after = Evidence::read(ctx, tools, &target, &session, &taken.keys, Depth::Rows).await?;
    session.close().await;
    let mut proof = Evidence::of_manifest(&taken.manifest).compare(&after, Depth::Rows);
    let (_, toc) = source::load_plan(ctx, taken)?;
    beside::accept_benign(&mut proof, &toc, &after);
    proof.kind = "digests".to_owned();
    proof.duration_ms = beside::millis(began.elapsed());
    ctx.progress.finished("compare", format!("{} rows in {} tables", proof.rows_compared, proof.tables_compared));
    Ok(proof)
}

async fn record(ctx: &Context, session: &Session, id: BackupId, good: bool, duration_ms: u64) {
    let recorded = async {
        if super::context::lineage_of(session).await?.is_none() {
            return Ok(());
        }
        for mut row in control::backups(session.client()).await? {
            if row.id == id {
                row.drilled_at = Some(clock::now());
                control::put_backup(session.client(), &row).await?;
            }
        }
        let detail = serde_json::json!({ "backup": id, "good": good, "duration_ms": duration_ms });
        control::audit(session.client(), None, "drilled", &detail, None).await
    };
    if let Err(error) = recorded.await {
        ctx.progress.warn(format!("the drill could not be recorded in the database: {error}"));
    }
}
