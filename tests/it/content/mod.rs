//! What databases contain, and what is left of it after a backup came back: beside, in a drill, by a swap.

mod elsewhere;
mod encodings;
mod limits;
mod names;
mod rich;
mod zoo;

use crate::support::{Cluster, Db, Project};

/// Everything of a database that can be compared with another's.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    /// A schema dump.
    pub schema: Vec<String>,
    /// Each table with its number of rows and a digest of them.
    pub rows: Vec<String>,
    /// Sequences with value and `is_called`.
    pub sequences: Vec<String>,
    /// Large objects with a digest.
    pub large_objects: Vec<String>,
    /// What the dump without `-C` leaves out.
    pub properties: Vec<String>,
}

/// Reads all of it, as the superuser.
pub fn state(cluster: &Cluster, database: &str) -> State {
    let db = Db { cluster, name: database.to_owned() };
    // Bytes that nobody knows the letters of stay as they are.
    let encoding = if db.sql("show server_encoding") == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
    let lines = |sql: &str| -> Vec<String> {
        let text = db.sql(&format!(
            "set client_encoding = {encoding}; set default_transaction_read_only = on; set bytea_output = hex; set timezone = 'UTC';\n\
             set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 1; set statement_timeout = 0;\n{sql}"
        ));
        text.lines().map(str::to_owned).collect()
    };
    let mut schema: Vec<String> = db.schema().lines().map(str::to_owned).collect();
    // Large objects have no entry of their own in a schema dump, but their count may move a comment's oid.
    schema.retain(|line| !line.starts_with("-- Dumped"));
    State {
        schema,
        // Partitioned tables as a whole: by hash of an enum, a row changes partitions in a restore. Where a leaf is
        // a foreign table, which cannot be read here, its other leaves one by one. Names as bytes: what is not UTF-8 could not be printed. Stale views come back fresh, so that only
        // whether they are populated counts.
        rows: lines(
            "select format('select %L, count(*), md5(string_agg(t::text, E''\\n'' order by t::text collate \"C\")) from %s t', \
               md5(quote_ident(n.nspname) || '.' || quote_ident(c.relname)) || ' ' || c.relkind::text, \
               case c.relkind when 'r' then 'only ' else '' end || quote_ident(n.nspname) || '.' || quote_ident(c.relname)) \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind in ('r', 'p') and n.nspname not in ('ripcord', 'information_schema') and n.nspname !~ '^pg_' \
               and (c.relkind = 'r' and not c.relispartition or c.relispartition is distinct from (c.relkind = 'p') and c.relispartition = exists ( \
                 select from pg_partition_tree(pg_partition_root(c.oid)) l join pg_class f on f.oid = l.relid where f.relkind = 'f')) \
             order by 1 \\gexec\n\
             select c.oid::regclass, c.relispopulated from pg_class c where c.relkind = 'm' order by c.oid::regclass::text;",
        ),
        sequences: lines(
            "select format('select %L, last_value, is_called from %s', c.oid::regclass, c.oid::regclass) \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'S' and n.nspname <> 'ripcord' \
             order by 1 \\gexec",
        ),
        large_objects: lines(
            "select m.oid, md5(lo_get(m.oid)), m.lomacl, m.lomowner::regrole, obj_description(m.oid, 'pg_largeobject') \
             from pg_largeobject_metadata m order by 1;",
        ),
        properties: properties(cluster, database),
    }
}

/// Owner, encoding, locale, limit, ACL, comment, settings.
pub fn properties(cluster: &Cluster, database: &str) -> Vec<String> {
    let name = database.replace('\'', "''");
    let sql = format!(
        "select 'owner ' || pg_get_userbyid(datdba), 'encoding ' || encoding, datcollate, datctype, 'limit ' || datconnlimit, \
           'comment ' || coalesce(shobj_description(oid, 'pg_database'), '-'), 'template ' || datistemplate, \
           'open ' || datallowconn from pg_database where datname = '{name}';\n\
         select 'acl', a::text as b from pg_database d, unnest(coalesce(d.datacl, acldefault('d', d.datdba))) a where d.datname = '{name}' \
           order by 2;\n\
         select 'setting', coalesce(r.rolname, '-'), u from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase \
           left join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) u where d.datname = '{name}' \
           order by 2, 3;"
    );
    cluster.sql("postgres", &sql).lines().map(str::to_owned).collect()
}

/// Says which part differs, with the lines.
#[track_caller]
pub fn assert_same(before: &State, after: &State, what: &str) {
    let pairs = [
        ("properties", &before.properties, &after.properties),
        ("schema", &before.schema, &after.schema),
        ("rows", &before.rows, &after.rows),
        ("sequences", &before.sequences, &after.sequences),
        ("large objects", &before.large_objects, &after.large_objects),
    ];
    for (part, before, after) in pairs {
        let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        assert!(gone.is_empty() && new.is_empty(), "{what}: {part} differ\ngone: {gone:#?}\nnew: {new:#?}");
        assert_eq!(before, after, "{what}: {part} in another order");
    }
}

/// Names of the server's databases that begin like a scratch database.
pub fn scratch_databases(cluster: &Cluster) -> String {
    cluster.sql(
        "postgres",
        "select string_agg(datname, ' ') from pg_database where datname like 'rc\\_%' and not datallowconn is null",
    )
}

/// The whole way: a backup, a copy of it beside, a drill, and a run that destroys `wreck` and is answered
/// by a restore with a swap. Each time everything is as it was.
#[track_caller]
pub fn survives(project: &Project, db: &Db<'_>, wreck: &str) {
    let cluster = db.cluster;
    let before = state(cluster, &db.name);
    assert!(!before.rows.is_empty(), "an empty database proves nothing");

    let ran = project.json(&["backup", "create"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done");
    assert_same(&before, &state(cluster, &db.name), "after the backup");

    let copy = format!("copy_of_{}", cluster.sql("postgres", "select substr(md5(random()::text), 1, 10)"));
    let ran = project.json(&["restore", "latest", "--into", &copy]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done");
    assert_same(&before, &state(cluster, &copy), "the copy");
    cluster.sql("postgres", &format!("drop database {copy}"));

    let ran = project.json(&["drill"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");

    project.migration("901_wreck.sql", wreck, "").migration("902_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(3);
    let result = ran.result();
    assert_eq!(result["outcome"], "restored", "{ran:#?}");
    assert!(result["database"].as_str().unwrap().contains("the failed database is kept as `"), "{ran:#?}");
    assert_eq!(result["writes_since_backup"], 0);
    let told = tail(&ran.stderr);
    assert!(told[0].starts_with("database: restored from backup `"), "{told:#?}\n{}", ran.stderr);
    assert_eq!(told[1], "");
    assert!(told[2].starts_with("hint: "), "{told:#?}");
    assert_same(&before, &state(cluster, &db.name), "after the swap");
    drop_aside(cluster, result["database"].as_str().unwrap());
}

/// The line that says what state the database is in, and the last two.
pub fn tail(stderr: &str) -> Vec<String> {
    let lines: Vec<&str> = stderr.lines().collect();
    let state = lines.iter().rfind(|line| line.starts_with("database: ")).copied().unwrap_or_default();
    let last = &lines[lines.len().saturating_sub(2)..];
    std::iter::once(&state).chain(last).map(|line| (*line).to_owned()).collect()
}

/// Drops the database that a swap kept: other tests look at what the server has.
fn drop_aside(cluster: &Cluster, told: &str) {
    let name = told.rsplit_once("kept as `").unwrap().1.trim_end_matches('`');
    cluster.sql("postgres", &format!("drop database \"{}\"", name.replace('"', "\"\"")));
}
