//! The built binary, run in a project folder of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Db;

/// A folder with migrations, a key, a store and a configuration.
pub struct Project {
    folder: tempfile::TempDir,
    url: String,
    environment: Vec<(String, String)>,
}

/// What a run of the binary gave.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The result object of `--json`.
    pub fn result(&self) -> serde_json::Value {
        let line = self.stdout.lines().last().unwrap_or_else(|| panic!("no output: {self:#?}"));
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {self:#?}"));
        assert_eq!(value["event"], "result", "{self:#?}");
        value
    }

    /// The events of `--json`, in order, each as `step_began backup` or `migration_finished 001`.
    pub fn events(&self) -> Vec<String> {
        self.stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|value| {
                let event = value["event"].as_str()?;
                let subject = value["step"].as_str().or(value["version"].as_str()).unwrap_or("");
                matches!(event, "step_began" | "step_finished" | "migration_began" | "migration_finished")
                    .then(|| format!("{event} {subject}").trim_end().to_owned())
            })
            .collect()
    }

    /// Panics with everything said when the exit code is another.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ran {
        assert_eq!(
            self.code, code,
            "exit code {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.stdout, self.stderr
        );
        self
    }
}

/// The key of every project of the tests.
pub const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

impl Project {
    /// An empty project for a database.
    pub fn new(db: &Db<'_>) -> Project {
        Project::with_url(&db.url())
    }

    /// An empty project for any URL.
    pub fn with_url(url: &str) -> Project {
        // Where /tmp is in memory, a store in it is one that a protected environment refuses.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir(folder.path().join("migrations")).unwrap();
        let project = Project { folder, url: url.to_owned(), environment: Vec::new() };
        project.write(
            "ripcord.toml",
            "[environments.test]\nprotected = false\napproval = false\nallow_skip_backup = true\n",
        );
        project
    }

    /// For a static, which is never dropped: another process removes the folder when this one has ended.
    pub fn going_with_the_process(self) -> Project {
        let janitor = Command::new("/bin/sh")
            .args(["-c", "cat > /dev/null; rm -rf \"$1\"", "janitor"])
            .arg(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C reaches the test process; this one must outlive it.
            .process_group(0)
            .spawn()
            .unwrap();
        std::mem::forget(janitor);
        self
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    /// Writes a file below the folder.
    pub fn write(&self, name: &str, text: &str) -> &Project {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Adds lines to `ripcord.toml`.
    pub fn configure(&self, text: &str) -> &Project {
        let path = self.folder.path().join("ripcord.toml");
        let before = std::fs::read_to_string(&path).unwrap();
        // Top-level keys must stand before the first table.
        std::fs::write(
            path,
            if text.trim_start().starts_with('[') {
                format!("{before}\n{text}\n")
            } else {
                format!("{text}\n{before}")
            },
        )
        .unwrap();
        self
    }

    /// Writes a migration with UP and DOWN.
    pub fn migration(&self, file: &str, up: &str, down: &str) -> &Project {
        self.write(&format!("migrations/{file}"), &format!("-- UP\n{up}\n\n-- DOWN\n{down}\n"))
    }

    /// Sets a variable for every run.
    pub fn env(mut self, name: &str, value: &str) -> Project {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The binary with the environment set, not yet started. The environment is `test`, which is unprotected.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ripcord"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("DATABASE_URL", &self.url)
            .env("BACKUP_ENCRYPTION_KEY", KEY)
            .env("RIPCORD_ENV", "test")
            .stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments).output().expect("the binary starts"))
    }

    /// Runs it with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Ran {
        let mut all = vec!["--json"];
        all.extend(arguments);
        self.run(&all)
    }
}

/// What a finished process gave.
pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command under a parent that tells its peak of memory (resident, in bytes; its children's, when
/// theirs is higher). The parent is Python: the standard library of Rust has no `wait4`.
pub fn peak_memory(command: &Command) -> (Ran, u64) {
    const PARENT: &str = "import os, resource, subprocess, sys\n\
        code = subprocess.call(sys.argv[2:])\n\
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024\n\
        open(sys.argv[1], 'w').write(str(peak))\n\
        os._exit(code if code >= 0 else 1)";
    let told = tempfile::NamedTempFile::new().unwrap();
    let mut parent = Command::new("python3");
    parent.args(["-c", PARENT]).arg(told.path()).arg(command.get_program()).args(command.get_args());
    parent.env_clear().current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        parent.env(name, value.unwrap());
    }
    let ran = ran(parent.output().expect("python3 starts"));
    let peak = std::fs::read_to_string(told.path()).unwrap().parse().unwrap_or_else(|_| panic!("{ran:#?}"));
    (ran, peak)
}

impl Ran {
    /// The end of what was said: the state of the database, and after a blank line the hint, each by a part of it.
    #[track_caller]
    pub fn expect_end(self, database: &str, hint: &str) -> Ran {
        let at = self.stderr.rfind("database: ").unwrap_or_else(|| panic!("no state of the database: {self:#?}"));
        let (state, rest) = self.stderr[at..].split_once("\n\n").unwrap_or((&self.stderr[at..], ""));
        assert!(state.contains(database), "not `{database}` in: {state}\n{self:#?}");
        if hint.is_empty() {
            assert_eq!(rest, "", "{self:#?}");
        } else {
            assert!(rest.starts_with("hint: ") && rest.contains(hint), "not `{hint}` in: {rest}\n{self:#?}");
        }
        self
    }

    /// The items of a list's result.
    pub fn items(&self) -> Vec<serde_json::Value> {
        self.result()["items"].as_array().unwrap_or_else(|| panic!("no items: {self:#?}")).clone()
    }
}

impl Project {
    /// Two migrations: a table, and a hundred rows in it.
    pub fn shop(&self) -> &Project {
        self.migration("001_shop.sql", "CREATE TABLE orders (id int PRIMARY KEY, note text);", "DROP TABLE orders;")
            .migration(
                "002_fill.sql",
                "INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 100) AS g;",
                "DELETE FROM orders;",
            )
    }

    /// Takes a backup by hand and returns its id.
    #[track_caller]
    pub fn backup(&self, arguments: &[&str]) -> String {
        let mut all = vec!["backup", "create"];
        all.extend(arguments);
        self.run(&all).expect_code(0).stdout.trim().to_owned()
    }
}
