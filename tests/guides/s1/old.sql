-- Brought to 2025-12-29 by the guide's tracker; one attempt failed.
{file:2025-12-28_enable_rls.sql}
{file:2025-12-28_create_crm_tables_final.sql}
{file:2025-12-29_rbac_system.sql}
{file:2025-12-29_seed_granular_permissions.sql}
CREATE TABLE schema_migrations (
  version text PRIMARY KEY,
  checksum text NOT NULL,
  executed_at timestamptz NOT NULL DEFAULT now(),
  execution_time_ms integer,
  success boolean NOT NULL DEFAULT true,
  error_message text
);
INSERT INTO schema_migrations VALUES
  ('2025-12-28_enable_rls', '{sha256:2025-12-28_enable_rls.sql}', '2026-01-01 10:00', 31, true, NULL),
  ('2025-12-28_create_crm_tables_final', '{sha256:2025-12-28_create_crm_tables_final.sql}', '2026-01-01 10:01', 32, true, NULL),
  ('2025-12-29_rbac_system', '{sha256:2025-12-29_rbac_system.sql}', '2026-01-02 10:00', 33, true, NULL),
  ('2025-12-29_seed_granular_permissions', '{sha256:2025-12-29_seed_granular_permissions.sql}', '2026-01-02 10:01', 34, true, NULL),
  ('2026-01-21_failed_migration', '00', '2026-01-21 10:00', 3, false, 'relation "new_table" already exists');
INSERT INTO users (email) VALUES ('a@example.com');
