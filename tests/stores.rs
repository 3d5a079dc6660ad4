//! What every store must do, run over each of them. A new store is one more line in [`STORES`].

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use ripcord::clock;
use ripcord::error::{Error, Kind, Result};
use ripcord::ids::{BackupId, Lineage, RunId};
use ripcord::io::ReadAt;
use ripcord::store::local::Local;
use ripcord::store::{Mark, ObjectMeta, ObjectWriter, Objects, Store};
use tempfile::TempDir;

/// A fresh, empty store, and what must live as long as it does.
type Make = fn() -> (Arc<dyn Objects>, TempDir);

const STORES: [(&str, Make); 1] = [("local", local)];

fn local() -> (Arc<dyn Objects>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Local::open(&folder.path().join("store")).unwrap();
    (Arc::new(store), folder)
}

/// Runs `case` over every store.
fn each(case: impl Fn(&str, &dyn Objects)) {
    for (name, make) in STORES {
        let (store, _folder) = make();
        case(name, &*store);
    }
}

fn paths(store: &dyn Objects, prefix: &str) -> Vec<String> {
    store
        .list(prefix)
        .unwrap()
        .into_iter()
        .map(|object| object.path)
        .collect()
}

fn read(store: &dyn Objects, path: &str) -> Option<Vec<u8>> {
    store.read(path, 1 << 20).unwrap()
}

#[test]
fn an_object_is_created_once() {
    each(|name, store| {
        store.create("a/b/object", b"first").unwrap();
        let error = store.create("a/b/object", b"second").unwrap_err();
        assert!(error.message().contains("a/b/object"), "{name}: {error}");
        assert!(error.message().contains("there already"), "{name}: {error}");
        assert_eq!(read(store, "a/b/object").unwrap(), b"first", "{name}");
        assert_eq!(paths(store, ""), ["a/b/object"], "{name}");
    });
}

#[test]
fn of_eight_that_create_one_name_exactly_one_wins() {
    for (name, make) in STORES {
        let (store, _folder) = make();
        for round in 0..20 {
            let path = format!("runs/{round}/000000");
            let barrier = Barrier::new(8);
            let wins = AtomicUsize::new(0);
            let winner = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for thread in 0..8_u8 {
                    let (store, path, barrier, wins, winner) =
                        (&store, &path, &barrier, &wins, &winner);
                    scope.spawn(move || {
                        barrier.wait();
                        match store.create(path, &[thread]) {
                            Ok(()) => {
                                wins.fetch_add(1, Ordering::SeqCst);
                                winner.lock().unwrap().push(thread);
                            }
                            Err(error) => {
                                assert!(error.message().contains("there already"), "{error}");
                            }
                        }
                    });
                }
            });
            assert_eq!(wins.load(Ordering::SeqCst), 1, "{name}");
            assert_eq!(
                read(&*store, &path).unwrap(),
                *winner.lock().unwrap(),
                "{name}"
            );
        }
        assert_eq!(store.list("").unwrap().len(), 20, "{name}");
    }
}

#[test]
fn replace_takes_the_place_of_what_is_there_and_of_nothing() {
    each(|name, store| {
        store.replace("marks/pinned", b"one").unwrap();
        store.replace("marks/pinned", b"two").unwrap();
        assert_eq!(read(store, "marks/pinned").unwrap(), b"two", "{name}");
        assert_eq!(paths(store, "marks"), ["marks/pinned"], "{name}");
    });
}

#[test]
fn a_stream_is_seen_when_it_is_finished() {
    each(|name, store| {
        let mut writer = store.begin("x/0.rip").unwrap();
        let piece: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        for _ in 0..30 {
            writer.write_all(&piece).unwrap();
        }
        writer.flush().unwrap();
        assert!(paths(store, "").is_empty(), "{name}");
        assert!(store.open("x/0.rip").unwrap().is_none(), "{name}");
        writer.write_all(b"end").unwrap();
        writer.finish().unwrap();
        assert_eq!(
            store.list("x").unwrap(),
            [ObjectMeta {
                path: "x/0.rip".to_owned(),
                size_bytes: 3_000_003
            }],
            "{name}"
        );
        let object = store.open("x/0.rip").unwrap().unwrap();
        assert_eq!(object.len_bytes(), 3_000_003, "{name}");
        let mut buffer = [0; 10];
        assert_eq!(object.read_at(99_999, &mut buffer).unwrap(), 10, "{name}");
        assert_eq!(buffer[..2], [piece[99_999], piece[0]], "{name}");
        assert_eq!(object.read_at(3_000_000, &mut buffer).unwrap(), 3, "{name}");
        assert_eq!(buffer[..3], *b"end", "{name}");
        assert_eq!(object.read_at(9_000_000, &mut buffer).unwrap(), 0, "{name}");
        assert_eq!(
            object.read_at(u64::MAX, &mut buffer).unwrap_or(0),
            0,
            "{name}"
        );
    });
}

#[test]
fn a_large_write_and_an_empty_object_come_back() {
    each(|name, store| {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut writer = store.begin("large").unwrap();
        writer.write_all(b"a").unwrap();
        writer.write_all(&bytes).unwrap();
        writer.write_all(b"z").unwrap();
        writer.finish().unwrap();
        let back = read(store, "large").unwrap();
        assert_eq!(back.len(), 1_000_002, "{name}");
        assert!(back[1..1_000_001] == bytes[..], "{name}");
        store.begin("empty").unwrap().finish().unwrap();
        assert_eq!(read(store, "empty").unwrap(), b"", "{name}");
        store.drop_cache("large").unwrap();
        assert!(read(store, "large").unwrap() == back, "{name}");
    });
}

#[test]
fn a_stream_whose_name_is_taken_is_an_error_at_both_ends() {
    each(|name, store| {
        store.create("x/0.rip", b"first").unwrap();
        assert!(store.begin("x/0.rip").is_err(), "{name}");
        let mut writer = store.begin("x/1.rip").unwrap();
        writer.write_all(b"late").unwrap();
        store.create("x/1.rip", b"first").unwrap();
        let error = writer.finish().unwrap_err();
        assert!(error.message().contains("x/1.rip"), "{name}: {error}");
        assert_eq!(read(store, "x/1.rip").unwrap(), b"first", "{name}");
        assert_eq!(paths(store, "x"), ["x/0.rip", "x/1.rip"], "{name}");
    });
}

#[test]
fn what_a_dropped_or_killed_writer_leaves_is_never_seen() {
    each(|name, store| {
        let mut dropped = store.begin("x/dropped").unwrap();
        dropped.write_all(&[1; 500_000]).unwrap();
        drop(dropped);
        let mut killed = store.begin("x/killed").unwrap();
        killed.write_all(&[1; 500_000]).unwrap();
        std::mem::forget(killed);
        store.create("x/whole", b"whole").unwrap();
        assert_eq!(paths(store, ""), ["x/whole"], "{name}");
        assert!(read(store, "x/killed").is_none(), "{name}");
        store.sweep("x").unwrap();
        assert_eq!(paths(store, ""), ["x/whole"], "{name}");
        assert_eq!(store.folders("").unwrap(), ["x"], "{name}");
        store.delete("x/whole").unwrap();
        assert!(store.folders("").unwrap().is_empty(), "{name}");
    });
}

#[test]
fn what_is_not_there_is_none_and_no_error() {
    each(|name, store| {
        assert!(read(store, "no/such/object").is_none(), "{name}");
        assert!(store.open("no/such/object").unwrap().is_none(), "{name}");
        assert!(store.list("no/such").unwrap().is_empty(), "{name}");
        assert!(store.folders("no/such").unwrap().is_empty(), "{name}");
        store.delete("no/such/object").unwrap();
        store.sweep("no/such").unwrap();
        let error = store.drop_cache("no/such/object").unwrap_err();
        assert!(
            error.one_line().contains("no/such/object"),
            "{name}: {error}"
        );
    });
}

#[test]
fn deleting_twice_is_no_error_and_empty_folders_go() {
    each(|name, store| {
        store.create("a/b/c/one", b"1").unwrap();
        store.create("a/two", b"2").unwrap();
        store.delete("a/b/c/one").unwrap();
        store.delete("a/b/c/one").unwrap();
        assert!(store.folders("a").unwrap().is_empty(), "{name}");
        assert_eq!(paths(store, ""), ["a/two"], "{name}");
        store.delete("a/two").unwrap();
        assert!(store.folders("").unwrap().is_empty(), "{name}");
        // The store itself stays, and so does its use.
        store.check_writable().unwrap();
        store.create("a/b/c/one", b"again").unwrap();
        assert_eq!(read(store, "a/b/c/one").unwrap(), b"again", "{name}");
    });
}

#[test]
fn creating_beside_a_deletion_of_the_same_folder_works() {
    for (name, make) in STORES {
        let (store, _folder) = make();
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..200 {
                        let path = format!("shared/folder/{thread}-{round}");
                        store.create(&path, b"x").unwrap();
                        store.delete(&path).unwrap();
                    }
                });
            }
        });
        assert!(store.folders("").unwrap().is_empty(), "{name}");
    }
}

#[test]
fn listing_is_sorted_and_bounded_by_the_folder() {
    each(|name, store| {
        for path in ["b/2", "b/1", "b/c/3", "ba/4", "a"] {
            store.create(path, path.as_bytes()).unwrap();
        }
        assert_eq!(paths(store, "b"), ["b/1", "b/2", "b/c/3"], "{name}");
        assert_eq!(paths(store, "b/"), ["b/1", "b/2", "b/c/3"], "{name}");
        assert_eq!(
            paths(store, ""),
            ["a", "b/1", "b/2", "b/c/3", "ba/4"],
            "{name}"
        );
        assert_eq!(store.folders("").unwrap(), ["b", "ba"], "{name}");
        assert_eq!(store.folders("b").unwrap(), ["c"], "{name}");
    });
}

#[test]
fn reading_is_bounded() {
    each(|name, store| {
        store.create("ten", &[7; 10]).unwrap();
        assert_eq!(store.read("ten", 10).unwrap().unwrap(), [7; 10], "{name}");
        let error = store.read("ten", 9).unwrap_err();
        assert!(
            error.message().contains("larger than 9 bytes"),
            "{name}: {error}"
        );
        assert!(store.read("ten", u64::MAX).unwrap().is_some(), "{name}");
    });
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    each(|name, store| {
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a/.",
            "a\0b",
            ".partial-1",
            "a/.partial-1/b",
        ] {
            assert!(store.create(path, b"x").is_err(), "{name}: create {path:?}");
            assert!(
                store.replace(path, b"x").is_err(),
                "{name}: replace {path:?}"
            );
            assert!(store.begin(path).is_err(), "{name}: begin {path:?}");
            assert!(store.read(path, 1).is_err(), "{name}: read {path:?}");
            assert!(store.open(path).is_err(), "{name}: open {path:?}");
            assert!(store.delete(path).is_err(), "{name}: delete {path:?}");
            if !path.is_empty() && path != "/" {
                assert!(store.list(path).is_err(), "{name}: list {path:?}");
                assert!(store.sweep(path).is_err(), "{name}: sweep {path:?}");
            }
        }
        assert!(paths(store, "").is_empty(), "{name}");
    });
}

#[test]
fn a_store_says_that_it_can_be_used_and_leaves_nothing_of_the_try() {
    each(|name, store| {
        store.check_writable().unwrap();
        assert!(paths(store, "").is_empty(), "{name}");
        assert!(
            store.free_bytes().unwrap().is_none_or(|free| free > 0),
            "{name}"
        );
        assert!(!store.location().is_empty(), "{name}");
    });
}

// The local store alone.

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_are_0600_and_folders_0700() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("above/store");
    let store = Local::open(&root).unwrap();
    store.create("a/b/created", b"x").unwrap();
    store.replace("a/b/replaced", b"x").unwrap();
    let mut writer = store.begin("a/b/streamed").unwrap();
    let partial = names(&root.join("a/b"))
        .into_iter()
        .find(|name| name.starts_with(".partial-"))
        .unwrap();
    assert_eq!(mode(&root.join("a/b").join(partial)), 0o600);
    writer.write_all(b"x").unwrap();
    writer.finish().unwrap();
    for name in ["created", "replaced", "streamed"] {
        assert_eq!(mode(&root.join("a/b").join(name)), 0o600, "{name}");
    }
    for path in ["", "..", "a", "a/b"] {
        assert_eq!(mode(&root.join(path)), 0o700, "{path}");
    }
    assert_eq!(store.loose_permissions(), None);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let text = Local::open(&root).unwrap().loose_permissions().unwrap();
    assert!(text.contains("mode 0755"), "{text}");
}

#[test]
fn a_dropped_writer_removes_its_file_and_sweep_the_one_of_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = Local::open(folder.path()).unwrap();
    drop(store.begin("x/y/0.rip").unwrap());
    assert!(names(&folder.path().join("x/y")).is_empty());
    std::mem::forget(store.begin("x/y/0.rip").unwrap());
    assert_eq!(names(&folder.path().join("x/y")).len(), 1);
    store.create("other/object", b"x").unwrap();
    std::mem::forget(store.begin("other/0.rip").unwrap());
    store.sweep("x").unwrap();
    assert_eq!(names(folder.path()), ["other"]);
    assert_eq!(names(&folder.path().join("other")).len(), 2);
    store.create("x/y/0.rip", b"x").unwrap();
}

#[test]
fn a_file_in_place_of_a_folder_is_told_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    fs::write(&root, b"a file").unwrap();
    for path in [root.clone(), root.join("below")] {
        let error = Local::open(&path).err().unwrap();
        assert!(error.one_line().contains(root.to_str().unwrap()), "{error}");
        assert!(error.one_line().contains("a file stands where"), "{error}");
    }
    let store = Local::open(&folder.path().join("real")).unwrap();
    fs::write(folder.path().join("real/a"), b"a file").unwrap();
    let error = store.create("a/object", b"x").unwrap_err();
    assert!(error.one_line().contains("real/a`"), "{error}");
    assert!(store.read("a/object", 1).is_err());
    fs::create_dir(folder.path().join("real/object")).unwrap();
    assert!(store.create("object", b"x").is_err());
    assert!(store.read("object", 1).is_err());
    assert!(store.delete("object").is_err());
    assert!(folder.path().join("real/object").is_dir());
}

#[test]
fn a_store_whose_folder_is_gone_is_an_error_and_not_empty() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Local::open(&root).unwrap();
    store.create("a/object", b"x").unwrap();
    fs::rename(&root, folder.path().join("elsewhere")).unwrap();
    for error in [
        store.read("a/object", 1).unwrap_err(),
        store.list("").unwrap_err(),
        store.folders("").unwrap_err(),
        store.create("b", b"x").unwrap_err(),
        store.check_writable().unwrap_err(),
    ] {
        assert!(error.one_line().contains(root.to_str().unwrap()), "{error}");
    }
    assert!(!root.exists());
}

#[test]
fn links_are_followed_to_the_store_and_not_inside_it() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"precious").unwrap();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let root = folder.path().join("link");
    symlink(folder.path().join("disk"), &root).unwrap();
    let store = Local::open(&root).unwrap();
    store.create("real/object", b"x").unwrap();
    assert!(folder.path().join("disk/real/object").is_file());

    symlink(&outside, root.join("away")).unwrap();
    symlink(outside.join("precious"), root.join("real/precious")).unwrap();
    for error in [
        store.create("away/new", b"x").unwrap_err(),
        store.replace("away/precious", b"x").unwrap_err(),
        store.begin("away/new").err().unwrap(),
        store.delete("away/precious").unwrap_err(),
        store.sweep("away").unwrap_err(),
        store.read("away/precious", 100).unwrap_err(),
        store.read("real/precious", 100).unwrap_err(),
        store.list("away").unwrap_err(),
    ] {
        assert!(error.message().contains("is a symbolic link"), "{error}");
    }
    assert!(store.create("real/precious", b"x").is_err());
    // A link to a folder is named, so that what is behind it is not missed without a word.
    assert_eq!(store.folders("").unwrap(), ["away", "real"]);
    // Replacing and deleting touch the link itself.
    store.replace("real/precious", b"ours").unwrap();
    assert_eq!(read(&store, "real/precious").unwrap(), b"ours");
    store.delete("away").unwrap();
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
    assert_eq!(names(&outside), ["precious"]);
}

#[test]
fn a_store_is_opened_by_path_and_by_file_url() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("my store");
    let url = format!("file://{}", root.to_str().unwrap().replace(' ', "%20"));
    let store = Store::open(&url).unwrap();
    assert_eq!(store.location(), root.to_str().unwrap());
    assert!(root.is_dir());
    Store::open(root.to_str().unwrap()).unwrap();
    let error = Store::open("s3://bucket/prefix").err().unwrap();
    assert_eq!(error.kind(), Kind::Usage);
    fs::write(folder.path().join("file"), b"").unwrap();
    let error = Store::open(folder.path().join("file").to_str().unwrap())
        .err()
        .unwrap();
    assert!(error.message().contains("cannot be used"), "{error}");
}

// The layout.

fn layout() -> (Store, TempDir, Lineage) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Arc::new(Local::open(folder.path()).unwrap()));
    (store, folder, Lineage::new())
}

fn backup(store: &Store, lineage: Lineage) -> BackupId {
    let id = BackupId::new();
    for stream in 0..2 {
        let mut writer = store.begin_stream(lineage, id, stream).unwrap();
        writer
            .write_all(format!("stream {stream}").as_bytes())
            .unwrap();
        writer.finish().unwrap();
    }
    store.commit_manifest(lineage, id, b"manifest").unwrap();
    id
}

fn tag(text: &str) -> Mark {
    Mark::Tag {
        at: clock::now(),
        tag: text.to_owned(),
    }
}

#[test]
fn a_backup_exists_when_its_manifest_does() {
    let (store, _folder, lineage) = layout();
    let first = backup(&store, lineage);
    let running = BackupId::new();
    let mut writer = store.begin_stream(lineage, running, 0).unwrap();
    writer.write_all(b"half").unwrap();
    let last = backup(&store, lineage);
    assert_eq!(store.lineages().unwrap(), [lineage]);
    assert_eq!(store.backups(lineage).unwrap(), [first, last]);
    assert_eq!(store.uncommitted(lineage).unwrap(), [running]);
    writer.finish().unwrap();
    assert_eq!(store.uncommitted(lineage).unwrap(), [running]);
    store.commit_manifest(lineage, running, b"now").unwrap();
    assert!(store.commit_manifest(lineage, running, b"again").is_err());
    assert_eq!(store.backups(lineage).unwrap(), [first, running, last]);
    assert!(store.uncommitted(lineage).unwrap().is_empty());
    assert_eq!(store.manifest(lineage, running).unwrap(), b"now");
    store
        .replace_manifest(lineage, running, b"rewrapped")
        .unwrap();
    assert_eq!(store.manifest(lineage, running).unwrap(), b"rewrapped");
    let mut bytes = [0; 8];
    let stream = store.open_stream(lineage, first, 1).unwrap();
    assert_eq!(stream.read_at(0, &mut bytes).unwrap(), 8);
    assert_eq!(&bytes, b"stream 1");
    store.drop_stream_cache(lineage, first, 1).unwrap();
    let place = store.backup_location(lineage, first);
    assert!(Path::new(&place).join("manifest").is_file(), "{place}");
}

#[test]
fn what_is_missing_is_told_by_its_name() {
    let (store, _folder, lineage) = layout();
    let id = backup(&store, lineage);
    let other = BackupId::new();
    let error = store.manifest(lineage, other).unwrap_err();
    assert!(error.message().contains(&other.to_string()), "{error}");
    let error = store.open_stream(lineage, id, 7).err().unwrap();
    assert_eq!(error.kind(), Kind::Verification);
    assert!(error.message().contains("stream 7"), "{error}");
    // Neither brings a deleted backup back.
    store.delete_backup(lineage, id).unwrap();
    assert!(store.replace_manifest(lineage, id, b"x").is_err());
    assert!(
        store
            .mark(lineage, id, &Mark::Pinned { at: clock::now() })
            .is_err()
    );
    assert!(store.lineages().unwrap().is_empty());
}

#[test]
fn marks_replace_those_of_their_kind() {
    let (store, folder, lineage) = layout();
    let id = backup(&store, lineage);
    assert!(store.marks(lineage, id).unwrap().is_empty());
    let pinned = Mark::Pinned { at: clock::now() };
    let verified = |level: &str| Mark::Verified {
        at: clock::now(),
        level: level.to_owned(),
    };
    let newest = verified("toc");
    let tags = [tag("v2"), tag("V2"), tag("release/1")];
    for mark in [&pinned, &verified("archive"), &newest]
        .into_iter()
        .chain(&tags)
    {
        store.mark(lineage, id, mark).unwrap();
    }
    store.mark(lineage, id, &tags[0]).unwrap();
    let marks = store.marks(lineage, id).unwrap();
    assert_eq!(marks.len(), 5, "{marks:?}");
    for mark in [&pinned, &newest].into_iter().chain(&tags) {
        assert!(marks.contains(mark), "{mark:?}");
    }
    store.unpin(lineage, id).unwrap();
    store.unpin(lineage, id).unwrap();
    assert!(!store.marks(lineage, id).unwrap().contains(&pinned));
    for odd in ["", "two\nlines"] {
        let error = store.mark(lineage, id, &tag(odd)).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
    }

    let place = folder.path().join(format!("{lineage}/backups/{id}/marks"));
    fs::write(place.join("README"), b"not a mark").unwrap();
    assert_eq!(store.marks(lineage, id).unwrap().len(), 4);
    fs::write(place.join("drilled"), b"{}").unwrap();
    let error = store.marks(lineage, id).unwrap_err();
    assert!(error.message().contains("`drilled`"), "{error}");
    fs::copy(place.join("verified"), place.join("drilled")).unwrap();
    let error = store.marks(lineage, id).unwrap_err();
    assert!(error.one_line().contains("another mark"), "{error}");
}

#[test]
fn foreign_things_are_passed_over_and_stay() {
    let (store, folder, lineage) = layout();
    let id = backup(&store, lineage);
    let backups = folder.path().join(format!("{lineage}/backups"));
    let odd = lineage.to_string().to_uppercase();
    for path in ["lost+found", odd.as_str(), "0123"] {
        fs::create_dir(folder.path().join(path)).unwrap();
    }
    fs::write(folder.path().join("README"), b"read me").unwrap();
    fs::create_dir(backups.join("old")).unwrap();
    fs::write(backups.join("old/manifest"), b"x").unwrap();
    fs::write(backups.join("note"), b"x").unwrap();
    fs::write(backups.join(id.to_string()).join("note"), b"x").unwrap();
    assert_eq!(store.lineages().unwrap(), [lineage]);
    assert_eq!(store.backups(lineage).unwrap(), [id]);
    assert!(store.uncommitted(lineage).unwrap().is_empty());
    store.delete_backup(lineage, id).unwrap();
    assert_eq!(names(&backups), ["note", "old"]);
    assert_eq!(names(&backups.join("old")), ["manifest"]);
    assert_eq!(names(folder.path()).len(), 5);
}

#[test]
fn the_journal_of_a_run_is_kept_in_order() {
    let (store, folder, lineage) = layout();
    let (first, second) = (RunId::new(), RunId::new());
    for (run, name) in [(second, "000000"), (first, "000001"), (first, "000000")] {
        store
            .append_step(lineage, run, name, name.as_bytes())
            .unwrap();
    }
    assert!(store.append_step(lineage, first, "000001", b"x").is_err());
    assert!(store.append_step(lineage, first, "../x", b"x").is_err());
    fs::create_dir(folder.path().join(format!("{lineage}/runs/old"))).unwrap();
    assert_eq!(store.runs(lineage).unwrap(), [first, second]);
    let steps = store.steps(lineage, first).unwrap();
    assert_eq!(
        steps,
        ["000000", "000001"].map(|name| (name.to_owned(), name.as_bytes().to_vec()))
    );
    assert!(store.steps(lineage, RunId::new()).unwrap().is_empty());
    assert!(store.runs(Lineage::new()).unwrap().is_empty());
}

/// A store that fails at its n-th removal and writes down the order of all.
struct FailsAtRemoval {
    below: Arc<dyn Objects>,
    left: AtomicUsize,
    removed: Mutex<Vec<String>>,
}

impl FailsAtRemoval {
    fn count(&self, path: &str) -> Result<()> {
        let spend = |left: usize| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend)
            .map_err(|_| Error::failed(format!("`{path}` was not removed: the disk is gone")))?;
        self.removed.lock().unwrap().push(path.to_owned());
        Ok(())
    }
}

impl Objects for FailsAtRemoval {
    fn location(&self) -> String {
        self.below.location()
    }
    fn create(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.below.create(path, bytes)
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.below.replace(path, bytes)
    }
    fn begin(&self, path: &str) -> Result<Box<dyn ObjectWriter>> {
        self.below.begin(path)
    }
    fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        self.below.read(path, max_bytes)
    }
    fn open(&self, path: &str) -> Result<Option<Arc<dyn ReadAt>>> {
        self.below.open(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.below.list(prefix)
    }
    fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.below.folders(prefix)
    }
    fn delete(&self, path: &str) -> Result<()> {
        self.count(path)?;
        self.below.delete(path)
    }
    fn sweep(&self, prefix: &str) -> Result<()> {
        self.count(prefix)?;
        self.below.sweep(prefix)
    }
    fn drop_cache(&self, path: &str) -> Result<()> {
        self.below.drop_cache(path)
    }
    fn free_bytes(&self) -> Result<Option<u64>> {
        self.below.free_bytes()
    }
    fn ephemeral(&self) -> Option<String> {
        self.below.ephemeral()
    }
    fn check_writable(&self) -> Result<()> {
        self.below.check_writable()
    }
}

#[test]
fn a_removal_cut_short_anywhere_is_finished_by_the_next() {
    for cut in 0..=6 {
        let (whole, folder, lineage) = layout();
        let id = backup(&whole, lineage);
        let kept = backup(&whole, lineage);
        whole
            .mark(lineage, id, &Mark::Pinned { at: clock::now() })
            .unwrap();
        whole.mark(lineage, id, &tag("v2")).unwrap();
        std::mem::forget(whole.begin_stream(lineage, id, 2).unwrap());
        let failing = Arc::new(FailsAtRemoval {
            below: Arc::new(Local::open(folder.path()).unwrap()),
            left: AtomicUsize::new(cut),
            removed: Mutex::default(),
        });
        let store = Store::new(Arc::clone(&failing) as Arc<dyn Objects>);
        let result = store.delete_backup(lineage, id);
        let removed: Vec<String> = failing
            .removed
            .lock()
            .unwrap()
            .iter()
            .map(|path| path.rsplit('/').next().unwrap().to_owned())
            .collect();
        let own = id.to_string();
        let order = [
            "manifest",
            "pinned",
            "tag-v2",
            "0.rip",
            "1.rip",
            own.as_str(),
        ];
        assert_eq!(removed, order[..cut.min(6)], "cut at {cut}");
        assert_eq!(result.is_ok(), cut == 6, "cut at {cut}");
        // Before the first removal it is a whole backup; after it, none at all.
        if cut == 0 {
            assert_eq!(whole.backups(lineage).unwrap(), [id, kept]);
        } else {
            assert_eq!(whole.backups(lineage).unwrap(), [kept], "cut at {cut}");
            let left = whole.uncommitted(lineage).unwrap();
            assert_eq!(left.contains(&id), cut < 6, "cut at {cut}");
        }
        whole.delete_backup(lineage, id).unwrap();
        whole.delete_backup(lineage, id).unwrap();
        assert_eq!(whole.backups(lineage).unwrap(), [kept], "cut at {cut}");
        assert!(
            whole.uncommitted(lineage).unwrap().is_empty(),
            "cut at {cut}"
        );
    }
}
