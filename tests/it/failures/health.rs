//! The application's health before and after, and other looks at the database after a run.

use super::*;

#[test]
fn red_after_the_run_is_answered_by_down_when_that_is_enough() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure(&well_while("select to_regclass('public.more') is null"));
    let before = db.schema();
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("not well after the run"), "{ran:#?}");
    tells(&ran, "as before the run: rolled back by DOWN", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 rolled_back".to_owned(), "apply done 0, apply rolled_back 3".to_owned())
    );
}

#[test]
fn a_down_that_changes_rows_is_proved_by_their_digests() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure(&well_while("select not exists (select from orders where note like 'ORDER%')"));
    // The same rows again, though the text of the scripts does not tell that.
    project.migration(
        "002_shout.sql",
        "UPDATE orders SET note = upper(note);",
        "UPDATE orders SET note = lower(note);",
    );
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
    match ran.result()["outcome"].as_str().unwrap() {
        "rolled_back" => assert_eq!(ran.result()["proof"]["kind"], "digests", "{ran:#?}"),
        outcome => assert_eq!(outcome, "restored", "{ran:#?}"),
    }
}

#[test]
fn a_down_that_lies_is_not_believed() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure(&well_while(
        "select to_regclass('public.more') is null and not exists (select from pg_class where relname = 'left_over')",
    ));
    let before = db.schema();
    project.migration(
        "002_more.sql",
        "CREATE TABLE more (id int);\nCREATE TABLE left_over (id int);",
        "DROP TABLE more;",
    );
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert!(ran.stdout.contains("DOWN is not enough"), "{ran:#?}");
    tells(&ran, "restored from backup", "ripcord apply");
    assert_eq!(db.schema(), before);
    // The old database, in which the DOWN ran, had it rolled back; the restored one never had it.
    assert_eq!(history(&db), "001 applied, 002 rolled_back");
}

#[test]
fn red_after_the_run_is_answered_by_a_restore_when_something_was_destroyed() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure(&well_while(
        "select exists (select from pg_attribute where attrelid = 'orders'::regclass and attname = 'note')",
    ));
    let before = db.schema();
    project.migration(
        "002_drop.sql",
        "ALTER TABLE orders DROP COLUMN note;",
        "ALTER TABLE orders ADD COLUMN note text;",
    );
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(ran.result()["writes_since_backup"], 0, "{ran:#?}");
    tells(&ran, "restored from backup", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 restored_away".to_owned(), "apply done 0, apply restored 3".to_owned())
    );
    assert_eq!(audit(&db), "apply began, restored, apply finished");
}

#[test]
fn red_before_the_run_touches_nothing() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let stored = stored_backups(&project);
    project.configure(&well_while("select false"));
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["apply"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply --ignore-red-health");
    assert_eq!(stored_backups(&project), stored);
    assert_eq!(
        (history(&db), runs(&db), backups(&db)),
        ("001 applied".to_owned(), "apply done 0".to_owned(), "verified".to_owned())
    );
    assert_eq!(db.sql("select to_regclass('more') is null"), "t");
    // Nothing is held or left open.
    project.write("ripcord.toml", "[environments.test]\nprotected = false\napproval = false\n");
    project.json(&["apply"]).expect_code(0);
}

#[test]
fn the_migration_may_be_the_cure() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure(&well_while("select to_regclass('public.more') is not null"));
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.json(&["apply"]).expect_code(1);
    let ran = project.json(&["apply", "--ignore-red-health"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");
    assert_eq!(history(&db), "001 applied, 002 applied");
}

#[test]
fn a_check_that_returns_a_row_is_answered() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure("[expect]\nchecks = \"checks\"\n");
    project.write("checks/positive.sql", "select id, note from orders where id <= 0;");
    let before = db.schema();
    project.migration("002_row.sql", "INSERT INTO orders VALUES (-5, 'wrong');", "DELETE FROM orders WHERE id = -5;");
    let ran = project.json(&["apply"]).expect_code(3);
    let error = ran.result()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("positive.sql") && error.contains("-5") && error.contains("wrong"), "{ran:#?}");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*), min(id) from orders"), "100|1");
    tells(&ran, if ran.result()["outcome"] == "restored" { "restored" } else { "as before the run" }, "ripcord apply");
}

#[test]
fn a_check_that_is_no_sql_is_answered_too() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure("[expect]\nchecks = \"checks\"\n");
    project.write("checks/broken.sql", "select * from nowhere;");
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("broken.sql"), "{ran:#?}");
    assert_eq!(history(&db), "001 applied, 002 rolled_back");
}

#[test]
fn an_expected_object_that_is_missing_is_answered() {
    for (expect, missing) in [
        ("tables = [\"orders\", \"public.more\", \"public.never\"]", "public.never"),
        ("functions = [\"public.no_such()\"]", "public.no_such()"),
        ("policies = [\"public.orders.own_rows\"]", "public.orders.own_rows"),
    ] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        project.configure(&format!("[expect]\n{expect}\n"));
        let before = db.schema();
        project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
        let ran = project.json(&["apply"]).expect_code(3);
        assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains(missing), "{ran:#?}");
        tells(&ran, "as before the run", "ripcord apply");
        assert_eq!(db.schema(), before);
    }
}

#[test]
fn a_migration_that_drops_an_expected_policy_is_brought_back() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    db.sql("create policy own_rows on orders using (true); alter table orders enable row level security");
    project.configure("[expect]\npolicies = [\"orders.own_rows\"]\n");
    let before = db.schema();
    project.migration("002_open.sql", "DROP POLICY own_rows ON orders;", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(ran.result()["error"], "not there after the run: orders.own_rows", "{ran:#?}");
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    tells(&ran, "restored from backup", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select polname from pg_policy"), "own_rows");
    assert_eq!(db.sql("select count(*) from orders"), "100");
}

#[test]
fn a_constraint_that_a_run_leaves_not_validated_is_answered() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    // One that was so before is none of the run's.
    db.sql("alter table orders add constraint old check (id < 1000) not valid");
    let before = db.schema();
    let hidden =
        "DO $$ BEGIN EXECUTE 'ALTER TABLE orders ADD CONSTRAINT hidden CHECK (id > 0) NOT ' || 'VALID'; END $$;";
    project.migration("002_hidden.sql", hidden, "ALTER TABLE orders DROP CONSTRAINT hidden;");
    let ran = project.json(&["apply"]).expect_code(3);
    let error = ran.result()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("the run left not validated: constraint hidden on public.orders"), "{ran:#?}");
    assert_eq!(db.schema(), before);

    // Said aloud, it is the first half of adding one without a long lock, and the second may come later.
    std::fs::remove_file(project.path().join("migrations/002_hidden.sql")).unwrap();
    let add = "ALTER TABLE orders ADD CONSTRAINT positive CHECK (id > 0) NOT VALID;";
    project.migration("003_positive.sql", add, "ALTER TABLE orders DROP CONSTRAINT positive;");
    let ran = project.run(&["apply"]).expect_code(0);
    assert!(ran.stderr.contains("left not validated: constraint positive on public.orders"), "{ran:#?}");
    project.migration("004_validate.sql", "ALTER TABLE orders VALIDATE CONSTRAINT positive;", "SELECT 1;");
    let ran = project.run(&["apply"]).expect_code(0);
    assert!(!ran.stderr.contains("not validated"), "{ran:#?}");
    project.configure("[expect]\nnot_valid = [\"orders.later\"]\n");
    project.migration("005_later.sql", &hidden.replace("hidden", "later"), "SELECT 1;");
    project.json(&["apply"]).expect_code(0);
    assert_eq!(
        db.sql("select string_agg(conname, ' ' order by conname) from pg_constraint where not convalidated"),
        "later old"
    );
}

#[test]
fn what_is_done_on_failure_can_be_chosen() {
    // An additive migration: DOWN would be enough.
    for (choice, code, outcome, state) in [
        ("stop", 4, "stopped_partway", "001 applied, 002 applied"),
        ("rollback", 3, "rolled_back", "001 applied, 002 rolled_back"),
        ("restore", 3, "restored", "001 applied, 002 restored_away"),
        ("auto", 3, "rolled_back", "001 applied, 002 rolled_back"),
    ] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        let before = db.schema();
        project.configure(&well_while("select to_regclass('public.more') is null"));
        project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
        let ran = project.json(&["apply", "--on-failure", choice]).expect_code(code);
        assert_eq!(ran.result()["outcome"], outcome, "{choice}: {ran:#?}");
        assert_eq!(history(&db), state, "{choice}");
        assert_eq!(db.schema() == before, choice != "stop", "{choice}");
        assert_eq!(runs(&db), format!("apply done 0, apply {outcome} {code}"));
        let (database, hint) = match choice {
            "stop" => ("PARTWAY: `002_more` of this run applied", "ripcord rollback"),
            "restore" => ("restored from backup", "ripcord apply"),
            _ => ("as before the run", "ripcord apply"),
        };
        tells(&ran, database, hint);
    }
}

#[test]
fn with_rollback_alone_what_was_destroyed_is_told_and_not_restored() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure("[recovery]\non_failure = \"rollback\"\n");
    project.migration(
        "002_drop.sql",
        "ALTER TABLE orders DROP COLUMN note;",
        "ALTER TABLE orders ADD COLUMN note text;",
    );
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(4);
    assert_eq!(ran.result()["outcome"], "not_recovered", "{ran:#?}");
    tells(&ran, "CHANGED and not brought back: `002_drop` applied", "ripcord recover --on-failure restore");
    assert_eq!(history(&db), "001 applied, 002 applied, 003 failed");
    assert_eq!(runs(&db), "apply done 0, apply not_recovered 4");
    let ran = project.json(&["recover", "--on-failure", "restore"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
    assert_eq!(history(&db), "001 applied, 002 restored_away, 003 failed");
}

#[test]
fn a_transaction_in_another_database_does_not_stand_in_the_way_of_a_restore() {
    let elsewhere = Cluster::shared().database();
    let _open = Holding::open(&elsewhere, "create table t (id int)");
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("002_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "SELECT 1;");
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(ran.result()["writes_since_backup"], 0, "{ran:#?}");
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
}

#[test]
fn a_transaction_in_the_same_database_makes_the_writes_unknowable() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    db.sql("create table other (id int)");
    let open = Holding::open(&db, "insert into other values (1)");
    // Its rows are younger than a transaction that the backup's snapshot lists: they may be a part of that one.
    let project = with_shop(project);
    project.migration("002_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "SELECT 1;");
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(4);
    assert_eq!(ran.result()["outcome"], "not_recovered", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("in public.orders"), "{ran:#?}");
    tells(&ran, "CHANGED and not brought back: `002_drop` applied", "ripcord recover --writes accept-loss");
    drop(open);
    let ran = project.json(&["recover", "--writes", "accept-loss"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
}
