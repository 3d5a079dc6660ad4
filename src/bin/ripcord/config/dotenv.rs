//! `.env` files: `NAME=value` lines, quotes and comments. Nothing in a value is expanded: a password
//! with a `$` in it stays that password.

use std::collections::BTreeMap;
use std::path::Path;

use ripcord::{Error, Result};

/// The variables of one file.
#[derive(Debug)]
pub struct DotEnv {
    /// The file's name, for messages.
    pub name: String,
    /// Name → value, the last one of a name.
    pub values: BTreeMap<String, String>,
    /// Names that the file sets although only the environment may; they were left out.
    pub left_out: Vec<String>,
}

/// Reads a file; `None`: there is none.
pub fn read(path: &Path) -> Result<Option<DotEnv>> {
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&name, &text).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::usage(format!("`{}` cannot be read", path.display())).because(error)),
    }
}

/// Reads a file's text. Errors name file and line, never the value.
pub fn parse(name: &str, text: &str) -> Result<DotEnv> {
    let mut file = DotEnv { name: name.to_owned(), values: BTreeMap::new(), left_out: Vec::new() };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let wrong = |what: &str| {
            Error::usage(format!("`{name}` line {} {what}", index + 1))
                .hint("write `NAME=value`, one a line, with quotes around a value that has spaces")
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, |rest| rest.trim_start());
        let (variable, value) = line.split_once('=').ok_or_else(|| wrong("has no `=`"))?;
        let variable = variable.trim_end();
        let well_named = !variable.is_empty()
            && variable.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
            && !variable.as_bytes()[0].is_ascii_digit();
        if !well_named {
            return Err(wrong("does not begin with a variable's name"));
        }
        let value = unquote(value.trim()).ok_or_else(|| wrong("has a quote that does not end"))?;
        if only_the_environment_sets(variable) {
            file.left_out.push(variable.to_owned());
        } else {
            file.values.insert(variable.to_owned(), value);
        }
    }
    Ok(file)
}

/// What decides about safety, or which programs run, must be said by whoever starts this one, not by a
/// file that came with a checkout; libpq's variables would redirect every child process as well.
fn only_the_environment_sets(variable: &str) -> bool {
    matches!(
        variable,
        "FORCE_RUN"
            | "SKIP_BACKUP"
            | "REQUIRE_APPROVAL"
            | "ENVIRONMENT"
            | "PATH"
            | "RIPCORD_ENV"
            | "RIPCORD_ENVIRONMENT"
            | "RIPCORD_CONFIG"
            | "RIPCORD_KEY_COMMAND"
            | "RIPCORD_PG_BIN"
    ) || variable.starts_with("PG")
}

fn unquote(text: &str) -> Option<String> {
    if let Some(rest) = text.strip_prefix('\'') {
        return rest.split_once('\'').map(|(value, _)| value.to_owned());
    }
    let Some(rest) = text.strip_prefix('"') else {
        let end = text
            .char_indices()
            .find(|&(at, c)| c == '#' && (at == 0 || text[..at].ends_with([' ', '\t'])))
            .map_or(text.len(), |(at, _)| at);
        return Some(text[..end].trim_end().to_owned());
    };
    let mut value = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => match characters.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => {
                    value.push('\\');
                    value.push(c);
                }
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_guides_write_them() {
        let text = "# settings\nDATABASE_URL=postgresql://u:p$a#b@h/db\nexport LOG_LEVEL = INFO\n\
                    MIGRATION_TIMEOUT=300000  # 5 minutes\nA='x # y'\nB=\"line\\nbreak \\\"q\\\"\"\nEMPTY=\n";
        let file = parse(".env", text).unwrap();
        let value = |name: &str| file.values[name].as_str();
        assert_eq!(value("DATABASE_URL"), "postgresql://u:p$a#b@h/db");
        assert_eq!(value("LOG_LEVEL"), "INFO");
        assert_eq!(value("MIGRATION_TIMEOUT"), "300000");
        assert_eq!(value("A"), "x # y");
        assert_eq!(value("B"), "line\nbreak \"q\"");
        assert_eq!(value("EMPTY"), "");
    }

    #[test]
    fn what_decides_about_safety_is_left_out() {
        let text = "FORCE_RUN=true\nSKIP_BACKUP=true\nREQUIRE_APPROVAL=false\nENVIRONMENT=development\n\
                    PATH=/tmp\nRIPCORD_PG_BIN=/tmp\nRIPCORD_KEY_COMMAND=id\nPGHOST=elsewhere\nPGPASSWORD=x\nTIMEOUT=5\n";
        let file = parse(".env", text).unwrap();
        assert_eq!(file.values.keys().collect::<Vec<_>>(), ["TIMEOUT"]);
        assert_eq!(file.left_out.len(), 9);
    }

    #[test]
    fn errors_name_the_line_and_not_the_value() {
        for text in ["OK=1\nsecret-without-equals", "OK=1\nX=\"secret", "OK=1\n9X=secret"] {
            let error = parse(".env", text).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
