//! Supabase: its URL and its database's password make a database URL; and the way past a pooler.

use ripcord::Error;
use ripcord::settings::Settings;
use secrecy::{ExposeSecret, SecretString};

use super::resolver::{Resolver, Value};
use super::variables::Variables;

/// Supabase's URL and its database's password make a database URL; a service key does not.
pub fn database_url(settings: &mut Settings, resolver: &mut Resolver<'_>, variables: &Variables) -> Option<Error> {
    if settings.database_url.is_some() || variables.of_process_only("PGHOST").is_some() {
        return None;
    }
    let url = variables.get("SUPABASE_URL")?;
    let project = url
        .text
        .trim_start_matches("https://")
        .split('.')
        .next()
        .filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
        .unwrap_or("PROJECT");
    let Some(password) = variables.get("SUPABASE_DB_PASSWORD") else {
        let fact = if variables.get("SUPABASE_SERVICE_KEY").is_some() {
            "`SUPABASE_URL` and `SUPABASE_SERVICE_KEY` open Supabase's API, not its database"
        } else {
            "`SUPABASE_URL` alone does not open Supabase's database"
        };
        return Some(
            Error::usage(fact)
                .because("a migration needs the database's own password (Supabase: Project Settings, Database)")
                .hint(format!(
                    "export DATABASE_URL='postgresql://postgres:PASSWORD@db.{project}.supabase.co:5432/postgres'"
                )),
        );
    };
    let url = format!(
        "postgresql://postgres:{}@db.{project}.supabase.co:5432/postgres?sslmode=require",
        percent_encoded(password.text)
    );
    resolver.say_in_effect("SUPABASE_URL", Some(url_text(variables)), "", password.place);
    resolver.say_in_effect("SUPABASE_DB_PASSWORD", None, "", password.place);
    let url = SecretString::from(url);
    if let Some(entry) = resolver.entries.iter_mut().find(|entry| entry.key == "database_url") {
        entry.value = url.show();
        entry.source = "SUPABASE_URL and SUPABASE_DB_PASSWORD".to_owned();
    }
    settings.database_url = Some(url);
    None
}

/// Where `DATABASE_URL` leads to a pooler, `DIRECT_URL` is the way past it. It counts only when both come from the same
/// place: a `.env` that was forgotten must not send a run to another database. Returns what to warn of.
pub fn direct_url(settings: &mut Settings, resolver: &mut Resolver<'_>, variables: &Variables) -> Option<String> {
    let (_, database) = variables.in_order(&["DATABASE_URL"]).next()?;
    let pooled = settings.database_url.as_ref()?.expose_secret();
    // An option and RIPCORD_DATABASE_URL were meant for us, as they are.
    let entry = resolver.entries.iter().position(|entry| entry.key == "database_url")?;
    let is_ours = resolver.entries.get(entry)?.source == format!("DATABASE_URL from {}", database.place);
    if !is_ours || !leads_to_pooler(pooled) {
        return None;
    }
    const LEADS: &str = "`DATABASE_URL` leads to a connection pooler, which loses locks and snapshots";
    let Some((_, direct)) = variables.in_order(&["DIRECT_URL"]).next() else {
        return Some(format!("{LEADS}: set `DIRECT_URL` to one that leads to PostgreSQL itself"));
    };
    if direct.place != database.place {
        return Some(format!(
            "{LEADS}; `DIRECT_URL` from {} is not used, since `DATABASE_URL` comes from {}",
            direct.place, database.place
        ));
    }
    if leads_to_pooler(direct.text) {
        return Some(format!("{LEADS}, and so does `DIRECT_URL`: set it to one that leads to PostgreSQL itself"));
    }
    let url = SecretString::from(direct.text.to_owned());
    // That of `DATABASE_URL` is not in effect.
    resolver.notes.retain(|note| !note.starts_with("using `DATABASE_URL`"));
    resolver.notes.push(format!(
        "using `DIRECT_URL` from {}, since `DATABASE_URL` leads to a connection pooler",
        match direct.place {
            super::variables::ENVIRONMENT => direct.place.to_owned(),
            file => format!("`{file}`"),
        }
    ));
    if let Some(entry) = resolver.entries.get_mut(entry) {
        entry.value = url.show();
        entry.source = format!("DIRECT_URL from {}, since DATABASE_URL leads to a pooler", direct.place);
    }
    settings.database_url = Some(url);
    None
}

/// By the marks that hosted poolers have: Supabase's port for transactions, Prisma's parameter, Neon's host. One without
/// a mark is found when the lock is taken.
fn leads_to_pooler(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return url.split_whitespace().any(|pair| pair == "port=6543" || pair == "port='6543'");
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let marked =
        |host: &str| host.ends_with(":6543") || host.split('.').next().is_some_and(|name| name.ends_with("-pooler"));
    hosts.split(',').any(marked) || query.split('&').any(|pair| matches!(pair, "pgbouncer=true" | "port=6543"))
}

fn url_text(variables: &Variables) -> &str {
    variables.get("SUPABASE_URL").map_or("", |variable| variable.text)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
