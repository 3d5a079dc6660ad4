use super::*;

fn resolve(url: &str, variables: &[(&str, &str)]) -> Result<Target> {
    let settings = Settings { database_url: (!url.is_empty()).then(|| SecretString::from(url)), ..Settings::default() };
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap().to_owned();
    Target::resolve(&settings, &|name| {
        let found = variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        found.or_else(|| (name == "HOME").then(|| home.clone()))
    })
}

fn variable(target: &Target, name: &str) -> Option<String> {
    let found = target.child_environment().into_iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_string().unwrap())
}

#[test]
fn the_string_wins_over_the_variables() {
    let variables =
        [("PGHOST", "other"), ("PGPORT", "1"), ("PGUSER", "me"), ("PGPASSWORD", "s"), ("PGSSLMODE", "require")];
    let target = resolve("postgres://h/x?sslmode=disable", &variables).unwrap();
    assert_eq!(target.redacted(), "postgresql://me@h:1/x");
    assert_eq!(target.ssl_mode(), SslMode::Disable);
    assert_eq!(target.password_origin().as_deref(), Some("`PGPASSWORD`"));
    let target = resolve("", &variables).unwrap();
    assert_eq!(target.redacted(), "postgresql://me@other:1/me");
    assert_eq!(target.ssl_mode(), SslMode::Require);
}

#[test]
fn printing_never_shows_the_password() {
    let target = resolve("postgres://me:sesame@h/x", &[]).unwrap();
    assert_eq!(format!("{target:?}"), "Target(\"postgresql://me@h:5432/x\")");
    assert_eq!(target.password_origin().as_deref(), Some("the database URL"));
    assert_eq!(variable(&target, "PGPASSWORD").as_deref(), Some("sesame"));
}

#[test]
fn names_are_shown_so_that_they_can_be_read() {
    let target = resolve("host=/tmp/a dbname='é b/\"' user='x@y'", &[]).unwrap();
    assert_eq!(target.redacted(), "postgresql://x%40y@%2Ftmp%2Fa:5432/é%20b%2F%22");
    assert_eq!(target.with_database("z").redacted(), "postgresql://x%40y@%2Ftmp%2Fa:5432/z");
}

#[test]
fn what_is_local() {
    for (url, local) in [
        ("postgres://u@localhost/x", true),
        ("postgres://u@127.0.0.2/x", true),
        ("postgres://u@[::1]/x", true),
        ("host=/tmp user=u", true),
        ("postgres://u@db.example/x", false),
        ("host=localhost hostaddr=10.0.0.1 user=u", false),
        ("postgres://u@localhost,db.example/x", false),
    ] {
        assert_eq!(resolve(url, &[]).unwrap().is_local(), local, "{url}");
    }
}

#[test]
fn what_is_refused() {
    for (url, variables, part) in [
        ("postgres://u@h/x?service=a", vec![], "service"),
        ("postgres://u@h/x", vec![("PGSERVICE", "a")], "service"),
        ("postgres://u@h/x?require_auth=scram-sha-256", vec![], "require_auth"),
        ("postgres://u@h/x?schema=public", vec![], "schema"),
        ("postgres://u@h/x?sslmode=strict", vec![], "sslmode"),
        ("postgres://u@h:99999/x", vec![], "port"),
        ("postgres://u@h:secret/x", vec![], "port"),
        ("postgres://u@a,b/x?port=1,2,3", vec![], "as many"),
        ("host=@abstract user=u", vec![], "abstract"),
        ("postgres://u@h/x?sslrootcert=system&sslmode=require", vec![], "too weak"),
    ] {
        let error = resolve(url, &variables).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Usage);
        assert!(error.message().contains(part), "{url}: {error}");
        assert!(!error.one_line().contains("secret"));
        assert!(error.hint_text().is_some() || part == "as many" || part == "abstract", "{url}");
    }
}

#[test]
fn a_child_gets_all_that_it_needs() {
    let target = resolve(
        "host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2 user=u dbname='a b=c' sslmode=verify-ca sslrootcert=/r \
         options='-c geqo=off' connect_timeout=7",
        &[],
    )
    .unwrap();
    for (name, value) in [
        ("PGHOST", "a,b"),
        ("PGHOSTADDR", "10.0.0.1,10.0.0.2"),
        ("PGPORT", "1,2"),
        ("PGUSER", "u"),
        ("PGDATABASE", "a b=c"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/r"),
        ("PGCONNECT_TIMEOUT", "7"),
    ] {
        assert_eq!(variable(&target, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(variable(&target, "PGPASSWORD"), None);
    assert_eq!(target.child_options(&[("TimeZone", "a b\\c")]), "-c geqo=off -c TimeZone=a\\ b\\\\c");
}

#[test]
fn the_password_file_is_asked_for_each_database() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pass");
    std::fs::write(&path, "h:5432:x:u:first\nh:5432:y:u:second\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let target = resolve("postgres://u@h/x", &[("PGPASSFILE", path.to_str().unwrap())]).unwrap();
    assert_eq!(variable(&target, "PGPASSWORD").as_deref(), Some("first"));
    assert_eq!(variable(&target.with_database("y"), "PGPASSWORD").as_deref(), Some("second"));
    assert_eq!(variable(&target.with_database("z"), "PGPASSWORD"), None);
    assert_eq!(target.password_origin().unwrap(), format!("`{}`", path.display()));
    assert!(target.warnings().is_empty());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let target = resolve("postgres://u@h/x", &[("PGPASSFILE", path.to_str().unwrap())]).unwrap();
    assert_eq!(target.password_origin(), None);
    assert_eq!(target.warnings().len(), 1);
}
