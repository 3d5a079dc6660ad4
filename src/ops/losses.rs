//! What a restore would lose: the rows that others wrote after the backup, counted, and whether it may go on.

use super::backup::Taken;
use super::beside::short;
use super::context::Context;
use super::large;
use crate::error::{Error, Kind, Result};
use crate::keys::SubKeys;
use crate::manifest::Manifest;
use crate::postgres::writes::{Counted, LARGE_OBJECTS};
use crate::postgres::{Session, counts};
use crate::settings::Writes;

/// Transactions of the run itself, whose rows are no foreign writes, and what was counted before the run
/// destroyed the means of counting it.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    /// Transaction ids, 64 bits wide.
    pub xids: Vec<u64>,
    /// Tables that the run's own statements may have written to, dropped or rewritten; `None`: any.
    pub touched: Option<Vec<String>>,
    /// Counted under a lock just before the run destroyed it: table → rows written by others by then.
    pub counted_before: std::collections::BTreeMap<String, u64>,
}

/// Counts what others wrote since the backup, in every table.
///
/// In a table that the run did not write to, nothing written means: no row version is newer than the
/// backup's snapshot, and as many are left as the backup holds. In one that it wrote to, rows that others
/// deleted cannot be told from those that the run deleted; where the run was going to destroy a table, what
/// others had written by then was counted under a lock just before.
pub async fn count(session: &Session, manifest: &Manifest, keys: &SubKeys, ours: &Ours) -> Result<Counted> {
    let mut counted = Counted::default();
    if manifest.is_imported() {
        let why = "the backup was imported, and when its rows are from is not known";
        counted.unknowable.push(("every table".to_owned(), why.to_owned()));
        return Ok(counted);
    }
    let mut before = rows_by_table(session, manifest).await?;
    let tables = match counts::all(session, &manifest.sealed.snapshot, &ours.xids).await {
        Ok(tables) => tables,
        Err(error) if error.connection_lost() => return Err(error),
        Err(error) => {
            counted.unknowable.push(("every table".to_owned(), error.one_line()));
            return Ok(counted);
        }
    };
    let left_out: Vec<String> = manifest.sealed.left_out.iter().map(|schema| format!("{schema}.")).collect();
    // What the backup does not hold no restore from it touches.
    for (table, rows) in tables.into_iter().filter(|(table, _)| !left_out.iter().any(|left| table.starts_with(left))) {
        let held = before.remove(&table).unwrap_or(0);
        let known = ours.counted_before.get(&table).copied();
        let rows = match rows {
            Ok(rows) => rows,
            // A role that may not read how old they are can still read what they hold.
            Err(_) if table == LARGE_OBJECTS && large::unchanged(session, manifest, keys).await? => continue,
            Err(reason) => {
                counted.unknowable.push((table, reason));
                continue;
            }
        };
        let touched = ours.touched.as_ref().is_none_or(|touched| touched.contains(&table));
        let gone = if touched { 0 } else { held.saturating_sub(rows.older + rows.doubtful) };
        let written = (rows.newer + gone).max(known.unwrap_or(0));
        if written > 0 {
            counted.tables.push((table.clone(), written));
        }
        if rows.doubtful > 0 && known.is_none() {
            let reason =
                format!("{} of its rows may be of transactions that were in progress at the backup", rows.doubtful);
            counted.unknowable.push((table, reason));
        }
    }
    // What is left of the backup's tables is not there any more.
    for (table, held) in before {
        match ours.counted_before.get(&table) {
            Some(0) => {}
            Some(known) => counted.tables.push((table, *known)),
            // Rows of hash partitions may be named by their root in the backup; a root has none itself.
            None if held == 0 => {}
            None => counted
                .unknowable
                .push((table, "it is gone, and what was written to it before is gone with it".to_owned())),
        }
    }
    Ok(counted)
}

/// Rows of a backup by the table that holds them.
pub async fn rows_by_table(session: &Session, manifest: &Manifest) -> Result<std::collections::BTreeMap<String, u64>> {
    let mut rows = std::collections::BTreeMap::new();
    let encoding = &manifest.sealed.properties.encoding;
    for block in
        manifest.sealed.streams.iter().flat_map(|stream| &stream.index.blocks).filter(|block| !block.large_objects)
    {
        let namespace = counts::decoded(session, encoding, &block.namespace.0).await?;
        let table = counts::decoded(session, encoding, &block.table.0).await?;
        *rows.entry(format!("{namespace}.{table}")).or_default() += block.digest.rows;
    }
    Ok(rows)
}

/// What gives up the writes that others committed since the backup.
pub const GIVE_UP: &str = "--writes accept-loss";

/// Whether a restore may go on with these writes.
pub fn allow(ctx: &Context, counted: &Counted, policy: Writes, backup: &Taken) -> Result<()> {
    let total = counted.total();
    if total == 0 && counted.unknowable.is_empty() {
        return Ok(());
    }
    let told = describe(counted);
    if policy == Writes::AcceptLoss {
        ctx.progress.warn(format!("the restore gives up what was written after the backup: {told}"));
        return Ok(());
    }
    Err(Error::new(
        Kind::NotRecovered,
        format!("a restore would lose what was written after backup `{}`: {told}", backup.id),
    )
    .hint(format!(
        "to give those writes up: ripcord restore {} {GIVE_UP}\n      to keep them and mend forward: ripcord apply",
        short(backup.id)
    )))
}

/// What gets back the writes that a restore gave up, as a further line of its hint.
pub fn salvage_hint(given_up: &Counted, aside: &str) -> Option<String> {
    let any = given_up.total() > 0 || !given_up.unknowable.is_empty();
    any.then(|| format!("\n      for the rows that only `{aside}` has: ripcord salvage --from {aside} -o rows.sql"))
}

/// `12 rows in public.orders, 3 rows in public.users; not knowable in public.old: …`.
pub fn describe(counted: &Counted) -> String {
    let mut parts: Vec<String> = counted
        .tables
        .iter()
        .filter(|(_, rows)| *rows > 0)
        .map(|(table, rows)| format!("{rows} rows in {table}"))
        .collect();
    parts.extend(counted.unknowable.iter().map(|(table, why)| format!("not knowable in {table}: {why}")));
    const MOST: usize = 6;
    if parts.len() > MOST {
        let more = parts.len() - MOST;
        parts.truncate(MOST);
        parts.push(format!("and {more} more tables"));
    }
    parts.join(", ")
}
