//! `validate`: what is wrong with the migrations before anything is touched.

use std::io::Write;

use ripcord::migration::lint::{self, Finding, Severity};
use ripcord::migration::source;
use ripcord::ops::report::Outcome;
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::{ValidateArgs, ValidateFormat};

/// Prints the findings; exit code 1 when one of them is an error.
pub fn run(app: &App, args: ValidateArgs) -> Result<Exit> {
    // Opened first: a bad path fails before the work.
    let file = match &args.output {
        Some(path) => Some(
            std::fs::File::create(path)
                .map_err(|error| Error::usage(format!("`{}` cannot be written", path.display())).because(error))?,
        ),
        None => None,
    };
    let settings = app.settings();
    let folder = source::read(&app.migrations_dir()?, settings.layout.as_deref())?;
    let folder = source::in_order(folder, &settings.order)?;
    for (path, why) in &folder.skipped {
        app.out.note(&format!("`{}` is left out: {why}", path.display()));
    }
    let findings = lint::lint_folder(&folder, app.settings().environment.protected);
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();

    let text = match args.format.unwrap_or(ValidateFormat::Text) {
        ValidateFormat::Text => text(&findings),
        ValidateFormat::Json => serde_json::to_string_pretty(&findings)
            .map_err(|error| Error::failed("the findings cannot be written as JSON").because(error))?,
        ValidateFormat::Markdown => markdown(&findings),
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
        "{} migrations checked in `{}`: {errors} errors, {} other findings",
        folder.migrations.len(),
        folder.path.display(),
        findings.len() - errors
    ));
    let outcome = match errors {
        0 => Outcome::Done,
        _ => Outcome::Invalid,
    };
    app.out.items("validate", outcome, &findings);
    Ok(Exit(outcome.exit_code()))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// `file:line:column: error: message (rule)`, which editors and terminals turn into links.
fn text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let mut place = finding.file.display().to_string();
        for number in [finding.line, finding.column].into_iter().flatten() {
            place.push_str(&format!(":{number}"));
        }
        let severity = word(finding.severity);
        lines.push(format!("{place}: {severity}: {} ({})", finding.message, finding.rule));
        lines.extend(finding.help.iter().map(|help| format!("  help: {help}")));
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
        }
    }

    #[test]
    fn findings_are_written_for_each_reader() {
        let findings = [finding()];
        assert!(text(&findings).starts_with("migrations/0001_a,b.sql:7:3: error: expected `;`"));
        assert!(text(&findings).ends_with("\n  help: write one"));
        assert_eq!(
            github(&findings),
            "::error file=migrations/0001_a%2Cb.sql,line=7,col=3,title=syntax::expected `;`%0A100%25 sure | really"
        );
        assert!(markdown(&findings).contains("| expected `;` 100% sure \\| really | syntax |"));
        assert_eq!(markdown(&[]), "No findings.");
    }
}
