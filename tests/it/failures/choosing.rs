//! Choosing which migrations are applied, and looking without touching.

use super::*;

fn five(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    for number in 1..=5 {
        project.migration(
            &format!("00{number}_t{number}.sql"),
            &format!("CREATE TABLE t{number} (id int);"),
            &format!("DROP TABLE t{number};"),
        );
    }
    project
}

fn tables(db: &Db<'_>) -> String {
    db.sql("select string_agg(relname, ' ' order by relname) from pg_class where relname ~ '^t[0-9]$'")
}

#[test]
fn only_so_many() {
    let db = Cluster::shared().database();
    let project = five(&db);
    project.json(&["apply", "--limit", "2"]).expect_code(0);
    assert_eq!(tables(&db), "t1 t2");
    project.json(&["apply", "--limit", "1"]).expect_code(0);
    assert_eq!(tables(&db), "t1 t2 t3");
    project.run(&["apply", "--limit", "0"]).expect_code(2);
    project.json(&["apply", "--limit", "100"]).expect_code(0);
    assert_eq!(db.sql("select string_agg(batch::text, ' ' order by id) from ripcord.schema_migrations"), "1 1 2 3 3");
}

#[test]
fn up_to_a_target() {
    let db = Cluster::shared().database();
    let project = five(&db);
    project.json(&["apply", "--target", "002"]).expect_code(0);
    assert_eq!(tables(&db), "t1 t2");
    project.json(&["apply", "--target", "t4"]).expect_code(0);
    assert_eq!(tables(&db), "t1 t2 t3 t4");
    let ran = project.json(&["apply", "--target", "003"]);
    assert_eq!((ran.code, ran.result()["outcome"].clone()), (0, "nothing_to_do".into()), "{ran:#?}");
    for wrong in ["009", "nonsense"] {
        let ran = project.json(&["apply", "--target", wrong]);
        assert!([1, 2].contains(&ran.code), "{ran:#?}");
        assert!(ran.result()["error"].as_str().unwrap().contains(wrong), "{ran:#?}");
        tells(&ran, "unchanged", "");
    }
    assert_eq!(tables(&db), "t1 t2 t3 t4");
}

#[test]
fn one_file() {
    let db = Cluster::shared().database();
    let project = five(&db);
    project.json(&["apply", "--file", "003_t3.sql"]).expect_code(0);
    assert_eq!(tables(&db), "t3");
    let ran = project.json(&["apply", "--file", "003_t3.sql"]);
    assert_eq!((ran.code, ran.result()["outcome"].clone()), (0, "nothing_to_do".into()), "{ran:#?}");
    let ran = project.json(&["apply", "--file", "nonsense.sql"]);
    assert!([1, 2].contains(&ran.code), "{ran:#?}");
    tells(&ran, "unchanged", "");
    project.run(&["apply", "--file", "001_t1.sql", "--target", "002"]).expect_code(2);
    project.json(&["apply"]).expect_code(0);
    assert_eq!(tables(&db), "t1 t2 t3 t4 t5");
}

#[test]
fn a_dry_run_writes_nothing() {
    let db = Cluster::shared().database();
    let project = five(&db);
    for arguments in [&["apply", "--dry-run"][..], &["plan"], &["apply", "--dry-run", "--limit", "2"]] {
        let ran = project.run(arguments).expect_code(0);
        assert!(ran.stdout.contains("CREATE TABLE t1 (id int)"), "{ran:#?}");
        assert_eq!(ran.stdout.contains("CREATE TABLE t3"), !arguments.contains(&"--limit"), "{ran:#?}");
        assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
        assert!(!project.store().exists());
        assert_eq!(tables(&db), "");
    }
    let ran = project.json(&["apply", "--dry-run"]).expect_code(0);
    assert_eq!(ran.result()["migrations"].as_array().unwrap().len(), 5, "{ran:#?}");
    assert_eq!(ran.result()["database"], "unchanged, this was a dry run");
    let output = project.command(&["apply"]).env("DRY_RUN", "true").output().unwrap();
    let ran = crate::support::cli::ran(output).expect_code(0);
    assert!(ran.stderr.contains("DRY_RUN"), "{ran:#?}");
    assert_eq!(tables(&db), "");
    // What would be refused is told by the dry run already.
    project.json(&["apply", "--limit", "1"]).expect_code(0);
    project.migration("001_t1.sql", "CREATE TABLE t1 (id bigint);", "DROP TABLE t1;");
    project.json(&["apply", "--dry-run"]).expect_code(1);
    project.migration("001_t1.sql", "CREATE TABLE t1 (id int);", "DROP TABLE t1;");
    project.migration("002_t2.sql", "CREATE TABEL t2 (id int);", "DROP TABLE t2;");
    let ran = project.json(&["apply", "--dry-run"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "invalid", "{ran:#?}");
}

#[test]
fn status_tells_scripts_whether_something_is_pending() {
    let db = Cluster::shared().database();
    let project = five(&db);
    project.run(&["status"]).expect_code(0);
    project.run(&["status", "--exit-code"]).expect_code(1);
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
    assert!(!project.store().exists());
    project.json(&["apply"]).expect_code(0);
    project.run(&["status", "--exit-code"]).expect_code(0);
    project.migration("006_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    project.run(&["status", "--exit-code"]).expect_code(1);
    project.json(&["apply"]).expect_code(1);
    let ran = project.run(&["status", "--exit-code"]).expect_code(1);
    assert!(ran.stdout.contains("1 failed"), "{ran:#?}");
    // A run that nobody has brought to its end.
    std::fs::remove_file(project.path().join("migrations/006_bad.sql")).unwrap();
    project.run(&["status", "--exit-code"]).expect_code(0);
    project.migration("006_drop.sql", "TRUNCATE t1;", "SELECT 1;").migration(
        "007_bad.sql",
        "SELECT * FROM nowhere;",
        "SELECT 1;",
    );
    project.json(&["apply", "--on-failure", "rollback"]).expect_code(4);
    std::fs::remove_file(project.path().join("migrations/007_bad.sql")).unwrap();
    let ran = project.run(&["status", "--exit-code"]).expect_code(1);
    assert!(ran.stdout.contains("ripcord recover"), "{ran:#?}");
}
