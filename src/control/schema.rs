//! Making, checking and upgrading the control schema.

use tokio_postgres::Client;

use super::{TOOL_VERSION, in_transaction, integrity, while_doing};
use crate::error::{Error, Result};
use crate::ids::Lineage;
use crate::postgres::session::explain;

/// The version of the control schema that this binary writes.
pub const SCHEMA_VERSION: i32 = 2;

/// What version 2 has beyond version 1.
const UPGRADE_2: &str = include_str!("upgrade_2.sql");

/// The schema's name.
pub const SCHEMA: &str = "ripcord";

/// What stands in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No schema of our name.
    Absent,
    /// Ours.
    Present {
        /// The database's lineage.
        lineage: Lineage,
        /// The schema's version.
        version: i32,
    },
}

/// Looks, without writing. An error (refused) when there is a schema of our name whose owner, kinds,
/// triggers, rules, policies or anything else are not ours, or whose version is newer than this binary's.
pub async fn inspect(client: &Client) -> Result<State> {
    let Some(mut expected) = integrity::checked_version(client).await? else { return Ok(State::Absent) };
    // language=SQL
    const META: &str = "select lineage, schema_version from only ripcord.meta";
    let failed = while_doing("the table `ripcord.meta` could not be read");
    let row = client.query_opt(META, &[]).await.map_err(&failed)?.ok_or_else(|| {
        Error::refused("the table `ripcord.meta` is empty: the database's lineage is not known")
            .hint("`alter schema ripcord rename to ripcord_aside` puts it out of the way")
    })?;
    let version: i32 = row.try_get(1).map_err(&failed)?;
    if version > SCHEMA_VERSION {
        return Err(integrity::made_by_newer(version));
    }
    // Another run may have upgraded it between the two looks.
    if version > expected {
        expected = integrity::checked_version(client).await?.unwrap_or(expected);
    }
    if version != expected {
        return Err(Error::refused(format!(
            "the table `ripcord.meta` tells version {version} of a schema that has the form of version {expected}"
        ))
        .hint("`alter schema ripcord rename to ripcord_aside` puts it out of the way"));
    }
    Ok(State::Present { lineage: Lineage(row.try_get(0).map_err(&failed)?), version })
}

/// Creates it in one transaction, for `lineage`; never with IF NOT EXISTS. Upgrades an older one. Where it is
/// there already, nothing is written; the lineage that holds is returned. Must not be called inside a
/// transaction.
pub async fn ensure(client: &Client, lineage: Lineage) -> Result<Lineage> {
    match inspect(client).await? {
        State::Present { lineage, version: SCHEMA_VERSION } => return Ok(lineage),
        State::Present { .. } => upgrade(client).await?,
        State::Absent => make(client, lineage).await?,
    }
    // What stands there now is proved once more: an event trigger of the database may have had its say.
    match inspect(client).await? {
        State::Present { lineage, .. } => Ok(lineage),
        State::Absent => Err(Error::failed("the schema `ripcord` was made and is not there")),
    }
}

async fn make(client: &Client, lineage: Lineage) -> Result<()> {
    match create(client, lineage).await {
        // Another run was faster; what it made is looked at like any other.
        Err(error) if matches!(error.sqlstate(), Some("42P06" | "23505")) => Ok(()),
        made => made,
    }
}

/// From version 1 to this binary's, in one transaction: both or the old one, and no row is lost.
async fn upgrade(client: &Client) -> Result<()> {
    // Whoever waits for the lock finds what the other has made. Operators are ours by the transaction's search_path.
    // language=SQL
    const VERSION: &str = "select schema_version from only ripcord.meta";
    let failed = while_doing("the schema `ripcord` could not be brought to this ripcord's version");
    in_transaction(client, async || {
        // language=SQL
        client.batch_execute("lock table ripcord.meta in access exclusive mode").await.map_err(&failed)?;
        let version: i32 = client.query_one(VERSION, &[]).await.map_err(&failed)?.try_get(0).map_err(&failed)?;
        if version < SCHEMA_VERSION {
            client.batch_execute(UPGRADE_2).await.map_err(&failed)?;
        }
        Ok(())
    })
    .await
}

async fn create(client: &Client, lineage: Lineage) -> Result<()> {
    in_transaction(client, async || fill(client, lineage).await).await
}

/// The schema with everything in it, inside the open transaction.
pub(super) async fn fill(client: &Client, lineage: Lineage) -> Result<()> {
    // language=SQL
    const META: &str = "insert into ripcord.meta (lineage, schema_version, tool_version) values ($1, $2, $3)";
    for sql in [include_str!("schema.sql"), UPGRADE_2] {
        client.batch_execute(sql).await.map_err(|error| creation_failed(&error))?;
    }
    client
        .execute(META, &[&lineage.0, &SCHEMA_VERSION, &TOOL_VERSION])
        .await
        .map_err(|error| creation_failed(&error))?;
    Ok(())
}

fn creation_failed(error: &tokio_postgres::Error) -> Error {
    let explained = explain(error).context("the schema `ripcord` could not be created");
    match explained.sqlstate() {
        Some("42501") => explained.hint("`grant create on database … to …` for the role that ripcord connects as"),
        _ => explained,
    }
}

/// Sets another lineage: a copy made by `restore --into` becomes a database of its own.
pub async fn set_lineage(client: &Client, lineage: Lineage) -> Result<()> {
    // language=SQL
    const SET: &str = "update ripcord.meta set lineage = $1";
    let rows = client.execute(SET, &[&lineage.0]).await.map_err(while_doing("the lineage could not be set"))?;
    if rows == 1 { Ok(()) } else { Err(Error::failed("the table `ripcord.meta` has no row to set the lineage in")) }
}

/// The role that owns the control schema; `None` when there is none. Whoever restores as another role hands
/// the new one over with [`set_owner`], so that the next run as the usual role finds it its own.
pub async fn owner(client: &Client) -> Result<Option<String>> {
    // language=SQL
    const OWNER: &str = "select pg_catalog.pg_get_userbyid(nspowner)::pg_catalog.text
                           from pg_catalog.pg_namespace where nspname OPERATOR(pg_catalog.=) 'ripcord'";
    let failed = while_doing("the owner of the schema `ripcord` could not be read");
    let row = client.query_opt(OWNER, &[]).await.map_err(&failed)?;
    row.map(|row| row.try_get(0).map_err(&failed)).transpose()
}

/// Gives the control schema and all that is in it to `role`, in one transaction.
pub async fn set_owner(client: &Client, role: &str) -> Result<()> {
    // The schema first: an owner of a table needs CREATE on the table's schema.
    // language=SQL
    const STATEMENTS: &str = "
        select format('alter schema ripcord owner to %I', $1::text), 1 as place
        union all
        select format('alter %s ripcord.%I owner to %I', case relkind when 'v' then 'view' else 'table' end, relname, $1), 2
          from pg_class where relnamespace = 'ripcord'::regnamespace and relkind in ('r', 'v')
        union all
        select format('alter function %s owner to %I', oid::regprocedure, $1), 3
          from pg_proc where pronamespace = 'ripcord'::regnamespace
        order by place";
    let failed = while_doing("the schema `ripcord` could not be given to another owner");
    in_transaction(client, async || {
        for row in client.query(STATEMENTS, &[&role]).await.map_err(&failed)? {
            let statement: String = row.try_get(0).map_err(&failed)?;
            client.batch_execute(&statement).await.map_err(&failed)?;
        }
        Ok(())
    })
    .await
}
