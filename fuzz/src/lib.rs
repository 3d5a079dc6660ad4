//! What each parser is asked with bytes from nowhere: that it does not panic, does not allocate by a number that
//! it read, and that its readers agree with each other. A finding is a panic.
//!
//! Compiled twice: into the fuzz targets, and into `tests/fuzzed.rs`, which feeds it the corpora with every test run.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ripcord::archive::{
    ArchiveReader, BlockRows, Index, RandomReader, Scanner, StreamId, Text, Toc, verify as verify_stream,
};
use ripcord::ids::{Lineage, RunId};
use ripcord::journal::{self, Journal, MemoryLog, Step, StepLog};
use ripcord::keys::{KeyRing, MasterKey, SubKeys, Wrap};
use ripcord::manifest::{self, Clear, Manifest, Sealed};
use ripcord::migration::{self, source, split};

const STREAM: &[u8] = include_bytes!("../../tests/vectors/format-1/0.rip");
const MANIFEST: &[u8] = include_bytes!("../../tests/vectors/format-1/manifest");
const KEY: &str = include_str!("../../tests/vectors/format-1/master-key.hex");

/// The archive that the hostile ones are made of.
struct Sample {
    ring: KeyRing,
    manifest: Manifest,
    keys: SubKeys,
    id: StreamId,
    index: Arc<Index>,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let ring = KeyRing::new(vec![MasterKey::from_hex(KEY).unwrap()]).unwrap();
        let clear = manifest::decode_clear(MANIFEST).unwrap().clear;
        let (manifest, keys) = manifest::decode(MANIFEST, clear.lineage, clear.backup, &ring).unwrap();
        let record = &manifest.sealed.streams[0];
        let id = StreamId { lineage: clear.lineage, backup: clear.backup, stream: record.number };
        let index = Arc::new(record.index.clone());
        Sample { ring, keys, id, index, manifest }
    })
}

/// What the input stands for: as it is (first byte 0), or a good object with changes: cuts (1), and pieces of five
/// bytes that put a byte (place, kind, value), move a piece, or double one.
fn disturbed(good: &[u8], bytes: &[u8]) -> Vec<u8> {
    let Some((how, rest)) = bytes.split_first() else { return Vec::new() };
    if *how == 0 {
        return rest.to_vec();
    }
    let mut made = good.to_vec();
    for piece in rest.chunks_exact(5) {
        let place = usize::from(u16::from_le_bytes([piece[0], piece[1]]));
        let other = usize::from(piece[4]) * 64;
        if made.is_empty() {
            break;
        }
        let at = place % made.len();
        match piece[2] % 6 {
            0 => made[at] = piece[3],
            1 => made[at] ^= piece[3],
            2 => made.truncate(at),
            3 => made.insert(at, piece[3]),
            4 => {
                let end = (at + usize::from(piece[3])).min(made.len());
                let moved: Vec<u8> = made.drain(at..end).collect();
                let to = other.min(made.len());
                made.splice(to..to, moved);
            }
            _ => {
                let end = (at + usize::from(piece[3])).min(made.len());
                let doubled = made[at..end].to_vec();
                made.splice(at..at, doubled);
            }
        }
        made.truncate(2 * good.len());
    }
    made
}

/// A stored stream: header, frames, index. What the three readers give out was authenticated, so all that can come
/// out is the dump that was sealed, or the beginning of it.
pub fn stream(bytes: &[u8]) {
    let sample = sample();
    let stored = disturbed(STREAM, bytes);
    let untouched = stored == STREAM;

    let mut plain = Vec::new();
    let whole = ArchiveReader::open(stored.as_slice(), sample.id, &sample.keys).is_ok_and(|mut reader| {
        reader.read_to_end(&mut plain).is_ok() && reader.finish().is_ok_and(|index| index == *sample.index)
    });
    assert!(plain.len() as u64 <= sample.index.raw_bytes);
    assert_eq!(whole, untouched, "front to back");
    let verified = verify_stream(stored.as_slice(), sample.id, &sample.keys, &sample.index, &mut |_| {});
    assert_eq!(verified.is_ok(), untouched, "verify");
    // The random reader needs no index at the end, and looks only at the frames that it is asked for.
    let source: Arc<dyn ripcord::io::ReadAt> = Arc::new(stored);
    if let Ok(reader) = RandomReader::new(source, sample.id, &sample.keys, Arc::clone(&sample.index)) {
        let mut again = Vec::new();
        let read = reader.range(0, sample.index.raw_bytes).is_ok_and(|mut all| all.read_to_end(&mut again).is_ok());
        assert!(!untouched || read);
        let shorter = plain.len().min(again.len());
        assert_eq!(plain[..shorter], again[..shorter]);
    }
}

/// An index, as JSON, and a stream that is read by it.
pub fn index(bytes: &[u8]) {
    let Ok(index) = serde_json::from_slice::<Index>(bytes) else { return };
    let again: Index = serde_json::from_slice(&serde_json::to_vec(&index).unwrap()).unwrap();
    assert_eq!(index, again);
    if index.check().is_err() {
        return;
    }
    let sample = sample();
    let verified = verify_stream(STREAM, sample.id, &sample.keys, &index, &mut |_| {});
    assert_eq!(verified.is_ok(), index == *sample.index);
    let source: Arc<dyn ripcord::io::ReadAt> = Arc::new(STREAM.to_vec());
    let index = Arc::new(index);
    let Ok(reader) = RandomReader::new(source, sample.id, &sample.keys, Arc::clone(&index)) else { return };
    for block in &index.blocks {
        let Ok(range) = reader.range(block.start, block.end) else { continue };
        if let Ok(mut rows) = BlockRows::new(range, block, sample.keys.digest_key()) {
            let mut text = Vec::new();
            if rows.read_to_end(&mut text).is_ok() {
                assert_eq!(text.len() as u64, block.data_bytes);
            }
        }
    }
}

/// A manifest: the file as a whole, and each of its JSON parts.
pub fn manifest(bytes: &[u8]) {
    let sample = sample();
    let file = disturbed(MANIFEST, bytes);
    let (lineage, backup) = (sample.manifest.clear.lineage, sample.manifest.clear.backup);
    let opened = manifest::decode(&file, lineage, backup, &sample.ring);
    if let Ok((opened, _)) = &opened {
        // The wraps are not authenticated; everything else is.
        assert_eq!(opened.clear, sample.manifest.clear);
        assert_eq!(opened.sealed, sample.manifest.sealed);
    }
    if let Ok(unverified) = manifest::decode_clear(&file) {
        let _ = sample.ring.unwrap(backup, &unverified.wraps);
        if !unverified.wraps.is_empty() {
            let rewrapped = manifest::rewrap(&file, &sample.manifest.wraps).unwrap();
            let reopened = manifest::decode(&rewrapped, lineage, backup, &sample.ring);
            assert!(opened.is_err() || reopened.is_ok());
        }
    }
    let _ = manifest::rewrap(&file, &[]).unwrap_err();
    let _ = serde_json::from_slice::<Clear>(bytes);
    let _ = serde_json::from_slice::<Vec<Wrap>>(bytes).map(|wraps| sample.ring.unwrap(backup, &wraps));
    if let Ok(sealed) = serde_json::from_slice::<Sealed>(bytes) {
        let mut clear = sample.manifest.clear.clone();
        (clear.lineage, clear.backup, clear.created_at) = (sealed.lineage, sealed.backup, sealed.created_at);
        let file = manifest::encode(&clear, &sample.manifest.wraps, &sealed, &sample.keys).unwrap();
        // Under another id the wraps do not open.
        let _ = manifest::decode(&file, clear.lineage, clear.backup, &sample.ring);
    }
    if let Ok(text) = serde_json::from_slice::<Text>(bytes) {
        assert_eq!(serde_json::from_slice::<Text>(&serde_json::to_vec(&text).unwrap()).unwrap(), text);
    }
}

/// A dump: its table of contents, and the scanner in one portion and in several.
pub fn dump(bytes: &[u8]) {
    let toc = Toc::parse(bytes);
    let key = [7; 16];
    let scan = |portion: usize| {
        let mut scanner = Scanner::new(key);
        for part in bytes.chunks(portion) {
            scanner.feed(part).map_err(|error| error.to_string())?;
            let _ = scanner.current_table();
        }
        scanner.finish().map_err(|error| error.to_string())
    };
    let whole = scan(bytes.len().max(1));
    for portion in [1, 7, 64] {
        match (&whole, scan(portion)) {
            (Ok(whole), Ok(parts)) => {
                assert_eq!((&whole.blocks, whole.raw_bytes), (&parts.blocks, parts.raw_bytes));
            }
            (whole, parts) => assert_eq!(whole.is_ok(), parts.is_ok(), "{:?} {:?}", whole.as_ref().err(), parts.err()),
        }
    }
    let Ok(contents) = whole else { return };
    let toc = toc.unwrap();
    assert_eq!(toc.length_bytes, contents.toc.length_bytes);
    let _ = (toc.encoding(), ripcord::archive::Inventory::of(&toc).fingerprint());
    let _ = ripcord::archive::inventory::sequence_values(&toc);
    for block in contents.blocks.iter().filter(|block| !block.large_objects) {
        let part = &bytes[usize::try_from(block.start).unwrap()..usize::try_from(block.end).unwrap()];
        let mut rows = BlockRows::new(part, block, key).unwrap();
        let mut text = Vec::new();
        rows.read_to_end(&mut text).unwrap();
        assert_eq!(text.len() as u64, block.data_bytes);
    }
}

/// A journal: objects cut at zero bytes, with the MACs that they carry and with good ones.
pub fn journal(bytes: &[u8]) {
    let key = MasterKey::from_hex(KEY).unwrap().journal_key();
    let (lineage, run): (Lineage, RunId) = (sample().id.lineage, RunId(sample().id.backup.0));
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == 0).take(64).collect();
    for authentic in [false, true] {
        let log = MemoryLog::new();
        log.tamper(|steps: &mut BTreeMap<String, Vec<u8>>| {
            for (number, part) in parts.iter().enumerate() {
                let mut object = part.to_vec();
                if authentic {
                    object.push(b'\n');
                    for byte in key.mac(part) {
                        object.extend_from_slice(format!("{byte:02x}").as_bytes());
                    }
                    object.push(b'\n');
                }
                steps.insert(format!("{number:06}.json"), object);
            }
        });
        let loaded = journal::load(&log, lineage, run, &key);
        let resumed = Journal::resume(Box::new(log.clone()), lineage, run, key.clone());
        assert_eq!(loaded.is_ok(), resumed.is_ok());
        if let (Ok(entries), Ok(mut resumed)) = (loaded, resumed) {
            let closed = resumed.is_closed();
            assert_eq!(resumed.record(Step::FenceEnded).is_err(), closed);
            assert_eq!(log.load().unwrap().len(), entries.len() + usize::from(!closed));
        }
    }
    let _ = serde_json::from_slice::<Step>(bytes);
}

/// SQL: the lexer, the splitter, and everything that judges a statement by its text.
pub fn sql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let folded = split::fold(text);
    let Ok(statements) = split::split(text, "fuzzed.sql", 1) else { return };
    assert_eq!(split::fold(&folded), folded);
    let mut end = 0;
    for statement in &statements {
        assert!(end <= statement.start && statement.start < statement.end && statement.end <= text.len());
        let own = text.get(statement.start..statement.end).expect("cut inside a character");
        let _ = (migration::destroyed_tables(own), migration::destroyed_schemas(own));
        end = statement.end;
    }
    assert_eq!(split::pieces(text).expect("it was split before").concat(), text);
    let script = migration::Script {
        sql: text.into(),
        first_line: 1,
        statements,
        no_transaction: None,
        variables: migration::Variables::default(),
        batches: std::collections::BTreeMap::new(),
    };
    let _ = (migration::additive_run(&[&script], &[&script]), migration::destroys(&[&script]));
    let _ = script.position(text.len() / 2);
}

/// A folder of migrations: files cut at zero bytes, name and text in turn, by every layout and by none.
pub fn layouts(bytes: &[u8]) {
    let folder = scratch();
    for entry in std::fs::read_dir(&folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mut parts = bytes.split(|byte| *byte == 0).take(12);
    while let (Some(name), Some(text)) = (parts.next(), parts.next()) {
        let name: String =
            String::from_utf8_lossy(name).chars().filter(|c| *c != '/' && !c.is_control()).take(60).collect();
        if !name.is_empty() && !name.starts_with('.') {
            std::fs::write(folder.join(format!("{name}.sql")), text).unwrap();
        }
    }
    let read = source::read(&folder, None);
    for layout in ["numbered", "banners", "metadata", "dated", "transaction", "drizzle", "plain"] {
        let _ = source::read(&folder, Some(layout));
    }
    if let Ok(read) = read {
        for migration in &read.migrations {
            for statement in &migration.up.statements {
                assert!(migration.up.sql.get(statement.start..statement.end).is_some());
            }
        }
        let again = source::read(&folder, None).unwrap();
        let sums = |folder: &source::Folder| -> Vec<String> {
            folder.migrations.iter().map(|migration| migration.checksum.clone()).collect()
        };
        assert_eq!(sums(&read), sums(&again));
    }
}

/// A folder of this process's own, in memory where there is such a place.
fn scratch() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let memory = PathBuf::from("/dev/shm");
        let above = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let folder = above.join(format!("ripcord-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    FOLDER.get_or_init(make).clone()
}
