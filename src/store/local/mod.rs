//! A folder of the local file system: files 0600, folders 0700, everything synced.
//!
//! An object is written under a name that begins with `.partial-`, synced, given its own name in one
//! step, and the folder is synced; only then does the call return. Removing syncs the folder too:
//! otherwise a deleted manifest could come back after a power cut, without its streams.

mod faults;
mod folder;
mod mounts;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use self::faults::{fault, fault_io, taken};
use self::folder::{EntryKind, Folder, PARTIAL, Partial};
use super::{ObjectMeta, ObjectWriter, Objects};
use crate::error::{Error, Result};
use crate::io::ReadAt;

/// Writes are gathered to pieces of this many bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// After this many bytes the disk is asked to begin with them.
const WRITE_OUT_BYTES: u64 = 8 << 20;

/// How often a write is begun anew when another process removes the empty folder under it.
const ATTEMPTS: u32 = 32;

/// Opens (and creates, when missing) a folder as a store.
pub fn open(root: &Path) -> Result<Box<dyn Objects>> {
    Ok(Box::new(Local::open(root)?))
}

/// A folder as a store. The folder itself may be reached through a symbolic link; links inside it are
/// not followed.
pub struct Local {
    root: PathBuf,
    /// Whether the folder was seen: one that goes away later is an error, and not an empty store.
    seen: AtomicBool,
    /// Folders whose own names are known to be durable, so that each is synced once a process.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Local {
    /// Opens a folder as a store; one that is missing is made by the first write, since looking must not
    /// leave anything behind. One that exists is taken with the permissions that it has; see
    /// [`Objects::loose_permissions`].
    pub fn open(root: &Path) -> Result<Local> {
        let root = std::path::absolute(root).map_err(|error| fault_io("find", root, &error))?;
        let seen = match root.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            _ => {
                Folder::open(&root)?;
                true
            }
        };
        Ok(Local { seen: AtomicBool::new(seen), root, durable: Mutex::new(HashSet::new()) })
    }

    /// The folder at `parts`, made where it is missing, with durable names all the way.
    /// `None`: another process removed one of them meanwhile.
    fn folder_for_writing(&self, parts: &[&str]) -> Result<Option<Folder>> {
        if !self.seen.load(Ordering::Relaxed) {
            create_root(&self.root)?;
            self.seen.store(true, Ordering::Relaxed);
        }
        let mut folder = Folder::open(&self.root)?;
        for part in parts {
            let child = match folder.child(part)? {
                Some(child) => child,
                None => {
                    if !folder.make_child(part)? {
                        return Ok(None);
                    }
                    self.durable().remove(&folder.path().join(part));
                    match folder.child(part)? {
                        Some(child) => child,
                        None => return Ok(None),
                    }
                }
            };
            // Also where another process made it: that one may have died before it synced.
            if !self.durable().contains(child.path()) {
                folder.sync()?;
                self.durable().insert(child.path().to_owned());
            }
            folder = child;
        }
        Ok(Some(folder))
    }

    /// The folder at `parts`; `None`: there is none.
    fn folder_for_reading(&self, parts: &[&str]) -> Result<Option<Folder>> {
        if !self.seen.load(Ordering::Relaxed) {
            match self.root.symlink_metadata() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                // Another process has made it meanwhile.
                _ => self.seen.store(true, Ordering::Relaxed),
            }
        }
        let mut folder = Folder::open(&self.root)?;
        for part in parts {
            match folder.child(part)? {
                Some(child) => folder = child,
                None => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    fn begin_partial(&self, parts: &[&str]) -> Result<(Arc<Folder>, Partial)> {
        for _ in 0..ATTEMPTS {
            if let Some(folder) = self.folder_for_writing(parts)? {
                let folder = Arc::new(folder);
                if let Some(partial) = folder.partial()? {
                    return Ok((folder, partial));
                }
            }
            // What was known of folders that come and go is no longer sure.
            self.durable().clear();
        }
        Err(Error::failed(format!(
            "the folder `{}` vanishes as often as it is made",
            self.root.join(parts.join("/")).display()
        )))
    }

    /// Removes the folder at `parts` and those above it as long as they are empty, never the root.
    fn remove_empty_folders(&self, parts: &[&str]) -> Result<()> {
        let mut parts = parts;
        while let [above @ .., last] = parts {
            if let Some(parent) = self.folder_for_reading(above)? {
                let path = parent.path().join(last);
                if parent.remove_empty(last)? {
                    self.durable().remove(&path);
                    parent.sync()?;
                } else if parent.holds(last)? {
                    return Ok(());
                }
            }
            parts = above;
        }
        Ok(())
    }

    fn open_object(&self, path: &str) -> Result<Option<(File, PathBuf)>> {
        let (parts, name) = split(path)?;
        let Some(folder) = self.folder_for_reading(&parts)? else {
            return Ok(None);
        };
        let file = folder.open_file(name)?;
        Ok(file.map(|file| (file, folder.path().join(name))))
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects for Local {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn create(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (parts, name) = split(path)?;
        let (folder, mut partial) = self.begin_partial(&parts)?;
        if folder.holds(name)? {
            return Err(taken(&folder.path().join(name)));
        }
        partial.write_all(bytes, name)?;
        partial.publish_new(name)
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let (parts, name) = split(path)?;
        let (_, mut partial) = self.begin_partial(&parts)?;
        partial.write_all(bytes, name)?;
        partial.publish_over(name)
    }

    fn replace_existing(&self, path: &str, bytes: &[u8]) -> Result<bool> {
        let (parts, name) = split(path)?;
        // Not `begin_partial`: it would make the folder of a backup that was just removed anew.
        let Some(folder) = self.folder_for_reading(&parts)? else {
            return Ok(false);
        };
        let folder = Arc::new(folder);
        if !folder.holds(name)? {
            return Ok(false);
        }
        let Some(mut partial) = folder.partial()? else {
            return Ok(false);
        };
        partial.write_all(bytes, name)?;
        partial.publish_in_place(name)
    }

    fn hold(&self, name: &str) -> Result<Option<Box<dyn Send>>> {
        let (parts, name) = split(name)?;
        let Some(folder) = self.folder_for_writing(&parts)? else {
            return Ok(None);
        };
        Ok(folder.lock_file(name)?.map(|file| Box::new(file) as Box<dyn Send>))
    }

    fn begin(&self, path: &str) -> Result<Box<dyn ObjectWriter>> {
        let (parts, name) = split(path)?;
        let (folder, partial) = self.begin_partial(&parts)?;
        if folder.holds(name)? {
            return Err(taken(&folder.path().join(name)));
        }
        Ok(Box::new(Writer {
            name: name.to_owned(),
            partial,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            on_its_way: 0,
            failure: None,
        }))
    }

    fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, shown)) = self.open_object(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(max_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| fault_io("read", &shown, &error))?;
        if bytes.len() as u64 > max_bytes {
            return Err(Error::failed(format!("`{}` is larger than {max_bytes} bytes", shown.display())));
        }
        Ok(Some(bytes))
    }

    fn open(&self, path: &str) -> Result<Option<Arc<dyn ReadAt>>> {
        let Some((file, shown)) = self.open_object(path)? else {
            return Ok(None);
        };
        let length = file.metadata().map_err(|error| fault_io("look at", &shown, &error))?.len();
        Ok(Some(Arc::new(Reader { file, path: shown, length })))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let parts = split_prefix(prefix)?;
        let mut found = Vec::new();
        if let Some(folder) = self.folder_for_reading(&parts)? {
            collect(&folder, &parts.join("/"), &mut found)?;
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let parts = split_prefix(prefix)?;
        let Some(folder) = self.folder_for_reading(&parts)? else {
            return Ok(Vec::new());
        };
        // A link is named too: whoever goes on into it gets an error, instead of missing what is there.
        Ok(folder
            .entries()?
            .into_iter()
            .filter(|entry| match entry.kind {
                EntryKind::Folder => true,
                EntryKind::Link => folder.path().join(&entry.name).is_dir(),
                EntryKind::Other => false,
            })
            .map(|entry| entry.name)
            .collect())
    }

    fn delete(&self, path: &str) -> Result<()> {
        let (parts, name) = split(path)?;
        if let Some(folder) = self.folder_for_reading(&parts)? {
            folder.remove_file(name)?;
            // Also when it was gone: an earlier removal may have been cut short before its sync.
            folder.sync()?;
        }
        self.remove_empty_folders(&parts)
    }

    /// Removes every unfinished write below `prefix`, also one that another process is still at: it
    /// is the caller who knows, by the lock, that nobody writes there.
    fn sweep(&self, prefix: &str) -> Result<()> {
        let parts = split_prefix(prefix)?;
        let Some(folder) = self.folder_for_reading(&parts)? else {
            return Ok(());
        };
        sweep_folder(&folder)?;
        self.durable().clear();
        drop(folder);
        self.remove_empty_folders(&parts)
    }

    fn sweep_here(&self, folder: &str) -> Result<()> {
        let parts = split_prefix(folder)?;
        let Some(folder) = self.folder_for_reading(&parts)? else {
            return Ok(());
        };
        let mut removed = false;
        for entry in folder.entries()? {
            if entry.kind != EntryKind::Folder && entry.name.starts_with(PARTIAL) {
                removed |= folder.remove_file(&entry.name)?;
            }
        }
        if removed { folder.sync() } else { Ok(()) }
    }

    fn drop_cache(&self, path: &str) -> Result<()> {
        let Some((file, shown)) = self.open_object(path)? else {
            return Err(Error::failed(format!("`{}` is not there", self.root.join(path).display())));
        };
        // Pages that are not yet written are never dropped, hence the sync before.
        file.sync_all().map_err(|error| fault_io("sync", &shown, &error))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|errno| fault("drop from the cache", &shown, errno))
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let found =
            rustix::fs::statvfs(&self.root).map_err(|errno| fault("ask for the free space of", &self.root, errno))?;
        // Blocks that anyone may use; those kept back for root are left out.
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    fn ephemeral(&self) -> Option<String> {
        mounts::ephemeral(&self.root)
    }

    fn loose_permissions(&self) -> Option<String> {
        let mode = std::fs::metadata(&self.root).ok()?.mode() & 0o777;
        (mode & 0o077 != 0).then(|| {
            format!("`{}` can be entered by other users (mode {mode:04o}): `chmod 700` it", self.root.display())
        })
    }

    fn check_writable(&self) -> Result<()> {
        let (folder, mut partial) = self.begin_partial(&[])?;
        let bytes: [u8; 32] = rand::random();
        let name = "check";
        partial.write_all(&bytes, name)?;
        partial.sync_file(name)?;
        let mut back = [0; 32];
        partial.file().read_exact_at(&mut back, 0).map_err(|error| fault_io("read back", folder.path(), &error))?;
        if back != bytes {
            return Err(Error::failed(format!(
                "`{}` does not give back what was written to it",
                folder.path().display()
            )));
        }
        drop(partial);
        folder.sync()
    }
}

/// An object that is being written.
struct Writer {
    name: String,
    partial: Partial,
    buffer: Vec<u8>,
    /// Bytes written, and those of them that the disk was asked to begin with.
    written: u64,
    on_its_way: u64,
    /// The first failure: after it nothing of the object can be believed.
    failure: Option<Error>,
}

impl Writer {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.partial.write_all(bytes, &self.name).map_err(|error| {
            self.failure = Some(error.clone());
            io::Error::other(error)
        })?;
        self.written += bytes.len() as u64;
        self.begin_writing_out();
        Ok(())
    }

    /// Lets the disk work while the dump still runs, so that the sync at the end waits for little. On Linux
    /// this advice begins to write the pages out (`mm/fadvise.c`); elsewhere, or when it fails, the sync
    /// takes longer and is as sure.
    fn begin_writing_out(&mut self) {
        let waiting = self.written - self.on_its_way;
        if let Some(length) = std::num::NonZeroU64::new(waiting).filter(|_| waiting >= WRITE_OUT_BYTES) {
            let advice = rustix::fs::Advice::DontNeed;
            let _ = rustix::fs::fadvise(self.partial.file(), self.on_its_way, Some(length), advice);
            self.on_its_way = self.written;
        }
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let sent = self.send(&buffer);
        buffer.clear();
        self.buffer = buffer;
        sent
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.send_buffer()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.send(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.failure {
            Some(failure) => Err(io::Error::other(failure.clone())),
            None => self.send_buffer(),
        }
    }
}

impl ObjectWriter for Writer {
    fn finish(mut self: Box<Self>) -> Result<()> {
        // A failure is kept in its own words, which an `io::Error` would flatten.
        let flushed = self.flush();
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        flushed.map_err(|error| Error::failed(format!("could not write `{}`", self.name)).because(error))?;
        let Writer { name, partial, .. } = *self;
        partial.publish_new(&name)
    }
}

/// A finished object.
struct Reader {
    file: File,
    path: PathBuf,
    length: u64,
}

impl ReadAt for Reader {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(io::Error::new(error.kind(), fault_io("read", &self.path, &error)));
                }
            }
        }
        Ok(done)
    }

    fn len_bytes(&self) -> u64 {
        self.length
    }
}

/// Creates a store's folder and those above it, each with a durable name.
fn create_root(root: &Path) -> Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    if let Some(parent) = root.parent() {
        create_root(parent)?;
        match std::fs::DirBuilder::new().mode(0o700).create(root) {
            Ok(()) => {}
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && root.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(fault("use as a store", root, rustix::io::Errno::NOTDIR));
            }
            Err(error) => return Err(fault_io("create the folder", root, &error)),
        }
        Folder::open(parent)?.sync()?;
    }
    Ok(())
}

fn collect(folder: &Folder, prefix: &str, found: &mut Vec<ObjectMeta>) -> Result<()> {
    for entry in folder.entries()? {
        let path = if prefix.is_empty() { entry.name.clone() } else { format!("{prefix}/{}", entry.name) };
        if entry.kind == EntryKind::Folder {
            if let Some(child) = folder.child(&entry.name)? {
                collect(&child, &path, found)?;
            }
        } else if !entry.name.starts_with(PARTIAL) {
            found.push(ObjectMeta { path, size_bytes: entry.size_bytes });
        }
    }
    Ok(())
}

fn sweep_folder(folder: &Folder) -> Result<()> {
    let mut removed = false;
    for entry in folder.entries()? {
        if entry.kind == EntryKind::Folder {
            if let Some(child) = folder.child(&entry.name)? {
                sweep_folder(&child)?;
            }
            removed |= folder.remove_empty(&entry.name)?;
        } else if entry.name.starts_with(PARTIAL) {
            removed |= folder.remove_file(&entry.name)?;
        }
    }
    if removed { folder.sync() } else { Ok(()) }
}

/// A path's folders and its name.
fn split(path: &str) -> Result<(Vec<&str>, &str)> {
    let mut parts = split_prefix(path)?;
    match parts.pop() {
        Some(name) => Ok((parts, name)),
        None => Err(Error::failed("an object in a store needs a name")),
    }
}

/// The folders of a prefix; `""` is the store itself.
fn split_prefix(prefix: &str) -> Result<Vec<&str>> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() {
        return Ok(Vec::new());
    }
    prefix
        .split('/')
        .map(|part| match part {
            "" | "." | ".." => Err(()),
            part if part.contains('\0') || part.starts_with(PARTIAL) => Err(()),
            part => Ok(part),
        })
        .collect::<Result<_, ()>>()
        .map_err(|()| Error::failed(format!("`{prefix}` is no path inside a store")))
}

#[cfg(test)]
mod tests;
