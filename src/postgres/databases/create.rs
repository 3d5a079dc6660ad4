//! Making a database, and dropping those that were made for a while.

use super::{drop_closed, find};
use crate::error::{Error, Result};
use crate::manifest::DatabaseProperties;
use crate::postgres::{Session, quote};

/// What the comment of every scratch database begins with.
pub const SCRATCH_COMMENT: &str = "ripcord scratch database";

/// Between a scratch database's own comment and the one that it gets when it takes the target's name.
const PENDING: &str = "\ncomment after the swap:\n";

/// The comment of a scratch database: who made it, and from what.
pub fn scratch_comment(run: crate::ids::RunId, backup: crate::ids::BackupId) -> String {
    format!("{SCRATCH_COMMENT} of run {run}, from backup {backup}; may be dropped when that run is over")
}

/// A new scratch name, `rc_<12 hex>`.
pub fn scratch_name() -> String {
    format!("rc_{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// Whether a database of that name may be a scratch database of ours.
pub fn is_scratch_name(name: &str) -> bool {
    name.strip_prefix("rc_")
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// Creates a database from template0 with these properties' owner, encoding, locale and tablespace,
/// CONNECT revoked from PUBLIC, and a comment that says what it is and from which backup. Returns its
/// oid. A name that is taken is an error.
///
/// The comment of a scratch name begins with [`SCRATCH_COMMENT`]; it is put in front when it is missing.
pub async fn create(maintenance: &Session, name: &str, properties: &DatabaseProperties, comment: &str) -> Result<u32> {
    let me = maintenance.server_version_num();
    check_owner(maintenance, &properties.owner).await?;
    let options = create_options(properties, me)?;
    // It admits nobody before it has its comment: what a crash leaves in between can be told by that.
    // language=SQL
    let sql =
        format!("CREATE DATABASE {} WITH TEMPLATE template0 ALLOW_CONNECTIONS false{options}", quote::ident(name));
    maintenance.batch(&sql).await.map_err(|error| {
        let hint = match error.sqlstate() {
            Some("42501") => Some("grant the role CREATEDB: ALTER ROLE … CREATEDB"),
            Some("42P04") => Some("choose another name, or drop the database that has it"),
            _ => None,
        };
        let error = error.context(format!("database `{name}` could not be created"));
        if let Some(hint) = hint { error.hint_if_none(hint) } else { error }
    })?;
    let finished = finish(maintenance, name, properties, comment).await;
    match finished {
        Err(error) if !error.connection_lost() => {
            // CREATE DATABASE succeeded, so the name was free: this one is ours.
            // language=SQL
            let _ = maintenance.batch(&format!("DROP DATABASE IF EXISTS {}", quote::ident(name))).await;
            Err(error.context(format!("database `{name}` could not be created")))
        }
        finished => finished,
    }
}

async fn finish(maintenance: &Session, name: &str, properties: &DatabaseProperties, comment: &str) -> Result<u32> {
    let oid = find(maintenance, name)
        .await?
        .ok_or_else(|| Error::failed(format!("database `{name}` is gone right after it was created")))?
        .oid;
    let comment = if is_scratch_name(name) && !comment.starts_with(SCRATCH_COMMENT) {
        format!("{SCRATCH_COMMENT}: {comment}")
    } else {
        comment.to_owned()
    };
    let ident = quote::ident(name);
    // The owner changes last: a role that may SET ROLE to the owner but does not inherit from it could
    // do none of the rest afterwards.
    // language=SQL
    let sql = format!(
        "BEGIN; \
         REVOKE CONNECT ON DATABASE {ident} FROM PUBLIC; \
         COMMENT ON DATABASE {ident} IS {}; \
         ALTER DATABASE {ident} WITH ALLOW_CONNECTIONS true; \
         ALTER DATABASE {ident} OWNER TO {}; \
         COMMIT",
        quote::literal(&comment),
        quote::ident(&properties.owner),
    );
    if let Err(error) = maintenance.batch(&sql).await {
        let _ = maintenance.batch("ROLLBACK").await;
        return Err(error);
    }
    Ok(oid)
}

/// Whether the database can be handed to its owner, before anything is created.
async fn check_owner(maintenance: &Session, owner: &str) -> Result<()> {
    let privilege = if maintenance.server_version_num() >= 160_000 { "SET" } else { "MEMBER" };
    // language=SQL
    let sql = "SELECT pg_catalog.pg_has_role(r.oid, $2), CURRENT_USER::pg_catalog.text \
               FROM pg_catalog.pg_roles AS r WHERE r.rolname = $1";
    let row = maintenance
        .client()
        .query_opt(sql, &[&owner, &privilege])
        .await
        .map_err(|error| super::session::explain(&error))?;
    let Some(row) = row else {
        return Err(Error::failed(format!("the database's owner, role `{owner}`, does not exist on this server"))
            .hint(format!("create it: CREATE ROLE {}", quote::ident(owner))));
    };
    let (may, me): (bool, String) = (super::get(&row, 0)?, super::get(&row, 1)?);
    if !may {
        return Err(Error::failed(format!("role `{me}` may not create a database for its owner, role `{owner}`"))
            .hint(format!("GRANT {} TO {}", quote::ident(owner), quote::ident(&me))));
    }
    Ok(())
}

fn create_options(properties: &DatabaseProperties, version: i32) -> Result<String> {
    let mut options = format!(
        " ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote::literal(&properties.encoding),
        quote::literal(&properties.collate),
        quote::literal(&properties.ctype)
    );
    let missing = |what: &str| Error::failed(format!("this server has no {what}, which the database was made with"));
    match (properties.locale_provider.as_str(), version) {
        ("c" | "", 150_000..) => options.push_str(" LOCALE_PROVIDER libc"),
        ("c" | "", _) => {}
        ("i", 150_000..) => options.push_str(" LOCALE_PROVIDER icu"),
        ("i", _) => return Err(missing("ICU locale provider")),
        ("b", 170_000..) => options.push_str(" LOCALE_PROVIDER builtin"),
        ("b", _) => return Err(missing("builtin locale provider")),
        (other, _) => return Err(missing(&format!("locale provider `{other}`"))),
    }
    if let Some(locale) = &properties.locale {
        let word = if properties.locale_provider == "b" { "BUILTIN_LOCALE" } else { "ICU_LOCALE" };
        options.push_str(&format!(" {word} {}", quote::literal(locale)));
    }
    match &properties.icu_rules {
        Some(rules) if version >= 160_000 => options.push_str(&format!(" ICU_RULES {}", quote::literal(rules))),
        Some(_) => return Err(missing("ICU rules")),
        None => {}
    }
    // Named, even the default one needs a privilege; template0 lies there already.
    if !properties.tablespace.is_empty() && properties.tablespace != "pg_default" {
        options.push_str(&format!(" TABLESPACE {}", quote::ident(&properties.tablespace)));
    }
    Ok(options)
}

/// Drops a scratch database: only one whose name, oid and comment are those of a scratch database of
/// ours, or one of such a name that a crash left closed and without a comment. Its sessions are ended
/// first. No error when it is gone.
pub async fn drop_scratch(maintenance: &Session, name: &str, oid: Option<u32>) -> Result<()> {
    let refused = |why: &str| Error::refused(format!("database `{name}` is no scratch database of ripcord's: {why}"));
    if !is_scratch_name(name) {
        return Err(refused("its name is not `rc_` and 12 hexadecimal digits"));
    }
    let Some(found) = find(maintenance, name).await? else { return Ok(()) };
    if oid.is_some_and(|oid| oid != found.oid) {
        return Err(refused("it was made after the one that is meant"));
    }
    let half_made = found.comment.is_none() && !found.allows_connections;
    if !half_made && !found.comment.as_deref().is_some_and(|comment| comment.starts_with(SCRATCH_COMMENT)) {
        return Err(refused("its comment does not say so"));
    }
    drop_closed(maintenance, name, found.oid).await
}

/// A scratch database's comment that carries the one which it gets by the swap: until then, its own
/// comment is what lets a crash be cleaned up.
pub(super) fn with_pending_comment(current: Option<&str>, comment: Option<&str>) -> String {
    let own = current.unwrap_or(SCRATCH_COMMENT);
    let own = own.split(PENDING).next().unwrap_or(own);
    match comment {
        Some(comment) => format!("{own}{PENDING}{comment}"),
        None => own.to_owned(),
    }
}

/// The comment that a database is to have under the name that it is made for: its own, but for a
/// scratch database, whose own comment is ripcord's.
pub(in crate::postgres) fn pending_comment(name: &str, current: Option<&str>) -> Option<String> {
    match current {
        Some(current) if is_scratch_name(name) && current.starts_with(SCRATCH_COMMENT) => {
            current.split_once(PENDING).map(|(_, comment)| comment.to_owned())
        }
        current => current.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_names_are_recognised_and_others_are_not() {
        assert!(is_scratch_name(&scratch_name()));
        for other in ["rc_", "rc_0123456789a", "rc_0123456789abc", "rc_0123456789aB", "xrc_0123456789ab", "orders"] {
            assert!(!is_scratch_name(other), "{other}");
        }
    }

    #[test]
    fn the_comment_to_come_survives_inside_the_scratch_comment() {
        let name = "rc_0123456789ab";
        let first = with_pending_comment(Some("ripcord scratch database: of x"), Some("it's\n\"mine\""));
        assert!(first.starts_with(SCRATCH_COMMENT));
        assert_eq!(pending_comment(name, Some(&first)).as_deref(), Some("it's\n\"mine\""));
        let second = with_pending_comment(Some(&first), None);
        assert_eq!(second, "ripcord scratch database: of x");
        assert_eq!(pending_comment(name, Some(&second)), None);
        assert_eq!(pending_comment("orders", Some("plain")).as_deref(), Some("plain"));
    }

    #[test]
    fn options_follow_provider_and_version() {
        let mut properties = DatabaseProperties {
            encoding: "UTF8".into(),
            collate: "C.UTF-8".into(),
            ctype: "C.UTF-8".into(),
            locale_provider: "c".into(),
            tablespace: "pg_default".into(),
            ..DatabaseProperties::default()
        };
        assert_eq!(
            create_options(&properties, 150_000).unwrap(),
            " ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8' LOCALE_PROVIDER libc"
        );
        properties.locale_provider = "b".into();
        properties.locale = Some("C.UTF-8".into());
        properties.tablespace = "Fast".into();
        assert!(create_options(&properties, 160_000).is_err());
        assert!(
            create_options(&properties, 170_000)
                .unwrap()
                .ends_with(" LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' TABLESPACE \"Fast\"")
        );
        properties.locale_provider = "i".into();
        properties.locale = Some("de-DE".into());
        properties.icu_rules = Some("&a < g".into());
        assert!(create_options(&properties, 150_000).is_err(), "rules came with 16");
        assert!(create_options(&properties, 160_000).unwrap().contains("ICU_LOCALE 'de-DE' ICU_RULES '&a < g'"));
    }
}
