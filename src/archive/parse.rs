//! Parses a dump's header and table of contents, as far as they are there. Nothing is allocated ahead
//! of bytes that have really come. Fields and their order: PostgreSQL's `pg_backup_archiver.c`
//! (`ReadHead`, `ReadToc`) and `pg_backup_custom.c` (`_ReadExtraToc`).

use std::collections::HashSet;

use super::error::ArchiveError;
use super::toc::{Section, Text, Toc, TocEntry};

/// The largest table of contents that is read, in bytes.
pub(super) const MAX_TOC_BYTES: usize = 256 << 20;

/// Why parsing stopped.
enum Halt {
    /// It can go on when there are this many bytes in all.
    Needs(usize),
    Bad(ArchiveError),
}

/// Keeps its place between portions, so that each entry is parsed once.
#[derive(Default)]
pub(super) struct TocParser {
    header: Option<Header>,
    entries: Vec<TocEntry>,
    seen: HashSet<i32>,
    /// Bytes parsed.
    at: usize,
    /// Bytes that must be there before it is worth going on.
    needed: usize,
}

#[derive(Clone)]
struct Header {
    version: (u8, u8),
    offset_bytes: usize,
    database: Text,
    server_version: Text,
    dump_version: Text,
    count: usize,
}

/// Where an entry stands in its table of contents, for copying it into another.
pub(super) struct Span {
    /// Its first byte; the numbers of the entry come first.
    pub(super) start: usize,
    /// The list of dependencies, its closing NULL included.
    pub(super) dependencies: std::ops::Range<usize>,
    /// Behind its last byte.
    pub(super) end: usize,
}

/// A whole table of contents with the places of its parts.
pub(super) struct Spans {
    /// Where the number of entries stands.
    pub(super) count_at: usize,
    /// Each entry and its place.
    pub(super) entries: Vec<(TocEntry, Span)>,
    /// Archive version.
    pub(super) version: (u8, u8),
    /// Bytes of an offset in it.
    pub(super) offset_bytes: usize,
}

/// Reads a table of contents that is there whole.
pub(super) fn spans(bytes: &[u8]) -> Result<Spans, ArchiveError> {
    let read = || -> Result<Spans, Halt> {
        let mut cursor = Cursor { bytes, at: 0 };
        let (header, count_at) = read_header(&mut cursor)?;
        let mut entries = Vec::new();
        for _ in 0..header.count {
            entries.push(read_entry(&mut cursor, &header)?);
        }
        if cursor.at != bytes.len() {
            return Err(bad(cursor.at, "something follows the entries"));
        }
        Ok(Spans { count_at, entries, version: header.version, offset_bytes: header.offset_bytes })
    };
    read().map_err(|halt| match halt {
        Halt::Bad(error) => error,
        Halt::Needs(_) => ArchiveError::DumpTruncated { part: "its table of contents", at: bytes.len() as u64 },
    })
}

impl TocParser {
    /// Goes on with all `bytes` from the dump's start so far; `None` when more of them are needed.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Option<Toc>, ArchiveError> {
        if bytes.len() < self.needed {
            return Ok(None);
        }
        match self.parse(bytes) {
            Ok(toc) => Ok(Some(toc)),
            Err(Halt::Bad(error)) => Err(error),
            Err(Halt::Needs(needed)) if needed > MAX_TOC_BYTES => Err(ArchiveError::TocTooLarge),
            Err(Halt::Needs(needed)) => {
                self.needed = needed;
                Ok(None)
            }
        }
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Toc, Halt> {
        let header = match &self.header {
            Some(header) => header.clone(),
            None => {
                let mut cursor = Cursor { bytes, at: 0 };
                let (header, _) = read_header(&mut cursor)?;
                self.at = cursor.at;
                self.header.insert(header).clone()
            }
        };
        while self.entries.len() < header.count {
            let mut cursor = Cursor { bytes, at: self.at };
            let (entry, _) = read_entry(&mut cursor, &header)?;
            if !self.seen.insert(entry.dump_id) {
                return Err(bad(self.at, "two entries have the same number"));
            }
            self.entries.push(entry);
            self.at = cursor.at;
        }
        Ok(Toc {
            version: header.version,
            database: header.database,
            server_version: header.server_version,
            dump_version: header.dump_version,
            entries: std::mem::take(&mut self.entries),
            length_bytes: self.at as u64,
            offset_bytes: header.offset_bytes,
        })
    }
}

/// The header, and where its number of entries stands.
fn read_header(cursor: &mut Cursor<'_>) -> Result<(Header, usize), Halt> {
    let magic = b"PGDMP";
    let there = cursor.bytes.len().min(magic.len());
    if cursor.bytes[..there] != magic[..there] {
        return Err(Halt::Bad(ArchiveError::NotADump));
    }
    cursor.take(magic.len())?;
    let (major, minor, _revision) = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
    if major != 1 || !(14..=16).contains(&minor) {
        return Err(Halt::Bad(ArchiveError::DumpVersion { major, minor }));
    }
    if cursor.byte()? != 4 {
        return Err(bad(cursor.at - 1, "integers are not of 4 bytes"));
    }
    let offset_bytes = usize::from(cursor.byte()?);
    if !(1..=8).contains(&offset_bytes) {
        return Err(bad(cursor.at - 1, "offsets are not of 1 to 8 bytes"));
    }
    // 1 is the custom format; 3 tar, 5 directory.
    if cursor.byte()? != 1 {
        return Err(Halt::Bad(ArchiveError::NotADump));
    }
    let compression = match minor {
        14 => cursor.int()?,
        _ => i64::from(cursor.byte()?),
    };
    if compression != 0 {
        return Err(Halt::Bad(ArchiveError::DumpCompressed));
    }
    // When it was made: second, minute, hour, day, month, year, daylight saving.
    for _ in 0..7 {
        cursor.int()?;
    }
    let database = cursor.text()?;
    let server_version = cursor.text()?;
    let dump_version = cursor.text()?;
    let at = cursor.at;
    let count = usize::try_from(cursor.int()?).map_err(|_| bad(at, "the number of entries is negative"))?;
    Ok((Header { version: (major, minor), offset_bytes, database, server_version, dump_version, count }, at))
}

fn read_entry(cursor: &mut Cursor<'_>, header: &Header) -> Result<(TocEntry, Span), Halt> {
    let start = cursor.at;
    let at = start;
    let dump_id = match i32::try_from(cursor.int()?) {
        Ok(dump_id) if dump_id > 0 => dump_id,
        _ => return Err(bad(at, "an entry's number is not positive")),
    };
    let has_data = cursor.int()? != 0;
    let (_catalog, _oid) = (cursor.text()?, cursor.text()?);
    let tag = cursor.text()?;
    let description = cursor.text()?;
    let at = cursor.at;
    let section = match cursor.int()? {
        1 => Section::None,
        2 => Section::PreData,
        3 => Section::Data,
        4 => Section::PostData,
        _ => return Err(bad(at, "an entry's section is unknown")),
    };
    let definition = cursor.text()?;
    let drop_statement = cursor.text()?;
    let copy_statement = cursor.text()?;
    let namespace = cursor.text()?;
    let tablespace = cursor.text()?;
    let access_method = cursor.text()?;
    if header.version >= (1, 16) {
        let _relkind = cursor.int()?;
    }
    let owner = cursor.text()?;
    let _with_oids = cursor.text()?;
    let mut dependencies = Vec::new();
    let dependencies_at = cursor.at;
    loop {
        let at = cursor.at;
        let Some(number) = cursor.string()? else {
            break;
        };
        let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
        dependencies.push(number.ok_or_else(|| bad(at, "a dependency is not a number"))?);
    }
    let span_of_dependencies = dependencies_at..cursor.at;
    let at = cursor.at;
    // 1: position not set, 2: set, 3: no data.
    if !(1..=3).contains(&cursor.byte()?) {
        return Err(bad(at, "a data position is of unknown kind"));
    }
    cursor.take(header.offset_bytes)?;
    let span = Span { start, dependencies: span_of_dependencies, end: cursor.at };
    let entry = TocEntry {
        dump_id,
        has_data,
        description,
        namespace,
        tag,
        owner,
        section,
        position_at: (cursor.at - header.offset_bytes - 1) as u64,
        definition,
        drop_statement,
        copy_statement,
        tablespace,
        access_method,
        dependencies,
    };
    Ok((entry, span))
}

fn bad(at: usize, what: &'static str) -> Halt {
    Halt::Bad(ArchiveError::Toc { at: at as u64, what })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Halt> {
        let end = self.at.saturating_add(count);
        let taken = self.bytes.get(self.at..end).ok_or(Halt::Needs(end))?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Halt> {
        Ok(self.take(1)?[0])
    }

    fn int(&mut self) -> Result<i64, Halt> {
        let at = self.at;
        let mut bytes = [0; INT_BYTES];
        bytes.copy_from_slice(self.take(INT_BYTES)?);
        int(bytes).ok_or_else(|| bad(at, "an integer has an odd sign"))
    }

    /// `None` is C's NULL.
    fn string(&mut self) -> Result<Option<&'a [u8]>, Halt> {
        let at = self.at;
        match self.int()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| bad(at, "a string's length is negative"))?;
                self.take(length).map(Some)
            }
        }
    }

    fn text(&mut self) -> Result<Text, Halt> {
        Ok(Text(self.string()?.unwrap_or_default().to_vec()))
    }
}

/// Bytes of an integer in a dump: its sign, and four more.
pub(super) const INT_BYTES: usize = 5;

/// The bytes of an integer that is not negative.
pub(super) fn write_int(value: u32) -> [u8; INT_BYTES] {
    let [b0, b1, b2, b3] = value.to_le_bytes();
    [0, b0, b1, b2, b3]
}

/// A string, as `WriteStr` writes it.
pub(super) fn write_string(bytes: &mut Vec<u8>, text: &[u8]) -> Result<(), ArchiveError> {
    let length = u32::try_from(text.len()).map_err(|_| ArchiveError::TocTooLarge)?;
    bytes.extend_from_slice(&write_int(length));
    bytes.extend_from_slice(text);
    Ok(())
}

/// C's NULL as a string: a length of -1.
pub(super) const NULL: [u8; INT_BYTES] = [1, 1, 0, 0, 0];

/// An integer as `WriteInt` writes it: sign byte, then the magnitude, little-endian.
pub(super) fn int(bytes: [u8; INT_BYTES]) -> Option<i64> {
    let [sign, b0, b1, b2, b3] = bytes;
    let magnitude = i64::from(u32::from_le_bytes([b0, b1, b2, b3]));
    match sign {
        0 => Some(magnitude),
        1 => Some(-magnitude),
        _ => None,
    }
}
