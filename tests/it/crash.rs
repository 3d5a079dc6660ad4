//! Runs that are killed (SIGKILL) at every step, and what `ripcord recover` makes of what they left.

mod apply;
mod claims;
mod closed;
mod others;

use std::time::{Duration, Instant};

use crate::support::cli::Ran;
use crate::support::{Db, Project};

/// A project with two applied migrations and rows of its own.
fn shop(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project
        .migration("001_shop.sql", "CREATE TABLE orders (id int PRIMARY KEY, note text);", "DROP TABLE orders;")
        .migration(
            "002_fill.sql",
            "INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 50) AS g;",
            "DELETE FROM orders;",
        );
    project.run(&["apply"]).expect_code(0);
    project
}

/// Schema and rows of everything but ripcord's own.
fn state(db: &Db<'_>) -> String {
    let rows = db.sql(
        "select coalesce(string_agg(c.relname || E'\\n' || \
                query_to_xml(format('select * from %I.%I order by 1', n.nspname, c.relname), false, false, '')::text, \
                E'\\n' order by c.relname), '') \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema', 'ripcord')",
    );
    format!("{}\n{rows}", db.schema())
}

/// Runs it, and expects that it is killed at that point.
#[track_caller]
fn killed_at(project: &Project, point: &str, arguments: &[&str]) {
    let output = project.command(arguments).env("RIPCORD_FAULTS", format!("{point}=kill")).output().unwrap();
    let ran = crate::support::cli::ran(output);
    assert_eq!(ran.code, -1, "not killed at {point}: {ran:#?}");
    // The server notices by itself that the holder of the lock is gone, in its own time.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = project.run(&["status"]);
        if !status.stdout.contains("BUSY") && !status.stdout.contains("at this moment") {
            break;
        }
        assert!(Instant::now() < deadline, "{point}: {status:#?}");
    }
}

/// The last lines of a run that is over: the state of the database, a blank line, a hint.
#[track_caller]
fn expect_last_lines(ran: &Ran) {
    let lines: Vec<&str> = ran.stderr.trim_end().lines().collect();
    let hint = lines.iter().rposition(|line| line.starts_with("hint: ")).unwrap_or_else(|| panic!("no hint: {ran:#?}"));
    assert_eq!(lines[hint - 1], "", "{ran:#?}");
    assert!(lines[..hint - 1].iter().any(|line| line.starts_with("database: ")), "{ran:#?}");
}

/// The ids of all runs that have a journal in the project's store.
fn runs(project: &Project) -> Vec<String> {
    let mut found = Vec::new();
    for lineage in std::fs::read_dir(project.store()).unwrap() {
        for run in std::fs::read_dir(lineage.unwrap().path().join("runs")).into_iter().flatten() {
            found.push(run.unwrap().file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

fn partials(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with(".partial-") {
            found.push(entry.path().display().to_string());
        }
        if entry.file_type().unwrap().is_dir() {
            partials(&entry.path(), found);
        }
    }
}

/// Nothing of ripcord's is left but its schema, its store and databases kept aside on purpose.
#[track_caller]
fn nothing_left(db: &Db<'_>, project: &Project, point: &str) {
    let name = &db.name;
    for run in runs(project) {
        let scratch = db.sql(&format!(
            "select string_agg(datname, ',') from pg_database where datname like 'rc\\_%' \
             and shobj_description(oid, 'pg_database') like '%{run}%'"
        ));
        assert_eq!(scratch, "", "{point}: a scratch database is left");
    }
    let fences = db.sql(&format!(
        "select string_agg(d.datname, ',') from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase \
         where d.datname like '{name}%' and array_to_string(s.setconfig, ',') like '%read_only%'"
    ));
    assert_eq!(fences, "", "{point}: a fence is left");
    assert_eq!(db.sql("select count(*) from ripcord.lock"), "0", "{point}: the lock's row is left");
    assert_eq!(db.sql(&format!("select datallowconn from pg_database where datname = '{name}'")), "t", "{point}");
    assert_eq!(
        db.sql("select count(*) from ripcord.backup_history where status = 'running'"),
        "0",
        "{point}: a backup seems to be running"
    );
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let sessions = db.sql(&format!(
            "select string_agg(application_name, ',') from pg_stat_activity \
             where datname like '{name}%' and pid <> pg_backend_pid() and backend_type = 'client backend'"
        ));
        if sessions.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{point}: sessions are left: {sessions}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut found = Vec::new();
    partials(&project.store(), &mut found);
    assert_eq!(found, Vec::<String>::new(), "{point}");
}

/// What is expected of `recover` after a kill.
struct Expected<'a> {
    code: i32,
    outcome: &'a str,
    state: &'a str,
}

/// The common part after every kill: status and apply say what is next, recover reaches the expected state
/// and says so, a second one finds nothing, and nothing is left.
#[track_caller]
fn recovers(db: &Db<'_>, project: &Project, point: &str, expected: &Expected<'_>) -> Ran {
    let status = project.run(&["status"]);
    assert_eq!(status.code, 0, "{point}: {status:#?}");
    let first = status.stdout.lines().next().unwrap();
    assert!(first.contains("UNFINISHED") || first.contains("CLOSED"), "{point}: {status:#?}");
    assert!(status.stdout.contains("next: ripcord recover"), "{point}: {status:#?}");
    let refused = project.run(&["apply"]);
    assert!(refused.code == 7 || (first.contains("CLOSED") && refused.code == 1), "{point}: {refused:#?}");
    assert!(refused.stderr.contains("ripcord recover"), "{point}: {refused:#?}");

    let ran = project.json(&["recover"]);
    let result = ran.result();
    assert_eq!((ran.code, result["outcome"].as_str().unwrap()), (expected.code, expected.outcome), "{point}: {ran:#?}");
    if expected.code != 0 {
        expect_last_lines(&ran);
    }
    assert!(result["hint"].is_string(), "{point}: {ran:#?}");
    assert_eq!(state(db), expected.state, "{point}: {ran:#?}");

    let again = project.json(&["recover"]).expect_code(0);
    assert_eq!(again.result()["outcome"], "nothing_to_do", "{point}: {again:#?}");
    nothing_left(db, project, point);
    ran
}
