//! Trying migrations on a copy before the database sees them.

use crate::support::cli::ran;
use crate::support::{Cluster, Db, Project};

fn shop(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project
}

/// Scratch databases that name none of the other tests' runs.
fn scratches(db: &Db<'_>) -> String {
    db.cluster.sql("postgres", "select count(*) from pg_database where datname like 'rc\\_%'")
}

fn history(db: &Db<'_>) -> String {
    db.sql("select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations")
}

#[test]
fn each_way_is_measured_and_the_target_is_not_touched() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = shop(&db);
    let before = db.schema();
    project
        .migration(
            "003_wide.sql",
            "ALTER TABLE orders ADD COLUMN price int;\nCREATE INDEX orders_note ON orders (note);",
            "DROP INDEX orders_note;\nALTER TABLE orders DROP COLUMN price;",
        )
        .migration(
            "004_bigint.sql",
            "DO $$ BEGIN EXECUTE 'ALTER TABLE orders ALTER id TYPE bigint'; END $$;",
            "ALTER TABLE orders ALTER id TYPE int;",
        )
        .migration("005_index.sql", "CREATE INDEX CONCURRENTLY i ON orders (id);", "DROP INDEX CONCURRENTLY i;");

    let ran = project.json(&["rehearse"]).expect_code(0);

    let found = &ran.items()[0]["migrations"];
    assert_eq!(found.as_array().unwrap().len(), 3, "{ran:#?}");
    for migration in found.as_array().unwrap() {
        assert_eq!(migration["down_restores"], true, "{ran:#?}");
        assert!(migration["up_again"].is_object() && migration["down"].is_object(), "{ran:#?}");
        assert!(migration["up"]["wal_bytes"].as_u64().unwrap() > 0, "{ran:#?}");
    }
    let lock = &found[0]["up"]["locks"][0];
    assert_eq!((&lock["table"], &lock["mode"]), (&"public.orders".into(), &"AccessExclusiveLock".into()), "{ran:#?}");
    assert_eq!(found[0]["up"]["rewritten"], serde_json::json!([]), "{ran:#?}");
    assert_eq!(found[1]["up"]["rewritten"], serde_json::json!(["public.orders"]), "{ran:#?}");
    assert!(ran.stdout.contains("AccessExclusiveLock on public.orders for "), "{ran:#?}");
    assert_eq!((db.schema(), history(&db)), (before, "001 applied, 002 applied".to_owned()));
    assert_eq!(scratches(&db), "0");
    project.run(&["apply", "--rehearse"]).expect_code(0);
    assert_eq!(history(&db), "001 applied, 002 applied, 003 applied, 004 applied, 005 applied");
    assert_eq!(scratches(&db), "0");
    assert_eq!(project.json(&["rehearse"]).expect_code(0).result()["outcome"], "nothing_to_do");
}

#[test]
fn what_fails_on_the_copy_never_reaches_the_target() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = shop(&db);
    let before = db.schema();
    for (what, up, down, code, words) in [
        ("UP", "SELECT 1 / (id - 1) FROM orders;", "SELECT 1;", 1, "the rehearsal failed: UP of `003_case`"),
        ("DOWN", "CREATE TABLE t (a int);", "DROP TABLE nothing;", 1, "the rehearsal failed: DOWN of `003_case`"),
        (
            "lie",
            "ALTER TABLE orders ALTER note SET DEFAULT 'x';",
            "SELECT 1;",
            6,
            "DOWN does not bring everything back: changed: TABLE public.orders",
        ),
        (
            "second UP",
            "CREATE TABLE IF NOT EXISTS t (a int); SELECT 1 / (2 - nextval('public.once'));",
            "DROP TABLE t;",
            1,
            "the rehearsal failed: the second UP of `003_case`",
        ),
    ] {
        db.sql("drop sequence if exists once; create sequence once");
        let before = if what == "UP" { before.clone() } else { db.schema() };
        project.migration("003_case.sql", up, down);
        let ran = project.json(&["rehearse"]).expect_code(code);
        assert!(ran.result()["error"].as_str().unwrap().contains(words), "{what}: {ran:#?}");
        let ran = project.json(&["apply", "--rehearse"]).expect_code(1);
        assert_eq!(ran.result()["outcome"], "unchanged", "{what}: {ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains(words), "{what}: {ran:#?}");
        assert!(what == "UP" || db.schema() == before, "{what}");
        assert_eq!(history(&db), "001 applied, 002 applied", "{what}");
        assert_eq!(scratches(&db), "0", "{what}");
    }
}

#[test]
fn what_no_down_can_bring_back_is_told_and_is_no_failure() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project
        .migration("003_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "ALTER TABLE orders ADD COLUMN note text;")
        .write("migrations/004_alone.sql", "-- UP\nCREATE TABLE t (a int);\n");
    let ran = project.json(&["rehearse"]).expect_code(0);
    let found = &ran.items()[0]["migrations"];
    assert_eq!((&found[1]["down_restores"], &found[1]["why_not"]), (&serde_json::Value::Null, &"there is none".into()));
    assert_eq!(found[0]["why_not"], "a later one cannot be undone", "{ran:#?}");
    std::fs::remove_file(project.path().join("migrations/004_alone.sql")).unwrap();
    let ran = project.json(&["rehearse"]).expect_code(0);
    assert_eq!(ran.items()[0]["migrations"][0]["down_restores"], false, "{ran:#?}");
    assert!(ran.stdout.contains("DOWN does NOT bring everything back: rows differ: public.orders"), "{ran:#?}");
}

#[test]
fn a_folder_is_built_from_nothing_without_a_key_and_without_a_store() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = Project::new(&db);
    project.shop();
    let rehearse = |project: &Project| {
        let mut command = project.command(&["--json", "rehearse", "--from", "empty"]);
        ran(command.env_remove("BACKUP_ENCRYPTION_KEY").output().unwrap())
    };
    let ran = rehearse(&project).expect_code(0);
    assert_eq!(ran.items()[0]["migrations"].as_array().unwrap().len(), 2, "{ran:#?}");
    assert_eq!(ran.items()[0]["backup"], serde_json::Value::Null);
    project.migration("003_bad.sql", "INSERT INTO nowhere VALUES (1);", "SELECT 1;");
    let ran = rehearse(&project).expect_code(1);
    assert!(ran.result()["error"].as_str().unwrap().contains("UP of `003_bad`"), "{ran:#?}");
    assert_eq!(scratches(&db), "0");
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
    assert!(!project.store().exists());
}
