//! `ripcord.toml` as it is written: every key optional, every unknown key an error that names the line
//! and the nearest key that is known.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord::settings::{Level, OnFailure, Writes};
use ripcord::{Error, Result};
use serde::{Deserialize, Deserializer, de::Visitor};
use toml::Spanned;

use super::hooks::HooksTable;
use super::units;

/// The whole file, and equally one environment's table in it: an environment may override any key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// The target; the place for it is the environment, but hosts without a password are fine here.
    pub database_url: Option<String>,
    /// The database that the lock is held in.
    pub maintenance_db: Option<String>,
    /// The folder of migrations.
    pub migrations_dir: Option<PathBuf>,
    /// The layout's name.
    pub layout: Option<String>,
    /// A curated order: names and globs.
    pub order: Option<Vec<String>>,
    /// Where backups live.
    pub store: Option<String>,
    /// What stands against a changed file.
    pub on_changed: Option<OnChangedWord>,
    /// What stands against a migration that arrives late.
    pub out_of_order: Option<OutOfOrderWord>,
    /// How many migrations may run beside each other.
    pub parallel: Option<u32>,
    /// Variables that migrations may use.
    pub variables: VariablesTable,
    /// Folders with PostgreSQL's programs.
    pub pg_bin: Option<Vec<PathBuf>>,
    /// Where the master key comes from.
    pub key: Option<Spanned<KeyTable>>,
    /// How a backup is made.
    pub backup: BackupTable,
    /// Which backups stay.
    pub retention: RetentionTable,
    /// How long things may take.
    pub timeouts: TimeoutsTable,
    /// How often things are tried.
    pub retry: RetryTable,
    /// Whether the application is well. An environment's list takes the place of the file's.
    pub health: Option<Vec<Spanned<HealthTable>>>,
    /// When a backup must have been drilled.
    pub drill: DrillTable,
    /// What to do on failure.
    pub recovery: RecoveryTable,
    /// Commands around the steps.
    pub hooks: HooksTable,
    /// What must be there after a run.
    pub expect: ExpectTable,
    /// The API in front of the database.
    pub postgrest: PostgrestTable,
    /// Log files.
    pub logs: LogsTable,
    /// How migrations are judged.
    pub validate: ValidateTable,
    /// Environments only: destructive commands are refused.
    pub protected: Option<Spanned<bool>>,
    /// Environments only: a run needs an approval.
    pub approval: Option<Spanned<bool>>,
    /// Environments only: `--skip-backup` is allowed.
    pub allow_skip_backup: Option<Spanned<bool>>,
    /// Environments only: a run goes without a backup, where that is allowed.
    pub skip_backup: Option<Spanned<bool>>,
    /// Environments only: when migrations may run.
    pub maintenance_windows: Option<Spanned<Vec<String>>>,
    /// Top level only.
    pub environments: Option<Spanned<BTreeMap<String, Section>>>,
}

/// `[key]`: exactly one of the first three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyTable {
    /// A file with the digits.
    pub file: Option<PathBuf>,
    /// A variable with the digits.
    pub env: Option<String>,
    /// A command that prints the digits.
    pub command: Option<String>,
    /// Further keys, each with one of the three: new backups open with them too.
    pub recovery: Vec<Spanned<RecoveryKeyTable>>,
    /// Ids of keys that are kept elsewhere.
    pub offline: Vec<Spanned<String>>,
}

/// One of `[key] recovery`: exactly one of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryKeyTable {
    /// A file with the digits.
    pub file: Option<PathBuf>,
    /// A variable with the digits.
    pub env: Option<String>,
    /// A command that prints the digits.
    pub command: Option<String>,
}

/// `[backup]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupTable {
    /// zstd's level, 1 to 19.
    pub compression_level: Option<i32>,
    /// Threads that compress and seal.
    pub threads: Option<u32>,
    /// pg_dump processes at once.
    pub jobs: Option<u32>,
    /// How long a backup may take.
    pub timeout: Option<Unit<DurationUnit>>,
    /// Schemas that are left out.
    pub exclude_schemas: Option<Vec<String>>,
}

/// `[retention]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionTable {
    /// See [`ripcord::settings::RetentionRules`], here and below.
    pub keep_last: Option<u32>,
    /// Hourly ones.
    pub keep_hourly: Option<u32>,
    /// Daily ones.
    pub keep_daily: Option<u32>,
    /// Weekly ones.
    pub keep_weekly: Option<u32>,
    /// Monthly ones.
    pub keep_monthly: Option<u32>,
    /// Yearly ones.
    pub keep_yearly: Option<u32>,
    /// Everything younger; `0s` turns the rule off.
    pub keep_within: Option<Unit<DurationUnit>>,
    /// Everything with one of these tags.
    pub keep_tags: Option<Vec<String>>,
    /// The store's share.
    pub max_size: Option<Unit<SizeUnit>>,
}

/// `[drill]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrillTable {
    /// The last good drill may be as old as this; `0s`: its age is not looked at.
    pub max_age: Option<Unit<DurationUnit>>,
}

/// `[postgrest]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgrestTable {
    /// It is told to read the schema again.
    pub notify: Option<bool>,
}

/// `[timeouts]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeoutsTable {
    /// See [`ripcord::settings::Timeouts`], here and below.
    pub statement: Option<Unit<DurationUnit>>,
    /// `lock_timeout`.
    pub lock: Option<Unit<DurationUnit>>,
    /// One whole migration.
    pub migration: Option<Unit<DurationUnit>>,
    /// Connecting.
    pub connect: Option<Unit<DurationUnit>>,
    /// Loading and proving a backup.
    pub restore: Option<Unit<DurationUnit>>,
    /// Waiting for another run.
    pub wait_for_lock: Option<Unit<DurationUnit>>,
}

/// `[retry]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryTable {
    /// Attempts, the first one included.
    pub attempts: Option<u32>,
    /// The pause before the second.
    pub delay: Option<Unit<DurationUnit>>,
}

/// One `[[health]]`: exactly one of `url`, `command`, `sql`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthTable {
    /// An address to GET.
    pub url: Option<String>,
    /// A command to run.
    pub command: Option<String>,
    /// A query to ask.
    pub sql: Option<String>,
    /// Accepted statuses.
    pub expect_status: Option<Vec<u16>>,
    /// JSON pointer → value.
    pub expect_json: Option<BTreeMap<String, Scalar>>,
    /// Text in the body.
    pub expect_text: Option<String>,
    /// Header → value.
    pub headers: BTreeMap<String, HeaderValue>,
    /// Good answers in a row.
    pub successes: Option<u32>,
    /// The pause between probes.
    pub interval: Option<Unit<DurationUnit>>,
    /// Green must come within this.
    pub deadline: Option<Unit<DurationUnit>>,
    /// One probe's limit.
    pub timeout: Option<Unit<DurationUnit>>,
}

/// What a JSON value must be; compared as text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `"ok"`
    Text(String),
    /// `true`
    Truth(bool),
    /// `3`
    Number(i64),
}

/// A header's value: as written, or from a variable so that it need not stand in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    /// As written.
    Plain(String),
    /// From a variable.
    Variable(VariableName),
}

/// `{ env = "NAME" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableName {
    /// The variable.
    pub env: String,
}

/// `[recovery]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryTable {
    /// What to do on failure.
    pub on_failure: Option<OnFailure>,
    /// What holds for foreign writes.
    pub writes: Option<Writes>,
}

/// `[variables]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VariablesTable {
    /// The names, which are those of environment variables too.
    pub allow: Option<Vec<String>>,
}

/// `[expect]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectTable {
    /// `schema.table`.
    pub tables: Option<Vec<String>>,
    /// `schema.function`.
    pub functions: Option<Vec<String>>,
    /// `schema.table.policy`.
    pub policies: Option<Vec<String>>,
    /// Constraints that may stay not validated, `schema.table.constraint`.
    pub not_valid: Option<Vec<String>>,
    /// A folder of SQL files that must each return no row.
    pub checks: Option<PathBuf>,
}

/// `[validate]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidateTable {
    /// Rows from which on a table is large.
    pub large_table_rows: Option<u64>,
    /// Rule → `off`, `note`, `warning` or `error`.
    pub rules: Option<BTreeMap<String, Level>>,
}

/// `[logs]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsTable {
    /// The folder.
    pub dir: Option<PathBuf>,
}

/// `on_changed`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnChangedWord {
    /// The plan is invalid.
    Error,
    /// It runs once more.
    Rerun,
    /// It is told and left.
    Warn,
}

/// `out_of_order`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutOfOrderWord {
    /// The plan is invalid.
    Linear,
    /// It never runs.
    LinearSkip,
    /// It runs.
    NonLinear,
}

/// A value that must be written with its unit.
#[derive(Clone, Copy, Debug)]
pub struct Unit<U: Units> {
    value: U::Value,
}

impl<U: Units> Unit<U> {
    /// The value.
    pub fn get(self) -> U::Value {
        self.value
    }
}

/// A family of units.
pub trait Units {
    /// What is measured.
    type Value: Copy + fmt::Debug;
    /// Reads one; the error says what to write.
    fn parse(text: &str) -> Result<Self::Value, String>;
}

/// Durations.
#[derive(Clone, Copy, Debug)]
pub struct DurationUnit;

impl Units for DurationUnit {
    type Value = Duration;
    fn parse(text: &str) -> Result<Duration, String> {
        units::duration(text)
    }
}

/// Sizes, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct SizeUnit;

impl Units for SizeUnit {
    type Value = u64;
    fn parse(text: &str) -> Result<u64, String> {
        units::size(text)
    }
}

impl<'de, U: Units> Deserialize<'de> for Unit<U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<U>(PhantomData<U>);

        impl<U: Units> Visitor<'_> for Text<U> {
            type Value = Unit<U>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text with a unit")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Unit<U>, E> {
                U::parse(text).map(|value| Unit { value }).map_err(E::custom)
            }

            // A bare number is told both spellings, as on the command line.
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Unit<U>, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Text(PhantomData))
    }
}

/// A file, read.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name, for messages.
    pub name: String,
    /// The folder that relative paths in it start from.
    pub base: PathBuf,
    /// What it says.
    pub section: Section,
    text: String,
}

impl File {
    /// Reads a file's text.
    pub fn parse(path: &Path, text: String) -> Result<File> {
        let name = path.display().to_string();
        let section: Section = toml::from_str(&text).map_err(|error| explain(&name, &text, &error))?;
        let file = File { name, base: path.parent().map(Path::to_path_buf).unwrap_or_default(), section, text };
        file.check_places()?;
        Ok(file)
    }

    /// An error at a place in the file.
    pub fn wrong_at(&self, start: usize, what: impl fmt::Display) -> Error {
        Error::usage(format!("`{}` line {}: {what}", self.name, line_of(&self.text, start)))
    }

    fn check_places(&self) -> Result<()> {
        let policies = [
            ("protected", &self.section.protected),
            ("approval", &self.section.approval),
            ("allow_skip_backup", &self.section.allow_skip_backup),
            ("skip_backup", &self.section.skip_backup),
        ]
        .map(|(key, value)| (key, value.as_ref().map(Spanned::span)));
        let windows = ("maintenance_windows", self.section.maintenance_windows.as_ref().map(Spanned::span));
        for (key, span) in policies.into_iter().chain([windows]) {
            if let Some(span) = span {
                return Err(self
                    .wrong_at(span.start, format!("`{key}` belongs to an environment"))
                    .hint("move it below `[environments.NAME]`: without a named environment the strict rules hold"));
            }
        }
        let Some(environments) = &self.section.environments else {
            return Ok(());
        };
        for (name, table) in environments.get_ref() {
            if let Some(inner) = &table.environments {
                return Err(self.wrong_at(inner.span().start, format!("environment `{name}` cannot hold environments")));
            }
        }
        Ok(())
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// toml's error in our words: file, line, key, and what is known instead.
fn explain(name: &str, text: &str, error: &toml::de::Error) -> Error {
    let message = error.message();
    let Some(span) = error.span() else {
        return Error::usage(format!("`{name}`: {message}"));
    };
    let line = line_of(text, span.start);
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut words = rest.split('`');
        let unknown = words.next().unwrap_or_default();
        // `unknown`, expected one of `a`, `b`: every second piece is a key.
        let known: Vec<&str> = words.skip(1).step_by(2).collect();
        let error = Error::usage(format!("`{name}` line {line}: unknown key `{unknown}`"));
        return match nearest(unknown, &known) {
            Some(key) => error.hint(format!("did you mean `{key}`?")),
            None => error.hint(format!("known here: {}", known.join(", "))),
        };
    }
    let what = message.lines().collect::<Vec<_>>().join(", ");
    match key_at(text, line) {
        Some(key) => Error::usage(format!("`{name}` line {line}, key `{key}`: {what}")),
        None => Error::usage(format!("`{name}` line {line}: {what}")),
    }
}

/// The dotted key that the line sets, as far as the text tells.
fn key_at(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let (key, _) = lines.last()?.split_once('=')?;
    let table = lines.iter().rev().map(|line| line.trim()).find(|line| line.starts_with('[')).map(|line| {
        let end = line.find(']').unwrap_or(line.len());
        line[..end].trim_start_matches('[').trim().to_owned()
    });
    Some(match table {
        Some(table) => format!("{table}.{}", key.trim()),
        None => key.trim().to_owned(),
    })
}

/// The candidate that a slip of the hand could have made into `word`.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Error {
        File::parse(Path::new("ripcord.toml"), text.to_owned()).unwrap_err()
    }

    #[test]
    fn an_unknown_key_is_told_with_line_and_nearest() {
        let error = refused("store = \"b\"\n[timeouts]\nstatment = \"5m\"\n");
        assert_eq!(error.message(), "`ripcord.toml` line 3: unknown key `statment`");
        assert_eq!(error.hint_text(), Some("did you mean `statement`?"));
        let error = refused("[environments.production]\nprotect = true\n");
        assert_eq!(error.message(), "`ripcord.toml` line 2: unknown key `protect`");
        assert_eq!(error.hint_text(), Some("did you mean `protected`?"));
        let error = refused("[[health]]\nurl = \"http://x\"\n\n[retry]\nzzz = 1\n");
        assert_eq!(error.message(), "`ripcord.toml` line 5: unknown key `zzz`");
        assert_eq!(error.hint_text(), Some("known here: attempts, delay"));
    }

    #[test]
    fn a_bare_number_is_refused_at_its_line() {
        let error = refused("[timeouts]\nlock = \"5s\"\nstatement = 300\n").to_string();
        assert!(error.contains("line 3, key `timeouts.statement`"), "{error}");
        assert!(error.contains("`300s` or `300ms`"), "{error}");
        let error = refused("[retention]\nmax_size = \"500\"\n").to_string();
        assert!(error.contains("`500MB` or `500MiB`"), "{error}");
    }

    #[test]
    fn broken_toml_is_told_by_line() {
        assert!(refused("store = \n").message().contains("line 1"));
        assert!(refused("a = 1\nstore = \"x\"\n").message().contains("line 1"));
        assert!(refused("[recovery]\nwrites = \"capture\"\n").message().contains("line 2"));
    }

    #[test]
    fn policies_belong_to_an_environment() {
        let error = refused("store = \"b\"\nallow_skip_backup = true\n");
        assert!(error.message().contains("line 2"), "{error}");
        assert!(error.message().contains("belongs to an environment"), "{error}");
        assert!(refused("[environments.a.environments.b]\nstore = \"x\"\n").message().contains("cannot hold"));
    }

    #[test]
    fn nearest_knows_slips_from_other_words() {
        assert_eq!(nearest("keep_lst", &["keep_last", "keep_daily"]), Some("keep_last"));
        assert_eq!(nearest("colour", &["keep_last", "store"]), None);
    }
}
