//! `drill` on a real server: evidence, exit codes, and nothing left behind.

use crate::support::{Cluster, Db, Project};

fn filled<'a>(db: &Db<'a>) -> Project {
    let project = Project::new(db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project
}

/// Scratch databases that hold this backup.
fn scratch_of(cluster: &Cluster, backup: &str) -> Vec<String> {
    let found = cluster.sql(
        "postgres",
        &format!("select datname from pg_database where datname like 'rc\\_%' and shobj_description(oid, 'pg_database') like '%{backup}%'"),
    );
    found.lines().map(str::to_owned).collect()
}

#[test]
fn a_backup_is_really_restored_and_compared() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    db.sql("create table other as select g, md5(g::text) from generate_series(1, 500) g");
    let id = project.backup(&[]);
    // What happens to the database afterwards is not the backup's fault.
    db.sql("delete from orders");

    let ran = project.json(&["drill", "latest", "-o", "evidence.json"]).expect_code(0);

    let item = ran.items()[0].clone();
    assert_eq!(item["backup"], id.as_str());
    assert_eq!((&item["good"], &item["proof"]["kind"]), (&true.into(), &"digests".into()), "{item}");
    assert_eq!(
        (item["proof"]["rows_compared"].as_u64(), item["proof"]["tables_compared"].as_u64()),
        (Some(600), Some(2))
    );
    assert!(item["phases"]["load_ms"].is_u64() && item["duration_ms"].as_u64().unwrap() > 0, "{item}");
    let evidence: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(project.path().join("evidence.json")).unwrap()).unwrap();
    assert_eq!(evidence, item);
    assert_eq!(scratch_of(db.cluster, &id), Vec::<String>::new());
    assert!(!project.json(&["backup", "show", &id]).items()[0]["drilled_at"].is_null());
    assert_eq!(db.sql(&format!("select drilled_at is not null from ripcord.backup_history where id = '{id}'")), "t");
    assert_eq!(db.sql("select detail ->> 'good' from ripcord.audit_log where action = 'drilled'"), "true");
    assert!(!project.json(&["status"]).items()[0]["last_drill"].is_null());
    let text = project.run(&["drill"]).expect_code(0);
    assert!(text.stdout.contains("600 rows in 2 tables came back as they were"), "{text:#?}");
}

#[test]
fn a_scratch_database_may_be_kept() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let id = project.backup(&[]);
    let ran = project.json(&["drill", &id, "--keep"]).expect_code(0);
    let kept = ran.items()[0]["kept"].as_str().unwrap().to_owned();
    assert_eq!(scratch_of(db.cluster, &id), std::slice::from_ref(&kept));
    assert_eq!(db.cluster.sql(&kept, "select count(*) from orders"), "100");
    assert_ne!(db.cluster.sql(&kept, "select lineage from ripcord.meta"), db.sql("select lineage from ripcord.meta"));
}

#[test]
fn a_function_that_needs_a_search_path_is_found_out() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let fine = project.backup(&[]);
    project.run(&["drill"]).expect_code(0);
    // Restores run with an empty search_path, so `orders` is not found there.
    db.sql(
        "create function known(int) returns boolean language sql as 'select exists (select from orders where id = $1)';
         create table lines (id int, of_order int check (known(of_order))); insert into lines values (1, 1)",
    );
    let id = project.backup(&[]);

    let ran = project.json(&["drill", "-o", "evidence.json"]).expect_code(6);

    let result = ran.result();
    assert_eq!(result["outcome"], "verification_failed", "{ran:#?}");
    let error = result["error"].as_str().unwrap();
    assert!(error.contains(&id) && error.contains("cannot be restored") && error.contains("orders"), "{ran:#?}");
    assert!(result["hint"].as_str().unwrap().contains("ripcord backup create"), "{ran:#?}");
    assert_eq!(scratch_of(db.cluster, &id), Vec::<String>::new());
    let evidence: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(project.path().join("evidence.json")).unwrap()).unwrap();
    assert_eq!(evidence["good"], false);
    // It was tried, which is not the same as a drill that went well.
    let items = project.json(&["backup", "list"]).items();
    assert!(items[0]["drilled_at"].is_null() && items[0]["error"].as_str().unwrap().contains("drill"), "{items:#?}");
    assert_eq!(items[1]["id"], fine.as_str());
    assert!(!items[1]["drilled_at"].is_null());
    // And a restore of it leaves the target alone.
    let restore = project.run(&["restore", "latest", "--confirm", &db.name]);
    assert_eq!(restore.code, 1, "{restore:#?}");
    restore.expect_end("unchanged", "");
    assert_eq!(db.sql("select count(*) from lines"), "1");
}

#[test]
fn a_role_that_may_not_create_databases_says_nothing_of_the_backup() {
    let cluster = Cluster::shared();
    let name = format!("nocreate{}", std::process::id());
    cluster.sql("postgres", &format!("create role {name} login password 'x'"));
    let db = cluster.database_named(&name, &format!("owner {name}"));
    let project = Project::with_url(&cluster.url_as(&name, "x", &name));
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.backup(&[]);
    let ran = project.run(&["drill"]).expect_code(1);
    assert!(ran.stderr.contains("permission denied to create database"), "{ran:#?}");
    let item = project.json(&["backup", "show", "latest"]).items()[0].clone();
    assert!(item["error"].is_null() && item["drilled_at"].is_null(), "{item}");
    assert_eq!(db.sql("select count(*) from ripcord.audit_log where action = 'drilled'"), "0");
}

#[test]
fn another_server_can_be_drilled_on() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    db.sql("select lo_from_bytea(0, 'abc')");
    let id = project.backup(&[]);
    let other = Cluster::start(&[]);
    let url = other.url("postgres");

    let ran = project.json(&["drill", "--server", &url, "--keep"]).expect_code(0);

    let item = ran.items()[0].clone();
    assert_eq!(scratch_of(db.cluster, &id), Vec::<String>::new());
    let kept = item["kept"].as_str().unwrap();
    assert_eq!(other.sql(kept, "select count(*) from orders"), "100");
    assert!(item["server"].as_str().unwrap().contains(&other.port().to_string()), "{item}");
    assert!(!ran.stdout.contains("s3cr3t") && !ran.stderr.contains("s3cr3t"), "{ran:#?}");
    assert_eq!(db.sql(&format!("select drilled_at is not null from ripcord.backup_history where id = '{id}'")), "t");
    // On the day on which the first server is gone, store and key are enough.
    let gone = Project::with_url(&format!("postgresql://postgres:x@127.0.0.1:1/{}", db.name));
    gone.configure(&format!("store = \"{}\"", project.store().display()));
    gone.configure("[retry]\nattempts = 1");
    let ran = gone.json(&["drill", "--server", &url]).expect_code(0);
    assert_eq!(ran.items()[0]["backup"], id.as_str());
}

#[test]
fn nothing_to_drill_is_said() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.run(&["drill"]).expect_code(1).expect_end("unchanged", "ripcord restore latest --from-database NAME");
}

/// The drill of a backup that does not hold: what it says, what stands in the evidence, and that nothing is left.
#[track_caller]
fn does_not_hold(db: &Db<'_>, project: &Project, id: &str, says: &[&str]) {
    let ran = project.json(&["drill", id, "-o", "evidence.json"]).expect_code(6);
    let result = ran.result();
    assert_eq!(result["outcome"], "verification_failed", "{ran:#?}");
    let error = result["error"].as_str().unwrap();
    assert!(error.contains(id), "{ran:#?}");
    for said in says {
        assert!(error.contains(said), "not `{said}`: {ran:#?}");
    }
    assert!(result["hint"].as_str().unwrap().contains("ripcord "), "{ran:#?}");
    let evidence: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(project.path().join("evidence.json")).unwrap()).unwrap();
    assert_eq!((&evidence["good"], evidence["error"].as_str()), (&false.into(), Some(error)), "{evidence}");
    assert_eq!(scratch_of(db.cluster, id), Vec::<String>::new());
    let audited = "select detail ->> 'good' from ripcord.audit_log where action = 'drilled' order by at desc limit 1";
    assert_eq!(db.sql(audited), "false");
    assert!(project.json(&["backup", "show", id]).items()[0]["drilled_at"].is_null());
}

#[test]
fn a_damaged_archive_is_told_as_damaged() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let id = project.backup(&[]);
    let lineage = db.sql("select lineage from ripcord.meta");
    let path = project.store().join(lineage).join("backups").join(&id).join("0.rip");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();

    does_not_hold(&db, &project, &id, &["is damaged", "frame", "was changed after it was sealed"]);

    let item = project.json(&["backup", "show", &id]).items()[0].clone();
    assert_eq!(item["status"], "damaged", "{item}");
}

#[test]
fn a_digest_that_was_changed_and_sealed_again_with_the_right_key() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    db.sql("create sequence numbers; select nextval('numbers') from generate_series(1, 7)");
    let of_orders = |sealed: &mut ripcord::manifest::Sealed, other: &dyn Fn(&mut ripcord::archive::Digest)| {
        let blocks = &mut sealed.streams[0].index.blocks;
        other(&mut blocks.iter_mut().find(|block| block.table.lossy() == "orders").unwrap().digest);
    };
    for (what, says) in [
        ("sum", &["is not what it says it is", "orders", "their digest is another"][..]),
        ("count", &["is not what it says it is", "orders"]),
        ("sequence", &["is not what was backed up", "sequence set back", "numbers (8 → 7)"]),
        ("object", &["is not what was backed up", "missing"]),
        ("catalog", &["is not what was backed up", "catalog: no longer: view public.ghost not populated"]),
    ] {
        let id = project.backup(&[]);
        crate::support::forge::reseal(&project.store(), &id, |sealed| match what {
            "sum" => of_orders(sealed, &|digest| digest.sum = digest.sum.wrapping_add(1)),
            "count" => of_orders(sealed, &|digest| digest.rows += 1),
            "sequence" => {
                let (name, _) = sealed.sequences.iter().next().unwrap();
                sealed.sequences = [(name.clone(), (8, true))].into();
            }
            "object" => {
                let mut item = sealed.inventory.items.last().unwrap().clone();
                item.name.push_str(" that is not there");
                sealed.inventory.items.push(item);
                sealed.fingerprint = sealed.inventory.fingerprint();
            }
            _ => sealed.catalog_extras.push("view public.ghost not populated".to_owned()),
        });
        // Every tag is right: reading it back finds nothing.
        project.run(&["backup", "verify", &id]).expect_code(0);
        does_not_hold(&db, &project, &id, says);
    }
}
