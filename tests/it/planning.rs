//! Which migrations run: a plan in a file, late arrivals, environments, hooks around them, and stopping a run.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Cluster, Project};

#[test]
fn the_plan_that_was_approved_is_what_runs() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.json(&["plan", "--target", "001", "-o", "plan.json"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");

    // Something changed since: it is told, and nothing runs.
    let text = std::fs::read_to_string(project.path().join("migrations/001_shop.sql")).unwrap();
    project.write("migrations/001_shop.sql", &text.replace("note text", "note varchar"));
    let ran = project.json(&["apply", "--plan", "plan.json"]).expect_code(7);
    assert!(ran.stderr.contains("the text of `001_shop.sql` has changed"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from pg_class where relname = 'orders'"), "0");

    // With the files as they were, it runs, and no more than it.
    project.write("migrations/001_shop.sql", &text);
    let ran = project.json(&["apply", "--plan", "plan.json"]).expect_code(0);
    assert_eq!(ran.result()["migrations"].as_array().unwrap().len(), 1, "{ran:#?}");
    let ran = project.json(&["apply", "--plan", "plan.json"]).expect_code(7);
    assert!(ran.stderr.contains("`001_shop.sql` was to run, and is not any more"), "{ran:#?}");
    project.json(&["apply", "-o", "plan.json"]).expect_code(2);
    project.json(&["apply", "--plan", "nowhere.json"]).expect_code(2);
}

#[test]
fn what_arrives_late_is_treated_as_configured() {
    for (word, code, rows) in [("linear", 1, "1"), ("linear-skip", 0, "1"), ("non-linear", 0, "2")] {
        let db = Cluster::shared().database();
        let project = Project::new(&db);
        project.configure(&format!("out_of_order = \"{word}\""));
        project.migration("002_second.sql", "CREATE TABLE second ();", "DROP TABLE second;");
        project.run(&["apply"]).expect_code(0);
        project.migration("001_first.sql", "CREATE TABLE first ();", "DROP TABLE first;");
        let ran = project.json(&["apply"]).expect_code(code);
        assert!(format!("{ran:?}").contains("arrives after `002` was applied") || word == "linear-skip", "{ran:#?}");
        assert_eq!(db.sql("select count(*) from ripcord.schema_migrations where state = 'applied'"), rows, "{word}");
        // Whoever names it gets it.
        project.json(&["apply", "--file", "001_first.sql"]).expect_code(0);
        assert_eq!(db.sql("select count(*) from ripcord.schema_migrations where state = 'applied'"), "2", "{word}");
    }
}

#[test]
fn a_migration_for_another_environment_does_not_run_here() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.write(
        "migrations/001_seed.sql",
        "-- ripcord: env dev\n-- UP\nCREATE TABLE seed ();\n-- DOWN\nDROP TABLE seed;\n",
    );
    project.write(
        "migrations/002_all.sql",
        "-- ripcord: env test, prod\n-- UP\nCREATE TABLE everywhere ();\n-- DOWN\nDROP TABLE everywhere;\n",
    );
    let ran = project.json(&["apply"]).expect_code(0);
    assert!(ran.stdout.contains("`001_seed.sql` is for the environment `dev` only"), "{ran:#?}");
    assert_eq!(db.sql("select string_agg(version, ',') from ripcord.schema_migrations"), "002");
}

#[test]
fn hooks_in_sql_are_the_runs_own_and_are_brought_back_with_it() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    db.sql("create table told (hook text)");
    project.configure(
        "[hooks]\nbefore_backup = { sql = \"select 1\" }\n\
         before_run = [{ sql = \"insert into told values ('before_run')\" }, \"echo $RIPCORD_COMMAND >> log\"]\n\
         after_migration = [\"echo $RIPCORD_MIGRATION_VERSION >> log\", { command = \"false\", on_failure = \"warn\" }]\n\
         after_run = { sql = \"insert into told values ('after_run')\", timeout = \"5s\" }\n",
    );
    project.migration("003_good.sql", "CREATE TABLE good ();", "DROP TABLE good;");
    let ran = project.json(&["apply"]).expect_code(0);
    assert!(ran.stdout.contains("hook `after_migration` failed: `false`"), "{ran:#?}");
    assert_eq!(db.sql("select string_agg(hook, ',') from told"), "before_run,after_run");
    assert_eq!(std::fs::read_to_string(project.path().join("log")).unwrap(), "apply\n003\n");

    // What a hook has changed is no reason to call the database unchanged.
    project.migration("004_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.json(&["apply"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(db.sql("select count(*) from told"), "2");

    // Before the backup nothing may change.
    let text = std::fs::read_to_string(project.path().join("ripcord.toml")).unwrap();
    project.write("ripcord.toml", &text.replace("sql = \"select 1\"", "sql = \"insert into told values ('no')\""));
    let ran = project.json(&["apply"]).expect_code(1);
    assert!(ran.stderr.contains("read-only transaction"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from told"), "2");
}

#[test]
fn a_run_is_stopped_from_elsewhere_and_brought_back() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    assert_eq!(project.json(&["cancel"]).expect_code(0).result()["outcome"], "nothing_to_do");
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.migration("003_table.sql", "CREATE TABLE more ();", "DROP TABLE more;").migration(
        "004_slow.sql",
        "SELECT pg_sleep(300);",
        "SELECT 1;",
    );
    let running = project.command(&["--json", "apply"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while db.sql("select count(*) from pg_stat_activity where query like '%pg_sleep(300)%' and pid <> pg_backend_pid()")
        == "0"
    {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    let asked = project.json(&["cancel", "--reason", "too slow"]).expect_code(0);
    assert_eq!(asked.result()["outcome"], "done", "{asked:#?}");
    let ran = crate::support::cli::ran(running.wait_with_output().unwrap()).expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("stopped on request"), "{ran:#?}");
    assert_eq!(ran.result()["run_id"], asked.result()["run_id"]);
    assert_eq!(db.sql("select reason from ripcord.audit_log where action = 'cancel asked'"), "too slow");
}
