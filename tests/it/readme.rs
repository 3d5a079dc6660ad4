//! The documentation is true: its commands are ones that the binary takes, the beginner's and the tired person's
//! are run as they stand there, links lead somewhere, and the table of requirements is whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Cluster, Project};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// Every page that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)).to_vec();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The command lines of a page: lines of its code blocks, and what stands between backticks.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let line = line.trim();
            let line = line.strip_prefix("$ ").unwrap_or(line);
            if line.starts_with("ripcord ") {
                found.push(line.split(" # ").next().unwrap().trim().to_owned());
            }
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter(|span| span.starts_with("ripcord ")).map(str::to_owned));
        }
    }
    found
}

/// As a shell splits it, as far as the pages need.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for character in command.chars() {
        match (character, quote) {
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            (' ', None) => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            _ => word.push(character),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

fn help(arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ripcord")).args(arguments).arg("--help").env_clear().output().unwrap()
}

#[test]
fn every_command_of_the_pages_is_accepted() {
    let mut verbs = BTreeSet::new();
    let mut refused = Vec::new();
    for page in pages() {
        for command in commands(&std::fs::read_to_string(&page).unwrap()) {
            let words = words(&command);
            let output = help(&words[1..]);
            if !output.status.success() {
                refused.push(format!("{}: {command}\n{}", page.display(), String::from_utf8_lossy(&output.stderr)));
            }
            verbs.insert(words[1].clone());
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    for verb in ["apply", "restore", "recover", "backup", "drill", "prune", "aside", "lock", "init", "doctor"] {
        assert!(verbs.contains(verb), "no page tells of `ripcord {verb}`, or the pages are not read");
    }
    // What would otherwise pass unseen.
    assert!(!help(&words("restore latest --no-such-option")).status.success());
}

/// The heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' | '-' => Some('-'),
            c if c.is_alphanumeric() || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for piece in text.split("](").skip(1) {
            let link = piece.split(')').next().unwrap();
            if link.starts_with("http") {
                continue;
            }
            seen += 1;
            let (file, place) = link.split_once('#').map_or((link, None), |(file, place)| (file, Some(place)));
            let to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let there = match place {
                None => to.exists(),
                Some(place) => std::fs::read_to_string(&to)
                    .is_ok_and(|text| text.lines().any(|line| line.starts_with('#') && anchor(line) == place)),
            };
            if !there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(seen > 20, "only {seen} links were read");
}

#[test]
fn every_requirement_has_its_row() {
    let text = read("README.md");
    let expected: Vec<String> = [("A", 13), ("B", 19), ("C", 7), ("D", 15), ("E", 8)]
        .into_iter()
        .flat_map(|(letter, last)| (1..=last).map(move |number| format!("{letter}{number}")))
        .flat_map(|id| if id == "A8" { vec![id, "A8b".to_owned()] } else { vec![id] })
        .collect();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let mut found = Vec::new();
    for row in rows.iter().filter(|row| expected.iter().any(|id| id == row[0])) {
        assert_eq!(row.len(), 3, "{row:?}");
        assert!(
            row[2] == "yes" || row[2].starts_with("partly: ") || row[2].starts_with("not yet"),
            "{}: yes, partly with what is missing, or not yet, and not `{}`",
            row[0],
            row[2]
        );
        found.push(row[0].to_owned());
    }
    assert_eq!(found, expected);
}

/// What stands between two markers, without the fence.
fn block(page: &str, name: &str) -> String {
    let text = read(page);
    let begin = format!("<!-- {name}:begin -->");
    let inside = text.split(&begin).nth(1).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let inside = inside.split(&format!("<!-- {name}:end -->")).next().unwrap();
    inside.lines().filter(|line| !line.starts_with("```")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_start_of_the_readme_is_run_as_it_stands() {
    let db = Cluster::shared().database();
    let script = block("README.md", "start");
    let url = "'postgresql://deploy@localhost/shop'";
    assert!(script.contains(url), "{script}");
    let script = script.replace(url, &format!("'{}'", db.url()));
    let folder = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_ripcord")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());

    let output = Command::new("sh")
        .args(["-euc", &script])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();

    let told = format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{told}");
    assert!(told.contains("database: changed as planned: 1 migration applied"), "{told}");
    assert_eq!(
        db.sql("select version || ' ' || name || ' ' || state from ripcord.schema_migrations"),
        "001 add_orders applied"
    );
    assert_eq!(db.sql("select status || ' ' || purpose from ripcord.backup_history"), "verified pre-apply");
    for made in ["ripcord.toml", ".ripcord/key", "migrations/001_add_orders.sql", ".gitignore"] {
        assert!(folder.path().join(made).exists(), "{made} was not made\n{told}");
    }
}

/// A project whose database has 100 orders and a backup of them.
fn shop(project: &Project) {
    project
        .migration("001_shop.sql", "CREATE TABLE orders (id int PRIMARY KEY, note text);", "DROP TABLE orders;")
        .migration(
            "002_fill.sql",
            "INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 100) AS g;",
            "DELETE FROM orders;",
        );
    project.run(&["apply"]).expect_code(0);
    project.run(&["backup", "create"]).expect_code(0);
}

#[test]
fn the_restore_of_three_in_the_morning_brings_the_rows_back() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    shop(&project);
    let sum = "select count(*) || ' ' || sum(hashtextextended(o::text, 0)) from orders as o";
    let (before, schema) = (db.sql(sum), db.schema());
    db.sql("delete from orders");

    let readme = read("README.md");
    let section = readme.split("\n## Three in the morning").nth(1).unwrap().split("\n## ").next().unwrap();
    let lines: Vec<String> = commands(section).into_iter().take(2).collect();
    assert_eq!(lines, ["ripcord restore latest --dry-run", "ripcord restore latest"]);

    let looked = words(&lines[0]);
    let looked: Vec<&str> = looked[1..].iter().map(String::as_str).collect();
    let ran = project.run(&looked).expect_code(0);
    assert!(ran.stderr.contains("changed since the backup: 100 rows in public.orders"), "{ran:#?}");
    assert!(ran.stderr.contains("no applied migration goes"), "{ran:#?}");
    assert!(ran.stderr.contains("database: unchanged"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "0", "a dry run changed something");

    let ran = project.json(&["restore", "latest", "--confirm", &db.name]).expect_code(0);
    let result = ran.result();
    assert_eq!(result["outcome"], "done", "{ran:#?}");
    assert_eq!(result["writes_since_backup"], 100, "{ran:#?}");
    assert!(result["database"].as_str().unwrap().starts_with("restored from backup"), "{ran:#?}");
    assert!(result["hint"].as_str().unwrap().contains("ripcord aside drop"), "{ran:#?}");
    assert_eq!(db.sql(sum), before);
    assert_eq!(db.schema(), schema);
}

#[test]
fn a_restore_of_what_nobody_changed_says_that_nothing_goes() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    shop(&project);
    let ran = project.run(&["restore", "latest", "--dry-run"]).expect_code(0);
    assert!(ran.stderr.contains("no row was written or deleted since the backup"), "{ran:#?}");
    db.sql("update orders set note = 'x' where id <= 3");
    let ran = project.run(&["restore", "latest", "--dry-run"]).expect_code(0);
    assert!(ran.stderr.contains("changed since the backup: "), "{ran:#?}");
}

#[test]
fn undoing_a_restore_by_the_page_leaves_a_living_database_that_cannot_be_dropped_as_an_old_one() {
    let cluster = Cluster::shared();
    let db = cluster.database();
    let project = Project::new(&db);
    shop(&project);
    db.sql("delete from orders where id > 40");
    project.run(&["restore", "latest", "--confirm", &db.name]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "100");
    let listed = project.json(&["aside", "list"]).expect_code(0).result();
    let aside = listed["items"][0]["name"].as_str().unwrap().to_owned();

    let sql = block("docs/three-in-the-morning.md", "undo");
    let kept = sql.split_whitespace().find(|word| word.starts_with("shop_aside_")).unwrap().to_owned();
    // The last line takes the comment away; whoever forgets it must not lose the database.
    let (renames, comment) = sql.trim().rsplit_once('\n').unwrap();
    assert!(comment.starts_with("COMMENT ON DATABASE shop IS NULL"), "{comment}");
    let ours = |sql: &str| sql.replace(&kept, &aside).replace("shop", &db.name);
    for statement in ours(renames).lines() {
        cluster.sql("postgres", statement);
    }

    assert_eq!(db.sql("select count(*) from orders"), "40");
    let status = project.run(&["status"]).expect_code(0);
    assert!(!status.stdout.contains("kept aside") && !status.stderr.contains("kept aside"), "{status:#?}");
    let listed = project.json(&["aside", "list"]).expect_code(0).result();
    assert_eq!(listed["items"].as_array().unwrap().len(), 0, "{listed}");
    let ran = project.run(&["aside", "drop", &db.name]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert_eq!(db.sql("select count(*) from orders"), "40");

    cluster.sql("postgres", &ours(comment));
    project.run(&["apply"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from orders"), "40");
}
