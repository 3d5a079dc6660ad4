//! What is pending, and in which order: files against what was applied.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Applied, Migration, Version};
use crate::error::Error;
use crate::settings::{Arrivals, OnChanged};

pub use super::undo::{Undo, plan_undo};

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
    /// What stands against one that comes after a later one was applied.
    pub arrivals: Arrivals,
    /// The environment: a migration may say which ones it is for.
    pub environment: Option<String>,
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
    /// Masters (`000_MASTER_*`) that do not run because the database is not empty, and are only recorded.
    pub recorded: Vec<Migration>,
    /// Things to know: applied migrations whose file is gone, out-of-order arrivals, harmless edits.
    pub notes: Vec<String>,
    /// What makes the plan invalid, each with the file and what to do.
    pub errors: Vec<crate::Error>,
}

/// Plans an apply. Order: by version, and after what the metadata's `dependencies` name.
pub fn plan(files: &[Migration], applied: &[Applied], selection: &Selection, on_changed: OnChanged) -> Plan {
    let mut plan = Plan::default();
    let ordered = plan.order(files);
    plan.refuse_duplicates(&ordered, applied);
    let recorded = Recorded::new(applied);
    plan.note_missing_files(files, &recorded, applied);

    // What the selection means is settled against all files, so that a name that means none is told.
    let wanted = plan.select(&ordered, selection);

    let highest = applied.iter().map(|one| &one.version).max();
    for migration in ordered {
        let wanted = wanted.contains(&migration.file_name);
        let reason = match recorded.of(migration) {
            None if !wanted => continue,
            None if !plan.is_for(migration, selection.environment.as_deref()) => continue,
            None => {
                let early = migration.rank.is_none() && !migration.master;
                if let Some(highest) = highest.filter(|highest| early && migration.version < **highest)
                    && !plan.takes_late(migration, highest, selection)
                {
                    continue;
                }
                "pending"
            }
            Some(_) if wanted && selection.again && selection.file.is_some() => "again",
            // What was changed is told whatever was selected.
            Some(record) => match plan.compare(migration, record, on_changed) {
                Some(reason) if wanted => reason,
                _ => continue,
            },
        };
        plan.pending.push(Pending { migration: migration.clone(), reason: reason.to_owned() });
    }
    if let Some(limit) = selection.limit {
        plan.pending.truncate(limit);
    }
    plan.require_dependencies(files, &recorded);
    plan
}

/// What was applied, by version; several of one version by name too.
struct Recorded<'a>(HashMap<&'a Version, Vec<&'a Applied>>);

impl<'a> Recorded<'a> {
    fn new(applied: &'a [Applied]) -> Self {
        let mut by_version: HashMap<&Version, Vec<&Applied>> = HashMap::new();
        for one in applied {
            by_version.entry(&one.version).or_default().push(one);
        }
        Recorded(by_version)
    }

    fn of(&self, migration: &Migration) -> Option<&'a Applied> {
        // Of two files that share a number and were both applied before ripcord came, one is recorded under its
        // whole name.
        if let Some([one]) = self.0.get(&Version(migration.label())).map(Vec::as_slice) {
            return Some(one);
        }
        match self.0.get(&migration.version)?.as_slice() {
            [one] => Some(one),
            // Duplicate numbers that are both applied are told apart by their names.
            several => several.iter().find(|one| one.name == migration.name).copied(),
        }
    }
}

impl Plan {
    fn note_missing_files(&mut self, files: &[Migration], recorded: &Recorded<'_>, applied: &[Applied]) {
        let there: BTreeSet<(&Version, &str)> =
            files.iter().filter_map(|file| recorded.of(file)).map(|one| (&one.version, one.name.as_str())).collect();
        for one in applied {
            if !there.contains(&(&one.version, one.name.as_str())) {
                self.notes.push(format!("`{}` is applied, but its file is gone", one.label()));
            }
        }
    }

    /// Two files of one version cannot be told apart in the history, unless both are applied already.
    fn refuse_duplicates(&mut self, ordered: &[&Migration], applied: &[Applied]) {
        let mut by_version: BTreeMap<&Version, Vec<&Migration>> = BTreeMap::new();
        for migration in ordered {
            by_version.entry(&migration.version).or_default().push(migration);
        }
        for (version, files) in by_version {
            let known = |file: &&Migration| was_applied(file, applied);
            if files.len() > 1 && !files.iter().all(known) {
                self.errors.push(
                    Error::failed(format!("version `{version}` is taken by {} files: {}", files.len(), names(&files)))
                        .hint("give one of them a number of its own"),
                );
            }
        }
    }

    /// Whether it runs in this environment; where it does not, that is told.
    fn is_for(&mut self, migration: &Migration, environment: Option<&str>) -> bool {
        let named = &migration.metadata.environments;
        let full = |name: &str| match name {
            "dev" => "development".to_owned(),
            "prod" => "production".to_owned(),
            other => other.to_owned(),
        };
        if named.is_empty() || environment.is_some_and(|here| named.iter().any(|name| full(name) == full(here))) {
            return true;
        }
        let whose = named.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        self.notes
            .push(format!("`{}` is for the environment {whose} only, and does not run here", migration.file_name));
        false
    }

    /// Whether one that comes after `highest` was applied runs all the same.
    fn takes_late(&mut self, migration: &Migration, highest: &Version, selection: &Selection) -> bool {
        let file = &migration.file_name;
        // Whoever names it has seen it.
        if selection.arrivals == Arrivals::NonLinear || selection.file.is_some() {
            self.notes.push(format!("`{file}` arrives after `{highest}` was applied, and runs now"));
            return true;
        }
        if selection.arrivals == Arrivals::LinearSkip {
            self.notes.push(format!("`{file}` arrives after `{highest}` was applied, and is left out (linear-skip)"));
            return false;
        }
        self.errors.push(
            Error::failed(format!("`{file}` arrives after `{highest}` was applied, and `out_of_order` is `linear`"))
                .hint(format!(
                    "give it a number above `{highest}`: ripcord renumber; or run it alone: ripcord apply --file {file}"
                )),
        );
        false
    }

    /// Why an applied migration runs again, if it does.
    fn compare(&mut self, migration: &Migration, record: &Applied, on_changed: OnChanged) -> Option<&'static str> {
        if migration.checksum == record.checksum {
            return None;
        }
        let file = &migration.file_name;
        if record.loose_checksum.as_ref() == Some(&migration.loose_checksum) {
            self.notes.push(format!("`{file}` was edited after it was applied: only comments or white space differ"));
            return None;
        }
        match on_changed {
            OnChanged::Rerun => return Some("changed"),
            OnChanged::Warn => {
                self.notes.push(format!("`{file}` was changed after it was applied; it does not run again"))
            }
            OnChanged::Error => self.errors.push(
                Error::failed(format!("`{file}` was changed after it was applied"))
                    .because(format!(
                        "its checksum was `{}` and is `{}`",
                        short(&record.checksum),
                        short(&migration.checksum)
                    ))
                    .hint("restore the file, or accept it as it is: ripcord repair"),
            ),
        }
        None
    }

    /// The file names that the selection means.
    fn select(&mut self, ordered: &[&Migration], selection: &Selection) -> BTreeSet<String> {
        let find = |wanted: &str| find(ordered, wanted);
        let mut positions = 0..ordered.len();
        if let Some(target) = &selection.target {
            match find(target) {
                Ok(at) => positions.end = at + 1,
                Err(error) => {
                    self.errors.push(error);
                    positions.end = 0;
                }
            }
        }
        if let Some(file) = &selection.file {
            match find(file) {
                Ok(at) if positions.contains(&at) => positions = at..at + 1,
                Ok(_) => positions.end = 0,
                Err(error) => {
                    self.errors.push(error);
                    positions.end = 0;
                }
            }
        }
        ordered
            .iter()
            .enumerate()
            .filter(|(at, _)| positions.contains(at))
            .map(|(_, migration)| migration.file_name.clone())
            .collect()
    }

    /// By version, and after what each depends on; versions decide between what is free to run.
    fn order<'a>(&mut self, files: &'a [Migration]) -> Vec<&'a Migration> {
        let (ordered, circle) = ordered(files);
        if !circle.is_empty() {
            self.errors.push(Error::failed(circular(&circle)).hint("take one of the dependencies out"));
        }
        ordered
    }

    /// Every dependency of what runs is applied, or runs before.
    fn require_dependencies(&mut self, files: &[Migration], recorded: &Recorded<'_>) {
        let mut errors = Vec::new();
        for (at, pending) in self.pending.iter().enumerate() {
            let file = &pending.migration.file_name;
            for wanted in &pending.migration.metadata.dependencies {
                let runs = self.pending.iter().take(at).any(|before| before.migration.is_called(wanted));
                let applied = recorded.0.values().flatten().any(|one| one.is_called(wanted));
                if runs || applied {
                    continue;
                }
                errors.push(match files.iter().find(|other| other.is_called(wanted)) {
                    Some(other) => Error::failed(format!(
                        "`{file}` depends on `{}`, which is neither applied nor selected before it",
                        other.file_name
                    ))
                    .hint("ripcord apply without a selection, or apply that one first"),
                    None => {
                        let near = nearest(wanted, files.iter().map(Migration::label));
                        let error = Error::failed(format!(
                            "`{file}` depends on `{wanted}`, which is no migration of this folder"
                        ));
                        if near.is_empty() { error } else { error.because(format!("near: {}", near.join(", "))) }
                    }
                });
            }
        }
        self.errors.extend(errors);
    }
}

/// The files by version, and after what each depends on; with a circle, when there is one.
pub(super) fn ordered(files: &[Migration]) -> (Vec<&Migration>, Vec<&Migration>) {
    let mut waiting: Vec<&Migration> = files.iter().collect();
    // What was written down decides first, then the version.
    waiting.sort_by(|one, other| one.place().cmp(&other.place()));
    let mut ordered: Vec<&Migration> = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let is_free = |migration: &&Migration| {
            !migration.metadata.dependencies.iter().any(|wanted| {
                waiting.iter().any(|other| other.is_called(wanted) && other.file_name != migration.file_name)
                    || migration.is_called(wanted)
            })
        };
        let Some(at) = waiting.iter().position(is_free) else {
            let circle = circle(&waiting);
            ordered.append(&mut waiting);
            return (ordered, circle);
        };
        ordered.push(waiting.remove(at));
    }
    (ordered, Vec::new())
}

/// What is wrong with migrations in a circle.
pub(super) fn circular(circle: &[&Migration]) -> String {
    format!("these migrations depend on each other: {}", names(circle))
}

/// The place of the one migration that a person means: by version, name, label or file name.
pub fn find(migrations: &[&Migration], wanted: &str) -> Result<usize, Error> {
    let called = migrations.iter().enumerate().filter(|(_, migration)| migration.is_called(wanted));
    match called.map(|(at, _)| at).collect::<Vec<_>>().as_slice() {
        [at] => Ok(*at),
        [] => {
            let near = nearest(wanted, migrations.iter().map(|one| one.label()));
            let error = Error::usage(format!("no migration is called `{wanted}`"));
            Err(if near.is_empty() {
                error.hint("ripcord status")
            } else {
                error.because(format!("near: {}", near.join(", "))).hint("ripcord status")
            })
        }
        several => {
            Err(Error::usage(format!("`{wanted}` means {} migrations", several.len())).hint("give the file's name"))
        }
    }
}

/// Whether the history has this very file: its number and name, or its whole name.
pub fn was_applied(file: &Migration, applied: &[Applied]) -> bool {
    let whole = Version(file.label());
    applied.iter().any(|one| one.version == whole || (one.version == file.version && one.name == file.name))
}

/// Those of the migrations left over that stand in a circle: from any of them, following dependencies
/// that wait too, one comes round.
fn circle<'a>(waiting: &[&'a Migration]) -> Vec<&'a Migration> {
    let mut path: Vec<&Migration> = Vec::new();
    let mut next = waiting.first().copied();
    while let Some(migration) = next {
        if let Some(at) = path.iter().position(|seen| seen.file_name == migration.file_name) {
            return path.split_off(at);
        }
        path.push(migration);
        next = migration
            .metadata
            .dependencies
            .iter()
            .find_map(|wanted| waiting.iter().find(|other| other.is_called(wanted)).copied());
    }
    path
}

fn names(migrations: &[&Migration]) -> String {
    let names: Vec<String> = migrations.iter().map(|migration| format!("`{}`", migration.file_name)).collect();
    names.join(", ")
}

fn short(checksum: &str) -> String {
    checksum.chars().take(12).collect()
}

/// Up to three known names that look like the one given, best first, in backticks.
pub(crate) fn nearest(wanted: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    let wanted = wanted.strip_suffix(".sql").unwrap_or(wanted).to_lowercase();
    let mut near: Vec<(usize, String)> = known
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let contained = !wanted.is_empty() && (lower.contains(&wanted) || wanted.contains(&lower));
            let distance = if contained { 0 } else { distance(&wanted, &lower) };
            (contained || distance <= lower.chars().count().max(3) / 3).then_some((distance, name))
        })
        .collect();
    near.sort();
    near.into_iter().take(3).map(|(_, name)| format!("`{name}`")).collect()
}

/// Levenshtein's distance, on the first hundred characters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.chars().take(100).enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = line + 1;
        next.push(left);
        for (b, pair) in other.iter().zip(row.windows(2)) {
            if let [diagonal, above] = pair {
                left = (diagonal + usize::from(a != *b)).min(above + 1).min(left + 1);
                next.push(left);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
