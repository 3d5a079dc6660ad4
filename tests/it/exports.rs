//! `backup export` on real servers: files that stock tools take, and that nobody gets half of.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{Cluster, Db, Project};
use crate::tables::{every_version, find, with_programs};

pub const RICH: &str = "
    create table many (id serial primary key, at timestamptz default now(), b bytea, note text);
    insert into many (b, note) select decode(md5(g::text), 'hex'), repeat(md5(g::text), 20) from generate_series(1, 6000) g;
    create index on many (note); create table few (a int references many (id), t text default E'it''s\\n\\\\.');
    insert into few values (1, E'\\\\.'), (2, E'line\\nother\\ttab'), (3, null); create view seen as select * from few;
    create materialized view counted as select count(*) from many; create sequence sq; select setval('sq', 7);
    create function f() returns int language plpgsql as $f$ begin return 1; end $f$; comment on table few is 'few';
    select lo_from_bytea(70001, '\\x00ff01'), lo_from_bytea(70002, '');
    create table parts (id int) partition by range (id); create table parts_1 partition of parts for values from (0) to (9);
    insert into parts values (1), (2);";

/// What pg_dump writes, without our schema.
pub fn dumped(db: &Db<'_>, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(db.cluster.bin().join("pg_dump"))
        .args(["-N", "ripcord", "-h"])
        .arg(db.cluster.socket())
        .args(["-p", &db.cluster.port().to_string(), "-U", "postgres", "-d", &db.name])
        .args(arguments)
        .env("PGTZ", "UTC")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn restored(cluster: &Cluster, name: &str, file: &Path, jobs: &str) {
    cluster.sql("postgres", &format!("create database {name} template template0"));
    let output = Command::new(cluster.bin().join("pg_restore"))
        .args(["--exit-on-error", jobs, "-h"])
        .arg(cluster.socket())
        .args(["-p", &cluster.port().to_string(), "-U", "postgres", "-d", name])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_custom_file_is_the_one_that_pg_dump_writes_and_pg_restore_takes_it_with_jobs() {
    for programs in every_version() {
        let cluster = Cluster::start_with(&programs, &[]);
        let db = cluster.database();
        db.sql(RICH);
        let project = with_programs(Project::new(&db), &programs);
        let id = project.backup(&[]);
        let file = project.path().join("shop.dump");

        let ran = project.json(&["backup", "export", "latest", "--format", "custom", "-o", "shop.dump"]).expect_code(0);

        let result = ran.result();
        assert_eq!((result["outcome"].as_str(), result["backup_id"].as_str()), (Some("done"), Some(&*id)));
        let ours = std::fs::read(&file).unwrap();
        assert_eq!(result["proof"]["bytes"], ours.len());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // Into a file, pg_dump notes where each block begins; but for the time in its header, ours is the same.
        let own = project.path().join("own.dump");
        dumped(&db, &["-Fc", "-Z0", "-f", own.to_str().unwrap()]);
        let theirs = std::fs::read(&own).unwrap();
        assert_eq!(ours.len(), theirs.len());
        let differing: Vec<usize> = (0..ours.len()).filter(|at| ours[*at] != theirs[*at]).collect();
        assert!(differing.iter().all(|at| *at < 50), "{:?}", &differing[..differing.len().min(20)]);

        restored(&cluster, "again", &file, "--jobs=4");
        let strip = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace("again", &db.name);
        let again = Db { cluster: &cluster, name: "again".to_owned() };
        let text = ["--restrict-key=k", "--no-owner"];
        assert_eq!(strip(dumped(&again, &text)), strip(dumped(&db, &text)));
    }
}

#[test]
fn sql_is_what_pg_dump_writes_and_psql_takes_it() {
    for programs in every_version() {
        let cluster = Cluster::start_with(&programs, &[]);
        let db = cluster.database();
        db.sql(RICH);
        let project = with_programs(Project::new(&db), &programs);
        project.backup(&[]);

        let export = ["backup", "export", "latest", "--format", "sql", "--restrict-key", "k1", "-o"];
        let ran = project.run(&[&export[..], &["shop.sql"]].concat()).expect_code(0);

        assert!(ran.stderr.contains("`shop.sql` is not encrypted"), "{ran:#?}");
        let ours = std::fs::read_to_string(project.path().join("shop.sql")).unwrap();
        let theirs = String::from_utf8(dumped(&db, &["--restrict-key=k1"])).unwrap();
        assert!(ours == theirs, "{}", first_difference(&ours, &theirs));
        let piped = project.run(&[&export[..], &["-"]].concat()).expect_code(0);
        assert!(piped.stdout == ours, "{}", first_difference(&piped.stdout, &ours));

        cluster.sql("postgres", "create database again template template0");
        cluster.sql("again", &ours);
        assert_eq!(cluster.sql("again", "select count(*) || ' ' || (select count(*) from few) from many"), "6000 3");
    }
}

fn first_difference(one: &str, other: &str) -> String {
    let lines = one.lines().zip(other.lines()).enumerate().find(|(_, (a, b))| a != b);
    format!("{lines:?}, {} and {} bytes", one.len(), other.len())
}

#[test]
fn standard_output_takes_a_dump_too() {
    let db = Cluster::shared().database();
    db.sql(&RICH.replace("7000", "7100"));
    let project = Project::new(&db);
    let id = project.backup(&[]);
    let output = project.command(&["backup", "export", &id[..13], "-o", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = project.path().join("piped.dump");
    std::fs::write(&file, &output.stdout).unwrap();
    restored(db.cluster, &format!("{}_piped", db.name), &file, "--no-owner");
    assert_eq!(db.cluster.sql(&format!("{}_piped", db.name), "select count(*) from many"), "6000");
    project.json(&["backup", "export", &id, "-o", "-"]).expect_code(2);
    project.run(&["backup", "export", &id, "-o", "x", "--restrict-key", "k"]).expect_code(2);
}

#[test]
fn nothing_is_replaced_unasked_and_nothing_is_left_half_written() {
    let db = Cluster::shared().database();
    db.sql("create table t (id int, v text); insert into t select g, md5(g::text) from generate_series(1, 100000) g");
    let project = Project::new(&db);
    let id = project.backup(&[]);
    project.write("out/there", "mine");
    let there = || std::fs::read_to_string(project.path().join("out/there")).unwrap_or_default();
    let files = || std::fs::read_dir(project.path().join("out")).unwrap().count();

    let refused = project.run(&["backup", "export", "latest", "-o", "out/there"]).expect_code(7);
    refused.expect_end("unchanged", "--force");
    assert_eq!((there().as_str(), files()), ("mine", 1));
    project.run(&["backup", "export", "latest", "-o", "out"]).expect_code(2);
    let nowhere = project.run(&["backup", "export", "latest", "-o", "no/such/folder"]).expect_code(1);
    assert!(nowhere.stderr.contains("cannot be written"), "{nowhere:#?}");
    project.run(&["backup", "export", "latest", "-o", "out/there", "--force"]).expect_code(0);
    assert!(std::fs::read(project.path().join("out/there")).unwrap().starts_with(b"PGDMP"));
    std::fs::remove_file(project.path().join("out/there")).unwrap();

    // The last data frame: everything before it has been written by then.
    let stream = find(&project.store(), "0.rip");
    let mut bytes = std::fs::read(&stream).unwrap();
    let late = bytes.len() * 9 / 10;
    bytes[late] ^= 1;
    std::fs::write(&stream, bytes).unwrap();
    for format in ["custom", "sql"] {
        let ran = project.run(&["backup", "export", &id, "--format", format, "-o", "out/new"]);
        assert!(ran.code == 6 && ran.stderr.contains("frame"), "{format}: {ran:#?}");
        assert_eq!(files(), 0, "{format}");
        let piped = project.run(&["backup", "export", &id, "--format", format, "-o", "-"]).expect_code(6);
        assert_eq!(piped.stdout, "", "{format}: what is damaged does not go into a pipe");
    }
}

#[test]
fn without_the_server_the_store_and_the_key_are_enough() {
    let db = Cluster::shared().database();
    db.sql("create table t (id int); insert into t values (1)");
    let project = Project::new(&db);
    project.backup(&[]);
    let project = project.env("DATABASE_URL", &format!("postgresql://nobody@127.0.0.1:1/{}", db.name));
    for format in ["custom", "sql"] {
        let arguments = ["backup", "export", "latest", "--format", format, "-o", format, "--from-database", &db.name];
        project.run(&arguments).expect_code(0);
        assert!(project.path().join(format).exists());
    }
}
