//! A plan in a file: what was looked at and approved is what runs, or nothing does.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::apply::{Planned, Request};
use super::context::{Context, TOOL_VERSION};
use crate::clock::{self, Time};
use crate::error::{Error, Result};
use crate::migration::plan::Selection;

/// The version of the file's form.
const FORMAT: u32 = 1;

/// What the file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanFile {
    format: u32,
    tool_version: String,
    created_at: Time,
    database: String,
    environment: Option<String>,
    target: Option<String>,
    file: Option<String>,
    limit: Option<usize>,
    again: bool,
    atomic: bool,
    #[serde(default = "one")]
    parallel: usize,
    skip_backup: bool,
    applied: Vec<One>,
    pending: Vec<One>,
}

/// Plans of before there were branches.
fn one() -> usize {
    1
}

/// A migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct One {
    version: String,
    name: String,
    checksum: String,
}

impl PlanFile {
    /// What was planned.
    pub fn of(ctx: &Context, request: &Request, planned: &Planned) -> PlanFile {
        let selection = &request.selection;
        let applied = planned.applied.iter().map(|one| One {
            version: one.version.to_string(),
            name: one.name.clone(),
            checksum: one.checksum.clone(),
        });
        let pending = planned.plan.pending.iter().map(|pending| One {
            version: pending.migration.version.to_string(),
            name: pending.migration.file_name.clone(),
            checksum: pending.migration.checksum.clone(),
        });
        PlanFile {
            format: FORMAT,
            tool_version: TOOL_VERSION.to_owned(),
            created_at: clock::now(),
            database: ctx.target.database().to_owned(),
            environment: ctx.settings.environment.name.clone(),
            target: selection.target.clone(),
            file: selection.file.clone(),
            limit: selection.limit,
            again: selection.again,
            atomic: request.atomic,
            parallel: request.parallel,
            skip_backup: request.skip_backup,
            applied: applied.collect(),
            pending: pending.collect(),
        }
    }

    /// Writes it; a file that is there is replaced as a whole.
    pub fn write(&self, path: &Path) -> Result<()> {
        let cannot = |error: &dyn std::fmt::Display| {
            Error::failed(format!("the plan `{}` cannot be written", path.display())).because(error)
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| cannot(&error))?;
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text + "\n").map_err(|error| cannot(&error))?;
        std::fs::rename(&partial, path).map_err(|error| cannot(&error))
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<PlanFile> {
        let cannot = |error: &dyn std::fmt::Display| {
            Error::usage(format!("the plan `{}` cannot be read", path.display())).because(error)
        };
        let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
        let plan: PlanFile =
            serde_json::from_str(&text).map_err(|error| cannot(&error).hint("ripcord plan -o FILE makes one"))?;
        if plan.format != FORMAT {
            return Err(cannot(&format!("its form is {}, and this version knows {FORMAT}", plan.format)));
        }
        Ok(plan)
    }

    /// The selection and the options that it was made with.
    pub fn ask(&self, request: &mut Request) {
        request.selection = Selection {
            target: self.target.clone(),
            file: self.file.clone(),
            limit: self.limit,
            again: self.again,
            ..request.selection.clone()
        };
        request.atomic = self.atomic;
        request.parallel = self.parallel;
    }

    /// An error (refused) with every difference, when what would run now is not what the file says.
    pub fn hold(&self, ctx: &Context, request: &Request, planned: &Planned) -> Result<()> {
        let now = PlanFile::of(ctx, request, planned);
        let mut differences = Vec::new();
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
        for (what, then, now) in [
            ("the database", self.database.clone(), now.database.clone()),
            ("the environment", named(&self.environment), named(&now.environment)),
            ("without a backup", self.skip_backup.to_string(), now.skip_backup.to_string()),
        ] {
            if then != now {
                differences.push(format!("{what} was `{then}` and is `{now}`"));
            }
        }
        compare(&mut differences, "applied", &self.applied, &now.applied);
        compare(&mut differences, "to run", &self.pending, &now.pending);
        if differences.is_empty() {
            return Ok(());
        }
        let made = self.created_at.format("%Y-%m-%d %H:%M UTC");
        let error = Error::refused(format!("the plan of {made} is not what would run now"));
        let error = differences.iter().take(10).fold(error, |error, difference| error.because(difference));
        Err(error.hint("look again, and have it approved: ripcord plan -o FILE"))
    }
}

fn compare(differences: &mut Vec<String>, what: &str, then: &[One], now: &[One]) {
    let before = differences.len();
    for one in then {
        match now.iter().find(|other| other.version == one.version) {
            None => differences.push(format!("`{}` was {what}, and is not any more", one.name)),
            Some(other) if other.checksum != one.checksum => {
                differences.push(format!("the text of `{}` has changed", one.name));
            }
            Some(_) => {}
        }
    }
    for one in now.iter().filter(|one| !then.iter().any(|other| other.version == one.version)) {
        differences.push(format!("`{}` is {what}, and was not", one.name));
    }
    if differences.len() == before && then != now {
        differences.push(format!("the order of what is {what} has changed"));
    }
}
