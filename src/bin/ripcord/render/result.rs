//! How a command ended: the last lines for people, the last line for programs.

use ripcord::Error;
use ripcord::error::Kind;
use ripcord::ops::report::{Outcome, RunReport};
use serde::Serialize;
use serde_json::{Value, json};

/// The error as people read it: the fact, its causes, the state of the database, the next command.
pub fn error_lines(error: &Error, database: Option<&str>) -> Vec<String> {
    let mut lines = fact_lines(error);
    lines.extend(state_lines(database, None));
    lines.extend(hint_lines(error.hint_text()));
    lines
}

fn fact_lines(error: &Error) -> Vec<String> {
    let causes = error.causes().iter();
    std::iter::once(format!("error: {}", error.message()))
        .chain(causes.map(|cause| format!("  because {cause}")))
        .collect()
}

/// A report as people read it.
pub fn report_lines(report: &RunReport) -> Vec<String> {
    let failed = report.exit_code != 0;
    let backup = report.backup_id.map(|id| id.to_string());
    let mut lines = match (&report.failure, &report.error) {
        (Some(failure), _) => fact_lines(failure),
        (None, Some(error)) => vec![format!("error: {error}")],
        (None, None) => Vec::new(),
    };
    if failed || !report.database.is_empty() {
        lines.extend(state_lines(Some(&report.database), backup.as_deref()));
    }
    let hint = report.hint.as_deref().or_else(|| report.failure.as_ref().and_then(Error::hint_text));
    lines.extend(hint_lines(hint));
    lines
}

fn state_lines(database: Option<&str>, backup: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(state) = database.filter(|state| !state.is_empty()) {
        lines.push(format!("database: {state}"));
    }
    if let Some(backup) = backup {
        lines.push(format!("backup: `{backup}`"));
    }
    lines
}

fn hint_lines(hint: Option<&str>) -> Vec<String> {
    match hint {
        Some(hint) => vec![String::new(), format!("hint: {hint}")],
        None => Vec::new(),
    }
}

/// What an error alone tells of the database, by what its kind promises.
pub fn database_after(error: &Error) -> Option<&'static str> {
    match error.kind() {
        Kind::Failed | Kind::Usage | Kind::Locked | Kind::Refused => Some("unchanged"),
        Kind::NotRecovered => Some("UNKNOWN, do not retry"),
        // Which side of the change the proof failed on, the error's text says.
        Kind::Verification => None,
    }
}

/// An error as a program reads it: the same shape as a report's.
pub fn error_json(command: &str, error: &Error, database: Option<&str>) -> Value {
    let outcome = match error.kind() {
        Kind::Failed => json!(Outcome::Unchanged),
        // Nothing was begun: no outcome of a run has this meaning.
        Kind::Usage => json!("usage"),
        Kind::Locked => json!(Outcome::Locked),
        Kind::Verification => json!(Outcome::VerificationFailed),
        Kind::Refused => json!(Outcome::Refused),
        Kind::NotRecovered => json!(Outcome::NotRecovered),
    };
    json!({
        "event": "result",
        "command": command,
        "outcome": outcome,
        "exit_code": error.kind().exit_code(),
        "run_id": null,
        "backup_id": null,
        "batch": null,
        "database": database.unwrap_or_default(),
        "migrations": [],
        "proof": null,
        "writes_since_backup": null,
        "error": error.one_line(),
        "hint": error.hint_text(),
    })
}

/// A report as a program reads it.
pub fn report_json(report: &RunReport) -> Value {
    with_event("result", report)
}

/// A list as a program reads it.
pub fn list_json<T: Serialize>(command: &str, outcome: Outcome, items: &[T]) -> Value {
    json!({
        "event": "result",
        "command": command,
        "outcome": outcome,
        "exit_code": outcome.exit_code(),
        "items": items.iter().map(|item| serde_json::to_value(item).unwrap_or(Value::Null)).collect::<Vec<_>>(),
    })
}

/// One line of output. What kind of line it is comes first: people read it too.
pub fn line(mut value: Value) -> String {
    let Some(event) = value.as_object_mut().and_then(|fields| fields.remove("event")) else {
        return value.to_string();
    };
    let rest = value.to_string();
    match rest.strip_prefix('{') {
        Some("}") | None => format!("{{\"event\":{event}}}"),
        Some(rest) => format!("{{\"event\":{event},{rest}"),
    }
}

fn with_event(event: &str, value: &impl Serialize) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("event".to_owned(), Value::String(event.to_owned()));
    if let Ok(Value::Object(fields)) = serde_json::to_value(value) {
        object.extend(fields);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Error {
        Error::failed("migration `0042_orders` failed at line 7, column 3: relation \"user\" does not exist")
            .because("statement 2 of 3")
            .hint("ripcord status")
    }

    #[test]
    fn an_error_reads_as_people_expect_it() {
        assert_eq!(
            error_lines(&failure(), Some("unchanged")).join("\n"),
            "error: migration `0042_orders` failed at line 7, column 3: relation \"user\" does not exist\n\
             \x20 because statement 2 of 3\n\
             database: unchanged\n\
             \n\
             hint: ripcord status"
        );
    }

    #[test]
    fn a_report_ends_with_state_backup_and_one_command() {
        let id: ripcord::ids::BackupId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let report = RunReport {
            command: "apply".to_owned(),
            outcome: Outcome::Restored,
            exit_code: Outcome::Restored.exit_code(),
            run_id: None,
            backup_id: Some(id),
            batch: Some(4),
            database: format!("restored from backup `{id}`"),
            migrations: Vec::new(),
            proof: Value::Null,
            writes_since_backup: Some(0),
            error: Some(failure().one_line()),
            hint: Some("ripcord run show latest".to_owned()),
            failure: Some(failure()),
        };
        let lines = report_lines(&report);
        assert_eq!(
            lines[2..],
            [
                format!("database: restored from backup `{id}`"),
                format!("backup: `{id}`"),
                String::new(),
                "hint: ripcord run show latest".to_owned(),
            ]
        );
        let json = report_json(&report);
        assert_eq!(json["event"], "result");
        assert_eq!(json["outcome"], "restored");
        assert_eq!(json["exit_code"], 3);
        assert!(json.get("failure").is_none());
    }

    #[test]
    fn a_line_begins_with_its_event() {
        let value = json!({"a": 1, "event": "note"});
        assert_eq!(line(value.clone()), r#"{"event":"note","a":1}"#);
        assert_eq!(serde_json::from_str::<Value>(&line(value.clone())).unwrap(), value);
        assert_eq!(line(json!({"event": "x"})), r#"{"event":"x"}"#);
    }

    #[test]
    fn an_error_has_a_reports_shape() {
        let json = error_json("apply", &failure(), Some("unchanged"));
        assert_eq!(json["outcome"], "unchanged");
        assert_eq!(json["exit_code"], 1);
        assert_eq!(json["hint"], "ripcord status");
        assert_eq!(error_json("x", &Error::usage("y"), None)["exit_code"], 2);
    }
}
