//! A folder held open. Every step of a path is taken from the folder above it without following
//! symbolic links, so that nothing is written to or removed from a place outside the store.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::faults::{fault, fault_io, symbolic_link, taken};
use crate::error::{Error, Result};

/// What a file is called until it is whole. No object's name begins like this.
pub(super) const PARTIAL: &str = ".partial-";

const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o700);
const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What a name in a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Folder,
    Link,
    Other,
}

/// One name in a folder.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: EntryKind,
    pub(super) size_bytes: u64,
}

/// A folder held open, and its path for messages.
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a store's own folder; links are followed here.
    pub(super) fn open(path: &Path) -> Result<Folder> {
        let fd = retry_on_intr(|| rustix::fs::open(path, FOLDER_FLAGS, Mode::empty()))
            .map_err(|errno| fault("open", path, errno))?;
        Ok(Folder { fd, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder `name` in this one; `None`: there is none.
    pub(super) fn child(&self, name: &str) -> Result<Option<Folder>> {
        let path = self.path.join(name);
        let flags = FOLDER_FLAGS | OFlags::NOFOLLOW;
        match retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty())) {
            Ok(fd) => Ok(Some(Folder { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            // Linux answers ENOTDIR for a symbolic link too, when a folder is asked for.
            Err(Errno::NOTDIR | Errno::LOOP) if self.is_link(name)? => Err(symbolic_link(&path)),
            Err(errno) => Err(fault("open", &path, errno)),
        }
    }

    /// Makes the folder `name`, when it is not there. `false`: another process has removed this folder.
    pub(super) fn make_child(&self, name: &str) -> Result<bool> {
        match rustix::fs::mkdirat(&self.fd, name, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(fault("create the folder", &self.path.join(name), errno)),
        }
    }

    /// Makes the names in this folder durable.
    pub(super) fn sync(&self) -> Result<()> {
        match retry_on_intr(|| rustix::fs::fsync(&self.fd)) {
            Ok(()) => Ok(()),
            // Some network file systems cannot sync a folder at all; PostgreSQL's fsync_fname_ext
            // passes over the same two, as there is nothing else to be done.
            Err(Errno::INVAL | Errno::BADF) => Ok(()),
            Err(errno) => Err(fault("sync the folder", &self.path, errno)),
        }
    }

    /// All names but `.` and `..`, sorted. A name that is not UTF-8 cannot be ours and is left out.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let read = |errno| fault("list the folder", &self.path, errno);
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(read)? {
            let entry = entry.map_err(read)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            // One that another process removed meanwhile is not there.
            let Some(stat) = self.stat(name)? else {
                continue;
            };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => EntryKind::Folder,
                FileType::Symlink => EntryKind::Link,
                _ => EntryKind::Other,
            };
            entries.push(Entry { name: name.to_owned(), kind, size_bytes: u64::try_from(stat.st_size).unwrap_or(0) });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Opens the file `name` for reading; `None`: there is none.
    pub(super) fn open_file(&self, name: &str) -> Result<Option<File>> {
        let path = self.path.join(name);
        // Without NONBLOCK, a pipe in place of the file would block for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty())) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(|errno| fault("open", &path, errno))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => Ok(Some(File::from(fd))),
                    FileType::Directory => Err(fault("open", &path, Errno::ISDIR)),
                    _ => Err(Error::failed(format!("`{}` is not a regular file", path.display()))),
                }
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(fault("open", &path, errno)),
        }
    }

    /// Whether anything has this name.
    pub(super) fn holds(&self, name: &str) -> Result<bool> {
        Ok(self.stat(name)?.is_some())
    }

    /// Removes the file `name`; whether there was one. Not durable before [`sync`](Self::sync).
    pub(super) fn remove_file(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(fault("remove", &self.path.join(name), errno)),
        }
    }

    /// Removes the folder `name` when it is empty; whether it is gone now because of this.
    pub(super) fn remove_empty(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::BUSY) => Ok(false),
            Err(errno) => Err(fault("remove the folder", &self.path.join(name), errno)),
        }
    }

    /// Begins a file that has no name of its own yet; `None`: another process has removed this folder.
    pub(super) fn partial(self: &Arc<Self>) -> Result<Option<Partial>> {
        let name = format!("{PARTIAL}{:016x}", rand::random::<u64>());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match retry_on_intr(|| rustix::fs::openat(&self.fd, name.as_str(), flags, FILE_MODE)) {
            Ok(fd) => Ok(Some(Partial { folder: Arc::clone(self), name: Some(name), file: File::from(fd) })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(fault("write in the folder", &self.path, errno)),
        }
    }

    /// Makes the file `name` and locks it; `None`: another process has it locked. The kernel lets go of the lock
    /// with the last descriptor, so that nothing is left of a process that was killed.
    pub(super) fn lock_file(&self, name: &str) -> Result<Option<File>> {
        let path = self.path.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, FILE_MODE))
            .map_err(|errno| fault("open", &path, errno))?;
        match retry_on_intr(|| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(Some(File::from(fd))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(fault("lock", &path, errno)),
        }
    }

    fn stat(&self, name: &str) -> Result<Option<rustix::fs::Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(fault("look at", &self.path.join(name), errno)),
        }
    }

    fn is_link(&self, name: &str) -> Result<bool> {
        Ok(self.stat(name)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink))
    }
}

/// A file that is being written under a name that nobody looks at. Dropped, it is removed.
pub(super) struct Partial {
    folder: Arc<Folder>,
    /// `None` once it has its own name or is gone.
    name: Option<String>,
    file: File,
}

impl Partial {
    pub(super) fn write_all(&mut self, bytes: &[u8], target: &str) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| fault_io("write", &self.folder.path.join(target), &error))
    }

    /// Makes every later write fail.
    #[cfg(test)]
    pub(super) fn break_writes(&mut self) {
        self.file = File::open("/dev/null").unwrap();
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn sync_file(&self, target: &str) -> Result<()> {
        self.file.sync_all().map_err(|error| fault_io("sync", &self.folder.path.join(target), &error))
    }

    /// Makes it appear durably under `target`; an error when that name is taken.
    pub(super) fn publish_new(mut self, target: &str) -> Result<()> {
        self.sync_file(target)?;
        self.take_name(target)?;
        if let Err(error) = self.folder.sync() {
            // The name may or may not survive a power cut. Whoever is told "failed" must not meet the
            // object later, so it is taken back as far as the failing disk allows.
            let _ = self.folder.remove_file(target);
            return Err(error);
        }
        Ok(())
    }

    /// Makes it appear durably under `target`, in place of what has that name.
    pub(super) fn publish_over(mut self, target: &str) -> Result<()> {
        self.sync_file(target)?;
        let name = self.name.as_deref().unwrap_or_default();
        let fd = &self.folder.fd;
        rustix::fs::renameat(fd, name, fd, target)
            .map_err(|errno| fault("write", &self.folder.path.join(target), errno))?;
        self.name = None;
        self.folder.sync()
    }

    /// Makes it appear durably under `target`, in place of what has that name; `false` when nothing has. The two
    /// names are exchanged, which the kernel does only when both are there: somebody who removes the object at the
    /// same moment wins.
    pub(super) fn publish_in_place(mut self, target: &str) -> Result<bool> {
        self.sync_file(target)?;
        let name = self.name.as_deref().unwrap_or_default();
        let fd = &self.folder.fd;
        match rustix::fs::renameat_with(fd, name, fd, target, RenameFlags::EXCHANGE) {
            // Under our own name there is now what was replaced; dropping removes it.
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            // File systems without it (NFS): a moment stays in which a removal could be undone.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if !self.folder.holds(target)? {
                    return Ok(false);
                }
                self.publish_over(target)?;
                return Ok(true);
            }
            Err(errno) => return Err(fault("write", &self.folder.path.join(target), errno)),
        }
        let _ = rustix::fs::unlinkat(fd, name, AtFlags::empty());
        self.name = None;
        self.folder.sync()?;
        Ok(true)
    }

    /// Three ways, as file systems differ: a rename that replaces nothing (not on NFS), a hard link (not
    /// on FAT), and a claim on the name (everywhere, but a crash leaves the claim for `sweep`). In each
    /// the object appears whole.
    fn take_name(&mut self, target: &str) -> Result<()> {
        for way in [Self::by_rename, Self::by_link, Self::by_claim] {
            match way(self, target) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => return Err(taken(&self.folder.path.join(target))),
                // EPERM is how Linux says that a file system has no hard links.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(errno) => return Err(fault("write", &self.folder.path.join(target), errno)),
            }
        }
        Err(fault("write", &self.folder.path.join(target), Errno::OPNOTSUPP))
    }

    fn by_rename(&mut self, target: &str) -> rustix::io::Result<()> {
        let name = self.name.as_deref().unwrap_or_default();
        let fd = &self.folder.fd;
        rustix::fs::renameat_with(fd, name, fd, target, RenameFlags::NOREPLACE)?;
        self.name = None;
        Ok(())
    }

    fn by_link(&mut self, target: &str) -> rustix::io::Result<()> {
        let name = self.name.as_deref().unwrap_or_default();
        let fd = &self.folder.fd;
        rustix::fs::linkat(fd, name, fd, target, AtFlags::empty())?;
        // The object is there: a second name that cannot be removed is only a leftover.
        let _ = rustix::fs::unlinkat(fd, name, AtFlags::empty());
        self.name = None;
        Ok(())
    }

    fn by_claim(&mut self, target: &str) -> rustix::io::Result<()> {
        let name = self.name.as_deref().unwrap_or_default();
        let fd = &self.folder.fd;
        let claim = format!("{PARTIAL}claim-{target}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(fd, claim.as_str(), flags, FILE_MODE)?;
        let result = match rustix::fs::statat(fd, target, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(fd, name, fd, target),
            Err(errno) => Err(errno),
        };
        let _ = rustix::fs::unlinkat(fd, claim.as_str(), AtFlags::empty());
        result?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Best effort: what stays is never seen as an object, and `sweep` removes it.
            let _ = rustix::fs::unlinkat(&self.folder.fd, OsStr::from_bytes(name.as_bytes()), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_taking_a_name_takes_it_once() {
        type Way = fn(&mut Partial, &str) -> rustix::io::Result<()>;
        let ways: [(&str, Way); 3] =
            [("rename", Partial::by_rename), ("link", Partial::by_link), ("claim", Partial::by_claim)];
        for (word, way) in ways {
            let root = tempfile::tempdir().unwrap();
            let folder = Arc::new(Folder::open(root.path()).unwrap());
            let mut first = folder.partial().unwrap().unwrap();
            first.write_all(b"first", "object").unwrap();
            let mut second = folder.partial().unwrap().unwrap();
            second.write_all(b"second", "object").unwrap();
            assert_eq!(way(&mut first, "object"), Ok(()), "{word}");
            assert_eq!(way(&mut second, "object"), Err(Errno::EXIST), "{word}");
            drop((first, second));
            let names: Vec<_> = folder.entries().unwrap().into_iter().map(|entry| entry.name).collect();
            assert_eq!(names, ["object"], "{word}");
            let bytes = std::fs::read(root.path().join("object")).unwrap();
            assert_eq!(bytes, b"first", "{word}");
        }
    }

    #[test]
    fn a_folder_that_was_removed_meanwhile_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path()).unwrap();
        assert!(folder.make_child("a").unwrap());
        let child = Arc::new(folder.child("a").unwrap().unwrap());
        assert!(folder.remove_empty("a").unwrap());
        assert!(child.partial().unwrap().is_none());
        assert!(!child.make_child("b").unwrap());
    }
}
