//! Every field of a stored archive and its manifest: wrong, missing, negative, too large, from another archive; and
//! every kind of truncation. Each is made of the frozen archive of format 1, refused by every reader, in words that
//! say which field it was: the three readers of the library, and the one in Python that shares no code with it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ripcord::archive::{ArchiveError, ArchiveReader, ArchiveWriter, Index, RandomReader, StreamId, verify};
use ripcord::ids::{BackupId, Lineage};
use ripcord::keys::{DataKey, KeyRing, MasterKey, SubKeys, Wrap};
use ripcord::manifest::{self, Manifest};

/// Bytes in front of a stream's frames, and of a frame's sealed bytes.
const HEADER: usize = 84;
const FRAME: usize = 17;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/format-1")
}

struct Vector {
    stream: Vec<u8>,
    file: Vec<u8>,
    ring: KeyRing,
    manifest: Manifest,
    keys: SubKeys,
    id: StreamId,
    index: Arc<Index>,
}

fn vector() -> Vector {
    let file = fs::read(root().join("manifest")).unwrap();
    let key = fs::read_to_string(root().join("master-key.hex")).unwrap();
    let ring = KeyRing::new(vec![MasterKey::from_hex(&key).unwrap()]).unwrap();
    let clear = manifest::decode_clear(&file).unwrap().clear;
    let (manifest, keys) = manifest::decode(&file, clear.lineage, clear.backup, &ring).unwrap();
    let id = StreamId { lineage: clear.lineage, backup: clear.backup, stream: 0 };
    let index = Arc::new(manifest.sealed.streams[0].index.clone());
    Vector { stream: fs::read(root().join("0.rip")).unwrap(), file, ring, manifest, keys, id, index }
}

/// Where the frames begin from `start` on, and the end.
fn borders(bytes: &[u8], start: usize) -> Vec<usize> {
    let mut borders = vec![start];
    while let Some(at) = borders.last().copied().filter(|at| *at < bytes.len()) {
        borders.push(at + FRAME + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize);
    }
    borders
}

/// A damaged object, and a part of what must be said of it. The reader of ranges looks at no index.
struct Case {
    name: String,
    bytes: Vec<u8>,
    says: &'static str,
    ranges_see_it: bool,
}

fn put(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at..at + with.len()].copy_from_slice(with);
    changed
}

fn without(bytes: &[u8], at: usize, count: usize) -> Vec<u8> {
    [&bytes[..at], &bytes[at + count..]].concat()
}

/// The header and the frames' own fields, which stream and manifest share.
fn frame_cases(bytes: &[u8], borders: &[usize], of: &str, data_frames: usize, cases: &mut Vec<Case>) {
    for (number, at) in borders[..borders.len() - 1].iter().copied().enumerate() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let ranges_see_it = number < data_frames;
        let mut add = |what: &str, bytes: Vec<u8>, says: &'static str| {
            cases.push(Case { name: format!("{of} frame {number}: {what}"), bytes, says, ranges_see_it });
        };
        for (what, value) in [
            ("zero", 0),
            ("the tag alone", 16),
            ("too large", 1_052_689),
            ("negative", u32::MAX),
            ("2 GiB", 0x7fff_ffff),
        ] {
            add(&format!("length {what}"), put(bytes, at, &value.to_le_bytes()), "claims");
        }
        add("length one less", put(bytes, at, &(length - 1).to_le_bytes()), "");
        add("length one more", put(bytes, at, &(length + 1).to_le_bytes()), "");
        add("unknown kind", put(bytes, at + 4, &[9]), "unknown kind");
        add("negative kind", put(bytes, at + 4, &[0xff]), "unknown kind");
        add("kind of another section", put(bytes, at + 4, &[bytes[at + 4] ^ 2]), "");
        add("last where it is not, or the reverse", put(bytes, at + 4, &[bytes[at + 4] ^ 1]), "is not authentic");
        add("counter one more", put(bytes, at + 5, &[bytes[at + 5] + 1]), "stands at the place of");
        add("counter negative", put(bytes, at + 5, &[0xff; 4]), "stands at the place of");
        add("mark of another", put(bytes, at + 9, &[bytes[at + 9] ^ 1]), "belongs to another stream");
        add("first sealed byte", put(bytes, at + FRAME, &[bytes[at + FRAME] ^ 1]), "is not authentic");
        let end = borders[number + 1] - 1;
        add("last byte of the tag", put(bytes, end, &[bytes[end] ^ 0x80]), "is not authentic");
        for (what, from, count) in [
            ("length", 0, 4),
            ("kind", 4, 1),
            ("counter", 5, 4),
            ("mark", 9, 8),
            ("tag", borders[number + 1] - at - 16, 16),
        ] {
            add(&format!("{what} missing"), without(bytes, at + from, count), "");
        }
        add("missing", without(bytes, at, borders[number + 1] - at), "");
        let twice = [&bytes[..borders[number + 1]], &bytes[at..]].concat();
        // What follows the last data frame is none of the reader's of ranges.
        let ranges_see_it = number.saturating_add(1) < data_frames;
        cases.push(Case { name: format!("{of} frame {number}: twice"), bytes: twice, says: "", ranges_see_it });
    }
}

fn truncations(bytes: &[u8], borders: &[usize], of: &str, data_frames: usize, cases: &mut Vec<Case>) {
    let first = borders[0];
    let mut cuts: BTreeMap<usize, &'static str> = (0..first).map(|cut| (cut, "")).collect();
    for (number, at) in borders[..borders.len() - 1].iter().copied().enumerate() {
        let end = borders[number + 1];
        cuts.insert(at, "is cut off: it ends before");
        for cut in (at + 1..at + FRAME + 20).chain((at + FRAME..end).step_by(211)).chain(end - 20..end) {
            cuts.insert(cut, "is cut off: it ends within");
        }
    }
    let after_data = borders[data_frames.min(borders.len() - 1)];
    for (cut, says) in cuts {
        let ranges_see_it = cut < after_data;
        cases.push(Case { name: format!("{of} cut at {cut}"), bytes: bytes[..cut].to_vec(), says, ranges_see_it });
    }
    let name = format!("{of} with a byte more");
    cases.push(Case { name, bytes: [bytes, b"\0"].concat(), says: "follows", ranges_see_it: false });
}

fn stream_cases(v: &Vector) -> Vec<Case> {
    let s = &v.stream;
    let borders = borders(s, HEADER);
    let data = borders.len() - 2;
    assert_eq!(data, v.index.frames.len());
    let mut cases = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>, says: &'static str| {
        cases.push(Case { name: format!("stream {name}"), bytes, says, ranges_see_it: true });
    };
    add("magic", put(s, 0, b"PGDMP"), "is not a ripcord archive");
    add("magic of a manifest", put(s, 0, b"ripcman\n"), "is not a ripcord archive");
    for value in [0_u32, 2, 0x7fff_ffff, u32::MAX] {
        add(&format!("format {value}"), put(s, 8, &value.to_le_bytes()), "has format");
    }
    add("lineage", put(s, 12, Lineage::new().as_bytes()), "belongs to lineage");
    add("lineage zero", put(s, 12, &[0; 16]), "belongs to lineage");
    add("backup", put(s, 28, BackupId::new().as_bytes()), "belongs to backup");
    for value in [1_u32, u32::MAX] {
        add(&format!("number {value}"), put(s, 44, &value.to_le_bytes()), "is stream");
    }
    for value in [0_u32, 1, 1_048_575, 1_048_577, u32::MAX] {
        add(&format!("frame size {value}"), put(s, 48, &value.to_le_bytes()), "has frames of");
    }
    add("salt, where frames carry it", put(s, 52, &[s[52] ^ 1]), "belongs to another stream");
    add("salt, where they do not", put(s, 83, &[s[83] ^ 1]), "is not authentic");
    for (what, at, count) in [
        ("magic", 0, 8),
        ("format", 8, 4),
        ("lineage", 12, 16),
        ("backup", 28, 16),
        ("number", 44, 4),
        ("frame size", 48, 4),
        ("salt", 52, 32),
    ] {
        add(&format!("{what} missing"), without(s, at, count), "");
    }
    // Of another archive: an earlier attempt under the same key, another stream, another backup, another lineage.
    let mut plain = Vec::new();
    ArchiveReader::open(s.as_slice(), v.id, &v.keys).unwrap().read_to_end(&mut plain).unwrap();
    let others = [
        ("an earlier attempt", v.id, v.keys.clone()),
        ("another stream", StreamId { stream: 1, ..v.id }, v.keys.clone()),
        ("another backup", StreamId { backup: BackupId::new(), ..v.id }, DataKey::generate().subkeys()),
        ("another lineage", StreamId { lineage: Lineage::new(), ..v.id }, v.keys.clone()),
    ];
    for (what, id, keys) in others {
        let mut writer = ArchiveWriter::begin(Vec::new(), id, &keys, 3, 1).unwrap();
        writer.feed(&plain).unwrap();
        let other = writer.finish().unwrap().sink;
        let theirs = self::borders(&other, HEADER);
        for number in 0..borders.len() - 1 {
            let mut frame = other[theirs[number]..theirs[number + 1]].to_vec();
            for (how, says) in [("as it is", "belongs to another stream"), ("with our mark", "")] {
                let bytes = [&s[..borders[number]], &frame, &s[borders[number + 1]..]].concat();
                let name = format!("stream frame {number} of {what}, {how}");
                cases.push(Case { name, bytes, says, ranges_see_it: number < data });
                frame[9..17].copy_from_slice(&s[52..60]);
            }
        }
        let whole = [&s[..52], &other[52..]].concat();
        cases.push(Case {
            name: format!("the whole of {what} under our header"),
            bytes: whole,
            says: "",
            ranges_see_it: true,
        });
    }
    frame_cases(s, &borders, "stream", data, &mut cases);
    truncations(s, &borders, "stream", data, &mut cases);
    cases
}

fn manifest_parts(file: &[u8]) -> (Vec<u8>, Vec<u8>, usize) {
    let length = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let clear = file[16..16 + length(12)].to_vec();
    let at = 16 + clear.len();
    let wraps = file[at + 4..at + 4 + length(at)].to_vec();
    let rest = at + 4 + wraps.len();
    (clear, wraps, rest)
}

fn manifest_of(file: &[u8], clear: &[u8], wraps: &[u8]) -> Vec<u8> {
    let (_, _, rest) = manifest_parts(file);
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap().to_le_bytes();
    [&file[..12], &length(clear), clear, &length(wraps), wraps, &file[rest..]].concat()
}

fn manifest_cases(v: &Vector) -> Vec<Case> {
    let m = &v.file;
    let (clear, wraps, rest) = manifest_parts(m);
    let borders = borders(m, rest + 32);
    let mut cases = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>, says: &'static str| {
        cases.push(Case { name: format!("manifest {name}"), bytes, says, ranges_see_it: true });
    };
    add("magic".to_owned(), put(m, 0, b"ripcord\n"), "is not a ripcord manifest");
    for value in [0_u32, 2, u32::MAX] {
        add(format!("format {value}"), put(m, 8, &value.to_le_bytes()), "has format");
    }
    for (what, at) in [("clear length", 12), ("wraps length", 16 + clear.len())] {
        for value in [0x7fff_ffff_u32, u32::MAX, m.len() as u32] {
            add(format!("{what} {value}"), put(m, at, &value.to_le_bytes()), "is cut off");
        }
        for value in [0_u32, 1] {
            add(format!("{what} {value}"), put(m, at, &value.to_le_bytes()), "");
        }
        add(format!("{what} missing"), without(m, at, 4), "");
    }
    // Each field of the clear part. What reads well all the same is refused by the sealed part.
    let parsed: serde_json::Value = serde_json::from_slice(&clear).unwrap();
    for field in
        ["format", "kind", "lineage", "backup", "purpose", "database", "created_at", "raw_bytes", "stored_bytes"]
    {
        let mut changes = vec![("missing", None)];
        for (what, value) in [
            ("null", serde_json::Value::Null),
            ("negative", serde_json::json!(-1)),
            ("too large", serde_json::json!(1e30)),
            ("a list", serde_json::json!([])),
            ("another word", serde_json::json!("other")),
            ("another id", serde_json::json!(BackupId::new())),
            ("another number", serde_json::json!(7)),
            ("another time", serde_json::json!("2026-01-01T00:00:00Z")),
        ] {
            changes.push((what, Some(value)));
        }
        for (what, value) in changes {
            let mut changed = parsed.clone();
            match value {
                None => drop(changed.as_object_mut().unwrap().remove(field)),
                Some(value) => changed[field] = value,
            }
            let says = match (field, what) {
                (_, "missing" | "null" | "a list") => "is not readable",
                ("kind", "another word" | "another id" | "another time") => "is of the kind",
                ("format", "another number") => "has format 7",
                ("backup", "another id") => "stands at the place of",
                ("lineage", "another id") => "belongs to lineage",
                ("database", "another word" | "another id" | "another time") => "is not authentic",
                ("raw_bytes" | "stored_bytes", "another number") => "is not authentic",
                ("created_at", "another time") => "is not authentic",
                _ => "is not readable",
            };
            let bytes = manifest_of(m, &serde_json::to_vec(&changed).unwrap(), &wraps);
            add(format!("clear {field}: {what}"), bytes, says);
        }
    }
    // The wraps are not authenticated: what they say is tried, and nothing else.
    let good: Vec<Wrap> = serde_json::from_slice(&wraps).unwrap();
    let ours = good.iter().position(|wrap| wrap.key_id == v.ring.primary().id()).unwrap();
    let other_key = MasterKey::generate();
    let stranger = other_key.wrap(v.id.backup, &DataKey::generate());
    let elsewhere = v.ring.primary().wrap(BackupId::new(), &DataKey::generate());
    let of_another = v.ring.primary().wrap(v.id.backup, &DataKey::generate());
    let with = |change: &dyn Fn(&mut Wrap)| {
        let mut changed = good.clone();
        change(&mut changed[ours]);
        serde_json::to_vec(&changed).unwrap()
    };
    for (what, list, says) in [
        ("no list", b"{}".to_vec(), "is not readable"),
        ("empty", b"[]".to_vec(), "has no wrapped data key"),
        ("a stranger's", serde_json::to_vec(&[stranger]).unwrap(), "none of the keys at hand opens"),
        ("of another backup", serde_json::to_vec(&[elsewhere]).unwrap(), "does not open with key"),
        ("of another data key", serde_json::to_vec(&[of_another]).unwrap(), "is not authentic"),
        ("nonce short", with(&|wrap| wrap.nonce.truncate(22)), "does not open with key"),
        ("nonce other", with(&|wrap| wrap.nonce = "00".repeat(12)), "does not open with key"),
        ("nonce no digits", with(&|wrap| wrap.nonce = "zz".repeat(12)), "does not open with key"),
        ("sealed short", with(&|wrap| wrap.sealed.truncate(94)), "does not open with key"),
        ("sealed long", with(&|wrap| wrap.sealed.push_str("00")), "does not open with key"),
        ("sealed other", with(&|wrap| wrap.sealed = "00".repeat(48)), "does not open with key"),
        ("sealed empty", with(&|wrap| wrap.sealed.clear()), "does not open with key"),
    ] {
        add(format!("wraps: {what}"), manifest_of(m, &clear, &list), says);
    }
    for field in ["key_id", "nonce", "sealed"] {
        let mut changed: serde_json::Value = serde_json::from_slice(&wraps).unwrap();
        changed[ours].as_object_mut().unwrap().remove(field);
        add(
            format!("wraps: {field} missing"),
            manifest_of(m, &clear, &serde_json::to_vec(&changed).unwrap()),
            "is not readable",
        );
    }
    add("salt, where frames carry it".to_owned(), put(m, rest, &[m[rest] ^ 1]), "belongs to another stream");
    add("salt, where they do not".to_owned(), put(m, rest + 31, &[m[rest + 31] ^ 1]), "is not authentic");
    add("salt missing".to_owned(), without(m, rest, 32), "");
    frame_cases(m, &borders, "manifest", usize::MAX, &mut cases);
    truncations(m, &borders, "manifest", usize::MAX, &mut cases);
    cases
}

/// The frame that a refusal is about stands in its words; a part of them is expected, whoever reads.
#[track_caller]
fn refuses(reader: &str, case: &Case, said: Result<(), String>) {
    let said = said.expect_err(&format!("{reader} took: {}", case.name));
    assert!(said.contains(case.says), "{reader}, {}: `{said}` does not say `{}`", case.name, case.says);
}

#[test]
fn every_reader_refuses_every_damage_of_a_stream_and_says_what_it_is() {
    let v = vector();
    let told = |error: ArchiveError| error.to_string();
    for case in stream_cases(&v) {
        let bytes = case.bytes.as_slice();
        let mut plain = Vec::new();
        let read = ArchiveReader::open(bytes, v.id, &v.keys).and_then(|mut reader| {
            reader.read_to_end(&mut plain).map_err(ArchiveError::from_io)?;
            reader.finish().map(drop)
        });
        // An earlier attempt was sealed under this key as a whole: its bytes tell it apart.
        if case.name != "the whole of an earlier attempt under our header" {
            refuses("front to back", &case, read.map_err(told));
        }
        let verified = verify(bytes, v.id, &v.keys, &v.index, &mut |_| {}).map_err(told).and_then(|sha256| {
            let expected = &v.manifest.sealed.streams[0].sha256;
            if sha256 == *expected { Ok(()) } else { Err("other bytes".to_owned()) }
        });
        // The manifest's lengths are looked at before a frame is opened, so a word of its own may come first.
        let said = verified.expect_err(&case.name);
        let own = said.contains(case.says) || said.contains("manifest");
        assert!(own, "verify, {}: `{said}` does not say `{}`", case.name, case.says);
        if case.ranges_see_it && !case.name.starts_with("the whole of an earlier") {
            let ranges = RandomReader::new(Arc::new(case.bytes.clone()), v.id, &v.keys, Arc::clone(&v.index))
                .and_then(|reader| reader.range(0, v.index.raw_bytes))
                .and_then(|mut range| range.read_to_end(&mut Vec::new()).map(drop).map_err(ArchiveError::from_io));
            assert!(ranges.is_err(), "the reader of ranges took: {}", case.name);
        }
    }
}

#[test]
fn every_damage_of_a_manifest_is_refused_and_named() {
    let v = vector();
    for case in manifest_cases(&v) {
        let opened = manifest::decode(&case.bytes, v.id.lineage, v.id.backup, &v.ring);
        refuses("manifest", &case, opened.map(drop).map_err(|error| error.one_line()));
    }
}

/// One process reads them all: `case` → what it says; nothing but its own words, never a traceback.
#[test]
fn the_second_reader_refuses_all_of_it_too_in_its_own_words() {
    const DRIVER: &str = "
import importlib.util, io, contextlib, json, pathlib, sys
spec = importlib.util.spec_from_file_location('reader', sys.argv[1])
reader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reader)
said = {}
for folder in sorted(pathlib.Path(sys.argv[3]).iterdir()):
    sys.argv[1:] = [sys.argv[1], sys.argv[2], sys.argv[3]]
    keep, sys.argv = sys.argv, ['reader', sys.argv[2], str(folder), '--no-rows']
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            reader.run()
        said[folder.name] = None
    except SystemExit as end:
        said[folder.name] = str(end.code)
    finally:
        sys.argv = keep
print(json.dumps(said))
";
    let v = vector();
    let scratch = tempfile::tempdir().unwrap();
    let mut names = BTreeMap::new();
    let all = [("0.rip", stream_cases(&v)), ("manifest", manifest_cases(&v))];
    for (object, cases) in &all {
        for case in cases {
            let number = format!("{:05}", names.len());
            let folder = scratch.path().join(&number);
            fs::create_dir(&folder).unwrap();
            for name in ["0.rip", "manifest"] {
                match name == *object {
                    true => fs::write(folder.join(name), &case.bytes).unwrap(),
                    false => fs::hard_link(root().join(name), folder.join(name))
                        .or_else(|_| fs::copy(root().join(name), folder.join(name)).map(drop))
                        .unwrap(),
                }
            }
            names.insert(number, &case.name);
        }
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages =
        std::env::var_os("RIPCORD_TEST_PYTHONPATH").map_or_else(|| project.join("target/python"), PathBuf::from);
    let output = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", packages)
        .args(["-c", DRIVER])
        .arg(project.join("scripts/read-archive.py"))
        .arg(root().join("master-key.hex"))
        .arg(scratch.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: BTreeMap<String, Option<String>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said.len(), names.len());
    for (number, name) in names {
        let said = said[&number].as_ref().unwrap_or_else(|| panic!("the second reader took: {name}"));
        assert!(said.starts_with("error: ") && said.len() > 12, "{name}: {said}");
    }
}
