//! A curated order: names and globs, in the order in which they are to run.

use super::super::Migration;
use super::super::plan::nearest;
use crate::error::{Error, Result};

/// Gives each migration the place of the first pattern that means it, and sorts them.
pub(super) fn rank(migrations: &mut [Migration], patterns: &[String]) -> Result<()> {
    if patterns.is_empty() {
        return Ok(());
    }
    for migration in migrations.iter_mut() {
        let at = patterns.iter().position(|pattern| means(pattern, migration));
        migration.rank = at.and_then(|at| u32::try_from(at).ok());
    }
    for (at, pattern) in patterns.iter().enumerate() {
        // Named before by a wider pattern is fine; named by nothing is a slip.
        if !migrations.iter().any(|migration| means(pattern, migration)) {
            let near = nearest(pattern, migrations.iter().map(Migration::label));
            let error = Error::usage(format!("`order` names `{pattern}` in place {}, which is no migration", at + 1));
            return Err(match near.is_empty() {
                true => error,
                false => error.because(format!("near: {}", near.join(", "))),
            }
            .hint("mend `order` in ripcord.toml"));
        }
    }
    migrations.sort_by(|one, other| one.place().cmp(&other.place()));
    Ok(())
}

fn means(pattern: &str, migration: &Migration) -> bool {
    if !pattern.contains(['*', '?']) {
        return migration.is_called(pattern);
    }
    let pattern: Vec<char> = pattern.strip_suffix(".sql").unwrap_or(pattern).chars().collect();
    let name: Vec<char> = migration.file_name.strip_suffix(".sql").unwrap_or(&migration.file_name).chars().collect();
    fits(&pattern, &name)
}

/// Whether a glob fits a whole name. Linear for each `*`: it goes back to the last one only.
fn fits(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || name.get(from) == Some(wanted) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((place, tried)) => {
                    at = place + 1;
                    from = tried + 1;
                    star = Some((place, from));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    #[test]
    fn globs_fit_whole_names() {
        let fits = |pattern: &str, name: &str| {
            let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            super::fits(&pattern, &name)
        };
        for (pattern, name) in [
            ("2025-12-28_create_*_tables_final", "2025-12-28_create_crm_tables_final"),
            ("*", ""),
            ("**a?", "bbab"),
            ("a*b*c", "axbxxbxc"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a*", "ba"), ("a?", "a"), ("a*b", "abc"), ("", "a")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
