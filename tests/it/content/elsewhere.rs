//! A new, empty server: store, key and URL are all that is left.

use std::path::Path;
use std::process::Command;

use super::{assert_same, properties, scratch_databases, state};
use crate::support::{Cluster, Project};

fn copy_folder(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn filled(project: &Project) {
    project
        .migration("001_shop.sql", "CREATE TABLE orders (id int PRIMARY KEY, note text);", "DROP TABLE orders;")
        .migration(
            "002_fill.sql",
            "INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 100) AS g;",
            "DELETE FROM orders;",
        );
}

/// The store and the migrations of one project, and another server.
fn moved(project: &Project, url: &str) -> Project {
    let there = Project::with_url(url);
    copy_folder(&project.store(), &there.path().join("backups"));
    copy_folder(&project.path().join("migrations"), &there.path().join("migrations.new"));
    std::fs::remove_dir_all(there.path().join("migrations")).unwrap();
    std::fs::rename(there.path().join("migrations.new"), there.path().join("migrations")).unwrap();
    there
}

#[test]
fn a_database_comes_back_on_a_new_server() {
    let old = Cluster::start(&[]);
    let db = old.database_named("shop_of_old", "connection limit 50");
    let project = Project::new(&db);
    filled(&project);
    project.run(&["apply"]).expect_code(0);
    db.sql("alter database shop_of_old set work_mem = '7MB'");
    project.run(&["backup", "create"]).expect_code(0);
    let before = state(&old, "shop_of_old");
    let history = db.sql("select count(*) from ripcord.backup_history");
    let lineage = db.sql("select lineage from ripcord.meta").trim().to_owned();
    drop((project.run(&["status"]).expect_code(0), db));
    let store = project;
    drop(old);

    let new = Cluster::start(&[]);
    // The database of the same name is not there.
    let there = moved(&store, &new.url("shop_of_old"));
    let ran = there.json(&["restore", "latest", "--from-database", "shop_of_old"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");
    assert!(ran.result()["database"].as_str().unwrap().starts_with("`shop_of_old` restored from backup `"));
    assert_same(&before, &state(&new, "shop_of_old"), "the new server");
    let ran = there.json(&["apply"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "nothing_to_do", "{ran:#?}");
    let db = crate::support::Db { cluster: &new, name: "shop_of_old".to_owned() };
    assert_eq!(
        db.sql("select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations"),
        "001 applied, 002 applied"
    );
    assert_eq!(db.sql("select lineage from ripcord.meta"), lineage, "it goes on being the same database");
    // The backup's own row was written after its snapshot: the manifest knows all the others.
    assert!(db.sql("select count(*) from ripcord.backup_history") <= history);
    assert_ne!(db.sql("select count(*) from ripcord.backup_history"), "0");
    there.json(&["backup", "create"]).expect_code(0);

    // A database of another name, which is there and empty.
    new.database_named("shop_of_new", "");
    let there = moved(&store, &new.url("shop_of_new"));
    let ran = there.json(&["restore", "latest", "--from-database", "shop_of_old"]);
    assert_eq!(ran.code, 7, "nobody said its name: {ran:#?}");
    let ran =
        there.json(&["restore", "latest", "--from-database", "shop_of_old", "--confirm", "shop_of_new"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");
    assert_same(&before, &state(&new, "shop_of_new"), "the empty database");
    let ran = there.json(&["apply"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "nothing_to_do", "{ran:#?}");
    assert_eq!(scratch_databases(&new), "");
}

#[test]
fn a_role_that_the_new_server_lacks_is_told_and_nothing_is_left() {
    let old = Cluster::shared();
    old.sql("postgres", "create role only_here login createdb password 'pw'; create role grantee_here");
    let db = old.database_named("roles_here", "owner only_here");
    db.sql("set session authorization only_here; create table t (i int); grant select on t to grantee_here");
    let project = Project::with_url(&old.url_as("only_here", "pw", "roles_here"));
    project.run(&["backup", "create"]).expect_code(0);

    let new = Cluster::start(&[]);
    let there = moved(&project, &new.url("roles_here"));
    let ran = there.json(&["restore", "latest", "--from-database", "roles_here"]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("only_here"), "{ran:#?}");
    assert_eq!(
        new.sql("postgres", "select string_agg(datname, ' ' order by datname::text) from pg_database"),
        "postgres template0 template1"
    );

    new.sql("postgres", "create role only_here login createdb password 'pw'; create role grantee_here");
    there.json(&["restore", "latest", "--from-database", "roles_here"]).expect_code(0);
    assert_same(&state(old, "roles_here"), &state(&new, "roles_here"), "with the roles");
    assert_eq!(properties(old, "roles_here"), properties(&new, "roles_here"));
}
