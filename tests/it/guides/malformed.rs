//! Folders as they should not be: each is told with the file, the line where there is one, and what was expected, and
//! none of them changes anything.

use crate::support::cli::{Ran, peak_memory, ran};
use crate::support::cluster::unprivileged_user;
use crate::support::{Cluster, Db, Project};

/// The project's commands say `says` and end with `code`, and the database is as it was.
#[track_caller]
fn stops(project: &Project, db: &Db<'_>, code: i32, says: &[&str]) {
    let before = db.schema();
    for arguments in [&["plan"][..], &["apply"]] {
        let ran = project.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:#?}");
        for says in says {
            assert!(ran.stderr.contains(says), "{arguments:?} does not say `{says}`: {ran:#?}");
        }
    }
    assert_eq!(db.schema(), before);
    assert_eq!(db.sql("select count(*) from pg_class where relname like 'must_not%'"), "0");
}

/// A fresh database and a project with one file that would be applied.
fn project<'a>() -> (Db<'a>, Project) {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    (db, project)
}

const UP: &str = "CREATE TABLE must_not (id int);";

#[test]
fn each_layout_rejects_its_own_malformed_files() {
    let rule = "-- ====\n";
    let cases: Vec<(&str, String, &[&str])> = vec![
        (
            "003_x.sql",
            format!("-- FORWARD MIGRATION\n{UP}\n-- FORWARD MIGRATION\n"),
            &["`003_x.sql`, line 3", "a second"],
        ),
        (
            "003_x.sql",
            format!("{rule}-- ROLLBACK\n{rule}DROP TABLE x;\n-- FORWARD MIGRATION\n{UP}"),
            &["line 2", "stands before"],
        ),
        (
            "003_x.sql",
            format!("{UP}\n-- FORWARD MIGRATION\n"),
            &["line 2", "SQL stands before the `-- FORWARD MIGRATION` banner"],
        ),
        (
            "003_x.sql",
            format!("-- @metadata {{\n--   \"risk\": \"huge\"\n-- }}\n-- UP\n{UP}"),
            &["line 1", "must be `low`, `medium` or `high`"],
        ),
        ("003_x.sql", format!("-- @metadata {{\n--   \"risk\": low\n-- }}\n-- UP\n{UP}"), &["line 2", "no valid JSON"]),
        ("003_x.sql", format!("-- @metadata {{\"tags\": \"x\"}}\n-- UP\n{UP}"), &["must be a list of texts"]),
        ("003_x.sql", format!("-- UP\n{UP}\n-- UP\n"), &["line 3", "a second `-- UP`"]),
        ("003_x.sql", format!("-- ripcord: timeout 5\n{UP}"), &["line 1", "has no unit"]),
        ("003_x.sql", format!("-- ripcord: no-transactions\n{UP}"), &["line 1", "is no directive"]),
        ("003_x.sql", format!("{UP}\nSELECT 'open;\n"), &["`003_x.sql`, line 2"]),
        ("003_x.down.sql", UP.to_owned(), &["a DOWN without the UP"]),
    ];
    for (file, text, says) in cases {
        let (db, project) = project();
        project.write("migrations/001_ok.sql", UP).write(&format!("migrations/{file}"), &text);
        if file.ends_with(".down.sql") {
            // Left out, and told: what is well runs.
            let ran = project.run(&["validate"]).expect_code(1);
            assert!(ran.stdout.contains(says[0]), "{ran:#?}");
            continue;
        }
        stops(&project, &db, 1, says);
    }
    for (file, says) in [
        ("2026-1-20_x.sql", "expected `YYYY-MM-DD_description.sql`"),
        ("2026-02-30_x.sql", "expected `YYYY-MM-DD_description.sql`"),
        ("seed.sql", "expected `001_name.sql`"),
    ] {
        let (_, project) = project();
        project.write("migrations/2026-01-20_a.sql", UP).write(&format!("migrations/{file}"), UP);
        let ran = project.run(&["validate"]).expect_code(1);
        assert!(ran.stdout.contains(file) && ran.stdout.contains(says), "{ran:#?}");
    }
    for (journal, says) in [
        ("{", "_journal.json`, line 1"),
        ("{\"entries\": [{\"tag\": \"0001_gone\", \"when\": 1}]}", "names `0001_gone.sql`, which is not in the folder"),
        ("{\"dialect\": \"sqlite\", \"entries\": []}", "is for `sqlite`"),
    ] {
        let (db, project) = project();
        project.write("migrations/0000_a.sql", UP).write("migrations/meta/_journal.json", journal);
        stops(&project, &db, 1, &[says]);
    }
}

#[test]
fn files_that_do_not_fit_together() {
    let (db, one) = project();
    one.write("migrations/001_mine.sql", UP).write("migrations/001_yours.sql", "SELECT 1;");
    stops(&one, &db, 1, &["version `001` is taken by 2 files: `001_mine.sql`, `001_yours.sql`"]);

    let (db, circle) = project();
    for (file, needs) in [("001_a", "003_c"), ("002_b", "001_a"), ("003_c", "002_b")] {
        circle.write(&format!("migrations/{file}.sql"), &format!("-- @depends-on: {needs}.sql\n{UP}"));
    }
    stops(&circle, &db, 1, &["depend on each other", "`001_a.sql`", "`002_b.sql`", "`003_c.sql`"]);

    let (db, lost) = project();
    lost.write("migrations/001_a.sql", &format!("-- Dependencies: 000_nowhere.sql\n{UP}"));
    stops(&lost, &db, 1, &["`001_a.sql` depends on `000_nowhere.sql`, which is no migration of this folder"]);

    let (db, order) = project();
    order.write("migrations/001_a.sql", UP).configure("order = [\"002_b\"]");
    stops(&order, &db, 2, &["`order` names `002_b` in place 1"]);

    let (db, changed) = project();
    changed.shop();
    changed.run(&["apply"]).expect_code(0);
    changed.migration("001_shop.sql", "CREATE TABLE other (id int);", "DROP TABLE other;");
    stops(&changed, &db, 1, &["`001_shop.sql` was changed after it was applied", "ripcord repair"]);

    let (db, deleted) = project();
    deleted.shop();
    deleted.run(&["apply"]).expect_code(0);
    std::fs::remove_file(deleted.path().join("migrations/002_fill.sql")).unwrap();
    let before = db.schema();
    let ran = deleted.run(&["apply"]).expect_code(0);
    let status = deleted.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("`002_fill` is applied, but its file is gone"), "{ran:#?}{status:#?}");
    assert_eq!(db.schema(), before);
}

#[test]
fn bytes_of_all_kinds() {
    // Line ends of Windows and a byte order mark are fine.
    let (db, fine) = project();
    fine.write("migrations/001_a.sql", "\u{feff}-- UP\r\nCREATE TABLE a (id int);\r\n-- DOWN\r\nDROP TABLE a;\r\n");
    fine.write("migrations/002_b.sql", "\u{feff}CREATE TABLE b (id int);\r\n");
    fine.run(&["apply"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from pg_class where relname in ('a', 'b') and relkind = 'r'"), "2");

    let (db, latin) = project();
    std::fs::write(latin.path().join("migrations/001_a.sql"), b"-- UP\n-- caf\xe9\nCREATE TABLE must_not ();").unwrap();
    stops(&latin, &db, 1, &["001_a.sql`, line 2: it is not UTF-8: byte 12", "save the file as UTF-8"]);

    let (db, zero) = project();
    std::fs::write(zero.path().join("migrations/001_a.sql"), b"CREATE TABLE must_not ();\0").unwrap();
    stops(&zero, &db, 1, &["has a NUL at byte 25"]);

    let (_, empty) = project();
    empty.write("migrations/001_a.sql", "");
    let ran = empty.run(&["validate"]).expect_code(0);
    assert!(ran.stdout.contains("there is no statement in it"), "{ran:#?}");
}

#[test]
fn files_that_are_no_files() {
    use std::os::unix::fs::symlink;

    let (db, outside) = project();
    let secret = tempfile::NamedTempFile::new().unwrap();
    symlink(secret.path(), outside.path().join("migrations/001_a.sql")).unwrap();
    stops(&outside, &db, 1, &["001_a.sql` is a link out of the folder"]);

    let (db, circular) = project();
    symlink("001_a.sql", circular.path().join("migrations/001_a.sql")).unwrap();
    stops(&circular, &db, 1, &["cannot read", "001_a.sql`"]);

    let (db, pipe) = project();
    let made = std::process::Command::new("mkfifo").arg(pipe.path().join("migrations/001_a.sql")).status().unwrap();
    assert!(made.success());
    stops(&pipe, &db, 1, &["001_a.sql`: it is no ordinary file"]);

    let (db, two) = project();
    two.write("migrations/001_a.sql", UP).write("db/migrations/001_a.sql", UP);
    stops(&two, &db, 2, &["more than one folder of migrations", "db/migrations"]);
}

/// The binary, which is given up after ten minutes: a pipe that is read has no end.
fn within_limit(project: &Project, arguments: &[&str]) -> Ran {
    let command = project.command(arguments);
    let mut limited = std::process::Command::new("timeout");
    limited.arg("600").arg(command.get_program()).args(command.get_args());
    limited.env_clear().current_dir(project.path()).stdin(std::process::Stdio::null());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap());
    }
    ran(limited.output().unwrap())
}

#[test]
fn nothing_waits_for_a_pipe() {
    let pipe = |project: &Project, name: &str| {
        let at = project.path().join("migrations").join(name);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at).status().unwrap().success());
    };
    let db = Cluster::shared().database();
    let before = db.schema();
    for (file, name) in [
        ("001_a.sql", "x.sql"),
        ("001_a.sql", "001_a.down.sql"),
        ("001_a.sql", "meta/_journal.json"),
        ("1_a/up.sql", "1_a/metadata.toml"),
        ("1_a/migration.sql", "migration_lock.toml"),
    ] {
        let project = Project::new(&db);
        project.write(&format!("migrations/{file}"), UP);
        pipe(&project, name);
        for arguments in [&["validate"][..], &["plan"], &["apply"]] {
            let ran = within_limit(&project, arguments);
            assert_eq!(ran.code, 1, "{name}: {ran:#?}");
            assert!(ran.stderr.contains(&format!("{name}`: it is no ordinary file")), "{name}: {ran:#?}");
        }
        // These read the folder, too; what they say of it is their own affair.
        for arguments in [&["status"][..], &["new", "more"], &["graph"]] {
            assert_ne!(within_limit(&project, arguments).code, 124, "{name} {arguments:?}");
        }
    }
    assert_eq!(db.schema(), before);
}

/// Root reads everything, so that the binary is run as somebody else.
fn as_nobody(project: &Project, arguments: &[&str]) -> Ran {
    use std::os::unix::process::CommandExt;

    let mut command = project.command(arguments);
    if let Some((uid, gid)) = unprivileged_user() {
        // Where the binary was built, nobody else may come.
        let beside = project.path().join("ripcord-of-nobody");
        std::fs::copy(command.get_program(), &beside).unwrap();
        let mut other = std::process::Command::new(&beside);
        other.args(command.get_args()).env_clear().current_dir(project.path());
        for (name, value) in command.get_envs() {
            other.env(name, value.unwrap());
        }
        other.stdin(std::process::Stdio::null()).uid(uid).gid(gid);
        command = other;
    }
    ran(command.output().unwrap())
}

#[test]
fn what_cannot_be_read_is_told() {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    let db = Cluster::shared().database();
    let before = db.schema();
    let open = |project: &Project| {
        std::fs::set_permissions(project.path(), Permissions::from_mode(0o755)).unwrap();
    };
    for (closed, code, says) in [
        ("migrations/001_a.sql", 1, "001_a.sql`"),
        ("migrations/001_a.down.sql", 1, "001_a.down.sql`"),
        ("migrations", 2, "cannot read the folder"),
    ] {
        let project = Project::new(&db);
        project.write("migrations/001_a.sql", UP).write("migrations/001_a.down.sql", "DROP TABLE must_not;");
        open(&project);
        let well = as_nobody(&project, &["validate"]);
        assert_eq!(well.code, 0, "{well:#?}");
        std::fs::set_permissions(project.path().join(closed), Permissions::from_mode(0o000)).unwrap();
        for arguments in [&["validate"][..], &["plan"], &["apply"]] {
            let ran = as_nobody(&project, arguments);
            assert_eq!(ran.code, code, "{closed}: {ran:#?}");
            for says in ["cannot read", says, "Permission denied"] {
                assert!(ran.stderr.contains(says), "{closed}, {says}: {ran:#?}");
            }
        }
        std::fs::set_permissions(project.path().join(closed), Permissions::from_mode(0o755)).unwrap();
    }

    let (db_of_link, dangling) = project();
    dangling.write("migrations/001_a.sql", UP);
    symlink("nowhere.sql", dangling.path().join("migrations/x.sql")).unwrap();
    stops(&dangling, &db_of_link, 1, &["cannot read", "x.sql`", "No such file"]);

    let (db_of_folder, folder) = project();
    folder.write("migrations/001_a.sql", UP).write("migrations/x.sql/001_b.sql", UP);
    stops(&folder, &db_of_folder, 1, &["cannot read", "x.sql`: it is a folder"]);
    assert_eq!(db.schema(), before);
}

/// A table's rows as pg_dump writes them. They go to the server as they come, and are held once.
#[test]
fn two_hundred_megabytes_of_rows() {
    use std::io::Write;

    const BYTES: u64 = 200 << 20;
    let (db, large) = project();
    let path = large.path().join("migrations/001_large.sql");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    writeln!(file, "-- UP\nCREATE TABLE large (id bigint, a text);\nCOPY large (id, a) FROM stdin;").unwrap();
    // Quotes, comments and statements in the rows are none.
    let rest = "it's -- $$ /* set schema; alter table large rename to small; ".repeat(2);
    let (mut rows, mut written) = (0_u64, 0_u64);
    while written < BYTES {
        rows += 1;
        let row = format!("{rows}\t{rest}\n");
        written += row.len() as u64;
        file.write_all(row.as_bytes()).unwrap();
    }
    writeln!(file, "\\.\n\n-- DOWN\nDROP TABLE large;").unwrap();
    file.into_inner().unwrap().sync_all().unwrap();

    for arguments in [&["validate"][..], &["plan"], &["apply"]] {
        let (ran, peak) = peak_memory(&large.command(arguments));
        let ran = ran.expect_code(0);
        assert!(!ran.stderr.contains("warning: ") && !ran.stdout.contains("warning: "), "{arguments:?}: {ran:#?}");
        assert!(peak < 3 * written, "{arguments:?}: {peak} bytes for a file of {written}");
        eprintln!("{arguments:?}: {} MiB for a file of {} MiB", peak >> 20, written >> 20);
    }
    let there = db.sql("select count(*), min(id), max(id), sum(length(a)) from large");
    assert_eq!(there, format!("{rows}|1|{rows}|{}", rows * rest.len() as u64));
}

#[test]
fn a_master_makes_an_empty_database_and_is_recorded_on_another() {
    let (db, new) = project();
    new.write("migrations/000_MASTER_ALL.sql", "CREATE TABLE IF NOT EXISTS a (id int);");
    new.write("migrations/001_a.sql", "CREATE TABLE IF NOT EXISTS a (id int);");
    new.run(&["apply"]).expect_code(0).expect_end("2 migrations applied", "");
    let states = "select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations";
    assert_eq!(db.sql(states), "000_MASTER_ALL applied, 001 applied");

    let (db, grown) = project();
    db.sql("create table b (id int)");
    grown.write("migrations/000_MASTER_ALL.sql", "CREATE TABLE must_not (id int);");
    grown.run(&["apply"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0", "nothing else was pending");
    grown.write("migrations/001_a.sql", "CREATE TABLE a (id int);");
    let status = grown.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("1 pending") && status.stdout.contains("this one is not"), "{status:#?}");
    grown.run(&["apply"]).expect_code(0).expect_end("1 migration applied", "");
    assert_eq!(db.sql(states), "000_MASTER_ALL baseline, 001 applied");
    assert_eq!(db.sql("select count(*) from pg_class where relname = 'must_not'"), "0");
    grown.run(&["apply"]).expect_code(0).expect_end("up to date", "");
}

#[test]
fn windows_and_what_a_migration_says_of_itself_ask_for_a_person() {
    let (db, closed) = project();
    closed.write("migrations/001_a.sql", "CREATE TABLE a (id int);");
    let now = chrono::Utc::now() + chrono::TimeDelta::hours(12);
    let window = format!(
        "{} {}-{}",
        now.format("%a"),
        now.format("%H:%M"),
        (now + chrono::TimeDelta::minutes(1)).format("%H:%M")
    );
    closed.configure(&format!("[environments.night]\nprotected = true\nmaintenance_windows = [\"{window}\"]"));
    let night = |arguments: &[&str]| closed.run(&[&["-e", "night"], arguments].concat());
    let ran = night(&["apply"]).expect_code(7);
    assert!(ran.stderr.contains("its next maintenance window begins"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from pg_class where relname = 'a'"), "0");
    night(&["apply", "--force", "--reason", "the site is down"]).expect_code(0);

    let (db, grave) = project();
    grave.configure("[environments.strict]\nprotected = true");
    grave.write(
        "migrations/001_a.sql",
        "-- @metadata {\"risk\": \"high\", \"requiresDowntime\": true, \"dataVolume\": \"large\"}\n-- UP\nCREATE TABLE a (id int);\n",
    );
    let ran = grave.run(&["-e", "strict", "apply"]).expect_code(7);
    assert!(ran.stderr.contains("tells of a high risk, that it needs a downtime, a large volume of data"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from pg_class where relname = 'a'"), "0");
    grave.run(&["-e", "strict", "apply", "--yes"]).expect_code(0);
}
