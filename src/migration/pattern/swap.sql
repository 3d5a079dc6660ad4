LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
DROP TRIGGER {carry} ON {table};
DROP TRIGGER {carry}_truncate ON {table};
ALTER TABLE {table} RENAME TO {aside_bare};
ALTER TABLE {comes} RENAME TO {bare};
-- The numbers go on where they were: of an identity by its own sequence, of a serial by the one of both.
DO $do$
DECLARE
    theirs text := pg_get_serial_sequence('{aside}', '{key}');
    ours text := pg_get_serial_sequence('{table}', '{key}');
BEGIN
    IF ours IS NOT NULL AND theirs IS NOT NULL THEN
        PERFORM setval(ours, nextval(theirs));
    ELSIF theirs IS NOT NULL THEN
        EXECUTE format('ALTER SEQUENCE %s OWNED BY {table}.{key}', theirs);
    END IF;
END $do$;
-- Writes are carried the other way from here on, so that going back loses none.
