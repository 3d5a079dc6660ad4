//! One database with nearly everything that PostgreSQL has, for a plain owner and for a superuser.

use super::{assert_same, state, survives};
use crate::support::{Cluster, Db, Project};

/// What a role without any privilege but CREATEDB can make in a database of its own.
const OWNED: &str = r#"
create extension pgcrypto; create extension hstore; create extension citext;
create schema app; comment on schema app is 'the application''s';
create schema "Ünï ""q""";
create type app.mood as enum ('sad', 'so la la', 'ha''ppy');
create type app.pair as (a int, b text);
create domain app.positive as int default 1 check (value > 0);
create collation app.plain (provider = libc, locale = 'C');
alter default privileges grant select on tables to ROLE_reader;
alter default privileges in schema app grant execute on functions to ROLE_writer with grant option;
create table app.ident (
  id int generated always as identity (start 7 increment 3) primary key, v text not null, g int generated always as (length(v)) stored,
  m app.mood default 'sad', p app.pair, pos app.positive, h hstore, c citext, u uuid default gen_random_uuid(), s smallserial,
  j jsonb, r tsrange, b bytea, arr int[], t timestamptz, iv interval, mo money, f float8, x xml, bits bit varying, net inet
);
insert into app.ident (v, m, p, h, c, j, r, b, arr, t, iv, mo, f, x, bits, net)
  select 'v' || g || E'\t\\\n' , 'ha''ppy', row(g, null::text)::app.pair, hstore('k', g::text), 'CaSe', jsonb_build_object('a', g), tsrange(now()::timestamp, null),
    decode('00ff5c01', 'hex'), array[g, null], '2026-07-01 12:00+00'::timestamptz + g * interval '1 hour', '1 day 2:03', '12.34', g / 3.0,
    '<a>é</a>', B'101', '10.0.0.1/8' from generate_series(1, 60) g;
comment on table app.ident is 'c'; comment on column app.ident.v is 'v''s';
alter table app.ident alter column v set storage external, alter column v set statistics 500;
create index ident_lower on app.ident (lower(v) text_pattern_ops) include (g) where id > 3;
create statistics app.stats (ndistinct, dependencies) on id, g from app.ident;
create table app.part (id int, d date, primary key (id, d)) partition by range (d);
create table app.part_1 partition of app.part for values from ('2020-01-01') to ('2021-01-01');
create table app.part_2 partition of app.part for values from ('2021-01-01') to ('2022-01-01') partition by hash (id);
create table app.part_2a partition of app.part_2 for values with (modulus 2, remainder 0);
create table app.part_2b partition of app.part_2 for values with (modulus 2, remainder 1);
create table app.part_rest partition of app.part default;
insert into app.part select g, '2020-01-01'::date + g from generate_series(1, 900) g;
create table app.listed (k text, n int) partition by list (k);
create table app.listed_a partition of app.listed for values in ('a', null);
create table app.listed_b partition of app.listed for values in ('b');
insert into app.listed values ('a', 1), (null, 2), ('b', 3);
create table app.hashed (m app.mood, n int) partition by hash (m);
create table app.hashed_0 partition of app.hashed for values with (modulus 3, remainder 0);
create table app.hashed_1 partition of app.hashed for values with (modulus 3, remainder 1);
create table app.hashed_2 partition of app.hashed for values with (modulus 3, remainder 2);
insert into app.hashed select (array['sad', 'so la la', 'ha''ppy'])[1 + g % 3]::app.mood, g from generate_series(1, 300) g;
create table app.parent (a int, note text); create table app.child (b int) inherits (app.parent);
insert into app.parent values (1, 'p'); insert into app.child values (2, 'c', 3);
create table app.fa (id int primary key, b int); create table app.fb (id int primary key, a int references app.fa deferrable);
alter table app.fa add foreign key (b) references app.fb deferrable;
begin; set constraints all deferred; insert into app.fa values (1, 1); insert into app.fb values (1, 1); commit;
create table app.tree (id int primary key, up int references app.tree); insert into app.tree values (1, null), (3, 1), (2, 3);
create table app.booked (r tsrange, exclude using gist (r with &&)); insert into app.booked values ('[2026-01-01, 2026-01-02)');
create table app.unvalidated (i int); insert into app.unvalidated values (-1);
alter table app.unvalidated add constraint positive check (i > 0) not valid;
create table app.trg (i int); insert into app.trg values (1);
create function app.trgf() returns trigger language plpgsql as $$ begin new.i := new.i + 1000; return new; end $$;
create trigger tr before insert on app.trg for each row execute function app.trgf();
create trigger off before update on app.trg for each row execute function app.trgf();
alter table app.trg disable trigger off, enable always trigger tr;
create table app.rls (i int, o text); alter table app.rls enable row level security;
create policy p on app.rls as restrictive for select to ROLE_reader using (o = current_user) ; insert into app.rls values (1, 'x'), (2, 'y');
create materialized view app.full_view as select count(*) c from app.ident with data;
create unique index on app.full_view (c);
create materialized view app.stale as select count(*) c from app.trg; insert into app.trg values (2);
create materialized view app.empty_view as select * from app.ident with no data;
create materialized view app.over_view as select c + 1 as c from app.full_view;
create view app.vw with (security_barrier) as select * from app.ident where g > 2; create rule rr as on insert to app.vw do instead nothing;
create view app.checked as select id, b from app.fa where b > 0 with cascaded check option;
create view app.up (n) as with recursive up (n) as (values (1) union all select n + 1 from up where n < 3) select n from up;
create function app.body(a int, b int default 2) returns int language sql immutable begin atomic select a + b; end;
create function app.definer() returns text language sql security definer set search_path = app, pg_temp as 'select current_user::text';
create procedure app.proc(inout a int) language plpgsql as $$ begin a := a + 1; commit; end $$;
create aggregate app.total (int) (sfunc = int4pl, stype = int, initcond = '0');
create operator app.=== (leftarg = int, rightarg = int, function = int4eq, commutator = operator(app.===));
create function app.mood_text(app.mood) returns text language sql immutable as $$ select $1::text $$;
create cast (app.mood as varchar) with function app.mood_text(app.mood);
create text search configuration app.search (copy = simple);
create sequence app.sq as bigint minvalue -5 cycle cache 3; select setval('app.sq', 77); create sequence app.fresh start 42;
create sequence app.called; select setval('app.called', 9, false);
create table "Ünï ""q"""."weird 'name' %s" ("col ""x"" " int, "Größe" text); insert into "Ünï ""q"""."weird 'name' %s" values (1, 'é\N\\');
create table app.toast (id int, big text); insert into app.toast select g, string_agg(md5(g::text || i), '') from generate_series(1, 3) g, generate_series(1, 9000) i group by g;
create table app.nothing (); insert into app.nothing default values; insert into app.nothing default values;
create table app.dropped (a int, gone int, c text); insert into app.dropped values (1, 2, 'x'); alter table app.dropped drop column gone, add d int default 5;
create unlogged table app.unlogged (i int); insert into app.unlogged values (1), (2);
create table app.own_options (i int) with (fillfactor = 70, autovacuum_enabled = false);
create table app.full_identity (i int); alter table app.full_identity replica identity full;
create table app.clustered (i int primary key); insert into app.clustered select 100 - g from generate_series(1, 50) g;
alter table app.clustered cluster on clustered_pkey;
create table app.dup (i int); insert into app.dup values (1), (1);
grant usage on schema app to ROLE_reader, ROLE_writer;
grant select on all tables in schema app to ROLE_reader; grant select (id), update (v) on app.ident to ROLE_writer with grant option;
grant insert on app.ident to ROLE_writer with grant option; grant usage on sequence app.sq to public; revoke execute on function app.definer() from public;
grant usage on type app.mood to ROLE_reader with grant option; revoke usage on domain app.positive from public;
create publication pub for table app.ident (id, v), app.part with (publish = 'insert');
select lo_from_bytea(910001, decode('68656c6c6f00', 'hex')), lo_from_bytea(910002, decode('ff00', 'hex')), lo_create(910003);
grant select on large object 910001 to ROLE_reader; comment on large object 910002 is 'a large one';
analyze;
"#;

/// What only a superuser can make.
const PRIVILEGED: &str = r#"
create extension postgres_fdw; create extension file_fdw;
create server files foreign data wrapper file_fdw;
create foreign table app.passwd (line text) server files options (filename '/etc/passwd');
create server elsewhere foreign data wrapper postgres_fdw options (host '127.0.0.1', dbname 'x');
create user mapping for ROLE_reader server elsewhere options (user 'u', password 'p of the server');
create foreign table app.remote (i int) server elsewhere options (table_name 'remote');
create function app.etf() returns event_trigger language plpgsql as $$ begin raise notice 'event %', tg_tag; end $$;
create event trigger et on ddl_command_end when tag in ('CREATE TABLE') execute function app.etf();
create event trigger et_off on sql_drop execute function app.etf(); alter event trigger et_off disable;
alter table app.rls force row level security;
create publication everything for all tables;
create publication of_schema for tables in schema app;
set role ROLE_writer; grant insert on app.ident to ROLE_reader; reset role;
create table app.of_reader (i int); alter table app.of_reader owner to ROLE_reader;
create function app.leaky(text) returns bool language sql leakproof as 'select true';
"#;

const WRECK: &str = "DROP TABLE app.ident CASCADE;\nUPDATE app.part SET d = d + 1 WHERE id < 5;\nTRUNCATE app.hashed;\n\
                     DROP MATERIALIZED VIEW app.stale;\nALTER SEQUENCE app.sq RESTART WITH 3;";

fn fill(db: &Db<'_>, role: &str, sql: &str) {
    db.sql(&format!(
        "set client_min_messages = warning; set session authorization {role};\n{}",
        sql.replace("ROLE", role)
    ));
}

fn roles(cluster: &Cluster, role: &str, attributes: &str) {
    cluster.sql(
        "postgres",
        &format!(
            "create role {role} login password 'pw' {attributes}; create role {role}_reader; create role {role}_writer;"
        ),
    );
}

/// An index that a failed CREATE INDEX CONCURRENTLY left behind.
fn leave_an_invalid_index(db: &Db<'_>, role: &str) {
    let mut psql = db.cluster.psql(&db.name);
    let failed = psql.args(["-c", &format!("set session authorization {role}")]);
    let failed = failed.args(["-c", "create unique index concurrently broken on app.dup (i)"]);
    assert!(!failed.output().unwrap().status.success());
    assert_eq!(db.sql("select count(*) from pg_index where not indisvalid"), "1");
}

#[test]
fn a_plain_owner_with_createdb_gets_everything_back() {
    let cluster = Cluster::shared();
    roles(cluster, "rich_owner", "createdb");
    let db = cluster.database_named("rich_owned", "owner rich_owner");
    fill(&db, "rich_owner", OWNED);
    cluster.sql(
        "postgres",
        "comment on database rich_owned is 'rich''s \"own\"'; alter database rich_owned connection limit 40;\n\
         alter database rich_owned set work_mem = '5MB'; alter database rich_owned set search_path = app, \"$user\", public;\n\
         alter role rich_owner in database rich_owned set lock_timeout = '7s';\n\
         set role rich_owner; revoke temp on database rich_owned from public; grant create on database rich_owned to rich_owner_writer with grant option;",
    );
    let project = Project::with_url(&cluster.url_as("rich_owner", "pw", "rich_owned"));
    survives(&project, &db, WRECK);
}

#[test]
fn a_superuser_gets_everything_back() {
    let cluster = Cluster::shared();
    roles(cluster, "rich_super", "superuser");
    let db = cluster.database_named("rich_privileged", "");
    fill(&db, "rich_super", OWNED);
    fill(&db, "rich_super", PRIVILEGED);
    let project = Project::with_url(&cluster.url_as("rich_super", "pw", "rich_privileged"));
    survives(&project, &db, WRECK);
}

#[test]
fn an_invalid_index_is_no_reason_to_refuse_a_backup_and_is_told() {
    let cluster = Cluster::shared();
    roles(cluster, "rich_invalid", "createdb");
    let db = cluster.database_named("rich_invalid", "owner rich_invalid");
    fill(
        &db,
        "rich_invalid",
        "create schema app; create table app.dup (i int); insert into app.dup values (1), (1);\n\
         create materialized view app.later as select * from app.dup with no data;",
    );
    leave_an_invalid_index(&db, "rich_invalid");
    let before = state(cluster, "rich_invalid");
    let project = Project::with_url(&cluster.url_as("rich_invalid", "pw", "rich_invalid"));
    project.run(&["backup", "create"]).expect_code(0);
    let ran = project.json(&["drill"]).expect_code(0);
    assert!(ran.stdout.contains("app.broken"), "the drill says what a restore leaves out: {ran:#?}");
    let ran = project.json(&["restore", "latest", "--into", "rich_invalid_copy"]).expect_code(0);
    assert!(ran.result()["proof"].to_string().contains("app.broken"), "{ran:#?}");
    assert_same(&before, &state(cluster, "rich_invalid_copy"), "the copy");
    cluster.sql("postgres", "drop database rich_invalid_copy");
}
