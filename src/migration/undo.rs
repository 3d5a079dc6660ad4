//! Which applied migrations a rollback undoes.

use super::Applied;
use super::plan::nearest;
use crate::error::{Error, Result};

/// Which of the applied migrations a rollback undoes.
#[derive(Clone, Debug)]
pub enum Undo {
    /// The last N.
    Steps(usize),
    /// Everything after this version, which stays.
    Target(String),
    /// Everything after batch N, which stays.
    Batch(i32),
    /// Everything after this name, which stays.
    To(String),
    /// This one alone.
    Only(String),
}

/// Plans a rollback: the applied migrations to undo, newest first. `applied` is in the order of applying.
pub fn plan_undo(applied: &[Applied], undo: &Undo) -> Result<Vec<Applied>> {
    let newest_first = |from: usize| -> Vec<Applied> { applied.iter().skip(from).rev().cloned().collect() };
    match undo {
        Undo::Steps(steps) if *steps > applied.len() => Err(Error::usage(format!(
            "cannot undo {steps} migration{}: {} applied",
            if *steps == 1 { "" } else { "s" },
            match applied.len() {
                0 => "none is".to_owned(),
                1 => "only 1 is".to_owned(),
                count => format!("only {count} are"),
            }
        ))
        .hint("ripcord history")),
        Undo::Steps(steps) => Ok(newest_first(applied.len() - steps)),
        Undo::Target(name) | Undo::To(name) => Ok(newest_first(position(applied, name)? + 1)),
        Undo::Only(name) => {
            let at = position(applied, name)?;
            Ok(applied.iter().skip(at).take(1).cloned().collect())
        }
        Undo::Batch(batch) => {
            // 0 is the state before the first batch.
            if *batch != 0 && !applied.iter().any(|one| one.batch == *batch) {
                return Err(
                    Error::usage(format!("there is no batch {batch}{}", batches(applied))).hint("ripcord history")
                );
            }
            Ok(applied.iter().rev().filter(|one| one.batch > *batch).cloned().collect())
        }
    }
}

fn batches(applied: &[Applied]) -> String {
    let mut batches: Vec<_> = applied.iter().map(|one| one.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    match (batches.first(), batches.last()) {
        (Some(first), Some(last)) => format!("; batches applied: {first} to {last}"),
        _ => ": nothing is applied".to_owned(),
    }
}

/// The one applied migration of this version, name, label or file name; the latest when it was applied
/// under one name twice.
fn position(applied: &[Applied], wanted: &str) -> Result<usize> {
    let found: Vec<usize> =
        (0..applied.len()).filter(|&at| applied.get(at).is_some_and(|one| one.is_called(wanted))).collect();
    match found.as_slice() {
        [at] => Ok(*at),
        [] => {
            let known = applied.iter().map(Applied::label);
            let near = nearest(wanted, known);
            let error = Error::usage(format!("no applied migration is called `{wanted}`"));
            Err(if near.is_empty() {
                error.hint("ripcord status")
            } else {
                error.because(format!("near: {}", near.join(", "))).hint("ripcord status")
            })
        }
        several => {
            let labels: Vec<String> =
                several.iter().filter_map(|&at| applied.get(at)).map(|one| format!("`{}`", one.label())).collect();
            Err(Error::usage(format!("`{wanted}` means more than one applied migration: {}", labels.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Version;

    fn applied() -> Vec<Applied> {
        [("001", "users", 1), ("002", "orders", 1), ("003", "lines", 2), ("2.5", "late", 3)]
            .into_iter()
            .map(|(version, name, batch)| Applied {
                version: Version(version.to_owned()),
                name: name.to_owned(),
                checksum: String::new(),
                loose_checksum: None,
                batch,
            })
            .collect()
    }

    fn undone(undo: Undo) -> Vec<String> {
        let plan = plan_undo(&applied(), &undo).unwrap();
        plan.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn each_way_keeps_what_it_says() {
        assert_eq!(undone(Undo::Steps(1)), ["late"]);
        assert_eq!(undone(Undo::Steps(0)), Vec::<String>::new());
        assert_eq!(undone(Undo::Steps(4)).len(), 4);
        assert_eq!(undone(Undo::Batch(1)), ["late", "lines"]);
        assert_eq!(undone(Undo::Batch(0)).len(), 4);
        assert_eq!(undone(Undo::Batch(3)), Vec::<String>::new());
        assert_eq!(undone(Undo::Target("2".into())), ["late", "lines"]);
        assert_eq!(undone(Undo::To("orders".into())), ["late", "lines"]);
        assert_eq!(undone(Undo::To("001_users.sql".into())), ["late", "lines", "orders"]);
        assert_eq!(undone(Undo::Only("002_orders".into())), ["orders"]);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let fails = |undo: Undo| plan_undo(&applied(), &undo).unwrap_err();
        assert_eq!(fails(Undo::Steps(5)).message(), "cannot undo 5 migrations: only 4 are applied");
        assert_eq!(fails(Undo::Batch(9)).message(), "there is no batch 9; batches applied: 1 to 3");
        let error = fails(Undo::To("order".into()));
        assert_eq!(error.causes(), ["near: `002_orders`"]);
        assert_eq!(error.kind(), crate::error::Kind::Usage);
        assert!(plan_undo(&[], &Undo::Steps(1)).is_err());
        assert!(plan_undo(&[], &Undo::Steps(0)).unwrap().is_empty());
    }

    #[test]
    fn a_name_that_means_two_is_refused() {
        let mut applied = applied();
        applied[3].name = "orders".to_owned();
        let error = plan_undo(&applied, &Undo::Only("orders".into())).unwrap_err();
        assert!(error.message().contains("`002_orders`, `2.5_orders`"), "{error}");
    }
}
