//! The record of a run that outlives the database: one immutable object a step, each chained to the
//! one before by a MAC. What it says is a claim, to be checked against the catalog.
//!
//! An object is two lines: a JSON body, and the hexadecimal MAC (HMAC-SHA-256) of exactly the bytes of
//! that body. The body holds `format`, `lineage`, `run`, `sequence`, `at`, `previous` (the MAC of the
//! step before, zeros for the first) and `step`. Its name is the sequence number alone, `000000.json`
//! and so on: two processes that go on with one run collide at the next step instead of forking it.
//!
//! The chain shows a step that was altered, moved, taken out or brought in from another run. It cannot
//! show that the last steps were taken away: another reason to ask the catalog.

mod chain;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use self::chain::{Body, FORMAT, MAC_BYTES, Mac, check, object_name, refused, seal};
use crate::clock::{self, Time};
use crate::error::{Error, Result};
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
    FenceBegan {
        /// The database's own setting that it replaces.
        previous: Option<String>,
    },
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
    /// A migration's UP has run in a transaction that is about to be committed: when the answer to the COMMIT is
    /// lost, this is what is known of it. Before that, there is nothing that anybody would have to know.
    UpCommits {
        /// Version.
        version: String,
        /// Name.
        name: String,
        /// The transaction's id: its rows are no foreign writes.
        xid: u64,
        /// Tables that it locked for writing, `schema.table`.
        touched: Vec<String>,
    },
    /// A migration's UP is about to run.
    UpBegan {
        /// Version.
        version: String,
        /// Name.
        name: String,
        /// Whether it runs in one transaction with its bookkeeping.
        transactional: bool,
        /// That transaction's id.
        xid: Option<u64>,
    },
    /// Before the run destroys a table: what others had written to it by then.
    Counted {
        /// `schema.table`.
        table: String,
        /// Rows.
        rows: u64,
    },
    /// A transaction of the run itself, other than an UP's.
    OwnTransaction {
        /// Its id.
        xid: u64,
    },
    /// A migration goes on at the statement at which an earlier run stopped.
    Resumed {
        /// Version.
        version: String,
        /// The run that did the statements before.
        run: RunId,
        /// How many statements were done.
        statements: usize,
        /// The digest of their texts.
        digest: String,
        /// The last keys that a statement in batches had reached, with their transactions.
        #[serde(default)]
        keys: Vec<(String, u64)>,
    },
    /// The SQL of a hook is about to be committed, and has written something.
    HookChanged {
        /// Which hook.
        hook: String,
        /// Its transaction's id.
        xid: u64,
    },
    /// A statement of a migration that runs outside a transaction is about to be sent, or, where it has a
    /// transaction of its own, to be committed.
    StatementBegan {
        /// Version.
        version: String,
        /// The statement's number, from 0.
        statement: usize,
        /// Its transaction's id, when it has one of its own.
        xid: Option<u64>,
        /// Before CREATE INDEX CONCURRENTLY: the oids of indexes of that name.
        #[serde(default)]
        indexes: Vec<u32>,
    },
    /// A statement of a migration that runs outside a transaction was done.
    StatementDone {
        /// Version.
        version: String,
        /// The statement's number, from 0.
        statement: usize,
        /// Its transaction's id, when it had one of its own.
        xid: Option<u64>,
        /// The digest of the texts of this statement and all before it.
        #[serde(default)]
        digest: String,
    },
    /// A statement failed and left nothing: it can be run again.
    StatementUndone {
        /// Version.
        version: String,
        /// The statement's number, from 0.
        statement: usize,
        /// Invalid indexes that it had left and that were dropped.
        dropped: Vec<String>,
    },
    /// A round of a statement that repeats in batches was committed, or is about to be.
    Round {
        /// Version.
        version: String,
        /// The statement's number, from 0.
        statement: usize,
        /// Its transaction's id.
        xid: u64,
        /// The rows that it changed.
        rows: u64,
        /// The key up to which it came, where it goes by a key.
        #[serde(default)]
        key: Option<String>,
    },
    /// A migration's UP is committed.
    UpDone {
        /// Version.
        version: String,
        /// Name.
        name: String,
        /// Tables that its transaction locked for writing; `None`: not known.
        touched: Option<Vec<String>>,
    },
    /// The run failed; recovery begins.
    Failed {
        /// The first failure, on one line.
        error: String,
    },
    /// Just before a transaction of the run commits: the tables that it locked for writing.
    Touched {
        /// `schema.table`.
        tables: Vec<String>,
    },
    /// A DOWN is about to run.
    DownBegan {
        /// Version.
        version: String,
        /// Name.
        name: String,
        /// Whether it runs in one transaction with its bookkeeping.
        transactional: bool,
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
    /// An in-place restore is about to lock the target.
    InPlaceBegan {
        /// The backup that is loaded.
        backup: BackupId,
    },
    /// Others' writes are counted and the safety backup is there: the transaction of this number may load.
    InPlaceAllowed {
        /// 64 bits wide; PostgreSQL tells by it whether the load was committed.
        transaction: u64,
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
    log: Box<dyn StepLog>,
    lineage: Lineage,
    run: RunId,
    mac: Mac,
    entries: Vec<Entry>,
    last_mac: [u8; MAC_BYTES],
    /// A step whose writing failed: it may be there all the same.
    in_doubt: Option<Sealed>,
}

/// A step as it is stored.
struct Sealed {
    name: String,
    bytes: Vec<u8>,
    mac: [u8; MAC_BYTES],
    entry: Entry,
}

impl Journal {
    /// Begins a new one; the first step must be [`Step::Opened`].
    pub fn begin(
        log: Box<dyn StepLog>,
        lineage: Lineage,
        run: RunId,
        key: JournalKey,
        opened: Step,
    ) -> Result<Journal> {
        Self::begin_with(log, lineage, run, keyed(key), opened)
    }

    /// Goes on with one that exists: loads and checks the chain. An error when a step is missing,
    /// altered, out of order, from another run, or sealed with another key.
    pub fn resume(log: Box<dyn StepLog>, lineage: Lineage, run: RunId, key: JournalKey) -> Result<Journal> {
        Self::resume_with(log, lineage, run, keyed(key))
    }

    fn begin_with(log: Box<dyn StepLog>, lineage: Lineage, run: RunId, mac: Mac, opened: Step) -> Result<Journal> {
        if !matches!(opened, Step::Opened { .. }) {
            return Err(Error::failed("a journal must begin with the step `opened`"));
        }
        let mut journal =
            Journal { log, lineage, run, mac, entries: Vec::new(), last_mac: [0; MAC_BYTES], in_doubt: None };
        journal.write(opened)?;
        Ok(journal)
    }

    fn resume_with(log: Box<dyn StepLog>, lineage: Lineage, run: RunId, mac: Mac) -> Result<Journal> {
        let (entries, last_mac) = check(log.load()?, lineage, run, &mac)?;
        Ok(Journal { log, lineage, run, mac, entries, last_mac, in_doubt: None })
    }

    /// Writes the next step durably before it returns. After an error the step counts as not written;
    /// the next call finds out whether it is there. Nothing can follow [`Step::Closed`].
    pub fn record(&mut self, step: Step) -> Result<()> {
        if matches!(step, Step::Opened { .. }) {
            return Err(Error::failed(format!("the journal of run `{}` is open already", self.run)));
        }
        self.settle()?;
        if self.is_closed() {
            return Err(Error::failed(format!("the journal of run `{}` is closed", self.run)));
        }
        self.write(step)
    }

    /// Everything recorded so far.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether [`Step::Closed`] was recorded.
    pub fn is_closed(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.step, Step::Closed { .. }))
    }

    fn write(&mut self, step: Step) -> Result<()> {
        let sealed = self.seal(step)?;
        match self.log.append(&sealed.name, &sealed.bytes) {
            Ok(()) => {
                self.accept(sealed);
                Ok(())
            }
            Err(error) => {
                let sequence = sealed.entry.sequence;
                self.in_doubt = Some(sealed);
                Err(error.context(format!("step {sequence} of the journal of run `{}` could not be written", self.run)))
            }
        }
    }

    /// Finds out what became of a step whose writing failed: a file may be there although its folder
    /// could not be synced, and then its number is used up.
    fn settle(&mut self) -> Result<()> {
        let Some(sealed) = self.in_doubt.take() else {
            return Ok(());
        };
        let stored = match self.log.load() {
            Ok(stored) => stored,
            Err(error) => {
                self.in_doubt = Some(sealed);
                return Err(error);
            }
        };
        match stored.iter().find(|(name, _)| *name == sealed.name) {
            None => Ok(()),
            Some((_, bytes)) if *bytes == sealed.bytes => {
                self.accept(sealed);
                Ok(())
            }
            Some(_) => {
                let error = refused(self.run, format!("step {} was written by another process", sealed.entry.sequence));
                self.in_doubt = Some(sealed);
                Err(error)
            }
        }
    }

    fn accept(&mut self, sealed: Sealed) {
        self.last_mac = sealed.mac;
        self.entries.push(sealed.entry);
    }

    fn seal(&self, step: Step) -> Result<Sealed> {
        let body = Body {
            format: FORMAT,
            lineage: self.lineage,
            run: self.run,
            sequence: self.entries.len() as u64,
            at: clock::now(),
            previous: hex::encode(self.last_mac),
            step,
        };
        let (bytes, mac) = seal(&body, &self.mac)?;
        Ok(Sealed {
            name: object_name(body.sequence),
            bytes,
            mac,
            entry: Entry { sequence: body.sequence, at: body.at, step: body.step },
        })
    }
}

/// Reads and checks a journal without opening it for writing; errors as for [`Journal::resume`].
pub fn load(log: &dyn StepLog, lineage: Lineage, run: RunId, key: &JournalKey) -> Result<Vec<Entry>> {
    Ok(load_to_end(log, lineage, run, key)?.0)
}

/// The same, with the MAC of the last step in hexadecimal: it stands for all that was written so far.
pub fn load_to_end(log: &dyn StepLog, lineage: Lineage, run: RunId, key: &JournalKey) -> Result<(Vec<Entry>, String)> {
    let (entries, last) = check(log.load()?, lineage, run, &keyed(key.clone()))?;
    Ok((entries, hex::encode(last)))
}

/// A log in memory, for tests; clones see the same steps.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl MemoryLog {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `change` do to the stored steps what it wants.
    pub fn tamper(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl StepLog for MemoryLog {
    fn append(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.contains_key(name) {
            return Err(Error::failed(format!("`{name}` is there already")));
        }
        steps.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn load(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(steps.clone().into_iter().collect())
    }
}

fn keyed(key: JournalKey) -> Mac {
    Arc::new(move |bytes| key.mac(bytes))
}

#[cfg(test)]
mod tests;
