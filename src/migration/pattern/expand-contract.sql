=== expand: {table} gets the column {new} beside {column}
-- ripcord: lock-timeout 3s
-- ripcord: retry 5
-- Without a default it is there at once, and no application that is running minds it.
ALTER TABLE {table} ADD COLUMN {new} {type};
=== down
ALTER TABLE {table} DROP COLUMN {new};
=== keep_in_step: whoever writes {column} or {new} writes both
-- ripcord: lock-timeout 3s
-- ripcord: retry 5
CREATE FUNCTION {schema}.{in_step}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- The conversion. Another one goes here, and into the CHECK of the switch.
    converted {type} := NEW.{column};
BEGIN
    IF NEW.{new} IS NOT DISTINCT FROM converted THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.{new} IS NULL THEN
            NEW.{new} := converted;
        ELSE
            NEW.{column} := NEW.{new};
        END IF;
    ELSIF NEW.{column} IS DISTINCT FROM OLD.{column} OR NEW.{new} IS NOT DISTINCT FROM OLD.{new} THEN
        NEW.{new} := converted;
    ELSE
        NEW.{column} := NEW.{new};
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER {in_step} BEFORE INSERT OR UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION {schema}.{in_step}();
=== down
DROP TRIGGER {in_step} ON {table};
DROP FUNCTION {schema}.{in_step}();
=== backfill: the rows of before, a thousand at a time
-- ripcord: allow destructive the column is set to what it is, so that the trigger fills the other one
-- ripcord: allow destructive-without-down what is filled in goes with the new column
-- The trigger converts. Rows that are written meanwhile are in step already.
-- ripcord: batch size=1000 pause=100ms{by_key}
UPDATE {table} SET {column} = {column} WHERE {new} IS NULL AND {column} IS NOT NULL;
=== down
-- What was filled in goes with the column.
SELECT 1;
=== switch: proves that both columns say the same; the application may read {new} from here on
-- ripcord: no-transaction
-- ripcord: lock-timeout 3s
-- VALIDATE reads the table, and keeps nobody out while it does.
ALTER TABLE {table} ADD CONSTRAINT {in_step} CHECK ({new} IS NOT DISTINCT FROM {column}::{type}) NOT VALID;
ALTER TABLE {table} VALIDATE CONSTRAINT {in_step};
=== down
ALTER TABLE {table} DROP CONSTRAINT {in_step};
=== contract: {column} goes, with what kept both in step
=== later: no running version of the application reads or writes `{column}`
-- ripcord: lock-timeout 3s
-- ripcord: retry 5
-- ripcord: allow destructive the last step: `{column}` is meant to go
-- ripcord: allow missing-down what is dropped is in the backup of this run alone
-- ripcord: allow destructive-without-down what is dropped is in the backup of this run alone
ALTER TABLE {table} DROP CONSTRAINT {in_step};
DROP TRIGGER {in_step} ON {table};
DROP FUNCTION {schema}.{in_step}();
ALTER TABLE {table} DROP COLUMN {column};
=== down
-- None: the backup of this run is the way back.
