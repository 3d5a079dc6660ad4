//! A folder a migration: diesel's `up.sql` and `down.sql`, Prisma's `migration.sql`.

use std::path::{Path, PathBuf};

use super::super::Metadata;
use super::file::read_beside;
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

pub(super) struct Folders;

impl Layout for Folders {
    fn name(&self) -> &'static str {
        "folders"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        page.is_folder().then_some("a folder a migration, as diesel and Prisma have them")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        Ok(Halves { up: page.whole(), down: None })
    }
}

/// The SQL files of a folder that is a migration, each with the name that it would have as a file.
pub(super) fn files(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    if !name.starts_with(|first: char| first.is_ascii_digit()) {
        return Ok(Vec::new());
    }
    let (diesel, prisma) = (folder.join("up.sql"), folder.join("migration.sql"));
    let stem = without_dashes(name);
    let mut files = match (diesel.is_file(), prisma.is_file()) {
        (true, true) => {
            return Err(Error::failed(format!("`{name}` holds an `up.sql` and a `migration.sql`"))
                .hint("keep the one that the migration is"));
        }
        (true, false) => vec![(diesel, format!("{stem}.up"))],
        (false, true) => vec![(prisma, stem.clone())],
        (false, false) => return Ok(Vec::new()),
    };
    let down = folder.join("down.sql");
    if down.is_file() {
        files.push((down, format!("{stem}.down")));
    }
    Ok(files)
}

/// diesel's `2024-01-31-120000_name` is version 20240131120000; what newer ones write behind (`-0000`) comes after
/// that, and before the next second.
pub(super) fn without_dashes(name: &str) -> String {
    let (date, rest) = name.split_once('_').unwrap_or((name, ""));
    let lengths: Vec<usize> = date.split('-').map(str::len).collect();
    let digits = date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let parts: Vec<&str> = date.split('-').collect();
    match parts.as_slice() {
        [year, month, day, time] if digits && lengths.starts_with(&[4, 2, 2]) => {
            format!("{year}{month}{day}{time}_{rest}")
        }
        [year, month, day, time, more] if digits && lengths.starts_with(&[4, 2, 2]) => {
            format!("{year}{month}{day}{time}.{more}_{rest}")
        }
        _ => name.to_owned(),
    }
}

/// Whether diesel's `metadata.toml` beside a file asks for no transaction: the number of the line that does.
pub(super) fn asks_alone(file: &Path) -> Result<Option<u32>> {
    let path = file.with_file_name("metadata.toml");
    let Some((text, table)) = table(&path)? else { return Ok(None) };
    let line = line_of(&text, "run_in_transaction");
    match table.get("run_in_transaction") {
        None | Some(toml::Value::Boolean(true)) => Ok(None),
        Some(toml::Value::Boolean(false)) => Ok(Some(line)),
        Some(_) => Err(Error::failed(format!(
            "`{}`, line {line}: `run_in_transaction` must be `true` or `false`",
            path.display()
        ))),
    }
}

/// Prisma's `migration_lock.toml` says for which database the folder is; another than PostgreSQL is an error.
pub(super) fn check_provider(folder: &Path) -> Result<()> {
    let path = folder.join("migration_lock.toml");
    let Some((text, table)) = table(&path)? else { return Ok(()) };
    let line = line_of(&text, "provider");
    match table.get("provider").map(|provider| provider.as_str()) {
        None | Some(Some("postgresql" | "postgres")) => Ok(()),
        Some(Some(provider)) => {
            Err(Error::failed(format!("`{}`, line {line} is for `{provider}`, and this is PostgreSQL", path.display())))
        }
        Some(None) => {
            Err(Error::failed(format!("`{}`, line {line}: `provider` must be a text in quotes", path.display())))
        }
    }
}

/// A file of TOML with its text; `None`: there is none.
fn table(path: &Path) -> Result<Option<(String, toml::Table)>> {
    let Some(text) = read_beside(path)? else { return Ok(None) };
    let table = text.parse::<toml::Table>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        Error::failed(format!("`{}`, line {line}: it is no TOML", path.display())).because(error.message())
    })?;
    Ok(Some((text, table)))
}

/// The number of the line that sets a key.
fn line_of(text: &str, key: &str) -> u32 {
    let at = text.lines().position(|line| line.trim_start().starts_with(key));
    at.and_then(|at| u32::try_from(at + 1).ok()).unwrap_or(1)
}
