-- Types, domains, collations, operators, casts, conversions, aggregates, access methods, languages.
create schema types; comment on schema types is 'types''s';
set search_path = types;
create type shell;
create type empty_enum as enum ();
create type mood as enum ('sad', 'so la la', 'ha''ppy', '', ' ', 'ünï', E'a\\b', E'line\nbreak');
alter type mood add value 'first' before 'sad'; alter type mood add value 'middling' after 'so la la';
create type pair as (a int, "B ""q""" text collate "C", c mood[]);
comment on type pair is 'of two'; comment on column pair."B ""q""" is 'the second';
create type nested as (p pair, ps pair[], r int4range);
create type nothing as ();
create domain positive as int default 1 constraint above_zero check (value > 0) constraint below check (value < 1000000);
comment on domain positive is 'above 0'; comment on constraint above_zero on domain positive is 'why';
create domain positives as positive[] not null; create domain of_pair as pair check ((value).a > 0);
create domain odd as positive; alter domain odd add constraint is_odd check (value % 2 = 1) not valid;
create domain collated as text collate "C" default 'x' check (value ~ '^[[:alpha:]\\]*$');
create type floats as range (subtype = float8, subtype_diff = float8mi);
create type texts as range (subtype = text, collation = "C", multirange_type_name = many_texts);
create function floor_of(days int4range) returns int language sql immutable as 'select lower(days)';
create type stepped;
create function stepped_canonical(stepped) returns stepped language internal immutable strict as 'int4range_canonical';
create type stepped as range (subtype = int4, canonical = stepped_canonical, subtype_diff = int4range_subdiff);
-- A base type, made of what the server has built in.
create type whole;
create function whole_in(cstring) returns whole language internal immutable strict as 'int4in';
create function whole_out(whole) returns cstring language internal immutable strict as 'int4out';
create function whole_recv(internal) returns whole language internal immutable strict as 'int4recv';
create function whole_send(whole) returns bytea language internal immutable strict as 'int4send';
create type whole (input = whole_in, output = whole_out, receive = whole_recv, send = whole_send, like = int4, category = 'N', preferred = false, default = '42', delimiter = ';', collatable = false);
create function whole_lt(whole, whole) returns bool language internal immutable strict leakproof as 'int4lt';
create function whole_le(whole, whole) returns bool language internal immutable strict as 'int4le';
create function whole_eq(whole, whole) returns bool language internal immutable strict as 'int4eq';
create function whole_ne(whole, whole) returns bool language internal immutable strict as 'int4ne';
create function whole_ge(whole, whole) returns bool language internal immutable strict as 'int4ge';
create function whole_gt(whole, whole) returns bool language internal immutable strict as 'int4gt';
create function whole_cmp(whole, whole) returns int language internal immutable strict as 'btint4cmp';
create function whole_hash(whole) returns int language internal immutable strict as 'hashint4';
create operator < (leftarg = whole, rightarg = whole, function = whole_lt, commutator = >, negator = >=, restrict = scalarltsel, join = scalarltjoinsel);
create operator > (leftarg = whole, rightarg = whole, function = whole_gt, commutator = <, negator = <=, restrict = scalargtsel, join = scalargtjoinsel);
create operator <= (leftarg = whole, rightarg = whole, function = whole_le, commutator = >=, negator = >);
create operator >= (leftarg = whole, rightarg = whole, function = whole_ge, commutator = <=, negator = <);
create operator = (leftarg = whole, rightarg = whole, function = whole_eq, commutator = =, negator = <>, restrict = eqsel, join = eqjoinsel, hashes, merges);
create operator <> (leftarg = whole, rightarg = whole, function = whole_ne, commutator = <>, negator = =);
create operator !! (rightarg = whole, function = whole_hash); comment on operator !! (none, whole) is 'its hash';
create operator family whole_ops using btree; create operator family whole_ops using hash;
create operator class whole_ops default for type whole using btree family whole_ops as
  operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 whole_cmp(whole, whole);
create operator class whole_ops default for type whole using hash family whole_ops as operator 1 =, function 1 whole_hash(whole);
create function whole_cmp_int(whole, int) returns int language internal immutable strict as 'btint4cmp';
create function whole_lt_int(whole, int) returns bool language internal immutable strict as 'int4lt';
create operator < (leftarg = whole, rightarg = int, function = whole_lt_int);
alter operator family whole_ops using btree add operator 1 < (whole, int), function 1 (whole, int) whole_cmp_int(whole, int);
create operator family lonely using gist; comment on operator family lonely using gist is 'empty';
comment on operator class whole_ops using btree is 'sorts'; alter operator family whole_ops using hash owner to zoo_owner;
create operator class box_ops2 for type box using gist as operator 3 &&, function 1 gist_box_consistent(internal, box, smallint, oid, internal),
  function 2 gist_box_union(internal, internal), function 5 gist_box_penalty(internal, internal, internal), function 6 gist_box_picksplit(internal, internal),
  function 7 gist_box_same(box, box, internal), function 8 (box, box) gist_box_distance(internal, box, smallint, oid, internal), operator 15 <-> (box, point) for order by float_ops;
create function mood_text(mood) returns text language sql immutable as $$ select $1::text $$;
create cast (mood as varchar) with function mood_text(mood) as assignment; comment on cast (mood as varchar) is 'mood to text';
create cast (whole as int) without function as implicit; create cast (int as whole) without function as assignment;
create cast (pair as text) with inout;
create default conversion latin for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8; create conversion "odd conv" for 'UTF8' to 'LATIN1' from utf8_to_iso8859_1;
comment on conversion latin is 'from Latin';
create aggregate total (int) (sfunc = int4pl, stype = int, initcond = '0', combinefunc = int4pl, parallel = safe);
create aggregate moving (float8) (stype = float8, sfunc = float8pl, mstype = float8, msfunc = float8pl, minvfunc = float8mi, initcond = '0', minitcond = '0');
create aggregate middle (float8 order by anyelement) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra);
create aggregate place (variadic "any" order by variadic "any") (sfunc = ordered_set_transition_multi, stype = internal, finalfunc = rank_final, hypothetical);
create aggregate most (whole) (sfunc = int4larger, stype = int4, sortop = >);
create function joined(text, variadic text[]) returns text language sql immutable as 'select $1 || array_to_string($2, '','')';
create aggregate listed (variadic text[]) (sfunc = joined, stype = text, initcond = '');
comment on aggregate total (int) is 'sum'; alter aggregate moving (float8) owner to zoo_owner; grant execute on function total (int) to zoo_reader;
create access method heap2 type table handler heap_tableam_handler; comment on access method heap2 is 'heap again';
create access method gist2 type index handler gisthandler;
create operator class box_ops3 default for type box using gist2 as operator 3 &&, function 1 gist_box_consistent(internal, box, smallint, oid, internal),
  function 2 gist_box_union(internal, internal), function 5 gist_box_penalty(internal, internal, internal), function 6 gist_box_picksplit(internal, internal), function 7 gist_box_same(box, box, internal);
create function plpgsql2_call() returns language_handler language c as '$libdir/plpgsql', 'plpgsql_call_handler';
create function plpgsql2_inline(internal) returns void language c strict as '$libdir/plpgsql', 'plpgsql_inline_handler';
create function plpgsql2_check(oid) returns void language c strict as '$libdir/plpgsql', 'plpgsql_validator';
create trusted language plpgsql2 handler plpgsql2_call inline plpgsql2_inline validator plpgsql2_check;
comment on language plpgsql2 is 'once more'; grant usage on language plpgsql2 to zoo_reader;
create transform for int language plpgsql2 (from sql with function prsd_lextype(internal), to sql with function int4recv(internal));
comment on transform for int language plpgsql2 is 'of int';
create collation plain (provider = libc, locale = 'C'); create collation utf8 (provider = libc, lc_collate = 'C.UTF-8', lc_ctype = 'C'); comment on collation plain is 'bytes';
select exists (select from pg_collation where collname = 'de-x-icu') as icu \gset
\if :icu
create collation caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create collation german (provider = icu, locale = 'de-u-co-phonebk');
create table sorted (a text collate german, b text collate caseless primary key, c text collate "fr-x-icu");
insert into sorted values ('Ärger', 'ABC', 'côte'), ('Arger', 'abd', 'coté');
create index on sorted (a, c collate german desc nulls last);
\endif
grant usage on type mood, pair to zoo_reader with grant option; revoke usage on domain positive from public; alter type nested owner to zoo_owner;
create table of_all (id int primary key, m mood default 'sad', ms mood[], p pair, n nested, d positive, ds positives default '{1}', dp of_pair, o odd, c collated,
  f floats, fs floats_multirange, t texts, ts many_texts, st stepped, w whole, ws whole[], e nothing, im int4multirange, ds2 datemultirange);
insert into of_all values (1, 'ünï', array['', ' ', null, E'a\\b', E'line\nbreak']::mood[], row(1, E'tab\t"q"\\', array['sad', 'ha''ppy']::mood[]), row(row(1, null, null), array[row(2, '', '{}')::pair, null], '[1,5)'),
  7, '{1,2,3}', row(3, 'x', null), 9, 'abc\', '[1.5,2.5)', '{[1,2), [3,4)}', '[a,"b,c")', '{[a,b),[x,)}', '[1,4]', 17, '{1;2;3}', row(), '{[1,3),(5,)}', '{(,2020-01-01)}');
insert into of_all (id) values (2);
create index on of_all (w); create index on of_all using hash (w); create index on of_all using gist (f); create index on of_all using spgist (t);
create table with_heap2 (w whole unique, b box) using heap2; create index on with_heap2 using gist (b box_ops2); create index on with_heap2 using gist2 (b); insert into with_heap2 values (1, '((0,0),(1,1))');
reset search_path;
