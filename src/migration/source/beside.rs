//! What lies in the folder, is no SQL file that is read, and looks like a migration all the same: in a programming
//! language, under another ending, in a folder. Its own tool would run it, so that without it the schema is another.

use std::path::{Path, PathBuf};

use super::names::{self, Style};
use super::{flyway, folders};
use crate::error::Result;

/// Something that is left out.
pub(super) struct Beside {
    pub path: PathBuf,
    pub why: String,
    /// Nobody left it out on purpose.
    pub meant: bool,
}

/// In what tools write migrations besides SQL, by the file's ending.
const WRITTEN_IN: &[(&str, &str)] = &[
    ("go", "Go"),
    ("js", "JavaScript"),
    ("mjs", "JavaScript"),
    ("cjs", "JavaScript"),
    ("ts", "TypeScript"),
    ("mts", "TypeScript"),
    ("cts", "TypeScript"),
    ("py", "Python"),
    ("rb", "Ruby"),
    ("php", "PHP"),
    ("rs", "Rust"),
    ("java", "Java"),
    ("kt", "Kotlin"),
    ("kts", "Kotlin"),
    ("groovy", "Groovy"),
    ("scala", "Scala"),
    ("cs", "C#"),
    ("fs", "F#"),
    ("ex", "Elixir"),
    ("exs", "Elixir"),
    ("clj", "Clojure"),
    ("edn", "Clojure"),
    ("pl", "Perl"),
    ("sh", "shell"),
    ("xml", "XML"),
    ("yaml", "YAML"),
    ("yml", "YAML"),
    ("json", "JSON"),
];

/// Other names for SQL.
const NEARLY: [&str; 6] = ["psql", "pgsql", "ddl", "dml", "plpgsql", "sq"];

/// Looks through the folder. Of folders with SQL in them it tells `nested` whether they are meant as well.
pub(super) fn find(folder: &Path, nested: bool) -> Result<Vec<Beside>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if names::stem(&name).is_some() || name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let told = if path.is_dir() { of_folder(&path, &name, nested)? } else { of_file(&name) };
        found.extend(told.map(|(why, meant)| Beside { path, why, meant }));
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn of_file(name: &str) -> Option<(String, bool)> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, rest)) = lower.split_once(".sql") {
        let made = matches!(rest, ".gz" | ".zst" | ".j2" | ".tpl" | ".tmpl" | ".erb" | ".template" | ".mustache");
        let why = match made {
            true => format!("it ends in `{rest}`: ripcord neither unpacks nor fills in a file"),
            false => "it does not end in `.sql`".to_owned(),
        };
        return is_numbered(name).then_some((why, made));
    }
    let (stem, ending) = lower.rsplit_once('.')?;
    // What tests a migration, or declares its types, is none.
    if ["_test", ".test", ".spec", ".d"].iter().any(|end| stem.ends_with(end)) || !is_numbered(name) {
        return None;
    }
    if NEARLY.contains(&ending) {
        return Some((format!("it ends in `.{ending}`, and ripcord reads `.sql`"), true));
    }
    let (_, language) = WRITTEN_IN.iter().find(|(known, _)| *known == ending)?;
    Some((format!("it is numbered like a migration and written in {language}, and ripcord runs SQL only"), true))
}

fn of_folder(folder: &Path, name: &str, nested: bool) -> Result<Option<(String, bool)>> {
    if !folders::files(folder)?.is_empty() {
        return Ok(None);
    }
    let inside: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let sql = inside.iter().any(|name| names::stem(name).is_some());
    let code = || inside.iter().any(|name| WRITTEN_IN.iter().any(|(ending, _)| name.ends_with(&format!(".{ending}"))));
    Ok(if is_numbered(name) && (sql || code()) {
        Some(("it is numbered like a migration, and holds neither `up.sql` nor `migration.sql`".to_owned(), true))
    } else if sql || super::list(folder).is_ok_and(|files| !files.is_empty()) {
        Some(("a folder in the folder is not read".to_owned(), nested))
    } else {
        None
    })
}

/// Whether the name begins as migrations' do.
fn is_numbered(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    names::parse(name).style != Style::None || flyway::version(stem).is_some() || stem.starts_with("R__")
}
