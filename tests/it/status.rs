//! What tells where things stand: `status`, `run`, `history`, `audit`, `health`, `wait`, and the same from psql.

use crate::support::{Cluster, Project};

#[test]
fn status_tells_all_that_a_script_asks() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    let first = project.json(&["status"]).expect_code(0);
    assert_eq!(first.result()["command"], "status");
    let status = first.items()[0].clone();
    assert_eq!((status["total"].as_u64(), status["applied"].as_u64()), (Some(2), Some(0)));
    assert_eq!(status["pending"][0]["file"], "001_shop.sql");
    assert_eq!((&status["up_to_date"], &status["next"]), (&false.into(), &"ripcord apply".into()));
    assert!(status["last_backup"].is_null() && status["last_drill"].is_null() && status["lock"].is_null());
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
    project.json(&["status", "--exit-code"]).expect_code(1);
    let none = project.run(&["status", "--max-backup-age", "1h"]).expect_code(1);
    assert!(none.stderr.contains("there is no good backup"), "{none:#?}");

    project.run(&["apply"]).expect_code(0);

    let status = project.json(&["status", "--exit-code", "--max-backup-age", "1h"]).expect_code(0).items()[0].clone();
    assert_eq!((status["applied"].as_u64(), status["last_batch"].as_i64()), (Some(2), Some(1)));
    assert_eq!(status["last_backup"]["status"], "verified");
    assert!(
        status["last_applied_at"].is_string() && status["up_to_date"] == true && status["next"].is_null(),
        "{status}"
    );
    let stale = project.run(&["status", "--max-backup-age", "0s"]).expect_code(1);
    assert!(stale.stderr.contains("older than"), "{stale:#?}");

    let bare = project.run(&[]).expect_code(0);
    assert_eq!(bare.stdout, project.run(&["status"]).stdout);
    for told in
        ["up to date, 2 migrations applied", "Up to date:     Yes", "last batch      1, ", "last drill      never"]
    {
        assert!(bare.stdout.contains(told), "{told}: {bare:#?}");
    }
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    project.run(&["apply"]).expect_code(1);
    let status = project.json(&["status", "--exit-code"]).expect_code(1).items()[0].clone();
    assert_eq!(
        (status["failed"].as_u64(), &status["pending"][0]["reason"]),
        (Some(1), &"failed before".into()),
        "{status}"
    );
    let text = project.run(&["status"]).expect_code(0).stdout;
    assert!(
        text.contains("Up to date:     No")
            && text.contains("003_bad.sql (failed before)")
            && text.contains("next: ripcord apply"),
        "{text}"
    );
}

#[test]
fn runs_history_and_audit_tell_what_was_done() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    for command in [&["run", "list"][..], &["history"], &["audit"]] {
        assert_eq!(project.json(command).expect_code(0).items().len(), 0, "{command:?}");
    }
    let none = project.run(&["run", "show", "latest"]).expect_code(2);
    assert!(none.stderr.ends_with("\n\nhint: ripcord run list\n"), "{none:#?}");
    project.shop();
    let applied = project.json(&["apply"]).expect_code(0).result();
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    project.run(&["apply"]).expect_code(1);
    std::fs::remove_file(project.path().join("migrations/003_bad.sql")).unwrap();
    project.run(&["rollback"]).expect_code(0);

    let runs = project.json(&["run", "list"]).expect_code(0).items();
    let told: Vec<_> = runs
        .iter()
        .map(|run| format!("{} {}", run["command"].as_str().unwrap(), run["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(told, ["rollback done", "apply unchanged", "apply done"]);
    let run = applied["run_id"].as_str().unwrap();
    let shown = project.json(&["run", "show", run]).expect_code(0).items()[0].clone();
    assert_eq!((&shown["id"], &shown["exit_code"]), (&run.into(), &0.into()));
    let steps: Vec<_> =
        shown["journal"].as_array().unwrap().iter().map(|entry| entry["step"]["step"].as_str().unwrap()).collect();
    assert_eq!((steps.first(), steps.last()), (Some(&"opened"), Some(&"closed")));
    assert_eq!(project.json(&["run", "show", "latest"]).items()[0]["command"], "rollback");

    let history = project.json(&["history"]).expect_code(0).items();
    let mut states: Vec<_> = history
        .iter()
        .map(|row| format!("{} {}", row["version"].as_str().unwrap(), row["state"].as_str().unwrap()))
        .collect();
    states.sort();
    assert_eq!(states, ["001 applied", "002 rolled_back", "003 failed"]);
    let actions: Vec<_> =
        project.json(&["audit"]).items().iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect();
    for action in ["rollback began", "rollback finished", "apply finished"] {
        assert!(actions.iter().any(|one| one == action), "{action}: {actions:?}");
    }
    // The audit log keeps every row that it ever had.
    assert!(db.cluster.try_sql(&db.name, "delete from ripcord.audit_log").unwrap_err().contains("is refused"));
    project.run(&["reset-failed"]).expect_code(0);
    assert_eq!(project.json(&["status"]).items()[0]["failed"], 0);
    assert_eq!(db.sql("select state from ripcord.schema_migrations where version = '003'"), "failed_reset");
}

#[test]
fn psql_tells_it_too() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    project.run(&["apply"]).expect_code(1);
    project.run(&["drill"]).expect_code(0);
    let view = |check: &str| {
        db.sql(&format!(
            "select status || ' ' || details from ripcord.migration_system_status where check_name = '{check}'"
        ))
    };
    assert_eq!(view("total_migrations"), "ok 2");
    assert!(
        view("failed_migrations").ends_with(" 1") && !view("failed_migrations").starts_with("ok"),
        "{}",
        view("failed_migrations")
    );
    assert_eq!(view("lock"), "ok free");
    assert!(view("last_drill_age").starts_with("ok "), "{}", view("last_drill_age"));
    let summary = db.sql("select to_json(s) from ripcord.get_migration_summary() as s");
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    let values: Vec<_> = summary.as_object().unwrap().values().filter_map(serde_json::Value::as_i64).collect();
    assert!(values.contains(&3) && values.contains(&2) && values.contains(&1), "{summary}");
}

#[test]
fn health_looks_at_the_database() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop().configure("[expect]\ntables = [\"orders\"]");
    let before = project.run(&["health"]).expect_code(6);
    assert!(before.stdout.contains("missing: orders"), "{before:#?}");
    project.run(&["apply"]).expect_code(0);
    let items = project.json(&["health"]).expect_code(0).items();
    assert!(!items.is_empty(), "the checks are listed");
}

#[test]
fn verify_db_names_all_that_is_not_as_it_should_be() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop().migration(
        "003_old.sql",
        "CREATE TABLE old (id int); ALTER TABLE old RENAME TO kept;",
        "DROP TABLE kept;",
    );
    project.migration("004_notes.sql", "CREATE TABLE notes (id int);", "DROP TABLE notes;");
    project.configure("[expect]\npolicies = [\"orders.own_rows\"]\nchecks = \"checks\"\n");
    project.write("checks/one.sql", "select id from orders where id > 100");
    project.write("checks/two.sql", "delete from orders returning id");
    db.sql("create table orders_there (id int)");
    project.run(&["apply", "--on-failure", "stop"]).expect_code(4);
    project.run(&["recover", "--on-failure", "stop"]);
    project.configure("[validate.rules]\nrow-level-security = \"error\"");
    db.sql(
        "create policy own_rows on orders using (true); drop table orders_there; \
         alter table orders enable row level security; alter table kept enable row level security; \
         alter table notes enable row level security",
    );
    project.write("checks/two.sql", "select id from orders where note is null");

    let well = project.run(&["verify-db"]).expect_code(0);
    assert!(well.stdout.contains("ok       history") && !well.stdout.contains("WRONG"), "{well:#?}");
    assert_eq!(project.json(&["verify-db"]).expect_code(0).items().len(), 0);

    // What a hand did to the database, and to the folder.
    let old = std::fs::read_to_string(project.path().join("migrations/003_old.sql")).unwrap();
    project.write("migrations/003_old.sql", &old.replace("kept", "other"));
    std::fs::remove_file(project.path().join("migrations/002_fill.sql")).unwrap();
    db.sql("drop table notes; drop policy own_rows on orders; alter table orders disable row level security");
    db.sql("alter table orders add constraint low check (id < 1000) not valid; create index broken on orders (note)");
    db.sql(
        "update pg_index set indisvalid = false where indexrelid = 'broken'::regclass; insert into orders values (101)",
    );
    let before = db.schema();
    let ran = project.run(&["verify-db"]).expect_code(1);
    for told in [
        "`002_fill` is applied, but its file is gone",
        "003_old.sql",
        "table `notes`, which `004_notes.sql` makes, is not there",
        "`orders.own_rows` is not there",
        "index public.broken on public.orders is invalid",
        "hint: REINDEX INDEX CONCURRENTLY public.broken;",
        "constraint low on public.orders is not validated",
        "hint: ALTER TABLE public.orders VALIDATE CONSTRAINT low;",
        "`public.orders` has no row level security",
        "one.sql` returned rows",
        "two.sql` returned rows",
    ] {
        assert!(ran.stdout.contains(told), "{told}: {ran:#?}");
    }
    assert!(ran.stderr.contains("database: unchanged"), "{ran:#?}");
    let items = project.json(&["verify-db"]).expect_code(1).items();
    assert!(items.iter().all(|item| item["hint"].as_str().is_some_and(|hint| !hint.is_empty())), "{items:?}");
    // A check that would change something does not.
    project.write("checks/two.sql", "delete from orders returning id");
    let ran = project.run(&["verify-db"]).expect_code(1);
    assert!(ran.stdout.contains("read-only transaction"), "{ran:#?}");
    assert_eq!((db.schema(), db.sql("select count(*) from orders")), (before, "101".to_owned()));
}

#[test]
fn wait_waits_for_a_server_that_comes_later() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = Project::new(&db);
    cluster.crash();
    project.run(&["wait", "--timeout", "1s"]).expect_code(1);
    let waiting =
        project.command(&["--json", "wait", "--timeout", "60s"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    cluster.restart();
    let ran = crate::support::cli::ran(waiting.wait_with_output().unwrap()).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done");
    // What waiting does not mend is said at once.
    let wrong = Project::with_url(&cluster.url_as("postgres", "wrong", &db.name));
    let began = std::time::Instant::now();
    let ran = wrong.run(&["wait", "--timeout", "300s"]).expect_code(1);
    assert!(ran.stderr.contains("password authentication failed"), "{ran:#?}");
    assert!(began.elapsed().as_secs() < 200, "it was waited for what does not mend itself");
}

#[test]
fn a_drill_that_is_due_is_told_with_its_command() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    let due = |told: &str| {
        let ran = project.json(&["status", "--exit-code"]).expect_code(1);
        let status = ran.items()[0].clone();
        assert!(status["drill_due"].as_str().unwrap().contains(told), "{status}");
        assert_eq!(
            (&status["up_to_date"], &status["next"]),
            (&true.into(), &"ripcord drill latest".into()),
            "{status}"
        );
        let text = project.run(&["status"]).expect_code(0).stdout;
        assert!(text.contains("(DUE: ripcord drill latest)") && text.contains(told), "{text}");
        let doctor = project.json(&["doctor"]).expect_code(0).items();
        let line = doctor.iter().find(|check| check["name"] == "last drill").unwrap();
        assert_eq!((&line["verdict"], &line["hint"]), (&"warning".into(), &"ripcord drill latest".into()), "{line}");
        assert!(line["detail"].as_str().unwrap().contains(told), "{line}");
    };
    // A month is the default, and the backup is younger.
    project.json(&["status", "--exit-code"]).expect_code(0);
    project.configure("[drill]\nmax_age = \"1ms\"");
    due("no backup was drilled well, and the oldest is more than 0.001 seconds old");
    project.run(&["drill"]).expect_code(0);
    due("the last good drill is of ");
    let set_age = |age: &str| {
        let text = std::fs::read_to_string(project.path().join("ripcord.toml")).unwrap();
        project.write("ripcord.toml", &text.replace("\"1ms\"", "\"1h\"").replace("\"1h\"", &format!("\"{age}\"")));
    };
    set_age("1h");
    project.json(&["status", "--exit-code"]).expect_code(0);
    set_age("0s");
    let status = project.json(&["status", "--exit-code"]).expect_code(0).items()[0].clone();
    assert!(status["drill_due"].is_null(), "{status}");
}
