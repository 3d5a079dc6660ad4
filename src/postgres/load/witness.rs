//! The snapshot of the moment in which a load in place is committed.
//!
//! Who comes to the database afterwards may write at once, and what is read then is not what was loaded. So a session
//! waits behind one of the locks of the load's transaction, and takes its snapshot the moment that it gets it.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::postgres::{Session, Target, quote};

/// The `application_name` is `ripcord witness`: its waiting is no sign of a load that is stuck.
const PURPOSE: &str = "witness";

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

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

    /// A session that is to wait.
    pub async fn session(target: &Target) -> Result<Session> {
        Session::connect(target, PURPOSE, target.connect_timeout()).await
    }

    /// Waits behind a table, by schema and name, that the load has locked against writers and is going to replace.
    pub async fn behind(session: Session, table: Option<(String, String)>) -> Result<Witness> {
        // A mode that waits for writers' locks, and for which no writer waits.
        let lock = table
            .map(|(schema, name)| {
                format!("LOCK TABLE ONLY {}.{} IN ROW SHARE MODE;", quote::ident(&schema), quote::ident(&name))
            })
            .unwrap_or_default();
        // In one message, so that nothing but the lock lies between the commit and the snapshot.
        // language=SQL
        let sql =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {lock} SELECT pg_catalog.pg_export_snapshot()");
        let row = session.rows(&sql).await?.into_iter().next();
        let snapshot = row
            .and_then(|row| row.into_iter().next().flatten())
            .ok_or_else(|| Error::failed("no snapshot was exported"))?;
        Ok(Witness { session, snapshot })
    }
}

/// Returns when this backend waits for a lock.
pub async fn waits(looking: &Session, pid: i32) -> Result<()> {
    // language=SQL
    let sql = format!("SELECT FROM pg_catalog.pg_locks AS l WHERE l.pid = {pid} AND NOT l.granted");
    while looking.ours(&sql).await?.is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
