//! A database like Supabase's: its schemas stay where they are, and PostgREST is told.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use crate::support::{Cluster, Db, Project};

/// Supabase's roles are the server's, so that the server is not the other tests'.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start(&[]);
        cluster.sql("postgres", "create role supabase_admin superuser; create role authenticated");
        cluster
    })
}

/// Its schemas, with an extension in one of them, and tables of a project's own that lean on them.
fn supabase() -> Db<'static> {
    let db = cluster().database();
    db.sql(
        "create schema auth authorization supabase_admin; create schema storage authorization supabase_admin;
         create schema extensions; create extension pgcrypto schema extensions;
         set role supabase_admin;
         create table auth.users (id uuid primary key, email text); create table storage.objects (name text);
         create function auth.uid() returns uuid language sql as 'select null::uuid';
         reset role;
         insert into auth.users values ('00000000-0000-0000-0000-000000000001', 'secret@example.com');
         create table profiles (id uuid primary key references auth.users, name text default extensions.gen_random_uuid());
         alter table profiles enable row level security;
         create policy own on profiles to authenticated using (id = auth.uid());
         insert into profiles values ('00000000-0000-0000-0000-000000000001', 'first')",
    );
    db
}

fn exported(project: &Project) -> String {
    project.run(&["backup", "export", "latest", "--format", "sql", "-o", "-"]).expect_code(0).stdout
}

const OID: &str = "select oid from pg_database where datname = current_database()";
const TOLD: &str = "Supabase manages these schemas, and the backup leaves them out: auth, extensions, storage";

#[test]
fn what_supabase_manages_is_left_out_and_that_is_said() {
    let db = supabase();
    let project = Project::new(&db);

    let ran = project.run(&["backup", "create"]).expect_code(0);

    assert!(ran.stderr.contains(TOLD), "{ran:#?}");
    let sql = exported(&project);
    assert!(sql.contains("TABLE public.profiles") && sql.contains("first"), "{sql}");
    for gone in ["secret@example.com", "TABLE auth.users (", "TABLE storage.objects", "CREATE SCHEMA auth"] {
        assert!(!sql.contains(gone), "{gone}: {sql}");
    }
}

#[test]
fn what_is_configured_wins() {
    let db = supabase();
    let project = Project::new(&db);
    project.configure("[backup]\nexclude_schemas = []");
    let ran = project.run(&["backup", "create"]).expect_code(0);
    assert!(!ran.stderr.contains("Supabase"), "{ran:#?}");
    let sql = exported(&project);
    assert!(sql.contains("secret@example.com") && sql.contains("TABLE storage.objects"), "{sql}");
}

#[test]
fn a_schema_of_that_name_elsewhere_is_backed_up() {
    let db = cluster().database();
    db.sql("create schema auth; create table auth.users (id int); create schema storage; create table storage.box (id int)");
    let project = Project::new(&db);
    project.run(&["backup", "create"]).expect_code(0);
    let sql = exported(&project);
    assert!(sql.contains("TABLE auth.users") && sql.contains("TABLE storage.box"), "{sql}");
}

#[test]
fn a_failed_run_is_restored_in_place_and_the_users_stay() {
    let db = supabase();
    let project = Project::new(&db);
    project.configure("[postgrest]\nnotify = true");
    let oid = db.sql(OID);
    // No DOWN and committed in part: only a restore brings it back.
    project.write(
        "migrations/001_breaks.sql",
        "-- ripcord: no-transaction\ncreate table later (id int);\nalter table profiles drop column name;\n\
         insert into auth.users values ('00000000-0000-0000-0000-000000000002', 'later@example.com');\n\
         select 1 / 0;\n",
    );
    let ran = project.run(&["apply", "--on-failure", "restore", "--force", "--reason", "test"]).expect_code(3);

    assert!(ran.stderr.contains("would not come along: auth, extensions, storage"), "{ran:#?}");
    assert!(ran.stderr.contains("restored in place"), "{ran:#?}");
    assert_eq!(db.sql("select name from profiles"), "first");
    assert_eq!(db.sql("select to_regclass('later') is null"), "t");
    assert_eq!(
        db.sql("select string_agg(email, ' ' order by email) from auth.users"),
        "later@example.com secret@example.com"
    );
    assert_eq!(db.sql(OID), oid);
    // Who listened was sent away like everybody, and reads the schema anew when it connects again.
}

#[test]
fn a_trigger_of_theirs_that_calls_ours_is_told_and_in_the_way() {
    let db = supabase();
    db.sql(
        "create function handle_new_user() returns trigger language plpgsql as 'begin return new; end';
         create trigger t after insert on auth.users for each row execute function handle_new_user()",
    );
    let project = Project::new(&db);
    project.write(
        "migrations/001_breaks.sql",
        "-- ripcord: no-transaction\ncreate table later (id int);\nalter table profiles add column x int;\nselect 1 / 0;\n",
    );

    let ran = project.run(&["apply", "--on-failure", "restore"]).expect_code(4);

    let needs = "trigger t on table auth.users needs function public.handle_new_user()";
    let told = format!("{needs}: a restore in place would be refused until it is dropped");
    assert_eq!(ran.stderr.matches(&told).count(), 1, "{ran:#?}");
    assert!(ran.stderr.contains(&format!("{needs}, and its schema is left out of the backup")), "{ran:#?}");
    // Nothing was begun.
    assert_eq!(db.sql("select to_regclass('later') is not null"), "t");
    db.sql("drop trigger t on auth.users");
    let ran = project.run(&["recover", "--on-failure", "restore"]).expect_code(3);
    assert!(ran.stderr.contains("restored in place"), "{ran:#?}");
    assert_eq!(db.sql("select to_regclass('later') is null"), "t");
}

#[test]
fn a_restore_keeps_what_the_backup_left_out() {
    let db = supabase();
    let project = Project::new(&db);
    project.run(&["backup", "create"]).expect_code(0);
    // Supabase's services write all the time: no restore of such a backup loses that.
    db.sql("insert into auth.users values ('00000000-0000-0000-0000-000000000003', 'new@example.com')");
    db.sql("create table later (id int)");
    let name = db.name.as_str();

    let ran = project.run(&["restore", "latest", "--mode", "swap", "--confirm", name]);
    assert!(ran.code == 1 && ran.stderr.contains("would not come along"), "{ran:#?}");
    project.run(&["restore", "latest", "--writes", "refuse", "--confirm", name]).expect_code(0);
    assert_eq!(db.sql("select to_regclass('later') is null"), "t");
    assert_eq!(db.sql("select count(*) from auth.users"), "2");

    // Under another configuration the same backup would mean that these schemas go.
    project.configure("[backup]\nexclude_schemas = []");
    for mode in ["auto", "in-place"] {
        let ran = project.run(&["restore", "latest", "--mode", mode, "--confirm", name]).expect_code(7);
        assert!(ran.stderr.contains("the backup leaves out schema `auth`, and a restore would drop it"), "{ran:#?}");
    }
    assert_eq!(db.sql("select count(*) from auth.users"), "2");
}

#[test]
fn fresh_does_not_drop_what_no_backup_holds() {
    let db = supabase();
    let project = Project::new(&db);
    project.migration("001_a.sql", "create table a (id int);", "drop table a;");
    let ran = project.run(&["fresh", "--confirm", &db.name]).expect_code(7);
    assert!(ran.stderr.contains("left out are auth, extensions, storage"), "{ran:#?}");
    assert_eq!(db.sql("select count(*) from auth.users"), "1");
}

#[test]
fn postgrest_hears_of_each_change_where_that_is_asked_for() {
    let db = supabase();
    let project = Project::new(&db);
    project.migration("001_a.sql", "create table a (id int);", "drop table a;");
    let changes = |arguments: &[&str]| {
        let listener = Listener::on(&db);
        project.run(arguments).expect_code(0);
        listener.heard()
    };
    assert_eq!(changes(&["apply"]), 0);
    assert_eq!(changes(&["rollback"]), 0);
    project.configure("[postgrest]\nnotify = true");
    assert_eq!(changes(&["apply"]), 1);
    // Nothing was pending.
    assert_eq!(changes(&["apply"]), 0);
    assert_eq!(changes(&["rollback"]), 1);
    // A restore in place sends away who listens like everybody, and who connects again reads the schema anew.
    let listener = Listener::on(&db);
    project.run(&["restore", "latest", "--writes", "accept-loss", "--confirm", &db.name]).expect_code(0);
    assert!(listener.was_sent_away());
}

/// A psql that listens as PostgREST does.
struct Listener {
    psql: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Listener {
    fn on(db: &Db<'_>) -> Listener {
        let mut command = cluster().psql(&db.name);
        let mut psql = command.args(["-At", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(psql.stdout.take().unwrap());
        let mut listener = Listener { psql, lines };
        listener.ask("listen pgrst;\nselect 'ready';\n");
        let mut line = String::new();
        listener.lines.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        listener
    }

    fn ask(&mut self, sql: &str) {
        self.psql.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
    }

    /// Whether its session was ended.
    fn was_sent_away(mut self) -> bool {
        self.ask("select 'over';\n");
        drop(self.psql.stdin.take());
        !self.psql.wait().unwrap().success()
    }

    /// How often it was told to read the schema again.
    fn heard(mut self) -> usize {
        self.ask("select 'over';\nselect 'over';\n");
        drop(self.psql.stdin.take());
        let lines: Vec<String> = self.lines.lines().map(Result::unwrap).collect();
        assert!(self.psql.wait().unwrap().success(), "{lines:?}");
        let told = "Asynchronous notification \"pgrst\" with payload \"reload schema\" received";
        lines.iter().filter(|line| line.starts_with(told)).count()
    }
}
