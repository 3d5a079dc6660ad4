//! Where the master key comes from, and getting it from there.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ripcord::keys::MasterKey;
use ripcord::settings::{KeySource, Settings};
use ripcord::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::file::{File, KeyTable, Section};
use super::resolver::Resolver;
use super::variables::Variables;

/// A password prompt of the command's is answered within this time, or never.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// The longest key file that is read, in bytes; 64 digits are expected.
const MAX_FILE_BYTES: u64 = 4096;

/// Variables that a key command has no need of.
const KEPT_FROM_COMMANDS: [&str; 9] = [
    "BACKUP_ENCRYPTION_KEY",
    "RIPCORD_KEY",
    "DATABASE_URL",
    "RIPCORD_DATABASE_URL",
    "DIRECT_URL",
    "PGPASSWORD",
    "SUPABASE_SERVICE_KEY",
    "SUPABASE_DB_PASSWORD",
    "SUPABASE_URL",
];

/// Finds the source. The second value says why there is none although the file names one.
pub fn resolve(
    resolver: &mut Resolver<'_>,
    variables: &Variables,
    file: Option<&File>,
    table: Option<&Section>,
) -> Result<(Option<KeySource>, Option<Error>)> {
    resolver.know(&["RIPCORD_KEY", "RIPCORD_KEY_FILE", "RIPCORD_KEY_COMMAND"]);
    // An environment's table may hold a key of its own; it then takes the whole place of the file's.
    let written =
        table.and_then(|table| table.key.as_ref()).or_else(|| file.and_then(|file| file.section.key.as_ref()));

    let names = ["RIPCORD_KEY", "RIPCORD_KEY_FILE", "RIPCORD_KEY_COMMAND", "BACKUP_ENCRYPTION_KEY"];
    if let Some((index, variable)) = variables.in_order(&names).next() {
        let text = variable.text.to_owned();
        let (shown, source) = match index {
            1 => (text.clone(), KeySource::File(text.into())),
            2 => (text.clone(), KeySource::Command(text)),
            _ => ("***".to_owned(), hex(names[index], text)),
        };
        let name = names[index];
        if name == "BACKUP_ENCRYPTION_KEY" {
            resolver.say_in_effect(name, None, "", variable.place);
        }
        resolver.record("key", shown, &format!("{name} from {}", variable.place));
        return Ok((Some(source), None));
    }

    let (Some(file), Some(written)) = (file, written) else {
        resolver.record("key", "", "default");
        return Ok((None, None));
    };
    from_table(resolver, variables, file, written)
}

/// The keys besides the main one.
#[derive(Default)]
pub struct More {
    /// Where each recovery key comes from.
    pub recovery: Vec<KeySource>,
    /// Ids of keys that are kept elsewhere.
    pub offline: Vec<String>,
    /// Why one of them is not there although the file names it: no backup is made without it.
    pub why_none: Option<Error>,
}

/// Finds them. They stand in the file alone, and in the same table as the main key.
pub fn resolve_more(
    resolver: &mut Resolver<'_>,
    variables: &Variables,
    file: Option<&File>,
    table: Option<&Section>,
) -> Result<More> {
    let mut more = More::default();
    let written =
        table.and_then(|table| table.key.as_ref()).or_else(|| file.and_then(|file| file.section.key.as_ref()));
    let (Some(file), Some(written)) = (file, written) else {
        resolver.record("key.recovery", "", "default");
        resolver.record("key.offline", "", "default");
        return Ok(more);
    };
    let mut shown = Vec::new();
    for one in &written.get_ref().recovery {
        let table = one.get_ref();
        match (&table.file, &table.env, &table.command) {
            (Some(path), None, None) => {
                shown.push(file.base.join(path).display().to_string());
                more.recovery.push(KeySource::File(file.base.join(path)));
            }
            (None, Some(name), None) => {
                shown.push("***".to_owned());
                match variables.get(name) {
                    Some(variable) => more.recovery.push(hex(name, variable.text.to_owned())),
                    None => {
                        let fact =
                            format!("`{}` names variable `{name}` for a recovery key, and it is not set", file.name);
                        more.why_none = Some(Error::usage(fact).hint(format!("set `{name}`")));
                    }
                }
            }
            (None, None, Some(command)) => {
                shown.push(command.clone());
                more.recovery.push(KeySource::Command(command.clone()));
            }
            _ => {
                let fact = "each of `recovery` in `[key]` has exactly one of `file`, `env` and `command`";
                return Err(file.wrong_at(one.span().start, fact));
            }
        }
    }
    for id in &written.get_ref().offline {
        let text = id.get_ref().to_ascii_lowercase();
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let fact =
                "a key id is 16 hexadecimal digits; `ripcord key id` prints it, the key itself does not belong here";
            return Err(file.wrong_at(id.span().start, fact));
        }
        more.offline.push(text);
    }
    let from = |there: bool| if there { file.name.clone() } else { "default".to_owned() };
    resolver.record("key.recovery", shown.join(", "), &from(!shown.is_empty()));
    resolver.record("key.offline", more.offline.join(", "), &from(!more.offline.is_empty()));
    Ok(more)
}

fn from_table(
    resolver: &mut Resolver<'_>,
    variables: &Variables,
    file: &File,
    written: &toml::Spanned<KeyTable>,
) -> Result<(Option<KeySource>, Option<Error>)> {
    let table = written.get_ref();
    match (&table.file, &table.env, &table.command) {
        (Some(path), None, None) => {
            let path = file.base.join(path);
            resolver.record("key", path.display().to_string(), &file.name);
            Ok((Some(KeySource::File(path)), None))
        }
        (None, Some(name), None) => {
            resolver.record("key", "***", &format!("{name}, named in {}", file.name));
            match variables.get(name) {
                Some(variable) => Ok((Some(hex(name, variable.text.to_owned())), None)),
                None => Ok((
                    None,
                    Some(Error::usage(format!(
                        "`{}` names variable `{name}` for the key, and it is not set",
                        file.name
                    ))),
                )),
            }
        }
        (None, None, Some(command)) => {
            resolver.record("key", command.clone(), &file.name);
            Ok((Some(KeySource::Command(command.clone())), None))
        }
        _ => Err(file.wrong_at(written.span().start, "`[key]` has exactly one of `file`, `env` and `command`")),
    }
}

fn hex(variable: &str, digits: String) -> KeySource {
    KeySource::Hex { variable: variable.to_owned(), digits: digits.into() }
}

/// The key, and what a person should know about where it lies.
pub struct Loaded {
    /// The key.
    pub key: MasterKey,
    /// Its digits, for the scrubber alone.
    pub digits: SecretString,
    /// A file that others can read, or that lies in the store.
    pub warnings: Vec<String>,
}

/// Gets the key. `why_none` is told when there is no source.
pub async fn load(settings: &Settings, why_none: Option<&Error>) -> Result<Loaded> {
    match &settings.key {
        None => Err(missing(why_none)),
        Some(source) => load_from(settings, source).await,
    }
}

/// Gets the key of one source.
pub async fn load_from(settings: &Settings, source: &KeySource) -> Result<Loaded> {
    let mut warnings = Vec::new();
    let digits = match source {
        KeySource::Hex { digits, .. } => digits.clone(),
        KeySource::File(path) => {
            warnings.extend(check_place(path, settings)?);
            let (digits, warning) = read_file(path)?;
            warnings.extend(warning);
            digits
        }
        KeySource::Command(command) => run_command(command).await?,
    };
    let key = MasterKey::from_hex(digits.expose_secret()).map_err(|error| {
        let place = match source {
            KeySource::Hex { variable, .. } => {
                format!("the key in `{variable}` cannot be used")
            }
            KeySource::File(path) => {
                format!("the key in `{}` cannot be used", path.display())
            }
            KeySource::Command(_) => "the key that the key command printed cannot be used".to_owned(),
        };
        error.context(place).with_kind(ripcord::error::Kind::Usage).hint_if_none("ripcord key generate -o FILE")
    })?;
    Ok(Loaded { key, digits, warnings })
}

fn missing(why: Option<&Error>) -> Error {
    let error = match why {
        Some(error) => error.clone(),
        None => Error::usage("there is no key to encrypt backups with"),
    };
    error
        .because("set `BACKUP_ENCRYPTION_KEY` to 64 hexadecimal digits, or in ripcord.toml `[key]` `file = \"…\"` or `command = \"…\"`")
        .hint(
            "give the key that the backups were made with; when there are none yet: \
             ripcord key generate -o /etc/ripcord/key",
        )
}

fn read_file(path: &Path) -> Result<(SecretString, Option<String>)> {
    let refuse = |error: std::io::Error| {
        Error::usage(format!("the key file `{}` cannot be read", path.display())).because(error).hint(format!(
            "put the key there that the backups were made with; when there are none yet: ripcord key generate -o {}",
            path.display()
        ))
    };
    let file = std::fs::File::open(path).map_err(refuse)?;
    let metadata = file.metadata().map_err(refuse)?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(refuse)?;
    let open = metadata.permissions().mode() & 0o077;
    let warning =
        (open != 0).then(|| format!("the key file `{0}` can be read by others: chmod 600 {0}", path.display()));
    Ok((text.as_str().to_owned().into(), warning))
}

/// A key that lies with what it locks is lost and stolen together with it.
fn check_place(path: &Path, settings: &Settings) -> Result<Option<String>> {
    if settings.store.contains("://") {
        return Ok(None);
    }
    let (Ok(key), Ok(store)) = (path.canonicalize(), Path::new(&settings.store).canonicalize()) else {
        return Ok(None);
    };
    if !key.starts_with(&store) {
        return Ok(None);
    }
    let fact = format!(
        "the key file `{}` lies in the store `{}`: whoever takes or loses one has the other too",
        path.display(),
        settings.store
    );
    if settings.environment.protected {
        return Err(Error::refused(fact).hint("move the key file out of the store and keep a copy elsewhere"));
    }
    Ok(Some(fact))
}

async fn run_command(command: &str) -> Result<SecretString> {
    let failed =
        |why: String| Error::usage("the key command failed").because(why).hint("run the command of `[key]` by hand");
    let mut child = tokio::process::Command::new("sh");
    child
        .args(["-c", command])
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for name in KEPT_FROM_COMMANDS {
        child.env_remove(name);
    }
    let output = tokio::time::timeout(COMMAND_LIMIT, child.output())
        .await
        .map_err(|_| failed(format!("it did not end within {}s", COMMAND_LIMIT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    let printed = Zeroizing::new(output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
        return Err(failed(match last {
            Some(line) => line.trim().to_owned(),
            None => output.status.to_string(),
        }));
    }
    // `pass show` and its like print the secret first and notes after it.
    let first = std::str::from_utf8(&printed)
        .ok()
        .and_then(|text| text.lines().find(|line| !line.trim().is_empty()))
        .ok_or_else(|| failed("it printed nothing".to_owned()))?;
    Ok(first.trim().to_owned().into())
}

/// Writes a new key's digits: 0600, synced, never over something that is there.
pub fn write_file(path: &Path, digits: &SecretString) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error
            .kind()
        {
            std::io::ErrorKind::AlreadyExists => {
                Error::usage(format!("`{}` exists and is not overwritten", path.display()))
                    .because("a key that is lost makes its backups unreadable")
                    .hint("choose another file")
            }
            _ => Error::usage(format!("`{}` cannot be written", path.display())).because(error),
        })?;
    let written = writeln!(file, "{}", digits.expose_secret())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::File::open(&parent)?.sync_all());
    written.map_err(|error| Error::failed(format!("`{}` was not written completely", path.display())).because(error))
}
