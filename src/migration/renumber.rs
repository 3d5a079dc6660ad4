//! Mending duplicate numbers: which files get which new name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Applied, Migration};
use crate::error::{Error, Result};

/// A file and the name that it gets.
pub type Renaming = (PathBuf, PathBuf);

/// New names for files that share their number with another. Files that were applied keep theirs; of several
/// that were not, the first by name keeps it. The others move behind the highest number, in their order.
/// Nothing is renamed here.
///
/// # Errors
/// When two files of one number were both applied, and when a number is no number (a date, say).
pub fn plan(migrations: &[Migration], applied: &[Applied]) -> Result<Vec<Renaming>> {
    let mut by_version: BTreeMap<&super::Version, Vec<&Migration>> = BTreeMap::new();
    for migration in migrations {
        by_version.entry(&migration.version).or_default().push(migration);
    }
    let mut next = by_version.keys().filter_map(|version| number(version.as_str())).max().unwrap_or(0);
    let is_applied = |one: &Migration| {
        applied.iter().any(|row| row.version == one.version && (row.name == one.name || row.checksum == one.checksum))
    };
    let mut renamings = Vec::new();
    for (version, mut files) in by_version.into_iter().filter(|(_, files)| files.len() > 1) {
        let width = version.as_str().len();
        if number(version.as_str()).is_none() {
            return Err(Error::usage(format!(
                "`{version}` is no plain number, so the files of that version cannot be renumbered"
            ))
            .hint("rename one of them by hand"));
        }
        files.sort_by_key(|file| (!is_applied(file), file.file_name.clone()));
        if files.iter().filter(|file| is_applied(file)).count() > 1 {
            return Err(Error::failed(format!(
                "more than one file of version `{version}` was applied, and applied files keep their numbers"
            ))
            .hint("ripcord repair --forget NAME, for the one that is not to count"));
        }
        for file in files.into_iter().skip(1) {
            next += 1;
            renamings.extend(renamed(&file.path, version.as_str(), &format!("{next:0width$}")));
        }
    }
    Ok(renamings)
}

fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

/// The file, and its `.down.sql` beside it when there is one.
fn renamed(path: &Path, old: &str, new: &str) -> Vec<Renaming> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let Some(rest) = name.strip_prefix(old) else { return Vec::new() };
    let mut pairs = vec![(path.to_owned(), path.with_file_name(format!("{new}{rest}")))];
    let stem = rest.strip_suffix(".up.sql").or_else(|| rest.strip_suffix(".sql"));
    if let Some(stem) = stem {
        let down = path.with_file_name(format!("{old}{stem}.down.sql"));
        if down.is_file() {
            pairs.push((down, path.with_file_name(format!("{new}{stem}.down.sql"))));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::source;

    #[test]
    fn applied_files_keep_their_numbers_and_the_others_move_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["001_a.sql", "002_b.sql", "002_c.sql", "002_c.down.sql", "003_d.sql"] {
            std::fs::write(folder.path().join(name), "SELECT 1;").unwrap();
        }
        let read = source::read(folder.path(), None).unwrap();
        let names = |applied: &[Applied]| -> Vec<(String, String)> {
            let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
            plan(&read.migrations, applied).unwrap().iter().map(|(from, to)| (name(from), name(to))).collect()
        };
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(names(&[]), [pair("002_c.sql", "004_c.sql"), pair("002_c.down.sql", "004_c.down.sql")]);
        let c = read.migrations.iter().find(|one| one.name == "c").unwrap();
        let applied = Applied {
            version: c.version.clone(),
            name: c.name.clone(),
            checksum: c.checksum.clone(),
            loose_checksum: None,
            batch: 1,
        };
        assert_eq!(names(&[applied]), [pair("002_b.sql", "004_b.sql")]);
    }
}
