//! The options that stand for settings, whatever command they were given to.

use std::time::Duration;

use ripcord::settings::{OnFailure, Writes};

use super::{BackupCommand, Cli, Command, Global, KeyCommand, PruneArgs};

/// What was typed, as far as configuration is concerned.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The global options.
    pub global: Global,
    /// `--timeout` of a run.
    pub migration_timeout: Option<Duration>,
    /// `--wait`.
    pub wait_for_lock: Option<Duration>,
    /// `--jobs`.
    pub jobs: Option<u32>,
    /// `--parallel`.
    pub parallel: Option<u32>,
    /// `--writes`.
    pub writes: Option<Writes>,
    /// `--on-failure`.
    pub on_failure: Option<OnFailure>,
    /// `--health-url`.
    pub health_urls: Vec<String>,
    /// `--limit` of a run.
    pub limit: Option<usize>,
    /// `--dry-run`.
    pub dry_run: bool,
    /// `--skip-backup`.
    pub skip_backup: bool,
    /// `prune`'s rules.
    pub retention: PruneArgs,
}

impl Overrides {
    /// Collects them.
    pub fn of(cli: &Cli, command: &Command) -> Self {
        let mut typed = Overrides { global: cli.global.clone(), ..Overrides::default() };
        match command {
            Command::Apply(args) | Command::Plan(args) => {
                typed.migration_timeout = args.timeout;
                typed.wait_for_lock = args.wait;
                typed.jobs = args.jobs;
                typed.parallel = args.parallel;
                typed.writes = args.writes.map(Writes::from);
                typed.on_failure = args.on_failure.map(OnFailure::from);
                typed.health_urls = args.health_urls.clone();
                typed.limit = args.limit.map(|limit| limit as usize);
                typed.skip_backup = args.skip_backup;
                typed.dry_run = args.dry_run || matches!(command, Command::Plan(_));
            }
            Command::Rollback(args) => typed.dry_run = args.dry_run,
            Command::Key { command: KeyCommand::Add(args) } => typed.dry_run = args.dry_run,
            Command::Key { command: KeyCommand::Rotate(args) } => typed.dry_run = args.dry_run,
            Command::Key { command: KeyCommand::Remove(args) } => typed.dry_run = args.dry_run,
            Command::Recover(args) => {
                typed.writes = args.writes.map(Writes::from);
                typed.on_failure = args.on_failure.map(OnFailure::from);
                typed.dry_run = args.dry_run;
            }
            Command::Backup { command: BackupCommand::Create(args) } => typed.jobs = args.jobs,
            Command::Restore(args) => {
                typed.writes = args.writes.map(Writes::from);
                typed.jobs = args.jobs;
                typed.dry_run = args.dry_run;
            }
            Command::Drill(args) => typed.jobs = args.jobs,
            Command::Prune(args) => {
                typed.retention = args.clone();
                typed.dry_run = args.dry_run;
            }
            Command::Renumber(args) => typed.dry_run = args.dry_run,
            Command::Adopt(args) => typed.dry_run = args.dry_run,
            _ => {}
        }
        typed
    }
}
