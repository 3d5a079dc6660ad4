-- Drizzle has applied the first of the two.
CREATE SCHEMA drizzle;
CREATE TABLE drizzle.__drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at bigint);
{file:0000_late_thor.sql}
INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES ('{sha256:0000_late_thor.sql}', 1735689600000);
