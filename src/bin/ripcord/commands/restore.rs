//! `restore`: bring a backup back, beside the database or in its place.

use ripcord::{Error, Result};

use super::fresh::confirm_database;
use crate::app::{App, Exit};
use crate::args::RestoreArgs;

/// Runs it.
pub async fn run(app: &App, args: RestoreArgs) -> Result<Exit> {
    let ring = app.key_ring().await?;
    let target = app.target()?;
    // wiring: plan the restore here and print the plan: the backup's age, what it was taken before,
    // which migrations and how many writes go. Then, and only then, ask.
    if args.into.is_none() && !app.resolved.dry_run {
        confirm_database(app, args.confirm.as_deref(), target.database(), "replace")?;
    }
    let _ = ring;
    // wiring: execute the same plan; then `app.out.report`.
    Err(Error::failed("not wired"))
}
