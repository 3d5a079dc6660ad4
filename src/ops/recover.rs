//! The ladder: bringing the database back by the gentlest rung that can be proved. A failing run climbs
//! down it at once; `ripcord recover` does the same later for a run that died.

use super::backup::{self, Taken};
use super::beside::{self, Build, Ours};
use super::check;
use super::context::{self, Context};
use super::proof::{Depth, Evidence, Proof};
use super::report::{Outcome, RunReport};
use super::run::{Intent, Run, StoreLog, Unfinished, unfinished};
use super::rungs::{self, RestoreWay};
use super::{apply, migrate};
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::Lineage;
use crate::journal::{Journal, Step};
use crate::migration::{Migration, Script, additive_run, destroys};
use crate::postgres::{databases, swap, writes};
use crate::settings::{OnFailure, Writes};

/// Brings the target back after `failure`. Never returns an error: the report says what was reached, and
/// a second failure never hides the first.
pub async fn bring_back(run: &mut Run<'_>, failure: Error) -> RunReport {
    let command = run.row.command.clone();
    run.ctx.bringing_back.store(true, std::sync::atomic::Ordering::Relaxed);
    run.ctx.progress.warn(format!("the run failed: {}", failure.one_line()));
    if let Err(error) = run.journal.record(Step::Failed { error: failure.one_line() }) {
        run.ctx.progress.warn(format!("the failure could not be written to the journal: {error}"));
    }
    match climb_down(run).await {
        Ok(reached) => {
            let mut report = RunReport::new(&command, reached.outcome, reached.database).failed(failure);
            report.proof = reached.proof.and_then(|proof| serde_json::to_value(proof).ok()).unwrap_or_default();
            report.writes_since_backup = reached.writes;
            report.hint = Some(reached.hint);
            report
        }
        Err(second) => not_recovered(run, &command, failure, second).await,
    }
}

/// Where the ladder ended.
pub(super) struct Reached {
    pub(super) outcome: Outcome,
    pub(super) database: String,
    pub(super) proof: Option<Proof>,
    pub(super) writes: Option<u64>,
    pub(super) hint: String,
}

impl Reached {
    pub(super) fn new(outcome: Outcome, database: impl Into<String>, hint: &str) -> Reached {
        Reached { outcome, database: database.into(), proof: None, writes: None, hint: hint.to_owned() }
    }
}

/// The two ways on when a restore would lose what others wrote. Both go by the run's own journal: until
/// one of them is taken, no other run begins.
const ON_WRITES: &str = "to give those writes up: ripcord recover --writes accept-loss\n      \
                         to keep them and mend forward: ripcord recover --on-failure stop, then ripcord apply";

/// The two ways on when only DOWN was allowed, and was not enough.
const ON_ROLLBACK: &str = "to restore the backup: ripcord recover --on-failure restore\n      \
                           to keep things as they are and mend forward: ripcord recover --on-failure stop";

/// One rung after the other, the gentlest first.
async fn climb_down(run: &mut Run<'_>) -> Result<Reached> {
    // The server may be gone, or only the session; nothing can be known before it answers again.
    if run.live.session.is_closed() || run.live.maintenance().is_closed() {
        reopen(run).await?;
    }
    let done = changed_by(run).await?;

    // First rung: nothing was committed, so there is nothing to bring back.
    if done.is_empty() {
        let proof = prove_nothing_changed(run).await?;
        let mut reached = Reached::new(Outcome::Unchanged, "unchanged", "mend the cause, then: ripcord apply");
        reached.proof = proof;
        return Ok(reached);
    }
    if run.on_failure == OnFailure::Stop {
        return Ok(Reached::new(
            Outcome::StoppedPartway,
            format!("PARTWAY: {} of this run applied, left as it is because `on_failure` is `stop`", done.tell()),
            "to go on: ripcord apply; to undo it: ripcord rollback",
        ));
    }

    // Second rung: the DOWN scripts of this run, in reverse, believed only when proved.
    if run.on_failure != OnFailure::Restore {
        match down_rung(run, &done).await {
            Ok(proof) => {
                let mut reached = Reached::new(
                    Outcome::RolledBack,
                    format!("as before the run: rolled back by DOWN, proved by {}", proof.kind),
                    "mend the cause, then: ripcord apply",
                );
                reached.proof = Some(proof);
                return Ok(reached);
            }
            Err(why) => run.ctx.progress.note(format!("DOWN is not enough: {}", why.one_line())),
        }
    }

    // Third rung: this run's backup.
    if run.on_failure == OnFailure::Rollback {
        return Err(Error::new(
            Kind::NotRecovered,
            "DOWN did not bring the database back, and `on_failure` is `rollback`",
        )
        .hint(ON_ROLLBACK));
    }
    restore_rung(run).await.map_err(|error| match error.hint_text() {
        Some(hint) if hint.contains(beside::GIVE_UP) => error.hint(ON_WRITES),
        _ => error,
    })
}

/// What a run committed to the target, as the target itself tells, and the journal where it cannot.
#[derive(Debug, Default)]
struct Changed {
    /// Applied and recorded, newest first.
    applied: Vec<control::MigrationRow>,
    /// Begun outside a transaction and not recorded: some of it may stand.
    partial: Option<(String, String)>,
    /// A script that ended its own transaction: what stands is not known.
    escaped: Option<String>,
}

impl Changed {
    fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.partial.is_none() && self.escaped.is_none()
    }

    fn tell(&self) -> String {
        let mut parts: Vec<String> =
            self.applied.iter().rev().map(|row| format!("`{}_{}`", row.version, row.name)).collect();
        parts.extend(self.partial.iter().map(|(version, name)| format!("`{version}_{name}` in part")));
        parts.join(", ")
    }
}

async fn changed_by(run: &Run<'_>) -> Result<Changed> {
    let rows = control::applied(run.live.session.client()).await?;
    let applied: Vec<_> = rows.into_iter().filter(|row| row.run == Some(run.id)).rev().collect();
    let mut partial = None;
    let mut escaped = None;
    for entry in run.journal.entries() {
        match &entry.step {
            Step::UpBegan { version, name, transactional: false, .. } => {
                partial = Some((version.clone(), name.clone()))
            }
            Step::UpDone { version, .. } | Step::DownDone { version, .. }
                if partial.as_ref().is_some_and(|(begun, _)| begun == version) =>
            {
                partial = None;
            }
            Step::Failed { error } if error.contains("ended the transaction that it ran in") => {
                escaped = Some(error.clone())
            }
            _ => {}
        }
    }
    // The last statement may be recorded by the row and not yet by the journal.
    if let Some((version, _)) = &partial
        && applied.iter().any(|row| row.version == *version)
    {
        partial = None;
    }
    Ok(Changed { applied, partial, escaped })
}

/// The server rolled everything of ours back. The schema is compared all the same, because a rung counts
/// when it is proved; where it differs, someone else changed it, and that is only told.
pub(super) async fn prove_nothing_changed(run: &Run<'_>) -> Result<Option<Proof>> {
    let Some(backup) = &run.backup else { return Ok(None) };
    let began = std::time::Instant::now();
    let after =
        Evidence::read(run.ctx, &run.live.tools, &run.ctx.target, &run.live.session, &backup.keys, Depth::Schema)
            .await?;
    let mut proof = Evidence::of_manifest(&backup.manifest).compare(&after, Depth::Schema);
    proof.kind = "nothing-committed".to_owned();
    proof.duration_ms = beside::millis(began.elapsed());
    if !proof.holds {
        run.ctx.progress.warn(format!(
            "nothing of this run was committed, yet the schema is not the one of before the run; someone else changed it: {}",
            proof.why_not()
        ));
    }
    Ok(Some(proof))
}

/// Runs the DOWNs and proves the result. The error says why this rung does not count.
async fn down_rung(run: &mut Run<'_>, done: &Changed) -> Result<Proof> {
    if let Some(escaped) = &done.escaped {
        return Err(Error::failed("a script ended its own transaction, so what it left is not known").because(escaped));
    }
    let ups: Vec<Migration> = with_files(run, done)?;
    let scripts: Vec<&Script> = ups.iter().map(|migration| &migration.up).collect();
    if let Some(why) = destroys(&scripts) {
        return Err(Error::failed(format!("no DOWN can bring back what the run destroyed: {why}")));
    }
    if let Some(migration) =
        ups.iter().find(|migration| migration.metadata.rollback_strategy.as_deref() == Some("restore"))
    {
        return Err(Error::failed(format!("`{}` asks for a restore instead of its DOWN", migration.file_name)));
    }
    let mut downs = Vec::new();
    for migration in &ups {
        match &migration.down {
            Some(down) if !down.is_empty() => downs.push(down.clone()),
            _ => return Err(Error::failed(format!("`{}` has no DOWN", migration.file_name))),
        }
    }
    let Some(backup) = run.backup.clone() else {
        return Err(Error::failed("without a backup there is nothing to compare with, so a DOWN cannot be proved"));
    };
    check::hook(run, "before_rollback").await?;
    for (migration, down) in ups.iter().zip(&downs) {
        let limits = migrate::limits(run, migration);
        migrate::down(run, migration.version.as_str(), &migration.name, down, &limits, "down").await?;
        run.ctx.faults.at("between_downs").await;
    }
    let down_scripts: Vec<&Script> = downs.iter().collect();
    let proof = prove_down(run, &backup, &scripts, &down_scripts).await?;
    afterwards(run, "after_rollback").await;
    Ok(proof)
}

/// A DOWN is believed when the schema is the one of before and either every row is, or, while others
/// write, nothing in UP or DOWN can have changed a value or removed a row that was there.
async fn prove_down(run: &Run<'_>, backup: &Taken, ups: &[&Script], downs: &[&Script]) -> Result<Proof> {
    let ctx = run.ctx;
    ctx.progress.began("prove", "comparing the database with the backup of before the run");
    let began = std::time::Instant::now();
    let before = Evidence::of_manifest(&backup.manifest);
    let read = |depth| Evidence::read(ctx, &run.live.tools, &ctx.target, &run.live.session, &backup.keys, depth);

    let mut proof = before.compare(&read(Depth::Schema).await?, Depth::Schema);
    let additive = additive_run(ups, downs);
    if proof.holds && additive.is_ok() {
        proof.kind = "additive".to_owned();
    } else if proof.holds {
        proof = before.compare(&read(Depth::Rows).await?, Depth::Rows);
        proof.kind = "digests".to_owned();
    }
    proof.duration_ms = beside::millis(began.elapsed());
    if proof.holds {
        ctx.progress.finished("prove", format!("the database is as before, proved by {}", proof.kind));
        return Ok(proof);
    }
    let why = additive.err().map(|statement| format!("; {statement}")).unwrap_or_default();
    Err(Error::failed(format!("DOWN ran, but the database is not as before: {}{why}", proof.why_not())))
}

/// The migrations that were changed, newest first, with the texts that were applied.
fn with_files(run: &Run<'_>, done: &Changed) -> Result<Vec<Migration>> {
    let find = |version: &str, name: &str| {
        run.migrations
            .iter()
            .find(|migration| migration.version.as_str() == version)
            .cloned()
            .ok_or_else(|| Error::failed(format!("the file of `{version}_{name}` is not there as it was applied")))
    };
    let partial = done.partial.iter().map(|(version, name)| find(version, name));
    partial.chain(done.applied.iter().map(|row| find(&row.version, &row.name))).collect()
}

/// Restores the run's backup, beside where that can be, else in place.
pub(super) async fn restore_rung(run: &mut Run<'_>) -> Result<Reached> {
    let Some(backup) = run.backup.clone() else {
        return Err(Error::new(Kind::NotRecovered, "the run has no backup to restore").hint("ripcord status"));
    };
    let rungs = rungs::judge(&run.live.findings, false, run.live.guard.in_target());
    check::hook(run, "before_restore").await?;
    let reached = match rungs.restore {
        RestoreWay::Swap => restore_beside(run, &backup).await?,
        _ => restore_in_place(run, &backup).await?,
    };
    afterwards(run, "after_restore").await;
    Ok(reached)
}

/// A hook that comes when the database is back: what it makes of that changes nothing.
async fn afterwards(run: &Run<'_>, hook: &str) {
    if let Err(error) = check::hook(run, hook).await {
        run.ctx.progress.warn(error.one_line());
    }
}

async fn restore_beside(run: &mut Run<'_>, backup: &Taken) -> Result<Reached> {
    // A first count, with others still connected: when it already says no, nothing needs to be loaded.
    let counted = beside::count(&run.live.session, &backup.manifest, &run.ours).await?;
    beside::allow(run.ctx, &counted, run.writes, backup)?;

    backup::verify(run.ctx, run.live.lineage, backup.id).await?;
    let name = databases::scratch_name();
    run.journal.record(Step::ScratchBegan { name: name.clone(), backup: backup.id })?;
    let comment = databases::scratch_comment(run.id, backup.id);
    let build = Build { backup, name: &name, comment: &comment, lineage: run.live.lineage };
    let (scratch, _) = beside::build(run.ctx, &run.live.tools, run.live.maintenance(), &build).await?;
    run.journal.record(Step::ScratchReady { name: scratch.name.clone(), oid: scratch.oid })?;
    run.ctx.faults.at("scratch_ready").await;

    let (id, policy, ours) = (run.id, run.writes, run.ours.clone());
    let swapped = match beside::swap_in(run.ctx, &run.live, &mut run.journal, id, backup, &scratch, policy, &ours).await
    {
        Ok(swapped) => swapped,
        Err(error) => {
            if let Err(left) = databases::drop_scratch(run.live.maintenance(), &scratch.name, Some(scratch.oid)).await {
                run.ctx.progress.warn(format!("the scratch database `{}` could not be removed: {left}", scratch.name));
            }
            return Err(error);
        }
    };
    // The fence was a setting of the old database; the new one was made from what was read before it.
    if let Some(previous) = run.fenced.take() {
        writes::unfence(run.live.maintenance(), &swapped.aside, previous.as_deref()).await?;
        run.journal.record(Step::FenceEnded)?;
    }
    run.live.reconnect(run.ctx).await?;
    after_restore(run, backup, Some(&swapped.aside)).await?;
    let mut reached = Reached::new(
        Outcome::Restored,
        format!("restored from backup `{}`; the failed database is kept as `{}`", backup.id, swapped.aside),
        "mend the cause, then: ripcord apply",
    );
    reached.proof = Some(scratch.proof);
    reached.writes = Some(swapped.writes.total());
    Ok(reached)
}

async fn restore_in_place(run: &mut Run<'_>, backup: &Taken) -> Result<Reached> {
    let counted = beside::count(&run.live.session, &backup.manifest, &run.ours).await?;
    beside::allow(run.ctx, &counted, run.writes, backup)?;
    backup::verify(run.ctx, run.live.lineage, backup.id).await?;
    // The database that is replaced must not be the only copy of what it holds.
    let safety = backup::Request {
        purpose: crate::manifest::Purpose::Safety,
        run: Some(run.id),
        tags: Vec::new(),
        before: Vec::new(),
        properties: None,
    };
    let safety = backup::take(run.ctx, &run.live, &safety).await?;
    run.journal.record(Step::BackupComplete { backup: safety.id, safety: true })?;
    beside::in_place(run.ctx, &mut run.live, &mut run.journal, backup).await?;
    let proof = prove_in_place(run, backup).await?;
    after_restore(run, backup, None).await?;
    let mut reached = Reached::new(
        Outcome::Restored,
        format!("restored in place from backup `{}`; what it was before is backup `{}`", backup.id, safety.id),
        "mend the cause, then: ripcord apply",
    );
    reached.proof = Some(proof);
    reached.writes = Some(counted.total());
    Ok(reached)
}

/// In place there is no second database to compare beforehand, so every row is read afterwards.
pub async fn prove_in_place(run: &Run<'_>, backup: &Taken) -> Result<Proof> {
    let after =
        Evidence::read(run.ctx, &run.live.tools, &run.ctx.target, &run.live.session, &backup.keys, Depth::Rows).await?;
    let mut proof = Evidence::of_manifest(&backup.manifest).compare(&after, Depth::Rows);
    proof.kind = "digests".to_owned();
    if proof.holds {
        return Ok(proof);
    }
    Err(Error::new(Kind::NotRecovered, "the database was restored in place, but is not what was backed up")
        .because(proof.why_not())
        .hint(format!("ripcord restore {}", beside::short(backup.id))))
}

/// The history of a restored database: the restore itself.
async fn after_restore(run: &mut Run<'_>, backup: &Taken, aside: Option<&str>) -> Result<()> {
    let client = run.live.session.client();
    let detail = serde_json::json!({ "backup": backup.id, "aside": aside });
    control::put_run(client, &run.row).await?;
    control::audit(client, Some(run.id), "restored", &detail, None).await?;
    for report in run.reports.iter_mut().filter(|report| report.status == "applied") {
        report.status = "rolled_back".to_owned();
    }
    Ok(())
}

/// Connects again, to target and maintenance database, while the server comes back.
pub(super) async fn reopen(run: &mut Run<'_>) -> Result<()> {
    run.ctx.progress.note("the connection was lost; waiting for the server");
    let mut last = None;
    // Whoever does not want to wait may stop it here: nothing has been begun.
    let mut stop = run.ctx.cancel.clone();
    for attempt in 0..30_u64 {
        match context::open(run.ctx).await {
            Ok(live) => {
                run.live = live;
                return Ok(());
            }
            Err(error) if error.kind() == Kind::Failed || error.kind() == Kind::Locked => last = Some(error),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(200 * attempt.min(10) + 200)) => {}
            Ok(_) = stop.wait_for(|stop| *stop) => break,
        }
    }
    let error = last.unwrap_or_else(context::stopped);
    Err(error
        .context("the server does not answer, so the state of the database cannot be known")
        .with_kind(Kind::NotRecovered)
        .hint("when the server is back: ripcord recover"))
}

/// The honest end: what is known of the database, and what to run.
async fn not_recovered(run: &mut Run<'_>, command: &str, first: Error, second: Error) -> RunReport {
    let done = if run.live.session.is_closed() { None } else { changed_by(run).await.ok() };
    let database = match &done {
        Some(done) if done.is_empty() => "the run's migrations are undone, but that is not proved".to_owned(),
        Some(done) => format!("CHANGED and not brought back: {} applied; the database is open", done.tell()),
        None => "UNKNOWN, do not retry".to_owned(),
    };
    let hint = second.hint_text().map_or_else(|| "ripcord recover".to_owned(), str::to_owned);
    let mut told = first;
    told = told.because(format!("bringing it back failed as well: {}", second.one_line()));
    RunReport::new(command, Outcome::NotRecovered, database).failed(told).hint(hint)
}

/// `ripcord recover`: finishes or undoes whatever unfinished runs left behind.
///
/// `writes` and `on_failure`, when given, take the place of what the dead run was told.
pub async fn recover(ctx: &Context, writes: Option<Writes>, on_failure: Option<OnFailure>) -> RunReport {
    match recover_all(ctx, writes, on_failure).await {
        Ok(report) => report,
        Err(error) => {
            let database = if error.kind() == Kind::NotRecovered { "UNKNOWN, do not retry" } else { "as it was found" };
            let outcome = Outcome::of(&error);
            RunReport { database: database.to_owned(), outcome, ..RunReport::untouched("recover", error) }
        }
    }
}

async fn recover_all(ctx: &Context, writes: Option<Writes>, on_failure: Option<OnFailure>) -> Result<RunReport> {
    // The database may be closed, or under another name in the middle of a swap: first of all it must be
    // possible to connect.
    let found = find_unfinished(ctx).await?;
    let guard =
        crate::postgres::guard::Guard::acquire(&ctx.target, &ctx.settings, ctx.settings.timeouts.wait_for_lock).await?;
    // Whoever held the lock until now may have finished.
    let found = if found.is_empty() { found } else { find_unfinished(ctx).await? };
    for run in &found {
        mend_databases(ctx, guard.maintenance(), run).await?;
    }
    guard.release().await?;
    let mut last = None;
    for run in found {
        let report = finish_or_undo(ctx, run, writes, on_failure).await?;
        let stop = report.outcome == Outcome::NotRecovered;
        last = Some(report);
        if stop {
            break;
        }
    }
    Ok(last.unwrap_or_else(|| RunReport::new("recover", Outcome::NothingToDo, "no run is unfinished")))
}

/// The unfinished runs of every lineage whose journal names this database.
pub async fn find_unfinished(ctx: &Context) -> Result<Vec<Unfinished>> {
    let store = ctx.store.clone();
    let lineages: Vec<Lineage> = context::blocking(move || store.lineages()).await?;
    let mut found = Vec::new();
    for lineage in lineages {
        let runs = unfinished(ctx, lineage).await?;
        found.extend(
            runs.into_iter()
                .filter(|run| run.opened().is_some_and(|(_, database, _, _)| database == ctx.target.database())),
        );
    }
    Ok(found)
}

/// Undoes or completes an interrupted swap, and lets people in again. What the journal says is a claim:
/// every name is checked against the catalog, by oid.
async fn mend_databases(ctx: &Context, maintenance: &crate::postgres::Session, run: &Unfinished) -> Result<()> {
    for entry in &run.entries {
        let Step::SwapBegan { target, target_oid, scratch, scratch_oid, aside } = &entry.step else { continue };
        let at_target = databases::find(maintenance, target).await?;
        match at_target {
            Some(found) if found.oid == *target_oid => {
                // Not renamed: the target is itself, perhaps closed.
                swap::allow_connections(maintenance, target, true).await?;
            }
            Some(found) if found.oid == *scratch_oid => {
                swap::allow_connections(maintenance, target, true).await?;
                ctx.progress.note(format!("the swap was complete: the old database is kept as `{aside}`"));
            }
            Some(found) => {
                return Err(Error::new(
                    Kind::NotRecovered,
                    format!(
                        "`{target}` is neither the database that run `{}` changed nor the one that it restored",
                        run.run
                    ),
                )
                .because(format!("its oid is {}, the journal names {target_oid} and {scratch_oid}", found.oid))
                .hint(format!("look at `{target}`, `{scratch}` and `{aside}` with psql before anything else")));
            }
            None => {
                return Err(Error::new(Kind::NotRecovered, format!("there is no database `{target}`"))
                    .because(format!("run `{}` was swapping it with `{scratch}`", run.run))
                    .hint(format!(
                        "look for `{aside}` and `{scratch}` with psql; rename the right one to `{target}`"
                    )));
            }
        }
    }
    Ok(())
}

/// Takes an unfinished run up again: its fence, its scratch databases, its migrations.
async fn finish_or_undo(
    ctx: &Context,
    dead: Unfinished,
    writes: Option<Writes>,
    on_failure: Option<OnFailure>,
) -> Result<RunReport> {
    let live = context::open(ctx).await?;
    let intent = dead.intent().ok_or_else(|| {
        Error::refused(format!("the journal of run `{}` does not say what it set out to do", dead.run))
    })?;
    let mut run = resume(ctx, live, &dead, &intent).await?;
    run.writes = writes.unwrap_or(run.writes);
    run.on_failure = on_failure.unwrap_or(run.on_failure);
    run.show_lock("recover").await?;
    ctx.progress.note(format!(
        "taking up run `{}`, begun by {}",
        dead.run,
        dead.opened().map_or("?", |(_, _, _, holder)| holder)
    ));
    sweep_scratch(&mut run, &dead).await?;

    let swapped = swap_was_done(&run, &dead).await?;
    if let Some(aside) = swapped {
        return Ok(finish_swapped(run, aside).await);
    }
    if dead.entries.iter().any(|entry| matches!(entry.step, Step::InPlaceBegan { .. }))
        && !dead.entries.iter().any(|entry| matches!(entry.step, Step::InPlaceDone))
    {
        return Ok(finish_in_place(run).await);
    }
    let command = run.row.command.clone();
    if command != "apply" {
        return Ok(undo_other(run, &command).await);
    }
    if all_applied(&run, &intent).await? && !dead.entries.iter().any(|entry| matches!(entry.step, Step::Failed { .. }))
    {
        return Ok(finish_applied(run).await);
    }
    let failure = Error::failed(format!("run `{}` died before it was finished", dead.run));
    let mut report = bring_back(&mut run, failure).await;
    report.command = "recover".to_owned();
    // Bringing a dead run back is what was asked for; a script tells the cases apart by the outcome.
    Ok(run.close(report).await)
}

/// A restore by hand answers the runs that were waiting for a decision: what they left goes, and their
/// journals are closed. `changed` is the database that they changed, under the name that it has now.
pub async fn settle(run: &mut Run<'_>, changed: &str) -> Result<()> {
    let ctx = run.ctx;
    for dead in unfinished(ctx, run.live.lineage).await? {
        let ours = dead.opened().is_some_and(|(_, database, _, _)| database == ctx.target.database());
        if dead.run == run.id || !ours {
            continue;
        }
        sweep_scratch(run, &dead).await?;
        let mut journal = reopen_journal(ctx, &dead)?;
        if let Some(previous) = fence_of(&dead.entries) {
            writes::unfence(run.live.maintenance(), changed, previous.as_deref()).await?;
            journal.record(Step::FenceEnded)?;
        }
        let database = format!("answered by the restore of run `{}`", run.id);
        journal.record(Step::Closed { outcome: "restored".to_owned(), database })?;
        ctx.progress.note(format!("run `{}`, which was not finished, is answered by this restore", dead.run));
    }
    Ok(())
}

fn reopen_journal(ctx: &Context, dead: &Unfinished) -> Result<Journal> {
    for key in ctx.keys()?.keys() {
        let log = StoreLog { store: ctx.store.clone(), lineage: dead.lineage, run: dead.run };
        if let Ok(resumed) = Journal::resume(Box::new(log), dead.lineage, dead.run, key.journal_key()) {
            return Ok(resumed);
        }
    }
    Err(Error::refused(format!("the journal of run `{}` cannot be continued with the keys held", dead.run)))
}

async fn resume<'a>(ctx: &'a Context, live: context::Live, dead: &Unfinished, intent: &Intent) -> Result<Run<'a>> {
    let journal = reopen_journal(ctx, dead)?;
    let folder = apply::read_folder(ctx).map(|folder| folder.migrations).unwrap_or_default();
    let mut migrations = Vec::new();
    for (version, _, checksum) in &intent.migrations {
        // Only the very text that was applied may say what undoes it.
        migrations.extend(folder.iter().find(|m| m.version.as_str() == version && m.checksum == *checksum).cloned());
    }
    let rows = control::runs(live.session.client(), 1000).await?;
    let row = rows.into_iter().find(|row| row.id == dead.run).unwrap_or_else(|| crate::control::RunRow {
        id: dead.run,
        command: dead.opened().map_or_else(|| "apply".to_owned(), |(command, ..)| command.to_owned()),
        environment: ctx.settings.environment.name.clone(),
        started_at: dead.entries.first().map_or_else(crate::clock::now, |entry| entry.at),
        finished_at: None,
        outcome: None,
        exit_code: None,
        database_state: None,
        error: None,
        backup: None,
        batch: intent.batch,
        holder: ctx.identity.holder(),
        tool_version: context::TOOL_VERSION.to_owned(),
    });
    let backup = match dead.entries.iter().find_map(|entry| match entry.step {
        Step::BackupComplete { backup, safety: false } => Some(backup),
        _ => None,
    }) {
        Some(id) => {
            let (manifest, keys) = backup::open_manifest(ctx, dead.lineage, id).await?;
            let location = ctx.store.backup_location(dead.lineage, id);
            Some(Taken {
                id,
                manifest: std::sync::Arc::new(manifest),
                keys,
                location,
                duration: std::time::Duration::ZERO,
            })
        }
        None => None,
    };
    Ok(Run {
        ctx,
        live,
        id: dead.run,
        journal,
        row,
        backup,
        reports: migrations.iter().map(super::run::pending_report).collect(),
        migrations,
        on_failure: intent.on_failure,
        writes: intent.writes,
        fenced: fence_of(&dead.entries),
        ours: ours_of(&dead.entries),
        approver: None,
        unrecorded: None,
    })
}

/// Whether the dead run's fence is still up, and what it replaced.
fn fence_of(entries: &[crate::journal::Entry]) -> Option<Option<String>> {
    entries.iter().fold(None, |up, entry| match &entry.step {
        Step::FenceBegan { previous } => Some(previous.clone()),
        Step::FenceEnded => None,
        _ => up,
    })
}

/// What the dead run wrote itself, as it wrote it down before each step.
fn ours_of(entries: &[crate::journal::Entry]) -> Ours {
    let mut ours = Ours { touched: Some(Vec::new()), ..Ours::default() };
    for entry in entries {
        match &entry.step {
            Step::UpBegan { xid, .. } | Step::StatementDone { xid, .. } => ours.xids.extend(xid),
            Step::OwnTransaction { xid } => ours.xids.push(*xid),
            Step::Counted { table, rows } => {
                ours.counted_before.insert(table.clone(), *rows);
            }
            Step::UpDone { touched, .. } => match (&mut ours.touched, touched) {
                (Some(all), Some(more)) => all.extend(more.iter().cloned()),
                (all, _) => *all = None,
            },
            _ => {}
        }
    }
    // An UP that was committed without its `UpDone` touched tables that nobody wrote down.
    let begun = entries.iter().filter(|entry| matches!(entry.step, Step::UpBegan { .. })).count();
    let done = entries.iter().filter(|entry| matches!(entry.step, Step::UpDone { .. })).count();
    if begun != done {
        ours.touched = None;
    }
    ours
}

/// Drops scratch databases that the dead run left, but for one that a swap has put in the target's place.
async fn sweep_scratch(run: &mut Run<'_>, dead: &Unfinished) -> Result<()> {
    for entry in &dead.entries {
        if let Step::ScratchBegan { name, .. } = &entry.step
            && databases::find(run.live.maintenance(), name).await?.is_some()
        {
            databases::drop_scratch(run.live.maintenance(), name, None).await?;
            run.ctx.progress.note(format!("removed the scratch database `{name}` that the dead run left"));
        }
    }
    Ok(())
}

/// The name under which the old database is kept, when the dead run had renamed both.
async fn swap_was_done(run: &Run<'_>, dead: &Unfinished) -> Result<Option<String>> {
    for entry in &dead.entries {
        if let Step::SwapBegan { target, scratch_oid, aside, .. } = &entry.step
            && databases::find(run.live.maintenance(), target).await?.is_some_and(|found| found.oid == *scratch_oid)
        {
            return Ok(Some(aside.clone()));
        }
    }
    Ok(None)
}

async fn finish_swapped(mut run: Run<'_>, aside: String) -> RunReport {
    if let Some(previous) = run.fenced.take() {
        let ended = async {
            writes::unfence(run.live.maintenance(), &aside, previous.as_deref()).await?;
            run.journal.record(Step::FenceEnded)
        };
        if let Err(error) = ended.await {
            run.ctx.progress.warn(format!("the fence of `{aside}` could not be taken away: {error}"));
        }
    }
    let report =
        RunReport::new("recover", Outcome::Restored, format!("restored; the old database is kept as `{aside}`"))
            .hint("ripcord status");
    run.close(report).await
}

/// `pg_restore -1` is one transaction: either all of it is there or nothing.
async fn finish_in_place(mut run: Run<'_>) -> RunReport {
    let Some(backup) = run.backup.clone() else {
        let error =
            Error::new(Kind::NotRecovered, "the run was restoring in place a backup that its journal does not hold");
        let report = RunReport::new("recover", Outcome::NotRecovered, "UNKNOWN, do not retry")
            .failed(error)
            .hint("ripcord restore latest");
        return run.close(report).await;
    };
    let result = async {
        beside::in_place(run.ctx, &mut run.live, &mut run.journal, &backup).await?;
        prove_in_place(&run, &backup).await
    };
    let report = match result.await {
        Ok(_) => RunReport::new("recover", Outcome::Restored, format!("restored in place from backup `{}`", backup.id))
            .hint("ripcord status"),
        Err(error) => RunReport::new("recover", Outcome::NotRecovered, "PARTLY restored in place")
            .failed(error)
            .hint(format!("ripcord restore {}", beside::short(backup.id))),
    };
    run.close(report).await
}

/// A restore or a rollback that died before it replaced anything: the target stands as it was.
async fn undo_other(run: Run<'_>, command: &str) -> RunReport {
    let undone = run.journal.entries().iter().filter(|entry| matches!(entry.step, Step::DownDone { .. })).count();
    let database = if undone > 0 {
        format!("open; {undone} migrations were rolled back before the run died")
    } else {
        "unchanged".to_owned()
    };
    let report = RunReport::new("recover", Outcome::Done, database).hint(format!("to do it again: ripcord {command}"));
    run.close(report).await
}

async fn all_applied(run: &Run<'_>, intent: &Intent) -> Result<bool> {
    let rows = control::applied(run.live.session.client()).await?;
    let has = |version: &String| rows.iter().any(|row| row.run == Some(run.id) && row.version == *version);
    Ok(!intent.migrations.is_empty() && intent.migrations.iter().all(|(version, ..)| has(version)))
}

/// Every migration was applied; what is left is to look whether all is well.
async fn finish_applied(mut run: Run<'_>) -> RunReport {
    let checked = async {
        check::verify(&run, &[]).await?;
        check::healthy_after(&run).await
    };
    match checked.await {
        Ok(()) => {
            let report =
                RunReport::new("recover", Outcome::Done, "changed as planned: every migration of the run is applied")
                    .hint("ripcord status");
            run.close(report).await
        }
        Err(error) => {
            let mut report = bring_back(&mut run, error).await;
            report.command = "recover".to_owned();
            run.close(report).await
        }
    }
}
