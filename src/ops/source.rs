//! A backup's archive as the loader wants it: table of contents, rows by table, large objects.

use std::collections::{HashMap, VecDeque};
use std::io::{Cursor, Read};
use std::sync::Arc;

use super::backup::Taken;
use super::context::Context;
use crate::archive::join::{self, JoinedBlock};
use crate::archive::{self, BlockEntry, BlockRows, Index, Joined, RandomReader, StreamId, Toc};
use crate::error::{Error, Result};
use crate::postgres::load::{DataSource, LoadPlan, TableLoad};

/// More connections than this are only made when they were asked for.
const MOST_JOBS: u32 = 8;

/// Indexes of tables with fewer bytes of rows are not worth a pg_restore of their own.
const EARLY_BYTES: u64 = 16 << 20;

/// The streams of a backup, opened for reading in any order, as the one dump that they are parts of.
struct ArchiveSource {
    parts: Vec<Part>,
    joined: Joined,
    digest_key: [u8; 16],
    /// Of large tables, by the number of the entry that brings their rows.
    own_indexes: HashMap<i32, Vec<i32>>,
}

/// One stream.
struct Part {
    reader: RandomReader,
    index: Arc<Index>,
}

impl Part {
    fn table_of_contents(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader
            .range(0, self.index.toc_bytes)?
            .read_to_end(&mut bytes)
            .map_err(|error| Error::verification("the table of contents could not be read").because(error))?;
        Ok(bytes)
    }

    fn block(&self, block: usize) -> Result<&BlockEntry> {
        self.index
            .blocks
            .get(block)
            .ok_or_else(|| Error::verification(format!("the archive has no data block {block}")))
    }
}

impl ArchiveSource {
    fn open(ctx: &Context, backup: &Taken) -> Result<ArchiveSource> {
        let lineage = backup.manifest.clear.lineage;
        let mut parts = Vec::new();
        let mut contents = Vec::new();
        for stream in &backup.manifest.sealed.streams {
            let object = ctx.store.open_stream(lineage, backup.id, stream.number)?;
            let index = Arc::new(stream.index.clone());
            let id = StreamId { lineage, backup: backup.id, stream: stream.number };
            let part = Part { reader: RandomReader::new(object, id, &backup.keys, index.clone())?, index };
            contents.push(part.table_of_contents()?);
            parts.push(part);
        }
        let of: Vec<_> =
            parts.iter().zip(&contents).map(|(part, toc)| join::Part { toc, blocks: &part.index.blocks }).collect();
        let joined = archive::join(&of)?;
        Ok(ArchiveSource { parts, joined, digest_key: backup.keys.digest_key(), own_indexes: HashMap::new() })
    }

    /// A block of the joined dump, and the stream that holds it.
    fn block(&self, number: usize) -> Result<(&JoinedBlock, &Part, &BlockEntry)> {
        let missing = || Error::verification(format!("the backup has no data block {number}"));
        let block = self.joined.blocks.get(number).ok_or_else(missing)?;
        let part = self.parts.get(block.part).ok_or_else(missing)?;
        Ok((block, part, part.block(block.block)?))
    }

    /// A table of contents with these blocks behind it, and how many they are.
    fn with_blocks(&self, contents: Vec<u8>, wanted: impl Fn(&BlockEntry) -> bool) -> Result<(Pieces, usize)> {
        let mut later = VecDeque::new();
        for number in 0..self.joined.blocks.len() {
            let (block, part, entry) = self.block(number)?;
            if wanted(entry) {
                later.push_back(Piece {
                    reader: part.reader.clone(),
                    block: *block,
                    start: entry.start,
                    end: entry.end,
                });
            }
        }
        let count = later.len();
        Ok((Pieces { open: Box::new(Cursor::new(contents)), later }, count))
    }
}

/// A block that is still to be read.
struct Piece {
    reader: RandomReader,
    block: JoinedBlock,
    start: u64,
    end: u64,
}

/// Pieces of a dump one after the other. Each is opened when it is its turn, because it holds buffers while it is open.
struct Pieces {
    open: Box<dyn Read + Send>,
    later: VecDeque<Piece>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let count = self.open.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(next) = self.later.pop_front() else { return Ok(0) };
            let range = next.reader.range(next.start, next.end).map_err(archive::ArchiveError::into_io)?;
            self.open = next.block.renumber(range);
        }
    }
}

impl DataSource for ArchiveSource {
    fn table_of_contents(&self) -> Result<Vec<u8>> {
        Ok(self.joined.toc.clone())
    }

    fn with_large_objects(&self) -> Result<Option<Box<dyn Read + Send>>> {
        let (pieces, count) = self.with_blocks(self.joined.toc.clone(), |block| block.large_objects)?;
        Ok((count > 0).then(|| Box::new(pieces) as Box<dyn Read + Send>))
    }

    fn whole(&self, contents: Vec<u8>) -> Result<Box<dyn Read + Send>> {
        // One stream is the dump as pg_dump wrote it.
        if let [part] = self.parts.as_slice() {
            let rest = part.reader.range(part.index.toc_bytes, part.index.raw_bytes)?;
            return Ok(Box::new(Cursor::new(contents).chain(rest)));
        }
        Ok(Box::new(self.with_blocks(contents, |_| true)?.0))
    }

    fn rows(&self, block: usize) -> Result<Box<dyn Read + Send>> {
        let (_, part, entry) = self.block(block)?;
        let bytes = part.reader.range(entry.start, entry.end)?;
        Ok(Box::new(BlockRows::new(bytes, entry, self.digest_key)?))
    }

    fn indexes_of(&self, block: usize) -> Vec<i32> {
        let large = self.block(block).ok().filter(|(_, _, entry)| entry.data_bytes >= EARLY_BYTES);
        large.and_then(|(joined, _, _)| self.own_indexes.get(&joined.dump_id)).cloned().unwrap_or_default()
    }
}

/// How to load a backup, and its table of contents.
pub fn load_plan(ctx: &Context, backup: &Taken) -> Result<(LoadPlan, Toc)> {
    if backup.manifest.sealed.streams.is_empty() {
        return Err(Error::verification(format!("backup `{}` has no stream", backup.id)));
    }
    let mut source = ArchiveSource::open(ctx, backup)?;
    let toc = Toc::parse(&source.joined.toc)?;
    source.own_indexes = toc.own_indexes();
    let mut tables = Vec::new();
    for number in 0..source.joined.blocks.len() {
        let (_, _, block) = source.block(number)?;
        if block.large_objects {
            continue;
        }
        tables.push(TableLoad {
            block: number,
            table: format!("{}.{}", block.namespace.lossy(), block.table.lossy()),
            copy_statement: block.copy_statement.0.clone(),
            rows: block.digest.rows,
            bytes: block.data_bytes,
        });
    }
    let plan = LoadPlan {
        tables,
        encoding: toc.encoding().unwrap_or_else(|| backup.manifest.sealed.properties.encoding.clone()),
        jobs: restore_jobs(ctx.settings.backup.jobs),
        role: None,
        total_bytes: source.parts.iter().map(|part| part.index.raw_bytes).sum(),
        source: Arc::new(source),
    };
    Ok((plan, toc))
}

/// Connections of a restore. 1 is the setting's default, and stands for as many as this machine has cores:
/// each keeps about one of ours busy and one of the server's.
pub(super) fn restore_jobs(set: u32) -> u32 {
    match set {
        0 | 1 => std::thread::available_parallelism()
            .map_or(2, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
            .clamp(2, MOST_JOBS),
        more => more,
    }
}
