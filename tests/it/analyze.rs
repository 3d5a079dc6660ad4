//! `analyze`: what one migration would do, on real tables, with nothing changed.

use serde_json::Value;

use super::support::{Cluster, Project};

const TABLES: &str = "
    create table big (id bigint primary key, note text);
    insert into big select g, 'x' from generate_series(1, 3000) g;
    create table small (id bigint primary key, big_id bigint references big);
    create index small_big on small (big_id);
    create function noise() returns trigger language plpgsql as 'begin return new; end';
    create trigger loud after update on big for each row execute function noise();
    analyze;
";

fn analyzed(project: &Project, migration: &str) -> Value {
    let ran = project.json(&["analyze", migration]).expect_code(0);
    let mut items = ran.items();
    assert_eq!(items.len(), 1);
    items.remove(0)
}

/// `table mode rows` of each lock of a statement.
fn locks(item: &Value, statement: usize) -> Vec<String> {
    let locks = item["statements"][statement]["locks"].as_array().unwrap();
    let text = |lock: &Value, key: &str| lock[key].as_str().unwrap().to_owned();
    locks.iter().map(|lock| [text(lock, "table"), text(lock, "mode"), text(lock, "rows")].join(" ")).collect()
}

#[test]
fn what_a_pending_migration_would_do_is_told_and_nothing_is_changed() {
    let db = Cluster::shared().database();
    db.sql(TABLES);
    let project = Project::new(&db);
    project.configure("[validate]\nlarge_table_rows = 1000\n");
    let up = "-- ripcord: lock-timeout 2s\n\
        ALTER TABLE big ADD COLUMN seen timestamptz DEFAULT clock_timestamp();\n\
        CREATE TABLE new (id bigint PRIMARY KEY, big_id bigint REFERENCES big);\n\
        ALTER TABLE new ADD COLUMN note text;\n\
        UPDATE big SET note = 'y';\n\
        DROP INDEX small_big;\n\
        DROP TABLE small;\n\
        DO $$ BEGIN PERFORM 1; END $$;";
    project.migration("001_all.sql", up, "DROP TABLE new;");
    let before = db.schema();
    let item = analyzed(&project, "001");
    assert_eq!(
        (&item["state"], &item["no_transaction"], &item["not_asked"]),
        (&"pending".into(), &Value::Null, &Value::Null)
    );
    assert_eq!(locks(&item, 0), ["big AccessExclusiveLock written anew"]);
    assert_eq!(item["statements"][0]["locks"][0]["keeps_out"], "readers and writers");
    assert_eq!(locks(&item, 1), ["big ShareRowExclusiveLock untouched"]);
    assert_eq!(item["statements"][2]["locks"][0]["made_here"], true);
    assert_eq!(locks(&item, 3), ["big RowExclusiveLock by plan"]);
    assert_eq!(item["statements"][3]["not_known"][0], "what the trigger `loud` of `big` does and locks");
    assert_eq!(item["statements"][3]["destroys"], "updates `big`");
    assert_eq!(locks(&item, 4), ["public.small AccessExclusiveLock untouched"]);
    assert_eq!(locks(&item, 5), ["small AccessExclusiveLock emptied", "public.big AccessExclusiveLock untouched"]);
    assert!(item["statements"][6]["not_known"][0].as_str().unwrap().starts_with("a DO block"), "{item:#}");
    let big = item["tables"].as_array().unwrap().iter().find(|table| table["table"] == "big").unwrap();
    assert_eq!(big["rows"], 3000);
    assert!(item["settings"][0].as_str().unwrap().contains("2s, as the file says"), "{item:#}");
    assert_eq!(item["way_back"]["by"], "backup");
    let rules: Vec<&str> =
        item["findings"].as_array().unwrap().iter().map(|finding| finding["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"large-table") && rules.contains(&"destructive"), "{rules:?}");

    let ran = project.run(&["analyze", "all"]).expect_code(0);
    for line in [
        "`001_all.sql`: pending",
        "line 3: ALTER TABLE big ADD COLUMN seen …",
        "(about 3000 rows in ",
        "keeps out readers and writers; writes the table anew, with its indexes",
        "  locks no table that is there",
        "  DESTROYS: it drops table `small`",
        "the way back: the backup alone, for no DOWN brings back what it destroys: line 6 updates `big`",
        "large-table",
    ] {
        assert!(ran.stdout.contains(line), "{line}\n{ran:#?}");
    }
    assert!(ran.stderr.ends_with("hint: measure it on a copy: ripcord rehearse\n"), "{ran:#?}");
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select coalesce(to_regnamespace('ripcord')::text, 'none')"), "none");
    assert!(!project.store().exists(), "nothing is stored");
}

#[test]
fn what_was_measured_comes_from_the_history() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.migration("001_a.sql", "create table a (id int primary key);", "drop table a;");
    project.json(&["apply"]).expect_code(0);
    let took = db.sql("select execution_time_ms from ripcord.schema_migrations");
    let item = analyzed(&project, "001_a.sql");
    assert_eq!((&item["state"], &item["hint"]), (&"applied".into(), &Value::Null));
    assert_eq!(item["ran"][0]["duration_ms"].to_string(), took);
    assert_eq!(item["way_back"]["by"], "down");
    assert!(item["way_back"]["why"].as_str().unwrap().contains("it only adds"), "{item:#}");

    project.json(&["rollback"]).expect_code(0);
    let item = analyzed(&project, "001");
    assert_eq!((&item["state"], &item["ran"][0]["state"]), (&"pending".into(), &"rolled_back".into()));
    project.json(&["apply"]).expect_code(0);
    assert_eq!(analyzed(&project, "001")["ran"].as_array().unwrap().len(), 2);

    project.migration("002_b.sql", "create table b (id int);\nselect 1 / 0;", "drop table b;");
    project.json(&["apply"]).expect_code(1);
    let item = analyzed(&project, "002");
    assert_eq!(item["state"], "pending, and failed before");
    assert!(item["ran"][0]["error"].as_str().unwrap().contains("division by zero"), "{item:#}");
    project.migration("001_a.sql", "create table a (id bigint primary key);", "drop table a;");
    assert_eq!(analyzed(&project, "001")["state"], "changed after it was applied");
    project.migration("003_c.sql", "-- ripcord: env staging\nselect 1;", "select 1;");
    assert!(analyzed(&project, "003")["state"].as_str().unwrap().contains("does not run here"));
}

#[test]
fn without_a_database_the_file_is_told_and_the_rest_is_said_to_be_missing() {
    let project = Project::with_url("postgresql://postgres@127.0.0.1:1/nowhere");
    project.migration("001_a.sql", "create index concurrently i on t (a);\nupdate t set a = 1;", "drop index i;");
    project.migration("002_b.sql", "-- ripcord: batch size=10\nupdate t set b = a where b is null;", "");
    let item = analyzed(&project, "a");
    assert_eq!(item["state"], "not known whether it is applied");
    assert!(item["not_asked"].as_str().is_some(), "{item:#}");
    assert!(item["no_transaction"].as_str().unwrap().contains("cannot run inside a transaction"), "{item:#}");
    assert_eq!(locks(&item, 0), ["t ShareUpdateExclusiveLock read"]);
    assert_eq!(item["statements"][1]["not_known"][0], "what its triggers lock, where there are any");
    let ran = project.run(&["analyze", "002"]).expect_code(0);
    assert!(ran.stderr.contains("warning: the database was not asked"), "{ran:#?}");
    assert!(ran.stdout.contains("in rounds of 10 rows, each committed by itself"), "{ran:#?}");
    assert!(!ran.stdout.contains("not there yet"), "{ran:#?}");
}

#[test]
fn a_name_that_means_none_is_a_usage_error_with_those_near() {
    let project = Project::with_url("postgresql://postgres@127.0.0.1:1/nowhere");
    project.migration("001_orders.sql", "select 1;", "select 1;");
    let ran = project.run(&["analyze", "order"]).expect_code(2);
    assert!(
        ran.stderr.contains("no migration is called `order`") && ran.stderr.contains("near: `001_orders`"),
        "{ran:#?}"
    );
    project.run(&["analyze"]).expect_code(2);
}
