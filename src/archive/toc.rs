//! The table of contents of a custom-format dump (`pg_dump -Fc`, archive versions 1.14 to 1.16), read
//! as bounded byte strings: names may be in any encoding, and a damaged count must not allocate.

use std::collections::HashMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::parse::TocParser;

/// Bytes that are nearly always UTF-8. Serialised as a string when they are, else as `{"hex": "…"}`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub Vec<u8>);

impl Text {
    /// The text, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text for people: what is not UTF-8 is replaced.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.lossy())
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => Hex { hex: hex::encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Text(text.into_bytes())),
            Written::Hex(Hex { hex }) => hex::decode(hex).map(Text).map_err(D::Error::custom),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Hex(Hex),
}

/// When an entry is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Part of no section (encoding, search path, …).
    None,
    /// Before the data.
    PreData,
    /// The data.
    Data,
    /// After the data: indexes, constraints, triggers, …
    PostData,
}

/// One entry.
#[derive(Clone, Debug)]
pub struct TocEntry {
    /// Its number within this dump.
    pub dump_id: i32,
    /// Whether a data block of this number follows.
    pub has_data: bool,
    /// `TABLE`, `INDEX`, `TABLE DATA`, …
    pub description: Text,
    /// Schema, or empty.
    pub namespace: Text,
    /// Its name (with arguments for functions, table and name for constraints).
    pub tag: Text,
    /// Owning role, or empty.
    pub owner: Text,
    /// When it is restored.
    pub section: Section,
    /// Where the position of its data is noted within the table of contents, in bytes from the dump's start: a byte
    /// that says whether it is set, and the offset.
    pub position_at: u64,
    /// The SQL that makes it.
    pub definition: Text,
    /// The SQL that removes it.
    pub drop_statement: Text,
    /// The COPY statement, for table data.
    pub copy_statement: Text,
    /// Tablespace, or empty.
    pub tablespace: Text,
    /// Table access method, or empty.
    pub access_method: Text,
    /// Entries that must be restored before.
    pub dependencies: Vec<i32>,
}

/// Header and table of contents of a dump.
#[derive(Clone, Debug)]
pub struct Toc {
    /// Archive version, such as `(1, 14)`.
    pub version: (u8, u8),
    /// The database's name as pg_dump wrote it.
    pub database: Text,
    /// The server's version string.
    pub server_version: Text,
    /// pg_dump's version string.
    pub dump_version: Text,
    /// The entries, in restore order.
    pub entries: Vec<TocEntry>,
    /// Bytes that header and entries take at the stream's start.
    pub length_bytes: u64,
    /// Bytes of an offset in it.
    pub offset_bytes: usize,
}

impl Toc {
    /// Reads header and entries from the start of `bytes`, which may go on after them.
    pub fn parse(bytes: &[u8]) -> Result<Toc, ArchiveError> {
        TocParser::default()
            .advance(bytes)?
            .ok_or(ArchiveError::DumpTruncated { part: "its table of contents", at: bytes.len() as u64 })
    }

    /// The entry of that number.
    pub fn entry(&self, dump_id: i32) -> Option<&TocEntry> {
        self.entries.iter().find(|entry| entry.dump_id == dump_id)
    }

    /// The indexes, primary keys and unique constraints of each table that has rows, by the number of the entry
    /// that brings the rows: as far as nothing has to come before them but the table and what comes before all data.
    pub fn own_indexes(&self) -> HashMap<i32, Vec<i32>> {
        let by_id: HashMap<i32, &TocEntry> = self.entries.iter().map(|entry| (entry.dump_id, entry)).collect();
        let is_table = |number: &i32| by_id.get(number).is_some_and(|entry| entry.description.0 == b"TABLE");
        let mut of_table: HashMap<i32, Vec<i32>> = HashMap::new();
        for entry in &self.entries {
            let is_index = entry.section == Section::PostData
                && matches!(entry.description.0.as_slice(), b"INDEX" | b"CONSTRAINT");
            let stands_alone = entry
                .dependencies
                .iter()
                .all(|number| by_id.get(number).is_none_or(|before| before.section == Section::PreData));
            let mut tables = entry.dependencies.iter().filter(|number| is_table(number));
            if is_index
                && stands_alone
                && let Some(table) = tables.next()
                // Once for each of its columns that the index reads.
                && tables.all(|other| other == table)
            {
                of_table.entry(*table).or_default().push(entry.dump_id);
            }
        }
        let data = self.entries.iter().filter(|entry| entry.description.0 == b"TABLE DATA");
        data.filter_map(|data| {
            let table = data.dependencies.iter().find(|number| is_table(number))?;
            Some((data.dump_id, of_table.remove(table)?))
        })
        .collect()
    }

    /// What has to stand where, in bytes from the dump's start, for its table of contents to say where each data
    /// block begins. pg_dump cannot write that into a pipe, and `pg_restore --jobs` finds the blocks by it. `blocks`
    /// are number and first byte of each (PostgreSQL's `pg_backup_archiver.c`, `WriteOffset`).
    pub fn positions(&self, blocks: impl Iterator<Item = (i32, u64)>) -> Vec<(u64, Vec<u8>)> {
        const SET: u8 = 2;
        let starts: HashMap<i32, u64> = blocks.collect();
        let note = |entry: &TocEntry| {
            let start = starts.get(&entry.dump_id).filter(|_| entry.has_data)?.to_le_bytes();
            let (offset, rest) = start.split_at_checked(self.offset_bytes)?;
            // One that does not fit stays as it is: unset, which only takes a search.
            let fits = rest.iter().all(|byte| *byte == 0);
            fits.then(|| (entry.position_at, [&[SET], offset].concat()))
        };
        self.entries.iter().filter_map(note).collect()
    }

    /// The database's encoding as the ENCODING entry sets it, such as `UTF8`, `LATIN1`, `SQL_ASCII`.
    pub fn encoding(&self) -> Option<String> {
        // Written by pg_dump as: SET client_encoding = 'UTF8';
        let entry = self.entries.iter().find(|entry| entry.description.0 == b"ENCODING")?;
        let mut parts = entry.definition.as_str()?.split('\'');
        let encoding = parts.nth(1)?;
        parts.next()?;
        Some(encoding.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_json_in_any_encoding() {
        for (bytes, json) in [
            (&b"caf\xc3\xa9"[..], "\"café\""),
            (b"caf\xe9", r#"{"hex":"636166e9"}"#),
            (b"", r#""""#),
            (b"\0\"", r#""\u0000\"""#),
        ] {
            let text = Text(bytes.to_vec());
            assert_eq!(serde_json::to_string(&text).unwrap(), json);
            assert_eq!(serde_json::from_str::<Text>(json).unwrap(), text);
        }
        for odd in ["7", "{}", r#"{"hex":"6"}"#, r#"{"hex":"zz"}"#, "null"] {
            assert!(serde_json::from_str::<Text>(odd).is_err(), "{odd}");
        }
    }
}
