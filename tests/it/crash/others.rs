//! `restore`, `rollback` and `prune`, killed at their steps.

use super::{Expected, killed_at, nothing_left, partials, recovers, shop, state};
use crate::support::{Cluster, Project};

/// One more migration and backup, so that `restore latest` goes back a step.
fn step_forward(project: &Project) {
    project.migration("003_notes.sql", "CREATE TABLE notes AS SELECT 7 AS id;", "DROP TABLE notes;");
    project.run(&["apply"]).expect_code(0);
}

fn restore_killed_at(point: &str, arguments: &[&str], restored: bool) {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let old = state(&db);
    step_forward(&project);
    let new = state(&db);
    assert_ne!(old, new);
    killed_at(&project, point, arguments);
    let expected = Expected { code: 0, outcome: "done", state: if restored { &old } else { &new } };
    let ran = recovers(&db, &project, point, &expected);
    let said = ran.result()["database"].as_str().unwrap().to_owned();
    assert!(said.starts_with(if restored { "restored" } else { "unchanged" }), "{point}: {ran:#?}");
    let expected = if restored { "done" } else { "nothing_to_do" };
    assert_eq!(project.json(&["apply"]).expect_code(0).result()["outcome"], expected, "{point}");
    assert_eq!(state(&db), new, "{point}");
}

#[test]
fn a_restore_killed_before_the_swap() {
    for point in ["load_began", "load_done", "scratch_ready"] {
        restore_killed_at(point, &["restore", "latest", "--yes"], false);
    }
}

#[test]
fn a_restore_killed_in_the_swap() {
    for (point, restored) in
        [("swap_began", false), ("swap_closed", false), ("swap_ready", false), ("swap_renamed", true)]
    {
        restore_killed_at(point, &["restore", "latest", "--yes"], restored);
    }
}

#[test]
fn a_restore_killed_in_place() {
    for point in ["in_place_began", "in_place_loaded", "closing"] {
        restore_killed_at(
            point,
            &["restore", "latest", "--yes", "--mode", "in-place", "--writes", "accept-loss"],
            true,
        );
    }
}

#[test]
fn a_rollback_killed_at_each_step_is_finished_or_undone() {
    for (point, outcome, code) in [
        ("rollback_backed_up", "done", 0),
        ("down_began", "done", 0),
        ("down_before_commit", "done", 0),
        ("between_downs", "restored", 3),
    ] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        step_forward(&project);
        let before = state(&db);
        killed_at(&project, point, &["rollback", "--steps", "2"]);
        recovers(&db, &project, point, &Expected { code, outcome, state: &before });
        let ran = project.json(&["rollback", "--steps", "2"]).expect_code(0);
        assert_eq!(ran.result()["outcome"], "done", "{point}: {ran:#?}");
        assert_eq!(db.sql("select count(*) from orders"), "0", "{point}");
    }
}

/// The same in a living run: what a DOWN has committed is not called unchanged.
#[test]
fn a_rollback_that_fails_half_way_is_undone_from_its_safety_backup() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("003_notes.sql", "CREATE TABLE notes AS SELECT 7 AS id;", "SELECT * FROM nowhere;").migration(
        "004_more.sql",
        "CREATE TABLE more AS SELECT 8 AS id;",
        "DROP TABLE more;",
    );
    project.run(&["apply"]).expect_code(0);
    let before = state(&db);
    let ran = project.json(&["rollback", "--steps", "2"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(state(&db), before);
    nothing_left(&db, &project, "rollback");
    assert_eq!(project.json(&["apply"]).expect_code(0).result()["outcome"], "nothing_to_do");
}

#[test]
fn a_prune_that_was_killed_goes_on() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    for _ in 0..2 {
        project.run(&["backup", "create"]).expect_code(0);
    }
    killed_at(&project, "prune_delete", &["prune", "--keep-last", "1", "--keep-within", "0s"]);
    let mut found = Vec::new();
    project.run(&["prune", "--keep-last", "1", "--keep-within", "0s"]).expect_code(0);
    partials(&project.store(), &mut found);
    assert_eq!(found, Vec::<String>::new());
    project.run(&["backup", "verify", "latest"]).expect_code(0);
}

#[test]
fn a_backup_by_hand_that_was_killed_leaves_nothing_after_recover() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    for point in ["backup_snapshot", "backup_stored", "backup_committed"] {
        killed_at(&project, point, &["backup", "create"]);
        assert_eq!(project.json(&["recover"]).expect_code(0).result()["outcome"], "nothing_to_do");
        nothing_left(&db, &project, point);
    }
    // The one that had its manifest counts.
    assert_eq!(
        db.sql("select string_agg(status, ',' order by started_at) from ripcord.backup_history"),
        "verified,failed,failed,verified"
    );
}

#[test]
fn the_scratch_database_of_a_killed_drill_is_told_and_can_be_dropped() {
    let cluster = crate::support::Cluster::start(&[]);
    let db = cluster.database();
    let project = shop(&db);
    project.backup(&[]);
    let output = project.command(&["drill"]).env("RIPCORD_FAULTS", "load_done=kill").output().unwrap();
    assert_eq!(output.status.code(), None);
    let scratches = "select string_agg(datname, ' ') from pg_database where datname like 'rc\\_%'";
    let left = cluster.sql("postgres", scratches);
    let doctor = project.run(&["doctor"]);
    assert!(doctor.stdout.contains(&format!("ripcord aside drop {left}")), "{doctor:#?}");
    // No swap has kept it, and another's drill on the same server is nobody's business here.
    assert!(!project.run(&["aside", "list"]).expect_code(0).stdout.contains(&left));
    // Somebody may be at work there.
    let mut inside = cluster.psql(&left).args(["-c", "select pg_sleep(600)"]).spawn().unwrap();
    while cluster.sql("postgres", &format!("select count(*) from pg_stat_activity where datname = '{left}'")) == "0" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let refused = project.run(&["aside", "drop", &left]).expect_code(7);
    assert!(refused.stderr.contains("is in use"), "{refused:#?}");
    cluster
        .sql("postgres", &format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{left}'"));
    let _ = inside.wait();
    project.run(&["aside", "drop", &left]).expect_code(0);
    assert_eq!(cluster.sql("postgres", scratches), "");
}
