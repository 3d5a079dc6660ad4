//! Migrations as text: reading folders in several layouts, splitting and classifying statements,
//! planning, linting. No database, and no I/O but reading the folder.

pub mod additive;
pub mod batch;
pub mod classify;
mod destroyed;
pub mod dumped;
pub mod dumped_script;
mod functions;
pub mod graph;
pub mod lanes;
mod lexer;
pub mod lint;
pub mod locks;
pub mod pattern;
pub mod plan;
pub mod renumber;
mod script;
pub mod source;
pub mod split;
pub mod template;
mod tree;
pub mod undo;
pub mod variables;
mod version;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use additive::{additive_run, additive_run_knowing, destroys, runs_queries};
pub use batch::Batch;
pub use destroyed::{destroyed_schemas, destroyed_tables, destroys_only, renamed_to};
pub(crate) use script::opening;
pub use variables::Variables;
pub use version::Version;

/// What a migration's file says of itself, whatever its layout's spelling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Who wrote it.
    pub author: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Old application versions break.
    pub breaking: bool,
    /// How long the author expects it to take.
    pub estimated_duration: Option<Duration>,
    /// `small`, `medium` or `large`.
    pub data_volume: Option<String>,
    /// `low`, `medium` or `high`.
    pub risk: Option<String>,
    /// Free words.
    pub tags: Vec<String>,
    /// Names of migrations that must be applied before.
    pub dependencies: Vec<String>,
    /// Needs the application to be down.
    pub requires_downtime: bool,
    /// Tables that the author says it touches.
    pub affected_tables: Vec<String>,
    /// `restore`: DOWN is not to be used.
    pub rollback_strategy: Option<String>,
    /// Its own `statement_timeout`.
    pub statement_timeout: Option<Duration>,
    /// Its own `lock_timeout`.
    pub lock_timeout: Option<Duration>,
    /// How often its whole transaction is tried, the first attempt included.
    #[serde(default)]
    pub retry: Option<u32>,
    /// The environments that it is for; empty: all.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Findings that the author allows in this file: rule → reason (`-- ripcord: allow RULE REASON`).
    #[serde(default)]
    pub allow: BTreeMap<String, String>,
    /// What the reader of the file noticed, for the linter.
    #[serde(skip)]
    pub remarks: Vec<Remark>,
}

/// Something that the reader of a file noticed and that stops nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The linter's rule.
    pub rule: &'static str,
    /// Line in the file, from 1.
    pub line: u32,
    /// In one sentence.
    pub message: String,
}

/// SQL to run, cut out of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The text, exactly as in the file. Copies of the script share it: it may be very long.
    pub sql: Arc<str>,
    /// The line of the file on which `sql` begins, from 1.
    pub first_line: u32,
    /// Its statements, in order.
    pub statements: Vec<Statement>,
    /// Why it cannot run in one transaction; `None`: it can.
    pub no_transaction: Option<String>,
    /// The values of the variables in it; none of them stands in `sql`.
    pub variables: Variables,
    /// The statements that repeat in batches, by their number from 0.
    pub batches: BTreeMap<usize, Batch>,
}

impl Script {
    /// Whether there is no statement in it.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Line and column in the file (both from 1) of a byte offset in `sql`.
    pub fn position(&self, offset: usize) -> (u32, u32) {
        split::line_column(&self.sql, offset, self.first_line)
    }
}

/// One statement of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Where it begins in the script's text, white space and comments before it left out.
    pub start: usize,
    /// Where it ends, its semicolon included.
    pub end: usize,
    /// The rest of its line, the rows and the line `\\.` that follow a COPY … FROM STDIN.
    pub data: Option<std::ops::Range<usize>>,
    /// What it may do.
    pub effect: Effect,
    /// What the parser said of it.
    pub parsed: Parsed,
}

/// What the parser said of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parsed {
    /// It was not asked: a list of literals needs no tree.
    #[default]
    NotAsked,
    /// Nothing against it, or it is kept away from the parser.
    Well,
    /// Its first complaint; those after it follow from it.
    Badly {
        /// Which.
        message: String,
        /// The byte in the statement that it is about.
        start: usize,
    },
}

/// What a statement may do to a database, as far as its text tells. When in doubt, the worse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// It cannot run inside a transaction block.
    pub needs_no_transaction: bool,
    /// It is BEGIN, COMMIT, ROLLBACK, END, START TRANSACTION, PREPARE TRANSACTION and the like.
    pub controls_transaction: bool,
    /// It may remove or rewrite rows, columns or values that were there: DROP TABLE or COLUMN, TRUNCATE,
    /// DELETE, UPDATE, MERGE, INSERT … ON CONFLICT DO UPDATE, a type change, DROP SCHEMA, DROP TYPE, …
    pub destroys_data: Option<String>,
    /// It only adds something that was not there, or removes what such a statement added, and can
    /// change no value and remove no row that was there before: DESIGN's additive proof.
    pub additive: Additive,
    /// Index that a CREATE INDEX CONCURRENTLY makes, as written.
    pub concurrent_index: Option<String>,
    /// Its text does not tell what it may do: DO, CALL, EXECUTE, a function that is none of the
    /// well-known ones, or text that could not be parsed.
    pub unknown: bool,
    /// It says IF NOT EXISTS: what it names may have been there before.
    pub if_not_exists: bool,
    /// The one object (`kind name`) that it alters, when it alters nothing else and no row in it:
    /// harmless when the run itself created that object.
    pub alters: Option<String>,
}

/// Whether a statement counts for the additive proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Additive {
    /// It does not.
    #[default]
    No,
    /// It creates the object named, `kind name` (`table orders`, `column orders.note`, `index i`);
    /// several are separated by a comma and a space.
    Creates(String),
    /// It drops the object named, which only counts when an UP of the same run created it.
    Drops(String),
    /// It changes nothing that a proof looks at (COMMENT on what the run created is not among these).
    Nothing,
}

/// One migration, read from a folder.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Its version; unique within a folder.
    pub version: Version,
    /// Its name, without version and ending.
    pub name: String,
    /// The file that UP stands in, and DOWN where it has none of its own.
    pub path: PathBuf,
    /// The file that DOWN has to itself.
    pub down_path: Option<PathBuf>,
    /// The file's name, as people and the guides call it.
    pub file_name: String,
    /// SHA-256 of the file (or of UP's and DOWN's file, in this order), hexadecimal.
    pub checksum: String,
    /// SHA-256 of the text without comments and with white space folded: equal when an edit was harmless.
    pub loose_checksum: String,
    /// What to run.
    pub up: Script,
    /// What undoes it. `None`: the author gave none. Blank or comments only count as none.
    pub down: Option<Script>,
    /// What the file says of itself.
    pub metadata: Metadata,
    /// Its place where an order was written down (a journal's, or the configuration's); those without one come
    /// after, by version.
    pub rank: Option<u32>,
    /// The whole schema in one file (`000_MASTER_*`): it runs on an empty database, and on any other it is only
    /// recorded.
    pub master: bool,
}

impl Migration {
    /// What migrations are sorted by, before their dependencies have their say.
    pub fn place(&self) -> (u32, &Version, &str) {
        (self.rank.unwrap_or(u32::MAX), &self.version, &self.file_name)
    }

    /// UP, and the file that it stands in.
    pub fn placed_up(&self) -> Placed<'_> {
        Placed { script: &self.up, file: &self.path }
    }

    /// UP and then DOWN, each with the file that it stands in.
    pub fn placed(&self) -> impl Iterator<Item = Placed<'_>> {
        let down_file = self.down_path.as_deref().unwrap_or(&self.path);
        let down = self.down.as_ref().map(|script| Placed { script, file: down_file });
        [Some(self.placed_up()), down].into_iter().flatten()
    }

    /// `version name`, as messages show it.
    pub fn label(&self) -> String {
        label(self.version.as_str(), &self.name)
    }

    /// Whether a person who says `wanted` means this one: its version, name, label or file name.
    pub fn is_called(&self, wanted: &str) -> bool {
        self.file_name == wanted || is_called(&self.version, &self.name, wanted)
    }
}

/// A script, and the file that its lines are counted in.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// What to run.
    pub script: &'a Script,
    /// Where it stands.
    pub file: &'a Path,
}

/// `version_name`; the version alone where it holds the name already, as those of dated files do.
pub fn label(version: &str, name: &str) -> String {
    if name.is_empty() || version == name || version.ends_with(&format!("_{name}")) {
        version.to_owned()
    } else {
        format!("{version}_{name}")
    }
}

fn is_called(version: &Version, name: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_suffix(".sql").unwrap_or(wanted);
    *version == Version(wanted.to_owned()) || name == wanted || label(version.as_str(), name) == wanted
}

/// A migration that was applied, as the control schema remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Version.
    pub version: Version,
    /// Name.
    pub name: String,
    /// The file's SHA-256 when it was applied.
    pub checksum: String,
    /// The loose one.
    pub loose_checksum: Option<String>,
    /// The batch that it was applied in.
    pub batch: i32,
}

impl Applied {
    /// `version name`, as messages show it.
    pub fn label(&self) -> String {
        label(self.version.as_str(), &self.name)
    }

    /// Whether a person who says `wanted` means this one: its version, name or label.
    pub fn is_called(&self, wanted: &str) -> bool {
        is_called(&self.version, &self.name, wanted)
    }
}
