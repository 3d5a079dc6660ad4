//! Which backups stay, and why: a pure function of rules, backups and the time.

use crate::clock::Time;
use crate::ids::BackupId;
use crate::manifest::Purpose;
use crate::settings::RetentionRules;

/// A backup as the rules see it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which one.
    pub id: BackupId,
    /// When it was made.
    pub created_at: Time,
    /// Why it was made.
    pub purpose: Purpose,
    /// Complete, and not known to be damaged.
    pub good: bool,
    /// Pinned by a person.
    pub pinned: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its bytes in the store.
    pub stored_bytes: u64,
    /// Needed by a run that is not finished: the run's id, for the reason.
    pub needed_by: Option<String>,
}

/// The verdict on one backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Which one.
    pub id: BackupId,
    /// Whether it stays.
    pub keep: bool,
    /// Why it stays or goes, in plain words: `last 3 of 10`, `pinned`, `within 7d`, `no rule keeps it`.
    pub reasons: Vec<String>,
}

/// Judges every candidate, newest first. Never removes: the newest good one, a pinned one, one that an
/// unfinished run needs, or anything when there is no good backup that stays.
pub fn plan(_rules: &RetentionRules, _candidates: &[Candidate], _now: Time) -> Vec<Verdict> {
    todo!()
}
