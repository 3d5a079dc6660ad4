//! Secrets in a script: passwords, tokens and keys that everybody who reads the repository would have.

use super::super::Script;
use super::super::lexer::{Kind, Lexer};

/// Something that should not stand in a file. The value itself is never part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leak {
    /// `secret`, or `high-entropy` where only its look tells.
    pub rule: &'static str,
    /// Byte offset in the script's text.
    pub offset: usize,
    /// What it looks like.
    pub what: &'static str,
}

/// Function bodies in function bodies are looked into this deep.
const DEPTH: u32 = 4;

/// Looks through statements and comments.
pub(super) fn leaks(script: &Script) -> Vec<Leak> {
    let mut found = Vec::new();
    look(&script.sql, 0, DEPTH, &mut found);
    found
}

fn look(sql: &str, base: usize, depth: u32, found: &mut Vec<Leak>) {
    // Whether a CREATE or an ALTER came since the last semicolon, and the word before.
    let mut defines = false;
    let mut before = "";
    for token in Lexer::new(sql).map_while(Result::ok) {
        let text = token.text(sql);
        let offset = base + token.start;
        let mut add = |rule, what| found.push(Leak { rule, offset, what });
        match token.kind {
            Kind::Space => continue,
            Kind::Comment => {
                if let Some(what) = known_shape(text) {
                    add("secret", what);
                }
                continue;
            }
            Kind::Semicolon => {
                (defines, before) = (false, "");
                continue;
            }
            Kind::Text => {
                let value = inside(text);
                if defines && before.eq_ignore_ascii_case("password") && !is_placeholder(&value) {
                    add("secret", "a password");
                } else if let Some(what) = known_shape(&value) {
                    add("secret", what);
                } else if looks_random(&value) {
                    add("high-entropy", "a random text, as keys and tokens are");
                }
            }
            Kind::DollarText => {
                let opening = text.find('$').and_then(|at| text.get(at + 1..)?.find('$')).map_or(0, |at| at + 2);
                let body = text.get(opening..text.len().saturating_sub(opening)).unwrap_or_default();
                if depth > 0 {
                    look(body, offset + opening, depth - 1, found);
                }
            }
            _ => {}
        }
        defines |= ["create", "alter"].iter().any(|word| text.eq_ignore_ascii_case(word));
        before = text;
    }
}

/// What stands between the quotes, doubled ones undone.
fn inside(literal: &str) -> String {
    let from = literal.find('\'').map_or(0, |at| at + 1);
    literal.get(from..literal.len().saturating_sub(1)).unwrap_or_default().replace("''", "'")
}

/// A word that stands for a secret and is none.
fn is_placeholder(value: &str) -> bool {
    let value = value.trim();
    value.is_empty()
        || value.starts_with(['$', '<', '{', '%', '*', '[', ':'])
        || value.chars().all(|character| matches!(character, 'x' | 'X' | '*' | '.' | '-' | '_'))
}

/// Tokens whose issuers gave them a shape, private keys, and addresses with a password.
fn known_shape(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN") && text.contains("PRIVATE KEY") {
        return Some("a private key");
    }
    if has_password_in_address(text) || has_password_in_options(text) {
        return Some("a password in a connection string");
    }
    let is_part = |byte: char| byte.is_ascii_alphanumeric() || matches!(byte, '_' | '-' | '.');
    text.split(|character: char| !is_part(character)).find_map(known_token)
}

/// Prefix, the shortest rest, and whose it is.
const TOKENS: &[(&str, usize, &str)] = &[
    ("AKIA", 16, "an access key of AWS"),
    ("ASIA", 16, "an access key of AWS"),
    ("ghp_", 36, "a token of GitHub"),
    ("gho_", 36, "a token of GitHub"),
    ("ghu_", 36, "a token of GitHub"),
    ("ghs_", 36, "a token of GitHub"),
    ("ghr_", 36, "a token of GitHub"),
    ("github_pat_", 22, "a token of GitHub"),
    ("glpat-", 20, "a token of GitLab"),
    ("xoxb-", 10, "a token of Slack"),
    ("xoxp-", 10, "a token of Slack"),
    ("xoxa-", 10, "a token of Slack"),
    ("xoxr-", 10, "a token of Slack"),
    ("sk_live_", 16, "a key of Stripe"),
    ("rk_live_", 16, "a key of Stripe"),
    ("sk_test_", 16, "a key of Stripe"),
    ("whsec_", 16, "a secret of Stripe"),
    ("sk-", 32, "an API key"),
    ("AIza", 35, "a key of Google"),
    ("ya29.", 20, "a token of Google"),
    ("SG.", 40, "a key of SendGrid"),
    ("npm_", 36, "a token of npm"),
    ("pypi-", 40, "a token of PyPI"),
    ("hf_", 30, "a token of Hugging Face"),
    ("sbp_", 40, "a token of Supabase"),
    ("sb_secret_", 16, "a key of Supabase"),
    ("dop_v1_", 60, "a token of DigitalOcean"),
    ("shpat_", 32, "a token of Shopify"),
    ("AGE-SECRET-KEY-1", 50, "a key of age"),
];

fn known_token(word: &str) -> Option<&'static str> {
    let known = TOKENS.iter().find(|(prefix, rest, _)| {
        word.strip_prefix(prefix)
            .is_some_and(|value| value.len() >= *rest && value.bytes().any(|byte| byte.is_ascii_digit()))
    });
    known.map(|(_, _, what)| *what).or_else(|| is_web_token(word).then_some("a JSON web token"))
}

/// Three parts of Base64, the first of which begins a JSON object.
fn is_web_token(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    matches!(parts[..], [head, body, seal] if head.starts_with("eyJ") && head.len() >= 10 && body.len() >= 10 && seal.len() >= 10)
}

/// `scheme://user:password@host`.
fn has_password_in_address(text: &str) -> bool {
    text.match_indices("://").any(|(at, _)| {
        let rest = text.get(at + 3..).unwrap_or_default();
        let end = rest.find(|character: char| character.is_whitespace() || "/'\"?#".contains(character));
        let authority = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        authority
            .rsplit_once('@')
            .and_then(|(user, _)| user.split_once(':'))
            .is_some_and(|(_, password)| !is_placeholder(password))
    })
}

/// `host=… password=…`, as dblink and subscriptions take it.
fn has_password_in_options(text: &str) -> bool {
    text.match_indices("password=").any(|(at, word)| {
        let rest = text.get(at + word.len()..).unwrap_or_default();
        let value = rest.split(char::is_whitespace).next().unwrap_or_default();
        text.contains("host=") && !is_placeholder(value.trim_matches('\''))
    })
}

/// Long, without blanks, of mixed characters and spread evenly: 32 hexadecimal digits or more, or 24 characters of
/// Base64 with capitals, small letters and digits.
fn looks_random(value: &str) -> bool {
    if is_uuid(value) || value.len() > 512 {
        return false;
    }
    if value.len() >= 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return entropy(value) > 3.0;
    }
    let base64 =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-' | b'.' | b'$');
    let count = |accept: fn(&u8) -> bool| value.bytes().filter(accept).count();
    value.len() >= 24
        && value.bytes().all(base64)
        && count(u8::is_ascii_digit) >= 3
        && count(u8::is_ascii_uppercase) >= 3
        && count(u8::is_ascii_lowercase) >= 3
        && entropy(value) > 4.0
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Shannon's, in bits a character.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let length = text.len() as f64;
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / length);
    -shares.map(|share| share * share.log2()).sum::<f64>()
}
