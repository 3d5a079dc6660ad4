//! Rows: migrations, backups, runs, audit, rollbacks.

use serde::Serialize;
use tokio_postgres::Client;

use crate::clock::Time;
use crate::error::Result;
use crate::ids::{BackupId, RunId};

/// A row of `ripcord.schema_migrations`.
#[derive(Clone, Debug, Serialize)]
pub struct MigrationRow {
    /// Version.
    pub version: String,
    /// Name.
    pub name: String,
    /// SHA-256 of the file.
    pub checksum: String,
    /// SHA-256 of the folded text.
    pub loose_checksum: Option<String>,
    /// Batch.
    pub batch: i32,
    /// `applied`, `failed`, `rolled_back`, `restored_away`, `baseline`.
    pub state: String,
    /// When.
    pub applied_at: Time,
    /// How long.
    pub execution_time_ms: i64,
    /// Whether it went well.
    pub success: bool,
    /// What went wrong.
    pub error: Option<String>,
    /// Role and operating system user.
    pub applied_by: String,
    /// Who approved.
    pub approver: Option<String>,
    /// Commit of the working copy that the file came from.
    pub git_commit: Option<String>,
    /// The run.
    pub run: Option<RunId>,
    /// ripcord's version.
    pub tool_version: String,
    /// UP's text.
    pub up_sql: Option<String>,
    /// DOWN's text.
    pub down_sql: Option<String>,
}

/// All rows, in the order in which they were written.
pub async fn migrations(_client: &Client) -> Result<Vec<MigrationRow>> {
    todo!()
}

/// The rows in effect (state `applied` or `baseline`), in the order of applying.
pub async fn applied(_client: &Client) -> Result<Vec<MigrationRow>> {
    todo!()
}

/// The statement (with parameters, inside the caller's transaction) that records a row.
pub async fn record_migration<C: tokio_postgres::GenericClient>(_client: &C, _row: &MigrationRow) -> Result<()> {
    todo!()
}

/// Marks an applied row as rolled back (the row stays), and writes `rollback_history`.
pub async fn record_rollback<C: tokio_postgres::GenericClient>(
    _client: &C,
    _version: &str,
    _run: RunId,
    _how: &str,
    _execution_time_ms: i64,
) -> Result<()> {
    todo!()
}

/// The next batch's number.
pub async fn next_batch(_client: &Client) -> Result<i32> {
    todo!()
}

/// Removes failed rows from the set that `status` shows as failed (they stay as history).
pub async fn reset_failed(_client: &Client) -> Result<u64> {
    todo!()
}

/// Replaces the checksums of an applied row (repair).
pub async fn repair_checksum(_client: &Client, _version: &str, _checksum: &str, _loose: &str) -> Result<()> {
    todo!()
}

/// A row of `ripcord.backup_history`.
#[derive(Clone, Debug, Serialize)]
pub struct BackupRow {
    /// Which.
    pub id: BackupId,
    /// The run.
    pub run: Option<RunId>,
    /// The database's name.
    pub database: String,
    /// Purpose's word.
    pub purpose: String,
    /// Server version.
    pub server_version: String,
    /// Tool version.
    pub tool_version: String,
    /// Start.
    pub started_at: Time,
    /// End.
    pub finished_at: Option<Time>,
    /// Plaintext bytes.
    pub raw_bytes: Option<i64>,
    /// Stored bytes.
    pub stored_bytes: Option<i64>,
    /// `zstd-3`.
    pub compression: String,
    /// Key ids.
    pub key_ids: Vec<String>,
    /// SHA-256 of the stored stream.
    pub digest: Option<String>,
    /// `running`, `failed`, `complete`, `verified`, `damaged`, `deleted`.
    pub status: String,
    /// What went wrong.
    pub error: Option<String>,
    /// Last verified.
    pub verified_at: Option<Time>,
    /// Last drilled.
    pub drilled_at: Option<Time>,
    /// Pinned.
    pub pinned: bool,
    /// When it was deleted.
    pub deleted_at: Option<Time>,
    /// Where it is.
    pub location: String,
}

/// All rows, oldest first.
pub async fn backups(_client: &Client) -> Result<Vec<BackupRow>> {
    todo!()
}

/// Writes or updates a row (by id).
pub async fn put_backup(_client: &Client, _row: &BackupRow) -> Result<()> {
    todo!()
}

/// A row of `ripcord.runs`.
#[derive(Clone, Debug, Serialize)]
pub struct RunRow {
    /// Which.
    pub id: RunId,
    /// `apply`, `restore`, …
    pub command: String,
    /// Environment's name.
    pub environment: Option<String>,
    /// Start.
    pub started_at: Time,
    /// End.
    pub finished_at: Option<Time>,
    /// Outcome, once it is over.
    pub outcome: Option<String>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// The database's state in one line.
    pub database_state: Option<String>,
    /// The failure.
    pub error: Option<String>,
    /// The run's backup.
    pub backup: Option<BackupId>,
    /// Batch.
    pub batch: Option<i32>,
    /// `user@host:pid`.
    pub holder: String,
    /// ripcord's version.
    pub tool_version: String,
}

/// All runs, newest first, at most `limit`.
pub async fn runs(_client: &Client, _limit: i64) -> Result<Vec<RunRow>> {
    todo!()
}

/// Writes or updates a run (by id).
pub async fn put_run(_client: &Client, _row: &RunRow) -> Result<()> {
    todo!()
}

/// Appends to the audit log, which refuses UPDATE and DELETE.
pub async fn audit(
    _client: &Client,
    _run: Option<RunId>,
    _action: &str,
    _detail: &serde_json::Value,
    _reason: Option<&str>,
) -> Result<()> {
    todo!()
}

/// A row of `ripcord.audit_log`.
#[derive(Clone, Debug, Serialize)]
pub struct AuditRow {
    /// Number.
    pub id: i64,
    /// When.
    pub at: Time,
    /// The run.
    pub run: Option<RunId>,
    /// What was done.
    pub action: String,
    /// Role and operating system user.
    pub actor: String,
    /// Anything else.
    pub detail: serde_json::Value,
    /// The reason given.
    pub reason: Option<String>,
}

/// The audit log, newest first, at most `limit`.
pub async fn audit_log(_client: &Client, _limit: i64) -> Result<Vec<AuditRow>> {
    todo!()
}
