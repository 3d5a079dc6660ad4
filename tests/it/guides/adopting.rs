//! What `adopt` takes, and what it refuses.

use crate::support::{Cluster, Project};

const TABLE: &str = "create table schema_migrations (version text primary key, applied_at timestamptz default now(), \
                     checksum text, success boolean default true);
                     insert into schema_migrations (version) values ('001_shop.sql');";

#[test]
fn nothing_to_adopt_writes_nothing() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    project.run(&["adopt"]).expect_code(2).expect_end("unchanged", "ripcord baseline VERSION");
    assert_eq!(db.sql("select count(*) from pg_namespace where nspname = 'ripcord'"), "0");
    // Tables of the same name that are none of these are left alone.
    db.sql("create table schema_migrations (version bigint primary key, dirty boolean)");
    project.run(&["adopt"]).expect_code(2);
    project.run(&["apply"]).expect_code(0);
}

#[test]
fn what_would_run_their_code_is_refused_and_nothing_of_it_runs() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    db.sql(
        "create table canary (at timestamptz);
         create function evil() returns boolean language plpgsql as
             $$ begin insert into public.canary values (now()); return true; end $$;
         create function evil_trigger() returns trigger language plpgsql as
             $$ begin insert into public.canary values (now()); return new; end $$;",
    );
    let refused = |what: &str, says: &str| {
        for arguments in [&["adopt"][..], &["adopt", "--dry-run"], &["adopt", "--compat"]] {
            let ran = project.run(arguments).expect_code(7);
            assert!(ran.stderr.contains(says), "{what}: {ran:#?}");
        }
        project.run(&["apply"]).expect_code(7);
        project.run(&["status"]).expect_code(0);
        assert_eq!(db.sql("select count(*) from canary"), "0", "{what}");
    };
    db.sql(
        "create view schema_migrations as
         select 'x'::text as version, now() as applied_at, public.evil() as success from generate_series(1, 3)",
    );
    refused("a view", "it is a view, and no ordinary table");
    db.sql("drop view schema_migrations");
    db.sql(TABLE);
    db.sql("create trigger t after insert or update on schema_migrations for each row execute function evil_trigger()");
    refused("a trigger", "DROP TRIGGER t ON \"public\".\"schema_migrations\";");
    db.sql("drop trigger t on schema_migrations");
    db.sql("create rule r as on insert to schema_migrations do also select public.evil()");
    refused("a rule", "it has rules: r");
    db.sql("drop rule r on schema_migrations");
    db.sql("create domain word as text; alter table schema_migrations drop column checksum, add column checksum word");
    project.run(&["adopt"]).expect_code(0);
    assert_eq!(db.sql("select count(*) from canary"), "0");
}

#[test]
fn a_policy_on_their_table_is_an_error_and_not_run() {
    let db = Cluster::shared().database();
    let role = format!("deploy_{}", db.name);
    db.sql(&format!(
        "create role {role} login password 'x' createdb; grant all on database {} to {role};
         grant {role} to current_user; grant create, usage on schema public to {role};
         create table canary (at timestamptz); grant all on canary to public;
         create function evil() returns boolean language plpgsql as
             $$ begin insert into public.canary values (now()); return true; end $$;
         {TABLE}
         alter table schema_migrations enable row level security;
         create policy p on schema_migrations using (public.evil());
         grant all on schema_migrations to {role};",
        db.name
    ));
    let project = Project::with_url(&db.cluster.url_as(&role, "x", &db.name));
    project.shop();
    let ran = project.run(&["adopt", "--dry-run"]);
    assert!(matches!(ran.code, 1 | 7), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from canary"), "0");
    assert_ne!(project.run(&["apply"]).code, 0);
    assert_eq!(db.sql("select count(*) from canary"), "0");
}

#[test]
fn rollback_scripts_that_others_could_have_written_are_left() {
    for (grants, kept) in [("", "DROP TABLE gone;"), ("grant insert on migration_history to public;", "")] {
        let db = Cluster::shared().database();
        let project = Project::new(&db);
        project.shop();
        db.sql(&format!(
            "create table migration_history (
               id serial primary key, migration_name varchar(255) not null unique, batch_number integer not null,
               executed_at timestamptz default now(), execution_time_ms integer not null,
               checksum varchar(64) not null, status varchar(20) default 'completed', rollback_sql text,
               error_message text, created_at timestamptz default now());
             insert into migration_history (migration_name, batch_number, execution_time_ms, checksum, status, rollback_sql)
             values ('000_gone.sql', 3, 5, 'x', 'completed', 'DROP TABLE gone;'),
                    ('001_shop.sql', 4, 7, 'x', 'completed', 'DROP TABLE orders;'),
                    ('002_fill.sql', 4, 7, 'x', 'in_progress', null);
             create table gone (id int); create table orders (id int primary key, note text); {grants}"
        ));
        let ran = project.run(&["adopt"]).expect_code(0);
        assert_eq!(
            db.sql("select coalesce(down_sql, '') from ripcord.schema_migrations where name = 'gone'"),
            kept,
            "{ran:#?}"
        );
        assert_eq!(ran.stderr.contains("everybody may write to it"), kept.is_empty(), "{ran:#?}");
        assert!(ran.stderr.contains("status `in_progress`"), "{ran:#?}");
        let states = "select string_agg(version || ' ' || state || ' ' || batch, ', ' order by id) \
                      from ripcord.schema_migrations";
        assert_eq!(db.sql(states), "000 applied 3, 001 applied 4, 002 failed 4");
        // A second time, nothing is there to take over.
        project.run(&["adopt"]).expect_code(0).expect_end("unchanged; 0 rows", "ripcord status");
        assert_eq!(db.sql(states), "000 applied 3, 001 applied 4, 002 failed 4");
        project.run(&["apply"]).expect_code(0);
        assert_eq!(db.sql("select count(*) from orders"), "100");
    }
}

#[test]
fn a_lock_that_is_held_keeps_adopt_out() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    db.sql(TABLE);
    db.sql(
        "create table migration_lock (id integer primary key default 1, is_locked boolean default false,
           locked_by varchar(255), locked_at timestamptz, process_id varchar(100), expires_at timestamptz);
         insert into migration_lock values (1, true, 'migration-17', now(), '17', now() + interval '5 minutes')",
    );
    let ran = project.run(&["adopt"]).expect_code(5);
    assert!(ran.stderr.contains("migration-17"), "{ran:#?}");
    db.sql("update migration_lock set expires_at = now() - interval '1 second'");
    project.run(&["adopt"]).expect_code(0);
}

#[test]
fn a_restore_to_before_the_adoption_asks_for_it_again() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    db.sql(TABLE);
    db.sql("create table orders (id int primary key, note text)");
    project.backup(&[]);
    project.run(&["adopt"]).expect_code(0);
    project.run(&["apply"]).expect_code(0);
    let status = project.run(&["status"]).expect_code(0);
    assert!(status.stdout.contains("up to date"), "{status:#?}");
    let oldest = project.json(&["backup", "list"]).items().last().unwrap()["id"].as_str().unwrap().to_owned();
    project.run(&["restore", &oldest, "--confirm", &db.name]).expect_code(0);
    project.run(&["apply"]).expect_code(7).expect_end("unchanged", "ripcord adopt");
    project.run(&["adopt"]).expect_code(0);
    project.run(&["apply"]).expect_code(0).expect_end("1 migration applied", "");
    assert_eq!(db.sql("select count(*) from orders"), "100");
}

#[test]
fn two_schemas_with_a_history_are_told_apart_by_name() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    project.shop();
    db.sql(TABLE);
    db.sql(
        "create schema other; create table other.migrations (name text, executed_at timestamp default now());
            insert into other.migrations values ('002_fill.sql')",
    );
    let ran = project.run(&["adopt"]).expect_code(2);
    assert!(ran.stderr.contains("`public.schema_migrations`") && ran.stderr.contains("`other.migrations`"), "{ran:#?}");
    project.run(&["adopt", "--from", "nothing"]).expect_code(2);
    project.run(&["adopt", "--from", "other.migrations"]).expect_code(0);
    assert_eq!(db.sql("select string_agg(version, ',') from ripcord.schema_migrations"), "002");
}
