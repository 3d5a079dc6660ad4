//! A restore in place, where no database can be created: what came after the backup is dropped, object by object, and
//! then one transaction drops what the backup holds and loads it again. What of that stands when it fails is told.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use super::backup::{self, Taken};
use super::beside::{applied_of, whole_history};
use super::check;
use super::context::{Context, Live};
use super::leftovers;
use super::losses;
use super::proof::Proof;
use super::recover::prove_in_place;
use super::run::Run;
use super::source;
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::BackupId;
use crate::journal::Step;
use crate::manifest::{DatabaseProperties, Purpose};
use crate::postgres::{Target, databases, load, supabase, swap};

/// What a restore in place has done to the target so far.
#[derive(Debug, Default)]
pub struct Progressed {
    /// Whether the target may have been touched at all.
    began: bool,
    /// What came after the backup and is dropped.
    pub(super) dropped: Vec<String>,
    /// A drop that was sent, and whose end is not known yet.
    pub(super) dropping: Option<String>,
    /// The backup whose rows are in.
    loaded: Option<BackupId>,
    /// Sees the database as it was when they were committed.
    pub(super) witness: Option<load::Witness>,
}

impl Progressed {
    /// The state of the database when nothing but the restore has changed it; `None`: as before.
    pub fn state(&self, run: &Run<'_>) -> Option<String> {
        if self.began && (run.live.maintenance().is_closed() || run.live.session.is_closed()) {
            return Some("UNKNOWN, do not retry".to_owned());
        }
        let what = match (&self.loaded, self.gone()) {
            (Some(backup), _) => format!("the rows of backup `{backup}` are in, but not proved"),
            (None, Some(gone)) => gone,
            (None, None) => return None,
        };
        let before = run.journal.entries().iter().rev().find_map(|entry| match entry.step {
            Step::BackupComplete { backup, safety: true } => Some(backup),
            _ => None,
        });
        let before = before.map(|safety| format!("; what it was before is backup `{safety}`")).unwrap_or_default();
        Some(format!("PARTLY restored in place: {what}{before}"))
    }

    /// The objects that are gone, in words.
    pub fn gone(&self) -> Option<String> {
        let mut words = Vec::new();
        if !self.dropped.is_empty() {
            let noun = if self.dropped.len() == 1 { "is" } else { "are" };
            words.push(format!("{} came after the backup and {noun} dropped", some(&self.dropped)));
        }
        words.extend(self.dropping.iter().map(|item| format!("{item} may be dropped")));
        if words.is_empty() { None } else { Some(words.join("; ")) }
    }
}

/// The first of them, and how many more there are.
fn some(items: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = items.iter().take(SHOWN).map(|item| format!("`{item}`")).collect();
    match items.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What a prepared transaction has locked it keeps locked until somebody ends it: the load would wait for that for
/// ever, with everything else locked by itself.
async fn refuse_beside_prepared(live: &Live) -> Result<()> {
    // language=SQL
    let sql = "SELECT p.gid FROM pg_catalog.pg_prepared_xacts AS p \
               WHERE p.database OPERATOR(pg_catalog.=) pg_catalog.current_database() ORDER BY 1";
    let gids: Vec<String> =
        live.session.rows(sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    match gids.first() {
        None => Ok(()),
        Some(first) => Err(Error::new(Kind::NotRecovered, "a restore in place would wait for prepared transactions")
            .because(format!("open are {}", gids.join(", ")))
            .hint(format!(
                "COMMIT PREPARED or ROLLBACK PREPARED {}, then: ripcord recover",
                crate::postgres::quote::literal(first)
            ))),
    }
}

/// Nobody can be kept out of a database that is replaced where it stands: what others wrote between the count and the
/// load would go uncounted, and what they wrote before the proof would make it fail. So they can only read meanwhile.
/// What held for the database before comes back, for the safety backup: the fence is not to be kept in it.
pub async fn keep_writers_off(run: &mut Run<'_>) -> Result<Option<DatabaseProperties>> {
    if run.fenced.is_none() {
        let properties = databases::read_properties(run.live.maintenance(), run.ctx.target.database()).await?;
        if let Err(error) = run.fence(check::setting_of(&properties, "default_transaction_read_only")).await {
            run.ctx.progress.warn(format!("others can go on writing during the restore: {}", error.one_line()));
        }
        return Ok(Some(properties));
    }
    Ok(None)
}

/// What a restore in place has come to.
pub struct Replaced {
    /// Every row was read, and is what the backup holds.
    pub proof: Proof,
    /// Rows of others that were given up.
    pub writes: u64,
    /// The backup of what was there before.
    pub safety: BackupId,
}

/// Replaces the target's content where it stands: writers off, others' writes counted, a safety backup, the load, the
/// proof.
pub async fn replace(run: &mut Run<'_>, backup: &Taken) -> Result<Replaced> {
    let properties = keep_writers_off(run).await?;
    let counted = losses::count(&run.live.session, &backup.manifest, &backup.keys, &run.ours).await?;
    losses::allow(run.ctx, &counted, run.writes, backup)?;
    backup::verify(run.ctx, backup.manifest.clear.lineage, backup.id).await?;
    // The database that is replaced must not be the only copy of what it holds.
    let safety = backup::Request {
        purpose: Purpose::Safety,
        run: Some(run.id),
        tags: Vec::new(),
        before: Vec::new(),
        properties,
    };
    let safety = backup::take(run.ctx, &run.live, &safety).await?;
    run.journal.record(Step::BackupComplete { backup: safety.id, safety: true })?;
    in_place(run, backup).await?;
    let proof = prove_in_place(run, backup).await?;
    Ok(Replaced { proof, writes: counted.total(), safety: safety.id })
}

/// Loads a backup into the target itself. The caller has taken a safety backup; what was done when it fails stands in
/// `run.in_place`.
pub async fn in_place(run: &mut Run<'_>, backup: &Taken) -> Result<()> {
    let ctx = run.ctx;
    let target: Target = ctx.target.clone();
    ctx.progress.began("in_place", format!("restoring backup `{}` into `{}` itself", backup.id, target.database()));
    super::rungs::same_set(ctx, &backup.manifest)?;
    refuse_beside_prepared(&run.live).await?;
    if let Some(what) = supabase::leaning(&run.live.session, ctx.left_out()).await?.into_iter().next() {
        return Err(Error::new(Kind::NotRecovered, "a restore in place cannot replace what is needed elsewhere")
            .because(format!("{what}, and its schema is left out of the backup"))
            .hint("drop it, then: ripcord recover; then make it again"));
    }
    let (plan, _) = source::load_plan(ctx, backup)?;
    run.journal.record(Step::InPlaceBegan { backup: backup.id })?;
    let so_far = Mutex::new(Progressed { began: true, ..Progressed::default() });
    let result = load_over(ctx, &run.live, &so_far, backup, &plan).await;
    run.in_place = so_far.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (loaded, witness) = result.map_err(|error| by_recover(run, error))?;
    for warning in loaded.warnings {
        ctx.progress.warn(warning);
    }
    run.in_place.loaded = Some(backup.id);
    run.in_place.witness = Some(witness);
    ctx.faults.at("in_place_loaded").await;
    let applied = applied_of(backup);
    let rows = control::export_rows(run.live.session.client()).await?;
    let whole = whole_history(ctx, rows.clone(), backup).await?;
    if whole == rows {
        control::set_applied(run.live.session.client(), &applied).await?;
    } else {
        control::rebuild(run.live.session.client(), run.live.lineage, &whole, &applied).await?;
    }
    run.journal.record(Step::InPlaceDone)?;
    ctx.progress.finished("in_place", "loaded in one transaction");
    Ok(())
}

/// Every row of it was read and is what the backup holds.
pub fn proved(run: &mut Run<'_>) {
    run.in_place = Progressed::default();
}

/// Drops what came after the backup and loads it, as long as nobody's lock is in the way.
async fn load_over(
    ctx: &Context,
    live: &Live,
    so_far: &Mutex<Progressed>,
    backup: &Taken,
    plan: &load::LoadPlan,
) -> Result<(load::Loaded, load::Witness)> {
    let loading = async {
        leftovers::drop_new_objects(ctx, live, backup, so_far).await?;
        ctx.faults.at("in_place_began").await;
        load::Witness::of(&ctx.target, load::load_in_place(&live.tools, &ctx.target, plan, &ctx.progress)).await
    };
    let mut loading = std::pin::pin!(loading);
    let limit = ctx.settings.timeouts.lock;
    let blocked = tokio::select! {
        loaded = &mut loading => return loaded,
        blocked = swap::stuck_behind(live.maintenance(), ctx.target.database(), limit) => blocked,
    };
    // What it was doing is undone by the server.
    let _ = live.session.cancel().await;
    let in_drop = || so_far.lock().unwrap_or_else(PoisonError::into_inner).dropping.is_some();
    if in_drop() {
        // The answer to the cancelled drop tells whether it was one.
        let _ = tokio::time::timeout(Duration::from_secs(5), &mut loading).await;
    }
    let (pid, who) = blocked?;
    Err(Error::new(
        Kind::NotRecovered,
        format!("the restore in place has waited for a lock longer than {}s", limit.as_secs_f64()),
    )
    .because(format!("{who} holds it"))
    .hint(format!("let it end, or: psql -d \"$DATABASE_URL\" -c 'SELECT pg_terminate_backend({pid})'; {AGAIN}")))
}

const AGAIN: &str = "then the same command again";

/// Where something stands, or the run is not a restore's own, it stays open, and only `recover` goes on with it.
fn by_recover(run: &Run<'_>, error: Error) -> Error {
    if run.row.command == "restore" && run.in_place.state(run).is_none() {
        return error;
    }
    match error.hint_text().map(|hint| hint.replace(AGAIN, "then: ripcord recover")) {
        Some(hint) => error.hint(hint),
        None => error.hint("ripcord recover"),
    }
}
