//! Closing and swapping.

use std::time::Duration;

use ripcord::ids::Lineage;
use ripcord::postgres::databases::{
    Aside, apply_properties, create, drop_aside, drop_hindrances, drop_scratch, find, list_aside, read_properties,
    scratch_name,
};
use ripcord::postgres::swap::{allow_connections, aside_name, close};

use super::{Background, LIMIT, maintenance, role, target, target_of, unique, wait_until};
use crate::support::Cluster;

fn aside(database: &str) -> Aside {
    Aside { lineage: Lineage::new(), database: database.into(), run: None, backup: None, at: ripcord::clock::now() }
}

#[tokio::test]
async fn a_swap_under_sessions_that_reconnect() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database_named(&unique("Swap \"me\" é"), "");
    let quoted = format!("\"{}\"", db.name.replace('"', "\"\""));
    db.sql(&format!(
        "create table old (i int); comment on database {quoted} is 'mine'; alter database {quoted} set work_mem = '7MB'"
    ));
    let properties = read_properties(&m, &db.name).await.unwrap();
    let scratch = scratch_name();
    create(&m, &scratch, &properties, "x").await.unwrap();
    cluster.sql(&scratch, "create table new (i int)");
    apply_properties(&m, &scratch, &properties).await.unwrap();
    let oid = find(&m, &scratch).await.unwrap().unwrap().oid;

    let conninfo = format!("dbname='{}'", db.name);
    let _fast = Background::reconnecting(cluster, &conninfo, "select 1");
    let _slow = Background::reconnecting(cluster, &conninfo, "select pg_sleep(5)");
    let _watch = Background::reconnecting(cluster, &scratch, "select pg_sleep(5)");
    std::thread::sleep(Duration::from_millis(300));

    let closed = close(&m, &target(cluster, &db.name), LIMIT).await.unwrap();
    assert!(cluster.try_sql(&db.name, "select 1").unwrap_err().contains("not currently accepting connections"));
    assert_eq!(closed.inside().rows("select count(*) from public.old").await.unwrap()[0][0].as_deref(), Some("0"));
    let (kept, told) = (aside_name(&db.name, ripcord::clock::now()), aside(&db.name));
    let window = closed.swap(&m, &scratch, &kept, &told.comment()).await.unwrap();
    assert!(window < LIMIT, "{window:?}");

    assert_eq!(db.sql("select count(*) from new"), "0");
    let now = find(&m, &db.name).await.unwrap().unwrap();
    assert_eq!((now.oid, now.comment.as_deref(), now.allows_connections), (oid, Some("mine"), true));
    assert_eq!(db.sql("show work_mem"), "7MB");
    let kept = find(&m, &kept).await.unwrap().unwrap();
    assert!(!kept.allows_connections);
    assert_eq!(list_aside(&m, Some(told.lineage)).await.unwrap()[0].name, kept.name);
    assert!(find(&m, &scratch).await.unwrap().is_none());
}

#[tokio::test]
async fn a_prepared_transaction_leaves_the_old_one_open() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    let scratch = scratch_name();
    create(&m, &scratch, &read_properties(&m, &db.name).await.unwrap(), "x").await.unwrap();
    let gid = unique("it''s ");
    db.sql(&format!("create table t (i int); begin; insert into t values (1); prepare transaction '{gid}'"));
    let closed = close(&m, &target(cluster, &db.name), LIMIT).await.unwrap();
    let error = closed.swap(&m, &scratch, &unique("aside"), "x").await.unwrap_err();
    assert!(error.one_line().contains(&gid.replace("''", "'")), "{error}");
    assert_eq!(db.sql(&format!("commit prepared '{gid}'; select i from t")), "1");
    assert!(find(&m, &scratch).await.unwrap().unwrap().allows_connections);
}

#[tokio::test]
async fn a_rename_that_fails_leaves_the_old_one_open_with_its_name() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    db.sql("create table t (i int)");
    let taken = cluster.database();
    for (replacement, aside) in [
        ("no such database".to_owned(), unique("aside")),
        (db_scratch(cluster, &db.name).await, taken.name.clone()),
        (db_scratch(cluster, &db.name).await, "x".repeat(64)),
    ] {
        let closed = close(&m, &target(cluster, &db.name), LIMIT).await.unwrap();
        let error = closed.swap(&m, &replacement, &aside, "x").await.unwrap_err();
        assert!(error.message().contains("was not swapped"), "{error}");
        assert_eq!(db.sql("select count(*) from t"), "0");
    }
    // Someone else's replacement: the server refuses the second rename, and the first is undone.
    let me = role(cluster, "createdb");
    cluster.sql("postgres", &format!("alter database {} owner to {me}; grant pg_signal_backend to {me}", db.name));
    let foreign = db_scratch(cluster, &taken.name).await;
    let mine = |database: &str| target_of(&cluster.url_as(&me, "pw", database));
    let m = ripcord::postgres::Session::connect(&mine("postgres"), "run", LIMIT).await.unwrap();
    let closed = close(&m, &mine(&db.name), LIMIT).await.unwrap();
    let error = closed.swap(&m, &foreign, &unique("aside"), "x").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42501"), "{error}");
    assert_eq!(db.sql("select count(*) from t"), "0");
}

async fn db_scratch(cluster: &Cluster, like: &str) -> String {
    let m = maintenance(cluster).await;
    let scratch = scratch_name();
    create(&m, &scratch, &read_properties(&m, like).await.unwrap(), "x").await.unwrap();
    scratch
}

#[tokio::test]
async fn sessions_that_may_not_be_ended_are_named_and_the_database_stays_open() {
    let cluster = Cluster::shared();
    let (me, other) = (role(cluster, "createdb"), role(cluster, ""));
    let db = cluster.database_named(&unique("mine"), &format!("owner {me}"));
    let mine = |database: &str| target_of(&cluster.url_as(&me, "pw", database));
    let m = ripcord::postgres::Session::connect(&mine("postgres"), "run", LIMIT).await.unwrap();
    let theirs =
        ripcord::postgres::Session::connect(&target_of(&cluster.url_as(&other, "pw", &db.name)), "theirs", LIMIT)
            .await
            .unwrap();
    let error = close(&m, &mine(&db.name), LIMIT).await.err().unwrap();
    assert!(
        error.one_line().contains(&other) && error.one_line().contains(&theirs.backend_pid().to_string()),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("pg_signal_backend"), "{error}");
    assert_eq!(db.sql("select 1"), "1");
    cluster.sql("postgres", &format!("grant pg_signal_backend to {me}"));
    let closed = close(&m, &mine(&db.name), LIMIT).await.unwrap();
    wait_until(cluster, &format!("select count(*) = 1 from pg_stat_activity where datname = '{}'", db.name));
    closed.reopen(&m).await.unwrap();
    assert_eq!(db.sql("select 1"), "1");
}

#[tokio::test]
async fn a_lost_connection_is_an_unknown_outcome() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    let scratch = db_scratch(cluster, &db.name).await;
    let closed = close(&m, &target(cluster, &db.name), LIMIT).await.unwrap();
    cluster.sql("postgres", &format!("select pg_terminate_backend({})", m.backend_pid()));
    let error = closed.swap(&m, &scratch, &unique("aside"), "x").await.unwrap_err();
    assert_eq!(error.kind(), ripcord::error::Kind::NotRecovered, "{error}");
    assert_eq!(error.hint_text(), Some("ripcord recover"));
    allow_connections(&maintenance(cluster).await, &db.name, true).await.unwrap();
    assert_eq!(db.sql("select 1"), "1");
}

#[tokio::test]
async fn subscriptions_are_disabled_in_the_old_one_and_enabled_again_when_nothing_came_of_it() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    let subscription = unique("sub");
    db.sql(&format!(
        "create subscription {subscription} connection 'host={} port={} dbname=nowhere' publication p \
         with (connect = false, slot_name = '{subscription}'); alter subscription {subscription} enable",
        cluster.socket().display(),
        cluster.port()
    ));
    let enabled = format!("select subenabled from pg_subscription where subname = '{subscription}'");
    let scratch = db_scratch(cluster, &db.name).await;
    let taken = cluster.database();
    let swap_to = async |aside: &str| {
        close(&m, &target(cluster, &db.name), LIMIT).await.unwrap().swap(&m, &scratch, aside, "x").await
    };
    swap_to("x".repeat(70).as_str()).await.unwrap_err();
    assert_eq!(cluster.sql("postgres", &enabled), "t");
    swap_to(&taken.name).await.unwrap_err();
    assert_eq!(cluster.sql("postgres", &enabled), "t");
    let kept = unique("aside");
    swap_to(&kept).await.unwrap();
    assert_eq!(cluster.sql("postgres", &enabled), "f");
    let hindrances = drop_hindrances(&m, &kept).await.unwrap().join("\n");
    assert!(hindrances.contains(&subscription), "{hindrances}");
    // The subscription goes with it; the slot, which may feed another database now, is not asked for.
    let told = aside(&db.name).comment();
    cluster.sql("postgres", &format!("comment on database {kept} is '{told}'"));
    drop_aside(&m, &kept).await.unwrap();
    assert!(find(&m, &kept).await.unwrap().is_none());

    // So do those that a load brought into a scratch database.
    let scratch = db_scratch(cluster, &db.name).await;
    cluster.sql(
        &scratch,
        &format!(
            "create subscription {subscription}_2 connection 'host=/nowhere' publication p with (connect = false)"
        ),
    );
    drop_scratch(&m, &scratch, None).await.unwrap();
    assert!(find(&m, &scratch).await.unwrap().is_none());
}

#[tokio::test]
async fn a_lock_on_the_database_does_not_keep_it_closed() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    let scratch = db_scratch(cluster, &db.name).await;
    let closed = close(&m, &target(cluster, &db.name), LIMIT).await.unwrap();
    let hold = format!("begin; comment on database {} is 'x'; select pg_sleep(60)", db.name);
    let _held = Background::psql(cluster, "postgres", &hold);
    wait_until(
        cluster,
        &format!(
            "select count(*) > 0 from pg_stat_activity where query = '{}' and wait_event = 'PgSleep'",
            hold.replace('\'', "''")
        ),
    );
    let begun = std::time::Instant::now();
    let error = closed.swap(&m, &scratch, &unique("aside"), "x").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("55P03"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(db.sql("select 1"), "1");
}
