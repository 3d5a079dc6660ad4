//! `rollback`: undoing applied migrations by their DOWN, after a safety backup.

use super::backup::{self, Request as BackupRequest};
use super::context::{self, Context};
use super::recover;
use super::report::{MigrationReport, Outcome, RunReport};
use super::run::{Intent, Run, unfinished};
use super::{apply, hooks, migrate, releases};
use crate::control::{self, MigrationRow};
use crate::error::{Error, Result};
use crate::manifest::Purpose;
use crate::migration::plan::{self, Undo};
use crate::migration::{Applied, Migration, Script, label};
use crate::postgres::Session;
use crate::postgres::execute::Limits;
use crate::settings::{OnFailure, Writes};

/// What to undo, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which migrations.
    pub undo: Undo,
    /// Go past a missing DOWN; needs a reason.
    pub force: Option<String>,
    /// What holds for others' writes, should a restore be needed.
    pub writes: Writes,
    /// Who approved.
    pub approver: Option<String>,
}

/// One migration to undo.
#[derive(Clone, Debug)]
pub struct Undoing {
    /// Its row.
    pub row: MigrationRow,
    /// What undoes it; `None`: there is no DOWN.
    pub down: Option<Script>,
    /// Where the DOWN comes from: `file` or `history`.
    pub source: &'static str,
    /// The file, where it is there as it was applied.
    pub file: Option<Migration>,
}

/// What a rollback would do, newest first: what `--dry-run` prints, and what is executed.
pub async fn plan(ctx: &Context, request: &Request) -> Result<Vec<Undoing>> {
    let session = ctx.connect("plan").await?;
    let rows = match control::inspect(session.client()).await? {
        control::State::Present { .. } => control::applied(session.client()).await?,
        control::State::Absent => Vec::new(),
    };
    // A master that was only recorded made nothing, and so there is nothing to undo.
    let ran = rows.iter().filter(|row| !(row.state == "baseline" && row.batch == 0));
    let applied: Vec<_> = ran.cloned().map(apply::applied_of).collect();
    let undo = named(&session, &applied, &request.undo).await?;
    session.close().await;
    let chosen = plan::plan_undo(&applied, &undo)?;
    let files = apply::read_folder(ctx).map(|folder| folder.migrations).unwrap_or_default();
    if let Undo::Only(_) = request.undo {
        for one in &chosen {
            needed_by_none(one, &rows, &files)?;
        }
    }
    let mut undoing = Vec::new();
    for applied in chosen {
        let Some(row) = rows.iter().find(|row| row.version == applied.version.as_str()).cloned() else { continue };
        undoing.push(undoing_of(row, &files)?);
    }
    let missing: Vec<String> = undoing
        .iter()
        .filter(|one| one.down.is_none())
        .map(|one| format!("`{}`", label(&one.row.version, &one.row.name)))
        .collect();
    if !missing.is_empty() && request.force.is_none() {
        return Err(Error::failed(format!("there is no DOWN for {}", missing.join(", "))).hint(format!(
            "ripcord restore latest --before {}   (the database of before it; writes since then go)\n      \
                 ripcord rollback … --force --reason TEXT   (undo the others, and this by hand)",
            undoing.iter().rev().find(|one| one.down.is_none()).map_or("VERSION", |one| one.row.version.as_str())
        )));
    }
    Ok(undoing)
}

/// The same with the version that a tag or a release stands for, where no applied migration is called so.
async fn named(session: &Session, applied: &[Applied], undo: &Undo) -> Result<Undo> {
    let (Undo::Target(name) | Undo::To(name)) = undo else { return Ok(undo.clone()) };
    if applied.iter().any(|one| one.is_called(name)) {
        return Ok(undo.clone());
    }
    Ok(releases::meaning(session, name)
        .await?
        .map_or_else(|| undo.clone(), |version| Undo::Target(version.to_string())))
}

/// Alone, a migration goes only when no other that is applied says that it depends on it.
fn needed_by_none(one: &Applied, rows: &[MigrationRow], files: &[Migration]) -> Result<()> {
    let dependent = files.iter().find(|file| {
        rows.iter().any(|row| row.version == file.version.as_str())
            && file.metadata.dependencies.iter().any(|wanted| one.is_called(wanted))
    });
    match dependent {
        None => Ok(()),
        Some(file) => Err(Error::refused(format!(
            "`{}` cannot go alone: `{}`, which is applied, depends on it",
            one.label(),
            file.file_name
        ))
        .hint(format!("undo that one first: ripcord rollback --only {}", file.label()))),
    }
}

/// The DOWN of the file that was applied; where the file is gone or another one now, the text that was
/// kept when it was applied.
fn undoing_of(row: MigrationRow, files: &[Migration]) -> Result<Undoing> {
    let file = files.iter().find(|file| file.version.as_str() == row.version && file.checksum == row.checksum).cloned();
    if let Some(migration) = &file {
        return Ok(Undoing { down: migration.down.clone().filter(|down| !down.is_empty()), row, source: "file", file });
    }
    let down = match &row.down_sql {
        Some(sql) => Some(Script::parse(sql, &format!("{} (DOWN)", label(&row.version, &row.name)), 1)?)
            .filter(|script| !script.is_empty()),
        None => None,
    };
    Ok(Undoing { row, down, source: "history", file: None })
}

/// Undoes what was planned. The report says how it ended.
pub async fn execute(ctx: &Context, request: &Request, undoing: Vec<Undoing>) -> RunReport {
    if undoing.is_empty() {
        return RunReport::new("rollback", Outcome::NothingToDo, "unchanged, nothing to roll back");
    }
    if ctx.settings.environment.approval && request.approver.is_none() {
        let error = Error::refused("this environment asks for an approval")
            .hint("on a terminal type it; from CI: ripcord rollback --yes");
        return RunReport::untouched("rollback", error);
    }
    let mut run = match begin(ctx, request, &undoing).await {
        Ok(run) => run,
        Err(error) => return RunReport::untouched("rollback", error),
    };
    match attempt(&mut run, &undoing).await {
        Ok(remaining) => {
            let count = undoing.len() - remaining.len();
            let report = if remaining.is_empty() {
                let noun = if count == 1 { "migration" } else { "migrations" };
                RunReport::new("rollback", Outcome::Done, format!("rolled back: {count} {noun} undone"))
            } else {
                RunReport::new(
                    "rollback",
                    Outcome::StoppedPartway,
                    format!(
                        "PARTLY rolled back: {count} undone, without DOWN and still applied: {}",
                        remaining.join(", ")
                    ),
                )
                .hint(match &run.backup {
                    Some(safety) => format!(
                        "undo those by hand; to have it all as it was before the rollback: ripcord restore {}",
                        super::beside::short(safety.id)
                    ),
                    None => "undo those by hand".to_owned(),
                })
            };
            run.close(report).await
        }
        Err(error) => {
            let report = recover::bring_back(&mut run, error).await;
            run.close(report).await
        }
    }
}

async fn begin<'a>(ctx: &'a Context, request: &Request, undoing: &[Undoing]) -> Result<Run<'a>> {
    let live = context::open(ctx).await?;
    if let Some(run) = unfinished(ctx, live.lineage).await?.first() {
        return Err(Error::refused(format!("run `{}` was not finished", run.run)).hint("ripcord recover"));
    }
    for one in undoing.iter().filter(|one| one.source == "history" && one.down.is_some()) {
        control::check_kept_down(live.session.client(), &one.row.version).await?;
    }
    let intent = Intent {
        on_failure: OnFailure::Restore,
        writes: request.writes,
        migrations: Vec::new(),
        backup: None,
        batch: None,
    };
    let mut run =
        Run::begin(ctx, live, "rollback", &intent, undoing.iter().filter_map(|one| one.file.clone()).collect()).await?;
    run.approver = request.approver.clone();
    run.reports = undoing
        .iter()
        .map(|one| MigrationReport {
            version: one.row.version.clone(),
            name: one.row.name.clone(),
            status: "applied".to_owned(),
            reason: format!("DOWN from the {}", one.source),
            duration_ms: 0,
            error: None,
            beside: Vec::new(),
        })
        .collect();
    let detail = serde_json::json!({ "migrations": undoing.iter().map(|one| label(&one.row.version, &one.row.name)).collect::<Vec<_>>() });
    control::audit(run.live.session.client(), Some(run.id), "rollback began", &detail, request.force.as_deref())
        .await?;
    Ok(run)
}

/// The safety backup, then one DOWN after the other. Returns the migrations that have none.
async fn attempt(run: &mut Run<'_>, undoing: &[Undoing]) -> Result<Vec<String>> {
    let wanted = BackupRequest {
        purpose: Purpose::Safety,
        run: Some(run.id),
        tags: Vec::new(),
        before: Vec::new(),
        properties: None,
    };
    let taken = backup::take(run.ctx, &run.live, &wanted).await?;
    run.set_backup(taken, true).await?;
    run.ctx.faults.at("rollback_backed_up").await;
    hooks::run(run, "before_rollback").await?;
    let mut remaining = Vec::new();
    for one in undoing {
        run.ctx.check_cancelled()?;
        let label = label(&one.row.version, &one.row.name);
        let Some(down) = &one.down else {
            run.ctx.progress.warn(format!("`{label}` has no DOWN and stays applied"));
            remaining.push(label);
            continue;
        };
        let timeouts = &run.ctx.settings.timeouts;
        let limits = one.file.as_ref().map_or(
            Limits { statement: timeouts.statement, lock: timeouts.lock, whole: timeouts.migration },
            |migration| migrate::limits(run.ctx, migration),
        );
        migrate::down(run, &one.row.version, &one.row.name, down, &limits, "rollback").await?;
        run.ctx.faults.at("between_downs").await;
    }
    hooks::run(run, "after_rollback").await?;
    Ok(remaining)
}
