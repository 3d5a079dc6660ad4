//! `key add`, `key rotate`, `key remove` over stores with real backups and with many small ones.

mod kills;

use std::path::{Path, PathBuf};

use ripcord::archive::{ArchiveWriter, FORMAT, Inventory, StreamId, verify};
use ripcord::ids::{BackupId, Lineage};
use ripcord::keys::{DataKey, KeyRing, MasterKey};
use ripcord::manifest::{self, Clear, Purpose, Sealed, StreamRecord};
use ripcord::store::{Mark, Store};
use secrecy::ExposeSecret;

use crate::support::cli::KEY;
use crate::support::{Cluster, Db, Project};

#[path = "../../src/archive/testing.rs"]
mod testing;

/// A new key in a file of the project.
fn key_file(project: &Project, name: &str) -> (MasterKey, String) {
    let key = MasterKey::generate();
    project.write(name, &format!("{}\n", key.to_hex().expose_secret()));
    let path = project.path().join(name);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    (key, path.display().to_string())
}

fn first_key() -> MasterKey {
    MasterKey::from_hex(KEY).unwrap()
}

fn store(project: &Project) -> Store {
    Store::open(&project.store().display().to_string()).unwrap()
}

fn all(store: &Store) -> Vec<(Lineage, BackupId)> {
    let lineages = store.lineages().unwrap();
    lineages.into_iter().flat_map(|of| store.backups(of).unwrap().into_iter().map(move |id| (of, id))).collect()
}

/// Opens a backup with this key alone: its manifest, and every frame of every stream that it names.
fn opens(store: &Store, lineage: Lineage, id: BackupId, key: &MasterKey) -> Result<manifest::Manifest, String> {
    let ring = KeyRing::new(vec![key.clone()]).unwrap();
    let bytes = store.manifest(lineage, id).map_err(|error| error.one_line())?;
    let (manifest, keys) = manifest::decode(&bytes, lineage, id, &ring).map_err(|error| error.one_line())?;
    for stream in &manifest.sealed.streams {
        let object = store.open_stream(lineage, id, stream.number).map_err(|error| error.one_line())?;
        let source = ripcord::io::Sequential::new(&*object, 0);
        let of = StreamId { lineage, backup: id, stream: stream.number };
        let found = verify(source, of, &keys, &stream.index, &mut |_| {}).map_err(|error| error.to_string())?;
        assert_eq!(found, stream.sha256);
    }
    Ok(manifest)
}

#[track_caller]
fn all_open_with(store: &Store, key: &MasterKey) {
    for (lineage, id) in all(store) {
        opens(store, lineage, id, key).unwrap_or_else(|why| panic!("`{id}` does not open with {}: {why}", key.id()));
    }
}

#[track_caller]
fn none_opens_with(store: &Store, key: &MasterKey) {
    for (lineage, id) in all(store) {
        assert!(opens(store, lineage, id, key).is_err(), "`{id}` opens with {}", key.id());
        let listed = manifest::decode_clear(&store.manifest(lineage, id).unwrap()).unwrap().wraps;
        assert!(!listed.iter().any(|wrap| wrap.key_id == key.id()), "`{id}` lists {}", key.id());
    }
}

/// A small backup, made by the library as the binary makes one.
fn write_backup(store: &Store, lineage: Lineage, keys: &[&MasterKey], number: usize) -> BackupId {
    let rows: Vec<String> = (0..20).map(|row| format!("{row}\tbackup {number}")).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let dump = testing::Dump::new(15).table(2, "orders", &rows).bytes();
    let (id, data_key) = (BackupId::new(), DataKey::generate());
    let subkeys = data_key.subkeys();
    // Every fifth has several streams.
    let mut contents = None;
    let mut streams = Vec::new();
    for stream in 0..if number % 5 == 4 { 3 } else { 1 } {
        let of = StreamId { lineage, backup: id, stream };
        let mut writer = ArchiveWriter::begin(Vec::new(), of, &subkeys, 1, 1).unwrap();
        writer.feed(&dump).unwrap();
        let finished = writer.finish().unwrap();
        let mut object = store.begin_stream(lineage, id, stream).unwrap();
        std::io::Write::write_all(&mut object, &finished.sink).unwrap();
        object.finish().unwrap();
        streams.push(StreamRecord {
            number: stream,
            stored_bytes: finished.stored_bytes,
            sha256: finished.stored_sha256,
            index: finished.index,
        });
        contents = Some(finished.contents);
    }
    let contents = contents.unwrap();
    let created_at = ripcord::clock::now();
    let clear = Clear {
        format: FORMAT,
        kind: "dump".to_owned(),
        lineage,
        backup: id,
        purpose: Purpose::Manual,
        database: "small".to_owned(),
        created_at,
        raw_bytes: streams.iter().map(|stream| stream.index.raw_bytes).sum(),
        stored_bytes: streams.iter().map(|stream| stream.stored_bytes).sum(),
    };
    let inventory = Inventory::of(&contents.toc);
    let sealed = Sealed {
        lineage,
        backup: id,
        created_at,
        finished_at: created_at,
        run: None,
        before: Vec::new(),
        server_version: "15.18".to_owned(),
        tool_version: "15.18".to_owned(),
        ripcord_version: "0".to_owned(),
        streams,
        properties: manifest::DatabaseProperties::default(),
        extensions: Vec::new(),
        large_objects: 0,
        sequences: std::collections::BTreeMap::new(),
        applied: Vec::new(),
        control_rows: std::collections::BTreeMap::new(),
        fingerprint: inventory.fingerprint(),
        inventory,
        catalog_extras: Vec::new(),
        snapshot: String::new(),
        wal_lsn: String::new(),
        tags: vec![format!("number-{number}")],
        left_out: Vec::new(),
    };
    let wraps: Vec<_> = keys.iter().map(|key| key.wrap(id, &data_key)).collect();
    store.commit_manifest(lineage, id, &manifest::encode(&clear, &wraps, &sealed, &subkeys).unwrap()).unwrap();
    store.mark(lineage, id, &Mark::Tag { at: created_at, tag: format!("number-{number}") }).unwrap();
    id
}

/// A project without a server, for stores that the library fills.
fn without_server() -> Project {
    Project::with_url("postgresql://nobody:x@127.0.0.1:1/none").env("RIPCORD_RETRY_ATTEMPTS", "1")
}

fn filled<'a>(db: &Db<'a>) -> Project {
    let project = Project::new(db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project
}

/// Every file of a folder with its bytes, but for what is held while a command runs.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("keys.lock") {
                found.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_key_from_the_safe_opens_everything_when_the_main_one_is_lost() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    project.backup(&["--tag", "kept"]);
    let (safe, file) = key_file(&project, "safe.key");
    project.configure(&format!("[key]\noffline = [\"{}\"]\nfile = \"unused\"", safe.id()));
    let doctor = project.run(&["doctor"]);
    assert!(doctor.stdout.contains("does not open 2 of 2 backups"), "{doctor:#?}");

    let before = contents(&project.store());
    let plan = project.json(&["key", "add", "--new-key-file", &file, "--dry-run"]).expect_code(0);
    assert_eq!(plan.items().iter().filter(|line| line["does"] == "add").count(), 2, "{plan:#?}");
    assert_eq!(contents(&project.store()), before, "a dry run wrote something");
    project.json(&["key", "add", "--new-key-file", &file]).expect_code(0);

    all_open_with(&store(&project), &safe);
    all_open_with(&store(&project), &first_key());
    assert!(project.run(&["doctor"]).stdout.contains("is listed by all 2 backups"));
    let again = project.json(&["key", "add", "--new-key-file", &file]).expect_code(0);
    assert!(again.items().iter().all(|line| line["does"] == "nothing"), "{again:#?}");
    let ids = db.sql("select distinct array_length(key_ids, 1) from ripcord.backup_history");
    assert_eq!(ids, "2");
    assert_eq!(db.sql("select count(*) from ripcord.audit_log where action = 'key add'"), "2");

    // Runs that were written down after the key was added, and a new backup that it does not open.
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.run(&["apply"]).expect_code(0);
    let late = project.json(&["backup", "list"]).items()[0]["id"].as_str().unwrap().to_owned();
    assert!(project.run(&["doctor"]).stdout.contains("does not open 1 of 3 backups"));
    // The machine is gone, and with it the main key: what there is are the store and the key from the safe.
    let alone = Project::new(&db).env("BACKUP_ENCRYPTION_KEY", safe.to_hex().expose_secret());
    alone.configure(&format!("store = \"{}\"", project.store().display()));
    let kept = format!("{}_kept", db.name);
    let oldest = project.json(&["backup", "list"]).items()[1]["id"].as_str().unwrap().to_owned();
    alone.json(&["restore", &oldest, "--into", &kept]).expect_code(0);
    assert_eq!(db.cluster.sql(&kept, "select count(*) from orders"), "100");
    // The journals are believed, so that nothing is in the way of pruning; what it does not open is named.
    alone.run(&["prune", "--dry-run"]).expect_code(0);
    let latest = alone.run(&["restore", "latest", "--dry-run"]).expect_code(2);
    assert!(latest.stderr.contains(&first_key().id().0), "{latest:#?}");
    let shut = alone.run(&["restore", &late, "--into", &format!("{kept}2")]).expect_code(2);
    assert!(shut.stderr.contains(&first_key().id().0), "{shut:#?}");
    db.cluster.sql("postgres", &format!("drop database {kept}"));
}

#[test]
fn a_recovery_key_in_the_configuration_opens_every_new_backup() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    let (recovery, file) = key_file(&project, "recovery.key");
    project.configure(&format!("[key]\nfile = \"unused\"\nrecovery = [{{ file = \"{file}\" }}]"));
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.backup(&[]);
    all_open_with(&store(&project), &recovery);
    all_open_with(&store(&project), &first_key());
    let ids = project.run(&["key", "id"]).expect_code(0).stdout;
    assert_eq!(ids.lines().collect::<Vec<_>>(), [first_key().id().0, recovery.id().0]);
    // With it alone the whole project works, journals and all.
    let alone = Project::new(&db).env("BACKUP_ENCRYPTION_KEY", recovery.to_hex().expose_secret());
    alone.configure(&format!("store = \"{}\"", project.store().display()));
    alone.run(&["drill"]).expect_code(0);
    alone.run(&["prune"]).expect_code(0);
    alone.shop();
    alone.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    alone.run(&["apply"]).expect_code(0);
    // As long as it is configured, taking it away would last until the next backup.
    let refused = project.run(&["key", "remove", &recovery.id().0]).expect_code(7);
    assert!(refused.stderr.contains("is configured"), "{refused:#?}");
    // A backup without it would not be what was asked for.
    std::fs::remove_file(&file).unwrap();
    let before = all(&store(&project)).len();
    let refused = project.run(&["backup", "create"]).expect_code(2);
    assert!(refused.stderr.contains("a recovery key cannot be had"), "{refused:#?}");
    assert_eq!(all(&store(&project)).len(), before);
}

#[test]
fn a_rotation_changes_who_opens_and_nothing_else() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let pinned = project.backup(&["--tag", "kept"]);
    project.run(&["backup", "pin", &pinned]).expect_code(0);
    let (new, file) = key_file(&project, "new.key");
    let streams = |contents: Vec<(PathBuf, Vec<u8>)>| -> Vec<_> {
        contents
            .into_iter()
            .filter(|(path, _)| path.ends_with("0.rip") || path.to_string_lossy().contains("/marks/"))
            .collect()
    };
    let before = streams(contents(&project.store()));

    project.run(&["key", "rotate", "--new-key-file", &file]).expect_code(0);

    assert_eq!(streams(contents(&project.store())), before);
    all_open_with(&store(&project), &new);
    none_opens_with(&store(&project), &first_key());
    // The old key is still configured here: told before anything is dumped.
    let wrong = project.run(&["backup", "create"]).expect_code(2);
    assert!(wrong.stderr.contains(&new.id().0), "{wrong:#?}");
    let project = project.env("BACKUP_ENCRYPTION_KEY", new.to_hex().expose_secret());
    // What was written down under the old key is believed under the new one.
    project.run(&["run", "list"]).expect_code(0);
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.run(&["apply"]).expect_code(0);
    project.run(&["drill", &pinned]).expect_code(0);
    let items = project.json(&["backup", "list"]).items();
    let item = items.iter().find(|item| item["id"] == pinned.as_str()).unwrap();
    assert_eq!((&item["pinned"], &item["tags"][0]), (&serde_json::json!(true), &serde_json::json!("kept")));
    assert_eq!(
        db.sql(&format!("select key_ids from ripcord.backup_history where id = '{pinned}'")),
        format!("{{{}}}", new.id())
    );
    // What a straggler sealed with the old key meanwhile is taken along by running it again, the other way round.
    write_backup(&store(&project), store(&project).lineages().unwrap()[0], &[&first_key()], 1);
    project.write("old.key", KEY);
    let old = project.path().join("old.key").display().to_string();
    project.run(&["key", "rotate", "--old-key-file", &old]).expect_code(0);
    all_open_with(&store(&project), &new);
    none_opens_with(&store(&project), &first_key());
}

/// The reader that shares no code with ours, down to the rows' digests; and what it gives is a dump.
fn a_second_reader_reads(project: &Project, key: &MasterKey, id: &str) {
    project.write("second.key", key.to_hex().expose_secret());
    let location = project.json(&["backup", "show", id]).items()[0]["location"].as_str().unwrap().to_owned();
    let dump = project.path().join("second.dump");
    let mut python = std::process::Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/read-archive.py"));
    python.arg(project.path().join("second.key")).arg(location).arg("-o").arg(&dump);
    let modules = std::env::var("RIPCORD_TEST_PYTHONPATH")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/target/python").to_owned());
    let output = python.env("PYTHONPATH", modules).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(dump).unwrap().starts_with(b"PGDMP"));
}

#[test]
fn what_leaked_opens_nothing_that_was_sealed_anew() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let pinned = project.backup(&["--tag", "kept"]);
    project.run(&["backup", "pin", &pinned]).expect_code(0);
    let latest = project.backup(&[]);
    let (old, (new, file)) = (first_key(), key_file(&project, "new.key"));
    let before = store(&project);
    // Who holds the old key has opened every backup, and kept what opens the archives.
    let stolen: Vec<_> = all(&before)
        .into_iter()
        .map(|(lineage, id)| {
            let wraps = manifest::decode_clear(&before.manifest(lineage, id).unwrap()).unwrap().wraps;
            (lineage, id, KeyRing::new(vec![old.clone()]).unwrap().unwrap(id, &wraps).unwrap().subkeys())
        })
        .collect();
    let listed = |project: &Project| -> Vec<(String, bool, serde_json::Value, serde_json::Value)> {
        let items = project.json(&["backup", "list"]).items();
        let of = |item: &serde_json::Value| {
            let id = item["id"].as_str().unwrap().to_owned();
            (id, item["pinned"] == true, item["tags"].clone(), item["created_at"].clone())
        };
        items.iter().map(of).collect()
    };
    let before = listed(&project);

    project.run(&["key", "rotate", "--reencrypt", "--new-key-file", &file]).expect_code(0);

    let project = project.env("BACKUP_ENCRYPTION_KEY", new.to_hex().expose_secret());
    let store = store(&project);
    all_open_with(&store, &new);
    none_opens_with(&store, &old);
    for (lineage, id, keys) in stolen {
        for number in store.stream_numbers(lineage, id).unwrap() {
            let object = store.open_stream(lineage, id, number).unwrap();
            let of = StreamId { lineage, backup: id, stream: number };
            let source = ripcord::io::Sequential::new(&*object, 0);
            let mut reader = ripcord::archive::ArchiveReader::open(source, of, &keys).unwrap();
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
        }
        let manifest = opens(&store, lineage, id, &new).unwrap();
        let named: Vec<u32> = manifest.sealed.streams.iter().map(|stream| stream.number).collect();
        assert_eq!(store.stream_numbers(lineage, id).unwrap(), named, "an old stream is left");
    }
    assert_eq!(listed(&project), before);
    assert_eq!(project.json(&["restore", "latest", "--dry-run"]).result()["backup_id"], latest.as_str());
    project.run(&["drill", &pinned]).expect_code(0);
    project.run(&["backup", "verify", "--all", "--level", "toc"]).expect_code(0);
    a_second_reader_reads(&project, &new, &latest);
    let sum = |sql: &str| db.sql(&format!("select {sql} from ripcord.backup_history where id = '{latest}'"));
    let (lineage, id) = all(&store).into_iter().find(|(_, id)| id.to_string() == latest).unwrap();
    assert_eq!(sum("digest"), opens(&store, lineage, id, &new).unwrap().sealed.streams[0].sha256);

    // Journals of before are believed; one that is forged with the leaked key is not.
    project.run(&["run", "list"]).expect_code(0);
    project.run(&["prune", "--dry-run"]).expect_code(0);
    let run = ripcord::ids::RunId::new();
    let log = ripcord::journal::MemoryLog::new();
    let opened = ripcord::journal::Step::Opened {
        command: "apply".to_owned(),
        database: db.name.clone(),
        database_oid: 1,
        holder: "thief".to_owned(),
        settings: serde_json::Value::Null,
    };
    ripcord::journal::Journal::begin(Box::new(log.clone()), lineage, run, old.journal_key(), opened).unwrap();
    for (name, bytes) in ripcord::journal::StepLog::load(&log).unwrap() {
        store.append_step(lineage, run, &name, &bytes).unwrap();
    }
    let refused = project.run(&["prune", "--dry-run"]).expect_code(7);
    assert!(refused.stderr.contains("given up as leaked"), "{refused:#?}");
}

#[test]
fn what_only_the_removed_key_opens_is_named_and_kept_until_its_loss_is_confirmed() {
    let project = without_server();
    let store = store(&project);
    let lineage = Lineage::new();
    let (main, gone, safe) = (first_key(), MasterKey::generate(), MasterKey::generate());
    let both = write_backup(&store, lineage, &[&gone, &main], 1);
    let alone = write_backup(&store, lineage, &[&gone], 2);
    let unproved = write_backup(&store, lineage, &[&gone, &safe], 3);
    // By its list the main key opens it; it does not: the wrap is another backup's.
    let forged = write_backup(&store, lineage, &[&gone], 4);
    let taken = manifest::decode_clear(&store.manifest(lineage, both).unwrap()).unwrap().wraps;
    let mut wraps = manifest::decode_clear(&store.manifest(lineage, forged).unwrap()).unwrap().wraps;
    wraps.push(taken.into_iter().find(|wrap| wrap.key_id == main.id()).unwrap());
    let bytes = manifest::rewrap(&store.manifest(lineage, forged).unwrap(), &wraps).unwrap();
    store.replace_manifest(lineage, forged, &bytes).unwrap();
    let gone_id = gone.id().0;
    let before = contents(&project.store());

    let refused = project.run(&["key", "remove", &gone_id]).expect_code(7);
    for id in [alone, unproved, forged] {
        assert!(refused.stderr.contains(&id.to_string()), "{refused:#?}");
    }
    assert!(!refused.stderr.contains(&both.to_string()), "{refused:#?}");
    assert!(refused.stderr.contains(&safe.id().0), "{refused:#?}");
    refused.expect_end("unchanged", "--confirm-loss 3");
    project.run(&["key", "remove", &gone_id, "--confirm-loss", "1"]).expect_code(7);
    project.run(&["key", "remove", &gone_id, "--confirm-loss", "3", "--dry-run"]).expect_code(0);
    assert_eq!(contents(&project.store()), before);
    // A pin stands above the confirmation, and the key in use cannot be removed at all.
    store.mark(lineage, alone, &Mark::Pinned { at: ripcord::clock::now() }).unwrap();
    project.run(&["key", "remove", &gone_id, "--confirm-loss", "3"]).expect_code(7);
    store.unpin(lineage, alone).unwrap();
    project.run(&["key", "remove", &main.id().0]).expect_code(7);

    project.run(&["key", "remove", &gone_id, "--confirm-loss", "3"]).expect_code(0);

    let left: Vec<BackupId> = all(&store).into_iter().map(|(_, id)| id).collect();
    assert_eq!(left, [both, unproved]);
    opens(&store, lineage, both, &main).unwrap();
    opens(&store, lineage, unproved, &safe).unwrap();
    none_opens_with(&store, &gone);
}

#[test]
fn backups_of_others_and_damaged_ones_are_left_alone_and_named() {
    let project = without_server();
    let store = store(&project);
    let lineage = Lineage::new();
    let (main, stranger) = (first_key(), MasterKey::generate());
    let ours = write_backup(&store, lineage, &[&main], 1);
    let theirs = write_backup(&store, Lineage::new(), &[&stranger], 2);
    let cut = write_backup(&store, lineage, &[&main], 3);
    let folder = project.store().join(lineage.to_string()).join("backups").join(cut.to_string());
    let bytes = std::fs::read(folder.join("manifest")).unwrap();
    std::fs::write(folder.join("manifest"), &bytes[..bytes.len() - 5]).unwrap();
    let bad = write_backup(&store, lineage, &[&main], 4);
    let stream = project.store().join(lineage.to_string()).join("backups").join(bad.to_string()).join("0.rip");
    let mut bytes = std::fs::read(&stream).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&stream, &bytes).unwrap();
    let (new, file) = key_file(&project, "new.key");

    let ran = project.run(&["key", "rotate", "--reencrypt", "--new-key-file", &file]).expect_code(6);

    // The damaged one is named; it opens with both, so that nothing of it is lost. The others are done.
    assert!(ran.stderr.contains(&bad.to_string()), "{ran:#?}");
    opens(&store, lineage, ours, &new).unwrap();
    assert!(opens(&store, lineage, ours, &main).is_err());
    let (of, _) = all(&store).into_iter().find(|(_, id)| *id == theirs).unwrap();
    opens(&store, of, theirs, &stranger).unwrap();
    let plan = project.json(&["key", "rotate", "--reencrypt", "--new-key-file", &file, "--dry-run"]).expect_code(0);
    let does = |id: BackupId| {
        let items = plan.items();
        items.iter().find(|item| item["id"] == id.to_string()).unwrap()["does"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        [does(ours), does(theirs), does(cut), does(bad)],
        ["nothing", "unopened", "unopened", "reencrypt"].map(str::to_owned)
    );
}

#[test]
fn one_at_a_time_and_not_beside_a_run() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let (_, file) = key_file(&project, "new.key");
    let before = contents(&project.store());
    let held = store(&project).hold_keys().unwrap().unwrap();
    project.run(&["key", "rotate", "--new-key-file", &file]).expect_code(5);
    drop(held);
    // A run that holds the lock of the database.
    let flag = project.path().join("waiting");
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let mut run = project.command(&["apply"]);
    run.env("RIPCORD_FAULTS", format!("backup_snapshot=wait:{}", flag.display()));
    let mut run = run.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !flag.exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let locked = project.run(&["key", "rotate", "--new-key-file", &file]).expect_code(5);
    assert!(locked.stderr.contains("lock"), "{locked:#?}");
    std::fs::remove_file(&flag).unwrap();
    assert!(run.wait().unwrap().success());
    for (path, bytes) in before.iter().filter(|(path, _)| path.ends_with("manifest")) {
        assert_eq!(std::fs::read(path).unwrap(), *bytes, "{}", path.display());
    }
}

#[test]
fn a_key_that_is_lost_for_good_needs_a_new_store() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let new = MasterKey::generate();
    let project = project.env("BACKUP_ENCRYPTION_KEY", new.to_hex().expose_secret());
    project.run(&["backup", "create"]).expect_code(2);
    let other = project.path().join("other-store").display().to_string();
    project.run(&["--store", &other, "backup", "create"]).expect_code(0);
    project.run(&["--store", &other, "drill"]).expect_code(0);
}

#[test]
fn a_rotation_needs_two_keys_and_says_how() {
    let project = without_server();
    let (_, file) = key_file(&project, "new.key");
    project.run(&["key", "rotate", "--new-key-file", &file]).expect_code(0);
    assert!(!project.store().exists(), "a store was made by looking for one");
    write_backup(&store(&project), Lineage::new(), &[&first_key()], 1);
    project.run(&["key", "rotate"]).expect_code(2).expect_end("unchanged", "ripcord key generate");
    project.write("same.key", KEY);
    let same = project.path().join("same.key").display().to_string();
    project.run(&["key", "rotate", "--new-key-file", &same]).expect_code(2);
    project.run(&["key", "remove", "xyz"]).expect_code(2);
    project.run(&["key", "add", "--new-key-env", "NO_SUCH_KEY"]).expect_code(2);
}
