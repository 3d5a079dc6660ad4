//! `apply`, killed on its way up and on the ladder down.

use super::{Expected, killed_at, recovers, shop, state};
use crate::support::{Cluster, Db, Project};

/// Two migrations that go well, one of them outside a transaction.
fn good(project: &Project) {
    project.migration("003_notes.sql", "CREATE TABLE notes (id int);", "DROP TABLE notes;").migration(
        "004_sizes.sql",
        "ALTER TABLE orders ADD COLUMN size int;",
        "ALTER TABLE orders DROP COLUMN size;",
    );
}

fn up_killed_at(point: &str, fence: bool, code: i32, outcome: &str, changed: bool) {
    let what = format!("{point}, fence {fence}");
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = state(&db);
    good(&project);
    let apply: &[&str] = if fence { &["apply", "--writes", "fence"] } else { &["apply"] };
    killed_at(&project, point, apply);
    let after = before_or_after(&db, &before, changed);

    let ran = recovers(&db, &project, &what, &Expected { code, outcome, state: &after });
    let said = ran.result()["database"].as_str().unwrap().to_owned();
    match outcome {
        "done" if changed => assert!(said.starts_with("changed as planned"), "{what}: {ran:#?}"),
        "done" => assert_eq!(said, "unchanged", "{what}"),
        _ => assert!(said.starts_with("as before the run"), "{what}: {ran:#?}"),
    }
    // A writer is let in, and the migrations can be applied.
    db.sql("insert into orders values (1000, 'later')");
    let expected = if changed { "nothing_to_do" } else { "done" };
    assert_eq!(project.json(&["apply"]).expect_code(0).result()["outcome"], expected, "{what}");
    assert_eq!(db.sql("select count(size) + count(*) from orders"), "51", "{what}");
}

/// What the database must hold afterwards: what it holds now, when everything was applied, or what it held.
fn before_or_after(db: &Db<'_>, before: &str, changed: bool) -> String {
    if changed { state(db) } else { before.to_owned() }
}

#[test]
fn killed_before_anything_was_committed() {
    for point in ["backup_snapshot", "backup_stored", "backup_read_back", "backup_committed", "apply_backed_up"] {
        up_killed_at(point, false, 0, "done", false);
    }
}

#[test]
fn killed_between_migrations() {
    up_killed_at("up_before_commit", false, 0, "done", false);
    up_killed_at("up_committed", false, 3, "rolled_back", false);
    up_killed_at("between_migrations", false, 3, "rolled_back", false);
}

#[test]
fn killed_after_the_last_migration() {
    up_killed_at("apply_migrated", false, 0, "done", true);
    up_killed_at("health", false, 0, "done", true);
    up_killed_at("closing", false, 0, "done", true);
}

#[test]
fn killed_with_a_fence_up() {
    up_killed_at("backup_stored", true, 0, "done", false);
    up_killed_at("up_before_commit", true, 0, "done", false);
    up_killed_at("between_migrations", true, 3, "rolled_back", false);
    up_killed_at("health", true, 0, "done", true);
}

#[test]
fn killed_between_statements_outside_a_transaction() {
    for atomic_down in [true, false] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        let before = state(&db);
        let down = if atomic_down { "DROP INDEX IF EXISTS orders_note;" } else { "SELECT 1;" };
        project.migration(
            "003_index.sql",
            "CREATE INDEX CONCURRENTLY orders_note ON orders (note);\nCREATE INDEX CONCURRENTLY orders_both ON orders (id, note);",
            &format!("DROP INDEX IF EXISTS orders_both;\n{down}"),
        );
        killed_at(&project, "statement_done", &["apply"]);
        let ran = project.json(&["recover"]).expect_code(3);
        assert!(["rolled_back", "restored"].contains(&ran.result()["outcome"].as_str().unwrap()), "{ran:#?}");
        assert_eq!(state(&db), before, "{ran:#?}");
        super::nothing_left(&db, &project, "statement_done");
    }
}

/// The ladder's own steps: the run fails, and is killed while it brings the database back.
fn ladder_killed_at(point: &str, fence: bool, destroys: bool) {
    let what = format!("{point}, fence {fence}");
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = state(&db);
    if destroys {
        project.migration(
            "003_drop.sql",
            "ALTER TABLE orders DROP COLUMN note;",
            "ALTER TABLE orders ADD COLUMN note text;",
        );
    } else {
        project.migration("003_notes.sql", "CREATE TABLE notes (id int);", "DROP TABLE notes;").migration(
            "004_more.sql",
            "CREATE TABLE more (id int);",
            "DROP TABLE more;",
        );
    }
    project.migration("005_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let apply: &[&str] = if fence { &["apply", "--writes", "fence"] } else { &["apply"] };
    killed_at(&project, point, apply);

    let outcome = if destroys { "restored" } else { "rolled_back" };
    let ran = recovers(&db, &project, &what, &Expected { code: 3, outcome, state: &before });
    let said = ran.result()["database"].as_str().unwrap().to_owned();
    let word = if destroys { "restored from backup" } else { "as before the run" };
    assert!(said.contains(word), "{what}: {ran:#?}");
    db.sql("insert into orders values (1000, 'later')");
    project.write("migrations/005_bad.sql", "-- UP\nCREATE TABLE good (id int);\n\n-- DOWN\nDROP TABLE good;\n");
    project.json(&["apply"]).expect_code(0);
}

#[test]
fn killed_while_going_down() {
    for point in ["down_began", "down_before_commit", "between_downs"] {
        ladder_killed_at(point, false, false);
    }
    ladder_killed_at("between_downs", true, false);
}

#[test]
fn killed_while_restoring_beside() {
    for point in ["load_began", "load_done", "scratch_ready"] {
        ladder_killed_at(point, false, true);
    }
}

#[test]
fn killed_in_the_swap() {
    for point in ["swap_began", "swap_closed", "swap_ready", "swap_renamed"] {
        ladder_killed_at(point, false, true);
    }
}

#[test]
fn killed_in_the_swap_with_a_fence_up() {
    for point in ["swap_closed", "swap_renamed", "closing"] {
        ladder_killed_at(point, true, true);
    }
}

/// A slot stands in the way of a swap, so the restore is done in place.
fn without_swap(db: &Db<'_>) -> String {
    let slot = format!("slot_{}", db.name);
    db.sql(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    slot
}

#[test]
fn killed_while_restoring_in_place() {
    for point in ["in_place_began", "in_place_loaded"] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        let before = state(&db);
        project
            .migration("003_drop.sql", "ALTER TABLE orders DROP COLUMN note;\nCREATE TABLE more (id int);", "SELECT 1;")
            .migration("005_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
        let slot = without_swap(&db);
        killed_at(&project, point, &["apply"]);
        let ran = recovers(&db, &project, point, &Expected { code: 3, outcome: "restored", state: &before });
        assert!(ran.result()["database"].as_str().unwrap().contains("in place"), "{point}: {ran:#?}");
        db.sql(&format!("select pg_drop_replication_slot('{slot}')"));
    }
}

#[test]
fn what_others_wrote_before_the_second_try_in_place_is_not_lost() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = state(&db);
    project.migration("003_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "SELECT 1;").migration(
        "005_bad.sql",
        "SELECT * FROM nowhere;",
        "SELECT 1;",
    );
    let slot = without_swap(&db);
    killed_at(&project, "in_place_began", &["apply"]);
    // The fence that the restore had put up is still there, and can be passed.
    db.sql("begin read write; insert into orders values (1000); commit");

    let ran = project.json(&["recover"]).expect_code(4);
    assert_eq!(ran.result()["outcome"], "not_recovered", "{ran:#?}");
    assert!(ran.stderr.contains("recover --writes accept-loss"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "51");

    project.json(&["recover", "--writes", "accept-loss"]).expect_code(3);
    assert_eq!(state(&db), before);
    super::nothing_left(&db, &project, "in place");
    db.sql(&format!("select pg_drop_replication_slot('{slot}')"));
}

#[test]
fn an_atomic_run_killed_after_its_commit_is_complete() {
    for (point, code, changed) in [("up_before_commit", 0, false), ("up_committed", 0, true)] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        let before = state(&db);
        good(&project);
        killed_at(&project, point, &["apply", "--atomic"]);
        let expected = if changed { state(&db) } else { before.clone() };
        recovers(&db, &project, point, &Expected { code, outcome: "done", state: &expected });
        assert_eq!(db.sql("select count(*) from pg_tables where tablename = 'notes'"), if changed { "1" } else { "0" });
    }
}

#[test]
fn a_complete_run_with_an_application_that_is_not_well_is_undone() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = state(&db);
    good(&project);
    project.configure(
        "[[health]]\nsql = \"select not exists (select from pg_catalog.pg_tables where tablename = 'notes')\"\n\
         successes = 1\ninterval = \"50ms\"\ndeadline = \"1s\"\n",
    );
    killed_at(&project, "apply_migrated", &["apply"]);
    let ran = recovers(&db, &project, "red", &Expected { code: 3, outcome: "rolled_back", state: &before });
    assert!(ran.result()["error"].as_str().unwrap().contains("not well"), "{ran:#?}");
}

#[test]
fn killed_in_the_middle_of_a_step_of_the_journal() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    good(&project);
    killed_at(&project, "between_migrations", &["apply"]);
    let last = super::runs(&project).pop().unwrap();
    let lineage = std::fs::read_dir(project.store()).unwrap().next().unwrap().unwrap().path();
    std::fs::write(lineage.join("runs").join(last).join(".partial-0123456789abcdef"), "{\"number\":").unwrap();
    project.run(&["recover"]);
    super::nothing_left(&db, &project, "a step");
}
