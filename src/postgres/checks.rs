//! Looking at the catalog before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::SimpleQueryMessage;

use super::{Session, quote};
use crate::error::{Error, Result};

/// What a dump's table of contents does not show and a proof must still compare, one line each, sorted:
/// invalid indexes, unvalidated constraints, unpopulated materialized views, extension versions,
/// disabled triggers and rules, replica identities, clustered and per-column settings that pg_dump
/// leaves out, indexes' comments aside. Ripcord's schema is left out.
///
/// A restore cannot bring all of it back: pg_dump leaves invalid indexes out, fills no view that was empty, takes
/// the server's version of an extension, and forgets that a foreign key's own triggers were disabled.
pub async fn catalog_extras(session: &Session, exclude_schemas: &[String]) -> Result<Vec<String>> {
    let rows = session.ours(&EXTRAS.replace("$EXCLUDED", &excluded(exclude_schemas))).await?;
    let mut lines: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    // The server sorts by its collation; two servers may have two.
    lines.sort();
    Ok(lines)
}

/// How large a table is, its partitions included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// As the planner estimates them; of a table that was never analyzed, from its pages.
    pub rows: u64,
    /// With indexes and TOAST.
    pub bytes: u64,
}

/// The sizes of those tables that are there, by the names given. A name without a schema is looked for in the
/// session's `search_path`, then in `public`.
pub async fn table_sizes(session: &Session, names: &[String]) -> Result<BTreeMap<String, TableSize>> {
    // language=SQL
    const SIZES: &str = ", part AS (
            SELECT w.name, w.oid FROM wanted w WHERE w.oid IS NOT NULL
            UNION
            SELECT w.name, t.relid FROM wanted w CROSS JOIN LATERAL pg_catalog.pg_partition_tree(w.oid) t WHERE w.oid IS NOT NULL
        )
        SELECT p.name,
               sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples::pg_catalog.float8
                        ELSE pg_catalog.pg_relation_size(c.oid) / 100.0 END)::pg_catalog.int8,
               sum(pg_catalog.pg_total_relation_size(c.oid))::pg_catalog.int8
        FROM part p JOIN pg_catalog.pg_class c ON c.oid = p.oid
        GROUP BY p.name";
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut sizes = BTreeMap::new();
    for row in session.rows(&(wanted(names) + SIZES)).await? {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let name = cells.next().unwrap_or_default();
        let mut number = || cells.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        sizes.insert(name, TableSize { rows: number(), bytes: number() });
    }
    Ok(sizes)
}

/// The beginning of a query: `wanted` has those names, each with the oid of what it means (NULL: nothing).
fn wanted(names: &[String]) -> String {
    let values: Vec<String> = names.iter().map(|name| format!("({})", quote::literal(name))).collect();
    // language=SQL
    format!(
        "WITH wanted AS (
            SELECT n.name, CASE pg_catalog.cardinality(pg_catalog.parse_ident(n.name))
                WHEN 1 THEN coalesce(pg_catalog.to_regclass(n.name), pg_catalog.to_regclass('public.' || n.name))
                -- With three parts the server looks for another database, and fails.
                WHEN 2 THEN pg_catalog.to_regclass(n.name) END AS oid
            FROM (VALUES {}) AS n(name)
        )",
        values.join(", ")
    )
}

/// What a table brings with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `schema.table`; of an index, the table that it is on.
    pub table: String,
    /// How many partitions and children it has, which are locked with it.
    pub below: u64,
    /// Its triggers that are switched on, but those of foreign keys.
    pub triggers: Vec<String>,
    /// The tables that its foreign keys refer to.
    pub refers_to: Vec<String>,
}

/// The surroundings of those tables and indexes that are there, by the names given; names as in [`table_sizes`].
pub async fn surroundings(session: &Session, names: &[String]) -> Result<BTreeMap<String, Surroundings>> {
    // language=SQL
    const FOUND: &str = ", found AS (
            SELECT w.name, coalesce(i.indrelid, w.oid::pg_catalog.oid) AS oid
              FROM wanted w LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) w.oid
             WHERE w.oid IS NOT NULL
        )
        SELECT f.name, pg_catalog.format('%I.%I', n.nspname, c.relname),
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits h
                 WHERE h.inhparent OPERATOR(pg_catalog.=) f.oid),
               (SELECT pg_catalog.string_agg(t.tgname::pg_catalog.text, E'\n' ORDER BY t.tgname::pg_catalog.text)
                  FROM pg_catalog.pg_trigger t WHERE t.tgrelid OPERATOR(pg_catalog.=) f.oid AND NOT t.tgisinternal
                   AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'),
               (SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', s.nspname, o.relname), E'\n')
                  FROM pg_catalog.pg_constraint k
                  JOIN pg_catalog.pg_class o ON o.oid OPERATOR(pg_catalog.=) k.confrelid
                  JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) o.relnamespace
                 WHERE k.contype OPERATOR(pg_catalog.=) 'f' AND k.conrelid OPERATOR(pg_catalog.=) f.oid
                   AND k.confrelid OPERATOR(pg_catalog.<>) f.oid)
          FROM found f JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) f.oid
          JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace";
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut found = BTreeMap::new();
    for row in session.rows(&(wanted(names) + FOUND)).await? {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || cells.next().unwrap_or_default();
        let (name, table, below) = (next(), next(), next().parse().unwrap_or(0));
        let mut lines = || next().lines().map(str::to_owned).collect();
        found.insert(name, Surroundings { table, below, triggers: lines(), refers_to: lines() });
    }
    Ok(found)
}

/// Those of the names that a relation has, in whatever schema.
pub async fn relations_called(session: &Session, names: &[String]) -> Result<BTreeSet<String>> {
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    // language=SQL
    let query = format!(
        "SELECT DISTINCT relname::pg_catalog.text FROM pg_catalog.pg_class WHERE relname IN ({})",
        quote::literals(names)
    );
    Ok(session.rows(&query).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Foreign keys whose columns no valid index begins with: table, constraint, columns. Ripcord's schema and the
/// system's are left out.
pub async fn bare_foreign_keys(session: &Session) -> Result<Vec<(String, String, String)>> {
    // language=SQL
    const BARE: &str = "
        SELECT k.conrelid::pg_catalog.regclass::pg_catalog.text, k.conname::pg_catalog.text,
               (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY u.n)
                FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u(attnum, n)
                JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum)
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace s ON s.oid = k.connamespace
        WHERE k.contype = 'f' AND k.conparentid = 0 AND s.nspname NOT IN ('ripcord', 'information_schema') AND s.nspname !~ '^pg_'
          AND NOT EXISTS (
              SELECT FROM pg_catalog.pg_index i
              WHERE i.indrelid = k.conrelid AND i.indisvalid
                AND (i.indkey::pg_catalog.int2[])[0:pg_catalog.cardinality(k.conkey) - 1] @> k.conkey)
        ORDER BY 1, 2";
    let rows = session.ours(BARE).await?;
    let cell = |row: &[Option<String>], column: usize| row.get(column).cloned().flatten().unwrap_or_default();
    Ok(rows.iter().map(|row| (cell(row, 0), cell(row, 1), cell(row, 2))).collect())
}

/// Ordinary and partitioned tables without row level security; partitions, ripcord's schema and the system's are
/// left out.
pub async fn tables_without_row_security(session: &Session) -> Result<Vec<String>> {
    // language=SQL
    const OPEN: &str = "
        SELECT c.oid::pg_catalog.regclass::pg_catalog.text
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT c.relrowsecurity AND c.relpersistence <> 't'
          AND s.nspname NOT IN ('ripcord', 'information_schema') AND s.nspname !~ '^pg_'
        ORDER BY 1";
    let rows = session.ours(OPEN).await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

// language=SQL
const EXTRAS: &str = "
WITH relation AS (
    SELECT c.*, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN ('information_schema', $EXCLUDED) AND n.nspname !~ '^pg_' AND c.relpersistence <> 't'
)
SELECT 'extension ' || e.extname || ' ' || e.extversion FROM pg_catalog.pg_extension e
UNION ALL
SELECT 'index ' || r.name || ' on ' || t.name || ' ' || CASE WHEN i.indisready THEN 'invalid' ELSE 'not ready' END
FROM pg_catalog.pg_index i JOIN relation r ON r.oid = i.indexrelid JOIN relation t ON t.oid = i.indrelid
WHERE NOT i.indisvalid OR NOT i.indisready
UNION ALL
SELECT 'index ' || r.name || ' on ' || t.name || ' clusters its table'
FROM pg_catalog.pg_index i JOIN relation r ON r.oid = i.indexrelid JOIN relation t ON t.oid = i.indrelid
WHERE i.indisclustered
UNION ALL
SELECT 'materialized view ' || r.name || ' not populated' FROM relation r WHERE r.relkind = 'm' AND NOT r.relispopulated
UNION ALL
SELECT 'table ' || r.name || ' replica identity ' ||
    CASE r.relreplident WHEN 'f' THEN 'full' WHEN 'n' THEN 'nothing' ELSE 'index ' || coalesce(x.name, '?') END
FROM relation r
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = r.oid AND i.indisreplident
LEFT JOIN relation x ON x.oid = i.indexrelid
WHERE r.relkind IN ('r', 'p') AND r.relreplident <> 'd'
UNION ALL
SELECT 'constraint ' || pg_catalog.quote_ident(k.conname) || ' on ' || r.name || ' not validated'
FROM pg_catalog.pg_constraint k JOIN relation r ON r.oid = k.conrelid WHERE NOT k.convalidated
UNION ALL
SELECT DISTINCT 'trigger ' || pg_catalog.quote_ident(CASE WHEN g.tgisinternal THEN 'of constraint ' || k.conname ELSE g.tgname END)
    || ' on ' || r.name || ' enabled ' || g.tgenabled::pg_catalog.text
FROM pg_catalog.pg_trigger g JOIN relation r ON r.oid = g.tgrelid
LEFT JOIN pg_catalog.pg_constraint k ON k.oid = g.tgconstraint WHERE g.tgenabled <> 'O'
UNION ALL
SELECT 'rule ' || pg_catalog.quote_ident(w.rulename) || ' on ' || r.name || ' enabled ' || w.ev_enabled::pg_catalog.text
FROM pg_catalog.pg_rewrite w JOIN relation r ON r.oid = w.ev_class WHERE w.ev_enabled <> 'O'
UNION ALL
SELECT 'event trigger ' || pg_catalog.quote_ident(v.evtname) || ' enabled ' || v.evtenabled::pg_catalog.text
FROM pg_catalog.pg_event_trigger v WHERE v.evtenabled <> 'O'
UNION ALL
SELECT 'large objects ' || pg_catalog.count(*) || ' of ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(b.lomowner))
    || ' open to ' || b.open_to || ' ' || pg_catalog.md5(pg_catalog.string_agg(
        b.oid || ' ' || coalesce(pg_catalog.obj_description(b.oid, 'pg_largeobject'), ''), ',' ORDER BY b.oid))
FROM (
    SELECT l.oid, l.lomowner, (
        SELECT coalesce(pg_catalog.string_agg(a.item, ',' ORDER BY a.item COLLATE \"C\"), '') FROM (
            SELECT CASE x.grantee WHEN 0 THEN '' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END
                || '=' || x.privilege_type || x.is_grantable
            FROM pg_catalog.aclexplode(coalesce(l.lomacl, pg_catalog.acldefault('L', l.lomowner))) AS x
        ) AS a (item)) AS open_to
    FROM pg_catalog.pg_largeobject_metadata l
) AS b
GROUP BY b.lomowner, b.open_to";

/// Why something may run that no statement names: event triggers, domains that compute, and, when `queries` are
/// executed, views, policies, operators and the like that call somebody's functions. `None`: there is no such thing,
/// so that a text tells all that it does. What extensions brought is trusted, but for event triggers.
pub async fn hidden_code(session: &Session, queries: bool) -> Result<Option<String>> {
    let sql = if queries { format!("{ALWAYS_HIDDEN} UNION ALL {HIDDEN_IN_QUERIES}") } else { ALWAYS_HIDDEN.to_owned() };
    let rows = session.ours(&format!("{sql} LIMIT 1")).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

// language=SQL
const ALWAYS_HIDDEN: &str = "
WITH code AS (
    SELECT p.* FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid >= 16384 AND n.nspname NOT IN ('pg_catalog', 'ripcord') AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
)
SELECT 'event trigger ' || v.evtname || ' runs at every change of the schema'
FROM pg_catalog.pg_event_trigger v WHERE v.evtenabled <> 'D'
UNION ALL
SELECT 'a domain computes by function ' || c.proname
FROM pg_catalog.pg_depend d JOIN code c ON c.oid = d.refobjid
WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND (
    d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass OR
    d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
        AND d.objid IN (SELECT k.oid FROM pg_catalog.pg_constraint k WHERE k.contypid <> 0))";

// language=SQL
const HIDDEN_IN_QUERIES: &str = "
SELECT 'what is queried may call function ' || c.proname
FROM pg_catalog.pg_depend d JOIN code c ON c.oid = d.refobjid
WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.classid IN (
    'pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
    'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_cast'::pg_catalog.regclass,
    'pg_catalog.pg_class'::pg_catalog.regclass)
UNION ALL
SELECT 'function ' || c.proname || ' has the name of a built-in one'
FROM code c WHERE c.prorettype NOT IN ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)
AND c.proname IN (SELECT b.proname FROM pg_catalog.pg_proc b WHERE b.pronamespace = 'pg_catalog'::pg_catalog.regnamespace)
UNION ALL
SELECT 'aggregate or function ' || c.proname || ' stands behind a foreign table'
FROM code c WHERE c.prorettype = 'pg_catalog.fdw_handler'::pg_catalog.regtype";

/// Indexes that are invalid now, `schema.index on schema.table`.
pub async fn invalid_indexes(session: &Session) -> Result<Vec<String>> {
    // language=SQL
    let rows = session
        .ours(
            "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) || ' on ' || \
             pg_catalog.quote_ident(m.nspname) || '.' || pg_catalog.quote_ident(t.relname) \
             FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace m ON m.oid = t.relnamespace \
             WHERE NOT i.indisvalid OR NOT i.indisready ORDER BY 1",
        )
        .await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Constraints that are not validated, as [`catalog_extras`] words it without its ending: `constraint name on
/// schema.table`. Left out are ripcord's schema and those of `exclude_schemas`, what is declared as not enforced or was
/// inherited, and what `known` names (`schema.table.constraint`).
pub async fn unvalidated_constraints(
    session: &Session,
    exclude_schemas: &[String],
    known: &[String],
) -> Result<Vec<String>> {
    // language=SQL
    const NOT_VALIDATED: &str = "
        SELECT 'constraint ' || pg_catalog.quote_ident(k.conname) || ' on ' || pg_catalog.quote_ident(n.nspname) || '.'
            || pg_catalog.quote_ident(r.relname)
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class r ON r.oid = k.conrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
        WHERE NOT k.convalidated AND k.conislocal AND k.conparentid = 0 AND n.nspname NOT IN ($EXCLUDED)
          AND coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::pg_catalog.bool, true)";
    let mut sql = NOT_VALIDATED.replace("$EXCLUDED", &excluded(exclude_schemas));
    for given in known {
        let (schema, table, name) = qualified_within(given).ok_or_else(|| wrong(given, "schema.table.constraint"))?;
        sql.push_str(&format!(
            " AND NOT (n.nspname IN ({schema}) AND r.relname IN ({table}) AND k.conname IN ({name}))"
        ));
    }
    let rows = session.rows(&sql).await?;
    let mut found: Vec<String> = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    found.sort();
    Ok(found)
}

fn wrong(given: &str, form: &str) -> Error {
    Error::usage(format!("`{given}` is not a name of the form `{form}`"))
}

fn excluded(schemas: &[String]) -> String {
    quote::literals(std::iter::once("ripcord").chain(schemas.iter().map(String::as_str)))
}

/// What must be there. A name without a schema is one in `public`; without quotes it is found as written and in
/// lower case.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// `schema.table`; views count as tables.
    pub tables: &'a [String],
    /// `schema.function`; procedures count as functions, and what stands in parentheses is not looked at.
    pub functions: &'a [String],
    /// `schema.table.policy`.
    pub policies: &'a [String],
}

/// Which of the expected objects are not there, each as it was given.
pub async fn missing_objects(session: &Session, expected: Expected<'_>) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    // language=SQL
    let table = "SELECT FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace \
                 WHERE o.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname IN ($SCHEMA) AND o.relname IN ($NAME)";
    // language=SQL
    let function = "SELECT FROM pg_catalog.pg_proc o JOIN pg_catalog.pg_namespace n ON n.oid = o.pronamespace \
                    WHERE n.nspname IN ($SCHEMA) AND o.proname IN ($NAME)";
    // language=SQL
    let policy = "SELECT FROM pg_catalog.pg_policy o JOIN pg_catalog.pg_class t ON t.oid = o.polrelid \
                  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace \
                  WHERE n.nspname IN ($SCHEMA) AND t.relname IN ($NAME) AND o.polname IN ($POLICY)";
    let mut queries = Vec::new();
    for (given, query) in
        expected.tables.iter().map(|name| (name, table)).chain(expected.functions.iter().map(|name| (name, function)))
    {
        let name = if query == function { given.split('(').next().unwrap_or_default().trim() } else { given.as_str() };
        let (schema, object) = qualified(name).ok_or_else(|| wrong(given, "schema.name"))?;
        queries.push((given, query.replace("$SCHEMA", &schema).replace("$NAME", &object)));
    }
    for given in expected.policies {
        let (schema, object, name) = qualified_within(given).ok_or_else(|| wrong(given, "schema.table.policy"))?;
        queries.push((given, policy.replace("$SCHEMA", &schema).replace("$NAME", &object).replace("$POLICY", &name)));
    }
    for (given, sql) in queries {
        if session.ours(&format!("{sql} LIMIT 1")).await?.is_empty() {
            missing.push(given.clone());
        }
    }
    Ok(missing)
}

/// A name's two parts, each as a list of the literals that it may stand for.
fn qualified(name: &str) -> Option<(String, String)> {
    let mut parts = parts(name)?.into_iter();
    match (parts.next()?, parts.next(), parts.next()) {
        (name, None, _) => Some((quote::literal("public"), name)),
        (schema, Some(name), None) => Some((schema, name)),
        _ => None,
    }
}

/// Which of these tables are nowhere: one with a schema is looked for there, one without in every schema, since a
/// migration may have set its `search_path`.
pub async fn missing_anywhere(session: &Session, tables: &[String]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for given in tables {
        let Some((schema, name)) = qualified(given) else { continue };
        let within = if given.contains('.') { format!(" AND n.nspname IN ({schema})") } else { String::new() };
        // language=SQL
        let sql = format!(
            "SELECT FROM pg_catalog.pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace \
             WHERE o.relkind IN ('r', 'p', 'v', 'm', 'f') AND o.relname IN ({name}){within} LIMIT 1"
        );
        if session.rows(&sql).await?.is_empty() {
            missing.push(given.clone());
        }
    }
    Ok(missing)
}

/// The three parts of something's name that stands within a table: `schema.table.name`.
fn qualified_within(name: &str) -> Option<(String, String, String)> {
    let mut parts = parts(name)?.into_iter();
    match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        (table, name, None, _) => Some((quote::literal("public"), table, name)),
        (schema, table, Some(name), None) => Some((schema, table, name)),
        _ => None,
    }
}

/// The parts of a name between its dots, each as a list of the literals that it may stand for.
fn parts(name: &str) -> Option<Vec<String>> {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = name.trim();
    loop {
        let (part, quoted, after) = match rest.strip_prefix('"') {
            Some(inner) => {
                let mut text = String::new();
                let mut characters = inner.char_indices();
                let end = loop {
                    match characters.next()? {
                        (at, '"') if inner.get(at + 1..).is_some_and(|after| after.starts_with('"')) => {
                            text.push('"');
                            characters.next();
                        }
                        (at, '"') => break at + 1,
                        (_, c) => text.push(c),
                    }
                };
                (text, true, inner.get(end..)?)
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest.get(..end)?.to_owned(), false, rest.get(end..)?)
            }
        };
        if part.is_empty() {
            return None;
        }
        parts.push(match part.to_lowercase() {
            folded if !quoted && folded != part => quote::literals([part, folded]),
            _ => quote::literal(&part),
        });
        match (after.strip_prefix('.'), after) {
            (Some(next), _) => rest = next,
            (None, "") => break,
            (None, _) => return None,
        }
    }
    Some(parts)
}

/// Rows (as text) that a check's query returned, at most `limit`. It runs in a read-only transaction, so that
/// a check cannot change what it looks at.
pub async fn check_rows(session: &Session, sql: &str, limit: usize) -> Result<Vec<String>> {
    // language=SQL
    session.batch("BEGIN READ ONLY").await?;
    let answer = collect(session, sql, limit).await;
    // language=SQL
    match (answer, session.batch("ROLLBACK").await) {
        (Err(error), _) => Err(session.explain(&error)),
        (Ok(_), Err(error)) => Err(error),
        (Ok(rows), Ok(())) => Ok(rows),
    }
}

async fn collect(
    session: &Session,
    sql: &str,
    limit: usize,
) -> std::result::Result<Vec<String>, tokio_postgres::Error> {
    let mut rows = Vec::new();
    let mut answers = pin!(session.client().simple_query_raw(sql).await?);
    while let Some(answer) = answers.try_next().await? {
        // Read to the end: what is left unread would be in the way of the ROLLBACK.
        let SimpleQueryMessage::Row(row) = answer else { continue };
        if rows.len() >= limit {
            continue;
        }
        let mut columns = Vec::with_capacity(row.len());
        for (at, column) in row.columns().iter().enumerate() {
            columns.push(format!("{}: {}", column.name(), row.try_get(at)?.unwrap_or("NULL")));
        }
        rows.push(columns.join(", "));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_quotes() {
        let parts = |name| qualified(name).map(|(schema, name)| format!("{schema} | {name}"));
        assert_eq!(parts("public.orders").as_deref(), Some("'public' | 'orders'"));
        assert_eq!(parts("orders").as_deref(), Some("'public' | 'orders'"));
        assert_eq!(parts("app.Orders").as_deref(), Some("'app' | 'Orders', 'orders'"));
        assert_eq!(parts("\"A.b\".\"c\"\"d\"").as_deref(), Some("'A.b' | 'c\"d'"));
        assert_eq!(parts("x.it's").as_deref(), Some("'x' | 'it''s'"));
        for wrong in ["", ".", "a.", "\"a", "\"a\"b", "a.b.c"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
