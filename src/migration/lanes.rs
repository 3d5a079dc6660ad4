//! Which migrations of a run may run beside each other: only those whose dependencies were declared.
//!
//! A migration belongs to the graph when it declares a dependency, or when another one of the run declares one on
//! it. It waits for what it depends on, directly or not, and for nothing else. Every other migration keeps its place: all
//! before it run before it, and all after it wait for it. So does one that must be alone.

use std::ops::Range;

use super::Migration;

/// For each migration of a run, in order, the positions of those that must be applied before it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    before: Vec<Vec<usize>>,
}

impl Lanes {
    /// Those of migrations that stand in an order which their dependencies allow.
    pub fn of(migrations: &[&Migration]) -> Lanes {
        let depends = |later: &Migration, earlier: &Migration| {
            later.metadata.dependencies.iter().any(|wanted| earlier.is_called(wanted))
        };
        let keeps_its_place = |at: usize, one: &Migration| {
            let declares = !one.metadata.dependencies.is_empty();
            let is_needed = || migrations.iter().enumerate().any(|(other, later)| other != at && depends(later, one));
            must_be_alone(one) || !(declares || is_needed())
        };
        let walls: Vec<bool> = migrations.iter().enumerate().map(|(at, one)| keeps_its_place(at, one)).collect();
        let is_wall = |at: usize| walls.get(at).copied().unwrap_or(true);
        let mut before: Vec<Vec<usize>> = Vec::with_capacity(migrations.len());
        for (at, one) in migrations.iter().enumerate() {
            let mut waits: Vec<usize> = Vec::new();
            for (earlier, other) in migrations.iter().enumerate().take(at) {
                if is_wall(at) || is_wall(earlier) || depends(one, other) {
                    waits.push(earlier);
                    waits.extend(before.get(earlier).into_iter().flatten());
                }
            }
            waits.sort_unstable();
            waits.dedup();
            before.push(waits);
        }
        Lanes { before }
    }

    /// Each after all that stand before it.
    pub fn one_after_the_other(count: usize) -> Lanes {
        Lanes { before: (0..count).map(|at| (0..at).collect()).collect() }
    }

    /// What must be applied before the one at that position begins.
    pub fn before(&self, at: usize) -> &[usize] {
        self.before.get(at).map_or(&[], Vec::as_slice)
    }

    /// Whether the two wait for each other in neither direction.
    pub fn may_be_beside(&self, one: usize, other: usize) -> bool {
        one != other && !self.before(one).contains(&other) && !self.before(other).contains(&one)
    }

    /// The positions of those that may run beside the one at that position.
    pub fn beside(&self, at: usize) -> Vec<usize> {
        (0..self.before.len()).filter(|other| self.may_be_beside(at, *other)).collect()
    }

    /// The positions cut where all that follows waits for all that stands before; within a part of more than one,
    /// some may run beside others.
    pub fn parts(&self) -> Vec<Range<usize>> {
        let count = self.before.len();
        // How many of the first ones it waits for, without a gap; of it and all after it, the fewest.
        let mut fewest = count;
        let mut cuts: Vec<usize> = Vec::new();
        for at in (0..count).rev() {
            let waits = self.before(at).iter().enumerate().take_while(|(place, other)| place == *other).count();
            fewest = fewest.min(waits);
            if fewest >= at {
                cuts.push(at);
            }
        }
        cuts.reverse();
        let ends = cuts.iter().skip(1).copied().chain([count]);
        cuts.iter().copied().zip(ends).map(|(from, to)| from..to).collect()
    }
}

/// Outside a transaction, progress is kept for one migration at a time, and `CREATE INDEX CONCURRENTLY` waits for
/// every other transaction. A master makes the whole schema.
fn must_be_alone(migration: &Migration) -> bool {
    migration.master || migration.up.no_transaction.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::source;

    /// The lanes of files with these texts, as `position<waits for`.
    fn lanes(files: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let migrations = source::read(folder.path(), None).unwrap().migrations;
        let lanes = Lanes::of(&migrations.iter().collect::<Vec<_>>());
        let shown = (0..migrations.len()).map(|at| {
            let waits: Vec<String> = lanes.before(at).iter().map(usize::to_string).collect();
            format!("{at}<{}", waits.join(","))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    const PLAIN: &str = "CREATE TABLE t (id int);";

    fn after(names: &str) -> String {
        format!("-- @depends-on: {names}\n{PLAIN}")
    }

    #[test]
    fn without_declarations_nothing_runs_beside() {
        assert_eq!(lanes(&[("001_a.sql", PLAIN), ("002_b.sql", PLAIN), ("003_c.sql", PLAIN)]), "0< 1<0 2<0,1");
    }

    #[test]
    fn branches_wait_for_what_they_name_and_for_what_that_needs() {
        let (b, c, d) = (after("001_a.sql"), after("001_a.sql"), after("002_b.sql"));
        let shown = lanes(&[("001_a.sql", PLAIN), ("002_b.sql", &b), ("003_c.sql", &c), ("004_d.sql", &d)]);
        assert_eq!(shown, "0< 1<0 2<0 3<0,1");
        // Two roots that others need are branches of their own.
        let shown = lanes(&[
            ("001_a.sql", PLAIN),
            ("002_b.sql", PLAIN),
            ("003_c.sql", &after("001_a.sql")),
            ("004_d.sql", &after("002_b.sql")),
        ]);
        assert_eq!(shown, "0< 1< 2<0 3<1");
    }

    #[test]
    fn one_outside_the_graph_keeps_its_place() {
        let (b, d) = (after("001_a.sql"), after("001_a.sql"));
        let shown = lanes(&[("001_a.sql", PLAIN), ("002_b.sql", &b), ("003_c.sql", PLAIN), ("004_d.sql", &d)]);
        assert_eq!(shown, "0< 1<0 2<0,1 3<0,1,2");
    }

    #[test]
    fn one_that_must_be_alone_is_alone() {
        for text in ["CREATE INDEX CONCURRENTLY i ON t (id);", "VACUUM t;"] {
            let alone = format!("-- @depends-on: 001_a.sql\n{text}");
            let c = after("001_a.sql");
            assert_eq!(
                lanes(&[("001_a.sql", PLAIN), ("002_b.sql", &alone), ("003_c.sql", &c)]),
                "0< 1<0 2<0,1",
                "{text}"
            );
        }
    }

    #[test]
    fn who_runs_beside_whom_is_told_both_ways() {
        let lanes = Lanes { before: vec![vec![], vec![0], vec![0], vec![0, 1, 2]] };
        assert_eq!((lanes.beside(0), lanes.beside(1), lanes.beside(2)), (vec![], vec![2], vec![1]));
    }

    #[test]
    fn parts_are_cut_where_everything_waits() {
        let of = |before: &[&[usize]]| Lanes { before: before.iter().map(|waits| waits.to_vec()).collect() }.parts();
        assert_eq!(of(&[&[], &[0], &[0], &[0, 1, 2]]), [0..1, 1..3, 3..4]);
        assert_eq!(of(&[&[], &[], &[0], &[1]]).as_slice(), std::slice::from_ref(&(0..4)));
        assert_eq!(of(&[&[], &[0], &[0, 1], &[0]]), [0..1, 1..4]);
        assert_eq!(of(&[]), []);
        assert_eq!(Lanes::one_after_the_other(3).parts(), [0..1, 1..2, 2..3]);
    }
}
