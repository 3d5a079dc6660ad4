//! `adopt`: take over what another tool recorded.

use ripcord::Result;
use ripcord::ops::RunReport;
use ripcord::ops::adopt::{self, Request};
use ripcord::ops::report::Outcome;

use crate::app::{App, Exit};
use crate::args::AdoptArgs;
use crate::config::Verbosity;

/// Runs it; with `--dry-run` it says what would be recorded.
pub async fn run(app: &App, args: AdoptArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let dry_run = app.resolved.dry_run;
    let adopted = adopt::adopt(&ctx, &Request { from: args.from, compat: args.compat, dry_run }).await?;
    adopted.tables.iter().for_each(|table| app.out.say(&format!("table {table}")));
    let verbose = dry_run || app.out.style().verbosity == Verbosity::Verbose;
    for line in adopted.lines.iter().filter(|line| verbose || line.state != "applied" || line.checksum != "same") {
        let file = match (&line.file, line.checksum) {
            (None, _) => "its file is gone".to_owned(),
            (Some(file), "same") => format!("`{file}`, unchanged"),
            (Some(file), "changed") => format!("`{file}`, CHANGED since"),
            (Some(file), _) => format!("`{file}`, not compared"),
        };
        let state = if line.state == "there" { "recorded already" } else { line.state.as_str() };
        app.out.say(&format!("{}: {state}; {file}", line.migration));
    }
    adopted.notes.iter().for_each(|note| app.out.warn(note));
    adopted.made.iter().for_each(|made| app.out.say(made));
    if !adopted.pending.is_empty() {
        app.out.say(&format!("{} pending: {}", adopted.pending.len(), adopted.pending.join(", ")));
    }
    let count = |state: &str| adopted.lines.iter().filter(|line| line.state == state).count();
    let recorded = adopted.lines.len() - count("there");
    let outcome = if recorded == 0 && adopted.made.is_empty() { Outcome::NothingToDo } else { Outcome::Done };
    let state = match dry_run {
        true => "unchanged, this was a dry run".to_owned(),
        false => format!(
            "unchanged; {recorded} rows of another tool's history recorded: {} applied, {} failed, {} rolled back",
            count("applied"),
            count("failed"),
            count("rolled_back")
        ),
    };
    let mut report = RunReport::new("adopt", outcome, state);
    if !dry_run {
        report = report.hint("ripcord status");
    }
    report.proof = serde_json::to_value(&adopted).unwrap_or_default();
    app.out.report(&report);
    Ok(Exit::DONE)
}
