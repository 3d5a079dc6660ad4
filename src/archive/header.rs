//! The header of a stream.

use std::io::Read;

use uuid::Uuid;

use super::error::ArchiveError;
use super::seal::{Salt, read_full};
use super::{FORMAT, FRAME_BYTES, StreamId};

/// The first bytes of every stream.
const MAGIC: &[u8; 8] = b"ripcord\n";

/// Bytes of the header: magic, format, lineage, backup, stream, frame size, salt.
pub(super) const HEADER_BYTES: usize = 8 + 4 + 16 + 16 + 4 + 4 + 32;

pub(super) fn encode(id: StreamId, salt: &Salt) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(id.lineage.as_bytes());
    header.extend_from_slice(id.backup.as_bytes());
    header.extend_from_slice(&id.stream.to_le_bytes());
    header.extend_from_slice(&(FRAME_BYTES as u32).to_le_bytes());
    header.extend_from_slice(salt);
    header
}

/// Reads a header, and checks that it is that of stream `id`. Returns the salt, which the frames
/// authenticate, since their keys are derived from it.
pub(super) fn read(source: &mut impl Read, id: StreamId) -> Result<Salt, ArchiveError> {
    let mut header = [0; HEADER_BYTES];
    let bytes = read_full(source, &mut header)?;
    let known = bytes.min(MAGIC.len());
    if header[..known] != MAGIC[..known] {
        return Err(ArchiveError::NotAnArchive);
    }
    if bytes < HEADER_BYTES {
        return Err(ArchiveError::HeaderTruncated { bytes });
    }
    let format = number(&header, 8);
    if format != FORMAT {
        return Err(ArchiveError::UnknownFormat { found: format });
    }
    let lineage = bytes_at::<16>(&header, 12);
    if lineage != *id.lineage.as_bytes() {
        return Err(ArchiveError::WrongLineage { found: Uuid::from_bytes(lineage), expected: id.lineage.0 });
    }
    let backup = bytes_at::<16>(&header, 28);
    if backup != *id.backup.as_bytes() {
        return Err(ArchiveError::WrongBackup { found: Uuid::from_bytes(backup), expected: id.backup.0 });
    }
    let stream = number(&header, 44);
    if stream != id.stream {
        return Err(ArchiveError::WrongStream { found: stream, expected: id.stream });
    }
    let frame_size = number(&header, 48);
    if frame_size != FRAME_BYTES as u32 {
        return Err(ArchiveError::WrongFrameSize { found: frame_size });
    }
    Ok(bytes_at::<32>(&header, 52))
}

fn number(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(header, at))
}

fn bytes_at<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}
