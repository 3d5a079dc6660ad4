//! The layout of names in a store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ObjectWriter, Objects};
use crate::clock::Time;
use crate::error::Result;
use crate::ids::{BackupId, Lineage, RunId};
use crate::io::ReadAt;

/// A small object beside a manifest, which itself never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mark", rename_all = "kebab-case")]
pub enum Mark {
    /// Read back and authenticated.
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

/// A store with our layout.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn Objects>,
}

impl Store {
    /// Opens a location: a folder, `file:///…`; other schemes are an error that says what is there.
    pub fn open(_location: &str) -> Result<Store> {
        todo!()
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
    pub fn backup_location(&self, _lineage: Lineage, _backup: BackupId) -> String {
        todo!()
    }

    /// Every lineage that has something here.
    pub fn lineages(&self) -> Result<Vec<Lineage>> {
        todo!()
    }

    /// The backups that have a manifest, oldest first.
    pub fn backups(&self, _lineage: Lineage) -> Result<Vec<BackupId>> {
        todo!()
    }

    /// Folders of backups without a manifest: running, or leftovers of a crash.
    pub fn uncommitted(&self, _lineage: Lineage) -> Result<Vec<BackupId>> {
        todo!()
    }

    /// Begins a stream of a backup.
    pub fn begin_stream(&self, _lineage: Lineage, _backup: BackupId, _stream: u32) -> Result<Box<dyn ObjectWriter>> {
        todo!()
    }

    /// Opens a stream; an error when it is missing.
    pub fn open_stream(&self, _lineage: Lineage, _backup: BackupId, _stream: u32) -> Result<Arc<dyn ReadAt>> {
        todo!()
    }

    /// Drops a stream from the page cache.
    pub fn drop_stream_cache(&self, _lineage: Lineage, _backup: BackupId, _stream: u32) -> Result<()> {
        todo!()
    }

    /// Commits a backup.
    pub fn commit_manifest(&self, _lineage: Lineage, _backup: BackupId, _manifest: &[u8]) -> Result<()> {
        todo!()
    }

    /// Replaces a manifest atomically (its wraps changed).
    pub fn replace_manifest(&self, _lineage: Lineage, _backup: BackupId, _manifest: &[u8]) -> Result<()> {
        todo!()
    }

    /// A manifest's bytes; an error when there is none.
    pub fn manifest(&self, _lineage: Lineage, _backup: BackupId) -> Result<Vec<u8>> {
        todo!()
    }

    /// The marks beside a manifest. One that cannot be read is an error.
    pub fn marks(&self, _lineage: Lineage, _backup: BackupId) -> Result<Vec<Mark>> {
        todo!()
    }

    /// Writes a mark, in place of an older one of its kind (tags: of its tag).
    pub fn mark(&self, _lineage: Lineage, _backup: BackupId, _mark: &Mark) -> Result<()> {
        todo!()
    }

    /// Removes the pin.
    pub fn unpin(&self, _lineage: Lineage, _backup: BackupId) -> Result<()> {
        todo!()
    }

    /// Removes a backup: its manifest first, then the rest. Also finishes a removal that was cut short,
    /// and removes what a crash left of a backup that was never committed.
    pub fn delete_backup(&self, _lineage: Lineage, _backup: BackupId) -> Result<()> {
        todo!()
    }

    /// Runs that have a journal, oldest first.
    pub fn runs(&self, _lineage: Lineage) -> Result<Vec<RunId>> {
        todo!()
    }

    /// Writes one journal object; an error when the name is taken.
    pub fn append_step(&self, _lineage: Lineage, _run: RunId, _name: &str, _bytes: &[u8]) -> Result<()> {
        todo!()
    }

    /// A run's journal objects, sorted by name.
    pub fn steps(&self, _lineage: Lineage, _run: RunId) -> Result<Vec<(String, Vec<u8>)>> {
        todo!()
    }
}
