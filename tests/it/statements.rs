//! Migrations outside one transaction: where they stop, where they go on, and statements that repeat in batches.

use crate::support::cli::Ran;
use crate::support::{Cluster, Db, Project};

/// A table with a hundred rows, and a migration whose second statement fails as long as `fine` is empty.
fn stumbling(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    db.sql("create table fine (id int)");
    project.migration(
        "003_parts.sql",
        "-- ripcord: no-transaction\n\
         INSERT INTO orders VALUES (1001, 'first');\n\
         INSERT INTO orders SELECT 1002 / (SELECT count(*) FROM fine), 'second';\n\
         CREATE INDEX CONCURRENTLY orders_note ON orders (note);",
        "DROP INDEX orders_note;\nDELETE FROM orders WHERE id > 1000;",
    );
    project
}

fn later_rows(db: &Db<'_>) -> String {
    db.sql("select string_agg(id || ' ' || note, ', ' order by id, note) from orders where id > 1000")
}

fn reason(ran: &Ran) -> String {
    ran.result()["migrations"][0]["reason"].as_str().unwrap().to_owned()
}

#[test]
fn apply_goes_on_at_the_statement_that_failed() {
    let db = Cluster::shared().database();
    let project = stumbling(&db);

    let ran = project.json(&["apply", "--on-failure", "stop"]).expect_code(4);
    assert_eq!(ran.result()["outcome"], "stopped_partway", "{ran:#?}");
    assert!(ran.stderr.contains("line 5, column 1: division by zero") || ran.stderr.contains("line 4"), "{ran:#?}");
    assert_eq!(later_rows(&db), "1001 first");

    // The same again, and still the first statement is not run twice.
    let ran = project.json(&["apply", "--on-failure", "stop"]).expect_code(1);
    assert_eq!((ran.result()["outcome"].as_str().unwrap(), later_rows(&db).as_str()), ("unchanged", "1001 first"));

    db.sql("insert into fine values (1)");
    assert_eq!(reason(&project.json(&["plan"]).expect_code(0)), "goes on at statement 2 of 3");
    let ran = project.json(&["apply"]).expect_code(0);
    assert_eq!(reason(&ran), "goes on at statement 2 of 3");
    assert!(ran.stdout.contains("where run `"), "{ran:#?}");
    assert_eq!(later_rows(&db), "1001 first, 1002 second");
    assert_eq!(db.sql("select indisvalid from pg_index where indexrelid = 'orders_note'::regclass"), "t");
    assert_eq!(project.json(&["apply"]).expect_code(0).result()["outcome"], "nothing_to_do");
}

#[test]
fn a_statement_that_was_done_and_changed_since_stops_the_plan() {
    let db = Cluster::shared().database();
    let project = stumbling(&db);
    project.json(&["apply", "--on-failure", "stop"]).expect_code(4);
    db.sql("insert into fine values (1)");
    let text = std::fs::read_to_string(project.path().join("migrations/003_parts.sql")).unwrap();

    project.write("migrations/003_parts.sql", &text.replace("'first'", "'other'"));
    let ran = project.json(&["apply"]).expect_code(1);
    let error = ran.result()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("did the first 1 statement of `003_parts.sql`"), "{ran:#?}");
    assert_eq!(later_rows(&db), "1001 first");

    // White space, comments and the statements that come are no matter.
    let harmless =
        text.replace("INSERT INTO orders VALUES", "INSERT  INTO orders /* why */ VALUES").replace("'second'", "'2nd'");
    project.write("migrations/003_parts.sql", &harmless);
    project.json(&["apply"]).expect_code(0);
    assert_eq!(later_rows(&db), "1001 first, 1002 2nd");
}

#[test]
fn after_a_restore_it_begins_at_the_first_statement() {
    let db = Cluster::shared().database();
    let project = stumbling(&db);
    project.json(&["apply", "--on-failure", "stop"]).expect_code(4);
    project.json(&["restore", "latest", "--confirm", &db.name, "--writes", "accept-loss"]).expect_code(0);
    assert_eq!(later_rows(&db), "");
    db.sql("insert into fine values (1)");
    let ran = project.json(&["apply"]).expect_code(0);
    assert_eq!((reason(&ran).as_str(), later_rows(&db).as_str()), ("pending", "1001 first, 1002 second"));
}

#[test]
fn after_a_kill_it_goes_on_where_it_was() {
    for point in ["statement_began", "statement_before_commit", "statement_committed", "statement_done"] {
        let db = Cluster::shared().database();
        let project = stumbling(&db);
        db.sql("insert into fine values (1)");
        let output = project.command(&["apply"]).env("RIPCORD_FAULTS", format!("{point}=kill")).output().unwrap();
        assert_eq!(output.status.code(), None, "{point}");
        project.json(&["recover", "--on-failure", "stop", "--wait", "30s"]);
        project.json(&["apply", "--wait", "30s"]).expect_code(0);
        assert_eq!(later_rows(&db), "1001 first, 1002 second", "{point}");
        assert_eq!(db.sql("select count(*) from pg_index where not indisvalid"), "0", "{point}");
    }
}

#[test]
fn an_invalid_index_is_dropped_before_its_statement_is_run_again() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    db.sql("update orders set note = 'the same' where id < 3");
    project.migration(
        "003_unique.sql",
        "CREATE TABLE first (id int);\nCREATE UNIQUE INDEX CONCURRENTLY orders_note ON orders (note);",
        "DROP INDEX orders_note;\nDROP TABLE first;",
    );
    let ran = project.json(&["apply", "--on-failure", "stop"]).expect_code(4);
    assert!(ran.stdout.contains("dropped the invalid index `public.orders_note`"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from pg_index where not indisvalid"), "0");
    db.sql("update orders set note = id where id < 3");
    project.json(&["apply"]).expect_code(0);
    assert_eq!(db.sql("select indisvalid from pg_index where indexrelid = 'orders_note'::regclass"), "t");
}
