//! Properties, scratch and kept databases.

use ripcord::error::Kind;
use ripcord::ids::{BackupId, Lineage, RunId};
use ripcord::postgres::databases::{
    Aside, SCRATCH_COMMENT, apply_properties, create, drop_aside, drop_hindrances, drop_scratch, extensions, find,
    list_aside, read_properties, scratch_name,
};

use super::{LIMIT, maintenance, role, target_of, unique};
use crate::support::Cluster;

#[tokio::test]
async fn properties_come_back() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let (owner, odd, giver, taker) = (role(cluster, ""), unique("Odd \"r=/"), role(cluster, ""), role(cluster, ""));
    let odd_quoted = format!("\"{}\"", odd.replace('"', "\"\""));
    cluster.sql("postgres", &format!("create role {odd_quoted}"));
    let db = cluster.database_named(&unique("props"), &format!("owner {owner} connection limit 50"));
    let name = &db.name;
    db.sql(&format!(
        "alter database {name} set work_mem = '7MB';
         alter database {name} set search_path = \"$user\", \"It\"\"s, mine\", public, '';
         alter database {name} set datestyle = 'SQL, DMY'; alter database {name} set my.tenant = 'a=b''c\\d';
         alter database {name} set temp_tablespaces = ''; alter role {giver} in database {name} set statement_timeout = '9s';
         alter role {odd_quoted} in database {name} set search_path = '';
         comment on database {name} is E'it''s \\\\ \"mine\"\\nü';
         revoke all on database {name} from public; revoke temporary on database {name} from {owner};
         grant connect on database {name} to {odd_quoted}; grant connect, create on database {name} to {giver} with grant option;
         grant temporary on database {name} to {giver};
         set role {giver}; grant connect on database {name} to {taker}"
    ));
    let properties = read_properties(&m, name).await.unwrap();
    assert_eq!(properties.owner, owner);
    assert_eq!((properties.encoding.as_str(), properties.collate.as_str()), ("UTF8", "C.UTF-8"));
    assert_eq!(properties.connection_limit, 50);
    assert_eq!(properties.comment.as_deref(), Some("it's \\ \"mine\"\nü"));
    assert_eq!(properties.settings[&giver], ["statement_timeout=9s"]);

    for copy in [scratch_name(), unique("restored")] {
        let oid = create(&m, &copy, &properties, "from backup x").await.unwrap();
        let found = find(&m, &copy).await.unwrap().unwrap();
        assert_eq!(found.oid, oid);
        assert!(found.allows_connections);
        assert_eq!(
            cluster.sql("postgres", &format!("select has_database_privilege('{taker}', '{copy}', 'connect')")),
            "f"
        );
        let warnings = apply_properties(&m, &copy, &properties).await.unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        let mut after = read_properties(&m, &copy).await.unwrap();
        for acl in [&mut after.acl, &mut properties.acl.clone()] {
            acl.as_mut().unwrap().sort();
        }
        let mut expected = properties.clone();
        expected.acl.as_mut().unwrap().sort();
        assert_eq!(after, expected);
        // Again: nothing left to do, nothing broken.
        assert_eq!(apply_properties(&m, &copy, &properties).await.unwrap(), Vec::<String>::new());
        // What came later goes.
        cluster.sql("postgres", &format!(
            "alter database {copy} set statement_timeout = '1s'; alter role {taker} in database {copy} set work_mem = '1MB';
             grant create on database {copy} to {taker}; alter database {copy} connection limit 3"
        ));
        assert_eq!(apply_properties(&m, &copy, &properties).await.unwrap(), Vec::<String>::new());
        let mut after = read_properties(&m, &copy).await.unwrap();
        after.acl.as_mut().unwrap().sort();
        assert_eq!(after, expected);
    }
}

#[tokio::test]
async fn a_default_acl_lets_the_public_in_again() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    let properties = read_properties(&m, &db.name).await.unwrap();
    assert_eq!(properties.acl, None);
    let copy = scratch_name();
    let someone = role(cluster, "");
    create(&m, &copy, &properties, "x").await.unwrap();
    let may = format!(
        "select has_database_privilege('{someone}', '{copy}', 'connect'), has_database_privilege('{someone}', '{copy}', 'temp'), has_database_privilege('{someone}', '{copy}', 'create')"
    );
    assert_eq!(cluster.sql("postgres", &may), "f|t|f");
    assert_eq!(apply_properties(&m, &copy, &properties).await.unwrap(), Vec::<String>::new());
    assert_eq!(cluster.sql("postgres", &may), "t|t|f");
}

#[tokio::test]
async fn what_cannot_be_set_is_told() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    let mut properties = read_properties(&m, &db.name).await.unwrap();
    properties.settings.insert("gone".into(), vec!["work_mem=1MB".into()]);
    properties.settings.insert(String::new(), vec!["no_such_parameter=hush".into(), "work_mem=2MB".into()]);
    properties.acl =
        Some(vec!["=T/postgres".into(), "postgres=CTc/postgres".into(), "gone=c/postgres".into(), "nonsense".into()]);
    properties.security_labels.insert("nobody".into(), "x".into());
    let warnings = apply_properties(&m, &db.name, &properties).await.unwrap();
    let all = warnings.join("\n");
    assert_eq!(warnings.len(), 5, "{all}");
    assert!(all.contains("`work_mem` of role `gone`") && all.contains("`no_such_parameter`"), "{all}");
    assert!(all.contains("CONNECT on the database could not be granted to `gone`"), "{all}");
    assert!(all.contains("`nonsense`") && all.contains("`nobody`"), "{all}");
    assert!(!all.contains("hush"), "a setting's value may be a secret: {all}");
    let after = read_properties(&m, &db.name).await.unwrap();
    assert_eq!(after.settings[""], ["work_mem=2MB"]);
    assert_eq!(after.acl.unwrap().len(), 2);
}

#[tokio::test]
async fn names_that_are_taken_owners_that_are_not_ours() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let db = cluster.database();
    let mut properties = read_properties(&m, &db.name).await.unwrap();
    let error = create(&m, &db.name, &properties, "x").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42P04"), "{error}");
    assert!(find(&m, &db.name).await.unwrap().is_some(), "what had the name is gone");

    properties.owner = "nobody at all".into();
    let error = create(&m, &scratch_name(), &properties, "x").await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("CREATE ROLE \"nobody at all\""), "{error}");

    let (me, owner) = (role(cluster, "createdb"), role(cluster, ""));
    let mine = ripcord::postgres::Session::connect(&target_of(&cluster.url_as(&me, "pw", "postgres")), "run", LIMIT)
        .await
        .unwrap();
    properties.owner.clone_from(&owner);
    let name = scratch_name();
    let error = create(&mine, &name, &properties, "x").await.unwrap_err();
    assert_eq!(error.hint_text().unwrap(), format!("GRANT \"{owner}\" TO \"{me}\""));
    cluster.sql("postgres", &format!("grant {owner} to {me}"));
    create(&mine, &name, &properties, "x").await.unwrap();
    assert_eq!(read_properties(&m, &name).await.unwrap().owner, owner);
    drop_scratch(&mine, &name, None).await.unwrap();
}

#[tokio::test]
async fn only_scratch_databases_of_ours_are_dropped() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let properties = read_properties(&m, "postgres").await.unwrap();
    // Another name, another comment, no comment, another oid.
    let db = cluster.database();
    db.sql(&format!("comment on database {} is '{SCRATCH_COMMENT}'", db.name));
    let uncommented = cluster.database_named(&scratch_name(), "");
    let other = cluster.database_named(&scratch_name(), "");
    other.sql(&format!("comment on database {} is 'my own'", other.name));
    for name in [&db.name, &uncommented.name, &other.name] {
        let error = drop_scratch(&m, name, None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(find(&m, name).await.unwrap().unwrap().allows_connections, "{name}");
    }
    let name = scratch_name();
    let oid = create(&m, &name, &properties, "x").await.unwrap();
    assert_eq!(drop_scratch(&m, &name, Some(oid + 1)).await.unwrap_err().kind(), Kind::Refused);
    // Settled with the target's properties it is still ours.
    apply_properties(&m, &name, &properties).await.unwrap();
    let _busy = super::Background::reconnecting(cluster, &name, "select pg_sleep(9)");
    super::wait_until(cluster, &format!("select count(*) > 0 from pg_stat_activity where datname = '{name}'"));
    drop_scratch(&m, &name, Some(oid)).await.unwrap();
    assert!(find(&m, &name).await.unwrap().is_none());
    drop_scratch(&m, &name, Some(oid)).await.unwrap();
    // What a crash leaves between its creation and its comment.
    let half = scratch_name();
    cluster.sql("postgres", &format!("create database {half} template template0 allow_connections false"));
    drop_scratch(&m, &half, None).await.unwrap();
    assert!(find(&m, &half).await.unwrap().is_none());
}

#[tokio::test]
async fn kept_databases_are_listed_by_age_and_only_they_are_dropped() {
    let cluster = Cluster::shared();
    let m = maintenance(cluster).await;
    let lineage = Lineage::new();
    let names = [unique("kept"), unique("kept"), unique("kept")];
    for (at, name) in names.iter().enumerate() {
        let db = cluster.database_named(name, "");
        let aside = Aside {
            lineage: if at == 2 { Lineage::new() } else { lineage },
            database: "it's".into(),
            run: Some(RunId::new()),
            backup: Some(BackupId::new()),
            at: ripcord::clock::now() - chrono::Duration::days(at as i64),
        };
        db.sql(&format!("comment on database {name} is '{}'", aside.comment().replace('\'', "''")));
    }
    let listed: Vec<_> = list_aside(&m, Some(lineage)).await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(listed, [names[1].clone(), names[0].clone()]);
    assert!(list_aside(&m, None).await.unwrap().len() >= 3);

    let slot = unique("slot");
    cluster.sql(&names[0], &format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    cluster.sql(
        &names[0],
        &format!("create table t (i int); begin; insert into t values (1); prepare transaction '{slot}'"),
    );
    let hindrances = drop_hindrances(&m, &names[0]).await.unwrap().join("\n");
    assert!(hindrances.contains(&format!("logical slot `{slot}` is dropped with it")), "{hindrances}");
    assert!(hindrances.contains(&format!("prepared transaction `{slot}`")), "{hindrances}");
    let error = drop_aside(&m, &names[0]).await.unwrap_err();
    assert!(error.one_line().contains(&format!("prepared transaction `{slot}`")), "{error}");
    cluster.sql("postgres", &format!("alter database {} allow_connections true", names[0]));
    cluster.sql(&names[0], &format!("rollback prepared '{slot}'"));
    drop_aside(&m, &names[0]).await.unwrap();
    assert_eq!(
        cluster.sql("postgres", &format!("select count(*) from pg_replication_slots where slot_name = '{slot}'")),
        "0"
    );

    let plain = cluster.database();
    assert_eq!(drop_aside(&m, &plain.name).await.unwrap_err().kind(), Kind::Refused);
    assert!(drop_aside(&m, &names[0]).await.is_err(), "a database that is gone");
}

#[tokio::test]
async fn extensions_are_listed() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    let session = super::session(cluster, &db.name).await;
    let found = extensions(&session).await.unwrap();
    assert_eq!(found.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["plpgsql"]);
    assert!(!found[0].version.is_empty());
}
