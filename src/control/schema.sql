-- The control schema, version 1, which upgrade_2.sql brings to version 2. Run once, in one transaction, with
-- search_path = pg_catalog, pg_temp. What stands here is compared with the catalog before every use (schema_*.expected)
-- and stands in databases: a change is another upgrade, not a change of this file.

create schema ripcord;
comment on schema ripcord is 'control schema of ripcord, version 1';

create table ripcord.meta (
    only_row boolean not null default true,
    lineage uuid not null,
    schema_version integer not null,
    created_at timestamptz not null default pg_catalog.now(),
    created_by text not null default current_user,
    tool_version text not null,
    constraint meta_pkey primary key (only_row),
    constraint meta_only_row check (only_row)
);

create table ripcord.schema_migrations (
    id bigint generated always as identity,
    version text not null,
    name text not null,
    checksum text not null,
    loose_checksum text,
    batch integer not null,
    state text not null,
    applied_at timestamptz not null,
    execution_time_ms bigint not null,
    success boolean not null,
    error text,
    applied_by text not null,
    approver text,
    git_commit text,
    run_id uuid,
    tool_version text not null,
    up_sql text,
    down_sql text,
    text_omitted text,
    copy_of bigint,
    constraint schema_migrations_pkey primary key (id),
    constraint schema_migrations_state check (state in (
        'applied', 'baseline', 'failed', 'failed_reset', 'rolled_back', 'restored_away', 'superseded', 'forgotten'))
);
create unique index schema_migrations_in_effect on ripcord.schema_migrations (version)
    where state in ('applied', 'baseline');
comment on column ripcord.schema_migrations.text_omitted is 'which text was too long to be kept, and its size';
comment on column ripcord.schema_migrations.copy_of is
    'the row whose migration a restore put in effect again; it keeps that row''s place in the order';

create table ripcord.backup_history (
    id uuid not null,
    run_id uuid,
    database text not null,
    purpose text not null,
    server_version text not null,
    tool_version text not null,
    started_at timestamptz not null,
    finished_at timestamptz,
    raw_bytes bigint,
    stored_bytes bigint,
    compression text not null,
    key_ids text[] not null,
    digest text,
    status text not null,
    error text,
    verified_at timestamptz,
    drilled_at timestamptz,
    pinned boolean not null,
    deleted_at timestamptz,
    location text not null,
    constraint backup_history_pkey primary key (id),
    constraint backup_history_status check (status in (
        'running', 'failed', 'complete', 'verified', 'damaged', 'deleted'))
);

create table ripcord.runs (
    id uuid not null,
    command text not null,
    environment text,
    started_at timestamptz not null,
    finished_at timestamptz,
    outcome text,
    exit_code integer,
    database_state text,
    error text,
    backup_id uuid,
    batch integer,
    holder text not null,
    tool_version text not null,
    constraint runs_pkey primary key (id)
);

create table ripcord.audit_log (
    id bigint generated always as identity,
    at timestamptz not null default pg_catalog.clock_timestamp(),
    run_id uuid,
    action text not null,
    actor text not null,
    detail jsonb not null,
    reason text,
    constraint audit_log_pkey primary key (id)
);

create table ripcord.rollback_history (
    id bigint generated always as identity,
    at timestamptz not null default pg_catalog.clock_timestamp(),
    migration_id bigint not null,
    version text not null,
    name text not null,
    checksum text not null,
    batch integer not null,
    run_id uuid,
    how text not null,
    execution_time_ms bigint not null,
    rolled_back_by text not null,
    tool_version text not null,
    constraint rollback_history_pkey primary key (id)
);

create table ripcord.lock (
    only_row boolean not null default true,
    run_id uuid not null,
    command text not null,
    holder text not null,
    host text not null,
    pid integer not null,
    since timestamptz not null,
    heartbeat timestamptz not null,
    expires_at timestamptz not null,
    constraint lock_pkey primary key (only_row),
    constraint lock_only_row check (only_row)
);

create table ripcord.releases (
    id bigint generated always as identity,
    at timestamptz not null default pg_catalog.clock_timestamp(),
    kind text not null,
    name text not null,
    version text not null,
    created_by text not null,
    constraint releases_pkey primary key (id),
    constraint releases_kind check (kind in ('tag', 'release')),
    constraint releases_name unique (kind, name)
);

-- History moves forward only: rows are added, and some may be updated, but none ever goes.
create function ripcord.refuse_change() returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $body$
begin
    raise exception '% of ripcord.% is refused: it keeps every row that it ever had', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end
$body$;

create trigger append_only before update or delete or truncate on ripcord.audit_log
    for each statement execute function ripcord.refuse_change();
create trigger append_only before update or delete or truncate on ripcord.rollback_history
    for each statement execute function ripcord.refuse_change();
create trigger keep_rows before delete or truncate on ripcord.schema_migrations
    for each statement execute function ripcord.refuse_change();
create trigger keep_rows before delete or truncate on ripcord.backup_history
    for each statement execute function ripcord.refuse_change();
create trigger keep_rows before delete or truncate on ripcord.runs
    for each statement execute function ripcord.refuse_change();
-- ALWAYS: session_replication_role = replica does not pass them.
alter table ripcord.audit_log enable always trigger append_only;
alter table ripcord.rollback_history enable always trigger append_only;
alter table ripcord.schema_migrations enable always trigger keep_rows;
alter table ripcord.backup_history enable always trigger keep_rows;
alter table ripcord.runs enable always trigger keep_rows;

create function ripcord.get_migration_summary(
    out total bigint,
    out applied bigint,
    out failed bigint,
    out rolled_back bigint,
    out last_batch integer,
    out last_applied_at timestamptz,
    out average_execution_time_ms numeric)
    language sql stable security invoker
    set search_path = pg_catalog, pg_temp
as $body$
    select count(*),
           count(*) filter (where state in ('applied', 'baseline')),
           count(*) filter (where state = 'failed'),
           count(*) filter (where state = 'rolled_back'),
           max(batch),
           max(applied_at) filter (where state in ('applied', 'baseline')),
           round(avg(execution_time_ms) filter (where success and state <> 'baseline'), 1)
      from ripcord.schema_migrations
$body$;

create function ripcord.system_checks()
    returns table (check_name text, status text, details text)
    language sql stable security invoker
    set search_path = pg_catalog, pg_temp
as $body$
    with migrations as (
        select count(*) filter (where state in ('applied', 'baseline')) as in_effect,
               count(*) filter (where state = 'failed') as failed,
               count(*) filter (where state = 'rolled_back') as rolled_back,
               max(batch) as last_batch,
               max(applied_at) filter (where state in ('applied', 'baseline')) as last_applied_at
          from ripcord.schema_migrations
    ), backups as (
        select max(started_at) filter (where status in ('complete', 'verified')) as last_good,
               max(drilled_at) as last_drill,
               count(*) filter (where status = 'damaged') as damaged
          from ripcord.backup_history
    ), run_counts as (
        select count(*) as unfinished from ripcord.runs where finished_at is null
    ), lock_state as (
        select max(holder || '@' || host || ', process ' || pid || ', since ' || since) as holder from ripcord.lock
    )
    select checks.check_name, checks.status, checks.details
      from migrations, backups, run_counts, lock_state,
           lateral (values
               (1, 'total_migrations', 'ok', in_effect::text),
               (2, 'failed_migrations', case when failed = 0 then 'ok' else 'failed' end, failed::text),
               (3, 'rolled_back_migrations', 'ok', rolled_back::text),
               (4, 'last_batch', 'ok', coalesce(last_batch::text, 'none')),
               (5, 'last_applied', 'ok', coalesce(last_applied_at::text, 'never')),
               (6, 'last_backup_age', case when last_good is null then 'warning' else 'ok' end,
                   coalesce(date_trunc('second', clock_timestamp() - last_good)::text, 'no good backup')),
               (7, 'damaged_backups', case when damaged = 0 then 'ok' else 'failed' end, damaged::text),
               (8, 'last_drill_age', case when last_drill is null then 'warning' else 'ok' end,
                   coalesce(date_trunc('second', clock_timestamp() - last_drill)::text, 'never')),
               (9, 'unfinished_runs', case when unfinished = 0 then 'ok' else 'warning' end, unfinished::text),
               (10, 'lock', 'ok', coalesce(holder, 'free'))
           ) as checks (place, check_name, status, details)
     order by checks.place
$body$;

create view ripcord.migration_system_status as
    select check_name, status, details from ripcord.system_checks();

revoke all on schema ripcord from public;
revoke all on all tables in schema ripcord from public;
revoke all on all sequences in schema ripcord from public;
revoke all on all routines in schema ripcord from public;

-- ALTER DEFAULT PRIVILEGES may have granted what nobody asked for here.
do $body$
declare
    grantee text;
begin
    for grantee in
        select distinct roles.rolname
          from (select nspacl as acl from pg_namespace where nspname = 'ripcord'
                union all
                select relacl from pg_class where relnamespace = 'ripcord'::regnamespace
                union all
                select proacl from pg_proc where pronamespace = 'ripcord'::regnamespace) as lists
         cross join lateral aclexplode(lists.acl) as grants
          join pg_roles as roles on roles.oid = grants.grantee
         where roles.oid <> (select nspowner from pg_namespace where nspname = 'ripcord')
    loop
        execute format('revoke all on schema ripcord from %I cascade', grantee);
        execute format('revoke all on all tables in schema ripcord from %I cascade', grantee);
        execute format('revoke all on all sequences in schema ripcord from %I cascade', grantee);
        execute format('revoke all on all routines in schema ripcord from %I cascade', grantee);
    end loop;
end
$body$;
