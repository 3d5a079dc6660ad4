//! From what was typed, the variables and `ripcord.toml` to [`Settings`]. Everything that knows of a
//! variable or of the file stands in this folder.

pub mod dotenv;
pub mod environments;
pub mod file;
pub mod health;
pub mod key;
pub mod resolver;
pub mod units;
pub mod variables;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord::settings::{Hooks, OnChanged, RetentionRules, Settings};
use ripcord::{Error, Result};
use secrecy::{ExposeSecret, SecretString};

use crate::args::Overrides;
use file::{File, OnChangedWord, Section};
use resolver::{Bytes, Entry, Guide, Resolver, Value};
use variables::Variables;

/// The file's name when nobody names one.
pub const DEFAULT_FILE: &str = "ripcord.toml";

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors and warnings.
    Quiet,
    /// What a person wants to follow.
    Normal,
    /// More.
    Verbose,
}

/// Everything that was resolved.
#[derive(Debug)]
pub struct Resolved {
    /// What operations run with.
    pub settings: Settings,
    /// `--dry-run` or `DRY_RUN=true`.
    pub dry_run: bool,
    /// `--skip-backup` or `SKIP_BACKUP=true`; whether it is allowed is the environment's to say.
    pub skip_backup: bool,
    /// `--yes` or `FORCE_RUN=true`.
    pub assume_yes: bool,
    /// `--limit` or `MIGRATION_BATCH_SIZE`.
    pub limit: Option<usize>,
    /// How much is said.
    pub verbosity: Verbosity,
    /// Whether `on_changed` was left to the layout.
    pub on_changed_is_default: bool,
    /// Where each value came from.
    pub entries: Vec<Entry>,
    /// Said first.
    pub notes: Vec<String>,
    /// Said first and loudly.
    pub warnings: Vec<String>,
    /// Headers whose variable is not set: an error only for commands that ask.
    pub incomplete: Option<Error>,
    /// Why there is no key although the file names one.
    pub why_no_key: Option<Error>,
    /// Why there is no database although something was given that looks like one.
    pub why_no_database: Option<Error>,
    /// The variables, for libpq's.
    pub variables: Variables,
    /// The folder that `.env`, `backups` and the migrations are looked for in.
    pub base: PathBuf,
}

/// Resolves. `cwd` is the current folder.
pub fn resolve(typed: &Overrides, mut variables: Variables, cwd: &Path) -> Result<Resolved> {
    let file = read_file(typed, &variables, cwd)?;
    // Relative to the current folder as long as the file lies there, so that messages stay short.
    let base = match &file {
        Some(file) => file.base.clone(),
        None => PathBuf::new(),
    };
    let (named, name_source) = environment_name(typed, &variables);
    let (mut environment, table) = environments::resolve(named.as_deref(), file.as_ref())?;

    let mut warnings = Vec::new();
    let mut first_notes = Vec::new();
    read_dotenv(&cwd.join(&base), &environment, &mut variables, &mut first_notes, &mut warnings)?;

    let variables_before = variables.clone();
    let mut sections: Vec<(String, &Section)> = Vec::new();
    if let Some(file) = &file {
        if let Some(table) = table {
            let name = environment.name.clone().unwrap_or_default();
            sections.push((format!("{} [environments.{name}]", file.name), table));
        }
        sections.push((file.name.clone(), &file.section));
    }
    let mut resolver = Resolver::new(&variables_before, sections);
    resolver.know(&["RIPCORD_CONFIG", "RIPCORD_ENVIRONMENT"]);
    resolver.record("environment", environment.name.as_deref().unwrap_or_default(), name_source);
    if name_source == "ENVIRONMENT from the environment" {
        resolver.say_in_effect("ENVIRONMENT", named.as_deref(), "", variables::ENVIRONMENT);
    }

    if let Some(asked) = switch(&variables, "REQUIRE_APPROVAL")? {
        if asked {
            environment.approval = true;
            resolver.say_in_effect("REQUIRE_APPROVAL", Some("true"), "", variables::ENVIRONMENT);
        } else if environment.approval {
            warnings.push(
                "`REQUIRE_APPROVAL=false` does not lift the approval that the environment requires; `--yes` gives it"
                    .to_owned(),
            );
        }
    }
    for (key, value) in [
        ("environment.protected", environment.protected),
        ("environment.approval", environment.approval),
        ("environment.allow_skip_backup", environment.allow_skip_backup),
    ] {
        resolver.record(key, value.to_string(), "environment's rules");
    }

    let (mut settings, on_changed_is_default) = settings(&mut resolver, typed, &base)?;
    settings.environment = environment;
    let (key, why_no_key) = key::resolve(&mut resolver, &variables, file.as_ref(), table)?;
    settings.key = key;
    let incomplete = health_checks(&mut settings, &mut resolver, typed, &variables, file.as_ref(), table)?;
    let why_no_database = supabase(&mut settings, &mut resolver, &variables);
    if let Some(url) = file_with_password(file.as_ref(), table) {
        warnings.push(format!(
            "`{}` holds a password in `database_url`; put the URL into DATABASE_URL or the password into ~/.pgpass",
            url
        ));
    }

    let dry_run_variable = variables.get("DRY_RUN").is_some() && {
        let found = variables.get("DRY_RUN").map_or("", |variable| variable.text);
        units::yes_or_no(found).map_err(|why| Error::usage(format!("variable `DRY_RUN`: {why}")))?
    };
    if dry_run_variable {
        warnings.push("`DRY_RUN=true` is set: NOTHING WILL BE CHANGED".to_owned());
    }
    let skip_variable = switch(&variables, "SKIP_BACKUP")?.unwrap_or(false);
    if skip_variable {
        resolver.say_in_effect("SKIP_BACKUP", Some("true"), "", variables::ENVIRONMENT);
    }
    let force_variable = switch(&variables, "FORCE_RUN")?.unwrap_or(false);
    if force_variable {
        resolver.say_in_effect("FORCE_RUN", Some("true"), "counts as an approval", variables::ENVIRONMENT);
    }
    let limit = resolver.optional(
        "limit",
        typed.limit,
        &[Guide {
            name: "MIGRATION_BATCH_SIZE",
            unit: "migrations at most",
            read: |text| resolver::whole_number(text).map(Some),
        }],
        |_| None,
    )?;
    if limit == Some(0) {
        return Err(Error::usage("the limit of migrations is 0, so that nothing could ever run")
            .hint("unset MIGRATION_BATCH_SIZE"));
    }
    let verbosity = verbosity(typed, &variables, &mut resolver);
    if variables.get("METRICS_ENDPOINT").is_some() {
        first_notes.push("`METRICS_ENDPOINT` is set; this version sends no metrics".to_owned());
    }
    if file.is_none() && cwd.join("migration.config.yml").exists() {
        first_notes
            .push("`migration.config.yml` is not read by this version; `ripcord init` writes ripcord.toml".to_owned());
    }
    warnings.extend(resolver.unknown_variables());
    first_notes.append(&mut resolver.notes);
    let entries = resolver.entries;

    Ok(Resolved {
        settings,
        dry_run: typed.dry_run || dry_run_variable,
        skip_backup: typed.skip_backup || skip_variable,
        assume_yes: typed.global.yes || force_variable,
        limit,
        verbosity,
        on_changed_is_default,
        entries,
        notes: first_notes,
        warnings,
        incomplete,
        why_no_key,
        why_no_database,
        variables,
        base,
    })
}

fn read_file(typed: &Overrides, variables: &Variables, cwd: &Path) -> Result<Option<File>> {
    let named = typed.global.config.clone().or_else(|| variables.of_process_only("RIPCORD_CONFIG").map(PathBuf::from));
    let path = match named {
        Some(path) => path,
        // One that nobody named need not be there.
        None if cwd.join(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
        None => return Ok(None),
    };
    let text = std::fs::read_to_string(cwd.join(&path)).map_err(|error| {
        Error::usage(format!("`{}` cannot be read", path.display())).because(error).hint("ripcord init")
    })?;
    File::parse(&path, text).map(Some)
}

fn environment_name(typed: &Overrides, variables: &Variables) -> (Option<String>, &'static str) {
    if let Some(name) = &typed.global.env {
        return (Some(name.clone()), "option");
    }
    for (variable, source) in [
        ("RIPCORD_ENVIRONMENT", "RIPCORD_ENVIRONMENT from the environment"),
        ("ENVIRONMENT", "ENVIRONMENT from the environment"),
    ] {
        if let Some(name) = variables.of_process_only(variable) {
            return (Some(name.to_owned()), source);
        }
    }
    (None, "default")
}

/// `.env.<environment>`, then `.env`; neither where a named environment is protected. Without a name the
/// files are read: that is how the guides' own tools are used, and a file cannot relax the rules.
fn read_dotenv(
    folder: &Path,
    environment: &ripcord::settings::Environment,
    variables: &mut Variables,
    notes: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut names = Vec::new();
    if let Some(name) = &environment.name {
        names.push(format!(".env.{name}"));
        match name.as_str() {
            "development" => names.push(".env.dev".to_owned()),
            "production" => names.push(".env.prod".to_owned()),
            _ => {}
        }
    }
    names.push(".env".to_owned());
    if let (Some(environment_name), true) = (&environment.name, environment.protected) {
        for name in names.iter().filter(|name| folder.join(name).exists()) {
            notes.push(format!("`{name}` is not read: environment `{environment_name}` is protected"));
        }
        return Ok(());
    }
    for name in names {
        let Some(file) = dotenv::read(&folder.join(&name))? else {
            continue;
        };
        for variable in &file.left_out {
            warnings.push(format!("`{name}` sets `{variable}`, which only the environment may; it is ignored"));
        }
        variables.add_file(file);
    }
    Ok(())
}

/// A yes-or-no variable that only the process's own environment may set.
fn switch(variables: &Variables, name: &str) -> Result<Option<bool>> {
    variables
        .of_process_only(name)
        .map(|text| units::yes_or_no(text).map_err(|why| Error::usage(format!("variable `{name}`: {why}"))))
        .transpose()
}

fn settings(resolver: &mut Resolver<'_>, typed: &Overrides, base: &Path) -> Result<(Settings, bool)> {
    let defaults = Settings::default();
    let global = &typed.global;

    let database_url = resolver.optional(
        "database_url",
        global.database_url.clone().map(SecretString::from),
        &[Guide { name: "DATABASE_URL", unit: "", read: |text| Ok(Some(SecretString::from(text.to_owned()))) }],
        |section| section.database_url.clone().map(SecretString::from),
    )?;
    let maintenance_db = resolver
        .optional("maintenance_db", global.maintenance_db.clone(), &[], |section| section.maintenance_db.clone())?;
    let migrations_dir = resolver
        .path("migrations_dir", global.migrations_dir.clone(), base, |section| section.migrations_dir.clone())?;
    let layout = resolver.optional("layout", None, &[], |section| section.layout.clone())?;
    let store = resolver.value(
        "store",
        global.store.clone(),
        &[],
        |section| section.store.as_ref().map(|store| store_from(base, store)),
        store_from(base, &defaults.store),
    )?;
    let pg_bin = resolver.value(
        "pg_bin",
        None,
        &[],
        |section| {
            let folders = section.pg_bin.as_ref()?;
            Some(folders.iter().map(|folder| base.join(folder)).collect())
        },
        Vec::<PathBuf>::new(),
    )?;
    let on_changed = resolver.maybe(
        "on_changed",
        None,
        &[Guide {
            name: "MIGRATION_VALIDATE_CHECKSUMS",
            unit: "",
            read: |text| {
                let strict = units::yes_or_no(text)?;
                Ok(Some(if strict { OnChanged::Error } else { OnChanged::Warn }))
            },
        }],
        |section| section.on_changed.map(on_changed_of),
    )?;
    if on_changed.is_none() {
        resolver.record("on_changed", defaults.on_changed.show(), "default");
    }

    let backup = backup_settings(resolver, typed, &defaults)?;
    let timeouts = timeouts(resolver, typed, &defaults)?;
    let retention = retention(resolver, typed)?;
    let retry = ripcord::settings::Retry {
        attempts: at_least_one(
            "retry.attempts",
            resolver.value(
                "retry.attempts",
                None,
                &[Guide {
                    name: "MIGRATION_RETRY_ATTEMPTS",
                    unit: "attempts",
                    read: |text| resolver::whole_number(text).map(Some),
                }],
                |section| section.retry.attempts,
                defaults.retry.attempts,
            )?,
        )?,
        delay: resolver.value(
            "retry.delay",
            None,
            &[],
            |section| section.retry.delay.map(file::Unit::get),
            defaults.retry.delay,
        )?,
    };
    let on_failure = resolver.value(
        "recovery.on_failure",
        typed.on_failure,
        &[],
        |section| section.recovery.on_failure,
        defaults.on_failure,
    )?;
    let writes =
        resolver.value("recovery.writes", typed.writes, &[], |section| section.recovery.writes, defaults.writes)?;
    let hooks = hooks(resolver, &defaults)?;
    let expect_tables =
        resolver.value("expect.tables", None, &[], |section| section.expect.tables.clone(), Vec::new())?;
    let expect_functions =
        resolver.value("expect.functions", None, &[], |section| section.expect.functions.clone(), Vec::new())?;
    let checks_dir = resolver.path("expect.checks", None, base, |section| section.expect.checks.clone())?;
    let logs_dir = resolver.path("logs.dir", None, base, |section| section.logs.dir.clone())?;

    let on_changed_is_default = on_changed.is_none();
    Ok((
        Settings {
            database_url,
            maintenance_db,
            migrations_dir,
            layout,
            store,
            environment: defaults.environment,
            key: None,
            pg_bin,
            backup,
            retention,
            timeouts,
            retry,
            health: Vec::new(),
            on_failure,
            writes,
            hooks,
            on_changed: on_changed.unwrap_or(defaults.on_changed),
            expect_tables,
            expect_functions,
            checks_dir,
            logs_dir,
        },
        on_changed_is_default,
    ))
}

fn backup_settings(
    resolver: &mut Resolver<'_>,
    typed: &Overrides,
    defaults: &Settings,
) -> Result<ripcord::settings::BackupSettings> {
    let compression_level = resolver.value(
        "backup.compression_level",
        None,
        &[],
        |section| section.backup.compression_level,
        defaults.backup.compression_level,
    )?;
    if !(1..=19).contains(&compression_level) {
        return Err(Error::usage(format!(
            "`backup.compression_level` is {compression_level}, and zstd's levels are 1 to 19"
        )));
    }
    let jobs = resolver.value(
        "backup.jobs",
        typed.jobs,
        &[Guide { name: "PARALLEL_JOBS", unit: "jobs", read: |text| resolver::whole_number(text).map(Some) }],
        |section| section.backup.jobs,
        defaults.backup.jobs,
    )?;
    Ok(ripcord::settings::BackupSettings {
        compression_level,
        jobs: at_least_one("backup.jobs", jobs)?,
        timeout: resolver.value(
            "backup.timeout",
            None,
            &[],
            |section| section.backup.timeout.map(file::Unit::get),
            defaults.backup.timeout,
        )?,
        exclude_schemas: resolver.value(
            "backup.exclude_schemas",
            None,
            &[],
            |section| section.backup.exclude_schemas.clone(),
            Vec::new(),
        )?,
    })
}

fn timeouts(
    resolver: &mut Resolver<'_>,
    typed: &Overrides,
    defaults: &Settings,
) -> Result<ripcord::settings::Timeouts> {
    const NONE: &[Guide<Duration>] = &[];
    let migration: &[Guide<Duration>] = &[
        Guide {
            name: "MIGRATION_TIMEOUT",
            unit: "milliseconds, for one migration",
            read: |text| units::guide_duration(text, 1).map(Some),
        },
        Guide {
            name: "TIMEOUT",
            unit: "seconds, for one migration",
            read: |text| units::guide_duration(text, 1_000).map(Some),
        },
    ];
    let lock: &[Guide<Duration>] = &[Guide {
        name: "MIGRATION_LOCK_TIMEOUT",
        unit: "milliseconds of waiting for another run",
        read: |text| units::guide_duration(text, 1).map(Some),
    }];
    let standard = &defaults.timeouts;
    Ok(ripcord::settings::Timeouts {
        statement: resolver.value(
            "timeouts.statement",
            None,
            NONE,
            |section| section.timeouts.statement.map(file::Unit::get),
            standard.statement,
        )?,
        lock: resolver.value(
            "timeouts.lock",
            None,
            NONE,
            |section| section.timeouts.lock.map(file::Unit::get),
            standard.lock,
        )?,
        migration: resolver.value(
            "timeouts.migration",
            typed.migration_timeout,
            migration,
            |section| section.timeouts.migration.map(file::Unit::get),
            standard.migration,
        )?,
        connect: resolver.value(
            "timeouts.connect",
            None,
            NONE,
            |section| section.timeouts.connect.map(file::Unit::get),
            standard.connect,
        )?,
        wait_for_lock: resolver.value(
            "timeouts.wait_for_lock",
            typed.wait_for_lock,
            lock,
            |section| section.timeouts.wait_for_lock.map(file::Unit::get),
            standard.wait_for_lock,
        )?,
    })
}

fn retention(resolver: &mut Resolver<'_>, typed: &Overrides) -> Result<RetentionRules> {
    let standard = RetentionRules::standard();
    let asked = &typed.retention;
    let keep_tags = (!asked.keep_tags.is_empty()).then(|| asked.keep_tags.clone());
    let keep_within = resolver.value(
        "retention.keep_within",
        asked.keep_within,
        &[],
        |section| section.retention.keep_within.map(file::Unit::get),
        standard.keep_within.unwrap_or_default(),
    )?;
    Ok(RetentionRules {
        keep_last: resolver.value(
            "retention.keep_last",
            asked.keep_last,
            &[],
            |section| section.retention.keep_last,
            standard.keep_last,
        )?,
        keep_hourly: resolver.value(
            "retention.keep_hourly",
            asked.keep_hourly,
            &[],
            |section| section.retention.keep_hourly,
            0,
        )?,
        keep_daily: resolver.value(
            "retention.keep_daily",
            asked.keep_daily,
            &[],
            |section| section.retention.keep_daily,
            0,
        )?,
        keep_weekly: resolver.value(
            "retention.keep_weekly",
            asked.keep_weekly,
            &[],
            |section| section.retention.keep_weekly,
            0,
        )?,
        keep_monthly: resolver.value(
            "retention.keep_monthly",
            asked.keep_monthly,
            &[],
            |section| section.retention.keep_monthly,
            0,
        )?,
        keep_yearly: resolver.value(
            "retention.keep_yearly",
            asked.keep_yearly,
            &[],
            |section| section.retention.keep_yearly,
            0,
        )?,
        keep_within: (keep_within > Duration::ZERO).then_some(keep_within),
        keep_tags: resolver.value(
            "retention.keep_tags",
            keep_tags,
            &[],
            |section| section.retention.keep_tags.clone(),
            Vec::new(),
        )?,
        max_size_bytes: resolver
            .optional("retention.max_size", asked.max_size.map(Bytes), &[], |section| {
                section.retention.max_size.map(|size| Bytes(size.get()))
            })?
            .map(|size| size.0),
    })
}

fn hooks(resolver: &mut Resolver<'_>, defaults: &Settings) -> Result<Hooks> {
    let mut hooks = Hooks {
        commands: Default::default(),
        timeout: resolver.value(
            "hooks.timeout",
            None,
            &[],
            |section| section.hooks.timeout.map(file::Unit::get),
            defaults.hooks.timeout,
        )?,
    };
    const KEYS: [(&str, &str); 10] = [
        ("hooks.before_run", "before_run"),
        ("hooks.after_run", "after_run"),
        ("hooks.before_backup", "before_backup"),
        ("hooks.after_backup", "after_backup"),
        ("hooks.before_migration", "before_migration"),
        ("hooks.after_migration", "after_migration"),
        ("hooks.before_rollback", "before_rollback"),
        ("hooks.after_rollback", "after_rollback"),
        ("hooks.before_restore", "before_restore"),
        ("hooks.after_restore", "after_restore"),
    ];
    for (key, name) in KEYS {
        // Only the file holds commands: a variable or a `.env` file must not be able to run one.
        let found = resolver.in_file(key, |section| {
            let tables = section.hooks.by_name();
            let (_, commands) = tables.iter().find(|(hook, _)| *hook == name)?;
            commands.as_ref().map(file::Commands::to_vec)
        });
        if let Some(commands) = found {
            hooks.commands.insert(name.to_owned(), commands);
        }
    }
    Ok(hooks)
}

fn health_checks(
    settings: &mut Settings,
    resolver: &mut Resolver<'_>,
    typed: &Overrides,
    variables: &Variables,
    file: Option<&File>,
    table: Option<&Section>,
) -> Result<Option<Error>> {
    let mut incomplete = None;
    let written =
        table.and_then(|table| table.health.as_ref()).or_else(|| file.and_then(|file| file.section.health.as_ref()));
    if let (Some(file), Some(written)) = (file, written) {
        for check in written {
            let (check, missing) = health::from_table(check.get_ref(), file, check.span().start, variables)?;
            resolver.record("health", health::subject(&check), &file.name);
            settings.health.push(check);
            incomplete = incomplete.or(missing);
        }
    }
    for url in &typed.health_urls {
        let check = health::from_url(url)?;
        resolver.record("health", health::subject(&check), "option");
        settings.health.push(check);
    }
    Ok(incomplete)
}

/// Supabase's URL and its database's password make a database URL; a service key does not.
fn supabase(settings: &mut Settings, resolver: &mut Resolver<'_>, variables: &Variables) -> Option<Error> {
    if settings.database_url.is_some() || variables.of_process_only("PGHOST").is_some() {
        return None;
    }
    let url = variables.get("SUPABASE_URL")?;
    let project = url
        .text
        .trim_start_matches("https://")
        .split('.')
        .next()
        .filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        .unwrap_or("PROJECT");
    let Some(password) = variables.get("SUPABASE_DB_PASSWORD") else {
        let fact = if variables.get("SUPABASE_SERVICE_KEY").is_some() {
            "`SUPABASE_URL` and `SUPABASE_SERVICE_KEY` open Supabase's API, not its database"
        } else {
            "`SUPABASE_URL` alone does not open Supabase's database"
        };
        return Some(
            Error::usage(fact)
                .because("a migration needs the database's own password (Supabase: Project Settings, Database)")
                .hint(format!(
                    "export DATABASE_URL='postgresql://postgres:PASSWORD@db.{project}.supabase.co:5432/postgres'"
                )),
        );
    };
    let url = format!(
        "postgresql://postgres:{}@db.{project}.supabase.co:5432/postgres?sslmode=require",
        percent_encoded(password.text)
    );
    resolver.say_in_effect("SUPABASE_URL", Some(url_text(variables)), "", password.place);
    resolver.say_in_effect("SUPABASE_DB_PASSWORD", None, "", password.place);
    let url = SecretString::from(url);
    if let Some(entry) = resolver.entries.iter_mut().find(|entry| entry.key == "database_url") {
        entry.value = url.show();
        entry.source = "SUPABASE_URL and SUPABASE_DB_PASSWORD".to_owned();
    }
    settings.database_url = Some(url);
    None
}

fn url_text(variables: &Variables) -> &str {
    variables.get("SUPABASE_URL").map_or("", |variable| variable.text)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn file_with_password(file: Option<&File>, table: Option<&Section>) -> Option<String> {
    let file = file?;
    let urls = [table.and_then(|table| table.database_url.as_ref()), file.section.database_url.as_ref()];
    urls.into_iter().flatten().any(|url| !crate::render::scrub::passwords_in(url).is_empty()).then(|| file.name.clone())
}

fn verbosity(typed: &Overrides, variables: &Variables, resolver: &mut Resolver<'_>) -> Verbosity {
    let (value, source) = if typed.global.quiet {
        (Verbosity::Quiet, "option".to_owned())
    } else if typed.global.verbose {
        (Verbosity::Verbose, "option".to_owned())
    } else if let Some(found) = variables
        .get("DEBUG")
        // Other programs read DEBUG too, with words of their own (`DEBUG=app:*`).
        .filter(|variable| units::yes_or_no(variable.text) == Ok(true))
    {
        resolver.say_in_effect("DEBUG", Some(found.text), "", found.place);
        (Verbosity::Verbose, format!("DEBUG from {}", found.place))
    } else if let Some(found) = variables.get("LOG_LEVEL") {
        let level = match found.text.trim().to_ascii_lowercase().as_str() {
            "error" | "warn" | "warning" | "fatal" | "critical" | "silent" | "off" => Some(Verbosity::Quiet),
            "info" | "notice" => Some(Verbosity::Normal),
            "debug" | "trace" | "verbose" => Some(Verbosity::Verbose),
            _ => None,
        };
        match level {
            Some(level) => {
                resolver.say_in_effect("LOG_LEVEL", Some(found.text), "", found.place);
                (level, format!("LOG_LEVEL from {}", found.place))
            }
            None => {
                resolver.notes.push(format!("`LOG_LEVEL={}` is not a level; it is ignored", found.text));
                (Verbosity::Normal, "default".to_owned())
            }
        }
    } else {
        (Verbosity::Normal, "default".to_owned())
    };
    let word = match value {
        Verbosity::Quiet => "quiet",
        Verbosity::Normal => "normal",
        Verbosity::Verbose => "verbose",
    };
    resolver.record("verbosity", word, &source);
    value
}

fn on_changed_of(word: OnChangedWord) -> OnChanged {
    match word {
        OnChangedWord::Error => OnChanged::Error,
        OnChangedWord::Rerun => OnChanged::Rerun,
        OnChangedWord::Warn => OnChanged::Warn,
    }
}

/// A folder starts from the file's folder; a URL stands for itself.
fn store_from(base: &Path, store: &str) -> String {
    if store.contains("://") { store.to_owned() } else { base.join(store).display().to_string() }
}

fn at_least_one(key: &str, count: u32) -> Result<u32> {
    if count == 0 {
        return Err(Error::usage(format!("`{key}` is 0, and 1 is the least")));
    }
    Ok(count)
}

/// Strings that must never be printed, as far as configuration holds them.
pub fn secrets(resolved: &Resolved) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Some(url) = &resolved.settings.database_url {
        secrets.extend(crate::render::scrub::passwords_in(url.expose_secret()));
    }
    for name in ["PGPASSWORD", "SUPABASE_SERVICE_KEY", "SUPABASE_DB_PASSWORD"] {
        secrets.extend(resolved.variables.get(name).map(|variable| variable.text.to_owned()));
    }
    if let Some(ripcord::settings::KeySource::Hex { digits, .. }) = &resolved.settings.key {
        secrets.push(digits.expose_secret().trim().to_owned());
    }
    for check in &resolved.settings.health {
        if let ripcord::settings::HealthProbe::Url { url, headers, .. } = &check.probe {
            secrets.extend(crate::render::scrub::passwords_in(url));
            secrets.extend(headers.iter().map(|(_, value)| value.expose_secret().to_owned()));
        }
    }
    secrets
}
