//! The record of a run that outlives the database: one immutable object a step, each chained to the
//! one before by a MAC. What it says is a claim, to be checked against the catalog.

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::error::Result;
use crate::ids::{BackupId, Lineage, RunId};
use crate::keys::JournalKey;

/// Where the steps are kept; the store behind it creates an object only if it is absent.
pub trait StepLog: Send + Sync {
    /// Writes one step durably; an error when one of that name is there.
    fn append(&self, name: &str, bytes: &[u8]) -> Result<()>;
    /// All steps, sorted by name.
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>>;
}

/// What a run said it was about to do, or had done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The run began.
    Opened {
        /// `apply`, `restore`, `rollback`, …
        command: String,
        /// The target's name.
        database: String,
        /// The target's oid then.
        database_oid: u32,
        /// `user@host:pid`.
        holder: String,
        /// Settings that a later `recover` must know: on_failure, writes, in JSON.
        settings: serde_json::Value,
    },
    /// The fence is about to be put up.
    FenceBegan,
    /// The fence is gone.
    FenceEnded,
    /// The run's backup is complete.
    BackupComplete {
        /// Which one.
        backup: BackupId,
        /// Whether it is a safety backup.
        safety: bool,
    },
    /// The run goes without a backup, as policy allowed.
    BackupSkipped,
    /// A migration's UP is about to run.
    UpBegan {
        /// Version.
        version: String,
        /// Name.
        name: String,
        /// Whether it runs in one transaction with its bookkeeping.
        transactional: bool,
    },
    /// A statement of a migration that runs outside a transaction was done.
    StatementDone {
        /// Version.
        version: String,
        /// The statement's number, from 0.
        statement: usize,
    },
    /// A migration's UP is committed.
    UpDone {
        /// Version.
        version: String,
        /// Name.
        name: String,
    },
    /// The run failed; recovery begins.
    Failed {
        /// The first failure, on one line.
        error: String,
    },
    /// A DOWN is about to run.
    DownBegan {
        /// Version.
        version: String,
        /// Name.
        name: String,
    },
    /// A DOWN is committed.
    DownDone {
        /// Version.
        version: String,
        /// Name.
        name: String,
    },
    /// A scratch database is about to be created.
    ScratchBegan {
        /// Its name.
        name: String,
        /// The backup that is loaded into it.
        backup: BackupId,
    },
    /// The scratch database is loaded and proved.
    ScratchReady {
        /// Its name.
        name: String,
        /// Its oid.
        oid: u32,
    },
    /// The swap is about to close the target.
    SwapBegan {
        /// The target.
        target: String,
        /// The target's oid.
        target_oid: u32,
        /// The database that takes its place.
        scratch: String,
        /// The scratch database's oid.
        scratch_oid: u32,
        /// The name under which the target is kept.
        aside: String,
    },
    /// Both renames are committed.
    SwapDone,
    /// An in-place restore is about to change the target.
    InPlaceBegan {
        /// The backup that is loaded.
        backup: BackupId,
    },
    /// The in-place restore is committed.
    InPlaceDone,
    /// Anything else worth keeping.
    Note {
        /// In one sentence.
        message: String,
    },
    /// The run is over.
    Closed {
        /// CLI outcome, such as `done` or `restored`.
        outcome: String,
        /// The state of the database in one line.
        database: String,
    },
}

/// A step with its place and time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// From 0.
    pub sequence: u64,
    /// When it was written.
    pub at: Time,
    /// What it says.
    pub step: Step,
}

/// A run's journal, open for writing.
pub struct Journal {
    _log: Box<dyn StepLog>,
}

impl Journal {
    /// Begins a new one; the first step must be [`Step::Opened`].
    pub fn begin(
        _log: Box<dyn StepLog>,
        _lineage: Lineage,
        _run: RunId,
        _key: JournalKey,
        _opened: Step,
    ) -> Result<Journal> {
        todo!()
    }

    /// Goes on with one that exists: loads and checks the chain. An error when a step is missing,
    /// altered, out of order, from another run, or sealed with another key.
    pub fn resume(_log: Box<dyn StepLog>, _lineage: Lineage, _run: RunId, _key: JournalKey) -> Result<Journal> {
        todo!()
    }

    /// Writes the next step durably before it returns.
    pub fn record(&mut self, _step: Step) -> Result<()> {
        todo!()
    }

    /// Everything recorded so far.
    pub fn entries(&self) -> &[Entry] {
        todo!()
    }

    /// Whether [`Step::Closed`] was recorded.
    pub fn is_closed(&self) -> bool {
        self.entries().iter().any(|entry| matches!(entry.step, Step::Closed { .. }))
    }
}
