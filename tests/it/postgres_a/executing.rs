//! Migrations' SQL.

use std::time::{Duration, Instant};

use ripcord::migration::{Script, Statement};
use ripcord::postgres::Session;
use ripcord::postgres::execute::{self, Limits, TRANSACTION_ESCAPED};

use super::{session, target, value};
use crate::support::Cluster;

const LIMITS: Limits =
    Limits { statement: Duration::from_secs(20), lock: Duration::from_secs(5), whole: Duration::from_secs(30) };

/// A script with one statement a string, on lines of their own, from line 5 of its file on.
fn script(statements: &[&str]) -> Script {
    let mut sql = String::from("-- ünïcode\n");
    let mut found = Vec::new();
    for text in statements {
        let start = sql.len();
        sql.push_str(text);
        found.push(Statement { start, end: sql.len(), ..Statement::default() });
        sql.push('\n');
    }
    Script { sql: sql.into(), first_line: 5, statements: found, ..Script::default() }
}

async fn run(session: &Session, statements: &[&str]) -> ripcord::Result<()> {
    execute::begin(session, &LIMITS).await?;
    execute::run_in_transaction(session, &script(statements), "001_x.sql", &LIMITS).await
}

#[tokio::test]
async fn a_script_runs_whole_and_is_committed() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    run(
        &session,
        &["create table t (x int);", "insert into t values (1);", "do $$ begin raise notice 'hallo'; end $$;"],
    )
    .await
    .unwrap();
    assert_eq!(value(&session, "show statement_timeout").await, "20s");
    assert_eq!(value(&session, "show lock_timeout").await, "5s");
    assert!(execute::transaction_id(&session).await.unwrap().is_some());
    execute::commit(&session).await.unwrap();
    assert_eq!(db.sql("select x from t"), "1");
    assert_eq!(value(&session, "show statement_timeout").await, "0");
    assert_eq!(session.take_notices(), ["notice: hallo"]);
}

#[tokio::test]
async fn errors_name_their_place() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    db.sql(
        "create table t (x int primary key, y int check (y > 0)); create function bad() returns int language plpgsql \
            as $$ begin return 1 / 0; end $$",
    );
    for (statements, place, fact, state) in [
        (&["select 'é', * from \"user\";"][..], "line 6, column 20", "relation \"user\" does not exist", "42P01"),
        (
            &["select 1;", "insert into t\nvalues (1, -1);"][..],
            "line 7, column 1",
            "violates check constraint",
            "23514",
        ),
        (&["select 1;", "select bad();", "select 2;"][..], "line 7, column 1", "division by zero", "22012"),
        (&["select 1;", "selec 2;"][..], "line 7, column 1", "syntax error", "42601"),
        (&["select 1 from"][..], "line 7, column 1", "syntax error at end of input", "42601"),
    ] {
        let error = run(&session, statements).await.unwrap_err();
        let start = format!("migration `001_x.sql` failed at {place}: ");
        assert!(error.message().starts_with(&start) && error.message().contains(fact), "{error}");
        assert_eq!(error.sqlstate(), Some(state));
        execute::rollback(&session).await.unwrap();
    }
    let error = run(&session, &["select 1;", "insert into t values (1, -1);"]).await.unwrap_err();
    assert_eq!(error.causes()[0], "statement: insert into t values (1, -1);");
    assert!(error.causes()[1].starts_with("detail: Failing row contains"), "{error:?}");
    execute::rollback(&session).await.unwrap();
    let error = run(&session, &["select bad();"]).await.unwrap_err();
    assert!(error.causes().iter().any(|cause| cause.contains("PL/pgSQL function bad()")), "{error:?}");
    execute::rollback(&session).await.unwrap();
    assert_eq!(db.sql("select count(*) from t"), "0");
}

#[tokio::test]
async fn a_script_that_ends_its_transaction_is_noticed() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    for (at, statements) in [
        &["create table TABLE (x int);", "commit;"][..],
        &["create table TABLE (x int);", "commit;", "begin;"],
        &["create table TABLE (x int);", "commit and chain;"],
        &["create table TABLE (x int);", "commit;", "select 1 / 0;"],
        &["create table TABLE (x int);", "commit;", "begin;", "select 1 / 0;"],
        &["rollback;", "create table TABLE (x int);"],
        &["create table TABLE (x int);", "reset all;", "commit;", "begin;"],
    ]
    .into_iter()
    .enumerate()
    {
        let statements: Vec<_> = statements.iter().map(|text| text.replace("TABLE", &format!("t{at}"))).collect();
        let statements: Vec<_> = statements.iter().map(String::as_str).collect();
        let error = run(&session, &statements).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some(TRANSACTION_ESCAPED), "{statements:?}: {error}");
        execute::reset(&session).await.unwrap();
        assert_eq!(db.sql(&format!("select count(*) from pg_tables where tablename = 't{at}'")), "1", "{statements:?}");
    }
    for statements in [
        &["reset all;"][..],
        &["savepoint a;", "create table t9 (x int);", "rollback to a;"],
        &["set transaction isolation level serializable;"],
        &["do $$ begin begin perform 1 / 0; exception when others then null; end; end $$;"],
        &[],
    ] {
        run(&session, statements).await.unwrap();
        execute::commit(&session).await.unwrap();
        execute::reset(&session).await.unwrap();
    }
    let error = run(&session, &["savepoint a;", "select 1 / 0;"]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
    execute::rollback(&session).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_commits_nothing_is_an_error() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    assert!(execute::commit(&session).await.is_err(), "there is no transaction");
    run(&session, &["select 1 / 0;"]).await.unwrap_err();
    let error = execute::commit(&session).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("25P02"));
    execute::rollback(&session).await.unwrap();
    db.sql("create table t (x int unique deferrable initially deferred)");
    run(&session, &["insert into t values (1), (1);"]).await.unwrap();
    let error = execute::commit(&session).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("23505"));
    assert!(!error.connection_lost());
}

#[tokio::test]
async fn limits_end_a_migration_on_the_server() {
    let db = Cluster::shared().database();
    db.sql("create table held (x int)");
    let session = session(&db).await;
    let began = Instant::now();
    for (limits, sql, fact, state) in [
        (
            Limits { statement: Duration::from_millis(200), ..LIMITS },
            "select pg_sleep(20);",
            "statement timeout",
            "57014",
        ),
        (
            Limits { whole: Duration::from_millis(200), ..LIMITS },
            "select pg_sleep(20);",
            "ran longer than 0.2 s",
            "57014",
        ),
        (Limits { lock: Duration::from_millis(200), ..LIMITS }, "drop table held;", "lock timeout", "55P03"),
    ] {
        let blocker = super::session(&db).await;
        blocker.batch("begin; lock table held in access share mode").await.unwrap();
        execute::begin(&session, &limits).await.unwrap();
        let error = execute::run_in_transaction(&session, &script(&[sql]), "001_x.sql", &limits).await.unwrap_err();
        assert!(error.message().contains(fact), "{error}");
        assert_eq!(error.sqlstate(), Some(state));
        assert!(error.hint_text().is_some());
        execute::rollback(&session).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(value(&session, "select 'alive'").await, "alive");
}

#[tokio::test]
async fn statements_without_a_transaction() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    let script = script(&[
        "create table t (x int);",
        "create unique index concurrently i on t (x);",
        "insert into t values (1);",
        "insert into t\nvalues (2), (1);",
        "select nothing;",
    ]);
    for index in 0..3 {
        execute::run_statement(&session, &script, index, "001_x.sql", &LIMITS).await.unwrap();
    }
    let error = execute::run_statement(&session, &script, 3, "001_x.sql", &LIMITS).await.unwrap_err();
    assert!(error.message().contains("failed at line 9, column 1: duplicate key"), "{error}");
    let error = execute::run_statement(&session, &script, 4, "001_x.sql", &LIMITS).await.unwrap_err();
    assert!(error.message().contains("failed at line 11, column 8: column \"nothing\""), "{error}");
    assert!(execute::run_statement(&session, &script, 5, "001_x.sql", &LIMITS).await.is_err());
    assert_eq!(value(&session, "show statement_timeout").await, "0");
    assert_eq!(value(&session, "show client_min_messages").await, "warning");
    assert_eq!(db.sql("select count(*) from t"), "1");
}

#[tokio::test]
async fn a_lost_connection_is_told_from_a_failure() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    let pid = session.backend_pid();
    execute::begin(&session, &LIMITS).await.unwrap();
    let terminate = format!("select pg_sleep(0.5); select pg_terminate_backend({pid})");
    let cluster = Cluster::shared();
    let name = db.name.clone();
    let killer = std::thread::spawn(move || cluster.sql(&name, &terminate));
    let error = execute::run_in_transaction(&session, &script(&["select pg_sleep(20);"]), "001_x.sql", &LIMITS)
        .await
        .unwrap_err();
    killer.join().unwrap();
    assert!(error.connection_lost(), "{error:?}");
    assert_eq!(error.sqlstate(), Some("57P01"));
    let error = execute::commit(&session).await.unwrap_err();
    assert!(error.connection_lost() && error.message().contains("not known"), "{error:?}");
    assert!(execute::rollback(&session).await.is_err());
    assert!(session.is_closed());
}

#[tokio::test]
async fn a_session_is_put_back() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    let user = super::role(cluster, "");
    let session = session(&db).await;
    session
        .batch(&format!(
            "set search_path = nowhere; set statement_timeout = '10s'; set role {user}; create temp table x (y int); \
             select pg_advisory_lock(1); set client_connection_check_interval = 0"
        ))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    session.batch("begin; select 1").await.unwrap();
    execute::reset(&session).await.unwrap();
    assert_eq!(value(&session, "show search_path").await, "\"$user\", public");
    assert_eq!(value(&session, "show statement_timeout").await, "0");
    assert_eq!(value(&session, "show client_connection_check_interval").await, "5s");
    assert_eq!(value(&session, "select current_user").await, "postgres");
    assert_eq!(
        value(&session, "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()").await,
        "0"
    );
    assert!(session.rows("select * from x").await.is_err());
    assert!(session.take_notices().is_empty());
}

#[tokio::test]
async fn copy_from_a_client_is_a_clear_error() {
    let db = Cluster::shared().database();
    db.sql("create table t (x int)");
    let session = Session::connect(&target(&db), "run", super::LIMIT).await.unwrap();
    for statements in [&["copy t from stdin;"], &["COPY (select 1)\n to STDOUT (format csv);"]] {
        let error = run(&session, statements).await.unwrap_err();
        assert!(error.message().contains("failed at line 6, column 1: COPY"), "{error:?}");
        assert!(!error.connection_lost());
        execute::rollback(&session).await.unwrap();
    }
    assert_eq!(value(&session, "select 'alive'").await, "alive");
}
