//! `[hooks]` as it is written.

use ripcord::settings::{Hook, HookWhat};
use serde::Deserialize;

use super::file::{DurationUnit, Unit};

/// `[hooks]`: a command or a list of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HooksTable {
    /// Before anything of a run, the backup included.
    pub before_run: Option<Commands>,
    /// After a run that ended well.
    pub after_run: Option<Commands>,
    /// Around the backup.
    pub before_backup: Option<Commands>,
    /// Around the backup.
    pub after_backup: Option<Commands>,
    /// Around each migration.
    pub before_migration: Option<Commands>,
    /// Around each migration.
    pub after_migration: Option<Commands>,
    /// Around DOWN scripts.
    pub before_rollback: Option<Commands>,
    /// Around DOWN scripts.
    pub after_rollback: Option<Commands>,
    /// Around a restore.
    pub before_restore: Option<Commands>,
    /// Around a restore.
    pub after_restore: Option<Commands>,
    /// One command's limit.
    pub timeout: Option<Unit<DurationUnit>>,
}

impl HooksTable {
    /// The hooks by name.
    pub fn by_name(&self) -> [(&'static str, &Option<Commands>); 10] {
        [
            ("before_run", &self.before_run),
            ("after_run", &self.after_run),
            ("before_backup", &self.before_backup),
            ("after_backup", &self.after_backup),
            ("before_migration", &self.before_migration),
            ("after_migration", &self.after_migration),
            ("before_rollback", &self.before_rollback),
            ("after_rollback", &self.after_rollback),
            ("before_restore", &self.before_restore),
            ("after_restore", &self.after_restore),
        ]
    }
}

/// One step or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Commands {
    /// Several, in order. It stands first, because a table would take a list for its fields.
    Several(Vec<HookStep>),
    /// One.
    One(HookStep),
}

/// A command as a text, or a table that says more.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum HookStep {
    /// A command.
    Command(String),
    /// A command or SQL with its rules.
    Table(HookTable),
}

/// `{ sql = "…", timeout = "5s", on_failure = "warn" }`: `command` or `sql`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookTable {
    /// Run by `sh -c`.
    pub command: Option<String>,
    /// Run on the target.
    pub sql: Option<String>,
    /// Its own limit.
    pub timeout: Option<Unit<DurationUnit>>,
    /// Whether its failure fails the run.
    pub on_failure: Option<HookFailureWord>,
}

/// What a hook's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookFailureWord {
    /// The run fails.
    Fail,
    /// It is told.
    Warn,
}

impl Commands {
    /// As a list. The error says what is wrong with one of them.
    pub fn to_hooks(&self) -> Result<Vec<Hook>, String> {
        let steps = match self {
            Commands::One(step) => std::slice::from_ref(step),
            Commands::Several(steps) => steps,
        };
        steps.iter().map(HookStep::to_hook).collect()
    }
}

impl HookStep {
    fn to_hook(&self) -> Result<Hook, String> {
        let table = match self {
            HookStep::Command(command) => {
                return Ok(Hook { what: HookWhat::Command(command.clone()), timeout: None, only_warns: None });
            }
            HookStep::Table(table) => table,
        };
        let what = match (&table.command, &table.sql) {
            (Some(command), None) => HookWhat::Command(command.clone()),
            (None, Some(sql)) => HookWhat::Sql(sql.clone()),
            _ => return Err("a hook has either `command` or `sql`".to_owned()),
        };
        let only_warns = table.on_failure.map(|word| word == HookFailureWord::Warn);
        Ok(Hook { what, timeout: table.timeout.map(Unit::get), only_warns })
    }
}
