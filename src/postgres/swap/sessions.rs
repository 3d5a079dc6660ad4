//! Ending sessions, and waiting until they are gone.

use std::time::{Duration, Instant};

use super::SETTLE;
use crate::error::{Error, Result};
use crate::postgres::databases::{self, get};
use crate::postgres::{Session, session};

/// Ends every other session in the database and waits until none is left.
pub async fn end_sessions(maintenance: &Session, database: &str, limit: Duration) -> Result<()> {
    let Some(found) = databases::find(maintenance, database).await? else {
        return Err(Error::failed(format!("database `{database}` does not exist")));
    };
    end_others(maintenance, found.oid, database, &[], Whom::All, limit).await
}

/// Ends the sessions in the database that this role opened under one of these `application_name`s, but for
/// `spared`, and waits until they are gone: what a run that died had begun may still go on at the server.
pub async fn end_named(
    maintenance: &Session,
    database: &str,
    names: &[&str],
    spared: &[i32],
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        // language=SQL
        let sql = "SELECT a.pid FROM pg_catalog.pg_stat_activity AS a \
                   WHERE a.datname = $1 AND a.usename = CURRENT_USER AND a.application_name = ANY ($2) \
                     AND a.pid <> pg_catalog.pg_backend_pid() AND a.pid <> ALL ($3)";
        let rows = maintenance
            .client()
            .query(sql, &[&database, &names, &spared])
            .await
            .map_err(|error| session::explain(&error))?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            terminate(maintenance, get(row, 0)?).await?;
        }
        if Instant::now() >= deadline {
            return Err(Error::failed(format!(
                "a session of an earlier run in database `{database}` does not end within {} s",
                limit.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whose sessions are ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::postgres) enum Whom {
    /// Everyone's, until none is left.
    All,
    /// Those that are there now, but ripcord's own; who comes later stays.
    PresentStrangers,
}

struct Other {
    pid: i32,
    user: Option<String>,
    application: String,
    /// Autovacuum and other workers have no user.
    is_worker: bool,
}

impl Other {
    fn shown(&self) -> String {
        let user =
            self.user.as_deref().map_or_else(|| "a background worker".to_owned(), |user| format!("role `{user}`"));
        format!(
            "process {} of {user} ({})",
            self.pid,
            if self.application.is_empty() { "-" } else { &self.application }
        )
    }
}

/// Ends sessions in the database but those in `spared` and the one asking.
pub(in crate::postgres) async fn end_others(
    maintenance: &Session,
    oid: u32,
    database: &str,
    spared: &[i32],
    whom: Whom,
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let present: Option<Vec<i32>> = match whom {
        Whom::All => None,
        Whom::PresentStrangers => {
            Some(others(maintenance, oid, spared, whom, None).await?.iter().map(|other| other.pid).collect())
        }
    };
    let mut pause = Duration::from_millis(2);
    loop {
        let left = others(maintenance, oid, spared, whom, present.as_deref()).await?;
        if left.is_empty() {
            return Ok(());
        }
        let mut waited_for = 0;
        for other in &left {
            match terminate(maintenance, other.pid).await {
                Ok(()) => waited_for += 1,
                // A rename or a drop ends autovacuum by itself, and it writes nothing that could be lost.
                Err(error) if error.sqlstate() == Some("42501") && other.is_worker => {}
                Err(error) if error.sqlstate() == Some("42501") => {
                    return Err(error
                        .context(format!("a session in database `{database}` may not be ended: {}", other.shown()))
                        .hint("GRANT pg_signal_backend to the role that ripcord connects as"));
                }
                Err(error) => return Err(error),
            }
        }
        if waited_for == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let mut error =
                Error::failed(format!("sessions in database `{database}` do not end within {} s", limit.as_secs()));
            for other in left.iter().take(10) {
                error = error.because(other.shown());
            }
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

async fn others(
    maintenance: &Session,
    oid: u32,
    spared: &[i32],
    whom: Whom,
    among: Option<&[i32]>,
) -> Result<Vec<Other>> {
    // language=SQL
    let sql = "SELECT a.pid, a.usename::pg_catalog.text, COALESCE(a.application_name, ''), a.usesysid IS NULL \
               FROM pg_catalog.pg_stat_activity AS a \
               WHERE a.datid = $1 AND a.pid <> pg_catalog.pg_backend_pid() AND a.pid <> ALL ($2) \
                 AND ($3::pg_catalog.int4[] IS NULL OR a.pid = ANY ($3)) \
                 AND NOT ($4 AND (a.usesysid IS NULL OR (a.usename = CURRENT_USER \
                                  AND pg_catalog.starts_with(a.application_name, 'ripcord ')))) \
               ORDER BY a.pid";
    let rows = maintenance
        .client()
        .query(sql, &[&oid, &spared, &among, &(whom == Whom::PresentStrangers)])
        .await
        .map_err(|error| session::explain(&error))?;
    rows.iter()
        .map(|row| {
            Ok(Other { pid: get(row, 0)?, user: get(row, 1)?, application: get(row, 2)?, is_worker: get(row, 3)? })
        })
        .collect()
}

async fn terminate(maintenance: &Session, pid: i32) -> Result<()> {
    // language=SQL
    let sql = "SELECT pg_catalog.pg_terminate_backend($1)";
    maintenance.client().query(sql, &[&pid]).await.map_err(|error| session::explain(&error))?;
    Ok(())
}

/// Waits until a session of ours that was closed has left the server.
pub(super) async fn wait_gone(maintenance: &Session, pid: i32) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        // language=SQL
        let sql = "SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = $1";
        let found = maintenance.client().query(sql, &[&pid]).await.map_err(|error| session::explain(&error))?;
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::failed(format!("our own session, process {pid}, does not end")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
