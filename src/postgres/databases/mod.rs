//! Databases as objects: what they are made with, scratch ones, kept ones.

mod acl;
mod aside;
mod create;
mod properties;
mod setting;

use serde::Serialize;

use super::{Session, quote, session};
use crate::error::{Error, Result};
use crate::manifest::ExtensionRecord;

pub use aside::{ASIDE_COMMENT_PREFIX, Aside, drop_aside, drop_hindrances, list_aside};
pub use create::{SCRATCH_COMMENT, create, drop_scratch, is_scratch_name, scratch_name};
pub use properties::{apply_properties, read_properties};

pub(super) use create::pending_comment;

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
    super::swap::allow_connections(maintenance, name, false).await?;
    super::swap::end_sessions(maintenance, name, std::time::Duration::from_secs(30)).await?;
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

fn text(row: &tokio_postgres::Row, column: usize) -> Result<String> {
    get(row, column)
}

/// A column's value; one of another type than the query promises is the server's error, not a panic.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a tokio_postgres::Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|error| session::explain(&error))
}
