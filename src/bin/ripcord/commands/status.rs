//! `status`: where the database stands.

use ripcord::Result;
use ripcord::ops::report::Outcome;
use ripcord::ops::status::{self, Status};

use crate::app::{App, Exit};
use crate::args::StatusArgs;

/// Shows it. `--exit-code` ends with 1 when something is pending or wrong, or a drill is due; `--max-backup-age` when the newest
/// good backup is older, or missing.
pub async fn run(app: &App, args: StatusArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let status = status::status(&ctx).await?;
    for line in lines(&status, app.out.style().verbosity == crate::config::Verbosity::Verbose) {
        app.out.data(&line);
    }
    let stale = args.max_backup_age.is_some_and(|limit| {
        let limit = chrono::TimeDelta::from_std(limit).unwrap_or(chrono::TimeDelta::MAX);
        status.last_backup.as_ref().is_none_or(|item| ripcord::clock::now() - item.created_at > limit)
    });
    if stale {
        app.out.warn(match &status.last_backup {
            Some(_) => "the newest good backup is older than `--max-backup-age` allows: ripcord backup create",
            None => "there is no good backup: ripcord backup create",
        });
    }
    let not_done =
        args.exit_code && (!status.up_to_date || !status.unfinished.is_empty() || status.drill_due.is_some());
    let outcome = if stale || not_done { Outcome::Unchanged } else { Outcome::Done };
    app.out.items("status", outcome, &[status]);
    Ok(Exit(outcome.exit_code()))
}

fn lines(status: &Status, verbose: bool) -> Vec<String> {
    let time = |at: ripcord::clock::Time| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    let mut lines = vec![format!("database `{}`: {}", status.database, status.state), String::new()];
    let mut line = |name: &str, value: String| lines.push(format!("{name:<16}{value}"));
    line(
        "migrations",
        format!(
            "{} in the folder, {} applied, {} pending, {} failed",
            status.total,
            status.applied,
            status.pending.len(),
            status.failed
        ),
    );
    if let (Some(batch), Some(at)) = (status.last_batch, status.last_applied_at) {
        line("last batch", format!("{batch}, {}", time(at)));
    }
    line("Up to date:", if status.up_to_date { "Yes" } else { "No" }.to_owned());
    line(
        "last backup",
        status.last_backup.as_ref().map_or_else(
            || "none".to_owned(),
            |item| format!("`{}`, {} ({})", item.id, time(item.created_at), item.status),
        ),
    );
    let due = status.drill_due.as_ref().map_or("", |_| " (DUE: ripcord drill latest)");
    line("last drill", status.last_drill.map_or_else(|| "never".to_owned(), time) + due);
    if let Some(lock) = &status.lock {
        line(
            "lock",
            format!("{}@{}:{} since {} ({})", lock.holder, lock.host, lock.pid, time(lock.since), lock.command),
        );
    }
    for name in &status.aside {
        line("kept aside", format!("`{name}`"));
    }
    if verbose {
        line("folder", status.folder.clone().unwrap_or_default());
        line("layout", status.layout.clone().unwrap_or_default());
        status.skipped.iter().for_each(|skipped| line("left out", skipped.clone()));
    }
    if !status.pending.is_empty() {
        lines.push(String::new());
        lines.push("pending:".to_owned());
        lines.extend(status.pending.iter().map(|pending| format!("  {} ({})", pending.file, pending.reason)));
    }
    for note in status.notes.iter().chain(&status.drill_due).chain(&status.errors) {
        lines.push(format!("note: {note}"));
    }
    if let Some(next) = &status.next {
        lines.push(String::new());
        lines.push(format!("next: {next}"));
    }
    lines
}
