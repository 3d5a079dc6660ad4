//! Every layout, and what it makes of files that are not as its tool writes them: told with file, line and what was
//! expected, and nothing is changed.

use std::collections::BTreeSet;

use ripcord::migration::source;

use crate::support::{Cluster, Project};

/// One malformed folder.
struct Case {
    layout: &'static str,
    files: Vec<(&'static str, String)>,
    /// What is said, each a part of it.
    says: &'static [&'static str],
    /// How `validate`, `plan` and `apply` end.
    codes: [i32; 3],
}

const UP: &str = "CREATE TABLE must_not (id int);";

fn stops(layout: &'static str, files: &[(&'static str, &str)], says: &'static [&'static str]) -> Case {
    let files = files.iter().map(|(name, text)| (*name, text.replace("{UP}", UP))).collect();
    Case { layout, files, says, codes: [1, 1, 1] }
}

/// A file that is left out: an error of `validate`, a warning of a run.
fn left_out(layout: &'static str, files: &[(&'static str, &str)], says: &'static [&'static str]) -> Case {
    Case { codes: [1, 0, 0], ..stops(layout, files, says) }
}

fn cases() -> Vec<Case> {
    let mut all = marks();
    all.extend(names());
    all.extend(folders());
    all
}

/// Layouts that part a file by marks in it.
fn marks() -> Vec<Case> {
    let rule = "-- ====\n";
    let turned = format!("{rule}-- ROLLBACK\n{rule}DROP TABLE x;\n-- FORWARD MIGRATION\n{{UP}}\n");
    vec![
        stops(
            "dbmate",
            &[("1_a.sql", "-- migrate:up\n{UP}\n-- migrate:up\n")],
            &["`1_a.sql`, line 3: a second mark of dbmate's for UP; the first is in line 1"],
        ),
        stops(
            "dbmate",
            &[("1_a.sql", "-- migrate:down\n{UP}\n")],
            &["`1_a.sql`, line 1: dbmate's mark for UP is missing"],
        ),
        stops(
            "dbmate",
            &[("1_a.sql", "{UP}\n-- migrate:up\n")],
            &["`1_a.sql`, line 2: SQL stands above dbmate's first mark"],
        ),
        stops(
            "dbmate",
            &[("1_a.sql", "-- migrate:up transaction:no\n{UP}\n")],
            &["`1_a.sql`, line 1: `transaction:no`", "expected: `transaction:false`"],
        ),
        stops(
            "goose",
            &[("1_a.sql", "-- +goose Up\n{UP}\n-- +goose Down\n-- +goose Down\n")],
            &["`1_a.sql`, line 4: a second mark of goose's for DOWN; the first is in line 3"],
        ),
        stops(
            "goose",
            &[("1_a.sql", "-- +goose Down\n{UP}\n")],
            &["`1_a.sql`, line 1: goose's mark for UP is missing"],
        ),
        stops(
            "goose",
            &[("1_a.sql", "{UP}\n-- +goose Up\n")],
            &["`1_a.sql`, line 2: SQL stands above goose's first mark"],
        ),
        stops(
            "goose",
            &[("1_a.sql", "-- +goose Up\n-- +goose ENVSUB ON\n{UP}\n")],
            &["`1_a.sql`, line 2: goose's ENVSUB"],
        ),
        stops(
            "goose",
            &[("1_a.sql", "-- +goose Up\n-- +goose NOTRANSACTION\n{UP}\n")],
            &["`1_a.sql`, line 2: goose has no annotation `notransaction`", "expected: "],
        ),
        stops(
            "sql-migrate",
            &[("1_a.sql", "-- +migrate Up\n{UP}\n-- +migrate Up\n")],
            &["`1_a.sql`, line 3: a second mark of sql-migrate's for UP"],
        ),
        stops(
            "sql-migrate",
            &[("1_a.sql", "-- +migrate Upp\n{UP}\n")],
            &["`1_a.sql`, line 1: sql-migrate has no mark `+migrate Upp`", "expected: "],
        ),
        stops(
            "sql-migrate",
            &[("1_a.sql", "-- +migrate Up no-transaction\n{UP}\n")],
            &["`1_a.sql`, line 1: sql-migrate has no mark", "expected: "],
        ),
        stops(
            "sql-migrate",
            &[("1_a.sql", "-- +migrate Down\n{UP}\n")],
            &["`1_a.sql`, line 1: sql-migrate's mark for UP is missing"],
        ),
        stops(
            "node-pg-migrate",
            &[("1_a.sql", "-- Up Migration\n{UP}\n-- Down Migration\n-- Down Migration\n")],
            &["`1_a.sql`, line 4: a second mark of node-pg-migrate's for DOWN"],
        ),
        stops(
            "node-pg-migrate",
            &[("1_a.sql", "{UP}\n-- Up Migration\n")],
            &["`1_a.sql`, line 2: SQL stands above node-pg-migrate's first mark"],
        ),
        stops(
            "banners",
            &[("1_a.sql", "-- FORWARD MIGRATION\n{UP}\n-- FORWARD MIGRATION\n")],
            &["`1_a.sql`, line 3: a second `-- FORWARD MIGRATION` banner"],
        ),
        stops("banners", &[("1_a.sql", &turned)], &["`1_a.sql`, line 2: the `-- ROLLBACK` banner stands before"]),
        stops(
            "banners",
            &[("1_a.sql", "{UP}\n-- FORWARD MIGRATION\n")],
            &["`1_a.sql`, line 2: SQL stands before the `-- FORWARD MIGRATION` banner"],
        ),
        stops(
            "metadata",
            &[("1_a.sql", "-- @metadata {\n--   \"risk\": \"huge\"\n-- }\n-- UP\n{UP}")],
            &["`1_a.sql`, line 1: ", "must be `low`, `medium` or `high`"],
        ),
        stops(
            "metadata",
            &[("1_a.sql", "-- @metadata {\n--   \"risk\": low\n-- }\n-- UP\n{UP}")],
            &["`1_a.sql`, line 2: the `@metadata` is no valid JSON"],
        ),
        stops(
            "metadata",
            &[("1_a.sql", "-- @metadata\n-- UP\n{UP}")],
            &["`1_a.sql`, line 1: `@metadata` without its JSON, which begins with `{`"],
        ),
        stops(
            "metadata",
            &[("1_a.sql", "-- UP\n{UP}\n-- UP\n")],
            &["`1_a.sql`, line 3: a second `-- UP` marker; the first is in line 1"],
        ),
        stops(
            "metadata",
            &[("1_a.sql", "{UP}\n-- UP\n")],
            &["`1_a.sql`, line 2: SQL stands before the `-- UP` marker"],
        ),
        stops(
            "unread",
            &[("1_a.sql", "{UP}\n-- //@UNDO\nDROP TABLE must_not;\n")],
            &["`1_a.sql`, line 2: `-- //@UNDO` is MyBatis"],
        ),
        stops(
            "unread",
            &[("1_a.sql", "--liquibase formatted sql\n--changeset a:1\n{UP}\n")],
            &["`1_a.sql`, line 1: `-- liquibase formatted sql` is Liquibase's"],
        ),
        stops(
            "unread",
            &[("1_a.sql", "{UP}\n-- Rollback:\nDROP TABLE must_not;\n")],
            &["`1_a.sql`, line 2: `-- Rollback:` is a mark for DOWN"],
        ),
        stops(
            "transaction",
            &[("add_a.sql", "BEGIN;\nSELECT 1;\nROLLBACK;\n{UP}\nCOMMIT;\n")],
            &["add_a.sql, line 3", "`ROLLBACK`"],
        ),
        stops(
            "transaction",
            &[("add_a.sql", "BEGIN;\n{UP}\nSELECT 'open;\nCOMMIT;\n")],
            &["`add_a.sql`, line 3, column 8: the string that begins here never ends"],
        ),
    ]
}

/// Layouts that go by the files' names.
fn names() -> Vec<Case> {
    vec![
        stops(
            "flyway",
            &[("V1__a.sql", "{UP}"), ("R__views.sql", "{UP}")],
            &["`R__views.sql` is a repeatable migration of Flyway's"],
        ),
        stops(
            "flyway",
            &[("V1__a.sql", "{UP}"), ("B3__all.sql", "{UP}")],
            &["`B3__all.sql` is a baseline of Flyway's"],
        ),
        stops(
            "flyway",
            &[("V1__a.sql", "{UP}"), ("V1__a.sql.conf", "shouldExecute=false\n")],
            &["`V1__a.sql.conf` says how Flyway runs `V1__a.sql`"],
        ),
        stops(
            "flyway",
            &[("V1__a.sql", "SELECT 1;\nCREATE TABLE ${schema}.must_not ();\n")],
            &["V1__a.sql, line 2", "`${schema}`"],
        ),
        stops(
            "flyway",
            &[
                ("V1__a.sql", "{UP}"),
                ("U1__a.sql", "{UP}"),
                ("U1__b.sql", "{UP}"),
                ("V1__c.sql", "{UP}"),
                ("U1__d.sql", "{UP}"),
            ],
            &["second DOWN for version `1`"],
        ),
        left_out("flyway", &[("V1__a.sql", "{UP}"), ("V2_b.sql", "{UP}")], &["V2_b.sql", "expected `001_name.sql`"]),
        left_out("flyway", &[("V1__a.sql", "{UP}"), ("V2__b.rs", "")], &["V2__b.rs", "written in Rust"]),
        left_out(
            "flyway",
            &[("V1__a.sql", "{UP}"), ("more/V2__b.sql", "{UP}")],
            &["more", "a folder in the folder is not read"],
        ),
        left_out(
            "dated",
            &[("2026-01-20_a.sql", "{UP}"), ("2026-1-21_b.sql", "{UP}")],
            &["2026-1-21_b.sql", "expected `YYYY-MM-DD_description.sql`"],
        ),
        left_out(
            "dated",
            &[("2026-01-20_a.sql", "{UP}"), ("2026-02-30_b.sql", "{UP}")],
            &["2026-02-30_b.sql", "expected `YYYY-MM-DD_description.sql`"],
        ),
        Case {
            // A database may have what is gone from the folder: `validate` does not know.
            codes: [0, 1, 1],
            ..stops(
                "dated",
                &[("2026-01-20_a.sql", "-- @depends-on: 2026-01-19_gone.sql\n{UP}")],
                &["2026-01-20_a.sql", "depends on `2026-01-19_gone.sql`, which is no migration of this folder"],
            )
        },
        left_out(
            "numbered",
            &[("001_a.sql", "{UP}"), ("002_b.down.sql", "{UP}")],
            &["002_b.down.sql", "a DOWN without the UP"],
        ),
        left_out("numbered", &[("001_a.sql", "{UP}"), ("seed.sql", "{UP}")], &["seed.sql", "expected `001_name.sql`"]),
        left_out(
            "numbered",
            &[("001_a.sql", "{UP}"), ("002_b.go", "package migrations")],
            &["002_b.go", "written in Go, and ripcord runs SQL only"],
        ),
        left_out("numbered", &[("001_a.sql", "{UP}"), ("002_b.psql", "{UP}")], &["002_b.psql", "ripcord reads `.sql`"]),
        left_out(
            "numbered",
            &[("001_a.sql", "{UP}"), ("002_b.sql.j2", "{UP}")],
            &["002_b.sql.j2", "neither unpacks nor fills in"],
        ),
        stops(
            "numbered",
            &[("1_a.sql", "{UP}"), ("1_b.down.sql", "{UP}"), ("1_c.down.sql", "{UP}")],
            &["second DOWN for version `1`"],
        ),
        stops(
            "numbered",
            &[("1_a.sql", "{UP}\nSELECT 'open;\n")],
            &["`1_a.sql`, line 2, column 8: the string that begins here never ends"],
        ),
        stops(
            "numbered",
            &[("1_a.sql", "-- ripcord: timeout 5\n{UP}")],
            &["`1_a.sql`, line 1: `5` has no unit: write `5s` or `5ms`"],
        ),
        stops(
            "plain",
            &[("20250101000000_a.sql", "{UP}\n\\i other.sql\n")],
            &["`20250101000000_a.sql`, line 2, column 1: `\\i` is a command of psql"],
        ),
        stops(
            "plain",
            &[("20250101000000_a.sql", "{UP}\nCOPY must_not FROM stdin;\n1\n")],
            &["`20250101000000_a.sql`, line 2, column 1", "a line `\\.` ends them"],
        ),
        left_out(
            "plain",
            &[("20250101000000_a.sql", "{UP}"), ("20250102000000_b.ts", "")],
            &["20250102000000_b.ts", "written in TypeScript"],
        ),
    ]
}

/// Layouts with files or folders beside.
fn folders() -> Vec<Case> {
    vec![
        stops(
            "folders",
            &[("1_a/up.sql", "{UP}"), ("1_a/migration.sql", "{UP}")],
            &["`1_a` holds an `up.sql` and a `migration.sql`"],
        ),
        stops("folders", &[("1_a/up.sql", "{UP}\nSELECT 'open;\n")], &["`1_a/up.sql`, line 2, column 8"]),
        stops(
            "folders",
            &[("1_a/up.sql", "{UP}"), ("1_a/metadata.toml", "\nrun_in_transaction = \"no\"\n")],
            &["1_a/metadata.toml`, line 2: `run_in_transaction` must be `true` or `false`"],
        ),
        stops(
            "folders",
            &[("1_a/up.sql", "{UP}"), ("1_a/metadata.toml", "# ours\nrun_in_transaction false\n")],
            &["1_a/metadata.toml`, line 2: it is no TOML"],
        ),
        stops(
            "folders",
            &[("1_a/migration.sql", "{UP}"), ("migration_lock.toml", "provider = \"mysql\"\n")],
            &["migration_lock.toml`, line 1 is for `mysql`"],
        ),
        stops(
            "folders",
            &[("1_a/migration.sql", "{UP}"), ("migration_lock.toml", "provider =\n")],
            &["migration_lock.toml`, line 1: it is no TOML"],
        ),
        stops("folders", &[("1_a/up.sql", "{UP}"), ("2_b.sql/readme", "")], &["2_b.sql`: it is a folder"]),
        left_out(
            "folders",
            &[("1_a/up.sql", "{UP}"), ("2_b/down.sql", "{UP}")],
            &["2_b", "holds neither `up.sql` nor `migration.sql`"],
        ),
        stops(
            "drizzle",
            &[("0000_a.sql", "{UP}"), ("meta/_journal.json", "{\n\"entries\": [\n{\"tag\": 3}]}")],
            &["_journal.json`, line 3: it is no journal of Drizzle's", "expected: "],
        ),
        stops(
            "drizzle",
            &[("0000_a.sql", "{UP}"), ("meta/_journal.json", "{\"entries\": [{\"tag\": \"0001_gone\", \"when\": 1}]}")],
            &["names `0001_gone.sql`, which is not in the folder"],
        ),
        stops(
            "drizzle",
            &[("0000_a.sql", "{UP}"), ("meta/_journal.json", "{\"dialect\": \"sqlite\", \"entries\": []}")],
            &["is for `sqlite`"],
        ),
        stops(
            "drizzle",
            &[
                ("0000_a.sql", "{UP}"),
                (
                    "meta/_journal.json",
                    "{\"entries\": [{\"tag\": \"0000_a\", \"when\": 1}, {\"tag\": \"0000_a\", \"when\": 2}]}",
                ),
            ],
            &["names `0000_a.sql` twice"],
        ),
        left_out(
            "drizzle",
            &[
                ("0000_a.sql", "{UP}"),
                ("0001_b.sql", "{UP}"),
                ("meta/_journal.json", "{\"entries\": [{\"tag\": \"0000_a\", \"when\": 1}]}"),
            ],
            &["0001_b.sql", "does not name it"],
        ),
    ]
}

#[test]
fn every_layout_has_malformed_variants() {
    let tried: BTreeSet<&str> = cases().iter().map(|case| case.layout).collect();
    assert_eq!(tried, source::layouts().into_iter().collect());
}

#[test]
fn every_layout_rejects_its_malformed_variants_and_changes_nothing() {
    let db = Cluster::shared().database();
    let before = db.schema();
    let mut wrong = Vec::new();
    for case in cases() {
        let project = Project::new(&db);
        for (name, text) in &case.files {
            project.write(&format!("migrations/{name}"), text);
        }
        for (command, code) in ["validate", "plan", "apply"].into_iter().zip(case.codes) {
            if (command, code) == ("apply", 0) {
                continue;
            }
            let ran = project.run(&[command]);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            // Findings of `validate` have `file:line`, errors a sentence.
            let is_said = |part: &&&str| said.contains(**part) || said.contains(&part.replace(", line ", ":"));
            if ran.code != code || !case.says.iter().all(|part| is_said(&part)) {
                wrong.push(format!("{} {command}: not {code} {:?}: {ran:#?}", case.layout, case.says));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(db.schema(), before);
}

/// What lies beside on purpose is not told as an error.
#[test]
fn what_is_no_migration_may_lie_beside() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.migration("001_a.sql", "SELECT 1;", "SELECT 1;");
    for name in
        ["README.md", "001_a_test.go", "embed.go", "schema.ts", "001_notes.txt", "001_a.sql.bak", "old/000_x.sql"]
    {
        project.write(&format!("migrations/{name}"), "SELECT 1;");
    }
    let ran = project.run(&["validate"]).expect_code(0);
    for told in ["001_a.sql.bak", "old"] {
        assert!(ran.stderr.contains(&format!("{told}` is left out")), "{ran:#?}");
    }
    assert!(!ran.stderr.contains("README") && !ran.stderr.contains(".go"), "{ran:#?}");
    let status = project.run(&["status"]).expect_code(0);
    assert!(!status.stdout.contains("left out"), "{status:#?}");
    project.write("migrations/002_b.py", "");
    let status = project.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("002_b.py` is left out"), "{status:#?}");
}
