//! What of many findings is shown to a person.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Finding, Severity};

/// Of one rule's warnings, and of its notes, so many are shown.
const MOST: usize = 5;

/// What is not shown of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The rule.
    pub rule: &'static str,
    /// What the findings count.
    pub severity: Severity,
    /// How many there are besides those that are shown.
    pub findings: usize,
    /// In how many files they are.
    pub files: usize,
}

/// Every error, the last few warnings and notes of each rule, and how many more there are, warnings first. A folder
/// that has grown for years breaks one rule in each of its files; what was written today is in the last of them.
pub fn shown(findings: &[Finding]) -> (Vec<&Finding>, Vec<Rest>) {
    let mut counts: BTreeMap<(Severity, &str), usize> = BTreeMap::new();
    let mut rest: BTreeMap<(Severity, &'static str), (usize, BTreeSet<&Path>)> = BTreeMap::new();
    let mut kept = Vec::new();
    for finding in findings.iter().rev() {
        let count = counts.entry((finding.severity, finding.rule)).or_default();
        *count += 1;
        if finding.severity == Severity::Error || *count <= MOST {
            kept.push(finding);
            continue;
        }
        let (more, files) = rest.entry((finding.severity, finding.rule)).or_default();
        *more += 1;
        files.insert(&finding.file);
    }
    kept.reverse();
    let counted = rest.into_iter().rev().map(|((severity, rule), (findings, files))| Rest {
        rule,
        severity,
        findings,
        files: files.len(),
    });
    (kept, counted.collect())
}

impl std::fmt::Display for Rest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.severity == Severity::Note { "note" } else { "warning" };
        let many = |count: usize| if count == 1 { "" } else { "s" };
        let Rest { rule, findings, files, .. } = self;
        write!(out, "and {findings} more {word}{} of `{rule}` in {files} file{}", many(*findings), many(*files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_all_shown_and_what_repeats_is_counted() {
        let finding = |at: usize, rule, severity| Finding {
            rule,
            severity,
            file: format!("{}.sql", at / 2).into(),
            line: None,
            column: None,
            message: String::new(),
            help: None,
            table: None,
        };
        let mut all: Vec<Finding> = (0..20).map(|at| finding(at, "syntax", Severity::Error)).collect();
        all.extend((0..20).map(|at| finding(at, "version-gap", Severity::Note)));
        all.extend((0..6).map(|at| finding(at, "missing-down", Severity::Warning)));
        all.extend((0..2).map(|at| finding(at, "missing-down", Severity::Note)));
        let (kept, rest) = shown(&all);
        assert_eq!(kept.len(), 20 + MOST + MOST + 2);
        let gaps: Vec<_> =
            kept.iter().filter(|one| one.rule == "version-gap").map(|one| one.file.display().to_string()).collect();
        assert_eq!(gaps, ["7.sql", "8.sql", "8.sql", "9.sql", "9.sql"]);
        let rest: Vec<String> = rest.iter().map(Rest::to_string).collect();
        assert_eq!(
            rest,
            ["and 1 more warning of `missing-down` in 1 file", "and 15 more notes of `version-gap` in 8 files"]
        );
    }
}
