//! `apply`: back up, migrate, check, and bring back on failure.

use ripcord::migration::plan::Selection;
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::ApplyArgs;

/// Runs it.
pub async fn run(app: &App, args: ApplyArgs) -> Result<Exit> {
    app.require_health_complete()?;
    let skip_backup = app.skip_backup()?;
    let selection = selection(app, &args);
    let folder = app.migrations_dir()?;
    let target = app.target()?;
    let _ = (skip_backup, selection, folder, target);
    // wiring: one flow for both: `app.resolved.dry_run` decides between planning and executing. The
    // flow asks for the approval (`app.approve`) after validation and before the lock, and for the key
    // ring (`app.key_ring`) only when something is pending. Then `app.out.report`.
    Err(Error::failed("not wired"))
}

/// Which migrations are wanted.
pub fn selection(app: &App, args: &ApplyArgs) -> Selection {
    Selection { target: args.target.clone(), file: args.file.clone(), limit: app.resolved.limit, again: args.again }
}
