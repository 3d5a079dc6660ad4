//! `plan`: what `apply` would do. The same command, with `--dry-run`.

use ripcord::Result;

use crate::app::{App, Exit};
use crate::args::ApplyArgs;

/// Runs it; `app.resolved.dry_run` is set for this command.
pub async fn run(app: &App, args: ApplyArgs) -> Result<Exit> {
    super::apply::run(app, args).await
}
