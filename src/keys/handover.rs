//! A journal key that one master key hands to another, so that what was written down under the one is still believed
//! under the other. An object is JSON; `docs/keys.md` describes it.

use std::collections::BTreeMap;

use aes_gcm::aead::{Aead, Payload};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{FORMAT, JournalKey, KeyId, MasterKey, cipher, derive};
use crate::ids::{Lineage, RunId};

/// The journals of a master key, for one who holds another.
#[derive(Clone)]
pub struct Handover {
    /// Whose journals: the master key that they were written under.
    pub writer: KeyId,
    /// What they are authenticated with.
    pub key: JournalKey,
    /// The journals that are believed, each with the MAC of its last step; `None`: all, also those to come. A key
    /// that leaked vouches only for what was there when it was given up.
    pub runs: Option<BTreeMap<RunId, String>>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Object {
    format: u32,
    writer: KeyId,
    reader: KeyId,
    nonce: String,
    sealed: String,
}

#[derive(Serialize, Deserialize)]
struct Inner {
    key: String,
    runs: Option<BTreeMap<RunId, String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Handover {
    /// The name of the object that hands the journals of `writer` to `reader`.
    pub fn name(writer: &KeyId, reader: &KeyId) -> String {
        format!("{writer}.{reader}")
    }

    /// Seals it for `reader`: AES-256-GCM under a key of its own, bound to format, lineage and both key ids.
    pub fn seal(&self, reader: &MasterKey, lineage: Lineage) -> Vec<u8> {
        let mut nonce = [0; 12];
        rand::rng().fill_bytes(&mut nonce);
        let inner = Inner { key: hex::encode(self.key.0.as_slice()), runs: self.runs.clone() };
        let plain = Zeroizing::new(serde_json::to_vec(&inner).unwrap_or_default());
        let binding = binding(lineage, &self.writer, &reader.id());
        // AES-GCM refuses only texts beyond 64 GiB; an empty one opens under no key.
        let sealed =
            reader.handover_cipher().encrypt(&nonce.into(), Payload { msg: &plain, aad: &binding }).unwrap_or_default();
        let object = Object {
            format: FORMAT,
            writer: self.writer.clone(),
            reader: reader.id(),
            nonce: hex::encode(nonce),
            sealed: hex::encode(sealed),
        };
        serde_json::to_vec(&object).unwrap_or_default()
    }

    /// Opens an object; `None`: it is for another key, of another lineage, damaged or forged.
    pub fn open(bytes: &[u8], reader: &MasterKey, lineage: Lineage) -> Option<Handover> {
        let object: Object = serde_json::from_slice(bytes).ok()?;
        if object.format != FORMAT || object.reader != reader.id() {
            return None;
        }
        let mut nonce = [0; 12];
        hex::decode_to_slice(&object.nonce, &mut nonce).ok()?;
        let sealed = hex::decode(&object.sealed).ok()?;
        let binding = binding(lineage, &object.writer, &object.reader);
        let payload = Payload { msg: &sealed, aad: &binding };
        let plain = Zeroizing::new(reader.handover_cipher().decrypt(&nonce.into(), payload).ok()?);
        let inner: Inner = serde_json::from_slice(&plain).ok()?;
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&inner.key, key.as_mut_slice()).ok()?;
        Some(Handover { writer: object.writer, key: JournalKey(key), runs: inner.runs.clone() })
    }
}

impl MasterKey {
    /// Everything that this key has written down, for another to believe.
    pub fn handover(&self) -> Handover {
        Handover { writer: self.id(), key: self.journal_key(), runs: None }
    }

    fn handover_cipher(&self) -> aes_gcm::Aes256Gcm {
        let mut key = Zeroizing::new([0; 32]);
        derive(None, &self.0, "ripcord/1/handover", key.as_mut_slice());
        cipher(&key)
    }
}

fn binding(lineage: Lineage, writer: &KeyId, reader: &KeyId) -> Vec<u8> {
    let mut binding = FORMAT.to_le_bytes().to_vec();
    binding.extend_from_slice(lineage.as_bytes());
    for id in [writer, reader] {
        binding.extend_from_slice(&(id.0.len() as u64).to_le_bytes());
        binding.extend_from_slice(id.0.as_bytes());
    }
    binding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_opens_for_its_reader_and_lineage_and_unchanged_only() {
        let (writer, reader, lineage) = (MasterKey::generate(), MasterKey::generate(), Lineage::new());
        let run = RunId::new();
        let mut handed = writer.handover();
        handed.runs = Some(BTreeMap::from([(run, "ab".to_owned())]));
        let bytes = handed.seal(&reader, lineage);
        let opened = Handover::open(&bytes, &reader, lineage).unwrap();
        assert_eq!(opened.writer, writer.id());
        assert_eq!(opened.key.mac(b"x"), writer.journal_key().mac(b"x"));
        assert_eq!(opened.runs.unwrap()[&run], "ab");
        assert!(Handover::open(&bytes, &writer, lineage).is_none());
        assert!(Handover::open(&bytes, &reader, Lineage::new()).is_none());
        // Every field is bound: another writer, and every digit of what is sealed.
        let forged = String::from_utf8(bytes.clone()).unwrap().replace(&writer.id().0, &MasterKey::generate().id().0);
        assert!(Handover::open(forged.as_bytes(), &reader, lineage).is_none());
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert!(Handover::open(&forged, &reader, lineage).is_none(), "byte {at}");
        }
        for cut in 0..bytes.len() {
            assert!(Handover::open(&bytes[..cut], &reader, lineage).is_none());
        }
    }

    #[test]
    fn the_journal_key_stands_nowhere_in_the_object() {
        let (writer, reader) = (MasterKey::generate(), MasterKey::generate());
        let text = String::from_utf8(writer.handover().seal(&reader, Lineage::new())).unwrap();
        assert!(!text.contains(&hex::encode(writer.journal_key().0.as_slice())));
    }
}
