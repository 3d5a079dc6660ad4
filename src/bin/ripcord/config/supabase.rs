//! Supabase: its URL and its database's password make a database URL.

use ripcord::Error;
use ripcord::settings::Settings;
use secrecy::SecretString;

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
