//! DOWNs that lie, each in a way of its own, and honest ones: what the ladder makes of them.

use std::process::Command;
use std::sync::Mutex;

use crate::support::{Cluster, Db, Project};

mod honest;
mod liars;

/// A migration whose UP works; the one after it fails, so that the ladder tries this one's DOWN.
struct Case {
    /// What it is about.
    name: &'static str,
    /// The database before, besides the shop.
    before: &'static str,
    up: &'static str,
    down: &'static str,
    /// For a liar: a part of why its DOWN is not believed. For an honest one: the proof.
    seen: &'static str,
}

const fn case(
    name: &'static str,
    before: &'static str,
    up: &'static str,
    down: &'static str,
    seen: &'static str,
) -> Case {
    Case { name, before, up, down, seen }
}

const SHOP: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, note text NOT NULL DEFAULT 'x', price numeric(10, 2));
    INSERT INTO orders SELECT g, 'order ' || g, g * 1.25 FROM generate_series(1, 20) AS g;
    CREATE TABLE lines (id serial PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE, what text);
    INSERT INTO lines (order_id, what) SELECT g % 20 + 1, 'line ' || g FROM generate_series(1, 40) AS g;
    CREATE TABLE events (n bigint);";

/// Everything that the database holds, its rows in no order: another tool's look at what ripcord says.
fn content(db: &Db<'_>, with_events: bool) -> Vec<String> {
    let output = Command::new(db.cluster.bin().join("pg_dump"))
        .args(["-N", "ripcord", "--exclude-table-data", if with_events { "nothing" } else { "public.events" }])
        .arg(db.url())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<String> = dump
        .lines()
        .filter(|line| !line.contains("restrict ") && !line.contains("setval("))
        .map(str::to_owned)
        .collect();
    let whole = format!(
        "select array(select concat_ws(' ', a.grantee, a.privilege_type, a.is_grantable) from aclexplode(coalesce(datacl, \
         acldefault('d', datdba))) as a order by 1), datconnlimit, shobj_description(oid, 'pg_database'), \
         (select array_agg(concat(setrole, setconfig)) from pg_db_role_setting where setdatabase = d.oid) \
         from pg_database d where datname = '{}'",
        db.name
    );
    lines.push(db.sql(&whole));
    lines.sort();
    lines
}

fn project(db: &Db<'_>, case: &Case) -> Project {
    db.sql(SHOP);
    db.sql(case.before);
    let project = Project::new(db);
    project.migration("001_case.sql", case.up, case.down).migration(
        "002_bad.sql",
        "SELECT 1 / (id - 1) FROM orders;",
        "SELECT 1;",
    );
    project
}

/// Another session's row, committed between the backup and the proof.
fn written_meanwhile(db: &Db<'_>, project: &Project) {
    let psql = db.cluster.bin().join("psql");
    let insert = format!("{} -qX {} -c 'insert into public.events values (1)'", psql.display(), db.url());
    project.configure(&format!("[hooks]\nbefore_rollback = [\"{insert}\"]\n"));
}

/// Runs every case, a few at once on one cluster, and tells all that went wrong.
fn each(cases: &[Case], run: impl Fn(&Case) -> Result<(), String> + Sync) {
    let left = Mutex::new(cases.iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some(case) = left.lock().unwrap().next() else { return };
                    if let Err(why) = run(case) {
                        wrong.lock().unwrap().push(format!("## {}: {why}", case.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

/// A liar: DOWN is not believed, for the reason expected, and the backup brings everything back.
fn is_caught(case: &Case, writer: bool) -> Result<(), String> {
    let db = Cluster::shared().database();
    let project = project(&db, case);
    if writer {
        written_meanwhile(&db, &project);
    }
    let before = content(&db, false);
    let ran = project.json(&["apply", "--writes", if writer { "accept-loss" } else { "refuse" }]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    if ran.code != 3 || ran.result()["outcome"] != "restored" {
        return Err(format!("not restored: {ran:#?}"));
    }
    if !said.contains(case.seen) {
        return Err(format!("not seen as `{}`: {ran:#?}", case.seen));
    }
    let after = content(&db, false);
    if before != after {
        let differing = before
            .iter()
            .filter(|line| !after.contains(line))
            .chain(after.iter().filter(|line| !before.contains(line)));
        return Err(format!("not what it was: {:#?}", differing.collect::<Vec<_>>()));
    }
    Ok(())
}

/// An honest one: DOWN is believed, by the proof expected, and rightly so.
fn is_believed(case: &Case, writer: bool) -> Result<(), String> {
    let db = Cluster::shared().database();
    let project = project(&db, case);
    if writer {
        written_meanwhile(&db, &project);
    }
    let before = content(&db, false);
    let ran = project.json(&["apply"]);
    if ran.code != 3 || ran.result()["outcome"] != "rolled_back" {
        return Err(format!("not rolled back: {ran:#?}"));
    }
    let proof = &ran.result()["proof"];
    if proof["kind"] != case.seen || proof["holds"] != true {
        return Err(format!("not proved by {}: {ran:#?}", case.seen));
    }
    let after = content(&db, false);
    if before != after {
        return Err(format!("not what it was: {before:#?} {after:#?}"));
    }
    let events = db.sql("select count(*) from events");
    if events != if writer { "1" } else { "0" } {
        return Err(format!("a row of the writer is gone: {events}"));
    }
    Ok(())
}

#[test]
fn a_down_that_loses_what_a_dump_shows_is_caught() {
    each(liars::OF_THE_SCHEMA, |case| is_caught(case, false));
}

#[test]
fn a_down_that_loses_what_is_easily_overlooked_is_caught() {
    each(liars::OVERLOOKED, |case| is_caught(case, false));
}

#[test]
fn a_down_that_leaves_other_rows_is_caught() {
    each(liars::OF_THE_ROWS, |case| is_caught(case, false));
}

#[test]
fn a_lie_is_caught_while_another_session_writes() {
    each(liars::UNDER_A_WRITER, |case| is_caught(case, true));
}

#[test]
fn an_honest_down_is_believed() {
    each(honest::WITH_NOBODY_ELSE, |case| is_believed(case, false));
}

#[test]
fn an_honest_down_that_only_removes_is_believed_while_another_session_writes() {
    each(honest::ADDITIVE, |case| is_believed(case, true));
}
