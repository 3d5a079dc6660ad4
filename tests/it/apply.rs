//! `apply` on a real server: what happens, in which order, and what is left.

use crate::support::{Cluster, Project};

fn shop(project: &Project) {
    project
        .migration("001_shop.sql", "CREATE TABLE orders (id int PRIMARY KEY, note text);", "DROP TABLE orders;")
        .migration(
            "002_fill.sql",
            "INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 100) AS g;",
            "DELETE FROM orders;",
        );
}

#[test]
fn pending_migrations_are_applied_after_a_backup() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    shop(&project);

    let ran = project.json(&["apply"]).expect_code(0);

    assert_eq!(
        ran.events(),
        [
            "step_began lock",
            "step_finished lock",
            "step_began preflight",
            "step_finished preflight",
            "step_began backup",
            "step_finished backup",
            "migration_began 001",
            "migration_finished 001",
            "migration_began 002",
            "migration_finished 002",
            "step_began verify",
            "step_finished verify",
        ]
    );
    let result = ran.result();
    assert_eq!(result["outcome"], "done");
    assert_eq!(result["batch"], 1);
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(
        db.sql("select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations"),
        "001 applied, 002 applied"
    );
    assert_eq!(db.sql("select status from ripcord.backup_history"), "verified");
}

#[test]
fn nothing_pending_writes_nothing() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    let ran = project.json(&["apply"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(ran.result()["outcome"], "nothing_to_do");
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
    assert!(!project.store().exists());
}

#[test]
fn a_failing_migration_takes_the_run_back_by_down() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    shop(&project);
    project.run(&["apply"]).expect_code(0);
    let before = db.schema();
    project.migration("003_note.sql", "CREATE TABLE notes (id int);", "DROP TABLE notes;").migration(
        "004_bad.sql",
        "ALTER TABLE orders ADD COLUMN x int;\nSELECT * FROM nowhere;",
        "ALTER TABLE orders DROP COLUMN x;",
    );

    let ran = project.json(&["apply"]).expect_code(3);

    let result = ran.result();
    assert_eq!(result["outcome"], "rolled_back", "{ran:#?}");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert!(ran.stderr.contains("database: as before the run"), "{ran:#?}");
    assert!(result["error"].as_str().unwrap().contains("004_bad.sql"), "{ran:#?}");
}

#[test]
fn a_run_that_destroyed_data_is_answered_by_a_restore() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    shop(&project);
    project.run(&["apply"]).expect_code(0);
    let before = db.schema();
    project
        .migration("003_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "ALTER TABLE orders ADD COLUMN note text;")
        .migration("004_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");

    let ran = project.json(&["apply"]).expect_code(3);

    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
    assert_eq!(
        db.sql("select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations"),
        "001 applied, 002 applied, 003 restored_away, 004 failed"
    );
}

#[test]
fn the_server_has_the_last_word_about_syntax() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    // `GROUP BY DISTINCT` is PostgreSQL 14's; what matters is only that both parsers agree with the server.
    project.migration("001_fine.sql", "CREATE TABLE a AS SELECT 1 AS b GROUP BY DISTINCT ROLLUP (b);", "DROP TABLE a;");
    project.run(&["apply"]).expect_code(0);
    project.migration("002_wrong.sql", "CREATE TABEL c (id int);", "DROP TABLE c;");
    let ran = project.json(&["apply"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "invalid");
    assert!(ran.stderr.contains("002_wrong.sql:2:1: syntax error at or near \"TABEL\""), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from ripcord.backup_history"), "1");
}
