//! What a database consists of, read from a dump's table of contents, in a form that can be compared.

use std::collections::BTreeMap;

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
        b"COMMENT" | b"ACL" | b"SECURITY LABEL" => !entry.tag.0.starts_with(b"DATABASE "),
        _ => true,
    }
}

/// `TABLE public.orders`.
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
