//! `rollback`: undo migrations by their DOWN scripts, after a safety backup.

use ripcord::migration::plan::Undo;
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::RollbackArgs;

/// Runs it.
pub async fn run(app: &App, args: RollbackArgs) -> Result<Exit> {
    app.require_health_complete()?;
    let undo = args.undo();
    if let Some(typed) = &args.until {
        // Other tools read a bare number as a count of steps.
        match &undo {
            Undo::Batch(batch) => app.out.note(&format!(
                "`{typed}` is read as `--batch {batch}`: everything after batch {batch} goes; for a count write `--steps {typed}`"
            )),
            _ => app.out.note(&format!("`{typed}` is read as `--to {typed}`: everything after it goes")),
        }
    }
    let target = app.target()?;
    let ring = app.key_ring().await?;
    let _ = (undo, target, ring);
    // wiring: `app.approve`, the safety backup, the DOWNs, the proof; then `app.out.report`.
    Err(Error::failed("not wired"))
}
