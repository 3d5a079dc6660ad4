//! A folder a migration: diesel's `up.sql` and `down.sql`, Prisma's `migration.sql`.

use std::path::{Path, PathBuf};

use super::super::Metadata;
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
pub(super) fn asks_alone(file: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(file.with_file_name("metadata.toml")).ok()?;
    let asks = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let value = value.split('#').next().unwrap_or_default();
        (key.trim() == "run_in_transaction" && value.trim() == "false").then_some(())
    };
    let at = text.lines().position(|line| asks(line).is_some())?;
    u32::try_from(at + 1).ok()
}

/// Prisma's `migration_lock.toml` says for which database the folder is; another than PostgreSQL is an error.
pub(super) fn check_provider(folder: &Path) -> Result<()> {
    let path = folder.join("migration_lock.toml");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let provider = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "provider").then(|| value.trim().trim_matches('"').to_owned())
    });
    match provider.filter(|provider| !matches!(provider.as_str(), "postgresql" | "postgres")) {
        Some(provider) => {
            Err(Error::failed(format!("`{}` is for `{provider}`, and this is PostgreSQL", path.display())))
        }
        None => Ok(()),
    }
}
