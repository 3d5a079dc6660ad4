//! What a database consists of, read from a dump's table of contents, in a form that can be compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::toc::{Toc, TocEntry};

/// SHA-256 over an inventory, hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

/// One object (or comment, grant, default, …) of a schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Item {
    /// `TABLE public.orders`, `ACL public.TABLE orders`, …
    pub name: String,
    /// SHA-256 over what the dump says of it: kind, schema, name, owner, definition, tablespace,
    /// access method. Numbers that hold in one dump only are no part of it.
    pub digest: String,
}

/// Every object of a dump, sorted. Sequences' values are no part of it (they are `SEQUENCE SET`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The objects.
    pub items: Vec<Item>,
}

/// What differs between two inventories, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// In the second only.
    pub added: Vec<String>,
    /// In the first only.
    pub removed: Vec<String>,
    /// In both, but not the same.
    pub changed: Vec<String>,
}

impl Difference {
    /// Whether the two are the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Inventory {
    /// Reads it from a table of contents. Left out is what is data (rows, sequence values, large
    /// objects, statistics), what names this dump's own database, and what pg_dump sets for itself.
    pub fn of(toc: &Toc) -> Inventory {
        let mut items: Vec<Item> = toc
            .entries
            .iter()
            .filter(|entry| is_schema(entry))
            .map(|entry| Item { name: name(entry), digest: digest(entry) })
            .collect();
        items.sort_unstable();
        // Overloads by unprintable names, say: both stay, told apart in the order of their digests,
        // which is the same in every dump.
        let mut unique: Vec<Item> = Vec::with_capacity(items.len());
        let mut repeats: usize = 1;
        for (place, item) in items.iter().enumerate() {
            let before = place.checked_sub(1).and_then(|before| items.get(before));
            repeats = match before {
                Some(before) if before.name == item.name => repeats + 1,
                _ => 1,
            };
            let name = match repeats {
                1 => item.name.clone(),
                number => format!("{} #{number}", item.name),
            };
            unique.push(Item { name, digest: item.digest.clone() });
        }
        unique.sort_unstable();
        Inventory { items: unique }
    }

    /// Its fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for item in &self.items {
            add(&mut hash, item.name.as_bytes());
            add(&mut hash, item.digest.as_bytes());
        }
        Fingerprint(hex::encode(hash.finalize()))
    }

    /// What is in `after` and not here, and the reverse.
    pub fn compare(&self, after: &Inventory) -> Difference {
        let by_name = |inventory: &Inventory| -> BTreeMap<String, String> {
            let items = inventory.items.iter();
            items.map(|item| (item.name.clone(), item.digest.clone())).collect()
        };
        let (before, after) = (by_name(self), by_name(after));
        let mut difference = Difference::default();
        for (name, digest) in &before {
            match after.get(name) {
                None => difference.removed.push(name.clone()),
                Some(other) if other != digest => difference.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        difference.added = after.into_keys().filter(|name| !before.contains_key(name)).collect();
        difference
    }
}

/// Sequence values of a dump: `schema.sequence` → the arguments of its setval, `(last value, is called)`.
/// Names stand as they are, without quotes. An entry that is no setval is left out.
pub fn sequence_values(toc: &Toc) -> BTreeMap<String, (i64, bool)> {
    toc.entries
        .iter()
        .filter(|entry| entry.description.0 == b"SEQUENCE SET")
        .filter_map(|entry| Some((qualified(entry), setval(entry.definition.as_str()?)?)))
        .collect()
}

/// Sequences of a dump that count downwards, named as in [`sequence_values`].
pub fn descending_sequences(toc: &Toc) -> BTreeSet<String> {
    // An identity's sequence stands in the definition of its column.
    let is_sequence = |entry: &&TocEntry| {
        let definition = entry.definition.lossy();
        let options = definition.split("SEQUENCE NAME").nth(1).unwrap_or(&definition);
        entry.description.0.starts_with(b"SEQUENCE") && options.contains("INCREMENT BY -")
    };
    toc.entries.iter().filter(is_sequence).map(qualified).collect()
}

/// The numbers of `SELECT pg_catalog.setval('schema.name', 42, true);`. The name may hold quotes,
/// commas and parentheses; what follows its last quote cannot.
fn setval(definition: &str) -> Option<(i64, bool)> {
    if !definition.starts_with("SELECT pg_catalog.setval(") {
        return None;
    }
    let (_, arguments) = definition.trim_end().rsplit_once('\'')?;
    let (value, called) = arguments.strip_prefix(',')?.strip_suffix(");")?.split_once(',')?;
    Some((value.trim().parse().ok()?, called.trim().parse().ok()?))
}

fn is_schema(entry: &TocEntry) -> bool {
    match entry.description.0.as_slice() {
        b"STDSTRINGS"
        | b"SEARCHPATH"
        | b"TABLE DATA"
        | b"MATERIALIZED VIEW DATA"
        | b"SEQUENCE SET"
        | b"STATISTICS DATA"
        | b"BLOB"
        | b"BLOBS"
        | b"BLOB METADATA"
        | b"DATABASE"
        | b"DATABASE PROPERTIES" => false,
        b"COMMENT" | b"ACL" | b"SECURITY LABEL" => {
            // Large objects are data: a dump of the schema alone does not show them.
            !entry.tag.0.starts_with(b"DATABASE ") && !entry.tag.0.starts_with(b"LARGE OBJECT")
        }
        _ => true,
    }
}

/// Whether two entries of one name, of a database and of its restored copy, say the same in other words. The
/// first dump after a restore may write a cast after a null default, may list the columns of an inheriting
/// table in another order, and may name a column in a function's body that was written without a name (`'x'::text`
/// becomes `'x'::text AS text`); the dump after that is stable. Anything else is a change: an owner, a tablespace,
/// any other word.
pub fn is_benign_change(before: &TocEntry, after: &TocEntry) -> bool {
    let words = |entry: &TocEntry| {
        let text = entry.definition.lossy();
        let inherits = text.contains("INHERITS (");
        let mut words: Vec<String> =
            without_null_casts(&text).split_whitespace().map(|word| word.trim_matches(',').to_owned()).collect();
        if inherits {
            words.sort();
        }
        words
    };
    let body = ["FUNCTION", "PROCEDURE"].iter().any(|kind| before.description.0 == kind.as_bytes())
        && before.definition.lossy().contains("BEGIN ATOMIC");
    let (was, is) = (words(before), words(after));
    is_same_object(before, after) && (was == is || (body && same_but_for_new_names(&was, &is)))
}

/// Whether two entries are of one object with the same owner and at the same place, whatever their definitions say.
pub fn is_same_object(before: &TocEntry, after: &TocEntry) -> bool {
    let of = |entry: &TocEntry| {
        let of =
            [&entry.description, &entry.namespace, &entry.tag, &entry.owner, &entry.tablespace, &entry.access_method];
        of.map(Clone::clone)
    };
    of(before) == of(after)
}

/// Whether `after` is `before` with names (`AS name`) for columns that had none.
fn same_but_for_new_names(before: &[String], after: &[String]) -> bool {
    let mut left = before.iter().peekable();
    let mut right = after.iter();
    while let Some(word) = right.next() {
        if left.next_if_eq(&word).is_none() && (word != "AS" || right.next().is_none()) {
            return false;
        }
    }
    left.next().is_none()
}

/// `DEFAULT NULL::character varying(20)[]` → `DEFAULT NULL`.
fn without_null_casts(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    while let Some((before, after)) = rest.split_once("NULL::") {
        kept.push_str(before);
        kept.push_str("NULL");
        // The type's name ends where the column's definition goes on or ends.
        let mut depth = 0_usize;
        let end = after
            .char_indices()
            .find(|(at, c)| match c {
                '(' => {
                    depth += 1;
                    false
                }
                ')' if depth > 0 => {
                    depth -= 1;
                    false
                }
                ',' | ')' | '\n' | ';' => depth == 0,
                ' ' => {
                    depth == 0
                        && ["NOT NULL", "COLLATE", "CONSTRAINT", "CHECK", "GENERATED"]
                            .iter()
                            .any(|word| after[at + 1..].starts_with(word))
                }
                _ => false,
            })
            .map_or(after.len(), |(at, _)| at);
        rest = &after[end..];
    }
    kept.push_str(rest);
    kept
}

/// The name that an entry has in an inventory, `TABLE public.orders`; one that stands there more than once
/// has a number after it.
pub fn item_name(entry: &TocEntry) -> String {
    name(entry)
}

fn name(entry: &TocEntry) -> String {
    format!("{} {}", entry.description.lossy(), qualified(entry))
}

fn qualified(entry: &TocEntry) -> String {
    match entry.namespace.is_empty() {
        true => entry.tag.lossy(),
        false => format!("{}.{}", entry.namespace.lossy(), entry.tag.lossy()),
    }
}

fn digest(entry: &TocEntry) -> String {
    let mut hash = Sha256::new();
    for field in [
        &entry.description,
        &entry.namespace,
        &entry.tag,
        &entry.owner,
        &entry.definition,
        &entry.tablespace,
        &entry.access_method,
    ] {
        add(&mut hash, &field.0);
    }
    hex::encode(hash.finalize())
}

/// Each part with its length (8 bytes, little-endian) before it, so that no two lists look alike.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Dump, Entry, entry};
    use super::*;

    fn toc(entries: Vec<Entry>) -> Toc {
        let mut dump = Dump::new(16);
        for entry in entries {
            dump.add(entry);
        }
        Toc::parse(&dump.bytes()).unwrap()
    }

    fn names(inventory: &Inventory) -> Vec<&str> {
        let items = inventory.items.iter();
        items.map(|item| item.name.as_str()).collect()
    }

    fn in_public(mut entry: Entry) -> Entry {
        entry.namespace = Some(b"public".to_vec());
        entry
    }

    #[test]
    fn schema_is_in_it_and_data_is_not() {
        let inventory = Inventory::of(&toc(vec![
            in_public(entry(10, "TABLE", "orders", "CREATE TABLE …")),
            in_public(entry(11, "TABLE DATA", "orders", "")),
            in_public(entry(12, "SEQUENCE SET", "s", "SELECT 1")),
            in_public(entry(13, "MATERIALIZED VIEW DATA", "v", "REFRESH …")),
            entry(14, "STDSTRINGS", "STDSTRINGS", "SET …"),
            entry(15, "SEARCHPATH", "SEARCHPATH", "SELECT …"),
            entry(16, "DATABASE", "shop", "CREATE DATABASE shop"),
            entry(17, "DATABASE PROPERTIES", "shop", "ALTER DATABASE shop"),
            entry(18, "COMMENT", "DATABASE shop", "COMMENT …"),
            entry(19, "ACL", "DATABASE shop", "GRANT …"),
            entry(20, "BLOB", "17", ""),
            entry(21, "BLOB METADATA", "17..18", ""),
            entry(22, "BLOBS", "BLOBS", ""),
            in_public(entry(23, "STATISTICS DATA", "orders", "")),
            in_public(entry(24, "ACL", "TABLE orders", "GRANT …")),
            entry(25, "SCHEMA", "app", "CREATE SCHEMA app"),
        ]));
        assert_eq!(
            names(&inventory),
            ["ACL public.TABLE orders", "ENCODING ENCODING", "SCHEMA app", "TABLE public.orders"]
        );
    }

    #[test]
    fn numbers_and_order_make_no_difference_and_everything_else_does() {
        let table = in_public(entry(10, "TABLE", "orders", "CREATE TABLE …"));
        let index = in_public(entry(11, "INDEX", "i", "CREATE INDEX …"));
        let one = Inventory::of(&toc(vec![table.clone(), index.clone()]));
        let mut renumbered = index.clone();
        renumbered.dump_id = 7;
        renumbered.dependencies = vec![10];
        let two = Inventory::of(&toc(vec![renumbered, table.clone()]));
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert!(one.compare(&two).is_empty());

        type Change = fn(&mut Entry);
        let changes: [Change; 3] = [
            |entry| entry.owner = b"other".to_vec(),
            |entry| entry.definition.push(b' '),
            |entry| entry.access_method = Some(b"columnar".to_vec()),
        ];
        for change in changes {
            let mut changed = table.clone();
            change(&mut changed);
            let other = Inventory::of(&toc(vec![changed, index.clone()]));
            assert_ne!(one.fingerprint(), other.fingerprint());
            assert_eq!(one.compare(&other).changed, ["TABLE public.orders"]);
        }
        let fewer = Inventory::of(&toc(vec![table]));
        assert_eq!(one.compare(&fewer).removed, ["INDEX public.i"]);
        assert_eq!(fewer.compare(&one).added, ["INDEX public.i"]);
    }

    #[test]
    fn objects_of_the_same_name_are_both_kept() {
        let of = |definitions: &[&str]| {
            let entries = definitions
                .iter()
                .enumerate()
                .map(|(number, definition)| entry(10 + number as i64, "CAST", "CAST (a AS b)", definition));
            Inventory::of(&toc(entries.collect()))
        };
        let two = of(&["one", "two"]);
        assert_eq!(names(&two), ["CAST CAST (a AS b)", "CAST CAST (a AS b) #2", "ENCODING ENCODING"]);
        assert_eq!(two, of(&["two", "one"]));
        assert_ne!(two.fingerprint(), of(&["two", "two"]).fingerprint());
        assert_eq!(two.compare(&of(&["one"])).removed.len(), 1);
    }

    #[test]
    fn a_body_may_name_what_had_no_name() {
        let of =
            |kind: &str, definition: &str| toc(vec![in_public(entry(10, kind, "f()", definition))]).entries[1].clone();
        let atomic =
            |body: &str| of("FUNCTION", &format!("CREATE FUNCTION public.f()\n BEGIN ATOMIC\n SELECT {body};\nEND;\n"));
        let before = atomic("1,\n 'x'::text,\n a AS b");
        assert!(is_benign_change(&before, &atomic("1,\n 'x'::text AS text,\n a AS b")));
        assert!(is_benign_change(&before, &before));
        for other in [
            "1,\n 'x'::text AS text,\n a AS c",
            "1,\n 'y'::text AS text,\n a AS b",
            "1,\n 'x'::text",
            "1, 'x'::text, a AS b AS",
        ] {
            assert!(!is_benign_change(&before, &atomic(other)), "{other}");
        }
        assert!(!is_benign_change(&atomic("'x'::text AS text"), &atomic("'x'::text")), "a name went");
        let view = |body: &str| of("VIEW", &format!("CREATE VIEW v AS SELECT {body}; -- BEGIN ATOMIC"));
        assert!(!is_benign_change(&view("1"), &view("1 AS one")), "the names of a view's columns are its own");
    }

    #[test]
    fn sequence_values_are_read_from_their_setval() {
        let set = |number: i64, schema: &str, tag: &str, definition: &str| {
            let mut entry = entry(number, "SEQUENCE SET", tag, definition);
            entry.namespace = Some(schema.into());
            entry
        };
        let values = sequence_values(&toc(vec![
            set(10, "public", "a", "SELECT pg_catalog.setval('public.a', 42, true);\n\n"),
            set(11, "public", "My \"Seq\"", "SELECT pg_catalog.setval('public.\"My \"\"Seq\"\"\"', 1, false);\n"),
            set(
                12,
                "it's",
                "x', 9, true);",
                "SELECT pg_catalog.setval('\"it''s\".\"x'', 9, true);\"', -9223372036854775808, true);\n",
            ),
            set(13, "public", "e", "SELECT pg_catalog.setval(E'public.\"\\\\\"', 5, true);\n"),
            set(14, "public", "odd", "SELECT 1;"),
            entry(15, "TABLE", "SELECT pg_catalog.setval('public.b', 42, true);", ""),
        ]));
        let expected = [
            ("it's.x', 9, true);", (i64::MIN, true)),
            ("public.My \"Seq\"", (1, false)),
            ("public.a", (42, true)),
            ("public.e", (5, true)),
        ];
        let found: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found, expected);
    }
}
