//! Looking at the target and the application around a run: verification, health.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::run::Run;
use crate::error::{Error, Result};
use crate::health::{self, Answer};
use crate::manifest::DatabaseProperties;
use crate::migration::lint::{self, Finding};
use crate::postgres::Session;
use crate::postgres::checks::{self, Expected};
use crate::settings::{HealthCheck, HealthProbe};

/// A line for each finding, or, of what one rule has against file after file, for the last few and for the rest.
pub fn finding_lines<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<String> {
    let findings: Vec<Finding> = findings.cloned().collect();
    let (shown, rest) = lint::shown(&findings);
    let rest = rest.iter().map(|rest| format!("{rest}; all of them: ripcord validate -v"));
    shown.into_iter().map(finding_line).chain(rest).collect()
}

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

/// What was not in order before a run, and is not the run's fault.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Invalid indexes.
    pub invalid_indexes: Vec<String>,
    /// Constraints that are not validated.
    pub not_validated: Vec<String>,
}

impl Before {
    /// As it is now.
    pub async fn look(ctx: &Context, session: &Session) -> Result<Before> {
        Ok(Before {
            invalid_indexes: checks::invalid_indexes(session).await?,
            not_validated: not_validated(ctx, session).await?,
        })
    }
}

/// Constraints that are not validated, but for those that the configuration knows.
pub async fn not_validated(ctx: &Context, session: &Session) -> Result<Vec<String>> {
    let settings = &ctx.settings;
    checks::unvalidated_constraints(session, ctx.left_out(), &settings.expect_not_valid).await
}

/// Which of the objects that the configuration expects are not there.
pub async fn missing(ctx: &Context, session: &Session) -> Result<Vec<String>> {
    let settings = &ctx.settings;
    let expected = Expected {
        tables: &settings.expect_tables,
        functions: &settings.expect_functions,
        policies: &settings.expect_policies,
    };
    checks::missing_objects(session, expected).await
}

/// Verification after the migrations: no index that became invalid, no constraint that was left not validated, the
/// expected objects, the checks.
pub async fn verify(run: &Run<'_>, before: &Before) -> Result<()> {
    let ctx = run.ctx;
    ctx.progress.began("verify", "");
    let session = &run.live.session;
    let now = Before::look(ctx, session).await?;
    if let Some(first) = now.invalid_indexes.iter().find(|index| !before.invalid_indexes.contains(index)) {
        return Err(Error::failed(format!("the run left an invalid index: {first}")));
    }
    let left: Vec<&str> = now
        .not_validated
        .iter()
        .filter(|constraint| !before.not_validated.contains(constraint))
        .map(String::as_str)
        .collect();
    if !left.is_empty() {
        let fact = format!("the run left not validated: {}", left.join(", "));
        if !run.migrations.iter().any(|migration| says_not_valid(&migration.up.sql)) {
            return Err(Error::failed(fact)
                .because("none of its migrations says NOT VALID; if it may stay so, name it in `[expect] not_valid`"));
        }
        // The first half of adding a constraint without a long lock; the second is a later deploy's.
        ctx.progress.warn(format!("{fact}; to be done by a later migration: ALTER TABLE … VALIDATE CONSTRAINT …"));
    }
    let missing = missing(ctx, session).await?;
    if !missing.is_empty() {
        return Err(Error::failed(format!("not there after the run: {}", missing.join(", "))));
    }
    if let Some(folder) = &ctx.settings.checks_dir {
        run_checks(session, folder).await?;
    }
    ctx.progress.finished("verify", "nothing invalid, nothing missing");
    Ok(())
}

/// Whether a script says of a constraint that it is not to be validated yet, in whatever place.
fn says_not_valid(sql: &str) -> bool {
    let valid = |word: &str| word.trim_end_matches([';', ',', ')']).eq_ignore_ascii_case("valid");
    let mut before = "";
    sql.split_whitespace().any(|word| std::mem::replace(&mut before, word).eq_ignore_ascii_case("not") && valid(word))
}

/// Every SQL file of the folder must return no row.
pub async fn run_checks(session: &Session, folder: &Path) -> Result<()> {
    for file in check_files(folder)? {
        run_check(session, &file).await?;
    }
    Ok(())
}

/// The SQL files of a folder of checks, by name.
pub fn check_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error: std::io::Error| {
        Error::failed(format!("the folder of checks `{}` cannot be read", folder.display())).because(error)
    };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(unreadable)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    Ok(files)
}

/// One file of checks; an error when it returns rows.
pub async fn run_check(session: &Session, file: &Path) -> Result<()> {
    let sql = std::fs::read_to_string(file)
        .map_err(|error| Error::failed(format!("check `{}` cannot be read", file.display())).because(error))?;
    let rows = checks::check_rows(session, &sql, 3)
        .await
        .map_err(|error| error.context(format!("check `{}` failed", file.display())))?;
    if rows.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("check `{}` returned rows", file.display())).because(rows.join(" | ")))
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
