//! `validate`: what is wrong with the migrations before anything is touched.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use ripcord::migration::Variables;
use ripcord::migration::lint::{self, Finding, Policy, Severity, rules};
use ripcord::migration::source::{self, Folder};
use ripcord::ops::judge;
use ripcord::ops::report::Outcome;
use ripcord::{Error, Result};
use serde_json::json;

use crate::app::{App, Exit};
use crate::args::{ValidateArgs, ValidateFormat};
use crate::config::Verbosity;

/// Where the rules' pages are, relative to the project.
const RULES_URI: &str = "https://docs.rs/crate/ripcord/latest/source/docs/rules";

/// Prints the findings; exit code 1 when one of them is an error.
pub async fn run(app: &App, args: ValidateArgs) -> Result<Exit> {
    // Opened first: a bad path fails before the work.
    let file = match &args.output {
        Some(path) => Some(
            std::fs::File::create(path)
                .map_err(|error| Error::usage(format!("`{}` cannot be written", path.display())).because(error))?,
        ),
        None => None,
    };
    let policy = Policy::new(app.settings().environment.protected, &app.settings().lint);
    let policy = match args.only {
        Some(group) => policy.asking(group),
        None => policy,
    };
    let mut folder = read(app)?;
    if args.fix {
        let ctx = app.context().await?;
        for mended in judge::mend(&ctx, &folder, &policy).await? {
            app.out.say(&format!("mended {mended}"));
        }
        folder = read(app)?;
    }
    for (path, why) in &folder.skipped {
        app.out.note(&format!("`{}` is left out: {why}", path.display()));
    }
    let mut findings = match args.online {
        true => judge::online(&app.context().await?, &folder, &policy).await?,
        false => lint::lint_folder(&folder, &policy),
    };
    if let Some(only) = args.only {
        findings.retain(|finding| rules::rule(finding.rule).is_some_and(|rule| rule.group == only));
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));

    let text = match args.format.unwrap_or(ValidateFormat::Text) {
        // A file is searched, not read.
        ValidateFormat::Text => text(&findings, file.is_some() || app.out.style().verbosity == Verbosity::Verbose),
        ValidateFormat::Json => pretty(&findings)?,
        ValidateFormat::Markdown => markdown(&findings),
        ValidateFormat::Sarif => pretty(&sarif(&findings))?,
        ValidateFormat::Github => github(&findings),
    };
    match file {
        Some(mut file) => {
            let text = app.out.scrubbed(&text);
            writeln!(file, "{text}")
                .and_then(|()| file.sync_all())
                .map_err(|error| Error::failed("the findings were not written completely").because(error))?;
        }
        None if text.is_empty() => {}
        None => app.out.data(&text),
    }
    app.out.say(&format!(
        "{} migrations checked in `{}`: {errors} errors, {warnings} warnings, {} notes",
        folder.migrations.len(),
        folder.path.display(),
        findings.len() - errors - warnings
    ));
    let outcome = match errors {
        0 => Outcome::Done,
        _ => Outcome::Invalid,
    };
    app.out.items("validate", outcome, &findings);
    Ok(Exit(outcome.exit_code()))
}

/// The folder as the linter reads it: with names in place of variables.
pub(super) fn read(app: &App) -> Result<Folder> {
    let settings = app.settings();
    let folder = source::read(&app.migrations_dir()?, settings.layout.as_deref())?;
    let mut folder = source::in_order(folder, &settings.order)?;
    let variables = Variables::new(app.settings().variables.clone());
    folder.migrations = folder.migrations.iter().map(|migration| migration.with_names(&variables)).collect();
    Ok(folder)
}

fn pretty(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Error::failed("the findings cannot be written as JSON").because(error))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// `file:line:column: error: message (rule)`, which editors and terminals turn into links. Unless `whole`, what one
/// rule has against file after file is counted, and the same advice is given once.
pub(super) fn text(findings: &[Finding], whole: bool) -> String {
    let mut lines = Vec::new();
    let (shown, rest) = match whole {
        true => (findings.iter().collect(), Vec::new()),
        false => lint::shown(findings),
    };
    let mut advised = BTreeSet::new();
    for finding in shown {
        let mut place = finding.file.display().to_string();
        for number in [finding.line, finding.column].into_iter().flatten() {
            place.push_str(&format!(":{number}"));
        }
        let severity = word(finding.severity);
        lines.push(format!("{place}: {severity}: {} ({})", finding.message, finding.rule));
        let help = finding.help.iter().filter(|help| advised.insert(*help) || whole);
        lines.extend(help.map(|help| format!("  help: {help}")));
    }
    lines.extend(rest.iter().map(lint::Rest::to_string));
    if !rest.is_empty() {
        lines.push("all of them: ripcord validate -v".to_owned());
    }
    lines.join("\n")
}

fn markdown(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "No findings.".to_owned();
    }
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut lines = vec!["| severity | file | line | message | rule |".to_owned(), "|---|---|---|---|---|".to_owned()];
    for finding in findings {
        lines.push(format!(
            "| {} | {} | {} | {} | {} |",
            word(finding.severity),
            cell(&finding.file.display().to_string()),
            finding.line.map(|line| line.to_string()).unwrap_or_default(),
            cell(&finding.message),
            finding.rule
        ));
    }
    lines.join("\n")
}

/// SARIF 2.1.0, as code hosts read it: the rules that fired, and each finding with its place relative to where the
/// command runs.
fn sarif(findings: &[Finding]) -> serde_json::Value {
    let mut ids: Vec<&str> = findings.iter().map(|finding| finding.rule).collect();
    ids.sort_unstable();
    ids.dedup();
    let described = ids.iter().map(|id| {
        let summary = rules::rule(id).map_or(*id, |rule| rule.summary);
        json!({ "id": id, "shortDescription": { "text": summary }, "helpUri": format!("{RULES_URI}/{id}.md") })
    });
    let results = findings.iter().map(|finding| {
        let help = finding.help.iter().map(|help| format!(" Help: {help}")).collect::<String>();
        let mut place = json!({ "artifactLocation": { "uri": uri(&finding.file) } });
        if let Some(line) = finding.line {
            place["region"] = json!({ "startLine": line, "startColumn": finding.column.unwrap_or(1) });
        }
        json!({
            "ruleId": finding.rule,
            "ruleIndex": ids.binary_search(&finding.rule).unwrap_or_default(),
            "level": word(finding.severity),
            "message": { "text": format!("{}{help}", finding.message) },
            "locations": [{ "physicalLocation": place }],
        })
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "ripcord",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": described.collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

/// A relative reference, its bytes escaped where URIs want it.
fn uri(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path).to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// GitHub's workflow commands; `%`, line ends, and in properties `:` and `,` are escaped.
fn github(findings: &[Finding]) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut lines = Vec::new();
    for finding in findings {
        let severity = match finding.severity {
            Severity::Note => "notice",
            other => word(other),
        };
        let mut place = format!("file={}", property(&finding.file.display().to_string()));
        if let Some(line) = finding.line {
            place.push_str(&format!(",line={line}"));
        }
        if let Some(column) = finding.column {
            place.push_str(&format!(",col={column}"));
        }
        let title = property(finding.rule);
        lines.push(format!("::{severity} {place},title={title}::{}", data(&finding.message)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding {
            rule: "syntax",
            severity: Severity::Error,
            file: "migrations/0001_a,b.sql".into(),
            line: Some(7),
            column: Some(3),
            message: "expected `;`\n100% sure | really".to_owned(),
            help: Some("write one".to_owned()),
            table: None,
        }
    }

    #[test]
    fn findings_are_written_for_each_reader() {
        let findings = [finding()];
        assert!(text(&findings, false).starts_with("migrations/0001_a,b.sql:7:3: error: expected `;`"));
        assert!(text(&findings, false).ends_with("\n  help: write one"));
        let many = vec![Finding { severity: Severity::Note, ..finding() }; 500];
        assert_eq!(text(&many, true).matches("note: expected").count(), 500);
        assert_eq!(text(&many, true).matches("help: ").count(), 500);
        let short = text(&many, false);
        assert_eq!((short.matches("note: expected").count(), short.matches("help: ").count()), (5, 1));
        assert!(
            short.ends_with("\nand 495 more notes of `syntax` in 1 file\nall of them: ripcord validate -v"),
            "{short}"
        );
        assert_eq!(github(&many).lines().count(), 500);
        assert_eq!(
            github(&findings),
            "::error file=migrations/0001_a%2Cb.sql,line=7,col=3,title=syntax::expected `;`%0A100%25 sure | really"
        );
        assert!(markdown(&findings).contains("| expected `;` 100% sure \\| really | syntax |"));
        assert_eq!(markdown(&[]), "No findings.");
    }

    #[test]
    fn sarif_names_rules_and_places() {
        let log = sarif(&[finding(), Finding { line: None, column: None, rule: "destructive", ..finding() }]);
        let run = &log["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"][1]["id"], "syntax");
        let first = &run["results"][0];
        assert_eq!((&first["ruleIndex"], &first["level"]), (&1.into(), &"error".into()));
        let place = &first["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "migrations/0001_a,b.sql");
        assert_eq!((&place["region"]["startLine"], &place["region"]["startColumn"]), (&7.into(), &3.into()));
        assert!(run["results"][1]["locations"][0]["physicalLocation"]["region"].is_null());
        assert_eq!(uri(Path::new("./a b/ü.sql")), "a%20b/%C3%BC.sql");
    }
}
