//! Making, checking and upgrading the control schema.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::error::Result;
use crate::ids::Lineage;

/// The version of the control schema that this binary writes.
pub const SCHEMA_VERSION: i32 = 1;

/// The schema's name.
pub const SCHEMA: &str = "ripcord";

/// What stands in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No schema of our name.
    Absent,
    /// Ours.
    Present {
        /// The database's lineage.
        lineage: Lineage,
        /// The schema's version.
        version: i32,
    },
}

/// Looks. An error (refused) when there is a schema of our name whose owner, kinds, triggers, rules or
/// policies are not ours, or whose version is newer than this binary's.
pub async fn inspect(_client: &Client) -> Result<State> {
    todo!()
}

/// Creates it in one transaction, for `lineage`; never with IF NOT EXISTS. Upgrades an older one.
pub async fn ensure(_client: &Client, _lineage: Lineage) -> Result<Lineage> {
    todo!()
}

/// Sets another lineage: a copy made by `restore --into` becomes a database of its own.
pub async fn set_lineage(_client: &Client, _lineage: Lineage) -> Result<()> {
    todo!()
}

/// Every row of our tables as JSON arrays, by table: for the manifest and for carrying over.
pub async fn export_rows(_client: &Client) -> Result<BTreeMap<String, serde_json::Value>> {
    todo!()
}

/// Puts rows into a fresh control schema. `migrations` replaces what `rows` says of `schema_migrations`'
/// applied set: rows of it that are not in `migrations` (by version and checksum) come in as history
/// (`state` = `restored away`), never as applied.
pub async fn import_rows(
    _client: &Client,
    _rows: &BTreeMap<String, serde_json::Value>,
    _applied: &[(String, String)],
) -> Result<()> {
    todo!()
}
