//! The backups of a lineage as people see them: what the store has, what marks say, and what the
//! database's history knows and the store lacks.

use std::collections::BTreeMap;

use serde::Serialize;

use super::context::{Context, blocking};
use crate::clock::{self, Time};
use crate::control::BackupRow;
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::manifest::{self, Purpose};
use crate::retention::{self, Candidate};
use crate::store::Mark;

/// A backup's line in lists; the names are those of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// Which.
    pub id: BackupId,
    /// When its snapshot was taken.
    pub created_at: Time,
    /// Why.
    pub purpose: String,
    /// The database's name then.
    pub database: String,
    /// The run that it belongs to, where the history knows.
    pub run_id: Option<RunId>,
    /// `running`, `failed`, `complete`, `verified`, `damaged` (also: the history knows it and the store lacks
    /// it), `deleted`.
    pub status: String,
    /// Who can open it.
    pub key_ids: Vec<String>,
    /// Last read back.
    pub verified_at: Option<Time>,
    /// Last really restored and compared.
    pub drilled_at: Option<Time>,
    /// Plaintext bytes.
    pub raw_bytes: Option<u64>,
    /// Bytes in the store.
    pub stored_bytes: Option<u64>,
    /// How long it took.
    pub duration_ms: Option<u64>,
    /// Kept by a person.
    pub pinned: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Why retention keeps it; `None`: it goes with the next prune.
    pub keep_reason: Option<String>,
    /// Where it is.
    pub location: String,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// Lists a lineage's backups, newest first. `rows` is the database's history, where it can be read.
/// `needed` are backups that unfinished runs need.
pub async fn list(
    ctx: &Context,
    lineage: Lineage,
    rows: &[BackupRow],
    needed: &BTreeMap<BackupId, RunId>,
) -> Result<Vec<Item>> {
    let store = ctx.store.clone();
    let in_store = blocking(move || {
        let mut items = Vec::new();
        for id in store.backups(lineage)? {
            let location = store.backup_location(lineage, id);
            let marks = store.marks(lineage, id)?;
            let clear = store.manifest(lineage, id).and_then(|bytes| manifest::decode_clear(&bytes));
            items.push(item_of(id, location, clear, &marks));
        }
        Ok(items)
    })
    .await?;
    let mut items: BTreeMap<BackupId, Item> = in_store.into_iter().map(|item| (item.id, item)).collect();
    for row in rows {
        add_history(&mut items, row);
    }
    let reasons = keep_reasons(ctx, items.values(), needed);
    let mut list: Vec<Item> = items.into_values().collect();
    for item in &mut list {
        item.keep_reason = reasons.get(&item.id).cloned();
    }
    list.sort_by_key(|item| std::cmp::Reverse((item.created_at, item.id)));
    Ok(list)
}

fn item_of(id: BackupId, location: String, clear: Result<manifest::UnverifiedManifest>, marks: &[Mark]) -> Item {
    let mut item = Item {
        id,
        created_at: Time::UNIX_EPOCH,
        purpose: String::new(),
        database: String::new(),
        run_id: None,
        status: "complete".to_owned(),
        key_ids: Vec::new(),
        verified_at: None,
        drilled_at: None,
        raw_bytes: None,
        stored_bytes: None,
        duration_ms: None,
        pinned: false,
        tags: Vec::new(),
        keep_reason: None,
        location,
        error: None,
    };
    // A backup copied under another id is not that backup, however well it reads.
    let clear = clear.and_then(|manifest| {
        if manifest.clear.backup == id {
            Ok(manifest)
        } else {
            Err(Error::verification(format!(
                "the manifest at the place of backup `{id}` is that of backup `{}`",
                manifest.clear.backup
            )))
        }
    });
    match clear {
        Ok(manifest) => {
            item.created_at = manifest.clear.created_at;
            item.purpose = manifest.clear.purpose.as_str().to_owned();
            item.database = manifest.clear.database;
            item.key_ids = manifest.wraps.into_iter().map(|wrap| wrap.key_id.0).collect();
            item.raw_bytes = Some(manifest.clear.raw_bytes);
            item.stored_bytes = Some(manifest.clear.stored_bytes);
        }
        Err(error) => {
            item.status = "damaged".to_owned();
            item.error = Some(error.one_line());
        }
    }
    let mut damaged_at = None;
    for mark in marks {
        match mark {
            Mark::Verified { at, .. } => item.verified_at = item.verified_at.max(Some(*at)),
            Mark::Damaged { at, error } => damaged_at = Some((*at, error.clone())),
            Mark::Drilled { at, good: true, .. } => item.drilled_at = Some(*at),
            Mark::Drilled { at, .. } => {
                item.error = Some(format!("could not be restored in the drill of {}", at.format("%Y-%m-%d %H:%M UTC")));
            }
            Mark::Pinned { .. } => item.pinned = true,
            Mark::Tag { tag, .. } => item.tags.push(tag.clone()),
        }
    }
    if item.status != "damaged" && item.verified_at.is_some() {
        item.status = "verified".to_owned();
    }
    // The later of the two verdicts holds: a bad disk that was mended may be read again.
    if let Some((at, error)) = damaged_at
        && item.verified_at.is_none_or(|verified| verified < at)
    {
        item.status = "damaged".to_owned();
        item.error = Some(error);
    }
    item
}

/// A backup that the history knows: adds what only it knows, or reports one that the store lacks.
fn add_history(items: &mut BTreeMap<BackupId, Item>, row: &BackupRow) {
    let duration_ms = row.finished_at.and_then(|end| u64::try_from((end - row.started_at).num_milliseconds()).ok());
    if let Some(item) = items.get_mut(&row.id) {
        item.run_id = row.run;
        item.duration_ms = duration_ms;
        return;
    }
    let status = match row.status.as_str() {
        "complete" | "verified" | "damaged" => "damaged",
        other => other,
    };
    let error = if status == "damaged" {
        Some("the history knows this backup and the store does not have it".to_owned())
    } else {
        row.error.clone()
    };
    items.insert(
        row.id,
        Item {
            id: row.id,
            created_at: row.started_at,
            purpose: row.purpose.clone(),
            database: row.database.clone(),
            run_id: row.run,
            status: status.to_owned(),
            key_ids: row.key_ids.clone(),
            verified_at: row.verified_at,
            drilled_at: row.drilled_at,
            raw_bytes: row.raw_bytes.and_then(|count| u64::try_from(count).ok()),
            stored_bytes: row.stored_bytes.and_then(|count| u64::try_from(count).ok()),
            duration_ms,
            pinned: row.pinned,
            tags: Vec::new(),
            keep_reason: None,
            location: row.location.clone(),
            error,
        },
    );
}

/// Whether the store has it and it is not known to be damaged.
fn is_good(item: &Item) -> bool {
    matches!(item.status.as_str(), "complete" | "verified")
}

/// What retention looks at.
pub fn candidates<'a>(items: impl Iterator<Item = &'a Item>, needed: &BTreeMap<BackupId, RunId>) -> Vec<Candidate> {
    items
        .filter(|item| is_good(item) || item.status == "damaged")
        .map(|item| Candidate {
            id: item.id,
            created_at: item.created_at,
            purpose: purpose_of(&item.purpose),
            good: is_good(item),
            pinned: item.pinned,
            tags: item.tags.clone(),
            stored_bytes: item.stored_bytes.unwrap_or(0),
            needed_by: needed.get(&item.id).map(ToString::to_string),
        })
        .collect()
}

fn purpose_of(word: &str) -> Purpose {
    match word {
        "pre-apply" => Purpose::PreApply,
        "scheduled" => Purpose::Scheduled,
        "safety" => Purpose::Safety,
        _ => Purpose::Manual,
    }
}

fn keep_reasons<'a>(
    ctx: &Context,
    items: impl Iterator<Item = &'a Item>,
    needed: &BTreeMap<BackupId, RunId>,
) -> BTreeMap<BackupId, String> {
    retention::plan(&ctx.settings.retention, &candidates(items, needed), clock::now())
        .into_iter()
        .filter(|verdict| verdict.keep)
        .map(|verdict| (verdict.id, verdict.reasons.join(", ")))
        .collect()
}

/// Which backup a person means: `latest` (the newest verified one that is neither a safety backup nor imported) or the
/// beginning of an id.
pub async fn resolve(ctx: &Context, lineage: Lineage, selector: &str) -> Result<BackupId> {
    let items = list(ctx, lineage, &[], &BTreeMap::new()).await?;
    if selector == "latest" {
        return latest(ctx, lineage, &items).await;
    }
    let wanted = selector.to_lowercase();
    let found: Vec<&Item> = items.iter().filter(|item| item.id.to_string().starts_with(&wanted)).collect();
    match found.as_slice() {
        [one] => Ok(one.id),
        [] => {
            Err(Error::usage(format!("no backup of this database begins with `{selector}`"))
                .hint("ripcord backup list"))
        }
        many => {
            let mut error = Error::usage(format!("{} backups begin with `{selector}`", many.len()));
            for item in many.iter().take(5) {
                error = error.because(format!("`{}` of {}", item.id, item.created_at.format("%Y-%m-%d %H:%M:%S UTC")));
            }
            Err(error.hint("give more of the id"))
        }
    }
}

/// What to restore in place of a damaged backup: the newest good one that is older, else the newest good one.
pub async fn instead_of(ctx: &Context, lineage: Lineage, damaged: BackupId) -> String {
    let items = list(ctx, lineage, &[], &BTreeMap::new()).await.unwrap_or_default();
    let good =
        |item: &&Item| item.status == "verified" && item.id != damaged && item.purpose != Purpose::Safety.as_str();
    let older = items.iter().filter(good).filter(|item| item.id < damaged).max_by_key(|item| item.created_at);
    let (item, which) = match older {
        Some(item) => (item, "the one before it"),
        None => match items.iter().filter(good).max_by_key(|item| item.created_at) {
            Some(item) => (item, "another one"),
            None => return "there is no other good one; when the database lives: ripcord backup create".to_owned(),
        },
    };
    let at = item.created_at.format("%Y-%m-%d %H:%M:%S UTC");
    format!("restore {which}, of {at}: ripcord restore {}", item.id)
}

/// Tells newer backups than the one chosen that the history knows and the store lacks.
pub async fn warn_of_missing(ctx: &Context, lineage: Lineage, chosen: BackupId, rows: &[BackupRow]) -> Result<()> {
    let store = ctx.store.clone();
    let there = blocking(move || store.backups(lineage)).await?;
    let good = |row: &&BackupRow| matches!(row.status.as_str(), "complete" | "verified" | "damaged");
    for row in rows.iter().filter(good).filter(|row| row.id > chosen && !there.contains(&row.id)) {
        if row.purpose != Purpose::Safety.as_str() {
            ctx.progress.warn(format!("backup `{}` is newer, and the store does not have it any more", row.id));
        }
    }
    Ok(())
}

/// The newest backup that is known to be good, by the time in the sealed part: what a list shows could be altered by
/// anyone who can write to the store. Newer ones that are not good are told, and remembered as damaged.
async fn latest(ctx: &Context, lineage: Lineage, items: &[Item]) -> Result<BackupId> {
    let none = || {
        Error::failed(format!("there is no verified backup of this database in {}", ctx.store.location()))
            .hint("ripcord backup list")
    };
    let mut damaged: Vec<(BackupId, String)> = items
        .iter()
        .filter(|item| item.status == "damaged")
        .map(|item| (item.id, item.error.clone().unwrap_or_default()))
        .collect();
    let mut newest: Option<(Time, BackupId)> = None;
    let mut locked: Option<(BackupId, Error)> = None;
    for item in items.iter().filter(|item| item.status == "verified" && item.purpose != Purpose::Safety.as_str()) {
        match super::backup::open_manifest(ctx, lineage, item.id).await {
            Ok((manifest, _)) if manifest.clear.purpose == Purpose::Safety || manifest.is_imported() => {}
            Ok((manifest, _)) => newest = newest.max(Some((manifest.sealed.created_at, item.id))),
            Err(error) if error.kind() == crate::error::Kind::Verification => {
                super::backup::mark_if_damaged(ctx, lineage, item.id, &error).await;
                damaged.push((item.id, error.one_line()));
            }
            // Ids sort by time, and nobody can change the one that a backup lies under.
            Err(error) if locked.as_ref().is_none_or(|(id, _)| *id < item.id) => locked = Some((item.id, error)),
            Err(_) => {}
        }
    }
    if let Some((id, error)) = locked
        && newest.is_none_or(|(_, newest)| newest < id)
    {
        return Err(error);
    }
    let newest = newest.map(|(_, id)| id);
    for (id, why) in damaged.into_iter().filter(|(id, _)| newest.is_none_or(|newest| newest < *id)) {
        ctx.progress.warn(format!("backup `{id}` is newer, and is damaged: {why}"));
    }
    newest.ok_or_else(none)
}
