-- add_new_table.sql
BEGIN;

-- Your migration SQL here
CREATE TABLE IF NOT EXISTS new_table (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  name TEXT NOT NULL
);

COMMIT;
