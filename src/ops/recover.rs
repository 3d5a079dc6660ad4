//! The ladder: bringing the database back by the gentlest rung that can be proved. A failing run climbs
//! down it at once; `ripcord recover` ([`super::resume`]) does the same later for a run that died.

use super::backup::{self, Taken};
use super::beside::{self, Build};
use super::changed::{Changed, changed_by};
use super::context;
use super::hooks;
use super::losses;
use super::proof::{self, Depth, Evidence, Proof, differing_properties};
use super::report::{Outcome, RunReport};
use super::run::Run;
use super::rungs::{self, RestoreWay};
use super::{migrate, resume, source};
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::journal::Step;
use crate::migration::{Migration, Script, destroys, label};
use crate::postgres::{databases, load};
use crate::settings::OnFailure;

/// Brings the target back after `failure`. Never returns an error: the report says what was reached, and
/// a second failure never hides the first.
pub async fn bring_back(run: &mut Run<'_>, failure: Error) -> RunReport {
    let failure = run.ctx.without_secrets(failure);
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
            // What helps against the failure itself comes first, where that is known.
            report.hint = Some(match report.hint.take() {
                Some(cure) if reached.hint == again(run) => format!("{cure}; then: ripcord {command}"),
                _ => reached.hint,
            });
            report.hint = report.hint.map(|hint| hint + &reached.salvage.unwrap_or_default());
            report
        }
        Err(second) => not_recovered(run, &command, failure, second).await,
    }
}

/// Where the ladder ended.
struct Reached {
    outcome: Outcome,
    database: String,
    proof: Option<Proof>,
    writes: Option<u64>,
    hint: String,
    /// What gets back the writes that a restore gave up.
    salvage: Option<String>,
}

impl Reached {
    fn new(outcome: Outcome, database: impl Into<String>, hint: &str) -> Reached {
        Reached { outcome, database: database.into(), proof: None, writes: None, hint: hint.to_owned(), salvage: None }
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
    settle_last_statement(run).await?;
    let done = changed_by(run).await?;

    // First rung: nothing was committed, so there is nothing to bring back.
    if done.is_empty() {
        let proof = prove_nothing_changed(run).await?;
        let mut reached = Reached::new(Outcome::Unchanged, "unchanged", &again(run));
        reached.proof = proof;
        return Ok(reached);
    }
    if run.on_failure == OnFailure::Stop {
        return Ok(Reached::new(
            Outcome::StoppedPartway,
            format!("PARTWAY: {}; left as it is because `on_failure` is `stop`", done.tell(" of this run")),
            "to go on: ripcord apply; to undo it: ripcord rollback",
        ));
    }
    // What undoes a DOWN is the safety backup that was taken before it, and nothing else.
    if !done.undone.is_empty() {
        return restore_rung(run).await;
    }

    // Second rung: the DOWN scripts of this run, in reverse, believed only when proved.
    if run.on_failure != OnFailure::Restore {
        match down_rung(run, &done).await {
            Ok(proof) => {
                let mut reached = Reached::new(
                    Outcome::RolledBack,
                    format!("as before the run: rolled back by DOWN, proved by {}", proof.kind),
                    &again(run),
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
    restore_rung(run).await
}

/// What stands of the statement at which a migration outside a transaction stopped. Its invalid index goes when that
/// leaves nothing of the run, or when the run is to go on there; a DOWN would look for it.
async fn settle_last_statement(run: &mut Run<'_>) -> Result<()> {
    let is_first = !changed_by(run).await?.stands_in_part();
    let tidy = is_first || run.on_failure == OnFailure::Stop;
    if let Err(error) = migrate::settle_statement(run, tidy).await {
        if error.connection_lost() {
            return Err(error);
        }
        run.ctx.progress.warn(error.one_line());
    }
    Ok(())
}

/// What to do when the database is back, and nothing better is known.
fn again(run: &Run<'_>) -> String {
    match run.row.command.as_str() {
        "rollback" => "mend the DOWN, then: ripcord rollback".to_owned(),
        command => format!("mend the cause, then: ripcord {command}"),
    }
}

/// The server rolled everything of ours back. The schema is compared all the same, because a rung counts
/// when it is proved; where it differs, someone else changed it, and that is only told.
async fn prove_nothing_changed(run: &Run<'_>) -> Result<Option<Proof>> {
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
    // Those whose DOWN an earlier try has committed are proved together with the rest.
    let before: Vec<Migration> = done
        .downs_begun
        .iter()
        .filter_map(|version| {
            let is = |migration: &&Migration| migration.version.as_str() == version;
            run.migrations.iter().find(is).filter(|_| !ups.iter().any(|up| is(&up))).cloned()
        })
        .collect();
    let scripts: Vec<&Script> = before.iter().chain(&ups).map(|migration| &migration.up).collect();
    if let Some(why) = destroys(&scripts) {
        return Err(Error::failed(format!("no DOWN can bring back what the run destroyed: {why}")));
    }
    if let Some(migration) = ups.iter().find(|migration| run.resumptions.contains_key(migration.version.as_str())) {
        return Err(Error::failed(format!(
            "an earlier run did the first statements of `{}`, and its DOWN would undo those too",
            migration.file_name
        )));
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
    if !ups.is_empty() {
        hooks::run(run, "before_rollback").await?;
    }
    for (migration, down) in ups.iter().zip(&downs) {
        let limits = migrate::limits(run.ctx, migration);
        migrate::down(run, migration.version.as_str(), &migration.name, down, &limits, "down").await?;
        run.ctx.faults.at("between_downs").await;
    }
    let down_scripts: Vec<&Script> = before.iter().filter_map(|one| one.down.as_ref()).chain(&downs).collect();
    let additive = if !done.hooks.is_empty() {
        // What a hook changed is no DOWN's to undo, and the rows must tell.
        Err("a hook's SQL changed something".to_owned())
    } else if let Some(version) =
        done.downs_begun.iter().find(|version| !run.migrations.iter().any(|one| one.version.as_str() == **version))
    {
        Err(format!("the file of `{version}` is not there as it was applied"))
    } else {
        proof::only_adds(&run.live.session, &scripts, &down_scripts).await?
    };
    let proof = prove_down(run, &backup, additive).await?;
    afterwards(run, "after_rollback").await;
    Ok(proof)
}

/// A DOWN is believed when the schema is the one of before and either every row is, or, while others
/// write, nothing in UP or DOWN can have changed a value or removed a row that was there.
async fn prove_down(run: &Run<'_>, backup: &Taken, additive: Result<(), String>) -> Result<Proof> {
    let ctx = run.ctx;
    ctx.progress.began("prove", "comparing the database with the backup of before the run");
    let began = std::time::Instant::now();
    let before = Evidence::of_manifest(&backup.manifest);
    let read = |depth| Evidence::read(ctx, &run.live.tools, &ctx.target, &run.live.session, &backup.keys, depth);

    let mut proof = before.compare(&read(Depth::Schema).await?, Depth::Schema);
    // A dump does not tell what holds for the database as a whole.
    let properties = databases::read_properties(run.live.maintenance(), ctx.target.database()).await?;
    proof.differs_in(differing_properties(&backup.manifest.sealed.properties, &properties, run.fenced.is_some()));
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
        run.migrations.iter().find(|migration| migration.version.as_str() == version).cloned().ok_or_else(|| {
            Error::failed(format!("the file of `{}` is not there as it was applied", label(version, name)))
        })
    };
    let partial = done.partial.iter().map(|(version, name)| find(version, name));
    partial.chain(done.applied.iter().map(|row| find(&row.version, &row.name))).collect()
}

/// Restores the run's backup, beside where that can be, else in place.
async fn restore_rung(run: &mut Run<'_>) -> Result<Reached> {
    let Some(backup) = run.backup.clone() else {
        return Err(Error::new(Kind::NotRecovered, "the run has no backup to restore").hint("ripcord status"));
    };
    rungs::same_set(run.ctx, &backup.manifest)?;
    let rungs = rungs::judge(&run.live.findings, false, run.live.guard.in_target(), run.ctx.would_stay_behind());
    hooks::run(run, "before_restore").await?;
    let reached = match rungs.restore {
        RestoreWay::Swap => restore_beside(run, &backup).await,
        _ => restore_in_place(run, &backup).await,
    }
    .map_err(ask_about_writes)?;
    afterwards(run, "after_restore").await;
    Ok(reached)
}

/// A hook that comes when the database is back: what it makes of that changes nothing.
async fn afterwards(run: &mut Run<'_>, hook: &str) {
    if let Err(error) = hooks::run(run, hook).await {
        run.ctx.progress.warn(error.one_line());
    }
}

async fn restore_beside(run: &mut Run<'_>, backup: &Taken) -> Result<Reached> {
    // A first count, with others still connected: when it already says no, nothing needs to be loaded.
    let counted = losses::count(&run.live.session, &backup.manifest, &backup.keys, &run.ours).await?;
    losses::allow(run.ctx, &counted, run.writes, backup).map_err(ask_about_writes)?;

    backup::authenticate(run.ctx, backup).await?;
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
        resume::unfence(run.ctx, run.live.maintenance(), &swapped.aside, previous.as_deref()).await?;
        run.journal.record(Step::FenceEnded)?;
    }
    run.live.reconnect(run.ctx).await?;
    after_restore(run, backup, Some(&swapped.aside)).await?;
    let mut reached = Reached::new(
        Outcome::Restored,
        format!("restored from backup `{}`; the failed database is kept as `{}`", backup.id, swapped.aside),
        &again(run),
    );
    reached.proof = Some(scratch.proof);
    reached.writes = Some(swapped.writes.total());
    reached.salvage = losses::salvage_hint(&swapped.writes, &swapped.aside);
    Ok(reached)
}

async fn restore_in_place(run: &mut Run<'_>, backup: &Taken) -> Result<Reached> {
    let replaced = super::in_place::replace(run, backup).await?;
    after_restore(run, backup, None).await?;
    let mut reached = Reached::new(
        Outcome::Restored,
        format!("restored in place from backup `{}`; what it was before is backup `{}`", backup.id, replaced.safety),
        &again(run),
    );
    reached.proof = Some(replaced.proof);
    reached.writes = Some(replaced.writes);
    Ok(reached)
}

/// The run stays open, so whoever decides about others' writes does so by `recover`.
pub(super) fn ask_about_writes(error: Error) -> Error {
    match error.hint_text() {
        Some(hint) if hint.contains(losses::GIVE_UP) => error.hint(ON_WRITES),
        _ => error,
    }
}

/// In place there is no second database to compare beforehand, so every row is read afterwards: as it was when the load
/// was committed, where a witness saw that.
pub async fn prove_in_place(run: &mut Run<'_>, backup: &Taken) -> Result<Proof> {
    let Run { ctx, live, in_place, .. } = &*run;
    let snapshot = in_place.witness.as_ref().and_then(load::Witness::snapshot);
    let after =
        Evidence::read_at(ctx, &live.tools, &ctx.target, &live.session, &backup.keys, Depth::Rows, snapshot).await?;
    let mut proof = Evidence::of_manifest(&backup.manifest).compare(&after, Depth::Rows);
    let (_, toc) = source::load_plan(run.ctx, backup)?;
    beside::accept_benign(&mut proof, &toc, &after);
    proof.kind = "digests".to_owned();
    if proof.holds {
        super::in_place::proved(run);
        return Ok(proof);
    }
    Err(Error::new(Kind::NotRecovered, "the database was restored in place, but is not what was backed up")
        .because(proof.why_not())
        .hint(format!("ripcord restore {}", beside::short(backup.id))))
}

/// The history of a restored database: the restore itself.
pub(super) async fn after_restore(run: &mut Run<'_>, backup: &Taken, aside: Option<&str>) -> Result<()> {
    let client = run.live.session.client();
    let detail = serde_json::json!({ "backup": backup.id, "aside": aside });
    control::put_run(client, &run.row).await?;
    control::audit(client, Some(run.id), "restored", &detail, None).await?;
    let (from, to) =
        if run.row.command == "rollback" { ("rolled_back", "applied") } else { ("applied", "rolled_back") };
    for report in run.reports.iter_mut().filter(|report| report.status == from) {
        report.status = to.to_owned();
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
        // While the lock's own session lives, the lock is ours and cannot be taken a second time.
        let opened = if run.live.maintenance().is_closed() {
            context::open(run.ctx).await.map(|live| run.live = live)
        } else {
            run.live.reconnect(run.ctx).await
        };
        match opened {
            // What the lost session was doing may still go on at the server.
            Ok(()) => return resume::end_stale_sessions(run.ctx, &run.live).await,
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
    let database = what_stands(run).await;
    // A restore in place may have come so far that this is not all.
    let in_place = run.in_place.state(run).filter(|state| *state != database);
    let database = in_place.map_or(database.clone(), |state| format!("{database}; {state}"));
    let hint = second.hint_text().map_or_else(|| "ripcord recover".to_owned(), str::to_owned);
    let mut told = first;
    told = told.because(format!("bringing it back failed as well: {}", second.one_line()));
    RunReport::new(command, Outcome::NotRecovered, database).failed(told).hint(hint)
}

/// What a run that was not brought back has changed.
pub(super) async fn what_stands(run: &Run<'_>) -> String {
    let done = if run.live.session.is_closed() { None } else { changed_by(run).await.ok() };
    match &done {
        Some(done) if done.is_empty() => "nothing of the run stands, but that is not proved".to_owned(),
        Some(done) => format!("CHANGED and not brought back: {}; the database is open", done.tell("")),
        None => "UNKNOWN, do not retry".to_owned(),
    }
}
