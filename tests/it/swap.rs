//! Databases that a restore replaces: what others see meanwhile, what is kept, and what may be dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Cluster, Project};

#[test]
fn sessions_that_reconnect_never_meet_an_empty_database() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.backup(&[]);
    db.sql("delete from orders where id > 60");
    let over = Arc::new(AtomicBool::new(false));
    let answers = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (over, name) = (Arc::clone(&over), db.name.clone());
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    loop {
                        let last = over.load(Ordering::SeqCst);
                        seen.push(Cluster::shared().try_sql(&name, "select count(*) from orders"));
                        if last {
                            return seen;
                        }
                    }
                })
            })
            .collect();
        let ran = project.json(&["restore", "latest", "--confirm", &db.name]);
        over.store(true, Ordering::SeqCst);
        let seen: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
        ran.expect_code(0);
        seen
    });
    for answer in &answers {
        match answer {
            Ok(count) => assert!(count == "60" || count == "100", "{count}"),
            Err(error) => assert!(
                error.contains("not currently accepting connections")
                    || error.contains("terminating connection")
                    || error.contains("connection to server"),
                "{error}"
            ),
        }
    }
    assert!(answers.contains(&Ok("60".to_owned())) && answers.contains(&Ok("100".to_owned())), "{answers:?}");
}

#[test]
fn replaced_databases_are_kept_until_they_are_dropped_by_name() {
    let db = Cluster::shared().database();
    let other = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.backup(&[]);
    for left in ["80", "70"] {
        db.sql(&format!("delete from orders where id > {left}"));
        project.run(&["restore", "latest", "--confirm", &db.name]).expect_code(0);
        assert_eq!(db.sql("select count(*) from orders"), "100");
    }

    let kept = project.json(&["aside", "list"]).expect_code(0).items();

    let names: Vec<String> = kept.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 2);
    let told = project.run(&["aside", "list"]).expect_code(0).stdout;
    assert!(told.contains(&format!("`{}` until ", db.name)) && told.contains("replaced by backup `"), "{told}");
    for (name, rows) in names.iter().zip(["80", "70"]) {
        // Nobody writes to it by mistake.
        assert!(db.cluster.try_sql(name, "select 1").unwrap_err().contains("not currently accepting connections"));
        db.cluster.sql("postgres", &format!("alter database {name} allow_connections true"));
        assert_eq!(db.cluster.sql(name, "select count(*) from orders"), rows);
    }
    for foreign in [other.name.as_str(), db.name.as_str(), "postgres", "template1"] {
        project.run(&["aside", "drop", foreign]).expect_code(2).expect_end("unchanged", "ripcord aside list");
    }
    assert_eq!(other.sql("select 1"), "1");
    project.run(&["aside", "drop", &names[0]]).expect_code(0).expect_end(&format!("`{}` is gone", names[0]), "");
    let left = project.json(&["aside", "list"]).items();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["name"], names[1].as_str());
    assert_eq!(db.sql("select action from ripcord.audit_log order by id desc limit 1"), "aside dropped");
    assert_eq!(project.json(&["status"]).items()[0]["aside"], serde_json::json!([names[1]]));
}

#[test]
fn a_swap_that_cannot_be_is_told_with_its_reason() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.backup(&[]);
    let gid = format!("left_{}", db.name);
    db.sql(&format!("begin; insert into orders values (500); prepare transaction '{gid}'"));

    let swap = project.run(&["restore", "latest", "--mode", "swap", "--confirm", &db.name]).expect_code(1);

    assert!(swap.stderr.contains("prepared transactions are open"), "{swap:#?}");
    swap.expect_end("unchanged", "--mode in-place");
    db.sql(&format!("rollback prepared '{gid}'"));
    project.run(&["restore", "latest", "--mode", "swap", "--confirm", &db.name]).expect_code(0);
}
