//! `doctor`: what would work here and what would not.

use ripcord::{Error, Result};

use crate::app::{App, Exit};

/// Runs it.
pub async fn run(app: &App) -> Result<Exit> {
    let _ = app;
    // wiring: a row a finding through `app.out.list`; `Exit::FAILED` when a mandatory one fails.
    Err(Error::failed("not wired"))
}
