//! A database's rows shared out among several pg_dumps.

use super::{Session, quote};
use crate::error::{Error, Result};

/// More tables than this are not dealt out, the largest first: each is named on two command lines.
const MOST_TABLES: usize = 256;

/// A table whose rows any pg_dump may be told to take, or to leave to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Bytes on the server's disk, those stored out of line included.
    pub bytes: u64,
}

/// The rows of a database, before they are shared out.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Tables that may be dealt out.
    pub tables: Vec<Table>,
    /// Bytes of what must stay with the first: other tables, and large objects.
    pub other_bytes: u64,
}

/// Reads what there is to share out. It may wait for a table that somebody has locked, as pg_dump does.
///
/// Not dealt out are tables of an extension (pg_dump takes of them what the extension says), those that a standby
/// has no rows of, those without a byte, and in a database that is not in UTF-8 names that are not ASCII:
/// pg_dump reads its options in the database's encoding, and we know ours.
pub async fn rows(session: &Session, exclude_schemas: &[String]) -> Result<Rows> {
    let mut excluded = quote::literal("ripcord");
    for schema in exclude_schemas {
        excluded.push_str(", ");
        excluded.push_str(&quote::literal(schema));
    }
    let read = session.rows(&TABLES.replace("$EXCLUDED", &excluded)).await?;
    let mut rows = Rows::default();
    for row in read {
        let mut columns = row.into_iter();
        let (schema, name) = (columns.next().flatten(), columns.next().flatten());
        let bytes = columns.next().flatten().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        match (schema, name) {
            (Some(schema), Some(name)) if bytes > 0 => rows.tables.push(Table { schema, name, bytes }),
            _ => rows.other_bytes += bytes,
        }
    }
    Ok(rows)
}

// language=SQL
const TABLES: &str = "
SELECT CASE WHEN t.may_go THEN t.schema END, CASE WHEN t.may_go THEN t.name END, t.bytes
FROM (
    SELECT n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name,
           pg_catalog.pg_table_size(c.oid) AS bytes,
           c.relpersistence = 'p'
           AND (pg_catalog.current_setting('server_encoding') = 'UTF8'
                OR (n.nspname::pg_catalog.text || c.relname::pg_catalog.text) COLLATE pg_catalog.\"C\"
                   OPERATOR(pg_catalog.!~) '[^\\x01-\\x7f]')
           AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_depend d
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
           ) AS may_go
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ($EXCLUDED)
) t
UNION ALL
SELECT NULL, NULL, pg_catalog.pg_table_size('pg_catalog.pg_largeobject'::pg_catalog.regclass)";

/// Deals the tables out to at most `jobs` dumps, the largest first, each to the one that has least so far. The first
/// dump begins with all that cannot be dealt out. What comes back are the tables of the second dump and of those
/// after it, none of them empty; the first takes the rest.
pub fn share(mut rows: Rows, jobs: usize) -> Vec<Vec<Table>> {
    // By name where the sizes are the same, so that the same database is always shared out alike.
    rows.tables.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (&a.schema, &a.name).cmp(&(&b.schema, &b.name))));
    let stay: u64 = rows.tables.iter().skip(MOST_TABLES).map(|table| table.bytes).sum();
    rows.tables.truncate(MOST_TABLES);
    let mut dumps: Vec<(u64, Vec<Table>)> = vec![(0, Vec::new()); jobs.max(1)];
    if let Some(first) = dumps.first_mut() {
        first.0 = rows.other_bytes.saturating_add(stay);
    }
    for table in rows.tables {
        if let Some(least) = dumps.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            least.0 = least.0.saturating_add(table.bytes);
            least.1.push(table);
        }
    }
    dumps.into_iter().skip(1).map(|(_, tables)| tables).filter(|tables| !tables.is_empty()).collect()
}

/// Locks the tables against being changed or emptied until the open transaction ends, as pg_dump will lock them.
/// Called before the transaction's snapshot is taken: one that is rewritten between a snapshot and the lock of
/// the pg_dump that reads it looks empty to it.
pub async fn lock(session: &Session, dumps: &[Vec<Table>]) -> Result<()> {
    let names: Vec<String> = dumps
        .iter()
        .flatten()
        .map(|table| format!("ONLY {}.{}", quote::ident(&table.schema), quote::ident(&table.name)))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    // language=SQL
    session.batch(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await
}

/// Limits how long the session waits for a lock.
pub async fn limit_lock_waits(session: &Session, limit: std::time::Duration) -> Result<()> {
    // 0 would mean to wait for ever; PostgreSQL takes no more than 31 bits.
    let limit = limit.as_millis().clamp(1, 2_147_483_647);
    // language=SQL
    session.batch(&format!("SET lock_timeout = {limit}")).await
}

/// What a lock that did not come in time means to whoever waits for a backup.
pub fn explain_lock(error: Error) -> Error {
    // 55P03 lock_not_available; PostgreSQL, appendix A.
    match error.sqlstate() {
        Some("55P03") => {
            error.hint("another session holds a lock on a table: wait for it to end, or end it, and run again")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, bytes: u64) -> Table {
        Table { schema: "s".to_owned(), name: name.to_owned(), bytes }
    }

    fn names(dumps: &[Vec<Table>]) -> Vec<String> {
        dumps
            .iter()
            .map(|tables| tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn the_largest_go_first_to_whoever_has_least() {
        let tables = vec![table("a", 10), table("b", 90), table("c", 50), table("d", 60), table("e", 20)];
        let rows = Rows { tables, other_bytes: 70 };
        assert_eq!(names(&share(rows.clone(), 1)), Vec::<String>::new());
        // b 90 to the second, d 60 to the first (70 + 60), c 50 to the second, …
        assert_eq!(names(&share(rows.clone(), 2)), ["b c a"]);
        assert_eq!(names(&share(rows.clone(), 3)), ["b", "d c"]);
        assert_eq!(names(&share(rows, 9)), ["b", "d", "c", "e", "a"]);
    }

    #[test]
    fn dumps_without_a_table_are_not_made() {
        assert_eq!(share(Rows::default(), 4), Vec::<Vec<Table>>::new());
        let rows = Rows { tables: vec![table("a", 5)], other_bytes: 1 };
        assert_eq!(names(&share(rows, 4)), ["a"]);
    }

    #[test]
    fn no_more_tables_than_a_command_line_holds() {
        let tables = (0..5000).map(|number| table(&format!("t{number}"), 1 + number)).collect();
        let dealt = share(Rows { tables, other_bytes: 0 }, 2);
        assert_eq!(dealt.iter().map(Vec::len).sum::<usize>(), 256, "the first has more than enough to do");
        assert!(dealt.iter().flatten().all(|table| table.bytes > 5000 - 256));
        assert_eq!(share(Rows::default(), 0), Vec::<Vec<Table>>::new());
    }
}
