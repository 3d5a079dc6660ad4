//! What was resolved: the values that operations run with, whatever they came from.
//!
//! The binary fills these from options, environment, `.env` files and `ripcord.toml`; a program that
//! uses the library fills them itself. Everything is plain data with units in the types.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub mod window;

pub use window::Window;

/// Where a run changes things and under which rules.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `development`, `staging`, `production` or one that the configuration defines; `None` when
    /// nobody named one, and then the strict rules hold.
    pub name: Option<String>,
    /// Destructive commands are refused, and so is a store that dies with the process.
    pub protected: bool,
    /// A run needs an approval: typed, `--yes` or `FORCE_RUN=true`.
    pub approval: bool,
    /// `--skip-backup` is allowed.
    pub allow_skip_backup: bool,
    /// When migrations may run; empty: always.
    pub windows: Vec<Window>,
}

impl Default for Environment {
    fn default() -> Self {
        Environment { name: None, protected: true, approval: false, allow_skip_backup: false, windows: Vec::new() }
    }
}

/// Where the master key comes from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// The 64 hexadecimal digits themselves (from `BACKUP_ENCRYPTION_KEY` or another variable).
    Hex {
        /// The variable's name, for messages.
        variable: String,
        /// The digits.
        digits: SecretString,
    },
    /// A file that holds the digits.
    File(PathBuf),
    /// A command that prints the digits, run by `sh -c`.
    Command(String),
}

/// How a backup is made.
#[derive(Clone, Debug)]
pub struct BackupSettings {
    /// zstd's level, 1 to 19. Over numbers, documents, text and noise together, 3 stores as many bytes as 1
    /// (`docs/measurements.md`) and takes two to three times as long.
    pub compression_level: i32,
    /// Threads that compress and seal; 0: one a core, 8 at most.
    pub threads: u32,
    /// pg_dump processes at once, and connections of a restore.
    pub jobs: u32,
    /// How long a backup may take.
    pub timeout: Duration,
    /// Schemas that are left out, besides ripcord's own. `None`: those that Supabase manages, where the database is one
    /// of Supabase's.
    pub exclude_schemas: Option<Vec<String>>,
}

impl BackupSettings {
    /// How many threads compress and seal. More than 8 would only wait for pg_dump, each with its megabytes.
    pub fn sealing_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from).min(8),
            set => usize::try_from(set).unwrap_or(usize::MAX),
        }
    }
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// PostgreSQL's `statement_timeout` while a migration runs.
    pub statement: Duration,
    /// PostgreSQL's `lock_timeout` while a migration runs.
    pub lock: Duration,
    /// One whole migration.
    pub migration: Duration,
    /// Connecting to the server.
    pub connect: Duration,
    /// Loading and proving a backup; the swap has its own limits, because it must not be left half done.
    pub restore: Duration,
    /// How long a run waits for the lock that another run holds.
    pub wait_for_lock: Duration,
}

/// How often a whole transaction is tried again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Attempts, the first one included.
    pub attempts: u32,
    /// The pause before the second; it doubles, with jitter.
    pub delay: Duration,
}

/// One thing that tells whether the application is well.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: HealthProbe,
    /// This many good answers in a row are green.
    pub successes: u32,
    /// The pause between two probes.
    pub interval: Duration,
    /// Green must come within this time.
    pub deadline: Duration,
    /// One probe's own limit.
    pub timeout: Duration,
}

/// What a health check asks.
#[derive(Clone, Debug)]
pub enum HealthProbe {
    /// An HTTP GET.
    Url {
        /// `http://` or `https://`.
        url: String,
        /// Accepted statuses; empty: any 2xx.
        expect_status: Vec<u16>,
        /// JSON pointer (RFC 6901) → the text that its value must have.
        expect_json: BTreeMap<String, String>,
        /// Text that the body must contain.
        expect_text: Option<String>,
        /// Header → value, already taken from the environment.
        headers: Vec<(String, SecretString)>,
    },
    /// A command, run by `sh -c`; exit status 0 is well.
    Command(String),
    /// A query on the target; it is well when it returns no row, or one whose first column is true.
    Sql(String),
}

/// What to do when a run fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The gentlest rung that can be proved.
    Auto,
    /// Transaction rollback and DOWN only.
    Rollback,
    /// Straight to the restore.
    Restore,
    /// Leave everything as it is.
    Stop,
}

/// What holds for writes that others commit after the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writes {
    /// They are counted, and an unattended restore that would lose one is not done.
    Refuse,
    /// Others can only read while the run lasts; counted all the same.
    Fence,
    /// A restore may lose them; they are counted and told.
    AcceptLoss,
}

/// What runs around the steps of a run.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// Hook's name (`before_run`, `after_backup`, …) → what runs, in order.
    pub steps: BTreeMap<String, Vec<Hook>>,
    /// The limit of one that has none of its own.
    pub timeout: Duration,
}

/// One thing that a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What runs.
    pub what: HookWhat,
    /// Its own limit.
    pub timeout: Option<Duration>,
    /// Its failure is only told. `None`: that is so after a rollback and after a restore, where nothing would be
    /// better for failing.
    pub only_warns: Option<bool>,
}

/// What a hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookWhat {
    /// By `sh -c`.
    Command(String),
    /// On the target, in a transaction of its own; before the backup in one that can only read.
    Sql(String),
}

/// What stands against a migration that comes after a later one was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// The plan is invalid.
    Linear,
    /// It is told and never runs.
    LinearSkip,
    /// It is told and runs.
    #[default]
    NonLinear,
}

/// What stands against a migration whose applied text has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChanged {
    /// The plan is invalid.
    Error,
    /// It runs once more.
    Rerun,
    /// It is told and left.
    Warn,
}

/// The rules of keeping backups; see [`crate::retention`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionRules {
    /// The newest N.
    pub keep_last: u32,
    /// The newest of each of the last N hours that have one.
    pub keep_hourly: u32,
    /// Likewise days.
    pub keep_daily: u32,
    /// Likewise ISO weeks.
    pub keep_weekly: u32,
    /// Likewise months.
    pub keep_monthly: u32,
    /// Likewise years.
    pub keep_yearly: u32,
    /// Everything younger than this.
    pub keep_within: Option<Duration>,
    /// Everything with one of these tags.
    pub keep_tags: Vec<String>,
    /// The store's share for this lineage, in bytes: the oldest that no other rule needs go first.
    pub max_size_bytes: Option<u64>,
}

impl RetentionRules {
    /// The last 10 and everything of the last 7 days.
    pub fn standard() -> Self {
        RetentionRules {
            keep_last: 10,
            keep_within: Some(Duration::from_secs(7 * 24 * 3600)),
            ..RetentionRules::default()
        }
    }
}

/// What a finding of a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is not looked for.
    Off,
    /// For information.
    Note,
    /// Told by a run, which goes on.
    Warning,
    /// Stops every run.
    Error,
}

/// How migrations are judged.
#[derive(Clone, Debug, Default)]
pub struct LintSettings {
    /// Rule → what its findings count, where that is not the rule's own.
    pub levels: BTreeMap<String, Level>,
    /// Tables of fewer rows than this are changed without a word about locks.
    pub large_table_rows: u64,
}

/// A limit in its largest unit that leaves nothing over.
pub fn in_words(limit: chrono::TimeDelta) -> String {
    let seconds = limit.num_seconds();
    for (unit, word) in [(86_400, "days"), (3600, "hours"), (60, "minutes")] {
        if seconds > 0 && seconds % unit == 0 {
            return format!("{} {word}", seconds / unit);
        }
    }
    format!("{} seconds", limit.as_seconds_f64())
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The target's URL or `key=value` string; `None`: libpq's variables alone.
    pub database_url: Option<SecretString>,
    /// The database that the lock is held in; `None`: `postgres`, else `template1`.
    pub maintenance_db: Option<String>,
    /// The folder of migrations; `None`: found among the usual ones.
    pub migrations_dir: Option<PathBuf>,
    /// A curated order of migrations: names and globs. What it does not name comes after, by version.
    pub order: Vec<String>,
    /// The layout's name, when the configuration forces one.
    pub layout: Option<String>,
    /// Where backups live: a folder or a URL.
    pub store: String,
    /// Under which rules.
    pub environment: Environment,
    /// Where the master key comes from; `None` is found out before anything is dumped.
    pub key: Option<KeySource>,
    /// Further master keys: every new backup is sealed for them as well.
    pub recovery_keys: Vec<KeySource>,
    /// Ids of keys that are kept elsewhere: the doctor says which backups they do not open yet.
    pub offline_keys: Vec<String>,
    /// Folders with the programs of PostgreSQL, looked through first.
    pub pg_bin: Vec<PathBuf>,
    /// How many migrations may run beside each other, where dependencies were declared.
    pub parallel: u32,
    /// How a backup is made.
    pub backup: BackupSettings,
    /// Which backups stay.
    pub retention: RetentionRules,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How often things are tried.
    pub retry: Retry,
    /// Whether the application is well.
    pub health: Vec<HealthCheck>,
    /// The last good drill may be as old as this; `None`: its age is not looked at.
    pub drill_max_age: Option<Duration>,
    /// What to do on failure.
    pub on_failure: OnFailure,
    /// What holds for foreign writes.
    pub writes: Writes,
    /// Commands around the steps.
    pub hooks: Hooks,
    /// The variables that migrations may use, each with its value when it is set.
    pub variables: BTreeMap<String, Option<SecretString>>,
    /// What stands against a migration that arrives late.
    pub arrivals: Arrivals,
    /// What stands against a changed file.
    pub on_changed: OnChanged,
    /// Tables that must be there after a run, `schema.table`.
    pub expect_tables: Vec<String>,
    /// Functions that must be there after a run, `schema.function`.
    pub expect_functions: Vec<String>,
    /// Policies that must be there after a run, `schema.table.policy`.
    pub expect_policies: Vec<String>,
    /// Constraints that may stay not validated, `schema.table.constraint`.
    pub expect_not_valid: Vec<String>,
    /// Whether PostgREST is told to read the schema again after whatever changed it.
    pub postgrest_notify: bool,
    /// A folder of SQL files that must each return no row after a run.
    pub checks_dir: Option<PathBuf>,
    /// The folder of log files; `None`: none are written.
    pub logs_dir: Option<PathBuf>,
    /// How migrations are judged.
    pub lint: LintSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            database_url: None,
            maintenance_db: None,
            migrations_dir: None,
            order: Vec::new(),
            layout: None,
            store: "backups".to_owned(),
            environment: Environment::default(),
            key: None,
            recovery_keys: Vec::new(),
            offline_keys: Vec::new(),
            pg_bin: Vec::new(),
            parallel: 1,
            backup: BackupSettings {
                compression_level: 1,
                threads: 0,
                jobs: 1,
                timeout: Duration::from_secs(3600),
                exclude_schemas: None,
            },
            retention: RetentionRules::standard(),
            timeouts: Timeouts {
                statement: Duration::from_secs(300),
                lock: Duration::from_secs(5),
                migration: Duration::from_secs(600),
                connect: Duration::from_secs(10),
                restore: Duration::from_secs(24 * 3600),
                wait_for_lock: Duration::ZERO,
            },
            retry: Retry { attempts: 3, delay: Duration::from_secs(1) },
            health: Vec::new(),
            drill_max_age: Some(Duration::from_secs(30 * 24 * 3600)),
            on_failure: OnFailure::Auto,
            writes: Writes::Refuse,
            hooks: Hooks { steps: BTreeMap::new(), timeout: Duration::from_secs(60) },
            variables: BTreeMap::new(),
            arrivals: Arrivals::default(),
            on_changed: OnChanged::Error,
            expect_tables: Vec::new(),
            expect_functions: Vec::new(),
            expect_policies: Vec::new(),
            expect_not_valid: Vec::new(),
            postgrest_notify: false,
            checks_dir: None,
            logs_dir: None,
            lint: LintSettings { levels: BTreeMap::new(), large_table_rows: 100_000 },
        }
    }
}
