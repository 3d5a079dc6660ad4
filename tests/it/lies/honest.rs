//! Migrations whose DOWN brings back what was there.

use super::{Case, case};

/// Those that only remove what the UP added: no row needs to be read.
pub const ADDITIVE: &[Case] = &[
    case("a table", "", "CREATE TABLE t (a int);", "DROP TABLE t;", "additive"),
    case("a table of references", "", "CREATE TABLE t (a int REFERENCES orders);", "DROP TABLE t;", "additive"),
    case("a column", "", "ALTER TABLE orders ADD COLUMN a int;", "ALTER TABLE orders DROP COLUMN a;", "additive"),
    case(
        "a column with a default",
        "",
        "ALTER TABLE orders ADD COLUMN a text NOT NULL DEFAULT 'x';",
        "ALTER TABLE orders DROP COLUMN a;",
        "additive",
    ),
    case("an index", "", "CREATE INDEX i ON orders (note);", "DROP INDEX i;", "additive"),
    case(
        "an index beside the writers",
        "",
        "CREATE INDEX CONCURRENTLY i ON orders (note);",
        "DROP INDEX CONCURRENTLY i;",
        "additive",
    ),
    case("a view", "", "CREATE VIEW v AS SELECT id FROM orders;", "DROP VIEW v;", "additive"),
    case(
        "a materialized view",
        "",
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM orders;",
        "DROP MATERIALIZED VIEW v;",
        "additive",
    ),
    case(
        "a function",
        "",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';",
        "DROP FUNCTION one();",
        "additive",
    ),
    case("a type", "", "CREATE TYPE mood AS ENUM ('a');", "DROP TYPE mood;", "additive"),
    case("a domain", "", "CREATE DOMAIN d AS int CHECK (VALUE > 0);", "DROP DOMAIN d;", "additive"),
    case(
        "a schema with a table",
        "",
        "CREATE SCHEMA s; CREATE TABLE s.t (a int);",
        "DROP TABLE s.t; DROP SCHEMA s;",
        "additive",
    ),
    case("a copy of rows", "", "CREATE TABLE t AS SELECT * FROM orders;", "DROP TABLE t;", "additive"),
    case(
        "a table with row security",
        "",
        "CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (a > 0);",
        "DROP POLICY p ON t; DROP TABLE t;",
        "additive",
    ),
    case(
        "beside functions and triggers of others",
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
         CREATE TRIGGER touched BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch()",
        "CREATE TABLE t AS SELECT * FROM orders; ALTER TABLE orders ADD COLUMN a int;",
        "ALTER TABLE orders DROP COLUMN a; DROP TABLE t;",
        "additive",
    ),
];

/// Those that every row was read for.
pub const WITH_NOBODY_ELSE: &[Case] = &[
    case(
        "a default",
        "",
        "ALTER TABLE orders ALTER note DROP DEFAULT;",
        "ALTER TABLE orders ALTER note SET DEFAULT 'x';",
        "digests",
    ),
    case(
        "NOT NULL",
        "",
        "ALTER TABLE orders ALTER note DROP NOT NULL;",
        "ALTER TABLE orders ALTER note SET NOT NULL;",
        "digests",
    ),
    case(
        "a grant",
        "GRANT SELECT ON orders TO pg_monitor",
        "REVOKE SELECT ON orders FROM pg_monitor;",
        "GRANT SELECT ON orders TO pg_monitor;",
        "digests",
    ),
    case(
        "a comment",
        "COMMENT ON TABLE orders IS 'a'",
        "COMMENT ON TABLE orders IS 'b';",
        "COMMENT ON TABLE orders IS 'a';",
        "digests",
    ),
    case("a name", "", "ALTER TABLE orders RENAME TO orders2;", "ALTER TABLE orders2 RENAME TO orders;", "digests"),
    case(
        "a column's name",
        "",
        "ALTER TABLE orders RENAME note TO words;",
        "ALTER TABLE orders RENAME words TO note;",
        "digests",
    ),
    case(
        "a constraint",
        "",
        "ALTER TABLE orders ADD CONSTRAINT positive CHECK (price > 0);",
        "ALTER TABLE orders DROP CONSTRAINT positive;",
        "digests",
    ),
    case(
        "a foreign key",
        "",
        "ALTER TABLE lines DROP CONSTRAINT lines_order_id_fkey;",
        "ALTER TABLE lines ADD CONSTRAINT lines_order_id_fkey FOREIGN KEY (order_id) REFERENCES orders ON DELETE CASCADE;",
        "digests",
    ),
    case(
        "a trigger",
        "",
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
         CREATE TRIGGER touched BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();",
        "DROP TRIGGER touched ON orders; DROP FUNCTION touch();",
        "digests",
    ),
    case(
        "rows of its own",
        "",
        "INSERT INTO orders VALUES (100, 'new', 1);",
        "DELETE FROM orders WHERE id = 100;",
        "digests",
    ),
    case(
        "rows of its own, with numbers used up",
        "",
        "INSERT INTO lines (order_id) VALUES (1);",
        "DELETE FROM lines WHERE what IS NULL;",
        "digests",
    ),
    case(
        "numbers of a descending sequence used up",
        "CREATE SEQUENCE down INCREMENT BY -1; SELECT nextval('down')",
        "DO $$ BEGIN PERFORM nextval('down'); END $$;",
        "SELECT 1;",
        "digests",
    ),
    case(
        "a change of rows that DO takes back",
        "",
        "DO $$ BEGIN UPDATE orders SET price = price * 2; END $$;",
        "UPDATE orders SET price = price / 2;",
        "digests",
    ),
    case(
        "a type that holds everything",
        "",
        "DO $$ BEGIN EXECUTE 'ALTER TABLE orders ALTER id TYPE bigint'; END $$;",
        "ALTER TABLE orders ALTER id TYPE int;",
        "digests",
    ),
    case("an extension", "", "CREATE EXTENSION pgcrypto;", "DROP EXTENSION pgcrypto;", "digests"),
    case("an owner", "", "ALTER TABLE lines OWNER TO pg_monitor;", "ALTER TABLE lines OWNER TO postgres;", "digests"),
    case(
        "row security",
        "",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY;",
        "ALTER TABLE orders DISABLE ROW LEVEL SECURITY;",
        "digests",
    ),
    case(
        "a disabled trigger",
        "",
        "ALTER TABLE lines DISABLE TRIGGER ALL;",
        "ALTER TABLE lines ENABLE TRIGGER ALL;",
        "digests",
    ),
    case(
        "a default privilege",
        "",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO pg_monitor;",
        "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM pg_monitor;",
        "digests",
    ),
    case(
        "a view's body",
        "CREATE VIEW v AS SELECT id FROM orders",
        "CREATE OR REPLACE VIEW v AS SELECT id FROM orders WHERE id > 3;",
        "CREATE OR REPLACE VIEW v AS SELECT id FROM orders;",
        "digests",
    ),
    case(
        "a partition",
        "CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
        "ALTER TABLE p DETACH PARTITION p1;",
        "ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10);",
        "digests",
    ),
    case("unlogged", "", "ALTER TABLE events SET UNLOGGED;", "ALTER TABLE events SET LOGGED;", "digests"),
    case(
        "a large object of its own",
        "SELECT lo_from_bytea(4720, 'abc')",
        "DO $$ BEGIN PERFORM lo_from_bytea(4721, 'def'); END $$;",
        "DO $$ BEGIN PERFORM lo_unlink(4721); END $$;",
        "digests",
    ),
    case(
        "a setting and a privilege of the database",
        "",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''6MB''', current_database());
                     EXECUTE format('GRANT CREATE ON DATABASE %I TO pg_monitor', current_database()); END $$;",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET work_mem', current_database());
                     EXECUTE format('REVOKE CREATE ON DATABASE %I FROM pg_monitor', current_database()); END $$;",
        "digests",
    ),
    case(
        "a table where an event trigger may do anything",
        "CREATE FUNCTION idle() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER nothing ON ddl_command_end EXECUTE FUNCTION idle()",
        "CREATE TABLE t (a int);",
        "DROP TABLE t;",
        "digests",
    ),
];
