//! Emptying a database, for `fresh`.

use super::get;
use crate::error::Result;
use crate::postgres::{Session, quote, session};

/// Whether nobody has made anything in the database: no relation, function or type outside the system's schemas,
/// ripcord's and those given, but for what belongs to an extension.
pub async fn is_empty(session: &Session, but: &[String]) -> Result<bool> {
    // language=SQL
    let sql = "SELECT NOT EXISTS (
                 SELECT FROM (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, oid, relnamespace AS space
                                FROM pg_catalog.pg_class
                               UNION ALL
                              SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, pronamespace FROM pg_catalog.pg_proc
                               UNION ALL
                              SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, typnamespace FROM pg_catalog.pg_type
                             ) AS made
                   JOIN pg_catalog.pg_namespace AS n ON n.oid = made.space
                  WHERE n.nspname NOT IN ('information_schema', 'ripcord') AND n.nspname NOT LIKE 'pg\\_%'
                    AND n.nspname <> ALL ($1)
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                     WHERE d.classid = made.class AND d.objid = made.oid AND d.deptype = 'e'))";
    let row = session.client().query_one(sql, &[&but]).await.map_err(|error| session::explain(&error))?;
    get(&row, 0)
}

/// Drops every schema but the system's and ripcord's, every extension but plpgsql and every large object, and
/// makes `public` anew as template0 has it. In one transaction. Returns the names of what was dropped.
pub async fn drop_everything(session: &Session) -> Result<Vec<String>> {
    session.batch("BEGIN").await?;
    let done = drop_all(session).await;
    match &done {
        Ok(_) => session.batch("COMMIT").await?,
        Err(_) => {
            let _ = session.batch("ROLLBACK").await;
        }
    }
    done
}

async fn drop_all(session: &Session) -> Result<Vec<String>> {
    // language=SQL
    let sql = "SELECT 'EXTENSION', e.extname::pg_catalog.text FROM pg_catalog.pg_extension AS e
                WHERE e.extname <> 'plpgsql'
               UNION ALL
               SELECT 'EVENT TRIGGER', t.evtname::pg_catalog.text FROM pg_catalog.pg_event_trigger AS t
               UNION ALL
               SELECT 'PUBLICATION', p.pubname::pg_catalog.text FROM pg_catalog.pg_publication AS p
               UNION ALL
               SELECT 'SCHEMA', n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace AS n
                WHERE n.nspname NOT IN ('information_schema', 'ripcord') AND n.nspname NOT LIKE 'pg\\_%'";
    let rows = session.client().query(sql, &[]).await.map_err(|error| session::explain(&error))?;
    let mut dropped = Vec::new();
    for row in &rows {
        let (kind, name): (String, String) = (get(row, 0)?, get(row, 1)?);
        // language=SQL
        session.batch(&format!("DROP {kind} IF EXISTS {} CASCADE", quote::ident(&name))).await?;
        dropped.push(format!("{} {name}", kind.to_lowercase()));
    }
    // language=SQL
    session
        .batch(
            "SELECT pg_catalog.lo_unlink(m.oid) FROM pg_catalog.pg_largeobject_metadata AS m;
             CREATE SCHEMA public;
             COMMENT ON SCHEMA public IS 'standard public schema';
             GRANT USAGE ON SCHEMA public TO PUBLIC",
        )
        .await?;
    if session.server_version_num() >= 150_000 {
        // language=SQL
        session.batch("ALTER SCHEMA public OWNER TO pg_database_owner").await?;
    } else {
        // language=SQL
        session.batch("GRANT CREATE ON SCHEMA public TO PUBLIC").await?;
    }
    Ok(dropped)
}
