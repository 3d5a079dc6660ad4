//! `prune`: delete the backups that no rule keeps.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::PruneArgs;

/// Runs it.
pub async fn run(app: &App, args: PruneArgs) -> Result<Exit> {
    let _ = (app, args);
    // wiring: `app.settings().retention` already holds the options; `app.resolved.dry_run` holds `--dry-run`.
    Err(Error::failed("not wired"))
}
