//! Archives that are whole, and writers and readers that stop early.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::header::HEADER_BYTES;
use super::seal::FRAME_HEADER_BYTES;
use super::testing::Dump;
use super::*;
use crate::ids::{BackupId, Lineage};
use crate::keys::{DataKey, SubKeys};

mod hostile;

struct Made {
    id: StreamId,
    keys: SubKeys,
    dump: Vec<u8>,
    stored: Vec<u8>,
    index: Index,
}

fn id(stream: u32) -> StreamId {
    StreamId { lineage: Lineage::new(), backup: BackupId::new(), stream }
}

fn small_dump() -> Vec<u8> {
    let mut dump = Dump::new(14);
    dump.table(2, "orders", &["1\tone", "2\ttwo"])
        .table(3, "notes", &[])
        .large_objects(9, &[(17, &[b"abc", b"d"]), (4_000_000_000, &[])]);
    dump.bytes()
}

/// A dump of exactly `bytes` bytes.
fn dump_of(bytes: usize) -> Vec<u8> {
    let of = |filler: usize| {
        let rows: Vec<String> = (0..filler / 1000).map(|row| format!("{row:08}\t{}", "x".repeat(986))).collect();
        let rest = "y".repeat(filler % 1000);
        let mut rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        rows.push(&rest);
        let mut dump = Dump::new(15);
        dump.table(2, "orders", &rows);
        dump.bytes()
    };
    let (mut low, mut high) = (0, bytes);
    while low < high {
        let middle = (low + high) / 2;
        match of(middle).len() < bytes {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    // A filled-up thousand becomes a row of its own, which skips a length; another name shifts it.
    let found = of(low);
    assert_eq!(found.len(), bytes);
    found
}

fn seal(dump: &[u8], id: StreamId, keys: &SubKeys) -> Made {
    let mut writer = ArchiveWriter::begin(Vec::new(), id, keys, 3, 2).unwrap();
    for part in dump.chunks(70_001) {
        writer.feed(part).unwrap();
    }
    let finished = writer.finish().unwrap();
    assert_eq!(finished.stored_bytes, finished.sink.len() as u64);
    assert_eq!(finished.contents.raw_bytes, dump.len() as u64);
    Made { id, keys: keys.clone(), dump: dump.to_vec(), stored: finished.sink, index: finished.index }
}

fn make(bytes: usize) -> Made {
    seal(&dump_of(bytes), id(0), &DataKey::generate().subkeys())
}

fn read(stored: &[u8], id: StreamId, keys: &SubKeys) -> Result<(Vec<u8>, Index), ArchiveError> {
    let mut reader = ArchiveReader::open(stored, id, keys)?;
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).map_err(ArchiveError::from_io)?;
    Ok((plain, reader.finish()?))
}

fn check(stored: &[u8], made: &Made) -> Result<String, ArchiveError> {
    verify(stored, made.id, &made.keys, &made.index, &mut |_| {})
}

fn read_ranges(stored: &[u8], made: &Made) -> Result<Vec<u8>, ArchiveError> {
    let source = Arc::new(stored.to_vec());
    let index = Arc::new(made.index.clone());
    let reader = RandomReader::new(source, made.id, &made.keys, index)?;
    let mut plain = Vec::new();
    reader.range(0, made.index.raw_bytes)?.read_to_end(&mut plain).map_err(ArchiveError::from_io)?;
    Ok(plain)
}

/// What the readers say of a damaged stream; both must refuse it.
fn refusal(stored: &[u8], made: &Made) -> ArchiveError {
    check(stored, made).expect_err("verify took it");
    read(stored, made.id, &made.keys).expect_err("the reader took it")
}

/// Where each frame begins, index frames included, and the end.
fn borders(stored: &[u8]) -> Vec<usize> {
    let mut borders = vec![HEADER_BYTES];
    while let Some(at) = borders.last().copied().filter(|at| *at < stored.len()) {
        let length: [u8; 4] = stored[at..at + 4].try_into().unwrap();
        borders.push(at + FRAME_HEADER_BYTES + u32::from_le_bytes(length) as usize);
    }
    borders
}

#[test]
fn what_was_fed_is_read_back_by_every_reader() {
    let small = seal(&small_dump(), id(4), &DataKey::generate().subkeys());
    let made = make(3 * FRAME_BYTES + 12_345);
    assert_eq!((small.index.frames.len(), made.index.frames.len()), (1, 4));
    for made in [small, made] {
        let (plain, index) = read(&made.stored, made.id, &made.keys).unwrap();
        assert!(plain == made.dump);
        assert_eq!(index, made.index);
        assert!(read_ranges(&made.stored, &made).unwrap() == made.dump);
        let mut told = Vec::new();
        let hash =
            verify(made.stored.as_slice(), made.id, &made.keys, &made.index, &mut |bytes| told.push(bytes)).unwrap();
        assert_eq!(told.last(), Some(&(made.dump.len() as u64)));
        assert!(told.is_sorted());
        use sha2::Digest as _;
        assert_eq!(hash, hex::encode(sha2::Sha256::digest(&made.stored)));
    }
}

#[test]
fn a_full_last_frame_is_the_last_one() {
    for (bytes, frames) in [(FRAME_BYTES - 1, 1), (FRAME_BYTES, 1), (FRAME_BYTES + 1, 2), (2 * FRAME_BYTES, 2)] {
        let made = make(bytes);
        assert_eq!(made.index.frames.len(), frames);
        assert!(read(&made.stored, made.id, &made.keys).unwrap().0 == made.dump);
        assert!(read_ranges(&made.stored, &made).unwrap() == made.dump);
        check(&made.stored, &made).unwrap();
    }
}

#[test]
fn ranges_open_only_the_frames_that_they_touch() {
    struct Counting(Vec<u8>, AtomicUsize);
    impl crate::io::ReadAt for Counting {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            // Short reads are allowed by nothing but the end; still they must do no harm.
            let half = buffer.len().div_ceil(2);
            let count = self.0.read_at(offset, &mut buffer[..half])?;
            self.1.fetch_add(count, Ordering::Relaxed);
            Ok(count)
        }
        fn len_bytes(&self) -> u64 {
            self.0.len_bytes()
        }
    }
    let made = make(5 * FRAME_BYTES + 17);
    let source = Arc::new(Counting(made.stored.clone(), AtomicUsize::new(0)));
    let index = Arc::new(made.index.clone());
    let reader = RandomReader::new(source.clone(), made.id, &made.keys, index).unwrap();
    let frame = FRAME_BYTES as u64;
    let end = made.index.raw_bytes;
    for (start, end, frames) in [
        (0, 0, 0..0),
        (0, 1, 0..1),
        (frame - 1, frame + 1, 0..2),
        (frame, 2 * frame, 1..2),
        (2 * frame + 5, 4 * frame + 6, 2..5),
        (end - 1, end, 5..6),
        (end, end, 0..0),
    ] {
        source.1.store(0, Ordering::Relaxed);
        let mut plain = Vec::new();
        let mut range = reader.clone().range(start, end).unwrap();
        range.read_to_end(&mut plain).unwrap();
        assert!(plain == made.dump[start as usize..end as usize]);
        let expected: u32 = made.index.frames[frames].iter().sum();
        assert_eq!(source.1.load(Ordering::Relaxed), expected as usize);
    }
    for (start, end) in [(0, end + 1), (end + 1, end + 1), (5, 4), (u64::MAX, u64::MAX)] {
        assert!(matches!(reader.range(start, end), Err(ArchiveError::OutOfRange { .. })));
    }
}

#[test]
fn a_writer_that_is_dropped_leaves_no_last_frame() {
    #[derive(Clone, Default)]
    struct Kept(Arc<std::sync::Mutex<Vec<u8>>>);
    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let made = make(4 * FRAME_BYTES);
    let without = |feed: usize, finish: bool| {
        let kept = Kept::default();
        let mut writer = ArchiveWriter::begin(kept.clone(), made.id, &made.keys, 3, 2).unwrap();
        writer.feed(&made.dump[..feed]).unwrap();
        if finish {
            assert!(writer.finish().is_err());
        } else {
            drop(writer);
        }
        Arc::into_inner(kept.0).expect("the sink is closed").into_inner().unwrap()
    };
    for feed in [0, 100, FRAME_BYTES, 3 * FRAME_BYTES + 5, made.dump.len()] {
        for finish in [false, true] {
            if finish && feed == made.dump.len() {
                continue;
            }
            let refused = refusal(&without(feed, finish), &made);
            assert!(matches!(refused, ArchiveError::EndsBetweenFrames { section: "data", .. }), "{refused}");
        }
    }
}

#[test]
fn errors_of_the_sink_surface() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.checked_sub(bytes.len()) {
                Some(left) => {
                    self.0 = left;
                    Ok(bytes.len())
                }
                None => Err(io::Error::new(io::ErrorKind::StorageFull, "no space")),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::Error::new(io::ErrorKind::StorageFull, "no space at the end"))
        }
    }
    let made = make(20 * FRAME_BYTES);
    for room in [0, HEADER_BYTES, 1000, made.stored.len() / 2, made.stored.len() - 1, made.stored.len() + 99] {
        let run = || -> Result<(), ArchiveError> {
            let mut writer = ArchiveWriter::begin(Full(room), made.id, &made.keys, 3, 2)?;
            for part in made.dump.chunks(300_000) {
                if let Err(error) = writer.feed(part) {
                    assert!(matches!(writer.feed(part), Err(ArchiveError::AlreadyFailed)));
                    assert!(writer.finish().is_err());
                    return Err(error);
                }
            }
            writer.finish().map(|_| ())
        };
        let error = run().expect_err("there was no room");
        assert!(
            matches!(&error, ArchiveError::Io(inner) if inner.kind() == io::ErrorKind::StorageFull),
            "{room}: {error}"
        );
    }
}

#[test]
fn an_incomplete_dump_is_not_finished() {
    let dump = small_dump();
    for cut in 0..dump.len() {
        let keys = DataKey::generate().subkeys();
        let mut writer = ArchiveWriter::begin(Vec::new(), id(0), &keys, 1, 1).unwrap();
        writer.feed(&dump[..cut]).unwrap();
        assert!(writer.finish().is_err(), "cut at {cut}");
    }
}

#[test]
fn a_reader_must_be_read_to_its_end() {
    let made = make(FRAME_BYTES + 10);
    for bytes in [0, 5, FRAME_BYTES, FRAME_BYTES + 9] {
        let mut reader = ArchiveReader::open(made.stored.as_slice(), made.id, &made.keys).unwrap();
        reader.read_exact(&mut vec![0; bytes]).unwrap();
        assert!(matches!(reader.finish(), Err(ArchiveError::NotReadToEnd)));
    }
    let mut reader = ArchiveReader::open(made.stored.as_slice(), made.id, &made.keys).unwrap();
    reader.read_exact(&mut vec![0; FRAME_BYTES + 10]).unwrap();
    reader.finish().unwrap();
}

#[test]
fn an_error_stays_an_error() {
    let made = make(3 * FRAME_BYTES);
    let mut flipped = made.stored.clone();
    flipped[borders(&made.stored)[1] + 40] ^= 1;
    let mut reader = ArchiveReader::open(flipped.as_slice(), made.id, &made.keys).unwrap();
    let mut plain = Vec::new();
    assert!(reader.read_to_end(&mut plain).is_err());
    assert!(plain == made.dump[..FRAME_BYTES]);
    assert!(reader.read(&mut [0; 10]).is_err());
    assert!(reader.finish().is_err());
    let index = Arc::new(made.index.clone());
    let random = RandomReader::new(Arc::new(flipped), made.id, &made.keys, index).unwrap();
    let mut range = random.range(FRAME_BYTES as u64 + 7, made.index.raw_bytes).unwrap();
    assert!(range.read(&mut [0; 10]).is_err());
    assert!(range.read(&mut [0; 10]).is_err());
}

#[test]
fn archive_errors_travel_through_io_errors() {
    let error = ArchiveError::TrailingBytes.into_io();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(matches!(ArchiveError::from_io(error), ArchiveError::TrailingBytes));
    let plain = io::Error::other("disk");
    assert!(matches!(ArchiveError::from_io(plain), ArchiveError::Io(_)));
}
