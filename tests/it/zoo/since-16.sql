-- New in PostgreSQL 16.
create schema new16; set search_path = new16, public;
create table stored (t text storage external, u text); alter table stored alter u set storage default; insert into stored values ('x', 'y');
create view v_json as select '{"a": 1}' is json object as a, json_object('k': 1, 'l': null absent on null) as b, json_array(1, 2 null on null) as c, json_arrayagg(i order by i returning jsonb) as d from (values (1), (2)) v (i);
create view v_any as select any_value(i) as a, 0x1F + 0b11 + 1_000 as n from (values (1)) v (i);
create publication p_root for table tab.by_range with (publish_via_partition_root); create subscription any_origin connection 'dbname=x' publication p with (connect = false, slot_name = none, origin = none, streaming = parallel, password_required = false, run_as_owner = true);
reset search_path;
