//! Counting row versions table by table, and knowing our own: what the decision about a restore needs.

use super::databases::get;
use super::writes::{Rows, Snapshot, count, tables};
use super::{Session, quote, session};
use crate::error::{Error, Result};

/// What is known of a table's row versions; the error is why nothing is known.
pub type TableRows = (String, std::result::Result<Rows, String>);

/// The row versions of every table but ripcord's, as [`super::writes::count_since`] divides them.
pub async fn all(session: &Session, snapshot: &str, our_xids: &[u64]) -> Result<Vec<TableRows>> {
    let (snapshot, ours) = parse(snapshot, our_xids)?;
    let mut counted = Vec::new();
    for table in tables(session).await? {
        let rows = match table.hidden {
            Some(reason) => Err(reason),
            None => match count(session, &table.relation, &snapshot, &ours).await {
                Ok(rows) => Ok(rows),
                Err(error) if error.connection_lost() => return Err(error),
                Err(error) => Err(error.one_line()),
            },
        };
        counted.push((table.name, rows));
    }
    Ok(counted)
}

fn parse(snapshot: &str, our_xids: &[u64]) -> Result<(Snapshot, Vec<i64>)> {
    let parsed = Snapshot::parse(snapshot)
        .ok_or_else(|| Error::failed(format!("`{snapshot}` is no snapshot: `xmin:xmax:xip,…` is expected")))?;
    Ok((parsed, our_xids.iter().filter_map(|xid| i64::try_from(*xid).ok()).collect()))
}

/// The snapshot without the transactions that work in other databases of the server: a snapshot lists those of all of
/// them, and the rows that were written while one of them was in progress would be doubted for nothing.
pub async fn narrowed(session: &Session, snapshot: &str) -> Result<String> {
    // A transaction that has ended by now is not found, and stays in the list.
    // language=SQL
    let sql = "SELECT a.backend_xid FROM pg_catalog.pg_stat_activity AS a
                WHERE a.backend_xid IS NOT NULL AND a.datid <> (
                    SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())";
    let rows = session.ours(sql).await?;
    let elsewhere: Vec<u32> = rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect();
    Ok(without(snapshot, &elsewhere))
}

/// Ids in `elsewhere` have 32 bits; within one snapshot those tell its transactions apart.
fn without(snapshot: &str, elsewhere: &[u32]) -> String {
    let mut parts = snapshot.splitn(3, ':');
    let (Some(_), Some(next), Some(list)) = (parts.next(), parts.next(), parts.next()) else {
        return snapshot.to_owned();
    };
    let Ok(listed) = list.split(',').filter(|id| !id.is_empty()).map(str::parse).collect::<Result<Vec<u64>, _>>()
    else {
        return snapshot.to_owned();
    };
    let left: Vec<u64> =
        listed.into_iter().filter(|id| !elsewhere.iter().any(|other| u64::from(*other) == id & 0xffff_ffff)).collect();
    // Sorted, as the server writes it.
    let oldest = left.first().map_or_else(|| next.to_owned(), u64::to_string);
    let left: Vec<String> = left.iter().map(u64::to_string).collect();
    format!("{oldest}:{next}:{}", left.join(","))
}

/// A moment in the server's sequence of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The first transaction id that was not complete and not in progress yet.
    next: u64,
    /// Whether any transaction that writes was in progress.
    busy: bool,
}

/// This moment, as the session sees it.
pub async fn moment(session: &Session) -> Result<Moment> {
    // language=SQL
    let sql = "SELECT pg_catalog.pg_snapshot_xmax(s.now)::pg_catalog.text,
                      EXISTS (SELECT FROM pg_catalog.pg_snapshot_xip(s.now))
                 FROM (SELECT pg_catalog.pg_current_snapshot()) AS s (now)";
    let row = session.client().query_one(sql, &[]).await.map_err(|error| session::explain(&error))?;
    let next = get::<String>(&row, 0)?;
    let next =
        next.parse().map_err(|error| Error::failed("the server's transaction id is no number").because(error))?;
    Ok(Moment { next, busy: get(&row, 1)? })
}

impl Moment {
    /// Whether no transaction but `own` of ours can have written anything between here and `later`, seen when
    /// every other session of the database had ended: nobody was writing here, and no further id was used up,
    /// by anyone on the server.
    pub fn is_quiet_until(self, later: Moment, own: u64) -> bool {
        !self.busy && later.next == self.next + own
    }
}

/// The id of the transaction that is open; one is assigned when there is none yet.
pub async fn own_xid(session: &Session) -> Result<u64> {
    // language=SQL
    let sql = "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text";
    let row = session.client().query_one(sql, &[]).await.map_err(|error| session::explain(&error))?;
    get::<String>(&row, 0)?
        .parse()
        .map_err(|error| Error::failed("the server's transaction id is no number").because(error))
}

/// The tables that the open transaction has locked for writing or for changing them, `schema.table`: those
/// that its statements, their triggers, cascades and functions may have touched. A table that it dropped is
/// not among them.
pub async fn touched_tables(session: &Session) -> Result<Vec<String>> {
    let rows = session.rows(TOUCHED).await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

// language=SQL
const TOUCHED: &str = "SELECT DISTINCT n.nspname OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) c.relname
                 FROM pg_catalog.pg_locks AS l
                 JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) l.relation
                 JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
                  AND l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted
                  AND l.mode OPERATOR(pg_catalog.<>) ALL (ARRAY['AccessShareLock', 'RowShareLock', 'ExclusiveLock'])
                  AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p']::pg_catalog.\"char\"[])
                  AND n.nspname OPERATOR(pg_catalog.<>)
                      ALL (ARRAY['pg_catalog', 'information_schema', 'ripcord']::pg_catalog.name[])
                ORDER BY 1";

/// The open transaction's id and [`touched_tables`] in one round trip, with the session's own role again: what ran
/// before may have taken another one.
pub async fn own_and_touched(session: &Session) -> Result<(u64, Vec<String>)> {
    // language=SQL
    let sql = format!(
        "RESET SESSION AUTHORIZATION; RESET ROLE; \
         SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text; {TOUCHED}"
    );
    let mut values = session.rows(&sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten());
    let xid = values.next().and_then(|xid| xid.parse().ok());
    let xid = xid.ok_or_else(|| Error::failed("the server's transaction id is no number"))?;
    Ok((xid, values.collect()))
}

/// A name of the dump, which is in the database's encoding, as the server's catalog gives it to us.
pub async fn decoded(session: &Session, encoding: &str, name: &[u8]) -> Result<String> {
    if name.is_ascii() || matches!(encoding, "UTF8" | "SQL_ASCII") {
        return Ok(String::from_utf8_lossy(name).into_owned());
    }
    // language=SQL
    let sql = "SELECT pg_catalog.convert_from($1, $2::pg_catalog.text::pg_catalog.name)";
    let row = session.client().query_one(sql, &[&name, &encoding]).await.map_err(|error| session::explain(&error))?;
    get(&row, 0)
}

/// The tables of a schema, named as SQL writes it, each as SQL writes it too. A name that means no schema has none.
pub async fn tables_of_schema(session: &Session, schema: &str) -> Result<Vec<String>> {
    // language=SQL
    let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
                 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.oid = pg_catalog.to_regnamespace($1) AND c.relkind = 'r' ORDER BY 1";
    let rows = session.client().query(sql, &[&schema]).await.map_err(|error| session::explain(&error))?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// Locks a table (and its partitions and children) against writers and counts its row versions, inside the
/// open transaction. A name that means no table counts nothing: the statement itself will say so.
pub async fn lock_and_count(
    session: &Session,
    name: &str,
    snapshot: &str,
    our_xids: &[u64],
) -> Result<Vec<(String, Rows)>> {
    let (snapshot, ours) = parse(snapshot, our_xids)?;
    // The name is resolved as the migration itself would resolve it.
    // language=SQL
    let sql = "WITH RECURSIVE tree AS (
                   SELECT c.oid, c.relkind FROM pg_catalog.pg_class AS c
                    WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p')
                   UNION
                   SELECT c.oid, c.relkind FROM tree
                     JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree.oid
                     JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid)
               SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
                 FROM tree JOIN pg_catalog.pg_class AS c USING (oid)
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'ripcord') ORDER BY 1, 2";
    let found = session.client().query(sql, &[&name]).await.map_err(|error| session::explain(&error))?;
    let mut counted = Vec::new();
    for row in &found {
        let (schema, table): (String, String) = (get(row, 0)?, get(row, 1)?);
        let relation = format!("{}.{}", quote::ident(&schema), quote::ident(&table));
        // language=SQL
        session.batch(&format!("LOCK TABLE ONLY {relation} IN SHARE ROW EXCLUSIVE MODE")).await?;
        counted.push((format!("{schema}.{table}"), count(session, &relation, &snapshot, &ours).await?));
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_of_other_databases_leave_a_snapshot() {
        for (snapshot, elsewhere, expected) in [
            ("10:20:10,12,15", &[][..], "10:20:10,12,15"),
            ("10:20:10,12,15", &[12], "10:20:10,15"),
            ("10:20:10,12,15", &[10], "12:20:12,15"),
            ("10:20:10,12,15", &[10, 12, 15, 99], "20:20:"),
            ("20:20:", &[20], "20:20:"),
            ("4294967306:4294967316:4294967306,4294967308", &[10], "4294967308:4294967316:4294967308"),
            ("no snapshot", &[10], "no snapshot"),
        ] {
            assert_eq!(without(snapshot, elsewhere), expected, "{snapshot} {elsewhere:?}");
        }
    }
}
