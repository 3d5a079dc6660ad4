//! A restore where the database stands: one transaction, behind whose locks others' writes are counted.

use crate::failures::wait_until;
use crate::restore::filled;
use crate::support::{Cluster, Db, Project};
use crate::tables::{every_version, with_programs};

/// Somebody who reads a table in a transaction that goes on and on, and the process at the server.
fn report_on(db: &Db<'_>, table: &str) -> (std::process::Child, String) {
    let sql = format!("begin; select count(*) from {table}; select pg_sleep(600)");
    let reader = db.cluster.psql(&db.name).args(["-c", &sql]).env("PGAPPNAME", "the report").spawn().unwrap();
    // On a server that is shared with other tests.
    let sleeping = "select pid from pg_stat_activity \
                    where application_name = 'the report' and wait_event = 'PgSleep' and datname = current_database()";
    wait_until("the report sleeps", || !db.sql(sleeping).is_empty());
    (reader, db.sql(sleeping))
}

#[test]
fn in_place_leaves_nothing_of_what_came_later() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    db.sql(
        "create table keep (id int references orders, t text default 'x'); insert into keep values (1), (2);
            create view seen as select count(*) from orders; create sequence numbers",
    );
    let id = project.backup(&[]);
    let schema = db.schema();
    db.sql(
        "drop table keep; create table later (key int primary key, o int references orders);
            create view over_later as select * from later join orders on o = orders.id; create type mood as enum ('a');
            create function f(int) returns int language sql as 'select 1'; create schema later_too;
            create table later_too.t (m mood); alter table orders add column extra mood; create index on orders (note);
            delete from orders where id > 10; create materialized view mv as select 1 as one",
    );
    let oid = db.sql("select oid from pg_database where datname = current_database()");

    let ran = project.json(&["restore", "latest", "--mode", "in-place", "--confirm", &db.name]).expect_code(0);

    let result = ran.result();
    assert_eq!(result["proof"]["kind"], "digests", "{ran:#?}");
    assert_eq!(db.schema(), schema);
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(db.sql("select count(*) from keep"), "2");
    assert_eq!(db.sql("select oid from pg_database where datname = current_database()"), oid);
    // What it was is a safety backup, which `latest` does not mean.
    let items = project.json(&["backup", "list"]).items();
    assert_eq!((items[0]["purpose"].as_str(), items[0]["status"].as_str()), (Some("safety"), Some("verified")));
    assert_eq!(project.json(&["restore", "latest", "--dry-run"]).result()["backup_id"], id.as_str());
    let safety = items[0]["id"].as_str().unwrap();
    assert!(result["database"].as_str().unwrap().contains(safety));
    project.run(&["restore", safety, "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "10");
    assert_eq!(db.sql("select count(*) from over_later"), "0");
}

#[test]
fn every_version_takes_what_is_to_be_done_first() {
    for programs in every_version() {
        let cluster = Cluster::start_with(&programs, &[]);
        let db = cluster.database();
        db.sql(
            "create schema \"Odd \"\"one\"; create table \"Odd \"\"one\".\"t; drop\" (i int primary key);
             insert into \"Odd \"\"one\".\"t; drop\" values (1); select lo_from_bytea(0, 'x');
             create table parts (i int) partition by list (i); create table part partition of parts for values in (1)",
        );
        let project = with_programs(Project::new(&db), &programs);
        let id = project.backup(&[]);
        let schema = db.schema();
        db.sql(
            "insert into \"Odd \"\"one\".\"t; drop\" values (2); create table later (i int primary key);
             create view over_later as select * from later; create type mood as enum ('a'); insert into parts values (1)",
        );
        let restore = ["restore", &id, "--mode", "in-place", "--writes", "accept-loss", "--confirm", &db.name];
        let ran = project.json(&restore).expect_code(0);
        assert_eq!(ran.result()["writes_since_backup"], 2, "{}: {ran:#?}", programs.display());
        assert_eq!(db.schema(), schema, "{}", programs.display());
        assert_eq!(db.sql("select i from \"Odd \"\"one\".\"t; drop\""), "1");
    }
}

#[test]
fn names_that_are_not_utf8_are_locked_and_dropped() {
    let cluster = Cluster::shared();
    let name = format!("latin{}", std::process::id());
    let db = cluster.database_named(&name, "encoding 'LATIN1' locale 'C'");
    db.sql("set client_encoding = 'UTF8'; create table \"caf\u{e9}\" (i int); insert into \"caf\u{e9}\" values (1)");
    let project = Project::new(&db);
    let id = project.backup(&[]);
    db.sql(
        "set client_encoding = 'UTF8'; insert into \"caf\u{e9}\" values (2); create table \"th\u{e9}\" (i int);
         create table later (i int)",
    );
    let restore = ["restore", &id, "--mode", "in-place", "--writes", "accept-loss", "--confirm", &db.name];
    project.run(&restore).expect_code(0);
    let tables = "select count(*), min(length(relname)) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";
    assert_eq!(db.sql(tables), "1|4");
    assert_eq!(db.sql("set client_encoding = 'UTF8'; select i from \"caf\u{e9}\""), "1");
}

/// A database whose owner, no superuser, is who restores: the sessions of `postgres` he may not end.
fn owned_by_one_who_may_not_end_sessions() -> (Db<'static>, Project) {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let cluster = Cluster::shared();
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("plain{}_{count}", std::process::id());
    cluster.sql("postgres", &format!("create role {name} login password 'x'"));
    let db = cluster.database_named(&name, &format!("owner {name}"));
    let project = Project::with_url(&cluster.url_as(&name, "x", &name));
    (db, project)
}

#[test]
fn a_restore_in_place_ends_whoever_stands_in_its_way_and_keeps_writers_off() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    let id = project.backup(&[]);
    let oid = db.sql("select oid from pg_database where datname = current_database()");
    let sql = "begin; insert into orders (id) values (1000); select pg_sleep(600)";
    let mut writer = db.cluster.psql(&db.name).args(["-c", sql]).env("PGAPPNAME", "the writer").spawn().unwrap();
    while db.sql("select count(*) from pg_stat_activity where application_name = 'the writer' and wait_event = 'PgSleep' and datname = current_database()") != "1" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }

    let restore = ["restore", &id, "--mode", "in-place", "--writes", "accept-loss", "--confirm", &db.name];
    let ran = project.run(&restore).expect_code(0);

    assert!(ran.stderr.contains("others can only read until the run is over"), "{ran:#?}");
    assert!(!writer.wait().unwrap().success());
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(db.sql("select oid from pg_database where datname = current_database()"), oid);
    // Neither the fence nor a copy of it in the safety backup is left.
    let settings = "select count(*) from pg_db_role_setting where setdatabase = (select oid from pg_database where datname = '{}')";
    assert_eq!(db.sql(&settings.replace("{}", &db.name)), "0");
    let safety = project.json(&["backup", "list"]).items()[0]["id"].as_str().unwrap().to_owned();
    project
        .run(&["restore", &safety, "--mode", "swap", "--writes", "accept-loss", "--confirm", &db.name])
        .expect_code(0);
    assert_eq!(db.sql(&settings.replace("{}", &db.name)), "0");
}

#[test]
fn a_restore_in_place_does_not_wait_for_ever_for_a_lock_and_names_who_holds_it() {
    let (db, project) = owned_by_one_who_may_not_end_sessions();
    project.shop();
    project.run(&["apply"]).expect_code(0);
    let id = project.backup(&[]);
    db.sql("delete from orders where id > 50");
    project.configure("[timeouts]\nlock = \"300ms\"");
    let (mut reader, pid) = report_on(&db, "orders");

    let ran = project.run(&["restore", &id, "--mode", "in-place", "--confirm", &db.name]).expect_code(7);

    assert!(ran.stderr.contains("others can go on writing until the restore begins"), "{ran:#?}");
    assert!(ran.stderr.contains("has waited for a lock longer than 0.3s"), "{ran:#?}");
    assert!(ran.stderr.contains(&format!("process {pid} of role postgres (the report")), "{ran:#?}");
    let end = format!("pg_terminate_backend({pid})");
    assert!(ran.stderr.contains(&end) && ran.stderr.contains("then the same command again"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "50");
    db.sql(&format!("select {end}"));
    let _ = reader.wait();
    project.run(&["restore", &id, "--mode", "in-place", "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "100");
}

#[test]
fn a_restore_in_place_that_is_blocked_behind_its_locks_has_changed_nothing() {
    let (db, project) = owned_by_one_who_may_not_end_sessions();
    project.shop();
    project.run(&["apply"]).expect_code(0);
    let id = project.backup(&[]);
    db.sql(&format!(
        "set role {}; create table later (id int); insert into later values (1); delete from orders where id > 50",
        db.name
    ));
    project.configure("[timeouts]\nlock = \"300ms\"");
    let restore = ["restore", &id, "--mode", "in-place", "--confirm", &db.name];

    // What came later goes first: blocked at it, and behind it.
    for table in ["later", "orders"] {
        let (mut reader, pid) = report_on(&db, table);
        let ran = project.json(&restore).expect_code(7);
        assert_eq!(ran.result()["database"], "unchanged", "{table}: {ran:#?}");
        assert!(ran.stderr.contains("then the same command again"), "{table}: {ran:#?}");
        db.sql(&format!("select pg_terminate_backend({pid})"));
        let _ = reader.wait();
        wait_until("nothing of it is left", || {
            db.sql("select count(*) from pg_stat_activity where datname = current_database()") == "1"
        });
        assert_eq!(db.sql("select (select count(*) from later), (select count(*) from orders)"), "1|50");
        assert!(!project.run(&["status"]).stdout.contains("UNFINISHED"));
    }
    project.run(&restore).expect_code(0);
    assert_eq!(db.sql("select count(*), to_regclass('later') is null from orders"), "100|t");
}

/// Writes one row after the other past every fence, as long as it is let, and counts what was acknowledged.
struct Passing {
    child: std::process::Child,
    told: std::path::PathBuf,
}

impl Passing {
    fn begin(db: &Db<'_>, folder: &std::path::Path) -> Passing {
        let told = folder.join("acknowledged");
        let script = "i=1000; while :; do i=$((i + 1)); \"$0\" -X -q -h \"$1\" -p \"$2\" -U postgres -d \"$3\" -v ON_ERROR_STOP=1 \
                      -c \"begin read write; insert into orders (id) values ($i); commit\" >/dev/null 2>&1 && echo $i >> \"$4\"; done";
        let mut command = std::process::Command::new("/bin/sh");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .args(["-c", script])
            .arg(db.cluster.bin().join("psql"))
            .arg(db.cluster.socket())
            .args([&db.cluster.port().to_string(), &db.name])
            .arg(&told)
            .spawn()
            .unwrap();
        Passing { child, told }
    }

    fn acknowledged(&self) -> usize {
        std::fs::read_to_string(&self.told).unwrap_or_default().lines().count()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn every_write_that_passes_the_fence_is_counted_or_still_there() {
    let (db, project) = owned_by_one_who_may_not_end_sessions();
    project.shop();
    project.run(&["apply"]).expect_code(0);
    let id = project.backup(&[]);
    let folder = tempfile::tempdir().unwrap();
    let passing = Passing::begin(&db, folder.path());
    wait_until("it writes", || passing.acknowledged() > 3);

    let restore = ["restore", &id, "--mode", "in-place", "--writes", "accept-loss", "--confirm", &db.name];
    let ran = project.json(&restore).expect_code(0);

    let after = passing.acknowledged();
    wait_until("it writes again", || passing.acknowledged() > after + 3);
    drop(passing);
    let written = std::fs::read_to_string(folder.path().join("acknowledged")).unwrap().lines().count() as i64;
    let there: i64 = db.sql("select count(*) from orders where id > 1000").parse().unwrap();
    let given_up = ran.result()["writes_since_backup"].as_i64().unwrap();
    // Those at which it was killed, or its session ended, may be there without having been acknowledged.
    let counted = given_up + there - written;
    assert!((0..=2).contains(&counted), "{written} written, {given_up} given up, {there} there: {ran:#?}");
    assert!(given_up > 3);
    // And the safety backup has just those that were given up.
    let safety = project.json(&["backup", "list"]).items()[0]["id"].as_str().unwrap().to_owned();
    let look = format!("{}_look", db.name);
    db.sql(&format!("alter role {} createdb", db.name));
    project.run(&["restore", &safety, "--into", &look]).expect_code(0);
    let saved: i64 = db.cluster.sql(&look, "select count(*) from orders where id > 1000").parse().unwrap();
    assert!(saved > 3 && saved <= given_up, "{saved} of {given_up}");
}

#[test]
fn a_load_that_nobody_lets_go_on_changes_nothing() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let id = project.backup(&[]);
    db.sql("delete from orders where id > 10");
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("held");
    let running = project
        .command(&["restore", &id, "--mode", "in-place", "--writes", "accept-loss", "--confirm", &db.name])
        .env("RIPCORD_FAULTS", format!("in_place_began=wait:{}", flag.display()))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it holds its locks", || flag.exists());
    // Readers go on, and so does who writes nothing of it.
    assert_eq!(db.sql("select count(*) from orders"), "10");
    assert!(
        db.cluster
            .try_sql(&db.name, "set lock_timeout = '50ms'; begin read write; insert into orders values (7777); commit")
            .is_err()
    );
    // Its connection ends, not the process: the locks that kept the load back are gone.
    db.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'ripcord gate' and datname = current_database()");
    wait_until("the load is over", || {
        db.sql("select count(*) from pg_stat_activity where application_name = 'pg_restore' and datname = current_database()") == "0"
    });
    std::fs::remove_file(&flag).unwrap();
    let output = running.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("nobody lets the load go on"), "{stderr}");
    assert!(stderr.contains("unchanged"), "{stderr}");
    assert!(stderr.contains("hint: mend the cause, then the same command again"), "{stderr}");
    assert_eq!(db.sql("select count(*) from orders"), "10");
    project
        .run(&["restore", &id, "--mode", "in-place", "--writes", "accept-loss", "--confirm", &db.name])
        .expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "100");
}
