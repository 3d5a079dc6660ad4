//! For each rule what makes it fire, where, and the nearest harmless variant.

/// Files of a folder: name and text.
pub type Files = Vec<(&'static str, String)>;

/// Two folders: the first makes the rule fire once, at `place`, the other does not.
pub struct Example {
    pub rule: &'static str,
    pub fires: Files,
    /// `file:line`, or the file alone where no line is told.
    pub place: &'static str,
    pub quiet: Files,
}

/// One file's UP, in line 4 of it.
fn file(up: &str) -> Files {
    vec![("001_a.sql", format!("-- UP\nselect 1;\n\n{up}\n\n-- DOWN\nselect 1;\n"))]
}

fn up(rule: &'static str, bad: &str, good: &str) -> Example {
    Example { rule, fires: file(bad), place: "001_a.sql:4", quiet: file(good) }
}

fn folder(
    rule: &'static str,
    place: &'static str,
    bad: &[(&'static str, &str)],
    good: &[(&'static str, &str)],
) -> Example {
    let files = |files: &[(&'static str, &str)]| files.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    Example { rule, fires: files(bad), place, quiet: files(good) }
}

const PLAIN: &str = "-- UP\nselect 1;\n-- DOWN\nselect 1;\n";

/// Everything that a folder alone shows, in the order of the catalogue.
pub fn offline() -> Vec<Example> {
    let mut all = ours();
    all.extend(locks_and_data());
    all.extend(compatibility());
    all.extend(compatibility_when_asked());
    all.extend(style());
    all
}

fn ours() -> Vec<Example> {
    vec![
        folder(
            "file-name",
            "seed.sql",
            &[("001_a.sql", PLAIN), ("seed.sql", "select 1;")],
            &[("001_a.sql", PLAIN), ("002_seed.sql", PLAIN)],
        ),
        folder("empty-file", "001_a.sql", &[("001_a.sql", "-- to do\n")], &[("001_a.sql", PLAIN)]),
        folder("missing-down", "001_a.sql", &[("001_a.sql", "-- UP\nselect 1;\n")], &[("001_a.sql", PLAIN)]),
        folder(
            "duplicate-version",
            "1_b.sql",
            &[("001_a.sql", PLAIN), ("1_b.sql", PLAIN)],
            &[("001_a.sql", PLAIN), ("2_b.sql", PLAIN)],
        ),
        folder(
            "version-gap",
            "003_b.sql",
            &[("001_a.sql", PLAIN), ("003_b.sql", PLAIN)],
            &[("001_a.sql", PLAIN), ("002_b.sql", PLAIN)],
        ),
        folder(
            "dependency",
            "001_a.sql",
            &[
                ("001_a.sql", "-- @depends-on: 002_b.sql\n-- UP\nselect 1;\n-- DOWN\nselect 1;\n"),
                ("002_b.sql", "-- @depends-on: 001_a.sql\n-- UP\nselect 1;\n-- DOWN\nselect 1;\n"),
            ],
            &[("001_a.sql", PLAIN), ("002_b.sql", "-- @depends-on: 001_a.sql\n-- UP\nselect 1;\n-- DOWN\nselect 1;\n")],
        ),
        folder(
            "metadata",
            "001_a.sql:1",
            &[("001_a.sql", "-- @metadata {\"authr\": \"ann\"}\n-- UP\nselect 1;\n-- DOWN\nselect 1;\n")],
            &[("001_a.sql", "-- @metadata {\"author\": \"ann\"}\n-- UP\nselect 1;\n-- DOWN\nselect 1;\n")],
        ),
        folder(
            "unknown-rule",
            "001_a.sql",
            &[("001_a.sql", "-- ripcord: allow destructiv meant\n-- UP\nselect 1;\n-- DOWN\nselect 1;\n")],
            &[("001_a.sql", "-- ripcord: allow destructive meant\n-- UP\nselect 1;\n-- DOWN\nselect 1;\n")],
        ),
        up("syntax", "create tabel t (a bigint);", "create table t (a bigint);"),
        up("transaction-control", "rollback;", "select 'rollback;';"),
        folder(
            "placeholder",
            "V1__a.sql:2",
            &[("V1__a.sql", "-- for ${schema}\ninsert into t values ('${schema}');\n")],
            &[("V1__a.sql", "-- for ${schema}\ninsert into t values ('s');\n")],
        ),
        up("destructive", "alter table t drop column a;", "alter table t add column a text;"),
        folder(
            "destructive-without-down",
            "001_a.sql:2",
            &[("001_a.sql", "-- UP\ndrop table t;\n")],
            &[("001_a.sql", "-- UP\ndrop table t;\n-- DOWN\ncreate table t (a bigint);\n")],
        ),
        up("secret", "create role app password 'hunter2';", "create role app password null;"),
        up(
            "high-entropy",
            "insert into k values ('q8Zk3LmPx92VtYb7RwNc5HsJ4dFg');",
            "insert into k values ('550e8400-e29b-41d4-a716-446655440000');",
        ),
        up("grant-to-public", "grant select on t to public;", "grant select on public.t to app;"),
        up(
            "security-definer-search-path",
            "create function f() returns int language sql security definer as $$ select 1 $$;",
            "create function f() returns int language sql security definer set search_path = pg_catalog as $$ select 1 $$;",
        ),
        up(
            "foreign-key-without-index",
            "create table t (id bigint primary key, u_id bigint references u);",
            "create table t (id bigint primary key, u_id bigint references u); create index idx_t_u_id on t (u_id);",
        ),
        up(
            "row-level-security",
            "create table t (id bigint primary key);",
            "create table t (id bigint primary key); alter table t enable row level security;",
        ),
        up("naming", "create table \"UserAccounts\" (id bigint);", "create table user_accounts (id bigint);"),
    ]
}

fn locks_and_data() -> Vec<Example> {
    vec![
        up("require-concurrent-index-creation", "create index i on t (a);", "create index concurrently i on t (a);"),
        up("require-concurrent-index-deletion", "drop index i;", "drop index concurrently i;"),
        up(
            "require-concurrent-partition-detach",
            "alter table t detach partition p;",
            "alter table t detach partition p concurrently;",
        ),
        up("require-concurrent-reindex", "reindex table t;", "reindex table concurrently t;"),
        up(
            "constraint-missing-not-valid",
            "alter table t add constraint c check (a > 0);",
            "alter table t add constraint c check (a > 0) not valid;",
        ),
        up(
            "adding-foreign-key-constraint",
            "alter table t add constraint c foreign key (a) references u (id);",
            "alter table t add constraint c foreign key (a) references u (id) not valid;",
        ),
        up(
            "adding-field-with-default",
            "alter table t add column a uuid default gen_random_uuid();",
            "alter table t add column a bigint default 1;",
        ),
        up(
            "adding-not-nullable-field",
            "alter table t alter column a set not null;",
            "alter table t alter column a set statistics 100;",
        ),
        up(
            "adding-serial-primary-key-field",
            "alter table t add primary key (id);",
            "alter table t add constraint t_pkey primary key using index i;",
        ),
        up(
            "disallowed-unique-constraint",
            "alter table t add constraint c unique (a);",
            "alter table t add constraint c unique using index i;",
        ),
        up(
            "changing-column-type",
            "alter table t alter column a type bigint;",
            "alter table t alter column a set storage plain;",
        ),
        up(
            "ban-alter-domain-with-add-constraint",
            "alter domain d add constraint c check (value > 0);",
            "alter domain d rename constraint c to e;",
        ),
        up("ban-truncate-cascade", "truncate t cascade;", "truncate t restrict;"),
        up("ban-drop-database", "drop database d;", "drop role d;"),
    ]
}

fn compatibility() -> Vec<Example> {
    vec![
        up(
            "adding-required-field",
            "alter table t add column a text not null;",
            "alter table t add column a text not null default '';",
        ),
        up("renaming-column", "alter table t rename column a to b;", "alter view t rename to b;"),
        up("renaming-table", "alter table t rename to u;", "alter index t rename to u;"),
        up("renaming-object", "alter table t rename constraint c to d;", "alter table t validate constraint c;"),
        up("ban-set-schema", "alter table t set schema s;", "alter table t set tablespace s;"),
        up(
            "ban-drop-not-null",
            "alter table t alter column a drop not null;",
            "alter table t alter column a set not null;",
        ),
        up("ban-drop-view", "drop view v;", "create view v as select 1 as a;"),
        up("ban-drop-function", "drop function f();", "comment on function f() is 'old';"),
        up("ban-drop-type", "drop type y;", "comment on type y is 'old';"),
        up("ban-drop-domain", "drop domain d;", "create domain d as text;"),
        up("ban-drop-sequence", "drop sequence s;", "create sequence s;"),
        up("ban-drop-schema", "drop schema s;", "create schema s;"),
        up("ban-drop-extension", "drop extension x;", "create extension x;"),
        up(
            "ban-drop-default",
            "alter table t alter column a drop default;",
            "alter table t alter column a set default 1;",
        ),
        up("ban-drop-constraint", "alter table t drop constraint c;", "alter table t validate constraint c;"),
        up(
            "ban-drop-generated-expression",
            "alter table t alter column a drop expression;",
            "alter table t alter column a drop default;",
        ),
        up(
            "ban-alter-identity",
            "alter table t alter column a drop identity;",
            "alter table t alter column a set generated by default;",
        ),
    ]
}

fn compatibility_when_asked() -> Vec<Example> {
    vec![
        up("ban-drop-trigger", "drop trigger g on t;", "drop rule g on t;"),
        up("ban-drop-index", "drop index i;", "alter index i rename to j;"),
        up("ban-drop-policy", "drop policy p on t;", "alter policy p on t rename to q;"),
        up("ban-create-policy", "create policy p on t using (true);", "alter policy p on t using (true);"),
        up("ban-alter-policy-condition", "alter policy p on t using (true);", "alter policy p on t to app;"),
        up("ban-alter-policy-roles", "alter policy p on t to app;", "alter policy p on t using (true);"),
        up(
            "ban-alter-row-level-security",
            "alter table t enable row level security;",
            "alter table t add column a text;",
        ),
        up("ban-revoke", "revoke select on t from app;", "grant select on t to app;"),
        up(
            "ban-set-default",
            "alter table t alter column a set default 1;",
            "alter table t alter column a drop default;",
        ),
        up("ban-disable-trigger", "alter table t disable trigger g;", "alter trigger g on t rename to h;"),
        up("ban-replica-identity", "alter table t replica identity full;", "alter table t set logged;"),
        up(
            "ban-replace-view-function",
            "create or replace view v as select 1 as a;",
            "create view v as select 1 as a;",
        ),
        up(
            "ban-alter-generated-expression",
            "alter table t add column b bigint generated always as (a + 1) stored;",
            "alter table t add column b bigint;",
        ),
        up("ban-alter-function-options", "alter function f() security definer;", "alter function f() rename to g;"),
        up("ban-alter-view-options", "alter view v set (security_barrier = true);", "alter view v rename to w;"),
        up("ban-alter-role-options", "alter role r nologin;", "alter role r rename to s;"),
        up("ban-alter-database-options", "alter database d set timezone to 'UTC';", "alter database d rename to e;"),
        up("ban-alter-system-options", "alter system set timezone = 'UTC';", "alter database d set timezone = 'UTC';"),
        up("ban-alter-extension", "alter extension x update to '2.0';", "alter extension x set schema s;"),
        up(
            "ban-new-write-restriction",
            "alter table t add constraint c check (a > 0) not valid;",
            "alter table t validate constraint c;",
        ),
        up("ban-add-enum-value", "alter type e add value 'b' after 'a';", "alter type e rename value 'b' to 'c';"),
        up(
            "ban-add-composite-attribute",
            "alter type c add attribute a text;",
            "alter type c rename attribute a to b;",
        ),
        up("ban-add-column", "alter table t add column a text;", "alter table t rename column a to b;"),
        up("ban-detach-inheritance", "alter table t no inherit p;", "alter table t inherit p;"),
        up("ban-alter-sequence-values", "alter sequence s restart with 1;", "alter sequence s owned by none;"),
    ]
}

fn style() -> Vec<Example> {
    let long = format!("create table {} (id bigint);", "x".repeat(64));
    let short = format!("create table {} (id bigint);", "x".repeat(63));
    vec![
        up("identifier-too-long", &long, &short),
        up("ban-duplicate-column-assignments", "update t set a = 1, a = 2;", "update t set a = 1, b = 2;"),
        up("ban-char-field", "create table t (a char(3));", "create table t (a text);"),
        up(
            "ban-create-domain-with-constraint",
            "create domain d as bigint check (value > 0);",
            "create domain d as bigint;",
        ),
        up("prefer-bigint-over-int", "create table t (a int);", "create table t (a bigint);"),
        up("prefer-bigint-over-smallint", "create table t (a smallint);", "create table t (a bigint);"),
        up(
            "prefer-identity",
            "create table t (a bigserial);",
            "create table t (a bigint generated by default as identity);",
        ),
        up("prefer-text-field", "create table t (a varchar(10));", "create table t (a text);"),
        up("prefer-timestamp-tz", "create table t (a timestamp);", "create table t (a timestamptz);"),
        up("require-table-schema", "create table t (a text);", "create table s.t (a text);"),
        up("require-enum-value-ordering", "alter type e add value 'b';", "alter type e add value 'b' after 'a';"),
        up("unused-ignore", "select 2; -- squawk-ignore renaming-tabel", "select 2; -- squawk-ignore renaming-table"),
    ]
}

/// What only the live database shows.
pub struct Live {
    pub rule: &'static str,
    /// What is there when the rule fires, and when it does not.
    pub database: [&'static str; 2],
    /// The UP of `001_a.sql`, pending both times.
    pub up: &'static str,
    /// `file:line`; where it is about the database itself, `None`.
    pub place: Option<&'static str>,
}

pub fn live() -> Vec<Live> {
    let fill = "create table t (id bigint primary key, a text);\n\
         insert into t select g, 'x' from generate_series(1, 2000) g;\nanalyze t;";
    let few = "create table t (id bigint primary key, a text);\n\
         insert into t select g, 'x' from generate_series(1, 20) g;\nanalyze t;";
    let bare = "create table u (id bigint primary key); create table t (u_id bigint references u);";
    let served = "create table u (id bigint primary key); create table t (u_id bigint references u);\n\
         create index on t (u_id);";
    vec![
        Live { rule: "large-table", database: [fill, few], up: "update t set a = 'y';", place: Some("001_a.sql:4") },
        Live { rule: "foreign-key-without-index", database: [bare, served], up: "select 2;", place: None },
        Live {
            rule: "row-level-security",
            database: ["create table t (a int)", "create table t (a int); alter table t enable row level security"],
            up: "select 2;",
            place: None,
        },
    ]
}
