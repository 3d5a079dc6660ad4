//! `aside …`: databases that a swap kept.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::AsideCommand;

/// Runs it.
pub async fn run(app: &App, command: AsideCommand) -> Result<Exit> {
    let target = app.target()?;
    let _ = target;
    match command {
        // wiring: kept databases of this lineage, newest first, through `app.out.list`.
        AsideCommand::List => Err(Error::failed("not wired")),
        // wiring: only a database that the list shows; its logical slots are told before it goes.
        AsideCommand::Drop { name } => {
            let _ = name;
            Err(Error::failed("not wired"))
        }
    }
}
