//! Every kind of object that pg_dump knows, in one database, on every version that is supported: dump, restore,
//! dump, and nothing is another. The SQL is in `tests/it/zoo`.

use std::path::Path;

use super::{State, assert_same, state};
use crate::support::cluster::{major_of, programs_folder, programs_of};
use crate::support::{Cluster, Db, Project};

/// What every version has, in this order.
const FILES: [&str; 6] = ["10-types", "20-tables", "30-code", "40-rest", "50-names", "60-data"];

/// What came with a version.
const SINCE: [(u32, &str); 3] = [(16, "since-16"), (17, "since-17"), (18, "since-18")];

/// Server settings that the zoo needs: many objects are locked at once.
const SETTINGS: &[&str] = &["max_locks_per_transaction = 256", "max_logical_replication_workers = 0"];

fn sql(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/zoo").join(format!("{file}.sql"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn prepared(bin: &Path) -> Cluster {
    let cluster = Cluster::start_with(bin, SETTINGS);
    cluster.sql("postgres", &sql("01-roles"));
    cluster
}

/// A database with all of it.
fn filled<'a>(cluster: &'a Cluster, name: &str, options: &str) -> Db<'a> {
    let db = cluster.database_named(name, options);
    let version = major_of(cluster.bin());
    let since = SINCE.iter().filter(|(major, _)| *major <= version).map(|(_, file)| *file);
    for file in FILES.into_iter().chain(since) {
        let text = format!("set client_min_messages = error;\n{}", sql(file));
        cluster.try_sql(name, &text).unwrap_or_else(|error| panic!("{file}.sql on {version}: {error}"));
    }
    db
}

fn project(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project.configure(&format!("pg_bin = [\"{}\"]", db.cluster.bin().display()));
    project
}

fn show(project: &Project, id: &str) -> serde_json::Value {
    project.json(&["backup", "show", id]).expect_code(0).items()[0]["sealed"].clone()
}

fn tables(sealed: &serde_json::Value) -> Vec<String> {
    let mut tables: Vec<String> =
        sealed["tables"].as_array().unwrap().iter().map(serde_json::Value::to_string).collect();
    tables.sort();
    tables
}

/// Differences between a database and its restored copy that mean nothing: the file, what the line holds, and why.
const BENIGN: [(&str, &str); 0] = [];

fn without_benign(mut state: State) -> State {
    state.schema.retain(|line| !BENIGN.iter().any(|(part, _)| line.contains(part)));
    state
}

fn comes_back_on(bin: &Path) {
    let cluster = prepared(bin);
    let db = filled(&cluster, "zoo", "");
    let before = without_benign(state(&cluster, "zoo"));
    assert!(before.rows.len() > 100 && before.schema.len() > 3000 && before.large_objects.len() > 1500);
    let project = project(&db);
    let one = show(&project, &project.backup(&[]));
    for jobs in ["1", "2", "4"] {
        let id = project.backup(&["--jobs", jobs]);
        let sealed = show(&project, &id);
        assert_eq!(sealed["streams"].as_array().unwrap().len().to_string(), jobs);
        for part in ["fingerprint", "sequences", "large_objects", "extensions"] {
            assert_eq!(sealed[part], one[part], "{jobs}: {part}");
        }
        assert_eq!(tables(&sealed), tables(&one), "{jobs}");
        let drilled = project.json(&["drill", &id]).expect_code(0).items()[0].clone();
        assert_eq!(drilled["good"], true);
        println!("{jobs}: benign {}", drilled["proof"]["benign"]);
        let copy = format!("zoo_{jobs}");
        project.json(&["restore", &id, "--into", &copy, "--jobs", jobs]).expect_code(0);
        assert_same(&before, &without_benign(state(&cluster, &copy)), jobs);
        // A dump of the copy has the same objects as that of the original.
        let again = self::project(&Db { cluster: &cluster, name: copy.clone() });
        let second = show(&again, &again.backup(&["--jobs", jobs]));
        assert_eq!(tables(&second), tables(&one), "{jobs}: the copy");
    }
}

#[test]
fn all_of_it_comes_back_on_the_systems_server() {
    comes_back_on(&programs_folder());
}

#[test]
fn all_of_it_comes_back_on_16() {
    comes_back_on(&programs_of(16));
}

#[test]
fn all_of_it_comes_back_on_18() {
    comes_back_on(&programs_of(18));
}
