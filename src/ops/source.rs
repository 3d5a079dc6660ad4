//! A backup's archive as the loader wants it: table of contents, rows by table, large objects.

use std::io::Read;
use std::sync::Arc;

use super::backup::Taken;
use super::context::Context;
use crate::archive::{BlockEntry, BlockRows, Index, RandomReader, StreamId, Toc};
use crate::error::{Error, Result};
use crate::postgres::load::{DataSource, LoadPlan, TableLoad};

/// More connections than this are only made when they were asked for.
const MOST_JOBS: u32 = 8;

/// One stream of a backup, opened for reading in any order.
struct ArchiveSource {
    reader: RandomReader,
    index: Arc<Index>,
    digest_key: [u8; 16],
}

impl ArchiveSource {
    fn range(&self, start: u64, end: u64) -> Result<Box<dyn Read + Send>> {
        Ok(self.reader.range(start, end)?)
    }

    fn block(&self, block: usize) -> Result<&BlockEntry> {
        self.index
            .blocks
            .get(block)
            .ok_or_else(|| Error::verification(format!("the archive has no data block {block}")))
    }
}

impl DataSource for ArchiveSource {
    fn table_of_contents(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.range(0, self.index.toc_bytes)?
            .read_to_end(&mut bytes)
            .map_err(|error| Error::verification("the table of contents could not be read").because(error))?;
        Ok(bytes)
    }

    fn with_large_objects(&self) -> Result<Option<Box<dyn Read + Send>>> {
        let mut parts: Box<dyn Read + Send> = self.range(0, self.index.toc_bytes)?;
        let mut any = false;
        for block in self.index.blocks.iter().filter(|block| block.large_objects) {
            parts = Box::new(parts.chain(self.range(block.start, block.end)?));
            any = true;
        }
        Ok(any.then_some(parts))
    }

    fn whole(&self) -> Result<Box<dyn Read + Send>> {
        self.range(0, self.index.raw_bytes)
    }

    fn rows(&self, block: usize) -> Result<Box<dyn Read + Send>> {
        let entry = self.block(block)?;
        let bytes = self.range(entry.start, entry.end)?;
        Ok(Box::new(BlockRows::new(bytes, entry, self.digest_key)?))
    }
}

/// How to load a backup, and its table of contents.
pub fn load_plan(ctx: &Context, backup: &Taken) -> Result<(LoadPlan, Toc)> {
    let stream = backup
        .manifest
        .sealed
        .streams
        .first()
        .ok_or_else(|| Error::verification(format!("backup `{}` has no stream", backup.id)))?;
    let lineage = backup.manifest.clear.lineage;
    let object = ctx.store.open_stream(lineage, backup.id, stream.number)?;
    let index = Arc::new(stream.index.clone());
    let id = StreamId { lineage, backup: backup.id, stream: stream.number };
    let source = ArchiveSource {
        reader: RandomReader::new(object, id, &backup.keys, index.clone())?,
        index: index.clone(),
        digest_key: backup.keys.digest_key(),
    };
    let toc = Toc::parse(&source.table_of_contents()?)?;
    let tables = index
        .blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| !block.large_objects)
        .map(|(number, block)| TableLoad {
            block: number,
            table: format!("{}.{}", block.namespace.lossy(), block.table.lossy()),
            copy_statement: block.copy_statement.0.clone(),
            rows: block.digest.rows,
            bytes: block.data_bytes,
        })
        .collect();
    let plan = LoadPlan {
        source: Arc::new(source),
        tables,
        encoding: toc.encoding().unwrap_or_else(|| backup.manifest.sealed.properties.encoding.clone()),
        jobs: restore_jobs(ctx.settings.backup.jobs),
        role: None,
        total_bytes: index.raw_bytes,
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
