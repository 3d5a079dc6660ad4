//! Faults at random points of whole runs, under an application that writes all the while: whatever happens, `recover`
//! reaches all of before or all of after, and no acknowledged write is lost that nobody agreed to lose.
//!
//! `scripts/torture N` runs N of them; here stand some.

mod plan;
mod proxy;
mod round;
mod running;
mod scene;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use plan::{Plan, When};
use round::Told;
use scene::Stage;

/// Seeds of every kind of fault, which are always tried.
const SHORT: [u64; 10] = [1, 4, 5, 9, 3000, 3001, 3003, 3005, 20000, 31011];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("`{name}` is no number: {value}")))
}

#[test]
fn whatever_happens_it_is_all_of_before_or_all_of_after() {
    let points = points();
    let first = number("RIPCORD_TORTURE_SEED");
    let seeds: Vec<u64> = match (number("RIPCORD_TORTURE"), first) {
        (Some(count), first) => {
            let first = first.unwrap_or(1000);
            (first..).take(usize::try_from(count * 3).unwrap()).collect()
        }
        (None, Some(seed)) => vec![seed],
        (None, None) => SHORT.to_vec(),
    };
    let wanted = number("RIPCORD_TORTURE").unwrap_or(u64::MAX);
    let mut tally = Tally::default();
    let mut stage = Stage::new();
    for seed in seeds {
        let plan = Plan::of(seed, &points);
        let began = Instant::now();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round::play(&mut stage, &plan))) {
            Ok(told) => tally.add(&plan, &told, began.elapsed()),
            Err(_) => {
                println!("FAILED: {plan:?}\n  again: scripts/torture --seed {seed}");
                tally.failed.push(seed);
                // What it left must not disturb the next one.
                stage = Stage::new();
            }
        }
        if tally.faults >= wanted {
            break;
        }
    }
    tally.tell(&points);
    assert!(tally.failed.is_empty(), "seeds that failed: {:?}", tally.failed);
    assert!(tally.faults > 0, "no fault came in time");
}

/// The names of all fault points, from the source.
fn points() -> Vec<String> {
    fn read(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                read(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            found
                .extend(text.split("faults.at(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    let mut found = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops"), &mut found);
    found.sort();
    found.dedup();
    assert!(found.len() > 30, "{found:?}");
    found
}

#[derive(Default)]
struct Tally {
    rounds: u64,
    faults: u64,
    refused: u64,
    accepted: usize,
    acknowledged: usize,
    writing: Duration,
    took: Duration,
    kinds: BTreeMap<String, u64>,
    verbs: BTreeMap<String, u64>,
    points: BTreeMap<String, u64>,
    failed: Vec<u64>,
}

impl Tally {
    fn add(&mut self, plan: &Plan, told: &Told, took: Duration) {
        let rate = told.acknowledged as f64 / told.writing.as_secs_f64().max(0.001);
        println!("{} ({rate:.0}/s while it could write) [{:.1} s]", told.line, took.as_secs_f64());
        self.rounds += 1;
        self.took += took;
        self.acknowledged += told.acknowledged;
        self.writing += told.writing;
        self.accepted += told.lost;
        self.refused += u64::from(told.refused);
        if told.struck_again {
            self.faults += 1;
            *self.kinds.entry("Kill of recover".to_owned()).or_default() += 1;
        }
        if told.struck {
            self.faults += 1;
            *self.kinds.entry(format!("{:?}", plan.fault)).or_default() += 1;
            *self.verbs.entry(format!("{:?}", plan.verb)).or_default() += 1;
            if let When::Point(point, _) = &plan.when {
                *self.points.entry(point.clone()).or_default() += 1;
            }
        }
    }

    fn tell(&self, points: &[String]) {
        let missed: Vec<&String> = points.iter().filter(|point| !self.points.contains_key(*point)).collect();
        println!(
            "{} faults in {} rounds of {:.1} s: {:?}\n  commands: {:?}\n  fault points: {:?}\n  not reached: {missed:?}\n  \
             {} acknowledged writes at {:.0} a second; {} given up with consent; {} restores refused for them\n  \
             failed: {} {:?}",
            self.faults,
            self.rounds,
            self.took.as_secs_f64() / (self.rounds.max(1) as f64),
            self.kinds,
            self.verbs,
            self.points,
            self.acknowledged,
            self.acknowledged as f64 / self.writing.as_secs_f64().max(0.001),
            self.accepted,
            self.refused,
            self.failed.len(),
            self.failed
        );
    }
}
