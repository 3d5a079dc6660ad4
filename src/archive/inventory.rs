//! What a database consists of, read from a dump's table of contents, in a form that can be compared.

use serde::{Deserialize, Serialize};

use super::toc::Toc;

/// SHA-256 over an inventory, hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

/// One object (or comment, grant, default, …) of a schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Item {
    /// `TABLE public.orders`, `ACL public.TABLE orders`, …
    pub name: String,
    /// SHA-256 over everything that the dump says of it but its number in this dump: owner,
    /// definition, tablespace, access method, copy columns.
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
    /// Reads it from a table of contents.
    pub fn of(_toc: &Toc) -> Inventory {
        todo!()
    }

    /// Its fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        todo!()
    }

    /// What is in `after` and not here, and the reverse.
    pub fn compare(&self, _after: &Inventory) -> Difference {
        todo!()
    }
}

/// Sequence values of a dump: `schema.sequence` → the arguments of its setval, `(last value, is called)`.
pub fn sequence_values(_toc: &Toc) -> std::collections::BTreeMap<String, (i64, bool)> {
    todo!()
}
