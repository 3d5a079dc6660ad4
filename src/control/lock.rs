//! The visible row of the lock. What excludes others is the advisory lock in the maintenance database
//! (see `postgres::guard`); this row says who holds it.

use serde::Serialize;
use tokio_postgres::Client;

use super::{clean, while_doing};
use crate::clock::{self, Time};
use crate::error::{Error, Kind, Result};
use crate::ids::RunId;

/// The row of `ripcord.lock`.
#[derive(Clone, Debug, Serialize)]
pub struct LockRow {
    /// The run.
    pub run: RunId,
    /// What it does.
    pub command: String,
    /// Operating system user.
    pub holder: String,
    /// Host.
    pub host: String,
    /// Process id there.
    pub pid: i32,
    /// Since when.
    pub since: Time,
    /// Last sign of life.
    pub heartbeat: Time,
    /// From when on a silent holder counts as dead.
    pub expires_at: Time,
}

/// The holder, if any.
pub async fn lock_row(client: &Client) -> Result<Option<LockRow>> {
    // language=SQL
    const READ: &str = "select run_id, command, holder, host, pid, since, heartbeat, expires_at from ripcord.lock";
    let failed = while_doing("the lock's row could not be read");
    let Some(row) = client.query_opt(READ, &[]).await.map_err(&failed)? else { return Ok(None) };
    let read = || -> Result<LockRow, tokio_postgres::Error> {
        Ok(LockRow {
            run: RunId(row.try_get(0)?),
            command: row.try_get(1)?,
            holder: row.try_get(2)?,
            host: row.try_get(3)?,
            pid: row.try_get(4)?,
            since: row.try_get(5)?,
            heartbeat: row.try_get(6)?,
            expires_at: row.try_get(7)?,
        })
    };
    read().map(Some).map_err(failed)
}

/// Puts the row, replacing whatever is there (the advisory lock is already ours).
pub async fn put_lock(client: &Client, row: &LockRow) -> Result<()> {
    // language=SQL
    const PUT: &str = "
        insert into ripcord.lock (run_id, command, holder, host, pid, since, heartbeat, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (only_row) do update
           set run_id = excluded.run_id, command = excluded.command, holder = excluded.holder, host = excluded.host,
               pid = excluded.pid, since = excluded.since, heartbeat = excluded.heartbeat,
               expires_at = excluded.expires_at";
    client
        .execute(
            PUT,
            &[
                &row.run.0,
                &clean(&row.command),
                &clean(&row.holder),
                &clean(&row.host),
                &row.pid,
                &row.since,
                &row.heartbeat,
                &row.expires_at,
            ],
        )
        .await
        .map_err(while_doing("the lock's row could not be written"))?;
    Ok(())
}

/// Renews the heartbeat; the row expires as long after it as before. An error ([`Kind::Locked`]) when the row
/// is not this run's any more: someone released the lock.
pub async fn beat(client: &Client, run: RunId) -> Result<()> {
    // language=SQL
    const BEAT: &str = "
        update ripcord.lock
           set heartbeat = $2,
               expires_at = $2::pg_catalog.timestamptz OPERATOR(pg_catalog.+) (expires_at OPERATOR(pg_catalog.-) heartbeat)
         where run_id OPERATOR(pg_catalog.=) $1";
    let rows = client
        .execute(BEAT, &[&run.0, &clock::now()])
        .await
        .map_err(while_doing("the lock's heartbeat could not be written"))?;
    if rows == 1 {
        Ok(())
    } else {
        Err(Error::new(Kind::Locked, format!("the lock's row is not of run `{run}` any more")))
    }
}

/// Removes the row, when it is this run's (or anybody's, with `None`).
pub async fn clear_lock(client: &Client, run: Option<RunId>) -> Result<()> {
    // language=SQL
    const CLEAR: &str =
        "delete from ripcord.lock where $1::pg_catalog.uuid is null or run_id OPERATOR(pg_catalog.=) $1";
    client
        .execute(CLEAR, &[&run.map(|run| run.0)])
        .await
        .map_err(while_doing("the lock's row could not be removed"))?;
    Ok(())
}

/// The action that the audit log has of [`ask_to_stop`].
const ASKED: &str = "cancel asked";

/// Asks a run to stop. It looks for that with each beat.
pub async fn ask_to_stop(client: &Client, run: RunId, reason: Option<&str>) -> Result<()> {
    super::audit(client, Some(run), ASKED, &serde_json::json!({}), reason).await
}

/// Whether somebody has asked the run to stop.
pub async fn is_asked_to_stop(client: &Client, run: RunId) -> Result<bool> {
    // language=SQL
    const ASK: &str = "select exists (select from ripcord.audit_log
                        where run_id OPERATOR(pg_catalog.=) $1 and action OPERATOR(pg_catalog.=) $2)";
    let failed = while_doing("whether the run shall stop could not be read");
    client.query_one(ASK, &[&run.0, &ASKED]).await.map_err(&failed)?.try_get(0).map_err(&failed)
}
