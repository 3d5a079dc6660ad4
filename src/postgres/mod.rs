//! The server, its sessions and its client programs. Processes are started here and nowhere else.

pub mod checks;
pub mod counts;
pub mod databases;
pub mod dump;
pub mod execute;
pub mod guard;
pub mod indexes;
pub mod load;
pub mod observe;
pub mod preflight;
pub mod quote;
pub mod salvage;
pub mod session;
pub mod share;
pub mod supabase;
pub mod swap;
pub mod target;
pub mod tools;
pub mod writes;

pub use session::Session;
pub use target::Target;
pub use tools::Tools;

/// Settings that change how values are written as text, fixed for every dump and every read that is
/// compared with one: a database-level `bytea_output` would otherwise change the bytes.
pub const TEXT_SETTINGS: &[(&str, &str)] = &[
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmlbinary", "base64"),
    ("xmloption", "content"),
    // These change how definitions are written, and how they and arrays are read.
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
];
