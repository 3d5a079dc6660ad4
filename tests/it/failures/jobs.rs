//! Several pg_dumps at once: the same content as with one, one snapshot, and one failure for all of them.

use super::backups::programs;
use super::*;
use crate::content::{assert_same, state};

/// Tables of very different sizes, names that a pattern would take for something else, and what must stay
/// together: a leaf that is loaded into its root, sequences, large objects, a view with rows of its own.
const FILL: &str = r#"
create table big (id int primary key, t text); insert into big select g, repeat(md5(g::text), 20) from generate_series(1, 4000) g;
create table middle (id serial primary key, big int references big, t text);
insert into middle (big, t) select g, md5(g::text) from generate_series(1, 3000) g;
create table small (id int generated always as identity, b bytea); insert into small (b) values ('\x00ff'), (null);
create table nothing (i int); create unlogged table fleeting (i int); insert into fleeting values (1);
create type mood as enum ('a', 'b', 'c');
create table hashed (m mood, n int) partition by hash (m);
create table hashed_0 partition of hashed for values with (modulus 2, remainder 0);
create table hashed_1 partition of hashed for values with (modulus 2, remainder 1);
insert into hashed select (array['a', 'b', 'c'])[1 + g % 3]::mood, g from generate_series(1, 3000) g;
create table parent (a int); create table child (b text) inherits (parent);
insert into parent values (1); insert into child select g, md5(g::text) from generate_series(1, 2000) g;
create materialized view counted as select count(*) from big; create unique index on counted (count);
create sequence sq; select setval('sq', 77);
select lo_from_bytea(0, convert_to(repeat('large ', 5000), 'UTF8')) from generate_series(1, 3);
create schema "Sch.ema"; create schema "*";
create table "Sch.ema"."*" (t text); insert into "Sch.ema"."*" select md5(g::text) from generate_series(1, 900) g;
create table "Sch.ema"."big" (t text); insert into "Sch.ema"."big" values ('another big');
create table "*"."b?g|(x)" (t text); insert into "*"."b?g|(x)" select md5(g::text) from generate_series(1, 900) g;
create table "*"."""$^{2}\\" (t text); insert into "*"."""$^{2}\\" values ('quoted');
create table "*".E (t text); create table "*"." a
b	'c' Ü% --x" (t text); insert into "*"." a
b	'c' Ü% --x" select md5(g::text) from generate_series(1, 900) g;
"#;

fn tables(shown: &serde_json::Value) -> Vec<String> {
    let mut tables: Vec<String> =
        shown["sealed"]["tables"].as_array().unwrap().iter().map(serde_json::Value::to_string).collect();
    tables.sort();
    tables
}

fn streams(shown: &serde_json::Value) -> usize {
    shown["sealed"]["streams"].as_array().unwrap().len()
}

fn show(project: &Project, id: &str) -> serde_json::Value {
    project.json(&["backup", "show", id]).expect_code(0).items()[0].clone()
}

#[test]
fn any_number_of_them_brings_the_same() {
    let db = Cluster::shared().database();
    db.sql(FILL);
    let project = Project::new(&db);
    let before = state(db.cluster, &db.name);
    let one = show(&project, &project.backup(&[]));
    assert_eq!(streams(&one), 1);
    for jobs in ["2", "4", "9"] {
        let id = project.backup(&["--jobs", jobs]);
        let shown = show(&project, &id);
        assert_eq!(streams(&shown).to_string(), jobs);
        assert_eq!(tables(&shown), tables(&one), "{jobs}");
        for part in ["fingerprint", "sequences", "large_objects"] {
            assert_eq!(shown["sealed"][part], one["sealed"][part], "{jobs}: {part}");
        }
        assert_eq!(shown["sealed"]["large_objects"], 3);
        project.run(&["backup", "verify", &id, "--level", "toc"]).expect_code(0);
        // The drill digests every row under the key of the backup.
        let drilled = project.json(&["drill", &id, "--jobs", "3"]).expect_code(0).items()[0].clone();
        assert_eq!(drilled["good"], true);
        let copy = format!("{}_{jobs}", db.name);
        project.json(&["restore", &id, "--into", &copy, "--jobs", jobs]).expect_code(0);
        assert_same(&before, &state(db.cluster, &copy), jobs);
        db.cluster.sql("postgres", &format!("drop database {copy}"));
    }
}

/// In place, and in another encoding, one pg_restore is given the whole of it.
#[test]
fn one_pg_restore_takes_all_the_streams() {
    let cluster = Cluster::shared();
    for (encoding, options) in [("UTF8", ""), ("LATIN1", "encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'")] {
        let db = cluster.database_named(&format!("jobs_whole_{}", encoding.to_lowercase()), options);
        db.sql(&FILL.replace('Ü', "U"));
        db.sql("set client_encoding = utf8; create table \"née\" (t text); insert into \"née\" select 'é' || g from generate_series(1, 50) g");
        let project = Project::new(&db);
        let before = state(cluster, &db.name);
        let id = project.backup(&["--jobs", "4"]);
        assert_eq!(streams(&show(&project, &id)), 4);
        db.sql("set client_encoding = utf8; drop table big cascade; delete from \"*\".\"b?g|(x)\"; insert into \"née\" values ('x')");
        let arguments =
            ["restore", &id, "--mode", "in-place", "--confirm", &db.name, "--writes", "accept-loss", "--jobs", "4"];
        project.json(&arguments).expect_code(0);
        assert_same(&before, &state(cluster, &db.name), encoding);
        project.json(&["drill", &id]).expect_code(0);
    }
}

/// Without ripcord, by the reader that shares no code with it.
#[test]
fn the_other_reader_puts_the_streams_together() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    db.sql(FILL);
    let project = Project::new(&db);
    let item = show(&project, &project.backup(&["--jobs", "4"]));
    project.write("key", crate::support::cli::KEY);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages =
        std::env::var_os("RIPCORD_TEST_PYTHONPATH").map_or_else(|| root.join("target/python"), PathBuf::from);
    let dump = project.path().join("dump");
    let read = Command::new("python3")
        .env("PYTHONPATH", packages)
        .arg(root.join("scripts/read-archive.py"))
        .arg(project.path().join("key"))
        .arg(item["location"].as_str().unwrap())
        .arg("-o")
        .arg(&dump)
        .output()
        .expect("python3 starts");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    // From a pipe in order, and from a file with several jobs, which must wait for the rows before they index them.
    for (jobs, from_a_pipe) in [("1", true), ("4", false)] {
        let copy = cluster.database();
        // The control schema is not dumped, and no table here needs it.
        let mut restore = Command::new(cluster.bin().join("pg_restore"));
        restore.args(["-e", "-j", jobs, "-U", "postgres", "-d", &copy.name, "-h"]).arg(cluster.socket());
        restore.args(["-p", &cluster.port().to_string()]);
        let restored = if from_a_pipe {
            let mut cat = Command::new("cat").arg(&dump).stdout(Stdio::piped()).spawn().unwrap();
            let restored = restore.stdin(cat.stdout.take().unwrap()).output().unwrap();
            cat.wait().unwrap();
            restored
        } else {
            restore.arg(&dump).output().unwrap()
        };
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        assert_same(&state(cluster, &db.name), &state(cluster, &copy.name), jobs);
    }
}

/// A writer keeps two tables in step; each pg_dump begins later than the one before.
#[test]
fn all_of_them_read_one_snapshot() {
    let db = Cluster::shared().database();
    db.sql(
        "create table one (n int, t text); create table two (n int, t text); create table three (n int, t text);
         insert into one select g, repeat('x', 500) from generate_series(1, 2000) g;
         insert into two select * from one; insert into three select * from one",
    );
    let project = Project::new(&db);
    let folder = programs(
        &project,
        db.cluster,
        "case \"$*\" in *--table=*) sleep 1.$(( $$ % 10 ));; esac\nexec \"$dump\" \"$@\"",
    );
    project.configure(&format!("pg_bin = [\"{}\"]\n", folder.display()));
    let mut psql = db.cluster.psql(&db.name);
    let script = "begin; insert into one values (-1); update two set n = n + 1 where n = 1; insert into two values (-1); \
                  insert into three values (-1); delete from three where n > 1990; commit;\n";
    let mut writing = psql.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let (mut input, stopped) = (writing.stdin.take().unwrap(), stop.clone());
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            input.write_all(script.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    wait_until("it writes", || db.sql("select count(*) from one where n = -1") != "0");
    let early: u64 = db.sql("select count(*) from one where n = -1").parse().unwrap();
    let id = project.backup(&["--jobs", "3"]);
    let late: u64 = db.sql("select count(*) from one where n = -1").parse().unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    writing.wait().unwrap();
    assert_eq!(streams(&show(&project, &id)), 3);
    let copy = format!("{}_copy", db.name);
    project.json(&["restore", &id, "--into", &copy]).expect_code(0);
    let counts = db.cluster.sql(
        &copy,
        "select (select count(*) from one where n = -1), (select count(*) from two where n = -1), (select count(*) from three where n = -1)",
    );
    let counts: Vec<u64> = counts.split('|').map(|count| count.parse().unwrap()).collect();
    assert!(counts.iter().all(|count| *count == counts[0]), "the streams are of different moments: {counts:?}");
    assert!((early..late).contains(&counts[0]), "nothing was written meanwhile: {early} {counts:?} {late}");
}

/// Processes of wrappers that wrote down their ids.
fn pids(folder: &Path) -> Vec<u32> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect()
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn one_that_dies_ends_them_all_and_leaves_nothing() {
    for (dies, told) in [
        ("\"$dump\" \"$@\" | head -c 2000; kill -KILL $$", "killed by signal 9"),
        ("echo 'pg_dump: error: no more' >&2; exit 1", "exit status 1: error: no more"),
    ] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        db.sql(FILL);
        let ids = project.path().join("pids");
        std::fs::create_dir(&ids).unwrap();
        // The one that has `middle` waits for the others, and dies; these would go on for long.
        let wrapper = format!(
            ": > '{ids}'/$$\ncase \"$*\" in\n\
             *--table=*middle*) while [ $(ls '{ids}' | wc -l) -lt 4 ]; do sleep 0.05; done; {dies};;\n\
             *) \"$dump\" \"$@\"; sleep 300;;\nesac",
            ids = ids.display()
        );
        let folder = programs(&project, db.cluster, &wrapper);
        project.configure(&format!("pg_bin = [\"{}\"]\n[backup]\njobs = 4\n", folder.display()));
        project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
        let (before, stored) = (db.schema(), stored_backups(&project));
        let ran = project.json(&["apply"]).expect_code(1);
        assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
        let error = ran.result()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("the backup failed") && error.contains(told), "{ran:#?}");
        let pids = pids(&ids);
        assert_eq!(pids.len(), 4);
        assert_eq!(pids.into_iter().filter(|pid| alive(*pid)).collect::<Vec<_>>(), Vec::<u32>::new());
        assert_eq!(stored_backups(&project), stored);
        assert_eq!(db.schema(), before);
        assert_eq!(backups(&db), "verified, failed");
        assert_eq!(our_backends(&db), "0");
        wait_until("pg_dump's sessions end", || {
            db.sql(&format!(
                "select count(*) from pg_stat_activity where datname = '{}' and application_name = 'pg_dump'",
                db.name
            )) == "0"
        });
    }
}

/// The limit of time, and a request to stop, reach all of them.
#[test]
fn a_limit_of_time_ends_them_all() {
    let db = Cluster::shared().database();
    db.sql(FILL);
    let project = Project::new(&db);
    let ids = project.path().join("pids");
    std::fs::create_dir(&ids).unwrap();
    let wrapper = format!(": > '{}'/$$\n\"$dump\" \"$@\"; sleep 300", ids.display());
    let folder = programs(&project, db.cluster, &wrapper);
    project.configure(&format!("pg_bin = [\"{}\"]\n[backup]\ntimeout = \"3s\"\n", folder.display()));
    let ran = project.json(&["backup", "create", "--jobs", "3"]).expect_code(1);
    assert!(ran.stderr.contains("longer than its limit of 3s"), "{ran:#?}");
    let pids = pids(&ids);
    assert_eq!(pids.len(), 3);
    assert_eq!(pids.into_iter().filter(|pid| alive(*pid)).collect::<Vec<_>>(), Vec::<u32>::new());
    assert_eq!(stored_backups(&project), Vec::<String>::new());
}

/// CREATE INDEX CONCURRENTLY would wait for a session that still holds the snapshot.
#[test]
fn the_snapshot_is_let_go_before_the_first_migration() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    db.sql(FILL);
    project.configure("[backup]\njobs = 4\n");
    project.migration(
        "002_index.sql",
        "-- ripcord: no-transaction\nCREATE INDEX CONCURRENTLY by_t ON middle (t);",
        "DROP INDEX by_t;",
    );
    let held = project.path().join("held");
    let faults = format!("apply_backed_up=wait:{}", held.display());
    let mut running = Running::with_faults(&project, &["--json", "apply"], &faults);
    running.until("the backup is there", || held.exists());
    let sessions = db.sql(&format!(
        "select coalesce(string_agg(application_name, ', '), '') from pg_stat_activity where datname = '{}' \
         and (backend_xmin is not null or application_name like '%snapshot%' or application_name = 'pg_dump') and pid <> pg_backend_pid()",
        db.name
    ));
    assert_eq!(sessions, "");
    std::fs::remove_file(&held).unwrap();
    let ran = running.finish().expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");
}

/// A lock that somebody holds is waited for before there is a snapshot, within the limit, and told.
#[test]
fn a_lock_that_does_not_come_is_told() {
    let db = Cluster::shared().database();
    db.sql(FILL);
    let project = Project::new(&db);
    project.configure("[backup]\ntimeout = \"2s\"\n");
    let holding = Holding::open(&db, "lock table middle in access exclusive mode");
    let ran = project.json(&["backup", "create", "--jobs", "2"]).expect_code(1);
    assert!(ran.stderr.contains("lock timeout"), "{ran:#?}");
    tells(&ran, "unchanged", "another session holds a lock on a table");
    drop(holding);
    project.backup(&["--jobs", "2"]);
    assert_eq!(stored_backups(&project).len(), 1);
}
