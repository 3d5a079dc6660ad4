//! The control schema on a real server: made, checked, written, carried.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ripcord::control::{self, BackupRow, LockRow, MigrationRow, RunRow, State};
use ripcord::error::{Error, Kind};
use ripcord::ids::{BackupId, Lineage, RunId};
use ripcord::{clock, control::TEXT_LIMIT_BYTES};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

use crate::support::{Cluster, Db};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

/// A database with a fresh control schema.
async fn prepared() -> (Db<'static>, Client, Lineage) {
    let db = Cluster::shared().database();
    let client = connect(&db.url()).await;
    let lineage = Lineage::new();
    assert_eq!(control::ensure(&client, lineage).await.unwrap(), lineage);
    (db, client, lineage)
}

fn row(version: &str, checksum: &str) -> MigrationRow {
    MigrationRow {
        version: version.to_owned(),
        name: format!("{version}_name.sql"),
        checksum: checksum.to_owned(),
        loose_checksum: Some(format!("loose {checksum}")),
        batch: 1,
        state: "applied".to_owned(),
        applied_at: clock::now(),
        execution_time_ms: 12,
        success: true,
        error: None,
        applied_by: "postgres (root)".to_owned(),
        approver: Some("someone".to_owned()),
        git_commit: Some("abc".to_owned()),
        run: Some(RunId::new()),
        tool_version: "0.1.0".to_owned(),
        up_sql: Some("create table t ()".to_owned()),
        down_sql: Some("drop table t".to_owned()),
    }
}

fn failed_row(version: &str) -> MigrationRow {
    MigrationRow {
        state: "failed".to_owned(),
        success: false,
        error: Some("no\0such table".to_owned()),
        ..row(version, "bad")
    }
}

fn backup() -> BackupRow {
    BackupRow {
        id: BackupId::new(),
        run: None,
        database: "shop".to_owned(),
        purpose: "pre-apply".to_owned(),
        server_version: "15.18".to_owned(),
        tool_version: "0.1.0".to_owned(),
        started_at: clock::now(),
        finished_at: None,
        raw_bytes: None,
        stored_bytes: None,
        compression: "zstd-3".to_owned(),
        key_ids: vec!["k1".to_owned(), "k,2".to_owned()],
        digest: None,
        status: "running".to_owned(),
        error: None,
        verified_at: None,
        drilled_at: None,
        pinned: false,
        deleted_at: None,
        location: "backups".to_owned(),
    }
}

fn run() -> RunRow {
    RunRow {
        id: RunId::new(),
        command: "apply".to_owned(),
        environment: Some("test".to_owned()),
        started_at: clock::now(),
        finished_at: None,
        outcome: None,
        exit_code: None,
        database_state: None,
        error: None,
        backup: None,
        batch: Some(1),
        holder: "root@here:1".to_owned(),
        tool_version: "0.1.0".to_owned(),
    }
}

fn versions(rows: &[MigrationRow]) -> Vec<&str> {
    rows.iter().map(|row| row.version.as_str()).collect()
}

fn states(rows: &[MigrationRow]) -> Vec<String> {
    rows.iter().map(|row| format!("{} {} {}", row.version, row.checksum, row.state)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(version, checksum)| ((*version).to_owned(), (*checksum).to_owned())).collect()
}

#[track_caller]
fn refused(result: ripcord::Result<State>, words: &str) -> Error {
    let error = result.expect_err(words);
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.one_line().contains(words), "`{words}` is not in: {error}");
    assert!(error.hint_text().is_some(), "{error}");
    error
}

#[tokio::test]
async fn the_schema_is_made_once_and_keeps_its_lineage() {
    let db = Cluster::shared().database();
    let client = connect(&db.url()).await;
    assert_eq!(control::inspect(&client).await.unwrap(), State::Absent);
    assert_eq!(control::owner(&client).await.unwrap(), None);
    let lineage = Lineage::new();
    assert_eq!(control::ensure(&client, lineage).await.unwrap(), lineage);
    let present = State::Present { lineage, version: control::SCHEMA_VERSION };
    assert_eq!(control::inspect(&client).await.unwrap(), present);
    assert_eq!(control::ensure(&client, Lineage::new()).await.unwrap(), lineage);
    assert_eq!(control::owner(&client).await.unwrap().as_deref(), Some("postgres"));

    let other = Lineage::new();
    control::set_lineage(&client, other).await.unwrap();
    assert_eq!(control::inspect(&client).await.unwrap(), State::Present { lineage: other, version: 2 });
}

#[tokio::test]
async fn two_that_make_it_at_once_agree() {
    let db = Cluster::shared().database();
    let (one, two) = (connect(&db.url()).await, connect(&db.url()).await);
    let (first, second) = tokio::join!(control::ensure(&one, Lineage::new()), control::ensure(&two, Lineage::new()));
    assert_eq!(first.unwrap(), second.unwrap());
}

#[tokio::test]
async fn inspecting_leaves_the_session_as_it_was() {
    let (_db, client, _) = prepared().await;
    client.batch_execute("set search_path = ripcord, public").await.unwrap();
    assert!(matches!(control::inspect(&client).await.unwrap(), State::Present { .. }));
    let path: String = client.query_one("show search_path", &[]).await.unwrap().get(0);
    assert_eq!(path, "ripcord, public");
}

#[tokio::test]
async fn every_kind_of_tampering_is_found_and_named() {
    let evil = "create function public.evil() returns trigger language plpgsql as 'begin return new; end';
                create function public.evil_text() returns text language sql as 'select ''x''';";
    let cases = [
        (
            "create trigger t before insert on ripcord.runs for each row execute function public.evil()",
            "trigger `ripcord.runs.t`",
        ),
        ("alter table ripcord.audit_log disable trigger append_only", "trigger `ripcord.audit_log.append_only`"),
        ("drop trigger keep_rows on ripcord.runs", "trigger `ripcord.runs.keep_rows` is missing"),
        ("create rule r as on insert to ripcord.runs do also select 1", "rule `ripcord.runs.r`"),
        ("create policy p on ripcord.runs using (true)", "policy `ripcord.runs.p`"),
        ("alter table ripcord.runs enable row level security", "row security"),
        (
            "alter table ripcord.runs rename to r2; create view ripcord.runs as select * from ripcord.r2",
            "`runs` is `v p`",
        ),
        ("alter table ripcord.runs alter error set default public.evil_text()", "column `runs.error`"),
        ("alter table ripcord.runs add extra text", "column `runs.extra`"),
        ("alter table ripcord.runs drop column error", "dropped"),
        ("alter table ripcord.runs alter error type varchar", "column `runs.error`"),
        ("alter table ripcord.runs add check (public.evil_text() = 'x')", "constraint `ripcord.runs.runs_check`"),
        ("create index i on ripcord.runs ((error || 'x'))", "index `i`"),
        ("create table public.child () inherits (ripcord.runs)", "inheritance `public.child`"),
        (
            "create table public.pointer (run uuid references ripcord.runs on delete cascade)",
            "constraint `public.pointer.pointer_run_fkey`",
        ),
        ("create table ripcord.stranger ()", "relation `stranger`"),
        ("create type ripcord.mood as enum ('good')", "object `type ripcord.mood`"),
        ("create domain ripcord.d as text", "object `type ripcord.d`"),
        ("create function ripcord.f() returns int language sql as 'select 1'", "function `f()`"),
        (
            "create operator ripcord.=== (leftarg = text, rightarg = text, function = pg_catalog.texteq)",
            "object `operator ripcord.===(text,text)`",
        ),
        ("create statistics public.s on id, command from ripcord.runs", "statistics `public.s`"),
        (
            "create or replace function ripcord.refuse_change() returns trigger language plpgsql
                set search_path = pg_catalog, pg_temp as 'begin return new; end'",
            "function `refuse_change()`",
        ),
        ("alter function ripcord.get_migration_summary() security definer", "SECURITY DEFINER"),
        ("alter function ripcord.system_checks() reset search_path", "function `system_checks()`"),
        (
            "create or replace view ripcord.migration_system_status as
                select public.evil_text() as check_name, status, details from ripcord.system_checks()",
            "rule `ripcord.migration_system_status._RETURN`",
        ),
        ("alter table ripcord.runs owner to tamperer", "owner `runs` is not ours: `belongs to tamperer`"),
        ("alter function ripcord.refuse_change() owner to tamperer", "owner `refuse_change()`"),
        ("grant trigger on ripcord.runs to tamperer", "grant `TRIGGER on runs` is not ours: `to tamperer`"),
        ("grant insert (error) on ripcord.runs to public", "grant `INSERT on runs.error`"),
        ("grant create on schema ripcord to tamperer", "grant `CREATE on schema ripcord`"),
        ("alter table ripcord.runs set unlogged", "relation `runs` is `r u`"),
        ("drop view ripcord.migration_system_status", "relation `migration_system_status` is missing"),
        ("delete from ripcord.meta", "`ripcord.meta` is empty"),
        ("update ripcord.meta set schema_version = 0", "version 0"),
        ("update ripcord.meta set schema_version = 99", "made by a newer ripcord"),
    ];
    let db = Cluster::shared().database();
    let client = connect(&db.url()).await;
    db.sql("create role tamperer");
    db.sql(evil);
    let lineage = Lineage::new();
    control::ensure(&client, lineage).await.unwrap();
    for (tampering, words) in cases {
        // In a transaction that is rolled back, so that each case meets the same schema.
        client
            .batch_execute(&format!("begin; {tampering}"))
            .await
            .unwrap_or_else(|error| panic!("{tampering}: {error}"));
        refused(control::inspect(&client).await, words);
        client.batch_execute("rollback").await.unwrap();
        assert!(matches!(control::inspect(&client).await.unwrap(), State::Present { .. }), "{tampering}");
    }
}

#[tokio::test]
async fn what_does_no_harm_is_left_alone() {
    let (db, client, _) = prepared().await;
    db.sql(
        "create role reader_of_history; grant usage on schema ripcord to reader_of_history;
         grant select on all tables in schema ripcord to reader_of_history;
         grant execute on all functions in schema ripcord to reader_of_history;
         create view public.mine as select * from ripcord.runs;
         create publication everything for all tables",
    );
    assert!(matches!(control::inspect(&client).await.unwrap(), State::Present { .. }));
    db.sql(
        "set role reader_of_history; select * from ripcord.migration_system_status, ripcord.get_migration_summary()",
    );
}

#[tokio::test]
async fn a_schema_made_by_someone_else_is_refused() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    // The owner of a database prepares a trap for the superuser's run.
    db.sql(&format!("create role trapper login password 'x'; alter database {} owner to trapper", db.name));
    let trapper = connect(&cluster.url_as("trapper", "x", &db.name)).await;
    trapper
        .batch_execute(
            "create schema ripcord; create table ripcord.meta (lineage uuid, schema_version int);
             create function ripcord.trap() returns trigger language plpgsql as 'begin raise exception ''caught''; end';
             create trigger trap before insert on ripcord.meta for each row execute function ripcord.trap()",
        )
        .await
        .unwrap();
    let superuser = connect(&db.url()).await;
    refused(control::inspect(&superuser).await, "belongs to `trapper`, who is no superuser");
    let error = control::ensure(&superuser, Lineage::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let error = refused(control::inspect(&trapper).await, "not as ripcord makes it");
    assert!(error.one_line().contains("and "), "{error}");

    // Even a faithful copy: its owner could change it between the look and the use.
    trapper.batch_execute("drop schema ripcord cascade").await.unwrap();
    control::ensure(&trapper, Lineage::new()).await.unwrap();
    refused(control::inspect(&superuser).await, "belongs to `trapper`, who is no superuser");
    superuser.batch_execute("set role trapper").await.unwrap();
    refused(control::inspect(&superuser).await, "belongs to `trapper`, who is no superuser");
}

#[tokio::test]
async fn members_of_the_owner_may_and_strangers_may_not() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    db.sql(&format!(
        "create role app_owner login password 'x'; create role deployer login password 'x' in role app_owner;
         create role stranger login password 'x'; alter database {} owner to app_owner",
        db.name
    ));
    let owner = connect(&cluster.url_as("app_owner", "x", &db.name)).await;
    let lineage = control::ensure(&owner, Lineage::new()).await.unwrap();
    let deployer = connect(&cluster.url_as("deployer", "x", &db.name)).await;
    assert_eq!(control::ensure(&deployer, Lineage::new()).await.unwrap(), lineage);
    control::record_migration(&deployer, &row("001", "a")).await.unwrap();
    let stranger = connect(&cluster.url_as("stranger", "x", &db.name)).await;
    refused(control::inspect(&stranger).await, "belongs to `app_owner`");
    assert!(control::applied(&stranger).await.is_err());

    // Where the stranger may not create schemas, it is told what is missing.
    let other = cluster.database();
    let stranger = connect(&cluster.url_as("stranger", "x", &other.name)).await;
    let error = control::ensure(&stranger, Lineage::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (Kind::Failed, Some("42501")), "{error}");
    assert!(error.hint_text().unwrap().contains("grant create on database"));
    assert_eq!(control::inspect(&stranger).await.unwrap(), State::Absent);
}

#[tokio::test]
async fn a_restore_as_superuser_can_hand_the_schema_over() {
    let cluster = Cluster::shared();
    let (db, client, lineage) = prepared().await;
    db.sql(&format!(
        "create role \"The \"\"App\"\"\" login password 'x'; grant all on database {} to \"The \"\"App\"\"\"",
        db.name
    ));
    control::set_owner(&client, "The \"App\"").await.unwrap();
    assert_eq!(control::owner(&client).await.unwrap().as_deref(), Some("The \"App\""));
    let app = connect(&cluster.url_as("The \"App\"", "x", &db.name)).await;
    assert_eq!(control::ensure(&app, Lineage::new()).await.unwrap(), lineage);
    control::audit(&app, None, "restore", &json!({}), None).await.unwrap();
}

#[tokio::test]
async fn default_privileges_give_nobody_our_tables() {
    let db = Cluster::shared().database();
    db.sql(
        "create role greedy; alter default privileges grant all on tables to greedy;
         alter default privileges grant all on functions to greedy; alter default privileges grant all on schemas to greedy;
         alter default privileges grant all on sequences to greedy, public",
    );
    let client = connect(&db.url()).await;
    control::ensure(&client, Lineage::new()).await.unwrap();
    assert_eq!(db.sql("select has_schema_privilege('greedy', 'ripcord', 'usage, create')"), "f");
    assert_eq!(db.sql("select has_table_privilege('greedy', 'ripcord.runs', 'select, insert, trigger')"), "f");
    assert_eq!(db.sql("select has_function_privilege('greedy', 'ripcord.system_checks()', 'execute')"), "f");
    assert_eq!(db.sql("select has_sequence_privilege('greedy', 'ripcord.audit_log_id_seq', 'usage')"), "f");
}

#[tokio::test]
async fn a_newer_schema_stops_an_older_binary() {
    let (db, client, _) = prepared().await;
    db.sql(
        "comment on schema ripcord is 'control schema of ripcord, version 3'; alter table ripcord.runs add later text",
    );
    let error = refused(control::inspect(&client).await, "made by a newer ripcord");
    assert!(error.one_line().contains("version 3"), "{error}");
}

/// The programs of another major version: where `RIPCORD_TEST_OTHER_PG` says, else where scripts/test puts them.
pub fn other_programs_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("RIPCORD_TEST_OTHER_PG") {
        return folder.into();
    }
    let link = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/other-postgresql");
    assert!(
        link.join("initdb").exists(),
        "PostgreSQL programs of another major version are needed: run scripts/test, or set RIPCORD_TEST_OTHER_PG"
    );
    link.canonicalize().unwrap()
}

/// The description must be the same on every major version that is supported.
#[tokio::test]
async fn other_major_versions_see_the_same_schema() {
    let cluster = Cluster::start_with(&other_programs_folder(), &[]);
    let db = cluster.database();
    let client = connect(&db.url()).await;
    let lineage = control::ensure(&client, Lineage::new()).await.unwrap();
    assert_eq!(control::inspect(&client).await.unwrap(), State::Present { lineage, version: 2 });
    control::record_migration(&client, &row("001", "a")).await.unwrap();
    let rows = control::export_rows(&client).await.unwrap();
    let copy = cluster.database();
    let client = connect(&copy.url()).await;
    control::ensure(&client, lineage).await.unwrap();
    control::import_rows(&client, &rows, &pairs(&[("001", "a")])).await.unwrap();
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["001"]);
}

#[tokio::test]
async fn a_migration_is_recorded_in_the_callers_transaction() {
    let (_db, mut client, _) = prepared().await;
    let lost = client.transaction().await.unwrap();
    control::record_migration(&lost, &row("001", "a")).await.unwrap();
    lost.rollback().await.unwrap();
    assert!(control::migrations(&client).await.unwrap().is_empty());

    let kept = client.transaction().await.unwrap();
    let written = row("001", "a");
    control::record_migration(&kept, &written).await.unwrap();
    kept.commit().await.unwrap();
    let read = control::migrations(&client).await.unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), json!([written]));
    assert_eq!(control::next_batch(&client).await.unwrap(), 2);
}

/// A script may leave a search_path behind in which operators and functions of our names do something else.
#[tokio::test]
async fn a_foreign_search_path_reaches_none_of_our_statements() {
    let (db, client, _) = prepared().await;
    db.sql(
        "create schema evil;
         create function evil.boom(text, text) returns bool language plpgsql as 'begin raise exception ''boom''; end';
         create function evil.boom(uuid, uuid) returns bool language plpgsql as 'begin raise exception ''boom''; end';
         create function evil.boom_time(timestamptz, interval) returns timestamptz language plpgsql as 'begin raise exception ''boom''; end';
         create operator evil.= (leftarg = text, rightarg = text, function = evil.boom);
         create operator evil.= (leftarg = uuid, rightarg = uuid, function = evil.boom);
         create operator evil.+ (leftarg = timestamptz, rightarg = interval, function = evil.boom_time);
         create function evil.count(bigint) returns bigint language plpgsql as 'begin raise exception ''boom''; end';
         create function evil.concat(variadic text[]) returns text language plpgsql as 'begin raise exception ''boom''; end';
         create function evil.max(integer) returns integer language plpgsql as 'begin raise exception ''boom''; end';
         create type evil.text as enum ('boom'); create type evil.uuid as enum ('boom')",
    );
    client.batch_execute("set search_path = evil, pg_catalog").await.unwrap();
    assert!(client.simple_query("select 'a'::pg_catalog.text = 'a'::pg_catalog.text").await.is_err(), "the trap works");

    control::inspect(&client).await.unwrap();
    control::record_migration(&client, &row("001", "a")).await.unwrap();
    control::record_migration(&client, &failed_row("002")).await.unwrap();
    control::record_rollback(&client, "001", RunId::new(), "down", 3).await.unwrap();
    control::record_migration(&client, &row("001", "a")).await.unwrap();
    control::repair_checksum(&client, "001", "b", "b").await.unwrap();
    control::reset_failed(&client).await.unwrap();
    assert_eq!(control::applied(&client).await.unwrap().len(), 1);
    assert_eq!(control::migrations(&client).await.unwrap().len(), 3);
    assert_eq!(control::next_batch(&client).await.unwrap(), 2);
    control::forget_migration(&client, "001").await.unwrap();
    control::actor(&client).await.unwrap();
    control::put_backup(&client, &backup()).await.unwrap();
    control::backups(&client).await.unwrap();
    control::put_run(&client, &run()).await.unwrap();
    control::runs(&client, 10).await.unwrap();
    control::audit(&client, None, "x", &json!(1), None).await.unwrap();
    control::audit_log(&client, 10).await.unwrap();
    control::rollbacks(&client).await.unwrap();
    control::add_release(&client, "tag", "v1", "001").await.unwrap();
    control::releases(&client).await.unwrap();
    let lock = lock(RunId::new());
    control::put_lock(&client, &lock).await.unwrap();
    control::beat(&client, lock.run).await.unwrap();
    control::lock_row(&client).await.unwrap();
    control::clear_lock(&client, Some(lock.run)).await.unwrap();
    control::owner(&client).await.unwrap();
    control::set_owner(&client, "postgres").await.unwrap();
    control::set_applied(&client, &pairs(&[("001", "a")])).await.unwrap();
    let rows = control::export_rows(&client).await.unwrap();

    let copy = Cluster::shared().database();
    copy.sql("create schema evil; create function evil.max(bigint) returns bigint language plpgsql as 'begin raise exception ''boom''; end'");
    let client = connect(&copy.url()).await;
    client.batch_execute("set search_path = evil, pg_catalog").await.unwrap();
    control::ensure(&client, Lineage::new()).await.unwrap();
    control::import_rows(&client, &rows, &pairs(&[("001", "a")])).await.unwrap();
}

#[tokio::test]
async fn failed_and_rolled_back_attempts_stay_as_rows() {
    let (_db, client, _) = prepared().await;
    control::record_migration(&client, &failed_row("001")).await.unwrap();
    control::record_migration(&client, &row("001", "a")).await.unwrap();
    control::record_migration(&client, &row("002", "b")).await.unwrap();
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["001", "002"]);
    let run = RunId::new();
    control::record_rollback(&client, "002", run, "down", 7).await.unwrap();
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["001"]);
    let all = control::migrations(&client).await.unwrap();
    assert_eq!(states(&all), ["001 bad failed", "001 a applied", "002 b rolled_back"]);
    assert_eq!(all[0].error.as_deref(), Some("no\u{fffd}such table"));

    let rolled_back = control::rollbacks(&client).await.unwrap();
    assert_eq!(rolled_back.len(), 1);
    let only = &rolled_back[0];
    assert_eq!((only.version.as_str(), only.how.as_str(), only.run), ("002", "down", Some(run)));
    assert!(only.rolled_back_by.starts_with("postgres ("), "{}", only.rolled_back_by);

    let error = control::record_rollback(&client, "002", run, "down", 7).await.unwrap_err();
    assert!(error.message().contains("`002`"), "{error}");
    assert_eq!(control::rollbacks(&client).await.unwrap().len(), 1);

    assert_eq!(control::reset_failed(&client).await.unwrap(), 1);
    assert_eq!(control::reset_failed(&client).await.unwrap(), 0);
    assert_eq!(control::migrations(&client).await.unwrap()[0].state, "failed_reset");
}

#[tokio::test]
async fn a_version_run_once_more_supersedes_its_row() {
    let (_db, client, _) = prepared().await;
    control::record_migration(&client, &row("001", "a")).await.unwrap();
    control::record_migration(&client, &row("002", "b")).await.unwrap();
    // A failed second attempt leaves the first in effect.
    control::record_migration(&client, &failed_row("001")).await.unwrap();
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["001", "002"]);
    control::record_migration(&client, &row("001", "a2")).await.unwrap();
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["002", "001"]);
    assert_eq!(
        states(&control::migrations(&client).await.unwrap()),
        ["001 a superseded", "002 b applied", "001 bad failed", "001 a2 applied"]
    );
}

#[tokio::test]
async fn a_checksum_is_repaired_and_a_version_forgotten_only_when_applied() {
    let (_db, client, _) = prepared().await;
    control::record_migration(&client, &row("001", "a")).await.unwrap();
    control::repair_checksum(&client, "001", "c", "loose c").await.unwrap();
    let read = control::applied(&client).await.unwrap();
    assert_eq!((read[0].checksum.as_str(), read[0].loose_checksum.as_deref()), ("c", Some("loose c")));
    assert!(control::repair_checksum(&client, "009", "c", "c").await.is_err());
    control::forget_migration(&client, "001").await.unwrap();
    assert!(control::applied(&client).await.unwrap().is_empty());
    assert_eq!(states(&control::migrations(&client).await.unwrap()), ["001 c forgotten"]);
    assert!(control::forget_migration(&client, "001").await.is_err());
}

#[tokio::test]
async fn a_text_that_is_too_long_is_left_out_and_told() {
    let (db, client, _) = prepared().await;
    let long = MigrationRow { up_sql: Some("x".repeat(TEXT_LIMIT_BYTES + 1)), ..row("001", "a") };
    control::record_migration(&client, &long).await.unwrap();
    let read = control::applied(&client).await.unwrap();
    assert_eq!((read[0].up_sql.as_deref(), read[0].down_sql.as_deref()), (None, Some("drop table t")));
    assert_eq!(db.sql("select text_omitted from ripcord.schema_migrations"), "up_sql of 1048577 bytes");
}

#[tokio::test]
async fn backups_and_runs_are_written_and_updated_by_id() {
    let (_db, client, _) = prepared().await;
    let mut first = backup();
    control::put_backup(&client, &first).await.unwrap();
    first.status = "complete".to_owned();
    first.run = Some(RunId::new());
    first.finished_at = Some(clock::now());
    first.raw_bytes = Some(1 << 40);
    first.pinned = true;
    let second = backup();
    control::put_backup(&client, &second).await.unwrap();
    control::put_backup(&client, &first).await.unwrap();
    assert_eq!(serde_json::to_value(control::backups(&client).await.unwrap()).unwrap(), json!([first, second]));
    let wrong = BackupRow { status: "fine".to_owned(), ..backup() };
    assert!(control::put_backup(&client, &wrong).await.is_err());

    let mut older = run();
    control::put_run(&client, &older).await.unwrap();
    let newer = RunRow { batch: Some(8), ..run() };
    control::put_run(&client, &newer).await.unwrap();
    older.outcome = Some("restored".to_owned());
    older.exit_code = Some(3);
    older.finished_at = Some(clock::now());
    control::put_run(&client, &older).await.unwrap();
    assert_eq!(serde_json::to_value(control::runs(&client, 10).await.unwrap()).unwrap(), json!([newer, older]));
    assert_eq!(control::runs(&client, 1).await.unwrap().len(), 1);
    // A run that recorded no migration has used its number all the same.
    assert_eq!(control::next_batch(&client).await.unwrap(), 9);
}

#[tokio::test]
async fn the_audit_log_only_grows() {
    let (db, client, _) = prepared().await;
    let run = RunId::new();
    control::audit(&client, Some(run), "restore", &json!({ "backup": "b\0" }), Some("because")).await.unwrap();
    control::audit(&client, None, "unlock", &json!(null), None).await.unwrap();
    let log = control::audit_log(&client, 10).await.unwrap();
    assert_eq!(log.iter().map(|row| row.action.as_str()).collect::<Vec<_>>(), ["unlock", "restore"]);
    assert_eq!(
        (log[1].run, &log[1].detail, log[1].reason.as_deref()),
        (Some(run), &json!({ "backup": "b\u{fffd}" }), Some("because"))
    );
    assert_eq!(log[0].actor, control::actor(&client).await.unwrap());
    control::record_migration(&client, &row("001", "a")).await.unwrap();
    control::put_backup(&client, &backup()).await.unwrap();
    control::put_run(&client, &self::run()).await.unwrap();
    for statement in [
        "update ripcord.audit_log set action = 'x'",
        "delete from ripcord.audit_log",
        "truncate ripcord.audit_log",
        "set session_replication_role = replica; delete from ripcord.audit_log",
        "update ripcord.rollback_history set how = 'x'",
        "delete from ripcord.schema_migrations",
        "delete from ripcord.backup_history",
        "truncate ripcord.runs",
    ] {
        let error = db.cluster.try_sql(&db.name, statement).expect_err(statement);
        assert!(error.contains("keeps every row"), "{statement}: {error}");
    }
    assert_eq!(control::audit_log(&client, 10).await.unwrap().len(), 2);
}

fn lock(run: RunId) -> LockRow {
    let since = clock::now() - chrono::Duration::seconds(100);
    LockRow {
        run,
        command: "apply".to_owned(),
        holder: "deploy".to_owned(),
        host: "ci-1".to_owned(),
        pid: 4711,
        since,
        heartbeat: since,
        expires_at: since + chrono::Duration::seconds(300),
    }
}

#[tokio::test]
async fn the_locks_row_beats_and_goes() {
    let (_db, client, _) = prepared().await;
    assert!(control::lock_row(&client).await.unwrap().is_none());
    let (mine, other) = (lock(RunId::new()), lock(RunId::new()));
    control::put_lock(&client, &other).await.unwrap();
    control::put_lock(&client, &mine).await.unwrap();
    control::beat(&client, mine.run).await.unwrap();
    let read = control::lock_row(&client).await.unwrap().unwrap();
    assert_eq!((read.run, read.pid, read.since), (mine.run, 4711, mine.since));
    assert!(read.heartbeat > mine.heartbeat);
    assert_eq!(read.expires_at - read.heartbeat, chrono::Duration::seconds(300));

    assert_eq!(control::beat(&client, other.run).await.unwrap_err().kind(), Kind::Locked);
    control::clear_lock(&client, Some(other.run)).await.unwrap();
    assert!(control::lock_row(&client).await.unwrap().is_some());
    control::clear_lock(&client, Some(mine.run)).await.unwrap();
    assert!(control::lock_row(&client).await.unwrap().is_none());
    control::put_lock(&client, &other).await.unwrap();
    control::clear_lock(&client, None).await.unwrap();
    assert!(control::lock_row(&client).await.unwrap().is_none());
}

#[tokio::test]
async fn tags_and_releases_name_versions_once() {
    let (_db, client, _) = prepared().await;
    control::add_release(&client, "tag", "1.0", "001").await.unwrap();
    control::add_release(&client, "release", "1.0", "002").await.unwrap();
    let error = control::add_release(&client, "tag", "1.0", "003").await.unwrap_err();
    assert_eq!(error.message(), "there is a tag `1.0` already");
    let all = control::releases(&client).await.unwrap();
    assert_eq!(
        all.iter().map(|row| (row.kind.as_str(), row.version.as_str())).collect::<Vec<_>>(),
        [("tag", "001"), ("release", "002")]
    );
}

#[tokio::test]
async fn the_status_view_and_the_summary_tell_what_is_there() {
    let (db, client, _) = prepared().await;
    let status = |name: &str| {
        db.sql(&format!("select status, details from ripcord.migration_system_status where check_name = '{name}'"))
    };
    assert_eq!(status("last_backup_age"), "warning|no good backup");
    assert_eq!(status("last_applied"), "ok|never");
    assert_eq!(
        db.sql("select total, applied, failed, rolled_back, last_batch is null from ripcord.get_migration_summary()"),
        "0|0|0|0|t"
    );
    control::record_migration(&client, &row("001", "a")).await.unwrap();
    control::record_migration(&client, &MigrationRow { execution_time_ms: 20, ..row("002", "b") }).await.unwrap();
    control::record_migration(&client, &failed_row("003")).await.unwrap();
    control::record_rollback(&client, "002", RunId::new(), "down", 1).await.unwrap();
    control::put_run(&client, &run()).await.unwrap();
    control::put_lock(&client, &lock(RunId::new())).await.unwrap();
    control::put_backup(&client, &BackupRow { status: "failed".to_owned(), ..backup() }).await.unwrap();
    assert_eq!(status("last_backup_age"), "warning|no good backup");
    control::put_backup(&client, &BackupRow { status: "verified".to_owned(), ..backup() }).await.unwrap();
    assert!(status("last_backup_age").starts_with("ok|00:0"), "{}", status("last_backup_age"));
    assert_eq!(status("total_migrations"), "ok|1");
    assert_eq!(status("failed_migrations"), "failed|1");
    assert_eq!(status("rolled_back_migrations"), "ok|1");
    assert_eq!(status("unfinished_runs"), "warning|1");
    assert!(status("lock").starts_with("ok|deploy@ci-1, process 4711, since "), "{}", status("lock"));
    assert_eq!(
        db.sql("select total, applied, failed, rolled_back, last_batch, last_applied_at is not null, average_execution_time_ms
                  from ripcord.get_migration_summary()"),
        "3|1|1|1|1|t|16.0"
    );
}

/// A database with three applied, of which the second was rolled back and the third repaired, and one failed.
async fn lived() -> (Db<'static>, Client, Lineage) {
    let (db, client, lineage) = prepared().await;
    for (version, checksum) in [("001", "a"), ("002", "b"), ("003", "c")] {
        control::record_migration(&client, &row(version, checksum)).await.unwrap();
    }
    let run_row = run();
    control::put_run(&client, &run_row).await.unwrap();
    control::put_backup(&client, &backup()).await.unwrap();
    control::audit(&client, Some(run_row.id), "apply", &json!({ "ö": [1, "\u{1f600}"] }), Some("it's \"quoted\""))
        .await
        .unwrap();
    control::add_release(&client, "tag", "v1", "002").await.unwrap();
    control::record_rollback(&client, "002", run_row.id, "down", 5).await.unwrap();
    control::record_migration(&client, &row("004", "d")).await.unwrap();
    control::record_migration(&client, &failed_row("005")).await.unwrap();
    control::repair_checksum(&client, "003", "c2", "c2").await.unwrap();
    (db, client, lineage)
}

#[tokio::test]
async fn rows_are_carried_and_the_applied_set_goes_back() {
    let (_db, client, lineage) = lived().await;
    control::put_lock(&client, &lock(RunId::new())).await.unwrap();
    let rows = control::export_rows(&client).await.unwrap();
    assert_eq!(
        rows.keys().collect::<Vec<_>>(),
        ["audit_log", "backup_history", "releases", "rollback_history", "runs", "schema_migrations"]
    );
    // Through text, as a manifest does it.
    let rows: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&serde_json::to_string(&rows).unwrap()).unwrap();

    let fresh = Cluster::shared().database();
    let copy = connect(&fresh.url()).await;
    control::ensure(&copy, lineage).await.unwrap();
    control::import_rows(&copy, &rows, &pairs(&[("001", "a"), ("002", "b"), ("003", "c")])).await.unwrap();

    assert_eq!(versions(&control::applied(&copy).await.unwrap()), ["001", "002", "003"]);
    assert_eq!(
        states(&control::migrations(&copy).await.unwrap()),
        [
            "001 a applied",
            "002 b rolled_back",
            "003 c2 restored_away",
            "004 d restored_away",
            "005 bad failed",
            "002 b applied",
            "003 c applied",
        ]
    );
    let mut carried = control::export_rows(&copy).await.unwrap();
    for table in ["audit_log", "backup_history", "releases", "rollback_history", "runs"] {
        assert_eq!(carried.remove(table), rows.get(table).cloned(), "{table}");
    }
    assert!(control::lock_row(&copy).await.unwrap().is_none());
    assert_eq!(control::inspect(&copy).await.unwrap(), State::Present { lineage, version: 2 });
    // Numbers go on behind those that came.
    control::audit(&copy, None, "after", &json!({}), None).await.unwrap();
    assert_eq!(control::audit_log(&copy, 1).await.unwrap()[0].id, 2);
    control::record_migration(&copy, &row("004", "d2")).await.unwrap();
    assert_eq!(versions(&control::applied(&copy).await.unwrap()), ["001", "002", "003", "004"]);
}

#[tokio::test]
async fn the_applied_set_goes_back_in_place_too() {
    let (_db, client, _) = lived().await;
    control::set_applied(&client, &pairs(&[("001", "a"), ("002", "b")])).await.unwrap();
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["001", "002"]);
    // And again to a later backup, over rows that are copies already.
    control::set_applied(&client, &pairs(&[("001", "a"), ("003", "c2"), ("004", "d")])).await.unwrap();
    control::set_applied(&client, &pairs(&[("001", "a"), ("002", "b"), ("003", "c2")])).await.unwrap();
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["001", "002", "003"]);
    control::set_applied(&client, &[]).await.unwrap();
    assert!(control::applied(&client).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_carried_whole_is_not_carried_at_all() {
    let (_db, client, lineage) = lived().await;
    let rows = control::export_rows(&client).await.unwrap();
    let error = control::set_applied(&client, &pairs(&[("001", "a"), ("999", "z")])).await.unwrap_err();
    assert!(error.message().contains("`999`"), "{error}");
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["001", "003", "004"]);

    let fresh = Cluster::shared().database();
    let copy = connect(&fresh.url()).await;
    control::ensure(&copy, lineage).await.unwrap();
    let mut later = rows.clone();
    later.get_mut("runs").unwrap()[0]["colour"] = json!("red");
    let mut stranger = rows.clone();
    stranger.insert("strangers".to_owned(), json!([]));
    let mut broken = rows.clone();
    broken.get_mut("runs").unwrap()[0]["command"] = json!(null);
    let mut shapeless = rows.clone();
    shapeless.insert("runs".to_owned(), json!({}));
    for (rows, applied, words) in [
        (&rows, pairs(&[("005", "bad")]), "`005`"),
        (&later, vec![], "`colour`"),
        (&stranger, vec![], "`strangers`"),
        (&broken, vec![], "command"),
        (&shapeless, vec![], "no JSON array"),
    ] {
        let error = control::import_rows(&copy, rows, &applied).await.unwrap_err();
        assert!(error.one_line().contains(words), "{error}");
        assert!(control::migrations(&copy).await.unwrap().is_empty(), "{words}");
    }
    control::import_rows(&copy, &rows, &[]).await.unwrap();
    let error = control::import_rows(&copy, &rows, &[]).await.unwrap_err();
    assert!(error.message().contains("holds rows already"), "{error}");
    assert_eq!(control::migrations(&copy).await.unwrap().len(), 5);
}

/// A schema as the first ripcord made it, with a row of its time.
async fn of_version_1(db: &Db<'_>, lineage: Lineage) {
    db.sql(&format!(
        "begin; set local search_path = pg_catalog, pg_temp; {}
         insert into ripcord.meta (lineage, schema_version, tool_version) values ('{lineage}', 1, '0.1.0'); commit;
         insert into ripcord.schema_migrations (version, name, checksum, batch, state, applied_at, execution_time_ms,
                success, applied_by, tool_version, down_sql)
         values ('001', 'old', 'a', 1, 'applied', now(), 1, true, 'someone', '0.1.0', 'drop table old');
         create table old (id int); create role reader; grant usage on schema ripcord to reader;
         grant select on ripcord.schema_migrations to reader;",
        include_str!("../../src/control/schema.sql")
    ));
}

#[tokio::test]
async fn a_schema_of_version_1_is_brought_to_version_2_with_every_row() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let lineage = Lineage::new();
    of_version_1(&db, lineage).await;
    let client = connect(&db.url()).await;
    // Looking changes nothing.
    assert_eq!(control::inspect(&client).await.unwrap(), State::Present { lineage, version: 1 });
    assert_eq!(versions(&control::applied(&client).await.unwrap()), ["001"]);
    // Two at once: one of them makes it.
    let other = connect(&db.url()).await;
    let (one, two) = tokio::join!(control::ensure(&client, Lineage::new()), control::ensure(&other, Lineage::new()));
    assert_eq!((one.unwrap(), two.unwrap()), (lineage, lineage));
    assert_eq!(control::inspect(&client).await.unwrap(), State::Present { lineage, version: 2 });
    assert_eq!(db.sql("select version, state, down_digest from ripcord.schema_migrations"), "001|applied|");
    assert_eq!(db.sql("select has_table_privilege('reader', 'ripcord.schema_migrations', 'select')"), "t");
    assert_eq!(db.sql("select has_function_privilege('reader', 'ripcord.rollback_last_migration()', 'execute')"), "f");
    let told = db.cluster.try_sql(&db.name, "select ripcord.rollback_last_migration()").unwrap_err();
    assert!(told.contains("was not kept for `001_old`"), "{told}");
    control::record_migration(&client, &row("002", "b")).await.unwrap();
    assert_eq!(db.sql("select count(*) from ripcord.schema_migrations where down_digest is not null"), "1");
}

#[tokio::test]
async fn an_upgrade_that_cannot_be_made_leaves_the_old_schema() {
    let cluster = Cluster::start(&[]);
    let db = cluster.database();
    let lineage = Lineage::new();
    of_version_1(&db, lineage).await;
    db.sql(
        "create function public.no() returns event_trigger language plpgsql as 'begin raise ''not today''; end';
         create event trigger no on ddl_command_end when tag in ('CREATE FUNCTION') execute function public.no()",
    );
    let client = connect(&db.url()).await;
    let error = control::ensure(&client, lineage).await.unwrap_err();
    assert!(error.one_line().contains("could not be brought to this ripcord's version"), "{error}");
    assert_eq!(control::inspect(&client).await.unwrap(), State::Present { lineage, version: 1 });
}
