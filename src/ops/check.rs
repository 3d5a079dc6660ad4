//! Looking at the target and the application around a run: hooks, verification, health.

use super::context::Context;
use super::run::Run;
use crate::error::{Error, Result};
use crate::health::{self, Answer};
use crate::manifest::DatabaseProperties;
use crate::migration::lint::Finding;
use crate::postgres::{Session, checks};
use crate::settings::{HealthCheck, HealthProbe};

/// `file:line:column: message (rule)`.
pub fn finding_line(finding: &Finding) -> String {
    let mut place = finding.file.display().to_string();
    if let Some(line) = finding.line {
        place.push_str(&format!(":{line}"));
        if let Some(column) = finding.column {
            place.push_str(&format!(":{column}"));
        }
    }
    let help = finding.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
    format!("{place}: {} ({}){help}", finding.message, finding.rule)
}

/// A database-wide setting's value, if it is set.
pub fn setting_of(properties: &DatabaseProperties, name: &str) -> Option<String> {
    let prefix = format!("{name}=");
    properties.settings.get("")?.iter().find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
}

/// Runs a hook's commands in order; the first that fails stops.
pub async fn hook(run: &Run<'_>, name: &str) -> Result<()> {
    let Some(commands) = run.ctx.settings.hooks.commands.get(name) else { return Ok(()) };
    let environment = [
        ("RIPCORD_RUN_ID".to_owned(), run.id.to_string()),
        ("RIPCORD_HOOK".to_owned(), name.to_owned()),
        ("RIPCORD_DATABASE".to_owned(), run.ctx.target.database().to_owned()),
        ("RIPCORD_BACKUP_ID".to_owned(), run.backup.as_ref().map(|backup| backup.id.to_string()).unwrap_or_default()),
    ];
    for command in commands {
        run.ctx.progress.began("hook", format!("{name}: {command}"));
        health::run_command(command, &environment, run.ctx.settings.hooks.timeout)
            .await
            .map_err(|error| error.context(format!("hook `{name}` failed: `{command}`")))?;
        run.ctx.progress.finished("hook", name);
    }
    Ok(())
}

/// Verification after the migrations: no index that became invalid, the expected objects, the checks.
pub async fn verify(run: &Run<'_>, invalid_before: &[String]) -> Result<()> {
    let ctx = run.ctx;
    ctx.progress.began("verify", "");
    let session = &run.live.session;
    let invalid: Vec<String> =
        checks::invalid_indexes(session).await?.into_iter().filter(|index| !invalid_before.contains(index)).collect();
    if let Some(first) = invalid.first() {
        return Err(Error::failed(format!("the run left an invalid index: {first}")));
    }
    let missing = checks::missing_objects(session, &ctx.settings.expect_tables, &ctx.settings.expect_functions).await?;
    if !missing.is_empty() {
        return Err(Error::failed(format!("not there after the run: {}", missing.join(", "))));
    }
    if let Some(folder) = &ctx.settings.checks_dir {
        run_checks(session, folder).await?;
    }
    ctx.progress.finished("verify", "nothing invalid, nothing missing");
    Ok(())
}

/// Every SQL file of the folder must return no row.
pub async fn run_checks(session: &Session, folder: &std::path::Path) -> Result<()> {
    let unreadable = |error: std::io::Error| {
        Error::failed(format!("the folder of checks `{}` cannot be read", folder.display())).because(error)
    };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(unreadable)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    for file in files {
        let sql = std::fs::read_to_string(&file)
            .map_err(|error| Error::failed(format!("check `{}` cannot be read", file.display())).because(error))?;
        let rows = checks::check_rows(session, &sql, 3)
            .await
            .map_err(|error| error.context(format!("check `{}` failed", file.display())))?;
        if !rows.is_empty() {
            return Err(Error::failed(format!("check `{}` returned rows", file.display())).because(rows.join(" | ")));
        }
    }
    Ok(())
}

/// Asks one health check once.
pub async fn ask(session: &Session, check: &HealthCheck) -> Answer {
    match &check.probe {
        HealthProbe::Sql(sql) => {
            let began = std::time::Instant::now();
            let answer = checks::check_rows(session, sql, 1).await;
            let (healthy, detail) = match answer {
                Ok(rows) if rows.first().is_none_or(|row| says_true(row)) => (true, "well".to_owned()),
                Ok(rows) => (false, format!("returned {}", rows.join(" | "))),
                Err(error) => (false, error.one_line()),
            };
            Answer { subject: sql.clone(), healthy, detail, duration_ms: super::beside::millis(began.elapsed()) }
        }
        _ => health::probe(check).await,
    }
}

/// A row, `column: value`, whose only value is true.
fn says_true(row: &str) -> bool {
    row.rsplit_once(": ").is_some_and(|(column, value)| !column.contains(", ") && matches!(value, "t" | "true"))
}

/// Before the run: an application that is not well already must never cause a restore later.
pub async fn healthy_before(ctx: &Context, session: &Session) -> Result<()> {
    for check in &ctx.settings.health {
        let answer = ask(session, check).await;
        if !answer.healthy {
            return Err(Error::failed(format!(
                "the application is not well before the run: {} says {}",
                answer.subject, answer.detail
            ))
            .hint("mend the application first; if this migration is the cure: ripcord apply --ignore-red-health"));
        }
    }
    Ok(())
}

/// After the run: every check green, so many times in a row, before its deadline.
pub async fn healthy_after(run: &Run<'_>) -> Result<()> {
    let ctx = run.ctx;
    ctx.faults.at("health").await;
    for check in &ctx.settings.health {
        ctx.progress.began("health", "");
        let session = &run.live.session;
        let answer = tokio::select! {
            answer = health::wait_green(check, &ctx.progress, async |check: &HealthCheck| ask(session, check).await) => answer,
            () = ctx.cancelled() => return Err(super::context::stopped()),
        };
        if !answer.healthy {
            return Err(Error::failed(format!(
                "the application is not well after the run: {} says {}",
                answer.subject, answer.detail
            )));
        }
        ctx.progress.finished("health", format!("{}: {}", answer.subject, answer.detail));
    }
    Ok(())
}
