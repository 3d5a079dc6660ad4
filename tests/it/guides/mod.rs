//! The five guides' folders and databases, made after their text, and their commands in ripcord's words.

mod adopting;
mod malformed;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::support::cli::ran;
use crate::support::{Cluster, Db, Project};

fn guide(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guides").join(name)
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// A project with a guide's folder, and its database as the guide's own tool has left it. There is no
/// `ripcord.toml`: the guide's people have none.
fn moved_in<'a>(name: &str) -> (Db<'a>, Project) {
    let db = Cluster::shared().database();
    let project = Project::new(&db).env("RIPCORD_ENV", "development");
    std::fs::remove_file(project.path().join("ripcord.toml")).unwrap();
    std::fs::remove_dir(project.path().join("migrations")).unwrap();
    let mut files = Vec::new();
    files_below(&guide(name), &mut files);
    let mut old = String::new();
    for path in &files {
        let inner = path.strip_prefix(guide(name)).unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        match inner {
            "old.sql" => old = text,
            "replay" => {}
            _ => {
                project.write(inner, &text);
            }
        }
    }
    // `{file:NAME}` is a file's text, `{up:NAME}` what stands before its rollback, `{sha256:NAME}` its checksum.
    for path in &files {
        let file = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let up = text.split("-- ROLLBACK").next().unwrap().split("-- DOWN").next().unwrap();
        old = old.replace(&format!("{{file:{file}}}"), &text);
        old = old.replace(&format!("{{up:{file}}}"), up);
        old = old.replace(&format!("{{sha256:{file}}}"), &hex::encode(Sha256::digest(text.as_bytes())));
    }
    if !old.is_empty() {
        db.sql(&old);
    }
    (db, project)
}

/// One line of a replay.
struct Step {
    old: String,
    new: String,
    code: i32,
    says: String,
}

fn steps(name: &str) -> Vec<Step> {
    let text = std::fs::read_to_string(guide(name).join("replay")).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let parts: Vec<&str> = line.splitn(4, " =>").map(str::trim).collect();
            let [old, new, code, says] = parts.as_slice() else { panic!("{name}: {line}") };
            Step {
                old: (*old).to_owned(),
                new: (*new).to_owned(),
                code: code.parse().unwrap(),
                says: (*says).to_owned(),
            }
        })
        .collect()
}

/// Words as a shell cuts them, as far as double quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// `FILE WRONG RIGHT`: a person mends a word.
fn edit_file(project: &Project, edit: &str) {
    let [file, wrong, right] = edit.split(' ').collect::<Vec<_>>()[..] else { panic!("{edit}") };
    let mut files = Vec::new();
    files_below(project.path(), &mut files);
    let path = files.iter().find(|path| path.ends_with(file)).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(wrong), "{text}");
    std::fs::write(path, text.replace(wrong, right)).unwrap();
}

/// Runs every line of a guide's replay, in order.
fn replay(name: &str, db: &Db<'_>, project: &Project) {
    for Step { old, new, code, says } in steps(name) {
        let new = new.replace("{database}", &db.name);
        let told = format!("{name}: {old} => {new}");
        if let Some(edit) = new.strip_prefix("fix ") {
            edit_file(project, edit);
            continue;
        }
        if let Some(sql) = new.strip_prefix("psql ") {
            match db.cluster.try_sql(&db.name, sql) {
                Ok(printed) => assert!(code == 0 && printed.contains(&says), "{told}\n{printed}"),
                Err(error) => assert!(code != 0 && error.contains(&says), "{told}\n{error}"),
            }
            continue;
        }
        let mut words = words(&new);
        let mut command = Vec::new();
        while words.first().is_some_and(|word| word.contains('=') && word.starts_with(|c: char| c.is_uppercase())) {
            command.push(words.remove(0));
        }
        assert_eq!(words.remove(0), "ripcord", "{told}");
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut process = project.command(&arguments);
        for variable in &command {
            let (variable, value) = variable.split_once('=').unwrap();
            process.env(variable, value);
        }
        let done = ran(process.output().unwrap());
        assert!(
            done.code == code && (done.stdout.contains(&says) || done.stderr.contains(&says)),
            "{told}\nexpected exit code {code} and `{says}`\nexit code {}\n--- stdout\n{}\n--- stderr\n{}",
            done.code,
            done.stdout,
            done.stderr
        );
    }
}

#[test]
fn s0_numbered_files_and_a_unified_table() {
    let (db, project) = moved_in("s0");
    replay("s0", &db, &project);
    assert_eq!(db.sql("select string_agg(name, ',' order by name) from merchants"), "one,two");
    // Both files of one number are in effect, and what the old tables had more than once is there once.
    assert_eq!(
        db.sql(
            "select string_agg(version || ' ' || name, ', ' order by version) from ripcord.schema_migrations
              where state = 'applied' and version like '027%'"
        ),
        "027 add_ai_config_to_merchants, 027_performance_indexes performance_indexes"
    );
    assert_eq!(
        db.sql("select count(*) from ripcord.schema_migrations where state = 'applied' and version in ('1', '001')"),
        "1"
    );
    // The test migrations run only when they are asked for.
    assert_eq!(db.sql("select count(*) from pg_class where relname = 'instagram_test'"), "0");
    project.run(&["apply", "--also", "src/database/test-migrations"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from pg_class where relname = 'instagram_test'"), "1");
}

#[test]
fn s1_dated_files_in_a_curated_order() {
    let (db, project) = moved_in("s1");
    replay("s1", &db, &project);
    let order = "select string_agg(name, ' ' order by id) from ripcord.schema_migrations where run_id is not null";
    assert!(db.sql(order).starts_with("team_sharing create_tenants_table create_finances_table"), "{}", db.sql(order));
    assert_eq!(db.sql("select email from users"), "a@example.com");
}

#[test]
fn s2_drizzle_and_files_written_by_hand() {
    let (db, project) = moved_in("s2");
    replay("s2", &db, &project);
    let applied = "select string_agg(version, ' ' order by id) from ripcord.schema_migrations where state = 'applied'";
    assert_eq!(db.sql(applied), "0000 0001");
    assert_eq!(db.sql("select count(*) from pg_class where relname in ('accounts', 'posts', 'new_table')"), "2");
    project.run(&["apply"]).expect_code(0).expect_end("1 migration applied", "");
    assert_eq!(db.sql(applied), "0000 0001 add_new_table");
}

#[test]
fn s3_banners_batches_and_a_master() {
    let (db, project) = moved_in("s3");
    replay("s3", &db, &project);
    // `fresh` has emptied the database: the master ran, and then everything else.
    assert_eq!(
        db.sql(
            "select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations
              where state in ('applied', 'baseline')"
        )
        .split(", ")
        .next(),
        Some("000_MASTER_CONSOLIDATED applied")
    );
    assert_eq!(db.sql("select count(*) from pg_class where relname = 'never'"), "0");
    assert_eq!(db.sql("select count(*) from celebrities"), "0");
}

#[test]
fn s4_metadata_versions_and_policies() {
    let (db, project) = moved_in("s4");
    replay("s4", &db, &project);
    assert_eq!(db.sql("select email from users"), "a@example.com");
    // What has no place in our tables is kept in the audit log.
    assert_eq!(
        db.sql("select count(*) from ripcord.audit_log where action = 'adopted from public._migration_audit_log'"),
        "2"
    );
    assert_eq!(
        db.sql("select detail ->> 'path' from ripcord.audit_log where action = 'adopted from public._backup_history'"),
        "/backups/b-1.sql.gz"
    );
    let json = project.json(&["changelog", "--from", "1.2.0"]).expect_code(0).items();
    let titles: Vec<&str> = json.iter().filter_map(|section| section["title"].as_str()).collect();
    assert_eq!(titles, ["Unreleased", "2.0.0"], "{json:?}");
}

/// The page that a person reads has every line that a test has run.
#[test]
fn the_page_for_people_has_every_command_that_is_replayed() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/moving-from.md")).unwrap();
    let mut missing = BTreeSet::new();
    for name in ["s0", "s1", "s2", "s3", "s4"] {
        for step in steps(name) {
            if step.new.starts_with("psql ") || step.new.starts_with("fix ") || step.old == "the first step" {
                continue;
            }
            let cell = |text: &str| text.replace('|', "\\|");
            let row = format!("| `{}` | `{}` |", cell(&step.old), cell(&step.new.replace("{database}", "DATABASE")));
            if !page.contains(&row) {
                missing.insert(row);
            }
        }
    }
    assert!(missing.is_empty(), "docs/moving-from.md lacks:\n{}", missing.into_iter().collect::<Vec<_>>().join("\n"));
}
