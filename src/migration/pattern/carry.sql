DO $do$
DECLARE
    columns text[] := ARRAY(
        SELECT quote_ident(attname) FROM pg_attribute a JOIN pg_attribute b USING (attname)
         WHERE a.attrelid = '{from}'::regclass AND b.attrelid = '{to}'::regclass AND a.attnum > 0 AND b.attnum > 0
           AND NOT a.attisdropped AND NOT b.attisdropped AND b.attgenerated = '');
BEGIN
    -- As its owner, because who writes to the one may have no right to the other.
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION {schema}.{carry}() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN
                TRUNCATE {to};
                RETURN NULL;
            END IF;
            IF TG_OP <> 'INSERT' THEN
                DELETE FROM {to} WHERE {key} = OLD.{key};
            END IF;
            IF TG_OP <> 'DELETE' THEN
                INSERT INTO {to} (%s) OVERRIDING SYSTEM VALUE VALUES (%s);
            END IF;
            RETURN NULL;
        END $body$
    $function$, array_to_string(columns, ', '), 'NEW.' || array_to_string(columns, ', NEW.'));
END $do$;
CREATE TRIGGER {carry} AFTER INSERT OR UPDATE OR DELETE ON {from}
    FOR EACH ROW EXECUTE FUNCTION {schema}.{carry}();
CREATE TRIGGER {carry}_truncate AFTER TRUNCATE ON {from}
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.{carry}();
