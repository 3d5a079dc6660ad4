//! What others wrote to a table, counted before a migration destroys the means of counting it.

use super::super::losses;
use crate::error::Result;
use crate::journal::Step;
use crate::migration::{Script, Statement, destroyed_schemas, destroyed_tables};
use crate::ops::run::Run;
use crate::postgres::counts;

/// Before a statement drops, truncates or rewrites a table, what others wrote to it since the backup is
/// counted under a lock that keeps further writers out: afterwards nobody could know.
pub(super) async fn count_before_destroying(
    run: &mut Run<'_>,
    script: &Script,
    statements: &[Statement],
) -> Result<()> {
    let Some(backup) = run.backup.clone() else { return Ok(()) };
    let snapshot = backup.manifest.sealed.snapshot.clone();
    let mut names: Vec<String> =
        statements.iter().flat_map(|statement| destroyed_tables(script.text(statement))).collect();
    for schema in statements.iter().flat_map(|statement| destroyed_schemas(script.text(statement))) {
        names.extend(counts::tables_of_schema(&run.live.session, &schema).await?);
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    let held = losses::rows_by_table(&run.live.session, &backup.manifest).await?;
    for name in names {
        let counted = counts::lock_and_count(&run.live.session, &name, &snapshot, &run.ours.xids).await?;
        for (table, count) in counted {
            if run.ours.counted_before.contains_key(&table) {
                continue;
            }
            let rows_then = held.get(&table).copied().unwrap_or(0);
            let untouched = run.ours.touched.as_ref().is_some_and(|touched| !touched.contains(&table));
            let gone = if untouched { rows_then.saturating_sub(count.older + count.doubtful) } else { 0 };
            let written = count.newer + count.doubtful + gone;
            run.journal.record(Step::Counted { table: table.clone(), rows: written })?;
            run.ours.counted_before.insert(table, written);
        }
    }
    Ok(())
}
