//! `history`: what was applied, rolled back and failed.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::ListArgs;

/// Runs it.
pub async fn run(app: &App, args: ListArgs) -> Result<Exit> {
    let _ = (app, args);
    // wiring: `control::history`, newest first, `args.limit` rows, through `app.out.list`.
    Err(Error::failed("not wired"))
}
