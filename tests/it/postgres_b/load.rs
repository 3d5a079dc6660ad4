//! Loading.

use std::sync::Arc;

use ripcord::postgres::load::{LoadPlan, load, load_in_place};
use ripcord::progress::{Event, Observer, Progress};

use super::dumped::{dump, plan, plan_of, split};
use super::{role, target, target_of, tools, unique};
use crate::support::{Cluster, Db};

/// Every kind of object that a load has to bring back.
const KINDS: &str = r#"
create schema "Ünï ""q""";
create table "Ünï ""q"""."T a\b" ("ö ""x""" text); insert into "Ünï ""q"""."T a\b" values (E'tab\tback\\slash\nline'), (null), ('\.');
create type mood as enum ('a', 'b', 'c');
create table ident (id int generated always as identity primary key, v text, g int generated always as (length(v)) stored);
insert into ident (v) select 'v' || g from generate_series(1, 100) g;
create table part (id int, d date, primary key (id, d)) partition by range (d);
create table part_1 partition of part for values from ('2020-01-01') to ('2021-01-01');
create table part_2 partition of part for values from ('2021-01-01') to ('2022-01-01');
insert into part select g, '2020-01-01'::date + g from generate_series(1, 600) g;
create table hp (m mood, n int) partition by hash (m);
create table hp0 partition of hp for values with (modulus 2, remainder 0);
create table hp1 partition of hp for values with (modulus 2, remainder 1);
insert into hp select 'a', g from generate_series(1, 300) g;
create table inh_p (a int); create table inh_c (b int) inherits (inh_p); insert into inh_p values (1); insert into inh_c values (2, 3);
create table fa (id int primary key, b int); create table fb (id int primary key, a int references fa deferrable);
alter table fa add foreign key (b) references fb deferrable;
begin; set constraints all deferred; insert into fa values (1, 1); insert into fb values (1, 1); commit;
create table trg (i int); insert into trg values (1);
create function trgf() returns trigger language plpgsql as $$begin new.i := new.i + 1000; return new; end$$;
create trigger tr before insert on trg for each row execute function trgf();
create table rls (i int, o text); alter table rls enable row level security; alter table rls force row level security;
create policy p on rls using (o = current_user); insert into rls values (1, 'x');
create function etf() returns event_trigger language plpgsql as $$begin end$$;
create event trigger et on ddl_command_start execute function etf();
create materialized view mv as select count(*) c from ident with data; create materialized view mv_empty as select 1 x with no data;
create view vw as select * from ident; create rule rr as on insert to vw do instead nothing;
create sequence sq; select setval('sq', 77); create sequence untouched;
alter default privileges grant select on tables to public; comment on table ident is 'it''s';
create table tz (t timestamptz, b bytea, m money, f float8, r regclass, x interval, j jsonb);
insert into tz values ('2026-07-01 12:00+00', '\x01ff', '12.34', 0.1, 'ident', '1 day 2:03', '{"a": 1}');
create unlogged table ul (i int); insert into ul values (5); create table empty (i int); create table bare ();
insert into bare default values; insert into bare default values;
"#;

const LARGE: &str = "select lo_from_bytea(20000 + g, decode('00ff', 'hex')) from generate_series(1, 3) g; \
    comment on large object 20001 is 'lc'; grant select on large object 20002 to public";

fn content(db: &Db<'_>) -> String {
    db.sql(
        "select 'hp', string_agg(n::text, ',' order by n) from hp; select * from \"Ünï \"\"q\"\"\".\"T a\\b\" order by 1;
         select * from trg; set row_security = off; select * from rls; select last_value, is_called from sq;
         select last_value, is_called from untouched; select last_value, is_called from ident_id_seq;
         select relname, relispopulated from pg_class where relkind = 'm' order by 1; select * from mv;
         select md5(string_agg(ident::text, '|' order by id)) from ident; select count(*), min(d), max(d) from part;
         set timezone = 'UTC'; select * from tz; select * from only inh_p; select * from inh_c; select count(*) from bare;
         select * from ul; select * from fa, fb;
         select oid, lo_get(oid), lomacl, obj_description(oid, 'pg_largeobject') from pg_largeobject_metadata order by 1",
    )
}

#[tokio::test]
async fn every_kind_of_object_comes_back() {
    let cluster = Cluster::shared();
    let source = cluster.database();
    source.sql(KINDS);
    for large_objects in [false, true] {
        if large_objects {
            source.sql(LARGE);
        }
        let copy = cluster.database();
        let plan = plan_of(cluster, &source.name);
        let loaded = load(&tools(cluster), &target(cluster, &copy.name), &plan, &Progress::silent()).await.unwrap();
        assert_eq!(copy.schema(), source.schema());
        assert_eq!(content(&copy), content(&source));
        let mut rows = loaded.rows.clone();
        rows.sort();
        let mut expected: Vec<_> = plan.tables.iter().map(|table| (table.table.clone(), table.rows)).collect();
        expected.sort();
        assert_eq!(rows, expected);
        assert!(rows.contains(&("public.ident".to_owned(), 100)), "{rows:?}");
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}

#[tokio::test]
async fn the_indexes_that_need_nothing_but_their_own_table_are_known_and_built_with_the_rest() {
    let cluster = Cluster::shared();
    let source = cluster.database();
    source.sql(KINDS);
    source.sql(
        "create table two (a int not null unique, b int references fa, c text, exclude using btree (b with =));
         insert into two values (1, null, 'x'); create index two_c on two (upper(c)) where a > 0;
         comment on index two_c is 'early'; alter table two cluster on two_a_key; alter table two replica identity using index two_a_key",
    );
    let whole = dump(cluster, &source.name);
    let toc = ripcord::archive::Toc::parse(&whole).unwrap();
    let own = toc.own_indexes();
    let mut names: Vec<String> = own.values().flatten().map(|number| toc.entry(*number).unwrap().tag.lossy()).collect();
    names.sort();
    // Those of partitions wait for their parents'.
    assert_eq!(names, ["fa fa_pkey", "fb fb_pkey", "ident ident_pkey", "two two_a_key", "two two_b_excl", "two_c"]);

    let copy = cluster.database();
    let (dumped, tables) = split(whole);
    load(&tools(cluster), &target(cluster, &copy.name), &plan(dumped, tables, "UTF8"), &Progress::silent())
        .await
        .unwrap();
    assert_eq!(copy.schema(), source.schema());
}

#[tokio::test]
async fn a_database_of_any_name_as_another_role_with_settings_that_change_text() {
    let cluster = Cluster::shared();
    let owner = role(cluster, "createdb");
    let source = cluster.database();
    source.sql(&format!(
        "create table t (i int primary key, m money default '1.50', b bytea, d date);
         insert into t values (1, '12.34', '\\x00', '2026-02-03'); alter table t owner to {owner}"
    ));
    let name = unique("a b=c'é\"");
    let copy = cluster.database_named(&name, &format!("owner {owner}"));
    let quoted = name.replace('"', "\"\"");
    copy.sql(&format!(
        "alter database \"{quoted}\" set datestyle = 'SQL, DMY'; alter database \"{quoted}\" set bytea_output = 'escape';
         alter database \"{quoted}\" set default_transaction_read_only = on;
         alter database \"{quoted}\" set intervalstyle = 'sql_standard'"
    ));
    let mut plan = plan_of(cluster, &source.name);
    plan.role = Some(owner);
    load(&tools(cluster), &target(cluster, &copy.name), &plan, &Progress::silent()).await.unwrap();
    let read = "set datestyle = ISO; set bytea_output = hex; select t.*, pg_get_userbyid(relowner) from t, pg_class where relname = 't'";
    assert_eq!(copy.sql(read), source.sql(read));
}

#[tokio::test]
async fn other_encodings_go_through_one_pg_restore() {
    let cluster = Cluster::shared();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let options = format!("encoding '{encoding}' lc_collate 'C' lc_ctype 'C'");
        let source = cluster.database_named(&unique("enc"), &options);
        let client = if encoding == "LATIN1" { "set client_encoding = utf8;" } else { "" };
        source.sql(&format!("{client} create table \"té\" (x text); insert into \"té\" values ('é'), ('ü')"));
        let copy = cluster.database_named(&unique("enc"), &options);
        let whole = dump(cluster, &source.name);
        // The reader of the test knows UTF-8 only; nothing of it is needed here.
        let (mut dumped, _) = split(dump(cluster, &cluster.database().name));
        dumped.replace_whole(whole);
        let plan = plan(dumped, Vec::new(), encoding);
        let loaded = load(&tools(cluster), &target(cluster, &copy.name), &plan, &Progress::silent()).await.unwrap();
        assert_eq!(loaded.rows, []);
        let read = format!("{client} select encode(convert_to(x, '{encoding}'), 'hex') from \"té\" order by 1");
        assert_eq!(copy.sql(&read), if encoding == "LATIN1" { "e9\nfc" } else { "c3a9\nc3bc" });
    }
}

#[tokio::test]
async fn a_row_too_few_a_damaged_frame_and_a_bad_value_are_errors() {
    let cluster = Cluster::shared();
    let source = cluster.database();
    source.sql("create table t (i int); insert into t select generate_series(1, 1000)");
    let whole = dump(cluster, &source.name);

    let (dumped, mut tables) = split(whole.clone());
    tables[0].rows += 1;
    let copy = cluster.database();
    let error = load(&tools(cluster), &target(cluster, &copy.name), &plan(dumped, tables, "UTF8"), &Progress::silent())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ripcord::error::Kind::Verification);
    assert!(error.one_line().contains("`public.t`") && error.one_line().contains("1000 rows"), "{error}");

    let (mut dumped, tables) = split(whole.clone());
    dumped.breaks = Some(0);
    let copy = cluster.database();
    let error = load(&tools(cluster), &target(cluster, &copy.name), &plan(dumped, tables, "UTF8"), &Progress::silent())
        .await
        .unwrap_err();
    assert!(error.one_line().contains("frame 1 is damaged"), "{error}");
    assert_eq!(copy.sql("select count(*) from t"), "0", "a part of the rows was committed");

    let (mut dumped, tables) = split(whole);
    dumped.damage_rows(0, b"17\n", b"hush\n");
    let copy = cluster.database();
    let error = load(&tools(cluster), &target(cluster, &copy.name), &plan(dumped, tables, "UTF8"), &Progress::silent())
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("22P02"), "{error}");
    assert!(error.one_line().contains("COPY t, line 17, column i"), "{error}");
}

#[tokio::test]
async fn a_failing_entry_is_an_error_with_its_lines() {
    let cluster = Cluster::shared();
    let source = cluster.database();
    source.sql("create table t (i int)");
    let plan = plan_of(cluster, &source.name);
    let copy = cluster.database();
    copy.sql("create table t (x text)");
    let error = load(&tools(cluster), &target(cluster, &copy.name), &plan, &Progress::silent()).await.unwrap_err();
    assert!(error.one_line().contains("\"t\" already exists"), "{error}");
    assert!(!error.one_line().contains("Command was"), "{error}");
}

#[tokio::test]
async fn in_place_is_one_transaction_and_passes_our_own_fence() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    db.sql("create table t (i int primary key); insert into t values (1)");
    let whole = dump(cluster, &db.name);
    db.sql(&format!(
        "insert into t values (2); alter table t add column x int;
         alter database {} set default_transaction_read_only = on",
        db.name
    ));
    let (mut dumped, tables) = split(whole.clone());
    dumped.breaks = Some(whole.len() - 10);
    let target = target(cluster, &db.name);
    let damaged = plan(dumped, tables, "UTF8");
    let contents = |plan: &LoadPlan| plan.source.table_of_contents().unwrap();
    let error =
        load_in_place(&tools(cluster), &target, &damaged, contents(&damaged), &Progress::silent()).await.unwrap_err();
    assert!(error.one_line().contains("frame 1 is damaged"), "{error}");
    assert_eq!(db.sql("select i, x is null from t order by 1"), "1|t\n2|t", "a part was restored");

    let (dumped, tables) = split(whole);
    let plan = plan(dumped, tables, "UTF8");
    load_in_place(&tools(cluster), &target, &plan, contents(&plan), &Progress::silent()).await.unwrap();
    assert_eq!(db.sql("select * from t"), "1");
}

#[tokio::test]
async fn bytes_are_told_and_a_load_that_is_dropped_leaves_no_session() {
    struct Sum(std::sync::Mutex<u64>);
    impl Observer for Sum {
        fn observe(&self, event: &Event) {
            if let Event::Bytes { done, .. } = event {
                let mut most = self.0.lock().unwrap();
                *most = (*most).max(*done);
            }
        }
    }
    let cluster = Cluster::shared();
    let source = cluster.database();
    source.sql("create table t as select g i, repeat('x', 100) x from generate_series(1, 20000) g");
    let plan = plan_of(cluster, &source.name);
    let sum = Arc::new(Sum(std::sync::Mutex::new(0)));
    let copy = cluster.database();
    load(&tools(cluster), &target(cluster, &copy.name), &plan, &Progress::new(sum.clone())).await.unwrap();
    assert_eq!(*sum.0.lock().unwrap(), plan.tables[0].bytes);

    let copy = cluster.database();
    let slow = cluster.database();
    slow.sql("create table t (i int); insert into t values (1)");
    let plan = plan_of(cluster, &slow.name);
    let target = target_of(&cluster.url(&copy.name));
    let load = async {
        let tools = tools(cluster);
        // Held by us: pg_restore waits for it.
        let _held = super::Background::psql(cluster, &copy.name, "begin; create table t (i int); select pg_sleep(60)");
        super::wait_until(
            cluster,
            &format!(
                "select count(*) > 0 from pg_stat_activity where datname = '{}' and query like '%pg_sleep%'",
                copy.name
            ),
        );
        load(&tools, &target, &plan, &Progress::silent()).await
    };
    assert!(tokio::time::timeout(std::time::Duration::from_secs(2), load).await.is_err());
    super::wait_until(
        cluster,
        &format!(
            "select count(*) = 0 from pg_stat_activity where datname = '{}' and application_name = 'pg_restore'",
            copy.name
        ),
    );
}
