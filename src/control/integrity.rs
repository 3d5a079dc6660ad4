//! Whether what is called `ripcord` in a database is ours, told from catalogs alone.
//!
//! Whoever owns a database can make a schema of our name before we do, with a table that carries a trigger;
//! a superuser's ripcord would then run their code with its rights. So nothing of the schema is touched
//! before each thing in it was found to be exactly what ripcord makes, and its owner to be someone who
//! gains nothing by changing it afterwards.

use std::collections::BTreeMap;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::schema::SCHEMA_VERSION;
use super::while_doing;
use crate::error::{Error, Result};

/// What each version looks like, as `describe.sql` tells it; the same on servers 15 to 18.
const EXPECTED: [(i32, &str); 2] =
    [(1, include_str!("schema_1.expected")), (SCHEMA_VERSION, include_str!("schema_2.expected"))];

/// How many differences an error names.
const NAMED: usize = 8;

/// Kinds in the order in which an error names them: what can run code or hide rows before what is merely odd.
const ORDER: [&str; 8] = ["owner", "relation", "trigger", "rule", "policy", "function", "object", "inheritance"];

/// The comment that a schema of ours carries, without the version.
const COMMENT: &str = "control schema of ripcord, version ";

/// What the catalog says of the schema.
struct Found {
    owner: Owner,
    comment: String,
    lines: Vec<Line>,
}

struct Owner {
    name: String,
    is_superuser: bool,
    /// Whether the session's role is the owner or has all that the owner has.
    is_ours: bool,
    /// Whether the session has a superuser's rights, or can have them back by RESET ROLE.
    we_are_superuser: bool,
    our_name: String,
}

type Line = (String, String, String);

/// The version of the schema, `None` when there is none of that name; refused when it is not ours.
pub(super) async fn checked_version(client: &Client) -> Result<Option<i32>> {
    let Some(found) = read(client).await? else { return Ok(None) };
    check_owner(&found.owner)?;
    let version = found.comment.strip_prefix(COMMENT).and_then(|number| number.parse::<i32>().ok());
    if let Some(newer) = version.filter(|version| *version > SCHEMA_VERSION) {
        return Err(made_by_newer(newer));
    }
    // What says nothing of its version is measured by the one that this binary makes.
    let known = EXPECTED.iter().find(|(known, _)| Some(*known) == version);
    let (version, expected) = known.copied().unwrap_or((SCHEMA_VERSION, include_str!("schema_2.expected")));
    let differences = differences(&parse(expected), &found.lines);
    if differences.is_empty() { Ok(Some(version)) } else { Err(not_ours(&differences)) }
}

/// The refusal of a schema that a later version of ripcord made.
pub(super) fn made_by_newer(version: i32) -> Error {
    Error::refused(format!(
        "the schema `ripcord` has version {version}, made by a newer ripcord; this one knows versions up to {SCHEMA_VERSION}"
    ))
    .hint("run the newer ripcord")
}

fn check_owner(owner: &Owner) -> Result<()> {
    let Owner { name, our_name, .. } = owner;
    if owner.we_are_superuser && !owner.is_superuser {
        return Err(Error::refused(format!("the schema `ripcord` belongs to `{name}`, who is no superuser"))
            .because(format!("what `{name}` puts there would run with the rights of the superuser `{our_name}`"))
            .hint(format!("connect as `{name}`, or as a member of it that is no superuser")));
    }
    if !owner.is_ours {
        return Err(Error::refused(format!("the schema `ripcord` belongs to `{name}`"))
            .because(format!("`{our_name}` is no member of `{name}`"))
            .hint(format!("connect as `{name}`, or `grant \"{name}\" to \"{our_name}\"`")));
    }
    Ok(())
}

fn not_ours(differences: &[String]) -> Error {
    let mut error = Error::refused("the schema `ripcord` of this database is not as ripcord makes it");
    for difference in differences.iter().take(NAMED) {
        error = error.because(difference);
    }
    if differences.len() > NAMED {
        error = error.because(format!("and {} more differences", differences.len() - NAMED));
    }
    error.hint("look at who made that; `alter schema ripcord rename to ripcord_aside` puts it out of the way")
}

fn parse(text: &str) -> Vec<Line> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, '\t');
            Some((parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?.to_owned()))
        })
        .collect()
}

fn rank(kind: &str) -> usize {
    ORDER.iter().position(|named| *named == kind).unwrap_or(ORDER.len())
}

/// Each difference in one line, the graver kinds first, then by object.
fn differences(expected: &[Line], found: &[Line]) -> Vec<String> {
    // What is expected of an object, and what is there.
    let mut by_object: BTreeMap<(usize, &str, &str), [Vec<&str>; 2]> = BTreeMap::new();
    for (side, lines) in [expected, found].into_iter().enumerate() {
        for (kind, object, details) in lines {
            let sides = by_object.entry((rank(kind), kind, object)).or_default();
            if let Some(lines) = sides.get_mut(side) {
                lines.push(details);
            }
        }
    }
    let mut told = Vec::new();
    for ((_, kind, object), [mut expected, mut found]) in by_object {
        expected.sort_unstable();
        found.sort_unstable();
        if expected == found {
            continue;
        }
        let (expected, found) = (expected.join("; "), found.join("; "));
        told.push(if expected.is_empty() {
            format!("{kind} `{object}` is not ours: `{found}`")
        } else if found.is_empty() {
            format!("{kind} `{object}` is missing")
        } else {
            format!("{kind} `{object}` is `{found}` and should be `{expected}`")
        });
    }
    told
}

async fn read(client: &Client) -> Result<Option<Found>> {
    // One message and so one transaction: the search_path holds for these statements alone, and each is
    // analysed after the one before has run.
    // language=SQL
    const BEFORE: &str = "
        select pg_catalog.set_config('ripcord.search_path', pg_catalog.current_setting('search_path'), true);
        select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        select owner.rolname, owner.rolsuper, pg_has_role(current_user, owner.oid, 'USAGE'),
               exists (select from pg_roles where rolsuper and rolname in (current_user, session_user)),
               current_user, coalesce(obj_description(space.oid, 'pg_namespace'), '')
          from pg_namespace as space join pg_roles as owner on owner.oid = space.nspowner
         where space.nspname = 'ripcord'";
    // language=SQL
    const AFTER: &str =
        "select pg_catalog.set_config('search_path', pg_catalog.current_setting('ripcord.search_path'), true)";
    let sql = format!("{BEFORE};\n{};\n{AFTER}", include_str!("describe.sql"));
    let failed = while_doing("the schema `ripcord` could not be looked at");
    let messages = client.simple_query(&sql).await.map_err(&failed)?;

    let mut statement = 0;
    let mut head: Option<(Owner, String)> = None;
    let mut lines = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::CommandComplete(_) => statement += 1,
            SimpleQueryMessage::Row(row) => {
                let value =
                    |at: usize| -> Result<String> { Ok(row.try_get(at).map_err(&failed)?.unwrap_or("").to_owned()) };
                if statement == 2 {
                    let owner = Owner {
                        name: value(0)?,
                        is_superuser: value(1)? == "t",
                        is_ours: value(2)? == "t",
                        we_are_superuser: value(3)? == "t",
                        our_name: value(4)?,
                    };
                    head = Some((owner, value(5)?));
                } else if statement == 3 {
                    lines.push((value(0)?, value(1)?, value(2)?));
                }
            }
            _ => {}
        }
    }
    Ok(head.map(|(owner, comment)| Found { owner, comment, lines }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, object: &str, details: &str) -> Line {
        (kind.to_owned(), object.to_owned(), details.to_owned())
    }

    #[test]
    fn each_difference_names_its_object() {
        let expected =
            [line("relation", "meta", "r p"), line("column", "meta.x", "text"), line("function", "f()", "body 1")];
        let found = [
            line("relation", "meta", "v p"),
            line("trigger", "ripcord.meta.evil", "…"),
            line("function", "f()", "body 1"),
        ];
        assert_eq!(
            differences(&expected, &found),
            [
                "relation `meta` is `v p` and should be `r p`",
                "trigger `ripcord.meta.evil` is not ours: `…`",
                "column `meta.x` is missing",
            ]
        );
        assert!(differences(&expected, &expected).is_empty());
    }

    #[test]
    fn the_expected_description_is_whole() {
        for (_, expected) in EXPECTED {
            let lines = parse(expected);
            assert_eq!(lines.len(), expected.lines().count());
            assert_eq!(lines.iter().filter(|(kind, ..)| kind == "trigger").count(), 5);
            let tables = lines
                .iter()
                .filter(|(kind, object, details)| kind == "relation" && details == "r p" && !object.is_empty());
            assert_eq!(tables.count(), 8);
        }
    }

    #[test]
    fn a_long_list_of_differences_is_cut() {
        let many: Vec<String> = (0..20).map(|number| format!("difference {number}")).collect();
        let error = not_ours(&many);
        assert_eq!(error.causes().len(), NAMED + 1);
        assert_eq!(error.causes().last().map(String::as_str), Some("and 12 more differences"));
    }
}
