//! The layout of names in a store.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ObjectWriter, Objects, local, location};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::io::ReadAt;

/// The largest manifest that is read, in bytes: what [`crate::manifest`] reads at most.
const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// The largest mark, in bytes.
const MAX_MARK_BYTES: u64 = 64 << 10;

/// The largest journal object, in bytes.
const MAX_STEP_BYTES: u64 = 4 << 20;

/// The largest journal key that was handed over, in bytes: it may name every run of a lineage.
const MAX_HANDOVER_BYTES: u64 = 64 << 20;

/// The longest tag, in bytes.
const MAX_TAG_BYTES: usize = 256;

/// A small object beside a manifest, which itself never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mark", rename_all = "kebab-case")]
pub enum Mark {
    /// Read back and authenticated; at the level `toc`, the dump inside was read too.
    Verified {
        /// When.
        at: Time,
        /// Which level.
        level: String,
    },
    /// Found damaged.
    Damaged {
        /// When.
        at: Time,
        /// What was wrong.
        error: String,
    },
    /// Restored and compared.
    Drilled {
        /// When.
        at: Time,
        /// Time to recovery, in milliseconds.
        duration_ms: u64,
        /// Whether it held.
        good: bool,
    },
    /// Kept by a person.
    Pinned {
        /// When.
        at: Time,
    },
    /// A tag.
    Tag {
        /// When.
        at: Time,
        /// The tag.
        tag: String,
    },
}

impl Mark {
    /// The name of its object: one for each kind (two for what was verified), and one for each tag.
    fn name(&self) -> String {
        match self {
            // Each depth has its own, so that a shallow look every day does not hide when the deep one was.
            Mark::Verified { level, .. } if level == "toc" => "verified-toc".to_owned(),
            Mark::Verified { .. } => "verified".to_owned(),
            Mark::Damaged { .. } => "damaged".to_owned(),
            Mark::Drilled { .. } => "drilled".to_owned(),
            Mark::Pinned { .. } => "pinned".to_owned(),
            Mark::Tag { tag, .. } => tag_name(tag),
        }
    }
}

/// A store with our layout.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn Objects>,
}

impl Store {
    /// Opens a location: a folder, `file:///…`; other schemes are an error that says what is there.
    /// A folder that does not exist is made.
    pub fn open(location: &str) -> Result<Store> {
        let folder = location::folder(location)?;
        let local = local::Local::open(&folder).map_err(|error| {
            error
                .context(format!("the store `{location}` cannot be used"))
                .hint_if_none("name a folder that can be written: --store /var/backups/ripcord")
        })?;
        Ok(Store::new(Arc::new(local)))
    }

    /// Uses `objects`.
    pub fn new(objects: Arc<dyn Objects>) -> Store {
        Store { objects }
    }

    /// What is below.
    pub fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// Where this is, for people.
    pub fn location(&self) -> String {
        self.objects.location()
    }

    /// A backup's place, for people.
    pub fn backup_location(&self, lineage: Lineage, backup: BackupId) -> String {
        let location = self.location();
        format!("{}/{}", location.trim_end_matches('/'), backup_folder(lineage, backup))
    }

    /// Every lineage that has something here.
    pub fn lineages(&self) -> Result<Vec<Lineage>> {
        self.ids("")
    }

    /// The backups that have a manifest, oldest first.
    pub fn backups(&self, lineage: Lineage) -> Result<Vec<BackupId>> {
        Ok(self.split_by_manifest(lineage)?.0)
    }

    /// Folders of backups without a manifest: running, or leftovers of a crash.
    pub fn uncommitted(&self, lineage: Lineage) -> Result<Vec<BackupId>> {
        Ok(self.split_by_manifest(lineage)?.1)
    }

    /// Whether a backup has a manifest.
    pub fn has_manifest(&self, lineage: Lineage, backup: BackupId) -> Result<bool> {
        let path = manifest_path(lineage, backup);
        Ok(self.objects.open(&path)?.is_some())
    }

    /// Begins a stream of a backup.
    pub fn begin_stream(&self, lineage: Lineage, backup: BackupId, stream: u32) -> Result<Box<dyn ObjectWriter>> {
        self.objects.begin(&stream_path(lineage, backup, stream))
    }

    /// Opens a stream; an error when it is missing.
    pub fn open_stream(&self, lineage: Lineage, backup: BackupId, stream: u32) -> Result<Arc<dyn ReadAt>> {
        let path = stream_path(lineage, backup, stream);
        self.objects.open(&path)?.ok_or_else(|| {
            Error::verification(format!("stream {stream} of backup `{backup}` is missing"))
                .because(format!("there is no `{}/{path}`", self.location()))
        })
    }

    /// Drops a stream from the page cache.
    pub fn drop_stream_cache(&self, lineage: Lineage, backup: BackupId, stream: u32) -> Result<()> {
        self.objects.drop_cache(&stream_path(lineage, backup, stream))
    }

    /// Commits a backup.
    pub fn commit_manifest(&self, lineage: Lineage, backup: BackupId, manifest: &[u8]) -> Result<()> {
        self.objects.create(&manifest_path(lineage, backup), manifest)
    }

    /// Replaces a manifest atomically (its wraps changed, or its streams were sealed anew). An error when there is
    /// none: a backup that was deleted does not come back, also when that happens at the same moment.
    pub fn replace_manifest(&self, lineage: Lineage, backup: BackupId, manifest: &[u8]) -> Result<()> {
        match self.objects.replace_existing(&manifest_path(lineage, backup), manifest)? {
            true => Ok(()),
            false => Err(self.no_backup(backup)),
        }
    }

    /// The numbers of the streams that lie beside a manifest, named by it or not.
    pub fn stream_numbers(&self, lineage: Lineage, backup: BackupId) -> Result<Vec<u32>> {
        let folder = backup_folder(lineage, backup);
        let number = |path: &str| -> Option<u32> {
            let number = path.strip_prefix(&folder)?.strip_prefix('/')?.strip_suffix(".rip")?.parse().ok()?;
            (stream_path(lineage, backup, number) == path).then_some(number)
        };
        Ok(self.objects.list(&folder)?.iter().filter_map(|object| number(&object.path)).collect())
    }

    /// Removes a stream that the manifest does not name (any more).
    pub fn delete_stream(&self, lineage: Lineage, backup: BackupId, stream: u32) -> Result<()> {
        self.objects.delete(&stream_path(lineage, backup, stream))
    }

    /// Removes what a killed rewriting of a committed backup left beside its manifest. Only for one who holds the
    /// keys: nobody else writes there once a backup has its manifest.
    pub fn sweep_backup(&self, lineage: Lineage, backup: BackupId) -> Result<()> {
        self.objects.sweep_here(&backup_folder(lineage, backup))
    }

    /// Removes what a kill in the middle of a journal's step left. Only for one who holds the lock, of a run that is dead:
    /// nobody else writes there.
    pub fn sweep_run(&self, lineage: Lineage, run: RunId) -> Result<()> {
        self.objects.sweep_here(&run_folder(lineage, run))
    }

    /// Held while manifests are rewritten, by one process at a time; let go of when it is dropped, and by the
    /// kernel when the process is killed. `None`: another process is at it.
    pub fn hold_keys(&self) -> Result<Option<Box<dyn Send>>> {
        self.objects.hold("keys.lock")
    }

    /// The journal keys of a lineage that one master key handed to another: names and bytes.
    pub fn handovers(&self, lineage: Lineage) -> Result<Vec<(String, Vec<u8>)>> {
        let folder = keys_folder(lineage);
        let mut found = Vec::new();
        for object in self.objects.list(&folder)? {
            if let Some(name) = object.path.strip_prefix(&format!("{folder}/"))
                && let Some(bytes) = self.objects.read(&object.path, MAX_HANDOVER_BYTES)?
            {
                found.push((name.to_owned(), bytes));
            }
        }
        Ok(found)
    }

    /// Writes one of them.
    pub fn put_handover(&self, lineage: Lineage, name: &str, bytes: &[u8]) -> Result<()> {
        self.objects.replace(&format!("{}/{name}", keys_folder(lineage)), bytes)
    }

    /// Removes one of them.
    pub fn delete_handover(&self, lineage: Lineage, name: &str) -> Result<()> {
        self.objects.delete(&format!("{}/{name}", keys_folder(lineage)))
    }

    /// A manifest's bytes; an error when there is none.
    pub fn manifest(&self, lineage: Lineage, backup: BackupId) -> Result<Vec<u8>> {
        self.objects.read(&manifest_path(lineage, backup), MAX_MANIFEST_BYTES)?.ok_or_else(|| self.no_backup(backup))
    }

    /// The marks beside a manifest. One that cannot be read is an error; objects under names that are
    /// no mark's are passed over.
    pub fn marks(&self, lineage: Lineage, backup: BackupId) -> Result<Vec<Mark>> {
        let folder = marks_folder(lineage, backup);
        let mut marks = Vec::new();
        for object in self.objects.list(&folder)? {
            let name = last_part(&object.path);
            if !is_mark_name(name) {
                continue;
            }
            // A mark that was removed since the listing is no mark.
            let Some(bytes) = self.objects.read(&object.path, MAX_MARK_BYTES)? else {
                continue;
            };
            let broken = || Error::verification(format!("the mark `{name}` of backup `{backup}` is broken"));
            let place = format!("{}/{}", self.location(), object.path);
            let mark: Mark =
                serde_json::from_slice(&bytes).map_err(|error| broken().because(format!("in `{place}`: {error}")))?;
            if mark.name() != name {
                return Err(broken().because(format!("`{place}` holds another mark")));
            }
            marks.push(mark);
        }
        Ok(marks)
    }

    /// Writes a mark, in place of an older one of its kind (tags: of its tag). An error when the backup
    /// has no manifest.
    pub fn mark(&self, lineage: Lineage, backup: BackupId, mark: &Mark) -> Result<()> {
        if let Mark::Tag { tag, .. } = mark {
            check_tag(tag)?;
        }
        self.must_exist(lineage, backup)?;
        let bytes = serde_json::to_vec(mark).map_err(|error| Error::failed("could not write a mark").because(error))?;
        let path = format!("{}/{}", marks_folder(lineage, backup), mark.name());
        self.objects.replace(&path, &bytes)
    }

    /// Removes the pin.
    pub fn unpin(&self, lineage: Lineage, backup: BackupId) -> Result<()> {
        self.objects.delete(&format!("{}/pinned", marks_folder(lineage, backup)))
    }

    /// Removes a backup: its manifest first, then the rest. Also finishes a removal that was cut short,
    /// and removes what a crash left of a backup that was never committed. Nobody may be writing it.
    pub fn delete_backup(&self, lineage: Lineage, backup: BackupId) -> Result<()> {
        let folder = backup_folder(lineage, backup);
        // Without its manifest it is no backup any more, whatever happens to the rest.
        self.objects.delete(&manifest_path(lineage, backup))?;
        // Marks before streams: they are small, and a pin on half a backup helps nobody.
        let marks = format!("{}/", marks_folder(lineage, backup));
        let (marks, rest): (Vec<_>, Vec<_>) =
            self.objects.list(&folder)?.into_iter().partition(|object| object.path.starts_with(&marks));
        for object in marks.iter().chain(&rest) {
            self.objects.delete(&object.path)?;
        }
        self.objects.sweep(&folder)?;
        let above = backups_folder(lineage);
        if self.objects.folders(&above)?.contains(&backup.to_string()) {
            return Err(Error::failed(format!("backup `{backup}` is deleted, but its folder is not empty")).because(
                format!("`{}` holds something that is not ripcord's", self.backup_location(lineage, backup)),
            ));
        }
        Ok(())
    }

    /// Runs that have a journal, oldest first.
    pub fn runs(&self, lineage: Lineage) -> Result<Vec<RunId>> {
        self.ids(&format!("{lineage}/runs"))
    }

    /// Writes one journal object; an error when the name is taken.
    pub fn append_step(&self, lineage: Lineage, run: RunId, name: &str, bytes: &[u8]) -> Result<()> {
        self.objects.create(&format!("{}/{name}", run_folder(lineage, run)), bytes)
    }

    /// A run's journal objects, sorted by name.
    pub fn steps(&self, lineage: Lineage, run: RunId) -> Result<Vec<(String, Vec<u8>)>> {
        let folder = run_folder(lineage, run);
        let mut steps = Vec::new();
        for object in self.objects.list(&folder)? {
            let Some(name) = object.path.strip_prefix(&format!("{folder}/")) else {
                continue;
            };
            let bytes = self.objects.read(&object.path, MAX_STEP_BYTES)?.ok_or_else(|| {
                Error::failed(format!("`{}/{}` vanished while the journal was read", self.location(), object.path))
            })?;
            steps.push((name.to_owned(), bytes));
        }
        Ok(steps)
    }

    /// The folders below `prefix` that are named by an id, sorted. Anything else (`lost+found`, a
    /// README, an id spelled otherwise) is somebody else's.
    fn ids<Id: FromStr + Display + Ord>(&self, prefix: &str) -> Result<Vec<Id>> {
        let mut ids: Vec<Id> = self
            .objects
            .folders(prefix)?
            .into_iter()
            .filter_map(|name| name.parse::<Id>().ok().filter(|id| id.to_string() == name))
            .collect();
        ids.sort();
        Ok(ids)
    }

    fn split_by_manifest(&self, lineage: Lineage) -> Result<(Vec<BackupId>, Vec<BackupId>)> {
        let mut committed = Vec::new();
        let mut uncommitted = Vec::new();
        for backup in self.ids(&backups_folder(lineage))? {
            if self.has_manifest(lineage, backup)? {
                committed.push(backup);
            } else {
                uncommitted.push(backup);
            }
        }
        Ok((committed, uncommitted))
    }

    fn must_exist(&self, lineage: Lineage, backup: BackupId) -> Result<()> {
        if self.has_manifest(lineage, backup)? { Ok(()) } else { Err(self.no_backup(backup)) }
    }

    fn no_backup(&self, backup: BackupId) -> Error {
        Error::failed(format!("there is no backup `{backup}` in `{}`", self.location()))
            .hint("`ripcord backup list` shows those that are there")
    }
}

fn backups_folder(lineage: Lineage) -> String {
    format!("{lineage}/backups")
}

fn backup_folder(lineage: Lineage, backup: BackupId) -> String {
    format!("{lineage}/backups/{backup}")
}

fn manifest_path(lineage: Lineage, backup: BackupId) -> String {
    format!("{lineage}/backups/{backup}/manifest")
}

fn stream_path(lineage: Lineage, backup: BackupId, stream: u32) -> String {
    format!("{lineage}/backups/{backup}/{stream}.rip")
}

fn marks_folder(lineage: Lineage, backup: BackupId) -> String {
    format!("{lineage}/backups/{backup}/marks")
}

fn run_folder(lineage: Lineage, run: RunId) -> String {
    format!("{lineage}/runs/{run}")
}

fn keys_folder(lineage: Lineage) -> String {
    format!("{lineage}/keys")
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A tag that is a plain small word stands in its object's name; any other by a hash, as file systems
/// differ in what a name may be and whether case counts.
fn tag_name(tag: &str) -> String {
    let plain = !tag.is_empty()
        && tag.len() <= 64
        && tag.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    if plain {
        format!("tag-{tag}")
    } else {
        let digest = hex::encode(Sha256::digest(tag.as_bytes()));
        format!("tag.{}", digest.get(..32).unwrap_or(&digest))
    }
}

fn is_mark_name(name: &str) -> bool {
    matches!(name, "verified" | "verified-toc" | "damaged" | "drilled" | "pinned")
        || name.starts_with("tag-")
        || name.starts_with("tag.")
}

fn check_tag(tag: &str) -> Result<()> {
    if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.chars().any(char::is_control) {
        return Err(Error::usage(format!("a tag is 1 to {MAX_TAG_BYTES} bytes without control characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_get_names_that_every_file_system_holds_apart() {
        assert_eq!(tag_name("before-v2"), "tag-before-v2");
        let odd = ["Release", "release/1", "..", "ä", "a b", ""];
        let mut names: Vec<_> = odd.iter().map(|tag| tag_name(tag)).collect();
        names.push(tag_name("release"));
        for name in &names {
            assert!(is_mark_name(name), "{name}");
            assert!(name.len() <= 68 && !name.contains('/'), "{name}");
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(tag_name(&"x".repeat(300)).len() < 40);
    }

    #[test]
    fn marks_read_back_as_they_were_written() {
        let at = crate::clock::now();
        let marks = [
            Mark::Verified { at, level: "archive".to_owned() },
            Mark::Verified { at, level: "toc".to_owned() },
            Mark::Damaged { at, error: "frame 3".to_owned() },
            Mark::Drilled { at, duration_ms: 5, good: true },
            Mark::Pinned { at },
            Mark::Tag { at, tag: "v2".to_owned() },
        ];
        for mark in marks {
            let bytes = serde_json::to_vec(&mark).unwrap();
            assert_eq!(serde_json::from_slice::<Mark>(&bytes).unwrap(), mark);
        }
    }
}
