//! The main job: back up, migrate, check, bring back.

use super::backup::{self, Request as BackupRequest};
use super::check;
use super::context::{self, Context, Live};
use super::migrate::{self, resumption};
use super::recover;
use super::report::{Outcome, RunReport};
use super::run::{Intent, Run, unfinished};
use super::{adopt, hooks, judge, masters, prune, rehearse, releases, resume, rungs};
use crate::clock;
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::manifest::{DatabaseProperties, Purpose};
use crate::migration::lanes::Lanes;
use crate::migration::lint::{self, Severity};
use crate::migration::plan::{self, Plan, Selection};
use crate::migration::source::{self, Folder};
use crate::migration::{Applied, Migration, Variables};
use crate::postgres::{Session, databases, execute};
use crate::settings::{OnFailure, Writes, window};

/// What to apply, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which of the pending migrations.
    pub selection: Selection,
    /// Further folders (test migrations), refused in protected environments.
    pub also: Vec<std::path::PathBuf>,
    /// All of them in one transaction.
    pub atomic: bool,
    /// Up to so many beside each other, where dependencies were declared.
    pub parallel: usize,
    /// First on a copy that is made from the backup.
    pub rehearse: bool,
    /// Without a backup, where the environment's policy allows it.
    pub skip_backup: bool,
    /// What to do when it fails.
    pub on_failure: OnFailure,
    /// What holds for others' writes.
    pub writes: Writes,
    /// Go on though the application is not well before the run.
    pub ignore_red_health: bool,
    /// Go past warnings; needs a reason.
    pub force: Option<String>,
    /// Who approved, when somebody did.
    pub approver: Option<String>,
}

/// What an apply would do: the value that `--dry-run` prints and that the run executes.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The folder as it was read.
    pub folder: Folder,
    /// What is pending, in order.
    pub plan: Plan,
    /// What validation found.
    pub findings: Vec<lint::Finding>,
    /// What is applied.
    pub applied: Vec<Applied>,
    /// What was selected, tags and releases made into versions.
    pub selection: Selection,
}

/// Reads the folder, compares it with what is applied, and validates what is pending. Writes nothing.
pub async fn plan(ctx: &Context, request: &Request) -> Result<Planned> {
    let mut folder = read_folder(ctx)?;
    for more in &request.also {
        if ctx.settings.environment.protected {
            return Err(Error::refused(format!(
                "`--also {}` is for test migrations, and this environment is protected",
                more.display()
            ))
            .hint("name an unprotected environment: --env development"));
        }
        let mut more = source::read(more, ctx.settings.layout.as_deref())?;
        give_variables(ctx, &mut more);
        folder.migrations.append(&mut more.migrations);
    }
    let session = ctx.connect("plan").await?;
    let applied: Vec<Applied> = match control::inspect(session.client()).await? {
        control::State::Present { .. } => {
            control::applied(session.client()).await?.into_iter().map(applied_of).collect()
        }
        control::State::Absent => Vec::new(),
    };
    adopt::refuse_unadopted(ctx, &session, applied.len()).await?;
    let mut selection = here(ctx, &request.selection);
    selection.target = releases::target(&session, &folder.migrations, selection.target).await?;
    let mut plan = plan::plan(&folder.migrations, &applied, &selection, ctx.settings.on_changed);
    masters::settle(ctx, &session, &mut plan, &applied).await?;
    tell_resumptions(ctx, &session, request, &mut plan).await?;
    let variables = Variables::new(ctx.settings.variables.clone());
    for pending in &plan.pending {
        plan.errors.extend(variables.require(&pending.migration).err());
    }
    let pending: Vec<Migration> = plan.pending.iter().map(|pending| pending.migration.with_names(&variables)).collect();
    let policy = lint::Policy::new(ctx.settings.environment.protected, &ctx.settings.lint);
    let mut findings = lint::judge(&folder.migrations, &pending, &policy);
    findings.extend(duplicates(&folder, &pending, &applied, ctx.settings.environment.protected));
    judge::weigh(&session, &pending, &policy, ctx.settings.lint.large_table_rows, &mut findings).await?;
    session.close().await;
    Ok(Planned { folder, plan, findings, applied, selection })
}

/// The selection with what the settings say of arrivals and environments.
pub fn here(ctx: &Context, selection: &Selection) -> Selection {
    let environment = ctx.settings.environment.name.clone();
    Selection { arrivals: ctx.settings.arrivals, environment, ..selection.clone() }
}

/// What an earlier run did in part is shown in the plan; a file that was changed there makes it invalid.
async fn tell_resumptions(ctx: &Context, session: &Session, request: &Request, plan: &mut Plan) -> Result<()> {
    // Without a key no journal can be read; the run itself will ask for one.
    let (true, false) = (ctx.keys.is_ok(), request.selection.again) else { return Ok(()) };
    let Some(lineage) = context::lineage_of(session).await? else { return Ok(()) };
    let pending: Vec<&Migration> = plan.pending.iter().map(|pending| &pending.migration).collect();
    match resumption::find(ctx, session, lineage, &pending).await {
        Ok(found) => {
            for pending in &mut plan.pending {
                if let Some(resumption) = found.get(pending.migration.version.as_str()) {
                    pending.reason = resumption::reason(&pending.migration, resumption);
                }
            }
        }
        Err(error) if error.kind() == Kind::Failed && !error.connection_lost() => plan.errors.push(error),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Files that share their number with another one, unless all of them are applied: which of them is meant, nobody
/// knows.
fn duplicates(folder: &Folder, pending: &[Migration], applied: &[Applied], protected: bool) -> Vec<lint::Finding> {
    let shared = |one: &Migration| {
        let same = || folder.migrations.iter().filter(|other| other.version == one.version);
        same().count() > 1 && !same().all(|other| plan::was_applied(other, applied))
    };
    let among_pending = |one: &Migration| pending.iter().filter(|other| other.version == one.version).count() > 1;
    let found: Vec<Migration> =
        folder.migrations.iter().filter(|one| shared(one) && !among_pending(one)).cloned().collect();
    lint::lint(&found, protected).into_iter().filter(|finding| finding.rule == "duplicate-version").collect()
}

/// Reads the configured folder, or the one found among the usual ones.
pub fn read_folder(ctx: &Context) -> Result<Folder> {
    let path = match &ctx.settings.migrations_dir {
        Some(path) => path.clone(),
        None => source::find(std::path::Path::new("."))?,
    };
    let folder = source::read(&path, ctx.settings.layout.as_deref())?;
    let mut folder = source::in_order(folder, &ctx.settings.order)?;
    give_variables(ctx, &mut folder);
    Ok(folder)
}

/// The values of variables stay beside the text, which holds none of them.
fn give_variables(ctx: &Context, folder: &mut Folder) {
    let variables = Variables::new(ctx.settings.variables.clone());
    if !variables.is_empty() {
        folder.migrations.iter_mut().for_each(|migration| migration.give(&variables));
    }
}

/// A row of the history as the planner sees it.
pub fn applied_of(row: control::MigrationRow) -> Applied {
    Applied {
        version: crate::migration::Version(row.version),
        name: row.name,
        checksum: row.checksum,
        loose_checksum: row.loose_checksum,
        batch: row.batch,
    }
}

/// Applies what `planned` holds. Never returns an error: the report says how it ended, and what state the
/// database is in.
pub async fn execute(ctx: &Context, request: &Request, planned: Planned) -> RunReport {
    // 1. Nothing pending: say so, and write nothing.
    if let Some(error) = planned.plan.errors.first() {
        return RunReport { outcome: Outcome::Invalid, exit_code: 1, ..RunReport::untouched("apply", error.clone()) };
    }
    if planned.plan.pending.is_empty() {
        tell_left_out(ctx, &planned.folder);
        if let Err(error) = resume::refuse_after_crash(ctx).await
            && error.kind() == Kind::Refused
        {
            return RunReport::untouched("apply", error);
        }
        return RunReport::new("apply", Outcome::NothingToDo, "unchanged, up to date");
    }

    // 2. Errors of validation stop here, warnings as the policy says; an approval where one is required.
    if let Err(error) = validate(ctx, request, &planned) {
        return match error.kind() {
            Kind::Failed => RunReport { outcome: Outcome::Invalid, ..RunReport::untouched("apply", error) },
            _ => RunReport::untouched("apply", error),
        };
    }

    // 3 to 5. Lock, preflight, journal: everything that can fail cheaply, before anything is touched.
    let (mut run, properties) = match begin(ctx, request, planned).await {
        Ok(Some(begun)) => begun,
        Ok(None) => {
            return RunReport::new("apply", Outcome::NothingToDo, "unchanged by this run, another one has applied it");
        }
        Err(error) => return RunReport::untouched("apply", error),
    };

    match attempt(&mut run, request, properties).await {
        // 10. Good: the fence is taken away and the books are closed.
        Ok(()) => finish(run).await,
        // 11. Bad: the same code that a later `ripcord recover` runs after a crash.
        Err(error) => {
            let report = recover::bring_back(&mut run, error).await;
            run.close(report).await
        }
    }
}

/// What nobody left out on purpose is told, whether something else is pending or not.
fn tell_left_out(ctx: &Context, folder: &Folder) {
    left_out(folder).into_iter().for_each(|line| ctx.progress.warn(line));
}

/// A line for each file that is left out and that nobody left out on purpose.
pub fn left_out(folder: &Folder) -> Vec<String> {
    let misnamed = folder.skipped.iter().filter(|(path, _)| folder.misnamed.contains(path));
    misnamed.map(|(path, why)| format!("`{}` is left out: {why}", path.display())).collect()
}

fn validate(ctx: &Context, request: &Request, planned: &Planned) -> Result<()> {
    let of = |severity| planned.findings.iter().filter(move |finding| finding.severity == severity);
    if of(Severity::Error).next().is_some() {
        let mut error = Error::failed("the pending migrations are not valid");
        for finding in of(Severity::Error).take(10) {
            error = error.because(check::finding_line(finding));
        }
        return Err(error.hint("mend the files, then: ripcord validate"));
    }
    for line in check::finding_lines(of(Severity::Warning)) {
        ctx.progress.warn(line);
    }
    for note in &planned.plan.notes {
        ctx.progress.note(note.clone());
    }
    tell_left_out(ctx, &planned.folder);
    let transactional = planned.plan.pending.iter().all(|pending| pending.migration.up.no_transaction.is_none());
    if request.atomic && !transactional {
        return Err(Error::usage("`--atomic` cannot hold a migration that runs outside a transaction")
            .because(first_non_transactional(planned))
            .hint("apply that migration by itself first: ripcord apply --file NAME"));
    }
    if request.skip_backup && !ctx.settings.environment.allow_skip_backup {
        return Err(Error::refused("this environment does not allow a run without a backup")
            .hint("name an environment that does: --env development"));
    }
    if let Some(opens) = window::closed_until(&ctx.settings.environment.windows, clock::now()) {
        let fact = format!(
            "environment `{}` is not to be changed now: its next maintenance window begins {}",
            ctx.settings.environment.name.as_deref().unwrap_or("unnamed"),
            opens.format("%a %Y-%m-%d %H:%M UTC")
        );
        if request.force.is_none() {
            return Err(Error::refused(fact).hint("wait for it, or: ripcord apply --force --reason TEXT"));
        }
        ctx.progress.warn(fact);
    }
    let reasons = approval_reasons(ctx, planned);
    if !reasons.is_empty() && request.approver.is_none() {
        let mut error = Error::refused("this run needs an approval");
        for reason in reasons {
            error = error.because(reason);
        }
        return Err(error.hint("on a terminal type it; from CI: ripcord apply --yes, or FORCE_RUN=true"));
    }
    Ok(())
}

/// Why somebody must approve: the environment asks for it, or a migration says of itself that it is one to think
/// about. Where nothing is protected, the latter is not asked for.
pub fn approval_reasons(ctx: &Context, planned: &Planned) -> Vec<String> {
    let environment = &ctx.settings.environment;
    let mut reasons = Vec::new();
    if environment.approval {
        reasons.push(format!("environment `{}` asks for it", environment.name.as_deref().unwrap_or("unnamed")));
    }
    if !environment.protected {
        return reasons;
    }
    for migration in planned.plan.pending.iter().map(|pending| &pending.migration) {
        let metadata = &migration.metadata;
        let says = |told: &Option<String>, what: &str| told.as_deref() == Some(what);
        let grave = [
            (says(&metadata.risk, "high"), "a high risk"),
            (metadata.requires_downtime, "that it needs a downtime"),
            (says(&metadata.data_volume, "large"), "a large volume of data"),
        ];
        let told: Vec<&str> = grave.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
        if !told.is_empty() {
            reasons.push(format!("`{}` tells of {}", migration.file_name, told.join(", ")));
        }
    }
    reasons
}

fn first_non_transactional(planned: &Planned) -> String {
    planned
        .plan
        .pending
        .iter()
        .find_map(|pending| {
            Some(format!("`{}`: {}", pending.migration.file_name, pending.migration.up.no_transaction.as_ref()?))
        })
        .unwrap_or_default()
}

/// The lock, the checks that need the server, the first look at the application, the journal.
/// `None`: another run was faster.
async fn begin<'a>(
    ctx: &'a Context,
    request: &Request,
    mut planned: Planned,
) -> Result<Option<(Run<'a>, DatabaseProperties)>> {
    // The key and the store before the lock: the cheapest failures first.
    let keys = ctx.keys()?;
    let _ = keys.primary().id();
    ctx.store.objects().check_writable()?;
    lasting_store(ctx)?;
    ctx.progress.began("lock", format!("database `{}`", ctx.target.database()));
    let live = context::open(ctx).await?;
    ctx.progress.finished("lock", "held");
    refuse_beside_unfinished(ctx, &live).await?;
    still_pending(ctx, &live, &mut planned).await?;
    if planned.plan.pending.is_empty() {
        return Ok(None);
    }

    ctx.progress.began("preflight", "");
    let rungs = rungs::available(ctx, &live, request.skip_backup).await?;
    ctx.progress.finished("preflight", rungs.tell());
    if !request.ignore_red_health {
        check::healthy_before(ctx, &live.session).await?;
    }

    // Before any fence: a setting that the fence makes must not end up in the backup.
    let properties = databases::read_properties(live.maintenance(), ctx.target.database()).await?;
    let batch = control::next_batch(live.session.client()).await?;
    let migrations: Vec<Migration> = planned.plan.pending.iter().map(|pending| pending.migration.clone()).collect();
    let intent = Intent {
        on_failure: request.on_failure,
        writes: request.writes,
        migrations: migrations
            .iter()
            .map(|m| (m.version.to_string(), m.file_name.clone(), m.checksum.clone()))
            .collect(),
        backup: None,
        batch: Some(batch),
    };
    let again = request.selection.again;
    let pending: Vec<&Migration> = migrations.iter().filter(|_| !again).collect();
    let resumptions = resumption::find(ctx, &live.session, live.lineage, &pending).await?;
    let mut run = Run::begin(ctx, live, "apply", &intent, migrations).await?;
    run.resumptions = resumptions;
    run.approver = request.approver.clone();
    for (report, pending) in run.reports.iter_mut().zip(&planned.plan.pending) {
        let resumed = run.resumptions.get(pending.migration.version.as_str());
        report.reason =
            resumed.map_or_else(|| pending.reason.clone(), |found| resumption::reason(&pending.migration, found));
    }
    if let Err(error) = audit_begin(&run, request).await {
        let report = RunReport::untouched("apply", error.clone());
        run.close(report).await;
        return Err(error);
    }
    Ok(Some((run, properties)))
}

/// The plan was made before the lock was held, and another run may have worked until then: what it has
/// applied leaves the plan. Nothing comes into it that nobody has validated or approved.
async fn still_pending(ctx: &Context, live: &Live, planned: &mut Planned) -> Result<()> {
    let applied: Vec<Applied> = control::applied(live.session.client()).await?.into_iter().map(applied_of).collect();
    let mut now = plan::plan(&planned.folder.migrations, &applied, &planned.selection, ctx.settings.on_changed);
    masters::settle(ctx, &live.session, &mut now, &applied).await?;
    masters::record(ctx, &live.session, &now.recorded).await?;
    if let Some(error) = now.errors.into_iter().next() {
        return Err(error);
    }
    let before = planned.plan.pending.len();
    let is = |one: &plan::Pending, other: &plan::Pending| one.migration.version == other.migration.version;
    planned.plan.pending.retain(|old| now.pending.iter().any(|new| is(new, old)));
    if !planned.plan.pending.iter().zip(&now.pending).all(|(old, new)| is(old, new)) {
        return Err(Error::failed("what is applied changed while this run waited for the lock")
            .because("a migration that was not pending comes before those that were planned")
            .hint("plan anew: ripcord apply"));
    }
    if planned.plan.pending.len() < before {
        ctx.progress.note(format!(
            "another run has applied {} of {before} migrations meanwhile",
            before - planned.plan.pending.len()
        ));
    }
    Ok(())
}

async fn audit_begin(run: &Run<'_>, request: &Request) -> Result<()> {
    let detail = serde_json::json!({
        "migrations": run.migrations.iter().map(Migration::label).collect::<Vec<_>>(),
        "skip_backup": request.skip_backup, "writes": request.writes, "on_failure": request.on_failure,
        "approver": request.approver, "environment": run.ctx.settings.environment.name,
    });
    control::audit(run.live.session.client(), Some(run.id), "apply began", &detail, request.force.as_deref()).await
}

/// Backups that die with the machine are none; where nobody has named an environment, that is only told.
pub fn lasting_store(ctx: &Context) -> Result<()> {
    let Some(why) = ctx.store.objects().ephemeral() else { return Ok(()) };
    let fact = format!("the store does not outlive this machine's restart: {why}");
    if ctx.settings.environment.protected && ctx.settings.environment.name.is_some() {
        return Err(Error::refused(fact).hint("name a folder on a lasting disk: --store /var/backups/ripcord"));
    }
    ctx.progress.warn(fact);
    Ok(())
}

/// A run that died left the database in a state that only its journal knows.
async fn refuse_beside_unfinished(ctx: &Context, live: &Live) -> Result<()> {
    match unfinished(ctx, live.lineage).await?.first() {
        None => Ok(()),
        Some(run) => Err(resume::not_finished(run)),
    }
}

/// Backup, migrations, verification, health: the part that may fail with something changed.
async fn attempt(run: &mut Run<'_>, request: &Request, properties: DatabaseProperties) -> Result<()> {
    // 5. The fence, when asked for.
    if request.writes == Writes::Fence {
        let previous = check::setting_of(&properties, "default_transaction_read_only");
        run.fence(previous).await?;
    }

    // 6. The backup. Nothing of the target changes before its manifest is committed.
    hooks::run(run, "before_backup").await?;
    if request.skip_backup {
        run.ctx.progress.warn("no backup, as asked: if this run fails, nothing can be restored");
        run.journal.record(crate::journal::Step::BackupSkipped)?;
    } else {
        let wanted = BackupRequest {
            purpose: Purpose::PreApply,
            run: Some(run.id),
            tags: Vec::new(),
            before: run.migrations.iter().map(Migration::label).collect(),
            properties: Some(properties),
        };
        let taken = backup::take(run.ctx, &run.live, &wanted).await?;
        run.set_backup(taken, false).await?;
    }
    run.ctx.faults.at("apply_backed_up").await;
    hooks::run(run, "after_backup").await?;

    // 7. On a copy first: what fails there never reaches the target.
    if request.rehearse {
        rehearse::within(run).await?;
    }

    // 8. The migrations.
    let before = check::Before::look(run.ctx, &run.live.session).await?;
    hooks::run(run, "before_run").await?;
    migrations(run, request).await?;
    run.ctx.faults.at("apply_migrated").await;

    // 9. Verification, then health.
    check::verify(run, &before).await?;
    hooks::run(run, "after_run").await?;
    check::healthy_after(run).await
}

async fn migrations(run: &mut Run<'_>, request: &Request) -> Result<()> {
    let batch = run.row.batch.unwrap_or(1);
    let pending = run.migrations.clone();
    if request.atomic {
        // Whoever passes the fence comes no further than the locks.
        run.strict = run.fenced.is_some();
        return migrate::up_atomically(run, &pending, batch).await;
    }
    let lanes = lanes(run.ctx, request.parallel, &pending.iter().collect::<Vec<_>>());
    for part in lanes.parts() {
        let [migration] = &pending[part.clone()] else {
            migrate::up_beside(run, &pending, part, &lanes, batch, request.parallel).await?;
            continue;
        };
        run.ctx.check_cancelled()?;
        let told = Some((migration.version.as_str(), migration.name.as_str()));
        hooks::around(run, "before_migration", told).await?;
        migrate::up(run, migration, batch).await?;
        hooks::around(run, "after_migration", told).await?;
        run.ctx.faults.at("between_migrations").await;
    }
    Ok(())
}

/// Which of the migrations may run beside which. A hook around each migration is told one at a time.
pub fn lanes(ctx: &Context, parallel: usize, migrations: &[&Migration]) -> Lanes {
    let around = ["before_migration", "after_migration"];
    let hooked = around.iter().any(|hook| ctx.settings.hooks.steps.get(*hook).is_some_and(|steps| !steps.is_empty()));
    if parallel < 2 || hooked { Lanes::one_after_the_other(migrations.len()) } else { Lanes::of(migrations) }
}

async fn finish(run: Run<'_>) -> RunReport {
    let _ = execute::reset(&run.live.session).await;
    let count = run.migrations.len();
    let noun = if count == 1 { "migration" } else { "migrations" };
    let mut report = RunReport::new("apply", Outcome::Done, format!("changed as planned: {count} {noun} applied"));
    report.batch = run.row.batch;
    let (ctx, lineage) = (run.ctx, run.live.lineage);
    let mut report = run.close(report).await;
    // Retention comes after everything that could still need a backup.
    if let Err(error) = prune::after_run(ctx, lineage).await {
        ctx.progress.warn(format!("old backups could not be pruned: {error}"));
        report.hint = Some("ripcord prune".to_owned());
    }
    report
}
