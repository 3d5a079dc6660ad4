//! Environments: which one was named, and which rules hold in it.

use std::time::Duration;

use ripcord::settings::{Environment, Window};
use ripcord::{Error, Result};

use super::file::{File, Section, nearest};

const BUILT_IN: [&str; 3] = ["development", "staging", "production"];

/// `dev` and `prod` are other names for two that are built in.
pub fn canonical(name: &str) -> &str {
    match name {
        "dev" => "development",
        "prod" => "production",
        other => other,
    }
}

/// The environment's rules and its table in the file. Without a name the strict rules hold.
pub fn resolve<'a>(name: Option<&str>, file: Option<&'a File>) -> Result<(Environment, Option<&'a Section>)> {
    let Some(typed) = name else {
        return Ok((Environment::default(), None));
    };
    let name = canonical(typed);
    let tables = file.and_then(|file| file.section.environments.as_ref()).map(|tables| tables.get_ref());
    let mut found = tables.into_iter().flatten().filter(|(key, _)| canonical(key) == name);
    let table = found.next().map(|(_, table)| table);
    if let Some((second, _)) = found.next() {
        return Err(Error::usage(format!("environment `{name}` is defined twice, once as `{second}`"))
            .hint(format!("keep `[environments.{name}]`")));
    }
    if table.is_none() && !BUILT_IN.contains(&name) {
        let mut defined: Vec<&str> = BUILT_IN.to_vec();
        defined.extend(
            tables.into_iter().flatten().map(|(key, _)| key.as_str()).filter(|key| !BUILT_IN.contains(&canonical(key))),
        );
        let error = Error::usage(format!("environment `{typed}` is not defined"))
            .because(format!("defined are `{}`", defined.join("`, `")));
        return Err(match nearest(typed, &defined) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("add `[environments.{typed}]` to ripcord.toml")),
        });
    }
    let mut environment = built_in(name);
    if let Some(table) = table {
        let or = |value: &Option<toml::Spanned<bool>>, default: bool| {
            value.as_ref().map_or(default, |value| *value.get_ref())
        };
        environment.protected = or(&table.protected, environment.protected);
        environment.approval = or(&table.approval, environment.approval);
        environment.allow_skip_backup = or(&table.allow_skip_backup, environment.allow_skip_backup);
        if let (Some(windows), Some(file)) = (&table.maintenance_windows, file) {
            let parsed: std::result::Result<Vec<Window>, String> =
                windows.get_ref().iter().map(|text| Window::parse(text)).collect();
            environment.windows = parsed.map_err(|why| file.wrong_at(windows.span().start, why))?;
        }
    }
    Ok((environment, table))
}

/// Every environment is protected unless it is `development` or its table says otherwise: forgetting a
/// line must not open anything.
fn built_in(name: &str) -> Environment {
    Environment {
        name: Some(name.to_owned()),
        protected: name != "development",
        approval: name == "production",
        allow_skip_backup: name == "development",
        windows: Vec::new(),
    }
}

/// How long a migration may take in an environment, where nobody says otherwise: the guides' table.
pub fn longest_migration(name: Option<&str>) -> Option<Duration> {
    match name? {
        "development" => Some(Duration::from_secs(60)),
        "staging" => Some(Duration::from_secs(300)),
        "production" => Some(Duration::from_secs(600)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn file(text: &str) -> File {
        File::parse(Path::new("ripcord.toml"), text.to_owned()).unwrap()
    }

    fn rules(name: Option<&str>, text: &str) -> (bool, bool, bool) {
        let file = file(text);
        let (environment, _) = resolve(name, Some(&file)).unwrap();
        (environment.protected, environment.approval, environment.allow_skip_backup)
    }

    #[test]
    fn the_built_in_ones_have_their_rules() {
        assert_eq!(rules(None, ""), (true, false, false));
        assert_eq!(rules(Some("development"), ""), (false, false, true));
        assert_eq!(rules(Some("dev"), ""), (false, false, true));
        assert_eq!(rules(Some("staging"), ""), (true, false, false));
        assert_eq!(rules(Some("production"), ""), (true, true, false));
        assert_eq!(rules(Some("prod"), ""), (true, true, false));
    }

    #[test]
    fn a_table_overrides_and_defines() {
        let text = "[environments.prod]\napproval = false\n[environments.qa]\nprotected = false\n[environments.eu]\n";
        assert_eq!(rules(Some("production"), text), (true, false, false));
        assert_eq!(rules(Some("qa"), text), (false, false, false));
        assert_eq!(rules(Some("eu"), text), (true, false, false));
    }

    #[test]
    fn an_undefined_one_lists_what_is_defined() {
        let file = file("[environments.qa]\n");
        let error = resolve(Some("prodution"), Some(&file)).unwrap_err();
        assert_eq!(error.causes(), ["defined are `development`, `staging`, `production`, `qa`"]);
        assert_eq!(error.hint_text(), Some("did you mean `production`?"));
        let file = self::file("[environments.prod]\n[environments.production]\n");
        assert!(resolve(Some("prod"), Some(&file)).is_err());
    }
}
