//! Names that need quoting, that are not ASCII, or that are as long as a name may be.

use super::survives;
use crate::support::{Cluster, Project};

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The same name for database, role, schema, table, column, sequence, function and more.
#[track_caller]
fn everything_called(name: &str) {
    let cluster = Cluster::shared();
    let q = quoted(name);
    cluster.sql("postgres", &format!("create role {q} login createdb password 'pw'"));
    let db = cluster.database_named(name, &format!("owner {q}"));
    db.sql(&format!(
        "set session authorization {q}; create schema {q}; set search_path = {q};\n\
         create type {q} as enum ({literal}, 'b');\n\
         create sequence {seq}; select nextval('{seq_literal}');\n\
         create table {table} (id int primary key, {q} {q} default {literal}); insert into {table} values (1), (2);\n\
         create index {index} on {table} ({q}); create view {view} as select * from {table};\n\
         create function {q}() returns trigger language plpgsql as $$ begin return new; end $$;\n\
         create trigger {q} before insert on {table} for each row execute function {q}();\n\
         create policy {q} on {table} using (true); comment on table {table} is {literal};\n\
         grant select on {table} to public; grant usage on schema {q} to public;",
        literal = literal(name),
        seq = quoted(&variant(name, '1')),
        seq_literal = quoted(&variant(name, '1')).replace('\'', "''"),
        table = quoted(&variant(name, '2')),
        index = quoted(&variant(name, '3')),
        view = quoted(&variant(name, '4')),
    ));
    cluster.sql(
        "postgres",
        &format!("alter role {q} in database {q} set work_mem = '3MB'; comment on database {q} is {}", literal(name)),
    );
    let project = Project::with_url(&cluster.url_as(name, "pw", name));
    survives(&project, &db, &format!("DROP SCHEMA {q} CASCADE;"));
}

/// Another name of the same length and kind.
fn variant(name: &str, digit: char) -> String {
    let mut text: Vec<char> = name.chars().collect();
    text[0] = digit;
    text.into_iter().collect()
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[test]
fn quotes_spaces_and_what_a_shell_or_a_url_would_eat() {
    everything_called(r#"xA "b" 'c' $d %40;--\e /f?g=h&i#j"#);
}

#[test]
fn letters_that_are_not_ascii() {
    everything_called("xÜnï Größe 数据库 🦀");
}

#[test]
fn sixty_three_bytes() {
    let name = format!("x{}", "é".repeat(31));
    assert_eq!(name.len(), 63);
    everything_called(&name);
}

#[test]
fn words_that_libpq_would_take_for_something_else() {
    everything_called("xdbname=postgres host=nowhere");
}
