//! `run list` and `run show`: what runs did.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::RunCommand;

/// Runs it.
pub async fn run(app: &App, command: RunCommand) -> Result<Exit> {
    let target = app.target()?;
    let _ = target;
    match command {
        // wiring: `control::history::runs`, newest first, through `app.out.list`.
        RunCommand::List(args) => {
            let _ = args;
            Err(Error::failed("not wired"))
        }
        // wiring: the journal's steps of the run whose id begins with `id`, or of the newest.
        RunCommand::Show { id } => {
            let _ = id;
            Err(Error::failed("not wired"))
        }
    }
}
