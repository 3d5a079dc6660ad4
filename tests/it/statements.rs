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
        recover_and_stop(&project);
        project.json(&["apply"]).expect_code(0);
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

/// A table of users, half of them without the new address.
fn users(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project.migration(
        "001_users.sql",
        "CREATE TABLE users (id int PRIMARY KEY, email text, email_new text);\n\
         INSERT INTO users SELECT g, 'u' || g, CASE WHEN g > 60 THEN 'u' || g END FROM generate_series(1, 100) AS g;\n\
         CREATE TABLE users_new (id int, email text, extra text);",
        "DROP TABLE users, users_new;",
    );
    project.run(&["apply"]).expect_code(0);
    project
}

/// The transactions that wrote the rows of a table.
fn transactions(db: &Db<'_>, table: &str) -> String {
    db.sql(&format!("select count(distinct xmin::text) from {table}"))
}

#[test]
fn an_update_repeats_in_batches_until_it_finds_no_row() {
    let db = Cluster::shared().database();
    let project = users(&db);
    project.migration(
        "002_fill.sql",
        "-- ripcord: batch size=25 pause=1ms\nUPDATE users SET email_new = email WHERE email_new IS NULL;\nCREATE TABLE after ();",
        "DROP TABLE after;",
    );
    let ran = project.json(&["apply"]).expect_code(0);
    assert!(ran.stdout.contains("60 rows changed in batches"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from users where email_new = email"), "100");
    // Three rounds, and the one that filled the table.
    assert_eq!(transactions(&db, "users"), "4");
}

#[test]
fn a_copy_walks_along_the_key_and_goes_on_after_a_kill() {
    for point in ["round_before_commit", "round_committed"] {
        let db = Cluster::shared().database();
        let project = users(&db);
        project.migration(
            "002_copy.sql",
            "-- ripcord: batch size=30 key=users.id\n\
             INSERT INTO users_new SELECT id, email, NULL FROM users WHERE id > ? AND id <= ? LIMIT 1000;\n\
             -- ripcord: batch size=60 key=id\n\
             UPDATE users SET email_new = 'moved';",
            "TRUNCATE users_new;",
        );
        let output = project.command(&["apply"]).env("RIPCORD_FAULTS", format!("{point}=kill")).output().unwrap();
        assert_eq!(output.status.code(), None, "{point}: {output:?}");
        recover_and_stop(&project);
        let copied = db.sql("select count(*) from users_new");
        assert_eq!(copied, if point == "round_committed" { "30" } else { "0" }, "{point}");
        project.json(&["apply"]).expect_code(0);
        assert_eq!(db.sql("select count(*) || ' ' || count(distinct id) from users_new"), "100 100", "{point}");
        assert_eq!(transactions(&db, "users_new"), "4", "{point}");
        // The second statement begins at its own beginning.
        assert_eq!(db.sql("select count(*) from users where email_new = 'moved'"), "100", "{point}");
    }
}

#[test]
fn an_update_that_never_ends_is_noticed_and_brought_back() {
    let db = Cluster::shared().database();
    let project = users(&db);
    project.migration(
        "002_endless.sql",
        "-- ripcord: batch size=5\nUPDATE users SET email_new = 'x' WHERE id > 0;",
        "SELECT 1;",
    );
    let ran = project.json(&["apply"]).expect_code(3);
    assert!(ran.result()["error"].as_str().unwrap().contains("the rounds would never end"), "{ran:#?}");
    assert_eq!(ran.result()["outcome"], "restored");
    assert_eq!(db.sql("select count(*) from users where email_new = 'x'"), "0");
}

/// Closes the run that was killed and leaves the database as it is, once the server has noticed the kill.
fn recover_and_stop(project: &Project) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let ran = project.json(&["recover", "--on-failure", "stop"]);
        if ran.code != 5 {
            assert!(matches!(ran.code, 0 | 4), "{ran:#?}");
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{ran:#?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn the_rows_of_a_copy_are_sent_and_a_bad_one_is_named_by_its_line() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.write(
        "migrations/001_data.sql",
        "-- UP\n\\restrict aB3\nSET transaction_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n\
         CREATE TABLE public.t (id int, note text);\nCOPY public.t (id, note) FROM stdin;\n1\tit's; -- $$\n2\t\\N\n\\.\n\n\
         COPY public.t FROM STDIN WITH (FORMAT csv);\r\n3,three\r\n\\.\r\nINSERT INTO public.t VALUES (4, 'four');\n\\unrestrict aB3\n\n-- DOWN\nDROP TABLE public.t;\n",
    );
    project.json(&["apply"]).expect_code(0);
    assert_eq!(
        db.sql("select string_agg(concat_ws(' ', id, coalesce(note, 'null')), ', ' order by id) from t"),
        "1 it's; -- $$, 2 null, 3 three, 4 four"
    );

    project.migration("002_bad.sql", "COPY t FROM stdin;\n5\tfive\nsix\t6\n\\.", "DELETE FROM t WHERE id > 4;");
    let ran = project.json(&["apply"]).expect_code(1);
    let error = ran.result()["error"].as_str().unwrap().to_owned();
    assert!(
        error.contains("`002_bad.sql` failed at line 4, column 1: invalid input syntax for type integer"),
        "{error}"
    );
    assert!(error.contains("context: COPY t, line 2"), "{error}");
    assert_eq!(db.sql("select count(*) from t"), "4");
}

#[test]
fn variables_are_put_in_and_stand_nowhere() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.configure("[variables]\nallow = [\"APP_SCHEMA\", \"GREETING\"]\n");
    project.migration(
        "001_vars.sql",
        "CREATE SCHEMA :\"APP_SCHEMA\";\nCREATE TABLE :\"APP_SCHEMA\".t AS SELECT :'GREETING'::text AS said, ':GREETING' AS kept;",
        "DROP TABLE :\"APP_SCHEMA\".t;\nDROP SCHEMA :\"APP_SCHEMA\";",
    );
    let missing = project.json(&["apply"]).expect_code(1);
    assert!(
        missing.stderr.contains("`001_vars.sql`, line 2, column 15: the variable `APP_SCHEMA` is not set"),
        "{missing:#?}"
    );
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");

    let project = project.env("APP_SCHEMA", "tenant_northwind").env("GREETING", "it's-a-secret-value");
    project.json(&["validate"]).expect_code(0);
    let ran = project.json(&["apply"]).expect_code(0);
    assert_eq!(db.sql("select said || ', ' || kept from tenant_northwind.t"), "it's-a-secret-value, :GREETING");
    assert!(!format!("{ran:?}").contains("secret-value"), "{ran:#?}");
    assert!(db.sql("select up_sql from ripcord.schema_migrations").contains(":'GREETING'::text"));

    // What the server quotes is taken out, on the screen and in the history.
    project.migration("002_bad.sql", "SELECT 1;\nSELECT\n  :'GREETING'::int;", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(1);
    let error = ran.result()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("line 4, column 3: invalid input syntax for type integer"), "{error}");
    assert!(!format!("{ran:?}").contains("secret-value"), "{ran:#?}");
    assert!(!db.sql("select string_agg(t::text, '') from ripcord.schema_migrations t").contains("secret-value"));
    let found = std::process::Command::new("grep").args(["-r", "secret-value"]).arg(project.store()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");

    // The DOWN gets them too.
    project.json(&["rollback"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'tenant_northwind'"), "0");
}

#[test]
fn what_commits_by_itself_runs_outside_a_transaction() {
    let db = Cluster::shared().database();
    let project = users(&db);
    project
        .migration(
            "002_do.sql",
            "DO $$ BEGIN INSERT INTO users_new VALUES (1); COMMIT; INSERT INTO users_new VALUES (2); END $$;",
            "DELETE FROM users_new;",
        )
        .migration(
            "003_call.sql",
            "-- ripcord: no-transaction\n\
             CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO users_new VALUES (3); COMMIT; END $$;\n\
             CALL twice();",
            "DROP PROCEDURE twice;",
        )
        // What a function's body says is not said to the server yet.
        .migration(
            "004_function.sql",
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN COMMIT; EXECUTE 'VACUUM'; END $$;",
            "DROP FUNCTION f;",
        );
    project.json(&["apply"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from users_new"), "3");
    project.migration("005_call.sql", "CALL twice();", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(1);
    assert!(ran.result()["hint"].as_str().unwrap().contains("-- ripcord: no-transaction"), "{ran:#?}");
}
