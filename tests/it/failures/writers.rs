//! Runs that fail while an application goes on writing.

use super::*;

/// A shop with a table that the application writes to.
fn busy(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project.migration(
        "000_events.sql",
        "CREATE TABLE events (n bigint PRIMARY KEY, extra text DEFAULT 'x');",
        "DROP TABLE events;",
    );
    with_shop(project)
}

/// The health check that any later migration makes red.
fn red_afterwards() -> String {
    well_while("select max(version) < '002' from ripcord.schema_migrations where state = 'applied'")
}

/// Applies while the application writes, so that some of its rows are certainly newer than the backup and older than
/// the migration, and others newer than that.
fn apply_under(writer: &Writer, project: &Project, arguments: &[&str]) -> Ran {
    let (backed_up, migrated) = (project.path().join("backed-up"), project.path().join("migrated"));
    let faults = format!("apply_backed_up=wait:{},apply_migrated=wait:{}", backed_up.display(), migrated.display());
    let mut running = Running::with_faults(project, arguments, &faults);
    for (file, may_write) in [(backed_up, true), (migrated, false)] {
        running.until("the point", || file.exists());
        if may_write {
            writer.writes(3);
        }
        std::fs::remove_file(file).unwrap();
    }
    running.finish()
}

#[test]
fn an_additive_migration_is_undone_under_writers_without_a_loss() {
    let db = Cluster::shared().database();
    let project = busy(&db);
    project.configure(&red_afterwards());
    let before = db.schema();
    project.migration(
        "002_add.sql",
        "ALTER TABLE events ADD COLUMN y int;\nCREATE TABLE more (id int);\nCREATE INDEX events_y ON events (y);",
        "DROP INDEX events_y;\nDROP TABLE more;\nALTER TABLE events DROP COLUMN y;",
    );
    let writer = Writer::start(&db);
    writer.writes(3);

    let ran = apply_under(&writer, &project, &["--json", "apply"]).expect_code(3);

    writer.writes(3);
    let acknowledged = writer.finish();
    assert_eq!(ran.result()["outcome"], "rolled_back", "{ran:#?}");
    assert_eq!(ran.result()["proof"]["kind"], "additive", "{ran:#?}");
    tells(&ran, "as before the run: rolled back by DOWN, proved by additive", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(lost(&db, &acknowledged), Vec::<i64>::new());
    assert_eq!(history(&db), "000 applied, 001 applied, 002 rolled_back");
    assert_eq!(runs(&db), "apply done 0, apply rolled_back 3");
}

#[test]
fn a_down_that_lied_is_not_believed_by_a_later_recover_either() {
    let db = Cluster::shared().database();
    let project = busy(&db);
    project.configure(&red_afterwards());
    project.migration(
        "002_more.sql",
        "INSERT INTO orders (id, note) VALUES (5000, 'new');",
        "DELETE FROM orders WHERE id = 5001;",
    );
    let writer = Writer::start(&db);
    writer.writes(3);
    let ran = apply_under(&writer, &project, &["--json", "apply"]).expect_code(4);
    writer.finish();
    assert_eq!(history(&db), "000 applied, 001 applied, 002 rolled_back", "DOWN ran: {ran:#?}");
    let state = "CHANGED and not brought back: the run's migrations are undone by their DOWN, which is not proved";
    tells(&ran, state, "ripcord recover --writes accept-loss");

    for _ in 0..2 {
        let again = project.json(&["recover"]).expect_code(4);
        assert_eq!(again.result()["outcome"], "not_recovered", "{again:#?}");
        tells(&again, state, "ripcord recover --writes accept-loss");
    }

    let ran = project.json(&["recover", "--writes", "accept-loss"]).expect_code(3);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders where id >= 5000"), "0");
    project.json(&["recover"]).expect_code(0);
}

/// Migrations that destroy something, and whether the application can write to its table afterwards.
const DESTROYERS: [(&str, &str, bool); 5] = [
    ("drop column elsewhere", "ALTER TABLE orders DROP COLUMN note;", true),
    ("drop column", "ALTER TABLE events DROP COLUMN extra;", true),
    ("drop table", "DROP TABLE events;", false),
    ("truncate", "TRUNCATE events;", true),
    ("update", "UPDATE events SET extra = 'y';", true),
];

/// A run under a writer that destroyed something, failed, and was not answered by a restore.
fn refused<'a>(db: &'a Db<'a>, up: &str, writable: bool) -> (Project, Ran, Vec<i64>) {
    let project = busy(db);
    project.configure(&red_afterwards());
    project.migration("002_destroy.sql", up, "SELECT 1;");
    let writer = Writer::start(db);
    writer.writes(3);
    let ran = apply_under(&writer, &project, &["--json", "apply"]);
    if writable {
        writer.writes(3);
    }
    let acknowledged = writer.finish();
    (project, ran, acknowledged)
}

#[test]
fn what_writers_would_lose_is_counted_and_refused() {
    for (what, up, writable) in DESTROYERS {
        let db = Cluster::shared().database();
        let (project, ran, _) = refused(&db, up, writable);

        let ran = ran.expect_code(4);
        let result = ran.result();
        assert_eq!(result["outcome"], "not_recovered", "{what}: {ran:#?}");
        let error = result["error"].as_str().unwrap();
        let rows = error.split(" rows in public.events").next().unwrap().rsplit(' ').next().unwrap();
        assert!(rows.parse::<u64>().is_ok_and(|rows| rows >= 3), "{what}: {ran:#?}");
        tells(
            &ran,
            "CHANGED and not brought back: `002_destroy` applied; the database is open",
            "ripcord recover --writes accept-loss",
        );
        tells(&ran, "CHANGED", "ripcord recover --on-failure stop");
        // Open, and anybody can write.
        db.sql("insert into orders (id) values (1000)");
        assert_eq!(db.sql("show default_transaction_read_only"), "off");
        assert_eq!(asides(&db), Vec::<String>::new());
        assert_eq!(history(&db), "000 applied, 001 applied, 002 applied");
        assert_eq!(runs(&db), "apply done 0, apply not_recovered 4", "{what}");
        // Until somebody has decided, nothing else begins.
        project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
        let next = project.json(&["apply"]).expect_code(7);
        tells(&next, "unchanged", "ripcord recover");
    }
}

#[test]
fn what_was_refused_is_restored_once_the_loss_is_accepted() {
    for (what, up, writable) in DESTROYERS {
        let db = Cluster::shared().database();
        let (project, ran, acknowledged) = refused(&db, up, writable);
        ran.expect_code(4);

        // Without a word about the writes, it is refused again.
        let again = project.json(&["recover"]).expect_code(4);
        assert_eq!(again.result()["outcome"], "not_recovered", "{what}: {again:#?}");

        let ran = project.json(&["recover", "--writes", "accept-loss"]).expect_code(3);
        assert_eq!(ran.result()["outcome"], "restored", "{what}: {ran:#?}");
        assert!(ran.result()["writes_since_backup"].as_u64().unwrap() >= 3, "{what}: {ran:#?}");
        tells(&ran, "restored from backup", "ripcord apply");
        assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
        assert!(!lost(&db, &acknowledged).is_empty(), "{what}");
        // What was lost here is in the database that is kept.
        let kept = asides(&db);
        assert_eq!(kept.len(), 1, "{what}: {kept:?}");
        if writable {
            db.cluster.sql("postgres", &format!("alter database {} allow_connections true", kept[0]));
            let there = db.cluster.sql(&kept[0], "select max(n) from events");
            assert_eq!(there, acknowledged.last().unwrap().to_string(), "{what}");
        }
        assert_eq!(history(&db), "000 applied, 001 applied, 002 restored_away");
        assert_eq!(runs(&db), "apply done 0, apply restored 3", "{what}");
        // The books are closed: the next run begins.
        std::fs::remove_file(project.path().join("migrations/002_destroy.sql")).unwrap();
        project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
        project.json(&["apply", "--ignore-red-health", "--on-failure", "stop"]);
        assert_eq!(history(&db), "000 applied, 001 applied, 002 restored_away, 003 applied", "{what}");
    }
}

#[test]
fn what_was_refused_can_be_restored_by_hand() {
    let db = Cluster::shared().database();
    let (project, ran, _) = refused(&db, "TRUNCATE orders;", true);
    ran.expect_code(4);
    let ran = project.json(&["restore", "latest", "--writes", "accept-loss", "--confirm", &db.name]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(runs(&db), "apply done 0, apply not_recovered 4, restore done 0");
    // The restore has answered the run that was waiting for a decision.
    std::fs::remove_file(project.path().join("migrations/002_destroy.sql")).unwrap();
    let ran = project.json(&["apply"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "nothing_to_do", "{ran:#?}");
    project.migration("0015_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["recover"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "nothing_to_do", "{ran:#?}");
}

#[test]
fn what_was_refused_can_be_kept_and_mended_forward() {
    let db = Cluster::shared().database();
    let (project, ran, acknowledged) = refused(&db, "ALTER TABLE orders DROP COLUMN note;", true);
    ran.expect_code(4);
    let ran = project.json(&["recover", "--on-failure", "stop"]).expect_code(4);
    assert_eq!(ran.result()["outcome"], "stopped_partway", "{ran:#?}");
    assert_eq!(lost(&db, &acknowledged), Vec::<i64>::new());
    assert_eq!(history(&db), "000 applied, 001 applied, 002 applied");
    project.write("ripcord.toml", "[environments.test]\nprotected = false\napproval = false\n");
    project.migration("003_mend.sql", "ALTER TABLE orders ADD COLUMN note text;", "SELECT 1;");
    project.json(&["apply"]).expect_code(0);
    assert_eq!(lost(&db, &acknowledged), Vec::<i64>::new());
    assert_eq!(history(&db), "000 applied, 001 applied, 002 applied, 003 applied");
}

#[test]
fn behind_a_fence_a_restore_loses_nothing() {
    let db = Cluster::shared().database();
    let project = busy(&db);
    project.configure(&red_afterwards());
    let before = db.schema();
    project.migration("002_destroy.sql", "ALTER TABLE events DROP COLUMN extra;\nTRUNCATE orders;", "SELECT 1;");
    let writer = Writer::start(&db);
    writer.writes(3);

    let migrated = project.path().join("migrated");
    let mut running = Running::with_faults(
        &project,
        &["--json", "apply", "--writes", "fence"],
        &format!("apply_migrated=wait:{}", migrated.display()),
    );
    running.until("the migration", || migrated.exists());
    wait_until("the application is kept off", || writer.refusals().contains(&"25006".to_owned()));
    std::fs::remove_file(migrated).unwrap();
    let ran = running.finish().expect_code(3);

    writer.writes(5);
    let acknowledged = writer.finish();
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(ran.result()["writes_since_backup"], 0, "{ran:#?}");
    tells(&ran, "restored from backup", "ripcord apply");
    assert_eq!(db.schema(), before);
    assert_eq!(lost(&db, &acknowledged), Vec::<i64>::new());
    assert_eq!(db.sql("select count(*) from orders"), "100");
    let fenced = "select count(*) from pg_db_role_setting where 'default_transaction_read_only=on' = any(setconfig) \
                  and setdatabase in (select oid from pg_database where datname in";
    let kept = asides(&db);
    assert_eq!(kept.len(), 1);
    assert_eq!(db.cluster.sql("postgres", &format!("{fenced} ('{}', '{}'))", db.name, kept[0])), "0");
    assert_eq!(history(&db), "000 applied, 001 applied, 002 restored_away");
    assert_eq!(runs(&db), "apply done 0, apply restored 3");
}

#[test]
fn a_fence_is_taken_away_after_a_run_that_went_well_or_never_began() {
    let db = Cluster::shared().database();
    let project = busy(&db);
    db.cluster.sql("postgres", &format!("alter database {} set default_transaction_read_only = off", db.name));
    let setting = format!(
        "select s.setconfig::text from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname = '{}'",
        db.name
    );
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.json(&["apply", "--writes", "fence"]).expect_code(0);
    assert_eq!(db.sql(&setting), "{default_transaction_read_only=off}");
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.json(&["apply", "--writes", "fence"]).expect_code(1);
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(db.sql(&setting), "{default_transaction_read_only=off}");
    db.sql("insert into events (n) values (1)");
}

#[test]
fn a_fence_that_cannot_be_taken_away_is_no_good_end() {
    let cluster = Cluster::shared();
    let name = format!("fenced{}", std::process::id());
    cluster.sql("postgres", &format!("create role {name} login password 'x'"));
    let db = cluster.database_named(&name, &format!("owner {name}"));
    let owned_by = |role: &str| cluster.sql("postgres", &format!("alter database {name} owner to {role}"));
    let project = Project::with_url(&cluster.url_as(&name, "x", &name));
    project.migration("001_events.sql", "CREATE TABLE events (n bigint);", "DROP TABLE events;");
    let migrated = project.path().join("migrated");
    let faults = format!("apply_migrated=wait:{}", migrated.display());
    let mut running = Running::with_faults(&project, &["--json", "apply", "--writes", "fence"], &faults);
    running.until("the point", || migrated.exists());
    owned_by("postgres");
    std::fs::remove_file(migrated).unwrap();

    let ran = running.finish().expect_code(4);

    assert_eq!(ran.result()["outcome"], "not_recovered", "{ran:#?}");
    tells(&ran, "changed as planned: 1 migration applied; but others can only READ", "ripcord recover");
    assert!(ran.result()["error"].as_str().unwrap().contains("the fence could not be taken away"), "{ran:#?}");
    assert!(cluster.try_sql(&name, "insert into events values (1)").unwrap_err().contains("read-only"));
    let ran = project.json(&["recover"]).expect_code(4);
    assert!(ran.result()["database"].as_str().unwrap().contains("can only READ"), "{ran:#?}");

    owned_by(&name);
    project.run(&["recover"]).expect_code(0);
    db.sql("insert into events values (1)");
    project.run(&["apply"]).expect_code(0);
}

#[test]
fn a_loss_that_was_accepted_beforehand_is_told() {
    let db = Cluster::shared().database();
    let project = busy(&db);
    project.configure(&red_afterwards());
    project.migration("002_destroy.sql", "ALTER TABLE orders DROP COLUMN note;", "SELECT 1;");
    let writer = Writer::start(&db);
    writer.writes(3);
    let ran = apply_under(&writer, &project, &["--json", "apply", "--writes", "accept-loss"]).expect_code(3);
    writer.writes(3);
    let acknowledged = writer.finish();
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    let told = ran.result()["writes_since_backup"].as_u64().unwrap();
    let gone = lost(&db, &acknowledged).len() as u64;
    assert!(told >= 3 && gone >= 3 && gone <= told, "{gone} {ran:#?}");
    assert!(ran.stderr.contains(&format!("{told} rows in public.events")), "{ran:#?}");
    tells(&ran, "restored from backup", "ripcord apply");
    assert_eq!(db.sql("select note from orders where id = 7"), "order 7");
}

#[test]
fn the_strict_fence_lets_no_write_stand_between_the_backup_and_the_commit() {
    let db = Cluster::shared().database();
    let project = busy(&db);
    let before = db.schema();
    project.migration("002_destroy.sql", "ALTER TABLE events DROP COLUMN extra;", "SELECT 1;").migration(
        "003_more.sql",
        "CREATE TABLE more (id int);",
        "DROP TABLE more;",
    );
    let arguments = ["--json", "apply", "--atomic", "--writes", "fence"];
    let past_the_fence = |n: u32| {
        let sql = format!("set lock_timeout = '300ms'; begin read write; insert into events (n) values ({n}); commit");
        db.cluster.try_sql(&db.name, &sql)
    };

    // Past the fence, after the backup: the run stops while nothing is changed.
    let point = project.path().join("point");
    let mut running = Running::with_faults(&project, &arguments, &format!("apply_backed_up=wait:{}", point.display()));
    running.until("the backup", || point.exists());
    past_the_fence(1).unwrap();
    std::fs::remove_file(&point).unwrap();
    let ran = running.finish().expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("1 rows in public.events"), "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply --atomic --writes fence");
    assert_eq!((db.schema(), db.sql("select n from events")), (before, "1".to_owned()));

    // Past the fence, while the migrations run: it waits, whoever only reads does not.
    let mut running = Running::with_faults(&project, &arguments, &format!("up_before_commit=wait:{}", point.display()));
    running.until("the migrations", || point.exists());
    let refused = db.cluster.try_sql(&db.name, "set lock_timeout = '300ms'; begin read write; delete from orders");
    assert!(refused.unwrap_err().contains("lock timeout"));
    assert_eq!(db.sql("select count(*) from orders"), "100");
    std::fs::remove_file(&point).unwrap();
    running.finish().expect_code(0);
    past_the_fence(2).unwrap();
}
