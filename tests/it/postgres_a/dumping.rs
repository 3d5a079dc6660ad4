//! pg_dump as a child.

use std::io::Read;
use std::time::Duration;

use ripcord::postgres::dump::{Dump, DumpOptions};
use ripcord::postgres::{Session, Target, Tools};

use super::{LIMIT, target, target_of};
use crate::support::{Cluster, Db};

fn tools(cluster: &Cluster) -> Tools {
    let version = cluster.sql("postgres", "show server_version_num");
    Tools::find(version.parse::<u32>().unwrap() / 10_000, &[cluster.bin().to_owned()], None).unwrap()
}

fn options() -> DumpOptions {
    DumpOptions { lock_wait: Duration::from_secs(10), ..DumpOptions::default() }
}

fn read_to_end(dump: &mut Dump) -> Vec<u8> {
    let mut bytes = Vec::new();
    dump.read_to_end(&mut bytes).unwrap();
    bytes
}

/// What pg_restore makes of a dump, as SQL.
fn as_sql(cluster: &Cluster, bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output =
        std::process::Command::new(cluster.bin().join("pg_restore")).arg("-f").arg("-").arg(file.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn dumped(cluster: &Cluster, target: &Target, options: &DumpOptions) -> String {
    let mut dump = Dump::begin(&tools(cluster), target, options).unwrap();
    let bytes = read_to_end(&mut dump);
    dump.finish().unwrap();
    as_sql(cluster, &bytes)
}

/// A table with rows enough that a dump of it fills every buffer on the way.
fn wide(db: &Db<'_>) {
    db.sql("create table wide as select i, repeat(md5(i::text), 32) as t from generate_series(1, 40000) i");
}

#[test]
fn a_dump_holds_the_rows_as_fixed_settings_write_them() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    db.sql(&format!(
        "create table t (b bytea, m timestamptz); insert into t values ('\\x6162', '2020-01-01 00:00+00'); \
         alter database {0} set bytea_output = 'escape'; alter database {0} set timezone = 'Asia/Tokyo'; \
         create schema ripcord; create table ripcord.ours (x int);",
        db.name
    ));
    let sql = dumped(cluster, &target(&db), &options());
    assert!(sql.contains("\\\\x6162\t2020-01-01 00:00:00+00"), "{sql}");
    assert!(!sql.contains("ripcord"), "{sql}");
}

#[test]
fn databases_of_any_name_are_dumped_over_tcp_and_sockets() {
    let cluster = Cluster::shared();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    for name in [format!("a b=c'\"é {unique}"), format!("dbname=postgres {unique}"), format!("postgres://x/{unique}")]
    {
        let db = cluster.database_named(&name, "");
        db.sql("create table here (x int)");
        assert!(dumped(cluster, &target(&db), &options()).contains("TABLE public.here"), "{name}");
        let socket = format!("host={} port={} user=postgres", cluster.socket().display(), cluster.port());
        let target = target_of(&socket).with_database(&name);
        assert!(dumped(cluster, &target, &options()).contains("TABLE public.here"), "{name}");
    }
}

#[test]
fn names_that_are_left_out_are_exact() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    db.sql(
        "create schema \"a*\"; create table \"a*\".gone (x int); create schema ab; create table ab.stays (x int); \
         create table \"ab\".\"T.x\" (x int); insert into ab.\"T.x\" values (4711); insert into ab.stays values (815)",
    );
    let exclude = DumpOptions {
        exclude_schemas: vec!["a*".to_owned()],
        exclude_data: vec![("ab".to_owned(), "T.x".to_owned())],
        ..options()
    };
    let sql = dumped(cluster, &target(&db), &exclude);
    assert!(!sql.contains("gone") && sql.contains("TABLE ab.stays") && sql.contains("\"T.x\""), "{sql}");
    assert!(sql.contains("815") && !sql.contains("4711"), "{sql}");
    let schema_only = dumped(cluster, &target(&db), &DumpOptions { schema_only: true, ..options() });
    assert!(schema_only.contains("TABLE ab.stays") && !schema_only.contains("815"));
}

#[tokio::test]
async fn a_dump_reads_the_snapshot_that_it_is_given() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    db.sql("create table t (x int); insert into t values (4711)");
    let session = Session::connect(&target(&db), "run", LIMIT).await.unwrap();
    session.batch("begin isolation level repeatable read read only").await.unwrap();
    let snapshot = super::value(&session, "select pg_export_snapshot()").await;
    db.sql("insert into t values (815)");
    let sql = dumped(cluster, &target(&db), &DumpOptions { snapshot: Some(snapshot), ..options() });
    assert!(sql.contains("4711") && !sql.contains("815"), "{sql}");
}

#[test]
fn the_password_is_in_the_childs_environment_alone() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    wide(&db);
    let mut dump = Dump::begin(&tools(cluster), &target(&db), &options()).unwrap();
    let mut first = [0; 5];
    dump.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"PGDMP");
    let read = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{}/{name}", dump.pid())).unwrap()).into_owned()
    };
    let arguments = read("cmdline");
    assert!(arguments.contains("--format=custom"), "{arguments}");
    assert!(!arguments.contains("s3cr3t") && !arguments.contains(&db.name), "{arguments}");
    let environment = read("environ");
    let mut names: Vec<_> =
        environment.split('\0').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    let secret: Vec<_> = environment.split('\0').filter(|pair| pair.contains("s3cr3t")).collect();
    assert_eq!(secret, [format!("PGPASSWORD={}", crate::support::cluster::PASSWORD)]);
    let allowed = ["HOME", "LC_ALL", "PATH"];
    assert!(names.iter().all(|name| name.starts_with("PG") || allowed.contains(name)), "{names:?}");
}

#[test]
fn a_child_that_is_killed_is_an_error() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    wide(&db);
    for signal in ["KILL", "TERM"] {
        let mut dump = Dump::begin(&tools(cluster), &target(&db), &options()).unwrap();
        dump.read_exact(&mut [0; 5]).unwrap();
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &dump.pid().to_string()]).status();
        assert!(sent.unwrap().success());
        read_to_end(&mut dump);
        let error = dump.finish().unwrap_err();
        assert!(error.message().contains("killed by signal") || error.message().contains("exit status"), "{error}");
    }
}

#[test]
fn a_backend_that_is_ended_is_an_error() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    wide(&db);
    let mut dump = Dump::begin(&tools(cluster), &target(&db), &options()).unwrap();
    dump.read_exact(&mut [0; 5]).unwrap();
    let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                 where datname = current_database() and application_name = 'pg_dump'";
    assert_eq!(db.sql(ended), "1");
    read_to_end(&mut dump);
    let error = dump.finish().unwrap_err();
    assert!(error.message().contains("exit status 1"), "{error}");
    // What the server can still say depends on whether it was writing.
    let said = ["terminating connection", "server closed the connection"];
    assert!(said.iter().any(|text| error.one_line().contains(text)), "{error}");
}

#[test]
fn output_that_was_not_read_to_its_end_is_an_error() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    // All of it fits into the pipe, and pg_dump itself ends well.
    let mut dump = Dump::begin(&tools(cluster), &target(&db), &options()).unwrap();
    dump.read_exact(&mut [0; 5]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let error = dump.finish().unwrap_err();
    assert!(error.message().contains("not read to its end"), "{error}");
}

#[test]
fn a_dump_that_is_dropped_or_killed_leaves_no_backend() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    wide(&db);
    let none_left = || {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let count =
            "select count(*) from pg_stat_activity where application_name = 'pg_dump' and datname = current_database()";
        while db.sql(count) != "0" {
            assert!(std::time::Instant::now() < deadline, "a backend of pg_dump is left");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut dump = Dump::begin(&tools(cluster), &target(&db), &options()).unwrap();
    dump.read_exact(&mut [0; 5]).unwrap();
    let pid = dump.pid();
    let killer = dump.killer();
    drop(dump);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the child was not waited for");
    killer.kill();
    none_left();

    let mut dump = Dump::begin(&tools(cluster), &target(&db), &options()).unwrap();
    dump.killer().kill();
    read_to_end(&mut dump);
    let error = dump.finish().unwrap_err();
    assert_eq!(error.message(), "pg_dump was stopped by ripcord");
    none_left();
}

#[tokio::test]
async fn a_table_that_is_locked_is_named() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    db.sql("create table held (x int)");
    let session = Session::connect(&target(&db), "run", LIMIT).await.unwrap();
    session.batch("begin; lock table held in access exclusive mode").await.unwrap();
    let options = DumpOptions { lock_wait: Duration::from_millis(200), ..DumpOptions::default() };
    let mut dump = Dump::begin(&tools(cluster), &target(&db), &options).unwrap();
    read_to_end(&mut dump);
    let error = dump.finish().unwrap_err();
    assert!(error.one_line().contains("public.held"), "{error}");
    assert!(error.hint_text().unwrap().contains("holds a lock"), "{error:?}");
}

/// A program in pg_dump's place, which prints a byte, complains at length and ends as told.
fn complaining(folder: &std::path::Path, lines: u32, status: u8) -> Tools {
    use std::os::unix::fs::PermissionsExt;
    let pg_dump = folder.join(format!("pg_dump{status}"));
    let script = format!(
        "#!/bin/sh\ni=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo \"pg_dump: warning: number $i\" >&2; done\n\
         echo x; exit {status}\n"
    );
    std::fs::write(&pg_dump, script).unwrap();
    std::fs::set_permissions(&pg_dump, std::fs::Permissions::from_mode(0o755)).unwrap();
    Tools { pg_restore: pg_dump.clone(), pg_dump, version: String::new() }
}

#[test]
fn what_pg_dump_says_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let target = target_of("postgresql://me@localhost/x");
    let mut dump = Dump::begin(&complaining(folder.path(), 2, 0), &target, &options()).unwrap();
    assert_eq!(read_to_end(&mut dump), b"x\n");
    assert_eq!(dump.finish_with_warnings().unwrap(), ["pg_dump: warning: number 1", "pg_dump: warning: number 2"]);

    // More than a pipe and our memory of it hold.
    let mut dump = Dump::begin(&complaining(folder.path(), 20_000, 3), &target, &options()).unwrap();
    read_to_end(&mut dump);
    let error = dump.finish().unwrap_err();
    assert_eq!(error.message(), "pg_dump failed with exit status 3");
    assert_eq!(error.causes().first().unwrap(), "warning: number 19995");
    assert_eq!(error.causes().last().unwrap(), "warning: number 20000");

    let none = Tools { pg_dump: folder.path().join("none"), ..complaining(folder.path(), 0, 0) };
    assert!(Dump::begin(&none, &target, &options()).err().unwrap().message().contains("could not be started"));
}
