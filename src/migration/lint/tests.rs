use super::*;
use crate::migration::source;
use crate::settings::{Level, LintSettings};

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
fn transaction_control_is_an_error_unless_it_can_be_left_out() {
    let wrapped = "-- UP\nbegin;\nselect 1;\ncommit;\n-- DOWN\nselect 1;\n";
    assert_eq!(rules(&findings(wrapped, true)), [("transaction-control", Severity::Note)]);
    let torn = "-- UP\nset local lock_timeout = 0;\ncommit;\ncreate index concurrently i on t (a);\nbegin;\n-- DOWN\ndrop index i;\n";
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
    let found = lint_folder(&folder, &Policy::new(true, &LintSettings::default()));
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
    assert_eq!(lint_folder(&folder, &Policy::new(true, &LintSettings::default())), []);
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

fn judged(files: &[(&str, &str)], settings: &LintSettings, protected: bool) -> Vec<Finding> {
    let folder = folder(files);
    judge(&folder.migrations, &folder.migrations, &Policy::new(protected, settings))
}

/// The rules that fire on one file's UP, the built-in ones about DOWN aside.
fn fires(up: &str) -> Vec<&'static str> {
    let found = judged(&[("001_a.sql", up)], &LintSettings::default(), false);
    found.iter().map(|one| one.rule).filter(|rule| *rule != "missing-down").collect()
}

/// Likewise, with the rules on types and habits that are asked for.
fn fires_when_asked(up: &str) -> Vec<&'static str> {
    let folder = folder(&[("001_a.sql", up)]);
    let policy = Policy::new(false, &LintSettings::default()).asking(rules::Group::Style);
    judge(&folder.migrations, &folder.migrations, &policy).iter().map(|one| one.rule).collect()
}

fn with_level(rule: &str, level: Level) -> LintSettings {
    LintSettings { levels: [(rule.to_owned(), level)].into(), ..LintSettings::default() }
}

/// A DOWN in a file of its own is named by that file, with its lines.
#[test]
fn what_is_found_in_a_downs_own_file_names_that_file() {
    let files = [
        ("001_a.up.sql", "create table t (id int);\n"),
        ("001_a.down.sql", "-- Undo.\ndrop table t\ndrop table u;\ncommit;\ngrant all on t to public;\n"),
        ("002_b.up.sql", "selec 1;\n"),
    ];
    let found = judged(&files, &LintSettings::default(), false);
    let told: Vec<String> = found
        .iter()
        .filter(|one| matches!(one.rule, "syntax" | "transaction-control" | "grant-to-public"))
        .map(|one| format!("{} {} {}", one.rule, one.file.file_name().unwrap().display(), one.line.unwrap()))
        .collect();
    let expected = [
        "syntax 001_a.down.sql 2",
        "transaction-control 001_a.down.sql 4",
        "grant-to-public 001_a.down.sql 5",
        "syntax 002_b.up.sql 1",
    ];
    assert_eq!(told, expected);
}

#[test]
fn each_rule_of_locks_and_compatibility_fires_and_does_not() {
    for (rule, bad, good) in [
        ("require-concurrent-index-creation", "create index i on t (a);", "create index concurrently i on t (a);"),
        ("require-concurrent-index-deletion", "drop index i;", "drop index concurrently i;"),
        (
            "require-concurrent-partition-detach",
            "alter table t detach partition p;",
            "alter table t detach partition p concurrently;",
        ),
        ("require-concurrent-reindex", "reindex table t;", "reindex table concurrently t;"),
        (
            "constraint-missing-not-valid",
            "alter table t add constraint c check (a > 0);",
            "alter table t add constraint c check (a > 0) not valid;",
        ),
        (
            "adding-foreign-key-constraint",
            "alter table t add constraint c foreign key (a) references u (id);",
            "alter table t add constraint c foreign key (a) references u (id) not valid;",
        ),
        (
            "adding-field-with-default",
            "alter table t add column a uuid default gen_random_uuid();",
            "alter table t add column a bigint default 1;",
        ),
        (
            "adding-not-nullable-field",
            "alter table t alter column a set not null;",
            "alter table t alter column a set statistics 100;",
        ),
        (
            "disallowed-unique-constraint",
            "alter table t add constraint c unique (a);",
            "alter table t add constraint c unique using index i;",
        ),
        ("changing-column-type", "alter table t alter column a type bigint;", "alter table t add column b bigint;"),
        ("ban-truncate-cascade", "truncate t cascade;", "truncate t;"),
        ("ban-drop-database", "drop database d;", "select 1;"),
        ("adding-required-field", "alter table t add column a text not null;", "alter table t add column a text;"),
        ("renaming-column", "alter table t rename column a to b;", "alter table t add column b text;"),
        ("renaming-table", "alter table t rename to u;", "alter table t add column b text;"),
        ("ban-drop-not-null", "alter table t alter column a drop not null;", "select 1;"),
        ("ban-drop-view", "drop view v;", "create view v as select 1;"),
        ("ban-drop-function", "drop function f();", "select 1;"),
        (
            "prefer-text-field",
            "create table t (id bigint primary key, a varchar(10));",
            "create table t (id bigint primary key, a text);",
        ),
        (
            "prefer-timestamp-tz",
            "create table t (id bigint primary key, a timestamp);",
            "create table t (id bigint primary key, a timestamptz);",
        ),
        ("prefer-bigint-over-int", "create table t (id int primary key);", "create table t (id bigint primary key);"),
        (
            "ban-char-field",
            "create table t (id bigint primary key, a char(3));",
            "create table t (id bigint primary key, a text);",
        ),
        (
            "identifier-too-long",
            &format!("create table {} (id bigint);", "x".repeat(70)),
            "create table x (id bigint);",
        ),
    ] {
        assert!(fires_when_asked(bad).contains(&rule), "{rule} on `{bad}`: {:?}", fires_when_asked(bad));
        assert!(!fires_when_asked(good).contains(&rule), "{rule} on `{good}`: {:?}", fires_when_asked(good));
        let settings = with_level(rule, Level::Error);
        assert!(
            judged(&[("001_a.sql", bad)], &settings, false)
                .iter()
                .any(|one| one.rule == rule && one.severity == Severity::Error)
        );
        assert!(
            !judged(&[("001_a.sql", bad)], &with_level(rule, Level::Off), false).iter().any(|one| one.rule == rule)
        );
        let allowed = format!("-- ripcord: allow {rule} it is fine here\n{bad}");
        assert!(!fires_when_asked(&allowed).contains(&rule), "{rule} allowed");
    }
}

#[test]
fn every_rule_of_the_linter_is_known_to_it() {
    for rule in rules::LINTER {
        assert!(squawk_linter::Rule::try_from(rule.id).is_ok() || rule.id == "unused-ignore", "{}", rule.id);
    }
    let mut ids: Vec<&str> = rules::all().map(|rule| rule.id).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn a_table_that_the_same_file_makes_may_be_locked() {
    assert_eq!(fires("create table t (id bigint primary key, a text); create index i on t (a);"), [] as [&str; 0]);
}

#[test]
fn rows_of_a_copy_are_no_statements() {
    let text = "copy t (a) from stdin;\nalter table t rename to u;\n\\.\nalter table v rename to w;\n";
    let found = judged(&[("001_a.sql", text)], &LintSettings::default(), false);
    let found: Vec<_> = found.iter().filter(|one| one.rule == "renaming-table").map(|one| one.line).collect();
    assert_eq!(found, [Some(4)]);
    assert!(!fires(text).contains(&"syntax"));
}

#[test]
fn the_linters_own_comments_silence_it() {
    assert_eq!(fires("-- squawk-ignore renaming-table\nalter table t rename to u;"), [] as [&str; 0]);
}

#[test]
fn places_are_those_of_the_file() {
    let found = judged(
        &[("001_a.sql", "-- UP\nselect 1;\n\n  alter table t rename to u;\n-- DOWN\nselect 1;\n")],
        &LintSettings::default(),
        false,
    );
    assert_eq!((found[0].rule, found[0].line), ("renaming-table", Some(4)));
    assert_eq!(found[0].table.as_deref(), Some("t"));
}

#[test]
fn secrets_are_found_and_never_shown() {
    for bad in [
        "create user admin with password 'secret123';",
        "alter role app password 'hunter2';",
        "create user mapping for app server s options (user 'u', password 'pw');",
        "do $$ begin execute 'select 1'; end $$; alter user u encrypted password 'x1y2';",
        "do $x$ begin create role r password 'abc1'; end $x$;",
        "-- postgres://app:pa55word@db.example.com/shop\nselect 1;",
        "select dblink('host=db user=u password=pa55word');",
        "insert into k values ('AKIAIOSFODNN7EXAMPLE');",
        "insert into k values ('ghp_0123456789abcdefghijABCDEFGHIJ012345');",
        "insert into k values ('eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U');",
        "insert into k values ('-----BEGIN RSA PRIVATE KEY-----\nabc');",
    ] {
        assert!(fires(bad).contains(&"secret"), "{bad}: {:?}", fires(bad));
        let found = judged(&[("001_a.sql", bad)], &LintSettings::default(), true);
        assert!(found.iter().any(|one| one.rule == "secret" && one.severity == Severity::Error), "{bad}");
        let text = serde_json::to_string(&found).unwrap();
        for value in ["secret123", "hunter2", "pa55word", "AKIA", "ghp_", "eyJ"] {
            assert!(!text.contains(value), "{text}");
        }
    }
    for good in [
        "create user admin with password :'app_password';",
        "create user admin password null;",
        "alter table users add column password text default '';",
        "comment on column users.password is 'bcrypt';",
        "select 'postgres://app:${PASSWORD}@host/db', 'https://example.com/a:b@c';",
        "insert into t values ('550e8400-e29b-41d4-a716-446655440000', 'the quick brown fox jumps over it 123');",
        "select 'sk-learn', 'AKIA', 'password=';",
    ] {
        assert!(
            !fires(good).iter().any(|rule| matches!(*rule, "secret" | "high-entropy")),
            "{good}: {:?}",
            fires(good)
        );
    }
    assert_eq!(fires("insert into k values ('q8Zk3LmPx92VtYb7RwNc5HsJ4dFg');"), ["high-entropy"]);
    assert_eq!(
        fires("insert into k values ('9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08');"),
        ["high-entropy"]
    );
    let many = "insert into k values ('q8Zk3LmPx92VtYb7RwNc5HsJ4dFg');".repeat(9);
    let found = judged(&[("001_a.sql", &many)], &LintSettings::default(), false);
    let entropy: Vec<_> = found.iter().filter(|one| one.rule == "high-entropy").collect();
    assert_eq!(entropy.len(), 5);
    assert!(entropy.last().unwrap().message.ends_with("4 more of this kind follow"), "{entropy:?}");
}

#[test]
fn rights_for_everybody_and_loose_definers() {
    assert_eq!(fires("grant select on t to public;"), ["grant-to-public"]);
    assert_eq!(fires("alter default privileges grant execute on functions to app, public;"), ["grant-to-public"]);
    assert_eq!(fires("grant select on public.t to app;"), [] as [&str; 0]);
    assert_eq!(fires("revoke all on t from public;"), [] as [&str; 0]);
    let function = |options: &str| format!("create function f() returns int language sql {options} as $$ select 1 $$;");
    assert_eq!(fires(&function("security definer")), ["security-definer-search-path"]);
    assert_eq!(fires(&function("security definer set search_path = pg_catalog")), [] as [&str; 0]);
    assert_eq!(fires(&function("")), [] as [&str; 0]);
}

#[test]
fn foreign_keys_need_an_index_by_the_end_of_the_folder() {
    let tables = "create table u (id bigint primary key); create table t (id bigint primary key, u_id bigint references u, v bigint);";
    assert_eq!(fires(tables), ["foreign-key-without-index"]);
    let later = |more: &str| {
        let found = judged(&[("001_a.sql", tables), ("002_b.sql", more)], &LintSettings::default(), false);
        found.iter().filter(|one| one.rule == "foreign-key-without-index").count()
    };
    assert_eq!(later("create index concurrently i on t (u_id, v);"), 0);
    assert_eq!(later("create index concurrently i on public.t (u_id);"), 0);
    assert_eq!(later("create index concurrently i on t (v, u_id);"), 1);
    assert_eq!(later("drop table t;"), 0);
    assert_eq!(later("alter table t rename to s; create index i on s (u_id);"), 0);
    assert_eq!(later("alter table t add constraint f foreign key (v, u_id) references w (a, b);"), 2);
    assert_eq!(
        later("alter table t add unique (u_id, v), add constraint f foreign key (v, u_id) references w (a, b);"),
        0
    );
}

#[test]
fn row_level_security_and_names_are_looked_at_when_asked() {
    let open = with_level("row-level-security", Level::Error);
    let count = |files: &[(&str, &str)]| {
        judged(files, &open, false).iter().filter(|one| one.rule == "row-level-security").count()
    };
    assert_eq!(count(&[("001_a.sql", "create table t (id bigint);")]), 1);
    assert_eq!(count(&[("001_a.sql", "create temp table t (id bigint);")]), 0);
    assert_eq!(
        count(&[
            ("001_a.sql", "create table t (id bigint);"),
            ("002_b.sql", "alter table t enable row level security;")
        ]),
        0
    );
    let naming = with_level("naming", Level::Warning);
    let named =
        |up: &str| judged(&[("001_a.sql", up)], &naming, false).iter().filter(|one| one.rule == "naming").count();
    assert_eq!(named("create table user_accounts (id bigint, user_id bigint);"), 0);
    assert_eq!(named("create table \"UserAccounts\" (\"Id\" bigint);"), 2);
    assert_eq!(named("create index idx_t_a on t (a);"), 0);
    assert_eq!(named("create index t_a on t (a);"), 1);
    assert_eq!(
        named(
            "alter table orders add constraint fk_orders_user_id foreign key (user_id) references users (id) not valid;"
        ),
        0
    );
    assert_eq!(
        named("alter table orders add constraint orders_fk foreign key (user_id) references users (id) not valid;"),
        1
    );
}

#[test]
fn unknown_rules_and_rules_that_cannot_be_weighed() {
    assert_eq!(fires("-- ripcord: allow no-such-rule because\nselect 1;"), ["unknown-rule"]);
    assert!(refuse_level("no-such-rule", Level::Off).is_some());
    assert!(refuse_level("syntax", Level::Note).is_some());
    assert!(refuse_level("renaming-table", Level::Off).is_none());
    let found = judged(&[("001_a.sql", "select from where;")], &with_level("syntax", Level::Off), false);
    assert!(found.iter().any(|one| one.rule == "syntax" && one.severity == Severity::Error));
}

#[test]
fn habits_are_mended_where_the_linter_knows_how() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("001_a.sql");
    let text =
        "-- UP\r\ncreate table t (id int primary key, a timestamp, b varchar(10));\r\n-- DOWN\r\ndrop table t;\r\n";
    std::fs::write(&path, text).unwrap();
    let read = || source::read(dir.path(), None).unwrap().migrations.remove(0);
    let policy = Policy::new(false, &LintSettings::default()).asking(rules::Group::Style);
    let told = mend(&read(), &policy).unwrap();
    assert_eq!(told.len(), 3, "{told:?}");
    let mended = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        mended,
        "-- UP\r\ncreate table t (id bigint primary key, a timestamptz, b text);\r\n-- DOWN\r\ndrop table t;\r\n"
    );
    assert_eq!(mend(&read(), &policy).unwrap(), [] as [String; 0]);
    // The linter would write `BEFORE 'existing_value'`, which is nobody's value.
    let text = "-- UP\nalter type e add value 'b';\n-- DOWN\nselect 1;\n";
    std::fs::write(&path, text).unwrap();
    assert_eq!(mend(&read(), &policy).unwrap(), [] as [String; 0]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_without_any_down_is_told_of_once() {
    let count = |files: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let folder = source::read(dir.path(), None).unwrap();
        lint(&folder.migrations, false).into_iter().filter(|one| one.rule == "missing-down").count()
    };
    let three = [("1.sql", "select 1;"), ("2.sql", "select 1;"), ("3.sql", "select 1;")];
    assert_eq!(count(&three), 3);
    assert_eq!(count(&[&three[..], &[("4.sql", "select 1;")]].concat()), 1);
    // Where one has a DOWN, each other one that lacks it was forgotten.
    assert_eq!(
        count(&[&three[..], &[("4.sql", "select 1;"), ("5.sql", "-- UP\nselect 1;\n-- DOWN\nselect 1;")]].concat()),
        4
    );
}

/// Every rule has a page that says what is wrong, why, and what to do.
#[test]
fn every_rule_has_its_page() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules");
    for rule in rules::all() {
        let page = std::fs::read_to_string(folder.join(format!("{}.md", rule.id))).unwrap_or_default();
        assert!(page.starts_with(&format!("# `{}`\n", rule.id)), "{}", rule.id);
        assert!(page.contains("\n## Instead\n") || page.contains("\n## What to do\n"), "{}", rule.id);
    }
    let known: Vec<&str> = rules::all().map(|rule| rule.id).collect();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".md").to_owned();
        assert!(name == "README" || known.contains(&name.as_str()), "{name}");
    }
}
