//! Where a swap or a backup cannot be: told before, and then either another way or a refusal.

use super::{assert_same, scratch_databases, state, tail};
use crate::support::cli::Ran;
use crate::support::{Cluster, Db, Project};

fn owned_by(role: &str, attributes: &str) -> Db<'static> {
    owned_on(Cluster::shared(), role, attributes)
}

fn owned_on<'a>(cluster: &'a Cluster, role: &str, attributes: &str) -> Db<'a> {
    cluster.sql("postgres", &format!("create role {role} login password 'pw' {attributes}"));
    let db = cluster.database_named(role, &format!("owner {role}"));
    db.sql(&format!(
        "set session authorization {role}; create table t (id int primary key, s text); insert into t select g, 's' || g from generate_series(1, 50) g;\n\
         create table u (id int references t); insert into u values (3); create view v as select * from t;\n\
         create sequence sq; select setval('sq', 12); select lo_from_bytea(930001, '\\x0102'); create schema app; create type app.e as enum ('a');\n\
         create table app.typed (e app.e); insert into app.typed values ('a');"
    ));
    db
}

fn project(db: &Db<'_>) -> Project {
    Project::with_url(&db.cluster.url_as(&db.name, "pw", &db.name))
}

/// A run that changes this and that, destroys a table, and then fails.
fn wreck(project: &Project) -> Ran {
    project
        .migration(
            "001_wreck.sql",
            "CREATE TABLE newcomer (i int REFERENCES t);\nCREATE VIEW over_t AS SELECT * FROM t;\nALTER TABLE t ADD COLUMN more int;\n\
             CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';\nCREATE SCHEMA later; CREATE TABLE later.x (i int);\nDROP TABLE u;\n\
             UPDATE t SET s = 'gone';",
            "",
        )
        .migration("002_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    project.json(&["apply"])
}

#[test]
fn without_createdb_the_restore_is_in_place_after_a_safety_backup() {
    let db = owned_by("lim_nocreatedb", "");
    let before = state(db.cluster, &db.name);
    let project = project(&db);

    let ran = wreck(&project).expect_code(3);

    let preflight = ran.stdout.find("restore in place only").expect("told before the run");
    assert!(preflight < ran.stdout.find("\"event\":\"migration_began\"").unwrap(), "{ran:#?}");
    assert!(ran.stderr.contains("the role may not create databases (ALTER ROLE … CREATEDB)"), "{ran:#?}");
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    let told = tail(&ran.stderr);
    assert!(told[0].starts_with("database: restored in place from backup `"), "{told:#?}");
    assert_eq!(told[1], "");
    assert!(told[2].starts_with("hint: "), "{told:#?}");
    assert_same(&before, &state(db.cluster, &db.name), "in place");
    assert_eq!(
        db.sql("select string_agg(purpose || ' ' || status, ', ' order by started_at) from ripcord.backup_history"),
        "pre-apply verified, safety verified"
    );
    assert_eq!(
        db.sql("select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations"),
        "001 restored_away, 002 failed"
    );
    // The safety backup holds the failed state, and is never `latest`.
    let ran = project.json(&["restore", "latest", "--dry-run"]).expect_code(0);
    assert_eq!(ran.result()["proof"]["plan"]["purpose"], "pre-apply");
    // A copy beside cannot be: said in so many words.
    let ran = project.json(&["restore", "latest", "--into", "lim_copy"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("permission denied to create database") || ran.stderr.contains("CREATEDB"), "{ran:#?}");
}

#[test]
fn rows_that_row_security_hides_from_the_owner_stop_the_backup() {
    let db = owned_by("lim_rls", "createdb");
    db.sql("set session authorization lim_rls; alter table t enable row level security; alter table t force row level security; create policy p on t using (id > 10)");
    let project = project(&db);
    project.migration("001_x.sql", "CREATE TABLE x (i int);", "DROP TABLE x;");
    let before = state(db.cluster, &db.name);

    let ran = project.json(&["apply"]).expect_code(1);

    assert_eq!(ran.result()["outcome"], "unchanged");
    assert!(ran.stderr.contains("row security hides rows of public.t from `lim_rls`"), "{ran:#?}");
    let told = tail(&ran.stderr);
    assert_eq!(told[0], "database: unchanged");
    assert_eq!(told[2], "hint: connect as the tables' owner, or: ALTER ROLE lim_rls BYPASSRLS");
    assert_same(&before, &state(db.cluster, &db.name), "refused");
    assert_ne!(project.json(&["backup", "create"]).code, 0);

    db.cluster.sql("postgres", "alter role lim_rls bypassrls");
    project.run(&["apply"]).expect_code(0);
}

#[test]
fn a_subscription_is_told_before_and_stays() {
    let db = owned_by("lim_sub", "superuser");
    db.sql("create subscription sub connection 'host=127.0.0.1 port=1 password=of-the-publisher' publication p with (connect = false, slot_name = none)");
    let before = state(db.cluster, &db.name);
    let project = project(&db);

    let ran = wreck(&project).expect_code(3);

    assert!(ran.stderr.contains("subscriptions would have to be moved: sub"), "{ran:#?}");
    assert!(ran.result()["database"].as_str().unwrap().starts_with("restored in place"), "{ran:#?}");
    assert_same(&before, &state(db.cluster, &db.name), "in place");
    assert!(!ran.stderr.contains("of-the-publisher") && !ran.stdout.contains("of-the-publisher"));
    db.sql("drop subscription sub");
}

#[test]
fn a_logical_slot_is_told_before_and_survives() {
    let db = owned_by("lim_slot", "createdb");
    db.sql("select pg_create_logical_replication_slot('lim_slot_slot', 'pgoutput')");
    let before = state(db.cluster, &db.name);
    let project = project(&db);

    let ran = wreck(&project).expect_code(3);

    assert!(ran.stderr.contains("logical slots would stay with the old database: lim_slot_slot"), "{ran:#?}");
    assert!(ran.result()["database"].as_str().unwrap().starts_with("restored in place"), "{ran:#?}");
    assert_same(&before, &state(db.cluster, &db.name), "in place");
    assert_eq!(db.sql("select database from pg_replication_slots where slot_name = 'lim_slot_slot'"), "lim_slot");
    let ran = project.json(&["restore", "latest", "--mode", "swap", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.stderr.contains("a restore beside with a swap is not available"), "{ran:#?}");
    db.sql("select pg_drop_replication_slot('lim_slot_slot')");
}

/// A cluster of its own: an open transaction anywhere on a server makes the age of rows doubtful everywhere on it.
#[test]
fn a_prepared_transaction_is_told_before_and_waits_for_a_person() {
    let cluster = Cluster::start(&[]);
    let db = owned_on(&cluster, "lim_prepared", "createdb");
    db.sql("set session authorization lim_prepared; create table held (i int); begin; insert into held values (1); prepare transaction 'lim_gid'");
    let project = project(&db);

    let ran = wreck(&project).expect_code(4);

    assert!(ran.stderr.contains("prepared transactions are open: lim_gid"), "{ran:#?}");
    let told = tail(&ran.stderr);
    assert_eq!(told[2], "hint: COMMIT PREPARED or ROLLBACK PREPARED 'lim_gid', then: ripcord recover", "{ran:#?}");
    assert!(ran.stderr.contains("database: CHANGED and not brought back: `001_wreck` applied"), "{ran:#?}");
    assert_eq!(db.sql("select gid from pg_prepared_xacts where database = 'lim_prepared'"), "lim_gid");
    assert_eq!(db.sql("select to_regclass('u') is null"), "t");
    // Once it is gone, the database is brought back.
    db.sql("rollback prepared 'lim_gid'");
    let ran = project.json(&["recover"]);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_eq!(db.sql("select count(*), min(s) from t"), "50|s1");
    assert_eq!(scratch_databases(&cluster), "");
}
