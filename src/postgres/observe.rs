//! What the open transaction does to tables that were there before it: locks, rewrites, bytes of WAL.

use std::collections::BTreeMap;

use super::databases::get;
use super::{Session, session};
use crate::error::{Error, Result};

/// The tables of this moment with the files that hold their rows: `schema.table` → file.
pub type Files = BTreeMap<String, Option<u32>>;

/// The modes of `LOCK`, the weakest first. <https://www.postgresql.org/docs/15/explicit-locking.html>
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// How strong a mode is among the eight; 0 for one that is none of them.
pub fn strength(mode: &str) -> usize {
    MODES.iter().position(|known| *known == mode).map_or(0, |at| at + 1)
}

/// What a mode keeps from others, in a few words.
pub fn blocks(mode: &str) -> &'static str {
    match strength(mode) {
        0..=2 => "nothing that matters",
        3 | 4 => "other changes of the schema",
        5 | 6 => "writers",
        7 => "writers, and SELECT FOR UPDATE",
        _ => "readers and writers",
    }
}

/// Every table and materialized view that holds rows, but ours.
pub async fn files(session: &Session) -> Result<Files> {
    // language=SQL
    let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_relation_filenode(c.oid)
                 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
                  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'ripcord') AND n.nspname !~ '^pg_toast'";
    let rows = session.client().query(sql, &[]).await.map_err(|error| session::explain(&error))?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}

/// The strongest lock that the open transaction holds on each table of `before`.
pub async fn locks(session: &Session, before: &Files) -> Result<BTreeMap<String, String>> {
    // language=SQL
    let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), l.mode
                 FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
                  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d
                                     WHERE d.datname = pg_catalog.current_database())";
    let rows = session.client().query(sql, &[]).await.map_err(|error| session::explain(&error))?;
    let mut strongest: BTreeMap<String, String> = BTreeMap::new();
    for row in &rows {
        let (table, mode): (String, String) = (get(row, 0)?, get(row, 1)?);
        let stronger = strongest.get(&table).is_none_or(|held| strength(&mode) > strength(held));
        if before.contains_key(&table) && stronger {
            strongest.insert(table, mode);
        }
    }
    Ok(strongest)
}

/// Where the server's log stands, in bytes from its beginning.
pub async fn wal_position(session: &Session) -> Result<u64> {
    // language=SQL
    let sql = "SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::pg_catalog.text";
    let rows = session.rows(sql).await?;
    let position = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    position.ok_or_else(|| Error::failed("the server does not tell where its log stands"))
}

/// The tables of `before` whose rows lie in another file now: rewritten, or emptied.
pub fn rewritten(before: &Files, after: &Files) -> Vec<String> {
    let is_another = |(table, file): &(&String, &Option<u32>)| after.get(*table).is_some_and(|now| now != *file);
    before.iter().filter(is_another).map(|(table, _)| table.clone()).collect()
}
