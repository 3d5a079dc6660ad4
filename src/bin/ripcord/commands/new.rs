//! `new`: a migration from the template, in the layout that the folder has.

use ripcord::migration::template::{self, NewMigration};
use ripcord::ops::report::Outcome;
use ripcord::{Result, clock};
use serde_json::json;

use crate::app::{App, Exit};
use crate::args::NewArgs;

/// Writes it and prints the paths.
pub fn run(app: &App, args: NewArgs) -> Result<Exit> {
    let folder = app.migrations_dir()?;
    let new = NewMigration {
        name: args.name,
        description: args.description,
        kind: args.kind.as_str().to_owned(),
        breaking: args.breaking,
        author: author(app),
    };
    let paths = template::create(&folder, app.settings().layout.as_deref(), &new, clock::now())?;
    let mut items = Vec::new();
    for path in &paths {
        let path = path.display().to_string();
        app.out.data(&path);
        items.push(json!({ "file": path }));
    }
    app.out.items("new", Outcome::Done, &items);
    Ok(Exit::DONE)
}

fn author(app: &App) -> String {
    let variables = &app.resolved.variables;
    ["GIT_AUTHOR_NAME", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| variables.of_process_only(name))
        .unwrap_or("unknown")
        .to_owned()
}
