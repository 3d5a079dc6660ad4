//! Adding a wrap to a manifest, and taking one.

use super::plan::Line;
use super::{Vault, Work};
use crate::error::{Error, Result};
use crate::keys::{KeyId, KeyRing, MasterKey, Wrap};
use crate::manifest;

use super::super::context::blocking;

/// Lets `keys` open a backup besides those that do. Each is seen to open what will be written before it is written.
pub(super) async fn add(vault: &Vault, line: &Line, keys: &[MasterKey]) -> Result<()> {
    let (store, ring, keys) = (vault.store.clone(), vault.ring.clone(), keys.to_vec());
    let (lineage, id) = (line.lineage, line.id);
    blocking(move || {
        let bytes = store.manifest(lineage, id)?;
        // Authenticated as a whole, so that no key is given to what somebody put there.
        let (opened, _) = manifest::decode(&bytes, lineage, id, &ring)?;
        let data_key = ring.unwrap(id, &opened.wraps)?;
        let mut wraps = opened.wraps;
        let mut changed = false;
        for key in &keys {
            if opens(&bytes, key, lineage, id) {
                continue;
            }
            // One of that name that opens nothing is damaged or forged.
            wraps.retain(|wrap| wrap.key_id != key.id());
            wraps.push(key.wrap(id, &data_key));
            changed = true;
        }
        if !changed {
            return Ok(());
        }
        let rewritten = manifest::rewrap(&bytes, &wraps)?;
        for key in &keys {
            if !opens(&rewritten, key, lineage, id) {
                return Err(Error::failed(format!("key `{}` would not open what would be written", key.id())));
            }
        }
        store.replace_manifest(lineage, id, &rewritten)
    })
    .await
}

/// Takes the key that goes out of a manifest. Unless that is what was confirmed, another that is at hand opens it.
pub(super) async fn remove(vault: &Vault, line: &Line, work: &Work) -> Result<()> {
    let Some(going) = work.going() else { return Ok(()) };
    let unproved = line.does == super::Does::Unproved;
    let (store, ring) = (vault.store.clone(), vault.ring.clone());
    let (lineage, id) = (line.lineage, line.id);
    blocking(move || {
        let bytes = store.manifest(lineage, id)?;
        let wraps: Vec<Wrap> =
            manifest::decode_clear(&bytes)?.wraps.into_iter().filter(|wrap| wrap.key_id != going).collect();
        let rewritten = manifest::rewrap(&bytes, &wraps)?;
        if !unproved && !others(&ring, &going).iter().any(|key| opens(&rewritten, key, lineage, id)) {
            return Err(Error::verification(format!("no key at hand but `{going}` opens backup `{id}`")));
        }
        store.replace_manifest(lineage, id, &rewritten)
    })
    .await
}

/// The keys at hand that stay.
pub(super) fn others(ring: &KeyRing, going: &KeyId) -> Vec<MasterKey> {
    ring.keys().iter().filter(|key| key.id() != *going).cloned().collect()
}

/// Whether this key alone opens the whole manifest.
pub(super) fn opens(bytes: &[u8], key: &MasterKey, lineage: crate::ids::Lineage, id: crate::ids::BackupId) -> bool {
    KeyRing::new(vec![key.clone()]).and_then(|alone| manifest::decode(bytes, lineage, id, &alone)).is_ok()
}
