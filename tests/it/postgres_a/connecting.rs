//! Target and session.

use ripcord::postgres::Session;

use super::{LIMIT, role, session, target_of, value};
use crate::support::Cluster;

#[tokio::test]
async fn a_session_has_its_own_settings_whatever_the_database_says() {
    let db = Cluster::shared().database();
    db.sql(&format!(
        "alter database {0} set default_transaction_read_only = on; alter database {0} set statement_timeout = '1s'; \
         alter database {0} set lock_timeout = '1s'; alter database {0} set idle_session_timeout = '1h'; \
         alter database {0} set search_path = 'elsewhere'",
        db.name
    ));
    let session = session(&db).await;
    for _ in 0..2 {
        assert_eq!(value(&session, "show default_transaction_read_only").await, "off");
        assert_eq!(value(&session, "show statement_timeout").await, "0");
        assert_eq!(value(&session, "show lock_timeout").await, "0");
        assert_eq!(value(&session, "show application_name").await, "ripcord test");
        assert_eq!(value(&session, "show search_path").await, "elsewhere");
        session.batch("RESET ALL").await.unwrap();
    }
    assert_eq!(session.server_version_num() / 10_000, 15);
    assert_eq!(value(&session, "select pg_backend_pid()").await, session.backend_pid().to_string());
    session.close().await;
}

#[tokio::test]
async fn databases_of_any_name() {
    let cluster = Cluster::shared();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let full = format!("{unique}{}", "x".repeat(63 - unique.len()));
    for name in [format!("a b=c'\"é {unique}"), format!("ü%/?#@:&\\{unique}"), full, format!("dbname=x{unique}")] {
        let db = cluster.database_named(&name, "");
        let session = session(&db).await;
        assert_eq!(value(&session, "select current_database()").await, name);
        session.close().await;
        let key_values = format!(
            "host={} port={} user=postgres dbname='{}'",
            cluster.socket().display(),
            cluster.port(),
            name.replace('\\', "\\\\").replace('\'', "\\'")
        );
        let session = Session::connect(&target_of(&key_values), "test", LIMIT).await.unwrap();
        assert_eq!(value(&session, "select current_database()").await, name);
    }
    // The server would cut the name and let us into another database.
    let long = "y".repeat(63);
    let _db = cluster.database_named(&long, "");
    let error = Session::connect(&target_of(&cluster.url(&format!("{long}y"))), "test", LIMIT).await.unwrap_err();
    assert!(error.message().contains("into another"), "{error}");
}

#[tokio::test]
async fn a_latin1_database_with_a_name_that_it_spells_otherwise() {
    let name = format!("é{}", uuid::Uuid::new_v4().simple());
    let db = Cluster::shared().database_named(&name, "encoding 'LATIN1' locale 'C'");
    let session = session(&db).await;
    session.batch("create table t (x text); insert into t values ('ü')").await.unwrap();
    assert_eq!(value(&session, "select x from t").await, "ü");
}

#[tokio::test]
async fn errors_of_connecting_say_what_to_do() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    let user = role(cluster, "");
    let no_one = "postgresql://nobody_such:x@127.0.0.1:1/x";
    for (url, fact, hint) in [
        (cluster.url_as(&user, "wr0ng", &db.name), "password authentication failed", "comes from the database URL"),
        (cluster.url("no_such_database"), "does not exist", "PGDATABASE"),
        (format!("{}?sslmode=require", db.url()), "TLS is required", "sslmode=prefer"),
        (format!("{}?sslmode=verify-full", db.url()), "needs a certificate authority", "sslrootcert"),
        (no_one.to_owned(), "no server listens", "listen_addresses"),
        ("host=no-such-host.invalid user=x".to_owned(), "name is not known", "PGHOST"),
        ("host=/nowhere user=x".to_owned(), "no socket", "port"),
        (format!("host=127.0.0.1 port={} user=postgres", cluster.port()), "asks for a password", ".pgpass"),
    ] {
        let error = Session::connect(&target_of(&url), "test", LIMIT).await.unwrap_err();
        assert!(error.one_line().contains(fact), "{error}");
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{error:?}");
        assert!(!format!("{error:?}").contains("wr0ng"));
    }
    let error = Session::connect(&target_of(&cluster.url("no_such_database")), "test", LIMIT).await.unwrap_err();
    assert!(error.message().contains(&format!("127.0.0.1:{}/no_such_database", cluster.port())), "{error}");
    assert_eq!(error.sqlstate(), Some("3D000"));
    assert!(!error.connection_lost());
}
