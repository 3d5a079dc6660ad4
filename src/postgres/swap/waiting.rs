//! Seeing that a restore in place waits for somebody's lock: pg_restore itself waits without a limit.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::postgres::databases::get;
use crate::postgres::{Session, session};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Returns when a session of ours, or of a program that we started, has waited in the database for the lock of one and
/// the same other session for longer than `limit`: that session's process and who it is. A witness of a load waits for that one on purpose.
pub async fn stuck_behind(maintenance: &Session, database: &str, limit: Duration) -> Result<(i32, String)> {
    // language=SQL
    let sql = "SELECT DISTINCT ON (b.pid) b.pid, pg_catalog.format('process %s of role %s (%s, %s since %s)', b.pid, \
                      b.usename, COALESCE(NULLIF(b.application_name, ''), 'without a name'), \
                      COALESCE(b.state, 'state not shown'), \
                      COALESCE(pg_catalog.date_trunc('second', b.state_change)::pg_catalog.text, '?')) \
                 FROM pg_catalog.pg_stat_activity AS a \
                 CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS p (pid) \
                 JOIN pg_catalog.pg_stat_activity AS b ON b.pid = p.pid \
                WHERE b.application_name <> 'ripcord gate' \
                  AND a.datname = $1 AND a.usename = CURRENT_USER AND a.wait_event_type = 'Lock' \
                  AND (a.application_name IN ('pg_restore', 'pg_dump') \
                       OR (pg_catalog.starts_with(a.application_name, 'ripcord ') \
                           AND a.application_name <> 'ripcord witness')) \
                ORDER BY b.pid LIMIT 1";
    let mut since: Option<(i32, Instant)> = None;
    loop {
        let row = maintenance.client().query_opt(sql, &[&database]).await.map_err(|error| session::explain(&error))?;
        since = match (row, since) {
            (None, _) => None,
            (Some(row), before) => {
                let (pid, who): (i32, String) = (get(&row, 0)?, get(&row, 1)?);
                match before {
                    Some((same, at)) if same == pid && at.elapsed() >= limit => return Ok((pid, who)),
                    Some((same, at)) if same == pid => Some((same, at)),
                    _ => Some((pid, Instant::now())),
                }
            }
        };
        tokio::time::sleep(PAUSE).await;
    }
}
