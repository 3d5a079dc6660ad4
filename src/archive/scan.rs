//! Reads a dump while it streams by: table of contents, data blocks, row digests.

use std::collections::{HashMap, HashSet};

use super::digest::{DataAfterEnd, ObjectDigester, RowDigester};
use super::error::ArchiveError;
use super::index::BlockEntry;
use super::parse::{INT_BYTES, MAX_TOC_BYTES, TocParser, int};
use super::toc::{Toc, TocEntry};

/// What a dump holds.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Header and table of contents.
    pub toc: Toc,
    /// The data blocks in order, with rows and digests.
    pub blocks: Vec<BlockEntry>,
    /// Bytes of the whole dump.
    pub raw_bytes: u64,
}

/// Fed with the bytes of `pg_dump -Fc -Z0`, in any portions.
pub struct Scanner {
    digest_key: [u8; 16],
    /// Bytes taken so far.
    at: u64,
    stage: Stage,
}

enum Stage {
    /// Header and table of contents are still coming.
    Toc { parser: TocParser, bytes: Vec<u8> },
    /// Data blocks follow.
    Blocks(Box<Blocks>),
    /// An error was found.
    Failed,
}

impl Scanner {
    /// Digests rows under `digest_key`.
    pub fn new(digest_key: [u8; 16]) -> Self {
        Scanner { digest_key, at: 0, stage: Stage::Toc { parser: TocParser::default(), bytes: Vec::new() } }
    }

    /// Takes the next bytes. Memory is bounded by the table of contents and a row's prefix. After an
    /// error every further call is one.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let taken = self.take(bytes);
        if taken.is_err() {
            self.stage = Stage::Failed;
        }
        taken
    }

    /// The table whose rows are passing by, `schema.table`.
    pub fn current_table(&self) -> Option<String> {
        match &self.stage {
            Stage::Blocks(blocks) => blocks.current_table(),
            _ => None,
        }
    }

    /// Ends the dump; an error when it stops in the middle of something, or when an entry that has
    /// data has no block.
    pub fn finish(self) -> Result<Contents, ArchiveError> {
        match self.stage {
            Stage::Toc { bytes, .. } if bytes.is_empty() => Err(ArchiveError::NotADump),
            Stage::Toc { .. } => Err(ArchiveError::DumpTruncated { part: "its table of contents", at: self.at }),
            Stage::Blocks(blocks) => blocks.finish(self.at),
            Stage::Failed => Err(ArchiveError::AlreadyFailed),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let fed = bytes.len() as u64;
        let rest = match &mut self.stage {
            Stage::Toc { parser, bytes: held } => {
                let before = held.len();
                let room = MAX_TOC_BYTES + 1 - before.min(MAX_TOC_BYTES);
                held.extend_from_slice(&bytes[..bytes.len().min(room)]);
                let Some(toc) = parser.advance(held)? else {
                    if held.len() > MAX_TOC_BYTES {
                        return Err(ArchiveError::TocTooLarge);
                    }
                    self.at += fed;
                    return Ok(());
                };
                let used = usize::try_from(toc.length_bytes).unwrap_or(usize::MAX).saturating_sub(before);
                self.stage = Stage::Blocks(Box::new(Blocks::new(toc, self.digest_key)));
                self.at += used as u64;
                bytes.get(used..).unwrap_or_default()
            }
            Stage::Blocks(_) => bytes,
            Stage::Failed => return Err(ArchiveError::AlreadyFailed),
        };
        if let Stage::Blocks(blocks) = &mut self.stage {
            blocks.take(rest, self.at)?;
            self.at += rest.len() as u64;
        }
        Ok(())
    }
}

/// The data blocks: `_StartData`, `_StartBlobs` and `_CustomWriteFunc` in PostgreSQL's
/// `pg_backup_custom.c` write them.
struct Blocks {
    toc: Toc,
    digest_key: [u8; 16],
    by_id: HashMap<i32, usize>,
    seen: HashSet<i32>,
    done: Vec<BlockEntry>,
    current: Option<Current>,
    expect: Expect,
    /// The start of a block's or a chunk's header that a portion's end has cut.
    partial: Vec<u8>,
}

struct Current {
    /// Its place among the entries.
    entry: usize,
    start: u64,
    digester: Digester,
}

enum Digester {
    Rows(RowDigester),
    Objects(ObjectDigester),
}

#[derive(Clone, Copy)]
enum Expect {
    /// A block's type and number, or the end.
    Block,
    /// A large object's oid, or 0.
    Object,
    /// A chunk's length, or 0.
    Chunk,
    /// This many bytes of a chunk.
    Data(u64),
}

impl Blocks {
    fn new(toc: Toc, digest_key: [u8; 16]) -> Self {
        let by_id = toc.entries.iter().enumerate().map(|(place, entry)| (entry.dump_id, place)).collect();
        Blocks {
            toc,
            digest_key,
            by_id,
            seen: HashSet::new(),
            done: Vec::new(),
            current: None,
            expect: Expect::Block,
            partial: Vec::with_capacity(1 + INT_BYTES),
        }
    }

    /// Takes the next bytes, the first of which stands at `at`.
    fn take(&mut self, bytes: &[u8], at: u64) -> Result<(), ArchiveError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let here = at + (bytes.len() - rest.len()) as u64;
            match self.expect {
                Expect::Data(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let (data, later) = rest.split_at(count);
                    self.data(data, here)?;
                    rest = later;
                    self.expect = match left - count as u64 {
                        0 => Expect::Chunk,
                        left => Expect::Data(left),
                    };
                }
                Expect::Block => {
                    if let Some(head) = self.header::<{ 1 + INT_BYTES }>(&mut rest) {
                        let end = at + (bytes.len() - rest.len()) as u64;
                        self.begin_block(head, end - head.len() as u64)?;
                    }
                }
                Expect::Object | Expect::Chunk => {
                    if let Some(head) = self.header::<INT_BYTES>(&mut rest) {
                        let end = at + (bytes.len() - rest.len()) as u64;
                        let value = int(head).ok_or(ArchiveError::Block {
                            at: end - head.len() as u64,
                            what: "an integer has an odd sign",
                        })?;
                        match self.expect {
                            Expect::Chunk => self.begin_chunk(value, end)?,
                            _ => self.begin_object(value, end)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A header of `N` bytes, once all of them have come.
    fn header<const N: usize>(&mut self, rest: &mut &[u8]) -> Option<[u8; N]> {
        if self.partial.is_empty()
            && let Some((head, later)) = rest.split_first_chunk::<N>()
        {
            *rest = later;
            return Some(*head);
        }
        let count = rest.len().min(N - self.partial.len());
        let (now, later) = rest.split_at(count);
        self.partial.extend_from_slice(now);
        *rest = later;
        let head = <[u8; N]>::try_from(self.partial.as_slice()).ok()?;
        self.partial.clear();
        Some(head)
    }

    fn begin_block(&mut self, head: [u8; 1 + INT_BYTES], start: u64) -> Result<(), ArchiveError> {
        let [kind, number @ ..] = head;
        let damaged = |what| ArchiveError::Block { at: start, what };
        let large_objects = match kind {
            1 => false,
            3 => true,
            _ => return Err(damaged("a data block is of unknown kind")),
        };
        let dump_id = int(number)
            .and_then(|number| i32::try_from(number).ok())
            .ok_or_else(|| damaged("a data block's number is out of range"))?;
        let wrong = |what| ArchiveError::BlockId { dump_id, what };
        let place = *self.by_id.get(&dump_id).ok_or_else(|| wrong("belongs to no entry"))?;
        let entry = &self.toc.entries[place];
        if !entry.has_data {
            return Err(wrong("belongs to an entry without data"));
        }
        if large_objects != (entry.description.0 == b"BLOBS") {
            return Err(wrong("is of another kind than its entry"));
        }
        if !self.seen.insert(dump_id) {
            return Err(wrong("comes twice"));
        }
        let digester = match large_objects {
            true => Digester::Objects(ObjectDigester::new(&self.digest_key)),
            false => Digester::Rows(RowDigester::new(&self.digest_key)),
        };
        self.current = Some(Current { entry: place, start, digester });
        self.expect = match large_objects {
            true => Expect::Object,
            false => Expect::Chunk,
        };
        Ok(())
    }

    fn begin_object(&mut self, value: i64, end: u64) -> Result<(), ArchiveError> {
        if value == 0 {
            return self.end_block(end);
        }
        // An oid beyond 2^31 is written as the negative number of the same 32 bits.
        let oid = i32::try_from(value)
            .map(i32::cast_unsigned)
            .map_err(|_| ArchiveError::Block { at: end, what: "a large object's oid is out of range" })?;
        if let Some(Current { digester: Digester::Objects(objects), .. }) = &mut self.current {
            objects.begin(oid);
        }
        self.expect = Expect::Chunk;
        Ok(())
    }

    fn begin_chunk(&mut self, value: i64, end: u64) -> Result<(), ArchiveError> {
        if value != 0 {
            let length = u64::try_from(value)
                .map_err(|_| ArchiveError::Block { at: end, what: "a chunk's length is negative" })?;
            self.expect = Expect::Data(length);
            return Ok(());
        }
        match self.current.as_mut().map(|current| &mut current.digester) {
            Some(Digester::Objects(objects)) => {
                objects.end();
                self.expect = Expect::Object;
                Ok(())
            }
            _ => self.end_block(end),
        }
    }

    fn data(&mut self, data: &[u8], at: u64) -> Result<(), ArchiveError> {
        match self.current.as_mut().map(|current| &mut current.digester) {
            Some(Digester::Rows(rows)) => rows
                .feed(data)
                .map_err(|DataAfterEnd| ArchiveError::Block { at, what: "rows follow the line that ends them" }),
            Some(Digester::Objects(objects)) => {
                objects.feed(data);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn end_block(&mut self, end: u64) -> Result<(), ArchiveError> {
        self.expect = Expect::Block;
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let entry = &self.toc.entries[current.entry];
        let (large_objects, digest, data_bytes) = match &current.digester {
            Digester::Rows(rows) => {
                if rows.is_within_row() || !rows.is_closed() {
                    return Err(ArchiveError::Block { at: end, what: "a table's rows are not ended by `\\.`" });
                }
                (false, rows.digest(), rows.data_bytes())
            }
            Digester::Objects(objects) => (true, objects.digest(), objects.data_bytes()),
        };
        self.done.push(BlockEntry {
            dump_id: entry.dump_id,
            large_objects,
            namespace: entry.namespace.clone(),
            table: entry.tag.clone(),
            copy_statement: entry.copy_statement.clone(),
            start: current.start,
            end,
            data_bytes,
            digest,
        });
        Ok(())
    }

    fn current_table(&self) -> Option<String> {
        let current = self.current.as_ref()?;
        match current.digester {
            Digester::Rows(_) => Some(name(&self.toc.entries[current.entry])),
            Digester::Objects(_) => None,
        }
    }

    fn finish(self, at: u64) -> Result<Contents, ArchiveError> {
        if self.current.is_some() || !self.partial.is_empty() {
            return Err(ArchiveError::DumpTruncated { part: "a data block", at });
        }
        let missing = self.toc.entries.iter().find(|entry| entry.has_data && !self.seen.contains(&entry.dump_id));
        match missing {
            Some(entry) => Err(ArchiveError::BlockMissing { name: format!("`{}`", name(entry)) }),
            None => Ok(Contents { toc: self.toc, blocks: self.done, raw_bytes: at }),
        }
    }
}

fn name(entry: &TocEntry) -> String {
    match entry.namespace.is_empty() {
        true => entry.tag.lossy(),
        false => format!("{}.{}", entry.namespace.lossy(), entry.tag.lossy()),
    }
}

#[cfg(test)]
mod tests;
