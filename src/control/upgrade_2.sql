-- The control schema, from version 1 to version 2: undoing a migration from SQL alone. Run in one transaction, with
-- search_path = pg_catalog, pg_temp; a new schema is made by schema.sql and then by this.

comment on schema ripcord is 'control schema of ripcord, version 2';
update ripcord.meta set schema_version = 2;

alter table ripcord.schema_migrations add column down_digest text;
comment on column ripcord.schema_migrations.down_digest is 'SHA-256 of down_sql as ripcord kept it, hexadecimal';

-- All that follows runs with the caller's rights. Only DOWN itself runs under the caller's search_path, as it would
-- when typed.
create function ripcord.undo_from_sql(wanted text, callers_search_path text) returns text
    language plpgsql volatile security invoker
    set search_path = pg_catalog, pg_temp
as $body$
declare
    lock_key constant bytea := sha256(convert_to('ripcord lock ' || current_database(), 'UTF8'));
    callers_role constant text := current_setting('role');
    caller constant name := session_user;
    undone record;
    told text;
    began timestamptz;
begin
    -- Nobody else begins meanwhile: every run writes this table first.
    begin
        lock table ripcord.lock, ripcord.runs in share row exclusive mode nowait;
    exception when lock_not_available then
        raise exception 'ripcord is at work in this database' using errcode = 'lock_not_available',
            hint = 'wait until it has ended, or: ripcord lock status';
    end;
    select format('`%s` of %s@%s, process %s, since %s', command, holder, host, pid, since) into told from ripcord.lock;
    if told is null then
        select 'process ' || pid || ' of the server holds the lock' into told from pg_locks
         where locktype = 'advisory' and granted and objsubid = 1
           and classid::bigint = (get_byte(lock_key, 0)::bigint << 24) + (get_byte(lock_key, 1) << 16)
                               + (get_byte(lock_key, 2) << 8) + get_byte(lock_key, 3)
           and objid::bigint = (get_byte(lock_key, 4)::bigint << 24) + (get_byte(lock_key, 5) << 16)
                             + (get_byte(lock_key, 6) << 8) + get_byte(lock_key, 7)
         limit 1;
    end if;
    if told is not null then
        raise exception 'ripcord is at work in this database: %', told using errcode = 'lock_not_available',
            hint = 'wait until it has ended, or: ripcord lock status';
    end if;
    select format('%s (%s)', id, command) into told from ripcord.runs
     where finished_at is null order by started_at limit 1;
    if told is not null then
        raise exception 'run % was not finished', told using errcode = 'object_not_in_prerequisite_state',
            hint = 'ripcord recover';
    end if;

    -- The owner of these tables can write a DOWN of their own choice into them.
    select pg_get_userbyid(space.nspowner)::text into told
      from pg_namespace as space join pg_roles as owner on owner.oid = space.nspowner
     where space.nspname = 'ripcord' and not owner.rolsuper
       and exists (select from pg_roles where rolsuper and rolname in (current_user, session_user));
    if told is not null then
        raise exception 'the schema ripcord belongs to `%`, who is no superuser, and you are one', told
            using errcode = 'insufficient_privilege', hint = format('connect as %I', told);
    end if;

    select id, coalesce(copy_of, id) as place, version, name, checksum, batch, state, down_sql, down_digest,
           text_omitted, version || '_' || name as label
      into undone
      from ripcord.schema_migrations
     where state in ('applied', 'baseline')
       and (wanted is null or wanted in (version, name, version || '_' || name))
     order by coalesce(copy_of, id) desc, id desc
     limit 1;
    if not found then
        raise exception '%', coalesce('no applied migration is called `' || wanted || '`', 'no migration is applied')
            using errcode = 'no_data_found', hint = 'select version, name, state from ripcord.schema_migrations';
    end if;
    if wanted is not null and (select count(*) from ripcord.schema_migrations
                                where state in ('applied', 'baseline')
                                  and wanted in (version, name, version || '_' || name)) > 1 then
        raise exception '`%` means more than one applied migration', wanted using errcode = 'ambiguous_parameter',
            hint = 'give its version';
    end if;
    select string_agg('`' || version || '_' || name || '`', ', ' order by coalesce(copy_of, id) desc) into told
      from ripcord.schema_migrations
     where state in ('applied', 'baseline') and coalesce(copy_of, id) > undone.place;
    if told is not null then
        raise exception '`%` cannot go alone: applied after it: %', undone.label, told
            using errcode = 'dependent_objects_still_exist',
            hint = 'undo those first; what does not depend on it: ripcord rollback --only ' || undone.version;
    end if;
    if undone.state = 'baseline' then
        raise exception '`%` is a baseline: ripcord did not apply it', undone.label
            using errcode = 'object_not_in_prerequisite_state', hint = 'ripcord repair --forget ' || undone.version;
    end if;
    if coalesce(undone.down_sql, '') !~ '\S' then
        raise exception 'there is no DOWN for `%`%', undone.label, coalesce(': too long to be kept: ' || undone.text_omitted, '')
            using errcode = 'no_data_found', hint = 'ripcord restore latest --before ' || undone.version;
    end if;
    if undone.down_digest is null then
        raise exception 'what tells a changed DOWN from the one that was applied was not kept for `%`', undone.label
            using errcode = 'object_not_in_prerequisite_state', hint = 'ripcord rollback';
    end if;
    if encode(sha256(convert_to(undone.down_sql, 'UTF8')), 'hex') <> undone.down_digest then
        raise exception 'the DOWN of `%` is not the one that was kept when it was applied', undone.label
            using errcode = 'data_corrupted', hint = 'ripcord rollback, with the file that was applied';
    end if;

    began := clock_timestamp();
    begin
        perform set_config('search_path', callers_search_path, true);
        execute undone.down_sql;
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    exception when active_sql_transaction or feature_not_supported or invalid_transaction_termination then
        raise exception 'the DOWN of `%` cannot run inside a transaction: %', undone.label, sqlerrm
            using errcode = sqlstate, hint = 'ripcord rollback';
    end;
    perform set_config('role', callers_role, true);
    if session_user <> caller then
        raise exception 'the DOWN of `%` went on as another user', undone.label using errcode = 'insufficient_privilege',
            hint = 'ripcord rollback';
    end if;

    update ripcord.schema_migrations set state = 'rolled_back' where id = undone.id and state = undone.state;
    if not found then
        raise exception 'the DOWN of `%` changed the history itself', undone.label using errcode = 'data_corrupted',
            hint = 'ripcord rollback, with the file that was applied';
    end if;
    insert into ripcord.rollback_history
           (migration_id, version, name, checksum, batch, run_id, how, execution_time_ms, rolled_back_by, tool_version)
    values (undone.id, undone.version, undone.name, undone.checksum, undone.batch, null, 'sql',
            round(extract(epoch from clock_timestamp() - began) * 1000), session_user || ' (SQL)',
            (select tool_version from ripcord.meta));
    insert into ripcord.audit_log (run_id, action, actor, detail)
    values (null, 'rolled back from SQL', session_user || ' (SQL)',
            jsonb_build_object('migration', undone.label, 'application', current_setting('application_name'),
                               'client', coalesce(host(inet_client_addr()), 'local')));
    return format('`%s` is rolled back; no backup was taken, and nothing was compared', undone.label);
end
$body$;

create function ripcord.rollback_last_migration() returns text
    language sql volatile security invoker
as $body$
    select ripcord.undo_from_sql(null, pg_catalog.current_setting('search_path'))
$body$;
comment on function ripcord.rollback_last_migration() is 'undoes the last applied migration by its kept DOWN';

create function ripcord.rollback_migration(wanted text) returns text
    language sql volatile security invoker
as $body$
    select ripcord.undo_from_sql(coalesce(wanted, ''), pg_catalog.current_setting('search_path'))
$body$;
comment on function ripcord.rollback_migration(text) is 'undoes this migration by its kept DOWN, when it is the last';

revoke all on function ripcord.undo_from_sql(text, text) from public;
revoke all on function ripcord.rollback_last_migration() from public;
revoke all on function ripcord.rollback_migration(text) from public;

-- ALTER DEFAULT PRIVILEGES may have granted what nobody asked for here.
do $body$
declare
    granted record;
begin
    for granted in
        select distinct routine.oid::regprocedure as routine, roles.rolname
          from pg_proc as routine
         cross join lateral aclexplode(routine.proacl) as grants
          join pg_roles as roles on roles.oid = grants.grantee
         where routine.pronamespace = 'ripcord'::regnamespace
           and routine.proname in ('undo_from_sql', 'rollback_last_migration', 'rollback_migration')
           and roles.oid <> routine.proowner
    loop
        execute format('revoke all on function %s from %I cascade', granted.routine, granted.rolname);
    end loop;
end
$body$;
