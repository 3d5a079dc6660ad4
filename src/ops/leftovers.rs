//! Before a restore in place: `pg_restore --clean` drops only what the backup holds, so what came after the
//! backup is dropped first, by the statements that pg_dump itself writes for it.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use super::backup::Taken;
use super::context::{Context, Live, blocking};
use super::in_place::Progressed;
use crate::archive::{Inventory, Toc};
use crate::error::{Error, Result};
use crate::postgres::dump::{Dump, DumpOptions};

/// Drops every object that the target has and the backup has not; each that is gone stands in `so_far`.
pub async fn drop_new_objects(ctx: &Context, live: &Live, backup: &Taken, so_far: &Mutex<Progressed>) -> Result<()> {
    let note = |change: &dyn Fn(&mut Progressed)| change(&mut so_far.lock().unwrap_or_else(PoisonError::into_inner));
    let options = DumpOptions {
        encoding: Some(live.session.server_encoding().await?),
        exclude_schemas: ctx.left_out().to_vec(),
        schema_only: true,
        lock_wait: ctx.settings.backup.timeout,
        ..DumpOptions::default()
    };
    let mut dump = Dump::begin(&live.tools, &ctx.target, &options)?;
    let toc = blocking(move || {
        let mut bytes = Vec::new();
        dump.read_to_end(&mut bytes)
            .map_err(|error| Error::failed("reading pg_dump's output failed").because(error))?;
        dump.finish()?;
        Ok(Toc::parse(&bytes)?)
    })
    .await?;
    let difference = backup.manifest.sealed.inventory.compare(&Inventory::of(&toc));
    // In reverse order of creation; what goes with something else is gone already.
    for entry in toc.entries.iter().rev().filter(|entry| !entry.drop_statement.is_empty()) {
        let name = crate::archive::inventory::item_name(entry);
        if !difference.added.contains(&name) {
            continue;
        }
        let statement = entry.drop_statement.as_str().ok_or_else(|| {
            Error::failed(format!("`{name}` came after the backup, and its name is not UTF-8")).hint("drop it by hand")
        })?;
        ctx.progress.note(format!("dropping {name}, which came after the backup"));
        let guarded = if_exists(statement);
        note(&|so_far| so_far.dropping = Some(name.clone()));
        let dropped = live.session.batch(&guarded).await;
        if !dropped.as_ref().is_err_and(Error::connection_lost) {
            note(&|so_far| so_far.dropping = None);
        }
        dropped.map_err(|error| error.context(format!("{name} came after the backup and could not be dropped")))?;
        note(&|so_far| so_far.dropped.push(name.clone()));
    }
    Ok(())
}

/// `DROP TABLE x;` → `DROP TABLE IF EXISTS x CASCADE;`, where the statement has that form.
fn if_exists(statement: &str) -> String {
    let statement = statement.trim().trim_end_matches(';');
    const KINDS: [&str; 12] = [
        "MATERIALIZED VIEW",
        "FOREIGN TABLE",
        "EVENT TRIGGER",
        "TABLE",
        "VIEW",
        "SEQUENCE",
        "INDEX",
        "FUNCTION",
        "PROCEDURE",
        "TYPE",
        "DOMAIN",
        "SCHEMA",
    ];
    for kind in KINDS {
        if let Some(rest) = statement.strip_prefix(&format!("DROP {kind} ")) {
            return format!("DROP {kind} IF EXISTS {rest} CASCADE;");
        }
    }
    format!("{statement};")
}
