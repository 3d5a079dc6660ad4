=== table: how far each feature is, and who has it
-- When an earlier feature has made the table, keep the INSERT alone.
CREATE TABLE {table} (
    feature text PRIMARY KEY,
    enabled boolean NOT NULL DEFAULT false,
    percentage integer NOT NULL DEFAULT 0 CHECK (percentage BETWEEN 0 AND 100)
);
-- The same user stays in, whatever the percentage grows to: SELECT {schema}.{bare}_has('{feature}', 'user 42');
CREATE FUNCTION {schema}.{bare}_has(wanted text, who text) RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM {table} AS p WHERE p.feature = wanted AND p.enabled
       AND (hashtextextended(wanted || ':' || who, 0) & 2147483647) % 100 < p.percentage
);
INSERT INTO {table} (feature) VALUES ('{feature}');
=== down
DROP FUNCTION {schema}.{bare}_has(text, text);
DROP TABLE {table};
=== to_10: a tenth of the users
-- ripcord: allow destructive it is one row of our own
-- ripcord: allow destructive-without-down it is one row of our own
UPDATE {table} SET enabled = true, percentage = 10 WHERE feature = '{feature}';
=== down
UPDATE {table} SET enabled = false, percentage = 0 WHERE feature = '{feature}';
=== to_50: half of the users
=== later: the tenth is well
-- ripcord: allow destructive it is one row of our own
-- ripcord: allow destructive-without-down it is one row of our own
UPDATE {table} SET percentage = 50 WHERE feature = '{feature}';
=== down
UPDATE {table} SET percentage = 10 WHERE feature = '{feature}';
=== to_100: everybody
=== later: the half is well
-- ripcord: allow destructive it is one row of our own
-- ripcord: allow destructive-without-down it is one row of our own
UPDATE {table} SET percentage = 100 WHERE feature = '{feature}';
=== down
UPDATE {table} SET percentage = 50 WHERE feature = '{feature}';
=== done: the feature is nothing special any more
=== later: no running version of the application asks for it
-- ripcord: allow destructive it is one row of our own
-- ripcord: allow destructive-without-down it is one row of our own
DELETE FROM {table} WHERE feature = '{feature}';
=== down
INSERT INTO {table} (feature, enabled, percentage) VALUES ('{feature}', true, 100);
