//! Carrying our rows from one database into another: into a manifest, and back over a restore.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio_postgres::Client;

use super::{in_transaction, while_doing};
use crate::error::{Error, Result};

/// A table whose rows are carried. `meta` is not (the lineage is given when the schema is made), nor is
/// `lock` (it speaks of one database at one moment).
struct Table {
    name: &'static str,
    order: &'static str,
    has_identity: bool,
}

const TABLES: [Table; 6] = [
    Table { name: "schema_migrations", order: "id", has_identity: true },
    Table { name: "backup_history", order: "started_at, id", has_identity: false },
    Table { name: "runs", order: "started_at, id", has_identity: false },
    Table { name: "audit_log", order: "id", has_identity: true },
    Table { name: "rollback_history", order: "id", has_identity: true },
    Table { name: "releases", order: "id", has_identity: true },
];

/// Every row of our tables as JSON arrays, by table: for the manifest and for carrying over. One statement a
/// table: for one moment of all, call it in a repeatable read transaction.
pub async fn export_rows(client: &Client) -> Result<BTreeMap<String, Value>> {
    let failed = while_doing("the rows of the control schema could not be read");
    let mut rows = BTreeMap::new();
    for Table { name, order, .. } in &TABLES {
        // language=SQL
        let sql = format!(
            "select coalesce(pg_catalog.json_agg(pg_catalog.row_to_json(t) order by {order}), '[]'::pg_catalog.json)
               from ripcord.{name} as t"
        );
        let row = client.query_one(&sql, &[]).await.map_err(&failed)?;
        rows.insert((*name).to_owned(), row.try_get(0).map_err(&failed)?);
    }
    Ok(rows)
}

/// Puts rows into a fresh control schema, in one transaction, and then makes `applied` (version, checksum) the
/// set in effect as [`set_applied`] does. Rows keep their numbers. An error, and nothing put, when the schema
/// holds rows already or when `rows` has a table or a column that is not known here.
pub async fn import_rows(client: &Client, rows: &BTreeMap<String, Value>, applied: &[(String, String)]) -> Result<()> {
    if let Some(unknown) = rows.keys().find(|name| {
        !TABLES.iter().any(|table| table.name == name.as_str()) && !matches!(name.as_str(), "meta" | "lock")
    }) {
        return Err(Error::failed(format!("the rows to carry over have a table `{unknown}` that is not known here")));
    }
    in_transaction(client, async || {
        for table in &TABLES {
            if let Some(values) = rows.get(table.name) {
                import_table(client, table, values).await?;
            }
        }
        reconcile(client, applied).await
    })
    .await
}

/// Makes `applied` (version, checksum, in the order of applying) the set of migrations in effect, as it was when
/// a backup was taken: after a restore into the same database, whose history stays. Rows in effect that are
/// not in it become `restored_away`; of those that were in effect then and are not now, a copy is put in effect.
/// An error, and nothing changed, when the history knows nothing of one. In a transaction of its own.
pub async fn set_applied(client: &Client, applied: &[(String, String)]) -> Result<()> {
    in_transaction(client, async || reconcile(client, applied).await).await
}

/// Makes the control schema anew with these rows, for a history that was lost and has begun again in the very
/// database that is restored in place. In one transaction.
pub async fn rebuild(
    client: &Client,
    lineage: crate::ids::Lineage,
    rows: &BTreeMap<String, Value>,
    applied: &[(String, String)],
) -> Result<()> {
    in_transaction(client, async || {
        // language=SQL
        client
            .batch_execute("drop schema ripcord cascade")
            .await
            .map_err(while_doing("the control schema could not be made anew"))?;
        super::schema::fill(client, lineage).await?;
        for table in &TABLES {
            if let Some(values) = rows.get(table.name) {
                import_table(client, table, values).await?;
            }
        }
        reconcile(client, applied).await
    })
    .await
}

async fn import_table(client: &Client, table: &Table, values: &Value) -> Result<()> {
    let Table { name, has_identity, .. } = table;
    let failed = while_doing("rows could not be put into the control schema");

    // language=SQL
    let occupied = format!("select exists (select from ripcord.{name})");
    if client.query_one(&occupied, &[]).await.map_err(&failed)?.try_get(0).map_err(&failed)? {
        return Err(Error::failed(format!("the table `ripcord.{name}` holds rows already")));
    }

    // language=SQL
    const COLUMNS: &str = "select attname::text from pg_attribute
                            where attrelid = $1::text::regclass and attnum > 0 and not attisdropped";
    let mut columns = BTreeSet::new();
    for row in client.query(COLUMNS, &[&format!("ripcord.{name}")]).await.map_err(&failed)? {
        columns.insert(row.try_get::<_, String>(0).map_err(&failed)?);
    }
    let rows = values.as_array().ok_or_else(|| Error::failed(format!("the rows of `{name}` are no JSON array")))?;
    for row in rows {
        let fields = row.as_object().ok_or_else(|| Error::failed(format!("a row of `{name}` is no JSON object")))?;
        if let Some(unknown) = fields.keys().find(|field| !columns.contains(*field)) {
            return Err(Error::failed(format!("a row of `{name}` has a column `{unknown}` that is not known here"))
                .hint("run the ripcord that made the backup, or a newer one"));
        }
    }

    let list = columns.into_iter().collect::<Vec<_>>().join(", ");
    // language=SQL
    let insert = format!(
        "insert into ripcord.{name} ({list}) overriding system value
         select {list} from json_populate_recordset(null::ripcord.{name}, $1::json)"
    );
    client.execute(&insert, &[values]).await.map_err(&failed)?;
    if *has_identity {
        // language=SQL
        let advance = format!(
            "select setval(pg_get_serial_sequence('ripcord.{name}', 'id'), max(id))
               from ripcord.{name} having max(id) is not null"
        );
        client.query(&advance, &[]).await.map_err(&failed)?;
    }
    Ok(())
}

async fn reconcile(client: &Client, applied: &[(String, String)]) -> Result<()> {
    let failed = while_doing("the set of applied migrations could not be set");
    let versions: Vec<&str> = applied.iter().map(|(version, _)| version.as_str()).collect();
    let checksums: Vec<&str> = applied.iter().map(|(_, checksum)| checksum.as_str()).collect();
    // language=SQL
    const AWAY: &str = "
        update ripcord.schema_migrations set state = 'restored_away'
         where state in ('applied', 'baseline')
           and not exists (select from unnest($1::text[], $2::text[]) as kept (version, checksum)
                            where kept.version = schema_migrations.version
                              and kept.checksum = schema_migrations.checksum)";
    client.execute(AWAY, &[&versions, &checksums]).await.map_err(&failed)?;

    // The row that it was: with that very checksum if there is one, else the newest that went well (its
    // checksum was repaired since).
    // language=SQL
    const BACK: &str = "
        insert into ripcord.schema_migrations
               (version, name, checksum, loose_checksum, batch, state, applied_at, execution_time_ms, success, error,
                applied_by, approver, git_commit, run_id, tool_version, up_sql, down_sql, text_omitted,
                down_digest, copy_of)
        select version, name, $2, case when checksum = $2 then loose_checksum end, batch, 'applied', applied_at,
               execution_time_ms, success, error, applied_by, approver, git_commit, run_id, tool_version, up_sql,
               down_sql, text_omitted, down_digest, coalesce(copy_of, id)
          from ripcord.schema_migrations
         where version = $1 and success
         order by checksum = $2 desc, id desc
         limit 1";
    // language=SQL
    const IN_EFFECT: &str = "select exists (select from ripcord.schema_migrations
                              where version = $1 and checksum = $2 and state in ('applied', 'baseline'))";
    for (version, checksum) in applied {
        let row = client.query_one(IN_EFFECT, &[version, checksum]).await.map_err(&failed)?;
        if row.try_get(0).map_err(&failed)? {
            continue;
        }
        if client.execute(BACK, &[version, checksum]).await.map_err(&failed)? == 0 {
            return Err(Error::failed(format!("migration `{version}` was applied when the backup was taken"))
                .because("the history to carry over has no row of its being applied"));
        }
    }
    Ok(())
}
