//! Health checks, from the file and from `--health-url`.

use std::time::Duration;

use ripcord::settings::{HealthCheck, HealthProbe, Settings};
use ripcord::{Error, Result};

use super::file::{File, HeaderValue, HealthTable, Scalar, Section};
use super::resolver::Resolver;
use super::variables::Variables;
use crate::args::Overrides;

/// Fills in the checks. Returns what is missing for asking them.
pub fn resolve(
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
            let (check, missing) = from_table(check.get_ref(), file, check.span().start, variables)?;
            resolver.record("health", subject(&check), &file.name);
            settings.health.push(check);
            incomplete = incomplete.or(missing);
        }
    }
    for url in &typed.health_urls {
        let check = from_url(url)?;
        resolver.record("health", subject(&check), "option");
        settings.health.push(check);
    }
    Ok(incomplete)
}

/// A check from one `[[health]]` at `start` in the file. The second error kind, a header whose variable
/// is not set, only matters to commands that ask: it is returned beside the check.
fn from_table(
    table: &HealthTable,
    file: &File,
    start: usize,
    variables: &Variables,
) -> Result<(HealthCheck, Option<Error>)> {
    let mut missing = None;
    let probe = match (&table.url, &table.command, &table.sql) {
        (Some(url), None, None) => {
            check_url(url).map_err(|why| file.wrong_at(start, why))?;
            let mut headers = Vec::new();
            for (name, value) in &table.headers {
                match value {
                    HeaderValue::Plain(text) => headers.push((name.clone(), text.clone().into())),
                    HeaderValue::Variable(variable) => match variables.get(&variable.env) {
                        Some(found) => headers.push((name.clone(), found.text.to_owned().into())),
                        None => {
                            missing = Some(
                                file.wrong_at(
                                    start,
                                    format!("header `{name}` needs variable `{}`, which is not set", variable.env),
                                )
                                .hint(format!("export {}=…", variable.env)),
                            );
                        }
                    },
                }
            }
            HealthProbe::Url {
                url: url.clone(),
                expect_status: table.expect_status.clone().unwrap_or_default(),
                expect_json: table
                    .expect_json
                    .iter()
                    .flatten()
                    .map(|(pointer, value)| (pointer.clone(), text_of(value)))
                    .collect(),
                expect_text: table.expect_text.clone(),
                headers,
            }
        }
        (None, Some(command), None) => HealthProbe::Command(command.clone()),
        (None, None, Some(sql)) => HealthProbe::Sql(sql.clone()),
        _ => {
            return Err(file.wrong_at(start, "a health check has exactly one of `url`, `command` and `sql`"));
        }
    };
    if !matches!(probe, HealthProbe::Url { .. })
        && (table.expect_status.is_some()
            || table.expect_json.is_some()
            || table.expect_text.is_some()
            || !table.headers.is_empty())
    {
        return Err(file.wrong_at(
            start,
            "`expect_status`, `expect_json`, `expect_text` and `headers` belong to a check with a `url`",
        ));
    }
    if let Some(pointer) = table
        .expect_json
        .iter()
        .flatten()
        .map(|(pointer, _)| pointer)
        .find(|pointer| !pointer.is_empty() && !pointer.starts_with('/'))
    {
        return Err(file.wrong_at(start, format!("`{pointer}` is not a JSON pointer: write `/{pointer}`")));
    }
    let mut check = with_standard_pace(probe);
    check.successes = table.successes.unwrap_or(check.successes).max(1);
    let pace = [
        (&table.interval, &mut check.interval),
        (&table.deadline, &mut check.deadline),
        (&table.timeout, &mut check.timeout),
    ];
    for (written, value) in pace {
        if let Some(duration) = written {
            *value = duration.get();
        }
    }
    Ok((check, missing))
}

/// A check of one address, with nothing else said.
fn from_url(url: &str) -> Result<HealthCheck> {
    check_url(url).map_err(Error::usage)?;
    Ok(with_standard_pace(HealthProbe::Url {
        url: url.to_owned(),
        expect_status: Vec::new(),
        expect_json: Default::default(),
        expect_text: None,
        headers: Vec::new(),
    }))
}

/// What is asked, for people.
fn subject(check: &HealthCheck) -> String {
    match &check.probe {
        HealthProbe::Url { url, .. } => crate::render::scrub::url_for_people(url),
        HealthProbe::Command(command) => format!("command `{command}`"),
        HealthProbe::Sql(sql) => format!("query `{sql}`"),
    }
}

fn with_standard_pace(probe: HealthProbe) -> HealthCheck {
    HealthCheck {
        probe,
        successes: 3,
        interval: Duration::from_secs(2),
        deadline: Duration::from_secs(120),
        timeout: Duration::from_secs(5),
    }
}

fn check_url(url: &str) -> Result<(), String> {
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(())
    } else {
        Err(format!(
            "`{}` is not an address that begins with `http://` or `https://`",
            crate::render::scrub::url_for_people(url)
        ))
    }
}

fn text_of(value: &Scalar) -> String {
    match value {
        Scalar::Text(text) => text.clone(),
        Scalar::Truth(truth) => truth.to_string(),
        Scalar::Number(number) => number.to_string(),
    }
}
