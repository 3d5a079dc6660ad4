//! `apply`, killed on its way up and on the ladder down.

use super::{Expected, killed_at, recovers, shop, state};
use crate::support::{Cluster, Project};

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
fn before_or_after(db: &crate::support::Db<'_>, before: &str, changed: bool) -> String {
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
