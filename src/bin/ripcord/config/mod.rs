//! From what was typed, the variables and `ripcord.toml` to [`Settings`]. Everything that knows of a
//! variable or of the file stands in this folder.

pub mod dotenv;
pub mod environments;
pub mod file;
pub mod health;
mod hooks;
pub mod key;
mod migration_yml;
pub mod resolver;
mod supabase;
pub mod units;
mod values;
pub mod variables;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use ripcord::settings::Settings;
use ripcord::{Error, Result};
use secrecy::ExposeSecret;

use crate::args::Overrides;
use file::{File, Section};
use resolver::{Entry, Guide, Resolver};
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
    /// Why one of the recovery keys that the file names is not there.
    pub why_no_recovery_key: Option<Error>,
    /// Why there is no database although something was given that looks like one.
    pub why_no_database: Option<Error>,
    /// The variables, for libpq's.
    pub variables: Variables,
    /// The folder that `.env`, `backups` and the migrations are looked for in.
    pub base: PathBuf,
}

/// Resolves. `cwd` is the current folder.
pub fn resolve(typed: &Overrides, mut variables: Variables, cwd: &Path) -> Result<Resolved> {
    let mut first_notes = Vec::new();
    let file = read_file(typed, &variables, cwd, &mut first_notes)?;
    // Relative to the current folder as long as the file lies there, so that messages stay short.
    let base = match &file {
        Some(file) => file.base.clone(),
        None => PathBuf::new(),
    };
    let (named, name_source) = environment_name(typed, &variables);
    let (mut environment, table) = environments::resolve(named.as_deref(), file.as_ref())?;

    let mut warnings = Vec::new();
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
    resolver.know(&["RIPCORD_CONFIG", "RIPCORD_ENV", "RIPCORD_ENVIRONMENT", "RIPCORD_FAULTS"]);
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

    let (mut settings, on_changed_is_default) =
        values::settings(&mut resolver, typed, &base, environment.name.as_deref())?;
    settings.environment = environment;
    for (name, value) in &mut settings.variables {
        *value = variables.get(name).map(|found| found.text.to_owned().into());
    }
    let (key, why_no_key) = key::resolve(&mut resolver, &variables, file.as_ref(), table)?;
    settings.key = key;
    let more = key::resolve_more(&mut resolver, &variables, file.as_ref(), table)?;
    (settings.recovery_keys, settings.offline_keys) = (more.recovery, more.offline);
    let why_no_recovery_key = more.why_none;
    let incomplete = health::resolve(&mut settings, &mut resolver, typed, &variables, file.as_ref(), table)?;
    let why_no_database = supabase::database_url(&mut settings, &mut resolver, &variables);
    warnings.extend(supabase::direct_url(&mut settings, &mut resolver, &variables));
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
    let skip_by_file = table.and_then(|table| table.skip_backup.as_ref()).is_some_and(|skip| *skip.get_ref())
        && settings.environment.allow_skip_backup;
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
    warnings.extend(resolver.unknown_variables());
    first_notes.append(&mut resolver.notes);
    let entries = resolver.entries;

    Ok(Resolved {
        settings,
        dry_run: typed.dry_run || dry_run_variable,
        skip_backup: typed.skip_backup || skip_variable || skip_by_file,
        assume_yes: typed.global.yes || force_variable,
        limit,
        verbosity,
        on_changed_is_default,
        entries,
        notes: first_notes,
        warnings,
        incomplete,
        why_no_key,
        why_no_recovery_key,
        why_no_database,
        variables,
        base,
    })
}

fn read_file(typed: &Overrides, variables: &Variables, cwd: &Path, notes: &mut Vec<String>) -> Result<Option<File>> {
    let named = typed.global.config.clone().or_else(|| variables.of_process_only("RIPCORD_CONFIG").map(PathBuf::from));
    let path = match named {
        Some(path) => path,
        // One that nobody named need not be there.
        None if cwd.join(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
        None => match migration_yml::NAMES.iter().find(|name| cwd.join(name).exists()) {
            Some(name) => PathBuf::from(name),
            None => return Ok(None),
        },
    };
    let text = std::fs::read_to_string(cwd.join(&path)).map_err(|error| {
        Error::usage(format!("`{}` cannot be read", path.display())).because(error).hint("ripcord init")
    })?;
    if path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml") {
        let (file, mut told) = migration_yml::parse(&path, &text)?;
        notes.push(format!("using `{}`, since there is no {DEFAULT_FILE}", path.display()));
        notes.append(&mut told);
        return Ok(Some(file));
    }
    File::parse(&path, text).map(Some)
}

fn environment_name(typed: &Overrides, variables: &Variables) -> (Option<String>, &'static str) {
    if let Some(name) = &typed.global.env {
        return (Some(name.clone()), "option");
    }
    for (variable, source) in [
        ("RIPCORD_ENV", "RIPCORD_ENV from the environment"),
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

fn file_with_password(file: Option<&File>, table: Option<&Section>) -> Option<String> {
    let file = file?;
    let urls = [table.and_then(|table| table.database_url.as_ref()), file.section.database_url.as_ref()];
    urls.into_iter().flatten().any(|url| !crate::render::scrub::passwords_in(url).is_empty()).then(|| file.name.clone())
}

/// Strings that must never be printed, as far as configuration holds them.
pub fn secrets(resolved: &Resolved) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Some(url) = &resolved.settings.database_url {
        secrets.extend(crate::render::scrub::passwords_in(url.expose_secret()));
    }
    let values = resolved.settings.variables.values().flatten();
    secrets.extend(values.map(|value| value.expose_secret().to_owned()));
    for name in ["DATABASE_URL", "DIRECT_URL"] {
        let written =
            resolved.variables.get(name).map_or(Vec::new(), |url| crate::render::scrub::passwords_in(url.text));
        // Of the two only one is in effect, and it was taken above.
        secrets.extend(written.into_iter().filter(|secret| !secrets.contains(secret)).collect::<Vec<_>>());
    }
    for name in ["PGPASSWORD", "SUPABASE_SERVICE_KEY", "SUPABASE_DB_PASSWORD"] {
        secrets.extend(resolved.variables.get(name).map(|variable| variable.text.to_owned()));
    }
    for source in resolved.settings.key.iter().chain(&resolved.settings.recovery_keys) {
        if let ripcord::settings::KeySource::Hex { digits, .. } = source {
            secrets.push(digits.expose_secret().trim().to_owned());
        }
    }
    for check in &resolved.settings.health {
        if let ripcord::settings::HealthProbe::Url { url, headers, .. } = &check.probe {
            secrets.extend(crate::render::scrub::passwords_in(url));
            secrets.extend(headers.iter().map(|(_, value)| value.expose_secret().to_owned()));
        }
    }
    secrets
}
