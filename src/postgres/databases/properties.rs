//! What pg_dump without `-C` leaves out, read and set again.

use std::collections::BTreeMap;

use super::create::{is_scratch_name, pending_comment, with_pending_comment};
use super::{acl, get, setting, text};
use crate::error::{Error, Result};
use crate::manifest::DatabaseProperties;
use crate::postgres::{Session, quote, session};

/// Everything that pg_dump without `-C` leaves out. To be read before a fence is put up: its setting
/// looks like any other. Of a scratch database, the comment is the one that it will have.
pub async fn read_properties(session: &Session, database: &str) -> Result<DatabaseProperties> {
    let (properties, _) = read(session, database).await?;
    Ok(properties)
}

/// The properties, and the comment as it stands.
async fn read(session: &Session, database: &str) -> Result<(DatabaseProperties, Option<String>)> {
    let version = session.server_version_num();
    let provider = if version >= 150_000 { "d.datlocprovider::pg_catalog.text" } else { "'c'" };
    let locale = match version {
        170_000.. => "d.datlocale",
        150_000.. => "d.daticulocale",
        _ => "NULL",
    };
    let rules = if version >= 160_000 { "d.daticurules" } else { "NULL" };
    let collation_version = if version >= 150_000 { "d.datcollversion" } else { "NULL" };
    // language=SQL
    let sql = format!(
        "SELECT pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text, \
                pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text, \
                {provider}::pg_catalog.text, d.datcollate::pg_catalog.text, d.datctype::pg_catalog.text, \
                {locale}::pg_catalog.text, {rules}::pg_catalog.text, {collation_version}::pg_catalog.text, \
                t.spcname::pg_catalog.text, d.datconnlimit, d.datacl::pg_catalog.text[], \
                pg_catalog.shobj_description(d.oid, 'pg_database'), d.oid \
         FROM pg_catalog.pg_database AS d JOIN pg_catalog.pg_tablespace AS t ON t.oid = d.dattablespace \
         WHERE d.datname = $1"
    );
    let row = session
        .client()
        .query_opt(&sql, &[&database])
        .await
        .map_err(|error| session::explain(&error))?
        .ok_or_else(|| Error::failed(format!("database `{database}` does not exist")))?;
    let oid: u32 = get(&row, 12)?;
    let comment: Option<String> = get(&row, 11)?;
    let properties = DatabaseProperties {
        owner: text(&row, 0)?,
        encoding: text(&row, 1)?,
        locale_provider: text(&row, 2)?,
        collate: text(&row, 3)?,
        ctype: text(&row, 4)?,
        locale: get(&row, 5)?,
        icu_rules: get(&row, 6)?,
        collation_version: get(&row, 7)?,
        tablespace: text(&row, 8)?,
        connection_limit: get(&row, 9)?,
        acl: get(&row, 10)?,
        comment: pending_comment(database, comment.as_deref()),
        settings: settings(session, oid).await?,
        security_labels: security_labels(session, oid).await?,
    };
    Ok((properties, comment))
}

async fn settings(session: &Session, oid: u32) -> Result<BTreeMap<String, Vec<String>>> {
    // language=SQL
    let sql = "SELECT CASE WHEN s.setrole = 0 THEN '' ELSE r.rolname::pg_catalog.text END, s.setconfig \
               FROM pg_catalog.pg_db_role_setting AS s \
               LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole \
               WHERE s.setdatabase = $1 AND (s.setrole = 0 OR r.oid IS NOT NULL)";
    let rows = session.client().query(sql, &[&oid]).await.map_err(|error| session::explain(&error))?;
    rows.iter().map(|row| Ok((text(row, 0)?, get(row, 1)?))).collect()
}

async fn security_labels(session: &Session, oid: u32) -> Result<BTreeMap<String, String>> {
    // language=SQL
    let sql = "SELECT l.provider, l.label FROM pg_catalog.pg_shseclabel AS l \
               WHERE l.objoid = $1 AND l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass";
    let rows = session.client().query(sql, &[&oid]).await.map_err(|error| session::explain(&error))?;
    rows.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?))).collect()
}

/// Sets what `create` could not: settings, connection limit, comment, security labels, ACL. What cannot
/// be set (a role that is gone, a parameter that needs superuser) is returned as warnings. `maintenance` is in
/// the maintenance database.
///
/// Only what differs is touched, so it can be called again, and on a database in use. A scratch database
/// keeps its own comment and carries the other one until [`Closed::swap`](crate::postgres::swap::Closed::swap)
/// gives it the target's name. `default_transaction_read_only` is set but never taken away: it may be our
/// own fence, which [`unfence`](crate::postgres::writes::unfence) ends.
pub async fn apply_properties(
    maintenance: &Session,
    name: &str,
    properties: &DatabaseProperties,
) -> Result<Vec<String>> {
    let (current, current_comment) = read(maintenance, name).await?;
    let ident = quote::ident(name);
    let mut attempts = Attempts { maintenance, warnings: Vec::new() };

    if current.owner != properties.owner {
        // language=SQL
        let sql = format!("ALTER DATABASE {ident} OWNER TO {}", quote::ident(&properties.owner));
        attempts.run(&sql, || format!("the database's owner stays `{}`", current.owner)).await?;
    }
    apply_settings(&mut attempts, &ident, &current, properties).await?;
    if current.connection_limit != properties.connection_limit {
        // language=SQL
        let sql = format!("ALTER DATABASE {ident} WITH CONNECTION LIMIT {}", properties.connection_limit);
        attempts.run(&sql, || "the connection limit was not set".to_owned()).await?;
    }
    let comment = if is_scratch_name(name) {
        Some(with_pending_comment(current_comment.as_deref(), properties.comment.as_deref()))
    } else {
        properties.comment.clone()
    };
    if comment != current_comment {
        let value = comment.as_deref().map_or_else(|| "NULL".to_owned(), quote::literal);
        // language=SQL
        let sql = format!("COMMENT ON DATABASE {ident} IS {value}");
        attempts.run(&sql, || "the database's comment was not set".to_owned()).await?;
    }
    for (provider, label) in &properties.security_labels {
        if current.security_labels.get(provider) == Some(label) {
            continue;
        }
        // language=SQL
        let sql =
            format!("SECURITY LABEL FOR {} ON DATABASE {ident} IS {}", quote::ident(provider), quote::literal(label));
        attempts.run(&sql, || format!("the security label of `{provider}` was not set")).await?;
    }
    let mut warnings = attempts.warnings;
    warnings.extend(apply_acl(maintenance, name, properties).await?);
    match (&properties.collation_version, &current.collation_version) {
        (Some(then), Some(now)) if then != now => warnings
            .push(format!("the database's collation was version `{then}` at the backup and is `{now}` on this server")),
        _ => {}
    }
    Ok(warnings)
}

async fn apply_settings(
    attempts: &mut Attempts<'_>,
    ident: &str,
    current: &DatabaseProperties,
    wanted: &DatabaseProperties,
) -> Result<()> {
    let subject = |role: &str| {
        if role.is_empty() {
            format!("ALTER DATABASE {ident}")
        } else {
            format!("ALTER ROLE {} IN DATABASE {ident}", quote::ident(role))
        }
    };
    for (role, values) in &current.settings {
        let kept: Vec<&str> = names(wanted.settings.get(role)).collect();
        for name in names(Some(values)) {
            if kept.contains(&name) || name == "default_transaction_read_only" {
                continue;
            }
            let sql = format!("{} RESET {}", subject(role), quote::ident(name));
            attempts.run(&sql, || format!("the setting `{name}` was not taken away")).await?;
        }
    }
    for (role, values) in &wanted.settings {
        for value in values {
            if current.settings.get(role).is_some_and(|values| values.contains(value)) {
                continue;
            }
            let Some((name, value)) = setting::parse(value) else { continue };
            let sql = format!("{} SET {}", subject(role), setting::assignment(name, value));
            // The value may be a secret: the warning names the setting only.
            let whose = if role.is_empty() { String::new() } else { format!(" of role `{role}`") };
            attempts.run(&sql, || format!("the database's setting `{name}`{whose} was not set")).await?;
        }
    }
    Ok(())
}

fn names(values: Option<&Vec<String>>) -> impl Iterator<Item = &str> {
    values.into_iter().flatten().filter_map(|value| setting::parse(value)).map(|(name, _)| name)
}

async fn apply_acl(maintenance: &Session, name: &str, properties: &DatabaseProperties) -> Result<Vec<String>> {
    let (current, _) = read(maintenance, name).await?;
    if current.acl == properties.acl {
        return Ok(Vec::new());
    }
    let (now, _) = items(current.acl.as_deref(), &current.owner, &current.owner);
    let (wanted, broken) = items(properties.acl.as_deref(), &properties.owner, &current.owner);
    let mut warnings: Vec<String> =
        broken.into_iter().map(|item| format!("the privilege `{item}` on the database could not be read")).collect();
    if acl::effect(&now) == acl::effect(&wanted) && warnings.is_empty() {
        return Ok(warnings);
    }
    warnings.extend(acl::apply(maintenance, name, &current.owner, &now, &wanted).await?);
    let (after, _) = read(maintenance, name).await?;
    let (after, _) = items(after.acl.as_deref(), &after.owner, &after.owner);
    if warnings.is_empty() && acl::effect(&after) != acl::effect(&wanted) {
        warnings.push("the privileges on the database are not those of the backup".to_owned());
    }
    Ok(warnings)
}

/// The ACL's items, and the texts that are none. The owner at the backup stands for the owner now.
fn items(texts: Option<&[String]>, owner_then: &str, owner_now: &str) -> (Vec<acl::Item>, Vec<String>) {
    let Some(texts) = texts else { return (acl::default_items(owner_now), Vec::new()) };
    let mut items = Vec::new();
    let mut broken = Vec::new();
    for text in texts {
        match acl::parse(text) {
            Some(mut item) => {
                for role in [&mut item.grantee, &mut item.grantor] {
                    if role == owner_then {
                        owner_now.clone_into(role);
                    }
                }
                items.push(item);
            }
            None => broken.push(text.clone()),
        }
    }
    (items, broken)
}

/// Statements that may fail, each with what its failure means.
struct Attempts<'a> {
    maintenance: &'a Session,
    warnings: Vec<String>,
}

impl Attempts<'_> {
    async fn run(&mut self, sql: &str, failed: impl FnOnce() -> String) -> Result<()> {
        match self.maintenance.batch(sql).await {
            Ok(()) => Ok(()),
            Err(error) if error.connection_lost() => Err(error),
            Err(error) => {
                self.warnings.push(format!("{}: {}", failed(), error.message()));
                Ok(())
            }
        }
    }
}
