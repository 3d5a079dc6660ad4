//! `ripcord recover`: finishes or undoes what runs left that died.
//!
//! Such a run is taken up under its own id, in its own journal. What the journal says is a claim: every
//! database that it names is looked up by its oid before anything is done to it, and what was committed is
//! read from the target.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::backup::{self, Taken};
use super::beside;
use super::changed::changed_by;
use super::check;
use super::context::{self, Context, Live};
use super::journals::Readers;
use super::losses::Ours;
use super::proof::{Depth, Evidence};
use super::recover::{after_restore, bring_back, prove_in_place, what_stands};
use super::report::{Outcome, RunReport};
use super::run::{Intent, Run, Unfinished, pending_report, unfinished};
use super::{apply, migrate, source};
use crate::clock;
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::journal::{Entry, Journal, Step};
use crate::postgres::guard::{self, Guard};
use crate::postgres::{Session, databases, load, swap, writes};
use crate::settings::{OnFailure, Writes};

/// How long the sessions of a dead run may take to end.
const STALE_LIMIT: Duration = Duration::from_secs(60);

/// The names under which a run has sessions in the target that may write there.
const STALE: [&str; 7] = [
    "ripcord run",
    "ripcord swap",
    "ripcord restore",
    "ripcord history",
    "ripcord snapshot",
    "ripcord proof",
    "ripcord witness",
];

/// Finishes or undoes whatever unfinished runs left behind, the oldest first.
///
/// `writes` and `on_failure`, when given, take the place of what the dead run was told;
/// [`OnFailure::Stop`] accepts the database as it is now and closes the run.
pub async fn recover(ctx: &Context, writes: Option<Writes>, on_failure: Option<OnFailure>) -> RunReport {
    match recover_all(ctx, writes, on_failure).await {
        Ok(report) => report,
        Err(error) => {
            let database = if error.kind() == Kind::NotRecovered { "UNKNOWN, do not retry" } else { "as it was found" };
            RunReport { database: database.to_owned(), ..RunReport::untouched("recover", error) }
        }
    }
}

async fn recover_all(ctx: &Context, writes: Option<Writes>, on_failure: Option<OnFailure>) -> Result<RunReport> {
    let mut last: Option<RunReport> = None;
    loop {
        // Under the lock: whoever held it until now may have finished what was unfinished before.
        let guard = Guard::acquire(&ctx.target, &ctx.settings, ctx.settings.timeouts.wait_for_lock).await?;
        let found = find_under_lock(ctx, guard.maintenance()).await?;
        let next = found.into_iter().find(|dead| last.as_ref().is_none_or(|report| report.run_id != Some(dead.run)));
        let stop = last.as_ref().is_some_and(|report| report.outcome == Outcome::NotRecovered);
        let Some(dead) = next.filter(|_| !stop) else {
            tidy(ctx, guard.maintenance()).await?;
            guard.release().await?;
            return Ok(last.unwrap_or_else(|| {
                RunReport::new("recover", Outcome::NothingToDo, "as it was, no run is unfinished")
            }));
        };
        open_target(ctx, guard.maintenance(), &dead).await?;
        let command = dead.opened().map_or("apply", |(command, ..)| command).to_owned();
        let mut report = finish_or_undo(ctx, guard, dead, writes, on_failure).await?;
        report.command = "recover".to_owned();
        if report.outcome == Outcome::Unchanged {
            // Nothing of the run stands, which is what was asked for.
            report.outcome = Outcome::Done;
            report.exit_code = Outcome::Done.exit_code();
            report.error = None;
            report.failure = None;
            if report.hint.as_ref().is_none_or(|hint| hint != "ripcord recover") {
                report.hint = Some(format!("to do it again: ripcord {command}"));
            }
        }
        last = Some(report);
    }
}

/// An error when a run at this database died and was not taken up: then nothing that it says is to be
/// believed, not even that nothing is pending. A run that is at work is none.
pub async fn refuse_after_crash(ctx: &Context) -> Result<()> {
    if ctx.keys.is_err() {
        return Ok(());
    }
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    if guard::holder(&maintenance, ctx.target.database()).await?.is_some() {
        return Ok(());
    }
    find_under_lock(ctx, &maintenance).await?.first().map_or(Ok(()), |dead| Err(not_finished(dead)))
}

/// Why nothing can be begun beside it.
pub(super) fn not_finished(dead: &Unfinished) -> Error {
    Error::refused(format!("run `{}` was not finished", dead.run))
        .because("what it left must be finished or undone first")
        .hint("ripcord recover")
}

/// The unfinished runs at this database, oldest first, of every lineage whose journal names it.
pub async fn find_unfinished(ctx: &Context) -> Result<Vec<Unfinished>> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    find_under_lock(ctx, &maintenance).await
}

async fn find_under_lock(ctx: &Context, maintenance: &Session) -> Result<Vec<Unfinished>> {
    let target = databases::find(maintenance, ctx.target.database()).await?;
    let own = match &target {
        Some(found) if found.allows_connections => context::lineage_of(&ctx.connect("recover").await?).await?,
        _ => None,
    };
    let store = ctx.store.clone();
    let lineages: Vec<Lineage> = context::blocking(move || store.lineages()).await?;
    let mut found = Vec::new();
    let mut unreadable = None;
    for lineage in lineages {
        match unfinished(ctx, lineage).await {
            Ok(runs) => found.extend(runs.into_iter().filter(|run| {
                // Another server may have a database of this name, and its journals in the same store.
                names(run, ctx.target.database())
                    && (own == Some(lineage) || target.as_ref().is_none_or(|target| names_oid(run, target.oid)))
            })),
            // A journal of another database is none of ours; without a lineage of its own, any may be.
            Err(error) if own.is_none_or(|own| own == lineage) => unreadable = unreadable.or(Some(error)),
            Err(_) => {}
        }
    }
    if let Some(error) = unreadable
        && (own.is_some() || found.is_empty())
    {
        return Err(error);
    }
    found.sort_by_key(|run| run.run);
    Ok(found)
}

fn names(run: &Unfinished, database: &str) -> bool {
    run.opened().is_some_and(|(_, opened, _, _)| opened == database)
}

fn names_oid(run: &Unfinished, oid: u32) -> bool {
    run.opened().is_some_and(|(_, _, opened, _)| opened == oid)
        || run
            .entries
            .iter()
            .any(|entry| matches!(entry.step, Step::SwapBegan { scratch_oid, .. } if scratch_oid == oid))
}

/// Lets people in again where a swap was interrupted. Both names change in one transaction, so the name
/// belongs either to the old database or to the restored one.
async fn open_target(ctx: &Context, maintenance: &Session, dead: &Unfinished) -> Result<()> {
    let name = ctx.target.database();
    let found = databases::find(maintenance, name).await?;
    let swap = last_swap(&dead.entries);
    match (found, swap) {
        (Some(found), _) if found.allows_connections => Ok(()),
        (Some(found), Some(swap)) if found.oid == swap.target_oid || found.oid == swap.scratch_oid => {
            swap::allow_connections(maintenance, name, true).await?;
            ctx.progress.note(format!("`{name}` lets people in again"));
            Ok(())
        }
        (Some(found), _) => Err(Error::new(
            Kind::NotRecovered,
            format!("`{name}` is closed, and it is no database that run `{}` closed", dead.run),
        )
        .because(format!("its oid is {}", found.oid))
        .hint(format!("if nobody closed it on purpose: ALTER DATABASE {name} ALLOW_CONNECTIONS true"))),
        (None, swap) => {
            let mut error = Error::new(Kind::NotRecovered, format!("there is no database `{name}`"));
            if let Some(swap) = swap {
                error = error.because(format!("run `{}` was swapping it with `{}`", dead.run, swap.scratch));
                error = error.hint(format!("if `{}` is there, rename it to `{name}` with psql", swap.aside));
            }
            Err(error)
        }
    }
}

struct Swap<'a> {
    target_oid: u32,
    scratch: &'a str,
    scratch_oid: u32,
    aside: &'a str,
}

/// The last one: an earlier one was given up before it was tried again.
fn last_swap(entries: &[Entry]) -> Option<Swap<'_>> {
    entries.iter().rev().find_map(|entry| match &entry.step {
        Step::SwapBegan { target_oid, scratch, scratch_oid, aside, .. } => {
            Some(Swap { target_oid: *target_oid, scratch, scratch_oid: *scratch_oid, aside })
        }
        _ => None,
    })
}

/// Ends the sessions in the target that a dead run, or a connection that was lost, has left working there: a
/// statement goes on at the server after its client is gone, and may commit. Holding the lock, every session
/// of these names but our own is such a one.
pub(super) async fn end_stale_sessions(ctx: &Context, live: &Live) -> Result<()> {
    let spared = [live.session.backend_pid()];
    swap::end_named(live.maintenance(), ctx.target.database(), &STALE, &spared, STALE_LIMIT).await
}

/// Takes an unfinished run up again: its sessions, its scratch databases, its swap, its migrations.
async fn finish_or_undo(
    ctx: &Context,
    guard: Guard,
    dead: Unfinished,
    writes: Option<Writes>,
    on_failure: Option<OnFailure>,
) -> Result<RunReport> {
    let name = ctx.target.database();
    swap::end_named(guard.maintenance(), name, &STALE, &[], STALE_LIMIT).await?;
    if in_place_began(&dead.entries).is_some() {
        swap::end_named(guard.maintenance(), name, &["pg_restore"], &[], STALE_LIMIT).await?;
    }
    let mut live = context::open_holding(ctx, guard).await?;
    // A restore may have been of another database's backups: its journal is with those.
    live.lineage = dead.lineage;
    let intent = dead.intent().ok_or_else(|| {
        Error::refused(format!("the journal of run `{}` does not say what it set out to do", dead.run))
    })?;
    let mut run = resume(ctx, live, &dead, &intent).await?;
    run.writes = writes.unwrap_or(run.writes);
    run.on_failure = on_failure.unwrap_or(run.on_failure);
    run.show_lock("recover").await?;
    let (command, _, _, holder) = dead.opened().unwrap_or(("?", "?", 0, "?"));
    ctx.progress.note(format!("taking up run `{}` ({command}), begun by {holder}", dead.run));
    run.sweep_scratch().await?;
    settle_backups(ctx, run.live.session.client(), run.live.lineage).await?;

    if let Some(aside) = swap_was_done(&run).await? {
        return Ok(finish_swapped(run, aside).await);
    }
    if on_failure == Some(OnFailure::Stop) {
        return accept_present(run).await;
    }
    if in_place_began(&dead.entries).is_some() {
        return Ok(finish_in_place(run).await);
    }
    if command == "restore" {
        let report = RunReport::new("recover", Outcome::Unchanged, "unchanged, the restore had not replaced it");
        return Ok(run.close(report).await);
    }
    let failed = dead.entries.iter().find_map(|entry| match &entry.step {
        Step::Failed { error } => Some(error),
        _ => None,
    });
    if command == "apply" && failed.is_none() && all_applied(&run, &intent).await? {
        return Ok(finish_applied(run).await);
    }
    let failure = match failed {
        Some(error) => Error::failed(format!("run `{}` failed, and was not brought back", dead.run)).because(error),
        None => Error::failed(format!("run `{}` died before it was finished", dead.run)),
    };
    let report = bring_back(&mut run, failure).await;
    Ok(run.close(report).await)
}

/// A restore by hand answers the runs that were waiting for a decision: what they left goes, and their
/// journals are closed. `changed` is the database that they changed, under the name that it has now.
pub async fn settle(run: &mut Run<'_>, changed: &str) -> Result<()> {
    let ctx = run.ctx;
    for dead in unfinished(ctx, run.live.lineage).await? {
        if dead.run == run.id || !names(&dead, ctx.target.database()) {
            continue;
        }
        for entry in &dead.entries {
            // What stands there under that name is dropped only when it is a scratch database of ours.
            if let Step::ScratchBegan { name, .. } = &entry.step
                && databases::find(run.live.maintenance(), name).await?.is_some()
            {
                databases::drop_scratch(run.live.maintenance(), name, None).await?;
            }
        }
        let mut journal = reopen_journal(ctx, &dead)?;
        if let Some(previous) = fence_of(&dead.entries) {
            unfence(ctx, run.live.maintenance(), changed, previous.as_deref()).await?;
            journal.record(Step::FenceEnded)?;
        }
        let database = format!("answered by the restore of run `{}`", run.id);
        journal.record(Step::Closed { outcome: "restored".to_owned(), database })?;
        ctx.progress.note(format!("run `{}`, which was not finished, is answered by this restore", dead.run));
    }
    Ok(())
}

/// Takes a fence away from a database, under whatever name it has now.
pub(super) async fn unfence(
    ctx: &Context,
    maintenance: &Session,
    database: &str,
    previous: Option<&str>,
) -> Result<()> {
    if let Some(left) = writes::unfence(maintenance, database, previous).await? {
        ctx.progress.warn(left.one_line());
    }
    Ok(())
}

fn reopen_journal(ctx: &Context, dead: &Unfinished) -> Result<Journal> {
    if let Err(error) = ctx.store.sweep_run(dead.lineage, dead.run) {
        ctx.progress.warn(format!("an unfinished step of a journal is left in the store: {}", error.one_line()));
    }
    Readers::of(&ctx.store, ctx.keys()?, dead.lineage)?.resume(dead.run).map_err(|error| {
        error.context(format!("the journal of run `{}` cannot be continued with the keys held", dead.run))
    })
}

async fn resume<'a>(ctx: &'a Context, live: Live, dead: &Unfinished, intent: &Intent) -> Result<Run<'a>> {
    let journal = reopen_journal(ctx, dead)?;
    let folder = apply::read_folder(ctx).map(|folder| folder.migrations).unwrap_or_default();
    let mut migrations = Vec::new();
    for (version, _, checksum) in &intent.migrations {
        // Only the very text that was applied may say what undoes it.
        migrations.extend(folder.iter().find(|m| m.version.as_str() == version && m.checksum == *checksum).cloned());
    }
    let command = dead.opened().map_or("apply", |(command, ..)| command);
    let backup = match own_backup(dead, command, intent) {
        Some(id) => {
            let (manifest, keys) = backup::open_manifest(ctx, dead.lineage, id).await?;
            let location = ctx.store.backup_location(dead.lineage, id);
            Some(Taken { id, manifest: Arc::new(manifest), keys, location, duration: Duration::ZERO })
        }
        None => None,
    };
    let rows = control::runs(live.session.client(), 1000).await?;
    let row = rows.into_iter().find(|row| row.id == dead.run).unwrap_or_else(|| control::RunRow {
        id: dead.run,
        command: command.to_owned(),
        environment: ctx.settings.environment.name.clone(),
        started_at: dead.entries.first().map_or_else(clock::now, |entry| entry.at),
        finished_at: None,
        outcome: None,
        exit_code: None,
        database_state: None,
        error: None,
        backup: backup.as_ref().map(|backup| backup.id),
        batch: intent.batch,
        holder: ctx.identity.holder(),
        tool_version: context::TOOL_VERSION.to_owned(),
    });
    let applied = control::applied(live.session.client()).await?;
    let committed = |version: &str| applied.iter().any(|row| row.run == Some(dead.run) && row.version == version);
    Ok(Run {
        ctx,
        id: dead.run,
        journal,
        row,
        backup,
        reports: migrations
            .iter()
            .map(|migration| {
                let mut report = pending_report(migration);
                if committed(migration.version.as_str()) {
                    report.status = "applied".to_owned();
                }
                report
            })
            .collect(),
        live,
        migrations,
        on_failure: intent.on_failure,
        writes: intent.writes,
        fenced: fence_of(&dead.entries),
        ours: ours_of(&dead.entries),
        resumptions: BTreeMap::new(),
        approver: None,
        heartbeat: None,
        strict: false,
        in_place: super::in_place::Progressed::default(),
        unrecorded: None,
    })
}

/// The backup that holds the state of before: an apply's own, a rollback's safety backup, the one that a
/// restore restores. A safety backup that was made on the way to a restore in place is none of these.
fn own_backup(dead: &Unfinished, command: &str, intent: &Intent) -> Option<BackupId> {
    if intent.backup.is_some() {
        return intent.backup;
    }
    let wanted = command == "rollback";
    dead.entries.iter().find_map(|entry| match entry.step {
        Step::BackupComplete { backup, safety } if safety == wanted => Some(backup),
        _ => None,
    })
}

/// Whether the dead run's fence is still up, and what it replaced.
fn fence_of(entries: &[Entry]) -> Option<Option<String>> {
    entries.iter().fold(None, |up, entry| match &entry.step {
        Step::FenceBegan { previous } => Some(previous.clone()),
        Step::FenceEnded => None,
        _ => up,
    })
}

/// What the dead run wrote itself, as it wrote it down before each step.
fn ours_of(entries: &[Entry]) -> Ours {
    let mut ours = Ours { touched: Some(Vec::new()), ..Ours::default() };
    for entry in entries {
        match &entry.step {
            Step::UpBegan { xid, transactional, .. } => {
                ours.xids.extend(xid);
                // What a statement outside a transaction touches is told by nothing.
                if !transactional {
                    ours.touched = None;
                }
            }
            Step::UpCommits { xid, touched, .. } => {
                ours.xids.push(*xid);
                if let Some(all) = &mut ours.touched {
                    all.extend(touched.iter().cloned());
                }
            }
            Step::DownBegan { transactional: false, .. } => ours.touched = None,
            Step::StatementBegan { xid, .. } | Step::StatementDone { xid, .. } => ours.xids.extend(xid),
            Step::Round { xid, .. } => ours.xids.push(*xid),
            Step::HookChanged { xid, .. } => {
                ours.xids.push(*xid);
                ours.touched = None;
            }
            Step::OwnTransaction { xid } => ours.xids.push(*xid),
            Step::Counted { table, rows } => {
                ours.counted_before.insert(table.clone(), *rows);
            }
            Step::Touched { tables } => {
                if let Some(all) = &mut ours.touched {
                    all.extend(tables.iter().cloned());
                }
            }
            _ => {}
        }
    }
    ours
}

/// The name under which the old database is kept, when the dead run had renamed both; empty when what has
/// that name is another one now.
async fn swap_was_done(run: &Run<'_>) -> Result<Option<String>> {
    let Some(swap) = last_swap(run.journal.entries()) else { return Ok(None) };
    let maintenance = run.live.maintenance();
    let at_target = databases::find(maintenance, run.ctx.target.database()).await?;
    if at_target.is_none_or(|found| found.oid != swap.scratch_oid) {
        return Ok(None);
    }
    let kept = databases::find(maintenance, swap.aside).await?;
    let aside = kept.filter(|found| found.oid == swap.target_oid).map(|found| found.name);
    Ok(Some(aside.unwrap_or_default()))
}

/// The swap was committed: what is left is the fence of the old database, and the books.
async fn finish_swapped(mut run: Run<'_>, aside: String) -> RunReport {
    if let Some(previous) = run.fenced.clone() {
        let ended = async {
            if !aside.is_empty() {
                unfence(run.ctx, run.live.maintenance(), &aside, previous.as_deref()).await?;
            }
            run.journal.record(Step::FenceEnded)
        };
        match ended.await {
            Ok(()) => run.fenced = None,
            Err(error) => run.ctx.progress.warn(format!("the fence of `{aside}` could not be taken away: {error}")),
        }
    }
    let kept = if aside.is_empty() { "is not there any more".to_owned() } else { format!("is kept as `{aside}`") };
    let (what, outcome) = match &run.backup {
        Some(backup) if run.row.command == "restore" => {
            (format!("restored from backup `{}`", backup.id), Outcome::Done)
        }
        Some(backup) => (format!("as before the run: restored from backup `{}`", backup.id), Outcome::Restored),
        None => ("restored".to_owned(), Outcome::Restored),
    };
    let mut report =
        RunReport::new("recover", outcome, format!("{what}; the old database {kept}")).hint("ripcord status");
    if let Some(backup) = run.backup.clone() {
        let finished = async {
            after_restore(&mut run, &backup, Some(&aside)).await?;
            // Proved before the swap, and open since: what differs now, others changed.
            let after = Evidence::read(
                run.ctx,
                &run.live.tools,
                &run.ctx.target,
                &run.live.session,
                &backup.keys,
                Depth::Schema,
            )
            .await?;
            let mut proof = Evidence::of_manifest(&backup.manifest).compare(&after, Depth::Schema);
            let (_, toc) = source::load_plan(run.ctx, &backup)?;
            beside::accept_benign(&mut proof, &toc, &after);
            proof.kind = "restore".to_owned();
            Ok::<_, Error>(proof)
        };
        match finished.await {
            Ok(proof) => {
                if !proof.holds {
                    run.ctx.progress.warn(format!("others changed the schema since the restore: {}", proof.why_not()));
                }
                report.proof = serde_json::to_value(proof).unwrap_or_default();
            }
            Err(error) => run.ctx.progress.warn(format!("the restore could not be looked at again: {error}")),
        }
    }
    run.close(report).await
}

/// The backup of the last restore in place that the run began.
fn in_place_began(entries: &[Entry]) -> Option<BackupId> {
    entries.iter().rev().find_map(|entry| match entry.step {
        Step::InPlaceBegan { backup } => Some(backup),
        _ => None,
    })
}

/// `pg_restore -1` is one transaction: either all of it is there or nothing. Which, the rows tell.
async fn finish_in_place(mut run: Run<'_>) -> RunReport {
    let report = match in_place_again(&mut run).await {
        Ok(report) => report,
        Err(error) => {
            let hint = error.hint_text().unwrap_or("ripcord recover").to_owned();
            let state = match run.in_place.state(&run) {
                Some(state) => state,
                None => in_place_so_far(&run).await,
            };
            RunReport::new("recover", Outcome::NotRecovered, state).failed(error).hint(hint)
        }
    };
    run.close(report).await
}

/// The transaction that the dead run let load.
fn in_place_allowed(entries: &[Entry]) -> Option<u64> {
    entries.iter().rev().find_map(|entry| match entry.step {
        Step::InPlaceAllowed { transaction } => Some(transaction),
        _ => None,
    })
}

/// How far the dead run came.
async fn in_place_so_far(run: &Run<'_>) -> String {
    let committed = match in_place_allowed(run.journal.entries()) {
        Some(transaction) => load::committed(&run.live.session, transaction).await.unwrap_or(None),
        None => Some(false),
    };
    match committed {
        Some(false) if run.row.command == "restore" => "as the restore found it, and open".to_owned(),
        Some(false) => what_stands(run).await,
        Some(true) => "PARTLY restored in place: the rows are in, but not proved; the database is open".to_owned(),
        None => "UNKNOWN, do not retry".to_owned(),
    }
}

async fn in_place_again(run: &mut Run<'_>) -> Result<RunReport> {
    let Some(backup) = run.backup.clone() else {
        return Err(Error::failed("the run was restoring in place a backup that its journal does not name")
            .hint("ripcord restore latest"));
    };
    super::in_place::keep_writers_off(run).await?;
    let proof = match prove_in_place(run, &backup).await {
        Ok(proof) => {
            control::set_applied(run.live.session.client(), &beside::applied_of(&backup)).await?;
            proof
        }
        // Others may have written since the run died: their rows are counted as before any restore.
        Err(_) => {
            if let Some(transaction) = in_place_allowed(run.journal.entries())
                && load::committed(&run.live.session, transaction).await? == Some(true)
            {
                super::in_place::loaded_by(&mut run.ours, transaction);
            }
            super::in_place::replace(run, &backup).await.map_err(super::recover::ask_about_writes)?.proof
        }
    };
    after_restore(run, &backup, None).await?;
    let (what, outcome) = match run.row.command.as_str() {
        "restore" => ("", Outcome::Done),
        _ => ("as before the run: ", Outcome::Restored),
    };
    let mut report = RunReport::new("recover", outcome, format!("{what}restored in place from backup `{}`", backup.id))
        .hint("ripcord status");
    report.proof = serde_json::to_value(proof).unwrap_or_default();
    Ok(report)
}

/// `--on-failure stop`: whoever says so has looked at the database, and takes it as it is.
async fn accept_present(mut run: Run<'_>) -> Result<RunReport> {
    // What stands of the statement at which it died decides where a later `apply` goes on.
    migrate::settle_statement(&mut run, true).await?;
    let done = changed_by(&run).await?;
    let in_place = in_place_began(run.journal.entries()).is_some();
    let report = if done.is_empty() && !in_place {
        RunReport::new("recover", Outcome::Unchanged, "unchanged by the run").hint("ripcord status")
    } else {
        let mut parts = vec![done.tell(" of this run")];
        parts.extend(in_place.then(|| "a restore in place had begun".to_owned()));
        parts.retain(|part| !part.is_empty());
        let state = format!("PARTWAY: {}; left as it is, as asked", parts.join("; "));
        RunReport::new("recover", Outcome::StoppedPartway, state).hint("ripcord status")
    };
    Ok(run.close(report).await)
}

async fn all_applied(run: &Run<'_>, intent: &Intent) -> Result<bool> {
    let rows = control::applied(run.live.session.client()).await?;
    let has = |version: &String| rows.iter().any(|row| row.run == Some(run.id) && row.version == *version);
    Ok(!intent.migrations.is_empty() && intent.migrations.iter().all(|(version, ..)| has(version)))
}

/// Every migration was applied; what is left is to look whether all is well.
async fn finish_applied(mut run: Run<'_>) -> RunReport {
    // What was not in order before the run died with it; the backup says the same in its own words.
    let before = match check::Before::look(run.ctx, &run.live.session).await {
        Ok(now) => check::Before {
            invalid_indexes: now.invalid_indexes.into_iter().filter(|index| was_invalid(&run, index)).collect(),
            not_validated: now
                .not_validated
                .into_iter()
                .filter(|constraint| was_there(&run, |line| line == format!("{constraint} not validated")))
                .collect(),
        },
        Err(_) => check::Before::default(),
    };
    let checked = async {
        check::verify(&run, &before).await?;
        check::healthy_after(&run).await
    };
    let report = match checked.await {
        Ok(()) => {
            let count = run.migrations.len();
            let noun = if count == 1 { "migration" } else { "migrations" };
            RunReport::new(
                "recover",
                Outcome::Done,
                format!("changed as planned: every migration of the run is applied ({count} {noun})"),
            )
            .hint("ripcord status")
        }
        Err(error) => bring_back(&mut run, error).await,
    };
    run.close(report).await
}

fn was_invalid(run: &Run<'_>, index: &str) -> bool {
    let name = index.split(" on ").next().unwrap_or(index);
    was_there(run, |line| line.contains(name) && (line.ends_with(" invalid") || line.ends_with(" not ready")))
}

fn was_there(run: &Run<'_>, is_it: impl Fn(&str) -> bool) -> bool {
    let backup = run.backup.as_ref();
    backup.is_some_and(|backup| backup.manifest.sealed.catalog_extras.iter().any(|line| is_it(line)))
}

/// What dead commands without a journal left: a backup cut short, the row of the lock.
async fn tidy(ctx: &Context, maintenance: &Session) -> Result<()> {
    match databases::find(maintenance, ctx.target.database()).await? {
        Some(found) if found.allows_connections => {}
        Some(found) => {
            return Err(Error::failed(format!("`{}` is closed, and no unfinished run has closed it", found.name))
                .hint(format!(
                    "if nobody closed it on purpose: ALTER DATABASE {} ALLOW_CONNECTIONS true",
                    found.name
                )));
        }
        None => return Ok(()),
    }
    let session = ctx.connect("recover").await?;
    if let Some(lineage) = context::lineage_of(&session).await? {
        settle_backups(ctx, session.client(), lineage).await?;
        if let Some(row) = control::lock_row(session.client()).await?
            && !is_open(ctx, lineage, row.run).await?
        {
            control::clear_lock(session.client(), Some(row.run)).await?;
        }
    }
    session.close().await;
    Ok(())
}

async fn is_open(ctx: &Context, lineage: Lineage, run: RunId) -> Result<bool> {
    Ok(unfinished(ctx, lineage).await?.iter().any(|unfinished| unfinished.run == run))
}

/// Backups that the history takes for running, with the lock in our hands: whoever was making them is dead.
/// One that has its manifest is a backup; of the others nothing stays.
async fn settle_backups(ctx: &Context, client: &tokio_postgres::Client, lineage: Lineage) -> Result<()> {
    for mut row in control::backups(client).await?.into_iter().filter(|row| row.status == "running") {
        let (store, id) = (ctx.store.clone(), row.id);
        let committed = context::blocking(move || {
            let committed = store.backups(lineage)?.contains(&id);
            if !committed {
                store.delete_backup(lineage, id)?;
            }
            Ok(committed)
        })
        .await?;
        row.finished_at = Some(clock::now());
        if committed {
            // It was read back before its manifest was written.
            row.status = "verified".to_owned();
            row.verified_at = row.finished_at;
        } else {
            row.status = "failed".to_owned();
            row.error = Some("the run that was making it died".to_owned());
            ctx.progress.note(format!("removed what there was of backup `{id}`, which was never finished"));
        }
        control::put_backup(client, &row).await?;
    }
    Ok(())
}
