//! `drill`: restore into a scratch database, compare, time and record.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::DrillArgs;

/// Runs it.
pub async fn run(app: &App, args: DrillArgs) -> Result<Exit> {
    let ring = app.key_ring().await?;
    let _ = (args, ring);
    // wiring: open `args.output` first; a bad path must fail before the long work.
    Err(Error::failed("not wired"))
}
