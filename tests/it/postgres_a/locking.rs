//! The lock.

use std::time::{Duration, Instant};

use ripcord::error::Kind;
use ripcord::postgres::guard::{Guard, break_lock, holder, open_maintenance};

use super::{role, settings, target, target_of};
use crate::support::Cluster;

#[tokio::test]
async fn one_run_at_a_time() {
    let db = Cluster::shared().database();
    let (target, settings) = (target(&db), settings(&db.url()));
    let first = Guard::acquire(&target, &settings, Duration::ZERO).await.unwrap();
    assert!(first.still_held().await);
    assert!(!first.in_target());
    assert_eq!(first.maintenance_target().database(), "postgres");

    let began = Instant::now();
    let error = Guard::acquire(&target, &settings, Duration::from_millis(600)).await.err().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(600));
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.one_line().contains(&format!("backend {}", first.maintenance().backend_pid())), "{error}");
    assert!(error.one_line().contains("`ripcord lock`"), "{error}");

    let other = Cluster::shared().database();
    Guard::acquire(&super::target(&other), &settings, Duration::ZERO).await.unwrap().release().await.unwrap();

    let waiting = tokio::spawn({
        let (target, settings) = (target.clone(), settings.clone());
        async move { Guard::acquire(&target, &settings, Duration::from_secs(10)).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    assert_eq!(holder(second.maintenance(), &db.name).await.unwrap().unwrap().pid, second.maintenance().backend_pid());
    drop(second);
    // Dropping closes the session, and the server ends it in its own time.
    Guard::acquire(&target, &settings, Duration::from_secs(5)).await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_lock_that_is_broken_is_noticed() {
    let db = Cluster::shared().database();
    let (target, settings) = (target(&db), settings(&db.url()));
    assert!(!break_lock(&target, &settings).await.unwrap());
    let guard = Guard::acquire(&target, &settings, Duration::ZERO).await.unwrap();
    assert!(break_lock(&target, &settings).await.unwrap());
    assert!(!guard.still_held().await);
    let error = guard.release().await.unwrap_err();
    assert!(error.message().contains("lock was lost"), "{error}");
    let guard = Guard::acquire(&target, &settings, Duration::ZERO).await.unwrap();
    guard.maintenance().rows("select pg_advisory_unlock_all()").await.unwrap();
    assert!(!guard.still_held().await);
    assert!(guard.release().await.is_err());
}

#[tokio::test]
async fn the_maintenance_database_is_never_the_target() {
    let cluster = Cluster::start(&[]);
    let url = cluster.url("postgres");
    let (found, session) = open_maintenance(&target_of(&url), &settings(&url)).await.unwrap();
    assert_eq!(found.database(), "template1");
    session.close().await;
    let mut own = settings(&url);
    own.maintenance_db = Some("postgres".to_owned());
    assert_eq!(open_maintenance(&target_of(&url), &own).await.unwrap_err().kind(), Kind::Usage);

    // A role that is let into nothing else holds the lock in the target, and is told so.
    let db = cluster.database();
    let user = role(&cluster, "");
    cluster.sql(
        "postgres",
        "revoke connect on database postgres from public; revoke connect on database template1 from public",
    );
    let url = cluster.url_as(&user, "pw", &db.name);
    let error = open_maintenance(&target_of(&url), &settings(&url)).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("--maintenance-db"), "{error:?}");
    let guard = Guard::acquire(&target_of(&url), &settings(&url), Duration::ZERO).await.unwrap();
    assert!(guard.in_target());
    assert_eq!(guard.maintenance_target().database(), db.name);
    guard.release().await.unwrap();
}
