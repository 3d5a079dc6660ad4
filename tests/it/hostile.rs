//! A store whose files were damaged, cut, mixed up or forged: always told, and nothing of it reaches a database.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{OnceLock, PoisonError, RwLock};

use crate::support::cli::{KEY, Ran};
use crate::support::{Cluster, Db, Project};

/// A store with two backups of one database and one of another, made once and copied for every case.
struct World {
    cluster: Cluster,
    project: Project,
    /// Backups of the database, the older first: lineage and id.
    older: PathBuf,
    newer: PathBuf,
    /// Of the other database.
    other: PathBuf,
}

const DATABASE: &str = "hostile";

/// Held for writing by the one test that restores: the others look that nothing is created.
static QUIET: RwLock<()> = RwLock::new(());

/// Every CREATE DATABASE of this cluster is in its log, and only ripcord makes any once the world stands.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let cluster = Cluster::start(&["log_statement = 'ddl'"]);
        let fill = |name: &str| {
            let db = cluster.database_named(name, "");
            // Text that does not compress, so that the archive has several frames.
            db.sql(
                "create table t (id int primary key, s text); insert into t \
                 select g, (select string_agg(md5(g::text || i || random()), '') from generate_series(1, 30) i) from generate_series(1, 6000) g",
            );
            db.url()
        };
        let project = Project::with_url(&fill(DATABASE)).going_with_the_process();
        let elsewhere = fill("hostile_other");
        let create = || {
            let ran = project.json(&["backup", "create"]).expect_code(0);
            find(&project.store(), ran.result()["backup_id"].as_str().unwrap())
        };
        let older = create();
        let newer = create();
        let ran = project.json(&["--database-url", &elsewhere, "backup", "create"]).expect_code(0);
        let other = find(&project.store(), ran.result()["backup_id"].as_str().unwrap());
        World { older, newer, other, cluster, project }
    })
}

/// The backup's folder, from the store's.
fn find(store: &Path, id: &str) -> PathBuf {
    for lineage in std::fs::read_dir(store).unwrap().flatten() {
        let relative = Path::new(&lineage.file_name()).join("backups").join(id);
        if store.join(&relative).exists() {
            return relative;
        }
    }
    panic!("no backup {id} below {}", store.display());
}

fn id(backup: &Path) -> &str {
    backup.file_name().unwrap().to_str().unwrap()
}

/// A copy of the store to do anything to.
struct Case {
    store: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        let store = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-r").arg(world().project.store().join(".")).arg(store.path()).status();
        assert!(copied.unwrap().success());
        Case { store }
    }

    fn file(&self, backup: &Path, name: &str) -> PathBuf {
        let folder = self.store.path().join(backup);
        if name == "manifest" {
            return folder.join(name);
        }
        let mut streams: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rip"))
            .collect();
        assert_eq!(streams.len(), 1);
        streams.remove(0)
    }

    /// Replaces a file by what `change` makes of it.
    fn change(&self, backup: &Path, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = self.file(backup, name);
        let bytes = std::fs::read(&path).unwrap();
        let changed = change(bytes.clone());
        assert_ne!(bytes, changed, "the case changes nothing");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, changed).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let store = self.store.path().to_str().unwrap();
        let mut all = vec!["--store", store];
        all.extend(arguments);
        world().project.json(&all)
    }

    /// How many databases were ever created, as the server's log tells.
    fn created() -> usize {
        let log = std::fs::read_to_string(world().cluster.socket().join("log")).unwrap();
        log.lines().filter(|line| line.to_lowercase().contains("create database")).count()
    }

    /// Verify says 6 and which, restore refuses before anything is created, the list still works and says
    /// `damaged`, and `latest` is the older one, with a warning.
    #[track_caller]
    fn is_damaged(&self, what: &str) {
        let bad = id(&world().newer);
        let _quiet = QUIET.read().unwrap_or_else(PoisonError::into_inner);
        let before = Case::created();

        // First of all a restore: nobody has looked at the backup yet.
        let ran = self.run(&["restore", bad, "--into", "hostile_copy"]);
        assert!(ran.code == 6, "{what}: {ran:#?}");
        assert!(ran.stderr.contains(bad), "{what}: which backup? {ran:#?}");
        assert!(ran.result()["error"].as_str().is_some_and(|error| !error.is_empty()), "{what}: {ran:#?}");
        let ran = self.run(&["drill", bad]);
        assert_eq!(ran.code, 6, "{what}: {ran:#?}");
        assert_eq!(Case::created(), before, "{what}: a database was created from a damaged backup");

        let ran = self.run(&["backup", "verify", bad]);
        assert_eq!(ran.code, 6, "{what}: {ran:#?}");
        assert_eq!(ran.result()["outcome"], "verification_failed", "{what}");
        assert!(ran.stderr.contains(bad), "{what}: which backup? {ran:#?}");

        let ran = self.run(&["backup", "list"]).expect_code(0);
        assert_eq!(status_of(&ran, bad), "damaged", "{what}: {ran:#?}");
        assert_eq!(status_of(&ran, id(&world().older)), "verified", "{what}");

        let ran = self.run(&["restore", "latest", "--dry-run"]).expect_code(0);
        assert_eq!(ran.result()["backup_id"], id(&world().older), "{what}: {ran:#?}");
        let warning = ran.stderr.lines().find(|line| line.starts_with("warning: ") && line.contains(bad));
        assert!(warning.is_some_and(|line| line.contains("damaged")), "{what}: no warning: {ran:#?}");
        assert_eq!(Case::created(), before, "{what}");
    }
}

fn status_of(list: &Ran, id: &str) -> String {
    let result = list.result();
    let item = result["items"].as_array().unwrap().iter().find(|item| item["id"] == id);
    item.map_or_else(|| "not listed".to_owned(), |item| item["status"].as_str().unwrap().to_owned())
}

fn flip(at: usize) -> impl FnOnce(Vec<u8>) -> Vec<u8> {
    move |mut bytes| {
        bytes[at] ^= 0x10;
        bytes
    }
}

#[test]
fn the_untouched_store_is_good() {
    let case = Case::new();
    let ran = case.run(&["backup", "verify", "--all", "--level", "toc"]).expect_code(0);
    assert_eq!(ran.result()["items"].as_array().unwrap().len(), 2, "another lineage's backups are not ours");
    let ran = case.run(&["restore", "latest", "--dry-run"]).expect_code(0);
    assert_eq!(ran.result()["backup_id"], id(&world().newer));
    assert!(!ran.stderr.contains("warning"), "{ran:#?}");
    let ran = case.run(&["backup", "list"]).expect_code(0);
    assert_eq!(status_of(&ran, id(&world().other)), "not listed");
}

#[test]
fn a_flipped_bit_anywhere_in_the_archive() {
    let length = std::fs::metadata(Case::new().file(&world().newer, "rip")).unwrap().len() as usize;
    assert!(length > 2 << 20, "several frames are wanted: {length}");
    // Magic, format, ids, salt, the first frame's header and body, the middle, the index, the last tag.
    for at in [0, 9, 20, 40, 60, 84, 90, 94, 200, length / 3, length / 2, length - 300, length - 1] {
        let case = Case::new();
        case.change(&world().newer, "rip", flip(at));
        case.is_damaged(&format!("bit in byte {at} of {length}"));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_manifest() {
    let length = std::fs::metadata(Case::new().file(&world().newer, "manifest")).unwrap().len() as usize;
    let text = std::fs::read(Case::new().file(&world().newer, "manifest")).unwrap();
    let at_of = |word: &str| text.windows(word.len()).position(|found| found == word.as_bytes()).unwrap() + word.len();
    for at in [0, 6, 10, at_of("\"backup\":\"") + 3, at_of("\"database\":\""), length / 2, length - 200, length - 1] {
        let case = Case::new();
        case.change(&world().newer, "manifest", flip(at));
        case.is_damaged(&format!("bit in byte {at} of the manifest's {length}"));
    }
}

#[test]
fn a_date_that_was_forged_does_not_make_another_backup_the_latest() {
    let forge = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            let at = bytes.windows(14).position(|found| found == b"\"created_at\":\"").unwrap() + 14;
            let mut changed = bytes;
            assert_eq!(&changed[at..at + 2], from.as_bytes());
            changed[at..at + 2].copy_from_slice(to.as_bytes());
            changed
        }
    };
    let case = Case::new();
    case.change(&world().older, "manifest", forge("20", "29"));
    let ran = case.run(&["restore", "latest", "--dry-run"]).expect_code(0);
    assert_eq!(ran.result()["backup_id"], id(&world().newer), "{ran:#?}");
    let case = Case::new();
    case.change(&world().newer, "manifest", forge("20", "19"));
    case.is_damaged("the newest, made old");
}

#[test]
fn a_truncation_at_and_inside_frames() {
    let case = Case::new();
    let bytes = std::fs::read(case.file(&world().newer, "rip")).unwrap();
    // The first frame's end: header of 84 bytes, then 17 and the sealed bytes.
    let sealed = u32::from_le_bytes(bytes[84..88].try_into().unwrap()) as usize;
    let first_end = 84 + 17 + sealed;
    for keep in [0, 40, 84, 90, 84 + 17 + 100, first_end, first_end + 5, bytes.len() / 2, bytes.len() - 1] {
        let case = Case::new();
        case.change(&world().newer, "rip", |bytes| bytes[..keep].to_vec());
        case.is_damaged(&format!("cut after {keep} bytes"));
    }
    for keep in [0, 10, 200] {
        let case = Case::new();
        case.change(&world().newer, "manifest", |bytes| bytes[..keep].to_vec());
        case.is_damaged(&format!("manifest cut after {keep} bytes"));
    }
}

#[test]
fn pieces_of_other_backups() {
    let w = world();
    for (what, from) in [("the older backup", &w.older), ("another database's backup", &w.other)] {
        let case = Case::new();
        let foreign = std::fs::read(case.file(from, "rip")).unwrap();
        case.change(&w.newer, "rip", |_| foreign.clone());
        case.is_damaged(&format!("the archive of {what}"));

        let case = Case::new();
        case.change(&w.newer, "rip", |mut bytes| {
            let sealed = u32::from_le_bytes(foreign[84..88].try_into().unwrap()) as usize;
            let mut spliced = bytes[..84].to_vec();
            spliced.extend(&foreign[84..84 + 17 + sealed]);
            let own = u32::from_le_bytes(bytes[84..88].try_into().unwrap()) as usize;
            spliced.extend(bytes.drain(84 + 17 + own..));
            spliced
        });
        case.is_damaged(&format!("the first frame of {what}"));

        let case = Case::new();
        let foreign = std::fs::read(case.file(from, "manifest")).unwrap();
        case.change(&w.newer, "manifest", |_| foreign);
        case.is_damaged(&format!("the manifest of {what}"));

        // Both files, under the newer id.
        let case = Case::new();
        for name in ["manifest", "rip"] {
            let foreign = std::fs::read(case.file(from, name)).unwrap();
            case.change(&w.newer, name, |_| foreign);
        }
        case.is_damaged(&format!("{what} under a newer id"));
    }
    let case = Case::new();
    let (a, b) = (case.file(&w.newer, "rip"), case.file(&w.older, "rip"));
    let (one, two) = (std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    std::fs::write(a, two).unwrap();
    std::fs::write(b, one).unwrap();
    let ran = case.run(&["backup", "verify", "--all"]);
    assert_eq!(ran.code, 6, "{ran:#?}");
    let ran = case.run(&["backup", "list"]).expect_code(0);
    assert_eq!([status_of(&ran, id(&w.older)), status_of(&ran, id(&w.newer))], ["damaged", "damaged"]);
    let ran = case.run(&["restore", "latest", "--into", "hostile_copy"]);
    assert_ne!(ran.code, 0, "{ran:#?}");
}

#[test]
fn frames_that_change_places_and_bytes_that_are_too_many() {
    let w = world();
    let frames = |bytes: &[u8]| {
        let first = 84 + 17 + u32::from_le_bytes(bytes[84..88].try_into().unwrap()) as usize;
        let second = first + 17 + u32::from_le_bytes(bytes[first..first + 4].try_into().unwrap()) as usize;
        (first, second)
    };
    let case = Case::new();
    case.change(&w.newer, "rip", |bytes| {
        let (first, second) = frames(&bytes);
        [&bytes[..84], &bytes[first..second], &bytes[84..first], &bytes[second..]].concat()
    });
    case.is_damaged("two frames in the other order");
    let case = Case::new();
    case.change(&w.newer, "rip", |bytes| {
        let (first, second) = frames(&bytes);
        [&bytes[..first], &bytes[second..]].concat()
    });
    case.is_damaged("a frame that is missing");
    for name in ["rip", "manifest"] {
        let case = Case::new();
        case.change(&w.newer, name, |mut bytes| {
            bytes.push(0);
            bytes
        });
        case.is_damaged(&format!("a byte more in the {name}"));
    }
}

#[test]
fn a_missing_stream_and_an_extra_one() {
    let w = world();
    let case = Case::new();
    std::fs::remove_file(case.file(&w.newer, "rip")).unwrap();
    case.is_damaged("no archive");
    // Without its manifest it is no backup: the history still knows it.
    let case = Case::new();
    std::fs::remove_file(case.file(&w.newer, "manifest")).unwrap();
    let ran = case.run(&["backup", "list"]).expect_code(0);
    assert_eq!(status_of(&ran, id(&w.newer)), "damaged", "{ran:#?}");
    assert!(ran.stdout.contains("the history knows this backup and the store does not have it"), "{ran:#?}");
    let case = Case::new();
    std::fs::remove_dir_all(case.store.path().join(&w.newer)).unwrap();
    let ran = case.run(&["backup", "list"]).expect_code(0);
    assert_eq!(status_of(&ran, id(&w.newer)), "damaged", "{ran:#?}");
    assert!(ran.stdout.contains("the history knows this backup and the store does not have it"), "{ran:#?}");
    assert_eq!(status_of(&ran, id(&w.older)), "verified", "{ran:#?}");
    let ran = case.run(&["restore", "latest", "--dry-run"]).expect_code(0);
    assert_eq!(ran.result()["backup_id"], id(&w.older));
    assert!(ran.stderr.lines().any(|line| line.starts_with("warning: ") && line.contains(id(&w.newer))), "{ran:#?}");
}

#[test]
fn a_length_that_is_a_lie_costs_no_memory() {
    let w = world();
    for (name, at) in [("rip", 84), ("manifest", 8), ("manifest", 12)] {
        let case = Case::new();
        case.change(&w.newer, name, |mut bytes| {
            bytes[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
            bytes
        });
        let (ran, peak) = with_peak(&case, &["backup", "verify", id(&w.newer)]);
        assert_eq!(ran.code, 6, "{name} {at}: {ran:#?}");
        assert!(peak < 60 << 20, "{name} {at}: {} MiB at the peak", peak >> 20);
        case.is_damaged(&format!("a length of 2 GiB at {at} of the {name}"));
    }
}

/// Runs it under a parent that tells the peak of its memory, in bytes.
fn with_peak(case: &Case, arguments: &[&str]) -> (Ran, u64) {
    let mut all = vec!["--json", "--store", case.store.path().to_str().unwrap()];
    all.extend(arguments);
    let (output, peak) = crate::support::cli::peak_memory(&world().project.command(&all));
    (output, peak)
}

#[test]
fn another_key_says_which_one_is_wanted() {
    let w = world();
    let wrong = KEY.replace("00", "99");
    let run = |arguments: &[&str]| {
        let mut command = w.project.command(arguments);
        command.env("BACKUP_ENCRYPTION_KEY", &wrong);
        crate::support::cli::ran(command.output().unwrap())
    };
    let held = run(&["key", "id"]).expect_code(0).stdout.trim().to_owned();
    let wanted = w.project.run(&["key", "id"]).expect_code(0).stdout.trim().to_owned();
    assert_ne!(held, wanted);
    let _quiet = QUIET.read().unwrap_or_else(PoisonError::into_inner);
    let before = Case::created();
    for arguments in [
        &["backup", "verify", "latest"][..],
        &["restore", "latest", "--into", "hostile_copy"],
        &["drill"],
        &["restore", "latest", "--confirm", DATABASE],
    ] {
        let ran = run(arguments);
        assert!(matches!(ran.code, 2 | 6), "{arguments:?}: {ran:#?}");
        assert!(ran.stderr.contains(wanted.split_whitespace().next().unwrap()), "{arguments:?}: {ran:#?}");
        assert!(ran.stderr.contains(held.split_whitespace().next().unwrap()), "{arguments:?}: {ran:#?}");
        assert!(!ran.stderr.contains(&wrong) && !ran.stderr.contains(KEY));
    }
    assert_eq!(Case::created(), before);
    // A key that does not fit is no damage.
    let ran = w.project.json(&["backup", "list"]).expect_code(0);
    assert_eq!(status_of(&ran, id(&w.newer)), "verified", "{ran:#?}");
    let db = Db { cluster: &w.cluster, name: DATABASE.to_owned() };
    assert_eq!(db.sql("select count(*) from t"), "6000");
}

#[test]
fn a_damaged_newest_backup_does_not_stop_a_restore_of_the_older() {
    let w = world();
    let case = Case::new();
    let length = std::fs::metadata(case.file(&w.newer, "rip")).unwrap().len() as usize;
    case.change(&w.newer, "rip", flip(length / 2));
    let ran = case.run(&["backup", "verify", "--all"]);
    assert_eq!(ran.code, 6, "{ran:#?}");
    let _alone = QUIET.write().unwrap_or_else(PoisonError::into_inner);
    let ran = case.run(&["restore", "latest", "--into", "hostile_from_older"]).expect_code(0);
    assert_eq!(ran.result()["backup_id"], id(&w.older), "{ran:#?}");
    let db = Db { cluster: &w.cluster, name: "hostile_from_older".to_owned() };
    assert_eq!(db.sql("select count(*) from t"), "6000");
}
