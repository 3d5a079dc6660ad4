=== new_table: {next}, made like {table}, and as it shall become
-- ripcord: lock-timeout 3s
-- ripcord: retry 5
CREATE TABLE {next} (LIKE {table} INCLUDING ALL);
-- What shall be otherwise goes here, while it is empty: ALTER TABLE {next} …

-- What LIKE does not bring along stops this run. Give it to {next} above, and take its line out here.
DO $do$
DECLARE
    this oid := '{table}'::regclass;
    missing text := concat_ws(', ',
        (SELECT string_agg(format('foreign key %I of %s', conname, conrelid::regclass), ', ')
           FROM pg_constraint WHERE contype = 'f' AND this IN (conrelid, confrelid)),
        (SELECT string_agg(format('trigger %I', tgname), ', ')
           FROM pg_trigger WHERE tgrelid = this AND NOT tgisinternal),
        (SELECT 'row level security and its policies' FROM pg_class
          WHERE oid = this AND (relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = this))),
        (SELECT string_agg(DISTINCT format('view %s', r.ev_class::regclass), ', ')
           FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
          WHERE d.refobjid = this AND r.ev_class <> this),
        (SELECT string_agg(format('partition or child %s', inhrelid::regclass), ', ')
           FROM pg_inherits WHERE this IN (inhparent, inhrelid)),
        (SELECT 'publications' FROM pg_publication_rel WHERE prrelid = this LIMIT 1),
        (SELECT 'privileges on columns' FROM pg_attribute WHERE attrelid = this AND attacl IS NOT NULL LIMIT 1));
    given record;
BEGIN
    IF missing <> '' THEN
        RAISE EXCEPTION '{next} would lack: %', missing;
    END IF;
    EXECUTE format('ALTER TABLE {next} OWNER TO %I', (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = this));
    FOR given IN
        SELECT a.privilege_type AS privilege, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS who
          FROM pg_class c CROSS JOIN aclexplode(c.relacl) a WHERE c.oid = this AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON {next} TO %s', given.privilege, given.who);
    END LOOP;
END $do$;
=== down
DROP TABLE {next};
=== carry: what is written to {table} is written to {next} too
-- ripcord: lock-timeout 3s
-- ripcord: retry 5
{carry_to_next}
=== down
DROP TRIGGER {carry} ON {table};
DROP TRIGGER {carry}_truncate ON {table};
DROP FUNCTION {schema}.{carry}();
=== copy: the rows of before, a thousand at a time
-- ripcord: lock-timeout 3s
-- ripcord: retry 10
-- FOR SHARE: a row that is being written is copied as it was committed, or carried by its writer.
-- ripcord: batch size=1000 pause=100ms key={table}.{key}
INSERT INTO {next} OVERRIDING SYSTEM VALUE
SELECT * FROM {table} WHERE {key} > ? AND {key} <= ? FOR SHARE
ON CONFLICT ({key}) DO NOTHING;
ANALYZE {next};
-- All of them are there, or the run ends here.
DO $do$
BEGIN
    IF EXISTS (SELECT FROM {table} o WHERE NOT EXISTS (SELECT FROM {next} n WHERE n.{key} = o.{key})) THEN
        RAISE EXCEPTION 'rows of {table} are missing in {next}';
    END IF;
END $do$;
=== down
TRUNCATE {next};
=== switch: {next} becomes {table}; the old one is kept as {old}, and in step
-- ripcord: lock-timeout 3s
-- ripcord: retry 10
-- ripcord: allow renaming-table both names change in one transaction
{switch}
=== down
-- ripcord: lock-timeout 3s
{switch_back}
=== stop_carrying: writes no longer reach {old}
=== later: nobody wants to go back to the old table
-- Apart from the drop: who waits for {old} must not hold {table}.
-- ripcord: lock-timeout 3s
-- ripcord: retry 5
-- ripcord: allow missing-down from here on the old table is not what the new one is
DROP TRIGGER {carry} ON {table};
DROP TRIGGER {carry}_truncate ON {table};
DROP FUNCTION {schema}.{carry}();
=== down
-- None: what was written meanwhile is in the new table alone.
=== drop_old: {old} goes
=== later: the one before it is there too
-- ripcord: lock-timeout 3s
-- ripcord: retry 5
-- ripcord: allow destructive the last step: `{old}` is meant to go
-- ripcord: allow missing-down what is dropped is in the backup of this run alone
-- ripcord: allow destructive-without-down what is dropped is in the backup of this run alone
DROP TABLE {old};
=== down
-- None: the backup of this run is the way back.
