//! Databases that are not UTF-8, and settings that change how values are written.

use super::{Project, State, assert_same, properties, state, survives};
use crate::support::{Cluster, Db};

fn owned_by(role: &str, name: &str, options: &str) -> Db<'static> {
    let cluster = Cluster::shared();
    cluster.sql("postgres", &format!("create role {role} login createdb password 'pw'"));
    cluster.database_named(name, &format!("owner {role} {options}"))
}

fn project(role: &str, db: &Db<'_>) -> Project {
    Project::with_url(&db.cluster.url_as(role, "pw", &db.name))
}

#[test]
fn latin1_in_names_rows_and_definitions() {
    let db = owned_by("enc_latin1", "enc_latin1", "encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'");
    db.sql(
        "set client_encoding = 'UTF8'; set session authorization enc_latin1;\n\
         create schema \"schéma\"; create table \"schéma\".\"café\" (id serial primary key, \"né\" text default 'à');\n\
         insert into \"schéma\".\"café\" (\"né\") select 'é' || g || chr(233) from generate_series(1, 500) g;\n\
         create index \"idé\" on \"schéma\".\"café\" (\"né\"); create view \"schéma\".\"vué\" as select 'ß' as \"ß\", * from \"schéma\".\"café\";\n\
         create table plain (a int, b bytea); insert into plain values (1, '\\xe9ff00'); comment on table plain is 'été';\n\
         select lo_from_bytea(920001, '\\xe9ff00'); create sequence \"séq\"; select setval('\"séq\"', 5);\n\
         create materialized view \"mé\" as select count(*) as \"né\" from \"schéma\".\"café\";",
    );
    let name = db.name.clone();
    let cluster = db.cluster;
    cluster.sql("postgres", &format!("comment on database {name} is 'été'"));
    survives(&project("enc_latin1", &db), &db, "DROP TABLE \"schéma\".\"café\" CASCADE;");
}

#[test]
fn raw_bytes_in_sql_ascii() {
    let db = owned_by("enc_ascii", "enc_ascii", "encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'");
    db.sql(
        "set session authorization enc_ascii;\n\
         create table bytes (id int primary key, t text default E'\\xe9'); insert into bytes select g, E'\\xe9\\xff raw ' || g from generate_series(1, 300) g;\n\
         create view raw as select E'\\xfe\\xff' as v; comment on table bytes is E'\\xfd';\n\
         create function raw() returns text language sql as E'select ''\\xfc''::text';\n\
         create sequence sq; select setval('sq', 12);",
    );
    survives(&project("enc_ascii", &db), &db, "UPDATE bytes SET t = 'gone';\nDROP TABLE bytes;");
}

/// No letters are known for such names, so that nothing can be counted by them: a backup and all that is beside
/// works, and a run that must be undone leaves the decision to a person.
#[test]
fn raw_bytes_in_names_of_sql_ascii() {
    let db = owned_by("enc_rawname", "enc_rawname", "encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'");
    db.sql(
        "set session authorization enc_rawname; create table plain (i int); insert into plain values (1);\n\
         do $$ begin\n\
           execute format('create table %I (%I text default %L)', convert_from('\\x74e9ff', 'SQL_ASCII'), convert_from('\\x63fe', 'SQL_ASCII'), convert_from('\\x64fd', 'SQL_ASCII'));\n\
           execute format('insert into %I values (%L)', convert_from('\\x74e9ff', 'SQL_ASCII'), convert_from('\\xfefdfc', 'SQL_ASCII'));\n\
         end $$;",
    );
    let before = state(db.cluster, "enc_rawname");
    let project = project("enc_rawname", &db);
    project.run(&["backup", "create"]).expect_code(0);
    project.run(&["restore", "latest", "--into", "enc_rawname_copy"]).expect_code(0);
    assert_same(&before, &state(db.cluster, "enc_rawname_copy"), "the copy");
    db.cluster.sql("postgres", "drop database enc_rawname_copy");
    project.run(&["drill"]).expect_code(0);
    project.migration("001_wreck.sql", "DROP TABLE plain;", "").migration(
        "002_bad.sql",
        "SELECT * FROM nowhere;",
        "SELECT 1;",
    );
    let ran = project.json(&["apply"]).expect_code(4);
    assert!(ran.stderr.contains("not knowable in every table: invalid byte sequence"), "{ran:#?}");
    let ran = project.json(&["recover", "--writes", "accept-loss"]);
    assert_eq!(ran.result()["outcome"], "restored", "{ran:#?}");
    assert_same(&before, &state(db.cluster, "enc_rawname"), "given up what cannot be counted");
}

#[test]
fn settings_of_the_database_that_change_how_values_are_written() {
    let db = owned_by("enc_settings", "enc_settings", "");
    db.sql(
        "set session authorization enc_settings; set client_min_messages = warning;\n\
         create table v (id int primary key, b bytea, t timestamptz, ts timestamp, d date, i interval, f float8, r real, m money, x xml, c regclass, s text);\n\
         insert into v select g, decode('00ff5c27', 'hex'), '2026-03-29 02:30+00'::timestamptz + g * interval '1 hour', '2026-07-01', '2026-02-03',\n\
           '-1 year 2 days -3:04:05.678', g / 3.0, g / 7.0, g::money, '<a b=\"c\">é</a>', 'pg_class', E'a\\\\b\\'c' from generate_series(1, 50) g;\n\
         create table by_time (t timestamptz) partition by range (t);\n\
         create table by_time_1 partition of by_time for values from ('2026-01-01 00:00+00') to ('2026-06-01 00:00+00');\n\
         insert into by_time values ('2026-03-29 02:30+00'); create table deflt (d timestamptz default '2026-07-01 12:00+00', b bytea default '\\x00ff');\n\
         create index on v (id) where t > '2026-03-30 00:00+00'; create view odd as select 'a\\b' as s, interval '1 day 2 hours' as i;",
    );
    for setting in [
        "bytea_output = 'escape'",
        "timezone = 'Asia/Kathmandu'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = -3",
        "xmlbinary = 'hex'",
        "xmloption = 'document'",
        "standard_conforming_strings = off",
        "backslash_quote = off",
        "quote_all_identifiers = on",
        "search_path = nowhere",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
        "statement_timeout = '2s'",
        "lock_timeout = '500ms'",
        "idle_in_transaction_session_timeout = '1s'",
        "row_security = off",
        "client_min_messages = 'debug1'",
        "check_function_bodies = on",
        "default_table_access_method = 'heap'",
        "transform_null_equals = on",
        "array_nulls = off",
        "client_encoding = 'LATIN1'",
        "default_with_oids = off",
    ] {
        db.cluster.sql("postgres", &format!("alter database enc_settings set {setting}"));
    }
    let cluster = db.cluster;
    assert!(properties(cluster, "enc_settings").len() > 20);
    let before: State = state(cluster, "enc_settings");
    let project = project("enc_settings", &db);
    survives(&project, &db, "DROP TABLE public.v;");
    assert_eq!(state(cluster, "enc_settings"), before);
}

/// Each of these alone must not change a digest: the second backup is read under other settings.
#[test]
fn digests_do_not_depend_on_the_databases_settings() {
    let db = owned_by("enc_digest", "enc_digest", "");
    db.sql(
        "set session authorization enc_digest; create table v (b bytea, t timestamptz, i interval, f float8, m money);\n\
         insert into v select decode('00ff5c27', 'hex'), '2026-03-29 02:30+00', '1 day 2:03', g / 3.0, g::money from generate_series(1, 20) g;",
    );
    let project = project("enc_digest", &db);
    project.migration("001_extra.sql", "CREATE TABLE extra (i int);", "DROP TABLE extra;");
    // A DML in the run makes the DOWN one that must be proved by digests.
    project.migration("002_more.sql", "UPDATE v SET f = f + 1;", "UPDATE v SET f = f - 1;");
    project.migration("003_bad.sql", "SELECT * FROM nowhere;", "SELECT 1;");
    for setting in [
        "bytea_output = 'escape'",
        "timezone = 'Asia/Kathmandu'",
        "intervalstyle = 'sql_standard'",
        "datestyle = 'German'",
    ] {
        db.cluster.sql("postgres", &format!("alter database enc_digest set {setting}"));
        let ran = project.json(&["drill", "--database-url", &db.cluster.url_as("enc_digest", "pw", "enc_digest")]);
        // Nothing to drill before the first backup.
        assert!(ran.code == 0 || setting.starts_with("bytea_output"), "{setting}: {ran:#?}");
        if ran.code != 0 {
            project.run(&["backup", "create"]).expect_code(0);
        }
    }
}
