//! Preflight and checks.

use ripcord::postgres::preflight::look;
use ripcord::postgres::{Session, checks};

use super::{LIMIT, role, session, target, target_of};
use crate::support::Cluster;

#[tokio::test]
async fn what_stands_in_the_way_is_found() {
    // A cluster of its own: slots, prepared transactions and event triggers.
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let maintenance = Session::connect(&target_of(&cluster.url("postgres")), "run", LIMIT).await.unwrap();
    let session = session(&db).await;
    let clean = look(&target(&db), &session, &maintenance).await.unwrap();
    assert!(clean.server_version.starts_with("15"), "{clean:?}");
    assert!(clean.superuser && clean.createdb && clean.owns_database && !clean.in_recovery);
    assert!(clean.database_bytes > 1_000_000);
    assert!(clean.server_free_bytes.unwrap() > 0);
    for list in [
        &clean.foreign_owners,
        &clean.row_security,
        &clean.prepared,
        &clean.slots,
        &clean.subscriptions,
        &clean.event_triggers,
        &clean.foreign_tables,
        &clean.running_dumps,
        &clean.missing_extensions,
        &clean.fence_leaks,
    ] {
        assert!(list.is_empty(), "{clean:?}");
    }

    let user = role(&cluster, "");
    // Before the prepared transaction, whose end it would wait for.
    db.sql("select pg_create_logical_replication_slot('slot_one', 'pgoutput')");
    db.sql(&format!(
        "create table t (x int); alter table t enable row level security; grant select on t to {user}; \
         create unlogged table u (x int); create foreign data wrapper w; create server s foreign data wrapper w; \
         create foreign table f (x int) server s; \
         create function e() returns event_trigger language plpgsql as 'begin end'; \
         create event trigger et on ddl_command_end execute function e(); \
         create subscription sub connection 'dbname=nowhere' publication p with (connect = false, slot_name = none); \
         begin; insert into t values (1); prepare transaction 'gid one'; \
         alter role {user} set default_transaction_read_only = off",
    ));
    let found = look(&target(&db), &session, &maintenance).await.unwrap();
    assert_eq!(found.prepared, ["gid one"]);
    assert_eq!(found.slots, ["slot_one"]);
    assert_eq!(found.subscriptions, ["sub"]);
    assert_eq!(found.event_triggers, ["et"]);
    assert_eq!(found.foreign_tables, ["public.f (foreign)", "public.u (unlogged)"]);
    assert_eq!(found.fence_leaks.len(), 2, "{:?}", found.fence_leaks);
    assert!(found.fence_leaks[0].contains(&user));

    let plain = target_of(&cluster.url_as(&user, "pw", &db.name));
    let session = Session::connect(&plain, "run", LIMIT).await.unwrap();
    let maintenance = Session::connect(&plain.with_database("postgres"), "run", LIMIT).await.unwrap();
    let found = look(&plain, &session, &maintenance).await.unwrap();
    assert!(!found.superuser && !found.createdb && !found.owns_database);
    assert_eq!(found.row_security, ["public.t"]);
    assert_eq!(found.foreign_owners, ["postgres"]);
    assert_eq!(found.subscriptions, ["sub"]);
    assert_eq!(found.server_free_bytes, None);
    cluster.sql(&db.name, "rollback prepared 'gid one'; drop subscription sub");
}

#[tokio::test]
async fn an_owner_of_everything_sees_no_foreign_owners() {
    let cluster = Cluster::shared();
    let user = role(cluster, "createdb");
    let name = format!("d{}", uuid::Uuid::new_v4().simple());
    let db = cluster.database_named(&name, &format!("owner {user}"));
    db.sql(&format!("set role {user}; create table t (x int); create type e as enum ('a'); create schema s"));
    let target = target_of(&cluster.url_as(&user, "pw", &name));
    let session = Session::connect(&target, "run", LIMIT).await.unwrap();
    let maintenance = Session::connect(&target.with_database("postgres"), "run", LIMIT).await.unwrap();
    let found = look(&target, &session, &maintenance).await.unwrap();
    assert!(found.createdb && found.owns_database && !found.superuser);
    assert!(found.foreign_owners.is_empty(), "{found:?}");
    db.sql("create function alien() returns int language sql as 'select 1'");
    let found = look(&target, &session, &maintenance).await.unwrap();
    assert_eq!(found.foreign_owners, ["postgres"]);
}

#[tokio::test]
async fn what_a_dump_does_not_show() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    let before = checks::catalog_extras(&session, &[]).await.unwrap();
    assert_eq!(before, ["extension plpgsql 1.0"]);
    db.sql(
        "create schema ripcord; create schema \"left out\"; create schema \"S\"; \
         create materialized view \"S\".m as select 1 as x with no data; \
         create materialized view \"left out\".m as select 1 as x with no data; \
         create materialized view ripcord.m as select 1 as x with no data; \
         create table t (x int primary key, y int); create table r (x int references t); insert into t values (1, 1), (2, 1); \
         alter table r disable trigger all; alter table t add constraint positive check (y > 0) not valid; \
         alter table t replica identity full; select lo_create(4711)",
    );
    let cluster = Cluster::shared();
    assert!(cluster.try_sql(&db.name, "create unique index concurrently broken on t (y)").is_err());
    let after = checks::catalog_extras(&session, &["left out".to_owned()]).await.unwrap();
    assert_eq!(
        after,
        [
            "constraint positive on public.t not validated",
            "extension plpgsql 1.0",
            "index public.broken on public.t not ready",
            "large objects 1 of postgres open to postgres=SELECTfalse,postgres=UPDATEfalse f64d9e6bbea2747d230f41df31927546",
            "materialized view \"S\".m not populated",
            "table public.t replica identity full",
            "trigger \"of constraint r_x_fkey\" on public.r enabled D",
        ]
    );
    assert_eq!(checks::invalid_indexes(&session).await.unwrap(), ["public.broken on public.t"]);
    let open = async |exclude: &str, known: &str| {
        checks::unvalidated_constraints(&session, &[exclude.to_owned()], &[known.to_owned()]).await.unwrap()
    };
    assert!(open("left out", "x.y").await.contains(&"constraint positive on public.t".to_owned()));
    assert!(!open("left out", "T.positive").await.contains(&"constraint positive on public.t".to_owned()));
    assert!(!open("public", "x.y").await.contains(&"constraint positive on public.t".to_owned()));
}

#[tokio::test]
async fn objects_that_are_missing() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    db.sql("create table t (x int); create view \"V\" as select 1; create schema s; create procedure s.p() language sql as ''; create policy \"His rows\" on t using (true)");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let look = async |tables: &[&str], functions: &[&str], policies: &[&str]| {
        let (tables, functions, policies) = (names(tables), names(functions), names(policies));
        let expected = checks::Expected { tables: &tables, functions: &functions, policies: &policies };
        checks::missing_objects(&session, expected).await
    };
    let missing = look(
        &["public.t", "T", "public.\"V\"", "V", "public.x", "s.t", "it's"],
        &["s.p", "S.P(int)", "s.q"],
        &["t.His rows", "public.T.\"His rows\"", "t.his rows", "s.t.\"His rows\""],
    )
    .await
    .unwrap();
    assert_eq!(missing, ["public.x", "s.t", "it's", "s.q", "t.his rows", "s.t.\"His rows\""]);
    assert!(look(&["a.b.c"], &[], &[]).await.is_err());
    assert!(look(&[], &[], &["a"]).await.is_err());
}

#[tokio::test]
async fn checks_cannot_change_what_they_look_at() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    db.sql("create table t (x int, y text); insert into t values (1, null), (2, 'b'), (3, 'c')");
    let rows = checks::check_rows(&session, "select * from t order by x", 2).await.unwrap();
    assert_eq!(rows, ["x: 1, y: NULL", "x: 2, y: b"]);
    assert!(checks::check_rows(&session, "select * from t where false", 2).await.unwrap().is_empty());
    let error = checks::check_rows(&session, "delete from t returning x", 2).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("25006"));
    assert!(checks::check_rows(&session, "selec", 2).await.is_err());
    assert_eq!(db.sql("select count(*) from t"), "3");
}
