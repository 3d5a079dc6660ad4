//! Digests of rows that do not depend on their order.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

/// The rows of a table: how many, and the sum modulo 2^128 of SipHash-1-3-128 over each row's COPY
/// text (without its line end) under the backup's digest key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Rows.
    pub rows: u64,
    /// The sum. Serialised as 32 hexadecimal digits.
    #[serde(with = "hex_sum")]
    pub sum: u128,
}

impl Digest {
    /// Adds the rows of another part of the same table.
    pub fn merge(&mut self, other: Digest) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }
}

/// Digests COPY text that comes in any portions: each line is a row, up to the line `\.`, after which
/// only line ends may come (pg_dump writes `\.` and two empty lines).
pub struct RowDigester {
    keyed: SipHasher13,
    digest: Digest,
    data_bytes: u64,
    /// The row that a portion's end has cut.
    open: Option<OpenRow>,
    closed: bool,
}

struct OpenRow {
    hasher: SipHasher13,
    bytes: u64,
    /// Its first two bytes, to know a closing line that was cut.
    start: [u8; 2],
}

/// The line that ends COPY text. No row can look like it: COPY writes a backslash as two.
const CLOSING: &[u8] = b"\\.";

/// What stands after the closing line is no line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAfterEnd;

impl RowDigester {
    /// Digests under `key`.
    pub fn new(key: &[u8; 16]) -> Self {
        RowDigester {
            keyed: SipHasher13::new_with_key(key),
            digest: Digest::default(),
            data_bytes: 0,
            open: None,
            closed: false,
        }
    }

    /// Takes the next bytes of the text.
    pub fn feed(&mut self, mut text: &[u8]) -> Result<(), DataAfterEnd> {
        if self.closed {
            return only_line_ends(text);
        }
        if self.open.is_some() {
            let Some(end) = memchr::memchr(b'\n', text) else {
                self.extend(text);
                return Ok(());
            };
            self.extend(&text[..end]);
            self.close_open_row();
            text = &text[end + 1..];
            if self.closed {
                return only_line_ends(text);
            }
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', text) {
            let row = &text[start..end];
            start = end + 1;
            if row == CLOSING {
                self.closed = true;
                return only_line_ends(&text[start..]);
            }
            self.digest.add(self.keyed.hash(row).as_u128());
            self.data_bytes += row.len() as u64 + 1;
        }
        if start < text.len() {
            self.extend(&text[start..]);
        }
        Ok(())
    }

    /// Whether the closing line was seen.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the text so far ends within a row.
    pub fn is_within_row(&self) -> bool {
        self.open.is_some()
    }

    /// The rows so far.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of the rows so far, line ends included.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    fn extend(&mut self, part: &[u8]) {
        let row = self.open.get_or_insert(OpenRow { hasher: self.keyed, bytes: 0, start: [0; 2] });
        let known = usize::try_from(row.bytes).unwrap_or(usize::MAX);
        for (place, byte) in row.start.iter_mut().skip(known).zip(part) {
            *place = *byte;
        }
        row.hasher.write(part);
        row.bytes += part.len() as u64;
    }

    fn close_open_row(&mut self) {
        if let Some(row) = self.open.take() {
            if row.bytes == CLOSING.len() as u64 && row.start == CLOSING {
                self.closed = true;
            } else {
                self.digest.add(row.hasher.finish128().as_u128());
                self.data_bytes += row.bytes + 1;
            }
        }
    }
}

fn only_line_ends(text: &[u8]) -> Result<(), DataAfterEnd> {
    if text.iter().all(|byte| *byte == b'\n') { Ok(()) } else { Err(DataAfterEnd) }
}

/// Digests large objects: each counts as one row, over its oid (8 bytes, little-endian) and content.
pub struct ObjectDigester {
    keyed: SipHasher13,
    current: SipHasher13,
    digest: Digest,
    data_bytes: u64,
}

impl ObjectDigester {
    /// Under the digest subkey of a backup.
    pub fn new(key: &[u8; 16]) -> Self {
        let keyed = SipHasher13::new_with_key(key);
        ObjectDigester { keyed, current: keyed, digest: Digest::default(), data_bytes: 0 }
    }

    /// Begins the next object.
    pub fn begin(&mut self, oid: u32) {
        self.current = self.keyed;
        self.current.write(&u64::from(oid).to_le_bytes());
    }

    /// Takes the next bytes of its content.
    pub fn feed(&mut self, content: &[u8]) {
        self.current.write(content);
        self.data_bytes += content.len() as u64;
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.digest.add(self.current.finish128().as_u128());
    }

    /// The digest of all that were ended.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of content so far.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }
}

mod hex_sum {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(sum: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{sum:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    fn of(portions: &[&[u8]]) -> (Digest, u64, bool) {
        let mut rows = RowDigester::new(&KEY);
        for portion in portions {
            rows.feed(portion).unwrap();
        }
        (rows.digest(), rows.data_bytes(), rows.is_closed())
    }

    #[test]
    fn the_hash_of_a_row_is_frozen() {
        let (digest, _, _) = of(&[b"1\tone\n"]);
        assert_eq!(format!("{:032x}", digest.sum), "4c6a1ae4cc2460b7cea677531db67fd9");
    }

    #[test]
    fn order_makes_no_difference_and_content_does() {
        assert_eq!(of(&[b"a\nb\n"]), of(&[b"b\na\n"]));
        assert_ne!(of(&[b"a\nb\n"]).0, of(&[b"a\na\n"]).0);
        assert_ne!(of(&[b"a\n\n"]).0, of(&[b"a\n"]).0);
        let mut parts = of(&[b"a\n"]).0;
        parts.merge(of(&[b"b\n"]).0);
        assert_eq!(parts, of(&[b"a\nb\n"]).0);
    }

    #[test]
    fn the_closing_line_is_no_row_and_nothing_may_follow_it() {
        assert_eq!(of(&[b"a\n\\.\n\n\n"]), of(&[b"a\n", b"\\", b".", b"\n", b"\n\n"]));
        assert_eq!(of(&[b"a\n\\.\n\n\n"]).0.rows, 1);
        assert_eq!(of(&[b"\\.x\n\\N\n\\..\n"]).0.rows, 3);
        for portions in [[&b"\\.\n"[..], b"x"], [b"\\.\nx", b""], [b"\\.", b"\n\nx"]] {
            let mut rows = RowDigester::new(&KEY);
            let told: Result<Vec<()>, _> = portions.iter().map(|portion| rows.feed(portion)).collect();
            assert_eq!(told, Err(DataAfterEnd));
        }
    }

    proptest! {
        #[test]
        fn portions_make_no_difference(
            rows in prop::collection::vec("[a-z\\\\.\t]{0,40}", 0..30),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut text = Vec::new();
            for row in &rows {
                text.extend_from_slice(row.replace("\\.", "x").as_bytes());
                text.push(b'\n');
            }
            text.extend_from_slice(b"\\.\n\n\n");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let portions: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            let whole = of(&[&text]);
            prop_assert_eq!(of(&portions), whole);
            prop_assert_eq!(whole.0.rows, rows.len() as u64);
            prop_assert_eq!(whole.1, text.len() as u64 - 5);
        }
    }
}
