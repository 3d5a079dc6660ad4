use super::*;
use crate::migration::source;

fn folder(files: &[(&str, &str)]) -> Folder {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    source::read(dir.path(), None).unwrap()
}

fn findings(text: &str, protected: bool) -> Vec<Finding> {
    lint(&folder(&[("001_a.sql", text)]).migrations, protected)
}

fn rules(findings: &[Finding]) -> Vec<(&'static str, Severity)> {
    findings.iter().map(|one| (one.rule, one.severity)).collect()
}

#[test]
fn a_good_file_has_no_finding() {
    assert_eq!(findings("-- UP\ncreate table t (a int);\n-- DOWN\ndrop table t;\n", true), []);
}

#[test]
fn syntax_errors_have_line_and_column() {
    let found = findings("-- UP\nselect 1;\n\n  create tabel t (a int);\n-- DOWN\nselect from where;\n", false);
    let syntax: Vec<&Finding> = found.iter().filter(|one| one.rule == "syntax").collect();
    assert_eq!(syntax[0].line, Some(4));
    assert_eq!(syntax.last().unwrap().line, Some(6));
    assert!(syntax.iter().all(|one| one.severity == Severity::Error && one.column.is_some()));
}

#[test]
fn the_parser_is_not_the_last_judge() {
    let text = "-- ripcord: allow syntax new in 19\n-- UP\nselect frm;\nfrobnicate t;\n-- DOWN\nselect 1;\n";
    assert_eq!(rules(&findings(text, true)), [("syntax", Severity::Note)]);
}

#[test]
fn empty_files_and_missing_downs() {
    assert_eq!(rules(&findings("-- nothing", true)), [("empty-file", Severity::Warning)]);
    assert_eq!(rules(&findings("select 1;", true)), [("missing-down", Severity::Warning)]);
    assert_eq!(
        rules(&findings("-- UP\nselect 1;\n-- DOWN\n-- todo\n", true)),
        [("missing-down", Severity::Warning), ("missing-down", Severity::Note)]
    );
    assert_eq!(findings("-- ripcord: allow missing-down data only\nselect 1;", true), []);
}

#[test]
fn destruction_is_an_error_where_it_is_protected() {
    let text = "-- UP\nselect 1;\nalter table t drop column a;\n-- DOWN\nalter table t add a int;\n";
    assert_eq!(rules(&findings(text, false)), [("destructive", Severity::Warning)]);
    let found = findings(text, true);
    assert_eq!(rules(&found), [("destructive", Severity::Error)]);
    assert_eq!((found[0].line, found[0].column), (Some(3), Some(1)));
    assert_eq!(found[0].message, "it drops column `t.a`");
    let allowed = format!("-- ripcord: allow destructive nobody reads it\n{text}");
    assert_eq!(findings(&allowed, true), []);
    assert_eq!(
        rules(&findings("drop table t;", true)),
        [
            ("missing-down", Severity::Warning),
            ("destructive", Severity::Error),
            ("destructive-without-down", Severity::Error)
        ]
    );
    assert!(rules(&findings("drop table t;", false)).iter().all(|(_, severity)| *severity == Severity::Warning));
}

#[test]
fn transaction_control_is_an_error_unless_it_is_around_the_whole() {
    let wrapped = "-- UP\nbegin;\nselect 1;\ncommit;\n-- DOWN\nselect 1;\n";
    assert_eq!(rules(&findings(wrapped, true)), [("transaction-control", Severity::Note)]);
    let torn = "-- UP\nselect 1;\ncommit;\ncreate index concurrently i on t (a);\nbegin;\n-- DOWN\ndrop index i;\n";
    let found = findings(torn, false);
    assert_eq!(rules(&found), [("transaction-control", Severity::Error); 2]);
    assert_eq!(found.iter().map(|one| one.line).collect::<Vec<_>>(), [Some(3), Some(5)]);
}

#[test]
fn versions_and_names() {
    let text = "-- UP\nselect 1;\n-- DOWN\nselect 1;\n";
    let folder = folder(&[
        ("001_a.sql", text),
        ("1_b.sql", text),
        ("004_c.sql", text),
        ("20250101120000_d.sql", text),
        ("helper.sql", "select 1;"),
        ("COMBINED_all.sql", "select 1;"),
    ]);
    let found = lint_folder(&folder, true);
    assert_eq!(
        rules(&found),
        [("file-name", Severity::Error), ("duplicate-version", Severity::Error), ("version-gap", Severity::Note)]
    );
    assert!(found[0].file.ends_with("helper.sql"));
    assert!(found[1].message.contains("`001_a.sql`"), "{}", found[1].message);
    assert_eq!(found[2].message, "there is no number between 1 and 4");
}

/// PostgreSQL 15 to 18 takes every one of these; the parser must not be stricter than the server.
#[test]
fn valid_statements_pass() {
    let corpus = include_str!("valid.sql");
    let script = Script::parse(corpus, "valid.sql", 1).unwrap();
    assert!(script.statements.len() > 100);
    for statement in &script.statements {
        let text = script.text(statement);
        assert_eq!(problem(&script, statement), None, "line {}: {text}", script.line(statement));
    }
}

/// The example at the crate's root is clean even where the rules are strictest, and each of its DOWNs
/// undoes its UP by text alone, but for switching row level security.
#[test]
fn the_example_is_clean() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let folder = source::read(&folder, None).unwrap();
    assert_eq!(lint_folder(&folder, true), []);
    assert_eq!((folder.migrations.len(), folder.layout), (6, "metadata"));
    for migration in &folder.migrations {
        let down = migration.down.as_ref().unwrap();
        let additive = crate::migration::additive_run(&[&migration.up], &[down]);
        assert_eq!(additive.is_ok(), migration.name != "enable_rls", "{}: {additive:?}", migration.file_name);
        let concurrent = migration.name == "products_search_optimization";
        assert_eq!(migration.up.no_transaction.is_some(), concurrent);
        assert_eq!(down.no_transaction.is_some(), concurrent);
        assert!(migration.metadata.description.is_some());
    }
}
