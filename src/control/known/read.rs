//! Reading another tool's table, once it is known to be one that may be read.

use tokio_postgres::Client;

use super::super::while_doing;
use super::{Column, Holds, Kind, Known, OldRow, Role};
use crate::error::Result;
use crate::postgres::quote;

/// Rows of a history, in the order in which they were applied. In the caller's transaction, which has a fixed
/// search_path and `row_security` off, and for one that [`Known::refuse`] lets pass.
pub async fn rows(client: &Client, known: &Known) -> Result<Vec<OldRow>> {
    // An output function of the server's, and never a cast, which they may have made.
    let text = |role: Role| match known.column(role) {
        Some(column) => {
            let name = quote::ident(&column.name);
            format!("case when {name} is not null then pg_catalog.format('%s', {name}) end")
        }
        None => "null::pg_catalog.text".to_owned(),
    };
    let typed = |role: Role, kind: &str| match known.column(role) {
        Some(column) => format!("{}::pg_catalog.{kind}", quote::ident(&column.name)),
        None => format!("null::pg_catalog.{kind}"),
    };
    let at = match known.holds {
        // Milliseconds since 1970, of the file's making.
        Holds::Drizzle => "pg_catalog.to_timestamp(created_at / 1000.0)".to_owned(),
        _ => typed(Role::Time, "timestamptz"),
    };
    let name = match known.holds {
        Holds::Drizzle => "pg_catalog.format('%s', created_at)".to_owned(),
        _ => text(Role::Name),
    };
    let last = known.columns.iter().find(|column| column.name == "id" && Kind::Integer.is(column));
    let order = last.map_or_else(|| "ctid".to_owned(), |column| quote::ident(&column.name));
    // language=SQL
    let sql = format!(
        "select {}, {name}, {}, {at}, {}, {}, {}, {}, {}, {}, {} from only {} order by 4 nulls first, {order}",
        text(Role::Identity),
        text(Role::Checksum),
        typed(Role::Duration, "int8"),
        typed(Role::Success, "bool"),
        text(Role::Status),
        text(Role::Error),
        text(Role::RollbackSql),
        typed(Role::Batch, "int4"),
        text(Role::By),
        known.sql(),
    );
    let failed = while_doing("the rows of another tool's table could not be read");
    let rows = client.query(&sql, &[]).await.map_err(|error| {
        let error = failed(error).context(format!("table `{}`", known.label()));
        match error.sqlstate() {
            // No right to read it, or a policy that would have run.
            Some("42501") => error.hint(format!("adopt as its owner, `{}`", known.owner)),
            _ => error,
        }
    })?;
    rows.iter()
        .map(|row| {
            Ok(OldRow {
                identity: row.try_get::<_, Option<String>>(0)?.unwrap_or_default(),
                name: row.try_get(1)?,
                checksum: row.try_get(2)?,
                at: row.try_get(3)?,
                duration_ms: row.try_get(4)?,
                success: row.try_get(5)?,
                status: row.try_get(6)?,
                error: row.try_get(7)?,
                rollback_sql: row.try_get(8)?,
                batch: row.try_get(9)?,
                by: row.try_get(10)?,
            })
        })
        .collect::<Result<Vec<OldRow>, tokio_postgres::Error>>()
        .map_err(&failed)
}

/// Rows of any other table, each as its columns' texts.
pub async fn other_rows(client: &Client, known: &Known) -> Result<Vec<serde_json::Value>> {
    let plain: Vec<&Column> = known.columns.iter().filter(|column| column.plain).collect();
    let list: Vec<String> = plain
        .iter()
        .map(|column| {
            let name = quote::ident(&column.name);
            format!("case when {name} is not null then pg_catalog.format('%s', {name}) end")
        })
        .collect();
    // language=SQL
    let sql = format!("select {} from only {} order by ctid", list.join(", "), known.sql());
    let failed = while_doing("the rows of another tool's table could not be read");
    let mut values = Vec::new();
    for row in client.query(&sql, &[]).await.map_err(&failed)? {
        let mut fields = serde_json::Map::new();
        for (at, column) in plain.iter().enumerate() {
            let value: Option<String> = row.try_get(at).map_err(&failed)?;
            fields.insert(column.name.clone(), value.into());
        }
        values.push(serde_json::Value::Object(fields));
    }
    Ok(values)
}

/// How many rows a table holds, for people; `None` where it must not be read. Must not be called inside a
/// transaction.
pub async fn count(client: &Client, known: &Known) -> Result<Option<i64>> {
    if known.hindrance.is_some() {
        return Ok(None);
    }
    let failed = while_doing("the rows of another tool's table could not be counted");
    // A policy would run their functions; now it is an error instead.
    // language=SQL
    client.batch_execute("begin read only; set local row_security = off").await.map_err(&failed)?;
    // language=SQL
    let sql = format!("select pg_catalog.count(*) from only {}", known.sql());
    let counted = client.query_one(&sql, &[]).await;
    client.batch_execute("rollback").await.map_err(&failed)?;
    match counted {
        Ok(row) => row.try_get(0).map(Some).map_err(&failed),
        // Without the right to read it, and with a policy on it, it is there all the same.
        Err(error) if error.code().is_some_and(|code| matches!(code.code(), "42501")) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
