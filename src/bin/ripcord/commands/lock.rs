//! `lock …`: who holds the lock, and freeing that of a run that is gone.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::LockCommand;

/// Runs it.
pub async fn run(app: &App, command: LockCommand) -> Result<Exit> {
    let target = app.target()?;
    let _ = target;
    match command {
        // wiring: holder, host, pid, since, heartbeat through `app.out.list`.
        LockCommand::Status => Err(Error::failed("not wired")),
        // wiring: `app.approve` first; a living holder is `Error::refused`.
        LockCommand::Release => Err(Error::failed("not wired")),
    }
}
