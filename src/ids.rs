//! Names of things that outlive a process: lineages, backups, runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $word:literal, $make:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new one.
            pub fn new() -> Self {
                $name($make)
            }

            /// Its 16 bytes, as they are authenticated in the archive.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Uuid::parse_str(text).map($name).map_err(|_| {
                    Error::usage(format!("`{text}` is not the id of a {}", $word))
                })
            }
        }
    };
}

id!(
    /// A database through all its swaps and servers: made when ripcord first meets it, carried in
    /// the control schema and in every manifest.
    Lineage, "lineage", Uuid::new_v4()
);
id!(
    /// A backup. Ids sort by the time they were made (UUID version 7, RFC 9562).
    BackupId, "backup", Uuid::now_v7()
);
id!(
    /// One invocation that changes something. Ids sort by time, as those of backups do.
    RunId, "run", Uuid::now_v7()
);
