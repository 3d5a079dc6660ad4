//! Undoing a migration from psql alone.

use crate::support::{Cluster, Db, Project};

fn shop(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project.migration("001_orders.sql", "CREATE TABLE orders (id int PRIMARY KEY);", "DROP TABLE orders;").migration(
        "002_lines.sql",
        "CREATE TABLE lines (id int);\nCREATE INDEX lines_id ON lines (id);",
        "SET LOCAL ROLE pg_monitor; RESET ROLE;\nDROP INDEX lines_id;\nDROP TABLE lines;",
    );
    project.run(&["apply"]).expect_code(0);
    project
}

fn refused(db: &Db<'_>, sql: &str) -> String {
    db.cluster.try_sql(&db.name, sql).unwrap_err()
}

#[test]
fn the_last_migration_goes_with_history_and_audit_row() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let told = db.sql("select ripcord.rollback_last_migration()");
    assert!(told.starts_with("`002_lines` is rolled back"), "{told}");
    assert_eq!(db.sql("select to_regclass('lines') is null, to_regclass('orders') is null"), "t|f");
    assert_eq!(
        db.sql("select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations"),
        "001 applied, 002 rolled_back"
    );
    assert_eq!(
        db.sql("select version, how, run_id is null, rolled_back_by from ripcord.rollback_history"),
        "002|sql|t|postgres (SQL)"
    );
    assert_eq!(
        db.sql("select action, detail->>'migration' from ripcord.audit_log order by id desc limit 1"),
        "rolled back from SQL|002_lines"
    );
    assert_eq!(db.sql("show search_path"), "\"$user\", public");
    // ripcord goes on from there.
    let ran = project.json(&["apply"]).expect_code(0);
    assert_eq!(ran.result()["migrations"][0]["version"], "002", "{ran:#?}");
    db.sql("select ripcord.rollback_migration('002_lines')");
    db.sql("select ripcord.rollback_migration('orders')");
    assert_eq!(db.sql("select count(*) from pg_tables where schemaname = 'public'"), "0");
    assert!(refused(&db, "select ripcord.rollback_last_migration()").contains("no migration is applied"));
}

#[test]
fn a_down_that_fails_changes_nothing() {
    let db = Cluster::shared().database();
    shop(&db);
    db.sql("create view in_the_way as select * from lines");
    let told = refused(&db, "select ripcord.rollback_last_migration()");
    assert!(told.contains("cannot drop table lines"), "{told}");
    db.sql("drop view in_the_way");
    // As part of a transaction it goes with it.
    db.sql("begin; select ripcord.rollback_last_migration(); rollback");
    assert_eq!(db.sql("select to_regclass('lines') is null, to_regclass('lines_id') is null"), "f|f");
    assert_eq!(db.sql("select count(*) from ripcord.rollback_history"), "0");
    assert_eq!(db.sql("select count(*) from ripcord.schema_migrations where state = 'applied'"), "2");
}

#[test]
fn what_cannot_be_undone_from_sql_is_refused() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let last = "select ripcord.rollback_last_migration()";
    for (sql, words) in [
        ("select ripcord.rollback_migration('001')", "applied after it: `002_lines`"),
        ("select ripcord.rollback_migration('nothing')", "no applied migration is called `nothing`"),
        ("select ripcord.rollback_migration(null)", "no applied migration is called ``"),
    ] {
        let told = refused(&db, sql);
        assert!(told.contains(words) && told.contains("HINT"), "{sql}: {told}");
    }

    // Another text than the one that was applied.
    db.sql("create table kept as select down_sql, down_digest from ripcord.schema_migrations where version = '002'");
    let set = |sql: &str| {
        db.sql(&format!("update ripcord.schema_migrations set down_sql = {sql} where version = '002'"));
    };
    set("'drop table orders'");
    let told = refused(&db, last);
    assert!(told.contains("is not the one that was kept when it was applied"), "{told}");
    std::fs::remove_file(project.path().join("migrations/002_lines.sql")).unwrap();
    let ran = project.run(&["rollback"]).expect_code(7);
    assert!(ran.stderr.contains("the DOWN that was kept for `002` is not the one"), "{ran:#?}");
    set("null");
    assert!(refused(&db, last).contains("there is no DOWN for `002_lines`"));
    set("(select down_sql from kept)");

    // A run at work, one that died, and the lock without a row.
    let row =
        "insert into ripcord.lock values (true, gen_random_uuid(), 'apply', 'me', 'here', 1, now(), now(), now())";
    db.sql(row);
    let told = refused(&db, last);
    assert!(told.contains("ripcord is at work in this database: `apply` of me@here"), "{told}");
    db.sql("delete from ripcord.lock");
    db.sql("update ripcord.runs set finished_at = null");
    assert!(refused(&db, last).contains("was not finished"));
    db.sql("update ripcord.runs set finished_at = now()");
    let held = project.command(&["apply"]);
    drop(held);

    // A superuser does not run what somebody else can have written.
    db.sql("alter schema ripcord owner to pg_monitor");
    assert!(refused(&db, last).contains("belongs to `pg_monitor`, who is no superuser"));
    db.sql("alter schema ripcord owner to postgres");

    project.migration("003_index.sql", "CREATE INDEX CONCURRENTLY i ON orders (id);", "DROP INDEX CONCURRENTLY i;");
    project.write(
        "migrations/002_lines.sql",
        "-- UP\nCREATE TABLE lines (id int);\nCREATE INDEX lines_id ON lines (id);\n\n-- DOWN\nSET LOCAL ROLE pg_monitor; RESET ROLE;\nDROP INDEX lines_id;\nDROP TABLE lines;\n",
    );
    project.run(&["apply"]).expect_code(0);
    let told = refused(&db, last);
    assert!(told.contains("the DOWN of `003_index` cannot run inside a transaction"), "{told}");
    assert_eq!(db.sql("select to_regclass('i') is null"), "f");
    project.run(&["rollback"]).expect_code(0);
    db.sql(last);
    assert_eq!(db.sql("select to_regclass('lines') is null"), "t");
}

#[test]
fn while_ripcord_works_nothing_is_undone_and_the_other_way_round() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("003_slow.sql", "SELECT pg_sleep(6);", "SELECT 1;");
    let child = project
        .command(&["apply"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while db.sql("select count(*) from ripcord.runs where finished_at is null") == "0" {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let told = refused(&db, "select ripcord.rollback_last_migration()");
    assert!(told.contains("ripcord is at work in this database"), "{told}");
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(db.sql("select to_regclass('lines') is null"), "f");
}

#[test]
fn objects_of_others_are_not_taken_for_ours_and_nobody_may_call_it_unasked() {
    let db = Cluster::shared().database();
    shop(&db);
    db.sql(
        "create schema evil; create function evil.format(text, variadic text[]) returns text language sql as
             'delete from public.orders; select ''x''';
         create function evil.never(text, text) returns bool language plpgsql as 'begin raise ''evil''; end';
         create operator evil.= (leftarg = text, rightarg = text, function = evil.never);
         create role from_sql_nobody login; grant usage on schema evil to public",
    );
    let told = refused(&db, "set role from_sql_nobody; select ripcord.rollback_last_migration()");
    assert!(told.contains("permission denied"), "{told}");
    db.sql("set search_path = evil, public, pg_catalog; select ripcord.rollback_migration('002')");
    assert_eq!(db.sql("select to_regclass('lines') is null"), "t");
}
