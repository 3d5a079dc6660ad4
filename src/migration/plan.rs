//! What is pending, and in which order: files against what was applied.

use super::{Applied, Migration};
use crate::settings::OnChanged;

/// Which of the pending migrations are wanted.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Up to and with this version or name.
    pub target: Option<String>,
    /// This file only, by file name, version or name.
    pub file: Option<String>,
    /// At most this many.
    pub limit: Option<usize>,
    /// With `file`: once more, though it was applied.
    pub again: bool,
}

/// A migration that will run, and why.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What runs.
    pub migration: Migration,
    /// `pending`, `changed`, `failed before`, `again`.
    pub reason: String,
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What runs, in order.
    pub pending: Vec<Pending>,
    /// Things to know: applied migrations whose file is gone, out-of-order arrivals, harmless edits.
    pub notes: Vec<String>,
    /// What makes the plan invalid, each with the file and what to do.
    pub errors: Vec<crate::Error>,
}

/// Plans an apply.
pub fn plan(_files: &[Migration], _applied: &[Applied], _selection: &Selection, _on_changed: OnChanged) -> Plan {
    todo!()
}

/// Which of the applied migrations a rollback undoes.
#[derive(Clone, Debug)]
pub enum Undo {
    /// The last N.
    Steps(usize),
    /// Everything after this version, which stays.
    Target(String),
    /// Everything after batch N, which stays.
    Batch(i32),
    /// Everything after this name, which stays.
    To(String),
    /// This one alone.
    Only(String),
}

/// Plans a rollback: the applied migrations to undo, newest first. `applied` is in the order of applying.
pub fn plan_undo(_applied: &[Applied], _undo: &Undo) -> crate::Result<Vec<Applied>> {
    todo!()
}
