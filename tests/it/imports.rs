//! `backup import` on real servers: what pg_dump wrote becomes a backup that can be restored.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exports::RICH;
use crate::support::{Cluster, Db, Project};
use crate::tables::{every_version, with_programs};

/// A dump in a format, as `pg_dump` writes it by default: compressed, with everything.
fn dump(db: &Db<'_>, folder: &Path, format: &str, more: &[&str]) -> PathBuf {
    let file = folder.join(format!("shop.{format}"));
    let (letter, gzip) = match format {
        "custom" => ("c", false),
        "directory" => ("d", false),
        "tar" => ("t", false),
        "sql.gz" => ("p", true),
        _ => ("p", false),
    };
    let output = Command::new(db.cluster.bin().join("pg_dump"))
        .args(["-F", letter, "-f"])
        .arg(&file)
        .arg("-h")
        .arg(db.cluster.socket())
        .args(["-p", &db.cluster.port().to_string(), "-U", "postgres", "-d", &db.name])
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if gzip {
        let plain = std::fs::read(&file).unwrap();
        let mut packed =
            flate2::write::GzEncoder::new(std::fs::File::create(&file).unwrap(), flate2::Compression::fast());
        packed.write_all(&plain).unwrap();
        packed.finish().unwrap();
    }
    file
}

/// Everything that a dump of the database says, whatever the database's name.
fn all_of(cluster: &Cluster, name: &str) -> String {
    let output = Command::new(cluster.bin().join("pg_dump"))
        .args(["-N", "ripcord", "-h"])
        .arg(cluster.socket())
        .args(["-p", &cluster.port().to_string(), "-U", "postgres", "-d", name, "--restrict-key=k"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn nothing_is_left(db: &Db<'_>) {
    let like = format!("%for an import into {};%", db.name);
    let scratch = format!("select count(*) from pg_database where shobj_description(oid, 'pg_database') like '{like}'");
    assert_eq!(db.sql(&scratch), "0");
}

fn imports(programs: &Path, formats: &[&str]) {
    let cluster = Cluster::start_with(programs, &[]);
    let db = cluster.database();
    let project = with_programs(Project::new(&db), programs);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    db.sql(RICH);
    let real = project.backup(&[]);
    let then = all_of(&cluster, &db.name);
    let files: Vec<PathBuf> = formats.iter().map(|format| dump(&db, project.path(), format, &[])).collect();
    db.sql("drop table few cascade; update many set note = 'later'; select lo_unlink(70001)");
    let now = all_of(&cluster, &db.name);

    for (format, file) in formats.iter().zip(&files) {
        let ran = project.json(&["backup", "import", file.to_str().unwrap(), "--tag", "old"]).expect_code(0);

        let result = ran.result();
        assert_eq!(result["outcome"], "done", "{format}");
        assert_eq!(result["proof"]["format"], format.replace('.', "-").as_str());
        assert_eq!(result["proof"]["applied"], 2, "{format}: the dump knows what was applied");
        let id = result["backup_id"].as_str().unwrap().to_owned();
        let into = format!("again_{}", format.replace('.', "_"));
        project.run(&["restore", &id, "--into", &into]).expect_code(0);
        assert!(all_of(&cluster, &into) == then, "{format}: what came back is what was dumped");
        let items = project.json(&["backup", "list"]).expect_code(0).items();
        let item = items.iter().find(|item| item["id"] == id.as_str()).unwrap();
        assert_eq!((&item["purpose"], &item["database"]), (&"manual".into(), &db.name.as_str().into()));
        assert_eq!(item["tags"].as_array().unwrap().len(), 2, "{item:#}");
        assert!(item["keep_reason"].as_str().unwrap().starts_with("imported"), "{item:#}");
    }
    // What was imported last is not what `latest` means, and takes no place from what is.
    let shown = project.json(&["restore", "latest", "--dry-run"]).expect_code(0).result();
    assert_eq!(shown["backup_id"], real.as_str());
    assert_eq!(all_of(&cluster, &db.name), now, "the target is not touched");
    nothing_is_left(&db);
}

#[test]
fn every_format_of_pg_dump_becomes_a_backup() {
    let programs = every_version();
    imports(&programs[0], &["custom", "directory", "tar", "sql", "sql.gz"]);
}

#[test]
fn dumps_of_other_versions_too() {
    for programs in &every_version()[1..] {
        imports(programs, &["custom", "sql"]);
    }
}

#[test]
fn a_script_that_drops_and_makes_its_database_does_not_touch_the_living_one() {
    let db = Cluster::shared().database();
    db.sql("create table t (id int); insert into t values (1), (2)");
    let project = Project::new(&db);
    let file = dump(&db, project.path(), "sql", &["--create", "--clean", "--if-exists"]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("DROP DATABASE IF EXISTS") && text.contains("\\connect"), "{text}");
    db.sql("insert into t values (3)");
    let oid = db.sql("select oid from pg_database where datname = current_database()");

    let ran = project.run(&["backup", "import", file.to_str().unwrap()]).expect_code(0);

    assert!(ran.stderr.contains("left out of the script: the database's own properties"), "{ran:#?}");
    assert_eq!(db.sql("select oid from pg_database where datname = current_database()"), oid);
    assert_eq!(db.sql("select count(*) from t"), "3");
    let id = ran.stdout.trim().to_owned();
    let into = format!("{}_look", db.name);
    project.run(&["restore", &id, "--into", &into]).expect_code(0);
    assert_eq!(db.cluster.sql(&into, "select count(*) from t"), "2");
    // Nobody can know what a restore of it would lose, so it says so; a person decides.
    let dry = project.run(&["restore", &id, "--dry-run"]).expect_code(0);
    assert!(dry.stderr.contains("the backup was imported"), "{dry:#?}");
    project.run(&["restore", &id, "--confirm", &db.name, "--writes", "refuse"]).expect_code(7);
    assert_eq!(db.sql("select count(*) from t"), "3");
    let none = project.run(&["restore", "latest"]).expect_code(1);
    assert!(none.stderr.contains("no verified backup"), "{none:#?}");
    project.run(&["backup", "create", "--tag", "imported"]).expect_code(2);
    nothing_is_left(&db);
}

#[test]
fn roles_that_are_not_there_are_told_and_may_be_left_out() {
    let db = Cluster::shared().database();
    db.sql("create role import_gone; create table t (id int); alter table t owner to import_gone; grant select on t to import_gone; insert into t values (1)");
    let project = Project::new(&db);
    let files: Vec<PathBuf> = ["custom", "sql"].iter().map(|format| dump(&db, project.path(), format, &[])).collect();
    db.sql("drop table t; drop role import_gone");
    for file in files {
        let file = file.to_str().unwrap();
        let ran = project.run(&["backup", "import", file]).expect_code(1);
        assert!(ran.stderr.contains("role \"import_gone\" does not exist"), "{ran:#?}");
        let ran = ran.expect_end("unchanged", "--no-owner");
        assert!(ran.stdout.is_empty(), "{ran:#?}");
        let id = project.run(&["backup", "import", file, "--no-owner"]).expect_code(0).stdout.trim().to_owned();
        let into = format!("{}_{}", db.name, file.rsplit('.').next().unwrap());
        project.run(&["restore", &id, "--into", &into]).expect_code(0);
        assert_eq!(
            db.cluster.sql(
                &into,
                "select count(*) || ' ' || pg_get_userbyid((select relowner from pg_class where relname = 't')) from t"
            ),
            "1 postgres"
        );
    }
    nothing_is_left(&db);
}

#[test]
fn what_is_no_whole_dump_leaves_nothing_behind() {
    let db = Cluster::shared().database();
    db.sql(
        "create table t (id int primary key, v text); insert into t select g, 'v' || g from generate_series(1, 5000) g",
    );
    let project = Project::new(&db);
    let whole = std::fs::read(dump(&db, project.path(), "sql", &[])).unwrap();
    let custom = std::fs::read(dump(&db, project.path(), "custom", &[])).unwrap();
    project.write("cut.sql", &String::from_utf8_lossy(&whole[..whole.len() / 2]));
    std::fs::write(project.path().join("cut.dump"), &custom[..custom.len() / 2]).unwrap();
    project.write("roles.sql", "SELECT 1;\nCREATE ROLE import_role;\n");
    project.write("psql.sql", "SELECT 1;\n\\i other.sql\n");
    project.write("wrong.sql", "CREATE TABLE a (id int);\nCOPY a FROM stdin;\n1\nnumber\n\\.\n");
    std::fs::write(project.path().join("x.zst"), b"\x28\xb5\x2f\xfd\x04\x00\x00").unwrap();
    let before = db.sql("select oid from pg_database where datname = current_database()");
    for (file, code, told) in [
        ("cut.sql", 1, "within the rows of a table"),
        ("cut.dump", 1, "the dump could not be loaded"),
        ("roles.sql", 7, "line 2 is not run: it makes or changes roles"),
        ("psql.sql", 1, "line 2: `\\i`"),
        ("wrong.sql", 1, "the rows after line 2 could not be loaded"),
        ("x.zst", 2, "is no dump that is known here"),
        ("nowhere.sql", 2, "cannot be read"),
    ] {
        let ran = project.run(&["backup", "import", file]).expect_code(code);
        assert!(ran.stderr.contains(told), "{file}: {ran:#?}");
        assert!(ran.stderr.contains("database: unchanged"), "{file}: {ran:#?}");
    }
    let kept = project.json(&["backup", "list"]).expect_code(0).items();
    assert!(kept.iter().all(|item| item["status"] == "failed"), "{kept:#?}");
    assert_eq!(db.sql("select oid from pg_database where datname = current_database()"), before);
    assert_eq!(db.sql("select count(*) from pg_roles where rolname = 'import_role'"), "0");
    nothing_is_left(&db);
}
