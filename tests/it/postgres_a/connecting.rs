//! Target and session.

use std::pin::pin;
use std::time::{Duration, Instant};

use ripcord::postgres::Session;
use ripcord::settings::Retry;

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
        assert_eq!(value(&session, "show application_name").await, "ripcord run");
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
        let session = Session::connect(&target_of(&key_values), "run", LIMIT).await.unwrap();
        assert_eq!(value(&session, "select current_database()").await, name);
    }
    // The server would cut the name and let us into another database.
    let long = "y".repeat(63);
    let _db = cluster.database_named(&long, "");
    let error = Session::connect(&target_of(&cluster.url(&format!("{long}y"))), "run", LIMIT).await.unwrap_err();
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
        let error = Session::connect(&target_of(&url), "run", LIMIT).await.unwrap_err();
        assert!(error.one_line().contains(fact), "{error}");
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{error:?}");
        assert!(!format!("{error:?}").contains("wr0ng"));
    }
    let error = Session::connect(&target_of(&cluster.url("no_such_database")), "run", LIMIT).await.unwrap_err();
    assert!(error.message().contains(&format!("127.0.0.1:{}/no_such_database", cluster.port())), "{error}");
    assert_eq!(error.sqlstate(), Some("3D000"));
    assert!(!error.connection_lost());
}

/// A server with TLS, for `localhost` alone: its folder of files holds `root.crt` (its own authority), `other.crt`
/// (another one).
fn cluster_with_tls() -> (Cluster, tempfile::TempDir) {
    use std::os::unix::fs::{PermissionsExt, chown};
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(folder.path().join(format!("{name}.crt")), certificate.pem()).unwrap();
        rcgen::Issuer::new(parameters, key)
    };
    let issuer = authority("root");
    authority("other");
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.path().join("server.crt"), certificate.pem()).unwrap();
    let key_file = folder.path().join("server.key");
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((uid, gid)) = crate::support::cluster::unprivileged_user() {
        chown(&key_file, Some(uid), Some(gid)).unwrap();
    }
    let cluster = Cluster::start(&[
        "ssl = on",
        &format!("ssl_cert_file = '{}'", folder.path().join("server.crt").display()),
        &format!("ssl_key_file = '{}'", key_file.display()),
    ]);
    (cluster, folder)
}

#[tokio::test]
async fn tls_means_what_libpq_means() {
    let (cluster, folder) = cluster_with_tls();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (root, other, own) = (file("root.crt"), file("other.crt"), file("server.crt"));
    let connect = |host: &str, options: String| {
        let url = format!("{}?{options}", cluster.url("postgres")).replace("127.0.0.1", host);
        async move { Session::connect(&target_of(&url), "run", LIMIT).await }
    };
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for (host, options, expected) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), Some("f")),
        ("127.0.0.1", "sslmode=allow".to_owned(), Some("f")),
        ("127.0.0.1", "sslmode=prefer".to_owned(), Some("t")),
        ("127.0.0.1", "sslmode=require".to_owned(), Some("t")),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}"), None),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}"), Some("t")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={own}"), Some("t")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}"), None),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={root}"), None),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={own}"), None),
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}"), Some("t")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={own}"), Some("t")),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned(), None),
        ("localhost", format!("sslmode=require&channel_binding=require&sslrootcert={root}"), Some("t")),
    ] {
        match (connect(host, options.clone()).await, expected) {
            (Ok(session), Some(expected)) => assert_eq!(value(&session, encrypted).await, expected, "{host} {options}"),
            (Err(error), None) => {
                assert!(error.one_line().contains("TLS could not be agreed on"), "{host} {options}: {error}");
                assert!(error.hint_text().unwrap_or_default().contains("sslrootcert"), "{error:?}");
            }
            (outcome, _) => panic!("{host} {options}: {outcome:?}"),
        }
    }

    // A statement is cancelled over TLS too.
    let session = connect("localhost", format!("sslmode=verify-full&sslrootcert={root}")).await.unwrap();
    let (answer, cancelled) = tokio::join!(session.batch("select pg_sleep(20)"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        session.cancel().await
    });
    cancelled.unwrap();
    assert_eq!(answer.unwrap_err().sqlstate(), Some("57014"));

    // Where pg_hba.conf wants no TLS, `prefer` comes without, and where it wants TLS, `allow` comes with it.
    let hba = cluster.sql("postgres", "show hba_file");
    for (kind, mode, expected) in [("hostnossl", "prefer", "f"), ("hostssl", "allow", "t")] {
        std::fs::write(&hba, format!("local all all trust\n{kind} all all 127.0.0.1/32 scram-sha-256\n")).unwrap();
        cluster.sql("postgres", "select pg_reload_conf(), pg_sleep(0.5)");
        let session = connect("127.0.0.1", format!("sslmode={mode}")).await.unwrap();
        assert_eq!(value(&session, encrypted).await, expected, "{kind}");
    }
    let error = connect("127.0.0.1", "sslmode=disable".to_owned()).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("sslmode=require"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_late_is_waited_for_and_a_wrong_password_is_not() {
    let cluster = Cluster::start(&[]);
    let retry = Retry { attempts: 8, delay: Duration::from_millis(100) };
    let wrong = target_of(&cluster.url_as("postgres", "wrong", "postgres"));
    let error = Session::connect_retrying(&wrong, "run", LIMIT, &retry).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert!(!error.one_line().contains("tried"), "{error}");

    let target = target_of(&cluster.url("postgres"));
    cluster.crash();
    let few = Retry { attempts: 2, delay: Duration::from_millis(10) };
    let error = Session::connect_retrying(&target, "run", LIMIT, &few).await.unwrap_err();
    assert!(error.one_line().contains("tried 2 times"), "{error}");
    let (session, ()) = tokio::join!(Session::connect_retrying(&target, "run", LIMIT, &retry), async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        tokio::task::block_in_place(|| cluster.restart());
    });
    session.unwrap().close().await;
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgresql://me@127.0.0.1:{}/x", listener.local_addr().unwrap().port());
    let began = Instant::now();
    let error = Session::connect(&target_of(&url), "run", Duration::from_millis(300)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(error.message().contains("no answer from"), "{error}");
}

#[tokio::test]
async fn a_closed_session_has_no_backend_any_more() {
    let db = Cluster::shared().database();
    let other = session(&db).await;
    for _ in 0..20 {
        let session = session(&db).await;
        let pid = session.backend_pid();
        session.close().await;
        let left = value(&other, &format!("select count(*) from pg_stat_activity where pid = {pid}")).await;
        assert_eq!(left, "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_ends_whenever_that_is_asked_and_nothing_after_it_is_hit() {
    let db = Cluster::shared().database();
    let session = session(&db).await;
    for turn in 0..300 {
        // Now before the server has begun, now while it is at work.
        let mut work = pin!(session.batch("begin; select pg_sleep(600)"));
        let _ = tokio::time::timeout(Duration::from_micros(turn * 20), work.as_mut()).await;
        let answer = session.stop(work).await.unwrap();
        assert_eq!(answer.unwrap_err().sqlstate(), Some("57014"), "{turn}");
        for sql in ["rollback", "select 1", "select 2"] {
            session.batch(sql).await.unwrap_or_else(|error| panic!("{turn}, {sql}: {error}"));
        }
    }
}
