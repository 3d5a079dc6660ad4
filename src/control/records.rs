//! Rows of backups, runs, rollbacks and the audit log. None is ever removed.

use serde::Serialize;
use serde_json::Value;
use tokio_postgres::{Client, Row};

use super::{clean, clean_option, os_user, while_doing};
use crate::clock::Time;
use crate::error::Result;
use crate::ids::{BackupId, RunId};

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
pub async fn backups(client: &Client) -> Result<Vec<BackupRow>> {
    // language=SQL
    const ALL: &str = "
        select id, run_id, database, purpose, server_version, tool_version, started_at, finished_at, raw_bytes,
               stored_bytes, compression, key_ids, digest, status, error, verified_at, drilled_at, pinned, deleted_at,
               location
          from ripcord.backup_history order by started_at, id";
    let failed = while_doing("the history of backups could not be read");
    let rows = client.query(ALL, &[]).await.map_err(&failed)?;
    rows.iter().map(|row| backup(row).map_err(&failed)).collect()
}

fn backup(row: &Row) -> Result<BackupRow, tokio_postgres::Error> {
    Ok(BackupRow {
        id: BackupId(row.try_get("id")?),
        run: run_id(row)?,
        database: row.try_get("database")?,
        purpose: row.try_get("purpose")?,
        server_version: row.try_get("server_version")?,
        tool_version: row.try_get("tool_version")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        raw_bytes: row.try_get("raw_bytes")?,
        stored_bytes: row.try_get("stored_bytes")?,
        compression: row.try_get("compression")?,
        key_ids: row.try_get("key_ids")?,
        digest: row.try_get("digest")?,
        status: row.try_get("status")?,
        error: row.try_get("error")?,
        verified_at: row.try_get("verified_at")?,
        drilled_at: row.try_get("drilled_at")?,
        pinned: row.try_get("pinned")?,
        deleted_at: row.try_get("deleted_at")?,
        location: row.try_get("location")?,
    })
}

fn run_id(row: &Row) -> Result<Option<RunId>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<uuid::Uuid>>("run_id")?.map(RunId))
}

/// Writes or updates a row (by id).
pub async fn put_backup(client: &Client, row: &BackupRow) -> Result<()> {
    // language=SQL
    const PUT: &str = "
        insert into ripcord.backup_history
               (id, run_id, database, purpose, server_version, tool_version, started_at, finished_at, raw_bytes,
                stored_bytes, compression, key_ids, digest, status, error, verified_at, drilled_at, pinned, deleted_at,
                location)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
        on conflict (id) do update
           set run_id = excluded.run_id, database = excluded.database, purpose = excluded.purpose,
               server_version = excluded.server_version, tool_version = excluded.tool_version,
               started_at = excluded.started_at, finished_at = excluded.finished_at, raw_bytes = excluded.raw_bytes,
               stored_bytes = excluded.stored_bytes, compression = excluded.compression, key_ids = excluded.key_ids,
               digest = excluded.digest, status = excluded.status, error = excluded.error,
               verified_at = excluded.verified_at, drilled_at = excluded.drilled_at, pinned = excluded.pinned,
               deleted_at = excluded.deleted_at, location = excluded.location";
    client
        .execute(
            PUT,
            &[
                &row.id.0,
                &row.run.map(|run| run.0),
                &clean(&row.database),
                &row.purpose,
                &row.server_version,
                &row.tool_version,
                &row.started_at,
                &row.finished_at,
                &row.raw_bytes,
                &row.stored_bytes,
                &row.compression,
                &row.key_ids,
                &row.digest,
                &row.status,
                &clean_option(row.error.as_deref()),
                &row.verified_at,
                &row.drilled_at,
                &row.pinned,
                &row.deleted_at,
                &clean(&row.location),
            ],
        )
        .await
        .map_err(while_doing("the backup's row could not be written"))?;
    Ok(())
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
pub async fn runs(client: &Client, limit: i64) -> Result<Vec<RunRow>> {
    // language=SQL
    const NEWEST: &str = "
        select id, command, environment, started_at, finished_at, outcome, exit_code, database_state, error, backup_id,
               batch, holder, tool_version
          from ripcord.runs order by started_at desc, id desc limit $1";
    let failed = while_doing("the runs could not be read");
    let rows = client.query(NEWEST, &[&limit]).await.map_err(&failed)?;
    let read = |row: &Row| -> Result<RunRow, tokio_postgres::Error> {
        Ok(RunRow {
            id: RunId(row.try_get("id")?),
            command: row.try_get("command")?,
            environment: row.try_get("environment")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
            outcome: row.try_get("outcome")?,
            exit_code: row.try_get("exit_code")?,
            database_state: row.try_get("database_state")?,
            error: row.try_get("error")?,
            backup: row.try_get::<_, Option<uuid::Uuid>>("backup_id")?.map(BackupId),
            batch: row.try_get("batch")?,
            holder: row.try_get("holder")?,
            tool_version: row.try_get("tool_version")?,
        })
    };
    rows.iter().map(|row| read(row).map_err(&failed)).collect()
}

/// Writes or updates a run (by id).
pub async fn put_run(client: &Client, row: &RunRow) -> Result<()> {
    // language=SQL
    const PUT: &str = "
        insert into ripcord.runs
               (id, command, environment, started_at, finished_at, outcome, exit_code, database_state, error, backup_id,
                batch, holder, tool_version)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        on conflict (id) do update
           set command = excluded.command, environment = excluded.environment, started_at = excluded.started_at,
               finished_at = excluded.finished_at, outcome = excluded.outcome, exit_code = excluded.exit_code,
               database_state = excluded.database_state, error = excluded.error, backup_id = excluded.backup_id,
               batch = excluded.batch, holder = excluded.holder, tool_version = excluded.tool_version";
    client
        .execute(
            PUT,
            &[
                &row.id.0,
                &row.command,
                &row.environment,
                &row.started_at,
                &row.finished_at,
                &row.outcome,
                &row.exit_code,
                &clean_option(row.database_state.as_deref()),
                &clean_option(row.error.as_deref()),
                &row.backup.map(|backup| backup.0),
                &row.batch,
                &clean(&row.holder),
                &row.tool_version,
            ],
        )
        .await
        .map_err(while_doing("the run's row could not be written"))?;
    Ok(())
}

/// A row of `ripcord.rollback_history`.
#[derive(Clone, Debug, Serialize)]
pub struct RollbackRow {
    /// Number.
    pub id: i64,
    /// When.
    pub at: Time,
    /// The migration's version.
    pub version: String,
    /// Its name.
    pub name: String,
    /// The checksum that it was applied with.
    pub checksum: String,
    /// The batch that it was applied in.
    pub batch: i32,
    /// The run that rolled it back.
    pub run: Option<RunId>,
    /// By what.
    pub how: String,
    /// How long it took.
    pub execution_time_ms: i64,
    /// Role and operating system user.
    pub rolled_back_by: String,
}

/// All rollbacks, oldest first.
pub async fn rollbacks(client: &Client) -> Result<Vec<RollbackRow>> {
    // language=SQL
    const ALL: &str = "
        select id, at, version, name, checksum, batch, run_id, how, execution_time_ms, rolled_back_by
          from ripcord.rollback_history order by id";
    let failed = while_doing("the history of rollbacks could not be read");
    let rows = client.query(ALL, &[]).await.map_err(&failed)?;
    let read = |row: &Row| -> Result<RollbackRow, tokio_postgres::Error> {
        Ok(RollbackRow {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            version: row.try_get("version")?,
            name: row.try_get("name")?,
            checksum: row.try_get("checksum")?,
            batch: row.try_get("batch")?,
            run: run_id(row)?,
            how: row.try_get("how")?,
            execution_time_ms: row.try_get("execution_time_ms")?,
            rolled_back_by: row.try_get("rolled_back_by")?,
        })
    };
    rows.iter().map(|row| read(row).map_err(&failed)).collect()
}

/// Appends to the audit log, which refuses UPDATE and DELETE. `detail` must hold no secret.
pub async fn audit(
    client: &Client,
    run: Option<RunId>,
    action: &str,
    detail: &Value,
    reason: Option<&str>,
) -> Result<()> {
    // language=SQL
    const APPEND: &str = "
        insert into ripcord.audit_log (run_id, action, actor, detail, reason)
        values ($1, $2, pg_catalog.concat(session_user, ' (', $3::pg_catalog.text, ')'), $4, $5)";
    client
        .execute(
            APPEND,
            &[&run.map(|run| run.0), &clean(action), &os_user(), &clean_value(detail), &clean_option(reason)],
        )
        .await
        .map_err(while_doing("the audit log could not be written"))?;
    Ok(())
}

/// jsonb cannot hold a zero character (PostgreSQL's documentation, "JSON Types").
fn clean_value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean(text).into_owned()),
        Value::Array(values) => Value::Array(values.iter().map(clean_value).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (clean(name).into_owned(), clean_value(value))).collect())
        }
        other => other.clone(),
    }
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
    pub detail: Value,
    /// The reason given.
    pub reason: Option<String>,
}

/// The audit log, newest first, at most `limit`.
pub async fn audit_log(client: &Client, limit: i64) -> Result<Vec<AuditRow>> {
    // language=SQL
    const NEWEST: &str =
        "select id, at, run_id, action, actor, detail, reason from ripcord.audit_log order by id desc limit $1";
    let failed = while_doing("the audit log could not be read");
    let rows = client.query(NEWEST, &[&limit]).await.map_err(&failed)?;
    let read = |row: &Row| -> Result<AuditRow, tokio_postgres::Error> {
        Ok(AuditRow {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            run: run_id(row)?,
            action: row.try_get("action")?,
            actor: row.try_get("actor")?,
            detail: row.try_get("detail")?,
            reason: row.try_get("reason")?,
        })
    };
    rows.iter().map(|row| read(row).map_err(&failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_characters_do_not_reach_the_server() {
        let value = serde_json::json!({ "a\0b": ["\0", 1, null, { "c": "d\0" }] });
        assert_eq!(
            clean_value(&value),
            serde_json::json!({ "a\u{fffd}b": ["\u{fffd}", 1, null, { "c": "d\u{fffd}" }] })
        );
    }
}
