//! Sealed stream → dump bytes, front to back.

use std::io::{self, Read};

use zstd::bulk::Decompressor;

use super::StreamId;
use super::error::ArchiveError;
use super::header;
use super::index::{self, Index, MAX_INDEX_BYTES};
use super::seal::{FRAME_HEADER_BYTES, FrameKey, Section, expect_end, read_section};
use crate::keys::SubKeys;

/// Reads a stream front to back. Every byte that [`Read`] gives out was authenticated; the end is
/// only reported once the last frame was seen. After an error every further read is one.
pub struct ArchiveReader<R: Read + Send> {
    source: R,
    data_key: FrameKey,
    index_key: FrameKey,
    decompressor: Decompressor<'static>,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    /// Bytes of `plain` that were given out.
    given: usize,
    seen: Seen,
    last_seen: bool,
    failed: bool,
}

impl<R: Read + Send> ArchiveReader<R> {
    /// Reads and checks the header.
    pub fn open(mut source: R, id: StreamId, keys: &SubKeys) -> Result<Self, ArchiveError> {
        let salt = header::read(&mut source, id)?;
        Ok(ArchiveReader {
            source,
            data_key: FrameKey::new(&keys.frames, &salt, Section::Data, id, b""),
            index_key: FrameKey::new(&keys.index, &salt, Section::Index, id, b""),
            decompressor: Decompressor::new()?,
            sealed: Vec::new(),
            plain: Vec::new(),
            given: 0,
            seen: Seen::default(),
            last_seen: false,
            failed: false,
        })
    }

    /// After the plaintext's end: reads the index that ends the stream, checks that it describes the
    /// frames that were read, and that nothing follows it.
    pub fn finish(mut self) -> Result<Index, ArchiveError> {
        if self.failed {
            return Err(ArchiveError::AlreadyFailed);
        }
        if !self.last_seen || self.given < self.plain.len() {
            return Err(ArchiveError::NotReadToEnd);
        }
        let index = read_index(&self.index_key, &mut self.source)?;
        self.seen.compare(&index)?;
        Ok(index)
    }

    fn next_frame(&mut self) -> Result<(), ArchiveError> {
        let counter = self.seen.next_counter()?;
        let header = self.data_key.read(&mut self.source, counter, &mut self.sealed)?;
        self.data_key.open(&mut self.decompressor, counter, header.last, &mut self.sealed, &mut self.plain)?;
        self.given = 0;
        self.last_seen = header.last;
        self.seen.add(header.sealed_bytes);
        self.seen.add_plain(self.plain.len() as u64);
        Ok(())
    }
}

impl<R: Read + Send> Read for ArchiveReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(ArchiveError::AlreadyFailed.into_io());
        }
        while self.given == self.plain.len() {
            if self.last_seen || buffer.is_empty() {
                return Ok(0);
            }
            if let Err(error) = self.next_frame() {
                self.failed = true;
                self.plain.clear();
                self.given = 0;
                return Err(error.into_io());
            }
        }
        let ready = &self.plain[self.given..];
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.given += count;
        Ok(count)
    }
}

/// Reads the index and expects the stream to end with it.
pub(super) fn read_index(key: &FrameKey, source: &mut impl Read) -> Result<Index, ArchiveError> {
    let encoded = read_section(key, MAX_INDEX_BYTES, source)?;
    expect_end(source)?;
    index::decode(&encoded)
}

/// The data frames that passed by.
#[derive(Default)]
pub(super) struct Seen {
    frames: Vec<u32>,
    raw_bytes: u64,
}

impl Seen {
    pub(super) fn next_counter(&self) -> Result<u32, ArchiveError> {
        u32::try_from(self.frames.len()).map_err(|_| ArchiveError::TooLarge { section: "data" })
    }

    /// Notes a frame; returns its length, its header included.
    pub(super) fn add(&mut self, sealed_bytes: usize) -> u32 {
        // A checked header's length always fits.
        let length = u32::try_from(FRAME_HEADER_BYTES + sealed_bytes).unwrap_or(u32::MAX);
        self.frames.push(length);
        length
    }

    pub(super) fn add_plain(&mut self, bytes: u64) {
        self.raw_bytes += bytes;
    }

    pub(super) fn compare(&self, index: &Index) -> Result<(), ArchiveError> {
        if self.frames != index.frames {
            return Err(ArchiveError::IndexDisagrees("the frames have other lengths".to_owned()));
        }
        if self.raw_bytes != index.raw_bytes {
            return Err(ArchiveError::IndexDisagrees(format!(
                "{} bytes of dump instead of {}",
                self.raw_bytes, index.raw_bytes
            )));
        }
        Ok(())
    }
}
