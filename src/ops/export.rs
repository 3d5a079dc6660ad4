//! `backup export`: a backup as a file for people without ripcord.
//!
//! What is written is plain, since that is what was asked for: a dump that stock pg_restore takes, or SQL for psql.
//! Under its final name a file stands only when every byte of it came from frames that were authenticated, and every
//! row was compared with the manifest.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;

use super::backup::{self, Taken};
use super::context::{Context, blocking, stopped};
use super::source;
use crate::archive::{ArchiveError, Contents, Digest, Scanner};
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage};
use crate::manifest::Manifest;
use crate::postgres::load::{self, LoadPlan};
use crate::postgres::{Tools, tools};
use crate::progress::{Event, Progress};

/// Read and written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// How often bytes are told of.
const TOLD_BYTES: u64 = 16 << 20;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// What `pg_dump --format=custom --compress=0` writes into a file.
    Custom,
    /// What `pg_dump --format=plain` writes.
    Sql,
}

/// Where it is written to.
pub enum Destination {
    /// A file of this name, which replaces another one only when that is wanted.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether a file of that name is replaced.
        force: bool,
    },
    /// Something that cannot be called back.
    Pipe(Box<dyn Write + Send>),
}

impl Destination {
    fn path(&self) -> Option<&Path> {
        match self {
            Destination::File { path, .. } => Some(path),
            Destination::Pipe(_) => None,
        }
    }
}

/// How a backup is exported.
pub struct Request {
    /// What is written.
    pub format: Format,
    /// Where to.
    pub to: Destination,
    /// For SQL: psql's `\restrict` key; a random one without it.
    pub restrict_key: Option<String>,
}

/// What was exported.
#[derive(Clone, Debug, Serialize)]
pub struct Exported {
    /// The backup.
    pub backup: BackupId,
    /// What was written.
    pub format: Format,
    /// The file; `None`: a pipe.
    pub file: Option<PathBuf>,
    /// Its bytes.
    pub bytes: u64,
    /// The rows that were compared with the manifest.
    pub rows: u64,
}

/// Exports one backup.
pub async fn export(ctx: &Context, lineage: Lineage, id: BackupId, request: Request) -> Result<Exported> {
    // The file first, so that a place that cannot be written to fails before the long work.
    let path = request.to.path().map(Path::to_owned);
    let (begun, sink) = match request.to {
        Destination::File { path, force } => {
            let begun = Begun::new(&path, force)?;
            let file = begun.file.try_clone().map_err(|error| unwritten(&error))?;
            (Some(begun), Box::new(file) as Box<dyn Write + Send>)
        }
        Destination::Pipe(sink) => (None, sink),
    };
    let (manifest, keys) = backup::open_manifest(ctx, lineage, id).await?;
    let script_tools = match request.format {
        Format::Custom => None,
        Format::Sql => Some(tools_of(ctx, &manifest)?),
    };
    if begun.is_none() {
        // What has gone into a pipe cannot be called back.
        backup::verify(ctx, lineage, id).await?;
    }
    let location = ctx.store.backup_location(lineage, id);
    let duration = std::time::Duration::ZERO;
    let taken = Taken { id, manifest: Arc::new(manifest), keys, location, duration };
    ctx.progress.began("export", format!("writing backup `{id}` to {}", place(path.as_deref())));

    let (plan, _) = source::load_plan(ctx, &taken)?;
    let checked = Checked::new(&plan, &taken, &ctx.progress)?;
    let file = begun.as_ref().map(|begun| begun.file.try_clone()).transpose().map_err(|error| unwritten(&error))?;
    let work = async {
        match script_tools {
            None => custom(checked, sink, file).await,
            Some(tools) => sql(&tools, checked, sink, request.restrict_key.as_deref(), &ctx.progress).await,
        }
    };
    let bytes = tokio::select! {
        bytes = work => bytes?,
        () = ctx.cancelled() => return Err(stopped()),
    };
    if let Some(begun) = begun {
        blocking(move || begun.finish()).await?;
    }
    ctx.progress.finished("export", format!("{} written", backup::bytes(bytes)));
    let rows = super::beside::total_rows(&taken.manifest);
    Ok(Exported { backup: id, format: request.format, file: path, bytes, rows })
}

fn place(file: Option<&Path>) -> String {
    file.map_or_else(|| "standard output".to_owned(), |path| format!("`{}`", path.display()))
}

/// pg_restore of the version that dumped: a newer one writes settings into the script that this version's server
/// does not know.
fn tools_of(ctx: &Context, manifest: &Manifest) -> Result<Tools> {
    let version = &manifest.sealed.tool_version;
    let major = tools::major(version)
        .ok_or_else(|| Error::failed(format!("the backup was made by `{version}`, which names no version")))?;
    Tools::find(major, &ctx.settings.pg_bin, ctx.path.as_deref())
        .map_err(|error| error.context(format!("the script is written by pg_restore {major}, as the dump was")))
}

/// The dump as it is stored; into a file with the places of its data blocks, which pg_dump cannot write into a pipe.
async fn custom(mut checked: Checked, mut sink: Box<dyn Write + Send>, file: Option<File>) -> Result<u64> {
    blocking(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        loop {
            let count = checked.read(&mut buffer).map_err(unread)?;
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
            sink.write_all(piece).map_err(|error| unwritten(&error))?;
            bytes += piece.len() as u64;
        }
        sink.flush().map_err(|error| unwritten(&error))?;
        let contents = checked.contents()?;
        if let Some(file) = &file {
            let blocks = contents.blocks.iter().map(|block| (block.dump_id, block.start));
            for (at, position) in contents.toc.positions(blocks) {
                file.write_all_at(&position, at).map_err(|error| unwritten(&error))?;
            }
        }
        Ok(bytes)
    })
    .await
}

async fn sql(
    tools: &Tools,
    checked: Checked,
    sink: Box<dyn Write + Send>,
    restrict_key: Option<&str>,
    progress: &Progress,
) -> Result<u64> {
    let done = checked.done.clone();
    let bytes = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let sink = Counting { inner: sink, bytes: bytes.clone() };
    let said = load::write_script(tools, Box::new(checked), restrict_key, Box::new(sink), Box::new(|_| ())).await?;
    for warning in said {
        progress.warn(warning);
    }
    match done.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(_) => Ok(bytes.load(std::sync::atomic::Ordering::Relaxed)),
        None => Err(Error::failed("pg_restore did not read the dump to its end")),
    }
}

struct Counting {
    inner: Box<dyn Write + Send>,
    bytes: Arc<std::sync::atomic::AtomicU64>,
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What a digest is of: schema, table, and whether it is of large objects.
type Of = (Vec<u8>, Vec<u8>, bool);

/// The dump out of its frames. Its end is only given out once every block holds what the manifest says.
struct Checked {
    dump: Box<dyn Read + Send>,
    scanner: Option<Scanner>,
    expected: BTreeMap<Of, Digest>,
    /// What the dump holds, after its end.
    done: Arc<Mutex<Option<Contents>>>,
    progress: Progress,
    bytes: u64,
    told: u64,
    total: u64,
}

impl Checked {
    fn new(plan: &LoadPlan, taken: &Taken, progress: &Progress) -> Result<Checked> {
        let mut expected: BTreeMap<Of, Digest> = BTreeMap::new();
        for block in taken.manifest.sealed.streams.iter().flat_map(|stream| &stream.index.blocks) {
            let of = (block.namespace.0.clone(), block.table.0.clone(), block.large_objects);
            expected.entry(of).or_default().merge(block.digest);
        }
        Ok(Checked {
            dump: plan.source.whole(plan.source.table_of_contents()?)?,
            scanner: Some(Scanner::new(taken.keys.digest_key())),
            expected,
            done: Arc::default(),
            progress: progress.clone(),
            bytes: 0,
            told: 0,
            total: plan.total_bytes,
        })
    }

    /// After the end.
    fn contents(self) -> Result<Contents> {
        let contents = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        contents.ok_or_else(|| Error::failed("the dump was not read to its end"))
    }

    fn finish(&mut self) -> std::result::Result<(), ArchiveError> {
        let Some(scanner) = self.scanner.take() else { return Ok(()) };
        let contents = scanner.finish()?;
        let mut found: BTreeMap<Of, Digest> = BTreeMap::new();
        for block in &contents.blocks {
            let of = (block.namespace.0.clone(), block.table.0.clone(), block.large_objects);
            found.entry(of).or_default().merge(block.digest);
        }
        if found != self.expected {
            return Err(ArchiveError::ManifestDisagrees("the rows are not those that it lists".to_owned()));
        }
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(contents);
        Ok(())
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.dump.read(buffer)?;
        match (buffer.get(..count).filter(|piece| !piece.is_empty()), &mut self.scanner) {
            (Some(piece), Some(scanner)) => scanner.feed(piece).map_err(ArchiveError::into_io)?,
            (None, _) if !buffer.is_empty() => self.finish().map_err(ArchiveError::into_io)?,
            _ => {}
        }
        self.bytes += count as u64;
        if self.bytes - self.told > TOLD_BYTES {
            self.told = self.bytes;
            self.progress.tell(Event::Bytes { step: "export", done: self.bytes, total: Some(self.total), table: None });
        }
        Ok(count)
    }
}

fn unread(error: io::Error) -> Error {
    Error::from(ArchiveError::from_io(error)).context("the backup could not be read")
}

fn unwritten(error: &io::Error) -> Error {
    Error::failed("the file could not be written").because(error)
}

/// A file that is being written under another name beside its own. Dropped, nothing of it is left.
struct Begun {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    force: bool,
    finished: bool,
}

impl Begun {
    fn new(path: &Path, force: bool) -> Result<Begun> {
        match std::fs::symlink_metadata(path) {
            Ok(there) if !there.is_file() && !there.is_symlink() => {
                return Err(Error::usage(format!("`{}` is no file", path.display()))
                    .hint("name a file, or write to standard output: -o -"));
            }
            Ok(_) if !force => return Err(exists(path)),
            _ => {}
        }
        let name = path.file_name().ok_or_else(|| Error::usage(format!("`{}` names no file", path.display())))?;
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let partial = path.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), &unique[..8]));
        // Whoever may read it reads the whole database.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(|error| Error::failed(format!("`{}` cannot be written", path.display())).because(error))?;
        Ok(Begun { file, partial, path: path.to_owned(), force, finished: false })
    }

    /// Syncs it and gives it its name.
    fn finish(mut self) -> Result<()> {
        let failed =
            |error: io::Error| Error::failed(format!("`{}` could not be written", self.path.display())).because(error);
        self.file.sync_all().map_err(failed)?;
        let renamed = if self.force {
            std::fs::rename(&self.partial, &self.path)
        } else {
            match renameat_with(CWD, &self.partial, CWD, &self.path, RenameFlags::NOREPLACE) {
                // A file system that cannot promise it: looked at once more, which leaves a moment only.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !self.path.exists() => {
                    std::fs::rename(&self.partial, &self.path)
                }
                Err(rustix::io::Errno::EXIST | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    return Err(exists(&self.path));
                }
                renamed => renamed.map_err(io::Error::from),
            }
        };
        renamed.map_err(failed)?;
        self.finished = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unwritten(&error))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::refused(format!("`{}` is there already", path.display())).hint("name another file, or replace it: --force")
}
