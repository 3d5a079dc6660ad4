//! Which backups stay, and why: a pure function of rules, backups and the time.
//!
//! A backup stays when at least one rule keeps it. Only good backups count for rules: a failed or a
//! damaged one keeps no place from a good one. `keep_hourly` and its like count the periods that have a
//! backup, newest first, and keep the newest backup of each; periods are those of UTC, weeks those of
//! ISO 8601.
//!
//! Safety backups, made before a rollback or a restore, hold what someone was about to throw away. They
//! stay for `keep_within` or as one of the last [`KEEP_SAFETY`] of them, by a tag, or by a pin; they
//! take no place of the other rules and are never the newest good one.
//!
//! Imported dumps hold what is older than they are: they take no place either, and stay until somebody deletes them.
//!
//! `max_size_bytes` comes last: while the rest is larger, the oldest that is not protected goes, although
//! a rule kept it. Protected are the newest good backup, pinned ones, and those that an unfinished run
//! needs. With no rule at all, everything stays; with `max_size_bytes` alone, every good one that fits.

mod periods;

use chrono::TimeDelta;

use self::periods::Period;
use crate::clock::Time;
use crate::ids::BackupId;
use crate::manifest::{IMPORTED, Purpose};
use crate::settings::RetentionRules;

/// This many safety backups stay whatever their age, while any rule is set.
pub const KEEP_SAFETY: usize = 3;

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

/// A candidate on its way to a verdict.
struct Judged<'a> {
    candidate: &'a Candidate,
    /// Whether no size limit may remove it.
    protected: bool,
    keep: bool,
    reasons: Vec<String>,
}

impl Judged<'_> {
    fn keep(&mut self, reason: impl Into<String>) {
        self.keep = true;
        self.reasons.push(reason.into());
    }

    fn protect(&mut self, reason: impl Into<String>) {
        self.protected = true;
        self.keep(reason);
    }

    fn is_imported(&self) -> bool {
        self.candidate.tags.iter().any(|tag| tag == IMPORTED)
    }

    /// What the ordinary rules see.
    fn counts(&self) -> bool {
        self.candidate.good && self.candidate.purpose != Purpose::Safety && !self.is_imported()
    }
}

/// Judges every candidate, newest first. Never removes: the newest good one, a pinned one, one that an
/// unfinished run needs, or anything when there is no good backup that stays.
pub fn plan(rules: &RetentionRules, candidates: &[Candidate], now: Time) -> Vec<Verdict> {
    let mut judged: Vec<Judged> = candidates
        .iter()
        .map(|candidate| Judged { candidate, protected: false, keep: false, reasons: Vec::new() })
        .collect();
    judged.sort_by_key(|one| std::cmp::Reverse((one.candidate.created_at, one.candidate.id)));

    protect(&mut judged);
    if *rules == RetentionRules::default() {
        keep_all(&mut judged, "no rule is set");
    } else if !judged.iter().any(Judged::counts) {
        keep_all(&mut judged, "nothing goes while there is no good backup");
    } else {
        keep_by_rules(rules, &mut judged, now);
        if let Some(limit) = rules.max_size_bytes {
            fit(limit, &mut judged);
        }
    }
    for one in &mut judged {
        if one.reasons.is_empty() {
            one.reasons.push(
                if one.candidate.good { "no rule keeps it" } else { "failed or damaged, and a good one stays" }
                    .to_owned(),
            );
        }
    }
    judged.into_iter().map(|one| Verdict { id: one.candidate.id, keep: one.keep, reasons: one.reasons }).collect()
}

/// What stays whatever the rules say.
fn protect(judged: &mut [Judged]) {
    if let Some(newest) = judged.iter_mut().find(|one| one.counts()) {
        newest.protect("the newest good one");
    }
    for one in judged {
        if one.candidate.pinned {
            one.protect("pinned");
        }
        if one.candidate.good && one.is_imported() {
            one.protect("imported");
        }
        if let Some(run) = &one.candidate.needed_by {
            one.protect(format!("needed by run `{run}`"));
        }
    }
}

fn keep_all(judged: &mut [Judged], reason: &str) {
    for one in judged {
        one.keep(reason);
    }
}

fn keep_by_rules(rules: &RetentionRules, judged: &mut [Judged], now: Time) {
    let only_size = RetentionRules { max_size_bytes: rules.max_size_bytes, ..RetentionRules::default() };
    if *rules == only_size {
        for one in judged.iter_mut().filter(|one| one.candidate.good) {
            one.keep("within the size limit");
        }
        return;
    }

    let last = rules.keep_last;
    for (one, nth) in judged.iter_mut().filter(|one| one.counts()).zip(1..=last) {
        one.keep(format!("last {nth} of {last}"));
    }
    for (period, count) in [
        (Period::Hour, rules.keep_hourly),
        (Period::Day, rules.keep_daily),
        (Period::Week, rules.keep_weekly),
        (Period::Month, rules.keep_monthly),
        (Period::Year, rules.keep_yearly),
    ] {
        keep_newest_of_each(period, count, judged);
    }
    for (one, nth) in judged
        .iter_mut()
        .filter(|one| one.candidate.good && one.candidate.purpose == Purpose::Safety)
        .zip(1..=KEEP_SAFETY)
    {
        one.keep(format!("safety backup, last {nth} of {KEEP_SAFETY}"));
    }
    for one in judged.iter_mut().filter(|one| one.candidate.good) {
        if let Some(within) = rules.keep_within {
            // A span too long to count back from now reaches every backup.
            let begin = TimeDelta::from_std(within).ok().and_then(|span| now.checked_sub_signed(span));
            if begin.is_none_or(|begin| one.candidate.created_at >= begin) {
                one.keep(format!("within {}", periods::span(within)));
            }
        }
        if let Some(tag) = rules.keep_tags.iter().find(|tag| one.candidate.tags.contains(tag)) {
            one.keep(format!("tag `{tag}`"));
        }
    }
}

fn keep_newest_of_each(period: Period, count: u32, judged: &mut [Judged]) {
    let mut seen = None;
    let mut nth = 0;
    for one in judged.iter_mut().filter(|one| one.counts()) {
        let name = period.name(one.candidate.created_at);
        if seen.as_ref() == Some(&name) {
            continue;
        }
        if nth == count {
            return;
        }
        nth += 1;
        one.keep(format!("newest of the {} {name} ({nth} of {count})", period.word()));
        seen = Some(name);
    }
}

/// Lets the oldest unprotected go until the rest fits.
fn fit(limit: u64, judged: &mut [Judged]) {
    let mut total =
        judged.iter().filter(|one| one.keep).fold(0_u64, |sum, one| sum.saturating_add(one.candidate.stored_bytes));
    for one in judged.iter_mut().rev() {
        if total <= limit {
            return;
        }
        if one.keep && !one.protected {
            total = total.saturating_sub(one.candidate.stored_bytes);
            one.keep = false;
            one.reasons = vec![format!("over the size limit of {}", periods::size(limit))];
        }
    }
}

#[cfg(test)]
mod tests;
