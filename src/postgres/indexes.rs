//! Indexes that CREATE INDEX CONCURRENTLY makes, and what it leaves of them when it fails.

use super::databases::get;
use super::{Session, session};
use crate::error::Result;

/// An index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its oid.
    pub oid: u32,
    /// `schema.name`, quoted as SQL needs it.
    pub name: String,
    /// Whether it is complete.
    pub valid: bool,
}

/// The indexes of that name, as SQL writes it, in whatever schema.
pub async fn called(session: &Session, name: &str) -> Result<Vec<Index>> {
    // language=SQL
    let sql = "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), i.indisvalid AND i.indisready
                 FROM pg_catalog.pg_index AS i
                 JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
                 JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                WHERE c.relname OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.name
                ORDER BY c.oid";
    let name = plain(name);
    let rows = session.client().query(sql, &[&name]).await.map_err(|error| session::explain(&error))?;
    rows.iter().map(|row| Ok(Index { oid: get(row, 0)?, name: get(row, 1)?, valid: get(row, 2)? })).collect()
}

/// Drops an index without keeping writers out.
pub async fn drop_concurrently(session: &Session, index: &Index) -> Result<()> {
    // language=SQL
    session.batch(&format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.name)).await
}

/// What became of a transaction: `committed`, `aborted`, `in progress`; `None` when it is too old to be known.
pub async fn transaction_status(session: &Session, xid: u64) -> Result<Option<String>> {
    // language=SQL
    let sql = format!("SELECT pg_catalog.pg_xact_status('{xid}'::pg_catalog.xid8)");
    let rows = session.rows(&sql).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

/// The name as the catalog has it.
fn plain(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn names_are_those_of_the_catalog() {
        assert_eq!((plain("Orders_Note"), plain("\"A \"\"b\"\"\"")), ("orders_note".to_owned(), "A \"b\"".to_owned()));
    }
}
