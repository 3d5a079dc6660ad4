//! Folders of migrations: one file a layout.

mod banners;
mod beside;
mod comments;
mod dated;
mod dbmate;
mod drizzle;
mod file;
mod flyway;
mod folders;
mod goose;
mod layouts;
mod metadata;
pub(crate) mod names;
mod node_pg_migrate;
mod numbered;
mod order;
mod plain;
mod sql_migrate;
mod transaction;
mod unread;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::drizzle::Journal;
use self::file::SqlFile;
use self::layouts::{ALL, Layout};
use self::names::{Named, Side, Style};
use super::tree::each;
use super::{Migration, Version};
use crate::error::{Error, Result};

/// A folder, read.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// The layout's name.
    pub layout: &'static str,
    /// Why this layout was chosen, for `status --verbose`.
    pub reason: String,
    /// The migrations, in their order, dependencies left aside.
    pub migrations: Vec<Migration>,
    /// Files that were left out, and why.
    pub skipped: Vec<(PathBuf, String)>,
    /// Those of `skipped` that nobody left out on purpose: their names fit no layout.
    pub misnamed: Vec<PathBuf>,
}

/// Where projects usually keep their migrations.
const USUAL: [&str; 8] = [
    "migrations",
    "db/migrations",
    "backend/migrations",
    "src/database/migrations",
    "supabase/migrations",
    "database/migrations",
    "prisma/migrations",
    "drizzle",
];

/// Finds the folder among the usual ones below `base`. Two found is an error that names both; none is
/// an error that says where it looked.
pub fn find(base: &Path) -> Result<PathBuf> {
    let holds_sql = |folder: &PathBuf| {
        std::fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| names::stem(&entry.file_name().to_string_lossy()).is_some())
        })
    };
    let mut found: Vec<PathBuf> = USUAL.iter().map(|usual| base.join(usual)).filter(holds_sql).collect();
    // A folder that is there and still empty is the project's, when it is the only one.
    if found.is_empty() {
        found = USUAL.iter().map(|usual| base.join(usual)).filter(|folder| folder.is_dir()).collect();
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Error::usage(format!("no folder of migrations below `{}`", base.display()))
            .because(format!("looked for `.sql` files in `{}`", USUAL.join("`, `")))
            .hint("name it: --migrations-dir DIR")),
        _ => {
            let shown: Vec<String> = found.iter().map(|folder| format!("`{}`", folder.display())).collect();
            Err(Error::usage(format!("more than one folder of migrations: {}", shown.join(", ")))
                .hint("say which: --migrations-dir DIR"))
        }
    }
}

/// Reads a folder. `layout` forces one by name: one of those in `docs/layouts.md`.
///
/// Each file is read by its own markers; the folder's layout is the majority's. Errors name the file, and
/// the line where there is one: text that is not UTF-8, a file that cannot be read or lies outside the
/// folder, metadata or directives that cannot be understood, SQL that cannot be cut into statements.
pub fn read(folder: &Path, layout: Option<&str>) -> Result<Folder> {
    let forced = layout.map(forced_layout).transpose()?;
    let files = list(folder)?;
    let journal = Journal::open(folder)?;
    unread::refuse_folder(folder)?;
    folders::check_provider(folder)?;
    flyway::refuse_unread(&files)?;
    let mut reading = Reading::default();
    let ups = reading.sort(files);

    let mut pages = Vec::with_capacity(ups.len());
    for (path, named) in ups {
        let downs = reading.take_downs(&named);
        if let [_, second, ..] = downs.as_slice() {
            return Err(Error::failed(format!(
                "`{}` is a second DOWN for version `{}`",
                second.display(),
                named.version
            )));
        }
        pages.push(SqlFile::open(folder, path, named, downs.into_iter().next())?);
    }
    for (path, _) in std::mem::take(&mut reading.downs) {
        reading.misname(path, "a DOWN without the UP that it belongs to");
    }

    let mut counts = [0_usize; ALL.len()];
    let mut chosen = Vec::with_capacity(pages.len());
    for page in &pages {
        let (at, why) = match forced {
            Some(at) => (at, "asked for"),
            None => page.layout(journal.as_ref()),
        };
        if let Some(count) = counts.get_mut(at) {
            *count += 1;
        }
        chosen.push((at, why));
    }
    let majority = forced.unwrap_or_else(|| majority(&counts));
    let name = layout_at(majority).name();
    let reason = reason(&counts, majority, &chosen, forced.is_some());

    // Names without a number count where the folder's own tool takes them, or where no file has one.
    let takes_unnumbered = journal.is_some()
        || matches!(name, "banners" | "transaction")
        || pages.iter().all(|page| page.named.style == Style::None);
    let mut migrations = Vec::with_capacity(pages.len());
    let mut told_by_name = BTreeSet::new();
    let laid_out: Vec<(&SqlFile, &dyn Layout)> =
        pages.iter().zip(&chosen).map(|(page, (at, _))| (page, layout_at(*at))).collect();
    // Most of the time goes by in the parser. What is left out in the end was read for nothing.
    let mut read = each(&laid_out, |(page, layout)| page.migration(*layout)).into_iter();
    drop(laid_out);
    for (page, (at, _)) in pages.into_iter().zip(chosen) {
        let migration = read.next();
        let layout = layout_at(at);
        let place = page.place(journal.as_ref());
        let marked = !matches!(layout.name(), "plain" | "numbered" | "dated" | "folders" | "flyway");
        let unnumbered = page.named.style == Style::None && !marked;
        if name == "banners" && page.file_name.contains("deprecated") {
            reading.skip(page.path, "its name says deprecated");
        } else if page.named.style == Style::NoDate {
            reading.misname(page.path, "its name begins with no date: expected `YYYY-MM-DD_description.sql`");
        } else if journal.is_some() && place.is_none() && page.named.style == Style::Number && !marked {
            reading.misname(page.path, "Drizzle's meta/_journal.json does not name it, so that Drizzle never ran it");
        } else if unnumbered && !takes_unnumbered {
            reading.misname(page.path, "its name has no version, and it has no marker: expected `001_name.sql`");
        } else {
            let master = is_master(&page.file_name);
            let Some(mut migration) = migration.transpose()? else { continue };
            if master {
                // Several may lie there: each is told by its whole name, which sorts before all numbers.
                migration.version = Version(names::stem(&migration.file_name).unwrap_or_default().to_owned());
                migration.master = true;
            }
            migration.rank = place.and_then(|place| u32::try_from(place).ok());
            // These tools record whole names, so one time may stand in several.
            let by_name = migration.file_name.ends_with("/migration.sql")
                || matches!(layout.name(), "sql-migrate" | "node-pg-migrate");
            if by_name || migration.rank.is_some() {
                told_by_name.insert(migration.path.clone());
            }
            migrations.push(migration);
        }
    }
    migrations.sort_by(|one, other| one.place().cmp(&other.place()));
    as_prisma_runs_them(&mut migrations);
    number_twice(&mut migrations, &told_by_name);
    // refinery and Flyway look into folders as well.
    for one in beside::find(folder, migrations.is_empty() || name == "flyway")? {
        match one.meant {
            true => reading.misname(one.path, &one.why),
            false => reading.skip(one.path, &one.why),
        }
    }
    reading.skipped.sort();
    Ok(Folder {
        path: folder.to_owned(),
        layout: name,
        reason,
        migrations,
        skipped: reading.skipped,
        misnamed: reading.misnamed,
    })
}

/// Prisma goes by whole names, byte by byte: a date alone comes after the times of its day. Where that is not the order
/// of the versions, each has its place.
fn as_prisma_runs_them(migrations: &mut [Migration]) {
    let name = |one: &Migration| version_name(&one.file_name);
    let prismas = migrations.iter().all(|one| one.file_name.ends_with("/migration.sql"));
    if !prismas || migrations.is_sorted_by_key(name) {
        return;
    }
    migrations.sort_by_key(name);
    for (place, migration) in migrations.iter_mut().enumerate() {
        migration.rank = u32::try_from(place).ok();
    }
}

/// Where the folder's own tool tells migrations by their whole names, or by a journal, several may have one number, as
/// when branches met. The first in the order keeps it; the others are told by their whole names.
fn number_twice(migrations: &mut [Migration], told_by_name: &BTreeSet<PathBuf>) {
    let mut seen: BTreeSet<Version> = BTreeSet::new();
    for migration in migrations.iter_mut().filter(|migration| told_by_name.contains(&migration.path)) {
        if !seen.insert(migration.version.clone()) {
            migration.version = Version(version_name(&migration.file_name).unwrap_or_default());
        }
    }
}

/// The texts of a folder's migrations by file name, as far as they can be read.
pub(crate) fn read_texts(folder: &Path) -> Result<Vec<(String, String)>> {
    let files = list(folder)?;
    // Reading a pipe would wait for ever.
    let texts = files.into_keys().filter(|path| path.is_file()).map(|path| {
        let name = path.strip_prefix(folder).ok().map(|name| name.to_string_lossy().into_owned());
        let text = std::fs::read(&path).unwrap_or_default();
        (name.unwrap_or_default(), String::from_utf8_lossy(&text).into_owned())
    });
    Ok(texts.collect())
}

/// The part of a file's name that its version stands in; of a migration that is a folder, the folder's.
pub(crate) fn version_name(file: &str) -> Option<String> {
    match file.split_once('/') {
        Some((folder, half)) => {
            let side = if half == "down.sql" { ".down" } else { "" };
            Some(format!("{}{side}", folders::without_dashes(folder)))
        }
        None => names::stem(file).map(str::to_owned),
    }
}

/// The layout that most of these texts have, without reading further into them.
pub(crate) fn layout_name(texts: &[(String, String)]) -> &'static str {
    let mut counts = [0_usize; ALL.len()];
    for (file, text) in texts {
        let named = names::parse(names::stem(file).unwrap_or(file));
        if named.side == Side::Down {
            continue;
        }
        let has_down_file = texts.iter().any(|(other, _)| {
            let other = names::parse(names::stem(other).unwrap_or(other));
            other.side == Side::Down && other.version == named.version
        });
        let (at, _) = file::claim(file, text, &named, has_down_file, false);
        if let Some(count) = counts.get_mut(at) {
            *count += 1;
        }
    }
    layout_at(majority(&counts)).name()
}

/// Of equals the first that is listed; of nothing, `numbered`.
fn majority(counts: &[usize]) -> usize {
    let numbered = ALL.iter().position(|layout| layout.name() == "numbered").unwrap_or_default();
    match counts.iter().copied().max().unwrap_or_default() {
        0 => numbered,
        most => counts.iter().position(|&count| count == most).unwrap_or(numbered),
    }
}

fn layout_at(at: usize) -> &'static dyn Layout {
    ALL.get(at).copied().unwrap_or(&plain::Plain)
}

/// The names of all layouts, as the configuration knows them.
pub fn layouts() -> Vec<&'static str> {
    ALL.iter().map(|layout| layout.name()).collect()
}

fn forced_layout(wanted: &str) -> Result<usize> {
    ALL.iter().position(|layout| layout.name() == wanted).ok_or_else(|| {
        let known: Vec<String> = ALL.iter().map(|layout| format!("`{}`", layout.name())).collect();
        Error::usage(format!("no layout is called `{wanted}`")).because(format!("known: {}", known.join(", ")))
    })
}

fn reason(counts: &[usize], majority: usize, chosen: &[(usize, &str)], forced: bool) -> String {
    if forced {
        return "asked for".to_owned();
    }
    let total: usize = counts.iter().sum();
    if total == 0 {
        return "the folder is empty".to_owned();
    }
    let whys: BTreeSet<&str> = chosen.iter().filter(|(at, _)| *at == majority).map(|(_, why)| *why).collect();
    let whys: Vec<&str> = whys.into_iter().collect();
    let count = counts.get(majority).copied().unwrap_or_default();
    format!("{count} of {total} files: {}", whys.join("; "))
}

/// The `.sql` files of a folder by name, `(path, name without ending)`.
fn list(folder: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let cannot = |cause: std::io::Error| {
        let hint = if cause.kind() == std::io::ErrorKind::NotFound {
            "name the folder of migrations: --migrations-dir DIR"
        } else {
            "see to it that the folder can be read"
        };
        Error::usage(format!("cannot read the folder `{}`", folder.display())).because(cause).hint(hint)
    };
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if path.is_dir() {
            let inside = folders::files(&path)?;
            if inside.is_empty() && name.as_deref().and_then(names::stem).is_some() {
                return Err(Error::failed(format!("cannot read `{}`: it is a folder", path.display()))
                    .hint("give the folder a name without `.sql`, or move it away"));
            }
            files.extend(inside);
        } else if let Some(stem) = name.as_deref().and_then(names::stem) {
            files.insert(path.clone(), stem.to_owned());
        }
    }
    Ok(files)
}

/// `001_a_down.sql` is a DOWN, when `001_a.sql` or `001_a_up.sql` lies beside it; alone it is a name like any other.
fn paired(stem: &str, stems: &BTreeSet<String>) -> Option<Named> {
    let lower = stem.to_ascii_lowercase();
    let before = |ending: &str| stem.get(..lower.strip_suffix(ending)?.len());
    if let Some(base) =
        ["_down", "-down", "_rollback", ".rollback", "_undo", ".undo"].iter().find_map(|one| before(one))
    {
        let named = names::parse(base);
        let beside = [base.to_owned(), format!("{base}_up"), format!("{base}-up")];
        let versioned = named.style != Style::None;
        return (versioned && beside.iter().any(|one| stems.contains(one)))
            .then_some(Named { side: Side::Down, ..named });
    }
    let base = before("_up").or_else(|| before("-up"))?;
    let named = names::parse(base);
    let beside = [format!("{base}_down"), format!("{base}-down")];
    (named.style != Style::None && beside.iter().any(|one| stems.contains(one)))
        .then_some(Named { side: Side::Up { marked: true }, ..named })
}

/// A file that holds the whole schema: `000_MASTER_*`.
fn is_master(file_name: &str) -> bool {
    file_name.to_ascii_uppercase().starts_with("000_MASTER")
}

/// The order that `patterns` write down: names and globs (`*`, `?`), each a file's name, version or label. What
/// none of them names keeps its place, after all that are named. An error names a pattern that means no file.
pub fn in_order(mut folder: Folder, patterns: &[String]) -> Result<Folder> {
    order::rank(&mut folder.migrations, patterns)?;
    Ok(folder)
}

/// Whether Drizzle keeps a journal in the folder.
pub(crate) fn has_journal(folder: &Path) -> bool {
    Journal::open(folder).is_ok_and(|journal| journal.is_some())
}

/// What Drizzle's journal says of each migration: the file's name without ending, and `created_at`.
pub fn drizzle_entries(folder: &Path) -> Result<Vec<(String, i64)>> {
    Ok(drizzle::entries(folder)?.into_iter().map(|entry| (entry.tag, entry.when)).collect())
}

/// The files that are not read as UP.
#[derive(Default)]
struct Reading {
    downs: Vec<(PathBuf, Named)>,
    skipped: Vec<(PathBuf, String)>,
    misnamed: Vec<PathBuf>,
}

impl Reading {
    fn skip(&mut self, path: PathBuf, why: &str) {
        self.skipped.push((path, why.to_owned()));
    }

    fn misname(&mut self, path: PathBuf, why: &str) {
        self.misnamed.push(path.clone());
        self.skip(path, why);
    }

    /// Keeps DOWNs and what is left out on purpose; returns the UPs.
    fn sort(&mut self, files: BTreeMap<PathBuf, String>) -> Vec<(PathBuf, Named)> {
        let mut ups = Vec::new();
        let stems: BTreeSet<String> = files.values().cloned().collect();
        for (path, stem) in files {
            let mut named = paired(&stem, &stems).unwrap_or_else(|| names::parse(&stem));
            // Flyway's U undoes the V of its version; alone it is refinery's, and an UP.
            if let Some(('U', version, _)) = flyway::version(&stem) {
                let of = |other: &String| matches!(flyway::version(other), Some(('V', its, _)) if its == version);
                named.side = if stems.iter().any(of) { Side::Down } else { named.side };
            }
            if stem.starts_with("COMBINED_") {
                self.skip(path, "a combined file");
            } else if named.side == Side::Down {
                self.downs.push((path, named));
            } else {
                ups.push((path, named));
            }
        }
        ups
    }

    /// The DOWN files of an UP: of its very name, otherwise of its version.
    fn take_downs(&mut self, up: &Named) -> Vec<PathBuf> {
        let same_name = |down: &Named| down.version == up.version && down.name == up.name;
        let same_version = |down: &Named| down.version == up.version;
        let by_name = self.downs.iter().any(|(_, down)| same_name(down));
        let (taken, left) = std::mem::take(&mut self.downs)
            .into_iter()
            .partition(|(_, down)| if by_name { same_name(down) } else { same_version(down) });
        self.downs = left;
        let taken: Vec<(PathBuf, Named)> = taken;
        taken.into_iter().map(|(path, _)| path).collect()
    }
}

#[cfg(test)]
mod tests;
