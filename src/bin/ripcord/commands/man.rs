//! `man`: the manual pages.

use clap::CommandFactory;
use ripcord::{Error, Result};

use crate::app::Exit;
use crate::args::{Cli, ManArgs};

/// Prints the main page, or writes all of them into a folder.
pub fn run(args: &ManArgs) -> Result<Exit> {
    let Some(folder) = &args.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .and_then(|()| super::print(&page))
            .map_err(|error| Error::failed("the page cannot be printed").because(error))?;
        return Ok(Exit::DONE);
    };
    std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder)).map_err(
        |error| Error::usage(format!("the pages cannot be written to `{}`", folder.display())).because(error),
    )?;
    Ok(Exit::DONE)
}
