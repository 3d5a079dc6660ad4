//! Writes that others commit after the backup: keeping them off, and counting them.

use std::time::Duration;

use serde::Serialize;

use super::databases::{self, get};
use super::swap::{Whom, end_others};
use super::{Session, quote, session};
use crate::error::{Error, Result};

/// How long the sessions that began under a fence may take to end when it is taken away.
const UNFENCE_LIMIT: Duration = Duration::from_secs(10);

/// Makes new transactions read-only for everyone (ALTER DATABASE … SET default_transaction_read_only = on)
/// and ends the other sessions, so that they reconnect under it.
///
/// Ended are those that are there when the fence stands; who comes later is under it. Ripcord's own
/// sessions stay. The fence is cooperative: `BEGIN READ WRITE`, a client's own PGOPTIONS, a
/// role-in-database setting, COMMIT PREPARED and apply workers pass it. So the writes are counted as well.
///
/// # Errors
/// When a session is left that may not be ended or does not end within `limit`; then `previous`, the setting of
/// before, is back.
pub async fn fence(maintenance: &Session, database: &str, previous: Option<&str>, limit: Duration) -> Result<()> {
    // language=SQL
    let sql = format!("ALTER DATABASE {} SET default_transaction_read_only = on", quote::ident(database));
    maintenance.batch(&sql).await.map_err(|error| error.context(format!("no fence around database `{database}`")))?;
    let ended = end_present(maintenance, database, limit).await;
    if let Err(error) = ended {
        // A half fence would stop some writers and not be known to be there.
        if !error.connection_lost() {
            reset(maintenance, database, previous).await?;
        }
        return Err(error.context(format!("no fence around database `{database}`")));
    }
    Ok(())
}

/// Takes the fence away; sets back `previous` when the database had that setting before.
///
/// The sessions that began under the fence would stay read-only for as long as they live, in a pool for
/// days: they are ended, and reconnect. Returned is why some could not be.
pub async fn unfence(maintenance: &Session, database: &str, previous: Option<&str>) -> Result<Option<Error>> {
    reset(maintenance, database, previous).await?;
    Ok(end_present(maintenance, database, UNFENCE_LIMIT).await.err().map(|error| {
        error.context(format!(
            "the fence around database `{database}` is away, but sessions that began under it can only read until they end"
        ))
    }))
}

async fn reset(maintenance: &Session, database: &str, previous: Option<&str>) -> Result<()> {
    let ident = quote::ident(database);
    // language=SQL
    let sql = match previous {
        Some(value) => {
            format!("ALTER DATABASE {ident} SET default_transaction_read_only = {}", quote::literal(value))
        }
        None => format!("ALTER DATABASE {ident} RESET default_transaction_read_only"),
    };
    maintenance
        .batch(&sql)
        .await
        .map_err(|error| error.context(format!("the fence around database `{database}` could not be taken away")))
}

/// Locks every table against writers for the rest of the open transaction; readers and `pg_dump` go on.
/// The wait for each is the transaction's own `lock_timeout`.
///
/// # Errors
/// When a lock is not to be had in time, or the role may not lock a table (PostgreSQL's documentation, LOCK).
pub async fn lock_all(session: &Session) -> Result<()> {
    // Parents before their children, as everyone who writes through them locks.
    // language=SQL
    let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text \
               FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' \
                 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ripcord') \
               ORDER BY c.relkind = 'r', c.oid";
    let rows = session.client().query(sql, &[]).await.map_err(|error| session::explain(&error))?;
    let mut names = Vec::with_capacity(rows.len());
    for row in &rows {
        let (schema, table): (String, String) = (get(row, 0)?, get(row, 1)?);
        names.push(format!("{}.{}", quote::ident(&schema), quote::ident(&table)));
    }
    if names.is_empty() {
        return Ok(());
    }
    // language=SQL
    let lock = format!("LOCK TABLE {} IN EXCLUSIVE MODE", names.join(", "));
    session.batch(&lock).await.map_err(|error| error.context("the tables could not be locked against writers"))
}

async fn end_present(maintenance: &Session, database: &str, limit: Duration) -> Result<()> {
    let Some(found) = databases::find(maintenance, database).await? else {
        return Err(Error::failed(format!("database `{database}` does not exist")));
    };
    end_others(maintenance, found.oid, database, &[], Whom::PresentStrangers, limit).await
}

/// The catalog that holds large objects' data: counted like a table, by those who may read it.
pub const LARGE_OBJECTS: &str = "pg_catalog.pg_largeobject";

/// What was written since a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Rows in versions newer than the snapshot and not ours, by `schema.table`.
    pub tables: Vec<(String, u64)>,
    /// Tables where it cannot be known, and why.
    pub unknowable: Vec<(String, String)>,
    /// Rows whose present version is ours, by `schema.table`: what others wrote to them before we did
    /// cannot be seen.
    pub overwritten: Vec<(String, u64)>,
}

impl Counted {
    /// All rows counted.
    pub fn total(&self) -> u64 {
        self.tables.iter().map(|(_, rows)| rows).sum()
    }
}

/// Counts row versions whose xmin is neither visible in `snapshot` (`pg_snapshot` as text) nor one of
/// `our_xids`, in every table but ripcord's. Blind to deletes: their count is what `xmax` and the
/// digests tell. `session` is the one inside the closed database.
///
/// Ordinary tables and leaves of partitioned ones, and the large objects; not materialized views, which a
/// restore refreshes, nor sequences. Reads each table once. Where it errs, it counts too much:
/// - A snapshot lists the top-level transactions that were in progress, not their subtransactions. Rows
///   between its xmin and its xmax that are not listed may be such a one's: their tables are unknowable.
/// - A subtransaction of ours (a block with EXCEPTION, a savepoint) that is not in `our_xids` is a stranger.
/// - A row frozen 2³² transactions ago or more shows an xmin that may look new.
///
/// # Errors
/// When `snapshot` is none, when the session has written in the transaction that is open, and when the
/// connection is lost. A table that cannot be read is unknowable instead.
pub async fn count_since(session: &Session, snapshot: &str, our_xids: &[u64]) -> Result<Counted> {
    let snapshot = Snapshot::parse(snapshot)
        .ok_or_else(|| Error::failed(format!("`{snapshot}` is no snapshot: `xmin:xmax:xip,…` is expected")))?;
    let ours: Vec<i64> = our_xids.iter().filter_map(|xid| i64::try_from(*xid).ok()).collect();
    refuse_open_write(session).await?;
    let mut counted = Counted::default();
    for table in tables(session).await? {
        if let Some(reason) = table.hidden {
            counted.unknowable.push((table.name, reason));
            continue;
        }
        match count(session, &table.relation, &snapshot, &ours).await {
            Ok(rows) => {
                if rows.newer > 0 {
                    counted.tables.push((table.name.clone(), rows.newer));
                }
                if rows.ours > 0 {
                    counted.overwritten.push((table.name.clone(), rows.ours));
                }
                if rows.doubtful > 0 {
                    let reason = format!(
                        "{} of its rows may belong to transactions that were in progress at the backup",
                        rows.doubtful
                    );
                    counted.unknowable.push((table.name, reason));
                }
            }
            Err(error) if error.connection_lost() => return Err(error),
            Err(error) => counted.unknowable.push((table.name, error.one_line())),
        }
    }
    Ok(counted)
}

/// `pg_snapshot` (PostgreSQL's documentation, table 9.82: Snapshot Components).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The oldest transaction that was in progress.
    xmin: i64,
    /// The first that had not begun.
    xmax: i64,
    /// Those between that were in progress.
    in_progress: Vec<i64>,
}

impl Snapshot {
    pub(super) fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.trim().split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let list = parts.next()?;
        if parts.next().is_some() {
            return None;
        }
        let in_progress: Vec<i64> = if list.is_empty() {
            Vec::new()
        } else {
            list.split(',').map(|xid| xid.parse().ok()).collect::<Option<_>>()?
        };
        let sane = 0 < xmin && xmin <= xmax && in_progress.iter().all(|xid| (xmin..xmax).contains(xid));
        sane.then_some(Snapshot { xmin, xmax, in_progress })
    }
}

/// The own transaction's rows carry an xid that its snapshot does not cover.
async fn refuse_open_write(session: &Session) -> Result<()> {
    // language=SQL
    let sql = "SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL";
    let row = session.client().query_one(sql, &[]).await.map_err(|error| session::explain(&error))?;
    if get(&row, 0)? {
        return Err(Error::failed("later writes cannot be counted inside a transaction that has written"));
    }
    Ok(())
}

pub(super) struct Table {
    /// `schema.table`.
    pub(super) name: String,
    /// As it is written after FROM.
    pub(super) relation: String,
    /// Why not all of its rows can be seen.
    pub(super) hidden: Option<String>,
}

pub(super) async fn tables(session: &Session) -> Result<Vec<Table>> {
    // language=SQL
    let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, \
                      pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
                      AND pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
                      pg_catalog.row_security_active(c.oid) \
               FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
               WHERE c.relkind = 'r' AND c.relpersistence <> 't' \
                 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ripcord') \
               ORDER BY 1, 2";
    let rows = session.ours(sql).await?;
    let mut tables = Vec::with_capacity(rows.len() + 1);
    for row in &rows {
        let text = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
        let (schema, table) = (text(0), text(1));
        let (may_read, row_security) = (text(2) == "t", text(3) == "t");
        let hidden = match (may_read, row_security) {
            (false, _) => Some("we may not read it".to_owned()),
            (true, true) => Some("row security hides rows from us".to_owned()),
            (true, false) => None,
        };
        let relation = format!("{}.{}", quote::ident(schema), quote::ident(table));
        tables.push(Table { name: format!("{schema}.{table}"), relation, hidden });
    }
    tables.extend(large_objects(session).await?);
    Ok(tables)
}

/// The catalog that holds large objects' data; `None` when there are none.
async fn large_objects(session: &Session) -> Result<Option<Table>> {
    // language=SQL
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata), \
                      pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')";
    let row = session.client().query_one(sql, &[]).await.map_err(|error| session::explain(&error))?;
    let (any, may_read): (bool, bool) = (get(&row, 0)?, get(&row, 1)?);
    Ok(any.then(|| Table {
        name: LARGE_OBJECTS.to_owned(),
        relation: LARGE_OBJECTS.to_owned(),
        hidden: (!may_read).then(|| "large objects' data may be read by a superuser only".to_owned()),
    }))
}

/// A table's row versions by their age, as a snapshot divides them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Visible in the snapshot for certain, and not ours.
    pub older: u64,
    /// Written after the snapshot, and not by us.
    pub newer: u64,
    /// Of transactions that may have been in progress at the snapshot.
    pub doubtful: u64,
    /// Written by us.
    pub ours: u64,
}

pub(super) async fn count(session: &Session, relation: &str, snapshot: &Snapshot, ours: &[i64]) -> Result<Rows> {
    // A row's xmin has 32 bits. It is widened by the next transaction id of the very snapshot that the
    // statement reads by, which every xmin that it can see lies before. 1 and 2 are bootstrap and frozen.
    // Grouped first: a table has far fewer transactions than rows, and nobody can connect meanwhile.
    let list = |xids: &[i64]| {
        let xids: Vec<String> = xids.iter().map(i64::to_string).collect();
        format!("'{{{}}}'::pg_catalog.int8[]", xids.join(","))
    };
    let (in_progress, ours) = (list(&snapshot.in_progress), list(ours));
    let (xmin, xmax) = (snapshot.xmin, snapshot.xmax);
    // language=SQL
    let sql = format!(
        "SELECT COALESCE(pg_catalog.sum(v.n) FILTER (WHERE NOT v.ours AND (v.xid >= {xmax} OR v.xid = ANY ({in_progress}))), 0) \
                    ::pg_catalog.int8, \
                COALESCE(pg_catalog.sum(v.n) FILTER (WHERE NOT v.ours AND v.xid >= {xmin} AND v.xid < {xmax} \
                                                       AND v.xid <> ALL ({in_progress})), 0)::pg_catalog.int8, \
                COALESCE(pg_catalog.sum(v.n) FILTER (WHERE v.ours), 0)::pg_catalog.int8, \
                COALESCE(pg_catalog.sum(v.n), 0)::pg_catalog.int8 \
         FROM (SELECT w.n, w.xid, w.xid = ANY ({ours}) AS ours \
               FROM (SELECT r.n, CASE WHEN r.x < 3 THEN 0 \
                                      WHEN (s.next & -4294967296) + r.x >= s.next \
                                      THEN (s.next & -4294967296) + r.x - 4294967296 \
                                      ELSE (s.next & -4294967296) + r.x END AS xid \
                     FROM (SELECT g.xmin::pg_catalog.text::pg_catalog.int8 AS x, g.n \
                             FROM (SELECT t.xmin, pg_catalog.count(*) AS n FROM ONLY {relation} AS t \
                                    GROUP BY t.xmin) AS g) AS r \
                     CROSS JOIN (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) \
                                        ::pg_catalog.text::pg_catalog.int8 AS next) AS s) AS w) AS v"
    );
    let rows = session.ours(&sql).await?;
    let number = |at: usize| -> Result<u64> {
        let value = rows.first().and_then(|row| row.get(at)).and_then(Option::as_deref);
        value.and_then(|value| value.parse().ok()).ok_or_else(|| Error::failed("the server's count is no number"))
    };
    let (newer, doubtful, ours) = (number(0)?, number(1)?, number(2)?);
    Ok(Rows { older: number(3)?.saturating_sub(newer + doubtful + ours), newer, doubtful, ours })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_read_and_nonsense_is_not() {
        assert_eq!(Snapshot::parse("10:20:10,14").unwrap(), Snapshot { xmin: 10, xmax: 20, in_progress: vec![10, 14] });
        assert_eq!(Snapshot::parse("7:7:").unwrap().in_progress, Vec::<i64>::new());
        for broken in ["", "10:20", "20:10:", "10:20:21", "10:20:9", "a:b:", "10:20:,", "10:20:10:1", "0:0:"] {
            assert_eq!(Snapshot::parse(broken), None, "{broken}");
        }
    }
}
