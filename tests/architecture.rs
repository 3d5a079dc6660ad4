//! The rules of ARCHITECTURE.md that can be read from the source: who may import whom, who may print and read
//! variables, what must not stand in code that is no test, where our tables are named, how long a file may be.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What everyone may import.
const SHARED: [&str; 6] = ["clock", "error", "ids", "io", "progress", "settings"];

/// The subsystems, and what each may import besides.
const SUBSYSTEMS: [(&str, &[&str]); 10] = [
    ("archive", &["keys"]),
    ("control", &["postgres"]),
    ("health", &[]),
    ("journal", &["keys"]),
    ("keys", &[]),
    ("manifest", &["archive", "keys"]),
    ("migration", &[]),
    ("postgres", &["manifest", "migration"]),
    ("retention", &["manifest"]),
    ("store", &[]),
];

/// Where the library reads the process's environment all the same.
const ENVIRONMENT_READ: [(&str, &str); 2] = [
    ("src/health/command.rs", "a hook gets the environment that it would have in a shell, but for our secrets"),
    ("src/store/local/mounts.rs", "whether this is a container's own file system shows there only"),
];

/// Where our schema, or a setting that begins with its name, is named outside `src/control`.
const SCHEMA_NAMED: [(&str, &str, &str); 7] = [
    ("src/postgres/execute/mod.rs", "ripcord.run", "a setting of the session that marks our transaction, no table"),
    ("src/postgres/writes.rs", "'ripcord'", "our own rows are nobody's lost writes"),
    ("src/postgres/counts.rs", "'ripcord'", "likewise"),
    ("src/postgres/checks.rs", "'ripcord'", "our own functions are no hidden code"),
    ("src/postgres/observe.rs", "'ripcord'", "a rehearsal tells of other tables than ours"),
    ("src/postgres/salvage.rs", "'ripcord'", "our own rows are carried by the swap, and not salvaged"),
    ("src/postgres/databases/empty.rs", "'ripcord'", "a database with our schema alone counts as empty"),
];

/// Lines of a file without its tests: about 500, so that a line more is not a reason to split.
const LINES: usize = 550;

/// Files that are longer.
const LONGER: [(&str, &str); 3] = [
    ("src/ops/backup.rs", "taking and reading back are one sequence whose order is what makes it a backup"),
    ("src/ops/resume.rs", "what a dead run may have left, in the order in which it is taken up"),
    ("src/bin/ripcord/args/operations.rs", "the options of all verbs: a list, and nothing else"),
];

/// A source file: its code without comments, strings and tests, and its strings.
struct Source {
    path: String,
    code: Vec<String>,
    strings: Vec<(usize, String)>,
    /// Lines that belong to no test.
    lines: usize,
}

impl Source {
    fn library(&self) -> bool {
        !self.path.starts_with("src/bin/")
    }

    /// `archive` for `src/archive/seal.rs`, `keys` for `src/keys.rs`.
    fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        if inner == "lib" { Vec::new() } else { inner.split('/').map(str::to_owned).collect() }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file of the source that is not all test.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files(&root().join("src"), &mut paths);
    paths.sort();
    let mut read = Vec::new();
    let mut only_tests = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let (source, test_modules) = without_tests(&path, &text);
        read.push(source);
        only_tests.extend(test_modules);
    }
    let is_test = |path: &str| {
        only_tests
            .iter()
            .any(|module: &String| path == format!("{module}.rs") || path.starts_with(&format!("{module}/")))
    };
    read.retain(|source| !is_test(&source.path));
    assert!(read.len() > 100, "only {} files were read", read.len());
    read
}

/// A file without its tests, and the modules of it that are test files of their own.
fn without_tests(path: &Path, text: &str) -> (Source, Vec<String>) {
    let path = path.strip_prefix(root()).unwrap_or(path).to_str().unwrap().to_owned();
    let (code, strings) = split(text);
    let folder = if path.ends_with("/mod.rs") || path.ends_with("/lib.rs") || path.ends_with("/main.rs") {
        path.rsplit_once('/').unwrap().0.to_owned()
    } else {
        path.trim_end_matches(".rs").to_owned()
    };
    let mut kept = Vec::new();
    let mut dropped = BTreeSet::new();
    let mut modules = Vec::new();
    let lines: Vec<&str> = code.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        if !lines[at].trim_start().starts_with("#[cfg(test)]") {
            kept.push(lines[at].to_owned());
            at += 1;
            continue;
        }
        // An item of tests ends with its own line's `;`, or at the brace that stands as far in as it does.
        let indent = lines[at].len() - lines[at].trim_start().len();
        let item = (at + 1..lines.len()).find(|line| !lines[*line].trim_start().starts_with('#')).unwrap();
        let one_line = lines[item].trim_end().ends_with(';') || lines[item].trim_end().ends_with('}');
        let last = if one_line {
            item
        } else {
            let closing = format!("{}}}", " ".repeat(indent));
            (item..lines.len()).find(|line| lines[*line].trim_end() == closing).unwrap()
        };
        let words = lines[item].trim().trim_end_matches(';');
        if let Some(name) = words.strip_prefix("mod ").or_else(|| words.strip_prefix("pub(crate) mod "))
            && lines[item].trim_end().ends_with(';')
        {
            modules.push(format!("{folder}/{name}"));
        }
        for line in at..=last {
            kept.push(String::new());
            dropped.insert(line);
        }
        at = last + 1;
    }
    let strings = strings.into_iter().filter(|(line, _)| !dropped.contains(line)).collect();
    let lines = lines.len() - dropped.len();
    (Source { path, code: kept, strings, lines }, modules)
}

/// The code with its comments and strings blanked, line for line, and the strings with their lines.
fn split(text: &str) -> (String, Vec<(usize, String)>) {
    let characters: Vec<char> = text.chars().collect();
    let (mut code, mut strings) = (String::new(), Vec::new());
    let (mut at, mut line) = (0, 0);
    let starts = |at: usize, with: &str| with.chars().enumerate().all(|(i, c)| characters.get(at + i) == Some(&c));
    while at < characters.len() {
        let here = characters[at];
        let after_word = at > 0 && (characters[at - 1].is_alphanumeric() || characters[at - 1] == '_');
        if starts(at, "//") {
            while at < characters.len() && characters[at] != '\n' {
                at += 1;
            }
            continue;
        }
        let raw = (!after_word && (here == 'r' || starts(at, "br")))
            .then(|| {
                let mut open = at + if here == 'r' { 1 } else { 2 };
                let first = open;
                while characters.get(open) == Some(&'#') {
                    open += 1;
                }
                (characters.get(open) == Some(&'"')).then_some((open, open - first))
            })
            .flatten();
        if let Some((open, hashes)) = raw {
            let end = format!("\"{}", "#".repeat(hashes));
            let close = (open + 1..characters.len()).find(|at| starts(*at, &end)).unwrap();
            let inside: String = characters[open + 1..close].iter().collect();
            code.push_str("\"\"");
            code.extend(inside.chars().filter(|c| *c == '\n'));
            strings.push((line, inside.clone()));
            line += inside.matches('\n').count();
            at = close + end.len();
            continue;
        }
        if here == '"' {
            let mut close = at + 1;
            while characters[close] != '"' {
                close += if characters[close] == '\\' { 2 } else { 1 };
            }
            let inside: String = characters[at + 1..close].iter().collect();
            code.push_str("\"\"");
            code.extend(inside.chars().filter(|c| *c == '\n'));
            strings.push((line, inside.clone()));
            line += inside.matches('\n').count();
            at = close + 1;
            continue;
        }
        // A character, told from a lifetime by its closing quote.
        if here == '\'' {
            let close = if characters.get(at + 1) == Some(&'\\') {
                (at + 3..characters.len()).find(|at| characters[*at] == '\'')
            } else {
                (characters.get(at + 2) == Some(&'\'')).then_some(at + 2)
            };
            if let Some(close) = close {
                code.push_str("' '");
                at = close + 1;
                continue;
            }
        }
        if here == '\n' {
            line += 1;
        }
        code.push(here);
        at += 1;
    }
    (code, strings)
}

/// The modules at the crate's root that a file names: `crate::x`, `crate::{x, y}`, and `super::super::x`.
fn imports(source: &Source) -> BTreeSet<(usize, String)> {
    let mut found = BTreeSet::new();
    let module = source.module();
    for (index, line) in source.code.iter().enumerate() {
        for (place, _) in line.match_indices("crate::") {
            if line[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest: String = std::iter::once(&line[place + "crate::".len()..])
                .chain(source.code[index + 1..].iter().take(20).map(String::as_str))
                .collect::<Vec<_>>()
                .join(" ");
            found.extend(names(&rest).into_iter().map(|name| (index + 1, name)));
        }
        let mut at = 0;
        while let Some(place) = line[at..].find("super::") {
            let mut end = at + place;
            let mut climbed = 0;
            while line[end..].starts_with("super::") {
                end += "super::".len();
                climbed += 1;
            }
            if climbed >= module.len() {
                found.extend(names(&line[end..]).into_iter().map(|name| (index + 1, name)));
            }
            at = end;
        }
    }
    found
}

/// The first names of a path or of a group of paths.
fn names(rest: &str) -> Vec<String> {
    let word =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (place, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(word(&group[start..place]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(word(&group[start..place]));
                start = place + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[track_caller]
fn none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn subsystems_import_only_what_they_may() {
    let rules: BTreeMap<&str, &[&str]> = SUBSYSTEMS.into_iter().collect();
    let modules: BTreeSet<String> = sources()
        .iter()
        .filter(|source| source.library())
        .filter_map(|source| source.module().first().cloned())
        .collect();
    let known: BTreeSet<String> = rules.keys().copied().chain(SHARED).chain(["ops"]).map(str::to_owned).collect();
    assert_eq!(modules, known, "a module at the root needs its place in this test and in ARCHITECTURE.md");

    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.library()) {
        let module = source.module();
        let Some(module) = module.first() else { continue };
        if module == "ops" {
            continue;
        }
        let more = rules.get(module.as_str()).copied().unwrap_or_default();
        for (line, name) in imports(source) {
            let is_module = known.contains(&name);
            let allowed = name == *module || SHARED.contains(&name.as_str()) || more.contains(&name.as_str());
            if is_module && !allowed {
                broken.push(format!("{}:{line}: `{module}` imports `{name}`", source.path));
            }
        }
    }
    none(&broken, "subsystems meet in `ops` only");
}

#[test]
fn only_the_session_its_errors_and_quoting_are_taken_from_postgres_by_control() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("src/control/")) {
        for (index, line) in source.code.iter().enumerate() {
            let allowed = ["crate::postgres::session", "crate::postgres::quote"].iter().any(|path| line.contains(path));
            if line.contains("crate::postgres") && !allowed {
                broken.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    none(&broken, "`control` takes sessions, their errors and quoting from `postgres`, and nothing else");
}

#[test]
fn the_library_does_not_know_the_binary() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.library()) {
        for (index, line) in source.code.iter().enumerate() {
            for word in
                ["clap::", "clap_complete", "clap_mangen", "indicatif", "CARGO_BIN", "crate::args", "crate::config"]
            {
                if line.contains(word) {
                    broken.push(format!("{}:{}: {word}", source.path, index + 1));
                }
            }
        }
    }
    none(&broken, "the command line belongs to src/bin");
}

#[test]
fn the_library_prints_nothing_and_reads_no_variables() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.library()) {
        for (index, line) in source.code.iter().enumerate() {
            for word in ["println!", "eprintln!", "print!", "eprint!", "dbg!", "std::env::", "io::stdout", "io::stderr"]
            {
                let excused = word == "std::env::" && ENVIRONMENT_READ.iter().any(|(path, _)| *path == source.path);
                if line.contains(word) && !excused {
                    broken.push(format!("{}:{}: {word}", source.path, index + 1));
                }
            }
        }
    }
    none(&broken, "printing and the environment belong to src/bin");
}

#[test]
fn nothing_outside_tests_can_panic_on_purpose() {
    let mut broken = Vec::new();
    for source in sources() {
        for (index, line) in source.code.iter().enumerate() {
            for word in [".unwrap()", ".expect(", "todo!", "unimplemented!", "unreachable!", "panic!"] {
                if line.contains(word) {
                    broken.push(format!("{}:{}: {word}", source.path, index + 1));
                }
            }
            if line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                broken.push(format!("{}:{}: unsafe", source.path, index + 1));
            }
        }
    }
    none(&broken, "what cannot be is an error with a message");
}

#[test]
fn our_tables_are_named_in_control_only() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.library() && !source.path.starts_with("src/control/")) {
        for (line, string) in &source.strings {
            let dotted = string.match_indices("ripcord.").filter(|(place, _)| {
                let after = &string[place + "ripcord.".len()..];
                after.starts_with(|c: char| c.is_ascii_lowercase()) && !after.starts_with("toml")
            });
            let quoted = string.match_indices("'ripcord'");
            for (place, _) in dotted.chain(quoted) {
                let excused = SCHEMA_NAMED
                    .iter()
                    .any(|(path, what, _)| *path == source.path && string[place..].starts_with(what));
                if !excused {
                    broken.push(format!("{}:{}: {}", source.path, line + 1, string.trim()));
                }
            }
        }
    }
    none(&broken, "SQL for our tables belongs to src/control");
}

#[test]
fn files_stay_short() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| source.lines > LINES && !LONGER.iter().any(|(path, _)| *path == source.path))
        .map(|source| format!("{}: {} lines without its tests", source.path, source.lines))
        .collect();
    none(&broken, "a file that outgrows its name is split");
}

#[test]
fn what_is_excused_is_there() {
    let paths: BTreeSet<String> = sources().into_iter().map(|source| source.path).collect();
    let excused = ENVIRONMENT_READ
        .iter()
        .chain(&LONGER)
        .map(|(path, why)| (*path, *why))
        .chain(SCHEMA_NAMED.iter().map(|(path, _, why)| (*path, *why)));
    for (path, why) in excused {
        assert!(paths.contains(path), "{path} is excused and is not there");
        assert!(!why.is_empty(), "{path} is excused without a reason");
    }
}

/// The reader itself: what it must see, and what it must not.
#[test]
fn the_reader_tells_code_from_comments_strings_and_tests() {
    let text = r##"
use crate::{archive::Frame, keys};
// use crate::journal;
fn f<'a>(x: &'a str) -> char { let _ = "crate::store // \" no"; let _ = r#"ripcord.runs"#; '"' }
use super::super::store::Store;

#[cfg(test)]
mod tests {
    use crate::health;
    fn g() { None::<u8>.unwrap(); }
}

#[cfg(test)]
mod hostile;
fn last() { crate::postgres::session::explain() }
"##;
    let (source, modules) = without_tests(Path::new("src/migration/lint.rs"), text);
    let found: Vec<String> = imports(&source).into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["archive", "keys", "store", "postgres"]);
    assert_eq!(modules, ["src/migration/lint/hostile"]);
    let strings: Vec<&str> = source.strings.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(strings, ["crate::store // \\\" no", "ripcord.runs"]);
    assert!(!source.code.join("\n").contains("unwrap"));
    assert!(source.code.iter().any(|line| line.contains("fn last")));
}
