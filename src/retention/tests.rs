//! A case is rules, backups and the ones that stay, each a line of text.
//!
//! A backup is a letter, a time before now or a moment, and words: `safety`, `bad`, `pinned`, `needed`,
//! `tag=…`, `size=…`. `stays` lists the letters that stay.

use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const NOW: &str = "2026-06-17T12:30:00Z";

fn now() -> Time {
    NOW.parse().unwrap()
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3600,
        "m" => 60,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()? * seconds))
}

fn id(letter: char) -> BackupId {
    BackupId(Uuid::from_u128(u128::from(u32::from(letter))))
}

fn letter(id: BackupId) -> char {
    char::from_u32(u32::try_from(id.0.as_u128()).unwrap()).unwrap()
}

fn candidate(text: &str) -> Candidate {
    let mut words = text.split_whitespace();
    let letter = words.next().unwrap().chars().next().unwrap();
    let at = words.next().unwrap();
    let created_at = match duration(at) {
        Some(age) => now() - age,
        None => at.parse().unwrap(),
    };
    let mut candidate = Candidate {
        id: id(letter),
        created_at,
        purpose: Purpose::PreApply,
        good: true,
        pinned: false,
        tags: Vec::new(),
        stored_bytes: 1,
        needed_by: None,
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("safety", _) => candidate.purpose = Purpose::Safety,
            ("manual", _) => candidate.purpose = Purpose::Manual,
            ("bad", _) => candidate.good = false,
            ("pinned", _) => candidate.pinned = true,
            ("needed", _) => candidate.needed_by = Some("r1".to_owned()),
            ("tag", tag) => candidate.tags.push(tag.to_owned()),
            ("size", size) => candidate.stored_bytes = size.parse().unwrap(),
            _ => panic!("what is {word:?}?"),
        }
    }
    candidate
}

fn rules(text: &str) -> RetentionRules {
    let mut rules = RetentionRules::default();
    for word in text.split_whitespace() {
        if word == "standard" {
            rules = RetentionRules::standard();
            continue;
        }
        let (name, value) = word.split_once('=').unwrap();
        let number = || value.parse::<u32>().unwrap();
        match name {
            "last" => rules.keep_last = number(),
            "hourly" => rules.keep_hourly = number(),
            "daily" => rules.keep_daily = number(),
            "weekly" => rules.keep_weekly = number(),
            "monthly" => rules.keep_monthly = number(),
            "yearly" => rules.keep_yearly = number(),
            "within" => rules.keep_within = Some(duration(value).unwrap()),
            "tag" => rules.keep_tags.push(value.to_owned()),
            "size" => rules.max_size_bytes = Some(value.parse().unwrap()),
            _ => panic!("what is {word:?}?"),
        }
    }
    rules
}

fn candidates(text: &str) -> Vec<Candidate> {
    text.split(',').map(candidate).collect()
}

/// rules, backups, those that stay (newest first)
const CASES: &[(&str, &str, &str)] = &[
    // No rule: everything stays, whatever it is.
    ("", "a 1d, b 900d, c 2d bad, d 3d safety", "acdb"),
    ("last=0 hourly=0", "a 1d, b 900d", "ab"),
    // The last N.
    ("last=1", "a 1d, b 2d, c 3d", "a"),
    ("last=2", "c 3d, a 1d, b 2d", "ab"),
    ("last=9", "a 1d, b 2d", "ab"),
    ("last=2", "a 1d, b 2d bad, c 3d, d 4d", "ac"),
    ("last=2", "a 1d safety, b 2d safety, c 3d, d 4d, e 5d", "abcd"),
    // Imported ones stay and take no place.
    ("last=1", "a 1d tag=imported, b 2d, c 3d", "ab"),
    ("within=1d size=1", "a 90d tag=imported, b 40d, c 50d", "ba"),
    ("last=1", "a 1d tag=imported bad, b 2d, c 3d", "b"),
    // Of two made at one moment, the greater id is the newer one.
    ("last=1", "a 1d, b 1d", "b"),
    // Within a span, its first moment included; clocks that run ahead count as now.
    ("within=7d", "a 1d, b 6d, c 7d, d 8d", "abc"),
    ("within=7d", "a 2026-06-10T12:30:00Z, b 2026-06-10T12:29:59.999999Z", "a"),
    ("within=1d", "a 2026-07-01T00:00:00Z, b 2d, c 3d", "a"),
    ("within=1d", "a 30d, b 40d", "a"),
    ("within=7d", "a 1d bad, b 2d, c 8d", "b"),
    ("within=200000000000d", "a 1d, b 90000d", "ab"),
    // Hours, days, weeks, months, years: the newest of each that has one.
    ("hourly=2", "a 10m, b 20m, c 40m, d 50m, e 5h", "ac"),
    ("hourly=3", "a 10m, b 20m, c 5h, d 90d, e 91d", "acd"),
    ("daily=1", "a 1h, b 2h, c 1d", "a"),
    ("daily=2", "a 1h, b 2h, c 1d, d 25h, e 2d", "ac"),
    ("daily=3", "a 1h, b 10d, c 11d, d 20d", "abc"),
    ("daily=2", "a 2026-06-16T00:00:00Z, b 2026-06-15T23:59:59Z, c 2026-06-15T00:00:00Z", "ab"),
    ("daily=2", "a 2026-06-16T01:30:00+02:00, b 2026-06-15T23:00:00Z, c 2026-06-14T00:00:00Z", "ac"),
    ("weekly=1", "a 2026-06-17T00:00:00Z, b 2026-06-15T00:00:00Z, c 2026-06-14T23:59:59Z", "a"),
    ("weekly=2", "a 2026-06-17T00:00:00Z, b 2026-06-15T00:00:00Z, c 2026-06-14T23:59:59Z", "ac"),
    ("weekly=2", "a 2025-01-01T00:00:00Z, b 2024-12-30T00:00:00Z, c 2024-12-29T00:00:00Z", "ac"),
    (
        "monthly=2",
        "a 2026-06-17T00:00:00Z, b 2026-06-01T00:00:00Z, c 2026-05-31T00:00:00Z, d 2026-05-01T00:00:00Z",
        "ac",
    ),
    ("monthly=2", "a 2026-06-01T00:00:00Z, b 2025-06-30T00:00:00Z, c 2025-06-01T00:00:00Z", "ab"),
    (
        "yearly=2",
        "a 2026-06-17T00:00:00Z, b 2026-01-01T00:00:00Z, c 2025-12-31T23:59:59Z, d 2025-01-01T00:00:00Z",
        "ac",
    ),
    ("yearly=5", "a 2026-06-17T00:00:00Z, b 2020-01-01T00:00:00Z", "ab"),
    ("daily=2", "a 1h bad, b 2h, c 1d bad, d 25h, e 3d", "bd"),
    ("daily=1", "a 1h safety, b 2h, c 1d", "ab"),
    // Rules add up.
    ("last=1 monthly=2", "a 1h, b 2d, c 40d, d 41d", "ac"),
    ("last=2 daily=2 yearly=2", "a 1h, b 2h, c 1d, d 2d, e 2025-03-01T00:00:00Z, f 2025-02-01T00:00:00Z", "abce"),
    // Tags.
    ("last=1 tag=v2", "a 1d, b 2d tag=v2, c 3d tag=v1, d 4d tag=v1 tag=v2", "abd"),
    ("last=1 tag=v1 tag=v2", "a 1d, b 2d tag=v2, c 3d tag=v1, d 4d", "abc"),
    ("last=1 tag=v2", "a 1d, b 2d bad tag=v2", "a"),
    ("tag=v2", "a 1d, b 2d, c 3d tag=v2", "ac"),
    // Pins and unfinished runs.
    ("last=1", "a 1d, b 2d pinned, c 3d", "ab"),
    ("last=1", "a 1d, b 2d needed, c 3d", "ab"),
    ("last=1", "a 1d, b 2d bad pinned, c 3d bad needed, d 4d bad", "abc"),
    ("last=2", "a 1d pinned, b 2d, c 3d", "ab"),
    // The newest good one stays, however old, and is no safety backup.
    ("within=1d", "a 1h bad, b 40d, c 50d", "b"),
    ("within=1d", "a 1h safety, b 40d, c 50d", "ab"),
    ("hourly=1", "a 1d safety, b 2d bad, c 90d, d 91d", "ac"),
    // Nothing goes while there is no good one.
    ("last=1", "a 1d bad, b 2d bad", "ab"),
    ("last=1", "a 1d bad", "a"),
    ("last=1 size=1", "a 1d safety, b 2d safety, c 3d safety, d 90d safety, e 91d bad", "abcde"),
    // Safety backups: the last three, and those within the span.
    ("last=1", "a 1d safety, b 2d safety, c 3d safety, d 4d safety, e 5d", "abce"),
    ("last=1 within=7d", "a 1d safety, b 2d safety, c 3d safety, d 4d safety, e 8d safety, f 9d", "abcdf"),
    ("last=1", "a 1d safety bad, b 2d safety, c 3d safety, d 4d safety, e 5d", "bcde"),
    ("last=1 tag=v2", "a 1d safety, b 2d safety, c 3d safety, d 4d safety tag=v2, e 5d", "abcde"),
    // A deploy tried again and again never pushes the good backup out.
    (
        "standard",
        "a 1h, b 2h, c 3h, d 4h, e 5h, f 6h, g 7h, h 8h, i 9h, j 10h, k 11h, l 12h, m 8d, n 9d",
        "abcdefghijkl",
    ),
    (
        "standard",
        "a 1h bad, b 2h bad, c 3h bad, d 4h bad, e 5h bad, f 6h bad, g 7h bad, h 8h bad, \
         i 9h bad, j 10h bad, k 30d, l 31d",
        "kl",
    ),
    // The size limit: the oldest go, protected ones do not and their bytes count.
    ("size=3", "a 1d, b 2d, c 3d, d 4d", "abc"),
    ("size=3", "a 1d, b 2d, c 3d", "abc"),
    ("size=2", "a 1d, b 2d bad, c 3d, d 4d", "ac"),
    ("last=4 size=3", "a 1d, b 2d, c 3d, d 4d pinned, e 5d", "abd"),
    ("last=4 size=3", "a 1d, b 2d needed, c 3d, d 4d pinned", "abd"),
    ("last=2 size=9", "a 1d, b 2d, c 3d", "ab"),
    ("last=3 size=0", "a 1d size=5, b 2d size=5, c 3d size=5", "a"),
    ("last=3 size=10", "a 1d size=5, b 2d size=6, c 3d size=4", "a"),
    ("size=2", "a 1d size=9, b 2d pinned size=9, c 3d size=1", "ab"),
    ("size=2", "a 1d safety, b 2d, c 3d safety", "ab"),
    ("size=1", "a 1d safety, b 2d, c 3d", "b"),
    ("last=3 size=5", "a 1d size=18446744073709551615, b 2d size=18446744073709551615", "a"),
];

#[test]
fn the_right_ones_stay() {
    for (rule, backups, expected) in CASES {
        let verdicts = plan(&rules(rule), &candidates(backups), now());
        let stays: String = verdicts.iter().filter(|verdict| verdict.keep).map(|verdict| letter(verdict.id)).collect();
        assert_eq!(stays, *expected, "{rule}: {backups}\n{verdicts:#?}");
        assert_eq!(verdicts.len(), candidates(backups).len());
        assert!(verdicts.iter().all(|verdict| !verdict.reasons.is_empty()));
    }
    assert!(plan(&rules("last=1"), &[], now()).is_empty());
}

/// rules, backups, one of them, all of its reasons
const REASONS: &[(&str, &str, char, &str)] = &[
    ("", "a 1d, b 2d", 'b', "no rule is set"),
    ("last=10", "a 1d, b 2d, c 3d", 'c', "last 3 of 10"),
    ("last=1", "a 1d, b 2d", 'a', "the newest good one; last 1 of 1"),
    ("last=1", "a 1d, b 2d", 'b', "no rule keeps it"),
    ("last=1", "a 1d, b 2d bad", 'b', "failed or damaged, and a good one stays"),
    ("last=1", "b 2d bad", 'b', "nothing goes while there is no good backup"),
    ("last=1", "a 1d, b 2d pinned needed", 'b', "pinned; needed by run `r1`"),
    ("within=7d", "a 1d, b 7d", 'b', "within 7d"),
    ("last=1 within=36h", "a 1h, b 2h safety", 'b', "safety backup, last 1 of 3; within 36h"),
    ("last=1 tag=v2", "a 1h, b 2h tag=v2", 'b', "tag `v2`"),
    ("hourly=2", "a 10m, b 40m", 'b', "newest of the hour 2026-06-17 11:00 (2 of 2)"),
    ("daily=7", "a 10m, b 1d", 'b', "newest of the day 2026-06-16 (2 of 7)"),
    ("weekly=4", "a 10m, b 7d", 'b', "newest of the week 2026-W24 (2 of 4)"),
    ("monthly=4", "a 10m, b 30d", 'b', "newest of the month 2026-05 (2 of 4)"),
    ("yearly=4", "a 10m, b 365d", 'b', "newest of the year 2025 (2 of 4)"),
    ("size=9", "a 10m, b 365d", 'b', "within the size limit"),
    ("last=9 size=1024", "a 1d size=1000, b 2d size=25", 'b', "over the size limit of 1KiB"),
];

#[test]
fn the_reasons_are_plain() {
    for (rule, backups, which, expected) in REASONS {
        let verdicts = plan(&rules(rule), &candidates(backups), now());
        let verdict = verdicts.iter().find(|one| one.id == id(*which)).unwrap();
        assert_eq!(verdict.reasons.join("; "), *expected, "{rule}: {backups}");
    }
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        0..900_u64,
        prop_oneof![3 => Just(Purpose::PreApply), 1 => Just(Purpose::Safety)],
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
        0..100_u64,
    );
    prop::collection::vec(one, 0..40).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(n, (hours, purpose, good, pinned, needed, tagged, size))| Candidate {
                id: BackupId(Uuid::from_u128(n as u128)),
                created_at: now() - Duration::from_secs(hours * 3600),
                purpose,
                good,
                pinned,
                tags: tagged.then(|| "t".to_owned()).into_iter().collect(),
                stored_bytes: size,
                needed_by: needed.then(|| "r".to_owned()),
            })
            .collect()
    })
}

fn any_rules() -> impl Strategy<Value = RetentionRules> {
    let counts = (0..5_u32, 0..4_u32, 0..4_u32, 0..4_u32, 0..3_u32, 0..3_u32);
    let rest = (prop::option::of(0..800_u64), any::<bool>(), prop::option::of(0..600_u64));
    (counts, rest).prop_map(|(counts, (within, tag, size))| RetentionRules {
        keep_last: counts.0,
        keep_hourly: counts.1,
        keep_daily: counts.2,
        keep_weekly: counts.3,
        keep_monthly: counts.4,
        keep_yearly: counts.5,
        keep_within: within.map(|hours| Duration::from_secs(hours * 3600)),
        keep_tags: tag.then(|| "t".to_owned()).into_iter().collect(),
        max_size_bytes: size,
    })
}

fn kept(rules: &RetentionRules, candidates: &[Candidate]) -> Vec<Candidate> {
    plan(rules, candidates, now())
        .into_iter()
        .filter(|verdict| verdict.keep)
        .map(|verdict| {
            let found = candidates.iter().find(|one| one.id == verdict.id);
            found.unwrap().clone()
        })
        .collect()
}

fn ids(candidates: &[Candidate]) -> Vec<BackupId> {
    candidates.iter().map(|one| one.id).collect()
}

proptest! {
    #[test]
    fn what_is_protected_never_goes(rules in any_rules(), all in any_candidates()) {
        let stays = ids(&kept(&rules, &all));
        let newest = all
            .iter()
            .filter(|one| one.good && one.purpose != Purpose::Safety)
            .max_by_key(|one| (one.created_at, one.id));
        match newest {
            Some(newest) => prop_assert!(stays.contains(&newest.id)),
            None => prop_assert_eq!(stays.len(), all.len()),
        }
        for one in all.iter().filter(|one| one.pinned || one.needed_by.is_some()) {
            prop_assert!(stays.contains(&one.id));
        }
    }

    #[test]
    fn planning_again_removes_nothing_more(rules in any_rules(), all in any_candidates()) {
        let once = kept(&rules, &all);
        prop_assert_eq!(ids(&kept(&rules, &once)), ids(&once));
    }

    #[test]
    fn keeping_more_never_removes_more(rules in any_rules(), all in any_candidates()) {
        // A size limit is left out: what is kept more may push an older one over it.
        let less = RetentionRules { keep_last: rules.keep_last + 1, max_size_bytes: None, ..rules };
        let more = RetentionRules { keep_last: less.keep_last + 1, ..less.clone() };
        let stays = ids(&kept(&more, &all));
        for one in ids(&kept(&less, &all)) {
            prop_assert!(stays.contains(&one));
        }
    }

    #[test]
    fn a_bad_or_safety_backup_never_pushes_another_out(rules in any_rules(), all in any_candidates()) {
        let rules = RetentionRules { max_size_bytes: None, ..rules };
        let counts = |one: &&Candidate| one.good && one.purpose != Purpose::Safety;
        let normal: Vec<_> = all.iter().filter(counts).cloned().collect();
        let stays = ids(&kept(&rules, &all));
        for one in ids(&kept(&rules, &normal)) {
            prop_assert!(stays.contains(&one));
        }
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(rules in any_rules(), all in any_candidates()) {
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        prop_assert_eq!(plan(&rules, &all, now()), plan(&rules, &reversed, now()));
    }
}
