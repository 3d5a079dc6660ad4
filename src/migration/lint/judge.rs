//! All rules over a folder, weighed as an environment wants them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::hazards::{self, Hazard, hazards};
use super::rules::{self, Group, Rule};
use super::schema::{Named, Place, Schema};
use super::{Finding, Severity, grants, lint, secrets};
use crate::migration::tree::each;
use crate::migration::{Migration, Placed};
use crate::settings::{Level, LintSettings};

/// Findings of one rule in one file beyond which they are only counted: a file of rows has thousands.
const MOST: usize = 5;
/// What cannot be weighed: the run would fail, or nobody would know what it did.
const FIXED: [&str; 3] = ["syntax", "transaction-control", "duplicate-version"];

/// How strictly a folder is judged.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    protected: bool,
    levels: BTreeMap<String, Level>,
}

impl Policy {
    /// The rules' own weights, those of a protected environment where it is one, and what the configuration says.
    pub fn new(protected: bool, settings: &LintSettings) -> Policy {
        Policy { protected, levels: settings.levels.clone() }
    }

    /// Rules of the group that are only looked for when they are asked for are asked for, as notes.
    pub fn asking(mut self, group: Group) -> Policy {
        for rule in rules::all().filter(|rule| rule.group == group && rule.severity.is_none()) {
            self.levels.entry(rule.id.to_owned()).or_insert(Level::Note);
        }
        self
    }

    /// What a finding of the rule counts; `None`: the rule is off.
    pub(super) fn severity(&self, rule: &Rule) -> Option<Severity> {
        if let Some(level) = self.levels.get(rule.id).filter(|_| !FIXED.contains(&rule.id)) {
            return match level {
                Level::Off => None,
                Level::Note => Some(Severity::Note),
                Level::Warning => Some(Severity::Warning),
                Level::Error => Some(Severity::Error),
            };
        }
        match rule.id {
            // Where rows are made up, so are passwords.
            "secret" if !self.protected => Some(Severity::Warning),
            _ => rule.severity,
        }
    }

    /// What a finding of the rule of that name counts; `None`: it is off, or there is no such rule.
    pub fn severity_of(&self, id: &str) -> Option<Severity> {
        rules::rule(id).and_then(|rule| self.severity(rule))
    }

    /// What the configuration says of a finding that was weighed already.
    fn weigh(&self, mut finding: Finding) -> Option<Finding> {
        let asked = self.levels.contains_key(finding.rule) && !FIXED.contains(&finding.rule);
        if asked && let Some(rule) = rules::rule(finding.rule) {
            finding.severity = self.severity(rule)?;
        }
        Some(finding)
    }
}

/// What stands against a rule's name in the configuration; `None`: nothing.
pub fn refuse_level(id: &str, level: Level) -> Option<String> {
    if rules::rule(id).is_none() {
        return Some(format!("there is no rule `{id}`; docs/rules has all of them"));
    }
    (FIXED.contains(&id) && level != Level::Error)
        .then(|| format!("`{id}` is always an error: such a file cannot be run"))
}

/// Judges `chosen`, which are migrations of `folder`: files, syntax, destruction, locks, compatibility, security,
/// and the schema that the whole folder builds. `-- ripcord: allow RULE REASON` in a file silences a rule there;
/// so does the linter's own `-- squawk-ignore RULE` above a statement.
pub fn judge(folder: &[Migration], chosen: &[Migration], policy: &Policy) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        lint(chosen, policy.protected).into_iter().filter_map(|finding| policy.weigh(finding)).collect();
    let of_one = |migration: &Migration| {
        let mut found = Judged { migration, policy, findings: Vec::new() };
        found.allowances();
        found.hazards();
        found.secrets();
        found.grants();
        found.findings
    };
    findings.extend(each(chosen, of_one).into_iter().flatten());
    let files = chosen.iter().flat_map(|one| [Some(&one.path), one.down_path.as_ref()]).flatten();
    let places: HashMap<&Path, usize> = files.enumerate().map(|(place, file)| (file.as_path(), place)).collect();
    findings.extend(of_schema(folder, &places, policy));
    findings.sort_by_key(|finding| (places.get(finding.file.as_path()).copied(), finding.line));
    findings
}

/// UPDATE and DELETE statements, as findings of `large-table`: whether their tables are large, the live database
/// knows.
pub fn sweeps(migrations: &[Migration], policy: &Policy) -> Vec<Finding> {
    let Some(rule) = rules::rule("large-table") else { return Vec::new() };
    let mut findings = Vec::new();
    for migration in migrations {
        let mut found = Judged { migration, policy, findings: Vec::new() };
        for (offset, verb, table) in hazards::sweeps(&migration.up) {
            let before = found.findings.len();
            let message = format!("{verb} works through `{table}` in one transaction");
            let help = "do it in batches of some thousand rows, each committed";
            found.add(rule, migration.placed_up(), offset, message, Some(help.to_owned()));
            if let Some(last) = found.findings.get_mut(before) {
                last.table = Some(table);
            }
        }
        findings.extend(found.findings);
    }
    findings
}

struct Judged<'a> {
    migration: &'a Migration,
    policy: &'a Policy,
    findings: Vec<Finding>,
}

impl Judged<'_> {
    fn add(&mut self, rule: &'static Rule, half: Placed<'_>, offset: usize, message: String, help: Option<String>) {
        let Some(severity) = self.policy.severity(rule) else { return };
        if self.migration.metadata.allow.contains_key(rule.id) {
            return;
        }
        let (line, column) = half.script.position(offset);
        self.findings.push(Finding {
            rule: rule.id,
            severity,
            file: half.file.to_owned(),
            line: Some(line),
            column: Some(column),
            message,
            help,
            table: None,
        });
    }

    fn allowances(&mut self) {
        for id in self.migration.metadata.allow.keys() {
            if let (None, Some(rule)) = (rules::rule(id), rules::rule("unknown-rule")) {
                let message = format!("it allows `{id}`, and there is no such rule");
                self.add(rule, self.migration.placed_up(), 0, message, Some("docs/rules has all of them".to_owned()));
                if let Some(last) = self.findings.last_mut() {
                    (last.line, last.column) = (None, None);
                }
            }
        }
    }

    fn hazards(&mut self) {
        let wanted = rules::LINTER.iter().filter(|rule| self.policy.severity(rule).is_some()).collect();
        for Hazard { rule, offset, message, help, table, .. } in hazards(&self.migration.up, wanted) {
            let before = self.findings.len();
            self.add(rule, self.migration.placed_up(), offset, message, help);
            if let Some(last) = self.findings.get_mut(before) {
                last.table = table;
            }
        }
    }

    fn secrets(&mut self) {
        for half in self.migration.placed() {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for leak in secrets::leaks(half.script) {
                let count = counts.entry(leak.rule).or_default();
                *count += 1;
                if let Some(rule) = rules::rule(leak.rule).filter(|_| *count <= MOST) {
                    let message = format!("it holds {}", leak.what);
                    let help = "take it from a variable; what was committed once must be changed where it is used";
                    self.add(rule, half, leak.offset, message, Some(help.to_owned()));
                }
            }
            for (id, count) in counts {
                if let Some(last) = self.findings.iter_mut().rfind(|finding| finding.rule == id && count > MOST) {
                    last.message.push_str(&format!(", and {} more of this kind follow", count - MOST));
                }
            }
        }
    }

    fn grants(&mut self) {
        for half in self.migration.placed() {
            let script = half.script;
            for statement in &script.statements {
                if let Some(opening) = grants::opening(script, statement)
                    && let Some(rule) = rules::rule(opening.rule)
                {
                    self.add(rule, half, statement.start, opening.message, Some(opening.help.to_owned()));
                }
            }
        }
    }
}

fn of_schema(folder: &[Migration], chosen: &HashMap<&Path, usize>, policy: &Policy) -> Vec<Finding> {
    let wanted = |id| rules::rule(id).filter(|rule| policy.severity(rule).is_some());
    let (keys, open, naming) = (wanted("foreign-key-without-index"), wanted("row-level-security"), wanted("naming"));
    if keys.is_none() && open.is_none() && naming.is_none() {
        return Vec::new();
    }
    let schema = Schema::of(folder);
    let mut findings = Vec::new();
    let mut add = |rule: &'static Rule, (number, offset): Place, message: String, help: String| {
        let Some(migration) = folder.get(number) else { return };
        if chosen.contains_key(migration.path.as_path()) {
            let mut found = Judged { migration, policy, findings: Vec::new() };
            found.add(rule, migration.placed_up(), offset, message, Some(help));
            findings.extend(found.findings);
        }
    };
    if let Some(rule) = keys {
        for (place, table, columns) in schema.bare_foreign_keys() {
            let columns = columns.join(", ");
            let message = format!(
                "no index of `{table}` begins with the foreign key's `{columns}`: deleting a row that it refers to reads \
                 the whole table"
            );
            let index = format!("idx_{}_{}", table.replace('.', "_"), columns.replace(", ", "_"));
            add(rule, place, message, format!("CREATE INDEX {index} ON {table} ({columns});"));
        }
    }
    if let Some(rule) = open {
        for (place, table) in schema.open_tables() {
            let message = format!("`{table}` has no row level security");
            add(rule, place, message, format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; and its policies"));
        }
    }
    if let Some(rule) = naming {
        for (place, named) in &schema.names {
            if let Some((message, help)) = misnamed(named) {
                add(rule, *place, message, help);
            }
        }
    }
    findings
}

/// Tables and columns in `lower_snake_case`, indexes `idx_table_…`, foreign keys `fk_table_…`.
fn misnamed(named: &Named) -> Option<(String, String)> {
    let begins = |kind: &str, name: &str, prefix: String| {
        (!name.starts_with(&prefix))
            .then(|| (format!("the {kind}'s name `{name}` does not begin with `{prefix}`"), format!("{prefix}COLUMN")))
    };
    let bare = |table: &str| table.rsplit('.').next().unwrap_or_default().trim_matches('"').to_owned();
    match named {
        Named::Table(name) | Named::Column(_, name) if !is_snake(&bare(name)) => {
            Some((format!("the name `{name}` is not in lower_snake_case"), "small letters, digits and `_`".to_owned()))
        }
        Named::Index(table, name) => begins("index", &bare(name), format!("idx_{}_", bare(table))),
        Named::ForeignKey(table, name) => begins("foreign key", name, format!("fk_{}_", bare(table))),
        _ => None,
    }
}

fn is_snake(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name
            .chars()
            .all(|character| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_')
}
