//! Databases as objects: what they are made with, scratch ones, kept ones.

use serde::Serialize;

use super::Session;
use crate::error::Result;
use crate::manifest::{DatabaseProperties, ExtensionRecord};

/// A database of the server.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseInfo {
    /// Its name.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// Whether it lets anyone in.
    pub allows_connections: bool,
    /// Its comment.
    pub comment: Option<String>,
    /// Its bytes, where we may know.
    pub bytes: Option<u64>,
}

/// The database of that name, seen from any other.
pub async fn find(_session: &Session, _name: &str) -> Result<Option<DatabaseInfo>> {
    todo!()
}

/// Everything that pg_dump without `-C` leaves out. The fence's own setting is never part of it.
pub async fn read_properties(_session: &Session, _database: &str) -> Result<DatabaseProperties> {
    todo!()
}

/// Extensions of the session's database.
pub async fn extensions(_session: &Session) -> Result<Vec<ExtensionRecord>> {
    todo!()
}

/// A new scratch name, `rc_<12 hex>`.
pub fn scratch_name() -> String {
    format!("rc_{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// Creates a database from template0 with these properties' owner, encoding, locale and tablespace,
/// CONNECT revoked from PUBLIC, and a comment that says what it is and from which backup. Returns its
/// oid. A name that is taken is an error.
pub async fn create(
    _maintenance: &Session,
    _name: &str,
    _properties: &DatabaseProperties,
    _comment: &str,
) -> Result<u32> {
    todo!()
}

/// Sets what `create` could not: settings, connection limit, comment, security labels, ACL. What cannot
/// be set (a role that is gone, a parameter that needs superuser) is returned as warnings. `session` is in
/// the maintenance database.
pub async fn apply_properties(
    _maintenance: &Session,
    _name: &str,
    _properties: &DatabaseProperties,
) -> Result<Vec<String>> {
    todo!()
}

/// Drops a scratch database: only one whose name, oid and comment are those of a scratch database of
/// ours. Its sessions are ended first. No error when it is gone.
pub async fn drop_scratch(_maintenance: &Session, _name: &str, _oid: Option<u32>) -> Result<()> {
    todo!()
}

/// Databases that a swap kept aside, by their comments; oldest first.
pub async fn list_aside(_maintenance: &Session, _lineage: Option<crate::ids::Lineage>) -> Result<Vec<DatabaseInfo>> {
    todo!()
}

/// What hinders dropping a kept database (logical slots, prepared transactions, sessions).
pub async fn drop_hindrances(_maintenance: &Session, _name: &str) -> Result<Vec<String>> {
    todo!()
}

/// Drops a kept database: only one whose comment says that a swap kept it.
pub async fn drop_aside(_maintenance: &Session, _name: &str) -> Result<()> {
    todo!()
}
