//! `drill`: restore into a scratch database, compare, time and record.

use std::io::Write;

use ripcord::ops::drill;
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
    let evidence = drill::drill(&ctx, &args.id, None, args.keep).await?;
    if let Some(mut file) = file {
        let text = serde_json::to_string_pretty(&evidence)
            .map_err(|error| Error::failed("the evidence cannot be written").because(error))?;
        writeln!(file, "{text}")
            .and_then(|()| file.sync_all())
            .map_err(|error| Error::failed("the evidence was not written completely").because(error))?;
    }
    app.out.data(&format!(
        "backup `{}` holds: {} rows in {} tables came back as they were, in {} ms",
        evidence.backup, evidence.proof.rows_compared, evidence.proof.tables_compared, evidence.duration_ms
    ));
    app.out.items("drill", Outcome::Done, &[evidence]);
    Ok(Exit::DONE)
}
