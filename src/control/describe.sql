-- Everything that stands in the schema `ripcord` or hangs on its tables, a row each: kind, object, details.
-- Reads catalogs only, so that nobody's code runs; needs search_path = pg_catalog, pg_temp, so that names
-- outside pg_catalog come out qualified.
-- NOT NULL is told with its column: since version 18 it is a constraint of its own too (contype n).
with home as (
    select oid, nspowner, nspacl from pg_namespace where nspname = 'ripcord'
), relation as (
    select class.* from pg_class as class join home on class.relnamespace = home.oid
), routine as (
    select proc.* from pg_proc as proc join home on proc.pronamespace = home.oid
)
select 'relation' as kind, relname::text as object,
       concat_ws(' ', relkind, relpersistence,
                 case when relrowsecurity then 'row security' end,
                 case when relforcerowsecurity then 'forced row security' end,
                 case when relispartition then 'partition' end,
                 case when reloftype <> 0 then 'of type ' || reloftype::regtype::text end) as details
  from relation
union all
select 'column', relname || '.' || attname,
       concat_ws(' ', case when attisdropped then 'dropped' else format_type(atttypid, atttypmod) end,
                 case when attnotnull then 'not null' end,
                 case attidentity when '' then null else 'identity ' || attidentity::text end,
                 case attgenerated when '' then null else 'generated ' || attgenerated::text end,
                 'default ' || pg_get_expr(adbin, adrelid),
                 case when attcollation not in (0, typcollation) then 'collate ' || attcollation::regcollation::text end)
  from relation
  join pg_attribute on attrelid = relation.oid and attnum > 0
  left join pg_type on pg_type.oid = atttypid
  left join pg_attrdef on adrelid = attrelid and adnum = attnum
 where relkind <> 'i' and relkind <> 'S'
union all
select 'constraint', coalesce(conrelid::regclass::text, '-') || '.' || conname,
       pg_get_constraintdef(con.oid) || case when convalidated then '' else ' not validated' end
  from pg_constraint as con
 where contype <> 'n'
   and (conrelid in (select oid from relation) or confrelid in (select oid from relation))
union all
select 'index', relname::text, pg_get_indexdef(indexrelid) || case when indisvalid then '' else ' invalid' end
  from pg_index join pg_class on pg_class.oid = indexrelid
 where indrelid in (select oid from relation)
union all
select 'trigger', tgrelid::regclass::text || '.' || tgname,
       pg_get_triggerdef(pg_trigger.oid) || ' enabled ' || tgenabled::text
  from pg_trigger
 where tgrelid in (select oid from relation)
union all
select 'rule', ev_class::regclass::text || '.' || rulename,
       -- The text of a view's query differs between versions in white space and in naming its only source.
       case when rulename = '_RETURN'
            then replace(regexp_replace(pg_get_viewdef(ev_class), E'\\s+', ' ', 'g'), ' system_checks.', ' ')
            else pg_get_ruledef(pg_rewrite.oid) end || ' enabled ' || ev_enabled::text
  from pg_rewrite
 where ev_class in (select oid from relation)
union all
select 'policy', polrelid::regclass::text || '.' || polname, polcmd::text
  from pg_policy
 where polrelid in (select oid from relation)
union all
select 'inheritance', inhrelid::regclass::text, 'child of ' || inhparent::regclass::text
  from pg_inherits
 where inhrelid in (select oid from relation) or inhparent in (select oid from relation)
union all
select 'statistics', stxnamespace::regnamespace::text || '.' || stxname, 'on ' || stxrelid::regclass::text
  from pg_statistic_ext
 where stxrelid in (select oid from relation)
union all
select 'function', proname || '(' || pg_get_function_arguments(routine.oid) || ')',
       concat_ws(' ', prokind, 'returns ' || coalesce(pg_get_function_result(routine.oid), '-'),
                 'language ' || lanname, 'volatility ' || provolatile::text,
                 case when prosecdef then 'SECURITY DEFINER' end,
                 case when proisstrict then 'strict' end,
                 case when proleakproof then 'leakproof' end,
                 'set ' || array_to_string(proconfig, '; '),
                 'body ' || encode(sha256(convert_to(prosrc, 'UTF8')), 'hex'))
  from routine join pg_language on pg_language.oid = prolang
union all
select 'object', pg_describe_object(classid, objid, objsubid), ''
  from pg_depend join home on refclassid = 'pg_namespace'::regclass and refobjid = home.oid
 where classid <> 'pg_class'::regclass and classid <> 'pg_proc'::regclass
   -- Publishing the tables runs no code of others here.
   and classid <> 'pg_publication_namespace'::regclass
union all
select 'owner', owned.name, 'belongs to ' || pg_get_userbyid(owned.owner)
  from (select relname::text as name, relowner as owner from relation
        union all select proname || '()', proowner from routine) as owned
  join home on owned.owner <> home.nspowner
union all
select 'grant', privilege_type || ' on ' || held.name,
       'to ' || case grantee when 0 then 'PUBLIC' else pg_get_userbyid(grantee) end
  from (select 'schema ripcord' as name, nspowner as owner, nspacl as acl from home
        union all select relname::text, relowner, relacl from relation) as held
 cross join lateral aclexplode(held.acl)
 where grantee <> held.owner and privilege_type <> 'SELECT' and privilege_type <> 'USAGE'
union all
select 'grant', privilege_type || ' on ' || relname || '.' || attname,
       'to ' || case grantee when 0 then 'PUBLIC' else pg_get_userbyid(grantee) end
  from relation join pg_attribute on attrelid = relation.oid
 cross join lateral aclexplode(attacl)
 where grantee <> relowner and privilege_type <> 'SELECT'
