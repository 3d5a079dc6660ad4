//! Judging migrations with a live database beside.

use crate::support::{Cluster, Project};

/// `rule severity`, in the order of the findings.
fn findings(items: &[serde_json::Value]) -> Vec<String> {
    let text = |item: &serde_json::Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    items.iter().map(|item| format!("{} {}", text(item, "rule"), text(item, "severity"))).collect()
}

const TABLES: &str = "create table big (id bigint primary key, a text);\n\
     create table small (id bigint primary key, big_id bigint references big);\n\
     insert into big select g, g::text from generate_series(1, 3000) g; insert into small values (1, 1);\n\
     analyze big; analyze small;";

#[test]
fn a_lock_counts_where_the_table_is_large() {
    let db = Cluster::shared().database();
    db.sql(TABLES);
    let project = Project::new(&db);
    project.configure("[validate]\nlarge_table_rows = 1000\n");
    project
        .migration("001_index_big.sql", "create index i on big (a);", "drop index i;")
        .migration("002_index_small.sql", "create index j on small (big_id);", "drop index j;")
        .migration("003_sweep.sql", "-- ripcord: allow destructive tried\nupdate big set a = 'x';", "select 1;")
        .migration("004_new.sql", "alter table later add constraint c check (a > 0);", "select 1;");
    let before = db.schema();
    // Without the database every table may be large.
    let offline = findings(&project.json(&["validate"]).expect_code(0).items());
    assert_eq!(
        offline,
        [
            "require-concurrent-index-creation warning",
            "require-concurrent-index-creation warning",
            "constraint-missing-not-valid warning"
        ]
    );
    let ran = project.json(&["validate", "--online"]).expect_code(0);
    assert_eq!(
        findings(&ran.items()),
        [
            "require-concurrent-index-creation warning",
            "require-concurrent-index-creation note",
            "constraint-missing-not-valid note",
            "large-table warning",
            "foreign-key-without-index warning",
        ]
    );
    let message = |at: usize| ran.items()[at]["message"].as_str().unwrap().to_owned();
    assert!(message(0).contains("about 3000 rows"), "{ran:#?}");
    assert!(message(2).ends_with("the table is not there yet"), "{ran:#?}");
    assert!(message(3).contains("UPDATE works through `big`"), "{ran:#?}");
    assert!(message(4).contains("`big_id` of the foreign key `small_big_id_fkey`"), "{ran:#?}");
    let only = project.json(&["validate", "--online", "--only", "schema"]).expect_code(0);
    // A group that is asked for is looked at whole, with what is off by default.
    let schema = findings(&only.items());
    assert_eq!(schema.iter().filter(|one| *one == "foreign-key-without-index warning").count(), 1, "{schema:?}");
    assert_eq!(schema.iter().filter(|one| *one == "row-level-security note").count(), 2, "{schema:?}");
    assert!(!schema.iter().any(|one| one.contains("large-table")), "{schema:?}");
    assert_eq!(db.schema(), before);
}

/// A folder that is years old, run on a new database: what it drops and makes anew on its way was never there.
#[test]
fn what_a_run_destroys_of_its_own_is_no_loss() {
    let db = Cluster::shared().database();
    db.sql("create table kept (a int)");
    let project = Project::new(&db);
    project.configure("[environments.strict]\nprotected = true\n");
    project
        .migration("001_a.sql", "create table public.a (a int); delete from public.a;", "drop table public.a;")
        .migration("002_b.sql", "drop table a; create table c (a int); alter table kept rename to found;", "select 1;")
        .migration("003_d.sql", "drop table c;", "create table c (a int);");
    let judged = || {
        let ran = project.json(&["plan", "--env", "strict"]);
        let all: Vec<String> =
            ran.stderr.lines().filter(|line| line.contains("(destructive)")).map(str::to_owned).collect();
        (ran.code, all)
    };
    assert_eq!(judged(), (0, Vec::new()));
    project.migration("003_d.sql", "drop table c; drop table found;", "select 1;");
    let ran = project.json(&["apply", "--env", "strict", "--yes"]).expect_code(1);
    assert!(ran.stderr.contains("drops table `found` (destructive)"), "{ran:#?}");
    assert!(!ran.stderr.contains("drops table `c` (destructive)"), "{ran:#?}");
}

/// What cascades, and what a function gives another name, is told by no text; a database without tables has none.
#[test]
fn nothing_is_destroyed_where_nobody_has_made_anything() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.configure("[environments.strict]\nprotected = true\n");
    let renames = "create function swap(old text, new text) returns void language plpgsql as \
                   $$ begin execute format('alter table %I rename to %I', old, new); end $$;";
    project
        .migration("001_a.sql", &format!("create table a (a int);\n{renames}"), "drop function swap; drop table a;")
        .migration("002_b.sql", "drop table a cascade;", "create table a (a int);");
    project.json(&["plan", "--env", "strict"]).expect_code(0);
    project.migration("002_b.sql", "drop schema public cascade;", "select 1;");
    let ran = project.json(&["plan", "--env", "strict"]).expect_code(1);
    assert!(ran.stderr.contains("(destructive)"), "{ran:#?}");
    project.migration("002_b.sql", "drop table a cascade;", "create table a (a int);");
    db.sql("create table kept (a int)");
    let ran = project.json(&["plan", "--env", "strict"]).expect_code(1);
    assert!(ran.stderr.contains("drops table `a` and what depends on it (destructive)"), "{ran:#?}");
}

#[test]
fn a_rule_that_is_an_error_stops_a_run_before_anything_is_written() {
    let db = Cluster::shared().database();
    db.sql(TABLES);
    let project = Project::new(&db);
    project.configure("[validate.rules]\nrenaming-table = \"error\"\n");
    project.migration("001_rename.sql", "alter table small rename to little;", "alter table little rename to small;");
    let before = db.schema();
    let ran = project.json(&["apply"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "invalid");
    assert!(ran.stderr.contains("renaming-table"), "{ran:#?}");
    assert_eq!((db.schema(), db.sql("select to_regnamespace('ripcord')")), (before, String::new()));

    let allowed = "-- ripcord: allow renaming-table nothing reads it\nalter table small rename to little;";
    project.migration("001_rename.sql", allowed, "alter table little rename to small;");
    project.json(&["apply"]).expect_code(0);
    // A password in a file stops a run where it is protected, and never shows.
    project.migration("002_user.sql", "create role validate_role password 'hunter2-pw';", "drop role validate_role;");
    let ran = project.json(&["--env", "production", "apply", "--yes"]).expect_code(1);
    assert!(ran.stderr.contains("it holds a password (secret)") && !ran.stderr.contains("hunter2"), "{ran:#?}");
    project.write("ripcord.toml", "[environments.test]\n[validate.rules]\nno-such-rule = \"error\"\n");
    let ran = project.run(&["validate"]).expect_code(2);
    assert!(ran.stderr.contains("there is no rule `no-such-rule`"), "{ran:#?}");
}

#[test]
fn only_files_that_are_not_applied_are_mended() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    let up = |name: &str| format!("create table {name} (id bigint primary key, at timestamp);");
    project.migration("001_a.sql", &up("a"), "drop table a;");
    project.json(&["apply"]).expect_code(0);
    project.migration("002_b.sql", &up("b"), "drop table b;");
    let read = |name: &str| std::fs::read_to_string(project.path().join("migrations").join(name)).unwrap();
    let (first, second) = (read("001_a.sql"), read("002_b.sql"));
    let lost = project.run(&["--database-url", "postgresql://postgres@127.0.0.1:1/x", "validate", "--fix"]);
    assert_ne!(lost.code, 0, "{lost:#?}");
    assert_eq!((read("001_a.sql"), read("002_b.sql")), (first.clone(), second.clone()));

    let ran = project.run(&["validate", "--fix"]).expect_code(0);
    assert!(ran.stderr.contains("002_b.sql:2: prefer-timestamp-tz"), "{ran:#?}");
    assert_eq!(read("001_a.sql"), first);
    assert_eq!(read("002_b.sql"), second.replace("at timestamp", "at timestamptz"));
    project.json(&["apply"]).expect_code(0);
}

#[test]
fn findings_are_written_for_a_code_host() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.migration("001_a.sql", "alter table t rename to u;", "alter table u rename to t;");
    project.run(&["validate", "--format", "sarif", "-o", "found.sarif"]).expect_code(0);
    let log: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(project.path().join("found.sarif")).unwrap()).unwrap();
    let result = &log["runs"][0]["results"][0];
    assert_eq!((&result["ruleId"], &result["level"]), (&"renaming-table".into(), &"warning".into()));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "migrations/001_a.sql");
}
