//! A gate in the way of a load in place: `pg_restore` stops at it with its locks held, and nothing has been changed.
//!
//! Two advisory locks are the gate. One is ours until the gate opens, and pg_restore waits for it. The other is ours from
//! then on, and pg_restore looks whether it is: should our session end in between, for whatever reason, then it finds
//! nobody there, and gives up.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::postgres::{Session, Target};

/// The `application_name` is `ripcord gate`: who waits for it is not stuck.
const PURPOSE: &str = "gate";

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the server may take to end a transaction whose client is gone.
const LIMIT: Duration = Duration::from_secs(10);

/// A gate that is closed, or was opened.
#[derive(Debug)]
pub struct Gate {
    session: Session,
    /// Whoever is at the gate waits for this one.
    closed: i64,
    /// Held by us when it may go on.
    open: i64,
}

/// Who stands at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The backend's process.
    pub pid: i32,
    /// Its transaction, 64 bits wide.
    pub xid: u64,
}

impl Gate {
    /// A closed one.
    pub async fn close(target: &Target) -> Result<Gate> {
        let session = Session::connect(target, PURPOSE, target.connect_timeout()).await?;
        let number = || rand::random::<i64>().saturating_abs();
        let gate = Gate { session, closed: number(), open: number() };
        // language=SQL
        gate.session.ours(&format!("SELECT pg_catalog.pg_advisory_lock({})", gate.closed)).await?;
        Ok(gate)
    }

    /// What stops at it: the transaction gets its number first, by which its end can be told.
    pub fn statement(&self) -> String {
        // language=SQL
        format!(
            "SELECT pg_catalog.txid_current(); SELECT pg_catalog.pg_advisory_xact_lock({}); \
             SELECT CASE WHEN pg_catalog.pg_try_advisory_xact_lock({}) \
                    THEN pg_catalog.concat('nobody lets the load go on')::pg_catalog.int4 END;",
            self.closed, self.open
        )
    }

    /// Waits until somebody stands at it.
    pub async fn reached(&self) -> Result<Waiting> {
        // A lock on a 64-bit number is two of 32 bits. So is a transaction's number, of which locks show the lower: the
        // upper is that of the next transaction, or one beside it where the lower one is far away.
        // language=SQL
        let sql = format!(
            "SELECT l.pid, CASE WHEN own.xid > s.next + 2147483648 THEN own.xid - 4294967296 \
                               WHEN own.xid < s.next - 2147483648 THEN own.xid + 4294967296 ELSE own.xid END \
               FROM pg_catalog.pg_locks AS l \
               JOIN pg_catalog.pg_locks AS t ON t.pid = l.pid AND t.locktype = 'transactionid' AND t.granted \
               CROSS JOIN (SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS next) AS s \
               CROSS JOIN LATERAL (SELECT (s.next >> 32 << 32) + t.transactionid::pg_catalog.text::pg_catalog.int8 AS xid) \
                          AS own \
              WHERE l.locktype = 'advisory' AND NOT l.granted AND l.objsubid = 1 \
                AND l.classid = ({closed}::pg_catalog.int8 >> 32 & 4294967295)::pg_catalog.oid \
                AND l.objid = ({closed}::pg_catalog.int8 & 4294967295)::pg_catalog.oid \
              LIMIT 1",
            closed = self.closed
        );
        loop {
            let row = self.session.ours(&sql).await?.into_iter().next();
            if let Some([Some(pid), Some(xid)]) = row.as_deref() {
                let odd = |error: &dyn std::fmt::Display| Error::failed("who waits is not to be told").because(error);
                let pid = pid.parse().map_err(|error| odd(&error))?;
                return Ok(Waiting { pid, xid: xid.parse().map_err(|error| odd(&error))? });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The tables, by schema and name, that who stands at it has locked against writers.
    pub async fn locked(&self, waiting: Waiting) -> Result<Vec<(String, String)>> {
        // language=SQL
        let sql = format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_locks AS l \
               JOIN pg_catalog.pg_class AS c ON c.oid = l.relation \
               JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
              WHERE l.pid = {} AND l.mode = 'ExclusiveLock' AND l.granted AND c.relkind IN ('r', 'p') \
                AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d \
                                   WHERE d.datname = pg_catalog.current_database())",
            waiting.pid
        );
        let rows = self.session.ours(&sql).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| <[Option<String>; 2]>::try_from(row).ok())
            .filter_map(|[schema, name]| schema.zip(name))
            .collect())
    }

    /// Returns when this backend waits for a lock.
    pub(super) async fn waits(&self, pid: i32) -> Result<()> {
        // language=SQL
        let sql = format!("SELECT FROM pg_catalog.pg_locks AS l WHERE l.pid = {pid} AND NOT l.granted");
        let deadline = tokio::time::Instant::now() + LIMIT;
        while self.session.ours(&sql).await?.is_empty() {
            if tokio::time::Instant::now() > deadline {
                return Err(Error::failed("the tables that a restore in place has locked are not locked"));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Lets it go on.
    pub async fn open(&self) -> Result<()> {
        // language=SQL
        self.session.ours(&format!("SELECT pg_catalog.pg_advisory_lock({})", self.open)).await?;
        self.unlock().await
    }

    async fn unlock(&self) -> Result<()> {
        // language=SQL
        self.session.ours(&format!("SELECT pg_catalog.pg_advisory_unlock({})", self.closed)).await.map(drop)
    }
}

/// Whether a transaction was committed, once it is over; `None`: the server does not know any more, or it does not end.
pub async fn committed(session: &Session, xid: u64) -> Result<Option<bool>> {
    // language=SQL
    let sql = format!("SELECT pg_catalog.txid_status({xid})");
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let status = session.ours(&sql).await?.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        match status.as_deref() {
            Some("committed") => return Ok(Some(true)),
            Some("aborted") => return Ok(Some(false)),
            Some(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            _ => return Ok(None),
        }
    }
}
