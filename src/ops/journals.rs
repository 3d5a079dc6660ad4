//! Reading the journals of a lineage with the keys at hand: those that wrote them, and those that they were handed to.

use std::collections::BTreeMap;

use super::run::StoreLog;
use crate::error::{Error, Result};
use crate::ids::{Lineage, RunId};
use crate::journal::{self, Entry, Journal, StepLog};
use crate::keys::{Handover, KeyRing};
use crate::store::Store;

/// What journals of one lineage are believed by.
pub(super) struct Readers {
    store: Store,
    lineage: Lineage,
    known: Vec<Handover>,
}

impl Readers {
    /// The journal keys of the master keys held, and those that were handed to one of them.
    pub(super) fn of(store: &Store, ring: &KeyRing, lineage: Lineage) -> Result<Readers> {
        let mut known: Vec<Handover> = ring.keys().iter().map(crate::keys::MasterKey::handover).collect();
        for (_, bytes) in store.handovers(lineage)? {
            for reader in ring.keys() {
                let opened = Handover::open(&bytes, reader, lineage);
                known.extend(opened.filter(|opened| ring.find(&opened.writer).is_none()));
            }
        }
        Ok(Readers { store: store.clone(), lineage, known })
    }

    /// What a run wrote down, checked; empty when it has no journal here.
    pub(super) fn read(&self, run: RunId) -> Result<Vec<Entry>> {
        // Once for all keys: they all look at the same bytes.
        let log = Read(self.log(run).load()?);
        if log.0.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.believed(run, &log)?.1)
    }

    /// Opens a journal for going on with it.
    pub(super) fn resume(&self, run: RunId) -> Result<Journal> {
        let (by, _) = self.believed(run, &self.log(run))?;
        if by.runs.is_some() {
            return Err(Error::refused(format!("the journal of run `{run}` was written with a key that was given up")));
        }
        Journal::resume(Box::new(self.log(run)), self.lineage, run, by.key.clone())
    }

    /// The journals that `writer` wrote, with the MAC of each one's last step, and whether it is closed.
    pub(super) fn written_by(&self, writer: &Handover) -> Result<BTreeMap<RunId, (String, bool)>> {
        let mut found = BTreeMap::new();
        for run in self.store.runs(self.lineage)? {
            if let Ok((entries, end)) = journal::load_to_end(&self.log(run), self.lineage, run, &writer.key) {
                found
                    .insert(run, (end, entries.iter().any(|entry| matches!(entry.step, journal::Step::Closed { .. }))));
            }
        }
        Ok(found)
    }

    /// Everything that can be handed on.
    pub(super) fn known(&self) -> &[Handover] {
        &self.known
    }

    fn believed(&self, run: RunId, log: &dyn StepLog) -> Result<(&Handover, Vec<Entry>)> {
        let mut refused = None;
        for by in &self.known {
            match journal::load_to_end(log, self.lineage, run, &by.key) {
                // What a key vouches for that was given up is what was there then, and nothing else.
                Ok((entries, end)) if by.runs.as_ref().is_none_or(|runs| runs.get(&run) == Some(&end)) => {
                    return Ok((by, entries));
                }
                Ok(_) => {
                    refused = Some(
                        Error::refused(format!("the journal of run `{run}` cannot be trusted"))
                            .because("it was written, or went on, under a key that had been given up as leaked")
                            .hint("compare the run's folder in the store with a copy of it"),
                    );
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| Error::refused(format!("no key is held that reads the journal of run `{run}`"))))
    }

    fn log(&self, run: RunId) -> StoreLog {
        StoreLog { store: self.store.clone(), lineage: self.lineage, run }
    }
}

/// The steps of a journal as they were read.
struct Read(Vec<(String, Vec<u8>)>);

impl StepLog for Read {
    fn append(&self, name: &str, _: &[u8]) -> Result<()> {
        Err(Error::failed(format!("`{name}` cannot be written to a journal that is only read")))
    }

    fn load(&self) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(self.0.clone())
    }
}

/// Lets every held key read what the first one writes down. Cheap when that was done before.
pub(super) fn hand_to_all(store: &Store, ring: &KeyRing, lineage: Lineage) -> Result<()> {
    let Some((primary, others)) = ring.keys().split_first() else { return Ok(()) };
    if others.is_empty() {
        return Ok(());
    }
    let there = store.handovers(lineage)?;
    let handed = primary.handover();
    for reader in others {
        let name = Handover::name(&handed.writer, &reader.id());
        let opened = there.iter().find(|(known, _)| *known == name);
        let good = opened
            .and_then(|(_, bytes)| Handover::open(bytes, reader, lineage))
            .is_some_and(|opened| opened.runs.is_none());
        if !good {
            store.put_handover(lineage, &name, &handed.seal(reader, lineage))?;
        }
    }
    Ok(())
}
