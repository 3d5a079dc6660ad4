//! Digests of rows that do not depend on their order.

use serde::{Deserialize, Serialize};

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
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
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
