//! Drizzle's folder: `0000_name.sql` in the order of `meta/_journal.json`, statements parted by
//! `--> statement-breakpoint`.

use std::path::Path;

use serde::Deserialize;

use super::super::Metadata;
use super::file::read_beside;
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

pub(super) struct Drizzle;

impl Layout for Drizzle {
    fn name(&self) -> &'static str {
        "drizzle"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        page.in_journal.then_some("meta/_journal.json names it")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        Ok(Halves { up: page.whole(), down: None })
    }

    fn breakpoint(&self) -> Option<&'static str> {
        Some("--> statement-breakpoint")
    }
}

/// Where Drizzle keeps the order, below the folder.
const JOURNAL: &str = "meta/_journal.json";

/// The migrations that Drizzle knows, in its order.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct File {
    dialect: Option<String>,
    entries: Vec<Entry>,
}

/// One migration of Drizzle's.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Entry {
    /// The file's name, without `.sql`.
    pub tag: String,
    /// What Drizzle's table calls `created_at`: milliseconds since 1970.
    pub when: i64,
}

impl Journal {
    /// Reads the journal of a folder; `None`: it has none, and is no folder of Drizzle's.
    pub fn open(folder: &Path) -> Result<Option<Journal>> {
        let path = folder.join(JOURNAL);
        let Some(text) = read_beside(&path)? else { return Ok(None) };
        let shown = path.display();
        let file: File = serde_json::from_str(&text).map_err(|error| {
            Error::failed(format!("`{shown}`, line {}: it is no journal of Drizzle's", error.line()))
                .because(error)
                .because("expected: `{\"dialect\": \"postgresql\", \"entries\": [{\"tag\": \"0000_name\", \"when\": 1700000000000}]}`")
        })?;
        if let Some(dialect) = file.dialect.filter(|dialect| !matches!(dialect.as_str(), "postgresql" | "pg")) {
            return Err(Error::failed(format!("`{shown}` is for `{dialect}`, and this is PostgreSQL")));
        }
        for (at, entry) in file.entries.iter().enumerate() {
            let name = format!("{}.sql", entry.tag);
            if file.entries.iter().take(at).any(|other| other.tag == entry.tag) {
                return Err(Error::failed(format!("`{shown}` names `{name}` twice")));
            }
            if entry.tag.contains(['/', '\\']) || !folder.join(&name).is_file() {
                return Err(Error::failed(format!("`{shown}` names `{name}`, which is not in the folder"))
                    .hint("bring the file back, or take its entry out of the journal"));
            }
        }
        Ok(Some(Journal { entries: file.entries }))
    }

    /// The place of a file, by its name without ending.
    pub fn place(&self, stem: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.tag == stem)
    }
}

/// The entries of a folder's journal, in order: what Drizzle's table of applied migrations is matched with.
pub(super) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    Ok(Journal::open(folder)?.unwrap_or_default().entries)
}
