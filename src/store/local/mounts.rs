//! Whether a folder outlives the process and the machine's next start.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Why what lies below `path` is not there to stay, when that can be told.
pub(super) fn ephemeral(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    judge(&mounts, &path, in_container())
}

/// Docker and Podman leave a file, Kubernetes a variable.
fn in_container() -> bool {
    Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// `mounts` is /proc/self/mountinfo (proc_pid_mountinfo(5)); the last of several mounts on one point
/// is the one that is seen.
fn judge(mounts: &str, path: &Path, in_container: bool) -> Option<String> {
    let (_, kind) = mounts
        .lines()
        .filter_map(mount)
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())?;
    let shown = path.display();
    match kind {
        "tmpfs" | "ramfs" | "rootfs" => {
            Some(format!("`{shown}` is in memory ({kind}) and gone when the machine or the container restarts"))
        }
        // A layered file system in a container is the container's own: a volume is another mount. A root on
        // a plain disk cannot be told from a machine that merely has a container's marker files.
        kind if in_container && (kind.contains("overlay") || kind == "aufs") => Some(format!(
            "`{shown}` is in the container's own file system ({kind}) and gone when the \
                 container is replaced"
        )),
        _ => None,
    }
}

/// A line's mount point and file system type.
fn mount(line: &str) -> Option<(PathBuf, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    let kind = after.split(' ').next()?;
    Some((PathBuf::from(unescape(point)), kind))
}

/// Space, tab, line feed and backslash stand as `\` and three octal digits.
fn unescape(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match (first, tail) {
            (b'\\', [a, b, c, ..]) => [a, b, c].iter().try_fold(0_u32, |sum, digit| {
                (b'0'..=b'7').contains(*digit).then(|| sum * 8 + u32::from(**digit - b'0'))
            }),
            _ => None,
        };
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /run rw shared:3 - tmpfs tmpfs rw,mode=755
40 22 8:1 / /mnt/my\\040disk rw - xfs /dev/sda1 rw
41 22 0:40 / /over rw - ext4 /dev/sdb rw
42 22 0:41 / /over rw - tmpfs tmpfs rw
43 30 8:2 / /run/keep rw - btrfs /dev/sdc rw
";

    fn told(path: &str, in_container: bool) -> Option<String> {
        judge(MOUNTS, Path::new(path), in_container)
    }

    #[test]
    fn memory_is_told_and_disks_are_not() {
        assert_eq!(told("/var/backups", false), None);
        assert_eq!(told("/mnt/my disk/backups", false), None);
        assert_eq!(told("/run/keep/backups", false), None);
        assert_eq!(told("/running", false), None);
        assert_eq!(
            told("/run/backups", false).unwrap(),
            "`/run/backups` is in memory (tmpfs) and gone when the machine or the container restarts"
        );
        assert!(told("/over/x", false).unwrap().contains("tmpfs"));
    }

    #[test]
    fn a_containers_own_root_is_told_and_its_volumes_are_not() {
        assert_eq!(told("/var/backups", true), None, "a plain disk");
        assert_eq!(told("/mnt/my disk/backups", true), None);
        let overlay = "22 1 0:50 / / rw - overlay overlay rw,lowerdir=/a:/b\n\
                       23 22 8:1 /v /data rw - ext4 /dev/sda1 rw\n";
        let text = judge(overlay, Path::new("/app/backups"), true).unwrap();
        assert!(text.contains("the container's own file system (overlay)"), "{text}");
        assert!(judge(overlay, Path::new("/app/backups"), false).is_none());
        assert!(judge(overlay, Path::new("/data/backups"), true).is_none());
    }

    #[test]
    fn odd_lines_are_passed_over() {
        assert_eq!(judge("", Path::new("/x"), true), None);
        assert_eq!(judge("nonsense\n1 2 3 - \n - \n", Path::new("/x"), true), None);
        assert_eq!(unescape("a\\040b\\134c\\9\\77"), OsString::from("a b\\c\\9\\77"));
    }
}
