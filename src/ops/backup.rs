//! Taking a backup: pg_dump streamed into the store, read back, and only then committed.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::{Context, Live, TOOL_VERSION, blocking};
use super::dumping::{self, Stored};
use crate::archive::{self, Index, Inventory, StreamId, inventory};
use crate::clock::{self, Time};
use crate::control::{self, BackupRow};
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::keys::{DataKey, SubKeys};
use crate::manifest::{self, Clear, Manifest, Purpose, Sealed, StreamRecord};
use crate::postgres::supabase::LeftOut;
use crate::progress::{Event, Progress};
use crate::store::{Mark, Store};

/// Why this backup is taken.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its purpose.
    pub purpose: Purpose,
    /// The run that it belongs to.
    pub run: Option<RunId>,
    /// Tags to give it.
    pub tags: Vec<String>,
    /// The migrations that will run after it, `version_name`.
    pub before: Vec<String>,
    /// What the database is made with, when it was read already: before a fence, whose own setting
    /// must not be backed up.
    pub properties: Option<manifest::DatabaseProperties>,
}

/// A committed backup, with the keys that open it.
#[derive(Clone)]
pub struct Taken {
    /// Which one.
    pub id: BackupId,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// Its subkeys.
    pub keys: SubKeys,
    /// Where it is.
    pub location: String,
    /// How long it took, read-back included.
    pub duration: Duration,
}

/// Takes a backup of the live target. On failure nothing of it is left but a row that says so.
pub async fn take(ctx: &Context, live: &Live, request: &Request) -> Result<Taken> {
    let began = Instant::now();
    let started_at = clock::now();
    let id = BackupId::new();
    let keys = ctx.keys()?.clone();
    ctx.store.objects().check_writable()?;

    // A row first, so that a backup that fails is not silent.
    let mut row = row_at_start(ctx, live, request, id, started_at);
    control::put_backup(live.session.client(), &row).await?;
    if let Some(told) = ctx.left_out.get().and_then(LeftOut::tell) {
        ctx.progress.note(told);
    }
    ctx.progress.began("backup", format!("dumping `{}` to {}", ctx.target.database(), row.location));

    let made = match make(ctx, live, request, id, &keys).await {
        Ok(made) => made,
        Err(error) => {
            row.status = "failed".to_owned();
            row.error = Some((ctx.hide)(&error.one_line()));
            row.finished_at = Some(clock::now());
            // The failure that matters is the first one; these are attempts to leave things tidy.
            let store = ctx.store.clone();
            let lineage = live.lineage;
            if let Err(left) = blocking(move || store.delete_backup(lineage, id)).await {
                ctx.progress.warn(format!("what there was of backup `{id}` could not be removed: {left}"));
            }
            if let Err(lost) = control::put_backup(live.session.client(), &row).await {
                ctx.progress.warn(format!("the failed backup could not be recorded: {lost}"));
            }
            return Err(error.context("the backup failed"));
        }
    };

    let (manifest, subkeys) = made;
    row.status = "verified".to_owned();
    row.finished_at = Some(manifest.sealed.finished_at);
    row.verified_at = row.finished_at;
    row.raw_bytes = i64::try_from(manifest.clear.raw_bytes).ok();
    row.stored_bytes = i64::try_from(manifest.clear.stored_bytes).ok();
    row.digest = manifest.sealed.streams.first().map(|stream| stream.sha256.clone());
    control::put_backup(live.session.client(), &row).await?;
    let taken =
        Taken { id, manifest: Arc::new(manifest), keys: subkeys, location: row.location, duration: began.elapsed() };
    ctx.progress.finished(
        "backup",
        format!(
            "backup `{id}`: {} dumped, {} stored, read back and authenticated",
            bytes(taken.manifest.clear.raw_bytes),
            bytes(taken.manifest.clear.stored_bytes)
        ),
    );
    Ok(taken)
}

/// The order is invariant 2: dump ended well → stream finished and synced → dropped from the cache, read
/// back and authenticated → manifest.
async fn make(
    ctx: &Context,
    live: &Live,
    request: &Request,
    id: BackupId,
    keys: &crate::keys::KeyRing,
) -> Result<(Manifest, SubKeys)> {
    let data_key = DataKey::generate();
    let subkeys = data_key.subkeys();
    let at = dumping::open_snapshot(ctx, live.maintenance()).await?;
    ctx.faults.at("backup_snapshot").await;

    let stored = dumping::dump_to_store(ctx, live, &at, id, &subkeys).await;
    // The session that exported the snapshot ends before anything else begins: CREATE INDEX CONCURRENTLY
    // would wait for it for ever.
    at.session.close().await;
    let Stored { toc, streams } = stored?;
    ctx.faults.at("backup_stored").await;

    for stream in &streams {
        let of = StreamId { lineage: live.lineage, backup: id, stream: stream.number };
        read_back(ctx, of, &subkeys, stream).await?;
    }
    ctx.faults.at("backup_read_back").await;

    let clear = Clear {
        format: archive::FORMAT,
        kind: "dump".to_owned(),
        lineage: live.lineage,
        backup: id,
        purpose: request.purpose,
        database: ctx.database().to_owned(),
        created_at: at.created_at,
        raw_bytes: streams.iter().map(|stream| stream.index.raw_bytes).sum(),
        stored_bytes: streams.iter().map(|stream| stream.stored_bytes).sum(),
    };
    let wraps: Vec<_> = keys.keys().iter().map(|key| key.wrap(id, &data_key)).collect();
    let inventory = Inventory::of(&toc);
    let sealed = Sealed {
        lineage: live.lineage,
        backup: id,
        created_at: at.created_at,
        finished_at: clock::now(),
        run: request.run,
        before: request.before.clone(),
        server_version: at.server_version,
        tool_version: live.tools.version.clone(),
        ripcord_version: TOOL_VERSION.to_owned(),
        large_objects: streams
            .iter()
            .flat_map(|stream| &stream.index.blocks)
            .filter(|block| block.large_objects)
            .map(|block| block.digest.rows)
            .sum(),
        sequences: inventory::sequence_values(&toc),
        streams,
        properties: request.properties.clone().unwrap_or(at.properties),
        extensions: at.extensions,
        applied: at.applied,
        control_rows: at.control_rows,
        fingerprint: inventory.fingerprint(),
        inventory,
        catalog_extras: at.extras,
        snapshot: at.snapshot,
        wal_lsn: at.wal_lsn,
        tags: request.tags.clone(),
        left_out: ctx.would_stay_behind().to_vec(),
    };
    let bytes = manifest::encode(&clear, &wraps, &sealed, &subkeys)?;
    let store = ctx.store.clone();
    let lineage = live.lineage;
    blocking(move || {
        store.commit_manifest(lineage, id, &bytes)?;
        // What `latest` goes by is the manifest; the mark only remembers when it was read back last.
        store.mark(lineage, id, &Mark::Verified { at: clock::now(), level: "archive".to_owned() })
    })
    .await?;
    ctx.faults.at("backup_committed").await;
    Ok((Manifest { clear, wraps, sealed }, subkeys))
}

fn row_at_start(ctx: &Context, live: &Live, request: &Request, id: BackupId, started_at: Time) -> BackupRow {
    BackupRow {
        id,
        run: request.run,
        database: ctx.database().to_owned(),
        purpose: request.purpose.as_str().to_owned(),
        server_version: live.findings.server_version.clone(),
        tool_version: live.tools.version.clone(),
        started_at,
        finished_at: None,
        raw_bytes: None,
        stored_bytes: None,
        compression: format!("zstd-{}", ctx.settings.backup.compression_level),
        key_ids: ctx.keys.iter().flat_map(|ring| ring.keys()).map(|key| key.id().0).collect(),
        digest: None,
        status: "running".to_owned(),
        error: None,
        verified_at: None,
        drilled_at: None,
        pinned: false,
        deleted_at: None,
        location: ctx.store.backup_location(live.lineage, id),
    }
}

/// Reads a stream from the store again and authenticates every frame of it.
async fn read_back(ctx: &Context, stream: StreamId, keys: &SubKeys, stored: &StreamRecord) -> Result<()> {
    let store = ctx.store.clone();
    let keys = keys.clone();
    let index = stored.index.clone();
    let progress = ctx.progress.clone();
    blocking(move || {
        store.drop_stream_cache(stream.lineage, stream.backup, stream.stream)?;
        authenticate_stream(&store, stream, &keys, &index, &progress, index.raw_bytes, "read_back")
    })
    .await
    .map_err(|error| error.context("the backup could not be read back as it was written"))
}

/// Authenticates one stream of a backup in the store; its frames are decompressed by whoever loads them.
fn authenticate_stream(
    store: &Store,
    stream: StreamId,
    keys: &SubKeys,
    index: &Index,
    progress: &Progress,
    total: u64,
    step: &'static str,
) -> Result<()> {
    let object = store.open_stream(stream.lineage, stream.backup, stream.stream)?;
    let source = std::io::BufReader::with_capacity(1 << 20, crate::io::Sequential::new(&*object, 0));
    archive::authenticate(source, stream, keys, index, &mut telling(progress, step, total))?;
    Ok(())
}

/// Tells of bytes as they are read, not too often.
fn telling<'a>(progress: &'a Progress, step: &'static str, total: u64) -> impl FnMut(u64) + 'a {
    let mut told = 0;
    move |done| {
        if done - told > (64 << 20) {
            told = done;
            progress.tell(Event::Bytes { step, done, total: Some(total), table: None });
        }
    }
}

/// Authenticates one stream of a backup in the store, decompresses all of it, and compares the digest of its bytes.
#[allow(clippy::too_many_arguments)]
pub(super) fn verify_stream(
    store: &Store,
    stream: StreamId,
    keys: &SubKeys,
    index: &Index,
    sha256: &str,
    progress: &Progress,
    total: u64,
    step: &'static str,
) -> Result<()> {
    let object = store.open_stream(stream.lineage, stream.backup, stream.stream)?;
    let source = std::io::BufReader::with_capacity(1 << 20, crate::io::Sequential::new(&*object, 0));
    let found = archive::verify(source, stream, keys, index, &mut telling(progress, step, total))?;
    if found != sha256 {
        return Err(Error::verification(format!(
            "stream {} of backup `{}` is not the one that was written",
            stream.stream, stream.backup
        ))
        .because(format!("its SHA-256 is `{found}`, the manifest says `{sha256}`")));
    }
    Ok(())
}

/// Authenticates a whole backup before it is loaded, so that a damaged one is told at once and not after half of
/// it is loaded: its manifest and every stream, but each frame is decompressed only when it is loaded. Marks it
/// damaged when it is.
pub async fn authenticate(ctx: &Context, backup: &Taken) -> Result<()> {
    let store = ctx.store.clone();
    let progress = ctx.progress.clone();
    let (manifest, keys) = (backup.manifest.clone(), backup.keys.clone());
    let (lineage, id) = (manifest.clear.lineage, backup.id);
    let result = blocking(move || {
        for stream in &manifest.sealed.streams {
            let of = StreamId { lineage, backup: id, stream: stream.number };
            let total = manifest.clear.raw_bytes;
            authenticate_stream(&store, of, &keys, &stream.index, &progress, total, "verify")?;
        }
        Ok(())
    })
    .await
    .map_err(|error: Error| error.context(format!("backup `{id}` is damaged")));
    let Err(error) = result else { return Ok(()) };
    mark_if_damaged(ctx, lineage, id, &error).await;
    Err(error.hint(super::catalog::instead_of(ctx, lineage, id).await))
}

/// Authenticates a whole backup: its manifest and every stream. Marks it verified or damaged. One that is being sealed
/// anew at the same time is looked at again, with its new manifest.
pub async fn verify(ctx: &Context, lineage: Lineage, id: BackupId) -> Result<Arc<Manifest>> {
    loop {
        let before = ctx.store.manifest(lineage, id).ok();
        let (result, mark) = look_through(ctx, lineage, id).await;
        if result.is_err() && before.is_some() && ctx.store.manifest(lineage, id).ok() != before {
            continue;
        }
        let store = ctx.store.clone();
        if let Some(mark) = mark
            && let Err(error) = blocking(move || store.mark(lineage, id, &mark)).await
        {
            ctx.progress.warn(format!("the result for backup `{id}` could not be kept in the store: {error}"));
        }
        return result;
    }
}

/// What was found, and the mark that says so.
async fn look_through(ctx: &Context, lineage: Lineage, id: BackupId) -> (Result<Arc<Manifest>>, Option<Mark>) {
    let damaged = |error: &Error| Mark::Damaged { at: clock::now(), error: error.one_line() };
    let (manifest, keys) = match open_manifest(ctx, lineage, id).await {
        Ok(opened) => opened,
        // A key that does not fit is no damage.
        Err(error) if error.kind() == crate::error::Kind::Verification => {
            let mark = damaged(&error);
            return (Err(error), Some(mark));
        }
        Err(error) => return (Err(error), None),
    };
    let store = ctx.store.clone();
    let progress = ctx.progress.clone();
    let checked = Arc::new(manifest);
    let manifest = checked.clone();
    let result = blocking(move || {
        for stream in &manifest.sealed.streams {
            let of = StreamId { lineage, backup: id, stream: stream.number };
            verify_stream(
                &store,
                of,
                &keys,
                &stream.index,
                &stream.sha256,
                &progress,
                manifest.clear.raw_bytes,
                "verify",
            )?;
        }
        Ok(())
    })
    .await
    .map_err(|error: Error| error.context(format!("backup `{id}` is damaged")));
    let result = match result {
        Err(error) => Err(error.hint(super::catalog::instead_of(ctx, lineage, id).await)),
        result => result,
    };
    let mark = match &result {
        Ok(()) => Mark::Verified { at: clock::now(), level: "archive".to_owned() },
        Err(error) => damaged(error),
    };
    (result.map(|()| checked), Some(mark))
}

/// Remembers in the store that a backup is damaged, when that is what the error says: a key that does not fit is no
/// damage. Also where the manifest itself is, since a list looks only at its clear part.
pub(super) async fn mark_if_damaged(ctx: &Context, lineage: Lineage, id: BackupId, error: &Error) {
    if error.kind() != crate::error::Kind::Verification {
        return;
    }
    let mark = Mark::Damaged { at: clock::now(), error: error.one_line() };
    let store = ctx.store.clone();
    if let Err(error) = blocking(move || store.mark(lineage, id, &mark)).await {
        ctx.progress.warn(format!("that backup `{id}` is damaged could not be kept in the store: {error}"));
    }
}

/// Authenticates a backup, and reads the dump in it to the end: table of contents and every row's digest.
pub async fn verify_contents(ctx: &Context, lineage: Lineage, id: BackupId) -> Result<()> {
    let manifest = verify(ctx, lineage, id).await?;
    let (_, keys) = open_manifest(ctx, lineage, id).await?;
    let store = ctx.store.clone();
    let read = blocking(move || {
        for stream in &manifest.sealed.streams {
            let of = StreamId { lineage, backup: id, stream: stream.number };
            let object = store.open_stream(lineage, id, stream.number)?;
            let source = std::io::BufReader::with_capacity(1 << 20, crate::io::Sequential::new(&*object, 0));
            let mut plain = archive::ArchiveReader::open(source, of, &keys)?;
            let mut scanner = archive::Scanner::new(keys.digest_key());
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = plain.read(&mut buffer).map_err(archive::ArchiveError::from_io)?;
                if count == 0 {
                    break;
                }
                scanner.feed(&buffer[..count])?;
            }
            let contents = scanner.finish()?;
            if contents.blocks != stream.index.blocks {
                return Err(Error::verification(format!(
                    "backup `{id}` does not hold the rows that its manifest lists"
                )));
            }
        }
        Ok(())
    })
    .await;
    match &read {
        Err(error) => mark_if_damaged(ctx, lineage, id, error).await,
        Ok(()) => {
            let store = ctx.store.clone();
            let mark = Mark::Verified { at: clock::now(), level: "toc".to_owned() };
            blocking(move || store.mark(lineage, id, &mark)).await?;
        }
    }
    read
}

/// Reads and authenticates a manifest.
pub async fn open_manifest(ctx: &Context, lineage: Lineage, id: BackupId) -> Result<(Manifest, SubKeys)> {
    let keys = ctx.keys()?.clone();
    let store = ctx.store.clone();
    blocking(move || manifest::decode(&store.manifest(lineage, id)?, lineage, id, &keys)).await
}

/// Bytes for people: `1.9 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}
