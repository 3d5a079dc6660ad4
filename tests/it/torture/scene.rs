//! What a round stands on: a database with an application's tables, ten migrations, and what it must look like before
//! and after them.

use std::collections::HashMap;

use super::plan::{Ending, Plan, Role};
use crate::support::{Cluster, Db, Project};

/// Rows of `accounts`, and of `queue`.
pub const ACCOUNTS: i64 = 50;
pub const QUEUED: i64 = 3000;

/// The password of the roles that are no superusers.
const PASSWORD: &str = "torture";

/// The tables that the application does not write to: their rows tell before from after.
const BASE: &str = "
    create table events (n bigint primary key, at timestamptz not null default now());
    create table accounts (id int primary key, balance bigint not null default 0);
    insert into accounts select g, 0 from generate_series(1, 50) g;
    create table queue (id bigint primary key, payload text not null);
    insert into queue select g, md5(g::text) from generate_series(1, 3000) g;
    create table products (id int primary key, name text not null, price int not null, note text);
    insert into products select g, 'product ' || g, g % 97, md5(g::text) || md5((g + 1)::text) from generate_series(1, 3000) g;
    create table legacy (id int primary key, body text);
    insert into legacy select g, md5(g::text) || md5((g * 7)::text) || md5((g * 11)::text) from generate_series(1, 3000) g;
    create index products_price on products (price);
    grant select, insert, update, delete on all tables in schema public to app;";

/// A cluster with the databases that rounds are copied from.
pub struct Stage {
    pub cluster: Cluster,
    states: HashMap<String, State>,
}

/// A schema, and the rows of the tables that only migrations write to.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    pub schema: String,
    pub rows: String,
}

impl Stage {
    pub fn new() -> Stage {
        let cluster = Cluster::start(&["autovacuum_naptime = 5"]);
        cluster.sql(
            "postgres",
            &format!(
                "create role deploy login createdb password '{PASSWORD}'; grant pg_signal_backend to deploy;
                 create role app login password '{PASSWORD}';
                 create database base template template0 owner deploy"
            ),
        );
        cluster.sql("base", "alter schema public owner to deploy");
        cluster.sql("base", &format!("set role deploy; {BASE}"));
        Stage { cluster, states: HashMap::new() }
    }

    /// A database like the base one, and a project for it.
    pub fn set(&self, plan: &Plan, port: u16) -> (Db<'_>, Project) {
        let createdb = if plan.role == Role::WithoutCreatedb { "nocreatedb" } else { "createdb" };
        self.cluster.sql("postgres", &format!("alter role deploy {createdb}"));
        let name = format!("t{}", plan.seed);
        self.cluster.sql("postgres", &format!("drop database if exists {name}"));
        let db = self.cluster.database_like(&name, "base", "deploy");
        let url = |user: &str, password: &str| {
            self.cluster
                .url_as(user, password, &name)
                .replace(&format!(":{}/", self.cluster.port()), &format!(":{port}/"))
        };
        let url = match plan.role {
            Role::Superuser => url("postgres", crate::support::cluster::PASSWORD),
            Role::Owner | Role::WithoutCreatedb => url("deploy", PASSWORD),
        };
        let project = Project::with_url(&url);
        project.configure("[timeouts]\nlock = \"3s\"\nconnect = \"10s\"\n[retry]\nattempts = 3\ndelay = \"100ms\"\n");
        let well = match plan.ending {
            Ending::HealthRed => "select to_regclass('public.t10') is null",
            _ => "select true",
        };
        project.configure(&format!(
            "[[health]]\nsql = \"{well}\"\nsuccesses = 1\ninterval = \"50ms\"\ndeadline = \"400ms\"\n"
        ));
        self.migrations(plan, &project);
        (db, project)
    }

    pub fn writer_url(&self, db: &Db<'_>) -> String {
        self.cluster.url_as("app", PASSWORD, &db.name)
    }

    fn migrations(&self, plan: &Plan, project: &Project) {
        for (number, (up, down)) in ten(plan).iter().enumerate() {
            project.migration(&format!("{:03}_step.sql", number + 1), up, down);
        }
    }

    /// What the ten make of the base database when nothing disturbs them; looked at once for each kind of ten.
    pub fn after(&mut self, plan: &Plan) -> State {
        let ten = ten(plan);
        let text: Vec<String> = ten.iter().map(|(up, _)| up.clone()).collect();
        let role = if plan.role == Role::Superuser { "postgres" } else { "deploy" };
        let key = format!("{role} {}", text.concat());
        if let Some(known) = self.states.get(&key) {
            return known.clone();
        }
        let db = self.cluster.database_like("reference", "base", "deploy");
        for up in text.iter().filter(|_| plan.ending != Ending::LastFails) {
            for statement in up.split(";\n") {
                db.sql(&format!("set role {role};\n{statement};"));
            }
        }
        let state = state(&db);
        self.cluster.sql("postgres", "drop database reference");
        self.states.insert(key, state.clone());
        state
    }

    /// What the base database is.
    pub fn before(&mut self) -> State {
        if let Some(known) = self.states.get("") {
            return known.clone();
        }
        let state = state(&Db { cluster: &self.cluster, name: "base".to_owned() });
        self.states.insert(String::new(), state.clone());
        state
    }
}

/// Schema and rows, but for what the application writes and what is ripcord's.
pub fn state(db: &Db<'_>) -> State {
    let rows = db.sql(
        "select string_agg(c.relname || ' ' || md5(query_to_xml(format('select * from public.%I order by 1', c.relname), \
                false, false, '')::text), E'\\n' order by c.relname) \
         from pg_class c where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace \
         and c.relname not in ('events', 'accounts', 'queue')",
    );
    State { schema: db.schema(), rows }
}

/// Ten migrations, UP and DOWN: additive ones; one outside a transaction; with `dml` an UPDATE and one in batches; with
/// `destroys` one that drops a column and a table; the last of them fails where it is to.
fn ten(plan: &Plan) -> Vec<(String, String)> {
    let concurrently = if plan.atomic { "" } else { "CONCURRENTLY " };
    let mut ten = vec![
        ("CREATE TABLE t1 (id int PRIMARY KEY, note text);".to_owned(), "DROP TABLE t1;".to_owned()),
        ("ALTER TABLE events ADD COLUMN note text;".into(), "ALTER TABLE events DROP COLUMN note;".into()),
        (
            format!(
                "CREATE INDEX {concurrently}accounts_balance ON accounts (balance);\n\
                 COMMENT ON INDEX accounts_balance IS 'by balance';\n\
                 CREATE INDEX {concurrently}products_name ON products (name);"
            ),
            format!(
                "DROP INDEX {concurrently}IF EXISTS products_name;\nDROP INDEX {concurrently}IF EXISTS accounts_balance;"
            ),
        ),
        ("CREATE VIEW dear AS SELECT id, price FROM products WHERE price > 50;".into(), "DROP VIEW dear;".into()),
    ];
    if plan.dml {
        ten.push((
            "UPDATE products SET price = price + 1 WHERE id % 3 = 0;".into(),
            "UPDATE products SET price = price - 1 WHERE id % 3 = 0;".into(),
        ));
        let batch = if plan.atomic { "" } else { "-- ripcord: batch size=500 pause=5ms\n" };
        ten.push((
            format!("{batch}UPDATE legacy SET body = 'x' || body WHERE body NOT LIKE 'x%';"),
            "UPDATE legacy SET body = substr(body, 2);".into(),
        ));
    } else {
        ten.push(("CREATE TABLE t5 (id int);".into(), "DROP TABLE t5;".into()));
        ten.push(("CREATE TYPE mood AS ENUM ('well', 'ill');".into(), "DROP TYPE mood;".into()));
    }
    if plan.destroys {
        ten.push((
            "ALTER TABLE products DROP COLUMN note;".into(),
            "ALTER TABLE products ADD COLUMN note text;".into(),
        ));
        ten.push(("DROP TABLE legacy;".into(), "CREATE TABLE legacy (id int PRIMARY KEY, body text);".into()));
    } else {
        ten.push(("CREATE TABLE t7 AS SELECT 7 AS id;".into(), "DROP TABLE t7;".into()));
        ten.push((
            "ALTER TABLE t1 ADD CONSTRAINT t1_note CHECK (note <> '') NOT VALID;".into(),
            "ALTER TABLE t1 DROP CONSTRAINT t1_note;".into(),
        ));
    }
    ten.push((
        "CREATE FUNCTION nine() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 9';".into(),
        "DROP FUNCTION nine();".into(),
    ));
    ten.push(match plan.ending {
        Ending::LastFails => ("SELECT * FROM nowhere;".into(), "SELECT 1;".into()),
        _ => ("CREATE TABLE t10 (id int);".into(), "DROP TABLE t10;".into()),
    });
    ten
}
