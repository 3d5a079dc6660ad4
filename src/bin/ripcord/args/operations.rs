//! The options of each verb.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ripcord::migration::plan::Undo;
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

/// `validate`.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    /// How findings are written [default: text, or json with --json]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<ValidateFormat>,
    /// Write findings to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
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
    /// GitHub's workflow commands, shown beside the lines.
    Github,
}

/// `status`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatusArgs {
    /// Exit 1 when migrations are pending or the last run was not finished
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

/// `apply` and `plan`.
#[derive(Clone, Debug, Default, Args)]
pub struct ApplyArgs {
    /// All pending migrations in one transaction
    #[arg(long)]
    pub atomic: bool,
    /// Also run the migrations of this folder (test migrations; refused in protected environments)
    #[arg(long, value_name = "DIR")]
    pub also: Vec<PathBuf>,
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
    /// Connections of a restore, should one be needed
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
    /// Without effect in this version: one pg_dump makes the dump
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// Then delete the backups that no rule keeps
    #[arg(long)]
    pub prune: bool,
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
    #[arg(value_name = "ID|latest", required_unless_present = "all", conflicts_with = "all")]
    pub id: Option<String>,
    /// Every backup
    #[arg(long)]
    pub all: bool,
    /// How deep to look; `ripcord drill` restores as well
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
    /// The table of contents is read and compared as well
    Toc,
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
    /// How to replace the target
    #[arg(long, value_name = "MODE", default_value = "auto", conflicts_with = "into")]
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
    /// Print the public name of the key in use
    Id,
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
