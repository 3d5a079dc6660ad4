//! A restore in place, where no database can be created: one transaction locks every table, drops what is there and loads
//! the backup. Between its locks and its first change it waits: others' writes are counted then, when no more of them can
//! come, and the safety backup is taken.

use std::pin::pin;

use super::backup::{self, Taken};
use super::beside::{applied_of, whole_history};
use super::check;
use super::context::{Context, Live};
use super::leftovers::Present;
use super::losses::{self, Ours};
use super::proof::Proof;
use super::recover::prove_in_place;
use super::run::Run;
use super::source;
use crate::archive;
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::BackupId;
use crate::journal::{Journal, Step};
use crate::manifest::{DatabaseProperties, Purpose};
use crate::postgres::load::{self, Gate, Waiting, Witness, Witnesses};
use crate::postgres::{databases, supabase, swap};
use crate::settings::Writes;

/// Who reads and then writes a table while it is being locked may stop both: the server ends one of the two, and that was
/// the restore. It is as if it had not begun.
const TRIES: u32 = 5;

/// Who writes in the moment of the commit may be seen by the proof. What he wrote is counted, and the load done again.
const LOADS: u32 = 5;

/// What a restore in place has done to the target so far.
#[derive(Debug, Default)]
pub struct Progressed {
    /// The load was let go on, and how it ended is not known.
    undecided: bool,
    /// The backup whose rows are in.
    loaded: Option<BackupId>,
    /// Sees the database as it was when they were committed.
    pub(super) witness: Option<Witness>,
}

impl Progressed {
    /// The state of the database when nothing but the restore has changed it; `None`: as before.
    pub fn state(&self, run: &Run<'_>) -> Option<String> {
        if self.undecided {
            return Some("UNKNOWN, do not retry".to_owned());
        }
        let backup = self.loaded.as_ref()?;
        let before = run.journal.entries().iter().find_map(|entry| match &entry.step {
            Step::BackupComplete { backup: safety, safety: true } if safety != backup => Some(*safety),
            _ => None,
        });
        let before = before.map(|safety| format!("; what it was before is backup `{safety}`")).unwrap_or_default();
        Some(format!("PARTLY restored in place: the rows of backup `{backup}` are in, but not proved{before}"))
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

/// Others can only read meanwhile, as far as that can be: who writes all the same waits for the restore's locks. What held
/// for the database before is what comes back, for the safety backup: the fence is not to be kept in it.
pub async fn keep_writers_off(run: &mut Run<'_>) -> Result<DatabaseProperties> {
    const READ_ONLY: &str = "default_transaction_read_only";
    let mut properties = databases::read_properties(run.live.maintenance(), run.ctx.target.database()).await?;
    if let Some(previous) = &run.fenced {
        let settings = properties.settings.entry(String::new()).or_default();
        settings.retain(|line| line.split('=').next() != Some(READ_ONLY));
        settings.extend(previous.iter().map(|value| format!("{READ_ONLY}={value}")));
    } else if let Err(error) = run.fence(check::setting_of(&properties, READ_ONLY)).await {
        run.ctx.progress.warn(format!("others can go on writing until the restore begins: {}", error.one_line()));
    }
    Ok(properties)
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

/// Replaces the target's content where it stands. What was done when it fails stands in `run.in_place`.
pub async fn replace(run: &mut Run<'_>, backup: &Taken) -> Result<Replaced> {
    let ctx = run.ctx;
    if run.writes != Writes::AcceptLoss {
        // When this says no already, nobody has to be kept off.
        let counted = losses::count(&run.live.session, &backup.manifest, &backup.keys, &run.ours).await?;
        losses::allow(ctx, &counted, run.writes, backup)?;
    }
    can_be_replaced(run, backup).await?;
    backup::verify(ctx, backup.manifest.clear.lineage, backup.id).await?;
    let properties = keep_writers_off(run).await?;

    ctx.progress.began("in_place", format!("restoring backup `{}` into `{}` itself", backup.id, ctx.target.database()));
    let mut writes = 0;
    let mut first_safety = None;
    let mut loads = 0;
    loop {
        loads += 1;
        let allowed = load_once(run, backup, &properties).await.map_err(|error| by_recover(run, error))?;
        writes += allowed.writes;
        let safety = *first_safety.get_or_insert(allowed.safety);
        match prove_in_place(run, backup).await {
            Ok(proof) => return Ok(Replaced { proof, writes, safety }),
            Err(error) if loads < LOADS && run.writes == Writes::AcceptLoss && others_wrote(run, backup).await? => {
                ctx.progress.note(format!("{}; once more, since others wrote meanwhile", error.one_line()));
                // It holds the lock that it waited for.
                run.in_place.witness = None;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Loads, and brings the history up to it.
async fn load_once(run: &mut Run<'_>, backup: &Taken, properties: &DatabaseProperties) -> Result<Allowed> {
    let ctx = run.ctx;
    let mut tries = 1;
    let allowed = loop {
        match load_over(run, backup, properties).await {
            Err(error) if tries < TRIES && !run.in_place.undecided && is_deadlock(&error) => {
                ctx.progress.note("a writer and the restore stood in each other's way; once more");
                tries += 1;
            }
            allowed => break allowed?,
        }
    };
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
    Ok(allowed)
}

/// Whether there is anything that others wrote since the load.
async fn others_wrote(run: &Run<'_>, backup: &Taken) -> Result<bool> {
    let counted = losses::count(&run.live.session, &backup.manifest, &backup.keys, &run.ours).await?;
    Ok(counted.total() > 0 || !counted.unknowable.is_empty())
}

/// The rows that this transaction loaded are no others' writes; and of what it replaced nothing can be told any more.
pub(super) fn loaded_by(ours: &mut Ours, transaction: u64) {
    ours.xids.push(transaction);
    ours.touched = None;
}

/// Every row of it was read and is what the backup holds.
pub fn proved(run: &mut Run<'_>) {
    run.in_place = Progressed::default();
}

/// Refuses what would not go well, before anything is done.
async fn can_be_replaced(run: &Run<'_>, backup: &Taken) -> Result<()> {
    super::rungs::same_set(run.ctx, &backup.manifest)?;
    refuse_beside_prepared(&run.live).await?;
    if let Some(what) = supabase::leaning(&run.live.session, run.ctx.left_out()).await?.into_iter().next() {
        return Err(Error::new(Kind::NotRecovered, "a restore in place cannot replace what is needed elsewhere")
            .because(format!("{what}, and its schema is left out of the backup"))
            .hint("drop it, then: ripcord recover; then make it again"));
    }
    Ok(())
}

/// What was found when no more writes could come.
struct Allowed {
    /// Rows of others that are given up.
    writes: u64,
    /// Holds what is replaced.
    safety: BackupId,
}

/// One try: locks, asks whether it may, loads.
async fn load_over(run: &mut Run<'_>, backup: &Taken, properties: &DatabaseProperties) -> Result<Allowed> {
    let (id, policy) = (run.id, run.writes);
    let Run { ctx, live, journal, in_place, ours, .. } = run;
    let (plan, _) = source::load_plan(ctx, backup)?;
    let present = Present::read(ctx, live, &plan.encoding).await?;
    let gate = Gate::close(&ctx.target).await?;
    let mut first = vec![present.lock(&gate.statement())];
    first.extend(present.drops(&backup.manifest.sealed.inventory));
    let contents = archive::clean_first(&plan.source.table_of_contents()?, &first)?;
    journal.record(Step::InPlaceBegan { backup: backup.id })?;

    let mut loading = Box::pin(load::load_in_place(&live.tools, &ctx.target, &plan, contents, &ctx.progress));
    let mut blocked = pin!(blocked(ctx, live));
    let asked = Asked { run: id, backup, policy, ours: &*ours, properties, present: &present };
    let (allowed, waiting) = tokio::select! {
        allowed = asked.allow(ctx, live, journal, &gate) => allowed?,
        error = &mut blocked => return Err(error),
        ended = &mut loading => {
            ended?;
            return Err(Error::failed("pg_restore did not wait to be let go on"));
        }
    };
    let is_loaded = |(schema, name): &(String, String)| {
        let name = format!("{schema}.{name}");
        plan.tables.iter().any(|table| table.table == name)
    };
    let tables: Vec<_> = gate.locked(waiting).await?.into_iter().filter(is_loaded).collect();
    let witnesses = Witnesses::behind(&ctx.target, &gate, &tables).await?;
    in_place.undecided = true;
    let loaded = async {
        gate.open().await?;
        tokio::select! {
            loaded = &mut loading => loaded,
            error = &mut blocked => Err(error),
        }
    };
    let loaded = loaded.await;
    // pg_restore ends with it, if it has not ended.
    drop(loading);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        // The connection may have been lost behind the commit.
        Err(error) => match load::committed(&live.session, waiting.xid).await {
            Ok(Some(true)) => {
                ctx.progress.warn(format!("the load is committed, all the same: {}", error.one_line()));
                load::Loaded::default()
            }
            Ok(Some(false)) => {
                in_place.undecided = false;
                return Err(error);
            }
            Ok(None) | Err(_) => return Err(error),
        },
    };
    loaded_by(ours, waiting.xid);
    let witness = witnesses.first(&ctx.target).await.ok();
    *in_place = Progressed { undecided: false, loaded: Some(backup.id), witness };
    for warning in loaded.warnings {
        ctx.progress.warn(warning);
    }
    Ok(allowed)
}

/// Asks, behind the locks, whether the load may go on.
struct Asked<'a> {
    run: crate::ids::RunId,
    backup: &'a Taken,
    policy: Writes,
    ours: &'a Ours,
    properties: &'a DatabaseProperties,
    present: &'a Present,
}

impl Asked<'_> {
    /// From here on nobody can write: counts what others wrote, and takes the safety backup, since the database that is
    /// replaced must not be the only copy of what it holds.
    async fn allow(
        &self,
        ctx: &Context,
        live: &Live,
        journal: &mut Journal,
        gate: &Gate,
    ) -> Result<(Allowed, Waiting)> {
        let waiting = gate.reached().await?;
        ctx.faults.at("in_place_began").await;
        let Asked { backup, .. } = self;
        let counted = losses::count(&live.session, &backup.manifest, &backup.keys, self.ours).await?;
        losses::allow(ctx, &counted, self.policy, backup)?;
        let safety = backup::Request {
            purpose: Purpose::Safety,
            run: Some(self.run),
            tags: Vec::new(),
            before: Vec::new(),
            properties: Some(self.properties.clone()),
        };
        let safety = backup::take(ctx, live, &safety).await?;
        journal.record(Step::BackupComplete { backup: safety.id, safety: true })?;
        if !self.present.is_still(&safety.manifest.sealed.inventory) {
            return Err(Error::new(Kind::NotRecovered, "others changed the schema while the restore in place began")
                .hint(format!("let them finish, {AGAIN}")));
        }
        journal.record(Step::InPlaceAllowed { transaction: waiting.xid })?;
        Ok((Allowed { writes: counted.total(), safety: safety.id }, waiting))
    }
}

/// Returns when the restore has waited too long for somebody's lock.
async fn blocked(ctx: &Context, live: &Live) -> Error {
    let limit = ctx.settings.timeouts.lock;
    let (pid, who) = match swap::stuck_behind(live.maintenance(), ctx.target.database(), limit).await {
        Ok(found) => found,
        Err(error) => return error,
    };
    Error::new(
        Kind::NotRecovered,
        format!("the restore in place has waited for a lock longer than {}s", limit.as_secs_f64()),
    )
    .because(format!("{who} holds it"))
    .hint(format!("let it end, or: psql -d \"$DATABASE_URL\" -c 'SELECT pg_terminate_backend({pid})'; {AGAIN}"))
}

const AGAIN: &str = "then the same command again";

/// As PostgreSQL says it in English; in another language the restore is not tried again by itself.
fn is_deadlock(error: &Error) -> bool {
    error.one_line().contains("deadlock detected")
}

/// Where something stands, or the run is not a restore's own, it stays open, and only `recover` goes on with it.
fn by_recover(run: &Run<'_>, error: Error) -> Error {
    if run.row.command == "restore" && run.in_place.state(run).is_none() {
        return error.hint_if_none(format!("mend the cause, {AGAIN}"));
    }
    match error.hint_text().map(|hint| hint.replace(AGAIN, "then: ripcord recover")) {
        Some(hint) => error.hint(hint),
        None => error.hint("ripcord recover"),
    }
}
