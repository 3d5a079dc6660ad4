//! The log file of the day, `migration_YYYYMMDD.log`, appended to.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use ripcord::{Error, Result, clock};

/// An open log file.
pub struct Log {
    file: Mutex<File>,
}

impl Log {
    /// Opens today's file in `folder`, making the folder when it is missing.
    pub fn open(folder: &Path) -> Result<Log> {
        let path = folder.join(format!("migration_{}.log", clock::now().format("%Y%m%d")));
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::OpenOptions::new().append(true).create(true).mode(0o640).open(&path))
            .map(|file| Log { file: Mutex::new(file) })
            .map_err(|error| {
                Error::usage(format!("the log file `{}` cannot be written", path.display())).because(error)
            })
    }

    /// Appends lines, each with the time. A full disk must not stop a recovery: errors are dropped.
    pub fn write(&self, text: &str) {
        let now = clock::now().format("%Y-%m-%dT%H:%M:%S%.3fZ");
        let mut lines = String::new();
        for line in text.lines() {
            lines.push_str(&format!("{now} {line}\n"));
        }
        let mut file = match self.file.lock() {
            Ok(file) => file,
            Err(poisoned) => poisoned.into_inner(),
        };
        let _ = file.write_all(lines.as_bytes());
    }
}
