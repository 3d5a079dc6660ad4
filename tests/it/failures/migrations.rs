//! Migrations that fail on the server, or that validation stops.

use super::*;

#[test]
fn a_syntax_error_in_the_third_of_five_stops_everything_beforehand() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    let backups_before = stored_backups(&project);
    for number in [2, 3, 5, 6] {
        project.migration(
            &format!("00{number}_t.sql"),
            &format!("CREATE TABLE t{number} (id int);"),
            &format!("DROP TABLE t{number};"),
        );
    }
    project.migration("004_bad.sql", "CREATE TABLE t4 (id int);\nSELEC 1;", "DROP TABLE t4;");

    let ran = project.json(&["apply"]).expect_code(1);

    assert_eq!(ran.result()["outcome"], "invalid", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("004_bad.sql:3:1"), "{ran:#?}");
    tells(&ran, "unchanged", "ripcord validate");
    assert_eq!(ran.events(), Vec::<String>::new());
    assert_eq!(db.schema(), before);
    assert_eq!(stored_backups(&project), backups_before);
    assert_eq!((history(&db), runs(&db)), ("001 applied".to_owned(), "apply done 0".to_owned()));
}

#[test]
fn what_only_the_server_can_see_in_the_third_of_five_takes_all_of_them_back() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    for number in [2, 3, 5, 6] {
        project.migration(
            &format!("00{number}_t.sql"),
            &format!("CREATE TABLE t{number} (id int);"),
            &format!("DROP TABLE t{number};"),
        );
    }
    project.migration("004_bad.sql", "CREATE TABLE t4 (id int);\nSELECT 1 / (id - 1) FROM orders;", "DROP TABLE t4;");

    let ran = project.json(&["apply"]).expect_code(3);

    let result = ran.result();
    assert_eq!(result["outcome"], "rolled_back", "{ran:#?}");
    assert_eq!((&result["proof"]["kind"], &result["proof"]["holds"]), (&"additive".into(), &true.into()), "{ran:#?}");
    let error = result["error"].as_str().unwrap();
    assert!(error.contains("`004_bad.sql` failed at line 3, column 1: division by zero"), "{ran:#?}");
    let statuses: Vec<_> = result["migrations"].as_array().unwrap().iter().map(|m| m["status"].clone()).collect();
    assert_eq!(statuses, ["rolled_back", "rolled_back", "failed", "pending", "pending"]);
    tells(&ran, "as before the run", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(history(&db), "001 applied, 002 rolled_back, 003 rolled_back, 004 failed");
    assert_eq!(runs(&db), "apply done 0, apply rolled_back 3");
    assert_eq!(audit(&db), "apply began, apply finished");
    assert_eq!(
        db.sql("select string_agg(version || ' ' || how, ', ' order by id) from ripcord.rollback_history"),
        "003 down, 002 down"
    );
    assert!(db.sql("select error from ripcord.schema_migrations where state = 'failed'").contains("division by zero"));

    // The next attempt goes on where this one began, and the failed attempt stays.
    project.migration("004_bad.sql", "CREATE TABLE t4 (id int);", "DROP TABLE t4;");
    let ran = project.json(&["apply"]).expect_code(0);
    assert_eq!(ran.result()["migrations"].as_array().unwrap().len(), 5, "{ran:#?}");
    assert!(history(&db).starts_with("001 applied, 002 rolled_back, 003 rolled_back, 004 failed, 002 applied"));
}

#[test]
fn the_only_migration_fails_and_nothing_was_committed() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    project.migration("002_bad.sql", "DROP TABLE orders;\nSELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(1);
    let result = ran.result();
    assert_eq!(result["outcome"], "unchanged", "{ran:#?}");
    assert_eq!((&result["proof"]["kind"], &result["proof"]["holds"]), (&"nothing-committed".into(), &true.into()));
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 failed".to_owned(), "apply done 0, apply unchanged 1".to_owned())
    );
    assert_eq!(db.sql("select count(*) from ripcord.lock"), "0");
}

#[test]
fn a_unique_index_over_duplicates_leaves_no_invalid_index() {
    for down in ["DROP INDEX CONCURRENTLY IF EXISTS orders_note;", "DROP INDEX orders_note;"] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        db.sql("update orders set note = 'the same' where id < 3");
        let before = db.schema();
        project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;").migration(
            "003_unique.sql",
            "CREATE UNIQUE INDEX CONCURRENTLY orders_note ON orders (note);",
            down,
        );

        let ran = project.json(&["apply"]).expect_code(3);

        assert_eq!(ran.result()["outcome"], "rolled_back", "{down}: {ran:#?}");
        let error = ran.result()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("could not create unique index \"orders_note\""), "{down}: {ran:#?}");
        assert!(error.contains("invalid index: public.orders_note on public.orders"), "{down}: {ran:#?}");
        tells(&ran, "as before the run", "ripcord apply");
        assert_eq!(db.schema(), before);
        assert_eq!(db.sql("select count(*) from pg_index where not indisvalid"), "0");
        assert_eq!(history(&db), "001 applied, 002 rolled_back, 003 failed");
        assert_eq!(runs(&db), "apply done 0, apply rolled_back 3");
    }
}

#[test]
fn an_invalid_index_alone_is_dropped_and_nothing_of_the_run_is_left() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    db.sql("update orders set note = 'the same' where id < 3");
    let before = db.schema();
    project
        .write("migrations/002_unique.sql", "-- UP\nCREATE UNIQUE INDEX CONCURRENTLY orders_note ON orders (note);\n");
    let ran = project.json(&["apply"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("public.orders_note"), "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*) from pg_index where not indisvalid"), "0");
    assert_eq!(history(&db), "001 applied, 002 failed");
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled_on_the_server() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    for (limits, words) in [
        ("[timeouts]\nstatement = \"300ms\"\n", "statement timeout"),
        ("[timeouts]\nmigration = \"300ms\"\n", "it ran longer than 0.3 s"),
    ] {
        let before = db.schema();
        std::fs::write(
            project.path().join("ripcord.toml"),
            format!("{limits}[environments.test]\nprotected = false\napproval = false\n"),
        )
        .unwrap();
        project.migration("002_slow.sql", "CREATE TABLE slow (id int);\nSELECT pg_sleep(600);", "DROP TABLE slow;");
        let ran = project.json(&["apply"]).expect_code(1);
        assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
        let error = ran.result()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words) && error.contains("line 3"), "{ran:#?}");
        tells(&ran, "unchanged", "ripcord apply");
        assert_eq!(db.schema(), before);
        wait_until("our sessions end", || our_backends(&db) == "0");
        assert_eq!(
            db.sql(
                "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()"
            ),
            "0"
        );
    }
    assert_eq!(history(&db), "001 applied, 002 failed, 002 failed");
}

fn short_locks(project: &Project) {
    project.configure("[timeouts]\nlock = \"200ms\"\n").configure("[retry]\nattempts = 40\ndelay = \"50ms\"\n");
}

fn retries(ran: &Ran) -> usize {
    ran.stdout.lines().filter(|line| line.contains("\"event\":\"retry\"")).count()
}

#[test]
fn a_lock_that_goes_away_is_waited_for() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    short_locks(&project);
    project.migration("002_add.sql", "ALTER TABLE orders ADD COLUMN x int;", "ALTER TABLE orders DROP COLUMN x;");
    let holding = Holding::open(&db, "select count(*) from orders");
    let mut running = Running::start(&project, &["apply"]);
    running.until_it_says("lock timeout");
    drop(holding);
    let ran = running.finish().expect_code(0);
    assert!(ran.stderr.contains("retry: attempt 2 in "), "{ran:#?}");
    assert_eq!(db.sql("select count(x) from orders"), "0");
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 applied".to_owned(), "apply done 0, apply done 0".to_owned())
    );
}

#[test]
fn a_lock_that_never_goes_away_fails_the_run() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure("[timeouts]\nlock = \"100ms\"\n").configure("[retry]\nattempts = 3\ndelay = \"20ms\"\n");
    project.migration("002_add.sql", "ALTER TABLE orders ADD COLUMN x int;", "ALTER TABLE orders DROP COLUMN x;");
    let before = db.schema();
    let _holding = Holding::open(&db, "select count(*) from orders");
    let ran = project.json(&["apply"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    assert_eq!(retries(&ran), 2, "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("lock timeout"), "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 002 failed".to_owned(), "apply done 0, apply unchanged 1".to_owned())
    );
}

#[test]
fn a_file_that_was_changed_after_it_was_applied_stops_the_run() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let path = project.path().join("migrations/001_orders.sql");
    let text = std::fs::read_to_string(&path).unwrap();
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");

    std::fs::write(&path, text.replace("note text", "note varchar")).unwrap();
    let ran = project.json(&["apply"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "invalid", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("001_orders"), "{ran:#?}");
    tells(&ran, "unchanged", "ripcord");
    assert_eq!((history(&db), runs(&db)), ("001 applied".to_owned(), "apply done 0".to_owned()));

    // Comments and blanks mean nothing.
    std::fs::write(&path, text.replace("CREATE TABLE", "/* the shop's */\n  CREATE   TABLE")).unwrap();
    project.json(&["apply"]).expect_code(0);
    assert_eq!(history(&db), "001 applied, 002 applied");
}

#[test]
fn a_commit_inside_is_found_beforehand() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    for word in [
        "COMMIT",
        "END",
        "ROLLBACK",
        "BEGIN",
        "ABORT",
        "commit and chain",
        "START TRANSACTION",
        "PREPARE TRANSACTION 'x'",
        "/* not so fast */ Commit Work",
    ] {
        project.migration("002_bad.sql", &format!("CREATE TABLE more (id int);\n{word};"), "DROP TABLE more;");
        let ran = project.json(&["apply"]).expect_code(1);
        assert_eq!(ran.result()["outcome"], "invalid", "{word}: {ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains("002_bad.sql:3:1"), "{word}: {ran:#?}");
        tells(&ran, "unchanged", "ripcord validate");
    }
    assert_eq!((history(&db), runs(&db)), ("001 applied".to_owned(), "apply done 0".to_owned()));
}

#[test]
fn a_commit_that_is_smuggled_in_fails_on_the_server() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration(
        "002_proc.sql",
        "CREATE PROCEDURE finish() LANGUAGE plpgsql AS $$ begin commit; end $$;",
        "DROP PROCEDURE finish();",
    );
    project.run(&["apply"]).expect_code(0);
    let before = db.schema();
    for up in [
        "CREATE TABLE more (id int);\nDO $$ begin call finish(); end $$;",
        "CREATE TABLE more (id int);\nCALL finish();",
        "CREATE TABLE more (id int);\nDO $$ begin execute 'commit'; end $$;",
    ] {
        project.migration("003_bad.sql", up, "DROP TABLE more;");
        let ran = project.json(&["apply"]).expect_code(1);
        assert_eq!(ran.result()["outcome"], "unchanged", "{up}: {ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains("003_bad.sql"), "{up}: {ran:#?}");
        tells(&ran, "unchanged", "ripcord apply");
        assert_eq!(db.schema(), before, "{up}");
    }
    assert_eq!(history(&db), "001 applied, 002 applied, 003 failed, 003 failed, 003 failed");
}

#[test]
fn all_in_one_transaction_is_all_or_nothing() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    project
        .migration("002_more.sql", "CREATE TABLE more (id int);\nDELETE FROM orders WHERE id > 50;", "SELECT 1;")
        .migration("003_bad.sql", "CREATE TABLE bad (id int);\nSELECT * FROM nowhere;", "DROP TABLE bad;")
        .migration("004_last.sql", "CREATE TABLE last (id int);", "DROP TABLE last;");

    let ran = project.json(&["apply", "--atomic"]).expect_code(1);
    let result = ran.result();
    assert_eq!(result["outcome"], "unchanged", "{ran:#?}");
    assert!(result["error"].as_str().unwrap().contains("003_bad.sql"), "{ran:#?}");
    let statuses: Vec<_> = result["migrations"].as_array().unwrap().iter().map(|m| m["status"].clone()).collect();
    assert_eq!(statuses, ["rolled_back", "failed", "pending"]);
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(
        (history(&db), runs(&db)),
        ("001 applied, 003 failed".to_owned(), "apply done 0, apply unchanged 1".to_owned())
    );

    project.migration("003_bad.sql", "CREATE INDEX CONCURRENTLY i ON orders (note);", "DROP INDEX i;");
    let ran = project.json(&["apply", "--atomic"]).expect_code(2);
    assert!(ran.result()["error"].as_str().unwrap().contains("003_bad.sql"), "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply --file");

    project.migration("003_bad.sql", "CREATE TABLE bad (id int);", "DROP TABLE bad;");
    project.json(&["apply", "--atomic"]).expect_code(0);
    assert_eq!(history(&db), "001 applied, 003 failed, 002 applied, 003 applied, 004 applied");
    assert_eq!(db.sql("select count(distinct applied_at) > 0, count(*) from ripcord.schema_migrations where batch = (select max(batch) from ripcord.schema_migrations)"), "t|3");
}

#[test]
fn a_lock_is_waited_for_with_all_in_one_transaction_too() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    short_locks(&project);
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;").migration(
        "003_add.sql",
        "ALTER TABLE orders ADD COLUMN x int;",
        "ALTER TABLE orders DROP COLUMN x;",
    );
    let holding = Holding::open(&db, "select count(*) from orders");
    let mut running = Running::start(&project, &["apply", "--atomic"]);
    running.until_it_says("lock timeout");
    drop(holding);
    running.finish().expect_code(0);
    assert_eq!(history(&db), "001 applied, 002 applied, 003 applied");
}
