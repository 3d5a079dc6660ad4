//! `new`: a migration from the template, or a sequence of them, in the layout that the folder has.

use std::path::Path;

use ripcord::migration::pattern::{Names, Pattern};
use ripcord::migration::template::{self, NewMigration, Written};
use ripcord::ops::report::Outcome;
use ripcord::{Error, Result, clock};
use serde_json::json;

use crate::app::{App, Exit};
use crate::args::{NewArgs, PatternWord};

/// Writes it and prints the paths.
pub fn run(app: &App, args: NewArgs) -> Result<Exit> {
    let folder = app.migrations_dir()?;
    let layout = app.settings().layout.as_deref();
    let new = NewMigration {
        name: args.name.clone(),
        description: args.description.clone(),
        kind: args.kind.as_str().to_owned(),
        breaking: args.breaking,
        author: author(app),
    };
    let written = match pattern(&args)? {
        Some((pattern, names)) => template::create_sequence(&folder, layout, &new, (pattern, &names), clock::now())?,
        None => vec![Written { paths: template::create(&folder, layout, &new, clock::now())?, later: None }],
    };
    let mut items = Vec::new();
    for one in &written {
        for path in &one.paths {
            let path = path.display().to_string();
            app.out.data(&path);
            items.push(json!({ "file": path, "later": one.later }));
        }
    }
    if args.pattern.is_some() {
        tell(app, &folder, &written);
    }
    app.out.items("new", Outcome::Done, &items);
    Ok(Exit::DONE)
}

/// The pattern and its names; a name that it has no use for is refused.
fn pattern(args: &NewArgs) -> Result<Option<(Pattern, Names)>> {
    let Some(word) = args.pattern else { return Ok(None) };
    let pattern = match word {
        PatternWord::ExpandContract => Pattern::ExpandContract,
        PatternWord::OnlineTable => Pattern::OnlineTable,
        PatternWord::Progressive => Pattern::Progressive,
    };
    let (of_columns, of_rows) = (pattern == Pattern::ExpandContract, pattern != Pattern::Progressive);
    let options = [
        ("--column", &args.column, of_columns),
        ("--new-column", &args.new_column, of_columns),
        ("--column-type", &args.column_type, of_columns),
        ("--key", &args.key, of_rows),
    ];
    if let Some((option, ..)) = options.iter().find(|(_, value, useful)| value.is_some() && !useful) {
        return Err(Error::usage(format!("this pattern has no use for `{option}`")).hint("ripcord new --help"));
    }
    let names = Names {
        table: args.table.clone(),
        column: args.column.clone(),
        new_column: args.new_column.clone(),
        column_type: args.column_type.clone(),
        key: args.key.clone(),
    };
    Ok(Some((pattern, names)))
}

/// What belongs to which deploy.
fn tell(app: &App, folder: &Path, written: &[Written]) {
    let now = written.iter().filter(|one| one.later.is_none()).count();
    app.out.say(&format!("\n{now} migrations for the next deploy: `ripcord apply` runs them together"));
    for (one, when) in written.iter().filter_map(|one| Some((one, one.later.as_ref()?))) {
        // Of a folder to itself, the folder moves.
        let paths: std::collections::BTreeSet<&Path> = one.paths.iter().map(|path| moves(folder, path)).collect();
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        app.out.say(&format!(
            "a later deploy, where no run looks; when {when}: mv {} {}/",
            paths.join(" "),
            folder.display()
        ));
    }
}

fn moves<'a>(folder: &Path, path: &'a Path) -> &'a Path {
    match path.parent() {
        Some(parent) if parent != template::later_folder(folder) => parent,
        _ => path,
    }
}

fn author(app: &App) -> String {
    let variables = &app.resolved.variables;
    ["GIT_AUTHOR_NAME", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| variables.of_process_only(name))
        .unwrap_or("unknown")
        .to_owned()
}
