//! Processes that go on while a round does something, and what they leave.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::cli::{Ran, ran};

/// How long anything may take before the round fails.
const LIMIT: Duration = Duration::from_secs(180);

#[track_caller]
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Objects that were never finished, but for marks and keys handed over, which say nothing to anyone then.
pub fn partials(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let shown = path.display().to_string();
        if path.is_dir() {
            partials(&path, found);
        } else if shown.contains("/.partial-") && !shown.contains("/marks/") && !shown.contains("/keys/") {
            found.push(path);
        }
    }
}

/// Processes that were begun in a folder.
pub fn processes_in(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
        .map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default())
        .filter(|command| !command.is_empty())
        .collect()
}

/// A process whose output goes to files, so that it never waits for us.
pub struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    pub fn spawn(folder: &Path, mut command: Command) -> Running {
        let output = folder.join(format!("output-{}", uuid::Uuid::now_v7().simple()));
        let file = |end: &str| std::fs::File::create(output.with_extension(end)).unwrap();
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        Running { child: command.spawn().unwrap(), output }
    }

    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&mut self, signal: &str) {
        if self.lives() {
            let _ = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        }
    }

    /// Waits until it is at the point for the n-th time; false when it ended before.
    pub fn comes_to(&mut self, flag: &Path, nth: u64) -> bool {
        let deadline = Instant::now() + LIMIT;
        for turn in 1..=nth {
            while !flag.exists() {
                assert!(Instant::now() < deadline, "it neither ends nor comes to the point");
                if !self.lives() {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            if turn < nth {
                std::fs::remove_file(flag).unwrap();
            }
        }
        true
    }

    pub fn finish(self) -> Ran {
        self.finish_past(Path::new(""))
    }

    /// Waits for its end, and lets it go on wherever it is held.
    pub fn finish_past(mut self, flag: &Path) -> Ran {
        let deadline = Instant::now() + LIMIT;
        while self.lives() {
            let _ = std::fs::remove_file(flag);
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("it does not end: {}", std::fs::read_to_string(self.output.with_extension("err")).unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = self.child.wait().unwrap();
        let read = |end: &str| std::fs::read(self.output.with_extension(end)).unwrap();
        ran(std::process::Output { status, stdout: read("out"), stderr: read("err") })
    }
}
