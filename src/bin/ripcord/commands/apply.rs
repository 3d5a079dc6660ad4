//! `apply`: back up, migrate, check, and bring back on failure.

use ripcord::migration::lint::Severity;
use ripcord::migration::plan::Selection;
use ripcord::ops::apply::{self, Planned, Request};
use ripcord::ops::plan_file::PlanFile;
use ripcord::ops::report::Outcome;
use ripcord::ops::{Context, MigrationReport, RunReport};
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::ApplyArgs;

/// Runs it; with `--dry-run` it stops after the plan.
pub async fn run(app: &App, args: ApplyArgs) -> Result<Exit> {
    app.require_health_complete()?;
    let ctx = app.context().await?;
    let mut request = Request { skip_backup: app.skip_backup()?, ..request(app, &args) };
    let approved = args.plan.as_deref().map(PlanFile::read).transpose()?;
    if let Some(approved) = &approved {
        approved.ask(&mut request);
    }
    if args.atomic && app.settings().parallel > 1 {
        app.out.note("`parallel` has no effect with `--atomic`: one transaction is one session");
    }
    let planned = apply::plan(&ctx, &request).await?;
    if let Some(approved) = &approved {
        approved.hold(&ctx, &request, &planned)?;
    }
    if app.resolved.dry_run {
        let exit = show(app, &ctx, &request, &planned);
        if let (Some(output), Exit::DONE) = (&args.output, exit) {
            PlanFile::of(&ctx, &request, &planned).write(output)?;
            app.out.note(&format!("the plan is in `{0}`; to run it: ripcord apply --plan {0}", output.display()));
        }
        return Ok(exit);
    }
    if args.output.is_some() {
        return Err(Error::usage("`-o` writes a plan, and this would run it")
            .hint("ripcord plan -o FILE, then: ripcord apply --plan FILE"));
    }
    if !planned.plan.pending.is_empty() {
        let what = format!("Apply {} migrations to `{}`", planned.plan.pending.len(), ctx.target.database());
        request.approver = app.approve_for(&what, &apply::approval_reasons(&ctx, &planned))?;
    }
    let report = apply::execute(&ctx, &request, planned).await;
    app.out.report(&report);
    Ok(Exit(report.exit_code))
}

/// What the options ask for.
pub fn request(app: &App, args: &ApplyArgs) -> Request {
    let settings = app.settings();
    let parallel = if args.atomic { 1 } else { settings.parallel as usize };
    Request {
        selection: selection(app, args),
        also: args.also.clone(),
        atomic: args.atomic,
        parallel,
        rehearse: args.rehearse,
        skip_backup: false,
        on_failure: settings.on_failure,
        writes: settings.writes,
        ignore_red_health: args.ignore_red_health,
        force: args.reason.clone().filter(|_| args.force),
        approver: None,
    }
}

/// Which migrations are wanted.
pub fn selection(app: &App, args: &ApplyArgs) -> Selection {
    Selection {
        target: args.target.clone(),
        file: args.file.clone(),
        limit: app.resolved.limit,
        again: args.again,
        ..Selection::default()
    }
}

/// The plan: every migration with its reason, and every statement that would go to the server.
fn show(app: &App, ctx: &Context, request: &Request, planned: &Planned) -> Exit {
    let plan = &planned.plan;
    let wrong = planned.findings.iter().any(|finding| finding.severity == Severity::Error);
    let outcome = match (plan.errors.is_empty(), plan.pending.is_empty()) {
        (false, _) => Outcome::Invalid,
        (true, true) => Outcome::NothingToDo,
        (true, false) if wrong => Outcome::Invalid,
        (true, false) => Outcome::Done,
    };
    for note in &plan.notes {
        app.out.note(note);
    }
    // Notes are for `validate` to tell: on a new database every lock and every drop is one.
    let told = planned.findings.iter().filter(|finding| finding.severity != Severity::Note);
    for line in ripcord::ops::check::finding_lines(told).into_iter().chain(apply::left_out(&planned.folder)) {
        app.out.warn(&line);
    }
    let mut report = RunReport::new("apply", outcome, "unchanged, this was a dry run");
    let migrations: Vec<_> = plan.pending.iter().map(|pending| &pending.migration).collect();
    let lanes = apply::lanes(ctx, request.parallel, &migrations);
    for (at, pending) in plan.pending.iter().enumerate() {
        let migration = &pending.migration;
        let beside = lanes.beside(at).into_iter().filter_map(|other| Some(migrations.get(other)?.file_name.clone()));
        let beside: Vec<String> = beside.collect();
        let how = match &migration.up.no_transaction {
            None => "in one transaction".to_owned(),
            Some(why) => format!("each statement by itself: {why}"),
        };
        app.out.data(&format!("-- {} ({}), {how}", migration.file_name, pending.reason));
        if !beside.is_empty() {
            app.out.data(&format!("-- may run beside {}", beside.join(", ")));
        }
        for statement in &migration.up.statements {
            app.out.data(migration.up.text(statement));
        }
        app.out.data("");
        report.migrations.push(MigrationReport {
            version: migration.version.to_string(),
            name: migration.name.clone(),
            status: "pending".to_owned(),
            reason: pending.reason.clone(),
            duration_ms: 0,
            error: None,
            beside,
        });
    }
    if let Some(error) = plan.errors.first() {
        report = report.failed(error.clone());
    } else if wrong {
        report = report.failed(
            Error::failed("the pending migrations are not valid").hint("mend the files, then: ripcord validate"),
        );
    }
    app.out.report(&report);
    Exit(report.exit_code)
}
