//! `prune` on real backups: what each rule keeps, what is said of it, and what a crash or a run beside it does.

use crate::support::{Cluster, Db, Project};

fn filled<'a>(db: &Db<'a>) -> Project {
    let project = Project::new(db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project
}

fn left(project: &Project) -> Vec<String> {
    let items = project.json(&["backup", "list"]).expect_code(0).items();
    items
        .iter()
        .filter(|item| item["status"] == "verified")
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn each_rule_keeps_its_own_and_says_so() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let tagged = project.backup(&["--tag", "release"]);
    let pinned = project.backup(&[]);
    project.run(&["backup", "pin", &pinned]).expect_code(0);
    let newest = project.backup(&["--purpose", "scheduled"]);
    let before = left(&project);
    assert_eq!(before.len(), 4);

    let rules = ["--keep-last", "1", "--keep-within", "0s", "--keep-tag", "release", "--dry-run"];
    let mut arguments = vec!["prune"];
    arguments.extend(rules);
    let planned = project.json(&arguments).expect_code(0).items();
    let told: Vec<_> = planned
        .iter()
        .map(|item| {
            (item["id"].as_str().unwrap(), item["keep"].as_bool().unwrap(), item["keep_reason"].as_str().unwrap())
        })
        .collect();
    assert_eq!(told[0], (newest.as_str(), true, "the newest good one, last 1 of 1"));
    assert!(told[1].0 == pinned && told[1].1 && told[1].2.contains("pinned"), "{told:?}");
    assert!(told[2].0 == tagged && told[2].1 && told[2].2.contains("tag"), "{told:?}");
    assert_eq!((told[3].1, told[3].2), (false, "no rule keeps it"));
    let text = project.run(&arguments).expect_code(0).stdout;
    assert!(text.contains("would go") && text.contains("because"), "{text}");
    assert_eq!(left(&project), before);

    arguments.pop();
    let gone = project.json(&arguments).expect_code(0).items();
    assert_eq!(gone.iter().filter(|item| item["keep"] == false).count(), 1);
    assert_eq!(left(&project), before[..3]);
    assert_eq!(
        db.sql(&format!(
            "select status || ' ' || (deleted_at is not null) from ripcord.backup_history where id = '{}'",
            before[3]
        )),
        "deleted true"
    );
    // Once more finds nothing to do.
    let again = project.json(&arguments).expect_code(0).items();
    assert!(again.iter().all(|item| item["keep"] == true), "{again:?}");
}

#[test]
fn the_periods_and_the_size_keep_at_least_the_newest() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    for _ in 0..2 {
        project.backup(&[]);
    }
    for rule in ["--keep-hourly", "--keep-daily", "--keep-weekly", "--keep-monthly", "--keep-yearly"] {
        let items = project
            .json(&["prune", "--keep-last", "0", "--keep-within", "0s", rule, "5", "--dry-run"])
            .expect_code(0)
            .items();
        assert_eq!(items[0]["keep"], true, "{rule}: {items:?}");
        let reason = items[0]["keep_reason"].as_str().unwrap();
        assert!(reason.contains(&rule[7..]) || reason.contains("newest good"), "{rule}: {reason}");
    }
    let items = project.json(&["prune", "--max-size", "1KiB", "--dry-run"]).expect_code(0).items();
    assert_eq!(items[0]["keep"], true);
    assert!(items[1..].iter().all(|item| item["keep"] == false), "{items:?}");
    assert_eq!(left(&project).len(), 3);
}

#[test]
fn a_prune_that_is_killed_is_finished_by_the_next() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    for _ in 0..3 {
        project.backup(&[]);
    }
    let arguments = ["prune", "--keep-last", "1", "--keep-within", "0s"];
    let killed = project.command(&arguments).env("RIPCORD_FAULTS", "prune_delete=kill").status().unwrap();
    assert_eq!(killed.code(), None, "it was killed");
    assert_eq!(left(&project).len(), 4);
    project.run(&arguments).expect_code(0);
    assert_eq!(left(&project).len(), 1);
    project.run(&arguments).expect_code(0);
    assert_eq!(left(&project).len(), 1);
    project.run(&["backup", "verify", "--all"]).expect_code(0);
}

#[test]
fn a_prune_beside_a_running_apply_takes_nothing_from_it() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let flag = project.path().join("waiting");
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
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
    // A newer one, so that the run's own is not kept as the newest; the lock is the run's, so a copy is made by hand.
    let items = project.json(&["prune", "--keep-last", "0", "--keep-within", "0s"]).expect_code(0).items();
    let own = items
        .iter()
        .find(|item| item["keep_reason"].as_str().unwrap().contains("run"))
        .expect("the run's backup is kept for it");
    assert_eq!(own["keep"], true);
    project
        .run(&["backup", "delete", own["id"].as_str().unwrap()])
        .expect_code(7)
        .expect_end("unchanged", "ripcord recover");
    std::fs::remove_file(&flag).unwrap();
    assert!(running.wait().unwrap().success());
    project.run(&["backup", "verify", "--all"]).expect_code(0);
}

#[test]
fn leftovers_of_a_killed_backup_go_only_when_they_are_old() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let killed =
        project.command(&["backup", "create"]).env("RIPCORD_FAULTS", "backup_read_back=kill").status().unwrap();
    let lineage = db.sql("select lineage from ripcord.meta");
    let folder = project.store().join(&lineage).join("backups");
    let young: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.join("manifest").exists())
        .collect();
    assert_eq!((killed.code(), young.len()), (None, 1));
    // One that began two days ago: its id tells.
    let stamp =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() - 48 * 3600 * 1000;
    let hex = format!("{stamp:012x}");
    let old = folder.join(format!("{}-{}-7000-8000-000000000001", &hex[..8], &hex[8..]));
    std::fs::create_dir(&old).unwrap();
    std::fs::write(old.join("0.rip"), "half").unwrap();

    project.run(&["prune"]).expect_code(0);

    assert!(!old.exists());
    assert!(young[0].exists());
    assert_eq!(left(&project).len(), 1);
    let items = project.json(&["backup", "list"]).items();
    assert!(items.iter().all(|item| item["status"] != "complete"), "{items:?}");
}

#[test]
fn failed_backups_push_no_good_one_out() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let good = left(&project);
    for _ in 0..3 {
        project.command(&["backup", "create"]).env("RIPCORD_FAULTS", "backup_read_back=kill").status().unwrap();
    }
    project.run(&["prune", "--keep-last", "1", "--keep-within", "0s"]).expect_code(0);
    assert_eq!(left(&project), good);
}

#[test]
fn nothing_goes_while_the_server_does_not_answer_and_all_may_go_when_the_database_is_no_more() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = filled(&db);
    project.backup(&[]);
    let good = left(&project);
    assert_eq!(good.len(), 2);
    let manifests = || {
        let lineage = std::fs::read_dir(project.store()).unwrap().next().unwrap().unwrap().path();
        let backups = std::fs::read_dir(lineage.join("backups")).unwrap();
        backups.filter(|backup| backup.as_ref().unwrap().path().join("manifest").exists()).count()
    };
    let prune = ["prune", "--keep-last", "1", "--keep-within", "0s"];
    cluster.stop_immediately();

    let ran = project.run(&prune).expect_code(1);

    assert!(ran.stderr.contains("so no backup is removed"), "{ran:#?}");
    assert_eq!(manifests(), 2);
    let ran = project.run(&["backup", "delete", &good[1]]).expect_code(1);
    assert!(ran.stderr.contains("so no backup is removed"), "{ran:#?}");
    assert_eq!(manifests(), 2);

    cluster.restart();
    assert_eq!(left(&project), good);
    cluster.sql("postgres", &format!("drop database {}", db.name));
    project.run(&prune).expect_code(0);
    assert_eq!(manifests(), 1);
}
