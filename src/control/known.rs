//! Other tools' tables of what was applied: found by their columns, looked at through catalogs, and read without
//! running anything of theirs.
//!
//! A view, a rule, a policy, a trigger or a type of theirs could run their code with our rights. So only ordinary
//! tables whose columns have the server's own types are read, and each value is written by its type's own output.

use tokio_postgres::{Client, Row};

use super::while_doing;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::postgres::quote;

mod read;

pub use read::{count, other_rows, rows};

/// What a table of another tool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// What was applied.
    History,
    /// What Drizzle applied: hashes and times.
    Drizzle,
    /// Who is at work.
    Lock,
    /// Backups, audit, rollbacks and the like: kept as they are, in the audit log.
    Other,
}

/// What a column means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The migration: a file's name, a version.
    Identity,
    /// Its name, where another column identifies it.
    Name,
    /// The file's checksum.
    Checksum,
    /// When.
    Time,
    /// How long, in milliseconds.
    Duration,
    /// Whether it went well.
    Success,
    /// The same in words.
    Status,
    /// What went wrong.
    Error,
    /// What undoes it.
    RollbackSql,
    /// The batch.
    Batch,
    /// Who.
    By,
}

/// A column of another tool's table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as SQL writes it.
    pub sql_type: String,
    /// Whether the type is the server's own, or an enum.
    pub plain: bool,
    /// Whether it is an enum.
    pub is_enum: bool,
    /// What it means, where that is known.
    pub role: Option<Role>,
}

/// A table of another tool.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its oid.
    pub oid: u32,
    /// What it holds.
    pub holds: Holds,
    /// Who owns it.
    pub owner: String,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Why it must not be read, with the statement that mends it where there is one.
    pub hindrance: Option<(String, Option<String>)>,
    /// Who besides its owner may write to it, or why its owner is not to be trusted with scripts that we run.
    pub doubtful: Option<String>,
}

/// A row of a history.
#[derive(Clone, Debug, Default)]
pub struct OldRow {
    /// A file's name, a version.
    pub identity: String,
    /// Its name.
    pub name: Option<String>,
    /// The file's checksum, whatever the algorithm.
    pub checksum: Option<String>,
    /// When.
    pub at: Option<Time>,
    /// How long, in milliseconds.
    pub duration_ms: Option<i64>,
    /// Whether it went well.
    pub success: Option<bool>,
    /// The same in words.
    pub status: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// What undoes it.
    pub rollback_sql: Option<String>,
    /// The batch.
    pub batch: Option<i32>,
    /// Who.
    pub by: Option<String>,
}

/// The names under which histories are looked for. A table of such a name counts only with the columns of one.
const HISTORIES: [&str; 5] =
    ["schema_migrations", "migration_history", "_migration_history", "migrations", "_migrations"];

/// What stands beside a history, by name, and the column that it must have.
const BESIDE: [(&str, &str, Holds); 9] = [
    ("migration_lock", "is_locked", Holds::Lock),
    ("_migration_locks", "lock_name", Holds::Lock),
    ("_migration_versions", "version", Holds::Other),
    ("_backup_history", "backup_id", Holds::Other),
    ("_backup_restoration_history", "backup_id", Holds::Other),
    ("_migration_audit_log", "action", Holds::Other),
    ("_migration_rollback_history", "migration_id", Holds::Other),
    ("_migration_performance_metrics", "migration_id", Holds::Other),
    ("_migration_dependencies", "migration_id", Holds::Other),
];

/// Schemas of Supabase's own services, whose tables of that kind are none of ours.
const NOT_OURS: [&str; 14] = [
    "auth",
    "storage",
    "realtime",
    "_realtime",
    "_analytics",
    "supabase_functions",
    "supabase_migrations",
    "graphql",
    "vault",
    "pgsodium",
    "extensions",
    "pgbouncer",
    "net",
    "cron",
];

/// Names of columns for each meaning, the likeliest first, and what their type must be.
const ROLES: [(Role, Kind, &[&str]); 11] = [
    (
        Role::Identity,
        Kind::Text,
        &[
            "migration_name",
            "filename",
            "file_name",
            "script_name",
            "migration_id",
            "version",
            "migration",
            "name",
            "id",
        ],
    ),
    (Role::Name, Kind::Text, &["name", "description", "title"]),
    (Role::Checksum, Kind::Text, &["checksum", "hash", "file_hash", "content_hash", "sha256"]),
    (
        Role::Time,
        Kind::Time,
        &[
            "applied_at",
            "executed_at",
            "run_at",
            "run_on",
            "migrated_at",
            "installed_on",
            "completed_at",
            "finished_at",
            "created_at",
        ],
    ),
    (
        Role::Duration,
        Kind::Integer,
        &["execution_time_ms", "duration_ms", "execution_ms", "execution_time", "duration"],
    ),
    (Role::Success, Kind::Boolean, &["success", "successful", "is_success", "succeeded"]),
    (Role::Status, Kind::Text, &["status", "state"]),
    (Role::Error, Kind::Text, &["error_message", "error", "error_msg", "failure_reason"]),
    (Role::RollbackSql, Kind::Text, &["rollback_sql", "down_sql", "rollback_script"]),
    (Role::Batch, Kind::Integer, &["batch_number", "batch", "batch_id"]),
    (Role::By, Kind::Text, &["applied_by", "executed_by", "installed_by", "run_by"]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Boolean,
    Time,
}

impl Kind {
    fn is(self, column: &Column) -> bool {
        let kind = column.sql_type.as_str();
        match self {
            Kind::Text => matches!(kind, "text" | "name") || kind.starts_with("character") || column.is_enum,
            Kind::Integer => matches!(kind, "integer" | "bigint" | "smallint"),
            Kind::Boolean => kind == "boolean",
            Kind::Time => kind.starts_with("timestamp"),
        }
    }
}

impl Known {
    /// `schema.table`.
    pub fn label(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// Quoted for SQL.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote::ident(&self.schema), quote::ident(&self.table))
    }

    /// The column that means this.
    pub fn column(&self, role: Role) -> Option<&Column> {
        self.columns.iter().find(|column| column.role == Some(role))
    }

    /// Whether a person who says `from` means it: the table, with or without its schema, or `drizzle`.
    pub fn is_called(&self, from: &str) -> bool {
        from == self.table || from == self.label() || (from == "drizzle" && self.holds == Holds::Drizzle)
    }

    /// The error of one that must not be read.
    pub fn refuse(&self) -> Result<()> {
        let Some((why, cure)) = &self.hindrance else { return Ok(()) };
        let error = Error::refused(format!("`{}`, owned by `{}`, is not taken over: {why}", self.label(), self.owner))
            .because("it would run code of somebody else's with the rights of this connection");
        Err(error.hint(match cure {
            Some(cure) => format!("when nothing needs it any more: {cure}\n      or record what is applied yourself: ripcord baseline VERSION"),
            None => "record what is applied yourself: ripcord baseline VERSION".to_owned(),
        }))
    }
}

/// All such tables of the database, histories first. Reads catalogs alone. `but`: schemas to leave alone.
pub async fn find(client: &Client, but: &[String]) -> Result<Vec<Known>> {
    // language=SQL
    const FIND: &str = "
        select n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.oid,
               pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text,
               c.relkind::pg_catalog.text, c.relrowsecurity, c.relpersistence::pg_catalog.text, c.relhassubclass,
               (select pg_catalog.string_agg(pg_catalog.quote_ident(t.tgname::pg_catalog.text), ',')
                  from pg_catalog.pg_trigger as t
                 where t.tgrelid OPERATOR(pg_catalog.=) c.oid and not t.tgisinternal),
               (select pg_catalog.string_agg(pg_catalog.quote_ident(r.rulename::pg_catalog.text), ',')
                  from pg_catalog.pg_rewrite as r where r.ev_class OPERATOR(pg_catalog.=) c.oid),
               coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), ''),
               (select pg_catalog.string_agg(distinct case when a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                                                           then 'everybody'
                                                           else pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text
                                                      end, ', ')
                  from pg_catalog.aclexplode(c.relacl) as a
                 where a.grantee OPERATOR(pg_catalog.<>) c.relowner
                   and a.privilege_type OPERATOR(pg_catalog.=) any (array['INSERT', 'UPDATE', 'TRIGGER']::pg_catalog.text[])),
               pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE'),
               (select o.rolsuper from pg_catalog.pg_roles as o where o.oid OPERATOR(pg_catalog.=) c.relowner),
               exists (select from pg_catalog.pg_roles as us
                        where us.rolsuper and us.rolname::pg_catalog.text
                              OPERATOR(pg_catalog.=) any (array[current_user, session_user]::pg_catalog.text[]))
          from pg_catalog.pg_class as c
          join pg_catalog.pg_namespace as n on n.oid OPERATOR(pg_catalog.=) c.relnamespace
         where c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) any (array['r', 'v', 'm', 'f', 'p']::pg_catalog.text[])
           and (c.relname::pg_catalog.text OPERATOR(pg_catalog.=) any ($1)
                or n.nspname::pg_catalog.text OPERATOR(pg_catalog.=) 'drizzle'
                or pg_catalog.strpos(c.relname::pg_catalog.text, 'drizzle') OPERATOR(pg_catalog.>) 0)
           and n.nspname::pg_catalog.text OPERATOR(pg_catalog.<>) all ($2)
         order by n.nspname::pg_catalog.text, c.relname::pg_catalog.text";
    let failed = while_doing("the tables of other tools could not be looked for");
    let names: Vec<&str> = HISTORIES.into_iter().chain(BESIDE.map(|(name, ..)| name)).collect();
    let mut but: Vec<&str> = but.iter().map(String::as_str).collect();
    but.extend(NOT_OURS);
    but.extend(["ripcord", "pg_catalog", "information_schema"]);
    let mut found = Vec::new();
    for row in client.query(FIND, &[&names, &but]).await.map_err(&failed)? {
        let oid: u32 = row.try_get(2).map_err(&failed)?;
        let columns = columns(client, oid).await?;
        if let Some(known) = recognise(&row, columns).map_err(&failed)? {
            found.push(known);
        }
    }
    let place = |known: &Known| {
        let history = HISTORIES.iter().position(|name| *name == known.table).unwrap_or(HISTORIES.len());
        (known.holds != Holds::History && known.holds != Holds::Drizzle, history, known.label())
    };
    found.sort_by_key(place);
    // What stands beside a history counts only beside one.
    let histories: Vec<String> = histories(&found).map(|known| known.schema.clone()).collect();
    found.retain(|known| histories.contains(&known.schema));
    Ok(found)
}

/// Those that tell what was applied.
pub fn histories(found: &[Known]) -> impl Iterator<Item = &Known> {
    found.iter().filter(|known| matches!(known.holds, Holds::History | Holds::Drizzle))
}

/// The beginning of the comment on a view that `adopt --compat` makes.
pub const COMPAT_COMMENT: &str = "made by ripcord adopt --compat";

async fn columns(client: &Client, oid: u32) -> Result<Vec<Column>> {
    // Types of the server's own, and enums, whose output is the server's as well.
    // language=SQL
    const COLUMNS: &str = "
        select a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod),
               (t.typnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid
                or t.typtype::pg_catalog.text OPERATOR(pg_catalog.=) 'e')
               and a.attgenerated::pg_catalog.text OPERATOR(pg_catalog.=) any (array['', 's']::pg_catalog.text[]),
               t.typtype::pg_catalog.text OPERATOR(pg_catalog.=) 'e'
          from pg_catalog.pg_attribute as a join pg_catalog.pg_type as t on t.oid OPERATOR(pg_catalog.=) a.atttypid
         where a.attrelid OPERATOR(pg_catalog.=) $1 and a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
           and not a.attisdropped
         order by a.attnum";
    let failed = while_doing("the columns of another tool's table could not be looked at");
    let rows = client.query(COLUMNS, &[&oid]).await.map_err(&failed)?;
    rows.iter()
        .map(|row| {
            Ok(Column {
                name: row.try_get(0).map_err(&failed)?,
                sql_type: row.try_get(1).map_err(&failed)?,
                plain: row.try_get(2).map_err(&failed)?,
                is_enum: row.try_get(3).map_err(&failed)?,
                role: None,
            })
        })
        .collect()
}

fn recognise(row: &Row, mut columns: Vec<Column>) -> Result<Option<Known>, tokio_postgres::Error> {
    let table: String = row.try_get(1)?;
    let comment: String = row.try_get(10)?;
    let Some(holds) = shape(&table, &mut columns) else { return Ok(None) };
    let (schema, oid, owner): (String, u32, String) = (row.try_get(0)?, row.try_get(2)?, row.try_get(3)?);
    let kind: String = row.try_get(4)?;
    if kind == "v" && comment.starts_with(COMPAT_COMMENT) {
        return Ok(None);
    }
    let sql = format!("{}.{}", quote::ident(&schema), quote::ident(&table));
    let hindrance = hindrance(row, &kind, &sql, &columns)?;
    let writers: Option<String> = row.try_get(11)?;
    let (member, super_owner, we_are_super): (bool, Option<bool>, bool) =
        (row.try_get(12)?, row.try_get(13)?, row.try_get(14)?);
    let doubtful = match writers {
        Some(writers) => Some(format!("{writers} may write to it")),
        None if we_are_super && super_owner != Some(true) => {
            Some(format!("its owner `{owner}` is no superuser, and this connection is one"))
        }
        None if !member => Some(format!("this connection is no member of its owner `{owner}`")),
        None => None,
    };
    Ok(Some(Known { schema, table, oid, holds, owner, columns, hindrance, doubtful }))
}

fn hindrance(
    row: &Row,
    kind: &str,
    sql: &str,
    columns: &[Column],
) -> Result<Option<(String, Option<String>)>, tokio_postgres::Error> {
    let (triggers, rules): (Option<String>, Option<String>) = (row.try_get(8)?, row.try_get(9)?);
    let each = |names: &str, what: &str| {
        names.split(',').map(|name| format!("DROP {what} {name} ON {sql};")).collect::<Vec<_>>().join(" ")
    };
    let kind = match kind {
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "f" => Some("a foreign table"),
        "p" => Some("a partitioned table"),
        _ => None,
    };
    Ok(if let Some(kind) = kind {
        Some((format!("it is {kind}, and no ordinary table"), None))
    } else if let Some(rules) = rules {
        Some((format!("it has rules: {rules}"), Some(each(&rules, "RULE"))))
    } else if let Some(triggers) = triggers {
        Some((format!("it has triggers: {triggers}"), Some(each(&triggers, "TRIGGER"))))
    } else {
        columns.iter().find(|column| column.role.is_some() && !column.plain).map(|column| {
            (
                format!(
                    "its column `{}` has the type `{}`, which is not the server's own",
                    column.name, column.sql_type
                ),
                None,
            )
        })
    })
}

/// What a table of that name holds, by its columns; each column that has a meaning gets its role.
fn shape(table: &str, columns: &mut [Column]) -> Option<Holds> {
    let has = |name: &str, kind: Kind| columns.iter().any(|column| column.name == name && kind.is(column));
    if has("id", Kind::Integer) && has("hash", Kind::Text) && has("created_at", Kind::Integer) {
        for column in columns.iter_mut() {
            column.role = match column.name.as_str() {
                "hash" => Some(Role::Identity),
                _ => None,
            };
        }
        return Some(Holds::Drizzle);
    }
    if let Some((_, key, holds)) = BESIDE.iter().find(|(name, ..)| *name == table) {
        return columns.iter().any(|column| column.name == *key).then_some(*holds);
    }
    if !HISTORIES.contains(&table) {
        return None;
    }
    for (role, kind, names) in ROLES {
        let found = names.iter().find_map(|name| {
            columns.iter().position(|column| column.name == *name && column.role.is_none() && kind.is(column))
        });
        if let Some(column) = found.and_then(|at| columns.get_mut(at)) {
            column.role = Some(role);
        }
    }
    let tells = |role: Role| columns.iter().any(|column| column.role == Some(role));
    (tells(Role::Identity) && tells(Role::Time)).then_some(Holds::History)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(named: &[(&str, &str)]) -> Vec<Column> {
        let column = |(name, sql_type): &(&str, &str)| Column {
            name: (*name).to_owned(),
            sql_type: (*sql_type).to_owned(),
            plain: true,
            is_enum: false,
            role: None,
        };
        named.iter().map(column).collect()
    }

    #[test]
    fn histories_are_told_by_their_columns() {
        let varchar = "character varying(255)";
        let stamp = "timestamp with time zone";
        for (table, named, identity) in [
            ("schema_migrations", vec![("version", varchar), ("applied_at", stamp), ("success", "boolean")], "version"),
            ("schema_migrations", vec![("id", "integer"), ("filename", "text"), ("executed_at", stamp)], "filename"),
            ("migration_history", vec![("migration_name", varchar), ("executed_at", stamp)], "migration_name"),
            (
                "_migration_history",
                vec![("migration_id", varchar), ("name", varchar), ("applied_at", stamp)],
                "migration_id",
            ),
            ("_migrations", vec![("name", "text"), ("applied_at", "timestamp without time zone")], "name"),
        ] {
            let mut columns = columns(&named);
            assert_eq!(shape(table, &mut columns), Some(Holds::History), "{table}");
            let role = columns.iter().find(|column| column.role == Some(Role::Identity)).unwrap();
            assert_eq!(role.name, identity, "{table}");
        }
        let mut drizzle = columns(&[("id", "integer"), ("hash", "text"), ("created_at", "bigint")]);
        assert_eq!(shape("__drizzle_migrations", &mut drizzle), Some(Holds::Drizzle));
    }

    #[test]
    fn tables_of_the_same_name_and_another_shape_are_none() {
        for (table, named) in [
            ("schema_migrations", vec![("version", "bigint"), ("dirty", "boolean")]),
            ("schema_migrations", vec![("version", "character varying")]),
            ("schema_migrations", vec![("version", "bigint"), ("inserted_at", "timestamp without time zone")]),
            ("migrations", vec![("id", "integer"), ("timestamp", "bigint"), ("name", "character varying")]),
            ("migrations", vec![("id", "integer"), ("migration", "text"), ("batch", "integer")]),
            ("orders", vec![("name", "text"), ("applied_at", "timestamp with time zone")]),
            ("_backup_history", vec![("id", "integer")]),
        ] {
            assert_eq!(shape(table, &mut columns(&named)), None, "{table} {named:?}");
        }
    }
}
