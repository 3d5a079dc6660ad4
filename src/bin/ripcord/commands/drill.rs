//! `drill`: restore into a scratch database, compare, time and record.

use std::io::Write;

use ripcord::ops::drill::{self, Request};
use ripcord::ops::report::Outcome;
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::DrillArgs;

/// Runs it; exit code 6 when what comes back is not what was backed up.
pub async fn run(app: &App, args: DrillArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    // Opened first: a bad path fails before the long work.
    let file = match &args.output {
        Some(path) => Some(
            std::fs::File::create(path)
                .map_err(|error| Error::usage(format!("`{}` cannot be written", path.display())).because(error))?,
        ),
        None => None,
    };
    let server = match &args.server {
        Some(url) => Some(app.context_on(url).await?),
        None => None,
    };
    let request = Request { selector: &args.id, from_database: None, keep: args.keep, server: server.as_ref() };
    let drilled = drill::drill(&ctx, &request).await;
    if let Some(mut file) = file {
        let evidence = match &drilled {
            Ok(evidence) => serde_json::to_value(evidence)
                .map_err(|error| Error::failed("the evidence cannot be written").because(error))?,
            Err(error) => serde_json::json!({
                "selector": args.id, "at": ripcord::clock::now(), "good": false, "error": app.out.scrubbed(&error.one_line()),
            }),
        };
        writeln!(file, "{evidence:#}")
            .and_then(|()| file.sync_all())
            .map_err(|error| Error::failed("the evidence was not written completely").because(error))?;
    }
    let evidence = drilled?;
    app.out.data(&format!(
        "backup `{}` holds: {} rows in {} tables came back as they were, in {} ms",
        evidence.backup, evidence.proof.rows_compared, evidence.proof.tables_compared, evidence.duration_ms
    ));
    if let Some(kept) = &evidence.kept {
        app.out.say(&format!(
            "the scratch database is kept as `{kept}`; when it is not needed any more: ripcord aside drop {kept}"
        ));
    }
    app.out.items("drill", Outcome::Done, &[evidence]);
    Ok(Exit::DONE)
}
