//! A dump as SQL text, as psql takes it.

use std::io::{Read, Write};

use super::child::{Input, run, run_with};
use crate::error::{Error, Result};
use crate::postgres::{Tools, tools};

/// Read and written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Has pg_restore write the dump as a script into `sink`, and returns what it said. `told` gets the bytes of the
/// dump as they go in. A `restrict_key` makes the script the same each time; without it pg_restore takes a new one
/// (it has them since 15.14, 16.10, 17.6).
///
/// # Errors
/// When the dump cannot be read, the script cannot be written, or this pg_restore knows no such key.
pub async fn write_script(
    tools: &Tools,
    dump: Box<dyn Read + Send>,
    restrict_key: Option<&str>,
    mut sink: Box<dyn Write + Send>,
    told: Box<dyn Fn(u64) + Send>,
) -> Result<Vec<String>> {
    let mut command = tools::plain(&tools.pg_restore);
    command.arg("--file=-");
    if let Some(key) = restrict_key {
        if !knows_restrict_key(tools).await? {
            return Err(Error::usage(format!("`{}` does not know `--restrict-key`", tools.pg_restore.display()))
                .because("it came with PostgreSQL 15.14, 16.10 and 17.6")
                .hint("install a newer minor version, or leave `--restrict-key` out"));
        }
        command.arg(format!("--restrict-key={key}"));
    }
    let take = move |mut stdout: std::process::ChildStdout| {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = stdout
                .read(&mut buffer)
                .map_err(|error| Error::failed("reading pg_restore's output failed").because(error))?;
            let written = match buffer.get(..count).filter(|piece| !piece.is_empty()) {
                Some(piece) => sink.write_all(piece),
                None => return sink.flush().map(|()| Vec::new()).map_err(unwritten),
            };
            written.map_err(unwritten)?;
        }
    };
    let failed = "the dump could not be written as SQL";
    Ok(run_with(command, Input::Stream(dump, told), None, failed, take).await?.stderr)
}

fn unwritten(error: std::io::Error) -> Error {
    Error::failed("the script could not be written").because(error)
}

async fn knows_restrict_key(tools: &Tools) -> Result<bool> {
    let mut command = tools::plain(&tools.pg_restore);
    command.arg("--help");
    let nothing = Input::Stream(Box::new(std::io::empty()), Box::new(|_| ()));
    let help = run(command, nothing, None, "pg_restore does not tell its options").await?.stdout;
    Ok(String::from_utf8_lossy(&help).contains("--restrict-key"))
}
