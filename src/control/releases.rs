//! Names for versions: tags and releases.

use serde::Serialize;
use tokio_postgres::Client;

use super::{clean, os_user, while_doing};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::postgres::session::explain;

/// A row of `ripcord.releases`.
#[derive(Clone, Debug, Serialize)]
pub struct ReleaseRow {
    /// `tag` or `release`.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The migration's version that it stands for.
    pub version: String,
    /// When it was given.
    pub at: Time,
    /// Role and operating system user.
    pub created_by: String,
}

/// All of them, oldest first.
pub async fn releases(client: &Client) -> Result<Vec<ReleaseRow>> {
    // language=SQL
    const READ: &str = "select kind, name, version, at, created_by from ripcord.releases order by id";
    let failed = while_doing("the tags and releases could not be read");
    let mut all = Vec::new();
    for row in client.query(READ, &[]).await.map_err(&failed)? {
        let read = || -> Result<ReleaseRow, tokio_postgres::Error> {
            Ok(ReleaseRow {
                kind: row.try_get(0)?,
                name: row.try_get(1)?,
                version: row.try_get(2)?,
                at: row.try_get(3)?,
                created_by: row.try_get(4)?,
            })
        };
        all.push(read().map_err(&failed)?);
    }
    Ok(all)
}

/// Gives `version` a name; `kind` is `tag` or `release`. An error when that kind has the name already.
pub async fn add_release(client: &Client, kind: &str, name: &str, version: &str) -> Result<()> {
    // language=SQL
    const ADD: &str = "
        insert into ripcord.releases (kind, name, version, created_by)
        values ($1, $2, $3, pg_catalog.concat(session_user, ' (', $4::pg_catalog.text, ')'))";
    client.execute(ADD, &[&kind, &clean(name), &clean(version), &os_user()]).await.map_err(|error| {
        let explained = explain(&error);
        if explained.sqlstate() == Some("23505") {
            return Error::failed(format!("there is a {kind} `{name}` already"));
        }
        explained.context(format!("the {kind} `{name}` could not be written"))
    })?;
    Ok(())
}
