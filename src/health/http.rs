//! A health check by HTTP GET.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode, Url};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use crate::settings::{HealthCheck, HealthProbe};

/// The largest body that is looked at, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// What is printed of values in a body, in characters.
const MAX_VALUE: usize = 100;

/// What is printed of an error, in characters.
const MAX_ERROR: usize = 250;

/// Asks; what was seen, good or bad.
pub(super) async fn ask(check: &HealthCheck) -> Result<String, String> {
    match timeout(check.timeout, ask_unlimited(&check.probe)).await {
        Ok(seen) => seen,
        Err(_) => Err(format!("no answer within {:?}", check.timeout)),
    }
}

async fn ask_unlimited(probe: &HealthProbe) -> Result<String, String> {
    let HealthProbe::Url { url, expect_status, expect_json, expect_text, headers } = probe else {
        return Err("no URL".to_owned());
    };
    let url = parse(url)?;
    // Whoever expects a redirect wants to see it, not where it leads.
    let redirect_wanted = expect_status.iter().any(|code| (300..400).contains(code));
    let client = client(redirect_wanted)?;
    let response = client.get(url).headers(header_map(headers)?).send().await.map_err(|error| explain(&error))?;
    check_status(response.status(), expect_status)?;
    let status = response.status().as_u16();
    if !expect_json.is_empty() || expect_text.is_some() {
        let body = body(response).await?;
        check_json(&body, expect_json)?;
        check_text(&body, expect_text.as_deref())?;
    }
    Ok(status.to_string())
}

/// A URL without what may be secret in it: user, password, query and fragment.
pub(super) fn shown(url: &str) -> String {
    let Ok(mut url) = parse(url) else {
        return "an invalid URL".to_owned();
    };
    // Neither can fail for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn parse(url: &str) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| format!("the URL is invalid: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("the URL is invalid: it must begin with `http://` or `https://`".to_owned());
    }
    Ok(url)
}

fn client(redirect_wanted: bool) -> Result<Client, String> {
    let policy = if redirect_wanted {
        Policy::none()
    } else {
        Policy::custom(|attempt| match unwanted(&attempt) {
            None => attempt.follow(),
            Some(why) => attempt.error(why),
        })
    };
    Client::builder()
        .tls_backend_preconfigured(tls()?)
        .redirect(policy)
        .referer(false)
        .no_proxy()
        .user_agent(concat!("ripcord/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| explain(&error))
}

/// Why a redirect is not followed. Headers may hold secrets, and another host's answer says nothing
/// about the application.
fn unwanted(attempt: &Attempt) -> Option<String> {
    let first = attempt.previous().first()?;
    let from = attempt.previous().last()?;
    if attempt.previous().len() > MAX_REDIRECTS {
        return Some(format!("more than {MAX_REDIRECTS} redirects"));
    }
    if attempt.url().host_str() != first.host_str() {
        return Some(format!(
            "redirected to another host, `{}`, which is not followed",
            attempt.url().host_str().unwrap_or_default()
        ));
    }
    (from.scheme() == "https" && attempt.url().scheme() != "https")
        .then(|| "redirected from https to http, which is not followed".to_owned())
}

/// TLS with the machine's own certificate authorities, read once. The provider is named here: a
/// process-wide default would panic where another library has set none or two.
fn tls() -> Result<ClientConfig, String> {
    static CONFIG: OnceLock<Result<ClientConfig, String>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let mut roots = rustls::RootCertStore::empty();
            // Authorities that cannot be read fail the connections that need them, with their name.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| format!("TLS cannot be used: {error}"))?;
            Ok(builder.with_root_certificates(roots).with_no_client_auth())
        })
        .clone()
}

fn header_map(headers: &[(String, SecretString)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no name of a header"))?;
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| format!("the value of header `{name}` cannot be sent"))?;
        value.set_sensitive(true);
        map.append(parsed, value);
    }
    Ok(map)
}

fn check_status(status: StatusCode, expected: &[u16]) -> Result<(), String> {
    let code = status.as_u16();
    if expected.is_empty() {
        return if status.is_success() { Ok(()) } else { Err(format!("{code}, expected 2xx")) };
    }
    if expected.contains(&code) {
        return Ok(());
    }
    let expected: Vec<String> = expected.iter().map(u16::to_string).collect();
    Err(format!("{code}, expected {}", expected.join(" or ")))
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| explain(&error))? {
        if body.len() + piece.len() > MAX_BODY_BYTES {
            return Err("the answer is larger than 1MiB".to_owned());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn check_json(body: &[u8], expected: &BTreeMap<String, String>) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| "the answer is not JSON".to_owned())?;
    for (pointer, wanted) in expected {
        let found = match json.pointer(pointer) {
            None => return Err(format!("`{pointer}` is missing, expected `{wanted}`")),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        if found != *wanted {
            let found = plain(&found, MAX_VALUE);
            return Err(format!("`{pointer}` is `{found}`, expected `{wanted}`"));
        }
    }
    Ok(())
}

fn check_text(body: &[u8], expected: Option<&str>) -> Result<(), String> {
    match expected {
        Some(text) if !String::from_utf8_lossy(body).contains(text) => {
            Err(format!("the answer does not contain `{text}`"))
        }
        _ => Ok(()),
    }
}

/// A foreign text, fit to be printed.
fn plain(text: &str, limit: usize) -> String {
    let mut plain: String = text.chars().filter(|c| !c.is_control()).take(limit).collect();
    if text.chars().count() > limit {
        plain.push('…');
    }
    plain
}

/// The innermost cause, which is the one that tells, and never the URL, which may hold a secret.
fn explain(error: &reqwest::Error) -> String {
    let mut innermost = None;
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(word) = kind.and_then(plain_kind) {
            return word.to_owned();
        }
        innermost = Some(cause);
        next = cause.source();
    }
    match innermost {
        Some(cause) => plain(&cause.to_string(), MAX_ERROR),
        None => "the request failed".to_owned(),
    }
}

fn plain_kind(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some("connection refused"),
        io::ErrorKind::ConnectionReset => Some("connection reset"),
        io::ErrorKind::TimedOut => Some("connection timed out"),
        io::ErrorKind::HostUnreachable => Some("host unreachable"),
        io::ErrorKind::NetworkUnreachable => Some("network unreachable"),
        _ => None,
    }
}
