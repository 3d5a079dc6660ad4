//! The runbook, emergency by emergency: its commands are run as they stand there, and print what stands below them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Cluster, Db, Project};

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap()
}

/// What stands between two markers, without the fence.
fn block(name: &str) -> Vec<String> {
    let text = page();
    let begin = format!("<!-- {name}:begin -->");
    let inside = text.split(&begin).nth(1).unwrap_or_else(|| panic!("the runbook has no {begin}"));
    let inside = inside.split(&format!("<!-- {name}:end -->")).next().unwrap();
    inside.lines().filter(|line| !line.is_empty() && !line.starts_with("```")).map(str::to_owned).collect()
}

/// Runs an emergency's commands, and holds what they print against the page. `code` is the last one's exit code.
#[track_caller]
fn follow(db: &Db<'_>, project: &Project, name: &str, aside: Option<&str>, code: i32) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_ripcord")).parent().unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", bin.display(), db.cluster.bin().display());
    let commands = block(name);
    assert!(!commands.is_empty() && commands.len() <= 2, "{name}: one or two commands");
    let (mut said, mut last) = (String::new(), None);
    for command in commands {
        let mut command = command.replace("--confirm shop", &format!("--confirm {}", db.name));
        command = command.replace("--from-database shop", &format!("--from-database {}", db.name));
        if let Some(aside) = aside {
            command = command.replace("shop_aside_20261121t032738", aside);
        }
        let mut shell = project.command(&[]);
        let environment: Vec<_> =
            shell.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        shell = Command::new("sh");
        shell.args(["-uc", &command]).current_dir(project.path()).env_clear().stdin(Stdio::null());
        for (name, value) in environment {
            shell.env(name, value.unwrap());
        }
        let output = shell.env("PATH", &path).output().unwrap();
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        last = output.status.code();
    }
    assert_eq!(last, Some(code), "{name}:\n{said}");
    for line in block(&format!("{name}-seen")) {
        let line = line.replace("shop_aside_", &format!("{}_aside_", db.name));
        let line = line.replace("`shop`", &format!("`{}`", db.name));
        let mut rest = said.as_str();
        for part in line.split('…') {
            let at = rest.find(part).unwrap_or_else(|| panic!("{name}: `{part}` of `{line}` is not printed:\n{said}"));
            rest = &rest[at + part.len()..];
        }
    }
    said
}

fn shop(db: &Db<'_>) -> Project {
    let project = Project::new(db);
    project.shop();
    project.run(&["apply"]).expect_code(0);
    project.backup(&[]);
    project
}

fn orders(db: &Db<'_>) -> String {
    db.sql("select count(*) from orders")
}

#[test]
fn a_process_that_died() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;").migration(
        "004_further.sql",
        "CREATE TABLE further (id int);",
        "DROP TABLE further;",
    );
    let mut command = project.command(&["apply"]);
    let status = command.env("RIPCORD_FAULTS", "between_migrations=kill").output().unwrap().status;
    assert!(!status.success());
    assert_ne!(db.schema(), before);
    follow(&db, &project, "died", None, 3);
    assert_eq!(db.schema(), before);
    project.run(&["recover"]).expect_code(0);
}

#[test]
fn writes_that_a_restore_would_lose() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let psql = db.cluster.bin().join("psql");
    project.configure(&format!(
        "[hooks]\nafter_backup = [\"{} -qX {} -c 'insert into orders values (1000)'\"]\n",
        psql.display(),
        db.url()
    ));
    project.migration("003_spoil.sql", "DELETE FROM orders WHERE id < 10;", "SELECT 1;");
    project.migration("004_bad.sql", "SELECT 1 / (id - 1000) FROM orders;", "SELECT 1;");
    let ran = project.run(&["apply"]).expect_code(4);
    assert!(ran.stderr.contains("a restore would lose what was written after backup"), "{ran:#?}");
    follow(&db, &project, "writes", None, 0);
    assert_eq!(orders(&db), "100");
    assert!(std::fs::read_to_string(project.path().join("rows.sql")).unwrap().contains("'1000'"));
}

#[test]
fn a_good_deploy_with_a_broken_application() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = db.schema();
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    project.run(&["apply"]).expect_code(0);
    follow(&db, &project, "broken", None, 0);
    assert_eq!(db.schema(), before);
}

#[test]
fn rows_that_were_deleted_and_rows_that_are_missed_afterwards() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    db.sql("delete from orders");
    follow(&db, &project, "deleted", None, 0);
    assert_eq!(orders(&db), "100");

    project.backup(&[]);
    db.sql("insert into orders values (1001, 'new'), (1002, 'new')");
    project.run(&["restore", "latest", "--confirm", &db.name]).expect_code(0);
    assert_eq!(orders(&db), "100");
    follow(&db, &project, "missed", None, 0);
    assert_eq!(orders(&db), "102");

    let kept = project.json(&["aside", "list"]).expect_code(0).items();
    assert_eq!(kept.len(), 2);
    for database in &kept {
        follow(&db, &project, "full", database["name"].as_str(), 0);
    }
    assert_eq!(project.json(&["aside", "list"]).expect_code(0).items().len(), 0);
}

#[test]
fn a_database_that_is_gone() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    db.cluster.sql("postgres", &format!("drop database {} with (force)", db.name));
    follow(&db, &project, "gone", None, 0);
    assert_eq!(orders(&db), "100");
}

#[test]
fn a_lock_that_is_held() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let (held, go) = (project.path().join("held"), "apply_backed_up=wait:");
    project.migration("003_more.sql", "CREATE TABLE more (id int);", "DROP TABLE more;");
    let mut command = project.command(&["apply"]);
    command.env("RIPCORD_FAULTS", format!("{go}{}", held.display()));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !held.exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    project.run(&["apply"]).expect_code(5);
    follow(&db, &project, "locked", None, 0);
    std::fs::remove_file(&held).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_damaged_backup() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let mut damaged = 0;
    for lineage in std::fs::read_dir(project.store()).unwrap().flatten() {
        let newest =
            std::fs::read_dir(lineage.path().join("backups")).unwrap().flatten().map(|entry| entry.path()).max();
        let archive = newest.unwrap().join("0.rip");
        let mut bytes = std::fs::read(&archive).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&archive, bytes).unwrap();
        damaged += 1;
    }
    assert_eq!(damaged, 1);
    follow(&db, &project, "damaged", None, 0);
    project.run(&["backup", "verify", "latest"]).expect_code(0);
}

#[test]
fn nothing_but_psql() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    follow(&db, &project, "psql", None, 0);
    assert_eq!(orders(&db), "0");
    assert_eq!(
        db.sql("select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations"),
        "001 applied, 002 rolled_back"
    );
}

#[test]
fn there_are_ten_emergencies_and_each_is_followed_here() {
    let text = page();
    assert_eq!(text.lines().filter(|line| line.starts_with("## ")).count(), 10);
    let source = include_str!("runbook.rs");
    let names = text.lines().filter_map(|line| line.strip_prefix("<!-- ")?.strip_suffix(":begin -->"));
    let commands: Vec<&str> = names.filter(|name| !name.ends_with("-seen")).collect();
    assert_eq!(commands.len(), 10);
    for name in commands {
        assert!(source.contains(&format!("&project, \"{name}\"")), "{name} is not followed");
    }
}
