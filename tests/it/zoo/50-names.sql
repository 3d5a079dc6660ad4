-- Names that a quote, a pattern, a shell, or a reader of the dump could take for something else.
-- The first bytes of a name, as many as leave room for another ending.
create function pg_temp.short(n text, most int) returns text language plpgsql as $$ begin while octet_length(n) > most loop n := left(n, -1); end loop; return n; end $$;
do $do$
declare n text; s text; k int := 0;
begin
  foreach n in array array['a "b" c', 'it''s', 'select', 'Table', ' leading', 'trailing ', E'new\nline', E'tab\tab', E'back\\slash', '*', 'a*', '?', 'a.b', '"', '""', '"a"."b"', '$1', '^a$', '(a|b)', '[a]', '{2}', '+', '|', '%', '%s', '--x', '-- x', '/*', ';drop', 'é', 'Größe 数据库 🦀', repeat('é', 31) || 'x', repeat('n', 63), 'N' || repeat('N', 62), E'\r\n', E'\x01\x7f', ' ', '\.', 'copy', 'public', 'pg_x', 'ripcord x', 'TABLE DATA', 'rc_0123456789ab', E'\\n', ':v', '\connect x', 'a=b', '@/x'] loop
    k := k + 1;
    s := pg_temp.short(n, 59);
    if s ~ '^pg_' then s := 's ' || s; end if;
    execute format('create schema %I', s || ' s');
    execute format('create table %I.%I (%I int primary key default 3, %I text default %L)', s || ' s', n, n, pg_temp.short(n, 58) || ' 2', n);
    execute format('insert into %I.%I values (%s, %L), (0, null)', s || ' s', n, k, n);
    execute format('insert into %I.%I select g, md5(g::text) from generate_series(100, 100 + %s * 20) g', s || ' s', n, k);
    execute format('comment on table %I.%I is %L; comment on column %I.%I.%I is %L', s || ' s', n, n, s || ' s', n, n, n);
    execute format('create index %I on %I.%I (%I)', pg_temp.short(n, 58) || ' i', s || ' s', n, pg_temp.short(n, 58) || ' 2');
    execute format('create view %I.%I as select %I as %I, %L as %I from %I.%I', s || ' s', pg_temp.short(n, 58) || ' v', n, n, n, pg_temp.short(n, 58) || ' c', s || ' s', n);
    execute format('create sequence %I.%I; select setval(%L, %s)', s || ' s', pg_temp.short(n, 58) || ' q', format('%I.%I', s || ' s', pg_temp.short(n, 58) || ' q'), 100 + k);
    execute format('create function %I.%I(%I int) returns int language sql as $f$ select 1 $f$', s || ' s', n, n);
    execute format('create type %I.%I as enum (%L, %L)', s || ' s', pg_temp.short(n, 58) || ' e', n, pg_temp.short(n, 58) || '2');
    execute format('grant select (%I) on %I.%I to zoo_reader', n, s || ' s', n);
  end loop;
end $do$;
