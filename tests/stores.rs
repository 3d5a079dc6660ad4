//! What every store must do, run over each of them. A new store is one more line in [`STORES`].

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use ripcord::store::local::Local;
use ripcord::store::{ObjectMeta, Objects};
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
    store.list(prefix).unwrap().into_iter().map(|object| object.path).collect()
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
                    let (store, path, barrier, wins, winner) = (&store, &path, &barrier, &wins, &winner);
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
            assert_eq!(read(&*store, &path).unwrap(), *winner.lock().unwrap(), "{name}");
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
fn what_was_removed_does_not_come_back_by_being_replaced() {
    each(|name, store| {
        assert!(!store.replace_existing("x/manifest", b"one").unwrap(), "{name}");
        assert!(store.folders("").unwrap().is_empty(), "{name}: a folder was made");
        store.create("x/manifest", b"one").unwrap();
        assert!(store.replace_existing("x/manifest", b"two").unwrap(), "{name}");
        assert_eq!(read(store, "x/manifest").unwrap(), b"two", "{name}");
        assert_eq!(paths(store, ""), ["x/manifest"], "{name}");
        store.create("x/other", b"").unwrap();
        store.delete("x/manifest").unwrap();
        assert!(!store.replace_existing("x/manifest", b"three").unwrap(), "{name}");
        assert_eq!(paths(store, ""), ["x/other"], "{name}");
    });
}

#[test]
fn of_a_removal_and_a_replacement_at_once_the_removal_stays() {
    for (name, make) in STORES {
        let (store, _folder) = make();
        for round in 0..200 {
            let path = format!("{round}/manifest");
            store.create(&path, b"old").unwrap();
            let barrier = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    barrier.wait();
                    store.replace_existing(&path, b"new").unwrap();
                });
                scope.spawn(|| {
                    barrier.wait();
                    store.delete(&path).unwrap();
                });
            });
            assert_eq!(read(&*store, &path), None, "{name}, round {round}");
        }
    }
}

#[test]
fn one_at_a_time_holds_a_name() {
    for (name, make) in STORES {
        let (store, _folder) = make();
        let held = store.hold("keys.lock").unwrap().expect("free");
        assert!(store.hold("keys.lock").unwrap().is_none(), "{name}");
        drop(held);
        assert!(store.hold("keys.lock").unwrap().is_some(), "{name}");
        // What is held is no lineage, and no backup.
        assert!(store.folders("").unwrap().is_empty(), "{name}");
    }
}

#[test]
fn leftovers_of_one_folder_go_and_those_below_stay() {
    each(|name, store| {
        store.create("b/manifest", b"m").unwrap();
        let above = store.begin("b/0.rip").unwrap();
        let mut below = store.begin("b/marks/pinned").unwrap();
        below.write_all(b"pin").unwrap();
        std::mem::forget(above);
        store.sweep_here("b").unwrap();
        below.finish().unwrap();
        assert_eq!(paths(store, ""), ["b/manifest", "b/marks/pinned"], "{name}");
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
            [ObjectMeta { path: "x/0.rip".to_owned(), size_bytes: 3_000_003 }],
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
        assert_eq!(object.read_at(u64::MAX, &mut buffer).unwrap_or(0), 0, "{name}");
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
        assert!(error.one_line().contains("no/such/object"), "{name}: {error}");
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
        assert_eq!(paths(store, ""), ["a", "b/1", "b/2", "b/c/3", "ba/4"], "{name}");
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
        assert!(error.message().contains("larger than 9 bytes"), "{name}: {error}");
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
            assert!(store.replace(path, b"x").is_err(), "{name}: replace {path:?}");
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
        assert!(store.free_bytes().unwrap().is_none_or(|free| free > 0), "{name}");
        assert!(!store.location().is_empty(), "{name}");
    });
}

// The local store alone.

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
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
    let partial = names(&root.join("a/b")).into_iter().find(|name| name.starts_with(".partial-")).unwrap();
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
    fs::create_dir(folder.path().join("real")).unwrap();
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
