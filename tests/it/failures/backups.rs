//! Backups that fail: pg_dump dies, is of another version, or cannot be let in.

use super::*;
use crate::control::other_programs_folder;

/// A folder with this server's programs, pg_dump being a script that gets their real place as `$dump`.
pub fn programs(project: &Project, cluster: &Cluster, dump: &str) -> PathBuf {
    let folder = project.path().join("programs");
    let real = program(cluster, "pg_dump");
    script(
        &folder,
        "pg_dump",
        &format!("dump='{real}'\ncase \"$1\" in --version) exec \"$dump\" --version;; esac\n{dump}"),
    );
    script(&folder, "pg_restore", &format!("exec '{}' \"$@\"", program(cluster, "pg_restore")));
    folder
}

#[test]
fn a_pg_dump_that_dies_changes_nothing() {
    for (dump, told) in [
        ("\"$dump\" \"$@\" | head -c 100000; kill -KILL $$", "killed by signal 9"),
        ("\"$dump\" \"$@\"; echo 'pg_dump: error: no more' >&2; exit 1", "exit status 1: error: no more"),
        ("\"$dump\" \"$@\" | head -c 100000; exit 1", "exit status 1"),
        ("\"$dump\" \"$@\" | head -c 100000; exit 0", "the dump"),
        ("exit 0", "the dump"),
    ] {
        let db = Cluster::shared().database();
        let project = shop(&db);
        db.sql("create table big as select g, md5(g::text) from generate_series(1, 20000) g");
        let folder = programs(&project, db.cluster, dump);
        project.configure(&format!("pg_bin = [\"{}\"]\n", folder.display()));
        project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
        let (before, stored) = (db.schema(), stored_backups(&project));
        let ran = project.json(&["apply"]).expect_code(1);
        assert_eq!(ran.result()["outcome"], "unchanged", "{dump}: {ran:#?}");
        let error = ran.result()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("the backup failed") && error.contains(told), "{dump}: {ran:#?}");
        tells(&ran, "unchanged", "ripcord apply");
        assert_eq!(db.schema(), before);
        assert_eq!(stored_backups(&project), stored, "{dump}");
        assert_eq!(backups(&db), "verified, failed");
        assert!(db.sql("select error from ripcord.backup_history where status = 'failed'").contains(told));
        assert_eq!((history(&db), runs(&db)), ("001 applied".to_owned(), "apply done 0, apply unchanged 1".to_owned()));
        let verified = project.run(&["backup", "verify", "latest"]).expect_code(0);
        assert!(!verified.stdout.is_empty() || !verified.stderr.is_empty());
    }
}

#[test]
fn a_pg_dump_whose_session_is_ended_changes_nothing() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let stored = stored_backups(&project);
    let holding = Holding::open(&db, "lock table orders in access exclusive mode");
    let mut running = Running::start(&project, &["--json", "apply"]);
    let end = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '{}' and application_name = 'pg_dump'",
        db.name
    );
    running.until("pg_dump", || db.cluster.sql("postgres", &end) != "0");
    let ran = running.finish().expect_code(1);
    drop(holding);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    tells(&ran, "unchanged", "ripcord apply");
    assert_eq!(stored_backups(&project), stored);
    assert_eq!(backups(&db), "verified, failed");
    project.json(&["apply"]).expect_code(0);
    assert_eq!(backups(&db), "verified, failed, verified");
}

#[test]
fn a_backup_that_takes_too_long_is_ended() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.configure("[backup]\ntimeout = \"700ms\"\n");
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let _holding = Holding::open(&db, "lock table orders in access exclusive mode");
    let ran = project.json(&["apply"]).expect_code(1);
    tells(&ran, "unchanged", "");
    assert_eq!(backups(&db), "verified, failed");
    wait_until("pg_dump ends on the server", || {
        let dumps = "select count(*) from pg_stat_activity where application_name = 'pg_dump' and datname = ";
        db.cluster.sql("postgres", &format!("{dumps}'{}'", db.name)) == "0"
    });
}

#[test]
fn a_pg_dump_of_another_version_is_refused_before_anything() {
    let cluster = Cluster::start_with(&other_programs_folder(), &[]);
    let db = cluster.database();
    let project = Project::new(&db);
    project.migration("001_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let major = db.sql("select current_setting('server_version_num')::int / 10000");

    let ran = project.json(&["apply"]).expect_code(1);
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    let error = ran.result()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(&format!("no pg_dump and pg_restore of version {major}")), "{ran:#?}");
    tells(&ran, "unchanged", &format!("postgresql-client-{major}"));
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
    assert_eq!(stored_backups(&project), Vec::<String>::new());

    // The right one is found among several, wherever it stands.
    let ours = Cluster::shared().bin().display().to_string();
    let other = cluster.bin().display().to_string();
    let path = std::env::var("PATH").unwrap();
    let project = project.env("PATH", &format!("{ours}:{other}:{path}"));
    let ran = project.json(&["apply"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");
    assert!(db.sql("select tool_version from ripcord.backup_history").contains(&major));
    project.configure(&format!("pg_bin = [\"{ours}\", \"{other}\"]\n"));
    let project = project.env("PATH", "/usr/bin:/bin");
    project.migration("002_more.sql", "ALTER TABLE more ADD COLUMN x int;", "ALTER TABLE more DROP COLUMN x;");
    project.json(&["apply"]).expect_code(0);
    // And for the right server, the other one does not stand in the way.
    let db = Cluster::shared().database();
    let project = Project::new(&db).env("PATH", &format!("{other}:{path}"));
    project.migration("001_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.json(&["apply"]).expect_code(0);
}

#[test]
fn a_key_that_is_missing_or_wrong_is_refused_before_the_dump() {
    for key in ["", "  ", "xyz", "0123", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
        let db = Cluster::shared().database();
        let project = Project::new(&db).env("BACKUP_ENCRYPTION_KEY", key);
        project.migration("001_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
        let ran = project.json(&["apply"]).expect_code(2);
        tells(&ran, "unchanged", "");
        if key.trim().len() > 3 {
            assert!(!ran.stderr.contains(key) && !ran.stdout.contains(key), "{ran:#?}");
        }
        assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0", "{key:?}");
        assert_eq!(db.sql("select to_regclass('more') is null"), "t");
        assert!(!project.store().exists(), "{key:?}");
    }
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.migration("001_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let output = project.command(&["apply"]).env_remove("BACKUP_ENCRYPTION_KEY").output().unwrap();
    let ran = crate::support::cli::ran(output).expect_code(2);
    tells(&ran, "unchanged", "ripcord key generate");
    assert!(!project.store().exists());
}

#[test]
fn a_wrong_password_is_told_without_it() {
    let db = Cluster::shared().database();
    let url = db.cluster.url_as("postgres", "wr0ng-pass", &db.name);
    let project = Project::with_url(&url);
    project.migration("001_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["apply"]).expect_code(1);
    assert!(ran.result()["error"].as_str().unwrap().contains("password authentication failed"), "{ran:#?}");
    assert!(!ran.stderr.contains("wr0ng-pass") && !ran.stdout.contains("wr0ng-pass"), "{ran:#?}");
    tells(&ran, "unchanged", "");
    assert!(!project.store().exists());
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
}

#[test]
fn without_a_backup_only_where_that_is_allowed() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let stored = stored_backups(&project);
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let ran = project.json(&["apply", "--skip-backup"]).expect_code(0);
    assert!(ran.stdout.contains("NO restore"), "{ran:#?}");
    assert_eq!(stored_backups(&project), stored);

    // When it fails, what can be undone without a backup is; the rest is told.
    project
        .migration("003_drop.sql", "ALTER TABLE orders DROP COLUMN note;", "ALTER TABLE orders ADD COLUMN note text;")
        .migration("004_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    let ran = project.json(&["apply", "--skip-backup"]).expect_code(4);
    assert_eq!(ran.result()["outcome"], "not_recovered", "{ran:#?}");
    tells(&ran, "CHANGED and not brought back: `003_drop` applied", "ripcord");
    assert_eq!(history(&db), "001 applied, 002 applied, 003 applied, 004 failed");

    let db = Cluster::shared().database();
    let project = shop(&db);
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.write("ripcord.toml", "[environments.test]\nprotected = false\napproval = false\n");
    for environment in ["test", "staging"] {
        let output = project.command(&["apply", "--skip-backup"]).env("RIPCORD_ENV", environment).output().unwrap();
        let ran = crate::support::cli::ran(output).expect_code(7);
        tells(&ran, "unchanged", "");
        let output = project.command(&["apply"]).env("RIPCORD_ENV", environment).env("SKIP_BACKUP", "true").output();
        crate::support::cli::ran(output.unwrap()).expect_code(7);
    }
    assert_eq!((history(&db), runs(&db)), ("001 applied".to_owned(), "apply done 0".to_owned()));
}
