//! Looking at the catalog before and after.

use super::Session;
use crate::error::Result;

/// What a dump's table of contents does not show and a proof must still compare, one line each, sorted:
/// invalid indexes, unvalidated constraints, unpopulated materialized views, extension versions,
/// disabled triggers and rules, replica identities, clustered and per-column settings that pg_dump
/// leaves out, indexes' comments aside. Ripcord's schema is left out.
pub async fn catalog_extras(_session: &Session, _exclude_schemas: &[String]) -> Result<Vec<String>> {
    todo!()
}

/// Indexes that are invalid now, `schema.index on schema.table`.
pub async fn invalid_indexes(_session: &Session) -> Result<Vec<String>> {
    todo!()
}

/// Which of these tables (`schema.table`) and functions (`schema.function`) are not there.
pub async fn missing_objects(_session: &Session, _tables: &[String], _functions: &[String]) -> Result<Vec<String>> {
    todo!()
}

/// Rows (as text) that a check's query returned, at most `limit`.
pub async fn check_rows(_session: &Session, _sql: &str, _limit: usize) -> Result<Vec<String>> {
    todo!()
}
