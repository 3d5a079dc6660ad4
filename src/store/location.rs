//! What a person may write where a store is asked for.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// The folder that a location names: a path, or `file:///…` with `%` escapes. Other schemes are a
/// usage error.
pub(super) fn folder(location: &str) -> Result<PathBuf> {
    let trimmed = location.trim();
    if trimmed.is_empty() {
        return Err(Error::usage("the store's location is empty").hint("name a folder, such as `backups`"));
    }
    if trimmed == "~" || trimmed.starts_with("~/") {
        return Err(Error::usage(format!("`~` in the store's location `{trimmed}` is not expanded"))
            .hint("write the whole path"));
    }
    let Some((scheme, rest)) = split_scheme(trimmed) else {
        return Ok(PathBuf::from(trimmed));
    };
    if !scheme.eq_ignore_ascii_case("file") {
        // What follows the scheme may hold credentials and is not repeated.
        return Err(Error::usage(format!(
            "a store at `{scheme}://…` is not supported: only folders work in this version"
        ))
        .hint("name a folder, or mount the storage and name the folder where it is mounted"));
    }
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(Error::usage(format!("`{trimmed}` names no absolute path"))
            .hint("a folder is `file:///path/to/folder`, with three slashes"));
    }
    decode(path).map(PathBuf::from).ok_or_else(|| {
        Error::usage(format!("`{trimmed}` has a `%` that is no escape"))
            .hint("write `%25` for a `%`, or name the folder without `file://`")
    })
}

/// The scheme (RFC 3986, 3.1) and what follows `://`.
fn split_scheme(location: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = location.split_once("://")?;
    let mut bytes = scheme.bytes();
    let valid = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    valid.then_some((scheme, rest))
}

fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2)?;
            bytes.extend(hex::decode(digits).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().filter(|path| !path.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn folders_are_taken_as_they_are_written() {
        for (location, expected) in [
            ("backups", "backups"),
            ("./backups", "./backups"),
            ("/var/lib/ripcord", "/var/lib/ripcord"),
            (" backups ", "backups"),
            ("file:///var/lib/ripcord", "/var/lib/ripcord"),
            ("FILE:///var", "/var"),
            ("file://localhost/var", "/var"),
            ("file:///my%20disk/100%25", "/my disk/100%"),
            ("a:b", "a:b"),
            ("odd folder://x", "odd folder://x"),
        ] {
            assert_eq!(folder(location).unwrap(), PathBuf::from(expected), "{location}");
        }
    }

    #[test]
    fn what_is_no_folder_is_a_usage_error() {
        for (location, part) in [
            ("", "empty"),
            ("  ", "empty"),
            ("~/backups", "not expanded"),
            ("s3://bucket/prefix", "`s3://…` is not supported: only folders work in this version"),
            ("gs://bucket", "only folders work"),
            ("https://user:secret@host/x", "only folders work"),
            ("file://host/share", "no absolute path"),
            ("file://relative", "no absolute path"),
            ("file:///a%2", "no escape"),
            ("file:///a%zz", "no escape"),
            ("file:///a%00b", "no escape"),
        ] {
            let error = folder(location).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{location}");
            assert!(error.one_line().contains(part), "{location}: {error}");
            assert!(error.hint_text().is_some(), "{location}");
            assert!(!error.one_line().contains("secret"), "{error}");
        }
    }
}
