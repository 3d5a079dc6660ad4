//! Several streams of one backup as the one dump that they are parts of.
//!
//! Stream 0 describes everything and holds the rows of some tables; each of the others holds rows of further
//! tables alone. Joined, their tables of contents are one, as a single pg_dump could have written it: readers
//! that know one dump need not know more.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use super::error::ArchiveError;
use super::index::BlockEntry;
use super::parse::{INT_BYTES, NULL, Spans, int, spans, write_int, write_string};
use super::toc::{Section, TocEntry};

/// One stream: the bytes of its header and table of contents, and its blocks.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The first bytes of its dump, up to the first block.
    pub toc: &'a [u8],
    /// The blocks of its index.
    pub blocks: &'a [BlockEntry],
}

/// The dump that the streams are parts of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Header and table of contents.
    pub toc: Vec<u8>,
    /// The blocks, in the order of their entries.
    pub blocks: Vec<JoinedBlock>,
}

/// Where a block of the joined dump comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinedBlock {
    /// The stream, counted from 0.
    pub part: usize,
    /// The block's place in that stream's index.
    pub block: usize,
    /// The number that its entry has in the joined table of contents.
    pub dump_id: i32,
}

/// The first bytes of a block: its kind, and the number of its entry.
const HEAD_BYTES: usize = 1 + INT_BYTES;

/// Joins the streams of a backup. A single one stays as it is, byte for byte. Of the others the rows of tables
/// are taken, and nothing else that they may list: a table's own sequences stand in stream 0 as well.
pub fn join(parts: &[Part<'_>]) -> Result<Joined, ArchiveError> {
    let (first, others) = parts.split_first().ok_or_else(|| disagree("there is none"))?;
    if others.is_empty() {
        let of = |(block, entry): (usize, &BlockEntry)| JoinedBlock { part: 0, block, dump_id: entry.dump_id };
        return Ok(Joined { toc: first.toc.to_vec(), blocks: first.blocks.iter().enumerate().map(of).collect() });
    }
    let whole = spans(first.toc)?;
    let mut blocks_of_first: HashMap<i32, usize> =
        first.blocks.iter().enumerate().map(|(at, block)| (block.dump_id, at)).collect();
    let added = added_entries(&whole, others)?;
    let place = place_of_rows(&whole);

    let mut toc = first.toc.get(..whole.count_at).unwrap_or_default().to_vec();
    let count = u32::try_from(whole.entries.len() + added.len()).map_err(|_| ArchiveError::TocTooLarge)?;
    toc.extend_from_slice(&write_int(count));
    let mut blocks = Vec::new();
    for (at, (entry, span)) in whole.entries.iter().enumerate() {
        if at == place {
            add(&mut toc, &mut blocks, &added);
        }
        toc.extend_from_slice(first.toc.get(span.start..span.end).unwrap_or_default());
        if let Some(block) = blocks_of_first.remove(&entry.dump_id) {
            blocks.push(JoinedBlock { part: 0, block, dump_id: entry.dump_id });
        }
    }
    if place == whole.entries.len() {
        add(&mut toc, &mut blocks, &added);
    }
    Ok(Joined { toc, blocks })
}

/// An entry of another stream as it goes into the joined table of contents.
struct Added {
    bytes: Vec<u8>,
    block: JoinedBlock,
}

fn add(toc: &mut Vec<u8>, blocks: &mut Vec<JoinedBlock>, added: &[Added]) {
    for Added { bytes, block } in added {
        toc.extend_from_slice(bytes);
        blocks.push(*block);
    }
}

/// Behind the rows that stream 0 holds; where it holds none, before all other data and what comes after data.
fn place_of_rows(whole: &Spans) -> usize {
    let rows = whole.entries.iter().rposition(|(entry, _)| is_rows(entry)).map(|last| last + 1);
    let later =
        || whole.entries.iter().position(|(entry, _)| matches!(entry.section, Section::Data | Section::PostData));
    rows.or_else(later).unwrap_or(whole.entries.len())
}

fn added_entries(whole: &Spans, others: &[Part<'_>]) -> Result<Vec<Added>, ArchiveError> {
    let name = |entry: &TocEntry| (entry.namespace.clone(), entry.tag.clone());
    let mut tables = HashMap::new();
    let mut with_rows = HashSet::new();
    for (entry, _) in &whole.entries {
        if entry.description.0 == b"TABLE" {
            tables.insert(name(entry), entry.dump_id);
        } else if is_rows(entry) {
            with_rows.insert(name(entry));
        }
    }
    let mut next_id = whole.entries.iter().map(|(entry, _)| entry.dump_id).max().unwrap_or(0);
    let mut added = Vec::new();
    for (number, part) in others.iter().enumerate() {
        let part_spans = spans(part.toc)?;
        if part_spans.version != whole.version {
            return Err(disagree("they are of different versions of pg_dump"));
        }
        let mut of_entries: HashMap<i32, usize> =
            part.blocks.iter().enumerate().map(|(at, block)| (block.dump_id, at)).collect();
        for (entry, span) in part_spans.entries.iter().filter(|(entry, _)| is_rows(entry)) {
            let told = || format!("`{}.{}`", entry.namespace.lossy(), entry.tag.lossy());
            let table = tables.get(&name(entry)).ok_or_else(|| disagree(format!("nothing describes {}", told())))?;
            if !with_rows.insert(name(entry)) {
                return Err(disagree(format!("two of them hold the rows of {}", told())));
            }
            let block = of_entries
                .remove(&entry.dump_id)
                .ok_or_else(|| disagree(format!("the rows of {} are missing", told())))?;
            next_id = next_id.checked_add(1).ok_or(ArchiveError::TocTooLarge)?;
            added.push(Added {
                bytes: renumbered(part.toc, span, next_id, *table)?,
                block: JoinedBlock { part: number + 1, block, dump_id: next_id },
            });
        }
        if !of_entries.is_empty() {
            return Err(disagree(format!("stream {} holds more than rows of tables", number + 1)));
        }
    }
    Ok(added)
}

/// An entry's bytes with another number, and its table as all that it depends on: that is how pg_restore with
/// several jobs knows which rows an index waits for.
fn renumbered(toc: &[u8], span: &super::parse::Span, dump_id: i32, table: i32) -> Result<Vec<u8>, ArchiveError> {
    let between = |start, end| toc.get(start..end).unwrap_or_default();
    let mut bytes = write_int(dump_id.unsigned_abs()).to_vec();
    bytes.extend_from_slice(between(span.start + INT_BYTES, span.dependencies.start));
    write_string(&mut bytes, table.to_string().as_bytes())?;
    // NULL ends the list.
    bytes.extend_from_slice(&NULL);
    bytes.extend_from_slice(between(span.dependencies.end, span.end));
    Ok(bytes)
}

fn is_rows(entry: &TocEntry) -> bool {
    entry.description.0 == b"TABLE DATA"
}

fn disagree(what: impl Into<String>) -> ArchiveError {
    ArchiveError::PartsDisagree(what.into())
}

impl JoinedBlock {
    /// The block's bytes with the number that it has in the joined dump, from those that it has in its stream.
    pub fn renumber<R: Read + Send + 'static>(&self, block: R) -> Box<dyn Read + Send> {
        Box::new(Renumbered { block, dump_id: self.dump_id, head: Vec::new(), given: 0 })
    }
}

struct Renumbered<R> {
    block: R,
    dump_id: i32,
    head: Vec<u8>,
    given: usize,
}

impl<R: Read> Read for Renumbered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.head.is_empty() {
            let mut head = [0; HEAD_BYTES];
            self.block.read_exact(&mut head)?;
            let [kind, number @ ..] = head;
            if int(number).is_none() {
                return Err(ArchiveError::Block { at: 0, what: "an integer has an odd sign" }.into_io());
            }
            self.head.push(kind);
            self.head.extend_from_slice(&write_int(self.dump_id.unsigned_abs()));
        }
        let rest = self.head.get(self.given..).unwrap_or_default();
        if rest.is_empty() {
            return self.block.read(buffer);
        }
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scanner;
    use super::super::testing::{Dump, entry};
    use super::super::toc::Toc;
    use super::*;

    struct Scanned {
        bytes: Vec<u8>,
        toc: Vec<u8>,
        blocks: Vec<BlockEntry>,
    }

    fn scanned(dump: &Dump) -> Scanned {
        let bytes = dump.bytes();
        let mut scanner = Scanner::new([7; 16]);
        scanner.feed(&bytes).unwrap();
        let contents = scanner.finish().unwrap();
        let end = usize::try_from(contents.toc.length_bytes).unwrap();
        Scanned { toc: bytes[..end].to_vec(), blocks: contents.blocks, bytes }
    }

    fn part(of: &Scanned) -> Part<'_> {
        Part { toc: &of.toc, blocks: &of.blocks }
    }

    fn whole(parts: &[&Scanned]) -> Vec<u8> {
        let joined = join(&parts.iter().map(|of| part(of)).collect::<Vec<_>>()).unwrap();
        let mut bytes = joined.toc.clone();
        for block in &joined.blocks {
            let of = parts[block.part];
            let entry = &of.blocks[block.block];
            let range = usize::try_from(entry.start).unwrap()..usize::try_from(entry.end).unwrap();
            block.renumber(io::Cursor::new(of.bytes[range].to_vec())).read_to_end(&mut bytes).unwrap();
        }
        bytes
    }

    fn table(dump: &mut Dump, id: i64, name: &str) {
        dump.table(id, name, &["1\ta", "2\tb"]);
        let rows = dump.entries.pop().unwrap();
        // The definition without the rows, as with --exclude-table-data.
        drop(rows);
    }

    fn rows_only(minor: u8, tables: &[(&str, &[&str])]) -> Dump {
        let mut dump = Dump::new(minor);
        for (number, (name, rows)) in tables.iter().enumerate() {
            dump.table(20 + number as i64, name, rows);
            let rows = dump.entries.pop().unwrap();
            dump.entries.pop();
            dump.add(rows);
        }
        dump
    }

    #[test]
    fn one_stream_stays_as_it_is() {
        let mut dump = Dump::new(14);
        dump.table(10, "a", &["1\tx"]).large_objects(90, &[(7, &[b"abc"])]);
        let one = scanned(&dump);
        assert_eq!(whole(&[&one]), one.bytes);
    }

    #[test]
    fn rows_of_other_streams_stand_behind_the_first_ones_and_depend_on_their_table() {
        for minor in 14..=16 {
            let mut first = Dump::new(minor);
            first.table(10, "a", &["1\tx"]);
            table(&mut first, 11, "b");
            table(&mut first, 12, "c");
            let mut set = entry(50, "SEQUENCE SET", "s", "SELECT 1");
            set.section = 3;
            first.add(set).large_objects(90, &[(7, &[b"abc"])]);
            let mut index = entry(95, "INDEX", "i", "CREATE INDEX i");
            index.section = 4;
            first.add(index);
            let (first, second, third) = (
                scanned(&first),
                scanned(&rows_only(minor, &[("c", &["5\tc", "6\tcc"])])),
                scanned(&rows_only(minor, &[("b", &["7\tb"])])),
            );
            let bytes = whole(&[&first, &second, &third]);
            let mut scanner = Scanner::new([7; 16]);
            scanner.feed(&bytes).unwrap();
            let contents = scanner.finish().unwrap();
            let data: Vec<_> = contents
                .toc
                .entries
                .iter()
                .filter(|entry| entry.section != Section::PreData && entry.section != Section::None)
                .map(|entry| (entry.description.lossy(), entry.tag.lossy(), entry.dependencies.clone()))
                .collect();
            let row = |name: &str, on| ("TABLE DATA".to_owned(), name.to_owned(), vec![on]);
            assert_eq!(data[..3], [row("a", 10), row("c", 12), row("b", 11)]);
            assert_eq!(data[3].0, "SEQUENCE SET");
            assert_eq!(data.last().unwrap().0, "INDEX");
            let rows: Vec<_> = contents.blocks.iter().map(|block| (block.table.lossy(), block.digest)).collect();
            assert_eq!(rows[0].1, first.blocks[0].digest);
            assert_eq!((rows[1].0.as_str(), rows[1].1), ("c", second.blocks[0].digest));
            assert_eq!((rows[2].0.as_str(), rows[2].1), ("b", third.blocks[0].digest));
            assert_eq!(rows.len(), 4);
        }
    }

    #[test]
    fn where_stream_0_has_no_rows_they_come_before_other_data() {
        let mut first = Dump::new(15);
        table(&mut first, 11, "b");
        first.large_objects(90, &[(7, &[b"abc"])]);
        let bytes = whole(&[&scanned(&first), &scanned(&rows_only(15, &[("b", &["7\tb"])]))]);
        let toc = Toc::parse(&bytes).unwrap();
        let order: Vec<_> = toc.entries.iter().map(|entry| entry.description.lossy()).collect();
        assert_eq!(order, ["ENCODING", "TABLE", "TABLE DATA", "BLOBS"]);
        // And where nothing comes after the definitions, at the end.
        let mut first = Dump::new(15);
        table(&mut first, 11, "b");
        let bytes = whole(&[&scanned(&first), &scanned(&rows_only(15, &[("b", &["7\tb"])]))]);
        assert_eq!(Toc::parse(&bytes).unwrap().entries.last().unwrap().description.lossy(), "TABLE DATA");
    }

    #[test]
    fn parts_that_are_none_of_one_dump() {
        let mut first = Dump::new(14);
        first.table(10, "a", &["1\tx"]);
        table(&mut first, 11, "b");
        let first = scanned(&first);
        let refused = |parts: &[Part<'_>], told: &str| {
            let error = join(parts).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        };
        refused(&[], "there is none");
        let again = scanned(&rows_only(14, &[("a", &["1\tx"])]));
        refused(&[part(&first), part(&again)], "two of them hold the rows of `public.a`");
        let stranger = scanned(&rows_only(14, &[("z", &["1\tx"])]));
        refused(&[part(&first), part(&stranger)], "nothing describes `public.z`");
        let newer = scanned(&rows_only(16, &[("b", &["1\tx"])]));
        refused(&[part(&first), part(&newer)], "different versions");
        let fine = scanned(&rows_only(14, &[("b", &["1\tx"])]));
        refused(&[part(&first), Part { toc: &fine.toc, blocks: &[] }], "the rows of `public.b` are missing");
        let mut large = rows_only(14, &[("b", &["1\tx"])]);
        large.large_objects(99, &[(7, &[b"abc"])]);
        let large = scanned(&large);
        refused(&[part(&first), part(&large)], "holds more than rows");
        refused(&[part(&first), Part { toc: &fine.toc[..40], blocks: &[] }], "table of contents");
    }

    #[test]
    fn a_block_is_renumbered_whatever_the_portions() {
        let block = JoinedBlock { part: 1, block: 0, dump_id: 300 };
        let bytes = [&[1, 0, 9, 0, 0, 0][..], b"rest"].concat();
        let mut read = Vec::new();
        let mut reader = block.renumber(io::Cursor::new(bytes));
        let mut buffer = [0; 4];
        loop {
            let count = reader.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(read, [&[1, 0, 44, 1, 0, 0][..], b"rest"].concat());
        assert!(block.renumber(io::Cursor::new(b"abc".to_vec())).read(&mut [0; 9]).is_err(), "too short");
    }
}
