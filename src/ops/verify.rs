//! `backup verify`: reading backups back, at four depths.
//!
//! | level | what holds afterwards |
//! |---|---|
//! | manifest | it opens with a key at hand, its parts agree, and the streams that it names are there in their length |
//! | archive | every stored byte is the one that was written, and every frame and index authenticates |
//! | toc | besides, the dump inside reads to its end, and every table has the rows that the manifest lists, by digest |
//! | restore | besides, PostgreSQL takes it: restored into a scratch database, schema and every row compared |

use std::time::Instant;

use serde::Serialize;

use super::backup;
use super::catalog::Item;
use super::context::{Context, blocking};
use super::drill;
use crate::clock::{self, Time};
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::{BackupId, Lineage};
use crate::store::{Mark, Store};

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The manifest, and whether its streams are there.
    Manifest,
    /// Every byte is read and authenticated.
    Archive,
    /// The dump inside is read as well.
    Toc,
    /// It is restored and compared.
    Restore,
}

impl Level {
    /// Its word in options, marks and results.
    pub fn word(self) -> &'static str {
        match self {
            Level::Manifest => "manifest",
            Level::Archive => "archive",
            Level::Toc => "toc",
            Level::Restore => "restore",
        }
    }
}

/// What became of one backup.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Which.
    pub id: BackupId,
    /// `verified`, `damaged`, or `not_verified` (no key at hand opens it, say: that is no damage).
    pub status: &'static str,
    /// How deep it was looked.
    pub level: Level,
    /// How long it took.
    pub duration_ms: u64,
    /// What is wrong with it.
    pub error: Option<String>,
    /// The same with its hint and kind.
    #[serde(skip)]
    pub failure: Option<Error>,
}

/// The backups of a sample of `percent`: those that were not looked at so deep for the longest time, at least one.
/// Since each is marked when it was looked at, every backup has its turn: after 100 / percent samples, all have.
/// Those that the history knows and the store lost come first and beyond the number: reading finds nothing in them.
pub async fn sample(
    ctx: &Context,
    lineage: Lineage,
    items: &[Item],
    level: Level,
    percent: f64,
) -> Result<Vec<BackupId>> {
    let store = ctx.store.clone();
    let known: Vec<BackupId> = items.iter().map(|item| item.id).collect();
    blocking(move || {
        let mut lost = Vec::new();
        let mut there: Vec<(Option<Time>, BackupId)> = Vec::new();
        for id in known {
            if store.has_manifest(lineage, id)? {
                there.push((last_looked(&store, lineage, id, level)?, id));
            } else {
                lost.push(id);
            }
        }
        // Never looked at comes first, then the longest ago; of equals the older backup.
        there.sort();
        let count = how_many(there.len(), percent);
        Ok(lost.into_iter().chain(there.into_iter().take(count).map(|(_, id)| id)).collect())
    })
    .await
}

/// Rounded up, and at least one: a sample of a small store is never empty.
fn how_many(there: usize, percent: f64) -> usize {
    let exact = (there as f64 * percent / 100.0).ceil();
    (exact as usize).clamp(1.min(there), there)
}

/// When a backup was last looked at so deep; finding damage counts, or one that is damaged would always be next.
fn last_looked(store: &Store, lineage: Lineage, id: BackupId, level: Level) -> Result<Option<Time>> {
    let marks = store.marks(lineage, id)?;
    Ok(marks
        .iter()
        .filter_map(|mark| match mark {
            Mark::Damaged { at, .. } => Some(*at),
            Mark::Drilled { at, .. } => Some(*at),
            Mark::Verified { at, level: found } => match (level, found.as_str()) {
                (Level::Restore, _) => None,
                (Level::Toc, found) => (found == Level::Toc.word()).then_some(*at),
                (Level::Archive | Level::Manifest, _) => Some(*at),
            },
            _ => None,
        })
        .max())
}

/// Looks at each of them, whatever is found in the others, and remembers what was found: in the store, and in the
/// history where the database answers. An error only where nothing can be said of any backup: a server that is not
/// there, say, for the level `restore`.
pub async fn run(ctx: &Context, lineage: Lineage, ids: &[BackupId], level: Level) -> Result<Vec<Verified>> {
    let mut found = Vec::new();
    for id in ids {
        ctx.check_cancelled()?;
        let began = Instant::now();
        let mut result = one(ctx, lineage, *id, level).await;
        if !ctx.store.has_manifest(lineage, *id)? {
            // Where it is gone, that is what was to be found out.
            result = result.map_err(|error| error.with_kind(Kind::Verification));
        }
        if let Err(error) = &result
            && level == Level::Restore
            && error.kind() != Kind::Verification
            && error.kind() != Kind::Usage
        {
            return Err(error.clone().context(format!("backup `{id}` could not be tried")));
        }
        let status = match &result {
            Ok(()) => "verified",
            Err(error) if error.kind() == Kind::Verification => "damaged",
            Err(_) => "not_verified",
        };
        let failure = result.err();
        found.push(Verified {
            id: *id,
            status,
            level,
            duration_ms: super::beside::millis(began.elapsed()),
            error: failure.as_ref().map(Error::one_line),
            failure,
        });
    }
    record(ctx, &found).await;
    Ok(found)
}

async fn one(ctx: &Context, lineage: Lineage, id: BackupId, level: Level) -> Result<()> {
    match level {
        Level::Manifest => manifest(ctx, lineage, id).await,
        Level::Archive => backup::verify(ctx, lineage, id).await.map(drop),
        Level::Toc => backup::verify_contents(ctx, lineage, id).await,
        Level::Restore => {
            let selector = id.to_string();
            let request = drill::Request { selector: &selector, ..drill::Request::default() };
            drill::drill(ctx, &request).await.map(drop)
        }
    }
}

/// The manifest, and whether what it names is there. Cheap, and no proof that the bytes are good: it leaves no mark
/// when all is well.
async fn manifest(ctx: &Context, lineage: Lineage, id: BackupId) -> Result<()> {
    let looked = async {
        let (manifest, _) = backup::open_manifest(ctx, lineage, id).await?;
        let store = ctx.store.clone();
        blocking(move || {
            for stream in &manifest.sealed.streams {
                let length = store.open_stream(lineage, id, stream.number)?.len_bytes();
                if length != stream.stored_bytes {
                    return Err(Error::verification(format!(
                        "stream {} of backup `{id}` has {length} bytes instead of {}",
                        stream.number, stream.stored_bytes
                    )));
                }
            }
            Ok(())
        })
        .await
    };
    let result = looked.await;
    if let Err(error) = &result {
        backup::mark_if_damaged(ctx, lineage, id, error).await;
    }
    result
}

/// The history says when a backup was last read back, where the database answers; the store's marks are what counts.
async fn record(ctx: &Context, found: &[Verified]) {
    let recorded = async {
        let session = ctx.connect("verify").await?;
        if super::context::lineage_of(&session).await?.is_none() {
            return Ok::<(), Error>(());
        }
        for mut row in control::backups(session.client()).await? {
            let Some(verified) = found.iter().find(|verified| verified.id == row.id) else { continue };
            match verified.status {
                "verified" if verified.level > Level::Manifest => {
                    row.status = "verified".to_owned();
                    row.verified_at = Some(clock::now());
                    row.error = None;
                }
                "damaged" if row.status != "deleted" => {
                    row.status = "damaged".to_owned();
                    row.error = verified.error.as_deref().map(|text| (ctx.hide)(text));
                }
                _ => continue,
            }
            control::put_backup(session.client(), &row).await?;
        }
        Ok(())
    };
    if let Err(error) = recorded.await {
        ctx.progress.warn(format!("the result could not be recorded in the database: {}", error.one_line()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_rounded_up_and_never_empty() {
        for (there, percent, expected) in
            [(0, 10.0, 0), (1, 10.0, 1), (10, 10.0, 1), (11, 10.0, 2), (50, 10.0, 5), (7, 100.0, 7), (1000, 0.5, 5)]
        {
            assert_eq!(how_many(there, percent), expected, "{percent}% of {there}");
        }
    }
}
