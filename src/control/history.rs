//! Rows of migrations: applied, failed, rolled back, restored away. None is ever removed.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, GenericClient, Row};

use super::{TOOL_VERSION, clean, clean_option, os_user, while_doing};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::ids::RunId;

pub use super::records::{
    AuditRow, BackupRow, RollbackRow, RunRow, audit, audit_log, backups, put_backup, put_run, rollbacks, runs,
};

/// A script longer than this is not kept in the row; the row says so. In bytes.
pub const TEXT_LIMIT_BYTES: usize = 1 << 20;

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
    /// `applied`, `baseline`, `failed`, `failed_reset` (by `reset-failed`), `rolled_back`, `restored_away`,
    /// `superseded` (the same version was run once more), `forgotten` (by `repair --forget`).
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
    /// UP's text; `None` also when it was longer than [`TEXT_LIMIT_BYTES`].
    pub up_sql: Option<String>,
    /// DOWN's text; likewise.
    pub down_sql: Option<String>,
}

macro_rules! select_migrations {
    ($rest:literal) => {
        concat!(
            "select version, name, checksum, loose_checksum, batch, state, applied_at, execution_time_ms, success, error, \
                    applied_by, approver, git_commit, run_id, tool_version, up_sql, down_sql \
               from ripcord.schema_migrations ",
            $rest
        )
    };
}

/// All rows, in the order in which they were written.
pub async fn migrations(client: &Client) -> Result<Vec<MigrationRow>> {
    // language=SQL
    const ALL: &str = select_migrations!("order by id");
    read_migrations(client, ALL).await
}

/// The rows in effect (state `applied` or `baseline`), in the order of applying. A row that a restore put in
/// effect again stands where the one that it copies stood.
pub async fn applied(client: &Client) -> Result<Vec<MigrationRow>> {
    // language=SQL
    const IN_EFFECT: &str = select_migrations!(
        "where state OPERATOR(pg_catalog.=) any (array['applied', 'baseline']::pg_catalog.text[]) \
         order by coalesce(copy_of, id), id"
    );
    read_migrations(client, IN_EFFECT).await
}

async fn read_migrations(client: &Client, sql: &str) -> Result<Vec<MigrationRow>> {
    let failed = while_doing("the history of migrations could not be read");
    let rows = client.query(sql, &[]).await.map_err(&failed)?;
    rows.iter().map(|row| migration(row).map_err(&failed)).collect()
}

fn migration(row: &Row) -> Result<MigrationRow, tokio_postgres::Error> {
    Ok(MigrationRow {
        version: row.try_get("version")?,
        name: row.try_get("name")?,
        checksum: row.try_get("checksum")?,
        loose_checksum: row.try_get("loose_checksum")?,
        batch: row.try_get("batch")?,
        state: row.try_get("state")?,
        applied_at: row.try_get("applied_at")?,
        execution_time_ms: row.try_get("execution_time_ms")?,
        success: row.try_get("success")?,
        error: row.try_get("error")?,
        applied_by: row.try_get("applied_by")?,
        approver: row.try_get("approver")?,
        git_commit: row.try_get("git_commit")?,
        run: row.try_get::<_, Option<uuid::Uuid>>("run_id")?.map(RunId),
        tool_version: row.try_get("tool_version")?,
        up_sql: row.try_get("up_sql")?,
        down_sql: row.try_get("down_sql")?,
    })
}

/// Who is at work, for [`MigrationRow::applied_by`]: role and operating system user, as `deploy (root)`;
/// `deploy as owner (root)` after SET ROLE.
pub async fn actor(client: &Client) -> Result<String> {
    // language=SQL
    const ACTOR: &str = "select session_user::pg_catalog.text, current_user::pg_catalog.text";
    let failed = while_doing("the session's role could not be read");
    let row = client.query_one(ACTOR, &[]).await.map_err(&failed)?;
    let (session, current): (String, String) = (row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?);
    let role = if session == current { session } else { format!("{session} as {current}") };
    Ok(format!("{role} ({})", os_user()))
}

/// Records a row, in the caller's transaction if there is one. A row in effect of the same version becomes
/// `superseded` when this one is in effect (state `applied` or `baseline`). Texts longer than
/// [`TEXT_LIMIT_BYTES`] are left out, and the row says so. One statement, which holds whatever a
/// migration has made of `search_path`; the role must still be one that may write our tables.
pub async fn record_migration<C: GenericClient>(client: &C, row: &MigrationRow) -> Result<()> {
    // The count makes the insert wait for the update: the index on versions in effect holds one of each.
    // language=SQL
    const RECORD: &str = "
        with superseded as (
            update ripcord.schema_migrations set state = 'superseded'
             where version OPERATOR(pg_catalog.=) $1
               and state OPERATOR(pg_catalog.=) any (array['applied', 'baseline']::pg_catalog.text[])
               and $6 OPERATOR(pg_catalog.=) any (array['applied', 'baseline']::pg_catalog.text[])
            returning id
        ), waited as (
            select pg_catalog.count(*) from superseded
        )
        insert into ripcord.schema_migrations
               (version, name, checksum, loose_checksum, batch, state, applied_at, execution_time_ms, success, error,
                applied_by, approver, git_commit, run_id, tool_version, up_sql, down_sql, text_omitted, down_digest)
        select $1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text, $4::pg_catalog.text,
               $5::pg_catalog.int4, $6::pg_catalog.text, $7::pg_catalog.timestamptz, $8::pg_catalog.int8,
               $9::pg_catalog.bool, $10::pg_catalog.text, $11::pg_catalog.text, $12::pg_catalog.text,
               $13::pg_catalog.text, $14::pg_catalog.uuid, $15::pg_catalog.text, $16::pg_catalog.text,
               $17::pg_catalog.text, $18::pg_catalog.text, $19::pg_catalog.text
          from waited";
    let (up_sql, up_omitted) = short_enough("up_sql", row.up_sql.as_deref());
    let (down_sql, down_omitted) = short_enough("down_sql", row.down_sql.as_deref());
    let omitted: Vec<String> = up_omitted.into_iter().chain(down_omitted).collect();
    let omitted = (!omitted.is_empty()).then(|| omitted.join(", "));
    client
        .execute(
            RECORD,
            &[
                &clean(&row.version),
                &clean(&row.name),
                &row.checksum,
                &row.loose_checksum,
                &row.batch,
                &row.state,
                &row.applied_at,
                &row.execution_time_ms,
                &row.success,
                &clean_option(row.error.as_deref()),
                &clean(&row.applied_by),
                &clean_option(row.approver.as_deref()),
                &clean_option(row.git_commit.as_deref()),
                &row.run.map(|run| run.0),
                &row.tool_version,
                &clean_option(up_sql),
                &clean_option(down_sql),
                &omitted,
                &clean_option(down_sql).map(|down| digest_of(&down)),
            ],
        )
        .await
        .map_err(|error| {
            while_doing("the history's row could not be written")(error)
                .context(format!("migration `{}` was not recorded", row.version))
        })?;
    Ok(())
}

fn digest_of(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// An error when the DOWN that was kept for an applied migration is not the one of when it was applied. Rows that
/// another version of ripcord wrote have nothing to tell that by.
pub async fn check_kept_down(client: &Client, version: &str) -> Result<()> {
    // language=SQL
    const KEPT: &str = "select down_sql, down_digest from ripcord.schema_migrations
                         where version OPERATOR(pg_catalog.=) $1
                           and state OPERATOR(pg_catalog.=) any (array['applied', 'baseline']::pg_catalog.text[])";
    let failed = while_doing("the history of migrations could not be read");
    let Some(row) = client.query_opt(KEPT, &[&version]).await.map_err(&failed)? else { return Ok(()) };
    let down: Option<String> = row.try_get(0).map_err(&failed)?;
    let digest: Option<String> = row.try_get(1).map_err(&failed)?;
    match (down, digest) {
        (Some(down), Some(digest)) if digest_of(&down) != digest => {
            Err(Error::refused(format!("the DOWN that was kept for `{version}` is not the one of when it was applied"))
                .hint("put the file that was applied back into the folder, then: ripcord rollback"))
        }
        _ => Ok(()),
    }
}

/// The text when it may be kept, else what to say instead.
fn short_enough<'a>(column: &str, text: Option<&'a str>) -> (Option<&'a str>, Option<String>) {
    match text {
        Some(text) if text.len() > TEXT_LIMIT_BYTES => (None, Some(format!("{column} of {} bytes", text.len()))),
        other => (other, None),
    }
}

/// Marks an applied row as rolled back (the row stays), and writes `rollback_history`: one statement, in the
/// caller's transaction if there is one. An error when no row of the version is in effect. `how` says by what:
/// `down`, `forced`, …
pub async fn record_rollback<C: GenericClient>(
    client: &C,
    version: &str,
    run: RunId,
    how: &str,
    execution_time_ms: i64,
) -> Result<()> {
    // language=SQL
    const RECORD: &str = "
        with gone as (
            update ripcord.schema_migrations set state = 'rolled_back'
             where version OPERATOR(pg_catalog.=) $1
               and state OPERATOR(pg_catalog.=) any (array['applied', 'baseline']::pg_catalog.text[])
            returning id, version, name, checksum, batch
        )
        insert into ripcord.rollback_history
               (migration_id, version, name, checksum, batch, run_id, how, execution_time_ms, rolled_back_by,
                tool_version)
        select id, version, name, checksum, batch, $2::pg_catalog.uuid, $3::pg_catalog.text, $4::pg_catalog.int8,
               pg_catalog.concat(session_user, ' (', $5::pg_catalog.text, ')'), $6::pg_catalog.text
          from gone";
    let rows = client
        .execute(RECORD, &[&version, &run.0, &clean(how), &execution_time_ms, &os_user(), &TOOL_VERSION])
        .await
        .map_err(|error| {
            while_doing("the history's row could not be written")(error)
                .context(format!("the rollback of migration `{version}` was not recorded"))
        })?;
    if rows == 1 { Ok(()) } else { Err(not_in_effect(version)) }
}

fn not_in_effect(version: &str) -> Error {
    Error::failed(format!("no row says that migration `{version}` is applied"))
        .hint("`ripcord history` shows what is recorded")
}

/// The next batch's number.
pub async fn next_batch(client: &Client) -> Result<i32> {
    // Failed attempts and runs count too: a number is never used twice.
    // language=SQL
    const LAST: &str = "
        select greatest((select pg_catalog.max(batch) from ripcord.schema_migrations),
                        (select pg_catalog.max(batch) from ripcord.runs), 0)";
    let failed = while_doing("the last batch's number could not be read");
    let last: i32 = client.query_one(LAST, &[]).await.map_err(&failed)?.try_get(0).map_err(&failed)?;
    last.checked_add(1).ok_or_else(|| Error::failed(format!("there is no batch number after {last}")))
}

/// Removes failed rows from the set that `status` shows as failed (they stay as history, in the state
/// `failed_reset`). Returns how many.
pub async fn reset_failed(client: &Client) -> Result<u64> {
    // language=SQL
    const RESET: &str = "update ripcord.schema_migrations set state = 'failed_reset'
                          where state OPERATOR(pg_catalog.=) 'failed'";
    client.execute(RESET, &[]).await.map_err(while_doing("the failed rows could not be reset"))
}

/// Replaces the checksums of an applied row (repair). An error when no row of the version is in effect.
pub async fn repair_checksum(client: &Client, version: &str, checksum: &str, loose: &str) -> Result<()> {
    // language=SQL
    const REPAIR: &str = "
        update ripcord.schema_migrations set checksum = $2, loose_checksum = $3
         where version OPERATOR(pg_catalog.=) $1
           and state OPERATOR(pg_catalog.=) any (array['applied', 'baseline']::pg_catalog.text[])";
    let rows = client
        .execute(REPAIR, &[&version, &checksum, &loose])
        .await
        .map_err(while_doing("the checksum could not be replaced"))?;
    if rows == 1 { Ok(()) } else { Err(not_in_effect(version)) }
}

/// Takes a version out of the applied set without running anything (`repair --forget`); the row stays, in the
/// state `forgotten`. An error when no row of the version is in effect.
pub async fn forget_migration(client: &Client, version: &str) -> Result<()> {
    // language=SQL
    const FORGET: &str = "
        update ripcord.schema_migrations set state = 'forgotten'
         where version OPERATOR(pg_catalog.=) $1
           and state OPERATOR(pg_catalog.=) any (array['applied', 'baseline']::pg_catalog.text[])";
    let rows =
        client.execute(FORGET, &[&version]).await.map_err(while_doing("the migration could not be forgotten"))?;
    if rows == 1 { Ok(()) } else { Err(not_in_effect(version)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_up_to_the_limit() {
        let longest = "x".repeat(TEXT_LIMIT_BYTES);
        assert_eq!(short_enough("up_sql", Some(&longest)), (Some(longest.as_str()), None));
        let longer = format!("{longest}x");
        assert_eq!(short_enough("up_sql", Some(&longer)), (None, Some("up_sql of 1048577 bytes".to_owned())));
        assert_eq!(short_enough("up_sql", None), (None, None));
    }
}
