//! `wait`: until the server answers.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::WaitArgs;

/// Runs it.
pub async fn run(app: &App, args: WaitArgs) -> Result<Exit> {
    let _ = (app, args);
    // wiring: connect to `app.target()?` until `args.timeout`, watching `app.stop`.
    Err(Error::failed("not wired"))
}
