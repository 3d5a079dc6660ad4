//! Connection strings: libpq's URIs and its `key=value` form.
//!
//! Read by hand, since the driver knows fewer options than libpq and its errors repeat the text, which
//! holds the password. Grammar: PostgreSQL documentation, "Connection Strings" (libpq-connect).

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Option's name → value, as given.
pub(super) type Options = BTreeMap<String, String>;

/// Reads either form.
pub(super) fn parse(text: &str) -> Result<Options> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        return uri(rest);
    }
    if let Some((scheme, _)) = text.split_once("://")
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
    {
        return Err(Error::usage(format!("`{scheme}://` is not a PostgreSQL URL"))
            .hint("write the database URL as `postgresql://user@host:5432/database`"));
    }
    key_values(text)
}

fn uri(rest: &str) -> Result<Options> {
    let mut options = Options::new();
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, database) = match rest.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (rest, None),
    };
    if !authority.contains('@') && database.is_some_and(|database| database.contains('@')) {
        return Err(Error::usage("the database URL has an `@` after its host")
            .hint("write `/` in a password as `%2F`, and `@` in a database's name as `%40`"));
    }
    // A password may hold a bare `@` only if it is the last one that ends it; libpq wants it encoded and
    // takes the first, but then the rest of the password would be used, and printed, as a host's name.
    let hosts = match authority.rsplit_once('@') {
        Some((userinfo, hosts)) => {
            let (user, password) = match userinfo.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (userinfo, None),
            };
            insert_decoded(&mut options, "user", user, "the user's name")?;
            if let Some(password) = password {
                insert_decoded(&mut options, "password", password, "the password")?;
            }
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for host in hosts.split(',') {
            let (name, port) = split_port(host)?;
            names.push(percent_decoded(name, "the host")?);
            ports.push(port.to_owned());
        }
        if names.iter().any(|name| !name.is_empty()) {
            options.insert("host".to_owned(), names.join(","));
        }
        if ports.iter().any(|port| !port.is_empty()) {
            options.insert("port".to_owned(), ports.join(","));
        }
    }
    if let Some(database) = database {
        insert_decoded(&mut options, "dbname", database, "the database's name")?;
    }
    for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Error::usage("the database URL has an option without `=`"));
        };
        let key = percent_decoded(key, "an option's name")?;
        let value = percent_decoded(value, &format!("the option `{key}`"))?;
        // JDBC's spelling, which libpq takes too.
        if key == "ssl" && value == "true" {
            options.insert("sslmode".to_owned(), "require".to_owned());
        } else {
            options.insert(key, value);
        }
    }
    Ok(options)
}

fn insert_decoded(options: &mut Options, key: &str, value: &str, what: &str) -> Result<()> {
    if !value.is_empty() {
        options.insert(key.to_owned(), percent_decoded(value, what)?);
    }
    Ok(())
}

fn split_port(host: &str) -> Result<(&str, &str)> {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err(Error::usage("the database URL has a `[` without `]` in its host"));
        };
        return Ok((address, after.strip_prefix(':').unwrap_or("")));
    }
    Ok(host.split_once(':').unwrap_or((host, "")))
}

fn percent_decoded(text: &str, what: &str) -> Result<String> {
    let wrong = || {
        Error::usage(format!("the database URL is not well encoded in {what}"))
            .hint("write a literal `%` as `%25`, `@` as `%40`, `:` as `%3A`, `/` as `%2F`")
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else { return Err(wrong()) };
        match u8::try_from(high * 16 + low) {
            Ok(byte) if byte != 0 => bytes.push(byte),
            _ => return Err(wrong()),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn key_values(text: &str) -> Result<Options> {
    let mut options = Options::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Ok(options);
        }
        let mut key = String::new();
        while let Some(c) = rest.next_if(|&c| c != '=' && !c.is_ascii_whitespace()) {
            key.push(c);
        }
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if rest.next() != Some('=') {
            // The word itself is not shown: it may be part of a password with an unquoted space.
            return Err(Error::usage("the connection string has a word without `=`").hint(
                "write `postgresql://user@host:5432/database`, or `host=… dbname='…'` with quotes around spaces",
            ));
        }
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let quoted = rest.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match rest.next() {
                Some('\\') => value.extend(rest.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_ascii_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err(Error::usage("the connection string has a quote that is not closed")),
                None => break,
            }
        }
        options.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn uris() {
        assert_eq!(
            parsed("postgres://me:p%40ss@db.example:6543/a%20b?sslmode=require&ssl=false"),
            pairs(&[
                ("dbname", "a b"),
                ("host", "db.example"),
                ("password", "p@ss"),
                ("port", "6543"),
                ("ssl", "false"),
                ("sslmode", "require"),
                ("user", "me"),
            ])
        );
        assert_eq!(
            parsed("postgresql://%2Fvar%2Frun,[::1]:1,b:2/x"),
            pairs(&[("dbname", "x"), ("host", "/var/run,::1,b"), ("port", ",1,2")])
        );
        assert_eq!(parsed("postgresql:///x?host=/tmp"), pairs(&[("dbname", "x"), ("host", "/tmp")]));
        assert_eq!(parsed("postgresql://"), pairs(&[]));
        assert_eq!(
            parsed("postgres://u:a@b@h/x?ssl=true"),
            pairs(&[("dbname", "x"), ("host", "h"), ("password", "a@b"), ("sslmode", "require"), ("user", "u")])
        );
    }

    #[test]
    fn key_value_strings() {
        assert_eq!(
            parsed(r#"host = localhost  dbname='a b=c\'""é' password=a\ b user=x"#),
            pairs(&[("dbname", "a b=c'\"\"é"), ("host", "localhost"), ("password", "a b"), ("user", "x")])
        );
        assert_eq!(parsed(""), pairs(&[]));
        assert_eq!(parsed("password=''"), pairs(&[("password", "")]));
    }

    #[test]
    fn errors_do_not_repeat_secrets() {
        for text in [
            "postgres://u:s%ecret@h/x",
            "postgres://u:se/cret@h/x",
            "password=s ecret",
            "password='secret",
            "mysql://u:secret@h/x",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error} {:?}", error.hint_text()).contains("ecret"), "{error}");
        }
    }
}
