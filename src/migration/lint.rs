//! What is wrong with a folder before anything is touched.

mod grants;
mod hazards;
mod judge;
mod mend;
pub mod rules;
mod schema;
mod secrets;
mod shown;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::script::opening;
use super::source::Folder;
use super::tree::{SyntaxProblem, each, with_tree};
use super::{Migration, Parsed, Placed, Script, Statement, Version};

pub use judge::{Policy, judge, refuse_level, sweeps};
pub use mend::mend;
pub use shown::{Rest, shown};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For information.
    Note,
    /// Stops a run where the environment's policy says so.
    Warning,
    /// Stops every run.
    Error,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id, such as `syntax` or `missing-down`.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// In one sentence.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// The table that the statement works on, as it is written, where that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// The widest gap between two numbers that is told; wider ones are timestamps or a new counting.
const WIDEST_GAP: u64 = 20;

/// Checks a folder: syntax by a PostgreSQL parser, duplicate versions, gaps, missing DOWN, empty files,
/// destructive statements (an error when `protected` and there is no DOWN), own transaction control.
///
/// `-- ripcord: allow RULE REASON` in a file silences `destructive`, `destructive-without-down`,
/// `missing-down`, `empty-file`, `metadata`, `placeholder` and `version-gap` there, and makes a note of `syntax`, for the server is the judge of
/// that and the parser may be behind it; own transaction control and duplicates cannot be allowed.
/// Findings come in the order of the migrations.
pub fn lint(migrations: &[Migration], protected: bool) -> Vec<Finding> {
    let of_one = |migration: &Migration| {
        let mut findings = Vec::new();
        let mut found = Found { migration, findings: &mut findings };
        found.content();
        for half in migration.placed() {
            found.syntax(half);
            found.transactions(half);
        }
        found.destruction(protected);
        found.remarks();
        findings
    };
    let mut findings = each(migrations, of_one).concat();
    without_downs(migrations, &mut findings);
    duplicates(migrations, &mut findings);
    gaps(migrations, &mut findings);
    findings
}

/// The files that no layout knows (`file-name`).
pub fn misnamed(folder: &Folder, policy: &Policy) -> Vec<Finding> {
    let Some(severity) = policy.severity_of("file-name") else { return Vec::new() };
    let misnamed = folder.skipped.iter().filter(|(path, _)| folder.misnamed.contains(path));
    misnamed
        .map(|(path, why)| Finding {
            rule: "file-name",
            severity,
            file: path.clone(),
            line: None,
            column: None,
            message: format!("the file is left out: {why}"),
            help: Some(match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("sql")) {
                true => "name it like `001_name.sql`, or move it out of the folder".to_owned(),
                false => "make it a migration in SQL, or move it out of the folder".to_owned(),
            }),
            table: None,
        })
        .collect()
}

/// What the folder's migrations depend on (`dependency`): each other in a circle, or what is not in the folder.
fn dependencies(migrations: &[Migration], policy: &Policy) -> Vec<Finding> {
    let Some(severity) = policy.severity_of("dependency") else { return Vec::new() };
    let finding = |file: &Migration, severity, message, help: &str| Finding {
        rule: "dependency",
        severity,
        file: file.path.clone(),
        line: None,
        column: None,
        message,
        help: Some(help.to_owned()),
        table: None,
    };
    let mut findings = Vec::new();
    let (_, circle) = super::plan::ordered(migrations);
    if let Some(first) = circle.first() {
        findings.push(finding(first, severity, super::plan::circular(&circle), "take one of the dependencies out"));
    }
    for file in migrations.iter().filter(|file| !file.metadata.allow.contains_key("dependency")) {
        for wanted in &file.metadata.dependencies {
            if !migrations.iter().any(|other| other.is_called(wanted)) {
                // A database may have it from a file that is gone.
                let message = format!("it depends on `{wanted}`, which is no migration of this folder");
                findings.push(finding(file, severity.min(Severity::Warning), message, "mend the name"));
            }
        }
    }
    findings
}

/// [`judge`] over the whole folder, the files that no layout knows (`file-name`), and what depends on what
/// (`dependency`).
pub fn lint_folder(folder: &Folder, policy: &Policy) -> Vec<Finding> {
    let mut findings = misnamed(folder, policy);
    findings.extend(dependencies(&folder.migrations, policy));
    findings.extend(judge(&folder.migrations, &folder.migrations, policy));
    findings
}

/// The tables that these migrations make, one after the other, and do not take away again, each with the number of
/// the migration that makes it. What only code says (DO, CALL) is not seen; a table that a later such statement
/// mentions is left out, and so is one in a schema that is dropped.
pub fn built_tables(migrations: &[Migration]) -> Vec<(String, usize)> {
    let schema = schema::Schema::of(migrations);
    let statements = |from: usize| {
        let rest = migrations.iter().skip(from);
        rest.flat_map(|migration| migration.up.statements.iter().map(move |one| (one, migration.up.text(one))))
    };
    let goes_otherwise = |table: &str, from: usize| {
        let (of, bare) = table.rsplit_once('.').unwrap_or(("public", table));
        statements(from).any(|(statement, text)| {
            super::destroyed_schemas(text).iter().any(|dropped| dropped.eq_ignore_ascii_case(of))
                || (statement.effect.unknown && text.to_lowercase().contains(bare.trim_matches('"')))
        })
    };
    let made = schema.made().filter(|((number, _), table)| !goes_otherwise(table, *number));
    made.map(|((number, _), table)| (table.to_owned(), number)).collect()
}

/// Whether a statement drops tables, or gives them another name or schema.
pub fn takes_tables_away(statement: &str) -> bool {
    let words: Vec<String> = statement.split_whitespace().map(str::to_ascii_lowercase).collect();
    let has = |first: &str, second: &str| words.windows(2).any(|pair| pair == [first, second]);
    has("drop", "table") || has("rename", "to") || has("set", "schema")
}

/// The findings of one file.
struct Found<'a> {
    migration: &'a Migration,
    findings: &'a mut Vec<Finding>,
}

impl Found<'_> {
    fn add(&mut self, rule: &'static str, severity: Severity, message: String, help: &str) {
        self.findings.push(Finding {
            rule,
            severity,
            file: self.migration.path.clone(),
            line: None,
            column: None,
            message,
            help: (!help.is_empty()).then(|| help.to_owned()),
            table: None,
        });
    }

    fn at(&mut self, half: Placed<'_>, offset: usize) {
        if let Some(last) = self.findings.last_mut() {
            let (line, column) = half.script.position(offset);
            last.file = half.file.to_owned();
            last.line = Some(line);
            last.column = Some(column);
        }
    }

    fn allows(&self, rule: &str) -> bool {
        self.migration.metadata.allow.contains_key(rule)
    }

    fn content(&mut self) {
        let migration = self.migration;
        if migration.up.is_empty() {
            if !self.allows("empty-file") {
                let message = "there is no statement in it".to_owned();
                self.add("empty-file", Severity::Warning, message, "write its UP, or remove the file");
            }
        } else if migration.down.is_none() && !migration.master && !self.allows("missing-down") {
            self.add(
                "missing-down",
                Severity::Warning,
                "it has no DOWN: a failed run can only be undone by restoring the backup".to_owned(),
                "add what undoes it",
            );
        }
    }

    fn syntax(&mut self, half: Placed<'_>) {
        let script = half.script;
        for statement in &script.statements {
            if let Some(problem) = problem(script, statement) {
                let message = format!("{} in `{}`", problem.message, opening(script.text(statement)));
                let (severity, help) = if self.allows("syntax") {
                    (Severity::Note, "")
                } else {
                    (Severity::Error, "if the server takes it all the same: -- ripcord: allow syntax REASON")
                };
                self.add("syntax", severity, message, help);
                self.at(half, statement.start + problem.start);
            }
        }
    }

    fn transactions(&mut self, half: Placed<'_>) {
        let script = half.script;
        for statement in &script.statements {
            if statement.effect.controls_transaction {
                let message = format!(
                    "`{}` would end or replace the transaction that ripcord runs it in",
                    opening(script.text(statement))
                );
                self.add(
                    "transaction-control",
                    Severity::Error,
                    message,
                    "take it out, and give what must run outside a transaction a file of its own",
                );
                self.at(half, statement.start);
            }
        }
    }

    fn destruction(&mut self, protected: bool) {
        let migration = self.migration;
        let severity = if protected { Severity::Error } else { Severity::Warning };
        for statement in &migration.up.statements {
            let Some(what) = &statement.effect.destroys_data else {
                continue;
            };
            if !self.allows("destructive") {
                self.add(
                    "destructive",
                    severity,
                    format!("it {what}"),
                    "if that is meant, say why in the file: -- ripcord: allow destructive REASON",
                );
                self.at(migration.placed_up(), statement.start);
            }
            if migration.down.is_none() && !self.allows("destructive-without-down") {
                self.add(
                    "destructive-without-down",
                    severity,
                    format!("it {what}, and has no DOWN"),
                    "add a DOWN that brings the schema back; the data come back from the backup only",
                );
                self.at(migration.placed_up(), statement.start);
            }
        }
    }

    fn remarks(&mut self) {
        for remark in &self.migration.metadata.remarks {
            // What is left out of a file is told whatever the file says.
            if remark.rule != "transaction-control" && self.allows(remark.rule) {
                continue;
            }
            let (severity, help) = match remark.rule {
                "placeholder" => (
                    Severity::Error,
                    "write the value, or `:'name'` with `allow` below `[variables]`; if it is meant: \
                     -- ripcord: allow placeholder REASON",
                ),
                _ => (Severity::Note, ""),
            };
            self.add(remark.rule, severity, remark.message.clone(), help);
            if let Some(last) = self.findings.last_mut() {
                last.line = Some(remark.line);
            }
        }
    }
}

/// Where no file of several has a DOWN, that is how the folder is: told once.
fn without_downs(migrations: &[Migration], findings: &mut Vec<Finding>) {
    let (many, any) =
        (findings.iter().filter(|one| one.rule == "missing-down").count(), |one: &Migration| one.down.is_some());
    if many < 4 || migrations.iter().any(any) {
        return;
    }
    let mut first = true;
    findings.retain_mut(|finding| {
        if finding.rule != "missing-down" || finding.severity != Severity::Warning {
            return true;
        }
        let kept = std::mem::take(&mut first);
        finding.message = format!(
            "neither it nor any of the {many} has a DOWN: a failed run can only be undone by restoring the backup"
        );
        kept
    });
}

/// What the parser says against a statement: its first complaint, since those after it follow from it.
fn problem(script: &Script, statement: &Statement) -> Option<SyntaxProblem> {
    match &statement.parsed {
        Parsed::Well => None,
        Parsed::Badly { message, start } => Some(SyntaxProblem { message: message.clone(), start: *start }),
        Parsed::NotAsked => with_tree(script.text(statement), |_, problems| problems.first().cloned()).flatten(),
    }
}

fn duplicates(migrations: &[Migration], findings: &mut Vec<Finding>) {
    let mut by_version: BTreeMap<&Version, Vec<&Migration>> = BTreeMap::new();
    for migration in migrations {
        by_version.entry(&migration.version).or_default().push(migration);
    }
    for (version, files) in by_version {
        let Some((first, others)) = files.split_first() else {
            continue;
        };
        for other in others {
            findings.push(Finding {
                rule: "duplicate-version",
                severity: Severity::Error,
                file: other.path.clone(),
                line: None,
                column: None,
                message: format!("version `{version}` is taken by `{}` too", first.file_name),
                help: Some("give the one that is not applied yet another number".to_owned()),
                table: None,
            });
        }
    }
}

fn gaps(migrations: &[Migration], findings: &mut Vec<Finding>) {
    let mut numbered: Vec<(u64, &Migration)> =
        migrations.iter().filter_map(|migration| Some((migration.version.as_str().parse().ok()?, migration))).collect();
    numbered.sort_by_key(|(number, _)| *number);
    for pair in numbered.windows(2) {
        let [(before, _), (number, migration)] = pair else {
            continue;
        };
        let missing = number.saturating_sub(*before).saturating_sub(1);
        let known = migration.metadata.allow.contains_key("version-gap");
        if missing == 0 || missing > WIDEST_GAP || *number > 99_999_999 || known {
            continue;
        }
        findings.push(Finding {
            rule: "version-gap",
            severity: Severity::Note,
            file: migration.path.clone(),
            line: None,
            column: None,
            message: format!("there is no number between {before} and {number}"),
            help: None,
            table: None,
        });
    }
}

#[cfg(test)]
mod tests;
