//! The frames of some tables of a backup, each opened once, and counted.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::archive::{ArchiveError, BlockEntry, BlockRows, FRAME_BYTES, Index, RandomReader, StreamId};
use crate::error::{Error, Result};
use crate::keys::SubKeys;
use crate::manifest::Manifest;
use crate::ops::context::{Context, blocking};
use crate::postgres::load::DataSource;

/// A frame's place: the stream's among the manifest's, and its number.
type Place = (usize, u64);

/// A frame's plaintext, for those who still read it.
type Plain = Arc<Vec<u8>>;

/// A backup's streams, of which only the frames that are asked for are opened.
pub struct Frames {
    streams: Vec<(RandomReader, Arc<Index>)>,
    digest_key: [u8; 16],
    opened: AtomicU64,
    /// The frame that was opened last: blocks of small tables share one.
    last: Mutex<Option<(Place, Plain)>>,
}

/// A data block, and the stream that it stands in.
#[derive(Clone, Debug)]
pub struct Block {
    /// The stream's place among the manifest's.
    pub stream: usize,
    /// The block.
    pub entry: BlockEntry,
}

impl Block {
    /// The frames that it stands in.
    fn frames(&self) -> impl Iterator<Item = Place> {
        let size = FRAME_BYTES as u64;
        let stream = self.stream;
        (self.entry.start / size..self.entry.end.div_ceil(size)).map(move |number| (stream, number))
    }
}

/// How many frames these blocks stand in.
pub fn frames_of<'a>(blocks: impl Iterator<Item = &'a Block>) -> u64 {
    blocks.flat_map(Block::frames).collect::<BTreeSet<Place>>().len() as u64
}

impl Frames {
    /// Opens the streams' headers; no frame yet.
    pub async fn open(ctx: &Context, manifest: &Manifest, keys: &SubKeys) -> Result<Arc<Frames>> {
        let store = ctx.store.clone();
        let (lineage, backup) = (manifest.clear.lineage, manifest.clear.backup);
        let records: Vec<(u32, Arc<Index>)> =
            manifest.sealed.streams.iter().map(|stream| (stream.number, Arc::new(stream.index.clone()))).collect();
        let keys = keys.clone();
        blocking(move || {
            let mut streams = Vec::with_capacity(records.len());
            for (number, index) in records {
                let object = store.open_stream(lineage, backup, number)?;
                let id = StreamId { lineage, backup, stream: number };
                streams.push((RandomReader::new(object, id, &keys, index.clone())?, index));
            }
            let digest_key = keys.digest_key();
            Ok(Arc::new(Frames { streams, digest_key, opened: AtomicU64::new(0), last: Mutex::default() }))
        })
        .await
    }

    /// The table of contents: that of the first stream, which holds every definition.
    pub fn contents(self: &Arc<Self>) -> Result<Vec<u8>> {
        let Some((_, index)) = self.streams.first() else {
            return Err(Error::verification("the backup has no stream"));
        };
        let mut bytes = Vec::new();
        self.range(0, 0, index.toc_bytes)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::verification("the table of contents could not be read").because(error))?;
        Ok(bytes)
    }

    /// Every data block of the backup.
    pub fn blocks(&self) -> impl Iterator<Item = Block> {
        self.streams.iter().enumerate().flat_map(|(stream, (_, index))| {
            index.blocks.iter().map(move |entry| Block { stream, entry: entry.clone() })
        })
    }

    /// A table's COPY text. Its last read compares rows and digest with the index.
    fn rows(self: &Arc<Self>, block: &Block) -> Result<Box<dyn Read + Send>> {
        let bytes = self.range(block.stream, block.entry.start, block.entry.end);
        Ok(Box::new(BlockRows::new(bytes, &block.entry, self.digest_key)?))
    }

    /// Frames opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The key that rows are digested under.
    pub fn digest_key(&self) -> [u8; 16] {
        self.digest_key
    }

    fn range(self: &Arc<Self>, stream: usize, start: u64, end: u64) -> Range {
        Range { frames: Arc::clone(self), stream, at: start, end, held: None }
    }

    fn frame(&self, place: Place) -> Result<Plain, ArchiveError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, plain)) = last.filter(|(there, _)| *there == place) {
            return Ok(plain);
        }
        let plain = Arc::new(self.open_frame(place)?);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((place, plain.clone()));
        Ok(plain)
    }

    fn open_frame(&self, (stream, number): Place) -> Result<Vec<u8>, ArchiveError> {
        let nowhere = |raw_bytes| ArchiveError::OutOfRange { start: number, end: number, raw_bytes };
        let (reader, index) = self.streams.get(stream).ok_or_else(|| nowhere(0))?;
        let start = number.saturating_mul(FRAME_BYTES as u64);
        let end = start.saturating_add(FRAME_BYTES as u64).min(index.raw_bytes);
        let mut plain = Vec::with_capacity(FRAME_BYTES);
        reader.range(start, end)?.read_to_end(&mut plain).map_err(ArchiveError::from_io)?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(plain)
    }
}

/// Plaintext of one stream. Holds on to the frame that it reads, whatever others open meanwhile.
struct Range {
    frames: Arc<Frames>,
    stream: usize,
    at: u64,
    end: u64,
    held: Option<(Place, Plain)>,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let size = FRAME_BYTES as u64;
        let place = (self.stream, self.at / size);
        let plain = match &self.held {
            Some((held, plain)) if *held == place => plain.clone(),
            _ => {
                let plain = self.frames.frame(place).map_err(ArchiveError::into_io)?;
                self.held = Some((place, plain.clone()));
                plain
            }
        };
        let within = usize::try_from(self.at % size).unwrap_or(usize::MAX);
        let ready = plain.get(within..).unwrap_or_default();
        let count = ready.len().min(left).min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

/// Some tables of a backup as the loader wants them.
pub struct TableSource {
    frames: Arc<Frames>,
    contents: Vec<u8>,
    blocks: Vec<Block>,
}

impl TableSource {
    /// Gives out these blocks under their places in the list.
    pub fn new(frames: Arc<Frames>, contents: Vec<u8>, blocks: Vec<Block>) -> TableSource {
        TableSource { frames, contents, blocks }
    }
}

impl DataSource for TableSource {
    fn table_of_contents(&self) -> Result<Vec<u8>> {
        Ok(self.contents.clone())
    }

    fn with_large_objects(&self) -> Result<Option<Box<dyn Read + Send>>> {
        Ok(None)
    }

    fn whole(&self, _: Vec<u8>) -> Result<Box<dyn Read + Send>> {
        Err(Error::failed("single tables are never loaded as a whole dump"))
    }

    fn rows(&self, block: usize) -> Result<Box<dyn Read + Send>> {
        let block =
            self.blocks.get(block).ok_or_else(|| Error::verification(format!("there is no data block {block}")))?;
        self.frames.rows(block)
    }
}
