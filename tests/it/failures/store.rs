//! Stores that cannot be written to, or fill up.

use super::*;
use crate::support::cluster::unprivileged_user;

fn more(project: &Project) {
    project.migration("002_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
}

#[test]
fn a_file_in_the_stores_place_is_refused_before_anything() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    more(&project);
    std::fs::write(project.store(), "not a folder").unwrap();
    let ran = project.json(&["apply"]);
    assert!([1, 2].contains(&ran.code), "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("backups"), "{ran:#?}");
    tells(&ran, "unchanged", "");
    assert_eq!(std::fs::read_to_string(project.store()).unwrap(), "not a folder");
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
}

#[test]
fn a_folder_that_may_not_be_written_is_refused_before_anything() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let db = Cluster::shared().database();
    let project = shop(&db);
    more(&project);
    let mut command = project.command(&["--json", "apply"]);
    if let Some((uid, gid)) = unprivileged_user() {
        // The store stays root's. The binary itself may lie where that user cannot reach.
        let copy = project.path().join("ripcord");
        std::fs::copy(env!("CARGO_BIN_EXE_ripcord"), &copy).unwrap();
        std::fs::set_permissions(project.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut other = Command::new(&copy);
        other.args(["--json", "apply"]).current_dir(project.path()).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                other.env(name, value);
            }
        }
        other.uid(uid).gid(gid);
        command = other;
    } else {
        std::fs::set_permissions(project.store(), std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let stored = stored_backups(&project);
    let ran = ran(command.output().unwrap()).expect_code(1);
    std::fs::set_permissions(project.store(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(ran.stderr.contains("no permission"), "{ran:#?}");
    tells(&ran, "unchanged", "");
    assert_eq!(stored_backups(&project), stored);
    assert_eq!(
        (history(&db), runs(&db), backups(&db)),
        ("001 applied".to_owned(), "apply done 0".to_owned(), "verified".to_owned())
    );
}

/// A table that does not compress.
fn noise(db: &Db<'_>) {
    db.sql(
        "create table noise as select md5(random()::text) || md5(random()::text) as a from generate_series(1, 20000)",
    );
}

#[track_caller]
fn assert_full(db: &Db<'_>, project: &Project, ran: &Ran, stored: &[String]) {
    assert_eq!(ran.result()["outcome"], "unchanged", "{ran:#?}");
    assert!(ran.result()["error"].as_str().unwrap().contains("writing to the store failed"), "{ran:#?}");
    tells(ran, "unchanged", "ripcord");
    assert_eq!(stored_backups(project), stored);
    assert_eq!(backups(db), "verified, failed");
    assert_eq!((history(db), runs(db)), ("001 applied".to_owned(), "apply done 0, apply unchanged 1".to_owned()));
    assert_eq!(db.sql("select to_regclass('more') is null"), "t");
}

#[test]
fn a_file_size_limit_is_a_failure_like_any_other() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    more(&project);
    noise(&db);
    let stored = stored_backups(&project);
    let plain = project.command(&["--json", "apply"]);
    let mut command = Command::new("sh");
    // In blocks of 512 bytes.
    command.args(["-c", "ulimit -f 400; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(project.path()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), None, "killed by a signal");
    let ran = ran(output).expect_code(1);
    assert_full(&db, &project, &ran, &stored);
    project.json(&["apply"]).expect_code(0);
}

#[test]
fn a_full_disk_is_a_failure_like_any_other() {
    // A small file system of its own: root mounts it in a mount namespace, an ordinary user in a user namespace.
    let namespace: &[&str] = if unprivileged_user().is_some() { &["-m"] } else { &["--map-root-user", "-m"] };
    let may = Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success());
    assert!(
        may,
        "this test needs `unshare {}` (util-linux, and user namespaces for ordinary users)",
        namespace.join(" ")
    );
    let db = Cluster::shared().database();
    let project = shop(&db);
    more(&project);
    noise(&db);
    let stored = stored_backups(&project);
    let plain = project.command(&["--json", "apply"]);
    let mut command = Command::new("unshare");
    let mounted = "mkdir small && mount -t tmpfs -o size=512k none small && cp -a backups/. small/ && mount --bind small backups \
                   && \"$@\"; code=$?; cp -a backups/. kept/; exit $code";
    std::fs::create_dir(project.path().join("kept")).unwrap();
    command.args(namespace).args(["sh", "-c", mounted, "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(project.path()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = ran(command.stdin(Stdio::null()).output().unwrap()).expect_code(1);
    assert!(ran.stderr.contains("the disk is full"), "{ran:#?}");
    assert_full(&db, &project, &ran, &stored);
    tells(&ran, "unchanged", "free some space there");
    // What the small file system held at the end.
    let left = std::fs::read_dir(project.path().join("kept")).unwrap().flatten().next().unwrap();
    let left: Vec<_> = std::fs::read_dir(left.path().join("backups")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
