//! The snapshot of the moment in which a load in place is committed.
//!
//! Who comes to the database afterwards may write at once, and what is read then is not what was loaded. So a session
//! waits behind one of the locks of the load's transaction, and takes its snapshot the moment that it gets it.

use std::time::Duration;

use tokio::task::JoinSet;

use super::gate::Gate;
use crate::error::{Error, Result};
use crate::postgres::{Session, Target, quote};

/// The `application_name` is `ripcord witness`: its waiting is no sign of a load that is stuck.
const PURPOSE: &str = "witness";

/// How many wait: writers may wait as well, and one of these has to be quicker than all of those.
const MOST: usize = 5;

/// How long the server may take to let them go on once the load is committed.
const LIMIT: Duration = Duration::from_secs(5);

/// An open transaction, whose snapshot others can read.
pub struct Witness {
    session: Session,
    snapshot: String,
    /// The first transaction of which it sees nothing.
    next: u64,
}

/// Sessions that wait for the end of a load.
pub struct Witnesses(JoinSet<Result<Witness>>);

impl Witnesses {
    /// Waits behind tables, by schema and name, that the load has locked against writers and is going to replace. It
    /// must not go on before this returns.
    pub async fn behind(target: &Target, gate: &Gate, tables: &[(String, String)]) -> Result<Witnesses> {
        let mut waiting = JoinSet::new();
        for table in tables.iter().cycle().take(MOST) {
            let session = Session::connect(target, PURPOSE, target.connect_timeout()).await?;
            let pid = session.backend_pid();
            waiting.spawn(Witness::at(session, Some(table.clone())));
            gate.waits(pid).await?;
        }
        Ok(Witnesses(waiting))
    }

    /// The one that sees the least, once the load is committed. Where nobody waited, the snapshot is the next one.
    pub async fn first(mut self, target: &Target) -> Result<Witness> {
        let mut first: Option<Witness> = None;
        let arrive = async {
            while let Some(arrived) = self.0.join_next().await {
                if let Ok(Ok(witness)) = arrived
                    && first.as_ref().is_none_or(|first| witness.next < first.next)
                {
                    first = Some(witness);
                }
            }
        };
        let _ = tokio::time::timeout(LIMIT, arrive).await;
        match first {
            Some(witness) => Ok(witness),
            None => Witness::at(Session::connect(target, PURPOSE, target.connect_timeout()).await?, None).await,
        }
    }
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

    /// The snapshot of the moment in which it gets a table's lock.
    async fn at(session: Session, table: Option<(String, String)>) -> Result<Witness> {
        // A mode that waits for writers' locks, and for which no writer waits.
        let lock = table
            .map(|(schema, name)| {
                format!("LOCK TABLE ONLY {}.{} IN ROW SHARE MODE;", quote::ident(&schema), quote::ident(&name))
            })
            .unwrap_or_default();
        // In one message, so that nothing but the lock lies between the commit and the snapshot.
        // language=SQL
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {lock} \
             SELECT pg_catalog.pg_export_snapshot(), \
                    pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())"
        );
        let row = session.rows(&sql).await?.into_iter().next();
        let Some([Some(snapshot), Some(next)]) = row.as_deref() else {
            return Err(Error::failed("no snapshot was exported"));
        };
        let next = next.parse().map_err(|error| Error::failed("the snapshot cannot be read").because(error))?;
        Ok(Witness { snapshot: snapshot.clone(), next, session })
    }
}
