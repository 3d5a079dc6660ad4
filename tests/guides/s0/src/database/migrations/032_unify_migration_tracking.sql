-- Migration: one table for all that was applied
CREATE TABLE IF NOT EXISTS schema_migrations (
  id SERIAL PRIMARY KEY,
  version VARCHAR(255) UNIQUE NOT NULL,
  applied_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  execution_time_ms INTEGER,
  checksum VARCHAR(64),
  success BOOLEAN NOT NULL DEFAULT TRUE,
  error_message TEXT,
  created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE OR REPLACE VIEW migration_system_status AS
  SELECT count(*) AS total, count(*) FILTER (WHERE success) AS successful FROM schema_migrations;
CREATE OR REPLACE FUNCTION get_migration_summary() RETURNS TABLE (total bigint) LANGUAGE sql AS
  $$ SELECT count(*) FROM schema_migrations $$;
