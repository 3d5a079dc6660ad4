//! The server goes away in the middle.

use super::*;

fn sleeping(db: &Db<'_>) -> bool {
    let sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    db.cluster.try_sql("postgres", sql).is_ok_and(|count| count == "1")
}

fn slow(project: &Project, file: &str) {
    project.migration(file, "CREATE TABLE slow (id int);\nSELECT pg_sleep(600);", "DROP TABLE slow;");
}

#[test]
fn a_server_that_comes_back_is_waited_for() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = shop(&db);
    let before = db.schema();
    slow(&project, "002_slow.sql");
    let mut running = Running::start(&project, &["--json", "apply"]);
    running.until("the migration", || sleeping(&db));
    cluster.crash_and_restart();
    let ran = running.finish().expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    assert_eq!(ran.result()["proof"]["kind"], "nothing-committed", "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 failed".to_owned(), "apply done 0, apply unchanged 1".to_owned())
    );

    // What had been committed by then is taken back.
    project.migration("002_slow.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    slow(&project, "003_slow.sql");
    let mut running = Running::start(&project, &["--json", "apply"]);
    running.until("the migration", || sleeping(&db));
    cluster.crash_and_restart();
    let ran = running.finish().expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    tells(&ran, "as before the run", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(history(&db), "001 applied, 002 failed, 002 rolled_back, 003 failed");
}

#[test]
fn a_server_that_does_not_come_back_leaves_the_state_unknown_and_recover_finds_it_out() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = shop(&db);
    let before = db.schema();
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    slow(&project, "003_slow.sql");
    let mut running = Running::start(&project, &["--json", "apply"]);
    running.until("the migration", || sleeping(&db));
    cluster.crash();
    running.until_it_says("waiting for the server");
    // Whoever does not want to wait says so.
    running.signal("-TERM");
    let ran = running.finish().expect_code(4);
    assert_eq!(ran.result()["outcome"], "not_recovered", "{ran:#?}");
    tells(&ran, "UNKNOWN, do not retry", "ripcord recover");
    assert!(ran.result()["error"].as_str().unwrap().contains("003_slow.sql"), "{ran:#?}");
    cluster.restart();

    let next = project.json(&["apply"]).expect_code(7);
    tells(&next, "unchanged", "ripcord recover");
    let ran = project.json(&["recover"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    tells(&ran, "as before the run", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(runs(&db), "apply done 0, apply rolled_back 3");
    assert!(history(&db).starts_with("001 applied, 002 rolled_back"));
    let ran = project.json(&["recover"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "nothing_to_do", "{ran:#?}");
}

#[test]
fn a_session_that_somebody_ends_is_only_a_failed_migration() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    slow(&project, "002_slow.sql");
    let mut running = Running::start(&project, &["--json", "apply"]);
    let end = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '{}' and wait_event = 'PgSleep'",
        db.name
    );
    running.until("the migration", || db.cluster.sql("postgres", &end) == "1");
    let ran = running.finish().expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 failed".to_owned(), "apply done 0, apply unchanged 1".to_owned())
    );
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let project = Project::with_url("postgresql://nobody@127.0.0.1:1/nothing");
    project.configure("[timeouts]\nconnect = \"500ms\"\n[retry]\nattempts = 1\n");
    project.migration("001_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["apply"]).expect_code(1);
    tells(&ran, "unchanged", "");
    assert!(ran.result()["error"].as_str().unwrap().contains("127.0.0.1"), "{ran:#?}");
    assert!(!project.store().exists());
}
