//! `init`: what a project needs, never over something that is there.

use std::io::Write;
use std::path::{Path, PathBuf};

use ripcord::keys::MasterKey;
use ripcord::migration::source;
use ripcord::ops::report::Outcome;
use ripcord::{Error, Result};
use serde_json::json;

use crate::app::Exit;
use crate::args::Global;
use crate::config::DEFAULT_FILE;
use crate::render::Renderer;

/// Out of the store, and out of the repository.
const KEY_FILE: &str = ".ripcord/key";

const IGNORED: [&str; 4] = ["/.ripcord/", "/backups/", "/logs/", ".env"];

/// Sets up the current folder.
pub fn run(out: &Renderer, global: &Global) -> Result<Exit> {
    let mut work = Work::default();
    let file = global.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    // Paths in the file start from its folder: one elsewhere would name a key that is not there.
    if file.components().count() != 1 {
        return Err(Error::usage(format!("`{}` is not in the current folder, which `init` sets up", file.display()))
            .hint("change into the folder and run `ripcord init` there"));
    }
    let key_in_environment = std::env::var_os("BACKUP_ENCRYPTION_KEY").is_some_and(|key| !key.is_empty());

    let migrations = migrations_dir(&mut work, out, global)?;
    let store = global.store.clone().unwrap_or_else(|| "backups".to_owned());
    let text = configuration(&migrations, &store, key_in_environment);
    work.create(&file, text.as_bytes())?;
    if key_in_environment {
        out.note("BACKUP_ENCRYPTION_KEY is set; no key file is made");
    } else {
        key(&mut work)?;
    }
    ignore(&mut work)?;

    for (path, what) in &work.done {
        out.data(&format!("{what} {}", path.display()));
    }
    if let Some(id) = &work.key_id {
        out.say(&format!("note: the key's public name is `{id}`"));
        for line in super::key::advice(Path::new(KEY_FILE)) {
            out.say(&line);
        }
    }
    out.say("");
    out.say("hint: ripcord doctor");
    let items: Vec<_> =
        work.done.iter().map(|(path, what)| json!({ "file": path.display().to_string(), "done": what })).collect();
    out.items("init", Outcome::Done, &items);
    Ok(Exit::DONE)
}

#[derive(Default)]
struct Work {
    done: Vec<(PathBuf, &'static str)>,
    key_id: Option<String>,
}

impl Work {
    /// Writes a file unless there is one.
    fn create(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.done.push((path.to_path_buf(), "kept"));
                return Ok(());
            }
            Err(error) => return Err(cannot_write(path, error)),
        };
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| cannot_write(path, error))?;
        self.done.push((path.to_path_buf(), "created"));
        Ok(())
    }
}

fn cannot_write(path: &Path, error: std::io::Error) -> Error {
    Error::failed(format!("`{}` cannot be written", path.display())).because(error)
}

/// The folder that is there already, whatever it is called, else a new `migrations`.
fn migrations_dir(work: &mut Work, out: &Renderer, global: &Global) -> Result<PathBuf> {
    let folder = match &global.migrations_dir {
        Some(folder) => folder.clone(),
        None => source::find(Path::new(".")).unwrap_or_else(|error| {
            let usual = PathBuf::from("migrations");
            // None found is what `init` is for; several found is something to look at.
            if usual.is_dir() {
                out.warn(&format!("{}; ripcord.toml names `migrations`", error.message()));
            }
            usual
        }),
    };
    let folder = folder.strip_prefix(".").map(Path::to_path_buf).unwrap_or(folder);
    if folder.is_dir() {
        work.done.push((folder.clone(), "kept"));
    } else {
        std::fs::create_dir_all(&folder).map_err(|error| cannot_write(&folder, error))?;
        work.done.push((folder.clone(), "created"));
    }
    Ok(folder)
}

fn key(work: &mut Work) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;

    let path = Path::new(KEY_FILE);
    if path.exists() {
        work.done.push((path.to_path_buf(), "kept"));
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| cannot_write(folder, error))?;
    }
    let key = MasterKey::generate();
    crate::config::key::write_file(path, &key.to_hex())?;
    work.key_id = Some(key.id().to_string());
    work.done.push((path.to_path_buf(), "created"));
    Ok(())
}

/// Appends the lines of `.gitignore` that are missing.
fn ignore(work: &mut Work) -> Result<()> {
    let path = PathBuf::from(".gitignore");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(cannot_write(&path, error)),
    };
    let addition = missing_lines(&text);
    if addition.is_empty() {
        work.done.push((path, "kept"));
        return Ok(());
    }
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(addition.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| cannot_write(&path, error))?;
    let what = if text.is_empty() { "created" } else { "extended" };
    work.done.push((path, what));
    Ok(())
}

fn missing_lines(text: &str) -> String {
    let bare = |line: &str| line.trim().trim_matches('/').to_owned();
    let there: Vec<String> = text.lines().map(bare).collect();
    let missing: Vec<&str> = IGNORED.into_iter().filter(|line| !there.contains(&bare(line))).collect();
    if missing.is_empty() {
        return String::new();
    }
    let start = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{start}{}\n", missing.join("\n"))
}

fn configuration(migrations: &Path, store: &str, key_in_environment: bool) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let key = if key_in_environment {
        "env = \"BACKUP_ENCRYPTION_KEY\"".to_owned()
    } else {
        format!("file = \"{KEY_FILE}\"")
    };
    format!(
        "# ripcord's settings. `ripcord config` prints what is in effect and where it came from.\n\
         # The database's URL belongs into DATABASE_URL, not here.\n\
         \n\
         migrations_dir = {}\n\
         store = {}\n\
         \n\
         [key]\n\
         {key}\n\
         \n\
         [retention]\n\
         keep_last = 10\n\
         keep_within = \"7d\"\n\
         \n\
         # [[health]]\n\
         # url = \"http://localhost:3000/api/health\"\n\
         # expect_status = [200]\n\
         \n\
         [environments.production]\n\
         protected = true\n\
         approval = true\n",
        quoted(&migrations.display().to_string()),
        quoted(store),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_lines_are_added() {
        assert_eq!(missing_lines(""), "/.ripcord/\n/backups/\n/logs/\n.env\n");
        assert_eq!(missing_lines("target\nbackups\n/logs\n.env"), "\n/.ripcord/\n");
        assert_eq!(missing_lines("/.ripcord/\n/backups/\n/logs/\n.env\n"), "");
    }

    #[test]
    fn the_configuration_is_one_that_is_read() {
        for in_environment in [true, false] {
            let text = configuration(Path::new("db/mig\"rations"), "s3://bucket/prefix", in_environment);
            let file = crate::config::file::File::parse(Path::new("ripcord.toml"), text).unwrap();
            assert_eq!(file.section.migrations_dir.as_deref(), Some(Path::new("db/mig\"rations")));
            assert_eq!(file.section.store.as_deref(), Some("s3://bucket/prefix"));
        }
    }
}
