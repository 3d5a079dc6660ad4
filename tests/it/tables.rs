//! `restore --table` on a real server: one table back, and nothing else touched.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::control::other_programs_folder;
use crate::support::cluster::programs_folder;
use crate::support::{Cluster, Db, Project};

/// The programs of every major version that is at hand: the system's, and those of the wheel.
pub fn every_version() -> Vec<PathBuf> {
    let other = other_programs_folder();
    let wheel = other.parent().and_then(|folder| folder.parent()).map(|folder| folder.join("pginstall/bin"));
    let mut folders = vec![programs_folder(), other];
    folders.extend(wheel.filter(|folder| folder.join("initdb").exists()));
    folders.dedup();
    assert!(folders.len() >= 2, "{folders:?}");
    folders
}

/// A project that uses these programs.
pub fn with_programs(project: Project, programs: &Path) -> Project {
    project.configure(&format!("pg_bin = [{:?}]", programs.to_str().unwrap()));
    project
}

const SHOP: &str = "
    create schema app; create type app.mood as enum ('ok', 'bad');
    create function app.twice(int) returns int language sql immutable as 'select $1 * 2';
    create table customers (id int generated always as identity primary key, name text not null default 'x', m app.mood);
    create table orders (id serial primary key, customer int references customers (id), note text default 'n',
        total numeric default 1.5 check (total > 0), double int generated always as (app.twice(customer)) stored);
    create table lines (id int primary key, \"order\" int references orders (id));
    create index on orders (note); create index on orders (app.twice(customer)); create table \"Odd, \"\"name\" (a text);
    create function tell() returns trigger language plpgsql as 'begin raise exception ''fired''; end';
    insert into customers (name, m) select 'c' || g, 'ok' from generate_series(1, 50) g;
    insert into orders (customer, note) select 1 + g % 50, E'a\\tb\\\\n' || g from generate_series(1, 500) g;
    insert into lines select g, g from generate_series(1, 500) g; insert into \"Odd, \"\"name\" values ('x'), (null);
    create trigger told before insert or update or delete on orders for each row execute function tell();
    alter table orders enable row level security; create policy p on orders using (true);
    grant select on orders to public; comment on table orders is 'all orders'; create view seen as select * from orders;
    create table events (id int, at date not null, kind text, primary key (id, at, kind)) partition by range (at);
    create table events_1 partition of events for values from ('2025-01-01') to ('2025-07-01');
    create table events_2 partition of events for values from ('2025-07-01') to ('2026-01-01') partition by list (kind);
    create table events_2a partition of events_2 for values in ('a'); create table events_2b partition of events_2 default;
    create index on events (kind);
    insert into events select g, date '2025-01-01' + g % 365, case when g % 2 = 0 then 'a' else 'b' end
        from generate_series(1, 1000) g;
    create table base (a int, b text default 'b'); create table derived (c int not null) inherits (base);
    insert into base select g from generate_series(1, 7) g; insert into derived select g, 'd', g from generate_series(1, 9) g;";

fn shop<'a>(db: &Db<'a>) -> Project {
    db.sql(SHOP);
    Project::new(db)
}

#[track_caller]
fn copy_of(result: &Value, table: &str) -> String {
    let tables = result["proof"]["tables"].as_array().unwrap();
    let found = tables.iter().find(|item| item["table"] == table).unwrap_or_else(|| panic!("{result:#}"));
    found["becomes"].as_str().unwrap().to_owned()
}

#[track_caller]
fn frames_are_few(result: &Value) {
    let own = result["proof"]["frames_of_tables"].as_f64().unwrap();
    let opened = result["proof"]["frames_opened"].as_f64().unwrap();
    assert!(opened >= 1.0 && opened <= 1.1 * own + 1.0, "{opened} opened, {own} are theirs");
}

#[test]
fn a_table_that_was_dropped_comes_back_beside() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    let id = project.backup(&[]);
    let rows = "select md5(string_agg(t::text, '|' order by id)) from";
    let before = db.sql(&format!("{rows} (select id, customer, note, total, double from orders) t"));
    db.sql("drop table orders cascade");
    let schema = db.schema();

    let dry = project.run(&["restore", "latest", "--table", "orders", "--dry-run"]).expect_code(0);
    assert!(dry.stderr.contains("`public.orders`, 500 rows"), "{dry:#?}");
    assert!(dry.stderr.contains("TRIGGER public.orders told"), "{dry:#?}");
    assert_eq!(db.schema(), schema, "a dry run makes nothing");

    let ran = project.json(&["restore", "latest", "--table", "orders"]).expect_code(0);

    let result = ran.result();
    assert_eq!(result["outcome"], "done");
    assert_eq!(result["backup_id"], id.as_str());
    assert_eq!(result["proof"]["rows_compared"], 500);
    frames_are_few(&result);
    let time: String = id.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    let copy = copy_of(&result, "public.orders");
    assert_eq!(copy, format!("\"public\".\"orders_restored_{time}\""));
    assert_eq!(db.sql(&format!("{rows} {copy} t")), before);
    assert_eq!(db.sql(&format!("select pg_get_constraintdef(oid) from pg_constraint where conrelid = '{copy}'::regclass and contype in ('p','c','f')")), "PRIMARY KEY (id)");
    assert_eq!(db.sql(&format!("select count(*) from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum where adrelid = '{copy}'::regclass and a.attgenerated = ''")), "0");
    assert_eq!(db.sql(&format!("select count(*) from pg_trigger where tgrelid = '{copy}'::regclass")), "0");
    assert!(db.sql(&format!("select obj_description('{copy}'::regclass)")).contains(&id));
    assert_eq!(db.sql("select count(*) from ripcord.audit_log where action = 'table restored'"), "1");

    // Once more: what is there is not replaced.
    let again = project.run(&["restore", &id, "--table", "orders"]).expect_code(1);
    again.expect_end("unchanged", "DROP TABLE");
    assert_eq!(db.sql(&format!("select count(*) from {copy}")), "500");
}

#[test]
fn the_living_table_is_not_touched_and_the_copy_is_its_owners_alone() {
    let db = Cluster::shared().database();
    db.sql("create role tables_owner; create role tables_reader; grant create on schema public to tables_owner");
    let project = shop(&db);
    db.sql("alter table customers owner to tables_owner");
    project.backup(&[]);
    db.sql("update customers set name = 'changed'; alter table orders drop column note cascade; alter default privileges grant all on tables to tables_reader, public");
    let state = || {
        (
            db.schema(),
            db.sql("select xmin, * from customers order by id"),
            db.sql("select last_value from customers_id_seq"),
        )
    };
    let before = state();

    let ran = project.json(&["restore", "latest", "--table", "customers", "--table", "public.orders"]).expect_code(0);

    let result = ran.result();
    let (customers, orders) = (copy_of(&result, "public.customers"), copy_of(&result, "public.orders"));
    assert_eq!(db.sql(&format!("select count(*) from {customers} where name like 'c%'")), "50");
    assert_eq!(db.sql(&format!("select count(note) from {orders}")), "500");
    let rights = |table: &str| {
        db.sql(&format!("select pg_get_userbyid(relowner) || ' ' || coalesce(array_length(relacl, 1)::text, '') from pg_class where oid = '{table}'::regclass"))
    };
    assert_eq!((rights(&customers).trim(), rights(&orders).trim()), ("tables_owner 1", "postgres 1"));
    db.sql(&format!("drop table {customers}, {orders}"));
    assert_eq!(state(), before);
}

#[test]
fn partitions_come_with_their_table_and_children_beside_it() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    project.backup(&[]);
    db.sql("drop table events; delete from base");

    let ran = project.json(&["restore", "latest", "--table", "events", "--table", "base"]).expect_code(0);

    let result = ran.result();
    assert_eq!(result["proof"]["rows_compared"], 1016);
    frames_are_few(&result);
    let events = copy_of(&result, "public.events");
    assert_eq!(
        db.sql(&format!("select count(*) || ' ' || count(distinct id) || ' ' || min(kind) || max(kind) from {events}")),
        "1000 1000 ab"
    );
    assert_eq!(db.sql(&format!("select relkind from pg_class where oid = '{events}'::regclass")), "r");
    let (base, derived) = (copy_of(&result, "public.base"), copy_of(&result, "public.derived"));
    assert_eq!(
        db.sql(&format!(
            "select (select count(*) from {base}) || ' ' || (select count(*) from {derived} where c = a and b = 'd')"
        )),
        "7 9"
    );
}

#[test]
fn into_a_new_database_with_what_the_tables_stand_on() {
    for programs in every_version() {
        let cluster = Cluster::start_with(&programs, &[]);
        let db = cluster.database();
        let project = with_programs(shop(&db), &programs);
        project.backup(&[]);
        let (schema, asked) = (db.schema(), ["orders", "customers", "events_2", "base", "Odd, \"name"]);
        let mut arguments = vec!["restore", "latest", "--into", "shop_look"];
        arguments.extend(asked.iter().flat_map(|table| ["--table", table]));

        let ran = project.json(&arguments).expect_code(0);

        let result = ran.result();
        assert!(result["database"].as_str().unwrap().starts_with("`shop_look` holds"), "{ran:#?}");
        frames_are_few(&result);
        let look = |sql: &str| cluster.sql("shop_look", sql);
        let here = "select count(*) || ' ' || md5(string_agg(t::text, '|' order by t::text)) from";
        for table in ["orders", "customers", "events_2", "only base", "derived", "\"Odd, \"\"name\""] {
            assert_eq!(look(&format!("{here} {table} t")), db.sql(&format!("{here} {table} t")), "{table}");
        }
        // Defaults, sequences and constraints work as they did.
        assert_eq!(look("insert into orders (customer) values (3) returning id, note, total, double"), "501|n|1.5|6");
        assert_eq!(look("insert into customers default values returning id"), "51");
        let kinds = "select string_agg(contype::text || ':' || conrelid::regclass, ' ') from (select contype, conrelid from pg_constraint where conrelid in ('orders'::regclass, 'events_2a'::regclass, 'customers'::regclass) and contype in ('p','f','c') order by contype::text || conrelid::regclass::text) c";
        assert_eq!(look(kinds), db.sql(kinds), "{kinds}");
        assert_eq!(look("select count(*) from pg_indexes where tablename = 'orders'"), "3");
        assert_eq!(look("select obj_description('orders'::regclass)"), "all orders");
        // What acts on others or lets others in is not there, and is told.
        assert_eq!(look("select count(*) from pg_trigger where not tgisinternal"), "0");
        assert_eq!(
            look(
                "select relrowsecurity || ' ' || coalesce(relacl::text, '-') from pg_class where oid = 'orders'::regclass"
            ),
            "false -"
        );
        assert_eq!(look("select count(*) from pg_class where relname in ('lines', 'seen')"), "0");
        assert_eq!(look("select has_database_privilege('public', 'shop_look', 'connect')"), "f");
        let left: Vec<&str> =
            result["proof"]["left_out"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        for name in [
            "TRIGGER public.orders told",
            "POLICY public.orders p",
            "ROW SECURITY public.orders",
            "ACL public.TABLE orders",
        ] {
            assert!(left.contains(&name), "{name}: {left:?}");
        }
        // The root of the partition is needed for its definition only.
        assert_eq!(result["proof"]["definitions_only"], serde_json::json!(["public.events"]));
        assert!(
            cluster
                .sql("postgres", "select string_agg(datname, ' ') from pg_database where datname like 'rc\\_%'")
                .is_empty()
        );
        assert_eq!(db.schema(), schema, "the target is not touched");
        let taken = project.run(&["restore", "latest", "--table", "orders", "--into", "shop_look"]).expect_code(1);
        assert!(taken.stderr.contains("`shop_look` already"), "{taken:#?}");
    }
}

#[test]
fn only_the_tables_own_frames_are_opened() {
    let db = Cluster::shared().database();
    db.sql(
        "create table aside (id int, v text); create table big (id int primary key, v text); create table last (id int, v text);
         insert into aside select g, md5(g::text) from generate_series(1, 400000) g;
         insert into big select g, md5(g::text) from generate_series(1, 200000) g;
         insert into last select g, md5(g::text) from generate_series(1, 400000) g;",
    );
    let project = Project::new(&db);
    let id = project.backup(&[]);
    let all = std::fs::read_dir(project.store()).unwrap().count();
    assert!(all > 0);

    let result = project
        .json(&["restore", &id, "--table", "big", "--into", &format!("{}_big", db.name)])
        .expect_code(0)
        .result();

    frames_are_few(&result);
    let own = result["proof"]["frames_of_tables"].as_u64().unwrap();
    let shown = project.json(&["backup", "show", &id]).expect_code(0).items();
    let frames = shown[0]["raw_bytes"].as_u64().unwrap().div_ceil(1 << 20);
    assert!(own >= 7 && own * 3 < frames, "{own} of {frames} frames: the figure must be able to differ");
    assert_eq!(db.cluster.sql(&format!("{}_big", db.name), "select count(*) from big"), "200000");
}

#[test]
fn a_damaged_frame_leaves_nothing_behind() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    db.sql("insert into lines select g, 1 from generate_series(1000, 300000) g");
    project.backup(&[]);
    let stream = find(&project.store(), "0.rip");
    let mut bytes = std::fs::read(&stream).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&stream, bytes).unwrap();
    let schema = db.schema();
    let into = format!("{}_lines", db.name);

    for arguments in
        [vec!["restore", "latest", "--table", "lines"], vec!["restore", "latest", "--table", "lines", "--into", &into]]
    {
        let ran = project.run(&arguments).expect_code(6);
        assert!(ran.stderr.contains("frame"), "{ran:#?}");
    }
    assert_eq!(db.schema(), schema);
    assert_eq!(db.sql(&format!("select count(*) from pg_database where datname in ('{into}') or datname like 'rc\\_%' and pg_get_userbyid(datdba) = 'nobody'")), "0");
}

/// The first file of that name below a folder.
pub fn find(folder: &Path, name: &str) -> PathBuf {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_name() == name {
            return entry.path();
        }
        if entry.path().is_dir() && !entry.path().ends_with("runs") {
            let found = find(&entry.path(), name);
            if found.exists() {
                return found;
            }
        }
    }
    PathBuf::new()
}

#[test]
fn names_are_found_as_people_type_them() {
    let db = Cluster::shared().database();
    let project = shop(&db);
    db.sql("create schema other; create table other.lines (a int); create table \"Upper\" (a int)");
    project.backup(&[]);
    let dry = |table: &str| project.run(&["restore", "latest", "--dry-run", "--table", table]);

    for (typed, means) in [
        ("ORDERS", "`public.orders`"),
        ("public.Orders", "`public.orders`"),
        ("\"Upper\"", "`public.Upper`"),
        ("Upper", "`public.Upper`"),
        ("public.Upper", "`public.Upper`"),
        ("other.lines", "`other.lines`, 0 rows"),
        ("public.\"Odd, \"\"name\"", "`public.Odd, \"name`, 2 rows"),
    ] {
        let ran = dry(typed).expect_code(0);
        assert!(ran.stderr.contains(means), "{typed}: {ran:#?}");
    }
    for (typed, told) in [
        ("ordres", "near to it are `orders`"),
        ("public.custmers", "near to it are `public.customers`"),
        ("lines", "2 relations are called `lines`"),
        ("seen", "`seen` is a view"),
        ("nothing_like_it", "has no table `nothing_like_it`"),
    ] {
        let ran = dry(typed).expect_code(2);
        assert!(ran.stderr.contains(told), "{typed}: {ran:#?}");
    }
    project.run(&["restore", "latest", "--table", "orders", "--confirm", &db.name]).expect_code(2);
    project.run(&["restore", "latest", "--table", "orders", "--mode", "swap"]).expect_code(2);
}

#[test]
fn other_encodings_keep_their_letters() {
    let cluster = Cluster::shared();
    let db = cluster.database_named("tables_latin1", "encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'");
    db.sql(
        "set client_encoding = 'UTF8'; create table \"café\" (id int primary key, \"né\" text);
         insert into \"café\" select g, 'é' || g from generate_series(1, 300) g;",
    );
    let project = Project::new(&db);
    project.backup(&[]);

    let result = project.json(&["restore", "latest", "--table", "café"]).expect_code(0).result();
    let copy = copy_of(&result, "public.café");
    assert_eq!(
        db.sql(&format!("set client_encoding = 'UTF8'; select count(*) from {copy} where \"né\" = 'é' || id")),
        "300"
    );
    project.json(&["restore", "latest", "--table", "café", "--into", "tables_latin1_look"]).expect_code(0);
    let look = "set client_encoding = 'UTF8'; select count(*) from \"café\" where \"né\" = 'é' || id";
    assert_eq!(cluster.sql("tables_latin1_look", look), "300");
}
