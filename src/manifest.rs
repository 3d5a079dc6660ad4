//! What a backup is: the record whose presence makes it one.
//!
//! A manifest has a clear part (what a list needs without a key), the wraps of the data key, and a
//! sealed part (everything else). The clear part is authenticated with the sealed one; the wraps are
//! not, so that keys can be added without touching the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::archive::index::missing_field;
use crate::archive::inventory::Inventory;
use crate::archive::seal::{FrameKey, Salt, Section, expect_end, new_salt, read_section, write_section};
use crate::archive::{ArchiveError, FORMAT, Fingerprint, Index, StreamId};
use crate::clock::Time;
use crate::error::{Error, Result};
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

/// The tag of a backup that was made of a dump from elsewhere. Its rows are older than its snapshot.
pub const IMPORTED: &str = "imported";

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
    /// Schemas that the database had and the backup leaves out, besides ripcord's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
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

impl Manifest {
    /// Whether it was made of a dump from elsewhere, so that nothing is known of when its rows are from.
    pub fn is_imported(&self) -> bool {
        self.sealed.tags.iter().any(|tag| tag == IMPORTED)
    }
}

/// A manifest of which only the clear part was read: nothing in it is authenticated.
#[derive(Clone, Debug)]
pub struct UnverifiedManifest {
    /// The clear part.
    pub clear: Clear,
    /// The data key's wraps.
    pub wraps: Vec<Wrap>,
}

/// The largest manifest that is read or written, in bytes; its sealed part as JSON is no larger either.
pub const MAX_BYTES: u64 = 256 << 20;

/// The kind of safe point that this version knows.
const KIND: &str = "dump";

/// The first bytes of every manifest.
const MAGIC: &[u8; 8] = b"ripcman\n";

/// zstd's level for the sealed part: small, and read often.
const LEVEL: i32 = 9;

/// Writes a manifest: clear part, wraps, sealed part under `keys.manifest`. The sealed part gets a
/// random salt, so the same keys may seal more than one version of it.
pub fn encode(clear: &Clear, wraps: &[Wrap], sealed: &Sealed, keys: &SubKeys) -> Result<Vec<u8>> {
    let name = format!("the manifest of backup `{}`", clear.backup);
    if clear.format != FORMAT || clear.kind != KIND {
        return Err(Error::failed(format!("{name} would have format {} and kind `{}`", clear.format, clear.kind)));
    }
    agree(&name, clear, sealed)?;
    let clear_json = json(&name, clear)?;
    let sealed_json = json(&name, sealed)?;
    let salt = new_salt();
    let mut file = start(&name, &clear_json, wraps)?;
    file.extend_from_slice(&salt);
    let key = sealed_key(keys, &salt, clear, &clear_json);
    write_section(&key, LEVEL, &sealed_json, &mut file)
        .map_err(|error| Error::from(error).context(format!("{name} could not be sealed")))?;
    check_size(&name, file.len())?;
    Ok(file)
}

/// The same manifest with other wraps; everything else keeps its bytes. This is how a master key is
/// added, rotated or removed.
pub fn rewrap(bytes: &[u8], wraps: &[Wrap]) -> Result<Vec<u8>> {
    let parts = Parts::of("the manifest", bytes)?;
    if wraps.is_empty() {
        return Err(Error::failed("a manifest without a wrapped key opens for nobody"));
    }
    let mut file = start("the manifest", parts.clear, wraps)?;
    file.extend_from_slice(&parts.salt);
    file.extend_from_slice(parts.frames);
    check_size("the manifest", file.len())?;
    Ok(file)
}

/// Reads the clear part alone.
pub fn decode_clear(bytes: &[u8]) -> Result<UnverifiedManifest> {
    let name = "the manifest";
    let parts = Parts::of(name, bytes)?;
    Ok(UnverifiedManifest { clear: parts.read_clear(name)?, wraps: parts.read_wraps(name)? })
}

/// Opens a manifest with the keys held, and checks that path (`expected_*`), clear part and sealed
/// part agree. Returns the data key's subkeys with it.
pub fn decode(
    bytes: &[u8],
    expected_lineage: Lineage,
    expected_backup: BackupId,
    keys: &KeyRing,
) -> Result<(Manifest, SubKeys)> {
    let name = format!("the manifest of backup `{expected_backup}`");
    let parts = Parts::of(&name, bytes)?;
    let clear = parts.read_clear(&name)?;
    if clear.backup != expected_backup {
        return Err(Error::verification(format!(
            "the manifest of backup `{}` stands at the place of backup `{expected_backup}`",
            clear.backup
        )));
    }
    if clear.lineage != expected_lineage {
        return Err(Error::verification(format!(
            "{name} belongs to lineage `{}`, but stands under lineage `{expected_lineage}`",
            clear.lineage
        )));
    }
    let wraps = parts.read_wraps(&name)?;
    let subkeys = keys.unwrap(expected_backup, &wraps)?.subkeys();
    let sealed = parts.open_sealed(&name, &subkeys, &clear)?;
    agree(&name, &clear, &sealed)?;
    let manifest = Manifest { clear, wraps, sealed };
    Ok((manifest, subkeys))
}

/// The parts of a manifest file, whose lengths are those of bytes that are there.
struct Parts<'a> {
    clear: &'a [u8],
    wraps: &'a [u8],
    salt: Salt,
    frames: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(name: &str, bytes: &'a [u8]) -> Result<Self> {
        check_size(name, bytes.len())?;
        let cut = || Error::verification(format!("{name} is cut off"));
        let (magic, rest) = bytes.split_at(bytes.len().min(MAGIC.len()));
        if !MAGIC.starts_with(magic) {
            return Err(Error::verification(format!("{name} is not a ripcord manifest")));
        }
        let (format, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let format = u32::from_le_bytes(*format);
        if format != FORMAT {
            return Err(newer(name, format));
        }
        let (clear, rest) = part(rest).ok_or_else(cut)?;
        let (wraps, rest) = part(rest).ok_or_else(cut)?;
        let (salt, frames) = rest.split_first_chunk::<32>().ok_or_else(cut)?;
        Ok(Parts { clear, wraps, salt: *salt, frames })
    }

    fn read_clear(&self, name: &str) -> Result<Clear> {
        // First what says whether the rest can be understood at all.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            kind: String,
        }
        let head: Head = read_json(name, "clear part", self.clear)?;
        if head.format != FORMAT {
            return Err(newer(name, head.format));
        }
        if head.kind != KIND {
            return Err(Error::verification(format!(
                "{name} is of the kind {:?}; this ripcord knows the kind `{KIND}`",
                head.kind
            ))
            .hint("use the ripcord that wrote it, or a newer one"));
        }
        read_json(name, "clear part", self.clear)
    }

    fn read_wraps(&self, name: &str) -> Result<Vec<Wrap>> {
        read_json(name, "list of wrapped keys", self.wraps)
    }

    fn open_sealed(&self, name: &str, keys: &SubKeys, clear: &Clear) -> Result<Sealed> {
        let key = sealed_key(keys, &self.salt, clear, self.clear);
        let mut frames = self.frames;
        let limit = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
        let sealed = read_section(&key, limit, &mut frames)
            .and_then(|sealed| expect_end(&mut frames).map(|()| sealed))
            .map_err(|error| match error {
                ArchiveError::TrailingBytes => Error::verification(format!("something follows the end of {name}")),
                error => Error::from(error).context(format!("{name} is damaged or was changed")),
            })?;
        read_json(name, "sealed part", &sealed)
    }
}

/// A length (u32, little-endian), and as many bytes.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// The file up to the sealed part's salt.
fn start(name: &str, clear_json: &[u8], wraps: &[Wrap]) -> Result<Vec<u8>> {
    let wraps_json = json(name, &wraps)?;
    let mut file = Vec::with_capacity(64 + clear_json.len() + wraps_json.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&FORMAT.to_le_bytes());
    for part in [clear_json, &wraps_json] {
        let length = u32::try_from(part.len()).map_err(|_| too_large(name))?;
        file.extend_from_slice(&length.to_le_bytes());
        file.extend_from_slice(part);
    }
    Ok(file)
}

/// Binds the sealed part to the bytes of the clear one, and both to lineage and backup.
fn sealed_key(keys: &SubKeys, salt: &Salt, clear: &Clear, clear_json: &[u8]) -> FrameKey {
    let id = StreamId { lineage: clear.lineage, backup: clear.backup, stream: 0 };
    let extra = Sha256::digest(clear_json);
    FrameKey::new(&keys.manifest, salt, Section::Manifest, id, &extra)
}

/// Whether clear and sealed part name the same backup.
fn agree(name: &str, clear: &Clear, sealed: &Sealed) -> Result<()> {
    let differ = |what: &str, clear: String, sealed: String| {
        Err(Error::verification(format!(
            "{name} contradicts itself: its clear part says {what} `{clear}`, its sealed part `{sealed}`"
        )))
    };
    if clear.backup != sealed.backup {
        return differ("backup", clear.backup.to_string(), sealed.backup.to_string());
    }
    if clear.lineage != sealed.lineage {
        return differ("lineage", clear.lineage.to_string(), sealed.lineage.to_string());
    }
    if clear.created_at != sealed.created_at {
        let told = |time: Time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        return differ("created at", told(clear.created_at), told(sealed.created_at));
    }
    Ok(())
}

fn newer(name: &str, format: u32) -> Error {
    Error::verification(format!(
        "{name} has format {format}, which a newer ripcord wrote; this one reads format {FORMAT}"
    ))
    .hint("use the ripcord that wrote it, or a newer one")
}

fn check_size(name: &str, bytes: usize) -> Result<()> {
    match bytes as u64 > MAX_BYTES {
        true => Err(too_large(name)),
        false => Ok(()),
    }
}

fn too_large(name: &str) -> Error {
    Error::verification(format!("{name} is larger than {MAX_BYTES} bytes"))
}

fn json<T: Serialize + ?Sized>(name: &str, value: &T) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Error::failed(format!("{name} cannot be written as JSON")).because(error))?;
    check_size(name, text.len())?;
    Ok(text)
}

/// serde's message can quote the text, and the sealed part is secret: the position is enough.
fn read_json<T: serde::de::DeserializeOwned>(name: &str, what: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::verification(format!("the {what} of {name} is not readable")).because(match missing_field(&error) {
            Some(missing) => format!("{missing}, at {place}"),
            None => format!("unexpected JSON at {place}"),
        })
    })
}

#[cfg(test)]
mod tests;
