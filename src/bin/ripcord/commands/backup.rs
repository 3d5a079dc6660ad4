//! `backup …`: make backups and look after them.

use std::collections::BTreeMap;

use ripcord::control;
use ripcord::error::Kind;
use ripcord::ids::Lineage;
use ripcord::manifest::{IMPORTED, Purpose};
use ripcord::ops::catalog::{self, Item};
use ripcord::ops::export::{self, Destination, Format};
use ripcord::ops::import;
use ripcord::ops::report::Outcome;
use ripcord::ops::verify::{self, Level};
use ripcord::ops::{Context, RunReport, backup, prune, restore, run, upkeep};
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::{
    BackupCommand, BackupCreateArgs, BackupExportArgs, BackupImportArgs, BackupVerifyArgs, ExportFormat, ImportFormat,
};

/// Runs it.
pub async fn run(app: &App, command: BackupCommand) -> Result<Exit> {
    let ctx = app.context().await?;
    match command {
        BackupCommand::Create(args) => create(app, &ctx, args).await,
        BackupCommand::List => list(app, &ctx).await,
        BackupCommand::Show { id } => show(app, &ctx, &id).await,
        BackupCommand::Verify(args) => verify(app, &ctx, args).await,
        BackupCommand::Pin { id } => pin(app, &ctx, &id, true).await,
        BackupCommand::Unpin { id } => pin(app, &ctx, &id, false).await,
        BackupCommand::Delete { id } => delete(app, &ctx, &id).await,
        BackupCommand::Export(args) => export(app, &ctx, args).await,
        BackupCommand::Import(args) => import(app, &ctx, args).await,
    }
}

async fn create(app: &App, ctx: &Context, args: BackupCreateArgs) -> Result<Exit> {
    if args.tags.iter().any(|tag| tag == IMPORTED) {
        return Err(Error::usage(format!(
            "the tag `{IMPORTED}` is for dumps from elsewhere: `latest` leaves them out"
        ))
        .hint("take another word, or: ripcord backup import FILE"));
    }
    let (taken, lineage) = upkeep::create_backup(ctx, Purpose::from(args.purpose), args.tags).await?;
    let mut report = RunReport::new("backup create", Outcome::Done, "unchanged");
    report.backup_id = Some(taken.id);
    report.proof = serde_json::json!({
        "location": taken.location,
        "raw_bytes": taken.manifest.clear.raw_bytes,
        "stored_bytes": taken.manifest.clear.stored_bytes,
        "duration_ms": taken.duration.as_millis() as u64,
    });
    app.out.data(&taken.id.to_string());
    if args.prune {
        // Only now: nothing goes before there is a new one.
        let plan = prune::plan(ctx, lineage).await?;
        prune::execute(ctx, lineage, &plan).await?;
    }
    app.out.report(&report);
    Ok(Exit::DONE)
}

/// Whose backups, and what the database's history knows of them. A database that does not answer takes
/// nothing away from what the store has.
async fn known(ctx: &Context) -> Result<(Lineage, Vec<control::BackupRow>)> {
    match ctx.connect("backups").await {
        Ok(session) => {
            let lineage = restore::find_lineage(ctx, Some(&session), None).await?;
            let rows = match ripcord::ops::context::lineage_of(&session).await {
                Ok(Some(_)) => control::backups(session.client()).await?,
                _ => Vec::new(),
            };
            Ok((lineage, rows))
        }
        Err(error) => {
            ctx.progress.warn(format!("without the database's own history: {error}"));
            Ok((restore::find_lineage(ctx, None, None).await?, Vec::new()))
        }
    }
}

async fn items(ctx: &Context) -> Result<(Lineage, Vec<Item>)> {
    let (lineage, rows) = known(ctx).await?;
    // Without a key the journals cannot be read, and the list is only less complete.
    let needed = if ctx.keys.is_ok() { run::needed_backups(ctx, lineage).await? } else { BTreeMap::new() };
    Ok((lineage, catalog::list(ctx, lineage, &rows, &needed).await?))
}

async fn list(app: &App, ctx: &Context) -> Result<Exit> {
    let items = match items(ctx).await {
        Ok((_, items)) => items,
        // A store without backups is an empty list.
        Err(error) if error.kind() == Kind::Failed && error.message().contains("has no backup of") => Vec::new(),
        Err(error) => return Err(error),
    };
    app.out.list("backup list", &items, HEADINGS, &items.iter().map(row).collect::<Vec<_>>());
    Ok(Exit::DONE)
}

const HEADINGS: &[&str] = &["id", "created", "purpose", "status", "size", "stored", "kept because"];

fn row(item: &Item) -> Vec<String> {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), backup::bytes);
    let mut kept = item.keep_reason.clone().unwrap_or_else(|| "goes with the next prune".to_owned());
    if !matches!(item.status.as_str(), "verified" | "complete" | "damaged") {
        kept = item.error.clone().unwrap_or_default();
    } else if let Some(error) = &item.error {
        kept = format!("{error}; {kept}");
    }
    vec![
        item.id.to_string(),
        item.created_at.format("%Y-%m-%d %H:%M:%S").to_string(),
        if item.tags.iter().any(|tag| tag == IMPORTED) { IMPORTED.to_owned() } else { item.purpose.clone() },
        item.status.clone(),
        size(item.raw_bytes),
        size(item.stored_bytes),
        kept,
    ]
}

async fn show(app: &App, ctx: &Context, id: &str) -> Result<Exit> {
    let (lineage, items) = items(ctx).await?;
    let id = catalog::resolve(ctx, lineage, id).await?;
    let item =
        items.into_iter().find(|item| item.id == id).ok_or_else(|| Error::failed(format!("backup `{id}` is gone")))?;
    let mut value =
        serde_json::to_value(&item).map_err(|error| Error::failed("the backup cannot be shown").because(error))?;
    if ctx.keys.is_ok() {
        let (manifest, _) = backup::open_manifest(ctx, lineage, id).await?;
        let sealed = &manifest.sealed;
        value["sealed"] = serde_json::json!({
            "before": sealed.before, "server_version": sealed.server_version, "tool_version": sealed.tool_version,
            "applied": sealed.applied, "extensions": sealed.extensions, "large_objects": sealed.large_objects,
            "fingerprint": sealed.fingerprint, "snapshot": sealed.snapshot, "wal_lsn": sealed.wal_lsn,
            "streams": sealed.streams.iter()
                .map(|stream| serde_json::json!({ "number": stream.number, "raw_bytes": stream.index.raw_bytes, "stored_bytes": stream.stored_bytes }))
                .collect::<Vec<_>>(),
            "sequences": sealed.sequences,
            "tables": sealed.streams.iter().flat_map(|stream| &stream.index.blocks).filter(|block| !block.large_objects)
                .map(|block| serde_json::json!({ "table": format!("{}.{}", block.namespace.lossy(), block.table.lossy()), "rows": block.digest.rows, "bytes": block.data_bytes }))
                .collect::<Vec<_>>(),
        });
    }
    let text = serde_json::to_string_pretty(&value)
        .map_err(|error| Error::failed("the backup cannot be shown").because(error))?;
    app.out.data(&text);
    app.out.items("backup show", Outcome::Done, &[value]);
    Ok(Exit::DONE)
}

async fn verify(app: &App, ctx: &Context, args: BackupVerifyArgs) -> Result<Exit> {
    ctx.keys()?;
    let level = Level::from(args.level);
    let (lineage, items) = items(ctx).await?;
    let wanted: Vec<Item> =
        items.into_iter().filter(|item| matches!(item.status.as_str(), "verified" | "complete" | "damaged")).collect();
    let ids = match (&args.id, args.sample) {
        (Some(id), _) => vec![catalog::resolve(ctx, lineage, id).await?],
        (None, Some(_)) if level == Level::Manifest => {
            return Err(Error::usage("a sample of manifests would never move on: reading them leaves no mark")
                .hint("ripcord backup verify --all --level manifest"));
        }
        (None, Some(percent)) => verify::sample(ctx, lineage, &wanted, level, percent).await?,
        (None, None) => wanted.iter().map(|item| item.id).collect(),
    };
    let found = verify::run(ctx, lineage, &ids, level).await?;
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|one| vec![one.id.to_string(), one.status.replace('_', " "), one.error.clone().unwrap_or_default()])
        .collect();
    // Damage before anything else that stood in the way.
    let failure = |status: &str| found.iter().find(|one| one.status == status).and_then(|one| one.failure.clone());
    match failure("damaged").or_else(|| failure("not_verified")) {
        None => {
            app.out.list("backup verify", &found, &["id", "status", ""], &rows);
            Ok(Exit::DONE)
        }
        Some(error) => {
            for line in &rows {
                app.out.say(&line.join("  "));
            }
            app.out.failed_list("backup verify", &error, &found);
            Ok(Exit(error.kind().exit_code()))
        }
    }
}

async fn pin(app: &App, ctx: &Context, id: &str, pinned: bool) -> Result<Exit> {
    let (lineage, _) = known(ctx).await?;
    let id = catalog::resolve(ctx, lineage, id).await?;
    upkeep::set_pinned(ctx, lineage, id, pinned).await?;
    app.out.say(&format!("backup `{id}` is {}", if pinned { "pinned" } else { "no longer pinned" }));
    let mut report = RunReport::new(if pinned { "backup pin" } else { "backup unpin" }, Outcome::Done, "unchanged");
    report.backup_id = Some(id);
    app.out.report(&report);
    Ok(Exit::DONE)
}

async fn delete(app: &App, ctx: &Context, id: &str) -> Result<Exit> {
    ctx.keys()?;
    let (lineage, rows) = known(ctx).await?;
    let id = match catalog::resolve(ctx, lineage, id).await {
        // The store lost it, and the history still counts on it: the row can be closed.
        Err(error) => match rows.iter().filter(|row| row.id.to_string().starts_with(id)).collect::<Vec<_>>()[..] {
            [row] if row.status != "deleted" && id.len() >= 8 => row.id,
            _ => return Err(error),
        },
        found => found?,
    };
    if app.resolved.dry_run {
        app.out.say(&format!("would delete backup `{id}`"));
        return Ok(Exit::DONE);
    }
    prune::delete_one(ctx, lineage, id).await?;
    let mut report = RunReport::new("backup delete", Outcome::Done, "unchanged");
    report.backup_id = Some(id);
    app.out.report(&report);
    Ok(Exit::DONE)
}

async fn export(app: &App, ctx: &Context, args: BackupExportArgs) -> Result<Exit> {
    let file = (args.output.as_os_str() != "-").then_some(args.output);
    if file.is_none() && app.out.style().json {
        return Err(Error::usage("`--json` and the export would both go to standard output")
            .hint("name a file after `-o`, or leave `--json` out"));
    }
    let format = match args.format {
        ExportFormat::Custom => Format::Custom,
        ExportFormat::Sql => Format::Sql,
    };
    if args.restrict_key.is_some() && format == Format::Custom {
        return Err(Error::usage("`--restrict-key` is for SQL").hint("add `--format sql`"));
    }
    ctx.keys()?;
    let lineage = match &args.from_database {
        Some(name) => restore::find_lineage(ctx, None, Some(name)).await?,
        None => known(ctx).await?.0,
    };
    let id = catalog::resolve(ctx, lineage, &args.id).await?;
    let to = match file {
        Some(path) => Destination::File { path, force: args.force },
        None => Destination::Pipe(Box::new(std::io::stdout())),
    };
    let request = export::Request { format, to, restrict_key: args.restrict_key };
    let exported = export::export(ctx, lineage, id, request).await?;
    if let Some(file) = &exported.file {
        app.out.warn(&format!("`{}` is not encrypted: whoever may read it reads the whole database", file.display()));
    }
    let mut report = RunReport::new("backup export", Outcome::Done, "unchanged");
    report.backup_id = Some(id);
    report.hint = exported.file.as_ref().map(|file| how_to_load(format, file));
    report.proof = serde_json::json!(exported);
    app.out.report(&report);
    Ok(Exit::DONE)
}

fn how_to_load(format: Format, file: &std::path::Path) -> String {
    let file = file.display();
    match format {
        Format::Custom => format!("pg_restore --exit-on-error --jobs=4 --dbname=NEW_DATABASE '{file}'"),
        Format::Sql => format!("psql -X -v ON_ERROR_STOP=1 --dbname=NEW_DATABASE --file='{file}'"),
    }
}

async fn import(app: &App, ctx: &Context, args: BackupImportArgs) -> Result<Exit> {
    let format = args.format.map(|format| match format {
        ImportFormat::Custom => import::Format::Custom,
        ImportFormat::Directory => import::Format::Directory,
        ImportFormat::Tar => import::Format::Tar,
        ImportFormat::Sql => import::Format::Sql,
        ImportFormat::SqlGz => import::Format::SqlGz,
    });
    let request = import::Request { file: args.file, format, tags: args.tags, no_owner: args.no_owner };
    let (taken, format) = import::import(ctx, &request).await?;
    app.out.data(&taken.id.to_string());
    let mut report = RunReport::new("backup import", Outcome::Done, "unchanged");
    report.backup_id = Some(taken.id);
    report.hint = Some(format!("ripcord restore {} --into NAME", ripcord::ops::beside::short(taken.id)));
    report.proof = serde_json::json!({
        "location": taken.location,
        "format": format,
        "rows": ripcord::ops::beside::total_rows(&taken.manifest),
        "raw_bytes": taken.manifest.clear.raw_bytes,
        "stored_bytes": taken.manifest.clear.stored_bytes,
        "applied": taken.manifest.sealed.applied.len(),
    });
    app.out.report(&report);
    Ok(Exit::DONE)
}
