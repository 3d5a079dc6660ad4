//! Mending what is mechanical: the linter's own replacements for types and habits.

use std::path::Path;

use super::hazards::hazards;
use super::judge::Policy;
use super::rules::{self, Group};
use crate::error::{Error, Result};
use crate::migration::{Migration, Script};

/// Replaces in the file what rules of the style group would have otherwise, and says `file:line: rule`, one for each
/// place. What a directive allows is left. The file is replaced whole, or not at all.
pub fn mend(migration: &Migration, policy: &Policy) -> Result<Vec<String>> {
    let wanted = rules::LINTER.iter().filter(|rule| {
        rule.group == Group::Style && policy.severity(rule).is_some() && !migration.metadata.allow.contains_key(rule.id)
    });
    let found = hazards(&migration.up, wanted.collect());
    let mut told = Vec::new();
    let mut edits = Vec::new();
    for hazard in found.into_iter().filter(|hazard| !hazard.edits.is_empty()) {
        let (line, _) = migration.up.position(hazard.offset);
        told.push(format!("{}:{line}: {}", migration.path.display(), hazard.rule.id));
        edits.extend(hazard.edits);
    }
    if !edits.is_empty() {
        replace(&migration.path, &migration.up, edits)?;
    }
    Ok(told)
}

fn replace(path: &Path, script: &Script, mut edits: Vec<(std::ops::Range<usize>, String)>) -> Result<()> {
    let wrong = |error: std::io::Error| Error::failed(format!("`{}` was not mended", path.display())).because(error);
    let text = std::fs::read_to_string(path).map_err(wrong)?;
    let place = text.find(&*script.sql).ok_or_else(|| {
        Error::failed(format!("`{}` has changed since it was read", path.display())).hint("ripcord validate --fix")
    })?;
    let mut mended = script.sql.to_string();
    // From the end, so that the places before stay where they are.
    edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    edits.dedup();
    for (range, new) in edits {
        if mended.get(range.clone()).is_some() {
            mended.replace_range(range, &new);
        }
    }
    let whole = format!(
        "{}{mended}{}",
        text.get(..place).unwrap_or_default(),
        text.get(place + script.sql.len()..).unwrap_or_default()
    );
    let beside = path.with_extension("sql.mended");
    std::fs::write(&beside, whole).map_err(wrong)?;
    let kept = std::fs::metadata(path).and_then(|old| std::fs::set_permissions(&beside, old.permissions()));
    kept.and_then(|()| std::fs::rename(&beside, path)).map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        wrong(error)
    })
}
