//! The fence, and counting what others wrote.

use std::os::unix::process::CommandExt;
use std::process::Command;

use ripcord::postgres::writes::{Counted, count_since, fence, unfence};

use super::{Background, LIMIT, maintenance, role, session, wait_until};
use crate::support::cluster::unprivileged_user;
use crate::support::{Cluster, Db};

fn snapshot(db: &Db<'_>) -> String {
    db.sql("select pg_current_snapshot()")
}

async fn counted(db: &Db<'_>, snapshot: &str, ours: &[u64]) -> Counted {
    count_since(&session(db.cluster, &db.name).await, snapshot, ours).await.unwrap()
}

#[tokio::test]
async fn inserts_updates_and_subtransactions_are_counted_and_ours_are_not() {
    // Of its own: another test's open transaction would stand in every snapshot.
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    db.sql(
        "create schema \"S x\"; create table \"S x\".\"T\" (i int primary key, x text); insert into \"S x\".\"T\" select g, 'a' from generate_series(1, 10) g;
         create table p (i int) partition by list (i); create table p1 partition of p for values in (1);
         create table parent (i int); create table child () inherits (parent); create unlogged table ul (i int);
         create table untouched as select 1 i; create materialized view mv as select 1 x;
         create schema ripcord; create table ripcord.runs (i int); vacuum freeze untouched",
    );
    let before = snapshot(&db);
    assert_eq!(counted(&db, &before, &[]).await, Counted::default());
    db.sql(
        "insert into \"S x\".\"T\" values (11, 'b'); update \"S x\".\"T\" set x = 'c' where i <= 3; delete from \"S x\".\"T\" where i = 9;
         insert into p values (1), (1); insert into child values (1); insert into ul values (1); insert into ripcord.runs values (1);
         refresh materialized view mv; begin; insert into parent values (1); rollback;
         do $$begin begin insert into parent values (2); exception when others then null; end; end$$;
         begin; savepoint a; insert into parent values (3); rollback to a; savepoint b; insert into parent values (4); release b; commit",
    );
    let ours: u64 = db.sql("begin; update untouched set i = 2; select pg_current_xact_id(); commit").parse().unwrap();
    let found = counted(&db, &before, &[ours]).await;
    let rows = |name: &str, rows| (name.to_owned(), rows);
    assert_eq!(
        found.tables,
        [
            rows("S x.T", 4),
            rows("public.child", 1),
            rows("public.p1", 2),
            rows("public.parent", 2),
            rows("public.ul", 1)
        ]
    );
    assert_eq!(found.overwritten, [rows("public.untouched", 1)]);
    assert_eq!(found.unknowable, []);
    assert_eq!(found.total(), 10);
    assert_eq!(counted(&db, &before, &[]).await.total(), 11);
    let after = snapshot(&db);
    assert_eq!(counted(&db, &after, &[]).await.total(), 0);
}

#[tokio::test]
async fn a_writer_that_was_in_progress_is_not_missed() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    db.sql("create table t (i int); create table s (i int); create table done (i int); create table fine (i int)");
    db.sql("insert into fine values (1)");
    let _writer = Background::psql(
        &cluster,
        &db.name,
        "begin; insert into t values (1); savepoint a; insert into s values (1); release a; select pg_sleep(3); commit",
    );
    wait_until(
        &cluster,
        "select count(*) > 0 from pg_stat_activity where query like 'begin; insert%' and wait_event = 'PgSleep'",
    );
    db.sql("insert into done values (1)");
    let before = snapshot(&db);
    assert!(!before.ends_with(':'), "{before}: nobody was in progress");
    db.sql("insert into done values (2)");
    wait_until(&cluster, "select count(*) = 0 from pg_stat_activity where query like 'begin; insert%'");
    let found = counted(&db, &before, &[]).await;
    assert_eq!(found.tables, [("public.done".to_owned(), 1), ("public.t".to_owned(), 1)]);
    // The subtransaction's row, and one that was committed before but cannot be told from it.
    let unknowable: Vec<_> = found.unknowable.iter().map(|(table, _)| table.as_str()).collect();
    assert_eq!(unknowable, ["public.done", "public.s"]);
}

#[tokio::test]
async fn large_objects_and_what_we_may_not_read() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    let me = role(cluster, "");
    db.sql(&format!(
        "create table secret (i int); create table rls (i int); alter table rls enable row level security;
         create schema closed; create table closed.t (i int); grant select on closed.t, rls to {me}; create table open (i int);
         grant select on open to {me}"
    ));
    let before = snapshot(&db);
    db.sql("select lo_from_bytea(0, 'x')");
    assert_eq!(counted(&db, &before, &[]).await.tables, [("pg_catalog.pg_largeobject".to_owned(), 1)]);
    let mine =
        ripcord::postgres::Session::connect(&super::target_of(&cluster.url_as(&me, "pw", &db.name)), "run", LIMIT)
            .await
            .unwrap();
    let found = count_since(&mine, &before, &[]).await.unwrap();
    let unknowable: Vec<_> = found.unknowable.iter().map(|(table, _)| table.as_str()).collect();
    assert_eq!(unknowable, ["closed.t", "public.rls", "public.secret", "pg_catalog.pg_largeobject"]);

    let inside = session(cluster, &db.name).await;
    inside.batch("begin; insert into open values (1)").await.unwrap();
    assert!(count_since(&inside, &before, &[]).await.is_err(), "its own transaction cannot be told from later ones");
    assert!(count_since(&mine, "no snapshot", &[]).await.is_err());
}

/// As if 2³² transactions had gone by, a few times.
fn set_epoch(cluster: &Cluster, epoch: u32) {
    let _ = std::fs::remove_file(cluster.socket().join("data/postmaster.pid"));
    let mut command = Command::new(cluster.bin().join("pg_resetwal"));
    command.args(["-f", "-e", &epoch.to_string()]).arg(cluster.socket().join("data"));
    if let Some((uid, gid)) = unprivileged_user() {
        command.uid(uid).gid(gid);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn xids_beyond_the_first_epoch() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    db.sql("create table t (i int); insert into t values (1); vacuum freeze t");
    cluster.sql("postgres", "checkpoint");
    cluster.crash();
    set_epoch(&cluster, 3);
    cluster.restart();
    let before = snapshot(&db);
    assert!(before.split(':').next().unwrap().parse::<u64>().unwrap() > 3 << 32, "{before}");
    assert_eq!(counted(&db, &before, &[]).await.total(), 0);
    db.sql("insert into t values (2)");
    assert_eq!(counted(&db, &before, &[]).await.tables, [("public.t".to_owned(), 1)]);
}

#[tokio::test]
async fn the_fence_holds_writers_off_and_is_known_to_leak() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    let name = &db.name;
    db.sql("create table t (i int)");
    let ours = session(cluster, name).await;
    let _writer = Background::reconnecting(cluster, name, "insert into t values (1); select pg_sleep(0.5)");
    wait_until(
        cluster,
        &format!("select count(*) > 0 from pg_stat_activity where datname = '{name}' and wait_event = 'PgSleep'"),
    );
    fence(&m, name, None, LIMIT).await.unwrap();
    let rows = db.sql("select count(*) from t");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(db.sql("select count(*) from t"), rows, "somebody wrote under the fence");
    assert!(cluster.try_sql(name, "insert into t values (2)").unwrap_err().contains("read-only transaction"));
    // Ours was not ended, and writes.
    ours.batch("insert into t values (3)").await.unwrap();
    // What passes it, and must be counted.
    let before = snapshot(&db);
    db.sql("begin read write; insert into t values (4); commit");
    assert_eq!(counted(&db, &before, &[]).await.total(), 1);

    // A session that began under the fence would stay read-only.
    let _pool = Background::psql(cluster, name, "select pg_sleep(60)");
    wait_until(
        cluster,
        &format!(
            "select count(*) > 0 from pg_stat_activity where datname = '{name}' and query = 'select pg_sleep(60)'"
        ),
    );
    assert!(unfence(&m, name, None).await.unwrap().is_none());
    db.sql("insert into t values (5)");
    wait_until(
        cluster,
        &format!(
            "select count(*) = 0 from pg_stat_activity where datname = '{name}' and query = 'select pg_sleep(60)'"
        ),
    );
    assert_eq!(cluster.sql("postgres", &format!("select count(*) from pg_db_role_setting s join pg_database d on d.oid = setdatabase where datname = '{name}'")), "0");

    fence(&m, name, None, LIMIT).await.unwrap();
    assert!(unfence(&m, name, Some("off")).await.unwrap().is_none());
    assert_eq!(
        cluster.sql("postgres", &format!("select setconfig from pg_db_role_setting s join pg_database d on d.oid = setdatabase where datname = '{name}'")),
        "{default_transaction_read_only=off}"
    );
}
