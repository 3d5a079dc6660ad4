//! `adopt --compat`: the other tool's objects are renamed aside, and views and functions of their names, with their
//! columns, tell what ripcord's history says, so that the queries that people and dashboards have go on working.
//!
//! A view reads through a PL/pgSQL function, whose body names `ripcord` only when it is called: a backup leaves that
//! schema out, and a view that depended on it could not be restored.

use tokio_postgres::Client;

use super::adopt::OldTable;
use super::known::{COMPAT_COMMENT, Column, Holds, Known, Role};
use super::while_doing;
use crate::error::{Error, Result};
use crate::postgres::quote::{ident, literal};

/// What is put behind the name of an object that makes room.
const ASIDE: &str = "_before_ripcord";

/// Renames and makes everything, in the open transaction. Returns what was done, in words.
pub(super) async fn make(client: &Client, tables: &[OldTable]) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for table in tables {
        let Some(source) = source_of(table) else { continue };
        let known = &table.known;
        done.push(rename(client, known).await?);
        run(client, &view(known, &source)).await?;
        copy_grants(client, known).await?;
        done.push(format!("made the view `{}` over ripcord's history", known.label()));
    }
    for table in tables.iter().filter(|table| table.known.holds == Holds::History) {
        for function in functions_for(&table.known) {
            done.extend(make_function(client, &table.known.schema, function).await?);
        }
    }
    Ok(done)
}

async fn run(client: &Client, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(while_doing("the other tool's objects could not be replaced"))
}

/// A name in the same schema that tells where the object came from; 63 bytes are the server's limit.
fn aside(name: &str) -> String {
    let mut short = name.to_owned();
    while short.len() + ASIDE.len() > 63 {
        short.pop();
    }
    format!("{short}{ASIDE}")
}

async fn rename(client: &Client, known: &Known) -> Result<String> {
    let name = aside(&known.table);
    // language=SQL
    run(client, &format!("alter table {} rename to {}", known.sql(), ident(&name))).await?;
    Ok(format!("renamed `{}` to `{name}`", known.label()))
}

/// Where a view's columns come from.
struct Source {
    /// The FROM clause.
    from: String,
    /// An expression for a column.
    value: Box<dyn Fn(&Column) -> String>,
    /// What a DELETE or an UPDATE through the view does, as PL/pgSQL.
    change: String,
}

fn source_of(table: &OldTable) -> Option<Source> {
    match table.known.holds {
        Holds::History | Holds::Drizzle => Some(history(table)),
        Holds::Lock => Some(lock()),
        Holds::Other => other(&table.known.table),
    }
}

/// The newest row of each migration, in the words and forms that the old rows have.
fn history(table: &OldTable) -> Source {
    let of = |role: Role| table.known.column(role).map(|column| ident(&column.name));
    let with_ending = table.rows.iter().any(|row| row.identity.ends_with(".sql"));
    let bare =
        !table.rows.is_empty() && table.rows.iter().all(|row| row.identity.bytes().all(|byte| byte.is_ascii_digit()));
    let label = "case when m.name = '' or m.version = m.name or right(m.version, length(m.name) + 1) = '_' || m.name \
                 then m.version else m.version || '_' || m.name end";
    let identity = match (table.known.holds, bare, with_ending) {
        (Holds::Drizzle, ..) => "m.checksum".to_owned(),
        (_, true, _) => "m.version".to_owned(),
        (_, _, true) => format!("({label}) || '.sql'"),
        _ => label.to_owned(),
    };
    let well = ["applied", "success", "done", "executed", "complete"];
    let word = table
        .rows
        .iter()
        .filter_map(|row| row.status.as_deref())
        .find(|word| well.contains(word))
        .unwrap_or("completed")
        .to_owned();
    let change = format!(
        "if tg_op = 'DELETE' then
             update ripcord.schema_migrations as m
                set state = case when m.state in ('applied', 'baseline') then 'forgotten' else 'failed_reset' end
              where m.state in ('applied', 'baseline', 'failed') and ({identity}) = format('%s', old.{key});
         elsif {checksum} then
             update ripcord.schema_migrations as m set checksum = {new_checksum}, loose_checksum = null
              where m.state in ('applied', 'baseline') and ({identity}) = format('%s', old.{key});
         else
             raise exception 'ripcord alone writes here, but for DELETE of a row and UPDATE of a checksum'
                 using hint = 'ripcord repair';
         end if;
         insert into ripcord.audit_log (action, actor, detail)
         values ('repair', concat(session_user, ' (by SQL)'), jsonb_build_object('what', tg_op, 'migration', format('%s', old.{key})));",
        key = of(Role::Identity).unwrap_or_else(|| "id".to_owned()),
        checksum = of(Role::Checksum).map_or_else(
            || "false".to_owned(),
            |name| format!("tg_op = 'UPDATE' and new.{name} is distinct from old.{name}")
        ),
        new_checksum = of(Role::Checksum).map_or_else(|| "m.checksum".to_owned(), |name| format!("new.{name}")),
    );
    let drizzle = table.known.holds == Holds::Drizzle;
    Source {
        from: "(select distinct on (r.version) r.* from ripcord.schema_migrations as r
                 where r.state not in ('superseded', 'forgotten', 'failed_reset')
                 order by r.version, r.state in ('applied', 'baseline') desc, r.id desc) as m order by m.id"
            .to_owned(),
        value: Box::new(move |column| match (column.role, column.name.as_str()) {
            (Some(Role::Identity), _) => identity.clone(),
            (Some(Role::Name), _) => "m.name".to_owned(),
            (Some(Role::Checksum), _) => "m.checksum".to_owned(),
            (Some(Role::Duration), _) => "m.execution_time_ms".to_owned(),
            (Some(Role::Success), _) => "m.state in ('applied', 'baseline')".to_owned(),
            (Some(Role::Status), _) => format!(
                "case when m.state in ('applied', 'baseline') then {} when m.state = 'failed' then 'failed' \
                 else 'rolled_back' end",
                literal(&word)
            ),
            (Some(Role::Error), _) => "m.error".to_owned(),
            (Some(Role::RollbackSql), _) => "m.down_sql".to_owned(),
            (Some(Role::Batch), _) => "m.batch".to_owned(),
            (Some(Role::By), _) => "m.applied_by".to_owned(),
            (None, "created_at") if drizzle => "(extract(epoch from m.applied_at) * 1000)::int8".to_owned(),
            (Some(Role::Time), _) | (None, "created_at" | "updated_at") => "m.applied_at".to_owned(),
            (None, "id") if matches!(column.sql_type.as_str(), "integer" | "bigint") => "m.id".to_owned(),
            (None, "version") => "m.version".to_owned(),
            _ => "null".to_owned(),
        }),
        change,
    }
}

fn lock() -> Source {
    Source {
        from: "(select 1) as one (id) left join ripcord.lock as l on true".to_owned(),
        value: Box::new(|column| {
            match column.name.as_str() {
                "id" => "1",
                "lock_name" => "case when l.run_id is not null then 'migration_lock' end",
                "is_locked" => "l.run_id is not null",
                "lock_id" => "l.run_id",
                "locked_by" | "acquired_by" => "l.holder",
                "locked_at" | "acquired_at" => "l.since",
                "hostname" => "l.host",
                "process_id" | "pid" => "l.pid",
                "expires_at" => "l.expires_at",
                _ => "null",
            }
            .to_owned()
        }),
        change: "raise exception 'the lock is a session''s, and no row frees it' using hint = 'ripcord lock release';"
            .to_owned(),
    }
}

fn other(table: &str) -> Option<Source> {
    let (from, columns): (&str, fn(&str) -> &'static str) = match table {
        "_backup_history" => ("ripcord.backup_history as b order by b.started_at", |name| match name {
            "backup_id" => "b.id",
            "filename" => "b.id || '.rip'",
            "path" => "b.location",
            "size" => "b.stored_bytes",
            "checksum" => "b.digest",
            "created_at" => "b.started_at",
            "type" => "b.purpose",
            "status" => "b.status",
            "compressed" | "encrypted" => "true",
            _ => "null",
        }),
        "_migration_audit_log" => ("ripcord.audit_log as a order by a.id", |name| match name {
            "audit_id" | "id" => "a.id",
            "action" => "a.action",
            "actor" => "a.actor",
            "timestamp" | "created_at" => "a.at",
            "details" => "a.detail",
            _ => "null",
        }),
        "_migration_rollback_history" => ("ripcord.rollback_history as r order by r.id", |name| match name {
            "rollback_id" | "id" => "r.id",
            "migration_id" => "r.version",
            "rolled_back_at" => "r.at",
            "rolled_back_by" => "r.rolled_back_by",
            "reason" => "r.how",
            "duration_ms" => "r.execution_time_ms",
            "success" => "true",
            _ => "null",
        }),
        "_migration_versions" => ("ripcord.releases as v order by v.id", |name| match name {
            "id" => "v.id",
            "version" | "name" => "v.name",
            "migration_id" => "v.version",
            "created_at" | "released_at" | "applied_at" => "v.at",
            _ => "null",
        }),
        _ => return None,
    };
    Some(Source {
        from: from.to_owned(),
        value: Box::new(move |column| columns(&column.name).to_owned()),
        change: "raise exception 'ripcord alone writes here';".to_owned(),
    })
}

/// The function that reads, the view over it, and the trigger that says what a change through it does.
fn view(known: &Known, source: &Source) -> String {
    let reader = format!("{}.{}", ident(&known.schema), ident(&aside(&format!("read_{}", known.table))));
    let changer = format!("{}.{}", ident(&known.schema), ident(&aside(&format!("change_{}", known.table))));
    let kind = |column: &Column| match column.plain && !column.is_enum {
        true => column.sql_type.clone(),
        false => "text".to_owned(),
    };
    let declared: Vec<String> =
        known.columns.iter().map(|column| format!("{} {}", ident(&column.name), kind(column))).collect();
    let values: Vec<String> =
        known.columns.iter().map(|column| format!("({})::{}", (source.value)(column), kind(column))).collect();
    // The lock's row is there only while there is a lock, but for the table that has always one.
    let only = match known.holds == Holds::Lock && known.columns.iter().any(|column| column.name == "lock_name") {
        true => " where l.run_id is not null",
        false => "",
    };
    // language=SQL
    format!(
        "create function {reader}() returns table ({declared}) language plpgsql stable
             set search_path = pg_catalog, pg_temp as {body};
         comment on function {reader}() is '{COMPAT_COMMENT}';
         create view {view} as select * from {reader}();
         comment on view {view} is '{COMPAT_COMMENT}; what was here is {aside_name}';
         create function {changer}() returns trigger language plpgsql
             set search_path = pg_catalog, pg_temp as {change};
         comment on function {changer}() is '{COMPAT_COMMENT}';
         create trigger change instead of insert or update or delete on {view}
             for each row execute function {changer}();",
        declared = declared.join(", "),
        body = literal(&format!(
            "#variable_conflict use_column\nbegin\n  return query select {} from {}{only};\nend",
            values.join(", "),
            source.from
        )),
        view = known.sql(),
        aside_name = aside(&known.table).replace('\'', "''"),
        change = literal(&format!(
            "begin\n  if tg_op = 'INSERT' then raise exception 'ripcord alone writes here'; end if;\n  {}\n  \
             if tg_op = 'DELETE' then return old; end if;\n  return new;\nend",
            source.change
        )),
    )
}

/// Whoever could read the table can read the view.
async fn copy_grants(client: &Client, known: &Known) -> Result<()> {
    // language=SQL
    let sql = format!(
        "select case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
           from pg_class as c, aclexplode(c.relacl) as a
          where c.oid = {} and a.privilege_type = 'SELECT' and a.grantee <> c.relowner",
        known.oid
    );
    let failed = while_doing("the rights on the other tool's table could not be read");
    for row in client.query(&sql, &[]).await.map_err(&failed)? {
        let grantee: String = row.try_get(0).map_err(&failed)?;
        run(client, &format!("grant select on {} to {grantee}", known.sql())).await?;
    }
    Ok(())
}

/// A function or view that a guide's people call.
struct Callable {
    name: &'static str,
    is_view: bool,
    arguments: &'static str,
    /// From the closing parenthesis on, or after `as` of a view.
    rest: &'static str,
}

const STATUS: Callable = Callable {
    name: "migration_system_status",
    is_view: true,
    arguments: "",
    rest: "select * from {schema}.migration_system_status_rows()",
};

// Read when they are called, like the views.
const STATUS_ROWS: Callable = Callable {
    name: "migration_system_status_rows",
    is_view: false,
    arguments: "",
    rest: "returns table (check_name text, status text, details text) language plpgsql stable
           as $body$ #variable_conflict use_column
           begin return query select s.check_name, s.status, s.details from ripcord.system_checks() as s; end $body$",
};

const SUMMARY: Callable = Callable {
    name: "get_migration_summary",
    is_view: false,
    arguments: "",
    rest: "returns table (total_migrations bigint, successful_migrations bigint, failed_migrations bigint,
                          rolled_back_migrations bigint, last_batch integer, last_migration_at timestamptz,
                          average_execution_time_ms numeric) language plpgsql stable
           as $body$ #variable_conflict use_column
           begin
               return query select s.total, s.applied, s.failed, s.rolled_back, s.last_batch, s.last_applied_at,
                                   s.average_execution_time_ms from ripcord.get_migration_summary() as s;
           end $body$",
};

const ROLLBACK: Callable = Callable {
    name: "rollback_migration",
    is_view: false,
    arguments: "wanted text",
    rest: "returns text language plpgsql
           as $body$
           declare
               chosen record;
               began timestamptz := pg_catalog.clock_timestamp();
           begin
               if exists (select from ripcord.lock as l where l.expires_at > pg_catalog.now()) then
                   raise exception 'a run of ripcord is at work' using hint = 'ripcord lock status';
               end if;
               select m.* into chosen from ripcord.schema_migrations as m
                where m.state in ('applied', 'baseline')
                  and (wanted is null
                       or pg_catalog.regexp_replace(wanted, '[.]sql$', '') in
                          (m.version, m.name, m.version || '_' || m.name))
                order by coalesce(m.copy_of, m.id) desc limit 1 for update;
               if chosen.id is null then
                   raise exception 'no applied migration is called %', coalesce(wanted, '(none is applied)')
                       using hint = 'ripcord history';
               end if;
               if coalesce(chosen.down_sql, '') = '' then
                   raise exception 'there is no DOWN for %_%', chosen.version, chosen.name
                       using hint = 'ripcord restore latest --before ' || chosen.version;
               end if;
               raise notice 'no backup is taken here, and nothing is proved; ripcord rollback does both';
               execute chosen.down_sql;
               update ripcord.schema_migrations as m set state = 'rolled_back' where m.id = chosen.id;
               insert into ripcord.rollback_history
                      (migration_id, version, name, checksum, batch, how, execution_time_ms, rolled_back_by, tool_version)
               values (chosen.id, chosen.version, chosen.name, chosen.checksum, chosen.batch, 'sql',
                       (extract(epoch from pg_catalog.clock_timestamp() - began) * 1000)::bigint,
                       session_user || ' (by SQL)', chosen.tool_version);
               return 'rolled back ' || chosen.version || '_' || chosen.name;
           end $body$",
};

const ROLLBACK_LAST: Callable = Callable {
    name: "rollback_last_migration",
    is_view: false,
    arguments: "",
    rest: "returns text language plpgsql
           as $body$ begin return {schema}.rollback_migration(null); end $body$",
};

const DEPENDENCIES: Callable = Callable {
    name: "validate_migration_dependencies",
    is_view: false,
    arguments: "wanted text",
    rest: "returns table (migration_id text, status text, details text) language plpgsql stable
           as $body$ #variable_conflict use_column
           begin
               return query
               select m.version, m.state, 'ripcord validate and ripcord plan tell what it depends on'::text
                 from ripcord.schema_migrations as m
                where wanted in (m.version, m.name, m.version || '_' || m.name) order by m.id;
           end $body$",
};

fn functions_for(known: &Known) -> Vec<Callable> {
    match known.table.as_str() {
        "schema_migrations" => vec![STATUS_ROWS, STATUS, SUMMARY, ROLLBACK, ROLLBACK_LAST],
        "_migration_history" => vec![DEPENDENCIES],
        _ => Vec::new(),
    }
}

/// Makes one, after what has its name was renamed aside.
async fn make_function(client: &Client, schema: &str, callable: Callable) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let full = format!("{}.{}", ident(schema), ident(callable.name));
    // language=SQL
    const THERE: &str = "
        select 'function', p.oid::regprocedure::text from pg_proc as p
         where p.pronamespace = (select oid from pg_namespace where nspname = $1) and p.proname = $2
           and p.pronargs = $3::int4 and p.prokind = 'f'
        union all
        select case c.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'table' end, c.oid::regclass::text
          from pg_class as c
         where c.relnamespace = (select oid from pg_namespace where nspname = $1) and c.relname = $2";
    let failed = while_doing("the other tool's functions could not be looked for");
    let arguments = i32::from(!callable.arguments.is_empty());
    for row in client.query(THERE, &[&schema, &callable.name, &arguments]).await.map_err(&failed)? {
        let (kind, found): (String, String) = (row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?);
        let is_relation = kind != "function";
        if is_relation != callable.is_view {
            continue;
        }
        // language=SQL
        run(client, &format!("alter {kind} {found} rename to {}", ident(&aside(callable.name)))).await?;
        done.push(format!("renamed the {kind} `{found}` to `{}`", aside(callable.name)));
    }
    let rest = callable.rest.replace("{schema}", &ident(schema));
    // language=SQL
    let sql = match callable.is_view {
        true => format!("create view {full} as {rest}; comment on view {full} is '{COMPAT_COMMENT}'"),
        false => {
            let types = if callable.arguments.is_empty() { "" } else { "text" };
            format!(
                "create function {full}({}) {rest}; comment on function {full}({types}) is '{COMPAT_COMMENT}'",
                callable.arguments
            )
        }
    };
    run(client, &sql).await.map_err(|error: Error| error.context(format!("making `{}`", callable.name)))?;
    done.push(format!("made `{schema}.{}`", callable.name));
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_aside_fit_the_servers_limit() {
        assert_eq!(aside("migrations"), "migrations_before_ripcord");
        assert_eq!(aside(&"x".repeat(63)).len(), 63);
        assert!(aside(&"ä".repeat(31)).len() <= 63);
    }
}
