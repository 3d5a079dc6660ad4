//! Master keys, the data key of a backup, and what is derived from them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::BackupId;

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
pub struct MasterKey(());

impl MasterKey {
    /// A fresh random one.
    pub fn generate() -> Self {
        todo!()
    }

    /// From 64 hexadecimal digits, white space around them forgiven. The error says what was found
    /// instead (its length, an odd character), never the text.
    pub fn from_hex(_text: &str) -> Result<Self> {
        todo!()
    }

    /// The digits, for writing a new key file.
    pub fn to_hex(&self) -> secrecy::SecretString {
        todo!()
    }

    /// Its public name.
    pub fn id(&self) -> KeyId {
        todo!()
    }

    /// The key that the journal's steps are authenticated with (HMAC-SHA-256).
    pub fn journal_key(&self) -> JournalKey {
        todo!()
    }

    /// Wraps a backup's data key: AES-256-GCM, random nonce, bound to format, backup id and key id.
    pub fn wrap(&self, _backup: BackupId, _data_key: &DataKey) -> Wrap {
        todo!()
    }
}

/// The key for [`crate::journal`].
#[derive(Clone)]
pub struct JournalKey(());

impl JournalKey {
    /// HMAC-SHA-256 over `bytes`.
    pub fn mac(&self, _bytes: &[u8]) -> [u8; 32] {
        todo!()
    }
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
            return Err(crate::Error::usage("a key ring needs a key"));
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

    /// Opens the first wrap that one of these keys made. The error names the key ids that could open
    /// it and those that are held.
    pub fn unwrap(&self, _backup: BackupId, _wraps: &[Wrap]) -> Result<DataKey> {
        todo!()
    }
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
pub struct DataKey(());

impl DataKey {
    /// A fresh random one.
    pub fn generate() -> Self {
        todo!()
    }

    /// What seals and digests this backup.
    pub fn subkeys(&self) -> SubKeys {
        todo!()
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
