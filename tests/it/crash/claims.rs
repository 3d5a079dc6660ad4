//! What a journal says is a claim; who may act on it, and what else recover has to stand.

use std::time::{Duration, Instant};

use super::{Expected, killed_at, nothing_left, recovers, runs, shop, state};
use crate::support::{Cluster, Db, Project};

/// A run that has to be answered by a restore, killed at a point.
fn destroyed(db: &Db<'_>, point: &str) -> Project {
    let project = shop(db);
    project
        .migration("003_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "ALTER TABLE orders ADD COLUMN note text;")
        .migration("005_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    killed_at(&project, point, &["apply"]);
    project
}

fn databases(like: &str) -> String {
    Cluster::shared().sql(
        "postgres",
        &format!("select string_agg(datname, ',' order by datname) from pg_database where datname like '{like}'"),
    )
}

/// The folder of the newest run's journal.
fn journal(project: &Project) -> std::path::PathBuf {
    let run = runs(project).pop().unwrap();
    let lineage = std::fs::read_dir(project.store()).unwrap().next().unwrap().unwrap().path();
    lineage.join("runs").join(run)
}

fn scratch_of(project: &Project) -> String {
    let run = runs(project).pop().unwrap();
    Cluster::shared().sql(
        "postgres",
        &format!(
            "select datname from pg_database where datname like 'rc\\_%' \
             and shobj_description(oid, 'pg_database') like '%{run}%'"
        ),
    )
}

#[test]
fn recover_killed_twice_is_taken_up_again() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = state(&db);
    drop(project);
    let project = destroyed_again(&db);
    killed_at(&project, "swap_closed", &["recover"]);
    killed_at(&project, "scratch_ready", &["recover"]);
    killed_at(&project, "swap_renamed", &["recover"]);
    recovers(&db, &project, "thrice", &Expected { code: 3, outcome: "restored", state: &before });
}

/// A second project for a database that has the shop already.
fn destroyed_again(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project
        .migration("001_shop.sql", "CREATE TABLE orders (id int PRIMARY KEY, note text);", "DROP TABLE orders;")
        .migration(
            "002_fill.sql",
            "INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 50) AS g;",
            "DELETE FROM orders;",
        )
        .migration("003_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "ALTER TABLE orders ADD COLUMN note text;")
        .migration("005_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    killed_at(&project, "load_done", &["apply"]);
    project
}

#[test]
fn two_recovers_at_once_are_one_after_the_other() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "between_migrations");
    let flag = project.path().join("waiting");
    let mut first = project
        .command(&["recover"])
        .env("RIPCORD_FAULTS", format!("scratch_ready=wait:{}", flag.display()))
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !flag.exists() {
        assert!(
            Instant::now() < deadline && first.try_wait().unwrap().is_none(),
            "the first recover did not get there"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = project.run(&["status"]).expect_code(0);
    assert!(status.stdout.lines().next().unwrap().contains("BUSY"), "{status:#?}");
    let second = project.json(&["recover"]).expect_code(5);
    assert_eq!(second.result()["outcome"], "locked", "{second:#?}");
    std::fs::remove_file(&flag).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(3));
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
    nothing_left(&db, &project, "two at once");
}

#[test]
fn an_altered_journal_is_refused_and_nothing_is_dropped() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "scratch_ready");
    let scratch = scratch_of(&project);
    assert!(scratch.starts_with("rc_"), "{scratch}");
    let file = journal(&project).join("000002.json");
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    let permissions = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&file, permissions(0o600)).unwrap();
    std::fs::write(&file, &bad).unwrap();
    let before = state(&db);

    let ran = project.json(&["recover"]).expect_code(7);
    assert_eq!(ran.result()["outcome"], "refused", "{ran:#?}");
    assert!(ran.stderr.contains("cannot be trusted"), "{ran:#?}");
    assert_eq!(databases(&scratch), scratch);
    assert_eq!(state(&db), before);
    // Nothing is pruned either while it cannot be told what is needed.
    let pruned = project.run(&["prune", "--keep-last", "1", "--keep-within", "0s"]).expect_code(7);
    assert!(pruned.stderr.contains("nothing is pruned"), "{pruned:#?}");

    std::fs::write(&file, &good).unwrap();
    project.json(&["recover"]).expect_code(3);
    nothing_left(&db, &project, "altered");
}

#[test]
fn a_foreign_database_with_the_name_of_the_scratch_one_is_never_dropped() {
    for comment in ["null", "'mine'", "'ripcord scratch database of run 00000000-0000-0000-0000-000000000000'"] {
        let db = Cluster::shared().database();
        let project = destroyed(&db, "scratch_ready");
        let scratch = scratch_of(&project);
        let server = Cluster::shared();
        server.sql("postgres", &format!("drop database {scratch}"));
        server.sql("postgres", &format!("create database {scratch}"));
        server.sql("postgres", &format!("comment on database {scratch} is {comment}"));

        let ran = project.json(&["recover"]).expect_code(3);
        assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
        assert!(ran.stderr.contains(&scratch), "{ran:#?}");
        assert_eq!(databases(&scratch), scratch, "{comment}");
        server.sql("postgres", &format!("drop database {scratch}"));
    }
}

#[test]
fn a_foreign_database_with_the_name_of_the_kept_one_is_left_alone() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "swap_renamed");
    let server = Cluster::shared();
    let aside = databases(&format!("{}\\_aside\\_%", db.name));
    server.sql("postgres", &format!("drop database \"{aside}\""));
    server.sql("postgres", &format!("create database \"{aside}\""));
    server.sql("postgres", &format!("alter database \"{aside}\" set default_transaction_read_only = on"));
    let ran = project.json(&["recover"]).expect_code(3);
    assert!(ran.result()["database"].as_str().unwrap().contains("is not there any more"), "{ran:#?}");
    assert_eq!(server.sql(&aside, "show default_transaction_read_only"), "on");
}

#[test]
fn another_key_cannot_take_up_a_run() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "scratch_ready");
    let scratch = scratch_of(&project);
    let output = project.command(&["recover"]).env("BACKUP_ENCRYPTION_KEY", "ff".repeat(32)).output().unwrap();
    let ran = crate::support::cli::ran(output).expect_code(2);
    assert!(ran.stderr.contains("the key is not the one"), "{ran:#?}");
    assert_eq!(databases(&scratch), scratch);
    project.json(&["recover"]).expect_code(3);
}

#[test]
fn the_lock_is_free_by_itself_after_a_kill() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "between_migrations");
    let status = project.run(&["lock", "status"]).expect_code(0);
    assert!(status.stdout.contains("the row of a dead run is left: ripcord recover"), "{status:#?}");
    project.run(&["lock", "release", "--yes"]).expect_code(0);
    let status = project.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("next: ripcord recover"), "{status:#?}");
    project.json(&["recover"]).expect_code(3);
    nothing_left(&db, &project, "lock release");
}

#[test]
fn prune_keeps_what_an_unfinished_run_needs() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "between_migrations");
    for _ in 0..2 {
        project.run(&["backup", "create"]).expect_code(0);
    }
    project.run(&["prune", "--keep-last", "1", "--keep-within", "0s"]).expect_code(0);
    let ran = project.json(&["recover"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
}

#[test]
fn writes_of_others_are_asked_about_and_then_given_up() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "between_migrations");
    db.sql("insert into orders values (1000)");
    let ran = project.json(&["recover"]).expect_code(4);
    assert_eq!(ran.result()["outcome"], "not_recovered", "{ran:#?}");
    assert!(ran.stderr.contains("recover --writes accept-loss"), "{ran:#?}");
    assert!(ran.stderr.contains("recover --on-failure stop"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "51");
    assert!(project.run(&["status"]).stdout.contains("next: ripcord recover"));

    let ran = project.json(&["recover", "--writes", "accept-loss"]).expect_code(3);
    assert_eq!(ran.result()["writes_since_backup"], 1, "{ran:#?}");
    assert_eq!(db.sql("select count(note) from orders"), "50");
    nothing_left(&db, &project, "accept-loss");
}

#[test]
fn writes_of_others_are_asked_about_and_then_kept() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "between_migrations");
    db.sql("insert into orders values (1000)");
    project.json(&["recover"]).expect_code(4);

    let ran = project.json(&["recover", "--on-failure", "stop"]).expect_code(4);
    let result = ran.result();
    assert_eq!(result["outcome"], "stopped_partway", "{ran:#?}");
    assert!(result["database"].as_str().unwrap().contains("`003_drop` of this run applied"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "51");
    assert_eq!(project.json(&["recover"]).expect_code(0).result()["outcome"], "nothing_to_do");
    nothing_left(&db, &project, "stop");
    project.write("migrations/005_bad.sql", "-- UP\nCREATE TABLE good (id int);\n\n-- DOWN\nDROP TABLE good;\n");
    project.json(&["apply"]).expect_code(0);
}

#[test]
fn a_restore_by_hand_leaves_nothing_to_undo() {
    let db = Cluster::shared().database();
    let project = destroyed(&db, "between_migrations");
    project.json(&["restore", "latest", "--yes"]).expect_code(0);
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
    let ran = project.json(&["recover"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "nothing_to_do", "{ran:#?}");
    nothing_left(&db, &project, "by hand");
}

#[test]
fn a_statement_that_goes_on_after_its_client_died_is_ended_first() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = state(&db);
    project.migration(
        "003_slow.sql",
        "CREATE INDEX CONCURRENTLY a ON orders (note);\nVACUUM orders;\nCREATE INDEX CONCURRENTLY b ON orders (id);",
        "DROP INDEX IF EXISTS b;\nDROP INDEX IF EXISTS a;",
    );
    // A writer that does not end keeps CREATE INDEX CONCURRENTLY waiting.
    let mut writer = db
        .cluster
        .psql(&db.name)
        .args(["-c", "begin; update orders set note = note where id = 1; select pg_sleep(600)"])
        .spawn()
        .unwrap();
    let wait_for = |what: &str, sql: &str| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Cluster::shared().sql("postgres", sql) == "0" {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let of = |condition: &str| {
        format!("select count(*) from pg_stat_activity where datname = '{}' and {condition}", db.name)
    };
    wait_for("the writer", &of("query like '%pg_sleep%'"));
    let mut apply = project.command(&["apply"]).spawn().unwrap();
    wait_for("the index", &of("query like 'CREATE INDEX CONCURRENTLY%' and wait_event_type = 'Lock'"));
    apply.kill().unwrap();
    apply.wait().unwrap();

    // The writer ends only afterwards: recover must not wait for it, nor for the index.
    let ran = {
        Cluster::shared().sql(
            "postgres",
            &of("true")
                .replace("count(*)", "pg_terminate_backend(pid)")
                .replace("and true", "and query like '%pg_sleep%'"),
        );
        project.json(&["recover"])
    };
    let _ = writer.kill();
    let _ = writer.wait();
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert_eq!(state(&db), before, "{ran:#?}");
    nothing_left(&db, &project, "concurrently");
}

#[test]
fn a_server_that_crashes_in_a_migration() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = shop(&db);
    let before = state(&db);
    project.migration("003_notes.sql", "CREATE TABLE notes (id int);", "DROP TABLE notes;");
    let ran = crash_while_waiting(&cluster, &project, "up_before_commit", &["--json", "apply"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    assert_eq!(state(&db), before);
    nothing_left(&db, &project, "server crash");
    project.json(&["apply"]).expect_code(0);
}

#[test]
fn a_server_that_crashes_in_the_load_of_a_restore() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = shop(&db);
    let before = state(&db);
    let ran = crash_while_waiting(&cluster, &project, "load_began", &["--json", "restore", "latest", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    assert_eq!(state(&db), before);
    let again = project.json(&["recover"]).expect_code(0);
    assert_eq!(state(&db), before, "{again:#?}");
    nothing_left(&db, &project, "server crash");
}

/// Runs it, crashes the server while it waits at that point, and lets it go on.
fn crash_while_waiting(
    cluster: &Cluster,
    project: &Project,
    point: &str,
    arguments: &[&str],
) -> crate::support::cli::Ran {
    let flag = project.path().join("waiting");
    let child = project
        .command(arguments)
        .env("RIPCORD_FAULTS", format!("{point}=wait:{}", flag.display()))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !flag.exists() {
        assert!(Instant::now() < deadline, "it did not get to {point}");
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.crash_and_restart();
    std::fs::remove_file(&flag).unwrap();
    crate::support::cli::ran(child.wait_with_output().unwrap())
}
