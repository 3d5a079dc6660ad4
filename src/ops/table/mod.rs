//! `restore --table`: single tables of a backup, into a new database or beside the living ones.
//!
//! Only the frames of those tables are opened, each authenticated by itself, and the rows that come out of them must be
//! the manifest's by count and digest. What they hold becomes visible last: a new database gets its name when COPY has
//! counted as many; a copy beside the living table, among types that may have changed since, is committed when its rows
//! were read back. The living table is never touched.

mod beside;
mod frames;
mod into;
mod pick;

use std::sync::Arc;

use serde::Serialize;

use self::frames::{Block, Frames, TableSource, frames_of};
use self::pick::{Picked, Tables};
use super::backup;
use super::context::Context;
use super::report::{Outcome, RunReport};
use super::restore::{self, Request};
use crate::archive::{Text, Toc};
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage};
use crate::manifest::Manifest;
use crate::migration::dumped;
use crate::postgres::load::{self, LoadPlan, TableLoad};
use crate::postgres::{Session, counts, guard, quote};

/// PostgreSQL cuts longer names, in bytes.
const MOST_NAME_BYTES: usize = 63;

/// What a restore of single tables would do.
#[derive(Serialize)]
pub struct Planned {
    /// The backup.
    pub backup: BackupId,
    /// Whose.
    pub lineage: Lineage,
    /// When its snapshot was taken.
    pub created_at: crate::clock::Time,
    /// Its age.
    pub age_seconds: i64,
    /// Why it was made.
    pub purpose: String,
    /// The new database; `None`: beside the living tables.
    pub into: Option<String>,
    /// The database that the tables come into.
    pub database: String,
    /// The tables.
    pub tables: Vec<PlannedTable>,
    /// Tables that come without rows, because those asked for stand on them.
    pub definitions_only: Vec<String>,
    /// What belongs to the tables and does not come.
    pub left_out: Vec<String>,
    /// Frames that the tables' rows stand in.
    pub frames_of_tables: u64,
    #[serde(skip)]
    manifest: Arc<Manifest>,
    #[serde(skip)]
    frames: Arc<Frames>,
    #[serde(skip)]
    contents: Vec<u8>,
    #[serde(skip)]
    toc: Toc,
    #[serde(skip)]
    chosen: load::Selection,
}

/// One table of it.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTable {
    /// `schema.table`.
    pub table: String,
    /// Where its rows go, as SQL writes it.
    pub becomes: String,
    /// Rows in the backup, its partitions' too.
    pub rows: u64,
    /// Their bytes as text.
    pub bytes: u64,
    /// Partitions whose rows are among them.
    pub partitions: usize,
    #[serde(skip)]
    picked: Picked,
    #[serde(skip)]
    parts: Vec<Part>,
}

/// A data block of a table, its names in UTF-8.
#[derive(Clone, Debug)]
struct Part {
    block: Block,
    /// `schema.table` of the partition or of the table itself.
    name: String,
    /// The relation that its COPY statement names, as written.
    relation: String,
    /// The columns, in parentheses.
    columns: String,
}

impl Planned {
    /// What a person should know, one line each.
    pub fn lines(&self) -> Vec<String> {
        let created = self.created_at.format("%Y-%m-%d %H:%M:%S UTC");
        let age = restore::age(self.age_seconds);
        let mut lines = vec![format!("backup `{}`, {created} ({age} old), {}", self.backup, self.purpose)];
        for table in &self.tables {
            let partitions = match table.partitions {
                0 => String::new(),
                many => format!(" of {many} partitions"),
            };
            lines.push(format!(
                "`{}`, {} rows{partitions}, {}, becomes `{}` in the {} `{}`",
                table.table,
                table.rows,
                backup::bytes(table.bytes),
                table.becomes,
                if self.into.is_some() { "new database" } else { "database" },
                self.database
            ));
        }
        if self.into.is_none() {
            lines.push(
                "the copy has the columns, the rows and the primary key; no default, no other constraint or index"
                    .to_owned(),
            );
        }
        for (what, names) in
            [("without rows, since they are needed", &self.definitions_only), ("left out", &self.left_out)]
        {
            if !names.is_empty() {
                lines.push(format!("{what}: {}", some(names)));
            }
        }
        lines
    }

    /// The plan for these tables: under the relation that `rename` gives, when it gives one.
    fn load_plan(&self, ctx: &Context, rename: impl Fn(&PlannedTable) -> Option<String>) -> LoadPlan {
        let encoding = self.encoding();
        let (mut tables, mut blocks) = (Vec::new(), Vec::new());
        for table in &self.tables {
            let renamed = rename(table);
            for part in &table.parts {
                let relation = renamed.as_ref().unwrap_or(&part.relation);
                let options = match encoding.as_str() {
                    "UTF8" => String::new(),
                    // The rows are written in the database's encoding, and our sessions speak UTF-8.
                    other => format!(" WITH (ENCODING {})", quote::literal(other)),
                };
                // language=SQL
                let statement = format!("COPY {relation} {} FROM stdin{options}", part.columns);
                tables.push(TableLoad {
                    block: blocks.len(),
                    table: part.name.clone(),
                    copy_statement: statement.into_bytes(),
                    rows: part.block.entry.digest.rows,
                    bytes: part.block.entry.data_bytes,
                });
                blocks.push(part.block.clone());
            }
        }
        let total_bytes = tables.iter().map(|table| table.bytes).sum();
        let source = TableSource::new(self.frames.clone(), self.contents.clone(), blocks);
        LoadPlan {
            source: Arc::new(source),
            tables,
            encoding,
            jobs: super::source::restore_jobs(ctx.settings.backup.jobs),
            role: None,
            total_bytes,
        }
    }

    fn encoding(&self) -> String {
        self.toc.encoding().unwrap_or_else(|| self.manifest.sealed.properties.encoding.clone())
    }

    fn all_tables(&self) -> String {
        some(&self.tables.iter().map(|table| format!("`{}`", table.table)).collect::<Vec<_>>())
    }

    fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

fn some(names: &[String]) -> String {
    const MOST: usize = 6;
    let more = names.len().saturating_sub(MOST);
    let mut text = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Finds the backup and the tables in it. Opens the manifest and the frames of the table of contents; writes nothing.
pub async fn plan(ctx: &Context, request: &Request, asked: &[String]) -> Result<Planned> {
    let (session, lineage, id) = restore::find_backup(ctx, request).await?;
    if session.is_none() && request.into.is_none() {
        return Err(Error::failed(format!("there is no database `{}` to put a table beside", ctx.target.database()))
            .hint("restore it into a new database: --into NAME"));
    }
    let (manifest, keys) = backup::open_manifest(ctx, lineage, id).await?;
    let frames = Frames::open(ctx, &manifest, &keys).await?;
    let contents = {
        let frames = frames.clone();
        super::context::blocking(move || frames.contents()).await?
    };
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    let toc = readable(&maintenance, Toc::parse(&contents)?, &manifest.sealed.properties.encoding).await?;

    let tables = Tables::of(&toc);
    let asked = asked.iter().map(|typed| tables.find(typed)).collect::<Result<Vec<i32>>>()?;
    let picked = tables.pick(&asked);
    let mut parts = parts_of(&maintenance, &frames, &manifest).await?;
    let mut planned = Vec::with_capacity(picked.len());
    for picked in &picked {
        planned.push(planned_table(&tables, picked, request.into.is_some(), id, &mut parts)?);
    }
    refuse_same_names(&planned)?;
    let chosen = tables.choose(&picked);
    let (definitions_only, left_out) = match request.into {
        Some(_) => (chosen.definitions_only, chosen.left_out),
        None => (Vec::new(), beside::left_out(&tables, &picked)),
    };
    let frames_of_tables = frames_of(planned.iter().flat_map(|table| table.parts.iter().map(|part| &part.block)));
    Ok(Planned {
        backup: id,
        lineage,
        created_at: manifest.sealed.created_at,
        age_seconds: (crate::clock::now() - manifest.sealed.created_at).num_seconds(),
        purpose: manifest.clear.purpose.as_str().to_owned(),
        into: request.into.clone(),
        database: request.into.clone().unwrap_or_else(|| ctx.target.database().to_owned()),
        tables: planned,
        definitions_only,
        left_out,
        frames_of_tables,
        manifest: Arc::new(manifest),
        frames,
        contents,
        chosen: chosen.selection,
        toc,
    })
}

/// Every text of the table of contents in UTF-8, which our sessions speak.
async fn readable(session: &Session, mut toc: Toc, encoding: &str) -> Result<Toc> {
    for entry in &mut toc.entries {
        for text in [&mut entry.namespace, &mut entry.tag, &mut entry.owner, &mut entry.definition] {
            if !text.0.is_ascii() {
                *text = Text(counts::decoded(session, encoding, &text.0).await?.into_bytes());
            }
        }
    }
    Ok(toc)
}

/// The data blocks of tables, each with the names that it is known by.
async fn parts_of(session: &Session, frames: &Arc<Frames>, manifest: &Manifest) -> Result<Vec<Part>> {
    let encoding = &manifest.sealed.properties.encoding;
    let mut parts = Vec::new();
    for block in frames.blocks().filter(|block| !block.entry.large_objects) {
        let namespace = counts::decoded(session, encoding, &block.entry.namespace.0).await?;
        let table = counts::decoded(session, encoding, &block.entry.table.0).await?;
        let statement = counts::decoded(session, encoding, &block.entry.copy_statement.0).await?;
        let name = format!("{namespace}.{table}");
        let text = dumped::copy(&statement)
            .ok_or_else(|| Error::verification(format!("the COPY statement of `{name}` is not one of pg_dump's")))?;
        let (relation, columns) = (text.relation.to_owned(), text.columns.to_owned());
        parts.push(Part { block, name, relation, columns });
    }
    Ok(parts)
}

fn planned_table(
    tables: &Tables<'_>,
    picked: &Picked,
    into_new: bool,
    id: BackupId,
    all: &mut Vec<Part>,
) -> Result<PlannedTable> {
    let name = tables.name(picked.table);
    let Some(entry) = tables.entry(picked.table) else {
        return Err(Error::verification(format!("table `{name}` has no definition")));
    };
    let names: Vec<String> = picked.parts.iter().map(|part| tables.name(*part)).collect();
    let parts: Vec<Part> = all.extract_if(.., |part| names.contains(&part.name)).collect();
    let table = match into_new {
        true => entry.tag.lossy(),
        false => restored_name(&entry.tag.lossy(), id),
    };
    Ok(PlannedTable {
        table: name,
        becomes: format!("{}.{}", quote::ident(&entry.namespace.lossy()), quote::ident(&table)),
        rows: parts.iter().map(|part| part.block.entry.digest.rows).sum(),
        bytes: parts.iter().map(|part| part.block.entry.data_bytes).sum(),
        partitions: names.len() - 1,
        picked: picked.clone(),
        parts,
    })
}

/// `orders_restored_` and the time in the backup's id, within the length of a name.
fn restored_name(table: &str, id: BackupId) -> String {
    let time: String = id.to_string().chars().filter(char::is_ascii_hexdigit).take(12).collect();
    let end = format!("_restored_{time}");
    let mut kept = table;
    while kept.len() + end.len() > MOST_NAME_BYTES {
        kept = kept.char_indices().next_back().and_then(|(at, _)| kept.get(..at)).unwrap_or_default();
    }
    format!("{kept}{end}")
}

/// Names that were cut may be the same.
fn refuse_same_names(tables: &[PlannedTable]) -> Result<()> {
    for (at, table) in tables.iter().enumerate() {
        if let Some(other) = tables.iter().take(at).find(|other| other.becomes == table.becomes) {
            return Err(Error::usage(format!(
                "`{}` and `{}` would both become `{}`",
                other.table, table.table, table.becomes
            ))
            .hint("restore them one after the other, or with `--into NAME`"));
        }
    }
    Ok(())
}

/// Restores what was planned. The report says how it ended.
pub async fn execute(ctx: &Context, planned: &Planned) -> RunReport {
    let result = match &planned.into {
        Some(name) => into::restore(ctx, planned, name).await,
        None => beside::restore(ctx, planned).await,
    };
    match result {
        Ok(()) => {
            let mut report = RunReport::new("restore", Outcome::Done, what_was_done(planned));
            report.backup_id = Some(planned.backup);
            report.hint = Some(planned.look());
            report.proof = serde_json::json!({
                // What a restore of everything proves, too.
                "kind": if planned.into.is_some() { "restore" } else { "digests" },
                "holds": true,
                "rows_compared": planned.rows(),
                "tables": planned.tables,
                "definitions_only": planned.definitions_only,
                "left_out": planned.left_out,
                "frames_of_tables": planned.frames_of_tables,
                "frames_opened": planned.frames.opened(),
            });
            report
        }
        Err(error) => RunReport { backup_id: Some(planned.backup), ..RunReport::untouched("restore", error) },
    }
}

fn too_long(ctx: &Context) -> Error {
    let limit = ctx.settings.timeouts.restore.as_secs();
    Error::failed(format!("restoring single tables took longer than the limit of {limit}s"))
        .hint("raise `restore` under `[timeouts]` in ripcord.toml")
}

fn what_was_done(planned: &Planned) -> String {
    let (rows, tables, backup) = (planned.rows(), planned.all_tables(), planned.backup);
    match (&planned.into, planned.tables.as_slice()) {
        (Some(name), _) => format!("`{name}` holds {tables}, {rows} rows, from backup `{backup}`"),
        (None, [one]) => format!("`{}` holds {rows} rows of {tables} from backup `{backup}`", one.becomes),
        (None, many) => {
            let names = some(&many.iter().map(|table| format!("`{}`", table.becomes)).collect::<Vec<_>>());
            format!("{names} hold {rows} rows of {tables} from backup `{backup}`")
        }
    }
}

impl Planned {
    /// Where to go on.
    fn look(&self) -> String {
        match (&self.into, self.tables.first()) {
            (None, Some(one)) => format!("look: psql -d {} -c 'TABLE {} LIMIT 10'", self.database, one.becomes),
            _ => format!("look: psql -d {}", self.database),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restored_names_fit() {
        let id: BackupId = "01a1fc25-0240-7238-9ee9-3509ab58c42d".parse().unwrap();
        assert_eq!(restored_name("orders", id), "orders_restored_01a1fc250240");
        for long in ["x".repeat(63), "ä".repeat(31), "日".repeat(21)] {
            let name = restored_name(&long, id);
            assert!(name.len() <= MOST_NAME_BYTES && name.len() > MOST_NAME_BYTES - 4, "{name}");
            assert!(name.ends_with("_restored_01a1fc250240"), "{name}");
        }
    }
}
