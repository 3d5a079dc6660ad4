//! `baseline`: record migrations as applied without running them.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::BaselineArgs;

/// Runs it.
pub async fn run(app: &App, args: BaselineArgs) -> Result<Exit> {
    let (target, folder) = (app.target()?, app.migrations_dir()?);
    let _ = (args, target, folder);
    // wiring: up to and with `args.version`.
    Err(Error::failed("not wired"))
}
