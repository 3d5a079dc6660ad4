use super::*;
use crate::migration::{Metadata, Script};
use std::path::PathBuf;

fn file(name: &str, depends: &[&str]) -> Migration {
    let (version, rest) = name.split_once('_').unwrap();
    let sql = format!("select '{name}';");
    Migration {
        version: Version(version.to_owned()),
        name: rest.to_owned(),
        path: PathBuf::from(format!("{name}.sql")),
        down_path: None,
        file_name: format!("{name}.sql"),
        checksum: format!("sum of {name}"),
        loose_checksum: format!("loose sum of {name}"),
        up: Script::parse(&sql, name, 1).unwrap(),
        down: None,
        metadata: Metadata {
            dependencies: depends.iter().map(|&name| name.to_owned()).collect(),
            ..Metadata::default()
        },
        rank: None,
        master: false,
    }
}

fn files(names: &[&str]) -> Vec<Migration> {
    names.iter().map(|name| file(name, &[])).collect()
}

fn applied(names: &[&str]) -> Vec<Applied> {
    files(names)
        .into_iter()
        .map(|file| Applied {
            version: file.version,
            name: file.name,
            checksum: file.checksum,
            loose_checksum: Some(file.loose_checksum),
            batch: 1,
        })
        .collect()
}

fn order(plan: &Plan) -> Vec<String> {
    plan.pending.iter().map(|one| one.migration.label()).collect()
}

fn simple(files: &[Migration], applied: &[Applied]) -> Plan {
    plan(files, applied, &Selection::default(), OnChanged::Error)
}

fn selected(selection: Selection) -> Plan {
    plan(&files(&["1_a", "2_b", "3_c", "4_d"]), &applied(&["1_a"]), &selection, OnChanged::Error)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn pending_in_the_order_of_versions() {
    let mut recorded = applied(&["001_a"]);
    recorded[0].version = Version("1".to_owned());
    let plan = simple(&files(&["10_j", "2_b", "001_a", "9_i"]), &recorded);
    assert_eq!(order(&plan), ["2_b", "9_i", "10_j"]);
    assert!(plan.errors.is_empty() && plan.notes.is_empty(), "{plan:?}");
    assert_eq!(plan.pending[0].reason, "pending");
}

#[test]
fn late_arrivals_and_missing_files_are_noted() {
    let plan = simple(&files(&["1_a", "2_b", "3_c"]), &applied(&["1_a", "3_c", "4_d"]));
    assert_eq!(order(&plan), ["2_b"]);
    assert_eq!(
        plan.notes,
        ["`4_d` is applied, but its file is gone", "`2_b.sql` arrives after `4` was applied, and runs now"]
    );
}

#[test]
fn a_changed_file_is_an_error_a_rerun_or_a_note() {
    let files = files(&["1_a"]);
    let mut applied = applied(&["1_a"]);
    applied[0].checksum = "other".to_owned();
    applied[0].loose_checksum = some("other");
    let with = |on_changed| plan(&files, &applied, &Selection::default(), on_changed);
    let error = with(OnChanged::Error);
    assert!(error.pending.is_empty());
    assert!(error.errors[0].message().contains("`1_a.sql` was changed"));
    assert!(error.errors[0].hint_text().unwrap().contains("ripcord repair"));
    assert_eq!(with(OnChanged::Rerun).pending[0].reason, "changed");
    let warned = with(OnChanged::Warn);
    assert!(warned.pending.is_empty() && warned.errors.is_empty() && warned.notes.len() == 1);

    applied[0].loose_checksum = Some(files[0].loose_checksum.clone());
    for on_changed in [OnChanged::Error, OnChanged::Rerun, OnChanged::Warn] {
        let plan = plan(&files, &applied, &Selection::default(), on_changed);
        assert!(plan.pending.is_empty() && plan.errors.is_empty());
        assert!(plan.notes[0].contains("only comments or white space differ"));
    }
}

#[test]
fn selections() {
    let target = |text: &str| Selection { target: some(text), ..Selection::default() };
    let file = |text: &str, again| Selection { file: some(text), again, ..Selection::default() };
    assert_eq!(order(&selected(target("3"))), ["2_b", "3_c"]);
    assert_eq!(order(&selected(target("c"))), ["2_b", "3_c"]);
    assert_eq!(order(&selected(target("1_a"))), Vec::<String>::new());
    assert_eq!(order(&selected(file("003_c.sql", false))), Vec::<String>::new());
    assert_eq!(order(&selected(file("3_c.sql", false))), ["3_c"]);
    assert_eq!(order(&selected(file("a", false))), Vec::<String>::new());
    let again = selected(file("a", true));
    assert_eq!((order(&again), again.pending[0].reason.as_str()), (vec!["1_a".to_owned()], "again"));
    let limited = Selection { limit: Some(1), ..Selection::default() };
    assert_eq!(order(&selected(limited)), ["2_b"]);
}

#[test]
fn a_name_that_means_nothing_is_told() {
    let plan = selected(Selection { target: some("5"), ..Selection::default() });
    assert!(plan.pending.is_empty());
    assert_eq!(plan.errors[0].kind(), crate::error::Kind::Usage);
    let near = plan_near(&["001_create_users"], "create_user");
    assert_eq!(near, ["`001_create_users`"]);
    assert_eq!(plan_near(&["001_creat_users"], "001_create_users"), ["`001_creat_users`"]);
    assert!(plan_near(&["001_orders"], "xyz").is_empty());
}

fn plan_near(known: &[&str], wanted: &str) -> Vec<String> {
    nearest(wanted, known.iter().map(|&name| name.to_owned()))
}

#[test]
fn dependencies_come_before_versions() {
    let files = [file("1_a", &["3_c.sql"]), file("2_b", &[]), file("3_c", &["2"])];
    assert_eq!(order(&simple(&files, &[])), ["2_b", "3_c", "1_a"]);
    assert!(simple(&files, &[]).errors.is_empty());
}

#[test]
fn dependencies_must_be_there() {
    let missing = simple(&[file("1_a", &["0_zero"])], &[]);
    assert!(missing.errors[0].message().contains("depends on `0_zero`, which is no migration"));
    // Applied is enough, the file may be gone.
    assert!(simple(&[file("2_b", &["1_a"])], &applied(&["1_a"])).errors.is_empty());
    let files = [file("1_a", &[]), file("2_b", &["a"])];
    let only = Selection { file: some("2_b"), ..Selection::default() };
    let plan = plan(&files, &[], &only, OnChanged::Error);
    assert!(plan.errors[0].message().contains("neither applied nor selected"), "{:?}", plan.errors);
}

#[test]
fn circles_are_named() {
    let files = [file("1_a", &["2_b"]), file("2_b", &["3_c"]), file("3_c", &["2_b"]), file("4_d", &["4_d"])];
    let plan = simple(&files, &[]);
    assert!(plan.errors[0].message().ends_with("depend on each other: `2_b.sql`, `3_c.sql`"), "{}", plan.errors[0]);
    let own = simple(&[file("4_d", &["4_d"])], &[]);
    assert!(own.errors[0].message().contains("`4_d.sql`"));
}

#[test]
fn duplicates_are_refused_unless_both_are_applied() {
    let files = files(&["1_a", "01_b"]);
    let plan = simple(&files, &applied(&["1_a"]));
    assert!(plan.errors[0].message().contains("taken by 2 files: `01_b.sql`, `1_a.sql`"));
    let plan = simple(&files, &applied(&["1_a", "01_b"]));
    assert!(plan.errors.is_empty() && plan.pending.is_empty() && plan.notes.is_empty(), "{plan:?}");
}

#[test]
fn one_number_twice_is_fine_when_both_were_applied() {
    let files = files(&["027_indexes", "027_config", "028_more"]);
    let mut recorded = applied(&["027_indexes", "027_config"]);
    recorded[1].version = Version("027_config".to_owned());
    let plan = simple(&files, &recorded);
    assert_eq!((order(&plan), plan.errors.len(), plan.notes.len()), (vec!["028_more".to_owned()], 0, 0), "{plan:?}");
    assert!(simple(&files, &recorded[..1]).errors[0].message().contains("is taken by 2 files"));
}
