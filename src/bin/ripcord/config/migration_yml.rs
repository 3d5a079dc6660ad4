//! `migration.config.yml`, which one of the guides has: read where there is no `ripcord.toml`, and made into what that
//! would say.

use std::path::Path;

use ripcord::{Error, Result};
use yaml_rust2::{Yaml, YamlLoader};

use super::environments::canonical;
use super::file::{File, nearest};

/// The files' names.
pub const NAMES: [&str; 2] = ["migration.config.yml", "migration.config.yaml"];

const KEYS: [&str; 5] = ["skipBackup", "skipValidation", "autoRollback", "maxDuration", "requireApproval"];

/// Reads it. The second value: what is not done as it says.
pub fn parse(path: &Path, text: &str) -> Result<(File, Vec<String>)> {
    let name = path.display();
    let wrong = |what: String| Error::usage(format!("`{name}`: {what}"));
    let documents = YamlLoader::load_from_str(text).map_err(|error| {
        let marker = error.marker();
        Error::usage(format!("`{name}` line {}, column {}: {}", marker.line(), marker.col() + 1, error.info()))
    })?;
    let mut notes = Vec::new();
    let mut toml = String::new();
    let top = match documents.first() {
        Some(Yaml::Hash(top)) => top.clone(),
        None | Some(Yaml::Null) => Default::default(),
        Some(_) => return Err(wrong("`environments:` is expected".to_owned())),
    };
    for (key, value) in &top {
        let key = key.as_str().ok_or_else(|| wrong("a key that is no text".to_owned()))?;
        if key != "environments" {
            notes.push(format!("`{name}`: `{key}` is not known to ripcord, and has no effect"));
            continue;
        }
        let environments = value.as_hash().ok_or_else(|| wrong("`environments` holds no environments".to_owned()))?;
        for (environment, values) in environments {
            let environment = environment.as_str().unwrap_or_default();
            if environment.is_empty() || !environment.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
                return Err(wrong(format!("`{environment}` is no name of an environment")));
            }
            let empty = Default::default();
            let values = match values {
                Yaml::Hash(values) => values,
                Yaml::Null => &empty,
                _ => return Err(wrong(format!("environment `{environment}` holds no keys"))),
            };
            toml.push_str(&environment_toml(environment, values, &mut notes).map_err(wrong)?);
        }
    }
    Ok((File::parse(path, toml)?, notes))
}

fn environment_toml(
    environment: &str,
    values: &yaml_rust2::yaml::Hash,
    notes: &mut Vec<String>,
) -> Result<String, String> {
    let mut policy = String::new();
    let mut tables = String::new();
    for (key, value) in values {
        let key = key.as_str().unwrap_or_default();
        let flag = || {
            value.as_bool().ok_or_else(|| format!("`{key}` of environment `{environment}` must be `true` or `false`"))
        };
        match key {
            "skipBackup" if flag()? => {
                policy.push_str("allow_skip_backup = true\n");
                match canonical(environment) {
                    "development" => policy.push_str("skip_backup = true\n"),
                    _ => notes.push(format!(
                        "`skipBackup` of environment `{environment}` allows `--skip-backup`; by itself it takes none away"
                    )),
                }
            }
            "skipBackup" => policy.push_str("allow_skip_backup = false\n"),
            "skipValidation" => {
                if flag()? {
                    notes.push(format!(
                        "`skipValidation` of environment `{environment}` has no effect: ripcord always validates"
                    ));
                }
            }
            "autoRollback" => {
                let word = if flag()? { "auto" } else { "stop" };
                tables.push_str(&format!("[environments.{environment}.recovery]\non_failure = \"{word}\"\n"));
            }
            "maxDuration" => {
                let milliseconds = value.as_i64().filter(|number| *number > 0).ok_or_else(|| {
                    format!("`maxDuration` of environment `{environment}` must be a number of milliseconds")
                })?;
                tables.push_str(&format!("[environments.{environment}.timeouts]\nmigration = \"{milliseconds}ms\"\n"));
            }
            "requireApproval" => policy.push_str(&format!("approval = {}\n", flag()?)),
            _ => {
                let near = nearest(key, &KEYS).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return Err(format!("environment `{environment}` has an unknown key `{key}`{near}"));
            }
        }
    }
    Ok(format!("[environments.{environment}]\n{policy}{tables}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(File, Vec<String>)> {
        parse(Path::new("migration.config.yml"), text)
    }

    #[test]
    fn the_guides_table_is_understood() {
        let text = "# c\nenvironments:\n  development:\n    skipBackup: true\n    autoRollback: true\n    maxDuration: 60000\n\n  production:\n    skipBackup: false\n    autoRollback: false\n    requireApproval: true\n";
        let (file, notes) = read(text).unwrap();
        assert!(notes.is_empty());
        let environments = file.section.environments.unwrap().into_inner();
        let development = &environments["development"];
        assert_eq!(development.timeouts.migration.unwrap().get(), std::time::Duration::from_secs(60));
        assert_eq!(development.skip_backup.as_ref().map(|value| *value.get_ref()), Some(true));
        let production = &environments["production"];
        assert_eq!(production.recovery.on_failure, Some(ripcord::settings::OnFailure::Stop));
        assert_eq!(production.approval.as_ref().map(|value| *value.get_ref()), Some(true));
        assert!(read("").is_ok() && read("environments:\n  qa:\n").is_ok());
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        let (_, notes) =
            read("environments:\n  staging:\n    skipBackup: true\n    skipValidation: true\nother: 1\n").unwrap();
        assert_eq!(notes.len(), 3, "{notes:?}");
        for (text, says) in [
            ("environments:\n  qa:\n    skipbackup: true\n", "did you mean `skipBackup`?"),
            ("environments:\n  qa:\n    skipBackup: 3\n", "must be `true` or `false`"),
            ("environments:\n  qa:\n    maxDuration: 10s\n", "number of milliseconds"),
            ("environments: [\n", "line "),
            ("environments:\n  \"a b\": {}\n", "no name of an environment"),
            ("- 1\n", "is expected"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
