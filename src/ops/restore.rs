//! `restore`: a backup → the target, or a database of another name.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::backup::{self, Taken};
use super::beside::{self, Build, Phases};
use super::catalog;
use super::context::{self, Context, Live, blocking};
use super::losses::{self, Ours};
use super::report::{Outcome, RunReport};
use super::run::{Intent, Run};
use super::rungs::{self, RestoreWay};
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::{BackupId, Lineage};
use crate::journal::Step;
use crate::manifest::{self, Manifest};
use crate::postgres::writes::Counted;
use crate::postgres::{Session, databases, guard, swap};
use crate::settings::{OnFailure, Writes};

/// How the target is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Beside when that can be, else in place.
    Auto,
    /// Beside or not at all.
    Swap,
    /// In place.
    InPlace,
}

/// What to restore, and where to.
#[derive(Clone, Debug)]
pub struct Request {
    /// `latest`, or the beginning of an id.
    pub selector: String,
    /// The newest backup from before this run (id) or migration (version or name), instead.
    pub before: Option<String>,
    /// Whose backups: the database's name when they were made.
    pub from_database: Option<String>,
    /// A new database of this name; `None`: the target is replaced.
    pub into: Option<String>,
    /// How.
    pub mode: Mode,
    /// What holds for writes after the backup, once a person has confirmed.
    pub writes: Writes,
}

/// What a restore would do: shown before anything is asked, and executed afterwards.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// The backup.
    pub backup: BackupId,
    /// Whose.
    pub lineage: Lineage,
    /// When its snapshot was taken.
    pub created_at: crate::clock::Time,
    /// Its age.
    pub age_seconds: i64,
    /// Why it was made.
    pub purpose: String,
    /// The migrations that it was taken before.
    pub taken_before: Vec<String>,
    /// Applied migrations of the target that are not in the backup.
    pub migrations_going: Vec<String>,
    /// Rows that others wrote since, where they could be counted.
    pub writes: Option<Counted>,
    /// The database that it goes to.
    pub into: String,
    /// Whether that database is there now.
    pub replaces: bool,
    /// How.
    pub way: RestoreWay,
    /// Rows in the backup.
    pub rows: u64,
    /// Bytes in the backup.
    pub raw_bytes: u64,
    #[serde(skip)]
    manifest: Arc<Manifest>,
    #[serde(skip)]
    keys: Keys,
}

/// Subkeys, without a way to print them.
#[derive(Clone)]
struct Keys(crate::keys::SubKeys);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Planned {
    fn taken(&self, ctx: &Context) -> Taken {
        Taken {
            id: self.backup,
            manifest: self.manifest.clone(),
            keys: self.keys.0.clone(),
            location: ctx.store.backup_location(self.lineage, self.backup),
            duration: Duration::ZERO,
        }
    }

    /// What a person must know before saying yes, one line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!(
                "backup `{}`, {} ({} old), {}",
                self.backup,
                self.created_at.format("%Y-%m-%d %H:%M:%S UTC"),
                age(self.age_seconds),
                self.purpose
            ),
            format!("holds {} rows, {}", self.rows, backup::bytes(self.raw_bytes)),
        ];
        if !self.taken_before.is_empty() {
            lines.push(format!("was taken before {}", self.taken_before.join(", ")));
        }
        let verb = match (self.replaces, self.way) {
            (false, _) => "becomes the new database",
            (true, RestoreWay::Swap) => "takes the place of database",
            (true, _) => "is loaded over database",
        };
        lines.push(format!("{verb} `{}`", self.into));
        if self.replaces {
            match self.migrations_going.as_slice() {
                [] => lines.push("no applied migration goes".to_owned()),
                going => lines.push(format!("migrations that go: {}", going.join(", "))),
            }
            match &self.writes {
                Some(counted) if counted.total() == 0 && counted.unknowable.is_empty() => {
                    lines.push("no row was written or deleted since the backup".to_owned())
                }
                Some(counted) => lines.push(format!("changed since the backup: {}", losses::describe(counted))),
                None => lines.push("changes since the backup: not known".to_owned()),
            }
        }
        lines
    }
}

/// An age for people.
pub(super) fn age(seconds: i64) -> String {
    match seconds {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86400),
    }
}

/// Finds the backup, opens its manifest, and finds out what a restore would do. Writes nothing.
pub async fn plan(ctx: &Context, request: &Request) -> Result<Planned> {
    let (session, lineage, id) = find_backup(ctx, request).await?;
    let (manifest, keys) = backup::open_manifest(ctx, lineage, id).await?;
    let mut planned = Planned {
        backup: id,
        lineage,
        created_at: manifest.sealed.created_at,
        age_seconds: (crate::clock::now() - manifest.sealed.created_at).num_seconds(),
        purpose: manifest.clear.purpose.as_str().to_owned(),
        taken_before: manifest.sealed.before.clone(),
        migrations_going: Vec::new(),
        writes: None,
        into: request.into.clone().unwrap_or_else(|| ctx.target.database().to_owned()),
        replaces: request.into.is_none() && session.is_some(),
        way: RestoreWay::Swap,
        rows: beside::total_rows(&manifest),
        raw_bytes: manifest.clear.raw_bytes,
        manifest: Arc::new(manifest),
        keys: Keys(keys),
    };
    if let Some(session) = session.filter(|_| planned.replaces) {
        compare_with_target(ctx, &session, &mut planned, request).await?;
    }
    Ok(planned)
}

/// The backup that is meant, and a session in the target when there is such a database.
pub(super) async fn find_backup(ctx: &Context, request: &Request) -> Result<(Option<Session>, Lineage, BackupId)> {
    let session = existing(ctx).await?;
    let lineage = find_lineage(ctx, session.as_ref(), request.from_database.as_deref()).await?;
    let id = match &request.before {
        Some(what) => before(ctx, lineage, what).await?,
        None => catalog::resolve(ctx, lineage, &request.selector).await?,
    };
    if let Some(session) = &session
        && request.selector == "latest"
        && let Ok(control::State::Present { .. }) = control::inspect(session.client()).await
    {
        catalog::warn_of_missing(ctx, lineage, id, &control::backups(session.client()).await?).await?;
    }
    Ok((session, lineage, id))
}

/// A restore writes nothing itself before it counts, so rows that are gone were deleted by others.
fn others_only() -> Ours {
    Ours { touched: Some(Vec::new()), ..Ours::default() }
}

/// A session in the target, when there is such a database.
async fn existing(ctx: &Context) -> Result<Option<Session>> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    match databases::find(&maintenance, ctx.target.database()).await? {
        None => Ok(None),
        Some(found) if !found.allows_connections => Err(Error::failed(format!("database `{}` is closed", found.name))
            .because("a run was stopped while it was replacing it")
            .hint("ripcord recover")),
        Some(_) => Ok(Some(ctx.connect("restore").await?)),
    }
}

async fn compare_with_target(ctx: &Context, session: &Session, planned: &mut Planned, request: &Request) -> Result<()> {
    rungs::same_set(ctx, &planned.manifest)?;
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    let findings = crate::postgres::preflight::look(&ctx.target, session, &maintenance).await?;
    let rungs = rungs::judge(&findings, false, false, ctx.would_stay_behind());
    planned.way = match request.mode {
        Mode::Auto => rungs.restore,
        Mode::InPlace => RestoreWay::InPlace,
        Mode::Swap if rungs.restore == RestoreWay::Swap => RestoreWay::Swap,
        Mode::Swap => {
            return Err(Error::failed("a restore beside with a swap is not available")
                .because(rungs.why_not_swap.join("; "))
                .hint("mend that, or: ripcord restore --mode in-place"));
        }
    };
    // A broken control schema must not stand in the way of the restore that mends it.
    if let Ok(control::State::Present { .. }) = control::inspect(session.client()).await {
        let kept: Vec<&str> = planned.manifest.sealed.applied.iter().map(|row| row.version.as_str()).collect();
        planned.migrations_going = control::applied(session.client())
            .await?
            .into_iter()
            .filter(|row| !kept.contains(&row.version.as_str()))
            .map(|row| crate::migration::label(&row.version, &row.name))
            .collect();
    }
    planned.writes = losses::count(session, &planned.manifest, &planned.keys.0, &others_only()).await.ok();
    Ok(())
}

/// Whose backups are meant: those of the target's own lineage; on a new server, those made of a database
/// of this name (or of the name given).
pub async fn find_lineage(ctx: &Context, session: Option<&Session>, from_database: Option<&str>) -> Result<Lineage> {
    if from_database.is_none()
        && let Some(session) = session
        && let Ok(control::State::Present { lineage, .. }) = control::inspect(session.client()).await
    {
        return Ok(lineage);
    }
    let name = from_database.unwrap_or_else(|| ctx.target.database()).to_owned();
    let store = ctx.store.clone();
    let known = blocking(move || {
        let mut known = Vec::new();
        for lineage in store.lineages()? {
            let mut newest: Option<manifest::Clear> = None;
            for id in store.backups(lineage)? {
                if let Ok(manifest) = store.manifest(lineage, id).and_then(|bytes| manifest::decode_clear(&bytes))
                    && newest.as_ref().is_none_or(|newest| newest.created_at < manifest.clear.created_at)
                {
                    newest = Some(manifest.clear);
                }
            }
            known.extend(newest.map(|clear| (lineage, clear.database, clear.created_at)));
        }
        Ok(known)
    })
    .await?;
    let mut matching: Vec<_> = known.iter().filter(|(_, database, _)| *database == name).collect();
    matching.sort_by_key(|(_, _, created_at)| *created_at);
    match matching.as_slice() {
        [(lineage, ..)] => Ok(*lineage),
        [] => {
            let names: Vec<String> = known.iter().map(|(_, database, _)| format!("`{database}`")).collect();
            let mut error =
                Error::failed(format!("the store {} has no backup of a database `{name}`", ctx.store.location()));
            if !names.is_empty() {
                error = error.because(format!("it has backups of {}", names.join(", ")));
            }
            let name = match names.as_slice() {
                [_] => known.first().map_or("NAME", |(_, database, _)| database),
                _ => "NAME",
            };
            Err(error
                .hint(format!("name the database that was backed up: ripcord restore latest --from-database {name}")))
        }
        many => {
            let mut error =
                Error::failed(format!("the store has backups of {} databases that were called `{name}`", many.len()));
            for (lineage, _, created_at) in many {
                error = error
                    .because(format!("lineage `{lineage}`, newest of {}", created_at.format("%Y-%m-%d %H:%M UTC")));
            }
            Err(error.hint("point `--store` at a store of one of them"))
        }
    }
}

/// The newest backup that was taken before a run or a migration.
async fn before(ctx: &Context, lineage: Lineage, what: &str) -> Result<BackupId> {
    let what = what.strip_suffix(".sql").unwrap_or(what);
    let items = catalog::list(ctx, lineage, &[], &std::collections::BTreeMap::new()).await?;
    for item in items.iter().filter(|item| item.status == "verified") {
        let (manifest, _) = backup::open_manifest(ctx, lineage, item.id).await?;
        let of_run = manifest.sealed.run.is_some_and(|run| run.to_string().starts_with(what))
            && manifest.sealed.before.iter().any(|_| true);
        let of_migration = manifest.sealed.before.iter().any(|label| {
            label == what || label.split_once('_').is_some_and(|(version, name)| version == what || name == what)
        });
        if of_run || of_migration {
            return Ok(item.id);
        }
    }
    Err(Error::failed(format!("no verified backup was taken before `{what}`")).hint("ripcord backup list"))
}

/// Restores what was planned. The report says how it ended.
pub async fn execute(ctx: &Context, request: &Request, planned: Planned) -> RunReport {
    let backup = planned.taken(ctx);
    let result = match (&request.into, planned.replaces) {
        (Some(name), _) => beside_target(ctx, &backup, name, None).await,
        (None, false) => beside_target(ctx, &backup, &planned.into, Some(planned.lineage)).await,
        (None, true) => return replace(ctx, request, &planned, backup).await,
    };
    match result {
        Ok((name, proof, phases)) => {
            let mut report =
                RunReport::new("restore", Outcome::Done, format!("`{name}` restored from backup `{}`", backup.id));
            report.backup_id = Some(backup.id);
            report.proof = serde_json::json!({ "proof": proof, "phases": phases });
            report
        }
        Err(error) => RunReport { backup_id: Some(backup.id), ..RunReport::untouched("restore", error) },
    }
}

/// A new database of that name. A copy beside the original becomes a database of its own; on a new server
/// it goes on being the same.
async fn beside_target(
    ctx: &Context,
    backup: &Taken,
    name: &str,
    lineage: Option<Lineage>,
) -> Result<(String, super::proof::Proof, Phases)> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    if databases::find(&maintenance, name).await?.is_some() {
        return Err(
            Error::failed(format!("there is a database `{name}` already")).hint("give another name after `--into`")
        );
    }
    let tools = ctx.tools(&maintenance)?;
    backup::authenticate(ctx, backup).await?;
    let scratch = databases::scratch_name();
    let lineage = lineage.unwrap_or_default();
    let comment = databases::scratch_comment(crate::ids::RunId::new(), backup.id);
    let build = Build { backup, name: &scratch, comment: &comment, lineage };
    let (built, phases) = beside::build(ctx, &tools, &maintenance, &build).await?;
    let finished = async {
        beside::import_history(ctx, &scratch, backup, &backup.manifest.sealed.control_rows).await?;
        for warning in databases::apply_properties(&maintenance, &scratch, &backup.manifest.sealed.properties).await? {
            ctx.progress.warn(warning);
        }
        swap::give_name(&maintenance, &scratch, name).await
    };
    if let Err(error) = finished.await {
        let _ = databases::drop_scratch(&maintenance, &scratch, Some(built.oid)).await;
        return Err(error);
    }
    Ok((name.to_owned(), built.proof, phases))
}

/// The target is replaced: lock, journal, then beside with a swap, or in place after a safety backup.
async fn replace(ctx: &Context, request: &Request, planned: &Planned, backup: Taken) -> RunReport {
    let mut run = match begin(ctx, request, planned).await {
        Ok(run) => run,
        Err(error) => return RunReport { backup_id: Some(backup.id), ..RunReport::untouched("restore", error) },
    };
    run.backup = Some(backup.clone());
    let result = match planned.way {
        RestoreWay::Swap => by_swap(&mut run, &backup, request.writes).await,
        _ => in_place(&mut run, &backup).await,
    };
    let mut report = match result {
        Ok((mut report, changed)) => {
            if let Err(error) = super::resume::settle(&mut run, &changed).await {
                ctx.progress.warn(format!("a run that was not finished is still open: {}", error.one_line()));
                report.hint = Some("ripcord recover".to_owned());
            }
            report
        }
        Err(error) => failed(&run, error),
    };
    report.backup_id = Some(backup.id);
    run.close(report).await
}

/// How it ended, and the state of the database: a restore in place may have done a part of it.
fn failed(run: &Run<'_>, error: Error) -> RunReport {
    if let Some(state) = run.in_place.state(run) {
        let error = error.hint_if_none("ripcord recover");
        return RunReport::new("restore", Outcome::NotRecovered, state).failed(error);
    }
    if let Some(state) = swapped(run, &error) {
        return RunReport::new("restore", Outcome::NotRecovered, state).failed(error.hint("ripcord recover"));
    }
    let outcome = match error.kind() {
        Kind::NotRecovered => Outcome::Refused,
        _ => Outcome::of(&error),
    };
    RunReport::new("restore", outcome, "unchanged").failed(error)
}

/// The state of the database when a swap may have changed it; `None`: it did not, or it was taken back.
fn swapped(run: &Run<'_>, error: &Error) -> Option<String> {
    let lost = error.connection_lost() || run.live.maintenance().is_closed();
    let last = run.journal.entries().iter().rev().find_map(|entry| match &entry.step {
        Step::SwapDone => Some(true),
        Step::SwapBegan { .. } => Some(false),
        _ => None,
    });
    match (last, &run.backup) {
        (Some(true), Some(backup)) => {
            Some(format!("restored from backup `{}`, but that is not recorded yet", backup.id))
        }
        _ if lost && (last.is_some() || error.kind() == Kind::NotRecovered) => Some("UNKNOWN, do not retry".to_owned()),
        _ => None,
    }
}

async fn begin<'a>(ctx: &'a Context, request: &Request, planned: &Planned) -> Result<Run<'a>> {
    let live = context::open_as(ctx, Some(planned.lineage)).await?;
    let intent = Intent {
        on_failure: OnFailure::Restore,
        writes: request.writes,
        migrations: Vec::new(),
        backup: Some(planned.backup),
        batch: None,
    };
    let run = Run::begin(ctx, live, "restore", &intent, Vec::new()).await?;
    let detail = serde_json::json!({ "backup": planned.backup, "migrations_going": planned.migrations_going, "writes": planned.writes });
    control::audit(run.live.session.client(), Some(run.id), "restore began", &detail, None).await?;
    Ok(run)
}

/// The report, and the name that the replaced database has now.
async fn by_swap(run: &mut Run<'_>, backup: &Taken, policy: Writes) -> Result<(RunReport, String)> {
    let ctx = run.ctx;
    if policy != Writes::AcceptLoss {
        // With others still connected: when this says no already, nobody has to be sent away.
        let counted = losses::count(&run.live.session, &backup.manifest, &backup.keys, &others_only()).await?;
        losses::allow(ctx, &counted, policy, backup)?;
    }
    backup::authenticate(ctx, backup).await?;
    let name = databases::scratch_name();
    run.journal.record(Step::ScratchBegan { name: name.clone(), backup: backup.id })?;
    let comment = databases::scratch_comment(run.id, backup.id);
    let build = Build { backup, name: &name, comment: &comment, lineage: run.live.lineage };
    let (scratch, mut phases) = beside::build(ctx, &run.live.tools, run.live.maintenance(), &build).await?;
    run.journal.record(Step::ScratchReady { name: scratch.name.clone(), oid: scratch.oid })?;
    ctx.faults.at("scratch_ready").await;
    let (id, ours) = (run.id, others_only());
    let swapped = match beside::swap_in(ctx, &run.live, &mut run.journal, id, backup, &scratch, policy, &ours).await {
        Ok(swapped) => swapped,
        Err(error) => {
            let Live { guard, .. } = &run.live;
            if let Err(left) = databases::drop_scratch(guard.maintenance(), &scratch.name, Some(scratch.oid)).await {
                ctx.progress.warn(format!("the scratch database `{}` could not be removed: {left}", scratch.name));
            }
            return Err(error);
        }
    };
    phases.closed_ms = beside::millis(swapped.closed);
    if run.live.reconnect(ctx).await.is_err() {
        super::recover::reopen(run).await?;
    }
    control::audit(
        run.live.session.client(),
        Some(run.id),
        "restored",
        &serde_json::json!({ "backup": backup.id, "aside": swapped.aside, "writes": swapped.writes }),
        None,
    )
    .await?;
    let mut report = RunReport::new(
        "restore",
        Outcome::Done,
        format!("restored from backup `{}`; the database of before is kept as `{}`", backup.id, swapped.aside),
    )
    .hint(format!(
        "when all is well, and the old one is not needed any more: ripcord aside drop {}{}",
        swapped.aside,
        losses::salvage_hint(&swapped.writes, &swapped.aside).unwrap_or_default()
    ));
    report.proof = serde_json::json!({ "proof": scratch.proof, "phases": phases });
    report.writes_since_backup = Some(swapped.writes.total());
    Ok((report, swapped.aside))
}

/// The report, and the name of the database.
async fn in_place(run: &mut Run<'_>, backup: &Taken) -> Result<(RunReport, String)> {
    let replaced = super::in_place::replace(run, backup).await?;
    let mut report = RunReport::new(
        "restore",
        Outcome::Done,
        format!("restored in place from backup `{}`; what it was before is backup `{}`", backup.id, replaced.safety),
    );
    report.proof = serde_json::to_value(replaced.proof).unwrap_or_default();
    report.writes_since_backup = Some(replaced.writes);
    Ok((report, run.ctx.target.database().to_owned()))
}
