//! Databases as objects: what they are made with, scratch ones, kept ones.

mod acl;
mod aside;
mod create;
mod empty;
mod properties;
mod setting;

use std::time::Duration;

use serde::Serialize;

use super::{Session, quote, session};
use crate::error::{Error, Result};
use crate::manifest::ExtensionRecord;

pub use aside::{ASIDE_COMMENT_PREFIX, Aside, drop_aside, drop_hindrances, list_aside};
pub use create::{SCRATCH_COMMENT, create, drop_scratch, is_scratch_name, scratch_comment, scratch_name};
pub use empty::{drop_everything, is_empty};
pub use properties::{apply_properties, read_properties};

pub(super) use create::pending_comment;

/// How long sessions in a database that is dropped may take to end.
const SETTLE: Duration = Duration::from_secs(30);

/// A database of the server.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseInfo {
    /// Its name.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// Whether it lets anyone in.
    pub allows_connections: bool,
    /// Its comment.
    pub comment: Option<String>,
    /// Its bytes, where we may know.
    pub bytes: Option<u64>,
}

/// The database of that name, seen from any other.
pub async fn find(session: &Session, name: &str) -> Result<Option<DatabaseInfo>> {
    Ok(select(session, "d.datname = $1", name).await?.pop())
}

/// Scratch databases of ours that are there now: of a run that goes on, or left by one that died.
pub async fn list_scratch(session: &Session) -> Result<Vec<DatabaseInfo>> {
    // language=SQL
    let condition = "pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), $1)";
    let found = select(session, condition, SCRATCH_COMMENT).await?;
    Ok(found.into_iter().filter(|database| is_scratch_name(&database.name)).collect())
}

/// Extensions of the session's database.
pub async fn extensions(session: &Session) -> Result<Vec<ExtensionRecord>> {
    // language=SQL
    let sql = "SELECT e.extname::pg_catalog.text, e.extversion \
               FROM pg_catalog.pg_extension AS e ORDER BY e.extname";
    let rows = session.client().query(sql, &[]).await.map_err(|error| session::explain(&error))?;
    rows.iter().map(|row| Ok(ExtensionRecord { name: text(row, 0)?, version: text(row, 1)? })).collect()
}

/// Databases for which `condition` holds with `value` as `$1`. What a column of another database's
/// encoding could break is not read before the condition holds.
async fn select(session: &Session, condition: &str, value: &str) -> Result<Vec<DatabaseInfo>> {
    // language=SQL
    let sql = format!(
        "SELECT d.datname::pg_catalog.text, d.oid, d.datallowconn, \
                pg_catalog.shobj_description(d.oid, 'pg_database'), \
                CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT') \
                       OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') \
                     THEN pg_catalog.pg_database_size(d.oid) END \
         FROM pg_catalog.pg_database AS d WHERE {condition} ORDER BY d.datname"
    );
    let rows = session.client().query(&sql, &[&value]).await.map_err(|error| session::explain(&error))?;
    rows.iter()
        .map(|row| {
            let bytes: Option<i64> = get(row, 4)?;
            Ok(DatabaseInfo {
                name: text(row, 0)?,
                oid: get(row, 1)?,
                allows_connections: get(row, 2)?,
                comment: get(row, 3)?,
                bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            })
        })
        .collect()
}

/// Ends what hinders and drops. The caller has made sure that it is the right one; that the name still
/// belongs to `oid` is looked at again at the last moment, since DROP DATABASE takes a name only.
async fn drop_closed(maintenance: &Session, name: &str, oid: u32) -> Result<()> {
    drop_subscriptions(maintenance, name, oid).await?;
    super::swap::allow_connections(maintenance, name, false).await?;
    super::swap::end_sessions(maintenance, name, SETTLE).await?;
    match find(maintenance, name).await? {
        None => return Ok(()),
        Some(found) if found.oid != oid => {
            return Err(Error::failed(format!(
                "database `{name}` is another one than a moment ago: it was not dropped"
            )));
        }
        Some(_) => {}
    }
    // language=SQL
    let sql = format!("DROP DATABASE IF EXISTS {}", quote::ident(name));
    match maintenance.batch(&sql).await {
        Ok(()) => Ok(()),
        Err(error) if error.connection_lost() => Err(error),
        Err(error) => {
            let mut error = error.context(format!("database `{name}` could not be dropped"));
            for hindrance in drop_hindrances(maintenance, name).await.unwrap_or_default() {
                error = error.because(hindrance);
            }
            Err(error)
        }
    }
}

/// A database with subscriptions cannot be dropped. Theirs go without their slots: the slot's name is that
/// of the subscription which the database's successor or original has.
async fn drop_subscriptions(maintenance: &Session, name: &str, oid: u32) -> Result<()> {
    // language=SQL
    let sql = "SELECT u.subname::pg_catalog.text FROM pg_catalog.pg_subscription AS u WHERE u.subdbid = $1";
    let rows = maintenance.client().query(sql, &[&oid]).await.map_err(|error| session::explain(&error))?;
    if rows.is_empty() {
        return Ok(());
    }
    super::swap::allow_connections(maintenance, name, true).await?;
    let inside = Session::connect(&maintenance.target().with_database(name), "drop", SETTLE).await?;
    for row in &rows {
        let subscription = text(row, 0)?;
        let ident = quote::ident(&subscription);
        // One statement at a time: dropping a subscription that had a slot cannot be in a transaction.
        // language=SQL
        for sql in [
            format!("ALTER SUBSCRIPTION {ident} DISABLE"),
            format!("ALTER SUBSCRIPTION {ident} SET (slot_name = NONE)"),
            format!("DROP SUBSCRIPTION {ident}"),
        ] {
            inside.batch(&sql).await.map_err(|error| {
                error.context(format!("subscription `{subscription}` in database `{name}` could not be dropped"))
            })?;
        }
    }
    inside.close().await;
    Ok(())
}

fn text(row: &tokio_postgres::Row, column: usize) -> Result<String> {
    get(row, column)
}

/// A column's value; one of another type than the query promises is the server's error, not a panic.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a tokio_postgres::Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|error| session::explain(&error))
}
