//! PostgreSQL's client programs, of the server's own major version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Target;
use crate::error::{Error, Result};

/// `pg_dump` and `pg_restore` of one version.
#[derive(Clone, Debug)]
pub struct Tools {
    /// pg_dump.
    pub pg_dump: PathBuf,
    /// pg_restore.
    pub pg_restore: PathBuf,
    /// What `pg_dump --version` prints.
    pub version: String,
}

/// A folder with programs that answered.
struct Found {
    folder: PathBuf,
    dump_version: String,
    dump_major: u32,
    restore_major: Option<u32>,
}

impl Tools {
    /// Finds the programs whose major version is the server's: in `extra`, on `path`, in
    /// `/usr/lib/postgresql/*/bin`, `/usr/pgsql-*/bin`, `/opt/homebrew/opt/postgresql@*/bin`,
    /// `/usr/local/pgsql/bin`. The error lists every version found and where, and what to install.
    pub fn find(server_major: u32, extra: &[PathBuf], path: Option<&str>) -> Result<Tools> {
        let found = search(extra, path);
        if let Some(fit) =
            found.iter().find(|found| found.dump_major == server_major && found.restore_major == Some(server_major))
        {
            return Ok(Tools {
                pg_dump: fit.folder.join("pg_dump"),
                pg_restore: fit.folder.join("pg_restore"),
                version: fit.dump_version.clone(),
            });
        }
        let mut error =
            Error::failed(format!("no pg_dump and pg_restore of version {server_major}, the server's, were found"));
        for found in &found {
            let folder = found.folder.display();
            error = error.because(match found.restore_major {
                Some(major) if major == found.dump_major => format!("version {major} is in `{folder}`"),
                Some(major) => format!("`{folder}` has pg_dump {} and pg_restore {major}", found.dump_major),
                None => format!("`{folder}` has pg_dump {} and no pg_restore", found.dump_major),
            });
        }
        Err(error.hint(format!(
            "install the package `postgresql-client-{server_major}`, or name the folder of its programs as `pg_bin`"
        )))
    }

    /// All that are installed: major version, folder.
    pub fn installed(extra: &[PathBuf], path: Option<&str>) -> Vec<(u32, PathBuf)> {
        search(extra, path).into_iter().map(|found| (found.dump_major, found.folder)).collect()
    }

    /// The major version of the programs.
    pub fn major(&self) -> u32 {
        major(&self.version).unwrap_or(0)
    }
}

/// A client program that will connect to the target: its environment holds what the connection needs and
/// nothing of ours, its messages are in English, its settings fixed. It reads nothing from our terminal.
pub(super) fn client(program: &Path, target: &Target, settings: &[(&str, &str)]) -> Command {
    let mut command = plain(program);
    command.envs(target.child_environment()).env("PGOPTIONS", target.child_options(settings));
    command
}

/// A client program that connects to nothing.
pub(super) fn plain(program: &Path) -> Command {
    let mut command = Command::new(program);
    // PATH is for Debian's wrapper, a script.
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn search(extra: &[PathBuf], path: Option<&str>) -> Vec<Found> {
    let mut folders: Vec<PathBuf> = extra.to_vec();
    let mut wrappers = Vec::new();
    for folder in path.unwrap_or_default().split(':').filter(|folder| folder.starts_with('/')).map(PathBuf::from) {
        // Debian's pg_dump on the path chooses a version by itself: better to name one.
        let real = folder.join("pg_dump").canonicalize().unwrap_or_default();
        if real.ends_with("pg_wrapper") {
            wrappers.push(folder);
        } else {
            folders.push(folder);
        }
    }
    folders.extend(versioned("/usr/lib/postgresql", "", "bin"));
    folders.extend(versioned("/usr", "pgsql-", "bin"));
    folders.extend(versioned("/opt/homebrew/opt", "postgresql@", "bin"));
    folders.push(PathBuf::from("/usr/local/pgsql/bin"));
    folders.extend(wrappers);

    let mut seen = BTreeSet::new();
    folders
        .into_iter()
        .filter(|folder| folder.canonicalize().is_ok_and(|real| seen.insert(real)))
        .filter_map(|folder| {
            let dump_version = version(&folder.join("pg_dump"))?;
            let dump_major = major(&dump_version)?;
            let restore_major = version(&folder.join("pg_restore")).as_deref().and_then(major);
            Some(Found { folder, dump_version, dump_major, restore_major })
        })
        .collect()
}

/// `<parent>/<prefix>*/<below>`, the highest version first.
fn versioned(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((number, entry.path().join(below)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

fn version(program: &Path) -> Option<String> {
    let output = plain(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// The major version in what `--version` prints, such as `pg_dump (PostgreSQL) 15.18 (Debian 15.18-1)`.
pub(crate) fn major(text: &str) -> Option<u32> {
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn majors() {
        for (text, expected) in [
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("pg_dump (PostgreSQL) 16beta1", Some(16)),
            ("pg_restore (PostgreSQL) 18devel", Some(18)),
            ("pg_dump (EnterpriseDB) 17.2.0", Some(17)),
            ("pg_dump (PostgreSQL) 9.6.24", Some(9)),
            ("pg_dump", None),
        ] {
            assert_eq!(major(text), expected, "{text}");
        }
    }

    fn fake(folder: &Path, program: &str, version: &str) {
        let path = folder.join(program);
        std::fs::write(&path, format!("#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn both_programs_must_be_of_the_servers_version() {
        let folder = tempfile::tempdir().unwrap();
        fake(folder.path(), "pg_dump", "77.1");
        fake(folder.path(), "pg_restore", "76.4");
        let extra = [folder.path().to_owned()];
        let error = Tools::find(77, &extra, None).unwrap_err();
        assert!(error.message().contains("version 77"), "{error}");
        assert!(error.causes().iter().any(|cause| cause.contains("pg_dump 77 and pg_restore 76")), "{error}");
        assert!(error.hint_text().unwrap().contains("postgresql-client-77"));
        fake(folder.path(), "pg_restore", "77.0");
        let tools = Tools::find(77, &extra, None).unwrap();
        assert_eq!(tools.pg_dump, folder.path().join("pg_dump"));
        assert_eq!((tools.version.as_str(), tools.major()), ("pg_dump (PostgreSQL) 77.1", 77));
        assert!(Tools::find(77, &[], folder.path().to_str()).is_ok());
        assert!(Tools::installed(&extra, None).contains(&(77, folder.path().to_owned())));
    }
}
