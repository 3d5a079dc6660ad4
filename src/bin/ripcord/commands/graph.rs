//! `graph`: which migrations depend on which.

use ripcord::Result;
use ripcord::migration::graph::{Format, graph};
use ripcord::migration::source;
use ripcord::ops::report::Outcome;

use crate::app::{App, Exit};
use crate::args::{GraphArgs, GraphFormat};

/// Runs it.
pub fn run(app: &App, args: &GraphArgs) -> Result<Exit> {
    let folder = source::read(&app.migrations_dir()?, app.settings().layout.as_deref())?;
    let format = match args.format {
        GraphFormat::Text => Format::Text,
        GraphFormat::Dot => Format::Dot,
        GraphFormat::Mermaid => Format::Mermaid,
    };
    app.out.data(graph(&folder.migrations, format).trim_end());
    let items: Vec<serde_json::Value> = folder
        .migrations
        .iter()
        .map(|one| {
            serde_json::json!({
                "version": one.version.to_string(), "file": one.file_name, "depends_on": one.metadata.dependencies,
            })
        })
        .collect();
    app.out.items("graph", Outcome::Done, &items);
    Ok(Exit::DONE)
}
