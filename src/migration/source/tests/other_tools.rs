//! Folders as other tools have them: read, or told; never a DOWN taken for a part of its UP.

use super::*;

/// The only migration's halves, folded, and whether each runs outside a transaction.
fn halves(name: &str, text: &str) -> (String, Option<String>, [bool; 2]) {
    let migration = dir(&[(name, text)]).read().migrations.remove(0);
    let fold = crate::migration::split::fold;
    let alone = |script: &crate::migration::Script| script.no_transaction.is_some();
    (
        fold(&migration.up.sql),
        migration.down.as_ref().map(|down| fold(&down.sql)),
        [alone(&migration.up), migration.down.as_ref().is_some_and(alone)],
    )
}

#[test]
fn marks_of_other_tools_part_the_halves() {
    for (layout, text, alone) in [
        ("dbmate", "-- migrate:up\nselect 1;\n\n-- migrate:down\nselect 2;", [false, false]),
        ("dbmate", "-- a note\n  -- migrate:UP transaction:false\nselect 1;\n--migrate:down\nselect 2;", [true, false]),
        ("dbmate", "-- migrate:down transaction:false\nselect 2;\n-- migrate:up\nselect 1;", [false, true]),
        (
            "goose",
            "-- +goose Up\n-- +goose StatementBegin\nselect 1;\n-- +goose StatementEnd\n-- +goose Down\nselect 2;",
            [false, false],
        ),
        ("goose", "-- +goose NO TRANSACTION\n-- +goose up\nselect 1;\n-- +goose DOWN\nselect 2;", [true, true]),
        ("sql-migrate", "-- +migrate Up notransaction\nselect 1;\n-- +migrate Down\nselect 2;", [true, false]),
        ("node-pg-migrate", "-- Up Migration\nselect 1;\n-- Down Migration\nselect 2;", [false, false]),
        ("node-pg-migrate", "select 1;\n---- down migration ----\nselect 2;", [false, false]),
    ] {
        assert_eq!(halves("1_a.sql", text), ("select 1;".to_owned(), Some("select 2;".to_owned()), alone), "{text}");
        assert_eq!(dir(&[("1_a.sql", text)]).read().layout, layout, "{text}");
    }
    let body = "-- migrate:up\ncreate function f() returns text language sql as $$ select '\n-- migrate:down\n' $$;";
    assert!(halves("1_a.sql", body).1.is_none());
}

#[test]
fn marks_that_part_nothing_clear_are_told_with_their_line() {
    for (text, says) in [
        ("-- migrate:up\n-- migrate:up\n", "line 2: a second mark of dbmate's for UP; the first is in line 1"),
        ("select 1;\n-- migrate:down\n", "line 2: dbmate's mark for UP is missing"),
        ("select 1;\n-- +goose Up\nselect 2;", "line 2: SQL stands above goose's first mark"),
        ("-- +goose Up\n-- +goose ENVSUB ON\nselect 1;", "line 2: goose's ENVSUB"),
        (
            "select 1;\n---- create above / drop below ----\nselect 2;",
            "line 2: `-- create above / drop below ----` is tern's",
        ),
        ("select 1;\n-- //@UNDO\nselect 2;", "line 2: `-- //@UNDO` is MyBatis"),
        ("-- !Ups\nselect 1;\n-- !Downs\nselect 2;", "line 1: `-- !Ups` is Play's"),
        ("-- rambler up\nselect 1;", "line 1: `-- rambler up` is rambler's"),
        ("-- +micrate Up\nselect 1;", "line 1: `-- +micrate Up` is a mark for a half"),
        (
            "--liquibase formatted sql\n--changeset a:1\nselect 1;",
            "line 1: `-- liquibase formatted sql` is Liquibase's",
        ),
        ("select 1;\n-- Rollback:\nselect 2;", "line 2: `-- Rollback:` is a mark for DOWN"),
    ] {
        let error = dir(&[("1_a.sql", text)]).fails();
        assert!(error.contains(says), "{text}: {error}");
    }
    for harmless in [
        "select 1;\n-- Rollback:\n-- select 2;\n",
        "begin;\n-- rollback\nrollback;",
        "-- rollback\nselect 1;",
        "-- create the table\nselect 1;",
        "-- FORWARD MIGRATION\nselect 1;\n-- ROLLBACK\nselect 2;",
    ] {
        dir(&[("1_a.sql", harmless)]).read();
    }
}

#[test]
fn a_first_line_may_ask_for_no_transaction() {
    assert_eq!(halves("20250101000000_a.sql", "-- no-transaction\nselect 1;").2, [true, false]);
    assert_eq!(halves("20250101000000_a.sql", "-- why\n-- atlas:txmode none\n\nselect 1;").2, [true, false]);
    assert_eq!(halves("20250101000000_a.sql", "-- why\n-- no-transaction\nselect 1;").2, [false, false]);
    let pair = [("1_a.up.sql", "select 1;"), ("1_a.down.sql", "-- no-transaction\nselect 2;")];
    let migration = dir(&pair).read().migrations.remove(0);
    assert!(migration.up.no_transaction.is_none());
    assert_eq!(migration.down.unwrap().no_transaction.as_deref(), Some("line 1 asks for it"));
}

#[test]
fn versions_with_a_v_are_numbers_and_u_undoes_its_v() {
    let folder = dir(&[
        ("V1__a.sql", "select 1;"),
        ("V10__c.sql", "select 1;"),
        ("V2_1__b.sql", "select '${x}';"),
        ("U2.1__b.sql", "select 2;"),
        ("U3__alone.sql", "select 1;"),
    ])
    .read();
    assert_eq!(folder.layout, "flyway");
    assert_eq!(names(&folder), ["V1__a.sql", "V2_1__b.sql", "U3__alone.sql", "V10__c.sql"]);
    let b = &folder.migrations[1];
    assert_eq!((b.version.as_str(), b.name.as_str(), b.down.is_some()), ("2.1", "b", true));
    assert_eq!((b.metadata.remarks[0].rule, b.metadata.remarks[0].line), ("placeholder", 1));
    assert!(dir(&[("V1__a.sql", ""), ("R__v.sql", "")]).fails().contains("`R__v.sql` is a repeatable migration"));
    assert!(dir(&[("V1__a.sql", ""), ("B3__all.sql", "")]).fails().contains("`B3__all.sql` is a baseline"));
    // Without versions of that kind they are names like others.
    assert_eq!(dir(&[("R__v.sql", "select 1;")]).read().migrations.len(), 1);
}

#[test]
fn a_migration_may_be_a_folder() {
    let folder = dir(&[
        ("2024-01-31-120000_later/up.sql", "select 1;"),
        ("2024-01-31-120000_later/down.sql", "select 2;"),
        ("2024-01-31-120000_later/metadata.toml", "run_in_transaction = false\n"),
        ("2024-01-31-120000-0000_after/up.sql", "select 1;"),
        ("00000000000000_setup/up.sql", "select 1;"),
        ("20250101000000_more/migration.sql", "select 1;"),
        ("migration_lock.toml", "provider = \"postgresql\"\n"),
        ("README.md", ""),
    ])
    .read();
    assert_eq!((folder.layout, folder.misnamed.len()), ("folders", 0));
    let shown = [
        "00000000000000_setup/up.sql",
        "2024-01-31-120000_later/up.sql",
        "2024-01-31-120000-0000_after/up.sql",
        "20250101000000_more/migration.sql",
    ];
    assert_eq!(names(&folder), shown);
    let later = &folder.migrations[1];
    assert_eq!((later.version.as_str(), later.name.as_str()), ("20240131120000", "later"));
    let down = later.down.as_ref().unwrap();
    assert!(later.up.no_transaction.is_some() && down.no_transaction.is_some());
    let wrong = dir(&[("1_a/migration.sql", ""), ("migration_lock.toml", "provider = \"mysql\"")]).fails();
    assert!(wrong.contains("is for `mysql`"), "{wrong}");
    assert!(dir(&[("1_a/migration.sql", ""), ("1_a/up.sql", "")]).fails().contains("`1_a` holds"));
}

#[test]
fn folders_whose_order_stands_elsewhere_are_told() {
    let graphile = dir(&[("current.sql", ""), ("committed/000001-a.sql", "select 1;")]);
    assert!(graphile.fails().contains("graphile-migrate's"));
    let sqitch = dir(&[("sqitch.plan", ""), ("deploy/a.sql", "")]);
    assert!(sqitch.fails().contains("Sqitch's"));
    assert!(read(&sqitch.0.path().join("deploy"), None).is_err());
}

#[test]
fn a_journal_may_name_a_number_twice() {
    let journal = r#"{"dialect": "postgresql", "entries": [{"tag": "0000_a", "when": 1}, {"tag": "0001_c", "when": 2},
        {"tag": "0001_b", "when": 3}]}"#;
    let folder = dir(&[
        ("meta/_journal.json", journal),
        ("0000_a.sql", "select 1;"),
        ("0001_b.sql", "select 1;"),
        ("0001_c.sql", "select 1;"),
    ])
    .read();
    let found: Vec<(&str, String)> = folder.migrations.iter().map(|one| (one.version.as_str(), one.label())).collect();
    let expected = [("0000", "0000_a"), ("0001", "0001_c"), ("0001_b", "0001_b")];
    assert_eq!(found, expected.map(|(version, label)| (version, label.to_owned())));
}

/// Prisma sorts and records whole names, and the folders of large teams hold one time more than once.
#[test]
fn what_is_told_by_its_name_may_share_a_number() {
    let labels = |files: &[(&str, &str)]| -> Vec<(String, String)> {
        dir(files).read().migrations.iter().map(|one| (one.version.to_string(), one.label())).collect()
    };
    let pair = |version: &str, label: &str| (version.to_owned(), label.to_owned());
    let prisma = labels(&[
        ("20240304123642_traces_view/migration.sql", "select 1;"),
        ("20240304123642_traces_view_improvement/migration.sql", "select 2;"),
        ("20240304123643_next/migration.sql", "select 3;"),
    ]);
    let improvement = "20240304123642_traces_view_improvement";
    let expected = [
        pair("20240304123642", "20240304123642_traces_view"),
        pair(improvement, improvement),
        pair("20240304123643", "20240304123643_next"),
    ];
    assert_eq!(prisma, expected);
    let halves = "-- +migrate Up\nselect 1;\n-- +migrate Down\nselect 2;\n";
    let sql_migrate = labels(&[("1_a.sql", halves), ("1_b.sql", halves)]);
    assert_eq!(sql_migrate, [pair("1", "1_a"), pair("1_b", "1_b")]);
    // Where the number is what is recorded, it is taken.
    let golang = [("1_a.up.sql", "select 1;"), ("1_b.up.sql", "select 1;")];
    assert_eq!(labels(&golang), [pair("1", "1_a"), pair("1", "1_b")]);
}

#[test]
fn prismas_migrations_run_in_the_order_of_their_names() {
    let versions = |names: &[&str]| -> Vec<(String, Option<u32>)> {
        let files: Vec<(String, &str)> =
            names.iter().map(|name| (format!("{name}/migration.sql"), "select 1;")).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        dir(&files).read().migrations.iter().map(|one| (one.version.to_string(), one.rank)).collect()
    };
    let expected =
        [("20250624080000", Some(0)), ("20250625095301", Some(1)), ("20250625", Some(2)), ("20250626", Some(3))];
    assert_eq!(
        versions(&["20250625_add_chart", "20250624080000_a", "20250626_b", "20250625095301_add_enum"]),
        expected.map(|(version, rank)| (version.to_owned(), rank))
    );
    // Where both orders are one, a number is a number, and one that comes too late is told.
    assert_eq!(
        versions(&["0_init", "20250624080000_a"]),
        [("0".to_owned(), None), ("20250624080000".to_owned(), None)]
    );
}

#[test]
fn transactions_in_a_file_join_ours_or_part_the_statements() {
    let read = |text: &str| dir(&[("0001_a.sql", text)]).read().migrations.remove(0).up;
    let run = |text: &str| {
        let up = read(text);
        let texts: Vec<String> = up.statements.iter().map(|one| up.text(one).to_owned()).collect();
        (texts.join(" "), up.no_transaction)
    };
    for joined in [
        "begin; select 1; commit;\nselect 2;",
        "select 1;\nBEGIN TRANSACTION;\nselect 2;\nEND",
        "begin; select 1; commit; start transaction; select 2; commit work;",
    ] {
        assert_eq!(run(joined), ("select 1; select 2;".to_owned(), None), "{joined}");
    }
    let parted = "select 1;\nCOMMIT;\ncreate index concurrently i on t (a);\nBEGIN;\nselect 2;";
    let (texts, why) = run(parted);
    assert_eq!(texts, "select 1; create index concurrently i on t (a); select 2;");
    assert_eq!(why.as_deref(), Some("`create index concurrently i on t …` in line 3 cannot run inside a transaction"));
    let up = read(parted);
    assert_eq!(up.line(&up.statements[2]), 5);
    for kept in [
        "begin; select 1;",
        "begin; begin; select 1; commit; commit;",
        "begin; select 1; rollback;",
        "select 1;\ncommit;\nselect 2;",
        "begin; vacuum; commit;",
        "set local lock_timeout = 0;\ncommit;\ncreate index concurrently i on t (a);\nbegin;",
        "begin isolation level serializable; select 1; commit;",
    ] {
        assert!(read(kept).statements.iter().any(|one| one.effect.controls_transaction), "{kept}");
    }
}
