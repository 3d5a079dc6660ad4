//! The small commands on a real server: init and the way from there, lock, baseline, repair, reset-failed, fresh, new.

use crate::support::{Cluster, Project};

const STATES: &str = "select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations";

#[test]
fn from_init_to_a_restore_by_the_words_of_the_help() {
    let db = Cluster::shared().database();
    let project = Project::new(&db).env("BACKUP_ENCRYPTION_KEY", "");
    std::fs::remove_file(project.path().join("ripcord.toml")).unwrap();
    std::fs::remove_dir(project.path().join("migrations")).unwrap();
    let development = |arguments: &[&str]| {
        let mut all = vec!["--env", "development"];
        all.extend(arguments);
        project.run(&all)
    };
    let init = development(&["init"]).expect_code(0);
    for file in ["ripcord.toml", "migrations", ".gitignore"] {
        assert!(project.path().join(file).exists(), "{file}: {init:#?}");
    }
    development(&["doctor"]).expect_code(0);
    let new = development(&["new", "add orders", "what customers buy"]).expect_code(0);
    let file = project.path().join(new.stdout.trim().lines().next().unwrap());
    assert!(file.exists(), "{new:#?}");
    assert!(file.file_name().unwrap().to_str().unwrap().contains("add_orders"), "{new:#?}");
    std::fs::write(
        &file,
        "-- UP\nCREATE TABLE orders (id int);\nINSERT INTO orders VALUES (1);\n\n-- DOWN\nDROP TABLE orders;\n",
    )
    .unwrap();
    development(&["validate"]).expect_code(0);
    development(&["plan"]).expect_code(0);
    development(&["apply"]).expect_code(0).expect_end("1 migration applied", "");
    development(&["backup", "create"]).expect_code(0);
    development(&["drill", "latest"]).expect_code(0);
    db.sql("drop table orders");
    development(&["restore", "latest", "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "1");
    development(&["rollback"]).expect_code(0);
    development(&["status", "--exit-code"]).expect_code(1);
    // Nothing is overwritten by a second one.
    let toml = std::fs::read_to_string(project.path().join("ripcord.toml")).unwrap();
    development(&["init"]);
    assert_eq!(std::fs::read_to_string(project.path().join("ripcord.toml")).unwrap(), toml);
}

#[test]
fn the_lock_is_shown_and_can_be_broken() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    let free = project.json(&["lock", "status"]).expect_code(0).items()[0].clone();
    assert_eq!((&free["held"], free["row"].is_null()), (&false.into(), true));
    project.shop();
    let flag = project.path().join("waiting");
    let mut running = project
        .command(&["apply"])
        .env("RIPCORD_FAULTS", format!("up_before_commit=wait:{}", flag.display()))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !flag.exists() {
        assert!(running.try_wait().unwrap().is_none(), "the run ended without waiting");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let held = project.json(&["lock", "status"]).expect_code(0).items()[0].clone();
    assert_eq!((&held["held"], &held["row"]["command"]), (&true.into(), &"apply".into()), "{held}");
    assert_eq!(held["row"]["pid"].as_u64(), Some(running.id().into()));
    for second in
        [&["apply"][..], &["backup", "create"], &["rollback"], &["baseline", "001"], &["fresh", "--confirm", &db.name]]
    {
        let ran = project.run(second);
        assert!(ran.code == 5 || (second[0] == "rollback" && ran.code == 2), "{second:?}: {ran:#?}");
        assert!(ran.stderr.contains("hint: "), "{second:?}: {ran:#?}");
    }
    running.kill().unwrap();
    running.wait().unwrap();
    let _ = std::fs::remove_file(&flag);
    // Its sessions go with it; what is left is the row and the journal.
    for _ in 0..200 {
        if project.json(&["lock", "status"]).items()[0]["held"] == false {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let dead = project.run(&["lock", "status"]).expect_code(0);
    assert!(dead.stdout.contains("ripcord recover"), "{dead:#?}");
    project.run(&["lock", "release"]).expect_code(0).expect_end("unchanged", "ripcord recover");
    assert_eq!(db.sql("select count(*) from ripcord.lock"), "0");
    assert_eq!(db.sql("select count(*) from ripcord.audit_log where action = 'lock released'"), "1");
    let recovered = project.run(&["recover"]);
    assert!(matches!(recovered.code, 0 | 1), "{recovered:#?}");
    project.run(&["apply"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "100");
}

#[test]
fn a_baseline_is_recorded_and_not_run() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop().migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    db.sql("create table orders (id int primary key, note text)");
    project.run(&["baseline", "9"]).expect_code(2).expect_end("unchanged", "ripcord status");
    let ran = project.json(&["baseline", "002"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done");
    assert_eq!(db.sql(STATES), "001 baseline, 002 baseline");
    assert_eq!(db.sql("select count(*) from orders"), "0");
    project.run(&["apply"]).expect_code(0);
    assert_eq!(db.sql(STATES), "001 baseline, 002 baseline, 003 applied");
    // A second time there is nothing to record.
    project.run(&["baseline", "003"]).expect_code(0);
    assert_eq!(db.sql(STATES), "001 baseline, 002 baseline, 003 applied");
}

#[test]
fn repair_takes_over_checksums_and_forgets() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.migration("002_fill.sql", "INSERT INTO orders SELECT 1;", "DELETE FROM orders;");
    let changed = project.run(&["apply"]).expect_code(1);
    changed.expect_end("unchanged", "ripcord repair");
    let ran = project.run(&["repair"]).expect_code(0);
    assert!(ran.stderr.contains("002_fill"), "{ran:#?}");
    project.run(&["apply"]).expect_code(0).expect_end("up to date", "");
    assert_eq!(project.json(&["repair"]).expect_code(0).result()["outcome"], "nothing_to_do");
    project.run(&["repair", "--forget", "nonsense"]).expect_code(2).expect_end("unchanged", "ripcord history");
    project.run(&["repair", "--forget", "fill"]).expect_code(0);
    assert_eq!(db.sql(STATES), "001 applied, 002 forgotten");
    assert_eq!(project.json(&["status"]).items()[0]["pending"][0]["version"], "002");
}

#[test]
fn fresh_backs_up_empties_and_applies_everything() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    db.sql("create schema extra; create table extra.t (id int); insert into extra.t values (1); delete from orders where id > 5");
    project.run(&["fresh"]).expect_code(7).expect_end("unchanged", &format!("ripcord fresh --confirm {}", db.name));
    project.run(&["fresh", "--confirm", "other"]).expect_code(7).expect_end("unchanged", "ripcord fresh --confirm");
    project.configure("[environments.live]\nprotected = true\napproval = false");
    project
        .run(&["-e", "live", "fresh", "--confirm", &db.name])
        .expect_code(7)
        .expect_end("unchanged", "--env development");
    assert_eq!(db.sql("select count(*) from extra.t"), "1");

    let ran = project.json(&["fresh", "--confirm", &db.name]).expect_code(0);

    let result = ran.result();
    assert_eq!((&result["command"], &result["outcome"]), (&"fresh".into(), &"done".into()), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(db.sql("select to_regnamespace('extra') is null"), "t");
    assert_eq!(db.sql(STATES), "001 restored_away, 002 restored_away, 001 applied, 002 applied");
    let safety = db.sql("select id from ripcord.backup_history where purpose = 'safety'");
    assert!(result["database"].as_str().unwrap().contains(&safety), "{ran:#?}");
    project.run(&["restore", &safety, "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "5");
    assert_eq!(db.sql("select count(*) from extra.t"), "1");
    project.run(&["status", "--exit-code"]).expect_code(0);
}

#[test]
fn fresh_that_fails_says_that_the_database_was_emptied() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.run(&["fresh", "--confirm", &db.name]);
    assert!(matches!(ran.code, 1 | 3), "{ran:#?}");
    let safety = db.sql("select id from ripcord.backup_history where purpose = 'safety'");
    ran.expect_end("EMPTIED", &format!("ripcord restore {}", &safety[..13]));
    project.run(&["restore", &safety, "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "100");
}
