//! Databases that a swap kept: told by their comments, listed, dropped.

use serde::{Deserialize, Serialize};

use super::{DatabaseInfo, drop_closed, find, get, select, session};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::postgres::Session;

/// What the comment of every database kept aside begins with; an [`Aside`] as JSON follows.
pub const ASIDE_COMMENT_PREFIX: &str = "ripcord aside: ";

/// What a database kept aside was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Whose it is.
    pub lineage: Lineage,
    /// The name that it had.
    pub database: String,
    /// The run that replaced it.
    pub run: Option<RunId>,
    /// The backup that took its place.
    pub backup: Option<BackupId>,
    /// When it was put aside.
    pub at: Time,
}

impl Aside {
    /// The comment that says all this.
    pub fn comment(&self) -> String {
        format!("{ASIDE_COMMENT_PREFIX}{}", serde_json::json!(self))
    }

    /// Reads a comment; `None` when it is not such a one.
    pub fn parse(comment: &str) -> Option<Aside> {
        serde_json::from_str(comment.strip_prefix(ASIDE_COMMENT_PREFIX)?).ok()
    }
}

/// What a database was, when it is one that is kept aside. One that has its old name again was put back by
/// hand and lives, whatever its comment still says.
fn kept_as(info: &DatabaseInfo) -> Option<Aside> {
    Aside::parse(info.comment.as_deref()?).filter(|aside| aside.database != info.name)
}

/// Databases that a swap kept aside, by their comments; oldest first.
pub async fn list_aside(maintenance: &Session, lineage: Option<Lineage>) -> Result<Vec<DatabaseInfo>> {
    // language=SQL
    let condition = "pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), $1)";
    let mut kept: Vec<(Time, DatabaseInfo)> = select(maintenance, condition, ASIDE_COMMENT_PREFIX)
        .await?
        .into_iter()
        .filter_map(|info| {
            let aside = kept_as(&info)?;
            lineage.is_none_or(|lineage| lineage == aside.lineage).then_some((aside.at, info))
        })
        .collect();
    kept.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.name.cmp(&b.name)));
    Ok(kept.into_iter().map(|(_, info)| info).collect())
}

/// What hinders dropping a kept database, or is lost with it: logical slots, prepared transactions,
/// subscriptions, sessions. One sentence each.
pub async fn drop_hindrances(maintenance: &Session, name: &str) -> Result<Vec<String>> {
    // language=SQL
    let sql = "SELECT pg_catalog.format('the logical slot `%s` is %s', s.slot_name, \
                      CASE WHEN s.active THEN pg_catalog.concat('in use by process ', s.active_pid) \
                           ELSE 'dropped with it' END) \
               FROM pg_catalog.pg_replication_slots AS s WHERE s.database = $1 \
               UNION ALL \
               SELECT pg_catalog.format('the prepared transaction `%s` of role `%s` is open', p.gid, p.owner) \
               FROM pg_catalog.pg_prepared_xacts AS p WHERE p.database = $1 \
               UNION ALL \
               SELECT pg_catalog.format('the subscription `%s` is dropped with it, and its slot at the publisher stays', u.subname) \
               FROM pg_catalog.pg_subscription AS u \
               JOIN pg_catalog.pg_database AS d ON d.oid = u.subdbid WHERE d.datname = $1 \
               UNION ALL \
               SELECT pg_catalog.format('process %s of role `%s` (%s) is connected to it', a.pid, a.usename, \
                      a.application_name) \
               FROM pg_catalog.pg_stat_activity AS a \
               WHERE a.datname = $1 AND a.pid <> pg_catalog.pg_backend_pid()";
    let rows = maintenance.client().query(sql, &[&name]).await.map_err(|error| session::explain(&error))?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// Drops a kept database: only one whose comment says that a swap kept it.
pub async fn drop_aside(maintenance: &Session, name: &str) -> Result<()> {
    let Some(found) = find(maintenance, name).await? else {
        return Err(Error::failed(format!("database `{name}` does not exist")));
    };
    if kept_as(&found).is_none() {
        return Err(Error::refused(format!(
            "database `{name}` is none that ripcord has put aside: its name or its comment does not say so"
        )));
    }
    drop_closed(maintenance, name, found.oid).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written() {
        let aside = Aside {
            lineage: Lineage::new(),
            database: "it's \"mine\"".into(),
            run: Some(RunId::new()),
            backup: None,
            at: crate::clock::now(),
        };
        assert_eq!(Aside::parse(&aside.comment()), Some(aside));
        assert_eq!(Aside::parse("ripcord aside: {}"), None);
        assert_eq!(Aside::parse("my own"), None);
    }
}
