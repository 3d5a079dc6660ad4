//! What becomes of the journals that a key has written.

use std::collections::BTreeMap;

use super::{Plan, Vault, Work, wraps};
use crate::error::Result;
use crate::ids::{Lineage, RunId};
use crate::keys::{Handover, KeyId, KeyRing, MasterKey};
use crate::store::Store;

use super::super::context::blocking;
use super::super::journals::Readers;

/// Hands every journal key that is known here to the keys that come (or stay). Of a key that leaked, only what it has
/// written so far is believed from now on.
pub(super) async fn hand_over(vault: &Vault, work: &Work, plan: &Plan) -> Result<()> {
    let readers: Vec<MasterKey> = match work {
        Work::Add { keys } => keys.clone(),
        Work::Rotate { old, .. } => wraps::others(&vault.ring, &old.id()),
        Work::Remove { key } => wraps::others(&vault.configured, key),
    };
    // While backups are still to be sealed anew, the key was in use until now; a later repetition vouches for nothing
    // that came after.
    let leaked = match work {
        Work::Rotate { old, reencrypt: true, .. } if plan.lines.iter().any(|line| line.does.changes()) => {
            Some(old.clone())
        }
        _ => None,
    };
    let (store, ring) = (vault.store.clone(), vault.ring.clone());
    blocking(move || {
        for lineage in store.lineages()? {
            hand_over_in(&store, &ring, lineage, &readers, leaked.as_ref())?;
        }
        Ok(())
    })
    .await
}

fn hand_over_in(
    store: &Store,
    ring: &KeyRing,
    lineage: Lineage,
    readers: &[MasterKey],
    leaked: Option<&MasterKey>,
) -> Result<()> {
    let there = store.handovers(lineage)?;
    let known = Readers::of(store, ring, lineage)?;
    let mut limits = given_up(&there, ring, lineage);
    if let Some(leaked) = leaked {
        let written = known.written_by(&leaked.handover())?;
        limits.insert(leaked.id(), written.into_iter().map(|(run, (end, _))| (run, end)).collect());
    }
    for handed in known.known() {
        let limit = limits.get(&handed.writer);
        let handed = Handover { runs: limit.cloned().or_else(|| handed.runs.clone()), ..handed.clone() };
        for reader in readers.iter().filter(|reader| reader.id() != handed.writer) {
            let name = Handover::name(&handed.writer, &reader.id());
            let before = there.iter().find(|(known, _)| *known == name);
            let same = before
                .and_then(|(_, bytes)| Handover::open(bytes, reader, lineage))
                .is_some_and(|before| before.runs == handed.runs);
            if !same {
                store.put_handover(lineage, &name, &handed.seal(reader, lineage))?;
            }
        }
    }
    Ok(())
}

/// Keys that vouch only for what they had written when they were given up: that is never widened again.
fn given_up(there: &[(String, Vec<u8>)], ring: &KeyRing, lineage: Lineage) -> BTreeMap<KeyId, BTreeMap<RunId, String>> {
    let mut limits = BTreeMap::new();
    for (_, bytes) in there {
        for reader in ring.keys() {
            if let Some(opened) = Handover::open(bytes, reader, lineage)
                && let Some(runs) = opened.runs
            {
                limits.insert(opened.writer, runs);
            }
        }
    }
    limits
}

/// Takes away what was handed to the key that goes; and of one that leaked, what it had handed, without a limit, to
/// keys that are not at hand.
pub(super) async fn forget(vault: &Vault, work: &Work) -> Result<()> {
    let Some(going) = work.going() else { return Ok(()) };
    let leaked = matches!(work, Work::Rotate { reencrypt: true, .. });
    let (store, ring) = (vault.store.clone(), vault.ring.clone());
    blocking(move || {
        for lineage in store.lineages()? {
            for (name, _) in store.handovers(lineage)? {
                let Some((writer, reader)) = name.split_once('.') else { continue };
                let at_hand = ring.find(&KeyId(reader.to_owned())).is_some();
                if reader == going.0 || (leaked && writer == going.0 && !at_hand) {
                    store.delete_handover(lineage, &name)?;
                }
            }
        }
        Ok(())
    })
    .await
}
