//! Taking over what another tool recorded, in one transaction: its rows are copied into ours, and nothing of theirs is
//! run.

use serde_json::Value;
use tokio_postgres::Client;

use super::known::{self, Holds, Known, OldRow};
use super::{MigrationRow, audit, compat, in_transaction, record_migration, while_doing};
use crate::error::{Error, Result};

/// How long the other tool may hold its table before we give up.
const LOCK_LIMIT: &str = "5s";

/// A table with its rows.
pub struct OldTable {
    /// The table.
    pub known: Known,
    /// Its rows, in the order of applying; of a history.
    pub rows: Vec<OldRow>,
    /// Its rows as they stand; of any other table.
    pub others: Vec<Value>,
}

/// What is wanted.
pub struct Adoption<'a> {
    /// The tables.
    pub tables: &'a [Known],
    /// Write; otherwise it is only read what would be written.
    pub write: bool,
    /// Rename the old objects, and leave views and functions in their place.
    pub compat: bool,
}

/// What was made of a table's rows.
pub struct Decided<T> {
    /// The rows for our history, in the order of applying.
    pub rows: Vec<MigrationRow>,
    /// What the caller wants to know of it.
    pub told: T,
}

/// Locks the tables, looks at them once more, reads them, has `decide` make rows of ours of them, and writes those.
/// The second value: the objects that `--compat` renamed and made.
///
/// # Errors
/// Refused when a table must not be read ([`Known::refuse`]), or says that its own tool is at work.
pub async fn adopt<T>(
    client: &Client,
    adoption: &Adoption<'_>,
    decide: impl Fn(&[OldTable]) -> Result<Decided<T>>,
) -> Result<(T, Vec<String>)> {
    in_transaction(client, async || {
        settle_session(client).await?;
        let tables = read(client, adoption).await?;
        let decided = decide(&tables)?;
        let mut made = Vec::new();
        if adoption.write {
            for row in &decided.rows {
                record_migration(client, row).await?;
            }
            for table in &tables {
                keep(client, table).await?;
            }
            if adoption.compat {
                made = compat::make(client, &tables).await?;
            }
        }
        Ok((decided.told, made))
    })
    .await
}

async fn settle_session(client: &Client) -> Result<()> {
    // A policy on a table of theirs would run their functions; now it is an error instead.
    // language=SQL
    let sql = format!("set local row_security = off; set local lock_timeout = '{LOCK_LIMIT}'");
    client.batch_execute(&sql).await.map_err(while_doing("the session could not be prepared"))
}

async fn read(client: &Client, adoption: &Adoption<'_>) -> Result<Vec<OldTable>> {
    let mode = match (adoption.write, adoption.compat) {
        (true, true) => "access exclusive",
        (true, false) => "share",
        (false, _) => "access share",
    };
    for table in adoption.tables {
        table.refuse()?;
        // language=SQL
        client.batch_execute(&format!("lock table only {} in {mode} mode", table.sql())).await.map_err(|error| {
            while_doing("the table could not be locked")(error).context(format!("table `{}`", table.label()))
        })?;
    }
    // Between the first look and the lock it may have become something else.
    let now = known::find(client, &[]).await?;
    let mut tables = Vec::new();
    for wanted in adoption.tables {
        let known = now.iter().find(|known| known.oid == wanted.oid).cloned().ok_or_else(|| {
            Error::failed(format!("`{}` is not there any more as it was a moment ago", wanted.label()))
        })?;
        known.refuse()?;
        let mut table = OldTable { known, rows: Vec::new(), others: Vec::new() };
        match table.known.holds {
            Holds::History | Holds::Drizzle => table.rows = known::rows(client, &table.known).await?,
            Holds::Lock => {
                table.others = known::other_rows(client, &table.known).await?;
                nobody_at_work(&table)?;
            }
            Holds::Other => table.others = known::other_rows(client, &table.known).await?,
        }
        tables.push(table);
    }
    Ok(tables)
}

/// The other tool's own lock must be free.
fn nobody_at_work(table: &OldTable) -> Result<()> {
    for row in &table.others {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let locked = matches!(text("is_locked"), "t" | "true") || row.get("lock_name").is_some();
        let expires = chrono::DateTime::parse_from_str(&format!("{}00", text("expires_at")), "%Y-%m-%d %H:%M:%S%.f%z");
        let over = expires.is_ok_and(|at| at < crate::clock::now());
        if locked && !over {
            let who = [text("locked_by"), text("acquired_by"), text("process_id"), text("hostname")];
            let who: Vec<&str> = who.into_iter().filter(|text| !text.is_empty()).collect();
            return Err(Error::new(
                crate::error::Kind::Locked,
                format!("`{}` says that its own tool is at work: {}", table.known.label(), who.join(", ")),
            )
            .hint("wait until it has ended; where it is gone, free its lock the way that it does"));
        }
    }
    Ok(())
}

/// Says in the audit log what was taken over; rows that have no place in ours are kept there whole.
async fn keep(client: &Client, table: &OldTable) -> Result<()> {
    let known = &table.known;
    let detail = serde_json::json!({
        "table": known.label(), "owner": known.owner, "rows": table.rows.len() + table.others.len(),
    });
    audit(client, None, "adopt", &detail, None).await?;
    if known.holds == Holds::Lock {
        return Ok(());
    }
    for row in &table.others {
        audit(client, None, &format!("adopted from {}", known.label()), row, None).await?;
    }
    Ok(())
}

/// The tables of other tools that an `adopt` has taken over, as `schema.table`.
pub async fn adopted(client: &Client) -> Result<Vec<String>> {
    // language=SQL
    const ADOPTED: &str = "select distinct detail OPERATOR(pg_catalog.->>) 'table' from ripcord.audit_log
                            where action OPERATOR(pg_catalog.=) 'adopt'";
    let failed = while_doing("the audit log could not be read");
    let rows = client.query(ADOPTED, &[]).await.map_err(&failed)?;
    rows.iter().map(|row| row.try_get::<_, Option<String>>(0).map(Option::unwrap_or_default).map_err(&failed)).collect()
}
