//! `rollback` on a real server: which migrations are undone, by what, and what a failing DOWN leaves.

use crate::support::{Cluster, Db, Project};

const STATES: &str =
    "select string_agg(version || ' ' || state, ', ' order by version, id) from ripcord.schema_migrations";
const TABLES: &str = "select string_agg(relname, ' ' order by relname) from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'";
const HISTORY: &str = "select string_agg(version || ' ' || how, ', ' order by id) from ripcord.rollback_history";

/// Three batches: 001 and 002, then 003, then 004 and 005.
fn three_batches<'a>(db: &Db<'a>) -> Project {
    let project = Project::new(db);
    for batch in [&["001_a", "002_b"][..], &["003_c"], &["004_d", "005_e"]] {
        for name in batch {
            let table = &name[4..];
            project.migration(
                &format!("{name}.sql"),
                &format!("CREATE TABLE {table} (id int); INSERT INTO {table} VALUES (1);"),
                &format!("DROP TABLE {table};"),
            );
        }
        project.run(&["apply"]).expect_code(0);
    }
    project
}

fn rolls_back(arguments: &[&str], left: &str) {
    let db = Cluster::shared().database();
    let project = three_batches(&db);
    let mut dry = vec!["rollback", "--dry-run"];
    dry.extend(arguments);
    let planned = project.json(&dry).expect_code(0).result();
    assert_eq!(db.sql(TABLES), "a b c d e");
    let mut real = vec!["rollback"];
    real.extend(arguments);

    let ran = project.json(&real).expect_code(0);

    let result = ran.result();
    assert_eq!(result["outcome"], "done", "{ran:#?}");
    assert_eq!(db.sql(TABLES), left, "{ran:#?}");
    let versions = |value: &serde_json::Value| {
        value["migrations"].as_array().unwrap().iter().map(|one| one["version"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(versions(&planned), versions(&result));
    assert!(result["migrations"].as_array().unwrap().iter().all(|one| one["status"] == "rolled_back"));
    assert_eq!(
        db.sql("select string_agg(name, ' ' order by version) from ripcord.schema_migrations where state = 'applied'"),
        left
    );
    assert_eq!(db.sql("select count(*) from ripcord.rollback_history"), versions(&result).len().to_string());
    // A safety backup, which `latest` does not mean.
    let backup = result["backup_id"].as_str().unwrap();
    assert_eq!(
        db.sql(&format!("select purpose || ' ' || status from ripcord.backup_history where id = '{backup}'")),
        "safety verified"
    );
    assert_ne!(project.json(&["restore", "latest", "--dry-run"]).result()["backup_id"], backup);
    // All of it can be applied again.
    project.run(&["apply"]).expect_code(0);
    assert_eq!(db.sql(TABLES), "a b c d e");
}

#[test]
fn bare_is_the_last_one() {
    rolls_back(&[], "a b c d");
}

#[test]
fn by_steps() {
    rolls_back(&["--steps", "3"], "a b");
}

#[test]
fn to_a_version() {
    rolls_back(&["--target", "002"], "a b");
}

#[test]
fn to_a_batch_which_stays() {
    rolls_back(&["--batch", "2"], "a b c");
}

#[test]
fn a_bare_number_is_a_batch() {
    rolls_back(&["2"], "a b c");
}

#[test]
fn to_a_name_which_stays() {
    rolls_back(&["--to", "003_c"], "a b c");
}

#[test]
fn a_bare_name_stays() {
    rolls_back(&["b"], "a b");
}

#[test]
fn only_one() {
    rolls_back(&["--only", "003_c"], "a b d e");
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let db = Cluster::shared().database();
    let project = three_batches(&db);
    project.run(&["rollback", "--to", "nonsense"]).expect_code(2).expect_end("unchanged", "ripcord");
    let batch = project.run(&["rollback", "--batch", "9"]).expect_code(2).expect_end("unchanged", "ripcord history");
    assert!(batch.stderr.contains("1 to 3"), "{batch:#?}");
    project.run(&["rollback", "--force"]).expect_code(2);
    project.run(&["rollback", "--batch", "3"]).expect_code(0).expect_end("nothing to roll back", "");
    assert_eq!(db.sql(TABLES), "a b c d e");
    assert_eq!(db.sql("select count(*) from ripcord.rollback_history"), "0");
}

#[test]
fn only_is_refused_when_a_later_one_depends_on_it() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.migration("001_a.sql", "CREATE TABLE a (id int);", "DROP TABLE a;").write(
        "migrations/002_b.sql",
        "-- @depends-on: 001_a.sql\n-- UP\nCREATE TABLE b (id int);\n\n-- DOWN\nDROP TABLE b;\n",
    );
    project.run(&["apply"]).expect_code(0);
    let ran = project.run(&["rollback", "--only", "001_a"]);
    assert!(matches!(ran.code, 1 | 7), "{ran:#?}");
    assert!(ran.stderr.contains("002_b") && ran.stderr.contains("depends"), "{ran:#?}");
    ran.expect_end("unchanged", "ripcord rollback");
    assert_eq!(db.sql(TABLES), "a b");
}

#[test]
fn a_missing_down_stops_it_and_force_goes_past() {
    let db = Cluster::shared().database();
    let project = three_batches(&db);
    project.write("migrations/006_f.sql", "-- UP\nCREATE TABLE f (id int);\n");
    project.run(&["apply"]).expect_code(0);

    let stopped = project.run(&["rollback", "--steps", "2"]).expect_code(1);
    assert!(stopped.stderr.contains("there is no DOWN for `006_f`"), "{stopped:#?}");
    stopped.expect_end("unchanged", "ripcord restore latest --before 006");
    assert_eq!(db.sql(TABLES), "a b c d e f");

    let forced = project.json(&["rollback", "--steps", "2", "--force", "--reason", "the shop is down"]).expect_code(4);
    let result = forced.result();
    assert_eq!(result["outcome"], "stopped_partway");
    assert!(result["database"].as_str().unwrap().contains("still applied: 006_f"), "{forced:#?}");
    assert!(result["hint"].as_str().unwrap().contains("ripcord restore "), "{forced:#?}");
    assert_eq!(db.sql(TABLES), "a b c d f");
    assert_eq!(db.sql(STATES), "001 applied, 002 applied, 003 applied, 004 applied, 005 rolled_back, 006 applied");
    assert_eq!(
        db.sql("select reason from ripcord.audit_log where action = 'rollback began' order by id desc limit 1"),
        "the shop is down"
    );
    // The hint's own restore brings it all back.
    let safety = result["backup_id"].as_str().unwrap();
    project.run(&["restore", safety, "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql(TABLES), "a b c d e f");
    assert_eq!(db.sql(HISTORY), "005 rollback");
    // And the restore that the first hint names takes it away.
    project.run(&["restore", "latest", "--before", "006", "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql(TABLES), "a b c d e");
}

#[test]
fn the_down_of_the_history_undoes_what_has_no_file_any_more() {
    let db = Cluster::shared().database();
    let project = three_batches(&db);
    std::fs::remove_file(project.path().join("migrations/005_e.sql")).unwrap();
    // Changed since, with a DOWN that would do something else.
    project.migration("004_d.sql", "CREATE TABLE d (id bigint);", "DROP TABLE a;");
    let dry = project.run(&["rollback", "--steps", "2", "--dry-run"]).expect_code(0);
    assert!(dry.stdout.contains("005_e (DOWN from the history)\nDROP TABLE e"), "{dry:#?}");
    assert!(dry.stdout.contains("004_d (DOWN from the history)\nDROP TABLE d"), "{dry:#?}");

    project.run(&["rollback", "--steps", "2"]).expect_code(0).expect_end("2 migrations undone", "");

    assert_eq!(db.sql(TABLES), "a b c");
    assert_eq!(db.sql(HISTORY), "005 rollback, 004 rollback");
}

#[test]
fn a_first_down_that_fails_changes_nothing() {
    let db = Cluster::shared().database();
    let project = three_batches(&db);
    project.migration("006_f.sql", "CREATE TABLE f (id int);", "DROP TABLE f; SELECT 1 / 0;");
    project.run(&["apply"]).expect_code(0);
    let before = db.schema();

    let ran = project.run(&["rollback", "--steps", "2"]).expect_code(1).expect_end("unchanged", "ripcord rollback");

    assert!(ran.stderr.contains("division by zero") && ran.stderr.contains("006_f"), "{ran:#?}");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*) from ripcord.rollback_history"), "0");
}

#[test]
fn a_down_that_fails_in_the_middle_is_taken_back() {
    // What other tests do on the same server would make rows doubtful.
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = three_batches(&db);
    project.migration("006_f.sql", "CREATE TABLE f (id int);", "DROP TABLE f; SELECT 1 / 0;").migration(
        "007_g.sql",
        "CREATE TABLE g (id int); INSERT INTO g VALUES (7);",
        "DELETE FROM a; DROP TABLE g;",
    );
    project.run(&["apply"]).expect_code(0);
    let before = db.schema();

    let ran = project.json(&["rollback", "--steps", "2"]).expect_code(3);

    let result = ran.result();
    assert_eq!(result["outcome"], "restored", "{ran:#?}");
    assert_eq!(result["hint"], "mend the DOWN, then: ripcord rollback");
    assert!(result["migrations"].as_array().unwrap().iter().all(|one| one["status"] == "applied"), "{ran:#?}");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select id from g"), "7");
    assert_eq!(db.sql("select count(*) from a"), "1");
    assert_eq!(
        db.sql(
            "select string_agg(version, ' ' order by version) from ripcord.schema_migrations where state = 'applied'"
        ),
        "001 002 003 004 005 006 007"
    );
    // That it was undone once stays in the history.
    assert_eq!(db.sql(HISTORY), "007 rollback");
    assert_eq!(db.sql("select outcome from ripcord.runs order by started_at desc limit 1"), "restored");
    // With the DOWN mended it goes through.
    project.write("migrations/006_f.sql", "-- UP\nCREATE TABLE f (id int);\n\n-- DOWN\nDROP TABLE f;\n");
    project.run(&["repair"]).expect_code(0);
    project.run(&["rollback", "--steps", "2"]).expect_code(0);
    assert_eq!(db.sql(TABLES), "a b c d e");
}

#[test]
fn a_down_without_transaction_that_fails_is_taken_back() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = three_batches(&db);
    project.migration(
        "006_f.sql",
        "CREATE INDEX CONCURRENTLY over_a ON a (id);",
        "DROP INDEX CONCURRENTLY over_a;\nDROP TABLE b;\nSELECT 1 / 0;",
    );
    project.run(&["apply"]).expect_code(0);
    let before = db.schema();

    let ran = project.json(&["rollback"]).expect_code(3);

    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*) from b"), "1");
    assert_eq!(db.sql(STATES), "001 applied, 002 applied, 003 applied, 004 applied, 005 applied, 006 applied");
}

#[test]
fn writes_of_others_stop_the_way_back_and_are_told() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = three_batches(&db);
    // The DOWN itself lets another session write, between the first DOWN and the failing one.
    project
        .migration("006_f.sql", "CREATE TABLE f (id int);", "SELECT 1 / 0;")
        .migration("007_g.sql", "CREATE TABLE g (id int);", "DROP TABLE g;")
        .configure(&format!(
            "[environments.test.hooks]\nafter_rollback = []\nbefore_restore = [\"psql -h {} -p {} -U postgres -d {} -qc 'insert into a values (99)'\"]",
            cluster.socket().display(),
            cluster.port(),
            db.name
        ));
    project.run(&["apply"]).expect_code(0);

    let ran = project.json(&["rollback", "--steps", "2"]).expect_code(4);

    let result = ran.result();
    assert_eq!(result["outcome"], "not_recovered", "{ran:#?}");
    assert!(
        result["database"].as_str().unwrap().contains("CHANGED and not brought back: `007_g` rolled back"),
        "{ran:#?}"
    );
    assert!(result["error"].as_str().unwrap().contains("rows in public.a"), "{ran:#?}");
    assert!(result["hint"].as_str().unwrap().contains("--writes accept-loss"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from a"), "2");
}
