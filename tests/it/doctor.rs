//! `doctor` on a real server: what is found, and which of it fails.

use crate::support::{Cluster, Project};

fn verdict(items: &[serde_json::Value], name: &str) -> String {
    let found = items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name}: {items:#?}"));
    found["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn all_that_is_well_is_told() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    let items = project.json(&["doctor"]).expect_code(0).items();
    for name in ["key", "store", "server", "tools", "control schema", "maintenance database", "ladder", "writes"] {
        assert_eq!(verdict(&items, name), "ok", "{name}: {items:#?}");
    }
    assert_eq!(verdict(&items, "role"), "warning");
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
    let text = project.run(&["doctor"]).expect_code(0).stdout;
    assert!(
        text.contains("restore beside and swap") && text.contains("refuse: writes after the backup are counted"),
        "{text}"
    );
}

#[test]
fn each_mandatory_failure_ends_with_one_and_the_rest_is_told() {
    let db = Cluster::shared().database();
    let no_key = Project::new(&db).env("BACKUP_ENCRYPTION_KEY", "");
    let ran = no_key.json(&["doctor"]).expect_code(1);
    assert_eq!(verdict(&ran.items(), "key"), "failed");
    assert_eq!(verdict(&ran.items(), "server"), "ok");

    let no_server = Project::with_url("postgresql://postgres@127.0.0.1:1/nowhere");
    no_server.configure("[retry]\nattempts = 1");
    let ran = no_server.json(&["doctor"]).expect_code(1);
    assert_eq!((verdict(&ran.items(), "server"), verdict(&ran.items(), "key")), ("failed".to_owned(), "ok".to_owned()));

    let no_store = Project::new(&db);
    no_store.write("file", "").configure("store = \"file/backups\"");
    let ran = no_store.json(&["doctor"]).expect_code(1);
    assert_eq!(verdict(&ran.items(), "store"), "failed");
    let text = no_store.run(&["doctor"]).expect_code(1).stdout;
    assert!(text.contains("FAILED   store") && text.contains("ok       server"), "{text}");
}

#[test]
fn what_makes_a_swap_impossible_is_told_beforehand() {
    let cluster = Cluster::shared();
    let name = format!("plain{}", std::process::id());
    cluster.sql("postgres", &format!("create role {name} login password 'x'"));
    cluster.database_named(&name, &format!("owner {name}"));
    let project = Project::with_url(&cluster.url_as(&name, "x", &name));
    let items = project.json(&["doctor"]).expect_code(0).items();
    assert_eq!(verdict(&items, "ladder"), "warning");
    let told = items.iter().find(|item| item["name"] == "ladder").unwrap()["detail"].as_str().unwrap().to_owned();
    assert!(told.contains("restore in place only") && told.contains("CREATEDB"), "{told}");
}
