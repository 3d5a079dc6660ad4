//! The snapshot of the moment in which a load in place is committed.
//!
//! Who comes to the database afterwards may write at once, and what is read then is not what was loaded. So a session
//! waits behind one of the locks of the load's transaction, and takes its snapshot the moment that it gets it.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::postgres::{Session, Target, quote};

/// The `application_name` is `ripcord witness`: its waiting is no sign of a load that is stuck.
const PURPOSE: &str = "witness";

/// The pause between two looks for a lock to wait behind.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the server may take to let the witness go on once the load is committed.
const LIMIT: Duration = Duration::from_secs(5);

/// An open transaction, whose snapshot others can read.
pub struct Witness {
    session: Session,
    snapshot: String,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.snapshot)
    }
}

impl Witness {
    /// The exported snapshot; `None`: the session is gone, and the snapshot with it.
    pub fn snapshot(&self) -> Option<&str> {
        if self.session.is_closed() { None } else { Some(&self.snapshot) }
    }

    /// Runs a load in one transaction by `pg_restore`, and witnesses its commit. Where no table is there that the load
    /// replaces, the snapshot is the next one after its end.
    pub async fn of<T>(target: &Target, load: impl Future<Output = Result<T>>) -> Result<(T, Witness)> {
        let session = Session::connect(target, PURPOSE, target.connect_timeout()).await?;
        let is_behind = AtomicBool::new(false);
        let (loaded, snapshot) = {
            let mut load = pin!(load);
            let mut behind = pin!(behind(&session, &is_behind));
            tokio::select! {
                loaded = &mut load => {
                    let loaded = loaded?;
                    let snapshot = match is_behind.load(Ordering::Relaxed) {
                        true => tokio::time::timeout(LIMIT, behind).await.ok(),
                        false => None,
                    };
                    (loaded, snapshot)
                }
                snapshot = &mut behind => (load.await?, Some(snapshot)),
            }
        };
        let snapshot = match snapshot {
            Some(Ok(snapshot)) => snapshot,
            _ => {
                session.batch("ROLLBACK").await?;
                export(&session, "").await?
            }
        };
        Ok((loaded, Witness { session, snapshot }))
    }
}

/// Waits until `pg_restore` holds back every reader of a table that is to go, and then for its end.
async fn behind(session: &Session, is_behind: &AtomicBool) -> Result<String> {
    // language=SQL
    let sql = "SELECT n.nspname, c.relname \
                 FROM pg_catalog.pg_locks AS l \
                 JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid \
                 JOIN pg_catalog.pg_class AS c ON c.oid = l.relation \
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted \
                  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d \
                                     WHERE d.datname = pg_catalog.current_database()) \
                  AND a.application_name = 'pg_restore' AND a.usename = CURRENT_USER AND c.relkind IN ('r', 'p') \
                LIMIT 1";
    loop {
        let row = session.ours(sql).await?.into_iter().next();
        if let Some([Some(schema), Some(table)]) = row.as_deref() {
            is_behind.store(true, Ordering::Relaxed);
            let lock =
                format!("LOCK TABLE ONLY {}.{} IN ACCESS SHARE MODE;", quote::ident(schema), quote::ident(table));
            return export(session, &lock).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// In one message, so that nothing but the lock lies between the commit and the snapshot.
async fn export(session: &Session, lock: &str) -> Result<String> {
    // language=SQL
    let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {lock} SELECT pg_catalog.pg_export_snapshot()");
    let row = session.rows(&sql).await?.into_iter().next();
    row.and_then(|row| row.into_iter().next().flatten()).ok_or_else(|| Error::failed("no snapshot was exported"))
}
