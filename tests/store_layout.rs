//! The layout of names in a store: what counts as a backup, and how one is removed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ripcord::clock;
use ripcord::error::{Error, Kind, Result};
use ripcord::ids::{BackupId, Lineage, RunId};
use ripcord::io::ReadAt;
use ripcord::store::local::Local;
use ripcord::store::{Mark, ObjectMeta, ObjectWriter, Objects, Store};
use tempfile::TempDir;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_store_is_opened_by_path_and_by_file_url() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("my store");
    let url = format!("file://{}", root.to_str().unwrap().replace(' ', "%20"));
    let store = Store::open(&url).unwrap();
    assert_eq!(store.location(), root.to_str().unwrap());
    assert!(!root.exists(), "looking leaves nothing behind");
    store.objects().check_writable().unwrap();
    assert!(root.is_dir());
    Store::open(root.to_str().unwrap()).unwrap();
    let error = Store::open("s3://bucket/prefix").err().unwrap();
    assert_eq!(error.kind(), Kind::Usage);
    fs::write(folder.path().join("file"), b"").unwrap();
    let error = Store::open(folder.path().join("file").to_str().unwrap()).err().unwrap();
    assert!(error.message().contains("cannot be used"), "{error}");
}

fn layout() -> (Store, TempDir, Lineage) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(Arc::new(Local::open(folder.path()).unwrap()));
    (store, folder, Lineage::new())
}

fn backup(store: &Store, lineage: Lineage) -> BackupId {
    let id = BackupId::new();
    for stream in 0..2 {
        let mut writer = store.begin_stream(lineage, id, stream).unwrap();
        writer.write_all(format!("stream {stream}").as_bytes()).unwrap();
        writer.finish().unwrap();
    }
    store.commit_manifest(lineage, id, b"manifest").unwrap();
    id
}

fn tag(text: &str) -> Mark {
    Mark::Tag { at: clock::now(), tag: text.to_owned() }
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
    store.replace_manifest(lineage, running, b"rewrapped").unwrap();
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
    assert!(store.mark(lineage, id, &Mark::Pinned { at: clock::now() }).is_err());
    assert!(store.lineages().unwrap().is_empty());
}

#[test]
fn marks_replace_those_of_their_kind() {
    let (store, folder, lineage) = layout();
    let id = backup(&store, lineage);
    assert!(store.marks(lineage, id).unwrap().is_empty());
    let pinned = Mark::Pinned { at: clock::now() };
    let verified = |level: &str| Mark::Verified { at: clock::now(), level: level.to_owned() };
    let newest = verified("archive");
    let tags = [tag("v2"), tag("V2"), tag("release/1")];
    // Of each level the newest stays.
    for mark in [&pinned, &verified("archive"), &newest].into_iter().chain(&tags) {
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
        store.append_step(lineage, run, name, name.as_bytes()).unwrap();
    }
    assert!(store.append_step(lineage, first, "000001", b"x").is_err());
    assert!(store.append_step(lineage, first, "../x", b"x").is_err());
    fs::create_dir(folder.path().join(format!("{lineage}/runs/old"))).unwrap();
    assert_eq!(store.runs(lineage).unwrap(), [first, second]);
    let steps = store.steps(lineage, first).unwrap();
    assert_eq!(steps, ["000000", "000001"].map(|name| (name.to_owned(), name.as_bytes().to_vec())));
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
    fn replace_existing(&self, path: &str, bytes: &[u8]) -> Result<bool> {
        self.below.replace_existing(path, bytes)
    }
    fn hold(&self, name: &str) -> Result<Option<Box<dyn Send>>> {
        self.below.hold(name)
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
    fn sweep_here(&self, folder: &str) -> Result<()> {
        self.count(folder)?;
        self.below.sweep_here(folder)
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
        whole.mark(lineage, id, &Mark::Pinned { at: clock::now() }).unwrap();
        whole.mark(lineage, id, &tag("v2")).unwrap();
        std::mem::forget(whole.begin_stream(lineage, id, 2).unwrap());
        let failing = Arc::new(FailsAtRemoval {
            below: Arc::new(Local::open(folder.path()).unwrap()),
            left: AtomicUsize::new(cut),
            removed: Mutex::default(),
        });
        let store = Store::new(Arc::clone(&failing) as Arc<dyn Objects>);
        let result = store.delete_backup(lineage, id);
        let removed: Vec<String> =
            failing.removed.lock().unwrap().iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
        let own = id.to_string();
        let order = ["manifest", "pinned", "tag-v2", "0.rip", "1.rip", own.as_str()];
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
        assert!(whole.uncommitted(lineage).unwrap().is_empty(), "cut at {cut}");
    }
}
