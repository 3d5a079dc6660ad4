//! What the file system said, in words that help.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::error::Error;

/// The error for an `action` ("write", "sync", "remove") on `path`.
pub(super) fn fault(action: &str, path: &Path, errno: Errno) -> Error {
    let shown = path.display();
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            let error = Error::failed(format!("the disk is full: could not {action} `{shown}`"));
            let error = match free_bytes_near(path) {
                Some((folder, free)) => error.because(format!(
                    "{free} bytes are free in `{}`{}",
                    folder.display(),
                    if errno == Errno::DQUOT { ", and the disk quota of this user is used up" } else { "" }
                )),
                None => error,
            };
            error.hint(
                "free some space there or move the store to a larger disk; \
                 `ripcord prune --dry-run` shows which backups the rules would remove",
            )
        }
        Errno::ACCESS | Errno::PERM => {
            let uid = rustix::process::geteuid().as_raw();
            Error::failed(format!("no permission to {action} `{shown}`"))
                .because(format!("this process runs as uid {uid}"))
                .hint(format!(
                    "let uid {uid} own the store's folder and everything in it (`chown -R`), \
                     or run ripcord as the user that owns it"
                ))
        }
        Errno::ROFS => {
            Error::failed(format!("could not {action} `{shown}`")).because("its file system is mounted read-only")
        }
        Errno::FBIG => Error::failed(format!("could not {action} `{shown}`"))
            .because("a limit on the size of files forbids it")
            .hint("raise the limit (`ulimit -f`), or move the store to a file system that takes larger files"),
        Errno::LOOP => symbolic_link(path),
        Errno::NOTDIR => {
            Error::failed(format!("could not {action} `{shown}`")).because("a file stands where a folder should be")
        }
        Errno::ISDIR => {
            Error::failed(format!("could not {action} `{shown}`")).because("a folder stands where a file should be")
        }
        other => Error::failed(format!("could not {action} `{shown}`")).because(io::Error::from(other)),
    }
}

/// The same for an error of the standard library.
pub(super) fn fault_io(action: &str, path: &Path, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(code) => fault(action, path, Errno::from_raw_os_error(code)),
        None => Error::failed(format!("could not {action} `{}`", path.display())).because(error),
    }
}

/// Nothing inside a store is reached through a symbolic link: it could lead a deletion elsewhere.
pub(super) fn symbolic_link(path: &Path) -> Error {
    Error::failed(format!("`{}` is a symbolic link, and links inside a store are not followed", path.display()))
        .hint("put the files themselves there, or make the store's own folder the link")
}

/// A name that is there already.
pub(super) fn taken(path: &Path) -> Error {
    Error::failed(format!("`{}` is there already", path.display()))
}

/// The free bytes at the nearest folder above `path` that exists.
fn free_bytes_near(path: &Path) -> Option<(&Path, u64)> {
    path.ancestors().skip(1).find_map(|folder| {
        let found = rustix::fs::statvfs(folder).ok()?;
        Some((folder, found.f_bavail.saturating_mul(found.f_frsize)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_names_folder_and_free_bytes() {
        let error = fault("write", Path::new("/tmp/no-such-folder/x"), Errno::NOSPC);
        assert_eq!(error.message(), "the disk is full: could not write `/tmp/no-such-folder/x`");
        assert!(error.causes()[0].ends_with(" bytes are free in `/tmp`"), "{error:?}");
        assert!(error.hint_text().unwrap().contains("ripcord prune"));
        let error = fault("write", Path::new("/tmp/x"), Errno::DQUOT);
        assert!(error.causes()[0].contains("quota"), "{error:?}");
    }

    #[test]
    fn no_permission_says_who_we_are() {
        let error = fault("remove", Path::new("/tmp/x"), Errno::ACCESS);
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(error.message(), "no permission to remove `/tmp/x`");
        assert_eq!(error.causes(), [format!("this process runs as uid {uid}")]);
        assert!(error.hint_text().unwrap().contains(&format!("uid {uid}")));
    }

    #[test]
    fn every_other_error_names_the_path() {
        for errno in [Errno::ROFS, Errno::LOOP, Errno::NOTDIR, Errno::ISDIR, Errno::IO] {
            let text = fault("read", Path::new("/store/object"), errno).one_line();
            assert!(text.contains("`/store/object`"), "{text}");
        }
    }
}
