//! `restore` on a real server: what comes back, what is asked first, and what never goes.

use std::io::Write;
use std::process::Stdio;

use crate::support::cli::ran;
use crate::support::{Cluster, Db, Project};

const HISTORY: &str =
    "select (select count(*) from ripcord.runs) || ' ' || (select count(*) from ripcord.audit_log) || ' ' ||
    (select count(*) from ripcord.backup_history) || ' ' || (select count(*) from ripcord.rollback_history) || ' ' ||
    (select count(*) from ripcord.schema_migrations)";

const STATES: &str = "select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations";

pub fn filled(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project
}

fn numbers(text: &str) -> Vec<u32> {
    text.split(' ').map(|number| number.parse().unwrap()).collect()
}

/// Every table of the history has at least the rows that it had, and a restore added to runs and audit.
#[track_caller]
fn history_went_on(before: &str, after: &str) {
    let (before, after) = (numbers(before), numbers(after));
    assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{before:?} {after:?}");
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
}

fn restores_after(damage: &str) {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let id = project.backup(&[]);
    let (schema, history) = (db.schema(), db.sql(HISTORY));
    db.sql(damage);

    let ran = project.json(&["restore", "latest", "--confirm", &db.name]).expect_code(0);

    let result = ran.result();
    assert_eq!(result["outcome"], "done");
    assert_eq!(result["backup_id"], id);
    assert!(result["proof"]["proof"]["holds"].as_bool().unwrap(), "{ran:#?}");
    let aside = result["database"].as_str().unwrap().rsplit('`').nth(1).unwrap().to_owned();
    let hint = result["hint"].as_str().unwrap();
    for command in [format!("ripcord aside drop {aside}"), format!("ripcord salvage --from {aside} -o rows.sql")] {
        assert!(hint.contains(&command), "{ran:#?}");
    }
    assert_eq!(db.schema(), schema);
    assert_eq!(db.sql("select count(*) || ' ' || max(note) from orders where id < 100"), "99 order 99");
    assert_eq!(db.sql(STATES), "001 applied, 002 applied");
    history_went_on(&history, &db.sql(HISTORY));
    // What was there is still there, under another name.
    let kept = project.json(&["aside", "list"]).expect_code(0).items();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0]["name"], aside.as_str());
    // And the next deploy goes on from here.
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.json(&["apply"]).expect_code(0);
    assert_eq!(db.sql(STATES), "001 applied, 002 applied, 003 applied");
}

#[test]
fn after_a_delete_without_where() {
    restores_after("delete from orders");
}

#[test]
fn after_a_dropped_table() {
    restores_after("drop table orders");
}

#[test]
fn after_the_whole_schema_was_dropped() {
    restores_after("drop schema public cascade");
}

#[test]
fn after_the_control_schema_was_dropped() {
    restores_after("drop schema ripcord cascade; delete from orders");
}

#[test]
fn in_place_after_the_control_schema_was_dropped() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let id = project.backup(&[]);
    db.sql("drop schema ripcord cascade; delete from orders");

    let ran = project.json(&["restore", "latest", "--mode", "in-place", "--confirm", &db.name]).expect_code(0);

    assert_eq!(ran.result()["backup_id"], id);
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(db.sql(STATES), "001 applied, 002 applied");
    assert_eq!(db.sql("select string_agg(command, ' ' order by started_at) from ripcord.runs"), "apply restore");
    project.json(&["status", "--exit-code"]).expect_code(0);
}

#[test]
fn a_name_is_asked_for_and_must_be_the_right_one() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let id = project.backup(&[]);
    db.sql("delete from orders where id <= 50");
    let before = db.sql("select oid from pg_database where datname = current_database()");
    let again = format!("ripcord restore latest --confirm {}", db.name);

    project.run(&["restore", "latest"]).expect_code(7).expect_end("unchanged", &again);
    let wrong =
        project.run(&["restore", "latest", "--confirm", "other"]).expect_code(7).expect_end("unchanged", &again);
    for told in [&id, "holds 100 rows", "takes the place of database", "no applied migration goes", "old)"] {
        assert!(wrong.stderr.contains(told), "{told}: {wrong:#?}");
    }
    assert_eq!(project.json(&["restore", "latest"]).expect_code(7).result()["outcome"], "refused");
    // In a protected environment `--yes` is not a name.
    project.configure("[environments.live]\nprotected = true\napproval = false");
    project.run(&["-e", "live", "--yes", "restore", "latest"]).expect_code(7).expect_end("unchanged", &again);
    assert_eq!(db.sql("select oid from pg_database where datname = current_database()"), before);
    assert_eq!(db.sql("select count(*) from orders"), "50");

    project
        .run(&["--yes", "restore", "latest"])
        .expect_code(0)
        .expect_end("restored from backup", "ripcord aside drop");
    assert_eq!(db.sql("select count(*) from orders"), "100");
}

#[test]
fn a_terminal_is_asked_for_the_name() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    project.backup(&[]);
    db.sql("delete from orders");
    let typed = |answer: &str| {
        let binary = env!("CARGO_BIN_EXE_ripcord");
        let template = project.command(&[]);
        let mut command = std::process::Command::new("script");
        command
            .args(["-qec", &format!("{binary} restore latest"), "/dev/null"])
            .current_dir(project.path())
            .env_clear();
        for (name, value) in template.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let mut child = command
            .env("TERM", "dumb")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("script of util-linux starts");
        child.stdin.as_mut().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
        ran(child.wait_with_output().unwrap())
    };

    let refused = typed("yes").expect_code(7);
    assert!(refused.stdout.contains("Type its name to go on:"), "{refused:#?}");
    assert!(refused.stdout.contains("database: unchanged"), "{refused:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "0");
    let done = typed(&db.name).expect_code(0);
    assert!(done.stdout.contains("database: restored from backup"), "{done:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "100");
}

#[test]
fn a_dry_run_tells_all_and_changes_nothing() {
    // What other tests do on the same server would make rows doubtful.
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = filled(&db);
    let id = project.backup(&[]);
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.run(&["apply"]).expect_code(0);
    db.sql("insert into orders values (1001), (1002)");
    let history = db.sql(HISTORY);

    let ran = project.json(&["restore", &id, "--dry-run"]).expect_code(0);

    let result = ran.result();
    let plan = &result["proof"]["plan"];
    assert_eq!(plan["backup"], id.as_str());
    assert_eq!(plan["migrations_going"], serde_json::json!(["003_more"]));
    assert_eq!(plan["writes"]["tables"], serde_json::json!([["public.orders", 2]]));
    assert_eq!(result["writes_since_backup"], 2);
    assert_eq!(plan["way"], "swap");
    let text = project.run(&["restore", &id, "--dry-run"]).expect_code(0);
    for told in ["migrations that go: 003_more", "2 rows in public.orders", "this was a dry run"] {
        assert!(text.stderr.contains(told), "{told}: {text:#?}");
    }
    assert_eq!(db.sql(HISTORY), history);
    assert_eq!(db.sql("select count(*) from orders"), "102");
}

#[test]
fn later_writes_are_refused_with_their_numbers() {
    // What other tests do on the same server would make rows doubtful.
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = filled(&db);
    project.backup(&[]);
    db.sql("insert into orders values (1001), (1002); update orders set note = 'new' where id = 1");
    for mode in ["swap", "in-place"] {
        let arguments = ["restore", "latest", "--writes", "refuse", "--mode", mode, "--confirm", &db.name];
        let ran = project.run(&arguments).expect_code(7).expect_end("unchanged", "--writes accept-loss");
        assert!(ran.stderr.contains("rows in public.orders"), "{ran:#?}");
        assert_eq!(db.sql("select count(*) from orders"), "102");
        assert_eq!(project.json(&["status"]).items()[0]["unfinished"], serde_json::json!([]));
    }
    // Nothing of it is left, neither a scratch database nor a closed door.
    assert_eq!(project.json(&["aside", "list"]).items().len(), 0);
    project.run(&["restore", "latest", "--writes", "accept-loss", "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "100");
}

#[test]
fn nothing_written_since_is_not_refused() {
    // What other tests do on the same server would make rows doubtful.
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let project = filled(&db);
    project.backup(&[]);
    db.sql("create table later (id int)");
    project.run(&["restore", "latest", "--writes", "refuse", "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql("select to_regclass('public.later') is null"), "t");
}

#[test]
fn a_copy_is_a_database_of_its_own() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    project.backup(&[]);
    db.sql("delete from orders");
    let copy = format!("{}_copy", db.name);
    let history = numbers(&db.sql(HISTORY));

    project.json(&["restore", "latest", "--into", &copy]).expect_code(0);

    let cluster = db.cluster;
    assert_eq!(cluster.sql(&copy, "select count(*) from orders"), "100");
    assert_eq!(db.sql("select count(*) from orders"), "0");
    assert_ne!(cluster.sql(&copy, "select lineage from ripcord.meta"), db.sql("select lineage from ripcord.meta"));
    assert_eq!(cluster.sql(&copy, STATES), "001 applied, 002 applied");
    assert_eq!(numbers(&db.sql(HISTORY)), history);
    // It can be worked with, and shares no backups with the original.
    let other = Project::with_url(&cluster.url(&copy));
    other.shop();
    other.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    other.run(&["apply"]).expect_code(0);
    assert_eq!(other.json(&["status"]).items()[0]["applied"], 3);
    assert_eq!(db.sql("select to_regclass('public.more') is null"), "t");

    let taken = project.run(&["restore", "latest", "--into", &copy]).expect_code(1);
    taken.expect_end("unchanged", "another name after `--into`");
    assert_eq!(cluster.sql(&copy, "select count(*) from more"), "0");
}

#[test]
fn before_a_migration_and_before_a_run() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let applied = project.json(&["apply"]).expect_code(0).result();
    let (run, backup) =
        (applied["run_id"].as_str().unwrap().to_owned(), applied["backup_id"].as_str().unwrap().to_owned());
    project.migration("004_bad.sql", "DELETE FROM orders;", "SELECT 1;");
    project.run(&["apply"]).expect_code(0);
    for before in ["003", "more", "003_more", &run, "003_more.sql"] {
        for arguments in [
            vec!["restore", "--before", before, "--dry-run"],
            vec!["restore", "latest", "--before", before, "--dry-run"],
        ] {
            let ran = project.json(&arguments).expect_code(0);
            assert_eq!(ran.result()["backup_id"], backup.as_str(), "{before}: {ran:#?}");
        }
    }
    project
        .run(&["restore", "--before", "077", "--dry-run"])
        .expect_code(1)
        .expect_end("unchanged", "ripcord backup list");
    project.run(&["restore", &backup, "--before", "003"]).expect_code(2).expect_end("unchanged", "latest --before 003");

    project.run(&["restore", "--before", "003", "--confirm", &db.name]).expect_code(0);

    assert_eq!(db.sql(STATES), "001 applied, 002 applied, 003 restored_away, 004 restored_away");
    assert_eq!(db.sql("select count(*) from orders"), "100");
    assert_eq!(db.sql("select to_regclass('public.more') is null"), "t");
    let status = project.json(&["status"]).items()[0].clone();
    assert_eq!(status["pending"].as_array().unwrap().len(), 2, "{status}");
    std::fs::remove_file(project.path().join("migrations/004_bad.sql")).unwrap();
    project.run(&["apply"]).expect_code(0);
    assert_eq!(db.sql(STATES), "001 applied, 002 applied, 003 restored_away, 004 restored_away, 003 applied");
}

#[test]
fn an_id_may_be_shortened_but_not_guessed() {
    let db = Cluster::shared().database();
    let project = filled(&db);
    let first = project.backup(&[]);
    let second = project.backup(&[]);
    let same = |one: &str, other: &str| one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let all = project.json(&["backup", "list"]).items();
    let others = all.iter().filter_map(|item| item["id"].as_str()).filter(|id| *id != first);
    let unique = others.map(|other| same(&first, other)).max().unwrap() + 1;
    let common = first[..same(&first, &second)].to_owned();
    let enough = &first[..unique];
    assert_eq!(project.json(&["restore", enough, "--dry-run"]).expect_code(0).result()["backup_id"], first.as_str());
    let two = project.run(&["restore", &common, "--dry-run"]).expect_code(2).expect_end("unchanged", "more of the id");
    assert!(two.stderr.contains(&first) && two.stderr.contains(&second), "{two:#?}");
    project.run(&["restore", "zzz", "--dry-run"]).expect_code(2).expect_end("unchanged", "ripcord backup list");
}

#[test]
fn a_database_of_another_owner_comes_back_as_his() {
    let cluster = Cluster::shared();
    let name = format!("owned{}", std::process::id());
    let helper = format!("helper{}", std::process::id());
    cluster.sql(
        "postgres",
        &format!(
            "create role {name} login password 'x'; create role {helper} login createdb password 'x'; grant {name} to {helper}"
        ),
    );
    let db = cluster.database_named(&name, &format!("owner {name}"));
    db.sql(&format!(
        "alter database {name} set work_mem = '5MB'; comment on database {name} is 'the shop';
         revoke connect on database {name} from public; grant connect on database {name} to {helper}"
    ));
    let his = Project::with_url(&cluster.url_as(&name, "x", &name));
    his.shop();
    his.run(&["apply"]).expect_code(0);
    let other = Project::with_url(&cluster.url_as(&helper, "x", &name));
    other.configure(&format!("store = \"{}\"", his.store().display()));
    other.run(&["backup", "create"]).expect_code(0);
    let properties = "select pg_get_userbyid(datdba) || ' ' || datacl::text || ' ' || shobj_description(oid, 'pg_database') || ' ' ||
        (select string_agg(setconfig::text, ' ' order by setrole) from pg_db_role_setting where setdatabase = d.oid)
        from pg_database d where datname = current_database()";
    let before = db.sql(properties);
    db.sql("drop table orders");

    other.run(&["restore", "latest", "--mode", "swap", "--confirm", &name]).expect_code(0);

    assert_eq!(db.sql(properties), before);
    assert_eq!(db.sql("select tableowner from pg_tables where tablename = 'orders'"), name);
    his.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    his.run(&["apply"]).expect_code(0);
}

#[test]
fn a_restore_that_takes_too_long_leaves_nothing_behind() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.backup(&[]);
    project.configure("[timeouts]\nrestore = \"1ms\"");

    let ran = project.json(&["restore", "latest", "--confirm", &db.name]).expect_code(1);

    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    assert!(ran.stderr.contains("took longer than its limit"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "100");
    let name = ran.stdout.split("into `rc_").nth(1).expect("the scratch database is told")[..12].to_owned();
    assert_eq!(db.sql(&format!("select count(*) from pg_database where datname = 'rc_{name}'")), "0");
}
