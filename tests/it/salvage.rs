//! Rows that only a database kept aside has.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Cluster, Db, Project};

/// A run that failed after others had written, and was restored all the same.
fn given_up(db: &Db<'_>) -> (Project, String) {
    db.sql(
        "create table users (id serial primary key, name text, double int generated always as (length(name)) stored);
         create table \"Odd \"\"table\" (\"a b\" text, n numeric);
         create table orders (id int primary key, user_id int references users, note text, raw bytea, at timestamptz);
         insert into users (name) values ('one'), ('two'), ('three');
         insert into \"Odd \"\"table\" values ('x', 1.50), ('x', 1.50);
         insert into orders values (1, 1, 'first', '\\x00ff', '2024-01-01 10:00+02'), (2, 2, null, null, null);",
    );
    let project = Project::new(db);
    let write = project.path().join("write.sql");
    std::fs::write(
        &write,
        "insert into users (name) values (E'it''s\\n\\\\ \"four\"');
         insert into orders values (3, 4, '', '\\xdeadbeef', '2024-05-05 05:05:05.123456+00'), (4, 1, null, null, null);
         update orders set note = 'changed' where id = 1;
         delete from orders where id = 2;
         insert into \"Odd \"\"table\" values ('x', 1.50), (null, 7);",
    )
    .unwrap();
    let psql = db.cluster.bin().join("psql");
    project.configure(&format!(
        "[hooks]\nafter_backup = [\"{} -qX -v ON_ERROR_STOP=1 {} -f {}\"]\n",
        psql.display(),
        db.url(),
        write.display()
    ));
    project
        .migration("001_extra.sql", "CREATE TABLE extra (id int); INSERT INTO extra VALUES (1);", "DROP TABLE extra;")
        .migration("002_gone.sql", "DELETE FROM users WHERE name = 'three';", "SELECT 1;")
        .migration("003_bad.sql", "SELECT 1 / (id - 1) FROM orders;", "SELECT 1;");
    let ran = project.run(&["apply", "--writes", "accept-loss"]).expect_code(3);
    let hint = ran.stderr.lines().find(|line| line.contains("ripcord salvage")).unwrap_or_else(|| panic!("{ran:#?}"));
    let from = hint.split("--from ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(db.sql("select count(*) from users"), "3");
    std::fs::remove_file(&write).unwrap();
    (project, from)
}

fn rows(db: &Db<'_>) -> String {
    db.sql("select string_agg(u::text, ' ' order by id) from users u")
        + &db.sql("select string_agg(o::text, ' ' order by id) from orders o")
        + &db.sql("select string_agg(t::text, ' ' order by t::text) from \"Odd \"\"table\" t")
}

#[test]
fn rows_are_written_as_sql_that_brings_them_back() {
    let db = Cluster::shared().database();
    let (project, from) = given_up(&db);
    let before = rows(&db);

    let ran = project.json(&["salvage", "--from", &from, "-o", "rows.sql"]).expect_code(0);

    let found = &ran.items()[0];
    assert_eq!((&found["missing"], &found["conflicts"]), (&6.into(), &1.into()), "{ran:#?}");
    assert_eq!(rows(&db), before, "nothing is written to the database");
    let path = project.path().join("rows.sql");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let sql = std::fs::read_to_string(&path).unwrap();
    let conflict =
        sql.lines().position(|line| line.starts_with("-- conflict: ") && line.contains("'changed'")).unwrap();
    assert!(sql.lines().nth(conflict + 1).unwrap().starts_with("--   in target: "), "{sql}");
    assert!(sql.contains("-- public.extra: the target has no such table"), "{sql}");

    db.sql(&sql);
    assert_eq!(db.sql("select name || length(name) from users where id = 4"), "it's\n\\ \"four\"13");
    assert_eq!(
        db.sql("select string_agg(concat_ws('|', id, note, raw, at at time zone 'UTC'), ' ' order by id) from orders"),
        "1|first|\\x00ff|2024-01-01 08:00:00 2 3||\\xdeadbeef|2024-05-05 05:05:05.123456 4"
    );
    assert_eq!(db.sql("select count(*), sum(n) from \"Odd \"\"table\""), "4|11.50");
    assert_eq!(db.sql("insert into users (name) values ('five') returning id"), "5", "the sequence went on");

    // What was brought back is missing no more; the conflict and the run's own rows stay.
    let ran = project.json(&["salvage", "-o", "again.sql"]).expect_code(0);
    let found = &ran.items()[0];
    assert_eq!((&found["missing"], &found["conflicts"]), (&1.into(), &1.into()), "{ran:#?}");
}

#[test]
fn rows_are_written_as_csv() {
    let db = Cluster::shared().database();
    let (project, _) = given_up(&db);
    let ran = project.run(&["salvage", "--format", "csv", "-o", "rows.csv"]).expect_code(0);
    assert!(ran.stdout.contains("public.orders: 2 missing, 1 conflicts, 1 only in the target"), "{ran:#?}");
    let csv = std::fs::read_to_string(project.path().join("rows.csv")).unwrap();
    assert!(csv.contains("salvage,table,id,user_id,note,raw,at\n"), "{csv}");
    assert!(csv.contains("missing,public.orders,3,4,\"\",\"\\xdeadbeef\",2024-05-05 05:05:05.123456+00\n"), "{csv}");
    assert!(csv.contains("missing,public.orders,4,1,,,\n"), "{csv}");
    assert!(
        csv.contains(
            "conflict,public.orders,1,1,changed,\"\\x00ff\",2024-01-01 08:00:00+00\nin target,public.orders,1,1,first,"
        ),
        "{csv}"
    );
}

#[test]
fn a_file_that_is_there_and_a_database_that_is_not_are_told_before_anything_is_read() {
    let db = Cluster::shared().database();
    let (project, from) = given_up(&db);
    project.write("rows.sql", "mine");
    let ran = project.run(&["salvage", "-o", "rows.sql"]).expect_code(2);
    assert!(ran.stderr.contains("`rows.sql` is there already"), "{ran:#?}");
    let ran = project.run(&["salvage", "--from", "postgres", "-o", "other.sql"]).expect_code(2);
    assert!(ran.stderr.contains("no swap of this database has kept a `postgres`"), "{ran:#?}");
    assert!(ran.stderr.contains("ripcord aside list"), "{ran:#?}");
    project.run(&["aside", "drop", &from]).expect_code(0);
    let ran = project.run(&["salvage", "-o", "other.sql"]).expect_code(2);
    assert!(ran.stderr.contains("no swap has kept a database of this one"), "{ran:#?}");
    assert_eq!(std::fs::read_to_string(project.path().join("rows.sql")).unwrap(), "mine");
    let left: Vec<_> = std::fs::read_dir(project.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("other") || name.contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
