//! The keys of `ripcord.toml`, each with its option, its guide's variable and its default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord::migration::lint;
use ripcord::settings::{
    Arrivals, BackupSettings, Hooks, LintSettings, OnChanged, RetentionRules, Retry, Settings, Timeouts,
};
use ripcord::{Error, Result};
use secrecy::SecretString;

use super::environments::longest_migration;
use super::file::{self, OnChangedWord, OutOfOrderWord};
use super::resolver::{self, Bytes, Guide, Resolver, Value};
use super::units;
use crate::args::Overrides;

/// Resolves everything that has a key of its own, in the order of the reference configuration. The second
/// value: whether `on_changed` was left to the layout.
pub fn settings(
    resolver: &mut Resolver<'_>,
    typed: &Overrides,
    base: &Path,
    environment: Option<&str>,
) -> Result<(Settings, bool)> {
    let mut defaults = Settings::default();
    if let Some(longest) = longest_migration(environment) {
        defaults.timeouts.migration = longest;
    }
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
    let order = resolver.value("order", None, &[], |section| section.order.clone(), Vec::new())?;
    let parallel = resolver.value(
        "parallel",
        typed.parallel,
        &[Guide {
            name: "PARALLEL_JOBS",
            unit: "migrations beside each other",
            read: |text| resolver::whole_number(text).map(Some),
        }],
        |section| section.parallel,
        defaults.parallel,
    )?;
    if !(1..=MOST_BESIDE).contains(&parallel) {
        return Err(Error::usage(format!("`parallel` is {parallel}, and 1 to {MOST_BESIDE} is possible")));
    }
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
    let retry = Retry {
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
    let drill_max_age = resolver.value(
        "drill.max_age",
        None,
        &[],
        |section| section.drill.max_age.map(file::Unit::get),
        defaults.drill_max_age.unwrap_or_default(),
    )?;
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
    let arrivals = resolver.value(
        "out_of_order",
        None,
        &[],
        |section| section.out_of_order.map(arrivals_of),
        defaults.arrivals,
    )?;
    let allowed = resolver.in_file("variables.allow", |section| section.variables.allow.clone()).unwrap_or_default();
    let expect_tables =
        resolver.value("expect.tables", None, &[], |section| section.expect.tables.clone(), Vec::new())?;
    let expect_functions =
        resolver.value("expect.functions", None, &[], |section| section.expect.functions.clone(), Vec::new())?;
    let expect_policies =
        resolver.value("expect.policies", None, &[], |section| section.expect.policies.clone(), Vec::new())?;
    let expect_not_valid =
        resolver.value("expect.not_valid", None, &[], |section| section.expect.not_valid.clone(), Vec::new())?;
    let postgrest_notify =
        resolver.value("postgrest.notify", None, &[], |section| section.postgrest.notify, defaults.postgrest_notify)?;
    let checks_dir = resolver.path("expect.checks", None, base, |section| section.expect.checks.clone())?;
    let logs_dir = resolver.path("logs.dir", None, base, |section| section.logs.dir.clone())?;

    let lint = lint_settings(resolver, &defaults)?;

    let on_changed_is_default = on_changed.is_none();
    Ok((
        Settings {
            database_url,
            maintenance_db,
            migrations_dir,
            order,
            layout,
            store,
            environment: defaults.environment,
            key: None,
            recovery_keys: Vec::new(),
            offline_keys: Vec::new(),
            pg_bin,
            parallel,
            backup,
            retention,
            timeouts,
            retry,
            health: Vec::new(),
            drill_max_age: (drill_max_age > Duration::ZERO).then_some(drill_max_age),
            on_failure,
            writes,
            hooks,
            // Their values come from the environment, which is read last.
            variables: allowed.into_iter().map(|name| (name, None)).collect(),
            arrivals,
            on_changed: on_changed.unwrap_or(defaults.on_changed),
            expect_tables,
            expect_functions,
            expect_policies,
            expect_not_valid,
            postgrest_notify,
            checks_dir,
            logs_dir,
            lint,
        },
        on_changed_is_default,
    ))
}

fn lint_settings(resolver: &mut Resolver<'_>, defaults: &Settings) -> Result<LintSettings> {
    let levels =
        resolver.value("validate.rules", None, &[], |section| section.validate.rules.clone(), BTreeMap::new())?;
    for (id, level) in &levels {
        if let Some(why) = lint::refuse_level(id, *level) {
            return Err(Error::usage(format!("`validate.rules`: {why}")));
        }
    }
    let large_table_rows = resolver.value(
        "validate.large_table_rows",
        None,
        &[],
        |section| section.validate.large_table_rows,
        defaults.lint.large_table_rows,
    )?;
    Ok(LintSettings { levels, large_table_rows })
}

/// Each is a session at the server.
const MOST_BESIDE: u32 = 64;

/// Each has some megabytes of its own.
const MOST_THREADS: u32 = 64;

fn backup_settings(resolver: &mut Resolver<'_>, typed: &Overrides, defaults: &Settings) -> Result<BackupSettings> {
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
    let threads =
        resolver.value("backup.threads", None, &[], |section| section.backup.threads, defaults.backup.threads)?;
    if threads > MOST_THREADS {
        return Err(Error::usage(format!("`backup.threads` is {threads}, and {MOST_THREADS} is the most")));
    }
    let jobs = resolver.value("backup.jobs", typed.jobs, &[], |section| section.backup.jobs, defaults.backup.jobs)?;
    Ok(BackupSettings {
        compression_level,
        threads,
        jobs: at_least_one("backup.jobs", jobs)?,
        timeout: resolver.value(
            "backup.timeout",
            None,
            &[],
            |section| section.backup.timeout.map(file::Unit::get),
            defaults.backup.timeout,
        )?,
        exclude_schemas: resolver
            .optional("backup.exclude_schemas", None, &[], |section| section.backup.exclude_schemas.clone())?,
    })
}

fn timeouts(resolver: &mut Resolver<'_>, typed: &Overrides, defaults: &Settings) -> Result<Timeouts> {
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
    Ok(Timeouts {
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
        restore: resolver.value(
            "timeouts.restore",
            None,
            NONE,
            |section| section.timeouts.restore.map(file::Unit::get),
            standard.restore,
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
        steps: Default::default(),
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
            commands.as_ref().map(super::hooks::Commands::to_hooks)
        });
        if let Some(steps) = found {
            let steps = steps.map_err(|why| Error::usage(format!("`{key}`: {why}")))?;
            hooks.steps.insert(name.to_owned(), steps);
        }
    }
    Ok(hooks)
}

fn on_changed_of(word: OnChangedWord) -> OnChanged {
    match word {
        OnChangedWord::Error => OnChanged::Error,
        OnChangedWord::Rerun => OnChanged::Rerun,
        OnChangedWord::Warn => OnChanged::Warn,
    }
}

fn arrivals_of(word: OutOfOrderWord) -> Arrivals {
    match word {
        OutOfOrderWord::Linear => Arrivals::Linear,
        OutOfOrderWord::LinearSkip => Arrivals::LinearSkip,
        OutOfOrderWord::NonLinear => Arrivals::NonLinear,
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
