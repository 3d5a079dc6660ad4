//! Frozen archives of format 1: written once, readable for ever, by the library and by a reader that
//! shares no code with it.
//!
//! `RIPCORD_WRITE_VECTORS=1 cargo test --test vectors` writes the vectors anew; that is for a new
//! format, never for one that has been released.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Once};

use ripcord::archive::inventory::sequence_values;
use ripcord::archive::{
    ArchiveReader, ArchiveWriter, BlockRows, FORMAT, FRAME_BYTES, Inventory, RandomReader, Scanner, StreamId, verify,
};
use ripcord::ids::{BackupId, Lineage};
use ripcord::keys::{DataKey, KeyRing, MasterKey};
use ripcord::manifest::{self, Clear, Manifest, Purpose, Sealed, StreamRecord};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[path = "../src/archive/testing.rs"]
mod testing;

fn folder() -> PathBuf {
    static WRITE: Once = Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/format-1");
    WRITE.call_once(|| {
        if std::env::var_os("RIPCORD_WRITE_VECTORS").is_some() {
            write(&folder);
        }
    });
    folder
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Two tables, one of them with a name that is not UTF-8, large objects, a sequence; two frames.
fn dump() -> Vec<u8> {
    let rows: Vec<String> =
        (1..=9_000).map(|row| format!("{row}\t{}\t\\N", "an order like any other, ".repeat(6))).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let mut dump = testing::Dump::new(15);
    let mut sequence = testing::entry(
        7,
        "SEQUENCE SET",
        "orders_id_seq",
        "SELECT pg_catalog.setval('public.orders_id_seq', 9000, true);\n\n",
    );
    sequence.namespace = Some(b"public".to_vec());
    sequence.section = 3;
    dump.table(2, "orders", &rows)
        .table(3, "notes", &["", "a\\tb", "\\\\.", "\\N", "caf\u{e9} \u{1f418}"])
        .add(sequence)
        .large_objects(9, &[(16400, &[b"a large", b" object"]), (4_000_000_000, &[])]);
    for entry in &mut dump.entries {
        if entry.tag == b"notes" {
            entry.tag = b"caf\xe9".to_vec();
        }
        if entry.copy_statement.is_some() && entry.tag == b"caf\xe9" {
            entry.copy_statement = Some(b"COPY public.\"caf\xe9\" (note) FROM stdin;\n".to_vec());
        }
    }
    dump.bytes()
}

fn write(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let dump = dump();
    let (master, data_key) = (MasterKey::generate(), DataKey::generate());
    let keys = data_key.subkeys();
    let id = StreamId { lineage: Lineage::new(), backup: BackupId::new(), stream: 0 };
    let mut writer = ArchiveWriter::begin(Vec::new(), id, &keys, 3, 1).unwrap();
    writer.feed(&dump).unwrap();
    let finished = writer.finish().unwrap();
    let inventory = Inventory::of(&finished.contents.toc);
    let created_at = ripcord::clock::now();
    let clear = Clear {
        format: FORMAT,
        kind: "dump".to_owned(),
        lineage: id.lineage,
        backup: id.backup,
        purpose: Purpose::Manual,
        database: "shop".to_owned(),
        created_at,
        raw_bytes: finished.index.raw_bytes,
        stored_bytes: finished.stored_bytes,
    };
    let blocks: Vec<Value> = finished
        .index
        .blocks
        .iter()
        .map(|block| {
            json!({
                "namespace": block.namespace,
                "table": block.table,
                "copy_statement": block.copy_statement,
                "large_objects": block.large_objects,
                "data_bytes": block.data_bytes,
                "digest": block.digest,
            })
        })
        .collect();
    let expected = json!({
        "lineage": id.lineage,
        "backup": id.backup,
        "key_id": master.id(),
        "database": "shop",
        "dump_sha256": sha256(&dump),
        "stored_sha256": finished.stored_sha256,
        "raw_bytes": finished.index.raw_bytes,
        "frames": finished.index.frames,
        "fingerprint": inventory.fingerprint(),
        "sequences": sequence_values(&finished.contents.toc),
        "blocks": blocks,
    });
    let sealed = Sealed {
        lineage: id.lineage,
        backup: id.backup,
        created_at,
        finished_at: created_at,
        run: None,
        before: vec!["0001 orders".to_owned()],
        server_version: "16.14".to_owned(),
        tool_version: "pg_dump (PostgreSQL) 16.14".to_owned(),
        ripcord_version: env!("CARGO_PKG_VERSION").to_owned(),
        streams: vec![StreamRecord {
            number: 0,
            stored_bytes: finished.stored_bytes,
            sha256: finished.stored_sha256,
            index: finished.index,
        }],
        properties: Default::default(),
        extensions: Vec::new(),
        large_objects: 2,
        sequences: sequence_values(&finished.contents.toc),
        applied: Vec::new(),
        control_rows: Default::default(),
        fingerprint: inventory.fingerprint(),
        inventory,
        catalog_extras: Vec::new(),
        snapshot: "750:750:".to_owned(),
        wal_lsn: "0/1A2B3C4".to_owned(),
        tags: vec!["vector".to_owned()],
        left_out: Vec::new(),
    };
    let wraps = [MasterKey::generate().wrap(id.backup, &data_key), master.wrap(id.backup, &data_key)];
    let encoded = manifest::encode(&clear, &wraps, &sealed, &keys).unwrap();
    fs::write(folder.join("0.rip"), finished.sink).unwrap();
    fs::write(folder.join("manifest"), encoded).unwrap();
    fs::write(folder.join("master-key.hex"), format!("{}\n", master.to_hex().expose_secret())).unwrap();
    let text = serde_json::to_string_pretty(&expected).unwrap();
    fs::write(folder.join("expected.json"), text + "\n").unwrap();
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(folder().join("expected.json")).unwrap()).unwrap()
}

fn opened() -> (Manifest, ripcord::keys::SubKeys, StreamId) {
    let (folder, expected) = (folder(), expected());
    let digits = fs::read_to_string(folder.join("master-key.hex")).unwrap();
    let master = MasterKey::from_hex(&digits).unwrap();
    assert_eq!(json!(master.id()), expected["key_id"]);
    let ring = KeyRing::new(vec![master]).unwrap();
    let lineage: Lineage = expected["lineage"].as_str().unwrap().parse().unwrap();
    let backup: BackupId = expected["backup"].as_str().unwrap().parse().unwrap();
    let bytes = fs::read(folder.join("manifest")).unwrap();
    let (manifest, keys) = manifest::decode(&bytes, lineage, backup, &ring).unwrap();
    let id = StreamId { lineage, backup, stream: 0 };
    (manifest, keys, id)
}

#[test]
fn the_frozen_manifest_says_what_it_said() {
    let (manifest, _, _) = opened();
    let expected = expected();
    assert_eq!(json!(manifest.clear.database), expected["database"]);
    assert_eq!(json!(manifest.sealed.fingerprint), expected["fingerprint"]);
    assert_eq!(manifest.sealed.inventory.fingerprint(), manifest.sealed.fingerprint);
    assert_eq!(json!(manifest.sealed.sequences), expected["sequences"]);
    assert_eq!(json!(manifest.sealed.streams[0].sha256), expected["stored_sha256"]);
    assert_eq!(manifest.sealed.tags, ["vector"]);
}

#[test]
fn the_frozen_archive_is_read_by_every_reader() {
    let (manifest, keys, id) = opened();
    let expected = expected();
    let stored = fs::read(folder().join("0.rip")).unwrap();
    assert!(stored.len() < 200_000, "a vector is small");
    let record = &manifest.sealed.streams[0];

    let hash = verify(stored.as_slice(), id, &keys, &record.index, &mut |_| {}).unwrap();
    assert_eq!(hash, record.sha256);
    assert_eq!(hash, sha256(&stored));

    let mut reader = ArchiveReader::open(stored.as_slice(), id, &keys).unwrap();
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).unwrap();
    let index = reader.finish().unwrap();
    assert_eq!(index, record.index);
    assert!(index.frames.len() == 2 && plain.len() > FRAME_BYTES);
    assert_eq!(json!(index.frames), expected["frames"]);
    assert_eq!(json!(sha256(&plain)), expected["dump_sha256"]);

    let mut scanner = Scanner::new(keys.digest_key());
    scanner.feed(&plain).unwrap();
    let contents = scanner.finish().unwrap();
    assert_eq!(contents.blocks, index.blocks);
    assert_eq!(json!(Inventory::of(&contents.toc).fingerprint()), expected["fingerprint"]);

    let source = Arc::new(stored);
    let random = RandomReader::new(source, id, &keys, Arc::new(index.clone())).unwrap();
    let mut rows = Vec::new();
    for (block, expected) in index.blocks.iter().zip(expected["blocks"].as_array().unwrap()) {
        assert_eq!(json!(block.namespace), expected["namespace"]);
        assert_eq!(json!(block.table), expected["table"]);
        assert_eq!(json!(block.copy_statement), expected["copy_statement"]);
        assert_eq!(json!(block.large_objects), expected["large_objects"]);
        assert_eq!(json!(block.data_bytes), expected["data_bytes"]);
        assert_eq!(json!(block.digest), expected["digest"]);
        rows.push(block.digest.rows);
        if !block.large_objects {
            let range = random.range(block.start, block.end).unwrap();
            let mut text = Vec::new();
            BlockRows::new(range, block, keys.digest_key()).unwrap().read_to_end(&mut text).unwrap();
            assert_eq!(text.len() as u64, block.data_bytes);
            let lines = text.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(lines as u64, block.digest.rows);
        }
    }
    assert_eq!(rows, [9_000, 5, 2]);
}

#[test]
fn the_dump_of_the_vector_is_still_sealed_and_read() {
    let (_, keys, id) = opened();
    let dump = dump();
    assert_eq!(json!(sha256(&dump)), expected()["dump_sha256"]);
    let mut writer = ArchiveWriter::begin(Vec::new(), id, &keys, 3, 2).unwrap();
    writer.feed(&dump).unwrap();
    let finished = writer.finish().unwrap();
    let blocks: Vec<Value> = finished.index.blocks.iter().map(|block| json!(block.digest)).collect();
    let expected = expected();
    let expected = expected["blocks"].as_array().unwrap().iter();
    assert_eq!(blocks, expected.map(|block| block["digest"].clone()).collect::<Vec<_>>());
}

/// Runs `scripts/read-archive.py` on a backup's folder.
fn python(folder: &Path, output: &Path) -> std::process::Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages =
        std::env::var_os("RIPCORD_TEST_PYTHONPATH").map_or_else(|| root.join("target/python"), PathBuf::from);
    let python = |arguments: &[&std::ffi::OsStr]| {
        Command::new("python3")
            .env("PYTHONPATH", &packages)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("python3 (3.9 or newer) is needed for this test: {error}"))
    };
    let imports = python(&["-c".as_ref(), "import cryptography, zstandard".as_ref()]);
    assert!(
        imports.status.success(),
        "this test needs two packages of Python's; run\n    \
         python3 -m pip install --target {} cryptography zstandard\n{}",
        packages.display(),
        String::from_utf8_lossy(&imports.stderr)
    );
    let key = root.join("tests/vectors/format-1/master-key.hex");
    python(&[
        root.join("scripts/read-archive.py").as_os_str(),
        key.as_os_str(),
        folder.as_os_str(),
        "-o".as_ref(),
        output.as_os_str(),
    ])
}

#[test]
fn a_reader_that_shares_no_code_reads_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("dump");
    let ran = python(&folder(), &output);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let expected = expected();
    assert_eq!(json!(sha256(&fs::read(&output).unwrap())), expected["dump_sha256"]);
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["clear"]["database"], expected["database"]);
    assert_eq!(report["sealed"]["fingerprint"], expected["fingerprint"]);
    assert_eq!(report["sealed"]["sequences"], expected["sequences"]);
    let stream = &report["streams"][0];
    assert_eq!(stream["dump_sha256"], expected["dump_sha256"]);
    assert_eq!(stream["rows_checked"], true);
    for (found, expected) in stream["blocks"].as_array().unwrap().iter().zip(expected["blocks"].as_array().unwrap()) {
        for field in ["namespace", "table", "digest"] {
            assert_eq!(found[field], expected[field]);
        }
    }
}

#[test]
fn that_reader_refuses_a_changed_archive_too() {
    for (object, position) in [("0.rip", 90), ("0.rip", 300), ("manifest", 40), ("manifest", 1500)] {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["0.rip", "manifest"] {
            let mut bytes = fs::read(folder().join(name)).unwrap();
            if name == object {
                bytes[position] ^= 1;
            }
            fs::write(scratch.path().join(name), bytes).unwrap();
        }
        let ran = python(scratch.path(), &scratch.path().join("dump"));
        assert!(!ran.status.success(), "{object} changed at {position}");
        assert!(!scratch.path().join("dump").exists());
    }
}
