//! Master keys, the data key of a backup, and what is derived from them.
//!
//! Every derivation is HKDF-SHA-256 (RFC 5869) with an info string of its own, so that no two uses
//! share a key. `docs/archive-format.md` lists them.

mod handover;

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand::RngCore;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};
use crate::ids::BackupId;

pub use handover::Handover;

/// The format that wraps are bound to; the archive's own number.
const FORMAT: u32 = 1;

/// The public name of a master key: 16 hexadecimal digits derived from it (HKDF-SHA-256, RFC 5869).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A 256-bit master key. Zeroed when dropped; has no way to be printed.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A fresh random one.
    pub fn generate() -> Self {
        MasterKey(random())
    }

    /// From 64 hexadecimal digits, white space around them forgiven. The error says what was found
    /// instead (its length, an odd character), never the text.
    pub fn from_hex(text: &str) -> Result<Self> {
        let digits = text.trim();
        let hint = "a key is 64 hexadecimal digits: make one with `ripcord key generate`";
        if digits.is_empty() {
            return Err(Error::usage("the key is empty").hint(hint));
        }
        if let Some((position, _)) = digits.chars().enumerate().find(|(_, character)| !character.is_ascii_hexdigit()) {
            return Err(Error::usage(format!(
                "the key's character {} of {} is not a hexadecimal digit",
                position + 1,
                digits.chars().count()
            ))
            .hint(hint));
        }
        let mut key = Zeroizing::new([0; 32]);
        if hex::decode_to_slice(digits, key.as_mut_slice()).is_err() {
            return Err(
                Error::usage(format!("the key has {} hexadecimal digits instead of 64", digits.len())).hint(hint)
            );
        }
        Ok(MasterKey(key))
    }

    /// The digits, for writing a new key file.
    pub fn to_hex(&self) -> SecretString {
        SecretString::from(hex::encode(self.0.as_slice()))
    }

    /// Its public name.
    pub fn id(&self) -> KeyId {
        let mut name = [0; 8];
        derive(None, &self.0, "ripcord/1/key-id", &mut name);
        KeyId(hex::encode(name))
    }

    /// The key that the journal's steps are authenticated with (HMAC-SHA-256).
    pub fn journal_key(&self) -> JournalKey {
        let mut key = Zeroizing::new([0; 32]);
        derive(None, &self.0, "ripcord/1/journal", key.as_mut_slice());
        JournalKey(key)
    }

    /// Wraps a backup's data key: AES-256-GCM, random nonce, bound to format, backup id and key id.
    pub fn wrap(&self, backup: BackupId, data_key: &DataKey) -> Wrap {
        let key_id = self.id();
        let mut nonce = [0; 12];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: data_key.0.as_slice(), aad: &wrap_binding(backup, &key_id) };
        // AES-GCM refuses only texts beyond 64 GiB; an empty wrap opens under no key.
        let sealed = self.wrap_cipher().encrypt(&nonce.into(), payload).unwrap_or_default();
        Wrap { key_id, nonce: hex::encode(nonce), sealed: hex::encode(sealed) }
    }

    fn open_wrap(&self, backup: BackupId, wrap: &Wrap) -> Option<DataKey> {
        let mut nonce = [0; 12];
        hex::decode_to_slice(&wrap.nonce, &mut nonce).ok()?;
        let mut sealed = [0; 48];
        hex::decode_to_slice(&wrap.sealed, &mut sealed).ok()?;
        let payload = Payload { msg: &sealed, aad: &wrap_binding(backup, &wrap.key_id) };
        let opened = self.wrap_cipher().decrypt(&nonce.into(), payload).ok()?;
        let opened = Zeroizing::new(opened);
        let mut key = Zeroizing::new([0; 32]);
        if opened.len() != key.len() {
            return None;
        }
        key.copy_from_slice(&opened);
        Some(DataKey(key))
    }

    fn wrap_cipher(&self) -> Aes256Gcm {
        let mut key = Zeroizing::new([0; 32]);
        derive(None, &self.0, "ripcord/1/wrap", key.as_mut_slice());
        cipher(&key)
    }
}

/// The key for [`crate::journal`].
#[derive(Clone)]
pub struct JournalKey(Zeroizing<[u8; 32]>);

impl JournalKey {
    /// HMAC-SHA-256 over `bytes`.
    pub fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new(&padded(&self.0).into());
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

/// HMAC pads its key with zeros to the hash's block (RFC 2104), so this is the same key, in the
/// length whose constructor cannot fail.
fn padded(key: &[u8; 32]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    block
}

/// The master keys that a run holds: the first wraps new backups, all may open old ones.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<MasterKey>,
}

impl KeyRing {
    /// `keys` must not be empty; the first is the primary one.
    pub fn new(keys: Vec<MasterKey>) -> Result<Self> {
        if keys.is_empty() {
            return Err(Error::usage("a key ring needs a key"));
        }
        Ok(KeyRing { keys })
    }

    /// The one that new backups are wrapped by first.
    pub fn primary(&self) -> &MasterKey {
        &self.keys[0]
    }

    /// All of them.
    pub fn keys(&self) -> &[MasterKey] {
        &self.keys
    }

    /// The same with further keys that only open. Keys that are held already are not taken twice.
    pub fn with(&self, more: &[MasterKey]) -> KeyRing {
        let mut keys = self.keys.clone();
        for key in more {
            if !keys.iter().any(|held| held.id() == key.id()) {
                keys.push(key.clone());
            }
        }
        KeyRing { keys }
    }

    /// The held key of that name.
    pub fn find(&self, id: &KeyId) -> Option<&MasterKey> {
        self.keys.iter().find(|key| key.id() == *id)
    }

    /// Opens the first wrap that one of these keys made. The error names the key ids that could open
    /// it and those that are held.
    pub fn unwrap(&self, backup: BackupId, wraps: &[Wrap]) -> Result<DataKey> {
        let mut refused = None;
        for key in &self.keys {
            let id = key.id();
            for wrap in wraps.iter().filter(|wrap| wrap.key_id == id) {
                match key.open_wrap(backup, wrap) {
                    Some(data_key) => return Ok(data_key),
                    None => refused = Some(id.clone()),
                }
            }
        }
        if let Some(id) = refused {
            return Err(Error::verification(format!(
                "the data key of backup `{backup}` does not open with key `{id}`"
            ))
            .because("its wrap was changed, or belongs to another backup"));
        }
        if wraps.is_empty() {
            return Err(Error::verification(format!("backup `{backup}` has no wrapped data key")));
        }
        let needed = listed(wraps.iter().map(|wrap| printable(&wrap.key_id)));
        let held = listed(self.keys.iter().map(|key| key.id().0));
        Err(Error::usage(format!("none of the keys at hand opens backup `{backup}`"))
            .hint(format!("give ripcord the key {needed}; the keys at hand are {held}")))
    }
}

/// Key ids of a manifest are not authenticated: what is no key id is not repeated to a terminal.
pub(crate) fn printable(id: &KeyId) -> String {
    if id.0.len() <= 64 && id.0.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        id.0.clone()
    } else {
        "(not a key id)".to_owned()
    }
}

fn listed(ids: impl Iterator<Item = String>) -> String {
    let quoted: Vec<String> = ids.map(|id| format!("`{id}`")).collect();
    quoted.join(" or ")
}

/// A data key, sealed by a master key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrap {
    /// Which master key opens it.
    pub key_id: KeyId,
    /// 12 bytes, hexadecimal.
    pub nonce: String,
    /// The sealed data key and its tag, hexadecimal.
    pub sealed: String,
}

/// A backup's own random 256-bit key. Zeroed when dropped.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// A fresh random one.
    pub fn generate() -> Self {
        DataKey(random())
    }

    /// What seals and digests this backup.
    pub fn subkeys(&self) -> SubKeys {
        let mut keys = SubKeys { frames: [0; 32], index: [0; 32], manifest: [0; 32], digest: [0; 16] };
        derive(None, &self.0, "ripcord/1/frames", &mut keys.frames);
        derive(None, &self.0, "ripcord/1/index", &mut keys.index);
        derive(None, &self.0, "ripcord/1/manifest", &mut keys.manifest);
        derive(None, &self.0, "ripcord/1/digest", &mut keys.digest);
        keys
    }
}

/// The keys derived from a data key (HKDF-SHA-256). Zeroed when dropped.
#[derive(Clone)]
pub struct SubKeys {
    /// Seals the frames of a stream (AES-256-GCM).
    pub(crate) frames: [u8; 32],
    /// Seals a stream's index.
    pub(crate) index: [u8; 32],
    /// Seals the manifest.
    pub(crate) manifest: [u8; 32],
    /// Keys the row digests (SipHash-1-3-128).
    pub(crate) digest: [u8; 16],
}

impl SubKeys {
    /// The key of the row digests, for [`crate::archive::BlockRows`] and whoever counts rows of a
    /// live database.
    pub fn digest_key(&self) -> [u8; 16] {
        self.digest
    }
}

impl Drop for SubKeys {
    fn drop(&mut self) {
        self.frames.zeroize();
        self.index.zeroize();
        self.manifest.zeroize();
        self.digest.zeroize();
    }
}

/// The key that seals one section of one object: HKDF-SHA-256 of the section's subkey, salted with
/// the random bytes that stand in the object's header. So a stream that is written a second time
/// (after a failed attempt, say) has other keys, and its nonces may repeat.
pub(crate) fn salted(subkey: &[u8; 32], salt: &[u8; 32]) -> Aes256Gcm {
    let mut key = Zeroizing::new([0; 32]);
    derive(Some(salt), subkey, "ripcord/1/salted", key.as_mut_slice());
    cipher(&key)
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(key.into())
}

fn derive(salt: Option<&[u8]>, secret: &[u8; 32], info: &str, into: &mut [u8]) {
    // HKDF refuses only outputs beyond 255 hashes; the longest here is one.
    let derived = Hkdf::<Sha256>::new(salt, secret).expand(info.as_bytes(), into);
    debug_assert!(derived.is_ok());
}

fn wrap_binding(backup: BackupId, key_id: &KeyId) -> Vec<u8> {
    let mut binding = Vec::with_capacity(4 + 16 + 16);
    binding.extend_from_slice(&FORMAT.to_le_bytes());
    binding.extend_from_slice(backup.as_bytes());
    binding.extend_from_slice(key_id.0.as_bytes());
    binding
}

fn random() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rng().fill_bytes(bytes.as_mut_slice());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const DIGITS: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn a_key_survives_its_digits() {
        let key = MasterKey::generate();
        let again = MasterKey::from_hex(&format!(" {}\r\n", key.to_hex().expose_secret())).unwrap();
        assert_eq!(key.id(), again.id());
        assert_ne!(key.id(), MasterKey::generate().id());
    }

    #[test]
    fn a_malformed_key_is_described_and_never_repeated() {
        for (text, expected) in [
            ("", "the key is empty"),
            ("  \n", "the key is empty"),
            (&DIGITS[1..], "63 hexadecimal digits instead of 64"),
            (&format!("{DIGITS}00"), "66 hexadecimal digits instead of 64"),
            (&DIGITS.replace("0a", "O0"), "character 21 of 64"),
            (&DIGITS.replace("101112", "éx1112"), "character 33 of 64"),
            ("hunter2hunter2", "character 1 of 14"),
        ] {
            let Err(error) = MasterKey::from_hex(text) else { panic!("{text} was taken for a key") };
            let told = format!("{error} {}", error.hint_text().unwrap());
            assert!(told.contains(expected), "{told}");
            for part in ["hunter", "O0", "1112131415"] {
                assert!(!told.contains(part), "{told}");
            }
        }
    }

    #[test]
    fn derivations_are_frozen() {
        let key = MasterKey::from_hex(DIGITS).unwrap();
        assert_eq!(key.id().0, "325e2cfc04b5ac74");
        assert_eq!(
            hex::encode(key.journal_key().mac(b"step")),
            "7aba33c3c0c5975dcee0eb6c3d7ca08ea4591179bff0e0c69415d29ce9e509a1"
        );
        let keys = DataKey(Zeroizing::new([7; 32])).subkeys();
        assert_eq!(hex::encode(keys.frames), "86c01ccc935de21210c35963f9d94401944a5634650414874b22f2d254b4b83a");
        assert_eq!(hex::encode(keys.index), "369518655ab9531801d91989d759586af95899858d4892a720dc15abec003c6c");
        assert_eq!(hex::encode(keys.manifest), "55ae1931b7bba679b8ce9f0a0e516d9cd256518d4afbe4df87ee7f090fcf1556");
        assert_eq!(hex::encode(keys.digest), "ad21d263bf63531d166cd059571c9b43");
    }

    #[test]
    fn each_key_of_a_ring_opens_what_it_wrapped() {
        let (old, new) = (MasterKey::generate(), MasterKey::generate());
        let backup = BackupId::new();
        let data_key = DataKey::generate();
        let wraps = [old.wrap(backup, &data_key), new.wrap(backup, &data_key)];
        for keys in [vec![old.clone()], vec![new.clone()], vec![MasterKey::generate(), old]] {
            let ring = KeyRing::new(keys).unwrap();
            let opened = ring.unwrap(backup, &wraps).unwrap();
            assert_eq!(opened.0, data_key.0);
        }
    }

    #[test]
    fn wraps_of_the_same_key_never_look_the_same() {
        let (key, backup, data_key) = (MasterKey::generate(), BackupId::new(), DataKey::generate());
        assert_ne!(key.wrap(backup, &data_key).sealed, key.wrap(backup, &data_key).sealed);
    }

    #[test]
    fn a_missing_key_is_named_beside_those_at_hand() {
        let (needed, held) = (MasterKey::generate(), MasterKey::generate());
        let backup = BackupId::new();
        let wraps = [needed.wrap(backup, &DataKey::generate())];
        let Err(error) = KeyRing::new(vec![held.clone()]).unwrap().unwrap(backup, &wraps) else {
            panic!("opened with the wrong key")
        };
        let hint = error.hint_text().unwrap();
        assert!(hint.contains(&needed.id().0) && hint.contains(&held.id().0), "{hint}");
        assert!(error.message().contains(&backup.to_string()));
    }

    #[test]
    fn a_wrap_opens_for_its_own_backup_and_unchanged_only() {
        let key = MasterKey::generate();
        let backup = BackupId::new();
        let wrap = key.wrap(backup, &DataKey::generate());
        let ring = KeyRing::new(vec![key]).unwrap();
        assert!(ring.unwrap(BackupId::new(), std::slice::from_ref(&wrap)).is_err());
        assert!(ring.unwrap(backup, &[]).is_err());
        for position in 0..wrap.sealed.len() {
            let mut forged = wrap.clone();
            let digit = if &wrap.sealed[position..=position] == "0" { "1" } else { "0" };
            forged.sealed.replace_range(position..=position, digit);
            let Err(error) = ring.unwrap(backup, &[forged]) else { panic!("a changed wrap opened") };
            assert!(error.message().contains("does not open"), "{error}");
        }
        for odd in ["", "00", "zz", &"0".repeat(200)] {
            let forged = Wrap { sealed: odd.to_owned(), ..wrap.clone() };
            assert!(ring.unwrap(backup, &[forged]).is_err());
        }
    }

    #[test]
    fn a_key_id_that_is_none_is_not_repeated() {
        let wrap = Wrap { key_id: KeyId("\u{1b}[31mred".to_owned()), nonce: String::new(), sealed: String::new() };
        let ring = KeyRing::new(vec![MasterKey::generate()]).unwrap();
        let Err(error) = ring.unwrap(BackupId::new(), &[wrap]) else { panic!("opened") };
        assert!(!error.hint_text().unwrap().contains('\u{1b}'));
    }
}
