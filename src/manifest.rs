//! What a backup is: the record whose presence makes it one.
//!
//! A manifest has a clear part (what a list needs without a key), the wraps of the data key, and a
//! sealed part (everything else). The clear part is authenticated with the sealed one; the wraps are
//! not, so that keys can be added without touching the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::archive::inventory::Inventory;
use crate::archive::{Fingerprint, Index};
use crate::clock::Time;
use crate::error::Result;
use crate::ids::{BackupId, Lineage, RunId};
use crate::keys::{KeyRing, SubKeys, Wrap};

/// Why a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// By `apply`, before its migrations.
    PreApply,
    /// By a person.
    Manual,
    /// By a scheduler.
    Scheduled,
    /// Before a rollback or a restore; never what `latest` means.
    Safety,
}

impl Purpose {
    /// Its word in tables, options and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::PreApply => "pre-apply",
            Purpose::Manual => "manual",
            Purpose::Scheduled => "scheduled",
            Purpose::Safety => "safety",
        }
    }
}

/// What anyone may read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clear {
    /// The format's number, 1.
    pub format: u32,
    /// `dump`; other kinds of safe point will come.
    pub kind: String,
    /// Whose it is.
    pub lineage: Lineage,
    /// Which it is.
    pub backup: BackupId,
    /// Why it was made.
    pub purpose: Purpose,
    /// The database's name then.
    pub database: String,
    /// When the snapshot was taken.
    pub created_at: Time,
    /// Plaintext bytes.
    pub raw_bytes: u64,
    /// Bytes in the store, manifest aside.
    pub stored_bytes: u64,
}

/// One stream of the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its number, from 0; the object is `<number>.rip`.
    pub number: u32,
    /// Its length in the store.
    pub stored_bytes: u64,
    /// SHA-256 of its bytes in the store, hexadecimal.
    pub sha256: String,
    /// Its index.
    pub index: Index,
}

/// What a dump leaves out and a restore must bring back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseProperties {
    /// Owning role.
    pub owner: String,
    /// Encoding's name.
    pub encoding: String,
    /// `c` (libc), `i` (ICU) or `b` (builtin).
    pub locale_provider: String,
    /// LC_COLLATE.
    pub collate: String,
    /// LC_CTYPE.
    pub ctype: String,
    /// ICU or builtin locale.
    pub locale: Option<String>,
    /// ICU rules.
    pub icu_rules: Option<String>,
    /// The collation version recorded in pg_database.
    pub collation_version: Option<String>,
    /// Tablespace.
    pub tablespace: String,
    /// -1: no limit.
    pub connection_limit: i32,
    /// ACL items as PostgreSQL prints them; `None`: the default.
    pub acl: Option<Vec<String>>,
    /// COMMENT ON DATABASE.
    pub comment: Option<String>,
    /// Role (or "" for all) → `name=value` settings, as in pg_db_role_setting.
    pub settings: BTreeMap<String, Vec<String>>,
    /// Security labels: provider → label.
    pub security_labels: BTreeMap<String, String>,
}

/// An extension that was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// An applied migration, so that a restore knows where the database stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRecord {
    /// Version.
    pub version: String,
    /// Name.
    pub name: String,
    /// SHA-256 of the file.
    pub checksum: String,
}

/// What needs the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// Must equal the clear part's.
    pub lineage: Lineage,
    /// Must equal the clear part's.
    pub backup: BackupId,
    /// Must equal the clear part's.
    pub created_at: Time,
    /// When the backup was finished, read back included.
    pub finished_at: Time,
    /// The run that it belongs to.
    pub run: Option<RunId>,
    /// The migrations that the run was about to apply, `version name`.
    pub before: Vec<String>,
    /// `SHOW server_version`.
    pub server_version: String,
    /// `pg_dump --version`.
    pub tool_version: String,
    /// ripcord's own version.
    pub ripcord_version: String,
    /// The streams.
    pub streams: Vec<StreamRecord>,
    /// What a dump leaves out.
    pub properties: DatabaseProperties,
    /// Extensions and versions.
    pub extensions: Vec<ExtensionRecord>,
    /// Large objects.
    pub large_objects: u64,
    /// Sequences: `schema.name` → last value and whether it was called.
    pub sequences: BTreeMap<String, (i64, bool)>,
    /// The applied set.
    pub applied: Vec<AppliedRecord>,
    /// The control schema's rows by table, as JSON arrays, for a restore where the old database is gone.
    pub control_rows: BTreeMap<String, serde_json::Value>,
    /// The schema's inventory.
    pub inventory: Inventory,
    /// The inventory's fingerprint.
    pub fingerprint: Fingerprint,
    /// What the table of contents does not show: invalid indexes, unpopulated views, extension versions.
    pub catalog_extras: Vec<String>,
    /// Transaction snapshot that the backup read (`pg_current_snapshot()`), for counting later writes.
    pub snapshot: String,
    /// The WAL position at the snapshot.
    pub wal_lsn: String,
    /// Tags given at creation.
    pub tags: Vec<String>,
}

/// A manifest in memory, authenticated.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The clear part.
    pub clear: Clear,
    /// The data key's wraps.
    pub wraps: Vec<Wrap>,
    /// The sealed part.
    pub sealed: Sealed,
}

/// A manifest of which only the clear part was read: nothing in it is authenticated.
#[derive(Clone, Debug)]
pub struct UnverifiedManifest {
    /// The clear part.
    pub clear: Clear,
    /// The data key's wraps.
    pub wraps: Vec<Wrap>,
}

/// The largest manifest that is read, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;

/// Writes a manifest: clear part, wraps, sealed part under `keys.manifest`.
pub fn encode(_clear: &Clear, _wraps: &[Wrap], _sealed: &Sealed, _keys: &SubKeys) -> Result<Vec<u8>> {
    todo!()
}

/// Reads the clear part alone.
pub fn decode_clear(_bytes: &[u8]) -> Result<UnverifiedManifest> {
    todo!()
}

/// Opens a manifest with the keys held, and checks that path (`expected_*`), clear part and sealed
/// part agree. Returns the data key's subkeys with it.
pub fn decode(
    _bytes: &[u8],
    _expected_lineage: Lineage,
    _expected_backup: BackupId,
    _keys: &KeyRing,
) -> Result<(Manifest, SubKeys)> {
    todo!()
}
