//! New migrations, in the layout that the folder already has.

use std::io::Write;
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, TimeDelta};

use super::pattern::{self, Names, Pattern};
use super::source::names::{Named, Side, Style, parse};
use super::source::{has_journal, layout_name, read_texts, version_name};
use crate::clock::Time;
use crate::error::{Error, Result};

/// What to write.
#[derive(Clone, Debug)]
pub struct NewMigration {
    /// As typed, spaces and all.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// `ddl`, `dml` or `function`.
    pub kind: String,
    /// Marked as breaking.
    pub breaking: bool,
    /// Who writes it.
    pub author: String,
}

/// Writes the next migration's file (or files) into `folder` and returns the paths.
///
/// The number has the width of those that are there, and is a timestamp or a date where theirs are.
/// Nothing that exists is overwritten. An empty or missing folder begins with `001_name.sql` and
/// `-- UP` / `-- DOWN` markers.
pub fn create(folder: &Path, layout: Option<&str>, new: &NewMigration, now: Time) -> Result<Vec<PathBuf>> {
    let name = file_name(&new.name)?;
    let there = Existing::look(folder, layout)?;
    let version = there.next_versions(now, 1)?.pop().unwrap_or_default();
    let (up, down) = (up_placeholder(&new.kind), "-- TODO: add what undoes it here");
    there.form.write(folder, &version, &name, new, (up, down), now)
}

/// A migration of a sequence, as it was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its files.
    pub paths: Vec<PathBuf>,
    /// When it is due, where it is for a later deploy.
    pub later: Option<String>,
}

/// Writes the migrations of a sequence, numbered one after the other in the layout of `folder`. Those for a later
/// deploy go to a folder beside it, where no run looks: [`later_folder`].
pub fn create_sequence(
    folder: &Path,
    layout: Option<&str>,
    new: &NewMigration,
    (pattern, names): (Pattern, &Names),
    now: Time,
) -> Result<Vec<Written>> {
    let name = file_name(&new.name)?;
    let steps = pattern::steps(pattern, &name, names)?;
    let there = Existing::look(folder, layout)?;
    let versions = there.next_versions(now, steps.len())?;
    let mut written = Vec::new();
    for (number, (step, version)) in steps.into_iter().zip(versions).enumerate() {
        // Where names alone give the order, the number does.
        let name = format!("{name}_{}_{}", number + 1, step.name);
        let breaking = new.breaking || step.later.is_some();
        let of_step = NewMigration { description: Some(step.description), breaking, ..new.clone() };
        let folder = step.later.as_ref().map_or_else(|| folder.to_owned(), |_| later_folder(folder));
        let paths = there.form.write(&folder, &version, &name, &of_step, (&step.up, &step.down), now)?;
        written.push(Written { paths, later: step.later });
    }
    Ok(written)
}

/// Where migrations wait for a later deploy: `migrations-later` beside `migrations`.
pub fn later_folder(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push("-later");
    folder.with_file_name(name)
}

fn file_name(name: &str) -> Result<String> {
    let snake = snake_case(name);
    if snake.is_empty() {
        return Err(Error::usage(format!("`{name}` has no letter or digit to make a file name of")));
    }
    Ok(snake)
}

/// How a new file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Metadata,
    Markers,
    Banners,
    Pair {
        marked: bool,
    },
    Dated,
    OwnTransaction,
    /// Another tool's, above UP and above DOWN.
    Marks(&'static str, &'static str),
    /// A folder, with `up.sql` and `down.sql` or with `migration.sql`.
    Folder {
        paired: bool,
    },
    /// `V1__name`.
    Versioned,
    Plain,
}

impl Form {
    /// Writes one migration.
    fn write(
        self,
        folder: &Path,
        version: &str,
        name: &str,
        new: &NewMigration,
        (up, down): (&str, &str),
        now: Time,
    ) -> Result<Vec<PathBuf>> {
        let stem = if self == Form::Versioned { format!("V{version}__{name}") } else { format!("{version}_{name}") };
        let description = one_line(new.description.as_deref().unwrap_or(&new.name));
        let files = match self {
            Form::Metadata => {
                let text = format!("{}\n-- UP\n{up}\n\n-- DOWN\n{down}\n", metadata(new, &description));
                vec![(format!("{stem}.sql"), text)]
            }
            Form::Markers => {
                let text = format!("-- {description}\n\n-- UP\n{up}\n\n-- DOWN\n{down}\n");
                vec![(format!("{stem}.sql"), text)]
            }
            Form::Banners => {
                let rule = "-- ============================================";
                let created = now.to_rfc3339_opts(SecondsFormat::Millis, true);
                let text = format!(
                    "-- Migration: {name}\n-- Description: {description}\n-- Created: {created}\n\n\
                     {rule}\n-- FORWARD MIGRATION\n{rule}\n\n{up}\n\n\
                     {rule}\n-- ROLLBACK\n{rule}\n\n{down}\n"
                );
                vec![(format!("{stem}.sql"), text)]
            }
            Form::Pair { marked } => {
                let middle = if marked { ".up" } else { "" };
                vec![
                    (format!("{stem}{middle}.sql"), format!("-- {description}\n\n{up}\n")),
                    (format!("{stem}.down.sql"), format!("{down}\n")),
                ]
            }
            Form::Dated => {
                let rule = "-- =============================================";
                let (author, date) = (one_line(&new.author), now.format("%Y-%m-%d"));
                let text = format!(
                    "{rule}\n-- MIGRATION: {description}\n-- Version: {date}\n-- Author: {author}\n\
                     -- Dependencies: none\n{rule}\n\n{up}\n"
                );
                vec![(format!("{stem}.sql"), text)]
            }
            Form::OwnTransaction => {
                // What runs statement by statement has no transaction around it.
                let apart = ["-- ripcord: batch", "-- ripcord: no-transaction"].iter().any(|said| up.contains(said));
                let up = if apart { up.to_owned() } else { format!("BEGIN;\n\n{up}\n\nCOMMIT;") };
                let text = format!("-- {name}.sql\n-- {description}\n{up}\n");
                vec![(format!("{name}.sql"), text)]
            }
            Form::Marks(up_mark, down_mark) => {
                let text = format!("-- {description}\n\n{up_mark}\n{up}\n\n{down_mark}\n{down}\n");
                vec![(format!("{stem}.sql"), text)]
            }
            Form::Folder { paired: true } => vec![
                (format!("{stem}/up.sql"), format!("-- {description}\n\n{up}\n")),
                (format!("{stem}/down.sql"), format!("{down}\n")),
            ],
            Form::Folder { paired: false } => {
                vec![(format!("{stem}/migration.sql"), format!("-- {description}\n\n{up}\n"))]
            }
            Form::Plain | Form::Versioned => {
                let text = format!("-- {description}\n-- Author: {}\n\n{up}\n", one_line(&new.author));
                vec![(format!("{stem}.sql"), text)]
            }
        };
        files.into_iter().map(|(file, text)| write_new(&folder.join(file), &text)).collect()
    }
}

/// What the folder has.
struct Existing {
    form: Form,
    names: Vec<Named>,
}

impl Existing {
    /// Read by name and content, but not cut into statements: one broken file must not stop the next.
    fn look(folder: &Path, layout: Option<&str>) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .map_err(|cause| Error::failed(format!("cannot make the folder `{}`", folder.display())).because(cause))?;
        let texts = read_texts(folder)?;
        let named = |texts: &[(String, String)]| -> Vec<Named> {
            let names = texts.iter().filter_map(|(file, _)| Some(parse(&version_name(file)?)));
            names.filter(|named| named.style != Style::None).collect()
        };
        let mut names = named(&texts);
        let says_metadata = |text: &String| text.to_ascii_lowercase().contains("@metadata");
        let has_metadata = texts.iter().any(|(_, text)| says_metadata(text));
        let layout = match layout {
            Some(layout) => layout,
            // Drizzle alone writes its journal; what is written by hand runs after what it names.
            None if has_journal(folder) => "transaction",
            None if names.is_empty() && texts.is_empty() => "markers",
            None => layout_name(&texts),
        };
        let has_downs = names.iter().any(|named| named.side == Side::Down);
        let marked = names.iter().any(|named| named.side == (Side::Up { marked: true }));
        let form = match layout {
            "metadata" if has_metadata || names.is_empty() => Form::Metadata,
            "metadata" | "markers" => Form::Markers,
            "banners" => Form::Banners,
            "transaction" | "drizzle" => Form::OwnTransaction,
            "dated" => Form::Dated,
            "numbered" if has_downs || marked => Form::Pair { marked },
            "numbered" | "plain" => Form::Plain,
            "dbmate" => Form::Marks("-- migrate:up", "-- migrate:down"),
            "goose" => Form::Marks("-- +goose Up", "-- +goose Down"),
            "sql-migrate" => Form::Marks("-- +migrate Up", "-- +migrate Down"),
            "node-pg-migrate" => Form::Marks("-- Up Migration", "-- Down Migration"),
            "folders" => Form::Folder { paired: texts.iter().any(|(file, _)| file.ends_with("/up.sql")) },
            "flyway" => Form::Versioned,
            _ => return Err(Error::usage(format!("no layout is called `{layout}`"))),
        };
        // What waits for a later deploy has its numbers already.
        let later = later_folder(folder);
        if later.is_dir() {
            names.extend(named(&read_texts(&later)?));
        }
        Ok(Existing { form, names })
    }

    /// The next versions, in the style of the file that sorts last.
    fn next_versions(&self, now: Time, count: usize) -> Result<Vec<String>> {
        let last = self.names.iter().max_by_key(|named| super::Version(named.version.clone()));
        let times = |form: &str, step: TimeDelta| -> Vec<String> {
            let all = (0..).map(|number| (now + step * number).format(form).to_string());
            all.filter(|version| !self.names.iter().any(|named| named.version == *version)).take(count).collect()
        };
        Ok(match last.map(|named| (named.style, named.version.len())) {
            // Without an example, the template's own style: numbers, or timestamps with banners.
            None if self.form == Form::Banners => times("%Y%m%d%H%M%S", TimeDelta::seconds(1)),
            None => (1..=count).map(|number| format!("{number:03}")).collect(),
            // Several share a day.
            Some((Style::Date, _)) => vec![now.format("%Y-%m-%d").to_string(); count],
            Some((Style::Timestamp, 8)) => times("%Y%m%d", TimeDelta::days(1)),
            Some((Style::Timestamp, 12)) => times("%Y%m%d%H%M", TimeDelta::minutes(1)),
            Some((Style::Timestamp, _)) => times("%Y%m%d%H%M%S", TimeDelta::seconds(1)),
            Some(_) => {
                let whole = |named: &Named| named.version.split('.').next()?.parse::<u64>().ok();
                let numbers = || self.names.iter().filter(|named| named.style == Style::Number);
                let highest = numbers().filter_map(whole).max().unwrap_or_default();
                let width =
                    numbers().map(|named| named.version.split('.').next().map_or(0, str::len)).max().unwrap_or(3);
                let next = |number: u64| {
                    let next = highest.checked_add(number).map(|next| format!("{next:0width$}"));
                    next.ok_or_else(|| Error::failed(format!("there is no number after `{highest}`")))
                };
                (1..).take(count).map(next).collect::<Result<_>>()?
            }
        })
    }
}

fn metadata(new: &NewMigration, description: &str) -> String {
    let entries = [
        ("author", serde_json::json!(one_line(&new.author))),
        ("description", serde_json::json!(description)),
        ("breakingChange", serde_json::json!(new.breaking)),
        ("estimatedDuration", serde_json::json!(1000)),
        ("dataVolume", serde_json::json!("small")),
        ("risk", serde_json::json!(if new.breaking { "high" } else { "low" })),
        ("tags", serde_json::json!([new.kind])),
    ];
    let lines: Vec<String> = entries.iter().map(|(key, value)| format!("--   \"{key}\": {value}")).collect();
    format!("-- @metadata {{\n{}\n-- }}\n", lines.join(",\n"))
}

fn up_placeholder(kind: &str) -> &'static str {
    match kind {
        "dml" => "-- TODO: add your UPDATE, INSERT or DELETE here",
        "function" => {
            "-- TODO: write your function here\n\
             -- CREATE FUNCTION name() RETURNS integer\n\
             -- LANGUAGE sql STABLE SET search_path = pg_catalog, public\n\
             -- AS $$ SELECT 1 $$;"
        }
        _ => "-- TODO: add your migration SQL here",
    }
}

/// Letters and digits in lower case, everything else one underscore.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.trim().trim_end_matches(".sql").chars() {
        if character.is_alphanumeric() {
            snake.extend(character.to_lowercase());
        } else if !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
    }
    // File names end at 255 bytes, and the version and endings need theirs.
    let mut short: String = snake.chars().take(50).collect();
    short.truncate(short.trim_end_matches('_').len());
    short
}

/// A line's end would end the comment that it is put into.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn write_new(path: &Path, text: &str) -> Result<PathBuf> {
    let cannot = |cause| Error::failed(format!("cannot write `{}`", path.display())).because(cause);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(cannot)?;
    }
    let mut file = std::fs::File::create_new(path).map_err(cannot)?;
    file.write_all(text.as_bytes()).map_err(cannot)?;
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::source::read;
    use chrono::TimeZone;

    fn make(files: &[(&str, &str)], layout: Option<&str>, name: &str) -> (tempfile::TempDir, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let new = NewMigration {
            name: name.to_owned(),
            description: Some("for \"all\"\nof us".to_owned()),
            kind: "ddl".to_owned(),
            breaking: true,
            author: "Ann\nB".to_owned(),
        };
        let now = chrono::Utc.with_ymd_and_hms(2026, 2, 3, 4, 5, 6).unwrap();
        let paths = create(dir.path(), layout, &new, now).unwrap();
        let names = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        (dir, names)
    }

    #[test]
    fn numbers_go_on_as_they_are() {
        let markers = "-- UP\nselect 1;\n-- DOWN\nselect 1;\n";
        for (files, expected) in [
            (vec![], "001_add_x.sql"),
            (vec![("0009_a.sql", markers)], "0010_add_x.sql"),
            (vec![("9_a.sql", markers), ("2_b.sql", markers)], "10_add_x.sql"),
            (vec![("999_a.sql", markers)], "1000_add_x.sql"),
            (vec![("2.1_a.sql", markers)], "3_add_x.sql"),
            (vec![("20250101120000_a.sql", markers)], "20260203040506_add_x.sql"),
            (vec![("20250101_a.sql", markers)], "20260203_add_x.sql"),
            (vec![("2025-01-01_a.sql", markers)], "2026-02-03_add_x.sql"),
            (vec![("001_broken.sql", "select 'x")], "002_add_x.sql"),
        ] {
            assert_eq!(make(&files, None, " Add: X! ").1, [expected], "{files:?}");
        }
    }

    #[test]
    fn every_form_is_read_back_in_its_own_layout() {
        let plain = "select 1;";
        let banners = "-- FORWARD MIGRATION\nselect 1;\n-- ROLLBACK\nselect 1;\n";
        let full = "-- @metadata {\"author\": \"x\"}\n-- UP\nselect 1;\n-- DOWN\nselect 1;\n";
        for (files, layout, expected, count) in [
            (vec![], None, "metadata", 1),
            (vec![], Some("banners"), "banners", 1),
            (vec![], Some("metadata"), "metadata", 1),
            (vec![("1_a.sql", full)], None, "metadata", 1),
            (vec![("1_a.sql", banners)], None, "banners", 1),
            (vec![("1_a.sql", plain)], None, "numbered", 1),
            (vec![("1_a.sql", plain), ("1_a.down.sql", plain)], None, "numbered", 2),
            (vec![("1_a.up.sql", plain), ("1_a.down.sql", plain)], None, "numbered", 2),
            (vec![("2025-01-01_a.sql", plain)], None, "dated", 1),
            (vec![("a.sql", "begin;\nselect 1;\ncommit;\n")], None, "transaction", 1),
            (vec![("20250101000000_a.sql", plain)], None, "plain", 1),
            (vec![("1_a.sql", "-- migrate:up\nselect 1;")], None, "dbmate", 1),
            (vec![("1_a.sql", "-- +goose Up\nselect 1;")], None, "goose", 1),
            (vec![("1_a.sql", "-- +migrate Up\nselect 1;")], None, "sql-migrate", 1),
            (vec![("1_a.sql", "-- Up Migration\nselect 1;")], None, "node-pg-migrate", 1),
            (vec![("2025-01-01-000000_a/up.sql", plain)], None, "folders", 2),
            (vec![("20250101000000_a/migration.sql", plain)], None, "folders", 1),
            (vec![("V9__a.sql", plain)], None, "flyway", 1),
        ] {
            let before = files.iter().filter(|(name, _)| !name.contains("down")).count();
            let (dir, names) = make(&files, layout, "new one");
            assert_eq!(names.len(), count, "{files:?}");
            let folder = read(dir.path(), None).unwrap();
            assert_eq!(folder.layout, expected, "{files:?}");
            assert_eq!(folder.migrations.len(), before + 1);
            assert!(folder.misnamed.is_empty());
            let new = folder.migrations.last().unwrap();
            assert!(new.up.is_empty() && new.down.is_none());
        }
    }

    #[test]
    fn a_sequence_is_read_back_in_every_layout_and_nothing_stands_against_it() {
        use crate::migration::lint::{self, Policy, Severity};
        let plain = "select 1;";
        let names = Names { table: Some("t".to_owned()), column: Some("a".to_owned()), ..Names::default() };
        let policy = Policy::new(true, &crate::settings::LintSettings::default());
        for (name, text) in [
            ("1_a.sql", "-- UP\nselect 1;\n-- DOWN\nselect 1;"),
            ("1_a.sql", "-- @metadata {\"author\": \"x\"}\n-- UP\nselect 1;\n-- DOWN\nselect 1;"),
            ("1_a.sql", "-- FORWARD MIGRATION\nselect 1;\n-- ROLLBACK\nselect 1;"),
            ("1_a.sql", plain),
            ("1_a.up.sql", plain),
            ("2025-01-01_a.sql", plain),
            ("a.sql", "begin;\nselect 1;\ncommit;"),
            ("20250101000000_a.sql", plain),
            ("20250101_a.sql", plain),
            ("1_a.sql", "-- migrate:up\nselect 1;"),
            ("1_a.sql", "-- +goose Up\nselect 1;"),
            ("1_a.sql", "-- +migrate Up\nselect 1;"),
            ("1_a.sql", "-- Up Migration\nselect 1;"),
            ("2025-01-01-000000_a/up.sql", plain),
            ("20250101000000_a/migration.sql", plain),
            ("V9__a.sql", plain),
        ] {
            for pattern in [Pattern::ExpandContract, Pattern::OnlineTable, Pattern::Progressive] {
                let dir = tempfile::tempdir().unwrap();
                let folder = dir.path().join("m");
                let path = folder.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, text).unwrap();
                let new = NewMigration {
                    name: "big change".to_owned(),
                    description: None,
                    kind: "ddl".to_owned(),
                    breaking: false,
                    author: "x".to_owned(),
                };
                let now = chrono::Utc.with_ymd_and_hms(2026, 2, 3, 4, 5, 6).unwrap();
                let written = create_sequence(&folder, None, &new, (pattern, &names), now).unwrap();
                let later = written.iter().filter(|one| one.later.is_some()).count();
                let there = read(&folder, None).unwrap().migrations.len();
                assert_eq!(there, 1 + written.len() - later, "{text} {pattern:?}");
                let next = create(&folder, None, &NewMigration { name: "zz".to_owned(), ..new }, now).unwrap();
                assert!(next.iter().all(|path| !path.starts_with(later_folder(&folder))));
                // Moved over, all of them are in their order, and no number is there twice.
                for entry in std::fs::read_dir(later_folder(&folder)).unwrap() {
                    let entry = entry.unwrap();
                    std::fs::rename(entry.path(), folder.join(entry.file_name())).unwrap();
                }
                let read = read(&folder, None).unwrap();
                let first = |name: &str| name.split("big_change_").nth(1).map(|rest| rest[..1].to_owned());
                let steps: Vec<String> = read.migrations.iter().filter_map(|one| first(&one.file_name)).collect();
                let steps = if steps.is_empty() {
                    read.migrations.iter().filter_map(|one| first(one.path.to_str().unwrap())).collect()
                } else {
                    steps
                };
                let expected: Vec<String> = (1..=written.len()).map(|number| number.to_string()).collect();
                assert_eq!(steps, expected, "{text} {pattern:?}");
                let variables = crate::migration::Variables::default();
                let judged: Vec<_> = read.migrations.iter().map(|one| one.with_names(&variables)).collect();
                let errors: Vec<_> = lint::judge(&judged, &judged[1..], &policy)
                    .into_iter()
                    .filter(|one| one.severity == Severity::Error)
                    .collect();
                assert_eq!(errors, [], "{text} {pattern:?}");
            }
        }
    }

    #[test]
    fn metadata_survive_the_round() {
        let (dir, _) = make(&[], Some("metadata"), "x");
        let metadata = read(dir.path(), None).unwrap().migrations.remove(0).metadata;
        assert_eq!(metadata.author.as_deref(), Some("Ann B"));
        assert_eq!(metadata.description.as_deref(), Some("for \"all\" of us"));
        assert!(metadata.breaking);
        assert_eq!(metadata.tags, ["ddl"]);
    }

    #[test]
    fn nothing_is_overwritten_and_names_need_a_letter() {
        let (dir, _) = make(&[], None, "x");
        let path = dir.path().join("001_x.sql");
        assert!(write_new(&path, "").is_err());
        assert!(!std::fs::read_to_string(path).unwrap().is_empty());
        assert_eq!(snake_case("  Ünïcode -- name.sql"), "ünïcode_name");
        assert_eq!(snake_case("../../etc/x"), "etc_x");
        assert_eq!(snake_case(&"ab ".repeat(100)).len(), 50);
        let new = NewMigration {
            name: "!!".to_owned(),
            description: None,
            kind: "ddl".to_owned(),
            breaking: false,
            author: String::new(),
        };
        assert!(create(dir.path(), None, &new, crate::clock::now()).is_err());
    }
}
