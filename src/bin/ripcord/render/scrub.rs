//! The last scrub: whatever is printed goes through here, so that a secret that slipped into a message
//! of the server's, of a tool's or of ours is `***` when it arrives.

use std::sync::RwLock;

use serde_json::Value;

/// What a secret becomes.
pub const MASK: &str = "***";

/// Shorter secrets, and those that are everyday words, would turn ordinary text to stars; they are
/// taken out only where they stand as a password.
const MIN_DISTINCT: usize = 8;

const EVERYDAY: [&str; 4] = ["postgres", "postgresql", "password", "database"];

/// Knows the secrets of this process.
#[derive(Debug, Default)]
pub struct Scrubber {
    secrets: RwLock<Vec<String>>,
}

impl Scrubber {
    /// Takes secrets in, with the spellings that they may also appear in.
    pub fn add(&self, secrets: impl IntoIterator<Item = String>) {
        let mut known = match self.secrets.write() {
            Ok(known) => known,
            Err(poisoned) => poisoned.into_inner(),
        };
        for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
            let mut spellings = vec![percent_decoded(&secret), secret];
            if spellings.iter().any(|text| is_hex(text)) {
                let more: Vec<String> =
                    spellings.iter().flat_map(|text| [text.to_ascii_lowercase(), text.to_ascii_uppercase()]).collect();
                spellings.extend(more);
            }
            for spelling in spellings {
                if !known.contains(&spelling) {
                    known.push(spelling);
                }
            }
        }
        // A secret that holds another one goes first, otherwise its remainder would stay.
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// The text without secrets.
    pub fn text(&self, text: &str) -> String {
        let known = match self.secrets.read() {
            Ok(known) => known,
            Err(poisoned) => poisoned.into_inner(),
        };
        let mut clean = mask_urls(text);
        for secret in known.iter() {
            if secret.len() >= MIN_DISTINCT && !EVERYDAY.contains(&secret.as_str()) {
                clean = clean.replace(secret, MASK);
            } else {
                for before in ["password=", "password='", "PGPASSWORD=", "password: "] {
                    clean = clean.replace(&format!("{before}{secret}"), &format!("{before}{MASK}"));
                }
            }
        }
        clean
    }

    /// The value without secrets; keys stay as they are.
    pub fn json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, self.json(value))).collect(),
            other => other,
        }
    }
}

/// A URL or `key=value` string as a person may see it.
pub fn url_for_people(url: &str) -> String {
    let mut clean = mask_urls(url);
    for password in passwords_in(url) {
        for before in ["password=", "password='", "sslpassword="] {
            clean = clean.replace(&format!("{before}{password}"), &format!("{before}{MASK}"));
        }
    }
    clean
}

/// The passwords in a URL (`scheme://user:password@…`, `?password=…`) or a `key=value` string, as they
/// are written there.
pub fn passwords_in(url: &str) -> Vec<String> {
    let mut found: Vec<String> = userinfo_passwords(url).into_iter().map(|range| url[range].to_owned()).collect();
    let is_url = url.contains("://");
    for (at, name) in url.match_indices("password") {
        let rest = url[at + name.len()..].trim_start();
        let Some(rest) = rest.strip_prefix('=').map(str::trim_start) else {
            continue;
        };
        let password = match rest.strip_prefix('\'') {
            Some(quoted) if !is_url => quoted.split('\'').next(),
            _ if is_url => rest.split(['&', ' ', '#']).next(),
            _ => rest.split_whitespace().next(),
        };
        found.extend(password.filter(|text| !text.is_empty()).map(str::to_owned));
    }
    found
}

fn mask_urls(text: &str) -> String {
    let mut clean = text.to_owned();
    for range in userinfo_passwords(text).into_iter().rev() {
        clean.replace_range(range, MASK);
    }
    clean
}

/// Where passwords stand between `://user:` and `@`. A password may hold `@`, `:` and even `/` when
/// somebody did not encode it, so the last `@` of the word counts.
fn userinfo_passwords(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut from = 0;
    while let Some(found) = text[from..].find("://") {
        let start = from + found + 3;
        let end = text[start..]
            .find(|c: char| c.is_whitespace() || matches!(c, '`' | '"' | '\'' | '<' | '>' | '?'))
            .map_or(text.len(), |at| start + at);
        // Where the word holds another URL, this one ends before it.
        let end = text[start..end].find("://").map_or(end, |at| start + at);
        if let Some(at) = text[start..end].rfind('@')
            && let Some(colon) = text[start..start + at].find(':')
            && colon + 1 < at
        {
            ranges.push(start + colon + 1..start + at);
        }
        from = end.max(start);
    }
    ranges
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn is_hex(text: &str) -> bool {
    text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scrubber(secrets: &[&str]) -> Scrubber {
        let scrubber = Scrubber::default();
        scrubber.add(secrets.iter().map(|secret| (*secret).to_owned()));
        scrubber
    }

    #[test]
    fn secrets_become_stars_in_every_spelling() {
        let key = "00ffAA".repeat(11);
        let scrubber = scrubber(&["s3cr%40t-word", &key]);
        let text = format!("a s3cr%40t-word b s3cr@t-word c {} d", key.to_lowercase());
        assert_eq!(scrubber.text(&text), "a *** b *** c *** d");
    }

    #[test]
    fn an_everyday_password_does_not_eat_the_text() {
        let scrubber = scrubber(&["postgres", "pw"]);
        assert_eq!(
            scrubber.text("database `postgres`: postgresql://postgres:postgres@h/postgres password=pw spwn"),
            "database `postgres`: postgresql://postgres:***@h/postgres password=*** spwn"
        );
    }

    #[test]
    fn urls_lose_their_password_though_nobody_knew_it() {
        for (text, clean) in [
            ("at postgres://u:p@ss:w/rd@host/db now", "at postgres://u:***@host/db now"),
            ("http://host:80/path", "http://host:80/path"),
            ("`postgres://u:x@h`, `http://a:b@c`", "`postgres://u:***@h`, `http://a:***@c`"),
            ("postgres://u@h/db", "postgres://u@h/db"),
            ("://", "://"),
        ] {
            assert_eq!(mask_urls(text), clean);
        }
    }

    #[test]
    fn passwords_are_found_in_both_forms() {
        assert_eq!(passwords_in("postgres://u:a%20b@h/d"), ["a%20b"]);
        assert_eq!(passwords_in("postgres://h/d?user=u&password=xyz&sslmode=require"), ["xyz"]);
        assert_eq!(passwords_in("host=h password='a b' user=u"), ["a b"]);
        assert_eq!(passwords_in("host=h password=ab user=u"), ["ab"]);
        assert!(passwords_in("postgres://u@h/d").is_empty());
        assert_eq!(url_for_people("host=h password=ab user=u"), "host=h password=*** user=u");
    }

    #[test]
    fn json_keeps_its_shape() {
        let scrubber = scrubber(&["very secret"]);
        assert_eq!(
            scrubber.json(json!({"a": ["very secret", 1, null], "very secret": true})),
            json!({"a": ["***", 1, null], "very secret": true})
        );
    }
}
