//! What is typed. Nothing here knows of variables or files; [`crate::config`] resolves.

pub mod operations;
pub mod overrides;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use operations::*;
pub use overrides::Overrides;

/// The table that `--help` opens with, and a line on the exit codes that scripts read.
const OVERVIEW: &str = "\
Keeps a PostgreSQL database safe while it changes: an encrypted backup first, then the
migrations, then checks, and the database brought back, with proof, when something fails.

I want to…                                       command
  deploying
    set up a project                             ripcord init
    know whether it would work here              ripcord doctor
    write a migration                            ripcord new \"add orders\"
    change a column or table without downtime    ripcord new NAME --pattern expand-contract
    check the migrations, touching nothing       ripcord validate
    see what would happen                        ripcord plan
    know what one migration locks and costs      ripcord analyze MIGRATION
    try it on a copy first                       ripcord rehearse
    change the database                          ripcord apply
  looking
    see where the database stands                ripcord status
    see what was done, and by whom               ripcord history · ripcord run list · ripcord audit
    compare the database with the folder         ripcord verify-db
    see the backups                              ripcord backup list
    see which settings are in effect             ripcord config
    come from another migration tool             ripcord adopt --dry-run
  undoing
    take back the last migration                 ripcord rollback
    stop the run that is at work                 ripcord cancel
    finish or undo what a dead run left          ripcord recover
    free the lock of a run that is gone          ripcord lock release
  bringing back
    know that a backup can be restored           ripcord drill latest
    look at a backup beside the database         ripcord restore latest --into NAME
    bring one table back, beside the living one  ripcord restore latest --table NAME
    replace the database by a backup             ripcord restore latest
    get a plain dump out of a backup             ripcord backup export latest -o FILE
    make a backup of a plain dump                ripcord backup import FILE
    see and drop databases that were replaced    ripcord aside list
    get rows back that only such a one has       ripcord salvage -o rows.sql
    let another key open the backups             ripcord key add
    exchange the key, also one that leaked       ripcord key rotate [--reencrypt]";

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 failed or invalid, database unchanged · 2 usage or configuration ·
3 failed and brought back · 4 failed and NOT brought back · 5 another run holds the lock ·
6 verification failed · 7 stopped for approval or policy";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "ripcord",
    version,
    about = "A safety wrapper around PostgreSQL migrations",
    before_help = OVERVIEW,
    after_help = EXIT_CODES,
    disable_help_subcommand = true,
    infer_long_args = false
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do; without one, `status`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options that stand before or after the command.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The configuration file [default: ripcord.toml, when it is there]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The environment: development (dev), staging, production (prod), or one that the file defines
    #[arg(short, long, global = true, value_name = "NAME")]
    pub env: Option<String>,
    /// The database to change; a password is better in DATABASE_URL or ~/.pgpass than here
    #[arg(long, global = true, value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The database that the lock is held in and a swap is done from
    #[arg(long, global = true, value_name = "NAME")]
    pub maintenance_db: Option<String>,
    /// The folder of migrations [default: found among the usual ones]
    #[arg(long, global = true, value_name = "DIR")]
    pub migrations_dir: Option<PathBuf>,
    /// Where backups live [default: backups]
    #[arg(long, global = true, value_name = "LOCATION")]
    pub store: Option<String>,
    /// One JSON object a line on stdout, the result last
    #[arg(long, global = true)]
    pub json: bool,
    /// Errors and warnings only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More detail
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Approve without being asked
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// No colour (NO_COLOR is honoured too)
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// The verbs. Each has a file in `commands`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Set up a project: ripcord.toml, a key, migrations/, .gitignore lines
    Init,
    /// Say what would work here and what would not
    Doctor,
    /// Wait until the server answers
    Wait(WaitArgs),
    /// Write a new migration, or a sequence for a change without downtime, in the layout that the folder has
    ///
    /// With `--pattern`, what belongs to a later deploy is written to a folder beside that of the migrations
    /// (`migrations-later`), where no run looks: move it over when the deploy before it is done everywhere.
    #[command(visible_alias = "create")]
    New(NewArgs),
    /// Check the migrations without touching a database
    Validate(ValidateArgs),
    /// Tell what one migration locks, reads, rewrites and destroys, and how long it took, changing nothing
    ///
    /// Where the database cannot be reached, what the file tells is told, with a warning.
    Analyze(AnalyzeArgs),
    /// Show which migrations depend on which, without touching a database
    Graph(GraphArgs),
    /// Say where the database stands (the default)
    #[command(visible_alias = "info")]
    Status(StatusArgs),
    /// Look at runs
    Run {
        /// What to look at.
        #[command(subcommand)]
        command: RunCommand,
    },
    /// List what was applied, rolled back and failed
    History(ListArgs),
    /// List who did what
    Audit(ListArgs),
    /// Say what `apply` would do
    Plan(ApplyArgs),
    /// Back up, migrate, check, and bring back on failure
    #[command(visible_aliases = ["up", "migrate"])]
    Apply(ApplyArgs),
    /// Undo migrations by their DOWN scripts, after a safety backup
    #[command(visible_alias = "down")]
    Rollback(RollbackArgs),
    /// Finish or undo what a dead run left
    ///
    /// A run that was killed, or that could not bring the database back, is unfinished, and nothing else begins
    /// before it is closed. `recover` ends what the run's sessions still do at the server, takes its fence and
    /// its scratch databases away, lets people in again where a swap had closed the database, and then reaches
    /// one of two states: all of before the run, or all of after it. It says which, and what proves it.
    ///
    /// Exit code 0: the run had changed nothing, or was completed. 3: the database was brought back. 4: it was
    /// not brought back, or was left as it is, as asked. 5: a run is at work. 7: the journal cannot be trusted,
    /// or another key wrote it.
    ///
    /// When bringing it back would lose what others have written since, nothing is done, and a person decides:
    /// `--writes accept-loss` gives those writes up, and `--on-failure stop` accepts the database as it is now
    /// and closes the run. The latter is also what to do after mending the database by hand.
    Recover(RecoverArgs),
    /// Stop the run that is at work, in order, from whatever host
    ///
    /// The run is asked through the database, notices it within some ten seconds, and then does what it does after
    /// any failure: what runs is cancelled on the server, and the database is brought back.
    Cancel(CancelArgs),
    /// Make and look after backups
    Backup {
        /// What to do.
        #[command(subcommand)]
        command: BackupCommand,
    },
    /// Bring a backup back: in place of the database, or as a new one
    Restore(RestoreArgs),
    /// Delete the backups that no rule keeps
    Prune(PruneArgs),
    /// Look after databases that a swap kept aside
    Aside {
        /// What to do.
        #[command(subcommand)]
        command: AsideCommand,
    },
    /// Write the rows that only a database kept aside has to a file
    Salvage(SalvageArgs),
    /// Restore a backup into a scratch database, compare, time and record it
    Drill(DrillArgs),
    /// Run what is pending up, down and up again on a scratch database, and measure it
    Rehearse(RehearseArgs),
    /// Make and name master keys; say who opens the backups
    Key {
        /// What to do.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Look at or free the lock
    Lock {
        /// What to do.
        #[command(subcommand)]
        command: LockCommand,
    },
    /// Take over the checksums of files that were changed on purpose
    Repair(RepairArgs),
    /// Give files that share their number with another a new one; never files that were applied
    Renumber(RenumberArgs),
    /// Record migrations up to a version as applied without running them
    Baseline(BaselineArgs),
    /// Take over what another tool recorded as applied
    ///
    /// Reads the tables of the tools that ripcord knows (`schema_migrations`, `migrations`, `_migrations`,
    /// `migration_history`, `_migration_history`, Drizzle's), by their columns; compares checksums with the files;
    /// failed rows come in as history. Theirs is read and never written, and nothing of theirs is run: a view, or a
    /// table with triggers, is refused.
    ///
    /// With `--compat`, after a backup, the old objects are renamed aside, and views and functions of their names
    /// tell what ripcord's history says.
    Adopt(AdoptArgs),
    /// Give a version of the migrations a name
    Tag(TagArgs),
    /// Record a release: a name for a migration's version
    Release(ReleaseArgs),
    /// List what was applied between two versions, tags or releases
    Changelog(ChangelogArgs),
    /// Forget failed attempts so that they count as pending again
    ResetFailed,
    /// Empty the database and apply everything, after a backup (never in protected environments)
    Fresh(FreshArgs),
    /// Ask the health checks, the expected tables and functions, and the checks folder
    Health,
    /// Compare the living database with the folder and what is expected, changing nothing
    VerifyDb,
    /// Print the settings in effect and where each came from
    Config,
    /// Print a completion script
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(ManArgs),
}

impl Default for Command {
    fn default() -> Self {
        Command::Status(StatusArgs::default())
    }
}

impl Command {
    /// The command's name in results.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Init => "init",
            Command::Doctor => "doctor",
            Command::Wait(_) => "wait",
            Command::New(_) => "new",
            Command::Validate(_) => "validate",
            Command::Graph(_) => "graph",
            Command::Analyze(_) => "analyze",
            Command::Cancel(_) => "cancel",
            Command::Status(_) => "status",
            Command::Run { command } => match command {
                RunCommand::List(_) => "run list",
                RunCommand::Show { .. } => "run show",
            },
            Command::History(_) => "history",
            Command::Audit(_) => "audit",
            Command::Plan(_) => "plan",
            Command::Apply(_) => "apply",
            Command::Rollback(_) => "rollback",
            Command::Recover(_) => "recover",
            Command::Backup { command } => command.name(),
            Command::Restore(_) => "restore",
            Command::Prune(_) => "prune",
            Command::Aside { command } => match command {
                AsideCommand::List => "aside list",
                AsideCommand::Drop { .. } => "aside drop",
            },
            Command::Salvage(_) => "salvage",
            Command::Drill(_) => "drill",
            Command::Rehearse(_) => "rehearse",
            Command::Key { command } => match command {
                KeyCommand::Generate { .. } => "key generate",
                KeyCommand::Id => "key id",
                KeyCommand::Add(_) => "key add",
                KeyCommand::Rotate(_) => "key rotate",
                KeyCommand::Remove(_) => "key remove",
            },
            Command::Lock { command } => match command {
                LockCommand::Status => "lock status",
                LockCommand::Release => "lock release",
            },
            Command::Repair(_) => "repair",
            Command::Renumber(_) => "renumber",
            Command::Baseline(_) => "baseline",
            Command::Adopt(_) => "adopt",
            Command::Tag(_) => "tag",
            Command::Release(_) => "release",
            Command::Changelog(_) => "changelog",
            Command::ResetFailed => "reset-failed",
            Command::Fresh(_) => "fresh",
            Command::Health => "health",
            Command::VerifyDb => "verify-db",
            Command::Config => "config",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
        }
    }

    /// How the command treats a database or a store; decides signals, `DRY_RUN` and the `database:` line.
    pub fn reach(&self) -> Reach {
        match self {
            Command::Completions(_)
            | Command::Man(_)
            | Command::Init
            | Command::New(_)
            | Command::Validate(_)
            | Command::Graph(_)
            | Command::Config
            | Command::Key { command: KeyCommand::Generate { .. } | KeyCommand::Id } => Reach::Nothing,
            Command::Doctor
            | Command::Wait(_)
            | Command::Status(_)
            | Command::Run { .. }
            | Command::History(_)
            | Command::Audit(_)
            | Command::Plan(_)
            | Command::Analyze(_)
            | Command::Changelog(_)
            | Command::Health
            | Command::VerifyDb
            | Command::Salvage(_)
            | Command::Lock { command: LockCommand::Status }
            | Command::Aside { command: AsideCommand::List } => Reach::Looks,
            Command::Backup { command } => match command {
                BackupCommand::List | BackupCommand::Show { .. } => Reach::Looks,
                _ => Reach::Stores,
            },
            Command::Drill(_) | Command::Cancel(_) | Command::Rehearse(_) => Reach::Stores,
            Command::Prune(_) | Command::Key { .. } => Reach::StoresWithDryRun,
            Command::Renumber(_)
            | Command::Adopt(_)
            | Command::Apply(_)
            | Command::Rollback(_)
            | Command::Restore(_)
            | Command::Recover(_) => Reach::ChangesWithDryRun,
            Command::Aside { .. }
            | Command::Lock { .. }
            | Command::Repair(_)
            | Command::Baseline(_)
            | Command::Tag(_)
            | Command::Release(_)
            | Command::ResetFailed
            | Command::Fresh(_) => Reach::Changes,
        }
    }
}

/// How far a command's hand reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No server, no store.
    Nothing,
    /// It reads.
    Looks,
    /// It writes to the store or to scratch databases.
    Stores,
    /// Likewise, and has `--dry-run`.
    StoresWithDryRun,
    /// It changes the target.
    Changes,
    /// Likewise, and has `--dry-run`.
    ChangesWithDryRun,
}

impl Reach {
    /// Whether the target may be changed.
    pub fn changes(self) -> bool {
        matches!(self, Reach::Changes | Reach::ChangesWithDryRun)
    }

    /// Whether a signal must be taken in order, because something would be left behind.
    pub fn leaves_something(self) -> bool {
        !matches!(self, Reach::Nothing | Reach::Looks)
    }

    /// Whether `DRY_RUN=true` cannot be honoured.
    pub fn refuses_dry_run(self) -> bool {
        matches!(self, Reach::Changes | Reach::Stores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_on_either_side() {
        for words in [["ripcord", "-e", "dev", "--json", "apply"], ["ripcord", "apply", "--json", "-e", "dev"]] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.global.env.as_deref(), Some("dev"));
            assert!(cli.global.json);
        }
    }

    #[test]
    fn what_is_not_built_is_not_accepted() {
        for words in [
            "wrap -- true",
            "report",
            "metrics",
            "key list",
            "key rotate --old-key-file a --old-key-env b",
            "apply --writes capture",
        ] {
            let words = std::iter::once("ripcord").chain(words.split(' '));
            assert!(Cli::try_parse_from(words.clone()).is_err(), "{:?}", words.collect::<Vec<_>>());
        }
    }

    #[test]
    fn aliases_lead_to_the_same_verb() {
        for (typed, name) in [("up", "apply"), ("migrate", "apply"), ("down", "rollback"), ("info", "status")] {
            let cli = Cli::try_parse_from(["ripcord", typed]).unwrap();
            assert_eq!(cli.command.unwrap().name(), name);
        }
        let cli = Cli::try_parse_from(["ripcord", "create", "add orders"]).unwrap();
        assert_eq!(cli.command.unwrap().name(), "new");
        assert!(Cli::try_parse_from(["ripcord"]).unwrap().command.is_none());
    }
}
