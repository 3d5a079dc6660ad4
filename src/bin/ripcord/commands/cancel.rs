//! `cancel`: stop the run that is at work.

use ripcord::Result;
use ripcord::ops::cancel;

use crate::app::{App, Exit};
use crate::args::CancelArgs;

/// Runs it.
pub async fn run(app: &App, args: CancelArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let report = cancel::cancel(&ctx, args.reason.as_deref(), args.timeout).await?;
    app.out.report(&report);
    Ok(Exit(report.exit_code))
}
