//! Hooks that fail, before and after something was changed.

use super::*;

fn hooked(db: &Db<'_>, hook: &str) -> Project {
    let project = shop(db);
    project.configure(&format!("[hooks]\n{hook} = [\"echo began >> trace\", \"echo went wrong >&2; exit 3\"]\n"));
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project
}

#[test]
fn a_hook_that_fails_before_the_migrations_leaves_everything() {
    for (hook, backed_up) in
        [("before_backup", false), ("after_backup", true), ("before_run", true), ("before_migration", true)]
    {
        let db = Cluster::shared().database();
        let project = hooked(&db, hook);
        let before = db.schema();
        let ran = project.json(&["apply"]).expect_code(1);
        assert_eq!(ran.result()["outcome"], "unchanged", "{hook}: {ran:#?}");
        let error = ran.result()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(&format!("hook `{hook}` failed")) && error.contains("went wrong"), "{hook}: {ran:#?}");
        tells(&ran, "unchanged", "ripcord apply");
        assert_eq!(db.schema(), before);
        assert_eq!(stored_backups(&project).len(), 1 + usize::from(backed_up), "{hook}");
        assert_eq!((history(&db), runs(&db)), ("001 applied".to_owned(), "apply done 0, apply unchanged 1".to_owned()));
        assert_eq!(audit(&db), "apply began, apply finished");
        assert_eq!(std::fs::read_to_string(project.path().join("trace")).unwrap(), "began\n");
    }
}

#[test]
fn a_hook_that_fails_after_the_migrations_takes_them_back() {
    for hook in ["after_migration", "after_run"] {
        let db = Cluster::shared().database();
        let project = hooked(&db, hook);
        let before = db.schema();
        let ran = project.json(&["apply"]).expect_code(3);
        assert_eq!(ran.result()["outcome"], "rolled_back", "{hook}: {ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains(hook), "{hook}: {ran:#?}");
        tells(&ran, "as before the run", "ripcord apply");
        assert_eq!(db.schema(), before);
        assert_eq!(
            (history(&db), runs(&db)),
            ("001 applied, 002 rolled_back".to_owned(), "apply done 0, apply rolled_back 3".to_owned())
        );
    }
}

#[test]
fn a_hook_of_the_recovery_that_fails_does_not_hide_the_first_failure() {
    // Before the DOWN: the next rung is tried. After it: the database is as before, and that is proved.
    for (hook, outcome) in [("before_rollback", "restored"), ("after_rollback", "rolled_back")] {
        let db = Cluster::shared().database();
        let project = hooked(&db, hook);
        project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
        let before = db.schema();
        let ran = project.json(&["apply"]).expect_code(3);
        assert_eq!(ran.result()["outcome"], outcome, "{hook}: {ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains("003_bad.sql"), "{hook}: {ran:#?}");
        assert!(ran.stdout.contains(&format!("hook `{hook}` failed")), "{hook}: {ran:#?}");
        assert_eq!(db.schema(), before);
    }
}

#[test]
fn a_hook_around_the_restore_that_fails_does_not_change_how_it_ends() {
    let db = Cluster::shared().database();
    let project = hooked(&db, "after_restore");
    project.migration("003_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "SELECT 1;").migration(
        "004_bad.sql",
        "SELECT * FROM nowhere;",
        "SELECT 1;",
    );
    let before = db.schema();
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("004_bad.sql"), "{ran:#?}");
    assert!(ran.stderr.contains("hook `after_restore` failed"), "{ran:#?}");
    tells(&ran, "restored from backup", "ripcord apply");
    assert_eq!(db.schema(), before);
}

#[test]
fn a_hook_that_hangs_is_ended() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure("[hooks]\ntimeout = \"300ms\"\nbefore_run = \"sleep 600\"\n");
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["apply"]).expect_code(1);
    assert!(ran.result()["error"].as_str().unwrap().contains("hook `before_run` failed"), "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(history(&db), "001 applied");
}
