//! Runs that are stopped: by a signal, by another run, by an approval that is missing.

use super::*;

/// A migration that waits in the server until it is told to stop.
fn slow(project: &Project, file: &str) {
    project.migration(file, "CREATE TABLE slow (id int);\nSELECT pg_sleep(600);", "DROP TABLE slow;");
}

fn sleeping(db: &Db<'_>) -> bool {
    let sql = format!("select count(*) from pg_stat_activity where datname = '{}' and wait_event = 'PgSleep'", db.name);
    db.cluster.sql("postgres", &sql) == "1"
}

#[test]
fn a_signal_during_the_first_migration_leaves_everything() {
    for signal in ["-TERM", "-INT"] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        let before = db.schema();
        slow(&project, "002_slow.sql");
        let mut running = Running::start(&project, &["--json", "apply"]);
        running.until("the migration", || sleeping(&db));
        running.signal(signal);
        let ran = running.finish().expect_code(1);
        assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains("stopped on request"), "{ran:#?}");
        tells(&ran, "unchanged", "ripcord apply");
        wait_until("our sessions end", || our_backends(&db) == "0");
        assert!(!sleeping(&db));
        assert_eq!(db.schema(), before);
        assert_eq!(
            (history(&db), runs(&db)),
            ("001 applied, 002 failed".to_owned(), "apply done 0, apply unchanged 1".to_owned())
        );
    }
}

#[test]
fn a_signal_with_all_in_one_transaction_leaves_everything() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    slow(&project, "002_slow.sql");
    let mut running = Running::start(&project, &["--json", "apply", "--atomic"]);
    running.until("the migration", || sleeping(&db));
    running.signal("-TERM");
    let ran = running.finish().expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(history(&db), "001 applied, 002 failed");
}

#[test]
fn a_signal_after_something_was_changed_brings_it_back() {
    for (up, outcome) in
        [("CREATE TABLE more (id int);", "rolled_back"), ("ALTER TABLE orders DROP COLUMN note;", "restored")]
    {
        let db = Cluster::shared().database();
        let project = shop(&db);
        let before = db.schema();
        project.migration("002_first.sql", up, "DROP TABLE more;");
        slow(&project, "003_slow.sql");
        let mut running = Running::start(&project, &["--json", "apply"]);
        running.until("the migration", || sleeping(&db));
        running.signal("-TERM");
        let ran = running.finish().expect_code(3);
        assert_eq!(ran.result()["outcome"], outcome, "{ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains("stopped on request"), "{ran:#?}");
        tells(&ran, if outcome == "restored" { "restored" } else { "as before the run" }, "ripcord apply");
        assert_eq!(db.schema(), before);
        assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
        assert_eq!(runs(&db), format!("apply done 0, apply {outcome} 3"));
    }
}

#[test]
fn a_signal_in_place_brings_it_back_too() {
    // A role that may not create databases is restored in place, after a backup of what is there.
    let cluster = Cluster::shared();
    let role = format!("plain{}", uuid::Uuid::new_v4().simple());
    cluster.sql("postgres", &format!("create role {role} login password 'pw'"));
    let db = cluster.database();
    cluster.sql("postgres", &format!("alter database {} owner to {role}", db.name));
    let project = with_shop(Project::with_url(&cluster.url_as(&role, "pw", &db.name)));
    let before = db.schema();
    project.migration("002_first.sql", "ALTER TABLE orders DROP COLUMN note;", "SELECT 1;");
    slow(&project, "003_slow.sql");
    let mut running = Running::start(&project, &["--json", "apply"]);
    running.until("the migration", || sleeping(&db));
    running.signal("-TERM");
    let ran = running.finish().expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    tells(&ran, "restored in place from backup", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
}

#[test]
fn a_signal_during_the_backup_leaves_nothing_of_it() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let stored = stored_backups(&project);
    let holding = Holding::open(&db, "lock table orders in access exclusive mode");
    let mut running = Running::start(&project, &["--json", "apply"]);
    let dumps = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and application_name = 'pg_dump' and wait_event_type = 'Lock'",
        db.name
    );
    running.until("pg_dump", || db.cluster.sql("postgres", &dumps) == "1");
    running.signal("-TERM");
    let ran = running.finish().expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(stored_backups(&project), stored);
    assert_eq!(
        (history(&db), runs(&db), backups(&db)),
        ("001 applied".to_owned(), "apply done 0, apply unchanged 1".to_owned(), "verified, failed".to_owned())
    );
    wait_until("pg_dump ends on the server", || db.cluster.sql("postgres", &dumps) == "0");
    drop(holding);
    project.json(&["apply"]).expect_code(0);
}

#[test]
fn a_second_signal_stops_at_once_and_recover_mends() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let point = project.path().join("point");
    let mut running =
        Running::with_faults(&project, &["--json", "apply"], &format!("apply_migrated=wait:{}", point.display()));
    running.until("the point", || point.exists());
    running.signal("-TERM");
    running.until_it_says("stopping in order");
    running.signal("-TERM");
    let ran = running.finish().expect_code(4);
    assert!(
        ran.stderr.contains("database: UNKNOWN, do not retry") && ran.stderr.contains("ripcord recover"),
        "{ran:#?}"
    );
    assert_eq!(runs(&db), "apply done 0, apply unfinished");
    project.configure(&well_while("select to_regclass('public.more') is null"));
    // The dead run's session may still be ending on the server.
    let ran = project.json(&["recover"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    assert_eq!(db.schema(), before);
}

#[test]
fn a_living_run_renews_its_row_of_the_lock() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let point = project.path().join("point");
    let mut running =
        Running::with_faults(&project, &["--json", "apply"], &format!("apply_backed_up=wait:{}", point.display()));
    running.until("the point", || point.exists());
    let row = "select heartbeat > since, expires_at - heartbeat from ripcord.lock";
    let first = db.sql(row);
    let (_, lifetime) = first.split_once('|').unwrap();
    wait_until("a beat", || db.sql(row) == format!("t|{lifetime}"));
    std::fs::remove_file(&point).unwrap();
    running.finish().expect_code(0);
    assert_eq!(db.sql("select count(*) from ripcord.lock"), "0");
}

#[test]
fn a_second_run_at_the_same_time_is_told_who_holds_the_lock() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let point = project.path().join("point");
    let mut running =
        Running::with_faults(&project, &["--json", "apply"], &format!("apply_backed_up=wait:{}", point.display()));
    running.until("the point", || point.exists());

    let second = project.json(&["apply"]).expect_code(5);
    assert_eq!(second.result()["outcome"], "locked", "{second:#?}");
    let error = second.result()["error"].as_str().unwrap().to_owned();
    let pid = db.sql("select pid from ripcord.lock");
    assert_eq!(pid, running.pid().to_string());
    assert!(error.contains("another run works on") && error.contains(&format!(":{pid}")), "{second:#?}");
    tells(&second, "unchanged", "ripcord lock status");
    assert_eq!(runs(&db), "apply done 0, apply unfinished");

    // One that waits comes next, and finds the work done.
    let mut waiting = Running::start(&project, &["--json", "apply", "--wait", "2m"]);
    waiting.until_it_says("step_began");
    std::fs::remove_file(&point).unwrap();
    running.finish().expect_code(0);
    let ran = waiting.finish();
    assert_eq!((ran.code, ran.result()["outcome"].clone()), (0, "nothing_to_do".into()), "{ran:#?}");
    assert_eq!(history(&db), "001 applied, 002 applied");
    assert_eq!(runs(&db), "apply done 0, apply done 0");
    assert_eq!(db.sql("select count(*) from ripcord.lock"), "0");

    let ran = project.json(&["apply", "--wait", "1ms"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "nothing_to_do", "{ran:#?}");
}

#[test]
fn a_control_schema_that_is_not_ours_is_refused() {
    for sql in [
        "create schema ripcord",
        "create schema ripcord; create table ripcord.schema_migrations (version text)",
        "create table x (); create schema ripcord; create table ripcord.meta (only_row bool, lineage uuid, schema_version int)",
    ] {
        let db = Cluster::shared().database();
        db.sql(sql);
        let project = Project::new(&db);
        project.migration("001_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
        let before = db.sql("select string_agg(relname, ',' order by relname) from pg_class where relnamespace = 'ripcord'::regnamespace");
        let ran = project.json(&["apply"]).expect_code(7);
        assert_eq!(ran.result()["outcome"], "refused", "{ran:#?}");
        tells(&ran, "unchanged", "");
        assert_eq!(db.sql("select string_agg(relname, ',' order by relname) from pg_class where relnamespace = 'ripcord'::regnamespace"), before);
        assert_eq!(db.sql("select to_regclass('more') is null"), "t");
        assert!(!project.store().exists());
    }
}

#[test]
fn an_approval_is_asked_for_and_recorded() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.write("ripcord.toml", "[environments.live]\napproval = true\n");
    let project = project.env("RIPCORD_ENV", "live");
    project.migration("001_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["apply"]).expect_code(7);
    assert_eq!(ran.result()["outcome"], "refused", "{ran:#?}");
    tells(&ran, "unchanged", "--yes");
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
    assert!(!project.store().exists());

    let ran = project.json(&["apply", "--yes"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");
    assert!(db.sql("select approver from ripcord.schema_migrations").contains("by --yes"));
    assert!(
        db.sql("select detail->>'approver' from ripcord.audit_log where action = 'apply began'").contains("by --yes")
    );

    project.migration("002_more.sql", "CREATE TABLE more2 (id int);", "DROP TABLE more2;");
    let project = project.env("FORCE_RUN", "true");
    project.json(&["apply"]).expect_code(0);
    assert_eq!(history(&db), "001 applied, 002 applied");
    // What destroys without a way back is an error in a protected environment.
    project.write("migrations/003_drop.sql", "-- UP\nDROP TABLE more;\n");
    let ran = project.json(&["apply"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "invalid", "{ran:#?}");
    tells(&ran, "unchanged", "ripcord validate");
}

#[test]
fn a_signal_while_an_index_is_built_leaves_no_invalid_index() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    project.migration(
        "002_index.sql",
        "CREATE INDEX CONCURRENTLY orders_note ON orders (note);",
        "DROP INDEX IF EXISTS orders_note;",
    );
    // An old snapshot that the index's builder waits for, once the backup is made.
    let point = project.path().join("point");
    let mut running =
        Running::with_faults(&project, &["--json", "apply"], &format!("apply_backed_up=wait:{}", point.display()));
    running.until("the backup", || point.exists());
    let holding = Holding::open(&db, "set transaction isolation level repeatable read; select 1");
    std::fs::remove_file(&point).unwrap();
    running.until("the index", || db.sql("select count(*) from pg_index where not indisvalid") == "1");
    running.signal("-TERM");
    let ran = running.finish().expect_code(3);
    drop(holding);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("stopped on request"), "{ran:#?}");
    tells(&ran, "as before the run", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*) from pg_index where not indisvalid"), "0");
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 failed".to_owned(), "apply done 0, apply rolled_back 3".to_owned())
    );
}

#[test]
fn a_signal_while_the_health_is_asked_brings_it_back() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    project.configure(
        "[[health]]\nsql = \"select to_regclass('public.more') is null\"\ninterval = \"50ms\"\ndeadline = \"10m\"\n",
    );
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let mut running = Running::start(&project, &["--json", "apply"]);
    running.until_it_says("returned ?column?: f");
    running.signal("-TERM");
    let ran = running.finish().expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    tells(&ran, "as before the run", "ripcord apply");
    assert_eq!(db.schema(), before);
}

#[test]
fn a_signal_while_the_lock_is_waited_for_ends_the_waiting() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let point = project.path().join("point");
    let mut running =
        Running::with_faults(&project, &["--json", "apply"], &format!("apply_backed_up=wait:{}", point.display()));
    running.until("the point", || point.exists());
    let mut waiting = Running::start(&project, &["--json", "apply", "--wait", "1h"]);
    waiting.until_it_says("step_began");
    waiting.signal("-TERM");
    let ran = waiting.finish().expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    tells(&ran, "unchanged", "");
    std::fs::remove_file(&point).unwrap();
    running.finish().expect_code(0);
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 applied".to_owned(), "apply done 0, apply done 0".to_owned())
    );
}

#[test]
fn a_run_that_waited_applies_only_what_is_left() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    // Once more would be a second row: nothing but the history keeps it from that.
    project.migration("002_row.sql", "INSERT INTO orders SELECT max(id) + 1 FROM orders;", "SELECT 1;").migration(
        "003_row.sql",
        "INSERT INTO orders SELECT max(id) + 1 FROM orders;",
        "DELETE FROM orders WHERE id = 102;",
    );
    let point = project.path().join("point");
    let mut running = Running::with_faults(
        &project,
        &["--json", "apply", "--limit", "1"],
        &format!("apply_backed_up=wait:{}", point.display()),
    );
    running.until("the point", || point.exists());
    let mut waiting = Running::start(&project, &["--json", "apply", "--wait", "2m"]);
    waiting.until_it_says("step_began");
    std::fs::remove_file(&point).unwrap();
    running.finish().expect_code(0);
    let ran = waiting.finish().expect_code(0);
    assert_eq!(ran.result()["migrations"].as_array().unwrap().len(), 1, "{ran:#?}");
    assert_eq!(db.sql("select max(id) from orders"), "102");
    assert_eq!(history(&db), "001 applied, 002 applied, 003 applied");

    // What was planned on other ground is not done.
    project.migration("004_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let mut running = Running::with_faults(
        &project,
        &["--json", "rollback", "--steps", "1"],
        &format!("backup_snapshot=wait:{}", point.display()),
    );
    running.until("the point", || point.exists());
    let mut waiting = Running::start(&project, &["--json", "apply", "--wait", "2m"]);
    waiting.until_it_says("step_began");
    std::fs::remove_file(&point).unwrap();
    running.finish().expect_code(0);
    let ran = waiting.finish().expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(history(&db), "001 applied, 002 applied, 003 rolled_back");
}
