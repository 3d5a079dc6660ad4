//! The window between closing the target and renaming it: nobody can connect, and every command that a
//! person would type says what is next.

use super::{killed_at, nothing_left, shop, state};
use crate::support::Cluster;

#[test]
fn every_command_says_what_is_next_while_the_database_is_closed() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let before = state(&db);
    killed_at(&project, "swap_closed", &["restore", "latest", "--yes"]);
    let allowed = |expected: &str| {
        let sql = format!("select datallowconn from pg_database where datname = '{}'", db.name);
        assert_eq!(Cluster::shared().sql("postgres", &sql), expected);
    };
    allowed("f");

    for (arguments, code) in [
        (&[][..], 0),
        (&["status"][..], 0),
        (&["doctor"][..], 1),
        (&["apply"][..], 1),
        (&["rollback"][..], 1),
        (&["restore", "latest", "--yes"][..], 1),
        (&["backup", "create"][..], 1),
    ] {
        let ran = project.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:#?}");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("ripcord recover"), "{arguments:?}: {ran:#?}");
        assert!(said.to_lowercase().contains("closed"), "{arguments:?}: {ran:#?}");
    }
    let shown = project.run(&["recover", "--dry-run"]).expect_code(0);
    assert!(shown.stdout.contains("restore") && shown.stdout.contains("swap_began"), "{shown:#?}");
    allowed("f");

    let ran = project.json(&["recover"]).expect_code(0);
    assert_eq!(ran.result()["outcome"], "done", "{ran:#?}");
    allowed("t");
    assert_eq!(state(&db), before);
    nothing_left(&db, &project, "swap_closed");
}

#[test]
fn a_database_that_somebody_else_closed_stays_closed() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let close = |allow: bool| {
        Cluster::shared().sql("postgres", &format!("alter database {} allow_connections {allow}", db.name));
    };
    close(false);
    let ran = project.run(&["recover"]).expect_code(1);
    assert!(ran.stderr.contains("no unfinished run has closed it"), "{ran:#?}");
    let sql = format!("select datallowconn from pg_database where datname = '{}'", db.name);
    assert_eq!(Cluster::shared().sql("postgres", &sql), "f");
    close(true);
}
