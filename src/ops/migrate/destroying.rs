//! What others wrote to a table, counted before a migration destroys the means of counting it.

use super::super::losses::{self, Ours};
use crate::error::Result;
use crate::journal::Step;
use crate::migration::{Script, Statement, destroyed_schemas, destroyed_tables};
use crate::ops::backup::Taken;
use crate::ops::run::Run;
use crate::postgres::{Session, counts};

/// Table → rows that others wrote to it since the backup.
pub(super) type Counted = Vec<(String, u64)>;

/// Before a statement drops, truncates or rewrites a table, what others wrote to it since the backup is
/// counted under a lock that keeps further writers out: afterwards nobody could know.
pub(super) async fn count_before_destroying(
    run: &mut Run<'_>,
    script: &Script,
    statements: &[Statement],
) -> Result<()> {
    let Some(backup) = &run.backup else { return Ok(()) };
    let counted = count(&run.live.session, backup, &run.ours, script, statements).await?;
    keep(run, counted)
}

/// Counts under the locks that are taken here, in the transaction that is open.
pub(super) async fn count(
    session: &Session,
    backup: &Taken,
    ours: &Ours,
    script: &Script,
    statements: &[Statement],
) -> Result<Counted> {
    let snapshot = &backup.manifest.sealed.snapshot;
    let mut names: Vec<String> =
        statements.iter().flat_map(|statement| destroyed_tables(script.text(statement))).collect();
    for schema in statements.iter().flat_map(|statement| destroyed_schemas(script.text(statement))) {
        names.extend(counts::tables_of_schema(session, &schema).await?);
    }
    names.sort();
    names.dedup();
    let mut written = Counted::new();
    if names.is_empty() {
        return Ok(written);
    }
    let held = losses::rows_by_table(session, &backup.manifest).await?;
    for name in names {
        for (table, count) in counts::lock_and_count(session, &name, snapshot, &ours.xids).await? {
            if ours.counted_before.contains_key(&table) {
                continue;
            }
            let rows_then = held.get(&table).copied().unwrap_or(0);
            let untouched = ours.touched.as_ref().is_some_and(|touched| !touched.contains(&table));
            let gone = if untouched { rows_then.saturating_sub(count.older + count.doubtful) } else { 0 };
            written.push((table, count.newer + count.doubtful + gone));
        }
    }
    Ok(written)
}

/// Writes down what was counted.
pub(super) fn keep(run: &mut Run<'_>, counted: Counted) -> Result<()> {
    for (table, rows) in counted {
        if !run.ours.counted_before.contains_key(&table) {
            run.journal.record(Step::Counted { table: table.clone(), rows })?;
            run.ours.counted_before.insert(table, rows);
        }
    }
    Ok(())
}
