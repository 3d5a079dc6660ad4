//! Migrations beside each other: that they are, in which order they are committed, and what is left when one of them
//! fails or the process dies between two commits.

use crate::support::cli::{Ran, ran};
use crate::support::{Cluster, Db, Project};

/// A wait in SQL until `is`, for as long as it takes. What others have made is asked of the catalog's tables: a name
/// that was once not there stays so for `to_regclass` in a statement that takes no lock.
fn until(is: &str) -> String {
    format!("DO $$ BEGIN WHILE NOT ({is}) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;\n")
}

/// Somebody holds, or has held until the end of its transaction, the advisory lock of that number.
fn held(number: u32) -> String {
    format!(
        "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {number} AND granted \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
}

fn hold(number: u32) -> String {
    format!("SELECT pg_advisory_xact_lock({number});\n")
}

/// `001_a`, then `002_b` and `003_c`, which need it only, with what each does besides making its table.
fn project<'a>(b: &str, c: &str) -> (Db<'a>, Project) {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    let needs = |text: &str, table: &str| {
        format!(
            "-- @depends-on: 001_a.sql\n-- UP\n{text}CREATE TABLE {table} (id int);\n-- DOWN\nDROP TABLE {table};\n"
        )
    };
    project
        .write("migrations/001_a.sql", "-- UP\nCREATE TABLE a (id int);\n-- DOWN\nDROP TABLE a;\n")
        .write("migrations/002_b.sql", &needs(b, "b"))
        .write("migrations/003_c.sql", &needs(c, "c"));
    (db, project)
}

fn with(project: &Project, arguments: &[&str], variable: &str, value: &str) -> Ran {
    ran(project.command(arguments).env(variable, value).output().unwrap())
}

fn applied(db: &Db<'_>) -> String {
    db.sql("select string_agg(version, ' ' order by id) from ripcord.schema_migrations where state = 'applied'")
}

fn tables(db: &Db<'_>) -> String {
    db.sql(
        "select coalesce(string_agg(relname, ' ' order by relname), '') from pg_class
             where relkind = 'r' and relnamespace = 'public'::regnamespace",
    )
}

/// `began version` and `finished version` of the migrations, as they were told.
fn events(ran: &Ran) -> Vec<String> {
    ran.events().iter().filter_map(|event| event.strip_prefix("migration_")).map(str::to_owned).collect()
}

/// The versions in the order in which the only run's journal says that they are about to be committed.
fn journaled(project: &Project) -> String {
    let mut steps = Vec::new();
    let mut folders = vec![project.store()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "json") {
                steps.push(path);
            }
        }
    }
    steps.sort();
    let versions = steps.iter().filter_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let body: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
        (body["step"]["step"] == "up_commits").then(|| body["step"]["version"].as_str().unwrap().to_owned())
    });
    versions.collect::<Vec<_>>().join(" ")
}

fn statuses(ran: &Ran) -> Vec<String> {
    let migrations = ran.result()["migrations"].as_array().cloned().unwrap_or_default();
    migrations.iter().map(|one| one["status"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn two_branches_run_at_the_same_time_and_are_committed_in_their_own_order() {
    // Each waits for something that the other one does: one after the other they would wait for ever. The later one
    // is committed first.
    let b = hold(2) + &until("EXISTS (SELECT FROM pg_class WHERE relname = 'c')");
    let c = until(&held(2));
    let (db, project) = project(&b, &c);
    project.migration("004_d.sql", "CREATE TABLE d (id int);", "DROP TABLE d;");

    let plan = project.run(&["plan", "--parallel", "2"]).expect_code(0);
    for line in ["-- may run beside 003_c.sql", "-- may run beside 002_b.sql"] {
        assert!(plan.stdout.contains(line), "{plan:#?}");
    }
    assert_eq!(plan.stdout.matches("may run beside").count(), 2, "{plan:#?}");
    assert!(!project.run(&["plan"]).stdout.contains("may run beside"));

    let ran = project.json(&["apply", "--parallel", "2"]).expect_code(0);
    assert_eq!(
        events(&ran),
        [
            "began 001",
            "finished 001",
            "began 002",
            "began 003",
            "finished 003",
            "finished 002",
            "began 004",
            "finished 004"
        ]
    );
    assert_eq!((applied(&db).as_str(), tables(&db).as_str()), ("001 003 002 004", "a b c d"));
    // The journal, which is one chain, has the order of the rows.
    assert_eq!(journaled(&project), "001 003 002 004");
    // What was committed last is undone first.
    project.json(&["rollback", "--steps", "2"]).expect_code(0);
    assert_eq!((applied(&db).as_str(), tables(&db).as_str()), ("001 003", "a c"));
}

#[test]
fn the_first_failure_stops_those_beside_it_and_the_downs_go_back_in_the_order_of_the_commits() {
    // It would wait for ever for a table that nobody makes.
    let b = hold(2) + &until("EXISTS (SELECT FROM pg_class WHERE relname = 'never')");
    let c = until(&held(2)) + "SELECT 1 / 0;\n";
    let (db, project) = project(&b, &c);
    let before = db.schema();
    let ran = project.json(&["apply", "--parallel", "2"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back");
    assert_eq!(ran.result()["proof"]["holds"], true, "{ran:#?}");
    assert_eq!(statuses(&ran), ["rolled_back", "rolled_back", "failed"], "{ran:#?}");
    assert!(
        ran.stderr.contains("003_c.sql` failed at line") || ran.result()["error"].to_string().contains("003_c.sql")
    );
    assert!(!events(&ran).contains(&"finished 002".to_owned()), "{ran:#?}");
    assert_eq!((db.schema(), tables(&db)), (before, String::new()));
    assert_eq!(db.sql("select string_agg(version, ' ') from ripcord.schema_migrations where state = 'failed'"), "003");
    assert_eq!(db.sql("select count(*) from pg_stat_activity where datname = current_database() and query like '%never%' and pid <> pg_backend_pid()"), "0");

    // Both are committed, the later one first, and one after them fails.
    let b = hold(2) + &until("EXISTS (SELECT FROM pg_class WHERE relname = 'c')");
    let (db, project) = self::project(&b, &until(&held(2)));
    project.write("migrations/004_d.sql", "-- @depends-on: 002_b, 003_c\nSELECT 1 / 0;");
    project.json(&["apply", "--parallel", "4"]).expect_code(3);
    assert_eq!(tables(&db), "");
    let undone = "select string_agg(version, ' ' order by id) from ripcord.rollback_history";
    assert_eq!(db.sql(undone), "002 003 001");
}

#[test]
fn a_kill_between_two_commits_is_recovered() {
    // Both have done their work when the first is committed.
    let b = hold(2) + &until(&format!("{} OR EXISTS (SELECT FROM pg_class WHERE relname = 'c')", held(3)));
    let c = hold(3) + &until(&format!("{} OR EXISTS (SELECT FROM pg_class WHERE relname = 'b')", held(2)));
    let (db, project) = project(&b, &c);
    let before = db.schema();
    let killed = with(&project, &["apply", "--parallel", "2"], "RIPCORD_FAULTS", "beside_committed=kill");
    assert_eq!(killed.code, -1, "{killed:#?}");
    let stands = tables(&db);
    assert!(["a b", "a c"].contains(&stands.as_str()), "{stands}");

    let ran = project.json(&["recover"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    assert_eq!((db.schema(), tables(&db)), (before, String::new()));
    let last = if stands == "a b" { "002 001" } else { "003 001" };
    assert_eq!(db.sql("select string_agg(version, ' ' order by id) from ripcord.rollback_history"), last);
    // Then it goes well.
    project.json(&["apply", "--parallel", "2"]).expect_code(0);
    assert_eq!(tables(&db), "a b c");
}

#[test]
fn what_was_counted_before_a_table_is_emptied_knows_the_rows_of_those_beside() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    db.sql("create table old (id int); insert into old select generate_series(1, 10)");
    let needs = |text: &str| format!("-- @depends-on: 001_a.sql\n-- ripcord: allow destructive tried\n-- UP\n{text}\n");
    project
        .write("migrations/001_a.sql", "CREATE TABLE a (id int);")
        .write(
            "migrations/002_b.sql",
            &needs(&format!(
                "INSERT INTO old VALUES (11), (12);\n{}",
                until("EXISTS (SELECT FROM pg_locks WHERE relation = 'public.old'::regclass AND NOT granted)",)
            )),
        )
        .write("migrations/003_c.sql", &needs("TRUNCATE old;"))
        .write("migrations/004_d.sql", "SELECT 1 / 0;");
    // Nobody else wrote: the restore, which is the only way back, loses nothing.
    let ran = project.json(&["apply", "--parallel", "2"]).expect_code(3);
    assert_eq!(
        (ran.result()["outcome"].as_str(), ran.result()["writes_since_backup"].as_u64()),
        (Some("restored"), Some(0)),
        "{ran:#?}"
    );
    assert_eq!((db.sql("select count(*) from old"), tables(&db)), ("10".to_owned(), "old".to_owned()));
}

#[test]
fn one_transaction_is_one_session() {
    let (db, project) = project("", "");
    let ran = project.run(&["apply", "--atomic", "--parallel", "2"]).expect_code(2);
    assert!(ran.stderr.contains("--atomic") && ran.stderr.contains("--parallel"), "{ran:#?}");
    assert_eq!(tables(&db), "");
    project.run(&["apply", "--parallel", "0"]).expect_code(2);
    let told = with(&project, &["plan"], "PARALLEL_JOBS", "4");
    assert!(told.stdout.contains("may run beside") && told.stderr.contains("PARALLEL_JOBS=4"), "{told:#?}");
    // A hook around each migration is told one at a time.
    project.configure("[hooks]\nbefore_migration = [\"true\"]\n");
    let plan = project.run(&["plan", "--parallel", "2"]).expect_code(0);
    assert!(!plan.stdout.contains("may run beside"), "{plan:#?}");
    let ran = with(&project, &["apply", "--atomic"], "PARALLEL_JOBS", "4");
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("no effect with `--atomic`"), "{ran:#?}");
}
