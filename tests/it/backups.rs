//! `backup …` on a real server: taking, listing, looking at, verifying, pinning, deleting.

use crate::support::{Cluster, Db, Project};

fn filled<'a>(db: &Db<'a>) -> Project {
    let project = Project::new(db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project
}

#[test]
fn an_item_has_the_fields_that_scripts_hold_on_to() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let id = project.backup(&["--purpose", "scheduled", "--tag", "weekly", "--tag", "keep"]);

    let ran = project.json(&["backup", "list"]).expect_code(0);

    let items = ran.items();
    assert_eq!(items.len(), 2);
    let item = items[0].as_object().unwrap();
    for field in [
        "id",
        "created_at",
        "purpose",
        "database",
        "run_id",
        "status",
        "key_ids",
        "verified_at",
        "drilled_at",
        "raw_bytes",
        "stored_bytes",
        "duration_ms",
        "pinned",
        "tags",
        "keep_reason",
        "location",
    ] {
        assert!(item.contains_key(field), "{field}: {item:?}");
    }
    assert_eq!(item["id"], id.as_str());
    assert_eq!((item["purpose"].as_str(), item["status"].as_str()), (Some("scheduled"), Some("verified")));
    assert_eq!(item["database"], db.name.as_str());
    assert_eq!(item["tags"], serde_json::json!(["keep", "weekly"]));
    assert_eq!(item["pinned"], false);
    assert!(item["raw_bytes"].as_u64().unwrap() > item["stored_bytes"].as_u64().unwrap(), "{item:?}");
    assert!(std::path::Path::new(item["location"].as_str().unwrap()).join("manifest").exists(), "{item:?}");
    assert!(item["duration_ms"].is_u64() && item["drilled_at"].is_null() && item["run_id"].is_null(), "{item:?}");
    assert_eq!(items[1]["purpose"], "pre-apply");
    assert_eq!(items[1]["run_id"], db.sql("select id from ripcord.runs").as_str());
    let text = project.run(&["backup", "list"]).expect_code(0).stdout;
    assert!(text.lines().nth(1).unwrap().contains("the newest good one"), "{text}");
    assert_eq!(
        db.sql(&format!(
            "select purpose || ' ' || status || ' ' || (raw_bytes > 0) || ' ' || (finished_at >= started_at)
                           from ripcord.backup_history where id = '{id}'"
        )),
        "scheduled verified true true"
    );
}

#[test]
fn a_list_needs_no_backup_and_no_server() {
    let db = Cluster::shared().database();
    let empty = Project::new(&db);
    assert_eq!(empty.json(&["backup", "list"]).expect_code(0).items().len(), 0);
    assert!(!empty.store().exists());
    let project = filled(&db);
    let dead = Project::with_url(&format!("postgresql://postgres:x@127.0.0.1:1/{}", db.name))
        .env("RIPCORD_RETRY_ATTEMPTS", "1");
    dead.configure(&format!("store = \"{}\"", project.store().display()));
    dead.configure("[retry]\nattempts = 1");
    let ran = dead.json(&["backup", "list"]).expect_code(0);
    assert_eq!(ran.items().len(), 1);
    assert!(ran.stderr.contains("without the database's own history"), "{ran:#?}");
}

#[test]
fn show_tells_what_is_in_it() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let id = project.backup(&[]);
    for name in ["latest", &id] {
        let ran = project.json(&["backup", "show", name]).expect_code(0);
        let item = ran.items()[0].clone();
        assert_eq!(item["id"], id.as_str());
        assert_eq!(
            item["sealed"]["tables"],
            serde_json::json!([{ "table": "public.orders", "rows": 100, "bytes": 1184 }])
        );
        assert_eq!(item["sealed"]["applied"].as_array().unwrap().len(), 2);
    }
    project.run(&["backup", "show", "zzz"]).expect_code(2);
}

#[test]
fn every_level_of_verifying_finds_its_damage() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let good = project.backup(&[]);
    let bad = project.backup(&[]);
    for level in ["manifest", "archive", "toc"] {
        project.json(&["backup", "verify", "--all", "--level", level]).expect_code(0);
    }
    let location = project.json(&["backup", "show", &bad]).items()[0]["location"].as_str().unwrap().to_owned();
    let archive = std::path::Path::new(&location).join("0.rip");
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();

    // The manifest knows nothing of it; reading the archive does.
    project.json(&["backup", "verify", &bad, "--level", "manifest"]).expect_code(0);
    let ran = project.json(&["backup", "verify", &bad]).expect_code(6);
    assert_eq!(ran.result()["outcome"], "verification_failed");
    project.run(&["backup", "verify", "--all", "--level", "toc"]).expect_code(6);
    let items = project.json(&["backup", "list"]).items();
    assert_eq!((items[0]["id"].as_str(), items[0]["status"].as_str()), (Some(bad.as_str()), Some("damaged")));
    assert_eq!(items[1]["status"], "verified");
    // A damaged one is never the latest, and cannot be restored or counted on.
    assert_eq!(project.json(&["restore", "latest", "--dry-run"]).result()["backup_id"], good.as_str());
    let refused = project.run(&["restore", &bad, "--confirm", &db.name]).expect_code(6);
    refused.expect_end("unchanged", &format!("ripcord restore {good}"));
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(project.json(&["aside", "list"]).items().len(), 0);
}

/// Overwrites a byte in the middle of a backup's archive.
fn damage(project: &Project, id: &str) {
    let location = project.json(&["backup", "show", id]).items()[0]["location"].as_str().unwrap().to_owned();
    let archive = std::path::Path::new(&location).join("0.rip");
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
}

#[test]
fn the_damaged_one_is_named_and_the_others_are_looked_at_all_the_same() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let ids: Vec<String> = (0..3).map(|_| project.backup(&[])).collect();
    damage(&project, &ids[1]);
    let shut = ids[0].clone();
    let cut = project.json(&["backup", "show", &shut]).items()[0]["location"].as_str().unwrap().to_owned();
    let stream = std::path::Path::new(&cut).join("0.rip");
    let length = std::fs::metadata(&stream).unwrap().len();

    for level in ["archive", "toc", "restore"] {
        let ran = project.json(&["backup", "verify", "--all", "--level", level]).expect_code(6);
        assert_eq!(ran.result()["outcome"], "verification_failed");
        let items = ran.items();
        assert_eq!(items.len(), 4, "{ran:#?}");
        for item in &items {
            let expected = if item["id"] == ids[1].as_str() { "damaged" } else { "verified" };
            assert_eq!((item["status"].as_str(), item["level"].as_str()), (Some(expected), Some(level)), "{ran:#?}");
        }
        assert!(ran.stderr.contains(&ids[1]), "{ran:#?}");
    }
    let told =
        |column: &str, id: &str| db.sql(&format!("select {column} from ripcord.backup_history where id = '{id}'"));
    assert_eq!(told("status", &ids[1]), "damaged");
    assert_eq!(
        told("status || ' ' || (verified_at > finished_at) || ' ' || (drilled_at is not null)", &ids[2]),
        "verified true true"
    );
    // No scratch database is left of what was restored.
    let left = "select count(*) from pg_database where shobj_description(oid, 'pg_database') like '%' || $$";
    assert_eq!(db.sql(&format!("{left}{}$$ || '%'", ids[2])), "0");
    // The manifest alone tells a stream that is gone or cut, and not more.
    project.json(&["backup", "verify", &ids[1], "--level", "manifest"]).expect_code(0);
    std::fs::OpenOptions::new().write(true).open(&stream).unwrap().set_len(length - 1).unwrap();
    let ran = project.json(&["backup", "verify", "--all", "--level", "manifest"]).expect_code(6);
    assert!(ran.result()["error"].as_str().unwrap().contains("instead of"), "{ran:#?}");
    let bad: Vec<_> =
        ran.items().iter().filter(|item| item["status"] == "damaged").map(|item| item["id"].clone()).collect();
    assert_eq!(bad, [shut.as_str()]);
}

#[test]
fn samples_reach_every_backup_in_turn_at_each_depth() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    for _ in 0..4 {
        project.backup(&[]);
    }
    let ids = |ran: crate::support::cli::Ran| -> Vec<String> {
        ran.items().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = ids(project.json(&["backup", "list"]));
    all.sort();
    assert_eq!(all.len(), 5);
    for (level, share, count) in [("archive", "40%", 2), ("toc", "10%", 1), ("restore", "20%", 1)] {
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let sample = ids(project.json(&["backup", "verify", "--sample", share, "--level", level]).expect_code(0));
            assert_eq!(sample.len(), count, "{level}");
            seen.extend(sample);
            // A shallower look at all of them in between does not turn the wheel back.
            if level == "toc" {
                project.run(&["backup", "verify", "--all"]).expect_code(0);
            }
        }
        let mut first: Vec<String> = seen[..5].to_vec();
        first.sort();
        assert_eq!(first, all, "{level}: some had no turn");
    }
    // One that is damaged is told, and does not take every turn from now on.
    damage(&project, &all[2]);
    let codes: Vec<i32> = (0..5).map(|_| project.run(&["backup", "verify", "--sample", "20%"]).code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 6).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 4, "{codes:?}");
    project.run(&["backup", "verify", "--sample", "20%", "--level", "manifest"]).expect_code(2);
    project.run(&["backup", "verify", "--sample", "20"]).expect_code(2);
    project.run(&["backup", "verify", "--sample", "20%", "--all"]).expect_code(2);
}

#[test]
fn another_key_opens_nothing() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    project.backup(&[]);
    let other = Project::new(&db).env("BACKUP_ENCRYPTION_KEY", &"ab".repeat(32));
    other.configure(&format!("store = \"{}\"", project.store().display()));
    // The list needs no key.
    let ran = other.json(&["backup", "list"]);
    assert!(ran.code != 0 || ran.items().len() == 2, "{ran:#?}");
    let wrong = other.run(&["restore", "latest", "--confirm", &db.name]);
    assert!(matches!(wrong.code, 1 | 2 | 6), "{wrong:#?}");
    assert!(wrong.stderr.contains("key"), "{wrong:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "100");
    // Whoever looks around is told the same, and not that somebody altered a journal.
    let told = "the key is not the one that this database's backups were made with";
    project.run(&["apply"]).expect_code(0);
    let recover = other.run(&["recover"]).expect_code(2);
    assert!(recover.stderr.contains(told), "{recover:#?}");
    let doctor = other.run(&["doctor"]);
    assert!(doctor.stdout.contains("FAILED   key of the backups"), "{doctor:#?}");
    let status = other.run(&["status"]);
    assert!(status.stdout.contains(told) && !status.stdout.contains("next: "), "{status:#?}");
}

#[test]
fn a_pin_holds_and_the_last_good_one_stays() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let first = project.json(&["backup", "list"]).items()[0]["id"].as_str().unwrap().to_owned();
    project.run(&["backup", "delete", &first]).expect_code(7).expect_end("unchanged", "ripcord backup create");
    let second = project.backup(&[]);
    project.json(&["backup", "pin", &first[..20]]).expect_code(0);
    assert_eq!(project.json(&["backup", "list"]).items()[1]["pinned"], true);
    assert_eq!(db.sql(&format!("select pinned from ripcord.backup_history where id = '{first}'")), "t");
    let hint = format!("ripcord backup unpin {first}");
    project.run(&["backup", "delete", &first]).expect_code(7).expect_end("unchanged", &hint);
    project.json(&["backup", "unpin", &first]).expect_code(0);

    let ran = project.json(&["backup", "delete", &first]).expect_code(0);

    assert_eq!(ran.result()["backup_id"], first.as_str());
    let items = project.json(&["backup", "list"]).items();
    let told: Vec<_> =
        items.iter().map(|item| (item["id"].as_str().unwrap(), item["status"].as_str().unwrap())).collect();
    assert_eq!(told, [(second.as_str(), "verified"), (first.as_str(), "deleted")]);
    assert_eq!(
        db.sql(&format!(
            "select status || ' ' || (deleted_at is not null) from ripcord.backup_history where id = '{first}'"
        )),
        "deleted true"
    );
    project.run(&["backup", "delete", &second]).expect_code(7).expect_end("unchanged", "ripcord backup create");
}

#[test]
fn a_backup_that_the_store_lost_is_reported_until_it_is_deleted() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let lost = project.backup(&[]);
    let kept = project.backup(&[]);
    let location = project.json(&["backup", "show", &lost]).items()[0]["location"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(location).unwrap();

    let items = project.json(&["backup", "list"]).expect_code(0).items();

    assert_eq!((items[1]["id"].as_str(), items[1]["status"].as_str()), (Some(lost.as_str()), Some("damaged")));
    assert!(items[1]["error"].as_str().unwrap().contains("the store does not have it"), "{items:#?}");
    project.run(&["backup", "verify", "--all"]).expect_code(6);
    assert_eq!(project.json(&["restore", "latest", "--dry-run"]).result()["backup_id"], kept.as_str());
    project.run(&["backup", "delete", &lost]).expect_code(0);
    assert_eq!(project.json(&["backup", "list"]).items()[1]["status"], "deleted");
    project.run(&["backup", "verify", "--all"]).expect_code(0);
}

#[test]
fn a_dump_that_fails_is_a_failed_backup_and_nothing_goes() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let good = project.backup(&[]);
    // pg_dump finds its own damage only while it reads: a view over a function that is gone from the server.
    db.sql("create table broken (a int); alter table broken enable row level security; alter table broken force row level security");
    let role = format!("seer{}", std::process::id());
    db.cluster.sql("postgres", &format!("create role {role} login password 'x' in role pg_read_all_data"));
    let weak = Project::with_url(&db.cluster.url_as(&role, "x", &db.name));
    weak.configure(&format!("store = \"{}\"", project.store().display()));
    let ran = weak.run(&["backup", "create", "--prune"]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    let items = project.json(&["backup", "list"]).items();
    assert_eq!(items.iter().filter(|item| item["status"] == "verified").count(), 2, "{items:#?}");
    assert_eq!(project.json(&["restore", "latest", "--dry-run"]).result()["backup_id"], good.as_str());
}

#[test]
fn a_damaged_newest_backup_names_the_one_before_it() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    let older = project.backup(&[]);
    let newest = project.backup(&[]);
    damage(&project, &newest);

    let ran = project.json(&["restore", "latest", "--confirm", &db.name]).expect_code(6);

    let hint = ran.result()["hint"].as_str().unwrap().to_owned();
    let next = hint.split("ripcord ").last().unwrap();
    assert_eq!(next, format!("restore {older}"), "{ran:#?}");
    project.run(&["restore", &older, "--confirm", &db.name]).expect_code(0);
}
