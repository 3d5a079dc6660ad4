//! A database's ACL: items as PostgreSQL prints them, and the SQL that brings them about.

use std::collections::{BTreeMap, BTreeSet};

use super::setting::split_quoted;
use crate::error::Result;
use crate::postgres::{Session, quote};

/// One privilege that one role gave another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    /// The role that has it; empty for PUBLIC.
    pub grantee: String,
    /// The role that gave it.
    pub grantor: String,
    /// Letters of privileges (`C`, `T`, `c`), each with whether it may be granted on.
    pub privileges: Vec<(char, bool)>,
}

/// Reads `grantee=privileges/grantor`, role names quoted where PostgreSQL quotes them.
pub(super) fn parse(text: &str) -> Option<Item> {
    let (grantee, rest) = role(text, '=')?;
    let (letters, rest) = rest.split_once('/')?;
    let (grantor, "") = role(rest, '\0')? else { return None };
    let mut privileges: Vec<(char, bool)> = Vec::new();
    for letter in letters.chars() {
        match (letter, privileges.last_mut()) {
            ('*', Some((_, option))) => *option = true,
            ('*', None) => return None,
            (letter, _) => privileges.push((letter, false)),
        }
    }
    Some(Item { grantee, grantor, privileges })
}

fn role(text: &str, end: char) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (name, rest) = split_quoted(quoted)?;
        return if end == '\0' { Some((name, rest)) } else { Some((name, rest.strip_prefix(end)?)) };
    }
    if end == '\0' {
        return Some((text.to_owned(), ""));
    }
    let (name, rest) = text.split_once(end)?;
    Some((name.to_owned(), rest))
}

fn privilege(letter: char) -> Option<&'static str> {
    match letter {
        'C' => Some("CREATE"),
        'T' => Some("TEMPORARY"),
        'c' => Some("CONNECT"),
        _ => None,
    }
}

/// What a new database's ACL means when pg_database holds none.
pub(super) fn default_items(owner: &str) -> Vec<Item> {
    let item = |grantee: &str, letters: &str| Item {
        grantee: grantee.to_owned(),
        grantor: owner.to_owned(),
        privileges: letters.chars().map(|letter| (letter, false)).collect(),
    };
    vec![item("", "Tc"), item(owner, "CTc")]
}

/// Who has what, whoever gave it: equal sets mean equal rights.
pub(super) fn effect(items: &[Item]) -> BTreeMap<(String, char), bool> {
    let mut rights = BTreeMap::new();
    for item in items {
        for (letter, option) in &item.privileges {
            *rights.entry((item.grantee.clone(), *letter)).or_insert(false) |= option;
        }
    }
    rights
}

fn grantee(name: &str) -> String {
    if name.is_empty() { "PUBLIC".to_owned() } else { quote::ident(name) }
}

/// Gives the database these rights and no others, in one transaction. What cannot be given is told in
/// the warnings.
pub(super) async fn apply(
    maintenance: &Session,
    database: &str,
    owner: &str,
    current: &[Item],
    wanted: &[Item],
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    maintenance.batch("BEGIN").await?;
    let done = apply_inside(maintenance, database, owner, current, wanted, &mut warnings).await;
    match done {
        Ok(()) => maintenance.batch("COMMIT").await?,
        Err(error) if error.connection_lost() => return Err(error),
        Err(error) => {
            maintenance.batch("ROLLBACK").await?;
            warnings.push(format!("the privileges on the database were left as they are: {}", error.one_line()));
        }
    }
    Ok(warnings)
}

async fn apply_inside(
    maintenance: &Session,
    database: &str,
    owner: &str,
    current: &[Item],
    wanted: &[Item],
    warnings: &mut Vec<String>,
) -> Result<()> {
    let database = quote::ident(database);
    // Everyone's rights go first, and with them what they granted on.
    let mut holders: BTreeSet<&str> = current.iter().map(|item| item.grantee.as_str()).collect();
    holders.extend(["", owner]);
    for holder in holders {
        // language=SQL
        let sql = format!("REVOKE ALL PRIVILEGES ON DATABASE {database} FROM {} CASCADE", grantee(holder));
        // A role that is gone and still in the list: nothing to take from it by name.
        if let Err(error) = attempt(maintenance, &sql).await? {
            warnings.push(format!("privileges on the database could not be revoked: {}", error.one_line()));
        }
    }
    // (role, privilege) that may be granted on by now; the owner always may.
    let mut may_grant: BTreeSet<(String, char)> = BTreeSet::new();
    let mut waiting: Vec<&Item> = wanted.iter().collect();
    loop {
        let before = waiting.len();
        let mut later = Vec::new();
        for item in waiting {
            let by_owner = item.grantor == owner;
            let able = item.privileges.iter().all(|(letter, _)| may_grant.contains(&(item.grantor.clone(), *letter)));
            if !by_owner && !able {
                later.push(item);
                continue;
            }
            let role = (!by_owner).then_some(item.grantor.as_str());
            give(maintenance, &database, item, role, warnings).await?;
            may_grant.extend(
                item.privileges.iter().filter(|(_, option)| *option).map(|(letter, _)| (item.grantee.clone(), *letter)),
            );
        }
        waiting = later;
        if waiting.is_empty() || waiting.len() == before {
            break;
        }
    }
    for item in waiting {
        give(maintenance, &database, item, None, warnings).await?;
    }
    Ok(())
}

/// Grants one item, as `role` when it was not the owner who did; as the owner when that cannot be.
async fn give(
    maintenance: &Session,
    database: &str,
    item: &Item,
    role: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    for with_option in [false, true] {
        let names: Vec<&str> = item
            .privileges
            .iter()
            .filter(|(_, option)| *option == with_option)
            .filter_map(|(letter, _)| privilege(*letter))
            .collect();
        if names.is_empty() {
            continue;
        }
        // language=SQL
        let grant = format!(
            "GRANT {} ON DATABASE {database} TO {}{}",
            names.join(", "),
            grantee(&item.grantee),
            if with_option { " WITH GRANT OPTION" } else { "" }
        );
        if let Some(role) = role {
            let as_role = format!("SET LOCAL ROLE {}; {grant}; RESET ROLE", quote::ident(role));
            if attempt(maintenance, &as_role).await?.is_ok() {
                continue;
            }
        }
        match attempt(maintenance, &grant).await? {
            Ok(()) if role.is_some() => warnings.push(format!(
                "{} on the database was granted to {} by its owner instead of `{}`",
                names.join(", "),
                shown(&item.grantee),
                item.grantor
            )),
            Ok(()) => {}
            Err(error) => warnings.push(format!(
                "{} on the database could not be granted to {}: {}",
                names.join(", "),
                shown(&item.grantee),
                error.one_line()
            )),
        }
    }
    Ok(())
}

fn shown(grantee: &str) -> String {
    if grantee.is_empty() { "PUBLIC".to_owned() } else { format!("`{grantee}`") }
}

/// Runs SQL inside the open transaction so that its failure undoes nothing else. The outer error is a
/// lost connection.
async fn attempt(maintenance: &Session, sql: &str) -> Result<Result<()>> {
    maintenance.batch("SAVEPOINT ripcord_attempt").await?;
    match maintenance.batch(sql).await {
        Ok(()) => {
            maintenance.batch("RELEASE SAVEPOINT ripcord_attempt").await?;
            Ok(Ok(()))
        }
        Err(error) if error.connection_lost() => Err(error),
        Err(error) => {
            maintenance.batch("ROLLBACK TO SAVEPOINT ripcord_attempt").await?;
            Ok(Err(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_as_postgres_prints_them() {
        let item = parse("app=c*T/owner1").unwrap();
        assert_eq!((item.grantee.as_str(), item.grantor.as_str()), ("app", "owner1"));
        assert_eq!(item.privileges, [('c', true), ('T', false)]);
        assert_eq!(parse("=Tc/postgres").unwrap().grantee, "");
        let odd = parse("\"a=\"\"b/\"=C/\"x y\"").unwrap();
        assert_eq!((odd.grantee.as_str(), odd.grantor.as_str()), ("a=\"b/", "x y"));
    }

    #[test]
    fn broken_items_are_none() {
        for broken in ["", "a", "a=c", "\"a=c/b", "a=*c/b", "a=c/\"b\"x"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_effect_does_not_ask_who_granted() {
        let one = [parse("a=c/x").unwrap(), parse("a=c*/y").unwrap()];
        let other = [parse("a=c*/z").unwrap()];
        assert_eq!(effect(&one), effect(&other));
        assert_ne!(effect(&one[..1]), effect(&other));
    }
}
