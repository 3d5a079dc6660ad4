//! `apply`: back up, migrate, check, and bring back on failure.

use ripcord::migration::lint::Severity;
use ripcord::migration::plan::Selection;
use ripcord::ops::apply::{self, Planned, Request};
use ripcord::ops::plan_file::PlanFile;
use ripcord::ops::report::Outcome;
use ripcord::ops::{MigrationReport, RunReport};
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
    let planned = apply::plan(&ctx, &request).await?;
    if let Some(approved) = &approved {
        approved.hold(&ctx, &request, &planned)?;
    }
    if app.resolved.dry_run {
        let exit = show(app, &planned);
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
    Request {
        selection: selection(app, args),
        also: args.also.clone(),
        atomic: args.atomic,
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
fn show(app: &App, planned: &Planned) -> Exit {
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
    for finding in planned.findings.iter().filter(|finding| finding.severity != Severity::Note) {
        app.out.warn(&ripcord::ops::check::finding_line(finding));
    }
    let mut report = RunReport::new("apply", outcome, "unchanged, this was a dry run");
    for pending in &plan.pending {
        let migration = &pending.migration;
        let how = match &migration.up.no_transaction {
            None => "in one transaction".to_owned(),
            Some(why) => format!("each statement by itself: {why}"),
        };
        app.out.data(&format!("-- {} ({}), {how}", migration.file_name, pending.reason));
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
