//! The dump of a backup: one snapshot, read by one pg_dump or by several at once, each of them streamed into the
//! store.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};

use super::context::{Context, Live, blocking};
use crate::archive::{self, ArchiveWriter, Contents, Index, Sealers, StreamId, Toc};
use crate::clock::Time;
use crate::control;
use crate::error::{Error, Result};
use crate::ids::BackupId;
use crate::keys::SubKeys;
use crate::manifest::{self, AppliedRecord, StreamRecord};
use crate::postgres::dump::{Dump, DumpOptions, Killer};
use crate::postgres::share::{self, Table};
use crate::postgres::{Session, checks, databases};
use crate::progress::{Event, Progress};
use crate::store::{ObjectWriter, Store};

/// How long one of several pg_dumps waits for a lock. Our own session holds the locks already, so that one that
/// has to wait does so behind somebody who waits for us: neither would ever go on.
const QUEUED_LOCK: Duration = Duration::from_secs(30);

/// What is read in the snapshot that the dump reads, and must go into the manifest.
pub(super) struct AtSnapshot {
    pub(super) session: Session,
    exported: String,
    pub(super) created_at: Time,
    pub(super) snapshot: String,
    pub(super) wal_lsn: String,
    pub(super) server_version: String,
    pub(super) properties: manifest::DatabaseProperties,
    pub(super) extensions: Vec<manifest::ExtensionRecord>,
    pub(super) extras: Vec<String>,
    pub(super) applied: Vec<AppliedRecord>,
    pub(super) control_rows: std::collections::BTreeMap<String, serde_json::Value>,
    /// The tables whose rows go into the streams 1, 2, …
    shared: Vec<Vec<Table>>,
}

/// Streams that are in the store, but not yet read back, and not yet committed by a manifest.
pub(super) struct Stored {
    /// What describes the whole database: the table of contents of stream 0.
    pub(super) toc: Toc,
    /// In the order of their numbers.
    pub(super) streams: Vec<StreamRecord>,
}

/// Opens the transaction whose snapshot the dump will read, and reads in it what the dump leaves out. With several
/// pg_dumps to come, the tables are shared out first, and locked before there is a snapshot.
pub(super) async fn open_snapshot(ctx: &Context, maintenance: &Session) -> Result<AtSnapshot> {
    let session = ctx.connect("snapshot").await?;
    let shared = share_out(ctx, &session).await?;
    // language=SQL
    session.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    share::lock(&session, &shared).await.map_err(share::explain_lock)?;
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
        extras: checks::catalog_extras(&session, ctx.left_out()).await?,
        applied: applied
            .into_iter()
            .map(|row| AppliedRecord { version: row.version, name: row.name, checksum: row.checksum })
            .collect(),
        control_rows: control::export_rows(session.client()).await?,
        shared,
        session,
    })
}

/// The tables of each pg_dump but the first.
async fn share_out(ctx: &Context, session: &Session) -> Result<Vec<Vec<Table>>> {
    let jobs = usize::try_from(ctx.settings.backup.jobs).unwrap_or(usize::MAX);
    if jobs < 2 {
        return Ok(Vec::new());
    }
    share::limit_lock_waits(session, ctx.settings.backup.timeout).await?;
    let rows = share::rows(session, ctx.left_out()).await.map_err(share::explain_lock)?;
    Ok(share::share(rows, jobs))
}

/// What each pg_dump is told: the first to leave out the rows that the others bring, and these nothing else.
fn options(ctx: &Context, at: &AtSnapshot) -> Vec<DumpOptions> {
    let names = |tables: &[Table]| -> Vec<(String, String)> {
        tables.iter().map(|table| (table.schema.clone(), table.name.clone())).collect()
    };
    let timeout = ctx.settings.backup.timeout;
    let first = DumpOptions {
        encoding: Some(at.properties.encoding.clone()),
        exclude_schemas: ctx.left_out().to_vec(),
        snapshot: Some(at.exported.clone()),
        exclude_data: at.shared.iter().flat_map(|tables| names(tables)).collect(),
        lock_wait: if at.shared.is_empty() { timeout } else { timeout.min(QUEUED_LOCK) },
        ..DumpOptions::default()
    };
    let others = at.shared.iter().map(|tables| DumpOptions {
        only_data_of: names(tables),
        exclude_data: Vec::new(),
        exclude_schemas: Vec::new(),
        ..first.clone()
    });
    std::iter::once(first.clone()).chain(others).collect()
}

/// Streams the dump through the archive's writers into the store, and syncs it there. When one pg_dump fails, the
/// others are ended and waited for before this returns.
pub(super) async fn dump_to_store(
    ctx: &Context,
    live: &Live,
    at: &AtSnapshot,
    backup: BackupId,
    keys: &SubKeys,
) -> Result<Stored> {
    let options = options(ctx, at);
    let threads = ctx.settings.backup.sealing_threads();
    let sealers = Sealers::start(ctx.settings.backup.compression_level, threads, options.len())
        .map_err(|error| Error::failed("the threads of the backup could not be started").because(error))?;
    let told = Arc::new(Told::new(&ctx.progress, live.findings.database_bytes));
    let mut dumps = Vec::new();
    for options in &options {
        dumps.push(Dump::begin(&live.tools, &ctx.target, options)?);
    }
    let killers: Vec<Killer> = dumps.iter().map(Dump::killer).collect();
    let mut pumping = JoinSet::new();
    for (stream, dump) in (0_u32..).zip(dumps) {
        let pump = Pump {
            store: ctx.store.clone(),
            stream: StreamId { lineage: live.lineage, backup, stream },
            keys: keys.clone(),
            sealers: Arc::clone(&sealers),
            told: Arc::clone(&told),
        };
        pumping.spawn(blocking(move || pump.run(dump)));
    }
    let limit = ctx.settings.backup.timeout;
    let done = tokio::select! {
        done = all_of(&mut pumping) => done,
        () = tokio::time::sleep(limit) => Err(
            Error::failed(format!("the backup took longer than its limit of {}s", limit.as_secs()))
                .hint("raise `timeout` under `[backup]` in ripcord.toml")
        ),
        () = ctx.cancelled() => Err(super::context::stopped()),
    };
    let streams = match done {
        Ok(streams) => streams,
        Err(why) => {
            for killer in &killers {
                killer.kill();
            }
            // The workers see the end of the output and leave; what they then say follows from the kill.
            while pumping.join_next().await.is_some() {}
            return Err(why);
        }
    };
    put_together(streams, at)
}

/// All streams in the order of their numbers, or what went wrong first.
async fn all_of(pumping: &mut JoinSet<Result<StreamDone>>) -> Result<Vec<StreamDone>> {
    let mut streams = Vec::new();
    while let Some(done) = pumping.join_next().await {
        streams.push(flatten(done)?);
    }
    streams.sort_by_key(|stream: &StreamDone| stream.number);
    Ok(streams)
}

fn flatten(done: std::result::Result<Result<StreamDone>, JoinError>) -> Result<StreamDone> {
    done.unwrap_or_else(|error| Err(Error::failed("the backup's worker ended without a result").because(error)))
}

/// What the streams hold must be what was shared out: every table's rows once, and each in the stream that was to
/// bring them.
fn put_together(streams: Vec<StreamDone>, at: &AtSnapshot) -> Result<Stored> {
    let odd = |what: String| {
        Err(Error::failed("the dumps do not fit together").because(what).hint("take the backup with one: --jobs 1"))
    };
    let mut seen = std::collections::HashSet::new();
    for block in streams.iter().flat_map(|stream| &stream.index.blocks).filter(|block| !block.large_objects) {
        if !seen.insert((block.namespace.clone(), block.table.clone())) {
            return odd(format!("the rows of `{}.{}` come twice", block.namespace.lossy(), block.table.lossy()));
        }
    }
    for (stream, tables) in streams.iter().skip(1).zip(&at.shared) {
        for table in tables {
            let (schema, name) = (table.schema.as_bytes(), table.name.as_bytes());
            let brought = stream.index.blocks.iter().any(|block| block.namespace.0 == schema && block.table.0 == name);
            let described =
                streams.first().is_some_and(|first| {
                    first.toc.entries.iter().any(|entry| {
                        entry.description.0 == b"TABLE" && entry.namespace.0 == schema && entry.tag.0 == name
                    })
                });
            if !brought || !described {
                let what = if described { "do not come" } else { "come without a definition" };
                return odd(format!("the rows of `{}.{}` {what}", table.schema, table.name));
            }
        }
        if stream.index.blocks.len() != tables.len() {
            return odd(format!("stream {} brings more than its tables", stream.number));
        }
    }
    let mut toc = None;
    let mut records = Vec::new();
    for stream in streams {
        records.push(StreamRecord {
            number: stream.number,
            stored_bytes: stream.stored_bytes,
            sha256: stream.sha256,
            index: stream.index,
        });
        toc.get_or_insert(stream.toc);
    }
    let toc = toc.ok_or_else(|| Error::failed("there was no dump"))?;
    Ok(Stored { toc, streams: records })
}

/// One stream that is in the store.
struct StreamDone {
    number: u32,
    toc: Toc,
    index: Index,
    stored_bytes: u64,
    sha256: String,
}

/// Bytes so far of all streams together, told now and then.
struct Told {
    progress: Progress,
    done: AtomicU64,
    estimate: u64,
}

impl Told {
    fn new(progress: &Progress, estimate: u64) -> Told {
        Told { progress: progress.clone(), done: AtomicU64::new(0), estimate }
    }

    fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn tell(&self, table: Option<String>) {
        let done = self.done.load(Ordering::Relaxed);
        self.progress.tell(Event::Bytes { step: "backup", done, total: Some(self.estimate.max(done)), table });
    }
}

/// The blocking part: pg_dump's output → frames → store.
struct Pump {
    store: Store,
    stream: StreamId,
    keys: SubKeys,
    sealers: Arc<Sealers>,
    told: Arc<Told>,
}

/// Lets the archive's writer own the store's object writer and give it back.
pub(super) struct Sink(pub(super) Box<dyn ObjectWriter>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Pump {
    fn run(self, mut dump: Dump) -> Result<StreamDone> {
        let StreamId { lineage, backup, stream } = self.stream;
        let sink = Sink(self.store.begin_stream(lineage, backup, stream)?);
        let mut writer = ArchiveWriter::begin_with(sink, self.stream, &self.keys, &self.sealers)?;
        let mut last_told = Instant::now();
        let fed = loop {
            let count = match dump.read(writer.room()) {
                Ok(0) => break Ok(()),
                Ok(count) => count,
                Err(error) => break Err(Error::failed("reading pg_dump's output failed").because(error)),
            };
            if let Err(error) = writer.fed(count) {
                break Err(from_writing(error));
            }
            self.told.add(count as u64);
            if last_told.elapsed() > Duration::from_millis(200) {
                last_told = Instant::now();
                self.told.tell(writer.current_table());
            }
        };
        // pg_dump's own failure explains a stream that ends too early; the reverse is not so. When it was
        // the store that failed, pg_dump only dies of the closed pipe, and its words would mislead.
        fed?;
        dump.finish()?;
        let finished = writer.finish().map_err(from_writing)?;
        finished.sink.0.finish()?;
        let Contents { toc, .. } = finished.contents;
        Ok(StreamDone {
            number: stream,
            toc,
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
