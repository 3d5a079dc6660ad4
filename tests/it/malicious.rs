//! A database's owner puts code into it that would make them a superuser when a superuser runs it, and waits for the
//! backup to be restored. docs/recovery.md says what holds then, and this file that it does.

use crate::support::{Cluster, Db, Project};

/// The owner `evil`, the restoring role `deploy` (no superuser, CREATEDB, a member of the owner), and a database in
/// which everything that can call a function calls one that tries.
struct Case {
    cluster: Cluster,
}

impl Case {
    fn new() -> Case {
        let cluster = Cluster::start(&[]);
        cluster.sql(
            "postgres",
            "create role evil login password 'x'; create role deploy login createdb password 'x'; grant evil to deploy;
             create table public.told (what text); grant insert on public.told to public",
        );
        let db = cluster.database_named("shop", "owner evil");
        // An event trigger takes a superuser to make, but its function may be the owner's.
        db.sql("create schema app authorization evil; grant create on schema public to evil");
        let case = Case { cluster };
        case.as_evil(&TRAPS.replace("$FILE", case.file().to_str().unwrap()));
        case.sql("create event trigger trap on ddl_command_end execute function app.on_ddl()");
        case
    }

    fn db(&self) -> Db<'_> {
        Db { cluster: &self.cluster, name: "shop".to_owned() }
    }

    fn sql(&self, sql: &str) -> String {
        self.db().sql(sql)
    }

    /// A login of their own: out of anything less the traps would escape at once.
    fn as_evil(&self, sql: &str) {
        let output = self.cluster.psql("shop").args(["-U", "evil", "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What a program that was run would leave.
    fn file(&self) -> std::path::PathBuf {
        self.cluster.socket().join("evil_was_here")
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(self.file());
        self.cluster.sql("postgres", "alter role evil nosuperuser");
    }

    /// Somebody's attempt succeeded.
    fn lost(&self) -> bool {
        self.cluster.sql("postgres", "select rolsuper from pg_roles where rolname = 'evil'") == "t"
    }

    #[track_caller]
    fn holds(&self, after: &str) {
        assert!(!self.lost(), "evil is a superuser after {after}");
        assert!(!self.file().exists(), "a program ran after {after}");
    }

    fn project(&self, user: &str) -> Project {
        let project = Project::with_url(&self.cluster.url_as(user, "x", "shop"));
        project.migration("001_a.sql", "CREATE TABLE app.a (id int);", "DROP TABLE app.a;");
        project
    }
}

/// Whatever it is called for, it tries; and does as it should, so that nobody notices.
const TRAPS: &str = r"
    create function app.try() returns void language plpgsql as $$
    begin
        begin execute 'alter role evil superuser'; exception when others then null; end;
        begin
            execute $q$copy (select 1) to program 'touch $FILE'$q$;
        exception when others then null; end;
        -- Out of a SET ROLE, should somebody think that this protects.
        begin execute 'reset role'; execute 'alter role evil superuser'; exception when others then null; end;
        begin
            execute 'reset session authorization'; execute 'alter role evil superuser';
        exception when others then null; end;
    end $$;
    create function app.checked(int) returns boolean language plpgsql immutable as
        $$ begin perform app.try(); return true; end $$;
    create function app.number(int) returns int language plpgsql immutable as
        $$ begin perform app.try(); return $1; end $$;
    create function app.on_row() returns trigger language plpgsql as
        $$ begin perform app.try(); return coalesce(new, old); end $$;
    create function app.on_ddl() returns event_trigger language plpgsql as $$ begin perform app.try(); end $$;
    create domain app.small as int check (app.checked(value));
    create table app.t (
        id int primary key check (app.checked(id)),
        twice int generated always as (app.number(id)) stored,
        usual int default app.number(7),
        little app.small);
    create index on app.t (app.number(id)) where app.checked(id);
    create statistics app.s on app.number(id), app.number(usual) from app.t;
    create trigger trap before insert or update or delete on app.t for each row execute function app.on_row();
    create trigger trap_of_statement after truncate on app.t for each statement execute function app.on_row();
    create rule trap as on delete to app.t do also select app.try();
    create view app.v as select app.number(id) as id from app.t;
    create materialized view app.m as select app.number(id) as id from app.t;
    create unique index on app.m (app.number(id));
    create table app.p (id int) partition by list (app.number(id));
    create table app.p1 partition of app.p for values in (1);
    alter table app.t enable row level security;
    create policy trap on app.t using (app.checked(id));
    create type app.pair as (a int, b int);
    create function app.to_pair(int) returns app.pair language plpgsql as
        $$ begin perform app.try(); return row($1, $1)::app.pair; end $$;
    create cast (int as app.pair) with function app.to_pair(int);
    insert into app.t (id, little) select g, g from generate_series(1, 20) g;
    insert into app.p values (1);
    refresh materialized view app.m;
";

/// Operators and functions that stand before PostgreSQL's own for everyone who connects.
fn hijack() -> String {
    let mut sql = String::new();
    let types = ["oid", "name", "text", "int4", "int8", "\"char\"", "bool", "timestamptz", "regclass", "xid"];
    for (number, kind) in types.iter().enumerate() {
        for (at, operator) in ["=", "<>", ">=", "<", ">", "!~", "||"].iter().enumerate() {
            let (other, of) = if *operator == "!~" || *operator == "||" { ("text", "text") } else { (*kind, "bool") };
            if of == "text" && *kind != "text" {
                continue;
            }
            // `!~` is a question too.
            let (of, body) = if *operator == "||" {
                ("text", "pg_catalog.textcat($1, $2)")
            } else {
                (
                    "bool",
                    match *operator {
                        "!~" => "$1 operator(pg_catalog.!~) $2",
                        "=" => "$1 operator(pg_catalog.=) $2",
                        "<>" => "$1 operator(pg_catalog.<>) $2",
                        ">=" => "$1 operator(pg_catalog.>=) $2",
                        "<" => "$1 operator(pg_catalog.<) $2",
                        _ => "$1 operator(pg_catalog.>) $2",
                    },
                )
            };
            if *kind == "xid" && !["=", "<>"].contains(operator) {
                continue;
            }
            sql.push_str(&format!(
                "create function app.op_{number}_{at}({kind}, {other}) returns {of} language plpgsql as
                     $$ begin perform app.try(); return {body}; end $$;
                 create operator app.{operator} (leftarg = {kind}, rightarg = {other}, function = app.op_{number}_{at});\n"
            ));
        }
    }
    sql.push_str(
        "create function app.lower(text) returns text language plpgsql as
             $$ begin perform app.try(); return pg_catalog.lower($1); end $$;
         create function app.count(bigint) returns bigint language sql as 'select 1';
         alter database shop set search_path = app, pg_catalog, public;",
    );
    sql
}

#[test]
fn the_traps_work_on_a_superuser_who_walks_into_them() {
    // Otherwise the tests below would show nothing.
    let case = Case::new();
    case.holds("making it");
    case.sql("insert into app.t (id) values (21)");
    assert!(case.lost());
    case.forget();
    case.as_evil(&hijack());
    case.holds("hijacking");
    case.sql("select count(*) from pg_catalog.pg_class c where c.relname = 'x'");
    assert!(case.lost());
    case.forget();
}

#[test]
fn a_role_that_is_no_superuser_restores_drills_rehearses_and_recovers_without_harm() {
    let case = Case::new();
    // The event trigger's owner is a superuser: a restore by somebody else leaves it out or fails, which is not this
    // test's matter.
    case.sql("drop event trigger trap");
    case.as_evil(&hijack());
    let project = case.project("deploy");
    project.run(&["apply"]).expect_code(0);
    case.holds("apply");
    let id = project.backup(&[]);
    for arguments in [
        &["drill", "latest"][..],
        &["restore", "latest", "--into", "look"],
        &["restore", "latest", "--dry-run"],
        &["restore", "latest", "--mode", "swap", "--confirm", "shop"],
        &["restore", &id, "--mode", "in-place", "--confirm", "shop"],
        &["backup", "verify", &id, "--level", "restore"],
    ] {
        project.run(arguments).expect_code(0);
        case.holds(&arguments.join(" "));
    }
    project.migration("002_b.sql", "CREATE TABLE app.b (id int);", "DROP TABLE app.b;");
    project.run(&["rehearse"]).expect_code(0);
    case.holds("rehearse");
    // A run that fails after something was committed, all the way down to the restore.
    project.migration("003_c.sql", "UPDATE app.t SET usual = 8; INSERT INTO app.a VALUES (1);", "");
    project.migration("004_d.sql", "SELECT * FROM nowhere;", "");
    let killed = project.command(&["apply"]).env("RIPCORD_FAULTS", "scratch_ready=kill").output().unwrap();
    assert_eq!(killed.status.code(), None, "{}", String::from_utf8_lossy(&killed.stderr));
    project.run(&["recover"]).expect_code(3);
    case.holds("recover");
    assert_eq!(case.sql("select count(*) from app.t"), "20");
}

#[test]
fn our_own_queries_run_nobodys_functions_even_for_a_superuser() {
    let case = Case::new();
    case.sql("drop event trigger trap");
    case.as_evil(&hijack());
    // Looking at the database as a superuser, without changing anything of it: none of it may run what is in it.
    let project = Project::with_url(&case.cluster.url("shop"));
    for arguments in [
        &["backup", "create"][..],
        &["backup", "list"],
        &["restore", "latest", "--dry-run"],
        &["backup", "verify", "latest"],
        &["status"],
        &["doctor"],
        &["lock", "status"],
        &["aside", "list"],
        &["history"],
        &["prune", "--dry-run"],
    ] {
        project.run(arguments).expect_code(0);
        case.holds(&arguments.join(" "));
    }
}

/// Every query above is qualified by hand as well; this is what holds for the one that somebody forgets.
#[tokio::test]
async fn a_session_of_ours_finds_nobodys_functions_for_a_query_that_qualifies_nothing() {
    let case = Case::new();
    case.sql("drop event trigger trap");
    case.as_evil(&hijack());
    let target = crate::postgres_a::target_of(&case.cluster.url("shop"));
    let unqualified = "select count(*) from pg_catalog.pg_class c where c.relname = 'x'";
    let limit = std::time::Duration::from_secs(30);
    for purpose in ["backup", "restore", "recover", "history"] {
        let session = ripcord::postgres::Session::connect(&target, purpose, limit).await.unwrap();
        session.rows(unqualified).await.unwrap();
        case.holds(purpose);
        session.close().await;
    }
    // A migration's session has the database's own, and there the guarded way holds.
    let session = ripcord::postgres::Session::connect(&target, "run", limit).await.unwrap();
    session.ours(unqualified).await.unwrap();
    case.holds("a guarded query");
    session.rows(unqualified).await.unwrap();
    assert!(case.lost());
    case.forget();
}

#[test]
fn a_superuser_is_told_before_it_loads_what_another_role_owns() {
    let case = Case::new();
    let url = case.cluster.url_as("deploy", "x", "shop");
    case.sql("drop event trigger trap");
    let project = Project::with_url(&case.cluster.url("shop"));
    project.backup(&[]);
    // Not the superuser's own: `--server` takes a URL with another role.
    let ran = project.run(&["drill", "latest", "--server", &url]).expect_code(0);
    assert!(!ran.stderr.contains("is a superuser"), "{ran:#?}");
    case.holds("a drill as another role");
    let ran = project.run(&["drill", "latest"]).expect_code(0);
    assert!(ran.stderr.contains("`postgres` is a superuser, and functions of `evil`"), "{ran:#?}");
}

#[test]
fn an_event_trigger_in_a_backup_is_not_made_by_a_role_that_may_not() {
    let case = Case::new();
    let project = case.project("deploy");
    let id = project.backup(&[]);
    case.holds("a backup");
    // No fault of the backup, and nothing is left.
    let ran = project.run(&["drill", &id]).expect_code(1);
    assert!(ran.stderr.contains("event trigger"), "{ran:#?}");
    project.run(&["restore", &id, "--mode", "swap", "--confirm", "shop"]).expect_code(1).expect_end("unchanged", "");
    case.holds("a restore");
    assert_eq!(case.cluster.sql("postgres", "select count(*) from pg_database where datname like 'rc\\_%'"), "0");
}
