//! The options of each verb.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ripcord::migration::lint::rules::Group;
use ripcord::migration::plan::Undo;
use ripcord::ops::verify::Level;
use ripcord::settings::{OnFailure, Writes};

use crate::config::units;

/// `wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    pub timeout: Duration,
}

/// `new`.
#[derive(Clone, Debug, Args)]
pub struct NewArgs {
    /// The migration's name; spaces are fine
    pub name: String,
    /// What it is for
    pub description: Option<String>,
    /// What it changes
    #[arg(long = "type", value_name = "TYPE", default_value = "ddl")]
    pub kind: MigrationKind,
    /// Old application versions break
    #[arg(long)]
    pub breaking: bool,
    /// Not one, but the sequence of migrations that makes a change without downtime
    #[arg(long, value_name = "PATTERN")]
    pub pattern: Option<PatternWord>,
    /// With --pattern: the table [default: your_table, to be filled in]
    #[arg(long, value_name = "NAME", requires = "pattern")]
    pub table: Option<String>,
    /// With --pattern expand-contract: the column that is replaced
    #[arg(long, value_name = "NAME", requires = "pattern")]
    pub column: Option<String>,
    /// With --pattern expand-contract: the column that replaces it [default: the other's name and `_new`]
    #[arg(long, value_name = "NAME", requires = "pattern")]
    pub new_column: Option<String>,
    /// With --pattern expand-contract: the new column's type [default: text]
    #[arg(long, value_name = "TYPE", requires = "pattern")]
    pub column_type: Option<String>,
    /// With --pattern: the key that the rows are walked along [default: id, where one is needed]
    #[arg(long, value_name = "COLUMN", requires = "pattern")]
    pub key: Option<String>,
}

/// Sequences of migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatternWord {
    /// A new column takes the place of another: expand, keep in step, backfill, switch; later contract
    ExpandContract,
    /// A new table takes the place of another: make, carry, copy, switch; later stop carrying, drop
    OnlineTable,
    /// A feature for a share of the users that grows
    Progressive,
}

/// What a migration changes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MigrationKind {
    /// The schema.
    Ddl,
    /// Rows.
    Dml,
    /// Functions.
    Function,
}

impl MigrationKind {
    /// The word that templates know.
    pub fn as_str(self) -> &'static str {
        match self {
            MigrationKind::Ddl => "ddl",
            MigrationKind::Dml => "dml",
            MigrationKind::Function => "function",
        }
    }
}

/// `analyze`.
#[derive(Clone, Debug, Args)]
pub struct AnalyzeArgs {
    /// The migration: its version, name or file
    pub migration: String,
}

/// `validate`.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    /// How findings are written [default: text, or json with --json]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<ValidateFormat>,
    /// Write findings to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Look at what is pending with the live database beside: its parser, the size of its tables, what it lacks
    #[arg(long)]
    pub online: bool,
    /// Mend what can be mended mechanically, in files that are not applied yet (asks the database which)
    #[arg(long)]
    pub fix: bool,
    /// Only rules of this group, all of them: files, syntax, data, locks, compatibility, security, schema, style
    #[arg(long, value_name = "GROUP", value_parser = group)]
    pub only: Option<Group>,
}

fn group(text: &str) -> Result<Group, String> {
    let known = Group::ALL.into_iter().find(|group| group.name() == text);
    known.ok_or_else(|| format!("the groups are {}", Group::ALL.map(Group::name).join(", ")))
}

/// How findings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ValidateFormat {
    /// For people.
    Text,
    /// An array of findings.
    Json,
    /// A table for a pull request.
    Markdown,
    /// What code hosts show as alerts (SARIF 2.1.0).
    Sarif,
    /// GitHub's workflow commands, shown beside the lines.
    Github,
}

/// `status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// Exit 1 when migrations are pending, the last run was not finished or a drill is due
    #[arg(long)]
    pub exit_code: bool,
    /// Exit 1 when the newest good backup is older
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub max_backup_age: Option<Duration>,
}

/// `run`.
#[derive(Clone, Debug, Subcommand)]
pub enum RunCommand {
    /// List runs, newest first
    List(ListArgs),
    /// Show one run, step by step
    Show {
        /// The run's id (a prefix is enough), or `latest`
        #[arg(value_name = "ID|latest")]
        id: String,
    },
}

/// What lists have in common.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// At most this many, newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
}

/// `graph`.
#[derive(Clone, Debug, Args)]
pub struct GraphArgs {
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: GraphFormat,
}

/// How a graph is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GraphFormat {
    /// A line a migration.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown that draws Mermaid.
    Mermaid,
}

/// `cancel`.
#[derive(Clone, Debug, Args)]
pub struct CancelArgs {
    /// How long to wait until the run has ended; 0s only asks
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration)]
    pub timeout: Duration,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `apply` and `plan`.
#[derive(Clone, Debug, Default, Args)]
pub struct ApplyArgs {
    /// All pending migrations in one transaction
    #[arg(long)]
    pub atomic: bool,
    /// Up to so many migrations beside each other, where their dependencies are declared
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "atomic")]
    pub parallel: Option<u32>,
    /// Also run the migrations of this folder (test migrations; refused in protected environments)
    #[arg(long, value_name = "DIR")]
    pub also: Vec<PathBuf>,
    /// Run exactly what this file of `plan -o` says, or nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "file", "limit", "atomic", "parallel", "output"])]
    pub plan: Option<PathBuf>,
    /// With `plan` or --dry-run: write the plan to a file, to be approved and run later
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Up to and with this version or name
    #[arg(long, value_name = "VERSION|NAME")]
    pub target: Option<String>,
    /// This migration only
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub file: Option<String>,
    /// With --file: once more, though it was applied
    #[arg(long, requires = "file")]
    pub again: bool,
    /// At most this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// No backup first, where the environment allows it; the run then cannot be restored
    #[arg(long)]
    pub skip_backup: bool,
    /// Try it first on a copy made from the backup; a rehearsal that fails stops the run
    #[arg(long, conflicts_with = "skip_backup")]
    pub rehearse: bool,
    /// What holds for writes that others commit after the backup
    #[arg(long, value_name = "HOW")]
    pub writes: Option<WritesWord>,
    /// What to do when the run fails
    #[arg(long, value_name = "HOW")]
    pub on_failure: Option<OnFailureWord>,
    /// An address that must answer well afterwards, besides the configured checks; may be repeated
    #[arg(long = "health-url", value_name = "URL")]
    pub health_urls: Vec<String>,
    /// Go on though the application is already unwell
    #[arg(long)]
    pub ignore_red_health: bool,
    /// How long one migration may take
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub timeout: Option<Duration>,
    /// pg_dump processes of the backup, and connections of a restore, should one be needed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// How long to wait for another run's lock
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub wait: Option<Duration>,
    /// Pass warnings and named policies; never backup, lock or key
    #[arg(long, requires = "reason")]
    pub force: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// [`Writes`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WritesWord {
    /// Count them, and do not restore unattended when one would be lost
    Refuse,
    /// Others can only read while the run lasts
    Fence,
    /// A restore may lose them
    AcceptLoss,
}

impl From<WritesWord> for Writes {
    fn from(word: WritesWord) -> Writes {
        match word {
            WritesWord::Refuse => Writes::Refuse,
            WritesWord::Fence => Writes::Fence,
            WritesWord::AcceptLoss => Writes::AcceptLoss,
        }
    }
}

/// [`OnFailure`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OnFailureWord {
    /// The gentlest way that can be proved
    Auto,
    /// Transaction rollback and DOWN only
    Rollback,
    /// Straight to the restore
    Restore,
    /// Leave everything as it is
    Stop,
}

impl From<OnFailureWord> for OnFailure {
    fn from(word: OnFailureWord) -> OnFailure {
        match word {
            OnFailureWord::Auto => OnFailure::Auto,
            OnFailureWord::Rollback => OnFailure::Rollback,
            OnFailureWord::Restore => OnFailure::Restore,
            OnFailureWord::Stop => OnFailure::Stop,
        }
    }
}

/// `rollback`.
#[derive(Clone, Debug, Args)]
pub struct RollbackArgs {
    /// A number is a batch, anything else a migration's name; both stay, everything after them goes
    /// [default: only the last migration goes]
    #[arg(value_name = "N|NAME", conflicts_with_all = ["steps", "target", "batch", "to", "only"])]
    pub until: Option<String>,
    /// The last N migrations
    #[arg(long, value_name = "N", conflicts_with_all = ["target", "batch", "to", "only"],
          value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Option<u32>,
    /// Everything after this version, which stays
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["batch", "to", "only"])]
    pub target: Option<String>,
    /// Everything after this batch, which stays
    #[arg(long, value_name = "N", conflicts_with_all = ["to", "only"])]
    pub batch: Option<i32>,
    /// Everything after this migration, which stays
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    pub to: Option<String>,
    /// This one alone, unless a later one depends on it
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Go past a missing DOWN; ends with exit code 4 and lists what remains
    #[arg(long, requires = "reason")]
    pub force: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

impl RollbackArgs {
    /// What to undo. The bare argument means what it means in the tool that had it: a batch or a name
    /// that stays.
    pub fn undo(&self) -> Undo {
        if let Some(until) = &self.until {
            return match until.parse() {
                Ok(batch) => Undo::Batch(batch),
                Err(_) => Undo::To(until.clone()),
            };
        }
        if let Some(steps) = self.steps {
            return Undo::Steps(steps as usize);
        }
        if let Some(version) = &self.target {
            return Undo::Target(version.clone());
        }
        if let Some(batch) = self.batch {
            return Undo::Batch(batch);
        }
        if let Some(name) = &self.to {
            return Undo::To(name.clone());
        }
        if let Some(name) = &self.only {
            return Undo::Only(name.clone());
        }
        Undo::Steps(1)
    }
}

/// `recover`.
#[derive(Clone, Debug, Args)]
pub struct RecoverArgs {
    /// What holds for writes that others committed after the backup; `accept-loss` gives them up
    #[arg(long, value_name = "HOW")]
    pub writes: Option<WritesWord>,
    /// How to bring the database back; `stop` accepts it as it is now and closes the run
    #[arg(long, value_name = "HOW")]
    pub on_failure: Option<OnFailureWord>,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `backup`.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup
    Create(BackupCreateArgs),
    /// List backups, newest first
    List,
    /// Show one backup
    Show {
        /// The backup's id; a prefix is enough
        #[arg(value_name = "ID|latest")]
        id: String,
    },
    /// Read backups back and authenticate them
    ///
    /// What holds afterwards:
    ///   manifest  it opens with a key at hand, and the streams that it names are there in their length
    ///   archive   every stored byte is the one that was written, every frame authenticates
    ///   toc       besides, the dump inside reads to its end, and each table has the rows that were counted, by digest
    ///   restore   besides, PostgreSQL takes it: restored into a scratch database on the target's server, schema and
    ///             every row compared with the backup (what `ripcord drill` does)
    ///
    /// One that is damaged does not keep the others from being looked at: all are named, and the exit code is 6.
    /// What was found is remembered beside the backup. `verified_at` is when every byte was last read (`archive` and
    /// deeper), `drilled_at` when it was last restored.
    #[command(verbatim_doc_comment)]
    Verify(BackupVerifyArgs),
    /// Keep a backup whatever the rules say
    Pin {
        /// The backup's id; a prefix is enough
        id: String,
    },
    /// Let the rules decide again
    Unpin {
        /// The backup's id; a prefix is enough
        id: String,
    },
    /// Delete a backup
    Delete {
        /// The backup's id; a prefix is enough
        id: String,
    },
    /// Write a backup as a plain dump or as SQL, for people without ripcord
    Export(BackupExportArgs),
    /// Make a backup of a dump that pg_dump wrote
    Import(BackupImportArgs),
}

impl BackupCommand {
    /// The command's name in results.
    pub fn name(&self) -> &'static str {
        match self {
            BackupCommand::Create(_) => "backup create",
            BackupCommand::List => "backup list",
            BackupCommand::Show { .. } => "backup show",
            BackupCommand::Verify(_) => "backup verify",
            BackupCommand::Pin { .. } => "backup pin",
            BackupCommand::Unpin { .. } => "backup unpin",
            BackupCommand::Delete { .. } => "backup delete",
            BackupCommand::Export(_) => "backup export",
            BackupCommand::Import(_) => "backup import",
        }
    }
}

/// `backup create`.
#[derive(Clone, Debug, Args)]
pub struct BackupCreateArgs {
    /// Why it is made
    #[arg(long, value_name = "PURPOSE", default_value = "manual")]
    pub purpose: PurposeWord,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// pg_dump processes at once, all on one snapshot
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// Then delete the backups that no rule keeps
    #[arg(long)]
    pub prune: bool,
}

/// `backup export`.
///
/// The file is not encrypted: whoever may read it reads the whole database. It is made for its owner alone (0600),
/// and has its name only once everything in it was authenticated.
#[derive(Clone, Debug, Args)]
pub struct BackupExportArgs {
    /// The backup's id (a prefix is enough), or `latest`
    #[arg(value_name = "ID|latest")]
    pub id: String,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "custom")]
    pub format: ExportFormat,
    /// The file; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace a file of that name
    #[arg(long)]
    pub force: bool,
    /// The database that the backup was taken of, where the target is new or gone
    #[arg(long, value_name = "NAME")]
    pub from_database: Option<String>,
    /// For SQL, the key of psql's \restrict, to have the same text each time [default: a random one]
    #[arg(long, value_name = "KEY")]
    pub restrict_key: Option<String>,
}

/// `backup import`.
///
/// The dump is loaded into a scratch database on the target's server, that is backed up, and removed again: so an
/// import that succeeds is a dump that can be restored. It becomes a manual backup of the target with the tag
/// `imported`, which stays until it is deleted and is never what `latest` means. A dump's code runs as your role, and
/// nothing has checked where it comes from: import what you trust.
#[derive(Clone, Debug, Args)]
pub struct BackupImportArgs {
    /// The file, or the folder of a dump in directory format
    pub file: PathBuf,
    /// Its format [default: as it looks]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<ImportFormat>,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Leave out who owns what and who may do what, where roles of the dump are not there
    #[arg(long)]
    pub no_owner: bool,
}

/// What a dump is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// pg_dump --format=custom
    Custom,
    /// pg_dump --format=directory
    Directory,
    /// pg_dump --format=tar
    Tar,
    /// SQL
    Sql,
    /// SQL within gzip
    #[value(name = "sql.gz", alias = "sql-gz")]
    SqlGz,
}

/// What an export writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A dump in pg_dump's custom format, for pg_restore, also with --jobs
    Custom,
    /// SQL, for psql
    Sql,
}

/// Why a backup is made by hand.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PurposeWord {
    /// By a person
    Manual,
    /// By a scheduler
    Scheduled,
}

impl From<PurposeWord> for ripcord::manifest::Purpose {
    fn from(word: PurposeWord) -> Self {
        match word {
            PurposeWord::Manual => ripcord::manifest::Purpose::Manual,
            PurposeWord::Scheduled => ripcord::manifest::Purpose::Scheduled,
        }
    }
}

/// `backup verify`.
#[derive(Clone, Debug, Args)]
pub struct BackupVerifyArgs {
    /// The backup's id (a prefix is enough), or `latest`
    #[arg(value_name = "ID|latest", required_unless_present_any = ["all", "sample"], conflicts_with_all = ["all", "sample"])]
    pub id: Option<String>,
    /// Every backup
    #[arg(long, conflicts_with = "sample")]
    pub all: bool,
    /// This share of the backups, such as 10%: those that were not looked at so deep for the longest time, so that
    /// each has its turn
    #[arg(long, value_name = "P%", value_parser = units::percent)]
    pub sample: Option<f64>,
    /// How deep to look
    #[arg(long, value_name = "LEVEL", default_value = "archive")]
    pub level: VerifyLevel,
}

/// How deep a verification looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerifyLevel {
    /// The manifest alone
    Manifest,
    /// Every byte is read and authenticated
    Archive,
    /// The dump inside is read to its end as well, and its rows are compared
    Toc,
    /// It is restored into a scratch database, and everything is compared
    Restore,
}

impl From<VerifyLevel> for Level {
    fn from(level: VerifyLevel) -> Level {
        match level {
            VerifyLevel::Manifest => Level::Manifest,
            VerifyLevel::Archive => Level::Archive,
            VerifyLevel::Toc => Level::Toc,
            VerifyLevel::Restore => Level::Restore,
        }
    }
}

/// `restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// The backup's id (a prefix is enough), or `latest`
    #[arg(value_name = "ID|latest", required_unless_present = "before")]
    pub id: Option<String>,
    /// The backup that was taken before this run or migration
    #[arg(long, value_name = "RUN|MIGRATION")]
    pub before: Option<String>,
    /// The database that the backup was taken of, where the target is new and empty
    #[arg(long, value_name = "NAME")]
    pub from_database: Option<String>,
    /// Restore into a new database of this name; the target is left alone
    #[arg(long, value_name = "NAME")]
    pub into: Option<String>,
    /// This table only, into the new database of `--into` or beside the living table; may be repeated
    ///
    /// `orders`, `public.orders` or `public."Orders"`. A partitioned table comes with the rows of all its partitions,
    /// a table that others inherit from comes with those. Only the parts of the backup that hold these tables are
    /// read.
    ///
    /// With `--into NAME`: the tables with types, functions, sequences and whatever else they stand on, defaults,
    /// indexes, constraints, comments, and the foreign keys between them. Left out, and listed: foreign keys to other
    /// tables, triggers, rules, policies and grants; only the owner is let into the database.
    ///
    /// Without: the rows, in a new table `TABLE_restored_…` in the same schema, with the columns and the primary key
    /// alone. It belongs to the living table's owner and nobody else has rights on it. The living table is not touched.
    #[arg(long = "table", value_name = "TABLE", conflicts_with_all = ["confirm", "writes"])]
    pub tables: Vec<String>,
    /// How to replace the target
    #[arg(long, value_name = "MODE", default_value = "auto", conflicts_with_all = ["into", "tables"])]
    pub mode: RestoreMode,
    /// What holds for writes that others commit after the backup
    #[arg(long, value_name = "HOW")]
    pub writes: Option<WritesWord>,
    /// Connections at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// The database's name, instead of typing it when asked
    #[arg(long, value_name = "DBNAME", conflicts_with = "into")]
    pub confirm: Option<String>,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// How a restore replaces the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RestoreMode {
    /// By a swap where one is possible, else in place
    Auto,
    /// Beside the old database, then swapped
    Swap,
    /// Inside the old database, after a safety backup
    InPlace,
}

/// `prune`.
#[derive(Clone, Debug, Default, Args)]
pub struct PruneArgs {
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Likewise days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Likewise weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Likewise months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// Likewise years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// Keep everything younger; `0s` turns the rule off
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub keep_within: Option<Duration>,
    /// Keep everything with this tag; may be repeated
    #[arg(long = "keep-tag", value_name = "TAG")]
    pub keep_tags: Vec<String>,
    /// The store's share: the oldest that no other rule needs go first
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub max_size: Option<u64>,
    /// Print every backup with the reason it stays or goes
    #[arg(long)]
    pub dry_run: bool,
}

/// `aside`.
#[derive(Clone, Debug, Subcommand)]
pub enum AsideCommand {
    /// List databases that a swap kept
    List,
    /// Drop one of them
    Drop {
        /// The database's name, in full
        name: String,
    },
}

/// `rehearse`.
#[derive(Clone, Debug, Args)]
pub struct RehearseArgs {
    /// Begin with an empty database and all migrations, for CI; without it, with a copy from a fresh backup
    #[arg(long, value_name = "WHAT")]
    pub from: Option<RehearseFrom>,
}

/// What a rehearsal begins with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RehearseFrom {
    /// Nothing
    Empty,
}

/// `salvage`.
#[derive(Clone, Debug, Args)]
pub struct SalvageArgs {
    /// The database kept aside; without it, the one kept last
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// How rows are written
    #[arg(long, value_name = "FORMAT", default_value = "sql")]
    pub format: SalvageFormat,
    /// The file, which must not be there yet
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SalvageFormat {
    /// INSERT statements, conflicts as comments
    Sql,
    /// A block with a line of names for each table
    Csv,
}

/// `drill`.
#[derive(Clone, Debug, Args)]
pub struct DrillArgs {
    /// The backup's id (a prefix is enough)
    #[arg(value_name = "ID|latest", default_value = "latest")]
    pub id: String,
    /// Restore on another server
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// Keep the scratch database
    #[arg(long)]
    pub keep: bool,
    /// Connections at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// Write the evidence to a file, as JSON
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `key`.
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a master key
    Generate {
        /// The new file, `-` for stdout; nothing is ever overwritten
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the public names of the keys in use
    Id,
    /// Let another key open every backup of the store
    ///
    /// The archives stay as they are: only the small list of who opens a backup is rewritten, one backup after the
    /// other, each in one step. Without a new key on the command line it is done for the configured keys. Backups
    /// that open with the key already are seen to, so that running it again, with a key that is kept in a safe,
    /// tells whether that key is still the right one.
    ///
    /// Killed anywhere, it goes on when it is run again.
    Add(KeyAddArgs),
    /// Put a new key in the place of another, in every backup of the store
    ///
    /// The new key is added to every backup before the old one is taken from any. It is given on the command line,
    /// with the old one configured; or it is configured, and the old one given. Afterwards configure the new key,
    /// and run it once more for what was backed up meanwhile.
    ///
    /// This is not revocation: who held the old key and a copy of the store may have kept what opens the archives.
    /// For a key that leaked, `--reencrypt` seals every archive anew, and believes of the journals only what the
    /// old key had written down until then.
    ///
    /// Killed anywhere, it goes on when it is run again.
    Rotate(KeyRotateArgs),
    /// Let a key open nothing any more
    ///
    /// Backups that no other key opens are listed, and nothing is done, unless their number is confirmed; those are
    /// then deleted. What another key is said to open, which is not at hand to try, counts as one of them.
    Remove(KeyRemoveArgs),
}

/// A key that comes or goes, by where it is. The digits themselves are never an argument.
#[derive(Clone, Debug, Default, Args)]
pub struct NewKeyArgs {
    /// The new key's file
    #[arg(long, value_name = "FILE", group = "new")]
    pub new_key_file: Option<PathBuf>,
    /// The variable that holds the new key
    #[arg(long, value_name = "NAME", group = "new")]
    pub new_key_env: Option<String>,
    /// The command that prints the new key
    #[arg(long, value_name = "COMMAND", group = "new")]
    pub new_key_command: Option<String>,
}

/// A key that is configured no more.
#[derive(Clone, Debug, Default, Args)]
pub struct OldKeyArgs {
    /// The file of a key that is not configured (any more), to open backups with
    #[arg(long, value_name = "FILE", group = "old")]
    pub old_key_file: Option<PathBuf>,
    /// The variable that holds it
    #[arg(long, value_name = "NAME", group = "old")]
    pub old_key_env: Option<String>,
    /// The command that prints it
    #[arg(long, value_name = "COMMAND", group = "old")]
    pub old_key_command: Option<String>,
}

/// `key add`.
#[derive(Clone, Debug, Args)]
pub struct KeyAddArgs {
    /// The key that comes.
    #[command(flatten)]
    pub new: NewKeyArgs,
    /// What opens besides the configured keys.
    #[command(flatten)]
    pub old: OldKeyArgs,
    /// Print every backup with what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `key rotate`.
#[derive(Clone, Debug, Args)]
pub struct KeyRotateArgs {
    /// The key that comes.
    #[command(flatten)]
    pub new: NewKeyArgs,
    /// The key that goes, when it is not the configured one.
    #[command(flatten)]
    pub old: OldKeyArgs,
    /// Seal every archive anew: for a key that leaked
    #[arg(long)]
    pub reencrypt: bool,
    /// Print every backup with what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `key remove`.
#[derive(Clone, Debug, Args)]
pub struct KeyRemoveArgs {
    /// The key's id, as `ripcord key id` and `ripcord backup show` print it
    pub id: String,
    /// The key that goes, where it is still there: what it has written down is handed to the others.
    #[command(flatten)]
    pub old: OldKeyArgs,
    /// Give up that many backups, which no other key opens
    #[arg(long, value_name = "N")]
    pub confirm_loss: Option<usize>,
    /// Print every backup with what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `lock`.
#[derive(Clone, Debug, Subcommand)]
pub enum LockCommand {
    /// Say who holds the lock
    Status,
    /// Free the lock of a run that is gone
    Release,
}

/// `repair`.
#[derive(Clone, Debug, Args)]
pub struct RepairArgs {
    /// Forget an applied migration whose file is gone
    #[arg(long, value_name = "NAME")]
    pub forget: Option<String>,
}

/// `renumber`.
#[derive(Clone, Debug, Args)]
pub struct RenumberArgs {
    /// Show the new names and rename nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `adopt`.
#[derive(Clone, Debug, Args)]
pub struct AdoptArgs {
    /// This table alone, with or without its schema, or `drizzle`
    #[arg(long, value_name = "TOOL")]
    pub from: Option<String>,
    /// Rename the old objects aside, and leave views and functions of their names
    #[arg(long)]
    pub compat: bool,
    /// Show what would be recorded, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `tag`.
#[derive(Clone, Debug, Args)]
pub struct TagArgs {
    /// The migration: its version, name or file
    pub version: String,
    /// The tag
    pub tag: String,
}

/// `release`.
#[derive(Clone, Debug, Args)]
pub struct ReleaseArgs {
    /// The release's version, such as 1.2.0; it stands for what is applied now
    pub version: String,
    /// Its name
    pub name: String,
    /// The last migration of the release [default: the last one applied]
    #[arg(long, value_name = "MIGRATION")]
    pub migration: Option<String>,
}

/// `changelog`.
#[derive(Clone, Debug, Args)]
pub struct ChangelogArgs {
    /// After this version, tag or release
    #[arg(long, value_name = "V")]
    pub from: Option<String>,
    /// Up to and with this version, tag or release
    #[arg(long, value_name = "V")]
    pub to: Option<String>,
}

/// `baseline`.
#[derive(Clone, Debug, Args)]
pub struct BaselineArgs {
    /// Up to and with this version
    pub version: String,
}

/// `fresh`.
#[derive(Clone, Debug, Args)]
pub struct FreshArgs {
    /// The database's name, instead of typing it when asked
    #[arg(long, value_name = "DBNAME")]
    pub confirm: Option<String>,
}

/// `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write the pages of all commands into this folder
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ripcord::migration::plan::Undo;

    use crate::args::{Cli, Command};

    fn undo(words: &str) -> Undo {
        let cli = Cli::try_parse_from(format!("ripcord rollback {words}").split_whitespace()).unwrap();
        match cli.command {
            Some(Command::Rollback(args)) => args.undo(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rollback_knows_what_to_undo() {
        assert!(matches!(undo(""), Undo::Steps(1)));
        assert!(matches!(undo("--steps 3"), Undo::Steps(3)));
        assert!(matches!(undo("5"), Undo::Batch(5)));
        assert!(matches!(undo("001_initial"), Undo::To(name) if name == "001_initial"));
        assert!(matches!(undo("20250726123456"), Undo::To(_)));
        assert!(matches!(undo("--only x"), Undo::Only(_)));
        assert!(Cli::try_parse_from(["ripcord", "rollback", "5", "--steps", "1"]).is_err());
        assert!(Cli::try_parse_from(["ripcord", "rollback", "--force"]).is_err());
    }
}
