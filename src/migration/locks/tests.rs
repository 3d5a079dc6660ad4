use super::*;

/// `table mode work`, one a lock, of the last statement; behind it what is not known.
fn told(sql: &str) -> String {
    let script = Script::parse(sql, "f.sql", 1).unwrap();
    let touch = touches(&script, script.statements.last().unwrap());
    let held = touch.held.iter().map(|held| format!("{} {} {:?}", held.name, held.mode.name(), held.work));
    held.chain(touch.not_known.iter().map(|why| format!("? {why}"))).collect::<Vec<_>>().join(" | ")
}

/// What servers do is tried in `tests/it/locks.rs`; here is what they cannot show.
#[test]
fn names_are_the_catalogs_and_the_strongest_action_decides() {
    for (sql, expected) in [
        (
            "alter table if exists Shop.\"Order Lines\" drop constraint c, alter a set statistics 5",
            "shop.\"Order Lines\" AccessExclusiveLock Untouched | ? of a foreign key, the table that it refers to (AccessExclusiveLock)",
        ),
        ("create table a (id int, up int references a, b int references b)", "b ShareRowExclusiveLock Untouched"),
        ("drop index concurrently s.i", "s.i ShareUpdateExclusiveLock Untouched"),
        ("with a as (select 1) insert into b select * from a", "b RowExclusiveLock Query"),
        ("vacuum (full off) t", "t ShareUpdateExclusiveLock Scanned"),
        ("begin", ""),
        ("set lock_timeout = '1s'", ""),
    ] {
        assert_eq!(told(sql), expected, "{sql}");
    }
}

#[test]
fn what_a_text_does_not_tell_is_not_guessed() {
    for sql in [
        "do $$ begin execute 'drop table t'; end $$",
        "call p()",
        "select f()",
        "update t set a = f(a)",
        "alter table t frobnicate",
        "creat table t",
        "alter domain d add check (value > 0)",
        "create extension x",
        "drop type x cascade",
        "drop schema s cascade",
        "vacuum",
        "reindex schema s",
        "alter table all in tablespace a set tablespace b",
    ] {
        assert!(told(sql).contains("? "), "{sql}: {}", told(sql));
    }
}

#[test]
fn a_default_is_kept_once_only_when_it_has_one_value() {
    let work = |column: &str| told(&format!("alter table t add column {column}"));
    let of = |column: &str| work(column).trim_start_matches("t AccessExclusiveLock ").to_owned();
    for column in ["a int default 1", "a date default current_date", "a timestamptz(3) default now()", "a text[]"] {
        assert_eq!(of(column), "Untouched", "{column}");
    }
    for column in ["a uuid default gen_random_uuid()", "a bigserial", "a bigint default nextval('s')"] {
        assert_eq!(of(column).split(" | ").next(), Some("Rewritten"), "{column}");
    }
    for column in ["a int default f()", "a my_domain", "a int not null"] {
        assert!(of(column).starts_with("Depends("), "{column}: {}", of(column));
    }
}

#[test]
fn a_long_list_of_rows_is_not_parsed_and_its_table_is_known() {
    let rows = vec!["(1, 'x')"; 30_000].join(", ");
    assert_eq!(told(&format!("INSERT INTO s.t (a, b) VALUES {rows};")), "s.t RowExclusiveLock Query");
}
