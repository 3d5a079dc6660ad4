use serde_json::json;

use super::*;
use crate::keys::{DataKey, KeyRing, MasterKey};

struct Made {
    clear: Clear,
    sealed: Sealed,
    data_key: DataKey,
    master: MasterKey,
    ring: KeyRing,
    bytes: Vec<u8>,
}

fn parts() -> (Clear, Sealed) {
    let created_at = crate::clock::now();
    let clear = Clear {
        format: 1,
        kind: "dump".to_owned(),
        lineage: Lineage::new(),
        backup: BackupId::new(),
        purpose: Purpose::PreApply,
        database: "shop".to_owned(),
        created_at,
        raw_bytes: 10,
        stored_bytes: 5,
    };
    let sealed = json!({
        "lineage": clear.lineage,
        "backup": clear.backup,
        "created_at": created_at,
        "finished_at": created_at,
        "run": RunId::new(),
        "before": ["0042 orders"],
        "server_version": "15.18",
        "tool_version": "15.18",
        "ripcord_version": "0.1.0",
        "streams": [],
        "properties": DatabaseProperties::default(),
        "extensions": [{"name": "citext", "version": "1.6"}],
        "large_objects": 2,
        "sequences": {"public.orders_id_seq": [42, true]},
        "applied": [],
        "control_rows": {"runs": [{"id": 1}]},
        "inventory": {"items": []},
        "fingerprint": "00",
        "catalog_extras": [],
        "snapshot": "7:7:",
        "wal_lsn": "0/0",
        "tags": ["a secret tag"],
        "a field of later days": 1
    });
    (clear, serde_json::from_value(sealed).unwrap())
}

fn make() -> Made {
    let (clear, sealed) = parts();
    let (data_key, master) = (DataKey::generate(), MasterKey::generate());
    let wraps = [master.wrap(clear.backup, &data_key)];
    let bytes = encode(&clear, &wraps, &sealed, &data_key.subkeys()).unwrap();
    Made { ring: KeyRing::new(vec![master.clone()]).unwrap(), clear, sealed, data_key, master, bytes }
}

fn open(made: &Made, bytes: &[u8]) -> Result<Manifest> {
    decode(bytes, made.clear.lineage, made.clear.backup, &made.ring).map(|(manifest, _)| manifest)
}

fn refusal(made: &Made, bytes: &[u8]) -> Error {
    open(made, bytes).expect_err("it was taken")
}

/// Puts a file together as `encode` does, from parts that it would refuse.
fn forge(made: &Made, clear_json: &[u8], clear: &Clear, sealed: &Sealed) -> Vec<u8> {
    let wraps = [made.master.wrap(made.clear.backup, &made.data_key)];
    let salt = new_salt();
    let mut file = start("it", clear_json, &wraps).unwrap();
    file.extend_from_slice(&salt);
    let key = sealed_key(&made.data_key.subkeys(), &salt, clear, clear_json);
    write_section(&key, 3, &serde_json::to_vec(sealed).unwrap(), &mut file).unwrap();
    file
}

#[test]
fn a_manifest_survives_its_bytes() {
    let made = make();
    let manifest = open(&made, &made.bytes).unwrap();
    assert_eq!((&manifest.clear, &manifest.sealed), (&made.clear, &made.sealed));
    let unverified = decode_clear(&made.bytes).unwrap();
    assert_eq!((unverified.clear, unverified.wraps), (manifest.clear, manifest.wraps));
    let text = String::from_utf8_lossy(&made.bytes);
    assert!(text.contains("shop") && !text.contains("secret"));
}

#[test]
fn a_manifest_of_many_frames_survives() {
    let mut made = make();
    made.sealed.before = (0..200_000).map(|number| format!("{number} a migration")).collect();
    let subkeys = made.data_key.subkeys();
    let wraps = [made.master.wrap(made.clear.backup, &made.data_key)];
    let bytes = encode(&made.clear, &wraps, &made.sealed, &subkeys).unwrap();
    assert_eq!(open(&made, &bytes).unwrap().sealed, made.sealed);
}

#[test]
fn the_same_manifest_is_never_sealed_alike() {
    let made = make();
    let again = encode(&made.clear, &[], &made.sealed, &made.data_key.subkeys()).unwrap();
    let tail = |bytes: &[u8]| bytes[bytes.len() - 64..].to_vec();
    assert_ne!(tail(&again), tail(&made.bytes));
}

#[test]
fn every_flipped_bit_is_found() {
    let made = make();
    for position in 0..made.bytes.len() {
        // Not bit 5: it would change the case of a wrap's hexadecimal digit, which says the same.
        for bit in [0, 3, 7] {
            let mut flipped = made.bytes.clone();
            flipped[position] ^= 1 << bit;
            refusal(&made, &flipped);
        }
    }
}

#[test]
fn every_truncation_and_anything_added_is_found() {
    let made = make();
    for cut in 0..made.bytes.len() {
        refusal(&made, &made.bytes[..cut]);
        let _ = decode_clear(&made.bytes[..cut]);
    }
    let added = [&made.bytes[..], b"x"].concat();
    let refused = refusal(&made, &added);
    assert!(refused.message().contains("something follows the end"), "{refused}");
}

#[test]
fn lengths_are_claims() {
    let made = make();
    for length in [0xffff_ffff_u32, 0x7fff_ffff, made.bytes.len() as u32] {
        let mut forged = made.bytes.clone();
        forged[12..16].copy_from_slice(&length.to_le_bytes());
        assert!(refusal(&made, &forged).message().contains("cut off"));
        assert!(decode_clear(&forged).is_err());
    }
    assert!(decode_clear(b"").is_err());
    assert!(decode_clear(b"ripcord\nwhatever").unwrap_err().message().contains("not a ripcord manifest"));
}

#[test]
fn a_manifest_at_the_place_of_another_is_named_with_both() {
    let (made, other) = (make(), make());
    let (ours, theirs) = (made.clear.backup, other.clear.backup);
    let refused = decode(&made.bytes, made.clear.lineage, theirs, &made.ring).err().unwrap();
    assert_eq!(refused.message(), format!("the manifest of backup `{ours}` stands at the place of backup `{theirs}`"));
    let refused = decode(&made.bytes, other.clear.lineage, ours, &made.ring).err().unwrap();
    for part in [ours.to_string(), made.clear.lineage.to_string(), other.clear.lineage.to_string()] {
        assert!(refused.message().contains(&part), "{refused}");
    }
}

#[test]
fn a_clear_part_that_was_rewritten_does_not_authenticate() {
    let made = make();
    let mut clear = made.clear.clone();
    clear.database = "prod".to_owned();
    let changed = serde_json::to_vec(&clear).unwrap();
    let original = serde_json::to_vec(&made.clear).unwrap();
    assert_eq!(changed.len(), original.len());
    let mut forged = made.bytes.clone();
    forged[16..16 + changed.len()].copy_from_slice(&changed);
    let refused = refusal(&made, &forged);
    assert!(refused.one_line().contains("not authentic"), "{refused}");
    assert!(refused.message().contains(&made.clear.backup.to_string()), "{refused}");
    assert_eq!(decode_clear(&forged).unwrap().clear.database, "prod");
}

#[test]
fn parts_that_disagree_are_named_with_both() {
    let made = make();
    let (_, other) = parts();
    type Change = fn(&mut Sealed, &Sealed);
    let changes: [(Change, String, String); 3] = [
        (|sealed, other| sealed.backup = other.backup, made.clear.backup.to_string(), other.backup.to_string()),
        (|sealed, other| sealed.lineage = other.lineage, made.clear.lineage.to_string(), other.lineage.to_string()),
        (|sealed, _| sealed.created_at = Time::UNIX_EPOCH, "created at".to_owned(), "1970-01-01T00:00:00Z".to_owned()),
    ];
    for (change, ours, theirs) in changes {
        let mut sealed = made.sealed.clone();
        change(&mut sealed, &other);
        let clear_json = serde_json::to_vec(&made.clear).unwrap();
        let refused = refusal(&made, &forge(&made, &clear_json, &made.clear, &sealed));
        assert!(refused.message().contains(&ours) && refused.message().contains(&theirs), "{refused}");
        encode(&made.clear, &[], &sealed, &made.data_key.subkeys()).expect_err("it was written");
    }
}

#[test]
fn other_formats_and_kinds_are_told_from_damage() {
    let made = make();
    let mut newer = made.bytes.clone();
    newer[8] = 2;
    for refused in [refusal(&made, &newer), decode_clear(&newer).unwrap_err()] {
        assert!(refused.message().contains("format 2, which a newer ripcord wrote"), "{refused}");
    }
    let backup = made.clear.backup;
    for (head, expected) in [
        (json!({"format": 1, "kind": "clone", "of": 7}), "\"clone\""),
        (json!({"format": 3, "kind": "dump"}), "a newer ripcord"),
        (json!({"format": 1, "kind": "dump"}), "not readable"),
        (json!([]), "not readable"),
    ] {
        let bytes = forge(&made, head.to_string().as_bytes(), &made.clear, &made.sealed);
        let refused = refusal(&made, &bytes);
        assert!(refused.message().contains(expected), "{refused}");
        assert!(refused.message().contains(&backup.to_string()), "{refused}");
        assert!(decode_clear(&bytes).is_err());
    }
    let mut clear = made.clear.clone();
    clear.kind = "clone".to_owned();
    encode(&clear, &[], &made.sealed, &made.data_key.subkeys()).expect_err("it was written");
}

#[test]
fn wraps_are_replaced_and_nothing_else() {
    let made = make();
    let new = MasterKey::generate();
    let wraps = [new.wrap(made.clear.backup, &made.data_key)];
    let bytes = rewrap(&made.bytes, &wraps).unwrap();
    refusal(&made, &bytes);
    let ring = KeyRing::new(vec![new]).unwrap();
    let (manifest, _) = decode(&bytes, made.clear.lineage, made.clear.backup, &ring).unwrap();
    assert_eq!((manifest.clear, manifest.sealed), (made.clear, made.sealed));
    assert_eq!(manifest.wraps, wraps);
    let frames = Parts::of("it", &made.bytes).unwrap().frames;
    assert!(bytes.ends_with(frames));
    rewrap(&bytes, &[]).expect_err("nobody could open it");
}

#[test]
fn sealed_parts_are_not_exchanged_between_backups() {
    let (made, other) = (make(), make());
    let theirs = Parts::of("it", &other.bytes).unwrap();
    let mut spliced = made.bytes.clone();
    spliced.truncate(made.bytes.len() - Parts::of("it", &made.bytes).unwrap().frames.len() - 32);
    spliced.extend_from_slice(&theirs.salt);
    spliced.extend_from_slice(theirs.frames);
    assert!(refusal(&made, &spliced).one_line().contains("not authentic"));
    let mut kept_salt = made.bytes.clone();
    kept_salt.truncate(made.bytes.len() - Parts::of("it", &made.bytes).unwrap().frames.len());
    kept_salt.extend_from_slice(theirs.frames);
    assert!(refusal(&made, &kept_salt).one_line().contains("belongs to another stream"));
}

#[test]
fn a_missing_key_names_the_backup() {
    let made = make();
    let ring = KeyRing::new(vec![MasterKey::generate()]).unwrap();
    let refused = decode(&made.bytes, made.clear.lineage, made.clear.backup, &ring).err().unwrap();
    assert!(refused.message().contains(&made.clear.backup.to_string()));
    assert!(refused.hint_text().unwrap().contains(&made.master.id().0));
}

#[test]
fn every_field_of_the_sealed_part_is_missed_and_no_odd_value_is_taken() {
    use crate::archive::testing::{places, wrong_at};
    let made = make();
    let mut whole = serde_json::to_value(&open(&made, &made.bytes).unwrap().sealed).unwrap();
    whole["streams"] = json!([{ "number": 0, "stored_bytes": 5, "sha256": "00", "index": Index::default() }]);
    whole["applied"] = json!([{ "version": "1", "name": "a", "checksum": "00" }]);
    whole["inventory"] = json!({ "items": [{ "name": "TABLE t", "digest": "00" }] });
    let mut found = Vec::new();
    places(&whole, "", &mut found);
    assert!(found.len() > 40, "{found:?}");
    for (path, good) in found {
        // The rows of our own tables are whatever they are: a restore reads them, by its own rules.
        if path.starts_with("/control_rows/") {
            continue;
        }
        for (what, bytes) in wrong_at(&whole, &path, &good) {
            let name = path.rsplit('/').next().unwrap();
            let read = read_json::<Sealed>("the manifest", "sealed part", &bytes);
            match read {
                Err(error) if what == "missing" => {
                    assert!(error.one_line().contains(&format!("missing field `{name}`")), "{path}: {error}");
                }
                Err(error) => {
                    let told = error.one_line();
                    assert!(
                        told.contains("unexpected JSON at line 1") || told.contains("missing field"),
                        "{path}: {told}"
                    );
                }
                // A map has whatever names it has.
                Ok(_)
                    if ["/control_rows", "/properties/security_labels"].contains(&path.as_str())
                        && what != "missing" => {}
                // Of a record with one field, serde takes a list of that one value too.
                Ok(_) if path == "/inventory" && what == "[[]]" => {}
                // What may be null may be missing; a signed number may be negative.
                Ok(_) if what == "missing" => assert!(optional(&path), "{path} may be missing"),
                Ok(_) => assert!(what.starts_with('-') || what == "7", "{path}: {what} was taken"),
            }
        }
    }
}

/// Fields that stand for nothing when they are not there, and the names of maps.
fn optional(path: &str) -> bool {
    let maps = ["/sequences/", "/properties/settings/", "/properties/security_labels/", "/control_rows/"];
    let nothing = ["run", "locale", "icu_rules", "collation_version", "acl", "comment"];
    maps.iter().any(|map| path.starts_with(map)) || nothing.iter().any(|name| path.ends_with(name))
}
