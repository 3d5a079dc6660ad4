//! Reading at an offset, the one ability that a stored object must have.

use std::io;

/// A finished, immutable object that can be read at any offset.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` from `offset` on; returns the bytes read, fewer than asked for only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The object's length in bytes.
    fn len_bytes(&self) -> u64;
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let count = buffer.len().min(self.len() - start);
        buffer[..count].copy_from_slice(&self[start..start + count]);
        Ok(count)
    }

    fn len_bytes(&self) -> u64 {
        self.len() as u64
    }
}

/// Reads an object front to back.
pub struct Sequential<'a> {
    source: &'a dyn ReadAt,
    offset: u64,
}

impl<'a> Sequential<'a> {
    /// Starts at `offset`.
    pub fn new(source: &'a dyn ReadAt, offset: u64) -> Self {
        Sequential { source, offset }
    }
}

impl io::Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(self.offset, buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}
