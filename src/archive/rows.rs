//! The rows of a data block, without the dump's own framing.

use std::io::{self, Read};

use super::digest::{DataAfterEnd, RowDigester};
use super::error::ArchiveError;
use super::index::BlockEntry;
use super::parse::{INT_BYTES, int};
use super::seal::{expect_end, read_full};

/// Reads a table's COPY text out of the bytes of its data block: chunk headers and the closing `\.`
/// are left out, and the row count and digest are checked against the index at the end.
///
/// The last read is an error instead of an end when they differ (`InvalidData`, with an
/// [`ArchiveError`] inside); whoever loads the rows must give up then.
pub struct BlockRows<R: Read> {
    block: Buffered<R>,
    entry: BlockEntry,
    digester: RowDigester,
    /// Bytes that are left of the chunk.
    chunk_left: u64,
    /// Bytes of rows that are still to come.
    rows_left: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Rows,
    Done,
    Failed,
}

impl<R: Read> BlockRows<R> {
    /// `block` yields exactly the bytes from `entry.start` to `entry.end`.
    pub fn new(block: R, entry: &BlockEntry, digest_key: [u8; 16]) -> Result<Self, ArchiveError> {
        let mut rows = BlockRows {
            block: Buffered::new(block),
            entry: entry.clone(),
            digester: RowDigester::new(&digest_key),
            chunk_left: 0,
            rows_left: entry.data_bytes,
            state: State::Rows,
        };
        if entry.large_objects {
            return Err(rows.differ("it holds large objects".to_owned()));
        }
        let mut head = [0; 1 + INT_BYTES];
        rows.fill(&mut head)?;
        let [kind, number @ ..] = head;
        if kind != 1 || int(number) != Some(i64::from(entry.dump_id)) {
            return Err(rows.differ("another block stands at its place".to_owned()));
        }
        Ok(rows)
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let wanted = usize::try_from(self.rows_left).unwrap_or(usize::MAX).min(buffer.len());
        let mut filled = 0;
        while filled < wanted {
            if self.chunk_left == 0 && !self.next_chunk()? {
                return Err(self.differ("they end too early".to_owned()));
            }
            let part = usize::try_from(self.chunk_left).unwrap_or(usize::MAX).min(wanted - filled);
            self.fill(&mut buffer[filled..filled + part])?;
            self.chunk_left -= part as u64;
            filled += part;
        }
        self.rows_left -= filled as u64;
        let fed = self.digester.feed(&buffer[..filled]);
        if fed == Err(DataAfterEnd) || self.digester.is_closed() {
            return Err(self.differ("they end too early".to_owned()));
        }
        if filled == 0 {
            self.check_end()?;
            self.state = State::Done;
        }
        Ok(filled)
    }

    /// Reads on to the block's end, where only the closing line may stand, and compares.
    fn check_end(&mut self) -> Result<(), ArchiveError> {
        if self.digester.is_within_row() {
            return Err(self.differ("they end within a row".to_owned()));
        }
        let mut part = [0; 64];
        while self.chunk_left > 0 || self.next_chunk()? {
            let count = usize::try_from(self.chunk_left).unwrap_or(usize::MAX).min(part.len());
            self.fill(&mut part[..count])?;
            self.chunk_left -= count as u64;
            if self.digester.feed(&part[..count]) == Err(DataAfterEnd)
                || self.digester.data_bytes() != self.entry.data_bytes
            {
                return Err(self.differ("more of them follow".to_owned()));
            }
        }
        if !self.digester.is_closed() {
            return Err(self.differ("the line that ends them is missing".to_owned()));
        }
        expect_end(&mut self.block)?;
        let (expected, found) = (self.entry.digest, self.digester.digest());
        if expected.rows != found.rows {
            return Err(self.differ(format!("{} instead of {}", found.rows, expected.rows)));
        }
        if expected.sum != found.sum {
            return Err(self.differ("their digest is another".to_owned()));
        }
        Ok(())
    }

    /// Goes to the next chunk; false at the block's end.
    fn next_chunk(&mut self) -> Result<bool, ArchiveError> {
        let mut head = [0; INT_BYTES];
        self.fill(&mut head)?;
        match int(head).and_then(|length| u64::try_from(length).ok()) {
            Some(length) => {
                self.chunk_left = length;
                Ok(length > 0)
            }
            None => Err(self.differ("a chunk's length is impossible".to_owned())),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        match read_full(&mut self.block, buffer)? == buffer.len() {
            true => Ok(()),
            false => Err(self.differ("their block is cut off".to_owned())),
        }
    }

    fn differ(&self, what: String) -> ArchiveError {
        ArchiveError::Rows { table: format!("`{}.{}`", self.entry.namespace.lossy(), self.entry.table.lossy()), what }
    }
}

impl<R: Read> Read for BlockRows<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.state == State::Done {
            return Ok(0);
        }
        if self.state == State::Failed {
            return Err(ArchiveError::AlreadyFailed.into_io());
        }
        let count = self.next(buffer);
        if count.is_err() {
            self.state = State::Failed;
        }
        count.map_err(ArchiveError::into_io)
    }
}

/// pg_dump before version 18 writes a chunk per row: their headers are not worth a read each.
struct Buffered<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Buffered<R> {
    fn new(source: R) -> Self {
        Buffered { source, buffer: vec![0; 64 << 10], start: 0, end: 0 }
    }
}

impl<R: Read> Read for Buffered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            if into.len() >= self.buffer.len() {
                return self.source.read(into);
            }
            self.end = 0;
            self.start = 0;
            self.end = self.source.read(&mut self.buffer)?;
        }
        let count = into.len().min(self.end - self.start);
        into[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }
}
