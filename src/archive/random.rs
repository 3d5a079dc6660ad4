//! Sealed stream → ranges of the dump.

use std::io::{self, Read};
use std::sync::Arc;

use zstd::bulk::Decompressor;

use super::error::ArchiveError;
use super::header::{self, HEADER_BYTES};
use super::index::Index;
use super::seal::{FRAME_HEADER_BYTES, FrameKey, Section, read_full};
use super::{FRAME_BYTES, StreamId};
use crate::io::{ReadAt, Sequential};
use crate::keys::SubKeys;

/// Reads plaintext ranges of a stream, opening only the frames that they touch. Cheap to clone and to
/// share; each [`range`](Self::range) opens its own frames.
#[derive(Clone)]
pub struct RandomReader {
    source: Arc<dyn ReadAt>,
    shared: Arc<Shared>,
}

struct Shared {
    key: FrameKey,
    index: Arc<Index>,
    /// Where each data frame begins in the source, and at last where the data section ends.
    offsets: Vec<u64>,
}

impl RandomReader {
    /// `index` is the manifest's copy. Reads and checks the header, and that the source is long
    /// enough for the frames of the index.
    pub fn new(source: Arc<dyn ReadAt>, id: StreamId, keys: &SubKeys, index: Arc<Index>) -> Result<Self, ArchiveError> {
        index.check()?;
        let salt = header::read(&mut Sequential::new(source.as_ref(), 0), id)?;
        let mut offsets = Vec::with_capacity(index.frames.len() + 1);
        let mut offset = HEADER_BYTES as u64;
        for (number, length) in index.frames.iter().enumerate() {
            offsets.push(offset);
            offset += u64::from(*length);
            if offset > source.len_bytes() {
                return Err(ArchiveError::EndsInsideFrame { section: Section::Data.name(), frame: counter(number)? });
            }
        }
        offsets.push(offset);
        let key = FrameKey::new(&keys.frames, &salt, Section::Data, id, b"");
        Ok(RandomReader { source, shared: Arc::new(Shared { key, index, offsets }) })
    }

    /// A reader of the plaintext from `start` to `end`. After an error every further read is one.
    pub fn range(&self, start: u64, end: u64) -> Result<Box<dyn Read + Send>, ArchiveError> {
        let raw_bytes = self.shared.index.raw_bytes;
        if start > end || end > raw_bytes {
            return Err(ArchiveError::OutOfRange { start, end, raw_bytes });
        }
        Ok(Box::new(Range {
            reader: self.clone(),
            decompressor: Decompressor::new()?,
            at: start,
            end,
            open: None,
            sealed: Vec::new(),
            plain: Vec::new(),
            failed: false,
        }))
    }
}

struct Range {
    reader: RandomReader,
    decompressor: Decompressor<'static>,
    at: u64,
    end: u64,
    /// The frame whose plaintext is held.
    open: Option<usize>,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    failed: bool,
}

impl Range {
    /// The plaintext that is ready at `self.at`; its frame is opened when it is not.
    fn ready(&mut self) -> Result<&[u8], ArchiveError> {
        let frame_bytes = FRAME_BYTES as u64;
        let number = usize::try_from(self.at / frame_bytes).unwrap_or(usize::MAX);
        if self.open != Some(number) {
            self.open = None;
            self.open_frame(number)?;
            self.open = Some(number);
        }
        let within = usize::try_from(self.at % frame_bytes).unwrap_or(usize::MAX);
        // The range lies within the dump, so only an index that lies can come to an empty rest.
        match self.plain.get(within..) {
            Some(rest) if !rest.is_empty() => Ok(rest),
            _ => Err(ArchiveError::FrameSize {
                section: Section::Data.name(),
                frame: counter(number)?,
                bytes: self.plain.len(),
            }),
        }
    }

    fn open_frame(&mut self, number: usize) -> Result<(), ArchiveError> {
        let shared = Arc::clone(&self.reader.shared);
        let frame = counter(number)?;
        let offset = shared.offsets.get(number).copied().unwrap_or(u64::MAX);
        let expected = shared.index.frames.get(number).copied().unwrap_or_default();
        let mut source = Sequential::new(self.reader.source.as_ref(), offset);
        let header = shared.key.read(&mut source, frame, &mut self.sealed)?;
        if u32::try_from(FRAME_HEADER_BYTES + header.sealed_bytes) != Ok(expected)
            || header.last != (number + 1 == shared.index.frames.len())
        {
            return Err(ArchiveError::ManifestDisagrees(format!(
                "frame {frame} is not the one that the manifest describes"
            )));
        }
        shared.key.open(&mut self.decompressor, frame, header.last, &mut self.sealed, &mut self.plain)
    }
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(ArchiveError::AlreadyFailed.into_io());
        }
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let wanted = left.min(buffer.len());
        let copied = self.ready().and_then(|mut ready| Ok(read_full(&mut ready, &mut buffer[..wanted])?));
        match copied {
            Ok(count) => {
                self.at += count as u64;
                Ok(count)
            }
            Err(error) => {
                self.failed = true;
                Err(error.into_io())
            }
        }
    }
}

fn counter(number: usize) -> Result<u32, ArchiveError> {
    u32::try_from(number).map_err(|_| ArchiveError::TooLarge { section: Section::Data.name() })
}
