use super::*;
use std::time::Duration;

mod other_tools;

struct Dir(tempfile::TempDir);

fn dir(files: &[(&str, &str)]) -> Dir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Dir(dir)
}

impl Dir {
    fn read(&self) -> Folder {
        read(self.0.path(), None).unwrap()
    }

    fn fails(&self) -> String {
        let error = read(self.0.path(), None).unwrap_err();
        format!("{error}")
    }
}

fn one(text: &str) -> Migration {
    let folder = dir(&[("001_a.sql", text)]).read();
    folder.migrations.into_iter().next().unwrap()
}

const FULL: &str = r#"-- @metadata {
--   "author": "ann",
--   "description": "add user preferences table",
--   "breakingChange": true,
--   "estimatedDuration": 1500,
--   "dataVolume": "small",
--   "risk": "low",
--   "tags": ["feature"],
--   "dependencies": ["001_users"],
--   "requiresDowntime": false,
--   "affectedTables": ["user_preferences"],
--   "rollbackStrategy": "restore",
--   "ticket": 7
-- }

-- UP
CREATE TABLE user_preferences (id int);

-- DOWN
DROP TABLE user_preferences;
"#;

#[test]
fn metadata_and_markers_are_read() {
    let migration = one(FULL);
    assert_eq!(migration.metadata.author.as_deref(), Some("ann"));
    assert_eq!(migration.metadata.estimated_duration, Some(Duration::from_millis(1500)));
    assert!(migration.metadata.breaking && !migration.metadata.requires_downtime);
    assert_eq!(migration.metadata.dependencies, ["001_users"]);
    assert_eq!(migration.metadata.affected_tables, ["user_preferences"]);
    assert_eq!(migration.metadata.rollback_strategy.as_deref(), Some("restore"));
    assert_eq!(migration.metadata.remarks.len(), 1);
    assert!(migration.metadata.remarks[0].message.contains("`ticket`"));
    assert_eq!(&*migration.up.sql, "CREATE TABLE user_preferences (id int);\n\n");
    assert_eq!(migration.up.first_line, 17);
    let down = migration.down.unwrap();
    assert_eq!((&*down.sql, down.first_line), ("DROP TABLE user_preferences;\n", 20));
    assert_eq!(down.line(&down.statements[0]), 20);
}

#[test]
fn broken_metadata_is_told_with_its_line() {
    let fails = |text: &str| dir(&[("001_a.sql", text)]).fails();
    let error = fails("-- x\n-- @metadata {\n--   \"author\": ann\n-- }\n-- UP\nselect 1;");
    assert!(error.contains("`001_a.sql`, line 3: the `@metadata` is no valid JSON"), "{error}");
    assert!(fails("-- @metadata\nselect 1;").contains("line 1"));
    assert!(fails("-- @metadata [1]\n").contains("no JSON object"));
    let error = fails("-- @metadata {\"risk\": \"huge\"}\n");
    assert!(error.contains("`risk` in `@metadata` must be `low`, `medium` or `high`"), "{error}");
    assert!(fails("-- @metadata {}\n-- @metadata {}").contains("line 2: a second `@metadata`"));
    assert!(fails("-- @metadata {\n-- UP\nselect 1;").contains("no valid JSON"));
}

#[test]
fn markers_in_any_case_and_indented() {
    for text in [
        "-- up\nselect 1;\n-- down\nselect 2;",
        "   -- Up\r\nselect 1;\r\n\t-- DOWN  \r\nselect 2",
        "--UP\nselect 1;\n-- ==== DOWN ====\nselect 2;",
        "-- UP:\nselect 1;\n--- Down ---\nselect 2;",
        "\u{feff}-- UP\nselect 1;\n-- DOWN\nselect 2;",
        "select 1;\n-- DOWN\nselect 2;",
        "-- DOWN\nselect 2;\n-- UP\nselect 1;",
        "-- a header\n/* more */\n-- UP\nselect 1; -- DOWN\n-- DOWN\nselect 2;",
    ] {
        let migration = one(text);
        let up = &migration.up;
        let down = migration.down.as_ref().unwrap();
        assert_eq!(up.statements.len(), 1, "{text}");
        assert_eq!(up.text(&up.statements[0]), "select 1;", "{text}");
        assert!(down.text(&down.statements[0]).starts_with("select 2"), "{text}");
    }
}

#[test]
fn markers_in_quotes_are_none() {
    let text = "-- UP\ncreate function f() returns text language sql as $$\n-- DOWN\nselect '\n-- UP\n' $$;\n";
    let migration = one(text);
    assert_eq!(migration.up.statements.len(), 1);
    assert!(migration.down.is_none());
}

#[test]
fn misplaced_markers_are_told() {
    let fails = |text: &str| dir(&[("001_a.sql", text)]).fails();
    assert!(fails("select 1;\n-- UP\nselect 2;").contains("line 2: SQL stands before the `-- UP` marker"));
    assert!(fails("-- UP\n-- DOWN\n-- UP").contains("line 3: a second `-- UP` marker; the first is in line 1"));
    assert!(fails("select 1;\n-- DOWN\nselect 1;\n-- UP\n").contains("SQL stands before the `-- DOWN`"));
}

#[test]
fn a_blank_down_counts_as_none() {
    let migration = one("-- UP\nselect 1;\n-- DOWN\n-- TODO: add your rollback SQL here\n;\n");
    assert!(migration.down.is_none());
    assert_eq!(migration.metadata.remarks[0].rule, "missing-down");
    assert_eq!(migration.metadata.remarks[0].line, 4);
}

const RULE: &str = "-- ============================================\n";

#[test]
fn banners_are_read() {
    let text = format!(
        "-- Migration: add\n-- Description: ratings\n\n{RULE}-- FORWARD MIGRATION\n{RULE}\nCREATE TABLE a (x int);\n\n{RULE}-- ROLLBACK\n{RULE}\nDROP TABLE a;\n"
    );
    let folder = dir(&[("20250726123456_add_ratings.sql", &text)]).read();
    assert_eq!(folder.layout, "banners");
    let migration = &folder.migrations[0];
    assert_eq!(migration.version.as_str(), "20250726123456");
    assert_eq!(migration.metadata.description.as_deref(), Some("ratings"));
    assert_eq!(migration.up.statements.len(), 1);
    assert_eq!(migration.up.line(&migration.up.statements[0]), 8);
    let down = migration.down.as_ref().unwrap();
    assert_eq!(down.text(&down.statements[0]), "DROP TABLE a;");
}

#[test]
fn a_rollback_comment_is_a_banner_only_between_rules() {
    let folder = dir(&[("001_a.sql", "-- rollback\nselect 1;")]).read();
    assert_eq!(folder.layout, "numbered");
    let text = format!("select 1;\n{RULE}-- rollback\n{RULE}select 2;");
    let folder = dir(&[("001_a.sql", &text)]).read();
    assert_eq!(folder.layout, "banners");
    assert!(folder.migrations[0].down.is_some());
    let error = dir(&[("1.sql", "-- ROLLBACK\nselect 1;\n-- FORWARD MIGRATION\n")]).fails();
    assert!(error.contains("line 1: the `-- ROLLBACK` banner stands before"), "{error}");
}

#[test]
fn the_banner_layout_leaves_files_out_and_sorts_unnumbered_ones_last() {
    let text = "-- FORWARD MIGRATION\nselect 1;\n-- ROLLBACK\nselect 1;\n";
    let folder = dir(&[
        ("000_MASTER_CONSOLIDATED.sql", "select 1;"),
        ("COMBINED_all.sql", "select 1;"),
        ("003_deprecated_x.sql", text),
        ("add_more.sql", text),
        ("12_b.sql", text),
        ("002_a.sql", text),
        ("notes.txt", "it's not SQL"),
    ])
    .read();
    let names: Vec<&str> = folder.migrations.iter().map(|one| one.file_name.as_str()).collect();
    assert_eq!(names, ["000_MASTER_CONSOLIDATED.sql", "002_a.sql", "12_b.sql", "add_more.sql"]);
    assert!(folder.migrations[0].master && !folder.migrations[1].master);
    let whys: Vec<&str> = folder.skipped.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(whys, ["its name says deprecated", "a combined file"]);
    assert!(folder.misnamed.is_empty());
}

#[test]
fn deprecated_is_a_word_like_any_other_elsewhere() {
    let folder = dir(&[("001_drop_deprecated.sql", "select 1;")]).read();
    assert_eq!(folder.migrations.len(), 1);
}

#[test]
fn pairs_are_one_migration() {
    let folder = dir(&[
        ("001_a.sql", "select 1;"),
        ("001_a.down.sql", "-- ripcord: no-transaction\nselect 2;"),
        ("002_b.up.sql", "select 3;"),
        ("002_undo_b.down.sql", "select 4;"),
        ("003_c.down.sql", "select 5;"),
        ("004_d.sql", "select 6;"),
    ])
    .read();
    assert_eq!(folder.layout, "numbered");
    assert_eq!(folder.migrations.len(), 3);
    let downs: Vec<Option<&str>> =
        folder.migrations.iter().map(|one| one.down.as_ref().map(|down| down.text(&down.statements[0]))).collect();
    assert_eq!(downs, [Some("select 2;"), Some("select 4;"), None]);
    assert!(folder.migrations[0].up.no_transaction.is_none());
    assert!(folder.migrations[0].down.as_ref().unwrap().no_transaction.is_some());
    assert_eq!(folder.misnamed.len(), 1);
    let error = dir(&[("001_a.sql", "-- UP\nselect 1;\n-- DOWN\nselect 2;"), ("001_a.down.sql", "select 1;")]).fails();
    assert!(error.contains("is another"), "{error}");
    let error = dir(&[("1_a.sql", ""), ("1_b.down.sql", ""), ("1_c.down.sql", "")]).fails();
    assert!(error.contains("second DOWN for version `1`"), "{error}");
}

#[test]
fn dated_files_of_one_day_are_told_apart() {
    let folder = dir(&[
        ("2026-01-20_b.sql", "-- @depends-on: 2026-01-20_a.sql\nselect 1;"),
        ("2026-01-20_a.sql", "select 1;"),
        ("20260119_c.sql", "select 1;"),
    ])
    .read();
    assert_eq!(folder.layout, "dated");
    let labels: Vec<String> = folder.migrations.iter().map(Migration::label).collect();
    assert_eq!(labels, ["20260119_c", "2026-01-20_a", "2026-01-20_b"]);
    assert_eq!(folder.migrations[2].metadata.dependencies, ["2026-01-20_a.sql"]);
}

#[test]
fn each_file_is_read_by_its_own_markers() {
    let folder = dir(&[
        ("001_a.sql", "-- UP\nselect 1;\n-- DOWN\nselect 1;"),
        ("002_b.sql", "-- FORWARD MIGRATION\nselect 1;\n-- ROLLBACK\nselect 1;"),
        ("003_c.sql", "-- UP\nselect 1;"),
        ("readme.sql", "select 1;"),
    ])
    .read();
    assert_eq!(folder.layout, "metadata");
    assert_eq!(folder.reason, "2 of 4 files: an UP or DOWN marker");
    assert_eq!(folder.migrations.len(), 3);
    assert!(folder.migrations[1].down.is_some());
    assert!(folder.misnamed[0].ends_with("readme.sql"));
}

#[test]
fn a_layout_can_be_forced() {
    let dir = dir(&[("001_a.sql", "-- UP\nselect 1;\n-- DOWN\nselect 1;")]);
    let folder = read(dir.0.path(), Some("plain")).unwrap();
    assert_eq!((folder.layout, folder.reason.as_str()), ("plain", "asked for"));
    assert_eq!(folder.migrations[0].up.statements.len(), 2);
    let error = read(dir.0.path(), Some("flyweight")).unwrap_err();
    assert!(error.one_line().contains("`numbered`, "), "{error}");
}

#[test]
fn directives_hold_for_the_half_that_they_stand_in() {
    let both = one("-- ripcord: no-transaction\n-- UP\nselect 1;\n-- DOWN\nselect 1;");
    assert!(both.up.no_transaction.is_some() && both.down.unwrap().no_transaction.is_some());
    let up = one("-- UP\n-- ripcord: no-transaction\nselect 1;\n-- DOWN\nselect 1;");
    assert!(up.up.no_transaction.is_some() && up.down.unwrap().no_transaction.is_none());
    let down = one("-- UP\nselect 1;\n-- DOWN\nselect 1;\n-- ripcord: no-transaction\n");
    assert!(down.up.no_transaction.is_none() && down.down.unwrap().no_transaction.is_some());
    let plain = one("-- ripcord: timeout 5m\n-- ripcord: no-transaction\nselect 1;");
    assert!(plain.up.no_transaction.unwrap().contains("line 2"));
    assert_eq!(plain.metadata.statement_timeout, Some(Duration::from_secs(300)));
}

#[test]
fn a_transaction_around_the_whole_is_blanked_out() {
    let migration = one("-- UP\nBEGIN;\n  select 1;\nCOMMIT;\n-- DOWN\nstart transaction; select 2; end");
    assert_eq!(&*migration.up.sql, "      \n  select 1;\n       \n");
    assert_eq!(migration.up.statements.len(), 1);
    assert_eq!(migration.up.line(&migration.up.statements[0]), 3);
    assert_eq!(migration.down.unwrap().statements.len(), 1);
    assert_eq!(migration.metadata.remarks.len(), 2);
    assert_eq!(migration.metadata.remarks[0].line, 2);
    for kept in [
        "begin; select 1;",
        "begin; create index concurrently i on t (a); commit;",
        "begin isolation level serializable; select 1; commit;",
        "begin; select 1; rollback;",
    ] {
        let migration = one(kept);
        assert_eq!(&*migration.up.sql, kept);
        assert!(migration.up.statements.iter().any(|one| one.effect.controls_transaction));
    }
}

#[test]
fn checksums() {
    let plain = one("-- UP\nselect 1;\n-- DOWN\nselect 2;");
    let edited = one("-- UP\n-- why\nselect   1;\n\n-- DOWN\nselect 2;\n");
    let moved = one("-- UP\nselect 1;\nselect 2;\n-- DOWN\n");
    assert_ne!(plain.checksum, edited.checksum);
    assert_eq!(plain.loose_checksum, edited.loose_checksum);
    assert_ne!(plain.loose_checksum, moved.loose_checksum);
    // printf 'select 1;' | sha256sum
    assert_eq!(one("select 1;").checksum, "354b7196c9ba5fb4b21cf615bb6ec4cd5c07503c34229feef033fc081a8c03f4");
}

#[test]
fn what_is_no_text_is_told_with_its_place() {
    let dir = dir(&[("001_a.sql", "")]);
    std::fs::write(dir.0.path().join("001_a.sql"), b"select '\xff';").unwrap();
    assert!(dir.fails().contains("line 1: it is not UTF-8: byte 8"));
    std::fs::write(dir.0.path().join("001_a.sql"), b"select \0").unwrap();
    assert!(dir.fails().contains("NUL at byte 7"));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused() {
    let outside = dir(&[("x.sql", "select 1;")]);
    let folder = dir(&[("001_a.sql", "select 1;")]);
    let link = |to: &Path| {
        let at = folder.0.path().join("002_b.sql");
        let _ = std::fs::remove_file(&at);
        std::os::unix::fs::symlink(to, at).unwrap();
    };
    link(&folder.0.path().join("001_a.sql"));
    assert_eq!(folder.read().migrations.len(), 2);
    link(&outside.0.path().join("x.sql"));
    assert!(folder.fails().contains("is a link out of the folder"));
    link(Path::new("nowhere.sql"));
    assert!(folder.fails().contains("cannot read"));
}

#[test]
fn errors_in_the_sql_name_the_line_of_the_file() {
    let error = dir(&[("001_a.sql", "-- UP\nselect 1;\n-- DOWN\n\\i x.sql\n")]).fails();
    assert!(error.contains("`001_a.sql`, line 4, column 1"), "{error}");
    let error = dir(&[("001_a.sql", "-- UP\nselect 'x;\n-- DOWN\nselect 1;\n")]).fails();
    assert!(error.contains("`001_a.sql`, line 2, column 8"), "{error}");
}

#[test]
fn one_usual_folder_is_found() {
    let one = dir(&[("db/migrations/001_a.sql", ""), ("migrations/readme.md", "")]);
    assert!(find(one.0.path()).unwrap().ends_with("db/migrations"));
    let two = dir(&[("db/migrations/001_a.sql", ""), ("migrations/001_a.sql", "")]);
    let error = find(two.0.path()).unwrap_err();
    assert!(error.message().contains("db/migrations`") && error.hint_text().unwrap().contains("--migrations-dir"));
    let none = dir(&[]);
    assert!(find(none.0.path()).unwrap_err().one_line().contains("`supabase/migrations`"));
    let missing = read(&none.0.path().join("no"), None).unwrap_err();
    assert_eq!(missing.kind(), crate::error::Kind::Usage);
    assert_eq!(none.read().layout, "numbered");
}

fn names(folder: &Folder) -> Vec<&str> {
    folder.migrations.iter().map(|one| one.file_name.as_str()).collect()
}

const JOURNAL: &str = r#"{"version": "7", "dialect": "postgresql", "entries": [
  {"idx": 0, "version": "7", "when": 1700000000000, "tag": "0000_wide_hulk", "breakpoints": true},
  {"idx": 1, "version": "7", "when": 1700000100000, "tag": "0001_late_thor", "breakpoints": true}
]}"#;

#[test]
fn drizzles_folder_is_read_by_its_journal() {
    let table = "CREATE TABLE \"a\" (\n\t\"id\" serial\n);\n--> statement-breakpoint\nCREATE TABLE b (id int)\n";
    let open =
        "CREATE TABLE c (id int) --> statement-breakpoint\nCREATE TABLE d (id int)--> statement-breakpoint\r\nSELECT 1";
    let folder = dir(&[
        ("0000_wide_hulk.sql", table),
        ("0001_late_thor.sql", open),
        ("0002_given_up.sql", "DROP TABLE a;"),
        ("by_hand.sql", "CREATE TABLE e (id int);"),
        ("meta/_journal.json", JOURNAL),
        ("meta/0000_snapshot.json", "{}"),
    ]);
    let read = folder.read();
    assert_eq!((read.layout, read.reason.as_str()), ("drizzle", "2 of 4 files: meta/_journal.json names it"));
    assert_eq!(names(&read), ["0000_wide_hulk.sql", "0001_late_thor.sql", "by_hand.sql"]);
    let texts = |at: usize| -> Vec<&str> {
        let up = &read.migrations[at].up;
        up.statements.iter().map(|one| up.text(one)).collect()
    };
    assert_eq!(texts(0).len(), 2);
    assert_eq!(texts(1).len(), 3, "{:?}", texts(1));
    assert_eq!(read.migrations[1].up.sql.len(), open.len());
    assert!(read.misnamed[0].ends_with("0002_given_up.sql"));
    assert_eq!(drizzle_entries(folder.0.path()).unwrap()[1], ("0001_late_thor".to_owned(), 1_700_000_100_000));
}

#[test]
fn a_journal_that_does_not_fit_is_told() {
    let fails = |journal: &str| dir(&[("0000_wide_hulk.sql", "select 1;"), ("meta/_journal.json", journal)]).fails();
    let error = fails("{\n\"entries\": [\n{\"tag\": 3}]}");
    assert!(error.contains("_journal.json`, line 3: it is no journal of Drizzle's"), "{error}");
    assert!(error.contains("expected: "), "{error}");
    assert!(fails(JOURNAL).contains("names `0001_late_thor.sql`, which is not in the folder"));
    assert!(fails(&JOURNAL.replace("0001_late_thor", "0000_wide_hulk")).contains("twice"));
    assert!(fails(&JOURNAL.replace("postgresql", "mysql")).contains("is for `mysql`"));
}

#[test]
fn a_curated_order_comes_first() {
    let files = ["2025-12-28_team.sql", "2025-12-29_rbac.sql", "2025-12-28_create_b_final.sql", "2026-01-01_z.sql"];
    let files: Vec<(&str, &str)> = files.iter().map(|name| (*name, "select 1;")).collect();
    let order = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|&one| one.to_owned()).collect();
        in_order(dir(&files).read(), &patterns)
    };
    let read = order(&["2025-12-28_create_*_final.sql", "2025-12-29_rbac"]).unwrap();
    assert_eq!(
        names(&read),
        ["2025-12-28_create_b_final.sql", "2025-12-29_rbac.sql", "2025-12-28_team.sql", "2026-01-01_z.sql"]
    );
    let error = order(&["2025-12-29_rbc.sql"]).unwrap_err();
    assert!(
        error.one_line().contains("`2025-12-29_rbc.sql` in place 1") && error.causes()[0].contains("rbac"),
        "{error}"
    );
}

#[test]
fn names_without_a_number_count_where_their_tool_takes_them() {
    let own = "-- add_table.sql\nBEGIN;\nCREATE TABLE a (id int);\nCOMMIT;\n";
    let folder =
        dir(&[("add_table.sql", own), ("1_x.sql", "select 1;"), ("2_y.sql", ""), ("seed.sql", "select 1;")]).read();
    assert_eq!(names(&folder), ["1_x.sql", "2_y.sql", "add_table.sql"]);
    assert!(folder.misnamed[0].ends_with("seed.sql"));
    let folder = dir(&[("b.sql", "select 1;"), ("a.sql", own)]).read();
    assert_eq!(names(&folder), ["a.sql", "b.sql"]);
    assert!(folder.misnamed.is_empty());
}

#[test]
fn a_date_that_is_none_is_told() {
    let folder = dir(&[("2026-1-20_a.sql", "select 1;"), ("2026-02-30_b.sql", ""), ("2026-02-03_c.sql", "")]).read();
    assert_eq!(names(&folder), ["2026-02-03_c.sql"]);
    assert_eq!(folder.misnamed.len(), 2);
    assert!(folder.skipped.iter().all(|(_, why)| why.contains("expected `YYYY-MM-DD_description.sql`")));
    let folder = dir(&[("2026-02-03_c.sql", "-- Version: 2026-02-04\nselect 1;")]).read();
    assert_eq!(folder.migrations[0].metadata.remarks[0].line, 1);
}

#[test]
fn a_folder_in_the_folder_is_not_passed_over_in_silence() {
    let folder = dir(&[("archive/001_init.sql", "select 1;")]).read();
    assert!(folder.migrations.is_empty() && folder.misnamed[0].ends_with("archive"));
}

#[test]
fn pairs_of_other_spellings_are_one_migration() {
    let folder = dir(&[
        ("001_a.sql", "select 1;"),
        ("001_a_rollback.sql", "select 2;"),
        ("002_b_up.sql", "select 3;"),
        ("002_b_down.sql", "select 4;"),
        ("2026-01-20_c.sql", "select 5;"),
        ("2026-01-20_c.undo.sql", "select 6;"),
        ("003_scale_down.sql", "select 7;"),
    ])
    .read();
    let downs: Vec<(String, bool)> = folder.migrations.iter().map(|one| (one.label(), one.down.is_some())).collect();
    let expected = [("001_a", true), ("002_b", true), ("003_scale_down", false), ("2026-01-20_c", true)];
    assert_eq!(downs, expected.map(|(label, down)| (label.to_owned(), down)));
    assert!(folder.misnamed.is_empty());
}
