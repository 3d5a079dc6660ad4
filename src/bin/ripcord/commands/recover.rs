//! `recover`: finish or undo what a dead run left.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::RecoverArgs;

/// Runs it.
pub async fn run(app: &App, args: RecoverArgs) -> Result<Exit> {
    app.require_health_complete()?;
    let ring = app.key_ring().await?;
    let (target, dry_run) = (app.target()?, app.resolved.dry_run);
    let _ = (args, ring, target, dry_run);
    // wiring: settings hold `--writes` and `--on-failure`; then `app.out.report`.
    Err(Error::failed("not wired"))
}
