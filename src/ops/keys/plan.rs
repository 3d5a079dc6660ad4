//! What a key command would do with every backup of a store.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Work;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::keys::{KeyId, KeyRing};
use crate::manifest;
use crate::store::{Mark, Store};

use super::super::journals::Readers;

/// What is done with one backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// It is as it shall be.
    Nothing,
    /// A key is added.
    Add,
    /// A key is added and another taken.
    Exchange,
    /// A key is added, the archive sealed anew, the other key taken.
    Reencrypt,
    /// A key is taken; another that is at hand opens it.
    Remove,
    /// A key is taken; by its list of keys another opens it, and that one is not at hand to try.
    Unproved,
    /// No other key opens it, so that it goes as well.
    Delete,
    /// No key at hand opens it: it is left alone.
    Unopened,
}

impl Does {
    /// Whether the backup is changed.
    pub fn changes(self) -> bool {
        !matches!(self, Does::Nothing | Does::Unopened)
    }

    /// Whether something is lost by it, or may be.
    fn loses(self) -> bool {
        matches!(self, Does::Delete | Does::Unproved)
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Does::Nothing => "nothing to do",
            Does::Add => "add the key",
            Does::Exchange => "exchange the keys",
            Does::Reencrypt => "seal anew",
            Does::Remove => "remove the key",
            Does::Unproved => "remove the key; whether another opens it is not proved",
            Does::Delete => "DELETE: no other key opens it",
            Does::Unopened => "left alone: no key at hand opens it",
        }
    }
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which.
    pub id: BackupId,
    /// Whose.
    pub lineage: Lineage,
    /// The database's name then.
    pub database: String,
    /// When it was made.
    pub created_at: Option<Time>,
    /// The keys that its manifest lists.
    pub key_ids: Vec<String>,
    /// What is done with it.
    pub does: Does,
    /// Something to know.
    pub note: Option<String>,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

/// All of them, and what stands against it.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Every backup of the store, oldest first within its lineage.
    pub lines: Vec<Line>,
    /// Backups that would be lost, or could not be shown not to be.
    pub lost: usize,
    /// Why it is not to be done at all.
    #[serde(skip)]
    refusals: Vec<Error>,
}

impl Plan {
    /// Refuses what no option allows, and losses that were not confirmed by their number.
    pub fn permits(&self, confirmed: Option<usize>) -> Result<()> {
        if let Some(error) = self.refusals.first() {
            return Err(error.clone());
        }
        if self.lost == 0 || confirmed == Some(self.lost) {
            return Ok(());
        }
        let mut error = match confirmed {
            None => Error::refused(format!("{} would be lost with the key", backups(self.lost))),
            Some(number) => Error::refused(format!(
                "{} would be lost with the key, and the loss of {number} was confirmed",
                backups(self.lost)
            )),
        };
        for line in self.lines.iter().filter(|line| line.does.loses()).take(10) {
            error = error.because(format!(
                "`{}` of `{}`{}: {}",
                line.id,
                line.database,
                line.created_at.map(|at| at.format(", %Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default(),
                line.note.as_deref().unwrap_or(line.does.words())
            ));
        }
        Err(error.hint(format!(
            "let another key open them first: ripcord key add; to give them up: --confirm-loss {}",
            self.lost
        )))
    }

    /// Whether another plan would do the same.
    pub(super) fn same_as(&self, other: &Plan) -> bool {
        self.lines == other.lines && self.refusals.len() == other.refusals.len()
    }
}

fn backups(count: usize) -> String {
    if count == 1 { "1 backup".to_owned() } else { format!("{count} backups") }
}

/// Looks at every manifest.
pub(super) fn plan(store: &Store, ring: &KeyRing, configured: &KeyRing, work: &Work) -> Result<Plan> {
    let mut plan = Plan { lines: Vec::new(), lost: 0, refusals: Vec::new() };
    if let Work::Remove { key } = work
        && configured.find(key).is_some()
    {
        plan.refusals.push(
            Error::refused(format!("key `{key}` is configured: the next backup would open with it again"))
                .hint("take it out of `[key]` (the main key: `ripcord key rotate`), then remove it"),
        );
    }
    for lineage in store.lineages()? {
        let mut lines = Vec::new();
        for id in store.backups(lineage)? {
            // One that was pruned since the listing is no backup any more.
            match store.manifest(lineage, id) {
                Ok(bytes) => lines.push(line(lineage, id, &bytes, ring, work)),
                Err(_) if !store.has_manifest(lineage, id)? => {}
                Err(error) => return Err(error),
            }
        }
        refuse(store, ring, lineage, &lines, work, &mut plan.refusals)?;
        plan.lines.extend(lines);
    }
    plan.lost = plan.lines.iter().filter(|line| line.does.loses()).count();
    Ok(plan)
}

fn line(lineage: Lineage, id: BackupId, bytes: &[u8], ring: &KeyRing, work: &Work) -> Line {
    let mut line = Line {
        id,
        lineage,
        database: String::new(),
        created_at: None,
        key_ids: Vec::new(),
        does: Does::Unopened,
        note: None,
        stored_bytes: 0,
    };
    let unverified = match manifest::decode_clear(bytes) {
        Ok(unverified) => unverified,
        Err(error) => {
            line.note = Some(error.one_line());
            return line;
        }
    };
    line.database = unverified.clear.database;
    line.created_at = Some(unverified.clear.created_at);
    line.stored_bytes = unverified.clear.stored_bytes;
    line.key_ids = unverified.wraps.iter().map(|wrap| crate::keys::printable(&wrap.key_id)).collect();
    let listed = |key: &KeyId| unverified.wraps.iter().any(|wrap| wrap.key_id == *key);

    // A list of keys is a claim that anyone can write: what counts is what really opens the manifest.
    let mut openers: Vec<KeyId> = Vec::new();
    let mut why = None;
    for key in ring.keys() {
        let alone = KeyRing::new(vec![key.clone()]);
        match alone.and_then(|alone| manifest::decode(bytes, lineage, id, &alone)) {
            Ok(_) => openers.push(key.id()),
            Err(error) if listed(&key.id()) => why = why.or(Some(error.one_line())),
            Err(_) => {}
        }
    }
    let not_at_hand: Vec<String> = unverified
        .wraps
        .iter()
        .map(|wrap| &wrap.key_id)
        .filter(|key| ring.find(key).is_none() && Some(*key) != work.going().as_ref())
        .map(crate::keys::printable)
        .collect();
    match work {
        _ if openers.is_empty() && !matches!(work, Work::Remove { .. }) => line.note = why,
        Work::Add { keys } => {
            let missing = keys.iter().any(|key| !openers.contains(&key.id()));
            line.does = if missing { Does::Add } else { Does::Nothing };
        }
        Work::Rotate { old, .. } if !listed(&old.id()) => line.does = Does::Nothing,
        Work::Rotate { reencrypt: false, .. } => line.does = Does::Exchange,
        Work::Rotate { old, .. } if !openers.contains(&old.id()) => line.does = Does::Exchange,
        Work::Rotate { .. } => {
            line.does = Does::Reencrypt;
            if !not_at_hand.is_empty() {
                line.note = Some(format!(
                    "key {} is not at hand, and will not open it any more: ripcord key add, with that key",
                    not_at_hand.join(", ")
                ));
            }
        }
        Work::Remove { key } if !listed(key) => line.does = Does::Nothing,
        Work::Remove { key } if openers.iter().any(|opener| opener != key) => line.does = Does::Remove,
        Work::Remove { .. } if not_at_hand.is_empty() => line.does = Does::Delete,
        Work::Remove { .. } => {
            line.does = Does::Unproved;
            line.note = Some(format!("it may open with {}, which is not at hand", not_at_hand.join(", ")));
        }
    }
    line
}

/// What no option allows.
fn refuse(
    store: &Store,
    ring: &KeyRing,
    lineage: Lineage,
    lines: &[Line],
    work: &Work,
    refusals: &mut Vec<Error>,
) -> Result<()> {
    for line in lines.iter().filter(|line| line.does == Does::Delete) {
        if store.marks(lineage, line.id)?.iter().any(|mark| matches!(mark, Mark::Pinned { .. })) {
            refusals.push(
                Error::refused(format!("backup `{}` is pinned, and opens with this key alone", line.id))
                    .hint(format!("let another key open it: ripcord key add; or: ripcord backup unpin {}", line.id)),
            );
        }
    }
    if let Work::Rotate { old, reencrypt: true, .. } = work {
        let readers = Readers::of(store, ring, lineage)?;
        let written: BTreeMap<RunId, (String, bool)> = readers.written_by(&old.handover())?;
        // What it vouches for is closed with this command, and a run that goes on would not be believed.
        if let Some((run, _)) = written.iter().find(|(_, (_, closed))| !closed) {
            refusals.push(
                Error::refused(format!("run `{run}` was not finished, and its journal is written with the old key"))
                    .hint("ripcord recover"),
            );
        }
    }
    Ok(())
}
