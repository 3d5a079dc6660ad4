//! What would stop a dump, a restore or a swap, found out before anything is touched.

use serde::Serialize;

use super::{Session, Target};
use crate::error::Result;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// `SHOW server_version`.
    pub server_version: String,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// The role is a superuser.
    pub superuser: bool,
    /// The role may create databases.
    pub createdb: bool,
    /// The role owns the database, or is a member of its owner.
    pub owns_database: bool,
    /// Roles that own something here and that the role is not a member of.
    pub foreign_owners: Vec<String>,
    /// Tables that row security would hide rows of, from this role.
    pub row_security: Vec<String>,
    /// Prepared transactions of this database (gid).
    pub prepared: Vec<String>,
    /// Logical slots of this database.
    pub slots: Vec<String>,
    /// Subscriptions of this database.
    pub subscriptions: Vec<String>,
    /// Event triggers of this database.
    pub event_triggers: Vec<String>,
    /// Unlogged, foreign tables: whose rows a dump cannot promise.
    pub foreign_tables: Vec<String>,
    /// Other dumps that run in this database (pid, since).
    pub running_dumps: Vec<String>,
    /// Extensions that the server does not offer any more.
    pub missing_extensions: Vec<String>,
    /// The server is a standby.
    pub in_recovery: bool,
    /// Who may pass a read-only fence: role-in-database settings, apply workers, prepared transactions.
    pub fence_leaks: Vec<String>,
    /// Free bytes where the server keeps its data, when that can be known.
    pub server_free_bytes: Option<u64>,
}

/// Looks at the target and, through `maintenance`, at the server.
pub async fn look(_target: &Target, _session: &Session, _maintenance: &Session) -> Result<Findings> {
    todo!()
}
