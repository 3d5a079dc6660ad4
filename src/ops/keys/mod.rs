//! `key add`, `key rotate`, `key remove`: who can open the backups of a store.
//!
//! Every step is one atomic replacement of one manifest (or of one small object), and none takes a way in before
//! another was proved. So a process that is killed leaves a store in which every backup opens with a key that the
//! command was given, and the same command run again finds what is left to do. Nothing is written down about how far
//! it came: the manifests say it.

mod journals;
mod plan;
mod reencrypt;
mod wraps;

use serde::Serialize;
use tokio::sync::watch;

pub use plan::{Does, Line, Plan};

use super::context::{Context, blocking};
use super::fault::Faults;
use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::{BackupId, Lineage};
use crate::keys::{KeyId, KeyRing, MasterKey};
use crate::postgres::guard::Guard;
use crate::progress::Progress;
use crate::store::Store;

/// What is to be done.
#[derive(Clone)]
pub enum Work {
    /// These keys shall open every backup, besides those that do already.
    Add {
        /// The keys to add.
        keys: Vec<MasterKey>,
    },
    /// One key takes the place of another.
    Rotate {
        /// The key that comes.
        new: MasterKey,
        /// The key that goes.
        old: MasterKey,
        /// The archives are sealed anew: who held the old key may have kept their data keys.
        reencrypt: bool,
    },
    /// A key shall open nothing any more.
    Remove {
        /// The key that goes; it need not be at hand.
        key: KeyId,
    },
}

/// What the key commands work on. No database is needed for any of it.
pub struct Vault {
    /// The store: all of it, whosesoever the backups are.
    pub store: Store,
    /// All keys at hand, the configured ones first.
    pub ring: KeyRing,
    /// The configured ones alone.
    pub configured: KeyRing,
    /// zstd's level, for what is sealed anew.
    pub level: i32,
    /// Who is told.
    pub progress: Progress,
    /// Where the tests make this process die or wait.
    pub faults: Faults,
    /// Becomes true when the work shall stop in order.
    pub cancel: watch::Receiver<bool>,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Done {
    /// The lines of the plan, as they were carried out.
    pub lines: Vec<Line>,
    /// Backups that could not be worked on, each with the reason.
    pub failed: Vec<(BackupId, String)>,
}

impl Work {
    /// Its name in the audit log and in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Work::Add { .. } => "key add",
            Work::Rotate { reencrypt: false, .. } => "key rotate",
            Work::Rotate { reencrypt: true, .. } => "key rotate --reencrypt",
            Work::Remove { .. } => "key remove",
        }
    }

    /// The key that goes.
    fn going(&self) -> Option<KeyId> {
        match self {
            Work::Add { .. } => None,
            Work::Rotate { old, .. } => Some(old.id()),
            Work::Remove { key } => Some(key.clone()),
        }
    }
}

/// What would be done, looking at every manifest of the store; changes nothing.
pub async fn plan(vault: &Vault, work: &Work) -> Result<Plan> {
    let (store, ring, configured, work) =
        (vault.store.clone(), vault.ring.clone(), vault.configured.clone(), work.clone());
    blocking(move || plan::plan(&store, &ring, &configured, &work)).await
}

/// Carries a plan out. `database` is the target, where there is one: its lock is held, so that no run of it is at
/// work, and its history learns what was done. `confirmed` is the number of backups that may be lost.
pub async fn execute(
    vault: &Vault,
    database: Option<&Context>,
    work: &Work,
    plan: Plan,
    confirmed: Option<usize>,
) -> Result<Done> {
    // Refused before anything is held or written.
    plan.permits(confirmed)?;

    // A store in which there is nothing is not made by looking for it.
    let store = vault.store.clone();
    if blocking(move || store.lineages()).await?.is_empty() {
        return Ok(Done::default());
    }

    // One command at a time rewrites manifests, and none while a run of this database is at work.
    let held = hold(vault).await?;
    let guard = lock_database(vault, database).await?;
    // What was shown may be older than what is held now.
    let plan = match self::plan(vault, work).await? {
        now if now.same_as(&plan) => now,
        now => {
            now.permits(confirmed)?;
            now
        }
    };

    let done = carry_out(vault, work, plan).await;

    if let Some((guard, ctx)) = guard {
        if let Ok(done) = &done {
            record(vault, ctx, work, done).await;
        }
        guard.release().await?;
    }
    drop(held);
    let done = done?;
    match done.failed.first() {
        None => Ok(done),
        Some((id, why)) => Err(Error::verification(format!(
            "{} of {} backups could not be worked on",
            done.failed.len(),
            done.lines.len()
        ))
        .because(format!("`{id}`: {why}"))
        .hint("ripcord backup verify --all")),
    }
}

/// The order is what makes it safe to be killed anywhere.
async fn carry_out(vault: &Vault, work: &Work, plan: Plan) -> Result<Done> {
    let mut done = Done::default();
    // Journals first: a key that is at hand no more must have handed over what it has written down.
    journals::hand_over(vault, work, &plan).await?;
    vault.faults.at("keys_handed_over").await;

    // A way in for every backup, before one is taken from any.
    let coming: Vec<MasterKey> = match work {
        Work::Add { keys } => keys.clone(),
        Work::Rotate { new, .. } => vec![new.clone()],
        Work::Remove { .. } => Vec::new(),
    };
    for line in plan.lines.iter().filter(|line| matches!(line.does, Does::Add | Does::Exchange | Does::Reencrypt)) {
        vault.check_cancelled()?;
        vault.faults.at("key_before_add").await;
        let added = wraps::add(vault, line, &coming).await;
        note(vault, &mut done, line, added)?;
        vault.faults.at("key_added").await;
    }

    // Only then is the old one taken, from what the new one was seen to open.
    for line in &plan.lines {
        vault.check_cancelled()?;
        if done.failed.iter().any(|(id, _)| *id == line.id) {
            continue;
        }
        let result = match (line.does, work) {
            (Does::Exchange | Does::Remove | Does::Unproved, _) => wraps::remove(vault, line, work).await,
            (Does::Reencrypt, Work::Rotate { new, old, .. }) => reencrypt::reencrypt(vault, line, new, old).await,
            (Does::Delete, _) => delete(vault, line).await,
            _ => Ok(()),
        };
        note(vault, &mut done, line, result)?;
        vault.faults.at("key_step_done").await;
    }
    if matches!(work, Work::Rotate { reencrypt: true, .. }) {
        // Also of those that an earlier, killed command had sealed anew.
        for line in plan.lines.iter().filter(|line| line.does != Does::Unopened) {
            let swept = reencrypt::sweep(vault, line.lineage, line.id).await;
            note(vault, &mut done, line, swept)?;
        }
    }
    journals::forget(vault, work).await?;
    done.lines = plan.lines;
    Ok(done)
}

/// One backup that cannot be worked on does not keep the others from it; one that is gone was pruned meanwhile.
fn note(vault: &Vault, done: &mut Done, line: &Line, result: Result<()>) -> Result<()> {
    let Err(error) = result else { return Ok(()) };
    if !vault.store.has_manifest(line.lineage, line.id)? {
        return Ok(());
    }
    match error.kind() {
        Kind::Verification | Kind::Usage => {
            vault.progress.warn(format!("backup `{}`: {}", line.id, error.one_line()));
            if !done.failed.iter().any(|(id, _)| *id == line.id) {
                done.failed.push((line.id, error.one_line()));
            }
            Ok(())
        }
        // A full disk, a store that went away: the next one would fare no better.
        _ => Err(error.hint_if_none("nothing is half-way: run the same command again")),
    }
}

async fn delete(vault: &Vault, line: &Line) -> Result<()> {
    let (store, lineage, id) = (vault.store.clone(), line.lineage, line.id);
    blocking(move || store.delete_backup(lineage, id)).await?;
    vault.progress.note(format!("removed backup `{id}`, which nobody can open any more"));
    Ok(())
}

async fn hold(vault: &Vault) -> Result<Box<dyn Send>> {
    let store = vault.store.clone();
    blocking(move || store.hold_keys()).await?.ok_or_else(|| {
        Error::new(Kind::Locked, "another command is at the keys of this store").hint("wait until it has ended")
    })
}

/// The lock of the target, where there is one that answers.
async fn lock_database<'a>(vault: &Vault, database: Option<&'a Context>) -> Result<Option<(Guard, &'a Context)>> {
    let Some(ctx) = database else { return Ok(None) };
    match Guard::acquire(&ctx.target, &ctx.settings, ctx.settings.timeouts.wait_for_lock).await {
        Ok(guard) => Ok(Some((guard, ctx))),
        Err(error) if error.kind() == Kind::Locked => Err(error),
        Err(error) => {
            vault
                .progress
                .warn(format!("without the database, whose history will not know of it: {}", error.one_line()));
            Ok(None)
        }
    }
}

/// The history learns who opens what, and the audit log what was done. The store is what counts.
async fn record(vault: &Vault, ctx: &Context, work: &Work, done: &Done) {
    let recorded = async {
        let session = ctx.connect("keys").await?;
        let Some(lineage) = super::context::lineage_of(&session).await? else { return Ok::<(), Error>(()) };
        let ours: Vec<&Line> = done.lines.iter().filter(|line| line.lineage == lineage).collect();
        for mut row in control::backups(session.client()).await? {
            let Some(line) = ours.iter().find(|line| line.id == row.id && line.does != Does::Nothing) else { continue };
            match current(vault, lineage, row.id).await? {
                Some((key_ids, stored_bytes, digest)) => {
                    row.key_ids = key_ids;
                    row.stored_bytes = i64::try_from(stored_bytes).ok();
                    row.digest = digest.or(row.digest);
                }
                None if line.does == Does::Delete => {
                    row.status = "deleted".to_owned();
                    row.deleted_at = Some(crate::clock::now());
                }
                None => continue,
            }
            control::put_backup(session.client(), &row).await?;
        }
        let changed = done.lines.iter().filter(|line| line.does.changes()).count();
        let detail = serde_json::json!({
            "key": work.going().map(|id| id.0),
            "keys": vault.configured.keys().iter().map(|key| key.id().0).collect::<Vec<_>>(),
            "backups": changed, "failed": done.failed.len(), "by": ctx.identity.holder(),
        });
        control::audit(session.client(), None, work.name(), &detail, None).await
    };
    if let Err(error) = recorded.await {
        vault.progress.warn(format!("it could not be recorded in the database: {}", error.one_line()));
    }
}

/// What a row says of a backup: key ids, stored bytes, digest; `None`: the store has it no more.
async fn current(vault: &Vault, lineage: Lineage, id: BackupId) -> Result<Option<(Vec<String>, u64, Option<String>)>> {
    let (store, ring) = (vault.store.clone(), vault.ring.clone());
    blocking(move || {
        if !store.has_manifest(lineage, id)? {
            return Ok(None);
        }
        let bytes = store.manifest(lineage, id)?;
        let unverified = crate::manifest::decode_clear(&bytes)?;
        let digest = crate::manifest::decode(&bytes, lineage, id, &ring)
            .ok()
            .and_then(|(manifest, _)| manifest.sealed.streams.first().map(|stream| stream.sha256.clone()));
        let ids = unverified.wraps.into_iter().map(|wrap| wrap.key_id.0).collect();
        Ok(Some((ids, unverified.clear.stored_bytes, digest)))
    })
    .await
}

impl Vault {
    fn check_cancelled(&self) -> Result<()> {
        if *self.cancel.borrow() {
            return Err(super::context::stopped().hint("nothing is half-way: run the same command again"));
        }
        Ok(())
    }
}
