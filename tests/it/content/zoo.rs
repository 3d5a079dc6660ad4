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

/// What a restored copy shows differently in its first dump though it is the same, and why.
const BENIGN: [(&str, &str); 2] = [
    ("tab.adopted", "a table that inherits since an ALTER TABLE comes back with the inherited columns first"),
    (
        "'x'::text AS text,",
        "a column in a function's body that had no name has that of its cast once it was written so",
    ),
];

/// Takes the differences of the list out of what is compared; the rows of that table are compared by themselves.
fn without_benign(cluster: &Cluster, database: &str) -> State {
    let mut state = state(cluster, database);
    let [(table, _), (named, _)] = BENIGN;
    let begin = state.schema.iter().position(|line| *line == format!("CREATE TABLE {table} (")).unwrap();
    let end = begin + state.schema[begin..].iter().position(|line| line.starts_with(')')).unwrap();
    state.schema[begin..end].sort();
    let unnamed = named.replace(" AS text", "");
    for line in state.schema.iter_mut().filter(|line| line.trim() == named) {
        *line = line.replace(named, &unnamed);
    }
    let digest = cluster.sql(database, &format!("select md5('{table}')"));
    let whole = state.rows.len();
    state.rows.retain(|line| !line.starts_with(&digest));
    assert_eq!(state.rows.len(), whole - 1);
    state.rows.push(cluster.sql(database, &format!("select x, note, a from only {table}")));
    state
}

fn comes_back_on(bin: &Path) {
    let cluster = prepared(bin);
    let db = filled(&cluster, "zoo", "");
    let before = without_benign(&cluster, "zoo");
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
        let copy = format!("zoo_{jobs}");
        project.json(&["restore", &id, "--into", &copy, "--jobs", jobs]).expect_code(0);
        assert_same(&before, &without_benign(&cluster, &copy), jobs);
        if jobs == "4" {
            // The drill digests every row under the key of the backup.
            let drilled = project.json(&["drill", &id]).expect_code(0).items()[0].clone();
            assert_eq!(drilled["good"], true);
            let benign = drilled["proof"]["benign"].to_string();
            assert!(benign.contains("TABLE tab.adopted") && benign.contains("code.f_setof"), "{benign}");
            // A dump of the copy holds the same rows, but for those that a restore puts into another partition: the hash
            // of an enum's value is that of its oid.
            let again = self::project(&Db { cluster: &cluster, name: copy });
            let second = show(&again, &again.backup(&["--jobs", jobs]));
            let settled = |sealed: &serde_json::Value| -> Vec<String> {
                tables(sealed).into_iter().filter(|table| !table.contains("tab.by_hash_")).collect()
            };
            assert_eq!(settled(&second), settled(&one), "the copy");
        }
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

/// The dump of one version on a server of a newer one: the restore proves it, and the drill digests every row. The
/// other way round it is refused before anything is made, and the backup is not called damaged for it.
#[test]
fn an_older_servers_backup_comes_back_on_a_newer_one() {
    let (old, new) = (programs_folder(), programs_of(18));
    assert!(major_of(&old) < major_of(&new), "an older server than 18 is needed: set RIPCORD_TEST_PG_BIN");
    let (from, to) = (prepared(&old), prepared(&new));
    let db = filled(&from, "zoo", "");
    // What the newer server's build may lack: ICU, XML, extensions.
    db.sql(
        "set client_min_messages = error; drop table if exists rest.uses_ext, types.sorted, code.xmls;
         drop view if exists code.v_xml, code.v_xmltable; drop collation if exists types.caseless, types.german",
    );
    for extension in db.sql("select quote_ident(extname) from pg_extension where extname <> 'plpgsql'").lines() {
        db.sql(&format!("set client_min_messages = error; drop extension if exists {extension} cascade"));
    }
    let both = |project: &Project| {
        project.configure(&format!("pg_bin = [\"{}\", \"{}\"]", old.display(), new.display()));
    };
    let project = Project::new(&db);
    both(&project);
    let id = project.backup(&["--jobs", "2"]);
    let before = state(&from, "zoo");
    let drilled = project.json(&["drill", &id, "--server", &to.url("postgres"), "--keep"]).expect_code(0);
    let item = drilled.items()[0].clone();
    assert_eq!(item["good"], true);
    assert!(item["proof"]["benign"].to_string().contains("written by another version"), "{item}");
    let after = state(&to, item["kept"].as_str().unwrap());
    let settled = |rows: &[String]| -> Vec<String> {
        let adopted = from.sql("postgres", "select md5('tab.adopted')");
        rows.iter().filter(|row| !row.starts_with(&adopted)).cloned().collect()
    };
    assert_eq!(settled(&after.rows), settled(&before.rows));
    assert_eq!(after.sequences, before.sequences);
    assert_eq!(after.large_objects, before.large_objects);

    let newer = to.database_named("small", "");
    newer.sql("create table t (i int)");
    let project = Project::new(&newer);
    both(&project);
    let id = project.backup(&[]);
    let ran = project.json(&["drill", &id, "--server", &from.url("postgres")]).expect_code(2);
    assert!(ran.stderr.contains("is of PostgreSQL 18, and the server is PostgreSQL"), "{ran:#?}");
    let item = project.json(&["backup", "show", &id]).items()[0].clone();
    assert!(item["error"].is_null() && item["status"] == "verified", "{item}");
}
