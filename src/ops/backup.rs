//! Taking a backup: pg_dump streamed into the store, read back, and only then committed.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::context::{Context, Live, TOOL_VERSION, blocking};
use crate::archive::{self, ArchiveWriter, Contents, Index, Inventory, StreamId, inventory};
use crate::clock::{self, Time};
use crate::control::{self, BackupRow};
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::keys::{DataKey, SubKeys};
use crate::manifest::{self, AppliedRecord, Clear, Manifest, Purpose, Sealed, StreamRecord};
use crate::postgres::dump::{Dump, DumpOptions};
use crate::postgres::{Session, checks, databases};
use crate::progress::{Event, Progress};
use crate::store::{Mark, ObjectWriter, Store};

/// More threads than this would wait for pg_dump, each with its megabytes.
const MOST_THREADS: usize = 8;

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

/// What is read in the snapshot that the dump reads, and must go into the manifest.
struct AtSnapshot {
    session: Session,
    exported: String,
    created_at: Time,
    snapshot: String,
    wal_lsn: String,
    server_version: String,
    properties: manifest::DatabaseProperties,
    extensions: Vec<manifest::ExtensionRecord>,
    extras: Vec<String>,
    applied: Vec<AppliedRecord>,
    control_rows: std::collections::BTreeMap<String, serde_json::Value>,
}

/// A stream that is in the store and was read back, but not yet committed by a manifest.
struct Stored {
    contents: Contents,
    index: Index,
    stored_bytes: u64,
    sha256: String,
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
    let at = open_snapshot(ctx, live.maintenance()).await?;
    ctx.faults.at("backup_snapshot").await;

    let stream = StreamId { lineage: live.lineage, backup: id, stream: 0 };
    let stored = dump_to_store(ctx, live, &at, stream, &subkeys).await;
    // The session that exported the snapshot ends before anything else begins: CREATE INDEX CONCURRENTLY
    // would wait for it for ever.
    at.session.close().await;
    let stored = stored?;
    ctx.faults.at("backup_stored").await;

    read_back(ctx, stream, &subkeys, &stored).await?;
    ctx.faults.at("backup_read_back").await;

    let clear = Clear {
        format: archive::FORMAT,
        kind: "dump".to_owned(),
        lineage: live.lineage,
        backup: id,
        purpose: request.purpose,
        database: ctx.target.database().to_owned(),
        created_at: at.created_at,
        raw_bytes: stored.contents.raw_bytes,
        stored_bytes: stored.stored_bytes,
    };
    let wraps: Vec<_> = keys.keys().iter().map(|key| key.wrap(id, &data_key)).collect();
    let inventory = Inventory::of(&stored.contents.toc);
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
        large_objects: stored
            .index
            .blocks
            .iter()
            .filter(|block| block.large_objects)
            .map(|block| block.digest.rows)
            .sum(),
        sequences: inventory::sequence_values(&stored.contents.toc),
        streams: vec![StreamRecord {
            number: 0,
            stored_bytes: stored.stored_bytes,
            sha256: stored.sha256,
            index: stored.index,
        }],
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
        database: ctx.target.database().to_owned(),
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

/// Opens the transaction whose snapshot the dump will read, and reads in it what the dump leaves out.
async fn open_snapshot(ctx: &Context, maintenance: &Session) -> Result<AtSnapshot> {
    let session = ctx.connect("snapshot").await?;
    // language=SQL
    session.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let row = session
        .client()
        .query_one(
            // language=SQL
            "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_snapshot()::pg_catalog.text,
                    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                         ELSE pg_catalog.pg_current_wal_lsn() END::pg_catalog.text,
                    pg_catalog.current_setting('server_version'), pg_catalog.clock_timestamp()",
            &[],
        )
        .await
        .map_err(|error| crate::postgres::session::explain(&error).context("exporting a snapshot failed"))?;
    let applied = control::applied(session.client()).await?;
    let snapshot = crate::postgres::counts::narrowed(&session, row.get(1)).await?;
    Ok(AtSnapshot {
        exported: row.get(0),
        snapshot,
        wal_lsn: row.get::<_, Option<String>>(2).unwrap_or_default(),
        server_version: row.get(3),
        created_at: row.get(4),
        // Through the session that sets them again in a restore: names and comments of databases and roles are
        // bytes that every database reads in its own encoding.
        properties: databases::read_properties(maintenance, ctx.target.database()).await?,
        extensions: databases::extensions(&session).await?,
        extras: checks::catalog_extras(&session, &ctx.settings.backup.exclude_schemas).await?,
        applied: applied
            .into_iter()
            .map(|row| AppliedRecord { version: row.version, name: row.name, checksum: row.checksum })
            .collect(),
        control_rows: control::export_rows(session.client()).await?,
        session,
    })
}

/// Streams the dump through the archive's writer into the store, and syncs it there.
async fn dump_to_store(
    ctx: &Context,
    live: &Live,
    at: &AtSnapshot,
    stream: StreamId,
    keys: &SubKeys,
) -> Result<Stored> {
    let options = DumpOptions {
        encoding: Some(at.properties.encoding.clone()),
        exclude_schemas: ctx.settings.backup.exclude_schemas.clone(),
        snapshot: Some(at.exported.clone()),
        lock_wait: ctx.settings.backup.timeout,
        ..DumpOptions::default()
    };
    let dump = Dump::begin(&live.tools, &ctx.target, &options)?;
    let killer = dump.killer();
    let pump = Pump {
        store: ctx.store.clone(),
        stream,
        keys: keys.clone(),
        level: ctx.settings.backup.compression_level,
        estimate: live.findings.database_bytes,
        progress: ctx.progress.clone(),
    };
    let mut pumping = tokio::spawn(blocking(move || pump.run(dump)));
    let limit = ctx.settings.backup.timeout;
    let why = tokio::select! {
        done = &mut pumping => return flatten(done),
        () = tokio::time::sleep(limit) => {
            Error::failed(format!("the backup took longer than its limit of {}s", limit.as_secs()))
                .hint("raise `timeout` under `[backup]` in ripcord.toml")
        }
        () = ctx.cancelled() => super::context::stopped(),
    };
    killer.kill();
    // The worker sees the end of the output and leaves; what it then says follows from the kill.
    let _ = pumping.await;
    Err(why)
}

fn flatten(done: std::result::Result<Result<Stored>, tokio::task::JoinError>) -> Result<Stored> {
    done.unwrap_or_else(|error| Err(Error::failed("the backup's worker ended without a result").because(error)))
}

/// The blocking part: pg_dump's output → frames → store.
struct Pump {
    store: Store,
    stream: StreamId,
    keys: SubKeys,
    level: i32,
    estimate: u64,
    progress: Progress,
}

/// Lets the archive's writer own the store's object writer and give it back.
struct Sink(Box<dyn ObjectWriter>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Pump {
    fn run(self, mut dump: Dump) -> Result<Stored> {
        let StreamId { lineage, backup, stream } = self.stream;
        let sink = Sink(self.store.begin_stream(lineage, backup, stream)?);
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(MOST_THREADS);
        let mut writer = ArchiveWriter::begin(sink, self.stream, &self.keys, self.level, threads)?;
        let mut buffer = vec![0; 256 << 10];
        let mut total = 0;
        let mut told = Instant::now();
        let fed = loop {
            let count = match dump.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(count) => count,
                Err(error) => break Err(Error::failed("reading pg_dump's output failed").because(error)),
            };
            if let Err(error) = writer.feed(&buffer[..count]) {
                break Err(from_writing(error));
            }
            total += count as u64;
            if told.elapsed() > Duration::from_millis(200) {
                told = Instant::now();
                self.progress.tell(Event::Bytes {
                    step: "backup",
                    done: total,
                    total: Some(self.estimate.max(total)),
                    table: writer.current_table(),
                });
            }
        };
        // pg_dump's own failure explains a stream that ends too early; the reverse is not so. When it was
        // the store that failed, pg_dump only dies of the closed pipe, and its words would mislead.
        fed?;
        dump.finish()?;
        let finished = writer.finish().map_err(from_writing)?;
        finished.sink.0.finish()?;
        Ok(Stored {
            contents: finished.contents,
            index: finished.index,
            stored_bytes: finished.stored_bytes,
            sha256: finished.stored_sha256,
        })
    }
}

/// While writing, an I/O error is the store's and not a damaged archive.
fn from_writing(error: archive::ArchiveError) -> Error {
    match error {
        archive::ArchiveError::Io(error) => {
            // The store's own words, and its hint with them.
            if let Some(told) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                return told.clone().context("writing to the store failed");
            }
            use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
            let full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
            let failure = Error::failed("writing to the store failed").because(error);
            if full { failure.hint("make room in the store, or run `ripcord prune`") } else { failure }
        }
        other => Error::failed("the dump could not be read as it passed by").because(other),
    }
}

/// Reads the stream from the store again, authenticates every frame and compares the digest of its bytes.
async fn read_back(ctx: &Context, stream: StreamId, keys: &SubKeys, stored: &Stored) -> Result<()> {
    let store = ctx.store.clone();
    let keys = keys.clone();
    let index = stored.index.clone();
    let expected = stored.sha256.clone();
    let progress = ctx.progress.clone();
    let total = stored.contents.raw_bytes;
    blocking(move || {
        store.drop_stream_cache(stream.lineage, stream.backup, stream.stream)?;
        verify_stream(&store, stream, &keys, &index, &expected, &progress, total, "read_back")
    })
    .await
    .map_err(|error| error.context("the backup could not be read back as it was written"))
}

/// Authenticates one stream of a backup in the store.
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
    let told = AtomicU64::new(0);
    let found = archive::verify(source, stream, keys, index, &mut |done| {
        if done - told.load(Ordering::Relaxed) > (64 << 20) {
            told.store(done, Ordering::Relaxed);
            progress.tell(Event::Bytes { step, done, total: Some(total), table: None });
        }
    })?;
    if found != sha256 {
        return Err(Error::verification(format!(
            "stream {} of backup `{}` is not the one that was written",
            stream.stream, stream.backup
        ))
        .because(format!("its SHA-256 is `{found}`, the manifest says `{sha256}`")));
    }
    Ok(())
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
    .map_err(|error| {
        error.context(format!("backup `{id}` is damaged")).hint("restore another one: ripcord backup list")
    });
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
