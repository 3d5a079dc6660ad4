//! Two histories made into one, when the control schema itself was lost and has begun anew: rows never go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::clock::Time;

/// What tells a row of a numbered table, besides its moment. Numbers begin at one again in a schema that was
/// made anew.
const NUMBERED: [(&str, &str, &str); 4] = [
    ("schema_migrations", "applied_at", "version"),
    ("audit_log", "at", "action"),
    ("rollback_history", "at", "version"),
    ("releases", "at", "name"),
];

const KEYED: [&str; 2] = ["backup_history", "runs"];

type Rows = BTreeMap<String, Value>;

/// The rows of `newer`, and those of `older` that it lacks. What both know is told as `newer` tells it. Rows
/// of `newer` that are not in `older` get new numbers where theirs are taken.
pub fn merge_rows(older: &Rows, newer: &Rows) -> Rows {
    let mut merged = newer.clone();
    for name in KEYED {
        let mut by_id: BTreeMap<String, Value> = BTreeMap::new();
        for row in rows_of(older, name).chain(rows_of(newer, name)) {
            by_id.insert(text(row, "id"), Value::Object(row.clone()));
        }
        merged.insert(name.to_owned(), by_id.into_values().collect());
    }
    let mut migrations = BTreeMap::new();
    for (name, moment, what) in NUMBERED {
        let (rows, numbers) = merge_numbered(older, newer, name, moment, what, &migrations);
        if name == "schema_migrations" {
            migrations = numbers;
        }
        merged.insert(name.to_owned(), rows);
    }
    merged
}

/// Whether every row of `older` is in `newer` as well.
pub fn holds_all(older: &Rows, newer: &Rows) -> bool {
    KEYED.iter().all(|name| {
        let known: BTreeSet<String> = rows_of(newer, name).map(|row| text(row, "id")).collect();
        rows_of(older, name).all(|row| known.contains(&text(row, "id")))
    }) && NUMBERED.iter().all(|(name, moment, what)| {
        let known: BTreeSet<Key> = keyed(newer, name, moment, what).map(|(key, _)| key).collect();
        keyed(older, name, moment, what).all(|(key, _)| known.contains(&key))
    })
}

type Key = (String, String, usize);

fn rows_of<'a>(rows: &'a Rows, name: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    rows.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

fn text(row: &Map<String, Value>, field: &str) -> String {
    match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Each row with what it is told by: subject, moment, and which of several with both the same it is.
fn keyed<'a>(
    rows: &'a Rows,
    name: &str,
    moment: &'a str,
    what: &'a str,
) -> impl Iterator<Item = (Key, &'a Map<String, Value>)> {
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    rows_of(rows, name).map(move |row| {
        let at = text(row, moment);
        // Sessions of other time zones write the same moment in other words.
        let at = at.parse::<Time>().map_or(at, |time| time.to_rfc3339());
        let count = seen.entry((text(row, what), at.clone())).or_default();
        *count += 1;
        ((text(row, what), at, *count), row)
    })
}

/// The merged rows by number, and what became of the newer ones' numbers.
fn merge_numbered(
    older: &Rows,
    newer: &Rows,
    name: &str,
    moment: &str,
    what: &str,
    migrations: &BTreeMap<i64, i64>,
) -> (Value, BTreeMap<i64, i64>) {
    let number = |row: &Map<String, Value>| row.get("id").and_then(Value::as_i64).unwrap_or(0);
    let mut merged: BTreeMap<i64, Map<String, Value>> = BTreeMap::new();
    let mut known: BTreeMap<Key, i64> = BTreeMap::new();
    for (key, row) in keyed(older, name, moment, what) {
        known.insert(key, number(row));
        merged.insert(number(row), row.clone());
    }
    let mut numbers = BTreeMap::new();
    for (key, row) in keyed(newer, name, moment, what) {
        let old = number(row);
        let new = match known.get(&key) {
            Some(same) => *same,
            None if !merged.contains_key(&old) => old,
            None => merged.keys().next_back().map_or(1, |last| last + 1),
        };
        numbers.insert(old, new);
        let mut row = row.clone();
        row.insert("id".to_owned(), new.into());
        merged.insert(new, row);
    }
    let renumbered: BTreeSet<i64> = numbers.values().copied().collect();
    for (id, row) in &mut merged {
        let (field, map) =
            if name == "schema_migrations" { ("copy_of", &numbers) } else { ("migration_id", migrations) };
        if renumbered.contains(id)
            && let Some(new) = row.get(field).and_then(Value::as_i64).and_then(|old| map.get(&old))
        {
            row.insert(field.to_owned(), (*new).into());
        }
    }
    if name == "schema_migrations" {
        one_in_effect(&mut merged);
    }
    (merged.into_values().map(Value::Object).collect(), numbers)
}

/// Of several rows of one version in effect, the one that came last.
fn one_in_effect(rows: &mut BTreeMap<i64, Map<String, Value>>) {
    let mut seen = BTreeSet::new();
    for row in rows.values_mut().rev() {
        if matches!(text(row, "state").as_str(), "applied" | "baseline") && !seen.insert(text(row, "version")) {
            row.insert("state".to_owned(), "restored_away".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(migrations: Value, audit: Value, runs: Value) -> Rows {
        BTreeMap::from([
            ("schema_migrations".to_owned(), migrations),
            ("audit_log".to_owned(), audit),
            ("runs".to_owned(), runs),
        ])
    }

    fn applied(id: i64, version: &str, at: &str) -> Value {
        json!({ "id": id, "version": version, "applied_at": at, "state": "applied", "copy_of": null })
    }

    #[test]
    fn a_history_that_goes_on_is_taken_as_it_is() {
        let older = rows(json!([applied(1, "001", "2026-01-01T00:00:00+00:00")]), json!([]), json!([{ "id": "a" }]));
        let newer = rows(
            json!([applied(1, "001", "2026-01-01T01:00:00+01:00"), applied(2, "002", "2026-01-02T00:00:00+00:00")]),
            json!([{ "id": 1, "at": "2026-01-02T00:00:00+00:00", "action": "x" }]),
            json!([{ "id": "a", "outcome": "done" }]),
        );
        assert!(holds_all(&older, &newer));
        let merged = merge_rows(&older, &newer);
        for name in ["schema_migrations", "audit_log", "runs"] {
            assert_eq!(merged[name], newer[name]);
        }
    }

    #[test]
    fn a_history_that_began_anew_comes_after_the_lost_one() {
        let older = rows(
            json!([applied(1, "001", "2026-01-01T00:00:00+00:00"), applied(2, "002", "2026-01-01T00:00:01+00:00")]),
            json!([{ "id": 1, "at": "2026-01-01T00:00:00+00:00", "action": "apply" }]),
            json!([{ "id": "a" }]),
        );
        let newer = rows(
            json!([applied(1, "001", "2026-02-01T00:00:00+00:00")]),
            json!([{ "id": 1, "at": "2026-02-01T00:00:00+00:00", "action": "restore began" }]),
            json!([{ "id": "b" }]),
        );
        assert!(!holds_all(&older, &newer));
        let merged = merge_rows(&older, &newer);
        let told: Vec<String> = rows_of(&merged, "schema_migrations")
            .map(|row| format!("{} {} {}", text(row, "id"), text(row, "version"), text(row, "state")))
            .collect();
        assert_eq!(told, ["1 001 restored_away", "2 002 applied", "3 001 applied"]);
        assert_eq!(merged["audit_log"].as_array().unwrap().len(), 2);
        assert_eq!(merged["audit_log"][1]["id"], 2);
        assert_eq!(merged["runs"], json!([{ "id": "a" }, { "id": "b" }]));
        // And again, with what the first merge has made.
        assert_eq!(merge_rows(&merged, &newer), merged);
    }
}
