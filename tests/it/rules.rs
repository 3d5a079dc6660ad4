//! Every rule of the catalogue, on an example that it is made for and on one that is well.

mod examples;

use std::collections::BTreeSet;

use ripcord::migration::lint::{self, Finding, Policy, rules};
use ripcord::migration::source;
use ripcord::settings::{Level, LintSettings};

use self::examples::{Example, Files, Live, live, offline};
use crate::support::{Cluster, Project};

/// Those that nothing in a folder shows: the live database must be asked.
const LIVE_ONLY: [&str; 1] = ["large-table"];

/// Those that no directive silences: such a file cannot be run, or is none that a directive is read from.
const NEVER_ALLOWED: [&str; 5] = ["file-name", "duplicate-version", "dependency", "syntax", "transaction-control"];

/// The findings of a folder, all of the rule's group being asked for.
fn judged(files: &Files, rule: &str, levels: &[(&str, Level)]) -> Vec<Finding> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let folder = source::read(dir.path(), None).unwrap();
    let levels = levels.iter().map(|(rule, level)| ((*rule).to_owned(), *level)).collect();
    let settings = LintSettings { levels, ..LintSettings::default() };
    let group = rules::rule(rule).unwrap().group;
    lint::lint_folder(&folder, &Policy::new(true, &settings).asking(group))
}

/// `file:line` of each finding of a rule, several on one line once.
fn places(findings: &[Finding], rule: &str) -> Vec<String> {
    let of_rule = findings.iter().filter(|finding| finding.rule == rule);
    let place = |finding: &Finding| {
        let file = finding.file.file_name().unwrap().to_string_lossy().into_owned();
        finding.line.map_or(file.clone(), |line| format!("{file}:{line}"))
    };
    let mut places: Vec<String> = of_rule.map(place).collect();
    places.dedup();
    places
}

#[test]
fn every_rule_has_an_example() {
    let known: Vec<&str> = rules::all().map(|rule| rule.id).collect();
    let (offline, live) = (offline(), live());
    let shown: BTreeSet<&str> = offline.iter().map(|one| one.rule).chain(live.iter().map(|one| one.rule)).collect();
    let without: Vec<&&str> = known.iter().filter(|rule| !shown.contains(**rule)).collect();
    assert!(without.is_empty(), "rules without an example that fires and one that does not: {without:?}");
    let unknown: Vec<&&str> = shown.iter().filter(|rule| !known.contains(rule)).collect();
    assert!(unknown.is_empty(), "examples of rules that there are not: {unknown:?}");
    // What a folder shows is shown in a folder, once.
    let folders: Vec<&str> = offline.iter().map(|one| one.rule).collect();
    let expected: Vec<&str> = known.into_iter().filter(|rule| !LIVE_ONLY.contains(rule)).collect();
    assert_eq!(folders, expected);
}

#[test]
fn every_rule_fires_on_its_example_and_not_beside_it() {
    let mut wrong = Vec::new();
    for Example { rule, fires, place, quiet } in offline() {
        let mut check = |what: &str, found: Vec<String>, expected: &[&str]| {
            if found != expected {
                wrong.push(format!("{rule}, {what}: {found:?}, and not {expected:?}"));
            }
        };
        let bad = judged(&fires, rule, &[]);
        let good = judged(&quiet, rule, &[]);
        check("the bad example", places(&bad, rule), &[place]);
        check("the good example", places(&good, rule), &[]);
        // An example that nobody can parse would prove nothing.
        check("the good example's syntax", places(&good, "syntax"), &[]);
        let expected: &[&str] = if rule == "syntax" { &[place] } else { &[] };
        check("the bad example's syntax", places(&bad, "syntax"), expected);

        let known = rules::rule(rule).unwrap();
        let severity = bad.iter().find(|finding| finding.rule == rule).map(|finding| finding.severity);
        let default = match rule {
            // In a protected environment, as here.
            "destructive" | "destructive-without-down" => Some(lint::Severity::Error),
            _ => known.severity.or(Some(lint::Severity::Note)),
        };
        check("weight", vec![format!("{severity:?}")], &[&format!("{default:?}")]);

        if lint::refuse_level(rule, Level::Off).is_none() {
            check("switched off", places(&judged(&fires, rule, &[(rule, Level::Off)]), rule), &[]);
            let raised = judged(&fires, rule, &[(rule, Level::Error)]);
            let raised = raised.into_iter().filter(|one| one.severity == lint::Severity::Error);
            check("made an error", places(&raised.collect::<Vec<_>>(), rule), &[place]);
        }
        let allowed: Files = fires
            .iter()
            .map(|(name, text)| (*name, format!("{text}\n-- ripcord: allow {rule} it is meant\n")))
            .collect();
        let found = judged(&allowed, rule, &[]);
        let found = found.into_iter().filter(|one| one.severity == lint::Severity::Error || rule != "syntax");
        let expected: &[&str] = if NEVER_ALLOWED.contains(&rule) && rule != "syntax" { &[place] } else { &[] };
        check("allowed", places(&found.collect::<Vec<_>>(), rule), expected);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_of_the_live_database_fires_and_does_not() {
    for Live { rule, database, up, place } in live() {
        for (there, expected) in [(database[0], 1), (database[1], 0)] {
            let db = Cluster::shared().database();
            db.sql(there);
            let project = Project::new(&db);
            project
                .configure("[validate]\nlarge_table_rows = 1000\n[validate.rules]\nrow-level-security = \"warning\"\n");
            project.migration("001_a.sql", &format!("select 1;\n\n{up}"), "select 1;");
            let before = db.schema();
            let found = |arguments: &[&str]| {
                let items = project.json(arguments).expect_code(0).items();
                items.into_iter().filter(|item| item["rule"] == rule).collect::<Vec<_>>()
            };
            let items = found(&["validate", "--online"]);
            assert_eq!(items.len(), expected, "{rule}: {items:#?}");
            assert_eq!(found(&["validate"]).len(), 0, "{rule}");
            for item in &items {
                let file = item["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
                match place {
                    Some(place) => assert_eq!(format!("{file}:{}", item["line"]), place),
                    None => assert!(item["line"].is_null() && item["message"].as_str().unwrap().contains("`public.t`")),
                }
            }
            assert_eq!(db.schema(), before, "{rule}");
        }
    }
}
