//! `reset-failed`: forget failed attempts.

use ripcord::{Error, Result};

use crate::app::{App, Exit};

/// Runs it.
pub async fn run(app: &App) -> Result<Exit> {
    let target = app.target()?;
    let _ = target;
    // wiring: `control::history::reset_failed`.
    Err(Error::failed("not wired"))
}
