//! `status`: where the database stands.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::StatusArgs;

/// Runs it.
pub async fn run(app: &App, args: StatusArgs) -> Result<Exit> {
    let _ = (app, args);
    // wiring: `args.exit_code` and `args.max_backup_age` end in `Exit::FAILED`.
    Err(Error::failed("not wired"))
}
