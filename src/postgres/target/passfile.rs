//! `~/.pgpass`: PostgreSQL documentation, "The Password File" (libpq-pgpass).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::SecretString;

/// One line of the file; `None` stands for `*`.
struct Entry {
    host: Option<String>,
    port: Option<String>,
    database: Option<String>,
    user: Option<String>,
    password: SecretString,
}

/// The file's lines, in order: the first that matches counts.
#[derive(Default)]
pub(super) struct PassFile {
    entries: Vec<Entry>,
}

impl PassFile {
    /// Reads the file. One that others may read is ignored, as libpq does, and the warning says so; one
    /// that is not there is no warning unless it was asked for by name.
    pub(super) fn read(path: &Path, asked_for: bool) -> (PassFile, Option<String>) {
        let shown = path.display();
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                let warning = asked_for.then(|| format!("the password file `{shown}` cannot be read: {error}"));
                return (PassFile::default(), warning);
            }
        };
        if !metadata.is_file() {
            return (
                PassFile::default(),
                Some(format!("the password file `{shown}` is not a plain file; it is ignored")),
            );
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            let warning = format!("the password file `{shown}` can be read by others; it is ignored until `chmod 600`");
            return (PassFile::default(), Some(warning));
        }
        match std::fs::read_to_string(path) {
            Ok(text) => (PassFile::parse(&text), None),
            Err(error) => {
                (PassFile::default(), Some(format!("the password file `{shown}` cannot be read: {}", error.kind())))
            }
        }
    }

    fn parse(text: &str) -> PassFile {
        PassFile { entries: text.lines().filter(|line| !line.starts_with('#')).filter_map(entry).collect() }
    }

    /// The password of the first line that matches.
    pub(super) fn find(&self, host: &str, port: u16, database: &str, user: &str) -> Option<&SecretString> {
        let port = port.to_string();
        let fits = |pattern: &Option<String>, value: &str| pattern.as_deref().is_none_or(|pattern| pattern == value);
        self.entries
            .iter()
            .find(|entry| {
                fits(&entry.host, host)
                    && fits(&entry.port, &port)
                    && fits(&entry.database, database)
                    && fits(&entry.user, user)
            })
            .map(|entry| &entry.password)
    }
}

fn entry(line: &str) -> Option<Entry> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut fields = vec![(String::new(), false)];
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        let count = fields.len();
        let last = fields.last_mut()?;
        match c {
            '\\' => {
                last.0.push(rest.next().unwrap_or('\\'));
                last.1 = true;
            }
            // Only the password may hold a bare colon.
            ':' if count < 5 => fields.push((String::new(), false)),
            c => last.0.push(c),
        }
    }
    let mut fields = fields.into_iter();
    // An escaped star means a star.
    let mut pattern = || fields.next().map(|(text, escaped)| (text != "*" || escaped).then_some(text));
    let (host, port, database, user) = (pattern()?, pattern()?, pattern()?, pattern()?);
    let (password, _) = fields.next()?;
    Some(Entry { host, port, database, user, password: password.into() })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_first_line_that_matches_counts() {
        let file = PassFile::parse(
            "# comment:1:a:b:c\nshort:line\nh:5432:a\\:b:me:one\\:1:x\n*:5433:*:me:two\n\\*:*:*:*:star\n::1:1:x:never\n\
             *:*:*:*:last",
        );
        let find =
            |host, port, database, user| file.find(host, port, database, user).map(|p| p.expose_secret().to_owned());
        assert_eq!(find("h", 5432, "a:b", "me").as_deref(), Some("one:1:x"));
        assert_eq!(find("h", 5433, "a", "me").as_deref(), Some("two"));
        assert_eq!(find("*", 1, "a", "you").as_deref(), Some("star"));
        assert_eq!(find("h", 1, "a", "you").as_deref(), Some("last"));
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let (file, warning) = PassFile::read(&path, false);
        assert!(file.find("h", 1, "d", "u").is_none());
        assert!(warning.unwrap().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (file, warning) = PassFile::read(&path, false);
        assert!(file.find("h", 1, "d", "u").is_some());
        assert!(warning.is_none());
        assert!(PassFile::read(&folder.path().join("none"), false).1.is_none());
        assert!(PassFile::read(&folder.path().join("none"), true).1.is_some());
    }
}
