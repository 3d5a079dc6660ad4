//! `status`: where the database stands, in one look.

use serde::Serialize;

use super::adopt::{self, Unadopted};
use super::apply::{self, applied_of};
use super::catalog::{self, Item};
use super::context::{Context, blocking};
use super::masters;
use super::run::unfinished;
use crate::clock::Time;
use crate::control::{self, LockRow, MigrationRow};
use crate::error::{Error, Kind, Result};
use crate::manifest::IMPORTED;
use crate::migration::plan::{self, Selection};
use crate::postgres::{Session, databases, guard};

/// A pending migration.
#[derive(Clone, Debug, Serialize)]
pub struct PendingLine {
    /// Version.
    pub version: String,
    /// Name.
    pub name: String,
    /// The file's name.
    pub file: String,
    /// Why it is pending.
    pub reason: String,
}

/// Everything that `status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The database's name.
    pub database: String,
    /// The state of the database in one line.
    pub state: String,
    /// The command to run next, when there is one.
    pub next: Option<String>,
    /// Set when the keys at hand do not open the newest backup.
    #[serde(skip)]
    pub wrong_key: Option<Error>,
    /// Files in the folder.
    pub total: usize,
    /// Applied migrations.
    pub applied: usize,
    /// Failed attempts that are not reset.
    pub failed: usize,
    /// What would be applied.
    pub pending: Vec<PendingLine>,
    /// Things to know about the plan.
    pub notes: Vec<String>,
    /// Files that are no migrations, and why.
    pub skipped: Vec<String>,
    /// What makes the plan invalid.
    pub errors: Vec<String>,
    /// The last batch.
    pub last_batch: Option<i32>,
    /// When it was applied.
    pub last_applied_at: Option<Time>,
    /// Whether nothing is pending.
    pub up_to_date: bool,
    /// The newest good backup.
    pub last_backup: Option<Item>,
    /// When a backup was drilled last.
    pub last_drill: Option<Time>,
    /// Why a drill is due; `None`: it is not.
    pub drill_due: Option<String>,
    /// Who holds the lock.
    pub lock: Option<LockRow>,
    /// Runs that are not finished.
    pub unfinished: Vec<String>,
    /// Databases that swaps have kept.
    pub aside: Vec<String>,
    /// The folder.
    pub folder: Option<String>,
    /// The layout, and why it was chosen.
    pub layout: Option<String>,
}

/// Looks. Writes nothing, and needs no key: what a key would tell more is left out then.
pub async fn status(ctx: &Context) -> Result<Status> {
    let mut status = Status {
        database: ctx.target.database().to_owned(),
        state: String::new(),
        next: None,
        wrong_key: None,
        total: 0,
        applied: 0,
        failed: 0,
        pending: Vec::new(),
        notes: Vec::new(),
        skipped: Vec::new(),
        errors: Vec::new(),
        last_batch: None,
        last_applied_at: None,
        up_to_date: false,
        last_backup: None,
        last_drill: None,
        drill_due: None,
        lock: None,
        unfinished: Vec::new(),
        aside: Vec::new(),
        folder: None,
        layout: None,
    };
    let mut working = false;
    if let Ok((_, maintenance)) = guard::open_maintenance(&ctx.target, &ctx.settings).await {
        working = guard::holder(&maintenance, ctx.target.database()).await?.is_some();
        if let Some(found) = databases::find(&maintenance, ctx.target.database()).await?
            && !found.allows_connections
        {
            (status.state, status.next) = if working {
                (format!("CLOSED: a run is replacing `{}` at this moment", found.name), None)
            } else {
                (
                    format!("CLOSED: a run was stopped while it was replacing `{}`", found.name),
                    Some("ripcord recover".to_owned()),
                )
            };
            return Ok(status);
        }
    }
    let session = ctx.connect("status").await?;
    let mut rows: Vec<MigrationRow> = Vec::new();
    let lineage = super::context::lineage_of(&session).await?;
    if let Some(lineage) = lineage {
        rows = control::migrations(session.client()).await?;
        status.lock = control::lock_row(session.client()).await?;
        let backups = control::backups(session.client()).await?;
        let items = catalog::list(ctx, lineage, &backups, &std::collections::BTreeMap::new()).await?;
        status.last_drill = items.iter().filter_map(|item| item.drilled_at).max();
        status.drill_due = drill_due(ctx, &items, status.last_drill);
        status.last_backup = items
            .into_iter()
            // What was imported is older than it is.
            .find(|item| {
                matches!(item.status.as_str(), "verified" | "complete")
                    && item.purpose != "safety"
                    && !item.tags.iter().any(|tag| tag == IMPORTED)
            });
        // Without a key no journal can be read; the row that a dead run left in the lock tells as much.
        if let (Err(_), Some(row)) = (&ctx.keys, &status.lock) {
            status.unfinished.push(row.run.to_string());
        }
        if ctx.keys.is_ok() {
            match unfinished(ctx, lineage).await {
                Ok(runs) => status.unfinished = runs.into_iter().map(|run| run.run.to_string()).collect(),
                // With another key, or an altered journal: told, and the rest is still shown.
                Err(error) => {
                    status.wrong_key = Some(error.clone()).filter(|error| error.kind() == Kind::Usage);
                    status.notes.push(error.one_line());
                }
            }
        }
        if let Ok((_, maintenance)) = guard::open_maintenance(&ctx.target, &ctx.settings).await {
            status.aside = databases::list_aside(&maintenance, Some(lineage))
                .await?
                .into_iter()
                .map(|database| database.name)
                .collect();
        }
    }
    read_plan(ctx, &session, &rows, &mut status).await?;
    let other = adopt::unadopted(ctx, &session).await?;
    session.close().await;
    conclude(&mut status, lineage.is_some(), working);
    tell_of_others(&mut status, &other);
    if status.wrong_key.is_some() {
        // None would get far.
        status.next = None;
    }
    Ok(status)
}

async fn read_plan(ctx: &Context, session: &Session, rows: &[MigrationRow], status: &mut Status) -> Result<()> {
    let applied: Vec<_> =
        rows.iter().filter(|row| matches!(row.state.as_str(), "applied" | "baseline")).cloned().collect();
    status.applied = applied.len();
    status.failed = rows
        .iter()
        .filter(|row| row.state == "failed" && !applied.iter().any(|done| done.version == row.version))
        .count();
    status.last_batch = applied.iter().map(|row| row.batch).max();
    status.last_applied_at = applied.iter().map(|row| row.applied_at).max();
    match apply::read_folder(ctx) {
        Err(error) => status.errors.push(error.one_line()),
        Ok(folder) => {
            let applied: Vec<_> = applied.into_iter().map(applied_of).collect();
            let selection = super::apply::here(ctx, &Selection::default());
            let mut plan = plan::plan(&folder.migrations, &applied, &selection, ctx.settings.on_changed);
            masters::settle(ctx, session, &mut plan, &applied).await?;
            status.total = folder.migrations.len();
            status.errors.extend(plan.errors.iter().map(crate::Error::one_line));
            status.notes.extend(plan.notes);
            status.pending = plan
                .pending
                .into_iter()
                .map(|pending| PendingLine {
                    reason: if rows
                        .iter()
                        .any(|row| row.state == "failed" && row.version == pending.migration.version.as_str())
                    {
                        "failed before".to_owned()
                    } else {
                        pending.reason
                    },
                    version: pending.migration.version.to_string(),
                    name: pending.migration.name,
                    file: pending.migration.file_name,
                })
                .collect();
            status.notes.extend(apply::left_out(&folder));
            status.skipped = folder.skipped.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
            status.folder = Some(folder.path.display().to_string());
            status.layout = Some(format!("{} ({})", folder.layout, folder.reason));
        }
    }
    status.up_to_date = status.pending.is_empty() && status.errors.is_empty();
    Ok(())
}

fn conclude(status: &mut Status, met: bool, working: bool) {
    let (state, next) = if let (true, Some(run)) = (working, status.unfinished.first()) {
        (format!("BUSY: run `{run}` is at work"), None)
    } else if let Some(run) = status.unfinished.first() {
        (format!("UNFINISHED: run `{run}` did not come to its end"), Some("ripcord recover"))
    } else if status.folder.is_none() {
        ("there are no migrations to read".to_owned(), Some("ripcord init"))
    } else if !status.errors.is_empty() {
        ("the folder and the database do not fit together".to_owned(), Some("ripcord validate"))
    } else if !status.pending.is_empty() {
        (format!("{} of {} pending", status.pending.len(), count_of(status.total)), Some("ripcord apply"))
    } else if !met {
        ("ripcord has not met this database yet, and nothing is pending".to_owned(), None)
    } else {
        (format!("up to date, {} applied", count_of(status.applied)), None)
    };
    status.state = state;
    let drill = status.drill_due.as_ref().filter(|_| !working).map(|_| "ripcord drill latest");
    status.next = next.or(drill).map(str::to_owned);
}

/// Whether the last good drill is older than the configuration allows. Where there was never one, the oldest backup
/// that is there tells for how long.
fn drill_due(ctx: &Context, items: &[Item], last: Option<Time>) -> Option<String> {
    let limit = ctx.settings.drill_max_age?;
    let since = last.or_else(|| {
        let there = |item: &&Item| matches!(item.status.as_str(), "verified" | "complete" | "damaged");
        items.iter().filter(there).map(|item| item.created_at).min()
    })?;
    let limit = chrono::TimeDelta::from_std(limit).unwrap_or(chrono::TimeDelta::MAX);
    let told = crate::settings::in_words(limit);
    let age = crate::clock::now() - since;
    (age > limit).then(|| match last {
        Some(at) => format!("the last good drill is of {}, more than {told} ago", at.format("%Y-%m-%d %H:%M UTC")),
        None => format!("no backup was drilled well, and the oldest is more than {told} old"),
    })
}

/// Another tool's history: before anything of ours is in effect it is the one that counts, afterwards it is frozen.
fn tell_of_others(status: &mut Status, others: &[Unadopted]) {
    for other in others {
        let rows = other.rows.map_or_else(String::new, |rows| format!(" ({rows} rows)"));
        let table = format!("`{}`{rows}, owned by `{}`", other.table, other.owner);
        if status.applied > 0 {
            status.notes.push(format!("another tool's {table}, was not adopted; ripcord writes nothing there"));
            continue;
        }
        status.notes.push(format!("{table}, tells what another tool has applied; what is pending is not known"));
        // The first is the one that counts; legacy tables come after it.
        let first = status.up_to_date || !status.state.starts_with("another tool's");
        if status.unfinished.is_empty() && first {
            status.state = format!("another tool's history was not adopted: `{}`", other.table);
            status.next = Some("ripcord adopt --dry-run".to_owned());
            status.up_to_date = false;
        }
    }
}

fn count_of(count: usize) -> String {
    format!("{count} {}", if count == 1 { "migration" } else { "migrations" })
}

/// Leftovers of ripcord on the server, for `doctor`.
pub async fn stray_scratch(ctx: &Context) -> Result<Vec<String>> {
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    Ok(databases::list_scratch(&maintenance).await?.into_iter().map(|database| database.name).collect())
}

/// The lineages of the store that have something, for `doctor`.
pub async fn lineages_in_store(ctx: &Context) -> Result<usize> {
    let store = ctx.store.clone();
    blocking(move || Ok(store.lineages()?.len())).await
}
