//! Copies of single tables beside the living ones, made in one transaction.

use super::pick::{Picked, Tables};
use super::{Planned, PlannedTable};
use crate::archive::inventory::item_name;
use crate::archive::{Digest, RowDigester};
use crate::control;
use crate::error::{Error, Result};
use crate::migration::dumped;
use crate::ops::context::{self, Context, stopped};
use crate::ops::run::unfinished;
use crate::postgres::{Session, load, quote};

/// What of the tables a copy does not have, for people to know.
pub(super) fn left_out(tables: &Tables<'_>, picked: &[Picked]) -> Vec<String> {
    let asked: Vec<i32> = picked.iter().map(|one| one.table).collect();
    tables
        .hanging(&asked)
        .into_iter()
        .filter(|entry| {
            let is_key = || entry.definition.as_str().and_then(dumped::primary_key).is_some();
            entry.description.0 != b"COMMENT" && !is_key()
        })
        .map(item_name)
        .collect()
}

/// Makes the copies: under the lock, so that no run meets a table that it does not expect.
pub(super) async fn restore(ctx: &Context, planned: &Planned) -> Result<()> {
    let live = context::open_as(ctx, Some(planned.lineage)).await?;
    if let Some(run) = unfinished(ctx, live.lineage).await?.first() {
        return Err(Error::refused(format!("run `{}` was not finished", run.run))
            .because("what undoes it compares the whole schema, where a new table would stand in its way")
            .hint("ripcord recover, or restore the table into a new database: --into NAME"));
    }
    let session = ctx.connect("restore").await?;
    let work = async {
        load::prepare(&session).await?;
        copies(ctx, planned, &session).await
    };
    let result = tokio::select! {
        result = work => result,
        () = tokio::time::sleep(ctx.settings.timeouts.restore) => Err(super::too_long(ctx)),
        () = ctx.cancelled() => Err(stopped()),
    };
    // Without a commit the server undoes all of it as the session ends; nothing is left to wait for.
    session.close().await;
    if result.is_ok() {
        let detail = serde_json::json!({
            "backup": planned.backup,
            "tables": planned.tables.iter().map(|table| (&table.table, &table.becomes)).collect::<Vec<_>>(),
        });
        control::audit(live.session.client(), None, "table restored", &detail, None).await?;
    }
    live.session.close().await;
    live.guard.release().await?;
    result
}

/// All in one transaction, which is committed once every row was read back and compared.
async fn copies(ctx: &Context, planned: &Planned, session: &Session) -> Result<()> {
    let tables = Tables::of(&planned.toc);
    // language=SQL
    session.batch("BEGIN").await?;
    ctx.progress.began("load", format!("restoring {} beside the living one", planned.all_tables()));
    for table in &planned.tables {
        create(session, &tables, planned, table).await?;
    }
    let plan = planned.load_plan(ctx, |table| Some(table.becomes.clone()));
    load::copy_rows(session, &plan, &ctx.progress).await?;
    ctx.progress.finished("load", format!("{} rows", planned.rows()));
    ctx.progress.began("compare", "reading the copy back");
    compare(session, planned).await?;
    ctx.progress.finished("compare", "every row is as it was backed up");
    for table in &planned.tables {
        if let Some(key) = tables.primary_key(table.picked.table) {
            // language=SQL
            session.batch(&format!("ALTER TABLE {} ADD {key}", table.becomes)).await?;
        }
        owned_like_the_living(ctx, session, &tables, table).await?;
    }
    // language=SQL
    session.batch("COMMIT").await?;
    for table in &planned.tables {
        if let Err(error) = session.batch(&format!("ANALYZE {}", table.becomes)).await {
            ctx.progress.warn(format!("`{}` has no statistics yet: {}", table.becomes, error.one_line()));
        }
    }
    Ok(())
}

/// Reads every row of the copies back, and compares count and digest with the manifest's.
async fn compare(session: &Session, planned: &Planned) -> Result<()> {
    let options = match planned.encoding().as_str() {
        "UTF8" => String::new(),
        other => format!(" WITH (ENCODING {})", quote::literal(other)),
    };
    for PlannedTable { becomes, parts, .. } in &planned.tables {
        let Some(columns) = parts.first().map(|part| part.columns.as_str()) else { continue };
        let mut expected = Digest::default();
        parts.iter().for_each(|part| expected.merge(part.block.entry.digest));
        // Partitions that wrote their columns in another order have other digests: these rows are proved by what
        // COPY counted.
        let mixed = parts.iter().any(|part| part.columns != columns);
        let columns = columns.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or_default();
        // language=SQL
        let statement = format!("COPY (SELECT {columns} FROM ONLY {becomes}) TO STDOUT{options}");
        let mut digester = RowDigester::new(&planned.frames.digest_key());
        load::read_rows(session, &statement, |piece| {
            digester.feed(piece).map_err(|_| Error::verification("a row reads like the end of the rows"))
        })
        .await
        .map_err(|error| error.context(format!("the rows of `{becomes}` could not be read back")))?;
        let found = digester.digest();
        if found.rows != expected.rows || (found.sum != expected.sum && !mixed) {
            return Err(Error::verification(format!("what arrived in `{becomes}` is not what was backed up"))
                .because(format!("{} rows with another digest than the {} of the backup", found.rows, expected.rows)));
        }
    }
    Ok(())
}

/// The table itself: columns with their types, generations and NOT NULL.
async fn create(session: &Session, tables: &Tables<'_>, planned: &Planned, table: &PlannedTable) -> Result<()> {
    let PlannedTable { becomes, table: name, .. } = table;
    let missing = || {
        Error::failed(format!("the definition of `{name}` is not one that could be copied"))
            .hint("restore it into a new database: --into NAME")
    };
    let entry = tables.entry(table.picked.table).ok_or_else(missing)?;
    let text = entry.definition.as_str().and_then(dumped::table).ok_or_else(missing)?;
    let body = match &text.of_type {
        Some(of_type) => format!("OF {of_type}"),
        None => {
            let columns = tables.columns(table.picked.table).ok_or_else(missing)?;
            let columns: Vec<String> = columns.into_iter().map(|column| column.definition).collect();
            format!("({})", columns.join(", "))
        }
    };
    let comment = format!(
        "rows of {name} from backup {} of {}, restored by ripcord",
        planned.backup,
        planned.created_at.format("%Y-%m-%d %H:%M:%S UTC")
    );
    // language=SQL
    let sql = format!("CREATE TABLE {becomes} {body}; COMMENT ON TABLE {becomes} IS {}", quote::literal(&comment));
    session.batch(&sql).await.map_err(|error| {
        let hint = match error.sqlstate() {
            Some("42P07") => format!("that backup's copy is there already: look at it, or DROP TABLE {becomes}"),
            Some("42501") => {
                "let the role create tables in that schema, or restore into a new database: --into NAME".to_owned()
            }
            // What the columns stand on went with the accident, perhaps.
            _ => "restore it into a new database, where everything that it needs is made too: --into NAME".to_owned(),
        };
        error.context(format!("`{becomes}` could not be created")).hint(hint)
    })
}

/// The copy belongs to the owner of the living table (of the backed up one, when there is none), and to nobody
/// else: default privileges may have let others in as it was created.
async fn owned_like_the_living(
    ctx: &Context,
    session: &Session,
    tables: &Tables<'_>,
    table: &PlannedTable,
) -> Result<()> {
    let entry = tables.entry(table.picked.table);
    let (schema, name, owner) =
        entry.map(|entry| (entry.namespace.lossy(), entry.tag.lossy(), entry.owner.lossy())).unwrap_or_default();
    let living = format!("{}.{}", quote::ident(&schema), quote::ident(&name));
    // language=SQL
    let revokes = format!(
        "SELECT DISTINCT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' \
                              ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END \
           FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a \
          WHERE c.oid OPERATOR(pg_catalog.=) {}::pg_catalog.regclass \
            AND a.grantee OPERATOR(pg_catalog.<>) c.relowner",
        quote::literal(&table.becomes)
    );
    for grantee in session.rows(&revokes).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
        // language=SQL
        session.batch(&format!("REVOKE ALL ON TABLE {} FROM {grantee}", table.becomes)).await?;
    }
    // language=SQL
    let owners = format!(
        "SELECT r.rolname FROM pg_catalog.pg_roles AS r LEFT JOIN pg_catalog.pg_class AS c \
             ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})::pg_catalog.oid \
          WHERE r.oid OPERATOR(pg_catalog.=) c.relowner OR (c.oid IS NULL AND r.rolname OPERATOR(pg_catalog.=) {}) \
          LIMIT 1",
        quote::literal(&living),
        quote::literal(&owner)
    );
    let owner = session.rows(&owners).await?.into_iter().flatten().next().flatten();
    let Some(owner) = owner else {
        ctx.progress.warn(format!(
            "`{}` belongs to `{}`: the owner of before is gone",
            table.becomes,
            ctx.target.user()
        ));
        return Ok(());
    };
    // language=SQL
    let give = format!("SAVEPOINT owner; ALTER TABLE {} OWNER TO {}", table.becomes, quote::ident(&owner));
    if let Err(error) = session.batch(&give).await {
        session.batch("ROLLBACK TO SAVEPOINT owner").await?;
        ctx.progress.warn(format!(
            "`{}` belongs to `{}`, and not to `{owner}`: {}",
            table.becomes,
            ctx.target.user(),
            error.message()
        ));
    }
    Ok(())
}
