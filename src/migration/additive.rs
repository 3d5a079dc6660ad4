//! What a run's text proves: that it only adds, or that it may destroy.

use std::collections::HashSet;

use super::script::opening;
use super::{Additive, Script, Statement};

/// Whether, by text alone, no UP and no DOWN can change a value or remove a row that was there before
/// the run: every UP only creates, and every DOWN only drops what an UP created. `Err` tells the first
/// statement that breaks it.
///
/// Holds for scripts that ran whole or not at all. Of a script that failed midway outside a transaction
/// only the part that ran may be given.
pub fn additive_run(ups: &[&Script], downs: &[&Script]) -> Result<(), String> {
    additive_run_knowing(ups, downs, |_| None)
}

/// [`additive_run`] for a caller who knows the catalog as it was: `was_there` tells whether an object
/// (`table orders`, `index public.i`) existed before the run, `None` when that is not known. It is asked
/// about what IF NOT EXISTS may or may not have created.
pub fn additive_run_knowing(
    ups: &[&Script],
    downs: &[&Script],
    was_there: impl Fn(&str) -> Option<bool>,
) -> Result<(), String> {
    let mut made = Made::default();
    for (script, statement) in statements(ups) {
        match &statement.effect.additive {
            _ if statement.effect.unknown => {
                return Err(because(script, statement, "UP", "its text does not tell what it does"));
            }
            Additive::Creates(objects) => {
                made.create(objects, |object| !statement.effect.if_not_exists || was_there(object) == Some(false));
            }
            Additive::Nothing => {}
            Additive::Drops(_) | Additive::No if made.only_alters(statement) => {}
            Additive::Drops(_) => {
                return Err(because(script, statement, "UP", "it drops something"));
            }
            Additive::No => {
                let why = why_not(statement);
                return Err(because(script, statement, "UP", &why));
            }
        }
    }
    for (script, statement) in statements(downs) {
        match &statement.effect.additive {
            _ if statement.effect.unknown => {
                return Err(because(script, statement, "DOWN", "its text does not tell what it does"));
            }
            Additive::Nothing => {}
            Additive::Drops(objects) => {
                if let Some(other) = each(objects).into_iter().find(|object| !made.has(object)) {
                    let why = format!("it drops {other}, which no UP of this run is known to have created");
                    return Err(because(script, statement, "DOWN", &why));
                }
            }
            Additive::No if made.only_alters(statement) => {}
            Additive::Creates(_) => {
                return Err(because(script, statement, "DOWN", "it creates something"));
            }
            Additive::No => {
                let why = why_not(statement);
                return Err(because(script, statement, "DOWN", &why));
            }
        }
    }
    Ok(())
}

/// The first statement of the UPs that may destroy data which was there before the run. Drops of what
/// an earlier UP of the run created do not count.
pub fn destroys(ups: &[&Script]) -> Option<String> {
    let mut made = Made::default();
    for (script, statement) in statements(ups) {
        let effect = &statement.effect;
        if let Some(what) = &effect.destroys_data {
            match &effect.additive {
                Additive::Drops(objects) if each(objects).iter().all(|object| made.has(object)) => {
                    made.drop(objects);
                }
                _ => return Some(format!("line {} {what}", script.line(statement))),
            }
        } else if let Additive::Creates(objects) = &effect.additive {
            made.create(objects, |_| !effect.if_not_exists);
        }
    }
    None
}

/// Whether a script executes a query, and with it whatever code a view, a policy or an operator of the database
/// holds. Merely defining a view or a function executes none.
pub fn runs_queries(script: &Script) -> bool {
    script.statements.iter().any(|statement| {
        let text = script.text(statement);
        let words = significant_words(text);
        match words.first().map(String::as_str) {
            Some("alter" | "comment" | "drop" | "set" | "reset" | "lock" | "notify" | "show") => false,
            Some("create") => {
                let kind = words.iter().find(|word| {
                    !matches!(word.as_str(), "create" | "or" | "replace" | "unlogged" | "temp" | "temporary" | "unique")
                });
                let executed = matches!(kind.map(String::as_str), Some("table" | "materialized" | "global" | "local"));
                executed && words.iter().any(|word| word == "as")
            }
            _ => true,
        }
    })
}

/// The words outside quotes and comments, in lower case.
fn significant_words(text: &str) -> Vec<String> {
    let tokens = super::lexer::Lexer::new(text).filter_map(Result::ok);
    tokens
        .filter(|token| token.kind == super::lexer::Kind::Word)
        .map(|token| token.text(text).to_ascii_lowercase())
        .collect()
}

fn statements<'a>(scripts: &'a [&'a Script]) -> impl Iterator<Item = (&'a Script, &'a Statement)> {
    scripts.iter().flat_map(|script| script.statements.iter().map(move |statement| (*script, statement)))
}

fn because(script: &Script, statement: &Statement, side: &str, why: &str) -> String {
    format!("`{}` (line {}, {side}): {why}", opening(script.text(statement)), script.line(statement))
}

fn why_not(statement: &Statement) -> String {
    match &statement.effect.destroys_data {
        Some(what) => format!("it {what}"),
        None => "it is not known to leave everything that was there as it is".to_owned(),
    }
}

/// What the run created.
#[derive(Default)]
struct Made(HashSet<String>);

impl Made {
    fn create(&mut self, objects: &str, certain: impl Fn(&str) -> bool) {
        let new = each(objects).into_iter().filter(|object| certain(object));
        self.0.extend(new.map(str::to_owned));
    }

    fn drop(&mut self, objects: &str) {
        for object in each(objects) {
            self.0.remove(object);
        }
    }

    /// A table that the run created brings its columns and policies with it.
    fn has(&self, object: &str) -> bool {
        let table = if let Some(column) = object.strip_prefix("column ") {
            column.rsplit_once('.').map(|(table, _)| table)
        } else if object.starts_with("policy ") {
            object.rsplit_once(" on ").map(|(_, table)| table)
        } else {
            None
        };
        self.0.contains(object) || table.is_some_and(|table| self.0.contains(&format!("table {table}")))
    }

    fn only_alters(&self, statement: &Statement) -> bool {
        let effect = &statement.effect;
        effect.destroys_data.is_none() && effect.alters.as_ref().is_some_and(|object| self.has(object))
    }
}

/// Several objects in one statement, separated by a comma and a space outside double quotes.
fn each(objects: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    for (at, byte) in objects.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted && objects.as_bytes().get(at + 1) == Some(&b' ') => {
                found.extend(objects.get(start..at));
                start = at + 2;
            }
            _ => {}
        }
    }
    found.extend(objects.get(start..));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(sql: &str) -> Script {
        Script::parse(sql, "f.sql", 1).unwrap()
    }

    fn run(up: &str, down: &str) -> Result<(), String> {
        additive_run(&[&script(up)], &[&script(down)])
    }

    #[test]
    fn additions_and_their_inverse_are_additive() {
        for (up, down) in [
            ("create table t (a int default f());", "drop table if exists t;"),
            ("CREATE TABLE Orders (a int);", "drop table \"orders\";"),
            (
                "alter table t add column a int, add b text default 'x';",
                "alter table t drop column a, drop column if exists b;",
            ),
            ("create index concurrently i on t (a);", "drop index concurrently if exists i;"),
            ("create index i on s.t (a);", "drop index s.i;"),
            ("create view v as select f();", "drop view v;"),
            ("create table a(x int); create table b(y int);", "drop table a, b;"),
            (
                "create table a(x int); alter table a enable row level security; comment on table a is 'x'; comment on column a.x is 'x';",
                "drop table a;",
            ),
            ("create table a(x int);", "alter table a drop column x; drop table a;"),
            ("create policy p on t using (true);", "drop policy p on t;"),
            (
                "create function f(a int) returns int language sql as $$ delete from t returning 1 $$;",
                "drop function f(int);",
            ),
            ("set local lock_timeout = '1s'; select count(*) from t; analyze t; create schema s;", "drop schema s;"),
            ("create table \"a, b\" (x int);", "drop table \"a, b\";"),
            ("", ""),
        ] {
            assert_eq!(run(up, down), Ok(()), "{up} / {down}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        for (up, down) in [
            ("create table if not exists t (a int);", "drop table t;"),
            ("create table t (a int);", "drop table t cascade;"),
            ("create table t (a int);", "drop table u;"),
            ("create table t (a int);", "drop table s.t;"),
            ("create table \"T\" (a int);", "drop table t;"),
            ("create table s.t (a int);", "drop table t;"),
            ("create temp table t (a int);", "drop table t;"),
            ("set search_path = s; create table t (a int);", "drop table t;"),
            ("alter table t add a int;", "alter table u drop a;"),
            ("alter table t add a int;", "alter table t drop b;"),
            ("alter table t add a int, drop b;", ""),
            ("insert into t values (1);", ""),
            ("create table t (a int);", "delete from t; drop table t;"),
            ("create table t (a int); select f();", "drop table t;"),
            ("create table t as select f();", "drop table t;"),
            ("do $$ begin null; end $$;", ""),
            ("alter table t enable row level security;", "alter table t disable row level security;"),
            ("create trigger g before insert on t for each row execute function f();", "drop trigger g on t;"),
            ("create or replace view v as select 1;", "drop view v;"),
            ("comment on table t is 'x';", ""),
            ("alter table t add a uuid default gen_random_uuid();", "alter table t drop a;"),
            ("alter table t add a serial;", "alter table t drop a;"),
            ("create index i on t (f(a));", "drop index i;"),
            ("create table p partition of t for values in (1);", "drop table p;"),
            ("begin; create table t (a int); commit;", "drop table t;"),
            ("creat table t;", "drop table t;"),
            ("alter table t add if not exists a int;", "alter table t drop a;"),
            ("create view t as select 1;", "drop table t;"),
            ("create table t (a int); alter table t rename to u;", "drop table t;"),
            ("create table t (a int); alter table t set schema s;", "drop table t;"),
            ("explain analyze select f();", ""),
            ("with x as (delete from t returning *) select * from x;", ""),
            ("create table u as with x as (delete from t returning *) select * from x;", "drop table u;"),
            ("create schema s create table t (a int);", "drop schema s cascade;"),
            ("alter table t disable trigger all;", ""),
            ("select set_config('search_path', 's', false);", ""),
            ("select pg_catalog.setval('s', 1);", ""),
            ("create table t (a int); create table t2 (a int) inherits (t);", "drop table t2; drop table t;"),
            ("", "create table t (a int);"),
            ("", "drop index i;"),
        ] {
            assert!(run(up, down).is_err(), "{up} / {down}");
        }
    }

    #[test]
    fn what_executes_a_query() {
        let runs = |sql: &str| runs_queries(&script(sql));
        for sql in [
            "select count(*) from t",
            "/* x */ with a as (select 1) table a",
            "create table t as select 1",
            "create materialized view v as select 1",
            "table t",
            "analyze t",
            "create unlogged table t as table u",
        ] {
            assert!(runs(sql), "{sql}");
        }
        for sql in [
            "create view v as select 1",
            "create or replace function f() returns int language sql as 'select 1'",
            "create table t (a int)",
            "alter table t add a int default 1",
            "create index i on t (a)",
            "comment on table t is 'as select'",
            "drop table t",
        ] {
            assert!(!runs(sql), "{sql}");
        }
    }

    #[test]
    fn the_catalog_settles_if_not_exists() {
        let up = script("create table if not exists t (a int);");
        let down = script("drop table t;");
        let run = |known| {
            additive_run_knowing(&[&up], &[&down], |object| {
                assert_eq!(object, "table t");
                known
            })
        };
        assert!(run(None).is_err() && run(Some(true)).is_err());
        assert_eq!(run(Some(false)), Ok(()));
    }

    #[test]
    fn the_first_offender_is_named_with_its_line() {
        let error = run("create table t (a int);\nupdate u set a = 1;", "").unwrap_err();
        assert_eq!(error, "`update u set a = 1` (line 2, UP): it updates `u`");
    }

    #[test]
    fn dropping_what_the_run_made_destroys_nothing() {
        let found = |sql: &str| destroys(&[&script(sql)]);
        assert_eq!(found("create table t (a int); drop table t;"), None);
        assert_eq!(found("alter table u add a int;\nalter table u drop a;"), None);
        assert_eq!(found("create table if not exists t (a int); drop table t;").unwrap(), "line 1 drops table `t`");
        assert_eq!(found("create table t (a int);\ndrop table t, u;").unwrap(), "line 2 drops table `t`, `u`");
        assert_eq!(found("drop table t;\ncreate table t (a int);").unwrap(), "line 1 drops table `t`");
        assert_eq!(
            found("create table t (a int); drop table t; drop table if exists t;").unwrap(),
            "line 1 drops table `t`"
        );
        assert_eq!(
            found(
                "select 'drop table t'; create function f() returns int language plpgsql as $$ begin delete from t; end $$;"
            ),
            None
        );
    }
}
