//! `completions`: a script for a shell.

use clap::CommandFactory;
use ripcord::{Error, Result};

use crate::app::Exit;
use crate::args::{Cli, CompletionsArgs};

/// Prints it.
pub fn run(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ripcord", &mut script);
    super::print(&script).map_err(|error| Error::failed("the script cannot be printed").because(error))?;
    Ok(Exit::DONE)
}
