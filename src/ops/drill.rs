//! `drill`: a backup is really restored into a scratch database, every row is read back and compared with
//! what was dumped, and the scratch database is removed.

use std::time::Instant;

use serde::Serialize;

use super::backup::{self, Taken};
use super::beside::{self, Build, Phases};
use super::catalog;
use super::columns;
use super::context::{Context, blocking};
use super::proof::{Depth, Evidence, Proof};
use super::restore::find_lineage;
use super::source;
use crate::clock::{self, Time};
use crate::control;
use crate::error::{Error, Kind, Result};
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
    /// The other server, when it was not the target's own.
    pub server: Option<String>,
}

/// What to drill, and where.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// `latest`, or the beginning of an id.
    pub selector: &'a str,
    /// Whose backups: the database's name when they were made.
    pub from_database: Option<&'a str>,
    /// The scratch database stays.
    pub keep: bool,
    /// Another server to restore on; `None`: the target's own.
    pub server: Option<&'a Context>,
}

/// Drills one backup. A backup that does not hold is an error of kind verification, and is marked so.
pub async fn drill(ctx: &Context, request: &Request<'_>) -> Result<Evidenced> {
    let began = Instant::now();
    let session = match (target_session(ctx).await, request.server) {
        (Ok(session), _) => session,
        // The drill of the day on which the server is gone.
        (Err(error), Some(_)) => {
            ctx.progress.warn(format!("without the target: {}", error.one_line()));
            None
        }
        (Err(error), None) => return Err(error),
    };
    let on = request.server.unwrap_or(ctx);
    let (_, maintenance) = guard::open_maintenance(&on.target, &on.settings).await?;
    let lineage = find_lineage(ctx, session.as_ref(), request.from_database).await?;
    let id = catalog::resolve(ctx, lineage, request.selector).await?;
    let result = restore_and_compare(on, &maintenance, lineage, id, request.keep).await;
    let duration_ms = beside::millis(began.elapsed());
    let good = match &result {
        Ok((proof, ..)) => proof.holds,
        Err(error) if error.kind() == Kind::Verification => false,
        // Says nothing about the backup: no right to create a database, a server that went away, …
        Err(error) => return Err(error.clone()),
    };
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
    let server = request.server.map(|on| on.target.redacted());
    Ok(Evidenced { backup: id, at: clock::now(), good, proof, phases, duration_ms, kept, server })
}

/// A session in the target; `None` when the server has no such database.
async fn target_session(ctx: &Context) -> Result<Option<Session>> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    Ok(match databases::find(&maintenance, ctx.target.database()).await? {
        Some(_) => Some(ctx.connect("drill").await?),
        None => None,
    })
}

/// Whether a failed load tells something about the backup, and not about the server or a right that is missing.
fn tells_of_the_backup(error: &Error) -> bool {
    // 42501: no right; 53: out of something; 57: stopped by an operator; 58: a disk (PostgreSQL, appendix A).
    let elsewhere = error
        .sqlstate()
        .is_some_and(|state| state == "42501" || ["08", "53", "57", "58"].iter().any(|class| state.starts_with(class)));
    // pg_restore tells no SQLSTATE: an extension that only a superuser may create, for one.
    let denied = ["permission denied to ", "must be superuser", "Must be superuser"];
    let elsewhere = elsewhere || denied.iter().any(|words| error.one_line().contains(words));
    !elsewhere && !error.connection_lost() && matches!(error.kind(), Kind::Failed | Kind::Verification)
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
    let (scratch, mut phases) = beside::build(ctx, &tools, maintenance, &build).await.map_err(|error| {
        if !tells_of_the_backup(&error) {
            return error;
        }
        // PostgreSQL took it, and it is not what the backup says of itself: no fault of the database.
        if error.kind() == Kind::Verification {
            let named = error.one_line().contains(&id.to_string());
            let error = if named { error } else { error.context(format!("backup `{id}` is not what it says it is")) };
            return error.hint("restore another one: ripcord backup list; and at once: ripcord backup create");
        }
        error
            .context(format!("backup `{id}` cannot be restored"))
            .with_kind(Kind::Verification)
            .hint("mend the cause in the database, then: ripcord backup create, and drill that")
    })?;
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
    let mut after = Evidence::read(ctx, tools, &target, &session, &taken.keys, Depth::Rows).await?;
    session.close().await;
    let before = Evidence::of_manifest(&taken.manifest);
    columns::reread(&target, &before, &mut after, &taken.keys).await?;
    let mut proof = before.compare(&after, Depth::Rows);
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
            if row.id == id && good {
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
