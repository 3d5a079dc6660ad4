//! One frame: compressed, sealed, and bound to its place. The byte layout is that of
//! `docs/archive-format.md`; stream and manifest share it.

use std::io::{self, Cursor, Read, Write};

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm};
use rand::RngCore;
use zstd::bulk::{Compressor, Decompressor};

use super::error::ArchiveError;
use super::{FORMAT, FRAME_BYTES, StreamId};
use crate::keys::salted;

/// Bytes in front of a frame's sealed bytes: length, kind, counter, mark.
pub(crate) const FRAME_HEADER_BYTES: usize = 4 + 1 + 4 + 8;

/// Bytes of the authentication tag.
const TAG_BYTES: usize = 16;

/// The longest that sealed bytes can be: zstd's bound for [`FRAME_BYTES`], and the tag.
pub(crate) const MAX_SEALED_BYTES: usize = FRAME_BYTES + FRAME_BYTES / 256 + TAG_BYTES;

/// A part of an archive or a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Data,
    Index,
    Manifest,
}

impl Section {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Section::Data => "data",
            Section::Index => "index",
            Section::Manifest => "manifest",
        }
    }

    /// The kind byte of its frames: the section, and in the lowest bit whether it is the last one.
    fn kind(self, last: bool) -> u8 {
        let section = match self {
            Section::Data => 0,
            Section::Index => 2,
            Section::Manifest => 4,
        };
        section | u8::from(last)
    }
}

/// Random bytes that stand in the clear at the start of each object that is written.
pub(crate) type Salt = [u8; 32];

pub(crate) fn new_salt() -> Salt {
    let mut salt = [0; 32];
    rand::rng().fill_bytes(&mut salt);
    salt
}

/// Seals and opens the frames of one section of one object.
pub(crate) struct FrameKey {
    cipher: Aes256Gcm,
    section: Section,
    stream: u32,
    /// The salt's first bytes, which stand in each frame, so that a frame from elsewhere is told
    /// apart from a damaged one.
    mark: [u8; 8],
    /// What is authenticated with every frame: format, lineage, backup, stream.
    binding: Vec<u8>,
    /// What is authenticated besides, after the frame's own kind and counter.
    extra: Vec<u8>,
}

/// A frame's header, checked against its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) sealed_bytes: usize,
    pub(crate) last: bool,
}

impl FrameKey {
    pub(crate) fn new(subkey: &[u8; 32], salt: &Salt, section: Section, id: StreamId, extra: &[u8]) -> Self {
        let mut mark = [0; 8];
        mark.copy_from_slice(&salt[..8]);
        let mut binding = Vec::with_capacity(40);
        binding.extend_from_slice(&FORMAT.to_le_bytes());
        binding.extend_from_slice(id.lineage.as_bytes());
        binding.extend_from_slice(id.backup.as_bytes());
        binding.extend_from_slice(&id.stream.to_le_bytes());
        FrameKey { cipher: salted(subkey, salt), section, stream: id.stream, mark, binding, extra: extra.to_vec() }
    }

    pub(crate) fn section(&self) -> &'static str {
        self.section.name()
    }

    /// Compresses and seals `plain` into `frame`, its header included; what `frame` held is gone.
    pub(crate) fn seal(
        &self,
        compressor: &mut Compressor<'_>,
        counter: u32,
        last: bool,
        plain: &[u8],
        frame: &mut Vec<u8>,
    ) -> Result<(), ArchiveError> {
        frame.clear();
        frame.reserve_exact(FRAME_HEADER_BYTES + MAX_SEALED_BYTES);
        frame.resize(FRAME_HEADER_BYTES, 0);
        // zstd writes behind the header, into room that nobody has to fill with zeros first.
        let mut behind = Cursor::new(std::mem::take(frame));
        behind.set_position(FRAME_HEADER_BYTES as u64);
        let compressed = compressor
            .compress_to_buffer(plain, &mut behind)
            .map_err(|error| ArchiveError::Sealing(error.to_string()))?;
        *frame = behind.into_inner();
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &self.nonce(counter, last).into(),
                &self.associated(counter, last),
                InOutBuf::from(&mut frame[FRAME_HEADER_BYTES..]),
            )
            .map_err(|_| ArchiveError::Sealing("the frame is too long".to_owned()))?;
        frame.extend_from_slice(&tag);
        let sealed = u32::try_from(compressed + TAG_BYTES)
            .map_err(|_| ArchiveError::Sealing("the frame is too long".to_owned()))?;
        frame[0..4].copy_from_slice(&sealed.to_le_bytes());
        frame[4] = self.section.kind(last);
        frame[5..9].copy_from_slice(&counter.to_le_bytes());
        frame[9..17].copy_from_slice(&self.mark);
        Ok(())
    }

    /// Reads a header that should be that of frame `counter`.
    pub(crate) fn check(&self, header: &[u8; FRAME_HEADER_BYTES], counter: u32) -> Result<FrameHeader, ArchiveError> {
        let (section, frame) = (self.section(), counter);
        let [l0, l1, l2, l3, kind, c0, c1, c2, c3, mark @ ..] = *header;
        if mark != self.mark {
            return Err(ArchiveError::ForeignFrame { section, frame });
        }
        if kind > Section::Manifest.kind(true) {
            return Err(ArchiveError::FrameKind { section, frame, found: kind });
        }
        let last = kind & 1 == 1;
        if kind != self.section.kind(last) {
            return Err(ArchiveError::LastFrameMissing { section, frame });
        }
        let found = u32::from_le_bytes([c0, c1, c2, c3]);
        if found != counter {
            return Err(ArchiveError::FrameOrder { section, frame, found });
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let sealed_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if sealed_bytes <= TAG_BYTES || sealed_bytes > MAX_SEALED_BYTES {
            return Err(ArchiveError::FrameLength { section, frame, length });
        }
        Ok(FrameHeader { sealed_bytes, last })
    }

    /// Authenticates `sealed` (which is overwritten) and decompresses it into `plain`.
    pub(crate) fn open(
        &self,
        decompressor: &mut Decompressor<'_>,
        counter: u32,
        last: bool,
        sealed: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), ArchiveError> {
        let (section, frame) = (self.section(), counter);
        plain.clear();
        let body = self.authenticate(counter, last, sealed)?;
        // zstd writes no further than the capacity, whatever the frame claims to hold.
        plain.reserve_exact(FRAME_BYTES);
        decompressor
            .decompress_to_buffer(body, plain)
            .map_err(|_| ArchiveError::FrameCompression { section, frame })?;
        let fits = match last {
            true => !plain.is_empty() && plain.len() <= FRAME_BYTES,
            false => plain.len() == FRAME_BYTES,
        };
        if !fits {
            let bytes = plain.len();
            plain.clear();
            return Err(ArchiveError::FrameSize { section, frame, bytes });
        }
        Ok(())
    }

    /// Authenticates `sealed` (which is overwritten): the compressed bytes as they were sealed.
    pub(crate) fn authenticate<'a>(
        &self,
        counter: u32,
        last: bool,
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], ArchiveError> {
        let (section, frame) = (self.section(), counter);
        let Some((body, tag)) = sealed.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(ArchiveError::NotAuthentic { section, frame });
        };
        self.cipher
            .decrypt_inout_detached(
                &self.nonce(counter, last).into(),
                &self.associated(counter, last),
                InOutBuf::from(&mut *body),
                &(*tag).into(),
            )
            .map_err(|_| ArchiveError::NotAuthentic { section, frame })?;
        Ok(body)
    }

    /// Reads the header and sealed bytes of frame `counter`. Allocates no more than a frame can hold.
    pub(crate) fn read(
        &self,
        source: &mut impl Read,
        counter: u32,
        sealed: &mut Vec<u8>,
    ) -> Result<FrameHeader, ArchiveError> {
        let (section, frame) = (self.section(), counter);
        let mut header = [0; FRAME_HEADER_BYTES];
        match read_full(source, &mut header)? {
            0 => return Err(ArchiveError::EndsBetweenFrames { section, frame }),
            FRAME_HEADER_BYTES => {}
            _ => return Err(ArchiveError::EndsInsideFrame { section, frame }),
        }
        let header = self.check(&header, counter)?;
        sealed.resize(header.sealed_bytes, 0);
        if read_full(source, sealed)? < header.sealed_bytes {
            return Err(ArchiveError::EndsInsideFrame { section, frame });
        }
        Ok(header)
    }

    /// Unique under this key: counter and last-frame flag make it so within the stream.
    fn nonce(&self, counter: u32, last: bool) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[0..4].copy_from_slice(&self.stream.to_le_bytes());
        nonce[4..8].copy_from_slice(&counter.to_le_bytes());
        nonce[8..12].copy_from_slice(&u32::from(last).to_le_bytes());
        nonce
    }

    fn associated(&self, counter: u32, last: bool) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.binding.len() + 5 + self.extra.len());
        data.extend_from_slice(&self.binding);
        data.push(self.section.kind(last));
        data.extend_from_slice(&counter.to_le_bytes());
        data.extend_from_slice(&self.extra);
        data
    }
}

/// Writes `plain`, which must not be empty, as a whole section.
pub(crate) fn write_section(
    key: &FrameKey,
    level: i32,
    plain: &[u8],
    sink: &mut impl Write,
) -> Result<(), ArchiveError> {
    let mut compressor = Compressor::new(level)?;
    let mut frame = Vec::new();
    let count = plain.len().div_ceil(FRAME_BYTES);
    for (number, part) in plain.chunks(FRAME_BYTES).enumerate() {
        let counter = u32::try_from(number).map_err(|_| ArchiveError::TooLarge { section: key.section() })?;
        key.seal(&mut compressor, counter, number + 1 == count, part, &mut frame)?;
        sink.write_all(&frame)?;
    }
    Ok(())
}

/// Reads a whole section of at most `limit` plaintext bytes.
pub(crate) fn read_section(key: &FrameKey, limit: usize, source: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut decompressor = Decompressor::new()?;
    let (mut sealed, mut part, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for counter in 0..=u32::MAX {
        let header = key.read(source, counter, &mut sealed)?;
        key.open(&mut decompressor, counter, header.last, &mut sealed, &mut part)?;
        if whole.len() + part.len() > limit {
            break;
        }
        whole.extend_from_slice(&part);
        if header.last {
            return Ok(whole);
        }
    }
    Err(ArchiveError::TooLarge { section: key.section() })
}

/// Fails when anything is left to read.
pub(crate) fn expect_end(source: &mut impl Read) -> Result<(), ArchiveError> {
    match read_full(source, &mut [0])? {
        0 => Ok(()),
        _ => Err(ArchiveError::TrailingBytes),
    }
}

/// Fills `buffer` as far as there are bytes; fewer than its length only at the end.
pub(crate) fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BackupId, Lineage};

    #[test]
    fn the_longest_sealed_frame_is_zstds_own_bound() {
        assert_eq!(MAX_SEALED_BYTES, zstd::zstd_safe::compress_bound(FRAME_BYTES) + TAG_BYTES);
    }

    #[test]
    fn what_cannot_be_compressed_fits_into_a_frame() {
        let id = StreamId { lineage: Lineage::new(), backup: BackupId::new(), stream: 3 };
        let key = FrameKey::new(&[1; 32], &[2; 32], Section::Data, id, b"");
        let mut noise = vec![0; FRAME_BYTES];
        rand::rng().fill_bytes(&mut noise);
        let mut frame = Vec::new();
        for level in [1, 19] {
            let mut compressor = Compressor::new(level).unwrap();
            key.seal(&mut compressor, 7, false, &noise, &mut frame).unwrap();
            let mut sealed = Vec::new();
            let header = key.read(&mut frame.as_slice(), 7, &mut sealed).unwrap();
            assert!(!header.last);
            let mut plain = Vec::new();
            let mut decompressor = Decompressor::new().unwrap();
            key.open(&mut decompressor, 7, false, &mut sealed, &mut plain).unwrap();
            assert!(plain == noise);
        }
    }

    #[test]
    fn an_authentic_bomb_is_stopped_at_a_frame() {
        let id = StreamId { lineage: Lineage::new(), backup: BackupId::new(), stream: 0 };
        let key = FrameKey::new(&[1; 32], &[2; 32], Section::Data, id, b"");
        let mut compressor = Compressor::new(3).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        for (bytes, last) in [(FRAME_BYTES * 64, true), (FRAME_BYTES + 1, true), (FRAME_BYTES - 1, false), (0, true)] {
            let (mut frame, mut plain) = (Vec::new(), Vec::new());
            key.seal(&mut compressor, 0, last, &vec![7; bytes], &mut frame).unwrap();
            let opened = key.open(&mut decompressor, 0, last, &mut frame[FRAME_HEADER_BYTES..], &mut plain);
            assert!(
                matches!(opened, Err(ArchiveError::FrameCompression { .. } | ArchiveError::FrameSize { .. })),
                "{opened:?}"
            );
            assert!(plain.is_empty() && plain.capacity() <= 2 * FRAME_BYTES);
        }
    }
}
